from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.federation.harness import Federation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[Federation]:
    """A founded federation without members; what still runs at the end is killed."""
    made = Federation(tmp_path)
    try:
        await made.found()
        yield made
    finally:
        await made.close()
