"""What KAD signs and proves, judged by Go: the signed notes of x/mod, the Merkle trees of transparency-dev.

``go/`` holds the judge; it is built once. Its module versions are pinned in ``go.mod``, so a first run needs
the Go module proxy, or a filled module cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kad_node.witness import witnessed_note
from kad_protocol import merkle
from kad_protocol.errors import VerificationError
from kad_protocol.names import new_record_id
from kad_protocol.note import Checkpoint, LogSigner, Note, cosign, sign_checkpoint
from kad_protocol.proof import TlogProof
from kad_protocol.v1 import proof_pb2
from tests.unit.feeds import draft
from tests.unit.test_proof import confirm, make
from tests.unit.test_witness import SIMPUL, World

ORIGIN = "kad.example/forums/kartamantul/e0"
SIGNER = LogSigner(ORIGIN, bytes(32), bytes(range(32)))
NEW_SIGNER = LogSigner(ORIGIN, bytes(range(32)), bytes(32))
WITNESS = LogSigner("kad.example/forums/javapromo", bytes(range(1, 33)), bytes(range(2, 34)))
ENTRIES = [b"entry %d" % index for index in range(600)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]

Judge = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    go = shutil.which("go")
    if go is None:
        pytest.skip("the Go toolchain is not installed (https://go.dev/dl), so nothing foreign can judge")
    binary = tmp_path_factory.mktemp("go") / "kadcheck"
    built = subprocess.run(
        [go, "build", "-o", binary, "."],
        cwd=Path(__file__).parent / "go",
        env={**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr

    def run(*arguments: str, given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([binary, *arguments], input=given, capture_output=True, text=True, check=False, timeout=60)

    return run


@pytest.fixture(scope="module")
def tiles() -> merkle.MemoryTiles:
    tiles = merkle.MemoryTiles()
    for start in range(0, len(LEAVES), 250):
        merkle.extend_tiles(tiles, start, LEAVES[start : start + 250])
    return tiles


def ed25519_vkey(signer: LogSigner) -> str:
    return signer.public.log_lines[0].vkey


# Signed notes.


@pytest.mark.parametrize("size", [0, 1, 8, 600])
def test_x_mod_opens_our_checkpoints(judge: Judge, tiles: merkle.MemoryTiles, size: int) -> None:
    root = merkle.root_at(tiles, size)
    signed = sign_checkpoint(Checkpoint(ORIGIN, size, root), [SIGNER]).decode()
    opened = judge("note", ed25519_vkey(SIGNER), given=signed)
    assert opened.returncode == 0, opened.stderr
    assert json.loads(opened.stdout) == {"origin": ORIGIN, "size": size, "root": root.hex()}


def test_x_mod_opens_a_rotation_and_a_cosigned_checkpoint(judge: Judge, tiles: merkle.MemoryTiles) -> None:
    checkpoint = Checkpoint(ORIGIN, 600, merkle.root_at(tiles, 600))
    both = Note.parse(sign_checkpoint(checkpoint, [SIGNER, NEW_SIGNER]))
    cosigned = Note(both.text, (*both.signatures, *cosign(checkpoint, WITNESS, 1_795_420_801))).to_bytes().decode()
    for signer in (SIGNER, NEW_SIGNER):
        assert judge("note", ed25519_vkey(signer), given=cosigned).returncode == 0


def test_x_mod_refuses_what_we_did_not_sign(judge: Judge, tiles: merkle.MemoryTiles) -> None:
    signed = sign_checkpoint(Checkpoint(ORIGIN, 8, merkle.root_at(tiles, 8)), [SIGNER]).decode()
    assert judge("note", ed25519_vkey(SIGNER), given=signed.replace("\n8\n", "\n9\n", 1)).returncode == 1
    assert judge("note", ed25519_vkey(NEW_SIGNER), given=signed).returncode == 1


# Roots.


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 255, 256, 257, 600])
def test_compact_ranges_give_our_roots(judge: Judge, tiles: merkle.MemoryTiles, size: int) -> None:
    frontier = merkle.Frontier()
    frontier.append(LEAVES[:size])
    computed = judge("root", given=json.dumps([entry.hex() for entry in ENTRIES[:size]])).stdout.strip()
    assert computed == frontier.root().hex() == merkle.root_at(tiles, size).hex()


def test_compact_ranges_give_another_root_for_other_leaves(judge: Judge, tiles: merkle.MemoryTiles) -> None:
    swapped = [ENTRIES[1], ENTRIES[0], *ENTRIES[2:8]]
    computed = judge("root", given=json.dumps([entry.hex() for entry in swapped])).stdout.strip()
    assert len(computed) == 2 * merkle.HASH_SIZE
    assert computed != merkle.root_at(tiles, 8).hex()


# Proofs: each, good or spoiled, gets one verdict from Go and one from us, and they must be the same.


@dataclass(frozen=True)
class Proof:
    """One proof as both judges take it: with ``index`` and ``leaf``, or with ``old`` and ``old_root``."""

    kind: str
    size: int
    root: bytes
    proof: tuple[bytes, ...]
    index: int = 0
    leaf: bytes = b""
    old: int = 0
    old_root: bytes = b""

    def as_json(self) -> str:
        """One line for ``kadcheck proofs``."""
        return json.dumps({
            key: value.hex() if isinstance(value, bytes) else value
            for key, value in {**vars(self), "proof": [each.hex() for each in self.proof]}.items()
        })  # fmt: skip

    def holds(self) -> bool:
        """Our own verdict."""
        try:
            if self.kind == "inclusion":
                merkle.verify_inclusion(self.leaf, self.index, self.size, self.proof, self.root)
            else:
                merkle.verify_consistency(self.old, self.old_root, self.size, self.root, self.proof)
        except VerificationError:
            return False
        return True


def inclusion(tiles: merkle.MemoryTiles, index: int, size: int) -> Proof:
    proof = tuple(merkle.inclusion_proof(tiles, index, size))
    return Proof("inclusion", size, merkle.root_at(tiles, size), proof, index=index, leaf=LEAVES[index])


def consistency(tiles: merkle.MemoryTiles, old: int, size: int) -> Proof:
    proof = tuple(merkle.consistency_proof(tiles, old, size))
    return Proof("consistency", size, merkle.root_at(tiles, size), proof, old=old, old_root=merkle.root_at(tiles, old))


def spoiled(good: Proof) -> Iterator[Proof]:
    """The ways in which the test corpus of transparency-dev/merkle spoils a proof, and a few more."""
    p = good.proof
    anchors = (good.root, good.leaf or good.old_root)
    for each in (*anchors, bytes(32), b""):
        yield replace(good, proof=(each, *p))
        yield replace(good, proof=(*p, each))
    yield replace(good, proof=())
    yield replace(good, proof=p[1:])
    yield replace(good, proof=p[:-1])
    yield replace(good, proof=p[::-1])
    for at, each in enumerate(p):
        yield replace(good, proof=(*p[:at], bytes([each[0] ^ 16]) + each[1:], *p[at + 1 :]))
        yield replace(good, proof=(*p[:at], each[:-1], *p[at + 1 :]))
    sizes = {0, good.size - 1, good.size + 1, good.size ^ 2, good.size * 2, good.size // 2}
    for size in sorted(sizes - {-1}):
        yield replace(good, size=size)
    for root in (bytes(32), b"WrongRoot", anchors[1]):
        yield replace(good, root=root)
    if good.kind == "inclusion":
        for index in sorted({good.index + 1, max(good.index - 1, 0), good.index ^ 2, good.size, 2 * good.index}):
            yield replace(good, index=index)
        yield replace(good, leaf=bytes(32))
    else:
        for old in sorted({good.old + 1, good.old - 1, good.old ^ 2, good.old * 2, good.old // 2} - {0}):
            yield replace(good, old=old)
        yield replace(good, old_root=good.root, root=good.old_root)
        yield replace(good, old_root=bytes(32))


def go_verdicts(judge: Judge, cases: list[Proof]) -> list[bool]:
    done = judge("proofs", given="\n".join(case.as_json() for case in cases))
    assert done.returncode == 0, done.stderr
    return [line == "ok" for line in done.stdout.splitlines()]


def all_proofs(tiles: merkle.MemoryTiles) -> list[Proof]:
    sizes = [*range(1, 18), 255, 256, 257, 600]
    return [
        *(inclusion(tiles, index, size) for size in sizes for index in {0, 1, size // 2, size - 1} if index < size),
        *(consistency(tiles, old, size) for size in sizes for old in {1, 2, size // 2, size - 1, size} if 0 < old <= size),
    ]


def test_go_accepts_our_proofs(judge: Judge, tiles: merkle.MemoryTiles) -> None:
    cases = all_proofs(tiles)
    assert all(case.holds() for case in cases)
    assert go_verdicts(judge, cases) == [True] * len(cases)


def test_go_and_we_agree_on_every_spoiled_proof(judge: Judge, tiles: merkle.MemoryTiles) -> None:
    cases = [bad for good in all_proofs(tiles) for bad in spoiled(good)]
    verdicts = go_verdicts(judge, cases)
    ours = [case.holds() for case in cases]
    differ = [case for case, go, we in zip(cases, verdicts, ours, strict=True) if go != we]
    assert differ == []
    # Most are wrong; a few spoilings of tiny trees change nothing (the reversal of one hash).
    assert sum(verdicts) < len(cases) // 10


# Proof files, policies and cosignatures (C2SP tlog-proof, tlog-policy, tlog-cosignature), judged by filippo.io/torchwood.


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, 4).open()
    yield made
    await made.close()


async def test_torchwood_believes_our_proofs_by_our_policies(judge: Judge, world: World, tmp_path: Path) -> None:
    author, record = world.forums[0], new_record_id()
    author.write([draft("Satu", record)])
    world.simpul.observe(author)
    await confirm(world)
    data = await make(world, record)
    _, policy = await world.places[2].store.read(lambda tx: witnessed_note(tx, SIMPUL))
    leaf = merkle.leaf_hash(proof_pb2.RecordProof.FromString(TlogProof.parse(data).extra).observation).hex()
    rules = tmp_path / "policy"

    def believed(rule: str, proof: bytes, leaf: str = leaf) -> bool:
        rules.write_text(rule)
        done = judge("tlog-proof", str(rules), leaf, given=proof.decode())
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 0

    assert "group committee 3" in policy
    assert believed(policy, data)
    assert not believed(policy, data, "00" * 32), "another entry"
    # Three of four are enough, two are not; and a witness that the policy does not name counts nothing.
    lines = data.splitlines(keepends=True)
    cosigned = [line for line in lines if line.startswith("— ".encode()) and b"/forum-" in line]
    assert len(cosigned) == 8
    for missing, good in ((2, True), (4, False)):
        assert believed(policy, b"".join(line for line in lines if line not in cosigned[:missing])) is good
    assert not believed(
        policy.replace("group committee 3", "group committee 4"), b"".join(line for line in lines if line not in cosigned[:2])
    )
    # A changed signature of a known witness condemns the whole note.
    spoilt = cosigned[0].replace(cosigned[0][-12:-8], b"AAAA")
    assert not believed(policy, data.replace(cosigned[0], spoilt))
