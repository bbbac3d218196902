"""The symmetric exchange: one session over one stream, the same code on both sides.

A session speaks frames and knows nothing of gRPC, disks or SQL: it is given an iterator of incoming frames, a function that sends one,
and a ``Replica``, which is what this member holds and accepts. So it runs over a real channel, over a file, or in a test with a
network that one can cut.

How it goes::

    both      Hello, then heads of everything that is held or wanted (size 0 = wanted, nothing here yet)
    both      heads are compared: a fork shows here, and a member learns here what others hold of its own feed
    sender    for each feed that the other named: batches from where it is to the signed head, feeds in turn
    receiver  verifies, stores, and acknowledges after the fsync
    idle      a heartbeat says that the sender lives

The sender keeps for each feed how much the other has and how much is on its way, and no queue. Two rules keep it fast and its memory
bounded: while a batch of a feed is unacknowledged, what is new waits and goes together in the next one, unless there is enough for
a full one; and never more bytes are on their way than the window that the receiver stated. A receiver that acknowledges nothing
for a minute is sent away (``CONSUMER_TOO_SLOW``) and resumes later from what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import logging
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kad_protocol.errors import InvalidInputError, KadError, PreconditionError, QuotaError, Reason, UnavailableError
from kad_protocol.names import FeedId
from kad_protocol.note import MAX_NOTE_BYTES
from kad_protocol.store import MAX_ENTRIES
from kad_protocol.v1 import replication_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

__all__ = ["PROTOCOL_VERSION", "Limits", "Replica", "Session", "SessionState"]

log = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
#: No frame is larger when serialised; channels refuse it before it is parsed.
MAX_FRAME_BYTES = 2 << 20
MAX_HEADS = 64
MAX_FEEDS = 100_000
MAX_CONTENT_REQUESTS = 256
MAX_PARTS = 2048
MAX_WITNESSED = 8
MAX_COSIGNATURES = 64
MAX_EVIDENCE = 1
#: Checkpoints of which a session remembers whose cosignatures the peer has; older ones are not spoken of any more.
_REMEMBERED_CHECKPOINTS = 16
#: Proofs of which a session remembers that the peer has them.
_REMEMBERED_EVIDENCE = 1024
#: Feeds that the peer named and nobody here vouches for yet; somebody may before the session ends.
_REMEMBERED_STRANGERS = 1024
#: Answers that wait for the peer to read them. An honest one sends no more batches than fit its window.
_MOST_ANSWERS = 8192

_MIN_WINDOW, _MAX_WINDOW = 64 << 10, 16 << 20
#: How long the last frame may take when a session ends.
_LAST_FRAME_SECONDS = 5
_LONGEST_PAUSE_SECONDS = 86_400.0
#: A hundred years; a peer may call any time its own.
_LARGEST_SKEW_MS = 3_155_760_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may cost. Bytes are of serialised batches, times are seconds."""

    frame_bytes: int = 512 << 10
    batch_entries: int = 512
    window_bytes: int = 4 << 20
    heartbeat_seconds: float = 20.0
    #: Nothing heard for so long: the peer is gone.
    silence_seconds: float = 75.0
    #: Bytes are on their way and nothing is acknowledged for so long: the peer is too slow.
    stall_seconds: float = 60.0


class Replica(Protocol):
    """What this member holds, as the session needs it."""

    @property
    def own(self) -> FeedId:
        """This member's own feed."""

    def signed_sizes(self) -> dict[FeedId, int]:
        """Every feed that is held or wanted, with the size of its newest checkpoint here. In memory; must not wait."""

    def listen(self, listener: Callable[[Iterable[FeedId]], None]) -> Callable[[], None]:
        """Call ``listener`` on the event loop when feeds have changed; returns how to stop."""

    async def heads(self, feeds: Sequence[FeedId]) -> list[replication_pb2.Head]:
        """Heads of these feeds."""

    async def meet(self, peer: FeedId, heads: Sequence[replication_pb2.Head], *, complete: bool) -> set[FeedId]:
        """Look at the heads of a peer: forks, and what it holds of our own feed. ``complete``: these were the last.

        Returns the feeds of which its head opens with no keys that are known here.
        """

    async def read(self, peer: FeedId, feed: FeedId, after: int, max_entries: int, max_bytes: int) -> replication_pb2.Batch | None:
        """The next batch for a peer who has ``after`` entries, with the contents that are for it; None if there is none."""

    async def accept(
        self, peer: FeedId, batches: Sequence[tuple[replication_pb2.Batch, bytes]]
    ) -> list[replication_pb2.Ack | replication_pb2.Refusal]:
        """Verify and store batches, each with the checkpoint it leads to; answers when what was taken is on disk."""

    async def missing(self, limit: int) -> list[replication_pb2.ContentRequest]:
        """Contents that are wanted."""

    async def give(self, peer: FeedId, wanted: Sequence[replication_pb2.ContentRequest]) -> list[replication_pb2.ContentReply]:
        """Contents that a peer wants, as far as they are here and for it."""

    async def take(self, peer: FeedId, contents: Sequence[replication_pb2.ContentReply]) -> None:
        """Contents that were wanted."""

    @property
    def witness_version(self) -> int:
        """Grows when ``witnessed`` has something new. In memory; must not wait."""

    async def witnessed(self) -> list[replication_pb2.Witnessed]:
        """Checkpoints of simpuls and who confirms them."""

    async def take_witnessed(self, peer: FeedId, items: Sequence[replication_pb2.Witnessed]) -> None:
        """Such checkpoints, from a peer."""

    async def divergence(self, feed: FeedId, size: int) -> replication_pb2.Head | None:
        """What our history of a feed has where the peer's copy ends, which ours does not extend."""

    async def rotations(self, feed: FeedId) -> list[replication_pb2.Head]:
        """The changes of keys of a feed, as heads, for a peer whose head opens with no keys that are known here."""

    @property
    def evidence_version(self) -> int:
        """Grows when ``evidence`` has something new. In memory; must not wait."""

    async def evidence(self) -> list[bytes]:
        """Proofs of forks that everybody should hear of."""

    async def take_evidence(self, peer: FeedId, evidence: bytes) -> None:
        """Such a proof, from a peer."""


@dataclass(slots=True)
class SessionState:
    """How a session is doing, for people."""

    peer: FeedId | None = None
    software: str = ""
    started: float = field(default_factory=time.time)
    last_heard: float = field(default_factory=time.time)
    sent: int = 0
    received: int = 0
    refused: int = 0
    clock_skew_ms: int = 0


@dataclass(slots=True)
class _Outgoing:
    """What the peer has of one feed, as far as we know."""

    #: Entries that are on its disk, by its own word.
    acknowledged: int
    #: Entries that are there or on the way.
    sent: int
    #: The checkpoint last sent, which need not be sent again.
    checkpoint: bytes = b""
    #: It does not want more of this feed from us, for now.
    stopped: bool = False


class Session:
    """One stream with one peer, from Hello to the end.

    Args:
        replica: what we hold.
        expected: who the channel says the peer is (federation and forum; the epoch does not matter), None for a file.
        software: for the peer's logs.
        limits: what this may cost.
    """

    def __init__(self, replica: Replica, expected: FeedId | None, software: str, limits: Limits | None = None) -> None:
        self._replica = replica
        self._expected = expected
        self._software = software
        self._limits = limits or Limits()
        self.state = SessionState()
        self._wake = asyncio.Event()
        #: Only of feeds that are held or wanted here.
        self._outgoing: dict[FeedId, _Outgoing] = {}
        self._strangers: dict[FeedId, int] = {}
        self._announced: set[FeedId] = set()
        self._to_announce: deque[FeedId] = deque()
        self._ready: deque[FeedId] = deque()
        self._in_ready: set[FeedId] = set()
        self._flying: deque[tuple[FeedId, int, int]] = deque()
        self._flying_bytes = 0
        self._last_progress = time.monotonic()
        self._window = _MIN_WINDOW
        self._answers: deque[replication_pb2.Ack | replication_pb2.Refusal] = deque()
        self._wanted: list[replication_pb2.ContentRequest] = []
        self._asking = False
        self._targets: dict[FeedId, bytes] = {}
        self._heads_due: int | None = None
        self._goodbye: replication_pb2.Goodbye | None = None
        self._finished = False
        self._witness_version = 0
        self._evidence_version = 0
        self._shown_evidence: dict[bytes, None] = {}
        #: Feeds whose batches the peer refused since its copy is another history, with the size of that copy.
        self._diverging: dict[FeedId, int] = {}
        self._explained: set[FeedId] = set()
        #: Feeds of which the peer knows other keys than we do, and those whose changes of keys it was shown.
        self._other_keys: set[FeedId] = set()
        self._keys_shown: set[FeedId] = set()
        self._pauses: dict[FeedId, asyncio.TimerHandle] = {}
        #: For each checkpoint the witnesses whose cosignatures the peer has.
        self._shown: dict[bytes, set[str]] = {}

    def close(self, reason: Reason, message: str) -> None:
        """Say goodbye and end the session; returns at once."""
        if self._goodbye is None:
            self._goodbye = replication_pb2.Goodbye(reason=reason.value, message=message[:500])
            self._wake.set()

    @property
    def behind(self) -> int:
        """Entries that the peer is still to get from us."""
        sizes = self._replica.signed_sizes()
        return sum(max(0, sizes.get(feed, 0) - out.acknowledged) for feed, out in self._outgoing.items() if not out.stopped)

    async def run(
        self,
        incoming: AsyncIterator[replication_pb2.Frame],
        send: Callable[[replication_pb2.Frame], Awaitable[None]],
    ) -> None:
        """Exchange until one side ends it. Returns when the peer said goodbye or ended its half, or after ``close``.

        Raises:
            KadError: the peer broke the protocol, is not who the channel says, or fell silent.
        """
        unlisten = self._replica.listen(self._changed)
        reader = asyncio.create_task(self._read(incoming), name="exchange-reader")
        writer = asyncio.create_task(self._write(send), name="exchange-writer")
        try:
            done, _ = await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            unlisten()
            for pause in self._pauses.values():
                pause.cancel()
            # A frame that is being sent is sent to its end: a stream that is cut off in the middle of a message cannot be given a status.
            self._finished = True
            self._wake.set()
            await asyncio.wait({writer}, timeout=_LAST_FRAME_SECONDS)
            for task in (reader, writer):
                task.cancel()
            for task in (reader, writer):
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    # What comes in.

    async def _read(self, incoming: AsyncIterator[replication_pb2.Frame]) -> None:
        iterator = aiter(incoming)
        first = True
        while True:
            try:
                frame = await asyncio.wait_for(anext(iterator), self._limits.silence_seconds)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise UnavailableError(
                    Reason.PEER_UNREACHABLE, f"nothing heard for {self._limits.silence_seconds:.0f} s", seconds=self._limits.silence_seconds
                ) from None
            self.state.last_heard = time.time()
            _check_frame(frame, first=first)
            if first:
                self._greet(frame.hello)
                first = False
            await self._handle(frame)
            if frame.HasField("goodbye"):
                log.info("goodbye from peer: %s %s", frame.goodbye.reason[:60], frame.goodbye.message[:200])
                return

    def _greet(self, hello: replication_pb2.Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            self.close(Reason.PROTOCOL_VERSION, f"we speak version {PROTOCOL_VERSION}")
            raise PreconditionError(
                Reason.PROTOCOL_VERSION, f"the peer speaks version {hello.protocol}, we speak {PROTOCOL_VERSION}", theirs=hello.protocol
            )
        peer = FeedId.parse(hello.feed)
        expected = self._expected
        if expected is not None and (peer.federation, peer.forum) != (expected.federation, expected.forum):
            raise InvalidInputError(Reason.IDENTITY_INVALID, f"{expected.forum} calls itself {peer}", feed=peer)
        self.state.peer = peer
        self.state.software = hello.software[:64]
        self._window = min(max(hello.window_bytes, _MIN_WINDOW), _MAX_WINDOW)
        if hello.head_count > MAX_FEEDS:
            raise QuotaError(Reason.QUOTA_EXCEEDED, f"the peer announces {hello.head_count} feeds", limit=MAX_FEEDS)
        self._heads_due = hello.head_count

    async def _handle(self, frame: replication_pb2.Frame) -> None:
        peer = self.state.peer
        if peer is None:  # _greet ran before the first frame was handled
            raise InvalidInputError(Reason.FRAME_MALFORMED, "a frame before the hello")
        if frame.heads or self._heads_due == 0:
            await self._take_heads(peer, frame.heads)
        if frame.batches:
            await self._take_batches(peer, frame.batches)
        for ack in frame.acks:
            self._take_ack(FeedId.parse(ack.feed), ack.size)
        for refusal in frame.refusals:
            self._take_refusal(refusal)
        self._wanted.extend(frame.content_requests)
        if len(self._wanted) > MAX_CONTENT_REQUESTS:
            raise QuotaError(Reason.QUOTA_EXCEEDED, "more contents asked for than may be at once", limit=MAX_CONTENT_REQUESTS)
        if frame.content_replies:
            await self._replica.take(peer, frame.content_replies)
            self._asking = False
        if frame.HasField("heartbeat"):
            said = frame.heartbeat.time.seconds * 1000 + frame.heartbeat.time.nanos // 1_000_000
            self.state.clock_skew_ms = min(max(said - time.time_ns() // 1_000_000, -_LARGEST_SKEW_MS), _LARGEST_SKEW_MS)
            self._asking = False
        await self._take_witnessed(peer, frame.witnessed)
        for evidence in frame.evidence:
            self._remember_evidence(hashlib.sha256(evidence).digest())
            await self._replica.take_evidence(peer, evidence)
        self._wake.set()

    async def _take_witnessed(self, peer: FeedId, items: Sequence[replication_pb2.Witnessed]) -> None:
        if not items:
            return
        known = {feed.origin for feed in self._replica.signed_sizes()}
        for item in items:
            self._remember(item.checkpoint).update(known.intersection(cosignature.witness for cosignature in item.cosignatures))
        await self._replica.take_witnessed(peer, items)

    def _remember_evidence(self, digest: bytes) -> None:
        self._shown_evidence[digest] = None
        while len(self._shown_evidence) > _REMEMBERED_EVIDENCE:
            del self._shown_evidence[next(iter(self._shown_evidence))]

    async def _take_heads(self, peer: FeedId, heads: Sequence[replication_pb2.Head]) -> None:
        complete = False
        if self._heads_due is not None:
            self._heads_due -= sum(1 for head in heads if not head.HasField("divergence"))
            complete = self._heads_due <= 0
        known = self._replica.signed_sizes()
        for head in heads:
            feed = FeedId.parse(head.feed)
            if feed not in known:
                self._strangers[feed] = head.size
                while len(self._strangers) > _REMEMBERED_STRANGERS:
                    del self._strangers[next(iter(self._strangers))]
                continue
            out = self._outgoing.get(feed)
            if out is None:
                self._outgoing[feed] = _Outgoing(head.size, head.size)
                # Perhaps a simpul of which the peer had not heard before, and so has not been told who confirms it.
                self._witness_version = -1
            else:
                out.acknowledged = max(out.acknowledged, head.size)
                out.sent = max(out.sent, head.size)
                out.stopped = False
            self._schedule(feed)
        self._other_keys |= await self._replica.meet(peer, heads, complete=complete) - self._keys_shown
        if complete:
            self._heads_due = None

    async def _take_batches(self, peer: FeedId, batches: Sequence[replication_pb2.Batch]) -> None:
        complete: list[tuple[replication_pb2.Batch, bytes]] = []
        known = self._replica.signed_sizes()
        for batch in batches:
            feed = FeedId.parse(batch.feed)
            complete.append((batch, batch.checkpoint or self._targets.get(feed, b"")))
            if feed not in known:
                continue
            if 0 < len(batch.checkpoint) <= MAX_NOTE_BYTES:
                self._targets[feed] = batch.checkpoint
            # Whoever sends it has it: what we store now is not to be sent back.
            out = self._outgoing.setdefault(feed, _Outgoing(0, 0))
            end = batch.after + len(batch.entries)
            out.acknowledged, out.sent = max(out.acknowledged, end), max(out.sent, end)
        answers = await self._replica.accept(peer, complete)
        for (batch, _), answer in zip(complete, answers, strict=True):
            if isinstance(answer, replication_pb2.Ack):
                self.state.received += len(batch.entries)
            else:
                self.state.refused += 1
        if len(self._answers) + len(answers) > _MOST_ANSWERS:
            raise QuotaError(Reason.QUOTA_EXCEEDED, "the peer sends batches and reads no answers", limit=_MOST_ANSWERS)
        self._answers.extend(answers)

    def _take_ack(self, feed: FeedId, size: int) -> None:
        out = self._outgoing.get(feed)
        if out is None:
            # Of what was never sent to it.
            return
        if size > out.sent:
            # An acknowledgement of more than was sent: the peer got it elsewhere, which is fine.
            out.sent = out.acknowledged = max(out.acknowledged, size)
        else:
            self.state.sent += max(0, size - out.acknowledged)
            out.acknowledged = max(out.acknowledged, size)
        self._landed(feed, size)
        self._schedule(feed)

    def _landed(self, feed: FeedId, size: int) -> None:
        kept = deque(item for item in self._flying if item[0] != feed or item[1] > size)
        self._flying = kept
        self._flying_bytes = sum(item[2] for item in kept)
        self._last_progress = time.monotonic()

    def _take_refusal(self, refusal: replication_pb2.Refusal) -> None:
        feed = FeedId.parse(refusal.feed)
        self.state.refused += 1
        out = self._outgoing.get(feed)
        if out is None:
            # Of what was never sent to it.
            return
        log.warning(
            "%s refused a batch of %s after %d: %s %s", self.state.peer, feed, refusal.after, refusal.reason[:40], refusal.message[:200]
        )
        self._landed(feed, 1 << 62)
        if refusal.reason == Reason.POSITION_MISMATCH.value and refusal.size < out.sent:
            # The peer is further back than we thought; go on from where it is.
            out.acknowledged = out.sent = refusal.size
            out.checkpoint = b""
            self._schedule(feed)
        else:
            out.stopped = True
        if refusal.reason == Reason.ROOT_MISMATCH.value and feed not in self._explained:
            self._explained.add(feed)
            self._diverging[feed] = refusal.size
        elif refusal.reason == Reason.QUOTA_EXCEEDED.value and feed not in self._pauses:
            seconds = min(max(refusal.retry_after.seconds + refusal.retry_after.nanos / 1e9, 1.0), _LONGEST_PAUSE_SECONDS)
            self._pauses[feed] = asyncio.get_running_loop().call_later(seconds, self._go_on, feed, refusal.size)

    def _go_on(self, feed: FeedId, size: int) -> None:
        """The peer has room again."""
        self._pauses.pop(feed, None)
        out = self._outgoing[feed]
        out.stopped = False
        out.acknowledged = out.sent = max(out.acknowledged, size)
        out.checkpoint = b""
        self._schedule(feed)
        self._wake.set()

    # What goes out.

    def _changed(self, feeds: Iterable[FeedId]) -> None:
        for feed in feeds:
            if feed not in self._announced:
                self._announced.add(feed)
                self._to_announce.append(feed)
            if (size := self._strangers.pop(feed, None)) is not None:
                # The peer named it before anybody here vouched for it.
                self._outgoing.setdefault(feed, _Outgoing(size, size))
            self._schedule(feed)
        self._wake.set()

    def _schedule(self, feed: FeedId) -> None:
        if feed in self._outgoing and feed not in self._in_ready:
            self._in_ready.add(feed)
            self._ready.append(feed)

    async def _write(self, send: Callable[[replication_pb2.Frame], Awaitable[None]]) -> None:
        sizes = self._replica.signed_sizes()
        self._announced.update(sizes)
        self._to_announce.extend(sorted(sizes))
        hello = replication_pb2.Hello(
            protocol=PROTOCOL_VERSION,
            feed=self._replica.own.origin,
            nonce=secrets.token_bytes(16),
            software=self._software[:64],
            window_bytes=self._limits.window_bytes,
            head_count=len(sizes),
        )
        frame = replication_pb2.Frame(hello=hello)
        await self._add_heads(frame)
        await send(frame)
        last = time.monotonic()
        while True:
            frame = await self._compose()
            if self._finished and self._goodbye is None:
                return
            if self._goodbye is not None:
                frame.goodbye.CopyFrom(self._goodbye)
                await send(frame)
                return
            if frame.ByteSize():
                await send(frame)
                last = time.monotonic()
                continue
            self._check_stall()
            wait = max(0.0, last + self._limits.heartbeat_seconds - time.monotonic())
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                frame = replication_pb2.Frame(heartbeat=self._heartbeat())
                frame.heads.extend(await self._replica.heads([self._replica.own]))
                await send(frame)
                last = time.monotonic()

    async def _compose(self) -> replication_pb2.Frame:
        """Everything that may be said now."""
        self._wake.clear()
        frame = replication_pb2.Frame()
        while self._answers and len(frame.acks) + len(frame.refusals) < MAX_PARTS:
            answer = self._answers.popleft()
            if isinstance(answer, replication_pb2.Ack):
                frame.acks.append(answer)
            else:
                frame.refusals.append(answer)
        await self._add_heads(frame)
        peer = self.state.peer
        if self._wanted and peer is not None:
            wanted, self._wanted = self._wanted, []
            frame.content_replies.extend(await self._replica.give(peer, wanted))
        elif self._heads_due is None and not self._asking:
            missing = await self._replica.missing(32)
            frame.content_requests.extend(missing)
            self._asking = bool(missing)
        if peer is not None:
            await self._add_batches(peer, frame)
        await self._add_witnessed(frame)
        await self._add_evidence(frame)
        return frame

    async def _add_heads(self, frame: replication_pb2.Frame) -> None:
        if not self._to_announce:
            return
        feeds = [self._to_announce.popleft() for _ in range(min(len(self._to_announce), MAX_HEADS))]
        frame.heads.extend(await self._replica.heads(feeds))
        if self._to_announce:
            self._wake.set()

    def _remember(self, checkpoint: bytes) -> set[str]:
        """Whose cosignatures under a checkpoint the peer has, by what the peer or we have said."""
        shown = self._shown.setdefault(_text_digest(checkpoint), set())
        while len(self._shown) > _REMEMBERED_CHECKPOINTS:
            del self._shown[next(iter(self._shown))]
        return shown

    def _is_named(self, checkpoint: bytes) -> bool:
        """Does the peer hold or want the feed of this checkpoint?"""
        try:
            return FeedId.parse(checkpoint.partition(b"\n")[0].decode()) in self._outgoing
        except (KadError, UnicodeDecodeError):
            return False

    async def _add_witnessed(self, frame: replication_pb2.Frame) -> None:
        """What the peer has not heard yet of who confirms what."""
        version = self._replica.witness_version
        if version == self._witness_version:
            return
        rest = False
        for item in (await self._replica.witnessed())[:MAX_WITNESSED]:
            text = item.checkpoint.partition(b"\n\n")[0]
            if not self._is_named(text):
                continue
            first, shown = _text_digest(item.checkpoint) not in self._shown, self._remember(item.checkpoint)
            news = [cosignature for cosignature in item.cosignatures if cosignature.witness not in shown]
            if news or first:
                frame.witnessed.add(checkpoint=item.checkpoint, cosignatures=news[:MAX_COSIGNATURES])
                shown.update(cosignature.witness for cosignature in news[:MAX_COSIGNATURES])
            rest = rest or len(news) > MAX_COSIGNATURES
        if rest:
            self._wake.set()
        else:
            self._witness_version = version

    async def _add_evidence(self, frame: replication_pb2.Frame) -> None:
        """Proofs of forks that the peer has not been shown, and those that it may find in our histories."""
        for feed, size in list(self._diverging.items()):
            del self._diverging[feed]
            head = await self._replica.divergence(feed, size)
            if head is not None:
                frame.heads.append(head)
        if self._other_keys and not self._to_announce and len(frame.heads) <= MAX_HEADS // 2:
            # Where its keys and ours part it can see from our changes of keys, and we from its.
            feed = self._other_keys.pop()
            self._keys_shown.add(feed)
            frame.heads.extend((await self._replica.rotations(feed))[: MAX_HEADS // 2])
            if self._other_keys:
                self._wake.set()
        if self._replica.evidence_version == self._evidence_version or self._heads_due is not None:
            return
        version = self._replica.evidence_version
        known = [(hashlib.sha256(item).digest(), item) for item in await self._replica.evidence()]
        news = [(digest, item) for digest, item in known if digest not in self._shown_evidence]
        for digest, item in news[:MAX_EVIDENCE]:
            frame.evidence.append(item)
            self._remember_evidence(digest)
        if len(news) > MAX_EVIDENCE:
            self._wake.set()
        else:
            self._evidence_version = version

    async def _add_batches(self, peer: FeedId, frame: replication_pb2.Frame) -> None:
        """Feeds in turn, one batch of each, so that a small forum is never behind a large one."""
        used = 0
        sizes = self._replica.signed_sizes()
        for _ in range(len(self._ready)):
            if used >= self._limits.frame_bytes or self._flying_bytes >= self._window:
                return
            feed = self._ready.popleft()
            self._in_ready.discard(feed)
            out = self._outgoing.get(feed)
            if out is None or out.stopped:
                continue
            available = sizes.get(feed, 0) - out.sent
            if available <= 0 or (out.sent > out.acknowledged and available < self._limits.batch_entries):
                # Nothing new, or an unacknowledged batch: its acknowledgement schedules this feed again.
                continue
            batch = await self._replica.read(peer, feed, out.sent, self._limits.batch_entries, self._limits.frame_bytes - used)
            if batch is None:
                continue
            if batch.checkpoint == out.checkpoint:
                batch = _without_checkpoint(batch)
            else:
                out.checkpoint = batch.checkpoint
            out.sent = batch.after + len(batch.entries)
            size = batch.ByteSize()
            used += size
            frame.batches.append(batch)
            self._flying.append((feed, out.sent, size))
            if not self._flying_bytes:
                self._last_progress = time.monotonic()
            self._flying_bytes += size
            if sizes.get(feed, 0) > out.sent:
                self._schedule(feed)

    def _check_stall(self) -> None:
        if self._flying and time.monotonic() - self._last_progress > self._limits.stall_seconds:
            self.close(Reason.CONSUMER_TOO_SLOW, "nothing was acknowledged for too long")
            self._wake.set()

    def _heartbeat(self) -> replication_pb2.Heartbeat:
        lines = "".join(f"{feed} {size}\n" for feed, size in sorted(self._replica.signed_sizes().items()))
        heartbeat = replication_pb2.Heartbeat(vector_digest=hashlib.sha256(lines.encode()).digest())
        heartbeat.time.GetCurrentTime()
        return heartbeat


def _text_digest(checkpoint: bytes) -> bytes:
    """What a note says, whoever signed it."""
    return hashlib.sha256(checkpoint.partition(b"\n\n")[0]).digest()


def _without_checkpoint(batch: replication_pb2.Batch) -> replication_pb2.Batch:
    copy = replication_pb2.Batch()
    copy.CopyFrom(batch)
    copy.ClearField("checkpoint")
    return copy


def _check_frame(frame: replication_pb2.Frame, *, first: bool) -> None:
    """Counts, before anything in it is looked at. Its size was limited by the channel."""
    if frame.HasField("hello") != first:
        raise InvalidInputError(Reason.FRAME_MALFORMED, "a hello belongs in the first frame and only there")
    feeds = {batch.feed for batch in frame.batches}
    positions = (
        *(head.size for head in frame.heads),
        *(batch.after for batch in frame.batches),
        *(ack.size for ack in frame.acks),
        *(refusal.size for refusal in frame.refusals),
        *(request.index for request in frame.content_requests),
        *(reply.index for reply in frame.content_replies),
    )
    if any(position >= MAX_ENTRIES for position in positions):
        raise InvalidInputError(Reason.FRAME_MALFORMED, "a position that no feed has")
    too_many = (
        len(frame.heads) > MAX_HEADS
        or len(frame.batches) > MAX_PARTS
        or len(frame.acks) > MAX_PARTS
        or len(frame.refusals) > MAX_PARTS
        or len(frame.content_requests) > MAX_CONTENT_REQUESTS
        or len(frame.content_replies) > MAX_CONTENT_REQUESTS
        or len(frame.witnessed) > MAX_WITNESSED
        or any(len(item.cosignatures) > MAX_COSIGNATURES for item in frame.witnessed)
        or len(frame.evidence) > MAX_EVIDENCE
    )
    if too_many or len(feeds) != len(frame.batches):
        raise InvalidInputError(Reason.FRAME_MALFORMED, "too many parts in a frame, or two batches of one feed")


def refusal_of(batch: replication_pb2.Batch, error: KadError, size: int) -> replication_pb2.Refusal:
    """The answer to a batch that was not taken; ``size`` is what is here of its feed."""
    refusal = replication_pb2.Refusal(
        feed=batch.feed[:255], after=batch.after, reason=error.reason.value, message=error.message[:500], size=size
    )
    if error.reason == Reason.QUOTA_EXCEEDED and "retry_after_seconds" in error.metadata:
        refusal.retry_after.FromTimedelta(datetime.timedelta(seconds=float(error.metadata["retry_after_seconds"])))
    return refusal
