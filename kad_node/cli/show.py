"""Records, forums and states as people read them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from rich.markup import escape
from rich.table import Table

from kad_node.cli.common import out
from kad_node.messages import _, language, ngettext
from kad_protocol import document, vocabulary
from kad_protocol.errors import Reason
from kad_protocol.names import FeedId
from kad_protocol.v1 import content_pb2, directory_pb2, node_pb2, records_pb2, transparency_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.timestamp_pb2 import Timestamp

__all__ = [
    "agenda_table",
    "alarm_sentence",
    "append_line",
    "evidence_line",
    "moment",
    "peer_line",
    "record_table",
    "show_record",
    "state_of",
]

_ZONE_NAMES = {"Asia/Jakarta": "WIB", "Asia/Pontianak": "WIB", "Asia/Makassar": "WITA", "Asia/Jayapura": "WIT"}
#: From here on a title, a state and a name fit in one line.
_WIDE_COLUMNS = 150
_DAYS = ("Senin", "Selasa", "Rabu", "Kamis", "Jumat", "Sabtu", "Minggu")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "Mei", "Jun", "Jul", "Agu", "Sep", "Okt", "Nov", "Des")


def moment(time: Timestamp, zone: str = "") -> str:
    """A time in its zone (this machine's, if none is given); of one that no calendar knows its bare seconds since 1970."""
    try:
        utc = time.ToDatetime(datetime.UTC)
        local = utc.astimezone(ZoneInfo(zone)) if zone else utc.astimezone()
    except (ValueError, OverflowError, KeyError, OSError):
        return _("{n} s after 1970").format(n=time.seconds)
    name = _ZONE_NAMES.get(zone, local.tzname() or "")
    if language() == "id":
        return f"{_DAYS[local.weekday()]}, {local.day} {_MONTHS[local.month - 1]} {local.year} {local:%H.%M} {name}".strip()
    return f"{local:%a %d %b %Y %H:%M} {name}".strip()


def state_of(record: records_pb2.Record) -> str:
    """Where a record stands, with its receipt."""
    if record.state == records_pb2.RECORD_STATE_PUBLISHED:
        if record.published_by:
            simpul = FeedId.parse(record.published_by).forum
            if record.act_final:
                return _("published by {simpul} in the forum's name").format(simpul=simpul)
            return _("published by {simpul} in the forum's name, not witnessed yet").format(simpul=simpul)
        if record.HasField("observation"):
            return _("published, received by the simpul")
        return _("published")
    if record.state == records_pb2.RECORD_STATE_QUEUED:
        return _("waiting to be signed")
    return vocabulary.label("RecordState", record.state, language()).lower()


def witnessing_line(state: node_pb2.Witnessing) -> str:
    """How far the members confirm the simpul: "confirmed by 12 of 15 forums, 3 s ago"."""
    if not state.size:
        return _("[yellow]the simpul is not confirmed yet[/]: {q} of {m} forums are needed").format(q=state.quorum, m=state.members)
    seconds = max(0, int(datetime.datetime.now(datetime.UTC).timestamp() - state.time.seconds))
    line = _("[green]✓[/] the simpul is confirmed by {n} of {m} forums, {age} ago").format(
        n=state.confirmed, m=state.members, age=_age(seconds)
    )
    behind = state.signed_size - state.size
    return line + (ngettext("; {n} newer entry waits", "; {n} newer entries wait", behind).format(n=behind) if behind > 0 else "")


def _age(seconds: int) -> str:
    for length, unit in ((86400, _("d")), (3600, _("h")), (60, _("min"))):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} {_('s')}"


def record_table(records: Sequence[records_pb2.Record]) -> None:
    """A list of records: a table where it fits, else two lines for each."""
    if out.width < _WIDE_COLUMNS:
        for record in records:
            kind = vocabulary.label("RecordKind", record.kind, language())
            out.print(f"[bold]{escape(record.content.title) or '-'}[/]")
            out.print(f"  {kind}, {state_of(record)}\n  [dim]{record.name}[/]")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (_("Forum"), _("Kind"), _("Title"), _("State"), _("Name")):
        table.add_column(title, no_wrap=title in (_("Forum"), _("Kind"), _("Name")), overflow="fold")
    for record in records:
        table.add_row(
            record.name.rpartition("/records/")[0].removeprefix("forums/"),
            vocabulary.label("RecordKind", record.kind, language()),
            escape(record.content.title) or "-",
            state_of(record),
            record.name,
        )
    out.print(table)


def agenda_table(records: Sequence[records_pb2.Record]) -> None:
    """Agenda items in the order of time."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (_("When"), _("Title"), _("Place"), _("Forum")):
        table.add_column(title, overflow="fold")
    for record in records:
        item = record.content.agenda_item
        title = escape(record.content.title)
        if item.status == content_pb2.AGENDA_STATUS_CANCELLED:
            title = f"[strike]{title}[/] ({vocabulary.label('AgendaStatus', item.status, language())})"
        table.add_row(
            moment(item.start_time, item.time_zone),
            title,
            escape(item.place),
            record.name.rpartition("/records/")[0].removeprefix("forums/"),
        )
    out.print(table)


def show_record(record: records_pb2.Record) -> None:
    """One record, whole, as the document that would publish it."""
    out.print(f"[bold]{escape(record.content.title or record.name)}[/]")
    out.print(f"{record.name}  {_('version')} {record.version}/{record.latest_version}")
    out.print(f"{state_of(record)}, {moment(record.update_time)}")
    if record.published_by and record.state == records_pb2.RECORD_STATE_PUBLISHED:
        out.print(_("The forum may object to that: kad-node veto acts/{index}").format(index=record.index))
    if record.HasField("index"):
        out.print(f"{_('entry')} {record.index} {_('of')} {record.feed}")
    if record.state == records_pb2.RECORD_STATE_WITHHELD:
        out.print(
            _("This record exists, and its entry verifies. What it says is for the members of its own federation, and does not come here.")
        )
    if record.retraction_reason:
        words = {"ACT_VETOED": _("the forum in whose name it was published has objected to it")}
        out.print(f"[yellow]{_('Retracted')}:[/] {escape(words.get(record.retraction_reason, record.retraction_reason))}")
    if record.HasField("content"):
        out.print()
        out.print(escape(document.dump(document.to_document(record.content, record.audience, language()))).rstrip())


def peer_line(peer: node_pb2.Peer) -> str:
    """One peer."""
    name = f"[bold]{peer.forum}[/]"
    if peer.state == node_pb2.PEER_STATE_CONNECTED:
        waiting = _("{n} entries to go").format(n=peer.behind) if peer.behind else _("in step")
        return f"[green]●[/] {name} {_('connected')}, {waiting}"
    if peer.state == node_pb2.PEER_STATE_WAITING and peer.last_error:
        retry = f", {_('next try')} {moment(peer.retry_time)}" if peer.HasField("retry_time") else ""
        return f"[red]●[/] {name} {_('away')}: {escape(peer.last_error[:160])}{retry}"
    return f"[yellow]●[/] {name} {_('not connected')}"


def alarm_sentence(alarm: node_pb2.Alarm, own: str) -> str:
    """What an alarm means and what to do, in one or two sentences; ``own`` is the origin of one's own feed."""
    sentences = {
        Reason.FORKED: _("two histories were signed; nothing more is taken of it. The proof is kept: kad-node evidence"),
        Reason.ROOT_MISMATCH: _(
            "another history of it was shown than is here, by itself or under keys that it gave up. Nothing of that is taken; ask the others what they hold."
        ),
        Reason.OBSERVATION_CONTRADICTED: _(
            "the simpul says something else of it than what its author signed; the simpul's acts are not believed from there on. The proof: kad-node evidence"
        ),
        Reason.OBSERVATION_LAGGING: _(
            "the simpul passes over what this forum signed, for longer than the charter allows. Exchange directly with it: kad-node peer"
        ),
        Reason.UNLAWFUL: _(
            "{n} times the simpul wrote what it may not (last: {why}); it has no effect. The proof: kad-node evidence"
        ).format(n=alarm.count, why=alarm.why),
        Reason.CONFIRMATION_OVERDUE: _(
            "too few members have confirmed what the simpul wrote lately. Are they offline, or does the simpul show each another face? Ask one directly."
        ),
        Reason.LOG_STALE: _("nothing new in its log for hours: it stands still, cannot be reached, or holds news back."),
        Reason.LOG_TIME_WRONG: _(
            "its time is ahead of this computer's clock; one of the two is wrong. Its acts wait until that is set right."
        ),
        Reason.EPOCH_SUPERSEDED: _("given up by its owner, who goes on with new keys."),
    }
    if alarm.feed == own:
        sentences |= {
            Reason.KEY_USED_ELSEWHERE: _(
                "entries were signed with this forum's key, and not by this home. If you restored a backup, say `kad-node keys accept`; if not, somebody else has the key: stop the node and run `kad-node recover`"
            ),
            Reason.FORKED: _(
                "this forum's key has signed two histories: a second copy of this home runs, or somebody has the key. Stop the node and run `kad-node recover`"
            ),
            Reason.EPOCH_SUPERSEDED: _(
                "this home's key epoch is over: its owner went on with new keys elsewhere, or `kad-node recover` was interrupted here and must be run again"
            ),
        }
    return sentences.get(alarm.reason, "")  # type: ignore[call-overload, no-any-return]


def append_line(state: node_pb2.GetStatusResponse) -> str:
    """May this node sign, and if not, what it waits for."""
    if state.append_state == node_pb2.APPEND_STATE_OPEN:
        return _("may sign")
    if state.append_state == node_pb2.APPEND_STATE_FORKED:
        return _("its feed has two histories; the operator must decide")
    claims = [
        (
            _("{forum} has shown {n} signed entries of this feed; they must come back first")
            if claim.proved
            else _("{forum} claims {n} entries of this feed without proof; waiting some minutes for them")
        ).format(forum=claim.forum, n=claim.size)
        for claim in state.head_claims
    ]
    return "; ".join([_("may not sign yet: waiting to hear its own head from the simpul or peers"), *claims])


def evidence_line(item: transparency_pb2.Evidence) -> str:
    """What a proof proves, in one sentence."""
    kinds = transparency_pb2.Evidence
    match item.kind:
        case kinds.KIND_FORK:
            return _("{feed} has signed two histories").format(feed=item.feed)
        case kinds.KIND_CONTRADICTION:
            return _("{feed} says something else of {about} than what its author signed").format(feed=item.feed, about=item.about)
        case kinds.KIND_UNLAWFUL:
            return _("{feed} wrote {n} times what it may not ({reasons})").format(
                feed=item.feed, n=len(item.findings), reasons=", ".join(sorted({finding.reason for finding in item.findings}))
            )
        case _:
            return _("{feed} passes over {about}, although others hold what it signed").format(feed=item.feed, about=item.about)


def forum_table(forums: Sequence[directory_pb2.Forum]) -> None:
    """Members and how much of them is here."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (_("Forum"), _("Name"), _("Membership"), _("Records"), _("Entries"), _("Observed")):
        table.add_column(title, justify="right" if title in (_("Records"), _("Entries"), _("Observed")) else "left")
    words = {1: _("active"), 2: _("suspended"), 3: _("left")}
    for forum in forums:
        name = forum.name.removeprefix("forums/")
        role = "simpul" if forum.role == 2 else words.get(forum.membership, "-")  # noqa: PLR2004 - MEMBER_ROLE_SIMPUL
        mark = f" [red]{forum.quarantine_reason}[/]" if forum.quarantine_reason else ""
        table.add_row(
            f"{name}{' *' if forum.self else ''}",
            escape(forum.profile.name),
            f"{role}{mark}",
            str(forum.record_count),
            str(forum.size),
            str(forum.observed_size or "-"),
        )
    out.print(table)
