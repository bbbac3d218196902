"""One feed: appending to one's own, extending a copy of somebody else's, reading a batch, comparing heads.

Everything here is a pure function over ``store.LogTransaction``; nothing waits, dials or knows what records are.

The life of an entry in its author's feed::

    append   the entry gets the next index, inside a transaction
    seal     all entries appended in this transaction are read back and hashed, the tree grows, ONE checkpoint is signed
    commit   entries, contents, tree and checkpoint become durable together; only then does a byte leave the process

and in a copy of that feed::

    extend   the batch is checked against the copy (position, genesis, keys, signatures, tree, digests), then stored whole
    commit   durable; only then is it acknowledged

A batch is believed for one of two reasons: it ends exactly at a signed checkpoint whose root the extended tree has, or it
carries a consistency proof (RFC 6962) from where it ends to a signed checkpoint further on.

What is *not* judged here is what entries mean. An entry that its author signed but that makes no sense is stored and relayed
like any other, since the tree needs its bytes; ``kad_protocol.fold`` gives it no effect and says why.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kad_protocol import evidence, keychain, merkle
from kad_protocol.entry import (
    AUTHORITY_BODIES,
    MAX_CONTENT_BLOB_BYTES,
    MAX_ENTRY_BYTES,
    digest_of,
    key_set,
    log_keys_of,
    parse_entry,
    parse_genesis,
)
from kad_protocol.errors import (
    InvalidInputError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    Reason,
    VerificationError,
)
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, LogKeys, LogSigner, Note, open_checkpoint, sign_checkpoint
from kad_protocol.store import FeedState, LogTransaction
from kad_protocol.v1 import entry_pb2, replication_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_BATCH_ENTRIES",
    "Draft",
    "Extended",
    "ForkedError",
    "append",
    "check_divergence",
    "check_head",
    "divergence",
    "extend",
    "keys_of",
    "pin",
    "read_batch",
    "seal",
    "supply_content",
    "truncate",
]

#: Entries in one batch; a larger one is refused unread.
MAX_BATCH_ENTRIES = 1024
#: What a sender puts into one batch, in bytes of entries and contents, if one entry alone is not larger.
MAX_BATCH_BYTES = 512 << 10


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that is to be appended, and the content that travels beside it (``salt || content``, or nothing)."""

    entry: entry_pb2.Entry
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Extended:
    """What a batch added to a copy."""

    feed: FeedId
    #: Entries held now.
    size: int
    #: How many of them are new.
    added: int


class ForkedError(VerificationError):
    """Two signed statements of one feed contradict each other. ``evidence`` proves it to anybody."""

    def __init__(self, feed: FeedId, proof: bytes) -> None:
        super().__init__(Reason.FORKED, f"{feed} has two histories", feed=feed)
        self.evidence = proof


def keys_of(state: FeedState) -> LogKeys:
    """The keys that must sign this feed's next checkpoint.

    Raises:
        PreconditionError: ``FEED_NOT_FOUND`` while the genesis is not here.
    """
    if not state.log_keys:
        raise PreconditionError(Reason.FEED_NOT_FOUND, f"the keys of {state.feed} are not known yet", feed=state.feed)
    return log_keys_of(state.feed.origin, state.log_keys)


def pin(tx: LogTransaction, feed: FeedId, genesis: bytes, role: entry_pb2.MemberRole.ValueType = entry_pb2.MEMBER_ROLE_UNSPECIFIED) -> bool:
    """Accept a feed from now on: the one whose first entry has this leaf hash, and no other. True if it was not known.

    With a role, its genesis must say that its owner has this one.

    Raises:
        VerificationError: ``GENESIS_MISMATCH`` if another genesis is pinned for the same origin.
    """
    state = tx.feed(feed)
    if state is None:
        tx.save_feed(FeedState(feed, genesis, role=role))
        return True
    if state.genesis != genesis:
        raise VerificationError(Reason.GENESIS_MISMATCH, f"{feed} is known with another genesis", feed=feed)
    return False


def append(tx: LogTransaction, feed: FeedId, drafts: Sequence[Draft]) -> int:
    """Append to one's own feed; returns the index of the first. The entries count only when ``seal`` has run in the same
    transaction and that has been committed.

    Raises:
        NotFoundError: ``FEED_NOT_FOUND``. InvalidInputError: ``ENTRY_TOO_LARGE``. PreconditionError: ``EPOCH_SUPERSEDED``.
    """
    state = _known(tx, feed)
    if state.quarantine == Reason.EPOCH_SUPERSEDED:
        raise _given_up(feed)
    authority = state.authority_index
    bodies: list[bytes] = []
    for offset, draft in enumerate(drafts):
        draft.entry.previous_authority = authority
        body = draft.entry.SerializeToString()
        if len(body) > MAX_ENTRY_BYTES or len(draft.content) > MAX_CONTENT_BLOB_BYTES:
            raise InvalidInputError(Reason.ENTRY_TOO_LARGE, "an entry or its content is too large", limit=MAX_ENTRY_BYTES)
        bodies.append(body)
        if draft.entry.WhichOneof("body") in AUTHORITY_BODIES:
            authority = state.tail + offset
    tx.insert_entries(feed, state.tail, bodies, [draft.content for draft in drafts])
    tx.save_feed(replace(state, tail=state.tail + len(bodies), authority_index=authority))
    return state.tail


def seal(tx: LogTransaction, feed: FeedId, signer: Callable[[LogKeys], LogSigner]) -> FeedState:
    """Put everything appended under a checkpoint: one signature for all of it.

    The bytes are read back from the store and those are hashed, so that a bit that flipped on the way is never signed. A key
    rotation ends its checkpoint, which the old and the new keys sign and which is kept for ever.

    Args:
        tx: the transaction in which the entries were appended.
        feed: one's own.
        signer: finds the private keys for public ones.
    """
    state = _known(tx, feed)
    while state.size < state.tail:
        state = _seal_once(tx, state, signer)
    return state


def _seal_once(tx: LogTransaction, state: FeedState, signer: Callable[[LogKeys], LogSigner]) -> FeedState:
    feed = state.feed
    frontier = merkle.Frontier.from_bytes(state.size, state.frontier)
    keys, role = state.log_keys, state.role
    signers: list[LogSigner] = [] if not keys else [signer(keys_of(state))]
    hashes: list[bytes] = []
    rotated = False
    while not rotated and state.size + len(hashes) < state.tail:
        for stored in tx.entries(feed, state.size + len(hashes), MAX_BATCH_ENTRIES, MAX_BATCH_BYTES * 4):
            hashes.append(merkle.leaf_hash(stored.body))
            entry = parse_entry(stored.body)
            if entry is None:
                raise VerificationError(Reason.STORE_CORRUPT, f"{feed}: entry {stored.index} does not read back", feed=feed)
            if entry.WhichOneof("body") == "genesis":
                keys, role = entry.genesis.log_keys.SerializeToString(), entry.genesis.role
                signers = [signer(log_keys_of(feed.origin, keys))]
            elif entry.WhichOneof("body") == "key_rotation":
                keys = entry.key_rotation.log_keys.SerializeToString()
                keychain.check_room(tx, feed)
                signers.append(signer(keychain.check_rotation(feed, entry.key_rotation)))
                rotated = True
                break
    frontier.append(hashes)
    merkle.extend_tiles(tx.tiles(feed), state.size, hashes)
    size, root = frontier.size, frontier.root()
    note = sign_checkpoint(Checkpoint(feed.origin, size, root), signers)
    if rotated:
        tx.pin_checkpoint(feed, size, note)
    sealed = replace(
        state,
        size=size,
        frontier=frontier.to_bytes(),
        root=root,
        checkpoint=note,
        signed_size=size,
        target=b"",
        log_keys=keys,
        role=role,
    )
    tx.save_feed(sealed)
    return sealed


def extend(tx: LogTransaction, batch: replication_pb2.Batch, checkpoint: bytes) -> Extended:
    """Add a batch to the copy of its feed, or refuse it whole.

    A batch that repeats what is already here adds nothing and is no error; one that overlaps adds its new part.

    Args:
        tx: a transaction; on any error the caller rolls it back.
        batch: from a peer or a file; nothing of it is believed yet.
        checkpoint: the note that the batch leads to: its own, or the one that this stream named before.

    Raises:
        NotFoundError: ``UNKNOWN_FEED``, nobody vouched for this feed.
        PreconditionError: ``FEED_QUARANTINED``, ``EPOCH_SUPERSEDED``.
        OutOfRangeError: ``POSITION_MISMATCH``, the batch begins beyond what is here (metadata ``size``).
        VerificationError: it does not verify; the reason says how.
        ForkedError: its author signed something that contradicts what is here.
    """
    feed = FeedId.parse(batch.feed)
    given_up = tx.feed(feed)
    if given_up is not None and given_up.quarantine == Reason.EPOCH_SUPERSEDED and _repeats(tx, given_up, batch):
        return Extended(feed, given_up.size, 0)
    state = _accepted(tx, feed)
    if batch.after > state.size:
        raise OutOfRangeError(
            Reason.POSITION_MISMATCH, f"{feed}: a batch after {batch.after}, but {state.size} are here", feed=feed, size=state.size
        )
    _check_shape(batch)
    end = batch.after + len(batch.entries)
    skip = state.size - batch.after
    entries, contents = batch.entries[skip:], batch.contents[skip:]

    if end <= state.size and _known_already(tx, state, batch):
        # A relay may still send what came before a key rotation; its checkpoint need not open with the keys of today.
        return Extended(feed, state.size, 0)
    if not state.log_keys and not skip:
        state = _with_genesis(state, batch.entries[0])
    signed = open_checkpoint(checkpoint, [keys_of(state)])
    _check_consistent(tx, state, signed, checkpoint)
    if end <= state.size:
        return Extended(feed, state.size, 0)
    if signed.size < end:
        raise VerificationError(Reason.ROOT_MISMATCH, f"{feed}: a batch to {end} under a checkpoint of {signed.size}", feed=feed, index=end)

    walked = _walk(state, entries, contents)
    _check_rotation(tx, state, walked.new_keys, signed.size, end, checkpoint)

    frontier = merkle.Frontier.from_bytes(state.size, state.frontier)
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    frontier.append(hashes)
    root = frontier.root()
    if signed.size == end:
        if root != signed.root:
            raise VerificationError(
                Reason.ROOT_MISMATCH, f"{feed}: entries up to {end} do not give the signed root", feed=feed, index=state.size
            )
    else:
        merkle.verify_consistency(end, root, signed.size, signed.root, batch.proof)

    # From here on everything is believed; a crash before the commit leaves the copy as it was.
    tx.insert_entries(feed, state.size, entries, [*contents, *([b""] * (len(entries) - len(contents)))])
    merkle.extend_tiles(tx.tiles(feed), state.size, hashes)
    arrived = signed.size == end
    if walked.new_keys is not None:
        tx.pin_checkpoint(feed, end, checkpoint)
    tx.save_feed(
        replace(
            state,
            size=end,
            tail=end,
            frontier=frontier.to_bytes(),
            root=root,
            checkpoint=checkpoint if arrived else state.checkpoint,
            signed_size=end if arrived else state.signed_size,
            target=b"" if arrived else checkpoint,
            log_keys=walked.new_keys or state.log_keys,
            authority_index=walked.authority,
        )
    )
    return Extended(feed, end, len(entries))


def _accepted(tx: LogTransaction, feed: FeedId) -> FeedState:
    """The state of a feed of which more may be taken."""
    state = tx.feed(feed)
    if state is None:
        raise NotFoundError(Reason.UNKNOWN_FEED, f"nobody here vouches for {feed}", feed=feed)
    if state.quarantine == Reason.EPOCH_SUPERSEDED:
        raise _given_up(feed)
    # Of a member that has signed two histories that one is followed which the simpul's log observes, or nobody could judge on; what it
    # holds has no effect any more but where that log says so.
    followed = state.quarantine == Reason.FORKED and state.role == entry_pb2.MEMBER_ROLE_FORUM
    if state.quarantine and not followed:
        raise PreconditionError(Reason.FEED_QUARANTINED, f"{feed} is quarantined: {state.quarantine}", feed=feed, why=state.quarantine)
    return state


def _given_up(feed: FeedId) -> PreconditionError:
    return PreconditionError(
        Reason.EPOCH_SUPERSEDED, f"{feed} was given up by its owner, who goes on with new keys in a new epoch", feed=feed
    )


def _repeats(tx: LogTransaction, state: FeedState, batch: replication_pb2.Batch) -> bool:
    """Is every entry of the batch here, byte for byte?"""
    _check_shape(batch)
    if batch.after + len(batch.entries) > state.size:
        return False
    stored = tx.entries(state.feed, batch.after, len(batch.entries), MAX_BATCH_ENTRIES * (MAX_ENTRY_BYTES + MAX_CONTENT_BLOB_BYTES))
    return [entry.body for entry in stored] == list(batch.entries)


def _known_already(tx: LogTransaction, state: FeedState, batch: replication_pb2.Batch) -> bool:
    """Is every entry of the batch here, byte for byte, and does its checkpoint contradict nothing?"""
    if not _repeats(tx, state, batch):
        return False
    if batch.checkpoint:
        check_head(tx, state.feed, batch.checkpoint)
    return True


def _check_rotation(tx: LogTransaction, state: FeedState, new_keys: bytes | None, signed_size: int, end: int, checkpoint: bytes) -> None:
    """A rotation, if there is one, holds only if the old and the new keys both signed the checkpoint that ends with it."""
    if new_keys is None:
        return
    keychain.check_room(tx, state.feed)
    if signed_size != end:
        raise VerificationError(
            Reason.KEY_ROTATION_INVALID,
            f"{state.feed}: a key rotation at {end - 1} does not end its checkpoint",
            feed=state.feed,
            index=end - 1,
        )
    open_checkpoint(checkpoint, [keys_of(state), log_keys_of(state.feed.origin, new_keys)])


def _check_shape(batch: replication_pb2.Batch) -> None:
    """Counts and lengths, before anything is parsed or hashed."""
    count = len(batch.entries)
    if not 1 <= count <= MAX_BATCH_ENTRIES or len(batch.contents) > count or len(batch.proof) > merkle.MAX_PROOF_HASHES:
        raise VerificationError(Reason.FRAME_MALFORMED, f"{batch.feed}: a batch of {count} entries or a proof too long", feed=batch.feed)
    for offset, entry in enumerate(batch.entries):
        if not 1 <= len(entry) <= MAX_ENTRY_BYTES:
            raise VerificationError(
                Reason.ENTRY_TOO_LARGE,
                f"{batch.feed}: entry {batch.after + offset} has {len(entry)} bytes",
                feed=batch.feed,
                index=batch.after + offset,
                limit=MAX_ENTRY_BYTES,
            )
    if any(len(content) > MAX_CONTENT_BLOB_BYTES for content in batch.contents):
        raise VerificationError(
            Reason.CONTENT_TOO_LARGE, f"{batch.feed}: a content is too large", feed=batch.feed, limit=MAX_CONTENT_BLOB_BYTES
        )


def _with_genesis(state: FeedState, data: bytes) -> FeedState:
    """The state as it is once entry 0 is believed; it is believed because its hash was pinned beforehand."""
    if merkle.leaf_hash(data) != state.genesis:
        raise VerificationError(
            Reason.GENESIS_MISMATCH, f"{state.feed}: entry 0 is not the genesis that was vouched for", feed=state.feed, index=0
        )
    feed, genesis = parse_genesis(data)
    if feed != state.feed:
        raise VerificationError(Reason.GENESIS_MISMATCH, f"the genesis of {state.feed} names {feed}", feed=state.feed, index=0)
    if state.role and genesis.role != state.role:
        raise VerificationError(
            Reason.GENESIS_MISMATCH, f"the genesis of {state.feed} claims another role than it was admitted with", feed=state.feed, index=0
        )
    return replace(state, log_keys=genesis.log_keys.SerializeToString(), role=genesis.role)


@dataclass(frozen=True, slots=True)
class _Walked:
    authority: int
    new_keys: bytes | None


def _walk(state: FeedState, entries: Sequence[bytes], contents: Sequence[bytes]) -> _Walked:
    """Check of each new entry what the feed's integrity rests on: pointers, rotations, digests."""
    feed, authority = state.feed, state.authority_index
    new_keys: bytes | None = None
    last = len(entries) - 1
    for offset, data in enumerate(entries):
        index = state.size + offset
        entry = parse_entry(data)
        expected = None
        if entry is not None:
            body = entry.WhichOneof("body")
            if entry.previous_authority != authority:
                raise VerificationError(
                    Reason.AUTHORITY_POINTER_WRONG, f"{feed}: entry {index} points to {entry.previous_authority}", feed=feed, index=index
                )
            if body == "genesis" and index != 0:
                raise VerificationError(Reason.ENTRY_MALFORMED, f"{feed}: a second genesis at {index}", feed=feed, index=index)
            if body == "key_rotation":
                if offset != last:
                    raise VerificationError(Reason.KEY_ROTATION_INVALID, f"{feed}: a rotation inside a batch", feed=feed, index=index)
                new_keys = entry.key_rotation.log_keys.SerializeToString()
                keychain.check_rotation(feed, entry.key_rotation)
            if body in AUTHORITY_BODIES:
                authority = index
            expected = digest_of(entry)
        content = contents[offset] if offset < len(contents) else b""
        if content:
            _check_content(feed, index, expected, content)
    return _Walked(authority, new_keys)


def _check_content(feed: FeedId, index: int, expected: tuple[bytes, int] | None, content: bytes) -> None:
    if expected is None:
        raise VerificationError(Reason.FRAME_MALFORMED, f"{feed}: entry {index} has no content", feed=feed, index=index)
    digest, size = expected
    if len(content) != 32 + size or hashlib.sha256(content).digest() != digest:
        raise VerificationError(
            Reason.CONTENT_DIGEST_MISMATCH, f"{feed}: the content of entry {index} is not the one that was signed", feed=feed, index=index
        )


def supply_content(tx: LogTransaction, feed: FeedId, index: int, content: bytes) -> bool:
    """Put a content beside an entry that came without it; False if it is here already.

    Raises:
        NotFoundError: ``FEED_NOT_FOUND``. VerificationError: ``CONTENT_DIGEST_MISMATCH`` and others.
    """
    stored = tx.entries(feed, index, 1, MAX_ENTRY_BYTES)
    if not stored or stored[0].index != index:
        raise NotFoundError(Reason.FEED_NOT_FOUND, f"{feed}: entry {index} is not here", feed=feed, index=index)
    if stored[0].content:
        return False
    entry = parse_entry(stored[0].body)
    _check_content(feed, index, None if entry is None else digest_of(entry), content)
    tx.set_content(feed, index, content)
    return True


def read_batch(
    tx: LogTransaction, feed: FeedId, after: int, *, max_entries: int = 512, max_bytes: int = MAX_BATCH_BYTES
) -> replication_pb2.Batch | None:
    """The next batch for a reader that has ``after`` entries; None if there is nothing under a checkpoint beyond that.

    Raises:
        NotFoundError: ``FEED_NOT_FOUND``. OutOfRangeError: ``AHEAD_OF_WRITER`` (metadata ``size``).
    """
    state = _known(tx, feed)
    if after > state.signed_size:
        raise OutOfRangeError(
            Reason.AHEAD_OF_WRITER, f"{feed}: {after} asked for, {state.signed_size} are signed", feed=feed, size=state.signed_size
        )
    if after == state.signed_size:
        return None
    # A reader must meet every key rotation at the checkpoint that both keys signed.
    pinned = tx.pinned_checkpoint(feed, after)
    size, note = pinned if pinned is not None else (state.signed_size, state.checkpoint)
    stored = tx.entries(feed, after, min(size - after, max_entries), max_bytes)
    batch = replication_pb2.Batch(
        feed=feed.origin,
        after=after,
        entries=[entry.body for entry in stored],
        contents=_without_trailing_empty([entry.content for entry in stored]),
        checkpoint=note,
    )
    end = after + len(stored)
    if end < size:
        batch.proof.extend(merkle.consistency_proof(tx.tiles(feed), end, size))
    return batch


def _without_trailing_empty(contents: list[bytes]) -> list[bytes]:
    while contents and not contents[-1]:
        contents.pop()
    return contents


def check_head(tx: LogTransaction, feed: FeedId, note: bytes) -> Checkpoint | None:
    """Compare a checkpoint that somebody showed with the copy here. Every contact is gossip: this is where a fork shows.

    Returns:
        The checkpoint if its signatures verify with the keys that signed at its size, as far as that is known here; None if they
        cannot be checked yet (no genesis, or keys that were rotated further on).

    Raises:
        ForkedError: it is signed by the feed's keys and contradicts the copy.
        VerificationError: it is malformed.
    """
    state = tx.feed(feed)
    if state is None or not state.log_keys:
        return None
    try:
        signed = open_checkpoint(note, [keychain.keys_at(tx, feed, Checkpoint.parse(Note.parse(note).text).size)])
    except VerificationError as error:
        if error.reason in (Reason.SIGNATURE_MISSING, Reason.SIGNATURE_INVALID):
            return None
        raise
    _check_consistent(tx, state, signed, note)
    return signed


def _check_consistent(tx: LogTransaction, state: FeedState, signed: Checkpoint, note: bytes) -> None:
    """A signed statement about entries that are already here must say what is here."""
    if signed.origin != state.feed.origin:
        raise VerificationError(Reason.WRONG_ORIGIN, f"a checkpoint of {signed.origin[:80]!r} for {state.feed}", feed=state.feed)
    if signed.size > state.size or not signed.size:
        return
    tiles = tx.tiles(state.feed)
    ours = state.root if signed.size == state.size else merkle.root_at(tiles, signed.size)
    if ours == signed.root:
        return
    against = state.checkpoint if signed.size <= state.signed_size else state.target
    size = open_checkpoint(against, [keys_of(state)]).size if against else 0
    if not signed.size <= size <= state.size:
        # In the middle of a catch-up there is no second signed statement that covers what is here: refused, but no proof of a fork.
        raise VerificationError(Reason.ROOT_MISMATCH, f"{state.feed}: a checkpoint of {signed.size} has another root", feed=state.feed)
    proof = merkle.consistency_proof(tiles, signed.size, size) if signed.size < size else []
    raise ForkedError(state.feed, evidence.fork(keychain.chain_of(tx, state.feed), note, against, ours, proof))


def divergence(tx: LogTransaction, feed: FeedId, size: int) -> replication_pb2.Head | None:
    """For somebody whose copy of ``size`` entries ours does not extend: what our history has there; None if ours is shorter."""
    state = tx.feed(feed)
    if state is None or not 0 < size <= state.signed_size:
        return None
    tiles = tx.tiles(feed)
    head = replication_pb2.Head(feed=feed.origin, size=state.size, checkpoint=state.checkpoint)
    head.divergence.size, head.divergence.root = size, merkle.root_at(tiles, size)
    head.divergence.proof.extend(merkle.consistency_proof(tiles, size, state.signed_size))
    return head


def check_divergence(tx: LogTransaction, feed: FeedId, head: replication_pb2.Head) -> None:
    """Look at the answer to a refusal: does it prove two histories?

    Raises:
        ForkedError: it does. VerificationError: it proves nothing.
    """
    state, said = tx.feed(feed), head.divergence
    if state is None or not state.log_keys or said.size != state.signed_size:
        return
    signed = open_checkpoint(head.checkpoint, [keys_of(state)])
    merkle.verify_consistency(said.size, said.root, signed.size, signed.root, said.proof)
    ours = state.root if said.size == state.size else merkle.root_at(tx.tiles(feed), said.size)
    if ours != said.root:
        raise ForkedError(feed, evidence.fork(keychain.chain_of(tx, feed), state.checkpoint, head.checkpoint, said.root, list(said.proof)))


def truncate(tx: LogTransaction, feed: FeedId, size: int) -> None:
    """Give up a copy beyond its first ``size`` entries, to take another history of the same feed from there on.

    What is left is under no checkpoint until the next batch comes.
    """
    state, frontier, authority = _known(tx, feed), merkle.Frontier(), 0
    keys = keychain.keys_at(tx, feed, size) if size else None
    tx.drop_from(feed, size)
    tiles = tx.tiles(feed)
    while frontier.size < size:
        stored = tx.entries(feed, frontier.size, min(MAX_BATCH_ENTRIES, size - frontier.size), MAX_BATCH_BYTES * 4)
        for item in stored:
            entry = parse_entry(item.body)
            if entry is not None and entry.WhichOneof("body") in AUTHORITY_BODIES:
                authority = item.index
        hashes = [merkle.leaf_hash(item.body) for item in stored]
        merkle.extend_tiles(tiles, frontier.size, hashes)
        frontier.append(hashes)
    tx.save_feed(
        replace(
            state,
            size=size,
            tail=size,
            frontier=frontier.to_bytes(),
            root=frontier.root(),
            checkpoint=b"",
            signed_size=0,
            target=b"",
            log_keys=key_set(keys).SerializeToString() if keys is not None else b"",
            authority_index=authority,
        )
    )


def quarantine(tx: LogTransaction, feed: FeedId, reason: Reason) -> None:
    """Take nothing more of a feed; what is here stays and is served."""
    state = _known(tx, feed)
    if state.quarantine != Reason.EPOCH_SUPERSEDED:
        # What its owner gave up stays given up, whatever else is found of it.
        tx.save_feed(replace(state, quarantine=reason.value))


def _known(tx: LogTransaction, feed: FeedId) -> FeedState:
    state = tx.feed(feed)
    if state is None:
        raise NotFoundError(Reason.FEED_NOT_FOUND, f"the feed {feed} is not known here", feed=feed)
    return state
