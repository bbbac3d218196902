"""Channel certificates: what an authority gives, and whom a node believes."""

from __future__ import annotations

import datetime
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from kad_protocol.certificates import Authority, Trust, TrustAnchor, key_digest, new_channel_key, renewal_due, request_certificate
from kad_protocol.errors import InvalidInputError, Reason, UnauthenticatedError
from kad_protocol.names import FeedId

NOW = datetime.datetime(2026, 11, 23, 8, 0, tzinfo=datetime.UTC)
DAY, HOUR, SECOND = datetime.timedelta(days=1), datetime.timedelta(hours=1), datetime.timedelta(seconds=1)
FEDERATION = "simpul-kabkota.kad.internal"
SIMPUL, FORUM, OTHER = (FeedId(FEDERATION, forum) for forum in ("simpul", "kartamantul", "barlingmascakeb"))


def forge(
    authority: Authority,
    feed: FeedId = FORUM,
    *,
    now: datetime.datetime = NOW,
    uris: list[str] | None = None,
    ca: bool | None = False,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> tuple[bytes, bytes]:
    """Key and certificate, PEM, as a careless or hostile authority would make them; ``ca=None`` leaves the constraint out."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [x509.UniformResourceIdentifier(uri) for uri in ([feed.member_uri] if uris is None else uris)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, feed.forum)]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + 7 * DAY)
        .add_extension(x509.SubjectAlternativeName([*names, x509.DNSName(feed.server_name)]), critical=False)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    certificate = builder.sign(authority._key, hashes.SHA256())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), certificate.public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def authority():
    return Authority.create(SIMPUL, NOW)


def federation_trust(authority: Authority) -> Trust:
    return Trust([TrustAnchor(authority.certificate, FEDERATION)])


def request(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, *extensions: x509.ExtensionType) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simpul")]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def refused(trust: Trust, certificate: bytes, now: datetime.datetime = NOW) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        trust.identify(certificate, now)
    assert caught.value.reason == Reason.IDENTITY_INVALID


def test_an_issued_certificate_names_its_member_and_nothing_else(authority) -> None:
    key = new_channel_key()
    certificate = x509.load_pem_x509_certificate(authority.issue(request_certificate(key), FORUM, NOW))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(FORUM.member_uri), x509.DNSName(FORUM.server_name)]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_before_utc == NOW - HOUR
    assert certificate.not_valid_after_utc == NOW + 7 * DAY
    assert key_digest(certificate) == key_digest(x509.load_der_x509_csr(request_certificate(key)))


def test_of_a_request_only_the_key_counts(authority) -> None:
    wished = (
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(SIMPUL.member_uri), x509.DNSName(SIMPUL.server_name)]),
        x509.BasicConstraints(ca=True, path_length=None),
    )
    certificate = authority.issue(request(ec.generate_private_key(ec.SECP256R1()), *wished), FORUM, NOW)
    assert federation_trust(authority).identify(certificate, NOW) == FORUM
    assert SIMPUL.server_name.encode() not in x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "make",
    [
        lambda: request(ec.generate_private_key(ec.SECP384R1())),
        lambda: request(ed25519.Ed25519PrivateKey.generate()),
        lambda: b"",
        lambda: b"\x30\x03\x02\x01\x00",
        lambda: request_certificate(new_channel_key())[:-1],
        # A changed signature, and a subject that was changed after signing.
        lambda: (good := request_certificate(new_channel_key()))[:-1] + bytes([good[-1] ^ 1]),
        lambda: request(ec.generate_private_key(ec.SECP256R1())).replace(b"simpul", b"simpux"),
    ],
    ids=["p384", "ed25519", "empty", "other", "cut", "signature", "subject"],
)
def test_a_request_that_is_not_right_is_refused(authority, make) -> None:
    with pytest.raises(InvalidInputError) as caught:
        authority.issue(make(), FORUM, NOW)
    assert caught.value.reason == Reason.CERTIFICATE_REQUEST_INVALID


def test_a_request_is_at_most_8_kib(authority) -> None:
    def filled(size: int) -> bytes:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(size))
        return request(ec.generate_private_key(ec.SECP256R1()), extension)

    assert len(filled(7500)) < 8192 < len(filled(8192))
    authority.issue(filled(7500), FORUM, NOW)
    with pytest.raises(InvalidInputError, match="too large"):
        authority.issue(filled(8192), FORUM, NOW)


def test_a_member_is_known_by_its_certificate_whatever_its_epoch(authority) -> None:
    certificate = authority.issue(request_certificate(new_channel_key()), FeedId(FEDERATION, "kartamantul", 3), NOW)
    assert federation_trust(authority).identify(certificate, NOW) == FORUM


@pytest.mark.parametrize(
    "flaw",
    [
        {"ca": True},
        {"ca": None},
        {"uris": []},
        {"uris": [FORUM.member_uri, OTHER.member_uri]},
        {"uris": [FORUM.member_uri, FORUM.member_uri]},
        {"uris": [f"https://{FEDERATION}/forums/kartamantul"]},
        {"uris": [f"kad://{FEDERATION}/forums/Kartamantul"]},
        {"uris": [f"kad://{FEDERATION}/forums/kartamantul/e0"]},
        {"uris": ["kad://other.kad.internal/forums/kartamantul"]},
    ],
    ids=["authority", "unconstrained", "no-uri", "two-uris", "twice", "scheme", "case", "epoch", "federation"],
)
def test_a_certificate_with_a_flaw_identifies_nobody(authority, flaw) -> None:
    trust = federation_trust(authority)
    # The forger is good enough: without a flaw its certificate would be believed.
    assert trust.identify(forge(authority)[1], NOW) == FORUM
    refused(trust, forge(authority, **flaw)[1])


def test_what_is_no_certificate_identifies_nobody(authority) -> None:
    for pem in (b"", b"kad", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        refused(federation_trust(authority), pem)


def test_a_certificate_is_good_for_its_days_and_not_a_second_more(authority) -> None:
    trust, certificate = federation_trust(authority), authority.issue(request_certificate(new_channel_key()), FORUM, NOW)
    for good in (NOW - HOUR, NOW, NOW + 7 * DAY):
        assert trust.identify(certificate, good) == FORUM
    for bad in (NOW - HOUR - SECOND, NOW + 7 * DAY + SECOND):
        refused(trust, certificate, bad)


def test_the_same_name_from_another_authority_is_refused(authority) -> None:
    # Same subject as the true one, so that only the signature tells them apart.
    impostor = Authority.create(SIMPUL, NOW)
    assert impostor.certificate.subject == authority.certificate.subject
    refused(federation_trust(authority), forge(impostor)[1])


def test_the_authority_of_one_forum_vouches_for_that_forum_alone(authority) -> None:
    own = Authority.create(FORUM, NOW)
    trust = Trust([TrustAnchor(authority.certificate, "other.kad.internal"), TrustAnchor(own.certificate, FEDERATION, "kartamantul")])
    assert trust.identify(own.issue(request_certificate(new_channel_key()), FORUM, NOW), NOW) == FORUM
    refused(trust, own.issue(request_certificate(new_channel_key()), OTHER, NOW))
    # The first anchor signs well, but not for this federation.
    refused(trust, forge(authority)[1])
    assert trust.roots_for(FORUM) == own.certificate_pem
    assert trust.roots_for(OTHER) == b""
    assert trust.roots_pem == authority.certificate_pem + own.certificate_pem


def test_what_the_enrolment_port_presents_carries_the_pinned_key_and_identifies_nobody(authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.enrolment_certificate(NOW))
    spki = authority.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key_digest(certificate) == authority.key_digest == hashlib.sha256(spki).digest()
    refused(federation_trust(authority), authority.enrolment_certificate(NOW))


def test_the_enrolment_certificate_stays_until_it_is_due(authority) -> None:
    first = authority.enrolment_certificate(NOW)
    assert authority.enrolment_certificate(NOW + 4 * DAY) == first
    later = authority.enrolment_certificate(NOW + 6 * DAY)
    assert later != first
    assert key_digest(x509.load_pem_x509_certificate(later)) == authority.key_digest


def test_an_authority_survives_its_files(authority) -> None:
    again = Authority.load(authority.key_pem, authority.certificate_pem)
    assert again.key_digest == authority.key_digest
    certificate = again.issue(request_certificate(new_channel_key()), FORUM, NOW)
    assert federation_trust(authority).identify(certificate, NOW) == FORUM


def test_renewal_is_due_after_two_thirds_of_its_life(authority) -> None:
    certificate = authority.issue(request_certificate(new_channel_key()), FORUM, NOW)
    due = NOW - HOUR + (7 * DAY + HOUR) * 2 / 3
    assert not renewal_due(certificate, due - SECOND)
    assert renewal_due(certificate, due)
    assert renewal_due(certificate, NOW + 30 * DAY)


def test_what_was_issued_before_a_member_began_anew_is_worth_nothing(authority) -> None:
    """A stolen channel certificate names the member and no epoch: it is known by when it was issued."""
    certificate = authority.issue(request_certificate(new_channel_key()), FORUM, NOW)
    for began, good in ((NOW - HOUR, True), (NOW - datetime.timedelta(seconds=1), True), (NOW, False), (NOW + HOUR, False)):
        micros = int(began.timestamp() * 1_000_000)
        trust = Trust([TrustAnchor(authority.certificate, FEDERATION)], {FORUM: micros}.get)
        if good:
            assert trust.identify(certificate, NOW) == FORUM
            continue
        with pytest.raises(UnauthenticatedError) as caught:
            trust.identify(certificate, NOW)
        assert caught.value.reason == Reason.EPOCH_SUPERSEDED
    others = Trust([TrustAnchor(authority.certificate, FEDERATION)], {SIMPUL: int(NOW.timestamp() * 1_000_000)}.get)
    assert others.identify(certificate, NOW) == FORUM
