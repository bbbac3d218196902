"""Feeds in memory (``kad_protocol.store.LogTransaction``): for checking a file, and as the second engine of the store's test suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_protocol.errors import Reason, StorageError
from kad_protocol.merkle import MemoryTiles
from kad_protocol.store import FeedState, StoredEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_protocol.names import FeedId

__all__ = ["MemoryLog"]


class MemoryLog:
    """See ``LogTransaction`` for what the methods promise; nothing here outlives the process."""

    def __init__(self) -> None:
        self._states: dict[FeedId, FeedState] = {}
        self._entries: dict[FeedId, list[StoredEntry]] = {}
        self._tiles: dict[FeedId, MemoryTiles] = {}
        self._pinned: dict[FeedId, dict[int, bytes]] = {}
        self.evidence: list[tuple[FeedId, bytes]] = []

    def feed(self, feed: FeedId) -> FeedState | None:
        return self._states.get(feed)

    def feeds(self) -> list[FeedState]:
        return [self._states[feed] for feed in sorted(self._states, key=str)]

    def save_feed(self, state: FeedState) -> None:
        self._states[state.feed] = state

    def insert_entries(self, feed: FeedId, first: int, entries: Sequence[bytes], contents: Sequence[bytes]) -> None:
        stored = self._entries.setdefault(feed, [])
        if first != len(stored):
            raise StorageError(Reason.POSITION_MISMATCH, f"{feed}: {len(stored)} entries, but {first} was written", feed=feed)
        stored.extend(StoredEntry(first + i, body, content) for i, (body, content) in enumerate(zip(entries, contents, strict=True)))

    def entries(self, feed: FeedId, after: int, limit: int, max_bytes: int) -> list[StoredEntry]:
        found: list[StoredEntry] = []
        used = 0
        for entry in self._entries.get(feed, [])[after : after + limit]:
            used += len(entry.body) + len(entry.content)
            if found and used > max_bytes:
                break
            found.append(entry)
        return found

    def set_content(self, feed: FeedId, index: int, content: bytes) -> None:
        old = self._entries[feed][index]
        self._entries[feed][index] = StoredEntry(old.index, old.body, content)

    def tiles(self, feed: FeedId) -> MemoryTiles:
        return self._tiles.setdefault(feed, MemoryTiles())

    def pin_checkpoint(self, feed: FeedId, size: int, note: bytes) -> None:
        self._pinned.setdefault(feed, {})[size] = note

    def pinned_checkpoint(self, feed: FeedId, after: int) -> tuple[int, bytes] | None:
        later = sorted(size for size in self._pinned.get(feed, {}) if size > after)
        return (later[0], self._pinned[feed][later[0]]) if later else None

    def drop_from(self, feed: FeedId, size: int) -> None:
        del self._entries.setdefault(feed, [])[size:]
        self._tiles[feed] = MemoryTiles()
        self._pinned[feed] = {end: note for end, note in self._pinned.get(feed, {}).items() if end <= size}

    def add_evidence(self, feed: FeedId, evidence: bytes) -> None:
        self.evidence.append((feed, evidence))
