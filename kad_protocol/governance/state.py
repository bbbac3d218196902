"""What is kept of a federation at one place of its simpul's log, and what can be read from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kad_protocol.authority import Policy, Question, Verdict, giver_of, member_name, micros_of, policy
from kad_protocol.entry import log_keys_of
from kad_protocol.governance.words import (
    ACTIVE,
    APPLIED,
    DAY,
    DEFAULT_LAG_SECONDS,
    FOUNDING_RULES,
    LEFT,
    Decision,
    GrantedMandate,
    PerformedAct,
    has_vote,
    place_key,
    position_of,
)
from kad_protocol.names import FeedId
from kad_protocol.v1 import entry_pb2, governance_pb2

if TYPE_CHECKING:
    from kad_protocol.governance.effects import Effect
    from kad_protocol.note import LogKeys

__all__ = ["Items", "State"]


class Items(Protocol):
    """Where the state of one federation lies: a map of small serialised messages, in the transaction of the feeds."""

    def get(self, kind: str, key: str) -> bytes | None:
        """One item."""

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Insert or replace."""

    def delete(self, kind: str, key: str) -> None:
        """Forget."""

    def all(self, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """Items of a kind whose key begins so, by key."""


class State:
    """One federation at one place of its simpul's log (``authority.Facts``): what is known, and how it is kept."""

    def __init__(self, items: Items, simpul: FeedId) -> None:
        self._items = items
        self._simpul = simpul
        kept = items.get("federation", "")
        if kept is not None:
            self.head = governance_pb2.Federation.FromString(kept)
        else:
            self.head = governance_pb2.Federation(simpul=simpul.origin, mode=entry_pb2.MODE_NETWORKING, charter=FOUNDING_RULES)
        self.effects: list[Effect] = []

    @property
    def simpul(self) -> FeedId:
        """See ``authority.Facts``."""
        return self._simpul

    @property
    def charter(self) -> entry_pb2.Charter:
        """See ``authority.Facts``."""
        return self.head.charter

    @property
    def time(self) -> int:
        """Time of the log, microseconds since 1970."""
        return micros_of(self.head.time)

    @property
    def confirmed(self) -> int:
        """The newest time at which members confirmed the log, microseconds since 1970; 0 before the first."""
        return micros_of(self.head.confirmed_time)

    @property
    def now(self) -> int:
        """Time of the log, as far as it can be believed: a simpul's clock that runs off takes nobody's rights away."""
        return min(self.time, self.confirmed + DAY) if self.confirmed else self.time

    @property
    def policy(self) -> Policy:
        """The mode in force."""
        return policy(self.head.mode)

    @property
    def lag_seconds(self) -> int:
        """How long the simpul may take to observe what a witness holds."""
        return self.head.charter.lag_seconds or DEFAULT_LAG_SECONDS

    def name_of(self, feed: FeedId) -> str:
        """The name of a member of this federation."""
        return member_name(feed, self._simpul.federation)

    def member(self, name: str) -> governance_pb2.FederationMember | None:
        """See ``authority.Facts``."""
        kept = self._items.get("member", name)
        return None if kept is None else governance_pb2.FederationMember.FromString(kept)

    def members(self) -> list[governance_pb2.FederationMember]:
        """Members and candidates, by name."""
        return [governance_pb2.FederationMember.FromString(value) for _, value in self._items.all("member")]

    def full_members(self) -> list[str]:
        """See ``authority.Facts``."""
        return [member.name for member in self.electorate()]

    def electorate(self) -> list[governance_pb2.FederationMember]:
        """Active full members whose admission is confirmed; all of them where nobody is left who could confirm anything.

        So whom a simpul admits, rightly or not, has no part in confirming that, nor a vote before.
        """
        voting, known = self._voting(), set(self.head.electorate)
        return [member for member in voting if member.name in known] or voting

    def _voting(self) -> list[governance_pb2.FederationMember]:
        # Not all members are read for it: whoever applies costs nothing, and a simpul can let endlessly many apply.
        return [governance_pb2.FederationMember.FromString(value) for _, value in self._items.all("voting")]

    def _holders(self) -> list[str]:
        """Feeds of full members, of all epochs: whoever began anew keeps its office."""
        return [feed for member in self._voting() for feed in (member.feed, *(former.feed for former in member.former))]

    def observed_size(self, feed: FeedId) -> int | None:
        """How much of a member's feed was observed so far; None if it is no member's feed of today."""
        member = self.member(self.name_of(feed))
        return member.observed_size if member is not None and member.feed == feed.origin and member.state != APPLIED else None

    def witness_keys(self, feed: FeedId, size: int) -> LogKeys | None:
        """The keys with which a member confirms a checkpoint of so many entries of this log: those that the log has observed before.

        So everybody who holds these entries knows them, whatever else of that member has arrived, and a change of keys is a change
        at one place for all. None while the log has observed no keys of that member.
        """
        member = self.member(self.name_of(feed))
        if member is None or member.feed != feed.origin or not member.HasField("witness_keys"):
            return None
        early = size <= member.witness_position and member.HasField("former_witness_keys")
        keys = member.former_witness_keys if early else member.witness_keys
        return log_keys_of(feed.origin, keys.SerializeToString())

    def any_witness_keys(self, feed: FeedId) -> list[LogKeys]:
        """The keys with which a member says what it holds of others, newest first: those of today, and those before them."""
        member = self.member(self.name_of(feed))
        if member is None or member.feed != feed.origin:
            return []
        known = [getattr(member, field) for field in ("witness_keys", "former_witness_keys") if member.HasField(field)]
        return [log_keys_of(feed.origin, keys.SerializeToString()) for keys in known]

    def mandate(self, ref: entry_pb2.MandateRef) -> governance_pb2.GrantedMandate | None:
        """See ``authority.Facts``."""
        key = self._items.get("mandate-place", f"{ref.feed} {ref.index}")
        kept = self._items.get("mandate", key.decode()) if key is not None else None
        granted = None if kept is None else GrantedMandate.FromString(kept)
        return granted if granted is not None and granted.ref.leaf_hash == ref.leaf_hash else None

    def mandates(self, name: str = "") -> list[governance_pb2.GrantedMandate]:
        """Mandates of a member, or of all, oldest first for each."""
        return [GrantedMandate.FromString(value) for _, value in self._items.all("mandate", f"{name}/" if name else "")]

    def running(self, name: str = "") -> list[governance_pb2.GrantedMandate]:
        """Those of them that were not taken back, and may have expired: few, however many a member has given in its life."""
        found = (self._items.get("mandate", key) for key, _ in self._items.all("running", f"{name}/" if name else ""))
        return [GrantedMandate.FromString(value) for value in found if value is not None]

    def live(self, granted: governance_pb2.GrantedMandate, now: int) -> int:
        """Where a mandate stands at a time."""
        state = governance_pb2.GrantedMandate
        member = self.member(giver_of(granted))
        if granted.end_position or member is None or member.state == LEFT:
            return state.STATE_REVOKED
        if now >= micros_of(granted.mandate.not_after):
            return state.STATE_EXPIRED
        if self.head.mode != entry_pb2.MODE_SUBSIDIARITY or member.state != ACTIVE:
            return state.STATE_DORMANT
        return state.STATE_FUTURE if now < micros_of(granted.mandate.not_before) else state.STATE_LIVE

    def usable(self, function: str, now: int, name: str = "") -> list[governance_pb2.GrantedMandate]:
        """Mandates that count now, for one function."""
        return [
            granted
            for granted in self.running(name)
            if granted.mandate.function == function and self.live(granted, now) == GrantedMandate.STATE_LIVE
        ]

    def was_curated(self, name: str) -> bool:
        """Has this member ever let the simpul review its records? If not, none of them waits."""
        return self._items.get("curating", name) is not None

    def curated(self, name: str, kind: int) -> bool:
        """Do records of this kind wait for review before others read them?"""
        if not self.was_curated(name) or self.head.mode != entry_pb2.MODE_SUBSIDIARITY:
            return False
        return any(kind in granted.mandate.kinds for granted in self.usable("curate", self.now, name))

    def decision(self, number: str) -> governance_pb2.Decision | None:
        """A proposal by its id."""
        kept = self._items.get("decision", number)
        return None if kept is None else Decision.FromString(kept)

    def decisions(self) -> list[governance_pb2.Decision]:
        """All proposals, oldest first (by id)."""
        return [Decision.FromString(value) for _, value in self._items.all("decision")]

    def _open(self) -> list[governance_pb2.Decision]:
        found = (self.decision(number) for number, _ in self._items.all("open"))
        return [decision for decision in found if decision is not None]

    def act(self, index: int) -> governance_pb2.PerformedAct | None:
        """What the simpul did at an index of its feed."""
        kept = self._items.get("act", place_key(index))
        return None if kept is None else PerformedAct.FromString(kept)

    def acts(self) -> list[governance_pb2.PerformedAct]:
        """All acts, oldest first."""
        return [PerformedAct.FromString(value) for _, value in self._items.all("act")]

    def awaits_below(self, size: int) -> bool:
        """Does something at a place below ``size`` wait to become final?"""
        waiting = self._items.all("awaiting")
        return bool(waiting) and position_of(waiting[0][0]) < size

    def chair(self, now: int) -> str:
        """Who has the chair at a time; empty where the charter knows none."""
        term, full = self.head.charter.chair_term_days * DAY, self.full_members()
        return full[max(0, now - micros_of(self.head.charter_time)) // term % len(full)] if term and full else ""

    def may(self, question: Question) -> Verdict:
        """Ask the mode in force."""
        return self.policy.may(question, self)

    def _await(self, position: int, decision: str = "") -> None:
        # At one entry an act may be done and any number of decisions may close: each waits for itself.
        self._items.put("awaiting", f"{place_key(position)}/{decision}" if decision else place_key(position), b"")
        self.head.awaiting_size = max(self.head.awaiting_size, position + 1)

    def _keep_member(self, member: governance_pb2.FederationMember) -> None:
        said = member.SerializeToString()
        self._items.put("member", member.name, said)
        if has_vote(member):
            self._items.put("voting", member.name, said)
        else:
            self._items.delete("voting", member.name)

    def _keep_mandate(self, granted: governance_pb2.GrantedMandate) -> None:
        key = f"{giver_of(granted)}/{granted.mandate.id}"
        self._items.put("mandate", key, granted.SerializeToString())
        if granted.end_position:
            self._items.delete("running", key)
        else:
            self._items.put("running", key, b"")
        if granted.mandate.function == "curate" and not granted.end_position:
            # A mark that is cheap to look for, since it is asked for each record that arrives.
            self._items.put("curating", giver_of(granted), b"")

    def _keep_act(self, performed: governance_pb2.PerformedAct) -> None:
        self._items.put("act", place_key(performed.index), performed.SerializeToString())

    def _keep_decision(self, decision: governance_pb2.Decision) -> None:
        self._items.put("decision", decision.proposal.id, decision.SerializeToString())
        if decision.state == Decision.STATE_OPEN:
            self._items.put("open", decision.proposal.id, self.name_of(FeedId.parse(decision.proposer)).encode())
        else:
            self._items.delete("open", decision.proposal.id)
