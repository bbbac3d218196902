"""A member at work: its store, keys, fence and replica, put together. No network, no command line.

``kad_simpul`` builds on this: a simpul is a node that also observes, and gives its own ``before_seal``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kad_node.fence import Fence, FenceState
from kad_node.keyring import Keyring
from kad_node.outbox import flush, put, rotation_queued, show_queued
from kad_node.replica import StoreReplica
from kad_node.store.sqlite import SqliteStore
from kad_node.store.transaction import micros_now
from kad_node.witness import Witness
from kad_protocol import feed as feeds
from kad_protocol import fold, keychain, merkle, order
from kad_protocol.audience import Standpoint
from kad_protocol.entry import genesis_entry, key_set, new_entry
from kad_protocol.errors import PreconditionError, Reason
from kad_protocol.feed import Draft
from kad_protocol.keys import RecoveryKeys
from kad_protocol.names import FeedId
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kad_node.config import CommonConfig
    from kad_node.home import Home
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.note import LogSigner
    from kad_protocol.v1 import governance_pb2, records_pb2

__all__ = ["Acting", "Node", "found_feed", "own_feed", "seal_all"]

log = logging.getLogger(__name__)

#: Entries folded in the transaction that stored them; the rest follows in transactions of its own, so that storing never waits long.
_FOLD_CHUNK = 512


class Acting(Protocol):
    """What a simpul does in members' names (``kad_simpul.acts``)."""

    async def publish(self, request: records_pb2.CreateRecordRequest) -> records_pb2.Record:
        """Publish a record in a forum's name. See ``RecordsService.CreateRecord``."""

    async def revise(self, request: records_pb2.ReviseRecordRequest) -> records_pb2.Record:
        """Publish a new version of such a record. See ``RecordsService.ReviseRecord``."""

    async def retract(self, request: records_pb2.RetractRecordRequest) -> records_pb2.Record:
        """Withdraw such a record. See ``RecordsService.RetractRecord``."""

    async def review(self, name: str, version: int, *, approved: bool) -> governance_pb2.PerformedAct:
        """See ``MandatesService.ReviewSubmission``."""

    async def issue(self, request: governance_pb2.IssueStatementRequest) -> governance_pb2.PerformedAct:
        """See ``MandatesService.IssueStatement``."""


class Node:
    """One open home. Make it with ``open``, end it with ``close``."""

    own: FeedId
    store: SqliteStore
    replica: StoreReplica
    fence: Fence
    witness: Witness
    instance: str
    keyring: Keyring

    def __init__(self, home: Home, config: CommonConfig) -> None:
        self.home = home
        self.config = config
        self.own = FeedId(config.federation, config.forum)
        self._changed = asyncio.Event()
        #: Feeds that their owners gave up, and when (microseconds since 1970, by the simpul's log).
        self.given_up: dict[FeedId, int] = {}
        self._linked = False
        #: While everything is folded anew: how members stood before.
        self._before: _Standings | None = None
        self._told_of: dict[FeedId, int] = {}
        #: Called on the event loop with a feed that its owner gave up just now.
        self.on_given_up: Callable[[FeedId], None] = lambda _: None
        #: What else becomes an entry of one's own feed before a group is sealed; the simpul's observations.
        #: Does what a simpul does in members' names; only a simpul has one.
        self.acting: Acting | None = None
        #: Members that are suspended or have left: federation and forum.
        self.outside: frozenset[tuple[str, str]] = frozenset()
        self.before_seal: Callable[[SqliteTransaction], None] = lambda _: None

    @classmethod
    async def open(cls, home: Home, config: CommonConfig, simpul: FeedId | None = None) -> Node:
        """Open a home that is locked by the caller.

        Raises:
            KadError: keys, configuration or store do not open.
        """
        node = cls(home, config)
        standpoint = Standpoint(config.federation, config.limits.foreign_feeds)
        node.store = await SqliteStore.open(home.store, node._prepare_commit, standpoint)
        try:
            node.own = await node.store.read(lambda tx: own_feed(tx, config))
            node.keyring = Keyring(home, node.own)
            await node._open_keys()
            await node._start(simpul)
        except BaseException:
            await node.store.close()
            raise
        return node

    async def _open_keys(self) -> None:
        """Find the secret that signs today: a home without it must not begin to run."""
        state = await self.store.read(lambda tx: tx.feed(self.own))
        if state is None or not state.log_keys:
            raise PreconditionError(Reason.STORE_CORRUPT, f"{self.home.path} has no feed of its own; was it moved?", home=self.home.path)
        await asyncio.to_thread(self.keyring.log_signer, feeds.keys_of(state))

    async def _start(self, simpul: FeedId | None) -> None:
        def look(tx: SqliteTransaction) -> tuple[bool, bool, bytes | None, bytes | None]:
            self.outside, self.given_up = _outside(tx), tx.given_up()
            if (kept := tx.meta(_FOLDING_ANEW)) is not None:
                self._before = _Standings.from_bytes(kept)
            state = tx.feed(self.own)
            forked = state is not None and state.quarantine == Reason.FORKED
            return tx.meta("shared") is not None, forked, tx.meta("instance"), tx.meta("fold-version")

        shared, forked, instance, folded = await self.store.read(look)
        version = str(fold.FOLD_VERSION).encode()
        if instance is None or folded != version:
            instance = secrets.token_hex(8).encode()

            self._before = self._before or _Standings(self.outside, self.given_up)
            before = self._before

            def renew(tx: SqliteTransaction) -> None:
                # Who was put out stays out until the logs that say so have been judged again, however often that is interrupted.
                tx.put_meta(_FOLDING_ANEW, before.to_bytes())
                tx.forget_fold()
                show_queued(tx, self.own)
                tx.put_meta("instance", instance)
                tx.put_meta("fold-version", version)

            await self.store.write(renew)
        if self._before is not None:
            self.outside, self.given_up = self.outside | self._before.outside, self._before.given_up | self.given_up
        self._told_of = self.given_up
        self.instance = instance.decode()
        held = self.own.epoch > 0 and await self.store.read(lambda tx: tx.begun(self.own)) is None
        self.fence = Fence(shared=shared, simpul=simpul, held=held)
        if forked:
            # No peer's word opens it again: only a new epoch does.
            self.fence.forked()
        self.replica = StoreReplica(self.store, self.own, self.fence, self._fence_opened)
        self.replica.given_up = lambda feed: feed in self.given_up
        self.witness = Witness(self.store, self.own, self.keyring.witness_signer, self.fence, self.replica.wake)
        self.replica.witness = self.witness
        await self.replica.start()
        self.store.listen(lambda _: self._look_after_commit())
        # A group without work: whatever was stored but not folded before the last stop is folded now, and a queue that may go goes.
        await self.store.write(lambda _: None)
        if self.fence.state is FenceState.OPEN:
            await self.flush_outbox()

    async def close(self) -> None:
        """Finish what was begun and close the store."""
        self._announce_change()
        await self.store.close()

    def _prepare_commit(self, tx: SqliteTransaction) -> bool:
        """At the end of every group, in its transaction: one signature over all that was appended, then folding."""
        self.before_seal(tx)
        own = tx.feed(self.own)
        if own is not None and own.tail > own.size:
            feeds.seal(tx, self.own, self.keyring.log_signer)
        more = order.advance(tx, _FOLD_CHUNK) >= _FOLD_CHUNK
        whole = self._before is not None and not more
        if whole:
            tx.forget_meta(_FOLDING_ANEW)
            self._before = None
        if tx.standings_changed or whole:
            self.outside, self.given_up = _outside(tx), tx.given_up()
            if self._before is not None:
                self.outside, self.given_up = self.outside | self._before.outside, self._before.given_up | self.given_up
            self._linked = tx.begun(self.own) is not None
        return more

    def _look_after_commit(self) -> None:
        self._announce_change()
        if self.fence.held and self._linked:
            self.replica.release()
        now, before = self.given_up, self._told_of
        self._told_of = now
        for feed in now.keys() - before.keys():
            self.on_given_up(feed)

    def began_anew(self, member: FeedId) -> int | None:
        """When a member (of whatever epoch) last began a new epoch, in microseconds since 1970; None if it never did. In memory."""
        times = [time for feed, time in self.given_up.items() if (feed.federation, feed.forum) == (member.federation, member.forum)]
        return max(times, default=None)

    def settling(self, tx: SqliteTransaction) -> bool:
        """Are there entries of one's own that cannot be read yet, and soon can? A feed that is held is folded when the simpul's log is
        here; what is written meanwhile waits, and is shown so.
        """
        return not self.fence.held and bool(tx.unfolded_count(self.own))

    async def sign_anew(self) -> bool:
        """Change one's keys: a new secret, then the entry that names it, signed by old and new. False if it waits until we may sign.

        Raises:
            PreconditionError: ``EPOCH_SUPERSEDED``, ``HOME_NOT_WRITABLE``. VerificationError: ``KEY_ROTATION_INVALID``.
        """

        def check(tx: SqliteTransaction) -> bool:
            keychain.check_room(tx, self.own)
            return rotation_queued(tx)

        if await self.store.read(check):
            return False
        log_keys, witness_keys = await asyncio.to_thread(self.keyring.create)
        entry = new_entry(micros_now())
        entry.key_rotation.log_keys.CopyFrom(key_set(log_keys.public))
        entry.key_rotation.witness_keys.CopyFrom(key_set(witness_keys.public))
        index = await self.store.write(lambda tx: put(tx, self.own, [Draft(entry)], open_fence=self.fence.state is FenceState.OPEN))
        if index is not None:
            log.info("this member has new keys", extra={"feed": self.own.origin, "index": index})
        return index is not None

    async def flush_outbox(self) -> None:
        """Append what waited for the fence, and let whoever waited in ``before_seal`` have its turn."""
        if self.own in self.given_up:
            return  # It waits for the recovery of this home; nothing may be appended here any more.
        await self.store.write(lambda tx: flush(tx, self.own))

    def _fence_opened(self) -> None:
        log.info("this node may sign again", extra={"event_name": "fence_open"})
        # The task is referenced by the loop's ready queue until it has run its first step, and by the store after that.
        self._flushing = asyncio.get_running_loop().create_task(self.flush_outbox(), name="flush-outbox")
        self._announce_change()

    # Waiting for changes.

    def _announce_change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def next_change(self) -> asyncio.Event:
        """An event that is set at the next commit; take it *before* looking, so that nothing falls in between."""
        return self._changed

    async def folded(self, index: int) -> None:
        """Wait until the entry at ``index`` of one's own feed has been folded."""
        while True:
            changed = self.next_change()
            if await self.store.read(lambda tx: tx.folded(self.own)) > index:
                return
            await changed.wait()


@dataclass(frozen=True, slots=True)
class _Standings:
    """Who is out, and which feeds were given up, when."""

    outside: frozenset[tuple[str, str]]
    given_up: dict[FeedId, int]

    def to_bytes(self) -> bytes:
        given_up = {feed.origin: time for feed, time in self.given_up.items()}
        return json.dumps({"outside": sorted(self.outside), "given_up": given_up}).encode()

    @staticmethod
    def from_bytes(data: bytes) -> _Standings:
        kept = json.loads(data)
        outside = frozenset((federation, forum) for federation, forum in kept["outside"])
        return _Standings(outside, {FeedId.parse(origin): time for origin, time in kept["given_up"].items()})


_FOLDING_ANEW = "folding-anew"


def own_feed(tx: SqliteTransaction, config: CommonConfig) -> FeedId:
    """The feed of this home, in its key epoch."""
    return FeedId(config.federation, config.forum, int(tx.meta("epoch") or b"0"))


def _outside(tx: SqliteTransaction) -> frozenset[tuple[str, str]]:
    out = (entry_pb2.MEMBERSHIP_STATE_SUSPENDED, entry_pb2.MEMBERSHIP_STATE_LEFT)
    inside = {(feed.federation, feed.forum) for feed, state in tx.members() if state not in out}
    return frozenset((feed.federation, feed.forum) for feed, state in tx.members() if state in out) - inside


async def found_feed(
    home: Home,
    feed: FeedId,
    role: entry_pb2.MemberRole.ValueType,
    micros: int,
    show_recovery: Callable[[str], None],
    then: Sequence[entry_pb2.Entry] = (),
) -> bytes:
    """Begin the feed of a new member: its keys and its genesis. Repeated after an interruption it goes on where it was.

    Args:
        home: prepared, and locked by the caller.
        feed: the new feed.
        role: forum or simpul.
        micros: the time of the genesis.
        show_recovery: gets the recovery code, which is kept nowhere, *before* the genesis that commits to it is durable: rather a
            code too many on paper than one too few.
        then: entries that follow the genesis at once.

    Returns:
        The genesis entry.
    """
    keys = await asyncio.to_thread(home.create_keys, os.environ)
    signer = keys.log_signer(feed.origin)
    store = await SqliteStore.open(home.store, lambda tx: seal_all(tx, feed, signer))
    try:
        if await store.read(lambda tx: tx.feed(feed)) is None:
            recovery = RecoveryKeys.generate()
            show_recovery(recovery.to_code())
            witness = keys.witness_signer(feed.origin).public
            entry = genesis_entry(feed, signer.public, witness, recovery.public_digest, role, micros)

            def begin(tx: SqliteTransaction) -> None:
                feeds.pin(tx, feed, merkle.leaf_hash(entry.SerializeToString()))
                feeds.append(tx, feed, [Draft(entry), *(Draft(more) for more in then)])

            await store.write(begin)
        return await store.read(lambda tx: tx.entries(feed, 0, 1, 1)[0].body)
    finally:
        await store.close()


def seal_all(tx: SqliteTransaction, feed: FeedId, signer: LogSigner) -> bool:
    """For stores of homes that are only being made: seal what was appended to the own feed, and fold nothing yet."""
    state = tx.feed(feed)
    if state is not None and state.tail > state.size:
        feeds.seal(tx, feed, lambda _: signer)
    return False
