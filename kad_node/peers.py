"""Whom this node talks to: it dials its simpul and its peers, is dialled by others, and keeps at it with growing pauses."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from cryptography import x509
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from kad_protocol.authority import member_name
from kad_protocol.certificates import Trust, TrustAnchor
from kad_protocol.channel import member_channel
from kad_protocol.errors import KadError, NotFoundError, PermissionDeniedError, Reason, UnavailableError
from kad_protocol.exchange import Limits, Session, SessionState
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import node_pb2, replication_pb2, replication_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kad_node.config import LimitsConfig
    from kad_node.node import Node
    from kad_protocol.names import FeedId

__all__ = ["ChannelFiles", "Peers", "Traffic"]

log = logging.getLogger(__name__)

SOFTWARE = "kad/0.1.0"


@dataclass(slots=True)
class ChannelFiles:
    """What this node shows to others, PEM."""

    key: bytes
    certificate: bytes


@dataclass(slots=True)
class Traffic:
    """What was exchanged with all peers together since this node started."""

    #: Entries that they have acknowledged.
    sent: int = 0
    #: Entries of theirs that were stored here.
    received: int = 0
    #: Batches that one side refused.
    refused: int = 0

    def add(self, state: SessionState) -> None:
        """Count what one session did."""
        self.sent += state.sent
        self.received += state.received
        self.refused += state.refused


@dataclass(slots=True)
class _Peer:
    """One that is dialled, or has dialled us."""

    feed: FeedId
    address: str
    state: int = node_pb2.PEER_STATE_CONNECTING
    since: float = field(default_factory=time.time)
    reason: str = ""
    error: str = ""
    retry_at: float = 0
    session: Session | None = None
    dialling: asyncio.Task[None] | None = None
    #: What to show to this one, where that is not what is shown to all others.
    channel: ChannelFiles | None = None

    def turn(self, state: int, error: KadError | None = None) -> None:
        if state != self.state:
            self.state, self.since = state, time.time()
        if error is not None:
            self.reason, self.error = error.reason.value, error.message
        elif state == node_pb2.PEER_STATE_CONNECTED:
            self.reason = self.error = ""


class Peers:
    """All streams of one node.

    Args:
        node: whose feeds are exchanged.
        channel: what to show to others.
        limits: read anew for each stream, so that a reload takes effect.
    """

    def __init__(self, node: Node, channel: ChannelFiles | None, trust: Trust, limits: Callable[[], LimitsConfig]) -> None:
        self._node = node
        self.channel = channel
        self.trust = trust
        self._limits = limits
        self._peers: dict[tuple[str, str], _Peer] = {}
        self._closing = False
        self._ended = Traffic()
        #: All that run, also those that a newer one has displaced and that have not ended yet.
        self._running: dict[Session, _Peer] = {}
        #: Called when ``trust`` has changed, so that servers let in who is believed now.
        self.trust_changed: Callable[[], None] = lambda: None
        node.on_given_up = self._drop

    def trust_also(self, certificate_der: bytes, feed: FeedId) -> None:
        """Believe a peer's own authority, for that peer alone."""
        anchor = TrustAnchor(x509.load_der_x509_certificate(certificate_der), feed.federation, feed.forum)
        others = (a for a in self.trust.anchors if (a.federation, a.forum) != (feed.federation, feed.forum))
        self.trust = Trust([*others, anchor], self.trust.began_anew)
        self.trust_changed()

    def distrust(self, feed: FeedId) -> None:
        """Believe nobody any more who vouches for that peer alone."""
        others = [a for a in self.trust.anchors if (a.federation, a.forum) != (feed.federation, feed.forum)]
        self.trust = Trust(others, self.trust.began_anew)
        self.trust_changed()

    def dial(self, feed: FeedId, address: str, channel: ChannelFiles | None = None) -> None:
        """Keep a stream to a member, from now on. ``channel``: what to show to it, if not what is shown to all others."""
        peer = self._peers.setdefault((feed.federation, feed.forum), _Peer(feed, address))
        peer.address = address
        peer.channel = channel
        if address and peer.dialling is None:
            peer.dialling = asyncio.create_task(self._keep(peer), name=f"dial-{feed.forum}")

    def _drop(self, feed: FeedId) -> None:
        """A member began anew: whoever speaks in its name now may be the thief; its owner comes back with a new certificate."""
        self._end(feed, Reason.EPOCH_SUPERSEDED, f"{feed} was given up by its owner")

    async def forget(self, forum: str, federation: str = "") -> None:
        """Dial a member no more; ``federation`` is that of the member, one's own if it is empty.

        Raises:
            NotFoundError: ``FORUM_NOT_FOUND``.
        """
        peer = self._peers.pop((federation or self._node.own.federation, forum), None)
        if peer is None:
            raise NotFoundError(Reason.FORUM_NOT_FOUND, f"{forum} is not a peer", forum=forum)
        self._end(peer.feed, Reason.SHUTTING_DOWN, "this node has ended it")
        await _cancel(peer.dialling)

    def hang_up(self, feed: FeedId) -> None:
        """End the stream with a member that is none any more."""
        self._end(feed, Reason.MEMBER_SUSPENDED, "suspended, or no longer a member")

    def _end(self, feed: FeedId, reason: Reason, message: str) -> None:
        for session, peer in self._running.items():
            if (peer.feed.federation, peer.feed.forum) == (feed.federation, feed.forum):
                session.close(reason, message)

    async def close(self, reason: Reason = Reason.SHUTTING_DOWN) -> None:
        """Say goodbye to all."""
        self._closing = True
        for session in self._running:
            session.close(reason, "this node is stopping")
        for peer in list(self._peers.values()):
            if peer.dialling is not None:
                await asyncio.wait({peer.dialling}, timeout=1)
                await _cancel(peer.dialling)

    def describe(self) -> list[node_pb2.Peer]:
        """For the status."""
        found = []
        for peer in sorted(self._peers.values(), key=lambda p: p.feed):
            view = node_pb2.Peer(
                forum=member_name(peer.feed, self._node.own.federation).removeprefix("forums/"),
                address=peer.address,
                state=peer.state,  # type: ignore[arg-type]
                last_error_reason=peer.reason,
                last_error=peer.error,
            )
            view.state_time.FromMicroseconds(int(peer.since * 1e6))
            if peer.state == node_pb2.PEER_STATE_WAITING and peer.retry_at:
                view.retry_time.FromMicroseconds(int(peer.retry_at * 1e6))
            if (session := peer.session) is not None:
                view.last_heard_time.FromMicroseconds(int(session.state.last_heard * 1e6))
                view.behind, view.sent, view.received = session.behind, session.state.sent, session.state.received
                view.clock_skew_ms = session.state.clock_skew_ms
            found.append(view)
        return found

    def connected_since(self, feed: FeedId) -> float | None:
        """Since when a stream with a member has been open (seconds since 1970), None if there is none."""
        peer = self._peers.get((feed.federation, feed.forum))
        return peer.session.state.started if peer is not None and peer.session is not None else None

    def traffic(self) -> Traffic:
        """For the metrics: sums that never go back, however often streams end and begin again."""
        total = replace(self._ended)
        for session in self._running:
            total.add(session.state)
        return total

    def begin_anew(self) -> None:
        """End all streams in order; they are dialled again, and what is here is told anew."""
        for peer in self._peers.values():
            if peer.session is not None:
                peer.session.close(Reason.REPLACED_BY_NEWER_STREAM, "this node holds another history of a feed now")

    # Dialling.

    async def _keep(self, peer: _Peer) -> None:
        """Dial, exchange, and dial again when it ends. Pauses grow with each failure and begin small again after a success."""
        limits = self._limits()

        def pause(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome is not None else None
            known = error if isinstance(error, KadError) else UnavailableError(Reason.PEER_UNREACHABLE, str(error))
            peer.retry_at = time.time() + state.upcoming_sleep
            peer.turn(node_pb2.PEER_STATE_WAITING, known)
            log.info(
                "peer away", extra={"peer": peer.feed.forum, "reason": known.reason.value, "retry_seconds": round(state.upcoming_sleep, 1)}
            )

        while not self._closing:
            wait = wait_random_exponential(limits.reconnect_min_seconds, limits.reconnect_max_seconds, min=limits.reconnect_min_seconds / 2)
            async for attempt in AsyncRetrying(wait=wait, before_sleep=pause, retry=retry_if_exception_type(Exception), reraise=True):
                with attempt:
                    peer.turn(node_pb2.PEER_STATE_CONNECTING)
                    await self._dial_once(peer)
            # It ended in order (the peer stops, or ages its connections out): a short pause, then again.
            peer.turn(node_pb2.PEER_STATE_WAITING)
            peer.retry_at = time.time() + limits.reconnect_min_seconds
            await asyncio.sleep(limits.reconnect_min_seconds)

    async def _dial_once(self, peer: _Peer) -> None:
        shown = peer.channel or self.channel
        if shown is None:
            raise UnavailableError(Reason.IDENTITY_MISSING, "this node has no channel certificate")
        async with member_channel(peer.address, self.trust, shown.key, shown.certificate, peer.feed) as channel:
            call = replication_pb2_grpc.ReplicationServiceStub(channel).Exchange()
            try:
                await call.wait_for_connection()
                await self._exchange(peer.feed, _Frames.of_client(call), lambda frame: _send(call, frame), dialled=True)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error
            finally:
                call.cancel()

    async def serve(
        self, caller: FeedId, requests: AsyncIterator[replication_pb2.ExchangeRequest], send: Callable[[replication_pb2.Frame], object]
    ) -> None:
        """The other end: a member dialled us."""

        async def reply(frame: replication_pb2.Frame) -> None:
            try:
                await send(frame)  # type: ignore[misc]
            except asyncio.InvalidStateError as error:
                raise UnavailableError(Reason.PEER_UNREACHABLE, "the peer hung up") from error

        await self._exchange(caller, _Frames.of_server(requests), reply, dialled=False)

    async def _exchange(
        self, feed: FeedId, frames: AsyncIterator[replication_pb2.Frame], send: Callable[[replication_pb2.Frame], object], *, dialled: bool
    ) -> None:
        if feed.federation == self._node.own.federation and (feed.federation, feed.forum) in self._node.outside:
            # Whom we dial comes through no door of ours.
            raise PermissionDeniedError(Reason.MEMBER_SUSPENDED, f"{feed.forum} is suspended or has left", forum=feed.forum)
        peer = self._peers.setdefault((feed.federation, feed.forum), _Peer(feed, ""))
        config = self._limits()
        limits = Limits(
            frame_bytes=config.frame_bytes,
            window_bytes=config.window_bytes,
            heartbeat_seconds=config.heartbeat_seconds,
            silence_seconds=config.silence_seconds,
        )
        session = Session(self._node.replica, feed, SOFTWARE, limits)
        if peer.session is not None and not dialled:
            # The newer stream is the living one; the older may be a dead connection that nobody has noticed.
            peer.session.close(Reason.REPLACED_BY_NEWER_STREAM, "another stream of the same member began")
        peer.session = session
        self._running[session] = peer
        peer.turn(node_pb2.PEER_STATE_CONNECTED)
        log.info("peer connected", extra={"peer": feed.forum, "dialled": dialled})
        try:
            await session.run(frames, send)  # type: ignore[arg-type]
        except KadError as error:
            peer.turn(node_pb2.PEER_STATE_WAITING, error)
            raise
        finally:
            del self._running[session]
            self._ended.add(session.state)
            if peer.session is session:
                peer.session = None
                if peer.dialling is None:
                    peer.turn(node_pb2.PEER_STATE_WAITING)
                    peer.since = time.time()
            log.info("peer disconnected", extra={"peer": feed.forum})


class _Frames:
    """Frames out of the two shapes that gRPC gives them."""

    @staticmethod
    async def of_client(
        call: grpc.aio.StreamStreamCall[replication_pb2.ExchangeRequest, replication_pb2.ExchangeResponse],
    ) -> AsyncIterator[replication_pb2.Frame]:
        async for response in call:
            yield response.frame

    @staticmethod
    async def of_server(requests: AsyncIterator[replication_pb2.ExchangeRequest]) -> AsyncIterator[replication_pb2.Frame]:
        async for request in requests:
            yield request.frame


async def _send(
    call: grpc.aio.StreamStreamCall[replication_pb2.ExchangeRequest, replication_pb2.ExchangeResponse], frame: replication_pb2.Frame
) -> None:
    try:
        await call.write(replication_pb2.ExchangeRequest(frame=frame))
    except asyncio.InvalidStateError as error:
        # The peer has ended the call: its status says why, and is more use than this error.
        if call.done() and (code := await call.code()) != grpc.StatusCode.OK:
            raise UnavailableError(Reason.PEER_UNREACHABLE, await call.details() or str(code)) from error
        raise UnavailableError(Reason.PEER_UNREACHABLE, "the peer hung up") from error


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
