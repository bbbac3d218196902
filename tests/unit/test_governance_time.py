"""A simpul's clock is its own word: deadlines, vetoes and admissions go by the clocks of those who confirm its log. And whom it admits has
no part in confirming that, nor a vote before.

Each attack is also shown to succeed where the rule is taken away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad_node.store.memory import MemoryLog
from kad_protocol import feed as feeds
from kad_protocol import merkle
from kad_protocol.errors import Reason, VerificationError
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance, finality
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, cosign
from kad_protocol.v1 import entry_pb2, governance_pb2
from kad_protocol.witness import LAST_SECOND, committee, with_cosignatures
from tests.unit.federation import DAY, NO, SIMPUL, YES, Federation, charter, governance
from tests.unit.feeds import Author, SqliteLog
from tests.unit.test_governance import observed, reason, veto
from tests.unit.test_recovery import recover

if TYPE_CHECKING:
    from pathlib import Path

ACT, DECISION = governance_pb2.PerformedAct, governance_pb2.Decision
ACTIVE, LEFT = entry_pb2.MEMBERSHIP_STATE_ACTIVE, entry_pb2.MEMBERSHIP_STATE_LEFT
HOUR = 3_600_000_000


@pytest.fixture
def fed(tmp_path: Path) -> Federation:
    made = Federation(tmp_path)
    made.settle()
    return made


def at(fed: Federation, offset: int, what: Any) -> Any:
    """The simpul writes something with another time."""
    now, fed.now = fed.now, fed.now + offset
    result = what()
    fed.now = now
    return result


def puppet(fed: Federation, name: str = "boneka") -> Author:
    """A forum that the simpul runs itself."""
    made = Author(MemoryLog(), FeedId(SIMPUL.federation, name))
    fed.admit(made)
    fed.observe(made)
    fed.forums.append(made)
    return made


# The simpul's clock.


@pytest.mark.parametrize("guard", [True, False])
def test_a_clock_that_runs_ahead_closes_no_vote(fed: Federation, monkeypatch: pytest.MonkeyPatch, *, guard: bool) -> None:
    if not guard:
        # As if the log's own time were believed.
        monkeypatch.setattr(Governance, "confirmed", property(lambda found: found.time))
        monkeypatch.setattr(finality, "CLOCK_TOLERANCE", 10**18)
    fed.adopt(charter(notice_hours=72))
    number = fed.propose(fed.forums[0], days=5, charter=charter(2, mode=entry_pb2.MODE_NETWORKING, notice_hours=72))
    fed.observe(fed.forums[0])
    fed.settle()
    for forum in fed.forums[:3]:
        fed.vote(fed.forums[0], number, forum)
        fed.observe(forum)
    at(fed, 6 * DAY, lambda: fed.observe(fed.forums[0]))
    fed.settle()
    version = governance(fed.node()).charter.version
    assert version == (1 if guard else 2)


def test_a_clock_that_ran_off_is_set_right_by_the_members(fed: Federation) -> None:
    """A battery runs out, the simpul believes for a minute that it is the year 9999: nothing is lost by that."""
    refs = observed()(fed)
    at(fed, 7000 * 365 * DAY, lambda: fed.observe(fed.forums[0]))
    lost = fed.act("publish-on-behalf", refs, fed.forums[0])
    fed.settle()
    assert governance(fed.node()).time == pytest.approx(fed.now, abs=600_000_000)
    done = fed.act("publish-on-behalf", refs, fed.forums[0])
    number = fed.decide(fed.forums[0], dict.fromkeys(fed.forums, YES))
    fed.settle()
    tx = fed.node()
    assert reason(tx, SIMPUL, lost) == Reason.ACT_TIME_WRONG
    assert governance(tx).act(done).state == ACT.STATE_FINAL  # type: ignore[union-attr]
    assert governance(tx).decision(number).state == DECISION.STATE_ACCEPTED  # type: ignore[union-attr]


def test_a_clock_that_runs_ahead_ends_no_veto_and_refuses_no_mandate_and_no_proposal(fed: Federation) -> None:
    refs = [fed.mandate(forum, "represent", veto_days=7) for forum in fed.forums]
    fed.observe(*fed.forums)
    index = fed.state_act("represent", refs, fed.forums)
    fed.settle()
    at(fed, 30 * DAY, lambda: fed.observe(fed.forums[0]))
    place = veto(fed, fed.forums[1], index)
    granted = fed.mandate(fed.forums[2], end=fed.now + DAY // 2)
    number = fed.propose(fed.forums[3], days=0.5)
    fed.observe(*fed.forums)
    tx = fed.node()
    assert reason(tx, fed.forums[1].feed, place) is None
    assert governance(tx).act(index).state == ACT.STATE_VETOED  # type: ignore[union-attr]
    assert reason(tx, fed.forums[2].feed, granted.index) is None
    assert governance(tx).decision(number) is not None


def test_a_clock_that_is_held_back_lets_no_vote_in_after_its_deadline(fed: Federation) -> None:
    number = fed.propose(fed.forums[0], days=1)
    fed.observe(fed.forums[0])
    fed.now += 2 * DAY
    # The member writes with its own clock; the simpul says that it is still yesterday.
    place = fed.vote(fed.forums[0], number, fed.forums[1], NO)
    at(fed, -2 * DAY, lambda: fed.observe(fed.forums[1]))
    tx = fed.node()
    assert reason(tx, fed.forums[1].feed, place) == Reason.VOTE_TOO_LATE
    assert governance(tx).decision(number).no == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("guard", [True, False])
def test_who_is_admitted_under_mandates_that_had_expired_is_out_again(
    fed: Federation, monkeypatch: pytest.MonkeyPatch, *, guard: bool
) -> None:
    if not guard:
        monkeypatch.setattr(Governance, "_is_time_wrong", lambda *_: False)
    fed.adopt(charter(admission_endorsements=4))
    refs = [fed.mandate(forum, "admit-members", end=fed.now + DAY) for forum in fed.forums]
    fed.observe(*fed.forums)
    fed.now += 3 * DAY
    made = Author(MemoryLog(), FeedId(SIMPUL.federation, "boneka"))
    place = at(fed, -3 * DAY + HOUR, lambda: fed.admit(made, mandates=refs))
    assert governance(fed.node()).member("forums/boneka").state == ACTIVE  # type: ignore[union-attr]
    fed.settle()
    tx = fed.node()
    assert governance(tx).member("forums/boneka").state == (LEFT if guard else ACTIVE)  # type: ignore[union-attr]
    assert reason(tx, SIMPUL, place) == (Reason.ACT_TIME_WRONG if guard else None)
    assert ("forums/boneka" in governance(tx).full_members()) is not guard


def test_an_admission_that_has_to_be_undone_is_undone_though_the_member_began_anew(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=4))
    refs = [fed.mandate(forum, "admit-members", end=fed.now + DAY) for forum in fed.forums]
    fed.observe(*fed.forums)
    fed.now += 3 * DAY
    honest, made = list(fed.forums), Author(MemoryLog(), FeedId(SIMPUL.federation, "boneka"))

    def admit() -> int:
        place = fed.admit(made, mandates=refs)
        fed.observe(made)
        fed.forums.append(made)
        fed.observe(recover(fed, -1, 1))
        return place

    place = at(fed, -3 * DAY + HOUR, admit)
    assert governance(fed.node()).member("forums/boneka").feed.endswith("/e1")  # type: ignore[union-attr]
    fed.finality(honest)
    tx = fed.node()
    assert reason(tx, SIMPUL, place) == Reason.ACT_TIME_WRONG
    assert governance(tx).member("forums/boneka").state == LEFT  # type: ignore[union-attr]


def test_whoever_was_admitted_anew_is_not_undone_by_what_was_wrong_the_first_time(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=4))
    refs = [fed.mandate(forum, "admit-members", end=fed.now + DAY) for forum in fed.forums]
    fed.observe(*fed.forums)
    fed.now += 3 * DAY
    honest, made = list(fed.forums), Author(MemoryLog(), FeedId(SIMPUL.federation, "boneka"))
    at(fed, -3 * DAY + HOUR, lambda: (fed.admit(made, mandates=refs), fed.observe(made)))
    entry = fed.entry()
    entry.departure.SetInParent()
    fed.say(made, entry)
    fed.observe(made)
    fed.now += HOUR
    fed.forums.append(made)
    fed.admit(made, entry_pb2.MEMBERSHIP_STATE_APPLIED)
    fed.observe(made)
    for forum in honest:
        entry = fed.entry()
        entry.endorsement.feed, entry.endorsement.genesis = made.feed.origin, made.genesis
        fed.say(forum, entry)
        fed.observe(forum)
    place = fed.admit(made)
    fed.finality(honest)
    tx = fed.node()
    assert reason(tx, SIMPUL, place) is None
    assert governance(tx).member("forums/boneka").state == ACTIVE  # type: ignore[union-attr]


def test_an_admission_is_judged_by_its_own_confirmation_and_not_by_that_of_an_earlier_one(fed: Federation) -> None:
    fed.adopt(charter(admission_endorsements=4))
    refs = [fed.mandate(forum, "admit-members", end=fed.now + DAY) for forum in fed.forums]
    fed.observe(*fed.forums)
    honest, made = list(fed.forums), Author(MemoryLog(), FeedId(SIMPUL.federation, "baru"))
    first = fed.admit(made, mandates=refs)
    early = confirmation(fed, dict.fromkeys(honest, fed.now // 1_000_000))
    fed.forums.append(made)
    fed.observe(made)
    entry = fed.entry()
    entry.departure.SetInParent()
    fed.say(made, entry)
    fed.observe(made)
    fed.now += HOUR
    second = fed.admit(made, mandates=refs)
    entry = fed.entry()
    entry.finality.note = early
    places = [first, second, fed.say(fed.simpul, entry), fed.finality(honest)]
    tx = fed.node()
    assert governance(tx).head.position == places[-1] + 1
    assert [reason(tx, SIMPUL, place) for place in places] == [None] * 4
    assert governance(tx).member("forums/baru").state == ACTIVE  # type: ignore[union-attr]


def confirmation(fed: Federation, times: dict[Author, int]) -> bytes:
    """The log as it stands, confirmed at these times, seconds since 1970."""
    size = fed.simpul.log.feed(SIMPUL).size
    checkpoint = Checkpoint(SIMPUL.origin, size, merkle.root_at(fed.simpul.log.tiles(SIMPUL), size))
    lines = [
        "".join(str(line) for line in cosign(checkpoint, (who.witness or who.keys).witness_signer(who.feed.origin), time)).encode()
        for who, time in times.items()
    ]
    return with_cosignatures(fed.simpul.log.feed(SIMPUL).checkpoint, lines)


def confirm(fed: Federation, times: dict[Author, int]) -> int:
    """A Finality entry with such confirmations."""
    entry = fed.entry()
    entry.finality.note = confirmation(fed, times)
    return fed.say(fed.simpul, entry)


@pytest.mark.parametrize("years", [1, 80, 7900])
def test_one_of_two_clocks_that_ran_ahead_moves_nothing(tmp_path: Path, years: int) -> None:
    fed = Federation(tmp_path, count=2)
    fed.settle()
    right, wrong = fed.forums
    ref = fed.mandate(right)
    fed.observe(right)
    now = fed.now // 1_000_000
    first = confirm(fed, {right: now, wrong: now + years * 365 * 86_400})
    act = fed.act("publish-on-behalf", [ref], right)
    last = fed.settle()
    tx = fed.node()
    assert [reason(tx, SIMPUL, place) for place in (first, act, last)] == [None] * 3
    assert governance(tx).confirmed == fed.now
    assert governance(tx).act(act).state == ACT.STATE_FINAL  # type: ignore[union-attr]


@pytest.mark.parametrize("time", [LAST_SECOND + 1, (1 << 63) - 1, (1 << 64) - 1])
def test_a_confirmation_of_a_time_in_no_calendar_is_none_and_leaves_nothing_behind(tmp_path: Path, time: int) -> None:
    fed = Federation(tmp_path, count=1)
    fed.settle()
    (only,) = fed.forums
    fed.observe(only)
    before = governance(fed.node()).head
    place = confirm(fed, {only: time})
    tx = fed.node()
    after = governance(tx).head
    assert reason(tx, SIMPUL, place) == Reason.FINALITY_INVALID
    assert (after.final_size, after.confirmed_time) == (before.final_size, before.confirmed_time)
    assert reason(fed.node(), SIMPUL, confirm(fed, {only: fed.now // 1_000_000})) is None


def test_confirmations_from_before_what_is_final_confirm_nothing(fed: Federation) -> None:
    fed.tick(DAY)
    place = fed.finality(fed.forums, at=fed.now - HOUR)
    assert reason(fed.node(), SIMPUL, place) == Reason.FINALITY_INVALID


# Whose word counts.


@pytest.mark.parametrize("guard", [True, False])
def test_puppets_do_not_confirm_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, guard: bool) -> None:
    if not guard:
        monkeypatch.setattr(Governance, "electorate", Governance._voting)
    fed = Federation(tmp_path, count=2)
    fed.settle()
    puppets = [puppet(fed, f"boneka-{n}") for n in range(5)]
    place = fed.finality(puppets)
    tx = fed.node()
    assert reason(tx, SIMPUL, place) == (Reason.FINALITY_INVALID if guard else None)
    assert len(governance(tx).electorate()) == (2 if guard else 7)


@pytest.mark.parametrize("guard", [True, False])
def test_puppets_have_no_vote_before_members_have_confirmed_them(fed: Federation, monkeypatch: pytest.MonkeyPatch, *, guard: bool) -> None:
    if not guard:
        monkeypatch.setattr(Governance, "electorate", Governance._voting)
    fed.adopt(charter(general_percent=60))
    fed.settle()
    puppets = [puppet(fed, f"boneka-{n}") for n in range(9)]
    number = fed.propose(puppets[0])
    fed.observe(puppets[0])
    places = [fed.vote(puppets[0], number, made) for made in puppets]
    fed.observe(*puppets)
    tx = fed.node()
    assert {reason(tx, made.feed, place) for made, place in zip(puppets, places, strict=True)} == (
        {Reason.VOTE_NOT_ENTITLED} if guard else {None}
    )
    assert len(governance(tx).decision(number).electors) == (4 if guard else 13)  # type: ignore[union-attr]


def test_a_newcomer_counts_once_the_others_have_confirmed_it(fed: Federation) -> None:
    newcomer = puppet(fed, "forum-baru")
    assert len(governance(fed.node()).full_members()) == 4
    # Four can do it; the newcomer's word is not needed and does not count.
    fed.finality([*fed.forums[:2], newcomer])
    assert len(governance(fed.node()).full_members()) == 4
    fed.finality(fed.forums[:3])
    assert len(governance(fed.node()).full_members()) == 5
    place = fed.finality(fed.forums[:3])
    tx = fed.node()
    assert reason(tx, SIMPUL, place) == Reason.FINALITY_INVALID, "now four of five are needed"


def test_where_nobody_is_left_who_was_confirmed_everybody_counts(fed: Federation) -> None:
    *everybody, newcomer = *fed.forums, puppet(fed, "forum-baru")
    for forum in everybody:
        entry = fed.entry()
        entry.departure.SetInParent()
        fed.say(forum, entry)
        fed.observe(forum)
    assert governance(fed.node()).full_members() == ["forums/forum-baru"]
    place = fed.finality([newcomer])
    assert reason(fed.node(), SIMPUL, place) is None


def test_a_member_that_is_gone_for_good_can_be_suspended_by_the_others(tmp_path: Path) -> None:
    """Three members, one whose computer is gone: nothing is confirmed without it, until the other two have suspended it."""
    fed = Federation(tmp_path, count=3)
    fed.settle()
    one, two, gone = fed.forums
    place = fed.finality([one, two])
    assert reason(fed.node(), SIMPUL, place) == Reason.FINALITY_INVALID
    number = fed.propose(one, standing=entry_pb2.Proposal.Standing(feed=gone.feed.origin, state=entry_pb2.MEMBERSHIP_STATE_SUSPENDED))
    fed.observe(one)
    for forum in (one, two):
        fed.vote(one, number, forum)
        fed.observe(forum)
    place = fed.finality([one, two])
    tx = fed.node()
    assert governance(tx).decision(number).state == DECISION.STATE_ACCEPTED  # type: ignore[union-attr]
    assert reason(tx, SIMPUL, place) is None
    assert governance(tx).full_members() == ["forums/forum-0", "forums/forum-1"]


def test_whose_turn_it_is_follows_from_the_log(tmp_path: Path) -> None:
    """Of twelve members seven have the turn, those of the month in which the log was last confirmed, whatever month others name."""
    fed = Federation(tmp_path, count=12)
    first = committee([forum.feed for forum in fed.forums], 0)
    fed.finality([forum for forum in fed.forums if forum.feed in first])
    found = governance(fed.node())
    turn = committee([FeedId.parse(m.feed) for m in found.electorate()], found.confirmed // 1_000_000)
    idle = [forum for forum in fed.forums if forum.feed not in turn]
    assert len(idle) == 5
    for months in range(12):
        place = fed.finality(idle, at=fed.now + months * 31 * DAY)
        assert reason(fed.node(), SIMPUL, place) == Reason.FINALITY_INVALID
    place = fed.finality([forum for forum in fed.forums if forum.feed in turn][:5])
    assert reason(fed.node(), SIMPUL, place) is None


# f liars, any order: a model.


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_fewer_than_a_third_of_liars_and_any_number_of_puppets_confirm_nothing(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever a hostile simpul writes (admissions, times, claims of a quorum), in whatever order: final is what honest members sign."""
    count = data.draw(st.integers(2, 7))
    fed = Federation(tmp_path, count=count)
    fed.settle()
    members = list(fed.forums)
    liars = data.draw(st.permutations(members))[: (count - 1) // 3]
    puppets: list[Author] = []
    before = governance(fed.node()).head.final_size
    for _ in range(data.draw(st.integers(1, 8))):
        match data.draw(st.sampled_from(["admit", "time", "finality", "census"])):
            case "admit":
                puppets.append(puppet(fed, f"boneka-{len(puppets)}"))
            case "time":
                at(fed, data.draw(st.integers(-400, 400)) * DAY, lambda: fed.observe(fed.forums[0]))
            case "finality":
                fed.finality([*liars, *puppets][:7], at=fed.now + data.draw(st.integers(-400, 400)) * DAY)
            case _:
                entry = fed.entry()
                entry.census.SetInParent()
                fed.say(fed.simpul, Draft(entry))
    found = governance(fed.node())
    assert found.head.final_size == before
    assert found.head.waiting_reason == ""
    assert {member.feed for member in found.electorate()} == {forum.feed.origin for forum in members}


# Who has left, and who is no forum.


@pytest.mark.parametrize("case", ["none", "older", "of another", "its own"])
def test_whoever_has_left_is_let_in_again_only_with_its_own_word(fed: Federation, case: str) -> None:
    gone, other = fed.forums[:2]
    old = fed.consent(gone)
    fed.now += HOUR
    entry = fed.entry()
    entry.departure.SetInParent()
    fed.say(gone, entry)
    fed.observe(gone)
    fed.now += HOUR
    words = {"none": entry_pb2.Consent(), "older": old, "of another": fed.consent(other), "its own": fed.consent(gone)}
    applied = fed.admit(gone, entry_pb2.MEMBERSHIP_STATE_APPLIED, consent=words[case])
    admitted = fed.admit(gone, consent=words[case])
    tx = fed.node()
    expected = None if case == "its own" else Reason.CONSENT_MISSING
    assert [reason(tx, SIMPUL, place) for place in (applied, admitted)] == [expected] * 2
    assert governance(tx).member("forums/forum-0").state == (LEFT if expected else ACTIVE)  # type: ignore[union-attr]


def test_whoever_changed_its_keys_after_it_left_confirms_again_when_it_is_back(tmp_path: Path) -> None:
    fed = Federation(tmp_path, count=3)
    fed.settle()
    gone = fed.forums[0]
    entry = fed.entry()
    entry.departure.SetInParent()
    fed.say(gone, entry)
    gone.rotate()
    fed.observe(gone)
    fed.now += HOUR
    places = [fed.admit(gone)]
    # Three of three are needed.
    fed.tick(HOUR)
    places.append(fed.settle())
    tx = fed.node()
    assert [reason(tx, SIMPUL, place) for place in places] == [None] * 2
    assert governance(tx).head.final_size == places[-1]
    assert len(governance(tx).full_members()) == 3


def test_a_simpul_takes_back_that_it_let_another_one_go_of_which_nothing_was_observed(tmp_path: Path) -> None:
    """Whatever of that one's feed lies where: nodes must not differ about it."""
    fed = Federation(tmp_path, count=1)
    other = Author(MemoryLog(), FeedId("lain.kad.internal", "simpul-lain"), role=entry_pb2.MEMBER_ROLE_SIMPUL)
    fed.admit(other)
    entry = fed.entry()
    entry.departure.simpul = other.feed.origin
    parted = fed.say(fed.simpul, entry)
    nodes = []
    for holds_it in (False, True):
        tx = SqliteLog(tmp_path / f"{holds_it}.sqlite3")
        feeds.pin(tx, SIMPUL, fed.simpul.genesis)
        fed.bring(tx)
        if holds_it:
            batch = other.batch(0)
            feeds.extend(tx, batch, batch.checkpoint)
        nodes.append(tx)
    place = fed.admit(other, consent=entry_pb2.Consent())
    for tx in nodes:
        while fed.bring(tx):
            pass
    assert [[reason(tx, SIMPUL, index) for index in (parted, place)] for tx in nodes] == [[None, None]] * 2
    assert governance(nodes[0]).members() == governance(nodes[1]).members()
    assert governance(nodes[0]).member("lain.kad.internal/forums/simpul-lain").state == ACTIVE  # type: ignore[union-attr]


@pytest.mark.parametrize("guard", [True, False])
def test_a_second_simpul_of_the_same_federation_is_taken_by_nobody(
    fed: Federation, monkeypatch: pytest.MonkeyPatch, *, guard: bool
) -> None:
    """A puppet whose genesis says that it is a simpul would judge, in its own log, whom it likes: it does not even get there."""
    if not guard:
        pin = feeds.pin
        monkeypatch.setattr(feeds, "pin", lambda tx, feed, genesis, _role=0: pin(tx, feed, genesis))
    second = Author(MemoryLog(), FeedId(SIMPUL.federation, "boneka"), role=entry_pb2.MEMBER_ROLE_SIMPUL)
    fed.admit(second)
    tx = fed.node()
    batch = second.batch(0)
    if guard:
        with pytest.raises(VerificationError) as caught:
            feeds.extend(tx, batch, batch.checkpoint)
        assert caught.value.reason == Reason.GENESIS_MISMATCH
    else:
        assert feeds.extend(tx, batch, batch.checkpoint).added == 1
