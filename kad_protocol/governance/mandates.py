"""Mandates: what forums hand up to their simpul, and take back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_protocol.authority import FUNCTIONS, giver_of, is_region, is_within_regions, micros_of
from kad_protocol.errors import Reason
from kad_protocol.governance.submissions import Submissions
from kad_protocol.governance.words import DAY, MOST_REGIONS, MOST_SECTORS, GrantedMandate, Refused, is_of_member
from kad_protocol.names import FeedId, is_record_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kad_protocol.v1 import entry_pb2, governance_pb2

__all__ = ["LONGEST_MANDATE_DAYS", "Mandates", "check_mandate"]

LONGEST_MANDATE_DAYS = 400
#: Mandates of one member that run at one time, and proposals of one member that are open: whoever needs more can only want to make work
#: for everybody, since each new one is compared with them.
_MOST_MANDATES = 100


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
        (not is_of_member(mandate.delegate, simpul), f"it is for {mandate.delegate[:80]!r}, not for the simpul {simpul}"),
        (not mandate.HasField("not_before") or not mandate.HasField("not_after") or end <= begin, "it ends before it begins"),
        (end - begin > LONGEST_MANDATE_DAYS * DAY, f"it lasts longer than {LONGEST_MANDATE_DAYS} days"),
        (
            bool(mandate.kinds) is not function.asks_kinds,
            f"{function.name} {'needs' if function.asks_kinds else 'takes no'} kinds of record",
        ),
        (limited and not function.may_limit, f"{function.name} cannot be limited to government affairs or regions"),
        (mandate.veto_days > 90, "a veto is possible for 90 days at most"),  # noqa: PLR2004 - said in the contract
        (len(mandate.sectors) > MOST_SECTORS or len(mandate.regions) > MOST_REGIONS or len(mandate.kinds) > 8, "its scope is too long"),  # noqa: PLR2004
        (not all(map(is_region, mandate.regions)), "a region in it is no kode wilayah"),
    ):
        if wrong:
            raise Refused(Reason.MANDATE_INVALID, f"the mandate cannot be: {why}")


class Mandates(Submissions):
    """Mandates are given, and end."""

    def _grant(
        self, member: governance_pb2.FederationMember, feed: FeedId, index: int, leaf: bytes, mandate: entry_pb2.Mandate, position: int
    ) -> None:
        check_mandate(mandate, feed, self._simpul)
        self.check_new_mandate(member.name, mandate, self.confirmed or self.time)
        for other in self.running(member.name):
            if _over(other, self.confirmed):
                # Not looked at again; time does not go back.
                self._items.delete("running", f"{member.name}/{other.mandate.id}")
        granted = GrantedMandate(name=f"{member.name}/mandates/{mandate.id}", mandate=mandate, position=position)
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
        granted = GrantedMandate.FromString(kept)
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
