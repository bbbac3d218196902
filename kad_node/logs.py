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
_SECRET_TEXT = re.compile(r"kad1-[A-Za-z0-9_-]{8,}|(?<=[Bb]earer )\S+")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = _SECRET_TEXT.sub("***", value)
    return event


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
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redact, *last]
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
