"""What a store promises (``kad_protocol.store.LogTransaction``), of each engine; then what SQLite promises on top: durability."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kad_node.store.memory import MemoryLog
from kad_node.store.sqlite import SCHEMA_VERSION, SqliteStore
from kad_protocol import feed as feeds
from kad_protocol import merkle
from kad_protocol.errors import PreconditionError, Reason, StorageError
from kad_protocol.names import FeedId
from kad_protocol.store import FeedState, StoredEntry
from tests.unit.feeds import Author

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ONE, TWO = FeedId("uji.kad.internal", "satu"), FeedId("uji.kad.internal", "dua")
FULL = FeedState(
    ONE, bytes(32), 3, 4, b"f" * 64, b"r" * 32, b"note\x00", 2, b"target", b"keys", role=1, authority_index=2, quarantine="FORKED"
)


class MemoryEngine:
    """The engine in memory, as a store."""

    def __init__(self) -> None:
        self._log = MemoryLog()

    async def run(self, function: Callable[[Any], Any]) -> Any:
        return function(self._log)

    async def evidence(self) -> list[tuple[FeedId, bytes]]:
        return self._log.evidence

    async def close(self) -> None:
        pass


class SqliteEngine:
    """The default engine; every function is a transaction of its own."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def run(self, function: Callable[[Any], Any]) -> Any:
        return await self._store.write(function)

    async def evidence(self) -> list[tuple[FeedId, bytes]]:
        return await self._store.read(lambda tx: [(feed, data) for _, feed, _, data in tx.evidence()])

    async def close(self) -> None:
        await self._store.close()


@pytest.fixture(params=["memory", "sqlite"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    made = MemoryEngine() if request.param == "memory" else SqliteEngine(await SqliteStore.open(tmp_path / "store.sqlite3"))
    yield made
    await made.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store.sqlite3")
    yield opened
    await opened.close()


async def begin(engine: Any, *names: FeedId) -> None:
    for name in names:
        await engine.run(lambda tx, n=name: tx.save_feed(FeedState(n, bytes(32))))


# Every engine.


async def test_a_feed_that_is_not_known(engine: Any) -> None:
    assert await engine.run(lambda tx: tx.feed(ONE)) is None
    assert await engine.run(lambda tx: tx.feeds()) == []


async def test_every_field_of_a_state_comes_back(engine: Any) -> None:
    await engine.run(lambda tx: tx.save_feed(FULL))
    assert await engine.run(lambda tx: tx.feed(ONE)) == FULL


async def test_a_state_is_replaced_whole(engine: Any) -> None:
    await engine.run(lambda tx: tx.save_feed(FULL))
    bare = FeedState(ONE, b"g" * 32)
    await engine.run(lambda tx: tx.save_feed(bare))
    assert await engine.run(lambda tx: tx.feed(ONE)) == bare
    assert len(await engine.run(lambda tx: tx.feeds())) == 1


async def test_feeds_are_sorted_by_origin(engine: Any) -> None:
    names = [FeedId("uji.kad.internal", name, epoch) for name, epoch in (("candi", 0), ("aceh", 1), ("banten", 0), ("aceh", 0))]
    await begin(engine, *names)
    found = [state.feed.origin for state in await engine.run(lambda tx: tx.feeds())]
    assert found == sorted(name.origin for name in names)


async def test_bytes_come_back_as_they_were(engine: Any) -> None:
    await begin(engine, ONE)
    bodies, contents = [b"\x00", bytes(range(256)), "é\n".encode()], [b"", b"\xff\x00", b"'; DROP TABLE entry"]
    await engine.run(lambda tx: tx.insert_entries(ONE, 0, bodies, contents))
    expected = [StoredEntry(n, body, content) for n, (body, content) in enumerate(zip(bodies, contents, strict=True))]
    found = await engine.run(lambda tx: tx.entries(ONE, 0, 10, 1 << 20))
    assert found == expected
    assert all(type(entry.body) is bytes and type(entry.content) is bytes for entry in found)


async def test_feeds_do_not_mix(engine: Any) -> None:
    await begin(engine, ONE, TWO)
    await engine.run(lambda tx: tx.insert_entries(ONE, 0, [b"one"] * 3, [b""] * 3))
    await engine.run(lambda tx: tx.insert_entries(TWO, 0, [b"two"], [b""]))
    await engine.run(lambda tx: tx.tiles(ONE).put(0, 0, b"1" * 32))
    await engine.run(lambda tx: tx.pin_checkpoint(ONE, 2, b"note"))
    assert [entry.body for entry in await engine.run(lambda tx: tx.entries(TWO, 0, 10, 1 << 20))] == [b"two"]
    assert await engine.run(lambda tx: tx.tiles(TWO).get(0, 0)) is None
    assert await engine.run(lambda tx: tx.pinned_checkpoint(TWO, 0)) is None


async def test_limits_of_reading(engine: Any) -> None:
    await begin(engine, ONE)
    await engine.run(lambda tx: tx.insert_entries(ONE, 0, [b"12345"] * 6, [b"67890"] * 6))

    async def indexes(after: int, limit: int, most: int) -> list[int]:
        return [entry.index for entry in await engine.run(lambda tx: tx.entries(ONE, after, limit, most))]

    assert await indexes(0, 4, 1 << 20) == [0, 1, 2, 3]
    assert await indexes(4, 100, 1 << 20) == [4, 5]
    assert await indexes(6, 100, 1 << 20) == []
    assert await indexes(900, 100, 1 << 20) == []
    assert await indexes(0, 0, 1 << 20) == []
    # Bodies and contents count together; the first one always comes.
    assert await indexes(1, 100, 30) == [1, 2, 3]
    assert await indexes(1, 100, 29) == [1, 2]
    assert await indexes(1, 100, 1) == [1]


async def test_an_index_that_is_taken_is_an_error(engine: Any) -> None:
    await begin(engine, ONE)
    await engine.run(lambda tx: tx.insert_entries(ONE, 0, [b"a", b"b"], [b"", b""]))
    with pytest.raises(StorageError):
        await engine.run(lambda tx: tx.insert_entries(ONE, 1, [b"x", b"y"], [b"", b""]))
    assert [entry.body for entry in await engine.run(lambda tx: tx.entries(ONE, 0, 10, 1 << 20))] == [b"a", b"b"]


async def test_a_gap_is_an_error(engine: Any) -> None:
    await begin(engine, ONE)
    with pytest.raises(StorageError):
        await engine.run(lambda tx: tx.insert_entries(ONE, 1, [b"x"], [b""]))


async def test_a_content_is_put_beside_its_entry_and_removed(engine: Any) -> None:
    await begin(engine, ONE)
    await engine.run(lambda tx: tx.insert_entries(ONE, 0, [b"a", b"b", b"c"], [b"", b"", b""]))
    await engine.run(lambda tx: tx.set_content(ONE, 1, b"content"))
    expected = [StoredEntry(0, b"a"), StoredEntry(1, b"b", b"content"), StoredEntry(2, b"c")]
    assert await engine.run(lambda tx: tx.entries(ONE, 0, 10, 1 << 20)) == expected
    await engine.run(lambda tx: tx.set_content(ONE, 1, b""))
    assert await engine.run(lambda tx: tx.entries(ONE, 1, 1, 1 << 20)) == [StoredEntry(1, b"b")]


async def test_tiles_are_kept_by_level_and_index(engine: Any) -> None:
    await begin(engine, ONE)
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (0, 1 << 30), (4, 3)]
    for level, index in places:
        await engine.run(lambda tx, at=(level, index): tx.tiles(ONE).put(*at, f"{at}".encode()))
    for level, index in places:
        assert await engine.run(lambda tx, at=(level, index): tx.tiles(ONE).get(*at)) == f"{(level, index)}".encode()
    await engine.run(lambda tx: tx.tiles(ONE).put(0, 0, b"new"))
    assert await engine.run(lambda tx: tx.tiles(ONE).get(0, 0)) == b"new"
    assert await engine.run(lambda tx: tx.tiles(ONE).get(3, 0)) is None


async def test_a_tree_over_stored_tiles(engine: Any) -> None:
    await begin(engine, ONE)
    hashes = [merkle.leaf_hash(str(n).encode()) for n in range(700)]
    for start, end in ((0, 255), (255, 257), (257, 700)):
        await engine.run(lambda tx, s=start, e=end: merkle.extend_tiles(tx.tiles(ONE), s, hashes[s:e]))
    for size in (1, 256, 300, 700):
        frontier = merkle.Frontier()
        frontier.append(hashes[:size])
        assert await engine.run(lambda tx, s=size: merkle.root_at(tx.tiles(ONE), s)) == frontier.root()


async def test_pinned_checkpoints_are_found_in_order(engine: Any) -> None:
    await begin(engine, ONE)
    for size in (30, 10, 20):
        await engine.run(lambda tx, s=size: tx.pin_checkpoint(ONE, s, f"note {s}".encode()))
    expected = {0: (10, b"note 10"), 9: (10, b"note 10"), 10: (20, b"note 20"), 29: (30, b"note 30"), 30: None}
    for after, pinned in expected.items():
        assert await engine.run(lambda tx, a=after: tx.pinned_checkpoint(ONE, a)) == pinned


async def test_evidence_is_kept(engine: Any) -> None:
    await begin(engine, ONE, TWO)
    await engine.run(lambda tx: tx.add_evidence(ONE, b"first"))
    await engine.run(lambda tx: tx.add_evidence(TWO, b"second"))
    assert await engine.evidence() == [(ONE, b"first"), (TWO, b"second")]


async def test_a_signed_feed_reads_back_verified(engine: Any) -> None:
    """The whole path at once: what is sealed over an engine can be served from it and verified into another."""
    copy = MemoryLog()

    def write(tx: Any) -> None:
        author = Author(tx, ONE)
        author.publish(20)
        feeds.pin(copy, ONE, author.genesis)

    await engine.run(write)
    while (size := copy.feed(ONE).size) < 21:
        batch = await engine.run(lambda tx, s=size: feeds.read_batch(tx, ONE, s, max_entries=8))
        feeds.extend(copy, batch, batch.checkpoint)
    assert copy.feed(ONE).root == (await engine.run(lambda tx: tx.feed(ONE))).root


# SQLite alone.


def failing(tx: Any) -> None:
    tx.save_feed(FeedState(TWO, b"2" * 32))
    tx.insert_entries(TWO, 0, [b"never"], [b""])
    raise LookupError("on purpose")


async def test_a_unit_that_fails_takes_nothing_with_it(store: SqliteStore) -> None:
    groups = []
    store._prepare_commit = lambda _: bool(groups.append(1))
    units = [
        store.write(lambda tx: tx.save_feed(FeedState(ONE, bytes(32)))),
        store.write(failing),
        store.write(lambda tx: tx.insert_entries(ONE, 0, [b"a"], [b""])),
        store.write(lambda tx: tx.save_feed(FeedState(TWO, b"3" * 32))),
        store.write(lambda tx: tx.insert_entries(TWO, 0, [b"b"], [b""])),
    ]
    results = await asyncio.gather(*units, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), LookupError, type(None), type(None), type(None)]
    assert len(groups) == 1, "they shared one transaction"
    kept = await store.read(lambda tx: [tx.entries(feed, 0, 9, 99)[0].body for feed in (ONE, TWO)])
    assert kept == [b"a", b"b"]
    assert (await store.read(lambda tx: tx.feed(TWO))).genesis == b"3" * 32


async def test_a_unit_that_sqlite_refuses_takes_nothing_with_it(store: SqliteStore) -> None:
    await store.write(lambda tx: tx.save_feed(FeedState(ONE, bytes(32))))
    units = [
        store.write(lambda tx: tx.insert_entries(ONE, 0, [b"a"], [b""])),
        store.write(lambda tx: tx.insert_entries(ONE, 0, [b"b"], [b""])),
    ]
    first, second = await asyncio.gather(*units, return_exceptions=True)
    assert isinstance(second, StorageError)
    assert first is None


async def test_a_caller_that_is_cancelled_does_not_take_the_group_with_it(store: SqliteStore) -> None:
    gone = asyncio.create_task(store.write(lambda tx: tx.save_feed(FeedState(ONE, bytes(32)))))
    stays = asyncio.create_task(store.write(lambda tx: tx.save_feed(FeedState(TWO, bytes(32)))))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert await store.read(lambda tx: tx.feed(TWO)) is not None
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_failing_end_of_the_group_undoes_the_group(store: SqliteStore) -> None:
    def refuse(tx: Any) -> bool:
        raise ValueError("on purpose")

    store._prepare_commit = refuse
    with pytest.raises(ValueError, match="on purpose"):
        await store.write(lambda tx: tx.save_feed(FeedState(ONE, bytes(32))))
    store._prepare_commit = lambda _: False
    assert await store.read(lambda tx: tx.feed(ONE)) is None
    await store.write(lambda tx: tx.save_feed(FeedState(TWO, bytes(32))))


async def test_readers_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(StorageError):
        await store.read(lambda tx: tx.save_feed(FeedState(ONE, bytes(32))))
    assert await store.read(lambda tx: tx.feed(ONE)) is None


async def test_listeners_get_signed_sizes(store: SqliteStore) -> None:
    heard: list[dict[FeedId, int]] = []
    stop = store.listen(lambda touched: heard.append(dict(touched)))
    await store.write(lambda tx: tx.save_feed(FULL))
    assert heard == [{ONE: FULL.signed_size}]
    with pytest.raises(LookupError):
        await store.write(failing)
    await store.write(lambda tx: tx.feed(ONE))
    assert heard == [{ONE: FULL.signed_size}], "nothing changed, nothing is told"
    await store.write(lambda tx: tx.save_feed(replace(FULL, signed_size=3)))
    assert heard[1:] == [{ONE: 3}]
    stop()
    await store.write(lambda tx: tx.save_feed(FULL))
    assert len(heard) == 2


async def test_closing_finishes_what_was_given_and_takes_no_more(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    store = await SqliteStore.open(path)
    await store.write(lambda tx: tx.save_feed(FULL))
    writes = [asyncio.create_task(store.write(lambda tx, n=n: tx.put_meta(f"key {n}", b"x"))) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    with pytest.raises(StorageError) as caught:
        await store.write(lambda tx: tx.put_meta("late", b"x"))
    assert caught.value.reason == Reason.SHUTTING_DOWN
    again = await SqliteStore.open(path)
    assert await again.read(lambda tx: tx.feed(ONE)) == FULL
    assert [await again.read(lambda tx, n=n: tx.meta(f"key {n}")) for n in range(50)] == [b"x"] * 50
    assert await again.read(lambda tx: tx.meta("late")) is None
    await again.close()


async def test_the_file_is_ones_own(store: SqliteStore) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    await (await SqliteStore.open(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(PreconditionError) as caught:
        await SqliteStore.open(path)
    assert caught.value.reason == Reason.HOME_NEWER_VERSION
    assert caught.value.metadata == {"found": str(SCHEMA_VERSION + 1), "known": str(SCHEMA_VERSION)}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    garbage = random.Random(1).randbytes(20_000)
    path.write_bytes(garbage)
    with pytest.raises(StorageError) as caught:
        await SqliteStore.open(path)
    assert caught.value.reason == Reason.STORE_CORRUPT
    assert str(path) in str(caught.value)
    assert path.read_bytes() == garbage


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        await SqliteStore.open(tmp_path / "missing" / "store.sqlite3")
    assert caught.value.reason == Reason.HOME_NOT_WRITABLE


WRITER = """
import asyncio, sys
from pathlib import Path
from kad_node.store.sqlite import SqliteStore
from kad_protocol.names import FeedId
from kad_protocol.store import FeedState

FEED = FeedId("uji.kad.internal", "satu")
UNIT = 7

def unit(tx):
    state = tx.feed(FEED) or FeedState(FEED, bytes(32))
    tx.save_feed(FeedState(FEED, bytes(32), state.size + UNIT, state.size + UNIT, signed_size=state.size + UNIT))
    tx.insert_entries(FEED, state.size, [f"{state.size + n}".encode() * 50 for n in range(UNIT)], [b"content"] * UNIT)
    return state.size + UNIT

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        sizes = await asyncio.gather(*(store.write(unit) for _ in range(3)))
        print(max(sizes), flush=True)

asyncio.run(main())
"""


async def test_killed_at_any_moment_it_keeps_what_it_committed(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    path = tmp_path / "store.sqlite3"
    held = 0
    for _ in range(4):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
            reported = held
            for _ in range(chance.randint(1, 30)):
                reported = int(await process.stdout.readline())
        # Not at a line's end only: somewhere in the middle of what follows it.
        await asyncio.sleep(chance.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        rest = await process.stdout.read()
        assert await process.wait() == -signal.SIGKILL
        for line in rest.splitlines(keepends=True):
            if line.endswith(b"\n"):
                reported = int(line)

        store = await SqliteStore.open(path)
        state = await store.read(lambda tx: tx.feed(ONE))
        entries = await store.read(lambda tx: tx.entries(ONE, 0, 1 << 30, 1 << 40))
        await store.close()
        assert state.size >= reported > held
        assert state.size % 21 == 0, "a group of three units of seven is whole or absent"
        assert [entry.body for entry in entries] == [f"{n}".encode() * 50 for n in range(state.size)]
        assert {entry.content for entry in entries} == {b"content"}
        held = state.size
