"""One federation: the entries of its simpul's log and of its members, each at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_protocol.authority import micros_of
from kad_protocol.errors import Reason
from kad_protocol.governance.finality import Finality
from kad_protocol.governance.words import LEFT, SUSPENDED, Refused, is_of_member, set_time
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from kad_protocol.names import FeedId

__all__ = ["UNLAWFUL", "Governance"]

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

#: What a suspended member may still write with effect: nothing can take these away.
_ALWAYS = frozenset({"mandate_revocation", "departure", "key_rotation", "genesis", "veto"})
#: What counts of a member that has left as well: its keys go on, or it could confirm nothing after it has come back.
_KEYS = frozenset({"key_rotation", "genesis"})


class Governance(Finality):
    """One federation at one place of its simpul's log."""

    def reach(self, position: int, micros: int) -> None:
        """The log has come to an entry, which says what time it is."""
        set_time(self.head.time, max(self.time, micros))
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

    def observe(self, feed: FeedId, size: int) -> None:
        """So much is observed now."""
        member = self.member(self.name_of(feed))
        if member is not None:
            member.observed_size = size
            self._keep_member(member)

    def take(self, feed: FeedId, index: int, leaf: bytes, entry: entry_pb2.Entry, position: int) -> None:  # noqa: C901, PLR0912 - one line for each kind
        """An entry of a member's feed takes effect, if it may.

        Raises:
            Refused: it has none.
        """
        member = self.member(self.name_of(feed))
        if member is None or member.feed != feed.origin:
            raise Refused(Reason.NOT_A_MEMBER, f"{feed} is no member's feed of today")
        body = entry.WhichOneof("body") or ""
        if member.state == LEFT and body not in _KEYS:
            raise Refused(Reason.MEMBER_LEFT, f"{member.name} has left")
        if member.state == SUSPENDED and body not in _ALWAYS:
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


def _is_from(departure: entry_pb2.Departure, feed: FeedId, simpul: FeedId) -> bool:
    """Is it this federation that is left? A member may belong to several, and without a name means its own."""
    return is_of_member(departure.simpul, simpul) if departure.simpul else feed.federation == simpul.federation
