"""One entry: its bytes, its limits, what can be said of it alone.

Entry bytes are what the author serialised. They are hashed, stored and relayed as they are; parsing is only for looking.
"""

from __future__ import annotations

import datetime
from functools import lru_cache

from google.protobuf.message import DecodeError

from kad_protocol import merkle
from kad_protocol.errors import InvalidInputError, Reason, VerificationError
from kad_protocol.names import FeedId
from kad_protocol.note import LogKeys
from kad_protocol.v1 import entry_pb2

__all__ = [
    "AUTHORITY_BODIES",
    "MAX_CONTENT_BLOB_BYTES",
    "MAX_ENTRY_BYTES",
    "digest_of",
    "genesis_entry",
    "key_set",
    "log_keys_of",
    "new_entry",
    "parse_entry",
    "parse_genesis",
    "time_of",
]

#: An entry is never larger (C2SP tlog-tiles frames entries with 16 bits; ours must fit).
MAX_ENTRY_BYTES = 65_535
#: 32 bytes of salt and 1 MiB of content.
MAX_CONTENT_BLOB_BYTES = 32 + (1 << 20)
#: Bodies that change who may do what; ``previous_authority`` points to the newest of them.
AUTHORITY_BODIES = frozenset(
    {
        *("genesis", "key_rotation", "membership", "founding", "mandate", "mandate_revocation", "veto"),
        *("endorsement", "proposal", "vote", "departure"),
    }
)


def new_entry(micros: int) -> entry_pb2.Entry:
    """An entry without a body, written at ``micros`` (microseconds since 1970, UTC)."""
    entry = entry_pb2.Entry()
    entry.time.seconds, entry.time.nanos = micros // 1_000_000, micros % 1_000_000 * 1000
    return entry


def time_of(entry: entry_pb2.Entry) -> int:
    """The entry's time in microseconds since 1970 (UTC), brought into the years 1 to 9999 whatever its author wrote."""
    micros = entry.time.seconds * 1_000_000 + entry.time.nanos // 1000
    return min(max(micros, _FIRST_MICROS), _LAST_MICROS)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FIRST_MICROS = int((datetime.datetime(1, 1, 1, tzinfo=datetime.UTC) - _EPOCH).total_seconds()) * 1_000_000
_LAST_MICROS = int((datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC) - _EPOCH).total_seconds()) * 1_000_000


def genesis_entry(
    feed: FeedId, log_keys: LogKeys, witness_keys: LogKeys, recovery_digest: bytes, role: entry_pb2.MemberRole.ValueType, micros: int
) -> entry_pb2.Entry:
    """The first entry of a feed."""
    entry = new_entry(micros)
    entry.genesis.feed = feed.origin
    entry.genesis.log_keys.CopyFrom(key_set(log_keys))
    entry.genesis.witness_keys.CopyFrom(key_set(witness_keys))
    entry.genesis.recovery_digest = recovery_digest
    entry.genesis.role = role
    return entry


def parse_entry(data: bytes) -> entry_pb2.Entry | None:
    """Read entry bytes; None if they are not an entry. Callers have checked the length."""
    try:
        return entry_pb2.Entry.FromString(data)
    except DecodeError:
        return None


def parse_genesis(data: bytes) -> tuple[FeedId, entry_pb2.Genesis]:
    """Read a genesis entry and check all that can be checked of it alone.

    Raises:
        VerificationError: ``ENTRY_TOO_LARGE``, ``ENTRY_MALFORMED``, ``WEAK_KEY``.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise VerificationError(Reason.ENTRY_TOO_LARGE, f"a genesis of {len(data)} bytes", limit=MAX_ENTRY_BYTES)
    entry = parse_entry(data)
    if entry is None or entry.WhichOneof("body") != "genesis" or entry.previous_authority != 0:
        raise VerificationError(Reason.ENTRY_MALFORMED, "this is not a genesis entry")
    genesis = entry.genesis
    try:
        feed = FeedId.parse(genesis.feed)
    except InvalidInputError as error:
        raise VerificationError(Reason.ENTRY_MALFORMED, f"the genesis names no feed: {error}") from error
    log_keys_of(feed.origin, genesis.log_keys.SerializeToString())
    log_keys_of(feed.origin, genesis.witness_keys.SerializeToString())
    if len(genesis.recovery_digest) != merkle.HASH_SIZE or genesis.log_keys == genesis.witness_keys:
        raise VerificationError(Reason.ENTRY_MALFORMED, "the genesis lacks recovery keys or uses one key for two purposes", feed=feed)
    return feed, genesis


def key_set(keys: LogKeys) -> entry_pb2.KeySet:
    """The wire form of a pair of public keys."""
    return entry_pb2.KeySet(ed25519_public=keys.ed25519_public, mldsa44_public=keys.mldsa44_public)


@lru_cache(maxsize=4096)
def log_keys_of(origin: str, serialised: bytes) -> LogKeys:
    """The keys in a serialised ``KeySet``; cached, since loading a public key costs more than checking with it.

    Raises:
        VerificationError: ``WEAK_KEY`` and other faults of the keys themselves.
    """
    keys = entry_pb2.KeySet.FromString(serialised)
    return LogKeys(origin, keys.ed25519_public, keys.mldsa44_public)


def digest_of(entry: entry_pb2.Entry) -> tuple[bytes, int] | None:
    """Digest and length (bytes, without salt) of the content that belongs to an entry, None if it has none."""
    match entry.WhichOneof("body"):
        case "record_version" | "record_retraction" | "profile_version" | "proposal" | "census" as body:
            part = getattr(entry, body)
        case "vote" if entry.vote.digest:
            part = entry.vote
        case "act" if (deed := entry.act.WhichOneof("deed")) in ("publication", "withdrawal", "statement"):
            part = getattr(entry.act, deed)
        case _:
            return None
    return part.digest, part.content_size
