"""The text of an invitation: what a mail may do to it, and what nobody may."""

from __future__ import annotations

import base64
import datetime
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_protocol.errors import InvalidInputError, Reason
from kad_protocol.invitation import PREFIX, decode, encode, has_expired
from kad_protocol.v1 import enrolment_pb2

EXPIRES = datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def code(**changed: object) -> enrolment_pb2.InvitationCode:
    fields: dict[str, object] = {
        "enrolment_address": "simpul.example.id:7443",
        "authority_key_digest": bytes(range(32)),
        "invitation_id": b"i" * 16,
        "secret": b"s" * 16,
        "forum": "kartamantul",
        "federation": "simpul-kabkota.kad.internal",
    }
    made = enrolment_pb2.InvitationCode(**(fields | changed))
    made.expire_time.FromDatetime(EXPIRES)
    return made


TEXT = encode(code())


def refused(text: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        decode(text)
    assert caught.value.reason == Reason.INVITATION_MALFORMED
    return caught.value.message


def test_it_comes_back_as_it_went() -> None:
    assert TEXT.startswith("kad1-")
    assert "=" not in TEXT
    assert decode(TEXT) == code()


@given(st.lists(st.tuples(st.integers(0, len(TEXT)), st.sampled_from([" ", "\n", "\r\n", "\t", "\u00a0"])), max_size=12))
def test_white_space_anywhere_does_not_matter(breaks: list[tuple[int, str]]) -> None:
    text = TEXT
    for position, space in sorted(breaks, reverse=True):
        text = text[:position] + space + text[position:]
    assert decode(text) == code()


@given(st.integers(len(PREFIX), len(TEXT) - 2), st.sampled_from(ALPHABET))
def test_one_wrong_letter_is_noticed(position: int, letter: str) -> None:
    # The last letter is left out: some of its bits are padding.
    changed = TEXT[:position] + letter + TEXT[position + 1 :]
    if changed != TEXT:
        refused(changed)


@given(st.integers(len(PREFIX), len(TEXT) - 1))
def test_a_part_of_it_is_not_enough_and_the_hint_says_so(length: int) -> None:
    message = refused(TEXT[:length])
    assert "copy it whole" in message or "do not belong" in message


def test_a_wrong_checksum_asks_for_the_whole() -> None:
    assert "copy it whole" in refused(TEXT[:40] + TEXT[44:])


@pytest.mark.parametrize(
    "text",
    ["", "kad1-", "kad1-****", "kad2-" + TEXT[5:], TEXT[5:], TEXT + "!", TEXT[:20] + "!!!!" + TEXT[20:], TEXT + "é", "kad1-" + "A" * 4000],
)
def test_what_is_no_invitation_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize(
    "changed",
    [
        {"secret": b"s" * 15},
        {"secret": b""},
        {"invitation_id": b"i" * 17},
        {"authority_key_digest": bytes(20)},
        {"forum": "Karta Mantul"},
        {"forum": ""},
        {"federation": "../etc"},
        {"enrolment_address": "simpul.example.id"},
        {"enrolment_address": ""},
        {"enrolment_address": "simpul:7443\x1b[2J"},
        {"enrolment_address": "simpul:pintu"},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_a_good_checksum_over_a_bad_content_is_refused(changed: dict[str, object]) -> None:
    refused(encode(code(**changed)))


@pytest.mark.parametrize("address", ["10.0.0.7:7443", "[2001:db8::7]:7443", "simpul_1:1"])
def test_every_kind_of_address_passes(address: str) -> None:
    assert decode(encode(code(enrolment_address=address))).enrolment_address == address


def test_an_impossible_time_is_refused() -> None:
    made = code()
    made.expire_time.seconds = 1 << 60
    refused(encode(made))


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    checked = base64.urlsafe_b64encode(data + hashlib.sha256(data).digest()[:4]).decode().rstrip("=")
    refused(PREFIX + checked)


def test_it_expires_at_its_time() -> None:
    assert not has_expired(code(), EXPIRES - datetime.timedelta(seconds=1))
    assert has_expired(code(), EXPIRES)
