"""Questions to the store: records by name, lists in pages, search, arrivals, counts. Read-only SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_protocol.errors import NotFoundError, Reason
from kad_protocol.fold import Problem
from kad_protocol.names import MAX_EPOCH, FeedId, RecordName, parse_member_name
from kad_protocol.v1 import entry_pb2, records_pb2

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection

    from kad_node.query import Filter
    from kad_protocol.audience import Standpoint

__all__ = ["Affairs", "ArrivalRow", "FeedFigures", "MemberRow", "ProblemRow", "Queries", "RecordRow"]


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One version of one record. Times in microseconds since 1970 (UTC)."""

    rid: int
    feed: FeedId
    record: str
    latest: int
    kind: int
    state: int
    created: int
    retraction: str
    version: int
    index: int | None
    audience: int
    updated: int
    #: ``salt || content``; empty if it is not here.
    content: bytes
    #: Index in the simpul's feed of the first observation that covers this version.
    observation: int | None
    #: Origin of the simpul's feed, where it published this in the forum's name.
    source: str | None = None
    #: Origin of the feed of an earlier epoch, where the entry of this version lies in one.
    former: str | None = None
    #: Where this version stands with those who review it, as governance keeps it; None if it does not.
    review: bytes | None = None
    #: The value by which the list is ordered.
    order: Any = None


@dataclass(frozen=True, slots=True)
class ArrivalRow:
    """Something that arrived."""

    sequence: int
    type: int
    time: int
    record: RecordRow


@dataclass(frozen=True, slots=True)
class MemberRow:
    """What is known of one member besides the state of its feed."""

    state: int
    category: int
    observed: int
    profile: bytes
    records: int
    last_entry: bytes


@dataclass(frozen=True, slots=True)
class FeedFigures:
    """What is known of some feeds, added up; all but ``feeds`` in entries."""

    feeds: int
    entries: int
    signed: int
    folded: int
    observed: int


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """An entry without effect."""

    feed: FeedId
    index: int
    problem: Problem
    time: int


_ORDER = {
    "update_time": "r.updated",
    "create_time": "r.created",
    "start_time": "IFNULL(r.start_time, 0)",
    "name": "f.forum || '/' || f.federation || '/' || r.ulid",
}
_TIMES = {"update_time": "r.updated", "create_time": "r.created", "start_time": "r.start_time", "end_time": "r.end_time"}
_ENUMS = {"kind": "r.kind", "state": "r.state", "audience": "r.audience"}
_OPERATORS = frozenset({"=", "<", "<=", ">", ">="})

_COLUMNS = (
    "r.rid, f.origin, r.ulid, r.version, r.kind, r.state, r.created, r.retraction, v.version, v.idx, v.audience, v.updated,"
    " IFNULL(CASE WHEN v.idx IS NULL THEN (SELECT content FROM outbox o WHERE o.seq = v.outbox)"
    " ELSE (SELECT content FROM entry e WHERE e.pos = (IIF(r.source, r.source, IFNULL(v.feed, r.feed)) << 40) + v.idx) END, x''),"
    " (SELECT MIN(o.idx) FROM observation o JOIN feed s ON s.id = o.observer AND s.federation = f.federation"
    " WHERE o.feed = IFNULL(v.feed, r.feed) AND r.source = 0 AND o.size > v.idx),"
    " (SELECT s.origin FROM feed s WHERE s.id = r.source),"
    " (SELECT s.origin FROM feed s WHERE s.id = v.feed),"
    " (SELECT a.value FROM affair a JOIN feed s ON s.id = a.simpul AND s.federation = f.federation"
    " WHERE r.source = 0 AND a.kind = 'submitted' AND a.key = 'forums/' || f.forum || ' ' || r.ulid || ' '"
    " || printf('%04d/%013d', (SELECT w.epoch FROM feed w WHERE w.id = IFNULL(v.feed, r.feed)), v.idx))"
)
_NEWEST = "record r JOIN feed f ON f.id = r.feed JOIN version v ON v.rid = r.rid AND v.version = r.version"


def _row(row: tuple[Any, ...]) -> RecordRow:
    return RecordRow(row[0], FeedId.parse(row[1]), *row[2:])


class Affairs:
    """The state of one federation (``governance.Items``). ``changed`` is called when something is put or deleted."""

    __slots__ = ("_changed", "_connection", "_simpul")

    def __init__(self, connection: sqlite3.Connection, simpul: int, changed: Callable[[], None] = lambda: None) -> None:
        self._connection = connection
        self._simpul = simpul
        self._changed = changed

    def get(self, kind: str, key: str) -> bytes | None:
        """One item."""
        row = self._connection.execute(
            "SELECT value FROM affair WHERE simpul = ? AND kind = ? AND key = ?", (self._simpul, kind, key)
        ).fetchone()
        return None if row is None else row[0]

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Insert or replace."""
        self._changed()
        self._connection.execute(
            "INSERT INTO affair (simpul, kind, key, value) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (simpul, kind, key) DO UPDATE SET value = excluded.value",
            (self._simpul, kind, key, value),
        )

    def delete(self, kind: str, key: str) -> None:
        """Forget."""
        self._changed()
        self._connection.execute("DELETE FROM affair WHERE simpul = ? AND kind = ? AND key = ?", (self._simpul, kind, key))

    def all(self, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Items of a kind whose key begins so, by key."""
        # Keys are of plain ASCII, so everything with the prefix lies below the prefix and a character beyond.
        return self._connection.execute(
            "SELECT key, value FROM affair WHERE simpul = ? AND kind = ? AND key >= ? AND key < ? ORDER BY key",
            (self._simpul, kind, prefix, prefix + "\x7f"),
        ).fetchall()

    def count(self, kind: str) -> int:
        """How many items there are of a kind."""
        row = self._connection.execute("SELECT COUNT(*) FROM affair WHERE simpul = ? AND kind = ?", (self._simpul, kind)).fetchone()
        return int(row[0])


class Queries:
    """The reading half of a transaction."""

    def __init__(self, connection: sqlite3.Connection, standpoint: Standpoint) -> None:
        self._connection = connection
        self.standpoint = standpoint

    def record(self, name: RecordName, version: int, own: FeedId) -> RecordRow | None:
        """One record by name, newest version if ``version`` is 0."""
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM record r JOIN feed f ON f.id = r.feed"
            " JOIN version v ON v.rid = r.rid AND v.version = CASE WHEN ? = 0 THEN r.version ELSE ? END"
            " WHERE f.forum = ? AND f.federation = ? AND r.ulid = ? ORDER BY r.source, f.epoch DESC LIMIT 1",
            (version, version, name.forum, name.federation or own.federation, name.record),
        ).fetchone()
        return None if row is None else _row(row)

    def versions(self, rid: int, after: int, limit: int) -> list[RecordRow]:
        """Versions of a record after a number, oldest first."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM record r JOIN feed f ON f.id = r.feed JOIN version v ON v.rid = r.rid"
            " WHERE r.rid = ? AND v.version > ? ORDER BY v.version LIMIT ?",
            (rid, after, limit),
        )
        return [_row(row) for row in rows]

    def records(
        self,
        *,
        forum: tuple[str, str] | None,
        where: Filter,
        order: str,
        descending: bool,
        after: tuple[Any, int] | None,
        limit: int,
        retracted: bool,
        own: FeedId,
    ) -> list[RecordRow]:
        """A page of records, of all forums or one (federation and id). ``after`` is the order value and the ``rid`` of the last one of
        the page before: inserts in between move nothing. What waits for a review, or was turned down, is listed for its author (``own``)
        only, unless asked for.
        """
        key = _ORDER[order]
        clauses, values = _where(where, self.standpoint)
        if forum is not None:
            clauses.append("f.federation = ? AND f.forum = ?")
            values.extend(forum)
        if not retracted and not any(term.field == "state" for term in where.terms):
            clauses.append("r.state <> ? AND (r.state NOT IN (?, ?) OR f.origin = ?)")
            values.extend([records_pb2.RECORD_STATE_RETRACTED, records_pb2.RECORD_STATE_SUBMITTED, records_pb2.RECORD_STATE_REJECTED])
            values.append(own.origin)
        if after is not None:
            clauses.append(f"({key}, r.rid) {'<' if descending else '>'} (?, ?)")
            values.extend(after)
        direction = "DESC" if descending else "ASC"
        rows = self._connection.execute(
            f"SELECT {_COLUMNS}, {key} FROM {_NEWEST} WHERE {' AND '.join(clauses) or '1'}"
            f" ORDER BY {key} {direction}, r.rid {direction} LIMIT ?",
            (*values, limit),
        )
        return [_row(row) for row in rows]

    def search(self, match: str, where: Filter, offset: int, limit: int) -> list[RecordRow]:
        """Hits of an FTS5 expression, best first."""
        clauses, values = _where(where, self.standpoint)
        clauses.append("r.state IN (?, ?)")
        values.extend([records_pb2.RECORD_STATE_PUBLISHED, records_pb2.RECORD_STATE_QUEUED])
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM {_NEWEST} JOIN record_text ON record_text.rowid = r.rid"
            f" WHERE record_text MATCH ? AND {' AND '.join(clauses)} ORDER BY bm25(record_text, 1.0, 2.0), r.rid LIMIT ? OFFSET ?",
            (match, *values, limit, offset),
        )
        return [_row(row) for row in rows]

    def arrivals(self, after: int, where: Filter, limit: int) -> tuple[list[ArrivalRow], int]:
        """Arrivals after a sequence number, and the number up to which was looked."""
        rows = self._connection.execute(
            "SELECT seq, rid, version, type, time FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
        ).fetchall()
        found: list[ArrivalRow] = []
        clauses, values = _where(where, self.standpoint)
        for sequence, rid, version, kind, time in rows:
            row = self._connection.execute(
                f"SELECT {_COLUMNS} FROM record r JOIN feed f ON f.id = r.feed JOIN version v ON v.rid = r.rid AND v.version = ?"
                f" WHERE r.rid = ? AND {' AND '.join(clauses) or '1'}",
                (version, rid, *values),
            ).fetchone()
            if row is not None:
                found.append(ArrivalRow(sequence, kind, time, _row(row)))
        return found, rows[-1][0] if rows else after

    def last_arrival(self) -> int:
        """The newest sequence number; 0 if nothing has arrived."""
        return int(self._connection.execute("SELECT IFNULL(MAX(seq), 0) FROM event").fetchone()[0])

    def forum_feeds(self, federation: str, forum: str) -> list[FeedId]:
        """Feeds of a forum, newest epoch first."""
        rows = self._connection.execute(
            "SELECT origin FROM feed WHERE forum = ? AND federation = ? ORDER BY epoch DESC", (forum, federation)
        )
        return [FeedId.parse(origin) for (origin,) in rows]

    def member(self, feed: FeedId) -> MemberRow:
        """What is known of a member besides the state of its feed."""
        row = self._connection.execute(
            "SELECT IFNULL(m.state, 0), IFNULL(m.category, 0), IFNULL((SELECT MAX(o.size) FROM observation o"
            " JOIN feed s ON s.id = o.observer AND s.federation IN (f.federation, ?) WHERE o.feed = f.id), 0),"
            " IFNULL(p.data, x''), (SELECT COUNT(*) FROM record r WHERE r.feed = f.id AND r.state = ?),"
            " IFNULL((SELECT body FROM entry e WHERE e.pos = (f.id << 40) + f.size - 1), x'')"
            " FROM feed f LEFT JOIN profile p ON p.feed = f.id"
            " LEFT JOIN (member m JOIN feed ms ON ms.id = m.simpul) ON m.feed = f.id AND ms.federation IN (f.federation, ?)"
            " WHERE f.origin = ? ORDER BY ms.federation = ? DESC LIMIT 1",
            (
                self.standpoint.federation,
                records_pb2.RECORD_STATE_PUBLISHED,
                self.standpoint.federation,
                feed.origin,
                self.standpoint.federation,
            ),
        ).fetchone()
        return MemberRow(*(row or (0, 0, 0, b"", 0, b"")))

    def membership(self, feed: FeedId) -> int:
        """``MembershipState`` of a feed in this store's own federation, 0 if its simpul never spoke of it. What simpuls of other
        federations say does not count here.
        """
        row = self._connection.execute(
            "SELECT m.state FROM member m JOIN feed f ON f.id = m.feed JOIN feed s ON s.id = m.simpul"
            " WHERE f.origin = ? AND s.federation = ? ORDER BY s.epoch DESC LIMIT 1",
            (feed.origin, self.standpoint.federation or feed.federation),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def heir(self, feed: FeedId) -> FeedId:
        """The feed that goes on with what this one held; itself, if it was not given up."""
        for _ in range(MAX_EPOCH + 1):
            row = self._connection.execute(
                "SELECT h.origin FROM succession s JOIN feed f ON f.id = s.feed JOIN feed h ON h.id = s.heir WHERE f.origin = ?",
                (feed.origin,),
            ).fetchone()
            if row is None:
                break
            feed = FeedId.parse(row[0])
        return feed

    def begun(self, feed: FeedId) -> int | None:
        """When this feed took over from an earlier one (microseconds since 1970, by the simpul's log), None if it never did."""
        row = self._connection.execute(
            "SELECT s.time FROM succession s JOIN feed h ON h.id = s.heir WHERE h.origin = ?", (feed.origin,)
        ).fetchone()
        return None if row is None else int(row[0])

    def given_up(self) -> dict[FeedId, int]:
        """Feeds that were given up, and when (microseconds since 1970)."""
        rows = self._connection.execute("SELECT f.origin, s.time FROM succession s JOIN feed f ON f.id = s.feed")
        return {FeedId.parse(origin): time for origin, time in rows}

    def members(self) -> list[tuple[FeedId, int]]:
        """Feeds that the simpul of this store's own federation spoke of, with their ``MembershipState``."""
        rows = self._connection.execute(
            "SELECT f.origin, m.state FROM member m JOIN feed f ON f.id = m.feed JOIN feed s ON s.id = m.simpul"
            " WHERE s.federation = CASE WHEN ? = '' THEN f.federation ELSE ? END ORDER BY f.origin",
            (self.standpoint.federation, self.standpoint.federation),
        )
        return [(FeedId.parse(origin), state) for origin, state in rows]

    def foreign_simpuls(self) -> list[tuple[FeedId, int]]:
        """Simpuls of other federations that the own one's simpul spoke of, with their ``MembershipState``."""
        return [(feed, state) for feed, state in self.members() if self.standpoint.is_foreign(feed)]

    def count_records(self, federation: str, state: int) -> int:
        """Records of a federation in a ``RecordState``."""
        row = self._connection.execute(
            "SELECT COUNT(*) FROM record r JOIN feed f ON f.id = r.feed WHERE f.federation = ? AND r.state = ?", (federation, state)
        ).fetchone()
        return int(row[0])

    def witnesses(self, simpul: FeedId) -> list[FeedId]:
        """Who may confirm what this simpul says: its active full members. Associates and newcomers that nobody admitted do not count."""
        rows = self._connection.execute(
            "SELECT f.origin FROM member m JOIN feed f ON f.id = m.feed JOIN feed s ON s.id = m.simpul"
            " WHERE s.origin = ? AND m.state = ? AND m.category <> ? ORDER BY f.origin",
            (simpul.origin, entry_pb2.MEMBERSHIP_STATE_ACTIVE, entry_pb2.MEMBER_CATEGORY_ASSOCIATE),
        )
        return [FeedId.parse(origin) for (origin,) in rows]

    def ignored(self, simpul: FeedId, held_before: int, size: int) -> list[FeedId]:
        """Active members who decided something that has been here since before ``held_before`` (microseconds since 1970) and that
        the first ``size`` entries of the simpul's log do not observe. Only what a checkpoint covers counts, since a simpul observes
        nothing else: half of a batch, kept back by its author, holds up nobody.
        """
        rows = self._connection.execute(
            "SELECT f.origin FROM (SELECT e.feed AS feed, MAX(e.idx) AS idx FROM authority_entry e JOIN feed w ON w.id = e.feed"
            " WHERE e.held < ? AND e.idx < w.signed_size GROUP BY e.feed) n"
            " JOIN feed s ON s.origin = ? JOIN member m ON m.feed = n.feed AND m.simpul = s.id AND m.state = ?"
            " JOIN feed f ON f.id = n.feed AND f.quarantine = '' WHERE n.idx >="
            " (SELECT IFNULL(MAX(o.size), 0) FROM observation o WHERE o.feed = n.feed AND o.observer = s.id AND o.idx < ?)"
            " ORDER BY f.origin",
            (held_before, simpul.origin, entry_pb2.MEMBERSHIP_STATE_ACTIVE, size),
        )
        return [FeedId.parse(origin) for (origin,) in rows]

    def witnessed(self, feed: FeedId) -> list[tuple[int, bytes]]:
        """Sizes and notes of a simpul's checkpoints that were put to its witnesses and are kept here, largest first."""
        rows = self._connection.execute(
            "SELECT w.size, w.note FROM witnessed w JOIN feed f ON f.id = w.feed WHERE f.origin = ? ORDER BY w.size DESC", (feed.origin,)
        )
        return rows.fetchall()

    def cosignatures(self, feed: FeedId, size: int) -> list[tuple[str, int, bytes]]:
        """Witness, time (seconds since 1970) and lines of each verified cosignature under a checkpoint."""
        rows = self._connection.execute(
            "SELECT c.witness, c.time, c.lines FROM cosignature c JOIN feed f ON f.id = c.feed"
            " WHERE f.origin = ? AND c.size = ? ORDER BY c.witness",
            (feed.origin, size),
        )
        return rows.fetchall()

    def observations_around(self, observer: FeedId, feed: FeedId, index: int, before: int) -> tuple[int, int] | None:
        """Where in its feed the observer first covered entry ``index`` of ``feed``, and last observed that feed; both before ``before``."""
        row = self._connection.execute(
            "SELECT MIN(o.idx), MAX(o.idx) FROM observation o JOIN feed f ON f.id = o.feed JOIN feed s ON s.id = o.observer"
            " WHERE f.origin = ? AND s.origin = ? AND o.size > ? AND o.idx < ?",
            (feed.origin, observer.origin, index, before),
        ).fetchone()
        return None if row[0] is None else (int(row[0]), int(row[1]))

    def membership_index(self, feed: FeedId, simpul: FeedId) -> int:
        """Where in a simpul's feed the genesis of a member's feed is named.

        Raises:
            NotFoundError: ``NOT_A_MEMBER``.
        """
        row = self._connection.execute(
            "SELECT a.idx FROM admission a JOIN feed f ON f.id = a.feed JOIN feed s ON s.id = a.simpul WHERE f.origin = ? AND s.origin = ?",
            (feed.origin, simpul.origin),
        ).fetchone()
        if row is None:
            raise NotFoundError(Reason.NOT_A_MEMBER, f"the simpul has not spoken of {feed}", feed=feed)
        return int(row[0])

    def observations(self, observer: FeedId, feed: FeedId, after: int, size: int) -> list[tuple[int, bytes]]:
        """Sizes beyond ``after``, up to ``size``, at which the observer observed a feed, with the roots that it saw."""
        return self._connection.execute(
            "SELECT o.size, o.root FROM observation o JOIN feed f ON f.id = o.feed JOIN feed s ON s.id = o.observer"
            " WHERE f.origin = ? AND s.origin = ? AND o.size > ? AND o.size <= ? ORDER BY o.size",
            (feed.origin, observer.origin, after, size),
        ).fetchall()

    def observed(self, observer: FeedId, feed: FeedId) -> int:
        """The largest size of ``feed`` that ``observer`` observed."""
        row = self._connection.execute(
            "SELECT IFNULL(MAX(o.size), 0) FROM observation o JOIN feed f ON f.id = o.feed JOIN feed s ON s.id = o.observer"
            " WHERE f.origin = ? AND s.origin = ?",
            (feed.origin, observer.origin),
        ).fetchone()
        return int(row[0])

    def retraction_queued(self, record: str) -> bool:
        """Does a retraction of one's own record wait in the outbox?"""
        rows = self._connection.execute("SELECT entry FROM outbox WHERE record = ?", (record,)).fetchall()
        return any(entry_pb2.Entry.FromString(body).WhichOneof("body") == "record_retraction" for (body,) in rows)

    def unfolded_count(self, feed: FeedId) -> int:
        """Entries of a feed that are stored but not folded yet."""
        row = self._connection.execute("SELECT size - folded FROM feed WHERE origin = ?", (feed.origin,)).fetchone()
        return 0 if row is None else int(row[0])

    def profile_version(self, feed: FeedId) -> int:
        """Version of the newest profile of a feed, queued ones included; 0 if it has none."""
        bodies = self._connection.execute(
            "SELECT e.body FROM profile p JOIN feed f ON f.id = p.feed JOIN entry e ON e.pos = (f.id << 40) + p.idx WHERE f.origin = ?"
            " UNION ALL SELECT entry FROM outbox WHERE record = ''",
            (feed.origin,),
        ).fetchall()
        return max((entry_pb2.Entry.FromString(body).profile_version.version for (body,) in bodies), default=0)

    def problems(self, limit: int) -> list[ProblemRow]:
        """Entries without effect, newest first."""
        rows = self._connection.execute(
            "SELECT f.origin, p.idx, p.reason, p.message, p.waiting, p.time FROM problem p JOIN feed f ON f.id = p.feed"
            " ORDER BY p.id DESC LIMIT ?",
            (limit,),
        )
        return [
            ProblemRow(FeedId.parse(origin), index, Problem(Reason(reason), message, bool(waiting)), time)
            for origin, index, reason, message, waiting, time in rows
        ]

    def problem(self, feed: FeedId, index: int) -> Problem | None:
        """The problem of an entry, if it has one."""
        row = self._connection.execute(
            "SELECT p.reason, p.message, p.waiting FROM problem p JOIN feed f ON f.id = p.feed WHERE f.origin = ? AND p.idx = ?",
            (feed.origin, index),
        ).fetchone()
        return None if row is None else Problem(Reason(row[0]), row[1], bool(row[2]))

    def missing_contents(self, limit: int) -> list[tuple[FeedId, int]]:
        """Some entries whose content has not arrived; others each time, so that one that nobody has holds up none."""
        rows = self._connection.execute(
            "SELECT f.origin, p.idx FROM problem p JOIN feed f ON f.id = p.feed WHERE p.reason = ? AND p.waiting ORDER BY random() LIMIT ?",
            (Reason.CONTENT_MISSING.value, limit),
        )
        return [(FeedId.parse(origin), index) for origin, index in rows]

    def reason_counts(self) -> dict[str, int]:
        """How often each reason stands against an entry here or was given to a peer."""
        rows = self._connection.execute(
            "SELECT reason, SUM(n) FROM (SELECT reason, COUNT(*) AS n FROM problem GROUP BY reason"
            " UNION ALL SELECT reason, count FROM refusal) GROUP BY reason ORDER BY reason"
        )
        return dict(rows.fetchall())

    def evidence(self) -> list[tuple[int, FeedId, int, bytes]]:
        """Kept proofs of forks, oldest first: number, feed, time (microseconds since 1970), file."""
        rows = self._connection.execute("SELECT e.id, f.origin, e.time, e.data FROM evidence e JOIN feed f ON f.id = e.feed ORDER BY e.id")
        return [(number, FeedId.parse(origin), time, data) for number, origin, time, data in rows]

    def has_evidence(self, feed: FeedId) -> bool:
        """Is a proof kept that a feed has two histories?"""
        found = self._connection.execute("SELECT 1 FROM evidence e JOIN feed f ON f.id = e.feed WHERE f.origin = ? LIMIT 1", (feed.origin,))
        return found.fetchone() is not None

    def forks(self, limit: int) -> list[bytes]:
        """The same, only the files, at most so many."""
        rows = self._connection.execute("SELECT data FROM evidence ORDER BY id LIMIT ?", (limit,))
        return [data for (data,) in rows]

    def findings(self, simpul: FeedId, reasons: Collection[str], limit: int) -> list[tuple[int, Reason, int]]:
        """Entries of a simpul's log that have no effect for one of these reasons, newest first: index, reason, when it was judged."""
        marks = ",".join("?" * len(reasons))
        rows = self._connection.execute(
            "SELECT p.idx, p.reason, p.time FROM problem p JOIN feed f ON f.id = p.feed"
            f" WHERE f.origin = ? AND NOT p.waiting AND p.reason IN ({marks}) ORDER BY p.idx DESC LIMIT ?",
            (simpul.origin, *reasons, limit),
        )
        return [(index, Reason(reason), time) for index, reason, time in rows]

    def passed_over(self) -> list[FeedId]:
        """Members of whom a signed checkpoint is kept since the simpul does not observe what it covers."""
        rows = self._connection.execute(
            "SELECT DISTINCT f.origin FROM witnessed w JOIN feed f ON f.id = w.feed WHERE f.role = ? ORDER BY f.origin",
            (entry_pb2.MEMBER_ROLE_FORUM,),
        )
        return [FeedId.parse(origin) for (origin,) in rows]

    def refusal_counts(self) -> dict[str, int]:
        """How often each reason was given to somebody whose data was not stored."""
        return dict(self._connection.execute("SELECT reason, count FROM refusal ORDER BY reason").fetchall())

    def problem_counts(self) -> list[tuple[str, bool, int]]:
        """Reasons that stand against entries here, whether those wait to be judged again, and how many there are."""
        rows = self._connection.execute("SELECT reason, waiting, COUNT(*) FROM problem GROUP BY reason, waiting ORDER BY reason, waiting")
        return [(reason, bool(waiting), count) for reason, waiting, count in rows]

    def waiting_count(self, feed: FeedId) -> int:
        """How many entries of a feed wait to be judged again."""
        row = self._connection.execute(
            "SELECT COUNT(*) FROM problem p JOIN feed f ON f.id = p.feed WHERE f.origin = ? AND p.waiting", (feed.origin,)
        ).fetchone()
        return int(row[0])

    def feed_figures(self, own: FeedId, simpul: FeedId | None) -> dict[str, FeedFigures]:
        """Feeds added up by whose they are: ``own``, ``simpul``, ``others``. Looks at no entry."""
        rows = self._connection.execute(
            "SELECT CASE origin WHEN ? THEN 'own' WHEN ? THEN 'simpul' ELSE 'others' END AS whose, COUNT(*), SUM(size), SUM(signed_size),"
            " SUM(folded), SUM(IFNULL((SELECT MAX(o.size) FROM observation o WHERE o.feed = f.id), 0)) FROM feed f GROUP BY whose",
            (own.origin, "" if simpul is None else simpul.origin),
        )
        return {whose: FeedFigures(*figures) for whose, *figures in rows}

    def used_bytes(self) -> int:
        """Bytes of the database that hold something; the rest of its file is free for what comes."""
        pages, free, size = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def local(self, kind: str, key: str) -> bytes | None:
        """Something that only this node needs."""
        row = self._connection.execute("SELECT value FROM local WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else row[0]

    def locals(self, kind: str) -> dict[str, bytes]:
        """All of a kind."""
        return dict(self._connection.execute("SELECT key, value FROM local WHERE kind = ? ORDER BY key", (kind,)).fetchall())

    def meta(self, key: str) -> bytes | None:
        """A fact about this store."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def check(self) -> list[str]:
        """What SQLite finds wrong with its own file; empty when all is well."""
        found = [text for (text,) in self._connection.execute("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found


def _where(where: Filter, standpoint: Standpoint) -> tuple[list[str], list[Any]]:
    clauses: list[str] = []
    values: list[Any] = []
    for term in where.terms:
        if term.field in _TIMES and term.operator in _OPERATORS:
            clauses.append(f"{_TIMES[term.field]} {term.operator} ?")
        elif term.field in _ENUMS:
            clauses.append(f"{_ENUMS[term.field]} = ?")
        elif term.field == "federation":
            clauses.append("f.federation = ?")
        elif term.field == "forum":
            federation, forum = parse_member_name(str(term.value))
            # A bare id means a forum of one's own federation; where there is no such federation, a forum of any.
            clauses.append("f.federation = IFNULL(NULLIF(?, ''), f.federation) AND f.forum = ?")
            values.extend((federation or standpoint.federation, forum))
            continue
        else:
            clauses.append("EXISTS (SELECT 1 FROM term t WHERE t.field = ? AND t.value = ? AND t.rid = r.rid)")
            values.append(term.field)
        values.append(term.value)
    return clauses, values
