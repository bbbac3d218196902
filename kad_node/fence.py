"""The append fence: after a start a node may not append to its own feed before others have told it its own head.

Its disk may be an old copy. Appending to an old copy would give two entries one index, signed twice: a fork, which can never be mended. So
the simpul, or two peers (one, if only one is known), must have said how much of this feed they hold, and this node must hold as much;
what it lacks it takes back from them first, its own signed entries. A feed that was never sent to anybody needs no fence.

A number costs nothing, so it is believed as far as it is borne out. What this feed's own keys have signed is *proved*: no entry is signed
before all of it is here, whoever showed it. A larger number without such a signature is a *claim*. It may be true: a home that was restored
from before its last key rotation does not know the keys that signed it. So it holds the fence too, but for a bounded time, in which whoever
claims it must deliver entries that verify. A claim that was not made good is dropped, once for each member, and does not count as heard.

A feed that began anew (a later key epoch) is held besides until the simpul's log, as it lies here, says that it goes on with the one
before: only then are the records that it may revise here.
"""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from kad_protocol.errors import Reason, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_protocol.names import FeedId

__all__ = ["Claim", "Fence", "FenceState"]

#: How long a claim that is not proved holds the fence; each entry of our own that arrives meanwhile gives it as much again.
CLAIM_SECONDS = 300.0
#: All such claims together, however many make them one after the other.
_ALL_CLAIMS_SECONDS = 3600.0


class FenceState(Enum):
    """May this node append?"""

    OPEN = "open"
    FENCED = "fenced"
    FORKED = "forked"


@dataclass(slots=True)
class Claim:
    """Somebody says that our feed is longer than what is here."""

    peer: FeedId
    size: int
    #: Until when it holds the fence (as the fence's clock counts), None if our own keys bear it out.
    until: float | None = None


class Fence:
    """The fence of one feed.

    Args:
        shared: the feed was ever sent to anybody, by this store's own record.
        simpul: whose word alone is enough, if there is one.
        held: the feed is of a later epoch, and the simpul's log has not said yet that it is.
        now: the clock.
    """

    def __init__(self, *, shared: bool, simpul: FeedId | None, held: bool = False, now: Callable[[], float] = clock.monotonic) -> None:
        self._simpul = simpul
        self._now = now
        self._heard: set[tuple[str, str]] = set()
        self._proved: Claim | None = None
        self._claims: dict[tuple[str, str], Claim] = {}
        #: Who made a claim and did not make it good.
        self._spent: set[tuple[str, str]] = set()
        self._first_claim: float | None = None
        self._own_size = 0
        self._shared = shared
        self.held = held
        self.state = FenceState.FENCED if shared or held else FenceState.OPEN

    def told(self, peer: FeedId, size: int, proved: int, own_size: int, others: int) -> bool:
        """A peer said that it holds ``size`` of our entries. True if that opened the fence.

        Args:
            peer: who said it.
            size: what it says.
            proved: entries under the checkpoint of our own that it showed for it, 0 if none that verified.
            own_size: what we hold of our feed ourselves.
            others: how many peers are known to us at all.
        """
        key = (peer.federation, peer.forum)
        if proved > own_size and (self._proved is None or proved > self._proved.size):
            self._proved = Claim(peer, proved)
            if self.state is FenceState.OPEN:
                # Others were heard first, who did not know: this home is an old copy all the same, and takes back what it lacks.
                self.state = FenceState.FENCED
        # What somebody claimed before is not taken back by saying less.
        claim = self._claims.get(key)
        said = max(size, claim.size) if claim is not None else size
        if said <= max(proved, own_size):
            self._claims.pop(key, None)
            self._heard.add(key)
        elif claim is not None:
            claim.size = said
        elif self.state is FenceState.FENCED:
            self._heard.discard(key)
            if key not in self._spent:
                self._claims[key] = Claim(peer, said, self._deadline())
        return self.settle(own_size, others)

    def silent(self, peer: FeedId, own_size: int, others: int) -> bool:
        """A peer named all that it holds, and our feed may not have been among it. True if that opened the fence."""
        key = (peer.federation, peer.forum)
        if key not in self._claims and key not in self._spent:
            self._heard.add(key)
        return self.settle(own_size, others)

    def settle(self, own_size: int, others: int) -> bool:
        """Look again after our own feed has grown, or time has passed. True if the fence is open now and was not before."""
        if own_size > self._own_size:
            # Entries of our own have come back: whoever brings them is given time to bring the rest.
            self._own_size, self._first_claim = own_size, None
            for key, claim in list(self._claims.items()):
                if claim.size <= own_size:
                    del self._claims[key]
                    self._heard.add(key)
                else:
                    claim.until = self._deadline()
        if self._proved is not None and self._proved.size <= own_size:
            self._proved = None
        if self.state is not FenceState.FENCED or self.held or self._claims or self._proved is not None:
            return False
        by_simpul = self._simpul is not None and (self._simpul.federation, self._simpul.forum) in self._heard
        if not self._shared or by_simpul or len(self._heard) >= max(1, min(2, others)):
            self.state = FenceState.OPEN
            return True
        return False

    def drop(self) -> list[Claim]:
        """Claims whose time is over, which hold the fence no longer. ``settle`` has to follow."""
        over = {key: claim for key, claim in self._claims.items() if claim.until is not None and claim.until <= self._now()}
        for key in over:
            del self._claims[key]
            self._spent.add(key)
        return list(over.values())

    def due(self) -> float | None:
        """In how many seconds ``drop`` has something to do, None if nothing is claimed."""
        ends = [claim.until for claim in self._claims.values() if claim.until is not None]
        return max(0.0, min(ends) - self._now()) if ends else None

    def claims(self) -> list[Claim]:
        """Who says that our feed is longer than what is here: what the fence waits for, besides a first word."""
        return [*([self._proved] if self._proved is not None else []), *self._claims.values()]

    def _deadline(self) -> float:
        now = self._now()
        if self._first_claim is None:
            self._first_claim = now
        return min(now + CLAIM_SECONDS, self._first_claim + _ALL_CLAIMS_SECONDS)

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
