"""Real daemons over real channels: what a secretariat relies on."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from kad_protocol import document, merkle
from kad_protocol.errors import Reason
from kad_protocol.note import LogKeys, VerifierKey, open_checkpoint
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import directory_pb2, node_pb2, records_pb2, replication_pb2, transparency_pb2
from tests.federation.harness import PRACTICE, Federation, Member, command, run, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.federation

TIMEOUT = 20


def practice(title: str) -> str:
    return json.dumps(PRACTICE | {"title": title})


def request(title: str, request_id: str = "") -> records_pb2.CreateRecordRequest:
    read = document.from_document(PRACTICE | {"title": title})
    return records_pb2.CreateRecordRequest(content=read.content, request_id=request_id)


async def shows(member: Member, name: str) -> bool:
    return name in await member.names()


async def test_a_record_travels_is_revised_and_retracted(federation: Federation) -> None:
    kartamantul, javapromo = await federation.join("kartamantul"), await federation.join("javapromo")
    name = kartamantul.run("publish", "-", stdin=practice("Pengelolaan sampah bersama")).strip()
    await until(lambda: shows(javapromo, name), "the record arrives")
    # The receipt is the simpul's observation.
    shown = await until(lambda: javapromo.json("show", name).get("observation"), "the simpul's observation arrives")
    assert int(shown) > 0
    assert name in javapromo.run("search", "mengelola persampahan")
    kartamantul.run("revise", name, "-", "--version", "1", stdin=practice("Dua"))
    stale = command("kad_node", kartamantul.home.path, "revise", name, "-", "--version", "1", stdin=practice("Tiga"))
    assert stale.returncode == 1
    assert "version 2" in stale.stderr
    assert "Traceback" not in stale.stderr
    await until(lambda: javapromo.json("show", name)["version"] == 2, "the revision arrives")
    foreign = command("kad_node", javapromo.home.path, "retract", name, "--reason", "bukan milik kami")
    assert (foreign.returncode, "Traceback" in foreign.stderr) == (1, False)
    kartamantul.run("retract", name, "--reason", "Diganti")
    await until(lambda: javapromo.json("show", name)["state"] == "RECORD_STATE_RETRACTED", "the retraction arrives")
    retracted = javapromo.json("show", name)
    assert retracted["retraction_reason"] == "Diganti"
    assert "content" not in retracted
    assert await javapromo.names() == set()


async def test_a_node_works_offline_and_catches_up(federation: Federation) -> None:
    kartamantul, javapromo = await federation.join("kartamantul"), await federation.join("javapromo")
    first = kartamantul.run("publish", "-", stdin=practice("Sebelum")).strip()
    await until(lambda: shows(javapromo, first), "the first record arrives")
    await javapromo.stop()
    # Without a daemon the home itself answers; it was sent to others before, so it may not sign alone.
    queued = javapromo.run("publish", "-", stdin=practice("Ditulis luring")).strip()
    assert javapromo.json("show", queued)["state"] == "RECORD_STATE_QUEUED"
    second = kartamantul.run("publish", "-", stdin=practice("Sementara itu")).strip()
    await javapromo.start()
    await until(lambda: shows(javapromo, second), "what was missed arrives")
    await until(lambda: shows(kartamantul, queued), "what was queued is signed and sent")
    assert await kartamantul.names() == await javapromo.names() == {first, second, queued}


async def test_the_simpul_may_be_away(federation: Federation) -> None:
    kartamantul, javapromo = await federation.join("kartamantul"), await federation.join("javapromo")
    await federation.simpul.stop(signal.SIGKILL)
    name = kartamantul.run("publish", "-", stdin=practice("Tanpa simpul")).strip()
    assert kartamantul.json("show", name)["state"] == "RECORD_STATE_PUBLISHED"
    await federation.simpul.start()
    await until(lambda: shows(javapromo, name), "the record arrives when the simpul is back")


async def test_killed_at_any_moment_nothing_acknowledged_is_lost_or_doubled(federation: Federation) -> None:
    seed = random.randrange(1 << 30)
    (federation.folder / f"seed-{seed}").touch()
    chance = random.Random(seed)
    kartamantul, javapromo = await federation.join("kartamantul"), await federation.join("javapromo")
    acknowledged: dict[str, str] = {}

    async def publish_until_killed(round_number: int) -> None:
        async with kartamantul.client() as kad:
            for number in range(200):
                key = f"r{round_number}-{number}"
                try:
                    response = await kad.records.CreateRecord(request(key, key), timeout=TIMEOUT)
                except grpc.aio.AioRpcError:
                    return
                acknowledged[key] = response.record.name

    for round_number in range(3):
        publishing = asyncio.create_task(publish_until_killed(round_number))
        wanted = len(acknowledged) + chance.randrange(3, 25)
        await until(lambda w=wanted: len(acknowledged) >= w, "some records are acknowledged")
        victims = chance.sample([kartamantul, javapromo, federation.simpul], chance.randrange(1, 4))
        for victim in {*victims, kartamantul}:
            await victim.stop(signal.SIGKILL)
        await publishing
        for victim in [federation.simpul, kartamantul, javapromo]:
            if victim.process is None:
                await victim.start()

    async def everywhere() -> bool:
        names = [await member.names() for member in (kartamantul, federation.simpul, javapromo)]
        return set(acknowledged.values()) <= names[0] == names[1] == names[2]

    await until(everywhere, "everything acknowledged is everywhere")
    # Retrying what was acknowledged publishes nothing new.
    async with kartamantul.client() as kad:
        await until(lambda: open_fence(kartamantul), "the node may sign again")
        for key, name in list(acknowledged.items())[:5]:
            assert (await kad.records.CreateRecord(request(key, key), timeout=TIMEOUT)).record.name == name
    titles = [r["content"]["title"] for r in javapromo.json("list", "--limit", "1000")]
    assert len(titles) == len(set(titles))
    assert kartamantul.run("doctor", "--deep")


async def open_fence(member: Member) -> bool:
    async with member.client() as kad:
        status = await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=TIMEOUT)
        return status.append_state == node_pb2.APPEND_STATE_OPEN


async def test_a_home_restored_from_an_old_backup_takes_its_entries_back_before_it_signs(federation: Federation, tmp_path: Path) -> None:
    kartamantul, javapromo = await federation.join("kartamantul"), await federation.join("javapromo")
    before = kartamantul.run("publish", "-", stdin=practice("Ada di cadangan")).strip()
    await until(lambda: shows(javapromo, before), "the first record arrives")
    await kartamantul.stop()
    shutil.copytree(kartamantul.home.path, tmp_path / "backup")
    await kartamantul.start()
    after = kartamantul.run("publish", "-", stdin=practice("Setelah cadangan")).strip()
    await until(lambda: shows(javapromo, after), "the second record arrives")
    await kartamantul.stop()
    shutil.rmtree(kartamantul.home.path)
    shutil.copytree(tmp_path / "backup", kartamantul.home.path)
    third = kartamantul.run("publish", "-", stdin=practice("Setelah pemulihan")).strip()
    await kartamantul.start()
    await until(lambda: shows(javapromo, third), "the third record arrives")
    assert await kartamantul.names() == await javapromo.names() == {before, after, third}
    async with javapromo.client() as kad:
        forum = (await kad.directory.GetForum(directory_pb2.GetForumRequest(name="forums/kartamantul"), timeout=TIMEOUT)).forum
        assert forum.quarantine_reason == ""


async def test_two_nodes_without_a_simpul_exchange_directly(tmp_path: Path) -> None:
    one, two = Member("kad_node", "satu", tmp_path / "one"), Member("kad_node", "dua", tmp_path / "two")
    try:
        one.run("init", "--forum", "satu", "--name", "Forum Satu", "--listen", "127.0.0.1:0")
        two.run("init", "--forum", "dua", "--name", "Forum Dua")
        await one.start()
        await two.start()
        members = json.loads((one.home.path / "run.json").read_text())["members"]
        (tmp_path / "satu.card").write_text(one.run("peer", "card", "--address", members))
        (tmp_path / "dua.card").write_text(two.run("peer", "card"))
        one.run("peer", "add", str(tmp_path / "dua.card"))
        two.run("peer", "add", str(tmp_path / "satu.card"))
        there, back = (
            one.run("publish", "-", stdin=practice("Dari satu")).strip(),
            two.run("publish", "-", stdin=practice("Dari dua")).strip(),
        )
        await until(lambda: shows(two, there), "one's record arrives")
        await until(lambda: shows(one, back), "two's record arrives")
        # And they find each other again.
        await two.stop()
        later = one.run("publish", "-", stdin=practice("Nanti")).strip()
        await two.start()
        await until(lambda: shows(two, later), "what was missed arrives")
    finally:
        for member in (one, two):
            if member.process is not None:
                member.process.kill()


async def test_feeds_travel_as_a_file_and_are_checked(federation: Federation, tmp_path: Path) -> None:
    kartamantul = await federation.join("kartamantul")
    javapromo = await federation.join("javapromo")
    warm = javapromo.run("publish", "-", stdin=practice("Hangat")).strip()
    await until(lambda: shows(kartamantul, warm), "both know each other")
    await javapromo.stop()
    name = kartamantul.run("publish", "-", stdin=practice("Lewat flashdisk")).strip()
    await until(lambda: shows(federation.simpul, name), "the simpul has it")
    bundle = tmp_path / "jejaring.kad"
    kartamantul.run("export", str(bundle))
    checked = json.loads(run_kad("verify", str(bundle), "--json"))
    assert {feed["feed"].split("/")[2] for feed in checked["feeds"]} == {"kartamantul", "javapromo", "simpul-uji"}
    javapromo.run("import", str(bundle))
    assert javapromo.json("show", name)["content"]["title"] == "Lewat flashdisk"
    spoiled = bytearray(bundle.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1
    bundle.write_bytes(spoiled)
    refused = kad("verify", str(bundle))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr


def kad(*arguments: str, seconds: float = 60):
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    from tests.federation.harness import environment  # noqa: PLC0415

    code = "from kad_simpul.cli.kad import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment(), check=False, timeout=seconds
    )


def run_kad(*arguments: str) -> str:
    done = kad(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_anybody_can_check_a_feed_with_the_open_api(federation: Federation) -> None:
    kartamantul = await federation.join("kartamantul")
    for number in range(5):
        kartamantul.run("publish", "-", stdin=practice(f"Ke-{number}"))
    async with kartamantul.client() as kad:
        answer = await kad.transparency.GetCheckpoint(transparency_pb2.GetCheckpointRequest(feed="forums/kartamantul"), timeout=TIMEOUT)
        ed25519, mldsa44 = (VerifierKey.parse(text) for text in answer.verifier_keys)
        checkpoint = open_checkpoint(answer.checkpoint, [LogKeys(ed25519.name, ed25519.public_key, mldsa44.public_key)])
        frontier = merkle.Frontier()
        while frontier.size < checkpoint.size:
            page = await kad.replication.ReadFeed(
                replication_pb2.ReadFeedRequest(feed=checkpoint.origin, after=frontier.size, page_size=2), timeout=TIMEOUT
            )
            frontier.append(merkle.leaf_hash(entry) for entry in page.batch.entries)
        assert frontier.root() == checkpoint.root
        proof = await kad.transparency.GetInclusionProof(
            transparency_pb2.GetInclusionProofRequest(feed=checkpoint.origin, index=3), timeout=TIMEOUT
        )
        merkle.verify_inclusion(merkle.leaf_hash(proof.entry), 3, proof.size, list(proof.hashes), checkpoint.root)
        between = await kad.transparency.GetConsistencyProof(
            transparency_pb2.GetConsistencyProofRequest(feed=checkpoint.origin, old_size=2), timeout=TIMEOUT
        )
        merkle.verify_consistency(2, between.old_root, between.new_size, checkpoint.root, list(between.hashes))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kad.replication.ReadFeed(replication_pb2.ReadFeedRequest(feed=checkpoint.origin, after=10_000), timeout=TIMEOUT)
        assert from_rpc_error(caught.value).reason == Reason.AHEAD_OF_WRITER


async def test_pages_resume_tokens_and_retries(federation: Federation) -> None:
    kartamantul = await federation.join("kartamantul")
    async with kartamantul.client() as kad:
        batch = records_pb2.BatchCreateRecordsRequest(requests=[request(f"Nomor {n:02d}") for n in range(25)])
        made = (await kad.records.BatchCreateRecords(batch, timeout=TIMEOUT)).records
        assert len({record.name for record in made}) == 25
        first = await kad.records.ListRecords(records_pb2.ListRecordsRequest(page_size=10, order_by="create_time"), timeout=TIMEOUT)
        await kad.records.CreateRecord(request("Menyela"), timeout=TIMEOUT)
        seen = [record.name for record in first.records]
        token = first.next_page_token
        while token:
            page = await kad.records.ListRecords(
                records_pb2.ListRecordsRequest(page_size=10, order_by="create_time", page_token=token), timeout=TIMEOUT
            )
            seen.extend(record.name for record in page.records)
            token = page.next_page_token
        assert len(seen) == len(set(seen)) == 26
        for bad in (
            records_pb2.ListRecordsRequest(page_token=first.next_page_token, order_by="name"),
            records_pb2.ListRecordsRequest(page_token="ngawur"),
            records_pb2.ListRecordsRequest(filter="kind ="),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await kad.records.ListRecords(bad, timeout=TIMEOUT)
            assert from_rpc_error(caught.value).reason in (Reason.INVALID_PAGE_TOKEN, Reason.INVALID_FILTER)
        again = await kad.records.CreateRecord(request("Sekali", "id-1"), timeout=TIMEOUT)
        retry = await kad.records.CreateRecord(request("Sekali", "id-1"), timeout=TIMEOUT)
        assert retry.record.name == again.record.name
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kad.records.CreateRecord(request("Lain", "id-1"), timeout=TIMEOUT)
        assert from_rpc_error(caught.value).reason == Reason.REQUEST_ID_REUSED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kad.records.CreateRecord(records_pb2.CreateRecordRequest(), timeout=TIMEOUT)
        assert from_rpc_error(caught.value).reason == Reason.INVALID_FIELD

        arrived: list[str] = []
        token = ""
        async for response in kad.follow(from_start=True):
            arrived.extend(event.record.name for event in response.events)
            token = response.resume_token
            if len(arrived) >= 10:
                break
        async for response in kad.follow(resume_token=token):
            arrived.extend(event.record.name for event in response.events)
            if len(arrived) >= 27:
                break
        assert len(arrived) == len(set(arrived)) == 27


async def test_the_local_api_asks_for_a_token_with_a_role(federation: Federation) -> None:
    kartamantul = await federation.join("kartamantul")
    reader = kartamantul.run("token", "create", "laporan", "--role", "reader").strip()
    from kad_protocol import connect  # noqa: PLC0415

    address = str(kartamantul.home.running()["api"])
    for token, reason in ((reader, Reason.ROLE_INSUFFICIENT), ("salah", Reason.TOKEN_INVALID)):
        async with connect(address, token=token) as kad:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await kad.records.CreateRecord(request("Tidak boleh"), timeout=TIMEOUT)
            assert from_rpc_error(caught.value).reason == reason
    async with connect(address, token=reader) as kad:
        assert (await kad.records.ListRecords(records_pb2.ListRecordsRequest(), timeout=TIMEOUT)).records == []
    assert reader not in kartamantul.log()


def test_the_demonstration_ends_well(tmp_path: Path) -> None:
    done = kad("demo", "--once", "--json", "--home", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    assert {node["forum"] for node in result["nodes"]} == {"kartamantul", "barlingmascakeb", "javapromo", "komwil6"}
    assert all(node["records"] == node["verified"] and node["caught_up"] for node in result["nodes"])
    listed = json.loads(run("kad_node", tmp_path / "demo" / "javapromo", "list", "--json"))
    assert len(listed) == result["nodes"][0]["records"]
    assert "Musrenbang" in run("kad_node", tmp_path / "demo" / "javapromo", "agenda")


async def test_signals_stop_and_reload(federation: Federation) -> None:
    kartamantul = await federation.join("kartamantul")
    good = kartamantul.home.config.read_text()
    process = kartamantul.process
    assert process is not None
    kartamantul.home.config.write_text("nonsense = 1\n" + good)
    process.send_signal(signal.SIGHUP)
    await until(lambda: "the old one stays" in kartamantul.log(), "a wrong file is refused")
    kartamantul.home.config.write_text(
        good.replace('# log_level = "info"', 'log_level = "debug"').replace("# reflection = true", "reflection = false")
    )
    process.send_signal(signal.SIGHUP)
    await until(lambda: '"event": "reloaded"' in kartamantul.log(), "a right one is taken")
    line = json.loads(next(line for line in kartamantul.log().splitlines() if '"reloaded"' in line))
    assert (line["changed"], line["need_restart"]) == (["log_level"], ["reflection"])
    async with kartamantul.client() as kad:
        watching = kad.records.WatchRecords(records_pb2.WatchRecordsRequest())
        await watching.read()
        assert await kartamantul.stop() == 0
    assert not (kartamantul.home.path / "run.json").exists()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_demonstration_of_subsidiarity_ends_well(tmp_path: Path) -> None:
    done = kad("demo", "--mode", "subsidiarity", "--once", "--json", "--home", str(tmp_path / "demo"), seconds=240)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    assert all(result["steps"].values())
    assert set(result["steps"]) >= {
        "refused-in-networking",
        "charter-decided",
        "mode-switched",
        "published-on-behalf",
        "act-final",
        "reviewed",
        "represented",
        "refused-after-revocation",
        "vetoed",
        "proved",
        "judged-alike",
    }
    states = {act["function"]: act["state"] for act in result["acts"]}
    assert states == {"publish-on-behalf": "STATE_VETOED", "curate": "STATE_FINAL", "represent": "STATE_FINAL"}
    # The homes stay, and say the same to whoever asks later.
    judged = json.loads(run("kad_node", tmp_path / "demo" / "komwil6", "acts", "--json"))
    assert {act["name"]: act["state"] for act in judged} == {act["name"]: act["state"] for act in result["acts"]}
    assert (
        kad("verify", str(tmp_path / "demo" / "praktik.tlog-proof"), "--policy", str(tmp_path / "demo" / "jejaring.policy")).returncode == 0
    )
    # Nothing runs any more.
    assert not list((tmp_path / "demo").glob("*/run.json"))
