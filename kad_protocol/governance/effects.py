"""What follows from governance for records, feeds and witnesses; ``kad_protocol.order`` carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kad_protocol.errors import Reason
    from kad_protocol.names import FeedId
    from kad_protocol.v1 import governance_pb2

__all__ = ["Annulled", "Effect", "Pinned", "Released", "Standing", "Superseded", "Withdrawn"]


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
