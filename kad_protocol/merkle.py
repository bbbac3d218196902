"""The Merkle tree of a log (RFC 6962 section 2), in two halves.

``Frontier`` is what a follower needs: at most 64 hashes, the roots of the full subtrees along the right edge. It appends and
gives the root. *Tiles* are what a server of proofs needs: the hashes of every 256th level in blocks of 256 (C2SP tlog-tiles), of which
an append rewrites only the right edge. From tiles come the root at any earlier size, inclusion proofs and consistency proofs.

Everything is a pure function of bytes. Hashes are exactly 32 bytes; a proof that is longer than needed is as wrong as one that
is too short.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from kad_protocol.errors import OutOfRangeError, Reason, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "EMPTY_ROOT",
    "HASH_SIZE",
    "MAX_PROOF_HASHES",
    "Frontier",
    "MemoryTiles",
    "TileStore",
    "consistency_proof",
    "extend_tiles",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_at",
    "tile_path",
    "verify_consistency",
    "verify_inclusion",
]

HASH_SIZE = 32
#: A tree of 2^63 leaves has no longer path.
MAX_PROOF_HASHES = 63
#: Root of the tree without leaves: SHA-256 of nothing.
EMPTY_ROOT = hashlib.sha256().digest()

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT

_sha256 = hashlib.sha256


def leaf_hash(entry: bytes) -> bytes:
    """``SHA-256(0x00 || entry)``."""
    return _sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 || left || right)``."""
    return _sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its full subtrees, largest first, one for each bit of its size."""

    __slots__ = ("_edge", "size")

    def __init__(self) -> None:
        #: Number of leaves.
        self.size = 0
        # _edge[level] is the root of the full subtree of 2^level leaves that ends the tree, if that bit of size is set.
        self._edge: list[bytes | None] = []

    def append(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append leaves, given by their hashes."""
        edge = self._edge
        for leaf in leaf_hashes:
            node, level = leaf, 0
            while level < len(edge) and (left := edge[level]) is not None:
                node = _sha256(b"\x01" + left + node).digest()
                edge[level] = None
                level += 1
            if level == len(edge):
                edge.append(None)
            edge[level] = node
            self.size += 1

    def root(self) -> bytes:
        """The root; ``EMPTY_ROOT`` if there are no leaves."""
        root: bytes | None = None
        for node in self._edge:
            if node is not None:
                root = node if root is None else node_hash(node, root)
        return EMPTY_ROOT if root is None else root

    def to_bytes(self) -> bytes:
        """The hashes that are set, smallest subtree first; with ``size`` they are the frontier."""
        return b"".join(node for node in self._edge if node is not None)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """The inverse of ``to_bytes``.

        Raises:
            VerificationError: ``STORE_CORRUPT`` if the length does not fit the size.
        """
        if len(data) != size.bit_count() * HASH_SIZE:
            raise VerificationError(Reason.STORE_CORRUPT, f"a frontier of {len(data)} bytes for {size} leaves")
        frontier = cls()
        frontier.size = size
        position = 0
        for level in range(size.bit_length()):
            if size >> level & 1:
                frontier._edge.append(data[position : position + HASH_SIZE])
                position += HASH_SIZE
            else:
                frontier._edge.append(None)
        return frontier

    def copy(self) -> Frontier:
        """A frontier that grows independently."""
        return Frontier.from_bytes(self.size, self.to_bytes())


class TileStore(Protocol):
    """Where tiles lie. ``level`` 0 holds leaf hashes, level ``n`` the roots of subtrees of 256^n leaves."""

    def get(self, level: int, index: int) -> bytes | None:
        """Up to 256 hashes of 32 bytes, or None."""

    def put(self, level: int, index: int, data: bytes) -> None:
        """Replace a tile; durable with the transaction that it belongs to."""


class MemoryTiles:
    """Tiles in memory."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes | None:
        """See ``TileStore``."""
        return self.tiles.get((level, index))

    def put(self, level: int, index: int, data: bytes) -> None:
        """See ``TileStore``."""
        self.tiles[level, index] = data


def extend_tiles(tiles: TileStore, old_size: int, leaf_hashes: Sequence[bytes]) -> None:
    """Add leaves to the tiles of a tree of ``old_size``: each tile of the right edge is written once.

    Raises:
        VerificationError: ``STORE_CORRUPT`` if a tile of the right edge is missing or short.
    """
    level, first, hashes = 0, old_size, list(leaf_hashes)
    while hashes:
        index, offset = divmod(first, TILE_WIDTH)
        data = b""
        if offset:
            data = (tiles.get(level, index) or b"")[: offset * HASH_SIZE]
            if len(data) != offset * HASH_SIZE:
                raise VerificationError(Reason.STORE_CORRUPT, f"tile {level}/{index} is missing or short")
        above: list[bytes] = []
        taken = 0
        while taken < len(hashes):
            room = TILE_WIDTH - len(data) // HASH_SIZE
            data += b"".join(hashes[taken : taken + room])
            taken += room
            tiles.put(level, index, data)
            if len(data) == TILE_WIDTH * HASH_SIZE:
                above.append(_full_root(data))
            index += 1
            data = b""
        level, first, hashes = level + 1, first // TILE_WIDTH, above


def _full_root(data: bytes) -> bytes:
    """Root of a whole number (a power of two) of hashes."""
    while len(data) > HASH_SIZE:
        step = 2 * HASH_SIZE
        data = b"".join([_sha256(b"\x01" + data[i : i + step]).digest() for i in range(0, len(data), step)])
    return data


class _Reader:
    """Reads roots of full subtrees out of tiles; remembers the tiles of one proof."""

    __slots__ = ("_cache", "_tiles")

    def __init__(self, tiles: TileStore) -> None:
        self._tiles = tiles
        self._cache: dict[tuple[int, int], bytes] = {}

    def subtree(self, start: int, level: int) -> bytes:
        """Root of the full subtree of ``2^level`` leaves that begins at leaf ``start``."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        first = start >> (tile_level * TILE_HEIGHT)
        index, offset = divmod(first, TILE_WIDTH)
        data = self._cache.get((tile_level, index))
        if data is None:
            data = self._cache[tile_level, index] = self._tiles.get(tile_level, index) or b""
        part = data[offset * HASH_SIZE : (offset + (1 << height)) * HASH_SIZE]
        if len(part) != HASH_SIZE << height:
            raise VerificationError(Reason.STORE_CORRUPT, f"tile {tile_level}/{index} is missing or short")
        return _full_root(part)

    def range(self, start: int, end: int) -> bytes:
        """Root (RFC 6962 MTH) of the leaves from ``start`` to ``end``, where ``start`` is a multiple of the next power of two."""
        root: bytes | None = None
        # The full subtrees of the range, smallest and rightmost first.
        position = end
        while position > start:
            level = _trailing_zeros(position - start)
            position -= 1 << level
            node = self.subtree(position, level)
            root = node if root is None else node_hash(node, root)
        return EMPTY_ROOT if root is None else root


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _split(count: int) -> int:
    """The largest power of two below ``count`` (RFC 6962: k)."""
    return 1 << (count - 1).bit_length() - 1


def root_at(tiles: TileStore, size: int) -> bytes:
    """The root of the first ``size`` leaves."""
    return _Reader(tiles).range(0, size)


def inclusion_proof(tiles: TileStore, index: int, size: int) -> list[bytes]:
    """Hashes from leaf ``index`` up to the root of the first ``size`` leaves (RFC 6962 section 2.1.1).

    Raises:
        OutOfRangeError: ``AHEAD_OF_WRITER`` if there is no such leaf.
    """
    if not 0 <= index < size:
        raise OutOfRangeError(Reason.AHEAD_OF_WRITER, f"no leaf {index} among {size}", index=index, size=size)
    reader = _Reader(tiles)
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(reader.range(middle, end))
            end = middle
        else:
            proof.append(reader.range(start, middle))
            start = middle
    proof.reverse()
    return proof


def consistency_proof(tiles: TileStore, old_size: int, new_size: int) -> list[bytes]:
    """Proof that the first ``old_size`` leaves are a prefix of the first ``new_size`` (RFC 6962 section 2.1.2).

    Raises:
        OutOfRangeError: ``AHEAD_OF_WRITER`` unless ``0 < old_size <= new_size``.
    """
    if not 0 < old_size <= new_size:
        raise OutOfRangeError(Reason.AHEAD_OF_WRITER, f"no consistency proof from {old_size} to {new_size}", size=new_size)
    if old_size == new_size:
        return []
    reader = _Reader(tiles)
    proof: list[bytes] = []
    start, end = 0, new_size
    whole = True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            proof.append(reader.range(middle, end))
            end = middle
        else:
            proof.append(reader.range(start, middle))
            start, whole = middle, False
    if not whole:
        proof.append(reader.range(start, end))
    proof.reverse()
    return proof


def _check_proof(proof: Sequence[bytes], expected: int) -> None:
    if len(proof) != expected or any(len(node) != HASH_SIZE for node in proof):
        raise VerificationError(Reason.PROOF_INVALID, f"a proof of {len(proof)} hashes where {expected} of 32 bytes are needed")


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with hash ``leaf`` stands at ``index`` in the tree of ``size`` leaves with ``root``.

    Raises:
        VerificationError: ``PROOF_INVALID`` if the proof cannot be one, ``ROOT_MISMATCH`` if it leads elsewhere.
    """
    if not 0 <= index < size or len(leaf) != HASH_SIZE or len(root) != HASH_SIZE:
        raise VerificationError(Reason.PROOF_INVALID, f"no leaf {index} among {size}, or a hash of the wrong length")
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    _check_proof(proof, inner + border)
    node = leaf
    for level, sibling in enumerate(proof[:inner]):
        node = node_hash(sibling, node) if index >> level & 1 else node_hash(node, sibling)
    for sibling in proof[inner:]:
        node = node_hash(sibling, node)
    if node != root:
        raise VerificationError(Reason.ROOT_MISMATCH, f"the inclusion proof of leaf {index} leads to another root")


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of ``old_size`` leaves with ``old_root`` is a prefix of the one of ``new_size`` with ``new_root``.

    ``old_size`` 0 is refused: everything extends nothing, and the caller must say what that means.

    Raises:
        VerificationError: ``PROOF_INVALID`` if the proof cannot be one, ``ROOT_MISMATCH`` if it leads elsewhere.
    """
    if not 0 < old_size <= new_size or len(old_root) != HASH_SIZE or len(new_root) != HASH_SIZE:
        raise VerificationError(Reason.PROOF_INVALID, f"no consistency proof from {old_size} to {new_size}")
    if old_size == new_size:
        _check_proof(proof, 0)
        if old_root != new_root:
            raise VerificationError(Reason.ROOT_MISMATCH, f"two roots for {old_size} leaves")
        return
    # RFC 9162 section 2.1.4.2, with the lengths known beforehand: the path of the last old leaf, from the level where it is full.
    shift = _trailing_zeros(old_size)
    index = (old_size - 1) >> shift
    inner = (index ^ ((new_size - 1) >> shift)).bit_length()
    border = (index >> inner).bit_count()
    seeded = index != 0 or old_size != 1 << shift
    _check_proof(proof, inner + border + (1 if seeded else 0))
    seed, path = (proof[0], proof[1:]) if seeded else (old_root, proof)
    old = new = seed
    for level, sibling in enumerate(path[:inner]):
        if index >> level & 1:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    for sibling in path[inner:]:
        old, new = node_hash(sibling, old), node_hash(sibling, new)
    if old != old_root or new != new_root:
        raise VerificationError(Reason.ROOT_MISMATCH, f"the consistency proof from {old_size} to {new_size} leads elsewhere")


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Path of a tile as C2SP tlog-tiles names it, for example ``tile/0/x001/x234/067`` or ``tile/1/000.p/17``."""
    groups = [f"{index % 1000:03d}"]
    while (index := index // 1000) > 0:
        groups.append(f"x{index % 1000:03d}")
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{suffix}"
