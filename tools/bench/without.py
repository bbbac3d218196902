"""A daemon that exchanges, and neither witnesses nor judges: the other side of the comparison.

``python -m tools.bench.without kad_simpul --home DIR run``. The product has no switch for this, on purpose: here its parts are replaced
before it starts. It goes on from stores in which the founding of the federation was judged; what is folded is the same as ever, and the
simpul observes as ever.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING, Any

from kad_node.store.transaction import SqliteTransaction
from kad_node.witness import Witness
from kad_protocol import fold, order
from kad_simpul.steward import Steward

if TYPE_CHECKING:
    from collections.abc import Callable


def _replace(owner: Any, name: str, value: Callable[..., Any]) -> None:  # noqa: ANN401 - a class or a module
    if not hasattr(owner, name):
        raise SystemExit(f"{owner.__name__}.{name} is not there any more; the comparison would compare nothing")
    setattr(owner, name, value)


async def _nothing(*_: object) -> list[Any]:
    return []


async def _for_ever(*_: object) -> None:
    await asyncio.Event().wait()


def main() -> None:
    """Leave the checks out, then be the daemon that was named."""
    _replace(order, "advance", fold.advance)
    _replace(SqliteTransaction, "waits_for_review", lambda *_: False)
    _replace(Witness, "notice", lambda *_: False)
    for name in ("propose", "take", "shown", "grown"):
        _replace(Witness, name, _nothing)
    _replace(Steward, "run", _for_ever)
    program = sys.argv.pop(1)
    importlib.import_module(f"{program}.cli").main()


main()
