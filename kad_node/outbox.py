"""Changes to one's own feed: at once where the node may sign, through the outbox where it may not yet.

Either way the change is on disk when its caller hears of it, and its name is final.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol.entry import parse_entry, time_of
from kad_protocol.errors import Reason, StorageError
from kad_protocol.feed import Draft

if TYPE_CHECKING:
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.names import FeedId
    from kad_protocol.v1 import entry_pb2

__all__ = ["flush", "forget_rotations", "put", "rotation_queued", "show_queued"]


def put(tx: SqliteTransaction, own: FeedId, drafts: list[Draft], *, open_fence: bool) -> int | None:
    """Append drafts, or queue them. Returns the index of the first, None if they wait."""
    if open_fence:
        # The fence may have opened this moment: what was written before goes first.
        flush(tx, own)
        return feeds.append(tx, own, drafts)
    for draft in drafts:
        entry = draft.entry
        kind = entry.WhichOneof("body")
        record = getattr(entry, kind).record if kind in ("record_version", "record_retraction") else ""
        _show(tx, own, tx.queue(record, entry.SerializeToString(), draft.content), entry, draft.content)
    return None


def rotation_queued(tx: SqliteTransaction) -> bool:
    """Does a change of keys wait?"""
    return bool(_rotations(tx))


def forget_rotations(tx: SqliteTransaction) -> None:
    """The epoch whose keys were to change is over."""
    for number in _rotations(tx):
        tx.unqueue(number)


def _rotations(tx: SqliteTransaction) -> list[int]:
    entries = ((number, parse_entry(body)) for number, body, _ in tx.queued())
    return [number for number, entry in entries if entry is not None and entry.HasField("key_rotation")]


def _show(tx: SqliteTransaction, own: FeedId, number: int, entry: entry_pb2.Entry, content: bytes) -> None:
    """Let lists and searches of this node find a queued version."""
    if entry.WhichOneof("body") == "record_version":
        parsed = contents.parse_content(contents.split(content)[1])
        tx.put_queued(own, number, entry.record_version, time_of(entry), parsed)


def show_queued(tx: SqliteTransaction, own: FeedId) -> None:
    """After everything folded was thrown away: what waits is shown again."""
    for number, body, content in tx.queued():
        entry = parse_entry(body)
        if entry is not None:
            _show(tx, own, number, entry, content)


def flush(tx: SqliteTransaction, own: FeedId) -> int:
    """Append all that waits, in order; returns how much. Appending and leaving the outbox are one transaction.

    While it waited, this node may have taken back versions of the same record from its peers (that is what the fence is for); what was
    queued was written last and is numbered behind them.
    """
    newest: dict[str, int] = {}
    queued = tx.queued()
    for number, body, content in queued:
        entry = parse_entry(body)
        if entry is None:
            raise StorageError(Reason.STORE_CORRUPT, f"change {number} of the outbox does not read back")
        kind = entry.WhichOneof("body")
        if kind in ("record_version", "record_retraction"):
            change = entry.record_version if kind == "record_version" else entry.record_retraction
            head = tx.record_head(own, change.record)
            before = newest.get(change.record, head.version if head is not None else 0)
            change.version = before + (1 if kind == "record_version" else 0)
            newest[change.record] = change.version
        feeds.append(tx, own, [Draft(entry, content)])
        tx.unqueue(number)
    return len(queued)
