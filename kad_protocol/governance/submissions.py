"""Records in others' names, and records that wait for review.

As the entries say, whatever contents have arrived where. Both are kept by the member's name, so that they go on when its feed begins anew.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from kad_protocol.governance.effects import Released
from kad_protocol.governance.state import State
from kad_protocol.governance.words import feed_key, place_key, position_of
from kad_protocol.v1 import content_pb2, entry_pb2

if TYPE_CHECKING:
    from kad_protocol.names import FeedId

__all__ = ["ALL_KINDS", "ReviewState", "Submissions", "review_state"]


class ReviewState(IntEnum):
    """Where a version of a record stands with those who review it."""

    SHOWN = 0
    WAITS = 1
    TURNED_DOWN = 2


def review_state(kept: bytes | None) -> ReviewState | None:
    """Where a version stands, by what is kept of it (an item of the kind ``submitted``); None if nobody reviews it."""
    return None if kept is None else ReviewState(int(kept.split()[-1]))


ALL_KINDS = frozenset(content_pb2.RecordKind.values())


class Submissions(State):
    """What the simpul published in members' names, and what of theirs waits for its review."""

    def hosted(self, owner: FeedId, record: str) -> tuple[int, int, bool] | None:
        """Version and kind of a record that the simpul published in that forum's name, and whether it was withdrawn."""
        kept = self._items.get("hosted", f"{self.name_of(owner)} {record}")
        if kept is None:
            return None
        version, kind, withdrawn = kept.split()
        return int(version), int(kind), withdrawn == b"1"

    def keep_hosted(self, owner: FeedId, record: str, version: int, kind: int, *, withdrawn: bool = False) -> None:
        """Where it stands now."""
        key, said = f"{self.name_of(owner)} {record}", b"%d %d %d" % (version, kind, withdrawn)
        self._items.put("hosted", key, said)
        # Each step is remembered, since one may turn out not to have been lawful (``unhost``).
        self._items.put("hosted-at", f"{key} {place_key(self.head.position - 1)}", said)

    def unhost(self, owner: FeedId, record: str, index: int) -> int | None:
        """What an act at ``index`` did with a record was not lawful: it stands where the other acts left it, or is withdrawn if there was
        none. Returns the index of the act that published what it says now, None if it is withdrawn.
        """
        key = f"{self.name_of(owner)} {record}"
        kept = self._items.get("hosted", key)
        self._items.delete("hosted-at", f"{key} {place_key(index)}")
        steps = self._items.all("hosted-at", f"{key} ")
        if steps:
            self._items.put("hosted", key, steps[-1][1])
            return None if steps[-1][1].endswith(b" 1") else position_of(steps[-1][0].rpartition(" ")[2])
        if kept is not None:
            self._items.put("hosted", key, kept[:-1] + b"1")
        return None

    def submit(self, feed: FeedId, index: int, version: entry_pb2.RecordVersion, *, waits: bool) -> None:
        """A version of a record of a member is observed, at an index of its feed."""
        key = f"{self.name_of(feed)} {version.record}"
        said = b"%d %d %d %d" % (version.version, version.kind, feed.epoch, index)
        # Each is remembered, since what replaces it may turn out to be void (``_resubmit``).
        if waits:
            self._items.put("submission", key, said)
            self._items.put("submitted", f"{key} {feed_key(feed.epoch, index)}", said + b" %d" % ReviewState.WAITS)
        elif self._items.get("submission", key) is not None:
            self._items.delete("submission", key)
            self._items.put("submitted", f"{key} {feed_key(feed.epoch, index)}", said + b" %d" % ReviewState.SHOWN)

    def submission(self, feed: FeedId, record: str) -> tuple[int, int] | None:
        """Version and kind of a record that waits for review, or was turned down."""
        kept = self._items.get("submission", f"{self.name_of(feed)} {record}")
        if kept is None:
            return None
        version, kind = kept.split()[:2]
        return int(version), int(kind)

    def turned_down(self, feed: FeedId, record: str) -> bool:
        """Does it not wait any more, since it was turned down?"""
        key = f"{self.name_of(feed)} {record}"
        kept = self._items.get("submission", key)
        said = self._items.get("submitted", f"{key} {feed_key(*map(int, kept.split()[2:]))}") if kept is not None else None
        return said is not None and int(said.split()[-1]) == ReviewState.TURNED_DOWN

    def reviewed(self, feed: FeedId, record: str, *, approved: bool) -> None:
        """It was reviewed; what was turned down may be let through later."""
        key = f"{self.name_of(feed)} {record}"
        kept = self._items.get("submission", key)
        if kept is None:
            return
        state = ReviewState.SHOWN if approved else ReviewState.TURNED_DOWN
        self._items.put("submitted", f"{key} {feed_key(*map(int, kept.split()[2:]))}", kept + b" %d" % state)
        if approved:
            self._items.delete("submission", key)

    def unreview(self, feed: FeedId, record: str, version: int) -> bool:
        """A review was not lawful: that version waits again. True if it is the newest that is under review."""
        key = f"{self.name_of(feed)} {record}"
        submitted = self._items.all("submitted", f"{key} ")
        for place, value in submitted:
            said, _, state = value.rpartition(b" ")
            if int(said.split()[0]) != version or int(state) == ReviewState.WAITS:
                continue
            self._items.put("submitted", place, said + b" %d" % ReviewState.WAITS)
            if place == submitted[-1][0]:
                self._items.put("submission", key, said)
                return True
        return False

    def _release(self, feed: FeedId, kinds: frozenset[int]) -> None:
        for item in ("submission", "submitted"):
            for key, said in self._items.all(item, f"{self.name_of(feed)} "):
                if int(said.split()[1]) in kinds:
                    self._items.delete(item, key)
        self.effects.append(Released(feed, kinds))

    def _resubmit(self, old: FeedId, good_size: int) -> None:
        """Versions beyond the last good entry were never submitted: what they replaced stands where it stood."""
        before: dict[str, tuple[bytes, int]] = {}
        touched = set()
        for key, value in self._items.all("submitted", f"{self.name_of(old)} "):
            said, _, state = value.rpartition(b" ")
            record, (epoch, index) = key.rpartition(" ")[0], map(int, said.split()[2:])
            if epoch == old.epoch and index >= good_size:
                self._items.delete("submitted", key)
                touched.add(record)
            else:
                # In the order of the feeds, so the newest is the last.
                before[record] = said, int(state)
        for record in touched:
            stood, state_before = before.get(record, (b"", ReviewState.SHOWN))
            if state_before == ReviewState.SHOWN:
                self._items.delete("submission", record)
            else:
                self._items.put("submission", record, stood)
