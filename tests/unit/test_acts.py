"""What a simpul does in members' names: the parts that need no federation."""

from __future__ import annotations

import asyncio

import pytest

from kad_protocol.errors import Reason, UnavailableError
from kad_simpul import acts


async def test_a_log_that_cannot_be_judged_ends_the_wait_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "_JUDGING_SECONDS", 0.01)
    with pytest.raises(UnavailableError) as caught:
        await acts._soon(asyncio.Event(), "nothing was written")
    assert caught.value.reason is Reason.WAITING_FOR_FEED
    happened = asyncio.Event()
    happened.set()
    await acts._soon(happened, "")
