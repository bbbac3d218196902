"""Load: records of 2 KiB, published through the gRPC API at full speed or at a rate, and watched until everybody holds them."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kad_protocol.v1 import content_pb2, records_pb2
from tools.bench.federation import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kad_protocol.client import Client
    from tools.bench.federation import Federation

__all__ = ["Round", "paced", "record", "saturated"]

RECORD_BYTES = 2048
_BATCH = 100
_IN_FLIGHT = 2
# Words of the field, so that what is indexed is what would be.
_WORDS = (
    *("pengelolaan", "sampah", "bersama", "antar", "daerah", "kabupaten", "kota", "tempat", "pemrosesan", "akhir", "biaya", "pembagian"),
    *("armada", "pengangkutan", "retribusi", "perjanjian", "kerja", "sama", "sekretariat", "pariwisata", "air", "minum", "transportasi"),
    *("investasi", "pelayanan", "terpadu", "hasil", "pelajaran", "masalah", "solusi", "kesepakatan", "penyediaan", "lahan", "pemantauan"),
    *("evaluasi", "laporan", "rapat", "koordinasi", "anggaran", "tahunan", "masyarakat", "petugas", "pelatihan"),
)
_random = random.Random(7)  # noqa: S311 - the same load every time


def record(parent: str = "") -> records_pb2.CreateRecordRequest:
    """A best practice whose content has 2 KiB, other words each time."""
    content = content_pb2.Content(title=f"Praktik {_random.randrange(1_000_000)}", sectors=[content_pb2.SECTOR_ENVIRONMENT], tags=["ukur"])
    content.regions.add(code="34.71")
    practice = content.best_practice
    practice.problem = practice.results = " ".join(_random.choices(_WORDS, k=20))
    while (missing := RECORD_BYTES - content.ByteSize()) > 0:
        practice.solution += f"{_random.choice(_WORDS)} "[: max(missing - 2, 1)]
    return records_pb2.CreateRecordRequest(parent=parent, content=content)


@dataclass
class Round:
    """What came of one load."""

    records: int
    #: From the first call to the last record being durable, folded and observed everywhere.
    seconds: float
    #: Processor seconds by process until nothing was left to do, confirmations included; and of this program.
    cpu: dict[str, float]
    #: From each call to its record being everywhere, in seconds; only of a paced load.
    delays: list[float] = field(default_factory=list)
    #: From the last record being everywhere to everybody knowing it confirmed; 0 without checks.
    confirm_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Records that became durable everywhere, a second."""
        return self.records / self.seconds

    @property
    def cpu_per_record(self) -> float:
        """Processor seconds of all daemons for one record."""
        return sum(seconds for name, seconds in self.cpu.items() if name) / self.records


class _Meter:
    """Sizes and processor times before a load, and what they have become after it."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._sizes = federation.simpul.held().folded
        self._before = {process.name: process.cpu_seconds() for process in federation.processes}
        self._own = time.process_time()
        self._start = time.monotonic()

    def sizes(self, published: dict[str, int]) -> dict[str, int]:
        return {feed: self._sizes[feed] + count for feed, count in published.items()}

    async def finish(self, records: int, ended: float, delays: Sequence[float] = ()) -> Round:
        await self._federation.quiet()
        confirmed = time.monotonic() - ended if self._federation.checks else 0.0
        cpu = {process.name: process.cpu_seconds() - self._before[process.name] for process in self._federation.processes}
        return Round(records, ended - self._start, cpu | {"": time.process_time() - self._own}, list(delays), confirmed)


async def _publish_all(client: Client, batches: Sequence[records_pb2.BatchCreateRecordsRequest]) -> None:
    waiting = iter(batches)

    async def worker() -> None:
        for batch in waiting:
            await client.records.BatchCreateRecords(batch, timeout=120)

    await asyncio.gather(*(worker() for _ in range(_IN_FLIGHT)))


async def saturated(federation: Federation, each: int, *, acts: int = 0) -> Round:
    """Every node publishes ``each`` records as fast as it can; the simpul ``acts`` beside them.

    With checks the simpul's are acts in the forums' names, under their mandates; without, records of its own of the same size.
    """
    batches = {
        process: [records_pb2.BatchCreateRecordsRequest(requests=[record() for _ in range(_BATCH)]) for _ in range(each // _BATCH)]
        for process in federation.nodes
    }
    own = [record(f"forums/{federation.nodes[number % len(federation.nodes)].name}" if federation.checks else "") for number in range(acts)]
    async with AsyncExitStack() as stack:
        simpul, *nodes = [await stack.enter_async_context(process.client()) for process in federation.processes]
        meter = _Meter(federation)
        targets = meter.sizes({federation.feed(process): len(batches[process]) * _BATCH for process in federation.nodes})
        async with asyncio.TaskGroup() as group:
            acting = group.create_task(_publish_singly(simpul, own))
            for node, process in zip(nodes, federation.nodes, strict=True):
                group.create_task(_publish_all(node, batches[process]))
        targets[federation.log.origin] = acting.result()
        ended = await until(lambda: federation.reached(targets), "everybody holds everything", 300, pause=0.01)
        return await meter.finish(sum(len(b) for b in batches.values()) * _BATCH + len(own), ended)


async def _publish_singly(client: Client, requests: Sequence[records_pb2.CreateRecordRequest]) -> int:
    """One after the other; returns how far the feed must have come for all of them to be in it."""
    end = 0
    for request in requests:
        end = (await client.records.CreateRecord(request, timeout=120)).record.index + 1
    return end


async def paced(federation: Federation, rate: float, seconds: float) -> Round:
    """The nodes publish single records in turn, ``rate`` a second all together, whether earlier ones have arrived or not."""
    requests = [record() for _ in range(int(rate * seconds))]
    places: list[tuple[str, int, float]] = []
    seen: list[tuple[float, dict[str, int]]] = []
    feeds = [federation.feed(process) for process in federation.nodes]

    def look() -> bool:
        held = [process.held() for process in federation.processes]
        seen.append((time.monotonic(), {feed: min(h.folded.get(feed, 0) for h in held) for feed in feeds}))
        return federation.reached(targets, held)

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(process.client()) for process in federation.nodes]

        async def publish(number: int) -> None:
            begun = time.monotonic()
            response = await clients[number % len(clients)].records.CreateRecord(requests[number], timeout=60)
            places.append((feeds[number % len(feeds)], response.record.index, begun))

        meter = _Meter(federation)
        targets = meter.sizes({feed: len(range(number, len(requests), len(feeds))) for number, feed in enumerate(feeds)})
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(until(look, "everybody holds everything", seconds + 120, pause=0.004))
            for number in range(len(requests)):
                await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
                group.create_task(publish(number))
        return await meter.finish(len(requests), watching.result(), _delays(places, seen))


def _delays(places: Sequence[tuple[str, int, float]], seen: Sequence[tuple[float, dict[str, int]]]) -> list[float]:
    """For each record the time from its call until everybody was seen to hold it."""
    found, at = [], dict.fromkeys({feed for feed, _, _ in places}, 0)
    for feed, index, begun in sorted(places, key=lambda place: (place[0], place[1])):
        while seen[at[feed]][1][feed] <= index:
            at[feed] += 1
        found.append(seen[at[feed]][0] - begun)
    return found
