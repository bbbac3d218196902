"""``make bench``: what witnessing and authority cost. Prints a table, writes build/bench.json; status 1 if a figure is not what it must be.

Two federations of real processes stand side by side, one complete, one that only exchanges. They get the same load in turn, in the order
with, without, without, with, ..., so that what else happens on the machine meets both; each ratio is that of two neighbours, and the
median of those counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kad_protocol.v1 import content_pb2, governance_pb2
from tools.bench.federation import Federation
from tools.bench.functions import functions
from tools.bench.load import RECORD_BYTES, paced, saturated
from tools.bench.results import Figure, save, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tools.bench.load import Round

NODES = 3
MUST = 0.90
GOAL = 0.97
#: Load for each core from which on it is said that figures in seconds mean little.
BUSY = 0.5


def disk(folder: Path, times: int = 300) -> float:
    """Milliseconds of appending 4 KiB and ``fdatasync``, the median."""
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(times):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e3


def machine(folder: Path) -> dict[str, object]:
    """What this was measured on."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 1024**2, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "fdatasync_ms": round(disk(folder), 3),
        "load_before": os.getloadavg()[0],
    }


async def mandate(federation: Federation) -> None:
    """Each forum lets the simpul publish best practices in its name."""
    if not federation.checks:
        return
    for process in federation.nodes:
        asked = governance_pb2.GrantMandateRequest()
        asked.mandate.function = "publish-on-behalf"
        asked.mandate.kinds.append(content_pb2.RECORD_KIND_BEST_PRACTICE)
        asked.mandate.not_after.FromSeconds(int(time.time()) + 30 * 86_400)
        async with process.client() as kad:
            await kad.mandates.GrantMandate(asked)
    async with federation.simpul.client() as kad:
        while True:
            listed = (await kad.mandates.ListMandates(governance_pb2.ListMandatesRequest(live_only=True))).mandates
            if len(listed) == len(federation.nodes):
                return
            await asyncio.sleep(0.05)


async def pairs(
    sides: tuple[Federation, Federation], rounds: int, load: Callable[[Federation], Awaitable[Round]], what: str
) -> list[tuple[Round, Round]]:
    """The same load for both in turn; the first pair is for warming up and does not count."""
    found = []
    for number in range(rounds + 1):
        order = sides if number % 2 else sides[::-1]
        done = [await load(side) for side in order]
        first, second = done if order[0] is sides[0] else done[::-1]
        if number:
            found.append((first, second))
            print(f"  {what} {number}/{rounds}: {first.rate:,.0f}/s with, {second.rate:,.0f}/s without", flush=True)
    return found


def compare(name: str, unit: str, found: Sequence[tuple[Round, Round]], value: Callable[[Round], float], **more: Any) -> Figure:  # noqa: ANN401 - fields of Figure
    """One figure of both sides: medians, and the median of the ratios of neighbours."""
    with_, without = [value(one) for one, _ in found], [value(other) for _, other in found]
    ratios = [a / b for a, b in zip(with_, without, strict=True)]
    note = f"ratios {min(ratios):.2f} to {max(ratios):.2f}"
    return Figure(name, statistics.median(with_), unit, statistics.median(without), statistics.median(ratios), note=note, **more)


def _share(seconds: Sequence[float], share: float) -> float:
    """The delay, in milliseconds, that so many did not exceed."""
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * share))] * 1e3


def figures_of(name: str, found: Sequence[tuple[Round, Round]]) -> list[Figure]:
    """What comes of full speed."""
    return [
        compare(f"{name}: durable and folded everywhere", "records/s", found, lambda done: done.rate, must=MUST, goal=GOAL),
        compare(
            f"{name}: the same for processor time spent", "records/s", found, lambda done: 1 / done.cpu_per_record, must=MUST, goal=GOAL
        ),
        compare(f"{name}: processor time of all daemons", "µs/record", found, lambda done: done.cpu_per_record * 1e6),
        compare(f"{name}: of the simpul", "µs/record", found, lambda done: done.cpu["simpul-ukur"] / done.records * 1e6),
        Figure(f"{name}: then confirmed after", statistics.median(one.confirm_seconds for one, _ in found), "s"),
    ]


async def measure(folder: Path, *, quick: bool, same: bool) -> list[Figure]:
    """All rounds. ``same``: both federations are complete, so that what remains is the noise of the machine."""
    sides = Federation(folder / "with", checks=True), Federation(folder / "without", checks=same)
    try:
        for side in sides:
            side.folder.mkdir()
            await side.found(NODES)
        before = [sum(process.store_bytes() for process in side.processes) for side in sides]
        judged = {process: process.held().judged for side in sides for process in side.processes}
        rounds, each, seconds = (6, 300, 5.0) if quick else (12, 500, 10.0)
        full = await pairs(sides, rounds, lambda side: saturated(side, each), "full speed")
        grown = [sum(process.store_bytes() for process in side.processes) - size for side, size in zip(sides, before, strict=True)]
        slow = await pairs(sides, 2 if quick else 4, lambda side: paced(side, 100, seconds), "100/s")
        for side in sides:
            await mandate(side)
        acting = await pairs(sides, rounds, lambda side: saturated(side, each, acts=each // 10), "full speed with acts")
        for side in sides:
            for process in side.processes:
                if (process.held().judged > judged[process]) is not side.checks:
                    raise RuntimeError(f"{process.home.path} judged or did not, against what was meant: nothing was compared")
        records = (rounds + 1) * each * NODES
        return [
            *figures_of("full speed", full),
            Figure("full speed: grown by", grown[0] / records / 1024, "KiB/record", grown[1] / records / 1024, grown[0] / grown[1]),
            compare("100/s: everywhere after, median", "ms", slow, lambda done: _share(done.delays, 0.5)),
            compare("100/s: everywhere after, 99 of 100", "ms", slow, lambda done: _share(done.delays, 0.99)),
            compare("100/s: processor time of all daemons", "µs/record", slow, lambda done: done.cpu_per_record * 1e6),
            Figure("100/s: then confirmed after", statistics.median(one.confirm_seconds for one, _ in slow), "s"),
            *figures_of("with mandates and acts", acting),
        ]
    finally:
        for side in sides:
            side.remove()


def main() -> None:
    """Measure, show, save."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under three minutes; the full run takes about six")
    parser.add_argument("--same", action="store_true", help="compare two complete federations: shows the noise of this machine")
    parser.add_argument("--folder", type=Path, help="where the stores lie while it runs; its disk is what is measured")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where to write the figures")
    options = parser.parse_args()
    # Ended in whatever way, it takes its daemons with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kad-bench-", dir=options.folder) as name:
        folder = Path(name)
        about = machine(folder)
        print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
        if os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
            print("This machine is busy with something else: rates and delays below are those of what it leaves over.", flush=True)
        single = functions(folder, 0.2 if options.quick else 1.0)
        found = asyncio.run(measure(folder, quick=options.quick, same=options.same))
        about["fdatasync_ms_after"] = round(disk(folder), 3)
    show(single, "Single steps")
    show(found, f"{NODES} nodes and a simpul, records of {RECORD_BYTES} bytes: with witnessing and judging, and without")
    save([*found, *single], about, options.json)
    print(f"{time.monotonic() - begun:.0f} s; {options.json}")
    sys.exit(0 if all(figure.ok for figure in found) else 1)


if __name__ == "__main__":
    main()
