"""Who may do what: a pure question with a pure answer, asked by both sides.

The simpul asks before it acts and every node asks before it gives an entry any effect; both run this code over the same feeds,
so they get the same answer. What they ask about is a place in the simpul's log (``Facts``): what was lawful there stays lawful, whatever
comes later. The two modes of a federation are two small policies behind one interface; nothing else in KAD asks which mode is on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol

from kad_protocol.errors import InvalidInputError, PermissionDeniedError, Reason
from kad_protocol.names import FeedId, forum_name
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from google.protobuf.timestamp_pb2 import Timestamp

__all__ = [
    "FUNCTIONS",
    "Action",
    "Facts",
    "Function",
    "Networking",
    "Policy",
    "Question",
    "Subsidiarity",
    "Verdict",
    "giver_of",
    "is_region",
    "is_within_regions",
    "member_name",
    "micros_of",
    "mode_of",
    "policy",
    "threshold",
]

_REGION = re.compile(r"[0-9]{2}(?:\.[0-9]{2}(?:\.[0-9]{2}(?:\.[0-9]{4})?)?)?")


class Action(StrEnum):
    """What an entry does."""

    PUBLISH = "publish"
    RETRACT = "retract"
    DESCRIBE = "describe"
    ROTATE_KEYS = "rotate-keys"
    OBSERVE = "observe"
    ADMIT = "admit"
    #: Something in the name of others, under a function that they handed up.
    ACT = "act"


@dataclass(frozen=True, slots=True)
class Function:
    """Something that forums can hand up."""

    name: str
    #: Only effective when enough full members have mandated it.
    collective: bool = False
    #: The kind of record that it is about, where there is only one.
    kind: int = 0
    #: A mandate must say for which kinds of record.
    asks_kinds: bool = False
    #: A mandate may be limited to government affairs and regions.
    may_limit: bool = False


FUNCTIONS = {
    function.name: function
    for function in (
        Function("publish-on-behalf", asks_kinds=True, may_limit=True),
        Function("curate", asks_kinds=True),
        Function("consolidate-agenda", kind=content_pb2.RECORD_KIND_AGENDA_ITEM, may_limit=True),
        Function("harmonise-regulation", kind=content_pb2.RECORD_KIND_REGULATION, may_limit=True),
        Function("represent", collective=True, may_limit=True),
        Function("admit-members", collective=True),
    )
}

#: Acts that belong to the role of a simpul, in either mode; they do nothing in anybody's name.
_SIMPUL_ACTIONS = frozenset({Action.OBSERVE, Action.ADMIT})


def member_name(feed: FeedId, federation: str) -> str:
    """The name of a member inside a federation: ``forums/<forum>``, with its own federation before it if it comes from another one."""
    return forum_name(feed.forum) if feed.federation == federation else f"{feed.federation}/{forum_name(feed.forum)}"


def micros_of(time: Timestamp) -> int:
    """Microseconds since 1970, whatever was written there: a time that no calendar knows may not keep anything from being judged."""
    return time.seconds * 1_000_000 + time.nanos // 1000


def threshold(members: int, percent: int) -> int:
    """How many of so many members a share is: rounded up, at least one."""
    return max(1, -(-members * percent // 100))


def is_within_regions(regions: Collection[str], allowed: Iterable[str]) -> bool:
    """Does each region lie in one of those that are allowed (the same code, or one below it)?"""
    known = allowed if isinstance(allowed, (set, frozenset)) else set(allowed)
    return all(any(above in known for above in _and_above(region)) for region in regions)


def is_region(code: str) -> bool:
    """Is it a kode wilayah (Kemendagri): ``34``, ``34.71``, ``34.71.01`` or ``34.71.01.1001``?"""
    return _REGION.fullmatch(code) is not None


def _and_above(region: str) -> Iterator[str]:
    """``34.04.07``, ``34.04``, ``34``."""
    while region:
        yield region
        region = region.rpartition(".")[0]


def giver_of(granted: governance_pb2.GrantedMandate) -> str:
    """The name of the member that gave a mandate (a forum may itself be called "mandates")."""
    return granted.name.rpartition("/mandates/")[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes, or no and why."""

    allowed: bool
    reason: Reason | None = None
    message: str = ""

    def require(self) -> None:
        """Raise if the answer is no.

        Raises:
            PermissionDeniedError: with the verdict's reason.
        """
        if not self.allowed:
            raise PermissionDeniedError(self.reason or Reason.ROLE_INSUFFICIENT, self.message)


_YES = Verdict(allowed=True)


def _no(reason: Reason, message: str) -> Verdict:
    return Verdict(allowed=False, reason=reason, message=message)


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody wants to do."""

    actor: FeedId
    #: ``MemberRole`` of the actor.
    role: int
    action: Action
    #: Whose affair it is.
    owner: FeedId

    # The rest only for acts in the name of others.
    function: str = ""
    #: Names of the members in whose name it is.
    members: tuple[str, ...] = ()
    #: ``RecordKind``, where the function is about records of several kinds.
    kind: int = 0
    sectors: frozenset[int] = frozenset()
    regions: tuple[str, ...] = ()
    #: The mandates that it rests on.
    cited: Sequence[entry_pb2.MandateRef] = field(default=())
    #: Microseconds since 1970, by the simpul's log.
    time: int = 0


class Facts(Protocol):
    """What holds in a federation at one place of its simpul's log."""

    @property
    def simpul(self) -> FeedId:
        """The simpul's feed."""

    @property
    def charter(self) -> entry_pb2.Charter:
        """The rules in force."""

    def member(self, name: str) -> governance_pb2.FederationMember | None:
        """A member or candidate by name."""

    def mandate(self, ref: entry_pb2.MandateRef) -> governance_pb2.GrantedMandate | None:
        """The mandate that is meant, if it was observed before this place."""

    def full_members(self) -> list[str]:
        """Names of the active full members."""


class Policy(Protocol):
    """One mode."""

    name: ClassVar[str]

    def may(self, question: Question, facts: Facts | None = None) -> Verdict:
        """May it be done? ``facts`` are needed for acts in the name of others."""


def _own_affairs(question: Question) -> Verdict | None:
    """What holds in every mode: one's own things are one's own, and a simpul does a simpul's work. None: the mode decides."""
    if question.action in _SIMPUL_ACTIONS:
        if question.role == entry_pb2.MEMBER_ROLE_SIMPUL:
            return _YES
        return _no(Reason.ROLE_INSUFFICIENT, f"{question.actor.forum} is not a simpul")
    if question.action is not Action.ACT and question.actor == question.owner:
        return _YES
    return None


class Networking:
    """Authority is shared: the simpul mediates, every forum keeps all of its own."""

    name: ClassVar[str] = "networking"

    def may(self, question: Question, facts: Facts | None = None) -> Verdict:
        """See ``Policy.may``: nobody acts in another's name."""
        del facts
        return _own_affairs(question) or _no(
            Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE,
            f"{question.actor.forum} may not {question.function or question.action} for {question.owner.forum}:"
            " in a networking federation nobody acts for another",
        )


class Subsidiarity:
    """Authority is delegated: the simpul does in a forum's name what a live mandate of that forum allows, and nothing else."""

    name: ClassVar[str] = "subsidiarity"

    def may(self, question: Question, facts: Facts | None = None) -> Verdict:  # noqa: PLR0911 - a table
        """See ``Policy.may``: in another's name only under mandates that cover it."""
        own = _own_affairs(question)
        if own is not None:
            return own
        function = FUNCTIONS.get(question.function)
        if facts is None or question.action is not Action.ACT or question.actor != facts.simpul:
            return _no(
                Reason.NO_MANDATE, f"{question.actor.forum} may not {question.action} for {question.owner.forum}: that needs a mandate"
            )
        if function is None:
            return _no(Reason.FUNCTION_UNKNOWN, f"there is no function {question.function!r}")
        giving: set[str] = set()
        for ref in question.cited:
            name, verdict = self._holds(ref, function, question, facts)
            if not verdict.allowed:
                return verdict
            giving.add(name)
        missing = [name for name in question.members if name not in giving]
        if missing or not giving:
            who = ", ".join(missing[:3]) or "anybody"
            return _no(Reason.NO_MANDATE, f"no mandate of {who} for {function.name}")
        if function.collective:
            return self._enough(giving, function, facts)
        return _YES

    @staticmethod
    def _holds(ref: entry_pb2.MandateRef, function: Function, question: Question, facts: Facts) -> tuple[str, Verdict]:  # noqa: C901, PLR0911 - a table
        """Whose mandate it is, and whether it counts here and now, for this."""
        granted = facts.mandate(ref)
        if granted is None:
            return "", _no(Reason.MANDATE_UNKNOWN, f"no mandate at {ref.feed} {ref.index} has been observed, or it is another one")
        mandate, name = granted.mandate, giver_of(granted)
        member = facts.member(name)
        if granted.end_position:
            return name, _no(Reason.MANDATE_REVOKED, f"{granted.name} was revoked")
        if member is None or member.state == entry_pb2.MEMBERSHIP_STATE_LEFT:
            return name, _no(Reason.MEMBER_LEFT, f"{name} has left")
        if member.state != entry_pb2.MEMBERSHIP_STATE_ACTIVE:
            return name, _no(Reason.MEMBER_SUSPENDED, f"{name} is suspended, so its mandates do not count")
        if question.time < micros_of(mandate.not_before):
            return name, _no(Reason.MANDATE_NOT_YET, f"{granted.name} does not count yet")
        if question.time >= micros_of(mandate.not_after):
            return name, _no(Reason.MANDATE_EXPIRED, f"{granted.name} has expired")
        if mandate.function != function.name:
            return name, _no(Reason.MANDATE_SCOPE, f"{granted.name} is for {mandate.function}, not for {function.name}")
        if function.asks_kinds and question.kind not in mandate.kinds:
            return name, _no(Reason.MANDATE_SCOPE, f"{granted.name} is not for records of this kind")
        if mandate.sectors and (not question.sectors or not question.sectors <= set(mandate.sectors)):
            return name, _no(Reason.MANDATE_SCOPE, f"{granted.name} is for some government affairs only, and these are not among them")
        if mandate.regions and (not question.regions or not is_within_regions(question.regions, mandate.regions)):
            return name, _no(Reason.MANDATE_SCOPE, f"{granted.name} is for some regions only, and these are not among them")
        return name, _YES

    @staticmethod
    def _enough(giving: set[str], function: Function, facts: Facts) -> Verdict:
        full = facts.full_members()
        percent = next((rule.percent for rule in facts.charter.collective if rule.function == function.name), 100)
        needed, have = threshold(len(full), percent), len(giving & set(full))
        if have >= needed:
            return _YES
        return _no(Reason.MANDATES_TOO_FEW, f"{function.name} needs the mandates of {needed} full members, {have} have given theirs")


_POLICIES: dict[str, Policy] = {Networking.name: Networking(), Subsidiarity.name: Subsidiarity()}
_MODES = {Networking.name: entry_pb2.MODE_NETWORKING, Subsidiarity.name: entry_pb2.MODE_SUBSIDIARITY}


def mode_of(name: str) -> entry_pb2.Mode.ValueType:
    """The ``Mode`` that a configuration means.

    Raises:
        InvalidInputError: ``INVALID_CONFIGURATION``.
    """
    policy(name)
    return _MODES[name]


def policy(mode: str | int) -> Policy:
    """The policy of a mode, by its name or its ``Mode``.

    Raises:
        InvalidInputError: ``INVALID_CONFIGURATION``.
    """
    if isinstance(mode, int):
        mode = Subsidiarity.name if mode == entry_pb2.MODE_SUBSIDIARITY else Networking.name
    try:
        return _POLICIES[mode]
    except KeyError:
        raise InvalidInputError(
            Reason.INVALID_CONFIGURATION, f"mode is {' or '.join(_POLICIES)}, not {mode!r}", key="mode", value=mode
        ) from None
