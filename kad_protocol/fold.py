"""What the feeds say: members, observations, profiles, records. State is what one gets by folding entries, in feed order.

Folding follows storing: an entry is first verified and durable (``kad_protocol.feed``), then folded, once, in the order of its
feed. What is folded can be thrown away and made again from the feeds at any time, for example by a version that
understands more. An entry that has no effect leaves a *problem* with its reason, so that nothing is skipped silently; a problem that
waits for something (a content that has not arrived) is judged again when it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from kad_protocol import content as contents
from kad_protocol import merkle
from kad_protocol.audience import Standpoint, is_open
from kad_protocol.authority import Action, Networking, Question
from kad_protocol.entry import AUTHORITY_BODIES, MAX_CONTENT_BLOB_BYTES, digest_of, parse_entry, time_of
from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError
from kad_protocol.names import FeedId, is_record_id
from kad_protocol.store import MAX_ENTRIES, LogTransaction
from kad_protocol.v1 import content_pb2, entry_pb2

if TYPE_CHECKING:
    from kad_protocol.store import FeedState, StoredEntry

__all__ = [
    "FOLD_VERSION",
    "NO_VERSION",
    "FoldTransaction",
    "Problem",
    "RecordHead",
    "advance",
    "content_arrived",
    "content_of",
    "retraction_reason",
]

#: Grows when the same entries would fold to something else; a store then folds all feeds anew.
FOLD_VERSION = 6

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class RecordHead:
    """Where a record stands: its newest version."""

    version: int
    kind: int
    retracted: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an entry has no effect, or not yet."""

    reason: Reason
    message: str
    waiting: bool = False


class FoldTransaction(LogTransaction, Protocol):
    """The feeds and what is folded from them, inside one transaction."""

    #: Whose store it is.
    standpoint: Standpoint

    def version_audience(self, feed: FeedId, record: str, version: int, simpul: FeedId | None = None) -> int:
        """See ``audience.AudienceTransaction``."""

    def unfolded(self) -> list[FeedId]:
        """Feeds with entries that have not been folded, simpuls first: who is a member is known before what members say.

        A feed of a later epoch waits until the simpul's log has been judged to where it follows the one before, whose records it goes on
        with; where no simpul of its federation is known, nobody can say so, and it does not wait.
        """

    def folded(self, feed: FeedId) -> int:
        """How many entries of a feed have been folded."""

    def set_folded(self, feed: FeedId, size: int) -> None:
        """Say so."""

    def record_head(self, feed: FeedId, record: str, simpul: FeedId | None = None) -> RecordHead | None:
        """The newest version of a record that took effect; with ``simpul``, of one that it published in that forum's name."""

    def put_authority_entry(self, feed: FeedId, index: int) -> None:
        """An entry with which its author decides something; judged when the simpul's log has observed it."""

    def waits_for_review(self, feed: FeedId, kind: int) -> bool:
        """Has this forum asked the simpul to review such records before others read them?"""

    def put_version(
        self,
        feed: FeedId,
        index: int,
        version: entry_pb2.RecordVersion,
        time: int,
        content: content_pb2.Content | None,
        *,
        withheld: bool = False,
    ) -> None:
        """A version of a record took effect; ``content`` is None while it has not arrived, or never will (``withheld``). ``time`` in
        microseconds.
        """

    def put_content(
        self, feed: FeedId, index: int, version: entry_pb2.RecordVersion, content: content_pb2.Content, simpul: FeedId | None = None
    ) -> None:
        """The content of a version that had taken effect without it arrived; ``simpul`` as in ``record_head``."""

    def put_retraction(self, feed: FeedId, index: int, retraction: entry_pb2.RecordRetraction, time: int, reason: str) -> None:
        """A record was withdrawn."""

    def good_size(self, feed: FeedId) -> int | None:
        """Of a feed with two histories: how many of its entries were here before that was known. Only what they say is shown."""

    def put_profile(self, feed: FeedId, index: int, profile: content_pb2.ForumProfile) -> None:
        """A forum described itself."""

    def put_observation(self, observer: FeedId, index: int, feed: FeedId, size: int, root: bytes) -> None:
        """The simpul observed a feed."""

    def put_problem(self, feed: FeedId, index: int, problem: Problem) -> None:
        """An entry has no effect, or not yet. Replaces an earlier problem of the same entry."""

    def problem(self, feed: FeedId, index: int) -> Problem | None:
        """The problem of an entry, if it has one."""

    def clear_problem(self, feed: FeedId, index: int) -> None:
        """What an entry waited for has come."""


def advance(tx: FoldTransaction, limit: int) -> int:
    """Fold up to ``limit`` entries; returns how many were folded, so a result below ``limit`` means that nothing is left."""
    done = 0
    for feed in tx.unfolded():
        state = tx.feed(feed)
        if state is None:
            continue
        position = tx.folded(feed)
        while position < state.size and done < limit:
            for stored in tx.entries(feed, position, min(_CHUNK, state.size - position, limit - done), 4 << 20):
                problem = _folded(tx, state, stored)
                if problem is not None:
                    tx.put_problem(feed, stored.index, problem)
                position = stored.index + 1
                done += 1
        tx.set_folded(feed, position)
        if done >= limit:
            break
    return done


def content_arrived(tx: FoldTransaction, feed: FeedId, index: int) -> None:
    """Judge an entry again whose content has just been supplied. Does nothing if it has not been folded yet, or if it was not the
    content that it lacked.
    """
    waiting = tx.problem(feed, index)
    if index >= tx.folded(feed) or waiting is None or waiting.reason != Reason.CONTENT_MISSING:
        return
    stored = tx.entries(feed, index, 1, MAX_CONTENT_BLOB_BYTES)[0]
    entry = parse_entry(stored.body)
    if entry is None:
        return
    match entry.WhichOneof("body"):
        case "record_version":
            content, problem = _content(entry.record_version, stored)
            if content is not None:
                tx.put_content(feed, index, entry.record_version, content)
        case "record_retraction":
            problem = None
            tx.put_retraction(feed, index, entry.record_retraction, time_of(entry), retraction_reason(stored))
        case "profile_version":
            problem = _fold_profile(tx, feed, stored)
        case _:
            problem = None
    if problem is None:
        tx.clear_problem(feed, index)
    else:
        tx.put_problem(feed, index, problem)


def _folded(tx: FoldTransaction, state: FeedState, stored: StoredEntry) -> Problem | None:
    """Fold one entry. Whatever its author wrote into it, it may not keep other entries from being stored."""
    try:
        return _fold(tx, state, stored)
    except (ValueError, OverflowError, KadError) as error:
        return Problem(Reason.ENTRY_MALFORMED, f"folding it failed: {error}"[:300])


def _fold(tx: FoldTransaction, state: FeedState, stored: StoredEntry) -> Problem | None:  # noqa: C901, PLR0911 - one line for each kind
    feed = state.feed
    entry = parse_entry(stored.body)
    if entry is None:
        return Problem(Reason.ENTRY_MALFORMED, "the bytes are not an entry")
    body = entry.WhichOneof("body")
    if body in AUTHORITY_BODIES and body not in _SIMPUL_BODIES:
        tx.put_authority_entry(feed, stored.index)
    if state.quarantine == Reason.FORKED and body in _SHOWN and stored.index >= (tx.good_size(feed) or 0):
        return Problem(Reason.FORKED, "its author has signed two histories; nothing of either is shown from here on")
    match body:
        case "record_version":
            return _fold_version(tx, feed, entry, stored)
        case "record_retraction":
            return _fold_retraction(tx, feed, entry, stored)
        case "profile_version":
            return _fold_profile(tx, feed, stored)
        case "observation":
            return _simpul_only(state) or _fold_observation(tx, state, entry, stored.index)
        case body if body in _SIMPUL_BODIES:
            return _simpul_only(state)
        case None:
            return Problem(Reason.ENTRY_KIND_UNKNOWN, "an entry of a kind that this version does not know", waiting=True)
        case _:
            # What it decides is judged in the order of the simpul's log (kad_protocol.order).
            if digest_of(entry) is None or stored.content or is_withheld(tx, feed, entry):
                return None
            return Problem(Reason.CONTENT_MISSING, f"the text of a {body} has not arrived", waiting=True)


#: What people read.
_SHOWN = frozenset({"record_version", "record_retraction", "profile_version"})


def is_withheld(tx: FoldTransaction, feed: FeedId, entry: entry_pb2.Entry) -> bool:
    """Is what travels beside an entry for another federation only? Then it does not come here, and nobody waits for it."""
    return tx.standpoint.is_foreign(feed) and not is_open(tx, feed, entry)


#: What only a simpul's feed may hold; judged in ``kad_protocol.order``.
_SIMPUL_BODIES = frozenset({"observation", "membership", "founding", "finality", "census", "act"})


def _simpul_only(state: FeedState) -> Problem | None:
    verdict = Networking().may(Question(state.feed, state.role, Action.OBSERVE, state.feed))
    return None if verdict.allowed else Problem(verdict.reason or Reason.ROLE_INSUFFICIENT, verdict.message)


#: Why an entry is no version of a record, whatever its content says.
NO_VERSION = frozenset({Reason.RECORD_RETRACTED, Reason.VERSION_OUT_OF_ORDER, Reason.AUDIENCE_NOT_SUPPORTED})


def _fold_version(tx: FoldTransaction, feed: FeedId, entry: entry_pb2.Entry, stored: StoredEntry) -> Problem | None:
    version = entry.record_version
    if not is_record_id(version.record):
        return Problem(Reason.ENTRY_MALFORMED, "a record id that is none")
    head = tx.record_head(feed, version.record)
    if head is not None and head.retracted:
        return Problem(Reason.RECORD_RETRACTED, f"record {version.record} was retracted before")
    expected = 1 if head is None else head.version + 1
    if version.version != expected or (head is not None and head.kind != version.kind):
        return Problem(Reason.VERSION_OUT_OF_ORDER, f"record {version.record}: version {version.version} where {expected} was due")
    if version.audience not in (content_pb2.AUDIENCE_PUBLIC, content_pb2.AUDIENCE_FEDERATION):
        return Problem(Reason.AUDIENCE_NOT_SUPPORTED, f"record {version.record}: this version does not know its audience", waiting=True)
    # A version counts by its entry alone, since its content comes to some sooner than to others; one that is at fault is not shown.
    content, problem = _content(version, stored)
    withheld = not stored.content and is_withheld(tx, feed, entry)
    tx.put_version(feed, stored.index, version, time_of(entry), content, withheld=withheld)
    return None if withheld else problem


def _content(version: entry_pb2.RecordVersion, stored: StoredEntry) -> tuple[content_pb2.Content | None, Problem | None]:
    if not stored.content:
        return None, Problem(Reason.CONTENT_MISSING, f"the content of record {version.record} has not arrived", waiting=True)
    try:
        return content_of(version, stored.content), None
    except KadError as error:
        return None, Problem(error.reason, f"record {version.record} version {version.version}: {error}")


def content_of(version: entry_pb2.RecordVersion, blob: bytes) -> content_pb2.Content:
    """Read and check what belongs to a version.

    Raises:
        KadError: ``CONTENT_MALFORMED``, or the rule that it breaks.
    """
    content = contents.parse_content(contents.split(blob)[1])
    if contents.kind_of(content) != version.kind:
        raise VerificationError(Reason.CONTENT_MALFORMED, "the content is of another kind than its entry says")
    contents.check(content)
    try:
        for time in (content.agenda_item.start_time, content.agenda_item.end_time):
            time.ToMicroseconds()
    except ValueError as error:
        raise VerificationError(Reason.CONTENT_MALFORMED, f"a time that no calendar knows: {error}") from error
    return content


def _fold_retraction(tx: FoldTransaction, feed: FeedId, entry: entry_pb2.Entry, stored: StoredEntry) -> Problem | None:
    retraction = entry.record_retraction
    if not is_record_id(retraction.record):
        return Problem(Reason.ENTRY_MALFORMED, "a record id that is none")
    head = tx.record_head(feed, retraction.record)
    if head is None or head.retracted or head.version != retraction.version:
        return Problem(Reason.VERSION_OUT_OF_ORDER, f"a retraction of record {retraction.record} that does not fit")
    withheld = is_withheld(tx, feed, entry)
    tx.put_retraction(feed, stored.index, retraction, time_of(entry), retraction_reason(stored))
    if not stored.content and not withheld:
        return Problem(Reason.CONTENT_MISSING, f"the reason for retracting {retraction.record} has not arrived", waiting=True)
    return None


def retraction_reason(stored: StoredEntry) -> str:
    """Why a record was withdrawn; empty if that has not arrived or does not read."""
    if not stored.content:
        return ""
    try:
        return entry_pb2.RetractionNotice.FromString(contents.split(stored.content)[1]).reason[:2000]
    except (DecodeError, KadError):
        return ""


def _fold_profile(tx: FoldTransaction, feed: FeedId, stored: StoredEntry) -> Problem | None:
    if not stored.content:
        return Problem(Reason.CONTENT_MISSING, "the profile has not arrived", waiting=True)
    try:
        profile = content_pb2.ForumProfile.FromString(contents.split(stored.content)[1])
        contents.check(profile)
    except DecodeError:
        return Problem(Reason.CONTENT_MALFORMED, "the profile is not one")
    except KadError as error:
        return Problem(error.reason, f"profile: {error}")
    tx.put_profile(feed, stored.index, profile)
    return None


def _fold_observation(tx: FoldTransaction, state: FeedState, entry: entry_pb2.Entry, index: int) -> Problem | None:
    observation = entry.observation
    try:
        observed = FeedId.parse(observation.feed)
    except InvalidInputError as error:
        return Problem(Reason.ENTRY_MALFORMED, str(error))
    if not 1 <= observation.size < MAX_ENTRIES or len(observation.root) != merkle.HASH_SIZE:
        return Problem(Reason.ENTRY_MALFORMED, "an observation of an impossible size or root")
    tx.put_observation(state.feed, index, observed, observation.size, observation.root)
    return None
