"""Tokens of the local API."""

from __future__ import annotations

import json
import os
import time
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


def test_a_revoked_token_is_refused_where_the_clock_of_the_files_is_coarse(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.create("laporan", Role.READER)
    moment = time.time_ns()
    os.utime(tmp_path, ns=(moment, moment))
    assert tokens.role_of(token) == Role.READER
    Tokens(tmp_path).revoke("laporan")
    os.utime(tmp_path, ns=(moment, moment))
    with pytest.raises(UnauthenticatedError):
        tokens.role_of(token)


def test_tokens_that_stay_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.create("laporan", Role.READER)
    long_ago = time.time_ns() - 60_000_000_000
    os.utime(tmp_path, ns=(long_ago, long_ago))
    assert tokens.role_of(token) == Role.READER
    monkeypatch.setattr(type(tmp_path), "read_text", lambda *_: pytest.fail("read again"))
    assert tokens.role_of(token) == Role.READER


def test_a_name_is_given_once(tmp_path: Path) -> None:
    """A second token of a name would silently shut out whoever uses the first."""
    tokens = Tokens(tmp_path)
    first = tokens.create("laporan", Role.READER)
    tokens.create_local()
    for name in ("laporan", "local-admin"):
        with pytest.raises(InvalidInputError, match="already"):
            tokens.create(name, Role.ADMIN)
    assert tokens.role_of(first) == Role.READER
    assert tokens.role_of(tokens.local()) == Role.ADMIN
    tokens.revoke("laporan")
    assert tokens.role_of(tokens.create("laporan", Role.EDITOR)) == Role.EDITOR


def test_the_command_line_has_a_token_of_its_own(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    with pytest.raises(UnauthenticatedError):
        tokens.local()
    tokens.create_local()
    before = tokens.local()
    # An interrupted start makes it again.
    tokens.create_local()
    assert tokens.role_of(tokens.local()) == Role.ADMIN
    with pytest.raises(UnauthenticatedError):
        tokens.role_of(before)
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", "3", "{}", '{"role": "raja", "sha256": "x"}', '{"role": 4, "sha256": "x"}', "\udcff"])
def test_a_broken_token_locks_nobody_out_and_lets_nobody_in(tmp_path: Path, text: str) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.create("laporan", Role.READER)
    (tmp_path / "broken.json").write_bytes(text.encode(errors="surrogateescape"))
    assert tokens.role_of(token) == Role.READER
    assert tokens.names() == {"laporan": "reader"}
    with pytest.raises(UnauthenticatedError):
        tokens.role_of("x")


def test_what_is_no_text_is_no_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    tokens.create("laporan", Role.READER)
    for wrong in ("\udc80", "\x00", "🙂", "x" * 1_000_000):
        with pytest.raises(UnauthenticatedError):
            tokens.role_of(wrong)


def test_it_is_kept_when_a_token_was_made(tmp_path: Path) -> None:
    Tokens(tmp_path).create("laporan", Role.READER)
    document = json.loads((tmp_path / "laporan.json").read_text())
    assert sorted(document) == ["created", "role", "sha256"]
    assert document["created"].endswith("+00:00")


def test_names_and_roles_are_checked(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    for name in ("../x", "A", "", "a/b"):
        with pytest.raises(InvalidInputError):
            tokens.create(name, Role.READER)
    with pytest.raises(InvalidInputError):
        Role.parse("raja")
    with pytest.raises(NotFoundError):
        tokens.revoke("tidak-ada")
