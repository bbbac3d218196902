"""What members decide, and what a simpul may do in their names: a table for each rule, and models that look for a way around them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import order
from kad_protocol.authority import is_within_regions
from kad_protocol.errors import Reason
from kad_protocol.feed import Draft
from kad_protocol.names import FeedId, RecordName, new_record_id
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2, records_pb2
from tests.unit.federation import ABSTAIN, DAY, NETWORKING, NO, SIMPUL, START, SUBSIDIARITY, YES, Federation, charter, dump, governance
from tests.unit.feeds import Author, SqliteLog, draft

if TYPE_CHECKING:
    from pathlib import Path

ACT = governance_pb2.PerformedAct
DECISION = governance_pb2.Decision
ACTIVE, SUSPENDED, LEFT, APPLIED = (
    entry_pb2.MEMBERSHIP_STATE_ACTIVE,
    entry_pb2.MEMBERSHIP_STATE_SUSPENDED,
    entry_pb2.MEMBERSHIP_STATE_LEFT,
    entry_pb2.MEMBERSHIP_STATE_APPLIED,
)


@pytest.fixture
def fed(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def reason(tx: SqliteLog, feed: FeedId, index: int) -> Reason | None:
    problem = tx.problem(feed, index)
    return problem.reason if problem is not None else None


def judged(fed: Federation, feed: FeedId, index: int) -> Reason | None:
    """What a node says of an entry that has just been written."""
    return reason(fed.node(), feed, index)


def shown(tx: SqliteLog) -> list[tuple[str, int]]:
    """Records in a forum's name that the simpul published, with their state."""
    rows = tx._connection.execute("SELECT f.forum, r.state FROM record r JOIN feed f ON f.id = r.feed WHERE r.source > 0")
    return sorted(rows.fetchall())


def standing(forum: Author, state: int) -> entry_pb2.Proposal.Standing:
    return entry_pb2.Proposal.Standing(feed=forum.feed.origin, state=state)  # type: ignore[arg-type]


# Acts under mandates.


def test_what_a_live_mandate_allows_is_done_and_becomes_final(fed: Federation) -> None:
    ref = fed.mandate(fed.forums[0])
    fed.observe(fed.forums[0])
    index = fed.act("publish-on-behalf", [ref], fed.forums[0])
    tx = fed.node()
    assert governance(tx).act(index).state == ACT.STATE_UNWITNESSED  # type: ignore[union-attr]
    assert shown(tx) == [("forum-0", records_pb2.RECORD_STATE_PUBLISHED)]
    fed.finality(fed.forums[:3])
    tx = fed.node()
    assert governance(tx).act(index).state == ACT.STATE_FINAL  # type: ignore[union-attr]
    assert tx.reason_counts() == {}


def without(fed: Federation) -> list[entry_pb2.MandateRef]:
    return []


def of_another(fed: Federation) -> list[entry_pb2.MandateRef]:
    ref = fed.mandate(fed.forums[1])
    fed.observe(fed.forums[1])
    return [ref]


def unobserved(fed: Federation) -> list[entry_pb2.MandateRef]:
    return [fed.mandate(fed.forums[0])]


def forged(fed: Federation) -> list[entry_pb2.MandateRef]:
    ref = fed.mandate(fed.forums[0])
    fed.observe(fed.forums[0])
    ref.leaf_hash = bytes(32)
    return [ref]


def observed(**more: Any) -> Any:
    def make(fed: Federation) -> list[entry_pb2.MandateRef]:
        ref = fed.mandate(fed.forums[0], **{key: value(fed) if callable(value) else value for key, value in more.items()})
        fed.observe(fed.forums[0])
        return [ref]

    return make


def revoked(fed: Federation) -> list[entry_pb2.MandateRef]:
    refs: list[entry_pb2.MandateRef] = observed()(fed)
    fed.revoke(fed.forums[0], refs[0])
    fed.observe(fed.forums[0])
    return refs


def run_out(fed: Federation) -> list[entry_pb2.MandateRef]:
    refs: list[entry_pb2.MandateRef] = observed(end=START + DAY)(fed)
    fed.now += 2 * DAY
    return refs


def of_suspended(fed: Federation) -> list[entry_pb2.MandateRef]:
    refs: list[entry_pb2.MandateRef] = observed()(fed)
    fed.decide(fed.forums[1], dict.fromkeys(fed.forums[1:], YES), standing=standing(fed.forums[0], SUSPENDED))
    return refs


def of_departed(fed: Federation) -> list[entry_pb2.MandateRef]:
    refs: list[entry_pb2.MandateRef] = observed()(fed)
    entry = fed.entry()
    entry.departure.SetInParent()
    fed.say(fed.forums[0], entry)
    fed.observe(fed.forums[0])
    return refs


def self_issued(fed: Federation) -> list[entry_pb2.MandateRef]:
    return [fed.mandate(fed.simpul)]


@pytest.mark.parametrize(
    "given,why",
    [
        (without, Reason.NO_MANDATE),
        (of_another, Reason.NO_MANDATE),
        (unobserved, Reason.MANDATE_UNKNOWN),
        (forged, Reason.MANDATE_UNKNOWN),
        (observed(function="curate"), Reason.MANDATE_SCOPE),
        (observed(kinds=[content_pb2.RECORD_KIND_REGULATION]), Reason.MANDATE_SCOPE),
        (observed(sectors=[content_pb2.SECTOR_HEALTH]), Reason.MANDATE_SCOPE),
        (observed(regions=["34.71"]), Reason.MANDATE_SCOPE),
        (observed(begin=START + DAY), Reason.MANDATE_NOT_YET),
        (run_out, Reason.MANDATE_EXPIRED),
        (revoked, Reason.MANDATE_REVOKED),
        (of_suspended, Reason.MEMBER_SUSPENDED),
        (of_departed, Reason.MANDATE_REVOKED),
        (self_issued, Reason.MANDATE_UNKNOWN),
        (observed(delegate="lain.kad.internal/forums/simpul/e0"), Reason.MANDATE_UNKNOWN),
    ],
)
def test_an_act_that_no_live_mandate_covers_has_no_effect_anywhere(fed: Federation, given: Any, why: Reason) -> None:
    index = fed.act("publish-on-behalf", given(fed), fed.forums[0])
    tx = fed.node()
    assert reason(tx, SIMPUL, index) == why
    performed = governance(tx).act(index)
    assert performed is not None
    assert (performed.state, performed.reason) == (ACT.STATE_REFUSED, why.value)
    assert shown(tx) == []
    assert tx.reason_counts()[why.value] >= 1


def test_in_a_networking_federation_nobody_acts_for_another(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=NETWORKING)
    index = fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    tx = fed.node()
    assert reason(tx, SIMPUL, index) == Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE
    assert shown(tx) == []


@pytest.mark.parametrize(
    "limit,said,allowed",
    [
        ({"sectors": [content_pb2.SECTOR_HEALTH]}, {"sectors": [content_pb2.SECTOR_HEALTH]}, True),
        ({"sectors": [content_pb2.SECTOR_HEALTH]}, {"sectors": [content_pb2.SECTOR_HEALTH, content_pb2.SECTOR_EDUCATION]}, False),
        ({"regions": ["34"]}, {"regions": ["34.71", "34"]}, True),
        ({"regions": ["34.04"]}, {"regions": ["34.71", "34.04.07"]}, False),
        ({"regions": ["34"]}, {"regions": ["34.71", "Sleman"]}, False),
        ({"regions": ["34.71"]}, {"regions": ["34"]}, False),
    ],
)
def test_limits_of_a_mandate(fed: Federation, limit: dict[str, Any], said: dict[str, Any], allowed: bool) -> None:  # noqa: FBT001
    index = fed.act("publish-on-behalf", observed(**limit)(fed), fed.forums[0], **said)
    none = Reason.ACT_INVALID if "Sleman" in said.get("regions", ()) else Reason.MANDATE_SCOPE
    assert judged(fed, SIMPUL, index) == (None if allowed else none)


def test_a_region_lies_in_those_above_it_and_not_in_those_that_begin_alike() -> None:
    assert is_within_regions(["34.71", "34.04.07.2001"], ["34"])
    assert not is_within_regions(["34.71"], ["34.7"])
    assert not is_within_regions(["34"], ["34.71"])


def test_what_was_lawful_when_done_stays_lawful(fed: Federation) -> None:
    refs = observed()(fed)
    index = fed.act("publish-on-behalf", refs, fed.forums[0])
    fed.finality(fed.forums[:3])
    fed.revoke(fed.forums[0], refs[0])
    fed.observe(fed.forums[0])
    later = fed.act("publish-on-behalf", refs, fed.forums[0])
    tx = fed.node()
    assert governance(tx).act(index).state == ACT.STATE_FINAL  # type: ignore[union-attr]
    assert reason(tx, SIMPUL, later) == Reason.MANDATE_REVOKED
    assert len(shown(tx)) == 1


def test_a_time_that_goes_back_is_refused(fed: Federation) -> None:
    refs = run_out(fed)
    fed.observe(fed.forums[1])
    fed.now = START
    index = fed.act("publish-on-behalf", refs, fed.forums[0])
    assert judged(fed, SIMPUL, index) == Reason.ACT_TIME_WRONG


@pytest.mark.parametrize(
    "late,state", [(0, ACT.STATE_FINAL), (DAY // 2, ACT.STATE_FINAL), (2 * DAY, ACT.STATE_REFUSED), (-DAY, ACT.STATE_REFUSED)]
)
def test_a_log_that_holds_its_time_back_gains_nothing(fed: Federation, late: int, state: int) -> None:
    # The mandate runs for a day; members confirm the act so much later (or earlier) than it claims to have been done.
    index = fed.act("publish-on-behalf", observed(end=START + DAY)(fed), fed.forums[0])
    fed.finality(fed.forums[:3], at=START + late)
    tx = fed.node()
    assert governance(tx).act(index).state == state  # type: ignore[union-attr]
    retracted = records_pb2.RECORD_STATE_RETRACTED if state == ACT.STATE_REFUSED else records_pb2.RECORD_STATE_PUBLISHED
    assert shown(tx) == [("forum-0", retracted)]


@pytest.mark.parametrize("witnesses,good", [(2, False), (3, True), (4, True)])
def test_a_quorum_makes_it_final_and_less_does_not(fed: Federation, witnesses: int, good: bool) -> None:  # noqa: FBT001
    index = fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    place = fed.finality(fed.forums[:witnesses])
    tx = fed.node()
    assert governance(tx).act(index).state == (ACT.STATE_FINAL if good else ACT.STATE_UNWITNESSED)  # type: ignore[union-attr]
    assert reason(tx, SIMPUL, place) == (None if good else Reason.FINALITY_INVALID)


def test_strangers_and_departed_make_no_quorum(fed: Federation) -> None:
    stranger = Author(fed.forums[0].log, FeedId(SIMPUL.federation, "orang-asing"))
    of_departed(fed)
    assert judged(fed, SIMPUL, fed.finality([stranger, *fed.forums[:2]])) == Reason.FINALITY_INVALID


def test_finality_of_another_history(fed: Federation) -> None:
    place = fed.finality(fed.forums, size=3)
    # The checkpoint that the simpul signed is of another size than the one that was cosigned.
    assert judged(fed, SIMPUL, place) == Reason.FINALITY_INVALID


# Collective functions.


@pytest.mark.parametrize("count,allowed", [(0, False), (2, False), (3, True), (4, True)])
def test_a_letter_in_the_members_name_needs_enough_of_them(fed: Federation, count: int, allowed: bool) -> None:  # noqa: FBT001
    fed.adopt(charter(collective=[entry_pb2.CollectiveRule(function="represent", percent=75)]))
    refs = [fed.mandate(forum, "represent") for forum in fed.forums[:count]]
    fed.observe(*fed.forums)
    index = fed.state_act("represent", refs, fed.forums[: count or 1])
    expected = None if allowed else Reason.MANDATES_TOO_FEW if count else Reason.NO_MANDATE
    assert judged(fed, SIMPUL, index) == expected


def test_nobody_is_named_who_has_not_mandated(fed: Federation) -> None:
    fed.adopt(charter(collective=[entry_pb2.CollectiveRule(function="represent", percent=75)]))
    refs = [fed.mandate(forum, "represent") for forum in fed.forums[:3]]
    fed.observe(*fed.forums)
    assert judged(fed, SIMPUL, fed.state_act("represent", refs, fed.forums)) == Reason.NO_MANDATE


def test_suspended_members_neither_count_nor_weigh(fed: Federation) -> None:
    fed.adopt(charter(collective=[entry_pb2.CollectiveRule(function="represent", percent=75)]))
    refs = [fed.mandate(forum, "represent") for forum in fed.forums[:3]]
    fed.observe(*fed.forums)
    fed.decide(fed.forums[0], dict.fromkeys(fed.forums[:3], YES), standing=standing(fed.forums[3], SUSPENDED))
    # 3 of 3 that are left; with two of them only it would be too few.
    assert judged(fed, SIMPUL, fed.state_act("represent", refs, fed.forums[:3])) is None
    assert judged(fed, SIMPUL, fed.state_act("represent", refs[:2], fed.forums[:2])) == Reason.MANDATES_TOO_FEW


# Vetoes.


def veto(fed: Federation, forum: Author, index: int) -> int:
    entry = fed.entry()
    entry.veto.feed, entry.veto.index = SIMPUL.origin, index
    place = fed.say(forum, entry)
    fed.observe(forum)
    return place


def test_what_was_published_in_its_name_a_forum_can_always_withdraw(fed: Federation) -> None:
    index = fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    fed.now += 200 * DAY
    assert judged(fed, fed.forums[1].feed, veto(fed, fed.forums[1], index)) == Reason.ACT_UNKNOWN
    veto(fed, fed.forums[0], index)
    tx = fed.node()
    assert governance(tx).act(index).state == ACT.STATE_VETOED  # type: ignore[union-attr]
    assert shown(tx) == [("forum-0", records_pb2.RECORD_STATE_RETRACTED)]


@pytest.mark.parametrize("days,after,why", [(0, 1, Reason.VETO_TOO_LATE), (7, 6, None), (7, 8, Reason.VETO_TOO_LATE)])
def test_a_statement_can_be_vetoed_as_long_as_the_mandate_says(fed: Federation, days: int, after: int, why: Reason | None) -> None:
    refs = [fed.mandate(forum, "represent", veto_days=days) for forum in fed.forums]
    fed.observe(*fed.forums)
    index = fed.state_act("represent", refs, fed.forums)
    fed.settle()
    fed.tick(after * DAY)
    place = veto(fed, fed.forums[2], index)
    tx = fed.node()
    assert reason(tx, fed.forums[2].feed, place) == why
    # All had to agree, so one veto ends it.
    assert governance(tx).act(index).state == (ACT.STATE_FINAL if why else ACT.STATE_VETOED)  # type: ignore[union-attr]


# Mandates that cannot be.


@pytest.mark.parametrize(
    "more,why",
    [
        ({"end": START - DAY, "begin": START - 2 * DAY}, Reason.MANDATE_EXPIRED),
        ({"begin": START + DAY, "end": START}, Reason.MANDATE_INVALID),
        ({"end": START + 401 * DAY}, Reason.MANDATE_INVALID),
        ({"function": "rule-everything"}, Reason.FUNCTION_UNKNOWN),
        ({"delegate": "uji.kad.internal/forums/forum-1/e0"}, Reason.MANDATE_INVALID),
        ({"delegate": "uji.kad.internal/forums/forum-0/e0"}, Reason.MANDATE_INVALID),
        ({"delegate": "?"}, Reason.MANDATE_INVALID),
        ({"kinds": []}, Reason.MANDATE_INVALID),
        ({"function": "represent", "kinds": [1]}, Reason.MANDATE_INVALID),
        ({"function": "curate", "regions": ["34"]}, Reason.MANDATE_INVALID),
        ({"id": "x"}, Reason.MANDATE_INVALID),
        ({"veto_days": 91}, Reason.MANDATE_INVALID),
        ({"regions": ["34", "DIY"]}, Reason.MANDATE_INVALID),
        ({"regions": ["34."]}, Reason.MANDATE_INVALID),
        ({"regions": [".".join(["34"] * 2000)]}, Reason.MANDATE_INVALID),
    ],
)
def test_a_mandate_that_cannot_be_has_no_effect(fed: Federation, more: dict[str, Any], why: Reason) -> None:
    ref = fed.mandate(fed.forums[0], **more)
    fed.observe(fed.forums[0])
    tx = fed.node()
    assert reason(tx, fed.forums[0].feed, ref.index) == why
    assert governance(tx).mandates() == []


@pytest.mark.parametrize(
    "first,second,overlaps",
    [
        ({}, {}, True),
        ({"end": START + 5 * DAY}, {"begin": START + 5 * DAY}, False),
        ({"end": START + 5 * DAY}, {"begin": START + 4 * DAY}, True),
        ({"kinds": [1]}, {"kinds": [2, 3]}, False),
        ({"kinds": [1, 3]}, {"kinds": [2, 3]}, True),
        ({"regions": ["34"]}, {"regions": ["34.71"]}, True),
        ({"regions": ["34.04"]}, {"regions": ["34.71"]}, False),
        ({"sectors": [1]}, {"sectors": [2]}, False),
        ({"sectors": [1]}, {}, True),
        ({"function": "represent"}, {"function": "admit-members"}, False),
    ],
)
def test_one_revocation_always_ends_a_function(fed: Federation, first: dict[str, Any], second: dict[str, Any], overlaps: bool) -> None:  # noqa: FBT001
    one, two = (fed.mandate(fed.forums[0], **more) for more in (first, second))
    fed.observe(fed.forums[0])
    assert judged(fed, fed.forums[0].feed, two.index) == (Reason.MANDATE_OVERLAPS if overlaps else None)
    fed.revoke(fed.forums[0], one)
    third = fed.mandate(fed.forums[0], **second)
    fed.observe(fed.forums[0])
    assert judged(fed, fed.forums[0].feed, third.index) == (None if overlaps else Reason.MANDATE_OVERLAPS)


def test_a_mandate_comes_back_only_under_a_new_id(fed: Federation) -> None:
    forum, number = fed.forums[0], new_record_id()
    first = fed.mandate(forum, id=number)
    fed.observe(forum)
    fed.revoke(forum, first)
    again, twice = fed.mandate(forum, id=number), fed.revoke(forum, first)
    fed.observe(forum)
    tx = fed.node()
    assert reason(tx, forum.feed, again.index) == Reason.MANDATE_REPEATED
    assert reason(tx, forum.feed, twice) == Reason.MANDATE_REVOKED
    assert [granted.end_position > 0 for granted in governance(tx).mandates()] == [True]


# Membership.


def candidate(fed: Federation, category: int = entry_pb2.MEMBER_CATEGORY_FULL) -> Author:
    fresh = Author(fed.forums[0].log.__class__(), FeedId(SIMPUL.federation, "calon"))
    fed.admit(fresh, APPLIED, category)
    return fresh


def endorse(fed: Federation, forum: Author, fresh: Author, genesis: bytes = b"", category: int = 0) -> int:
    entry = fed.entry()
    entry.endorsement.feed, entry.endorsement.genesis = fresh.feed.origin, genesis or fresh.genesis
    entry.endorsement.category = category  # type: ignore[assignment]
    place = fed.say(forum, entry)
    fed.observe(forum)
    return place


def test_admission_needs_the_endorsements_of_the_charter(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=NETWORKING)
    fed.adopt(charter(mode=NETWORKING, admission_endorsements=2))
    fresh = candidate(fed)
    alone = fed.admit(fresh)
    endorse(fed, fed.forums[0], fresh)
    wrong = endorse(fed, fed.forums[1], fresh, bytes(32))
    twice = endorse(fed, fed.forums[0], fresh)
    still = fed.admit(fresh)
    tx = fed.node()
    assert [reason(tx, SIMPUL, index) for index in (alone, still)] == [Reason.ENDORSEMENTS_MISSING] * 2
    assert reason(tx, fed.forums[1].feed, wrong) == Reason.CANDIDATE_UNKNOWN
    assert reason(tx, fed.forums[0].feed, twice) == Reason.ENDORSEMENT_REPEATED
    assert tx.feed(fresh.feed) is None, "nothing of a feed is taken before its owner is a member"
    endorse(fed, fed.forums[2], fresh)
    assert judged(fed, SIMPUL, fed.admit(fresh)) is None
    fed.forums.append(fresh)
    tx = fed.node()
    assert governance(tx).member("forums/calon").state == ACTIVE  # type: ignore[union-attr]
    assert tx.feed(fresh.feed) is not None


def test_with_mandates_of_enough_members_the_simpul_admits(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=3, collective=[entry_pb2.CollectiveRule(function="admit-members", percent=51)]))
    refs = [fed.mandate(forum, "admit-members") for forum in fed.forums[:3]]
    fed.observe(*fed.forums)
    fresh = candidate(fed)
    few = fed.admit(fresh, mandates=refs[:2])
    enough = fed.admit(fresh, mandates=refs)
    tx = fed.node()
    assert reason(tx, SIMPUL, few) == Reason.MANDATES_TOO_FEW
    assert reason(tx, SIMPUL, enough) is None


@pytest.mark.parametrize("state,category", [(SUSPENDED, 1), (LEFT, 1), (ACTIVE, 2)])
def test_a_simpul_alone_changes_nobodys_standing(fed: Federation, state: int, category: int) -> None:
    index = fed.admit(fed.forums[0], state, category)
    tx = fed.node()
    assert reason(tx, SIMPUL, index) == Reason.DECISION_MISSING
    member = governance(tx).member("forums/forum-0")
    assert member is not None
    assert (member.state, member.category) == (ACTIVE, entry_pb2.MEMBER_CATEGORY_FULL)


def test_suspended_and_reinstated_by_decision(fed: Federation) -> None:
    others = fed.forums[1:]
    number = fed.decide(fed.forums[1], dict.fromkeys(others, YES), standing=standing(fed.forums[0], SUSPENDED))
    carried_out = fed.admit(fed.forums[0], SUSPENDED, decision=number)
    ref = fed.mandate(fed.forums[0])
    fed.observe(fed.forums[0])
    tx = fed.node()
    assert reason(tx, SIMPUL, carried_out) is None
    assert governance(tx).member("forums/forum-0").state == SUSPENDED  # type: ignore[union-attr]
    assert reason(tx, fed.forums[0].feed, ref.index) == Reason.MEMBER_SUSPENDED
    assert tx.membership(fed.forums[0].feed) == SUSPENDED
    fed.decide(fed.forums[1], dict.fromkeys(others, YES), standing=standing(fed.forums[0], ACTIVE))
    assert governance(fed.node()).member("forums/forum-0").state == ACTIVE  # type: ignore[union-attr]


def test_whoever_left_comes_back_and_does_not_leave_again(fed: Federation) -> None:
    of_departed(fed)
    late = fed.mandate(fed.forums[0])
    fed.observe(fed.forums[0])
    fed.admit(fed.forums[0], APPLIED)
    fed.admit(fed.forums[0])
    fed.mandate(fed.forums[0])
    fed.observe(fed.forums[0])
    tx = fed.node()
    assert reason(tx, fed.forums[0].feed, late.index) == Reason.MEMBER_LEFT
    assert governance(tx).member("forums/forum-0").state == ACTIVE  # type: ignore[union-attr]
    assert [granted.end_position > 0 for granted in governance(tx).mandates()] == [True, False] or len(governance(tx).mandates()) == 2


def test_the_mode_of_the_beginning_is_set_before_the_first_member(fed: Federation) -> None:
    entry = fed.entry()
    entry.founding.mode = NETWORKING
    index = fed.say(fed.simpul, entry)
    tx = fed.node()
    assert reason(tx, SIMPUL, index) == Reason.FOUNDING_TOO_LATE
    assert governance(tx).head.mode == SUBSIDIARITY


# Decisions.


@pytest.mark.parametrize(
    "votes,accepted,outcome",
    [
        ([YES, YES, YES, YES], True, ""),
        ([YES, YES, YES, NO], True, ""),
        ([YES, YES, NO, NO], False, "MAJORITY"),
        ([YES, YES, YES], True, ""),
        ([YES, YES], False, "PARTICIPATION"),
        ([YES, ABSTAIN, ABSTAIN], True, ""),
        ([ABSTAIN, ABSTAIN, ABSTAIN, ABSTAIN], False, "MAJORITY"),
        ([], False, "PARTICIPATION"),
    ],
)
def test_the_tally(fed: Federation, votes: list[int], accepted: bool, outcome: str) -> None:  # noqa: FBT001
    fed.adopt(charter())
    number = fed.decide(fed.forums[0], dict(zip(fed.forums, votes, strict=False)))
    fed.tick(11 * DAY)
    decision = governance(fed.node()).decision(number)
    assert decision is not None
    assert (decision.state, decision.outcome) == (DECISION.STATE_ACCEPTED if accepted else DECISION.STATE_REJECTED, outcome)
    assert (decision.yes, decision.no, decision.abstain, decision.eligible) == (votes.count(YES), votes.count(NO), votes.count(ABSTAIN), 4)


def test_by_default_decisions_are_by_consensus(fed: Federation) -> None:
    agreed = fed.decide(fed.forums[0], dict(zip(fed.forums, [YES, YES, ABSTAIN, YES], strict=True)))
    one_against = fed.decide(fed.forums[0], dict(zip(fed.forums, [YES, YES, NO, YES], strict=True)))
    found = governance(fed.node())
    assert found.decision(agreed).state == DECISION.STATE_ACCEPTED  # type: ignore[union-attr]
    assert found.decision(one_against).state == DECISION.STATE_REJECTED  # type: ignore[union-attr]


def test_votes_that_do_not_count(fed: Federation) -> None:
    associate = Author(fed.forums[0].log.__class__(), FeedId(SIMPUL.federation, "universitas"))
    fed.admit(associate, category=entry_pb2.MEMBER_CATEGORY_ASSOCIATE)
    fed.observe(associate)
    first, *others = fed.forums
    number = fed.propose(first)
    fed.observe(first)
    latecomer = Author(fed.forums[0].log.__class__(), FeedId(SIMPUL.federation, "terlambat"))
    fed.admit(latecomer)
    fed.observe(latecomer)
    places = {
        "associate": (associate, fed.vote(first, number, associate)),
        "latecomer": (latecomer, fed.vote(first, number, latecomer)),
        "first": (others[0], fed.vote(first, number, others[0], NO)),
        "twice": (others[0], fed.vote(first, number, others[0], YES)),
        "unknown": (others[1], fed.vote(first, new_record_id(), others[1])),
    }
    fed.forums += [associate, latecomer]
    fed.observe(*fed.forums)
    fed.tick(11 * DAY)
    places["late"] = (others[2], fed.vote(first, number, others[2]))
    proposed = fed.propose(associate)
    fed.observe(*fed.forums)
    tx = fed.node()
    assert {name: reason(tx, author.feed, index) for name, (author, index) in places.items()} == {
        "associate": Reason.VOTE_NOT_ENTITLED,
        "latecomer": Reason.VOTE_NOT_ENTITLED,
        "first": None,
        "twice": Reason.VOTE_REPEATED,
        "unknown": Reason.PROPOSAL_UNKNOWN,
        "late": Reason.VOTE_TOO_LATE,
    }
    assert governance(tx).decision(proposed) is None
    assert governance(tx).decision(number).no == 1  # type: ignore[union-attr]


def test_the_first_charter_needs_everybody(fed: Federation) -> None:
    fed.decide(fed.forums[0], dict.fromkeys(fed.forums[:3], YES), charter=charter())
    fed.tick(11 * DAY)
    assert governance(fed.node()).charter.version == 0
    fed.adopt(charter())
    assert governance(fed.node()).charter.version == 1


def test_a_charter_passes_by_the_old_rules_and_by_its_own(fed: Federation) -> None:
    fed.adopt(charter())
    three = dict(zip(fed.forums, [YES, YES, YES, NO], strict=True))
    fed.decide(fed.forums[0], three, charter=charter(2, charter_percent=76))
    assert governance(fed.node()).charter.version == 1, "three of four are enough for the old rule, not for the new one"
    fed.decide(fed.forums[0], three, charter=charter(2))
    assert governance(fed.node()).charter.version == 2


def test_a_charter_waits_for_its_notice_unless_all_agree(fed: Federation) -> None:
    fed.adopt(charter(notice_hours=48))
    short = fed.propose(fed.forums[0], days=1, charter=charter(2))
    fed.observe(fed.forums[0])
    assert governance(fed.node()).decision(short) is None
    three = dict(zip(fed.forums, [YES, YES, YES, NO], strict=True))
    number = fed.decide(fed.forums[0], three, days=3, charter=charter(2, notice_hours=48))
    assert governance(fed.node()).decision(number).state == DECISION.STATE_OPEN  # type: ignore[union-attr]
    # The notice counts from when members have confirmed that it is open.
    fed.now += DAY + DAY // 2
    fed.settle()
    fed.tick(DAY + DAY // 2)
    assert governance(fed.node()).charter.version == 1
    fed.tick(DAY // 2)
    assert governance(fed.node()).charter.version == 2
    fed.decide(fed.forums[0], dict.fromkeys(fed.forums, YES), days=3, charter=charter(3))
    assert governance(fed.node()).charter.version == 3, "whoever agrees needs no notice"


@pytest.mark.parametrize(
    "more",
    [
        {"version": 2},
        {"mode": 0},
        {"participation_percent": 0},
        {"general_percent": 50},
        {"general_percent": 80, "charter_percent": 75},
        {"charter_percent": 101},
        {"lag_seconds": 5},
        {"collective": [entry_pb2.CollectiveRule(function="publish-on-behalf", percent=60)]},
        {"collective": [entry_pb2.CollectiveRule(function="represent", percent=60)] * 2},
        {"collective": [entry_pb2.CollectiveRule(function="represent", percent=20)]},
        {"seats": [entry_pb2.Seat(title="ketua", feed="uji.kad.internal/forums/tidak-ada/e0")]},
    ],
)
def test_a_charter_that_contradicts_itself(fed: Federation, more: dict[str, Any]) -> None:
    index = fed.forums[0].log.feed(fed.forums[0].feed).size
    fed.propose(fed.forums[0], charter=charter(**more))
    fed.observe(fed.forums[0])
    assert judged(fed, fed.forums[0].feed, index) == Reason.CHARTER_INVALID


def test_the_chair_goes_round(fed: Federation) -> None:
    fed.adopt(charter(chair_term_days=30))
    found = governance(fed.node())
    chairs = [found.chair(START + days * DAY) for days in (0, 29, 30, 60, 90, 120)]
    assert chairs == [f"forums/forum-{n}" for n in (0, 0, 1, 2, 3, 0)]


def test_the_members_switch_the_mode_and_back(fed: Federation) -> None:
    refs = observed()(fed)
    fed.adopt(charter(1, NETWORKING))
    refused = fed.act("publish-on-behalf", refs, fed.forums[0])
    fed.adopt(charter(2, SUBSIDIARITY))
    done = fed.act("publish-on-behalf", refs, fed.forums[0])
    tx = fed.node()
    assert reason(tx, SIMPUL, refused) == Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE
    assert reason(tx, SIMPUL, done) is None


# Review of submissions.


def test_what_a_forum_wants_reviewed_waits_for_it(fed: Federation) -> None:
    forum = fed.forums[0]
    ref = fed.mandate(forum, "curate", kinds=[content_pb2.RECORD_KIND_BEST_PRACTICE])
    fed.observe(forum)
    one, two = new_record_id(), new_record_id()
    fed.say(forum, draft("a", one), draft("b", two))
    fed.observe(forum)

    def states() -> dict[str, int]:
        return dict(fed.node()._connection.execute("SELECT ulid, state FROM record").fetchall())

    submitted = records_pb2.RECORD_STATE_SUBMITTED
    assert states() == {one: submitted, two: submitted}
    for record, approved in ((one, True), (two, False)):
        entry = fed.entry()
        entry.act.function, entry.act.on_behalf_of = "curate", forum.feed.origin
        entry.act.mandates.append(ref)
        entry.act.review.record, entry.act.review.version, entry.act.review.approved = record, 1, approved
        fed.say(fed.simpul, entry)
    assert states() == {one: records_pb2.RECORD_STATE_PUBLISHED, two: records_pb2.RECORD_STATE_REJECTED}
    three = new_record_id()
    fed.say(forum, draft("c", three))
    fed.observe(forum)
    fed.revoke(forum, ref)
    fed.observe(forum)
    assert states()[three] == records_pb2.RECORD_STATE_PUBLISHED, "who takes the mandate back need not wait"


def test_what_waits_is_asked_anew_when_something_was_judged(fed: Federation) -> None:
    # All in one transaction, which remembers the answer.
    forum, tx = fed.forums[0], fed.node()

    def published() -> int:
        record = new_record_id()
        fed.say(forum, draft("a", record))
        while fed.bring(tx):
            pass
        return int(tx._connection.execute("SELECT state FROM record WHERE ulid = ?", (record,)).fetchone()[0])

    assert published() == records_pb2.RECORD_STATE_PUBLISHED
    ref = fed.mandate(forum, "curate", kinds=[content_pb2.RECORD_KIND_BEST_PRACTICE])
    fed.observe(forum)
    assert published() == records_pb2.RECORD_STATE_PUBLISHED, "the order in which feeds come does not matter: the log has not observed it"
    assert published() == records_pb2.RECORD_STATE_SUBMITTED
    fed.revoke(forum, ref)
    fed.observe(forum)
    published()
    assert published() == records_pb2.RECORD_STATE_PUBLISHED


# Order: nothing is judged early, and everybody gets the same.


def test_judging_waits_for_what_the_simpul_observed(fed: Federation) -> None:
    ref = fed.mandate(fed.forums[0])
    fed.observe(fed.forums[0])
    index = fed.act("publish-on-behalf", [ref], fed.forums[0])
    tx = SqliteLog(fed.folder / "late.sqlite3")
    feeds.pin(tx, SIMPUL, fed.simpul.genesis)
    held_back, fed.forums = fed.forums[0], fed.forums[1:]
    while fed.bring(tx):
        pass
    found = governance(tx)
    assert (found.head.waiting_reason, found.head.waiting_for) == (Reason.WAITING_FOR_FEED, held_back.feed.origin)
    assert found.act(index) is None
    fed.forums.insert(0, held_back)
    while fed.bring(tx):
        pass
    assert dump(tx) == dump(fed.node())
    assert governance(tx).act(index) is not None


def test_what_was_observed_before_one_joined_counts_as_observed(fed: Federation) -> None:
    tx = SqliteLog(fed.folder / "late.sqlite3")
    feeds.pin(tx, SIMPUL, fed.simpul.genesis)
    # The whole log of the simpul comes at once: folded in one go, before the first entry that makes a forum known is judged.
    batch = fed.simpul.batch(0)
    feeds.extend(tx, batch, batch.checkpoint)
    order.advance(tx, 512)
    while fed.bring(tx):
        pass
    first = fed.forums[0].feed
    assert tx.observed(SIMPUL, first) == 1
    assert tx.member(first).observed == 1
    assert tx.ignored(SIMPUL, 1 << 62, fed.simpul.log.feed(SIMPUL).size) == []


def test_an_observation_that_contradicts_what_is_here_stops_judging(fed: Federation) -> None:
    entry, forum = fed.entry(), fed.forums[0]
    fed.say(forum, draft("a"))
    entry.observation.feed, entry.observation.size, entry.observation.root = forum.feed.origin, 2, bytes(32)
    fed.say(fed.simpul, entry)
    index = fed.admit(forum, SUSPENDED)
    tx = fed.node()
    assert governance(tx).head.waiting_reason == Reason.OBSERVATION_CONTRADICTED
    assert governance(tx).head.position < index


def scripted(fed: Federation, choices: random.Random, steps: int) -> None:  # noqa: C901
    """A simpul that tries everything, lawful or not, among members who grant, revoke, decide and leave."""
    refs: list[tuple[Author, entry_pb2.MandateRef]] = []
    proposals: list[tuple[Author, str]] = []
    for _ in range(steps):
        forum = choices.choice(fed.forums)
        match choices.randrange(12):
            case 0 | 1:
                refs.append((forum, fed.mandate(forum, begin=fed.now, end=fed.now + choices.choice([1, 20]) * DAY)))
            case 2 if refs:
                fed.revoke(*choices.choice(refs))
            case 3 | 4 | 5:
                owner, ref = choices.choice(refs) if refs else (forum, entry_pb2.MandateRef(feed="x", leaf_hash=bytes(32)))
                fed.act("publish-on-behalf", [ref], choices.choice([owner, owner, forum]))
            case 6:
                fed.finality(choices.sample(fed.forums, choices.randint(1, len(fed.forums))))
            case 7:
                mode = choices.choice([NETWORKING, SUBSIDIARITY])
                proposals.append((forum, fed.propose(forum, days=choices.choice([0.5, 5]), charter=charter(choices.randint(1, 3), mode))))
            case 8 | 9 if proposals:
                proposer, number = choices.choice(proposals)
                for voter in choices.sample(fed.forums, len(fed.forums)):
                    fed.vote(proposer, number, voter, choices.choice([YES, YES, YES, NO]))
            case 10:
                fed.now += choices.choice([0, DAY // 4, 2 * DAY, -DAY])
            case 11:
                fed.admit(forum, choices.choice([SUSPENDED, LEFT, ACTIVE]), choices.choice([1, 2]))
        if choices.random() < 0.6:
            fed.observe(forum)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32))
def test_whoever_saw_the_same_feeds_agrees_whatever_came_first(tmp_path: Path, seed: int) -> None:
    choices = random.Random(seed)
    fed = Federation(tmp_path)
    scripted(fed, choices, 40)
    whole = dump(fed.node())
    for _ in range(2):
        tx = SqliteLog(tmp_path / f"{new_record_id()}.sqlite3")
        feeds.pin(tx, SIMPUL, fed.simpul.genesis)
        while True:
            behind = [
                author
                for author in fed.authors
                if (state := tx.feed(author.feed)) is not None and state.size < author.log.feed(author.feed).size
            ]
            if not behind:
                break
            author = choices.choice(behind)
            batch = author.batch(tx.feed(author.feed).size, choices.randint(1, 6))  # type: ignore[union-attr]
            feeds.extend(tx, batch, batch.checkpoint)
            while order.advance(tx, choices.randint(1, 9)) and choices.random() < 0.8:
                pass
        while order.advance(tx, 100) >= 100:
            pass
        assert dump(tx) == whole


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32))
def test_no_sequence_lets_the_simpul_act_outside_a_live_mandate(tmp_path: Path, seed: int) -> None:
    """Against a second, naive reading of the rules: walk the log, keep what was observed, and ask it of each act that had effect."""
    fed = Federation(tmp_path)
    scripted(fed, random.Random(seed), 60)
    tx = fed.node()
    found = governance(tx)
    lawful = {act.index for act in found.acts() if act.state in (ACT.STATE_UNWITNESSED, ACT.STATE_FINAL)}
    logs = {a.feed.origin: [entry_pb2.Entry.FromString(s.body) for s in a.log.entries(a.feed, 0, 10_000, 1 << 30)] for a in fed.authors}
    seen = dict.fromkeys(logs, 0)
    settled = {index: time for index, time in fed.settled.items() if reason(tx, SIMPUL, index) is None}
    latest = 0
    for index, entry in enumerate(logs[SIMPUL.origin]):
        time = entry.time.ToMicroseconds()
        latest = max(latest, time)
        if entry.HasField("finality") and index in settled and abs(latest - settled[index]) > 300_000_000:
            latest = settled[index]
        if entry.HasField("observation"):
            seen[entry.observation.feed] = max(seen[entry.observation.feed], entry.observation.size)
        if index not in lawful:
            continue
        act = entry.act
        assert time == latest
        assert act.mandates
        for ref in act.mandates:
            assert ref.feed == act.on_behalf_of
            assert ref.index < seen[ref.feed]
            mandate = logs[ref.feed][ref.index].mandate
            assert mandate.not_before.ToMicroseconds() <= latest < mandate.not_after.ToMicroseconds()
            assert act.publication.kind in mandate.kinds
            assert not any(e.mandate_revocation.mandate == mandate.id for e in logs[ref.feed][: seen[ref.feed]])


def test_the_model_finds_a_simpul_that_gets_away_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The property above is able to fail: with a policy that never looks at revocations, it does.
    from kad_protocol import governance as module  # noqa: PLC0415

    monkeypatch.setattr(module.Governance, "_revoke", lambda *_: None)
    with pytest.raises(AssertionError):  # noqa: PT012
        for seed in range(30):
            test_no_sequence_lets_the_simpul_act_outside_a_live_mandate.hypothesis.inner_test(tmp_path, seed)  # type: ignore[attr-defined]


def test_contents_of_acts_may_come_late(fed: Federation) -> None:
    index = fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    tx = SqliteLog(fed.folder / "bare.sqlite3")
    feeds.pin(tx, SIMPUL, fed.simpul.genesis)
    for _ in range(4):
        for author in fed.authors:
            state = tx.feed(author.feed)
            if state is not None and state.size < author.log.feed(author.feed).size:
                batch = author.batch(state.size)
                batch.ClearField("contents")
                feeds.extend(tx, batch, batch.checkpoint)
            order.advance(tx, 1000)
    assert shown(tx) == [("forum-0", records_pb2.RECORD_STATE_CONTENT_MISSING)]
    assert reason(tx, SIMPUL, index) == Reason.CONTENT_MISSING
    stored = fed.simpul.log.entries(SIMPUL, index, 1, 1)[0]
    assert contents.split(stored.content)
    feeds.supply_content(tx, SIMPUL, index, stored.content)
    order.content_arrived(tx, SIMPUL, index)
    assert shown(tx) == [("forum-0", records_pb2.RECORD_STATE_PUBLISHED)]
    assert reason(tx, SIMPUL, index) is None


def test_a_withdrawal_in_a_forums_name_says_why_also_when_that_comes_late(fed: Federation) -> None:
    forum = fed.forums[0]
    ref = observed()(fed)
    index = fed.act("publish-on-behalf", ref, forum)
    published = entry_pb2.Entry.FromString(fed.simpul.log.entries(SIMPUL, index, 1, 1)[0].body).act.publication
    blob = contents.new_blob(entry_pb2.RetractionNotice(reason="Rapat dibatalkan").SerializeToString())
    entry = fed.entry()
    entry.act.CopyFrom(entry_pb2.Act(function="publish-on-behalf", mandates=ref, on_behalf_of=forum.feed.origin))
    part = entry.act.withdrawal
    part.record, part.version, part.digest, part.content_size = published.record, 1, contents.digest(blob), len(blob) - 32
    withdrawn = fed.say(fed.simpul, Draft(entry, blob))
    for late in (False, True):
        tx = SqliteLog(fed.folder / f"late-{late}.sqlite3")
        feeds.pin(tx, SIMPUL, fed.simpul.genesis)
        for _ in range(4):
            for author in fed.authors:
                state = tx.feed(author.feed)
                if state is not None and state.size < author.log.feed(author.feed).size:
                    batch = author.batch(state.size)
                    if late:
                        batch.ClearField("contents")
                    feeds.extend(tx, batch, batch.checkpoint)
                order.advance(tx, 1000)
        row = tx.record(RecordName(forum.feed.forum, published.record), 0, SIMPUL)
        assert (row.state, row.retraction) == (records_pb2.RECORD_STATE_RETRACTED, "" if late else "Rapat dibatalkan")
        if late:
            assert reason(tx, SIMPUL, withdrawn) == Reason.CONTENT_MISSING
            feeds.supply_content(tx, SIMPUL, withdrawn, blob)
            order.content_arrived(tx, SIMPUL, withdrawn)
            assert tx.record(RecordName(forum.feed.forum, published.record), 0, SIMPUL).retraction == "Rapat dibatalkan"
            assert reason(tx, SIMPUL, withdrawn) is None


def test_whoever_comes_late_finds_the_receipts_of_all_that_was_observed(fed: Federation) -> None:
    """The log is there whole, and folded, before the feeds that it observes are known."""
    places = {}
    for forum in fed.forums:
        fed.say(forum, draft("Praktik"))
        fed.observe(forum)
        places[forum.feed] = fed.simpul.log.feed(SIMPUL).size - 1
    late = fed.node()
    for feed, place in places.items():
        assert late.observed(SIMPUL, feed) == 2
        assert late.observations_around(SIMPUL, feed, 1, place + 1) == (place, place)
