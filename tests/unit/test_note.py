"""Notes, checkpoints, cosignatures, key files and statements against vectors that other implementations accepted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from kad_protocol import keys as keyfiles
from kad_protocol import note, statement
from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "vectors.json").read_text())
ORIGIN = "kad.example/simpul"


def signer(name: str) -> note.LogSigner:
    key = VECTORS["keys"][name]
    return note.LogSigner(name, bytes.fromhex(key["ed25519_seed_hex"]), bytes.fromhex(key["mldsa44_seed_hex"]))


LOG = signer(ORIGIN)


@pytest.mark.parametrize("name", VECTORS["keys"])
def test_keys_derive_ids_and_verifier_keys(name: str) -> None:
    expected = VECTORS["keys"][name]
    public = signer(name).public
    assert public.ed25519_public.hex() == expected["ed25519_public_hex"]
    assert hashlib.sha256(public.mldsa44_public).hexdigest() == expected["mldsa44_public_sha256"]
    lines = public.log_lines if expected["role"] == "log" else public.witness_lines
    assert [line.key_id.hex() for line in lines] == [expected["ed25519_key_id_hex"], expected["mldsa44_key_id_hex"]]
    assert [line.vkey for line in lines] == [expected["ed25519_vkey"], expected["mldsa44_vkey"]]
    assert [note.VerifierKey.parse(line.vkey) for line in lines] == list(lines)


def test_the_example_of_the_specification_verifies() -> None:
    example = VECTORS["c2sp_signed_note_example"]
    key = note.VerifierKey.parse(example["vkey"])
    parsed = note.Note.parse(example["note"].encode())
    (line,) = parsed.signatures
    assert (line.name, line.key_id) == (key.name, key.key_id)
    Ed25519PublicKey.from_public_bytes(key.public_key).verify(line.payload, parsed.text.encode())


@pytest.mark.parametrize("case", VECTORS["checkpoints"], ids=lambda c: str(c["size"]))
def test_checkpoints_and_cosignatures_that_go_accepted(case: dict[str, Any]) -> None:
    checkpoint = note.Checkpoint.parse(case["text"])
    assert (checkpoint.size, checkpoint.text) == (case["size"], case["text"])
    assert LOG.sign_ed25519(case["text"].encode()).hex() == case["ed25519_sig_hex"]
    if "log_mldsa44_message_hex" in case:
        times = bytes.fromhex(case["log_mldsa44_message_hex"])
        assert times.startswith(b"subtree/v1\n\x00")
    for whole in ("signed_note", "cosigned_note"):
        assert note.open_checkpoint(case[whole].encode(), [LOG.public]) == checkpoint
    for cosignature in case["cosignatures"]:
        witness = signer(cosignature["cosigner"]).public
        text = cosignature["ed25519_line"] + cosignature["mldsa44_line"]
        cosigned = note.Note.parse((case["text"] + "\n" + text).encode())
        assert note.verify_cosignatures(cosigned, witness) == note.Cosignature(cosignature["cosigner"], cosignature["timestamp"])
        message = note.subtree_message(
            cosignature["cosigner"], cosignature["timestamp"], checkpoint.origin, 0, checkpoint.size, checkpoint.root
        )
        assert message.hex() == cosignature["mldsa44_message_hex"]
        tampered = note.Note(case["text"].replace(f"\n{case['size']}\n", f"\n{case['size'] + 1}\n", 1), cosigned.signatures)
        with pytest.raises(VerificationError):
            note.verify_cosignatures(tampered, witness)


def test_a_subtree_signature_that_go_made_verifies() -> None:
    case = VECTORS["mldsa44_subtree"]
    message = note.subtree_message(
        case["cosigner"], case["timestamp"], case["origin"], case["start"], case["end"], bytes.fromhex(case["hash_hex"])
    )
    assert message.hex() == case["message_hex"]
    signer(case["cosigner"]).public.mldsa44.verify(bytes.fromhex(case["signature_hex"])[8:], message)


def own(size: int = 8) -> note.Checkpoint:
    return note.Checkpoint(ORIGIN, size, hashlib.sha256(b"%d" % size).digest())


def test_a_checkpoint_needs_both_signatures_of_each_key() -> None:
    signed = note.sign_checkpoint(own(), [LOG])
    assert note.open_checkpoint(signed, [LOG.public]) == own()
    parsed = note.Note.parse(signed)
    for line in parsed.signatures:
        with pytest.raises(VerificationError) as caught:
            note.open_checkpoint(note.Note(parsed.text, (line,)).to_bytes(), [LOG.public])
        assert caught.value.reason == Reason.SIGNATURE_MISSING
    with pytest.raises(VerificationError):
        note.open_checkpoint(signed, [])
    with pytest.raises(VerificationError):
        note.sign_checkpoint(own(), [signer("kad.example/forum/javapromo")])
    new = note.LogSigner(ORIGIN, bytes(32), bytes(32))
    with pytest.raises(VerificationError):
        note.open_checkpoint(signed, [LOG.public, new.public])
    both = note.sign_checkpoint(own(), [LOG, new])
    assert note.open_checkpoint(both, [LOG.public, new.public]) == own()
    assert note.open_checkpoint(both, [new.public]) == own()


def test_every_flipped_byte_of_a_checkpoint_is_refused() -> None:
    signed = note.sign_checkpoint(own(), [LOG])
    for position in [*range(200), *range(200, len(signed), 37)]:
        bad = bytearray(signed)
        bad[position] ^= 1
        with pytest.raises(VerificationError):
            note.open_checkpoint(bytes(bad), [LOG.public])


@pytest.mark.parametrize("case", VECTORS["negative_notes"], ids=lambda c: c["why"])
def test_notes_that_go_refuses(case: dict[str, str]) -> None:
    with pytest.raises(VerificationError):
        check_like_go(case["note"].encode("utf-8", "surrogatepass"))


def check_like_go(data: bytes) -> None:
    """What Go checked: the form of the note, and the Ed25519 line alone."""
    parsed = note.Note.parse(data)
    note.Checkpoint.parse(parsed.text)
    key = LOG.public
    for line in note._lines(parsed, key.origin, key.key_ids[0]):
        note._verify_ed25519(key, line.payload, parsed.text.encode())


@pytest.mark.parametrize("case", VECTORS["lenient_parsers"], ids=lambda c: c["why"][:30])
def test_checkpoints_that_lenient_parsers_accept(case: dict[str, str]) -> None:
    with pytest.raises(VerificationError):
        note.Checkpoint.parse(case["text"])


@pytest.mark.parametrize("origin", ["", "cosignature/v1", "subtree/v1", "x" * 256, "a b", "a+b"])
def test_reserved_origins(origin: str) -> None:
    with pytest.raises(VerificationError):
        note.Checkpoint.parse(f"{origin}\n0\n{'A' * 43}=\n")


@pytest.mark.parametrize("key", [k["public_key_hex"] for k in VECTORS["ed25519_refuse_public_keys"]["keys"]])
def test_keys_with_which_one_signature_fits_many_messages(key: str) -> None:
    with pytest.raises(VerificationError) as caught:
        note.LogKeys(ORIGIN, bytes.fromhex(key), LOG.public.mldsa44_public)
    assert caught.value.reason == Reason.WEAK_KEY


@given(st.binary(max_size=400))
def test_any_bytes_are_a_note_or_refused(data: bytes) -> None:
    reason = None
    try:
        parsed = note.Note.parse(data)
    except VerificationError as error:
        reason = error.reason
    assert reason == Reason.NOTE_MALFORMED or parsed.to_bytes() == data


@given(st.text(alphabet=st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=60))
def test_texts_survive(text: str) -> None:
    original = note.Note(text + "\n", (note.SignatureLine("a/b", b"1234", b"x" * 64),))
    assert note.Note.parse(original.to_bytes()) == original


def test_cosigning_and_reading_back() -> None:
    witness = signer("kad.example/forum/javapromo")
    signed = note.Note.parse(note.sign_checkpoint(own(), [LOG]))
    lines = note.cosign(own(), witness, 1_795_420_801)
    cosigned = note.Note(signed.text, signed.signatures + lines)
    assert note.open_checkpoint(cosigned.to_bytes(), [LOG.public]) == own()
    assert note.verify_cosignatures(cosigned, witness.public).time == 1_795_420_801
    with pytest.raises(VerificationError):
        note.verify_cosignatures(note.Note(signed.text, lines[:1]), witness.public)


def test_pre_authentication_encoding() -> None:
    case = VECTORS["dsse"]
    assert statement.pae(case["payload_type"], case["payload"].encode()).decode() == case["pae"]
    signatures = statement.sign_statement(LOG, "a/b", b"payload")
    statement.verify_statement(LOG.public, "a/b", b"payload", *signatures)
    for kind, payload in (("a/c", b"payload"), ("a/b", b"other")):
        with pytest.raises(VerificationError):
            statement.verify_statement(LOG.public, kind, payload, *signatures)


def test_key_files() -> None:
    keys = keyfiles.MemberKeys.generate()
    public = keys.log_signer(ORIGIN).public
    assert keys.witness_signer(ORIGIN).public.ed25519_public != public.ed25519_public
    for passphrase in (None, b"rahasia"):
        data = keyfiles.seal(keys, passphrase)
        assert keyfiles.unseal(data, passphrase).log_signer(ORIGIN).public == public
    assert b"secret" not in keyfiles.seal(keys, b"rahasia").replace(b"kad.secret.v1", b"")
    for wrong in (None, b"salah"):
        with pytest.raises(InvalidInputError) as caught:
            keyfiles.unseal(data, wrong)
        assert caught.value.reason == Reason.INVALID_PASSPHRASE
    document = json.loads(data)
    for change in ({"log_n": 40}, {"epoch": 1}, {"type": "x"}, {"sealed": "!"}, {"salt": None}):
        with pytest.raises(KadError):
            keyfiles.unseal(json.dumps(document | change).encode(), b"rahasia")
    assert "secret" not in repr(keys).lower()


def test_recovery_codes() -> None:
    recovery = keyfiles.RecoveryKeys.generate()
    code = recovery.to_code()
    assert keyfiles.RecoveryKeys.from_code(f" {code.lower().replace('-', ' ')} ").public_digest == recovery.public_digest
    for bad in (code[:-1], code[:-1] + ("0" if code[-1] != "0" else "1"), "", "U" * 56):
        with pytest.raises(InvalidInputError):
            keyfiles.RecoveryKeys.from_code(bad)
