"""What the simpul does in members' names, judged; and vetoes."""

from __future__ import annotations

from kad_protocol.authority import FUNCTIONS, Action, Question, giver_of, is_region, micros_of, threshold
from kad_protocol.errors import Reason
from kad_protocol.governance.effects import Withdrawn
from kad_protocol.governance.state import State
from kad_protocol.governance.words import (
    DAY,
    MOST_CITED,
    MOST_REGIONS,
    MOST_SECTORS,
    PerformedAct,
    Refused,
    feed_named,
    is_of_member,
    place_key,
)
from kad_protocol.names import is_record_id
from kad_protocol.v1 import entry_pb2, governance_pb2

__all__ = ["Acts", "question_of"]


class Acts(State):
    """Acts are judged, refused, vetoed."""

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
        performed = PerformedAct(name=f"acts/{index}", feed=self._simpul.origin, index=index, act=act, state=PerformedAct.STATE_UNWITNESSED)
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
        performed.state, performed.reason = PerformedAct.STATE_REFUSED, reason.value
        self._keep_act(performed)
        self._items.delete("awaiting", place_key(performed.index))
        return Refused(reason, message)

    def _void(self, performed: governance_pb2.PerformedAct, reason: Reason) -> None:
        performed.state, performed.reason = (
            PerformedAct.STATE_VETOED if reason is Reason.ACT_VETOED else PerformedAct.STATE_REFUSED,
            reason.value,
        )
        self._keep_act(performed)
        self.effects.append(Withdrawn(performed, reason))

    def check_veto(self, member: governance_pb2.FederationMember, index: int) -> governance_pb2.PerformedAct:
        """Check a veto; returns what it is against.

        Raises:
            Refused: ``ACT_UNKNOWN``, ``VETO_TOO_LATE``.
        """
        performed = self.act(index)
        if performed is None or performed.state in (PerformedAct.STATE_REFUSED, PerformedAct.STATE_VETOED):
            raise Refused(Reason.ACT_UNKNOWN, f"there is no act {index} that has an effect")
        giving = [granted for ref in performed.act.mandates if (granted := self.mandate(ref)) is not None]
        own = [granted for granted in giving if granted.name.startswith(f"{member.name}/")]
        if not own or member.name in performed.vetoes:
            raise Refused(Reason.ACT_UNKNOWN, f"{performed.name} was not done in the name of {member.name}, or is vetoed already")
        if performed.act.WhichOneof("deed") not in ("publication", "withdrawal"):
            days = max(granted.mandate.veto_days for granted in own)
            if not days or (performed.HasField("final_time") and self.confirmed > micros_of(performed.final_time) + days * DAY):
                raise Refused(Reason.VETO_TOO_LATE, f"{performed.name} could be vetoed for {days} days")
        return performed

    def _veto(self, member: governance_pb2.FederationMember, veto: entry_pb2.Veto) -> None:
        if not is_of_member(veto.feed, self._simpul):
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


def question_of(governance: State, act: entry_pb2.Act, time: int, kind: int = 0) -> Question:
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
    if len(act.mandates) > MOST_CITED or len(act.sectors) > MOST_SECTORS or len(act.regions) > MOST_REGIONS:
        raise Refused(Reason.ACT_INVALID, "the act cites or names more than is possible")
    if not all(map(is_region, act.regions)):
        raise Refused(Reason.ACT_INVALID, "a region of the act is no kode wilayah")
    if len(act.mandates) != len({(ref.feed, ref.index) for ref in act.mandates}):
        raise Refused(Reason.ACT_INVALID, "the act cites a mandate twice")
    if deed == "statement":
        members = tuple(governance.name_of(feed_named(feed)) for feed in act.statement.members)
        owner = governance.simpul
        if not members or len(set(members)) != len(members) or not is_record_id(act.statement.id):
            raise Refused(Reason.ACT_INVALID, "a statement in nobody's name, or twice in somebody's")
    else:
        owner = feed_named(act.on_behalf_of)
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
