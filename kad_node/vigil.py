"""Keeping watch over the simpul: what it, or a member, does that it must not do, as this node sees it now.

``alarms`` says what is wrong at present, from what lies on the disk alone, so that it is the same whether the daemon runs or not.
``Vigil`` runs beside the daemon: it notices what only time shows (a member whom the simpul passes over), says so in the log when an alarm
begins and ends, and has this node sign what it holds of a member that is passed over, so that others can prove it.
``Proofs`` are the files that prove it to anybody.
"""

from __future__ import annotations

import asyncio
import logging
import time as clock
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kad_node import dossier
from kad_node.replica import INCONSISTENT
from kad_node.service.keys import own_alarms
from kad_node.store.transaction import GOOD_SIZE, micros_now
from kad_node.witness import confirmed_checkpoint, simpul_of
from kad_protocol import evidence, merkle
from kad_protocol import feed as feeds
from kad_protocol.entry import parse_entry, time_of
from kad_protocol.errors import KadError, NotFoundError, Reason
from kad_protocol.governance import UNLAWFUL, Governance
from kad_protocol.keychain import chain_of
from kad_protocol.names import FeedId
from kad_protocol.v1 import entry_pb2, node_pb2, transparency_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["Vigil", "alarms", "evidence_file", "evidence_list"]

log = logging.getLogger(__name__)

#: Kind of the local marks for members whom the simpul passes over.
_PASSED_OVER = "passed-over"
_UNLAWFUL_REASONS = tuple(sorted(reason.value for reason in UNLAWFUL))
_MOST_FINDINGS = 1000
#: A simpul writes a census each hour, if nothing else.
_STALE_SECONDS = 3 * 3600
#: How far the time of the log may be ahead of this clock.
_CLOCK_TOLERANCE_SECONDS = 300
_LOOK_SECONDS = 5.0
_SECOND = 1_000_000


def alarms(tx: SqliteTransaction, own: FeedId) -> list[node_pb2.Alarm]:
    """What somebody does at present that they must not do."""
    found = [node_pb2.Alarm(reason=state.quarantine, feed=state.feed.origin) for state in tx.feeds() if state.quarantine]
    found += [node_pb2.Alarm(reason=Reason.ROOT_MISMATCH.value, feed=origin) for origin in tx.locals(INCONSISTENT)]
    simpul = simpul_of(tx, own)
    if simpul is None:
        return found
    governance = Governance(tx.affairs(simpul), simpul)
    if governance.head.waiting_reason == Reason.OBSERVATION_CONTRADICTED:
        found.append(node_pb2.Alarm(reason=governance.head.waiting_reason, feed=governance.head.waiting_for))
    found += [node_pb2.Alarm(reason=Reason.OBSERVATION_LAGGING.value, feed=origin) for origin in tx.locals(_PASSED_OVER)]
    findings = tx.findings(simpul, _UNLAWFUL_REASONS, _MOST_FINDINGS)
    if findings:
        found.append(node_pb2.Alarm(reason=Reason.UNLAWFUL.value, feed=simpul.origin, count=len(findings), why=findings[0][1].value))
    if simpul != own:
        found += _silence(tx, simpul, governance)
    return found


def _silence(tx: SqliteTransaction, simpul: FeedId, governance: Governance) -> list[node_pb2.Alarm]:
    """A log that stands still, and one that nobody confirms: what a simpul that shows each member another face cannot avoid."""
    state, now = tx.feed(simpul), micros_now()
    if state is None or not state.size:
        return []
    reason = None
    if governance.time > now + _CLOCK_TOLERANCE_SECONDS * _SECOND:
        reason = Reason.LOG_TIME_WRONG
    elif _written(tx, simpul, state.size - 1) < now - _STALE_SECONDS * _SECOND:
        reason = Reason.LOG_STALE
    elif tx.witnesses(simpul):
        confirmed = confirmed_checkpoint(tx, simpul)
        size = confirmed.checkpoint.size if confirmed is not None else _first_member(governance)
        if size < state.size and _written(tx, simpul, size) < now - governance.lag_seconds * _SECOND:
            reason = Reason.CONFIRMATION_OVERDUE
    return [node_pb2.Alarm(reason=reason.value, feed=simpul.origin)] if reason is not None else []


def _written(tx: SqliteTransaction, feed: FeedId, index: int) -> int:
    """The time that an entry gives."""
    entry = parse_entry(tx.entries(feed, index, 1, 1)[0].body)
    return time_of(entry) if entry is not None else 0


def _first_member(governance: Governance) -> int:
    """Before anybody was a member there was nobody to confirm anything."""
    return min((member.position for member in governance.members()), default=0)


# Proofs.


def evidence_list(tx: SqliteTransaction, own: FeedId) -> list[transparency_pb2.Evidence]:
    """What this node can prove: forks that it keeps, and what its feeds show."""
    kinds = transparency_pb2.Evidence
    found = []
    for number, feed, time, _ in tx.evidence():
        item = kinds(name=f"evidence/{number}", kind=kinds.KIND_FORK, feed=feed.origin)
        item.time.FromMicroseconds(time)
        found.append(item)
    simpul = simpul_of(tx, own)
    if simpul is None:
        return found
    governance = Governance(tx.affairs(simpul), simpul)
    if governance.head.waiting_reason == Reason.OBSERVATION_CONTRADICTED:
        item = kinds(name="evidence/contradiction", kind=kinds.KIND_CONTRADICTION, feed=simpul.origin, about=governance.head.waiting_for)
        item.time.CopyFrom(governance.head.time)
        found.append(item)
    findings = tx.findings(simpul, _UNLAWFUL_REASONS, _MOST_FINDINGS)
    if findings:
        item = kinds(name="evidence/unlawful", kind=kinds.KIND_UNLAWFUL, feed=simpul.origin)
        item.findings.extend(kinds.Finding(index=index, reason=reason.value) for index, reason, _ in reversed(findings))
        item.time.FromMicroseconds(min(time for _, _, time in findings))
        found.append(item)
    for origin, since in tx.locals(_PASSED_OVER).items():
        member = FeedId.parse(origin)
        if _held_by_others(tx, simpul, member, governance):
            item = kinds(name=f"evidence/omission-{member.forum}", kind=kinds.KIND_OMISSION, feed=simpul.origin, about=origin)
            item.time.FromMicroseconds(int(since or b"0"))
            found.append(item)
    return found


def _held_by_others(tx: SqliteTransaction, simpul: FeedId, member: FeedId, governance: Governance) -> bool:
    """Is there enough to prove an omission: others that held it, and a log that went on without it for longer than it may?"""
    until = governance.time // _SECOND - governance.lag_seconds
    return any(
        witness != member.origin and time < until
        for size, _ in tx.witnessed(member)
        if size > tx.observed(simpul, member)
        for witness, time, _ in tx.cosignatures(member, size)
    )


def evidence_file(tx: SqliteTransaction, own: FeedId, name: str) -> bytes:
    """A proof as a file.

    Raises:
        NotFoundError: ``EVIDENCE_NOT_FOUND``.
    """
    number = name.removeprefix("evidence/")
    for kept, _, _, data in tx.evidence():
        if number == str(kept):
            return data
    listed = {item.name: item for item in evidence_list(tx, own)}
    simpul, item = simpul_of(tx, own), listed.get(name)
    if item is None or simpul is None:
        raise NotFoundError(Reason.EVIDENCE_NOT_FOUND, f"there is no evidence {name[:80]}", name=name)
    match item.kind:
        case transparency_pb2.Evidence.KIND_CONTRADICTION:
            return _contradiction(tx, simpul, FeedId.parse(item.about))
        case transparency_pb2.Evidence.KIND_UNLAWFUL:
            return dossier.unlawful(tx, simpul, [(finding.index, Reason(finding.reason)) for finding in item.findings])
        case _:
            member = FeedId.parse(item.about)
            return dossier.omission(tx, simpul, member, dossier.held_note(tx, member))


def _contradiction(tx: SqliteTransaction, simpul: FeedId, member: FeedId) -> bytes:
    """The observation at which judging stands still, against what its author has signed."""
    index = Governance(tx.affairs(simpul), simpul).head.position
    log_state, author = tx.feed(simpul), tx.feed(member)
    stored = tx.entries(simpul, index, 1, 1)[0]
    entry = parse_entry(stored.body)
    if log_state is None or author is None or entry is None or not entry.observation.size <= author.signed_size:
        raise NotFoundError(Reason.EVIDENCE_NOT_FOUND, f"what {member} has signed does not reach as far as the observation", feed=member)
    tiles, size = tx.tiles(member), entry.observation.size
    inclusion = merkle.inclusion_proof(tx.tiles(simpul), index, log_state.signed_size)
    proof = merkle.consistency_proof(tiles, size, author.signed_size) if size < author.signed_size else []
    return evidence.contradiction(
        evidence.Observed(chain_of(tx, simpul), log_state.checkpoint, stored.body, index, inclusion),
        evidence.Signed(chain_of(tx, member), author.checkpoint, merkle.root_at(tiles, size), proof),
    )


# Following.


def contradicted(tx: SqliteTransaction, own: FeedId) -> list[tuple[FeedId, int]]:
    """Feeds of which this node holds another history than their federation's simpul observes, and to where it had observed them before:
    of one's own federation, and of those whose simpuls are members of it.
    """
    simpul, found = simpul_of(tx, own), []
    joined = [feed for feed, state in tx.foreign_simpuls() if state == entry_pb2.MEMBERSHIP_STATE_ACTIVE]
    for judged in [*joined, *([simpul] if simpul is not None else [])]:
        governance = Governance(tx.affairs(judged), judged)
        if governance.head.waiting_reason == Reason.OBSERVATION_CONTRADICTED:
            feed = FeedId.parse(governance.head.waiting_for)
            if feed.federation == judged.federation:
                found.append((feed, governance.observed_size(feed) or 0))
    return found


def follow_observed(tx: SqliteTransaction, own: FeedId) -> FeedId | None:
    """A member has signed two histories, and this node holds the one that the simpul's log does not observe: give it up from where the
    two part, so that the other can come. Returns whose feed it was.
    """
    for feed, known in contradicted(tx, own):
        if _is_to_follow(tx, own, feed, known):
            _follow(tx, feed, known)
            return feed
    return None


def _is_to_follow(tx: SqliteTransaction, own: FeedId, feed: FeedId, known: int) -> bool:
    """Without a proof it might be the simpul that is wrong; and what one has signed oneself is not given up."""
    state = tx.feed(feed)
    if state is None or feed == own or state.quarantine != Reason.FORKED or state.role == entry_pb2.MEMBER_ROLE_SIMPUL:
        return False
    return state.size > known


def _follow(tx: SqliteTransaction, feed: FeedId, known: int) -> None:
    feeds.truncate(tx, feed, known)
    tx.put_local(GOOD_SIZE, feed.origin, str(min(known, tx.good_size(feed) or known)).encode())
    tx.refold(feed)


# Watching.


@dataclass(slots=True)
class _Unobserved:
    """A member with entries here that the simpul's log does not observe: since when (seconds), and how much it observes."""

    observed: int
    since: float


class Vigil:
    """One node's watch.

    Args:
        node: whose feeds are watched.
        connected: since when a stream with a member has been open (seconds since 1970), None if there is none.
        reconnect: ends all streams, so that what is here is told anew.
    """

    def __init__(self, node: Node, connected: Callable[[FeedId], float | None], reconnect: Callable[[], None]) -> None:
        self._node = node
        self._connected = connected
        self._reconnect = reconnect
        self._unobserved: dict[FeedId, _Unobserved] = {}
        self._raised: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.look()
            except KadError as error:
                log.warning("the watch over the simpul was interrupted: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Once: compare what is here with what the simpul observes, and say what has changed."""
        begun, ended = await self._node.store.read(self._passed_over)
        if begun or ended:
            new: bool = await self._node.store.write(lambda tx: self._mark(tx, begun, ended))
            if new:
                self._node.witness.announce()
        own = self._node.own
        if await self._node.store.read(lambda tx: contradicted(tx, own)):
            followed = await self._node.store.write(lambda tx: follow_observed(tx, own))
            if followed is not None:
                log.warning("a feed is taken as the simpul observes it", extra={"event_name": "history_dropped", "feed": followed.origin})
                self._reconnect()
        found = await self._node.store.read(lambda tx: [*own_alarms(tx, own), *alarms(tx, own)])
        present = {(alarm.reason, alarm.feed) for alarm in found}
        for reason, feed in sorted(present - self._raised):
            log.warning("alarm", extra={"event_name": "alarm_raised", "reason": reason, "feed": feed})
        for reason, feed in sorted(self._raised - present):
            log.info("alarm over", extra={"event_name": "alarm_over", "reason": reason, "feed": feed})
        self._raised = present

    def _passed_over(self, tx: SqliteTransaction) -> tuple[set[FeedId], set[FeedId]]:
        """Members that are passed over since now, and that are not any more."""
        marked = {FeedId.parse(origin) for origin in tx.locals(_PASSED_OVER)}
        # What others told us of, and has been observed since, is cleared away with the marks.
        marked |= set(tx.passed_over())
        simpul = simpul_of(tx, self._node.own)
        if simpul is None or simpul == self._node.own:
            return set(), marked
        governance = Governance(tx.affairs(simpul), simpul)
        now, lag = clock.time(), governance.lag_seconds
        connected = self._connected(simpul)
        over, unobserved = set(), {}
        for member in governance.members():
            feed = FeedId.parse(member.feed)
            state = tx.feed(feed)
            if member.state != entry_pb2.MEMBERSHIP_STATE_ACTIVE or state is None or state.quarantine:
                continue
            if feed.federation != simpul.federation:
                # Of another simpul it observes what is no mere duty of its office; two would else observe each other for ever.
                continue
            observed = tx.observed(simpul, feed)
            if state.signed_size <= observed:
                continue
            seen = self._unobserved.get(feed)
            if seen is None or seen.observed != observed:
                seen = _Unobserved(observed, now)
            unobserved[feed] = seen
            if now - seen.since < _LOOK_SECONDS:
                continue
            # It must have had the time: while we were connected to it, or by the time of its own log.
            waited = now - max(seen.since, connected) if connected is not None else 0.0
            if max(waited, governance.time / _SECOND - seen.since) > lag:
                over.add(feed)
        self._unobserved = unobserved
        still = {feed for feed in marked if feed in unobserved}
        return over - {FeedId.parse(origin) for origin in tx.locals(_PASSED_OVER)}, marked - over - still

    def _mark(self, tx: SqliteTransaction, begun: set[FeedId], ended: set[FeedId]) -> bool:
        simpul = simpul_of(tx, self._node.own)
        new = False
        for feed in sorted(ended):
            tx.delete_local(_PASSED_OVER, feed.origin)
            tx.forget_witnessed(feed, 1 << 62)
        for feed in sorted(begun):
            tx.put_local(_PASSED_OVER, feed.origin, str(int(self._unobserved[feed].since * _SECOND)).encode())
            if simpul is not None and feed in tx.witnesses(simpul):
                new = self._node.witness.hold(tx, simpul, feed) or new
        return new
