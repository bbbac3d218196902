"""Who may do what: a pure question with a pure answer, asked by both sides.

The simpul asks before it acts and every node asks before it gives an entry any effect; both run this code over the same feeds,
so they get the same answer. The two modes of a federation are two small policies behind one interface; nothing else in KAD
asks which mode is on.

What mandates, charters and votes add to the answer is not built yet: until then a subsidiarity simpul holds no mandate of
anybody and may do exactly what a networking simpul may do, and says ``NO_MANDATE`` where that one says that it is impossible.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol

from kad_protocol.errors import InvalidInputError, PermissionDeniedError, Reason
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from kad_protocol.names import FeedId

__all__ = ["Action", "Networking", "Policy", "Subsidiarity", "Verdict", "policy"]


class Action(StrEnum):
    """What an entry does."""

    PUBLISH = "publish"
    RETRACT = "retract"
    DESCRIBE = "describe"
    ROTATE_KEYS = "rotate-keys"
    OBSERVE = "observe"
    ADMIT = "admit"


#: Acts that belong to the role of a simpul, in either mode; they do nothing in anybody's name.
_SIMPUL_ACTIONS = frozenset({Action.OBSERVE, Action.ADMIT})


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


class Policy(Protocol):
    """One mode."""

    name: ClassVar[str]

    def may(self, actor: FeedId, role: int, action: Action, owner: FeedId) -> Verdict:
        """May ``actor``, a member with ``MemberRole`` ``role``, do this to something of ``owner``?"""


def _own_affairs(actor: FeedId, role: int, action: Action, owner: FeedId) -> Verdict | None:
    """What holds in every mode: one's own things are one's own, and a simpul does a simpul's work. None: the mode decides."""
    if action in _SIMPUL_ACTIONS:
        if role == entry_pb2.MEMBER_ROLE_SIMPUL and actor.federation == owner.federation:
            return _YES
        return Verdict(allowed=False, reason=Reason.ROLE_INSUFFICIENT, message=f"{actor.forum} is not the simpul of {owner.federation}")
    if actor == owner:
        return _YES
    return None


class Networking:
    """Authority is shared: the simpul mediates, every forum keeps all of its own."""

    name: ClassVar[str] = "networking"

    def may(self, actor: FeedId, role: int, action: Action, owner: FeedId) -> Verdict:
        """See ``Policy.may``: nobody acts in another's name."""
        return _own_affairs(actor, role, action, owner) or Verdict(
            allowed=False,
            reason=Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE,
            message=f"{actor.forum} may not {action} for {owner.forum}: in a networking federation nobody acts for another",
        )


class Subsidiarity:
    """Authority is delegated: the simpul does in a forum's name what a live mandate of that forum allows."""

    name: ClassVar[str] = "subsidiarity"

    def may(self, actor: FeedId, role: int, action: Action, owner: FeedId) -> Verdict:
        """See ``Policy.may``: in another's name only under a mandate, and there is none yet."""
        return _own_affairs(actor, role, action, owner) or Verdict(
            allowed=False,
            reason=Reason.NO_MANDATE,
            message=f"{actor.forum} may not {action} for {owner.forum}: it holds no mandate for that",
        )


_POLICIES: dict[str, Policy] = {Networking.name: Networking(), Subsidiarity.name: Subsidiarity()}


def policy(mode: str) -> Policy:
    """The policy of a mode.

    Raises:
        InvalidInputError: ``INVALID_CONFIGURATION``.
    """
    try:
        return _POLICIES[mode]
    except KeyError:
        raise InvalidInputError(
            Reason.INVALID_CONFIGURATION, f"mode is {' or '.join(_POLICIES)}, not {mode!r}", key="mode", value=mode
        ) from None
