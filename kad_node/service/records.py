"""Records: publish, revise, retract, read, list, search, follow. What the API, the command line and pages all call."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from kad_node import outbox, stems
from kad_node.fence import FenceState
from kad_node.query import Filter, ResumeToken, decode_page, encode_page, fitting, parse_filter, parse_order
from kad_node.store.transaction import micros_now, text_of
from kad_node.witness import simpul_of
from kad_protocol import content as contents
from kad_protocol.entry import new_entry
from kad_protocol.errors import (
    AbortedError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    Reason,
    UnavailableError,
)
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance, ReviewState, review_state
from kad_protocol.names import RecordName, new_record_id, parse_forum_name, parse_member_name
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2, records_pb2

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Callable, Sequence

    from kad_node.node import Acting, Node
    from kad_node.store.queries import RecordRow
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.names import FeedId

__all__ = ["Records", "replayed", "to_record"]

_REQUEST = "request"
_REQUEST_MICROS = 48 * 3600 * 1_000_000
_SUPPORTED = (content_pb2.AUDIENCE_PUBLIC, content_pb2.AUDIENCE_FEDERATION)
_SNIPPET = 300
_WATCH_CHUNK = 200


_UNDER_REVIEW = (records_pb2.RECORD_STATE_SUBMITTED, records_pb2.RECORD_STATE_REJECTED)


def to_record(row: RecordRow, own: FeedId, *, with_content: bool = True, may_review: bool = False) -> records_pb2.Record:
    """The record of a row, as the member of ``own`` names it. What waits for a review is read only by its forum and the simpul
    (``may_review``).
    """
    state: int = row.state
    if row.version != row.latest and state != records_pb2.RECORD_STATE_RETRACTED:
        shown = records_pb2.RECORD_STATE_PUBLISHED if row.content else _absent(row, own)
        # A newer version lets nobody read what waited or was turned down.
        state = _REVIEWS.get(review_state(row.review) or ReviewState.SHOWN, shown)
    record = records_pb2.Record(
        name=str(RecordName(row.feed.forum, row.record, "" if row.feed.federation == own.federation else row.feed.federation)),
        version=row.version,
        kind=row.kind,  # type: ignore[arg-type]
        audience=row.audience,  # type: ignore[arg-type]
        state=state,  # type: ignore[arg-type]
        feed=row.source or row.former or row.feed.origin,
        latest_version=row.latest,
        published_by=row.source or "",
    )
    record.create_time.FromMicroseconds(row.created)
    record.update_time.FromMicroseconds(row.updated)
    if row.index is not None:
        record.index = row.index
    if row.observation is not None:
        record.observation = row.observation
    if state == records_pb2.RECORD_STATE_RETRACTED:
        record.retraction_reason = row.retraction
    elif row.content and with_content and (state not in _UNDER_REVIEW or may_review):
        record.content.CopyFrom(contents.parse_content(contents.split(row.content)[1]))
    return record


_REVIEWS = {
    ReviewState.WAITS: records_pb2.RECORD_STATE_SUBMITTED,
    ReviewState.TURNED_DOWN: records_pb2.RECORD_STATE_REJECTED,
}


def _absent(row: RecordRow, own: FeedId) -> int:
    """Why the content of an earlier version is not here."""
    withheld = row.feed.federation != own.federation and row.audience != content_pb2.AUDIENCE_PUBLIC
    return records_pb2.RECORD_STATE_WITHHELD if withheld else records_pb2.RECORD_STATE_CONTENT_MISSING


class Records:
    """The records of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # Writing.

    async def create(self, requests: Sequence[records_pb2.CreateRecordRequest]) -> list[records_pb2.Record]:
        """Publish records, all or none. See ``RecordsService.CreateRecord``."""
        own = self._node.own
        drafts: list[tuple[str, Draft]] = []
        for request in requests:
            if request.parent and parse_forum_name(request.parent) != own.forum:
                if self._node.acting is not None and len(requests) == 1:
                    return [await self._node.acting.publish(request)]
                raise PermissionDeniedError(Reason.NOT_OWN_RECORD, f"this node publishes for {own.forum} only", forum=own.forum)
            record = new_record_id()
            drafts.append((record, self._version_draft(record, 1, request.content, request.audience)))
        if all(request.validate_only for request in requests):
            return [self._preview(record, draft) for record, draft in drafts]

        def write(tx: SqliteTransaction) -> list[str]:
            names: list[str] = []
            fresh: list[Draft] = []
            for request, (record, draft) in zip(requests, drafts, strict=True):
                earlier = replayed(tx, request.request_id, request.content.SerializeToString(deterministic=True), record)
                names.append(earlier or record)
                if earlier is None:
                    fresh.append(draft)
            self._put(tx, fresh)
            return names

        return await self._written(write)

    async def revise(self, request: records_pb2.ReviseRecordRequest) -> records_pb2.Record:
        """Publish a new version. See ``RecordsService.ReviseRecord``."""
        if (acting := self._acts_for(request.name)) is not None:
            return await acting.revise(request)
        name = self._own_name(request.name)
        draft = self._version_draft(name.record, 0, request.content, request.audience)
        if request.validate_only:
            await self.get(str(name), 0)
            return self._preview(name.record, draft)

        def write(tx: SqliteTransaction) -> list[str]:
            what = request.name.encode() + request.content.SerializeToString(deterministic=True)
            if replayed(tx, request.request_id, what, name.record) is None:
                row = self._current(tx, name, request.expected_version)
                version = draft.entry.record_version
                if version.kind != row.kind:
                    raise InvalidInputError(Reason.INVALID_FIELD, "a record keeps its kind", field="content.kind")
                version.version = row.latest + 1
                if not request.audience:
                    version.audience = row.audience  # type: ignore[assignment]
                self._put(tx, [draft])
            return [name.record]

        return (await self._written(write))[0]

    async def retract(self, request: records_pb2.RetractRecordRequest) -> records_pb2.Record:
        """Withdraw a record. See ``RecordsService.RetractRecord``."""
        if (acting := self._acts_for(request.name)) is not None:
            return await acting.retract(request)
        name = self._own_name(request.name)
        notice = entry_pb2.RetractionNotice(reason=request.reason)
        problems = contents.validate(notice)
        if problems:
            raise InvalidInputError(Reason.INVALID_FIELD, f"reason: {problems[0].description}", problems, field="reason")
        blob = contents.new_blob(notice.SerializeToString())
        entry = new_entry(micros_now())
        entry.record_retraction.record = name.record
        entry.record_retraction.digest = contents.digest(blob)
        entry.record_retraction.content_size = len(blob) - contents.SALT_BYTES

        def write(tx: SqliteTransaction) -> list[str]:
            what = f"{request.name}\n{request.reason}".encode()
            if replayed(tx, request.request_id, what, name.record) is None:
                entry.record_retraction.version = self._current(tx, name, request.expected_version).latest
                self._put(tx, [Draft(entry, blob)])
            return [name.record]

        return (await self._written(write))[0]

    def _version_draft(self, record: str, version: int, content: content_pb2.Content, audience: int) -> Draft:
        """Check a content and make its entry.

        Raises:
            InvalidInputError: ``INVALID_FIELD``, ``CONTENT_TOO_LARGE``, ``AUDIENCE_NOT_SUPPORTED``.
        """
        contents.check(content)
        audience = audience or content_pb2.AUDIENCE_FEDERATION
        if audience not in _SUPPORTED:
            raise InvalidInputError(Reason.AUDIENCE_NOT_SUPPORTED, "records for named forums are not possible yet", field="audience")
        blob = contents.new_blob(content.SerializeToString())
        entry = new_entry(micros_now())
        part = entry.record_version
        part.record, part.version, part.kind, part.audience = record, version, contents.kind_of(content), audience  # type: ignore[assignment]
        part.digest, part.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES
        return Draft(entry, blob)

    def _preview(self, record: str, draft: Draft) -> records_pb2.Record:
        version = draft.entry.record_version
        preview = records_pb2.Record(
            name=str(RecordName(self._node.own.forum, record)), version=version.version, kind=version.kind, audience=version.audience
        )
        preview.content.CopyFrom(contents.parse_content(contents.split(draft.content)[1]))
        return preview

    def _put(self, tx: SqliteTransaction, drafts: list[Draft]) -> None:
        if drafts:
            outbox.put(tx, self._node.own, drafts, open_fence=self._node.fence.state is FenceState.OPEN)

    def _current(self, tx: SqliteTransaction, name: RecordName, expected: int) -> RecordRow:
        own = self._node.own
        row = tx.record(name, 0, own)
        if row is not None and row.feed != own and (row.feed.federation, row.feed.forum) == (own.federation, own.forum):
            raise UnavailableError(
                Reason.APPEND_FENCED, "the records of the epoch before come over when the simpul's log has arrived here; try again then"
            )
        if row is None or row.feed != own:
            raise NotFoundError(Reason.RECORD_NOT_FOUND, f"there is no record {name}", name=name)
        if row.state == records_pb2.RECORD_STATE_RETRACTED or tx.retraction_queued(name.record):
            raise PreconditionError(Reason.RECORD_RETRACTED, f"{name} was retracted", name=name)
        if expected not in (0, row.latest):
            raise AbortedError(
                Reason.STALE_VERSION,
                f"{name} is at version {row.latest}, you saw {expected}; read it again",
                name=name,
                current_version=row.latest,
                expected_version=expected,
            )
        return row

    def _acts_for(self, name: str) -> Acting | None:
        """Who changes a record of another forum here: a simpul, if it is one."""
        return self._node.acting if RecordName.parse(name).forum != self._node.own.forum else None

    def _own_name(self, text: str) -> RecordName:
        name = _parse_name(text, self._node.own)
        if name.forum != self._node.own.forum or name.federation:
            raise PermissionDeniedError(
                Reason.NOT_OWN_RECORD,
                f"{name} belongs to {name.forum}; this node changes records of {self._node.own.forum} only",
                name=name,
            )
        return name

    async def _written(self, write: Callable[[SqliteTransaction], list[str]]) -> list[records_pb2.Record]:
        """Run a write, then wait until what it wrote can be read."""
        names = await self._node.store.write(write)

        def rows(tx: SqliteTransaction) -> tuple[list[RecordRow | None], bool]:
            behind = self._node.settling(tx)
            return [tx.record(RecordName(self._node.own.forum, name), 0, self._node.own) for name in names], behind

        while True:
            changed = self._node.next_change()
            found, behind = await self._node.store.read(rows)
            if not behind:
                return await self._shown([row for row in found if row is not None])
            await changed.wait()

    # Reading.

    async def get(self, name: str, version: int) -> records_pb2.Record:
        """One record. See ``RecordsService.GetRecord``."""
        parsed = _parse_name(name, self._node.own)
        row = await self._node.store.read(lambda tx: tx.record(parsed, version, self._node.own))
        if row is None:
            raise NotFoundError(
                Reason.RECORD_NOT_FOUND, f"there is no record {parsed}" + (f" version {version}" if version else ""), name=parsed
            )
        (record,) = await self._shown([row])
        return record

    async def _shown(self, rows: Sequence[RecordRow]) -> builtins.list[records_pb2.Record]:
        """The records of rows, with what is known of the acts that published some of them in a forum's name."""
        records = [to_record(row, self._node.own, may_review=self._may_review(row)) for row in rows]
        acts = [(record, record.index) for record in records if record.published_by and record.HasField("index")]
        if acts:

            def look(tx: SqliteTransaction) -> builtins.list[bool]:
                simpul = simpul_of(tx, self._node.own)
                if simpul is None:
                    return [False] * len(acts)
                governance = Governance(tx.affairs(simpul), simpul)
                found = [governance.act(index) if record.published_by == simpul.origin else None for record, index in acts]
                return [act is not None and act.state == governance_pb2.PerformedAct.STATE_FINAL for act in found]

            for (record, _), final in zip(acts, await self._node.store.read(look), strict=True):
                record.act_final = final
        return records

    def _may_review(self, row: RecordRow) -> bool:
        """What waits for a review is read by its forum and by the simpul of its federation."""
        own = self._node.own
        return row.feed == own or (self._node.acting is not None and row.feed.federation == own.federation)

    async def list(self, request: records_pb2.ListRecordsRequest) -> records_pb2.ListRecordsResponse:
        """A page of records. See ``RecordsService.ListRecords``."""
        own = self._node.own
        forum = None
        if request.parent not in ("", "forums/-"):
            federation, name = parse_member_name(request.parent)
            forum = federation or own.federation, name
        where = parse_filter(request.filter)
        order, descending = parse_order(request.order_by)
        question = (forum, request.filter, request.order_by, request.show_retracted)
        key = decode_page(request.page_token, 2, *question)
        size = _size(request.page_size, 50, 1000)
        rows = await self._node.store.read(
            lambda tx: tx.records(
                forum=forum,
                where=where,
                order=order,
                descending=descending,
                after=(key[0], int(key[1])) if key else None,
                limit=size + 1,
                retracted=request.show_retracted,
                own=self._node.own,
            )
        )
        records = await self._shown(rows)
        size = fitting(records, size)
        response = records_pb2.ListRecordsResponse(records=records[:size])
        if len(rows) > size:
            last = rows[size - 1]
            response.next_page_token = encode_page([last.order, last.rid], *question)
        return response

    async def versions(self, request: records_pb2.ListRecordVersionsRequest) -> records_pb2.ListRecordVersionsResponse:
        """The versions of a record. See ``RecordsService.ListRecordVersions``."""
        name = _parse_name(request.name, self._node.own)
        key = decode_page(request.page_token, 1, request.name)
        size = _size(request.page_size, 50, 1000)

        def read(tx: SqliteTransaction) -> list[RecordRow]:
            row = tx.record(name, 0, self._node.own)
            if row is None:
                raise NotFoundError(Reason.RECORD_NOT_FOUND, f"there is no record {name}", name=name)
            return tx.versions(row.rid, int(key[0]) if key else 0, size + 1)

        rows = await self._node.store.read(read)
        records = await self._shown(rows)
        size = fitting(records, size)
        response = records_pb2.ListRecordVersionsResponse(records=records[:size])
        if len(rows) > size:
            response.next_page_token = encode_page([rows[size - 1].version], request.name)
        return response

    async def search(self, request: records_pb2.SearchRecordsRequest) -> records_pb2.SearchRecordsResponse:
        """Hits for some words. See ``RecordsService.SearchRecords``."""
        match = stems.match_expression(request.query)
        where = parse_filter(request.filter)
        question = (request.query, request.filter)
        key = decode_page(request.page_token, 1, *question)
        offset, size = int(key[0]) if key else 0, _size(request.page_size, 20, 200)
        if not match:
            raise InvalidInputError(Reason.INVALID_FIELD, "the query has no word in it", field="query")
        rows = await self._node.store.read(lambda tx: tx.search(match, where, offset, size + 1))
        response = records_pb2.SearchRecordsResponse()
        records = await self._shown(rows)
        size = fitting(records, size)
        for record in records[:size]:
            response.hits.append(records_pb2.SearchHit(record=record, snippet=_snippet(record.content, request.query)))
        if len(rows) > size:
            response.next_page_token = encode_page([offset + size], *question)
        return response

    async def watch(
        self, request: records_pb2.WatchRecordsRequest, quiet_seconds: float = 25
    ) -> AsyncIterator[records_pb2.WatchRecordsResponse]:
        """Arrivals, for ever. See ``RecordsService.WatchRecords``."""
        where: Filter = parse_filter(request.filter)
        instance = self._node.instance
        if request.resume_token:
            position = ResumeToken.decode(request.resume_token, instance)
        else:
            position = 0 if request.from_start else await self._node.store.read(lambda tx: tx.last_arrival())
        # The first answer comes at once: the caller then knows where it stands and that nothing is missed from here on.
        yield records_pb2.WatchRecordsResponse(resume_token=ResumeToken(instance, position).encode())
        while True:
            changed = self._node.next_change()
            found, position_now = await self._node.store.read(lambda tx, p=position: tx.arrivals(p, where, _WATCH_CHUNK))  # type: ignore[misc]
            moved, position = position_now > position, position_now
            response = records_pb2.WatchRecordsResponse(resume_token=ResumeToken(instance, position).encode())
            records = await self._shown([arrival.record for arrival in found])
            while records:
                size = fitting(records, _WATCH_CHUNK)
                page = records_pb2.WatchRecordsResponse(resume_token=ResumeToken(instance, found[size - 1].sequence).encode())
                for arrival, record in zip(found[:size], records[:size], strict=True):
                    event = page.events.add(type=arrival.type, record=record)
                    event.arrive_time.FromMicroseconds(arrival.time)
                found, records = found[size:], records[size:]
                if not records:
                    page.resume_token = response.resume_token
                yield page
            if not moved:
                try:
                    await asyncio.wait_for(changed.wait(), quiet_seconds)
                except TimeoutError:
                    yield response


def replayed(tx: SqliteTransaction, request_id: str, what: bytes, record: str) -> str | None:
    """The record of an earlier call with this request id; remembers this one otherwise.

    Raises:
        AbortedError: ``REQUEST_ID_REUSED``.
    """
    if not request_id:
        return None
    digest = hashlib.sha256(what).hexdigest()
    known = tx.local(_REQUEST, request_id)
    if known is not None:
        earlier = json.loads(known)
        if earlier["what"] != digest:
            raise AbortedError(Reason.REQUEST_ID_REUSED, "this request id was used for something else", request_id=request_id)
        return str(earlier["record"])
    tx.expire_local(_REQUEST, micros_now() - _REQUEST_MICROS)
    tx.put_local(_REQUEST, request_id, json.dumps({"what": digest, "record": record}).encode())
    return None


def _parse_name(text: str, own: FeedId) -> RecordName:
    """Read a name; one's own federation need not stand in it, but may."""
    name = RecordName.parse(text)
    return replace(name, federation="") if name.federation == own.federation else name


def warnings_for(content: content_pb2.Content) -> list[records_pb2.Warning]:
    """What of a content is allowed but deserves a look."""
    found = contents.warnings(content, datetime.datetime.now(datetime.UTC))
    return [records_pb2.Warning(field=warning.field, description=warning.description) for warning in found]


def _size(asked: int, default: int, most: int) -> int:
    return min(asked or default, most)


def _snippet(content: content_pb2.Content, query: str) -> str:
    """The piece of the text around the first word that was found."""
    text = " ".join(text_of(content).split())
    wanted = {stem for word in stems.words(query) for stem in stems.stems(word)}
    position = 0
    for word in text.split():
        if any(stem in wanted for piece in stems.words(word) for stem in stems.stems(piece)):
            position = text.find(word)
            break
    start = max(0, position - _SNIPPET // 3)
    piece = text[start : start + _SNIPPET - 2]
    return f"{'…' if start else ''}{piece}{'…' if start + _SNIPPET - 2 < len(text) else ''}"
