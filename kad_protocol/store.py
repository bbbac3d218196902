"""What a store must do for feeds, in prose and types. Engines live elsewhere (``kad_node.store``); one suite tests them all.

Promises that every engine keeps:

* All methods of a transaction run in one serialisable transaction; either everything that it wrote is durable when the
  transaction is reported as committed (fsynced, not merely handed to the system), or nothing of it ever was.
* Bytes come back exactly as they were given.
* An engine does not interpret entries and does not verify; that is ``kad_protocol.feed``. It only refuses what would
  make its own promises false, such as a gap in the indexes of a feed.

The methods are synchronous on purpose: a whole batch (hashing, checks, SQL) runs in the store's own thread, so that nothing of it
ever stands in the way of the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kad_protocol.merkle import EMPTY_ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_protocol.merkle import TileStore
    from kad_protocol.names import FeedId

__all__ = ["MAX_ENTRIES", "FeedState", "LogTransaction", "StoredEntry"]

#: No feed has more entries; every position on the wire is below this.
MAX_ENTRIES = 1 << 40


@dataclass(frozen=True, slots=True)
class FeedState:
    """Everything about one feed that fits in a row. ``size``, ``tail`` and ``signed_size`` count entries.

    ``signed_size <= size <= tail``. For a feed of somebody else ``tail == size``; for one's own, entries between ``size`` and
    ``tail`` are appended but not under a checkpoint yet, and exist only inside a transaction.
    """

    feed: FeedId
    #: Leaf hash that entry 0 must have: what an invitation, a membership entry or a peer card pinned.
    genesis: bytes
    #: Entries held and verified.
    size: int = 0
    #: Entries appended, sealed or not.
    tail: int = 0
    #: The right edge of the tree at ``size`` (``merkle.Frontier.to_bytes``).
    frontier: bytes = b""
    #: RFC 6962 root at ``size``.
    root: bytes = EMPTY_ROOT
    #: Newest checkpoint whose size is at most ``size``; only what it covers is served to others.
    checkpoint: bytes = b""
    #: Size of that checkpoint.
    signed_size: int = 0
    #: While catching up: the verified checkpoint beyond ``size`` that we are on the way to. Empty otherwise.
    target: bytes = b""
    #: Serialised ``KeySet`` that must sign the next checkpoint; empty before the genesis is here.
    log_keys: bytes = b""
    #: ``MemberRole`` of the genesis, 0 before it is here.
    role: int = 0
    #: Index of the newest entry that changes authority.
    authority_index: int = 0
    #: Why nothing more is taken of this feed (a ``Reason``), empty when all is well.
    quarantine: str = ""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry as it lies on disk."""

    index: int
    body: bytes
    #: ``salt || content``; empty if the entry has none, or if it is not here.
    content: bytes = field(repr=False, default=b"")


class LogTransaction(Protocol):
    """The feeds, inside one transaction."""

    def feed(self, feed: FeedId) -> FeedState | None:
        """The state of one feed, None if it is not known here."""

    def feeds(self) -> list[FeedState]:
        """All known feeds, sorted by origin."""

    def save_feed(self, state: FeedState) -> None:
        """Insert or replace the state of a feed."""

    def insert_entries(self, feed: FeedId, first: int, entries: Sequence[bytes], contents: Sequence[bytes]) -> None:
        """Store entries at ``first``, ``first + 1``, ... ``contents[i]`` may be empty. An index that is taken is an error."""

    def entries(self, feed: FeedId, after: int, limit: int, max_bytes: int) -> list[StoredEntry]:
        """Up to ``limit`` consecutive entries from index ``after`` on; at least one if there is one, then no more than
        ``max_bytes`` of bodies and contents together.
        """

    def set_content(self, feed: FeedId, index: int, content: bytes) -> None:
        """Put a content beside an entry that came without it, or remove it with ``b""``."""

    def tiles(self, feed: FeedId) -> TileStore:
        """The Merkle tiles of a feed."""

    def pin_checkpoint(self, feed: FeedId, size: int, note: bytes) -> None:
        """Keep a checkpoint for ever: the one of a key rotation, signed by old and new keys."""

    def pinned_checkpoint(self, feed: FeedId, after: int) -> tuple[int, bytes] | None:
        """The first pinned checkpoint whose size is greater than ``after``."""

    def drop_from(self, feed: FeedId, size: int) -> None:
        """Forget all entries of a feed beyond the first ``size``, every tile, and what was pinned or confirmed of it beyond."""

    def add_evidence(self, feed: FeedId, evidence: bytes) -> None:
        """Keep a proof of misbehaviour."""
