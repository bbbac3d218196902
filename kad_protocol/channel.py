"""Channels: what both ends of a gRPC connection agree on, and how a peer is identified.

Members speak mutual TLS. A client says whom it expects (``FeedId.server_name`` must stand in the server's certificate) and trusts only
those authorities that may vouch for that member; a server learns from the certificate who is calling. The local API is plain text
on loopback or a Unix socket, with a bearer token.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from cryptography import x509

from kad_protocol.certificates import ENROLMENT_SERVER_NAME, Trust, key_digest
from kad_protocol.errors import Reason, UnauthenticatedError, UnavailableError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_protocol.names import FeedId

__all__ = [
    "ServerIdentity",
    "caller",
    "client_options",
    "enrolment_channel",
    "local_channel",
    "member_channel",
    "presented_authority",
    "server_options",
]

#: A frame is at most 2 MiB, and a call is a little more than its message.
MAX_MESSAGE_BYTES = (2 << 20) + (64 << 10)

_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def server_options(connection_age_seconds: float = 900) -> list[tuple[str, Any]]:
    """Options of every server. Connections are aged out, so that the end of a certificate and a suspension take effect."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", 100),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.max_connection_age_ms", int(connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", 10_000),
        ("grpc.absolute_max_metadata_size", 8192),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
        # Two daemons on one port would share its callers between them.
        ("grpc.so_reuseport", 0),
        *_KEEPALIVE,
    ]


def client_options(server_name: str = "") -> list[tuple[str, Any]]:
    """Options of every client."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        *_KEEPALIVE,
    ]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    return options


class ServerIdentity:
    """What a server presents and whom it lets in; may change while the server runs."""

    def __init__(self, key_pem: bytes, certificate_pem: bytes, roots_pem: bytes) -> None:
        self._current = self._configuration(key_pem, certificate_pem, roots_pem)

    @staticmethod
    def _configuration(key_pem: bytes, certificate_pem: bytes, roots_pem: bytes) -> Any:  # noqa: ANN401 - opaque in grpc
        return grpc.ssl_server_certificate_configuration([(key_pem, certificate_pem)], roots_pem)

    def change(self, key_pem: bytes, certificate_pem: bytes, roots_pem: bytes) -> None:
        """From the next handshake on."""
        self._current = self._configuration(key_pem, certificate_pem, roots_pem)

    def credentials(self) -> grpc.ServerCredentials:
        """For ``add_secure_port``; clients must present a certificate."""
        return grpc.dynamic_ssl_server_credentials(self._current, lambda: self._current, require_client_authentication=True)


def enrolment_credentials(key_pem: bytes, fetch: Callable[[], bytes]) -> grpc.ServerCredentials:
    """For the enrolment port: no client certificate, and always a fresh self-signed one with the authority's key."""
    first = grpc.ssl_server_certificate_configuration([(key_pem, fetch())])
    return grpc.dynamic_ssl_server_credentials(
        first, lambda: grpc.ssl_server_certificate_configuration([(key_pem, fetch())]), require_client_authentication=False
    )


def member_channel(address: str, trust: Trust, key_pem: bytes, certificate_pem: bytes, expect: FeedId) -> grpc.aio.Channel:
    """A channel to one member, and to nobody else who might answer at that address."""
    credentials = grpc.ssl_channel_credentials(trust.roots_for(expect), key_pem, certificate_pem)
    return grpc.aio.secure_channel(address, credentials, options=client_options(expect.server_name))


async def presented_authority(address: str, handshake_seconds: float = 10) -> tuple[bytes, bytes]:
    """What an enrolment port presents: its certificate (PEM) and SHA-256 of its public key. Looked at, not believed: what makes it good
    is that the digest is the one that was pinned, or that a person has compared it.

    Raises:
        UnavailableError: ``PEER_UNREACHABLE``.
    """
    host, _, port = address.rpartition(":")
    try:
        pem = await asyncio.to_thread(ssl.get_server_certificate, (host.strip("[]"), int(port)), timeout=handshake_seconds)
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except (OSError, ValueError) as error:
        raise UnavailableError(Reason.PEER_UNREACHABLE, f"nobody answers at {address}: {error}", address=address) from error
    return pem.encode(), key_digest(certificate)


async def enrolment_channel(address: str, authority_key_digest: bytes, handshake_seconds: float = 10) -> grpc.aio.Channel:
    """A channel to the enrolment port whose authority has the given key: pinned at the first contact.

    Args:
        address: "host:port".
        authority_key_digest: SHA-256 of the authority's public key, from the invitation.
        handshake_seconds: how long the first handshake may take.

    Raises:
        UnavailableError: ``PEER_UNREACHABLE``. VerificationError: ``AUTHORITY_NOT_PINNED``.
    """
    pem, digest = await presented_authority(address, handshake_seconds)
    if digest != authority_key_digest:
        raise VerificationError(
            Reason.AUTHORITY_NOT_PINNED, f"who answers at {address} is not the simpul that sent the invitation", address=address
        )
    credentials = grpc.ssl_channel_credentials(pem)
    return grpc.aio.secure_channel(address, credentials, options=client_options(ENROLMENT_SERVER_NAME))


def caller(context: grpc.aio.ServicerContext[Any, Any], trust: Trust) -> FeedId:
    """Who is calling; the epoch of the answer is 0.

    Raises:
        UnauthenticatedError: ``IDENTITY_MISSING``, ``IDENTITY_INVALID``.
    """
    certificates = list(context.auth_context().get("x509_pem_cert", []))
    if not certificates:
        raise UnauthenticatedError(Reason.IDENTITY_MISSING, "this call needs a member's certificate")
    return trust.identify(bytes(certificates[0]), datetime.datetime.now(datetime.UTC))


_CallDetails = namedtuple("_CallDetails", ("method", "timeout", "metadata", "credentials", "wait_for_ready"))  # noqa: PYI024 - grpc's own form


class _Bearer:
    """Adds the token to every call."""

    def __init__(self, token: str, language: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"), ("accept-language", language))

    def _with_token(self, details: Any) -> Any:  # noqa: ANN401 - grpc's own type
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._metadata)
        return _CallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ANN401
        return await continuation(self._with_token(client_call_details), request)

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ANN401
        return await continuation(self._with_token(client_call_details), request)

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:  # noqa: ANN401
        return await continuation(self._with_token(client_call_details), request_iterator)

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:  # noqa: ANN401
        return await continuation(self._with_token(client_call_details), request_iterator)


def _bearer_interceptors(token: str, language: str) -> list[Any]:
    # grpc.aio files an interceptor under the first of its kinds only, so each kind gets its own class.
    kinds = (
        grpc.aio.UnaryUnaryClientInterceptor,
        grpc.aio.UnaryStreamClientInterceptor,
        grpc.aio.StreamUnaryClientInterceptor,
        grpc.aio.StreamStreamClientInterceptor,
    )
    methods = ("intercept_unary_unary", "intercept_unary_stream", "intercept_stream_unary", "intercept_stream_stream")
    bearer = _Bearer(token, language)
    return [
        type(f"_Bearer{kind.__name__}", (kind,), {method: getattr(bearer, method)})() for kind, method in zip(kinds, methods, strict=True)
    ]


def local_channel(address: str, token: str, language: str = "en") -> grpc.aio.Channel:
    """A channel to the local API of a daemon: "127.0.0.1:port" or "unix:/path". The token is sent with every call."""
    return grpc.aio.insecure_channel(address, options=client_options(), interceptors=_bearer_interceptors(token, language))
