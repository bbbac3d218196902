"""Joined with the simpuls of other federations: each is an associate member of the other's federation.

One of the two joins, with an invitation of the other, keeps a certificate of the other's authority, and dials. The other is a member of
its own federation from then on as well, if its members' rules allow that, so that everybody there accepts its feed, and by that its
members' feeds. What crosses is decided where it is sent (``kad_protocol.audience``), whose word counts where it is judged
(``kad_protocol.order``); here is only the coming and going.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kad_node.enrolment import enrol, renew_as
from kad_node.peers import ChannelFiles
from kad_node.service.affairs import governance_of
from kad_node.store.transaction import micros_now
from kad_protocol import feed as feeds
from kad_protocol import invitation, keychain
from kad_protocol.certificates import expiry, renewal_due
from kad_protocol.entry import new_entry
from kad_protocol.errors import (
    InvalidInputError,
    KadError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    Reason,
    VerificationError,
)
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance
from kad_protocol.names import FeedId, check_federation
from kad_protocol.v1 import bridge_pb2, enrolment_pb2, entry_pb2, node_pb2, records_pb2
from kad_simpul.steward import admission

if TYPE_CHECKING:
    from kad_node.enrolment import Enrolled, Renewed
    from kad_node.node import Node
    from kad_node.peers import Peers
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.note import LogKeys

__all__ = ["Bridges", "Link"]

log = logging.getLogger(__name__)

_KIND = "bridge"
#: Certificates are looked at this often, in seconds, and asked for again after this long where that failed.
_LOOK_SECONDS = 30
_OUT = (entry_pb2.MEMBERSHIP_STATE_SUSPENDED, entry_pb2.MEMBERSHIP_STATE_LEFT)


@dataclass(frozen=True, slots=True)
class Link:
    """A federation that this simpul has joined."""

    simpul: str
    address: str
    enrolment_address: str
    federation_name: str
    #: Index of the entry with which this simpul left it, and 1; 0 while it has not.
    left: int = 0

    @property
    def feed(self) -> FeedId:
        """The feed of the other simpul."""
        return FeedId.parse(self.simpul)

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Link:
        """The inverse."""
        return Link(**json.loads(data))


class Bridges:
    """All of them, of one simpul.

    Args:
        node: the simpul.
        peers: its streams; None where no daemon runs, and then nobody is dialled.
        authority: its own authority's certificate, which vouches for simpuls that have joined it.
    """

    def __init__(self, node: Node, peers: Peers | None, authority: x509.Certificate) -> None:
        self._node = node
        self._peers = peers
        self._authority = authority
        self._joining = asyncio.Lock()
        self._next_look = 0.0

    async def start(self) -> None:
        """Dial whom this simpul has joined, and let in who has joined it."""
        links, members = await self._node.store.read(lambda tx: (_links(tx), tx.foreign_simpuls()))
        for link in links.values():
            self._connect(link)
        for feed, state in members:
            if feed.federation not in links and state == entry_pb2.MEMBERSHIP_STATE_ACTIVE:
                self.believe(feed)

    def believe(self, feed: FeedId) -> None:
        """Our own authority vouches for one member of another federation: its simpul, which has joined."""
        if self._peers is not None and feed.federation != self._node.own.federation:
            self._peers.trust_also(self._authority.public_bytes(Encoding.DER), feed)

    def _connect(self, link: Link) -> None:
        if self._peers is None:
            return
        try:
            key, certificate, authority = self._node.home.bridge(link.feed.federation)
        except KadError as error:
            log.warning("the certificate for %s is not there: %s", link.feed.federation, error)
            return
        # Its authority may vouch for that one simpul, and for none of the forums of which it says that they are its members.
        self._peers.trust_also(x509.load_pem_x509_certificate(authority).public_bytes(Encoding.DER), link.feed)
        self._peers.dial(link.feed, link.address, ChannelFiles(key, certificate))

    # Joining.

    async def join(self, text: str) -> bridge_pb2.Bridge:
        """Redeem an invitation. See ``BridgeService.JoinFederation``."""
        async with self._joining:
            code = self._check(invitation.decode(text))
            node = self._node
            node.fence.require()
            genesis, keys = await node.store.read(lambda tx: self._begin(tx, code.federation))
            signer = await asyncio.to_thread(node.keyring.log_signer, keys)
            enrolled = await enrol(code, node.own, signer, genesis)
            simpul = enrolled.simpul_feed
            link = Link(simpul.origin, enrolled.channel.exchange_address, code.enrolment_address, enrolled.federation_name)
            self._save(link, enrolled.channel)

            def keep(tx: SqliteTransaction) -> None:
                self._admit(tx, simpul, enrolled)
                tx.put_local(_KIND, code.federation, link.to_bytes())

            await node.store.write(keep)
            self._connect(link)
        log.info("joined", extra={"federation": code.federation, "simpul": simpul.origin})
        return await self._find(code.federation)

    def _check(self, code: enrolment_pb2.InvitationCode) -> enrolment_pb2.InvitationCode:
        own = self._node.own
        if code.simpul_of != own.federation:
            whom = f"the simpul of {code.simpul_of}" if code.simpul_of else f"the forum {code.forum}"
            raise PermissionDeniedError(Reason.INVITATION_FOR_SIMPUL, f"the invitation is for {whom}", federation=code.simpul_of)
        if code.forum != own.forum:
            raise PermissionDeniedError(Reason.INVITATION_FOR_OTHER_FORUM, f"the invitation is for {code.forum}", forum=code.forum)
        if code.federation == own.federation:
            raise InvalidInputError(Reason.INVALID_FIELD, "that is this simpul's own federation", field="invitation")
        if invitation.has_expired(code, datetime.datetime.now(datetime.UTC)):
            raise PermissionDeniedError(Reason.INVITATION_EXPIRED, "the invitation has expired", forum=code.forum)
        return code

    def _begin(self, tx: SqliteTransaction, federation: str) -> tuple[bytes, LogKeys]:
        """One's own genesis and the keys of today, if there is no bridge to that federation in the other direction."""
        members = {feed.federation for feed, state in tx.foreign_simpuls() if state not in _OUT}
        if federation in members and federation not in _links(tx):
            raise PreconditionError(
                Reason.ALREADY_ENROLLED,
                f"the simpul of {federation} has joined this one already; that works both ways",
                federation=federation,
            )
        return tx.entries(self._node.own, 0, 1, 1)[0].body, keychain.keys_at(tx, self._node.own, 1 << 40)

    def _admit(self, tx: SqliteTransaction, simpul: FeedId, enrolled: Enrolled) -> None:
        """The other simpul becomes a member here too, or applies, if the members have a say in that; they endorse it like any other."""
        known, genesis = tx.feed(simpul), enrolled.simpul_genesis
        if known is not None and known.genesis != genesis:
            raise VerificationError(Reason.GENESIS_MISMATCH, f"{simpul} is known here with another genesis", feed=simpul)
        found = governance_of(tx, self._node)
        member = found.member(found.name_of(simpul))
        if member is not None and member.genesis == genesis and member.state != entry_pb2.MEMBERSHIP_STATE_LEFT:
            return
        entry = new_entry(max(micros_now(), found.time))
        admitted = admission(found, simpul.origin, genesis, entry_pb2.MEMBER_CATEGORY_ASSOCIATE)
        applied = entry_pb2.Membership(
            feed=simpul.origin,
            genesis=genesis,
            state=entry_pb2.MEMBERSHIP_STATE_APPLIED,
            category=entry_pb2.MEMBER_CATEGORY_ASSOCIATE,
        )
        entry.membership.CopyFrom(admitted or applied)
        if member is not None and member.state == entry_pb2.MEMBERSHIP_STATE_LEFT:
            # Like everybody who has left, it comes back with its own word alone, which it gave with the certificate.
            entry.membership.consent.CopyFrom(enrolled.consent)
        feeds.append(tx, self._node.own, [Draft(entry)])

    def _save(self, link: Link, channel: Renewed) -> None:
        self._node.home.save_bridge(link.feed.federation, channel.key, channel.certificate, channel.authority)

    # Leaving.

    async def leave(self, federation: str) -> bridge_pb2.Bridge:
        """End it on both sides. See ``BridgeService.LeaveBridge``."""
        check_federation(federation)
        bridge = await self._find(federation)
        self._node.fence.require()

        def write(tx: SqliteTransaction) -> None:
            link = _links(tx).get(federation)
            if bridge.leaving or (link is None and bridge.theirs in _OUT):
                return
            entry = new_entry(max(micros_now(), governance_of(tx, self._node).time))
            entry.departure.simpul = bridge.simpul
            index = feeds.append(tx, self._node.own, [Draft(entry)])
            if link is not None:
                tx.put_local(_KIND, federation, replace(link, left=index + 1).to_bytes())

        await self._node.store.write(write)
        await self._look()
        try:
            return await self._find(federation)
        except NotFoundError:
            return bridge

    async def run(self) -> None:
        """For ever: renew certificates, finish what is being left, hang up on whom it is over with."""
        while True:
            changed = self._node.next_change()
            try:
                await self._look()
            except KadError as error:
                log.warning("bridges could not be looked after: %s", error)
            try:
                await asyncio.wait_for(changed.wait(), _LOOK_SECONDS)
            except TimeoutError:
                continue
            # What comes in quick succession is answered together.
            await asyncio.sleep(0.1)

    async def _look(self) -> None:
        node = self._node

        def read(tx: SqliteTransaction) -> tuple[dict[str, Link], dict[str, int], list[FeedId], list[FeedId]]:
            links = _links(tx)
            seen = {name: tx.observed(link.feed, node.own) for name, link in links.items()}
            gone = [link.feed for link in links.values() if tx.membership(link.feed) == entry_pb2.MEMBERSHIP_STATE_LEFT]
            out = [feed for feed, state in tx.foreign_simpuls() if state in _OUT and feed.federation not in links]
            return links, seen, gone, out

        links, seen, gone, out = await node.store.read(read)
        for name, link in links.items():
            refused = self._state(link.feed).last_error_reason == Reason.MEMBER_SUSPENDED
            if link.left and (seen[name] >= link.left or refused):
                await self._drop(link, "left")
            elif not link.left and link.feed in gone:
                await self._drop(link, "ended by the other side")
        if self._peers is not None:
            for feed in out:
                self._peers.hang_up(feed)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            for link in links.values():
                await self._renew(link)

    async def _drop(self, link: Link, why: str) -> None:
        federation = link.feed.federation
        await self._node.store.write(lambda tx: tx.delete_local(_KIND, federation))
        self._node.home.forget_bridge(federation)
        if self._peers is not None:
            self._peers.distrust(link.feed)
            with contextlib.suppress(NotFoundError):
                await self._peers.forget(link.feed.forum, federation)
        log.info("bridge ended", extra={"federation": federation, "why": why})

    async def _renew(self, link: Link) -> None:
        """A new certificate from the other's authority, when two thirds of the old one's life are over."""
        federation = link.feed.federation
        try:
            _, certificate, authority = self._node.home.bridge(federation)
            if link.left or not renewal_due(certificate, datetime.datetime.now(datetime.UTC)):
                return
            renewed = await renew_as(self._node, link.enrolment_address, authority)
        except KadError as error:
            log.warning("the certificate of %s could not be renewed yet: %s", federation, error)
            return
        fresh = replace(link, address=renewed.exchange_address or link.address)
        self._save(fresh, renewed)
        await self._node.store.write(lambda tx: tx.put_local(_KIND, federation, fresh.to_bytes()))
        self._connect(fresh)
        log.info("certificate renewed", extra={"federation": federation, "until": str(expiry(renewed.certificate))})

    # Showing.

    async def list(self) -> list[bridge_pb2.Bridge]:
        """See ``BridgeService.ListBridges``."""
        own = self._node.own

        def read(tx: SqliteTransaction) -> list[bridge_pb2.Bridge]:
            links = _links(tx)
            simpuls = {feed.federation: feed for feed, _ in tx.foreign_simpuls()} | {name: link.feed for name, link in links.items()}
            return [self._describe(tx, own, simpuls[name], links.get(name)) for name in sorted(simpuls)]

        found = await self._node.store.read(read)
        for bridge in found:
            peer = self._state(FeedId.parse(bridge.simpul))
            bridge.connected = peer.state == node_pb2.PEER_STATE_CONNECTED
            bridge.last_error = "" if bridge.connected else peer.last_error
        return found

    def _describe(self, tx: SqliteTransaction, own: FeedId, simpul: FeedId, link: Link | None) -> bridge_pb2.Bridge:
        there = Governance(tx.affairs(simpul), simpul) if tx.feed(simpul) is not None else None
        us = there.member(there.name_of(own)) if there is not None else None
        here = governance_of(tx, self._node)
        them = here.member(here.name_of(simpul))
        bridge = bridge_pb2.Bridge(
            federation=simpul.federation,
            simpul=simpul.origin,
            ours=us.state if us is not None else entry_pb2.MEMBERSHIP_STATE_UNSPECIFIED,
            theirs=them.state if them is not None else entry_pb2.MEMBERSHIP_STATE_UNSPECIFIED,
            feeds=tx.feed_count(simpul.federation),
            feeds_limit=tx.standpoint.foreign_feeds,
            records=tx.count_records(simpul.federation, records_pb2.RECORD_STATE_PUBLISHED),
            withheld=tx.count_records(simpul.federation, records_pb2.RECORD_STATE_WITHHELD),
            waiting_reason=there.head.waiting_reason if there is not None else "",
        )
        if link is not None:
            bridge.federation_name, bridge.address, bridge.leaving = link.federation_name, link.address, bool(link.left)
            try:
                bridge.certificate_expire_time.FromDatetime(expiry(self._node.home.bridge(simpul.federation)[1]))
            except KadError as error:
                bridge.last_error = error.message
        return bridge

    async def _find(self, federation: str) -> bridge_pb2.Bridge:
        for bridge in await self.list():
            if bridge.federation == federation:
                return bridge
        raise NotFoundError(Reason.BRIDGE_UNKNOWN, f"this simpul is not joined with {federation}", federation=federation)

    def _state(self, feed: FeedId) -> node_pb2.Peer:
        name = f"{feed.federation}/forums/{feed.forum}"
        peers = self._peers.describe() if self._peers is not None else []
        return next((peer for peer in peers if peer.forum == name), node_pb2.Peer())


def _links(tx: SqliteTransaction) -> dict[str, Link]:
    return {federation: Link.from_bytes(data) for federation, data in tx.locals(_KIND).items()}
