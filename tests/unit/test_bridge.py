"""Two federations at one node: what the other simpul's word can do here, and what it cannot; what crosses, and what does not."""

from __future__ import annotations

import base64
import io
import json
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from kad_node import dossier, vigil
from kad_node.bundle import read_frames
from kad_node.fence import Fence, FenceState
from kad_node.replica import StoreReplica
from kad_node.service.records import to_record
from kad_node.store.sqlite import SqliteStore
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import order
from kad_protocol.audience import Standpoint, is_open, only_open
from kad_protocol.entry import new_entry
from kad_protocol.errors import Reason
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance
from kad_protocol.names import FeedId, RecordName, new_record_id
from kad_protocol.v1 import content_pb2, entry_pb2, records_pb2, replication_pb2
from kad_simpul.observe import Observer
from tests.unit.federation import NETWORKING, SIMPUL, YES, Federation, agenda, charter
from tests.unit.feeds import Author, SqliteLog, draft
from tests.unit.test_recovery import heir_of, prove, recover, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OTHER = FeedId("lain.kad.internal", "simpul-lain")
THIRD = FeedId("ketiga.kad.internal", "simpul-ketiga")
ACTIVE, SUSPENDED, LEFT = (
    entry_pb2.MEMBERSHIP_STATE_ACTIVE,
    entry_pb2.MEMBERSHIP_STATE_SUSPENDED,
    entry_pb2.MEMBERSHIP_STATE_LEFT,
)
FULL, ASSOCIATE = entry_pb2.MEMBER_CATEGORY_FULL, entry_pb2.MEMBER_CATEGORY_ASSOCIATE
FEDERATION, PUBLIC = content_pb2.AUDIENCE_FEDERATION, content_pb2.AUDIENCE_PUBLIC


class Pair:
    """Our federation and another one, whose simpul is a member of ours."""

    def __init__(self, folder: Path, *, admitted: bool = True) -> None:
        self.folder = folder
        self.ours = Federation(folder, 2)
        self.theirs = Federation(folder, 2, simpul=OTHER)
        if admitted:
            self.ours.admit(self.theirs.simpul, category=ASSOCIATE)

    def node(self, limit: int = 1000) -> SqliteLog:
        """A node of ours that has everything that it may have, without what is not for it."""
        tx = SqliteLog(self.folder / f"{new_record_id()}.sqlite3")
        tx.standpoint = Standpoint(SIMPUL.federation, limit)
        feeds.pin(tx, SIMPUL, self.ours.simpul.genesis)
        self.bring(tx)
        return tx

    def bring(self, tx: SqliteLog) -> None:
        moved = True
        while moved:
            moved = self.ours.bring(tx)
            for author in self.theirs.authors:
                state = tx.feed(author.feed)
                if state is not None and state.size < author.log.feed(author.feed).size:
                    batch = only_open(tx, author.feed, author.batch(state.size))
                    feeds.extend(tx, batch, batch.checkpoint)
                    moved = True
            while order.advance(tx, 7) >= 7:
                pass


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def reason(tx: SqliteLog, feed: FeedId, index: int) -> Reason | None:
    problem = tx.problem(feed, index)
    return problem.reason if problem is not None else None


def said(federation: Federation, feed: FeedId, genesis: bytes, state: int = ACTIVE) -> int:
    entry = federation.entry()
    entry.membership.feed, entry.membership.genesis, entry.membership.state = feed.origin, genesis, state  # type: ignore[assignment]
    return federation.say(federation.simpul, entry)


# Whose word counts.


def test_a_simpul_that_is_a_member_brings_its_own_members(pair: Pair) -> None:
    tx = pair.node()
    for author in pair.theirs.authors:
        assert tx.feed(author.feed).size == author.log.feed(author.feed).size  # type: ignore[union-attr]
    assert tx.judged(OTHER) == tx.feed(OTHER).size  # type: ignore[union-attr]
    assert tx.reason_counts() == {}


def test_nobody_speaks_here_whom_we_have_not_made_a_member(tmp_path: Path) -> None:
    pair = Pair(tmp_path, admitted=False)
    tx = pair.node()
    feeds.pin(tx, OTHER, pair.theirs.simpul.genesis)
    pair.bring(tx)
    assert tx.feed(OTHER).size == pair.theirs.simpul.log.feed(OTHER).size  # type: ignore[union-attr]
    assert {state.feed.federation for state in tx.feeds() if state.feed != OTHER} == {SIMPUL.federation}
    # From the moment on at which we do, it does.
    pair.ours.admit(pair.theirs.simpul, category=ASSOCIATE)
    pair.bring(tx)
    assert tx.feed(pair.theirs.forums[0].feed) is not None


def test_it_speaks_no_longer_when_it_has_left(pair: Pair) -> None:
    tx = pair.node()
    entry = pair.ours.entry()
    entry.departure.simpul = OTHER.origin
    pair.ours.say(pair.ours.simpul, entry)
    pair.bring(tx)
    assert tx.membership(OTHER) == LEFT
    late = Author(pair.theirs.forums[0].log.__class__(), FeedId(OTHER.federation, "terlambat"))
    pair.theirs.admit(late)
    pair.bring(tx)
    assert tx.feed(late.feed) is None


def test_another_simpul_has_no_say_about_our_members(pair: Pair) -> None:
    victim = pair.ours.forums[0]
    puppet = FeedId(SIMPUL.federation, "boneka")
    places = [
        said(pair.theirs, victim.feed, victim.genesis),
        said(pair.theirs, puppet, bytes(range(32))),
        said(pair.theirs, FeedId(SIMPUL.federation, "forum-1"), bytes(32)),
    ]
    pair.theirs.observe(victim)
    said(pair.theirs, victim.feed, victim.genesis, SUSPENDED)
    said(pair.theirs, victim.feed, victim.genesis, LEFT)
    tx = pair.node()
    assert [reason(tx, OTHER, place) for place in places] == [Reason.FOREIGN_WORD] * 3
    assert tx.feed(puppet) is None
    assert tx.membership(victim.feed) == ACTIVE
    assert dict(tx.members())[victim.feed] == ACTIVE
    assert set(tx.witnesses(SIMPUL)) == {forum.feed for forum in pair.ours.forums}


def test_its_observations_are_no_receipts_of_ours(pair: Pair) -> None:
    author = pair.ours.forums[0]
    made = draft("Praktik")
    pair.ours.say(author, made)
    said(pair.theirs, author.feed, author.genesis)
    pair.theirs.observe(author)
    tx = pair.node()
    row = tx.record(RecordName(author.feed.forum, made.entry.record_version.record), 0, SIMPUL)
    assert row is not None
    assert row.observation is None
    assert tx.member(author.feed).observed < tx.feed(author.feed).size  # type: ignore[union-attr]
    pair.ours.observe(author)
    pair.bring(tx)
    row = tx.record(RecordName(author.feed.forum, made.entry.record_version.record), 0, SIMPUL)
    assert row is not None
    assert row.observation is not None


def test_it_lets_none_of_our_submissions_through(pair: Pair) -> None:
    author = pair.ours.forums[0]
    pair.ours.mandate(author, "curate")
    made = agenda()
    pair.ours.say(author, made)
    pair.ours.observe(author)
    said(pair.theirs, author.feed, author.genesis)
    pair.theirs.observe(author)
    tx = pair.node()
    row = tx.record(RecordName(author.feed.forum, made.entry.record_version.record), 0, SIMPUL)
    assert row is not None
    assert row.state == records_pb2.RECORD_STATE_SUBMITTED


def test_members_of_third_federations_are_not_followed(pair: Pair) -> None:
    third = Author(pair.theirs.simpul.log.__class__(), THIRD, role=entry_pb2.MEMBER_ROLE_SIMPUL)
    pair.theirs.admit(third, category=ASSOCIATE)
    pair.theirs.observe(third)
    last = pair.theirs.admit(Author(third.log, FeedId(OTHER.federation, "belakangan")))
    tx = pair.node()
    assert tx.feed(THIRD) is None
    # And keep nothing from going on.
    assert tx.judged(OTHER) > last
    assert tx.reason_counts() == {}


def test_a_simpul_is_an_associate_whatever_is_said(tmp_path: Path) -> None:
    pair = Pair(tmp_path, admitted=False)
    pair.ours.admit(pair.theirs.simpul, category=FULL)
    tx = pair.node()
    found = Governance(tx.affairs(SIMPUL), SIMPUL)
    member = found.member(found.name_of(OTHER))
    assert member is not None
    assert (member.name, member.category) == ("lain.kad.internal/forums/simpul-lain", ASSOCIATE)
    assert OTHER not in tx.witnesses(SIMPUL)
    assert len(found.full_members()) == 2


@pytest.mark.parametrize("named,expected", [(SIMPUL.origin, LEFT), ("", ACTIVE), (THIRD.origin, ACTIVE)])
def test_a_simpul_says_which_federation_it_leaves(pair: Pair, named: str, expected: int) -> None:
    entry = pair.theirs.entry()
    entry.departure.simpul = named
    entry.departure.SetInParent()
    pair.theirs.say(pair.theirs.simpul, entry)
    pair.ours.observe(pair.theirs.simpul)
    tx = pair.node()
    assert tx.membership(OTHER) == expected


def test_it_is_admitted_by_our_members_rules_like_any_other(tmp_path: Path) -> None:
    pair = Pair(tmp_path, admitted=False)
    ours = pair.ours
    ours.decide(ours.forums[0], dict.fromkeys(ours.forums, YES), charter=charter(mode=NETWORKING, admission_endorsements=2))
    alone = ours.admit(pair.theirs.simpul, category=ASSOCIATE)
    ours.admit(pair.theirs.simpul, entry_pb2.MEMBERSHIP_STATE_APPLIED, category=ASSOCIATE)
    tx = pair.node()
    assert reason(tx, SIMPUL, alone) == Reason.ENDORSEMENTS_MISSING
    assert tx.feed(OTHER) is None
    for forum in ours.forums:
        entry = ours.entry()
        entry.endorsement.feed, entry.endorsement.genesis = OTHER.origin, pair.theirs.simpul.genesis
        entry.endorsement.category = ASSOCIATE
        ours.say(forum, entry)
        ours.observe(forum)
    ours.admit(pair.theirs.simpul, category=ASSOCIATE)
    pair.bring(tx)
    assert tx.membership(OTHER) == ACTIVE
    assert tx.feed(pair.theirs.forums[0].feed) is not None


# How much of another federation is taken.


def test_no_more_feeds_are_taken_than_there_is_room_for(pair: Pair) -> None:
    for number in range(5):
        pair.theirs.admit(Author(pair.theirs.simpul.log.__class__(), FeedId(OTHER.federation, f"lebih-{number}")))
    tx = pair.node(limit=4)
    assert tx.feed_count(OTHER.federation) == 4
    head = Governance(tx.affairs(OTHER), OTHER).head
    assert head.waiting_reason == Reason.FOREIGN_FEEDS_LIMIT
    assert head.waiting_for == FeedId(OTHER.federation, "lebih-1").origin
    assert tx.reason_counts() == {Reason.FOREIGN_FEEDS_LIMIT: 1}
    # Our own federation goes on, however many it has.
    for number in range(6):
        pair.ours.admit(Author(pair.ours.simpul.log.__class__(), FeedId(SIMPUL.federation, f"baru-{number}")))
    pair.bring(tx)
    assert tx.feed_count(SIMPUL.federation) == 9
    assert tx.judged(SIMPUL) == tx.feed(SIMPUL).size  # type: ignore[union-attr]
    # What is here of theirs goes on too; and with more room everything does.
    pair.theirs.say(pair.theirs.forums[0], draft("Baru"))
    pair.bring(tx)
    assert tx.count_records(OTHER.federation, records_pb2.RECORD_STATE_PUBLISHED) == 1
    tx.standpoint = Standpoint(SIMPUL.federation, 1000)
    pair.bring(tx)
    assert tx.feed_count(OTHER.federation) == 8
    assert tx.reason_counts() == {}


# What crosses.


def beside(kind: str, audience: int = FEDERATION) -> Draft:
    """An entry of some kind with what travels beside it."""
    entry = new_entry(1_798_761_600_000_000)
    blob = contents.new_blob(f"isi {kind} {audience}".encode())
    match kind:
        case "record_version":
            made = draft("Praktik")
            made.entry.record_version.audience = audience  # type: ignore[assignment]
            return made
        case "publication":
            made = draft("Praktik")
            entry.act.publication.CopyFrom(made.entry.record_version)
            entry.act.publication.audience = audience  # type: ignore[assignment]
            return Draft(entry, made.content)
        case "statement":
            entry.act.statement.digest, entry.act.statement.content_size = contents.digest(blob), len(blob) - 32
        case _:
            part = getattr(entry, kind)
            part.digest, part.content_size = contents.digest(blob), len(blob) - 32
    return Draft(entry, blob)


@pytest.mark.parametrize(
    "kind,audience,expected",
    [
        ("record_version", PUBLIC, True),
        ("record_version", FEDERATION, False),
        ("record_version", content_pb2.AUDIENCE_UNSPECIFIED, False),
        ("publication", PUBLIC, True),
        ("publication", FEDERATION, False),
        ("profile_version", 0, True),
        ("census", 0, True),
        ("statement", 0, False),
        ("proposal", 0, False),
        ("vote", 0, False),
    ],
)
def test_only_what_is_for_everybody_leaves_its_federation(tmp_path: Path, kind: str, audience: int, *, expected: bool) -> None:
    tx = SqliteLog(tmp_path / "log.sqlite3")
    author = Author(tx)
    made = beside(kind, audience)
    author.write([made])
    assert is_open(tx, author.feed, made.entry) is expected
    batch = author.batch(0)
    sent = only_open(tx, author.feed, batch)
    assert sent.entries == batch.entries
    assert (made.content in sent.contents) is expected
    assert made.content in batch.contents, "the batch for others is another one"


@pytest.mark.parametrize("audience", [PUBLIC, FEDERATION])
def test_the_reason_of_a_retraction_goes_where_the_record_went(tmp_path: Path, audience: int) -> None:
    tx = SqliteLog(tmp_path / "log.sqlite3")
    author = Author(tx)
    made = beside("record_version", audience)
    blob = contents.new_blob(entry_pb2.RetractionNotice(reason="usang").SerializeToString())
    entry = new_entry(1_798_761_600_000_000)
    part = entry.record_retraction
    part.record, part.version, part.digest, part.content_size = (
        *(made.entry.record_version.record, 1, contents.digest(blob)),
        len(blob) - 32,
    )
    author.write([made, Draft(entry, blob)])
    order.advance(tx, 100)
    assert is_open(tx, author.feed, entry) is (audience == PUBLIC)


def test_what_is_withheld_exists_and_is_not_waited_for(pair: Pair) -> None:
    author = pair.theirs.forums[0]
    hidden, shown, late = draft("Internal"), draft("Terbuka"), draft("Belum tiba")
    hidden.entry.record_version.audience = FEDERATION
    pair.theirs.say(author, hidden, shown, late, beside("proposal"))
    tx = SqliteLog(pair.folder / "tanpa.sqlite3")
    tx.standpoint = Standpoint(SIMPUL.federation)
    feeds.pin(tx, author.feed, author.genesis)
    batch = only_open(tx, author.feed, author.batch(0))
    place = list(batch.contents).index(late.content)
    batch.contents[place] = b""
    feeds.extend(tx, batch, batch.checkpoint)
    order.advance(tx, 100)

    def state(made: Draft) -> int:
        row = tx.record(RecordName(author.feed.forum, made.entry.record_version.record, OTHER.federation), 0, SIMPUL)
        assert row is not None
        assert row.feed == author.feed
        return to_record(row, SIMPUL).state

    states = [state(made) for made in (hidden, shown, late)]
    assert states == [
        records_pb2.RECORD_STATE_WITHHELD,
        records_pb2.RECORD_STATE_PUBLISHED,
        records_pb2.RECORD_STATE_CONTENT_MISSING,
    ]
    assert tx.missing_contents(10) == [(author.feed, place)]
    assert tx.reason_counts() == {Reason.CONTENT_MISSING: 1}
    # For its own federation the same entries are not withheld, but missing.
    home = SqliteLog(pair.folder / "sendiri.sqlite3")
    home.standpoint = Standpoint(OTHER.federation)
    feeds.pin(home, author.feed, author.genesis)
    feeds.extend(home, batch, batch.checkpoint)
    order.advance(home, 100)
    assert home.reason_counts() == {Reason.CONTENT_MISSING: 3}


def test_names_of_two_federations_do_not_meet(pair: Pair) -> None:
    ours, theirs = pair.ours.forums[0], pair.theirs.forums[0]
    assert ours.feed.forum == theirs.feed.forum
    number = new_record_id()
    # The same forum id and even the same record id: somebody over there has copied ours.
    pair.ours.say(ours, draft("Kami", number))
    pair.theirs.say(theirs, draft("Mereka", number))
    tx = pair.node()
    found = {}
    for name in (RecordName("forum-0", number), RecordName("forum-0", number, OTHER.federation)):
        row = tx.record(name, 0, SIMPUL)
        assert row is not None
        record = to_record(row, SIMPUL)
        assert record.name == str(name)
        assert RecordName.parse(record.name) == name
        found[record.content.title] = row.feed
    assert found == {"Kami": ours.feed, "Mereka": theirs.feed}
    assert tx.record(RecordName("forum-0", number, THIRD.federation), 0, SIMPUL) is None


# Two simpuls that watch each other.


def test_two_simpuls_do_not_observe_each_other_for_ever(tmp_path: Path) -> None:
    tx = SqliteLog(tmp_path / "simpul.sqlite3")
    tx.standpoint = Standpoint(SIMPUL.federation)
    own = Author(tx, SIMPUL, role=entry_pb2.MEMBER_ROLE_SIMPUL)
    other = Author(tx, OTHER, role=entry_pb2.MEMBER_ROLE_SIMPUL)
    forum = Author(tx, FeedId(OTHER.federation, "forum"))
    own.admit(other, category=ASSOCIATE)
    order.advance(tx, 100)
    observer = Observer(SIMPUL, Fence(shared=False, simpul=None))

    def observed() -> list[str]:
        before = tx.feed(SIMPUL).tail  # type: ignore[union-attr]
        tx.touched.update({OTHER, forum.feed})
        observer.before_seal(tx)
        feeds.seal(tx, SIMPUL, own.signers.__getitem__)
        order.advance(tx, 100)
        entries = [entry_pb2.Entry.FromString(e.body) for e in tx.entries(SIMPUL, before, 100, 1 << 20)]
        return [entry.observation.feed for entry in entries]

    # Its genesis says something; what it says of its duties does not; the next thing that it says itself does.
    assert observed() == [OTHER.origin]
    for _ in range(3):
        other.observe(own)
        assert observed() == []
    other.admit(forum)
    assert observed() == [OTHER.origin]
    # Its members it observes itself.
    forum.publish()
    assert observed() == []


# What a node gives to whom.


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[tuple[StoreReplica, Author, list[Draft]]]:
    store = await SqliteStore.open(tmp_path / "store.sqlite3", lambda tx: order.advance(tx, 500) >= 500, Standpoint(SIMPUL.federation))
    author = Author(SqliteLog(tmp_path / "author.sqlite3"), FeedId(SIMPUL.federation, "forum"))
    made = [draft("Terbuka"), draft("Internal")]
    made[1].entry.record_version.audience = FEDERATION
    author.write(made)
    await store.write(lambda tx: feeds.pin(tx, author.feed, author.genesis))
    batch = author.batch(0)
    await store.write(lambda tx: feeds.extend(tx, batch, batch.checkpoint))
    found = StoreReplica(store, author.feed, Fence(shared=True, simpul=None), lambda: None)
    await found.start()
    yield found, author, made
    await store.close()


MEMBER, STRANGER = FeedId(SIMPUL.federation, "forum-lain"), OTHER


@pytest.mark.parametrize("first", [MEMBER, STRANGER])
async def test_what_one_peer_got_is_not_what_another_gets(replica: Any, first: FeedId) -> None:
    found, author, (shown, hidden) = replica
    for peer in (first, MEMBER, STRANGER, MEMBER, STRANGER):
        batch = await found.read(peer, author.feed, 0, 512, 1 << 20)
        assert shown.content in batch.contents
        assert (hidden.content in batch.contents) is (peer is MEMBER)
        assert len(batch.entries) == 3
        wanted = [replication_pb2.ContentRequest(feed=author.feed.origin, index=index) for index in (1, 2)]
        assert [reply.index for reply in await found.give(peer, wanted)] == ([1, 2] if peer is MEMBER else [1])


async def test_what_is_for_others_is_not_even_kept(tmp_path: Path, replica: Any) -> None:
    """A peer that gives away what it should not finds nobody who takes it."""
    _, author, (shown, hidden) = replica
    store = await SqliteStore.open(tmp_path / "lain.sqlite3", lambda tx: order.advance(tx, 500) >= 500, Standpoint(OTHER.federation))
    try:
        await store.write(lambda tx: feeds.pin(tx, author.feed, author.genesis))
        taker = StoreReplica(store, OTHER, Fence(shared=False, simpul=None), lambda: None)
        await taker.start()
        batch = author.batch(0)
        await taker.accept(SIMPUL, [(batch, batch.checkpoint)])
        reply = replication_pb2.ContentReply(feed=author.feed.origin, index=2, content=hidden.content)
        await taker.take(SIMPUL, [reply])
        stored = await store.read(lambda tx: tx.entries(author.feed, 0, 10, 1 << 20))
        assert [entry.content for entry in stored] == [b"", shown.content, b""]
    finally:
        await store.close()


async def test_nobody_of_another_federation_says_when_a_member_may_sign(replica: Any) -> None:
    found, author, _ = replica
    await found._store.write(lambda tx: feeds.pin(tx, MEMBER, bytes(32)))

    async def meet(peer: FeedId, size: int) -> FenceState:
        await found.meet(peer, [replication_pb2.Head(feed=author.feed.origin, size=size)], complete=True)
        return found.fence.state  # type: ignore[no-any-return]

    assert await meet(STRANGER, 3) is FenceState.FENCED
    assert await meet(STRANGER, 1000) is FenceState.FENCED
    assert await meet(MEMBER, 3) is FenceState.OPEN


# A member that has left, keys that change, a log that somebody checks anew.


def parted(federation: Federation, other: FeedId) -> int:
    """The simpul leaves the federation of another one, which is no member here any more either."""
    entry = federation.entry()
    entry.departure.simpul = other.origin
    return federation.say(federation.simpul, entry)


@pytest.mark.parametrize("by_its_own_word", [True, False])
def test_it_comes_back_with_its_own_word_alone(pair: Pair, *, by_its_own_word: bool) -> None:
    old = pair.ours.consent(pair.theirs.simpul)
    pair.ours.now += 1_000_000
    if by_its_own_word:
        pair.theirs.now = pair.ours.now
        entry = pair.theirs.entry()
        entry.departure.simpul = SIMPUL.origin
        pair.theirs.say(pair.theirs.simpul, entry)
    else:
        parted(pair.ours, OTHER)
    pair.ours.observe(pair.theirs.simpul)
    silent = pair.ours.admit(pair.theirs.simpul, category=ASSOCIATE, consent=entry_pb2.Consent())
    tx = pair.node()
    assert reason(tx, SIMPUL, silent) == Reason.CONSENT_MISSING
    assert tx.membership(OTHER) == LEFT
    stale = pair.ours.admit(pair.theirs.simpul, category=ASSOCIATE, consent=old)
    pair.bring(tx)
    assert reason(tx, SIMPUL, stale) == (Reason.CONSENT_MISSING if by_its_own_word else None)
    pair.ours.now += 1_000_000
    pair.ours.admit(pair.theirs.simpul, category=ASSOCIATE)
    pair.bring(tx)
    assert tx.membership(OTHER) == ACTIVE
    assert [member.name for member in Governance(tx.affairs(SIMPUL), SIMPUL).electorate()] == ["forums/forum-0", "forums/forum-1"]


def test_who_comes_back_to_another_federation_is_not_for_us_to_judge(pair: Pair) -> None:
    third = Author(pair.theirs.simpul.log.__class__(), THIRD, role=entry_pb2.MEMBER_ROLE_SIMPUL)
    pair.theirs.admit(third, category=ASSOCIATE)
    parted(pair.theirs, THIRD)
    pair.theirs.admit(third, category=ASSOCIATE)
    tx = pair.node()
    found = Governance(tx.affairs(OTHER), OTHER)
    assert found.member(found.name_of(THIRD)).state == ACTIVE  # type: ignore[union-attr]
    assert tx.reason_counts() == {}


def test_its_members_begin_anew_and_their_records_go_on(pair: Pair) -> None:
    old = pair.theirs.forums[0]
    hidden, shown, stolen = draft("Internal"), draft("Terbuka"), draft("Palsu")
    hidden.entry.record_version.audience = FEDERATION
    pair.theirs.say(old, hidden, shown)
    good = old.log.feed(old.feed).size
    pair.theirs.say(old, stolen)
    pair.theirs.observe(old)
    tx = pair.node()
    heir = recover(pair.theirs, 0, good)
    blob = contents.new_blob(entry_pb2.RetractionNotice(reason="usang").SerializeToString())
    entry = pair.theirs.entry()
    part = entry.record_retraction
    part.record, part.version, part.digest, part.content_size = (
        *(shown.entry.record_version.record, 1, contents.digest(blob)),
        len(blob) - 32,
    )
    pair.bring(tx)

    def row(made: Draft) -> Any:
        return tx.record(RecordName(old.feed.forum, made.entry.record_version.record, OTHER.federation), 0, SIMPUL)

    assert tx.feed(old.feed).quarantine == Reason.EPOCH_SUPERSEDED  # type: ignore[union-attr]
    assert [row(made).feed for made in (hidden, shown)] == [heir.feed] * 2
    assert row(hidden).state == records_pb2.RECORD_STATE_WITHHELD
    assert row(shown).state == records_pb2.RECORD_STATE_PUBLISHED
    assert row(stolen).state == records_pb2.RECORD_STATE_RETRACTED
    # For whom it is does not change by whose feed it is a record of now.
    for feed in (old.feed, heir.feed):
        assert tx.version_audience(feed, shown.entry.record_version.record, 1) == PUBLIC
        assert tx.version_audience(feed, hidden.entry.record_version.record, 1) == FEDERATION
    pair.theirs.say(heir, Draft(entry, blob))
    pair.bring(tx)
    assert (row(shown).state, row(shown).retraction) == (records_pb2.RECORD_STATE_RETRACTED, "usang")
    assert [row.problem.reason for row in tx.problems(100) if row.problem.reason != Reason.EPOCH_SUPERSEDED] == []


def test_nobody_begins_a_feed_of_ours_anew_for_us(pair: Pair) -> None:
    victim = pair.ours.forums[0]
    said(pair.theirs, victim.feed, victim.genesis)
    pair.theirs.observe(victim)
    recovered = prove(victim, heir_of(victim), 1)
    write(pair.theirs, recovered)
    tx = pair.node()
    assert tx.feed(victim.feed).quarantine == ""  # type: ignore[union-attr]
    assert tx.feed(recovered.heir.feed) is None
    assert tx.membership(victim.feed) == ACTIVE


def test_a_log_with_another_simpul_among_its_members_is_judged_anew(pair: Pair) -> None:
    pair.theirs.say(pair.theirs.forums[0], draft("Isi mereka"))
    pair.ours.observe(pair.theirs.simpul)
    index = pair.ours.act("publish-on-behalf", [], pair.ours.forums[0])
    tx = pair.node()
    data = dossier.unlawful(tx, SIMPUL, [(index, reason(tx, SIMPUL, index) or Reason.UNLAWFUL)])
    found = dossier.verify(data)
    assert isinstance(found, dossier.Unlawful)
    assert [entry[0] for entry in found.findings] == [index]
    # What their members wrote is no affair of ours, and does not go into the file.
    assert {FeedId.parse(origin).forum for origin in origins(data)} == {"simpul-lain", SIMPUL.forum, "forum-0", "forum-1"}
    assert {FeedId.parse(origin).federation for origin in origins(data)} == {SIMPUL.federation, OTHER.federation}
    assert sum(FeedId.parse(origin).federation == OTHER.federation for origin in origins(data)) == 1


def origins(data: bytes) -> set[str]:
    """Feeds in a dossier."""
    frames = zlib.decompress(base64.b64decode(json.loads(data)["frames"]))
    return {batch.feed for frame in read_frames(io.BytesIO(frames)) for batch in frame.batches}


async def test_that_another_simpuls_duties_are_not_observed_is_no_fault(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.theirs.observe(pair.theirs.forums[0])
    pair.ours.say(pair.ours.forums[0], draft("Diabaikan"))
    tx = pair.node()
    assert tx.observed(SIMPUL, OTHER) < tx.feed(OTHER).size  # type: ignore[union-attr]
    watch = vigil.Vigil(SimpleNamespace(own=pair.ours.forums[1].feed), lambda _: 0.0, lambda: None)  # type: ignore[arg-type]
    now = pair.ours.now / 1_000_000
    monkeypatch.setattr("kad_node.vigil.clock.time", lambda: now)
    assert watch._passed_over(tx) == (set(), set())
    now += 86_400
    assert watch._passed_over(tx) == ({pair.ours.forums[0].feed}, set())


@pytest.mark.parametrize("theirs", [True, False])
def test_a_forum_with_two_histories_is_followed_as_its_own_simpul_observes_it(pair: Pair, *, theirs: bool) -> None:
    federation = pair.theirs if theirs else pair.ours
    liar, simpul = federation.forums[0], federation.simpul.feed
    federation.observe(liar)
    tx = pair.node()
    twin = Author(liar.log.__class__(), liar.feed, liar.keys)
    feeds.pin(twin.log, liar.feed, liar.genesis)
    twin.log = liar.log.__class__()
    feeds.pin(twin.log, liar.feed, liar.genesis)
    batch = liar.batch(0)
    feeds.extend(twin.log, batch, batch.checkpoint)
    base = liar.log.feed(liar.feed).size
    twin.write([draft("Hanya untuk satu")])
    federation.say(liar, draft("Untuk simpul"))
    federation.observe(liar)
    batch = twin.batch(base)
    feeds.extend(tx, batch, batch.checkpoint)
    batch = federation.simpul.batch(tx.feed(simpul).size)  # type: ignore[union-attr]
    feeds.extend(tx, batch, batch.checkpoint)
    order.advance(tx, 100)
    own = pair.ours.forums[1].feed
    assert Governance(tx.affairs(simpul), simpul).head.waiting_reason == Reason.OBSERVATION_CONTRADICTED
    assert vigil.follow_observed(tx, own) is None, "nobody has shown yet that it is the forum that lies"
    feeds.quarantine(tx, liar.feed, Reason.FORKED)
    assert vigil.follow_observed(tx, own) == liar.feed
    batch = liar.batch(base)
    feeds.extend(tx, batch, batch.checkpoint)
    order.advance(tx, 100)
    assert tx.judged(simpul) == tx.feed(simpul).size  # type: ignore[union-attr]
