"""gRPC servicers: they translate and call ``kad_node.service``, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

from kad_node import bundle
from kad_node.service.records import warnings_for
from kad_protocol.channel import caller
from kad_protocol.errors import PermissionDeniedError, Reason
from kad_protocol.v1 import (
    directory_pb2,
    directory_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    records_pb2,
    records_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
    transparency_pb2,
    transparency_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kad_node.peers import Peers
    from kad_node.service.directory import Directory
    from kad_node.service.records import Records
    from kad_node.service.status import Status
    from kad_node.service.transparency import Transparency

__all__ = ["DirectoryServicer", "NodeServicer", "RecordsServicer", "ReplicationServicer", "TransparencyServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class RecordsServicer(records_pb2_grpc.RecordsServiceServicer):
    """``kad.v1.RecordsService``."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def CreateRecord(self, request: records_pb2.CreateRecordRequest, context: Context) -> records_pb2.CreateRecordResponse:
        (record,) = await self._records.create([request])
        return records_pb2.CreateRecordResponse(record=record, warnings=warnings_for(request.content))

    async def BatchCreateRecords(
        self, request: records_pb2.BatchCreateRecordsRequest, context: Context
    ) -> records_pb2.BatchCreateRecordsResponse:
        for part in request.requests:
            part.parent = part.parent or request.parent
        return records_pb2.BatchCreateRecordsResponse(records=await self._records.create(request.requests))

    async def GetRecord(self, request: records_pb2.GetRecordRequest, context: Context) -> records_pb2.GetRecordResponse:
        return records_pb2.GetRecordResponse(record=await self._records.get(request.name, request.version))

    async def ListRecords(self, request: records_pb2.ListRecordsRequest, context: Context) -> records_pb2.ListRecordsResponse:
        return await self._records.list(request)

    async def ListRecordVersions(
        self, request: records_pb2.ListRecordVersionsRequest, context: Context
    ) -> records_pb2.ListRecordVersionsResponse:
        return await self._records.versions(request)

    async def SearchRecords(self, request: records_pb2.SearchRecordsRequest, context: Context) -> records_pb2.SearchRecordsResponse:
        return await self._records.search(request)

    async def ReviseRecord(self, request: records_pb2.ReviseRecordRequest, context: Context) -> records_pb2.ReviseRecordResponse:
        record = await self._records.revise(request)
        return records_pb2.ReviseRecordResponse(record=record, warnings=warnings_for(request.content))

    async def RetractRecord(self, request: records_pb2.RetractRecordRequest, context: Context) -> records_pb2.RetractRecordResponse:
        return records_pb2.RetractRecordResponse(record=await self._records.retract(request))

    async def WatchRecords(
        self, request: records_pb2.WatchRecordsRequest, context: Context
    ) -> AsyncIterator[records_pb2.WatchRecordsResponse]:
        async for response in self._records.watch(request):
            yield response


class DirectoryServicer(directory_pb2_grpc.DirectoryServiceServicer):
    """``kad.v1.DirectoryService``."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def GetForum(self, request: directory_pb2.GetForumRequest, context: Context) -> directory_pb2.GetForumResponse:
        return directory_pb2.GetForumResponse(forum=await self._directory.get(request.name))

    async def ListForums(self, request: directory_pb2.ListForumsRequest, context: Context) -> directory_pb2.ListForumsResponse:
        return await self._directory.list(request.page_size, request.page_token)

    async def PublishProfile(self, request: directory_pb2.PublishProfileRequest, context: Context) -> directory_pb2.PublishProfileResponse:
        return directory_pb2.PublishProfileResponse(forum=await self._directory.publish_profile(request.profile))


class TransparencyServicer(transparency_pb2_grpc.TransparencyServiceServicer):
    """``kad.v1.TransparencyService``."""

    def __init__(self, transparency: Transparency) -> None:
        self._transparency = transparency

    async def GetWitnessedCheckpoint(
        self, request: transparency_pb2.GetWitnessedCheckpointRequest, context: Context
    ) -> transparency_pb2.GetWitnessedCheckpointResponse:
        return await self._transparency.witnessed(request.feed)

    async def GetRecordProof(
        self, request: transparency_pb2.GetRecordProofRequest, context: Context
    ) -> transparency_pb2.GetRecordProofResponse:
        return transparency_pb2.GetRecordProofResponse(proof=await self._transparency.record_proof(request.name, request.version))

    async def GetCheckpoint(
        self, request: transparency_pb2.GetCheckpointRequest, context: Context
    ) -> transparency_pb2.GetCheckpointResponse:
        return await self._transparency.checkpoint(request.feed)

    async def GetInclusionProof(
        self, request: transparency_pb2.GetInclusionProofRequest, context: Context
    ) -> transparency_pb2.GetInclusionProofResponse:
        return await self._transparency.inclusion(request.feed, request.index, request.size)

    async def GetConsistencyProof(
        self, request: transparency_pb2.GetConsistencyProofRequest, context: Context
    ) -> transparency_pb2.GetConsistencyProofResponse:
        return await self._transparency.consistency(request.feed, request.old_size, request.new_size)


class ReplicationServicer(replication_pb2_grpc.ReplicationServiceServicer):
    """``kad.v1.ReplicationService``."""

    def __init__(self, transparency: Transparency, peers: Peers | None) -> None:
        self._transparency = transparency
        self._peers = peers

    async def Exchange(self, request_iterator: AsyncIterator[replication_pb2.ExchangeRequest], context: Context) -> None:  # type: ignore[override]
        if self._peers is None:
            raise PermissionDeniedError(Reason.ROLE_INSUFFICIENT, "daemons exchange on the members' port")

        async def send(frame: replication_pb2.Frame) -> None:
            await context.write(replication_pb2.ExchangeResponse(frame=frame))

        await self._peers.serve(caller(context, self._peers.trust), request_iterator, send)

    async def ReadFeed(self, request: replication_pb2.ReadFeedRequest, context: Context) -> replication_pb2.ReadFeedResponse:
        return await self._transparency.page(request.feed, request.after, request.page_size)

    async def ListFeeds(self, request: replication_pb2.ListFeedsRequest, context: Context) -> replication_pb2.ListFeedsResponse:
        return await self._transparency.heads(request.page_size, request.page_token)


class NodeServicer(node_pb2_grpc.NodeServiceServicer):
    """``kad.v1.NodeService``."""

    def __init__(self, status: Status) -> None:
        self._status = status

    async def GetStatus(self, request: node_pb2.GetStatusRequest, context: Context) -> node_pb2.GetStatusResponse:
        return await self._status.status()

    async def ListProblems(self, request: node_pb2.ListProblemsRequest, context: Context) -> node_pb2.ListProblemsResponse:
        return await self._status.problems(request.page_size)

    async def GetPeerCard(self, request: node_pb2.GetPeerCardRequest, context: Context) -> node_pb2.GetPeerCardResponse:
        return node_pb2.GetPeerCardResponse(card=await self._status.card(request.address))

    async def AddPeer(self, request: node_pb2.AddPeerRequest, context: Context) -> node_pb2.AddPeerResponse:
        return node_pb2.AddPeerResponse(peer=await self._status.add_peer(request.card))

    async def RemovePeer(self, request: node_pb2.RemovePeerRequest, context: Context) -> node_pb2.RemovePeerResponse:
        await self._status.remove_peer(request.forum)
        return node_pb2.RemovePeerResponse()

    async def ExportFeeds(self, request: node_pb2.ExportFeedsRequest, context: Context) -> AsyncIterator[node_pb2.ExportFeedsResponse]:
        async for frame in bundle.export(self._status.node, list(request.forums)):
            yield node_pb2.ExportFeedsResponse(frame=frame)

    async def ImportFeeds(
        self, request_iterator: AsyncIterator[node_pb2.ImportFeedsRequest], context: Context
    ) -> node_pb2.ImportFeedsResponse:
        return await bundle.take(self._status.node, (request.frame async for request in request_iterator))
