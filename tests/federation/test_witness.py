"""Members confirm what the simpul says of itself, over real channels."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from kad_protocol import note
from kad_protocol.errors import Reason
from kad_protocol.names import FeedId
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import node_pb2, transparency_pb2
from tests.federation.harness import PRACTICE, Federation, Member, command, environment, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.federation


async def witnessing(member: Member) -> node_pb2.Witnessing:
    async with member.client() as kad:
        return (await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)).witnessing


async def all_confirmed(member: Member, members: int) -> node_pb2.Witnessing | None:
    """When every entry of the simpul is confirmed by so many."""
    found = await witnessing(member)
    return found if found.confirmed == found.members == members and found.size == found.signed_size else None


async def test_members_confirm_the_simpul_and_everybody_can_see_it(federation: Federation) -> None:
    async with federation.simpul.client() as kad:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kad.transparency.GetWitnessedCheckpoint(transparency_pb2.GetWitnessedCheckpointRequest(), timeout=20)
        assert from_rpc_error(caught.value).reason is Reason.NOT_WITNESSED
    nodes = [await federation.join(forum) for forum in ("kartamantul", "javapromo", "barlingmascakeb")]
    nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE))
    for member in (*nodes, federation.simpul):
        await until(lambda m=member: all_confirmed(m, 3), f"{member.name} sees that all confirm")
    assert "confirmed by 3 of 3 forums" in nodes[1].run("status")
    assert "confirmed by 3 of 3 forums" in federation.simpul.run("status")

    # What anybody can check with the policy that comes with it, here by hand: quorum of three of the three named.
    async with nodes[2].client() as kad:
        shown = await kad.transparency.GetWitnessedCheckpoint(transparency_pb2.GetWitnessedCheckpointRequest(), timeout=20)
    words = [line.split() for line in shown.policy.splitlines()]
    assert [line[0] for line in words] == ["log", "witness", "witness", "witness", "group", "quorum"]
    assert words[4] == ["group", "committee", "3", "w1", "w2", "w3"]
    signed = {(line.name, line.key_id) for line in note.Note.parse(shown.note).signatures}
    keys = [note.VerifierKey.parse(line[-1]) for line in words[:4]]
    assert {(key.name, key.key_id) for key in keys} <= signed
    assert keys[0].name == FeedId("simpul-uji.kad.internal", "simpul-uji").origin
    path = federation.folder / "note"
    path.write_bytes(shown.note)
    verified = verify(path, *(key.vkey for key in keys))
    assert verified["size"] == (await witnessing(nodes[2])).size


def verify(path: Path, *keys: str) -> Any:
    """``kad verify``, as its own process."""
    options = [part for key in keys for part in ("--key", key)]
    code = "from kad_simpul.cli.kad import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "verify", str(path), "--json", *options], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


async def test_a_member_that_is_away_holds_nothing_up_and_confirms_when_it_comes_back(federation: Federation) -> None:
    nodes = [await federation.join(forum) for forum in ("forum-a", "forum-b", "forum-c", "forum-d")]
    await until(lambda: all_confirmed(nodes[0], 4), "all four confirm")
    await nodes[3].stop()
    nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE))

    async def three() -> bool:
        found = await witnessing(nodes[1])
        return found.confirmed == 3 and found.size == found.signed_size

    # Three of four are enough.
    await until(three, "three confirm")
    await nodes[2].stop()
    before = (await witnessing(nodes[1])).size
    nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE))

    async def behind() -> bool:
        found = await witnessing(nodes[1])
        return found.signed_size > found.size

    await until(behind, "two of four are too few")
    assert (await witnessing(nodes[1])).size == before
    await nodes[2].start()
    await nodes[3].start()
    await until(lambda: all_confirmed(nodes[1], 4), "all four confirm again")


def kad(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from kad_simpul.cli.kad import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment(), check=False)


async def test_a_record_can_be_proved_to_a_stranger(federation: Federation) -> None:
    nodes = [await federation.join(forum) for forum in ("kartamantul", "javapromo", "barlingmascakeb")]
    record = nodes[0].json("publish", "-", stdin=json.dumps(PRACTICE))["record"]["name"]
    await until(lambda: all_confirmed(nodes[1], 3), "all confirm")
    # Made by another forum's node, checked by nobody's.
    path, policy = federation.folder / "praktik.tlog-proof", federation.folder / "jejaring.policy"
    path.write_text(nodes[1].run("proof", record))
    policy.write_text(nodes[2].run("policy"))
    done = kad("verify", str(path), "--policy", str(policy), "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["name"] == record
    assert shown["title"] == PRACTICE["title"]
    assert (shown["version"], shown["newest_version"], shown["retracted"], shown["policy_from_file"]) == (1, 1, False, False)
    assert len(shown["witnesses"]) == 3
    people = kad("--lang", "en", "verify", str(path))
    assert "confirmed by 3 forums: barlingmascakeb, javapromo, kartamantul" in people.stdout
    assert "give --policy" in people.stdout

    nodes[0].run("retract", record, "--reason", "Diganti")

    async def withdrawn() -> bool:
        again = nodes[1].run("proof", record)
        path.write_text(again)
        return bool(json.loads(kad("verify", str(path), "--policy", str(policy), "--json").stdout)["retracted"])

    await until(withdrawn, "the proof shows that the record was withdrawn")
    # A policy that asks for somebody else's signature is not satisfied.
    lines = policy.read_text().splitlines()
    other = lines[0].split()[1]
    policy.write_text("\n".join([f"log {other}", f"witness x {other}", "quorum x"]) + "\n")
    assert kad("verify", str(path), "--policy", str(policy)).returncode == 0
    policy.write_text(lines[1].replace("witness w1", "log") + "\nquorum none\n")
    refused = kad("verify", str(path), "--policy", str(policy))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    done = command("kad_node", nodes[1].home.path, "proof", "forums/kartamantul/records/01JBQ4ZC8M5T6V7W8X9Y0Z1A2B")
    assert done.returncode == 1
