"""``kad demo --mode subsidiarity``: how forums hand functions up to the simpul, what it does with them, and how they take them back.

The same federation of real processes as in ``kad_simpul.demo``. Each step is a command that a person would type, run as it is shown; what
came of it is then asked of the daemons themselves, so the end says whether every step had the effect that it should have.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import grpc.aio
from rich.markup import escape

from kad_node.cli.common import err, out
from kad_node.messages import _
from kad_protocol import document
from kad_protocol.errors import PreconditionError, Reason, UnavailableError
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import entry_pb2, governance_pb2, node_pb2, records_pb2
from kad_simpul import demo_data
from kad_simpul.demo import ARRIVE_SECONDS, SIMPUL, START_SECONDS, Demo, Member
from kad_simpul.demo_hints import look_around

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["AuthorityDemo"]

#: Who hands what up.
_SMALL, _CAREFUL = "kartamantul", "barlingmascakeb"
_REPRESENTED = ("kartamantul", "javapromo", "komwil6")
_PROGRAMS = {"kad": "kad_simpul.cli.kad", "kad-node": "kad_node.cli", "kad-simpul": "kad_simpul.cli"}
_Act = governance_pb2.PerformedAct


class AuthorityDemo(Demo):
    """See the module."""

    def __init__(self, folder: Path, mode: str, *, quiet: bool) -> None:
        super().__init__(folder, mode, quiet=quiet)
        #: What each step was to bring about, and whether it did.
        self.steps: dict[str, bool] = {}
        self._number = 0

    # Commands, as a person types them.

    async def type(self, program: str, member: Member | None, *arguments: str, to: str = "", fails: bool = False) -> str:
        """Run a command in the demonstration's folder and show it with what it answered.

        Args:
            program: its name.
            member: in whose home.
            arguments: the rest.
            to: a file that takes its output.
            fails: it is to be refused.

        Raises:
            PreconditionError: it did not end as it should.
        """
        home = ["--home", member.home.path.name] if member is not None else []
        shown = " ".join(shlex.quote(word) for word in (program, *home, *arguments))
        entry = f"from {_PROGRAMS[program]} import main; main()"
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", entry, *home, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment() | {"COLUMNS": str(max(60, out.width - 6)), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
            timeout=START_SECONDS,
        )
        if to:
            (self.folder / to).write_text(done.stdout)
        self._line(f"  [bold]$ {escape(shown)}{f' > {to}' if to else ''}[/]")
        for line in ("" if to else done.stdout).splitlines() + done.stderr.splitlines():
            self._line(f"    [{'red' if done.returncode else 'dim'}]{escape(line)}[/]")
        if bool(done.returncode) is not fails:
            raise PreconditionError(Reason.PEER_UNREACHABLE, f"{shown}: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout

    def _line(self, text: str) -> None:
        (err if self.quiet else out).print(text)

    def step(self, text: str) -> None:
        """A step of the story."""
        self._number += 1
        self._line(f"\n[bold cyan]{self._number}.[/] {text}")

    def done(self, key: str, text: str, *, holds: bool = True) -> None:
        """What came of it."""
        self.steps[key] = holds
        self._line(f"  [green]✓[/] {text}" if holds else f"  [red]✗ {text}[/]")

    async def until(self, what: str, condition: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - whatever it waits for
        """Wait for something, saying for what.

        Raises:
            UnavailableError: it did not come.
        """
        deadline = time.monotonic() + ARRIVE_SECONDS
        with (err if self.quiet else out).status(f"[dim]{what} ...[/]"):
            while not (found := await condition()):
                if time.monotonic() > deadline:
                    raise UnavailableError(Reason.PEER_UNREACHABLE, f"{what}: {ARRIVE_SECONDS} s")
                await asyncio.sleep(0.05)
        return found

    # What the daemons say.

    async def _everywhere(self, holds: Callable[[Member], Awaitable[bool]]) -> bool:
        return all(await asyncio.gather(*(holds(member) for member in self.members)))

    async def _mode(self, member: Member) -> int:
        async with self.client(member) as kad:
            return (await kad.membership.GetFederation(governance_pb2.GetFederationRequest(), timeout=20)).federation.mode

    async def _acts(self, member: Member) -> dict[int, governance_pb2.PerformedAct]:
        async with self.client(member) as kad:
            found = (await kad.mandates.ListActs(governance_pb2.ListActsRequest(), timeout=20)).acts
        return {act.index: act for act in found}

    async def _live(self, function: str) -> list[governance_pb2.GrantedMandate]:
        """Mandates that count at the simpul."""
        async with self.client(self.simpul) as kad:
            found = (await kad.mandates.ListMandates(governance_pb2.ListMandatesRequest(live_only=True), timeout=20)).mandates
        return [granted for granted in found if granted.mandate.function == function]

    async def _record(self, member: Member, name: str) -> records_pb2.Record:
        async with self.client(member) as kad:
            try:
                return (await kad.records.GetRecord(records_pb2.GetRecordRequest(name=name), timeout=20)).record
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return records_pb2.Record()
                raise

    async def _refusal(self, text: dict[str, Any]) -> str:
        """Why the simpul may not publish something for the small forum; empty if it may."""
        content = document.from_document(document.load(json.dumps(text))).content
        request = records_pb2.CreateRecordRequest(parent=f"forums/{_SMALL}", content=content, validate_only=True)
        async with self.client(self.simpul) as kad:
            try:
                await kad.records.CreateRecord(request, timeout=20)
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error).reason.value
        return ""

    async def _final(self, index: int, state: int = _Act.STATE_FINAL) -> None:
        """Wait until everybody has judged an act so."""

        async def so(member: Member) -> bool:
            act = (await self._acts(member)).get(index)
            return act is not None and act.state == state

        await self.until(_("waiting until everybody has judged that"), lambda: self._everywhere(so))

    async def _confirmed(self) -> tuple[int, int]:
        """By how many of how many forums the simpul is confirmed now."""
        async with self.client(self.nodes[_SMALL]) as kad:
            state = (await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)).witnessing
        return state.confirmed, state.members

    # The story.

    async def play(self, show: Callable[[], Any]) -> dict[str, Any]:
        """See ``Demo.play``."""
        del show
        await self.found()
        today = datetime.datetime.now().date()  # noqa: DTZ005 - this machine's day
        texts = {name: demo_data.records(name, today) for name in self.nodes}
        agenda, practice = texts[_SMALL].pop(), texts[_CAREFUL].pop(1)
        for name, documents in texts.items():
            await self.publish(name, documents)
        await self.arrived(SIMPUL, *self.nodes)
        self.say(
            _("{n} records of four forums are everywhere. All commands below are run in {folder}.").format(
                n=len(self.records), folder=self.folder
            )
        )
        self._write("agenda.yaml", agenda)
        self._write("praktik.yaml", practice)
        await self._networking(agenda)
        await self._decide()
        record = await self._publish_on_behalf()
        proved = await self._curate(practice)
        await self._represent()
        await self._take_back(agenda, record)
        await self._prove(proved)
        return await self._judge()

    def _write(self, name: str, data: dict[str, Any]) -> None:
        (self.folder / name).write_text(document.dump(data), encoding="utf-8")

    async def _networking(self, agenda: dict[str, Any]) -> None:
        self.step(_("The federation begins as networking: nobody acts for another. The simpul tries to, and is refused."))
        await self.type("kad-simpul", self.simpul, "publish", "agenda.yaml", "--for", _SMALL, fails=True)
        reason = await self._refusal(agenda)
        self.done(
            "refused-in-networking",
            _("Refused, as it should be: {reason}").format(reason=reason),
            holds=reason == Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE.value,
        )

    async def _decide(self) -> None:
        self.step(_("The forums decide on a charter with mode subsidiarity. The first charter needs a yes of everybody."))
        first = self.nodes[_SMALL]
        charter = document.load(await self.type("kad-node", first, "--lang", "en", "charter", to="piagam.yaml"))
        charter |= {"mode": "subsidiarity", "general_percent": "67", "charter_percent": "67"}
        charter["collective"] = [{"function": "represent", "percent": "60"}]
        self._write("piagam.yaml", charter)
        self._line("    [dim]piagam.yaml: mode: subsidiarity; charter_percent: 67; collective: [{function: represent, percent: 60}][/]")
        proposed = await self.type("kad-node", first, "propose", _("Towards subsidiarity"), "--charter", "piagam.yaml", "--deadline", "14d")
        number = proposed.split()[0]

        async def known(member: Member) -> bool:
            async with self.client(member) as kad:
                found = (await kad.decisions.ListDecisions(governance_pb2.ListDecisionsRequest(), timeout=20)).decisions
            return any(d.proposal.id == number and d.state != governance_pb2.Decision.STATE_PENDING for d in found)

        await self.until(_("waiting until everybody knows the proposal"), lambda: self._everywhere(known))
        await asyncio.gather(*(self.type("kad-node", node, "vote", number, "yes") for node in self.nodes.values()))

        async def switched(member: Member) -> bool:
            return await self._mode(member) == entry_pb2.MODE_SUBSIDIARITY

        await self.until(_("waiting until everybody has counted"), lambda: self._everywhere(switched))
        self.done("charter-decided", _("Every member has counted the same votes: accepted."))
        self.step(_("The operator follows: mode in kad.toml, and a restart. Without the members' decision the simpul would not start so."))
        await self.stop(self.simpul)
        config, home = self.simpul.home.config, self.simpul.home.path.name
        self._line(f"  [bold]$ sed -i 's/^mode = .*/mode = \"subsidiarity\"/' {home}/kad.toml; kad-simpul --home {home} run[/]")
        config.write_text(re.sub(r"(?m)^mode = .*$", 'mode = "subsidiarity"', config.read_text()))
        self.start(self.simpul)
        await self.ready(self.simpul)

        async def signs() -> bool:
            async with self.client(self.simpul) as kad:
                state = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)
            return state.mode == "subsidiarity" and state.append_state == node_pb2.APPEND_STATE_OPEN

        holds = await self.until(_("waiting until a member has told the simpul that nothing is missing"), signs)
        self.done(
            "mode-switched", _("The simpul runs in subsidiarity. It still may do nothing: no forum has handed anything up."), holds=holds
        )

    async def _publish_on_behalf(self) -> str:
        self.step(
            _("{forum}, a small secretariat, lets the simpul publish its agenda; agenda items only, for 90 days.").format(forum=_SMALL)
        )
        node = self.nodes[_SMALL]
        arguments = ("--function", "publish-on-behalf", "--kinds", "agenda-item", "--until", "90d", "--veto-days", "14")
        await self.type("kad-node", node, "mandate", "grant", *arguments)
        await self.until(_("waiting until the simpul has observed the mandate"), lambda: self._live("publish-on-behalf"))
        name = (await self.type("kad-simpul", self.simpul, "publish", "agenda.yaml", "--for", _SMALL)).strip()

        async def there(member: Member) -> bool:
            return (await self._record(member, name)).published_by.startswith(f"{SIMPUL}.")

        await self.until(_("waiting until everybody has it"), lambda: self._everywhere(there))
        await self.type("kad-node", self.nodes["komwil6"], "list", "--forum", _SMALL, "--kind", "agenda-item")
        self.done("published-on-behalf", _("Everybody has it, and sees who published it in whose name."))
        index = max(await self._acts(self.simpul))
        await self._final(index)
        confirmed, members = await self._confirmed()
        self.done("act-final", _("acts/{index} is final: confirmed by {n} of {m} forums.").format(index=index, n=confirmed, m=members))
        return name

    async def _curate(self, practice: dict[str, Any]) -> str:
        self.step(_("{forum} wants its best practices to be reviewed before others read them.").format(forum=_CAREFUL))
        node = self.nodes[_CAREFUL]
        await self.type("kad-node", node, "mandate", "grant", "--function", "curate", "--kinds", "best-practice", "--until", "90d")
        await self.until(_("waiting until the simpul has observed the mandate"), lambda: self._live("curate"))
        name = (await self.type("kad-node", node, "publish", "praktik.yaml")).split()[0]

        async def waits(member: Member) -> bool:
            return (await self._record(member, name)).state == records_pb2.RECORD_STATE_SUBMITTED

        await self.until(_("waiting until it has arrived"), lambda: self._everywhere(waits))
        hidden = not (await self._record(self.nodes["javapromo"], name)).HasField("content")
        await self.type("kad-simpul", self.simpul, "review")
        await self.type("kad-simpul", self.simpul, "review", name, "--approve")

        async def through(member: Member) -> bool:
            record = await self._record(member, name)
            return record.state == records_pb2.RECORD_STATE_PUBLISHED and record.content.title == practice.get("title")

        await self.until(_("waiting until everybody may read it"), lambda: self._everywhere(through))
        self.done("reviewed", _("Nobody else could read it before; now everybody does."), holds=hidden)
        return name

    async def _represent(self) -> None:
        self.step(_("Three forums let the simpul speak for them; the charter asks for 60 percent of the members, so two would not do."))
        for forum in _REPRESENTED:
            await self.type(
                "kad-node", self.nodes[forum], "mandate", "grant", "--function", "represent", "--until", "90d", "--veto-days", "7"
            )

        async def enough() -> bool:
            return len(await self._live("represent")) == len(_REPRESENTED)

        await self.until(_("waiting until the simpul has observed the mandates"), enough)
        letter = {"title": "Permohonan dukungan jaringan antardaerah", "addressee": "Menteri Dalam Negeri", "text": "Dengan hormat, ..."}
        self._write("surat.yaml", letter)
        await self.type("kad-simpul", self.simpul, "issue", "represent", "surat.yaml")
        index = max(await self._acts(self.simpul))
        await self._final(index)
        act = (await self._acts(self.nodes[_CAREFUL]))[index]
        named = {origin.split("/")[-2] for origin in act.act.statement.members}
        holds = named == set(_REPRESENTED) and act.statement.addressee == letter["addressee"]
        text = _("The letter to {addressee} is final, in the names of {names}; {other} is not named.")
        self.done(
            "represented", text.format(addressee=act.statement.addressee, names=", ".join(sorted(named)), other=_CAREFUL), holds=holds
        )

    async def _take_back(self, agenda: dict[str, Any], record: str) -> None:
        self.step(_("{forum} takes its mandate back. Nobody has to agree.").format(forum=_SMALL))
        node = self.nodes[_SMALL]
        (granted,) = await self._live("publish-on-behalf")
        await self.type("kad-node", node, "mandate", "revoke", granted.mandate.id)

        async def ended() -> bool:
            return not await self._live("publish-on-behalf")

        await self.until(_("waiting until the simpul has observed that"), ended)
        await self.type("kad-simpul", self.simpul, "publish", "agenda.yaml", "--for", _SMALL, fails=True)
        reason = await self._refusal(agenda)
        self.done(
            "refused-after-revocation",
            _("Refused, as it should be: {reason}").format(reason=reason),
            holds=reason == Reason.MANDATE_REVOKED.value,
        )
        self.step(_("What was published stays lawful, since it was when it was done. But the forum does not want it any more: a veto."))
        index = (await self._record(node, record)).index
        await self.type("kad-node", node, "veto", f"acts/{index}")
        await self._final(index, _Act.STATE_VETOED)

        async def gone(member: Member) -> bool:
            return (await self._record(member, record)).state == records_pb2.RECORD_STATE_RETRACTED

        await self.until(_("waiting until it is withdrawn everywhere"), lambda: self._everywhere(gone))
        self.done("vetoed", _("It is withdrawn everywhere; that it was published, and vetoed, stays to be seen (kad-node acts)."))

    async def _prove(self, record: str) -> None:
        self.step(_("Somebody outside, without any of this: a proof of a record, checked with the keys of the federation, offline."))
        node = self.nodes["javapromo"]

        async def provable() -> bool:
            async with self.client(node) as kad:
                state = (await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)).witnessing
            return state.size == state.signed_size

        await self.until(_("waiting until the newest entries are confirmed"), provable)
        await self.type("kad-node", node, "proof", record, to="praktik.tlog-proof")
        await self.type("kad-node", node, "policy", to="jejaring.policy")
        checked = await self.type("kad", None, "verify", "praktik.tlog-proof", "--policy", "jejaring.policy")
        self.done("proved", _("The proof holds."), holds=record in checked)

    async def _judge(self) -> dict[str, Any]:
        """Everybody has judged every act alike: that is the point."""
        views = {member.name: await self._acts(member) for member in self.members}
        states = {name: {index: act.state for index, act in acts.items()} for name, acts in views.items()}
        alike = all(view == states[SIMPUL] for view in states.values())
        self._line("")
        self.done(
            "judged-alike",
            _("All {n} acts of the simpul are judged alike by the simpul and by every forum.").format(n=len(states[SIMPUL])),
            holds=alike,
        )
        acts = [
            {"name": act.name, "function": act.act.function, "deed": act.act.WhichOneof("deed"), "state": _Act.State.Name(act.state)}
            for _index, act in sorted(views[SIMPUL].items())
        ]
        return {"mode": self.mode, "steps": self.steps, "acts": acts, "ok": all(self.steps.values())}

    def conclude(self, result: dict[str, Any], *, once: bool) -> None:
        """See ``Demo.conclude``."""
        if once:
            return
        home = self.nodes["javapromo"].home
        look_around(
            (
                ("kad-node", home, "acts"),
                ("kad-node", home, "mandate list"),
                ("kad-node", home, "federation"),
                ("kad-node", home, "decisions"),
                ("kad-simpul", self.simpul.home, "status"),
            ),
            quiet=self.quiet,
        )
        self._line(_("\nPress Ctrl-C to stop everything."))
        del result
