"""The comparison of ``make bench`` leaves out what is there: whatever is renamed, it does not compare nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("program", ["kad_node", "kad_simpul"])
def test_the_daemon_without_the_checks_can_be_begun(program: str) -> None:
    command = [sys.executable, "-m", "tools.bench.without", program, "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"KAD_LANG": "en"})
    assert done.returncode == 0, done.stderr
    assert "is not there any more" not in done.stderr
