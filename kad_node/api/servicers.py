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
    governance_pb2,
    governance_pb2_grpc,
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

    from kad_node.node import Acting, Node
    from kad_node.peers import Peers
    from kad_node.service.affairs import Affairs
    from kad_node.service.directory import Directory
    from kad_node.service.keys import Keys
    from kad_node.service.records import Records
    from kad_node.service.status import Status
    from kad_node.service.transparency import Transparency

__all__ = [
    "DecisionsServicer",
    "DirectoryServicer",
    "KeysServicer",
    "MandatesServicer",
    "MembershipServicer",
    "NodeServicer",
    "RecordsServicer",
    "ReplicationServicer",
    "TransparencyServicer",
]

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

    async def ListEvidence(self, request: transparency_pb2.ListEvidenceRequest, context: Context) -> transparency_pb2.ListEvidenceResponse:
        return await self._transparency.evidence(request.page_size, request.page_token)

    async def GetEvidence(
        self, request: transparency_pb2.GetEvidenceRequest, context: Context
    ) -> AsyncIterator[transparency_pb2.GetEvidenceResponse]:
        async for piece in self._transparency.evidence_file(request.name):
            yield piece


class MembershipServicer(governance_pb2_grpc.MembershipServiceServicer):
    """``kad.v1.MembershipService``."""

    def __init__(self, affairs: Affairs) -> None:
        self._affairs = affairs

    async def GetFederation(self, request: governance_pb2.GetFederationRequest, context: Context) -> governance_pb2.GetFederationResponse:
        return governance_pb2.GetFederationResponse(federation=await self._affairs.federation())

    async def ListMembers(self, request: governance_pb2.ListMembersRequest, context: Context) -> governance_pb2.ListMembersResponse:
        return await self._affairs.members(request.page_size, request.page_token)

    async def EndorseCandidate(
        self, request: governance_pb2.EndorseCandidateRequest, context: Context
    ) -> governance_pb2.EndorseCandidateResponse:
        return governance_pb2.EndorseCandidateResponse(member=await self._affairs.endorse(request.name))

    async def LeaveFederation(
        self, request: governance_pb2.LeaveFederationRequest, context: Context
    ) -> governance_pb2.LeaveFederationResponse:
        return governance_pb2.LeaveFederationResponse(index=max(0, await self._affairs.leave()))


class MandatesServicer(governance_pb2_grpc.MandatesServiceServicer):
    """``kad.v1.MandatesService``."""

    def __init__(self, affairs: Affairs, node: Node) -> None:
        self._affairs = affairs
        self._node = node

    async def GrantMandate(self, request: governance_pb2.GrantMandateRequest, context: Context) -> governance_pb2.GrantMandateResponse:
        return governance_pb2.GrantMandateResponse(mandate=await self._affairs.grant(request.mandate))

    async def RevokeMandate(self, request: governance_pb2.RevokeMandateRequest, context: Context) -> governance_pb2.RevokeMandateResponse:
        return governance_pb2.RevokeMandateResponse(index=max(0, await self._affairs.revoke(request.name)))

    async def ListMandates(self, request: governance_pb2.ListMandatesRequest, context: Context) -> governance_pb2.ListMandatesResponse:
        return await self._affairs.mandate_page(
            request.parent, live_only=request.live_only, page_size=request.page_size, page_token=request.page_token
        )

    async def ListActs(self, request: governance_pb2.ListActsRequest, context: Context) -> governance_pb2.ListActsResponse:
        return await self._affairs.acts(request.page_size, request.page_token)

    async def VetoAct(self, request: governance_pb2.VetoActRequest, context: Context) -> governance_pb2.VetoActResponse:
        return governance_pb2.VetoActResponse(index=max(0, await self._affairs.veto(request.name)))

    async def ReviewSubmission(
        self, request: governance_pb2.ReviewSubmissionRequest, context: Context
    ) -> governance_pb2.ReviewSubmissionResponse:
        act = await self._acting().review(request.name, request.version, approved=request.approved)
        return governance_pb2.ReviewSubmissionResponse(act=act)

    async def IssueStatement(
        self, request: governance_pb2.IssueStatementRequest, context: Context
    ) -> governance_pb2.IssueStatementResponse:
        return governance_pb2.IssueStatementResponse(act=await self._acting().issue(request))

    def _acting(self) -> Acting:
        if self._node.acting is None:
            raise PermissionDeniedError(Reason.ROLE_INSUFFICIENT, "only a simpul acts in the name of others, under their mandates")
        return self._node.acting


class DecisionsServicer(governance_pb2_grpc.DecisionsServiceServicer):
    """``kad.v1.DecisionsService``."""

    def __init__(self, affairs: Affairs) -> None:
        self._affairs = affairs

    async def Propose(self, request: governance_pb2.ProposeRequest, context: Context) -> governance_pb2.ProposeResponse:
        return governance_pb2.ProposeResponse(decision=await self._affairs.propose(request))

    async def CastVote(self, request: governance_pb2.CastVoteRequest, context: Context) -> governance_pb2.CastVoteResponse:
        return governance_pb2.CastVoteResponse(decision=await self._affairs.vote(request))

    async def GetDecision(self, request: governance_pb2.GetDecisionRequest, context: Context) -> governance_pb2.GetDecisionResponse:
        return governance_pb2.GetDecisionResponse(decision=await self._affairs.decision(request.name))

    async def ListDecisions(self, request: governance_pb2.ListDecisionsRequest, context: Context) -> governance_pb2.ListDecisionsResponse:
        return await self._affairs.decisions(request.page_size, request.page_token)


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


class KeysServicer(node_pb2_grpc.KeysServiceServicer):
    """``kad.v1.KeysService``."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def GetKeys(self, request: node_pb2.GetKeysRequest, context: Context) -> node_pb2.GetKeysResponse:
        return await self._keys.get()

    async def RotateKeys(self, request: node_pb2.RotateKeysRequest, context: Context) -> node_pb2.RotateKeysResponse:
        return node_pb2.RotateKeysResponse(keys=await self._keys.rotate())

    async def AcceptOwnEntries(self, request: node_pb2.AcceptOwnEntriesRequest, context: Context) -> node_pb2.AcceptOwnEntriesResponse:
        return node_pb2.AcceptOwnEntriesResponse(keys=await self._keys.accept())


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
        async for frame in bundle.export(self._status.node, list(request.forums), request.federation):
            yield node_pb2.ExportFeedsResponse(frame=frame)

    async def ImportFeeds(
        self, request_iterator: AsyncIterator[node_pb2.ImportFeedsRequest], context: Context
    ) -> node_pb2.ImportFeedsResponse:
        return await bundle.take(self._status.node, (request.frame async for request in request_iterator))
