"""The append fence: when a node may sign."""

from __future__ import annotations

import pytest

from kad_node.fence import Fence, FenceState
from kad_protocol.names import FeedId

SIMPUL, PEER = FeedId("uji.kad.internal", "simpul"), FeedId("uji.kad.internal", "lain")


@pytest.mark.parametrize("shared", [False, True])
def test_a_later_epoch_is_held_until_the_log_says_that_it_goes_on(*, shared: bool) -> None:
    fence = Fence(shared=shared, simpul=SIMPUL, held=True)
    assert fence.state is FenceState.FENCED
    assert not fence.told(PEER, 1, 1, 3)
    # Not even the simpul's word opens it: what matters is its log, here.
    told = fence.told(SIMPUL, 1, 1, 3) if shared else False
    assert not told
    assert fence.state is FenceState.FENCED
    assert fence.release(1, 3)
    assert fence.state is FenceState.OPEN
    assert not fence.release(1, 3)


def test_a_later_epoch_that_was_shared_waits_for_both() -> None:
    fence = Fence(shared=True, simpul=SIMPUL, held=True)
    assert not fence.release(1, 3)
    assert fence.state is FenceState.FENCED
    assert not fence.told(SIMPUL, 2, 1, 3), "others hold more than this home"
    assert fence.settle(2, 3)
