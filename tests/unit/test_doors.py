"""What a hostile peer says into a session: a longer feed of our own, another history behind a change of keys, rubbish without end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from kad_node import fence as fences
from kad_node.fence import Fence, FenceState
from kad_node.replica import INCONSISTENT
from kad_node.store.memory import MemoryLog
from kad_protocol import evidence, exchange, keychain
from kad_protocol import feed as feeds
from kad_protocol.errors import KadError, QuotaError, Reason
from kad_protocol.exchange import Limits, Session
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, sign_checkpoint
from kad_protocol.v1 import replication_pb2
from tests.unit.feeds import Author
from tests.unit.test_exchange import FAST, Member, Wire, hello, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


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


class Peer:
    """Somebody who says what he likes to a member, through a session."""

    def __init__(self, member: Member, peer: Member, limits: Limits = FAST) -> None:
        self.session = Session(member.replica, peer.feed, "test", limits)
        self.heard: list[replication_pb2.Frame] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._frames: asyncio.Queue[replication_pb2.Frame] = asyncio.Queue()
        #: It never says that it has named all that it holds.
        self._frames.put_nowait(hello(peer, head_count=exchange.MAX_FEEDS))
        self.said = 0
        self._done = 0
        self.task = asyncio.create_task(self.session.run(self._incoming(), self._send))

    async def _incoming(self) -> AsyncIterator[replication_pb2.Frame]:
        while True:
            frame = await self._frames.get()
            yield frame
            # Asked for the next one: this one was handled.
            self._done += 1

    async def _send(self, frame: replication_pb2.Frame) -> None:
        await self.reads.wait()
        self.heard.append(frame)

    async def say(self, *frames: replication_pb2.Frame) -> None:
        """Returns when all of it was handled, or the session has ended."""
        for frame in frames:
            self._frames.put_nowait(frame)
        self.said += len(frames)

        async def handled() -> bool:
            return self.task.done() or self._done > self.said

        await until(handled, "what was said is handled")

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, KadError):
            await self.task


def heads(*found: replication_pb2.Head) -> replication_pb2.Frame:
    return replication_pb2.Frame(heads=found)


# The fence.


async def fenced(member: Member) -> None:
    member.fence = member.replica.fence = Fence(shared=True, simpul=None)


async def test_a_bare_number_holds_the_fence_for_a_while_only(members: list[Member], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = members
    monkeypatch.setattr(fences, "CLAIM_SECONDS", 0.3)
    await fenced(one)
    liar = Peer(one, two)
    await liar.say(heads(replication_pb2.Head(feed=one.feed.origin, size=1_000_000)))
    assert one.fence.state is FenceState.FENCED
    assert [(claim.peer.forum, claim.size) for claim in one.fence.claims()] == [("dua", 1_000_000)]
    honest, other = Peer(one, three), Member("simpul")
    head = (await one.replica.heads([one.feed]))[0]
    await honest.say(heads(head))
    assert one.fence.state is FenceState.FENCED, "the claim may be true"
    # The liar is not counted among those who were heard: it takes another honest one.
    third = Peer(one, other)
    await third.say(heads(head))

    async def opened() -> bool:
        counts = await one.store.read(lambda tx: tx.reason_counts())
        return one.fence.state is FenceState.OPEN and counts == {"HEAD_UNPROVEN": 1}

    await until(opened, "the claim is dropped, counted, and the fence opens")
    for peer in (liar, honest, third):
        await peer.end()


async def test_a_signed_number_holds_the_fence_until_the_entries_are_here(
    members: list[Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restored backup: whoever shows what our own keys have signed is believed, for ever, though it delivers nothing."""
    one, two, three = members
    monkeypatch.setattr(fences, "CLAIM_SECONDS", 0.05)
    old = Member("satu")
    old.signer, old.witness = one.signer, one.witness
    (tmp_path / "old").mkdir()
    await old.open(tmp_path / "old")
    await one.publish(7)
    await fenced(old)
    proof = (await one.replica.heads([one.feed]))[0]
    peer, other = Peer(old, two), Peer(old, three)
    await peer.say(heads(proof))
    small = (await old.replica.heads([one.feed]))[0]
    await other.say(heads(small))
    await peer.say(heads(small))
    assert old.fence.due() is None, "nothing that time would end"
    assert old.fence.state is FenceState.FENCED
    assert [(claim.size, claim.until) for claim in old.fence.claims()] == [(8, None)]
    batch = await one.replica.read(two.feed, one.feed, 1, 512, 1 << 20)
    assert batch is not None
    await peer.say(replication_pb2.Frame(batches=[batch]))
    assert old.fence.state is FenceState.OPEN
    for talker in (peer, other):
        await talker.end()
    await old.store.close()


# Another history behind a change of keys.


class Simpul(Author):
    """An author with two faces: histories that share their first entries."""

    def other_face(self, shared: int) -> Simpul:
        twin = Simpul(MemoryLog(), self.feed, self.keys, role=self.role)
        twin.signers = dict(self.signers)
        twin.log = MemoryLog()
        feeds.pin(twin.log, self.feed, self.genesis)
        while (size := twin.log.feed(self.feed).size) < shared:
            batch = self.batch(size, shared - size)
            feeds.extend(twin.log, batch, batch.checkpoint)
        return twin


async def give(member: Member, author: Author) -> None:
    """A member follows an author."""
    await member.store.write(lambda tx: feeds.pin(tx, author.feed, author.genesis))
    size = (await member.state(author.feed)).size
    while size < author.log.feed(author.feed).size:
        batch = author.batch(size)
        await member.store.write(lambda tx, b=batch: feeds.extend(tx, b, b.checkpoint))
        size += len(batch.entries)


async def marked(member: Member) -> list[str]:
    return list(await member.store.read(lambda tx: tx.locals(INCONSISTENT)))


async def is_forked(member: Member, feed: FeedId) -> bool:
    return bool((await member.state(feed)).quarantine == Reason.FORKED)


@pytest.mark.parametrize("more", [(0, 0), (3, 1), (2, 5)])
async def test_two_faces_that_change_to_different_keys_are_proved(members: list[Member], more: tuple[int, int]) -> None:
    """Neither side knows the keys of the other; the checkpoints that end with the rotations are both signed by the keys before them."""
    one, two, _ = members
    face = Simpul(MemoryLog(), FeedId("uji.kad.internal", "simpul"))
    face.publish(4)
    other = face.other_face(5)
    face.rotate()
    other.rotate()
    face.publish(more[0])
    other.publish(more[1])
    await give(one, face)
    await give(two, other)
    wire = Wire(one, two)

    async def both() -> bool:
        return await is_forked(one, face.feed) and await is_forked(two, face.feed)

    await until(both, "both sides have the proof")
    for member in (one, two):
        (proof,) = await member.store.read(lambda tx: tx.forks(10))
        found = evidence.verify_fork(proof)
        assert (found.feed, found.sizes) == (face.feed, (6, 6))
    await wire.cut()


async def test_a_face_without_the_change_of_keys_is_seen_by_both_and_proved_to_one(members: list[Member]) -> None:
    """Whoever holds the history with the rotation cannot tell its author from a thief of the old keys; but it says so."""
    one, two, _ = members
    face = Simpul(MemoryLog(), FeedId("uji.kad.internal", "simpul"))
    face.publish(4)
    other = face.other_face(5)
    face.rotate()
    face.publish(3)
    other.publish(4)
    await give(one, face)
    await give(two, other)
    wire = Wire(one, two)

    async def both() -> bool:
        return await marked(one) == [face.feed.origin] and await is_forked(two, face.feed)

    await until(both, "the one side has marked it, the other has the proof")
    assert not await is_forked(one, face.feed)
    await wire.cut()
    # It does not pass because its author goes on.
    face.publish()
    batch = face.batch((await one.state(face.feed)).size)
    (answer,) = await one.replica.accept(two.feed, [(batch, batch.checkpoint)])
    assert isinstance(answer, replication_pb2.Ack)
    assert await marked(one) == [face.feed.origin]


async def test_a_thief_with_keys_that_were_given_up_condemns_nobody(members: list[Member]) -> None:
    one, two, _ = members
    face = Simpul(MemoryLog(), FeedId("uji.kad.internal", "simpul"))
    stolen = next(iter(face.signers.values()))
    face.publish(4)
    thief = face.other_face(5)
    face.rotate()
    face.publish(3)
    thief.publish(4)
    await give(one, face)
    # With the true checkpoint of the rotation, and a chain of keys that ends before it, this proves itself to a stranger.
    end, ours = keychain.ends_of_keys(face.log, face.feed)[0]
    with pytest.raises(feeds.ForkedError) as caught:
        feeds.check_head(thief.log, face.feed, ours)
    assert evidence.verify_fork(caught.value.evidence).sizes == (end, thief.log.feed(face.feed).size)
    await one.replica.take_evidence(two.feed, caught.value.evidence)
    assert not await is_forked(one, face.feed)
    assert await marked(one) == [face.feed.origin]
    assert await one.store.read(lambda tx: tx.forks(10)) == []
    # A checkpoint of nothing, as large as one likes, neither.
    note = sign_checkpoint(Checkpoint(face.feed.origin, 1_000_000, bytes(32)), [stolen])
    await one.replica.meet(two.feed, [replication_pb2.Head(feed=face.feed.origin, size=1_000_000, checkpoint=note)], complete=False)
    assert not await is_forked(one, face.feed)


async def test_what_its_own_author_shows_and_never_signed_is_marked_and_what_others_show_is_not(members: list[Member]) -> None:
    one, two, three = members
    await two.publish(3)
    batch = await two.replica.read(one.feed, two.feed, 0, 512, 1 << 20)
    assert batch is not None
    await one.store.write(lambda tx: feeds.extend(tx, batch, batch.checkpoint))
    stranger = Author(MemoryLog(), two.feed)
    stranger.publish(2)
    head = replication_pb2.Head(feed=two.feed.origin, size=3, checkpoint=stranger.log.feed(two.feed).checkpoint)
    await one.replica.meet(three.feed, [head], complete=False)
    assert await marked(one) == []
    await one.replica.meet(two.feed, [head], complete=False)
    assert await marked(one) == [two.feed.origin]


async def test_a_peer_that_is_ahead_by_a_rotation_is_no_alarm(members: list[Member]) -> None:
    one, two, _ = members
    face = Simpul(MemoryLog(), FeedId("uji.kad.internal", "simpul"))
    face.publish(4)
    await give(one, face)
    face.rotate()
    face.publish(4)
    await give(two, face)
    wire = Wire(one, two)

    async def there() -> bool:
        return bool((await one.state(face.feed)).size == face.log.feed(face.feed).size)

    await until(there, "the rotation arrives")
    assert await marked(one) == await marked(two) == []
    assert not await is_forked(one, face.feed)
    assert not await is_forked(two, face.feed)
    await wire.cut()


# Memory.


def footprint(session: Session) -> dict[str, int]:
    """How many things a session keeps, in each of its collections and in those within them."""

    def count(thing: Any) -> int:
        if isinstance(thing, dict):
            return len(thing) + sum(count(value) for value in thing.values())
        return len(thing) if isinstance(thing, (set, list, deque)) else 0

    return {name: count(value) for name, value in vars(session).items() if hasattr(value, "__len__")}


def stranger(number: int) -> str:
    return f"uji.kad.internal/forums/asing-{number}/e0"


def rubbish_heads(number: int) -> replication_pb2.Frame:
    return heads(*(replication_pb2.Head(feed=stranger(number * 64 + n), size=n, checkpoint=bytes(100)) for n in range(64)))


def rubbish_batches(number: int) -> replication_pb2.Frame:
    return replication_pb2.Frame(
        batches=[replication_pb2.Batch(feed=stranger(number * 8 + n), entries=[b"x"], checkpoint=bytes(60_000)) for n in range(8)]
    )


def rubbish_acks(number: int) -> replication_pb2.Frame:
    return replication_pb2.Frame(acks=[replication_pb2.Ack(feed=stranger(number * 64 + n), size=5) for n in range(64)])


def rubbish_refusals(number: int) -> replication_pb2.Frame:
    reasons = (Reason.ROOT_MISMATCH, Reason.QUOTA_EXCEEDED, Reason.POSITION_MISMATCH)
    return replication_pb2.Frame(
        refusals=[replication_pb2.Refusal(feed=stranger(number * 64 + n), reason=reasons[n % 3].value, size=1) for n in range(64)]
    )


def rubbish_witnesses(number: int) -> replication_pb2.Frame:
    text = f"{stranger(0)}\n{number % 3}\n" + "A" * 43 + "=\n\n\u2014 x AAAAAAAA\n"
    cosignatures = [replication_pb2.Cosignature(witness=stranger(number * 64 + n), lines=bytes(200)) for n in range(64)]
    return replication_pb2.Frame(witnessed=[replication_pb2.Witnessed(checkpoint=text.encode(), cosignatures=cosignatures)])


def rubbish_evidence(number: int) -> replication_pb2.Frame:
    return replication_pb2.Frame(evidence=[f"rubbish {number}".encode()])


RUBBISH = (rubbish_heads, rubbish_batches, rubbish_acks, rubbish_refusals, rubbish_witnesses, rubbish_evidence)


@pytest.mark.parametrize("rubbish", RUBBISH, ids=lambda made: made.__name__)
async def test_ten_thousand_frames_of_rubbish_leave_nothing_behind(
    members: list[Member], rubbish: Callable[[int], replication_pb2.Frame]
) -> None:
    one, two, _ = members
    frames = 1_300 if rubbish in (rubbish_batches, rubbish_evidence) else 10_000
    peer = Peer(one, two, Limits(silence_seconds=300))
    for start in range(0, frames, 100):
        await peer.say(*(rubbish(number) for number in range(start, start + 100)))
        peer.heard.clear()
        assert not peer.task.done()
        sizes = footprint(peer.session)
        strangers = sizes.pop("_strangers")
        proofs = sizes.pop("_shown_evidence")
        assert strangers <= exchange._REMEMBERED_STRANGERS
        assert proofs <= exchange._REMEMBERED_EVIDENCE
        assert sum(sizes.values()) < 100, sizes
    await peer.end()


async def test_who_sends_and_reads_nothing_is_sent_away(members: list[Member], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = members
    monkeypatch.setattr(exchange, "_MOST_ANSWERS", 100)
    peer = Peer(one, two, Limits(silence_seconds=300))
    peer.reads.clear()
    for _ in range(20):
        await peer.say(replication_pb2.Frame(batches=[replication_pb2.Batch(feed=stranger(n), entries=[b"x"]) for n in range(30)]))
        assert len(peer.session._answers) <= 100
    peer.reads.set()
    with pytest.raises(QuotaError):
        await peer.task


async def test_a_feed_that_the_peer_named_before_it_was_known_here_is_sent_to_it(members: list[Member]) -> None:
    one, two, _ = members
    late = Author(MemoryLog(), FeedId("uji.kad.internal", "baru"))
    late.publish(3)
    peer = Peer(one, two)
    await peer.say(heads(replication_pb2.Head(feed=late.feed.origin)))
    await give(one, late)

    async def sent() -> bool:
        return any(batch.feed == late.feed.origin for frame in peer.heard for batch in frame.batches)

    await until(sent, "it gets what it asked for")
    await peer.end()
