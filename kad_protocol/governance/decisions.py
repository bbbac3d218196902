"""Decisions of the members: charter, proposals, votes, and what follows from an outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_protocol.authority import FUNCTIONS, micros_of, threshold
from kad_protocol.errors import Reason
from kad_protocol.governance.effects import Standing
from kad_protocol.governance.submissions import ALL_KINDS, Submissions
from kad_protocol.governance.words import ACTIVE, DAY, MEMBER, PROPOSAL, SUSPENDED, Decision, Refused, feed_named, has_vote, set_time
from kad_protocol.names import FeedId, is_record_id
from kad_protocol.v1 import entry_pb2, governance_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Decisions", "check_charter"]

#: Open ones of one member; see ``mandates``.
_MOST_PROPOSALS = 20
_LONGEST_DEADLINE_DAYS = 366
_MIN_LAG_SECONDS = 10
_YES, _NO, _ABSTAIN = entry_pb2.Vote.CHOICE_YES, entry_pb2.Vote.CHOICE_NO, entry_pb2.Vote.CHOICE_ABSTAIN


def check_charter(charter: entry_pb2.Charter, current: entry_pb2.Charter, full_members: Iterable[str] | None = None) -> None:
    """Check a charter against itself and the one in force.

    Raises:
        Refused: ``CHARTER_INVALID``.
    """
    rules = [rule.function for rule in charter.collective]
    majorities = (charter.general_percent, charter.membership_percent, charter.charter_percent)
    holders = set(full_members) if full_members is not None else None
    for wrong, why in (
        (charter.version != current.version + 1, f"it is version {charter.version}, {current.version + 1} is due"),
        (charter.mode not in (entry_pb2.MODE_NETWORKING, entry_pb2.MODE_SUBSIDIARITY), "it names no mode"),
        (not 1 <= charter.participation_percent <= 100, "participation is 1 to 100 percent"),  # noqa: PLR2004
        (not all(51 <= percent <= 100 for percent in majorities), "a majority is 51 to 100 percent"),  # noqa: PLR2004
        (charter.charter_percent < charter.general_percent, "changing the charter would need less than a general matter"),
        (charter.notice_hours > 2160, "the notice is 90 days at most"),  # noqa: PLR2004
        (len(rules) != len(set(rules)), "it has two rules for one function"),
        (any(name not in FUNCTIONS or not FUNCTIONS[name].collective for name in rules), "a rule for a function that is not collective"),
        (any(not 51 <= rule.percent <= 100 for rule in charter.collective), "a collective function needs 51 to 100 percent"),  # noqa: PLR2004
        (charter.lag_seconds != 0 and not _MIN_LAG_SECONDS <= charter.lag_seconds <= 86_400, "the lag is 10 to 86,400 seconds"),  # noqa: PLR2004
        (charter.admission_endorsements > 600 or charter.chair_term_days > 3660 or len(charter.seats) > 32, "a number is too large"),  # noqa: PLR2004
        (holders is not None and any(seat.feed not in holders for seat in charter.seats), "a seat is held by nobody who is a full member"),
    ):
        if wrong:
            raise Refused(Reason.CHARTER_INVALID, f"the charter cannot be: {why}")


class Decisions(Submissions):
    """Proposals are opened, voted on and closed."""

    def check_proposal(self, proposal: entry_pb2.Proposal, now: int) -> None:
        """Check a proposal against the rules in force.

        Raises:
            Refused: ``PROPOSAL_INVALID``, ``CHARTER_INVALID``.
        """
        deadline = micros_of(proposal.deadline)
        matter = proposal.WhichOneof("matter")
        notice = self.charter.notice_hours * 3600 * 1_000_000 if matter == "charter" else 0
        for wrong, why in (
            (not is_record_id(proposal.id), "its id is no ULID"),
            (not proposal.HasField("deadline") or deadline <= now, "its deadline has passed"),
            (deadline > now + _LONGEST_DEADLINE_DAYS * DAY, "its deadline is more than a year away"),
            (deadline < now + notice, f"a new charter needs {self.charter.notice_hours} hours of notice"),
        ):
            if wrong:
                raise Refused(Reason.PROPOSAL_INVALID, f"the proposal cannot be: {why}")
        if matter == "charter":
            check_charter(proposal.charter, self.charter, self._holders())
        elif matter == "standing":
            member = self.member(self.name_of(feed_named(proposal.standing.feed)))
            if member is None or {member.state, proposal.standing.state} != {ACTIVE, SUSPENDED}:
                raise Refused(Reason.PROPOSAL_INVALID, "only an active member is suspended, only a suspended one is reinstated")

    def _propose(
        self, member: governance_pb2.FederationMember, feed: FeedId, index: int, leaf: bytes, proposal: entry_pb2.Proposal, position: int
    ) -> None:
        if not has_vote(member):
            raise Refused(Reason.NOT_FULL_MEMBER, f"{member.name} is no full member")
        if self.decision(proposal.id) is not None:
            raise Refused(Reason.PROPOSAL_REPEATED, f"there is a proposal {proposal.id} already")
        self.check_proposal(proposal, self.confirmed or self.time)
        if sum(1 for _, proposer in self._items.all("open") if proposer == member.name.encode()) >= _MOST_PROPOSALS:
            raise Refused(Reason.PROPOSAL_INVALID, f"{member.name} has {_MOST_PROPOSALS} open proposals; let some of them be decided first")
        decision = Decision(
            name=f"decisions/{proposal.id}",
            proposal=proposal,
            proposer=feed.origin,
            index=index,
            leaf_hash=leaf,
            state=Decision.STATE_OPEN,
            open_position=position,
        )
        decision.open_time.CopyFrom(self.head.time)
        concerned = self.name_of(feed_named(proposal.standing.feed)) if proposal.WhichOneof("matter") == "standing" else ""
        # Nobody decides about itself.
        decision.electors.extend(name for name in self.full_members() if name != concerned)
        self._keep_decision(decision)
        self._await(position, f"{PROPOSAL}{proposal.id}")
        self._due()

    def check_vote(self, name: str, vote: entry_pb2.Vote, written: int) -> governance_pb2.Decision:
        """Check a vote that its member wrote at a time of its own; returns what it is on.

        Raises:
            Refused: ``PROPOSAL_UNKNOWN``, ``VOTE_TOO_LATE``, ``VOTE_NOT_ENTITLED``, ``VOTE_REPEATED``.
        """
        decision = self.decision(vote.proposal)
        if decision is None or decision.leaf_hash != vote.leaf_hash:
            raise Refused(Reason.PROPOSAL_UNKNOWN, f"there is no such proposal as {vote.proposal[:40]!r}")
        if decision.state != Decision.STATE_OPEN:
            raise Refused(Reason.VOTE_TOO_LATE, f"{decision.name} is closed")
        if written >= micros_of(decision.proposal.deadline):
            raise Refused(Reason.VOTE_TOO_LATE, f"the vote on {decision.name} was cast after its deadline")
        if name not in decision.electors:
            raise Refused(Reason.VOTE_NOT_ENTITLED, f"{name} has no vote on {decision.name}")
        if any(cast.member == name for cast in decision.votes):
            raise Refused(Reason.VOTE_REPEATED, f"{name} has voted on {decision.name} before")
        if vote.choice not in (_YES, _NO, _ABSTAIN):
            raise Refused(Reason.ENTRY_MALFORMED, "a vote that is none")
        return decision

    def _vote(self, member: governance_pb2.FederationMember, feed: FeedId, index: int, entry: entry_pb2.Entry, position: int) -> None:
        decision = self.check_vote(member.name, entry.vote, micros_of(entry.time))
        decision.votes.add(member=member.name, choice=entry.vote.choice, feed=feed.origin, index=index)
        self._keep_decision(decision)
        self._close_if_all_voted(decision, position)

    def count(self, decision: governance_pb2.Decision) -> None:
        """Fill in the counts: the votes of those who can vote now."""
        entitled = set(decision.electors) & set(self.full_members())
        choices = [cast.choice for cast in decision.votes if cast.member in entitled]
        decision.yes, decision.no, decision.abstain = choices.count(_YES), choices.count(_NO), choices.count(_ABSTAIN)
        decision.eligible = len(entitled)

    def _outcome(self, decision: governance_pb2.Decision) -> str:
        """Why it is not accepted, empty if it is. The counts are filled in."""
        rules, matter = self.charter, decision.proposal.WhichOneof("matter")
        participation, share = rules.participation_percent, rules.general_percent
        if matter == "standing":
            share = rules.membership_percent
        elif matter == "charter":
            fresh = decision.proposal.charter
            # As with the roots of TUF: a new rule must pass by the old rule and by itself.
            share = max(rules.charter_percent, fresh.charter_percent)
            participation = max(participation, fresh.participation_percent)
            if not rules.version and decision.yes != decision.eligible:
                return "FIRST_CHARTER_NEEDS_ALL"
            try:
                check_charter(fresh, rules, self._holders())
            except Refused:
                return "CHARTER_INVALID"
        voted = decision.yes + decision.no + decision.abstain
        if not decision.eligible or voted < threshold(decision.eligible, participation):
            return "PARTICIPATION"
        decided = decision.yes + decision.no
        if not decided or decision.yes * 100 < share * decided:
            return "MAJORITY"
        return ""

    def _close_if_all_voted(self, decision: governance_pb2.Decision, position: int) -> None:
        self.count(decision)
        if decision.yes + decision.no + decision.abstain < decision.eligible:
            return
        waits_for_notice = decision.proposal.WhichOneof("matter") == "charter" and decision.yes != decision.eligible
        if not waits_for_notice or not self.charter.notice_hours:
            self._close(decision, position)

    def _close(self, decision: governance_pb2.Decision, position: int) -> None:
        self.count(decision)
        outcome = self._outcome(decision)
        self._end_decision(decision, position, Decision.STATE_REJECTED if outcome else Decision.STATE_ACCEPTED, outcome)
        if outcome:
            return
        match decision.proposal.WhichOneof("matter"):
            case "charter":
                self.head.charter.CopyFrom(decision.proposal.charter)
                self.head.mode = decision.proposal.charter.mode
                self.head.charter_decision = decision.proposal.id
                self.head.charter_time.CopyFrom(self.head.time)
                if self.head.mode != entry_pb2.MODE_SUBSIDIARITY:
                    for name, _ in self._items.all("curating"):
                        if (member := self.member(name)) is not None:
                            self._release(FeedId.parse(member.feed), ALL_KINDS)
            case "standing":
                self._change_standing(decision, position)

    def _change_standing(self, decision: governance_pb2.Decision, position: int) -> None:
        standing = decision.proposal.standing
        member = self.member(self.name_of(feed_named(standing.feed)))
        if member is None or {member.state, standing.state} != {ACTIVE, SUSPENDED}:
            return
        member.state, member.position, member.decision = standing.state, position, decision.proposal.id
        self._await(position, f"{MEMBER}{member.name}")
        member.time.CopyFrom(self.head.time)
        self._keep_member(member)
        self.effects.append(Standing(FeedId.parse(member.feed), member.state, member.category))

    def _end_decision(
        self, decision: governance_pb2.Decision, position: int, state: governance_pb2.Decision.State.ValueType, outcome: str
    ) -> None:
        decision.state, decision.outcome, decision.close_position = state, outcome, position
        decision.close_time.CopyFrom(self.head.time)
        self._keep_decision(decision)
        self._await(position, decision.proposal.id)
        self._due()

    def _due_time(self, decision: governance_pb2.Decision) -> int | None:
        """When a decision is closed, whoever has voted by then; None while its notice has not begun."""
        deadline = micros_of(decision.proposal.deadline)
        if decision.proposal.WhichOneof("matter") != "charter" or not self.charter.notice_hours:
            return deadline
        if not decision.HasField("confirmed_open_time"):
            return None
        return max(deadline, micros_of(decision.confirmed_open_time) + self.charter.notice_hours * 3600 * 1_000_000)

    def _due(self) -> None:
        dues = [due for decision in self._open() if (due := self._due_time(decision)) is not None]
        self.head.ClearField("next_deadline")
        if dues:
            set_time(self.head.next_deadline, min(dues))
