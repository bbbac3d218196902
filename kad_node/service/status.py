"""How a node is doing, its problems, its card and its peers."""

from __future__ import annotations

import time
from importlib import metadata
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kad_node.fence import FenceState
from kad_node.query import fitting
from kad_node.service.directory import describe
from kad_node.service.keys import own_alarms
from kad_node.vigil import alarms
from kad_node.witness import simpul_of, witnessing
from kad_protocol import feed as feeds
from kad_protocol import merkle
from kad_protocol.certificates import expiry
from kad_protocol.entry import parse_genesis
from kad_protocol.errors import InvalidInputError, KadError, PreconditionError, Reason
from kad_protocol.names import FeedId, parse_member_name
from kad_protocol.v1 import entry_pb2, node_pb2

if TYPE_CHECKING:
    from kad_node.node import Node
    from kad_node.peers import Peers
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["Status"]

_PEER = "peer"
_APPEND = {
    FenceState.OPEN: node_pb2.APPEND_STATE_OPEN,
    FenceState.FENCED: node_pb2.APPEND_STATE_FENCED,
    FenceState.FORKED: node_pb2.APPEND_STATE_FORKED,
}


class Status:
    """One node as its operator sees it."""

    def __init__(self, node: Node, peers: Peers | None, *, daemon: bool, listen_address: str = "") -> None:
        self.node = node
        self._peers = peers
        self._started = time.time() if daemon else 0
        self._listen_address = listen_address

    async def status(self) -> node_pb2.GetStatusResponse:
        """See ``NodeService.GetStatus``."""
        node = self.node

        def read(tx: SqliteTransaction) -> node_pb2.GetStatusResponse:
            forums = [describe(tx, node.own, state.feed) for state in tx.feeds()]
            counts = tx.reason_counts()
            simpul = simpul_of(tx, node.own)
            return node_pb2.GetStatusResponse(
                self=next(forum for forum in forums if forum.self),
                federation=node.own.federation,
                mode=getattr(node.config, "mode", ""),
                version=metadata.version("kad"),
                listen_address=self._listen_address,
                append_state=_APPEND[node.fence.state],
                queued=tx.queued_count(),
                forums=forums,
                problems=[node_pb2.ReasonCount(reason=reason, count=count) for reason, count in counts.items()],
                home=str(node.home.path),
                witnessing=witnessing(tx, simpul) if simpul is not None else None,
                alarms=[*own_alarms(tx, node.own), *alarms(tx, node.own)],
            )

        response = await node.store.read(read)
        for claim in node.fence.claims():
            response.head_claims.add(forum=claim.peer.forum, size=claim.size, proved=claim.until is None)
        response.store_bytes = sum(path.stat().st_size for path in node.home.path.glob("store.sqlite3*"))
        if self._started:
            response.start_time.FromMicroseconds(int(self._started * 1e6))
        if self._peers is not None:
            response.peers.extend(self._peers.describe())
            if self._peers.channel is not None:
                response.certificate_expire_time.FromDatetime(expiry(self._peers.channel.certificate))
        return response

    async def problems(self, limit: int) -> node_pb2.ListProblemsResponse:
        """See ``NodeService.ListProblems``."""
        rows = await self.node.store.read(lambda tx: tx.problems(min(limit or 100, 1000)))
        response = node_pb2.ListProblemsResponse()
        for row in rows:
            problem = response.problems.add(
                feed=row.feed.origin,
                index=row.index,
                reason=row.problem.reason.value,
                message=row.problem.message,
                waiting=row.problem.waiting,
            )
            problem.time.FromMicroseconds(row.time)
        del response.problems[fitting(response.problems, len(response.problems)) :]
        return response

    async def card(self, address: str) -> node_pb2.PeerCard:
        """See ``NodeService.GetPeerCard``."""
        node = self.node
        genesis = await node.store.read(lambda tx: tx.entries(node.own, 0, 1, 1)[0].body)
        authority = x509.load_pem_x509_certificate(node.home.read("channel/authority.pem"))
        return node_pb2.PeerCard(
            feed=node.own.origin,
            genesis=genesis,
            authority_certificate=authority.public_bytes(Encoding.DER),
            address=address or getattr(node.config, "advertise", "") or self._listen_address,
        )

    async def add_peer(self, card: node_pb2.PeerCard) -> node_pb2.Peer:
        """See ``NodeService.AddPeer``."""
        node = self.node
        try:
            feed, genesis = parse_genesis(card.genesis)
            x509.load_der_x509_certificate(card.authority_certificate)
        except (KadError, ValueError) as error:
            raise InvalidInputError(Reason.INVALID_FILE, f"this is not the card of a member: {error}") from error
        if feed.origin != card.feed or genesis.role != entry_pb2.MEMBER_ROLE_FORUM:
            # A simpul is joined by invitation, which pins more than a card does.
            raise InvalidInputError(Reason.INVALID_FILE, "the card is not that of a forum")
        if feed == node.own or (feed.forum == node.own.forum and feed.federation == node.own.federation):
            raise PreconditionError(Reason.INVALID_FILE, "this is this node's own card", feed=feed)

        def keep(tx: SqliteTransaction) -> None:
            feeds.pin(tx, feed, merkle.leaf_hash(card.genesis))
            tx.put_local(_PEER, feed.origin, card.SerializeToString())

        await node.store.write(keep)
        if self._peers is not None:
            self._peers.trust_also(card.authority_certificate, feed)
            if card.address:
                self._peers.dial(feed, card.address)
        return node_pb2.Peer(forum=feed.forum, address=card.address, state=node_pb2.PEER_STATE_CONNECTING)

    async def remove_peer(self, forum: str) -> None:
        """See ``NodeService.RemovePeer``."""
        federation, name = parse_member_name(forum)
        federation = federation or self.node.own.federation

        def forget(tx: SqliteTransaction) -> None:
            for origin in tx.locals(_PEER):
                feed = FeedId.parse(origin)
                if (feed.federation, feed.forum) == (federation, name):
                    tx.delete_local(_PEER, origin)

        await self.node.store.write(forget)
        if self._peers is not None:
            await self._peers.forget(name, federation)
            self._peers.distrust(FeedId(federation, name))

    async def known_peers(self) -> list[node_pb2.PeerCard]:
        """The cards that the operator gave."""
        cards = await self.node.store.read(lambda tx: tx.locals(_PEER))
        return [node_pb2.PeerCard.FromString(card) for card in cards.values()]
