"""Rows of the list of threats (docs/threats.md) that are pure logic. Each shows the attack succeed where the check is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kad_node.store.memory import MemoryLog
from kad_protocol import feed as feeds
from kad_protocol import merkle, note
from kad_protocol.content import check
from kad_protocol.entry import genesis_entry, key_set, log_keys_of, new_entry, parse_genesis
from kad_protocol.errors import KadError, Reason
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId, check_forum
from kad_protocol.note import Checkpoint, LogSigner, Note, cosign, open_checkpoint, sign_checkpoint, verify_cosignatures
from kad_protocol.statement import CERTIFICATE_BINDING, RECOVERY, sign_statement, verify_statement
from kad_protocol.v1 import content_pb2, entry_pb2, replication_pb2
from tests.unit.federation import DAY, SIMPUL, START, Federation, charter, governance
from tests.unit.feeds import FEED, Author, draft
from tests.unit.test_governance import candidate, observed, reason

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())
SMALL = [bytes.fromhex(key["public_key_hex"]) for key in VECTORS["ed25519_refuse_public_keys"]["keys"]]


# 2: whoever relays a record changes nothing of it.


def copied(author: Author, batch: replication_pb2.Batch) -> MemoryLog:
    copy = MemoryLog()
    feeds.pin(copy, author.feed, author.genesis)
    feeds.extend(copy, batch, batch.checkpoint)
    return copy


def flips(batch: replication_pb2.Batch) -> list[tuple[str, replication_pb2.Batch]]:
    """The batch with one bit flipped, at each byte of its entries, contents and checkpoint."""
    made: list[tuple[str, replication_pb2.Batch]] = []
    for name in ("entries", "contents"):
        for number, data in enumerate(getattr(batch, name)):
            for place in range(len(data)):
                other = replication_pb2.Batch()
                other.CopyFrom(batch)
                getattr(other, name)[number] = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
                made.append((f"{name} {number} {place}", other))
    # The text, and a part of each signature line; unit tests of notes do all of it.
    for place in [*range(batch.checkpoint.index(b"\n\n") + 60), *range(300, len(batch.checkpoint), 97)]:
        other = replication_pb2.Batch()
        other.CopyFrom(batch)
        other.checkpoint = batch.checkpoint[:place] + bytes([batch.checkpoint[place] ^ 1]) + batch.checkpoint[place + 1 :]
        made.append((f"checkpoint {place}", other))
    return made


def test_every_flipped_byte_of_a_relayed_batch_is_refused() -> None:
    author = Author(MemoryLog())
    author.write([draft("Judul")])
    batch = author.batch(0)
    taken = []
    for name, spoilt in flips(batch):
        try:
            copied(author, spoilt)
        except KadError:
            continue
        taken.append(name)
    assert taken == []
    assert copied(author, batch).feed(FEED).size == 2, "and as it was it is taken"  # type: ignore[union-attr]


def test_without_the_tree_a_flipped_byte_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # Able to fail: the root is what holds the entries, the digest what holds the contents.
    author = Author(MemoryLog())
    author.write([draft("Judul")])
    honest = author.batch(0)
    signed = merkle.root_at(author.log.tiles(FEED), 2)
    monkeypatch.setattr(merkle.Frontier, "root", lambda _: signed)
    monkeypatch.setattr(feeds, "_check_content", lambda *_: None)
    taken = []
    for name, spoilt in flips(honest):
        try:
            copied(author, spoilt)
        except KadError:
            continue
        taken.append(name.split()[0])
    assert {"entries", "contents"} <= set(taken)


# 11: what was signed for one purpose is worth nothing for another, even with the same key.


def test_a_signature_is_good_for_what_it_was_made_for_only() -> None:
    keys = MemberKeys.generate()
    log, origin = keys.log_signer(FEED.origin), FEED.origin
    # The worst case: one key for everything, under one name.
    one = LogSigner(origin, bytes(range(32)), bytes(range(32, 64)))
    checkpoint = Checkpoint(origin, 3, bytes(range(32)))
    confirmed = Note(checkpoint.text, cosign(checkpoint, one, 1_800_000_000)).to_bytes()
    signed = sign_checkpoint(checkpoint, [one])
    with pytest.raises(KadError) as caught:
        open_checkpoint(confirmed, [one.public])
    assert caught.value.reason == Reason.SIGNATURE_MISSING
    with pytest.raises(KadError) as caught:
        verify_cosignatures(Note.parse(signed), one.public)
    assert caught.value.reason == Reason.SIGNATURE_MISSING
    # Both as what they are.
    assert open_checkpoint(signed, [one.public]) == checkpoint
    assert verify_cosignatures(Note.parse(confirmed), one.public).time == 1_800_000_000
    # A statement of one type is none of another, and what a checkpoint says is no statement.
    payload = b"x"
    ed25519, mldsa44 = sign_statement(log, CERTIFICATE_BINDING, payload)
    verify_statement(log.public, CERTIFICATE_BINDING, payload, ed25519, mldsa44)
    for kind, signatures in (
        (RECOVERY, (ed25519, mldsa44)),
        (CERTIFICATE_BINDING, (log.sign_ed25519(checkpoint.text.encode()), log.sign_mldsa44(checkpoint.text.encode()))),
    ):
        with pytest.raises(KadError) as caught:
            verify_statement(log.public, kind, payload, *signatures)
        assert caught.value.reason == Reason.SIGNATURE_INVALID


def test_a_checkpoint_of_one_federation_is_none_of_another() -> None:
    keys = MemberKeys.generate()
    here, there = FeedId("satu.kad.internal", "forum-a"), FeedId("dua.kad.internal", "forum-a")
    signed = sign_checkpoint(Checkpoint(here.origin, 1, bytes(32)), [keys.log_signer(here.origin)])
    with pytest.raises(KadError) as caught:
        open_checkpoint(signed, [keys.log_signer(there.origin).public])
    assert caught.value.reason == Reason.WRONG_ORIGIN


# 13: Ed25519 keys of small order, with which one signature fits every message, at each door.


def at_genesis(weak: bytes, *, witness: bool = False) -> None:
    keys, pair = MemberKeys.generate(), entry_pb2.KeySet(ed25519_public=weak, mldsa44_public=bytes(1312))
    entry = genesis_entry(
        FEED,
        keys.log_signer(FEED.origin).public,
        keys.witness_signer(FEED.origin).public,
        bytes(32),
        entry_pb2.MEMBER_ROLE_FORUM,
        1_000_000,
    )
    (entry.genesis.witness_keys if witness else entry.genesis.log_keys).CopyFrom(pair)
    parse_genesis(entry.SerializeToString())


def at_rotation(weak: bytes, *, witness: bool = False) -> None:
    author, fresh = Author(MemoryLog()), MemberKeys.generate()
    good, pair = fresh.log_signer(FEED.origin), entry_pb2.KeySet(ed25519_public=weak, mldsa44_public=bytes(1312))
    entry = new_entry(2_000_000)
    entry.key_rotation.log_keys.CopyFrom(key_set(good.public) if witness else pair)
    entry.key_rotation.witness_keys.CopyFrom(pair if witness else key_set(fresh.witness_signer(FEED.origin).public))
    entry.previous_authority = 0
    body = entry.SerializeToString()
    hashes = [merkle.leaf_hash(stored.body) for stored in author.log.entries(FEED, 0, 10, 1 << 20)]
    frontier = merkle.Frontier()
    frontier.append([*hashes, merkle.leaf_hash(body)])
    signer = next(iter(author.signers.values()))
    checkpoint = sign_checkpoint(Checkpoint(FEED.origin, frontier.size, frontier.root()), [signer, good])
    batch = author.batch(0)
    batch.entries.append(body)
    batch.checkpoint = checkpoint
    copied(author, batch)


DOORS: dict[str, Callable[[bytes], Any]] = {
    "genesis": at_genesis,
    "genesis, as a witness": lambda weak: at_genesis(weak, witness=True),
    "rotation": at_rotation,
    "rotation, as a witness": lambda weak: at_rotation(weak, witness=True),
    "recovery and confirming": lambda weak: log_keys_of(
        FEED.origin, entry_pb2.KeySet(ed25519_public=weak, mldsa44_public=bytes(1312)).SerializeToString()
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("weak", SMALL, ids=lambda key: key.hex()[:16])
def test_a_key_with_which_one_signature_fits_every_message_gets_in_nowhere(door: str, weak: bytes) -> None:
    with pytest.raises(KadError) as caught:
        DOORS[door](weak)
    assert caught.value.reason == Reason.WEAK_KEY


@pytest.mark.parametrize("door", [door for door in DOORS if door != "rotation"])
def test_without_the_check_such_a_key_gets_in(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(note, "_check_ed25519", lambda _: None)
    log_keys_of.cache_clear()
    DOORS[door](SMALL[1])
    log_keys_of.cache_clear()


# 26: names that look like others.


@pytest.mark.parametrize(
    "name", ["kartamantuI", "kаrtamantul", "kartamantul\u202e", "kartamantul\u200b", "karta_mantul", "KARTAMANTUL", "karta--mantul"]
)
def test_a_forum_id_cannot_look_like_another(name: str) -> None:
    with pytest.raises(KadError) as caught:
        check_forum(name)
    assert caught.value.reason == Reason.INVALID_NAME


@pytest.mark.parametrize("name", ["Sekber \u202elutnamatraK", "Sekber\u2066", "Sekber e\u0301", "Sekber\u0000"])
def test_a_display_name_cannot_turn_the_text_round(name: str) -> None:
    check(content_pb2.ForumProfile(name="Sekber Kartamantul é"))
    with pytest.raises(KadError) as caught:
        check(content_pb2.ForumProfile(name=name))
    assert caught.value.reason == Reason.INVALID_FIELD


# 27: many new members that nobody knows.


@pytest.mark.parametrize("guard", [True, False])
def test_puppets_do_not_make_a_quorum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: bool) -> None:  # noqa: FBT001
    if not guard:
        monkeypatch.setattr(Governance, "may_admit", lambda *_: None)
    fed = Federation(tmp_path, count=2)
    fed.adopt(charter(admission_endorsements=2))
    index = fed.act("publish-on-behalf", observed(end=START + 99 * DAY)(fed), fed.forums[0])
    puppets = []
    for number in range(5):
        puppet = Author(MemoryLog(), FeedId(SIMPUL.federation, f"boneka-{number}"))
        fed.admit(puppet)
        puppets.append(puppet)
    fed.forums += puppets
    fed.observe(*puppets)
    # Of seven five are enough; had the two members confirmed anything before, these alone would count now.
    place = fed.finality(puppets)
    tx = fed.node()
    assert (reason(tx, SIMPUL, place) is None) is not guard
    assert governance(tx).act(index).state == (1 if guard else 2)  # type: ignore[union-attr]
    assert len(governance(tx).full_members()) == (2 if guard else 7)


def test_associates_add_nothing_to_a_quorum(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    for number in range(10):
        associate = Author(MemoryLog(), FeedId(SIMPUL.federation, f"universitas-{number}"))
        fed.admit(associate, category=entry_pb2.MEMBER_CATEGORY_ASSOCIATE)
        fed.forums.append(associate)
    fed.observe(*fed.forums)
    tx = fed.node()
    assert reason(tx, SIMPUL, fed.simpul.log.feed(SIMPUL).size - 1) is None
    few, enough = fed.finality(fed.forums[4:10]), fed.finality(fed.forums[:3])
    tx = fed.node()
    assert [reason(tx, SIMPUL, place) for place in (few, enough)] == [Reason.FINALITY_INVALID, None]


def test_a_candidate_says_nothing(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    fed.adopt(charter(admission_endorsements=2))
    fresh = candidate(fed)
    number = fed.propose(fed.forums[0])
    fed.observe(fed.forums[0])
    fresh.write([Draft(vote_of(fed, number))])
    fed.observe(fresh)
    tx = fed.node()
    decision = governance(tx).decision(number)
    assert decision is not None
    assert list(decision.votes) == []
    assert tx.feed(fresh.feed) is None


def vote_of(fed: Federation, number: str) -> entry_pb2.Entry:
    entry = fed.entry()
    entry.vote.proposal, entry.vote.choice = number, entry_pb2.Vote.CHOICE_YES
    return entry
