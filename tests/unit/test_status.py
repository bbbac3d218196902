"""Errors as gRPC statuses and back, and what of an accident leaves the process."""

from __future__ import annotations

import asyncio
import logging
from typing import Self

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from kad_protocol import errors
from kad_protocol.errors import FieldViolation, InvalidInputError, KadError, NotFoundError, Reason, UnavailableError
from kad_protocol.status import DOMAIN, ErrorInterceptor, from_rpc_error, to_status

CLASSES = [
    errors.InvalidInputError,
    errors.NotFoundError,
    errors.AbortedError,
    errors.PreconditionError,
    errors.OutOfRangeError,
    errors.PermissionDeniedError,
    errors.UnauthenticatedError,
    errors.QuotaError,
    errors.UnavailableError,
]
ARITIES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def detail(error: KadError, kind: type) -> object | None:
    """The detail of a kind in an error's status, None if there is none."""
    found = kind()
    return next((found for packed in to_status(error).details if packed.Unpack(found)), None)


def over_the_wire(error: KadError) -> grpc.aio.AioRpcError:
    """What a client's stub raises when a server aborts with an error."""
    return answered(rpc_status.to_status(to_status(error)))


def answered(status: grpc.Status) -> grpc.aio.AioRpcError:
    return foreign(status.code, status.details, *status.trailing_metadata)


def foreign(code: grpc.StatusCode, details: str | None, *trailers: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_comes_back_as_it_went(cls) -> None:
    error = from_rpc_error(over_the_wire(cls(Reason.FORKED, "dua akar – satu ukuran", feed="kartamantul", index=7)))
    assert type(error) is cls
    assert error.reason is Reason.FORKED
    assert error.message == "dua akar – satu ukuran"
    assert error.metadata == {"feed": "kartamantul", "index": "7"}


@pytest.mark.parametrize("cls, comes_back", [(errors.VerificationError, errors.PreconditionError), (errors.StorageError, UnavailableError)])
def test_errors_that_share_a_code_keep_their_reason(cls, comes_back) -> None:
    error = from_rpc_error(over_the_wire(cls(Reason.STORE_FULL, "penuh")))
    assert type(error) is comes_back
    assert error.reason is Reason.STORE_FULL


def test_every_class_has_a_code_of_grpc() -> None:
    for cls in (*CLASSES, errors.VerificationError, errors.StorageError):
        assert to_status(cls(Reason.FORKED, "")).code == grpc.StatusCode[cls.code].value[0]


def test_the_reason_stands_in_error_info() -> None:
    info = detail(NotFoundError(Reason.RECORD_NOT_FOUND, "tidak ada", record="x"), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, dict(info.metadata)) == ("RECORD_NOT_FOUND", "kad", {"record": "x"})


def test_field_violations_survive() -> None:
    violations = [FieldViolation("regulation.numbers[2]", "is empty"), FieldViolation("title", "is too long")]
    error = from_rpc_error(over_the_wire(InvalidInputError(Reason.INVALID_FIELD, "salah", violations)))
    assert isinstance(error, InvalidInputError)
    assert [(v.field, v.description) for v in error.violations] == [("regulation.numbers[2]", "is empty"), ("title", "is too long")]


def test_what_must_change_first_is_said() -> None:
    for cls in (errors.PreconditionError, errors.VerificationError):
        failure = detail(cls(Reason.APPEND_FENCED, "belum"), error_details_pb2.PreconditionFailure)
        assert [(v.type, v.description) for v in failure.violations] == [("APPEND_FENCED", "belum")]
    assert detail(NotFoundError(Reason.RECORD_NOT_FOUND, ""), error_details_pb2.PreconditionFailure) is None


def test_what_may_be_tried_again_says_when() -> None:
    for cls in (UnavailableError, errors.QuotaError):
        retry = detail(cls(Reason.QUOTA_EXCEEDED, "", retry_after_seconds=90), error_details_pb2.RetryInfo)
        assert retry.retry_delay.seconds == 90
    assert detail(NotFoundError(Reason.RECORD_NOT_FOUND, "", retry_after_seconds=90), error_details_pb2.RetryInfo) is None


@pytest.mark.parametrize(
    "code, cls, reason",
    [
        (grpc.StatusCode.UNAVAILABLE, UnavailableError, Reason.PEER_UNREACHABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UnavailableError, Reason.PEER_UNREACHABLE),
        (grpc.StatusCode.UNAUTHENTICATED, errors.UnauthenticatedError, Reason.IDENTITY_MISSING),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.QuotaError, Reason.FRAME_TOO_LARGE),
    ],
)
def test_a_foreign_status_becomes_what_its_code_says_and_keeps_its_text(code, cls, reason) -> None:
    error = from_rpc_error(foreign(code, "socket closed"))
    assert (type(error), error.reason, error.message) == (cls, reason, "socket closed")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_becomes_an_error_of_ours(code) -> None:
    assert from_rpc_error(foreign(code, None)).message == code.name
    assert from_rpc_error(foreign(code, "teks")).message == "teks"


@pytest.mark.parametrize("domain, reason", [("example.org", "RECORD_NOT_FOUND"), (DOMAIN, "FROM_A_NEWER_VERSION"), (DOMAIN, "")])
def test_a_reason_of_another_domain_or_a_newer_version_is_not_taken_for_ours(domain, reason) -> None:
    status = to_status(NotFoundError(Reason.RECORD_NOT_FOUND, "tidak ada"))
    status.details[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    error = from_rpc_error(answered(rpc_status.to_status(status)))
    assert (type(error), error.message) == (NotFoundError, "tidak ada")
    assert error.reason is not Reason.RECORD_NOT_FOUND


def test_trailers_that_do_not_fit_or_are_broken_leave_what_the_code_says() -> None:
    other = to_status(NotFoundError(Reason.RECORD_NOT_FOUND, "tidak ada")).SerializeToString()
    for trailer in (other, b"\xff\xff\xff"):
        error = from_rpc_error(foreign(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much", ("grpc-status-details-bin", trailer)))
        assert (type(error), error.reason, error.message) == (errors.QuotaError, Reason.FRAME_TOO_LARGE, "too much")


@pytest.mark.parametrize("given", ["", "soon", "nan", "-1", "1e400", "9" * 40])
def test_a_senseless_delay_does_not_break_an_error(given) -> None:
    retry = detail(UnavailableError(Reason.PEER_UNREACHABLE, "", retry_after_seconds=given), error_details_pb2.RetryInfo)
    assert retry.retry_delay.seconds == 5


# The interceptor, in a real server.


class Server:
    """A server whose four methods behave as told, and a client for them."""

    def __init__(self, behaviour, before=None) -> None:
        async def unary(request, context):
            await behaviour(context)
            return b"ok"

        async def stream(request, context):
            yield b"first"
            await behaviour(context)

        handlers = {arity: getattr(grpc, f"{arity}_rpc_method_handler")(stream if arity.endswith("stream") else unary) for arity in ARITIES}
        self.interceptor = ErrorInterceptor(before) if before else ErrorInterceptor()
        self._server = grpc.aio.server(interceptors=[self.interceptor])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kad.test", handlers),))

    async def __aenter__(self) -> Self:
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._server.stop(None)

    async def call(self, arity: str) -> list[bytes]:
        method = getattr(self._channel, arity)(f"/kad.test/{arity}")
        call = method(iter([b"x"]) if arity.startswith("stream") else b"x", timeout=10)
        return [answer async for answer in call] if arity.endswith("stream") else [await call]

    async def fails(self, arity: str) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(arity)
        return caught.value


@pytest.mark.parametrize("arity", ARITIES)
async def test_what_goes_well_goes_through(arity) -> None:
    async def behaviour(context) -> None: ...

    async with Server(behaviour) as server:
        assert await server.call(arity) == ([b"first"] if arity.endswith("stream") else [b"ok"])


@pytest.mark.parametrize("arity", ARITIES)
async def test_what_a_handler_raises_reaches_the_caller(arity) -> None:
    async def behaviour(context) -> None:
        raise NotFoundError(Reason.RECORD_NOT_FOUND, "catatan tidak ada", record="x")

    async with Server(behaviour) as server:
        error = from_rpc_error(await server.fails(arity))
    assert (type(error), error.reason, error.message) == (NotFoundError, Reason.RECORD_NOT_FOUND, "catatan tidak ada")
    assert error.metadata == {"record": "x"}


@pytest.mark.parametrize("arity", ARITIES)
async def test_an_accident_shows_a_number_and_is_logged_under_it(arity, caplog) -> None:
    async def behaviour(context) -> None:
        raise ZeroDivisionError("/etc/secret in the message")

    with caplog.at_level(logging.ERROR, "kad_protocol.status"):
        async with Server(behaviour) as server:
            error = await server.fails(arity)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "Zero" not in error.details()
    (record,) = [record for record in caplog.records if record.name == "kad_protocol.status"]
    assert record.exc_info[0] is ZeroDivisionError
    incident = error.details().split()[-1]
    assert len(incident) >= 8
    assert incident in record.getMessage()


async def test_the_largest_error_fits_into_the_trailers() -> None:
    violations = [FieldViolation("é" * 300, "é" * 300) for _ in range(100)]
    facts = {f"fact{number}": "é" * 300 for number in range(20)}

    async def behaviour(context) -> None:
        raise InvalidInputError(Reason.INVALID_FIELD, "é" * 3000, violations, **facts)

    async with Server(behaviour) as server:
        # Above the soft limit a refusal is a matter of chance.
        for _ in range(20):
            error = from_rpc_error(await server.fails("unary_unary"))
            assert isinstance(error, InvalidInputError)
            assert len(error.violations) == 10


async def test_incidents_have_different_numbers() -> None:
    async def behaviour(context) -> None:
        raise ZeroDivisionError

    async with Server(behaviour) as server:
        seen = {(await server.fails("unary_unary")).details() for _ in range(3)}
    assert len(seen) == 3


@pytest.mark.parametrize("arity", ARITIES)
async def test_a_handler_that_ended_its_call_itself_is_left_alone(arity, caplog) -> None:
    async def behaviour(context) -> None:
        await context.abort(grpc.StatusCode.DATA_LOSS, "said by the handler")

    with caplog.at_level(logging.ERROR, "kad_protocol.status"):
        async with Server(behaviour) as server:
            error = await server.fails(arity)
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "said by the handler")
    assert not [record for record in caplog.records if record.name == "kad_protocol.status"]


@pytest.mark.parametrize("arity", ["unary_unary", "stream_stream"])
async def test_a_cancelled_call_is_no_accident(arity, caplog) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def behaviour(context) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with caplog.at_level(logging.INFO, "kad_protocol.status"):
        async with Server(behaviour) as server:
            method = getattr(server._channel, arity)(f"/kad.test/{arity}")
            # Cancelling the task that reads a stream, and not the call itself, is now and then lost in grpc.aio.
            call = method(iter([b"x"]) if arity.startswith("stream") else b"x")
            await asyncio.wait_for(entered.wait(), 10)
            call.cancel()
            await asyncio.wait_for(cancelled.wait(), 10)
    assert not [record for record in caplog.records if record.name == "kad_protocol.status"]


@pytest.mark.parametrize("arity", ARITIES)
async def test_the_guard_sees_the_request_and_can_refuse_before_the_handler_runs(arity) -> None:
    seen = []

    async def behaviour(context) -> None:
        seen.append("handler")

    def guard(method, request, context) -> None:
        seen.append((method, request))
        raise errors.PermissionDeniedError(Reason.ROLE_INSUFFICIENT, "tidak boleh")

    async with Server(behaviour, guard) as server:
        error = from_rpc_error(await server.fails(arity))
    assert error.reason is Reason.ROLE_INSUFFICIENT
    assert seen == [(f"/kad.test/{arity}", None if arity.startswith("stream") else b"x")]


async def test_a_method_that_does_not_exist_is_said_so() -> None:
    async def behaviour(context) -> None: ...

    async with Server(behaviour) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server._channel.unary_unary("/kad.test/Nothing")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
