"""Threats that only a channel can carry: a stolen certificate, altered and replayed batches, a member put out while it is connected,
a simpul whose clock runs ahead. What each row of the list is defended by, and tested with, stands in docs/threats.md.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from kad_protocol.errors import Reason
from kad_protocol.keys import MemberKeys
from kad_protocol.merkle import Frontier, leaf_hash
from kad_protocol.names import FeedId, new_record_id
from kad_protocol.note import Checkpoint, Note, sign_checkpoint
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import entry_pb2, node_pb2, records_pb2, records_pb2_grpc, replication_pb2, replication_pb2_grpc
from tests.federation.harness import PRACTICE, Federation, Member, until
from tests.federation.test_authority import decide
from tests.federation.test_hostile import FEDERATION, as_member, hello, say
from tests.federation.test_hostile_simpul import cheat, counted, raised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.federation, pytest.mark.long]


async def whole_feed(member: Member, forum: str) -> replication_pb2.Batch:
    async with member.client() as kad:
        page = await kad.replication.ReadFeed(replication_pb2.ReadFeedRequest(feed=f"forums/{forum}"), timeout=20)
    return page.batch


def signed_by(keys: MemberKeys, batch: replication_pb2.Batch, *entries: bytes) -> replication_pb2.Batch:
    """More entries in that feed, under a checkpoint that these keys sign."""
    frontier = Frontier()
    frontier.append([leaf_hash(body) for body in (*batch.entries, *entries)])
    checkpoint = Checkpoint(batch.feed, frontier.size, frontier.root())
    return replication_pb2.Batch(
        feed=batch.feed,
        after=len(batch.entries),
        entries=entries,
        checkpoint=sign_checkpoint(checkpoint, [keys.log_signer(batch.feed)]),
    )


def without_line(note: bytes, which: int) -> bytes:
    parsed = Note.parse(note)
    return Note(parsed.text, tuple(line for number, line in enumerate(parsed.signatures) if number != which)).to_bytes()


async def answers(federation: Federation, victim: Member, batch: replication_pb2.Batch) -> list[replication_pb2.Frame]:
    """What the simpul says to a batch that comes with the victim's own certificate."""
    async with as_member(federation, victim) as channel:
        heard, error = await say(channel, hello(victim.name), replication_pb2.Frame(batches=[batch]))
    assert error is None
    return heard


async def test_with_a_stolen_certificate_nothing_is_written(federation: Federation) -> None:
    victim = await federation.join("kartamantul")
    victim.run("publish", "-", stdin=json.dumps(PRACTICE))
    await until(lambda: victim.json("list")[0].get("observation"), "observed")
    batch = await whole_feed(victim, "kartamantul")
    await victim.stop()
    size = len(batch.entries)
    last = batch.entries[-1]
    # Its channel key is stolen, its feed key is not: what the thief signs itself is nobody's.
    cases: list[tuple[replication_pb2.Batch, Reason]] = [
        (signed_by(MemberKeys.generate(), batch, last), Reason.SIGNATURE_MISSING),
        # And with the feed key of today one of the two signatures is not enough.
        *((signed_by_victim(victim, batch, last, which), Reason.SIGNATURE_MISSING) for which in range(2)),
    ]
    for place in (0, 40, -1):
        spoilt = signed_by_victim(victim, batch, last)
        body = bytearray(spoilt.entries[0])
        body[place] ^= 1
        spoilt.entries[0] = bytes(body)
        cases.append((spoilt, Reason.ROOT_MISMATCH))
    for forged, reason in cases:
        heard = await answers(federation, victim, forged)
        said = {refusal.reason for frame in heard for refusal in frame.refusals}
        # A flipped byte may already make the pointers wrong, which is looked at before the tree.
        assert said & {reason.value, Reason.AUTHORITY_POINTER_WRONG.value}, (said, reason)
    (forum,) = federation.simpul.json("members")
    assert int(forum["observed_size"]) == size, "nothing of it was taken"
    # A batch that was heard before, said again: nothing is added, nothing is refused.
    async with federation.simpul.client() as kad:
        before = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)
    async with as_member(federation, victim) as channel:
        acks = await heard_acks(channel, batch)
    assert acks == {batch.feed: size}
    async with federation.simpul.client() as kad:
        after = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)
    assert after.problems == before.problems
    # Able to fail: the same entry, signed by the victim's feed key with both algorithms, is taken. That is what the keys protect.
    async with as_member(federation, victim) as channel:
        acks = await heard_acks(channel, signed_by_victim(victim, batch, last))
    assert acks == {batch.feed: size + 1}


def signed_by_victim(victim: Member, batch: replication_pb2.Batch, entry: bytes, drop: int | None = None) -> replication_pb2.Batch:
    signed = signed_by(victim.home.create_keys({}), batch, entry)
    if drop is not None:
        signed.checkpoint = without_line(signed.checkpoint, drop)
    return signed


async def heard_acks(channel: grpc.aio.Channel, batch: replication_pb2.Batch) -> dict[str, int]:
    async def requests() -> AsyncIterator[replication_pb2.ExchangeRequest]:
        for frame in (hello("kartamantul"), replication_pb2.Frame(batches=[batch])):
            yield replication_pb2.ExchangeRequest(frame=frame)
        await asyncio.Event().wait()

    call: Any = replication_pb2_grpc.ReplicationServiceStub(channel).Exchange(requests())
    try:
        async with asyncio.timeout(20):
            async for response in call:
                assert not response.frame.refusals
                if response.frame.acks:
                    return {ack.feed: ack.size for ack in response.frame.acks}
    finally:
        call.cancel()
    return {}


def nonsense(feed: str) -> list[entry_pb2.Entry]:
    """Everything that a member may write and that has no effect."""
    simpul, number = FeedId(FEDERATION, "simpul-uji").origin, new_record_id()
    past, soon = int(time.time()) - 86_400, int(time.time()) + 86_400

    def mandate(**more: Any) -> entry_pb2.Mandate:
        values = {"id": new_record_id(), "delegate": simpul, "function": "represent", "veto_days": 1, **more}
        made = entry_pb2.Mandate(**values)
        made.not_before.seconds, made.not_after.seconds = past - 10, more.pop("end", soon)
        return made

    expired = mandate()
    expired.not_after.seconds = past
    late = entry_pb2.Proposal(id=new_record_id(), digest=bytes(32))
    late.deadline.seconds = past
    contradicting = entry_pb2.Proposal(id=new_record_id(), digest=bytes(32), charter=entry_pb2.Charter(version=7, mode=1))
    contradicting.deadline.seconds = soon
    vote = entry_pb2.Vote(proposal=number, leaf_hash=bytes(32), choice=1)
    one = mandate()
    return [
        entry_pb2.Entry(mandate=mandate(delegate=feed)),
        entry_pb2.Entry(mandate=mandate(function="rule-everything")),
        entry_pb2.Entry(mandate=expired),
        entry_pb2.Entry(mandate=one),
        entry_pb2.Entry(mandate=mandate()),
        entry_pb2.Entry(mandate=one),
        entry_pb2.Entry(mandate_revocation=entry_pb2.MandateRevocation(mandate=number)),
        entry_pb2.Entry(proposal=late),
        entry_pb2.Entry(proposal=contradicting),
        entry_pb2.Entry(vote=vote),
        entry_pb2.Entry(veto=entry_pb2.Veto(feed=simpul, index=(1 << 64) - 1)),
        entry_pb2.Entry(endorsement=entry_pb2.Endorsement(feed=FeedId(FEDERATION, "boneka").origin, genesis=bytes(32))),
        entry_pb2.Entry(membership=entry_pb2.Membership(feed=feed, genesis=bytes(32), state=1)),
    ]


async def test_what_a_member_writes_against_the_rules_is_refused_with_its_reason_and_nothing_is_lost(federation: Federation) -> None:
    member = await federation.join("kartamantul")
    name = member.run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
    await until(lambda: member.json("list")[0].get("observation"), "observed")
    batch = await whole_feed(member, "kartamantul")
    await member.stop()
    bodies: list[bytes] = []
    pointer = 0
    for entry in nonsense(batch.feed):
        entry.previous_authority = pointer
        pointer = len(batch.entries) + len(bodies)
        bodies.append(entry.SerializeToString())
    async with as_member(federation, member) as channel:
        acks = await heard_acks(channel, signed_by(member.home.create_keys({}), batch, *bodies))
    assert acks == {batch.feed: len(batch.entries) + len(bodies)}, "it is its own feed, so all of it is kept"
    expected = {
        Reason.MANDATE_INVALID: 1,
        Reason.FUNCTION_UNKNOWN: 1,
        Reason.MANDATE_EXPIRED: 1,
        Reason.MANDATE_OVERLAPS: 1,
        Reason.MANDATE_REPEATED: 1,
        Reason.MANDATE_UNKNOWN: 1,
        Reason.PROPOSAL_INVALID: 1,
        Reason.CHARTER_INVALID: 1,
        Reason.PROPOSAL_UNKNOWN: 1,
        Reason.ACT_UNKNOWN: 1,
        Reason.CANDIDATE_UNKNOWN: 1,
        Reason.ROLE_INSUFFICIENT: 1,
    }
    wanted = {reason.value: count for reason, count in expected.items()}
    await until(lambda: counted(federation.simpul).items() >= wanted.items(), f"judged: {wanted}")
    (granted,) = federation.simpul.json("mandate", "list")
    assert granted["mandate"]["function"] == "represent"
    # A newcomer that gets all of it at once comes to the same, and the member itself takes its entries back and goes on.
    other = await federation.join("javapromo")
    await until(lambda: len(counted(other)) >= len(wanted), "judged elsewhere")
    # What came before its author was known here is refused once, and comes again.
    early = (Reason.FEED_NOT_FOUND, Reason.NOT_A_WITNESS)
    assert {reason: count for reason, count in counted(other).items() if reason not in early} == wanted
    await member.start()
    again = member.run("publish", "-", stdin=json.dumps(PRACTICE | {"title": "Sesudahnya"})).strip()

    async def arrived() -> bool:
        return {name, again} <= await other.names()

    await until(arrived, "what it published before and after")


async def test_who_is_suspended_while_it_is_connected_is_soon_gone(tmp_path: Any) -> None:
    federation = Federation(tmp_path)
    try:
        await federation.found(KAD_LIMITS_CONNECTION_AGE_SECONDS="5")
        nodes = [await federation.join(forum) for forum in ("forum-a", "forum-b", "forum-c")]
        victim = nodes[2]
        await victim.stop()
        async with as_member(federation, victim) as channel:
            ended: asyncio.Future[Reason | None] = asyncio.get_running_loop().create_future()
            stream = asyncio.create_task(stay(channel, ended))
            records: Any = records_pb2_grpc.RecordsServiceStub(channel)
            await records.ListRecords(records_pb2.ListRecordsRequest(), timeout=20)
            await decide(nodes[:2], "Tunggakan iuran", "--suspend", "forum-c")

            # A new call is refused at once, on the connection that is open.
            async def refused() -> Reason | None:
                try:
                    await records.ListRecords(records_pb2.ListRecordsRequest(), timeout=20)
                except grpc.aio.AioRpcError as error:
                    return from_rpc_error(error).reason
                return None

            assert await until(refused, "refused", 20) == Reason.MEMBER_SUSPENDED
            # The stream that runs lives as long as its connection may, and does not come back.
            await asyncio.wait_for(ended, 40)
            await stream
    finally:
        await federation.close()


async def stay(channel: grpc.aio.Channel, ended: asyncio.Future[Reason | None]) -> None:
    """Come back whenever the stream ends, as a node does, until it is refused."""
    while not ended.done():
        _, error = await say(channel, hello("forum-c"))
        if error is not None and error.reason == Reason.MEMBER_SUSPENDED:
            ended.set_result(error.reason)
        await asyncio.sleep(0.1)


async def test_a_simpul_whose_clock_runs_ahead_ends_nothing_and_is_set_right(federation: Federation) -> None:
    nodes = [await federation.join(forum) for forum in ("forum-a", "forum-b")]
    await until(lambda: len(nodes[0].json("federation").get("electorate", [])) == 2, "both are confirmed members")
    number = nodes[0].run("propose", "Rapat", "--deadline", "12h").strip()
    await until(lambda: nodes[1].json("decisions", number)[0]["state"] == "STATE_OPEN", "it is put to the vote")
    await cheat(federation.simpul, "ahead")
    for node in nodes:
        await until(lambda n=node: "LOG_TIME_WRONG" in raised(n), f"{node.name} raises the alarm")
        assert node.json("decisions", number)[0]["state"] == "STATE_OPEN"
    # What forums say goes on all the same.
    name = nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE)).strip()

    async def arrived() -> bool:
        return name in await nodes[1].names()

    await until(arrived, "the record arrives")
    # An honest one asks the members, and their clocks count.
    await federation.simpul.stop()
    await federation.simpul.start()
    for node in nodes:
        await until(lambda n=node: "LOG_TIME_WRONG" not in raised(n), f"{node.name} sees that it was set right")
        assert node.json("decisions", number)[0]["state"] == "STATE_OPEN"
