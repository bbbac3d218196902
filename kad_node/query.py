"""The small languages of the API: filters (a subset of AIP-160), orders (AIP-132), page tokens (AIP-158), resume tokens.

Pure: text in, values out, nothing of SQL.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_protocol import vocabulary
from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.names import parse_member_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

__all__ = ["Filter", "ResumeToken", "Term", "decode_page", "encode_page", "fitting", "parse_filter", "parse_order"]

_TIMES = frozenset({"create_time", "update_time", "start_time", "end_time"})
_ENUMS = {"kind": "RecordKind", "state": "RecordState", "audience": "Audience", "sector": "Sector"}
_FIELDS = _TIMES | _ENUMS.keys() | {"forum", "federation", "region", "tag"}
_ORDERS = ("update_time", "create_time", "start_time", "name")
_TOKEN = re.compile(r"\s*(?:(?P<quoted>\"(?:[^\"\\]|\\.)*\")|(?P<op><=|>=|<|>|=)|(?P<word>[^\s\"<>=]+))")
_MAX_TERMS = 20
_MAX_FILTER_LENGTH = 2000
_MAX_TOKEN_LENGTH = 1024
#: Of one page: with the largest single record on top of it still less than a member's port sends, and half of what clients take.
_PAGE_BYTES = 768 << 10
_FRAMING_BYTES = 6
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison. Times are microseconds since 1970, enums are numbers, all else is text."""

    field: str
    operator: str
    value: int | str


@dataclass(frozen=True, slots=True)
class Filter:
    """Comparisons that must all hold."""

    terms: tuple[Term, ...] = ()


def _wrong(text: str, position: int, message: str) -> InvalidInputError:
    return InvalidInputError(Reason.INVALID_FILTER, f"filter, at character {position + 1}: {message}", filter=text[:200])


def parse_filter(text: str) -> Filter:
    """Read ``comparison (AND comparison)*``.

    Raises:
        InvalidInputError: ``INVALID_FILTER``, with the place and what was expected there; also over 2,000 characters or 20 comparisons.
    """
    if len(text) > _MAX_FILTER_LENGTH:
        raise _wrong(text, _MAX_FILTER_LENGTH, f"at most {_MAX_FILTER_LENGTH} characters")
    tokens: list[tuple[str, str, int]] = []
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if found is None:
            raise _wrong(text, position, "a quotation mark is not closed")
        kind = found.lastgroup or ""
        tokens.append((kind, found.group(kind), found.start(kind)))
        position = found.end()
    terms: list[Term] = []
    index = 0
    while index < len(tokens):
        if terms:
            if tokens[index][1] != "AND":
                raise _wrong(text, tokens[index][2], "AND is expected between comparisons")
            index += 1
        if len(tokens) - index < 3:  # noqa: PLR2004 - field, operator, value
            raise _wrong(text, len(text), "a comparison such as kind = REGULATION is expected")
        terms.append(_term(text, tokens[index], tokens[index + 1], tokens[index + 2]))
        index += 3
        if len(terms) > _MAX_TERMS:
            raise _wrong(text, position, f"at most {_MAX_TERMS} comparisons")
    return Filter(tuple(terms))


def _term(text: str, field: tuple[str, str, int], operator: tuple[str, str, int], value: tuple[str, str, int]) -> Term:
    name, sign, word = field[1], operator[1], value[1]
    if field[0] != "word" or name not in _FIELDS:
        raise _wrong(text, field[2], f"a field is expected: {', '.join(sorted(_FIELDS))}")
    if operator[0] != "op" or (sign != "=" and name not in _TIMES):
        raise _wrong(text, operator[2], "= is expected" if name not in _TIMES else "=, <, <=, > or >= is expected")
    if value[0] == "op":
        raise _wrong(text, value[2], "a value is expected")
    if value[0] == "quoted":
        word = re.sub(r"\\(.)", r"\1", word[1:-1])
    if name in _TIMES:
        return Term(name, sign, _micros(text, word, value[2]))
    if name in _ENUMS:
        try:
            number = vocabulary.find(_ENUMS[name], word).number
        except InvalidInputError as error:
            raise _wrong(text, value[2], str(error)) from error
        return Term(name, sign, str(number) if name == "sector" else number)
    if name == "forum":
        try:
            parse_member_name(word)
        except InvalidInputError as error:
            raise _wrong(text, value[2], str(error)) from error
    return Term(name, sign, word.casefold() if name == "tag" else word)


def _micros(text: str, word: str, position: int) -> int:
    try:
        moment = datetime.datetime.fromisoformat(word)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return (moment - _EPOCH) // datetime.timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        raise _wrong(text, position, "a time such as 2027-01-12T09:00:00Z is expected") from error


def parse_order(text: str) -> tuple[str, bool]:
    """Read ``field`` or ``field desc``; empty means newest first. Returns the field and whether it descends.

    Raises:
        InvalidInputError: ``INVALID_FILTER``.
    """
    words = text.split()
    if not words:
        return "update_time", True
    if words[0] not in _ORDERS or words[1:] not in ([], ["asc"], ["desc"]):
        raise InvalidInputError(Reason.INVALID_FILTER, f"order_by is one of {', '.join(_ORDERS)}, with or without ' desc'", order=text[:60])
    return words[0], words[1:] == ["desc"]


def _pack(value: Any) -> str:  # noqa: ANN401 - JSON
    data = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data + hashlib.sha256(data).digest()[:4]).decode().rstrip("=")


def _unpack(token: str) -> Any:  # noqa: ANN401 - JSON
    if len(token) > _MAX_TOKEN_LENGTH:
        raise ValueError("length")
    data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    if hashlib.sha256(data[:-4]).digest()[:4] != data[-4:]:
        raise ValueError("checksum")
    return json.loads(data[:-4])


def _is_value(part: object) -> bool:
    """Can an engine compare rows with this? The checksum keeps slips out, not people."""
    if isinstance(part, str):
        return part.isascii() or not re.search("[\ud800-\udfff]", part)
    return type(part) is int and -1 << 63 <= part < 1 << 63


def _fingerprint(*question: object) -> str:
    return hashlib.sha256(repr(question).encode()).hexdigest()[:12]


def fitting(messages: Sequence[Message], most: int) -> int:
    """How many of these messages make one page: at most so many, and what a client takes who has set nothing; at least one."""
    used = 0
    for number, message in enumerate(messages[:most]):
        used += message.ByteSize() + _FRAMING_BYTES
        if number and used > _PAGE_BYTES:
            return number
    return min(len(messages), most)


def encode_page(key: list[Any], *question: object) -> str:
    """A token that names the last row of a page by its values, so that inserts move nothing. ``question``: what was asked."""
    return _pack([_fingerprint(*question), *key])


def decode_page(token: str, length: int, *question: object) -> list[Any] | None:
    """The values in a page token, None for an empty one.

    Raises:
        InvalidInputError: ``INVALID_PAGE_TOKEN``: not one of ours, or of another question.
    """
    if not token:
        return None
    try:
        fingerprint, *key = _unpack(token)
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise InvalidInputError(Reason.INVALID_PAGE_TOKEN, "this is not a page token") from error
    if fingerprint != _fingerprint(*question) or len(key) != length or not all(map(_is_value, key)):
        raise InvalidInputError(Reason.INVALID_PAGE_TOKEN, "the page token belongs to another request")
    return list(key)


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """Where a watcher is: a place in the arrivals of one store."""

    instance: str
    sequence: int

    def encode(self) -> str:
        """The token."""
        return _pack([self.instance, self.sequence])

    @staticmethod
    def decode(token: str, instance: str) -> int:
        """The place.

        Raises:
            InvalidInputError: ``INVALID_RESUME_TOKEN``: not one of ours, or of another node.
        """
        try:
            found, sequence = _unpack(token)
        except (ValueError, TypeError, binascii.Error, RecursionError) as error:
            raise InvalidInputError(Reason.INVALID_RESUME_TOKEN, "this is not a resume token") from error
        if found != instance or type(sequence) is not int or not 0 <= sequence < 1 << 62:
            raise InvalidInputError(Reason.INVALID_RESUME_TOKEN, "the resume token belongs to another node; begin again")
        return sequence
