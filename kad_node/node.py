"""A member at work: its store, keys, fence and replica, put together. No network, no command line.

``kad_simpul`` builds on this: a simpul is a node that also observes, and gives its own ``before_seal``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from typing import TYPE_CHECKING, Protocol

from kad_node.fence import Fence, FenceState
from kad_node.outbox import flush, show_queued
from kad_node.replica import StoreReplica
from kad_node.store.sqlite import SqliteStore
from kad_node.witness import Witness
from kad_protocol import feed as feeds
from kad_protocol import fold, merkle, order
from kad_protocol.audience import Standpoint
from kad_protocol.entry import genesis_entry
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
    from kad_protocol.note import LogKeys, LogSigner
    from kad_protocol.v1 import governance_pb2, records_pb2

__all__ = ["Acting", "Node", "found_feed"]

log = logging.getLogger(__name__)

#: Entries folded in the transaction that stored them; the rest follows in transactions of its own, so that storing never waits long.
_FOLD_CHUNK = 512


class Acting(Protocol):
    """What a simpul does in members' names (``kad_simpul.acts``)."""

    async def publish(self, request: records_pb2.CreateRecordRequest) -> records_pb2.Record:
        """Publish a record in a forum's name. See ``RecordsService.CreateRecord``."""

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
    _witness_signer: LogSigner

    def __init__(self, home: Home, config: CommonConfig, signer: LogSigner) -> None:
        self.home = home
        self.config = config
        self.signer = signer
        self.own = FeedId(config.federation, config.forum)
        self._changed = asyncio.Event()
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
        own = FeedId(config.federation, config.forum)
        keys = await asyncio.to_thread(home.member_keys, os.environ)
        node = cls(home, config, keys.log_signer(own.origin))
        node._witness_signer = keys.witness_signer(own.origin)
        node.store = await SqliteStore.open(home.store, node._prepare_commit, Standpoint(own.federation, config.limits.foreign_feeds))
        try:
            await node._start(simpul)
        except BaseException:
            await node.store.close()
            raise
        return node

    async def _start(self, simpul: FeedId | None) -> None:
        self.outside = await self.store.read(_outside)

        def look(tx: SqliteTransaction) -> tuple[bool, bytes | None, bytes | None, bool]:
            return tx.meta("shared") is not None, tx.meta("instance"), tx.meta("fold-version"), tx.feed(self.own) is not None

        shared, instance, folded, known = await self.store.read(look)
        if not known:
            raise PreconditionError(Reason.STORE_CORRUPT, f"{self.home.path} has no feed of its own; was it moved?", home=self.home.path)
        version = str(fold.FOLD_VERSION).encode()
        if instance is None or folded != version:
            instance = secrets.token_hex(8).encode()

            def renew(tx: SqliteTransaction) -> None:
                tx.forget_fold()
                show_queued(tx, self.own)
                tx.put_meta("instance", instance)
                tx.put_meta("fold-version", version)

            await self.store.write(renew)
        self.instance = instance.decode()
        self.fence = Fence(shared=shared, simpul=simpul)
        self.replica = StoreReplica(self.store, self.own, self.fence, self._fence_opened)
        self.witness = Witness(self.store, self.own, self._witness_signer, self.fence, self.replica.wake)
        self.replica.witness = self.witness
        await self.replica.start()
        self.store.listen(lambda _: self._announce_change())
        # A group without work: whatever was stored but not folded before the last stop is folded now, and a queue that may go goes.
        await self.store.write(lambda _: None)
        if self.fence.state is FenceState.OPEN:
            await self.flush_outbox()

    async def close(self) -> None:
        """Finish what was begun and close the store."""
        self._announce_change()
        await self.store.close()

    def signer_for(self, keys: LogKeys) -> LogSigner:
        """The private keys for public ones.

        Raises:
            PreconditionError: ``KEY_ROTATION_INVALID``.
        """
        if keys != self.signer.public:
            raise PreconditionError(Reason.KEY_ROTATION_INVALID, "the key in this home is not the one that this feed is signed with")
        return self.signer

    def _prepare_commit(self, tx: SqliteTransaction) -> bool:
        """At the end of every group, in its transaction: one signature over all that was appended, then folding."""
        self.before_seal(tx)
        own = tx.feed(self.own)
        if own is not None and own.tail > own.size:
            feeds.seal(tx, self.own, self.signer_for)
        more = order.advance(tx, _FOLD_CHUNK) >= _FOLD_CHUNK
        if tx.standings_changed:
            self.outside = _outside(tx)
        return more

    async def flush_outbox(self) -> None:
        """Append what waited for the fence, and let whoever waited in ``before_seal`` have its turn."""
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
    store = await SqliteStore.open(home.store, lambda tx: _seal_all(tx, feed, signer))
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


def _seal_all(tx: SqliteTransaction, feed: FeedId, signer: LogSigner) -> bool:
    state = tx.feed(feed)
    if state is not None and state.tail > state.size:
        feeds.seal(tx, feed, lambda _: signer)
    return False
