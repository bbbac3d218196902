"""Proofs of misbehaviour: a fork is proved to anybody, and nothing else passes for one."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from kad_node.store.memory import MemoryLog
from kad_protocol import evidence, merkle
from kad_protocol import feed as feeds
from kad_protocol.entry import new_entry
from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError
from kad_protocol.feed import Draft
from kad_protocol.keychain import chain_of
from kad_protocol.names import FeedId
from kad_protocol.note import Note
from kad_protocol.v1 import entry_pb2
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
    assert isinstance(found, evidence.Fork)
    assert found.feed == FEED
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
    document["keys"]["genesis"] = base64.b64encode(stranger.log.entries(FEED, 0, 1, 1 << 20)[0].body).decode()


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
    "no genesis": (lambda d: d["keys"].update(genesis=""), Reason.ENTRY_MALFORMED),
    "another old root": (lambda d: d.update(old_root=flip(d["old_root"])), Reason.ROOT_MISMATCH),
    "a hash changed": (lambda d: d["proof"].__setitem__(0, flip(d["proof"][0])), Reason.ROOT_MISMATCH),
    "a hash too few": (lambda d: d["proof"].pop(), Reason.PROOF_INVALID),
    "a hash too many": (lambda d: d["proof"].append(d["proof"][0]), Reason.PROOF_INVALID),
    "no keys": (lambda d: d.pop("keys"), Reason.INVALID_FILE),
    "keys that are none": (lambda d: d.update(keys=[7]), Reason.INVALID_FILE),
    "a note without a size": (lambda d: d["notes"].__setitem__(0, "x"), Reason.NOTE_MALFORMED),
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
    path = merkle.consistency_proof(author.log.tiles(FEED), 4, 8)
    keys = chain_of(author.log, FEED)
    with pytest.raises(VerificationError) as caught:
        evidence.verify(evidence.fork(keys, early, note_of(author), old_root, path))
    assert caught.value.reason == Reason.PROOF_INVALID
    with pytest.raises(VerificationError) as caught:
        evidence.verify(evidence.fork(keys, early, early, old_root, []))
    assert caught.value.reason == Reason.PROOF_INVALID


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b"[" * 200_000, b" " * (evidence.MAX_EVIDENCE_BYTES + 1)])
def test_files_that_are_no_evidence(data: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        evidence.verify(data)
    assert caught.value.reason == Reason.INVALID_FILE


def test_a_fork_after_a_rotation_is_proved_along_the_keys() -> None:
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
    found = evidence.verify(caught.value.evidence)
    assert isinstance(found, evidence.Fork)
    assert found.sizes == (3, 4)
    # Without the rotation the keys of the genesis would have had to sign.
    document = json.loads(caught.value.evidence)
    document["keys"]["rotations"] = []
    with pytest.raises(VerificationError) as unproved:
        evidence.verify(json.dumps(document).encode())
    assert unproved.value.reason == Reason.SIGNATURE_MISSING


def test_whoever_holds_the_longer_history_proves_the_fork_to_the_other() -> None:
    """A refusal of a batch is answered with the root that the other history has there."""
    author, twin = twins(2, 5)
    head = feeds.divergence(twin.log, FEED, 3)
    assert head is not None
    with pytest.raises(feeds.ForkedError) as caught:
        feeds.check_divergence(author.log, FEED, head)
    found = evidence.verify_fork(caught.value.evidence)
    assert found.sizes == (3, 6)
    # Of one history, nothing is proved.
    same = feeds.divergence(author.log, FEED, 2)
    assert same is not None
    feeds.check_divergence(author.log, FEED, same)
    # What does not hang together is refused, and accuses nobody.
    head.divergence.root = bytes(32)
    with pytest.raises(VerificationError) as broken:
        feeds.check_divergence(author.log, FEED, head)
    assert broken.value.reason == Reason.ROOT_MISMATCH
    assert feeds.divergence(author.log, FEED, 4) is None


# A simpul that observed something else than was signed.


def contradiction(more: int = 2) -> bytes:
    """Evidence about a forum of three entries (and ``more`` later ones), of which the simpul observed another root."""
    simpul = Author(MemoryLog(), FeedId(FEED.federation, "simpul"), role=entry_pb2.MEMBER_ROLE_SIMPUL)
    forum = Author(MemoryLog())
    forum.publish(2)
    root = forum.log.feed(FEED).root
    entry = new_entry(1_700_000_000_000_000)
    entry.observation.feed, entry.observation.size, entry.observation.root = FEED.origin, 3, bytes(range(32))
    simpul.write([Draft(entry)])
    simpul.publish(3)
    if more:
        forum.publish(more)
    log_state, author = simpul.log.feed(simpul.feed), forum.log.feed(FEED)
    inclusion = merkle.inclusion_proof(simpul.log.tiles(simpul.feed), 1, log_state.size)
    path = merkle.consistency_proof(forum.log.tiles(FEED), 3, author.size) if more else []
    body = simpul.log.entries(simpul.feed, 1, 1, 1 << 20)[0].body
    keys = chain_of(simpul.log, simpul.feed), chain_of(forum.log, FEED)
    return evidence.contradiction(
        evidence.Observed(keys[0], log_state.checkpoint, body, 1, inclusion), evidence.Signed(keys[1], author.checkpoint, root, path)
    )


@pytest.mark.parametrize("more", [0, 2])
def test_a_contradiction_is_proved(more: int) -> None:
    found = evidence.verify(contradiction(more=more))
    assert isinstance(found, evidence.Contradiction)
    assert (found.member, found.simpul.forum, found.index, found.size) == (FEED, "simpul", 1, 3)
    assert found.observed_root == bytes(range(32)) != found.signed_root


CONTRADICTED: dict[str, tuple[Callable[[dict[str, Any]], Any], Reason]] = {
    "another entry": (lambda d: d.update(entry=d["simpul"]["genesis"]), Reason.ROOT_MISMATCH),
    "another place": (lambda d: d.update(index=2), Reason.ROOT_MISMATCH),
    "another root": (lambda d: d.update(root=flip(d["root"])), Reason.ROOT_MISMATCH),
    "the simpul's checkpoint for the member's": (lambda d: d.update(note=d["checkpoint"]), Reason.WRONG_ORIGIN),
    "the parts exchanged": (lambda d: d.update(simpul=d["member"], member=d["simpul"]), Reason.WRONG_ORIGIN),
    "one signature of two": (lambda d: d.update(note=one_signature(d["note"])), Reason.SIGNATURE_MISSING),
    "an index that is none": (lambda d: d.update(index="x"), Reason.INVALID_FILE),
    "no proof": (lambda d: d.update(proof=[]), Reason.PROOF_INVALID),
}


@pytest.mark.parametrize("case", CONTRADICTED)
def test_a_contradiction_that_was_tampered_with_proves_nothing(case: str) -> None:
    document = json.loads(contradiction())
    tamper, reason = CONTRADICTED[case]
    tamper(document)
    with pytest.raises(KadError) as caught:
        evidence.verify(json.dumps(document).encode())
    assert caught.value.reason == reason


def test_a_true_observation_contradicts_nobody() -> None:
    forum = Author(MemoryLog())
    simpul = Author(MemoryLog(), FeedId(FEED.federation, "simpul"), role=entry_pb2.MEMBER_ROLE_SIMPUL)
    simpul.observe(forum)
    state, log_state = forum.log.feed(FEED), simpul.log.feed(simpul.feed)
    body = simpul.log.entries(simpul.feed, 1, 1, 1 << 20)[0].body
    inclusion = merkle.inclusion_proof(simpul.log.tiles(simpul.feed), 1, log_state.size)
    data = evidence.contradiction(
        evidence.Observed(chain_of(simpul.log, simpul.feed), log_state.checkpoint, body, 1, inclusion),
        evidence.Signed(chain_of(forum.log, FEED), state.checkpoint, state.root, []),
    )
    with pytest.raises(VerificationError) as caught:
        evidence.verify(data)
    assert caught.value.reason == Reason.PROOF_INVALID
