"""For whom the content beside an entry is: for everybody, or for the members of its author's federation.

Entries always travel, as their authors signed them; without all of them a feed does not verify. What travels beside them goes to
members of another federation only where it is for everybody. Both ends ask the same question here: the sender before it gives, the
receiver to know what it need not wait for.

=====================  ========================================================
beside                 for everybody
=====================  ========================================================
record version         if its audience is public
retraction             if the version that it withdraws was public
profile                always: it says who a member is
census                 always: a list of what entries say
act                    a publication or its withdrawal, as for a forum's own
everything else        never: texts of proposals and votes, statements, and whatever this version does not know
=====================  ========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kad_protocol.entry import parse_entry
from kad_protocol.errors import KadError
from kad_protocol.names import FeedId
from kad_protocol.v1 import content_pb2, entry_pb2, replication_pb2

if TYPE_CHECKING:
    from kad_protocol.store import FeedState

__all__ = ["DEFAULT_FOREIGN_FEEDS", "AudienceTransaction", "Standpoint", "is_open", "only_open"]

#: Feeds of one other federation that are taken; Indonesia has 552 provinces, regencies and cities.
DEFAULT_FOREIGN_FEEDS = 1000
_PUBLIC = content_pb2.AUDIENCE_PUBLIC


class Standpoint:
    """Whose store it is, since what counts depends on that.

    Args:
        federation: of the member whose store it is; empty where all federations are alike (a check of files).
        foreign_feeds: how many feeds of each other federation are taken.
    """

    __slots__ = ("federation", "foreign_feeds")

    def __init__(self, federation: str = "", foreign_feeds: int = DEFAULT_FOREIGN_FEEDS) -> None:
        self.federation = federation
        self.foreign_feeds = foreign_feeds

    def is_foreign(self, feed: FeedId) -> bool:
        """Is this a feed of another federation?"""
        return bool(self.federation) and feed.federation != self.federation


class AudienceTransaction(Protocol):
    """What must be known besides the entry."""

    def feed(self, feed: FeedId) -> FeedState | None:
        """The state of one feed, None if it is not known here."""

    def version_audience(self, feed: FeedId, record: str, version: int, simpul: FeedId | None = None) -> int:
        """``Audience`` of a version that took effect, 0 if there is none; ``simpul`` where that published it in the forum's name."""


def is_open(tx: AudienceTransaction, feed: FeedId, entry: entry_pb2.Entry) -> bool:
    """Is the content beside this entry of ``feed`` for everybody? In doubt it is not."""
    match entry.WhichOneof("body"):
        case "profile_version" | "census":
            return True
        case "record_version":
            return entry.record_version.audience == _PUBLIC
        case "record_retraction":
            retraction = entry.record_retraction
            return tx.version_audience(feed, retraction.record, retraction.version) == _PUBLIC
        case "act":
            return _is_open_act(tx, feed, entry.act)
        case _:
            return False


def only_open(tx: AudienceTransaction, feed: FeedId, batch: replication_pb2.Batch) -> replication_pb2.Batch:
    """A batch of ``feed`` as it goes to, or comes from, another federation: with what is for everybody, and nothing else."""
    if len(batch.contents) > len(batch.entries):
        return batch
    kept = [
        content if content and (entry := parse_entry(body)) is not None and is_open(tx, feed, entry) else b""
        for body, content in zip(batch.entries, batch.contents, strict=False)
    ]
    if kept == list(batch.contents):
        return batch
    while kept and not kept[-1]:
        kept.pop()
    stripped = replication_pb2.Batch()
    stripped.CopyFrom(batch)
    del stripped.contents[:]
    stripped.contents.extend(kept)
    return stripped


def _is_open_act(tx: AudienceTransaction, simpul: FeedId, act: entry_pb2.Act) -> bool:
    match act.WhichOneof("deed"):
        case "publication":
            return act.publication.audience == _PUBLIC
        case "withdrawal":
            try:
                owner = FeedId.parse(act.on_behalf_of)
            except KadError:
                return False
            known = tx.feed(owner) is not None
            return known and tx.version_audience(owner, act.withdrawal.record, act.withdrawal.version, simpul) == _PUBLIC
        case _:
            return False
