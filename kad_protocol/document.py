"""Records as people write them: YAML or JSON documents, with Indonesian or English keys and words.

A document is flat: what all records have and what this kind has stand side by side, for example::

    jenis: regulasi                  # or  kind: regulation
    judul: Perjanjian Kerja Sama Pengelolaan TPA Regional
    instrumen: PKS
    nomor: [18 Tahun 2027]
    wilayah: [34.71 Kota Yogyakarta, 34.04]
    tanggal_ditetapkan: 2027-01-12

Reading is strict where a slip would be silent (unknown keys, words that mean nothing) and kind where it would not: every complaint names
the key as it was written and what comes closest to it.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import yaml

from kad_protocol import vocabulary
from kad_protocol.content import MAX_CONTENT_BYTES, kind_of
from kad_protocol.errors import FieldViolation, InvalidInputError, Reason
from kad_protocol.v1 import content_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

__all__ = ["Document", "dump", "from_document", "load", "profile_from_document", "template", "to_document"]

_KINDS = {"BEST_PRACTICE": "best_practice", "REGULATION": "regulation", "AGENDA_ITEM": "agenda_item"}
TEMPLATES = ("best-practice", "regulation", "agenda-item", "profile")
_MAX_DEPTH = 20

#: Indonesian keys. English ones are the names of the contract.
INDONESIAN_KEYS = {
    "kind": "jenis",
    "audience": "jangkauan",
    "title": "judul",
    "summary": "ringkasan",
    "language": "bahasa",
    "tags": "kata_kunci",
    "sectors": "urusan",
    "topics": "topik",
    "regions": "wilayah",
    "related_records": "dokumen_terkait",
    "contacts": "kontak",
    "problem": "masalah",
    "solution": "solusi",
    "results": "hasil",
    "lessons": "pelajaran",
    "cost": "biaya",
    "amount_rupiah": "jumlah_rupiah",
    "note": "catatan",
    "period": "periode",
    "start": "mulai",
    "end": "selesai",
    "code": "kode",
    "name": "nama",
    "role": "jabatan",
    "phone": "telepon",
    "personal_data": "data_pribadi",
    "instrument": "instrumen",
    "instrument_text": "nama_instrumen",
    "form": "bentuk_kerja_sama",
    "category": "kategori",
    "stage": "tahap",
    "numbers": "nomor",
    "signatories": "penandatangan",
    "date_made": "tanggal_ditetapkan",
    "date_promulgated": "tanggal_diundangkan",
    "date_effective": "tanggal_berlaku",
    "valid_until": "berlaku_sampai",
    "subjects": "subjek",
    "relations": "hubungan",
    "type": "macam",
    "record": "dokumen",
    "text": "teks",
    "articles": "pasal",
    "number": "nomor_pasal",
    "gazette": "lembaran",
    "place_made": "tempat_ditetapkan",
    "meeting_kind": "macam_acara",
    "start_time": "waktu_mulai",
    "end_time": "waktu_selesai",
    "time_zone": "zona_waktu",
    "all_day": "sepanjang_hari",
    "recurrence": "perulangan",
    "place": "tempat",
    "online_url": "tautan_daring",
    "organiser": "penyelenggara",
    "invited_forums": "forum_diundang",
    "description": "keterangan",
    "level": "tingkat",
    "basis": "dasar",
    "format": "format",
    "network_type": "jenis_jejaring",
    "management": "pengelola",
    "founded": "didirikan",
    "seat": "kedudukan",
    "member_regions": "wilayah_anggota",
    "funding": "pendanaan",
    "partners": "mitra",
    "website": "situs_web",
    "email": "surel",
}
#: `status` is the same word in both languages.

_ZONES = {"WIB": "Asia/Jakarta", "WITA": "Asia/Makassar", "WIT": "Asia/Jayapura"}
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_REGION = re.compile(r"(\d{2}(?:\.\d{2}(?:\.\d{2}(?:\.\d{4})?)?)?)\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """A record as somebody wrote it: its content and who may read it."""

    content: content_pb2.Content
    audience: int


def _wrong(path: str, message: str) -> InvalidInputError:
    return InvalidInputError(Reason.INVALID_FIELD, f"{path}: {message}", [FieldViolation(path, message)], field=path)


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which can grow beyond any limit, and without guessing dates and times."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float", "tag:yaml.org,2002:int")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(text: str) -> dict[str, Any]:
    """Read YAML or JSON (which is YAML); all values are text, lists, mappings, true, false or nothing.

    Raises:
        InvalidInputError: ``INVALID_FILE``, with line and column.
    """
    if len(text) > 2 * MAX_CONTENT_BYTES:
        raise InvalidInputError(Reason.CONTENT_TOO_LARGE, "the document is too large", limit=MAX_CONTENT_BYTES)
    try:
        loader = _Loader(text)
        try:
            data = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidInputError(Reason.INVALID_FILE, f"{where}{error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"this is not YAML or JSON: {str(error)[:200]}") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InvalidInputError(Reason.INVALID_FILE, "a document is a list of 'key: value' lines")
    return data


def from_document(data: Mapping[str, Any]) -> Document:
    """The record that a document describes; its rules are not checked here (``content.check``).

    Raises:
        InvalidInputError: ``INVALID_FIELD``.
    """
    values = dict(data)
    kind = _take(values, "kind")
    if kind is None:
        raise _wrong("kind", "say what it is: best-practice, regulation or agenda-item (jenis: praktik-baik, regulasi, agenda)")
    part = _KINDS[_word("RecordKind", kind, "kind").name]
    audience_word = _take(values, "audience")
    audience = content_pb2.AUDIENCE_FEDERATION if audience_word is None else _word("Audience", audience_word, "audience").number
    zone = values.get("time_zone", values.get(INDONESIAN_KEYS["time_zone"]))
    content = content_pb2.Content(language="id")
    special = getattr(content, part)
    special.SetInParent()
    common = {field.name for field in content_pb2.Content.DESCRIPTOR.fields if field.containing_oneof is None}
    own = {field.name for field in special.DESCRIPTOR.fields}
    for key, value in values.items():
        name = _field_name(key, common | own, key)
        _set(content if name in common else special, name, value, key, _Zone(zone), 0)
    if part == "agenda_item" and not special.time_zone:
        special.time_zone = _ZONES["WIB"]
    return Document(content, audience)


def profile_from_document(data: Mapping[str, Any]) -> content_pb2.ForumProfile:
    """The profile that a document describes.

    Raises:
        InvalidInputError: ``INVALID_FIELD``.
    """
    values = dict(data)
    _take(values, "kind")
    profile = content_pb2.ForumProfile()
    names = {field.name for field in profile.DESCRIPTOR.fields}
    for key, value in values.items():
        _set(profile, _field_name(key, names, key), value, key, _Zone(None), 0)
    return profile


def _take(values: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - whatever the document has
    english, indonesian = values.pop(name, None), values.pop(INDONESIAN_KEYS[name], None)
    return english if english is not None else indonesian


def _word(enum: str, value: Any, path: str) -> vocabulary.Term:  # noqa: ANN401
    if not isinstance(value, str):
        raise _wrong(path, "one word is expected here")
    try:
        return vocabulary.find(enum, value)
    except InvalidInputError as error:
        raise _wrong(path, str(error)) from error


@cache
def _aliases() -> dict[str, str]:
    return {indonesian: english for english, indonesian in INDONESIAN_KEYS.items()}


def _field_name(key: str, known: set[str], path: str) -> str:
    if key in known:
        return key
    english = _aliases().get(key)
    if english in known:
        return english
    words = sorted(known | {INDONESIAN_KEYS.get(name, name) for name in known})
    close = get_close_matches(key, words, 1, 0.6)
    hint = f", did you mean '{close[0]}'?" if close else ""
    raise _wrong(path, f"this key is not known{hint}")


@dataclass(frozen=True, slots=True)
class _Zone:
    """The zone in which the document's times are meant."""

    name: Any

    def info(self, path: str) -> ZoneInfo:
        name = self.name if self.name not in (None, "") else "WIB"
        try:
            return ZoneInfo(_ZONES.get(str(name).upper(), str(name)))
        except (KeyError, ValueError, OSError) as error:
            raise _wrong(path, f"the time zone {str(name)[:40]!r} is not known; WIB, WITA or WIT") from error


def _set(message: Message, name: str, value: Any, path: str, zone: _Zone, depth: int) -> None:  # noqa: ANN401
    """Set one field from what the document says; nothing (an empty line of a template) leaves it unset."""
    if value is None or value in ("", [], {}):
        return
    if depth > _MAX_DEPTH:
        raise _wrong(path, "nested too deeply")
    field: Any = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        target = getattr(message, name)
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            where = f"{path}[{index}]"
            if item is None:
                continue
            if field.message_type is not None:
                _fill(target.add(), item, where, zone, depth + 1)
            else:
                target.append(_scalar(field, item, where))
    elif field.message_type is not None:
        child = getattr(message, name)
        child.SetInParent()
        _fill(child, value, path, zone, depth + 1)
    else:
        if name == "time_zone" and isinstance(value, str):
            value = _ZONES.get(value.upper(), value)
        setattr(message, name, _scalar(field, value, path))


def _scalar(field: FieldDescriptor, value: Any, path: str) -> Any:  # noqa: ANN401
    if field.enum_type is not None:
        return _word(field.enum_type.name, value, path).number
    if field.type == field.TYPE_BOOL:
        if not isinstance(value, bool):
            raise _wrong(path, "yes or no is expected here (true or false)")
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _wrong(path, "a single value is expected here")
    if field.type == field.TYPE_STRING:
        return str(value).strip()
    digits = str(value).replace(".", "").replace("_", "").strip().removeprefix("Rp")
    if not re.fullmatch(r"-?[0-9]{1,18}", digits):
        raise _wrong(path, "a whole number is expected here")
    return int(digits)


def _fill(message: Message, value: Any, path: str, zone: _Zone, depth: int) -> None:  # noqa: ANN401
    """Fill a nested message from a mapping or from its short form in text."""
    descriptor: Any = message.DESCRIPTOR
    if isinstance(value, dict):
        names = {field.name for field in descriptor.fields}
        for key, item in value.items():
            where = f"{path}.{key}"
            _set(message, _field_name(str(key), names, where), item, where, zone, depth)
        return
    if isinstance(value, (list, bool)):
        raise _wrong(path, "keys and values are expected here")
    text = str(value).strip()
    match descriptor.full_name:
        case "google.protobuf.Timestamp":
            _fill_time(message, text, path, zone)
        case "kad.v1.Date":
            _fill_date(message, text, path)
        case "kad.v1.Region":
            if (found := _REGION.fullmatch(text)) is None:
                raise _wrong(path, "a region begins with its code, such as '34.71 Kota Yogyakarta'")
            setattr(message, "code", found.group(1))  # noqa: B010 - a generated class
            setattr(message, "name", found.group(2))  # noqa: B010
        case "kad.v1.Cost":
            setattr(message, "amount_rupiah", _scalar(descriptor.fields_by_name["amount_rupiah"], text, path))  # noqa: B010
        case _ if (first := descriptor.fields[0]).type == first.TYPE_STRING:
            setattr(message, first.name, text)
        case _:
            raise _wrong(path, "keys and values are expected here")


def _fill_date(message: Any, text: str, path: str) -> None:  # noqa: ANN401
    found = _DATE.fullmatch(text)
    if found is None:
        raise _wrong(path, "a date is 2027-01-12, 2027-01 or 2027")
    message.year, message.month, message.day = (int(part or 0) for part in found.groups())


def _fill_time(message: Any, text: str, path: str, zone: _Zone) -> None:  # noqa: ANN401
    try:
        moment = datetime.datetime.fromisoformat(text.replace("pukul", " ").replace("  ", " ").strip())
    except ValueError as error:
        raise _wrong(path, "a time is '2027-01-12 09:00', in the zone that time_zone (zona_waktu) names") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone.info(path))
    try:
        message.FromDatetime(moment.astimezone(datetime.UTC).replace(tzinfo=None))
    except (ValueError, OverflowError) as error:
        raise _wrong(path, "this time lies too far away") from error


def to_document(content: content_pb2.Content, audience: int, language: str = "en") -> dict[str, Any]:
    """The document of a content; ``from_document`` gives the same content back."""
    key = _keys(language)
    kind = next((term for term in vocabulary.terms("RecordKind") if term.number == kind_of(content)), None)
    data: dict[str, Any] = {key("kind"): kind.name.lower().replace("_", "-") if kind else ""}
    if audience:
        data[key("audience")] = vocabulary.terms("Audience")[audience - 1].name.lower()
    special = content.WhichOneof("kind")
    zone = ZoneInfo(content.agenda_item.time_zone or "Asia/Jakarta") if special == "agenda_item" else ZoneInfo("UTC")
    data |= _fields(content, key, zone, skip=special or "")
    if special:
        data |= _fields(getattr(content, special), key, zone)
    return data


def profile_to_document(profile: content_pb2.ForumProfile, language: str = "en") -> dict[str, Any]:
    """The document of a profile."""
    return _fields(profile, _keys(language), ZoneInfo("UTC"))


def _keys(language: str) -> Any:  # noqa: ANN401 - a function
    return (lambda name: INDONESIAN_KEYS.get(name, name)) if language == "id" else (lambda name: name)


def _fields(message: Message, key: Any, zone: ZoneInfo, skip: str = "") -> dict[str, Any]:  # noqa: ANN401
    data: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name != skip:
            items = [_plain(field, item, key, zone) for item in value] if field.is_repeated else _plain(field, value, key, zone)
            data[key(field.name)] = items
    return data


def _plain(field: FieldDescriptor, value: Any, key: Any, zone: ZoneInfo) -> Any:  # noqa: ANN401
    if field.enum_type is not None:
        known = vocabulary.terms(field.enum_type.name)
        return known[value - 1].name.lower() if 1 <= value <= len(known) else ""
    if field.message_type is None:
        return value
    match field.message_type.full_name:
        case "google.protobuf.Timestamp":
            moment = value.ToDatetime(datetime.UTC).astimezone(zone).replace(tzinfo=None)
            return moment.isoformat(" ", "microseconds" if moment.microsecond else "seconds" if moment.second else "minutes")
        case "kad.v1.Date":
            return "-".join([f"{value.year:04d}", *(f"{part:02d}" for part in (value.month, value.day) if part)])
        case "kad.v1.Region":
            return f"{value.code} {value.name}".strip()
        case _:
            return _fields(value, key, zone)


def dump(document: Mapping[str, Any]) -> str:
    """A document as YAML."""
    return yaml.safe_dump(dict(document), allow_unicode=True, sort_keys=False, width=100)


def template(kind: str, language: str = "id") -> str:
    """A commented YAML that can be filled in and published: ``best-practice``, ``regulation``, ``agenda-item``, ``profile``.

    Raises:
        InvalidInputError: ``INVALID_FIELD`` for another word.
    """
    word = kind.lower().replace("_", "-")
    if word not in TEMPLATES:
        word = vocabulary.find("RecordKind", kind).name.lower().replace("_", "-")
    folder = resources.files("kad_protocol") / "templates" / ("id" if language == "id" else "en")
    return (folder / f"{word}.yaml").read_text(encoding="utf-8")
