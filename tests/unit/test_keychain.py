"""The chain of a feed's keys: followed from the genesis, and refused at each link that does not hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad_protocol import feed as feeds
from kad_protocol import keychain
from kad_protocol.entry import key_set, new_entry
from kad_protocol.errors import KadError, Reason
from kad_protocol.feed import Draft
from kad_protocol.keychain import KeyChain, Rotation, chain_of, keys_after, keys_at
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, Note, open_checkpoint, sign_checkpoint
from kad_protocol.v1 import entry_pb2
from tests.unit.feeds import FEED, Author, attempt, engine, follow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kad_protocol.note import LogKeys

WEAK = bytes.fromhex("01") + bytes(31)


def rotated(folder: Path, parts: tuple[int, ...] = (2, 3, 1), kind: str = "memory") -> tuple[Author, list[tuple[int, LogKeys]]]:
    """An author that publishes and rotates in turn; with the size from which each of its keys signs."""
    author = Author(engine(kind, folder))
    since = [(1, next(iter(author.signers)))]
    for count in parts:
        author.publish(count)
        author.rotate()
        since.append((author.log.feed(FEED).size, list(author.signers)[-1]))
    author.publish(2)
    return author, since


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_keys_are_found_at_every_size(tmp_path: Path, kind: str) -> None:
    author, since = rotated(tmp_path, kind=kind)
    chain = chain_of(author.log, FEED)
    assert [rotation.index + 1 for rotation in chain.rotations] == [size for size, _ in since[1:]]
    copy = engine(kind, tmp_path)
    feeds.pin(copy, FEED, author.genesis)
    follow(copy, author, 2)
    assert chain_of(copy, FEED) == chain
    for size in range(1, author.log.feed(FEED).size + 5):
        expected = [keys for first, keys in since if first <= size][-1]
        assert keys_after(chain, size) == expected
        assert keys_at(copy, FEED, size) == expected
        # A part of the chain is enough for what it covers.
        assert keys_after(chain_of(copy, FEED, size), size) == expected


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(st.integers(0, 9), max_size=5), size=st.integers(1, 40))
def test_whatever_the_steps(tmp_path: Path, parts: list[int], size: int) -> None:
    author, since = rotated(tmp_path, tuple(part or 1 for part in parts))
    assert keys_after(chain_of(author.log, FEED), size) == [keys for first, keys in since if first <= size][-1]


def other(rotation: Rotation, **changes: Any) -> Rotation:
    return replace(rotation, **changes)


def lines(note: bytes, *keep: int) -> bytes:
    parsed = Note.parse(note)
    return Note(parsed.text, tuple(parsed.signatures[n] for n in keep)).to_bytes()


def rotation_entry(log_keys: entry_pb2.KeySet, witness_keys: entry_pb2.KeySet) -> entry_pb2.Entry:
    entry = new_entry(2_000_000)
    entry.key_rotation.log_keys.CopyFrom(log_keys)
    entry.key_rotation.witness_keys.CopyFrom(witness_keys)
    return entry


WRONG: dict[str, tuple[Callable[[KeyChain], KeyChain], set[Reason]]] = {
    "a link missing": (lambda c: replace(c, rotations=c.rotations[1:]), {Reason.SIGNATURE_MISSING}),
    "links swapped": (
        lambda c: replace(c, rotations=(c.rotations[1], c.rotations[0], c.rotations[2])),
        {Reason.SIGNATURE_MISSING, Reason.KEY_ROTATION_INVALID},
    ),
    "a link twice": (lambda c: replace(c, rotations=(c.rotations[0], *c.rotations)), {Reason.KEY_ROTATION_INVALID}),
    "only the new keys signed": (
        lambda c: replace(c, rotations=(other(c.rotations[0], note=lines(c.rotations[0].note, 2, 3)), *c.rotations[1:])),
        {Reason.SIGNATURE_MISSING},
    ),
    "only the old keys signed": (
        lambda c: replace(c, rotations=(other(c.rotations[0], note=lines(c.rotations[0].note, 0, 1)), *c.rotations[1:])),
        {Reason.SIGNATURE_MISSING},
    ),
    "a post-quantum line missing": (
        lambda c: replace(c, rotations=(other(c.rotations[0], note=lines(c.rotations[0].note, 0, 2, 3)), *c.rotations[1:])),
        {Reason.SIGNATURE_MISSING},
    ),
    "another index": (
        lambda c: replace(c, rotations=(other(c.rotations[0], index=c.rotations[0].index + 1), *c.rotations[1:])),
        {Reason.KEY_ROTATION_INVALID, Reason.PROOF_INVALID},
    ),
    "the entry of another link": (
        lambda c: replace(c, rotations=(other(c.rotations[0], entry=c.rotations[1].entry), *c.rotations[1:])),
        {Reason.SIGNATURE_MISSING},
    ),
    "the note of another link": (
        lambda c: replace(c, rotations=(other(c.rotations[0], note=c.rotations[1].note), *c.rotations[1:])),
        {Reason.SIGNATURE_MISSING},
    ),
    "no proof": (lambda c: replace(c, rotations=(other(c.rotations[0], hashes=()), *c.rotations[1:])), {Reason.PROOF_INVALID}),
    "another proof": (
        lambda c: replace(c, rotations=(other(c.rotations[0], hashes=tuple(bytes(32) for _ in c.rotations[0].hashes)), *c.rotations[1:])),
        {Reason.ROOT_MISMATCH},
    ),
    "a proof that is too long": (
        lambda c: replace(c, rotations=(other(c.rotations[0], hashes=(bytes(32),) * 64), *c.rotations[1:])),
        {Reason.PROOF_INVALID},
    ),
    "an entry that is none": (
        lambda c: replace(c, rotations=(other(c.rotations[0], entry=b"\xff\xff"), *c.rotations[1:])),
        {Reason.KEY_ROTATION_INVALID},
    ),
    "an entry of another kind": (
        lambda c: replace(c, rotations=(other(c.rotations[0], entry=c.genesis), *c.rotations[1:])),
        {Reason.KEY_ROTATION_INVALID},
    ),
    "an entry that is too long": (
        lambda c: replace(c, rotations=(other(c.rotations[0], entry=bytes(70_000)), *c.rotations[1:])),
        {Reason.KEY_ROTATION_INVALID},
    ),
    "a note that is too long": (
        lambda c: replace(c, rotations=(other(c.rotations[0], note=bytes(70_000)), *c.rotations[1:])),
        {Reason.KEY_ROTATION_INVALID},
    ),
    "a chain that is too long": (
        lambda c: replace(c, rotations=c.rotations[:1] * (keychain.MAX_ROTATIONS + 1)),
        {Reason.KEY_ROTATION_INVALID},
    ),
    "a genesis that is none": (lambda c: replace(c, genesis=c.rotations[0].entry), {Reason.ENTRY_MALFORMED}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_chain_that_does_not_hold_is_refused(tmp_path: Path, case: str) -> None:
    author, _ = rotated(tmp_path)
    spoil, reasons = WRONG[case]
    with pytest.raises(KadError) as caught:
        keys_after(spoil(chain_of(author.log, FEED)), 100)
    assert caught.value.reason in reasons


def test_a_chain_of_somebody_else(tmp_path: Path) -> None:
    author, _ = rotated(tmp_path)
    stranger = Author(engine("memory", tmp_path))
    with pytest.raises(KadError) as caught:
        keys_after(replace(chain_of(author.log, FEED), genesis=chain_of(stranger.log, FEED).genesis), 100)
    assert caught.value.reason == Reason.SIGNATURE_MISSING
    with pytest.raises(KadError) as caught:
        chain_of(author.log, FeedId("uji.kad.internal", "lain"))
    assert caught.value.reason == Reason.FEED_NOT_FOUND


def weak(keys: entry_pb2.KeySet) -> entry_pb2.KeySet:
    return entry_pb2.KeySet(ed25519_public=WEAK, mldsa44_public=keys.mldsa44_public)


@pytest.mark.parametrize("which", ["log", "witness", "same"])
def test_weak_keys_and_one_key_for_two_purposes_are_refused_at_every_door(tmp_path: Path, which: str) -> None:
    """A key of small order has one signature for every message; its owner could deny whatever it cosigned."""
    author = Author(engine("memory", tmp_path))
    fresh = MemberKeys.generate()
    signer = fresh.log_signer(FEED.origin)
    good, other_keys = key_set(signer.public), key_set(fresh.witness_signer(FEED.origin).public)
    pair = {"log": (weak(good), other_keys), "witness": (good, weak(other_keys)), "same": (good, good)}[which]
    expected = Reason.KEY_ROTATION_INVALID if which == "same" else Reason.WEAK_KEY
    entry = rotation_entry(*pair)

    # One's own door.
    author.signers[signer.public] = signer
    with pytest.raises(KadError) as caught, attempt(author.log):
        author.write([Draft(entry)])
    assert caught.value.reason == expected

    # That of whoever copies the feed: signed past our own checks, as a hostile author would.
    copy = engine("memory", tmp_path)
    author = Author(engine("memory", tmp_path))
    feeds.pin(copy, FEED, author.genesis)
    follow(copy, author)
    entry.previous_authority = 0
    root_of = engine("memory", tmp_path)
    feeds.pin(root_of, FEED, author.genesis)
    follow(root_of, author)
    batch = signed_past_checks(author, root_of, entry, signer)
    with pytest.raises(KadError) as caught, attempt(copy):
        feeds.extend(copy, batch, batch.checkpoint)
    assert caught.value.reason == expected

    # That of whoever is shown a chain.
    with pytest.raises(KadError) as caught:
        keys_after(KeyChain(chain_of(author.log, FEED).genesis, (Rotation(1, batch.entries[0], batch.checkpoint, ()),)), 2)
    assert caught.value.reason == expected


def signed_past_checks(author: Author, log: Any, entry: entry_pb2.Entry, signer: Any) -> Any:
    """A batch with one entry more, whose checkpoint old and new keys signed, whatever stands in it."""
    from kad_protocol import merkle  # noqa: PLC0415
    from kad_protocol.v1 import replication_pb2  # noqa: PLC0415

    state = log.feed(FEED)
    frontier = merkle.Frontier.from_bytes(state.size, state.frontier)
    body = entry.SerializeToString()
    frontier.append([merkle.leaf_hash(body)])
    old = author.signers[feeds.keys_of(state)]
    note = sign_checkpoint(Checkpoint(FEED.origin, frontier.size, frontier.root()), [old, signer])
    assert open_checkpoint(note, [old.public]).size == 2
    return replication_pb2.Batch(feed=FEED.origin, after=state.size, entries=[body], checkpoint=note)
