"""Statements outside feeds: the published encoding, and that both signatures count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_protocol.errors import Reason, VerificationError
from kad_protocol.note import LogSigner
from kad_protocol.statement import CERTIFICATE_BINDING, pae, sign_statement, verify_statement

DSSE = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())["dsse"]
SIGNER = LogSigner("kad.example/forums/kartamantul/e0", bytes(32), bytes(range(32)))
OTHER = LogSigner("kad.example/forums/kartamantul/e0", bytes(range(32)), bytes(32))
PAYLOAD = b"isi"


def refused(keys: LogSigner, kind: str, payload: bytes, first: bytes, second: bytes) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_statement(keys.public, kind, payload, first, second)
    assert caught.value.reason == Reason.SIGNATURE_INVALID


def test_the_encoding_is_that_of_dsse() -> None:
    assert pae(DSSE["payload_type"], DSSE["payload"].encode()) == DSSE["pae"].encode()
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("é", b"\x00") == b"DSSEv1 2 \xc3\xa9 1 \x00"


def test_both_signatures_are_required() -> None:
    first, second = sign_statement(SIGNER, CERTIFICATE_BINDING, PAYLOAD)
    verify_statement(SIGNER.public, CERTIFICATE_BINDING, PAYLOAD, first, second)
    alien_first, alien_second = sign_statement(OTHER, CERTIFICATE_BINDING, PAYLOAD)
    for pair in ((alien_first, second), (first, alien_second), (b"", second), (first, b""), (second, first)):
        refused(SIGNER, CERTIFICATE_BINDING, PAYLOAD, *pair)


def test_a_statement_is_of_one_type_and_one_payload() -> None:
    signatures = sign_statement(SIGNER, CERTIFICATE_BINDING, PAYLOAD)
    refused(SIGNER, CERTIFICATE_BINDING + "x", PAYLOAD, *signatures)
    refused(SIGNER, CERTIFICATE_BINDING, PAYLOAD + b"x", *signatures)
    refused(OTHER, CERTIFICATE_BINDING, PAYLOAD, *signatures)


@pytest.mark.parametrize("which", [0, 1])
def test_any_flipped_byte_fails(which: int) -> None:
    signatures = list(sign_statement(SIGNER, CERTIFICATE_BINDING, PAYLOAD))
    good = signatures[which]
    for at in range(0, len(good), 1 + len(good) // 80):
        signatures[which] = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        refused(SIGNER, CERTIFICATE_BINDING, PAYLOAD, *signatures)


@given(
    st.tuples(st.text(max_size=20), st.binary(max_size=20)),
    st.tuples(st.text(max_size=20), st.binary(max_size=20)),
)
def test_no_two_statements_share_an_encoding(one: tuple[str, bytes], two: tuple[str, bytes]) -> None:
    assert (pae(*one) == pae(*two)) == (one == two)
