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
import json
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
from kad_protocol.v1 import content_pb2, entry_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

__all__ = [
    "Document",
    "as_written",
    "charter_from_document",
    "charter_to_document",
    "dump",
    "from_document",
    "load",
    "profile_from_document",
    "profile_to_document",
    "statement_from_document",
    "template",
    "to_document",
]

_KINDS = {"BEST_PRACTICE": "best_practice", "REGULATION": "regulation", "AGENDA_ITEM": "agenda_item"}
TEMPLATES = ("best-practice", "regulation", "agenda-item", "profile")
#: Files of other kinds that people fill in.
FORMS = ("statement",)
#: More values than the largest record that keeps the rules can have.
_MAX_NODES = 20_000
#: Of a stranger's text in a message.
_SHOWN = 60

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
    "addressee": "kepada",
    "items": "butir",
    "version": "versi",
    "admission_endorsements": "dukungan_penerimaan",
    "participation_percent": "persen_ikut_memilih",
    "general_percent": "persen_umum",
    "membership_percent": "persen_keanggotaan",
    "charter_percent": "persen_piagam",
    "notice_hours": "jam_pemberitahuan",
    "collective": "fungsi_bersama",
    "function": "fungsi",
    "percent": "persen",
    "lag_seconds": "detik_keterlambatan",
    "chair_term_days": "hari_ketua",
    "seats": "jabatan_lain",
    "feed": "lini",
    "document": "naskah",
    "year": "tahun",
    "month": "bulan",
    "day": "tanggal",
}
#: `status` and `mode` are the same words in both languages.

_ZONES = {"WIB": "Asia/Jakarta", "WITA": "Asia/Makassar", "WIT": "Asia/Jayapura"}
_OUR_ZONES = frozenset({*_ZONES.values(), "Asia/Pontianak"})
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})\s+(?:pukul\s+)?(\d{2})[.:](\d{2})")
_REGION = re.compile(r"(\d{2}(?:\.\d{2}(?:\.\d{2}(?:\.\d{4})?)?)?)(?:\s+(.+))?", re.DOTALL)
#: Digits, in groups of three if there are dots.
_NUMBER = re.compile(r"-?(?:[0-9]{1,18}|[0-9]{1,3}(?:[._][0-9]{3}){1,5})")
_FORM_WORDS = {"pernyataan": "statement", "profil": "profile"}
_YES_NO = {"ya": True, "tidak": False}


@dataclass(frozen=True, slots=True)
class Document:
    """A record as somebody wrote it: its content and who may read it (``kad.v1.Audience``, the federation if nothing was said)."""

    content: content_pb2.Content
    audience: int


def _wrong(path: str, message: str) -> InvalidInputError:
    return InvalidInputError(Reason.INVALID_FIELD, f"{path}: {message}", [FieldViolation(path, message)], field=path)


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:  # noqa: ANN401 - one of two kinds
    return yaml.constructor.ConstructorError(None, None, problem, mark)


class _Loader(yaml.SafeLoader):
    """YAML of text, lists, mappings, true, false and nothing; no aliases and no tags, which can grow or mean anything."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases are not allowed", event.start_mark)
        if self._nodes > _MAX_NODES:
            raise _refused(f"more than {_MAX_NODES} values", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key is one word", key.start_mark)
            if key.value in seen:
                raise _refused(f"the key {key.value[:_SHOWN]!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_KEPT_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "str", "seq", "map"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _KEPT_TAGS} | {
    None: yaml.SafeLoader.yaml_constructors[None]
}


class _Dumper(yaml.SafeDumper):
    """YAML that ``_Loader`` reads: without aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - PyYAML's
        del data
        return True


def load(text: str) -> dict[str, Any]:
    """Read YAML or JSON; all values are text, lists, mappings, true, false or nothing.

    At most 2 Mi characters. Keys are unique; aliases and tags are refused.

    Raises:
        InvalidInputError: ``INVALID_FILE``, in one line, with line and column; ``CONTENT_TOO_LARGE``.
    """
    if len(text) > 2 * MAX_CONTENT_BYTES:
        raise InvalidInputError(Reason.CONTENT_TOO_LARGE, "the document is too large", limit=MAX_CONTENT_BYTES)
    try:
        data = _load_json(text) if text.lstrip("\ufeff \t\r\n").startswith("{") else _load_yaml(text)
    except RecursionError as error:
        raise InvalidInputError(Reason.INVALID_FILE, "nested too deeply") from error
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InvalidInputError(Reason.INVALID_FILE, "a document is a list of 'key: value' lines")
    return data


def _load_json(text: str) -> Any:  # noqa: ANN401 - whatever stands there
    """JSON with numbers as text. What is not JSON may still be YAML in braces."""
    try:
        return json.loads(text.lstrip("\ufeff"), parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        return _load_yaml(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InvalidInputError(Reason.INVALID_FILE, f"the key {twice[:_SHOWN]!r} is given twice")
    return found


def _load_yaml(text: str) -> Any:  # noqa: ANN401 - whatever stands there
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidInputError(Reason.INVALID_FILE, f"{where}{error.problem or error.context}"[:400]) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
        raise InvalidInputError(Reason.INVALID_FILE, f"{where}: a character that is not allowed in text") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidInputError(Reason.INVALID_FILE, f"this is not YAML or JSON: {' '.join(str(error).split())[:200]}") from error


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
    for name, key, value in _named(values, common | own):
        _set(content if name in common else special, name, value, key, _Zone(zone))
    if part == "agenda_item" and not special.time_zone:
        special.time_zone = _ZONES["WIB"]
    return Document(content, audience)


def profile_from_document(data: Mapping[str, Any]) -> content_pb2.ForumProfile:
    """The profile that a document describes; its rules are not checked here (``content.check``).

    Raises:
        InvalidInputError: ``INVALID_FIELD``.
    """
    values = dict(data)
    _take(values, "kind")
    profile = content_pb2.ForumProfile()
    for name, key, value in _named(values, {field.name for field in profile.DESCRIPTOR.fields}):
        _set(profile, name, value, key, _Zone(None))
    return profile


def charter_from_document(data: Mapping[str, Any]) -> entry_pb2.Charter:
    """The charter that a document describes; its rules are not checked here (``governance.check_charter``).

    Raises:
        InvalidInputError: ``INVALID_FIELD``.
    """
    charter = entry_pb2.Charter()
    for name, key, value in _named(data, {field.name for field in charter.DESCRIPTOR.fields}):
        _set(charter, name, value, key, _Zone(None))
    return charter


def charter_to_document(charter: entry_pb2.Charter, language: str = "en") -> dict[str, Any]:
    """The document of a charter, with every field but its version, which follows from the one before."""
    key = _keys(language)
    given = _fields(charter, key, ZoneInfo("UTC"), skip="version")
    mode = vocabulary.terms("Mode")[1 if charter.mode == entry_pb2.MODE_SUBSIDIARITY else 0]
    empty: dict[str, Any] = {}
    for field in charter.DESCRIPTOR.fields:
        if field.name != "version":
            empty[key(field.name)] = [] if field.is_repeated else getattr(charter, field.name)
    # The same words as in kad.toml, in every language.
    return empty | given | {key("mode"): mode.name.lower()}


def statement_from_document(data: Mapping[str, Any]) -> entry_pb2.ActStatement:
    """The statement that a document describes; its rules are not checked here (``content.check``).

    Its times are in the zone that ``time_zone`` names, WIB if it does not.

    Raises:
        InvalidInputError: ``INVALID_FIELD``.
    """
    values = dict(data)
    zone = _take(values, "time_zone")
    statement = entry_pb2.ActStatement()
    for name, key, value in _named(values, {field.name for field in statement.DESCRIPTOR.fields}):
        _set(statement, name, value, key, _Zone(zone))
    return statement


def as_written(error: InvalidInputError, data: Mapping[str, Any]) -> InvalidInputError:
    """The same complaint with the keys of a document: ``agenda_item.start_time`` becomes ``waktu_mulai`` for who wrote in Indonesian.

    Args:
        error: what ``content.check`` or a node said of what ``from_document`` or ``profile_from_document`` made of ``data``.
        data: the document.
    """
    if not error.violations:
        return error
    violations = [FieldViolation(_written_path(v.field, data), v.description, v.rule) for v in error.violations]
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return InvalidInputError(
        error.reason, f"{first.field or 'the record'}: {first.description}{more}", violations, **error.metadata | {"field": first.field}
    )


def _written_path(path: str, data: Mapping[str, Any]) -> str:
    in_indonesian = any(key in _aliases() and key not in INDONESIAN_KEYS for key in data)
    steps = path.split(".")
    if steps[0] in _KINDS.values():
        steps = steps[1:]
    written: list[str] = []
    here: Any = data
    for step in steps:
        name, bracket, index = step.partition("[")
        keys = (name, INDONESIAN_KEYS.get(name, name))
        key = next((key for key in keys if isinstance(here, dict) and key in here), keys[in_indonesian])
        written.append(f"{key}{bracket}{index}")
        here = here.get(key) if isinstance(here, dict) else None
        if bracket and isinstance(here, list) and index[:-1].isdigit():
            here = here[int(index[:-1])] if int(index[:-1]) < len(here) else None
    return ".".join(written)


def _take(values: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - whatever the document has
    if name in values and INDONESIAN_KEYS[name] in values:
        raise _wrong(INDONESIAN_KEYS[name], f"this is given already, as '{name}'")
    return values.pop(name, values.pop(INDONESIAN_KEYS[name], None))


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


def _named(values: Mapping[Any, Any], known: AbstractSet[str], path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Field, path as written, value, for each key of a mapping."""
    written: dict[str, str] = {}
    for key, value in values.items():
        where = f"{path}.{key}"[: len(path) + _SHOWN] if path else str(key)[:_SHOWN]
        name = _field_name(str(key), known, where)
        if name in written:
            raise _wrong(where, f"this is given already, as '{written[name]}'")
        written[name] = str(key)
        yield name, where, value


def _field_name(key: str, known: AbstractSet[str], path: str) -> str:
    if key in known:
        return key
    english = _aliases().get(key)
    if english in known:
        return str(english)
    words = sorted(known | {INDONESIAN_KEYS.get(name, name) for name in known})
    close = get_close_matches(key[:_SHOWN].lower(), words, 1, 0.6)
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


def _set(message: Message, name: str, value: Any, path: str, zone: _Zone) -> None:  # noqa: ANN401
    """Set one field from what the document says; nothing (an empty line of a template) leaves it unset."""
    if value is None or value in ("", [], {}):
        return
    field: Any = message.DESCRIPTOR.fields_by_name[name]
    if field.is_repeated:
        target = getattr(message, name)
        for index, item in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            where = f"{path}[{index}]"
            if item is None or item == "":
                continue
            if field.message_type is not None:
                _fill(target.add(), item, where, zone)
            else:
                target.append(_scalar(field, item, where))
    elif field.message_type is not None:
        child = getattr(message, name)
        child.SetInParent()
        _fill(child, value, path, zone)
    else:
        if name == "time_zone" and isinstance(value, str):
            value = _ZONES.get(value.upper(), value)
        _assign(message, name, _scalar(field, value, path), path)


def _assign(message: Message, name: str, value: Any, path: str) -> None:  # noqa: ANN401
    try:
        setattr(message, name, value)
    except ValueError as error:
        raise _wrong(path, "the value is too large") from error


def _scalar(field: FieldDescriptor, value: Any, path: str) -> Any:  # noqa: ANN401
    if field.enum_type is not None:
        return _word(field.enum_type.name, value, path).number
    if field.type == field.TYPE_BOOL:
        answer = _YES_NO.get(value.lower(), value) if isinstance(value, str) else value
        if not isinstance(answer, bool):
            raise _wrong(path, "yes or no is expected here (true or false)")
        return answer
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _wrong(path, "a single value is expected here; if this is text, put it in quotes")
    text = _text(value, path)
    if field.type == field.TYPE_STRING:
        return text
    digits = text.removeprefix("Rp").strip()
    if not _NUMBER.fullmatch(digits):
        raise _wrong(path, "a whole number is expected here, such as 1900000000 or 1.900.000.000")
    return int(digits.replace(".", "").replace("_", ""))


def _text(value: Any, path: str) -> str:  # noqa: ANN401
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _wrong(path, f"the character U+{ord(text[error.start]):04X} is not allowed here") from error
    return text


def _fill(message: Message, value: Any, path: str, zone: _Zone) -> None:  # noqa: ANN401
    """Fill a nested message from a mapping or from its short form in text."""
    descriptor: Any = message.DESCRIPTOR
    if isinstance(value, dict):
        for name, where, item in _named(value, {field.name for field in descriptor.fields}, path):
            _set(message, name, item, where, zone)
        return
    if isinstance(value, bool) or not isinstance(value, (str, int, float, datetime.date)):
        raise _wrong(path, "keys and values are expected here")
    text = _text(value, path)
    match descriptor.full_name:
        case "google.protobuf.Timestamp":
            _fill_time(message, text, path, zone)
        case "kad.v1.Date":
            _fill_date(message, text, path)
        case "kad.v1.Region":
            if (found := _REGION.fullmatch(text)) is None:
                raise _wrong(path, "a region begins with its code, such as '34.71 Kota Yogyakarta'")
            _assign(message, "code", found.group(1), path)
            _assign(message, "name", found.group(2) or "", path)
        case "kad.v1.Cost":
            _assign(message, "amount_rupiah", _scalar(descriptor.fields_by_name["amount_rupiah"], text, path), path)
        case _ if (first := descriptor.fields[0]).type == first.TYPE_STRING:
            _assign(message, first.name, text, path)
        case _:
            raise _wrong(path, "keys and values are expected here")


def _fill_date(message: Any, text: str, path: str) -> None:  # noqa: ANN401
    found = _DATE.fullmatch(text)
    if found is None:
        raise _wrong(path, "a date is 2027-01-12, 2027-01 or 2027")
    message.year, message.month, message.day = (int(part or 0) for part in found.groups())


def _fill_time(message: Any, text: str, path: str, zone: _Zone) -> None:  # noqa: ANN401
    try:
        moment = datetime.datetime.fromisoformat(_TIME.sub(r"\1 \2:\3", text))
    except ValueError as error:
        raise _wrong(path, "a time is '2027-01-12 09:00', in the zone that time_zone (zona_waktu) names") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone.info(path))
    try:
        message.FromDatetime(moment.astimezone(datetime.UTC).replace(tzinfo=None))
    except (ValueError, OverflowError) as error:
        raise _wrong(path, "this time lies too far away") from error


def to_document(content: content_pb2.Content, audience: int, language: str = "en") -> dict[str, Any]:
    """The document of a content; ``from_document`` gives the same content back if it keeps the rules (to the microsecond).

    Of others it says what it can: values that have no word and times that no calendar has are empty.
    """
    key = _keys(language)
    data: dict[str, Any] = {key("kind"): _value_name("RecordKind", kind_of(content)).replace("_", "-")}
    if audience:
        data[key("audience")] = _value_name("Audience", audience)
    special = content.WhichOneof("kind")
    name = content.agenda_item.time_zone
    zone = ZoneInfo(name if name in _OUR_ZONES else _ZONES["WIB"])
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
        return _value_name(field.enum_type.name, value)
    if field.message_type is None:
        return value
    match field.message_type.full_name:
        case "google.protobuf.Timestamp":
            return _plain_time(value, zone)
        case "kad.v1.Date":
            return "-".join([f"{value.year:04d}", *(f"{part:02d}" for part in (value.month, value.day) if part)])
        case "kad.v1.Region":
            return f"{value.code} {value.name}".strip()
        case _:
            return _fields(value, key, zone)


def _plain_time(time: Any, zone: ZoneInfo) -> str:  # noqa: ANN401
    try:
        moment = time.ToDatetime(datetime.UTC).astimezone(zone).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return ""
    return str(moment.isoformat(" ", "microseconds" if moment.microsecond else "seconds" if moment.second else "minutes"))


def _value_name(enum: str, number: int) -> str:
    known = vocabulary.terms(enum)
    return known[number - 1].name.lower() if 1 <= number <= len(known) else ""


def dump(document: Mapping[str, Any]) -> str:
    """A document as YAML, which ``load`` reads."""
    return yaml.dump(dict(document), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)


def template(kind: str, language: str = "id") -> str:
    """A commented YAML that can be filled in and published: ``best-practice``, ``regulation``, ``agenda-item``, ``profile``,
    or issued by a simpul: ``statement``.

    Raises:
        InvalidInputError: ``INVALID_FIELD`` for another word.
    """
    word = kind.lower().replace("_", "-")
    word = _FORM_WORDS.get(word, word)
    if word not in (*TEMPLATES, *FORMS):
        word = vocabulary.find("RecordKind", kind).name.lower().replace("_", "-")
    folder = resources.files("kad_protocol") / "templates" / ("id" if language == "id" else "en")
    return (folder / f"{word}.yaml").read_text(encoding="utf-8")
