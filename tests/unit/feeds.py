"""Feeds for tests: an author with keys, and engines that keep ``LogTransaction``'s promises."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kad_node.store.memory import MemoryLog
from kad_node.store.sqlite import _set_up
from kad_node.store.transaction import SqliteTransaction
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import merkle
from kad_protocol.entry import genesis_entry, key_set, new_entry
from kad_protocol.feed import Draft
from kad_protocol.keys import MemberKeys, RecoveryKeys
from kad_protocol.names import FeedId, new_record_id
from kad_protocol.v1 import content_pb2, entry_pb2, replication_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kad_protocol.note import LogKeys, LogSigner

FEED = FeedId("uji.kad.internal", "kartamantul")


class SqliteLog(SqliteTransaction):
    """One open transaction on a file; ``attempt`` rolls back what fails, as the store does for each unit."""

    def __init__(self, path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        _set_up(connection)
        connection.execute("BEGIN")
        super().__init__(connection)


def engine(kind: str, folder: Path) -> Any:
    return MemoryLog() if kind == "memory" else SqliteLog(folder / f"{new_record_id()}.sqlite3")


@contextlib.contextmanager
def attempt(log: Any) -> Iterator[None]:
    """A unit that is undone when it fails."""
    if isinstance(log, MemoryLog):
        yield
        return
    log._connection.execute("SAVEPOINT attempt")
    try:
        yield
    except BaseException:
        log._connection.execute("ROLLBACK TO attempt")
        log.rolled_back()
        raise
    finally:
        log._connection.execute("RELEASE attempt")


@dataclass(eq=False)
class Author:
    """A member who writes."""

    log: Any
    feed: FeedId = FEED
    keys: MemberKeys = field(default_factory=MemberKeys.generate)
    signers: dict[LogKeys, LogSigner] = field(default_factory=dict)
    role: entry_pb2.MemberRole.ValueType = entry_pb2.MEMBER_ROLE_FORUM

    #: With which it confirms, after a rotation.
    witness: MemberKeys | None = None

    def __post_init__(self) -> None:
        #: The same for the same keys, as is the genesis.
        self.recovery = RecoveryKeys(hashlib.sha256(self.keys.secret).digest())
        signer = self.keys.log_signer(self.feed.origin)
        self.signers[signer.public] = signer
        witness = self.keys.witness_signer(self.feed.origin).public
        genesis = genesis_entry(self.feed, signer.public, witness, self.recovery.public_digest, self.role, 1_000_000)
        self.genesis = merkle.leaf_hash(genesis.SerializeToString())
        feeds.pin(self.log, self.feed, self.genesis)
        self.write([Draft(genesis)])

    def write(self, drafts: list[Draft]) -> None:
        feeds.append(self.log, self.feed, drafts)
        feeds.seal(self.log, self.feed, self.signers.__getitem__)

    def publish(self, count: int = 1, *, seal_each: bool = False) -> None:
        drafts = [draft(f"Judul {n}") for n in range(count)]
        for part in [[d] for d in drafts] if seal_each else [drafts]:
            self.write(part)

    def admit(self, member: Author, state: int = entry_pb2.MEMBERSHIP_STATE_ACTIVE, category: int = entry_pb2.MEMBER_CATEGORY_FULL) -> None:
        """A simpul says where a forum stands."""
        entry = new_entry(1_500_000)
        entry.previous_authority = self.log.feed(self.feed).authority_index
        part = entry.membership
        part.feed, part.genesis, part.state, part.category = member.feed.origin, member.genesis, state, category  # type: ignore[assignment]
        self.write([Draft(entry)])

    def observe(self, member: Author) -> None:
        """A simpul says how much of a forum's feed it holds."""
        entry = new_entry(1_600_000)
        entry.previous_authority = self.log.feed(self.feed).authority_index
        state = member.log.feed(member.feed)
        entry.observation.feed, entry.observation.size, entry.observation.root = member.feed.origin, state.size, state.root
        self.write([Draft(entry)])

    def rotate(self) -> None:
        keys = MemberKeys.generate()
        fresh = keys.log_signer(self.feed.origin)
        self.signers[fresh.public] = fresh
        entry = new_entry(2_000_000)
        entry.key_rotation.log_keys.CopyFrom(key_set(fresh.public))
        entry.key_rotation.witness_keys.CopyFrom(key_set(keys.witness_signer(self.feed.origin).public))
        self.witness = keys
        self.write([Draft(entry)])

    def batch(self, after: int, most: int = 512) -> replication_pb2.Batch:
        found = feeds.read_batch(self.log, self.feed, after, max_entries=most)
        assert found is not None
        return found


def draft(title: str, record: str = "", version: int = 1, text: str = "x") -> Draft:
    practice = content_pb2.BestPractice(problem=text, solution=text, results=text)
    content = content_pb2.Content(title=title, best_practice=practice)
    blob = contents.new_blob(content.SerializeToString())
    entry = new_entry(1_700_000_000_000_000)
    part = entry.record_version
    part.record, part.version, part.kind, part.audience = record or new_record_id(), version, 1, content_pb2.AUDIENCE_PUBLIC
    part.digest, part.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES
    return Draft(entry, blob)


def follow(copy: Any, author: Author, most: int = 512) -> None:
    """Bring a copy up to its author."""
    while (size := copy.feed(author.feed).size) < author.log.feed(author.feed).size:
        batch = author.batch(size, most)
        feeds.extend(copy, batch, batch.checkpoint)
