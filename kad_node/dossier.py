"""Dossiers: proofs of misbehaviour that only the feeds themselves can give.

That an act had no mandate, that a forum was not endorsed, that a member was passed over: what is *missing* is proved by all that is there.
So a dossier holds the simpul's log and the feeds that it observes, as they were signed, without their contents; whoever checks it builds
them up again from nothing, judges them by the same rules as every node (``kad_protocol.order``), and sees the same.

The file is JSON of type ``kad.evidence.v1``: ``kind`` is ``unlawful`` (``findings``: which entries of the simpul's log have no effect,
and why) or ``omission`` (``about``: whose feed; ``note``: its signed checkpoint with cosignatures of members that hold it);
``frames`` is the exchange's own frames, each behind its length, compressed (zlib) and in base64.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import sqlite3
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_node.bundle import read_frames, write_frame
from kad_node.store.sqlite import scratch
from kad_protocol import feed as feeds
from kad_protocol import merkle, order
from kad_protocol.entry import parse_entry
from kad_protocol.errors import InvalidInputError, KadError, NotFoundError, Reason, VerificationError
from kad_protocol.evidence import TYPE
from kad_protocol.governance import UNLAWFUL, Governance
from kad_protocol.names import FeedId
from kad_protocol.note import Note, verify_cosignatures
from kad_protocol.v1 import replication_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kad_node.store.transaction import SqliteTransaction

__all__ = ["MAX_DOSSIER_BYTES", "Omission", "Unlawful", "held_note", "omission", "unlawful", "verify"]

#: Of the file; a federation that needs more is shown by an export, judged by whoever imports it.
MAX_DOSSIER_BYTES = 256 << 20
#: Of the frames, unpacked.
_MAX_UNPACKED = 1 << 30
_MAX_FINDINGS = 1000
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Unlawful:
    """Entries of a simpul's log that have no effect, by the feeds in the file."""

    simpul: FeedId
    simpul_genesis: bytes
    #: How many entries of its log were judged.
    size: int
    #: Index, what it was, and why it has no effect.
    findings: tuple[tuple[int, str, Reason], ...]


@dataclass(frozen=True, slots=True)
class Omission:
    """A member whom the simpul passes over, by the feeds in the file. Times in seconds since 1970 (UTC)."""

    simpul: FeedId
    simpul_genesis: bytes
    size: int
    #: The time that the simpul's log has reached.
    until: int
    member: FeedId
    #: Entries that the member has signed, and how many of them the simpul's log observes.
    signed: int
    observed: int
    lag_seconds: int
    #: Other full members that held them longer before than the charter allows, and since when.
    holders: dict[str, int]
    members: int


# Making.


def unlawful(tx: SqliteTransaction, simpul: FeedId, findings: Sequence[tuple[int, Reason]]) -> bytes:
    """The dossier of entries of a simpul's log that have no effect."""
    listed = [{"index": index, "reason": reason.value} for index, reason in findings[:_MAX_FINDINGS]]
    return _write(tx, simpul, {index for index, _ in findings}, kind="unlawful", findings=listed)


def omission(tx: SqliteTransaction, simpul: FeedId, member: FeedId, note: bytes) -> bytes:
    """The dossier of a member whom the simpul passes over; ``note`` carries the cosignatures of those who hold what it signed."""
    return _write(tx, simpul, set(), kind="omission", about=member.origin, note=note.decode())


def _write(tx: SqliteTransaction, simpul: FeedId, with_contents: set[int], **fields: Any) -> bytes:  # noqa: ANN401 - what JSON takes
    packed = io.BytesIO()
    for batch in _batches(tx, simpul, with_contents):
        write_frame(packed, replication_pb2.Frame(batches=[batch]))
    frames = base64.b64encode(zlib.compress(packed.getvalue(), 6)).decode()
    return json.dumps({"type": TYPE, **fields, "feed": simpul.origin, "frames": frames}, indent=1, ensure_ascii=False).encode()


def _batches(tx: SqliteTransaction, simpul: FeedId, with_contents: set[int]) -> Iterator[replication_pb2.Batch]:
    """The simpul's log, and every feed that it ever named, without the contents that judging does not need."""
    members = Governance(tx.affairs(simpul), simpul).members()
    named = {FeedId.parse(origin) for member in members for origin in (member.feed, *(former.feed for former in member.former))}
    for feed in [simpul, *sorted(named)]:
        if tx.feed(feed) is None:
            continue
        after = 0
        while (batch := feeds.read_batch(tx, feed, after, max_entries=_CHUNK)) is not None:
            for offset in range(len(batch.contents)):
                if feed != simpul or after + offset not in with_contents:
                    batch.contents[offset] = b""
            yield batch
            after += len(batch.entries)


# Checking.


def verify(data: bytes) -> Unlawful | Omission:
    """Judge a dossier anew, from nothing; returns what it proves.

    Takes some seconds for each hundred thousand entries: not for the event loop.

    Raises:
        InvalidInputError: ``INVALID_FILE``, this is no dossier.
        VerificationError: the feeds in it do not verify, or do not say what the file claims.
    """
    document = _read(data)
    try:
        simpul = FeedId.parse(document["feed"])
        frames = _unpack(base64.b64decode(document["frames"], validate=True))
        kind = document["kind"]
        claims = [(int(f["index"]), str(f["reason"])) for f in document["findings"]] if kind == "unlawful" else []
        about = FeedId.parse(document["about"]) if kind == "omission" else simpul
        note = str(document["note"]).encode() if kind == "omission" else b""
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, binascii.Error, zlib.error, KadError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"the dossier is incomplete: {str(error)[:200]}") from error
    with scratch(simpul.federation) as tx:
        try:
            _build(tx, simpul, list(read_frames(io.BytesIO(frames))))
        except (sqlite3.Error, ValueError) as error:
            raise VerificationError(Reason.PROOF_INVALID, f"the feeds in the dossier cannot be judged: {str(error)[:200]}") from error
        if kind == "omission":
            return _omission(tx, simpul, about, note)
        return _unlawful(tx, simpul, claims)


def _build(tx: SqliteTransaction, simpul: FeedId, frames: Iterable[replication_pb2.Frame]) -> None:
    """Extend every feed as far as the file goes. A member's feed is accepted once the simpul's log, judged, has named it."""
    waiting: dict[FeedId, list[replication_pb2.Batch]] = {}
    for frame in frames:
        for batch in frame.batches:
            waiting.setdefault(FeedId.parse(batch.feed), []).append(batch)
    first = waiting.get(simpul, [])
    if not first or first[0].after or not first[0].entries:
        raise InvalidInputError(Reason.INVALID_FILE, "the simpul's log is missing")
    feeds.pin(tx, simpul, merkle.leaf_hash(first[0].entries[0]))
    moved = True
    while moved:
        moved = False
        for feed in [feed for feed in sorted(waiting) if tx.feed(feed) is not None]:
            target = b""
            for batch in waiting.pop(feed):
                target = batch.checkpoint or target
                state = tx.feed(feed)
                if state is None or not state.quarantine:
                    feeds.extend(tx, batch, target)
            moved = True
        while order.advance(tx, _CHUNK) >= _CHUNK:
            pass


def _judged(tx: SqliteTransaction, simpul: FeedId) -> Governance:
    state, governance = tx.feed(simpul), Governance(tx.affairs(simpul), simpul)
    if state is None or governance.head.position != state.size:
        where = f"{governance.head.waiting_reason} {governance.head.waiting_for}"
        raise VerificationError(Reason.PROOF_INVALID, f"the log of {simpul} can be judged to {governance.head.position} only: {where}")
    return governance


def _unlawful(tx: SqliteTransaction, simpul: FeedId, claims: Sequence[tuple[int, str]]) -> Unlawful:
    state = tx.feed(simpul)
    if state is None or not claims or len(claims) > _MAX_FINDINGS:
        raise InvalidInputError(Reason.INVALID_FILE, "the dossier claims nothing")
    position = Governance(tx.affairs(simpul), simpul).head.position
    findings = []
    for index, reason in claims:
        problem = tx.problem(simpul, index) if 0 <= index < position else None
        if problem is None or problem.waiting or problem.reason != reason or problem.reason not in UNLAWFUL:
            said = "lawful" if problem is None else problem.reason.value
            message = f"entry {index} of {simpul} is {said} by the feeds in the dossier, not {reason[:60]}"
            raise VerificationError(Reason.PROOF_INVALID, message)
        findings.append((index, _kind(tx, simpul, index), problem.reason))
    return Unlawful(simpul, state.genesis, state.size, tuple(findings))


def _kind(tx: SqliteTransaction, feed: FeedId, index: int) -> str:
    entry = parse_entry(tx.entries(feed, index, 1, 1)[0].body)
    return (entry.WhichOneof("body") if entry is not None else None) or "?"


def _omission(tx: SqliteTransaction, simpul: FeedId, member: FeedId, data: bytes) -> Omission:
    governance, state, author = _judged(tx, simpul), tx.feed(simpul), tx.feed(member)
    found = governance.member(governance.name_of(member))
    if state is None or author is None or found is None or found.feed != member.origin or member.federation != simpul.federation:
        raise VerificationError(Reason.PROOF_INVALID, f"{member} is no member of the federation of {simpul}", feed=member)
    checkpoint = feeds.check_head(tx, member, data)
    if checkpoint is None or not 0 < checkpoint.size <= author.size:
        raise VerificationError(Reason.SIGNATURE_INVALID, f"the note is not one that {member} has signed", feed=member)
    until, lag = governance.time // 1_000_000, governance.lag_seconds
    others = [other for other in governance.members() if other.name in governance.full_members() and other.name != found.name]
    holders = {}
    for other in others:
        for keys in governance.any_witness_keys(FeedId.parse(other.feed)):
            try:
                moment = verify_cosignatures(Note.parse(data), keys).time
            except VerificationError:
                continue
            if moment + lag < until:
                holders[other.name] = moment
            break
    if not holders or found.observed_size >= checkpoint.size:
        raise VerificationError(
            Reason.PROOF_INVALID,
            f"{simpul} observes {found.observed_size} of {checkpoint.size} entries of {member}, which {len(holders)} others held in time",
        )
    return Omission(simpul, state.genesis, state.size, until, member, checkpoint.size, found.observed_size, lag, holders, len(others))


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_DOSSIER_BYTES:
        raise InvalidInputError(Reason.INVALID_FILE, f"a dossier has at most {MAX_DOSSIER_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("type") != TYPE or document.get("kind") not in ("unlawful", "omission"):
        raise InvalidInputError(Reason.INVALID_FILE, f"not a dossier of type {TYPE}")
    return document


def _unpack(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(packed, _MAX_UNPACKED)
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise InvalidInputError(Reason.INVALID_FILE, "the dossier is cut off, or unpacks to more than may be")
    return data


def held_note(tx: SqliteTransaction, member: FeedId) -> bytes:
    """The kept checkpoint of a member with the lines of those who hold what it covers.

    Raises:
        NotFoundError: ``EVIDENCE_NOT_FOUND``.
    """
    for size, note in tx.witnessed(member):
        lines = [lines for _, _, lines in tx.cosignatures(member, size)]
        if lines:
            return Note.parse(note + b"".join(lines[:_MOST_LINES])).to_bytes()
    raise NotFoundError(Reason.EVIDENCE_NOT_FOUND, f"nobody has confirmed yet that it holds what {member} signed", feed=member)


#: Two lines each beside two of the author; what every reader takes.
_MOST_LINES = 7
