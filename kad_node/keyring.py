"""The secrets of a home, found by the public keys that its feed names.

A home has one secret for each key epoch and one more for each rotation, each in a file of its own that is durable before the entry
that names its keys exists. Which of them signs is never a matter of the files: the feed says it, by public keys. So whatever was
interrupted, and whatever backup was restored, the right one is found; and none is ever deleted, since an old one may still be asked for
(a checkpoint of yesterday to confirm, a renewal at a simpul that has not heard of the rotation, a text that was encrypted for it).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from typing import TYPE_CHECKING

from kad_node.files import write_atomic
from kad_node.home import passphrase
from kad_protocol import keys as keyfiles
from kad_protocol.errors import InvalidInputError, PreconditionError, Reason
from kad_protocol.keys import MemberKeys

if TYPE_CHECKING:
    from pathlib import Path

    from kad_node.home import Home
    from kad_protocol.names import FeedId
    from kad_protocol.note import LogKeys, LogSigner

__all__ = ["Keyring", "fingerprint"]

_NAME = re.compile(r"epoch-([0-9]{1,4})(?:-([0-9a-f]{16}))?\.key")


def fingerprint(keys: LogKeys) -> bytes:
    """SHA-256 over both public keys: what people compare."""
    return hashlib.sha256(b"kad/v1/key-set\n" + keys.ed25519_public + keys.mldsa44_public).digest()


class Keyring:
    """The secrets of one feed in one home. Opening one that is sealed takes 0.3 s, so each is opened once, when it is needed.

    Args:
        home: where they lie.
        own: the feed whose origin the signatures name.
    """

    def __init__(self, home: Home, own: FeedId) -> None:
        self._home = home
        self._own = own
        self._lock = threading.Lock()
        self._opened: set[str] = set()
        self._log: dict[LogKeys, LogSigner] = {}
        self._witness: dict[LogKeys, LogSigner] = {}

    def log_signer(self, keys: LogKeys) -> LogSigner:
        """What signs one's own feed with these keys. Not for the event loop.

        Raises:
            PreconditionError: ``KEY_ROTATION_INVALID``, no secret in this home has them.
            InvalidInputError: ``INVALID_PASSPHRASE``, ``INVALID_FILE``.
        """
        return self._find(self._log, keys, "signed")

    def witness_signer(self, keys: LogKeys) -> LogSigner:
        """What confirms checkpoints of others with these keys. Not for the event loop.

        Raises:
            As ``log_signer``.
        """
        return self._find(self._witness, keys, "witnessed")

    def _find(self, known: dict[LogKeys, LogSigner], keys: LogKeys, what: str) -> LogSigner:
        with self._lock:
            damaged: InvalidInputError | None = None
            if keys not in known:
                hint = fingerprint(keys).hex()[:16]
                # By its name first, then whatever there is: file names are a help, and prove nothing.
                for path in sorted(self._files(), key=lambda path: (hint not in path.name, path.name)):
                    if path.name not in self._opened:
                        try:
                            self._remember(path.name, keyfiles.unseal(path.read_bytes(), passphrase(os.environ)))
                        except InvalidInputError as error:
                            # The right one may lie beside it.
                            damaged = damaged or error
                    if keys in known:
                        break
            if keys not in known and damaged is not None:
                raise damaged
            if keys not in known:
                raise PreconditionError(
                    Reason.KEY_ROTATION_INVALID, f"no key in this home is the one that {self._own} is {what} with", feed=self._own
                )
            return known[keys]

    def _files(self) -> list[Path]:
        found = [(path, _NAME.fullmatch(path.name)) for path in (self._home.path / "keys").glob("epoch-*.key")]
        paths = [path for path, name in found if name is not None and int(name.group(1)) == self._own.epoch]
        if not paths:
            raise InvalidInputError(
                Reason.INVALID_FILE, f"there is no key of epoch {self._own.epoch} in {self._home.path / 'keys'}", epoch=self._own.epoch
            )
        return paths

    def _remember(self, name: str, keys: MemberKeys) -> None:
        self._opened.add(name)
        if keys.epoch == self._own.epoch:
            log, witness = keys.log_signer(self._own.origin), keys.witness_signer(self._own.origin)
            self._log[log.public], self._witness[witness.public] = log, witness

    def create(self) -> tuple[LogSigner, LogSigner]:
        """A new secret, durable when this returns: its log and its witness signer. Not for the event loop.

        Raises:
            PreconditionError: ``HOME_NOT_WRITABLE``.
        """
        keys = MemberKeys.generate(self._own.epoch)
        log, witness = keys.log_signer(self._own.origin), keys.witness_signer(self._own.origin)
        name = f"epoch-{keys.epoch}-{fingerprint(log.public).hex()[:16]}.key"
        try:
            write_atomic(self._home.path / "keys" / name, keyfiles.seal(keys, passphrase(os.environ)), private=True)
        except OSError as error:
            raise PreconditionError(
                Reason.HOME_NOT_WRITABLE, f"{self._home.path / 'keys'}: {error.strerror}", home=self._home.path
            ) from error
        with self._lock:
            self._remember(name, keys)
        return log, witness
