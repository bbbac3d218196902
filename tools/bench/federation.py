"""Federations of real processes, to be measured: a simpul and nodes, each with its own store, over mutual TLS, as an operator runs them."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kad_node.home import Home
from kad_node.store.transaction import SqliteTransaction
from kad_node.witness import confirmed_checkpoint
from kad_protocol import connect
from kad_protocol.names import FeedId
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from kad_protocol.client import Client

__all__ = ["Federation", "Held", "Process", "until"]

_PATIENCE_SECONDS = 60
_VARIABLES = {
    "KAD_LIMITS_RECONNECT_MIN_SECONDS": "0.1",
    "KAD_LIMITS_RECONNECT_MAX_SECONDS": "1",
    "KAD_LIMITS_DRAIN_SECONDS": "2",
    "KAD_LOG_FORMAT": "json",
    "KAD_LOG_LEVEL": "warning",
    "KAD_LANG": "en",
}
_TICKS = os.sysconf("SC_CLK_TCK")


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KAD_")} | _VARIABLES | more


async def until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE_SECONDS, pause: float = 0.005) -> float:
    """Wait until something is so; returns when that was (``time.monotonic``)."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain: {what}")
        await asyncio.sleep(pause)
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Held:
    """What lies on a process's disk, by feed."""

    folded: dict[str, int]
    #: How far the simpul's log says that it holds each feed: the receipt.
    observed: dict[str, int]
    judged: int


class Process:
    """One member: its home, its daemon, and its store as seen from outside."""

    def __init__(self, program: str, name: str, path: Path) -> None:
        self.program = program
        self.name = name
        self.home = Home(path, "simpul" if program == "kad_simpul" else "node")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._look: sqlite3.Connection | None = None

    def run(self, *arguments: str) -> str:
        """A command, to its end."""
        done = subprocess.run(
            [sys.executable, "-m", self.program, "--home", str(self.home.path), *arguments],
            capture_output=True,
            text=True,
            env=_environment({}),
            check=False,
            timeout=_PATIENCE_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"{self.program} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    async def start(self, *, checks: bool = True, **variables: str) -> None:
        """Start the daemon; without ``checks`` the one that neither witnesses nor judges (``tools.bench.without``)."""
        module = [self.program] if checks else ["tools.bench.without", self.program]
        with (self.home.path / "log.jsonl").open("ab") as log:
            self._daemon = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
                [sys.executable, "-m", *module, "--home", str(self.home.path), "run"], stdout=log, stderr=log, env=_environment(variables)
            )
        daemon = self._daemon
        await until(lambda: daemon.poll() is not None or self.home.running().get("pid") == daemon.pid, f"{self.name} starts", pause=0.03)
        if daemon.poll() is not None:
            raise RuntimeError(f"{self.name} did not start: {(self.home.path / 'log.jsonl').read_text(errors='replace')[-2000:]}")
        self._look = sqlite3.connect(f"file:{self.home.store}?mode=ro", uri=True)

    async def stop(self) -> None:
        """Stop the daemon."""
        if self._look is not None:
            self._look.close()
            self._look = None
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._daemon.wait, 30)
            self._daemon = None

    def kill(self) -> None:
        """The end, whatever it does."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Its local API."""
        async with connect(str(self.home.running()["api"]), token=self.home.tokens.local()) as kad:
            yield kad

    def cpu_seconds(self) -> float:
        """Processor time of the daemon so far, all threads, user and system."""
        assert self._daemon is not None  # noqa: S101 - it runs
        with open(f"/proc/{self._daemon.pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def store_bytes(self) -> int:
        """Bytes of its database, write-ahead log included."""
        return sum(path.stat().st_size for path in self.home.path.glob("store.sqlite3*"))

    def held(self) -> Held:
        """What is durable here: a reader of the file sees a commit when it has been synced."""
        assert self._look is not None  # noqa: S101 - it runs
        rows = self._look.execute(
            "SELECT origin, folded, IFNULL((SELECT MAX(o.size) FROM observation o WHERE o.feed = f.id), 0), judged, role FROM feed f"
        ).fetchall()
        judged = next((row[3] for row in rows if row[4] == entry_pb2.MEMBER_ROLE_SIMPUL), 0)
        return Held({row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}, judged)

    def confirmed(self, simpul: FeedId) -> bool:
        """Does this process know that enough members confirm the whole of the simpul's log?"""
        assert self._look is not None  # noqa: S101 - it runs
        self._look.execute("BEGIN")
        try:
            tx = SqliteTransaction(self._look)
            found, state = confirmed_checkpoint(tx, simpul), tx.feed(simpul)
            return found is not None and state is not None and found.checkpoint.size == state.size
        finally:
            self._look.execute("ROLLBACK")


@dataclass
class Federation:
    """A simpul and its nodes, running. ``checks``: they witness and judge; otherwise they only exchange."""

    folder: Path
    checks: bool
    simpul: Process = field(init=False)
    nodes: list[Process] = field(default_factory=list)

    @property
    def processes(self) -> list[Process]:
        """All of them, the simpul first."""
        return [self.simpul, *self.nodes]

    @property
    def log(self) -> FeedId:
        """The simpul's feed."""
        return FeedId("simpul-ukur.kad.internal", "simpul-ukur")

    def feed(self, process: Process) -> str:
        """Origin of a member's feed."""
        return FeedId(self.log.federation, process.name).origin

    async def found(self, nodes: int) -> None:
        """Found it and let everybody join. All that is needed to exchange is judged before any check is left out."""
        self.simpul = Process("kad_simpul", self.log.forum, self.folder / "simpul")
        # The system's own range of passing ports begins at 32768; two federations may stand side by side.
        port = random.SystemRandom().randrange(20_000, 32_000)
        options = ("--mode", "subsidiarity", "--address", f"127.0.0.1:{port}")
        self.simpul.run("init", "--id", self.log.forum, "--name", "Simpul Ukur", *options)
        await self.simpul.start()
        for number in range(nodes):
            name = f"forum-{number}"
            process = Process("kad_node", name, self.folder / name)
            invitation = self.simpul.run("invite", name).strip()
            process.run("join", invitation, "--forum", name, "--name", f"Sekber {number}")
            await process.start()
            self.nodes.append(process)
        everybody = {self.feed(process) for process in self.nodes}
        for process in self.processes:
            await until(lambda p=process: everybody <= set(p.held().folded), f"{process.name} knows everybody", pause=0.05)  # type: ignore[misc]
            await until(lambda p=process: p.confirmed(self.log), f"{process.name} sees that all confirm", pause=0.05)  # type: ignore[misc]
        if not self.checks:
            for process in reversed(self.processes):
                await process.stop()
            for process in self.processes:
                await process.start(checks=False)

    def reached(self, sizes: dict[str, int], held: Sequence[Held] = ()) -> bool:
        """Does everybody durably hold so much of each feed, folded, with its receipt, and judged where that is done?

        Args:
            sizes: how much, by feed.
            held: what everybody holds, if that was just looked up.
        """
        return all(self._has(found, sizes) for found in held or (process.held() for process in self.processes))

    def _has(self, held: Held, sizes: dict[str, int]) -> bool:
        log = self.log.origin
        for feed, size in sizes.items():
            if held.folded.get(feed, 0) < size or (feed != log and held.observed.get(feed, 0) < size):
                return False
        return not self.checks or held.judged == held.folded[log]

    async def quiet(self) -> None:
        """Wait until nothing is left to be done: all confirm, and the log does not grow."""
        if not self.checks:
            return
        for process in self.processes:
            await until(lambda p=process: p.confirmed(self.log), f"{process.name} sees that all confirm", pause=0.05)  # type: ignore[misc]

    def remove(self) -> None:
        """End all processes and delete what they wrote."""
        for process in self.processes:
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
