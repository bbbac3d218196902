"""Members and simpuls that write what no honest program would: each has no effect, harms nobody else, and is the same everywhere."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import keychain, merkle, order
from kad_protocol.authority import is_within_regions
from kad_protocol.entry import key_set, log_keys_of
from kad_protocol.errors import KadError, Reason
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance, decisions, mandates
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId, new_record_id
from kad_protocol.note import Checkpoint, cosign
from kad_protocol.v1 import content_pb2, entry_pb2, records_pb2
from kad_simpul.api import EnrolmentServicer
from kad_simpul.enrol import Application
from kad_simpul.steward import Steward, census
from tests.unit.federation import DAY, NETWORKING, NO, SIMPUL, START, YES, Federation, charter, dump, governance
from tests.unit.feeds import Author, SqliteLog, draft
from tests.unit.test_governance import (
    ACT,
    ACTIVE,
    APPLIED,
    DECISION,
    LEFT,
    SUSPENDED,
    candidate,
    endorse,
    judged,
    observed,
    reason,
    shown,
    standing,
    veto,
)

if TYPE_CHECKING:
    from pathlib import Path

FULL, ASSOCIATE = entry_pb2.MEMBER_CATEGORY_FULL, entry_pb2.MEMBER_CATEGORY_ASSOCIATE
PRACTICE = content_pb2.RECORD_KIND_BEST_PRACTICE


@pytest.fixture
def fed(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def empty(fed: Federation) -> SqliteLog:
    tx = SqliteLog(fed.folder / f"{new_record_id()}.sqlite3")
    feeds.pin(tx, SIMPUL, fed.simpul.genesis)
    return tx


def bring_all(fed: Federation, tx: SqliteLog) -> None:
    while fed.bring(tx):
        pass


def step_by_step(fed: Federation) -> SqliteLog:
    """A node that is there from the beginning: it gets, folds and judges what the simpul observes, when the simpul observes it."""
    tx = empty(fed)
    authors = {author.feed.origin: author for author in fed.authors}

    def bring(author: Author, size: int) -> None:
        while (held := tx.feed(author.feed).size) < size:  # type: ignore[union-attr]
            batch = author.batch(held, size - held)
            feeds.extend(tx, batch, batch.checkpoint)
        while order.advance(tx, 100) >= 100:
            pass

    for stored in fed.simpul.log.entries(SIMPUL, 0, 100_000, 1 << 30):
        entry = entry_pb2.Entry.FromString(stored.body)
        feed = entry.observation.feed
        if feed in authors and tx.feed(FeedId.parse(feed)) is not None:
            bring(authors[feed], entry.observation.size)
        bring(fed.simpul, stored.index + 1)
    return tx


def leave(fed: Federation, forum: Author) -> None:
    entry = fed.entry()
    entry.departure.SetInParent()
    fed.say(forum, entry)
    fed.observe(forum)


# Nothing that anybody writes stops judging.


@pytest.mark.parametrize("field,value", [("seconds", 1 << 62), ("seconds", -(1 << 62)), ("nanos", -5), ("nanos", 2_000_000_000)])
def test_a_time_that_no_calendar_knows_stops_nobody(fed: Federation, field: str, value: int) -> None:
    entry = fed.entry()
    mandate = entry.mandate
    mandate.id, mandate.delegate, mandate.function = new_record_id(), SIMPUL.origin, "publish-on-behalf"
    mandate.kinds.append(content_pb2.RECORD_KIND_AGENDA_ITEM)
    mandate.not_before.FromMicroseconds(START - DAY)
    mandate.not_after.FromMicroseconds(START + DAY)
    setattr(mandate.not_before, field, value)
    if field == "seconds":
        mandate.not_after.seconds = value + 100
    ref = fed.ref(fed.forums[0], fed.say(fed.forums[0], entry))
    fed.observe(fed.forums[0])
    index = fed.act("publish-on-behalf", [ref], fed.forums[0])
    assert governance(fed.node()).head.position > index


def test_an_entry_that_judging_cannot_bear_is_a_problem_and_the_next_one_is_judged(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    good = fed.act("publish-on-behalf", observed(kinds=[2, 3], begin=START + DAY)(fed), fed.forums[0])
    honest = Governance.perform

    def perform(self: Governance, index: int, *rest: Any) -> Any:
        if index == bad:
            raise ValueError("something that nobody thought of")
        return honest(self, index, *rest)

    monkeypatch.setattr(Governance, "perform", perform)
    tx = fed.node()
    assert reason(tx, SIMPUL, bad) == Reason.ENTRY_MALFORMED
    assert governance(tx).act(good) is not None
    # Without the guard nothing more is stored by anybody.
    monkeypatch.setattr(order._Step, "run", order._Step._run)
    with pytest.raises(ValueError, match="nobody thought of"):
        fed.node()


@pytest.mark.parametrize(
    "size,root", [(0, bytes(32)), (0, b""), (1 << 63, bytes(32)), (2, b"x")], ids=["empty", "nothing", "too large", "no root"]
)
def test_an_observation_of_an_impossible_size_does_not_stop_judging(fed: Federation, size: int, root: bytes) -> None:
    fresh = Author(fed.forums[0].log.__class__(), FeedId(SIMPUL.federation, "baru"))
    fed.admit(fresh)
    entry = fed.entry()
    entry.observation.feed, entry.observation.size, entry.observation.root = fresh.feed.origin, size, root
    index = fed.say(fed.simpul, entry)
    fed.forums.append(fresh)
    fed.observe(fresh)
    tx = fed.node()
    assert reason(tx, SIMPUL, index) == Reason.ENTRY_MALFORMED
    assert governance(tx).head.position == fed.simpul.log.feed(SIMPUL).size


def rotation(author: Author, witness: entry_pb2.KeySet) -> Draft:
    """A rotation of the log keys, with witness keys that are up to the caller."""
    keys = MemberKeys.generate().log_signer(author.feed.origin)
    author.signers[keys.public] = keys
    entry = entry_pb2.Entry()
    entry.time.seconds = START // 1_000_000
    entry.key_rotation.log_keys.CopyFrom(key_set(keys.public))
    entry.key_rotation.witness_keys.CopyFrom(witness)
    return Draft(entry)


SMALL_ORDER = entry_pb2.KeySet(ed25519_public=b"\x01" + bytes(31), mldsa44_public=bytes(1312))


def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A door that does not look at new witness keys, as it was before this was found."""
    monkeypatch.setattr(keychain, "check_rotation", lambda feed, found: log_keys_of(feed.origin, found.log_keys.SerializeToString()))


def test_a_witness_key_that_is_none_is_refused_at_the_rotation(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    thief = fed.forums[0]
    with pytest.raises(KadError) as caught:
        fed.say(thief, rotation(thief, SMALL_ORDER))
    assert caught.value.reason == Reason.WEAK_KEY
    with monkeypatch.context() as away:
        lenient(away)
        fed.say(thief, rotation(thief, SMALL_ORDER))
    tx = empty(fed)
    with pytest.raises(KadError) as caught:
        bring_all(fed, tx)
    assert caught.value.reason == Reason.WEAK_KEY


def test_one_member_without_good_keys_does_not_keep_the_others_from_confirming(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    thief = fed.forums[0]
    lenient(monkeypatch)
    fed.say(thief, rotation(thief, SMALL_ORDER))
    fed.observe(thief)
    place = fed.finality(fed.forums[1:])
    tx = fed.node()
    assert reason(tx, SIMPUL, place) is None
    assert governance(tx).head.final_size == place


# What is decided and done at one entry becomes final, all of it.


def test_what_closes_at_one_place_becomes_final_together(fed: Federation) -> None:
    numbers = [fed.propose(fed.forums[0], days=1) for _ in range(2)]
    refs = observed()(fed)
    fed.now += 2 * DAY
    done = [fed.act("publish-on-behalf", refs, fed.forums[0]) for _ in range(2)]
    refused = fed.act("publish-on-behalf", [], fed.forums[0])
    # The word of the members, which closes both decisions, makes the acts before it final; the next one the decisions.
    place = fed.finality(fed.forums[:3])
    found = governance(fed.node())
    assert [found.decision(number).close_position for number in numbers] == [place, place]  # type: ignore[union-attr]
    assert [found.decision(number).final for number in numbers] == [False, False]  # type: ignore[union-attr]
    assert [found.act(index).state for index in (*done, refused)] == [ACT.STATE_FINAL] * 2 + [ACT.STATE_REFUSED]  # type: ignore[union-attr]
    fed.finality(fed.forums[:3])
    found = governance(fed.node())
    assert [found.decision(number).final for number in numbers] == [True, True]  # type: ignore[union-attr]


# Confirming.


def test_who_changed_its_keys_confirms_with_the_new_ones(fed: Federation) -> None:
    index = fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    old = fed.forums[1].witness
    fed.forums[1].rotate()
    fed.observe(fed.forums[1])
    fresh, fed.forums[1].witness = fed.forums[1].witness, old
    stale = fed.finality(fed.forums[:3])
    fed.forums[1].witness = fresh
    good = fed.finality(fed.forums[:3])
    tx = fed.node()
    assert [reason(tx, SIMPUL, place) for place in (stale, good)] == [Reason.FINALITY_INVALID, None]
    assert governance(tx).act(index).state == ACT.STATE_FINAL  # type: ignore[union-attr]


@pytest.mark.parametrize("gone", ["left", "suspended"])
def test_who_is_gone_since_does_not_confirm(fed: Federation, gone: str) -> None:
    fed.act("publish-on-behalf", observed()(fed), fed.forums[1])
    if gone == "left":
        leave(fed, fed.forums[3])
    else:
        fed.decide(fed.forums[0], dict.fromkeys(fed.forums[:3], YES), standing=standing(fed.forums[3], SUSPENDED))
    # Of the three that are left all are needed.
    assert judged(fed, SIMPUL, fed.finality([*fed.forums[:2], fed.forums[3]])) == Reason.FINALITY_INVALID
    assert judged(fed, SIMPUL, fed.finality(fed.forums[:3])) is None


def test_a_quorum_that_is_good_no_more_is_not_written_again_and_again(fed: Federation) -> None:
    fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    size = fed.simpul.log.feed(SIMPUL).size
    note = fed.simpul.log.feed(SIMPUL).checkpoint
    checkpoint = Checkpoint(SIMPUL.origin, size, merkle.root_at(fed.simpul.log.tiles(SIMPUL), size))
    lines = {
        forum.feed.origin: "".join(map(str, cosign(checkpoint, forum.keys.witness_signer(forum.feed.origin), 1_798_761_600))).encode()
        for forum in fed.forums[:3]
    }
    steward = Steward(SimpleNamespace(own=SIMPUL), 3600)  # type: ignore[arg-type]

    def due() -> int:
        tx = fed.node()
        tx.put_witnessed(SIMPUL, size, note)
        for witness, line in lines.items():
            tx.put_cosignature(SIMPUL, size, witness, 1_798_761_600, line)
        return len(steward._finality(tx, governance(tx)))

    assert due() == 1
    # The keys before the last ones still confirm what was there before the change; those before them are not known any more.
    for good in (1, 0):
        fed.forums[1].rotate()
        fed.observe(fed.forums[1])
        assert due() == good


def test_who_comes_later_knows_what_was_observed_before(fed: Federation) -> None:
    # Otherwise it would take the simpul for one that ignores its members, and not confirm it.
    tx = fed.node()
    assert [tx.observed(SIMPUL, forum.feed) for forum in fed.forums] == [1] * 4
    assert tx.ignored(SIMPUL, 1 << 62, 1 << 40) == []


@pytest.mark.parametrize("most,ignored", [(1, False), (2, True)])
def test_half_a_batch_kept_back_by_its_author_holds_up_nobody(fed: Federation, most: int, ignored: bool) -> None:  # noqa: FBT001
    thief = fed.forums[0]
    entry = fed.entry()
    entry.departure.SetInParent()
    tx = fed.node()
    fed.say(thief, entry, draft("x"))
    batch = thief.batch(1, most)
    assert bool(batch.proof) is not ignored
    feeds.extend(tx, batch, batch.checkpoint)
    while order.advance(tx, 100):
        pass
    # The simpul observes what a checkpoint covers, so it cannot observe the half; all of it, it can and must.
    assert tx.ignored(SIMPUL, 1 << 62, 1 << 40) == ([thief.feed] if ignored else [])


# Membership.


def test_leaving_does_not_lift_a_suspension(fed: Federation) -> None:
    suspended = fed.forums[0]
    fed.decide(fed.forums[1], dict.fromkeys(fed.forums[1:], YES), standing=standing(suspended, SUSPENDED))
    leave(fed, suspended)
    alone = fed.admit(suspended)
    fed.admit(suspended, APPLIED)
    again = fed.admit(suspended)
    tx = fed.node()
    assert [reason(tx, SIMPUL, index) for index in (alone, again)] == [Reason.ENDORSEMENTS_MISSING] * 2
    assert governance(tx).member("forums/forum-0").state == APPLIED  # type: ignore[union-attr]
    for forum in fed.forums[1:3]:
        endorse(fed, forum, suspended)
    assert judged(fed, SIMPUL, fed.admit(suspended)) == Reason.ENDORSEMENTS_MISSING, "of three full members all must agree, as to reinstate"
    endorse(fed, fed.forums[3], suspended)
    assert judged(fed, SIMPUL, fed.admit(suspended)) is None
    # From then on it is a member like the others, and may leave and come back.
    leave(fed, suspended)
    assert judged(fed, SIMPUL, fed.admit(suspended)) is None


def test_whoever_comes_back_keeps_its_genesis_whatever_it_applies_with(fed: Federation) -> None:
    gone = fed.forums[0]
    leave(fed, gone)
    twin = Author(fed.forums[0].log.__class__(), gone.feed)
    assert twin.genesis != gone.genesis
    applied, admitted = fed.admit(twin, APPLIED), fed.admit(twin)
    tx = fed.node()
    assert [reason(tx, SIMPUL, index) for index in (applied, admitted)] == [Reason.GENESIS_MISMATCH] * 2
    member = governance(tx).member("forums/forum-0")
    assert member is not None
    assert (member.state, member.genesis) == (LEFT, gone.genesis)
    fed.admit(gone, APPLIED)
    assert judged(fed, SIMPUL, fed.admit(twin, APPLIED)) == Reason.GENESIS_MISMATCH
    fed.admit(gone)
    assert governance(fed.node()).member("forums/forum-0").state == ACTIVE  # type: ignore[union-attr]


def test_an_invitation_does_not_give_a_departed_member_other_keys(fed: Federation) -> None:
    leave(fed, fed.forums[0])
    enrolment = EnrolmentServicer(SimpleNamespace(own=SIMPUL), None, None, None, None)  # type: ignore[arg-type]
    with pytest.raises(KadError) as caught:
        enrolment._admit(fed.node(), Application(fed.forums[0].feed, bytes(32), FULL))
    assert caught.value.reason == Reason.GENESIS_MISMATCH


def test_who_was_endorsed_as_an_associate_is_not_admitted_as_a_full_member(tmp_path: Path) -> None:
    fed = Federation(tmp_path, mode=NETWORKING)
    fed.adopt(charter(mode=NETWORKING, admission_endorsements=1))
    fresh = candidate(fed, ASSOCIATE)
    endorse(fed, fed.forums[0], fresh, category=ASSOCIATE)
    assert judged(fed, SIMPUL, fed.admit(fresh, category=FULL)) == Reason.ENDORSEMENTS_MISSING
    # To be asked for as something else it applies anew, and is endorsed anew.
    fed.admit(fresh, APPLIED, FULL)
    assert judged(fed, SIMPUL, fed.admit(fresh, category=FULL)) == Reason.ENDORSEMENTS_MISSING
    fed.admit(fresh, APPLIED, ASSOCIATE)
    endorse(fed, fed.forums[0], fresh, category=ASSOCIATE)
    assert judged(fed, SIMPUL, fed.admit(fresh, category=ASSOCIATE)) is None


def test_a_forum_may_be_called_mandates(fed: Federation) -> None:
    odd = Author(fed.forums[0].log.__class__(), FeedId(SIMPUL.federation, "mandates"))
    fed.admit(odd)
    fed.forums.append(odd)
    ref = fed.mandate(odd)
    fed.observe(odd)
    assert judged(fed, SIMPUL, fed.act("publish-on-behalf", [ref], odd)) is None
    assert governance(fed.node()).live(governance(fed.node()).mandates("forums/mandates")[0], fed.now) == 1


def test_an_act_names_the_feed_of_today(fed: Federation) -> None:
    refs = observed()(fed)
    other = Author(fed.forums[0].log.__class__(), FeedId(SIMPUL.federation, "forum-0", 5))
    assert judged(fed, SIMPUL, fed.act("publish-on-behalf", refs, other)) == Reason.ACT_INVALID


def test_a_simpul_does_not_speak_of_the_members_of_another(fed: Federation, tmp_path: Path) -> None:
    stranger = Author(fed.forums[0].log.__class__(), FeedId("lain.kad.internal", "simpul"), role=entry_pb2.MEMBER_ROLE_SIMPUL)
    victim = fed.forums[0]
    stranger.admit(victim, category=ASSOCIATE)
    puppet = FeedId(SIMPUL.federation, "calon")
    entry = fed.entry()
    entry.membership.feed, entry.membership.genesis, entry.membership.state = puppet.origin, bytes(range(32)), ACTIVE
    stranger.write([Draft(entry)])
    tx = fed.node()
    feeds.pin(tx, stranger.feed, stranger.genesis)
    batch = stranger.batch(0)
    feeds.extend(tx, batch, batch.checkpoint)
    while order.advance(tx, 100):
        pass
    assert tx.witnesses(SIMPUL) == [forum.feed for forum in fed.forums]
    assert tx.feed(puppet) is None
    assert [reason(tx, stranger.feed, index) for index in (1, 2)] == [Reason.ROLE_INSUFFICIENT] * 2


# Reviews and contents: the same whatever has arrived when.


def submitted(fed: Federation) -> tuple[Author, entry_pb2.MandateRef, str]:
    forum = fed.forums[0]
    ref = fed.mandate(forum, "curate", kinds=[PRACTICE])
    fed.observe(forum)
    record = new_record_id()
    fed.say(forum, draft("a", record))
    fed.observe(forum)
    return forum, ref, record


def review(fed: Federation, forum: Author, ref: entry_pb2.MandateRef, record: str, version: int = 1, *, approved: bool = True) -> int:
    entry = fed.entry()
    entry.act.function, entry.act.on_behalf_of = "curate", forum.feed.origin
    entry.act.mandates.append(ref)
    entry.act.review.record, entry.act.review.version, entry.act.review.approved = record, version, approved
    return fed.say(fed.simpul, entry)


@pytest.mark.parametrize("later", ["revised", "retracted"])
def test_a_review_counts_for_whoever_comes_later_too(fed: Federation, later: str) -> None:
    forum, ref, record = submitted(fed)
    index = review(fed, forum, ref, record)
    if later == "revised":
        fed.say(forum, draft("b", record, 2))
    else:
        entry = fed.entry()
        entry.record_retraction.record, entry.record_retraction.version = record, 1
        blob = contents.new_blob(entry_pb2.RetractionNotice(reason="x").SerializeToString())
        entry.record_retraction.digest, entry.record_retraction.content_size = contents.digest(blob), len(blob) - 32
        fed.say(forum, Draft(entry, blob))
    fed.observe(forum)
    whole, steps = fed.node(), step_by_step(fed)
    assert reason(whole, SIMPUL, index) is None
    assert dump(whole) == dump(steps)


def test_a_review_of_what_was_not_observed_yet_has_no_effect_for_anybody(fed: Federation) -> None:
    forum, ref, _ = submitted(fed)
    fed.say(forum, draft("b", record := new_record_id()))
    index = review(fed, forum, ref, record)
    fed.observe(forum)
    whole, steps = fed.node(), step_by_step(fed)
    assert reason(whole, SIMPUL, index) == reason(steps, SIMPUL, index) is not None
    assert dump(whole) == dump(steps)


def test_a_submission_is_hidden_also_where_its_content_comes_late(fed: Federation) -> None:
    forum, ref, record = submitted(fed)
    tx = empty(fed)
    for _ in range(3):
        for author in fed.authors:
            state = tx.feed(author.feed)
            if state is not None and state.size < author.log.feed(author.feed).size:
                batch = author.batch(state.size)
                batch.ClearField("contents")
                feeds.extend(tx, batch, batch.checkpoint)
            while order.advance(tx, 100):
                pass
    index = forum.log.feed(forum.feed).size - 1
    feeds.supply_content(tx, forum.feed, index, forum.log.entries(forum.feed, index, 1, 1)[0].content)
    order.content_arrived(tx, forum.feed, index)

    def state() -> list[tuple[int, int]]:
        """Its state, and whether words find it."""
        found = "SELECT r.state, (SELECT COUNT(*) FROM record_text t WHERE t.rowid = r.rid) FROM record r WHERE r.ulid = ?"
        return tx._connection.execute(found, (record,)).fetchall()

    assert [row[0] for row in state()] == [records_pb2.RECORD_STATE_SUBMITTED]
    review(fed, forum, ref, record)
    while fed.bring(tx):
        pass
    assert state() == [(records_pb2.RECORD_STATE_PUBLISHED, 1)]


def bad_publication(fed: Federation, ref: entry_pb2.MandateRef, forum: Author, record: str, version: int = 1) -> int:
    """The content names a region that the act does not."""
    content = content_pb2.Content(title="Rapat")
    content.agenda_item.start_time.FromMicroseconds(START)
    content.agenda_item.end_time.FromMicroseconds(START + 1)
    content.agenda_item.time_zone = "Asia/Jakarta"
    content.regions.add(code="34.71")
    return publication(fed, ref, forum, record, version, content)


def publication(
    fed: Federation, ref: entry_pb2.MandateRef, forum: Author, record: str, version: int = 1, content: content_pb2.Content | None = None
) -> int:
    if content is None:
        content = content_pb2.Content(title="Rapat")
        content.agenda_item.start_time.FromMicroseconds(START)
        content.agenda_item.end_time.FromMicroseconds(START + 1)
        content.agenda_item.time_zone = "Asia/Jakarta"
    blob = contents.new_blob(content.SerializeToString())
    entry = fed.entry()
    entry.act.function, entry.act.on_behalf_of = "publish-on-behalf", forum.feed.origin
    entry.act.mandates.append(ref)
    part = entry.act.publication
    part.record, part.version, part.kind, part.audience = record, version, 3, content_pb2.AUDIENCE_PUBLIC
    part.digest, part.content_size = contents.digest(blob), len(blob) - 32
    return fed.say(fed.simpul, Draft(entry, blob))


@pytest.mark.parametrize("then", ["nothing", "next version", "veto", "withdrawal", "final", "final and veto"])
@pytest.mark.parametrize("when", ["at the end", "at once"])
def test_a_content_that_is_at_fault_gives_the_same_whenever_it_comes(fed: Federation, then: str, when: str) -> None:
    forum, record = fed.forums[0], new_record_id()
    (ref,) = observed()(fed)
    index = bad_publication(fed, ref, forum, record)
    if then == "next version":
        publication(fed, ref, forum, record, 2)
    if "final" in then:
        fed.finality(fed.forums[:3])
    if "veto" in then:
        veto(fed, forum, index)
    if then == "withdrawal":
        entry = fed.entry()
        entry.act.function, entry.act.on_behalf_of = "publish-on-behalf", forum.feed.origin
        entry.act.mandates.append(ref)
        entry.act.withdrawal.record, entry.act.withdrawal.version = record, 1
        fed.say(fed.simpul, entry)
    late = empty(fed)
    content = fed.simpul.log.entries(SIMPUL, index, 1, 1)[0].content
    fed.simpul.log.set_content(SIMPUL, index, b"")
    supplied = False

    def supply() -> None:
        nonlocal supplied
        if not supplied and (state := late.feed(SIMPUL)) is not None and state.size > index:
            feeds.supply_content(late, SIMPUL, index, content)
            order.content_arrived(late, SIMPUL, index)
            supplied = True

    while fed.bring(late):
        if when == "at once":
            supply()
    supply()
    fed.simpul.log.set_content(SIMPUL, index, content)
    early = fed.node()
    assert dump(late) == dump(early)
    assert reason(early, SIMPUL, index) == Reason.MANDATE_SCOPE
    published = records_pb2.RECORD_STATE_PUBLISHED if then == "next version" else records_pb2.RECORD_STATE_RETRACTED
    assert shown(early) == [("forum-0", published)]


# Nobody makes much work for the others.


def test_a_member_has_a_hundred_mandates_at_a_time_and_any_number_in_its_life(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mandates, "_MOST_MANDATES", 3)
    forum = fed.forums[0]
    places = [fed.mandate(forum, begin=START + n * DAY, end=START + (n + 1) * DAY) for n in range(4)]
    fed.observe(forum)
    tx = fed.node()
    assert [reason(tx, forum.feed, ref.index) for ref in places] == [None, None, None, Reason.MANDATE_INVALID]
    fed.now = START + DAY
    fed.settle()
    another = fed.mandate(forum, begin=START + 5 * DAY, end=START + 6 * DAY)
    fed.observe(forum)
    tx = fed.node()
    assert reason(tx, forum.feed, another.index) is None
    assert len(governance(tx).running("forums/forum-0")) == 3
    assert len(governance(tx).mandates("forums/forum-0")) == 4


def test_a_member_has_twenty_open_proposals(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_MOST_PROPOSALS", 2)
    numbers = [fed.propose(fed.forums[0], days=1) for _ in range(3)]
    others = fed.propose(fed.forums[1])
    fed.observe(*fed.forums[:2])
    fed.tick(2 * DAY)
    later = fed.propose(fed.forums[0])
    fed.observe(fed.forums[0])
    found = governance(fed.node())
    assert [found.decision(number) is not None for number in (*numbers, others, later)] == [True, True, False, True, True]
    assert found.decision(later).state == DECISION.STATE_OPEN  # type: ignore[union-attr]


def test_regions_are_looked_up_and_not_compared_one_by_one() -> None:
    regions = [f"{n:02}.{m:02}" for n in range(100) for m in range(100)]
    begin = time.perf_counter()
    assert is_within_regions([f"{region}.01.2001" for region in regions], regions)
    assert time.perf_counter() - begin < 1, "a hundred million comparisons take longer"
    assert not is_within_regions(["34.7"], ["34.71"])
    assert not is_within_regions(["34.710"], ["34.71"])
    assert not is_within_regions([""], ["34"])


@pytest.mark.parametrize("more", [{"regions": ["34"] * 601}, {"sectors": [1] * 33}])
def test_an_act_that_names_more_than_is_possible(fed: Federation, more: dict[str, Any]) -> None:
    assert judged(fed, SIMPUL, fed.act("publish-on-behalf", observed()(fed), fed.forums[0], **more)) == Reason.ACT_INVALID


# Small federations, and rules that change while others are being changed.


def test_a_federation_without_members(tmp_path: Path) -> None:
    fed = Federation(tmp_path, count=0)
    nobody = Author(fed.simpul.log.__class__(), FeedId(SIMPUL.federation, "belum-ada"))
    act, place = fed.act("publish-on-behalf", [], nobody), fed.finality([])
    tx = fed.node()
    assert [reason(tx, SIMPUL, index) for index in (act, place)] == [Reason.NO_MANDATE, Reason.FINALITY_INVALID]
    assert governance(tx).chair(fed.now) == ""


@pytest.mark.parametrize("count", [1, 2, 3])
def test_in_a_small_federation_everybody_confirms_and_everybody_agrees_to_the_first_charter(tmp_path: Path, count: int) -> None:
    fed = Federation(tmp_path, count=count)
    index = fed.act("publish-on-behalf", observed()(fed), fed.forums[0])
    assert judged(fed, SIMPUL, fed.finality(fed.forums[:-1])) == Reason.FINALITY_INVALID
    fed.finality(fed.forums)
    fed.adopt(charter())
    found = governance(fed.node())
    assert found.act(index).state == ACT.STATE_FINAL  # type: ignore[union-attr]
    assert found.charter.version == 1


def test_nobody_decides_about_itself_also_where_nobody_else_is(tmp_path: Path) -> None:
    fed = Federation(tmp_path, count=1)
    number = fed.propose(fed.forums[0], days=1, standing=standing(fed.forums[0], SUSPENDED))
    fed.observe(fed.forums[0])
    place = fed.vote(fed.forums[0], number, fed.forums[0])
    fed.tick(2 * DAY)
    tx = fed.node()
    assert reason(tx, fed.forums[0].feed, place) in (Reason.VOTE_NOT_ENTITLED, Reason.VOTE_TOO_LATE)
    decision = governance(tx).decision(number)
    assert decision is not None
    assert (decision.state, decision.outcome) == (DECISION.STATE_REJECTED, "PARTICIPATION")
    assert governance(tx).member("forums/forum-0").state == ACTIVE  # type: ignore[union-attr]


@pytest.mark.parametrize("together", [True, False])
def test_of_two_charters_one_is_adopted(fed: Federation, together: bool) -> None:  # noqa: FBT001
    fed.adopt(charter())
    first = fed.propose(fed.forums[0], days=1, charter=charter(2, notice_hours=24))
    second = fed.propose(fed.forums[1], days=1 if together else 2, charter=charter(2, general_percent=70))
    fed.observe(*fed.forums[:2])
    for forum in fed.forums[:3]:
        fed.vote(fed.forums[0], first, forum)
        fed.vote(fed.forums[1], second, forum)
        fed.observe(forum)
    fed.tick(3 * DAY)
    # By the rules that the first one brought the second one needs a day of notice.
    fed.tick(2 * DAY)
    found = governance(fed.node())
    assert {first: DECISION.STATE_ACCEPTED, second: DECISION.STATE_REJECTED} == {
        number: found.decision(number).state  # type: ignore[union-attr]
        for number in (first, second)
    }
    assert found.decision(second).outcome == "CHARTER_INVALID"  # type: ignore[union-attr]


def test_a_deadline_passes_with_a_census_and_the_word_of_the_members(fed: Federation) -> None:
    number = fed.decide(fed.forums[0], dict.fromkeys(fed.forums[:3], YES), days=1)
    fed.now += 2 * DAY
    entry, blob = census(governance(fed.node()))
    entry.time.FromMicroseconds(fed.now)
    fed.say(fed.simpul, Draft(entry, blob))
    assert governance(fed.node()).decision(number).state == DECISION.STATE_OPEN  # type: ignore[union-attr]
    fed.settle()
    tx = fed.node()
    assert governance(tx).decision(number).state == DECISION.STATE_ACCEPTED  # type: ignore[union-attr]
    assert tx.reason_counts() == {}


def test_who_has_left_has_not_voted(fed: Federation) -> None:
    fed.adopt(charter())
    number = fed.propose(fed.forums[0], days=5)
    fed.observe(fed.forums[0])
    for forum, choice in zip(fed.forums, [NO, NO, YES], strict=False):
        fed.vote(fed.forums[0], number, forum, choice)
        fed.observe(forum)
    leave(fed, fed.forums[0])
    leave(fed, fed.forums[1])
    fed.vote(fed.forums[0], number, fed.forums[3])
    fed.observe(fed.forums[3])
    decision = governance(fed.node()).decision(number)
    assert decision is not None
    assert (decision.state, decision.yes, decision.no, decision.eligible) == (DECISION.STATE_ACCEPTED, 2, 0, 2)
