"""Tokens of the local API."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kad_node.tokens import Role, Tokens
from kad_protocol.errors import InvalidInputError, NotFoundError, UnauthenticatedError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_token_has_its_role_until_it_is_revoked(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    reader, publisher = tokens.create("laporan", Role.READER), tokens.create("penerbit", Role.PUBLISHER)
    assert (tokens.role_of(reader), tokens.role_of(publisher)) == (Role.READER, Role.PUBLISHER)
    assert tokens.names() == {"laporan": "reader", "penerbit": "publisher"}
    # Another process revokes it, as the command line does beside the daemon.
    Tokens(tmp_path).revoke("laporan")
    os.utime(tmp_path)
    for wrong in (reader, "", "x", publisher[:-1]):
        with pytest.raises(UnauthenticatedError):
            tokens.role_of(wrong)
    assert tokens.role_of(publisher) == Role.PUBLISHER


def test_tokens_are_not_kept(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.create("laporan", Role.READER)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token.encode() not in kept
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_names_and_roles_are_checked(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    for name in ("../x", "A", "", "a/b"):
        with pytest.raises(InvalidInputError):
            tokens.create(name, Role.READER)
    with pytest.raises(InvalidInputError):
        Role.parse("raja")
    with pytest.raises(NotFoundError):
        tokens.revoke("tidak-ada")
