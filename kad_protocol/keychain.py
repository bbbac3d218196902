"""The keys of a feed over time, as a chain that a stranger can follow from its genesis.

A feed's genesis names its first log keys. Each rotation names the next ones and is the last entry under a checkpoint that the keys
before and after it signed; a store keeps that checkpoint for ever (``feed.seal``, ``feed.extend``). So who knows the genesis (its hash
is pinned by invitations, membership entries and peer cards) can find out which keys had to sign a checkpoint of any size, without the
entries between.

``chain_of`` and ``keys_at`` read what lies here and has been verified; ``keys_after`` believes nothing of what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kad_protocol import merkle
from kad_protocol.entry import MAX_ENTRY_BYTES, log_keys_of, parse_entry, parse_genesis
from kad_protocol.errors import PreconditionError, Reason, VerificationError
from kad_protocol.note import MAX_NOTE_BYTES, open_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kad_protocol.names import FeedId
    from kad_protocol.note import LogKeys
    from kad_protocol.store import LogTransaction
    from kad_protocol.v1 import entry_pb2

__all__ = [
    "MAX_ROTATIONS",
    "KeyChain",
    "Rotation",
    "chain_of",
    "check_room",
    "check_rotation",
    "contradicts",
    "ends_of_keys",
    "keys_after",
    "keys_at",
]

#: A feed has no more in one epoch: once a year, and many emergencies. So a chain that anybody must follow has an end.
MAX_ROTATIONS = 200


@dataclass(frozen=True, slots=True)
class Rotation:
    """One change of keys and what proves it."""

    #: Of the entry in the feed; its checkpoint has one entry more.
    index: int
    entry: bytes = field(repr=False)
    #: The checkpoint that ends with the entry, signed by the keys before and after it.
    note: bytes = field(repr=False)
    #: Inclusion proof of the entry under that checkpoint.
    hashes: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class KeyChain:
    """A feed's genesis and its rotations, oldest first."""

    genesis: bytes = field(repr=False)
    rotations: tuple[Rotation, ...] = ()


def check_rotation(feed: FeedId, rotation: entry_pb2.KeyRotation) -> LogKeys:
    """Check of new keys what can be said of them alone; returns the new log keys.

    Raises:
        VerificationError: ``WEAK_KEY``, ``KEY_ROTATION_INVALID``.
    """
    log_keys = log_keys_of(feed.origin, rotation.log_keys.SerializeToString())
    witness_keys = log_keys_of(feed.origin, rotation.witness_keys.SerializeToString())
    if log_keys.ed25519_public == witness_keys.ed25519_public or log_keys.mldsa44_public == witness_keys.mldsa44_public:
        raise VerificationError(Reason.KEY_ROTATION_INVALID, f"{feed}: a rotation to one key for two purposes", feed=feed)
    return log_keys


def check_room(tx: LogTransaction, feed: FeedId) -> None:
    """Check that a feed may change its keys once more in this epoch.

    Raises:
        VerificationError: ``KEY_ROTATION_INVALID``.
    """
    if sum(1 for _ in _pinned(tx, feed, None)) >= MAX_ROTATIONS:
        raise VerificationError(
            Reason.KEY_ROTATION_INVALID, f"{feed} has changed its keys {MAX_ROTATIONS} times; more takes a new epoch", feed=feed
        )


def chain_of(tx: LogTransaction, feed: FeedId, size: int | None = None) -> KeyChain:
    """The chain of a feed that lies here, with the rotations among its first ``size`` entries (default: all that are here).

    Raises:
        PreconditionError: ``FEED_NOT_FOUND`` while its genesis is not here.
    """
    tiles = tx.tiles(feed)
    rotations = [
        Rotation(end - 1, tx.entries(feed, end - 1, 1, MAX_ENTRY_BYTES)[0].body, note, tuple(merkle.inclusion_proof(tiles, end - 1, end)))
        for end, note in _pinned(tx, feed, size)
    ]
    return KeyChain(_genesis(tx, feed), tuple(rotations))


def keys_at(tx: LogTransaction, feed: FeedId, size: int) -> LogKeys:
    """The keys that must sign a checkpoint of so many entries of a feed that lies here; beyond what is here those of today.

    Raises:
        PreconditionError: ``FEED_NOT_FOUND`` while its genesis is not here.
    """
    genesis = _genesis(tx, feed)
    newest = max((end for end, _ in _pinned(tx, feed, size)), default=0)
    if not newest:
        return log_keys_of(feed.origin, parse_genesis(genesis)[1].log_keys.SerializeToString())
    return check_rotation(feed, _rotation_in(tx.entries(feed, newest - 1, 1, MAX_ENTRY_BYTES)[0].body))


def ends_of_keys(tx: LogTransaction, feed: FeedId) -> list[tuple[int, bytes]]:
    """The checkpoints that end with a rotation, of a feed that lies here: their sizes and notes, oldest first."""
    return list(_pinned(tx, feed, None))


def contradicts(tx: LogTransaction, chain: KeyChain, size: int) -> bool:
    """Does a chain name other keys for a checkpoint of so many entries than those that may sign it by what lies here?

    Of a checkpoint that ends with a rotation the keys before and after it may each speak: both must sign it. Of a later one only those
    after it may, whoever holds the earlier ones by then.
    """
    feed, _ = parse_genesis(chain.genesis)
    state = tx.feed(feed)
    if state is None or not state.size:
        return False
    if size > state.size:
        # Beyond what is here the chain may go on, but from where we are.
        return keys_after(chain, state.size) != keys_at(tx, feed, state.size)
    return keys_after(chain, size) not in (keys_at(tx, feed, size), keys_at(tx, feed, max(size - 1, 1)))


def keys_after(chain: KeyChain, size: int) -> LogKeys:
    """The keys that must sign a checkpoint of so many entries, after every link of the chain has been checked.

    Whose genesis it is, is for the caller to know. The checkpoint that ends with a rotation needs the keys before it as well; what it needs
    here is the keys after it.

    Args:
        chain: from anywhere.
        size: entries under the checkpoint.

    Raises:
        VerificationError: the chain does not hold; the reason says how.
    """
    if len(chain.rotations) > MAX_ROTATIONS:
        raise VerificationError(Reason.KEY_ROTATION_INVALID, f"a chain of {len(chain.rotations)} changes of keys", limit=MAX_ROTATIONS)
    feed, genesis = parse_genesis(chain.genesis)
    keys = found = log_keys_of(feed.origin, genesis.log_keys.SerializeToString())
    last = 0
    for rotation in chain.rotations:
        if rotation.index <= last:
            raise VerificationError(Reason.KEY_ROTATION_INVALID, f"{feed}: its changes of keys stand in no order", feed=feed)
        keys = _follow(feed, keys, rotation)
        last = rotation.index
        if rotation.index < size:
            found = keys
    return found


def _follow(feed: FeedId, before: LogKeys, rotation: Rotation) -> LogKeys:
    """The keys after a rotation, if the keys before it say so."""
    if not 1 <= len(rotation.entry) <= MAX_ENTRY_BYTES or len(rotation.note) > MAX_NOTE_BYTES:
        raise VerificationError(Reason.KEY_ROTATION_INVALID, f"{feed}: a change of keys that is too long", feed=feed, index=rotation.index)
    if len(rotation.hashes) > merkle.MAX_PROOF_HASHES:
        raise VerificationError(Reason.PROOF_INVALID, f"{feed}: a proof that is too long", feed=feed, index=rotation.index)
    after = check_rotation(feed, _rotation_in(rotation.entry))
    signed = open_checkpoint(rotation.note, [before, after])
    if signed.size != rotation.index + 1:
        raise VerificationError(
            Reason.KEY_ROTATION_INVALID, f"{feed}: a change of keys at {rotation.index} does not end its checkpoint", feed=feed
        )
    merkle.verify_inclusion(merkle.leaf_hash(rotation.entry), rotation.index, signed.size, rotation.hashes, signed.root)
    return after


def _rotation_in(body: bytes) -> entry_pb2.KeyRotation:
    entry = parse_entry(body)
    if entry is None or not entry.HasField("key_rotation"):
        raise VerificationError(Reason.KEY_ROTATION_INVALID, "an entry that changes no keys")
    return entry.key_rotation


def _genesis(tx: LogTransaction, feed: FeedId) -> bytes:
    state = tx.feed(feed)
    if state is None or not state.size:
        raise PreconditionError(Reason.FEED_NOT_FOUND, f"the keys of {feed} are not known yet", feed=feed)
    return tx.entries(feed, 0, 1, MAX_ENTRY_BYTES)[0].body


def _pinned(tx: LogTransaction, feed: FeedId, size: int | None) -> Iterator[tuple[int, bytes]]:
    """The kept checkpoints of rotations among the first ``size`` entries, oldest first."""
    after = 0
    while (found := tx.pinned_checkpoint(feed, after)) is not None and (size is None or found[0] <= size):
        yield found
        after = found[0]
