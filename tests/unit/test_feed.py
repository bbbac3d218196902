"""Feeds over both engines: what is right is taken, everything else is refused with its reason and leaves the copy as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad_protocol import evidence, merkle
from kad_protocol import feed as feeds
from kad_protocol.entry import new_entry
from kad_protocol.errors import KadError, Reason
from kad_protocol.feed import Draft
from kad_protocol.names import FeedId
from kad_protocol.note import Note
from kad_protocol.v1 import entry_pb2, replication_pb2
from tests.unit.feeds import FEED, Author, attempt, draft, engine, follow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def author(kind: str, tmp_path: Path) -> Author:
    return Author(engine(kind, tmp_path))


@pytest.fixture
def copy(kind: str, tmp_path: Path, author: Author) -> Any:
    log = engine(kind, tmp_path)
    feeds.pin(log, FEED, author.genesis)
    return log


def same(copy: Any, author: Author) -> None:
    ours, theirs = copy.feed(FEED), author.log.feed(FEED)
    assert (ours.size, ours.root, ours.checkpoint, ours.log_keys) == (theirs.size, theirs.root, theirs.checkpoint, theirs.log_keys)
    size = ours.size
    assert copy.entries(FEED, 0, size, 1 << 30) == author.log.entries(FEED, 0, size, 1 << 30)
    assert merkle.root_at(copy.tiles(FEED), size) == ours.root


def test_a_copy_becomes_the_same(copy: Any, author: Author) -> None:
    author.publish(300)
    author.publish(5, seal_each=True)
    follow(copy, author)
    same(copy, author)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), step=st.integers(1, 50), rotate=st.sets(st.integers(0, 5)))
def test_in_any_steps_and_across_rotations(tmp_path: Path, sizes: list[int], step: int, rotate: set[int]) -> None:
    author = Author(engine("memory", tmp_path))
    log = engine("memory", tmp_path)
    feeds.pin(log, FEED, author.genesis)
    for number, count in enumerate(sizes):
        author.publish(count)
        if number in rotate:
            author.rotate()
        if number % 2:
            follow(log, author, step)
    follow(log, author, step)
    same(log, author)


def test_what_overlaps_adds_its_new_part(copy: Any, author: Author) -> None:
    author.publish(10)
    first = author.batch(0, 6)
    feeds.extend(copy, first, first.checkpoint)
    again = author.batch(0)
    assert feeds.extend(copy, again, again.checkpoint).added == 5
    assert feeds.extend(copy, again, again.checkpoint).added == 0
    same(copy, author)


def flip(data: bytes, at: int = -1) -> bytes:
    spoiled = bytearray(data)
    spoiled[at] ^= 1
    return bytes(spoiled)


def changed(batch: replication_pb2.Batch, **fields: Any) -> replication_pb2.Batch:
    other = replication_pb2.Batch()
    other.CopyFrom(batch)
    for name, value in fields.items():
        other.ClearField(name)
        if isinstance(value, list):
            getattr(other, name).extend(value)
        else:
            setattr(other, name, value)
    return other


WRONG: dict[str, tuple[Callable[[replication_pb2.Batch], replication_pb2.Batch], set[Reason]]] = {
    "an entry changed": (
        lambda b: changed(b, entries=[*b.entries[:3], flip(b.entries[3]), *b.entries[4:]]),
        {Reason.ROOT_MISMATCH, Reason.CONTENT_DIGEST_MISMATCH},
    ),
    "entries swapped": (lambda b: changed(b, entries=[b.entries[1], b.entries[0], *b.entries[2:]], contents=[]), {Reason.ROOT_MISMATCH}),
    "an entry missing": (
        lambda b: changed(b, entries=b.entries[1:], contents=b.contents[1:]),
        {Reason.PROOF_INVALID, Reason.ROOT_MISMATCH},
    ),
    "cut off": (lambda b: changed(b, entries=b.entries[:-1], contents=b.contents[:-1]), {Reason.PROOF_INVALID}),
    "an entry too many": (lambda b: changed(b, entries=[*b.entries, b.entries[0]]), {Reason.ROOT_MISMATCH}),
    "an entry too large": (lambda b: changed(b, entries=[*b.entries[:-1], bytes(65_536)]), {Reason.ENTRY_TOO_LARGE}),
    "an empty entry": (lambda b: changed(b, entries=[*b.entries[:-1], b""]), {Reason.ENTRY_TOO_LARGE}),
    "nothing": (lambda b: changed(b, entries=[], contents=[]), {Reason.FRAME_MALFORMED}),
    "too many entries": (lambda b: changed(b, entries=[b.entries[0]] * 1025), {Reason.FRAME_MALFORMED}),
    "a content changed": (
        lambda b: changed(b, contents=[*b.contents[:2], flip(b.contents[2]), *b.contents[3:]]),
        {Reason.CONTENT_DIGEST_MISMATCH},
    ),
    "contents swapped": (lambda b: changed(b, contents=[b.contents[1], b.contents[0], *b.contents[2:]]), {Reason.CONTENT_DIGEST_MISMATCH}),
    "more contents than entries": (lambda b: changed(b, contents=[*b.contents, b"x"]), {Reason.FRAME_MALFORMED}),
    "a content too large": (lambda b: changed(b, contents=[bytes(2 << 20)]), {Reason.CONTENT_TOO_LARGE}),
    "a proof where none belongs": (lambda b: changed(b, proof=[bytes(32)] * 64), {Reason.FRAME_MALFORMED}),
    "from too far on": (lambda b: changed(b, after=b.after + 1), {Reason.POSITION_MISMATCH}),
    "a note with a flipped bit": (
        lambda b: changed(b, checkpoint=flip(b.checkpoint, 90)),
        {Reason.CHECKPOINT_MALFORMED, Reason.SIGNATURE_INVALID, Reason.NOTE_MALFORMED},
    ),
    "no note": (lambda b: changed(b, checkpoint=b""), {Reason.NOTE_MALFORMED}),
    "only the classical signature": (lambda b: changed(b, checkpoint=one_line(b.checkpoint, 0)), {Reason.SIGNATURE_MISSING}),
    "only the post-quantum signature": (lambda b: changed(b, checkpoint=one_line(b.checkpoint, 1)), {Reason.SIGNATURE_MISSING}),
    "a feed that nobody vouches for": (lambda b: changed(b, feed="uji.kad.internal/forums/lain/e0"), {Reason.UNKNOWN_FEED}),
    "a feed with no name": (lambda b: changed(b, feed="../../etc"), {Reason.INVALID_NAME}),
}


def one_line(note: bytes, keep: int) -> bytes:
    parsed = Note.parse(note)
    return Note(parsed.text, (parsed.signatures[keep],)).to_bytes()


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_whole(copy: Any, author: Author, case: str) -> None:
    author.publish(8)
    start = author.batch(0, 3)
    feeds.extend(copy, start, start.checkpoint)
    before = copy.feed(FEED)
    spoil, reasons = WRONG[case]
    batch = spoil(author.batch(3))
    with pytest.raises(KadError) as caught, attempt(copy):
        feeds.extend(copy, batch, batch.checkpoint)
    assert caught.value.reason in reasons
    assert copy.feed(FEED) == before
    assert len(copy.entries(FEED, 0, 100, 1 << 30)) == 3
    follow(copy, author)
    same(copy, author)


def test_a_genesis_that_was_not_pinned(kind: str, tmp_path: Path, author: Author) -> None:
    impostor = Author(engine(kind, tmp_path))
    log = engine(kind, tmp_path)
    feeds.pin(log, FEED, author.genesis)
    batch = impostor.batch(0)
    with pytest.raises(KadError) as caught:
        feeds.extend(log, batch, batch.checkpoint)
    assert caught.value.reason == Reason.GENESIS_MISMATCH
    with pytest.raises(KadError) as caught:
        feeds.pin(log, FEED, impostor.genesis)
    assert caught.value.reason == Reason.GENESIS_MISMATCH


def forge(author: Author, entry: entry_pb2.Entry, content: bytes = b"") -> None:
    """Put an entry into the author's log as it is, past `append`, and sign it."""
    log = author.log
    state = log.feed(FEED)
    log.insert_entries(FEED, state.tail, [entry.SerializeToString()], [content])
    from dataclasses import replace  # noqa: PLC0415

    log.save_feed(replace(state, tail=state.tail + 1))
    feeds.seal(log, FEED, author.signers.__getitem__)


def test_authors_that_sign_nonsense(copy: Any, author: Author) -> None:
    pointer = draft("salah").entry
    pointer.previous_authority = 5
    second = entry_pb2.Entry.FromString(author.log.entries(FEED, 0, 1, 1 << 20)[0].body)
    for entry, reason in ((pointer, Reason.AUTHORITY_POINTER_WRONG), (second, Reason.ENTRY_MALFORMED)):
        wrong = Author(engine("memory", None), keys=author.keys)  # type: ignore[arg-type]
        forge(wrong, entry)
        batch = wrong.batch(0)
        with pytest.raises(KadError) as caught, attempt(copy):
            feeds.extend(copy, batch, batch.checkpoint)
        assert caught.value.reason == reason


def test_an_entry_of_a_later_version_is_kept_as_it_is(copy: Any, author: Author) -> None:
    strange = new_entry(1).SerializeToString() + bytes([0xFA, 0x3F, 0x03]) + b"abc"
    log = author.log
    state = log.feed(FEED)
    log.insert_entries(FEED, state.tail, [strange], [b""])
    from dataclasses import replace  # noqa: PLC0415

    log.save_feed(replace(state, tail=state.tail + 1))
    feeds.seal(log, FEED, author.signers.__getitem__)
    follow(copy, author)
    assert copy.entries(FEED, 1, 1, 1000)[0].body == strange


def test_a_rotation_needs_both_keys(copy: Any, author: Author) -> None:
    author.publish(2)
    author.rotate()
    pinned = author.log.pinned_checkpoint(FEED, 0)
    assert pinned is not None
    size, note = pinned
    parsed = Note.parse(note)
    assert len(parsed.signatures) == 4
    start = author.batch(0, size - 1)
    feeds.extend(copy, start, start.checkpoint)
    last = author.batch(size - 1)
    for lines in (parsed.signatures[:2], parsed.signatures[2:]):
        with pytest.raises(KadError) as caught, attempt(copy):
            feeds.extend(copy, last, Note(parsed.text, lines).to_bytes())
        assert caught.value.reason == Reason.SIGNATURE_MISSING
    author.publish(3)
    follow(copy, author)
    same(copy, author)


def test_the_old_key_is_worth_nothing_afterwards(copy: Any, author: Author) -> None:
    old = next(iter(author.signers))
    author.rotate()
    follow(copy, author)
    thief = Author(engine("memory", None), keys=author.keys)  # type: ignore[arg-type]
    thief.publish(5)
    assert next(iter(thief.signers)) == old
    batch = thief.batch(2)
    with pytest.raises(KadError) as caught, attempt(copy):
        feeds.extend(copy, batch, batch.checkpoint)
    assert caught.value.reason == Reason.SIGNATURE_MISSING


def test_two_histories_are_proved(copy: Any, author: Author) -> None:
    twin = Author(engine("memory", None), keys=author.keys)  # type: ignore[arg-type]
    # The same genesis, then something else: what a restored backup without a fence would sign.
    twin.log = engine("memory", None)  # type: ignore[arg-type]
    feeds.pin(twin.log, FEED, author.genesis)
    start = author.batch(0)
    feeds.extend(twin.log, start, start.checkpoint)
    author.publish(3)
    twin.publish(2)
    follow(copy, author)
    with pytest.raises(feeds.ForkedError) as caught:
        feeds.check_head(copy, FEED, twin.log.feed(FEED).checkpoint)
    proof = caught.value.evidence
    found = evidence.verify(proof)
    assert isinstance(found, evidence.Fork)
    assert found.feed == FEED
    assert found.sizes == (3, 4)
    for spoiled in (proof.replace(b"\\n3\\n", b"\\n2\\n", 1), proof[:-40], b"{}", proof.replace(b"fork", b"spoon")):
        with pytest.raises(KadError):
            evidence.verify(spoiled)
    # A checkpoint of the copy itself contradicts nothing.
    assert feeds.check_head(copy, FEED, copy.feed(FEED).checkpoint) is not None
    assert feeds.check_head(copy, FeedId("uji.kad.internal", "lain"), copy.feed(FEED).checkpoint) is None


def test_a_content_may_come_later(copy: Any, author: Author) -> None:
    author.publish(2)
    batch = changed(author.batch(0), contents=[])
    feeds.extend(copy, batch, batch.checkpoint)
    blob = author.log.entries(FEED, 1, 1, 1 << 20)[0].content
    with pytest.raises(KadError) as caught:
        feeds.supply_content(copy, FEED, 1, flip(blob))
    assert caught.value.reason == Reason.CONTENT_DIGEST_MISMATCH
    assert feeds.supply_content(copy, FEED, 1, blob)
    assert not feeds.supply_content(copy, FEED, 1, blob)
    with pytest.raises(KadError):
        feeds.supply_content(copy, FEED, 99, blob)


def test_readers_beyond_the_end_are_told(author: Author) -> None:
    size = author.log.feed(FEED).size
    assert feeds.read_batch(author.log, FEED, size) is None
    with pytest.raises(KadError) as caught:
        feeds.read_batch(author.log, FEED, size + 1)
    assert caught.value.reason == Reason.AHEAD_OF_WRITER


def test_what_is_appended_is_read_back_before_it_is_signed(author: Author) -> None:
    """A bit that flips between writing and signing is signed as it lies on the disk, never as it was in memory."""
    feeds.append(author.log, FEED, [Draft(draft("x").entry)])
    state = feeds.seal(author.log, FEED, author.signers.__getitem__)
    frontier = merkle.Frontier()
    frontier.append(merkle.leaf_hash(entry.body) for entry in author.log.entries(FEED, 0, 10, 1 << 20))
    assert frontier.root() == state.root
