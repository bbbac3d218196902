"""How much each member may have relayed in a day: so that one that floods fills its own measure, and not everybody's disks.

What counts is what an author signed and this simpul had not stored yet, whoever brought it; so nobody can use up the measure of
another. Each measure fills up again steadily. It lies in memory: a restart fills it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kad_protocol.errors import QuotaError, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_protocol.names import FeedId

__all__ = ["Quota"]

_DAY = 86_400.0
#: Who has used all goes on when there is room for so long a part of a day again, in seconds.
_WORTHWHILE = 60.0


@dataclass(slots=True)
class _Measure:
    entries: float
    size: float
    at: float


class Quota:
    """The measures of all members.

    Args:
        entries_per_day: for each feed.
        bytes_per_day: of entries and contents together, for each feed.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, entries_per_day: int, bytes_per_day: int, now: Callable[[], float] = time.monotonic) -> None:
        self._entries = float(entries_per_day)
        self._bytes = float(bytes_per_day)
        self._now = now
        self._measures: dict[FeedId, _Measure] = {}

    def _filled(self, feed: FeedId) -> _Measure:
        now = self._now()
        measure = self._measures.setdefault(feed, _Measure(self._entries, self._bytes, now))
        passed, measure.at = now - measure.at, now
        measure.entries = min(self._entries, measure.entries + passed * self._entries / _DAY)
        measure.size = min(self._bytes, measure.size + passed * self._bytes / _DAY)
        return measure

    def check(self, feed: FeedId) -> None:
        """May more of a feed be taken now?

        Raises:
            QuotaError: ``QUOTA_EXCEEDED``, metadata ``retry_after_seconds``.
        """
        measure = self._filled(feed)
        if measure.entries > 0 and measure.size > 0:
            return
        share = min(measure.entries / self._entries, measure.size / self._bytes)
        seconds = round(min(_WORTHWHILE - share * _DAY, _DAY), 1)
        raise QuotaError(
            Reason.QUOTA_EXCEEDED,
            f"{feed.forum} has published as much as is relayed in a day; it goes on in {seconds:.0f} s",
            feed=feed,
            entries_per_day=int(self._entries),
            bytes_per_day=int(self._bytes),
            retry_after_seconds=seconds,
        )

    def charge(self, feed: FeedId, entries: int, size: int) -> None:
        """So much of it was stored."""
        measure = self._filled(feed)
        measure.entries -= entries
        measure.size -= size
