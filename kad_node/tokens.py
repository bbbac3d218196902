"""Tokens of the local API: who may do what through it.

A token is 256 random bits; the home keeps only its SHA-256. One admin token lies in the home in the clear, readable by its owner alone:
with it the command line of that owner speaks to its daemon.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import logging
import secrets
import time
from enum import IntEnum
from typing import TYPE_CHECKING

from kad_node.files import write_atomic
from kad_protocol.errors import InvalidInputError, NotFoundError, Reason, UnauthenticatedError
from kad_protocol.names import check_forum

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Role", "Tokens"]

log = logging.getLogger(__name__)

_LOCAL = "local-admin"

#: A folder that changed less than this before it was read may change again without showing it: clocks of file systems are coarse.
_SETTLED_NANOSECONDS = 1_000_000_000


class Role(IntEnum):
    """Each may do what those before it may, and more."""

    READER = 1
    EDITOR = 2
    PUBLISHER = 3
    ADMIN = 4

    @classmethod
    def parse(cls, word: str) -> Role:
        """Read a role.

        Raises:
            InvalidInputError: ``INVALID_FIELD``.
        """
        try:
            return cls[word.upper()]
        except KeyError:
            raise InvalidInputError(Reason.INVALID_FIELD, f"a role is {', '.join(role.name.lower() for role in cls)}") from None


class Tokens:
    """The tokens of one home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cached: list[tuple[str, Role]] = []
        self._cached_of: int | None = None

    @property
    def _secret_path(self) -> Path:
        return self._folder / f"{_LOCAL}.token"

    def create(self, name: str, role: Role) -> str:
        """A new token, shown once.

        Raises:
            InvalidInputError: ``INVALID_NAME``; ``INVALID_FIELD`` if a token has that name: whoever uses that one would be shut out.
        """
        if name == _LOCAL or (self._folder / f"{check_forum(name)}.json").exists():
            raise InvalidInputError(Reason.INVALID_FIELD, f"there is a token {name!r} already; revoke it first, or choose another name")
        return self._write(name, role)

    def _write(self, name: str, role: Role) -> str:
        token = secrets.token_urlsafe(32)
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        document = {"role": role.name.lower(), "sha256": _digest(token), "created": created}
        write_atomic(self._folder / f"{name}.json", json.dumps(document).encode(), private=True)
        return token

    def create_local(self) -> None:
        """Make the command line's own token; replaces an earlier one."""
        write_atomic(self._secret_path, self._write(_LOCAL, Role.ADMIN).encode(), private=True)

    def local(self) -> str:
        """The command line's own token.

        Raises:
            UnauthenticatedError: ``TOKEN_INVALID``: it is not there, or not ours to read.
        """
        try:
            return self._secret_path.read_text().strip()
        except OSError as error:
            raise UnauthenticatedError(Reason.TOKEN_INVALID, f"{self._secret_path}: {error.strerror}") from error

    def revoke(self, name: str) -> None:
        """Make a token worthless.

        Raises:
            NotFoundError: ``TOKEN_INVALID``.
        """
        try:
            (self._folder / f"{check_forum(name)}.json").unlink()
        except FileNotFoundError:
            raise NotFoundError(Reason.TOKEN_INVALID, f"there is no token {name!r}", name=name) from None

    def names(self) -> dict[str, str]:
        """Names and roles."""
        return {name: role.name.lower() for name, _, role in self._documents()}

    def role_of(self, bearer: str) -> Role:
        """The role of whoever holds this token.

        Raises:
            UnauthenticatedError: ``TOKEN_INVALID``.
        """
        digest = _digest(bearer)
        found: Role | None = None
        for known, role in self._known():
            if hmac.compare_digest(known, digest):
                found = role
        if found is None:
            raise UnauthenticatedError(Reason.TOKEN_INVALID, "the token is missing or not known here")
        return found

    def _known(self) -> list[tuple[str, Role]]:
        """Digests and roles; read again when the folder has changed, since every call asks."""
        # In this order: what changes after the look at the clock is seen at the next call.
        now, changed = time.time_ns(), self._folder.stat().st_mtime_ns
        if changed != self._cached_of:
            self._cached = [(digest, role) for _, digest, role in self._documents()]
            self._cached_of = changed if now - changed > _SETTLED_NANOSECONDS else None
        return self._cached

    def _documents(self) -> Iterator[tuple[str, str, Role]]:
        """Name, digest and role of each token. One that cannot be read opens nothing, and does not lock out the others."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                document = json.loads(path.read_text())
                yield path.stem, str(document["sha256"]), Role.parse(str(document["role"]))
            except FileNotFoundError:
                continue  # Revoked since we listed them.
            except (OSError, ValueError, KeyError, TypeError, InvalidInputError) as error:
                log.warning("token is not readable", extra={"file": path.name, "why": str(error)})


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
