"""Figures for Prometheus on ``/metrics``, read when somebody asks and not before.

The HTTP server is the library's, in threads of its own, and small: it answers GET of one path, a few callers at once. What it answers
with is read on the event loop, in one snapshot of the store, by questions whose cost does not grow with the entries that are held.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from kad_node.fence import FenceState
from kad_node.service.keys import own_alarms
from kad_node.vigil import alarms
from kad_node.witness import simpul_of, witnessing
from kad_protocol.certificates import expiry
from kad_protocol.errors import KadError, Reason, UnavailableError
from kad_protocol.governance import Governance
from kad_protocol.v1 import governance_pb2, node_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import Metric

    from kad_node.node import Node
    from kad_node.peers import Peers, Traffic
    from kad_node.store.queries import FeedFigures
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.names import FeedId

__all__ = ["MetricsServer", "NodeCollector"]

log = logging.getLogger(__name__)

_PATH = "/metrics"
#: A reading that takes longer is given up; whoever asked is told so.
_READ_SECONDS = 10.0
#: Callers that are answered at once; one more is hung up on.
_CALLERS = 4
_CALLER_SECONDS = 5

_PEER_STATES = {
    node_pb2.PEER_STATE_CONNECTING: "connecting",
    node_pb2.PEER_STATE_CONNECTED: "connected",
    node_pb2.PEER_STATE_WAITING: "waiting",
}
_ACT_STATES = {
    governance_pb2.PerformedAct.STATE_UNWITNESSED: "unwitnessed",
    governance_pb2.PerformedAct.STATE_FINAL: "final",
    governance_pb2.PerformedAct.STATE_VETOED: "vetoed",
    governance_pb2.PerformedAct.STATE_REFUSED: "refused",
}
#: Shown with 0 from the beginning, so that an alert can be written and tried before it is needed; others appear with their first time.
_ALARMS = (
    Reason.FORKED,
    Reason.OBSERVATION_CONTRADICTED,
    Reason.OBSERVATION_LAGGING,
    Reason.EPOCH_SUPERSEDED,
    Reason.KEY_USED_ELSEWHERE,
)


@dataclass(slots=True)
class _Reading:
    """What was found in one snapshot of the store."""

    feeds: dict[str, FeedFigures]
    refusals: dict[str, int]
    problems: list[tuple[str, bool, int]]
    queued: int
    used_bytes: int
    alarms: set[str]
    witnessing: node_pb2.Witnessing | None = None
    #: By state; None where there is no simpul.
    acts: Counter[int] | None = None
    open_decisions: int = 0
    store_bytes: int = 0
    peers: list[node_pb2.Peer] = field(default_factory=list)
    traffic: Traffic | None = None
    certificate_end: float | None = None


class NodeCollector(Collector):
    """One daemon's figures.

    Args:
        node: whose.
        peers: whom it talks to.
        version: of this software.
        loop: the event loop of both; ``collect`` is called in other threads.
    """

    def __init__(self, node: Node, peers: Peers, version: str, loop: asyncio.AbstractEventLoop) -> None:
        self._node = node
        self._peers = peers
        self._version = version
        self._loop = loop
        self._started = time.time()
        self._alarms = {reason.value for reason in _ALARMS}
        self._acts: tuple[tuple[int, int], Counter[int]] | None = None

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``.

        Raises:
            KadError: the store cannot be read. TimeoutError: not in time.
        """
        future = asyncio.run_coroutine_threadsafe(self._read(), self._loop)
        try:
            reading = future.result(_READ_SECONDS)
        except TimeoutError:
            future.cancel()
            raise
        yield from self._of_node(reading)
        yield from _of_exchange(reading)
        yield from _of_entries(reading)
        yield from self._of_authority(reading)

    # Reading, on the event loop.

    async def _read(self) -> _Reading:
        node, peers = self._node, self._peers
        reading = await node.store.read(self._look)
        reading.store_bytes = sum(path.stat().st_size for path in node.home.path.glob("store.sqlite3*"))
        reading.peers, reading.traffic = peers.describe(), peers.traffic()
        if peers.channel is not None:
            reading.certificate_end = expiry(peers.channel.certificate).timestamp()
        return reading

    def _look(self, tx: SqliteTransaction) -> _Reading:
        simpul = simpul_of(tx, self._node.own)
        reading = _Reading(
            feeds=tx.feed_figures(self._node.own, simpul),
            refusals=tx.refusal_counts(),
            problems=tx.problem_counts(),
            queued=tx.queued_count(),
            used_bytes=tx.used_bytes(),
            alarms={alarm.reason for alarm in [*own_alarms(tx, self._node.own), *alarms(tx, self._node.own)]},
        )
        if simpul is not None:
            reading.witnessing = witnessing(tx, simpul)
            reading.acts, reading.open_decisions = self._acts_of(tx, simpul), tx.affairs(simpul).count("open")
        return reading

    def _acts_of(self, tx: SqliteTransaction, simpul: FeedId) -> Counter[int]:
        """Acts by state, counted again only when something was judged or the content of an act came."""
        governance = Governance(tx.affairs(simpul), simpul)
        place = governance.head.position, tx.waiting_count(simpul)
        if self._acts is None or self._acts[0] != place:
            self._acts = place, Counter(act.state for act in governance.acts())
        return self._acts[1]

    # Telling, in a caller's thread.

    def _of_node(self, reading: _Reading) -> Iterator[Metric]:
        own, config = self._node.own, self._node.config
        yield InfoMetricFamily(
            "kad_build",
            "What runs here.",
            {"version": self._version, "forum": own.forum, "federation": own.federation, "mode": getattr(config, "mode", "")},
        )
        yield _gauge("kad_start_time_seconds", "When the daemon started, in seconds since 1970.", self._started)
        if reading.certificate_end is not None:
            yield _gauge(
                "kad_certificate_expiry_time_seconds", "When the channel certificate ends, in seconds since 1970.", reading.certificate_end
            )
        yield _labelled(
            "kad_append_state",
            "1 for the state in which this node is: may it sign (open), not yet (fenced), or not at all (forked)?",
            "state",
            {state.value: float(state is self._node.fence.state) for state in FenceState},
        )
        yield _gauge("kad_outbox_entries", "Changes that wait until this node may sign.", reading.queued)
        yield _gauge("kad_store_bytes", "Bytes of the files of the store.", reading.store_bytes)
        yield _gauge("kad_store_used_bytes", "Bytes of the store that hold something.", reading.used_bytes)

    def _of_authority(self, reading: _Reading) -> Iterator[Metric]:
        self._alarms |= reading.alarms
        yield _labelled(
            "kad_alarm",
            "1 while somebody does what they must not do, as far as this node sees.",
            "reason",
            {reason: float(reason in reading.alarms) for reason in sorted(self._alarms)},
        )
        if (found := reading.witnessing) is not None:
            yield _gauge("kad_witness_members", "Members who may confirm the simpul's log.", found.members)
            yield _gauge("kad_witness_quorum", "Confirmations that are enough.", found.quorum)
            yield _gauge("kad_witness_confirmed_members", "Members who confirm the newest confirmed checkpoint.", found.confirmed)
            yield _gauge("kad_witness_confirmed_entries", "Entries of the simpul's log under that checkpoint.", found.size)
            if found.HasField("time"):
                age = max(0.0, time.time() - found.time.seconds)
                yield _gauge("kad_witness_confirmed_age_seconds", "Seconds since enough members had confirmed that checkpoint.", age)
        if (acts := reading.acts) is not None:
            yield _labelled(
                "kad_acts",
                "What the simpul did in members' names, by what became of it.",
                "state",
                {name: acts[state] for state, name in _ACT_STATES.items()},
            )
            yield _gauge("kad_open_decisions", "Proposals on which members may vote.", reading.open_decisions)


def _of_exchange(reading: _Reading) -> Iterator[Metric]:
    states = Counter(peer.state for peer in reading.peers)
    yield _labelled("kad_peers", "Peers by how it is going.", "state", {name: states[state] for state, name in _PEER_STATES.items()})
    if (traffic := reading.traffic) is not None:
        yield CounterMetricFamily("kad_exchange_sent_entries", "Entries that peers have acknowledged.", traffic.sent)
        yield CounterMetricFamily(
            "kad_exchange_received_entries", "Entries that peers sent and that are here, also if they were before.", traffic.received
        )
        yield CounterMetricFamily("kad_exchange_refused_batches", "Batches that this node or its peer refused.", traffic.refused)
    refusals = CounterMetricFamily(
        "kad_refusals", "What was refused from outside and not stored, since the store was made.", labels=["reason"]
    )
    for reason, count in reading.refusals.items():
        refusals.add_metric([reason], count)
    yield refusals


def _of_entries(reading: _Reading) -> Iterator[Metric]:
    """Feeds by whose they are: this node's own, the simpul's, and all others together, so that labels do not grow with the federation."""
    figures: tuple[tuple[str, str, Callable[[FeedFigures], int]], ...] = (
        ("kad_feeds", "Feeds that are known here.", lambda found: found.feeds),
        ("kad_feed_entries", "Entries held.", lambda found: found.entries),
        ("kad_feed_signed_entries", "Entries held that a checkpoint of their author covers.", lambda found: found.signed),
        ("kad_feed_observed_entries", "Entries that the simpul has observed.", lambda found: found.observed),
        (
            "kad_feed_folded_entries",
            "Entries held that have taken effect, or have a problem that says why not.",
            lambda found: found.folded,
        ),
    )
    for name, text, value in figures:
        yield _labelled(name, text, "feed", {whose: value(found) for whose, found in reading.feeds.items()})
    problems = GaugeMetricFamily(
        "kad_problems", "Entries that have no effect; waiting=1: not yet, they are judged again.", labels=["reason", "waiting"]
    )
    for reason, waiting, count in reading.problems:
        problems.add_metric([reason, str(int(waiting))], count)
    yield problems


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _labelled(name: str, text: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


# Serving.


class _Handler(WSGIRequestHandler):
    timeout = _CALLER_SECONDS

    def log_message(self, *_: object) -> None:
        """Who asks for figures does so all day."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._turns = threading.BoundedSemaphore(_CALLERS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Without the reverse look-up of the host's name, which may take its time and is of no use here.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if not self._turns.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread could be started, which would have given its turn back.
            self._turns.release()
            raise

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._turns.release()

    def handle_error(self, *_: object) -> None:
        log.debug("a caller of the metrics hung up or was too slow: %s", sys.exc_info()[1])


class MetricsServer:
    """Serves a registry until it is closed.

    Args:
        address: ``host:port``; port 0 for any.
        collectors: what to serve, besides the process's own figures.

    Raises:
        UnavailableError: ``ADDRESS_IN_USE``.
    """

    def __init__(self, address: str, *collectors: Collector) -> None:
        registry = CollectorRegistry()
        for collector in collectors:
            registry.register(collector)
        ProcessCollector(registry=registry)
        host, _, port = address.rpartition(":")
        try:
            self._server = _Server(host.strip("[]"), int(port))
        except OSError as error:
            raise UnavailableError(
                Reason.ADDRESS_IN_USE, f"cannot serve metrics on {address}: {error.strerror}", address=address
            ) from error
        self._server.set_app(_application(make_wsgi_app(registry)))
        self.address = f"{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Answer no more."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        await asyncio.to_thread(self._thread.join)


def _application(metrics: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != _PATH:
            return _plain(start, "404 Not Found", f"only {_PATH} is here")
        if environ["REQUEST_METHOD"] != "GET":
            return _plain(start, "405 Method Not Allowed", "only GET is answered", ("Allow", "GET"))
        try:
            return metrics(environ, start)
        except (KadError, TimeoutError, CancelledError) as error:
            # The node stops, its store fails, or it is too busy: the caller asks again, and that it had to is a figure too.
            log.warning("the metrics could not be read: %s %s", type(error).__name__, error)
            return _plain(start, "503 Service Unavailable", "the figures cannot be read now")

    return answer


def _plain(start: StartResponse, status: str, text: str, *headers: tuple[str, str]) -> list[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{text}\n".encode()]
