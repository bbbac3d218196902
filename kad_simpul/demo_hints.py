"""What to try next, at the end of a demonstration: commands that can be pasted as they stand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kad_node.cli.common import err, out
from kad_node.messages import _

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kad_node.home import Home

__all__ = ["look_around"]


def look_around(commands: Iterable[tuple[str, Home, str]], *, quiet: bool) -> None:
    """Show how to look around.

    Args:
        commands: program, in whose home, and the rest of the line.
        quiet: standard output is for programs.
    """
    console = err if quiet else out
    console.print(f"\n[bold]{_('Look around, in another window:')}[/]")
    for program, home, rest in commands:
        # Not broken into lines, or it could not be pasted.
        console.print(f"  {_program(program)} --home {home.path} {rest}", soft_wrap=True, highlight=False)


def _program(name: str) -> str:
    """How to call a program of ours from here: by its name if the shell finds it, else by its path."""
    if shutil.which(name):
        return name
    beside = Path(sys.argv[0]).parent / name
    try:
        return str(beside.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
