"""The enrolment authority: invitations, applications, renewals. Rules only; storage is given, gRPC is elsewhere.

An invitation is good once, for one forum, until it expires; the simpul keeps only the hash of its secret. Redeeming it twice with the same
feed is a retry after a lost answer and gives the same result; with another feed it is refused.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from kad_protocol import invitation, merkle
from kad_protocol.certificates import Authority, key_digest, load_request
from kad_protocol.entry import log_keys_of, parse_genesis
from kad_protocol.errors import InvalidInputError, NotFoundError, PermissionDeniedError, Reason, VerificationError
from kad_protocol.keys import recovery_digest
from kad_protocol.names import FeedId, check_forum
from kad_protocol.statement import CERTIFICATE_BINDING, RECOVERY_INQUIRY, verify_statement
from kad_protocol.v1 import enrolment_pb2, entry_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_protocol.note import LogKeys
    from kad_protocol.store import FeedState

__all__ = ["Application", "Enrolment", "Invitation", "InvitationStore"]

DEFAULT_LIFETIME = datetime.timedelta(days=7)
SHORTEST, LONGEST = datetime.timedelta(minutes=1), datetime.timedelta(days=30)
_CLOCK_TOLERANCE = datetime.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is kept of an invitation. Times are microseconds since 1970; 0 means not yet."""

    id: str
    secret_hash: str
    forum: str
    category: int
    created: int
    expires: int
    used: int = 0
    revoked: int = 0
    feed: str = ""
    genesis: str = ""

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Invitation:
        """The inverse."""
        return Invitation(**json.loads(data))


class InvitationStore(Protocol):
    """Where invitations lie; inside one transaction."""

    def local(self, kind: str, key: str) -> bytes | None:
        """One value."""

    def locals(self, kind: str) -> dict[str, bytes]:
        """All values of a kind."""

    def put_local(self, kind: str, key: str, value: bytes) -> None:
        """Keep a value."""


_KIND = "invitation"


@dataclass(frozen=True, slots=True)
class Application:
    """An application that may be granted."""

    feed: FeedId
    genesis: bytes
    category: int
    #: The invitation had been used by this feed already: a lost answer is asked for again, nobody new comes in.
    repeated: bool = False
    #: The applicant's own word, for a member that had left; another one each time.
    consent: entry_pb2.Consent = field(default_factory=entry_pb2.Consent, compare=False)


def _micros(moment: datetime.datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


class Enrolment:
    """The authority of one federation."""

    def __init__(self, authority: Authority, federation: str, address: str) -> None:
        self._authority = authority
        self._federation = federation
        self._address = address

    def invite(
        self, store: InvitationStore, forum: str, category: int, lifetime: datetime.timedelta, now: datetime.datetime
    ) -> tuple[str, Invitation]:
        """Make an invitation; returns its text, which is not kept, and what is.

        Raises:
            InvalidInputError: ``INVALID_NAME``, ``INVALID_FIELD``.
        """
        check_forum(forum)
        if not SHORTEST <= lifetime <= LONGEST:
            raise InvalidInputError(Reason.INVALID_FIELD, "an invitation is valid for 1 minute to 30 days", field="time_to_live")
        number, secret = secrets.token_bytes(16), secrets.token_bytes(16)
        expires = now + lifetime
        code = enrolment_pb2.InvitationCode(
            enrolment_address=self._address,
            authority_key_digest=self._authority.key_digest,
            invitation_id=number,
            secret=secret,
            forum=forum,
            federation=self._federation,
        )
        code.expire_time.FromDatetime(expires.replace(microsecond=0))
        kept = Invitation(number.hex(), hashlib.sha256(secret).hexdigest(), forum, category, _micros(now), _micros(expires))
        store.put_local(_KIND, kept.id, kept.to_bytes())
        return invitation.encode(code), kept

    def invitations(self, store: InvitationStore) -> list[Invitation]:
        """All that are kept, newest first."""
        return sorted((Invitation.from_bytes(data) for data in store.locals(_KIND).values()), key=lambda i: i.created, reverse=True)

    def revoke(self, store: InvitationStore, number: str, now: datetime.datetime) -> Invitation:
        """Make an unused invitation worthless.

        Raises:
            NotFoundError: ``INVITATION_UNKNOWN``. PermissionDeniedError: ``INVITATION_USED``.
        """
        data = store.local(_KIND, number)
        if data is None:
            raise NotFoundError(Reason.INVITATION_UNKNOWN, f"there is no invitation {number}", id=number)
        kept = Invitation.from_bytes(data)
        if kept.used:
            raise PermissionDeniedError(Reason.INVITATION_USED, "the invitation has been used", id=number)
        kept = replace(kept, revoked=kept.revoked or _micros(now))
        store.put_local(_KIND, kept.id, kept.to_bytes())
        return kept

    def redeem(
        self,
        store: InvitationStore,
        request: enrolment_pb2.EnrolRequest,
        now: datetime.datetime,
        known: Callable[[FeedId], LogKeys | None] = lambda _: None,
    ) -> Application:
        """Check an application and use up its invitation.

        Args:
            store: where invitations lie.
            request: the application.
            now: this moment.
            known: the keys of today of a feed that is here, of somebody who was a member before.

        Raises:
            PermissionDeniedError: ``INVITATION_UNKNOWN``, ``INVITATION_EXPIRED``, ``INVITATION_USED``, ``INVITATION_FOR_OTHER_FORUM``.
            InvalidInputError, VerificationError: the application itself is wrong.
        """
        data = store.local(_KIND, request.invitation_id.hex())
        kept = Invitation.from_bytes(data) if data is not None else None
        if kept is None or kept.revoked or not hmac.compare_digest(hashlib.sha256(request.secret).hexdigest(), kept.secret_hash):
            raise PermissionDeniedError(Reason.INVITATION_UNKNOWN, "this invitation is not known here, or was withdrawn")
        if request.forum != kept.forum:
            raise PermissionDeniedError(
                Reason.INVITATION_FOR_OTHER_FORUM, f"this invitation is for {kept.forum}", forum=kept.forum, applicant=request.forum
            )
        feed, genesis = parse_genesis(request.genesis)
        fits = (feed.federation, feed.forum) == (self._federation, kept.forum) and (not feed.epoch or known(feed) is not None)
        if not fits or genesis.role != entry_pb2.MEMBER_ROLE_FORUM:
            raise InvalidInputError(Reason.GENESIS_MISMATCH, f"the genesis is not that of {kept.forum} in {self._federation}", feed=feed)
        hashed = merkle.leaf_hash(request.genesis)
        if kept.used:
            if kept.genesis != hashed.hex():
                raise PermissionDeniedError(Reason.INVITATION_USED, "this invitation has been used", forum=kept.forum)
        elif _micros(now) >= kept.expires:
            raise PermissionDeniedError(Reason.INVITATION_EXPIRED, "this invitation has expired; ask for a new one", forum=kept.forum)
        keys = known(feed) or log_keys_of(feed.origin, genesis.log_keys.SerializeToString())
        self._check_binding(request.certificate_request, request.binding, feed, keys, None)
        repeated = bool(kept.used)
        if not repeated:
            kept = replace(kept, used=_micros(now), feed=feed.origin, genesis=hashed.hex())
            store.put_local(_KIND, kept.id, kept.to_bytes())
        binding = request.binding
        consent = entry_pb2.Consent(
            statement=binding.payload, ed25519_signature=binding.ed25519_signature, mldsa44_signature=binding.mldsa44_signature
        )
        return Application(feed, hashed, kept.category, repeated, consent)

    def check_inquiry(self, request: enrolment_pb2.PrepareRecoveryRequest, known: bytes, now: datetime.datetime) -> None:
        """Check that who asks holds the recovery keys of a forum.

        Args:
            request: the question.
            known: the hash that the forum's genesis commits to; empty if there is no such forum.
            now: the authority's clock.

        Raises:
            PermissionDeniedError: ``RECOVERY_INVALID``. VerificationError: ``SIGNATURE_INVALID``, ``WEAK_KEY``.
        """
        keys = log_keys_of("recovery", request.recovery_keys.SerializeToString())
        statement = request.inquiry
        verify_statement(keys, RECOVERY_INQUIRY, statement.payload, statement.ed25519_signature, statement.mldsa44_signature)
        try:
            asked = enrolment_pb2.RecoveryInquiry.FromString(statement.payload)
            age = abs(asked.time.ToDatetime(datetime.UTC) - now)
        except (DecodeError, ValueError, OverflowError) as error:
            raise VerificationError(Reason.RECOVERY_INVALID, "the inquiry is malformed") from error
        if asked.forum != request.forum or asked.authority_key_digest != self._authority.key_digest or age > _CLOCK_TOLERANCE:
            raise PermissionDeniedError(
                Reason.RECOVERY_INVALID, "the inquiry is for another forum, federation or time; is the clock right?", forum=request.forum
            )
        if not known or not hmac.compare_digest(recovery_digest(keys), known):
            raise PermissionDeniedError(
                Reason.RECOVERY_INVALID, f"this is not the recovery code of {request.forum}, or that is no member", forum=request.forum
            )

    def check_recovery(self, request: enrolment_pb2.RecoverFeedRequest, old: FeedState | None) -> tuple[FeedId, bytes]:
        """Check a new epoch by itself: its genesis, its keys, its certificate request. Returns the new feed and its genesis' hash.

        Args:
            request: from anybody.
            old: the feed that it follows, if that is known.

        Raises:
            InvalidInputError, VerificationError: it cannot be.
        """
        feed, genesis = parse_genesis(request.genesis)
        if feed.federation != self._federation or not feed.epoch or genesis.role != entry_pb2.MEMBER_ROLE_FORUM:
            raise InvalidInputError(Reason.GENESIS_MISMATCH, f"the genesis is not that of a later epoch in {self._federation}", feed=feed)
        if old is not None and (
            genesis.log_keys.SerializeToString() == old.log_keys
            or genesis.recovery_digest == recovery_digest(log_keys_of("recovery", request.recovery.recovery_keys.SerializeToString()))
        ):
            raise InvalidInputError(Reason.RECOVERY_INVALID, "a new epoch has new keys, and a new recovery code", feed=feed)
        keys = log_keys_of(feed.origin, genesis.log_keys.SerializeToString())
        self._check_binding(request.certificate_request, request.binding, feed, keys, None)
        return feed, merkle.leaf_hash(request.genesis)

    def check_renewal(self, request: enrolment_pb2.RenewCertificateRequest, keys: LogKeys, now: datetime.datetime) -> None:
        """Check that a renewal comes from the owner of the feed.

        Raises:
            InvalidInputError, VerificationError: it does not.
        """
        self._check_binding(request.certificate_request, request.binding, FeedId.parse(request.feed), keys, now)

    def _check_binding(
        self, request_der: bytes, binding: enrolment_pb2.Statement, feed: FeedId, keys: LogKeys, now: datetime.datetime | None
    ) -> None:
        request = load_request(request_der)
        verify_statement(keys, CERTIFICATE_BINDING, binding.payload, binding.ed25519_signature, binding.mldsa44_signature)
        try:
            bound = enrolment_pb2.CertificateBinding.FromString(binding.payload)
            age = abs(bound.time.ToDatetime(datetime.UTC) - now) if now is not None else datetime.timedelta(0)
        except (DecodeError, ValueError, OverflowError) as error:
            raise VerificationError(Reason.CERTIFICATE_REQUEST_INVALID, "the binding is malformed") from error
        fits = (
            bound.feed == feed.origin
            and bound.key_digest == key_digest(request)
            and bound.authority_key_digest == self._authority.key_digest
            and age <= _CLOCK_TOLERANCE
        )
        if not fits:
            raise VerificationError(
                Reason.CERTIFICATE_REQUEST_INVALID,
                "the binding is for another feed, key, federation or time; is the clock right?",
                feed=feed,
            )
