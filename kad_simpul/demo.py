"""``kad demo``: a federation on this machine, alive. Real processes, real channels, real records; nothing is staged.

What is shown is what the daemons say: the demonstration follows the arrivals at each of them (``WatchRecords``), like any program could.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import HEAVY_HEAD
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from kad_node import config as configuration
from kad_node.cli.common import err, explain, out, print_json
from kad_node.cli.setup import free_port
from kad_node.home import Home
from kad_node.messages import _, language
from kad_protocol import connect, document
from kad_protocol.errors import KadError, PreconditionError, Reason, UnavailableError
from kad_protocol.v1 import directory_pb2, node_pb2, records_pb2
from kad_simpul import demo_data
from kad_simpul.config import SimpulConfig
from kad_simpul.demo_hints import look_around

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kad_protocol.client import Client

__all__ = ["SIMPUL", "Demo", "Member", "run_demo"]

SIMPUL = "simpul-kabkota"
#: Goes offline and comes back.
_TRAVELLER = "komwil6"
#: From here on whole names fit.
_WIDE_COLUMNS = 120
START_SECONDS, ARRIVE_SECONDS, _STOP_SECONDS = 60, 60, 15


@dataclass(slots=True)
class _Published:
    """One record on its way: when it was published, and when each member had it (seconds since 1970)."""

    forum: str
    title: str
    at: float
    arrivals: dict[str, float] = field(default_factory=dict)
    #: Published while somebody was away, so its arrival there says nothing about speed.
    away: str = ""


@dataclass(slots=True)
class Member:
    """One process of the federation."""

    name: str
    home: Home
    process: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> str:
        """The module that runs it."""
        return "kad_simpul" if self.name == SIMPUL else "kad_node"


class Demo:
    """The federation and what is known of it."""

    def __init__(self, folder: Path, mode: str, *, quiet: bool) -> None:
        self.folder = folder
        self.mode = mode
        self.quiet = quiet
        self.simpul = Member(SIMPUL, Home(folder / "simpul", "simpul"))
        self.nodes = {name: Member(name, Home(folder / name, "node")) for name in demo_data.FORUMS}
        self.records: dict[str, _Published] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        #: Arrivals of records whose publisher has not answered yet.
        self._early: dict[str, dict[str, float]] = {}
        self._news = asyncio.Event()

    @property
    def members(self) -> list[Member]:
        """The simpul and the forums."""
        return [self.simpul, *self.nodes.values()]

    # Processes.

    def environment(self) -> dict[str, str]:
        """What processes are started with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KAD_")}
        return kept | {"KAD_LANG": language(), "KAD_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}

    def _run(self, program: str, *arguments: str, home: Path) -> dict[str, Any]:
        """Run one command to its end; its JSON."""
        command = [sys.executable, "-m", program, "--home", str(home), *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), check=False, timeout=START_SECONDS)  # noqa: S603 - our own program
        if done.returncode:
            message = done.stderr.strip().splitlines()
            raise PreconditionError(Reason.PEER_UNREACHABLE, f"{' '.join(arguments[:2])}: {message[-1] if message else 'failed'}")
        result = json.loads(done.stdout)
        return dict(result)

    def start(self, member: Member) -> None:
        """Start a daemon; ``ready`` waits for it."""
        environment = self.environment()
        if member is self.simpul:
            # On this machine only, whatever the configuration says for a real one.
            config = configuration.load(SimpulConfig, member.home.config, {})
            for key in ("listen", "enrolment_listen"):
                environment[f"KAD_{key.upper()}"] = f"127.0.0.1:{getattr(config, key).rpartition(':')[2]}"
        log = (member.home.path / "log.jsonl").open("ab")
        with log:
            member.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", member.program, "--home", str(member.home.path), "run"],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    async def ready(self, member: Member) -> None:
        """Wait until a daemon answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if member.process is None or member.process.poll() is not None:
                break
            if member.home.running().get("pid") == member.process.pid:
                with contextlib.suppress(Exception):
                    async with self.client(member) as kad:
                        await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=5)
                        return
            await asyncio.sleep(0.05)
        tail = (member.home.path / "log.jsonl").read_text(errors="replace").splitlines()[-3:]
        raise UnavailableError(Reason.DAEMON_NOT_RUNNING, f"{member.name} did not start: {' '.join(tail)[:500]}")

    @contextlib.asynccontextmanager
    async def client(self, member: Member) -> AsyncIterator[Client]:
        """A client of a daemon."""
        async with connect(str(member.home.running()["api"]), token=member.home.tokens.local(), language=language()) as kad:
            yield kad

    async def stop(self, member: Member) -> None:
        """Ask a daemon to stop, and wait for it."""
        process = member.process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        member.process = None

    async def stop_all(self) -> None:
        """Stop everything that was started."""
        for task in self._followers.values():
            task.cancel()
        await asyncio.gather(*self._followers.values(), return_exceptions=True)
        await asyncio.gather(*(self.stop(member) for member in reversed(self.members)))

    # Telling.

    async def play(self, show: Callable[[], Any]) -> dict[str, Any]:
        """The whole story; returns the result, which says with ``ok`` whether it went as it should."""
        return await _exchange(self, show)

    def conclude(self, result: dict[str, Any], *, once: bool) -> None:
        """What came of it, and how to look around."""
        _conclude(self, result, once=once)

    def say(self, text: str) -> None:
        """One step of the story."""
        if self.quiet:
            err.print(f"[dim]{text}[/]")
        else:
            out.print(text)

    # The story.

    async def found(self) -> None:
        """A simpul and its forums, enrolled by invitation."""
        self.say(_("Founding the federation: a simpul, with its keys and its own signed feed ..."))
        await asyncio.to_thread(
            self._run,
            "kad_simpul",
            "init",
            "--id",
            SIMPUL,
            "--name",
            "Simpul Kerjasama Antar Kabupaten/Kota",
            "--address",
            # Its own corner of the ports, so that several demonstrations on one machine do not meet.
            f"localhost:{free_port(random.SystemRandom().randrange(20_000, 30_000))}",
            home=self.simpul.home.path,
        )
        self.start(self.simpul)
        await self.ready(self.simpul)
        for member in self.nodes.values():
            invitation = await asyncio.to_thread(self._run, "kad_simpul", "invite", member.name, home=self.simpul.home.path)
            profile = demo_data.forum(member.name)
            await asyncio.to_thread(
                self._run,
                "kad_node",
                "join",
                str(invitation["code"]),
                "--forum",
                member.name,
                "--name",
                str(profile["name"]),
                home=member.home.path,
            )
            self.start(member)
            await self.ready(member)
            self.say(_("  [green]✓[/] {forum} joined by invitation, with keys and a feed of its own").format(forum=member.name))
        for member in self.nodes.values():
            async with self.client(member) as kad:
                described = document.profile_from_document(demo_data.forum(member.name))
                await kad.directory.PublishProfile(directory_pb2.PublishProfileRequest(profile=described), timeout=20)
        for member in self.members:
            self.follow(member)

    def follow(self, member: Member) -> None:
        """Note what arrives at a member from now on."""

        async def follow() -> None:
            token = ""
            while True:
                with contextlib.suppress(KadError, OSError, KeyError):
                    async with self.client(member) as kad:
                        async for response in kad.follow(resume_token=token, from_start=not token):
                            token = response.resume_token
                            for event in response.events:
                                self._arrived(member.name, event)
                await asyncio.sleep(0.1)

        previous = self._followers.pop(member.name, None)
        if previous is not None:
            previous.cancel()
        self._followers[member.name] = asyncio.create_task(follow(), name=f"follow-{member.name}")

    def _arrived(self, where: str, event: records_pb2.RecordEvent) -> None:
        known = self.records.get(event.record.name)
        if known is not None and where not in known.arrivals:
            known.arrivals[where] = event.arrive_time.ToMicroseconds() / 1e6
        elif known is None:
            # It was faster here than its publisher's own answer; kept until that comes.
            self._early.setdefault(event.record.name, {})[where] = event.arrive_time.ToMicroseconds() / 1e6
        self._news.set()

    async def publish(self, name: str, texts: list[dict[str, Any]], away: str = "") -> None:
        """Publish records at one forum, one after the other."""
        async with self.client(self.nodes[name]) as kad:
            for text in texts:
                read = document.from_document(document.load(json.dumps(text)))
                at = time.time()
                response = await kad.records.CreateRecord(
                    records_pb2.CreateRecordRequest(content=read.content, audience=read.audience),  # type: ignore[arg-type]
                    timeout=20,
                )
                record = response.record
                self.records[record.name] = _Published(name, read.content.title, at, self._early.pop(record.name, {}), away)
                self._news.set()

    async def arrived(self, *names: str) -> None:
        """Wait until everything published so far is at these members.

        Raises:
            UnavailableError: it did not arrive in time.
        """
        deadline = time.monotonic() + ARRIVE_SECONDS
        while not all(name in record.arrivals for record in self.records.values() for name in names):
            self._news.clear()
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(Reason.PEER_UNREACHABLE, _("not everything arrived within {n} s").format(n=ARRIVE_SECONDS))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    async def result(self) -> dict[str, Any]:
        """What every member holds, asked of themselves."""
        feeds: dict[str, directory_pb2.Forum] = {}
        views: dict[str, node_pb2.GetStatusResponse] = {}
        held: dict[str, set[str]] = {}
        for member in self.members:
            async with self.client(member) as kad:
                views[member.name] = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)
                held[member.name] = {
                    record.name
                    async for record in kad.all_records()
                    if record.state == records_pb2.RECORD_STATE_PUBLISHED and record.HasField("content")
                }
            own = getattr(views[member.name], "self")  # noqa: B009 - a word of Python's
            feeds[own.feed] = own
        expected = set(self.records)
        nodes = []
        for name in self.nodes:
            view = views[name]
            # Verified: here, and under the root that its author itself has; the node checked signatures and tree before it stored.
            sound = {
                forum.feed
                for forum in view.forums
                if forum.feed in feeds and (forum.size, forum.root) == (feeds[forum.feed].size, feeds[forum.feed].root)
            }
            authors = {forum.name.removeprefix("forums/"): forum.feed for forum in view.forums}
            verified = {record for record in held[name] & expected if authors.get(record.split("/")[1]) in sound}
            nodes.append({"forum": name, "records": len(held[name]), "verified": len(verified), "caught_up": len(sound) == len(feeds)})
        simpul = getattr(views[SIMPUL], "self")  # noqa: B009
        times = sorted(
            (moment - record.at) * 1000
            for record in self.records.values()
            for where, moment in record.arrivals.items()
            if where in self.nodes and where not in (record.forum, record.away)
        )
        good = all(node["records"] == node["verified"] == len(expected) and node["caught_up"] for node in nodes)
        return {
            "mode": self.mode,
            "simpul": {"origin": simpul.feed, "size": simpul.size, "root": simpul.root.hex()},
            "nodes": nodes,
            "propagation_ms": {"p50": _percentile(times, 0.5), "p99": _percentile(times, 0.99)},
            "ok": good and bool(expected),
        }

    async def settled(self) -> dict[str, Any]:
        """The result, once the last observations have reached everybody too."""
        deadline = time.monotonic() + ARRIVE_SECONDS
        while True:
            result = await self.result()
            if result["ok"] or time.monotonic() > deadline:
                return result
            await asyncio.sleep(0.2)

    def table(self) -> Table:
        """Who has what, and after how many milliseconds. Fits 80 columns; wider terminals get whole names."""
        wide = out.width >= _WIDE_COLUMNS
        table = Table(
            title=_("Records and their way"), title_justify="left", expand=False, pad_edge=False, box=HEAVY_HEAD if wide else None
        )
        narrow = 8
        title = max(narrow, out.width - (narrow + 1) * (len(self.members) + 1) - 1)
        table.add_column(_("Published by"), no_wrap=True, overflow="ellipsis", width=None if wide else narrow)
        table.add_column(_("Record"), max_width=44, no_wrap=True, overflow="ellipsis", width=None if wide else title)
        for member in self.members:
            name = "simpul" if member is self.simpul else member.name
            table.add_column(name, justify="right", no_wrap=True, overflow="ellipsis", width=None if wide else narrow)
        for record in self.records.values():
            table.add_row(record.forum, escape(record.title), *(self._cell(record, member) for member in self.members))
        return table

    def _cell(self, record: _Published, member: Member) -> str:
        moment = record.arrivals.get(member.name)
        if member.name == record.forum:
            return "[dim]·[/]"
        if moment is None:
            return f"[yellow]{_('offline')}[/]" if record.away == member.name else "[yellow]…[/]"
        if record.away == member.name:
            return f"[cyan]{_('later')}[/]"
        return f"[green]{max(0, (moment - record.at) * 1000):.0f} ms[/]"


def _percentile(values: list[float], part: float) -> float:
    return round(values[min(len(values) - 1, int(len(values) * part))], 1) if values else 0.0


async def _exchange(demo: Demo, show: Callable[[], Any]) -> dict[str, Any]:
    await demo.found()
    texts = {name: demo_data.records(name, datetime.datetime.now().date()) for name in demo.nodes}  # noqa: DTZ005 - this machine's day
    with show():
        for name, documents in texts.items():
            await demo.publish(name, documents[:-1] if name != _TRAVELLER else documents)
            await demo.arrived(SIMPUL, *demo.nodes)
        traveller = demo.nodes[_TRAVELLER]
        demo.say(_("{forum} goes offline; the others go on publishing.").format(forum=_TRAVELLER))
        await demo.stop(traveller)
        for name, documents in texts.items():
            if name != _TRAVELLER:
                await demo.publish(name, documents[-1:], away=_TRAVELLER)
        await demo.arrived(SIMPUL, *(name for name in demo.nodes if name != _TRAVELLER))
        demo.say(_("{forum} comes back and catches up.").format(forum=_TRAVELLER))
        demo.start(traveller)
        await demo.ready(traveller)
        demo.follow(traveller)
        await demo.arrived(SIMPUL, *demo.nodes)
        return await demo.settled()


async def _main(demo: Demo, *, once: bool, as_json: bool) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)

    @contextlib.contextmanager
    def show() -> Any:  # noqa: ANN401 - a context
        if demo.quiet or not out.is_terminal:
            yield
            if not demo.quiet:
                out.print(demo.table())
            return
        with Live(get_renderable=demo.table, console=out, refresh_per_second=8):
            yield

    try:
        story = asyncio.create_task(demo.play(show))
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({story, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not story.done():
            story.cancel()
            await asyncio.gather(story, return_exceptions=True)
            return 130
        stop.cancel()
        result = story.result()
        if as_json:
            print_json(result)
        else:
            demo.conclude(result, once=once)
        if not once and result["ok"]:
            await stopping.wait()
        return 0 if result["ok"] else 1
    finally:
        if not demo.quiet:
            out.print(_("Stopping ..."))
        await demo.stop_all()
        if not demo.quiet:
            out.print(_("The homes are in {folder}; every command works on them.").format(folder=demo.folder))


def _conclude(demo: Demo, result: dict[str, Any], *, once: bool) -> None:
    """What came of it, and how to look around."""
    for node in result["nodes"]:
        mark = "[green]✓[/]" if node["caught_up"] and node["records"] == node["verified"] else "[red]✗[/]"
        out.print(_("{mark} {forum}: {records} records, {verified} verified against their authors' signed feeds").format(mark=mark, **node))
    out.print(_("From publishing to being verified and on disk elsewhere: p50 {p50} ms, p99 {p99} ms").format(**result["propagation_ms"]))
    simpul = result["simpul"]
    out.print(_("The simpul's own feed: {size} entries, root {root}").format(size=simpul["size"], root=simpul["root"][:16] + "…"))
    if once:
        return
    node = demo.nodes["javapromo"].home
    look_around(
        (
            ("kad-node", node, "list"),
            ("kad-node", node, "search kelola sampah"),
            ("kad-node", node, "agenda"),
            ("kad-node", node, "status"),
            ("kad-node", demo.nodes["kartamantul"].home, "template best-practice > praktik.yaml"),
            ("kad-simpul", demo.simpul.home, "members"),
        ),
        quiet=demo.quiet,
    )
    out.print(f"\n[bold]{_('Local APIs (gRPC):')}[/]")
    for member in demo.members:
        out.print(f"  {member.name:<18} {member.home.running().get('api', '')}")
    out.print(_("\nPress Ctrl-C to stop everything."))


def run_demo(*, once: bool, as_json: bool, mode: str, folder: Path | None) -> int:
    """Play the demonstration; returns the exit status: 0 only if it went as it should.

    In networking mode: every node holds and has verified every record. In subsidiarity mode: each step had its effect, and everybody judged
    the simpul's acts alike.
    """
    folder = (folder or Path(tempfile.mkdtemp(prefix="kad-demo-"))).absolute()
    try:
        if (folder / "simpul" / "kad.toml").exists():
            raise PreconditionError(Reason.HOME_ALREADY_INITIALISED, f"{folder} holds a demonstration already", home=folder)
        folder.mkdir(parents=True, exist_ok=True)
        if mode == "subsidiarity":
            from kad_simpul.demo_authority import AuthorityDemo  # noqa: PLC0415 - it builds on this module

            demo: Demo = AuthorityDemo(folder, mode, quiet=as_json)
        else:
            demo = Demo(folder, mode, quiet=as_json)
        return asyncio.run(_main(demo, once=once, as_json=as_json))
    except KadError as error:
        if as_json:
            print_json({"mode": mode, "ok": False, "error": {"reason": error.reason.value, "message": error.message}})
        err.print(f"[red]{_('Error')}:[/] {escape(explain(error))}")
        return 1
