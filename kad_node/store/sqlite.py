"""The default engine: one SQLite file, no set-up.

WAL with ``synchronous=FULL``: a transaction that was reported as committed is on the disk. One connection writes, two read;
``aiosqlite`` gives each its own thread. A unit of work is a plain function of a transaction; one call carries all waiting
functions into the writer's thread, where they share one transaction and one fsync (group commit). Each function runs under its own
savepoint, so one that fails takes nothing of the others with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import tempfile
from collections import deque
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiosqlite

from kad_node.store.transaction import SqliteTransaction
from kad_protocol.errors import KadError, PreconditionError, Reason, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kad_protocol.names import FeedId

__all__ = ["SCHEMA_VERSION", "SqliteStore", "scratch"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_MIGRATIONS = ("0001_first.sql", "0002_view.sql", "0003_witnessed.sql", "0004_authority.sql", "0005_epochs.sql")
#: The schema that this version writes; a file with a larger one is refused, one with a smaller one is migrated.
SCHEMA_VERSION = len(_MIGRATIONS)

_PAGE_BYTES = 8192
_READERS = 2
_GROUP = 1024


class _Connection(aiosqlite.Connection):
    """A connection to whose thread whole functions can be sent, instead of one statement at a time."""

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        result: T = await self._execute(function, self._conn)  # type: ignore[no-untyped-call]
        return result


def _connect(path: Path) -> Callable[[], sqlite3.Connection]:
    def connector() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    return connector


class SqliteStore:
    """A store in one file. Make it with ``open``; close it with ``close``."""

    def __init__(self, path: Path, prepare_commit: Callable[[SqliteTransaction], bool]) -> None:
        self.path = path
        self._prepare_commit = prepare_commit
        self._writer = _Connection(_connect(path), 64)
        self._readers = [_Connection(_connect(path), 64) for _ in range(_READERS)]
        self._free: asyncio.Queue[_Connection] = asyncio.Queue()
        self._waiting: deque[tuple[Callable[[SqliteTransaction], Any], asyncio.Future[Any]]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._listeners: set[Callable[[Mapping[FeedId, int]], None]] = set()
        self._closed = False

    @classmethod
    async def open(cls, path: Path, prepare_commit: Callable[[SqliteTransaction], bool] = lambda _: False) -> SqliteStore:
        """Open or create the file and bring its schema up to date.

        Args:
            path: the database file; its folder exists.
            prepare_commit: runs at the end of every group, in its transaction, before the commit. True means that it has more
                to do and wants another transaction soon.

        Raises:
            PreconditionError: ``HOME_NEWER_VERSION``.
            StorageError: ``STORE_CORRUPT``, ``STORE_FULL``, ``STORE_UNAVAILABLE``.
        """
        store = cls(path, prepare_commit)
        try:
            await store._writer
            await store._writer.run(_set_up)
            for reader in store._readers:
                await reader
                await reader.run(lambda connection: connection.execute("PRAGMA query_only = 1"))
                store._free.put_nowait(reader)
        except (KadError, sqlite3.Error) as error:
            await store.close()
            raise _storage_error(error, path) from error
        path.chmod(0o600)
        return store

    async def close(self) -> None:
        """Finish what was given to ``write``, then close the file."""
        self._closed = True
        if self._pump is not None:
            await asyncio.gather(self._pump, return_exceptions=True)
        for connection in [*self._readers, self._writer]:
            with contextlib.suppress(ValueError, sqlite3.Error):
                await connection.close()
            if connection._thread.is_alive():  # noqa: SLF001 - a connection that never opened stops its thread behind our back
                await asyncio.to_thread(connection._thread.join)  # noqa: SLF001

    def listen(self, listener: Callable[[Mapping[FeedId, int]], None]) -> Callable[[], None]:
        """Call ``listener`` after every commit, on the event loop, with the feeds that changed and their signed sizes;
        returns how to stop.
        """
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def read(self, function: Callable[[SqliteTransaction], T]) -> T:
        """Run ``function`` on a consistent snapshot, in a reader's thread.

        Raises:
            StorageError: the disk or the database failed.
        """
        if self._closed:
            raise StorageError(Reason.SHUTTING_DOWN, "the store is closed")
        reader = await self._free.get()
        try:
            return await reader.run(lambda connection: _in_snapshot(connection, function))
        except sqlite3.Error as error:
            raise _storage_error(error, self.path) from error
        finally:
            self._free.put_nowait(reader)

    async def write(self, function: Callable[[SqliteTransaction], T]) -> T:
        """Run ``function`` in a transaction. When this returns, what it wrote is on the disk.

        Raises:
            StorageError: the disk or the database failed; nothing was written. Whatever ``function`` raises: nothing of it was.
        """
        if self._closed:
            raise StorageError(Reason.SHUTTING_DOWN, "the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((function, future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._pump_groups(), name="store-writer")
        # A caller that is cancelled does not take the group with it.
        return await asyncio.shield(future)

    async def _pump_groups(self) -> None:
        more = False
        while self._waiting or (more and not self._closed):
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _GROUP))]
            try:
                results, touched, more = await self._writer.run(lambda connection, g=group: self._commit(connection, g))  # type: ignore[misc]
            except Exception as error:
                more = False
                results, touched = [(False, _storage_error(error, self.path))] * len(group), {}
                if not group:
                    log.exception("folding failed")
            _settle(group, results)
            if touched:
                self._tell(touched)

    def _tell(self, touched: dict[FeedId, int]) -> None:
        for listener in list(self._listeners):
            try:
                listener(touched)
            except Exception:
                # Others wait for the store; one that cannot listen is their loss alone.
                log.exception("a listener of the store failed")

    def _commit(
        self, connection: sqlite3.Connection, group: list[tuple[Callable[[SqliteTransaction], Any], asyncio.Future[Any]]]
    ) -> tuple[list[tuple[bool, Any]], dict[FeedId, int], bool]:
        """In the writer's thread: one transaction for the whole group."""
        results: list[tuple[bool, Any]] = []
        connection.execute("BEGIN IMMEDIATE")
        try:
            tx = SqliteTransaction(connection)
            for function, _ in group:
                connection.execute("SAVEPOINT unit")
                try:
                    results.append((True, function(tx)))
                except (sqlite3.OperationalError, sqlite3.InternalError):
                    # The disk or the file: this concerns everybody.
                    raise
                except Exception as error:  # noqa: BLE001 - handed to the caller whose function it was
                    connection.execute("ROLLBACK TO unit")
                    tx.rolled_back()
                    results.append((False, _storage_error(error, self.path)))
                connection.execute("RELEASE unit")
            more = self._prepare_commit(tx)
            touched = {state.feed: state.signed_size for feed in tx.touched if (state := tx.feed(feed)) is not None}
            # Point of no return: before this line a crash leaves the file as it was, after it everything is there.
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return results, touched, more


@contextlib.contextmanager
def scratch() -> Iterator[SqliteTransaction]:
    """A store for a moment, in a file that is gone afterwards: to build feeds up and judge them without keeping anything."""
    with (
        tempfile.TemporaryDirectory(prefix="kad-") as folder,
        contextlib.closing(_connect(Path(folder) / "scratch.sqlite3")()) as connection,
    ):
        _set_up(connection)
        # Nothing here has to outlive the process.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        yield SqliteTransaction(connection)


def _settle(group: list[tuple[Any, asyncio.Future[Any]]], results: list[tuple[bool, Any]]) -> None:
    """Tell each caller what came of its function."""
    for (_, future), (ok, value) in zip(group, results, strict=True):
        if future.done():
            continue
        if ok:
            future.set_result(value)
        else:
            future.set_exception(value)
            # Marks it as seen: a caller that was cancelled meanwhile will not look.
            future.exception()


def _in_snapshot(connection: sqlite3.Connection, function: Callable[[SqliteTransaction], T]) -> T:
    connection.execute("BEGIN")
    try:
        return function(SqliteTransaction(connection))
    finally:
        connection.execute("ROLLBACK")


def _set_up(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise PreconditionError(
            Reason.HOME_NEWER_VERSION,
            f"the database has schema {version}, this program knows {SCHEMA_VERSION}; use the newer program",
            found=version,
            known=SCHEMA_VERSION,
        )
    if version == 0:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    migrations = resources.files("kad_node.store") / "migrations"
    for number, name in enumerate(_MIGRATIONS[version:], version + 1):
        script = (migrations / name).read_text()
        # One transaction for a step and its number: interrupted, it runs again from its beginning.
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _storage_error(error: Exception, path: Path) -> Exception:
    """What a person needs to know of an SQLite error."""
    if not isinstance(error, sqlite3.Error):
        return error
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return StorageError(Reason.STORE_FULL, f"{path}: {text}; is the disk full or failing?", path=path)
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return StorageError(Reason.STORE_CORRUPT, f"{path}: {text}", path=path)
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return StorageError(Reason.HOME_NOT_WRITABLE, f"{path}: {text}", path=path)
    return StorageError(Reason.STORE_UNAVAILABLE, f"{path}: {text}", path=path)
