"""``kad demo --two-simpuls``: the inter-district and the inter-provincial simpul, joined. Real processes, real channels, real records.

What is shown is what the daemons answer, and, for what must not cross, what their databases hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
from rich.markup import escape

from kad_node import config as configuration
from kad_node.cli.common import err, explain, out, print_json
from kad_node.cli.setup import free_port
from kad_node.home import Home
from kad_node.messages import _, language
from kad_protocol import connect, document
from kad_protocol.errors import KadError, PreconditionError, Reason, UnavailableError
from kad_protocol.v1 import bridge_pb2, content_pb2, entry_pb2, node_pb2, records_pb2
from kad_simpul import demo_data
from kad_simpul.config import SimpulConfig
from kad_simpul.demo_hints import look_around

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from kad_protocol.client import Client

__all__ = ["run_bridge_demo"]

#: The two simpuls of the study, and some forums of each.
_FEDERATIONS = {
    "simpul-kabkota": ("Simpul Kerjasama Antar Kabupaten/Kota", ("kartamantul", "javapromo")),
    "simpul-provinsi": ("Simpul Kerjasama Antar Provinsi", ("appsi", "mitra-praja-utama")),
}
_AUTHOR = "kartamantul"
_SECONDS = 60


@dataclass(slots=True)
class _Process:
    """One member: its home, and its daemon."""

    name: str
    home: Home
    running: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> str:
        return f"kad_{self.home.role}"

    def run(self, *arguments: str) -> dict[str, Any]:
        """One command, to its end; its JSON.

        Raises:
            PreconditionError: it failed.
        """
        command = [sys.executable, "-m", self.program, "--home", str(self.home.path), *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False, timeout=_SECONDS)  # noqa: S603 - our own program
        if done.returncode:
            message = done.stderr.strip().splitlines()
            raise PreconditionError(Reason.PEER_UNREACHABLE, f"{' '.join(arguments[:2])}: {message[-1] if message else 'failed'}")
        return dict(json.loads(done.stdout))

    async def start(self) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            UnavailableError: ``DAEMON_NOT_RUNNING``.
        """
        environment = _environment()
        if self.home.role == "simpul":
            # On this machine only, whatever the configuration says for a real one.
            config = configuration.load(SimpulConfig, self.home.config, {})
            for key in ("listen", "enrolment_listen"):
                environment[f"KAD_{key.upper()}"] = f"127.0.0.1:{getattr(config, key).rpartition(':')[2]}"
        command = [sys.executable, "-m", self.program, "--home", str(self.home.path), "run"]
        with (self.home.path / "log.jsonl").open("ab") as log:
            self.running = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)  # noqa: ASYNC220, S603 - our own program, and it starts at once
        process = self.running

        async def answers() -> bool:
            if process.poll() is not None:
                tail = (self.home.path / "log.jsonl").read_text(errors="replace").splitlines()[-3:]
                raise UnavailableError(Reason.DAEMON_NOT_RUNNING, f"{self.name} did not start: {' '.join(tail)[:500]}")
            if self.home.running().get("pid") != process.pid:
                return False
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with self.client() as kad:
                    await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=5)
                    return True
            return False

        await _until(answers, self.name)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the daemon."""
        async with connect(str(self.home.running()["api"]), token=self.home.tokens.local(), language=language()) as kad:
            yield kad

    async def record(self, name: str) -> records_pb2.Record | None:
        """A record as it stands there, None if it is not known."""
        async with self.client() as kad:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return (await kad.records.GetRecord(records_pb2.GetRecordRequest(name=name), timeout=20)).record
        return None

    def holds(self, text: str) -> bool:
        """Do these words stand anywhere in its database, as bytes?"""
        return any(text.encode() in path.read_bytes() for path in self.home.path.glob("store.sqlite3*"))

    async def stop(self) -> None:
        """Ask the daemon to stop, and wait for it."""
        if self.running is None:
            return
        self.running.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.running.wait, 15)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()
        self.running = None


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAD_")}
    return kept | {"KAD_LANG": language(), "KAD_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            raise UnavailableError(Reason.PEER_UNREACHABLE, _("{what} did not happen within {n} s").format(what=what, n=_SECONDS))
        await asyncio.sleep(0.1)


class _Story:
    """Two federations, and what happens between them."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        self.folder = folder
        self.quiet = quiet
        self.simpuls = {name: _Process(name, Home(folder / name, "simpul")) for name in _FEDERATIONS}
        self.nodes = {forum: _Process(forum, Home(folder / forum, "node")) for _name, forums in _FEDERATIONS.values() for forum in forums}

    def say(self, text: str) -> None:
        """One step."""
        if self.quiet:
            err.print(f"[dim]{text}[/]")
        else:
            out.print(text)

    async def stop(self) -> None:
        """Stop everything that was started."""
        await asyncio.gather(*(process.stop() for process in [*self.nodes.values(), *self.simpuls.values()]))

    async def play(self) -> dict[str, Any]:
        """All of it; returns the result."""
        for name, (title, forums) in _FEDERATIONS.items():
            await self._found(name, title, forums)
        here, there = self.simpuls
        await self._join(here, there)
        return await self._publish(f"{here}.kad.internal", there)

    async def _found(self, name: str, title: str, forums: tuple[str, ...]) -> None:
        simpul = self.simpuls[name]
        self.say(_("Founding {name}: a simpul with its keys, its feed and its own authority ...").format(name=f"[bold]{name}[/]"))
        # Its own corner of the ports, so that several demonstrations on one machine do not meet.
        port = free_port(random.SystemRandom().randrange(30_000, 40_000))
        await asyncio.to_thread(simpul.run, "init", "--id", name, "--name", title, "--address", f"localhost:{port}")
        await simpul.start()
        for forum in forums:
            code = str((await asyncio.to_thread(simpul.run, "invite", forum))["code"])
            node, display = self.nodes[forum], str(demo_data.forum(forum)["name"])
            await asyncio.to_thread(node.run, "join", code, "--forum", forum, "--name", display)
            await node.start()
            self.say(_("  [green]✓[/] {forum} joined by invitation, with keys and a feed of its own").format(forum=forum))

    async def _join(self, here: str, there: str) -> None:
        federation = f"{there}.kad.internal"
        invited = ("invite", there, "--simpul-of", federation)
        self.say(f"[dim]{here}$[/] kad-simpul {' '.join(invited)}")
        code = str((await asyncio.to_thread(self.simpuls[here].run, *invited))["code"])
        self.say(f"[dim]{there}$[/] kad-simpul join {code[:24]}…")
        await asyncio.to_thread(self.simpuls[there].run, "join", code)
        for simpul in self.simpuls.values():
            await _until(lambda s=simpul: self._joined(s), _("joining"))  # type: ignore[misc]
        self.say(_("  [green]✓[/] each is an associate member of the other's federation; each keeps its own members, votes and witnesses"))

    @staticmethod
    async def _joined(simpul: _Process) -> bool:
        async with simpul.client() as kad:
            bridges = (await kad.bridges.ListBridges(bridge_pb2.ListBridgesRequest(), timeout=20)).bridges
        active = entry_pb2.MEMBERSHIP_STATE_ACTIVE
        return bool(bridges) and bridges[0].ours == bridges[0].theirs == active and bridges[0].connected

    async def _publish(self, federation: str, there: str) -> dict[str, Any]:
        author, readers = self.nodes[_AUTHOR], [self.nodes[forum] for forum in _FEDERATIONS[there][1]]
        practices = [text for text in demo_data.records(_AUTHOR, _today()) if text["kind"] == "best-practice"]
        names, problems = [], []
        for text, audience in zip(practices, (content_pb2.AUDIENCE_PUBLIC, content_pb2.AUDIENCE_FEDERATION), strict=False):
            read = document.from_document(document.load(json.dumps(text)))
            async with author.client() as kad:
                request = records_pb2.CreateRecordRequest(content=read.content, audience=audience)
                names.append((await kad.records.CreateRecord(request, timeout=20)).record.name)
            problems.append(read.content.best_practice.problem[:60])
            whom = _("for everybody") if audience == content_pb2.AUDIENCE_PUBLIC else _("for its own federation")
            self.say(
                _("{forum} publishes {whom}: {title}").format(forum=f"[bold]{_AUTHOR}[/]", whom=whom, title=escape(read.content.title))
            )
        shown, hidden = (f"{federation}/{name}" for name in names)
        seen = []
        for reader in readers:
            await _until(lambda r=reader: self._stands(r, shown, records_pb2.RECORD_STATE_PUBLISHED), shown)  # type: ignore[misc]
            await _until(lambda r=reader: self._stands(r, hidden, records_pb2.RECORD_STATE_WITHHELD), hidden)  # type: ignore[misc]
            record = await reader.record(shown)
            title = record.content.title if record is not None else ""
            verdict = {
                "forum": reader.name,
                "reads": title,
                "holds_public": reader.holds(problems[0]),
                "holds_withheld": reader.holds(problems[1]),
            }
            seen.append(verdict)
            self.say(f"[bold]{reader.name}[/] ({there})")
            self.say(_("  [green]✓[/] reads, verified against its author's signed feed: {title}").format(title=escape(title)))
            self.say("    [dim]" + shown + "[/]")
            if not verdict["holds_withheld"]:
                self.say(_("  [green]✓[/] sees that another record exists, for its own federation; its words are nowhere in this database"))
            else:
                self.say(_("  [red]✗[/] holds the words of a record that is not for it"))
            self.say("    [dim]" + hidden + "[/]")
        kept = author.holds(problems[1])
        good = kept and all(view["holds_public"] and not view["holds_withheld"] for view in seen)
        return {"public": shown, "withheld": hidden, "readers": seen, "ok": good}

    @staticmethod
    async def _stands(reader: _Process, name: str, state: int) -> bool:
        record = await reader.record(name)
        return record is not None and record.state == state


def _today() -> datetime.date:
    return datetime.datetime.now().date()  # noqa: DTZ005 - this machine's day


async def _main(story: _Story, *, once: bool, as_json: bool) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        playing, stop = asyncio.create_task(story.play()), asyncio.create_task(stopping.wait())
        await asyncio.wait({playing, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            return 130
        stop.cancel()
        result = playing.result()
        if as_json:
            print_json(result)
        if not once and result["ok"]:
            _look_around(story, result)
            await stopping.wait()
        return 0 if result["ok"] else 1
    finally:
        story.say(_("Stopping ..."))
        await story.stop()
        story.say(_("The homes are in {folder}; every command works on them.").format(folder=story.folder))


def _look_around(story: _Story, result: dict[str, Any]) -> None:
    reader, simpul = next(reversed(story.nodes.values())).home, next(iter(story.simpuls.values())).home
    look_around(
        (
            ("kad-node", reader, "list"),
            ("kad-node", reader, f"show {result['withheld']}"),
            ("kad-simpul", simpul, "status"),
            ("kad-simpul", simpul, "members"),
        ),
        quiet=story.quiet,
    )
    story.say(_("\nPress Ctrl-C to stop everything."))


def run_bridge_demo(*, once: bool, as_json: bool, folder: Path | None) -> int:
    """Play it; returns the exit status: 0 only if what is for everybody was read over there, and nothing else came."""
    folder = (folder or Path(tempfile.mkdtemp(prefix="kad-demo-"))).absolute()
    try:
        if (folder / next(iter(_FEDERATIONS)) / "kad.toml").exists():
            raise PreconditionError(Reason.HOME_ALREADY_INITIALISED, f"{folder} holds a demonstration already", home=folder)
        folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_main(_Story(folder, quiet=as_json), once=once, as_json=as_json))
    except KadError as error:
        if as_json:
            print_json({"ok": False, "error": {"reason": error.reason.value, "message": error.message}})
        err.print(f"[red]{_('Error')}:[/] {escape(explain(error))}")
        return 1
