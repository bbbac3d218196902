"""Sessions over a network that one can cut: everything arrives, whatever breaks; what breaks the protocol ends the session."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from kad_node.fence import Fence, FenceState
from kad_node.replica import INCONSISTENT, StoreReplica
from kad_node.store.sqlite import SqliteStore
from kad_protocol import evidence, merkle, order
from kad_protocol import feed as feeds
from kad_protocol.entry import genesis_entry
from kad_protocol.errors import KadError, QuotaError, Reason
from kad_protocol.exchange import Limits, Session
from kad_protocol.feed import Draft
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId
from kad_protocol.v1 import entry_pb2, replication_pb2
from tests.unit.feeds import draft

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

FAST = Limits(heartbeat_seconds=0.2, silence_seconds=20)


class Member:
    """A member without network: a store, a feed, a replica."""

    def __init__(self, name: str) -> None:
        self.feed = FeedId("uji.kad.internal", name)
        self.signer = MemberKeys.generate().log_signer(self.feed.origin)
        self.witness = MemberKeys.generate().witness_signer(self.feed.origin).public

    async def open(self, folder: Path) -> None:
        self.store = await SqliteStore.open(folder / f"{self.feed.forum}.sqlite3", self._prepare)
        entry = genesis_entry(self.feed, self.signer.public, self.witness, bytes(32), entry_pb2.MEMBER_ROLE_FORUM, 1)
        self.genesis = merkle.leaf_hash(entry.SerializeToString())
        await self.pin(self)
        await self.store.write(lambda tx: feeds.append(tx, self.feed, [Draft(entry)]))
        self.fence = Fence(shared=False, simpul=None)
        self.replica = StoreReplica(self.store, self.feed, self.fence, lambda: None)
        await self.replica.start()

    def _prepare(self, tx: Any) -> bool:
        state = tx.feed(self.feed)
        if state is not None and state.tail > state.size:
            feeds.seal(tx, self.feed, lambda _: self.signer)
        return order.advance(tx, 500) >= 500

    async def pin(self, other: Member) -> None:
        await self.store.write(lambda tx: feeds.pin(tx, other.feed, other.genesis))

    async def publish(self, count: int = 1) -> None:
        await self.store.write(lambda tx: feeds.append(tx, self.feed, [draft(f"{self.feed.forum} {n}") for n in range(count)]))

    async def state(self, feed: FeedId) -> Any:
        return await self.store.read(lambda tx: tx.feed(feed))


class Wire:
    """Two sessions and what lies between them."""

    def __init__(self, one: Member, two: Member, limits: Limits = FAST) -> None:
        self.queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue(8), asyncio.Queue(8)]
        self.sessions = [Session(one.replica, two.feed, "test", limits), Session(two.replica, one.feed, "test", limits)]
        self.meddle: Callable[[replication_pb2.Frame], replication_pb2.Frame] = lambda frame: frame
        self.tasks = [asyncio.create_task(self._run(n)) for n in (0, 1)]
        self.largest = 0

    async def _run(self, side: int) -> None:
        async def incoming() -> AsyncIterator[replication_pb2.Frame]:
            while (data := await self.queues[side].get()) is not None:
                yield replication_pb2.Frame.FromString(data)

        async def send(frame: replication_pb2.Frame) -> None:
            data = self.meddle(frame).SerializeToString()
            self.largest = max(self.largest, len(data))
            await self.queues[1 - side].put(data)

        await self.sessions[side].run(incoming(), send)

    async def cut(self) -> list[BaseException | None]:
        for task in self.tasks:
            task.cancel()
        return await asyncio.gather(*self.tasks, return_exceptions=True)  # type: ignore[return-value]


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - a condition of a store, which has no event
            await asyncio.sleep(0.01)


async def alike(*members: Member) -> bool:
    """Every member holds the same of every feed, under the same checkpoint."""
    views = [await member.store.read(lambda tx: [(s.feed, s.size, s.root, s.checkpoint) for s in tx.feeds()]) for member in members]
    return all(view == views[0] for view in views) and all(size for _, size, _, _ in views[0])


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[list[Member]]:
    made = [Member(name) for name in ("satu", "dua", "tiga")]
    for member in made:
        await member.open(tmp_path)
    for member in made:
        for other in made:
            await member.pin(other)
    yield made
    for member in made:
        await member.store.close()


async def test_both_get_what_the_other_has_and_what_comes(members: list[Member]) -> None:
    one, two, _ = members
    await one.publish(700)
    await two.publish(3)
    wire = Wire(one, two)

    async def both() -> bool:
        return (await one.state(two.feed)).size == (await two.state(two.feed)).size and (await two.state(one.feed)).size == 701

    await until(both, "the past arrives")
    for _ in range(10):
        await one.publish()
        await two.publish()
    await until(lambda: same_feeds(one, two), "the present arrives")
    assert wire.largest < 1 << 20
    await wire.cut()


async def same_feeds(one: Member, two: Member) -> bool:
    pairs = [(await one.state(feed), await two.state(feed)) for feed in (one.feed, two.feed)]
    return all((a.size, a.root, a.checkpoint) == (b.size, b.root, b.checkpoint) for a, b in pairs)


async def test_a_third_gets_it_through_the_second_and_cuts_lose_nothing(members: list[Member]) -> None:
    one, two, three = members
    for round_number in range(4):
        left, right = Wire(one, two), Wire(two, three)
        await one.publish(60)
        await three.publish(1)
        if round_number < 3:
            # Cut as soon as something has moved, wherever it then is.
            before = (await three.state(one.feed)).size
            await until(lambda b=before: moved(three, one, b), "something moves")  # type: ignore[misc]
        else:
            await until(lambda: alike(one, two, three), "everything is everywhere")
        await left.cut()
        await right.cut()
    assert (await three.state(one.feed)).size == 241


async def moved(member: Member, of: Member, before: int) -> bool:
    return bool((await member.state(of.feed)).size > before)


async def test_a_feed_that_does_not_verify_does_not_stop_the_others(members: list[Member]) -> None:
    one, two, three = members
    early = Wire(two, three)
    await three.publish(3)
    await until(lambda: moved(two, three, 3), "two has three's feed")
    await early.cut()

    wire = Wire(two, one)

    def spoil(frame: replication_pb2.Frame) -> replication_pb2.Frame:
        for batch in frame.batches:
            if batch.feed == three.feed.origin:
                batch.entries[-1] = batch.entries[-1][:-1] + bytes([batch.entries[-1][-1] ^ 1])
        return frame

    wire.meddle = spoil
    await two.publish(5)
    await until(lambda: moved(one, two, 5), "two's own feed arrives")
    await until(lambda: refused(one), "the spoiled one is counted")
    assert (await one.state(three.feed)).size == 0
    await wire.cut()
    honest = Wire(two, one)
    await until(lambda: moved(one, three, 3), "an honest relay mends it")
    await honest.cut()


async def refused(member: Member) -> bool:
    return bool(await member.store.read(lambda tx: tx.reason_counts()))


async def test_contents_that_were_left_out_are_asked_for(members: list[Member]) -> None:
    one, two, _ = members
    wire = Wire(one, two)
    stripped = []

    def strip(frame: replication_pb2.Frame) -> replication_pb2.Frame:
        for batch in frame.batches:
            if batch.feed == one.feed.origin and len(batch.contents):
                batch.ClearField("contents")
                stripped.append(batch.after)
        return frame

    wire.meddle = strip
    await one.publish(4)

    async def complete() -> bool:
        held = await two.store.read(lambda tx: tx.entries(one.feed, 0, 10, 1 << 20))
        return len(held) == 5 and all(entry.content for entry in held[1:])

    await until(complete, "the contents arrive")
    assert stripped
    assert not await two.store.read(lambda tx: tx.missing_contents(10))
    await wire.cut()


async def test_a_node_with_an_old_copy_of_its_own_feed_takes_it_back(members: list[Member], tmp_path: Path) -> None:
    one, two, _ = members
    wire = Wire(one, two)
    await one.publish(5)
    await until(lambda: moved(two, one, 5), "two has it")
    await wire.cut()
    lost = Member("satu")
    lost.signer = one.signer
    lost.witness = one.witness
    (tmp_path / "old").mkdir()
    await lost.open(tmp_path / "old")
    await lost.pin(two)
    lost.fence = lost.replica.fence = Fence(shared=True, simpul=None)
    wire = Wire(lost, two)

    async def opened() -> bool:
        return lost.fence.state is FenceState.OPEN

    await until(opened, "the fence opens")
    assert (await lost.state(one.feed)).size == 6
    await wire.cut()
    await lost.store.close()


def hello(member: Member, **more: Any) -> replication_pb2.Frame:
    return replication_pb2.Frame(
        hello=replication_pb2.Hello(
            **({"protocol": 1, "feed": member.feed.origin, "nonce": bytes(16), "window_bytes": 1 << 20, "head_count": 0} | more)
        )
    )


async def talk(member: Member, peer: Member, frames: list[replication_pb2.Frame], limits: Limits = FAST) -> Reason:
    """Say these frames to a member; the reason for which it ends the session."""

    async def incoming() -> AsyncIterator[replication_pb2.Frame]:
        for frame in frames:
            yield frame
        await asyncio.Event().wait()

    async def send(frame: replication_pb2.Frame) -> None:
        if frame.HasField("goodbye"):
            said.append(Reason(frame.goodbye.reason))

    said: list[Reason] = []
    session = Session(member.replica, peer.feed, "test", limits)
    async with asyncio.timeout(30):
        try:
            await session.run(incoming(), send)
        except KadError as error:
            return error.reason
    return said[0]


async def test_what_breaks_the_protocol_ends_the_session(members: list[Member]) -> None:
    one, two, three = members
    batch = replication_pb2.Batch(feed=two.feed.origin, entries=[b"x"])
    cases: list[tuple[list[replication_pb2.Frame], Reason]] = [
        ([replication_pb2.Frame(heartbeat=replication_pb2.Heartbeat())], Reason.FRAME_MALFORMED),
        ([hello(two), hello(two)], Reason.FRAME_MALFORMED),
        ([hello(two, protocol=2)], Reason.PROTOCOL_VERSION),
        ([hello(three)], Reason.IDENTITY_INVALID),
        ([hello(two, feed="x")], Reason.INVALID_NAME),
        ([hello(two, head_count=1 << 30)], Reason.QUOTA_EXCEEDED),
        ([hello(two), replication_pb2.Frame(batches=[batch, batch])], Reason.FRAME_MALFORMED),
        ([hello(two), replication_pb2.Frame(heads=[replication_pb2.Head(feed=two.feed.origin)] * 65)], Reason.FRAME_MALFORMED),
        ([hello(two), replication_pb2.Frame(heads=[replication_pb2.Head(feed="../x")])], Reason.INVALID_NAME),
        (
            [hello(two), replication_pb2.Frame(content_requests=[replication_pb2.ContentRequest(feed=one.feed.origin)] * 257)],
            Reason.FRAME_MALFORMED,
        ),
    ]
    for frames, reason in cases:
        assert await talk(one, two, frames) == reason, reason


async def test_silent_and_slow_peers_are_sent_away(members: list[Member]) -> None:
    one, two, _ = members
    await one.publish(50)
    impatient = Limits(heartbeat_seconds=0.05, silence_seconds=0.2, stall_seconds=60)
    assert await talk(one, two, [hello(two)], impatient) == Reason.PEER_UNREACHABLE
    wants = hello(two, head_count=1)
    wants.heads.add(feed=one.feed.origin)
    stalled = Limits(heartbeat_seconds=0.05, silence_seconds=60, stall_seconds=0.2)
    assert await talk(one, two, [wants], stalled) == Reason.CONSUMER_TOO_SLOW


async def test_a_peer_that_acknowledges_nothing_gets_one_window(members: list[Member]) -> None:
    one, two, _ = members
    await one.publish(3000)
    sent = 0

    async def incoming() -> AsyncIterator[replication_pb2.Frame]:
        wants = hello(two, head_count=1, window_bytes=64 << 10)
        wants.heads.add(feed=one.feed.origin)
        yield wants
        await asyncio.Event().wait()

    async def send(frame: replication_pb2.Frame) -> None:
        nonlocal sent
        sent += sum(batch.ByteSize() for batch in frame.batches)

    limits = Limits(heartbeat_seconds=0.05, silence_seconds=60, stall_seconds=0.3, frame_bytes=64 << 10)
    with contextlib.suppress(KadError):
        await asyncio.wait_for(Session(one.replica, two.feed, "test", limits).run(incoming(), send), 30)
    assert 0 < sent <= (64 << 10) * 2 + (16 << 10)


# Quotas and forks.


class Measure:
    """A quota that has room for so many entries, until somebody makes more."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.refused = 0

    def check(self, feed: FeedId) -> None:
        if self.room <= 0:
            self.refused += 1
            raise QuotaError(Reason.QUOTA_EXCEEDED, "enough for today", feed=feed, retry_after_seconds=1)

    def charge(self, feed: FeedId, entries: int, size: int) -> None:
        assert size > entries
        del feed
        self.room -= entries


async def test_who_has_used_its_measure_is_paused_and_goes_on_and_the_others_do_not_notice(members: list[Member]) -> None:
    one, two, three = members
    measure = two.replica.quota = Measure(1)
    await one.publish(2)
    wire = Wire(one, two)
    await until(lambda: has(two, one.feed, 3), "the first batch is taken whole")
    await one.publish(2)
    await until(lambda: refused_by(measure), "the next one is refused")
    await until(lambda: refused_by(measure, 2), "and again after the pause")
    assert (await two.state(one.feed)).size == 3
    await two.publish()
    await until(lambda: has(one, two.feed, 2), "the other direction goes on")
    measure.room = 1_000
    await until(lambda: has(two, one.feed, 5), "there is room again, and it goes on by itself")
    assert await two.store.read(lambda tx: tx.reason_counts()) == {"QUOTA_EXCEEDED": measure.refused}
    assert (await two.state(three.feed)).size == 0
    await wire.cut()


async def refused_by(measure: Measure, times: int = 1) -> bool:
    return measure.refused >= times


async def has(member: Member, feed: FeedId, size: int) -> bool:
    return bool((await member.state(feed)).size == size)


@pytest.mark.parametrize("longer", [False, True])
async def test_both_sides_of_a_fork_learn_of_it_and_so_does_a_third(members: list[Member], tmp_path: Path, *, longer: bool) -> None:
    one, two, liar = members
    twin = Member("tiga")
    twin.signer, twin.witness = liar.signer, liar.witness
    (tmp_path / "twin").mkdir()
    await twin.open(tmp_path / "twin")
    assert twin.genesis == liar.genesis
    await liar.publish(2)
    await twin.publish(5 if longer else 1)
    for source, copy in ((liar, one), (twin, two)):
        batch = await source.replica.read(copy.feed, liar.feed, 0, 512, 1 << 20)
        await copy.store.write(lambda tx, b=batch: feeds.extend(tx, b, b.checkpoint))
    wire = Wire(one, two)

    async def both_know() -> bool:
        states = [await member.state(liar.feed) for member in (one, two)]
        return all(state.quarantine == Reason.FORKED for state in states)

    await until(both_know, "both have stopped that feed, whichever noticed")
    for member in (one, two):
        (proof,) = await member.store.read(lambda tx: tx.forks(10))
        assert evidence.verify_fork(proof).feed == liar.feed
    await wire.cut()
    # Somebody who holds nothing of that feed hears of it too, and takes neither history.
    third = Member("empat")
    await third.open(tmp_path)
    for member in (liar, two):
        await third.pin(member)
    await two.pin(third)
    wire = Wire(two, third)

    async def third_knows() -> bool:
        return bool((await third.state(liar.feed)).quarantine == Reason.FORKED)

    await until(third_knows, "a third hears of it")
    await wire.cut()


async def test_evidence_that_proves_nothing_is_counted_and_changes_nothing(members: list[Member]) -> None:
    one, two, _ = members
    for data in (b"{}", b'{"type": "kad.evidence.v1", "kind": "fork"}', b"\xff" * 1000):
        await one.replica.take_evidence(two.feed, data)
    assert await one.store.read(lambda tx: tx.reason_counts()) == {"INVALID_FILE": 3}
    assert await one.store.read(lambda tx: tx.forks(10)) == []
    assert (await one.state(two.feed)).quarantine == ""


async def test_what_its_own_author_cannot_continue_is_marked_until_it_does(members: list[Member]) -> None:
    """No proof of anything, but the node says so."""
    one, two, _ = members
    await two.publish(2)
    good = await two.replica.read(two.feed, two.feed, 0, 512, 1 << 20)
    assert good is not None
    bad = replication_pb2.Batch()
    bad.CopyFrom(good)
    del bad.entries[-1], bad.contents[-1]
    bad.entries.append(good.entries[1])
    bad.contents.append(good.contents[1])
    (answer,) = await one.replica.accept(two.feed, [(bad, bad.checkpoint)])
    assert isinstance(answer, replication_pb2.Refusal)
    assert answer.reason == Reason.ROOT_MISMATCH
    assert list(await one.store.read(lambda tx: tx.locals(INCONSISTENT))) == [two.feed.origin]
    (taken,) = await one.replica.accept(two.feed, [(good, good.checkpoint)])
    assert isinstance(taken, replication_pb2.Ack)
    assert await one.store.read(lambda tx: tx.locals(INCONSISTENT)) == {}
