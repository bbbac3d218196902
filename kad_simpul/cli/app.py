"""The commands of ``kad-simpul``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import click

from kad_node import config as configuration
from kad_node import logs
from kad_node.cli import affairs, keys, setup, show
from kad_node.cli import doctor as examination
from kad_node.cli.app import app as node_app
from kad_node.cli.app import show_status
from kad_node.cli.common import Context, Group, borrow, command_of, common, completion, err, in_words_of, json_option, out, print_json, run
from kad_node.cli.common import as_json as as_json_message
from kad_node.home import Home
from kad_node.messages import _
from kad_node.node import found_feed
from kad_node.store.transaction import micros_now
from kad_protocol import document
from kad_protocol.authority import FUNCTIONS, mode_of
from kad_protocol.entry import new_entry
from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.names import FeedId, check_federation, check_forum
from kad_protocol.v1 import content_pb2, enrolment_pb2, entry_pb2, governance_pb2, node_pb2, records_pb2
from kad_simpul.acts import Acts
from kad_simpul.config import SimpulConfig
from kad_simpul.daemon import SimpulDaemon, enrolment_of, invitation_services

if TYPE_CHECKING:
    import grpc.aio

    from kad_node.config import CommonConfig
    from kad_node.node import Node

__all__ = ["app"]

_TIMEOUT = 30
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_STATEMENTS = [name for name, function in FUNCTIONS.items() if not function.asks_kinds and name != "admit-members"]


def _services(server: grpc.aio.Server, node: Node, config: CommonConfig) -> list[str]:
    assert isinstance(config, SimpulConfig)  # noqa: S101 - the model of this program's homes
    node.acting = Acts(node, config.mode)
    return invitation_services(server, node, enrolment_of(node.home, config))


@click.group(
    cls=Group,
    help=_(
        'The simpul of a federation: carries what forums publish, observes and remembers it.\n\n\b\nBegin:\n  kad-simpul init --id simpul-kabkota --name "Simpul Kabupaten/Kota"\n  kad-simpul run\n  kad-simpul invite kartamantul'
    ),
)
@common
@click.version_option(package_name="kad", prog_name="kad-simpul")
@click.pass_context
def app(ctx: click.Context, home: str | None) -> None:
    """Set up what all commands need."""
    ctx.obj = Context(Home.find(home, os.environ, "simpul"), as_json=False, model=SimpulConfig, services=_services)


_command = command_of(app, "kad-simpul")


@_command(
    "init",
    _("Found a federation: keys, feed, authority and configuration of its simpul."),
    'kad-simpul init --id simpul-kabkota --name "Simpul Kabupaten/Kota" --address simpul.example.go.id:7443',
)
@click.option("--id", "forum", required=True, help=_("Id of the simpul, e.g. simpul-kabkota."))
@click.option("--name", required=True, help=_("Display name of the federation."))
@click.option("--federation", default="", help=_("Name of the federation, like a domain; cannot be changed. Default: ID.kad.internal."))
@click.option("--address", default="", metavar="HOST:PORT", help=_("How members reach it. Default: localhost, for trying out."))
@click.option(
    "--mode",
    type=click.Choice(["networking", "subsidiarity"]),
    default="networking",
    show_default=True,
    help=_("networking: the simpul mediates; subsidiarity: it also does what forums mandate it to do."),
)
@json_option
@run
async def init(context: Context, forum: str, name: str, federation: str, address: str, mode: str, as_json: bool) -> None:
    """``kad-simpul init``."""
    home = context.home
    feed = FeedId(check_federation(federation or f"{check_forum(forum)}.kad.internal"), check_forum(forum))
    if address and not re.fullmatch(r"[^:\s]+:\d{1,5}", address):
        raise InvalidInputError(Reason.INVALID_CONFIGURATION, "--address is host:port")
    home.prepare()
    with home.lock():
        founding = new_entry(micros_now())
        founding.founding.mode = mode_of(mode)
        await found_feed(home, feed, entry_pb2.MEMBER_ROLE_SIMPUL, micros_now(), setup.show_recovery, [founding])
        setup.make_authority(home, feed)
        home.tokens.create_local()
        port = int(address.rpartition(":")[2]) if address else setup.free_port(7443)
        enrolment = setup.free_port(port + 1)
        host = address.rpartition(":")[0] or "localhost"
        values: dict[str, Any] = {
            "forum": feed.forum,
            "federation": feed.federation,
            "federation_name": name,
            "mode": mode,
            "api_listen": f"127.0.0.1:{setup.free_port(7440)}",
            "listen": f"0.0.0.0:{port}",
            "advertise": f"{host}:{port}",
            "enrolment_listen": f"0.0.0.0:{enrolment}",
            "enrolment_advertise": f"{host}:{enrolment}",
        }
        await setup.publish_first_profile(home, SimpulConfig.model_validate(values), content_pb2.ForumProfile(name=name), None)
        header = _(
            "# Configuration of this KAD simpul. Every key can also be given as a variable KAD_<KEY>. Changes need a restart, except log_level and [limits] (SIGHUP).\n"
        )
        configuration.write_initial(SimpulConfig, home.config, values, header)
    if as_json:
        print_json({"forum": feed.forum, "feed": feed.origin, "home": str(home.path), "mode": mode, "address": values["advertise"]})
        return
    out.print(
        _("[green]The federation {name} is founded.[/] Members reach it at {address}.").format(
            name=feed.federation, address=values["advertise"]
        )
    )
    out.print(f"{_('Home')}: {home.path}")
    out.print(_("Now: `kad-simpul run`, and in another window `kad-simpul invite FORUM`."))


@_command("run", _("Run the simpul until it is stopped (Ctrl-C or SIGTERM)."), "kad-simpul run")
@run
async def run_daemon(context: Context) -> None:
    """``kad-simpul run``."""
    config = context.config()
    logs.configure(config.log_level, config.log_format)
    await SimpulDaemon(context.home, config).run()  # type: ignore[arg-type]


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if found is None:
        raise InvalidInputError(Reason.INVALID_FIELD, "--expires is a number with m, h or d, such as 7d", field="expires")
    return int(found.group(1)) * _UNITS[found.group(2)]


@_command(
    "invite", _("Invite a forum: prints a text that it gives to `kad-node join`. Good once."), "kad-simpul invite kartamantul --expires 7d"
)
@click.argument("forum")
@click.option("--expires", default="7d", show_default=True, help=_("How long it is valid: minutes, hours or days, e.g. 30m, 12h, 7d."))
@click.option("--associate", is_flag=True, help=_("As an associate member (university, company, donor): without a vote."))
@json_option
@run
async def invite(context: Context, forum: str, expires: str, associate: bool, as_json: bool) -> None:
    """``kad-simpul invite``."""
    request = enrolment_pb2.CreateInvitationRequest(
        forum=check_forum(forum), category=entry_pb2.MEMBER_CATEGORY_ASSOCIATE if associate else entry_pb2.MEMBER_CATEGORY_FULL
    )
    request.time_to_live.FromSeconds(_seconds(expires))
    async with context.client() as kad:
        response = await kad.invitations.CreateInvitation(request, timeout=_TIMEOUT)
    if as_json:
        _print(response)
        return
    print(response.code)
    err.print(
        _("Give this to {forum}, over a way that you trust. It is good once, until {when}.").format(
            forum=forum, when=show.moment(response.invitation.expire_time)
        )
    )


def _print(message: Any) -> None:  # noqa: ANN401 - any message
    print_json(as_json_message(message))


@_command("invitations", _("List invitations, or withdraw one."), "kad-simpul invitations", "kad-simpul invitations --revoke 3f2a...")
@click.option("--revoke", "revoked", metavar="ID", default="", help=_("Make this unused invitation worthless."))
@json_option
@run
async def invitations(context: Context, revoked: str, as_json: bool) -> None:
    """``kad-simpul invitations``."""
    async with context.client() as kad:
        if revoked:
            await kad.invitations.RevokeInvitation(enrolment_pb2.RevokeInvitationRequest(id=revoked), timeout=_TIMEOUT)
        found = (await kad.invitations.ListInvitations(enrolment_pb2.ListInvitationsRequest(), timeout=_TIMEOUT)).invitations
    if as_json:
        print_json([as_json_message(invitation) for invitation in found])
        return
    for invitation in found:
        state = _("used") if invitation.HasField("use_time") else _("withdrawn") if invitation.HasField("revoke_time") else _("open")
        out.print(f"{invitation.id}  {invitation.forum}  {state}  {_('until')} {show.moment(invitation.expire_time)}")


@_command("status", _("How the simpul is doing."), "kad-simpul status", "kad-simpul status --json")
@json_option
@run
async def status(context: Context, as_json: bool) -> None:
    """``kad-simpul status``."""
    async with context.client() as kad:
        state = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=_TIMEOUT)
        federation = (await kad.membership.GetFederation(governance_pb2.GetFederationRequest(), timeout=_TIMEOUT)).federation
    if as_json:
        _print(state)
        return
    show_status(context, state)
    decided = affairs.mode_name(federation.mode)
    if state.mode != decided:
        out.print(
            _("[yellow]The members have decided for mode {decided}, kad.toml says {configured}.[/] Change that and start it again.").format(
                decided=decided, configured=state.mode
            )
        )


@_command("doctor", _("Examine this home and say what to mend."), "kad-simpul doctor", "kad-simpul doctor --deep")
@click.option("--deep", is_flag=True, help=_("Also read and hash every entry; takes longer."))
@json_option
@run
async def doctor(context: Context, deep: bool, as_json: bool) -> None:
    """``kad-simpul doctor``."""
    examination.report(await examination.examine(context, deep=deep), as_json=as_json)


def _find_document(file: Any) -> tuple[document.Document, dict[str, Any]]:  # noqa: ANN401 - a file
    """A document, and what was written."""
    try:
        data = document.load(str(file.read()))
        return document.from_document(data), data
    except UnicodeDecodeError as error:
        raise InvalidInputError(Reason.INVALID_FILE, "the file is not UTF-8 text") from error


@_command(
    "publish",
    _("Publish a record in a forum's name, under its mandate. Prints the record's name."),
    "kad-simpul publish agenda.yaml --for kartamantul",
)
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--for", "forum", required=True, help=_("The forum in whose name."))
@click.option("--dry-run", is_flag=True, help=_("Check everything, the mandate too; publish nothing."))
@json_option
@run
async def publish(context: Context, file: Any, forum: str, dry_run: bool, as_json: bool) -> None:  # noqa: ANN401
    """``kad-simpul publish``."""
    read, data = _find_document(file)
    request = records_pb2.CreateRecordRequest(
        parent=f"forums/{forum}",
        content=read.content,
        audience=read.audience,  # type: ignore[arg-type]
        validate_only=dry_run,
    )
    async with context.client() as kad:
        with in_words_of(data):
            record = (await kad.records.CreateRecord(request, timeout=_TIMEOUT)).record
    _say_changed(record, as_json=as_json, dry_run=dry_run)


def _say_changed(record: records_pb2.Record, *, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        _print(record)
    elif dry_run:
        out.print(_("Everything is in order; nothing was published."))
    else:
        print(record.name)


@_command(
    "revise",
    _("Publish a new version of a record that this simpul published in a forum's name."),
    "kad-simpul show forums/kartamantul/records/01J... --yaml > agenda.yaml",
    "kad-simpul revise forums/kartamantul/records/01J... agenda.yaml --version 1",
)
@click.argument("name")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--version", "seen", type=click.IntRange(0), default=0, help=_("The version that you saw; refused if there is a newer one."))
@click.option("--dry-run", is_flag=True, help=_("Check everything, the mandate too; publish nothing."))
@json_option
@run
async def revise(context: Context, name: str, file: Any, seen: int, dry_run: bool, as_json: bool) -> None:  # noqa: ANN401
    """``kad-simpul revise``."""
    read, data = _find_document(file)
    request = records_pb2.ReviseRecordRequest(
        name=name,
        content=read.content,
        audience=read.audience,  # type: ignore[arg-type]
        expected_version=seen,
        validate_only=dry_run,
    )
    async with context.client() as kad:
        with in_words_of(data):
            record = (await kad.records.ReviseRecord(request, timeout=_TIMEOUT)).record
    _say_changed(record, as_json=as_json, dry_run=dry_run)


@_command(
    "retract",
    _("Withdraw a record that this simpul published in a forum's name."),
    'kad-simpul retract forums/kartamantul/records/01J... --reason "Rapat dibatalkan"',
)
@click.argument("name")
@click.option("--reason", required=True, help=_("For readers: why."))
@click.option("--version", "seen", type=click.IntRange(0), default=0, help=_("The version that you saw."))
@json_option
@run
async def retract(context: Context, name: str, reason: str, seen: int, as_json: bool) -> None:
    """``kad-simpul retract``."""
    request = records_pb2.RetractRecordRequest(name=name, reason=reason, expected_version=seen)
    async with context.client() as kad:
        record = (await kad.records.RetractRecord(request, timeout=_TIMEOUT)).record
    _say_changed(record, as_json=as_json)


@_command(
    "review",
    _("Let a submission through or turn it down, for forums that have mandated that (curate)."),
    "kad-simpul review",
    "kad-simpul review forums/javapromo/records/01J... --approve",
)
@click.argument("name", default="")
@click.option("--approve/--reject", "approved", default=None, help=_("Everybody reads it from now on, or nobody does."))
@json_option
@run
async def review(context: Context, name: str, approved: bool | None, as_json: bool) -> None:
    """``kad-simpul review``."""
    async with context.client() as kad:
        if not name:
            found = [record async for record in kad.all_records("state = SUBMITTED")]
            if as_json:
                print_json([as_json_message(record) for record in found])
                return
            show.record_table(found)
            if not found:
                err.print(_("Nothing waits for a review."))
            return
        if approved is None:
            raise click.UsageError(_("Say --approve or --reject."))
        request = governance_pb2.ReviewSubmissionRequest(name=name, approved=approved)
        act = (await kad.mandates.ReviewSubmission(request, timeout=_TIMEOUT)).act
    if as_json:
        _print(act)
    else:
        print(act.name)


@_command(
    "issue",
    _(
        "Make a statement under mandates: represent (a letter in the members' name), consolidate-agenda (a calendar of several forums), harmonise-regulation. `kad-simpul template statement` is a file to fill in."
    ),
    "kad-simpul template statement > surat.yaml",
    "kad-simpul issue represent surat.yaml",
    "kad-simpul issue consolidate-agenda kalender.yaml",
)
@click.argument("function", type=click.Choice(_STATEMENTS), metavar="FUNCTION")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--topics", default="", help=_("The government affairs that it is about, with commas; needed where mandates are limited to some.")
)
@click.option("--regions", default="", help=_("Its regions, likewise."))
@json_option
@run
async def issue(context: Context, function: str, file: Any, topics: str, regions: str, as_json: bool) -> None:  # noqa: ANN401
    """``kad-simpul issue``."""
    statement = affairs.read_statement(file)
    request = governance_pb2.IssueStatementRequest(function=function)
    request.sectors.extend(affairs.sectors(topics))
    request.regions.extend(affairs.listed(regions))
    async with context.client() as kad:
        for item in statement.items:
            if not item.version:
                item.version = (
                    await kad.records.GetRecord(records_pb2.GetRecordRequest(name=item.record), timeout=_TIMEOUT)
                ).record.version
        request.statement.CopyFrom(statement)
        act = (await kad.mandates.IssueStatement(request, timeout=_TIMEOUT)).act
    if as_json:
        _print(act)
        return
    print(act.name)
    err.print(
        _("Issued in the name of {members}. It is final when enough members confirm it: kad-simpul acts").format(
            members=", ".join(affairs.forum_of(origin) for origin in act.act.statement.members)
        )
    )


affairs.add_reading(app, affairs.mandate_group(app, "kad-simpul"), "kad-simpul")
#: What every member can do with what it holds; a simpul is one too.
for _name in (
    "template",
    "list",
    "show",
    "search",
    "agenda",
    "watch",
    "proof",
    "policy",
    "evidence",
    "export",
    "import",
    "token",
    "config",
):
    app.add_command(borrow(node_app.commands[_name], "kad-simpul"))
keys.add_keys(app, "kad-simpul")
app.add_command(completion("kad-simpul"))
