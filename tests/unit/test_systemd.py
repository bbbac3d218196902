"""What systemd hears of us."""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

import pytest

from kad_node import systemd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@kad-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def test_states_are_lines(heard: socket.socket) -> None:
    systemd.notify(READY=1, STATUS="3 tersambung")
    assert heard.recv(1000) == b"READY=1\nSTATUS=3 tersambung"


def test_a_value_stays_in_its_line(heard: socket.socket) -> None:
    systemd.notify(STATUS="a\nWATCHDOG=trigger\r\nb")
    assert heard.recv(1000) == b"STATUS=a WATCHDOG=trigger b"


def test_reloading_says_since_when(heard: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    systemd.notify(RELOADING=1)
    first, second = heard.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("address", [None, "", "/nowhere/at/all", "/" + "x" * 300])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify(READY=1) is None


@pytest.mark.parametrize(
    "micros,pid,expected",
    [
        ("3000000", None, 1.5),
        ("3000000", "own", 1.5),
        ("3000000", "1", None),
        (None, None, None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
    ],
)
def test_how_often_it_wants_to_hear(monkeypatch: pytest.MonkeyPatch, micros, pid, expected) -> None:
    for name, value in (("WATCHDOG_USEC", micros), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value.replace("own", str(os.getpid())))
    assert systemd.watchdog_seconds() == expected
