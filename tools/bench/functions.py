"""What single steps of witnessing and judging cost, in microseconds, beside SHA-256 and Ed25519 on the same machine at the same time.

It is processor time of the thread, so that others on the machine, who take the processor away, do not stand in the figures.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from kad_protocol import feed as feeds
from kad_protocol import fold, order
from kad_protocol.governance import Governance
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, cosign, sign_checkpoint
from kad_protocol.v1 import content_pb2, entry_pb2
from kad_protocol.witness import read_cosignature
from tests.unit.federation import DAY, SIMPUL, Federation
from tools.bench.results import Figure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.feeds import SqliteLog

__all__ = ["functions"]

_WITNESSES = 7


def _each(work: Callable[[], object], seconds: float) -> float:
    """Microseconds for one call: the median of blocks that take a few milliseconds each."""
    count, took = 1, 0.0
    while took < 0.005:  # noqa: PLR2004 - long against the clock's own grain
        count *= 2
        begun = time.thread_time()
        for _ in range(count):
            work()
        took = time.thread_time() - begun
    blocks = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.thread_time()
        for _ in range(count):
            work()
        blocks.append((time.thread_time() - begun) / count)
    return statistics.median(blocks) * 1e6


def functions(folder: Path, seconds: float) -> list[Figure]:
    """Measure all of them; ``seconds`` for each."""
    data = os.urandom(2048)
    key, lattice = Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate()
    signature, large = key.sign(data), lattice.sign(data)
    public, lattice_public = key.public_key(), lattice.public_key()
    members = [MemberKeys.generate().witness_signer(FeedId(SIMPUL.federation, f"forum-{n}").origin) for n in range(_WITNESSES)]
    checkpoint = Checkpoint(SIMPUL.origin, 123_456, hashlib.sha256(data).digest())
    lines = "".join(str(line) for line in cosign(checkpoint, members[0], 1_800_000_000)).encode()
    log = MemberKeys.generate().log_signer(SIMPUL.origin)
    found = [
        ("SHA-256 of 2 KiB", _each(lambda: hashlib.sha256(data).digest(), seconds)),
        ("Ed25519 sign, 2 KiB", _each(lambda: key.sign(data), seconds)),
        ("Ed25519 verify, 2 KiB", _each(lambda: public.verify(signature, data), seconds)),
        ("ML-DSA-44 sign, 2 KiB", _each(lambda: lattice.sign(data), seconds)),
        ("ML-DSA-44 verify, 2 KiB", _each(lambda: lattice_public.verify(large, data), seconds)),
        ("checkpoint signed, both algorithms", _each(lambda: sign_checkpoint(checkpoint, [log]), seconds)),
        ("cosignature made, both algorithms", _each(lambda: cosign(checkpoint, members[0], 1_800_000_000), seconds)),
        ("cosignature verified, both algorithms", _each(lambda: read_cosignature(checkpoint.text, lines, members[0].public), seconds)),
        ("record folded: checked, indexed", _fold_records(folder / "fold")),
        ("observation judged", _observations(folder / "observations")),
        ("act judged, 1 mandate", _acts(folder / "act-1", 1)),
        ("act judged, 15 mandates", _acts(folder / "act-15", 15)),
        (f"Finality judged, {_WITNESSES} witnesses", _finality(folder / "finality", seconds)),
    ]
    return [Figure(name, value, "µs") for name, value in found]


def _world(folder: Path, forums: int) -> Federation:
    folder.mkdir()
    return Federation(folder, forums)


def _stored(world: Federation, tx: SqliteLog) -> None:
    """Store what the copy lacks, and neither fold nor judge it."""
    for author in world.authors:
        while (size := tx.feed(author.feed).size) < author.log.feed(author.feed).size:  # type: ignore[union-attr]
            batch = author.batch(size)
            feeds.extend(tx, batch, batch.checkpoint)


def _judging(world: Federation, tx: SqliteLog, count: int) -> float:
    """Microseconds for one of ``count`` entries that are folded first, so that only judging is measured."""
    _stored(world, tx)
    while fold.advance(tx, 512) >= 512:  # noqa: PLR2004 - a chunk
        pass
    begun = time.thread_time()
    judged = 0
    while done := order.advance(tx, 512):
        judged += done
    took = time.thread_time() - begun
    if judged < count:
        raise RuntimeError(f"{judged} entries were judged where {count} were expected")
    return took / judged * 1e6


def _fold_records(folder: Path) -> float:
    world = _world(folder, 1)
    tx, count = world.node(), 1000
    world.forums[0].publish(count)
    _stored(world, tx)
    begun = time.thread_time()
    while fold.advance(tx, 512) >= 512:  # noqa: PLR2004 - a chunk
        pass
    return (time.thread_time() - begun) / count * 1e6


def _observations(folder: Path) -> float:
    world = _world(folder, 4)
    tx, count = world.node(), 1000
    for number in range(count):
        forum = world.forums[number % 4]
        forum.publish(1)
        world.observe(forum)
    return _judging(world, tx, count)


def _acts(folder: Path, mandates: int) -> float:
    world = _world(folder, 15)
    kinds = [content_pb2.RECORD_KIND_AGENDA_ITEM]
    if mandates == 1:
        refs = [world.mandate(world.forums[0], kinds=kinds)]
    else:
        refs = [world.mandate(forum, "represent", veto_days=7) for forum in world.forums[:mandates]]
    world.observe(*world.forums)
    tx, count = world.node(), 500
    acts = []
    for _ in range(count):
        if mandates == 1:
            acts.append(world.act("publish-on-behalf", refs, world.forums[0]))
        else:
            acts.append(world.state_act("represent", refs, world.forums[:mandates]))
    took = _judging(world, tx, count)
    refused = [index for index in acts if tx.problem(SIMPUL, index) is not None]
    if refused:
        raise RuntimeError(f"{len(refused)} acts were refused: {tx.problem(SIMPUL, refused[0])}")
    return took


def _finality(folder: Path, seconds: float) -> float:
    world = _world(folder, _WITNESSES)
    world.tick(DAY)
    size = world.simpul.log.feed(SIMPUL).size
    world.finality(world.forums, size=size)
    note = world.simpul.log.entries(SIMPUL, size, 1, 1 << 20)[0].body
    tx = world.node()
    if tx.problem(SIMPUL, size) is not None:
        raise RuntimeError(f"the quorum was refused: {tx.problem(SIMPUL, size)}")
    finality = entry_pb2.Entry.FromString(note).finality.note
    governance = Governance(tx.affairs(SIMPUL), SIMPUL)
    root = Checkpoint.parse(finality.decode().partition("\n\n")[0] + "\n").root
    return _each(lambda: governance.finality(finality, lambda *_: root), seconds)
