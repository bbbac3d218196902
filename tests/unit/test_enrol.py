"""The enrolment authority: who gets in with an invitation, and who renews."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509

from kad_protocol import merkle
from kad_protocol.certificates import Authority, key_digest, new_channel_key, request_certificate
from kad_protocol.entry import genesis_entry, key_set
from kad_protocol.errors import InvalidInputError, KadError, NotFoundError, PermissionDeniedError, Reason
from kad_protocol.invitation import decode
from kad_protocol.keys import MemberKeys, RecoveryKeys
from kad_protocol.names import FeedId
from kad_protocol.statement import CERTIFICATE_BINDING, RECOVERY, RECOVERY_INQUIRY, sign_statement
from kad_protocol.store import FeedState
from kad_protocol.v1 import enrolment_pb2, entry_pb2
from kad_simpul.enrol import Enrolment

NOW = datetime.datetime(2026, 11, 23, 8, 0, tzinfo=datetime.UTC)
MINUTE, DAY, WEEK = datetime.timedelta(minutes=1), datetime.timedelta(days=1), datetime.timedelta(days=7)
FEDERATION = "simpul-kabkota.kad.internal"
FORUM = FeedId(FEDERATION, "kartamantul")
FULL = entry_pb2.MEMBER_CATEGORY_FULL
AUTHORITY = Authority.create(FeedId(FEDERATION, "simpul"), NOW)
ENROLMENT = Enrolment(AUTHORITY, FEDERATION, "simpul.example.id:7443")
SMALL_ORDER = bytes([1]) + bytes(31)


class Shelf:
    """An ``InvitationStore`` in memory."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], bytes] = {}

    def local(self, kind: str, key: str) -> bytes | None:
        return self.values.get((kind, key))

    def locals(self, kind: str) -> dict[str, bytes]:
        return {key: value for (found, key), value in self.values.items() if found == kind}

    def put_local(self, kind: str, key: str, value: bytes) -> None:
        self.values[kind, key] = value


@dataclass
class Applicant:
    """A forum that applies; each part of what it says can be changed."""

    feed: FeedId = FORUM
    keys: MemberKeys = field(default_factory=MemberKeys.generate)
    key: bytes = field(default_factory=new_channel_key)
    role: entry_pb2.MemberRole = entry_pb2.MEMBER_ROLE_FORUM

    def genesis(self) -> entry_pb2.Entry:
        log, witness = self.keys.log_signer(self.feed.origin).public, self.keys.witness_signer(self.feed.origin).public
        return genesis_entry(self.feed, log, witness, bytes(32), self.role, 0)

    def binding(self, *, kind: str = CERTIFICATE_BINDING, time: datetime.datetime = NOW, **changed: object) -> enrolment_pb2.Statement:
        digest = key_digest(x509.load_der_x509_csr(request_certificate(self.key)))
        fields = {"feed": self.feed.origin, "key_digest": digest, "authority_key_digest": AUTHORITY.key_digest} | changed
        bound = enrolment_pb2.CertificateBinding(**fields)
        bound.time.FromDatetime(time)
        payload = bound.SerializeToString()
        first, second = sign_statement(self.keys.log_signer(self.feed.origin), kind, payload)
        return enrolment_pb2.Statement(payload=payload, ed25519_signature=first, mldsa44_signature=second)

    def apply(self, text: str, **changed: object) -> enrolment_pb2.EnrolRequest:
        code = decode(text)
        fields = {
            "invitation_id": code.invitation_id,
            "secret": code.secret,
            "forum": self.feed.forum,
            "genesis": self.genesis().SerializeToString(),
            "certificate_request": request_certificate(self.key),
            "binding": self.binding(),
        }
        return enrolment_pb2.EnrolRequest(**(fields | changed))

    def renewal(self, **changed: object) -> enrolment_pb2.RenewCertificateRequest:
        fields = {"feed": self.feed.origin, "certificate_request": request_certificate(self.key), "binding": self.binding()}
        return enrolment_pb2.RenewCertificateRequest(**(fields | changed))


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def text(shelf):
    return ENROLMENT.invite(shelf, "kartamantul", FULL, WEEK, NOW)[0]


def refused(error: type[KadError], reason: Reason, shelf: Shelf, request: enrolment_pb2.EnrolRequest, now: datetime.datetime = NOW) -> None:
    """It is refused for this reason, and nothing is used up."""
    before = dict(shelf.values)
    with pytest.raises(error) as caught:
        ENROLMENT.redeem(shelf, request, now)
    assert caught.value.reason == reason
    assert shelf.values == before


def test_an_invitation_carries_what_the_first_contact_needs(shelf, text) -> None:
    code = decode(text)
    assert code.enrolment_address == "simpul.example.id:7443"
    assert code.authority_key_digest == AUTHORITY.key_digest
    assert (code.federation, code.forum) == (FEDERATION, "kartamantul")
    assert code.expire_time.ToDatetime(datetime.UTC) == NOW + WEEK


def test_the_secret_is_not_kept(shelf, text) -> None:
    code = decode(text)
    (kept,) = shelf.values.values()
    assert code.secret not in kept
    assert code.secret.hex().encode() not in kept
    assert code.invitation_id.hex().encode() in kept


def test_two_invitations_share_nothing(shelf, text) -> None:
    again = decode(ENROLMENT.invite(shelf, "kartamantul", FULL, WEEK, NOW)[0])
    assert again.secret != decode(text).secret
    assert again.invitation_id != decode(text).invitation_id


@pytest.mark.parametrize("lifetime", [MINUTE - datetime.timedelta(seconds=1), 30 * DAY + MINUTE, datetime.timedelta(0), -DAY])
def test_an_invitation_lives_a_minute_to_thirty_days(shelf, lifetime) -> None:
    for good in (MINUTE, 30 * DAY):
        ENROLMENT.invite(shelf, "kartamantul", FULL, good, NOW)
    with pytest.raises(InvalidInputError) as caught:
        ENROLMENT.invite(shelf, "kartamantul", FULL, lifetime, NOW)
    assert caught.value.reason == Reason.INVALID_FIELD


def test_nobody_is_invited_under_a_name_that_is_none(shelf) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ENROLMENT.invite(shelf, "../kartamantul", FULL, WEEK, NOW)
    assert caught.value.reason == Reason.INVALID_NAME


def test_who_was_invited_gets_in(shelf) -> None:
    text, _ = ENROLMENT.invite(shelf, "kartamantul", entry_pb2.MEMBER_CATEGORY_ASSOCIATE, WEEK, NOW)
    applicant = Applicant()
    application = ENROLMENT.redeem(shelf, applicant.apply(text), NOW + DAY)
    assert application.feed == FORUM
    assert application.genesis == merkle.leaf_hash(applicant.genesis().SerializeToString())
    assert application.category == entry_pb2.MEMBER_CATEGORY_ASSOCIATE
    (kept,) = ENROLMENT.invitations(shelf)
    assert kept.used == int((NOW + DAY).timestamp()) * 1_000_000
    assert (kept.feed, kept.genesis) == (FORUM.origin, application.genesis.hex())


def test_a_retry_with_the_same_feed_is_granted_even_later_and_with_a_new_channel_key(shelf, text) -> None:
    applicant = Applicant()
    first = ENROLMENT.redeem(shelf, applicant.apply(text), NOW)
    kept = dict(shelf.values)
    applicant.key = new_channel_key()
    assert not first.repeated
    assert ENROLMENT.redeem(shelf, applicant.apply(text), NOW + 2 * WEEK) == replace(first, repeated=True)
    assert shelf.values == kept


def test_an_invitation_is_good_for_one_feed(shelf, text) -> None:
    ENROLMENT.redeem(shelf, Applicant().apply(text), NOW)
    refused(PermissionDeniedError, Reason.INVITATION_USED, shelf, Applicant().apply(text))


def test_an_expired_invitation_is_refused_from_that_moment(shelf, text) -> None:
    refused(PermissionDeniedError, Reason.INVITATION_EXPIRED, shelf, Applicant().apply(text), NOW + WEEK)
    ENROLMENT.redeem(shelf, Applicant().apply(text), NOW + WEEK - datetime.timedelta(microseconds=1))


def test_without_the_secret_one_learns_nothing(shelf, text) -> None:
    unknown = Reason.INVITATION_UNKNOWN
    refused(PermissionDeniedError, unknown, shelf, Applicant().apply(text, secret=bytes(16)))
    refused(PermissionDeniedError, unknown, shelf, Applicant().apply(text, secret=b""))
    refused(PermissionDeniedError, unknown, shelf, Applicant().apply(text, invitation_id=bytes(16)))
    # Not even that it is for somebody else, has expired or was used.
    other = Applicant(FeedId(FEDERATION, "barlingmascakeb"))
    refused(PermissionDeniedError, unknown, shelf, other.apply(text, secret=bytes(16)), NOW + 2 * WEEK)
    ENROLMENT.redeem(shelf, Applicant().apply(text), NOW)
    refused(PermissionDeniedError, unknown, shelf, Applicant().apply(text, secret=bytes(16)))


def test_an_invitation_is_for_its_forum(shelf, text) -> None:
    other = Applicant(FeedId(FEDERATION, "barlingmascakeb"))
    refused(PermissionDeniedError, Reason.INVITATION_FOR_OTHER_FORUM, shelf, other.apply(text))


@pytest.mark.parametrize(
    "applicant",
    [
        Applicant(FeedId(FEDERATION, "barlingmascakeb")),
        Applicant(FeedId("other.kad.internal", "kartamantul")),
        Applicant(FeedId(FEDERATION, "kartamantul", 1)),
        Applicant(role=entry_pb2.MEMBER_ROLE_SIMPUL),
    ],
    ids=["forum", "federation", "epoch", "role"],
)
def test_a_genesis_that_is_not_the_invited_forums_is_refused(shelf, text, applicant) -> None:
    refused(InvalidInputError, Reason.GENESIS_MISMATCH, shelf, applicant.apply(text, forum="kartamantul"))


@pytest.mark.parametrize("keys", ["log_keys", "witness_keys"])
def test_a_key_of_small_order_is_refused(shelf, text, keys) -> None:
    applicant = Applicant()
    genesis = applicant.genesis()
    getattr(genesis.genesis, keys).ed25519_public = SMALL_ORDER
    refused(KadError, Reason.WEAK_KEY, shelf, applicant.apply(text, genesis=genesis.SerializeToString()))


def test_a_genesis_that_is_none_is_refused(shelf, text) -> None:
    applicant = Applicant()
    for data in (b"", b"\xff" * 40, entry_pb2.Entry().SerializeToString(), applicant.genesis().SerializeToString()[:-1]):
        refused(KadError, Reason.ENTRY_MALFORMED, shelf, applicant.apply(text, genesis=data))


MINE = Applicant()


def bad_bindings(mine: Applicant) -> dict[str, tuple[Reason, dict[str, object]]]:
    """Everything that a binding may lack: for which reason it is refused, and what is changed in the request."""
    thief = Applicant()
    good = mine.binding()
    stripped = enrolment_pb2.Statement(payload=good.payload, ed25519_signature=good.ed25519_signature)
    invalid, unsigned = Reason.CERTIFICATE_REQUEST_INVALID, Reason.SIGNATURE_INVALID
    return {
        "absent": (unsigned, {"binding": enrolment_pb2.Statement()}),
        "no ML-DSA": (unsigned, {"binding": stripped}),
        "signed by another": (unsigned, {"binding": thief.binding()}),
        "another type": (unsigned, {"binding": mine.binding(kind="application/vnd.kad.other.v1+protobuf")}),
        "another feed": (invalid, {"binding": mine.binding(feed=f"{FEDERATION}/forums/kartamantul/e1")}),
        "another channel key": (invalid, {"certificate_request": request_certificate(thief.key)}),
        "another federation": (invalid, {"binding": mine.binding(authority_key_digest=bytes(32))}),
        "not a request": (invalid, {"certificate_request": b"0"}),
    }


BAD = bad_bindings(MINE)


@pytest.mark.parametrize("flaw", BAD)
def test_a_binding_with_a_flaw_is_refused(shelf, text, flaw) -> None:
    reason, changed = BAD[flaw]
    refused(KadError, reason, shelf, MINE.apply(text, **changed))
    keys = MINE.keys.log_signer(FORUM.origin).public
    with pytest.raises(KadError) as caught:
        ENROLMENT.check_renewal(MINE.renewal(**changed), keys, NOW)
    assert caught.value.reason == reason
    # The flaw is what was refused: without it both are granted.
    ENROLMENT.check_renewal(MINE.renewal(), keys, NOW)
    ENROLMENT.redeem(shelf, MINE.apply(text), NOW)


@pytest.mark.parametrize("off", [11 * MINUTE, -11 * MINUTE, 3650 * DAY])
def test_an_old_binding_does_not_renew(off) -> None:
    keys = MINE.keys.log_signer(FORUM.origin).public
    for near in (9 * MINUTE, -9 * MINUTE):
        ENROLMENT.check_renewal(MINE.renewal(binding=MINE.binding(time=NOW + near)), keys, NOW)
    with pytest.raises(KadError) as caught:
        ENROLMENT.check_renewal(MINE.renewal(binding=MINE.binding(time=NOW + off)), keys, NOW)
    assert caught.value.reason == Reason.CERTIFICATE_REQUEST_INVALID


def test_a_revoked_invitation_is_worthless_and_says_when(shelf, text) -> None:
    number = decode(text).invitation_id.hex()
    kept = ENROLMENT.revoke(shelf, number, NOW)
    assert kept.revoked == int(NOW.timestamp()) * 1_000_000
    assert ENROLMENT.revoke(shelf, number, NOW + DAY) == kept
    refused(PermissionDeniedError, Reason.INVITATION_UNKNOWN, shelf, Applicant().apply(text))


def test_only_an_unused_invitation_can_be_revoked(shelf, text) -> None:
    ENROLMENT.redeem(shelf, Applicant().apply(text), NOW)
    with pytest.raises(PermissionDeniedError) as caught:
        ENROLMENT.revoke(shelf, decode(text).invitation_id.hex(), NOW)
    assert caught.value.reason == Reason.INVITATION_USED
    with pytest.raises(NotFoundError):
        ENROLMENT.revoke(shelf, "00" * 16, NOW)


def test_invitations_are_listed_newest_first(shelf) -> None:
    for days, forum in ((1, "kartamantul"), (3, "gerbangkertosusila"), (2, "barlingmascakeb")):
        ENROLMENT.invite(shelf, forum, FULL, WEEK, NOW + days * DAY)
    assert [kept.forum for kept in ENROLMENT.invitations(shelf)] == ["gerbangkertosusila", "barlingmascakeb", "kartamantul"]


# Recovery: who asks, and what a new epoch may be.


CODE = RecoveryKeys.generate()
NEXT = FeedId(FEDERATION, FORUM.forum, 1)


def inquiry(
    recovery: RecoveryKeys = CODE,
    kind: str = RECOVERY_INQUIRY,
    forum: str = "kartamantul",
    time: datetime.datetime = NOW,
    **changed: object,
) -> enrolment_pb2.PrepareRecoveryRequest:
    signer = recovery.signer("recovery")
    asked = enrolment_pb2.RecoveryInquiry(**({"forum": "kartamantul", "authority_key_digest": AUTHORITY.key_digest} | changed))
    asked.time.FromDatetime(time)
    payload = asked.SerializeToString()
    first, second = sign_statement(signer, kind, payload)
    statement = enrolment_pb2.Statement(payload=payload, ed25519_signature=first, mldsa44_signature=second)
    return enrolment_pb2.PrepareRecoveryRequest(forum=forum, recovery_keys=key_set(signer.public), inquiry=statement)


def test_who_holds_the_code_may_ask() -> None:
    ENROLMENT.check_inquiry(inquiry(), CODE.public_digest, NOW)


@pytest.mark.parametrize(
    "request_, known, reason",
    [
        (inquiry(RecoveryKeys.generate()), CODE.public_digest, Reason.RECOVERY_INVALID),
        (inquiry(), b"", Reason.RECOVERY_INVALID),
        (inquiry(kind=RECOVERY), CODE.public_digest, Reason.SIGNATURE_INVALID),
        (inquiry(forum="lain"), CODE.public_digest, Reason.RECOVERY_INVALID),
        (inquiry(authority_key_digest=bytes(32)), CODE.public_digest, Reason.RECOVERY_INVALID),
        (inquiry(time=NOW - 11 * MINUTE), CODE.public_digest, Reason.RECOVERY_INVALID),
        (inquiry(time=NOW + 11 * MINUTE), CODE.public_digest, Reason.RECOVERY_INVALID),
    ],
    ids=["another code", "no such forum", "another purpose", "another forum", "another federation", "too old", "of the future"],
)
def test_nobody_else_may(request_: enrolment_pb2.PrepareRecoveryRequest, known: bytes, reason: Reason) -> None:
    with pytest.raises(KadError) as caught:
        ENROLMENT.check_inquiry(request_, known, NOW)
    assert caught.value.reason == reason


def test_weak_recovery_keys_are_refused() -> None:
    request = inquiry()
    request.recovery_keys.ed25519_public = SMALL_ORDER
    with pytest.raises(KadError) as caught:
        ENROLMENT.check_inquiry(request, CODE.public_digest, NOW)
    assert caught.value.reason == Reason.WEAK_KEY


def begun(applicant: Applicant, **changed: object) -> enrolment_pb2.RecoverFeedRequest:
    fields = {
        "recovery": entry_pb2.Recovery(statement=b"x", recovery_keys=key_set(CODE.signer("recovery").public)),
        "genesis": applicant.genesis().SerializeToString(),
        "certificate_request": request_certificate(applicant.key),
        "binding": applicant.binding(),
    }
    return enrolment_pb2.RecoverFeedRequest(**(fields | changed))


def test_a_new_epoch_has_new_keys_a_new_code_and_a_certificate_of_its_own() -> None:
    fresh = Applicant(NEXT, MemberKeys.generate(1))
    old = FeedState(FORUM, bytes(32), log_keys=Applicant().genesis().genesis.log_keys.SerializeToString())
    assert ENROLMENT.check_recovery(begun(fresh), old) == (NEXT, merkle.leaf_hash(fresh.genesis().SerializeToString()))

    def reason_of(request: enrolment_pb2.RecoverFeedRequest, before: FeedState | None = old) -> Reason:
        with pytest.raises(KadError) as caught:
            ENROLMENT.check_recovery(request, before)
        return caught.value.reason

    same_code, weak_log, weak_witness = (fresh.genesis() for _ in range(3))
    same_code.genesis.recovery_digest = CODE.public_digest
    weak_log.genesis.log_keys.ed25519_public = SMALL_ORDER
    weak_witness.genesis.witness_keys.ed25519_public = SMALL_ORDER
    assert reason_of(begun(fresh, genesis=same_code.SerializeToString())) is Reason.RECOVERY_INVALID
    stolen = FeedState(FORUM, bytes(32), log_keys=fresh.genesis().genesis.log_keys.SerializeToString())
    assert reason_of(begun(fresh), stolen) is Reason.RECOVERY_INVALID
    assert reason_of(begun(fresh, genesis=weak_log.SerializeToString())) is Reason.WEAK_KEY
    assert reason_of(begun(fresh, genesis=weak_witness.SerializeToString())) is Reason.WEAK_KEY
    assert reason_of(begun(Applicant())) is Reason.GENESIS_MISMATCH
    assert reason_of(begun(Applicant(FeedId("lain.kad.internal", FORUM.forum, 1), MemberKeys.generate(1)))) is Reason.GENESIS_MISMATCH
    assert reason_of(begun(Applicant(NEXT, MemberKeys.generate(1), role=entry_pb2.MEMBER_ROLE_SIMPUL))) is Reason.GENESIS_MISMATCH
    # A certificate for whoever replays what stands in the simpul's log: only the owner of the new keys can ask for one.
    thief = Applicant(NEXT, MemberKeys.generate(1))
    assert reason_of(begun(fresh, binding=thief.binding())) is Reason.SIGNATURE_INVALID
    assert reason_of(begun(fresh, certificate_request=request_certificate(thief.key))) is Reason.CERTIFICATE_REQUEST_INVALID
