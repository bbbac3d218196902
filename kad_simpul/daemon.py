"""``kad-simpul run``: a node that is called by others, observes, and enrols."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import grpc.aio

from kad_node.api.guard import check_request
from kad_node.daemon import Daemon, bind, issue_own_certificate, utc_now
from kad_node.service.affairs import governance_of
from kad_protocol.authority import policy
from kad_protocol.certificates import Authority, TrustAnchor
from kad_protocol.channel import enrolment_credentials, server_options
from kad_protocol.errors import KadError, PreconditionError, Reason
from kad_protocol.status import ErrorInterceptor
from kad_protocol.v1 import bridge_pb2, bridge_pb2_grpc, enrolment_pb2, enrolment_pb2_grpc
from kad_simpul.acts import Acts
from kad_simpul.api import BridgeServicer, EnrolmentServicer, InvitationServicer
from kad_simpul.bridge import Bridges
from kad_simpul.config import SimpulConfig
from kad_simpul.enrol import Enrolment
from kad_simpul.observe import Observer
from kad_simpul.quota import Quota
from kad_simpul.steward import Steward

if TYPE_CHECKING:
    from kad_node.home import Home
    from kad_node.node import Node

__all__ = ["SimpulDaemon", "invitation_services"]

log = logging.getLogger(__name__)

_ENROLMENT = enrolment_pb2.DESCRIPTOR.services_by_name["EnrolmentService"].full_name
_BRIDGES = bridge_pb2.DESCRIPTOR.services_by_name["BridgeService"].full_name
_INVITATIONS = enrolment_pb2.DESCRIPTOR.services_by_name["InvitationService"].full_name


def load_authority(home: Home) -> Authority:
    """The federation's authority, which lies in the simpul's home."""
    return Authority.load(home.read("authority/key.pem"), home.read("authority/certificate.pem"))


def enrolment_of(home: Home, config: SimpulConfig) -> Enrolment:
    """The rules of enrolment, for this federation."""
    return Enrolment(load_authority(home), config.federation, config.enrolment_advertise)


def invitation_services(server: grpc.aio.Server, node: Node, enrolment: Enrolment, bridges: Bridges) -> list[str]:
    """The operator's side of enrolment and of bridges, on the local API."""
    enrolment_pb2_grpc.add_InvitationServiceServicer_to_server(InvitationServicer(node, enrolment), server)
    bridge_pb2_grpc.add_BridgeServiceServicer_to_server(BridgeServicer(bridges), server)
    return [_INVITATIONS, _BRIDGES]


class SimpulDaemon(Daemon[SimpulConfig]):
    """See ``kad_node.daemon.Daemon``."""

    _bridges: Bridges

    def anchors(self) -> list[TrustAnchor]:
        """The simpul's own authority vouches for the whole federation."""
        return [TrustAnchor(load_authority(self.home).certificate, self.own.federation)]

    def listen_address(self) -> str:
        """Where members exchange."""
        return self.config.listen

    def local_services(self, server: grpc.aio.Server) -> list[str]:
        """Invitations, and bridges to other federations."""
        self._bridges = Bridges(self.node, self.peers, load_authority(self.home).certificate)
        return invitation_services(server, self.node, enrolment_of(self.home, self.config), self._bridges)

    async def start_more(self) -> None:
        """Observe from now on, and open the enrolment port."""
        observer = Observer(self.own, self.node.fence)
        await self._check_mode()
        self.node.acting = Acts(self.node, self.config.mode)
        self.node.before_seal = observer.before_seal
        self.node.replica.quota = Quota(self.config.member_entries_per_day, self.config.member_bytes_per_day)
        # What grew while nobody observed is observed with the first commit.
        await self.node.store.write(lambda _: None)
        authority = load_authority(self.home)
        server = grpc.aio.server(
            interceptors=[ErrorInterceptor(lambda _, request, __: check_request(request))],
            options=server_options(60),
            maximum_concurrent_rpcs=64,
        )
        await self._bridges.start()
        servicer = EnrolmentServicer(self.node, self.config, enrolment_of(self.home, self.config), authority, self._bridges.believe)
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(servicer, server)
        credentials = enrolment_credentials(authority.key_pem, lambda: authority.enrolment_certificate(utc_now()))
        self.addresses["enrolment"] = bind(server, self.config.enrolment_listen, credentials)
        self._servers.append(server)
        await server.start()
        self.begin_duty("propose", self._propose())
        self.begin_duty("bridges", self._bridges.run())
        self.begin_duty("steward", Steward(self.node, self.config.census_seconds).run())

    async def _check_mode(self) -> None:
        """The configuration may ask for no more authority than the members have given.

        Raises:
            PreconditionError: ``MODE_NOT_DECIDED``.
        """
        head = (await self.node.store.read(lambda tx: governance_of(tx, self.node))).head
        decided, asked = policy(head.mode).name, self.config.mode
        if asked != decided == "networking":
            raise PreconditionError(
                Reason.MODE_NOT_DECIDED,
                "the configuration says mode = subsidiarity, but the members have not decided that; let them (kad-node propose --charter),"
                " and until then set mode = networking",
                mode=asked,
                decided=decided,
            )
        if asked != decided:
            log.warning("the members have decided for %s; this simpul is configured as %s and does less than it may", decided, asked)

    async def _propose(self) -> None:
        """Put the own feed's newest checkpoint to the witnesses, not too often: a confirmation costs each of them two signatures."""
        while True:
            changed = self.node.next_change()
            try:
                if not await self.node.witness.propose():
                    await changed.wait()
            except KadError as error:
                log.warning("no checkpoint could be put to the members: %s", error)
            await asyncio.sleep(self.config.witness_interval_seconds)

    async def renew_certificate(self) -> None:
        """From the own authority."""
        issue_own_certificate(self.home, self.own)
