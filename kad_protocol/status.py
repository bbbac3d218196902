"""KAD's errors as gRPC statuses, and back.

Every status carries ``google.rpc.ErrorInfo`` with domain "kad", the reason, and the facts; field violations become ``BadRequest``, states
that must change first ``PreconditionFailure``, and what may be tried again ``RetryInfo``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from kad_protocol import errors
from kad_protocol.errors import FieldViolation, InvalidInputError, KadError, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["DOMAIN", "ErrorInterceptor", "from_rpc_error", "to_status"]

log = logging.getLogger(__name__)

DOMAIN = "kad"

_CLASSES: dict[str, type[KadError]] = {
    cls.code: cls
    for cls in (
        errors.InvalidInputError,
        errors.NotFoundError,
        errors.AbortedError,
        errors.PreconditionError,
        errors.OutOfRangeError,
        errors.PermissionDeniedError,
        errors.UnauthenticatedError,
        errors.QuotaError,
        errors.UnavailableError,
    )
}


def to_status(error: KadError) -> status_pb2.Status:
    """The status of an error, with its details."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=_short(error.metadata))]
    message = _cut(error.message, 1000)
    if isinstance(error, InvalidInputError) and error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=_cut(v.field, 100), description=_cut(v.description, 150))
                    for v in error.violations[:10]
                ]
            )
        )
    if error.code == "FAILED_PRECONDITION":
        violation = error_details_pb2.PreconditionFailure.Violation(type=error.reason.value, description=_cut(error.message, 300))
        details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
    if error.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(_retry_after(error.metadata.get("retry_after_seconds", "")))
        details.append(retry)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _short(metadata: dict[str, str]) -> dict[str, str]:
    """Trailers have little room (8 KiB for all, where the message stands twice), so no fact may be long."""
    return {key: _cut(value, 120) for key, value in list(metadata.items())[:8]}


def _cut(text: str, size: int) -> str:
    """At most so many bytes of UTF-8, and whole characters."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def _retry_after(seconds: str) -> int:
    """Whole seconds from 1 to a day; 5 where nothing sensible is given."""
    return min(max(int(seconds), 1), 86_400) if seconds.isdecimal() and len(seconds) < 10 else 5  # noqa: PLR2004 - nine digits


def from_rpc_error(error: grpc.aio.AioRpcError) -> KadError:
    """The error that the other side meant; a status without our details becomes what its code says."""
    code: str = error.code().name
    message = error.details() or code
    cls = _CLASSES.get(code)
    info, violations = _details(error)
    metadata = dict(info.metadata)
    if info.domain == DOMAIN and info.reason in Reason.__members__:
        reason = Reason(info.reason)
        if cls is InvalidInputError:
            return InvalidInputError(reason, message, violations, **metadata)
        return (cls or KadError)(reason, message, **metadata)
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"):
        return errors.UnavailableError(Reason.PEER_UNREACHABLE, message)
    if code == "UNAUTHENTICATED":
        return errors.UnauthenticatedError(Reason.IDENTITY_MISSING, message)
    if code == "RESOURCE_EXHAUSTED":
        return errors.QuotaError(Reason.FRAME_TOO_LARGE, message)
    return (cls or KadError)(Reason.FRAME_MALFORMED if cls else Reason.STORE_UNAVAILABLE, message)


def _details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, list[FieldViolation]]:
    """What the trailers add to a status; nothing where they are malformed or belong to another status than arrived."""
    info, violations = error_details_pb2.ErrorInfo(), list[FieldViolation]()
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for detail in status.details if status is not None else ():
            bad = error_details_pb2.BadRequest()
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
            elif detail.Unpack(bad):
                violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
    except (ValueError, DecodeError):
        return error_details_pb2.ErrorInfo(), []
    return info, violations


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: KadError) -> None:
    """End a call with the status of an error; does not return."""
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, tuple(status.trailing_metadata or ()))


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what handlers raise into statuses: KAD's errors into theirs, anything else into ``INTERNAL`` with an incident number
    that also stands in the log with the traceback. The traceback itself never leaves the process.

    Args:
        before: runs before each handler with the method, the request (None where requests stream) and the context; raises to refuse.
    """

    def __init__(self, before: Callable[[str, Any, grpc.aio.ServicerContext[Any, Any]], None] = lambda *_: None) -> None:
        self._before = before

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - a handler, or None for a method that nobody serves
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            wrap = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
            return wrap(
                _stream(inner, method, self._before, streaming=handler.request_streaming),
                handler.request_deserializer,
                handler.response_serializer,
            )
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        wrap = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        return wrap(
            _unary(inner, method, self._before, streaming=handler.request_streaming),
            handler.request_deserializer,
            handler.response_serializer,
        )


def _unary(inner: Any, method: str, before: Any, *, streaming: bool) -> Any:  # noqa: ANN401 - any handler
    async def handler(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
        try:
            before(method, None if streaming else request, context)
            return await inner(request, context)
        except Exception as error:  # noqa: BLE001 - the last line of defence
            await _fail(context, error, method)

    return handler


def _stream(inner: Any, method: str, before: Any, *, streaming: bool) -> Any:  # noqa: ANN401 - any handler
    async def handler(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
        try:
            before(method, None if streaming else request, context)
            # A streaming handler either yields its answers or writes them itself.
            result = inner(request, context)
            if hasattr(result, "__aiter__"):
                async for response in result:
                    await context.write(response)
            else:
                await result
        except Exception as error:  # noqa: BLE001 - the last line of defence
            await _fail(context, error, method)

    return handler


async def _fail(context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str) -> None:
    if isinstance(error, (grpc.aio.AbortError, grpc.aio.UsageError, asyncio.InvalidStateError)):
        # The call has ended already.
        raise error
    if isinstance(error, KadError):
        log.info("call refused", extra={"method": method, "reason": error.reason.value, "why": error.message[:300]})
        await abort(context, error)
        return
    incident = secrets.token_hex(4)
    log.error("call failed, incident %s", incident, exc_info=error, extra={"method": method})
    await context.abort(grpc.StatusCode.INTERNAL, f"something went wrong here; incident {incident}")
