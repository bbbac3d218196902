"""Proofs of misbehaviour, as files that anybody can check offline without trusting whoever made them.

A *fork* is two checkpoints, both signed by one feed's keys, that cannot belong to one history: the same size with two roots, or
two sizes where the larger one, by its own consistency proof, extends another root than the smaller one claims.

A *contradiction* is an entry of a simpul's log, under a checkpoint that it signed, that observes a root of a member's feed which is not
the one that the member signed. One of the two has two histories of that feed.

Both are JSON of type ``kad.evidence.v1``; small, complete, and checked here. Each names the keys by the genesis of their feed and the
chain of rotations after it; whose genesis it is, is for the reader to know (an invitation, a membership entry and a peer card all pin
its hash). What only the feeds themselves can prove (an act without a mandate, an omission) is a *dossier*: see ``kad_node.dossier``.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_protocol import merkle
from kad_protocol.entry import MAX_ENTRY_BYTES, parse_entry, parse_genesis
from kad_protocol.errors import InvalidInputError, Reason, VerificationError
from kad_protocol.keychain import KeyChain, Rotation, keys_after
from kad_protocol.note import Checkpoint, Note, open_checkpoint
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kad_protocol.names import FeedId

__all__ = [
    "MAX_EVIDENCE_BYTES",
    "TYPE",
    "Contradiction",
    "Fork",
    "Observed",
    "Signed",
    "contradiction",
    "fork",
    "kind_of",
    "verify",
    "verify_fork",
]

#: Three notes of 64 KiB, two chains of keys with some twenty rotations, and proofs, in base64.
MAX_EVIDENCE_BYTES = 512 << 10

TYPE = "kad.evidence.v1"


@dataclass(frozen=True, slots=True)
class Fork:
    """A fork that was verified: whose, and the two statements."""

    feed: FeedId
    #: The keys that signed both: entry 0 of the feed, and its rotations.
    keys: KeyChain
    sizes: tuple[int, int]
    roots: tuple[bytes, bytes]

    @property
    def genesis(self) -> bytes:
        """Entry 0 of the feed."""
        return self.keys.genesis


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A contradiction that was verified: what the simpul says of a member's feed, and what its author says."""

    simpul: FeedId
    simpul_genesis: bytes
    member: FeedId
    member_genesis: bytes
    #: Of the observation in the simpul's log.
    index: int
    size: int
    observed_root: bytes
    signed_root: bytes


def fork(keys: KeyChain, smaller: bytes, larger: bytes, old_root: bytes, proof: Sequence[bytes]) -> bytes:
    """Write the evidence of a fork.

    Args:
        keys: of the feed.
        smaller: signed note of the checkpoint that contradicts.
        larger: signed note of a checkpoint at least as large.
        old_root: root that the larger one has at the smaller size.
        proof: consistency proof from ``old_root`` to the larger one; empty if the sizes are the same.
    """
    notes = [smaller.decode(), larger.decode()]
    return _write("fork", keys=_chain(keys), notes=notes, old_root=_b64(old_root), proof=_hashes(proof))


@dataclass(frozen=True, slots=True)
class Observed:
    """An observation in a simpul's log: its keys, a checkpoint, the entry, where it stands, and its inclusion proof."""

    keys: KeyChain
    checkpoint: bytes
    entry: bytes
    index: int
    inclusion: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Signed:
    """What an author signed: its keys, a checkpoint, the root at a smaller size, and the consistency proof from there."""

    keys: KeyChain
    checkpoint: bytes
    root: bytes
    proof: Sequence[bytes]


def contradiction(observed: Observed, signed: Signed) -> bytes:
    """Write the evidence that a simpul observed something else than an author signed."""
    return _write(
        "contradiction",
        simpul=_chain(observed.keys),
        checkpoint=observed.checkpoint.decode(),
        entry=_b64(observed.entry),
        index=observed.index,
        inclusion=_hashes(observed.inclusion),
        member=_chain(signed.keys),
        note=signed.checkpoint.decode(),
        root=_b64(signed.root),
        proof=_hashes(signed.proof),
    )


def kind_of(data: bytes) -> str:
    """What a file claims to prove.

    Raises:
        InvalidInputError: ``INVALID_FILE``, this is not evidence.
    """
    return str(_read(data).get("kind"))


def verify(data: bytes) -> Fork | Contradiction:
    """Check evidence; returns what it proves.

    Raises:
        InvalidInputError: ``INVALID_FILE``, this is not evidence of a kind that is known here.
        VerificationError: it proves nothing, and the reason says why not.
    """
    if len(data) > MAX_EVIDENCE_BYTES:
        raise InvalidInputError(Reason.INVALID_FILE, f"evidence of this kind has at most {MAX_EVIDENCE_BYTES} bytes")
    document = _read(data)
    try:
        match document.get("kind"):
            case "fork":
                return _fork(document)
            case "contradiction":
                return _contradiction(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, binascii.Error) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"the evidence is incomplete: {str(error)[:200]}") from error
    raise InvalidInputError(Reason.INVALID_FILE, f"evidence of a kind that is not known here: {str(document.get('kind'))[:40]!r}")


def verify_fork(data: bytes) -> Fork:
    """Check evidence that must be of a fork. Raises like ``verify``."""
    found = verify(data)
    if not isinstance(found, Fork):
        raise InvalidInputError(Reason.INVALID_FILE, "this is not evidence of a fork")
    return found


def _fork(document: dict[str, Any]) -> Fork:
    keys = _read_chain(document["keys"])
    smaller, larger = (str(note).encode() for note in document["notes"])
    old_root, proof = _bytes(document["old_root"]), [_bytes(h) for h in document["proof"]]
    feed, _ = parse_genesis(keys.genesis)
    first, second = _open(keys, smaller), _open(keys, larger)
    if not 0 < first.size <= second.size:
        raise VerificationError(Reason.PROOF_INVALID, "the checkpoints stand in the wrong order")
    _extends(second, first.size, old_root, proof)
    if old_root == first.root:
        raise VerificationError(Reason.PROOF_INVALID, f"the two checkpoints of {feed} agree; there is no fork")
    return Fork(feed, keys, (first.size, second.size), (first.root, second.root))


def _contradiction(document: dict[str, Any]) -> Contradiction:
    simpul_keys, member_keys = _read_chain(document["simpul"]), _read_chain(document["member"])
    body, index, root = _bytes(document["entry"]), int(document["index"]), _bytes(document["root"])
    inclusion, proof = [_bytes(h) for h in document["inclusion"]], [_bytes(h) for h in document["proof"]]
    simpul, genesis = parse_genesis(simpul_keys.genesis)
    member, _ = parse_genesis(member_keys.genesis)
    checkpoint = _open(simpul_keys, str(document["checkpoint"]).encode())
    merkle.verify_inclusion(merkle.leaf_hash(body), index, checkpoint.size, inclusion, checkpoint.root)
    entry = parse_entry(body) if len(body) <= MAX_ENTRY_BYTES else None
    if entry is None or not entry.HasField("observation") or genesis.role != entry_pb2.MEMBER_ROLE_SIMPUL:
        raise VerificationError(Reason.PROOF_INVALID, "the entry is no observation of a simpul")
    seen = entry.observation
    signed = _open(member_keys, str(document["note"]).encode())
    if seen.feed != member.origin or not 0 < seen.size <= signed.size:
        raise VerificationError(Reason.PROOF_INVALID, "the observation is of another feed, or of more than its author's checkpoint covers")
    _extends(signed, seen.size, root, proof)
    if root == seen.root:
        raise VerificationError(Reason.PROOF_INVALID, f"what {simpul} observed of {member} is what its author signed")
    return Contradiction(simpul, simpul_keys.genesis, member, member_keys.genesis, index, seen.size, seen.root, root)


def _open(keys: KeyChain, note: bytes) -> Checkpoint:
    """A checkpoint, signed by the keys that its feed had at its size."""
    size = Checkpoint.parse(Note.parse(note).text).size
    checkpoint = open_checkpoint(note, [keys_after(keys, size)])
    if checkpoint.size != size or checkpoint.origin != parse_genesis(keys.genesis)[0].origin:
        raise VerificationError(Reason.WRONG_ORIGIN, "a checkpoint of another feed")
    return checkpoint


def _extends(checkpoint: Checkpoint, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """The history under a checkpoint has this root at that size."""
    if checkpoint.size == size:
        if proof or root != checkpoint.root:
            raise VerificationError(Reason.PROOF_INVALID, "two roots of one size need no proof")
    else:
        merkle.verify_consistency(size, root, checkpoint.size, checkpoint.root, proof)


# JSON.


def _write(kind: str, **fields: Any) -> bytes:  # noqa: ANN401 - what JSON takes
    return json.dumps({"type": TYPE, "kind": kind, **fields}, indent=1, ensure_ascii=False).encode()


def _read(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("type") != TYPE:
        raise InvalidInputError(Reason.INVALID_FILE, f"not evidence of type {TYPE}")
    return document


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:  # noqa: ANN401 - whatever stood there
    return base64.b64decode(text, validate=True)


def _hashes(hashes: Iterable[bytes]) -> list[str]:
    return [_b64(h) for h in hashes]


def _chain(keys: KeyChain) -> dict[str, Any]:
    rotations = [{"index": r.index, "entry": _b64(r.entry), "note": r.note.decode(), "hashes": _hashes(r.hashes)} for r in keys.rotations]
    return {"genesis": _b64(keys.genesis), "rotations": rotations}


def _read_chain(document: Any) -> KeyChain:  # noqa: ANN401 - whatever stood there
    return KeyChain(
        _bytes(document["genesis"]),
        tuple(
            Rotation(int(r["index"]), _bytes(r["entry"]), str(r["note"]).encode(), tuple(_bytes(h) for h in r["hashes"]))
            for r in document["rotations"]
        ),
    )
