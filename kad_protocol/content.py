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
from google.protobuf.timestamp_pb2 import Timestamp

from kad_protocol.errors import FieldViolation, InvalidInputError, Reason, VerificationError
from kad_protocol.v1 import content_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

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

#: Random bytes before each content.
SALT_BYTES = 32
#: Most bytes of a serialised content, without its salt.
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
_DAY = "(?:MO|TU|WE|TH|FR|SA|SU)"
#: Parts of an RRULE that are words; those that are numbers follow, with their least and greatest.
_RRULE_WORDS = {
    "FREQ": re.compile("DAILY|WEEKLY|MONTHLY|YEARLY"),
    "UNTIL": re.compile("[0-9]{8}(?:T[0-9]{6}Z)?"),
    "WKST": re.compile(_DAY),
    "BYDAY": re.compile(f"(?:[+-]?[1-9][0-9]?)?{_DAY}(?:,(?:[+-]?[1-9][0-9]?)?{_DAY})*"),
}
_RRULE_NUMBERS = {
    "COUNT": (1, 1000),
    "INTERVAL": (1, 1000),
    "BYMONTH": (1, 12),
    "BYMONTHDAY": (-31, 31),
    "BYYEARDAY": (-366, 366),
    "BYWEEKNO": (-53, 53),
    "BYSETPOS": (-366, 366),
    "BYHOUR": (0, 23),
    "BYMINUTE": (0, 59),
    "BYSECOND": (0, 59),
}
_NUMBER = re.compile("[+-]?[0-9]{1,4}")
#: The years in which times may lie, as in ``Date``.
_FIRST_YEAR, _LAST_YEAR = 1800, 2200
_FIRST_SECOND = int(datetime.datetime(_FIRST_YEAR, 1, 1, tzinfo=datetime.UTC).timestamp())
_END_SECOND = int(datetime.datetime(_LAST_YEAR + 1, 1, 1, tzinfo=datetime.UTC).timestamp())
_NANOS = 1_000_000_000
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
    """What of a content or profile breaks a rule; empty when all is well.

    Paths are those of the contract, such as ``regulation.numbers[2]``; ``document.as_written`` turns them into a document's own.
    """
    found = check_rules(message)
    for path, name, value in _walk(message, ""):
        if isinstance(value, str):
            problem = _text_problem(value, long=name in _LONG_TEXTS)
            if problem:
                found.append(FieldViolation(path, problem, "kad.text"))
            elif name == "recurrence" and (problem := _recurrence_problem(value)):
                found.append(FieldViolation(path, problem, "kad.recurrence"))
        elif (rule := _RULES.get(type(value))) and (broken := rule(value)):
            field, problem, rule_id = broken
            found.append(FieldViolation(f"{path}.{field}" if field else path, problem, rule_id))
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


def warnings(content: content_pb2.Content, now: datetime.datetime, known_regions: Container[str] | None = None) -> list[FieldViolation]:
    """What is allowed but deserves a look.

    Args:
        content: one that keeps the rules; of another, too, this reads what it can.
        now: with its zone.
        known_regions: codes beyond which a region is called unknown; without them no region is.
    """
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
    if content.WhichOneof("kind") == "agenda_item":
        item = content.agenda_item
        last = item.end_time if item.HasField("end_time") else item.start_time
        if not item.recurrence and last.seconds < now.timestamp():
            found.append(FieldViolation("agenda_item.start_time", "this lies in the past"))
    if known_regions is not None:
        found.extend(
            FieldViolation(f"regions[{i}].code", f"no region with the code {region.code} is known here")
            for i, region in enumerate(content.regions)
            if region.code not in known_regions
        )
    found.extend(
        FieldViolation(f"contacts[{i}]", "this is personal data (UU 27/2022); an office would do better")
        for i, contact in enumerate(content.contacts)
        if contact.personal_data
    )
    return found


def _walk(message: Message, path: str) -> Iterator[tuple[str, str, Any]]:
    """Every set field, at any depth: path, name, value; repeated ones element by element."""
    for descriptor, value in message.ListFields():
        where = f"{path}.{descriptor.name}" if path else descriptor.name
        for at, item in [(f"{where}[{i}]", item) for i, item in enumerate(value)] if descriptor.is_repeated else [(where, value)]:
            yield at, descriptor.name, item
            if isinstance(item, Message):
                yield from _walk(item, at)


def _text_problem(text: str, *, long: bool) -> str:
    if not text.isprintable():
        allowed = "\n\t" if long else ""
        for character in text:
            # Not what is unassigned: nodes with older tables of Unicode would judge otherwise than newer ones.
            if character not in allowed and (unicodedata.category(character) in ("Cc", "Cs", "Co", "Zl", "Zp") or _no_character(character)):
                return f"the character U+{ord(character):04X} is not allowed here"
    if not long and _BIDI.search(text):
        return "characters that turn the writing direction are not allowed here"
    if not unicodedata.is_normalized("NFC", text):
        return "the text must be in Unicode normal form C"
    return ""


def _no_character(character: str) -> bool:
    """Whether Unicode promises that this will never be one."""
    last_of_plane = 0xFFFE
    return ord(character) & last_of_plane == last_of_plane or "\ufdd0" <= character <= "\ufdef"


def _recurrence_problem(text: str) -> str:
    parts: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if not equals or (name not in _RRULE_WORDS and name not in _RRULE_NUMBERS):
            return "this is not an RRULE of RFC 5545, such as FREQ=MONTHLY;COUNT=12"
        if name in parts:
            return f"{name} is given twice"
        if problem := _recurrence_part_problem(name, value):
            return problem
        parts[name] = value
    if "FREQ" not in parts:
        return "FREQ is missing: DAILY, WEEKLY, MONTHLY or YEARLY"
    if "COUNT" in parts and "UNTIL" in parts:
        return "only one of COUNT and UNTIL may be given"
    return ""


def _recurrence_part_problem(name: str, value: str) -> str:
    if name in _RRULE_WORDS:
        if not _RRULE_WORDS[name].fullmatch(value):
            return f"{name} is not one that RFC 5545 knows here"
        if name == "UNTIL":
            try:
                datetime.datetime.strptime(value, "%Y%m%dT%H%M%SZ" if "T" in value else "%Y%m%d")  # noqa: DTZ007 - only whether it exists
            except ValueError:
                return "UNTIL is no day, such as 20271231"
        return ""
    least, most = _RRULE_NUMBERS[name]
    numbers = value.split(",") if name.startswith("BY") else [value]
    for number in numbers:
        if not _NUMBER.fullmatch(number) or not least <= int(number) <= most or (least < 0 and int(number) == 0):
            return f"{name} is {least} to {most}"
    return ""


#: The field inside the message (or nothing, for the message itself), what is wrong with it, the name of the rule.
_Broken = tuple[str, str, str]


def _date_rule(date: content_pb2.Date) -> _Broken | None:
    try:
        datetime.date(date.year, date.month or 1, date.day or 1)
    except ValueError:
        return "", "there is no such day", "kad.date"
    return None


def _time_rule(time: Timestamp) -> _Broken | None:
    if not _FIRST_SECOND <= time.seconds < _END_SECOND or not 0 <= time.nanos < _NANOS:
        return "", f"a time lies in the years {_FIRST_YEAR} to {_LAST_YEAR}", "kad.time"
    return None


def _period_rule(period: content_pb2.Period) -> _Broken | None:
    if period.HasField("end") and _surely_before(period.end, period.start):
        return "end", "the end lies before the start", "kad.order"
    return None


def _regulation_rule(regulation: content_pb2.Regulation) -> _Broken | None:
    others = (regulation.date_made, regulation.date_promulgated, regulation.date_effective)
    if regulation.HasField("valid_until") and any(_surely_before(regulation.valid_until, other) for other in others):
        return "valid_until", "the last day lies before the other dates", "kad.order"
    return None


def _surely_before(one: content_pb2.Date, other: content_pb2.Date) -> bool:
    """Whether a date precedes another, whatever the parts are that are not known of either."""
    for a, b in ((one.year, other.year), (one.month, other.month), (one.day, other.day)):
        if not a or not b:
            return False
        if a != b:
            return a < b
    return False


_RULES: dict[type, Callable[[Any], _Broken | None]] = {
    content_pb2.Date: _date_rule,
    Timestamp: _time_rule,
    content_pb2.Period: _period_rule,
    content_pb2.Regulation: _regulation_rule,
}
