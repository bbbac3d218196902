"""Contents: what is well formed is read, what breaks a rule is named by its field, and hostile bytes do nothing."""

from __future__ import annotations

import contextlib
import datetime
import hashlib

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from kad_protocol import content as contents
from kad_protocol import document
from kad_protocol.errors import InvalidInputError, Reason, VerificationError
from kad_protocol.v1 import content_pb2

NOW = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)


def practice(**fields):
    return content_pb2.Content(title="Judul", best_practice=content_pb2.BestPractice(**fields))


def regulation(**fields):
    part = content_pb2.Regulation(instrument=content_pb2.INSTRUMENT_COOPERATION_AGREEMENT, **fields)
    return content_pb2.Content(title="Judul", regulation=part)


def agenda(**fields):
    item = {"start_time": Timestamp(seconds=1_800_000_000), "time_zone": "Asia/Jakarta"} | fields
    return content_pb2.Content(title="Judul", agenda_item=content_pb2.AgendaItem(**item))


def common(title="Judul", **fields):
    return content_pb2.Content(title=title, best_practice=content_pb2.BestPractice(), **fields)


def date(year, month=0, day=0):
    return content_pb2.Date(year=year, month=month, day=day)


def broken(message):
    return [(violation.field, violation.rule) for violation in contents.validate(message)]


# Blobs.


@given(st.binary(max_size=100))
def test_a_blob_is_a_new_salt_and_the_content(content):
    blob = contents.new_blob(content)
    salt, rest = contents.split(blob)
    assert len(salt) == contents.SALT_BYTES == 32
    assert rest == content
    assert contents.digest(blob) == hashlib.sha256(salt + content).digest()
    assert contents.new_blob(content) != blob


def test_the_largest_content_fits_and_one_byte_more_does_not():
    assert contents.MAX_CONTENT_BYTES == 1024 * 1024
    contents.new_blob(bytes(contents.MAX_CONTENT_BYTES))
    with pytest.raises(InvalidInputError) as refused:
        contents.new_blob(bytes(contents.MAX_CONTENT_BYTES + 1))
    assert refused.value.reason is Reason.CONTENT_TOO_LARGE
    with pytest.raises(VerificationError) as unread:
        contents.parse_content(bytes(contents.MAX_CONTENT_BYTES + 1))
    assert unread.value.reason is Reason.CONTENT_TOO_LARGE


def test_a_blob_without_its_salt_is_refused():
    with pytest.raises(VerificationError) as refused:
        contents.split(bytes(31))
    assert refused.value.reason is Reason.CONTENT_MALFORMED


# Kinds and rules.


def test_each_kind_is_known():
    assert contents.kind_of(practice()) == content_pb2.RECORD_KIND_BEST_PRACTICE
    assert contents.kind_of(regulation()) == content_pb2.RECORD_KIND_REGULATION
    assert contents.kind_of(agenda()) == content_pb2.RECORD_KIND_AGENDA_ITEM
    assert contents.kind_of(content_pb2.Content()) == content_pb2.RECORD_KIND_UNSPECIFIED


@pytest.mark.parametrize(
    "content",
    [
        practice(),
        practice(problem="satu\n\tdua", period=content_pb2.Period(start=date(2001), end=date(2001, 3))),
        practice(period=content_pb2.Period(end=date(2001))),
        regulation(date_made=date(2020, 2, 29), valid_until=date(2020)),
        regulation(date_made=date(2020), valid_until=date(2030)),
        agenda(end_time=Timestamp(seconds=1_800_000_000)),
        agenda(recurrence="FREQ=MONTHLY;BYDAY=1MO;COUNT=12"),
        agenda(recurrence="FREQ=YEARLY;INTERVAL=2;BYMONTH=1,7;BYMONTHDAY=-1;UNTIL=20301231T235959Z;WKST=MO"),
        content_pb2.ForumProfile(name="Sekretariat", time_zone="Asia/Makassar"),
        content_pb2.ForumProfile(name="Sekretariat"),
    ],
)
def test_what_keeps_the_rules_passes(content):
    assert broken(content) == []
    contents.check(content)


@pytest.mark.parametrize(
    "content,field",
    [
        (content_pb2.Content(title="x"), "kind"),
        (common(""), "title"),
        (common("x" * 301), "title"),
        (common(tags=["a", ""]), "tags[1]"),
        (common(sectors=[99]), "sectors[0]"),
        (common(sectors=[3, 3]), "sectors"),
        (common(related_records=["forums/a"]), "related_records[0]"),
        (practice(cost=content_pb2.Cost(amount_rupiah=-1)), "best_practice.cost.amount_rupiah"),
        (practice(period=content_pb2.Period(start=date(2001, 6), end=date(2001, 5))), "best_practice.period.end"),
        (practice(period=content_pb2.Period(start=date(2001, 0, 5))), "best_practice.period.start"),
        (regulation(date_made=date(2021, 2, 29)), "regulation.date_made"),
        (regulation(date_made=date(21)), "regulation.date_made.year"),
        (regulation(date_effective=date(2021, 5), valid_until=date(2021, 4, 30)), "regulation.valid_until"),
        (regulation(date_promulgated=date(2021), valid_until=date(2020)), "regulation.valid_until"),
        (regulation(relations=[content_pb2.Relation(type=content_pb2.RELATION_TYPE_AMENDS)]), "regulation.relations[0]"),
        (content_pb2.Content(title="x", regulation=content_pb2.Regulation(instrument=content_pb2.INSTRUMENT_OTHER)), "regulation"),
        (content_pb2.Content(title="x", agenda_item=content_pb2.AgendaItem(time_zone="Asia/Jakarta")), "agenda_item.start_time"),
        (agenda(end_time=Timestamp(seconds=1)), "agenda_item"),
        (agenda(time_zone="Europe/Berlin"), "agenda_item.time_zone"),
        (agenda(online_url="http://contoh.go.id"), "agenda_item.online_url"),
        (agenda(start_time=Timestamp(seconds=10**17)), "agenda_item.start_time"),
        (agenda(start_time=Timestamp(seconds=-(10**17))), "agenda_item.start_time"),
        (agenda(start_time=Timestamp(seconds=1_800_000_000, nanos=-1)), "agenda_item.start_time"),
        (agenda(end_time=Timestamp(seconds=253_402_300_799)), "agenda_item.end_time"),
        (content_pb2.ForumProfile(), "name"),
        (content_pb2.ForumProfile(name="x", website="javascript:alert(1)"), "website"),
    ],
)
def test_a_broken_rule_is_named_by_its_field(content, field):
    assert field in [violation.field for violation in contents.validate(content)]
    with pytest.raises(InvalidInputError) as refused:
        contents.check(content)
    assert refused.value.reason is Reason.INVALID_FIELD
    assert refused.value.violations


@pytest.mark.parametrize("code", ["34", "34.71", "34.71.01", "34.71.01.1001"])
def test_codes_of_regions_of_every_level_pass(code):
    assert broken(common(regions=[content_pb2.Region(code=code, name="Nama")])) == []


@pytest.mark.parametrize("code", ["", "3", "34.7", "34.71.", "3471", "34.71.01.101", "34.71\n", "٣٤"])
def test_other_codes_of_regions_do_not(code):
    found = contents.validate(common(regions=[content_pb2.Region(code=code)]))
    assert "regions[0].code" in [violation.field for violation in found]


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\tb", "a\0b", "a\x1b[31mb", "a\u2028b", "a\u202eb", "a\u2066b", "\ue000", "\ufffe", "\ufdd0", "Cafe\u0301"],
    ids=ascii,
)
def test_a_title_has_no_control_nor_turning_characters_and_is_composed(text):
    assert broken(common(text)) == [("title", "kad.text")]
    assert broken(content_pb2.ForumProfile(name=text)) == [("name", "kad.text")]


def test_long_texts_have_lines_but_no_control_characters():
    assert broken(practice(problem="satu\n\tdua \u200fتجربة")) == []
    assert broken(practice(problem="a\rb")) == [("best_practice.problem", "kad.text")]


def test_characters_that_only_newer_tables_know_are_not_judged():
    # Else nodes on different versions of Python would fold the same feed differently.
    assert broken(common("\U0001fae9 \U0001fadf")) == []


@pytest.mark.parametrize(
    "rule",
    [
        "DAILY",
        "COUNT=3",
        "FREQ=SECONDLY",
        "FREQ=DAILY;",
        "FREQ=DAILY;COUNT=0",
        "FREQ=DAILY;COUNT=1001",
        "FREQ=DAILY;COUNT=0000010009999",
        "FREQ=DAILY;COUNT=5000;COUNT=1",
        "FREQ=DAILY;INTERVAL=0",
        "FREQ=DAILY;COUNT=3;UNTIL=20270101",
        "FREQ=DAILY;UNTIL=20270230",
        "FREQ=MONTHLY;BYMONTHDAY=0",
        "FREQ=MONTHLY;BYMONTHDAY=32",
        "FREQ=MONTHLY;BYDAY=0MO",
        "FREQ=DAILY;BYHOUR=24",
        "FREQ=DAILY;X-FOO=1",
        "FREQ=DAILY\nATTENDEE:mailto:a@b",
        "RRULE:FREQ=DAILY",
    ],
)
def test_a_recurrence_that_is_none_or_exceeds_its_limits_is_refused(rule):
    assert broken(agenda(recurrence=rule))[-1][0] == "agenda_item.recurrence"


# Warnings.


def warned(content, **more):
    return [warning.field for warning in contents.warnings(content, NOW, **more)]


def test_a_cooperation_agreement_of_more_than_five_years_is_allowed_but_noticed():
    assert warned(regulation(date_made=date(2020, 3, 1), valid_until=date(2025, 3, 1))) == []
    assert warned(regulation(date_made=date(2020, 3, 1), valid_until=date(2025, 3, 2))) == ["regulation.valid_until"]
    assert warned(regulation(date_made=date(2020), valid_until=date(2026))) == ["regulation.valid_until"]
    assert warned(regulation(date_made=date(2019), date_effective=date(2021), valid_until=date(2026))) == []


def test_an_agenda_item_in_the_past_is_noticed_unless_it_recurs():
    past = Timestamp(seconds=1_600_000_000)
    assert warned(agenda(start_time=past)) == ["agenda_item.start_time"]
    assert warned(agenda(start_time=past, recurrence="FREQ=MONTHLY")) == []
    assert warned(agenda(start_time=past, end_time=Timestamp(seconds=1_900_000_000))) == []
    assert warned(agenda()) == []


def test_regions_that_are_not_known_and_personal_data_are_noticed():
    content = practice()
    content.regions.add(code="34.71")
    content.regions.add(code="99.99")
    content.contacts.add(role="Sekretariat")
    content.contacts.add(role="Ibu Sri", personal_data=True)
    assert warned(content, known_regions={"34.71"}) == ["regions[1].code", "contacts[1]"]
    assert warned(content) == ["contacts[1]"]


# Hostile bytes.


def survives(content):
    """Whatever it says, it can be judged and shown."""
    contents.validate(content)
    contents.warnings(content, NOW, known_regions={"34"})
    contents.kind_of(content)
    for language in ("id", "en"):
        document.dump(document.to_document(content, 99, language))


def read_or_refused(data):
    """Nothing else than the two, and what is read survives."""
    content = None
    with contextlib.suppress(VerificationError):
        content = contents.parse_content(data)
    if content is not None:
        survives(content)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data):
    read_or_refused(data)


@given(st.data())
def test_a_content_with_some_bytes_changed_is_read_or_refused(data):
    whole = bytearray(agenda(recurrence="FREQ=DAILY", invited_forums=["javapromo"]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(whole))


_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)


@given(
    kind=_INT32,
    seconds=_INT64,
    nanos=_INT32,
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    parts=st.tuples(_INT32, _INT32, _INT32),
)
def test_values_that_no_person_would_write_are_judged_and_shown(kind, seconds, nanos, text, parts):
    item = agenda(meeting_kind=kind, status=kind, start_time=Timestamp(seconds=seconds, nanos=nanos), time_zone=text, recurrence=text)
    survives(item)
    law = regulation(date_made=date(*parts), valid_until=date(*reversed(parts)), status=kind, form=kind)
    law.sectors.append(kind)
    law.regions.add(code=text, name=text)
    survives(law)
    if not -62_135_596_800 <= seconds <= 253_402_300_799:
        assert ("agenda_item.start_time", "kad.time") in broken(item)


def test_nesting_beyond_reason_is_refused():
    # An unknown group inside itself, a hundred thousand times.
    with pytest.raises(VerificationError) as refused:
        contents.parse_content(b"\xfb\x06" * 100_000)
    assert refused.value.reason is Reason.CONTENT_MALFORMED
