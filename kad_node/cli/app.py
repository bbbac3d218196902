"""The commands of ``kad-node``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import grpc.aio
from rich.markup import escape

from kad_node import config as configuration
from kad_node import logs
from kad_node.cli import affairs, keys, setup, show
from kad_node.cli import doctor as examination
from kad_node.cli.common import Context, Group, as_json, command_of, common, completion, err, in_words_of, json_option, out, print_json, run
from kad_node.config import NodeConfig
from kad_node.daemon import NodeDaemon
from kad_node.home import Home
from kad_node.messages import _, language, ngettext
from kad_node.tokens import Role
from kad_protocol import document, vocabulary
from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.v1 import directory_pb2, node_pb2, records_pb2, transparency_pb2

__all__ = ["app"]

_TIMEOUT = 30
_LONGEST_PATH = 1000


@click.group(
    cls=Group,
    help=_(
        'The node of a forum: publishes its records, and holds those of the others, verified.\n\n\b\nBegin:\n  kad-node join INVITATION --forum kartamantul --name "Sekber Kartamantul"\n  kad-node run\n  kad-node template best-practice > praktik.yaml\n  kad-node publish praktik.yaml'
    ),
)
@common
@click.version_option(package_name="kad", prog_name="kad-node")
@click.pass_context
def app(ctx: click.Context, home: str | None) -> None:
    """Set up what all commands need."""
    ctx.obj = Context(Home.find(home, os.environ, "node"), as_json=False, model=NodeConfig)


_command = command_of(app)


# Becoming a member.


@_command(
    "join",
    _("Join a federation with the simpul's invitation (its text, or a file with it)."),
    'kad-node join kad1-CiQ... --forum kartamantul --name "Sekber Kartamantul"',
)
@click.argument("invitation")
@click.option("--forum", help=_("Id of the forum; the invitation knows it."))
@click.option("--name", required=True, help=_("Display name of the forum."))
@click.option("--listen", default="", metavar="HOST:PORT", help=_("Where other members can reach this node directly; usually nowhere."))
@json_option
@run
async def join(context: Context, invitation: str, forum: str | None, name: str, listen: str, as_json: bool) -> None:
    """``kad-node join``."""
    path = Path(invitation.removeprefix("@"))
    text = path.read_text() if len(invitation) < _LONGEST_PATH and not invitation.startswith("kad1-") and path.is_file() else invitation
    result = await setup.join(context.home, text, forum, name, listen)
    setup.report(result, as_json=as_json)


@_command(
    "init",
    _("Begin without a simpul: two such nodes name each other as peers (`kad-node peer`)."),
    'kad-node init --forum kartamantul --name "Sekber Kartamantul" --listen 0.0.0.0:7460',
)
@click.option("--forum", required=True, help=_("Id of the forum, e.g. kartamantul."))
@click.option("--name", required=True, help=_("Display name of the forum."))
@click.option(
    "--federation", default="mandiri.kad.internal", show_default=True, help=_("Name that all who exchange share; cannot be changed.")
)
@click.option("--listen", default="", metavar="HOST:PORT", help=_("Where peers can reach this node; one of two needs it."))
@json_option
@run
async def init(context: Context, forum: str, name: str, federation: str, listen: str, as_json: bool) -> None:
    """``kad-node init``."""
    result = await setup.begin_alone(context.home, forum, name, federation, listen)
    setup.report(result, as_json=as_json)


@_command(
    "run", _("Run the node until it is stopped (Ctrl-C or SIGTERM)."), "kad-node run", "KAD_LOG_LEVEL=debug kad-node --home /srv/kad run"
)
@run
async def run_daemon(context: Context) -> None:
    """``kad-node run``."""
    config = context.config()
    logs.configure(config.log_level, config.log_format)
    await NodeDaemon(context.home, config).run()  # type: ignore[arg-type]


# Publishing.


def _read_document(file: Any) -> tuple[document.Document, dict[str, Any]]:  # noqa: ANN401 - a file
    """A document, and what was written."""
    data = document.load(_text(file))
    return document.from_document(data), data


def _text(file: Any) -> str:  # noqa: ANN401 - a file
    try:
        return str(file.read())
    except UnicodeDecodeError as error:
        raise InvalidInputError(Reason.INVALID_FILE, "the file is not UTF-8 text") from error


def _say_published(context: Context, response: Any) -> None:  # noqa: ANN401 - of three kinds
    if context.as_json:
        print_json(as_json(response))
        return
    print(response.record.name)
    for warning in getattr(response, "warnings", ()):
        err.print(f"[yellow]{_('Note')}:[/] {warning.field}: {warning.description}")
    if response.record.state == records_pb2.RECORD_STATE_QUEUED:
        err.print(_("Kept on this machine; it will be signed and sent as soon as the node runs and reaches the simpul or its peers."))


@_command(
    "publish",
    _("Publish a record from a YAML or JSON file, or from standard input (-). Prints its name."),
    "kad-node publish praktik.yaml",
    "kad-node template regulation > r.yaml   # fill it in, then\nkad-node publish r.yaml".replace("\n", "\n  "),
)
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help=_("Check everything, publish nothing."))
@click.option("--request-id", default="", help=_("Makes a retry safe: the same id publishes once."))
@json_option
@run
async def publish(context: Context, file: Any, dry_run: bool, request_id: str, as_json: bool) -> None:  # noqa: ANN401
    """``kad-node publish``."""
    del as_json
    read, data = _read_document(file)
    async with context.client() as kad:
        with in_words_of(data):
            response = await kad.records.CreateRecord(
                records_pb2.CreateRecordRequest(
                    content=read.content,
                    audience=read.audience,  # type: ignore[arg-type]
                    request_id=request_id,
                    validate_only=dry_run,
                ),
                timeout=_TIMEOUT,
            )
    if dry_run and not context.as_json:
        out.print(_("Everything is in order; nothing was published."))
        return
    _say_published(context, response)


@_command(
    "revise",
    _("Publish a new version of a record of this forum."),
    "kad-node show forums/kartamantul/records/01J... --yaml > r.yaml",
    "kad-node revise forums/kartamantul/records/01J... r.yaml --version 1",
)
@click.argument("name")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--version", "seen", type=click.IntRange(0), default=0, help=_("The version that you saw; refused if there is a newer one."))
@json_option
@run
async def revise(context: Context, name: str, file: Any, seen: int, as_json: bool) -> None:  # noqa: ANN401
    """``kad-node revise``."""
    del as_json
    read, data = _read_document(file)
    async with context.client() as kad:
        with in_words_of(data):
            response = await kad.records.ReviseRecord(
                records_pb2.ReviseRecordRequest(name=name, content=read.content, audience=read.audience, expected_version=seen),  # type: ignore[arg-type]
                timeout=_TIMEOUT,
            )
    _say_published(context, response)


@_command(
    "retract",
    _("Withdraw a record of this forum; what was said stays verifiable, but is no longer shown."),
    'kad-node retract forums/kartamantul/records/01J... --reason "Digantikan perjanjian 2027"',
)
@click.argument("name")
@click.option("--reason", required=True, help=_("For readers: why."))
@click.option("--version", "seen", type=click.IntRange(0), default=0, help=_("The version that you saw."))
@json_option
@run
async def retract(context: Context, name: str, reason: str, seen: int, as_json: bool) -> None:
    """``kad-node retract``."""
    del as_json
    async with context.client() as kad:
        response = await kad.records.RetractRecord(
            records_pb2.RetractRecordRequest(name=name, reason=reason, expected_version=seen), timeout=_TIMEOUT
        )
    _say_published(context, response)


@_command(
    "template",
    _("Print a commented YAML to fill in: best-practice, regulation, agenda-item or profile."),
    "kad-node template best-practice > praktik.yaml",
)
@click.argument("kind")
def template(context: Context, kind: str) -> None:
    """``kad-node template``."""
    del context
    click.echo(document.template(kind, language()), nl=False)


@_command("profile", _("Publish this forum's profile (see `kad-node template profile`)."), "kad-node profile profil.yaml")
@click.argument("file", type=click.File(encoding="utf-8"))
@json_option
@run
async def profile(context: Context, file: Any, as_json: bool) -> None:  # noqa: ANN401
    """``kad-node profile``."""
    data = document.load(_text(file))
    described = document.profile_from_document(data)
    async with context.client() as kad:
        with in_words_of(data):
            response = await kad.directory.PublishProfile(directory_pb2.PublishProfileRequest(profile=described), timeout=_TIMEOUT)
    if as_json:
        _print(response.forum)
    else:
        out.print(_("The profile of {name} is published.").format(name=response.forum.profile.name or response.forum.name))


def _print(message: Any) -> None:  # noqa: ANN401 - any message
    print_json(as_json(message))


# Reading.


def _filters(function: Any) -> Any:  # noqa: ANN401 - click's decorator
    for option in (
        click.option("--since", metavar="DATE", default="", help=_("Only what changed on or after this date, e.g. 2026-01-31.")),
        click.option("--region", metavar="CODE", default="", help=_("Only this region and what lies below it, e.g. 34 or 34.71.")),
        click.option("--kind", default="", help=_("Only this kind: best-practice, regulation or agenda-item.")),
        click.option("--forum", default="", help=_("Only this forum; one of another federation as FEDERATION/forums/FORUM.")),
    ):
        function = option(function)
    return function


def _filter(forum: str, kind: str, region: str, since: str, time_field: str = "update_time") -> str:
    terms = []
    for field, value in (("forum", forum), ("region", region)):
        if value:
            terms.append(f'{field} = "{value}"')
    if kind:
        terms.append(f"kind = {vocabulary.find('RecordKind', kind).name}")
    if since:
        terms.append(f'{time_field} >= "{since}"')
    return " AND ".join(terms)


@_command("list", _("List records, newest first."), "kad-node list --kind regulation --region 34", "kad-node list --forum javapromo --json")
@_filters
@click.option("--all", "everything", is_flag=True, help=_("Retracted ones too."))
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help=_("At most this many."))
@json_option
@run
async def list_records(
    context: Context, forum: str, kind: str, region: str, since: str, everything: bool, limit: int, as_json: bool
) -> None:
    """``kad-node list``."""
    found: list[records_pb2.Record] = []
    request = records_pb2.ListRecordsRequest(filter=_filter(forum, kind, region, since), show_retracted=everything)
    async with context.client() as kad:
        while True:
            request.page_size = min(limit + 1 - len(found), 200)
            response = await kad.records.ListRecords(request, timeout=_TIMEOUT)
            found.extend(response.records)
            request.page_token = response.next_page_token
            if not request.page_token or len(found) > limit:
                break
    if as_json:
        print_json([_json(record) for record in found[:limit]])
        return
    show.record_table(found[:limit])
    if len(found) > limit:
        err.print(_("There are more; see --limit."))
    elif not found:
        err.print(_("Nothing here yet. `kad-node template best-practice` helps to begin."))


def _json(message: Any) -> Any:  # noqa: ANN401 - any message
    return as_json(message)


@_command(
    "show",
    _("Show one record."),
    "kad-node show forums/kartamantul/records/01J...",
    "kad-node show forums/kartamantul/records/01J... --yaml > r.yaml",
)
@click.argument("name")
@click.option("--version", type=click.IntRange(0), default=0, help=_("An earlier version."))
@click.option("--yaml", "as_yaml", is_flag=True, help=_("Only the document, as it could be revised."))
@json_option
@run
async def show_one(context: Context, name: str, version: int, as_yaml: bool, as_json: bool) -> None:
    """``kad-node show``."""
    async with context.client() as kad:
        record = (await kad.records.GetRecord(records_pb2.GetRecordRequest(name=name, version=version), timeout=_TIMEOUT)).record
    if as_json:
        _print(record)
    elif as_yaml:
        click.echo(document.dump(document.to_document(record.content, record.audience, language())), nl=False)
    else:
        show.show_record(record)


@_command(
    "search",
    _("Find records by words, in any of their forms."),
    "kad-node search kelola sampah",
    "kad-node search wisata --region 34 --json",
)
@click.argument("words", nargs=-1, required=True)
@_filters
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help=_("At most this many."))
@json_option
@run
async def search(
    context: Context, words: tuple[str, ...], forum: str, kind: str, region: str, since: str, limit: int, as_json: bool
) -> None:
    """``kad-node search``."""
    request = records_pb2.SearchRecordsRequest(query=" ".join(words), filter=_filter(forum, kind, region, since), page_size=limit)
    async with context.client() as kad:
        response = await kad.records.SearchRecords(request, timeout=_TIMEOUT)
    if as_json:
        print_json([_json(hit) for hit in response.hits])
        return
    for hit in response.hits:
        out.print(f"[bold]{escape(hit.record.content.title)}[/]  [dim]{hit.record.name}[/]")
        out.print(f"  {escape(hit.snippet)}\n")
    if not response.hits:
        err.print(_("Nothing found."))


@_command(
    "agenda",
    _("What is coming: agenda items in the order of time, from today on."),
    "kad-node agenda",
    "kad-node agenda --since 2026-01-01 --forum javapromo",
)
@_filters
@json_option
@run
async def agenda(context: Context, forum: str, kind: str, region: str, since: str, as_json: bool) -> None:
    """``kad-node agenda``."""
    import datetime  # noqa: PLC0415

    del kind
    start = since or datetime.datetime.now(datetime.UTC).date().isoformat()
    where = _filter(forum, "agenda-item", region, start, "start_time")
    async with context.client() as kad:
        found = [record async for record in kad.all_records(where, order_by="start_time")]
    if as_json:
        print_json([_json(record) for record in found])
        return
    show.agenda_table(found)
    if not found:
        err.print(_("No dates from {date} on.").format(date=start))


@_command("watch", _("Show records as they arrive, until Ctrl-C."), "kad-node watch", "kad-node watch --all --json")
@click.option("--all", "from_start", is_flag=True, help=_("First everything that is here already."))
@_filters
@json_option
@run
async def watch(context: Context, from_start: bool, forum: str, kind: str, region: str, since: str, as_json: bool) -> None:
    """``kad-node watch``."""
    import json  # noqa: PLC0415

    words = {1: _("new"), 2: _("revised"), 3: _("retracted"), 4: _("complete")}
    if not context.home.locked() and not as_json:
        err.print(_("The node does not run (`kad-node run`), so nothing will arrive."))
    async with context.client() as kad:
        async for response in kad.follow(_filter(forum, kind, region, since), from_start=from_start):
            for event in response.events:
                if as_json:
                    print(json.dumps(_json(event), ensure_ascii=False), flush=True)
                else:
                    title = escape(event.record.content.title or event.record.name)
                    out.print(
                        f"{show.moment(event.arrive_time)}  {words.get(event.type, '')}  [bold]{title}[/]  [dim]{event.record.name}[/]"
                    )


# How it is going.


@_command(
    "status", _("How this node is doing: its feed, its peers, what it holds, what is wrong."), "kad-node status", "kad-node status --json"
)
@json_option
@run
async def status(context: Context, as_json: bool) -> None:
    """``kad-node status``."""
    async with context.client() as kad:
        state = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=_TIMEOUT)
        problems = (await kad.node.ListProblems(node_pb2.ListProblemsRequest(page_size=10), timeout=_TIMEOUT)).problems
    if as_json:
        _print(state)
        return
    show_status(context, state)
    for problem in problems:
        out.print(f"  [yellow]{problem.reason}[/] {problem.feed} {_('entry')} {problem.index}: {escape(problem.message)}")


def show_status(context: Context, state: node_pb2.GetStatusResponse) -> None:
    """The state of a node or simpul, for people."""
    me = getattr(state, "self")  # noqa: B009 - a word of Python's
    out.print(f"[bold]{escape(me.profile.name) or me.name}[/]  {me.feed}")
    if state.HasField("start_time"):
        out.print(
            f"[green]●[/] {_('running since')} {show.moment(state.start_time)}, {_('local API')} {context.home.running().get('api', '')}"
        )
    else:
        out.print(f"[yellow]●[/] {_('not running; start it with')} `kad-{context.home.role} run`")
    if state.mode:
        out.print(f"{_('mode')} {state.mode}")
    paint = "[red]" if state.append_state == node_pb2.APPEND_STATE_FORKED else "[default]"
    observed = _(", {n} received by the simpul").format(n=me.observed_size) if me.observed_size else ""
    out.print(f"{me.size} {ngettext('entry', 'entries', me.size)}{observed}; {paint}{escape(show.append_line(state))}[/]")
    if state.HasField("witnessing"):
        out.print(show.witnessing_line(state.witnessing))
    for alarm in state.alarms:
        out.print(f"[red]! {alarm.reason}[/] {alarm.feed}: {show.alarm_sentence(alarm, me.feed)}")
    if state.queued:
        out.print(f"[yellow]{state.queued}[/] {_('changes wait to be signed')}")
    for peer in state.peers:
        out.print(show.peer_line(peer))
    show.forum_table(state.forums)
    for count in state.problems:
        out.print(f"[yellow]{count.reason}[/]: {count.count}")


@_command(
    "proof",
    _("Write a proof of a record that anybody can check offline, with `kad verify` or any C2SP tool."),
    "kad-node proof forums/kartamantul/records/01JBQ4ZC8M5T6V7W8X9Y0Z1A2B > praktik.tlog-proof",
    "kad verify praktik.tlog-proof --policy jejaring.policy",
)
@click.argument("name")
@click.option("--version", type=click.IntRange(1, (1 << 31) - 1), help=_("A version; default: the newest."))
@run
async def proof(context: Context, name: str, version: int | None) -> None:
    """``kad-node proof``."""
    async with context.client() as kad:
        request = transparency_pb2.GetRecordProofRequest(name=name, version=version or 0)
        response = await kad.transparency.GetRecordProof(request, timeout=_TIMEOUT)
    click.echo(response.proof, nl=False)


@_command(
    "policy",
    _("Write whom a stranger should believe about this federation: a C2SP tlog-policy with the keys of simpul and witnesses."),
    "kad-node policy > jejaring.policy",
)
@run
async def policy(context: Context) -> None:
    """``kad-node policy``."""
    async with context.client() as kad:
        response = await kad.transparency.GetWitnessedCheckpoint(transparency_pb2.GetWitnessedCheckpointRequest(), timeout=_TIMEOUT)
    click.echo(response.policy, nl=False)


@_command(
    "evidence",
    _("Write the proofs of misbehaviour that this node keeps, each as a file for `kad verify`."),
    "kad-node evidence --to bukti/",
)
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path(), help=_("The folder; default: this one."))
@json_option
@run
async def evidence(context: Context, folder: Path, as_json: bool) -> None:
    """``kad-node evidence``."""
    async with context.client() as kad:
        pages = kad.pages(kad.transparency.ListEvidence, transparency_pb2.ListEvidenceRequest(), timeout=_TIMEOUT)
        found = [item async for page in pages for item in page.evidence]
        if as_json:
            print_json([_json(item) for item in found])
            return
        for number, item in enumerate(found, 1):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"evidence-{number}.json"
            with path.open("wb") as file:
                async for piece in kad.transparency.GetEvidence(transparency_pb2.GetEvidenceRequest(name=item.name)):
                    file.write(piece.chunk)
            out.print(f"[bold]{path}[/]  {show.evidence_line(item)}")
    if not found:
        err.print(_("Nobody has been caught: there is no evidence here."))
    else:
        err.print(_("Each file proves itself, to anybody: kad verify FILE"))


@_command("doctor", _("Examine this home and say what to mend."), "kad-node doctor", "kad-node doctor --deep")
@click.option("--deep", is_flag=True, help=_("Also read and hash every entry; takes longer."))
@json_option
@run
async def doctor(context: Context, deep: bool, as_json: bool) -> None:
    """``kad-node doctor``."""
    examination.report(await examination.examine(context, deep=deep), as_json=as_json)


# Peers, tokens, files.


@app.group(
    "peer",
    cls=Group,
    help=_(
        "Exchange directly with another forum.\n\n\b\nExample:\n  kad-node peer card > kartamantul.card        # on the one side\n  kad-node peer add kartamantul.card           # on the other, and the same back"
    ),
)
def peer() -> None:
    """``kad-node peer``."""


@peer.command(
    "card",
    help=_(
        "Print this node's card, for the other operator.\n\n\b\nExample:\n  kad-node peer card --address node.example.go.id:7460 > kartamantul.card"
    ),
)
@click.option("--address", default="", metavar="HOST:PORT", help=_("Where the other should dial this node."))
@click.pass_obj
@run
async def peer_card(context: Context, address: str) -> None:
    """``kad-node peer card``."""
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415

    async with context.client() as kad:
        card = (await kad.node.GetPeerCard(node_pb2.GetPeerCardRequest(address=address), timeout=_TIMEOUT)).card
    click.echo(MessageToJson(card, preserving_proto_field_name=True))


@peer.command("add", help=_("Name another forum as a peer, with its card.\n\n\b\nExample:\n  kad-node peer add kartamantul.card"))
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--address", default="", metavar="HOST:PORT", help=_("Where to dial it, instead of what its card says."))
@click.pass_obj
@run
async def peer_add(context: Context, file: Any, address: str) -> None:  # noqa: ANN401
    """``kad-node peer add``."""
    from google.protobuf.json_format import Parse, ParseError  # noqa: PLC0415

    try:
        card = Parse(_text(file)[:200_000], node_pb2.PeerCard())
    except ParseError as error:
        raise InvalidInputError(Reason.INVALID_FILE, "this is not the card of a member") from error
    card.address = address or card.address
    async with context.client() as kad:
        added = (await kad.node.AddPeer(node_pb2.AddPeerRequest(card=card), timeout=_TIMEOUT)).peer
    out.print(_("{forum} is a peer now.").format(forum=added.forum))


@peer.command("remove", help=_("Exchange with a forum directly no more.\n\n\b\nExample:\n  kad-node peer remove kartamantul"))
@click.argument("forum")
@click.pass_obj
@run
async def peer_remove(context: Context, forum: str) -> None:
    """``kad-node peer remove``."""
    async with context.client() as kad:
        await kad.node.RemovePeer(node_pb2.RemovePeerRequest(forum=forum), timeout=_TIMEOUT)


@app.group(
    "token", cls=Group, help=_("Tokens for programs that use the local API.\n\n\b\nExample:\n  kad-node token create laporan --role reader")
)
def token() -> None:
    """``kad-node token``."""


@token.command("create", help=_("Make a token; it is shown once.\n\n\b\nExample:\n  kad-node token create laporan --role reader"))
@click.argument("name")
@click.option(
    "--role", type=click.Choice([role.name.lower() for role in Role]), default="reader", show_default=True, help=_("What it allows.")
)
@click.pass_obj
def token_create(context: Context, name: str, role: str) -> None:
    """``kad-node token create``."""
    context.home.require()
    click.echo(context.home.tokens.create(name, Role.parse(role)))


@token.command("list", help=_("Names and roles of the tokens.\n\n\b\nExample:\n  kad-node token list"))
@click.pass_obj
def token_list(context: Context) -> None:
    """``kad-node token list``."""
    context.home.require()
    for name, role in context.home.tokens.names().items():
        click.echo(f"{name}\t{role}")


@token.command("revoke", help=_("Make a token worthless.\n\n\b\nExample:\n  kad-node token revoke laporan"))
@click.argument("name")
@click.pass_obj
def token_revoke(context: Context, name: str) -> None:
    """``kad-node token revoke``."""
    context.home.require()
    context.home.tokens.revoke(name)


@_command(
    "export",
    _("Write feeds to a file that verifies by itself, for a USB stick."),
    "kad-node export jejaring.kad",
    "kad-node export kartamantul.kad --forum kartamantul",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--forum", "forums", multiple=True, help=_("Only these forums."))
@click.option(
    "--for",
    "federation",
    default="",
    metavar="FEDERATION",
    help=_("For members of this other federation: without what is not for them. Default: for one's own."),
)
@run
async def export(context: Context, file: Path, forums: tuple[str, ...], federation: str) -> None:
    """``kad-node export``."""
    from kad_node.bundle import MAGIC, write_frame  # noqa: PLC0415

    entries = 0
    part = file.with_name(f".{file.name}.part")
    async with context.client() as kad:
        with part.open("wb") as stream:
            stream.write(MAGIC)
            async for response in kad.node.ExportFeeds(node_pb2.ExportFeedsRequest(forums=forums, federation=federation)):
                write_frame(stream, response.frame)
                entries += sum(len(batch.entries) for batch in response.frame.batches)
            stream.flush()
            os.fsync(stream.fileno())
    part.rename(file)
    out.print(_("{n} entries written to {file}.").format(n=entries, file=file))


@_command("import", _("Take feeds from such a file; everything in it is checked."), "kad-node import jejaring.kad")
@click.argument("file", type=click.File("rb"))
@json_option
@run
async def import_file(context: Context, file: Any, as_json: bool) -> None:  # noqa: ANN401
    """``kad-node import``."""
    from kad_node.bundle import MAGIC, read_frames  # noqa: PLC0415

    if file.read(len(MAGIC)) != MAGIC:
        raise InvalidInputError(Reason.INVALID_FILE, "this is not a file that `kad-node export` wrote")

    async def requests() -> Any:  # noqa: ANN401 - an iterator
        for frame in read_frames(file):
            yield node_pb2.ImportFeedsRequest(frame=frame)

    async with context.client() as kad:
        try:
            result = await kad.node.ImportFeeds(requests())
        except grpc.aio.AioRpcError:
            for _frame in read_frames(file):
                pass
            raise
    if as_json:
        _print(result)
        return
    out.print(_("{new} new entries, {known} known.").format(new=result.imported, known=result.known))
    for refused in result.refused:
        out.print(f"[yellow]{refused.reason}[/]: {refused.count}")
    if result.refused:
        sys.exit(1)


@app.group("config", cls=Group, help=_("The configuration.\n\n\b\nExample:\n  kad-node config check"))
def config() -> None:
    """``kad-node config``."""


@config.command("check", help=_("Check kad.toml and the variables.\n\n\b\nExample:\n  kad-node config check"))
@click.pass_obj
def config_check(context: Context) -> None:
    """``kad-node config check``."""
    context.config()
    out.print(_("{file} is in order.").format(file=context.home.config))


@config.command("sample", help=_("Print all keys with their defaults.\n\n\b\nExample:\n  kad-node config sample"))
@click.pass_obj
def config_sample(context: Context) -> None:
    """``kad-node config sample``."""
    click.echo(configuration.sample(context.model, {}), nl=False)


app.add_command(completion("kad-node"))


_mandates = affairs.mandate_group(app)
affairs.add_reading(app, _mandates)
affairs.add_writing(app, _mandates)
keys.add_keys(app, "kad-node")
keys.add_recover(app)
