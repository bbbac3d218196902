"""Tokens of the local API: who may do what through it.

A token is 256 random bits; the home keeps only its SHA-256. One admin token lies in the home in the clear, readable by its owner alone:
with it the command line of that owner speaks to its daemon.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from enum import IntEnum
from typing import TYPE_CHECKING

from kad_node.files import write_atomic
from kad_protocol.errors import InvalidInputError, NotFoundError, Reason, UnauthenticatedError
from kad_protocol.names import check_forum

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Role", "Tokens"]

_LOCAL = "local-admin"


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
        self._read_at = 0

    @property
    def _secret_path(self) -> Path:
        return self._folder / f"{_LOCAL}.token"

    def create(self, name: str, role: Role) -> str:
        """A new token, shown once."""
        check_forum(name)
        token = secrets.token_urlsafe(32)
        document = {"role": role.name.lower(), "sha256": hashlib.sha256(token.encode()).hexdigest()}
        write_atomic(self._folder / f"{name}.json", json.dumps(document).encode(), private=True)
        return token

    def create_local(self) -> None:
        """The command line's own token."""
        write_atomic(self._secret_path, self.create(_LOCAL, Role.ADMIN).encode(), private=True)

    def local(self) -> str:
        """The command line's own token."""
        return self._secret_path.read_text().strip()

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
        return {path.stem: str(json.loads(path.read_text())["role"]) for path in sorted(self._folder.glob("*.json"))}

    def role_of(self, bearer: str) -> Role:
        """The role of whoever holds this token.

        Raises:
            UnauthenticatedError: ``TOKEN_INVALID``.
        """
        digest = hashlib.sha256(bearer.encode()).hexdigest()
        found: Role | None = None
        for known, role in self._known():
            if hmac.compare_digest(known, digest):
                found = role
        if found is None:
            raise UnauthenticatedError(Reason.TOKEN_INVALID, "the token is missing or not known here")
        return found

    def _known(self) -> list[tuple[str, Role]]:
        """Digests and roles; read again when the folder has changed, since every call asks."""
        changed = self._folder.stat().st_mtime_ns
        if changed != self._read_at:
            documents = [json.loads(path.read_text()) for path in self._folder.glob("*.json")]
            self._cached = [(document["sha256"], Role.parse(document["role"])) for document in documents]
            self._read_at = changed
        return self._cached
