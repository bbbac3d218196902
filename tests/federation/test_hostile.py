"""A member with a valid certificate that does what it may not: refused with a reason, and the others go on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from cryptography import x509

from kad_protocol.certificates import Trust, TrustAnchor
from kad_protocol.channel import member_channel
from kad_protocol.errors import KadError, Reason
from kad_protocol.names import FeedId
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import node_pb2, records_pb2, records_pb2_grpc, replication_pb2, replication_pb2_grpc
from tests.federation.harness import PRACTICE, Federation, Member, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.federation

FEDERATION = "simpul-uji.kad.internal"


def as_member(federation: Federation, thief: Member) -> grpc.aio.Channel:
    """The members' port of the simpul, with a member's own certificate."""
    key, certificate = thief.home.channel()
    authority = x509.load_pem_x509_certificate(thief.home.read("channel/authority.pem"))
    address = str(federation.simpul.home.running()["members"]).replace("0.0.0.0", "127.0.0.1")
    return member_channel(address, Trust([TrustAnchor(authority, FEDERATION)]), key, certificate, FeedId(FEDERATION, "simpul-uji"))


def hello(forum: str) -> replication_pb2.Frame:
    origin = FeedId(FEDERATION, forum).origin
    return replication_pb2.Frame(hello=replication_pb2.Hello(protocol=1, feed=origin, nonce=bytes(16), window_bytes=1 << 20, head_count=0))


async def say(channel: grpc.aio.Channel, *frames: replication_pb2.Frame) -> tuple[list[replication_pb2.Frame], KadError | None]:
    """Say frames; what came back until the simpul ended it or had refused something."""
    heard: list[replication_pb2.Frame] = []

    async def requests() -> AsyncIterator[replication_pb2.ExchangeRequest]:
        for frame in frames:
            yield replication_pb2.ExchangeRequest(frame=frame)
        await asyncio.Event().wait()

    call: Any = replication_pb2_grpc.ReplicationServiceStub(channel).Exchange(requests())
    try:
        async with asyncio.timeout(20):
            async for response in call:
                heard.append(response.frame)
                if response.frame.refusals:
                    return heard, None
    except grpc.aio.AioRpcError as error:
        return heard, from_rpc_error(error)
    finally:
        call.cancel()
    return heard, None


@pytest.fixture
async def two(federation: Federation) -> tuple[Federation, Member, Member]:
    honest, thief = await federation.join("kartamantul"), await federation.join("javapromo")
    honest.run("publish", "-", stdin=json.dumps(PRACTICE))
    await until(lambda: len(federation.simpul.json("members")) == 2, "both are members")
    await until(lambda: all(int(forum.get("observed_size", 0)) >= 2 for forum in federation.simpul.json("members")), "both feeds are there")
    # Its own daemon would be replaced by our streams, and come back in between.
    await thief.stop()
    return federation, honest, thief


async def test_what_a_member_may_not(two: tuple[Federation, Member, Member]) -> None:
    federation, honest, thief = two
    async with honest.client() as kad:
        page = await kad.replication.ReadFeed(replication_pb2.ReadFeedRequest(feed="forums/kartamantul"), timeout=20)
    theirs = page.batch
    async with as_member(federation, thief) as channel:
        _, error = await say(channel, hello("kartamantul"))
        assert error is not None
        assert error.reason == Reason.IDENTITY_INVALID

        # Another's feed, with something added to it, under the old signature.
        forged = replication_pb2.Batch()
        forged.CopyFrom(theirs)
        forged.after = len(theirs.entries)
        forged.ClearField("entries")
        forged.ClearField("contents")
        forged.entries.append(theirs.entries[-1])
        heard, error = await say(channel, hello("javapromo"), replication_pb2.Frame(batches=[forged]))
        assert error is None
        assert heard[-1].refusals[0].reason == Reason.ROOT_MISMATCH.value

        # A feed of one's own invention.
        stranger = replication_pb2.Batch(feed=FeedId(FEDERATION, "siluman").origin, entries=[b"x"], checkpoint=theirs.checkpoint)
        heard, error = await say(channel, hello("javapromo"), replication_pb2.Frame(batches=[stranger]))
        assert heard[-1].refusals[0].reason == Reason.UNKNOWN_FEED.value

        # The simpul's feed, with a member admitted by nobody.
        simpul = replication_pb2.Batch(feed=FeedId(FEDERATION, "simpul-uji").origin, after=3, entries=[b"x"], checkpoint=theirs.checkpoint)
        heard, error = await say(channel, hello("javapromo"), replication_pb2.Frame(batches=[simpul]))
        assert heard[-1].refusals[0].reason == Reason.WRONG_ORIGIN.value

        # Too much at once, before anything of it is parsed.
        heavy = replication_pb2.Frame(batches=[replication_pb2.Batch(feed=theirs.feed, entries=[bytes(3 << 20)])])
        _, error = await say(channel, hello("javapromo"), heavy)
        assert error is not None
        assert error.code == "RESOURCE_EXHAUSTED"

        # Reading is allowed, writing through another's API is not.
        records: Any = records_pb2_grpc.RecordsServiceStub(channel)
        assert (await records.ListRecords(records_pb2.ListRecordsRequest(), timeout=20)).records
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await records.RetractRecord(records_pb2.RetractRecordRequest(name="forums/kartamantul/records/x", reason="x"), timeout=20)
        assert from_rpc_error(caught.value).reason == Reason.ROLE_INSUFFICIENT

    # Everything was counted, nothing was harmed, and the honest ones go on.
    async with federation.simpul.client() as kad:
        status = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)
    counted = {count.reason for count in status.problems}
    assert {Reason.ROOT_MISMATCH.value, Reason.UNKNOWN_FEED.value, Reason.WRONG_ORIGIN.value} <= counted
    assert all(not forum.quarantine_reason for forum in status.forums)
    await thief.start()
    name = honest.run("publish", "-", stdin=json.dumps(PRACTICE | {"title": "Sesudahnya"})).strip()

    async def arrived() -> bool:
        return name in await thief.names()

    await until(arrived, "the record arrives")


async def test_bytes_that_are_no_frame(two: tuple[Federation, Member, Member]) -> None:
    federation, honest, thief = two
    async with as_member(federation, thief) as channel:
        raw = channel.stream_stream("/kad.v1.ReplicationService/Exchange")
        for garbage in (b"\xff" * 100, b"\x0a\x05abc", b"\x0a" + b"\x80" * 20):

            async def requests(data: bytes = garbage) -> AsyncIterator[bytes]:
                yield data

            with pytest.raises(grpc.aio.AioRpcError):  # noqa: PT012 - the stream ends with an error
                async with asyncio.timeout(20):
                    async for _ in raw(requests()):
                        pass
    assert honest.json("status")["peers"][0]["state"] == "PEER_STATE_CONNECTED"
