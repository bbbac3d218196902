"""What a member keeps secret: one random secret for each key epoch, and the recovery secret.

All keys of an epoch are derived from its 32 bytes, ``HKDF-SHA256(secret, info="kad/v1/<purpose>/<epoch>")``,
so there is one thing to back up and one file to lock. The recovery secret is printed once, as a code, and is
kept off the machine; the genesis of the feed commits to its public keys by their hash, so there is nothing to
attack before they are used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.names import MAX_EPOCH
from kad_protocol.note import LogSigner

if TYPE_CHECKING:
    from kad_protocol.note import LogKeys

__all__ = ["SECRET_SIZE", "MemberKeys", "RecoveryKeys", "recovery_digest", "seal", "unseal"]

#: Bytes in every secret.
SECRET_SIZE = 32

#: Bytes in a key file; a larger one is refused unread.
MAX_FILE_BYTES = 4096
_TYPE = "kad.secret.v1"
_SALT_SIZE = 16
_NONCE_SIZE = 12
#: n = 2^17, r = 8, p = 1: 128 MiB and about a quarter of a second.
_SCRYPT_LOG_N = 17
#: What a file may ask for, up to 256 MiB: a hostile one would ask for all memory.
_SCRYPT_LOG_N_ALLOWED = range(14, 19)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_CHECK_SIZE = 3
_CODE_BYTES = SECRET_SIZE + _CODE_CHECK_SIZE
_CODE_SYMBOLS = _CODE_BYTES * 8 // 5
_CODE_GROUP = 4
#: What people write for what stands on the paper.
_CODE_READING = str.maketrans("OIL", "011", " -\t\r\n")


@dataclass(frozen=True)
class MemberKeys:
    """The secret of one member in one key epoch, 0 to 9999. It does not show in ``repr``.

    Raises:
        InvalidInputError: ``INVALID_FIELD`` for a secret that has not 32 bytes or an epoch that cannot be.
    """

    secret: bytes = field(repr=False)
    epoch: int = 0

    def __post_init__(self) -> None:
        _check_secret(self.secret)
        if not 0 <= self.epoch <= MAX_EPOCH:
            raise InvalidInputError(Reason.INVALID_FIELD, f"there is no key epoch {self.epoch}")

    @staticmethod
    def generate(epoch: int = 0) -> MemberKeys:
        """A fresh secret from the system's random source."""
        return MemberKeys(secrets.token_bytes(SECRET_SIZE), epoch)

    def log_signer(self, origin: str) -> LogSigner:
        """What signs the checkpoints of this member's feed. Costly to make: keep it."""
        return LogSigner(origin, self._seed("log/ed25519"), self._seed("log/mldsa44"))

    def witness_signer(self, name: str) -> LogSigner:
        """What cosigns the checkpoints of others, with keys of its own. Costly to make: keep it."""
        return LogSigner(name, self._seed("witness/ed25519"), self._seed("witness/mldsa44"))

    def encryption_seed(self) -> bytes:
        """The 32-byte seed of the identity (X-Wing) to which others encrypt for this member."""
        return self._seed("encryption")

    def _seed(self, purpose: str) -> bytes:
        return _derive(self.secret, f"{purpose}/{self.epoch}")


def seal(keys: MemberKeys, passphrase: bytes | None) -> bytes:
    """The key file: JSON text of some 300 bytes, sealed with scrypt and ChaCha20-Poly1305.

    Without a passphrase the secret stands in it as it is (``"kdf": "none"``): something else protects it.
    Takes 0.3 s and 128 MiB with a passphrase: not for the event loop.

    Raises:
        InvalidInputError: ``INVALID_PASSPHRASE`` for an empty one.
    """
    header: dict[str, str | int] = {"type": _TYPE, "epoch": keys.epoch}
    if passphrase is None:
        return _dump({**header, "kdf": "none", "secret": _encode(keys.secret)}) + b"\n"
    if not passphrase:
        raise _passphrase("the passphrase is empty")
    salt, nonce = secrets.token_bytes(_SALT_SIZE), secrets.token_bytes(_NONCE_SIZE)
    header |= {"kdf": "scrypt", "log_n": _SCRYPT_LOG_N, "r": 8, "p": 1}
    header |= {"salt": _encode(salt), "nonce": _encode(nonce)}
    box = _box(passphrase, salt, _SCRYPT_LOG_N).encrypt(nonce, keys.secret, _dump(header))
    return _dump({**header, "sealed": _encode(box)}) + b"\n"


def unseal(data: bytes, passphrase: bytes | None) -> MemberKeys:
    """Read a key file.

    A file that is not sealed is refused when a passphrase is given: it may have been put in the place of one
    that was.
    Takes 0.3 s and 128 MiB, at most twice that, with a passphrase: not for the event loop.

    Raises:
        InvalidInputError: ``INVALID_FILE`` if it is no key file, or asks for more memory than 256 MiB;
            ``INVALID_PASSPHRASE`` if the passphrase is wrong (or the file was altered), missing, or needless.
    """
    header = _load(data)
    kdf = header.get("kdf")
    if kdf == "none":
        if passphrase is not None:
            raise _passphrase("a passphrase was given, but the key file is not sealed")
        _check_fields(header, {"type", "epoch", "kdf", "secret"})
        return MemberKeys(_decode(header, "secret", SECRET_SIZE), _epoch(header))

    if kdf != "scrypt":
        raise _not_a_key_file(f"it is sealed in a way unknown here ({str(kdf)[:20]!r})")
    _check_fields(header, {"type", "epoch", "kdf", "log_n", "r", "p", "salt", "nonce", "sealed"})
    if passphrase is None:
        raise _passphrase("the key file is sealed; its passphrase is needed")
    log_n = header["log_n"]
    if type(log_n) is not int or log_n not in _SCRYPT_LOG_N_ALLOWED or (header["r"], header["p"]) != (8, 1):
        raise _not_a_key_file("its scrypt parameters are out of bounds")
    salt, nonce = _decode(header, "salt", _SALT_SIZE), _decode(header, "nonce", _NONCE_SIZE)
    box = _decode(header, "sealed", SECRET_SIZE + 16)
    epoch = _epoch(header)
    del header["sealed"]
    try:
        secret = _box(passphrase, salt, log_n).decrypt(nonce, box, _dump(header))
    except InvalidTag:
        raise _passphrase("the passphrase is wrong, or the key file was altered") from None
    return MemberKeys(secret, epoch)


@dataclass(frozen=True)
class RecoveryKeys:
    """The secret that can begin a new epoch of a feed whose keys are lost or stolen; not in ``repr``.

    Raises:
        InvalidInputError: ``INVALID_FIELD`` for a secret that has not 32 bytes.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_secret(self.secret)

    @staticmethod
    def generate() -> RecoveryKeys:
        """A fresh secret from the system's random source."""
        return RecoveryKeys(secrets.token_bytes(SECRET_SIZE))

    def signer(self, name: str) -> LogSigner:
        """What signs recovery statements; the name (by custom the origin) is no part of the keys."""
        seeds = [_derive(self.secret, f"recovery/{algorithm}") for algorithm in ("ed25519", "mldsa44")]
        return LogSigner(name, *seeds)

    @property
    def public_digest(self) -> bytes:
        """The commitment to the public keys that stands in the genesis, 32 bytes."""
        return recovery_digest(self.signer("recovery").public)

    def to_code(self) -> str:
        """The secret as it is printed: 14 groups of 4 symbols (Crockford's base 32), with a checksum."""
        number = int.from_bytes(self.secret + _code_check(self.secret))
        symbols = "".join(_CROCKFORD[number >> shift & 31] for shift in range(_CODE_SYMBOLS * 5 - 5, -1, -5))
        return "-".join(symbols[at : at + _CODE_GROUP] for at in range(0, _CODE_SYMBOLS, _CODE_GROUP))

    @staticmethod
    def from_code(code: str) -> RecoveryKeys:
        """Read a code as people type it: any case, spaces or hyphens anywhere, O for 0, I or L for 1.

        Raises:
            InvalidInputError: ``INVALID_FIELD`` if a symbol is wrong, missing or too much; the message never
                repeats the code.
        """
        symbols = code.upper().translate(_CODE_READING)
        if len(symbols) != _CODE_SYMBOLS or not set(symbols) <= set(_CROCKFORD):
            message = f"a recovery code has {_CODE_SYMBOLS} letters and digits, and no U"
            raise InvalidInputError(Reason.INVALID_FIELD, message)
        number = 0
        for symbol in symbols:
            number = number << 5 | _CROCKFORD.index(symbol)
        data = number.to_bytes(_CODE_BYTES)
        secret, check = data[:SECRET_SIZE], data[SECRET_SIZE:]
        if check != _code_check(secret):
            raise InvalidInputError(Reason.INVALID_FIELD, "the recovery code has a typing error")
        return RecoveryKeys(secret)


def recovery_digest(keys: LogKeys) -> bytes:
    """What a genesis says of recovery keys: SHA-256 over a prefix of its own and both keys, 32 bytes."""
    return hashlib.sha256(b"kad/v1/recovery-keys\n" + keys.ed25519_public + keys.mldsa44_public).digest()


def _derive(secret: bytes, purpose: str) -> bytes:
    # The secret is uniformly random, so HKDF needs no salt (RFC 5869, section 3.1).
    return HKDF(SHA256(), SECRET_SIZE, salt=None, info=f"kad/v1/{purpose}".encode()).derive(secret)


def _box(passphrase: bytes, salt: bytes, log_n: int) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, n=1 << log_n, r=8, p=1).derive(passphrase))


def _code_check(secret: bytes) -> bytes:
    return hashlib.sha256(b"kad/v1/recovery-code\n" + secret).digest()[:_CODE_CHECK_SIZE]


def _check_secret(secret: bytes) -> None:
    if len(secret) != SECRET_SIZE:
        raise InvalidInputError(Reason.INVALID_FIELD, f"a secret has {SECRET_SIZE} bytes")


def _dump(header: dict[str, str | int]) -> bytes:
    """One form only, since it is also what the seal authenticates."""
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _load(data: bytes) -> dict[str, str | int]:
    if len(data) > MAX_FILE_BYTES:
        raise _not_a_key_file("it is too large")
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        raise _not_a_key_file("it is not JSON") from None
    if not isinstance(header, dict) or header.get("type") != _TYPE:
        raise _not_a_key_file("its type is unknown here")
    return header


def _check_fields(header: dict[str, str | int], names: set[str]) -> None:
    if set(header) != names:
        raise _not_a_key_file("it has too many fields or too few")


def _epoch(header: dict[str, str | int]) -> int:
    epoch = header["epoch"]
    if type(epoch) is not int or not 0 <= epoch <= MAX_EPOCH:
        raise _not_a_key_file("its epoch cannot be")
    return epoch


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(header: dict[str, str | int], name: str, size: int) -> bytes:
    value = header[name]
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise _not_a_key_file(f"its {name} has not {size} bytes")
    return data


def _passphrase(why: str) -> InvalidInputError:
    return InvalidInputError(Reason.INVALID_PASSPHRASE, why)


def _not_a_key_file(why: str) -> InvalidInputError:
    return InvalidInputError(Reason.INVALID_FILE, f"not a key file: {why}")
