"""Witnessing: which members must confirm a simpul's checkpoint, and how many of them are enough.

The members of a federation replicate the feed of its simpul, and cosign its checkpoints (C2SP tlog-cosignature) by the *mirror* rule:
only what lies on the witness's own disk, whole. So a checkpoint that enough of them confirm can be neither taken back nor shown in two
versions, and is not lost with the simpul.

Enough is ``quorum``: any two quorums share more than a third of the witnesses, so that a simpul would need more than a third of liars
among the members to have two histories confirmed. In a large federation a committee of seven counts, which changes with the month and comes
round to everybody, since foreign verifiers read 16 signature lines; all others confirm as well and are shown.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from kad_protocol.entry import MAX_ENTRY_BYTES, log_keys_of, parse_entry
from kad_protocol.errors import PreconditionError, Reason, VerificationError
from kad_protocol.note import Note, verify_cosignatures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kad_protocol.names import FeedId
    from kad_protocol.note import Cosignature, LogKeys
    from kad_protocol.store import LogTransaction

__all__ = [
    "COMMITTEE_SIZE",
    "LAST_SECOND",
    "MAX_COSIGNATURE_BYTES",
    "committee",
    "confirming",
    "is_confirmed",
    "quorum",
    "read_cosignature",
    "with_cosignatures",
    "witness_keys_of",
]

#: Two lines each, beside two of the log, make the 16 that every verifier reads (C2SP signed-note).
COMMITTEE_SIZE = 7
MAX_COSIGNATURE_BYTES = 4096
#: Followed back from the newest change of authority; a feed has one for each year and emergency.
_MAX_STEPS = 10_000
#: A later time, in seconds since 1970, is in no calendar, and nobody confirms anything then.
LAST_SECOND = int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp())


def quorum(witnesses: int) -> int:
    """How many of so many witnesses are enough: more than two thirds. With three or fewer that is all of them."""
    return 2 * witnesses // 3 + 1


def committee(witnesses: Iterable[FeedId], seconds: int) -> tuple[FeedId, ...]:
    """Whose confirmations count at a time (seconds since 1970, UTC): everybody, or seven in fair turn by the month."""
    everybody = sorted(set(witnesses))
    if len(everybody) <= COMMITTEE_SIZE:
        return tuple(everybody)
    moment = datetime.datetime.fromtimestamp(min(max(seconds, 0), LAST_SECOND), datetime.UTC)
    first = (moment.year * 12 + moment.month) * COMMITTEE_SIZE % len(everybody)
    return tuple(sorted((everybody * 2)[first : first + COMMITTEE_SIZE]))


def confirming(witnesses: Sequence[FeedId], times: Mapping[FeedId, int], at: int) -> tuple[FeedId, ...]:
    """Whose cosignatures, each with its time in seconds, confirm a checkpoint: a quorum of the committee, or nobody.

    Whose turn it is follows from ``at``, when members last confirmed the log (seconds since 1970; 0: never), and not from the times in
    the cosignatures: these are their authors' word, and a few could choose a month in which they have the turn.
    """
    found = tuple(witness for witness in committee(witnesses, at) if witness in times)
    return found if found and len(found) >= quorum(min(len(set(witnesses)), COMMITTEE_SIZE)) else ()


def is_confirmed(witnesses: Sequence[FeedId], times: Mapping[FeedId, int], at: int) -> bool:
    """Do these cosignatures confirm a checkpoint (see ``confirming``)? Nothing is confirmed where nobody can witness."""
    return bool(confirming(witnesses, times, at))


def witness_keys_of(tx: LogTransaction, feed: FeedId) -> LogKeys:
    """The newest witness keys of a member, found by walking its authority entries back.

    Raises:
        PreconditionError: ``FEED_NOT_FOUND`` while its genesis is not here.
    """
    state = tx.feed(feed)
    if state is None or not state.size:
        raise PreconditionError(Reason.FEED_NOT_FOUND, f"the keys of {feed} are not known yet", feed=feed)
    index = state.authority_index
    for _ in range(_MAX_STEPS):
        entry = parse_entry(tx.entries(feed, index, 1, MAX_ENTRY_BYTES)[0].body)
        if entry is None:
            break
        if entry.HasField("genesis"):
            return log_keys_of(feed.origin, entry.genesis.witness_keys.SerializeToString())
        if entry.HasField("key_rotation"):
            return log_keys_of(feed.origin, entry.key_rotation.witness_keys.SerializeToString())
        if entry.previous_authority >= index:
            break
        index = entry.previous_authority
    raise PreconditionError(Reason.FEED_NOT_FOUND, f"the witness keys of {feed} cannot be found", feed=feed)


def read_cosignature(text: str, lines: bytes, keys: LogKeys) -> Cosignature:
    """Check two lines of a witness under the text of a checkpoint.

    Raises:
        VerificationError: ``NOTE_MALFORMED``, ``SIGNATURE_MISSING``, ``SIGNATURE_INVALID``.
    """
    if len(lines) > MAX_COSIGNATURE_BYTES:
        raise VerificationError(Reason.NOTE_MALFORMED, "a cosignature that is too long", witness=keys.origin)
    note = Note.parse(text.encode() + b"\n" + lines)
    if len(note.signatures) != 2:  # noqa: PLR2004 - Ed25519 and ML-DSA-44
        raise VerificationError(Reason.NOTE_MALFORMED, "a cosignature has two lines", witness=keys.origin)
    found = verify_cosignatures(note, keys)
    if found.time > LAST_SECOND:
        raise VerificationError(Reason.NOTE_MALFORMED, "a cosignature of a time that no calendar knows", witness=keys.origin)
    return found


def with_cosignatures(checkpoint: bytes, lines: Iterable[bytes]) -> bytes:
    """A signed checkpoint with lines of witnesses added, read strictly once more."""
    return Note.parse(checkpoint + b"".join(lines)).to_bytes()
