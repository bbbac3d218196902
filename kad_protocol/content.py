"""What records say: the bytes that travel beside entries, their salted digest, and the rules that they must keep.

A *blob* is ``salt || content``: 32 random bytes and a serialised ``Content`` (or profile, or notice). Its SHA-256 is the digest in the
entry. The salt travels with the content and dies with it, so that afterwards nobody can even guess what stood there.

Most rules stand in ``proto/kad/v1/content.proto`` (protovalidate); here is only what cannot be said there.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import re
import secrets
import unicodedata
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message

from kad_protocol.errors import FieldViolation, InvalidInputError, Reason, VerificationError
from kad_protocol.v1 import content_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "MAX_CONTENT_BYTES",
    "SALT_BYTES",
    "check",
    "digest",
    "kind_of",
    "new_blob",
    "parse_content",
    "split",
    "validate",
    "warnings",
]

SALT_BYTES = 32
MAX_CONTENT_BYTES = 1 << 20

_KINDS = {
    "best_practice": content_pb2.RECORD_KIND_BEST_PRACTICE,
    "regulation": content_pb2.RECORD_KIND_REGULATION,
    "agenda_item": content_pb2.RECORD_KIND_AGENDA_ITEM,
}
#: Fields in which people write more than one line.
_LONG_TEXTS = frozenset({"summary", "problem", "solution", "results", "lessons", "note", "text", "description", "reason"})
#: Characters that turn the direction of a line; they can make a name look like another.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RRULE = re.compile(r"[A-Z]+=[A-Z0-9,+:-]+(?:;[A-Z]+=[A-Z0-9,+:-]+)*")
_FREQUENCIES = frozenset({"DAILY", "WEEKLY", "MONTHLY", "YEARLY"})
_MAX_OCCURRENCES = 1000
_PKS_YEARS = 5


def new_blob(content: bytes) -> bytes:
    """``salt || content`` with a new salt.

    Raises:
        InvalidInputError: ``CONTENT_TOO_LARGE``.
    """
    if len(content) > MAX_CONTENT_BYTES:
        raise InvalidInputError(
            Reason.CONTENT_TOO_LARGE,
            f"the content has {len(content)} bytes, at most {MAX_CONTENT_BYTES} are allowed",
            limit=MAX_CONTENT_BYTES,
        )
    return secrets.token_bytes(SALT_BYTES) + content


def digest(blob: bytes) -> bytes:
    """SHA-256 of a blob: what the entry holds."""
    return hashlib.sha256(blob).digest()


def split(blob: bytes) -> tuple[bytes, bytes]:
    """Salt and content of a blob.

    Raises:
        VerificationError: ``CONTENT_MALFORMED`` if it is shorter than its salt.
    """
    if len(blob) < SALT_BYTES:
        raise VerificationError(Reason.CONTENT_MALFORMED, "a content without its salt")
    return blob[:SALT_BYTES], blob[SALT_BYTES:]


def parse_content(data: bytes) -> content_pb2.Content:
    """Read a content; its rules are not checked yet.

    Raises:
        VerificationError: ``CONTENT_TOO_LARGE``, ``CONTENT_MALFORMED``.
    """
    if len(data) > MAX_CONTENT_BYTES:
        raise VerificationError(Reason.CONTENT_TOO_LARGE, f"a content of {len(data)} bytes", limit=MAX_CONTENT_BYTES)
    try:
        return content_pb2.Content.FromString(data)
    except DecodeError as error:
        raise VerificationError(Reason.CONTENT_MALFORMED, "the bytes are not a content") from error


def kind_of(content: content_pb2.Content) -> int:
    """The ``RecordKind`` of a content, 0 if it has none."""
    return _KINDS.get(content.WhichOneof("kind") or "", content_pb2.RECORD_KIND_UNSPECIFIED)


@functools.cache
def _validator() -> Any:  # noqa: ANN401 - the library's class is not typed
    import protovalidate  # noqa: PLC0415 - compiles all rules when it is first used

    return protovalidate.Validator()


def check_rules(message: Message) -> list[FieldViolation]:
    """What of a message breaks the rules that its proto states."""
    found: list[FieldViolation] = []
    for violation in _validator().collect_violations(message):
        proto = violation.proto
        path = ""
        for element in proto.field.elements:
            path += f"{'.' if path else ''}{element.field_name}"
            if element.subscript is not None and element.subscript.field == "index":
                path += f"[{element.subscript.value}]"
        found.append(FieldViolation(path, proto.message, proto.rule_id))
    return found


def validate(message: Message) -> list[FieldViolation]:
    """What of a content or profile breaks a rule; empty when all is well."""
    found = check_rules(message)
    for path, owner, name, value in _strings(message, ""):
        problem = _text_problem(value, long=name in _LONG_TEXTS)
        if problem:
            found.append(FieldViolation(path, problem, "kad.text"))
        elif name == "recurrence" and value and (problem := _recurrence_problem(value)):
            found.append(FieldViolation(path, problem, "kad.recurrence"))
        del owner
    found.extend(
        FieldViolation(path, "there is no such day", "kad.date")
        for path, date in _messages(message, "", content_pb2.Date)
        if not _real(date)
    )
    return found


def check(message: Message) -> None:
    """Refuse a content or profile that breaks a rule.

    Raises:
        InvalidInputError: ``INVALID_FIELD`` with one violation for each broken rule.
    """
    violations = validate(message)
    if violations:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        raise InvalidInputError(
            Reason.INVALID_FIELD, f"{first.field or 'the record'}: {first.description}{more}", violations, field=first.field
        )


def warnings(content: content_pb2.Content, now: datetime.datetime) -> list[FieldViolation]:
    """What is allowed but deserves a look."""
    found: list[FieldViolation] = []
    if content.WhichOneof("kind") == "regulation":
        regulation = content.regulation
        if regulation.instrument == content_pb2.INSTRUMENT_COOPERATION_AGREEMENT and regulation.HasField("valid_until"):
            start = regulation.date_effective if regulation.HasField("date_effective") else regulation.date_made
            years = regulation.valid_until.year - start.year
            later = (regulation.valid_until.month, regulation.valid_until.day) > (start.month, start.day)
            if start.year and (years > _PKS_YEARS or (years == _PKS_YEARS and later)):
                found.append(
                    FieldViolation("regulation.valid_until", "a cooperation agreement is valid for at most five years (PP 28/2018)")
                )
    if content.WhichOneof("kind") == "agenda_item" and content.agenda_item.start_time.ToDatetime(datetime.UTC) < now:
        found.append(FieldViolation("agenda_item.start_time", "this lies in the past"))
    found.extend(
        FieldViolation(f"contacts[{i}]", "this is personal data (UU 27/2022); an office would do better")
        for i, contact in enumerate(content.contacts)
        if contact.personal_data
    )
    return found


def _walk(message: Message, path: str) -> Iterator[tuple[str, str, Any]]:
    """Every set field: path, name, value; repeated ones element by element."""
    for descriptor, value in message.ListFields():
        where = f"{path}.{descriptor.name}" if path else descriptor.name
        if isinstance(value, (str, bytes, int, float, Message)):
            yield where, descriptor.name, value
        else:
            for index, item in enumerate(value):
                yield f"{where}[{index}]", descriptor.name, item


def _strings(message: Message, path: str) -> Iterator[tuple[str, Message, str, str]]:
    for where, name, value in _walk(message, path):
        if isinstance(value, str):
            yield where, message, name, value
        elif isinstance(value, Message):
            yield from _strings(value, where)


def _messages(message: Message, path: str, kind: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    for where, _, value in _walk(message, path):
        if isinstance(value, Message):
            if value.DESCRIPTOR.name == getattr(kind, "DESCRIPTOR").name:  # noqa: B009 - generated classes hide it from the type checker
                yield where, value
            yield from _messages(value, where, kind)


def _text_problem(text: str, *, long: bool) -> str:
    if not text.isprintable():
        allowed = "\n\t" if long else ""
        for character in text:
            if character not in allowed and unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"):
                return f"the character U+{ord(character):04X} is not allowed here"
    if not long and _BIDI.search(text):
        return "characters that turn the writing direction are not allowed here"
    if not unicodedata.is_normalized("NFC", text):
        return "the text must be in Unicode normal form C"
    return ""


def _recurrence_problem(rule: str) -> str:
    if not _RRULE.fullmatch(rule):
        return "this is not an RRULE of RFC 5545, such as FREQ=MONTHLY;COUNT=12"
    parts = dict(part.split("=", 1) for part in rule.split(";"))
    if parts.get("FREQ") not in _FREQUENCIES:
        return f"FREQ is one of {', '.join(sorted(_FREQUENCIES))}"
    count = parts.get("COUNT", "1")
    if not count.isdigit() or not 1 <= int(count[:9]) <= _MAX_OCCURRENCES:
        return f"COUNT is 1 to {_MAX_OCCURRENCES}"
    return ""


def _real(date: content_pb2.Date) -> bool:
    try:
        datetime.date(date.year, date.month or 1, date.day or 1)
    except ValueError:
        return False
    return True
