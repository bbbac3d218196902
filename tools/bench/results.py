"""Figures with what they must be, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Figure", "save", "show"]


@dataclass(frozen=True)
class Figure:
    """One figure. Where it has a baseline, ``ratio`` is the figure divided by it, taken round by round."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    #: What the ratio must reach, and what we aim at.
    must: float | None = None
    goal: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Is it what it must be?"""
        return self.must is None or (self.ratio is not None and self.ratio >= self.must)


def show(figures: Sequence[Figure], title: str) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for name in ("", "value", "unit", "without", "ratio", "must", "goal", ""):
        table.add_column(name, justify="left" if name in ("", "unit") else "right")
    for figure in figures:
        table.add_row(
            figure.name + (f" ({figure.note})" if figure.note else ""),
            _number(figure.value),
            figure.unit,
            _number(figure.baseline),
            "" if figure.ratio is None else f"{figure.ratio:.3f}",
            "" if figure.must is None else f">= {figure.must:.2f}",
            "" if figure.goal is None else f">= {figure.goal:.2f}",
            "" if figure.must is None else ("ok" if figure.ok else "MISSED"),
        )
    Console(width=150).print(table)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004 - what reads well


def save(figures: Sequence[Figure], machine: dict[str, object], path: Path) -> None:
    """Write JSON: what it was measured on, and the figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"machine": machine, "figures": [asdict(figure) | {"ok": figure.ok} for figure in figures]}, indent=2) + "\n"
    )
