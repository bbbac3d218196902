"""The SQL behind ``kad_protocol.store`` and ``kad_protocol.fold``: one transaction, in a store's thread.

Nothing here decides anything; it keeps what it is told and finds it again. Questions that people ask (lists, search) are in
``kad_node.store.queries``.
"""

from __future__ import annotations

import time as clock
from typing import TYPE_CHECKING, Any

from kad_node import stems
from kad_node.store.queries import Affairs, Queries
from kad_protocol import content as contents
from kad_protocol.audience import Standpoint
from kad_protocol.entry import parse_entry, time_of
from kad_protocol.errors import Reason, StorageError
from kad_protocol.fold import Problem, RecordHead
from kad_protocol.governance import Governance
from kad_protocol.names import FeedId
from kad_protocol.store import FeedState, StoredEntry
from kad_protocol.v1 import content_pb2, entry_pb2, records_pb2

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

__all__ = ["GOOD_SIZE", "SqliteTransaction", "micros_now"]

#: Kind of the local marks for feeds with two histories: how many entries were here, or were observed, before that was known.
GOOD_SIZE = "good-size"

_STATE = "origin, genesis, size, tail, frontier, root, checkpoint, signed_size, target, log_keys, role, authority_index, quarantine"


def micros_now() -> int:
    """This machine's clock, in microseconds since 1970 (UTC)."""
    return clock.time_ns() // 1000


def _state(row: tuple[Any, ...]) -> FeedState:
    return FeedState(FeedId.parse(row[0]), *row[1:])


class _Tiles:
    """Merkle tiles of one feed (``merkle.TileStore``)."""

    __slots__ = ("_base", "_connection")

    def __init__(self, connection: sqlite3.Connection, feed: int) -> None:
        self._connection = connection
        self._base = feed << 40

    def get(self, level: int, index: int) -> bytes | None:
        row = self._connection.execute("SELECT hashes FROM tile WHERE pos = ?", (self._base | level << 37 | index,)).fetchone()
        return None if row is None else row[0]

    def put(self, level: int, index: int, data: bytes) -> None:
        self._connection.execute(
            "INSERT INTO tile (pos, hashes) VALUES (?, ?) ON CONFLICT (pos) DO UPDATE SET hashes = excluded.hashes",
            (self._base | level << 37 | index, data),
        )


_SHOWN = (records_pb2.RECORD_STATE_PUBLISHED, records_pb2.RECORD_STATE_CONTENT_MISSING, records_pb2.RECORD_STATE_WITHHELD)


class SqliteTransaction(Queries):
    """See ``LogTransaction`` and ``FoldTransaction`` for what the methods promise."""

    def __init__(self, connection: sqlite3.Connection, standpoint: Standpoint | None = None) -> None:
        super().__init__(connection, standpoint or Standpoint())
        #: Feeds whose signed size changed or that are new; told to listeners after the commit.
        self.touched: set[FeedId] = set()
        #: A member's standing changed in this transaction.
        self.standings_changed = False
        self._ids: dict[FeedId, int] = {}
        #: What ``waits_for_review`` said; good until something changes in the affairs of a federation.
        self._waits: dict[tuple[FeedId, int], bool] = {}

    def rolled_back(self) -> None:
        """A unit of this transaction was undone; forget what was remembered of it."""
        self._ids.clear()
        self._waits.clear()

    # The log.

    def _id(self, feed: FeedId) -> int:
        number = self._find_id(feed)
        if number is None:
            raise StorageError(Reason.FEED_NOT_FOUND, f"the feed {feed} is not in the store", feed=feed)
        return number

    def _find_id(self, feed: FeedId) -> int | None:
        number = self._ids.get(feed)
        if number is None:
            row = self._connection.execute("SELECT id FROM feed WHERE origin = ?", (feed.origin,)).fetchone()
            if row is None:
                return None
            number = self._ids[feed] = row[0]
        return number

    def feed(self, feed: FeedId) -> FeedState | None:
        row = self._connection.execute(f"SELECT {_STATE} FROM feed WHERE origin = ?", (feed.origin,)).fetchone()
        return None if row is None else _state(row)

    def feeds(self) -> list[FeedState]:
        return [_state(row) for row in self._connection.execute(f"SELECT {_STATE} FROM feed ORDER BY origin")]

    def save_feed(self, state: FeedState) -> None:
        values = (
            state.genesis,
            state.size,
            state.tail,
            state.frontier,
            state.root,
            state.checkpoint,
            state.signed_size,
            state.target,
            state.log_keys,
            state.role,
            state.authority_index,
            state.quarantine,
        )
        changed = self._connection.execute(
            "UPDATE feed SET genesis = ?, size = ?, tail = ?, frontier = ?, root = ?, checkpoint = ?, signed_size = ?, target = ?,"
            " log_keys = ?, role = ?, authority_index = ?, quarantine = ? WHERE origin = ?",
            (*values, state.feed.origin),
        ).rowcount
        if not changed:
            feed = state.feed
            self._connection.execute(
                f"INSERT INTO feed ({_STATE}, federation, forum, epoch) VALUES ({', '.join('?' * 16)})",
                (feed.origin, *values, feed.federation, feed.forum, feed.epoch),
            )
        self.touched.add(state.feed)

    def insert_entries(self, feed: FeedId, first: int, entries: Sequence[bytes], contents: Sequence[bytes]) -> None:
        position = self._id(feed) << 40 | first
        if first and self._connection.execute("SELECT 1 FROM entry WHERE pos = ?", (position - 1,)).fetchone() is None:
            raise StorageError(Reason.POSITION_MISMATCH, f"{feed}: entry {first} would leave a gap", feed=feed)
        self._connection.executemany(
            "INSERT INTO entry (pos, body, content) VALUES (?, ?, ?)",
            ((position + i, body, content) for i, (body, content) in enumerate(zip(entries, contents, strict=True))),
        )

    def entries(self, feed: FeedId, after: int, limit: int, max_bytes: int) -> list[StoredEntry]:
        base = self._id(feed) << 40
        found: list[StoredEntry] = []
        used = 0
        rows = self._connection.execute(
            "SELECT pos, body, content FROM entry WHERE pos >= ? AND pos < ? ORDER BY pos LIMIT ?",
            (base + after, base + (1 << 40), limit),
        )
        for position, body, content in rows:
            index = position - base
            if index != after + len(found):
                raise StorageError(Reason.STORE_CORRUPT, f"{feed}: entry {after + len(found)} is missing", feed=feed)
            used += len(body) + len(content)
            if found and used > max_bytes:
                break
            found.append(StoredEntry(index, body, content))
        rows.close()
        return found

    def set_content(self, feed: FeedId, index: int, content: bytes) -> None:
        self._connection.execute("UPDATE entry SET content = ? WHERE pos = ?", (content, self._id(feed) << 40 | index))

    def tiles(self, feed: FeedId) -> _Tiles:
        return _Tiles(self._connection, self._id(feed))

    def pin_checkpoint(self, feed: FeedId, size: int, note: bytes) -> None:
        self._connection.execute("INSERT INTO pinned_checkpoint (feed, size, note) VALUES (?, ?, ?)", (self._id(feed), size, note))

    def pinned_checkpoint(self, feed: FeedId, after: int) -> tuple[int, bytes] | None:
        row: tuple[int, bytes] | None = self._connection.execute(
            "SELECT size, note FROM pinned_checkpoint WHERE feed = ? AND size > ? ORDER BY size LIMIT 1", (self._id(feed), after)
        ).fetchone()
        return row

    def drop_from(self, feed: FeedId, size: int) -> None:
        number = self._id(feed)
        base, end = number << 40, (number + 1) << 40
        self._connection.execute("DELETE FROM entry WHERE pos >= ? AND pos < ?", (base + size, end))
        self._connection.execute("DELETE FROM tile WHERE pos >= ? AND pos < ?", (base, end))
        for table in ("pinned_checkpoint", "witnessed", "cosignature"):
            self._connection.execute(f"DELETE FROM {table} WHERE feed = ? AND size > ?", (number, size))
        self._connection.execute("DELETE FROM authority_entry WHERE feed = ? AND idx >= ?", (number, size))

    def refold(self, feed: FeedId) -> None:
        """Throw away what was folded from a forum's own feed, so that it is folded anew."""
        number = self._id(feed)
        rids = [rid for (rid,) in self._connection.execute("SELECT rid FROM record WHERE feed = ? AND source = 0", (number,))]
        for rid in rids:
            self._index_terms(rid, None)
            for table in ("version", "event", "record"):
                self._connection.execute(f"DELETE FROM {table} WHERE rid = ?", (rid,))
        self._connection.execute("DELETE FROM profile WHERE feed = ?", (number,))
        self._connection.execute("DELETE FROM problem WHERE feed = ?", (number,))
        self._connection.execute("UPDATE feed SET folded = 0 WHERE id = ?", (number,))
        self.touched.add(feed)

    def add_evidence(self, feed: FeedId, evidence: bytes) -> None:
        self._connection.execute("INSERT INTO evidence (feed, time, data) VALUES (?, ?, ?)", (self._id(feed), micros_now(), evidence))

    def put_witnessed(self, feed: FeedId, size: int, note: bytes) -> None:
        """Keep a checkpoint that is put to the witnesses."""
        self._connection.execute("INSERT OR IGNORE INTO witnessed (feed, size, note) VALUES (?, ?, ?)", (self._id(feed), size, note))

    def put_cosignature(self, feed: FeedId, size: int, witness: str, time: int, lines: bytes) -> bool:
        """Keep a verified cosignature; False if that witness's is here already."""
        cursor = self._connection.execute(
            "INSERT OR IGNORE INTO cosignature (feed, size, witness, time, lines) VALUES (?, ?, ?, ?, ?)",
            (self._id(feed), size, witness, time, lines),
        )
        return cursor.rowcount == 1

    def forget_witnessed(self, feed: FeedId, below: int) -> None:
        """Drop what a larger confirmed checkpoint has made needless."""
        for table in ("witnessed", "cosignature"):
            self._connection.execute(f"DELETE FROM {table} WHERE feed = ? AND size < ?", (self._id(feed), below))

    # What the log says.

    def unfolded(self) -> list[FeedId]:
        rows = self._connection.execute(
            "SELECT f.origin FROM feed f WHERE f.folded < f.size AND (f.epoch = 0 OR f.role = ?1"
            " OR EXISTS (SELECT 1 FROM succession s WHERE s.heir = f.id)"
            " OR NOT EXISTS (SELECT 1 FROM feed k WHERE k.role = ?1 AND k.federation = f.federation)) ORDER BY f.role = ?1 DESC, f.id",
            (entry_pb2.MEMBER_ROLE_SIMPUL,),
        )
        return [FeedId.parse(origin) for (origin,) in rows]

    def folded(self, feed: FeedId) -> int:
        row = self._connection.execute("SELECT folded FROM feed WHERE origin = ?", (feed.origin,)).fetchone()
        return 0 if row is None else int(row[0])

    def set_folded(self, feed: FeedId, size: int) -> None:
        self._connection.execute("UPDATE feed SET folded = ? WHERE origin = ?", (size, feed.origin))
        self.touched.add(feed)

    def record_head(self, feed: FeedId, record: str, simpul: FeedId | None = None) -> RecordHead | None:
        row = self._connection.execute(
            "SELECT MAX(v.version), r.kind, r.state FROM record r JOIN version v ON v.rid = r.rid AND v.idx IS NOT NULL"
            " WHERE r.feed = ? AND r.ulid = ? AND r.source = ?",
            (self._id(feed), record, self._source(simpul)),
        ).fetchone()
        return None if row[0] is None else RecordHead(row[0], row[1], row[2] == records_pb2.RECORD_STATE_RETRACTED)

    def put_version(
        self,
        feed: FeedId,
        index: int,
        version: entry_pb2.RecordVersion,
        time: int,
        content: content_pb2.Content | None,
        *,
        withheld: bool = False,
    ) -> None:
        self._put_version(feed, index, version, time, content, 0, withheld=withheld)

    def put_hosted_version(
        self,
        owner: FeedId,
        simpul: FeedId,
        index: int,
        version: entry_pb2.RecordVersion,
        time: int,
        content: content_pb2.Content | None,
        *,
        withheld: bool = False,
    ) -> None:
        self._put_version(owner, index, version, time, content, self._id(simpul), withheld=withheld)

    def _put_version(
        self,
        feed: FeedId,
        index: int,
        version: entry_pb2.RecordVersion,
        time: int,
        content: content_pb2.Content | None,
        source: int,
        *,
        withheld: bool,
    ) -> None:
        state = records_pb2.RECORD_STATE_CONTENT_MISSING if content is None else records_pb2.RECORD_STATE_PUBLISHED
        if withheld:
            state = records_pb2.RECORD_STATE_WITHHELD
        if not source and self.waits_for_review(feed, version.kind):
            state = records_pb2.RECORD_STATE_SUBMITTED
        rid = self._save_version(feed, version, time, content, state, index=index, source=source)
        first = version.version == 1
        self._event(rid, version.version, records_pb2.RECORD_EVENT_TYPE_CREATED if first else records_pb2.RECORD_EVENT_TYPE_REVISED)

    def _source(self, simpul: FeedId | None) -> int:
        return 0 if simpul is None else self._id(simpul)

    def put_queued(self, feed: FeedId, outbox: int, version: entry_pb2.RecordVersion, time: int, content: content_pb2.Content) -> None:
        """A version waits in the outbox: shown on this node as QUEUED, unknown to others."""
        self._save_version(feed, version, time, content, records_pb2.RECORD_STATE_QUEUED, outbox=outbox)

    def _save_version(
        self,
        feed: FeedId,
        version: entry_pb2.RecordVersion,
        time: int,
        content: content_pb2.Content | None,
        state: int,
        *,
        index: int | None = None,
        outbox: int | None = None,
        source: int = 0,
    ) -> int:
        number = self._id(feed)
        start, end = _start_and_end(content)
        row = self._connection.execute(
            "SELECT rid FROM record WHERE feed = ? AND ulid = ? AND source = ?", (number, version.record, source)
        ).fetchone()
        if row is None:
            rid = int(
                self._connection.execute(
                    "INSERT INTO record (feed, ulid, version, kind, audience, state, created, updated, start_time, end_time, source)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(number, version.record, version.version, version.kind, version.audience, state),
                        *(time, time, start, end, source),
                    ),
                ).lastrowid
                or 0
            )
            self._index_terms(rid, content)
        else:
            rid = row[0]
            self._show_version(rid, version, time, content, state)
        self._connection.execute(
            "INSERT OR REPLACE INTO version (rid, version, idx, outbox, audience, updated) VALUES (?, ?, ?, ?, ?, ?)",
            (rid, version.version, index, outbox, version.audience, time),
        )
        return rid

    def _show_version(self, rid: int, version: entry_pb2.RecordVersion, time: int, content: content_pb2.Content | None, state: int) -> None:
        """A version is what the record says now."""
        self._connection.execute(
            "UPDATE record SET version = ?, audience = ?, state = ?, updated = ?, start_time = ?, end_time = ? WHERE rid = ?",
            (version.version, version.audience, state, time, *_start_and_end(content), rid),
        )
        self._index_terms(rid, content)

    def put_content(
        self, feed: FeedId, index: int, version: entry_pb2.RecordVersion, content: content_pb2.Content, simpul: FeedId | None = None
    ) -> None:
        source = self._source(simpul)
        row = self._connection.execute(
            "SELECT r.rid, r.version, r.state, v.updated FROM record r JOIN version v ON v.rid = r.rid AND v.version = ?"
            " WHERE IFNULL(v.feed, r.feed) = ? AND r.ulid = ? AND v.idx = ? AND r.source = ?",
            (version.version, self._id(feed), version.record, index, source),
        ).fetchone()
        if row is None:
            return
        rid, newest, state, updated = row
        if newest == version.version and state != records_pb2.RECORD_STATE_RETRACTED:
            # Under review it stays as hidden as it was.
            shown = records_pb2.RECORD_STATE_PUBLISHED if state == records_pb2.RECORD_STATE_CONTENT_MISSING else state
            self._show_version(rid, version, updated, content, shown)
        self._event(rid, version.version, records_pb2.RECORD_EVENT_TYPE_CONTENT_ARRIVED)

    def put_retraction(self, feed: FeedId, index: int, retraction: entry_pb2.RecordRetraction, time: int, reason: str) -> None:  # noqa: ARG002 - the log has the index
        for holder in dict.fromkeys((feed, self.heir(feed))):
            row = self._connection.execute(
                "SELECT rid, version, state FROM record WHERE feed = ? AND ulid = ? AND source = 0", (self._id(holder), retraction.record)
            ).fetchone()
            if row is not None:
                self._retract(reason, time, *row)
                return

    def withdraw_hosted(self, owner: FeedId, simpul: FeedId, record: str, reason: str, time: int) -> None:
        row = self._connection.execute(
            "SELECT rid, version, state FROM record WHERE feed = ? AND ulid = ? AND source = ?", (self._id(owner), record, self._id(simpul))
        ).fetchone()
        if row is not None:
            self._retract(reason, time, *row)

    def forget_hosted(self, owner: FeedId, simpul: FeedId, record: str, version: int) -> None:
        self._connection.execute(
            "DELETE FROM version WHERE version > ? AND rid IN (SELECT rid FROM record WHERE feed = ? AND ulid = ? AND source = ?)",
            (version, self._id(owner), record, self._id(simpul)),
        )
        self._connection.execute(
            "UPDATE record SET retraction = '' WHERE feed = ? AND ulid = ? AND source = ?", (self._id(owner), record, self._id(simpul))
        )

    def _retract(self, reason: str, time: int, rid: int, version: int, state: int) -> None:
        self._connection.execute(
            "UPDATE record SET state = ?, retraction = ?, updated = ? WHERE rid = ?",
            (records_pb2.RECORD_STATE_RETRACTED, reason, time, rid),
        )
        self._index_terms(rid, None)
        if state != records_pb2.RECORD_STATE_RETRACTED:
            self._event(rid, version, records_pb2.RECORD_EVENT_TYPE_RETRACTED)

    def _index_terms(self, rid: int, content: content_pb2.Content | None) -> None:
        self._connection.execute("DELETE FROM term WHERE rid = ?", (rid,))
        self._connection.execute("DELETE FROM record_text WHERE rowid = ?", (rid,))
        if content is None:
            return
        terms = {("sector", str(int(sector))) for sector in content.sectors}
        terms |= {("tag", tag.casefold()) for tag in content.tags}
        for region in content.regions:
            parts = region.code.split(".")
            terms |= {("region", ".".join(parts[: n + 1])) for n in range(len(parts))}
        self._connection.executemany("INSERT INTO term (field, value, rid) VALUES (?, ?, ?)", [(*term, rid) for term in terms])
        text = text_of(content)
        self._connection.execute(
            "INSERT INTO record_text (rowid, stems, words) VALUES (?, ?, ?)", (rid, " ".join(stems.index_terms(text)), text)
        )

    def _event(self, rid: int, version: int, kind: int) -> None:
        self._connection.execute("INSERT INTO event (rid, version, type, time) VALUES (?, ?, ?, ?)", (rid, version, kind, micros_now()))

    def put_profile(self, feed: FeedId, index: int, profile: content_pb2.ForumProfile) -> None:
        self._connection.execute(
            "INSERT INTO profile (feed, idx, data) VALUES (?, ?, ?) ON CONFLICT (feed) DO UPDATE"
            " SET idx = excluded.idx, data = excluded.data WHERE excluded.idx >= profile.idx",
            (self._id(feed), index, profile.SerializeToString()),
        )

    def put_observation(self, observer: FeedId, index: int, feed: FeedId, size: int, root: bytes) -> None:
        number = self._find_id(feed)
        if number is not None:
            self._connection.execute(
                "INSERT OR IGNORE INTO observation (feed, size, observer, idx, root) VALUES (?, ?, ?, ?, ?)",
                (number, size, self._id(observer), index, root),
            )

    # Authority.

    def version_audience(self, feed: FeedId, record: str, version: int, simpul: FeedId | None = None) -> int:
        # What an earlier epoch published is a record of the newest one.
        for holder in dict.fromkeys((feed, self.heir(feed))):
            row = self._connection.execute(
                "SELECT v.audience FROM record r JOIN version v ON v.rid = r.rid AND v.version = ? AND v.idx IS NOT NULL"
                " WHERE r.feed = ? AND r.ulid = ? AND r.source = ?",
                (version, self._id(holder), record, self._source(simpul)),
            ).fetchone()
            if row is not None:
                return int(row[0])
        return 0

    def put_authority_entry(self, feed: FeedId, index: int) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO authority_entry (feed, idx, held) VALUES (?, ?, ?)", (self._id(feed), index, micros_now())
        )

    def authority_entries(self, feed: FeedId, after: int, before: int) -> list[int]:
        rows = self._connection.execute(
            "SELECT idx FROM authority_entry WHERE feed = ? AND idx >= ? AND idx < ? ORDER BY idx", (self._id(feed), after, before)
        ).fetchall()
        # The genesis is one too, and holds the keys with which a member confirms.
        return sorted({index for (index,) in rows})

    def unjudged(self) -> list[FeedId]:
        rows = self._connection.execute(
            "SELECT origin FROM feed WHERE judged < folded AND role = ? ORDER BY id", (entry_pb2.MEMBER_ROLE_SIMPUL,)
        )
        return [FeedId.parse(origin) for (origin,) in rows]

    def recognised(self, simpul: FeedId) -> bool:
        return self.membership(simpul) == entry_pb2.MEMBERSHIP_STATE_ACTIVE

    def feed_count(self, federation: str) -> int:
        return int(self._connection.execute("SELECT COUNT(*) FROM feed WHERE federation = ?", (federation,)).fetchone()[0])

    def judged(self, simpul: FeedId) -> int:
        row = self._connection.execute("SELECT judged FROM feed WHERE origin = ?", (simpul.origin,)).fetchone()
        return 0 if row is None else int(row[0])

    def set_judged(self, simpul: FeedId, size: int) -> None:
        self._connection.execute("UPDATE feed SET judged = ? WHERE origin = ?", (size, simpul.origin))
        self.touched.add(simpul)

    def affairs(self, simpul: FeedId) -> Affairs:
        return Affairs(self._connection, self._find_id(simpul) or 0, self._waits.clear)

    def waits_for_review(self, feed: FeedId, kind: int) -> bool:
        # Asked for each record that arrives, and the same for all of one forum and kind.
        found = self._waits.get((feed, kind))
        if found is None:
            found = self._waits[feed, kind] = self._waits_for_review(feed, kind)
        return found

    def _waits_for_review(self, feed: FeedId, kind: int) -> bool:
        # From the member to its simpul; not from the affairs, of which there are as many as acts.
        rows = self._connection.execute(
            "SELECT s.origin FROM member m JOIN feed s ON s.id = m.simpul WHERE m.feed = ? AND s.federation = ?",
            (self._find_id(feed), feed.federation),
        ).fetchall()
        for (origin,) in rows:
            governance = Governance(self.affairs(FeedId.parse(origin)), FeedId.parse(origin))
            if governance.curated(governance.name_of(feed), kind):
                return True
        return False

    def put_standing(self, simpul: FeedId, index: int, feed: FeedId, state: int, category: int) -> None:
        if self._find_id(feed) is None:
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO member (feed, simpul, idx, state, category) VALUES (?, ?, ?, ?, ?)",
            (self._id(feed), self._id(simpul), index, state, category),
        )
        self.touched.add(feed)
        self.standings_changed = True
        self._waits.clear()

    def put_submission(self, feed: FeedId, record: str, version: int, *, waits: bool) -> None:
        found = self._newest(feed, record, version)
        if found is None:
            return
        rid, state = found
        if waits and state in _SHOWN:
            self._set_state(rid, records_pb2.RECORD_STATE_SUBMITTED)
        elif not waits and state == records_pb2.RECORD_STATE_SUBMITTED:
            self._reveal(feed, rid)

    def put_review(self, feed: FeedId, record: str, version: int, *, approved: bool) -> None:
        found = self._newest(feed, record, version)
        if found is None or found[1] not in (records_pb2.RECORD_STATE_SUBMITTED, records_pb2.RECORD_STATE_REJECTED):
            return
        if approved:
            self._reveal(feed, found[0])
        else:
            self._set_state(found[0], records_pb2.RECORD_STATE_REJECTED)
            self._event(found[0], version, records_pb2.RECORD_EVENT_TYPE_REVIEWED)

    def put_unreviewed(self, feed: FeedId, record: str, version: int) -> None:
        found = self._newest(feed, record, version)
        if found is not None and found[1] in (*_SHOWN, records_pb2.RECORD_STATE_REJECTED):
            self._set_state(found[0], records_pb2.RECORD_STATE_SUBMITTED)
            self._event(found[0], version, records_pb2.RECORD_EVENT_TYPE_REVIEWED)

    def _newest(self, feed: FeedId, record: str, version: int) -> tuple[int, int] | None:
        """Row and state of a record of a forum, if that is its newest version here."""
        row: tuple[int, int] | None = self._connection.execute(
            "SELECT rid, state FROM record WHERE feed = ? AND ulid = ? AND source = 0 AND version = ?", (self._id(feed), record, version)
        ).fetchone()
        return row

    def release_submissions(self, feed: FeedId, kinds: Collection[int]) -> None:
        if self._find_id(feed) is None:
            return
        rows = self._connection.execute(
            "SELECT rid, kind FROM record WHERE feed = ? AND state = ?", (self._id(feed), records_pb2.RECORD_STATE_SUBMITTED)
        ).fetchall()
        for rid, kind in rows:
            if kind in kinds:
                self._reveal(feed, rid)

    def _absent(self, feed: FeedId, audience: int) -> int:
        """The state of a record without its content: it is still to come, or is for another federation only."""
        withheld = self.standpoint.is_foreign(feed) and audience != content_pb2.AUDIENCE_PUBLIC
        return records_pb2.RECORD_STATE_WITHHELD if withheld else records_pb2.RECORD_STATE_CONTENT_MISSING

    def _reveal(self, feed: FeedId, rid: int) -> None:
        """A submission is shown to everybody from now on; without its content it waits for that as any other would."""
        version, audience, held = self._connection.execute(
            "SELECT r.version, v.audience, (SELECT LENGTH(e.content) FROM entry e WHERE e.pos = (IFNULL(v.feed, r.feed) << 40) + v.idx)"
            " FROM record r JOIN version v ON v.rid = r.rid AND v.version = r.version WHERE r.rid = ?",
            (rid,),
        ).fetchone()
        self._set_state(rid, records_pb2.RECORD_STATE_PUBLISHED if held else self._absent(feed, audience))
        self._event(rid, version, records_pb2.RECORD_EVENT_TYPE_REVIEWED)

    def _set_state(self, rid: int, state: int) -> None:
        self._connection.execute("UPDATE record SET state = ? WHERE rid = ?", (state, rid))

    # Epochs.

    def put_admission(self, simpul: FeedId, index: int, feed: FeedId) -> None:
        self._connection.execute(
            "INSERT OR IGNORE INTO admission (feed, simpul, idx) VALUES (?, ?, ?)", (self._id(feed), self._id(simpul), index)
        )

    def supersede(self, simpul: FeedId, feed: FeedId, good_size: int, heir: FeedId, time: int) -> None:
        old, new = self._id(feed), self._id(heir)
        self._undo_beyond(feed, good_size, Governance(self.affairs(simpul), simpul))
        self._connection.execute("UPDATE feed SET folded = size WHERE id = ?", (old,))
        self._connection.execute(
            "INSERT OR REPLACE INTO succession (feed, good, heir, time) VALUES (?, ?, ?, ?)", (old, good_size, new, time)
        )
        # What stays good goes over; what is void stays behind, with the reason why.
        kept = (
            "SELECT rid FROM record r WHERE r.feed = ? AND (r.source > 0 OR EXISTS"
            " (SELECT 1 FROM version v WHERE v.rid = r.rid AND (v.feed IS NOT NULL OR v.idx IS NULL OR v.idx < ?)))"
        )
        rids = self._connection.execute(kept, (old, good_size)).fetchall()
        self._connection.executemany(
            "UPDATE version SET feed = ? WHERE rid = ? AND feed IS NULL AND idx IS NOT NULL"
            " AND (SELECT source FROM record r WHERE r.rid = version.rid) = 0",
            ((old, rid) for (rid,) in rids),
        )
        self._connection.executemany("UPDATE OR IGNORE record SET feed = ? WHERE rid = ?", ((new, rid) for (rid,) in rids))
        self._connection.execute(
            "INSERT OR IGNORE INTO profile (feed, idx, data) SELECT ?, -1, data FROM profile WHERE feed = ?", (new, old)
        )
        self.touched |= {feed, heir}
        self.standings_changed = True

    def _undo_beyond(self, feed: FeedId, size: int, governance: Governance) -> None:
        """Undo what the entries from ``size`` on did; each gets a problem that says so."""
        number, held = self._id(feed), self.folded(feed)
        touched: dict[str, None] = {}
        position = size
        while position < held:
            for stored in self.entries(feed, position, 256, 4 << 20):
                position = stored.index + 1
                entry, problem = parse_entry(stored.body), self.problem(feed, stored.index)
                if entry is None or (problem is not None and problem.reason != Reason.CONTENT_MISSING):
                    continue
                body = entry.WhichOneof("body")
                if body in ("record_version", "record_retraction"):
                    touched[getattr(entry, body).record] = None
        for record in touched:
            self._undo_record(feed, record, size, governance)
        (profile,) = self._connection.execute("SELECT IFNULL(MAX(idx), -1) FROM profile WHERE feed = ?", (number,)).fetchone()
        if profile >= size:
            self._undo_profile(feed, size)
        self._connection.execute(
            "INSERT OR REPLACE INTO problem (feed, idx, reason, message, time, waiting)"
            " SELECT ?1, pos - (?1 << 40), ?2, ?3, ?4, 0 FROM entry WHERE pos >= (?1 << 40) + ?5 AND pos < (?1 + 1) << 40",
            (number, Reason.EPOCH_SUPERSEDED.value, "void: beyond the last good entry of an epoch that was given up", micros_now(), size),
        )

    def _undo_record(self, feed: FeedId, record: str, size: int, governance: Governance) -> None:
        row = self._connection.execute(
            "SELECT rid, version, state FROM record WHERE feed = ? AND ulid = ? AND source = 0", (self._id(feed), record)
        ).fetchone()
        if row is None:
            return
        rid, _, before = row
        left = self._connection.execute(
            "SELECT version, idx, feed FROM version WHERE rid = ? AND (feed IS NOT NULL OR idx IS NULL OR idx < ?)"
            " ORDER BY version DESC LIMIT 1",
            (rid, size),
        ).fetchone()
        if left is None:
            self._retract(Reason.EPOCH_SUPERSEDED.value, micros_now(), *row)
            return
        self._connection.execute("DELETE FROM version WHERE rid = ? AND feed IS NULL AND idx >= ?", (rid, size))
        version, index, holder = left
        if index is None:
            return  # A version that waits in the outbox is what this node shows.
        origin = feed
        if holder is not None:
            origin = FeedId.parse(self._connection.execute("SELECT origin FROM feed WHERE id = ?", (holder,)).fetchone()[0])
        stored = self.entries(origin, index, 1, 1)[0]
        entry = parse_entry(stored.body)
        if entry is None:
            raise StorageError(Reason.STORE_CORRUPT, f"{origin}: entry {index} does not read back", feed=origin)
        content = contents.parse_content(contents.split(stored.content)[1]) if stored.content else None
        state = self._absent(feed, entry.record_version.audience) if content is None else records_pb2.RECORD_STATE_PUBLISHED
        waiting = governance.submission(feed, record)
        if waiting is not None and waiting[0] == version:
            down = governance.turned_down(feed, record)
            state = records_pb2.RECORD_STATE_REJECTED if down else records_pb2.RECORD_STATE_SUBMITTED
        self._show_version(rid, entry.record_version, time_of(entry), content, state)
        self._connection.execute("UPDATE record SET retraction = '' WHERE rid = ?", (rid,))
        back = (
            records_pb2.RECORD_EVENT_TYPE_CREATED if before == records_pb2.RECORD_STATE_RETRACTED else records_pb2.RECORD_EVENT_TYPE_REVISED
        )
        self._event(rid, version, back)

    def _undo_profile(self, feed: FeedId, size: int) -> None:
        self._connection.execute("DELETE FROM profile WHERE feed = ?", (self._id(feed),))
        position = 0
        while position < size:
            for stored in self.entries(feed, position, min(256, size - position), 4 << 20):
                position = stored.index + 1
                entry = parse_entry(stored.body)
                if entry is not None and entry.HasField("profile_version") and stored.content and self.problem(feed, stored.index) is None:
                    self.put_profile(feed, stored.index, content_pb2.ForumProfile.FromString(contents.split(stored.content)[1]))

    def forget_feed(self, feed: FeedId) -> None:
        """Throw away a copy, so that it is fetched anew: what lies here is another history than the one that everybody else holds."""
        state, number = self.feed(feed), self._id(feed)
        if state is None:
            return
        for table in ("entry", "tile"):
            self._connection.execute(f"DELETE FROM {table} WHERE pos >= ? AND pos < ?", (number << 40, (number + 1) << 40))
        for table in ("pinned_checkpoint", "authority_entry"):
            self._connection.execute(f"DELETE FROM {table} WHERE feed = ?", (number,))
        self.save_feed(FeedState(feed, state.genesis))

    def good_size(self, feed: FeedId) -> int | None:
        kept = self.local(GOOD_SIZE, feed.origin)
        return None if kept is None else int(kept)

    def put_problem(self, feed: FeedId, index: int, problem: Problem) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO problem (feed, idx, reason, message, time, waiting) VALUES (?, ?, ?, ?, ?, ?)",
            (self._id(feed), index, problem.reason.value, problem.message[:500], micros_now(), problem.waiting),
        )

    def clear_problem(self, feed: FeedId, index: int) -> None:
        self._connection.execute("DELETE FROM problem WHERE feed = ? AND idx = ?", (self._id(feed), index))

    def forget_fold(self) -> None:
        """Throw away all that was folded, so that it is folded anew. Queued versions are put back by their owner."""
        tables = ("member", "observation", "profile", "record", "version", "term", "record_text", "event", "problem", "affair")
        for table in (*tables, "succession", "admission"):
            self._connection.execute(f"DELETE FROM {table}")
        self._connection.execute("UPDATE feed SET folded = 0, judged = 0")
        self._waits.clear()

    # The outbox and other local affairs.

    def queue(self, record: str, entry: bytes, content: bytes) -> int:
        """Put a change at the end of the outbox; returns its number."""
        cursor = self._connection.execute("INSERT INTO outbox (record, entry, content) VALUES (?, ?, ?)", (record, entry, content))
        return int(cursor.lastrowid or 0)

    def queued(self) -> list[tuple[int, bytes, bytes]]:
        """The outbox, oldest first: number, entry, content."""
        return self._connection.execute("SELECT seq, entry, content FROM outbox ORDER BY seq").fetchall()

    def queued_count(self) -> int:
        """How many changes wait."""
        return int(self._connection.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])

    def unqueue(self, seq: int) -> None:
        """A change left the outbox, for the feed or for the list of problems."""
        self._connection.execute("DELETE FROM outbox WHERE seq = ?", (seq,))
        rids = self._connection.execute("SELECT rid, version FROM version WHERE outbox = ?", (seq,)).fetchall()
        for rid, version in rids:
            self._connection.execute("DELETE FROM version WHERE rid = ? AND version = ?", (rid, version))
            left = self._connection.execute("SELECT MAX(version) FROM version WHERE rid = ?", (rid,)).fetchone()[0]
            if left is None:
                self._index_terms(rid, None)
                self._connection.execute("DELETE FROM record WHERE rid = ?", (rid,))
            else:
                self._connection.execute(
                    "UPDATE record SET version = ?, state = ? WHERE rid = ?", (left, records_pb2.RECORD_STATE_PUBLISHED, rid)
                )

    def put_local(self, kind: str, key: str, value: bytes) -> None:
        """Keep something that only this node needs."""
        self._connection.execute(
            "INSERT OR REPLACE INTO local (kind, key, value, time) VALUES (?, ?, ?, ?)", (kind, key, value, micros_now())
        )

    def delete_local(self, kind: str, key: str) -> None:
        """Forget it."""
        self._connection.execute("DELETE FROM local WHERE kind = ? AND key = ?", (kind, key))

    def expire_local(self, kind: str, before: int) -> None:
        """Forget what is older than ``before`` (microseconds since 1970)."""
        self._connection.execute("DELETE FROM local WHERE kind = ? AND time < ?", (kind, before))

    def count_refusal(self, reason: str, times: int = 1) -> None:
        """Something was refused."""
        self._connection.execute(
            "INSERT INTO refusal (reason, count) VALUES (?, ?) ON CONFLICT (reason) DO UPDATE SET count = count + excluded.count",
            (reason, times),
        )

    def forget_meta(self, key: str) -> None:
        """Forget a fact about this store."""
        self._connection.execute("DELETE FROM meta WHERE key = ?", (key,))

    def put_meta(self, key: str, value: bytes) -> None:
        """Keep a fact about this store."""
        self._connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def _start_and_end(content: content_pb2.Content | None) -> tuple[int | None, int | None]:
    """When an agenda item takes place, in microseconds since 1970."""
    if content is None or content.WhichOneof("kind") != "agenda_item":
        return None, None
    item = content.agenda_item
    start = item.start_time.ToMicroseconds() if item.HasField("start_time") else None
    return start, item.end_time.ToMicroseconds() if item.HasField("end_time") else start


def text_of(content: content_pb2.Content) -> str:
    """All text of a content that people may look for, as one string."""
    parts: list[str] = []
    _collect(content, parts)
    return "\n".join(parts)


_NOT_TEXT = frozenset({"time_zone", "language", "recurrence", "online_url", "record", "code", "website", "email"})


def _collect(message: Any, parts: list[str]) -> None:  # noqa: ANN401 - any message
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING and field.name not in _NOT_TEXT:
            parts.extend([value] if isinstance(value, str) else value)
        elif field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                _collect(part, parts)
