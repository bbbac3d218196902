"""Proofs of misbehaviour, as files that anybody can check offline without trusting whoever made them.

A *fork* is two checkpoints, both signed by one feed's keys, that cannot belong to one history: the same size with two roots, or
two sizes where the larger one, by its own consistency proof, extends another root than the smaller one claims.

The file is JSON: ``{"type": "kad.evidence.v1", "kind": "fork", "feed": ..., "genesis": <base64>, "notes": [<smaller>, <larger>],
"old_root": <base64, what the larger one extends>, "proof": [<base64>, ...]}``. The genesis names the keys; whose genesis it is,
is for the reader to know (an invitation, a membership entry and a peer card all pin its hash).

Not covered yet: a fork after a key rotation, since the file holds no chain of keys; ``verify`` says so.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from kad_protocol import merkle
from kad_protocol.entry import log_keys_of, parse_genesis
from kad_protocol.errors import InvalidInputError, Reason, VerificationError
from kad_protocol.note import open_checkpoint

__all__ = ["MAX_EVIDENCE_BYTES", "Fork", "fork", "verify"]

#: Two notes of 64 KiB, a genesis and a proof, in base64.
MAX_EVIDENCE_BYTES = 512 << 10

_TYPE = "kad.evidence.v1"


@dataclass(frozen=True, slots=True)
class Fork:
    """A fork that was verified: whose, and the two statements."""

    origin: str
    genesis: bytes
    sizes: tuple[int, int]
    roots: tuple[bytes, bytes]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def fork(genesis: bytes, smaller: bytes, larger: bytes, old_root: bytes, proof: list[bytes]) -> bytes:
    """Write the evidence of a fork.

    Args:
        genesis: entry 0 of the feed.
        smaller: signed note of the checkpoint that contradicts.
        larger: signed note of a checkpoint at least as large.
        old_root: root that the larger one has at the smaller size.
        proof: consistency proof from ``old_root`` to the larger one; empty if the sizes are the same.
    """
    document = {
        "type": _TYPE,
        "kind": "fork",
        "genesis": _b64(genesis),
        "notes": [smaller.decode(), larger.decode()],
        "old_root": _b64(old_root),
        "proof": [_b64(h) for h in proof],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


def verify(data: bytes) -> Fork:
    """Check evidence; returns what it proves.

    Raises:
        InvalidInputError: ``INVALID_FILE``, this is not evidence.
        VerificationError: it proves nothing, and the reason says why not.
    """
    document = _read(data)
    try:
        genesis = base64.b64decode(document["genesis"], validate=True)
        smaller, larger = (str(note).encode() for note in document["notes"])
        old_root = base64.b64decode(document["old_root"], validate=True)
        proof = [base64.b64decode(h, validate=True) for h in document["proof"]]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"the evidence is incomplete: {error}") from error
    feed, parsed = parse_genesis(genesis)
    keys = [log_keys_of(feed.origin, parsed.log_keys.SerializeToString())]
    first, second = open_checkpoint(smaller, keys), open_checkpoint(larger, keys)
    if not 0 < first.size <= second.size:
        raise VerificationError(Reason.PROOF_INVALID, "the checkpoints stand in the wrong order")
    if first.size == second.size:
        if proof or old_root != second.root:
            raise VerificationError(Reason.PROOF_INVALID, "two checkpoints of one size need no proof")
    else:
        merkle.verify_consistency(first.size, old_root, second.size, second.root, proof)
    if old_root == first.root:
        raise VerificationError(Reason.PROOF_INVALID, f"the two checkpoints of {feed} agree; there is no fork")
    return Fork(feed.origin, genesis, (first.size, second.size), (first.root, second.root))


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_EVIDENCE_BYTES:
        raise InvalidInputError(Reason.INVALID_FILE, f"evidence has at most {MAX_EVIDENCE_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("type") != _TYPE or document.get("kind") != "fork":
        raise InvalidInputError(Reason.INVALID_FILE, f"not evidence of type {_TYPE}")
    return document
