"""A federation of real processes in a temporary folder: what a person would type, typed by a program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc

from kad_node.cli.common import as_json
from kad_node.home import Home
from kad_protocol import connect
from kad_protocol.v1 import (
    governance_pb2,
    governance_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    records_pb2,
    records_pb2_grpc,
    transparency_pb2,
    transparency_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from kad_protocol.client import Client

START_SECONDS = 45
FAST = {
    "KAD_LIMITS_RECONNECT_MIN_SECONDS": "0.1",
    "KAD_LIMITS_RECONNECT_MAX_SECONDS": "1",
    "KAD_LIMITS_DRAIN_SECONDS": "2",
    "KAD_LOG_FORMAT": "json",
    "KAD_LANG": "en",
}

PRACTICE = {
    "kind": "best-practice",
    "title": "Berbagi biaya pengelolaan sampah",
    "problem": "Sampah tidak mengenal batas",
    "regions": ["34.71"],
}


_M, _D, _A = (
    governance_pb2_grpc.MembershipServiceStub,
    governance_pb2_grpc.DecisionsServiceStub,
    governance_pb2_grpc.MandatesServiceStub,
)
#: Commands, and what they ask of the local API: stub, method, request, the part of the answer that they print.
_QUESTIONS: dict[tuple[str, ...], tuple[Any, str, Any, str]] = {
    ("status",): (node_pb2_grpc.NodeServiceStub, "GetStatus", node_pb2.GetStatusRequest(), ""),
    ("federation",): (_M, "GetFederation", governance_pb2.GetFederationRequest(), "federation"),
    ("members",): (_M, "ListMembers", governance_pb2.ListMembersRequest(page_size=1000), "members"),
    ("decisions",): (_D, "ListDecisions", governance_pb2.ListDecisionsRequest(), "decisions"),
    ("acts",): (_A, "ListActs", governance_pb2.ListActsRequest(), "acts"),
    ("mandate", "list"): (_A, "ListMandates", governance_pb2.ListMandatesRequest(), "mandates"),
    ("mandate", "list", "--live"): (_A, "ListMandates", governance_pb2.ListMandatesRequest(live_only=True), "mandates"),
    ("evidence",): (
        transparency_pb2_grpc.TransparencyServiceStub,
        "ListEvidence",
        transparency_pb2.ListEvidenceRequest(),
        "evidence",
    ),
    ("list",): (records_pb2_grpc.RecordsServiceStub, "ListRecords", records_pb2.ListRecordsRequest(), "records"),
}


class FailedError(AssertionError):
    """A command ended with another status than 0."""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAD_")}
    return kept | FAST | more


def command(program: str, home: Path, *arguments: str, stdin: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its status."""
    return subprocess.run(
        [sys.executable, "-m", program, "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        env=environment(**more),
        check=False,
        timeout=START_SECONDS,
    )


def run(program: str, home: Path, *arguments: str, stdin: str | None = None, **more: str) -> str:
    """Run a command that must succeed; what it printed."""
    done = command(program, home, *arguments, stdin=stdin, **more)
    if done.returncode:
        raise FailedError(f"{program} {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


class Member:
    """One member: its home, and its daemon if it runs."""

    def __init__(self, program: str, name: str, path: Path) -> None:
        self.program = program
        self.name = name
        self.home = Home(path, "simpul" if program == "kad_simpul" else "node")
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str, stdin: str | None = None, **more: str) -> str:
        return run(self.program, self.home.path, *arguments, stdin=stdin, **more)

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        """What the command prints as JSON. What tests ask again and again is asked of the running daemon itself, where that is the same: a
        program that starts anew for each look takes the processor from those that are looked at.
        """
        question = _QUESTIONS.get(arguments) if self.process is not None else None
        if question is None:
            return json.loads(self.run(*arguments, "--json", stdin=stdin))
        stub, method, request, part = question
        with grpc.insecure_channel(str(self.home.running()["api"])) as channel:
            token = (("authorization", f"Bearer {self.home.tokens.local()}"),)
            answer = getattr(stub(channel), method)(request, timeout=30, metadata=token)
        found = getattr(answer, part) if part else answer
        return [as_json(item) for item in found] if isinstance(found, Sequence) else as_json(found)

    async def start(self, **more: str) -> None:
        log = (self.home.path / "log.jsonl").open("ab")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.program, "--home", str(self.home.path), "run"], stdout=log, stderr=log, env=environment(**more)
            )
        process = self.process
        await until(lambda: process.poll() is not None or self.home.running().get("pid") == process.pid, f"{self.name} starts")
        if process.poll() is not None:
            raise FailedError(f"{self.name} did not start:\n{self.log()}")

    def log(self) -> str:
        return (self.home.path / "log.jsonl").read_text(errors="replace")[-4000:]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = await asyncio.to_thread(self.process.wait, 30)
        self.process = None
        return code

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with connect(str(self.home.running()["api"]), token=self.home.tokens.local()) as kad:
            yield kad

    async def names(self) -> set[str]:
        """Names of all records that are published here."""
        async with self.client() as kad:
            return {record.name async for record in kad.all_records("state = PUBLISHED")}


class Federation:
    """A simpul and nodes."""

    def __init__(self, folder: Path, name: str = "simpul-uji") -> None:
        self.folder = folder
        self.id = name
        self.simpul = Member("kad_simpul", name, folder / "simpul")
        self.nodes: dict[str, Member] = {}

    async def found(self, mode: str = "networking", **more: str) -> None:
        # A port of its own for each test, since several run at once.
        port = random.SystemRandom().randrange(20_000, 55_000)
        self.simpul.run("init", "--id", self.id, "--name", f"Simpul {self.id}", "--address", f"127.0.0.1:{port}", "--mode", mode)
        await self.simpul.start(**more)

    @property
    def name(self) -> str:
        """Of the federation."""
        return f"{self.id}.kad.internal"

    def invite(self, forum: str, *more: str) -> str:
        return self.simpul.run("invite", forum, *more).strip()

    async def join(self, forum: str, *more: str, start: bool = True) -> Member:
        member = self.nodes[forum] = Member("kad_node", forum, self.folder / forum)
        member.run("join", self.invite(forum), "--forum", forum, "--name", f"Sekber {forum}", *more)
        if start:
            await member.start()
        return member

    async def close(self) -> None:
        for member in [*self.nodes.values(), self.simpul]:
            if member.process is not None:
                member.process.kill()
                await asyncio.to_thread(member.process.wait)


async def cheat(simpul: Member, trick: str, **more: str) -> None:
    """Put the hostile one in the place of the honest one."""
    await simpul.stop()
    log = (simpul.home.path / "log.jsonl").open("ab")
    with log:
        simpul.process = subprocess.Popen(
            [sys.executable, "-m", "tests.federation.hostile_simpul", "--home", str(simpul.home.path), trick],
            stdout=log,
            stderr=log,
            env=environment(**more),
        )
    process = simpul.process
    await until(lambda: process.poll() is not None or simpul.home.running().get("pid") == process.pid, "the hostile simpul starts")
    if process.poll() is not None:
        raise FailedError(simpul.log())


async def until(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """Wait for a condition (a function, sync or async); its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise FailedError(f"waited {seconds} s in vain: {what}")
        await asyncio.sleep(0.03)
