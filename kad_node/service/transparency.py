"""Checkpoints, proofs and pages of feeds: what lets anybody check a feed without trusting who serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_node.query import decode_page, encode_page, fitting
from kad_node.service.directory import resolve_feed
from kad_node.service.proofs import record_proof
from kad_node.vigil import evidence_file, evidence_list
from kad_node.witness import simpul_of, witnessed_note
from kad_protocol import feed as feeds
from kad_protocol import merkle
from kad_protocol.errors import NotFoundError, OutOfRangeError, PreconditionError, Reason
from kad_protocol.v1 import replication_pb2, transparency_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.names import FeedId
    from kad_protocol.store import FeedState

__all__ = ["Transparency"]

_MOST_EVIDENCE = 1000
_CHUNK_BYTES = 256 << 10


class Transparency:
    """The feeds of one node, for whoever wants to check them."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def _state(self, tx: SqliteTransaction, text: str) -> FeedState:
        state = tx.feed(resolve_feed(tx, self._node.own, text))
        if state is None or not state.signed_size:
            raise PreconditionError(Reason.FEED_NOT_FOUND, f"nothing of {text} is here yet", feed=text)
        return state

    async def checkpoint(self, feed: str) -> transparency_pb2.GetCheckpointResponse:
        """See ``TransparencyService.GetCheckpoint``."""
        state = await self._node.store.read(lambda tx: self._state(tx, feed))
        keys = [line.vkey for line in feeds.keys_of(state).log_lines]
        return transparency_pb2.GetCheckpointResponse(checkpoint=state.checkpoint, verifier_keys=keys)

    async def witnessed(self, feed: str) -> transparency_pb2.GetWitnessedCheckpointResponse:
        """See ``TransparencyService.GetWitnessedCheckpoint``."""
        own = self._node.own

        def read(tx: SqliteTransaction) -> transparency_pb2.GetWitnessedCheckpointResponse:
            simpul = resolve_feed(tx, own, feed) if feed else simpul_of(tx, own)
            if simpul is None:
                raise NotFoundError(Reason.FEED_NOT_FOUND, "this node belongs to no simpul", feed=feed)
            note, policy = witnessed_note(tx, simpul)
            return transparency_pb2.GetWitnessedCheckpointResponse(note=note, policy=policy)

        return await self._node.store.read(read)

    async def record_proof(self, name: str, version: int) -> bytes:
        """See ``TransparencyService.GetRecordProof``."""
        return await self._node.store.read(lambda tx: record_proof(tx, self._node.own, name, version))

    async def inclusion(self, feed: str, index: int, size: int) -> transparency_pb2.GetInclusionProofResponse:
        """See ``TransparencyService.GetInclusionProof``."""

        def read(tx: SqliteTransaction) -> transparency_pb2.GetInclusionProofResponse:
            state = self._state(tx, feed)
            among = _within(size or state.signed_size, state)
            tiles = tx.tiles(state.feed)
            hashes = merkle.inclusion_proof(tiles, index, among)
            entry = tx.entries(state.feed, index, 1, 1)[0].body
            return transparency_pb2.GetInclusionProofResponse(
                entry=entry, hashes=hashes, size=among, root=merkle.root_at(tiles, among), checkpoint=state.checkpoint
            )

        return await self._node.store.read(read)

    async def consistency(self, feed: str, old: int, new: int) -> transparency_pb2.GetConsistencyProofResponse:
        """See ``TransparencyService.GetConsistencyProof``."""

        def read(tx: SqliteTransaction) -> transparency_pb2.GetConsistencyProofResponse:
            state = self._state(tx, feed)
            larger = _within(new or state.signed_size, state)
            tiles = tx.tiles(state.feed)
            return transparency_pb2.GetConsistencyProofResponse(
                hashes=merkle.consistency_proof(tiles, old, larger),
                old_root=merkle.root_at(tiles, old),
                new_size=larger,
                new_root=merkle.root_at(tiles, larger),
                checkpoint=state.checkpoint,
            )

        return await self._node.store.read(read)

    async def evidence(self, page_size: int = 0, page_token: str = "") -> transparency_pb2.ListEvidenceResponse:
        """See ``TransparencyService.ListEvidence``."""
        key = decode_page(page_token, 1, "evidence")
        found = await self._node.store.read(lambda tx: evidence_list(tx, self._node.own))
        names = [item.name for item in found]
        if key and key[0] in names:
            found = found[names.index(key[0]) + 1 :]
        size = fitting(found, min(page_size or _MOST_EVIDENCE, _MOST_EVIDENCE))
        response = transparency_pb2.ListEvidenceResponse(evidence=found[:size])
        if len(found) > size:
            response.next_page_token = encode_page([found[size - 1].name], "evidence")
        return response

    async def evidence_file(self, name: str) -> AsyncIterator[transparency_pb2.GetEvidenceResponse]:
        """See ``TransparencyService.GetEvidence``."""
        data = await self._node.store.read(lambda tx: evidence_file(tx, self._node.own, name))
        for start in range(0, len(data), _CHUNK_BYTES):
            yield transparency_pb2.GetEvidenceResponse(chunk=data[start : start + _CHUNK_BYTES])

    async def page(self, feed: str, after: int, size: int) -> replication_pb2.ReadFeedResponse:
        """See ``ReplicationService.ReadFeed``."""

        def read(tx: SqliteTransaction) -> replication_pb2.ReadFeedResponse:
            state = self._state(tx, feed)
            batch = feeds.read_batch(tx, state.feed, after, max_entries=min(size or 100, 1000), max_bytes=1 << 20)
            response = replication_pb2.ReadFeedResponse(size=state.signed_size)
            if batch is not None:
                response.batch.CopyFrom(batch)
            return response

        return await self._node.store.read(read)

    async def heads(self, page_size: int, page_token: str) -> replication_pb2.ListFeedsResponse:
        """See ``ReplicationService.ListFeeds``."""
        key = decode_page(page_token, 1, "feeds")
        size = min(page_size or 100, 1000)

        def read(tx: SqliteTransaction) -> list[FeedId]:
            after = str(key[0]) if key else ""
            return [state.feed for state in tx.feeds() if state.feed.origin > after][: size + 1]

        found = await self._node.store.read(read)
        response = replication_pb2.ListFeedsResponse(heads=await self._node.replica.heads(found[:size]))
        if len(found) > size:
            response.next_page_token = encode_page([found[size - 1].origin], "feeds")
        return response


def _within(size: int, state: FeedState) -> int:
    if size > state.signed_size:
        raise OutOfRangeError(
            Reason.AHEAD_OF_WRITER, f"{state.feed} has {state.signed_size} signed entries here", feed=state.feed, size=state.signed_size
        )
    return size
