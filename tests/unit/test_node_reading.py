"""What goes wrong between two lines of a node, found by somebody who read it in order to break it. Each was so once."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kad_node import dossier, enrolment, outbox
from kad_node import node as nodes
from kad_node import recovery as recoveries
from kad_node.config import LimitsConfig, NodeConfig
from kad_node.enrolment import Enrolled, Renewed, Standing
from kad_node.fence import Fence, FenceState
from kad_node.home import Home
from kad_node.node import Node, found_feed
from kad_node.peers import Peers
from kad_node.service.records import Records, to_record
from kad_node.service.status import Status
from kad_node.store.memory import MemoryLog
from kad_node.store.sqlite import SqliteStore
from kad_protocol import feed as feeds
from kad_protocol import merkle
from kad_protocol.certificates import Authority, Trust
from kad_protocol.entry import genesis_entry, new_entry
from kad_protocol.errors import InvalidInputError, KadError, PermissionDeniedError, Reason, UnavailableError, VerificationError
from kad_protocol.feed import Draft
from kad_protocol.keys import MemberKeys, RecoveryKeys
from kad_protocol.names import FeedId, RecordName, new_record_id
from kad_protocol.v1 import content_pb2, enrolment_pb2, entry_pb2, node_pb2, records_pb2, replication_pb2
from kad_simpul.api import _keys_of_today
from kad_simpul.quota import Quota
from tests.federation.harness import command
from tests.unit.federation import NETWORKING, SUBSIDIARITY, Federation
from tests.unit.feeds import Author, draft
from tests.unit.test_dossier import made, overstep
from tests.unit.test_enrol import ENROLMENT, FEDERATION, FULL, NOW, WEEK, Applicant, Shelf
from tests.unit.test_recovery import recover
from tests.unit.test_witness import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OWN, SIMPUL, OTHER = (FeedId("uji.kad.internal", forum) for forum in ("kartamantul", "simpul", "barlingmascakeb"))
CONFIG = NodeConfig.model_validate({"forum": OWN.forum, "federation": OWN.federation})


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home", "node")
    made.prepare()
    await found_feed(made, OWN, entry_pb2.MEMBER_ROLE_FORUM, 1_000_000, lambda _: None)
    return made


@pytest.fixture
async def node(home: Home) -> AsyncIterator[Node]:
    made = await Node.open(home, CONFIG)
    yield made
    await made.close()


async def known(node: Node, author: Author) -> None:
    await node.store.write(lambda tx: feeds.pin(tx, author.feed, author.genesis) and None)


def practice(title: str) -> content_pb2.Content:
    return content_pb2.Content(title=title, best_practice=content_pb2.BestPractice(problem="x", solution="x", results="x"))


# The fence.


async def test_a_fork_of_the_own_feed_is_not_forgotten_by_a_restart(home: Home) -> None:
    node = await Node.open(home, CONFIG, SIMPUL)
    await node.store.write(lambda tx: tx.put_meta("shared", b"1"))
    await node.replica.caught(OTHER, OWN, feeds.ForkedError(OWN, b"{}"))
    assert node.fence.state is FenceState.FORKED
    await node.close()
    node = await Node.open(home, CONFIG, SIMPUL)
    try:
        await node.replica.meet(SIMPUL, [], complete=True)
        assert node.fence.state is FenceState.FORKED
        with pytest.raises(UnavailableError):
            node.fence.require()
    finally:
        await node.close()


def test_what_the_own_keys_have_signed_closes_the_fence_again() -> None:
    """Whoever was heard first did not know how much there is; somebody else shows it."""
    fence = Fence(shared=True, simpul=SIMPUL)
    assert fence.silent(SIMPUL, 5, 2)
    assert not fence.told(OTHER, 9, 9, 5, 2)
    with pytest.raises(UnavailableError):
        fence.require()
    assert [(claim.peer, claim.size) for claim in fence.claims()] == [(OTHER, 9)]
    assert fence.settle(9, 2)
    fence.require()


async def test_what_lies_on_disk_closes_no_fence(node: Node) -> None:
    """Somebody shows an entry of which the event loop has not heard yet that it was stored."""
    await node.store.write(lambda tx: feeds.append(tx, OWN, [draft("satu")]))
    head = await node.store.read(lambda tx: tx.feed(OWN))
    assert head is not None
    node.replica.signed_sizes()[OWN] = 1
    said = replication_pb2.Head(feed=OWN.origin, size=head.size, checkpoint=head.checkpoint)
    await node.replica.meet(OTHER, [said], complete=False)
    assert node.fence.state is FenceState.OPEN


async def test_what_is_written_as_the_fence_opens_comes_after_what_waited(home: Home) -> None:
    node = await Node.open(home, CONFIG)
    (first,) = await Records(node).create([records_pb2.CreateRecordRequest(content=practice("satu"))])
    await node.store.write(lambda tx: tx.put_meta("shared", b"1"))
    await node.close()
    node = await Node.open(home, CONFIG, SIMPUL)
    try:
        records = Records(node)
        await records.revise(records_pb2.ReviseRecordRequest(name=first.name, content=practice("dua")))
        gate, busy = threading.Event(), threading.Event()

        def hold(_: Any) -> None:
            busy.set()
            gate.wait(20)

        held = asyncio.create_task(node.store.write(hold))
        await asyncio.to_thread(busy.wait, 20)
        third = asyncio.create_task(records.revise(records_pb2.ReviseRecordRequest(name=first.name, content=practice("tiga"))))
        await asyncio.sleep(0)
        await node.replica.meet(SIMPUL, [], complete=True)
        assert node.fence.state is FenceState.OPEN
        gate.set()
        await held
        await third
        await node.flush_outbox()
        now = await records.get(first.name, 0)
        assert (now.version, now.content.title) == (3, "tiga")
        assert await node.store.read(lambda tx: tx.problems(10)) == []
    finally:
        await node.close()


async def test_a_revocation_does_not_overtake_its_mandate(node: Node) -> None:
    mandate, revocation = new_entry(5_000_000), new_entry(6_000_000)
    mandate.mandate.id = revocation.mandate_revocation.mandate = new_record_id()
    await node.store.write(lambda tx: outbox.put(tx, OWN, [Draft(mandate)], open_fence=False))
    await node.store.write(lambda tx: outbox.put(tx, OWN, [Draft(revocation)], open_fence=True))
    stored = await node.store.read(lambda tx: tx.entries(OWN, 0, 9, 1 << 20))
    bodies = [entry_pb2.Entry.FromString(entry.body).WhichOneof("body") for entry in stored]
    assert bodies == ["genesis", "mandate", "mandate_revocation"]


# Beginning anew.


async def test_a_recovery_is_finished_though_the_log_has_named_the_new_feed_already(home: Home) -> None:
    simpul = Author(MemoryLog(), SIMPUL, role=entry_pb2.MEMBER_ROLE_SIMPUL)
    standing = Standing(OWN, 1, 1, 1, bytes(32), [], SIMPUL, "F")
    source = recoveries.Source("127.0.0.1:1", bytes(32))
    pending = recoveries.begin(home, source, standing, RecoveryKeys.generate(), lambda _: None, forked=False)
    store = await SqliteStore.open(home.store)
    await store.write(lambda tx: feeds.pin(tx, pending.feed, merkle.leaf_hash(pending.genesis_entry)) and None)
    await store.close()
    enrolled = Enrolled(Renewed(b"k", b"c", b"a", "x:1"), SIMPUL, simpul.genesis, "F", entry_pb2.Consent())
    await recoveries.finish(home, pending, enrolled)
    node = await Node.open(home, CONFIG, SIMPUL)
    try:
        assert node.own == pending.feed
        assert (await node.store.read(lambda tx: tx.feed(node.own))).size == 1  # type: ignore[union-attr]
    finally:
        await node.close()


@pytest.mark.parametrize("asked,said", [(50, 3), (50, 51), (0, 3), (0, 0)])
async def test_where_a_feed_is_cut_is_not_for_the_simpul_to_say(monkeypatch: pytest.MonkeyPatch, asked: int, said: int) -> None:
    recovery, author = RecoveryKeys.generate(), Author(MemoryLog(), OWN)
    simpul = Author(MemoryLog(), SIMPUL, role=entry_pb2.MEMBER_ROLE_SIMPUL)
    log, witness = author.keys.log_signer(OWN.origin).public, author.keys.witness_signer(OWN.origin).public
    genesis = genesis_entry(OWN, log, witness, recovery.public_digest, entry_pb2.MEMBER_ROLE_FORUM, 1)
    answer = enrolment_pb2.PrepareRecoveryResponse(
        feed=OWN.origin,
        genesis=genesis.SerializeToString(),
        observed_size=50,
        observed_root=bytes(32),
        held_size=50,
        last_good_root=bytes(32),
        simpul_feed=SIMPUL.origin,
        simpul_genesis=simpul.log.entries(SIMPUL, 0, 1, 1)[0].body,
        federation=OWN.federation,
    )

    async def call(*_: Any) -> enrolment_pb2.PrepareRecoveryResponse:
        return answer

    monkeypatch.setattr(enrolment, "_call", call)
    answer.last_good_size = asked or 50
    assert (await enrolment.prepare_recovery("x:1", bytes(32), OWN.forum, recovery, asked)).last_good_size == 50
    answer.last_good_size = said
    with pytest.raises(VerificationError) as caught:
        await enrolment.prepare_recovery("x:1", bytes(32), OWN.forum, recovery, asked)
    assert caught.value.reason is Reason.RECOVERY_INVALID


async def test_a_damaged_key_file_does_not_hide_the_right_one(home: Home) -> None:
    damaged = home.path / "keys" / "epoch-0-0000000000000000.key"
    damaged.write_bytes(b"")
    node = await Node.open(home, CONFIG)
    await node.close()
    for path in (home.path / "keys").glob("epoch-0*.key"):
        if path != damaged:
            path.unlink()
    with pytest.raises(InvalidInputError) as caught:
        await Node.open(home, CONFIG)
    assert caught.value.reason is Reason.INVALID_FILE


# What others send.


async def test_what_is_put_off_fills_no_memory(tmp_path: Path) -> None:
    world = await World(tmp_path, 2).open()
    try:
        witness, peer = world.places[0].witness, world.forums[1].feed
        root, line = base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes(68)).decode()
        refused = []
        for size in range(1_000_000, 1_000_008):
            note = f"{SIMPUL.origin}\n{size}\n{root}\n\n— {SIMPUL.origin} {line}\n".encode()
            item = replication_pb2.Witnessed(checkpoint=note)
            item.cosignatures.add(witness="long", lines=bytes(1 << 20))
            for number in range(1500):
                item.cosignatures.add(witness=f"w{number}", lines=bytes(4000))
            refused += await witness.take(peer, [item])
        kept = [item for items in witness._waiting.values() for _, item in items.values()]
        assert sum(item.ByteSize() for item in kept) <= 8 << 20
        assert kept
        assert all(len(given.lines) <= 4096 for item in kept for given in item.cosignatures)
        assert {error.reason for _, error in refused} == {Reason.NOTE_MALFORMED}
    finally:
        await world.close()


async def test_contents_that_come_later_are_measured_too(node: Node) -> None:
    author = Author(MemoryLog(), OTHER)
    await known(node, author)
    clock = [0.0]
    node.replica.quota = Quota(1000, 20_000, now=lambda: clock[-1])
    drafts = [draft(f"J{number}", text="x" * 300) for number in range(50)]
    author.write(drafts)
    batch = author.batch(0)
    del batch.contents[:]
    await node.replica.accept(OTHER, [(batch, batch.checkpoint)])
    replies = [replication_pb2.ContentReply(feed=OTHER.origin, index=n + 1, content=d.content) for n, d in enumerate(drafts)]
    await node.replica.take(OTHER, replies)
    stored = await node.store.read(lambda tx: [bool(entry.content) for entry in tx.entries(OTHER, 1, 100, 1 << 30)])
    assert 0 < sum(stored) < 50
    assert (await node.store.read(lambda tx: tx.reason_counts()))["QUOTA_EXCEEDED"] == 50 - sum(stored)
    # Nor is it asked for again before there is room.
    assert await node.replica.missing(32) == []
    clock.append(3600.0)
    assert len(await node.replica.missing(32)) == min(32, 50 - sum(stored))


async def test_of_a_feed_that_was_given_up_one_proof_is_kept(node: Node) -> None:
    """Whoever stole its keys can make them without end."""
    author = Author(MemoryLog(), OTHER)
    await known(node, author)
    author.publish(3)
    batch = author.batch(0)
    await node.replica.accept(OTHER, [(batch, batch.checkpoint)])
    await node.store.write(lambda tx: feeds.quarantine(tx, OTHER, Reason.EPOCH_SUPERSEDED))
    for _ in range(5):
        twin = Author(MemoryLog(), OTHER, keys=author.keys)
        twin.publish(2)
        head = replication_pb2.Head(feed=OTHER.origin, size=3, checkpoint=twin.log.feed(OTHER).checkpoint)
        await node.replica.meet(SIMPUL, [head], complete=False)
    assert len(await node.store.read(lambda tx: tx.evidence())) == 1


async def test_evidence_with_a_number_that_is_none_is_refused(node: Node) -> None:
    author = Author(MemoryLog(), OTHER)
    author.publish(2)
    twin = Author(MemoryLog(), OTHER, keys=author.keys)
    twin.publish(1)
    with pytest.raises(feeds.ForkedError) as caught:
        feeds.check_head(author.log, OTHER, twin.log.feed(OTHER).checkpoint)
    document = json.loads(caught.value.evidence)
    document["keys"]["rotations"] = [{"index": 0, "entry": "", "note": "", "hashes": []}]
    data = json.dumps(document).replace('"index": 0', '"index": 1e400').encode()
    await node.replica.take_evidence(SIMPUL, data)
    assert (await node.store.read(lambda tx: tx.reason_counts()))["INVALID_FILE"] == 1


# Streams.


class Stream:
    """One that a peer began, or that we began; what was sent on it."""

    def __init__(self, peers: Peers, feed: FeedId, *, dialled: bool) -> None:
        self.sent: list[replication_pb2.Frame] = []
        self.frames: asyncio.Queue[replication_pb2.Frame | None] = asyncio.Queue()
        hello = replication_pb2.Hello(protocol=1, feed=feed.origin, window_bytes=1 << 20, head_count=1)
        head = replication_pb2.Head(feed=OWN.origin, size=0)
        self.frames.put_nowait(replication_pb2.Frame(hello=hello, heads=[head]))
        self.task = asyncio.create_task(peers._exchange(feed, self._read(), self._send, dialled=dialled))

    async def _read(self) -> AsyncIterator[replication_pb2.Frame]:
        while (frame := await self.frames.get()) is not None:
            yield frame

    async def _send(self, frame: replication_pb2.Frame) -> None:
        self.sent.append(frame)

    async def begun(self) -> None:
        async with asyncio.timeout(20):
            while not any(frame.batches for frame in self.sent):  # noqa: ASYNC110 - frames have no event
                await asyncio.sleep(0.01)

    async def goodbye(self) -> str:
        """Wait until it is over; why."""
        async with asyncio.timeout(20):
            while not any(frame.HasField("goodbye") for frame in self.sent):  # noqa: ASYNC110 - frames have no event
                await asyncio.sleep(0.01)
        self.frames.put_nowait(None)
        await asyncio.gather(self.task, return_exceptions=True)
        return next(frame.goodbye.reason for frame in self.sent if frame.HasField("goodbye"))


@pytest.mark.parametrize("end", ["given up", "suspended", "forgotten"])
async def test_no_stream_outlives_what_ends_them(node: Node, end: str) -> None:
    """Nor one that a newer one has displaced."""
    await known(node, Author(MemoryLog(), OTHER))
    peers = Peers(node, None, Trust([]), LimitsConfig)
    streams = []
    for dialled in (False, True):
        streams.append(Stream(peers, OTHER, dialled=dialled))
        await streams[-1].begun()
    if end == "given up":
        node.on_given_up(OTHER)
    elif end == "suspended":
        peers.hang_up(OTHER)
    else:
        await peers.forget(OTHER.forum)
    expected = {"given up": "EPOCH_SUPERSEDED", "suspended": "MEMBER_SUSPENDED", "forgotten": "SHUTTING_DOWN"}[end]
    assert [await stream.goodbye() for stream in streams] == [expected] * 2


@pytest.mark.parametrize("dialled", [True, False])
async def test_whoever_is_suspended_is_served_on_no_stream(node: Node, *, dialled: bool) -> None:
    await known(node, Author(MemoryLog(), OTHER))
    node.outside = frozenset({(OTHER.federation, OTHER.forum)})
    stream = Stream(Peers(node, None, Trust([]), LimitsConfig), OTHER, dialled=dialled)
    with pytest.raises(PermissionDeniedError) as caught:
        await stream.task
    assert caught.value.reason is Reason.MEMBER_SUSPENDED
    assert stream.sent == []


async def test_a_peer_that_was_removed_is_not_believed_any_more(node: Node) -> None:
    author = Author(MemoryLog(), OTHER)
    authority = Authority.create(OTHER, datetime.datetime.now(datetime.UTC))
    card = node_pb2.PeerCard(
        feed=OTHER.origin,
        genesis=author.log.entries(OTHER, 0, 1, 1)[0].body,
        authority_certificate=authority.certificate.public_bytes(Encoding.DER),
        address="127.0.0.1:1",
    )
    peers = Peers(node, None, Trust([]), LimitsConfig)
    status = Status(node, peers, daemon=True)
    await status.add_peer(card)
    assert len(peers.trust.anchors) == 1
    await status.remove_peer(f"forums/{OTHER.forum}")
    assert not peers.trust.anchors
    await peers.close()


# Folding anew, and what is shown.


async def test_whoever_was_put_out_stays_out_while_everything_is_folded_anew(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "_FOLD_CHUNK", 5)
    fed = Federation(tmp_path, mode=NETWORKING)
    old, entries = fed.forums[1], []
    for _ in range(600):
        entry, state = fed.entry(), old.log.feed(old.feed)
        entry.observation.feed, entry.observation.size, entry.observation.root = old.feed.origin, state.size, state.root
        entries.append(entry)
    fed.say(fed.simpul, *entries)
    recover(fed, 1, 1)
    simpul = fed.simpul.feed
    node = await Node.open(home, CONFIG, simpul)
    await node.store.write(lambda tx: feeds.pin(tx, simpul, fed.simpul.genesis) and None)

    async def bring() -> None:
        for author in (fed.simpul, *fed.former, *fed.forums):
            held = await node.store.read(lambda tx: tx.feed(author.feed))  # noqa: B023 - called at once
            if held is not None and held.size < author.log.feed(author.feed).size:
                batch = author.batch(held.size)
                await node.store.write(lambda tx: feeds.extend(tx, batch, batch.checkpoint))  # noqa: B023 - called at once

    async def judged() -> None:
        size = fed.simpul.log.feed(simpul).size
        async with asyncio.timeout(60):
            while await node.store.read(lambda tx: tx.judged(simpul)) < size:
                assert not again or old.feed in node.given_up
                await bring()
                await asyncio.sleep(0.005)

    again = False
    await judged()
    assert old.feed in node.given_up
    await node.store.write(lambda tx: tx.put_meta("fold-version", b""))
    await node.close()
    again = True
    for interrupted in (True, False):
        node = await Node.open(home, CONFIG, simpul)
        assert old.feed in node.given_up
        assert await node.store.read(lambda tx: tx.judged(simpul)) < fed.simpul.log.feed(simpul).size
        if interrupted:
            await node.close()
    await judged()
    assert old.feed in node.given_up
    assert await node.store.read(lambda tx: tx.meta("folding-anew")) is None
    await node.close()


@pytest.mark.parametrize("reviewed", [False, True])
def test_a_newer_version_shows_nobody_what_waited_or_was_turned_down(tmp_path: Path, *, reviewed: bool) -> None:
    from tests.unit.test_recovery import PRACTICE, review  # noqa: PLC0415 - a name that is used in this test only

    fed = Federation(tmp_path, mode=SUBSIDIARITY)
    owner, reader, record = fed.forums[0], fed.forums[1].feed, new_record_id()
    curate = fed.mandate(owner, "curate", kinds=[PRACTICE])
    fed.observe(owner)
    fed.say(owner, draft("Belum", record))
    fed.observe(owner)
    if reviewed:
        review(fed, curate, owner, record, 1, approved=False)
    fed.say(owner, draft("Lagi", record, 2))
    fed.observe(owner)

    def shown(version: int) -> records_pb2.Record:
        row = fed.node().record(RecordName(owner.feed.forum, record), version, reader)
        assert row is not None
        return to_record(row, reader)

    first = shown(1)
    assert first.state == (records_pb2.RECORD_STATE_REJECTED if reviewed else records_pb2.RECORD_STATE_SUBMITTED)
    assert not first.HasField("content")
    review(fed, curate, owner, record, 2, approved=True)
    assert shown(0).state == shown(2).state == records_pb2.RECORD_STATE_PUBLISHED
    assert not shown(1).HasField("content")


# What is odd.


@pytest.mark.parametrize(
    "field,value", [("feed", None), ("findings", [{"index": -(2**70), "reason": "x"}]), ("findings", [{"index": -1, "reason": "x"}])]
)
def test_a_dossier_with_odd_values_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    fed = Federation(tmp_path, 3, SUBSIDIARITY)
    overstep(fed)
    document = json.loads(made(fed.node()))
    document[field] = value
    with pytest.raises(KadError):
        dossier.verify(json.dumps(document).encode())


def test_a_recovery_code_in_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(b"\xff\xfe\x00")
    where = ("--forum", "abc", "--simpul", "127.0.0.1:1", "--fingerprint", "0" * 64)
    done = command("kad_node", tmp_path / "home", "recover", *where, "--code-file", str(tmp_path / "code"), "--yes")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "not text" in " ".join(done.stderr.split())


async def test_whoever_began_anew_and_was_away_too_long_joins_again_by_an_invitation(tmp_path: Path) -> None:
    """Of its new feed nothing but the genesis' hash is known at the simpul."""
    simpul, heir = FeedId(FEDERATION, "simpul"), FeedId(FEDERATION, "kartamantul", 1)
    home = Home(tmp_path / "home", "simpul")
    home.prepare()
    await found_feed(home, simpul, entry_pb2.MEMBER_ROLE_SIMPUL, 1_000_000, lambda _: None)
    node = await Node.open(home, NodeConfig.model_validate({"forum": "simpul", "federation": FEDERATION}))
    try:
        who, other = (Applicant(feed=heir, keys=MemberKeys.generate(1)) for _ in range(2))
        genesis = merkle.leaf_hash(who.genesis().SerializeToString())
        await node.store.write(lambda tx: feeds.pin(tx, heir, genesis) and None)
        shelf = Shelf()
        text, _ = ENROLMENT.invite(shelf, "kartamantul", FULL, WEEK, NOW)

        async def redeem(applicant: Applicant) -> FeedId:
            request = applicant.apply(text)
            return await node.store.read(
                lambda tx: ENROLMENT.redeem(shelf, request, NOW, lambda feed: _keys_of_today(tx, feed, request.genesis)).feed
            )

        with pytest.raises(InvalidInputError) as caught:
            await redeem(other)
        assert caught.value.reason is Reason.GENESIS_MISMATCH
        assert await redeem(who) == heir
    finally:
        await node.close()
