"""Making the proof of a record (``kad_protocol.proof``) from what lies here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_node.witness import confirmed_checkpoint, simpul_of, witnessed_note
from kad_protocol import merkle
from kad_protocol.entry import MAX_CONTENT_BLOB_BYTES, MAX_ENTRY_BYTES, parse_entry
from kad_protocol.errors import NotFoundError, PreconditionError, Reason
from kad_protocol.names import FeedId, RecordName
from kad_protocol.proof import MAX_EXTRA_BYTES, TlogProof
from kad_protocol.v1 import proof_pb2, records_pb2

if TYPE_CHECKING:
    from kad_node.store.queries import RecordRow
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["record_proof"]

_SCAN = 1000
#: Versions that a proof shows after the one that it is about, and a retraction; a record that is revised more often is proved with fewer.
_MOST_VERSIONS = 20


def record_proof(tx: SqliteTransaction, own: FeedId, name: str, version: int) -> bytes:
    """The proof file of a record.

    Raises:
        NotFoundError: ``RECORD_NOT_FOUND``. PreconditionError: ``NOT_WITNESSED`` while no confirmed checkpoint covers it.
    """
    wanted = RecordName.parse(name)
    row = tx.record(wanted.forum, wanted.record, version, own)
    if row is None:
        raise NotFoundError(Reason.RECORD_NOT_FOUND, f"{wanted} is not here", name=wanted)
    if row.source is not None:
        raise PreconditionError(
            Reason.RECORD_OF_OTHER_WRITER,
            f"{name} was published by {row.source} in the forum's name; what proves it is the act there (kad-node acts)",
            name=name,
        )
    author = _author(row)
    simpul = simpul_of(tx, own)
    confirmed = confirmed_checkpoint(tx, simpul) if simpul is not None else None
    seen = None
    if simpul is not None and confirmed is not None and row.index is not None:
        seen = tx.observations_around(simpul, author, row.index, confirmed.checkpoint.size)
    if simpul is None or confirmed is None or row.index is None or seen is None:
        raise PreconditionError(Reason.NOT_WITNESSED, f"no confirmed checkpoint covers {wanted} yet; ask again in a moment", name=wanted)
    first, last = seen
    log, size = tx.tiles(simpul), confirmed.checkpoint.size
    observed = parse_entry(tx.entries(simpul, last, 1, MAX_ENTRY_BYTES)[0].body)
    until = observed.observation.size if observed is not None else 0

    def in_log(index: int) -> proof_pb2.ProvenEntry:
        return _proven(tx, simpul, log, index, size)

    def in_feed(index: int) -> proof_pb2.ProvenEntry:
        return _proven(tx, author, tx.tiles(author), index, until)

    note, policy = witnessed_note(tx, simpul)
    inner = proof_pb2.RecordProof(
        observation=tx.entries(simpul, last, 1, MAX_ENTRY_BYTES)[0].body,
        first_observation=in_log(first) if first != last else None,
        membership=in_log(tx.membership_index(author)),
        genesis=in_feed(0),
        versions=[in_feed(index) for index in _later(tx, row, until)],
        policy=policy,
    )
    content = tx.entries(author, row.index, 1, MAX_CONTENT_BLOB_BYTES)[0].content
    if row.state != records_pb2.RECORD_STATE_RETRACTED and inner.ByteSize() + len(content) < MAX_EXTRA_BYTES:
        inner.content = content
    while inner.ByteSize() > MAX_EXTRA_BYTES and len(inner.versions) > 1:
        inner.versions.pop()
    return TlogProof(last, tuple(merkle.inclusion_proof(log, last, size)), note, inner.SerializeToString()).to_bytes()


def _author(row: RecordRow) -> FeedId:
    """The feed that holds the entry of a version, which may be that of an earlier epoch."""
    return FeedId.parse(row.former) if row.former else row.feed


def _proven(tx: SqliteTransaction, feed: FeedId, tiles: merkle.TileStore, index: int, size: int) -> proof_pb2.ProvenEntry:
    entry = tx.entries(feed, index, 1, MAX_ENTRY_BYTES)[0].body
    return proof_pb2.ProvenEntry(index=index, entry=entry, hashes=merkle.inclusion_proof(tiles, index, size))


def _later(tx: SqliteTransaction, row: RecordRow, until: int) -> list[int]:
    """Where the version, those after it, and a retraction stand."""
    author = _author(row)
    later = [version for version in tx.versions(row.rid, row.version, _MOST_VERSIONS) if _author(version) == author]
    found = [index for index in (row.index, *(version.index for version in later)) if index is not None and index < until]
    if row.state == records_pb2.RECORD_STATE_RETRACTED and len(later) < _MOST_VERSIONS:
        position = found[-1] + 1
        while position < until:
            for stored in tx.entries(author, position, min(_SCAN, until - position), 4 << 20):
                position = stored.index + 1
                entry = parse_entry(stored.body)
                if entry is not None and entry.record_retraction.record == row.record:
                    return [*found, stored.index]
    return found
