r"""Signed notes, checkpoints and cosignatures: the formats of C2SP, read strictly.

* A *signed note* (C2SP signed-note) is a text and signature lines ``— <name> <base64(key id || signature)>``.
* A *checkpoint* (C2SP tlog-checkpoint) is a note whose text is ``<origin>\\n<size>\n<base64 root>\n``.
* A *cosignature* (C2SP tlog-cosignature) is a line with which a witness says what it has seen, and when.

Inside KAD a checkpoint carries two lines of its log and both must verify: Ed25519 (type 0x01), which every C2SP tool reads, and ML-DSA-44
(type 0x06), good when Ed25519 no longer is. Otherwise whoever can strip a line decides how strong the signature is.

Reading is strict: a note is parsed, written again and compared, so that there is one spelling of every statement. The limits are 64
KiB and 16 signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from kad_protocol.errors import Reason, VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_NOTE_BYTES",
    "Checkpoint",
    "Cosignature",
    "LogKeys",
    "LogSigner",
    "Note",
    "SignatureLine",
    "SignatureType",
    "VerifierKey",
    "cosign",
    "only_lines_of",
    "open_checkpoint",
    "sign_checkpoint",
    "verify_cosignatures",
]

MAX_NOTE_BYTES = 64 << 10
MAX_SIGNATURES = 16
MAX_NAME_BYTES = 255
KEY_ID_BYTES = 4
ED25519_PUBLIC_BYTES = 32
ED25519_SIGNATURE_BYTES = 64
MLDSA44_PUBLIC_BYTES = 1312
MLDSA44_SIGNATURE_BYTES = 2420
TIME_BYTES = 8
ROOT_BYTES = 32
MAX_SIZE = (1 << 63) - 1

#: Encodings of Ed25519 points of small order, and of points that are not written in the one canonical way. With such a key one
#: signature verifies many messages, so its owner could deny or fork at will; OpenSSL and Go accept them.
_WEAK_ED25519 = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    )
)
_FIELD_PRIME = 2**255 - 19

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[^\s+\x00-\x1f]+")


class SignatureType(IntEnum):
    """Type byte of a signature (C2SP signed-note)."""

    ED25519 = 0x01
    ED25519_COSIGNATURE = 0x04
    MLDSA44_COSIGNATURE = 0x06


def _malformed(message: str) -> VerificationError:
    return VerificationError(Reason.NOTE_MALFORMED, message)


def _decode(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(f"{what} is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise _malformed(f"{what} is not canonical base64")
    return data


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
        raise _malformed("a key name is empty, too long, or has white space or '+' in it")
    return name


def _check_ed25519(key: bytes) -> None:
    y = int.from_bytes(key, "little") & ((1 << 255) - 1)
    if len(key) != ED25519_PUBLIC_BYTES or key in _WEAK_ED25519 or y >= _FIELD_PRIME:
        raise VerificationError(Reason.WEAK_KEY, "an Ed25519 key of the wrong length, of small order or not in canonical form")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name, as C2SP writes it: ``name+hex(key id)+base64(type || key)``."""

    name: str
    type: SignatureType
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """``SHA-256(name || 0x0A || type || public key)[:4]``."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public_key).digest()[:KEY_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The text form."""
        encoded = base64.b64encode(bytes([self.type]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Read the text form.

        Raises:
            VerificationError: ``NOTE_MALFORMED``.
        """
        parts = vkey.split("+", 2)
        if len(parts) != 3:  # noqa: PLR2004 - name, id, key
            raise _malformed("a verifier key is name+id+key")
        data = _decode(parts[2], "the key")
        try:
            key = cls(_check_name(parts[0]), SignatureType(data[0]), data[1:])
        except (ValueError, IndexError) as error:
            raise _malformed("a verifier key of an unknown type") from error
        expected = MLDSA44_PUBLIC_BYTES if key.type == SignatureType.MLDSA44_COSIGNATURE else ED25519_PUBLIC_BYTES
        if len(key.public_key) != expected or key.vkey != vkey:
            raise _malformed("a verifier key whose length or id is wrong")
        if expected == ED25519_PUBLIC_BYTES:
            _check_ed25519(key.public_key)
        return key


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature of a note; ``payload`` is what stands behind the key id."""

    name: str
    key_id: bytes
    payload: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"\u2014 {self.name} {base64.b64encode(self.key_id + self.payload).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and who signed it. ``text`` ends with a newline."""

    text: str
    signatures: tuple[SignatureLine, ...]

    def to_bytes(self) -> bytes:
        """As it travels."""
        return (self.text + "\n" + "".join(map(str, self.signatures))).encode()

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Read a note; checks its form, no signature.

        Raises:
            VerificationError: ``NOTE_MALFORMED``.
        """
        if len(data) > MAX_NOTE_BYTES:
            raise _malformed(f"a note of {len(data)} bytes; at most {MAX_NOTE_BYTES}")
        try:
            whole = data.decode()
        except UnicodeDecodeError as error:
            raise _malformed("a note is UTF-8") from error
        if _CONTROL.search(whole):
            raise _malformed("a note has no control characters")
        body, separator, tail = whole.rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise _malformed("a note has a text, an empty line and signature lines")
        lines = tail.removesuffix("\n").split("\n")
        if not 1 <= len(lines) <= MAX_SIGNATURES:
            raise _malformed(f"a note has 1 to {MAX_SIGNATURES} signatures")
        note = cls(body + "\n", tuple(_parse_line(line) for line in lines))
        if note.to_bytes() != data:
            raise _malformed("the note is not spelt in the one right way")
        return note


def _parse_line(line: str) -> SignatureLine:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "\u2014":  # noqa: PLR2004 - dash, name, signature
        raise _malformed("a signature line is '\u2014 name signature'")
    data = _decode(parts[2], "a signature")
    if len(data) <= KEY_ID_BYTES:
        raise _malformed("a signature without a signature")
    return SignatureLine(_check_name(parts[1]), data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself: the log of this origin has ``size`` leaves and this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text of the note, without extension lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a checkpoint.

        Raises:
            VerificationError: ``CHECKPOINT_MALFORMED``.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not _SIZE.fullmatch(lines[1]):  # noqa: PLR2004 - origin, size, root, end
            raise VerificationError(Reason.CHECKPOINT_MALFORMED, "a checkpoint is three lines: origin, size, root")
        origin = lines[0]
        if (
            not _NAME.fullmatch(origin)
            or len(origin.encode()) > MAX_NAME_BYTES
            or origin == "cosignature/v1"
            or origin.startswith("subtree/")
        ):
            # Such a text could be read as the message of a cosignature, or its origin could be no key's name.
            raise VerificationError(Reason.CHECKPOINT_MALFORMED, "an origin that is empty, too long or reserved")
        try:
            root = _decode(lines[2], "the root")
        except VerificationError as error:
            raise VerificationError(Reason.CHECKPOINT_MALFORMED, str(error)) from error
        if len(root) != ROOT_BYTES:
            raise VerificationError(Reason.CHECKPOINT_MALFORMED, "a root has 32 bytes")
        size = int(lines[1])
        if size > MAX_SIZE or (size == 0 and root != hashlib.sha256().digest()):
            raise VerificationError(Reason.CHECKPOINT_MALFORMED, "a size that is too large, or an empty tree with a root of its own")
        return cls(origin, size, root)


@dataclass(frozen=True)
class LogKeys:
    """The two public keys of a log; ``origin`` is their name. Also used for the keys of a witness.

    Raises:
        VerificationError: ``WEAK_KEY`` for wrong lengths, Ed25519 keys of small order and non-canonical ones.
    """

    origin: str
    ed25519_public: bytes
    mldsa44_public: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.mldsa44_public) != MLDSA44_PUBLIC_BYTES:
            raise VerificationError(Reason.WEAK_KEY, "a public key of the wrong length")
        _check_ed25519(self.ed25519_public)

    @cached_property
    def ed25519(self) -> Ed25519PublicKey:
        """The loaded Ed25519 key."""
        return Ed25519PublicKey.from_public_bytes(self.ed25519_public)

    @cached_property
    def mldsa44(self) -> MLDSA44PublicKey:
        """The loaded ML-DSA-44 key."""
        return MLDSA44PublicKey.from_public_bytes(self.mldsa44_public)

    @cached_property
    def log_lines(self) -> tuple[VerifierKey, VerifierKey]:
        """The verifier keys of this log's own two lines."""
        return (
            VerifierKey(self.origin, SignatureType.ED25519, self.ed25519_public),
            VerifierKey(self.origin, SignatureType.MLDSA44_COSIGNATURE, self.mldsa44_public),
        )

    @cached_property
    def witness_lines(self) -> tuple[VerifierKey, VerifierKey]:
        """The verifier keys of a witness's two lines."""
        return (
            VerifierKey(self.origin, SignatureType.ED25519_COSIGNATURE, self.ed25519_public),
            VerifierKey(self.origin, SignatureType.MLDSA44_COSIGNATURE, self.mldsa44_public),
        )

    @cached_property
    def key_ids(self) -> tuple[bytes, bytes]:
        """Key ids of ``log_lines``."""
        return (self.log_lines[0].key_id, self.log_lines[1].key_id)


class LogSigner:
    """The two private keys of a log or witness, each made from its 32-byte seed. Never shown."""

    __slots__ = ("_ed25519", "_mldsa44", "public")

    def __init__(self, origin: str, ed25519_seed: bytes, mldsa44_seed: bytes) -> None:
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(ed25519_seed)
        self._mldsa44 = MLDSA44PrivateKey.from_seed_bytes(mldsa44_seed)
        self.public = LogKeys(origin, self._ed25519.public_key().public_bytes_raw(), self._mldsa44.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"LogSigner({self.public.origin!r})"

    def sign_ed25519(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._ed25519.sign(message)

    def sign_mldsa44(self, message: bytes) -> bytes:
        """2,420 bytes, randomised."""
        return self._mldsa44.sign(message)


def subtree_message(cosigner: str, time: int, origin: str, start: int, end: int, root: bytes) -> bytes:
    """What an ML-DSA-44 line signs (C2SP tlog-cosignature). For a checkpoint ``start`` is 0 and ``end`` its size."""
    name, log = cosigner.encode(), origin.encode()
    return b"".join(
        (
            b"subtree/v1\n\x00",
            bytes([len(name)]),
            name,
            time.to_bytes(8, "big"),
            bytes([len(log)]),
            log,
            start.to_bytes(8, "big"),
            end.to_bytes(8, "big"),
            root,
        )
    )


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[LogSigner]) -> bytes:
    """A signed note with two lines of each signer: one signer, or the old and the new one at a key rotation."""
    Checkpoint.parse(checkpoint.text)
    if not signers or any(signer.public.origin != checkpoint.origin for signer in signers):
        raise VerificationError(Reason.WRONG_ORIGIN, "a checkpoint is signed by its own log", feed=checkpoint.origin)
    message = subtree_message(checkpoint.origin, 0, checkpoint.origin, 0, checkpoint.size, checkpoint.root)
    lines: list[SignatureLine] = []
    for signer in signers:
        first, second = signer.public.key_ids
        lines.append(SignatureLine(checkpoint.origin, first, signer.sign_ed25519(checkpoint.text.encode())))
        lines.append(SignatureLine(checkpoint.origin, second, bytes(TIME_BYTES) + signer.sign_mldsa44(message)))
    return Note(checkpoint.text, tuple(lines)).to_bytes()


def open_checkpoint(data: bytes, keys: Sequence[LogKeys]) -> Checkpoint:
    """Read a signed checkpoint and check it: each of ``keys`` must have signed with both of its algorithms.

    Lines of other keys are ignored, as the specification asks.

    Raises:
        VerificationError: ``NOTE_MALFORMED``, ``CHECKPOINT_MALFORMED``, ``WRONG_ORIGIN``, ``SIGNATURE_MISSING``,
            ``SIGNATURE_INVALID``.
    """
    note = Note.parse(data)
    checkpoint = Checkpoint.parse(note.text)
    if not keys:
        raise VerificationError(Reason.SIGNATURE_MISSING, "without a key no signature can be checked", feed=checkpoint.origin)
    for key in keys:
        if key.origin != checkpoint.origin:
            raise VerificationError(Reason.WRONG_ORIGIN, f"a checkpoint of {checkpoint.origin}, not of {key.origin}", feed=key.origin)
        first, second = key.key_ids
        for line in _lines(note, key.origin, first):
            _verify_ed25519(key, line.payload, checkpoint.text.encode())
        for line in _lines(note, key.origin, second):
            time = int.from_bytes(line.payload[:TIME_BYTES], "big")
            message = subtree_message(key.origin, time, checkpoint.origin, 0, checkpoint.size, checkpoint.root)
            _verify_mldsa44(key, line.payload[TIME_BYTES:], message)
    return checkpoint


def only_lines_of(data: bytes, keys: LogKeys) -> bytes:
    """A signed checkpoint without the lines of anybody else, so that there is room for those of witnesses.

    Raises:
        VerificationError: ``NOTE_MALFORMED``, ``SIGNATURE_MISSING``.
    """
    note = Note.parse(data)
    lines = [_lines(note, keys.origin, key_id)[0] for key_id in keys.key_ids]
    return Note(note.text, tuple(lines)).to_bytes()


def _lines(note: Note, name: str, key_id: bytes) -> list[SignatureLine]:
    found = [line for line in note.signatures if line.name == name and line.key_id == key_id]
    if not found:
        raise VerificationError(Reason.SIGNATURE_MISSING, f"a required signature of {name} is missing", feed=name)
    return found


def _verify_ed25519(key: LogKeys, signature: bytes, message: bytes) -> None:
    try:
        key.ed25519.verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(Reason.SIGNATURE_INVALID, f"the Ed25519 signature of {key.origin} is wrong", feed=key.origin) from error


def _verify_mldsa44(key: LogKeys, signature: bytes, message: bytes) -> None:
    try:
        key.mldsa44.verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(Reason.SIGNATURE_INVALID, f"the ML-DSA-44 signature of {key.origin} is wrong", feed=key.origin) from error


@dataclass(frozen=True, slots=True)
class Cosignature:
    """What a witness confirmed, and when (seconds since 1970)."""

    witness: str
    time: int


def cosign(checkpoint: Checkpoint, witness: LogSigner, time: int) -> tuple[SignatureLine, SignatureLine]:
    """Two lines that say: at ``time`` this was the largest consistent tree of this origin that the witness had seen.

    Whoever calls this has stored that state first, in one step with comparing it (C2SP tlog-witness).
    """
    name = witness.public.origin
    first, second = witness.public.witness_lines
    stamp = time.to_bytes(TIME_BYTES, "big")
    ed25519 = witness.sign_ed25519(f"cosignature/v1\ntime {time}\n{checkpoint.text}".encode())
    mldsa44 = witness.sign_mldsa44(subtree_message(name, time, checkpoint.origin, 0, checkpoint.size, checkpoint.root))
    return SignatureLine(name, first.key_id, stamp + ed25519), SignatureLine(name, second.key_id, stamp + mldsa44)


def verify_cosignatures(note: Note, witness: LogKeys) -> Cosignature:
    """Check the two lines of a witness under a checkpoint; both must be there, valid, and say the same time.

    Raises:
        VerificationError: ``SIGNATURE_MISSING``, ``SIGNATURE_INVALID``, ``CHECKPOINT_MALFORMED``.
    """
    checkpoint = Checkpoint.parse(note.text)
    name = witness.origin
    first, second = witness.witness_lines
    times: set[int] = set()
    for line in _lines(note, name, first.key_id):
        time = int.from_bytes(line.payload[:TIME_BYTES], "big")
        _verify_ed25519(witness, line.payload[TIME_BYTES:], f"cosignature/v1\ntime {time}\n{note.text}".encode())
        times.add(time)
    for line in _lines(note, name, second.key_id):
        time = int.from_bytes(line.payload[:TIME_BYTES], "big")
        message = subtree_message(name, time, checkpoint.origin, 0, checkpoint.size, checkpoint.root)
        _verify_mldsa44(witness, line.payload[TIME_BYTES:], message)
        times.add(time)
    if len(times) != 1 or 0 in times:
        raise VerificationError(Reason.SIGNATURE_INVALID, f"the cosignatures of {name} name no time or several", witness=name)
    return Cosignature(name, times.pop())
