"""Channels between real gRPC servers and clients: who gets through, to whom, and what is seen of the other side."""

from __future__ import annotations

import asyncio
import datetime
import socket
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from kad_protocol.certificates import Authority, Trust, TrustAnchor, new_channel_key, request_certificate
from kad_protocol.channel import (
    MAX_MESSAGE_BYTES,
    ServerIdentity,
    caller,
    enrolment_channel,
    enrolment_credentials,
    local_channel,
    member_channel,
    server_options,
)
from kad_protocol.errors import Reason, UnauthenticatedError, UnavailableError, VerificationError
from kad_protocol.names import FeedId
from kad_protocol.status import ErrorInterceptor, from_rpc_error
from tests.unit.test_certificates import forge

WEEK = datetime.timedelta(days=7)
FEDERATION = "simpul-kabkota.kad.internal"
SIMPUL, FORUM, OTHER = (FeedId(FEDERATION, forum) for forum in ("simpul", "kartamantul", "barlingmascakeb"))
WHO = "/kad.test/Who"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def member(authority: Authority, feed: FeedId, at: datetime.datetime | None = None) -> tuple[bytes, bytes]:
    """Key and certificate of a member, PEM."""
    key = new_channel_key()
    return key, authority.issue(request_certificate(key), feed, at or now())


AUTHORITY = Authority.create(SIMPUL, now() - 4 * WEEK)
STRANGER = Authority.create(SIMPUL, now())
TRUST = Trust([TrustAnchor(AUTHORITY.certificate, FEDERATION)])
SERVER = member(AUTHORITY, SIMPUL)
CLIENT = member(AUTHORITY, FORUM)


@asynccontextmanager
async def serving(credentials: grpc.ServerCredentials | None, trust: Trust = TRUST, handler=None, options=None):
    """A server that answers with the name of its caller; gives its address."""

    async def who(request: bytes, context) -> bytes:
        return caller(context, trust).forum.encode()

    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=server_options() if options is None else options)
    handlers = handler or {"Who": grpc.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kad.test", handlers),))
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def ask(channel: grpc.aio.Channel) -> str:
    async with channel:
        return (await channel.unary_unary(WHO)(b"", timeout=10)).decode()


def identity(authority: Authority = AUTHORITY, feed: FeedId = SIMPUL, trust: Trust = TRUST) -> ServerIdentity:
    return ServerIdentity(*member(authority, feed), trust.roots_pem)


async def fails(channel: grpc.aio.Channel) -> Exception:
    """The error of a call that must not succeed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(channel)
    return from_rpc_error(caught.value)


async def handshake_refused(channel: grpc.aio.Channel) -> None:
    error = await fails(channel)
    assert (type(error), error.reason) == (UnavailableError, Reason.PEER_UNREACHABLE)


async def test_a_server_knows_who_calls() -> None:
    async with serving(identity().credentials()) as address:
        for feed in (FORUM, OTHER):
            assert await ask(member_channel(address, TRUST, *member(AUTHORITY, feed), SIMPUL)) == feed.forum


EXPIRED = now() - WEEK - datetime.timedelta(hours=2)
NOT_YET = now() + datetime.timedelta(hours=3)


@pytest.mark.parametrize(
    "certificate",
    [lambda: member(STRANGER, FORUM), lambda: member(AUTHORITY, FORUM, EXPIRED), lambda: member(AUTHORITY, FORUM, NOT_YET)],
    ids=["other authority", "expired", "not yet"],
)
async def test_tls_refuses_a_client(certificate) -> None:
    async with serving(identity().credentials()) as address:
        assert await ask(member_channel(address, TRUST, *CLIENT, SIMPUL)) == "kartamantul"
        await handshake_refused(member_channel(address, TRUST, *certificate(), SIMPUL))


async def test_a_client_without_a_certificate_does_not_get_in() -> None:
    async with serving(identity().credentials()) as address:
        credentials = grpc.ssl_channel_credentials(TRUST.roots_pem)
        options = [("grpc.ssl_target_name_override", SIMPUL.server_name)]
        await handshake_refused(grpc.aio.secure_channel(address, credentials, options=options))


@pytest.mark.parametrize(
    "flaw", [{"ca": True}, {"uris": [FORUM.member_uri, OTHER.member_uri]}, {"uris": []}], ids=["authority", "two", "none"]
)
async def test_what_tls_lets_through_we_refuse(flaw) -> None:
    async with serving(identity().credentials()) as address:
        assert await ask(member_channel(address, TRUST, *forge(AUTHORITY, now=now()), SIMPUL)) == "kartamantul"
        error = await fails(member_channel(address, TRUST, *forge(AUTHORITY, now=now(), **flaw), SIMPUL))
    assert (type(error), error.reason) == (UnauthenticatedError, Reason.IDENTITY_INVALID)


async def test_the_authority_of_one_forum_lets_only_that_forum_in() -> None:
    own = Authority.create(FORUM, now())
    trust = Trust([TrustAnchor(AUTHORITY.certificate, FEDERATION, "simpul"), TrustAnchor(own.certificate, FEDERATION, "kartamantul")])
    async with serving(identity(trust=trust).credentials(), trust) as address:
        assert await ask(member_channel(address, TRUST, *member(own, FORUM), SIMPUL)) == "kartamantul"
        error = await fails(member_channel(address, TRUST, *member(own, OTHER), SIMPUL))
    assert (type(error), error.reason) == (UnauthenticatedError, Reason.IDENTITY_INVALID)


async def test_an_insecure_caller_has_no_name() -> None:
    async with serving(None) as address:
        error = await fails(local_channel(address, "token"))
    assert (type(error), error.reason) == (UnauthenticatedError, Reason.IDENTITY_MISSING)


async def test_a_client_reaches_whom_it_expects_and_nobody_else() -> None:
    async with serving(identity(feed=OTHER).credentials()) as address:
        assert await ask(member_channel(address, TRUST, *CLIENT, OTHER)) == "kartamantul"
        await handshake_refused(member_channel(address, TRUST, *CLIENT, SIMPUL))


async def test_a_client_believes_a_server_only_if_its_own_authority_vouches_for_it() -> None:
    own = Authority.create(FORUM, now())
    per_forum = Trust([TrustAnchor(own.certificate, FEDERATION, "kartamantul")])
    # The authority of kartamantul signs a certificate in the name of the simpul.
    async with serving(identity(own, SIMPUL).credentials()) as address:
        assert await ask(member_channel(address, Trust([TrustAnchor(own.certificate, FEDERATION)]), *CLIENT, SIMPUL)) == "kartamantul"
        await handshake_refused(member_channel(address, per_forum, *CLIENT, SIMPUL))
        await handshake_refused(member_channel(address, Trust([]), *CLIENT, SIMPUL))
        await handshake_refused(member_channel(address, TRUST, *CLIENT, SIMPUL))


async def test_a_server_changes_its_certificate_and_whom_it_lets_in_while_it_runs() -> None:
    current = identity(STRANGER)
    async with serving(current.credentials()) as address:
        await handshake_refused(member_channel(address, TRUST, *CLIENT, SIMPUL))
        current.change(*SERVER, TRUST.roots_pem)
        assert await ask(member_channel(address, TRUST, *CLIENT, SIMPUL)) == "kartamantul"
        current.change(*SERVER, STRANGER.certificate_pem)
        await handshake_refused(member_channel(address, TRUST, *CLIENT, SIMPUL))


async def test_an_open_connection_lives_through_a_change_but_not_longer_than_its_age() -> None:
    current = identity()
    async with (
        serving(current.credentials(), options=server_options(2)) as address,
        member_channel(address, TRUST, *CLIENT, SIMPUL) as channel,
    ):
        who = channel.unary_unary(WHO)
        assert await who(b"", timeout=10) == b"kartamantul"
        # From now on nobody is let in: only an old connection still answers.
        current.change(*SERVER, STRANGER.certificate_pem)
        assert await who(b"", timeout=10) == b"kartamantul"
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012 - the last of many calls fails
            async with asyncio.timeout(30):
                while True:
                    await who(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_frame_of_two_mebibytes_passes_and_a_larger_message_does_not() -> None:
    async def echo(request: bytes, context) -> bytes:
        return request

    async with serving(identity().credentials(), handler={"Who": grpc.unary_unary_rpc_method_handler(echo)}) as address:
        async with member_channel(address, TRUST, *CLIENT, SIMPUL) as channel:
            assert len(await channel.unary_unary(WHO)(bytes(2 << 20), timeout=20)) == 2 << 20
        unlimited = [("grpc.ssl_target_name_override", SIMPUL.server_name), ("grpc.max_send_message_length", -1)]
        credentials = grpc.ssl_channel_credentials(TRUST.roots_pem, *CLIENT)
        async with grpc.aio.secure_channel(address, credentials, options=unlimited) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(WHO)(bytes(MAX_MESSAGE_BYTES + 1), timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_large_header_is_refused() -> None:
    async with serving(identity().credentials()) as address, member_channel(address, TRUST, *CLIENT, SIMPUL) as channel:
        who = channel.unary_unary(WHO)
        assert await who(b"", timeout=10, metadata=(("bloat", "x" * 1000),)) == b"kartamantul"
        with pytest.raises(grpc.aio.AioRpcError):
            await who(b"", timeout=10, metadata=(("bloat", "x" * 20_000),))


async def test_a_silent_connection_is_closed_by_the_server() -> None:
    # The client says nothing; five seconds is what a handshake may last.
    async with serving(identity().credentials()) as address:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        async with asyncio.timeout(30):
            try:
                while await reader.read(4096):
                    pass
            except ConnectionError:
                pass
        writer.close()


# Enrolment: the first contact.


@asynccontextmanager
async def enrolling(authority: Authority = AUTHORITY):
    async def hello(request: bytes, context) -> bytes:
        return b"welcome"

    credentials = enrolment_credentials(authority.key_pem, lambda: authority.enrolment_certificate(now()))
    async with serving(credentials, handler={"Who": grpc.unary_unary_rpc_method_handler(hello)}) as address:
        yield address


async def test_the_first_contact_is_pinned_and_needs_no_certificate() -> None:
    async with enrolling() as address:
        assert await ask(await enrolment_channel(address, AUTHORITY.key_digest)) == "welcome"
        assert await ask(await enrolment_channel(address.replace("127.0.0.1", "localhost"), AUTHORITY.key_digest)) == "welcome"


async def test_another_key_than_the_invitations_is_not_spoken_to() -> None:
    async with enrolling(STRANGER) as address:
        with pytest.raises(VerificationError) as caught:
            await enrolment_channel(address, AUTHORITY.key_digest)
    assert caught.value.reason == Reason.AUTHORITY_NOT_PINNED
    assert caught.value.metadata["address"] == address


async def test_the_key_is_checked_again_by_the_connection_that_is_used() -> None:
    # Between the look and the call somebody else takes over the address.
    presenting = [AUTHORITY]

    async def hello(request: bytes, context) -> bytes:
        return b"welcome"

    one, other = ((authority.key_pem, authority.enrolment_certificate(now())) for authority in (AUTHORITY, STRANGER))
    credentials = grpc.dynamic_ssl_server_credentials(
        grpc.ssl_server_certificate_configuration([one]),
        lambda: grpc.ssl_server_certificate_configuration([one if presenting[0] is AUTHORITY else other]),
    )
    async with serving(credentials, handler={"Who": grpc.unary_unary_rpc_method_handler(hello)}) as address:
        assert await ask(await enrolment_channel(address, AUTHORITY.key_digest)) == "welcome"
        channel = await enrolment_channel(address, AUTHORITY.key_digest)
        presenting[0] = STRANGER
        await handshake_refused(channel)


async def unreachable(address: str, seconds: float = 5) -> None:
    with pytest.raises(UnavailableError) as caught:
        await enrolment_channel(address, AUTHORITY.key_digest, seconds)
    assert caught.value.reason == Reason.PEER_UNREACHABLE
    assert address in caught.value.message


async def test_where_nobody_listens_the_address_is_named() -> None:
    with socket.socket() as taken:
        # Bound, so that nobody else gets it, but not listening.
        taken.bind(("127.0.0.1", 0))
        await unreachable(f"127.0.0.1:{taken.getsockname()[1]}")


async def test_who_accepts_and_stays_silent_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(20):
            await unreachable(f"127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)


@pytest.mark.parametrize("address", ["simpul", "simpul:pintu", "127.0.0.1:-1"])
async def test_what_is_no_address_is_unreachable(address) -> None:
    await unreachable(address)


# The local API.


@pytest.mark.parametrize("arity", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
@pytest.mark.parametrize("place", ["127.0.0.1:0", "unix"])
async def test_every_local_call_carries_the_token_and_the_language(arity, place, tmp_path) -> None:
    seen = []

    async def unary(request, context) -> bytes:
        seen.append(dict(context.invocation_metadata()))
        return b"ok"

    async def stream(request, context):
        seen.append(dict(context.invocation_metadata()))
        yield b"ok"

    handler = getattr(grpc, f"{arity}_rpc_method_handler")(stream if arity.endswith("stream") else unary)
    server = grpc.aio.server(options=server_options())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kad.test", {"Who": handler}),))
    address = f"unix:{tmp_path}/api" if place == "unix" else place
    port = server.add_insecure_port(address)
    await server.start()
    async with local_channel(address.replace(":0", f":{port}"), "rahasia", "id") as channel:
        call = getattr(channel, arity)(WHO)(iter([b"x"]) if arity.startswith("stream") else b"x", timeout=10, metadata=(("own", "kept"),))
        assert ([answer async for answer in call] if arity.endswith("stream") else [await call]) == [b"ok"]
    await server.stop(None)
    (metadata,) = seen
    assert metadata["authorization"] == "Bearer rahasia"
    assert metadata["accept-language"] == "id"
    assert metadata["own"] == "kept"
