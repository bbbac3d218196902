"""Secrets: what is derived from them, how they lie in files and on paper, and what hostile files meet."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_protocol import keys
from kad_protocol.errors import InvalidInputError, Reason

ORIGIN = "kad.example/forums/kartamantul/e0"
SECRET = bytes(range(32))
MEMBER = keys.MemberKeys(SECRET)
secrets_32 = st.binary(min_size=32, max_size=32)


@pytest.fixture(scope="module")
def sealed() -> dict[str, object]:
    document = json.loads(keys.seal(MEMBER, b"rahasia"))
    assert isinstance(document, dict)
    return document


def reason_of(data: bytes, passphrase: bytes | None) -> Reason:
    with pytest.raises(InvalidInputError) as caught:
        keys.unseal(data, passphrase)
    return caught.value.reason


def test_every_purpose_and_epoch_has_keys_of_its_own() -> None:
    publics = set()
    for epoch in (0, 1, 9999):
        member = keys.MemberKeys(SECRET, epoch)
        for signer in (member.log_signer(ORIGIN), member.witness_signer(ORIGIN)):
            publics |= {signer.public.ed25519_public, signer.public.mldsa44_public}
        publics.add(member.encryption_seed())
    assert len(publics) == 3 * 5


def test_derivation_never_changes() -> None:
    # These bytes are the identity of every member: a change here would lock all of them out.
    public = MEMBER.log_signer(ORIGIN).public
    assert public.ed25519_public.hex() == "58c1b5f5202986be6396cebebc9650610dffbb5eb210e90f12a0bb174fde3b1b"
    assert MEMBER.witness_signer(ORIGIN).public.ed25519_public.hex() == "64603ddbe67b42c9d4ecfa19d63513ff8ef089576b5bbed09f791fc15e41038c"
    assert MEMBER.encryption_seed().hex() == "0569cb0b38fc0373e9c24a928dcf3ee2f07c4032a48f0ef6653cfaf3e5ba58cf"
    assert keys.RecoveryKeys(SECRET).public_digest.hex() == "2c5d3cca5c89e1bd917cdcd232c69293b9bdc551b975c63da6e28a6aeaac7e76"


def test_secrets_do_not_show() -> None:
    shown = f"{MEMBER!r} {MEMBER.log_signer(ORIGIN)!r} {keys.RecoveryKeys(SECRET)!r}"
    assert SECRET.hex() not in shown
    assert repr(SECRET) not in shown
    assert shown == f"MemberKeys(epoch=0) LogSigner({ORIGIN!r}) RecoveryKeys()"


@pytest.mark.parametrize("secret,epoch", [(SECRET[:31], 0), (SECRET + b"x", 0), (SECRET, -1), (SECRET, 10_000)])
def test_secrets_and_epochs_that_cannot_be(secret: bytes, epoch: int) -> None:
    with pytest.raises(InvalidInputError):
        keys.MemberKeys(secret, epoch)


@given(secrets_32, st.integers(0, 9999))
def test_plain_files_round_trip(secret: bytes, epoch: int) -> None:
    member = keys.MemberKeys(secret, epoch)
    assert keys.unseal(keys.seal(member, None), None) == member


def test_sealed_files_open_with_their_passphrase_only(sealed: dict[str, object]) -> None:
    data = json.dumps(sealed).encode()
    assert keys.unseal(data, b"rahasia") == MEMBER
    for wrong in (b"salah", b"", None):
        assert reason_of(data, wrong) == Reason.INVALID_PASSPHRASE
    assert reason_of(keys.seal(MEMBER, None), b"rahasia") == Reason.INVALID_PASSPHRASE
    with pytest.raises(InvalidInputError):
        keys.seal(MEMBER, b"")


def test_two_seals_of_one_secret_differ(sealed: dict[str, object]) -> None:
    assert json.loads(keys.seal(MEMBER, b"rahasia"))["sealed"] != sealed["sealed"]


def test_an_altered_header_does_not_open(sealed: dict[str, object]) -> None:
    for change in ({"epoch": 1}, {"log_n": 14}):
        assert reason_of(json.dumps(sealed | change).encode(), b"rahasia") == Reason.INVALID_PASSPHRASE


@pytest.mark.parametrize(
    "change",
    [
        *({"log_n": bad} for bad in (13, 19, 40, 10**9, -1, True, 17.0, "17", None)),
        {"r": 1 << 20},
        {"p": 1 << 20},
        {"r": None},
        {"kdf": "argon9"},
        {"type": "kad.secret.v2"},
        {"epoch": -1},
        {"epoch": "0"},
        {"salt": ""},
        {"salt": None},
        {"nonce": "AAAA"},
        {"sealed": "!"},
        {"sealed": "é"},
        {"more": 1},
    ],
    ids=str,
)
def test_hostile_parameters_are_refused_before_any_work(sealed: dict[str, object], change: dict[str, object]) -> None:
    assert reason_of(json.dumps(sealed | change).encode(), b"rahasia") == Reason.INVALID_FILE


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b"{}", b"[" * 4000, b" " * 5000, b'{"type":"kad.secret.v1"}'])
def test_what_is_no_key_file(data: bytes) -> None:
    assert reason_of(data, None) == Reason.INVALID_FILE


@given(secrets_32)
def test_recovery_codes_are_read_as_people_write_them(secret: bytes) -> None:
    recovery = keys.RecoveryKeys(secret)
    code = recovery.to_code()
    sloppy = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    for written in (code, sloppy, f"\n{code.replace('1', 'I')}\t", code.replace("-", "")):
        assert keys.RecoveryKeys.from_code(written) == recovery


@given(secrets_32, st.data())
def test_one_wrong_symbol_is_noticed_and_never_repeated(secret: bytes, data: st.DataObject) -> None:
    code = keys.RecoveryKeys(secret).to_code()
    at = data.draw(st.sampled_from([i for i, symbol in enumerate(code) if symbol != "-"]))
    other = data.draw(st.sampled_from([s for s in "0123456789ABCDEFGHJKMNPQRSTVWXYZ" if s != code[at]]))
    with pytest.raises(InvalidInputError) as caught:
        keys.RecoveryKeys.from_code(code[:at] + other + code[at + 1 :])
    assert code[:9] not in str(caught.value)


@pytest.mark.parametrize("code", ["", "A" * 55, "A" * 57, "U" * 56, "é" * 56, "A" * 100_000])
def test_codes_that_cannot_be(code: str) -> None:
    with pytest.raises(InvalidInputError):
        keys.RecoveryKeys.from_code(code)


def test_the_digest_is_of_the_public_keys_alone() -> None:
    recovery = keys.RecoveryKeys.generate()
    assert keys.recovery_digest(recovery.signer("any/name").public) == recovery.public_digest
    assert keys.RecoveryKeys.generate().public_digest != recovery.public_digest
