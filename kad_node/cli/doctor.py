"""``doctor``: examines a home, names what is wrong and how to mend it."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape

from kad_node.cli import show
from kad_node.cli.common import out, print_json
from kad_node.home import passphrase
from kad_node.messages import _
from kad_node.store.sqlite import SqliteStore
from kad_node.vigil import alarms
from kad_protocol import merkle
from kad_protocol.certificates import expiry
from kad_protocol.errors import KadError, Reason
from kad_protocol.keys import unseal
from kad_protocol.names import FeedId
from kad_protocol.v1 import node_pb2

if TYPE_CHECKING:
    from kad_node.cli.common import Context
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["Finding", "examine", "report"]

_SKEW_WARN_MS = 60_000
_MIN_FREE_BYTES = 200 << 20
_SLOW_SYNC_SECONDS = 0.25
#: Alarms that being offline for long, or a mended machine, explains as well.
_MAY_PASS = frozenset({Reason.LOG_STALE, Reason.CONFIRMATION_OVERDUE, Reason.OBSERVATION_LAGGING, Reason.EPOCH_SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: ``state`` is ok, warn or fail; ``mend`` says what to do."""

    check: str
    state: str
    message: str
    mend: str = ""


async def examine(context: Context, *, deep: bool) -> list[Finding]:
    """All checks, one after the other; a failing one does not hide the others."""
    context.home.require()
    findings = [_configuration(context), _keys(context), *_disk(context), _certificate(context)]
    running = context.home.locked()
    if running:
        findings.extend(await _daemon(context))
    else:
        findings.append(Finding(_("daemon"), "warn", _("not running"), _("start it: kad-{role} run").format(role=context.home.role)))
    findings.extend(await _store(context, deep=deep, running=running))
    return findings


def _configuration(context: Context) -> Finding:
    try:
        context.config()
    except KadError as error:
        return Finding(_("configuration"), "fail", str(error), _("correct {file}").format(file=context.home.config))
    return Finding(_("configuration"), "ok", str(context.home.config))


def _keys(context: Context) -> Finding:
    files = sorted((context.home.path / "keys").glob("*.key"))
    if not files:
        return Finding(_("keys"), "fail", _("there is no key file"), _("restore keys/ from a backup, or use the recovery code"))
    for path in files:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            return Finding(_("keys"), "fail", _("others can read the key file (mode {mode:o})").format(mode=mode), f"chmod 600 {path}")
        try:
            unseal(path.read_bytes(), passphrase(os.environ))
        except KadError as error:
            return Finding(_("keys"), "fail", f"{path.name}: {error}", _("set KAD_PASSPHRASE, or restore keys/ from a backup"))
    return Finding(_("keys"), "ok", _("the key file opens"))


def _disk(context: Context) -> list[Finding]:
    free = shutil.disk_usage(context.home.path).free
    findings = [
        Finding(_("disk"), "ok", _("{n} MB free").format(n=free >> 20))
        if free >= _MIN_FREE_BYTES
        else Finding(
            _("disk"),
            "fail",
            _("only {n} MB free").format(n=free >> 20),
            _("free some space; the node refuses to write when the disk is full"),
        )
    ]
    probe = context.home.path / ".doctor"
    try:
        started = time.perf_counter()
        with probe.open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
        probe.unlink()
    except OSError as error:
        findings.append(
            Finding(_("writing"), "fail", str(error), _("make {home} writable for the user of the daemon").format(home=context.home.path))
        )
    else:
        slow = seconds > _SLOW_SYNC_SECONDS
        findings.append(
            Finding(
                _("writing"),
                "warn" if slow else "ok",
                _("a durable write takes {ms:.1f} ms").format(ms=seconds * 1000),
                _("the disk is slow or busy") if slow else "",
            )
        )
    return findings


def _certificate(context: Context) -> Finding:
    try:
        end = expiry(context.home.channel()[1])
    except (KadError, ValueError) as error:
        return Finding(_("certificate"), "fail", str(error), _("run the daemon while the simpul can be reached; it gets a new one"))
    left = end - datetime.datetime.now(datetime.UTC)
    if left < datetime.timedelta(0):
        return Finding(
            _("certificate"),
            "warn",
            _("ended {when}").format(when=end),
            _("run the daemon while the simpul can be reached; it renews by itself for 30 days after the end"),
        )
    return Finding(_("certificate"), "ok", _("valid until {when}").format(when=end))


async def _daemon(context: Context) -> list[Finding]:
    try:
        async with context.client() as kad:
            state = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=10)
    except KadError as error:
        return [Finding(_("daemon"), "fail", str(error), _("it holds the home but does not answer; stop and start it"))]
    except Exception as error:  # noqa: BLE001 - whatever it is, the daemon did not answer
        return [Finding(_("daemon"), "fail", str(error)[:200], _("it holds the home but does not answer; stop and start it"))]
    findings = [Finding(_("daemon"), "ok", _("answers at {address}").format(address=context.home.running().get("api", "")))]
    if state.append_state != node_pb2.APPEND_STATE_OPEN:
        forked = state.append_state == node_pb2.APPEND_STATE_FORKED
        mend = (
            _("do not write; ask the others which history they hold: kad-node evidence")
            if forked
            else _("let it reach the simpul or peers")
        )
        findings.append(Finding(_("signing"), "fail" if forked else "warn", show.append_line(state), mend))
    for peer in state.peers:
        if peer.state == node_pb2.PEER_STATE_CONNECTED:
            skewed = abs(peer.clock_skew_ms) > _SKEW_WARN_MS
            text = _("connected") if not skewed else _("connected, but its clock differs by {s} s").format(s=peer.clock_skew_ms // 1000)
            findings.append(
                Finding(
                    peer.forum,
                    "warn" if skewed else "ok",
                    text,
                    _("set the clock of this machine (timedatectl set-ntp true)") if skewed else "",
                )
            )
        elif peer.address:
            findings.append(
                Finding(
                    peer.forum,
                    "warn",
                    peer.last_error or _("not connected"),
                    _("is {address} right, and can this machine reach it?").format(address=peer.address),
                )
            )
    findings.extend(
        Finding(_("problems"), "warn", f"{count.reason}: {count.count}", _("see `status`; nothing is lost")) for count in state.problems
    )
    return findings


async def _store(context: Context, *, deep: bool, running: bool) -> list[Finding]:
    """The database itself; beside a running daemon it is only read."""
    try:
        store = await SqliteStore.open(context.home.store)
    except KadError as error:
        return [
            Finding(_("database"), "fail", str(error), _("restore the home from a backup; the feeds come back from the simpul and peers"))
        ]
    try:
        wrong = await store.read(lambda tx: tx.check())
        alarmed = await _alarms(context, store)
        findings = [
            Finding(
                _("database"), "fail", "; ".join(wrong)[:300], _("restore from a backup; the feeds come back from the simpul and peers")
            )
            if wrong
            else Finding(_("database"), "ok", _("whole")),
            *alarmed,
        ]
        if deep:
            findings.extend(await store.read(_rehash))
    finally:
        await store.close()
    del running
    return findings


async def _alarms(context: Context, store: SqliteStore) -> list[Finding]:
    """What somebody does that they must not do, whether the daemon runs or not."""
    try:
        config = context.config()
    except KadError:
        # Said already.
        return []
    own = FeedId(config.federation, config.forum)
    mend = _("ask the other members, by another way than the simpul; the proofs: kad-node evidence")
    found = await store.read(lambda tx: alarms(tx, own))
    return [
        Finding(
            alarm.feed, "warn" if alarm.reason in _MAY_PASS else "fail", f"{alarm.reason}: {show.alarm_sentence(alarm, own.origin)}", mend
        )
        for alarm in found
    ]


def _rehash(tx: SqliteTransaction) -> list[Finding]:
    """Read every entry and compare the tree over it with the one that was signed."""
    findings = []
    for state in tx.feeds():
        frontier = merkle.Frontier()
        try:
            while frontier.size < state.size:
                stored = tx.entries(state.feed, frontier.size, 1000, 16 << 20)
                if not stored:
                    break
                frontier.append(merkle.leaf_hash(entry.body) for entry in stored)
            broken = frontier.size != state.size or frontier.root() != state.root
        except KadError:
            broken = True
        if broken:
            findings.append(
                Finding(
                    state.feed.origin,
                    "fail",
                    _("the entries on this disk are not those that were signed"),
                    _("restore from a backup, or join again with a fresh home"),
                )
            )
        else:
            findings.append(Finding(state.feed.origin, "ok", _("{n} entries give the signed root").format(n=state.size)))
    return findings


def report(findings: list[Finding], *, as_json: bool) -> None:
    """Show the findings; ends with status 1 if something failed."""
    if as_json:
        print_json([{"check": f.check, "state": f.state, "message": f.message, "mend": f.mend} for f in findings])
    else:
        for finding in findings:
            mark = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}[finding.state]
            out.print(f"{mark} {finding.check}: {escape(finding.message)}")
            if finding.mend:
                out.print(f"    → {escape(finding.mend)}")
    if any(finding.state == "fail" for finding in findings):
        sys.exit(1)
