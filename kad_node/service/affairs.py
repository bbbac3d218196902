"""The affairs of a federation on one node: members, mandates, decisions. What the API and the command line call.

Reading shows what ``kad_protocol.governance`` has judged here. Writing puts an entry into this forum's own feed, after asking the same
rules, so that a mistake is told at once and not by everybody else later; it counts when the simpul's log has observed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

from google.protobuf.message import DecodeError

from kad_node import outbox
from kad_node.fence import FenceState
from kad_node.query import decode_page, encode_page, fitting
from kad_node.store.transaction import micros_now
from kad_node.witness import simpul_of
from kad_protocol import content as contents
from kad_protocol import merkle
from kad_protocol.authority import FUNCTIONS, giver_of
from kad_protocol.entry import new_entry, parse_entry
from kad_protocol.errors import (
    InvalidInputError,
    KadError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    Reason,
)
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance, Refused, check_mandate
from kad_protocol.names import FeedId, local_name, new_record_id, parse_forum_name, parse_member_name
from kad_protocol.v1 import entry_pb2, governance_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["Affairs", "governance_of", "raised"]

T = TypeVar("T")

_NOT_FOUND = frozenset({Reason.MANDATE_UNKNOWN, Reason.PROPOSAL_UNKNOWN, Reason.CANDIDATE_UNKNOWN, Reason.ACT_UNKNOWN})
_INVALID = frozenset({Reason.MANDATE_INVALID, Reason.FUNCTION_UNKNOWN, Reason.CHARTER_INVALID, Reason.PROPOSAL_INVALID})
_STATE = frozenset(
    {Reason.MANDATE_OVERLAPS, Reason.MANDATE_REPEATED, Reason.VOTE_TOO_LATE, Reason.VOTE_REPEATED, Reason.VETO_TOO_LATE}
    | {Reason.ENDORSEMENT_REPEATED, Reason.ENDORSEMENTS_MISSING, Reason.VERSION_OUT_OF_ORDER, Reason.RECORD_RETRACTED}
)


def raised(refused: Refused) -> NoReturn:
    """The error of the API for a rule that is broken.

    Raises:
        KadError: always; what follows from the reason.
    """
    reason, message = refused.reason, str(refused)
    kind: type[KadError] = PermissionDeniedError
    if reason in _NOT_FOUND:
        kind = NotFoundError
    elif reason in _INVALID:
        kind = InvalidInputError
    elif reason in _STATE:
        kind = PreconditionError
    raise kind(reason, message) from refused


def governance_of(tx: SqliteTransaction, node: Node) -> Governance:
    """The affairs of this member's federation.

    Raises:
        PreconditionError: ``NOT_A_MEMBER``, it belongs to none.
    """
    simpul = simpul_of(tx, node.own)
    if simpul is None:
        raise PreconditionError(Reason.NOT_A_MEMBER, "this node belongs to no simpul, so there is no federation to decide in")
    return Governance(tx.affairs(simpul), simpul)


def _read(message: T, blob: bytes) -> T | None:
    if not blob:
        return None
    try:
        message.ParseFromString(contents.split(blob)[1])  # type: ignore[attr-defined]
    except (DecodeError, KadError):
        return None
    return message


class Affairs:
    """Members, mandates and decisions, as one node knows them."""

    def __init__(self, node: Node) -> None:
        self._node = node

    # Reading.

    async def federation(self) -> governance_pb2.Federation:
        """See ``MembershipService.GetFederation``."""

        def read(tx: SqliteTransaction) -> governance_pb2.Federation:
            found = governance_of(tx, self._node)
            found.head.chair = found.chair(micros_now())
            return found.head

        return await self._node.store.read(read)

    async def members(self, page_size: int = 0, page_token: str = "") -> governance_pb2.ListMembersResponse:
        """See ``MembershipService.ListMembers``."""
        key = decode_page(page_token, 1, "members")
        found = await self._node.store.read(lambda tx: governance_of(tx, self._node).members())
        found = [member for member in found if not key or member.name > str(key[0])]
        size = fitting(found, min(page_size or 1000, 1000))
        response = governance_pb2.ListMembersResponse(members=found[:size])
        if len(found) > size:
            response.next_page_token = encode_page([found[size - 1].name], "members")
        return response

    async def mandate_page(self, parent: str, *, live_only: bool, page_size: int, page_token: str) -> governance_pb2.ListMandatesResponse:
        """See ``MandatesService.ListMandates``."""
        key = decode_page(page_token, 1, "mandates", parent, live_only)
        found = await self.mandates(parent, live_only=live_only)
        if key:
            # By forum, and of each the newest first: go on behind the one that came last.
            forum = str(key[0]).rpartition("/mandates/")[0]
            found = [m for m in found if giver_of(m) > forum or (giver_of(m) == forum and m.name < str(key[0]))]
        size = fitting(found, min(page_size or 1000, 1000))
        response = governance_pb2.ListMandatesResponse(mandates=found[:size])
        if len(found) > size:
            response.next_page_token = encode_page([found[size - 1].name], "mandates", parent, live_only)
        return response

    async def mandates(self, parent: str, *, live_only: bool) -> list[governance_pb2.GrantedMandate]:
        """See ``MandatesService.ListMandates``."""
        name = "" if parent in ("", "forums/-") else f"forums/{parse_forum_name(parent)}"

        def read(tx: SqliteTransaction) -> list[governance_pb2.GrantedMandate]:
            found, now = governance_of(tx, self._node), micros_now()
            granted = found.mandates(name)
            for mandate in granted:
                mandate.state = found.live(mandate, now)  # type: ignore[assignment]
            own = found.name_of(self._node.own)
            if name in ("", own):
                granted += self._pending(tx, found, own)
            granted.sort(key=lambda mandate: mandate.name, reverse=True)
            granted.sort(key=giver_of)
            return [mandate for mandate in granted if not live_only or mandate.state == governance_pb2.GrantedMandate.STATE_LIVE]

        return await self._node.store.read(read)

    def _unobserved(self, tx: SqliteTransaction, found: Governance) -> Iterator[tuple[int, entry_pb2.Entry, bytes]]:
        """What this member has written with authority and the simpul's log has not observed yet; queued entries have index -1."""
        own = self._node.own
        for index in tx.authority_entries(own, found.observed_size(own) or 0, 1 << 40):
            stored = tx.entries(own, index, 1, 1)[0]
            entry = parse_entry(stored.body)
            if entry is not None:
                yield index, entry, stored.body
        for _, body, _ in tx.queued():
            entry = parse_entry(body)
            if entry is not None:
                yield -1, entry, body

    def _pending(self, tx: SqliteTransaction, found: Governance, name: str) -> list[governance_pb2.GrantedMandate]:
        pending: list[governance_pb2.GrantedMandate] = []
        for index, entry, body in self._unobserved(tx, found):
            if entry.HasField("mandate"):
                granted = governance_pb2.GrantedMandate(
                    name=f"{name}/mandates/{entry.mandate.id}", mandate=entry.mandate, state=governance_pb2.GrantedMandate.STATE_PENDING
                )
                granted.ref.feed, granted.ref.leaf_hash, granted.ref.index = self._node.own.origin, merkle.leaf_hash(body), max(index, 0)
                pending.append(granted)
        return pending

    async def acts(self, page_size: int, page_token: str) -> governance_pb2.ListActsResponse:
        """See ``MandatesService.ListActs``."""
        key = decode_page(page_token, 1, "acts")
        size = min(page_size or 50, 1000)

        def read(tx: SqliteTransaction) -> list[governance_pb2.PerformedAct]:
            before = int(key[0]) if key else 1 << 62
            found = [act for act in reversed(governance_of(tx, self._node).acts()) if act.index < before][: size + 1]
            for act in found:
                self.fill(tx, act)
            return found

        acts = await self._node.store.read(read)
        size = fitting(acts, size)
        response = governance_pb2.ListActsResponse(acts=acts[:size])
        if len(acts) > size:
            response.next_page_token = encode_page([acts[size - 1].index], "acts")
        return response

    def fill(self, tx: SqliteTransaction, act: governance_pb2.PerformedAct) -> governance_pb2.PerformedAct:
        """Put to an act what travels beside it, and whether that is at fault."""
        simpul = simpul_of(tx, self._node.own)
        problem = tx.problem(simpul, act.index) if simpul is not None and not act.reason else None
        if problem is not None and not problem.waiting:
            act.state, act.reason = governance_pb2.PerformedAct.STATE_REFUSED, problem.reason.value
        if simpul is not None and act.act.WhichOneof("deed") == "statement":
            stored = tx.entries(simpul, act.index, 1, 1)
            if (statement := _read(entry_pb2.ActStatement(), stored[0].content if stored else b"")) is not None:
                act.statement.CopyFrom(statement)
        return act

    async def decision(self, name: str) -> governance_pb2.Decision:
        """See ``DecisionsService.GetDecision``."""

        def read(tx: SqliteTransaction) -> governance_pb2.Decision:
            found = governance_of(tx, self._node)
            return self._shown(tx, found, self._find(tx, found, name))

        return await self._node.store.read(read)

    async def decisions(self, page_size: int, page_token: str) -> governance_pb2.ListDecisionsResponse:
        """See ``DecisionsService.ListDecisions``."""
        key = decode_page(page_token, 1, "decisions")
        size = min(page_size or 50, 1000)

        def read(tx: SqliteTransaction) -> list[governance_pb2.Decision]:
            found = governance_of(tx, self._node)
            every = sorted([*found.decisions(), *self._proposed(tx, found)], key=lambda decision: decision.name, reverse=True)
            page = [decision for decision in every if not key or decision.name < str(key[0])][: size + 1]
            return [self._shown(tx, found, decision) for decision in page]

        decisions = await self._node.store.read(read)
        size = fitting(decisions, size)
        response = governance_pb2.ListDecisionsResponse(decisions=decisions[:size])
        if len(decisions) > size:
            response.next_page_token = encode_page([decisions[size - 1].name], "decisions")
        return response

    def _proposed(self, tx: SqliteTransaction, found: Governance) -> list[governance_pb2.Decision]:
        """Proposals of this node that are not observed yet."""
        return [
            governance_pb2.Decision(
                name=f"decisions/{entry.proposal.id}",
                proposal=entry.proposal,
                proposer=self._node.own.origin,
                index=max(index, 0),
                leaf_hash=merkle.leaf_hash(body),
                state=governance_pb2.Decision.STATE_PENDING,
            )
            for index, entry, body in self._unobserved(tx, found)
            if entry.HasField("proposal")
        ]

    def _find(self, tx: SqliteTransaction, found: Governance, name: str) -> governance_pb2.Decision:
        number = name.rpartition("/")[2].upper()
        decision = found.decision(number) or next((d for d in self._proposed(tx, found) if d.proposal.id == number), None)
        if decision is None:
            raise NotFoundError(Reason.PROPOSAL_UNKNOWN, f"there is no proposal {name}", name=name)
        return decision

    def _shown(self, tx: SqliteTransaction, found: Governance, decision: governance_pb2.Decision) -> governance_pb2.Decision:
        if decision.state == governance_pb2.Decision.STATE_OPEN:
            found.count(decision)
        text = _read(entry_pb2.ProposalText(), self._blob(tx, decision.proposer, decision.index))
        if text is not None:
            decision.text.CopyFrom(text)
        for vote in decision.votes:
            comment = _read(entry_pb2.VoteComment(), self._blob(tx, vote.feed, vote.index))
            vote.comment = comment.text if comment is not None else ""
        return decision

    def _blob(self, tx: SqliteTransaction, origin: str, index: int) -> bytes:
        stored = tx.entries(FeedId.parse(origin), index, 1, 1)
        return stored[0].content if stored else b""

    # Writing: one entry of one's own feed.

    async def _write(self, make: Callable[[SqliteTransaction, Governance, entry_pb2.Entry], tuple[Draft, T]]) -> tuple[int, T]:
        node = self._node

        def write(tx: SqliteTransaction) -> tuple[int, T]:
            try:
                draft, result = make(tx, governance_of(tx, node), new_entry(micros_now()))
            except Refused as refused:
                raised(refused)
            index = outbox.put(tx, node.own, [draft], open_fence=node.fence.state is FenceState.OPEN)
            return -1 if index is None else index, result

        return await node.store.write(write)

    def _member(self, found: Governance, *, votes: bool = False) -> governance_pb2.FederationMember:
        member = found.member(found.name_of(self._node.own))
        if member is None or member.state == entry_pb2.MEMBERSHIP_STATE_LEFT:
            raise Refused(Reason.MEMBER_LEFT if member is not None else Reason.NOT_A_MEMBER, "this forum is no member of the federation")
        if votes and (member.state != entry_pb2.MEMBERSHIP_STATE_ACTIVE or member.category == entry_pb2.MEMBER_CATEGORY_ASSOCIATE):
            raise Refused(Reason.NOT_FULL_MEMBER, f"{member.name} is no active full member")
        return member

    async def grant(self, asked: entry_pb2.Mandate) -> governance_pb2.GrantedMandate:
        """See ``MandatesService.GrantMandate``."""

        def make(tx: SqliteTransaction, found: Governance, entry: entry_pb2.Entry) -> tuple[Draft, str]:
            mandate = entry.mandate
            mandate.CopyFrom(asked)
            mandate.id = mandate.id or new_record_id()
            mandate.delegate = mandate.delegate or found.simpul.origin
            if not mandate.HasField("not_before"):
                mandate.not_before.CopyFrom(entry.time)
            member = self._member(found)
            if contents.validate(mandate) and mandate.function in FUNCTIONS:
                first = contents.validate(mandate)[0]
                raise Refused(Reason.MANDATE_INVALID, f"the mandate cannot be: {first.field}: {first.description}")
            check_mandate(mandate, self._node.own, found.simpul)
            found.check_new_mandate(member.name, mandate, micros_now())
            for pending in self._pending(tx, found, member.name):
                if pending.mandate.id == mandate.id:
                    raise Refused(Reason.MANDATE_REPEATED, f"{pending.name} was given before")
            return Draft(entry), mandate.id

        _, number = await self._write(make)
        return next(m for m in await self.mandates("", live_only=False) if m.mandate.id == number)

    async def revoke(self, name: str) -> int:
        """See ``MandatesService.RevokeMandate``."""

        def make(tx: SqliteTransaction, found: Governance, entry: entry_pb2.Entry) -> tuple[Draft, None]:
            member, number = self._member(found), name.rpartition("/")[2].upper()
            known = [*found.mandates(member.name), *self._pending(tx, found, member.name)]
            granted = next((m for m in known if m.mandate.id == number), None)
            if granted is None:
                raise Refused(Reason.MANDATE_UNKNOWN, f"{member.name} has given no mandate {number[:40]}")
            if granted.end_position or any(e.mandate_revocation.mandate == number for _, e, _ in self._unobserved(tx, found)):
                raise Refused(Reason.MANDATE_REVOKED, f"{granted.name} was revoked before")
            entry.mandate_revocation.mandate = number
            return Draft(entry), None

        return (await self._write(make))[0]

    async def veto(self, name: str) -> int:
        """See ``MandatesService.VetoAct``."""

        def make(tx: SqliteTransaction, found: Governance, entry: entry_pb2.Entry) -> tuple[Draft, None]:
            del tx
            index = int(name.rpartition("/")[2])
            found.check_veto(self._member(found), index)
            entry.veto.feed, entry.veto.index = found.simpul.origin, index
            return Draft(entry), None

        return (await self._write(make))[0]

    async def endorse(self, name: str) -> governance_pb2.FederationMember:
        """See ``MembershipService.EndorseCandidate``."""
        federation, forum = parse_member_name(name)
        wanted = local_name(forum, "" if federation == self._node.own.federation else federation)

        def make(tx: SqliteTransaction, found: Governance, entry: entry_pb2.Entry) -> tuple[Draft, governance_pb2.FederationMember]:
            member, candidate = self._member(found, votes=True), found.member(wanted)
            if candidate is None or candidate.state != entry_pb2.MEMBERSHIP_STATE_APPLIED:
                raise Refused(Reason.CANDIDATE_UNKNOWN, f"{wanted} has not applied")
            written = any(
                e.endorsement.genesis == candidate.genesis for _, e, _ in self._unobserved(tx, found) if e.HasField("endorsement")
            )
            if member.name in candidate.endorsements or written:
                raise Refused(Reason.ENDORSEMENT_REPEATED, f"{member.name} has endorsed {wanted} before")
            entry.endorsement.feed, entry.endorsement.genesis = candidate.feed, candidate.genesis
            entry.endorsement.category = candidate.category
            return Draft(entry), candidate

        return (await self._write(make))[1]

    async def leave(self) -> int:
        """See ``MembershipService.LeaveFederation``."""

        def make(tx: SqliteTransaction, found: Governance, entry: entry_pb2.Entry) -> tuple[Draft, None]:
            del tx
            self._member(found)
            entry.departure.SetInParent()
            return Draft(entry), None

        return (await self._write(make))[0]

    async def propose(self, request: governance_pb2.ProposeRequest) -> governance_pb2.Decision:
        """See ``DecisionsService.Propose``."""

        def make(tx: SqliteTransaction, found: Governance, entry: entry_pb2.Entry) -> tuple[Draft, str]:
            del tx
            self._member(found, votes=True)
            proposal = entry.proposal
            proposal.id = new_record_id()
            proposal.deadline.CopyFrom(request.deadline)
            match request.WhichOneof("matter"):
                case "charter":
                    proposal.charter.CopyFrom(request.charter)
                    proposal.charter.version = request.charter.version or found.charter.version + 1
                case "standing":
                    proposal.standing.CopyFrom(request.standing)
            blob = _beside(proposal, request.text)
            found.check_proposal(proposal, micros_now())
            return Draft(entry, blob), proposal.id

        _, number = await self._write(make)
        return await self.decision(f"decisions/{number}")

    async def vote(self, request: governance_pb2.CastVoteRequest) -> governance_pb2.Decision:
        """See ``DecisionsService.CastVote``."""

        def make(tx: SqliteTransaction, found: Governance, entry: entry_pb2.Entry) -> tuple[Draft, str]:
            member, decision = self._member(found), self._find(tx, found, request.name)
            vote = entry.vote
            vote.proposal, vote.leaf_hash, vote.choice = decision.proposal.id, decision.leaf_hash, request.choice
            if decision.state != governance_pb2.Decision.STATE_PENDING:
                found.check_vote(member.name, vote, micros_now())
            if any(e.vote.proposal == vote.proposal for _, e, _ in self._unobserved(tx, found)):
                raise Refused(Reason.VOTE_REPEATED, f"{member.name} has voted on {decision.name} before")
            blob = _beside(vote, entry_pb2.VoteComment(text=request.comment)) if request.comment else b""
            return Draft(entry, blob), decision.name

        _, name = await self._write(make)
        return await self.decision(name)


def _beside(part: entry_pb2.Proposal | entry_pb2.Vote, text: Message) -> bytes:
    """Put text that people write beside its entry."""
    contents.check(text)
    blob = contents.new_blob(text.SerializeToString())
    part.digest, part.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES
    return blob
