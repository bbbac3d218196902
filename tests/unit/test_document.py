"""Documents: what people write becomes what they mean, or a sentence that names the place."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kad_protocol import content as contents
from kad_protocol import document, vocabulary
from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.v1 import content_pb2, entry_pb2, records_pb2

PRACTICE = {"kind": "best-practice", "title": "Judul"}
REGULATION = {"kind": "regulation", "title": "Judul", "instrument": "PKS"}
AGENDA = {"kind": "agenda-item", "title": "Judul", "start_time": "2027-01-12 09:00"}


def read(data):
    return document.from_document(data).content


def refusal(data, reader=document.from_document):
    with pytest.raises(InvalidInputError) as refused:
        reader(data)
    assert "\n" not in str(refused.value)
    return refused.value


# What people write.


def test_a_document_in_indonesian_and_one_in_english_say_the_same():
    indonesian = document.load("""
jenis: regulasi
jangkauan: umum
judul: Perjanjian Kerja Sama Pengelolaan TPA Regional
instrumen: PKS
nomor: [18 Tahun 2027]
wilayah: [34.71 Kota Yogyakarta, 34.04]
urusan: [lingkungan hidup, 3.26]
tanggal_ditetapkan: 2027-01-12
tanggal_berlaku: 2027-02
berlaku_sampai: 2031
status: berlaku
hubungan:
  - {macam: melaksanakan, teks: Kesepakatan Bersama 2026}
""")
    english = {
        "kind": "regulation",
        "audience": "public",
        "title": "Perjanjian Kerja Sama Pengelolaan TPA Regional",
        "instrument": "cooperation agreement",
        "numbers": ["18 Tahun 2027"],
        "regions": [{"code": "34.71", "name": "Kota Yogyakarta"}, "34.04"],
        "sectors": ["2.11", "TOURISM"],
        "date_made": datetime.date(2027, 1, 12),
        "date_effective": "2027-02",
        "valid_until": 2031,
        "status": "in force",
        "relations": [{"type": "implements", "text": "Kesepakatan Bersama 2026"}],
    }
    assert document.from_document(indonesian) == document.from_document(english)
    contents.check(read(english))
    assert read(english).regulation.date_effective == content_pb2.Date(year=2027, month=2)


@pytest.mark.parametrize(
    "word,kind",
    [
        ("best-practice", "best_practice"),
        ("praktik-baik", "best_practice"),
        ("regulation", "regulation"),
        ("Regulasi", "regulation"),
        ("agenda-item", "agenda_item"),
        ("agenda", "agenda_item"),
    ],
)
def test_kinds_have_their_words(word, kind):
    assert read({"jenis": word}).WhichOneof("kind") == kind


@pytest.mark.parametrize("word", ["PKS", "pks", "perjanjian kerja sama", "Perjanjian  Kerja-Sama", "INSTRUMENT_COOPERATION_AGREEMENT"])
def test_instruments_have_their_words(word):
    assert read(REGULATION | {"instrument": word}).regulation.instrument == content_pb2.INSTRUMENT_COOPERATION_AGREEMENT


def test_people_may_say_mou():
    assert read(REGULATION | {"instrument": "MoU"}).regulation.instrument == content_pb2.INSTRUMENT_JOINT_AGREEMENT


def test_who_may_read_it_stands_beside_the_content():
    assert document.from_document(PRACTICE).audience == content_pb2.AUDIENCE_FEDERATION
    assert document.from_document(PRACTICE | {"audience": "public"}).audience == content_pb2.AUDIENCE_PUBLIC
    assert document.from_document(PRACTICE | {"jangkauan": "jejaring"}).audience == content_pb2.AUDIENCE_FEDERATION


@pytest.mark.parametrize("zone,hour", [("WIB", 2), ("wita", 1), ("WIT", 0), ("Asia/Pontianak", 2), (None, 2)])
@pytest.mark.parametrize("text", ["2027-01-12 09:00", "2027-01-12T09:00", "2027-01-12 pukul 09.00", "2027-01-12 09.00"])
def test_times_are_those_of_the_items_own_zone(zone, hour, text):
    item = read(AGENDA | {"start_time": text, "zona_waktu": zone}).agenda_item
    assert item.start_time.ToDatetime() == datetime.datetime(2027, 1, 12, hour)  # noqa: DTZ001 - protobuf's UTC


@pytest.mark.parametrize("text", ["1900000000", 1900000000, "1.900.000.000", "Rp1.900.000.000", "Rp 1.900.000.000", "1_900_000_000"])
def test_money_is_written_as_people_do(text):
    assert read(PRACTICE | {"cost": text}).best_practice.cost.amount_rupiah == 1_900_000_000


@pytest.mark.parametrize("text", ["1.5", "1,9 miliar", "1.90.000", "9" * 19, "-", "Rp"])
def test_money_that_could_be_misread_is_refused(text):
    assert refusal(PRACTICE | {"cost": {"amount_rupiah": text}}).violations[0].field == "cost.amount_rupiah"


def test_ya_and_tidak_are_answers():
    assert read(AGENDA | {"sepanjang_hari": "ya"}).agenda_item.all_day
    assert not read(AGENDA | {"all_day": "Tidak"}).agenda_item.all_day


def test_empty_lines_of_a_template_say_nothing():
    assert read(PRACTICE | {"tags": [], "cost": {}, "summary": "", "problem": None, "topics": ["", None]}) == read(PRACTICE)


@pytest.mark.parametrize(
    "data,field,hint",
    [
        ({"title": "x"}, "kind", "best-practice"),
        ({"jenis": "resep"}, "kind", "not a record kind"),
        (PRACTICE | {"jdul": "x"}, "jdul", "'judul'"),
        (PRACTICE | {"Judul": "x"}, "Judul", "'judul'"),
        (PRACTICE | {"instrument": "PKS"}, "instrument", "not known"),
        (PRACTICE | {5: "x"}, "5", "not known"),
        (PRACTICE | {"judul": "x"}, "judul", "'title'"),
        (PRACTICE | {"tags": ["a"], "kata_kunci": ["b"]}, "kata_kunci", "'tags'"),
        (PRACTICE | {"jenis": "agenda"}, "jenis", "'kind'"),
        (PRACTICE | {"urusan": ["lingkungan hdup"]}, "urusan[0]", "lingkungan hidup"),
        (PRACTICE | {"kontak": [{"jabatn": "x"}]}, "kontak[0].jabatn", "'jabatan'"),
        (PRACTICE | {"wilayah": ["Sleman"]}, "wilayah[0]", "34.71"),
        (PRACTICE | {"wilayah": "34.71, 34.04"}, "wilayah[0]", "34.71"),
        (PRACTICE | {"title": ["x"]}, "title", "single value"),
        (PRACTICE | {"title": False}, "title", "quotes"),
        (PRACTICE | {"title": "\ud800"}, "title", "U+D800"),
        (PRACTICE | {"kontak": ["\ud800"]}, "kontak[0]", "U+D800"),
        (PRACTICE | {"kontak": [b"x"]}, "kontak[0]", "keys and values"),
        (PRACTICE | {"periode": "2001"}, "periode", "keys and values"),
        (PRACTICE | {"period": {"start": {"year": 99_999_999_999}}}, "period.start.year", "too large"),
        (PRACTICE | {"kontak": [{"role": "x", "personal_data": "mungkin"}]}, "kontak[0].personal_data", "yes or no"),
        (REGULATION | {"date_made": "12-01-2027"}, "date_made", "2027-01-12"),
        (AGENDA | {"start_time": "besok"}, "start_time", "2027-01-12 09:00"),
        (AGENDA | {"start_time": "0001-01-01 00:00"}, "start_time", "too far"),
        (AGENDA | {"zona_waktu": "WBI"}, "start_time", "WIB"),
        (AGENDA | {"zona_waktu": "../../etc/passwd"}, "start_time", "WIB"),
        (AGENDA | {"audience": "siapa saja"}, "audience", "not a"),
    ],
)
def test_a_slip_is_named_as_it_was_written(data, field, hint):
    error = refusal(data)
    assert error.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in error.violations] == [field]
    assert hint in str(error)


@pytest.mark.parametrize(
    "data,fields",
    [
        ({"jenis": "agenda", "judul": "x", "zona_waktu": "WIB"}, ["waktu_mulai"]),
        ({"kind": "agenda", "title": "x"}, ["start_time"]),
        ({"jenis": "regulasi", "judul": "", "instrumen": "PKS", "hubungan": [{"macam": "mengubah"}]}, ["hubungan[0]", "judul"]),
        ({"jenis": "regulasi", "judul": "x", "instrumen": "PKS", "date_made": "2021-02-30"}, ["date_made"]),
        ({"jenis": "regulasi", "judul": "x", "instrumen": "PKS", "pasal": [{"nomor_pasal": "1" * 61}]}, ["pasal[0].nomor_pasal"]),
        ({"jenis": "praktik-baik", "judul": "x", "periode": {"mulai": 2006, "selesai": 2001}}, ["periode.selesai"]),
        ({"jenis": "praktik-baik", "judul": "x", "kontak": [{"surel": "x"}]}, ["kontak[0].jabatan", "kontak[0].surel"]),
    ],
)
def test_a_broken_rule_is_named_as_it_was_written(data, fields):
    with pytest.raises(InvalidInputError) as refused:
        contents.check(read(data))
    said = document.as_written(refused.value, data)
    assert sorted(violation.field for violation in said.violations) == fields
    assert str(said).startswith(said.violations[0].field + ": ")
    assert said.metadata["field"] == said.violations[0].field
    assert said.reason is Reason.INVALID_FIELD


def test_a_profile_is_a_document_too():
    profile = document.profile_from_document(
        {"nama": "Sekber", "tingkat": "kabupaten/kota", "didirikan": "2001", "kedudukan": "34.71 Kota Yogyakarta", "zona_waktu": "wib"}
    )
    contents.check(profile)
    assert profile.founded == content_pb2.Date(year=2001)
    assert profile.time_zone == "Asia/Jakarta"
    assert refusal({"nam": "x"}, document.profile_from_document).violations[0].field == "nam"


# Text.


def test_json_is_read_with_its_escapes_tabs_and_numbers():
    data = PRACTICE | {"title": "Sampah \U0001f5d1 kota", "period": {"start": 2001}}
    for text in (json.dumps(data), json.dumps(data, indent="\t"), "\ufeff" + json.dumps(data, ensure_ascii=False)):
        assert read(document.load(text)) == read(data)


def test_braces_that_are_not_json_are_yaml():
    assert document.load("{jenis: agenda, judul: x}") == {"jenis": "agenda", "judul": "x"}


@pytest.mark.parametrize(
    "text,where",
    [
        ("judul: TPA: Piyungan", "line 1, column 11"),
        ("jenis: agenda\n\tjudul: x", "line 2, column 1"),
        ("judul: [a, b", "line 1"),
        ("judul: a\nringkasan: b\njudul: c", "line 3, column 1: the key 'judul' is given twice"),
        ("biaya: {catatan: a, catatan: b}", "given twice"),
        ('{"judul": "a", "judul": "b"}', "given twice"),
        ("judul: a\nringkasan: \0", "line 2, column 12"),
        ("a: &a [x, x]\nb: [*a, *a]", "line 2, column 5: aliases are not allowed"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("? [a]\n: b", "line 1"),
    ],
)
def test_a_slip_in_a_file_is_named_by_its_place(text, where):
    error = refusal(text, document.load)
    assert error.reason is Reason.INVALID_FILE
    assert where in str(error)


@pytest.mark.parametrize("text", ["", "halo", "- a\n- b", "[]", "null", "~: x", "true: x"])
def test_what_is_no_list_of_keys_is_no_document(text):
    assert refusal(text, document.load).reason is Reason.INVALID_FILE


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [ls]",
        "!!python/name:os.system",
        "!!binary aGFsbw==",
        "!!set {a, b}",
        "!!timestamp 2001-01-01",
        "!!int 0x",
        '!!int "' + "9" * 5000 + '"',
        '!!float "1:2"',
        "!lokal x",
    ],
)
def test_tags_are_refused(value):
    assert "line 1, column 4" in str(refusal(f"a: {value}", document.load))


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "[" * 100_000,
        "{a: " * 100_000,
        '{"a":' * 100_000,
        "".join(" " * depth + "a:\n" for depth in range(1_400)),
        "a: [" + "1," * 1_000_000 + "]",
        "".join(f"k{n}: v\n" for n in range(150_000)),
        "a: " + "- " * 100_000,
        "x" * (2 * contents.MAX_CONTENT_BYTES + 1),
        "a: &a [" + "x," * 9 + "]\n" + "".join(f"k{n}: &k{n} [" + "*a," * 9 + "]\n" for n in range(9)),
    ],
    ids=["list", "bare list", "braces", "json", "blocks", "many values", "many keys", "dashes", "size", "aliases"],
)
def test_a_hostile_file_is_refused_soon(text):
    before = time.process_time()
    with pytest.raises(InvalidInputError):
        document.load(text)
    assert time.process_time() - before < 10


def test_hostile_words_are_answered_soon_and_briefly():
    before = time.process_time()
    for data in (PRACTICE | {"x" * 1_000_000: 1}, PRACTICE | {"sectors": ["x" * 1_000_000]}, {"kind": "x" * 1_000_000}):
        assert len(str(refusal(data))) < 500
    assert time.process_time() - before < 5


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    try:
        data = document.load(text)
    except InvalidInputError:
        return
    for reader in (document.from_document, document.profile_from_document):
        with contextlib.suppress(InvalidInputError):
            reader(data)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates() | st.datetimes() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(document.INDONESIAN_KEYS)), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["agenda", "regulation", "best-practice"]), st.data())
def test_any_values_are_read_or_refused(kind, data):
    part = {"agenda": "AgendaItem", "regulation": "Regulation", "best-practice": "BestPractice"}[kind]
    names = [f.name for f in getattr(content_pb2, part).DESCRIPTOR.fields]
    names += [f.name for f in content_pb2.Content.DESCRIPTOR.fields if f.containing_oneof is None]
    values = data.draw(st.dictionaries(st.sampled_from(names), _VALUES, max_size=5))
    try:
        content = document.from_document(values | {"kind": kind}).content
        contents.check(content)
    except InvalidInputError as error:
        document.as_written(error, values)
    else:
        document.dump(document.to_document(content, 1))


# There and back.

_WORDS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]) | st.just("\n"), min_size=1, max_size=12).filter(
    lambda text: text == text.strip()
) | st.sampled_from(
    ["2003", "true", "no", "~", "null", "1e3", "- a", "a: b", "# x", "=", "<<", "&a", "*a", "!!int 1", "'", '"', "2003-06-28"]
)


@st.composite
def _dates(draw):
    day, known = draw(st.dates(datetime.date(1800, 1, 1), datetime.date(2200, 12, 31))), draw(st.integers(1, 3))
    return content_pb2.Date(year=day.year, month=day.month if known > 1 else 0, day=day.day if known > 2 else 0)


_SPECIAL = {
    "time_zone": st.sampled_from(["Asia/Jakarta", "Asia/Pontianak", "Asia/Makassar", "Asia/Jayapura"]),
    "code": st.from_regex(r"[0-9]{2}(\.[0-9]{2}(\.[0-9]{2}(\.[0-9]{4})?)?)?", fullmatch=True),
    "kad.v1.Date": _dates(),
    "google.protobuf.Timestamp": st.datetimes(datetime.datetime(1801, 1, 1), datetime.datetime(2200, 1, 1)),  # noqa: DTZ001 - protobuf's UTC
}


def _field(field):
    if field.enum_type is not None:
        return st.integers(1, len(field.enum_type.values) - 1)
    if field.message_type is not None:
        kind = field.message_type
        return _SPECIAL[kind.full_name] if kind.full_name in _SPECIAL else _messages(getattr(content_pb2, kind.name))
    scalars = {field.TYPE_STRING: _WORDS, field.TYPE_BOOL: st.just(value=True), field.TYPE_INT64: st.integers(1, 10**18 - 1)}
    return _SPECIAL[field.name] if field.name in _SPECIAL else scalars[field.type]


@st.composite
def _messages(draw, kind, *, without=()):
    """Any message of a kind, with at least one field."""
    message = kind()
    fields = [field for field in kind.DESCRIPTOR.fields if field.name not in without]
    needed = {"code"} if kind is content_pb2.Region else {"time_zone"} if kind is content_pb2.AgendaItem else set()
    chosen = draw(st.lists(st.sampled_from([field.name for field in fields]), min_size=1, max_size=6, unique=True))
    for field in fields:
        if field.name not in chosen and field.name not in needed:
            continue
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_field(field), min_size=1, max_size=2)))
        elif field.message_type is None:
            setattr(message, field.name, draw(_field(field)))
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            getattr(message, field.name).FromDatetime(draw(_field(field)))
        else:
            getattr(message, field.name).CopyFrom(draw(_field(field)))
    return message


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(
    st.data(),
    st.sampled_from(["best_practice", "regulation", "agenda_item"]),
    st.sampled_from([content_pb2.AUDIENCE_PUBLIC, content_pb2.AUDIENCE_FEDERATION]),
    st.sampled_from(["id", "en"]),
)
def test_a_record_comes_back_from_its_document(data, kind, audience, language):
    content = data.draw(_messages(content_pb2.Content, without=("best_practice", "regulation", "agenda_item")))
    content.language = content.language or "id"
    part = getattr(content, kind)
    part.CopyFrom(data.draw(_messages(type(part))))
    written = document.to_document(content, audience, language)
    assert document.from_document(written) == document.Document(content, audience)
    assert document.from_document(document.load(document.dump(written))) == document.Document(content, audience)
    assert document.from_document(document.load(json.dumps(written))) == document.Document(content, audience)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(_messages(content_pb2.ForumProfile), st.sampled_from(["id", "en"]))
def test_a_profile_comes_back_from_its_document(profile, language):
    written = document.profile_to_document(profile, language)
    assert document.profile_from_document(document.load(document.dump(written))) == profile


def test_keys_in_indonesian_are_all_different_and_all_there():
    keys = document.INDONESIAN_KEYS
    assert len(set(keys.values())) == len(keys)
    for message in content_pb2.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            if field.containing_oneof is None and field.name != "status":
                assert field.name in keys, f"{message.name}.{field.name}"


# Templates.

_REQUIRED = {
    "best-practice": {"title": "Judul"},
    "regulation": {"title": "Judul", "instrument": "PKS"},
    "agenda-item": {"title": "Judul", "start_time": "2027-01-12 09:00"},
    "profile": {"name": "Sekretariat Bersama"},
}
_PARTS = {
    "best-practice": content_pb2.BestPractice,
    "regulation": content_pb2.Regulation,
    "agenda-item": content_pb2.AgendaItem,
    "profile": content_pb2.ForumProfile,
}
_EXAMPLE = re.compile(r"# .*?(?:[Mm]is\.|[Ee]\.g\.) (?P<value>\[.*?\]|\{.*?\})(?:\.| atau | or ).*\n(?P<key>[a-z_]+):")
_EACH = [pytest.mark.parametrize("language", ["id", "en"]), pytest.mark.parametrize("kind", document.TEMPLATES)]


def each_template(test):
    for mark in _EACH:
        test = mark(test)
    return test


def _checked(kind, data):
    message = document.profile_from_document(data) if kind == "profile" else read(data)
    contents.check(message)
    return message


def _key(name, language):
    return document.INDONESIAN_KEYS.get(name, name) if language == "id" else name


@each_template
def test_a_template_with_its_required_fields_filled_can_be_published(kind, language):
    data = document.load(document.template(kind, language))
    for name, value in _REQUIRED[kind].items():
        with pytest.raises(InvalidInputError):
            _checked(kind, data)
        assert data[_key(name, language)] == ""
        data[_key(name, language)] = value
    _checked(kind, data)


@each_template
def test_a_template_has_every_field(kind, language):
    text = document.template(kind, language)
    fields = list(_PARTS[kind].DESCRIPTOR.fields)
    names = set()
    if kind != "profile":
        fields += [field for field in content_pb2.Content.DESCRIPTOR.fields if field.containing_oneof is None]
        names = {"kind", "audience"}
    names |= {field.name for field in fields}
    assert set(document.load(text)) == {_key(name, language) for name in names}
    for field in fields:
        nested = field.message_type
        if nested is not None and nested.name not in ("Date", "Region", "Timestamp"):
            for inner in nested.fields:
                assert re.search(rf"\b{_key(inner.name, language)}:", text), f"{field.name}.{inner.name}"


@each_template
def test_the_examples_in_a_template_can_be_published(kind, language):
    text = document.template(kind, language)
    examples = {found["key"]: document.load(f"x: {found['value']}")["x"] for found in _EXAMPLE.finditer(text)}
    assert len(examples) >= (4 if kind == "profile" else 6)
    data = document.load(text) | examples | {_key(name, language): value for name, value in _REQUIRED[kind].items()}
    assert _checked(kind, data).contacts[0].email


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_statement_is_read_from_its_template(language):
    data = document.load(document.template("statement", language))
    assert document.statement_from_document(data) == entry_pb2.ActStatement()
    example = _EXAMPLE.search(document.template("statement", language))
    data |= {_key("title", language): "Kalender", _key("items", language): document.load(f"x: {example['value']}")["x"]}
    data[_key("time_zone", language)] = "WITA"
    statement = document.statement_from_document(data)
    contents.check(statement)
    (item,) = statement.items
    assert (item.version, item.start_time.ToJsonString()) == (1, "2027-01-12T01:00:00Z")
    with pytest.raises(InvalidInputError, match="titel"):
        document.statement_from_document(data | {"titel": "x"})


@pytest.mark.parametrize("language", ["id", "en"])
def test_a_charter_comes_back_from_its_document(language):
    charter = entry_pb2.Charter(mode=entry_pb2.MODE_SUBSIDIARITY, participation_percent=66, lag_seconds=600, document="forums/a/records/x")
    charter.collective.add(function="represent", percent=60)
    charter.seats.add(title="sekretaris", feed="javapromo")
    written = document.charter_to_document(charter, language)
    assert written["mode"] == "subsidiarity"
    assert document.charter_from_document(document.load(document.dump(written))) == charter
    assert set(written) == {_key(field.name, language) for field in charter.DESCRIPTOR.fields} - {"version", "versi"}
    for wrong, hint in (({"mode": "diktatur"}, "mode"), ({"persen_umun": "66"}, "persen_umum")):
        with pytest.raises(InvalidInputError, match=hint):
            document.charter_from_document(wrong)


def test_templates_are_found_by_every_word_for_their_kind():
    assert document.template("praktik-baik") == document.template("best-practice", "id") != document.template("best-practice", "en")
    assert document.template("AGENDA", "en") == document.template("agenda-item", "en")
    with pytest.raises(InvalidInputError):
        document.template("../profile")


# Words.

_ENUMS = [*content_pb2.DESCRIPTOR.enum_types_by_name.values(), records_pb2.DESCRIPTOR.enum_types_by_name["RecordState"]]


@pytest.mark.parametrize("enum", _ENUMS, ids=lambda enum: enum.name)
def test_every_value_has_labels_in_both_languages(enum):
    prefix = re.sub(r"(?<!^)([A-Z])", r"_\1", enum.name).upper() + "_"
    terms = vocabulary.terms(enum.name)
    assert [(term.name, term.number) for term in terms] == [(v.name.removeprefix(prefix), v.number) for v in enum.values if v.number]
    for term in terms:
        assert term.indonesian
        assert term.english
        for word in (term.name, term.name.lower(), f"{prefix}{term.name}", term.indonesian.upper(), term.english, *term.aliases):
            assert vocabulary.find(enum.name, word) is term
        if term.code:
            assert vocabulary.find(enum.name, term.code) is term


def test_official_codes():
    assert [term.code for term in vocabulary.terms("Sector")] == [f"{1 + (n > 6) + (n > 24)}.{n:02d}" for n in range(1, 33)]
    assert vocabulary.find("Instrument", "skb").code == "SKB"
    assert vocabulary.find("CooperationForm", "with another region").code == "KSDD"


def test_labels_of_values_that_are_not_known_are_a_dash():
    assert vocabulary.label("Sector", 11) == "lingkungan hidup"
    assert vocabulary.label("Sector", 11, "en") == "environment"
    assert [vocabulary.label("Sector", number) for number in (-1, 0, 33)] == ["-", "-", "-"]
