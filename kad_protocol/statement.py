"""Signed statements outside feeds: an enrolment, an invitation, a recovery.

What is signed is the DSSE pre-authentication encoding, which names the type and all lengths, so that no
statement can be taken for one of another type, nor for a checkpoint of a feed (whose origin holds no space).
KAD's types read ``application/vnd.kad.<name>.v1+protobuf``. As everywhere, both signatures are required.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature

from kad_protocol.errors import Reason, VerificationError

if TYPE_CHECKING:
    from kad_protocol.note import LogKeys, LogSigner

__all__ = ["CERTIFICATE_BINDING", "RECOVERY", "RECOVERY_INQUIRY", "pae", "sign_statement", "verify_statement"]

#: Payload type of ``kad.v1.CertificateBinding``: ties a certificate request to the feed of who asks for it.
CERTIFICATE_BINDING = "application/vnd.kad.certificate-binding.v1+protobuf"
#: Payload type of ``kad.v1.RecoveryStatement``: the owner of a feed begins it anew.
RECOVERY = "application/vnd.kad.recovery.v1+protobuf"
#: Payload type of ``kad.v1.RecoveryInquiry``: the owner of a feed asks what there is to recover.
RECOVERY_INQUIRY = "application/vnd.kad.recovery-inquiry.v1+protobuf"


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed (DSSE protocol, "PAE"); lengths count bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_statement(signer: LogSigner, payload_type: str, payload: bytes) -> tuple[bytes, bytes]:
    """Sign exactly these bytes: an Ed25519 signature (64 bytes) and an ML-DSA-44 signature (2,420 bytes)."""
    message = pae(payload_type, payload)
    return signer.sign_ed25519(message), signer.sign_mldsa44(message)


def verify_statement(keys: LogKeys, payload_type: str, payload: bytes, ed25519_signature: bytes, mldsa44_signature: bytes) -> None:
    """Check both signatures of a statement, before its payload is parsed.

    Raises:
        VerificationError: ``SIGNATURE_INVALID`` if either is not good.
    """
    message = pae(payload_type, payload)
    try:
        keys.ed25519.verify(ed25519_signature, message)
        keys.mldsa44.verify(mldsa44_signature, message)
    except InvalidSignature:
        raise VerificationError(
            Reason.SIGNATURE_INVALID,
            f"a {payload_type} statement that {keys.origin} did not sign",
            name=keys.origin,
        ) from None
