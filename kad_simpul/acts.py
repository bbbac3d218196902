"""What the simpul does in members' names: publish, review, issue statements.

It asks the same rules that every node will ask afterwards, cites the mandates that allow it, and does nothing besides.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from kad_node.service.affairs import Affairs, governance_of, raised
from kad_node.service.records import to_record
from kad_node.store.transaction import micros_now
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol.authority import FUNCTIONS, giver_of, policy
from kad_protocol.entry import new_entry
from kad_protocol.errors import InvalidInputError, NotFoundError, PreconditionError, Reason
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance, Refused, question_of
from kad_protocol.names import FeedId, RecordName, new_record_id, parse_forum_name
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2, records_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["Acts"]

_JUDGING_SECONDS = 30


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

    async def publish(self, request: records_pb2.CreateRecordRequest) -> records_pb2.Record:
        """See ``RecordsService.CreateRecord``, with another forum as the parent."""
        forum = parse_forum_name(request.parent)
        contents.check(request.content)
        audience = request.audience or content_pb2.AUDIENCE_FEDERATION
        if audience not in (content_pb2.AUDIENCE_PUBLIC, content_pb2.AUDIENCE_FEDERATION):
            raise InvalidInputError(Reason.AUDIENCE_NOT_SUPPORTED, "records for named forums are not possible yet", field="audience")
        blob = contents.new_blob(request.content.SerializeToString())
        record = new_record_id()

        def make(found: Governance, act: entry_pb2.Act) -> bytes:
            owner = _member(found, forum)
            act.function, act.on_behalf_of = "publish-on-behalf", owner.feed
            act.sectors.extend(request.content.sectors)
            act.regions.extend(region.code for region in request.content.regions)
            part = act.publication
            part.record, part.version, part.kind = record, 1, contents.kind_of(request.content)  # type: ignore[assignment]
            part.audience, part.digest, part.content_size = audience, contents.digest(blob), len(blob) - contents.SALT_BYTES
            _cite(found, act, [owner.name])
            return blob

        await self._perform(make, 0, dry_run=request.validate_only)
        if request.validate_only:
            return records_pb2.Record(name=str(RecordName(forum, record)), version=1, content=request.content)
        row = await self._node.store.read(lambda tx: tx.record(RecordName(forum, record), 0, self._node.own))
        if row is None:
            raise NotFoundError(Reason.RECORD_NOT_FOUND, f"{forum}: the record was not accepted")
        return to_record(row, self._node.own)

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

        def make(found: Governance, act: entry_pb2.Act) -> bytes:
            owner = _member(found, parsed.forum)
            act.function, act.on_behalf_of = "curate", owner.feed
            act.review.record, act.review.version, act.review.approved = parsed.record, row.latest, approved
            _cite(found, act, [owner.name], row.kind)
            return b""

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

        def make(found: Governance, act: entry_pb2.Act) -> bytes:
            now = micros_now()
            if function.collective:
                givers = {giver_of(granted) for granted in found.usable(function.name, now)}
                members = [member for member in found.members() if member.name in givers]
            else:
                members = [_member(found, forum) for forum in sorted(forums)]
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

    async def _perform(
        self, make: Callable[[Governance, entry_pb2.Act], bytes], kind: int, *, dry_run: bool = False
    ) -> governance_pb2.PerformedAct:
        """Ask, write, and wait until it was judged here as it will be everywhere."""
        node = self._node

        def write(tx: SqliteTransaction) -> int | None:
            found = governance_of(tx, node)
            state = tx.feed(node.own)
            if state is None or found.head.position != state.tail:
                # What is in the log already may have taken away what this rests on; first that is judged.
                return None
            entry = new_entry(max(micros_now(), found.time))
            try:
                blob = make(found, entry.act)
                question = question_of(found, entry.act, max(micros_now(), found.time), kind)
            except Refused as refused:
                raised(refused)
            # Two doors: what this simpul is configured to do, and what the members let it do.
            if self._mode.name == "networking":
                self._mode.may(question, found).require()
            found.may(question).require()
            if dry_run:
                return -1
            node.fence.require()
            return feeds.append(tx, node.own, [Draft(entry, blob)])

        while (index := await self._when_judged(write)) is None:
            pass
        while not dry_run:
            changed = node.next_change()
            act = await node.store.read(lambda tx: self._judged(tx, index))
            if act is not None:
                if act.reason:
                    raise PreconditionError(Reason(act.reason), f"the act was refused: {act.reason}")
                return act
            await asyncio.wait_for(changed.wait(), _JUDGING_SECONDS)
        return governance_pb2.PerformedAct()

    async def _when_judged(self, write: Callable[[SqliteTransaction], int | None]) -> int | None:
        """Try once, and wait for a change if the log was not judged to its end."""
        changed = self._node.next_change()
        index = await self._node.store.write(write)
        if index is None:
            await asyncio.wait_for(changed.wait(), _JUDGING_SECONDS)
        return index

    def _judged(self, tx: SqliteTransaction, index: int) -> governance_pb2.PerformedAct | None:
        act = governance_of(tx, self._node).act(index)
        return self._affairs.fill(tx, act) if act is not None else None


def _member(found: Governance, forum: str) -> governance_pb2.FederationMember:
    member = found.member(f"forums/{forum}")
    if member is None:
        raise Refused(Reason.NOT_A_MEMBER, f"{forum} is no member")
    FeedId.parse(member.feed)
    return member


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
