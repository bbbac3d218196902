"""``kad verify``: what a file proves, on a machine that has never seen the federation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey
from rich.markup import escape

from kad_node.bundle import MAGIC, read_frames
from kad_node.cli.common import out, print_json
from kad_node.messages import _
from kad_node.store.memory import MemoryLog
from kad_protocol import evidence, feed, merkle, note
from kad_protocol.errors import InvalidInputError, Reason, VerificationError
from kad_protocol.names import FeedId

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["verify"]


@dataclass(slots=True)
class _Found:
    """What a file proves."""

    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def verify(path: Path, keys: tuple[str, ...], *, as_json: bool) -> None:
    """Check a file and say what it proves.

    Raises:
        KadError: it proves nothing; the error says why.
    """
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        if head == MAGIC:
            found = _bundle(file)
        else:
            data = head + file.read(evidence.MAX_EVIDENCE_BYTES)
            found = _evidence(data) if data.lstrip().startswith(b"{") else _checkpoint(data, keys)
    if as_json:
        print_json({"kind": found.kind, "verified": True, **found.facts})
        return
    for line in found.lines:
        out.print(line)


def _bundle(file: Any) -> _Found:  # noqa: ANN401 - a binary file
    """Rebuild each feed in memory, from its genesis on."""
    log = MemoryLog()
    targets: dict[str, bytes] = {}
    for frame in read_frames(file):
        for batch in frame.batches:
            name = FeedId.parse(batch.feed)
            targets[batch.feed] = batch.checkpoint or targets.get(batch.feed, b"")
            if batch.after == 0 and batch.entries:
                feed.pin(log, name, merkle.leaf_hash(batch.entries[0]))
            feed.extend(log, batch, targets[batch.feed])
    found = _Found("bundle", {"feeds": []})
    for state in log.feeds():
        found.facts["feeds"].append(
            {"feed": state.feed.origin, "size": state.size, "root": state.root.hex(), "genesis": state.genesis.hex()}
        )
        found.lines.append(_("[green]✓[/] {feed}: {n} entries, signed by its author").format(feed=escape(state.feed.origin), n=state.size))
        found.lines.append(
            _("    genesis {hash} (compare it with what the simpul or the forum itself says)").format(hash=state.genesis.hex())
        )
    if not found.lines:
        raise InvalidInputError(Reason.INVALID_FILE, "there is nothing in the file")
    return found


def _evidence(data: bytes) -> _Found:
    fork = evidence.verify(data)
    facts = {
        "feed": fork.origin,
        "sizes": list(fork.sizes),
        "roots": [root.hex() for root in fork.roots],
        "genesis": merkle.leaf_hash(fork.genesis).hex(),
    }
    lines = [
        _("[red]{feed} has signed two histories.[/] This is proved; it does not depend on who made the file.").format(
            feed=escape(fork.origin)
        ),
        *(f"    {size}  {root.hex()}" for size, root in zip(fork.sizes, fork.roots, strict=True)),
        _("    genesis {hash}").format(hash=facts["genesis"]),
    ]
    return _Found("fork", facts, lines)


def _checkpoint(data: bytes, keys: tuple[str, ...]) -> _Found:
    parsed = note.Note.parse(data)
    checkpoint = note.Checkpoint.parse(parsed.text)
    if not keys:
        raise InvalidInputError(Reason.INVALID_FIELD, "a checkpoint needs --key: whose signature do you expect?", field="key")
    for text in keys:
        key = note.VerifierKey.parse(text)
        lines = [line for line in parsed.signatures if (line.name, line.key_id) == (key.name, key.key_id)]
        if not lines:
            raise VerificationError(Reason.SIGNATURE_MISSING, f"{key.name} has not signed with this key")
        for line in lines:
            _check_line(key, line, parsed.text, checkpoint)
    facts = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(), "keys": len(keys)}
    text = _("[green]✓[/] {origin}: {n} entries, root {root}").format(
        origin=escape(checkpoint.origin), n=checkpoint.size, root=checkpoint.root.hex()
    )
    return _Found("checkpoint", facts, [text])


def _check_line(key: note.VerifierKey, line: note.SignatureLine, text: str, checkpoint: note.Checkpoint) -> None:
    time = int.from_bytes(line.payload[:8], "big")
    try:
        match key.type:
            case note.SignatureType.ED25519:
                Ed25519PublicKey.from_public_bytes(key.public_key).verify(line.payload, text.encode())
            case note.SignatureType.ED25519_COSIGNATURE:
                message = f"cosignature/v1\ntime {time}\n{text}".encode()
                Ed25519PublicKey.from_public_bytes(key.public_key).verify(line.payload[8:], message)
            case _:
                message = note.subtree_message(key.name, time, checkpoint.origin, 0, checkpoint.size, checkpoint.root)
                MLDSA44PublicKey.from_public_bytes(key.public_key).verify(line.payload[8:], message)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(Reason.SIGNATURE_INVALID, f"the signature of {key.name} is wrong") from error
