"""Which signatures a stranger wants to see under a checkpoint: policy files of C2SP tlog-policy, written and read.

A file names logs, witnesses, groups of them and the quorum::

    log kad.example/simpul+9257f00b+AfmwNa6z...
    witness w1 kad.example/forums/kartamantul/e0+...
    group committee 1 w1
    quorum committee

What KAD writes names Ed25519 keys, which all tools read; ML-DSA-44 keys are read as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError
from kad_protocol.note import Checkpoint, Note, SignatureType, VerifierKey, subtree_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_protocol.note import LogKeys, SignatureLine

__all__ = ["Policy", "PolicyFindings", "check_line", "policy_file"]

MAX_POLICY_BYTES = 256 << 10
_MAX_LINES = 1000
_TIME_BYTES = 8


def policy_file(log: LogKeys, witnesses: Sequence[LogKeys], needed: int) -> str:
    """How a stranger verifies the notes of a simpul.

    Args:
        log: keys of the simpul's feed.
        witnesses: witness keys of those whose turn it is.
        needed: how many of them are enough.
    """
    names = [f"w{number}" for number in range(1, len(witnesses) + 1)]
    lines = [f"log {log.log_lines[0].vkey}"]
    lines += [f"witness {name} {keys.witness_lines[0].vkey}" for name, keys in zip(names, witnesses, strict=True)]
    if names:
        lines.append(f"group committee {needed} {' '.join(names)}")
    lines.append(f"quorum {'committee' if names else 'none'}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class PolicyFindings:
    """A checkpoint that satisfies a policy."""

    checkpoint: Checkpoint
    #: Names of the keys whose cosignature verified, with the time of each (seconds since 1970).
    witnesses: dict[str, int]


@dataclass(slots=True)
class Policy:
    """A policy file, read."""

    logs: list[VerifierKey] = field(default_factory=list)
    witnesses: dict[str, VerifierKey] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    #: Empty: no witness is asked for.
    quorum: str | None = None

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy file.

        Raises:
            InvalidInputError: ``INVALID_FILE``, naming the line.
        """
        if len(text.encode(errors="replace")) > MAX_POLICY_BYTES:
            raise InvalidInputError(Reason.INVALID_FILE, f"a policy file has at most {MAX_POLICY_BYTES} bytes")
        policy = cls()
        used: set[str] = set()
        for number, line in enumerate(text.split("\n")[:_MAX_LINES], 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                policy._read(words, used)
            except (KadError, ValueError) as error:
                raise InvalidInputError(Reason.INVALID_FILE, f"policy, line {number}: {error}", line=number) from error
        if not policy.logs or policy.quorum is None:
            raise InvalidInputError(Reason.INVALID_FILE, "a policy names a log and a quorum")
        return policy

    def _read(self, words: list[str], used: set[str]) -> None:
        if self.quorum is not None:
            raise ValueError("the quorum is the last line")
        match words:
            case ["log", vkey, *_]:
                self.logs.append(VerifierKey.parse(vkey))
            case ["witness", name, vkey, *_] if self._is_new(name):
                self.witnesses[name] = VerifierKey.parse(vkey)
            case ["group", name, count, first, *more] if self._is_new(name):
                names = (first, *more)
                if (unknown := [part for part in names if part not in self.witnesses and part not in self.groups]) or used & set(names):
                    raise ValueError(f"{(unknown or sorted(used & set(names)))[0][:80]} is not known, or stands in two groups")
                if len(set(names)) != len(names):
                    raise ValueError("a name stands twice in a group")
                used.update(names)
                needed = {"all": len(names), "any": 1}.get(count) or int(count)
                if not 1 <= needed <= len(names):
                    raise ValueError(f"{count[:20]} of {len(names)} cannot be")
                self.groups[name] = (needed, names)
            case ["quorum", "none"]:
                self.quorum = ""
            case ["quorum", name] if name in self.witnesses or name in self.groups:
                self.quorum = name
            case _:
                raise ValueError("this is not a line of a policy, or its name is taken or unknown")

    def _is_new(self, name: str) -> bool:
        return name != "none" and name not in self.witnesses and name not in self.groups

    def check(self, note: bytes) -> PolicyFindings:
        """Check a cosigned checkpoint.

        Raises:
            VerificationError: ``NOTE_MALFORMED``, ``SIGNATURE_MISSING``, ``SIGNATURE_INVALID``, ``NOT_WITNESSED``.
        """
        parsed = Note.parse(note)
        checkpoint = Checkpoint.parse(parsed.text)
        if not any(key.name == checkpoint.origin and _times(key, parsed, checkpoint) for key in self.logs):
            raise VerificationError(
                Reason.SIGNATURE_MISSING, f"no log of the policy has signed {checkpoint.origin}", feed=checkpoint.origin
            )
        found: dict[str, int] = {}
        verified: set[str] = set()
        for name, key in self.witnesses.items():
            times = _times(key, parsed, checkpoint)
            if times:
                verified.add(name)
                found[key.name] = max(times)
        if self.quorum and not self._satisfied(self.quorum, verified):
            raise VerificationError(
                Reason.NOT_WITNESSED, f"{len(verified)} of {len(self.witnesses)} witnesses have signed, which is too few for the policy"
            )
        return PolicyFindings(checkpoint, found)

    def _satisfied(self, name: str, verified: set[str]) -> bool:
        if name in self.witnesses:
            return name in verified
        needed, names = self.groups[name]
        return sum(self._satisfied(part, verified) for part in names) >= needed


def _times(key: VerifierKey, note: Note, checkpoint: Checkpoint) -> list[int]:
    """The times of a key's lines under a note, all of which must verify; 0 for the line of a log."""
    times: list[int] = []
    for line in note.signatures:
        if (line.name, line.key_id) == (key.name, key.key_id):
            check_line(key, line, checkpoint)
            times.append(0 if key.type is SignatureType.ED25519 else int.from_bytes(line.payload[:_TIME_BYTES], "big"))
    return times


def check_line(key: VerifierKey, line: SignatureLine, checkpoint: Checkpoint) -> None:
    """Check one signature line with the key that made it.

    Raises:
        VerificationError: ``SIGNATURE_INVALID``.
    """
    time = int.from_bytes(line.payload[:_TIME_BYTES], "big")
    try:
        match key.type:
            case SignatureType.ED25519:
                Ed25519PublicKey.from_public_bytes(key.public_key).verify(line.payload, checkpoint.text.encode())
            case SignatureType.ED25519_COSIGNATURE:
                message = f"cosignature/v1\ntime {time}\n{checkpoint.text}".encode()
                Ed25519PublicKey.from_public_bytes(key.public_key).verify(line.payload[_TIME_BYTES:], message)
            case _:
                message = subtree_message(key.name, time, checkpoint.origin, 0, checkpoint.size, checkpoint.root)
                MLDSA44PublicKey.from_public_bytes(key.public_key).verify(line.payload[_TIME_BYTES:], message)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(Reason.SIGNATURE_INVALID, f"the signature of {key.name} is wrong", key=key.name) from error
