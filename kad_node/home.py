"""The home directory of a member: where everything of it lies.

::

    kad.toml                     configuration
    role                         "node" or "simpul"
    keys/epoch-<e>.key, epoch-<e>-<fingerprint>.key      the member's secrets, one more for each rotation (0600, sealed if there is a
                                 passphrase); the feed says which of them signs
    recovery.json                a recovery that was begun and is not finished
    channel/identity.pem, authority.pem                  its channel key and certificate, and who issued it
    authority/key.pem, certificate.pem                   its own authority: the simpul's, or that of a node without a simpul
    tokens/                      tokens of the local API
    store.sqlite3                feeds and what is folded from them
    lock                         held by whoever has the home open; its process id
    run.json                     where the daemon that has it open can be reached
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_data_path

from kad_node.files import write_atomic
from kad_node.tokens import Tokens
from kad_protocol import keys as keyfiles
from kad_protocol.errors import KadError, NotFoundError, PreconditionError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PATIENCE_SECONDS", "Home", "passphrase"]

#: How long a program waits for a home that a command holds for a moment.
PATIENCE_SECONDS = 10.0


def passphrase(environ: Mapping[str, str]) -> bytes | None:
    """The passphrase of the key file: ``KAD_PASSPHRASE``, or the systemd credential ``kad-passphrase``; None if there is none."""
    if value := environ.get("KAD_PASSPHRASE"):
        return value.encode()
    if folder := environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / "kad-passphrase"
        if path.exists():
            return path.read_bytes().strip() or None
    return None


class Home:
    """One home directory."""

    def __init__(self, path: Path, role: str) -> None:
        self.path = path
        self.role = role
        self.tokens = Tokens(path / "tokens")

    @classmethod
    def find(cls, option: str | None, environ: Mapping[str, str], role: str) -> Home:
        """The home that is meant: ``--home``, else ``KAD_HOME``, else the user's usual place."""
        chosen = option or environ.get("KAD_HOME")
        return cls(Path(os.path.expanduser(chosen)).absolute() if chosen else user_data_path(f"kad-{role}"), role)  # noqa: PTH111 - never fails

    @property
    def config(self) -> Path:
        """``kad.toml``; a home is initialised when it is there."""
        return self.path / "kad.toml"

    @property
    def store(self) -> Path:
        """The database."""
        return self.path / "store.sqlite3"

    def prepare(self) -> None:
        """Make the directory for a new member. May be repeated until ``kad.toml`` is there, so an interrupted start goes on.

        Raises:
            PreconditionError: ``HOME_ALREADY_INITIALISED``, ``HOME_WRONG_ROLE``, ``HOME_NOT_WRITABLE``.
        """
        if self.config.exists():
            raise PreconditionError(Reason.HOME_ALREADY_INITIALISED, f"{self.path} is the home of a member already", home=self.path)
        try:
            for folder in (self.path, *(self.path / name for name in ("keys", "channel", "authority", "tokens"))):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.path / "role").exists():
                write_atomic(self.path / "role", self.role.encode())
        except OSError as error:
            raise PreconditionError(Reason.HOME_NOT_WRITABLE, f"{self.path}: {error.strerror}", home=self.path) from error
        self._check_role()

    def require(self) -> None:
        """Check that this is a member's home, of the right role.

        Raises:
            NotFoundError: ``HOME_NOT_FOUND``. PreconditionError: ``HOME_WRONG_ROLE``, ``HOME_NOT_WRITABLE``.
        """
        try:
            found = self.config.exists()
        except OSError as error:
            raise PreconditionError(Reason.HOME_NOT_WRITABLE, f"{self.path}: {error.strerror}", home=self.path) from error
        if not found:
            raise NotFoundError(Reason.HOME_NOT_FOUND, f"there is no member's home in {self.path}", home=self.path, role=self.role)
        self._check_role()
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise PreconditionError(Reason.HOME_NOT_WRITABLE, f"{self.path} is not writable", home=self.path)

    def _check_role(self) -> None:
        role = self.read("role").decode(errors="replace").strip()
        if role != self.role:
            raise PreconditionError(
                Reason.HOME_WRONG_ROLE, f"{self.path} is the home of a {role}; use kad-{role}", home=self.path, role=role
            )

    # Keys.

    def create_keys(self, environ: Mapping[str, str], epoch: int = 0) -> keyfiles.MemberKeys:
        """The first keys of an epoch; those that are there already if an earlier start was interrupted.

        Raises:
            InvalidInputError: ``INVALID_PASSPHRASE``, ``INVALID_FILE``.
        """
        path = self.path / "keys" / f"epoch-{epoch}.key"
        if not path.exists():
            write_atomic(path, keyfiles.seal(keyfiles.MemberKeys.generate(epoch), passphrase(environ)), private=True)
        return keyfiles.unseal(path.read_bytes(), passphrase(environ))

    # Channel.

    def read(self, name: str) -> bytes:
        """A file of the home.

        Raises:
            NotFoundError: ``HOME_NOT_FOUND``.
        """
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(Reason.HOME_NOT_FOUND, f"{self.path / name} is missing", home=self.path) from None

    def write(self, name: str, data: bytes, *, private: bool = False) -> None:
        """Replace a file of the home, durably."""
        write_atomic(self.path / name, data, private=private)

    def save_channel(self, key: bytes, certificate: bytes) -> None:
        """Keep a channel key with its certificate: one file, so that they never belong to two different renewals."""
        self.write("channel/identity.pem", key + certificate, private=True)

    def channel(self) -> tuple[bytes, bytes]:
        """Channel key and certificate, PEM.

        Raises:
            NotFoundError: ``HOME_NOT_FOUND``.
        """
        key, separator, certificate = self.read("channel/identity.pem").partition(b"-----BEGIN CERTIFICATE-----")
        return key, separator + certificate

    # Who has it open.

    @contextmanager
    def lock(self, patience_seconds: float = 0) -> Iterator[None]:
        """Hold the home, so that two programs never write to it at once.

        A command holds it for a moment only, so whoever has ``patience_seconds`` waits that long for it; for a daemon nobody waits.

        The kernel lets go of it when the process ends, however it ends. So a ``run.json`` that is found once the home is ours was
        left behind by a daemon that is gone; it is removed.

        Raises:
            PreconditionError: ``HOME_IN_USE``, ``HOME_NOT_WRITABLE``.
        """
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise PreconditionError(Reason.HOME_NOT_WRITABLE, f"{self.path}: {error.strerror}", home=self.path) from error
        try:
            deadline = time.monotonic() + patience_seconds
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "?"
                    if time.monotonic() >= deadline or pid == str(self.running().get("pid")):
                        text = f"{self.path} is in use by process {pid}"
                        raise PreconditionError(Reason.HOME_IN_USE, text, home=self.path, pid=pid) from None
                time.sleep(0.02)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            self.withdraw()
            yield
        finally:
            os.close(descriptor)

    def locked(self) -> bool:
        """Does anybody hold the home?"""
        try:
            with self.lock():
                return False
        except KadError as error:
            return error.reason == Reason.HOME_IN_USE

    def announce(self, api: str, addresses: Mapping[str, str]) -> None:
        """Say where the daemon that holds this home can be reached."""
        self.write("run.json", json.dumps({"pid": os.getpid(), "api": api, **addresses}).encode())

    def withdraw(self) -> None:
        """The daemon is gone."""
        (self.path / "run.json").unlink(missing_ok=True)

    def running(self) -> dict[str, Any]:
        """What the daemon said of itself, empty if nothing; stale if it was killed and nobody has held the home since (``locked``)."""
        try:
            data = json.loads((self.path / "run.json").read_text())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}
