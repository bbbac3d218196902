"""Channel certificates: who may call. Who *wrote* something is a matter of feed keys, never of these.

A member's certificate is ECDSA P-256, lives seven days, is no authority, and carries exactly one URI,
``kad://<federation>/forums/<forum>``, and one DNS name, ``<forum>.<federation>``. The DNS name lets a client say whom it dials,
whatever the address; everything else is read from the URI and nothing from the subject.

Each authority is a small one of our own: the simpul's vouches for its federation, that of a node without a simpul for itself alone.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kad_protocol.errors import InvalidInputError, KadError, Reason, UnauthenticatedError
from kad_protocol.names import FeedId

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Authority", "Trust", "TrustAnchor", "key_digest", "new_channel_key", "request_certificate"]

LIFETIME = datetime.timedelta(days=7)
#: Clocks of secretariats are wrong; a new certificate is valid from a little while ago.
BACKDATED = datetime.timedelta(hours=1)
_AUTHORITY_LIFETIME = datetime.timedelta(days=3650)
_MAX_REQUEST_BYTES = 8192


def _public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_digest(certificate: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo."""
    key = certificate.public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _p256(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInputError(Reason.CERTIFICATE_REQUEST_INVALID, "channel keys are ECDSA P-256")
    return key


def new_channel_key() -> bytes:
    """A new P-256 key, PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInputError(Reason.INVALID_FILE, "this is not an ECDSA key")
    return key


def request_certificate(key_pem: bytes) -> bytes:
    """A PKCS#10 request (DER) for a key. Only the key counts; names are given by the authority."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject("kad"))
    return builder.sign(_load_key(key_pem), hashes.SHA256()).public_bytes(Encoding.DER)


def load_request(der: bytes) -> x509.CertificateSigningRequest:
    """Read a request and check that its maker holds the key.

    Raises:
        InvalidInputError: ``CERTIFICATE_REQUEST_INVALID``.
    """
    if len(der) > _MAX_REQUEST_BYTES:
        raise InvalidInputError(Reason.CERTIFICATE_REQUEST_INVALID, "the certificate request is too large")
    try:
        request = x509.load_der_x509_csr(der)
        _p256(request.public_key())
        valid = request.is_signature_valid
    except KadError:
        raise
    except Exception as error:
        raise InvalidInputError(Reason.CERTIFICATE_REQUEST_INVALID, "this is not a certificate request") from error
    if not valid:
        raise InvalidInputError(Reason.CERTIFICATE_REQUEST_INVALID, "the certificate request is not signed by its key")
    return request


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


class Authority:
    """A small certificate authority. The private key stays in it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate
        self._enrolment = b""

    @classmethod
    def create(cls, feed: FeedId, now: datetime.datetime) -> Authority:
        """A new authority, run by the member of ``feed``."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(f"KAD {feed.forum}")
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + _AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, key_pem: bytes, certificate_pem: bytes) -> Authority:
        """From its two files."""
        return cls(_load_key(key_pem), x509.load_pem_x509_certificate(certificate_pem))

    @property
    def key_pem(self) -> bytes:
        """The private key; for its file only."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def certificate_pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_digest(self) -> bytes:
        """What an invitation carries."""
        return key_digest(self.certificate)

    def issue(self, request_der: bytes, feed: FeedId, now: datetime.datetime) -> bytes:
        """A member's certificate, PEM. Of the request only the key is used.

        Raises:
            InvalidInputError: ``CERTIFICATE_REQUEST_INVALID``.
        """
        return self._leaf(_p256(load_request(request_der).public_key()), feed, self.certificate.subject, now)

    def enrolment_certificate(self, now: datetime.datetime) -> bytes:
        """What the enrolment port presents, PEM: a leaf with the authority's *own* key, signed by itself. Whoever knows the digest of
        that key from an invitation knows at the first contact whom it speaks to. It stays the same for days, since a client looks at
        it in one connection and insists on it in the next.
        """
        if not self._enrolment or renewal_due(self._enrolment, now):
            self._enrolment = self._new_enrolment_certificate(now)
        return self._enrolment

    def _new_enrolment_certificate(self, now: datetime.datetime) -> bytes:
        return self._leaf(self._key.public_key(), _ENROLMENT, _subject("KAD enrolment"), now)

    def _leaf(self, key: ec.EllipticCurvePublicKey, feed: FeedId, issuer: x509.Name, now: datetime.datetime) -> bytes:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(feed.member_uri), x509.DNSName(feed.server_name)]
        subject = issuer if feed is _ENROLMENT else _subject(feed.forum)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        if feed is not _ENROLMENT:
            # A certificate that signs itself and says that it may not sign is one that TLS libraries do not accept as its own root.
            builder = builder.add_extension(_key_usage(authority=False), critical=True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


#: The name under which every enrolment port answers.
_ENROLMENT = FeedId("enrolment.kad.internal", "enrolment")
ENROLMENT_SERVER_NAME = _ENROLMENT.server_name


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def renewal_due(certificate_pem: bytes, now: datetime.datetime) -> bool:
    """Two thirds of its life are over."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now >= start + (end - start) * 2 / 3


def issued_at(certificate: x509.Certificate) -> datetime.datetime:
    """When a certificate was issued by our own authorities (UTC), in whole seconds."""
    return certificate.not_valid_before_utc + BACKDATED


def expiry(certificate_pem: bytes) -> datetime.datetime:
    """When a certificate ends (UTC)."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc


@dataclass(frozen=True, slots=True)
class TrustAnchor:
    """An authority and for whom it may vouch: a whole federation, or one forum of it."""

    certificate: x509.Certificate
    federation: str
    forum: str | None = None

    def covers(self, feed: FeedId) -> bool:
        """May it vouch for this member?"""
        return feed.federation == self.federation and self.forum in (None, feed.forum)


class Trust:
    """The authorities that this node believes, and for whom.

    Args:
        anchors: the authorities.
        began_anew: when a member last began a new key epoch (microseconds since 1970): what was issued before is a thief's.
    """

    def __init__(self, anchors: list[TrustAnchor], began_anew: Callable[[FeedId], int | None] = lambda _: None) -> None:
        self.anchors = anchors
        self.began_anew = began_anew

    @property
    def roots_pem(self) -> bytes:
        """All authorities, for the TLS library; which of them may vouch for whom is checked by ``identify``."""
        return b"".join(anchor.certificate.public_bytes(Encoding.PEM) for anchor in self.anchors)

    def roots_for(self, feed: FeedId) -> bytes:
        """The authorities that may vouch for one member."""
        return b"".join(anchor.certificate.public_bytes(Encoding.PEM) for anchor in self.anchors if anchor.covers(feed))

    def identify(self, certificate_pem: bytes, now: datetime.datetime) -> FeedId:
        """Whose certificate this is; the epoch of the answer is 0.

        TLS has checked the signature chain; what TLS accepts and we do not is checked here (an authority used as a leaf, more than
        one name, an authority that vouches for somebody else's member, a certificate that ended while its connection lived on).

        Raises:
            UnauthenticatedError: ``IDENTITY_INVALID``.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
            feed = FeedId.from_member_uri(uri)
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, KadError) as error:
            raise UnauthenticatedError(Reason.IDENTITY_INVALID, "the certificate does not carry exactly one name of a member") from error
        if is_authority:
            raise UnauthenticatedError(Reason.IDENTITY_INVALID, "the certificate is an authority's", name=feed.forum)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise UnauthenticatedError(Reason.IDENTITY_INVALID, f"the certificate of {feed.forum} has ended or not begun", name=feed.forum)
        began = self.began_anew(feed)
        if began is not None and issued_at(certificate) <= datetime.datetime.fromtimestamp(began // 1_000_000, datetime.UTC):
            raise UnauthenticatedError(
                Reason.EPOCH_SUPERSEDED, f"{feed.forum} has begun anew since this certificate was issued", name=feed.forum
            )
        for anchor in self.anchors:
            if anchor.covers(feed) and _issued_by(certificate, anchor.certificate):
                return feed
        raise UnauthenticatedError(Reason.IDENTITY_INVALID, f"nobody whom we believe vouches for {feed.forum}", name=feed.forum)


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
