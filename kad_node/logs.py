"""Logs: one event in a line, for people on a terminal, as JSON elsewhere, and without secrets in either."""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["configure", "set_level"]

_SECRET_KEYS = re.compile(r"secret|token|passphrase|password|authorization|invitation_code|recovery", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"kad1-[a-z0-9_-]{8,}|(?<=bearer )\S+", re.IGNORECASE)
#: What moves a terminal's cursor, ends a line or turns its direction round: texts of others stand in our lines.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Leave secrets out, by the name of their key or by their look, however deep they lie."""
    return {key: _without_secrets(key, value) for key, value in event.items()}


def _without_secrets(key: object, value: Any) -> Any:  # noqa: ANN401 - whatever is logged
    if isinstance(key, str) and _SECRET_KEYS.search(key):
        return "***"
    match value:
        case None | bool() | int() | float():
            return value
        case dict():
            return {str(inner): _without_secrets(inner, item) for inner, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_secrets(None, item) for item in value]
        case _:
            # Half characters, such as those of a file name that is not UTF-8, could not be written.
            return _SECRET_TEXT.sub("***", str(value)).encode(errors="backslashreplace").decode()


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """For people: nothing that is logged ends the line or reaches the terminal as a command; a traceback keeps its lines."""
    return {key: _printable(value, "\n" if key == "exception" else "") if isinstance(value, str) else value for key, value in event.items()}


def _printable(text: str, kept: str) -> str:
    return _CONTROL.sub(lambda found: found[0] if found[0] == kept else ascii(found[0])[1:-1], text)


def _extras(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What library loggers give with ``extra=``."""
    record: Any = event.get("_record")
    if record is not None:
        event.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
    return event


def configure(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Send all logging of this process through one handler.

    Args:
        level: debug, info, warning or error.
        form: ``human``, ``json``, or ``auto``: human on a terminal.
        stream: where to; standard error by default.
    """
    stream = stream or sys.stderr
    human = form == "human" or (form == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _extras,
        structlog.processors.TimeStamper("%H:%M:%S" if human else "iso", utc=not human),
    ]
    last: list[Any] = (
        # Plain: a pretty traceback shows local variables, and a passphrase is one.
        [_one_line, structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if human
        else [structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Before the redaction: a traceback quotes what was refused.
            structlog.processors.format_exc_info,
            _redact,
            *last,
        ],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def set_level(level: str) -> None:
    """Change how much is said, while running."""
    logging.getLogger().setLevel(level.upper())
    for noisy in ("asyncio", "aiosqlite", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
