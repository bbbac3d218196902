"""Typed clients for programs.

For example::

    import asyncio
    from kad_protocol import connect

    async def main() -> None:
        async with connect("127.0.0.1:7450", token="...") as kad:
            async for record in kad.all_records('kind = REGULATION AND region = "34.71"'):
                print(record.name, record.content.title)

    asyncio.run(main())

``connect`` speaks to the local API of a ``kad-node`` or ``kad-simpul`` on this machine. Every method of the contract is there on the
stubs (``kad.records.CreateRecord(...)``); the few helpers here page, and resume a watch after a break. Errors are ``KadError`` where they
come from a helper; stubs raise ``grpc.aio.AioRpcError``, which ``kad_protocol.status.from_rpc_error`` translates.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from kad_protocol.channel import local_channel
from kad_protocol.errors import UnavailableError
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import (
    bridge_pb2_grpc,
    directory_pb2_grpc,
    enrolment_pb2_grpc,
    governance_pb2_grpc,
    node_pb2_grpc,
    records_pb2,
    records_pb2_grpc,
    replication_pb2_grpc,
    transparency_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["Client", "connect"]

Response = TypeVar("Response")


class Client:
    """The services of one daemon, over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.records: records_pb2_grpc.RecordsServiceAsyncStub = records_pb2_grpc.RecordsServiceStub(channel)
        self.directory: directory_pb2_grpc.DirectoryServiceAsyncStub = directory_pb2_grpc.DirectoryServiceStub(channel)
        self.transparency: transparency_pb2_grpc.TransparencyServiceAsyncStub = transparency_pb2_grpc.TransparencyServiceStub(channel)
        self.replication: replication_pb2_grpc.ReplicationServiceAsyncStub = replication_pb2_grpc.ReplicationServiceStub(channel)
        self.node: node_pb2_grpc.NodeServiceAsyncStub = node_pb2_grpc.NodeServiceStub(channel)
        self.keys: node_pb2_grpc.KeysServiceAsyncStub = node_pb2_grpc.KeysServiceStub(channel)
        self.membership: governance_pb2_grpc.MembershipServiceAsyncStub = governance_pb2_grpc.MembershipServiceStub(channel)
        self.mandates: governance_pb2_grpc.MandatesServiceAsyncStub = governance_pb2_grpc.MandatesServiceStub(channel)
        self.decisions: governance_pb2_grpc.DecisionsServiceAsyncStub = governance_pb2_grpc.DecisionsServiceStub(channel)
        self.bridges: bridge_pb2_grpc.BridgeServiceAsyncStub = bridge_pb2_grpc.BridgeServiceStub(channel)
        self.invitations: enrolment_pb2_grpc.InvitationServiceAsyncStub = enrolment_pb2_grpc.InvitationServiceStub(channel)

    async def all_records(self, filter: str = "", *, parent: str = "", order_by: str = "") -> AsyncIterator[records_pb2.Record]:  # noqa: A002 - the contract's word
        """All records that match, page by page.

        Raises:
            KadError: as ``RecordsService.ListRecords``.
        """
        request = records_pb2.ListRecordsRequest(parent=parent, filter=filter, order_by=order_by, page_size=200)
        while True:
            try:
                response = await self.records.ListRecords(request)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error
            for record in response.records:
                yield record
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    @staticmethod
    async def pages(call: Callable[..., Awaitable[Response]], request: Any, *, timeout: float | None = None) -> AsyncIterator[Response]:  # noqa: ANN401, ASYNC109 - any request that has a page token; gRPC's word
        """The answers to a request for a list, page by page, to the end.

        Raises:
            KadError: as the call.
        """
        request = type(request).FromString(request.SerializeToString())
        while True:
            try:
                response = await call(request, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error
            yield response
            request.page_token = response.next_page_token  # type: ignore[attr-defined]
            if not request.page_token:
                return

    async def follow(
        self,
        filter: str = "",  # noqa: A002 - the contract's word
        *,
        resume_token: str = "",
        from_start: bool = False,
    ) -> AsyncIterator[records_pb2.WatchRecordsResponse]:
        """Arrivals, for ever; after a break it goes on where it was, leaving nothing out and repeating nothing.

        Raises:
            KadError: as ``RecordsService.WatchRecords``, except for breaks.
        """
        request = records_pb2.WatchRecordsRequest(resume_token=resume_token, from_start=from_start, filter=filter)
        pause = 0.2
        while True:
            try:
                async for response in self.records.WatchRecords(request):
                    request.resume_token = response.resume_token
                    pause = 0.2
                    yield response
            except grpc.aio.AioRpcError as error:
                translated = from_rpc_error(error)
                if not isinstance(translated, UnavailableError):
                    raise translated from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)


@asynccontextmanager
async def connect(address: str, *, token: str, language: str = "en") -> AsyncIterator[Client]:
    """Connect to the local API of a daemon.

    Args:
        address: "127.0.0.1:port" or "unix:/path"; ``kad-node status`` shows it.
        token: from ``kad-node token create``; its role decides what may be called.
        language: "id" or "en", for messages.
    """
    async with local_channel(address, token, language) as channel:
        yield Client(channel)
