"""What feeds say: what takes effect, what does not and why, and that it does not depend on when contents arrive."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kad_node.store.memory import MemoryLog
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import order
from kad_protocol.entry import new_entry
from kad_protocol.errors import Reason
from kad_protocol.feed import Draft
from kad_protocol.names import FeedId, new_record_id
from kad_protocol.v1 import content_pb2, entry_pb2, records_pb2, replication_pb2
from tests.unit.feeds import FEED, Author, SqliteLog, draft

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED, MISSING, RETRACTED = (
    records_pb2.RECORD_STATE_PUBLISHED,
    records_pb2.RECORD_STATE_CONTENT_MISSING,
    records_pb2.RECORD_STATE_RETRACTED,
)


@pytest.fixture
def author() -> Author:
    return Author(MemoryLog())


def receive(folder: Path, author: Author, *, strip: bool = False) -> SqliteLog:
    """A copy of the author's feed, folded; ``strip`` leaves all contents behind."""
    tx = SqliteLog(folder / f"{new_record_id()}.sqlite3")
    feeds.pin(tx, author.feed, author.genesis)
    batch = replication_pb2.Batch()
    batch.CopyFrom(author.batch(0))
    if strip:
        batch.ClearField("contents")
    feeds.extend(tx, batch, batch.checkpoint)
    while order.advance(tx, 3) >= 3:
        pass
    return tx


def supply(tx: SqliteLog, author: Author) -> None:
    for stored in author.log.entries(author.feed, 0, 1000, 1 << 30):
        if stored.content:
            feeds.supply_content(tx, author.feed, stored.index, stored.content)
            order.content_arrived(tx, author.feed, stored.index)


def records(tx: SqliteLog) -> dict[str, tuple[int, int]]:
    rows = tx._connection.execute("SELECT ulid, version, state FROM record")
    return {record: (version, state) for record, version, state in rows}


def problems(tx: Any) -> dict[int, tuple[Reason, bool]]:
    return {row.index: (row.problem.reason, row.problem.waiting) for row in tx.problems(100)}


def retraction(record: str, version: int) -> Draft:
    blob = contents.new_blob(entry_pb2.RetractionNotice(reason="Digantikan").SerializeToString())
    entry = new_entry(1_700_000_000_000_000)
    part = entry.record_retraction
    part.record, part.version = record, version
    part.digest, part.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES
    return Draft(entry, blob)


def profile(name: str) -> Draft:
    blob = contents.new_blob(content_pb2.ForumProfile(name=name).SerializeToString())
    entry = new_entry(1_700_000_000_000_000)
    part = entry.profile_version
    part.version, part.digest, part.content_size = 1, contents.digest(blob), len(blob) - contents.SALT_BYTES
    return Draft(entry, blob)


def test_versions_and_a_retraction_take_effect(tmp_path: Path, author: Author) -> None:
    one, two = new_record_id(), new_record_id()
    author.write([draft("a", one), draft("b", two), draft("c", one, 2), retraction(two, 1)])
    tx = receive(tmp_path, author)
    assert records(tx) == {one: (2, PUBLISHED), two: (1, RETRACTED)}
    assert problems(tx) == {}
    assert tx.unfolded_count(FEED) == 0


def test_versions_out_of_order_have_no_effect(tmp_path: Path, author: Author) -> None:
    one = new_record_id()
    author.write([draft("a", one, 2), draft("b", one, 1), draft("c", one, 3), draft("d", one, 1), retraction(one, 2), draft("e", one, 2)])
    tx = receive(tmp_path, author)
    assert records(tx) == {one: (2, PUBLISHED)}
    assert problems(tx) == dict.fromkeys((1, 3, 4, 5), (Reason.VERSION_OUT_OF_ORDER, False))


def test_nothing_follows_a_retraction(tmp_path: Path, author: Author) -> None:
    one = new_record_id()
    author.write([draft("a", one), retraction(one, 1), draft("b", one, 2), retraction(one, 1)])
    tx = receive(tmp_path, author)
    assert records(tx) == {one: (1, RETRACTED)}
    assert problems(tx) == {3: (Reason.RECORD_RETRACTED, False), 4: (Reason.VERSION_OUT_OF_ORDER, False)}


def test_contents_that_make_no_sense(tmp_path: Path, author: Author) -> None:
    def odd(data: bytes) -> Draft:
        made = draft("x")
        blob = contents.new_blob(data)
        made.entry.record_version.digest = contents.digest(blob)
        made.entry.record_version.content_size = len(data)
        return Draft(made.entry, blob)

    other_kind = content_pb2.Content(title="x")
    other_kind.agenda_item.meeting_kind = 1
    author.write(
        [
            odd(b"\xff\xff"),
            odd(other_kind.SerializeToString()),
            odd(content_pb2.Content(best_practice={"problem": "x"}).SerializeToString()),
        ]
    )
    tx, late = receive(tmp_path, author), receive(tmp_path, author, strip=True)
    supply(late, author)
    # They count, and show nothing, whenever the content comes.
    assert list(records(tx).values()) == [(1, MISSING)] * 3
    assert (records(late), problems(late)) == (records(tx), problems(tx))
    assert problems(tx) == {
        1: (Reason.CONTENT_MALFORMED, False),
        2: (Reason.CONTENT_MALFORMED, False),
        3: (Reason.INVALID_FIELD, False),
    }


def test_an_audience_and_a_kind_of_later_versions_wait(tmp_path: Path, author: Author) -> None:
    secret = draft("x")
    secret.entry.record_version.audience = 77  # type: ignore[assignment]
    author.write([secret, Draft(new_entry(1))])
    tx = receive(tmp_path, author)
    assert records(tx) == {}
    assert problems(tx) == {1: (Reason.AUDIENCE_NOT_SUPPORTED, True), 2: (Reason.ENTRY_KIND_UNKNOWN, True)}


def test_a_forum_neither_admits_nor_observes(tmp_path: Path, author: Author) -> None:
    other = FeedId("uji.kad.internal", "lain")
    admits, observes = new_entry(1), new_entry(2)
    admits.membership.feed, admits.membership.genesis, admits.membership.state = other.origin, b"g" * 32, 1  # type: ignore[assignment]
    observes.observation.feed, observes.observation.size, observes.observation.root = other.origin, 1, b"r" * 32
    author.write([Draft(admits), Draft(observes)])
    tx = receive(tmp_path, author)
    assert tx.feed(other) is None
    assert tx.members() == []
    assert problems(tx) == {1: (Reason.ROLE_INSUFFICIENT, False), 2: (Reason.ROLE_INSUFFICIENT, False)}


def test_it_is_the_same_when_contents_arrive_late(tmp_path: Path, author: Author) -> None:
    one, two = new_record_id(), new_record_id()
    author.write([draft("a", one), draft("b", one, 2), draft("c", two), retraction(two, 1), profile("Kartamantul")])
    late, early = receive(tmp_path, author, strip=True), receive(tmp_path, author)
    assert records(late) == {one: (2, MISSING), two: (1, RETRACTED)}
    assert problems(late) == dict.fromkeys(range(1, 6), (Reason.CONTENT_MISSING, True))
    assert sorted(late.missing_contents(10)) == [(FEED, n) for n in range(1, 6)]
    supply(late, author)
    assert records(late) == records(early) == {one: (2, PUBLISHED), two: (1, RETRACTED)}
    assert problems(late) == problems(early) == {}
    assert late.member(FEED).profile == early.member(FEED).profile != b""


def test_folding_anew_gives_the_same(tmp_path: Path, author: Author) -> None:
    one = new_record_id()
    author.write([draft("a", one), draft("b", one, 3), draft("c"), draft("d", one, 2)])
    tx = receive(tmp_path, author)
    before = (records(tx), problems(tx))
    tx.forget_fold()
    assert records(tx) == {}
    order.advance(tx, 1000)
    assert (records(tx), problems(tx)) == before


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_is_kept_and_what_is_left_follows(tmp_path: Path, author: Author, limit: int) -> None:
    author.publish(4)
    tx = SqliteLog(tmp_path / "limit.sqlite3")
    feeds.pin(tx, FEED, author.genesis)
    batch = author.batch(0)
    feeds.extend(tx, batch, batch.checkpoint)
    done = [order.advance(tx, limit) for _ in range(6)]
    assert sum(done) == 5
    assert max(done) == limit
    assert done[-1] == 0
    assert len(records(tx)) == 4


def test_a_late_content_gives_no_effect_to_a_retraction_that_had_none(tmp_path: Path, author: Author) -> None:
    one = new_record_id()
    author.write([draft("a", one), draft("b", one, 2), retraction(one, 1)])
    late, early = receive(tmp_path, author, strip=True), receive(tmp_path, author)
    supply(late, author)
    assert records(early) == {one: (2, PUBLISHED)}
    assert records(late) == records(early)


def test_a_late_content_does_not_hide_another_problem(tmp_path: Path, author: Author) -> None:
    one = new_record_id()
    author.write([draft("a", one), draft("b", one, 3)])
    late = receive(tmp_path, author, strip=True)
    supply(late, author)
    assert problems(late) == {2: (Reason.VERSION_OUT_OF_ORDER, False)}


def test_a_time_that_cannot_be_is_a_problem_and_stops_nobody(tmp_path: Path, author: Author) -> None:
    content = content_pb2.Content(title="x")
    content.agenda_item.meeting_kind, content.agenda_item.time_zone = 1, "Asia/Jakarta"  # type: ignore[assignment]
    content.agenda_item.start_time.seconds = 9_000_000_000_000
    blob = contents.new_blob(content.SerializeToString())
    made = draft("x")
    part = made.entry.record_version
    part.kind, part.digest, part.content_size = contents.kind_of(content), contents.digest(blob), len(blob) - contents.SALT_BYTES
    author.write([Draft(made.entry, blob), draft("fine")])
    tx, late = receive(tmp_path, author), receive(tmp_path, author, strip=True)
    supply(late, author)
    assert list(problems(tx)) == list(problems(late)) == [1]
    assert [state for _, state in records(tx).values()] == [MISSING, PUBLISHED]
    assert records(late) == records(tx)


def test_a_record_id_that_is_none_has_no_effect(tmp_path: Path, author: Author) -> None:
    author.write([draft("x", "../..\x01/y")])
    tx = receive(tmp_path, author)
    assert records(tx) == {}
    assert list(problems(tx)) == [1]


def test_an_observation_that_cannot_be_is_a_problem_and_stops_nobody(tmp_path: Path, author: Author) -> None:
    entry = new_entry(1)
    entry.observation.feed, entry.observation.size, entry.observation.root = FEED.origin, 1 << 63, b"r" * 32
    author.write([Draft(entry)])
    tx = SqliteLog(tmp_path / "observation.sqlite3")
    feeds.pin(tx, FEED, author.genesis)
    batch = author.batch(0)
    feeds.extend(tx, batch, batch.checkpoint)
    tx.save_feed(replace(tx.feed(FEED), role=entry_pb2.MEMBER_ROLE_SIMPUL))
    order.advance(tx, 10)
    assert list(problems(tx)) == [1]
