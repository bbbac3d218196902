"""The simpul observes: for each feed that grew, one entry in its own feed says how far, with which root.

It runs in the transaction that stored the growth, before that is sealed. So accepting a batch and saying so are one act: the observation is
the receipt, and no receipt is ever promised and then forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_node.fence import FenceState
from kad_node.store.transaction import micros_now
from kad_protocol import feed as feeds
from kad_protocol.entry import new_entry
from kad_protocol.feed import Draft

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kad_node.fence import Fence
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.names import FeedId

__all__ = ["Observer"]


class Observer:
    """Observes on behalf of one simpul.

    Args:
        own: the simpul's feed.
        fence: nothing is observed while the simpul may not append; what grew meanwhile is observed when it may.
    """

    def __init__(self, own: FeedId, fence: Fence) -> None:
        self._own = own
        self._fence = fence
        self._caught_up = False

    def before_seal(self, tx: SqliteTransaction) -> None:
        """Append observations of what this transaction added (at first: of everything that is not observed yet)."""
        if self._fence.state is not FenceState.OPEN:
            return
        grown: Iterable[FeedId] = tx.touched if self._caught_up else [state.feed for state in tx.feeds()]
        drafts = [draft for feed in sorted(grown) if feed != self._own and (draft := self._observe(tx, feed)) is not None]
        if drafts:
            feeds.append(tx, self._own, drafts)
        self._caught_up = True

    def _observe(self, tx: SqliteTransaction, feed: FeedId) -> Draft | None:
        state = tx.feed(feed)
        # Only what a checkpoint covers is observed: what a stranger can be shown.
        if state is None or state.signed_size == 0 or state.signed_size != state.size or state.size <= tx.observed(self._own, feed):
            return None
        entry = new_entry(micros_now())
        entry.observation.feed, entry.observation.size, entry.observation.root = feed.origin, state.size, state.root
        return Draft(entry)
