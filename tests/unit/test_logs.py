"""Logs: one event in a line, and no secret in it."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from kad_node import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def written() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    return stream


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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


def test_structlog_and_libraries_come_out_alike(written: io.StringIO) -> None:
    structlog.get_logger("kad_node.x").info("peer_connected", peer="kartamantul", token="t0k3n")
    logging.getLogger("some.library").warning("odd %s", "thing")
    own, library = (json.loads(line) for line in written.getvalue().splitlines())
    assert (own["event"], own["peer"], own["token"], own["logger"]) == ("peer_connected", "kartamantul", "***", "kad_node.x")
    assert (library["event"], library["level"], library["logger"]) == ("odd thing", "warning", "some.library")
    for event in (own, library):
        assert event["timestamp"].endswith("Z")


def test_auto_is_for_people_on_a_terminal_and_json_elsewhere() -> None:
    for stream, form, human in (
        (Terminal(), "auto", True),
        (io.StringIO(), "auto", False),
        (Terminal(), "json", False),
        (io.StringIO(), "human", True),
    ):
        logs.configure("info", form, stream)
        logging.getLogger("x").info("siap")
        assert stream.getvalue().startswith("{") is not human
        assert "siap" in stream.getvalue()


def test_the_level_can_change_while_running(written: io.StringIO) -> None:
    log = logging.getLogger("kad_node.x")
    log.debug("one")
    logs.set_level("debug")
    log.debug("two")
    logging.getLogger("asyncio").debug("noise")
    logs.set_level("error")
    log.warning("three")
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["two"]


class Odd:
    def __str__(self) -> str:
        return "kad1-odd0odd0odd0"


SECRETS = ("rahasia", "t0k3n", "kad1-", "h3ader")


@pytest.mark.parametrize("form", ["json", "human"])
@pytest.mark.parametrize(
    "facts",
    [
        {"d": {"inner": {"passphrase": "rahasia"}}},
        {"l": ["kad1-abcdefghijklm", ("x", {"Authorization": "Bearer h3ader"})]},
        {"s": {"kad1-abcdefghijklm"}},
        {"b": b"kad1-abcdefghijklm"},
        {"e": ValueError("kad1-abcdefghijklm")},
        {"o": Odd()},
        {"why": "authorization: bearer h3ader"},
        {"why": "BEARER h3ader"},
        {"Recovery_Code": "rahasia", "api_token": "t0k3n", "client_secret": b"rahasia"},
    ],
    ids=lambda facts: str(sorted(facts)),
)
def test_secrets_are_left_out_wherever_they_lie(form: str, facts: dict[str, object]) -> None:
    stream = io.StringIO()
    logs.configure("info", form, stream)
    logging.getLogger("x").info("joined", extra=facts)
    text = stream.getvalue()
    assert "joined" in text
    assert "***" in text
    assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize("stream,form", [(io.StringIO, "json"), (io.StringIO, "human"), (Terminal, "human")])
def test_a_traceback_keeps_secrets(stream, form: str) -> None:
    written = stream()
    logs.configure("info", form, written)
    passphrase = "".join(("raha", "sia"))  # noqa: FLY002 - a constant would stand in the traceback
    try:
        raise ValueError("kad1-" + "abcdefghijklm", len(passphrase))  # noqa: TRY301 - what is logged
    except ValueError:
        logging.getLogger("x").exception("call failed")
    assert "ValueError" in written.getvalue()
    assert "abcdefghijklm'" not in written.getvalue()
    assert "rahasia" not in written.getvalue()


def test_what_others_write_stays_in_its_line_and_moves_no_cursor() -> None:
    stream = io.StringIO()
    logs.configure("info", "human", stream)
    hostile = "a\n12:00:00 [info] all is well\r\x1b[2J\x9b2J\u2028\u202e\x07"
    logging.getLogger("x").info("from a peer: %s", hostile, extra={"why": hostile, "list": [hostile]})
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert "all is well" in line


@pytest.mark.parametrize("form", ["json", "human"])
def test_half_characters_can_be_written(form: str) -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding="utf-8", write_through=True)
    logs.configure("info", form, stream)
    logging.getLogger("x").info("no such file %s", "x\udc80", extra={"path": ["\udc80"]})
    assert b"no such file x" in data.getvalue()
