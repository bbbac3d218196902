"""What the metrics are read from, and what they cost."""

from __future__ import annotations

import asyncio
import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kad_node.metrics import MetricsServer, NodeCollector
from kad_protocol.v1 import content_pb2, governance_pb2
from tests.unit.federation import Federation

if TYPE_CHECKING:
    from pathlib import Path

State = governance_pb2.PerformedAct


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def collector(world: Federation, loop: asyncio.AbstractEventLoop | None = None) -> NodeCollector:
    node = SimpleNamespace(own=world.forums[0].feed, store=SimpleNamespace(read=None))
    return NodeCollector(node, None, "1", loop)  # type: ignore[arg-type]


def test_reading_costs_the_same_however_much_is_held(world: Federation) -> None:
    for forum in world.forums:
        forum.publish(5)
        world.observe(forum)
    tx = world.node()
    found = collector(world)._look(tx)
    assert found.feeds["own"].entries == found.feeds["own"].observed == 6
    assert found.feeds["others"].entries == found.feeds["others"].folded == 18

    # Whatever grows with each record is not looked at; of entries the newest ones, by their place.
    tables = {"tile", "record", "version", "term", "event"}
    denied = set()

    def authorise(action: int, table: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ and table in tables:
            denied.add(table)
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    tx._connection.set_authorizer(authorise)
    assert collector(world)._look(tx).feeds == found.feeds
    with pytest.raises(sqlite3.DatabaseError):
        tx.tiles(world.forums[0].feed).get(0, 0)
    assert denied == {"tile"}


def test_acts_are_counted_by_what_became_of_them_and_only_when_something_was_judged(world: Federation) -> None:
    (one, other), tx = world.forums[:2], world.node()
    seen = collector(world)
    assert not seen._look(tx).acts
    ref = world.mandate(one, kinds=[content_pb2.RECORD_KIND_AGENDA_ITEM])
    world.observe(one)
    world.act("publish-on-behalf", [ref], one)
    world.act("publish-on-behalf", [ref], other)
    while world.bring(tx):
        pass
    found = seen._look(tx)
    assert found.acts == {State.STATE_UNWITNESSED: 1, State.STATE_REFUSED: 1}
    assert [(reason, waiting) for reason, waiting, _ in found.problems] == [("NO_MANDATE", False)]
    assert seen._look(tx).acts is found.acts
    world.finality(world.forums)
    while world.bring(tx):
        pass
    assert seen._look(tx).acts == {State.STATE_FINAL: 1, State.STATE_REFUSED: 1}


def test_an_alarm_that_is_over_is_shown_as_over(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kad_node.vigil.micros_now", lambda: world.now)
    seen, tx = collector(world), world.node()
    reading = seen._look(tx)

    def alarms() -> dict[str, float]:
        (family,) = (family for family in seen._of_authority(reading) if family.name == "kad_alarm")
        return {sample.labels["reason"]: sample.value for sample in family.samples}

    assert set(alarms().values()) == {0.0}
    reading.alarms = {"SOMETHING_NEW"}
    assert {reason for reason, value in alarms().items() if value} == {"SOMETHING_NEW"}
    reading.alarms = set()
    assert alarms()["SOMETHING_NEW"] == 0


async def test_a_reading_that_fails_or_takes_too_long_is_said_to_have_failed(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kad_node.metrics._READ_SECONDS", 0.2)
    seen = collector(world, asyncio.get_running_loop())
    begun = asyncio.Event()

    async def never(_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    seen._node.store.read = never  # type: ignore[method-assign,assignment]
    server = MetricsServer("127.0.0.1:0", seen)
    host, _, port = server.address.rpartition(":")

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    try:
        assert (await ask()).startswith(b"HTTP/1.0 503")
        assert begun.is_set()
    finally:
        await server.close()


async def test_the_address_that_is_served_is_the_one_that_was_asked_for() -> None:
    server = MetricsServer("[::1]:0")
    try:
        reader, writer = await asyncio.open_connection("::1", int(server.address.rpartition(":")[2]))
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        body = (await reader.read()).decode().partition("\r\n\r\n")[2]
        writer.close()
        assert any(family.name == "process_cpu_seconds" for family in text_string_to_metric_families(body))
    finally:
        await server.close()
