"""Filters, orders and tokens: what is meant is read, everything else is refused with the place."""

from __future__ import annotations

import datetime
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_node.query import Filter, ResumeToken, Term, decode_page, encode_page, parse_filter, parse_order
from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.v1 import content_pb2, records_pb2


def test_a_filter_is_read() -> None:
    text = 'kind = REGULATION AND region = "34.71" AND sector = "lingkungan hidup" AND tag=TPA AND update_time >= "1970-01-01T00:00:01Z"'
    assert parse_filter(text) == Filter(
        (
            Term("kind", "=", 2),
            Term("region", "=", "34.71"),
            Term("sector", "=", "11"),
            Term("tag", "=", "tpa"),
            Term("update_time", ">=", 1_000_000),
        )
    )
    assert parse_filter("  ") == Filter()
    assert parse_filter('tag = "a \\" b"').terms[0].value == 'a " b'


@pytest.mark.parametrize(
    "text",
    [
        "kind",
        "kind =",
        "kind = x",
        "kind > REGULATION",
        "warna = merah",
        "kind = REGULATION OR kind = REGULATION",
        'region = "34',
        "AND",
        "update_time = besok",
        " AND ".join(["forum = a"] * 30),
        "update_time > 99999-01-01",
        "update_time > 10:00",
        "kind != REGULATION",
        "kind = RECORD_KIND_UNSPECIFIED",
        "kind = 2 2",
        "kind = REGULATION and kind = REGULATION",
        "kind = REGULATION AND",
        'kind = "" AND',
        "kind = REGULATION kind = REGULATION",
        '"kind" = REGULATION',
        "forum < kartamantul",
        "forum =",
        "forum = =",
        'tag = "a\\"',
        f'tag = "{"a" * 2000}"',
    ],
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_filter(text)
    assert caught.value.reason == Reason.INVALID_FILTER


@given(st.text(max_size=80))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    for reader in (parse_filter, parse_order, lambda t: decode_page(t, 2, "q"), lambda t: ResumeToken.decode(t, "i")):
        reason = None
        try:
            reader(text)
        except InvalidInputError as error:
            reason = error.reason
        assert reason in (None, Reason.INVALID_FILTER, Reason.INVALID_PAGE_TOKEN, Reason.INVALID_RESUME_TOKEN)


def test_orders() -> None:
    assert parse_order("") == ("update_time", True)
    assert parse_order("name") == ("name", False)
    assert parse_order("create_time desc") == ("create_time", True)
    for bad in ("warna", "name up", "name desc desc"):
        with pytest.raises(InvalidInputError):
            parse_order(bad)


def test_tokens_belong_to_their_question() -> None:
    token = encode_page([5, "x"], "forum", "filter")
    assert decode_page(token, 2, "forum", "filter") == [5, "x"]
    assert decode_page("", 2, "forum") is None
    for question, length in ((("forum", "other"), 2), (("forum", "filter"), 3)):
        with pytest.raises(InvalidInputError):
            decode_page(token, length, *question)
    with pytest.raises(InvalidInputError):
        decode_page(token[:-2] + "AA", 2, "forum", "filter")
    resume = ResumeToken("node-1", 7).encode()
    assert ResumeToken.decode(resume, "node-1") == 7
    with pytest.raises(InvalidInputError):
        ResumeToken.decode(resume, "node-2")


@pytest.mark.parametrize(
    "text,position,expected",
    [
        ("warna = merah", 1, "a field is expected"),
        ("kind > REGULATION", 6, "= is expected"),
        ("create_time REGULATION x", 13, "=, <, <=, > or >= is expected"),
        ("kind = REGULATION OR kind = AGENDA_ITEM", 19, "AND is expected"),
        ("tag = a AND kind = merah", 20, "not a record kind"),
        ("tag = a AND create_time < besok", 27, "a time such as"),
        ("kind = <", 8, "a value is expected"),
        ("tag = a AND kind", 17, "a comparison such as"),
        ('tag = a AND tag = "b', 18, "a quotation mark is not closed"),
    ],
)
def test_the_place_and_what_was_expected_are_named(text: str, position: int, expected: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_filter(text)
    assert f"at character {position}: " in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("field,names", [("kind", ("REGULATION", "RECORD_KIND_REGULATION", "regulation", "Regulasi"))])
def test_values_of_enums_are_written_in_many_ways(field: str, names: tuple[str, ...]) -> None:
    assert {parse_filter(f"{field} = {name}") for name in names} == {Filter((Term("kind", "=", 2),))}


@pytest.mark.parametrize(
    "text,term",
    [
        ("kind=BEST_PRACTICE", Term("kind", "=", 1)),
        ("kind=agenda_item", Term("kind", "=", 3)),
        ("state = RECORD_STATE_RETRACTED", Term("state", "=", records_pb2.RECORD_STATE_RETRACTED)),
        ("state = queued", Term("state", "=", records_pb2.RECORD_STATE_QUEUED)),
        ("audience = public", Term("audience", "=", content_pb2.AUDIENCE_PUBLIC)),
        ("sector = SECTOR_HEALTH", Term("sector", "=", str(content_pb2.SECTOR_HEALTH))),
    ],
)
def test_enums_are_read_as_the_protos_number_them(text: str, term: Term) -> None:
    assert parse_filter(text).terms == (term,)


_MOMENTS = st.datetimes(timezones=st.timezones())


@given(_MOMENTS, st.sampled_from(("=", "<", "<=", ">", ">=")))
def test_times_are_exact_to_the_microsecond(moment: datetime.datetime, sign: str) -> None:
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    (term,) = parse_filter(f'end_time {sign} "{moment.isoformat()}"').terms
    # isoformat() writes offsets of seconds, such as those of local mean time, and reads them again.
    assert term == Term("end_time", sign, micros)


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_filter("start_time = 1970-01-02").terms[0].value == 86_400_000_000
    assert parse_filter("start_time = 1970-01-01T07:00:00+07:00").terms[0].value == 0


_PIECES = st.sampled_from(
    ("kind", "tag", "create_time", "=", "<=", ">", "!", "AND", "OR", "REGULATION", "2026-01-01", '"', "\\", " ", "(", "x", "\x00", "\u2028")
)


@given(st.lists(_PIECES, max_size=40))
def test_pieces_of_filters_are_read_or_refused(pieces: list[str]) -> None:
    """Nearly right texts reach further into the parser than any text does."""
    text = "".join(pieces)
    try:
        found = parse_filter(text)
    except InvalidInputError as error:
        assert error.reason is Reason.INVALID_FILTER  # noqa: PT017 - both outcomes are right
    else:
        assert len(found.terms) == text.count("AND") + bool(text.strip()) or '"' in text or "tag" in text


_KEYS = st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=40), min_size=1, max_size=3)


@given(_KEYS)
def test_page_tokens_come_back_whole(key: list[int | str]) -> None:
    token = encode_page(key, "list", 7)
    assert decode_page(token, len(key), "list", 7) == key
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")
    with pytest.raises(InvalidInputError):
        decode_page(token, len(key), "list", 8)


@given(_KEYS, st.data())
def test_a_slip_in_a_token_shows(key: list[int | str], data: st.DataObject) -> None:
    token = encode_page(key, "q")
    place = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from(string.ascii_letters + string.digits).filter(lambda c: c != token[place]))
    with pytest.raises(InvalidInputError) as caught:
        decode_page(token[:place] + other + token[place + 1 :], len(key), "q")
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


@pytest.mark.parametrize("part", [1 << 63, -(1 << 63) - 1, True, None, 1.5, [1], {"a": 1}, "\ud800"])
def test_values_that_no_engine_can_compare_are_refused(part: object) -> None:
    """The checksum is no secret: anybody can write a token."""
    with pytest.raises(InvalidInputError) as caught:
        decode_page(encode_page([part], "q"), 1, "q")
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN
    with pytest.raises(InvalidInputError) as caught:
        ResumeToken.decode(ResumeToken("i", part).encode(), "i")  # type: ignore[arg-type]
    assert caught.value.reason is Reason.INVALID_RESUME_TOKEN


def test_tokens_have_a_bound() -> None:
    token = encode_page(["x" * 2000], "q")
    with pytest.raises(InvalidInputError):
        decode_page(token, 1, "q")


@given(st.text(min_size=1, max_size=40), st.integers(0, (1 << 62) - 1))
def test_resume_tokens_come_back_whole(instance: str, sequence: int) -> None:
    assert ResumeToken.decode(ResumeToken(instance, sequence).encode(), instance) == sequence
