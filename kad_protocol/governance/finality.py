"""Finality: what a quorum of the members has confirmed, and when."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from kad_protocol.authority import micros_of
from kad_protocol.errors import KadError, Reason, VerificationError
from kad_protocol.governance.acts import Acts
from kad_protocol.governance.effects import Annulled
from kad_protocol.governance.members import Members
from kad_protocol.governance.words import ACTIVE, CLOCK_TOLERANCE, MEMBER, PerformedAct, Refused, position_of, set_time
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, Note, verify_cosignatures
from kad_protocol.v1 import entry_pb2, governance_pb2
from kad_protocol.witness import LAST_SECOND, confirming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Finality"]


class Finality(Members, Acts):
    """The quorum speaks: time passes, acts and admissions stand or fall, decisions close."""

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
        set_time(self.head.confirmed_time, max(self.confirmed, confirmed))
        if abs(self.time - confirmed) > CLOCK_TOLERANCE:
            # What members say of the time stands against what the simpul says: a clock that ran off, or was held back, is set right here.
            set_time(self.head.time, confirmed)
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
        if confirmed < self.confirmed - CLOCK_TOLERANCE:
            raise Refused(Reason.FINALITY_INVALID, "members confirmed it before they confirmed what is final already")
        return checkpoint.size, confirmed

    def _finalise(self, confirmed: int) -> None:
        """What waited for the quorum is final, unless the confirmation shows that its time was wrong."""
        for key, _ in self._items.all("awaiting"):
            if position_of(key) >= self.head.final_size:
                break
            self._items.delete("awaiting", key)
            number = key.partition("/")[2]
            if number.startswith(MEMBER):
                self._finalise_admission(position_of(key), number.removeprefix(MEMBER), confirmed)
            elif not number:
                performed = self.act(position_of(key))
                if performed is not None and performed.state == PerformedAct.STATE_UNWITNESSED:
                    self._finalise_act(performed, confirmed)
            elif (decision := self.decision(number)) is not None:
                decision.final = True
                self._keep_decision(decision)

    def _finalise_act(self, performed: governance_pb2.PerformedAct, confirmed: int) -> None:
        if self._is_time_wrong(micros_of(performed.time), confirmed, performed.act.mandates):
            self._void(performed, Reason.ACT_TIME_WRONG)
        else:
            performed.state = PerformedAct.STATE_FINAL
            set_time(performed.final_time, confirmed)
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
        if member.state == ACTIVE and self._is_time_wrong(int(time), confirmed, entry_pb2.Membership.FromString(entry).mandates):
            self.effects.append(Annulled(position, Reason.ACT_TIME_WRONG))
            self._depart(member, FeedId.parse(member.feed), 0, self.head.position - 1)

    def _is_time_wrong(self, done: int, confirmed: int, mandates: Iterable[entry_pb2.MandateRef]) -> bool:
        """Does the time at which something was done under mandates not fit the time at which members confirmed it?

        A log that holds its time back could act under a mandate that has run out: so a late confirmation must find it still running.
        """
        if done > confirmed + CLOCK_TOLERANCE:
            return True
        found = (self.mandate(ref) for ref in mandates)
        return confirmed > done + CLOCK_TOLERANCE and any(
            granted is None or micros_of(granted.mandate.not_after) <= confirmed for granted in found
        )
