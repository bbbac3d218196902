"""The simpul observes: for each feed that grew, one entry in its own feed says how far, with which root.

It runs in the transaction that stored the growth, before that is sealed. So accepting a batch and saying so are one act: the observation is
the receipt, and no receipt is ever promised and then forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_node.fence import FenceState
from kad_node.store.transaction import micros_now
from kad_protocol import feed as feeds
from kad_protocol.entry import new_entry, parse_entry
from kad_protocol.feed import Draft
from kad_protocol.v1 import entry_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kad_node.fence import Fence
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.names import FeedId

__all__ = ["Observer"]

#: What a simpul writes because others wrote something.
_DUTIES = frozenset({"observation", "finality", "census"})


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
        #: How far feeds of other simpuls were looked through in vain.
        self._looked: dict[FeedId, int] = {}

    def before_seal(self, tx: SqliteTransaction) -> None:
        """Append observations of what this transaction added (at first: of everything that is not observed yet)."""
        if self._fence.state is not FenceState.OPEN:
            return
        grown: Iterable[FeedId] = tx.touched if self._caught_up else [state.feed for state in tx.feeds()]
        drafts = [draft for feed in sorted(grown) if self._concerns(tx, feed) and (draft := self._observe(tx, feed)) is not None]
        if drafts:
            feeds.append(tx, self._own, drafts)
        self._caught_up = True

    def _concerns(self, tx: SqliteTransaction, feed: FeedId) -> bool:
        """Feeds of one's own federation are observed, and those of simpuls that are members; their members are observed by them."""
        if feed.federation == self._own.federation:
            return feed != self._own
        return tx.membership(feed) == entry_pb2.MEMBERSHIP_STATE_ACTIVE

    def _says_something(self, tx: SqliteTransaction, feed: FeedId, observed: int, size: int) -> bool:
        """Is there anything but duties of its office in what another simpul wrote? Two simpuls that are members of each other would
        otherwise observe each other's observations for ever.
        """
        position = max(observed, self._looked.get(feed, 0))
        while position < size:
            for stored in tx.entries(feed, position, 512, 1 << 20):
                entry = parse_entry(stored.body)
                if entry is None or entry.WhichOneof("body") not in _DUTIES:
                    return True
                position = stored.index + 1
        self._looked[feed] = position
        return False

    def _observe(self, tx: SqliteTransaction, feed: FeedId) -> Draft | None:
        state = tx.feed(feed)
        # Only what a checkpoint covers is observed: what a stranger can be shown.
        if state is None or state.signed_size == 0 or state.signed_size != state.size:
            return None
        observed = tx.observed(self._own, feed)
        foreign = feed.federation != self._own.federation
        if state.size <= observed or (foreign and not self._says_something(tx, feed, observed, state.size)):
            return None
        entry = new_entry(micros_now())
        entry.observation.feed, entry.observation.size, entry.observation.root = feed.origin, state.size, state.root
        return Draft(entry)
