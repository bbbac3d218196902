"""Beginning a feed anew with the recovery code: the node's side.

Interrupted anywhere, the same command goes on where it was::

    secret        keys/epoch-<e+1>.key is durable
    code          the next recovery code has been shown
    recovery.json the new genesis and the signed statement are durable; from here on every attempt sends the same
    simpul        its log holds the new epoch: final for everybody
    store         the new feed is this home's own, in one transaction
    channel, configuration, and recovery.json is removed
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kad_node import enrolment, outbox
from kad_node.node import seal_all
from kad_node.replica import FOREIGN
from kad_node.store.sqlite import SqliteStore
from kad_node.store.transaction import micros_now
from kad_protocol import feed as feeds
from kad_protocol import merkle
from kad_protocol.entry import genesis_entry, key_set, parse_entry, parse_genesis
from kad_protocol.errors import InvalidInputError, Reason, VerificationError
from kad_protocol.feed import Draft
from kad_protocol.keys import RecoveryKeys
from kad_protocol.names import FeedId
from kad_protocol.order import root_of
from kad_protocol.statement import RECOVERY, sign_statement
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_node.enrolment import Enrolled, Standing
    from kad_node.home import Home
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["Doubtful", "Pending", "Source", "begin", "compare", "finish", "forget", "load", "send", "void_entries"]

_FILE = "recovery.json"
#: More than a thief can write within the quota of some weeks; the simpul could show entries without end.
_MOST_VOID = 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """The simpul's enrolment port."""

    address: str
    #: SHA-256 of its authority's public key.
    digest: bytes


@dataclass(frozen=True, slots=True)
class Doubtful:
    """An entry that would be void."""

    index: int
    body: bytes
    #: It lies on this machine, and the simpul has another one or none.
    only_here: bool


@dataclass(frozen=True, slots=True)
class Pending:
    """A recovery that was begun. Nothing in it is secret."""

    address: str
    digest: str
    former: str
    last_good_size: int
    genesis: str
    recovery: str
    #: The copy of the old feed here is another history than everybody else's.
    forked: bool

    @property
    def source(self) -> Source:
        """Where it is sent."""
        return Source(self.address, bytes.fromhex(self.digest))

    @property
    def genesis_entry(self) -> bytes:
        """Entry 0 of the new feed."""
        return base64.b64decode(self.genesis)

    @property
    def feed(self) -> FeedId:
        """The new feed."""
        return parse_genesis(self.genesis_entry)[0]


def load(home: Home) -> Pending | None:
    """The recovery that was begun in a home and is not finished.

    Raises:
        InvalidInputError: ``INVALID_FILE``.
    """
    path = home.path / _FILE
    if not path.exists():
        return None
    try:
        return Pending(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"{path} does not read: {error}") from error


def forget(home: Home) -> None:
    """An attempt was refused, or is finished."""
    (home.path / _FILE).unlink(missing_ok=True)


async def compare(source: Source, forum: str, recovery: RecoveryKeys, store: SqliteStore | None) -> tuple[Standing, int, bool]:
    """What the simpul says, how many entries should stay good by what is known here, and whether the copy here is another history.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    standing = await enrolment.prepare_recovery(source.address, source.digest, forum, recovery)
    if store is None:
        return standing, standing.observed_size, False
    feed = standing.feed

    def look(tx: SqliteTransaction) -> tuple[int, int]:
        state, strange = tx.feed(feed), [int(first) for first in tx.locals(FOREIGN)]
        return state.size if state is not None else 0, min(strange, default=1 << 62)

    size, strange = await store.read(look)
    common = min(size, standing.observed_size)

    async def same(size: int) -> bool:
        there = await enrolment.prepare_recovery(source.address, source.digest, forum, recovery, size)
        return there.last_good_root == await store.read(lambda tx: root_of(tx, feed, size))

    if not common:
        return standing, min(standing.observed_size, strange), False
    if await same(common):
        return standing, min(standing.observed_size, strange), False
    low = 1
    if not await same(low):
        raise VerificationError(Reason.GENESIS_MISMATCH, f"the simpul knows {feed} with another genesis", feed=feed)
    while low + 1 < common:
        middle = (low + common) // 2
        if await same(middle):
            low = middle
        else:
            common = middle
    return standing, min(low, strange), True


async def void_entries(
    source: Source, forum: str, recovery: RecoveryKeys, last_good_size: int, store: SqliteStore | None
) -> tuple[Standing, list[Doubtful]]:
    """Where the feed is cut, by the simpul's word, and everything beyond, there and here.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    standing = await enrolment.prepare_recovery(source.address, source.digest, forum, recovery, last_good_size)
    bodies, page = list(standing.entries), standing
    while page.entries and last_good_size + len(bodies) < standing.held_size:
        page = await enrolment.prepare_recovery(
            source.address, source.digest, forum, recovery, last_good_size, last_good_size + len(bodies)
        )
        bodies.extend(page.entries)
        if len(bodies) > _MOST_VOID:
            raise VerificationError(Reason.RECOVERY_INVALID, f"the simpul shows more than {_MOST_VOID} entries", feed=standing.feed)
    found = [Doubtful(last_good_size + offset, body, only_here=False) for offset, body in enumerate(bodies)]
    if store is not None:

        def ours(tx: SqliteTransaction) -> list[Doubtful]:
            state, here = tx.feed(standing.feed), []
            position = last_good_size
            while state is not None and position < state.size:
                for stored in tx.entries(standing.feed, position, 256, 4 << 20):
                    position = stored.index + 1
                    offset = stored.index - last_good_size
                    if offset >= len(bodies) or bodies[offset] != stored.body:
                        here.append(Doubtful(stored.index, stored.body, only_here=True))
            return here

        found += await store.read(ours)
    return standing, found


def begin(
    home: Home, source: Source, standing: Standing, recovery: RecoveryKeys, show_recovery: Callable[[str], None], *, forked: bool
) -> Pending:
    """Make the new epoch and keep it, before anybody hears of it. Not for the event loop.

    Args:
        home: locked by the caller.
        source: the simpul.
        standing: where the old feed is cut.
        recovery: the keys of the old epoch's recovery code.
        show_recovery: gets the next code, before anything rests on it.
        forked: the copy here is another history.
    """
    old = standing.feed
    feed = FeedId(old.federation, old.forum, old.epoch + 1)
    keys = home.create_keys(os.environ, feed.epoch)
    following = RecoveryKeys.generate()
    show_recovery(following.to_code())
    signer = keys.log_signer(feed.origin)
    entry = genesis_entry(
        feed,
        signer.public,
        keys.witness_signer(feed.origin).public,
        following.public_digest,
        entry_pb2.MEMBER_ROLE_FORUM,
        micros_now(),
    )
    genesis = entry.SerializeToString()
    said = entry_pb2.RecoveryStatement(
        feed=old.origin,
        last_good_size=standing.last_good_size,
        last_good_root=standing.last_good_root,
        next_feed=feed.origin,
        next_genesis=merkle.leaf_hash(genesis),
    ).SerializeToString()
    owner = recovery.signer(old.origin)
    ed25519, mldsa44 = sign_statement(owner, RECOVERY, said)
    proof = entry_pb2.Recovery(statement=said, recovery_keys=key_set(owner.public), ed25519_signature=ed25519, mldsa44_signature=mldsa44)
    pending = Pending(
        address=source.address,
        digest=source.digest.hex(),
        former=old.origin,
        last_good_size=standing.last_good_size,
        genesis=base64.b64encode(genesis).decode(),
        recovery=base64.b64encode(proof.SerializeToString()).decode(),
        forked=forked,
    )
    home.write(_FILE, json.dumps(asdict(pending)).encode(), private=True)
    return pending


async def send(home: Home, pending: Pending) -> Enrolled:
    """Let the simpul write the new epoch into its log. The same answer however often it is asked.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    keys = home.create_keys(os.environ, pending.feed.epoch)
    proof = entry_pb2.Recovery.FromString(base64.b64decode(pending.recovery))
    source = pending.source
    return await enrolment.recover(source.address, source.digest, proof, pending.genesis_entry, keys.log_signer(pending.feed.origin))


async def finish(home: Home, pending: Pending, enrolled: Enrolled) -> None:
    """Make the new feed this home's own, and keep the new channel certificate. May be repeated."""
    feed, old = pending.feed, FeedId.parse(pending.former)
    signer = home.create_keys(os.environ, feed.epoch).log_signer(feed.origin)
    store = await SqliteStore.open(home.store, lambda tx: seal_all(tx, feed, signer))

    def take_over(tx: SqliteTransaction) -> None:
        held = tx.feed(feed)
        # It may be known already, without an entry: the simpul's log names it.
        if held is None or not held.tail:
            entry = parse_entry(pending.genesis_entry)
            if entry is None or entry.SerializeToString() != pending.genesis_entry:
                raise InvalidInputError(Reason.INVALID_FILE, f"the genesis in {_FILE} does not read back")
            feeds.pin(tx, feed, merkle.leaf_hash(pending.genesis_entry))
            feeds.append(tx, feed, [Draft(entry)])
        feeds.pin(tx, enrolled.simpul_feed, enrolled.simpul_genesis)
        if int(tx.meta("epoch") or b"0") == feed.epoch:
            return
        tx.put_meta("epoch", str(feed.epoch).encode())
        # The simpul knows the new feed: a copy of this home of today, brought back later, must ask before it signs (decision 5).
        tx.put_meta("shared", b"1")
        # What was strange in the old one is behind us.
        outbox.forget_rotations(tx)
        for first in tx.locals(FOREIGN):
            tx.delete_local(FOREIGN, first)
        if pending.forked and tx.feed(old) is not None:
            tx.forget_feed(old)
            tx.put_meta("fold-version", b"")

    try:
        await store.write(take_over)
    finally:
        await store.close()
    home.write("channel/authority.pem", enrolled.channel.authority)
    home.save_channel(enrolled.channel.key, enrolled.channel.certificate)
    home.tokens.create_local()
