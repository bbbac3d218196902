"""A member that floods fills its own measure, and goes on when there is room."""

from __future__ import annotations

import pytest

from kad_protocol.errors import QuotaError, Reason
from kad_protocol.names import FeedId
from kad_simpul.quota import Quota

ONE, TWO = FeedId("uji.kad.internal", "satu"), FeedId("uji.kad.internal", "dua")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(quota: Quota, feed: FeedId) -> float:
    with pytest.raises(QuotaError) as caught:
        quota.check(feed)
    assert caught.value.reason == Reason.QUOTA_EXCEEDED
    return float(caught.value.metadata["retry_after_seconds"])


@pytest.mark.parametrize("entries, size", [(86_400, 0), (0, 864_000)])
def test_who_has_used_all_waits_and_goes_on(entries: int, size: int) -> None:
    clock = Clock()
    quota = Quota(86_400, 864_000, clock)
    quota.check(ONE)
    quota.charge(ONE, entries, size)
    assert refused(quota, ONE) == pytest.approx(60, abs=1)
    quota.check(TWO)
    clock.now += refused(quota, ONE)
    quota.check(ONE)


def test_a_measure_does_not_grow_beyond_a_day() -> None:
    clock = Clock()
    quota = Quota(1000, 1 << 20, clock)
    clock.now += 100 * 86_400
    quota.charge(ONE, 1000, 0)
    refused(quota, ONE)


def test_one_batch_too_much_is_paid_for_later() -> None:
    clock = Clock()
    quota = Quota(86_400, 1 << 30, clock)
    quota.charge(ONE, 86_400 + 600, 0)
    assert refused(quota, ONE) == pytest.approx(660, abs=1)
    # Never longer than a day, whatever was stored at once.
    quota.charge(ONE, 10_000_000, 0)
    assert refused(quota, ONE) == 86_400
