"""Every error that KAD raises on purpose, in one small tree.

Each error has a *reason*: a stable UPPER_SNAKE word that programs may test for, that is listed in
``proto/kad/v1/error.proto`` and never renamed. The class says what follows from the error (what a caller can do about
it, and which gRPC status it becomes); the reason says what exactly was wrong. ``metadata`` holds the facts (which feed,
which index, which limit) as strings, for messages in any language.

Nothing here knows about gRPC: ``kad_protocol.status`` translates both ways.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

__all__ = [
    "AbortedError",
    "FieldViolation",
    "InvalidInputError",
    "KadError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "PreconditionError",
    "QuotaError",
    "Reason",
    "StorageError",
    "UnauthenticatedError",
    "UnavailableError",
    "VerificationError",
]


class Reason(StrEnum):
    """Why. The values are API: add, never rename. Mirrors ``kad.v1.ErrorReason`` (a test holds the two together)."""

    # Something that came from outside is not well formed or breaks a rule.
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_NAME = "INVALID_NAME"
    INVALID_FILTER = "INVALID_FILTER"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"
    INVALID_RESUME_TOKEN = "INVALID_RESUME_TOKEN"
    INVALID_FILE = "INVALID_FILE"
    INVALID_CONFIGURATION = "INVALID_CONFIGURATION"
    INVALID_PASSPHRASE = "INVALID_PASSPHRASE"
    CONTENT_TOO_LARGE = "CONTENT_TOO_LARGE"
    AUDIENCE_NOT_SUPPORTED = "AUDIENCE_NOT_SUPPORTED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"

    # Records and forums.
    RECORD_NOT_FOUND = "RECORD_NOT_FOUND"
    FORUM_NOT_FOUND = "FORUM_NOT_FOUND"
    FEED_NOT_FOUND = "FEED_NOT_FOUND"
    STALE_VERSION = "STALE_VERSION"
    RECORD_RETRACTED = "RECORD_RETRACTED"
    NOT_OWN_RECORD = "NOT_OWN_RECORD"

    # Bytes that do not verify.
    NOTE_MALFORMED = "NOTE_MALFORMED"
    CHECKPOINT_MALFORMED = "CHECKPOINT_MALFORMED"
    WRONG_ORIGIN = "WRONG_ORIGIN"
    SIGNATURE_MISSING = "SIGNATURE_MISSING"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    WEAK_KEY = "WEAK_KEY"
    PROOF_INVALID = "PROOF_INVALID"
    ROOT_MISMATCH = "ROOT_MISMATCH"
    GENESIS_MISMATCH = "GENESIS_MISMATCH"
    ENTRY_MALFORMED = "ENTRY_MALFORMED"
    ENTRY_TOO_LARGE = "ENTRY_TOO_LARGE"
    ENTRY_KIND_UNKNOWN = "ENTRY_KIND_UNKNOWN"
    CONTENT_DIGEST_MISMATCH = "CONTENT_DIGEST_MISMATCH"
    CONTENT_MALFORMED = "CONTENT_MALFORMED"
    CONTENT_MISSING = "CONTENT_MISSING"
    AUTHORITY_POINTER_WRONG = "AUTHORITY_POINTER_WRONG"
    VERSION_OUT_OF_ORDER = "VERSION_OUT_OF_ORDER"
    KEY_ROTATION_INVALID = "KEY_ROTATION_INVALID"

    # Exchange.
    FRAME_MALFORMED = "FRAME_MALFORMED"
    FRAME_TOO_LARGE = "FRAME_TOO_LARGE"
    POSITION_MISMATCH = "POSITION_MISMATCH"
    PROTOCOL_VERSION = "PROTOCOL_VERSION"
    AHEAD_OF_WRITER = "AHEAD_OF_WRITER"
    BELOW_RETAINED = "BELOW_RETAINED"
    FORKED = "FORKED"
    HEAD_UNPROVEN = "HEAD_UNPROVEN"
    FEED_QUARANTINED = "FEED_QUARANTINED"
    EPOCH_SUPERSEDED = "EPOCH_SUPERSEDED"
    UNKNOWN_FEED = "UNKNOWN_FEED"
    CONSUMER_TOO_SLOW = "CONSUMER_TOO_SLOW"
    REPLACED_BY_NEWER_STREAM = "REPLACED_BY_NEWER_STREAM"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"

    # Witnessing.
    NOT_WITNESSED = "NOT_WITNESSED"
    NOT_A_WITNESS = "NOT_A_WITNESS"
    EVIDENCE_NOT_FOUND = "EVIDENCE_NOT_FOUND"
    CONFIRMATION_OVERDUE = "CONFIRMATION_OVERDUE"
    LOG_STALE = "LOG_STALE"
    UNLAWFUL = "UNLAWFUL"
    LOG_TIME_WRONG = "LOG_TIME_WRONG"
    CONSENT_MISSING = "CONSENT_MISSING"

    # Who is calling, and may they.
    IDENTITY_MISSING = "IDENTITY_MISSING"
    IDENTITY_INVALID = "IDENTITY_INVALID"
    TOKEN_INVALID = "TOKEN_INVALID"
    ROLE_INSUFFICIENT = "ROLE_INSUFFICIENT"
    NOT_A_MEMBER = "NOT_A_MEMBER"
    MEMBER_SUSPENDED = "MEMBER_SUSPENDED"
    NO_MANDATE = "NO_MANDATE"
    ACTING_FOR_OTHERS_NOT_POSSIBLE = "ACTING_FOR_OTHERS_NOT_POSSIBLE"

    # Authority: mandates, membership, decisions.
    MODE_NOT_DECIDED = "MODE_NOT_DECIDED"
    MANDATE_INVALID = "MANDATE_INVALID"
    MANDATE_UNKNOWN = "MANDATE_UNKNOWN"
    MANDATE_REPEATED = "MANDATE_REPEATED"
    MANDATE_NOT_YET = "MANDATE_NOT_YET"
    MANDATE_EXPIRED = "MANDATE_EXPIRED"
    MANDATE_REVOKED = "MANDATE_REVOKED"
    MANDATE_SCOPE = "MANDATE_SCOPE"
    MANDATE_OVERLAPS = "MANDATE_OVERLAPS"
    MANDATES_TOO_FEW = "MANDATES_TOO_FEW"
    ACT_INVALID = "ACT_INVALID"
    ACT_TIME_WRONG = "ACT_TIME_WRONG"
    ACT_UNKNOWN = "ACT_UNKNOWN"
    ACT_VETOED = "ACT_VETOED"
    VETO_TOO_LATE = "VETO_TOO_LATE"
    RECORD_OF_OTHER_WRITER = "RECORD_OF_OTHER_WRITER"
    SUBMISSION_WAITS = "SUBMISSION_WAITS"
    SUBMISSION_REJECTED = "SUBMISSION_REJECTED"
    CHARTER_INVALID = "CHARTER_INVALID"
    PROPOSAL_INVALID = "PROPOSAL_INVALID"
    PROPOSAL_UNKNOWN = "PROPOSAL_UNKNOWN"
    PROPOSAL_REPEATED = "PROPOSAL_REPEATED"
    VOTE_TOO_LATE = "VOTE_TOO_LATE"
    VOTE_REPEATED = "VOTE_REPEATED"
    VOTE_NOT_ENTITLED = "VOTE_NOT_ENTITLED"
    NOT_FULL_MEMBER = "NOT_FULL_MEMBER"
    ENDORSEMENTS_MISSING = "ENDORSEMENTS_MISSING"
    ENDORSEMENT_REPEATED = "ENDORSEMENT_REPEATED"
    CANDIDATE_UNKNOWN = "CANDIDATE_UNKNOWN"
    DECISION_MISSING = "DECISION_MISSING"
    MEMBER_LEFT = "MEMBER_LEFT"
    FOUNDING_TOO_LATE = "FOUNDING_TOO_LATE"
    FINALITY_INVALID = "FINALITY_INVALID"
    CENSUS_WRONG = "CENSUS_WRONG"
    OBSERVATION_CONTRADICTED = "OBSERVATION_CONTRADICTED"
    OBSERVATION_WENT_BACK = "OBSERVATION_WENT_BACK"
    WAITING_FOR_FEED = "WAITING_FOR_FEED"
    OBSERVATION_LAGGING = "OBSERVATION_LAGGING"
    RECOVERY_INVALID = "RECOVERY_INVALID"
    ENTRY_NOT_AVAILABLE_TO_ROLE = "ENTRY_NOT_AVAILABLE_TO_ROLE"
    FUNCTION_UNKNOWN = "FUNCTION_UNKNOWN"

    # Two federations.
    FOREIGN_MEMBER = "FOREIGN_MEMBER"
    FOREIGN_WORD = "FOREIGN_WORD"
    FOREIGN_FEEDS_LIMIT = "FOREIGN_FEEDS_LIMIT"
    INVITATION_FOR_SIMPUL = "INVITATION_FOR_SIMPUL"
    BRIDGE_UNKNOWN = "BRIDGE_UNKNOWN"

    # Enrolment.
    INVITATION_MALFORMED = "INVITATION_MALFORMED"
    INVITATION_UNKNOWN = "INVITATION_UNKNOWN"
    INVITATION_EXPIRED = "INVITATION_EXPIRED"
    INVITATION_USED = "INVITATION_USED"
    INVITATION_FOR_OTHER_FORUM = "INVITATION_FOR_OTHER_FORUM"
    CERTIFICATE_REQUEST_INVALID = "CERTIFICATE_REQUEST_INVALID"
    AUTHORITY_NOT_PINNED = "AUTHORITY_NOT_PINNED"
    ALREADY_ENROLLED = "ALREADY_ENROLLED"

    # The home directory and the machine.
    HOME_NOT_FOUND = "HOME_NOT_FOUND"
    HOME_ALREADY_INITIALISED = "HOME_ALREADY_INITIALISED"
    HOME_IN_USE = "HOME_IN_USE"
    HOME_NOT_WRITABLE = "HOME_NOT_WRITABLE"
    HOME_NEWER_VERSION = "HOME_NEWER_VERSION"
    HOME_WRONG_ROLE = "HOME_WRONG_ROLE"
    STORE_CORRUPT = "STORE_CORRUPT"
    STORE_FULL = "STORE_FULL"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    APPEND_FENCED = "APPEND_FENCED"
    DAEMON_NOT_RUNNING = "DAEMON_NOT_RUNNING"
    PEER_UNREACHABLE = "PEER_UNREACHABLE"
    ADDRESS_IN_USE = "ADDRESS_IN_USE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    KEY_USED_ELSEWHERE = "KEY_USED_ELSEWHERE"


class KadError(Exception):
    """The root of the tree.

    Args:
        reason: the stable word for what is wrong.
        message: one English sentence for logs and developers; people get the translation of the reason.
        metadata: the facts, e.g. ``feed``, ``index``, ``limit``; values become strings.
    """

    #: Name of the ``grpc.StatusCode`` that this class of error becomes.
    code: ClassVar[str] = "UNKNOWN"

    def __init__(self, reason: Reason, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}

    def __str__(self) -> str:
        return self.message


class FieldViolation:
    """One broken rule of one field; ``field`` is a dotted path such as ``regulation.numbers[2]``."""

    __slots__ = ("description", "field", "rule")

    def __init__(self, field: str, description: str, rule: str = "") -> None:
        self.field = field
        self.description = description
        self.rule = rule

    def __repr__(self) -> str:
        return f"FieldViolation({self.field!r}, {self.description!r})"


class InvalidInputError(KadError):
    """The caller's input is wrong, whatever the state of the system. Change it; do not retry."""

    code = "INVALID_ARGUMENT"

    def __init__(self, reason: Reason, message: str, violations: list[FieldViolation] | None = None, **metadata: object) -> None:
        super().__init__(reason, message, **metadata)
        self.violations = violations or []


class NotFoundError(KadError):
    """The thing that was named does not exist here."""

    code = "NOT_FOUND"


class AbortedError(KadError):
    """Somebody else was faster (a stale version). Read again, then decide."""

    code = "ABORTED"


class PreconditionError(KadError):
    """The system is not in the state that the call needs. Do not retry before that state has changed."""

    code = "FAILED_PRECONDITION"


class OutOfRangeError(KadError):
    """A position lies outside what exists (``AHEAD_OF_WRITER``) or what is still kept (``BELOW_RETAINED``)."""

    code = "OUT_OF_RANGE"


class PermissionDeniedError(KadError):
    """We know who is calling, and that one may not do this."""

    code = "PERMISSION_DENIED"


class UnauthenticatedError(KadError):
    """We do not know who is calling."""

    code = "UNAUTHENTICATED"


class QuotaError(KadError):
    """Too much, too fast, or too large for this caller; what is already stored stays."""

    code = "RESOURCE_EXHAUSTED"


class UnavailableError(KadError):
    """Not now. The same call may succeed later; retry with back-off."""

    code = "UNAVAILABLE"


class StorageError(KadError):
    """The disk or the database failed us. Nothing that was acknowledged is touched."""

    code = "UNAVAILABLE"


class VerificationError(KadError):
    """Bytes do not verify: signature, proof, digest or format. The bytes are refused, their sender is not believed."""

    code = "FAILED_PRECONDITION"
