"""What the simpul owes its members without being asked: the quorum that it got, the census, admissions that were endorsed, decisions
that are to be carried out. Each is one entry of its feed, written when the feeds say that it is due.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from kad_node.fence import FenceState
from kad_node.service.affairs import governance_of
from kad_node.store.transaction import micros_now
from kad_node.witness import confirmed_checkpoint, witnessed_note
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import order
from kad_protocol.entry import new_entry
from kad_protocol.errors import KadError
from kad_protocol.feed import Draft
from kad_protocol.governance import Refused
from kad_protocol.names import FeedId
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.governance import Governance

__all__ = ["Steward", "admission", "census"]

log = logging.getLogger(__name__)

_CARRIED = "carried-out"
#: Deadlines and the census are looked at this often, in seconds, when nothing else happens.
_LOOK_SECONDS = 1.0
_HOUR, _AGAIN = 3_600_000_000, 5_000_000
#: This clock had run ahead and is right again: the members' clocks set the log right.
_AHEAD = 300_000_000


def admission(found: Governance, member_feed: str, genesis: bytes, category: int) -> entry_pb2.Membership | None:
    """The entry that admits a forum, if the rules allow it now: by endorsements, or by the mandates of enough members."""
    entry = entry_pb2.Membership(
        feed=member_feed,
        genesis=genesis,
        state=entry_pb2.MEMBERSHIP_STATE_ACTIVE,
        category=category or entry_pb2.MEMBER_CATEGORY_FULL,  # type: ignore[arg-type]
    )
    feed = FeedId.parse(member_feed)
    member = found.member(found.name_of(feed))
    for mandates in ([], [granted.ref for granted in found.usable("admit-members", max(micros_now(), found.time))]):
        del entry.mandates[:]
        entry.mandates.extend(mandates)
        try:
            found.may_admit(feed, entry, member)
        except Refused:
            continue
        return entry
    return None


def census(found: Governance) -> tuple[entry_pb2.Entry, bytes]:
    """A census of what was observed, as an entry and its list."""
    listed = entry_pb2.CensusList()
    for member in sorted(found.members(), key=lambda member: member.feed):
        if member.state == entry_pb2.MEMBERSHIP_STATE_ACTIVE and member.observed_size:
            listed.observations.add(feed=member.feed, size=member.observed_size)
    blob = contents.new_blob(listed.SerializeToString())
    entry = new_entry(max(micros_now(), found.time))
    entry.census.digest, entry.census.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES
    return entry, blob


class Steward:
    """Does a simpul's duties.

    Args:
        node: the simpul.
        census_seconds: pause between two censuses.
    """

    def __init__(self, node: Node, census_seconds: float) -> None:
        self._node = node
        self._census_micros = int(census_seconds * 1_000_000)
        self._last_census = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            changed = self._node.next_change()
            try:
                due = await self._node.store.read(self._due)
                if due and self._node.fence.state is FenceState.OPEN:
                    await self._node.store.write(self._do)
            except KadError as error:
                log.warning("a duty could not be done yet: %s", error)
            try:
                await asyncio.wait_for(changed.wait(), _LOOK_SECONDS)
            except TimeoutError:
                continue
            # What comes in quick succession is answered together.
            await asyncio.sleep(0.05)

    def _due(self, tx: SqliteTransaction) -> bool:
        found = governance_of(tx, self._node)
        return bool(self._drafts(tx, found))

    def _do(self, tx: SqliteTransaction) -> None:
        found = governance_of(tx, self._node)
        drafts = self._drafts(tx, found)
        if drafts:
            feeds.append(tx, self._node.own, drafts)
        for draft in drafts:
            if draft.entry.HasField("membership") and draft.entry.membership.decision:
                tx.put_local(_CARRIED, draft.entry.membership.decision, b"")
            if draft.entry.HasField("census"):
                self._last_census = micros_now()

    def _drafts(self, tx: SqliteTransaction, found: Governance) -> list[Draft]:
        state = tx.feed(self._node.own)
        if state is None or found.head.position != state.tail:
            # What is still to be judged may change what is due.
            return []
        finality = self._finality(tx, found)
        return [*finality, *self._admissions(found), *self._carry_out(tx, found), *self._census(tx, found, settling=bool(finality))]

    def _finality(self, tx: SqliteTransaction, found: Governance) -> list[Draft]:
        """The quorum, when something waits for it: acts, members, decisions, a deadline; and once an hour, so that the time is known."""
        head, now = found.head, micros_now()
        confirmed = confirmed_checkpoint(tx, self._node.own)
        if confirmed is None or confirmed.checkpoint.size <= head.final_size:
            return []
        due = head.next_deadline.ToMicroseconds() if head.HasField("next_deadline") else None
        waits = found.awaits_below(confirmed.checkpoint.size) or now - found.confirmed >= _HOUR or found.time > now + _AHEAD
        if not waits and (due is None or due > now):
            return []
        entry = new_entry(max(now, found.time))
        entry.finality.note = witnessed_note(tx, self._node.own)[0]
        try:
            _, time = found.check_finality(entry.finality.note, head.position, lambda feed, size: order.root_of(tx, feed, size))
        except Refused as refused:
            # For example a member has changed its keys twice since: the next checkpoint will do, and nothing is written till then.
            log.info("the quorum is not good any more: %s", refused)
            return []
        return [Draft(entry)] if waits or (due is not None and due <= time) else []

    def _admissions(self, found: Governance) -> list[Draft]:
        drafts = []
        for member in found.members():
            if member.state != entry_pb2.MEMBERSHIP_STATE_APPLIED:
                continue
            admitted = admission(found, member.feed, member.genesis, member.category)
            if admitted is not None:
                entry = new_entry(max(micros_now(), found.time))
                entry.membership.CopyFrom(admitted)
                drafts.append(Draft(entry))
        return drafts

    def _carry_out(self, tx: SqliteTransaction, found: Governance) -> list[Draft]:
        drafts = []
        for member in found.members():
            if not member.decision or tx.local(_CARRIED, member.decision) is not None:
                continue
            entry = new_entry(max(micros_now(), found.time))
            entry.membership.CopyFrom(
                entry_pb2.Membership(
                    feed=member.feed, genesis=member.genesis, state=member.state, category=member.category, decision=member.decision
                )
            )
            drafts.append(Draft(entry))
        return drafts

    def _census(self, tx: SqliteTransaction, found: Governance, *, settling: bool) -> list[Draft]:
        """Once an hour; and when a deadline has passed, so that members confirm a log that is later than that, which closes it."""
        now, head = micros_now(), found.head
        regular = bool(found.members()) and now - self._last_census >= self._census_micros
        overdue = head.HasField("next_deadline") and head.next_deadline.ToMicroseconds() <= now and not settling
        if overdue and found.time >= head.next_deadline.ToMicroseconds():
            # The log says so already, and waits to be confirmed. Confirmed by clocks that are behind, it is said once more.
            confirmed = confirmed_checkpoint(tx, self._node.own)
            overdue = confirmed is not None and confirmed.checkpoint.size >= head.position and now - self._last_census >= _AGAIN
        if not regular and not overdue:
            return []
        entry, blob = census(found)
        return [Draft(entry, blob)]
