"""What a node holds and accepts: ``exchange.Replica`` over a store.

Reading and accepting happen in the store's threads, a frame at a time; here is only what must be known without waiting (the signed sizes)
and what follows from what peers say (forks, the fence).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kad_node.fence import FenceState
from kad_node.store.transaction import GOOD_SIZE, micros_now
from kad_node.witness import simpul_of
from kad_protocol import evidence, keychain, merkle, order
from kad_protocol import feed as feeds
from kad_protocol.audience import is_open, only_open
from kad_protocol.entry import parse_entry
from kad_protocol.errors import KadError, NotFoundError, PermissionDeniedError, QuotaError, Reason, StorageError, VerificationError
from kad_protocol.exchange import refusal_of
from kad_protocol.names import FeedId
from kad_protocol.v1 import replication_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from kad_node.fence import Fence
    from kad_node.store.sqlite import SqliteStore
    from kad_node.store.transaction import SqliteTransaction
    from kad_node.witness import Witness
    from kad_protocol.store import StoredEntry

__all__ = ["FOREIGN", "INCONSISTENT", "StoreReplica"]

log = logging.getLogger(__name__)

#: Entries of one's own feed that came from elsewhere, by the index of the first (local affairs of the store).
FOREIGN = "foreign"
#: Kind of the local marks for feeds whose own author sends what does not go on from what is here.
INCONSISTENT = "inconsistent"
_LASTING = b"lasting"
#: Proofs that are passed on; more feeds than this do not fork before somebody looks.
_MOST_EVIDENCE = 64
#: Changes of keys of one feed that are shown to a peer who knows other ones.
_MOST_ROTATIONS = 16
#: What a batch is refused with that its own author cannot send who goes on from what is here.
_OTHER_HISTORY = (Reason.ROOT_MISMATCH, Reason.SIGNATURE_MISSING, Reason.SIGNATURE_INVALID)
_CACHE_BYTES = 8 << 20
_MAX_CONTENT_REPLY_BYTES = 1536 << 10

#: Feed, after, signed size, most entries, and whether it is for members of other federations.
_Key = tuple[FeedId, int, int, int, bool]
Answer = replication_pb2.Ack | replication_pb2.Refusal


class _StrangerError(NotFoundError):
    """A batch of a feed that nobody here vouches for."""

    def __init__(self, feed: FeedId) -> None:
        super().__init__(Reason.UNKNOWN_FEED, f"nobody here vouches for {feed}", feed=feed)
        self.feed = feed


class Quota(Protocol):
    """How much of each feed may be taken (``kad_simpul.quota``)."""

    def check(self, feed: FeedId) -> None:
        """Raise ``QuotaError`` if no more may be taken now."""

    def charge(self, feed: FeedId, entries: int, size: int) -> None:
        """So much was taken."""


class StoreReplica:
    """The feeds of one store."""

    def __init__(self, store: SqliteStore, own: FeedId, fence: Fence, on_open: Callable[[], None]) -> None:
        self._store = store
        self._own = own
        self.fence = fence
        self._on_open = on_open
        self._sizes: dict[FeedId, int] = {}
        self._shared = False
        self._listeners: set[Callable[[Iterable[FeedId]], None]] = set()
        self._cache: OrderedDict[_Key, replication_pb2.Batch] = OrderedDict()
        self._cached_bytes = 0
        #: This member's part in confirming its simpul; None while it only looks.
        self.witness: Witness | None = None
        self._looking: asyncio.Task[None] | None = None
        self._grew_meanwhile = False
        #: Feeds of which another history was shown than is here; True where that does not end when the author goes on.
        self._inconsistent: dict[FeedId, bool] = {}
        self._evidence_version = 0
        self._claims_end: asyncio.TimerHandle | None = None
        self._counting: set[asyncio.Task[None]] = set()
        #: How much of each feed may be taken; a simpul has one.
        self.quota: Quota | None = None
        #: Was this feed given up by its owner? In memory; must not wait.
        self.given_up: Callable[[FeedId], bool] = lambda _: False

    async def start(self) -> None:
        """Read what is held, and follow what changes."""

        def read(tx: SqliteTransaction) -> tuple[dict[FeedId, int], bool, dict[str, bytes], int]:
            sizes = {state.feed: state.signed_size for state in tx.feeds()}
            return sizes, tx.meta("shared") is not None, tx.locals(INCONSISTENT), len(tx.forks(_MOST_EVIDENCE))

        self._store.listen(self._touched)
        sizes, self._shared, inconsistent, self._evidence_version = await self._store.read(read)
        self._sizes = sizes | self._sizes
        self._inconsistent = {FeedId.parse(origin): mark == _LASTING for origin, mark in inconsistent.items()}

    # exchange.Replica

    @property
    def own(self) -> FeedId:
        """See ``exchange.Replica``."""
        return self._own

    def signed_sizes(self) -> dict[FeedId, int]:
        """See ``exchange.Replica``."""
        return self._sizes

    def listen(self, listener: Callable[[Iterable[FeedId]], None]) -> Callable[[], None]:
        """See ``exchange.Replica``."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def heads(self, wanted: Sequence[FeedId]) -> list[replication_pb2.Head]:
        """See ``exchange.Replica``."""
        return await self._store.read(lambda tx: [_head(tx, feed) for feed in wanted])

    async def meet(self, peer: FeedId, heads: Sequence[replication_pb2.Head], *, complete: bool) -> set[FeedId]:
        """See ``exchange.Replica``.

        Raises:
            PermissionDeniedError: ``EPOCH_SUPERSEDED``, the peer speaks in the name of an epoch that was given up.
        """
        if self.given_up(peer):
            raise PermissionDeniedError(
                Reason.EPOCH_SUPERSEDED, f"{peer} was given up by its owner, who goes on with new keys; recover this home", feed=peer
            )
        named = [(FeedId.parse(head.feed), head) for head in heads]
        checkable = [(feed, head) for feed, head in named if head.checkpoint and feed in self._sizes]
        found = await self._store.read(lambda tx: _compare(tx, peer, checkable, self._own)) if checkable else _Compared()
        for feed, error in found.errors:
            await self.caught(peer, feed, error)
        for feed, lasting in found.doubtful.items():
            await self._mark(feed, lasting=lasting)
        for feed, head in named:
            if feed == self._own and self._may_speak(peer):
                proved = found.signed.get((feed, head.checkpoint), 0)
                self._noted(self.fence.told(peer, head.size, proved, max(self._own_size, found.own_size), self._others))
        if complete and self._may_speak(peer):
            # It has named all that it has; our feed may not be among it.
            self._noted(self.fence.silent(peer, self._own_size, self._others))
        return found.unknown

    async def read(self, peer: FeedId, feed: FeedId, after: int, max_entries: int, max_bytes: int) -> replication_pb2.Batch | None:
        """See ``exchange.Replica``. The newest batches are remembered, since many peers ask for the same one; what goes to members of
        another federation than the feed's is remembered apart, as it goes there: with what is for everybody and nothing else.
        """
        if feed == self._own and not self._shared:
            await self._store.write(lambda tx: tx.put_meta("shared", b"1"))
            self._shared = True
        outward = peer.federation != feed.federation
        key = (feed, after, self._sizes.get(feed, 0), max_entries, outward)
        cached = self._cache.get(key)
        if cached is not None and cached.ByteSize() <= max_bytes + (64 << 10):
            return cached

        def fetch(tx: SqliteTransaction) -> replication_pb2.Batch | None:
            found = feeds.read_batch(tx, feed, after, max_entries=max_entries, max_bytes=max(max_bytes, 64 << 10))
            return only_open(tx, feed, found) if found is not None and outward else found

        batch = await self._store.read(fetch)
        if batch is not None:
            self._remember(key, batch)
        return batch

    def _remember(self, key: _Key, batch: replication_pb2.Batch) -> None:
        replaced = self._cache.pop(key, None)
        self._cached_bytes += batch.ByteSize() - (replaced.ByteSize() if replaced is not None else 0)
        self._cache[key] = batch
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.ByteSize()

    async def accept(self, peer: FeedId, batches: Sequence[tuple[replication_pb2.Batch, bytes]]) -> list[Answer]:
        """See ``exchange.Replica``: each batch is taken or refused by itself, all that are taken in one transaction."""
        results = await asyncio.gather(*(self._accept_one(batch, note) for batch, note in batches), return_exceptions=True)
        answers: list[Answer] = []
        unknown = [result for result in results if isinstance(result, _StrangerError)]
        if unknown:
            await self.caught(peer, unknown[0].feed, unknown[0], len(unknown))
        for (batch, _), result in zip(batches, results, strict=True):
            if isinstance(result, _StrangerError):
                answers.append(refusal_of(batch, result, 0))
            elif isinstance(result, feeds.Extended):
                answers.append(replication_pb2.Ack(feed=batch.feed, size=result.size))
                if result.feed == self._own:
                    self._settle()
                if result.added and self._inconsistent.get(result.feed) is False:
                    await self._unmark(result.feed)
            elif isinstance(result, KadError) and not isinstance(result, StorageError):
                answers.append(await self._refused(peer, batch, result))
            else:
                # Our disk failed us, not the peer: the stream ends, and nothing was acknowledged.
                raise result
        return answers

    async def _refused(self, peer: FeedId, batch: replication_pb2.Batch, error: KadError) -> replication_pb2.Refusal:
        feed = FeedId.parse(batch.feed)
        await self.caught(peer, feed, error)
        state = await self._store.read(lambda tx: tx.feed(feed))
        size = state.size if state is not None else 0
        if state is not None and error.reason in _OTHER_HISTORY:
            if error.reason == Reason.ROOT_MISMATCH:
                # What we hold under a signature is what another history can be held against.
                size = state.signed_size
            if (feed.federation, feed.forum) == (peer.federation, peer.forum):
                await self._mark(feed, lasting=False)
        return refusal_of(batch, error, size)

    async def _accept_one(self, batch: replication_pb2.Batch, note: bytes) -> feeds.Extended:
        feed = FeedId.parse(batch.feed)
        if feed not in self._sizes:
            # The writer is not troubled with what nobody here vouches for.
            raise _StrangerError(feed)
        self._check_quota(feed)
        extended = await self._store.write(lambda tx: self.extend(tx, batch, note))
        if self.quota is not None and extended.added:
            new = slice(len(batch.entries) - extended.added, None)
            self.quota.charge(feed, extended.added, sum(map(len, batch.entries[new])) + sum(map(len, batch.contents[new])))
        return extended

    async def _mark(self, feed: FeedId, *, lasting: bool) -> None:
        """Somebody showed a history that is not what is here: not proved to anybody, but not to be passed over either.

        Args:
            feed: whose.
            lasting: keys of the feed itself have signed it, so it does not end when its author goes on from what is here.
        """
        if lasting <= self._inconsistent.get(feed, -1):
            return
        self._inconsistent[feed] = lasting
        await self._store.write(lambda tx: tx.put_local(INCONSISTENT, feed.origin, _LASTING if lasting else b""))

    async def _unmark(self, feed: FeedId) -> None:
        del self._inconsistent[feed]
        await self._store.write(lambda tx: tx.delete_local(INCONSISTENT, feed.origin))

    def extend(self, tx: SqliteTransaction, batch: replication_pb2.Batch, checkpoint: bytes) -> feeds.Extended:
        """Take a batch (``feed.extend``), without contents that are for another federation, should somebody give them away. What comes
        of one's own feed from elsewhere is remembered: this home did not write it.
        """
        feed = FeedId.parse(batch.feed)
        taken = only_open(tx, feed, batch) if tx.standpoint.is_foreign(feed) and tx.feed(feed) is not None else batch
        extended = feeds.extend(tx, taken, checkpoint)
        if extended.added:
            self._check_observed(tx, extended)
        if extended.added and extended.feed == self._own:
            first = extended.size - extended.added
            tx.put_local(
                FOREIGN,
                f"{first:013d}",
                json.dumps({"count": extended.added, "time": micros_now(), "open": self.fence.state is FenceState.OPEN}).encode(),
            )
        return extended

    def _check_observed(self, tx: SqliteTransaction, extended: feeds.Extended) -> None:
        """Of a member with two histories only that one is taken which the log of its federation's simpul observes."""
        state, simpul = tx.feed(extended.feed), simpul_of(tx, extended.feed)
        if state is None or simpul is None or state.quarantine != Reason.FORKED:
            return
        for size, root in tx.observations(simpul, extended.feed, extended.size - extended.added, extended.size):
            if merkle.root_at(tx.tiles(extended.feed), size) != root:
                raise VerificationError(
                    Reason.OBSERVATION_CONTRADICTED, f"{extended.feed}: not the history that {simpul} observes", feed=extended.feed
                )

    async def missing(self, limit: int) -> list[replication_pb2.ContentRequest]:
        """See ``exchange.Replica``."""
        found = await self._store.read(lambda tx: tx.missing_contents(limit))
        # What would be refused is not asked for, or it would be sent again and again.
        return [replication_pb2.ContentRequest(feed=feed.origin, index=index) for feed, index in found if self._has_room(feed)]

    def _has_room(self, feed: FeedId) -> bool:
        try:
            self._check_quota(feed)
        except QuotaError:
            return False
        return True

    def _check_quota(self, feed: FeedId) -> None:
        if self.quota is not None and feed != self._own:
            self.quota.check(feed)

    async def give(self, peer: FeedId, wanted: Sequence[replication_pb2.ContentRequest]) -> list[replication_pb2.ContentReply]:
        """See ``exchange.Replica``."""

        def read(tx: SqliteTransaction) -> list[replication_pb2.ContentReply]:
            replies: list[replication_pb2.ContentReply] = []
            used = 0
            for request in wanted:
                feed = FeedId.parse(request.feed)
                if tx.feed(feed) is None:
                    continue
                stored = tx.entries(feed, request.index, 1, _MAX_CONTENT_REPLY_BYTES)
                if stored and stored[0].index == request.index and stored[0].content and _is_for(tx, peer, feed, stored[0]):
                    used += len(stored[0].content)
                    if replies and used > _MAX_CONTENT_REPLY_BYTES:
                        break
                    replies.append(replication_pb2.ContentReply(feed=request.feed, index=request.index, content=stored[0].content))
            return replies

        return await self._store.read(read)

    async def take(self, peer: FeedId, contents: Sequence[replication_pb2.ContentReply]) -> None:
        """See ``exchange.Replica``."""
        for reply in contents:
            feed = FeedId.parse(reply.feed)

            def supply(tx: SqliteTransaction, reply: replication_pb2.ContentReply = reply, feed: FeedId = feed) -> bool:
                stored = tx.entries(feed, reply.index, 1, 1) if tx.feed(feed) is not None else []
                if stored and not _is_for(tx, self._own, feed, stored[0]):
                    # It is for another federation, and is not taken from whoever gives it away.
                    return False
                if not feeds.supply_content(tx, feed, reply.index, reply.content):
                    return False
                order.content_arrived(tx, feed, reply.index)
                tx.touched.add(feed)
                return True

            try:
                self._check_quota(feed)
                stored = await self._store.write(supply)
                if self.quota is not None and stored:
                    self.quota.charge(feed, 0, len(reply.content))
            except KadError as error:
                await self.caught(peer, feed, error)

    @property
    def witness_version(self) -> int:
        """See ``exchange.Replica``."""
        return self.witness.version if self.witness is not None else 0

    async def witnessed(self) -> list[replication_pb2.Witnessed]:
        """See ``exchange.Replica``."""
        return await self.witness.shown() if self.witness is not None else []

    async def take_witnessed(self, peer: FeedId, items: Sequence[replication_pb2.Witnessed]) -> None:
        """See ``exchange.Replica``."""
        if self.witness is not None:
            await self._refuse(peer, await self.witness.take(peer, items))

    async def divergence(self, feed: FeedId, size: int) -> replication_pb2.Head | None:
        """See ``exchange.Replica``."""
        return await self._store.read(lambda tx: feeds.divergence(tx, feed, size))

    async def rotations(self, feed: FeedId) -> list[replication_pb2.Head]:
        """See ``exchange.Replica``."""
        return await self._store.read(lambda tx: feeds.rotations(tx, feed, _MOST_ROTATIONS))

    @property
    def evidence_version(self) -> int:
        """See ``exchange.Replica``."""
        return self._evidence_version

    async def evidence(self) -> list[bytes]:
        """See ``exchange.Replica``."""
        return await self._store.read(lambda tx: tx.forks(_MOST_EVIDENCE))

    async def take_evidence(self, peer: FeedId, data: bytes) -> None:
        """See ``exchange.Replica``: believed for what it proves, whoever brings it."""

        def check(tx: SqliteTransaction) -> tuple[FeedId, bool] | None:
            found = evidence.verify_fork(data)
            state = tx.feed(found.feed)
            if state is None or state.genesis != merkle.leaf_hash(found.genesis):
                raise VerificationError(Reason.UNKNOWN_FEED, f"evidence about {found.feed}, which is not known here", feed=found.feed)
            if any(keychain.contradicts(tx, found.keys, size) for size in found.sizes):
                # Whoever stole keys that were given up can sign with them what he likes: that condemns nobody, but it is to be seen.
                return found.feed, False
            known = state.quarantine == Reason.FORKED or data in tx.forks(_MOST_EVIDENCE)
            return None if known else (found.feed, True)

        try:
            found = await self._store.read(check)
        except KadError as error:
            await self.caught(peer, peer, error)
            return
        if found is None:
            return
        feed, proved = found
        if proved:
            await self.caught(peer, feed, feeds.ForkedError(feed, data))
        else:
            why = f"evidence about {feed}, signed by keys that it had given up by then"
            await self.caught(peer, feed, VerificationError(Reason.SIGNATURE_INVALID, why))
            await self._mark(feed, lasting=True)

    async def _look_again(self, witness: Witness) -> None:
        """What was put to this witness before it held the entries."""
        try:
            while self._grew_meanwhile:
                self._grew_meanwhile = False
                await self._refuse(self._own, await witness.grown())
        except StorageError as error:
            log.warning("what the witnesses say could not be kept: %s", error)
        finally:
            self._looking = None

    async def _refuse(self, peer: FeedId, refused: Sequence[tuple[FeedId, KadError]]) -> None:
        for feed, error in refused:
            await self.caught(peer, feed, error)

    # What follows from it.

    async def caught(self, peer: FeedId, feed: FeedId, error: KadError, times: int = 1) -> None:
        """Count what was refused; a fork is kept as evidence and stops its feed, everything else goes on."""
        log.warning("refused", extra={"peer": peer.forum, "feed": feed.origin, "reason": error.reason.value, "why": error.message[:300]})

        def keep(tx: SqliteTransaction) -> None:
            tx.count_refusal(error.reason.value, times)
            if isinstance(error, feeds.ForkedError) and (state := tx.feed(feed)) is not None and state.quarantine != Reason.FORKED:
                if not tx.has_evidence(feed):
                    # One proof says all; a thief of keys that were given up could make them without end.
                    tx.add_evidence(feed, error.evidence)
                if (feed.federation, feed.forum) != (self._own.federation, self._own.forum) or feed == self._own:
                    # An earlier epoch of one's own is fetched as the simpul's log observed it, or that log could not be judged on.
                    feeds.quarantine(tx, feed, Reason.FORKED)
                    tx.put_local(GOOD_SIZE, feed.origin, str(state.size).encode())

        await self._store.write(keep)
        if isinstance(error, feeds.ForkedError):
            self._evidence_version += 1
            self.wake()
            if feed == self._own:
                self.fence.forked()

    # The fence.

    @property
    def _own_size(self) -> int:
        return self._sizes.get(self._own, 0)

    @property
    def _others(self) -> int:
        """Members of one's own federation that could say how much of our feed they hold."""
        return sum(1 for feed in self._sizes if feed.federation == self._own.federation) - 1

    def _may_speak(self, peer: FeedId) -> bool:
        """Nobody of another federation says when this member may sign, or keeps it from signing."""
        return peer.federation == self._own.federation or not self._others

    def _noted(self, opened: bool) -> None:  # noqa: FBT001 - what the fence answered
        if opened:
            self._on_open()
        if self._claims_end is not None:
            self._claims_end.cancel()
            self._claims_end = None
        if (due := self.fence.due()) is not None:
            self._claims_end = asyncio.get_running_loop().call_later(due, self._drop_claims)

    def release(self) -> None:
        """The simpul's log says that our feed goes on with the one before."""
        self._noted(self.fence.release(self._own_size, self._others))

    def _settle(self) -> None:
        self._noted(self.fence.settle(self._own_size, self._others))

    def _drop_claims(self) -> None:
        """Nobody has made good what he claimed of our own feed: it holds us up no longer."""
        self._claims_end = None
        for claim in self.fence.drop():
            error = VerificationError(
                Reason.HEAD_UNPROVEN, f"{claim.peer.forum} claims {claim.size} entries of this feed and delivers none", feed=self._own
            )
            task = asyncio.get_running_loop().create_task(self.caught(claim.peer, self._own, error), name="unproven-head")
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)
        self._settle()

    def _touched(self, touched: Mapping[FeedId, int]) -> None:
        if any(size < self._sizes.get(feed, 0) for feed, size in touched.items()):
            # A history was given up for another one, which may come to have the same size.
            self._cache.clear()
            self._cached_bytes = 0
        self._sizes.update(touched)
        for listener in list(self._listeners):
            listener(touched)
        if self.witness is not None and self.witness.notice(list(touched)):
            self._grew_meanwhile = True
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look_again(self.witness), name="witness")

    def wake(self) -> None:
        """There is something to say besides feeds."""
        for listener in list(self._listeners):
            listener(())


def _is_for(tx: SqliteTransaction, peer: FeedId, feed: FeedId, stored: StoredEntry) -> bool:
    """May this peer read what travels beside this entry?"""
    if peer.federation == feed.federation:
        return True
    entry = parse_entry(stored.body)
    return entry is not None and is_open(tx, feed, entry)


@dataclass(slots=True)
class _Compared:
    """What came of comparing a peer's heads with the copies here."""

    errors: list[tuple[FeedId, KadError]] = field(default_factory=list)
    #: Checkpoints that verify, with their sizes.
    signed: dict[tuple[FeedId, bytes], int] = field(default_factory=dict)
    #: Feeds whose head opens with no keys that are known here, or not with those that it needs.
    unknown: set[FeedId] = field(default_factory=set)
    #: Those of them whose history cannot be what is here; True where keys that were given up have signed it, which no going on mends.
    doubtful: dict[FeedId, bool] = field(default_factory=dict)
    #: How much of our own feed is on disk; the event loop may not have heard of the last commit yet.
    own_size: int = 0


def _compare(tx: SqliteTransaction, peer: FeedId, heads: Sequence[tuple[FeedId, replication_pb2.Head]], own: FeedId) -> _Compared:
    state = tx.feed(own)
    found = _Compared(own_size=state.signed_size if state is not None else 0)
    for feed, head in heads:
        try:
            signed = feeds.check_head(tx, feed, head.checkpoint)
            if head.HasField("divergence"):
                feeds.check_divergence(tx, feed, head)
            if signed is None and (state := tx.feed(feed)) is not None and state.log_keys:
                found.unknown.add(feed)
                if feeds.is_by_given_up_keys(tx, feed, head.checkpoint):
                    found.doubtful[feed] = True
                elif (feed.federation, feed.forum) == (peer.federation, peer.forum) and head.size <= state.size:
                    # Its own author shows of what is here something that none of its keys signed.
                    found.doubtful.setdefault(feed, False)
            elif signed is not None:
                found.signed[feed, head.checkpoint] = signed.size
        except KadError as error:
            found.errors.append((feed, error))
    return found


def _head(tx: SqliteTransaction, feed: FeedId) -> replication_pb2.Head:
    state = tx.feed(feed)
    if state is None:
        return replication_pb2.Head(feed=feed.origin)
    return replication_pb2.Head(feed=feed.origin, size=state.size, checkpoint=state.target or state.checkpoint)
