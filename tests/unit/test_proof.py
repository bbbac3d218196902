"""Proof files: the format of C2SP, the policy of a reader, and that no changed byte proves anything else."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kad_node.service.proofs import record_proof
from kad_node.witness import witnessed_note
from kad_protocol import content as contents
from kad_protocol import merkle
from kad_protocol.entry import new_entry
from kad_protocol.errors import InvalidInputError, KadError, PreconditionError, Reason, VerificationError
from kad_protocol.feed import Draft
from kad_protocol.names import new_record_id
from kad_protocol.note import LogSigner
from kad_protocol.proof import MAX_EXTRA_BYTES, TlogProof, verify_record
from kad_protocol.tlog_policy import Policy, policy_file
from kad_protocol.v1 import entry_pb2, proof_pb2
from tests.unit.feeds import draft
from tests.unit.test_witness import SIMPUL, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())
GIVEN = VECTORS["tlog_proof"]
KEYS = [LogSigner(f"kad.example/forums/f{n}", bytes([n]) * 32, bytes([n + 100]) * 32).public for n in range(1, 6)]
LOG = KEYS[0].log_lines[0].vkey
W = [keys.witness_lines[0].vkey for keys in KEYS[1:]]


# The file.


def test_a_file_of_the_specification_is_read_and_written_the_same() -> None:
    data = GIVEN["file"].encode()
    found = TlogProof.parse(data)
    assert (found.index, found.extra) == (257, b"kad")
    assert found.to_bytes() == data


def test_its_leaf_is_proved() -> None:
    found = TlogProof.parse(GIVEN["file"].encode())
    root = base64.b64decode(found.checkpoint.split(b"\n")[2])
    merkle.verify_inclusion(bytes.fromhex(GIVEN["leaf_hash_hex"]), found.index, 300, found.hashes, root)
    with pytest.raises(VerificationError):
        merkle.verify_inclusion(bytes(32), found.index, 300, found.hashes, root)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("@v1", "@v2"),
        lambda text: text.replace("index 257", "index 0257"),
        lambda text: text.replace("index 257", "index -1"),
        lambda text: text.replace("index 257\n", ""),
        lambda text: text.replace("extra a2Fk", "extra a2Fl=="),
        lambda text: text.replace("extra a2Fk\n", "extra \n"),
        lambda text: text.replace("index 257\n", "index 257\nAAAA\n"),
        lambda text: text.replace("index 257\n", "index 257\n" + "och3qCTSUz777hlgt/L+QiRFD2nDsOPT6crMdZzizvM=\n" * 64),
        lambda text: text.replace("\n\n", "\n", 1),
        lambda text: text.replace("och3", "o\u00e9h3"),
        lambda text: text + "x",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text[:0],
        lambda text: text * 100,
    ],
)
def test_files_that_are_none(change) -> None:
    with pytest.raises(VerificationError):
        TlogProof.parse(change(GIVEN["file"]).encode())


# The policy.


def test_what_kad_writes_it_reads() -> None:
    policy = Policy.parse(policy_file(KEYS[0], KEYS[1:], 3))
    assert policy.groups == {"committee": (3, ("w1", "w2", "w3", "w4"))}
    assert policy.quorum == "committee"
    assert Policy.parse(policy_file(KEYS[0], [], 0)).quorum == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"log {LOG}\n",
        "quorum none\n",
        f"log {LOG}\nquorum x\n",
        f"log {LOG}x\nquorum none\n",
        f"log {LOG}\nquorum none\nlog {LOG}\n",
        f"log {LOG}\nwitness a {W[0]}\nwitness a {W[1]}\nquorum a\n",
        f"log {LOG}\nwitness none {W[0]}\nquorum none\n",
        f"log {LOG}\nwitness a {W[0]}\ngroup g 2 a\nquorum g\n",
        f"log {LOG}\nwitness a {W[0]}\ngroup g 0 a\nquorum g\n",
        f"log {LOG}\nwitness a {W[0]}\ngroup g x a\nquorum g\n",
        f"log {LOG}\nwitness a {W[0]}\ngroup g 1 a a\nquorum g\n",
        f"log {LOG}\nwitness a {W[0]}\ngroup g 1 b\nquorum g\n",
        f"log {LOG}\nwitness a {W[0]}\ngroup g any a\ngroup h any a\nquorum h\n",
        f"log {LOG}\ngroup g any g\nquorum g\n",
        f"log {LOG}\nmystery\nquorum none\n",
        f"log {LOG}\nquorum none\n" + "#" * 300_000,
    ],
)
def test_policies_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Policy.parse(text)
    assert caught.value.reason is Reason.INVALID_FILE


def test_comments_and_nested_groups() -> None:
    text = (
        f"# who\n\nlog {LOG}\nwitness a {W[0]} https://a\nwitness b {W[1]}\nwitness c {W[2]}\ngroup g any a b\ngroup h all g c\nquorum h\n"
    )
    policy = Policy.parse(text)
    assert policy._satisfied("h", {"a", "c"})
    assert not policy._satisfied("h", {"a", "b"})
    assert not policy._satisfied("h", {"c"})


# A record.


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, 4).open()
    yield made
    await made.close()


async def confirm(world: World) -> None:
    """Everybody holds everything and confirms it."""
    for place in world.places:
        for forum in (*world.forums, world.simpul):
            await place.follow(forum)
        assert await place.take(world.proposal()) == []
    for place in world.places:
        for other in world.places:
            assert await place.take(*await other.lines()) == []


async def make(world: World, record: str, version: int = 0) -> bytes:
    reader = world.places[3]
    name = f"forums/{world.forums[0].feed.forum}/records/{record}"
    return await reader.store.read(lambda tx: record_proof(tx, reader.author.feed, name, version))


async def rule(world: World) -> Policy:
    _, text = await world.places[2].store.read(lambda tx: witnessed_note(tx, SIMPUL))
    return Policy.parse(text)


def retraction(record: str, version: int) -> Draft:
    notice = contents.new_blob(entry_pb2.RetractionNotice(reason="Diganti").SerializeToString())
    entry = new_entry(2_000_000)
    part = entry.record_retraction
    part.record, part.version, part.digest, part.content_size = record, version, contents.digest(notice), len(notice) - 32
    return Draft(entry, notice)


@pytest.fixture
async def proved(world: World) -> tuple[World, str]:
    author, record = world.forums[0], new_record_id()
    author.write([draft("Satu", record)])
    world.simpul.observe(author)
    await confirm(world)
    return world, record


async def test_a_stranger_reads_who_what_and_when(proved: tuple[World, str]) -> None:
    world, record = proved
    author = world.forums[0]
    found = verify_record(await make(world, record), await rule(world))
    assert (found.name.record, found.author, found.genesis, found.version) == (record, author.feed, author.genesis, 1)
    assert found.content is not None
    assert found.content.title == "Satu"
    assert (found.observed, found.written) == (1_600_000, 1_700_000_000_000_000)
    assert set(found.witnesses) == {forum.feed.origin for forum in world.forums}
    assert (found.newest, found.retracted, found.own_policy, found.simpul) == (1, False, False, SIMPUL)


async def test_later_versions_and_a_retraction_are_shown_as_far_as_the_proof_goes(proved: tuple[World, str]) -> None:
    world, record = proved
    author = world.forums[0]
    before = await make(world, record)
    author.write([draft("Dua", record, 2)])
    author.write([draft("Lain")])
    world.simpul.observe(author)
    await confirm(world)
    found = verify_record(await make(world, record, 1), await rule(world))
    assert (found.version, found.newest, found.retracted) == (1, 2, False)
    assert found.observed_index < TlogProof.parse(await make(world, record, 1)).index, "first seen in an earlier observation"
    newest = verify_record(await make(world, record))
    assert (newest.version, newest.newest, newest.content.title if newest.content else "") == (2, 2, "Dua")
    author.write([retraction(record, 2)])
    world.simpul.observe(author)
    await confirm(world)
    gone = verify_record(await make(world, record, 1))
    assert (gone.version, gone.newest, gone.retracted, gone.content) == (1, 2, True, None)
    assert verify_record(before).newest == 1, "an older file still holds, and says how far it looks"


async def test_without_confirmation_there_is_no_proof(proved: tuple[World, str]) -> None:
    world, record = proved
    author = world.forums[0]
    author.write([draft("Dua", record, 2)])
    world.simpul.observe(author)
    for place in world.places:
        await place.follow(author)
        await place.follow(world.simpul)
    with pytest.raises(PreconditionError) as caught:
        await make(world, record)
    assert caught.value.reason is Reason.NOT_WITNESSED
    assert verify_record(await make(world, record, 1)).version == 1


async def test_a_policy_of_somebody_else_is_not_satisfied(proved: tuple[World, str]) -> None:
    world, record = proved
    data = await make(world, record)
    with pytest.raises(VerificationError) as caught:
        verify_record(data, Policy.parse(policy_file(KEYS[0], KEYS[1:], 1)))
    assert caught.value.reason is Reason.SIGNATURE_MISSING
    (signer,) = world.simpul.signers
    with pytest.raises(VerificationError) as too_few:
        verify_record(data, Policy.parse(policy_file(signer, KEYS[1:], 1)))
    assert too_few.value.reason is Reason.NOT_WITNESSED


async def test_no_changed_byte_proves_anything_else(proved: tuple[World, str]) -> None:
    world, record = proved
    world.forums[0].write([draft("Dua", record, 2)])
    world.simpul.observe(world.forums[0])
    await confirm(world)
    data, policy = await make(world, record, 1), await rule(world)
    truth = verify_record(data, policy)
    outer = TlogProof.parse(data)
    chance = random.Random(20261124)
    refused = 0
    for _ in range(600):
        extra = bytearray(outer.extra)
        extra[chance.randrange(len(extra))] ^= 1 << chance.randrange(8)
        try:
            found = verify_record(replace(outer, extra=bytes(extra)).to_bytes(), policy)
        except KadError:
            refused += 1
            continue
        # What is not covered is what the file says of its own policy, and how much of the rest it leaves out.
        assert (
            replace(found, content=truth.content, newest=truth.newest, observed=truth.observed, observed_index=truth.observed_index)
            == truth
        )
        assert found.content in (truth.content, None)
    assert refused > 300
    for place in range(0, len(data), 37):
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        try:
            found = verify_record(bytes(spoilt), policy)
        except KadError:
            continue
        assert (found.name, found.digest, found.checkpoint) == (truth.name, truth.digest, truth.checkpoint)


async def test_parts_of_other_proofs_do_not_fit(proved: tuple[World, str]) -> None:
    world, record = proved
    policy = await rule(world)
    other = new_record_id()
    world.forums[0].write([draft("Lain", other)])
    world.forums[1].write([draft("Asing", record)])
    world.simpul.observe(world.forums[0])
    world.simpul.observe(world.forums[1])
    await confirm(world)
    mine, foreign = TlogProof.parse(await make(world, record)), TlogProof.parse(await make(world, other))
    ours, theirs = proof_pb2.RecordProof.FromString(mine.extra), proof_pb2.RecordProof.FromString(foreign.extra)
    for change in ("genesis", "membership", "first_observation", "observation"):
        mixed = proof_pb2.RecordProof()
        mixed.CopyFrom(ours)
        part = {"genesis": ours.membership, "membership": ours.genesis, "first_observation": ours.genesis}.get(change)
        if part is not None:
            getattr(mixed, change).CopyFrom(part)
        else:
            mixed.observation = ours.genesis.entry
        with pytest.raises(VerificationError):
            verify_record(replace(mine, extra=mixed.SerializeToString()).to_bytes(), policy)
    mixed = proof_pb2.RecordProof()
    mixed.CopyFrom(ours)
    mixed.versions.extend(theirs.versions)
    with pytest.raises(VerificationError) as caught:
        verify_record(replace(mine, extra=mixed.SerializeToString()).to_bytes(), policy)
    assert caught.value.reason is Reason.PROOF_INVALID
    mixed.CopyFrom(ours)
    mixed.content = theirs.content
    with pytest.raises(VerificationError) as wrong:
        verify_record(replace(mine, extra=mixed.SerializeToString()).to_bytes(), policy)
    assert wrong.value.reason is Reason.CONTENT_DIGEST_MISMATCH
    del mixed.versions[:]
    mixed.content = b""
    with pytest.raises(VerificationError):
        verify_record(replace(mine, extra=mixed.SerializeToString()).to_bytes(), policy)


@pytest.mark.parametrize(
    "state", [entry_pb2.MEMBERSHIP_STATE_APPLIED, entry_pb2.MEMBERSHIP_STATE_LEFT, entry_pb2.MEMBERSHIP_STATE_SUSPENDED]
)
async def test_an_entry_that_admits_nobody_is_no_proof_of_membership(
    proved: tuple[World, str], state: entry_pb2.MembershipState.ValueType
) -> None:
    world, record = proved
    world.simpul.admit(world.forums[0], state)
    await confirm(world)
    outer = TlogProof.parse(await make(world, record))
    inner = proof_pb2.RecordProof.FromString(outer.extra)
    size = world.simpul.log.feed(SIMPUL).size
    verify_record(outer.to_bytes(), await rule(world))
    inner.membership.index, inner.membership.entry = size - 1, world.simpul.log.entries(SIMPUL, size - 1, 1, 1)[0].body
    del inner.membership.hashes[:]
    inner.membership.hashes.extend(merkle.inclusion_proof(world.simpul.log.tiles(SIMPUL), size - 1, size))
    with pytest.raises(VerificationError) as caught:
        verify_record(replace(outer, extra=inner.SerializeToString()).to_bytes(), await rule(world))
    assert caught.value.reason is Reason.PROOF_INVALID
    assert "admitted" in str(caught.value)


async def test_a_large_content_stays_out(world: World) -> None:
    author, record = world.forums[0], new_record_id()
    author.write([draft("Besar", record, text="x" * 18_000)])
    world.simpul.observe(author)
    await confirm(world)
    data = await make(world, record)
    assert len(TlogProof.parse(data).extra) <= MAX_EXTRA_BYTES
    assert verify_record(data).content is None


def test_a_proof_of_something_else_says_so() -> None:
    with pytest.raises(KadError):
        verify_record(GIVEN["file"].encode())
