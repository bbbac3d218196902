"""What Prometheus reads of real daemons."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kad_protocol.errors import Reason
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, sign_checkpoint
from kad_protocol.v1 import node_pb2, replication_pb2
from tests.federation.harness import PRACTICE, Federation, Member, command, until
from tests.federation.test_hostile import FEDERATION, as_member, hello, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.federation

ANY_PORT = {"KAD_METRICS_LISTEN": "127.0.0.1:0"}


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[Federation]:
    made = Federation(tmp_path)
    try:
        await made.found(**ANY_PORT)
        yield made
    finally:
        await made.close()


def ask(member: Member, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{member.home.running()['metrics']}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(member: Member) -> dict[tuple[str, str], float]:
    """Every sample by its name and the values of its labels."""
    status, text = ask(member)
    assert status == 200
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, " ".join(sample.labels.values())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


async def test_what_an_operator_needs_is_there_and_true(federation: Federation) -> None:
    nodes = [await federation.join(forum, start=False) for forum in ("kartamantul", "javapromo", "barlingmascakeb")]
    for node in nodes:
        await node.start(**ANY_PORT)
    nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE))

    async def settled() -> bool:
        async with nodes[1].client() as kad:
            status = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)
        seen = status.witnessing
        return len(status.forums) == 4 and seen.confirmed == 3 and seen.size == seen.signed_size

    await until(settled, "all confirm")
    async with nodes[1].client() as kad:
        status = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)
    found = scrape(nodes[1])
    sizes = {forum.feed.split("/")[2]: forum.size for forum in status.forums}
    assert found["kad_feed_entries", "own"] == found["kad_feed_signed_entries", "own"] == sizes["javapromo"]
    assert found["kad_feed_entries", "simpul"] == found["kad_witness_confirmed_entries", ""] == sizes["simpul-uji"]
    assert found["kad_feed_entries", "others"] == sizes["kartamantul"] + sizes["barlingmascakeb"]
    assert found["kad_feed_observed_entries", "own"] == sizes["javapromo"]
    assert (found["kad_feeds", "own"], found["kad_feeds", "simpul"], found["kad_feeds", "others"]) == (1, 1, 2)
    assert (found["kad_witness_members", ""], found["kad_witness_quorum", ""]) == (3, 3)
    assert 0 <= found["kad_witness_confirmed_age_seconds", ""] < 60
    assert (found["kad_peers", "connected"], found["kad_peers", "waiting"]) == (1, 0)
    assert found["kad_append_state", "open"] == 1
    assert found["kad_append_state", "fenced"] == found["kad_outbox_entries", ""] == 0
    assert found["kad_exchange_received_entries_total", ""] >= sizes["simpul-uji"]
    assert found["kad_store_bytes", ""] >= found["kad_store_used_bytes", ""] > 10_000
    assert found["kad_certificate_expiry_time_seconds", ""] == status.certificate_expire_time.seconds
    assert found["kad_start_time_seconds", ""] == pytest.approx(status.start_time.seconds, abs=5)
    assert {name: value for (name, label), value in found.items() if name == "kad_alarm" and value} == {}
    assert ("kad_alarm", "OBSERVATION_LAGGING") in found
    assert found["kad_acts", "final"] == found["kad_open_decisions", ""] == 0
    assert found["process_cpu_seconds_total", ""] > 0

    # A stream that ends takes nothing of the sums with it.
    sent = scrape(federation.simpul)["kad_exchange_sent_entries_total", ""]
    await nodes[1].stop()
    await until(lambda: scrape(federation.simpul)["kad_peers", "connected"] == 2, "it is gone")
    assert scrape(federation.simpul)["kad_exchange_sent_entries_total", ""] >= sent > 0


async def test_only_get_of_one_path_is_answered_and_a_caller_that_says_nothing_holds_up_nobody(federation: Federation) -> None:
    simpul = federation.simpul
    assert ask(simpul, "/")[0] == 404
    assert ask(simpul, method="POST")[0] == 405
    host, _, port = str(simpul.home.running()["metrics"]).rpartition(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
    assert "kad_build_info" in ask(simpul)[1]
    # With all turns taken the next one is hung up on, until they have run out of time.
    silent.append(await asyncio.open_connection(host, int(port)))
    reader, _ = await asyncio.open_connection(host, int(port))
    assert await asyncio.wait_for(reader.read(), 10) == b""

    def answered() -> bool:
        with contextlib.suppress(OSError):
            return ask(simpul)[0] == 200
        return False

    await until(answered, "it answers again")
    for _, writer in silent:
        writer.close()
    # It stops as fast as ever, whoever hangs on.
    await asyncio.open_connection(host, int(port))
    assert await asyncio.wait_for(simpul.stop(), 10) == 0
    done = command("kad_simpul", simpul.home.path, "run", KAD_METRICS_LISTEN="0.0.0.0:9450")
    assert done.returncode == 1
    assert "KAD_METRICS_LISTEN" in done.stderr


async def test_a_fork_is_an_alarm(federation: Federation) -> None:
    thief = await federation.join("javapromo")
    await until(lambda: scrape(federation.simpul)["kad_feed_observed_entries", "others"] >= 2, "its feed is there")
    before = scrape(federation.simpul)
    assert before["kad_alarm", "FORKED"] == 0
    assert ("kad_refusals_total", "FORKED") not in before
    await thief.stop()

    # The member signs another history of its own feed, and shows it.
    own = FeedId(FEDERATION, "javapromo")
    signer = thief.home.create_keys({}).log_signer(own.origin)
    head = replication_pb2.Head(feed=own.origin, size=1, checkpoint=sign_checkpoint(Checkpoint(own.origin, 1, bytes(32)), [signer]))
    async with as_member(federation, thief) as channel:
        shown = asyncio.create_task(say(channel, hello("javapromo"), replication_pb2.Frame(heads=[head])))
        await until(lambda: scrape(federation.simpul)["kad_alarm", "FORKED"] == 1, "the alarm")
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
    after = scrape(federation.simpul)
    assert after["kad_refusals_total", Reason.FORKED.value] == 1
    assert after["kad_alarm", "OBSERVATION_CONTRADICTED"] == 0
