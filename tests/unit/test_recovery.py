"""A feed that begins anew: who may say so, what becomes void, what goes on; the same on every node, in whatever order things arrive."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad_node.store.memory import MemoryLog
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import merkle, order
from kad_protocol.entry import key_set, new_entry
from kad_protocol.errors import KadError, Reason
from kad_protocol.feed import Draft
from kad_protocol.keys import MemberKeys, RecoveryKeys
from kad_protocol.names import FeedId, RecordName, new_record_id
from kad_protocol.note import Checkpoint, cosign
from kad_protocol.statement import CERTIFICATE_BINDING, RECOVERY, sign_statement
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2, records_pb2
from kad_protocol.witness import with_cosignatures
from tests.unit.federation import DAY, NETWORKING, SIMPUL, SUBSIDIARITY, YES, Federation, charter, dump, governance
from tests.unit.feeds import Author, SqliteLog, draft
from tests.unit.test_governance import standing
from tests.unit.test_governance_model import Script, anyhow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PUBLISHED, RETRACTED = records_pb2.RECORD_STATE_PUBLISHED, records_pb2.RECORD_STATE_RETRACTED
ACTIVE, SUSPENDED, LEFT = entry_pb2.MEMBERSHIP_STATE_ACTIVE, entry_pb2.MEMBERSHIP_STATE_SUSPENDED, entry_pb2.MEMBERSHIP_STATE_LEFT
WEAK = bytes.fromhex("01") + bytes(31)


@pytest.fixture
def fed(tmp_path: Path) -> Federation:
    return Federation(tmp_path, mode=NETWORKING)


@dataclass
class Recovered:
    """A recovery, as the simpul writes it."""

    heir: Author
    entry: entry_pb2.Membership


def prove(old: Author, heir: Author, good: int, recovery: RecoveryKeys | None = None, kind: str = RECOVERY, **changed: Any) -> Recovered:
    """What the owner of a feed signs to begin it anew."""
    said = entry_pb2.RecoveryStatement(
        feed=old.feed.origin,
        last_good_size=good,
        last_good_root=merkle.root_at(old.log.tiles(old.feed), good) if good <= old.log.feed(old.feed).size else bytes(32),
        next_feed=heir.feed.origin,
        next_genesis=heir.genesis,
    )
    for name, value in changed.items():
        setattr(said, name, value)
    signer = (recovery or old.recovery).signer(old.feed.origin)
    payload = said.SerializeToString()
    ed25519, mldsa44 = sign_statement(signer, kind, payload)
    entry = entry_pb2.Membership(feed=heir.feed.origin, genesis=heir.genesis, state=ACTIVE, category=entry_pb2.MEMBER_CATEGORY_FULL)
    entry.recovery.CopyFrom(
        entry_pb2.Recovery(statement=payload, recovery_keys=key_set(signer.public), ed25519_signature=ed25519, mldsa44_signature=mldsa44)
    )
    return Recovered(heir, entry)


def heir_of(old: Author) -> Author:
    keys = MemberKeys.generate(old.feed.epoch + 1)
    return Author(MemoryLog(), FeedId(old.feed.federation, old.feed.forum, old.feed.epoch + 1), keys)


def write(fed: Federation, recovered: Recovered) -> int:
    entry = fed.entry()
    entry.membership.CopyFrom(recovered.entry)
    return fed.say(fed.simpul, entry)


def recover(fed: Federation, number: int, good: int) -> Author:
    """The forum with this number begins anew, by the rules."""
    old = fed.forums[number]
    recovered = prove(old, heir_of(old), good)
    write(fed, recovered)
    fed.forums.append(recovered.heir)
    return recovered.heir


def judged(fed: Federation, index: int) -> Reason | None:
    """What a node says of an entry of the simpul that has just been written."""
    problem = fed.node().problem(SIMPUL, index)
    return problem.reason if problem is not None else None


def size(author: Author) -> int:
    return int(author.log.feed(author.feed).size)


def records(tx: SqliteLog) -> dict[str, tuple[str, int, int]]:
    """Feed, version and state of each record, by its id."""
    rows = tx._connection.execute("SELECT r.ulid, f.origin, r.version, r.state FROM record r JOIN feed f ON f.id = r.feed").fetchall()
    return {ulid: (origin.rpartition("/")[2], version, state) for ulid, origin, version, state in rows}


def titles(tx: SqliteLog) -> dict[str, str]:
    found = {}
    for ulid, (_, _, state) in records(tx).items():
        row = tx.record(RecordName("forum-0", ulid), 0, SIMPUL)
        if row is not None and state == PUBLISHED:
            found[ulid] = contents.parse_content(contents.split(row.content)[1]).title
    return found


def retraction(record: str, version: int) -> Draft:
    blob = contents.new_blob(entry_pb2.RetractionNotice(reason="Palsu").SerializeToString())
    entry = new_entry(1_700_000_000_000_000)
    part = entry.record_retraction
    part.record, part.version, part.digest, part.content_size = record, version, contents.digest(blob), len(blob) - 32
    return Draft(entry, blob)


def profile(name: str, version: int) -> Draft:
    blob = contents.new_blob(content_pb2.ForumProfile(name=name).SerializeToString())
    entry = new_entry(1_700_000_000_000_000)
    part = entry.profile_version
    part.version, part.digest, part.content_size = version, contents.digest(blob), len(blob) - 32
    return Draft(entry, blob)


# What a thief published.


def test_what_a_thief_did_to_records_is_undone_and_the_rest_goes_on(fed: Federation) -> None:
    old = fed.forums[0]
    untouched, revised, withdrawn, gone, false = (new_record_id() for _ in range(5))
    for record in (untouched, revised, withdrawn, gone):
        fed.say(old, draft(f"Judul {record}", record))
    fed.say(old, retraction(gone, 1))
    fed.say(old, profile("Sekber", 1))
    fed.observe(old)
    good = size(old)
    fed.say(old, draft("Dipalsukan", revised, 2), retraction(withdrawn, 1), draft("Palsu", false), profile("Pencuri", 2))
    fed.say(old, draft("Lagi", gone, 2))
    fed.observe(old)
    heir = recover(fed, 0, good)
    tx = fed.node()
    assert records(tx) == {
        untouched: ("e1", 1, PUBLISHED),
        revised: ("e1", 1, PUBLISHED),
        withdrawn: ("e1", 1, PUBLISHED),
        gone: ("e1", 1, RETRACTED),
        false: ("e0", 1, RETRACTED),
    }
    assert titles(tx) == {record: f"Judul {record}" for record in (untouched, revised, withdrawn)}
    assert tx.record(RecordName("forum-0", false), 0, SIMPUL).retraction == "EPOCH_SUPERSEDED"  # type: ignore[union-attr]
    assert tx.record(RecordName("forum-0", gone), 0, SIMPUL).retraction == "Palsu"  # type: ignore[union-attr]
    assert content_pb2.ForumProfile.FromString(tx.member(heir.feed).profile).name == "Sekber"
    assert {tx.problem(old.feed, index).reason for index in range(good, size(old))} == {Reason.EPOCH_SUPERSEDED}  # type: ignore[union-attr]
    assert tx.feed(old.feed).quarantine == Reason.EPOCH_SUPERSEDED  # type: ignore[union-attr]
    # Search finds what stands there now, and only that.
    words = tx._connection.execute("SELECT COUNT(*) FROM record_text WHERE record_text MATCH 'words : Dipalsukan'").fetchone()
    assert words == (0,)

    # The new feed goes on with the numbers.
    fed.observe(heir)
    fed.say(heir, draft("Versi dua", revised, 2), retraction(withdrawn, 1), draft("Baru", new_record_id()))
    tx = fed.node()
    assert records(tx)[revised] == ("e1", 2, PUBLISHED)
    assert titles(tx)[revised] == "Versi dua"
    assert records(tx)[withdrawn] == ("e1", 1, RETRACTED)
    first = tx.record(RecordName("forum-0", revised), 1, SIMPUL)
    assert first is not None
    assert (first.former, first.index) == (old.feed.origin, 2)


def test_a_second_recovery_goes_on_from_the_first(fed: Federation) -> None:
    record, other = new_record_id(), new_record_id()
    fed.say(fed.forums[0], draft("Satu", record))
    fed.observe(fed.forums[0])
    second = recover(fed, 0, size(fed.forums[0]))
    fed.observe(second)
    fed.say(second, draft("Dua", record, 2), draft("Lain", other))
    fed.observe(second)
    good = size(second)
    fed.say(second, draft("Palsu", record, 3))
    fed.observe(second)
    third = recover(fed, len(fed.forums) - 1, good)
    tx = fed.node()
    assert records(tx) == {record: ("e2", 2, PUBLISHED), other: ("e2", 1, PUBLISHED)}
    assert titles(tx) == {record: "Dua", other: "Lain"}
    fed.say(third, draft("Tiga", record, 3))
    assert titles(fed.node())[record] == "Tiga"
    assert tx.heir(fed.forums[0].feed) == third.feed
    # What is here already may be shown again, in a file that holds everything.
    shown = fed.forums[0].batch(0)
    assert feeds.extend(tx, shown, shown.checkpoint).added == 0
    # A thief of the second epoch that reverts to the first finds both closed.
    for author in (fed.forums[0], second):
        author.publish(1)
        batch = author.batch(size(author) - 1)
        with pytest.raises(KadError) as caught:
            feeds.extend(tx, batch, batch.checkpoint)
        assert caught.value.reason == Reason.EPOCH_SUPERSEDED
        with pytest.raises(KadError) as caught:
            feeds.append(tx, author.feed, [draft("Lagi")])
        assert caught.value.reason == Reason.EPOCH_SUPERSEDED


def test_a_content_that_comes_late_finds_its_record_in_the_new_epoch(fed: Federation) -> None:
    old = fed.forums[0]
    record = new_record_id()
    late = draft("Terlambat", record)
    fed.say(old, late)
    fed.observe(old)
    heir = recover(fed, 0, size(old))
    tx = SqliteLog(fed.folder / "late.sqlite3")
    feeds.pin(tx, SIMPUL, fed.simpul.genesis)
    moved = True
    while moved:
        moved = False
        for author in fed.authors:
            state = tx.feed(author.feed)
            if state is not None and state.size < size(author) and not state.quarantine:
                batch = author.batch(state.size)
                del batch.contents[:]
                feeds.extend(tx, batch, batch.checkpoint)
                moved = True
            while order.advance(tx, 7) >= 7:
                pass
    assert records(tx)[record] == ("e1", 1, records_pb2.RECORD_STATE_CONTENT_MISSING)
    assert feeds.supply_content(tx, old.feed, 1, late.content)
    order.content_arrived(tx, old.feed, 1)
    assert records(tx)[record] == ("e1", 1, PUBLISHED)
    assert titles(tx) == {record: "Terlambat"}
    assert heir.feed.epoch == 1


# What a thief decided.


def test_what_a_thief_decided_does_not_stand(fed: Federation) -> None:
    old, others = fed.forums[0], fed.forums[1:]
    kept = fed.mandate(old, "represent")
    early = fed.propose(others[0])
    fed.observe(old, others[0])
    good = size(old)
    fresh = Author(MemoryLog(), FeedId(SIMPUL.federation, "baru"))
    fed.admit(fresh, entry_pb2.MEMBERSHIP_STATE_APPLIED)
    forged = fed.mandate(old, "admit-members")
    fed.vote(others[0], early, old, entry_pb2.Vote.CHOICE_NO)
    endorsement = fed.entry()
    endorsement.endorsement.feed, endorsement.endorsement.genesis = fresh.feed.origin, fresh.genesis
    fed.say(old, endorsement)
    own = fed.propose(old)
    departure = fed.entry()
    departure.departure.SetInParent()
    fed.say(old, departure)
    fed.observe(old)
    before = governance(fed.node())
    assert before.member("forums/forum-0").state == LEFT  # type: ignore[union-attr]
    assert before.member("forums/baru").endorsements == ["forums/forum-0"]  # type: ignore[union-attr]
    heir = recover(fed, 0, good)
    after = governance(fed.node())
    member = after.member("forums/forum-0")
    assert member is not None
    assert (member.state, member.feed) == (ACTIVE, heir.feed.origin)
    assert [(former.feed, former.good_size) for former in member.former] == [(old.feed.origin, good)]
    assert not after.member("forums/baru").endorsements  # type: ignore[union-attr]
    assert not after.decision(early).votes  # type: ignore[union-attr]
    assert after.decision(own).state == governance_pb2.Decision.STATE_REJECTED  # type: ignore[union-attr]
    assert after.mandate(forged).end_position  # type: ignore[union-attr]
    # A departure ends mandates, and what was ended stays so; without one the good ones live on (see below).
    assert after.mandate(kept).end_position  # type: ignore[union-attr]
    # The owner votes again, and counts.
    fed.observe(heir)
    fed.vote(others[0], early, heir, YES)
    fed.observe(heir)
    assert [vote.member for vote in governance(fed.node()).decision(early).votes] == ["forums/forum-0"]  # type: ignore[union-attr]


def test_mandates_live_on_and_the_new_feed_revokes_them(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=SUBSIDIARITY)
    old = fed.forums[0]
    kept = fed.mandate(old)
    fed.observe(old)
    heir = recover(fed, 0, size(old))
    fed.observe(heir)
    index = fed.act("publish-on-behalf", [kept], heir)
    tx = fed.node()
    assert tx.problem(SIMPUL, index) is None
    assert governance(tx).live(governance(tx).mandate(kept), fed.now) == governance_pb2.GrantedMandate.STATE_LIVE  # type: ignore[arg-type]
    number = entry_pb2.Entry.FromString(old.log.entries(old.feed, kept.index, 1, 1)[0].body).mandate.id
    entry = fed.entry()
    entry.mandate_revocation.mandate = number
    fed.say(heir, entry)
    fed.observe(heir)
    assert judged(fed, fed.act("publish-on-behalf", [kept], heir)) == Reason.MANDATE_REVOKED


def test_what_was_published_in_a_forums_name_is_vetoed_across_epochs(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=SUBSIDIARITY)
    old = fed.forums[0]
    kept = fed.mandate(old)
    fed.observe(old)
    index = fed.act("publish-on-behalf", [kept], old)
    heir = recover(fed, 0, size(old))
    fed.observe(heir)
    assert [state for _, _, state in records(fed.node()).values()] == [PUBLISHED]
    entry = fed.entry()
    entry.veto.feed, entry.veto.index = SIMPUL.origin, index
    fed.say(heir, entry)
    fed.observe(heir)
    assert [(feed, state) for feed, _, state in records(fed.node()).values()] == [("e1", RETRACTED)]


def test_who_was_suspended_stays_so_and_who_left_by_itself_has_left(fed: Federation) -> None:
    departure = fed.entry()
    departure.departure.SetInParent()
    fed.say(fed.forums[0], departure)
    fed.observe(fed.forums[0])
    fed.decide(
        fed.forums[2],
        dict.fromkeys(fed.forums[2:], YES),
        standing=entry_pb2.Proposal.Standing(feed=fed.forums[1].feed.origin, state=SUSPENDED),
    )
    recover(fed, 0, size(fed.forums[0]))
    recover(fed, 1, size(fed.forums[1]))
    found = governance(fed.node())
    assert found.member("forums/forum-0").state == LEFT  # type: ignore[union-attr]
    assert found.member("forums/forum-1").state == SUSPENDED  # type: ignore[union-attr]


def test_seats_and_charters_go_on(fed: Federation) -> None:
    old = fed.forums[0]
    fed.adopt(charter(1, NETWORKING, seats=[entry_pb2.Seat(title="ketua", feed=old.feed.origin)]))
    heir = recover(fed, 0, size(old))
    fed.observe(heir)
    fed.forums.remove(heir)
    fed.forums[0] = heir
    fed.forums.append(old)
    fresh = charter(2, NETWORKING, seats=[entry_pb2.Seat(title="ketua", feed=old.feed.origin)])
    fed.decide(heir, dict.fromkeys(fed.forums[:4], YES), charter=fresh)
    assert governance(fed.node()).charter.version == 2


# Witnesses.


def test_its_new_keys_confirm_from_where_the_log_knows_them(fed: Federation) -> None:
    old, others = fed.forums[0], fed.forums[1:]
    heir = recover(fed, 0, size(old))
    unknown = size(fed.simpul)
    fed.observe(heir)
    known = size(fed.simpul)
    found = governance(fed.node())
    assert found.witness_keys(old.feed, known) is None
    assert found.witness_keys(heir.feed, known) == heir.keys.witness_signer(heir.feed.origin).public
    assert unknown < known
    fed.finality([*others, old])
    accepted = fed.finality([*others[:2], heir])
    assert judged(fed, accepted) is None
    assert judged(fed, fed.finality([*others[:2], old])) == Reason.FINALITY_INVALID


def quorum_of(fed: Federation, witnesses: list[Author]) -> entry_pb2.Entry:
    """The quorum for the simpul's newest checkpoint, to be shown whenever one likes."""
    state = fed.simpul.log.feed(SIMPUL)
    checkpoint = Checkpoint(SIMPUL.origin, state.size, state.root)
    lines = [
        "".join(str(line) for line in cosign(checkpoint, w.keys.witness_signer(w.feed.origin), fed.now // 1_000_000)).encode()
        for w in witnesses
    ]
    entry = fed.entry()
    entry.finality.note = with_cosignatures(state.checkpoint, lines)
    return entry


def test_a_rotation_changes_the_witness_keys_at_one_place_of_the_log(fed: Federation) -> None:
    forum, others = fed.forums[0], fed.forums[1:]
    before = forum.keys.witness_signer(forum.feed.origin).public
    fresh = MemberKeys.generate()
    signer = fresh.log_signer(forum.feed.origin)
    forum.signers[signer.public] = signer
    entry = fed.entry()
    entry.key_rotation.log_keys.CopyFrom(key_set(signer.public))
    after = fresh.witness_signer(forum.feed.origin).public
    entry.key_rotation.witness_keys.CopyFrom(key_set(after))
    place = size(fed.simpul)
    early = quorum_of(fed, [*others[:2], forum])
    fed.say(forum, entry)
    fed.observe(forum)
    found = governance(fed.node())
    assert found.witness_keys(forum.feed, place) == before
    assert found.witness_keys(forum.feed, place + 1) == after
    # A quorum from before the change still is one, though it is shown afterwards.
    assert judged(fed, fed.say(fed.simpul, early)) is None
    assert judged(fed, fed.finality([*others[:2], forum])) == Reason.FINALITY_INVALID
    forum.keys = fresh
    assert judged(fed, fed.finality([*others[:2], forum])) is None


# Who may say so.


WRONG: dict[str, Callable[[Federation, Author], Recovered]] = {
    "another recovery code": lambda _, old: prove(old, heir_of(old), 2, RecoveryKeys.generate()),
    "the code of another forum": lambda fed, old: prove(old, heir_of(old), 2, fed.forums[1].recovery),
    "a statement about another feed": lambda fed, old: prove(old, heir_of(old), 2, feed=fed.forums[1].feed.origin),
    "more than was observed": lambda _, old: prove(old, heir_of(old), size(old)),
    "nothing at all": lambda _, old: prove(old, heir_of(old), 1, last_good_size=0),
    "another root": lambda _, old: prove(old, heir_of(old), 2, last_good_root=bytes(32)),
    "the root of another size": lambda _, old: prove(old, heir_of(old), 2, last_good_size=1),
    "another genesis": lambda _, old: prove(old, heir_of(old), 2, next_genesis=bytes(32)),
    "another feed": lambda _, old: prove(old, heir_of(old), 2, next_feed=f"{SIMPUL.federation}/forums/lain/e1"),
    "an epoch left out": lambda _, old: skipping(old),
    "the same epoch": lambda _, old: prove(old, Author(MemoryLog(), old.feed), 2),
    "a statement of another kind": lambda _, old: prove(old, heir_of(old), 2, kind=CERTIFICATE_BINDING),
    "a spoilt signature": lambda _, old: spoilt(prove(old, heir_of(old), 2), "ed25519_signature"),
    "a spoilt post-quantum signature": lambda _, old: spoilt(prove(old, heir_of(old), 2), "mldsa44_signature"),
    "no signature": lambda _, old: spoilt(prove(old, heir_of(old), 2), ""),
    "a statement that cannot be read": lambda _, old: unreadable(prove(old, heir_of(old), 2), old),
    "weak recovery keys": lambda _, old: weakened(prove(old, heir_of(old), 2)),
}


def skipping(old: Author) -> Recovered:
    return prove(old, Author(MemoryLog(), FeedId(old.feed.federation, old.feed.forum, 2)), 2)


def spoilt(recovered: Recovered, field: str) -> Recovered:
    recovery = recovered.entry.recovery
    for name in [field] if field else ["ed25519_signature", "mldsa44_signature"]:
        value = getattr(recovery, name)
        setattr(recovery, name, bytes([value[0] ^ 1]) + value[1:] if field else b"")
    return recovered


def unreadable(recovered: Recovered, old: Author) -> Recovered:
    payload, recovery = b"\xff\xff\xff", recovered.entry.recovery
    signed = sign_statement(old.recovery.signer(old.feed.origin), RECOVERY, payload)
    recovery.statement, (recovery.ed25519_signature, recovery.mldsa44_signature) = payload, signed
    return recovered


def weakened(recovered: Recovered) -> Recovered:
    recovered.entry.recovery.recovery_keys.ed25519_public = WEAK
    return recovered


@pytest.mark.parametrize("case", WRONG)
def test_nobody_else_begins_a_feed_anew(fed: Federation, case: str) -> None:
    old = fed.forums[0]
    fed.say(old, draft("Satu"))
    fed.observe(old)
    fed.say(old, draft("Belum diterima"))
    recovered = WRONG[case](fed, old)
    before = dump(fed.node())
    index = write(fed, recovered)
    tx = fed.node()
    problem = tx.problem(SIMPUL, index)
    assert problem is not None
    assert problem.reason in (Reason.RECOVERY_INVALID, Reason.GENESIS_MISMATCH)
    assert governance(tx).member("forums/forum-0").feed == old.feed.origin  # type: ignore[union-attr]
    assert not tx.feed(old.feed).quarantine  # type: ignore[union-attr]
    assert [row for row in dump(tx) if row[1] == "member"] == [row for row in before if row[1] == "member"]
    # And the right one still is.
    recover(fed, 0, 2)
    assert governance(fed.node()).member("forums/forum-0").feed.endswith("/e1")  # type: ignore[union-attr]


def test_a_recovery_that_is_replayed_changes_nothing_and_the_old_code_is_used_up(fed: Federation) -> None:
    old = fed.forums[0]
    recovered = prove(old, heir_of(old), 1)
    write(fed, recovered)
    fed.forums.append(recovered.heir)
    fed.observe(recovered.heir)
    before = dump(fed.node())
    # The same entry again is no fault: a simpul may have to answer twice.
    assert judged(fed, write(fed, recovered)) is None
    assert [row for row in dump(fed.node()) if row[1] in ("member", "open")] == [row for row in before if row[1] in ("member", "open")]
    for again in (prove(old, heir_of(old), 1), prove(recovered.heir, heir_of(recovered.heir), 1, old.recovery)):
        assert judged(fed, write(fed, again)) == Reason.RECOVERY_INVALID
    # Nor does an admission bring the old epoch back.
    fresh = Author(MemoryLog(), old.feed)
    assert judged(fed, fed.admit(fresh)) == Reason.EPOCH_SUPERSEDED


def test_before_its_genesis_was_observed_there_is_nothing_to_recover(fed: Federation) -> None:
    fresh = Author(MemoryLog(), FeedId(SIMPUL.federation, "baru"))
    fed.admit(fresh)
    fed.forums.append(fresh)
    index = write(fed, prove(fresh, heir_of(fresh), 1))
    assert judged(fed, index) == Reason.RECOVERY_INVALID


# Everywhere the same.


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_whatever_happens_and_arrives_when_all_nodes_agree(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    fed = Federation(tmp_path, 3, mode=SUBSIDIARITY)
    known: dict[int, dict[str, int]] = {0: {}, 1: {}}
    for _ in range(choose.randrange(4, 12)):
        act(choose, fed, known)
    number = 0
    author = fed.forums[number]
    fed.observe(author)
    good = choose.randrange(1, size(author) + 1)
    for _ in range(choose.randrange(0, 6)):
        act(choose, fed, known)
    if choose.random() < 0.7:
        fed.observe(author)
    heir = recover(fed, number, good)
    if choose.random() < 0.5:
        author.publish(2)
    fed.observe(heir)
    for record, version in list(known[0].items())[:2]:
        fed.say(heir, draft("Lanjut", record, version + 1))
    fed.observe(heir, fed.forums[1])
    whole = dump(fed.node())
    for _ in range(3):
        tx = SqliteLog(tmp_path / f"{new_record_id()}.sqlite3")
        feeds.pin(tx, SIMPUL, fed.simpul.genesis)
        left = True
        while left:
            steps = [fed_step(fed, tx, choose) for _ in range(4)]
            left = any(steps) or fed.bring(tx, 3)
        assert same_as(dump(tx), whole)
    # Folded anew, it comes to the same.
    tx = fed.node()
    tx.forget_fold()
    while order.advance(tx, 5) >= 5:
        pass
    assert same_as(dump(tx), whole)


def same_as(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> bool:
    """Entries that were never observed may be here or not; nothing else may differ."""

    def essential(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [row for row in rows if row[-1] != Reason.EPOCH_SUPERSEDED.value and not (len(row) == 5 and row[3] == RETRACTED)]

    return essential(found) == essential(expected)


def act(choose: random.Random, fed: Federation, known: dict[int, dict[str, int]]) -> None:
    """Somebody publishes, revises, withdraws, grants or is observed."""
    number = choose.randrange(2)
    author, mine = fed.forums[number], known[number]
    what = choose.randrange(5)
    if what == 0 or not mine:
        record = new_record_id()
        mine[record] = 1
        fed.say(author, draft("Judul", record))
    elif what == 1:
        record = choose.choice(list(mine))
        mine[record] += 1
        fed.say(author, draft("Judul", record, mine[record]))
    elif what == 2:
        record = choose.choice(list(mine))
        fed.say(author, retraction(record, mine.pop(record)))
    elif what == 3:
        fed.now += DAY // 10
        fed.mandate(author, begin=fed.now + choose.randrange(100) * DAY)
    else:
        fed.observe(author)


def fed_step(fed: Federation, tx: SqliteLog, choose: random.Random) -> bool:
    """One feed moves on by a few entries, and something is judged."""
    author = choose.choice(fed.authors)
    state = tx.feed(author.feed)
    moved = state is not None and state.size < size(author) and not state.quarantine
    if moved and state is not None:
        batch = author.batch(state.size, choose.randrange(1, 6))
        feeds.extend(tx, batch, batch.checkpoint)
    order.advance(tx, choose.randrange(1, 9))
    return moved


# What was done in its name, and what waits for review.

AGENDA, PRACTICE = content_pb2.RECORD_KIND_AGENDA_ITEM, content_pb2.RECORD_KIND_BEST_PRACTICE
SUBMITTED, REJECTED = records_pb2.RECORD_STATE_SUBMITTED, records_pb2.RECORD_STATE_REJECTED


def review(fed: Federation, ref: entry_pb2.MandateRef, owner: Author, record: str, version: int, *, approved: bool = True) -> int:
    entry = fed.entry()
    entry.act.CopyFrom(entry_pb2.Act(function="curate", mandates=[ref], on_behalf_of=owner.feed.origin))
    entry.act.review.record, entry.act.review.version, entry.act.review.approved = record, version, approved
    return fed.say(fed.simpul, entry)


def withdraw(fed: Federation, ref: entry_pb2.MandateRef, owner: Author, record: str, version: int) -> int:
    entry = fed.entry()
    entry.act.CopyFrom(entry_pb2.Act(function="publish-on-behalf", mandates=[ref], on_behalf_of=owner.feed.origin))
    blob = contents.new_blob(entry_pb2.RetractionNotice(reason="Batal").SerializeToString())
    part = entry.act.withdrawal
    part.record, part.version, part.digest, part.content_size = record, version, contents.digest(blob), len(blob) - 32
    return fed.say(fed.simpul, Draft(entry, blob))


def host(fed: Federation, ref: entry_pb2.MandateRef, owner: Author) -> str:
    """The simpul publishes an agenda item in its name; the id of the record."""
    index = fed.act("publish-on-behalf", [ref], owner)
    return entry_pb2.Entry.FromString(fed.simpul.log.entries(SIMPUL, index, 1, 1)[0].body).act.publication.record


def agreed(fed: Federation, seeds: int = 4) -> SqliteLog:
    """A node that has everything; others that got it otherwise, contents later, and folded it anew, agree with it."""
    tx = fed.node()
    assert governance(tx).head.position == size(fed.simpul), "everything was judged"
    whole = dump(tx)
    for seed in range(seeds):
        assert same_as(dump(anyhow(fed, random.Random(seed))), whole)
    return tx


def test_what_waits_for_review_and_what_was_published_in_its_name_go_on(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=SUBSIDIARITY)
    old = fed.forums[0]
    curate, hosting = fed.mandate(old, "curate", kinds=[PRACTICE]), fed.mandate(old, "publish-on-behalf", kinds=[AGENDA])
    fed.observe(old)
    first, second, third = (host(fed, hosting, old) for _ in range(3))
    waits, down, seen, unheard = (new_record_id() for _ in range(4))
    fed.say(old, *(draft("Praktik", record) for record in (waits, down, seen, unheard)))
    fed.observe(old)
    for record, approved in ((down, False), (seen, True), (unheard, True)):
        review(fed, curate, old, record, 1, approved=approved)
    good = size(old)
    # A thief revises all of them, the last one without that the simpul hears of it.
    fed.say(old, *(draft("Palsu", record, 2) for record in (waits, down, seen)))
    fed.observe(old)
    fed.say(old, draft("Palsu", unheard, 2))
    assert judged(fed, review(fed, curate, old, waits, 2)) is None
    assert records(fed.node())[waits] == ("e0", 2, PUBLISHED)
    heir = recover(fed, 0, good)
    fed.observe(heir)

    # Everything stands where it stood.
    tx = agreed(fed)
    assert records(tx) == {
        waits: ("e1", 1, SUBMITTED),
        down: ("e1", 1, REJECTED),
        **dict.fromkeys((seen, unheard, first, second, third), ("e1", 1, PUBLISHED)),
    }
    found = governance(tx)
    assert [found.submission(heir.feed, record) for record in (waits, down, seen, unheard)] == [(1, PRACTICE), (1, PRACTICE), None, None]
    assert [found.hosted(heir.feed, record) for record in (first, second, third)] == [(1, AGENDA, False)] * 3

    # In the name of the old epoch nothing is done any more; in that of the new one, as if nothing had been.
    assert judged(fed, review(fed, curate, old, waits, 1)) == Reason.ACT_INVALID
    assert judged(fed, withdraw(fed, hosting, old, first, 1)) == Reason.ACT_INVALID
    assert judged(fed, review(fed, curate, heir, waits, 2)) == Reason.VERSION_OUT_OF_ORDER
    for record in (waits, down):
        assert judged(fed, review(fed, curate, heir, record, 1)) is None
    assert judged(fed, withdraw(fed, hosting, heir, first, 1)) is None
    assert judged(fed, withdraw(fed, hosting, heir, first, 1)) == Reason.VERSION_OUT_OF_ORDER
    veto = fed.entry()
    veto.veto.feed = SIMPUL.origin
    veto.veto.index = next(act.index for act in governance(fed.node()).acts() if act.act.publication.record == second)
    fed.say(heir, veto)
    fed.say(heir, draft("Praktik", seen, 2))
    fed.observe(heir)
    stands = {
        **dict.fromkeys((waits, down, unheard, third), ("e1", 1, PUBLISHED)),
        seen: ("e1", 2, SUBMITTED),
        **dict.fromkeys((first, second), ("e1", 1, RETRACTED)),
    }
    assert records(agreed(fed)) == stands

    # And once more, from the second epoch.
    last = recover(fed, len(fed.forums) - 1, size(heir))
    fed.observe(last)
    assert judged(fed, review(fed, curate, last, seen, 2)) is None
    assert judged(fed, withdraw(fed, hosting, last, third, 1)) is None
    tx = agreed(fed)
    assert (records(tx)[seen], records(tx)[third]) == (("e2", 2, PUBLISHED), ("e2", 1, RETRACTED))


def test_a_mandate_to_review_that_a_thief_gave_hides_nothing(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=SUBSIDIARITY)
    old, record = fed.forums[0], new_record_id()
    good = size(old)
    ref = fed.mandate(old, "curate", kinds=[PRACTICE])
    fed.observe(old)
    fed.say(old, draft("Praktik", record))
    fed.observe(old)
    assert records(fed.node())[record] == ("e0", 1, SUBMITTED)
    heir = recover(fed, 0, good)
    fed.observe(heir)
    fed.say(heir, draft("Praktik", record))
    fed.observe(heir)
    found = governance(agreed(fed))
    assert found.submission(heir.feed, record) is None
    assert judged(fed, review(fed, ref, heir, record, 1)) == Reason.MANDATE_REVOKED


def test_a_suspension_that_a_thief_left_with_is_the_same_suspension(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=SUBSIDIARITY)
    old = fed.forums[0]
    fed.decide(fed.forums[1], dict.fromkeys(fed.forums[1:], YES), standing=standing(old, SUSPENDED))
    good = size(old)
    leave = fed.entry()
    leave.departure.SetInParent()
    fed.say(old, leave)
    fed.observe(old)
    heir = recover(fed, 0, good)
    found = governance(agreed(fed))
    assert found.member("forums/forum-0").state == SUSPENDED  # type: ignore[union-attr]
    # It has not left, so nothing of that is held against it when it does so later.
    assert found.endorsements_needed(heir.feed) == 0


@pytest.mark.parametrize("state", [ACTIVE, entry_pb2.MEMBERSHIP_STATE_APPLIED])
def test_who_has_left_comes_back_in_no_epoch_but_its_own(fed: Federation, state: int) -> None:
    heir = recover(fed, 0, size(fed.forums[0]))
    fed.observe(heir)
    leave = fed.entry()
    leave.departure.SetInParent()
    fed.say(heir, leave)
    fed.observe(heir)
    # Whoever has left comes back with its own word alone, and that is its feed's of today.
    assert judged(fed, fed.admit(heir_of(heir), state)) == Reason.CONSENT_MISSING
    assert judged(fed, fed.admit(Author(MemoryLog(), heir.feed), state)) == Reason.GENESIS_MISMATCH
    assert judged(fed, fed.admit(fed.forums[0], state)) == Reason.EPOCH_SUPERSEDED
    assert judged(fed, fed.admit(heir, state)) is None


class Recoveries(Script):
    """Histories in which feeds also begin anew."""

    def do_recover(self, _: Author) -> None:
        if self.choices.random() < 0.5:
            return
        place = self.choices.randrange(len(self.fed.forums))
        old = self.fed.forums[place]
        recovered = prove(old, heir_of(old), self.choices.randint(1, size(old)))
        if judged(self.fed, write(self.fed, recovered)) is not None:
            return
        heir = recovered.heir
        self.fed.former.append(old)
        self.fed.forums[place] = heir
        for rows in (self.records, self.hosted):
            # The script goes on in the name of the new epoch, often with what is void, and sometimes in that of the old one.
            rows[:] = [(heir if author is old and self.choices.random() < 0.9 else author, *rest) for author, *rest in rows]
        self.refs = [(heir if author is old else author, name, ref) for author, name, ref in self.refs]
        if self.choices.random() < 0.8:
            self.fed.observe(heir)

    def do_revoke(self, _: Author) -> None:
        if self.refs:
            owner, _, ref = self.choices.choice(self.refs)
            giver = next(author for author in self.fed.authors if author.feed.origin == ref.feed)
            body = giver.log.entries(giver.feed, ref.index, 1, 1)[0].body
            entry = self.fed.entry()
            entry.mandate_revocation.mandate = entry_pb2.Entry.FromString(body).mandate.id
            self.fed.say(owner, entry)


@pytest.mark.parametrize(
    "theme",
    [
        ("curate", "write", "revise", "review", "recover", "finality"),
        ("grant", "publish", "withdraw", "veto", "recover", "finality", "rotate"),
        ("membership", "leave", "endorse", "propose", "vote", "recover", "state", "grant", "finality", "rotate"),
        (),
    ],
    ids=["reviews", "acts", "members", "all"],
)
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_whoever_holds_the_same_feeds_agrees_though_feeds_begin_anew(tmp_path: Path, theme: tuple[str, ...], seed: int) -> None:
    fed = Federation(tmp_path)
    Recoveries(fed, seed, theme).run(40)
    agreed(fed, 2)
