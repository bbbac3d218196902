"""What the simpul does in members' names: publish, revise and withdraw what it published, review, issue statements.

It asks the same rules that every node will ask afterwards, cites the mandates that allow it, and does nothing besides.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from kad_node.service.affairs import Affairs, governance_of, raised
from kad_node.service.records import replayed, to_record
from kad_node.store.transaction import micros_now
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol.authority import FUNCTIONS, giver_of, policy
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
from kad_protocol.governance import Governance, Refused, question_of
from kad_protocol.names import FeedId, RecordName, new_record_id, parse_forum_name
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2, records_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kad_node.node import Node
    from kad_node.store.queries import RecordRow
    from kad_node.store.transaction import SqliteTransaction

    #: Fills in an act, inside the transaction that writes it; returns what travels beside it.
    Make = Callable[[SqliteTransaction, Governance, entry_pb2.Act], bytes]

__all__ = ["Acts"]

_JUDGING_SECONDS = 30

T = TypeVar("T")


class _Replayed(Exception):  # noqa: N818 - an answer, not a fault
    """This was done before, under the same request id."""

    def __init__(self, record: str) -> None:
        super().__init__(record)
        self.record = record


class Acts:
    """The simpul's acts (``kad_node.node.Acting``).

    Args:
        node: the simpul.
        mode: what its configuration says; never more than the members have decided.
    """

    def __init__(self, node: Node, mode: str) -> None:
        self._node = node
        self._mode = policy(mode)
        self._affairs = Affairs(node)
        #: What depends on an earlier act waits until that has been judged.
        self._in_turn = asyncio.Lock()

    async def publish(self, request: records_pb2.CreateRecordRequest) -> records_pb2.Record:
        """See ``RecordsService.CreateRecord``, with another forum as the parent."""
        forum = parse_forum_name(request.parent)
        blob, audience = _content_blob(request.content, request.audience or content_pb2.AUDIENCE_FEDERATION)
        name = RecordName(forum, new_record_id())
        what = request.parent.encode() + request.content.SerializeToString(deterministic=True)

        def make(tx: SqliteTransaction, found: Governance, act: entry_pb2.Act) -> bytes:
            if not request.validate_only:
                _replay(tx, request.request_id, what, name.record)
            _fill_publication(act, name.record, 1, request.content, audience, blob)
            act.on_behalf_of = _member(found, forum).feed
            _cite(found, act, [f"forums/{forum}"])
            return blob

        return await self._changed(make, name, 0, request.content if request.validate_only else None)

    async def revise(self, request: records_pb2.ReviseRecordRequest) -> records_pb2.Record:
        """See ``RecordsService.ReviseRecord``, of a record that this simpul published in a forum's name."""
        name = RecordName.parse(request.name)
        blob, audience = _content_blob(request.content, request.audience)
        what = request.name.encode() + request.content.SerializeToString(deterministic=True)

        def make(tx: SqliteTransaction, found: Governance, act: entry_pb2.Act) -> bytes:
            if not request.validate_only:
                _replay(tx, request.request_id, what, name.record)
            row = self._hosted(tx, name, request.expected_version)
            if contents.kind_of(request.content) != row.kind:
                raise InvalidInputError(Reason.INVALID_FIELD, "a record keeps its kind", field="content.kind")
            _fill_publication(act, name.record, row.latest + 1, request.content, audience or row.audience, blob)
            act.on_behalf_of = _member(found, name.forum).feed
            _cite(found, act, [f"forums/{name.forum}"])
            return blob

        async with self._in_turn:
            return await self._changed(make, name, 0, request.content if request.validate_only else None)

    async def retract(self, request: records_pb2.RetractRecordRequest) -> records_pb2.Record:
        """See ``RecordsService.RetractRecord``, of a record that this simpul published in a forum's name."""
        name = RecordName.parse(request.name)
        notice = entry_pb2.RetractionNotice(reason=request.reason)
        contents.check(notice)
        blob = contents.new_blob(notice.SerializeToString())

        def make(tx: SqliteTransaction, found: Governance, act: entry_pb2.Act) -> bytes:
            _replay(tx, request.request_id, f"{request.name}\n{request.reason}".encode(), name.record)
            row = self._hosted(tx, name, request.expected_version)
            owner = _member(found, name.forum)
            act.function, act.on_behalf_of = "publish-on-behalf", owner.feed
            if row.content:
                # What it is about, so that a mandate for some affairs or regions is seen to cover it.
                content = contents.parse_content(contents.split(row.content)[1])
                act.sectors.extend(content.sectors)
                act.regions.extend(region.code for region in content.regions)
            part = act.withdrawal
            part.record, part.version = name.record, row.latest
            part.digest, part.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES
            _cite(found, act, [owner.name], row.kind)
            return blob

        async with self._in_turn:
            row = await self._node.store.read(lambda tx: tx.record(name, 0, self._node.own))
            return await self._changed(make, name, row.kind if row is not None else 0, None)

    async def _changed(self, make: Make, name: RecordName, kind: int, preview: content_pb2.Content | None) -> records_pb2.Record:
        """Act, and return the record as it is then; with a ``preview`` only check, and return it as it would be."""
        try:
            performed = await self._perform(make, kind, dry_run=preview is not None)
        except _Replayed as earlier:
            name = RecordName(name.forum, earlier.record)
        else:
            if preview is not None:
                version = performed.act.publication
                return records_pb2.Record(
                    name=str(name), version=version.version, kind=version.kind, audience=version.audience, content=preview
                )
        row = await self._node.store.read(lambda tx: tx.record(name, 0, self._node.own))
        if row is None:
            raise NotFoundError(Reason.RECORD_NOT_FOUND, f"{name.forum}: the record was not accepted", name=name)
        return to_record(row, self._node.own)

    def _hosted(self, tx: SqliteTransaction, name: RecordName, expected: int) -> RecordRow:
        """A record that this simpul published in a forum's name, to be changed.

        Raises:
            NotFoundError: there is none.
            PermissionDeniedError: the forum wrote it itself, so nobody else touches it.
            PreconditionError: it was withdrawn.
            AbortedError: it is at another version.
        """
        row = tx.record(name, 0, self._node.own)
        if row is None:
            raise NotFoundError(Reason.RECORD_NOT_FOUND, f"there is no record {name}", name=name)
        if row.source != self._node.own.origin:
            raise PermissionDeniedError(
                Reason.NOT_OWN_RECORD,
                f"{name.forum} wrote {name} itself; a simpul changes only what it published in a forum's name",
                name=name,
            )
        if row.state == records_pb2.RECORD_STATE_RETRACTED:
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

    async def review(self, name: str, version: int, *, approved: bool) -> governance_pb2.PerformedAct:
        """See ``MandatesService.ReviewSubmission``."""
        parsed = RecordName.parse(name)
        row = await self._node.store.read(lambda tx: tx.record(parsed, 0, self._node.own))
        if row is None:
            raise NotFoundError(Reason.RECORD_NOT_FOUND, f"there is no record {parsed}", name=parsed)
        if version not in (0, row.latest):
            raise PreconditionError(Reason.STALE_VERSION, f"{parsed} is at version {row.latest} by now; read it again", name=parsed)
        if row.state not in (records_pb2.RECORD_STATE_SUBMITTED, records_pb2.RECORD_STATE_REJECTED):
            raise PreconditionError(Reason.VERSION_OUT_OF_ORDER, f"{parsed} does not wait for a review", name=parsed)

        def make(_: SqliteTransaction, found: Governance, act: entry_pb2.Act) -> bytes:
            owner = _member(found, parsed.forum)
            act.function, act.on_behalf_of = "curate", owner.feed
            act.review.record, act.review.version, act.review.approved = parsed.record, row.latest, approved
            _cite(found, act, [owner.name], row.kind)
            return b""

        async with self._in_turn:
            return await self._perform(make, row.kind)

    async def issue(self, request: governance_pb2.IssueStatementRequest) -> governance_pb2.PerformedAct:
        """See ``MandatesService.IssueStatement``."""
        function = FUNCTIONS.get(request.function)
        if function is None or function.asks_kinds or function.name == "admit-members":
            raise InvalidInputError(Reason.FUNCTION_UNKNOWN, f"no statement is made under {request.function!r}", field="function")
        contents.check(request.statement)
        if bool(request.statement.items) is function.collective:
            wanted = "deals with no records" if function.collective else "deals with at least one record"
            raise InvalidInputError(Reason.INVALID_FIELD, f"a statement under {function.name} {wanted}", field="statement.items")
        if function.kind:
            await self._check_kinds(request.statement, function.kind)
        forums = {RecordName.parse(item.record).forum for item in request.statement.items}
        blob = contents.new_blob(request.statement.SerializeToString())

        def make(_: SqliteTransaction, found: Governance, act: entry_pb2.Act) -> bytes:
            now = micros_now()
            if function.collective:
                givers = {giver_of(granted) for granted in found.usable(function.name, now)}
                members = [member for member in found.members() if member.name in givers]
            else:
                members = [_member(found, forum) for forum in sorted(forums)]
            if not members:
                raise Refused(Reason.NO_MANDATE, f"no member has a live mandate for {function.name}")
            act.function = function.name
            act.sectors.extend(request.sectors)
            act.regions.extend(request.regions)
            statement = act.statement
            statement.id, statement.digest, statement.content_size = new_record_id(), contents.digest(blob), len(blob) - contents.SALT_BYTES
            statement.members.extend(member.feed for member in members)
            _cite(found, act, [member.name for member in members])
            return blob

        return await self._perform(make, 0)

    async def _check_kinds(self, statement: entry_pb2.ActStatement, kind: int) -> None:
        """Every record that is dealt with is here, of the right kind."""

        def read(tx: SqliteTransaction) -> None:
            for item in statement.items:
                name = RecordName.parse(item.record)
                row = tx.record(name, item.version, self._node.own)
                if row is None or row.kind != kind:
                    raise NotFoundError(
                        Reason.RECORD_NOT_FOUND, f"there is no such record of the right kind: {item.record}", name=item.record
                    )

        await self._node.store.read(read)

    async def _perform(self, make: Make, kind: int, *, dry_run: bool = False) -> governance_pb2.PerformedAct:
        """Ask, write, and wait until it was judged here as it will be everywhere."""
        node = self._node

        def write(tx: SqliteTransaction) -> tuple[int, entry_pb2.Act] | None:
            found = governance_of(tx, node)
            state = tx.feed(node.own)
            if state is None or found.head.position != state.tail:
                # What is in the log already may have taken away what this rests on; first that is judged.
                return None
            entry = new_entry(max(micros_now(), found.time))
            try:
                blob = make(tx, found, entry.act)
                question = question_of(found, entry.act, max(micros_now(), found.time), kind)
            except Refused as refused:
                raised(refused)
            # Two doors: what this simpul is configured to do, and what the members let it do.
            if self._mode.name == "networking" != found.policy.name:
                raise PermissionDeniedError(
                    Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE,
                    f"the members have decided for {found.policy.name}, but this simpul is configured as networking;"
                    f" set mode = {found.policy.name} in kad.toml and start it again",
                    configured=self._mode.name,
                    decided=found.policy.name,
                )
            found.may(question).require()
            if dry_run:
                return -1, entry.act
            node.fence.require()
            return feeds.append(tx, node.own, [Draft(entry, blob)]), entry.act

        while (written := await self._when_judged(write)) is None:
            pass
        index, planned = written
        while not dry_run:
            changed = node.next_change()
            act = await node.store.read(lambda tx: self._judged(tx, index))
            if act is not None:
                if act.reason:
                    raise PreconditionError(Reason(act.reason), f"the act was refused: {act.reason}")
                return act
            await _soon(
                changed, f"the act is entry {index} of this simpul's log and counts once that has been judged; see status for what it waits"
            )
        return governance_pb2.PerformedAct(act=planned)

    async def _when_judged(self, write: Callable[[SqliteTransaction], T | None]) -> T | None:
        """Try once, and wait for a change if the log was not judged to its end."""
        changed = self._node.next_change()
        written = await self._node.store.write(write)
        if written is None:
            await _soon(
                changed, "what is in this simpul's log already could not be judged yet; nothing was written, see status for what it waits"
            )
        return written

    def _judged(self, tx: SqliteTransaction, index: int) -> governance_pb2.PerformedAct | None:
        act = governance_of(tx, self._node).act(index)
        return self._affairs.fill(tx, act) if act is not None else None


async def _soon(changed: asyncio.Event, otherwise: str) -> None:
    """Wait for a change.

    Raises:
        UnavailableError: ``WAITING_FOR_FEED``, nothing has changed for long.
    """
    try:
        await asyncio.wait_for(changed.wait(), _JUDGING_SECONDS)
    except TimeoutError as error:
        raise UnavailableError(Reason.WAITING_FOR_FEED, otherwise) from error


def _member(found: Governance, forum: str) -> governance_pb2.FederationMember:
    member = found.member(f"forums/{forum}")
    if member is None:
        raise Refused(Reason.NOT_A_MEMBER, f"{forum} is no member")
    FeedId.parse(member.feed)
    return member


def _content_blob(content: content_pb2.Content, audience: int) -> tuple[bytes, int]:
    """Check what is to be published; its blob and audience."""
    contents.check(content)
    if audience not in (0, content_pb2.AUDIENCE_PUBLIC, content_pb2.AUDIENCE_FEDERATION):
        raise InvalidInputError(Reason.AUDIENCE_NOT_SUPPORTED, "records for named forums are not possible yet", field="audience")
    return contents.new_blob(content.SerializeToString()), audience


def _fill_publication(act: entry_pb2.Act, record: str, version: int, content: content_pb2.Content, audience: int, blob: bytes) -> None:
    act.function = "publish-on-behalf"
    act.sectors.extend(content.sectors)
    act.regions.extend(region.code for region in content.regions)
    part = act.publication
    part.record, part.version, part.kind = record, version, contents.kind_of(content)  # type: ignore[assignment]
    part.audience, part.digest, part.content_size = audience, contents.digest(blob), len(blob) - contents.SALT_BYTES  # type: ignore[assignment]


def _replay(tx: SqliteTransaction, request_id: str, what: bytes, record: str) -> None:
    """Raise ``_Replayed`` if this was done before."""
    if (earlier := replayed(tx, request_id, what, record)) is not None:
        raise _Replayed(earlier)


def _cite(found: Governance, act: entry_pb2.Act, names: Iterable[str], kind: int = 0) -> None:
    """Cite for each member the mandate that covers this best: one that would be accepted, if there is one."""
    wanted = act.publication.kind if act.WhichOneof("deed") == "publication" else kind
    for name in names:
        candidates = [granted for granted in found.mandates(name) if granted.mandate.function == act.function]
        best: entry_pb2.MandateRef | None = None
        for granted in candidates:
            trial = entry_pb2.Act(
                function=act.function, on_behalf_of=act.on_behalf_of, sectors=act.sectors, regions=act.regions, mandates=[granted.ref]
            )
            trial.publication.kind = wanted  # type: ignore[assignment]
            if _holds(found, trial, granted, wanted):
                best = granted.ref
                break
            best = granted.ref
        if best is not None:
            act.mandates.append(best)


def _holds(found: Governance, trial: entry_pb2.Act, granted: governance_pb2.GrantedMandate, kind: int) -> bool:
    if FUNCTIONS[trial.function].collective:
        return found.live(granted, micros_now()) == type(granted).STATE_LIVE
    if not trial.on_behalf_of:
        # The feed of today, though the mandate may stand in an earlier epoch.
        member = found.member(giver_of(granted))
        trial.on_behalf_of = member.feed if member is not None else granted.ref.feed
    function, trial.function = trial.function, "publish-on-behalf"
    question = question_of(found, trial, max(micros_now(), found.time), kind)
    trial.function = function
    return found.may(replace(question, function=function)).allowed
