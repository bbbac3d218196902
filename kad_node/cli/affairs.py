"""The commands about a federation's affairs: members, mandates, decisions. ``kad-simpul`` has those that only read, too."""

from __future__ import annotations

import datetime
import re
import textwrap
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from kad_node.cli import show
from kad_node.cli.common import Context, Group, as_json, command_of, err, json_option, out, print_json, run
from kad_node.messages import _, language
from kad_protocol import document, vocabulary
from kad_protocol.authority import FUNCTIONS, policy, threshold
from kad_protocol.errors import InvalidInputError, KadError, Reason
from kad_protocol.names import FeedId, local_name, parse_member_name
from kad_protocol.v1 import content_pb2, entry_pb2, governance_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.timestamp_pb2 import Timestamp

    from kad_protocol.client import Client

__all__ = ["add_reading", "add_writing", "charter_yaml", "forum_of", "listed", "mandate_group", "read_statement", "sectors"]

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
            Reason.INVALID_FIELD,
            _("--{field} is a date like 2027-12-31, or a duration like 30m, 12h or 14d").format(field=field),
            field=field,
        ) from error
    target.FromDatetime(moment.replace(microsecond=0))


def _say(message: Any, as_json_: bool) -> bool:  # noqa: ANN401 - any message
    if as_json_:
        print_json(as_json(message))
    return as_json_


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
        "seats": _("other offices: title, and the id of the forum that holds it"),
        "document": _("name of the record with the full text (AD/ART)"),
    }
    written = document.charter_to_document(charter, language())
    key = document.INDONESIAN_KEYS if language() == "id" else {}
    examples = {
        "collective": f"[{{{key.get('function', 'function')}: represent, {key.get('percent', 'percent')}: 60}}]",
        "seats": f"[{{{key.get('title', 'title')}: {_('secretary')}, {key.get('feed', 'feed')}: javapromo}}]",
    }
    lines = []
    for name, text in meaning.items():
        lines += textwrap.wrap(text, 76, initial_indent="# ", subsequent_indent="# ")
        if name in examples:
            lines.append(f"# {_('e.g.')} {examples[name]}")
        lines.append(document.dump({key.get(name, name): written[key.get(name, name)]}).rstrip())
    return "\n".join(lines) + "\n"


def _read(file: Any) -> dict[str, Any]:  # noqa: ANN401 - a file
    try:
        return document.load(str(file.read()))
    except UnicodeDecodeError as error:
        raise InvalidInputError(Reason.INVALID_FILE, "the file is not UTF-8 text") from error


def read_statement(file: Any) -> entry_pb2.ActStatement:  # noqa: ANN401 - a file
    """A statement from its file (``kad-simpul template statement``)."""
    return document.statement_from_document(_read(file))


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
        ("decision", 1): _("votes are being taken"),
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


def _rules(charter: entry_pb2.Charter, full: int) -> Table:
    """The rules in force, with what they come to today."""

    def share(percent: int) -> str:
        return _("{p} % of {f}: {k}").format(p=percent, f=full, k=threshold(full, percent))

    endorsements = charter.admission_endorsements
    rows = [
        (_("valid when so many full members vote"), share(charter.participation_percent)),
        (_("general matters"), _("{p} % of yes").format(p=charter.general_percent)),
        (_("suspending, reinstating"), _("{p} % of yes").format(p=charter.membership_percent)),
        (_("a new charter"), _("{p} % of yes, {n} hours of notice").format(p=charter.charter_percent, n=charter.notice_hours)),
        (_("a new forum"), _("{n} endorsements").format(n=endorsements) if endorsements else _("the simpul admits whom it invited")),
        *((rule.function, _("mandates of {share}").format(share=share(rule.percent))) for rule in charter.collective),
    ]
    rows += [(seat.title, forum_of(seat.feed)) for seat in charter.seats]
    if charter.document:
        rows.append((_("full text"), charter.document))
    table = Table(box=None, pad_edge=False, show_header=False)
    for label, text in rows:
        table.add_row(f"  {escape(label)}", escape(text))
    return table


def forum_of(origin: str) -> str:
    """The forum of a feed's origin, as people say it."""
    try:
        return FeedId.parse(origin).forum
    except KadError:
        return origin


def _full_members(members: Iterable[governance_pb2.FederationMember]) -> int:
    active, associate = entry_pb2.MEMBERSHIP_STATE_ACTIVE, entry_pb2.MEMBER_CATEGORY_ASSOCIATE
    return sum(member.state == active and member.category != associate for member in members)


def _functions() -> dict[str, tuple[str, str]]:
    """What can be handed up: what the simpul may do then, and what it may not even then."""
    return {
        "publish-on-behalf": (
            _("publish records in the forum's name, revise and withdraw those; everybody sees that the simpul did"),
            _("touch a record that the forum wrote itself; go beyond the kinds, affairs and regions of the mandate"),
        ),
        "curate": (
            _("let new records of the forum through to the others, or turn them down; until then they wait"),
            _("change a word of them; take back what was let through or published before"),
        ),
        "consolidate-agenda": (
            _("issue a joint calendar of agenda items, with other dates where they clash"),
            _("change the agenda items themselves; they stay as the forum wrote them"),
        ),
        "harmonise-regulation": (
            _("issue a reading of regulations: which hold, which contradict each other"),
            _("change the regulations themselves"),
        ),
        "represent": (
            _("write in the members' name, such as a letter to a ministry, once enough of them have mandated it"),
            _("name a forum that has not mandated it"),
        ),
        "admit-members": (
            _("admit new forums without endorsements, once enough members have mandated it"),
            _("suspend or remove a member"),
        ),
    }


def _outcome(code: str) -> str:
    words = {
        "PARTICIPATION": _("too few have voted"),
        "MAJORITY": _("too few yes"),
        "FIRST_CHARTER_NEEDS_ALL": _("the first charter needs a yes of every full member"),
        "CHARTER_INVALID": _("the charter does not fit what holds by now"),
        "EPOCH_SUPERSEDED": _("its proposer has given up the keys with which it was proposed"),
    }
    return words.get(code, code)


def _matter(proposal: entry_pb2.Proposal) -> str:
    match proposal.WhichOneof("matter"):
        case "charter":
            return _("charter version {n}, mode {mode}").format(n=proposal.charter.version, mode=mode_name(proposal.charter.mode))
        case "standing":
            verb = _("suspend") if proposal.standing.state == entry_pb2.MEMBERSHIP_STATE_SUSPENDED else _("reinstate")
            return f"{verb} {forum_of(proposal.standing.feed)}"
        case _:
            return _("general matter")


def show_decision(decision: governance_pb2.Decision) -> None:
    """One proposal and its votes."""
    out.print(f"[bold]{escape(decision.text.title)}[/]  [dim]{decision.name}[/]")
    if decision.text.text:
        out.print(escape(decision.text.text))
    out.print(
        f"{_matter(decision.proposal)}; {_('proposed by')} {forum_of(decision.proposer)}; {_('until')} {show.moment(decision.proposal.deadline)}"
    )
    counts = _("{y} yes, {n} no, {a} abstain of {e}").format(y=decision.yes, n=decision.no, a=decision.abstain, e=decision.eligible)
    ending = f" ({_outcome(decision.outcome)})" if decision.outcome else ""
    final = "" if decision.final or not decision.close_position else f", {_('not witnessed yet')}"
    out.print(f"[bold]{_state('decision', decision.state)}[/]{ending}{final}: {counts}")
    signs = {1: "[green]✓[/]", 2: "[red]✗[/]", 3: "–"}
    for vote in decision.votes:
        out.print(f"  {signs.get(vote.choice, '?')} {vote.member.removeprefix('forums/')}  {escape(vote.comment)}")


def add_reading(app: click.Group, mandates: click.Group, program: str = "kad-node") -> None:  # noqa: C901, PLR0915 - one command after the other
    """Commands that every member has, the simpul too."""
    command, mandate = command_of(app, program), command_of(mandates, program)

    @command("federation", _("The federation: its mode, its rules, who has the chair."), "kad-node federation")
    @json_option
    @run
    async def federation(context: Context, as_json: bool) -> None:
        async with context.client() as kad:
            found = (await kad.membership.GetFederation(governance_pb2.GetFederationRequest(), timeout=_TIMEOUT)).federation
            members = (await kad.membership.ListMembers(governance_pb2.ListMembersRequest(), timeout=_TIMEOUT)).members
        if _say(found, as_json):
            return
        out.print(f"[bold]{_('mode')} {mode_name(found.mode)}[/]  {found.simpul}")
        if found.charter.version:
            out.print(_("charter version {n}, since {when}").format(n=found.charter.version, when=show.moment(found.charter_time)))
        else:
            out.print(_("no charter yet: the simpul admits whom it invites, decisions are by consensus"))
        out.print(_rules(found.charter, _full_members(members)))
        if found.chair:
            out.print(f"{_('chair')}: {found.chair.removeprefix('forums/')}")
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
            names = ", ".join(name.removeprefix("forums/") for name in item.endorsements)
            by = f" ({_('endorsed by')} {names})" if names else ""
            out.print(f"[bold]{item.name.removeprefix('forums/'):<20}[/] {category}, {state}{by}  [dim]{show.moment(item.time)}[/]")
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
        for item in found:
            until = show.moment(item.mandate.not_after)
            scope = _scope(item.mandate)
            out.print(f"[bold]{item.mandate.function}[/]{f' ({scope})' if scope else ''}")
            out.print(f"  {_state('mandate', item.state)}, {_('until')} {until}\n  [dim]{item.name}[/]")
        if not found:
            err.print(_("No mandates: every forum keeps all of its own."))

    @mandate("functions", _("What can be handed up: what the simpul may do then, and what it may not."), "kad-node mandate functions")
    @run
    async def functions(context: Context) -> None:
        del context
        for name, (may, may_not) in _functions().items():
            agreed = _("takes effect when enough members have given it (see `federation`)") if FUNCTIONS[name].collective else ""
            out.print(f"[bold]{name}[/]{f'  {agreed}' if agreed else ''}")
            out.print(f"  [green]✓[/] {may}\n  [red]✗[/] {may_not}")

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
            origins = [item.act.on_behalf_of] if item.act.on_behalf_of else item.act.statement.members
            whom = ", ".join(forum_of(origin) for origin in origins)
            reason = f" [red]{item.reason}[/]" if item.state == governance_pb2.PerformedAct.STATE_REFUSED else ""
            out.print(f"[bold]{item.name}[/]  {item.act.function}: {_state('act', item.state)}{reason}")
            out.print(f"  {show.moment(item.time)}: {_deed(item.act)} {_('in the name of')} {whom}")
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
    return ", ".join(parts)


def _decision_name(number: str) -> str:
    return f"decisions/{number.rpartition('/')[2].upper()}"


# Writing.


def add_writing(app: click.Group, mandates: click.Group) -> None:  # noqa: C901, PLR0915 - one command after the other
    """Commands with which a forum decides."""
    command, mandate = command_of(app), command_of(mandates)

    @mandate(
        "grant",
        _("Hand a function up to the simpul, for some time. It can be revoked at any moment."),
        "kad-node mandate functions",
        "kad-node mandate grant --function publish-on-behalf --kinds agenda-item --until 2027-12-31",
        "kad-node mandate grant --function represent --until 90d --veto-days 14",
    )
    @click.option(
        "--function",
        type=click.Choice(list(FUNCTIONS)),
        metavar="NAME",
        required=True,
        help=_("What is handed up: {names}.").format(names=", ".join(FUNCTIONS)),
    )
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
        asked.kinds.extend(vocabulary.find("RecordKind", kind).number for kind in listed(kinds))  # type: ignore[misc]
        asked.sectors.extend(sectors(topics))
        asked.regions.extend(listed(regions))
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
        if re.fullmatch(r"(acts/)?[0-9]{1,13}", name) is None:
            raise InvalidInputError(Reason.INVALID_FIELD, _("an act is called acts/NUMBER; `kad-node acts` shows them"), field="name")
        name = f"acts/{name.removeprefix('acts/')}"
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
            request.charter.CopyFrom(document.charter_from_document(_read(charter_file)))
        async with context.client() as kad:
            first = False
            if charter_file:
                await _name_seats(kad, request.charter)
                federation = (await kad.membership.GetFederation(governance_pb2.GetFederationRequest(), timeout=_TIMEOUT)).federation
                first = not federation.charter.version
            if suspend or reinstate:
                members = (await kad.membership.ListMembers(governance_pb2.ListMembersRequest(), timeout=_TIMEOUT)).members
                home, forum = parse_member_name(suspend or reinstate)
                member = next((m for m in members if m.name == local_name(forum, home)), None)
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
        if first:
            err.print(_("It is the first charter: it needs a yes of every full member. After that the charter itself says how many."))

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


def listed(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def sectors(text: str) -> list[content_pb2.Sector.ValueType]:
    """The government affairs that are meant by words with commas between them."""
    return [vocabulary.find("Sector", topic).number for topic in listed(text)]  # type: ignore[misc]


async def _name_seats(kad: Client, charter: entry_pb2.Charter) -> None:
    """Who holds an office may be named by its id; the charter names its feed."""
    if any("/" not in seat.feed for seat in charter.seats):
        members = (await kad.membership.ListMembers(governance_pb2.ListMembersRequest(), timeout=_TIMEOUT)).members
        feeds = {member.name.removeprefix("forums/"): member.feed for member in members}
        for seat in charter.seats:
            seat.feed = feeds.get(seat.feed, seat.feed)


def mandate_group(app: click.Group, program: str = "kad-node") -> click.Group:
    """``mandate``."""
    text = _("What forums hand up to the simpul.\n\n\b\nExample:\n  kad-node mandate list --live\n  kad-node mandate functions")
    group: click.Group = app.group("mandate", cls=Group, help=text.replace("kad-node", program))(lambda: None)
    return group
