"""The affairs of a federation, folded in the order of its simpul's log: members, mandates, decisions, charter, what is final.

Order comes from the simpul's observations, never from clocks: what a member wrote counts from the place where that log first observes
it. So everybody who holds the same feeds gets the same state at the same place, and what was lawful there is never judged again.

``Governance`` is one federation at one place. Its state lies in ``Items``, a small map that a store keeps in the same transaction as the
feeds (a dict in tests). It decides and remembers; what follows for records, feeds and witnesses it hands out as ``effects``, which
``kad_protocol.order`` carries out.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from kad_protocol.authority import (
    FUNCTIONS,
    Action,
    Policy,
    Question,
    Verdict,
    giver_of,
    is_region,
    is_within_regions,
    member_name,
    micros_of,
    policy,
    threshold,
)
from kad_protocol.entry import log_keys_of
from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError
from kad_protocol.keys import recovery_digest
from kad_protocol.names import FeedId, is_record_id
from kad_protocol.note import Checkpoint, Note, verify_cosignatures
from kad_protocol.statement import CERTIFICATE_BINDING, RECOVERY, verify_statement
from kad_protocol.v1 import content_pb2, enrolment_pb2, entry_pb2, governance_pb2
from kad_protocol.witness import LAST_SECOND, confirming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.timestamp_pb2 import Timestamp

    from kad_protocol.note import LogKeys

__all__ = [
    "FOUNDING_RULES",
    "LONGEST_MANDATE_DAYS",
    "UNLAWFUL",
    "Annulled",
    "Effect",
    "Governance",
    "Items",
    "Pinned",
    "Refused",
    "Released",
    "Standing",
    "Superseded",
    "Withdrawn",
    "check_charter",
    "check_mandate",
]

_DAY = 86_400 * 1_000_000
_MINUTE = 60 * 1_000_000
LONGEST_MANDATE_DAYS = 400
#: Mandates of one member that run at one time, and proposals of one member that are open: whoever needs more can only want to make work
#: for everybody, since each new one is compared with them.
_MOST_MANDATES = 100
_MOST_PROPOSALS = 20
#: Said in the contract; an act that cites or names more is none.
_MOST_CITED, _MOST_SECTORS, _MOST_REGIONS = 600, 32, 600
_LONGEST_DEADLINE_DAYS = 366
#: What else waits to be confirmed, besides acts and the ends of decisions: who is a member, and what is put to the vote.
_MEMBER, _PROPOSAL = "+", "?"
#: How far the time of an act may lie beyond the time at which members confirmed it: clocks differ.
_CLOCK_TOLERANCE = 5 * _MINUTE
DEFAULT_LAG_SECONDS = 600
_MIN_LAG_SECONDS = 10

#: What holds before the members have adopted a charter: the simpul admits whom it invited, decisions are by consensus.
FOUNDING_RULES = entry_pb2.Charter(
    version=0,
    mode=entry_pb2.MODE_NETWORKING,
    admission_endorsements=0,
    participation_percent=67,
    general_percent=100,
    membership_percent=100,
    charter_percent=100,
    notice_hours=0,
    lag_seconds=DEFAULT_LAG_SECONDS,
)

_ACTIVE, _SUSPENDED, _LEFT, _APPLIED = (
    entry_pb2.MEMBERSHIP_STATE_ACTIVE,
    entry_pb2.MEMBERSHIP_STATE_SUSPENDED,
    entry_pb2.MEMBERSHIP_STATE_LEFT,
    entry_pb2.MEMBERSHIP_STATE_APPLIED,
)
_ASSOCIATE = entry_pb2.MEMBER_CATEGORY_ASSOCIATE
_YES, _NO, _ABSTAIN = entry_pb2.Vote.CHOICE_YES, entry_pb2.Vote.CHOICE_NO, entry_pb2.Vote.CHOICE_ABSTAIN
_Mandate, _Act, _Decision = governance_pb2.GrantedMandate, governance_pb2.PerformedAct, governance_pb2.Decision

#: Reasons for which what a simpul wrote has no effect because it may not write it; the rules are known to it, so it is no accident.
UNLAWFUL = frozenset(
    {
        Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE,
        Reason.ACT_INVALID,
        Reason.ACT_TIME_WRONG,
        Reason.ALREADY_ENROLLED,
        Reason.CENSUS_WRONG,
        Reason.CONSENT_MISSING,
        Reason.DECISION_MISSING,
        Reason.ENDORSEMENTS_MISSING,
        Reason.ENTRY_NOT_AVAILABLE_TO_ROLE,
        Reason.EPOCH_SUPERSEDED,
        Reason.FINALITY_INVALID,
        Reason.FOUNDING_TOO_LATE,
        Reason.FUNCTION_UNKNOWN,
        Reason.GENESIS_MISMATCH,
        Reason.MANDATES_TOO_FEW,
        Reason.MANDATE_EXPIRED,
        Reason.MANDATE_INVALID,
        Reason.MANDATE_NOT_YET,
        Reason.MANDATE_REVOKED,
        Reason.MANDATE_SCOPE,
        Reason.MANDATE_UNKNOWN,
        Reason.MEMBER_LEFT,
        Reason.MEMBER_SUSPENDED,
        Reason.NOT_A_MEMBER,
        Reason.NO_MANDATE,
        Reason.OBSERVATION_WENT_BACK,
        Reason.RECOVERY_INVALID,
    }
)

#: Where a version of a record stood with those who review it.
_SHOWN, _WAITS, _TURNED_DOWN = 0, 1, 2
_ALL_KINDS = frozenset(content_pb2.RecordKind.values())

#: What a suspended member may still write with effect: nothing can take these away.
_ALWAYS = frozenset({"mandate_revocation", "departure", "key_rotation", "genesis", "veto"})
#: What counts of a member that has left as well: its keys go on, or it could confirm nothing after it has come back.
_KEYS = frozenset({"key_rotation", "genesis"})


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


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An entry has no effect."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Pinned:
    """A feed is accepted from now on."""

    feed: FeedId
    genesis: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """A member's standing changed."""

    feed: FeedId
    state: int
    category: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What an act published has no effect any more."""

    act: governance_pb2.PerformedAct
    reason: Reason


@dataclass(frozen=True, slots=True)
class Annulled:
    """What an entry of the simpul's log did has turned out not to be lawful."""

    index: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Released:
    """Submissions of a forum, of these kinds, need not wait any longer."""

    feed: FeedId
    kinds: frozenset[int]


@dataclass(frozen=True, slots=True)
class Superseded:
    """A feed was given up by its owner; what it holds beyond ``good_size`` is void, and ``heir`` goes on with the rest."""

    feed: FeedId
    good_size: int
    heir: FeedId


Effect = Pinned | Standing | Withdrawn | Annulled | Released | Superseded


def check_mandate(mandate: entry_pb2.Mandate, own: FeedId, simpul: FeedId) -> None:
    """Check what can be said of a mandate alone; its author and everybody else do.

    Raises:
        Refused: ``FUNCTION_UNKNOWN``, ``MANDATE_INVALID``.
    """
    function = FUNCTIONS.get(mandate.function)
    if function is None:
        raise Refused(Reason.FUNCTION_UNKNOWN, f"there is no function {mandate.function[:40]!r}; it is one of {', '.join(FUNCTIONS)}")
    begin, end = micros_of(mandate.not_before), micros_of(mandate.not_after)
    limited = bool(mandate.sectors or mandate.regions)
    for wrong, why in (
        (not is_record_id(mandate.id), "its id is no ULID"),
        (mandate.delegate == own.origin, "nobody mandates itself"),
        (not _same_member(mandate.delegate, simpul), f"it is for {mandate.delegate[:80]!r}, not for the simpul {simpul}"),
        (not mandate.HasField("not_before") or not mandate.HasField("not_after") or end <= begin, "it ends before it begins"),
        (end - begin > LONGEST_MANDATE_DAYS * _DAY, f"it lasts longer than {LONGEST_MANDATE_DAYS} days"),
        (
            bool(mandate.kinds) is not function.asks_kinds,
            f"{function.name} {'needs' if function.asks_kinds else 'takes no'} kinds of record",
        ),
        (limited and not function.may_limit, f"{function.name} cannot be limited to government affairs or regions"),
        (mandate.veto_days > 90, "a veto is possible for 90 days at most"),  # noqa: PLR2004 - said in the contract
        (len(mandate.sectors) > _MOST_SECTORS or len(mandate.regions) > _MOST_REGIONS or len(mandate.kinds) > 8, "its scope is too long"),  # noqa: PLR2004
        (not all(map(is_region, mandate.regions)), "a region in it is no kode wilayah"),
    ):
        if wrong:
            raise Refused(Reason.MANDATE_INVALID, f"the mandate cannot be: {why}")


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


class Governance:
    """One federation at one place of its simpul's log (``authority.Facts``)."""

    def __init__(self, items: Items, simpul: FeedId) -> None:
        self._items = items
        self._simpul = simpul
        kept = items.get("federation", "")
        if kept is not None:
            self.head = governance_pb2.Federation.FromString(kept)
        else:
            self.head = governance_pb2.Federation(simpul=simpul.origin, mode=entry_pb2.MODE_NETWORKING, charter=FOUNDING_RULES)
        self.effects: list[Effect] = []

    # Facts.

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
        return min(self.time, self.confirmed + _DAY) if self.confirmed else self.time

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
        found = (self.member(name) for name, _ in self._items.all("voting"))
        return [member for member in found if member is not None]

    def _holders(self) -> list[str]:
        """Feeds of full members, of all epochs: whoever began anew keeps its office."""
        return [feed for member in self._voting() for feed in (member.feed, *(former.feed for former in member.former))]

    def mandate(self, ref: entry_pb2.MandateRef) -> governance_pb2.GrantedMandate | None:
        """See ``authority.Facts``."""
        key = self._items.get("mandate-place", f"{ref.feed} {ref.index}")
        kept = self._items.get("mandate", key.decode()) if key is not None else None
        granted = None if kept is None else _Mandate.FromString(kept)
        return granted if granted is not None and granted.ref.leaf_hash == ref.leaf_hash else None

    def mandates(self, name: str = "") -> list[governance_pb2.GrantedMandate]:
        """Mandates of a member, or of all, oldest first for each."""
        return [_Mandate.FromString(value) for _, value in self._items.all("mandate", f"{name}/" if name else "")]

    def running(self, name: str = "") -> list[governance_pb2.GrantedMandate]:
        """Those of them that were not taken back, and may have expired: few, however many a member has given in its life."""
        found = (self._items.get("mandate", key) for key, _ in self._items.all("running", f"{name}/" if name else ""))
        return [_Mandate.FromString(value) for value in found if value is not None]

    def live(self, granted: governance_pb2.GrantedMandate, now: int) -> int:
        """Where a mandate stands at a time."""
        state = governance_pb2.GrantedMandate
        member = self.member(giver_of(granted))
        if granted.end_position or member is None or member.state == _LEFT:
            return state.STATE_REVOKED
        if now >= micros_of(granted.mandate.not_after):
            return state.STATE_EXPIRED
        if self.head.mode != entry_pb2.MODE_SUBSIDIARITY or member.state != _ACTIVE:
            return state.STATE_DORMANT
        return state.STATE_FUTURE if now < micros_of(granted.mandate.not_before) else state.STATE_LIVE

    def usable(self, function: str, now: int, name: str = "") -> list[governance_pb2.GrantedMandate]:
        """Mandates that count now, for one function."""
        return [
            granted
            for granted in self.running(name)
            if granted.mandate.function == function and self.live(granted, now) == _Mandate.STATE_LIVE
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
        return None if kept is None else _Decision.FromString(kept)

    def decisions(self) -> list[governance_pb2.Decision]:
        """All proposals, oldest first (by id)."""
        return [_Decision.FromString(value) for _, value in self._items.all("decision")]

    def act(self, index: int) -> governance_pb2.PerformedAct | None:
        """What the simpul did at an index of its feed."""
        kept = self._items.get("act", _place(index))
        return None if kept is None else _Act.FromString(kept)

    def acts(self) -> list[governance_pb2.PerformedAct]:
        """All acts, oldest first."""
        return [_Act.FromString(value) for _, value in self._items.all("act")]

    def awaits_below(self, size: int) -> bool:
        """Does something at a place below ``size`` wait to become final?"""
        waiting = self._items.all("awaiting")
        return bool(waiting) and _position(waiting[0][0]) < size

    def chair(self, now: int) -> str:
        """Who has the chair at a time; empty where the charter knows none."""
        term, full = self.head.charter.chair_term_days * _DAY, self.full_members()
        return full[max(0, now - micros_of(self.head.charter_time)) // term % len(full)] if term and full else ""

    def may(self, question: Question) -> Verdict:
        """Ask the mode in force."""
        return self.policy.may(question, self)

    # The simpul's log, entry by entry.

    def reach(self, position: int, micros: int) -> None:
        """The log has come to an entry, which says what time it is."""
        _set(self.head.time, max(self.time, micros))
        self.head.position = position + 1

    def save(self) -> None:
        """Keep where we are."""
        self._items.put("federation", "", self.head.SerializeToString())

    def found(self, founding: entry_pb2.Founding) -> None:
        """The mode of the beginning.

        Raises:
            Refused: ``FOUNDING_TOO_LATE``.
        """
        if self.members() or self.head.charter.version:
            raise Refused(Reason.FOUNDING_TOO_LATE, "the mode of a federation is set before its first member, and then only by its charter")
        mode = entry_pb2.MODE_SUBSIDIARITY if founding.mode == entry_pb2.MODE_SUBSIDIARITY else entry_pb2.MODE_NETWORKING
        self.head.mode = self.head.charter.mode = mode

    def observed_size(self, feed: FeedId) -> int | None:
        """How much of a member's feed was observed so far; None if it is no member's feed of today."""
        member = self.member(self.name_of(feed))
        return member.observed_size if member is not None and member.feed == feed.origin and member.state != _APPLIED else None

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

    def observe(self, feed: FeedId, size: int) -> None:
        """So much is observed now."""
        member = self.member(self.name_of(feed))
        if member is not None:
            member.observed_size = size
            self._keep_member(member)

    def membership(  # noqa: C901 - one rule after the other
        self,
        position: int,
        entry: entry_pb2.Membership,
        root_of: Callable[[FeedId, int], bytes | None],
        keys_of: Callable[[FeedId, int], LogKeys | None],
    ) -> None:
        """The simpul says where a forum stands; true only as far as the rules bear it out.

        Args:
            position: of the entry.
            entry: what it says.
            root_of: the root of a feed at a size, None if that is not here.
            keys_of: the keys of a feed at a size that was observed; None if that feed is not for us to judge.

        Raises:
            Refused: with the rule that is broken.
        """
        feed = _feed(entry.feed)
        if _same_member(feed.origin, self._simpul) or len(entry.genesis) != 32:  # noqa: PLR2004 - SHA-256
            raise Refused(Reason.ENTRY_MALFORMED, "a membership entry without a genesis, or of the simpul itself")
        member = self.member(self.name_of(feed))
        self._check_federation(feed)
        if member is not None and any(former.feed == feed.origin for former in member.former):
            raise Refused(Reason.EPOCH_SUPERSEDED, f"{feed} was given up by its owner")
        if member is not None and member.state == _LEFT and entry.state in (_APPLIED, _ACTIVE) and not entry.HasField("recovery"):
            self._check_genesis(feed, entry.genesis)
            self._check_consent(member, entry, keys_of)
        if entry.HasField("recovery"):
            self._recover(position, feed, entry, root_of)
        elif entry.state == _APPLIED:
            self._apply(position, feed, entry, member)
        elif entry.state == _ACTIVE and (member is None or member.state in (_APPLIED, _LEFT)):
            self._admit(position, feed, entry, member)
        elif member is None:
            raise Refused(Reason.NOT_A_MEMBER, f"{feed} is no member")
        elif member.feed != feed.origin or member.genesis != entry.genesis:
            raise Refused(Reason.GENESIS_MISMATCH, f"{member.name} is known with another feed")
        elif member.state != entry.state or (entry.category and self._category(feed, entry) != member.category):
            raise Refused(Reason.DECISION_MISSING, f"only the members decide where {member.name} stands, and they have not")
        elif entry.state == _SUSPENDED and entry.decision != member.decision:
            raise Refused(Reason.DECISION_MISSING, f"{entry.decision or 'nothing'} is not the decision that suspended {member.name}")

    def _check_consent(
        self, member: governance_pb2.FederationMember, entry: entry_pb2.Membership, keys_of: Callable[[FeedId, int], LogKeys | None]
    ) -> None:
        """Whoever has left is let in again only with its own word, given after it left."""
        consent, feed = entry.consent, FeedId.parse(member.feed)
        if not member.observed_size:
            # It said nothing yet, not even that it leaves: the simpul let it go and takes that back.
            return
        try:
            keys = keys_of(feed, member.observed_size)
            if keys is None:
                return
            verify_statement(keys, CERTIFICATE_BINDING, consent.statement, consent.ed25519_signature, consent.mldsa44_signature)
            said = enrolment_pb2.CertificateBinding.FromString(consent.statement)
        except (KadError, DecodeError) as error:
            raise Refused(Reason.CONSENT_MISSING, f"{member.name} has left, and nothing shows that it comes back: {error}") from error
        departed = int(self._items.get("departed", member.name) or b"0")
        if said.feed != feed.origin or micros_of(said.time) < departed:
            raise Refused(Reason.CONSENT_MISSING, f"{member.name} has left, and what shows that it comes back is older than that")

    def _apply(self, position: int, feed: FeedId, entry: entry_pb2.Membership, member: governance_pb2.FederationMember | None) -> None:
        if member is not None and member.state not in (_APPLIED, _LEFT):
            raise Refused(Reason.ALREADY_ENROLLED, f"{feed.forum} is a member already")
        self._check_epoch(feed, member)
        self._check_genesis(feed, entry.genesis)
        category = self._category(feed, entry)
        if member is not None and member.state == _APPLIED and (member.genesis, member.category) == (entry.genesis, category):
            return
        self._put_member(position, feed, entry, _APPLIED)

    def _admit(self, position: int, feed: FeedId, entry: entry_pb2.Membership, member: governance_pb2.FederationMember | None) -> None:
        self._check_epoch(feed, member)
        self._check_genesis(feed, entry.genesis)
        by_mandates = self.may_admit(feed, entry, member)
        self._put_member(position, feed, entry, _ACTIVE)
        self._items.delete("admission", self.name_of(feed))
        if by_mandates:
            said = b"%d %d " % (position, self.time)
            self._items.put("admission", self.name_of(feed), said + entry.SerializeToString())
        self._await(position, f"{_MEMBER}{self.name_of(feed)}")
        self._items.put("genesis", feed.origin, entry.genesis)
        self._items.delete("left-suspended", self.name_of(feed))
        self.effects += [Pinned(feed, entry.genesis), Standing(feed, _ACTIVE, self._category(feed, entry))]

    def part(self, position: int, departure: entry_pb2.Departure) -> None:
        """The simpul leaves another federation; that one's simpul is no member here any more either.

        Raises:
            Refused: ``NOT_A_MEMBER``.
        """
        feed = _feed(departure.simpul)
        member = self.member(self.name_of(feed))
        if member is None or feed.federation == self._simpul.federation or member.state == _LEFT:
            raise Refused(Reason.NOT_A_MEMBER, f"{feed} is no simpul that is a member here")
        # Not by its own word: no entry of its feed says so, and none that is void later undoes it.
        self._depart(member, FeedId.parse(member.feed), 0, position)

    def _check_federation(self, feed: FeedId) -> None:
        """Another federation is here by one feed, its simpul's, which speaks of its members; that follows from this log alone."""
        if feed.federation == self._simpul.federation:
            return
        for name, _ in self._items.all("member", f"{feed.federation}/"):
            if name != self.name_of(feed):
                raise Refused(Reason.ROLE_INSUFFICIENT, f"{feed.federation} is here by {name} already, which alone speaks of its members")

    def _check_epoch(self, feed: FeedId, member: governance_pb2.FederationMember | None) -> None:
        """Only its recovery keys begin a later epoch of a member, also after it has left."""
        if feed.epoch and (member is None or member.feed != feed.origin):
            raise Refused(Reason.RECOVERY_INVALID, f"{feed} is not the first epoch of that member, and nothing proves that it is the next")

    def _check_genesis(self, feed: FeedId, genesis: bytes) -> None:
        """A feed that was ever a member's keeps its genesis, also after its owner has left and applies again."""
        if self._items.get("genesis", feed.origin) not in (None, genesis):
            raise Refused(Reason.GENESIS_MISMATCH, f"{feed} was a member with another genesis")

    def may_admit(self, feed: FeedId, entry: entry_pb2.Membership, member: governance_pb2.FederationMember | None) -> bool:
        """Check whether a forum may be admitted now. True if that rests on mandates, False if on endorsements.

        Raises:
            Refused: ``ENDORSEMENTS_MISSING``, or why the mandates do not suffice.
        """
        full = self.full_members()
        needed, suspended = self.endorsements_needed(feed), self._items.get("left-suspended", self.name_of(feed)) is not None
        category = self._category(feed, entry)
        # Members speak for a forum with these keys, as a full member or as an associate; for nothing else.
        meant = member is not None and (member.genesis, member.category) == (entry.genesis, category)
        given = set(member.endorsements) & set(full) if member is not None and meant else set()
        if len(given) >= needed:
            return False
        if entry.mandates and not suspended:
            question = Question(
                self._simpul,
                entry_pb2.MEMBER_ROLE_SIMPUL,
                action=Action.ACT,
                owner=feed,
                function="admit-members",
                cited=tuple(entry.mandates),
                time=max(self.time, self.confirmed),
            )
            verdict = self.may(question)
            if verdict.allowed:
                return True
            raise Refused(verdict.reason or Reason.NO_MANDATE, verdict.message)
        raise Refused(Reason.ENDORSEMENTS_MISSING, f"{feed.forum} needs {needed} endorsements of full members, it has {len(given)}")

    def _category(self, feed: FeedId, entry: entry_pb2.Membership) -> entry_pb2.MemberCategory.ValueType:
        """Whoever belongs to another federation is an associate here, whatever is said: votes and witnesses are a federation's own."""
        return _ASSOCIATE if feed.federation != self._simpul.federation else entry.category or entry_pb2.MEMBER_CATEGORY_FULL

    def endorsements_needed(self, feed: FeedId) -> int:
        """How many full members must speak for a forum. For one that left while it was suspended as many as would reinstate it."""
        full, rules = len(self.full_members()), self.head.charter
        needed = min(rules.admission_endorsements, full)
        if full and self._items.get("left-suspended", self.name_of(feed)) is not None:
            return max(needed, threshold(full, rules.membership_percent))
        return needed

    def _put_member(self, position: int, feed: FeedId, entry: entry_pb2.Membership, state: entry_pb2.MembershipState.ValueType) -> None:
        fresh = governance_pb2.FederationMember(name=self.name_of(feed))
        old = self.member(fresh.name)
        if old is not None and old.feed == feed.origin and old.genesis == entry.genesis:
            # Whoever comes back goes on where it left: what was taken once is not taken again.
            fresh.CopyFrom(old)
            del fresh.endorsements[:]
        fresh.feed, fresh.genesis, fresh.state, fresh.position = feed.origin, entry.genesis, state, position
        fresh.category = self._category(feed, entry)
        fresh.time.CopyFrom(self.head.time)
        self._keep_member(fresh)

    def check_recovery(
        self, feed: FeedId, entry: entry_pb2.Membership, root_of: Callable[[FeedId, int], bytes | None]
    ) -> entry_pb2.RecoveryStatement | None:
        """Check whether an entry proves that the owner of a feed begins it anew; what its recovery keys say, None if that has been done.

        Raises:
            Refused: ``RECOVERY_INVALID``.
        """
        member = self.member(self.name_of(feed))
        if member is not None and member.feed == feed.origin and member.genesis == entry.genesis:
            return None
        if member is None or not member.recovery_digest:
            raise Refused(Reason.RECOVERY_INVALID, f"{feed} recovers a feed that is no member's")
        old, recovery = FeedId.parse(member.feed), entry.recovery
        try:
            keys = log_keys_of(old.origin, recovery.recovery_keys.SerializeToString())
            if recovery_digest(keys) != member.recovery_digest:
                raise VerificationError(Reason.RECOVERY_INVALID, "these are not the recovery keys of that member")
            verify_statement(keys, RECOVERY, recovery.statement, recovery.ed25519_signature, recovery.mldsa44_signature)
            said = entry_pb2.RecoveryStatement.FromString(recovery.statement)
        except (KadError, ValueError, DecodeError) as error:
            raise Refused(Reason.RECOVERY_INVALID, f"the recovery does not verify: {error}") from error
        fits = (
            said.feed == old.origin
            and said.next_feed == feed.origin
            and feed == FeedId(old.federation, old.forum, old.epoch + 1)
            and said.next_genesis == entry.genesis
            and 1 <= said.last_good_size <= member.observed_size
        )
        if not fits or root_of(old, said.last_good_size) != said.last_good_root:
            raise Refused(Reason.RECOVERY_INVALID, f"the recovery of {old} does not fit what was observed of it")
        return said

    def state_after_recovery(self, member: governance_pb2.FederationMember, last_good_size: int) -> entry_pb2.MembershipState.ValueType:
        """Where a member stands once it has begun anew: as before, and a departure that a thief declared has not been. Nor has it applied
        again: whoever did so had the keys that are given up.
        """
        if member.state not in (_LEFT, _APPLIED):
            return member.state
        return member.state_before if member.departure_index >= last_good_size and member.state_before else _LEFT

    def _recover(self, position: int, feed: FeedId, entry: entry_pb2.Membership, root_of: Callable[[FeedId, int], bytes | None]) -> None:
        """The owner of a feed begins it anew; only the recovery keys, to which its genesis commits, can say so."""
        said = self.check_recovery(feed, entry, root_of)
        member = self.member(self.name_of(feed))
        if said is None or member is None:
            return
        old = FeedId.parse(said.feed)
        self._undo_beyond(position, member, old, said.last_good_size)
        state = self.state_after_recovery(member, said.last_good_size)
        if state != _LEFT:
            self._items.delete("left-suspended", member.name)
        member.state = state
        del member.endorsements[:]
        self._items.put("genesis", feed.origin, entry.genesis)
        member.former.append(governance_pb2.FederationMember.FormerEpoch(feed=old.origin, good_size=said.last_good_size))
        member.feed, member.genesis, member.observed_size, member.position = feed.origin, entry.genesis, 0, position
        for field in ("recovery_digest", "witness_keys", "witness_position", "former_witness_keys", "departure_index", "state_before"):
            # The log knows nothing of the new feed yet, not even its keys.
            member.ClearField(field)
        member.time.CopyFrom(self.head.time)
        self._keep_member(member)
        self.effects += [Pinned(feed, entry.genesis), Superseded(old, said.last_good_size, feed)]
        self.effects += [Standing(old, _LEFT, member.category), Standing(feed, member.state, member.category)]

    def _undo_beyond(self, position: int, member: governance_pb2.FederationMember, old: FeedId, good_size: int) -> None:
        """What a thief decided and others have not built upon yet is undone. What was closed or revoked stays so."""
        for granted in self.running(member.name):
            if granted.ref.feed == old.origin and granted.ref.index >= good_size:
                self._end_mandate(granted, position)
        self._resubmit(old, good_size)
        for decision in self._open():
            # What a thief voted or proposed and nobody has closed yet does not count; the owner votes again.
            kept = [vote for vote in decision.votes if vote.feed != old.origin or vote.index < good_size]
            if decision.proposer == old.origin and decision.index >= good_size:
                self._end_decision(decision, position, _Decision.STATE_REJECTED, "EPOCH_SUPERSEDED")
            elif len(kept) != len(decision.votes):
                del decision.votes[:]
                decision.votes.extend(kept)
                self._keep_decision(decision)
        for key, value in self._items.all("endorsed", f"{member.name} "):
            origin, _, index = value.decode().partition(" ")
            candidate = self.member(key.partition(" ")[2])
            if origin == old.origin and int(index) >= good_size and candidate is not None and member.name in candidate.endorsements:
                candidate.endorsements.remove(member.name)
                self._keep_member(candidate)

    def finality(self, note: bytes, root_of: Callable[[FeedId, int], bytes | None]) -> None:
        """The simpul shows the quorum that it got.

        Raises:
            Refused: ``FINALITY_INVALID``.
        """
        position = self.head.position - 1
        size, confirmed = self.check_finality(note, position, root_of)
        if size <= self.head.final_size:
            return
        self.head.final_size = size
        _set(self.head.confirmed_time, max(self.confirmed, confirmed))
        if abs(self.time - confirmed) > _CLOCK_TOLERANCE:
            # What members say of the time stands against what the simpul says: a clock that ran off, or was held back, is set right here.
            _set(self.head.time, confirmed)
        self._finalise(confirmed)
        del self.head.electorate[:]
        self.head.electorate.extend(member.name for member in self._voting() if member.position < size)
        self._pass(position)

    def _pass(self, position: int) -> None:
        """By the time that members have confirmed, what is due is closed."""
        for decision in self._open():
            if decision.open_position < self.head.final_size and not decision.HasField("confirmed_open_time"):
                decision.confirmed_open_time.CopyFrom(self.head.confirmed_time)
                self._keep_decision(decision)
            if (due := self._due_time(decision)) is not None and due <= self.confirmed:
                self._close(decision, position)
        self._due()

    def _due_time(self, decision: governance_pb2.Decision) -> int | None:
        """When a decision is closed, whoever has voted by then; None while its notice has not begun."""
        deadline = micros_of(decision.proposal.deadline)
        if decision.proposal.WhichOneof("matter") != "charter" or not self.charter.notice_hours:
            return deadline
        if not decision.HasField("confirmed_open_time"):
            return None
        return max(deadline, micros_of(decision.confirmed_open_time) + self.charter.notice_hours * 3600 * 1_000_000)

    def check_finality(self, note: bytes, index: int, root_of: Callable[[FeedId, int], bytes | None]) -> tuple[int, int]:
        """Check what shows a quorum, in an entry at ``index`` of the simpul's feed.

        Returns:
            Up to where it confirms, and when that was (microseconds).

        Raises:
            Refused: ``FINALITY_INVALID``.
        """
        try:
            parsed = Note.parse(note)
            checkpoint = Checkpoint.parse(parsed.text)
        except KadError as error:
            raise Refused(Reason.FINALITY_INVALID, f"the note does not parse: {error}") from error
        if checkpoint.origin != self._simpul.origin or not 1 <= checkpoint.size <= index:
            raise Refused(Reason.FINALITY_INVALID, "the note is not of an earlier place of this log")
        if root_of(self._simpul, checkpoint.size) != checkpoint.root:
            raise Refused(Reason.FINALITY_INVALID, "the note is of another history than this log")
        everybody = self.electorate()
        times: dict[FeedId, int] = {}
        for member in everybody:
            feed = FeedId.parse(member.feed)
            try:
                keys = self.witness_keys(feed, checkpoint.size)
                if keys is not None and (time := verify_cosignatures(parsed, keys).time) <= LAST_SECOND:
                    times[feed] = time
            except VerificationError:
                # Whose keys are none, or whose lines are not there or not good, does not confirm; that takes nothing from the others.
                continue
        counted = confirming([FeedId.parse(member.feed) for member in everybody], times, self.confirmed // 1_000_000)
        if not counted:
            raise Refused(Reason.FINALITY_INVALID, f"{len(times)} members confirm it; that is no quorum")
        # The lower of the two in the middle: of two members, one whose clock ran ahead moves nothing.
        confirmed = statistics.median_low(times[feed] for feed in counted) * 1_000_000
        if confirmed < self.confirmed - _CLOCK_TOLERANCE:
            raise Refused(Reason.FINALITY_INVALID, "members confirmed it before they confirmed what is final already")
        return checkpoint.size, confirmed

    def _finalise(self, confirmed: int) -> None:
        """What waited for the quorum is final, unless the confirmation shows that its time was wrong."""
        for key, _ in self._items.all("awaiting"):
            if _position(key) >= self.head.final_size:
                break
            self._items.delete("awaiting", key)
            number = key.partition("/")[2]
            if number.startswith(_MEMBER):
                self._finalise_admission(_position(key), number.removeprefix(_MEMBER), confirmed)
            elif not number:
                performed = self.act(_position(key))
                if performed is not None and performed.state == _Act.STATE_UNWITNESSED:
                    self._finalise_act(performed, confirmed)
            elif (decision := self.decision(number)) is not None:
                decision.final = True
                self._keep_decision(decision)

    def _finalise_act(self, performed: governance_pb2.PerformedAct, confirmed: int) -> None:
        if self._is_time_wrong(micros_of(performed.time), confirmed, performed.act.mandates):
            self._void(performed, Reason.ACT_TIME_WRONG)
        else:
            performed.state = _Act.STATE_FINAL
            _set(performed.final_time, confirmed)
            self._keep_act(performed)

    def _finalise_admission(self, position: int, name: str, confirmed: int) -> None:
        """An admission under mandates stands only if the members' clocks bear out that these were running."""
        kept, member = self._items.get("admission", name), self.member(name)
        if kept is None or member is None:
            return
        admitted, time, entry = kept.split(b" ", 2)
        if int(admitted) != position:
            # Something else about it became final: it was admitted anew since, or not yet.
            return
        self._items.delete("admission", name)
        if member.state == _ACTIVE and self._is_time_wrong(int(time), confirmed, entry_pb2.Membership.FromString(entry).mandates):
            self.effects.append(Annulled(position, Reason.ACT_TIME_WRONG))
            self._depart(member, FeedId.parse(member.feed), 0, self.head.position - 1)
            # It was never lawfully here, so no recovery brings that back.
            member.ClearField("state_before")
            self._keep_member(member)

    def _is_time_wrong(self, done: int, confirmed: int, mandates: Iterable[entry_pb2.MandateRef]) -> bool:
        """Does the time at which something was done under mandates not fit the time at which members confirmed it?

        A log that holds its time back could act under a mandate that has run out: so a late confirmation must find it still running.
        """
        if done > confirmed + _CLOCK_TOLERANCE:
            return True
        found = (self.mandate(ref) for ref in mandates)
        return confirmed > done + _CLOCK_TOLERANCE and any(
            granted is None or micros_of(granted.mandate.not_after) <= confirmed for granted in found
        )

    def perform(self, index: int, act: entry_pb2.Act, micros: int, kind: int) -> governance_pb2.PerformedAct:
        """The simpul did something in members' names; judged here, and kept with the verdict.

        Args:
            index: of the entry in the simpul's feed.
            act: what it says.
            micros: its own time.
            kind: ``RecordKind`` of the record that it withdraws or reviews, 0 if that is not known.

        Raises:
            Refused: it has no effect; kept as such.
        """
        performed = _Act(name=f"acts/{index}", feed=self._simpul.origin, index=index, act=act, state=_Act.STATE_UNWITNESSED)
        performed.time.CopyFrom(self.head.time)
        if micros < self.time:
            raise self.refuse(performed, Reason.ACT_TIME_WRONG, "its time lies before that of the entries before it")
        try:
            verdict = self.may(question_of(self, act, self.time, kind))
        except Refused as error:
            raise self.refuse(performed, error.reason, str(error)) from error
        if not verdict.allowed:
            raise self.refuse(performed, verdict.reason or Reason.NO_MANDATE, verdict.message)
        if act.HasField("statement"):
            if self._items.get("statement", act.statement.id) is not None:
                raise self.refuse(performed, Reason.ACT_INVALID, f"there was a statement {act.statement.id} before")
            self._items.put("statement", act.statement.id, b"")
        self._keep_act(performed)
        self._await(index)
        return performed

    def refuse(self, performed: governance_pb2.PerformedAct, reason: Reason, message: str) -> Refused:
        """An act has no effect; remembered with its reason. Returns what to raise."""
        performed.state, performed.reason = _Act.STATE_REFUSED, reason.value
        self._keep_act(performed)
        self._items.delete("awaiting", _place(performed.index))
        return Refused(reason, message)

    def _void(self, performed: governance_pb2.PerformedAct, reason: Reason) -> None:
        performed.state, performed.reason = (
            _Act.STATE_VETOED if reason is Reason.ACT_VETOED else _Act.STATE_REFUSED,
            reason.value,
        )
        self._keep_act(performed)
        self.effects.append(Withdrawn(performed, reason))

    # Records in others' names, and records that wait for review: as the entries say, whatever contents have arrived where. Both are kept
    # by the member's name, so that they go on when its feed begins anew.

    def hosted(self, owner: FeedId, record: str) -> tuple[int, int, bool] | None:
        """Version and kind of a record that the simpul published in that forum's name, and whether it was withdrawn."""
        kept = self._items.get("hosted", f"{self.name_of(owner)} {record}")
        if kept is None:
            return None
        version, kind, withdrawn = kept.split()
        return int(version), int(kind), withdrawn == b"1"

    def keep_hosted(self, owner: FeedId, record: str, version: int, kind: int, *, withdrawn: bool = False) -> None:
        """Where it stands now."""
        key, said = f"{self.name_of(owner)} {record}", b"%d %d %d" % (version, kind, withdrawn)
        self._items.put("hosted", key, said)
        # Each step is remembered, since one may turn out not to have been lawful (``unhost``).
        self._items.put("hosted-at", f"{key} {_place(self.head.position - 1)}", said)

    def unhost(self, owner: FeedId, record: str, index: int) -> int | None:
        """What an act at ``index`` did with a record was not lawful: it stands where the other acts left it, or is withdrawn if there was
        none. Returns the index of the act that published what it says now, None if it is withdrawn.
        """
        key = f"{self.name_of(owner)} {record}"
        kept = self._items.get("hosted", key)
        self._items.delete("hosted-at", f"{key} {_place(index)}")
        steps = self._items.all("hosted-at", f"{key} ")
        if steps:
            self._items.put("hosted", key, steps[-1][1])
            return None if steps[-1][1].endswith(b" 1") else _position(steps[-1][0].rpartition(" ")[2])
        if kept is not None:
            self._items.put("hosted", key, kept[:-1] + b"1")
        return None

    def submit(self, feed: FeedId, index: int, version: entry_pb2.RecordVersion, *, waits: bool) -> None:
        """A version of a record of a member is observed, at an index of its feed."""
        key = f"{self.name_of(feed)} {version.record}"
        said = b"%d %d %d %d" % (version.version, version.kind, feed.epoch, index)
        # Each is remembered, since what replaces it may turn out to be void (``_resubmit``).
        if waits:
            self._items.put("submission", key, said)
            self._items.put("submitted", f"{key} {_at(feed.epoch, index)}", said + b" %d" % _WAITS)
        elif self._items.get("submission", key) is not None:
            self._items.delete("submission", key)
            self._items.put("submitted", f"{key} {_at(feed.epoch, index)}", said + b" %d" % _SHOWN)

    def submission(self, feed: FeedId, record: str) -> tuple[int, int] | None:
        """Version and kind of a record that waits for review, or was turned down."""
        kept = self._items.get("submission", f"{self.name_of(feed)} {record}")
        if kept is None:
            return None
        version, kind = kept.split()[:2]
        return int(version), int(kind)

    def turned_down(self, feed: FeedId, record: str) -> bool:
        """Does it not wait any more, since it was turned down?"""
        key = f"{self.name_of(feed)} {record}"
        kept = self._items.get("submission", key)
        said = self._items.get("submitted", f"{key} {_at(*map(int, kept.split()[2:]))}") if kept is not None else None
        return said is not None and int(said.split()[-1]) == _TURNED_DOWN

    def reviewed(self, feed: FeedId, record: str, *, approved: bool) -> None:
        """It was reviewed; what was turned down may be let through later."""
        key = f"{self.name_of(feed)} {record}"
        kept = self._items.get("submission", key)
        if kept is None:
            return
        state = _SHOWN if approved else _TURNED_DOWN
        self._items.put("submitted", f"{key} {_at(*map(int, kept.split()[2:]))}", kept + b" %d" % state)
        if approved:
            self._items.delete("submission", key)

    def unreview(self, feed: FeedId, record: str, version: int) -> bool:
        """A review was not lawful: that version waits again. True if it is the newest that is under review."""
        key = f"{self.name_of(feed)} {record}"
        submitted = self._items.all("submitted", f"{key} ")
        for place, value in submitted:
            said, _, state = value.rpartition(b" ")
            if int(said.split()[0]) != version or int(state) == _WAITS:
                continue
            self._items.put("submitted", place, said + b" %d" % _WAITS)
            if place == submitted[-1][0]:
                self._items.put("submission", key, said)
                return True
        return False

    def _release(self, feed: FeedId, kinds: frozenset[int]) -> None:
        for item in ("submission", "submitted"):
            for key, said in self._items.all(item, f"{self.name_of(feed)} "):
                if int(said.split()[1]) in kinds:
                    self._items.delete(item, key)
        self.effects.append(Released(feed, kinds))

    def _resubmit(self, old: FeedId, good_size: int) -> None:
        """Versions beyond the last good entry were never submitted: what they replaced stands where it stood."""
        before: dict[str, tuple[bytes, int]] = {}
        touched = set()
        for key, value in self._items.all("submitted", f"{self.name_of(old)} "):
            said, _, state = value.rpartition(b" ")
            record, (epoch, index) = key.rpartition(" ")[0], map(int, said.split()[2:])
            if epoch == old.epoch and index >= good_size:
                self._items.delete("submitted", key)
                touched.add(record)
            else:
                # In the order of the feeds, so the newest is the last.
                before[record] = said, int(state)
        for record in touched:
            stood, state_before = before.get(record, (b"", _SHOWN))
            if state_before == _SHOWN:
                self._items.delete("submission", record)
            else:
                self._items.put("submission", record, stood)

    # What members wrote, at the place where the log first observes it.

    def take(self, feed: FeedId, index: int, leaf: bytes, entry: entry_pb2.Entry, position: int) -> None:  # noqa: C901, PLR0912 - one line for each kind
        """An entry of a member's feed takes effect, if it may.

        Raises:
            Refused: it has none.
        """
        member = self.member(self.name_of(feed))
        if member is None or member.feed != feed.origin:
            raise Refused(Reason.NOT_A_MEMBER, f"{feed} is no member's feed of today")
        body = entry.WhichOneof("body") or ""
        if member.state == _LEFT and body not in _KEYS:
            raise Refused(Reason.MEMBER_LEFT, f"{member.name} has left")
        if member.state == _SUSPENDED and body not in _ALWAYS:
            raise Refused(Reason.MEMBER_SUSPENDED, f"{member.name} is suspended")
        match body:
            case "genesis":
                member.witness_keys.CopyFrom(entry.genesis.witness_keys)
                member.witness_position = position
                member.recovery_digest = entry.genesis.recovery_digest
                self._keep_member(member)
            case "key_rotation":
                # The keys themselves were checked before the entry was stored.
                if member.witness_position < position:
                    member.former_witness_keys.CopyFrom(member.witness_keys)
                member.witness_keys.CopyFrom(entry.key_rotation.witness_keys)
                member.witness_position = position
                self._keep_member(member)
            case "mandate":
                self._grant(member, feed, index, leaf, entry.mandate, position)
            case "mandate_revocation":
                self._revoke(member, entry.mandate_revocation.mandate, position)
            case "veto":
                self._veto(member, entry.veto)
            case "endorsement":
                self._endorse(member, feed, index, entry.endorsement)
            case "proposal":
                self._propose(member, feed, index, leaf, entry.proposal, position)
            case "vote":
                self._vote(member, feed, index, entry, position)
            case "departure":
                if _is_from(entry.departure, feed, self._simpul):
                    self._items.put("departed", member.name, str(micros_of(entry.time)).encode())
                    self._depart(member, feed, index, position)
            case _:
                raise Refused(Reason.ENTRY_NOT_AVAILABLE_TO_ROLE, "only a simpul writes such an entry")

    def _grant(
        self, member: governance_pb2.FederationMember, feed: FeedId, index: int, leaf: bytes, mandate: entry_pb2.Mandate, position: int
    ) -> None:
        check_mandate(mandate, feed, self._simpul)
        self.check_new_mandate(member.name, mandate, self.confirmed or self.time)
        for other in self.running(member.name):
            if _over(other, self.confirmed):
                # Not looked at again; time does not go back.
                self._items.delete("running", f"{member.name}/{other.mandate.id}")
        granted = _Mandate(name=f"{member.name}/mandates/{mandate.id}", mandate=mandate, position=position)
        granted.ref.feed, granted.ref.index, granted.ref.leaf_hash = feed.origin, index, leaf
        self._keep_mandate(granted)
        self._items.put("mandate-place", f"{feed.origin} {index}", f"{member.name}/{mandate.id}".encode())

    def check_new_mandate(self, name: str, mandate: entry_pb2.Mandate, now: int) -> None:
        """Check a mandate against those that its forum has given.

        Raises:
            Refused: ``MANDATE_REPEATED``, ``MANDATE_EXPIRED``, ``MANDATE_OVERLAPS``, ``MANDATE_INVALID``.
        """
        if micros_of(mandate.not_after) <= now:
            raise Refused(Reason.MANDATE_EXPIRED, "the mandate has expired before it was observed")
        if self._items.get("mandate", f"{name}/{mandate.id}") is not None:
            raise Refused(Reason.MANDATE_REPEATED, f"{name}/mandates/{mandate.id} was given before; a mandate that was taken back stays so")
        others = [other for other in self.running(name) if not _over(other, now)]
        if len(others) >= _MOST_MANDATES:
            raise Refused(Reason.MANDATE_INVALID, f"{name} has given {len(others)} mandates that have not ended; revoke some first")
        for other in others:
            if micros_of(other.mandate.not_after) > now and _overlap(other.mandate, mandate):
                raise Refused(
                    Reason.MANDATE_OVERLAPS,
                    f"{other.name} covers part of it; revoke that one first, or let this one begin when it ends,"
                    " so that one revocation always ends a function",
                )

    def _revoke(self, member: governance_pb2.FederationMember, number: str, position: int) -> None:
        kept = self._items.get("mandate", f"{member.name}/{number}")
        if kept is None:
            raise Refused(Reason.MANDATE_UNKNOWN, f"{member.name} has given no mandate {number[:40]!r}")
        granted = _Mandate.FromString(kept)
        if granted.end_position:
            raise Refused(Reason.MANDATE_REVOKED, f"{granted.name} was revoked before")
        self._end_mandate(granted, position)

    def _end_mandate(self, granted: governance_pb2.GrantedMandate, position: int) -> None:
        granted.end_position = max(position, 1)
        granted.end_time.CopyFrom(self.head.time)
        self._keep_mandate(granted)
        if granted.mandate.function == "curate" and (member := self.member(giver_of(granted))) is not None:
            others = (other.mandate for other in self.running(member.name) if other.mandate.function == "curate")
            kept = {kind for mandate in others for kind in mandate.kinds}
            self._release(FeedId.parse(member.feed), frozenset(granted.mandate.kinds) - kept)

    def check_veto(self, member: governance_pb2.FederationMember, index: int) -> governance_pb2.PerformedAct:
        """Check a veto; returns what it is against.

        Raises:
            Refused: ``ACT_UNKNOWN``, ``VETO_TOO_LATE``.
        """
        performed = self.act(index)
        if performed is None or performed.state in (_Act.STATE_REFUSED, _Act.STATE_VETOED):
            raise Refused(Reason.ACT_UNKNOWN, f"there is no act {index} that has an effect")
        giving = [granted for ref in performed.act.mandates if (granted := self.mandate(ref)) is not None]
        own = [granted for granted in giving if granted.name.startswith(f"{member.name}/")]
        if not own or member.name in performed.vetoes:
            raise Refused(Reason.ACT_UNKNOWN, f"{performed.name} was not done in the name of {member.name}, or is vetoed already")
        if performed.act.WhichOneof("deed") not in ("publication", "withdrawal"):
            days = max(granted.mandate.veto_days for granted in own)
            if not days or (performed.HasField("final_time") and self.confirmed > micros_of(performed.final_time) + days * _DAY):
                raise Refused(Reason.VETO_TOO_LATE, f"{performed.name} could be vetoed for {days} days")
        return performed

    def _veto(self, member: governance_pb2.FederationMember, veto: entry_pb2.Veto) -> None:
        if not _same_member(veto.feed, self._simpul):
            raise Refused(Reason.ACT_UNKNOWN, f"{veto.feed[:80]!r} is not the simpul of this federation")
        performed = self.check_veto(member, veto.index)
        giving = [granted for ref in performed.act.mandates if (granted := self.mandate(ref)) is not None]
        performed.vetoes.append(member.name)
        self._keep_act(performed)
        function = FUNCTIONS.get(performed.act.function)
        left = {giver_of(granted) for granted in giving} - set(performed.vetoes)
        if function is not None and function.collective:
            full = self.full_members()
            percent = next((rule.percent for rule in self.charter.collective if rule.function == function.name), 100)
            if len(left & set(full)) >= threshold(len(full), percent):
                return
        elif performed.act.WhichOneof("deed") == "statement" and left:
            return
        self._void(performed, Reason.ACT_VETOED)

    def _endorse(self, member: governance_pb2.FederationMember, feed: FeedId, index: int, endorsement: entry_pb2.Endorsement) -> None:
        if not _votes(member):
            raise Refused(Reason.NOT_FULL_MEMBER, f"{member.name} is no full member")
        candidate = self.member(self.name_of(_feed(endorsement.feed)))
        meant = endorsement.genesis, endorsement.category or entry_pb2.MEMBER_CATEGORY_FULL
        if candidate is None or candidate.state != _APPLIED or (candidate.genesis, candidate.category) != meant:
            raise Refused(
                Reason.CANDIDATE_UNKNOWN, f"{endorsement.feed[:80]!r} has not applied, or with another genesis or in another category"
            )
        if member.name in candidate.endorsements:
            raise Refused(Reason.ENDORSEMENT_REPEATED, f"{member.name} has endorsed {candidate.name} before")
        candidate.endorsements.append(member.name)
        self._items.put("endorsed", f"{member.name} {candidate.name}", f"{feed.origin} {index}".encode())
        self._keep_member(candidate)

    def _depart(self, member: governance_pb2.FederationMember, feed: FeedId, index: int, position: int) -> None:
        for granted in self.running(member.name):
            self._end_mandate(granted, position)
        if member.state == _SUSPENDED:
            # Leaving does not lift a suspension: see ``may_admit``.
            self._items.put("left-suspended", member.name, b"")
        member.departure_index, member.state_before = index, member.state
        member.state, member.position = _LEFT, position
        member.time.CopyFrom(self.head.time)
        self._keep_member(member)
        self.effects.append(Standing(feed, _LEFT, member.category))
        for decision in self._open():
            self._close_if_all_voted(decision, position)

    # Decisions.

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
            (deadline > now + _LONGEST_DEADLINE_DAYS * _DAY, "its deadline is more than a year away"),
            (deadline < now + notice, f"a new charter needs {self.charter.notice_hours} hours of notice"),
        ):
            if wrong:
                raise Refused(Reason.PROPOSAL_INVALID, f"the proposal cannot be: {why}")
        if matter == "charter":
            check_charter(proposal.charter, self.charter, self._holders())
        elif matter == "standing":
            member = self.member(self.name_of(_feed(proposal.standing.feed)))
            if member is None or {member.state, proposal.standing.state} != {_ACTIVE, _SUSPENDED}:
                raise Refused(Reason.PROPOSAL_INVALID, "only an active member is suspended, only a suspended one is reinstated")

    def _propose(
        self, member: governance_pb2.FederationMember, feed: FeedId, index: int, leaf: bytes, proposal: entry_pb2.Proposal, position: int
    ) -> None:
        if not _votes(member):
            raise Refused(Reason.NOT_FULL_MEMBER, f"{member.name} is no full member")
        if self.decision(proposal.id) is not None:
            raise Refused(Reason.PROPOSAL_REPEATED, f"there is a proposal {proposal.id} already")
        self.check_proposal(proposal, self.confirmed or self.time)
        if sum(1 for _, proposer in self._items.all("open") if proposer == member.name.encode()) >= _MOST_PROPOSALS:
            raise Refused(Reason.PROPOSAL_INVALID, f"{member.name} has {_MOST_PROPOSALS} open proposals; let some of them be decided first")
        decision = _Decision(
            name=f"decisions/{proposal.id}",
            proposal=proposal,
            proposer=feed.origin,
            index=index,
            leaf_hash=leaf,
            state=_Decision.STATE_OPEN,
            open_position=position,
        )
        decision.open_time.CopyFrom(self.head.time)
        concerned = self.name_of(_feed(proposal.standing.feed)) if proposal.WhichOneof("matter") == "standing" else ""
        # Nobody decides about itself.
        decision.electors.extend(name for name in self.full_members() if name != concerned)
        self._keep_decision(decision)
        self._await(position, f"{_PROPOSAL}{proposal.id}")
        self._due()

    def check_vote(self, name: str, vote: entry_pb2.Vote, written: int) -> governance_pb2.Decision:
        """Check a vote that its member wrote at a time of its own; returns what it is on.

        Raises:
            Refused: ``PROPOSAL_UNKNOWN``, ``VOTE_TOO_LATE``, ``VOTE_NOT_ENTITLED``, ``VOTE_REPEATED``.
        """
        decision = self.decision(vote.proposal)
        if decision is None or decision.leaf_hash != vote.leaf_hash:
            raise Refused(Reason.PROPOSAL_UNKNOWN, f"there is no such proposal as {vote.proposal[:40]!r}")
        if decision.state != _Decision.STATE_OPEN:
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
        self._end_decision(decision, position, _Decision.STATE_REJECTED if outcome else _Decision.STATE_ACCEPTED, outcome)
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
                            self._release(FeedId.parse(member.feed), _ALL_KINDS)
            case "standing":
                self._change_standing(decision, position)

    def _change_standing(self, decision: governance_pb2.Decision, position: int) -> None:
        standing = decision.proposal.standing
        member = self.member(self.name_of(_feed(standing.feed)))
        if member is None or {member.state, standing.state} != {_ACTIVE, _SUSPENDED}:
            return
        member.state, member.position, member.decision = standing.state, position, decision.proposal.id
        self._await(position, f"{_MEMBER}{member.name}")
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

    def _open(self) -> list[governance_pb2.Decision]:
        found = (self.decision(number) for number, _ in self._items.all("open"))
        return [decision for decision in found if decision is not None]

    def _due(self) -> None:
        dues = [due for decision in self._open() if (due := self._due_time(decision)) is not None]
        self.head.ClearField("next_deadline")
        if dues:
            _set(self.head.next_deadline, min(dues))

    # Keeping.

    def _await(self, position: int, decision: str = "") -> None:
        # At one entry an act may be done and any number of decisions may close: each waits for itself.
        self._items.put("awaiting", f"{_place(position)}/{decision}" if decision else _place(position), b"")
        self.head.awaiting_size = max(self.head.awaiting_size, position + 1)

    def _keep_member(self, member: governance_pb2.FederationMember) -> None:
        self._items.put("member", member.name, member.SerializeToString())
        if _votes(member):
            self._items.put("voting", member.name, b"")
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
        self._items.put("act", _place(performed.index), performed.SerializeToString())

    def _keep_decision(self, decision: governance_pb2.Decision) -> None:
        self._items.put("decision", decision.proposal.id, decision.SerializeToString())
        if decision.state == _Decision.STATE_OPEN:
            self._items.put("open", decision.proposal.id, self.name_of(FeedId.parse(decision.proposer)).encode())
        else:
            self._items.delete("open", decision.proposal.id)


def question_of(governance: Governance, act: entry_pb2.Act, time: int, kind: int = 0) -> Question:
    """What an act asks for; ``kind`` is that of the record that it withdraws or reviews.

    Raises:
        Refused: ``ACT_INVALID``, it fits no function.
    """
    deed = act.WhichOneof("deed") or ""
    fits = {
        "publish-on-behalf": ("publication", "withdrawal"),
        "curate": ("review",),
        "consolidate-agenda": ("statement",),
        "harmonise-regulation": ("statement",),
        "represent": ("statement",),
    }
    if deed not in fits.get(act.function, ()):
        raise Refused(Reason.ACT_INVALID, f"{deed or 'nothing'} is not done under {act.function[:40]!r}")
    if len(act.mandates) > _MOST_CITED or len(act.sectors) > _MOST_SECTORS or len(act.regions) > _MOST_REGIONS:
        raise Refused(Reason.ACT_INVALID, "the act cites or names more than is possible")
    if not all(map(is_region, act.regions)):
        raise Refused(Reason.ACT_INVALID, "a region of the act is no kode wilayah")
    if len(act.mandates) != len({(ref.feed, ref.index) for ref in act.mandates}):
        raise Refused(Reason.ACT_INVALID, "the act cites a mandate twice")
    if deed == "statement":
        members = tuple(governance.name_of(_feed(feed)) for feed in act.statement.members)
        owner = governance.simpul
        if not members or len(set(members)) != len(members) or not is_record_id(act.statement.id):
            raise Refused(Reason.ACT_INVALID, "a statement in nobody's name, or twice in somebody's")
    else:
        owner = _feed(act.on_behalf_of)
        members = (governance.name_of(owner),)
        known = governance.member(members[0])
        if known is not None and known.feed != owner.origin:
            raise Refused(Reason.ACT_INVALID, f"{owner} is not the feed of {known.name} of today")
        kind = act.publication.kind if deed == "publication" else kind
    return Question(
        governance.simpul,
        entry_pb2.MEMBER_ROLE_SIMPUL,
        action=Action.ACT,
        owner=owner,
        function=act.function,
        members=members,
        kind=kind,
        sectors=frozenset(act.sectors),
        regions=tuple(act.regions),
        cited=tuple(act.mandates),
        time=time,
    )


def _set(time: Timestamp, micros: int) -> None:
    time.seconds, time.nanos = micros // 1_000_000, micros % 1_000_000 * 1000


def _place(position: int) -> str:
    """A position as a key that sorts."""
    return f"{position:013d}"


def _at(epoch: int, index: int) -> str:
    """A place in the feeds of one member as a key that sorts."""
    return f"{epoch:04d}/{_place(index)}"


def _position(key: str) -> int:
    """The position in a key that ``_place`` made, whatever follows it."""
    return int(key.partition("/")[0])


def _feed(origin: str) -> FeedId:
    try:
        return FeedId.parse(origin)
    except InvalidInputError as error:
        raise Refused(Reason.ENTRY_MALFORMED, str(error)) from error


def _is_from(departure: entry_pb2.Departure, feed: FeedId, simpul: FeedId) -> bool:
    """Is it this federation that is left? A member may belong to several, and without a name means its own."""
    return _same_member(departure.simpul, simpul) if departure.simpul else feed.federation == simpul.federation


def _same_member(origin: str, other: FeedId) -> bool:
    """Is it a feed of that member, in whatever epoch?"""
    try:
        feed = FeedId.parse(origin)
    except InvalidInputError:
        return False
    return (feed.federation, feed.forum) == (other.federation, other.forum)


def _votes(member: governance_pb2.FederationMember) -> bool:
    return member.state == _ACTIVE and member.category != _ASSOCIATE


def _over(granted: governance_pb2.GrantedMandate, now: int) -> bool:
    """Has it expired, with nothing left to follow from its end? Submissions wait under a curate mandate until it is revoked."""
    return micros_of(granted.mandate.not_after) <= now and granted.mandate.function != "curate"


def _overlap(one: entry_pb2.Mandate, other: entry_pb2.Mandate) -> bool:
    """Could one act be covered by both?"""
    if one.function != other.function or (one.kinds and not set(one.kinds) & set(other.kinds)):
        return False
    if micros_of(one.not_after) <= micros_of(other.not_before) or micros_of(other.not_after) <= micros_of(one.not_before):
        return False
    if one.sectors and other.sectors and not set(one.sectors) & set(other.sectors):
        return False
    return not one.regions or not other.regions or _touch(one.regions, other.regions) or _touch(other.regions, one.regions)


def _touch(regions: Iterable[str], others: Iterable[str]) -> bool:
    """Does one of these regions lie in one of the others?"""
    known = set(others)
    return any(is_within_regions([region], known) for region in regions)
