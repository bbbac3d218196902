"""gRPC servicers of the simpul: enrolment for forums, invitations and bridges for the operator. They translate and call
``kad_simpul.enrol`` and ``kad_simpul.bridge``.
"""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING, Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kad_node.service.affairs import governance_of
from kad_node.store.transaction import micros_now
from kad_protocol import feed as feeds
from kad_protocol import keychain, merkle
from kad_protocol.entry import log_keys_of, new_entry, parse_genesis
from kad_protocol.errors import PermissionDeniedError, PreconditionError, Reason, UnavailableError
from kad_protocol.feed import Draft
from kad_protocol.governance import Refused
from kad_protocol.names import FeedId, forum_name
from kad_protocol.order import admitted_role, root_of
from kad_protocol.statement import CERTIFICATE_BINDING, sign_statement
from kad_protocol.v1 import bridge_pb2, bridge_pb2_grpc, enrolment_pb2, enrolment_pb2_grpc, entry_pb2
from kad_simpul.steward import admission

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.certificates import Authority
    from kad_protocol.note import LogKeys
    from kad_protocol.v1 import governance_pb2
    from kad_simpul.bridge import Bridges
    from kad_simpul.config import SimpulConfig
    from kad_simpul.enrol import Application, Enrolment, Invitation

__all__ = ["BridgeServicer", "EnrolmentServicer", "InvitationServicer"]

#: Entries shown to who recovers, in one answer.
_MOST_ENTRIES, _ENTRIES_BYTES = 500, 1 << 20

Context = grpc.aio.ServicerContext[Any, Any]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def _keys_of_today(tx: SqliteTransaction, feed: FeedId, genesis: bytes) -> LogKeys | None:
    """The keys of a feed that is known here; of one of which nothing has arrived yet those in its genesis, if it is that one."""
    state = tx.feed(feed)
    if state is None or (not state.log_keys and state.genesis != merkle.leaf_hash(genesis)):
        return None
    return feeds.keys_of(state) if state.log_keys else log_keys_of(feed.origin, parse_genesis(genesis)[1].log_keys.SerializeToString())


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
            application = self._enrolment.redeem(tx, request, _now(), lambda feed: _keys_of_today(tx, feed, request.genesis))
            return application, tx.entries(node.own, 0, 1, 1)[0].body, self._admit(tx, application)

        application, genesis, not_yet = await node.store.write(admit)
        if not_yet is not None:
            # The application is kept; the same call will succeed when enough members have endorsed it.
            raise not_yet
        self._admitted(application.feed)
        certificate = self._authority.issue(request.certificate_request, application.feed, _now())
        return enrolment_pb2.EnrolResponse(
            consent=await self._consent() if application.feed.federation != node.own.federation else None,
            certificate=_der(certificate),
            authority_certificate=_der(self._authority.certificate_pem),
            simpul_feed=node.own.origin,
            simpul_genesis=genesis,
            exchange_address=self._config.advertise,
            federation_name=self._config.federation_name,
        )

    async def _consent(self) -> entry_pb2.Consent:
        """This simpul's word that it becomes a member of the federation whose simpul joins this one. It binds no channel key."""
        own = self._node.own
        keys = await self._node.store.read(lambda tx: keychain.keys_at(tx, own, 1 << 40))
        signer = await asyncio.to_thread(self._node.keyring.log_signer, keys)
        said = enrolment_pb2.CertificateBinding(feed=own.origin)
        said.time.GetCurrentTime()
        statement = said.SerializeToString()
        ed25519, mldsa44 = sign_statement(signer, CERTIFICATE_BINDING, statement)
        return entry_pb2.Consent(statement=statement, ed25519_signature=ed25519, mldsa44_signature=mldsa44)

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
        if known is not None and known.quarantine == Reason.EPOCH_SUPERSEDED:
            raise PermissionDeniedError(Reason.EPOCH_SUPERSEDED, f"{application.feed} was given up by its owner", feed=application.feed)
        if application.repeated and membership != entry_pb2.MEMBERSHIP_STATE_UNSPECIFIED:
            raise PermissionDeniedError(Reason.INVITATION_USED, "this invitation has been used", forum=application.feed.forum)
        found = governance_of(tx, self._node)
        member = found.member(found.name_of(application.feed))
        left = member is not None and member.state == entry_pb2.MEMBERSHIP_STATE_LEFT
        applied = member is not None and member.state == entry_pb2.MEMBERSHIP_STATE_APPLIED and member.genesis == application.genesis
        entry = new_entry(max(micros_now(), found.time))
        admitted = admission(found, application.feed.origin, application.genesis, application.category)
        if admitted is not None:
            self._node.fence.require()
            feeds.pin(tx, application.feed, application.genesis, admitted_role(self._node.own, application.feed))
            entry.membership.CopyFrom(admitted)
            if left:
                entry.membership.consent.CopyFrom(application.consent)
            feeds.append(tx, self._node.own, [Draft(entry)])
            return None
        if not applied:
            self._node.fence.require()
            entry.membership.feed, entry.membership.genesis = application.feed.origin, application.genesis
            entry.membership.state = entry_pb2.MEMBERSHIP_STATE_APPLIED
            entry.membership.category = application.category or entry_pb2.MEMBER_CATEGORY_FULL  # type: ignore[assignment]
            if left:
                entry.membership.consent.CopyFrom(application.consent)
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

        def look(tx: SqliteTransaction) -> tuple[int, Any, int | None]:
            return tx.membership(feed), tx.feed(feed), tx.begun(feed)

        membership, state, begun = await self._node.store.read(look)
        if state is not None and state.quarantine == Reason.EPOCH_SUPERSEDED:
            raise PermissionDeniedError(Reason.EPOCH_SUPERSEDED, f"{feed} was given up by its owner", feed=feed)
        if membership == entry_pb2.MEMBERSHIP_STATE_SUSPENDED:
            raise PermissionDeniedError(Reason.MEMBER_SUSPENDED, f"{feed.forum} is suspended", forum=feed.forum)
        if membership != entry_pb2.MEMBERSHIP_STATE_ACTIVE or state is None or not state.log_keys:
            raise PermissionDeniedError(
                Reason.NOT_A_MEMBER, f"{feed.forum} is not a member, or its feed has not arrived yet", forum=feed.forum
            )
        self._enrolment.check_renewal(request, feeds.keys_of(state), _now())
        certificate = self._authority.issue(request.certificate_request, feed, _after(begun))
        return enrolment_pb2.RenewCertificateResponse(
            certificate=_der(certificate),
            authority_certificate=_der(self._authority.certificate_pem),
            exchange_address=self._config.advertise,
        )

    async def PrepareRecovery(
        self, request: enrolment_pb2.PrepareRecoveryRequest, context: Context
    ) -> enrolment_pb2.PrepareRecoveryResponse:
        node = self._node

        def look(tx: SqliteTransaction) -> enrolment_pb2.PrepareRecoveryResponse:
            found = governance_of(tx, node)
            member = found.member(forum_name(request.forum))
            self._enrolment.check_inquiry(request, member.recovery_digest if member is not None else b"", _now())
            assert member is not None  # noqa: S101 - there is no digest without a member
            feed = FeedId.parse(member.feed)
            state = tx.feed(feed)
            good = request.last_good_size or member.observed_size
            root, observed_root = root_of(tx, feed, good), root_of(tx, feed, member.observed_size)
            if state is None or root is None or observed_root is None or good > member.observed_size:
                raise PreconditionError(
                    Reason.RECOVERY_INVALID, f"of {feed} {member.observed_size} entries were observed; no more can stay good", feed=feed
                )
            shown = tx.entries(feed, request.after or good, _MOST_ENTRIES, _ENTRIES_BYTES) if (request.after or good) < state.size else []
            return enrolment_pb2.PrepareRecoveryResponse(
                feed=feed.origin,
                genesis=tx.entries(feed, 0, 1, 1)[0].body,
                observed_size=member.observed_size,
                observed_root=observed_root,
                held_size=state.size,
                last_good_size=good,
                last_good_root=root,
                entries=[stored.body for stored in shown],
                simpul_feed=node.own.origin,
                simpul_genesis=tx.entries(node.own, 0, 1, 1)[0].body,
                federation=node.own.federation,
                federation_name=self._config.federation_name,
            )

        return await node.store.read(look)

    async def RecoverFeed(self, request: enrolment_pb2.RecoverFeedRequest, context: Context) -> enrolment_pb2.RecoverFeedResponse:
        node = self._node

        def stands(tx: SqliteTransaction) -> tuple[governance_pb2.FederationMember | None, int | None, bytes]:
            found = governance_of(tx, node)
            return found.member(found.name_of(feed)), tx.begun(feed), tx.entries(node.own, 0, 1, 1)[0].body

        feed = await node.store.write(lambda tx: self._begin(tx, request))
        member, begun, simpul_genesis = await node.store.read(stands)
        if member is None or member.feed != feed.origin or begun is None:
            raise UnavailableError(Reason.WAITING_FOR_FEED, "the recovery is written and could not be judged yet; ask again", feed=feed)
        if member.state != entry_pb2.MEMBERSHIP_STATE_ACTIVE:
            reason = Reason.MEMBER_LEFT if member.state == entry_pb2.MEMBERSHIP_STATE_LEFT else Reason.MEMBER_SUSPENDED
            raise PermissionDeniedError(reason, f"{feed.forum} has begun anew, but it is suspended or has left", forum=feed.forum)
        certificate = self._authority.issue(request.certificate_request, feed, _after(begun))
        return enrolment_pb2.RecoverFeedResponse(
            certificate=_der(certificate),
            authority_certificate=_der(self._authority.certificate_pem),
            simpul_feed=node.own.origin,
            simpul_genesis=simpul_genesis,
            exchange_address=self._config.advertise,
            federation_name=self._config.federation_name,
        )

    def _begin(self, tx: SqliteTransaction, request: enrolment_pb2.RecoverFeedRequest) -> FeedId:
        """Write the new epoch into the simpul's feed, by the rules that every node applies to that entry."""
        node, found = self._node, governance_of(tx, self._node)
        feed, _ = parse_genesis(request.genesis)
        member = found.member(found.name_of(feed))
        old = tx.feed(FeedId.parse(member.feed)) if member is not None and member.feed != feed.origin else None
        feed, genesis = self._enrolment.check_recovery(request, old)
        entry = new_entry(max(micros_now(), found.time))
        entry.membership.feed, entry.membership.genesis = feed.origin, genesis
        entry.membership.recovery.CopyFrom(request.recovery)
        try:
            said = found.check_recovery(feed, entry.membership, lambda of, size: root_of(tx, of, size))
        except Refused as error:
            raise PermissionDeniedError(error.reason, str(error), feed=feed) from error
        if said is None or member is None:
            return feed
        node.fence.require()
        own = tx.feed(node.own)
        if own is None or found.head.position != own.tail:
            raise UnavailableError(Reason.WAITING_FOR_FEED, "the simpul has not judged its own log to the end yet; ask again", feed=feed)
        entry.membership.state = found.state_after_recovery(member, said.last_good_size)
        entry.membership.category = member.category
        feeds.append(tx, node.own, [Draft(entry)])
        return feed


def _after(begun: int | None) -> datetime.datetime:
    """Now; and later than the second in which a feed took over, since what was issued until then is worthless."""
    earliest = datetime.datetime.fromtimestamp((begun or 0) // 1_000_000 + 1, datetime.UTC)
    return max(_now(), earliest)


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
