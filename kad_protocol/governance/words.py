"""What all parts of governance share: names for values of the contract, keys of what is kept, a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.names import FeedId
from kad_protocol.v1 import entry_pb2, governance_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

__all__ = [
    "ACTIVE",
    "APPLIED",
    "ASSOCIATE",
    "CLOCK_TOLERANCE",
    "DAY",
    "DEFAULT_LAG_SECONDS",
    "FOUNDING_RULES",
    "LEFT",
    "MEMBER",
    "MINUTE",
    "MOST_CITED",
    "MOST_REGIONS",
    "MOST_SECTORS",
    "PROPOSAL",
    "SUSPENDED",
    "Decision",
    "GrantedMandate",
    "PerformedAct",
    "Refused",
    "feed_key",
    "feed_named",
    "has_vote",
    "is_of_member",
    "place_key",
    "position_of",
    "set_time",
]

DAY = 86_400 * 1_000_000
MINUTE = 60 * 1_000_000
#: How far the time of an act may lie beyond the time at which members confirmed it: clocks differ.
CLOCK_TOLERANCE = 5 * MINUTE

#: Said in the contract; an act that cites or names more is none.
MOST_CITED, MOST_SECTORS, MOST_REGIONS = 600, 32, 600

#: What else waits to be confirmed, besides acts and the ends of decisions: who is a member, and what is put to the vote.
MEMBER, PROPOSAL = "+", "?"

DEFAULT_LAG_SECONDS = 600

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

ACTIVE, SUSPENDED, LEFT, APPLIED = (
    entry_pb2.MEMBERSHIP_STATE_ACTIVE,
    entry_pb2.MEMBERSHIP_STATE_SUSPENDED,
    entry_pb2.MEMBERSHIP_STATE_LEFT,
    entry_pb2.MEMBERSHIP_STATE_APPLIED,
)
ASSOCIATE = entry_pb2.MEMBER_CATEGORY_ASSOCIATE
GrantedMandate, PerformedAct, Decision = governance_pb2.GrantedMandate, governance_pb2.PerformedAct, governance_pb2.Decision


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An entry has no effect."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def set_time(time: Timestamp, micros: int) -> None:
    """Fill in a time, given in microseconds since 1970."""
    time.seconds, time.nanos = micros // 1_000_000, micros % 1_000_000 * 1000


def place_key(position: int) -> str:
    """A position as a key that sorts."""
    return f"{position:013d}"


def feed_key(epoch: int, index: int) -> str:
    """A place in the feeds of one member as a key that sorts."""
    return f"{epoch:04d}/{place_key(index)}"


def position_of(key: str) -> int:
    """The position in a key that ``place_key`` made, whatever follows it."""
    return int(key.partition("/")[0])


def feed_named(origin: str) -> FeedId:
    """The feed of that origin.

    Raises:
        Refused: ``ENTRY_MALFORMED``.
    """
    try:
        return FeedId.parse(origin)
    except InvalidInputError as error:
        raise Refused(Reason.ENTRY_MALFORMED, str(error)) from error


def is_of_member(origin: str, other: FeedId) -> bool:
    """Is it a feed of that member, in whatever epoch?"""
    try:
        feed = FeedId.parse(origin)
    except InvalidInputError:
        return False
    return (feed.federation, feed.forum) == (other.federation, other.forum)


def has_vote(member: governance_pb2.FederationMember) -> bool:
    """Is it an active full member?"""
    return member.state == ACTIVE and member.category != ASSOCIATE
