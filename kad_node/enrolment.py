"""Joining a federation and keeping the channel certificate: the node's side."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kad_protocol import entry, merkle
from kad_protocol.certificates import Trust, TrustAnchor, key_digest, new_channel_key, request_certificate
from kad_protocol.channel import enrolment_channel
from kad_protocol.errors import InvalidInputError, KadError, Reason, UnavailableError, VerificationError
from kad_protocol.statement import CERTIFICATE_BINDING, sign_statement
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import enrolment_pb2, enrolment_pb2_grpc, entry_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kad_protocol.names import FeedId
    from kad_protocol.note import LogSigner

__all__ = ["Enrolled", "Renewed", "enrol", "renew"]

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
    channel = _checked(
        key, response.certificate, response.authority_certificate, response.exchange_address, feed, code.authority_key_digest
    )
    try:
        simpul, genesis_of_simpul = entry.parse_genesis(response.simpul_genesis)
    except KadError as error:
        raise VerificationError(Reason.GENESIS_MISMATCH, "the simpul's genesis is not one") from error
    if simpul.origin != response.simpul_feed or simpul.federation != feed.federation:
        raise VerificationError(Reason.GENESIS_MISMATCH, "the simpul's genesis is of another federation")
    if genesis_of_simpul.role != entry_pb2.MEMBER_ROLE_SIMPUL or simpul.forum == feed.forum:
        raise VerificationError(Reason.GENESIS_MISMATCH, "what answers as the simpul has the genesis of a forum")
    if not channel.exchange_address:
        raise InvalidInputError(Reason.INVALID_CONFIGURATION, "the simpul names no address at which it can be reached")
    return Enrolled(channel, simpul, merkle.leaf_hash(response.simpul_genesis), response.federation_name[:200])


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
