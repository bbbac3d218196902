"""Proofs of misbehaviour: a fork is proved to anybody, and nothing else passes for one."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from kad_node.store.memory import MemoryLog
from kad_protocol import evidence
from kad_protocol import feed as feeds
from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError
from kad_protocol.note import Note
from tests.unit.feeds import FEED, Author

if TYPE_CHECKING:
    from collections.abc import Callable


def twins(ours: int, theirs: int) -> tuple[Author, Author]:
    """One author with two histories that share their genesis alone."""
    author = Author(MemoryLog())
    twin = Author(MemoryLog(), keys=author.keys)
    twin.log = MemoryLog()
    feeds.pin(twin.log, FEED, author.genesis)
    start = author.batch(0)
    feeds.extend(twin.log, start, start.checkpoint)
    author.publish(ours)
    twin.publish(theirs)
    return author, twin


def note_of(author: Author) -> bytes:
    return author.log.feed(FEED).checkpoint


def proof(ours: int, theirs: int) -> bytes:
    author, twin = twins(ours, theirs)
    with pytest.raises(feeds.ForkedError) as caught:
        feeds.check_head(author.log, FEED, note_of(twin))
    assert caught.value.reason == Reason.FORKED
    return caught.value.evidence


@pytest.mark.parametrize("ours, theirs", [(1, 1), (5, 5), (5, 2), (300, 1), (300, 256)])
def test_a_fork_is_proved(ours: int, theirs: int) -> None:
    found = evidence.verify(proof(ours, theirs))
    assert found.origin == FEED.origin
    assert found.sizes == (theirs + 1, ours + 1)
    assert found.roots[0] != found.roots[1]


def test_a_longer_history_is_no_fork_yet() -> None:
    """A head that is ahead cannot be compared; its batch shows the fork, and is refused."""
    author, twin = twins(2, 5)
    before = author.log.feed(FEED)
    head = feeds.check_head(author.log, FEED, note_of(twin))
    assert head is not None
    assert head.size == 6
    batch = twin.batch(3)
    with pytest.raises(VerificationError) as caught:
        feeds.extend(author.log, batch, batch.checkpoint)
    assert caught.value.reason == Reason.ROOT_MISMATCH
    assert author.log.feed(FEED) == before


def test_a_batch_shows_a_fork_too() -> None:
    author, twin = twins(5, 2)
    batch = twin.batch(1)
    with pytest.raises(feeds.ForkedError) as caught:
        feeds.extend(author.log, batch, batch.checkpoint)
    assert evidence.verify(caught.value.evidence).sizes == (3, 6)


def test_one_history_gives_no_evidence() -> None:
    author, _ = twins(3, 1)
    early = note_of(author)
    author.publish(4)
    assert feeds.check_head(author.log, FEED, early) is not None


def test_a_fork_by_a_stranger_is_none() -> None:
    author, _ = twins(3, 1)
    stranger = Author(MemoryLog())
    stranger.publish(1)
    assert feeds.check_head(author.log, FEED, note_of(stranger)) is None


def other_genesis(document: dict[str, Any]) -> None:
    stranger = Author(MemoryLog())
    document["genesis"] = base64.b64encode(stranger.log.entries(FEED, 0, 1, 1 << 20)[0].body).decode()


def flip(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[0] ^= 1
    return base64.b64encode(data).decode()


def one_signature(text: str) -> str:
    note = Note.parse(text.encode())
    return Note(note.text, note.signatures[:1]).to_bytes().decode()


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], Any], Reason]] = {
    "the notes swapped": (lambda d: d["notes"].reverse(), Reason.PROOF_INVALID),
    "one note twice": (lambda d: d.update(notes=[d["notes"][1]] * 2), Reason.PROOF_INVALID),
    "another size": (lambda d: d["notes"].__setitem__(0, d["notes"][0].replace("\n3\n", "\n2\n", 1)), Reason.SIGNATURE_INVALID),
    "one signature of two": (lambda d: d["notes"].__setitem__(1, one_signature(d["notes"][1])), Reason.SIGNATURE_MISSING),
    "the genesis of somebody else": (other_genesis, Reason.SIGNATURE_MISSING),
    "no genesis": (lambda d: d.update(genesis=""), Reason.ENTRY_MALFORMED),
    "another old root": (lambda d: d.update(old_root=flip(d["old_root"])), Reason.ROOT_MISMATCH),
    "a hash changed": (lambda d: d["proof"].__setitem__(0, flip(d["proof"][0])), Reason.ROOT_MISMATCH),
    "a hash too few": (lambda d: d["proof"].pop(), Reason.PROOF_INVALID),
    "a hash too many": (lambda d: d["proof"].append(d["proof"][0]), Reason.PROOF_INVALID),
    "three notes": (lambda d: d["notes"].append(d["notes"][0]), Reason.INVALID_FILE),
    "no notes": (lambda d: d.pop("notes"), Reason.INVALID_FILE),
    "no base64": (lambda d: d.update(old_root="!"), Reason.INVALID_FILE),
    "another kind": (lambda d: d.update(kind="spoon"), Reason.INVALID_FILE),
    "another type": (lambda d: d.update(type="kad.evidence.v2"), Reason.INVALID_FILE),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_was_tampered_with_proves_nothing(case: str) -> None:
    document = json.loads(proof(5, 2))
    tamper, reason = TAMPERED[case]
    tamper(document)
    with pytest.raises(KadError) as caught:
        evidence.verify(json.dumps(document).encode())
    assert caught.value.reason == reason


def test_two_honest_checkpoints_are_no_fork() -> None:
    """A true consistency proof between two checkpoints of one history accuses nobody."""
    author, _ = twins(3, 1)
    early, old_root = note_of(author), author.log.feed(FEED).root
    author.publish(4)
    from kad_protocol import merkle  # noqa: PLC0415

    path = merkle.consistency_proof(author.log.tiles(FEED), 4, 8)
    genesis = author.log.entries(FEED, 0, 1, 1 << 20)[0].body
    with pytest.raises(VerificationError) as caught:
        evidence.verify(evidence.fork(genesis, early, note_of(author), old_root, path))
    assert caught.value.reason == Reason.PROOF_INVALID
    with pytest.raises(VerificationError) as caught:
        evidence.verify(evidence.fork(genesis, early, early, old_root, []))
    assert caught.value.reason == Reason.PROOF_INVALID


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b"[" * 200_000, b" " * (evidence.MAX_EVIDENCE_BYTES + 1)])
def test_files_that_are_no_evidence(data: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        evidence.verify(data)
    assert caught.value.reason == Reason.INVALID_FILE


def test_a_fork_after_a_rotation_cannot_be_proved_yet_and_says_so() -> None:
    author = Author(MemoryLog())
    author.rotate()
    twin = Author(MemoryLog(), keys=author.keys, signers=author.signers)
    twin.log = MemoryLog()
    feeds.pin(twin.log, FEED, author.genesis)
    start = author.batch(0)
    feeds.extend(twin.log, start, start.checkpoint)
    author.publish(2)
    twin.publish(1)
    with pytest.raises(feeds.ForkedError) as caught:
        feeds.check_head(author.log, FEED, note_of(twin))
    with pytest.raises(VerificationError) as unproved:
        evidence.verify(caught.value.evidence)
    assert unproved.value.reason == Reason.SIGNATURE_MISSING
