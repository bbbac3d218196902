"""Filters, orders and tokens: what is meant is read, everything else is refused with the place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_node.query import Filter, ResumeToken, Term, decode_page, encode_page, parse_filter, parse_order
from kad_protocol.errors import InvalidInputError, Reason


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
