"""The tree, against published vectors and against the definition written out naively."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_protocol import merkle
from kad_protocol.errors import OutOfRangeError, VerificationError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())
SMALL, LARGE = VECTORS["merkle_rfc6962"], VECTORS["merkle_large"]


def hexed(hashes: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in hashes]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return merkle.node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


def tree(leaves: list[bytes], steps: list[int] | None = None) -> merkle.MemoryTiles:
    tiles = merkle.MemoryTiles()
    position = 0
    for step in steps or [len(leaves)]:
        merkle.extend_tiles(tiles, position, leaves[position : position + step])
        position = min(len(leaves), position + step)
    merkle.extend_tiles(tiles, position, leaves[position:])
    return tiles


@pytest.fixture(scope="module")
def large() -> tuple[merkle.MemoryTiles, list[bytes]]:
    leaves = [merkle.leaf_hash(b"entry %d" % i) for i in range(70_000)]
    return tree(leaves, [1, 254, 1, 1000, 1, 30_000]), leaves


def test_rfc6962_leaves_and_roots() -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(text)) for text in SMALL["leaves_hex"]]
    assert leaves == hexed(SMALL["leaf_hashes_hex"])
    frontier = merkle.Frontier()
    roots = [frontier.root()]
    for leaf in leaves:
        frontier.append([leaf])
        roots.append(frontier.root())
    assert roots == hexed(SMALL["roots_hex"])
    assert [merkle.root_at(tree(leaves), size) for size in range(9)] == roots


@pytest.mark.parametrize("case", SMALL["inclusion"], ids=lambda c: f"{c['index']}of{c['size']}")
def test_rfc6962_inclusion(case: dict[str, object]) -> None:
    leaves = hexed(SMALL["leaf_hashes_hex"])
    index, size = int(str(case["index"])), int(str(case["size"]))
    proof = hexed(case["proof_hex"])  # type: ignore[arg-type]
    assert merkle.inclusion_proof(tree(leaves), index, size) == proof
    merkle.verify_inclusion(leaves[index], index, size, proof, bytes.fromhex(SMALL["roots_hex"][size]))


@pytest.mark.parametrize("case", SMALL["consistency"], ids=lambda c: f"{c['old']}to{c['new']}")
def test_rfc6962_consistency(case: dict[str, object]) -> None:
    leaves = hexed(SMALL["leaf_hashes_hex"])
    old, new = int(str(case["old"])), int(str(case["new"]))
    proof = hexed(case["proof_hex"])  # type: ignore[arg-type]
    assert merkle.consistency_proof(tree(leaves), old, new) == proof
    roots = hexed(SMALL["roots_hex"])
    merkle.verify_consistency(old, roots[old], new, roots[new], proof)


def test_large_roots_and_proofs(large: tuple[merkle.MemoryTiles, list[bytes]]) -> None:
    tiles, leaves = large
    for size, root in LARGE["roots_hex"].items():
        assert merkle.root_at(tiles, int(size)).hex() == root
    for case in LARGE["inclusion"]:
        proof = merkle.inclusion_proof(tiles, case["index"], case["size"])
        assert proof == hexed(case["proof_hex"])
        merkle.verify_inclusion(leaves[case["index"]], case["index"], case["size"], proof, merkle.root_at(tiles, case["size"]))
    for case in LARGE["consistency"]:
        proof = merkle.consistency_proof(tiles, case["old"], case["new"])
        assert proof == hexed(case["proof_hex"])
        merkle.verify_consistency(case["old"], merkle.root_at(tiles, case["old"]), case["new"], merkle.root_at(tiles, case["new"]), proof)


def test_tiles_are_those_of_c2sp(large: tuple[merkle.MemoryTiles, list[bytes]]) -> None:
    tiles, _ = large
    checked = 0
    for case in VECTORS["tiles"]["size_70000_first_last_partial"]:
        path = case["path"].split("/")
        level, index = int(path[1]), int("".join(part.lstrip("x") for part in path[2:]).split(".")[0])
        body = tiles.get(level, index)
        assert body is not None
        width = case.get("width", len(body) // 32)
        assert hashlib.sha256(body[: width * 32]).hexdigest() == case["sha256_of_body"]
        checked += 1
    assert checked
    for case in VECTORS["tiles"]["paths"]:
        assert merkle.tile_path(case["level"], case["index"], case["width"]) == case["path"]


leaf_lists = st.integers(1, 700).map(lambda n: [merkle.leaf_hash(b"%d" % i) for i in range(n)])


@given(leaf_lists, st.lists(st.integers(0, 300), max_size=6), st.data())
def test_any_growth_gives_the_naive_root_and_proofs_that_verify(leaves: list[bytes], steps: list[int], data: st.DataObject) -> None:
    tiles = tree(leaves, steps)
    frontier = merkle.Frontier()
    cut = data.draw(st.integers(0, len(leaves)))
    frontier.append(leaves[:cut])
    frontier = merkle.Frontier.from_bytes(frontier.size, frontier.to_bytes())
    frontier.append(leaves[cut:])
    size = len(leaves)
    root = naive_root(leaves)
    assert frontier.root() == merkle.root_at(tiles, size) == root
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(tiles, index, size)
    merkle.verify_inclusion(leaves[index], index, size, proof, root)
    old = data.draw(st.integers(1, size))
    old_root = merkle.root_at(tiles, old)
    assert old_root == naive_root(leaves[:old])
    between = merkle.consistency_proof(tiles, old, size)
    merkle.verify_consistency(old, old_root, size, root, between)
    for bad in broken(proof, data):
        with pytest.raises(VerificationError):
            merkle.verify_inclusion(leaves[index], index, size, bad, root)
    for bad in broken(between, data):
        with pytest.raises(VerificationError):
            merkle.verify_consistency(old, old_root, size, root, bad)
    with pytest.raises(VerificationError):
        merkle.verify_consistency(old, bytes(32), size, root, between)


def broken(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    """The proof with one thing wrong."""
    cases = [[*proof, bytes(32)]]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        cases += [proof[:-1], [*proof[:at], flipped, *proof[at + 1 :]], [*proof[:at], proof[at][:31], *proof[at + 1 :]]]
    return cases


def test_impossible_positions_are_refused() -> None:
    tiles = tree([merkle.leaf_hash(b"a")])
    for index, size in ((1, 1), (0, 0), (-1, 1)):
        with pytest.raises(OutOfRangeError):
            merkle.inclusion_proof(tiles, index, size)
    with pytest.raises(OutOfRangeError):
        merkle.consistency_proof(tiles, 0, 1)
    with pytest.raises(VerificationError):
        merkle.verify_consistency(0, merkle.EMPTY_ROOT, 1, merkle.leaf_hash(b"a"), [])
    with pytest.raises(VerificationError):
        merkle.Frontier.from_bytes(3, bytes(32))
    with pytest.raises(VerificationError):
        merkle.root_at(tiles, 2)
