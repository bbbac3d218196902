"""The commands of ``kad-simpul`` about other federations: join one, leave it, and how it is going."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from kad_node.cli.common import Context, as_json, command_of, json_option, out, print_json, run
from kad_node.cli.doctor import Finding
from kad_node.messages import _, language
from kad_protocol import vocabulary
from kad_protocol.errors import KadError
from kad_protocol.v1 import bridge_pb2, entry_pb2

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["add_commands", "bridge_line", "examine"]

_TIMEOUT = 90


def _invitation(text: str) -> str:
    """The text itself, or that of a file."""
    from pathlib import Path  # noqa: PLC0415

    path: Path = Path(text)
    if text.startswith("kad1-") or not path.is_file():
        return text
    return path.read_text(encoding="utf-8", errors="replace")[:4000]


def _standing(state: int) -> str:
    return vocabulary.label("MembershipState", state, language()).lower() if state else "–"


def bridge_line(bridge: bridge_pb2.Bridge) -> str:
    """One federation, in two lines."""
    mark = "[green]●[/]" if bridge.connected else "[yellow]●[/]"
    name = f"[bold]{bridge.federation}[/]" + (f" ({escape(bridge.federation_name)})" if bridge.federation_name else "")
    lines = [
        f"{mark} "
        + _(
            "joined with {name}: here {theirs}, there {ours}; {records} records of it to read, {withheld} that exist for its own members"
        ).format(
            name=name,
            theirs=_standing(bridge.theirs),
            ours=_standing(bridge.ours),
            records=bridge.records,
            withheld=bridge.withheld,
        )
    ]
    if bridge.leaving:
        lines.append("  " + _("being left; the other side does not have it yet"))
    if bridge.last_error:
        lines.append(f"  [yellow]{escape(bridge.last_error[:160])}[/]")
    if bridge.waiting_reason:
        lines.append(
            f"  [yellow]{bridge.waiting_reason}[/]: " + _("{n} of at most {m} feeds are here").format(n=bridge.feeds, m=bridge.feeds_limit)
        )
    return "\n".join(lines)


async def examine(context: Context) -> list[Finding]:
    """What `doctor` says of bridges."""
    try:
        async with context.client() as kad:
            bridges = (await kad.bridges.ListBridges(bridge_pb2.ListBridgesRequest(), timeout=_TIMEOUT)).bridges
    except KadError:
        # That the home cannot be asked is said already.
        return []
    return [_finding(bridge, running=context.home.locked()) for bridge in bridges]


def _finding(bridge: bridge_pb2.Bridge, *, running: bool) -> Finding:
    name, active = bridge.federation, entry_pb2.MEMBERSHIP_STATE_ACTIVE
    if bridge.HasField("certificate_expire_time"):
        end = bridge.certificate_expire_time.ToDatetime(datetime.UTC)
        if end < datetime.datetime.now(datetime.UTC):
            return Finding(
                name,
                "warn",
                _("the certificate of that federation ended {when}").format(when=end),
                _("run the daemon while the other simpul can be reached; it renews by itself"),
            )
    if bridge.waiting_reason:
        return Finding(
            name,
            "warn",
            f"{bridge.waiting_reason}: {bridge.feeds}/{bridge.feeds_limit}",
            _("its log is not followed at present; FOREIGN_FEEDS_LIMIT: set limits.foreign_feeds, the others mend themselves"),
        )
    if bridge.theirs == entry_pb2.MEMBERSHIP_STATE_APPLIED:
        return Finding(
            name,
            "warn",
            _("its simpul has applied here, and enough members must endorse it"),
            f"kad-node endorse {bridge.simpul.rpartition('/')[0]}",
        )
    if bridge.theirs == active and running and not bridge.connected:
        return Finding(name, "warn", bridge.last_error or _("not connected"), _("can the two simpuls reach each other?"))
    return Finding(name, "ok", f"{_standing(bridge.theirs)}, {_standing(bridge.ours)}")


def add_commands(app: click.Group) -> None:
    """``join`` and ``leave``."""
    command = command_of(app)

    @command(
        "join",
        _(
            "Join another simpul, with its invitation (the text, or a file with it). Each side then reads what the other publishes for everybody."
        ),
        "kad-simpul join kad1-...",
    )
    @click.argument("invitation")
    @json_option
    @run
    async def join(context: Context, invitation: str, as_json: bool) -> None:
        request = bridge_pb2.JoinFederationRequest(invitation=_invitation(invitation))
        async with context.client() as kad:
            bridge = (await kad.bridges.JoinFederation(request, timeout=_TIMEOUT)).bridge
        if _say(bridge, as_json):
            return
        name = bridge.federation_name or bridge.federation
        out.print(
            _("[green]Joined with {federation}.[/] What is published for everybody crosses, both ways.").format(federation=escape(name))
        )
        if bridge.theirs == entry_pb2.MEMBERSHIP_STATE_APPLIED:
            out.print(
                _(
                    "Here members decide who is admitted: until enough of them endorse it (`kad-node endorse {name}`), nothing of it comes here."
                ).format(name=bridge.simpul.rpartition("/")[0])
            )

    @command(
        "leave",
        _("End it with another federation, on both sides. What has crossed stays where it is."),
        "kad-simpul leave simpul-provinsi.kad.internal",
    )
    @click.argument("federation")
    @click.option("--yes", is_flag=True, help=_("Do not ask."))
    @json_option
    @run
    async def leave(context: Context, federation: str, yes: bool, as_json: bool) -> None:
        if not yes and not as_json:
            click.confirm(_("Leave {federation}? Coming back needs a new invitation.").format(federation=federation), abort=True)
        async with context.client() as kad:
            request = bridge_pb2.LeaveBridgeRequest(federation=federation)
            bridge = (await kad.bridges.LeaveBridge(request, timeout=_TIMEOUT)).bridge
        if _say(bridge, as_json):
            return
        if bridge.leaving:
            out.print(_("Left. The other side has it as soon as it can be reached; keep the simpul running until then."))
        else:
            out.print(_("Left, on both sides."))


def _say(message: bridge_pb2.Bridge, as_json_: bool) -> bool:
    if as_json_:
        print_json(as_json(message))
    return as_json_
