"""Logs: one event in a line, and no secret in it."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest

from kad_node import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def test_events_are_json_lines_with_their_facts(written: io.StringIO) -> None:
    logging.getLogger("kad_node.x").info("peer connected", extra={"peer": "kartamantul"})
    logging.getLogger("kad_node.x").debug("not at this level")
    (line,) = written.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["peer"], event["level"]) == ("peer connected", "kartamantul", "info")


def test_secrets_are_left_out(written: io.StringIO) -> None:
    log = logging.getLogger("kad_node.x")
    log.info("joined with kad1-CiQabcdefghijklmnop", extra={"passphrase": "rahasia", "api_token": "t0k3n", "why": "Bearer abcdef123"})
    text = written.getvalue()
    assert json.loads(text)["passphrase"] == "***"
    for secret in ("CiQabcdef", "rahasia", "t0k3n", "abcdef123"):
        assert secret not in text


def test_accidents_keep_their_traceback_in_one_line(written: io.StringIO) -> None:
    try:
        raise ValueError("aduh")  # noqa: TRY301 - what is logged
    except ValueError:
        logging.getLogger("kad_node.x").exception("call failed")
    (line,) = written.getvalue().splitlines()
    assert "aduh" in json.loads(line)["exception"]
