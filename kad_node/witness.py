"""Confirming what the simpul says of itself: a node cosigns its checkpoints, and passes on who else did.

One rule above all: the node first makes durable which checkpoint it confirms, and only then lets the cosignature leave. It confirms
only what lies on its own disk (the mirror rule), never less than before, and never two roots for one size. So whoever collects a quorum
of such lines knows that this many members hold the same history.
"""

from __future__ import annotations

import json
import logging
import time as clock
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kad_node.fence import FenceState
from kad_protocol import feed as feeds
from kad_protocol import keychain, merkle
from kad_protocol.errors import KadError, PreconditionError, Reason, VerificationError
from kad_protocol.governance import Governance
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, Note, cosign, only_lines_of
from kad_protocol.tlog_policy import policy_file
from kad_protocol.v1 import entry_pb2, node_pb2, replication_pb2
from kad_protocol.witness import (
    COMMITTEE_SIZE,
    MAX_COSIGNATURE_BYTES,
    committee,
    confirming,
    is_confirmed,
    quorum,
    read_cosignature,
    with_cosignatures,
    witness_keys_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kad_node.fence import Fence
    from kad_node.store.sqlite import SqliteStore
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.note import Cosignature, LogKeys, LogSigner
    from kad_protocol.store import FeedState

__all__ = ["Confirmed", "Witness", "confirmed_checkpoint", "simpul_of", "witnessed_note", "witnessing"]

log = logging.getLogger(__name__)

_KIND = "witness"
_NOTHING = b'{"size": 0, "root": ""}'
_MAX_CHECKPOINT_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A checkpoint that enough members confirm."""

    checkpoint: Checkpoint
    #: The simpul's signed note.
    note: bytes
    #: When each member confirmed it (seconds since 1970).
    times: dict[FeedId, int]
    lines: dict[FeedId, bytes]


def simpul_of(tx: SqliteTransaction, own: FeedId) -> FeedId | None:
    """The feed of the federation's simpul, if there is one; its newest epoch."""
    found = [state.feed for state in tx.feeds() if state.role == entry_pb2.MEMBER_ROLE_SIMPUL and state.feed.federation == own.federation]
    return max(found, key=lambda feed: feed.epoch, default=None)


def confirmed_checkpoint(tx: SqliteTransaction, simpul: FeedId) -> Confirmed | None:
    """The largest checkpoint of a simpul that is confirmed by a quorum, as far as this node has seen."""
    everybody, (electorate, at) = tx.witnesses(simpul), _electorate(tx, simpul)
    for size, note in tx.witnessed(simpul):
        found = _cosignatures(tx, simpul, size)
        times = {witness: time for witness, (time, _) in found.items() if witness in everybody}
        if is_confirmed(electorate, times, at):
            root = merkle.root_at(tx.tiles(simpul), size)
            return Confirmed(Checkpoint(simpul.origin, size, root), note, times, {witness: found[witness][1] for witness in times})
    return None


def witnessed_note(tx: SqliteTransaction, simpul: FeedId) -> tuple[bytes, str]:
    """The newest confirmed checkpoint as one note, and the policy to verify it with; the lines are of those whose turn it was.

    Raises:
        PreconditionError: ``NOT_WITNESSED``.
    """
    confirmed = confirmed_checkpoint(tx, simpul)
    state = tx.feed(simpul)
    if confirmed is None or state is None:
        raise PreconditionError(Reason.NOT_WITNESSED, f"too few members confirm {simpul} so far", feed=simpul)
    governance, turn = Governance(tx.affairs(simpul), simpul), committee(*_electorate(tx, simpul))
    note = with_cosignatures(confirmed.note, [confirmed.lines[witness] for witness in turn if witness in confirmed.lines])
    # Keys change; a stranger needs those that signed this checkpoint.
    witnesses = [_keys(tx, governance, witness, confirmed.checkpoint)[0] for witness in turn]
    return note, policy_file(keychain.keys_at(tx, simpul, confirmed.checkpoint.size), witnesses, quorum(len(turn)))


def _electorate(tx: SqliteTransaction, simpul: FeedId) -> tuple[list[FeedId], int]:
    """Whose word counts now, and since when (seconds) the log was last confirmed: which fixes whose turn it is."""
    governance = Governance(tx.affairs(simpul), simpul)
    return [FeedId.parse(member.feed) for member in governance.electorate()], governance.confirmed // 1_000_000


def _cosignatures(tx: SqliteTransaction, simpul: FeedId, size: int) -> dict[FeedId, tuple[int, bytes]]:
    return {FeedId.parse(witness): (time, lines) for witness, time, lines in tx.cosignatures(simpul, size)}


def witnessing(tx: SqliteTransaction, simpul: FeedId) -> node_pb2.Witnessing:
    """How far the members confirm a simpul, for people."""
    everybody, (electorate, at) = tx.witnesses(simpul), _electorate(tx, simpul)
    state = tx.feed(simpul)
    result = node_pb2.Witnessing(
        feed=simpul.origin,
        members=len(everybody),
        quorum=quorum(min(len(electorate), COMMITTEE_SIZE)),
        signed_size=state.signed_size if state is not None else 0,
    )
    if (confirmed := confirmed_checkpoint(tx, simpul)) is not None:
        result.size, result.confirmed = confirmed.checkpoint.size, len(confirmed.times)
        # Confirmed it was when the last of those that were needed had spoken; who came later adds to it.
        needed = sorted(confirmed.times[witness] for witness in confirming(electorate, confirmed.times, at))[: result.quorum]
        result.time.seconds = needed[-1]
    return result


class Witness:
    """One member's part in confirming its simpul.

    Args:
        store: where the feeds lie.
        own: this member's feed.
        signer: finds this member's private witness keys for public ones.
        fence: nothing is confirmed while this home may be an old copy.
        changed: called on the event loop when there is something new to pass on.
    """

    def __init__(
        self, store: SqliteStore, own: FeedId, signer: Callable[[LogKeys], LogSigner], fence: Fence, changed: Callable[[], None]
    ) -> None:
        self._store = store
        self._own = own
        self._signer = signer
        self._fence = fence
        self._changed = changed
        #: Checkpoints that we do not hold or have not judged yet, by their notes, to be looked at again when that has changed.
        self._waiting: dict[FeedId, dict[bytes, tuple[FeedId, replication_pb2.Witnessed]]] = {}
        #: How often each feed has grown.
        self._growth: Counter[FeedId] = Counter()
        #: Grows when there is something new to pass on.
        self.version = 0

    def _announce(self) -> None:
        self.version += 1
        self._changed()

    async def shown(self) -> list[replication_pb2.Witnessed]:
        """What this node passes on: of each simpul its newest checkpoints, with everybody's lines."""

        def read(tx: SqliteTransaction) -> list[replication_pb2.Witnessed]:
            simpuls = [state.feed for state in tx.feeds() if state.role == entry_pb2.MEMBER_ROLE_SIMPUL]
            # A session says only so much at once; the own federation comes first.
            simpuls.sort(key=lambda simpul: simpul.federation != self._own.federation)
            return [
                replication_pb2.Witnessed(
                    checkpoint=note,
                    cosignatures=[
                        replication_pb2.Cosignature(witness=witness, lines=lines) for witness, _, lines in tx.cosignatures(feed, size)
                    ],
                )
                for feed in [*simpuls, *tx.passed_over()[:_MOST_PASSED_OVER]]
                for size, note in tx.witnessed(feed)[:2]
            ]

        return await self._store.read(read)

    async def propose(self) -> bool:
        """Put one's own newest checkpoint to the witnesses: the simpul's part. False if there is nothing new."""

        def put(tx: SqliteTransaction) -> bool:
            state = tx.feed(self._own)
            newest = tx.witnessed(self._own)
            if state is None or not state.signed_size or (newest and newest[0][0] >= state.signed_size):
                return False
            keys = keychain.keys_at(tx, self._own, state.signed_size)
            tx.put_witnessed(self._own, state.signed_size, only_lines_of(state.checkpoint, keys))
            _forget_old(tx, self._own)
            return True

        if not await self._store.write(put):
            return False
        self._announce()
        return True

    async def take(self, peer: FeedId, items: Sequence[replication_pb2.Witnessed]) -> list[tuple[FeedId, KadError]]:
        """Look at what a peer says was confirmed; keep what verifies, confirm what we hold. Returns what was refused, by feed."""
        refused: list[tuple[FeedId, KadError]] = []
        new = False
        for item in items:
            if len(item.checkpoint) > _MAX_CHECKPOINT_BYTES:
                refused.append((peer, VerificationError(Reason.NOTE_MALFORMED, "a checkpoint that is too long", peer=peer.forum)))
                continue
            feed = peer
            try:
                feed = FeedId.parse(item.checkpoint.partition(b"\n")[0].decode(errors="replace"))
                wanted, faults = await self._look(feed, item)
            except KadError as error:
                refused.append((feed, error))
                continue
            refused.extend((feed, fault) for fault in faults)
            if wanted is None:
                if self._put_off(feed, peer, item):
                    too_long = VerificationError(Reason.NOTE_MALFORMED, "cosignatures that are too long or too many", peer=peer.forum)
                    refused.append((peer, too_long))
            else:
                new = new or wanted
        if new:
            self._announce()
        return refused

    async def _look(self, feed: FeedId, item: replication_pb2.Witnessed) -> tuple[bool | None, list[KadError]]:
        """See ``_take``; what is put off then lies beyond what is here *now*, or nobody would look at it again."""
        refused: list[KadError] = []
        while True:
            growth = self._growth[feed]
            wanted, faults = await self._store.write(lambda tx: self._take(tx, feed, item))
            refused += faults
            # It may have grown in the same transaction, and so been announced before we come to hear of either.
            if wanted is not None or self._growth[feed] == growth:
                return wanted, refused

    def _put_off(self, feed: FeedId, peer: FeedId, item: replication_pb2.Witnessed) -> int:
        """Keep it until its feed has grown; how many of its lines were not kept, being no lines or too many."""
        kept = [given for given in item.cosignatures if len(given.lines) <= MAX_COSIGNATURE_BYTES][:_MOST_PUT_OFF]
        dropped = len(item.cosignatures) - len(kept)
        if dropped:
            del item.cosignatures[:]
            item.cosignatures.extend(kept)
        waiting = self._waiting.setdefault(feed, {})
        earlier = waiting.pop(item.checkpoint, None)
        if earlier is not None:
            known = {cosignature.witness for cosignature in item.cosignatures}
            item.cosignatures.extend(c for c in earlier[1].cosignatures if c.witness not in known)
            del item.cosignatures[_MOST_PUT_OFF:]
        waiting[item.checkpoint] = (peer, item)
        # What is put off need not be true, so nobody may push out what others have shown.
        of_peer = [note for note, (shown_by, _) in waiting.items() if shown_by == peer]
        for note in of_peer[:-_MOST_KEPT]:
            del waiting[note]
        # Nor may anybody fill the memory: all that one peer has shown, of whatever feed, the oldest first.
        mine = [(of, note) for of, items in self._waiting.items() for note, (shown_by, _) in items.items() if shown_by == peer]
        size = sum(self._waiting[of][note][1].ByteSize() for of, note in mine)
        for of, note in mine:
            if size <= _MOST_PUT_OFF_BYTES:
                break
            size -= self._waiting[of].pop(note)[1].ByteSize()
            if not self._waiting[of]:
                del self._waiting[of]
        return dropped

    async def grown(self) -> list[tuple[FeedId, KadError]]:
        """A feed has grown: look again at what we did not hold when it was put to us."""
        refused: list[tuple[FeedId, KadError]] = []
        waiting, self._waiting = self._waiting, {}
        for items in waiting.values():
            for peer, item in items.values():
                refused.extend(await self.take(peer, [item]))
        return refused

    def notice(self, grown: Iterable[FeedId]) -> bool:
        """These feeds have grown. Is there a checkpoint to look at again (see ``grown``)? On the event loop, after each commit."""
        self._growth.update(grown)
        return any(feed in self._waiting for feed in grown)

    def _take(self, tx: SqliteTransaction, feed: FeedId, item: replication_pb2.Witnessed) -> tuple[bool | None, list[KadError]]:
        """Whether there was anything new, None if the checkpoint lies beyond what is here; and cosignatures that were refused."""
        state = tx.feed(feed)
        if state is None:
            raise VerificationError(Reason.NOT_A_WITNESS, f"{feed} is not a feed that is known here", feed=feed)
        # Both signatures of its author, and against our copy: this is where two faces show.
        checkpoint = feeds.check_head(tx, feed, item.checkpoint)
        if checkpoint is None and Checkpoint.parse(Note.parse(item.checkpoint).text).size > state.size:
            # Its keys may have changed on the way there; who has the entries will know.
            return None, []
        if checkpoint is None:
            raise VerificationError(Reason.SIGNATURE_INVALID, f"a checkpoint that {feed} has not signed", feed=feed)
        self._remember(tx, state.role, checkpoint, item)
        if state.role != entry_pb2.MEMBER_ROLE_SIMPUL:
            return self._take_held(tx, state, checkpoint, item)
        if not checkpoint.size or checkpoint.size > min(state.size, tx.judged(feed)):
            # Only what is here *and* judged is confirmed: else nobody could say yet who the witnesses are.
            return None, _only_genuine(tx, checkpoint, item)
        kept = tx.witnessed(feed)
        if kept and checkpoint.size < kept[-1][0]:
            return False, []
        tx.put_witnessed(feed, checkpoint.size, only_lines_of(item.checkpoint, keychain.keys_at(tx, feed, checkpoint.size)))
        new = all(size != checkpoint.size for size, _ in kept)
        everybody, governance = frozenset(tx.witnesses(feed)), Governance(tx.affairs(feed), feed)
        kept_any, faults = _keep_all(tx, governance, everybody, checkpoint, item.cosignatures)
        new = kept_any or new
        try:
            new = self._confirm(tx, governance, everybody, checkpoint) or new
        except KadError as error:
            faults.append(error)
        _forget_old(tx, feed)
        return new, faults

    # Members whom the simpul passes over.

    def _take_held(
        self, tx: SqliteTransaction, state: FeedState, checkpoint: Checkpoint, item: replication_pb2.Witnessed
    ) -> tuple[bool | None, list[KadError]]:
        """Somebody says that the simpul does not observe what a member signed: kept while that is so here too."""
        simpul = simpul_of(tx, self._own)
        if simpul is None or simpul.federation != state.feed.federation or checkpoint.size <= tx.observed(simpul, state.feed):
            return False, []
        if checkpoint.size > state.size:
            return None, _only_genuine(tx, checkpoint, item)
        return self._keep_held(tx, simpul, checkpoint, item)

    def hold(self, tx: SqliteTransaction, simpul: FeedId, member: FeedId) -> bool:
        """The simpul passes a member over: say, with this node's signature, that what that member signed is here. True if that is new."""
        state = tx.feed(member)
        if state is None or not state.signed_size or state.signed_size != state.size:
            return False
        checkpoint = Checkpoint(member.origin, state.size, state.root)
        new, _ = self._keep_held(tx, simpul, checkpoint, replication_pb2.Witnessed(checkpoint=state.checkpoint))
        return new

    def _keep_held(
        self, tx: SqliteTransaction, simpul: FeedId, checkpoint: Checkpoint, item: replication_pb2.Witnessed
    ) -> tuple[bool, list[KadError]]:
        member = FeedId.parse(checkpoint.origin)
        kept = {size for size, _ in tx.witnessed(member)}
        if checkpoint.size not in kept and len(kept) >= _MOST_HELD:
            return False, []
        everybody, governance = frozenset(tx.witnesses(simpul)), Governance(tx.affairs(simpul), simpul)
        if member not in everybody:
            raise VerificationError(Reason.NOT_A_WITNESS, f"{member} is not a full member of this federation", witness=member)
        tx.put_witnessed(member, checkpoint.size, only_lines_of(item.checkpoint, keychain.keys_at(tx, member, checkpoint.size)))
        known = {witness for witness, _, _ in tx.cosignatures(member, checkpoint.size)}
        kept_any, faults = _keep_all(tx, governance, everybody, checkpoint, item.cosignatures)
        new = kept_any or checkpoint.size not in kept
        if self._own in everybody and self._own.origin not in known and self._fence.state is FenceState.OPEN:
            new = self._sign(tx, governance, checkpoint) or new
        return new, faults

    def announce(self) -> None:
        """There is something new to pass on."""
        self._announce()

    def _remember(self, tx: SqliteTransaction, role: int, checkpoint: Checkpoint, item: replication_pb2.Witnessed) -> None:
        """Others hold a line of ours that this home does not know of: it was restored, and confirms nothing that contradicts it."""
        simpul = FeedId.parse(checkpoint.origin) if role == entry_pb2.MEMBER_ROLE_SIMPUL else simpul_of(tx, self._own)
        if simpul is None:
            return
        governance = Governance(tx.affairs(simpul), simpul)
        for given in item.cosignatures:
            last = json.loads(tx.local(_KIND, checkpoint.origin) or _NOTHING)
            if given.witness != self._own.origin or checkpoint.size <= last["size"]:
                continue
            try:
                _read(tx, governance, checkpoint, given)
            except KadError:
                continue
            tx.put_local(_KIND, checkpoint.origin, json.dumps({"size": checkpoint.size, "root": checkpoint.root.hex()}).encode())

    def _confirm(self, tx: SqliteTransaction, governance: Governance, everybody: frozenset[FeedId], checkpoint: Checkpoint) -> bool:
        """Cosign, if we are a witness and may. The caller has compared the checkpoint with what lies here."""
        feed = FeedId.parse(checkpoint.origin)
        if self._own not in everybody or self._fence.state is not FenceState.OPEN or tx.feed(feed).quarantine:  # type: ignore[union-attr]
            return False
        if checkpoint.size <= json.loads(tx.local(_KIND, feed.origin) or _NOTHING)["size"]:
            return False
        lag = Governance(tx.affairs(feed), feed).lag_seconds
        ignored = tx.ignored(feed, int((clock.time() - lag) * 1_000_000), checkpoint.size)
        if ignored:
            # A simpul that does not want to see a revocation cannot go on as if there were none: nobody who knows of it confirms it.
            raise PreconditionError(
                Reason.OBSERVATION_LAGGING,
                f"{feed} does not observe what {ignored[0].forum} decided more than {lag} s ago",
                feed=feed,
                ignored=ignored[0],
            )
        return self._sign(tx, governance, checkpoint)

    def _sign(self, tx: SqliteTransaction, governance: Governance, checkpoint: Checkpoint) -> bool:
        """Cosign what lies here, never less than before and never two roots for one size; durable before it leaves."""
        feed = FeedId.parse(checkpoint.origin)
        last = json.loads(tx.local(_KIND, feed.origin) or _NOTHING)
        if checkpoint.size < last["size"] or (checkpoint.size == last["size"] and checkpoint.root.hex() != last["root"]):
            return False
        if last["size"] > 0 and merkle.root_at(tx.tiles(feed), last["size"]).hex() != last["root"]:
            raise PreconditionError(Reason.FORKED, f"{feed} is not what this node confirmed before", feed=feed, size=last["size"])
        signer = self._signer(_keys(tx, governance, self._own, checkpoint)[0])
        now = int(clock.time())
        lines = "".join(str(line) for line in cosign(checkpoint, signer, now)).encode()
        tx.put_local(_KIND, feed.origin, json.dumps({"size": checkpoint.size, "root": checkpoint.root.hex()}).encode())
        return tx.put_cosignature(feed, checkpoint.size, self._own.origin, now, lines)


def _only_genuine(tx: SqliteTransaction, checkpoint: Checkpoint, item: replication_pb2.Witnessed) -> list[KadError]:
    """Leave of a checkpoint that has to wait only what members that are known here have signed: the rest would wait without measure."""
    faults: list[KadError] = []
    kept: dict[str, replication_pb2.Cosignature] = {}
    for given in item.cosignatures:
        try:
            witness = FeedId.parse(given.witness)
            if tx.feed(witness) is None:
                raise VerificationError(Reason.NOT_A_WITNESS, f"{witness} is not a feed that is known here", witness=witness)
            read_cosignature(checkpoint.text, given.lines, witness_keys_of(tx, witness))
        except KadError as error:
            faults.append(error)
        else:
            kept[given.witness] = given
    del item.cosignatures[:]
    item.cosignatures.extend(kept.values())
    return faults


def _keep_all(
    tx: SqliteTransaction,
    governance: Governance,
    everybody: frozenset[FeedId],
    checkpoint: Checkpoint,
    given: Iterable[replication_pb2.Cosignature],
) -> tuple[bool, list[KadError]]:
    """Whether there was a new one among them, and those that were refused."""
    new, faults = False, []
    known = {witness for witness, _, _ in tx.cosignatures(FeedId.parse(checkpoint.origin), checkpoint.size)}
    for cosignature in given:
        if cosignature.witness in known:
            continue
        try:
            new = _keep(tx, governance, everybody, checkpoint, cosignature) or new
        except KadError as error:
            faults.append(error)
    return new, faults


def _keep(
    tx: SqliteTransaction,
    governance: Governance,
    everybody: frozenset[FeedId],
    checkpoint: Checkpoint,
    given: replication_pb2.Cosignature,
) -> bool:
    witness = FeedId.parse(given.witness)
    if witness not in everybody:
        raise VerificationError(Reason.NOT_A_WITNESS, f"{witness} is not a full member of this federation", witness=witness)
    found = _read(tx, governance, checkpoint, given)
    return tx.put_cosignature(FeedId.parse(checkpoint.origin), checkpoint.size, witness.origin, found.time, given.lines)


def _read(tx: SqliteTransaction, governance: Governance, checkpoint: Checkpoint, given: replication_pb2.Cosignature) -> Cosignature:
    *earlier, last = _keys(tx, governance, FeedId.parse(given.witness), checkpoint)
    for keys in earlier:
        with suppress(VerificationError):
            return read_cosignature(checkpoint.text, given.lines, keys)
    return read_cosignature(checkpoint.text, given.lines, last)


def _keys(tx: SqliteTransaction, governance: Governance, witness: FeedId, checkpoint: Checkpoint) -> list[LogKeys]:
    """The keys with which a witness confirms a checkpoint; before the log has observed any, those that its own feed names.

    One pair for a checkpoint of the simpul. What it says of a member whom that passes over has no place in the log: it counts with the
    newest keys, and with those before them.
    """
    if checkpoint.origin == governance.simpul.origin:
        keys = governance.witness_keys(witness, checkpoint.size)
        found = [keys] if keys is not None else []
    else:
        found = governance.any_witness_keys(witness)
    return found or [witness_keys_of(tx, witness)]


def _forget_old(tx: SqliteTransaction, feed: FeedId) -> None:
    """Keep the largest confirmed checkpoint and what is larger, at most four in all."""
    confirmed = confirmed_checkpoint(tx, feed)
    sizes = [size for size, _ in tx.witnessed(feed)]
    if confirmed is not None:
        tx.forget_witnessed(feed, confirmed.checkpoint.size)
    elif len(sizes) > _MOST_KEPT:
        tx.forget_witnessed(feed, sizes[_MOST_KEPT - 1])


_MOST_KEPT = 4
#: Checkpoints of a member that the simpul passes over, and such members whose checkpoints are passed on at once.
_MOST_HELD = 2
_MOST_PASSED_OVER = 2
#: More than a federation has members, and little enough to wait.
_MOST_PUT_OFF = 1024
_MOST_PUT_OFF_BYTES = 8 << 20
