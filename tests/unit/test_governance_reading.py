"""Ways around the rules, and traps within them, that somebody found who read the rules in order to break them. Each was open once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kad_node.store.memory import MemoryLog
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import order
from kad_protocol.errors import Reason
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance
from kad_protocol.names import FeedId, RecordName, new_record_id
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2, records_pb2
from tests.unit import federation
from tests.unit.federation import DAY, SIMPUL, Federation, charter, governance
from tests.unit.feeds import Author, SqliteLog, draft
from tests.unit.test_governance import endorse, judged, reason
from tests.unit.test_governance_hostile import review
from tests.unit.test_governance_time import HOUR, at
from tests.unit.test_recovery import agreed, heir_of, host, prove, records, size, withdraw, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ACTIVE, LEFT, APPLIED = (
    entry_pb2.MEMBERSHIP_STATE_ACTIVE,
    entry_pb2.MEMBERSHIP_STATE_LEFT,
    entry_pb2.MEMBERSHIP_STATE_APPLIED,
)
FULL, ASSOCIATE = entry_pb2.MEMBER_CATEGORY_FULL, entry_pb2.MEMBER_CATEGORY_ASSOCIATE
AGENDA, PRACTICE, REGULATION = (
    content_pb2.RECORD_KIND_AGENDA_ITEM,
    content_pb2.RECORD_KIND_BEST_PRACTICE,
    content_pb2.RECORD_KIND_REGULATION,
)
LIVE = governance_pb2.GrantedMandate.STATE_LIVE


@pytest.fixture
def fed(tmp_path: Path) -> Federation:
    made = Federation(tmp_path)
    made.settle()
    return made


def forum(name: str, of: str = SIMPUL.federation, role: entry_pb2.MemberRole.ValueType = entry_pb2.MEMBER_ROLE_FORUM) -> Author:
    return Author(MemoryLog(), FeedId(of, name), role=role)


def leave(fed: Federation, who: Author) -> None:
    entry = fed.entry()
    entry.departure.SetInParent()
    fed.say(who, entry)
    fed.observe(who)


def state(tx: SqliteLog, name: str) -> int:
    member = governance(tx).member(name)
    assert member is not None
    return member.state


# Who is let in.


@pytest.mark.parametrize("category", [FULL, ASSOCIATE])
def test_whom_members_endorsed_as_an_associate_the_simpul_does_not_admit_with_a_vote(fed: Federation, category: int) -> None:
    """It changes the application after they have spoken, and observes their word only then."""
    fed.adopt(charter(admission_endorsements=2))
    fresh = forum("calon")
    fed.admit(fresh, APPLIED, ASSOCIATE)
    for member in fed.forums[:2]:
        entry = fed.entry()
        entry.endorsement.feed, entry.endorsement.genesis, entry.endorsement.category = fresh.feed.origin, fresh.genesis, ASSOCIATE
        fed.say(member, entry)
    fed.admit(fresh, APPLIED, category)
    fed.observe(*fed.forums[:2])
    place = fed.admit(fresh, category=category)
    tx = fed.node()
    assert reason(tx, SIMPUL, place) == (None if category == ASSOCIATE else Reason.ENDORSEMENTS_MISSING)
    assert state(tx, "forums/calon") == (ACTIVE if category == ASSOCIATE else APPLIED)


def test_an_endorsement_without_a_category_is_for_a_full_member(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=1))
    fresh = forum("calon")
    fed.admit(fresh, APPLIED, ASSOCIATE)
    assert judged(fed, fed.forums[0].feed, endorse(fed, fed.forums[0], fresh)) == Reason.CANDIDATE_UNKNOWN
    fed.admit(fresh, APPLIED, FULL)
    assert judged(fed, fed.forums[0].feed, endorse(fed, fed.forums[0], fresh)) is None


def test_whoever_was_endorsed_stays_though_mandates_were_cited_as_well(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=2))
    refs = [fed.mandate(member, "admit-members", end=fed.now + DAY) for member in fed.forums]
    fed.observe(*fed.forums)
    fresh = forum("baru")
    fed.admit(fresh, APPLIED)
    for member in fed.forums[:2]:
        endorse(fed, member, fresh)
    fed.settle()
    place = fed.admit(fresh, mandates=refs)
    fed.now += 3 * DAY
    fed.settle()
    tx = fed.node()
    assert reason(tx, SIMPUL, place) is None
    assert state(tx, "forums/baru") == ACTIVE


def test_what_a_member_granted_whose_admission_was_undone_does_not_come_back_with_it(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=2))
    refs = [fed.mandate(member, "admit-members", end=fed.now + DAY) for member in fed.forums]
    fed.observe(*fed.forums)
    fed.now += 3 * DAY
    honest, fresh = list(fed.forums), forum("boneka")

    def admit() -> None:
        fed.admit(fresh, mandates=refs)
        fed.mandate(fresh, end=fed.now + 30 * DAY)
        fed.observe(fresh)

    at(fed, -3 * DAY + HOUR, admit)
    fed.forums.append(fresh)
    fed.finality(honest)
    assert state(fed.node(), "forums/boneka") == LEFT
    fed.admit(fresh, APPLIED)
    for member in honest[:2]:
        endorse(fed, member, fresh)
    place = fed.admit(fresh)
    tx = fed.node()
    found = governance(tx)
    assert reason(tx, SIMPUL, place) is None
    (granted,) = found.mandates("forums/boneka")
    assert found.live(granted, fed.now) != LIVE


def test_whoever_applies_makes_no_work_for_everybody(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simpul can let endlessly many apply; each entry is judged with as much reading as if there were none."""
    reads: list[int] = []
    look = Governance.member

    def counting(found: Governance, name: str) -> governance_pb2.FederationMember | None:
        reads.append(1)
        return look(found, name)

    def drafts(first: int, last: int, as_what: entry_pb2.MembershipState.ValueType) -> list[Draft]:
        made = []
        for number in range(first, last):
            entry = fed.entry()
            entry.membership.CopyFrom(
                entry_pb2.Membership(feed=FeedId(SIMPUL.federation, f"x{number:05}").origin, genesis=bytes(32), state=as_what)
            )
            made.append(Draft(entry))
        return made

    fed.adopt(charter(admission_endorsements=4))
    tx = fed.node()
    monkeypatch.setattr(Governance, "member", counting)
    monkeypatch.setattr(Governance, "members", lambda _: pytest.fail("all members were read"))
    for first, last in ((0, 50), (50, 300)):
        fed.say(fed.simpul, *drafts(first, last, APPLIED))
        while fed.bring(tx):
            pass
        reads.clear()
        fed.say(fed.simpul, *drafts(last - 10, last, ACTIVE))
        while fed.bring(tx):
            pass
        assert 10 <= len(reads) <= 10 * 12


# Who is of another federation.


def test_another_federation_is_here_by_one_feed_whatever_has_arrived(fed: Federation, tmp_path: Path) -> None:
    other = forum("simpul", "lain.kad.internal", entry_pb2.MEMBER_ROLE_SIMPUL)
    city = forum("kota", "lain.kad.internal")
    fed.admit(other)
    place = fed.admit(city)
    fed.observe(city)
    fed.observe(fed.forums[0])
    without = fed.node()
    # The other one knows already that it is a simpul.
    informed = SqliteLog(tmp_path / "informed.sqlite3")
    feeds.pin(informed, SIMPUL, fed.simpul.genesis)
    batch = fed.simpul.batch(0, most=place)
    feeds.extend(informed, batch, batch.checkpoint)
    for author in (*fed.forums, other):
        while order.advance(informed, 7) >= 7:
            pass
        batch = author.batch(0)
        feeds.extend(informed, batch, batch.checkpoint)
    fed.former += [other, city]
    for tx in (without, informed):
        while fed.bring(tx):
            pass
        assert reason(tx, SIMPUL, place) == Reason.ROLE_INSUFFICIENT
        assert tx.feed(city.feed) is None
        assert governance(tx).head.position == fed.simpul.log.feed(SIMPUL).size
        assert governance(tx).head.waiting_reason == ""
    assert governance(without).members() == governance(informed).members()


# Whoever begins anew.


@pytest.mark.parametrize("applied", [False, True])
def test_a_thief_that_leaves_and_applies_again_does_not_keep_the_owner_out(fed: Federation, *, applied: bool) -> None:
    fed.adopt(charter(admission_endorsements=3))
    owner = fed.forums[0]
    good = size(owner)
    leave(fed, owner)
    fed.now += HOUR
    if applied:
        fed.admit(owner, APPLIED)
        endorse(fed, fed.forums[1], owner)
    place = write(fed, prove(owner, heir_of(owner), good))
    tx = fed.node()
    assert reason(tx, SIMPUL, place) is None
    member = governance(tx).member("forums/forum-0")
    assert member is not None
    assert (member.state, member.feed.rpartition("/")[2], list(member.endorsements)) == (ACTIVE, "e1", [])


def test_whoever_left_by_itself_and_applied_with_keys_that_it_gives_up_has_left(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=3))
    owner = fed.forums[0]
    leave(fed, owner)
    fed.now += HOUR
    fed.admit(owner, APPLIED)
    place = write(fed, prove(owner, heir_of(owner), size(owner)))
    tx = fed.node()
    assert reason(tx, SIMPUL, place) is None
    assert state(tx, "forums/forum-0") == LEFT


def test_whoever_began_anew_after_it_left_confirms_and_recovers_when_it_is_back(fed: Federation) -> None:
    owner = fed.forums[0]
    leave(fed, owner)
    recovered = prove(owner, heir_of(owner), size(owner))
    write(fed, recovered)
    fed.forums[0] = recovered.heir
    fed.former.append(owner)
    fed.observe(recovered.heir)
    fed.now += HOUR
    place = fed.admit(recovered.heir)
    tx = fed.node()
    member = governance(tx).member("forums/forum-0")
    assert member is not None
    assert reason(tx, SIMPUL, place) is None
    assert member.HasField("witness_keys")
    assert len(member.recovery_digest) == 32


# What waits for review.


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_no_version_of_a_record_ends_no_wait(fed: Federation, version: int) -> None:
    owner = fed.forums[0]
    ref = fed.mandate(owner, "curate", kinds=[PRACTICE])
    fed.observe(owner)
    record = new_record_id()
    fed.say(owner, draft("a", record))
    fed.observe(owner)
    bogus = draft("b", record, version)
    bogus.entry.record_version.kind = REGULATION
    place = fed.say(owner, Draft(bogus.entry))
    fed.observe(owner)
    tx = fed.node()
    assert reason(tx, owner.feed, place) == Reason.VERSION_OUT_OF_ORDER
    assert governance(tx).submission(owner.feed, record) == (1, PRACTICE)
    assert records(tx)[record][2] == records_pb2.RECORD_STATE_SUBMITTED
    assert judged(fed, SIMPUL, review(fed, owner, ref, record)) is None
    assert records(fed.node())[record][2] == records_pb2.RECORD_STATE_PUBLISHED


def test_taking_one_mandate_to_review_back_shows_nothing_that_waits_under_another(fed: Federation) -> None:
    owner = fed.forums[0]
    first, second = fed.mandate(owner, "curate", kinds=[AGENDA]), fed.mandate(owner, "curate", kinds=[PRACTICE])
    fed.observe(owner)
    record, item = new_record_id(), federation.agenda(AGENDA)
    fed.say(owner, draft("a", record), item)
    fed.observe(owner)
    fed.revoke(owner, first)
    fed.observe(owner)
    tx = fed.node()
    assert governance(tx).submission(owner.feed, record) == (1, PRACTICE)
    assert records(tx)[record][2] == records_pb2.RECORD_STATE_SUBMITTED
    assert records(tx)[item.entry.record_version.record][2] == records_pb2.RECORD_STATE_PUBLISHED
    fed.revoke(owner, second)
    fed.observe(owner)
    assert records(fed.node())[record][2] == records_pb2.RECORD_STATE_PUBLISHED


# What is said in members' names.


def test_a_statement_is_made_once(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [fed.mandate(member, "represent") for member in fed.forums]
    fed.observe(*fed.forums)
    number = new_record_id()
    monkeypatch.setattr(federation, "new_record_id", lambda: number)
    places = [fed.state_act("represent", refs, fed.forums) for _ in range(2)]
    monkeypatch.undo()
    tx = fed.node()
    assert [reason(tx, SIMPUL, place) for place in places] == [None, Reason.ACT_INVALID]


# Acts of a simpul that holds its time back, under a mandate that has run out: as if they had never been.


def late(fed: Federation, what: Callable[[], int]) -> int:
    """Done as if it were three days ago, when the mandate still ran; the members confirm it today."""
    fed.now += 3 * DAY
    place: int = at(fed, -3 * DAY + HOUR, what)
    fed.settle()
    return place


def published(fed: Federation, ref: entry_pb2.MandateRef, owner: Author, record: str, version: int) -> int:
    made, entry = draft(f"Versi {version}", record, version), fed.entry()
    entry.act.CopyFrom(entry_pb2.Act(function="publish-on-behalf", mandates=[ref], on_behalf_of=owner.feed.origin))
    entry.act.publication.CopyFrom(made.entry.record_version)
    return fed.say(fed.simpul, Draft(entry, made.content))


def test_a_withdrawal_that_was_not_lawful_has_not_been(fed: Federation) -> None:
    owner = fed.forums[0]
    ref = fed.mandate(owner, end=fed.now + DAY)
    fed.observe(owner)
    record = host(fed, ref, owner)
    fed.settle()
    place = late(fed, lambda: withdraw(fed, ref, owner, record, 1))
    tx = agreed(fed)
    assert reason(tx, SIMPUL, place) == Reason.ACT_TIME_WRONG
    assert governance(tx).hosted(owner.feed, record) == (1, AGENDA, False)
    assert records(tx)[record][1:] == (1, records_pb2.RECORD_STATE_PUBLISHED)
    row = tx.record(RecordName("forum-0", record), 0, SIMPUL)
    assert row is not None
    assert row.retraction == ""


def test_a_version_that_was_not_lawful_leaves_the_one_before_it(fed: Federation) -> None:
    owner, record = fed.forums[0], new_record_id()
    ref = fed.mandate(owner, end=fed.now + DAY, kinds=[PRACTICE])
    fed.observe(owner)
    first = published(fed, ref, owner, record, 1)
    fed.settle()
    second = late(fed, lambda: published(fed, ref, owner, record, 2))
    tx = agreed(fed)
    assert [reason(tx, SIMPUL, place) for place in (first, second)] == [None, Reason.ACT_TIME_WRONG]
    assert governance(tx).hosted(owner.feed, record) == (1, PRACTICE, False)
    row = tx.record(RecordName("forum-0", record), 0, SIMPUL)
    assert row is not None
    assert (row.version, row.state) == (1, records_pb2.RECORD_STATE_PUBLISHED)
    assert tx.record(RecordName("forum-0", record), 2, SIMPUL) is None
    assert contents.parse_content(contents.split(row.content)[1]).title == "Versi 1"
    # Under a new mandate it goes on from there.
    fresh = fed.mandate(owner, kinds=[PRACTICE])
    fed.observe(owner)
    assert judged(fed, SIMPUL, published(fed, fresh, owner, record, 2)) is None
    assert records(agreed(fed))[record][1:] == (2, records_pb2.RECORD_STATE_PUBLISHED)


def test_a_record_of_which_no_version_was_lawful_is_gone(fed: Federation) -> None:
    owner, record = fed.forums[0], new_record_id()
    ref = fed.mandate(owner, end=fed.now + DAY, kinds=[PRACTICE])
    fed.observe(owner)
    late(fed, lambda: [published(fed, ref, owner, record, version) for version in (1, 2)][1])
    tx = agreed(fed)
    assert governance(tx).hosted(owner.feed, record) == (2, PRACTICE, True)
    assert records(tx)[record][2] == records_pb2.RECORD_STATE_RETRACTED


@pytest.mark.parametrize("approved", [True, False])
def test_a_review_that_was_not_lawful_has_not_been(fed: Federation, *, approved: bool) -> None:
    owner, record = fed.forums[0], new_record_id()
    ref = fed.mandate(owner, "curate", kinds=[PRACTICE], end=fed.now + DAY)
    fed.observe(owner)
    fed.say(owner, draft("a", record))
    fed.observe(owner)
    fed.settle()
    place = late(fed, lambda: review(fed, owner, ref, record, approved=approved))
    tx = agreed(fed)
    assert reason(tx, SIMPUL, place) == Reason.ACT_TIME_WRONG
    assert governance(tx).submission(owner.feed, record) == (1, PRACTICE)
    assert not governance(tx).turned_down(owner.feed, record)
    assert records(tx)[record][2] == records_pb2.RECORD_STATE_SUBMITTED
    # Once it is taken back, nothing waits any more.
    fed.revoke(owner, ref)
    fed.observe(owner)
    assert records(agreed(fed))[record][2] == records_pb2.RECORD_STATE_PUBLISHED
