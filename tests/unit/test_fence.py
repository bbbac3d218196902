"""The append fence: what is proved holds it, what is only said holds it for a while, and nobody can hold it for ever with a number."""

from __future__ import annotations

import pytest

from kad_node.fence import CLAIM_SECONDS, Fence, FenceState
from kad_protocol.names import FeedId

SIMPUL, ONE, TWO = (FeedId("uji.kad.internal", name) for name in ("simpul", "satu", "dua"))


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def fence(*, simpul: FeedId | None = None) -> tuple[Fence, Clock]:
    clock = Clock()
    return Fence(shared=True, simpul=simpul, now=clock), clock


def pass_time(kept: Fence, clock: Clock, seconds: float, own_size: int, others: int) -> list[FeedId]:
    clock.time += seconds
    dropped = [claim.peer for claim in kept.drop()]
    kept.settle(own_size, others)
    return dropped


def test_the_simpul_or_two_others_open_it() -> None:
    kept, _ = fence(simpul=SIMPUL)
    assert not kept.told(ONE, 5, 5, 5, 3)
    assert kept.told(SIMPUL, 5, 5, 5, 3)
    kept, _ = fence()
    assert not kept.told(ONE, 5, 5, 5, 3)
    assert kept.silent(TWO, 5, 3)
    assert kept.state is FenceState.OPEN


def test_what_our_keys_signed_holds_it_until_it_is_here_however_long_that_takes() -> None:
    kept, clock = fence(simpul=SIMPUL)
    kept.told(ONE, 3, 9, 5, 3)
    assert not kept.told(SIMPUL, 5, 5, 5, 3)
    assert pass_time(kept, clock, 10 * CLAIM_SECONDS, 5, 3) == []
    assert kept.state is FenceState.FENCED
    assert [(claim.peer, claim.size, claim.until) for claim in kept.claims()] == [(ONE, 9, None)]
    assert not kept.settle(8, 3)
    assert kept.settle(9, 3)


def test_a_bare_number_holds_it_for_a_while_and_once() -> None:
    kept, clock = fence(simpul=SIMPUL)
    assert not kept.told(ONE, 1_000_000, 0, 5, 3)
    assert not kept.told(SIMPUL, 5, 5, 5, 3)
    assert kept.due() == CLAIM_SECONDS
    clock.time += CLAIM_SECONDS / 2
    # Said again it lasts no longer, and it is not taken back by saying less.
    assert not kept.told(ONE, 2_000_000, 0, 5, 3)
    assert not kept.told(ONE, 4, 4, 5, 3)
    assert not kept.silent(ONE, 5, 3)
    assert pass_time(kept, clock, CLAIM_SECONDS / 2, 5, 3) == [ONE]
    assert kept.state is FenceState.OPEN


def test_who_claimed_in_vain_is_not_heard_and_claims_no_more() -> None:
    kept, clock = fence()
    kept.told(ONE, 1_000_000, 0, 5, 3)
    assert pass_time(kept, clock, CLAIM_SECONDS, 5, 3) == [ONE]
    assert not kept.silent(ONE, 5, 3)
    assert not kept.told(ONE, 1_000_000, 0, 5, 3)
    assert kept.claims() == []
    assert not kept.told(TWO, 5, 5, 5, 3), "one of two was heard, the other only claimed"
    assert kept.told(SIMPUL, 5, 5, 5, 3)


def test_members_who_claim_one_after_the_other_hold_it_for_an_hour_at_most() -> None:
    kept, clock = fence(simpul=SIMPUL)
    kept.told(SIMPUL, 5, 5, 5, 90)
    began = clock.time
    for number in range(90):
        kept.told(FeedId("uji.kad.internal", f"palsu-{number}"), 99, 0, 5, 90)
        if kept.state is FenceState.OPEN:
            break
        pass_time(kept, clock, CLAIM_SECONDS - 1, 5, 90)
    assert kept.state is FenceState.OPEN or not kept.claims()
    assert clock.time - began <= 3600 + CLAIM_SECONDS


def test_a_home_from_before_a_rotation_takes_all_of_it_back_first() -> None:
    """The keys that signed what others hold are not known here, so it is a claim; each entry that comes gives it more time."""
    kept, clock = fence()
    kept.told(ONE, 20, 0, 5, 2)
    kept.silent(TWO, 5, 2)
    for size in range(6, 20):
        assert pass_time(kept, clock, CLAIM_SECONDS - 1, size, 2) == []
        assert kept.state is FenceState.FENCED, size
    assert kept.settle(20, 2)


@pytest.mark.parametrize("shared", [False, True])
def test_a_later_epoch_is_held_until_the_log_says_that_it_goes_on(*, shared: bool) -> None:
    kept = Fence(shared=shared, simpul=SIMPUL, held=True)
    assert kept.state is FenceState.FENCED
    assert not kept.told(ONE, 1, 1, 1, 3)
    # Not even the simpul's word opens it: what matters is its log, here.
    told = kept.told(SIMPUL, 1, 1, 1, 3) if shared else False
    assert not told
    assert kept.state is FenceState.FENCED
    assert kept.release(1, 3)
    assert kept.state is FenceState.OPEN
    assert not kept.release(1, 3)


def test_a_later_epoch_that_was_shared_waits_for_both() -> None:
    kept = Fence(shared=True, simpul=SIMPUL, held=True)
    assert not kept.release(1, 3)
    assert kept.state is FenceState.FENCED
    assert not kept.told(SIMPUL, 2, 2, 1, 3), "others hold more than this home"
    assert kept.settle(2, 3)
