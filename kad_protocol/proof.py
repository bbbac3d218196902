"""A record's proof as a file: written by any node, checked by anybody, on a machine that has never seen the federation.

The outside is a C2SP tlog-proof: an entry of the simpul's log, its inclusion proof, and a checkpoint with the lines of witnesses. That
entry is an *observation*: the simpul held so much of the author's feed, with this root. Inside (``extra``) is what leads from there to the
record: inclusion proofs in the author's feed, the author's genesis, and the entry with which the simpul named that genesis.

So the chain is: policy -> checkpoint -> membership -> genesis (who), and checkpoint -> observation -> record (what, and since when).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from kad_protocol import merkle
from kad_protocol.content import SALT_BYTES, parse_content
from kad_protocol.entry import MAX_ENTRY_BYTES, digest_of, parse_entry, parse_genesis, time_of
from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError
from kad_protocol.names import FeedId, RecordName
from kad_protocol.note import MAX_NOTE_BYTES, Checkpoint, Note
from kad_protocol.tlog_policy import Policy
from kad_protocol.v1 import content_pb2, entry_pb2, proof_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEADER", "MAX_EXTRA_BYTES", "Proved", "TlogProof", "verify_record"]

HEADER = "c2sp.org/tlog-proof@v1"
#: In base64 a line of at most 64 KiB, which is what readers of such files take.
MAX_EXTRA_BYTES = 48 << 10
MAX_PROOF_BYTES = 256 << 10
_MAX_HASHES = 63
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A C2SP tlog-proof: one leaf of a log, up to a cosigned checkpoint. ``extra`` is not authenticated by it."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = field(default=b"", repr=False)

    def to_bytes(self) -> bytes:
        """The file."""
        lines = [HEADER]
        if self.extra:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(part).decode() for part in self.hashes]
        return "\n".join([*lines, "", ""]).encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Read a file, strictly: it is written again and compared.

        Raises:
            VerificationError: ``PROOF_INVALID``, ``NOTE_MALFORMED``.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise VerificationError(Reason.PROOF_INVALID, f"a proof has at most {MAX_PROOF_BYTES} bytes")
        head, separator, checkpoint = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
            extra = base64.b64decode(lines.pop(1).removeprefix("extra "), validate=True) if lines[1:2] and lines[1][:6] == "extra " else b""
            index = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
            hashes = tuple(base64.b64decode(line, validate=True) for line in lines[2:])
        except (UnicodeDecodeError, binascii.Error, ValueError) as error:
            raise VerificationError(Reason.PROOF_INVALID, f"the proof cannot be read: {error}") from error
        if lines[0] != HEADER or index is None or not separator or len(hashes) > _MAX_HASHES or len(checkpoint) > MAX_NOTE_BYTES:
            raise VerificationError(Reason.PROOF_INVALID, "this is not a C2SP tlog-proof")
        Note.parse(checkpoint)
        found = cls(int(index.group(1)), hashes, checkpoint, extra)
        if found.to_bytes() != data or any(len(part) != merkle.HASH_SIZE for part in hashes) or len(extra) > MAX_EXTRA_BYTES:
            raise VerificationError(Reason.PROOF_INVALID, "the proof is written in another way than it should be")
        return found

    def check(self, entry: bytes, policy: Policy) -> tuple[Checkpoint, dict[str, int]]:
        """Check that ``entry`` is that leaf, under a checkpoint that satisfies the policy; with the names and times of the witnesses.

        Raises:
            VerificationError: it is not.
        """
        findings = policy.check(self.checkpoint)
        merkle.verify_inclusion(merkle.leaf_hash(entry), self.index, findings.checkpoint.size, self.hashes, findings.checkpoint.root)
        return findings.checkpoint, findings.witnesses


@dataclass(frozen=True, slots=True)
class Proved:
    """What a file proves of a record. Times in microseconds since 1970 (UTC)."""

    name: RecordName
    author: FeedId
    #: Leaf hash of the author's genesis: to be compared with what the author says.
    genesis: bytes
    version: int
    digest: bytes
    #: The author's own clock.
    written: int
    #: Index and time (the simpul's clock) of the first observation that the file shows.
    observed_index: int
    observed: int
    simpul: FeedId
    checkpoint: Checkpoint
    #: Names of the witnesses and when each confirmed (seconds since 1970).
    witnesses: dict[str, int]
    #: How far into the author's feed the file looks.
    feed_size: int
    #: The newest version that the file shows.
    newest: int
    retracted: bool
    #: None if the file does not carry it.
    content: content_pb2.Content | None
    #: The policy came with the file: its keys are what the maker of the file claims.
    own_policy: bool


def verify_record(data: bytes, policy: Policy | None = None) -> Proved:
    """Check the proof of a record.

    Args:
        data: the file.
        policy: whom to believe; None for what the file itself names, which proves the chain but not whose keys these are.

    Raises:
        VerificationError: it does not hold; the reason says how.
        InvalidInputError: ``INVALID_FILE``, the file carries no record or no policy that can be read.
    """
    outer = TlogProof.parse(data)
    try:
        inner = proof_pb2.RecordProof.FromString(outer.extra)
    except DecodeError as error:
        raise InvalidInputError(Reason.INVALID_FILE, "the proof is of something else than a record of KAD") from error
    rule = policy or Policy.parse(inner.policy)
    checkpoint, witnesses = outer.check(inner.observation, rule)
    simpul = _feed(checkpoint.origin)
    seen = _body(inner.observation, "observation").observation
    author = _feed(seen.feed)
    first, first_index = _first(inner, outer.index, checkpoint, author)

    membership = _body(inner.membership.entry, "membership").membership
    _included(inner.membership, checkpoint.size, checkpoint.root)
    _included(inner.genesis, seen.size, seen.root)
    named, genesis = parse_genesis(inner.genesis.entry)
    pinned = merkle.leaf_hash(inner.genesis.entry)
    if inner.genesis.index != 0 or named != author or membership.feed != author.origin or membership.genesis != pinned:
        raise VerificationError(Reason.PROOF_INVALID, "the simpul named another genesis than the one that the proof shows", feed=author)
    if membership.state != entry_pb2.MEMBERSHIP_STATE_ACTIVE and not membership.HasField("recovery"):
        raise VerificationError(Reason.PROOF_INVALID, f"the proof does not show that {author} was admitted", feed=author)
    del genesis
    if not inner.versions:
        raise VerificationError(Reason.PROOF_INVALID, "the proof shows no version of a record")
    record, version, newest, retracted = _versions(inner.versions, seen)
    entry = _body(inner.versions[0].entry, "record_version")
    if first.observation.size <= inner.versions[0].index:
        raise VerificationError(Reason.PROOF_INVALID, "the first observation does not cover the record")
    return Proved(
        name=RecordName(author.forum, record),
        author=author,
        genesis=pinned,
        version=version,
        digest=entry.record_version.digest,
        written=time_of(entry),
        observed_index=first_index,
        observed=time_of(first),
        simpul=simpul,
        checkpoint=checkpoint,
        witnesses=witnesses,
        feed_size=seen.size,
        newest=newest,
        retracted=retracted,
        content=_content(entry, inner.content),
        own_policy=policy is None,
    )


def _first(inner: proof_pb2.RecordProof, index: int, checkpoint: Checkpoint, author: FeedId) -> tuple[entry_pb2.Entry, int]:
    """The first observation that the file shows, and where in the simpul's log it stands."""
    last = _body(inner.observation, "observation")
    if not inner.HasField("first_observation"):
        return last, index
    first = _body(inner.first_observation.entry, "observation")
    _included(inner.first_observation, checkpoint.size, checkpoint.root)
    fits = first.observation.feed == author.origin and first.observation.size <= last.observation.size
    if not fits or inner.first_observation.index >= index:
        raise VerificationError(Reason.PROOF_INVALID, "the first observation is of something else", feed=author)
    return first, inner.first_observation.index


def _versions(versions: Sequence[proof_pb2.ProvenEntry], seen: entry_pb2.Observation) -> tuple[str, int, int, bool]:
    """Record, version that is proved, newest version, and whether it was withdrawn."""
    record, version, newest, retracted, last = "", 0, 0, False, -1
    for proven in versions:
        _included(proven, seen.size, seen.root)
        entry = parse_entry(proven.entry)
        body = entry.WhichOneof("body") if entry is not None else None
        if entry is None or proven.index <= last or retracted or body not in ("record_version", "record_retraction"):
            raise VerificationError(Reason.PROOF_INVALID, "the versions in the proof are none, or stand in no order")
        last = proven.index
        if body == "record_retraction":
            retracted = bool(record) and (entry.record_retraction.record, entry.record_retraction.version) == (record, newest)
            fits = retracted
        else:
            fits = not record or (entry.record_version.record, entry.record_version.version) == (record, newest + 1)
            record, newest = entry.record_version.record, entry.record_version.version
            version = version or newest
        if not fits:
            raise VerificationError(Reason.PROOF_INVALID, "the versions in the proof are not those of one record")
    return record, version, newest, retracted


def _content(entry: entry_pb2.Entry, blob: bytes) -> content_pb2.Content | None:
    if not blob:
        return None
    digest, size = digest_of(entry) or (b"", -1)
    if len(blob) != SALT_BYTES + size or hashlib.sha256(blob).digest() != digest:
        raise VerificationError(Reason.CONTENT_DIGEST_MISMATCH, "the content in the proof is not the one that was signed")
    return parse_content(blob[SALT_BYTES:])


def _included(proven: proof_pb2.ProvenEntry, size: int, root: bytes) -> None:
    if len(proven.entry) > MAX_ENTRY_BYTES or len(proven.hashes) > _MAX_HASHES:
        raise VerificationError(Reason.PROOF_INVALID, "an entry or a proof that is too long")
    merkle.verify_inclusion(merkle.leaf_hash(proven.entry), proven.index, size, proven.hashes, root)


def _body(data: bytes, kind: str) -> entry_pb2.Entry:
    entry = parse_entry(data) if len(data) <= MAX_ENTRY_BYTES else None
    if entry is None or entry.WhichOneof("body") != kind:
        raise VerificationError(Reason.PROOF_INVALID, f"an entry in the proof is not of the kind {kind}, as it should be")
    return entry


def _feed(origin: str) -> FeedId:
    try:
        return FeedId.parse(origin)
    except KadError as error:
        raise VerificationError(Reason.PROOF_INVALID, f"{origin[:80]!r} is not the feed of a member") from error
