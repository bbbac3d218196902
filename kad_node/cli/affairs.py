"""The commands about a federation's affairs: members, mandates, decisions. ``kad-simpul`` has those that only read, too."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any

import click
import yaml
from google.protobuf import json_format
from rich.markup import escape
from rich.table import Table

from kad_node.cli import show
from kad_node.cli.common import Context, Group, as_json, command_of, err, json_option, out, print_json, run
from kad_node.messages import _, language
from kad_protocol import vocabulary
from kad_protocol.authority import FUNCTIONS, policy
from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.v1 import entry_pb2, governance_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["add_reading", "add_writing", "charter_yaml", "mandate_group", "read_statement"]

_TIMEOUT = 30
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_CHOICES = {
    **dict.fromkeys(("yes", "setuju"), entry_pb2.Vote.CHOICE_YES),
    **dict.fromkeys(("no", "tidak"), entry_pb2.Vote.CHOICE_NO),
    "abstain": entry_pb2.Vote.CHOICE_ABSTAIN,
}


def _until(text: str, field: str, target: Timestamp) -> None:
    """A date (its end, in UTC), or a duration from now: 30m, 12h, 14d."""
    now = datetime.datetime.now(datetime.UTC)
    try:
        if found := re.fullmatch(r"(\d{1,6})([mhd])", text):
            moment = now + datetime.timedelta(seconds=int(found.group(1)) * _UNITS[found.group(2)])
        else:
            moment = datetime.datetime.combine(datetime.date.fromisoformat(text), datetime.time(23, 59, 59), datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            Reason.INVALID_FIELD, f"--{field} is a date like 2027-12-31, or a duration like 30m, 12h or 14d", field=field
        ) from error
    target.FromDatetime(moment.replace(microsecond=0))


def _say(message: Any, as_json_: bool) -> bool:  # noqa: ANN401 - any message
    if as_json_:
        print_json(as_json(message))
    return as_json_


def _load(file: Any) -> dict[str, Any]:  # noqa: ANN401 - a file
    try:
        data = yaml.safe_load(file.read())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"the file is no YAML: {str(error)[:200]}") from error
    if not isinstance(data, dict):
        raise InvalidInputError(Reason.INVALID_FILE, "the file holds no fields")
    return data


def _parse(data: dict[str, Any], message: Any) -> Any:  # noqa: ANN401 - any message
    try:
        return json_format.ParseDict(data, message)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"the file does not read: {str(error)[:300]}") from error


def mode_name(mode: int) -> str:
    """The mode, as people write it."""
    return policy(mode).name


# Charters as files.


def charter_yaml(charter: entry_pb2.Charter) -> str:
    """A charter to be edited, each rule with what it means."""
    meaning = {
        "mode": _("networking: nobody acts for another; subsidiarity: the simpul does what forums mandate it to do"),
        "admission_endorsements": _("how many full members must endorse a new forum; 0: the simpul admits whom it invited"),
        "participation_percent": _("so many percent of the full members must have voted"),
        "general_percent": _("so many percent of yes among yes and no accept a general matter; 100 is consensus"),
        "membership_percent": _("the same for suspending and reinstating a member"),
        "charter_percent": _("the same for a new charter"),
        "notice_hours": _("hours between the proposal of a new charter and its adoption; a unanimous yes waives them"),
        "collective": _("when a function that needs many takes effect: percent of the full members with a mandate"),
        "lag_seconds": _("how long the simpul may take to observe what members wrote (10 to 86,400)"),
        "chair_term_days": _("days that each member has the chair; 0: no chair"),
        "seats": _("other offices: title, and the feed of the forum that holds it"),
        "document": _("name of the record with the full text (AD/ART)"),
    }
    values: dict[str, Any] = {name: getattr(charter, name) for name in meaning if name not in ("mode", "collective", "seats")}
    values["mode"] = mode_name(charter.mode)
    values["collective"] = [{"function": rule.function, "percent": rule.percent} for rule in charter.collective]
    values["seats"] = [{"title": seat.title, "feed": seat.feed} for seat in charter.seats]
    lines = []
    for name, text in meaning.items():
        lines.append(f"# {text}")
        lines.append(yaml.safe_dump({name: values[name]}, sort_keys=False, allow_unicode=True).rstrip())
    return "\n".join(lines) + "\n"


def _charter(file: Any) -> entry_pb2.Charter:  # noqa: ANN401 - a file
    data = _load(file)
    mode = data.pop("mode", "networking")
    if mode not in ("networking", "subsidiarity"):
        raise InvalidInputError(Reason.CHARTER_INVALID, f"mode is networking or subsidiarity, not {str(mode)[:40]!r}", field="mode")
    data["mode"] = f"MODE_{mode.upper()}"
    charter: entry_pb2.Charter = _parse(data, entry_pb2.Charter())
    return charter


def read_statement(file: Any) -> entry_pb2.ActStatement:  # noqa: ANN401 - a file
    """A statement from its file: title, addressee, text, and items with record, version, start_time, end_time, note."""
    statement: entry_pb2.ActStatement = _parse(_load(file), entry_pb2.ActStatement())
    return statement


# Reading.


def _state(name: str, number: int) -> str:
    words = {
        ("mandate", 1): _("live"),
        ("mandate", 2): _("begins later"),
        ("mandate", 3): _("expired"),
        ("mandate", 4): _("revoked"),
        ("mandate", 5): _("at rest"),
        ("mandate", 6): _("not observed yet"),
        ("act", 1): _("not witnessed yet"),
        ("act", 2): _("final"),
        ("act", 3): _("without effect"),
        ("act", 4): _("vetoed"),
        ("decision", 1): _("open"),
        ("decision", 2): _("accepted"),
        ("decision", 3): _("not accepted"),
        ("decision", 4): _("not observed yet"),
    }
    return words.get((name, number), "?")


def _deed(act: entry_pb2.Act) -> str:
    match act.WhichOneof("deed"):
        case "publication":
            return _("published record {record}").format(record=act.publication.record)
        case "withdrawal":
            return _("withdrew record {record}").format(record=act.withdrawal.record)
        case "review" if act.review.approved:
            return _("let record {record} through").format(record=act.review.record)
        case "review":
            return _("turned record {record} down").format(record=act.review.record)
        case _:
            return _("statement")


def _percent_line(charter: entry_pb2.Charter) -> str:
    return _(
        "participation {p} %; general matters {g} %, membership {m} %, charter {c} % of yes; notice {n} hours; {k} endorsements"
    ).format(
        p=charter.participation_percent,
        g=charter.general_percent,
        m=charter.membership_percent,
        c=charter.charter_percent,
        n=charter.notice_hours,
        k=charter.admission_endorsements,
    )


def _matter(proposal: entry_pb2.Proposal) -> str:
    match proposal.WhichOneof("matter"):
        case "charter":
            return _("charter version {n}, mode {mode}").format(n=proposal.charter.version, mode=mode_name(proposal.charter.mode))
        case "standing":
            verb = _("suspend") if proposal.standing.state == entry_pb2.MEMBERSHIP_STATE_SUSPENDED else _("reinstate")
            return f"{verb} {proposal.standing.feed}"
        case _:
            return _("general matter")


def show_decision(decision: governance_pb2.Decision) -> None:
    """One proposal and its votes."""
    out.print(f"[bold]{escape(decision.text.title)}[/]  [dim]{decision.name}[/]")
    if decision.text.text:
        out.print(escape(decision.text.text))
    out.print(
        f"{_matter(decision.proposal)}; {_('proposed by')} {decision.proposer}; {_('until')} {show.moment(decision.proposal.deadline)}"
    )
    counts = _("{y} yes, {n} no, {a} abstain of {e}").format(y=decision.yes, n=decision.no, a=decision.abstain, e=decision.eligible)
    ending = f" ({decision.outcome})" if decision.outcome else ""
    final = "" if decision.final or not decision.close_position else f", {_('not witnessed yet')}"
    out.print(f"[bold]{_state('decision', decision.state)}[/]{ending}{final}: {counts}")
    signs = {1: "[green]✓[/]", 2: "[red]✗[/]", 3: "–"}
    for vote in decision.votes:
        out.print(f"  {signs.get(vote.choice, '?')} {vote.member}  {escape(vote.comment)}")


def add_reading(app: click.Group, mandates: click.Group) -> None:  # noqa: C901, PLR0915 - one command after the other
    """Commands that every member has, the simpul too."""
    command, mandate = command_of(app), command_of(mandates)

    @command("federation", _("The federation: its mode, its rules, who has the chair."), "kad-node federation")
    @json_option
    @run
    async def federation(context: Context, as_json: bool) -> None:
        async with context.client() as kad:
            found = (await kad.membership.GetFederation(governance_pb2.GetFederationRequest(), timeout=_TIMEOUT)).federation
        if _say(found, as_json):
            return
        out.print(f"[bold]{_('mode')} {mode_name(found.mode)}[/]  {found.simpul}")
        if found.charter.version:
            out.print(_("charter version {n}, since {when}").format(n=found.charter.version, when=show.moment(found.charter_time)))
        else:
            out.print(_("no charter yet: the simpul admits whom it invites, decisions are by consensus"))
        out.print(_percent_line(found.charter))
        if found.chair:
            out.print(f"{_('chair')}: {found.chair}")
        if found.waiting_reason:
            out.print(f"[red]{_('judging stands still')}[/]: {found.waiting_reason} {found.waiting_for}")

    @command("members", _("Members, and forums that have applied."), "kad-node members", "kad-node members --json")
    @json_option
    @run
    async def members(context: Context, as_json: bool) -> None:
        async with context.client() as kad:
            pages = kad.pages(kad.membership.ListMembers, governance_pb2.ListMembersRequest(), timeout=_TIMEOUT)
            found = [item async for page in pages for item in page.members]
        if as_json:
            print_json([as_json_of(item) for item in found])
            return
        for item in found:
            category = vocabulary.label("MemberCategory", item.category, language())
            state = vocabulary.label("MembershipState", item.state, language())
            by = f" ({_('endorsed by')} {', '.join(item.endorsements)})" if item.endorsements else ""
            out.print(f"[bold]{item.name}[/]  {category}, {state}{by}  {show.moment(item.time)}")
        if not found:
            err.print(_("No members yet. `kad-simpul invite FORUM` makes an invitation."))

    @command("charter", _("Print the charter in force as a file to edit and propose."), "kad-node charter > piagam.yaml")
    @run
    async def charter(context: Context) -> None:
        async with context.client() as kad:
            found = (await kad.membership.GetFederation(governance_pb2.GetFederationRequest(), timeout=_TIMEOUT)).federation
        click.echo(charter_yaml(found.charter), nl=False)

    @mandate("list", _("Mandates that forums have given."), "kad-node mandate list --live", "kad-node mandate list --forum javapromo")
    @click.option("--forum", default="", help=_("Only this forum's."))
    @click.option("--live", is_flag=True, help=_("Only those that count now."))
    @json_option
    @run
    async def mandate_list(context: Context, forum: str, live: bool, as_json: bool) -> None:
        request = governance_pb2.ListMandatesRequest(parent=f"forums/{forum}" if forum else "", live_only=live)
        async with context.client() as kad:
            found = [item async for page in kad.pages(kad.mandates.ListMandates, request, timeout=_TIMEOUT) for item in page.mandates]
        if as_json:
            print_json([as_json_of(item) for item in found])
            return
        table = Table(box=None, pad_edge=False)
        for title in (_("mandate"), _("function"), _("scope"), _("until"), _("state")):
            table.add_column(title, overflow="fold")
        for item in found:
            until = show.day(item.mandate.not_after)
            table.add_row(item.name, item.mandate.function, _scope(item.mandate), until, _state("mandate", item.state))
        out.print(table)
        if not found:
            err.print(_("No mandates: every forum keeps all of its own."))

    @command("acts", _("What the simpul did in members' names, newest first."), "kad-node acts", "kad-node acts --json")
    @click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help=_("At most this many."))
    @json_option
    @run
    async def acts(context: Context, limit: int, as_json: bool) -> None:
        async with context.client() as kad:
            found: list[governance_pb2.PerformedAct] = []
            async for page in kad.pages(kad.mandates.ListActs, governance_pb2.ListActsRequest(page_size=limit), timeout=_TIMEOUT):
                found.extend(page.acts)
                if len(found) >= limit:
                    del found[limit:]
                    break
        if as_json:
            print_json([as_json_of(item) for item in found])
            return
        for item in found:
            whom = item.act.on_behalf_of or ", ".join(item.act.statement.members)
            reason = f" [red]{item.reason}[/]" if item.reason else ""
            out.print(f"[bold]{item.name}[/]  {item.act.function}  {_state('act', item.state)}{reason}  {show.moment(item.time)}")
            out.print(f"  {_deed(item.act)} {_('in the name of')} {whom}")
            if item.HasField("statement"):
                out.print(f"  [bold]{escape(item.statement.title)}[/] {escape(item.statement.addressee)}")
                for part in item.statement.items:
                    when = f" {show.moment(part.start_time)}" if part.HasField("start_time") else ""
                    out.print(f"    {part.record} v{part.version}{when} {escape(part.note)}")
        if not found:
            err.print(_("The simpul has done nothing in anybody's name."))

    @command("decisions", _("What was and is put to the vote; with an id, its votes."), "kad-node decisions", "kad-node decisions 01J...")
    @click.argument("number", default="")
    @json_option
    @run
    async def decisions(context: Context, number: str, as_json: bool) -> None:
        async with context.client() as kad:
            if number:
                request = governance_pb2.GetDecisionRequest(name=_decision_name(number))
                found = [(await kad.decisions.GetDecision(request, timeout=_TIMEOUT)).decision]
            else:
                pages = kad.pages(kad.decisions.ListDecisions, governance_pb2.ListDecisionsRequest(), timeout=_TIMEOUT)
                found = [item async for page in pages for item in page.decisions]
        if as_json:
            print_json([as_json_of(item) for item in found])
            return
        for item in found:
            show_decision(item)
        if not found:
            err.print(_("Nothing has been put to the vote yet. `kad-node propose` does that."))


as_json_of = as_json


def _scope(mandate: entry_pb2.Mandate) -> str:
    parts = [vocabulary.label("RecordKind", kind, language()) for kind in mandate.kinds]
    parts += [vocabulary.label("Sector", sector, language()) for sector in mandate.sectors]
    parts += list(mandate.regions)
    return ", ".join(parts) or "–"


def _decision_name(number: str) -> str:
    return f"decisions/{number.rpartition('/')[2].upper()}"


# Writing.


def add_writing(app: click.Group, mandates: click.Group) -> None:  # noqa: C901, PLR0915 - one command after the other
    """Commands with which a forum decides."""
    command, mandate = command_of(app), command_of(mandates)

    @mandate(
        "grant",
        _("Hand a function up to the simpul, for some time. It can be revoked at any moment."),
        "kad-node mandate grant --function publish-on-behalf --kinds agenda-item --until 2027-12-31",
        "kad-node mandate grant --function represent --until 90d --veto-days 14",
    )
    @click.option("--function", type=click.Choice(list(FUNCTIONS)), required=True, help=_("What is handed up."))
    @click.option("--kinds", default="", help=_("Kinds of record, with commas: best-practice, regulation, agenda-item."))
    @click.option("--topics", default="", help=_("Only these government affairs, with commas; default: all."))
    @click.option("--regions", default="", help=_("Only these regions and what lies below them, with commas; default: all."))
    @click.option("--from", "begin", default="", metavar="DATE", help=_("From when; default: now."))
    @click.option("--until", required=True, metavar="DATE", help=_("Until when (at most 400 days): 2027-12-31, or 90d."))
    @click.option("--veto-days", type=click.IntRange(0, 90), default=0, help=_("For so many days this forum may veto what was done."))
    @click.option("--legal-basis", default="", help=_("Name of the record with the agreement that this rests on."))
    @json_option
    @run
    async def grant(
        context: Context,
        function: str,
        kinds: str,
        topics: str,
        regions: str,
        begin: str,
        until: str,
        veto_days: int,
        legal_basis: str,
        as_json: bool,
    ) -> None:
        asked = entry_pb2.Mandate(function=function, veto_days=veto_days, legal_basis=legal_basis)
        asked.kinds.extend(vocabulary.find("RecordKind", kind).number for kind in _list(kinds))  # type: ignore[misc]
        asked.sectors.extend(vocabulary.find("Sector", topic).number for topic in _list(topics))  # type: ignore[misc]
        asked.regions.extend(_list(regions))
        if begin:
            _until(begin, "from", asked.not_before)
        _until(until, "until", asked.not_after)
        async with context.client() as kad:
            granted = (await kad.mandates.GrantMandate(governance_pb2.GrantMandateRequest(mandate=asked), timeout=_TIMEOUT)).mandate
        if _say(granted, as_json):
            return
        print(granted.name)
        err.print(
            _("The simpul may {function} in this forum's name until {until}. `kad-node mandate revoke {id}` ends it at once.").format(
                function=function, until=show.moment(granted.mandate.not_after), id=granted.mandate.id
            )
        )

    @mandate("revoke", _("Take a mandate back, for good; a new one is a new mandate."), "kad-node mandate revoke 01J...")
    @click.argument("name")
    @json_option
    @run
    async def revoke(context: Context, name: str, as_json: bool) -> None:
        async with context.client() as kad:
            response = await kad.mandates.RevokeMandate(governance_pb2.RevokeMandateRequest(name=name), timeout=_TIMEOUT)
        if not _say(response, as_json):
            err.print(_("Revoked. It ends for everybody where the simpul's log observes it, as a rule within seconds."))

    @command("veto", _("Object to something that the simpul did in this forum's name (`kad-node acts`)."), "kad-node veto acts/4711")
    @click.argument("name")
    @json_option
    @run
    async def veto(context: Context, name: str, as_json: bool) -> None:
        name = name if name.startswith("acts/") else f"acts/{name}"
        async with context.client() as kad:
            response = await kad.mandates.VetoAct(governance_pb2.VetoActRequest(name=name), timeout=_TIMEOUT)
        if not _say(response, as_json):
            err.print(_("Vetoed. It has no effect any more where the simpul's log observes the veto."))

    @command("endorse", _("Speak for a forum that has applied (`kad-node members`)."), "kad-node endorse lintasjogja")
    @click.argument("forum")
    @json_option
    @run
    async def endorse(context: Context, forum: str, as_json: bool) -> None:
        async with context.client() as kad:
            response = await kad.membership.EndorseCandidate(governance_pb2.EndorseCandidateRequest(name=forum), timeout=_TIMEOUT)
        if not _say(response, as_json):
            err.print(_("Endorsed. When enough members have, the forum is admitted."))

    @command("leave", _("Leave the federation, at once. Mandates end; the history stays here and stays verifiable."), "kad-node leave")
    @click.option("--yes", is_flag=True, help=_("Do not ask."))
    @json_option
    @run
    async def leave(context: Context, yes: bool, as_json: bool) -> None:
        if not yes and not as_json:
            click.confirm(_("Leave the federation? Coming back needs a new invitation."), abort=True)
        async with context.client() as kad:
            response = await kad.membership.LeaveFederation(governance_pb2.LeaveFederationRequest(), timeout=_TIMEOUT)
        if not _say(response, as_json):
            err.print(_("This forum has left. What it published stays with those who have it; direct exchange with peers goes on."))

    @command(
        "propose",
        _("Put something to the vote: a charter, a suspension or reinstatement, or a general matter."),
        'kad-node propose "Rapat tahunan di Purwokerto" --deadline 14d',
        'kad-node propose "Beralih ke subsidiaritas" --charter piagam.yaml --deadline 14d',
        'kad-node propose "Tunggakan iuran 2026" --suspend FORUM --deadline 14d',
    )
    @click.argument("title")
    @click.option("--text", default="", help=_("The reasons."))
    @click.option("--deadline", default="14d", show_default=True, help=_("Until when votes are taken: 30m, 12h, 14d, or a date."))
    @click.option(
        "--charter",
        "charter_file",
        type=click.File(encoding="utf-8"),
        help=_("A new charter (`kad-node charter` prints the one in force)."),
    )
    @click.option("--suspend", default="", metavar="FORUM", help=_("Suspend this member."))
    @click.option("--reinstate", default="", metavar="FORUM", help=_("Reinstate this member."))
    @json_option
    @run
    async def propose(
        context: Context,
        title: str,
        text: str,
        deadline: str,
        charter_file: Any,  # noqa: ANN401
        suspend: str,
        reinstate: str,
        as_json: bool,
    ) -> None:
        if sum(map(bool, (charter_file, suspend, reinstate))) > 1:
            raise click.UsageError(_("One proposal, one matter."))
        request = governance_pb2.ProposeRequest(text=entry_pb2.ProposalText(title=title, text=text))
        _until(deadline, "deadline", request.deadline)
        if charter_file:
            request.charter.CopyFrom(_charter(charter_file))
        async with context.client() as kad:
            if suspend or reinstate:
                members = (await kad.membership.ListMembers(governance_pb2.ListMembersRequest(), timeout=_TIMEOUT)).members
                member = next((m for m in members if m.name == f"forums/{suspend or reinstate}"), None)
                if member is None:
                    raise InvalidInputError(Reason.NOT_A_MEMBER, f"{suspend or reinstate} is no member", forum=suspend or reinstate)
                request.standing.feed = member.feed
                request.standing.state = entry_pb2.MEMBERSHIP_STATE_SUSPENDED if suspend else entry_pb2.MEMBERSHIP_STATE_ACTIVE
            decision = (await kad.decisions.Propose(request, timeout=_TIMEOUT)).decision
        if _say(decision, as_json):
            return
        print(decision.proposal.id)
        err.print(
            _("Put to the vote until {until}. This forum votes too: kad-node vote {id} yes").format(
                until=show.moment(decision.proposal.deadline), id=decision.proposal.id
            )
        )

    @command(
        "vote",
        _("Vote on a proposal: yes, no or abstain. The first vote counts."),
        "kad-node vote 01J... yes",
        'kad-node vote 01J... no --comment "Belum dibahas dengan bupati"',
    )
    @click.argument("number")
    @click.argument("choice", type=click.Choice(list(_CHOICES)))
    @click.option("--comment", default="", help=_("Why, for the other members."))
    @json_option
    @run
    async def vote(context: Context, number: str, choice: str, comment: str, as_json: bool) -> None:
        request = governance_pb2.CastVoteRequest(name=_decision_name(number), choice=_CHOICES[choice], comment=comment)
        async with context.client() as kad:
            decision = (await kad.decisions.CastVote(request, timeout=_TIMEOUT)).decision
        if not _say(decision, as_json):
            err.print(_("The vote is signed. It counts where the simpul's log observes it, as a rule within seconds."))


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def mandate_group(app: click.Group) -> click.Group:
    """``mandate``."""
    group: click.Group = app.group(
        "mandate", cls=Group, help=_("What forums hand up to the simpul.\n\n\b\nExample:\n  kad-node mandate list --live")
    )(lambda: None)
    return group
