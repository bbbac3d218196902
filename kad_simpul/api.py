"""gRPC servicers of the simpul: enrolment for forums, invitations and bridges for the operator. They translate and call
``kad_simpul.enrol`` and ``kad_simpul.bridge``.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kad_node.service.affairs import governance_of
from kad_node.store.transaction import micros_now
from kad_protocol import feed as feeds
from kad_protocol.entry import new_entry
from kad_protocol.errors import PermissionDeniedError, PreconditionError, Reason
from kad_protocol.feed import Draft
from kad_protocol.names import FeedId
from kad_protocol.v1 import bridge_pb2, bridge_pb2_grpc, enrolment_pb2, enrolment_pb2_grpc, entry_pb2
from kad_simpul.steward import admission

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.certificates import Authority
    from kad_simpul.bridge import Bridges
    from kad_simpul.config import SimpulConfig
    from kad_simpul.enrol import Application, Enrolment, Invitation

__all__ = ["BridgeServicer", "EnrolmentServicer", "InvitationServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """``kad.v1.EnrolmentService``."""

    def __init__(
        self, node: Node, config: SimpulConfig, enrolment: Enrolment, authority: Authority, admitted: Callable[[FeedId], None]
    ) -> None:
        self._node = node
        self._admitted = admitted
        self._config = config
        self._enrolment = enrolment
        self._authority = authority

    async def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Context) -> enrolment_pb2.EnrolResponse:
        node = self._node

        def admit(tx: SqliteTransaction) -> tuple[Application, bytes, PreconditionError | None]:
            application = self._enrolment.redeem(tx, request, _now())
            return application, tx.entries(node.own, 0, 1, 1)[0].body, self._admit(tx, application)

        application, genesis, not_yet = await node.store.write(admit)
        if not_yet is not None:
            # The application is kept; the same call will succeed when enough members have endorsed it.
            raise not_yet
        self._admitted(application.feed)
        certificate = self._authority.issue(request.certificate_request, application.feed, _now())
        return enrolment_pb2.EnrolResponse(
            certificate=_der(certificate),
            authority_certificate=_der(self._authority.certificate_pem),
            simpul_feed=node.own.origin,
            simpul_genesis=genesis,
            exchange_address=self._config.advertise,
            federation_name=self._config.federation_name,
        )

    def _admit(self, tx: SqliteTransaction, application: Application) -> PreconditionError | None:
        """Membership is an entry of the simpul's feed, for everybody to see; using up the invitation is in the same transaction.

        Returns:
            What is missing, if the members have a say in it and have not said it yet.
        """
        membership = tx.membership(application.feed)
        if membership == entry_pb2.MEMBERSHIP_STATE_ACTIVE and tx.feed(application.feed) is not None:
            return None
        if membership == entry_pb2.MEMBERSHIP_STATE_SUSPENDED:
            # An invitation, above all one that was used before, does not lift a suspension.
            raise PermissionDeniedError(Reason.MEMBER_SUSPENDED, f"{application.feed.forum} is suspended", forum=application.feed.forum)
        known = tx.feed(application.feed)
        if known is not None and known.genesis != application.genesis:
            raise PermissionDeniedError(
                Reason.GENESIS_MISMATCH,
                f"{application.feed.forum} was a member with other keys; it comes back with its old home or by recovery",
                forum=application.feed.forum,
            )
        if application.repeated and membership != entry_pb2.MEMBERSHIP_STATE_UNSPECIFIED:
            raise PermissionDeniedError(Reason.INVITATION_USED, "this invitation has been used", forum=application.feed.forum)
        found = governance_of(tx, self._node)
        member = found.member(found.name_of(application.feed))
        applied = member is not None and member.state == entry_pb2.MEMBERSHIP_STATE_APPLIED and member.genesis == application.genesis
        entry = new_entry(max(micros_now(), found.time))
        admitted = admission(found, application.feed.origin, application.genesis, application.category)
        if admitted is not None:
            self._node.fence.require()
            feeds.pin(tx, application.feed, application.genesis)
            entry.membership.CopyFrom(admitted)
            feeds.append(tx, self._node.own, [Draft(entry)])
            return None
        if not applied:
            self._node.fence.require()
            entry.membership.feed, entry.membership.genesis = application.feed.origin, application.genesis
            entry.membership.state = entry_pb2.MEMBERSHIP_STATE_APPLIED
            entry.membership.category = application.category or entry_pb2.MEMBER_CATEGORY_FULL  # type: ignore[assignment]
            feeds.append(tx, self._node.own, [Draft(entry)])
        needed = found.endorsements_needed(application.feed)
        have = len(member.endorsements) if member is not None and applied else 0
        return PreconditionError(
            Reason.ENDORSEMENTS_MISSING,
            f"{application.feed.forum} has applied; {needed} members must endorse it (kad-node endorse), {have} have. Join again then",
            forum=found.name_of(application.feed).removeprefix("forums/"),
            needed=needed,
            have=have,
        )

    async def RenewCertificate(
        self, request: enrolment_pb2.RenewCertificateRequest, context: Context
    ) -> enrolment_pb2.RenewCertificateResponse:
        feed = FeedId.parse(request.feed)

        def look(tx: SqliteTransaction) -> tuple[int, Any]:
            return tx.membership(feed), tx.feed(feed)

        membership, state = await self._node.store.read(look)
        if membership == entry_pb2.MEMBERSHIP_STATE_SUSPENDED:
            raise PermissionDeniedError(Reason.MEMBER_SUSPENDED, f"{feed.forum} is suspended", forum=feed.forum)
        if membership != entry_pb2.MEMBERSHIP_STATE_ACTIVE or state is None or not state.log_keys:
            raise PermissionDeniedError(
                Reason.NOT_A_MEMBER, f"{feed.forum} is not a member, or its feed has not arrived yet", forum=feed.forum
            )
        self._enrolment.check_renewal(request, feeds.keys_of(state), _now())
        certificate = self._authority.issue(request.certificate_request, feed, _now())
        return enrolment_pb2.RenewCertificateResponse(
            certificate=_der(certificate),
            authority_certificate=_der(self._authority.certificate_pem),
            exchange_address=self._config.advertise,
        )


class InvitationServicer(enrolment_pb2_grpc.InvitationServiceServicer):
    """``kad.v1.InvitationService``."""

    def __init__(self, node: Node, enrolment: Enrolment) -> None:
        self._node = node
        self._enrolment = enrolment

    async def CreateInvitation(
        self, request: enrolment_pb2.CreateInvitationRequest, context: Context
    ) -> enrolment_pb2.CreateInvitationResponse:
        lifetime = request.time_to_live.ToTimedelta() if request.HasField("time_to_live") else datetime.timedelta(days=7)
        code, kept = await self._node.store.write(
            lambda tx: self._enrolment.invite(tx, request.forum, request.category, lifetime, _now(), request.simpul_of)
        )
        return enrolment_pb2.CreateInvitationResponse(code=code, invitation=_view(kept))

    async def ListInvitations(
        self, request: enrolment_pb2.ListInvitationsRequest, context: Context
    ) -> enrolment_pb2.ListInvitationsResponse:
        kept = await self._node.store.read(self._enrolment.invitations)
        horizon = micros_now() - 30 * 86400 * 1_000_000
        recent = [_view(invitation) for invitation in kept if max(invitation.expires, invitation.used) > horizon]
        return enrolment_pb2.ListInvitationsResponse(invitations=recent)

    async def RevokeInvitation(
        self, request: enrolment_pb2.RevokeInvitationRequest, context: Context
    ) -> enrolment_pb2.RevokeInvitationResponse:
        kept = await self._node.store.write(lambda tx: self._enrolment.revoke(tx, request.id, _now()))
        return enrolment_pb2.RevokeInvitationResponse(invitation=_view(kept))


class BridgeServicer(bridge_pb2_grpc.BridgeServiceServicer):
    """``kad.v1.BridgeService``."""

    def __init__(self, bridges: Bridges) -> None:
        self._bridges = bridges

    async def JoinFederation(self, request: bridge_pb2.JoinFederationRequest, context: Context) -> bridge_pb2.JoinFederationResponse:
        return bridge_pb2.JoinFederationResponse(bridge=await self._bridges.join(request.invitation))

    async def ListBridges(self, request: bridge_pb2.ListBridgesRequest, context: Context) -> bridge_pb2.ListBridgesResponse:
        return bridge_pb2.ListBridgesResponse(bridges=await self._bridges.list())

    async def LeaveBridge(self, request: bridge_pb2.LeaveBridgeRequest, context: Context) -> bridge_pb2.LeaveBridgeResponse:
        return bridge_pb2.LeaveBridgeResponse(bridge=await self._bridges.leave(request.federation))


def _view(kept: Invitation) -> enrolment_pb2.Invitation:
    view = enrolment_pb2.Invitation(id=kept.id, forum=kept.forum, simpul_of=kept.simpul_of)
    for field, micros in (
        (view.create_time, kept.created),
        (view.expire_time, kept.expires),
        (view.use_time, kept.used),
        (view.revoke_time, kept.revoked),
    ):
        if micros:
            field.FromMicroseconds(micros)
    return view
