"""The append fence: after a start a node may not append to its own feed before others have told it its own head.

Its disk may be an old copy. Appending to an old copy would give two entries one index, signed twice: a fork, which can never be mended. So
the simpul, or two peers (one, if only one is known), must have said how much of this feed they hold, and this node must hold as much;
what it lacks it takes back from them first, its own signed entries. A feed that was never sent to anybody needs no fence.

A feed that began anew (a later key epoch) is held besides until the simpul's log, as it lies here, says that it goes on with the one
before: only then are the records that it may revise here.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from kad_protocol.errors import Reason, UnavailableError

if TYPE_CHECKING:
    from kad_protocol.names import FeedId

__all__ = ["Fence", "FenceState"]


class FenceState(Enum):
    """May this node append?"""

    OPEN = "open"
    FENCED = "fenced"
    FORKED = "forked"


class Fence:
    """The fence of one feed.

    Args:
        shared: the feed was ever sent to anybody, by this store's own record.
        simpul: whose word alone is enough, if there is one.
        held: the feed is of a later epoch, and the simpul's log has not said yet that it is.
    """

    def __init__(self, *, shared: bool, simpul: FeedId | None, held: bool = False) -> None:
        self._simpul = simpul
        self._told: dict[tuple[str, str], int] = {}
        self._shared = shared
        self.held = held
        self.state = FenceState.FENCED if shared or held else FenceState.OPEN

    def told(self, peer: FeedId, size: int, own_size: int, others: int) -> bool:
        """A peer said that it holds ``size`` of our entries. True if that opened the fence.

        Args:
            peer: who said it.
            size: what it holds of our feed.
            own_size: what we hold of it ourselves.
            others: how many peers are known to us at all.
        """
        self._told[peer.federation, peer.forum] = size
        return self.settle(own_size, others)

    def heard(self, peer: FeedId) -> int:
        """What a peer said so far, 0 if nothing."""
        return self._told.get((peer.federation, peer.forum), 0)

    def settle(self, own_size: int, others: int) -> bool:
        """Look again after our own feed has grown. True if the fence is open now and was not before."""
        if self.state is not FenceState.FENCED or self.held or any(size > own_size for size in self._told.values()):
            return False
        by_simpul = self._simpul is not None and (self._simpul.federation, self._simpul.forum) in self._told
        if not self._shared or by_simpul or len(self._told) >= max(1, min(2, others)):
            self.state = FenceState.OPEN
            return True
        return False

    def release(self, own_size: int, others: int) -> bool:
        """The simpul's log says that this feed goes on with the one before. True if that opened the fence."""
        self.held = False
        return self.settle(own_size, others)

    def forked(self) -> None:
        """Somebody holds a signed history of our feed that contradicts ours; only the operator can decide."""
        self.state = FenceState.FORKED

    def require(self) -> None:
        """Refuse to append.

        Raises:
            UnavailableError: ``APPEND_FENCED``.
        """
        if self.state is not FenceState.OPEN:
            raise UnavailableError(
                Reason.APPEND_FENCED, "this node has not heard yet how much of its own feed others hold; it cannot sign before that"
            )
