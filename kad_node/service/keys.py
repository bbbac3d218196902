"""The keys of one member: which its feed names, changing them, and what of its feed this home did not write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cryptography import x509

from kad_node import outbox
from kad_node.replica import FOREIGN
from kad_protocol import feed as feeds
from kad_protocol import keychain
from kad_protocol.certificates import key_digest
from kad_protocol.entry import MAX_ENTRY_BYTES, key_set, parse_entry
from kad_protocol.errors import KadError, Reason
from kad_protocol.v1 import node_pb2
from kad_protocol.witness import witness_keys_of

if TYPE_CHECKING:
    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.names import FeedId

__all__ = ["Keys", "own_alarms"]


def foreign(tx: SqliteTransaction) -> list[node_pb2.EntryRange]:
    """Entries of one's own feed that this home did not write and nobody has accepted."""
    found = []
    for first, value in tx.locals(FOREIGN).items():
        kept = json.loads(value)
        item = node_pb2.EntryRange(first=int(first), count=kept["count"], while_open=kept["open"])
        item.time.FromMicroseconds(kept["time"])
        found.append(item)
    return found


def own_alarms(tx: SqliteTransaction, own: FeedId) -> list[node_pb2.Alarm]:
    """What of one's own feed looks as if somebody else had its key."""
    return [node_pb2.Alarm(reason=Reason.KEY_USED_ELSEWHERE.value, feed=own.origin)] if tx.locals(FOREIGN) else []


class Keys:
    """The keys of one node, without any secret."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def get(self) -> node_pb2.GetKeysResponse:
        """See ``KeysService.GetKeys``."""
        return await self._node.store.read(self._describe)

    async def rotate(self) -> node_pb2.GetKeysResponse:
        """See ``KeysService.RotateKeys``."""
        await self._node.sign_anew()
        return await self.get()

    async def accept(self) -> node_pb2.GetKeysResponse:
        """See ``KeysService.AcceptOwnEntries``."""

        def forget(tx: SqliteTransaction) -> None:
            for first in tx.locals(FOREIGN):
                tx.delete_local(FOREIGN, first)

        await self._node.store.write(forget)
        return await self.get()

    def _describe(self, tx: SqliteTransaction) -> node_pb2.GetKeysResponse:
        own, link = self._node.own, getattr(self._node.config, "simpul", None)
        state = tx.feed(own)
        if state is None:
            raise AssertionError("an open home has a feed")
        rotations = keychain.chain_of(tx, own).rotations
        index = rotations[-1].index if rotations else 0
        response = node_pb2.GetKeysResponse(
            feed=own.origin,
            epoch=own.epoch,
            log_keys=key_set(feeds.keys_of(state)),
            witness_keys=key_set(witness_keys_of(tx, own)),
            index=index,
            rotations=len(rotations),
            rotation_queued=outbox.rotation_queued(tx),
            authority_key_digest=self._authority(),
            former_feeds=sorted(s.feed.origin for s in tx.feeds() if _same(s.feed, own) and s.feed.epoch < own.epoch),
            enrolment_address=link.enrolment_address if link is not None else getattr(self._node.config, "enrolment_advertise", ""),
            foreign=foreign(tx),
        )
        entry = parse_entry(tx.entries(own, index, 1, MAX_ENTRY_BYTES)[0].body)
        if entry is not None:
            response.time.CopyFrom(entry.time)
        return response

    def _authority(self) -> bytes:
        try:
            return key_digest(x509.load_pem_x509_certificate(self._node.home.read("channel/authority.pem")))
        except (KadError, ValueError):
            return b""


def _same(one: FeedId, other: FeedId) -> bool:
    return (one.federation, one.forum) == (other.federation, other.forum)
