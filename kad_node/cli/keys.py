"""The commands about keys: show and change them, and begin anew with the recovery code when they are lost or stolen."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import click
from cryptography import x509
from rich.markup import escape

from kad_node import config as configuration
from kad_node import recovery as recoveries
from kad_node.cli import setup, show
from kad_node.cli.common import Context, Group, as_json, command_of, err, json_option, out, print_json, run
from kad_node.config import NodeConfig
from kad_node.keyring import fingerprint
from kad_node.messages import _
from kad_node.recovery import Doubtful, Pending, Source
from kad_node.store.sqlite import SqliteStore
from kad_protocol import invitation
from kad_protocol.certificates import key_digest
from kad_protocol.channel import presented_authority
from kad_protocol.entry import log_keys_of, parse_entry
from kad_protocol.errors import InvalidInputError, KadError, PreconditionError, Reason
from kad_protocol.keys import RecoveryKeys
from kad_protocol.names import FeedId, check_forum
from kad_protocol.v1 import entry_pb2, node_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_node.enrolment import Standing
    from kad_node.home import Home

__all__ = ["add_keys", "add_recover"]

_TIMEOUT = 30
_DIGEST_BYTES = 32
#: Entries that would be void, in one list that a person reads.
_MOST_SHOWN = 200


def _grouped(digest: bytes) -> str:
    """A digest as people compare it."""
    text = digest.hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def _fingerprint(feed: str, keys: entry_pb2.KeySet) -> bytes:
    return fingerprint(log_keys_of(feed, keys.SerializeToString()))


def _as_json(keys: node_pb2.GetKeysResponse) -> dict[str, Any]:
    shown = as_json(keys)
    for field in ("log_keys", "witness_keys"):
        shown[field] = {"fingerprint": _fingerprint(keys.feed, getattr(keys, field)).hex()}
    return shown | {"epoch": keys.epoch, "authority_key_digest": keys.authority_key_digest.hex(), "rotation_queued": keys.rotation_queued}


def _show(keys: node_pb2.GetKeysResponse) -> None:
    out.print(f"[bold]{keys.feed}[/]  {_('key epoch')} {keys.epoch}")
    out.print(f"{_('log keys')}      {_grouped(_fingerprint(keys.feed, keys.log_keys)[:16])}")
    out.print(f"{_('witness keys')}  {_grouped(_fingerprint(keys.feed, keys.witness_keys)[:16])}")
    how = _("changed {n} times in this epoch").format(n=keys.rotations) if keys.rotations else _("the first of this epoch")
    out.print(f"{_('since')} {show.moment(keys.time)}, {_('entry')} {keys.index}; {how}")
    for feed in keys.former_feeds:
        out.print(f"{_('earlier epoch')}  {feed}")
    if keys.authority_key_digest:
        out.print(f"{_('fingerprint of the authority')}  {keys.authority_key_digest.hex()}")
    if keys.enrolment_address:
        out.print(f"{_('enrolment address')}  {keys.enrolment_address}")
    if keys.rotation_queued:
        out.print(f"[yellow]{_('A change of keys waits until this node may sign.')}[/]")
    for item in keys.foreign:
        what = _("entries {first} to {last} were not written here ({when})").format(
            first=item.first, last=item.first + item.count - 1, when=show.moment(item.time)
        )
        out.print(f"[red]! {what}[/]")


def add_keys(app: click.Group, program: str) -> None:
    """``keys show``, ``keys rotate``, ``keys accept``."""
    group: click.Group = app.group(
        "keys", cls=Group, help=_("The keys with which this member signs.\n\n\b\nExample:\n  {program} keys show").format(program=program)
    )(lambda: None)
    command = command_of(group)

    @command(
        "show",
        _("Which keys sign, since when, with their fingerprints; never a secret."),
        f"{program} keys show",
        f"{program} keys show --json",
    )
    @json_option
    @run
    async def keys_show(context: Context, as_json: bool) -> None:
        async with context.client() as kad:
            found = await kad.keys.GetKeys(node_pb2.GetKeysRequest(), timeout=_TIMEOUT)
        if as_json:
            print_json(_as_json(found))
        else:
            _show(found)

    @command(
        "rotate",
        _(
            "Change the keys: a new secret in this home, and an entry that the old and the new keys sign. Good once a year, and when people change."
        ),
        f"{program} keys rotate",
    )
    @json_option
    @run
    async def keys_rotate(context: Context, as_json: bool) -> None:
        async with context.client() as kad:
            found = (await kad.keys.RotateKeys(node_pb2.RotateKeysRequest(), timeout=_TIMEOUT)).keys
        if as_json:
            print_json(_as_json(found))
            return
        _show(found)
        if found.rotation_queued:
            err.print(
                _(
                    "The new secret is kept in this home; the change takes effect as soon as the node runs and reaches the simpul or its peers."
                )
            )
        else:
            err.print(
                _("New keys sign from here on. The new secret lies in {folder}: put it into your backup.").format(
                    folder=context.home.path / "keys"
                )
            )

    @command(
        "accept",
        _("Say that entries which this home did not write are its own: a backup was restored. The alarm ends."),
        f"{program} keys accept",
    )
    @click.option("--yes", is_flag=True, help=_("Do not ask."))
    @json_option
    @run
    async def keys_accept(context: Context, yes: bool, as_json: bool) -> None:
        async with context.client() as kad:
            found = await kad.keys.GetKeys(node_pb2.GetKeysRequest(), timeout=_TIMEOUT)
            if found.foreign and not as_json:
                _show(found)
            if found.foreign and not yes and not as_json:
                click.confirm(_("Was this home restored from a backup, and did this forum write these entries?"), abort=True)
            found = (await kad.keys.AcceptOwnEntries(node_pb2.AcceptOwnEntriesRequest(), timeout=_TIMEOUT)).keys
        if as_json:
            print_json(_as_json(found))


# Recovery.


def add_recover(app: click.Group) -> None:
    """``recover``."""
    command = command_of(app)

    @command(
        "recover",
        _(
            "Begin this forum's feed anew with its recovery code: after the machine was lost (in a fresh home), or its key was stolen (in the home itself, while the node is stopped)."
        ),
        "kad-node recover                                      # the key was stolen; this home goes on",
        "kad-node --home /srv/kad-baru recover --forum kartamantul --simpul simpul.example.go.id:7444",
        "kad-node recover --last-good 120                      # entries from 120 on are void",
    )
    @click.option("--forum", default="", help=_("Id of the forum; an existing home knows it."))
    @click.option(
        "--simpul",
        "where",
        default="",
        metavar="HOST:PORT",
        help=_("The simpul's enrolment address, or any of its invitations (it is not used up). An existing home knows it."),
    )
    @click.option(
        "--fingerprint",
        "pin",
        default="",
        metavar="HEX",
        help=_("Fingerprint of the simpul's authority, from its operator (`kad-simpul keys show`)."),
    )
    @click.option(
        "--code-file",
        type=click.File(encoding="utf-8"),
        help=_("A file with the recovery code (- for standard input); without it the code is asked for."),
    )
    @click.option(
        "--last-good", type=click.IntRange(1), default=None, metavar="N", help=_("The first N entries stay good; what follows is void.")
    )
    @click.option(
        "--listen", default="", metavar="HOST:PORT", help=_("For a fresh home: where other members can reach this node directly.")
    )
    @click.option("--yes", is_flag=True, help=_("Do not ask."))
    @json_option
    @run
    async def recover(
        context: Context,
        forum: str,
        where: str,
        pin: str,
        code_file: Any,  # noqa: ANN401 - a file
        last_good: int | None,
        listen: str,
        yes: bool,
        as_json: bool,
    ) -> None:
        if as_json and not yes:
            raise click.UsageError(_("With --json say --yes, too: nobody is asked."))
        home = context.home
        fresh = not home.config.exists()
        if fresh:
            home.prepare()
        else:
            home.require()
        with home.lock():
            pending = recoveries.load(home)
            if pending is not None:
                err.print(_("An earlier attempt was begun here (its recovery code has been shown then); it is finished now."))
            else:
                pending = await _begin(context, forum, where, pin, code_file, last_good, fresh=fresh, yes=yes, quiet=as_json)
            try:
                enrolled = await recoveries.send(home, pending)
            except KadError as error:
                if error.reason in (Reason.RECOVERY_INVALID, Reason.GENESIS_MISMATCH):
                    # What was signed does not fit what the simpul holds now; the next attempt signs anew.
                    recoveries.forget(home)
                raise
            await recoveries.finish(home, pending, enrolled)
            if fresh:
                _write_config(home, pending, enrolled.channel.exchange_address, enrolled.simpul_feed, enrolled.federation_name, listen)
            recoveries.forget(home)
        _report(context, pending, as_json=as_json)


async def _begin(
    context: Context,
    forum: str,
    where: str,
    pin: str,
    code_file: Any,  # noqa: ANN401 - a file
    last_good: int | None,
    *,
    fresh: bool,
    yes: bool,
    quiet: bool,
) -> Pending:
    """Ask for the code, show what becomes void, and make the new epoch."""
    home = context.home
    forum, source = await _source(context, forum, where, pin, fresh=fresh, yes=yes)
    try:
        code = code_file.read(1000) if code_file is not None else click.prompt(_("Recovery code of {forum}").format(forum=forum), err=True)
    except UnicodeDecodeError as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"{code_file.name} holds no recovery code: it is not text") from error
    recovery = RecoveryKeys.from_code(code.strip())
    store = None if fresh else await SqliteStore.open(home.store)
    try:
        standing, proposed, forked = await recoveries.compare(source, forum, recovery, store)
        good = last_good or proposed
        if good > standing.observed_size:
            raise PreconditionError(
                Reason.RECOVERY_INVALID,
                f"the simpul has observed {standing.observed_size} entries; no more can stay good",
                feed=standing.feed,
            )
        standing, doubtful = await recoveries.void_entries(source, forum, recovery, good, store)
    finally:
        if store is not None:
            await store.close()
    if not quiet:
        _show_plan(standing, doubtful)
    if not yes:
        click.confirm(_("Begin a new epoch? This cannot be undone."), abort=True)
    # What only this machine holds of the old epoch nobody will ever take: its copy is fetched anew, too.
    apart = forked or any(item.only_here for item in doubtful)
    return await asyncio.to_thread(lambda: recoveries.begin(home, source, standing, recovery, setup.show_recovery, forked=apart))


async def _source(context: Context, forum: str, where: str, pin: str, *, fresh: bool, yes: bool) -> tuple[str, Source]:
    """Which forum, and the simpul that is believed about it."""
    home = context.home
    if not fresh:
        config = context.config()
        link = config.simpul if isinstance(config, NodeConfig) else None
        if link is None:
            raise PreconditionError(Reason.NOT_A_MEMBER, "this home belongs to no simpul; only a simpul can say that a feed begins anew")
        authority = x509.load_pem_x509_certificate(home.read("channel/authority.pem"))
        return config.forum, Source(link.enrolment_address, key_digest(authority))
    digest = bytes.fromhex(pin) if re.fullmatch(rf"[0-9a-fA-F]{{{_DIGEST_BYTES * 2}}}", pin) else b""
    if pin and not digest:
        raise click.UsageError(_("--fingerprint has 64 hexadecimal digits."))
    if where.startswith("kad1-"):
        code = invitation.decode(where)
        return forum or code.forum, Source(code.enrolment_address, code.authority_key_digest)
    if not where or not forum:
        raise click.UsageError(_("A fresh home needs --forum and --simpul."))
    check_forum(forum)
    if not digest:
        _pem, digest = await presented_authority(where)
        err.print(
            _("The authority at {address} has this fingerprint; compare it with what the simpul's operator says:").format(address=where)
        )
        err.print(f"  {digest.hex()}")
        if yes:
            raise click.UsageError(_("With --yes say --fingerprint, too: nobody compares it."))
        click.confirm(_("Is it the same?"), abort=True)
    return forum, Source(where, digest)


def _show_plan(standing: Standing, doubtful: list[Doubtful]) -> None:
    out.print(f"[bold]{standing.feed}[/]  {_('{n} entries observed by the simpul').format(n=standing.observed_size)}")
    out.print(
        _("Its first {n} entries stay good; the feed goes on as epoch {epoch}, with new keys.").format(
            n=standing.last_good_size, epoch=standing.feed.epoch + 1
        )
    )
    if not doubtful:
        out.print(_("Nothing becomes void."))
        return
    out.print(f"[red]{_('These entries become void, for everybody and for good:')}[/]")
    # Lines, not a table: ids must stay whole on a narrow terminal.
    for item in doubtful[:_MOST_SHOWN]:
        entry = parse_entry(item.body)
        when = show.moment(entry.time) if entry is not None else "-"
        here = f", {_('only on this machine')}" if item.only_here else ""
        out.print(f"  {_('entry')} {item.index}  {when}{here}")
        out.print(f"    {escape(describe(entry))}")
    if len(doubtful) > _MOST_SHOWN:
        out.print(_("... and {n} more.").format(n=len(doubtful) - _MOST_SHOWN))


def describe(entry: entry_pb2.Entry | None) -> str:
    """An entry in a few words."""
    body = entry.WhichOneof("body") if entry is not None else None
    if entry is None or body is None:
        return _("something unknown")
    words: dict[str, Callable[[], str]] = {
        "record_version": lambda: _("record {record}, version {version}").format(
            record=entry.record_version.record, version=entry.record_version.version
        ),
        "record_retraction": lambda: _("retraction of record {record}").format(record=entry.record_retraction.record),
        "profile_version": lambda: _("profile"),
        "key_rotation": lambda: _("change of keys"),
        "mandate": lambda: _("mandate {id} ({function})").format(id=entry.mandate.id, function=entry.mandate.function),
        "mandate_revocation": lambda: _("revocation of mandate {id}").format(id=entry.mandate_revocation.mandate),
        "veto": lambda: _("veto against act {index}").format(index=entry.veto.index),
        "endorsement": lambda: _("endorsement of {feed}").format(feed=entry.endorsement.feed),
        "proposal": lambda: _("proposal {id}").format(id=entry.proposal.id),
        "vote": lambda: _("vote on {id}").format(id=entry.vote.proposal),
        "departure": lambda: _("departure from the federation"),
    }
    return words[body]() if body in words else body


def _write_config(home: Home, pending: Pending, address: str, simpul: FeedId, name: str, listen: str) -> None:
    values: dict[str, Any] = {
        "forum": pending.feed.forum,
        "federation": pending.feed.federation,
        "api_listen": f"127.0.0.1:{setup.free_port(7450)}",
        "simpul": {"feed": simpul.origin, "address": address, "enrolment_address": pending.address, "federation_name": name},
    }
    if listen:
        values["listen"] = listen
    NodeConfig.model_validate(values)
    configuration.write_initial(NodeConfig, home.config, values, setup.header())


def _report(context: Context, pending: Pending, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "forum": pending.feed.forum,
                "feed": pending.feed.origin,
                "former_feed": pending.former,
                "last_good_size": pending.last_good_size,
                "home": str(context.home.path),
            }
        )
        return
    out.print(
        _("[green]{forum} goes on as {feed}.[/] What its old keys sign from now on is worth nothing.").format(
            forum=pending.feed.forum, feed=pending.feed.origin
        )
    )
    out.print(_("Now: `kad-node run`. The old recovery code is used up; the new one was shown above."))
