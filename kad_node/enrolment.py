"""Joining a federation and keeping the channel certificate: the node's side."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kad_protocol import entry, keychain, merkle
from kad_protocol.certificates import Trust, TrustAnchor, key_digest, new_channel_key, request_certificate
from kad_protocol.channel import enrolment_channel
from kad_protocol.errors import InvalidInputError, KadError, Reason, UnavailableError, VerificationError
from kad_protocol.statement import CERTIFICATE_BINDING, RECOVERY_INQUIRY, sign_statement
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import enrolment_pb2, enrolment_pb2_grpc, entry_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kad_node.node import Node
    from kad_protocol.keys import RecoveryKeys
    from kad_protocol.names import FeedId
    from kad_protocol.note import LogSigner

__all__ = ["Enrolled", "Renewed", "Standing", "enrol", "prepare_recovery", "recover", "renew", "renew_as"]

_CALL_SECONDS = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Renewed:
    """A channel certificate, all PEM."""

    key: bytes
    certificate: bytes
    authority: bytes
    exchange_address: str


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a forum gets when it joins."""

    channel: Renewed
    simpul_feed: FeedId
    #: Leaf hash of the simpul's genesis: what its feed is checked against from the first byte on.
    simpul_genesis: bytes
    federation_name: str
    #: For another simpul: its word that it becomes a member there, too.
    consent: entry_pb2.Consent


@dataclass(frozen=True, slots=True)
class Standing:
    """What the simpul says of a feed that its owner wants to begin anew."""

    feed: FeedId
    observed_size: int
    held_size: int
    last_good_size: int
    last_good_root: bytes
    entries: list[bytes]
    simpul: FeedId
    federation_name: str


def _binding(signer: LogSigner, feed: FeedId, request: bytes, authority_key_digest: bytes) -> enrolment_pb2.Statement:
    bound = enrolment_pb2.CertificateBinding(
        feed=feed.origin, key_digest=key_digest(x509.load_der_x509_csr(request)), authority_key_digest=authority_key_digest
    )
    bound.time.GetCurrentTime()
    payload = bound.SerializeToString()
    ed25519, mldsa44 = sign_statement(signer, CERTIFICATE_BINDING, payload)
    return enrolment_pb2.Statement(payload=payload, ed25519_signature=ed25519, mldsa44_signature=mldsa44)


def _checked(key: bytes, certificate_der: bytes, authority_der: bytes, address: str, feed: FeedId, digest: bytes) -> Renewed:
    """Believe an answer only if it fits what was pinned and what was asked."""
    try:
        certificate, authority = x509.load_der_x509_certificate(certificate_der), x509.load_der_x509_certificate(authority_der)
    except ValueError as error:
        raise VerificationError(Reason.IDENTITY_INVALID, "the simpul answered with something that is no certificate") from error
    if key_digest(authority) != digest:
        raise VerificationError(Reason.AUTHORITY_NOT_PINNED, "the simpul answered with another authority than the invitation's")
    pem = certificate.public_bytes(Encoding.PEM)
    found = Trust([TrustAnchor(authority, feed.federation)]).identify(pem, datetime.datetime.now(datetime.UTC))
    if (found.federation, found.forum) != (feed.federation, feed.forum) or key_digest(certificate) != key_digest(
        x509.load_der_x509_csr(request_certificate(key))
    ):
        raise VerificationError(Reason.IDENTITY_INVALID, "the simpul answered with somebody else's certificate")
    return Renewed(key, pem, authority.public_bytes(Encoding.PEM), address)


async def _call(address: str, digest: bytes, function: Callable[[enrolment_pb2_grpc.EnrolmentServiceAsyncStub], Awaitable[T]]) -> T:
    """Call the enrolment port; what was merely unavailable is tried again a few times."""

    def temporary(error: BaseException) -> bool:
        return isinstance(error, UnavailableError)

    async for attempt in AsyncRetrying(
        retry=retry_if_exception(temporary), stop=stop_after_attempt(4), wait=wait_random_exponential(0.3, max=4), reraise=True
    ):
        with attempt:
            async with await enrolment_channel(address, digest) as channel:
                try:
                    return await function(enrolment_pb2_grpc.EnrolmentServiceStub(channel))
                except grpc.aio.AioRpcError as error:
                    raise from_rpc_error(error) from error
    raise AssertionError


async def enrol(code: enrolment_pb2.InvitationCode, feed: FeedId, signer: LogSigner, genesis: bytes) -> Enrolled:
    """Redeem an invitation.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    key = new_channel_key()
    request = request_certificate(key)
    response = await _call(
        code.enrolment_address,
        code.authority_key_digest,
        lambda stub: stub.Enrol(
            enrolment_pb2.EnrolRequest(
                invitation_id=code.invitation_id,
                secret=code.secret,
                forum=feed.forum,
                genesis=genesis,
                certificate_request=request,
                binding=_binding(signer, feed, request, code.authority_key_digest),
            ),
            timeout=_CALL_SECONDS,
        ),
    )
    return _enrolled(response, key, feed, code.federation, code.authority_key_digest)


def _enrolled(
    response: enrolment_pb2.EnrolResponse | enrolment_pb2.RecoverFeedResponse, key: bytes, feed: FeedId, federation: str, digest: bytes
) -> Enrolled:
    channel = _checked(key, response.certificate, response.authority_certificate, response.exchange_address, feed, digest)
    simpul = _simpul(response.simpul_genesis, response.simpul_feed, federation)
    if (simpul.federation, simpul.forum) == (feed.federation, feed.forum):
        raise VerificationError(Reason.GENESIS_MISMATCH, "what answers as the simpul bears this member's own name")
    if not channel.exchange_address:
        raise InvalidInputError(Reason.INVALID_CONFIGURATION, "the simpul names no address at which it can be reached")
    consent = response.consent if isinstance(response, enrolment_pb2.EnrolResponse) else entry_pb2.Consent()
    return Enrolled(channel, simpul, merkle.leaf_hash(response.simpul_genesis), response.federation_name[:200], consent)


def _simpul(genesis: bytes, origin: str, federation: str) -> FeedId:
    try:
        simpul, of_simpul = entry.parse_genesis(genesis)
    except KadError as error:
        raise VerificationError(Reason.GENESIS_MISMATCH, "the simpul's genesis is not one") from error
    if simpul.origin != origin or simpul.federation != federation:
        raise VerificationError(Reason.GENESIS_MISMATCH, "the simpul's genesis is of another federation")
    if of_simpul.role != entry_pb2.MEMBER_ROLE_SIMPUL:
        raise VerificationError(Reason.GENESIS_MISMATCH, "what answers as the simpul has the genesis of a forum")
    return simpul


async def prepare_recovery(
    address: str, digest: bytes, forum: str, recovery: RecoveryKeys, last_good_size: int = 0, after: int = 0
) -> Standing:
    """Ask what there is to recover; see ``EnrolmentService.PrepareRecovery``.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    signer = recovery.signer("recovery")
    inquiry = enrolment_pb2.RecoveryInquiry(forum=forum, authority_key_digest=digest)
    inquiry.time.GetCurrentTime()
    payload = inquiry.SerializeToString()
    ed25519, mldsa44 = sign_statement(signer, RECOVERY_INQUIRY, payload)
    response = await _call(
        address,
        digest,
        lambda stub: stub.PrepareRecovery(
            enrolment_pb2.PrepareRecoveryRequest(
                forum=forum,
                recovery_keys=entry.key_set(signer.public),
                inquiry=enrolment_pb2.Statement(payload=payload, ed25519_signature=ed25519, mldsa44_signature=mldsa44),
                last_good_size=last_good_size,
                after=after,
            ),
            timeout=_CALL_SECONDS,
        ),
    )
    feed, genesis = entry.parse_genesis(response.genesis)
    if feed.origin != response.feed or (feed.forum, feed.federation) != (forum, response.federation):
        raise VerificationError(Reason.GENESIS_MISMATCH, "the simpul answered with the feed of somebody else", feed=feed)
    if genesis.recovery_digest != recovery.public_digest:
        raise VerificationError(Reason.RECOVERY_INVALID, f"this is not the recovery code of {feed}", feed=feed)
    wanted = last_good_size or response.observed_size
    if response.last_good_size != wanted or not 0 < wanted <= response.observed_size:
        # What is signed with the recovery code is for the owner to say, not for the simpul.
        raise VerificationError(Reason.RECOVERY_INVALID, f"the simpul would cut {feed} somewhere else than was asked", feed=feed)
    return Standing(
        feed=feed,
        observed_size=response.observed_size,
        held_size=response.held_size,
        last_good_size=response.last_good_size,
        last_good_root=response.last_good_root,
        entries=list(response.entries),
        simpul=_simpul(response.simpul_genesis, response.simpul_feed, feed.federation),
        federation_name=response.federation_name[:200],
    )


async def recover(address: str, digest: bytes, recovery: entry_pb2.Recovery, genesis: bytes, signer: LogSigner) -> Enrolled:
    """Begin the next epoch; see ``EnrolmentService.RecoverFeed``. May be repeated with the same recovery.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    feed, _ = entry.parse_genesis(genesis)
    key = new_channel_key()
    request = request_certificate(key)
    response = await _call(
        address,
        digest,
        lambda stub: stub.RecoverFeed(
            enrolment_pb2.RecoverFeedRequest(
                recovery=recovery, genesis=genesis, certificate_request=request, binding=_binding(signer, feed, request, digest)
            ),
            timeout=_CALL_SECONDS,
        ),
    )
    return _enrolled(response, key, feed, feed.federation, digest)


async def renew_as(node: Node, address: str, authority_pem: bytes) -> Renewed:
    """A new certificate for the member that a node is, signed with its keys of today, or with those before.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    chain = await node.store.read(lambda tx: keychain.chain_of(tx, node.own))
    sizes = [*(rotation.index + 1 for rotation in reversed(chain.rotations)), 1]
    for size in sizes:
        # The simpul may not have heard of a rotation yet, and without a certificate it never will: then the keys before it do.
        keys = keychain.keys_after(chain, size)
        try:
            signer = await asyncio.to_thread(node.keyring.log_signer, keys)
            return await renew(address, authority_pem, node.own, signer)
        except KadError as error:
            if size == sizes[-1] or error.reason not in (Reason.SIGNATURE_INVALID, Reason.KEY_ROTATION_INVALID):
                raise
    raise AssertionError


async def renew(address: str, authority_pem: bytes, feed: FeedId, signer: LogSigner) -> Renewed:
    """A new certificate, proved with the feed's keys.

    Raises:
        KadError: what the simpul said, or that it could not be reached or believed.
    """
    if not address:
        raise InvalidInputError(Reason.INVALID_CONFIGURATION, "the simpul's enrolment address is not configured")
    digest = key_digest(x509.load_pem_x509_certificate(authority_pem))
    key = new_channel_key()
    request = request_certificate(key)
    response = await _call(
        address,
        digest,
        lambda stub: stub.RenewCertificate(
            enrolment_pb2.RenewCertificateRequest(
                feed=feed.origin, certificate_request=request, binding=_binding(signer, feed, request, digest)
            ),
            timeout=_CALL_SECONDS,
        ),
    )
    return _checked(key, response.certificate, response.authority_certificate, response.exchange_address, feed, digest)
