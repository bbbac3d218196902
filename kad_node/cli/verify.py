"""``kad verify``: what a file proves, on a machine that has never seen the federation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp
from rich.markup import escape

from kad_node import dossier
from kad_node.bundle import MAGIC, read_frames
from kad_node.cli import show
from kad_node.cli.common import out, print_json, time_as_json
from kad_node.messages import _
from kad_node.store.memory import MemoryLog
from kad_protocol import evidence, feed, merkle, note
from kad_protocol.errors import InvalidInputError, Reason, VerificationError
from kad_protocol.names import FeedId
from kad_protocol.proof import HEADER, verify_record
from kad_protocol.tlog_policy import Policy, check_line

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["verify"]


@dataclass(slots=True)
class _Found:
    """What a file proves."""

    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def verify(path: Path, keys: tuple[str, ...], policy: str | None, *, as_json: bool) -> None:
    """Check a file and say what it proves.

    Args:
        path: the file.
        keys: for a checkpoint, keys that must have signed it.
        policy: for a proof or a checkpoint, the text of a C2SP tlog-policy: whom to believe.
        as_json: print JSON.

    Raises:
        KadError: it proves nothing; the error says why.
    """
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        if head == MAGIC:
            found = _bundle(file)
        else:
            data = head + file.read(dossier.MAX_DOSSIER_BYTES)
            if data.startswith(HEADER.encode()):
                found = _record(data, policy)
            elif data.lstrip().startswith(b"{"):
                found = _evidence(data)
            else:
                found = _checkpoint(data, keys, policy)
    if as_json:
        print_json({"kind": found.kind, "verified": True, **found.facts})
        return
    for line in found.lines:
        out.print(line)


def _bundle(file: Any) -> _Found:  # noqa: ANN401 - a binary file
    """Rebuild each feed in memory, from its genesis on."""
    log = MemoryLog()
    targets: dict[str, bytes] = {}
    for frame in read_frames(file):
        for batch in frame.batches:
            name = FeedId.parse(batch.feed)
            targets[batch.feed] = batch.checkpoint or targets.get(batch.feed, b"")
            if batch.after == 0 and batch.entries:
                feed.pin(log, name, merkle.leaf_hash(batch.entries[0]))
            feed.extend(log, batch, targets[batch.feed])
    found = _Found("bundle", {"feeds": []})
    for state in log.feeds():
        found.facts["feeds"].append(
            {"feed": state.feed.origin, "size": state.size, "root": state.root.hex(), "genesis": state.genesis.hex()}
        )
        found.lines.append(_("[green]✓[/] {feed}: {n} entries, signed by its author").format(feed=escape(state.feed.origin), n=state.size))
        found.lines.append(
            _("    genesis {hash} (compare it with what the simpul or the forum itself says)").format(hash=state.genesis.hex())
        )
    if not found.lines:
        raise InvalidInputError(Reason.INVALID_FILE, "there is nothing in the file")
    return found


def _evidence(data: bytes) -> _Found:
    if evidence.kind_of(data) in ("unlawful", "omission"):
        judged = dossier.verify(data)
        return _unlawful(judged) if isinstance(judged, dossier.Unlawful) else _omission(judged)
    found = evidence.verify(data)
    return _fork(found) if isinstance(found, evidence.Fork) else _contradiction(found)


def _proved() -> str:
    return _("This is proved; it does not depend on who made the file.")


def _fork(fork: evidence.Fork) -> _Found:
    facts = {
        "feed": fork.feed.origin,
        "sizes": list(fork.sizes),
        "roots": [root.hex() for root in fork.roots],
        "genesis": merkle.leaf_hash(fork.genesis).hex(),
    }
    lines = [
        _("[red]{feed} has signed two histories.[/]").format(feed=escape(fork.feed.origin)) + f" {_proved()}",
        *(f"    {size}  {root.hex()}" for size, root in zip(fork.sizes, fork.roots, strict=True)),
        _("    genesis {hash}").format(hash=facts["genesis"]),
    ]
    return _Found("fork", facts, lines)


def _contradiction(found: evidence.Contradiction) -> _Found:
    facts = {
        "feed": found.simpul.origin,
        "genesis": merkle.leaf_hash(found.simpul_genesis).hex(),
        "about": found.member.origin,
        "about_genesis": merkle.leaf_hash(found.member_genesis).hex(),
        "index": found.index,
        "size": found.size,
        "observed_root": found.observed_root.hex(),
        "signed_root": found.signed_root.hex(),
    }
    lines = [
        _("[red]{simpul} says at entry {index} something else of {member} than what its author signed.[/]").format(
            simpul=escape(found.simpul.origin), index=found.index, member=escape(found.member.origin)
        )
        + f" {_proved()}",
        _("    one of the two has two histories; with {size} entries:").format(size=found.size),
        _("    the simpul  {root}").format(root=facts["observed_root"]),
        _("    the author  {root}").format(root=facts["signed_root"]),
        _("    genesis of the simpul {hash}").format(hash=facts["genesis"]),
    ]
    return _Found("contradiction", facts, lines)


def _unlawful(found: dossier.Unlawful) -> _Found:
    facts = {
        "feed": found.simpul.origin,
        "genesis": merkle.leaf_hash(found.simpul_genesis).hex(),
        "size": found.size,
        "findings": [{"index": index, "entry": kind, "reason": reason.value} for index, kind, reason in found.findings],
    }
    lines = [
        _("[red]{simpul} has signed what it may not write; it has no effect.[/]").format(simpul=escape(found.simpul.origin))
        + f" {_proved()}",
        *(_("    entry {index}: {kind}, {reason}").format(index=index, kind=kind, reason=reason) for index, kind, reason in found.findings),
        _("    genesis {hash}").format(hash=facts["genesis"]),
    ]
    return _Found("unlawful", facts, lines)


def _omission(found: dossier.Omission) -> _Found:
    until = Timestamp(seconds=found.until)
    facts = {
        "feed": found.simpul.origin,
        "genesis": merkle.leaf_hash(found.simpul_genesis).hex(),
        "about": found.member.origin,
        "signed": found.signed,
        "observed": found.observed,
        "until": time_as_json(until),
        "lag_seconds": found.lag_seconds,
        "holders": dict(sorted(found.holders.items())),
    }
    lines = [
        _("[red]{simpul} passes over {member}.[/]").format(simpul=escape(found.simpul.origin), member=escape(found.member.origin))
        + f" {_proved()}",
        _("    {signed} entries are signed, {observed} of them observed until {time}; {lag} seconds are allowed").format(
            signed=found.signed, observed=found.observed, time=show.moment(until), lag=found.lag_seconds
        ),
        _("    held all the while by {k} of {n} other members: {names}").format(
            k=len(found.holders), n=found.members, names=", ".join(sorted(found.holders))
        ),
        _("    genesis {hash}").format(hash=facts["genesis"]),
    ]
    return _Found("omission", facts, lines)


def _record(data: bytes, policy: str | None) -> _Found:
    proved = verify_record(data, Policy.parse(policy) if policy is not None else None)
    observed = Timestamp(seconds=proved.observed // 1_000_000, nanos=proved.observed % 1_000_000 * 1000)
    facts = {
        "name": str(proved.name),
        "title": proved.content.title if proved.content is not None else None,
        "author": proved.author.origin,
        "genesis": proved.genesis.hex(),
        "version": proved.version,
        "newest_version": proved.newest,
        "retracted": proved.retracted,
        "first_observed": time_as_json(observed),
        "simpul": proved.simpul.origin,
        "size": proved.checkpoint.size,
        "root": proved.checkpoint.root.hex(),
        "witnesses": sorted(proved.witnesses),
        "policy_from_file": proved.own_policy,
    }
    title = f" “{proved.content.title}”" if proved.content is not None else ""
    lines = [
        _("[green]✓[/] {name}{title}, version {version}").format(name=proved.name, title=escape(title), version=proved.version),
        _("    written by {author}, genesis {hash}").format(author=escape(proved.author.origin), hash=proved.genesis.hex()),
        _("    first observed by {simpul} at entry {index}, {time}").format(
            simpul=escape(proved.simpul.origin), index=proved.observed_index, time=show.moment(observed)
        ),
        _("    confirmed by {n} forums: {names}").format(
            n=len(proved.witnesses), names=", ".join(escape(name.split("/")[-2]) for name in sorted(proved.witnesses))
        ),
    ]
    if proved.retracted:
        lines.append(_("[yellow]    withdrawn by its author since[/]"))
    elif proved.newest > proved.version:
        lines.append(_("[yellow]    revised since: version {n}[/]").format(n=proved.newest))
    else:
        lines.append(_("    not revised or withdrawn in the first {n} entries of its author").format(n=proved.feed_size))
    if proved.own_policy:
        lines.append(_("[yellow]    The keys are those that the file names; give --policy with a policy from somebody you trust.[/]"))
    return _Found("record", facts, lines)


def _checkpoint(data: bytes, keys: tuple[str, ...], policy: str | None) -> _Found:
    parsed = note.Note.parse(data)
    checkpoint = note.Checkpoint.parse(parsed.text)
    if not keys and policy is None:
        raise InvalidInputError(Reason.INVALID_FIELD, "a checkpoint needs --key or --policy: whose signature do you expect?", field="key")
    if policy is not None:
        Policy.parse(policy).check(data)
    for text in keys:
        key = note.VerifierKey.parse(text)
        lines = [line for line in parsed.signatures if (line.name, line.key_id) == (key.name, key.key_id)]
        if not lines:
            raise VerificationError(Reason.SIGNATURE_MISSING, f"{key.name} has not signed with this key")
        for line in lines:
            check_line(key, line, checkpoint)
    facts = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(), "keys": len(keys)}
    text = _("[green]✓[/] {origin}: {n} entries, root {root}").format(
        origin=escape(checkpoint.origin), n=checkpoint.size, root=checkpoint.root.hex()
    )
    return _Found("checkpoint", facts, [text])
