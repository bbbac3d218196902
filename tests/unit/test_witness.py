"""Who must confirm a simpul, how many are enough, and what a witness never does."""

from __future__ import annotations

import asyncio
import datetime
import json
import random
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_node.fence import Fence
from kad_node.replica import StoreReplica
from kad_node.store.memory import MemoryLog
from kad_node.store.sqlite import SqliteStore
from kad_node.witness import Witness, confirmed_checkpoint, witnessed_note, witnessing
from kad_protocol import feed as feeds
from kad_protocol import order
from kad_protocol.entry import new_entry
from kad_protocol.errors import KadError, PreconditionError, Reason
from kad_protocol.feed import Draft, ForkedError
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId
from kad_protocol.note import cosign, open_checkpoint
from kad_protocol.v1 import entry_pb2, replication_pb2
from kad_protocol.witness import COMMITTEE_SIZE, committee, confirming, is_confirmed, quorum
from tests.unit.feeds import Author, follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

SIMPUL = FeedId("uji.kad.internal", "simpul")
JULY, AUGUST = 1_782_900_000, 1_785_600_000


def forums(count: int) -> list[FeedId]:
    return [FeedId("uji.kad.internal", f"forum-{number:03}") for number in range(count)]


# How many, and whose turn.


@pytest.mark.parametrize("count", range(1, 200))
def test_two_quorums_share_an_honest_witness(count: int) -> None:
    liars = (count - 1) // 3
    assert 2 * quorum(count) - count > liars
    assert quorum(count) <= count - liars, "the liars alone cannot keep a checkpoint from being confirmed"


def test_quorums_of_the_design() -> None:
    assert [quorum(count) for count in (1, 2, 3, 4, 7, 15)] == [1, 2, 3, 3, 5, 11]


def test_the_turn_comes_round_to_everybody() -> None:
    everybody = forums(15)
    months = [datetime.datetime(2026 + month // 12, month % 12 + 1, 9, tzinfo=datetime.UTC) for month in range(15)]
    turns = [committee(everybody, int(month.timestamp())) for month in months]
    assert all(len(set(turn)) == COMMITTEE_SIZE for turn in turns)
    assert {forum: sum(forum in turn for turn in turns) for forum in everybody} == dict.fromkeys(everybody, COMMITTEE_SIZE)
    assert committee(reversed(everybody), JULY) == committee(everybody, JULY)
    assert committee(everybody, JULY) != committee(everybody, AUGUST)


@pytest.mark.parametrize("seconds", [-1, 0, 1 << 62])
def test_any_time_has_its_turn(seconds: int) -> None:
    assert len(committee(forums(20), seconds)) == COMMITTEE_SIZE
    assert committee([], seconds) == ()


def test_nothing_is_confirmed_where_nobody_can_witness() -> None:
    assert not is_confirmed([], {}, JULY)


@given(st.integers(1, 30), st.data())
def test_liars_below_a_third_of_those_whose_turn_it_is_never_confirm_two_histories(count: int, data: st.DataObject) -> None:
    everybody = forums(count)
    turn = committee(everybody, JULY)
    lying = (len(turn) - 1) // 3
    liars = set(data.draw(st.permutations(turn))[:lying])
    side = {forum: data.draw(st.sampled_from("AB-")) for forum in everybody}
    seen = [{forum: JULY for forum in everybody if forum in liars or side[forum] == name} for name in "AB"]
    assert not all(is_confirmed(everybody, times, JULY) for times in seen)


@given(st.integers(8, 60), st.data())
def test_liars_do_not_gain_by_choosing_the_month(count: int, data: st.DataObject) -> None:
    """The time of a cosignature is its author's word: whoever would each name a month in which it has the turn is still too few."""
    everybody = forums(count)
    honest = data.draw(st.sampled_from(everybody))
    liars = data.draw(st.permutations([forum for forum in everybody if forum != honest]))[: quorum(COMMITTEE_SIZE) - 1]
    claimed = {liar: JULY + data.draw(st.integers(-40, 40)) * 30 * 86_400 for liar in liars}
    assert not is_confirmed(everybody, claimed, JULY)


def test_whose_turn_it_is_nobody_can_choose() -> None:
    # Five who have the turn together in another month name that month, and are none of those whose turn it is.
    everybody = forums(24)
    liars = [forum for forum in committee(everybody, AUGUST) if forum not in committee(everybody, JULY)][:5]
    assert len(liars) == quorum(COMMITTEE_SIZE)
    assert confirming(everybody, dict.fromkeys(liars, AUGUST), AUGUST) == tuple(liars)
    assert confirming(everybody, dict.fromkeys(liars, AUGUST), JULY) == ()


def test_one_liar_more_would_be_enough() -> None:
    # The property above is able to fail.
    everybody = forums(7)
    liars, honest = everybody[:3], everybody[3:]
    seen = [dict.fromkeys((*liars, *half), JULY) for half in (honest[:2], honest[2:])]
    assert all(is_confirmed(everybody, times, JULY) for times in seen)


def test_who_has_not_the_turn_does_not_count() -> None:
    everybody = forums(15)
    idle = [forum for forum in everybody if forum not in committee(everybody, JULY)]
    assert not is_confirmed(everybody, dict.fromkeys(idle, JULY), JULY)
    assert is_confirmed(everybody, dict.fromkeys(committee(everybody, JULY)[: quorum(7)], JULY), JULY)


# A federation without channels: the simpul's feed in memory, and witnesses with stores of their own.


class Place:
    """One member's store and its part in witnessing."""

    def __init__(self, author: Author) -> None:
        self.author = author
        self.fence = Fence(shared=False, simpul=None)

    async def open(self, path: Path, copies: Sequence[Author]) -> Place:
        self.store = await SqliteStore.open(path, lambda tx: order.advance(tx, 512) >= 512)
        for copy in copies:
            await self.store.write(lambda tx, c=copy: feeds.pin(tx, c.feed, c.genesis) and None)
        self.begin()
        return self

    def begin(self) -> None:
        signer = self.author.keys.witness_signer(self.author.feed.origin)
        self.witness = Witness(self.store, self.author.feed, {signer.public: signer}.__getitem__, self.fence, lambda: None)

    async def follow(self, author: Author) -> None:
        """Replicate, as an exchange does."""
        while True:
            state = await self.store.read(lambda tx: tx.feed(author.feed))
            held = state.size if state is not None else 0
            if held >= author.log.feed(author.feed).size:
                return
            batch = author.batch(held)
            await self.store.write(lambda tx, b=batch: feeds.extend(tx, b, b.checkpoint))

    async def take(self, *items: replication_pb2.Witnessed) -> list[KadError]:
        return [error for _, error in await self.witness.take(SIMPUL, items)]

    async def confirmed(self) -> int:
        found = await self.store.read(lambda tx: confirmed_checkpoint(tx, SIMPUL))
        return found.checkpoint.size if found is not None else 0

    async def lines(self) -> list[replication_pb2.Witnessed]:
        return await self.witness.shown()


class World:
    """A simpul and its forums."""

    def __init__(self, folder: Path, count: int, category: int = entry_pb2.MEMBER_CATEGORY_FULL) -> None:
        self.folder = folder
        self.simpul = Author(MemoryLog(), SIMPUL, role=entry_pb2.MEMBER_ROLE_SIMPUL)
        self.forums = [Author(MemoryLog(), forum) for forum in forums(count)]
        for forum in self.forums:
            self.simpul.admit(forum, category=category)
        self.places: list[Place] = []

    async def open(self) -> World:
        for forum in self.forums:
            self.places.append(await self.place(forum, forum.feed.forum))
        return self

    async def place(self, author: Author, name: str, simpul: Author | None = None) -> Place:
        place = await Place(author).open(self.folder / name, [self.simpul, *self.forums])
        for forum in self.forums:
            await place.follow(forum)
        await place.follow(simpul or self.simpul)
        return place

    def proposal(self, simpul: Author | None = None) -> replication_pb2.Witnessed:
        author = simpul or self.simpul
        return replication_pb2.Witnessed(checkpoint=author.log.feed(SIMPUL).checkpoint)

    def twin(self) -> Author:
        """The simpul with the same keys and another history from here on."""
        other = object.__new__(Author)
        other.__dict__.update(self.simpul.__dict__)
        other.log = MemoryLog()
        feeds.pin(other.log, SIMPUL, self.simpul.genesis)
        while (held := other.log.feed(SIMPUL).size) < self.simpul.log.feed(SIMPUL).size:
            batch = self.simpul.batch(held)
            feeds.extend(other.log, batch, batch.checkpoint)
        return other

    async def close(self) -> None:
        for place in self.places:
            await place.store.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, 4).open()
    yield made
    await made.close()


def reasons(errors: Sequence[KadError]) -> list[Reason]:
    return [error.reason for error in errors]


async def test_a_checkpoint_that_three_of_four_confirm_is_confirmed(world: World) -> None:
    reader = world.places[3]
    for place in world.places[:3]:
        assert await place.take(world.proposal()) == []
        assert await reader.confirmed() == 0
        assert await reader.take(*[item for item in await place.lines() if place is not reader]) == []
        if place is world.places[1]:
            # The reader itself is the third.
            break
    assert await reader.confirmed() == world.simpul.log.feed(SIMPUL).size
    state = await reader.store.read(lambda tx: witnessing(tx, SIMPUL))
    assert (state.confirmed, state.members, state.quorum) == (3, 4, 3)
    note, rule = await reader.store.read(lambda tx: witnessed_note(tx, SIMPUL))
    assert open_checkpoint(note, [world.simpul.signers[key].public for key in world.simpul.signers]).size == state.size
    assert note.count("— ".encode()) == 2 + 2 * 3
    assert "group committee 3 w1 w2 w3 w4\n" in rule


async def test_only_what_lies_on_the_own_disk_is_confirmed(world: World) -> None:
    place = world.places[0]
    world.simpul.publish()
    assert await place.take(world.proposal()) == []
    assert await place.lines() == []
    assert place.witness.notice([SIMPUL])
    await place.follow(world.simpul)
    assert await place.witness.grown() == []
    assert [len(item.cosignatures) for item in await place.lines()] == [1]
    assert not place.witness.notice([SIMPUL])


async def replicating(place: Place) -> StoreReplica:
    """What tells the witness that a feed has grown."""
    replica = StoreReplica(place.store, place.author.feed, place.fence, lambda: None)
    replica.witness = place.witness
    await replica.start()
    return replica


async def confirmed_up_to(place: Place) -> int:
    said = await place.store.read(lambda tx: tx.local("witness", SIMPUL.origin))
    return int(json.loads(said)["size"]) if said is not None else 0


async def confirmed_here(place: Place, size: int) -> None:
    """Wait until this member confirms so many entries; nobody says anything more to it."""
    async with asyncio.timeout(20):
        while await confirmed_up_to(place) != size:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.01)


async def test_a_checkpoint_whose_entries_arrive_in_the_same_transaction_is_confirmed(world: World) -> None:
    place = world.places[0]
    await replicating(place)
    held = world.simpul.log.feed(SIMPUL).size
    world.simpul.publish()
    batch = world.simpul.batch(held)
    refused, _ = await asyncio.gather(place.take(world.proposal()), place.store.write(lambda tx: feeds.extend(tx, batch, batch.checkpoint)))
    assert refused == []
    await confirmed_here(place, held + 1)


async def test_what_arrives_while_the_witness_looks_again_is_looked_at_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    place = world.places[0]
    await replicating(place)
    held = world.simpul.log.feed(SIMPUL).size
    world.simpul.publish()
    first = world.simpul.batch(held)
    world.simpul.publish()
    second = world.simpul.batch(held + 1)
    look, looks = place.witness.grown, 0

    async def slow() -> list[tuple[FeedId, KadError]]:
        nonlocal looks
        looks += 1
        refused = await look()
        if looks == 1:
            await place.store.write(lambda tx: feeds.extend(tx, second, second.checkpoint))
        return refused

    monkeypatch.setattr(place.witness, "grown", slow)
    assert await place.take(world.proposal()) == []
    await place.store.write(lambda tx: feeds.extend(tx, first, first.checkpoint))
    await confirmed_here(place, held + 2)


async def test_what_was_confirmed_is_remembered_over_a_restart(world: World) -> None:
    place = world.places[0]
    old = world.proposal()
    world.simpul.publish()
    await place.follow(world.simpul)
    assert await place.take(world.proposal()) == []
    before = await place.store.read(lambda tx: tx.local("witness", SIMPUL.origin))
    assert json.loads(before)["size"] == world.simpul.log.feed(SIMPUL).size
    place.begin()
    # An older one is not confirmed after a newer one; the newer one again changes nothing.
    assert await place.take(old, world.proposal()) == []
    assert await place.store.read(lambda tx: tx.local("witness", SIMPUL.origin)) == before
    assert [len(item.cosignatures) for item in await place.lines()] == [1]


async def test_a_home_that_may_be_an_old_copy_confirms_nothing(world: World) -> None:
    place = world.places[0]
    place.fence.forked()
    assert await place.take(world.proposal()) == []
    assert [len(item.cosignatures) for item in await place.lines()] == [0]


async def test_a_simpul_with_two_faces_gets_neither_confirmed_and_is_caught_at_the_first_contact(world: World, tmp_path: Path) -> None:
    twin = world.twin()
    world.simpul.publish()
    twin.publish()
    two_faces = [await world.place(world.forums[0], "other-a", twin), await world.place(world.forums[1], "other-b", twin)]
    for place in world.places[2:]:
        await place.follow(world.simpul)
        assert await place.take(world.proposal()) == []
    for place in two_faces:
        assert await place.take(world.proposal(twin)) == []
    sides = [world.places[2:], two_faces]
    for side in sides:
        for one, other in product(side, side):
            assert await one.take(*await other.lines()) == []
            assert await one.confirmed() == 0
    (error,) = await world.places[2].take(*await two_faces[0].lines())
    assert isinstance(error, ForkedError)
    for place in two_faces:
        await place.store.close()


async def test_a_simpul_that_rewrites_what_was_confirmed_is_caught(world: World) -> None:
    twin = world.twin()
    world.simpul.publish()
    place = world.places[0]
    await place.follow(world.simpul)
    assert await place.take(world.proposal()) == []
    twin.publish(2)
    assert await place.take(world.proposal(twin)) == [], "it lies beyond what is here, so it waits"
    # Without a proof of the simpul's that its new history extends the old one there is nothing to take.
    batch = twin.batch(world.simpul.log.feed(SIMPUL).size)
    with pytest.raises(KadError) as refused:
        await place.store.write(lambda tx: feeds.extend(tx, batch, batch.checkpoint))
    assert refused.value.reason is Reason.ROOT_MISMATCH
    assert [len(item.cosignatures) for item in await place.lines()] == [1]
    # As soon as anybody shows a checkpoint of the other history that is not beyond ours, it is proved.
    world.simpul.publish(5)
    await place.follow(world.simpul)
    (error,) = await place.witness.grown()
    assert isinstance(error[1], ForkedError)


async def test_lines_that_do_not_count_are_refused_and_the_others_kept(world: World) -> None:
    reader, good = world.places[0], world.places[1]
    await good.take(world.proposal())
    stranger = Author(MemoryLog(), FeedId("uji.kad.internal", "asing"))
    checkpoint = open_checkpoint(world.proposal().checkpoint, [next(iter(world.simpul.signers))])
    by_stranger = "".join(map(str, cosign(checkpoint, stranger.keys.witness_signer(stranger.feed.origin), JULY))).encode()
    other_key = "".join(map(str, cosign(checkpoint, MemberKeys.generate().witness_signer(world.forums[2].feed.origin), JULY))).encode()
    (item,) = await good.lines()
    item.cosignatures.add(witness=stranger.feed.origin, lines=by_stranger)
    item.cosignatures.add(witness=world.forums[2].feed.origin, lines=by_stranger)
    item.cosignatures.add(witness=world.forums[2].feed.origin, lines=other_key)
    item.cosignatures.add(witness="../../etc", lines=b"x")
    item.cosignatures.add(witness=world.forums[3].feed.origin, lines=b"x" * 5000)
    found = reasons(await reader.take(item))
    assert found == [Reason.NOT_A_WITNESS, Reason.SIGNATURE_MISSING, Reason.SIGNATURE_MISSING, Reason.INVALID_NAME, Reason.NOTE_MALFORMED]
    (kept,) = await reader.lines()
    assert {cosignature.witness for cosignature in kept.cosignatures} == {world.forums[0].feed.origin, world.forums[1].feed.origin}


async def test_a_flipped_bit_in_a_cosignature_is_seen(world: World) -> None:
    reader, good = world.places[0], world.places[1]
    await good.take(world.proposal())
    (item,) = await good.lines()
    lines = item.cosignatures[0].lines.decode().splitlines()
    chance = random.Random(1)
    for number in range(2):
        words = lines[number].split(" ")
        place = chance.randrange(12, len(words[2]) - 4)
        changed = "A" if words[2][place] != "A" else "B"
        spoilt = [*lines]
        spoilt[number] = " ".join([*words[:2], words[2][:place] + changed + words[2][place + 1 :]])
        bad = replication_pb2.Witnessed(checkpoint=item.checkpoint)
        bad.cosignatures.add(witness=item.cosignatures[0].witness, lines=("\n".join(spoilt) + "\n").encode())
        assert reasons(await reader.take(bad)) == [Reason.SIGNATURE_INVALID]


@pytest.mark.parametrize(
    "checkpoint,reason",
    [
        (b"", Reason.INVALID_NAME),
        (b"\xff\xfe", Reason.INVALID_NAME),
        (b"x" * 20_000, Reason.NOTE_MALFORMED),
        (b"uji.kad.internal/forums/asing/e0\n1\n", Reason.NOT_A_WITNESS),
        (b"uji.kad.internal/forums/forum-001/e0\n1\n", Reason.NOTE_MALFORMED),
        (b"uji.kad.internal/forums/simpul/e0\n1\nx\n", Reason.NOTE_MALFORMED),
    ],
)
async def test_checkpoints_that_are_none(world: World, checkpoint: bytes, reason: Reason) -> None:
    assert reasons(await world.places[0].take(replication_pb2.Witnessed(checkpoint=checkpoint))) == [reason]
    assert await world.places[0].lines() == []


async def test_a_checkpoint_that_the_simpul_has_not_signed_is_refused(world: World) -> None:
    liar = Author(MemoryLog(), SIMPUL, role=entry_pb2.MEMBER_ROLE_SIMPUL)
    assert reasons(await world.places[0].take(world.proposal(liar))) == [Reason.SIGNATURE_INVALID]


async def test_who_has_left_does_not_witness(world: World) -> None:
    leaving = world.forums[0]
    entry = new_entry(2_000_000)
    entry.departure.SetInParent()
    leaving.write([Draft(entry)])
    world.simpul.observe(leaving)
    for place in world.places:
        await place.follow(leaving)
        await place.follow(world.simpul)
    assert await world.places[0].take(world.proposal()) == []
    assert [len(item.cosignatures) for item in await world.places[0].lines()] == [0]


async def test_a_simpul_alone_takes_nobody_the_right_to_witness(world: World) -> None:
    # Able to fail: these are the entries that would do it.
    for state, category in ((entry_pb2.MEMBERSHIP_STATE_SUSPENDED, 1), (entry_pb2.MEMBERSHIP_STATE_LEFT, 1), (1, 2)):
        world.simpul.admit(world.forums[0], state, category)
    await world.places[0].follow(world.simpul)
    assert await world.places[0].take(world.proposal()) == []
    assert [len(item.cosignatures) for item in await world.places[0].lines()] == [1]


async def test_with_too_few_there_is_no_note(world: World) -> None:
    await world.places[0].take(world.proposal())
    with pytest.raises(PreconditionError) as caught:
        await world.places[0].store.read(lambda tx: witnessed_note(tx, SIMPUL))
    assert caught.value.reason is Reason.NOT_WITNESSED


async def test_a_cosignature_of_a_time_that_no_calendar_knows_is_refused(world: World) -> None:
    checkpoint = open_checkpoint(world.proposal().checkpoint, [next(iter(world.simpul.signers))])
    liar = world.forums[1]
    lines = "".join(map(str, cosign(checkpoint, liar.keys.witness_signer(liar.feed.origin), (1 << 64) - 1))).encode()
    item = world.proposal()
    item.cosignatures.add(witness=liar.feed.origin, lines=lines)
    assert reasons(await world.places[0].take(item)) == [Reason.NOTE_MALFORMED]


@pytest.mark.parametrize("guard", [True, False])
async def test_a_witness_that_was_rolled_back_does_not_confirm_another_history(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    guard: bool,  # noqa: FBT001
) -> None:
    if not guard:
        monkeypatch.setattr(Witness, "_remember", lambda *_: None)
    twin = world.twin()
    world.simpul.publish()
    place, other = world.places[0], world.places[1]
    for witness in (place, other):
        await witness.follow(world.simpul)
    assert await place.take(world.proposal()) == []
    assert await other.take(*await place.lines()) == []
    # Its home is restored from before that; another member that holds its line is heard before the simpul shows another face.
    twin.publish()
    restored = await world.place(world.forums[0], "restored", twin)
    assert await restored.take(*await other.lines()) != [], "the two histories show at once where both are here"
    younger = await Place(world.forums[0]).open(world.folder / "younger", [world.simpul, *world.forums])
    for forum in world.forums:
        await younger.follow(forum)
    batch = world.twin().batch(0, 3)
    await younger.store.write(lambda tx: feeds.extend(tx, batch, batch.checkpoint))
    assert await younger.take(*await other.lines()) == []
    await younger.store.write(lambda tx: follow(tx, twin))
    await younger.take(world.proposal(twin))
    roots = {
        cosignature.lines
        for shown in (await younger.lines(), await place.lines())
        for item in shown
        for cosignature in item.cosignatures
        if cosignature.witness == world.forums[0].feed.origin
    }
    # Without the guard one witness has signed two roots for one size.
    assert len(roots) == (1 if guard else 2)
    for witness in (restored, younger):
        await witness.store.close()


async def test_old_checkpoints_are_forgotten(world: World) -> None:
    place = world.places[0]
    for _ in range(9):
        world.simpul.publish()
        await place.follow(world.simpul)
        assert await place.take(world.proposal()) == []
    assert len(await place.store.read(lambda tx: tx.witnessed(SIMPUL))) == 4
    for other in world.places[1:]:
        await other.follow(world.simpul)
        await other.take(world.proposal())
        await place.take(*await other.lines())
    size = world.simpul.log.feed(SIMPUL).size
    assert [held for held, _ in await place.store.read(lambda tx: tx.witnessed(SIMPUL))] == [size]
    assert await place.confirmed() == size


async def test_any_order_of_hearing_leads_to_the_same(tmp_path: Path) -> None:
    """Random interleavings of growing, replicating, proposing and gossiping: nobody ever sees two confirmed roots of one size."""
    chance = random.Random(20261124)
    world = await World(tmp_path, 4).open()
    twin = world.twin()
    roots: dict[int, set[bytes]] = {}
    caught = 0
    for _ in range(120):
        place = chance.choice(world.places)
        match chance.randrange(4):
            case 0:
                chance.choice((world.simpul, twin)).publish()
            case 1:
                try:
                    await place.follow(chance.choice((world.simpul, world.simpul, twin)))
                except KadError:
                    caught += 1
            case 2:
                caught += len(await place.take(world.proposal(chance.choice((world.simpul, world.simpul, twin)))))
            case _:
                other = chance.choice(world.places)
                caught += len(await place.take(*await other.lines()))
        found = await place.store.read(lambda tx: confirmed_checkpoint(tx, SIMPUL))
        if found is not None:
            roots.setdefault(found.checkpoint.size, set()).add(found.checkpoint.root)
    assert len(roots) > 1, "nothing was ever confirmed, so the test says nothing"
    assert caught, "the two faces never met, so the test says nothing"
    assert all(len(of_size) == 1 for of_size in roots.values())
    await world.close()


async def test_many_at_once(world: World) -> None:
    place = world.places[0]
    await asyncio.gather(*(place.take(world.proposal()) for _ in range(20)))
    assert [len(item.cosignatures) for item in await place.lines()] == [1]
