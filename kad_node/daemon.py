"""Starting, stopping and reloading a daemon. ``kad_simpul.daemon`` adds to it what a simpul does besides."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import signal
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc.aio
from cryptography import x509
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kad_node import config as configuration
from kad_node import logs, systemd
from kad_node.api import guard, servicers
from kad_node.config import CommonConfig, NodeConfig
from kad_node.enrolment import renew_as
from kad_node.home import PATIENCE_SECONDS
from kad_node.metrics import MetricsServer, NodeCollector
from kad_node.node import Node
from kad_node.peers import ChannelFiles, Peers
from kad_node.service.affairs import Affairs
from kad_node.service.directory import Directory
from kad_node.service.keys import Keys
from kad_node.service.records import Records
from kad_node.service.status import Status
from kad_node.service.transparency import Transparency
from kad_node.vigil import Vigil
from kad_protocol.certificates import Authority, Trust, TrustAnchor, expiry, new_channel_key, renewal_due, request_certificate
from kad_protocol.channel import ServerIdentity, server_options
from kad_protocol.errors import KadError, NotFoundError, PermissionDeniedError, Reason, UnavailableError
from kad_protocol.names import FeedId
from kad_protocol.status import ErrorInterceptor
from kad_protocol.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    governance_pb2,
    governance_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    records_pb2,
    records_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
    transparency_pb2,
    transparency_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kad_node.home import Home

__all__ = ["Daemon", "NodeDaemon", "issue_own_certificate", "local_api"]

log = logging.getLogger(__name__)

C = TypeVar("C", bound=CommonConfig)

_SERVICES = {
    "records": records_pb2.DESCRIPTOR.services_by_name["RecordsService"].full_name,
    "directory": directory_pb2.DESCRIPTOR.services_by_name["DirectoryService"].full_name,
    "transparency": transparency_pb2.DESCRIPTOR.services_by_name["TransparencyService"].full_name,
    "replication": replication_pb2.DESCRIPTOR.services_by_name["ReplicationService"].full_name,
    "node": node_pb2.DESCRIPTOR.services_by_name["NodeService"].full_name,
    "keys": node_pb2.DESCRIPTOR.services_by_name["KeysService"].full_name,
    **{name: service.full_name for name, service in governance_pb2.DESCRIPTOR.services_by_name.items()},
}
_CERTIFICATE_CHECK_SECONDS = 600
_CERTIFICATE_RETRY_SECONDS = 30


def utc_now() -> datetime.datetime:
    """This machine's clock."""
    return datetime.datetime.now(datetime.UTC)


def issue_own_certificate(home: Home, own: FeedId) -> None:
    """A new channel certificate from one's own authority, which lies in the home."""
    authority = Authority.load(home.read("authority/key.pem"), home.read("authority/certificate.pem"))
    key = new_channel_key()
    home.write("channel/authority.pem", authority.certificate_pem)
    home.save_channel(key, authority.issue(request_certificate(key), own, utc_now()))


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Listen; returns the address with its real port.

    Raises:
        UnavailableError: ``ADDRESS_IN_USE``.
    """
    try:
        port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise UnavailableError(Reason.ADDRESS_IN_USE, f"cannot listen on {address}; is something else there?", address=address) from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def add_services(server: grpc.aio.Server, node: Node, peers: Peers | None) -> None:
    """What members and local programs alike may ask."""
    records_pb2_grpc.add_RecordsServiceServicer_to_server(servicers.RecordsServicer(Records(node)), server)
    directory_pb2_grpc.add_DirectoryServiceServicer_to_server(servicers.DirectoryServicer(Directory(node)), server)
    transparency = Transparency(node)
    transparency_pb2_grpc.add_TransparencyServiceServicer_to_server(servicers.TransparencyServicer(transparency), server)
    affairs = Affairs(node)
    governance_pb2_grpc.add_MembershipServiceServicer_to_server(servicers.MembershipServicer(affairs), server)
    governance_pb2_grpc.add_MandatesServiceServicer_to_server(servicers.MandatesServicer(affairs, node), server)
    governance_pb2_grpc.add_DecisionsServiceServicer_to_server(servicers.DecisionsServicer(affairs), server)
    replication_pb2_grpc.add_ReplicationServiceServicer_to_server(servicers.ReplicationServicer(transparency, peers), server)


def local_api(
    node: Node,
    status: Status,
    health_servicer: health.aio.HealthServicer | None,
    *,
    reflect: bool,
    more: Callable[[grpc.aio.Server], list[str]] = lambda _: [],
) -> grpc.aio.Server:
    """The server of the local API; the caller binds and starts it. ``more`` adds services and returns their names."""
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(guard.local_guard(node.home.tokens))], options=server_options(86_400), maximum_concurrent_rpcs=1000
    )
    add_services(server, node, None)
    node_pb2_grpc.add_NodeServiceServicer_to_server(servicers.NodeServicer(status), server)
    node_pb2_grpc.add_KeysServiceServicer_to_server(servicers.KeysServicer(Keys(node)), server)
    names = [*_SERVICES.values(), *more(server)]
    if health_servicer is not None:
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if reflect:
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


class Daemon(Generic[C]):
    """One running member. ``run`` returns when it was asked to stop and has stopped."""

    config_model: type[C]

    def __init__(self, home: Home, config: C) -> None:
        self.home = home
        self.config = config
        self._stopping = asyncio.Event()
        self._stops = 0
        self._servers: list[grpc.aio.Server] = []
        self._duties: list[asyncio.Task[None]] = []
        self._fault: UnavailableError | None = None
        self._health = health.aio.HealthServicer()
        self._identity: ServerIdentity | None = None
        self._metrics: MetricsServer | None = None
        self.addresses: dict[str, str] = {}

    # What a kind of member does in its own way.

    @property
    def own(self) -> FeedId:
        """One's own feed; its key epoch is known once the home is open."""
        return self.node.own

    def simpul(self) -> FeedId | None:
        """The simpul whose word opens the fence."""
        return None

    def anchors(self) -> list[TrustAnchor]:
        """Whom we believe about members, besides the cards that the operator gave."""
        raise NotImplementedError

    def listen_address(self) -> str:
        """Where other members call; empty for nowhere."""
        raise NotImplementedError

    def dial(self) -> None:
        """Whom to dial besides the operator's peers."""

    def local_services(self, server: grpc.aio.Server) -> list[str]:
        """More services of the local API; returns their names."""
        del server
        return []

    async def start_more(self) -> None:
        """What else runs."""

    async def renew_certificate(self) -> None:
        """Get a new channel certificate into the home."""
        raise NotImplementedError

    # The life of a daemon.

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; a second signal stops at once.

        Raises:
            KadError: it could not start.
            UnavailableError: ``SHUTTING_DOWN``, one of its duties ended in a fault.
        """
        with self.home.lock(PATIENCE_SECONDS):
            self._catch_signals()
            try:
                await self._start()
                systemd.notify(READY=1, STATUS="siap")
                log.info("running", extra={"forum": self.own.forum, "federation": self.own.federation, **self.addresses})
                await self._stopping.wait()
            finally:
                await self._stop()
        if self._fault is not None:
            raise self._fault

    def begin_duty(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something as long as this daemon runs. Ends it in a fault, so does the daemon, and whoever supervises it begins it anew: one
        that does half of what it should looks well for months.
        """
        duty = asyncio.create_task(work, name=name)
        self._duties.append(duty)
        duty.add_done_callback(self._look_at_end)

    def _look_at_end(self, duty: asyncio.Task[None]) -> None:
        if duty.cancelled():
            return
        name = duty.get_name()
        log.critical("a duty ended, so this daemon ends", exc_info=duty.exception(), extra={"duty": name})
        if not self._stopping.is_set():
            self._fault = UnavailableError(Reason.SHUTTING_DOWN, f"{name} ended in a fault that nobody expected; the log has it", duty=name)
            self._stopping.set()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_signal)
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(self._reload()))

    def _stop_signal(self) -> None:
        self._stops += 1
        if self._stops > 1:
            log.warning("stopping at once")
            os._exit(1)
        self._stopping.set()

    async def _start(self) -> None:
        self.node = await Node.open(self.home, self.config, self.simpul())
        if await self._certificate_due():
            with suppress(KadError):
                await self.renew_certificate()
        channel = self._channel_files()
        self.peers = Peers(self.node, channel, Trust(self.anchors(), self.node.began_anew), lambda: self.config.limits)
        await self._listen(channel)
        self.peers.trust_changed = lambda: self._present(self.peers.channel)
        self.status = Status(self.node, self.peers, daemon=True, listen_address=self.addresses.get("members", ""))
        for card in await self.status.known_peers():
            feed = FeedId.parse(card.feed)
            self.peers.trust_also(card.authority_certificate, feed)
            if card.address:
                self.peers.dial(feed, card.address)
        self._present(channel)
        await self._serve_locally()
        self._serve_metrics()
        await self.start_more()
        self.home.announce(self.addresses["api"], {key: value for key, value in self.addresses.items() if key != "api"})
        for name in ("", *_SERVICES.values()):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self.dial()
        self.begin_duty("certificate", self._watch_certificate())
        self.begin_duty("watchdog", self._watchdog())
        self.begin_duty("vigil", Vigil(self.node, self.peers.connected_since, self.peers.begin_anew).run())

    def _channel_files(self) -> ChannelFiles | None:
        try:
            return ChannelFiles(*self.home.channel())
        except NotFoundError:
            return None

    async def _listen(self, channel: ChannelFiles | None) -> None:
        address = self.listen_address()
        if not address or channel is None:
            return
        self._identity = ServerIdentity(channel.key, channel.certificate, self.peers.trust.roots_pem)
        interceptor = ErrorInterceptor(guard.member_guard(lambda: self.peers.trust, self._admit, self.own.federation))
        server = grpc.aio.server(
            interceptors=[interceptor], options=server_options(self.config.limits.connection_age_seconds), maximum_concurrent_rpcs=20_000
        )
        add_services(server, self.node, self.peers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.addresses["members"] = bind(server, address, self._identity.credentials())
        self._servers.append(server)
        await server.start()

    def _present(self, channel: ChannelFiles | None) -> None:
        """Show the present certificate, and let in whom we believe now."""
        self.peers.channel = channel
        if self._identity is not None and channel is not None:
            self._identity.change(channel.key, channel.certificate, self.peers.trust.roots_pem)

    def _admit(self, caller: FeedId) -> None:
        """A certificate says who calls; the feeds say whether that one belongs here."""
        known = self.node.replica.signed_sizes()
        if not any(feed.forum == caller.forum and feed.federation == caller.federation for feed in known):
            raise PermissionDeniedError(Reason.NOT_A_MEMBER, f"{caller.forum} is not known here as a member", forum=caller.forum)
        if (caller.federation, caller.forum) in self.node.outside:
            raise PermissionDeniedError(Reason.MEMBER_SUSPENDED, f"{caller.forum} is suspended or has left", forum=caller.forum)

    async def _serve_locally(self) -> None:
        server = local_api(self.node, self.status, self._health, reflect=self.config.reflection, more=self.local_services)
        try:
            self.addresses["api"] = bind(server, self.config.api_listen, None)
        except UnavailableError as error:
            # Another member of this machine has that port; the command line finds us by run.json, whatever the port.
            log.warning("%s; the local API takes any free port", error)
            self.addresses["api"] = bind(server, "127.0.0.1:0", None)
        self._servers.append(server)
        await server.start()

    def _serve_metrics(self) -> None:
        if self.config.metrics_listen:
            collector = NodeCollector(self.node, self.peers, metadata.version("kad"), asyncio.get_running_loop())
            self._metrics = MetricsServer(self.config.metrics_listen, collector)
            self.addresses["metrics"] = self._metrics.address

    async def _stop(self) -> None:
        systemd.notify(STOPPING=1)
        log.info("stopping")
        await self._health.enter_graceful_shutdown()
        for duty in self._duties:
            duty.cancel()
        if self._metrics is not None:
            await self._metrics.close()
        if hasattr(self, "peers"):
            await self.peers.close()
        await asyncio.gather(*(server.stop(self.config.limits.drain_seconds) for server in self._servers))
        if hasattr(self, "node"):
            await self.node.close()
        self.home.withdraw()

    async def _reload(self) -> None:
        systemd.notify(RELOADING=1)
        try:
            fresh = configuration.load(type(self.config), self.home.config, os.environ)
        except (KadError, OSError) as error:
            log.error("the new configuration is wrong, the old one stays: %s", error)  # noqa: TRY400 - said in one line
        else:
            changed = {name for name in type(fresh).model_fields if getattr(fresh, name) != getattr(self.config, name)}
            reloadable = changed & fresh.RELOADABLE
            self.config = self.config.model_copy(update={name: getattr(fresh, name) for name in reloadable})
            logs.set_level(self.config.log_level)
            log.info("reloaded", extra={"changed": sorted(reloadable), "need_restart": sorted(changed - reloadable)})
        systemd.notify(READY=1)

    async def _certificate_due(self) -> bool:
        try:
            return renewal_due(self.home.channel()[1], utc_now())
        except KadError:
            return True

    async def _watch_certificate(self) -> None:
        while True:
            pause = _CERTIFICATE_CHECK_SECONDS
            if await self._certificate_due():
                try:
                    await self.renew_certificate()
                    self._present(self._channel_files())
                    log.info("certificate renewed", extra={"until": str(expiry(self.home.channel()[1]))})
                except KadError as error:
                    log.warning("the certificate could not be renewed yet: %s", error)
                    pause = _CERTIFICATE_RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _watchdog(self) -> None:
        """Signs of life for systemd, from the event loop itself, so that a stuck loop is noticed."""
        interval = systemd.watchdog_seconds() or 10
        while True:
            connected = sum(1 for peer in self.peers.describe() if peer.state == node_pb2.PEER_STATE_CONNECTED)
            systemd.notify(WATCHDOG=1, STATUS=f"{connected} tersambung / connected")
            await asyncio.sleep(interval)


class NodeDaemon(Daemon[NodeConfig]):
    """``kad-node run``."""

    def simpul(self) -> FeedId | None:
        """See ``Daemon``."""
        return FeedId.parse(self.config.simpul.feed) if self.config.simpul else None

    def anchors(self) -> list[TrustAnchor]:
        """See ``Daemon``: the simpul's authority vouches for the federation, one's own for oneself."""
        certificate = x509.load_pem_x509_certificate(self.home.read("channel/authority.pem"))
        return [TrustAnchor(certificate, self.own.federation, None if self.config.simpul else self.own.forum)]

    def listen_address(self) -> str:
        """See ``Daemon``."""
        return self.config.listen

    def dial(self) -> None:
        """See ``Daemon``: the simpul."""
        if self.config.simpul:
            self.peers.dial(FeedId.parse(self.config.simpul.feed), self.config.simpul.address)

    async def renew_certificate(self) -> None:
        """See ``Daemon``: from the simpul, or from one's own authority."""
        if self.config.simpul is None:
            issue_own_certificate(self.home, self.own)
            return
        address, authority = self.config.simpul.enrolment_address, self.home.read("channel/authority.pem")
        renewed = await renew_as(self.node, address, authority)
        self.home.save_channel(renewed.key, renewed.certificate)
