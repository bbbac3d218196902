"""Keys that change, are stolen, or are lost: between real processes."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from typing import Any

import grpc.aio
import pytest

from kad_protocol.errors import Reason
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import node_pb2, records_pb2
from tests.federation.harness import PRACTICE, Federation, Member, command, environment, until
from tests.federation.test_witness import all_confirmed, kad

pytestmark = [pytest.mark.federation, pytest.mark.long]

FORUMS = ("forum-a", "forum-b", "forum-c")
PEER = ("forum-b", "forum-c")


def code_in(done: subprocess.CompletedProcess[str]) -> str:
    """The recovery code that a command showed."""
    assert done.returncode == 0, done.stderr
    found = re.search(r"Recovery code\s+([0-9A-Z-]{60,})", done.stderr)
    assert found is not None, done.stderr
    return found.group(1)


async def join(federation: Federation, forum: str, *more: str, start: bool = True, **environ: str) -> tuple[Member, str]:
    """Join, and write the recovery code down."""
    member = federation.nodes[forum] = Member("kad_node", forum, federation.folder / forum)
    invitation = federation.invite(forum)
    done = command("kad_node", member.home.path, "join", invitation, "--forum", forum, "--name", f"Sekber {forum}", *more, **environ)
    code = code_in(done)
    if start:
        await member.start(**environ)
    return member, code


def publish(member: Member, title: str = "Praktik", **more: str) -> str:
    return member.run("publish", "-", stdin=json.dumps(PRACTICE | {"title": title}), **more).strip()


def fails(member: Member, *arguments: str, stdin: str | None = None, **more: str) -> str:
    done = command(member.program, member.home.path, *arguments, stdin=stdin, **more)
    assert done.returncode == 1, (done.stdout, done.stderr)
    return done.stderr


async def holds(member: Member, *names: str) -> None:
    """Wait until a member shows these records as published."""

    async def all_of_them() -> bool:
        return set(names) <= await member.names()

    await until(all_of_them, f"{member.name} shows {names}")


async def record(member: Member, name: str) -> records_pb2.Record:
    async with member.client() as kad:
        return (await kad.records.GetRecord(records_pb2.GetRecordRequest(name=name))).record


async def status(member: Member) -> node_pb2.GetStatusResponse:
    async with member.client() as kad:
        return await kad.node.GetStatus(node_pb2.GetStatusRequest(), timeout=20)


async def problems(member: Member) -> dict[str, int]:
    """What was refused or has no effect, counted by reason."""
    return {problem.reason: problem.count for problem in (await status(member)).problems}


async def observed(member: Member, of: Member) -> bool:
    """Has the simpul observed everything of a member, as far as another knows?"""
    me = getattr(await status(of), "self")  # noqa: B009
    forums = {forum.feed: forum for forum in (await status(member)).forums}
    return me.feed in forums and forums[me.feed].observed_size == me.size


def keys(member: Member, **more: str) -> dict[str, Any]:
    return json.loads(member.run("keys", "show", "--json", **more))  # type: ignore[no-any-return]


async def open_to_sign(member: Member) -> None:
    async def is_open() -> bool:
        return (await status(member)).append_state == node_pb2.APPEND_STATE_OPEN

    await until(is_open, f"{member.name} may sign")


async def test_a_member_changes_its_keys_with_and_without_its_daemon(federation: Federation) -> None:
    nodes = [(await join(federation, forum))[0] for forum in FORUMS]
    first = nodes[0]
    before = publish(first, "Sebelum")
    old = keys(first)
    await open_to_sign(first)
    await until(lambda: all_confirmed(nodes[1], 3), "all confirm")
    problems_before = await problems(nodes[1])
    rotated = json.loads(first.run("keys", "rotate", "--json"))
    assert rotated["rotations"] == 1
    assert {rotated["log_keys"]["fingerprint"], rotated["witness_keys"]["fingerprint"]}.isdisjoint(
        {old["log_keys"]["fingerprint"], old["witness_keys"]["fingerprint"]}
    )
    after = publish(first, "Sesudah")
    for node in (*nodes, federation.simpul):
        await holds(node, before, after)
    # It confirms with its new keys, and everybody counts that.
    await until(lambda: all_confirmed(nodes[1], 3), "all confirm, one with new keys")
    assert await problems(nodes[1]) == problems_before

    # Changed while the simpul is away, and the certificate ends: it is renewed by the keys that the simpul knows.
    await federation.simpul.stop()
    assert json.loads(first.run("keys", "rotate", "--json"))["rotations"] == 2
    await first.stop()
    (first.home.path / "channel" / "identity.pem").unlink()
    await federation.simpul.start()
    await first.start()
    await holds(nodes[1], publish(first, "Dengan sertifikat baru"))
    rotated = keys(first)
    assert rotated["rotations"] == 2

    # Without a daemon it waits for the fence, and survives; the certificate is renewed by the keys of the day.
    await first.stop()
    queued = json.loads(first.run("keys", "rotate", "--json"))
    assert queued["rotation_queued"]
    assert queued["log_keys"] == rotated["log_keys"]
    assert json.loads(first.run("keys", "rotate", "--json"))["rotation_queued"], "a second one is the same one"
    (first.home.path / "channel" / "identity.pem").unlink()
    await first.start()
    await until(lambda: keys(first)["rotations"] == 3, "the change that waited is made")
    last = publish(first, "Akhir")
    await holds(nodes[2], before, after, last)
    await until(lambda: all_confirmed(federation.simpul, 3), "all confirm again")
    assert not (await status(nodes[2])).alarms


async def test_the_simpul_changes_its_keys_and_everybody_follows(federation: Federation) -> None:
    nodes = [(await join(federation, forum))[0] for forum in FORUMS]
    record_name = publish(nodes[0])
    await until(lambda: all_confirmed(nodes[1], 3), "all confirm")
    simpul = federation.simpul
    before = [await problems(member) for member in (*nodes, simpul)]
    # Everything at once: those who are away meet the change later.
    await nodes[2].stop()
    rotated = json.loads(simpul.run("keys", "rotate", "--json"))
    assert rotated["rotations"] == 1
    later = publish(nodes[0], "Sesudah")
    await holds(nodes[1], record_name, later)
    await nodes[2].start()
    await holds(nodes[2], record_name, later)
    for member in (*nodes, simpul):
        await until(lambda m=member: all_confirmed(m, 3), f"{member.name} sees that all confirm the new keys")
    assert [await problems(member) for member in (*nodes, simpul)] == before, "nothing that anybody said was refused"
    # What strangers see goes along.
    policy, proof = federation.folder / "jejaring.policy", federation.folder / "praktik.tlog-proof"
    policy.write_text(nodes[1].run("policy"))
    for name in (record_name, later):
        proof.write_text(nodes[2].run("proof", name))
        done = kad("verify", str(proof), "--policy", str(policy), "--json")
        assert done.returncode == 0, done.stderr
    # Newcomers follow the whole chain, and a restart finds the right secret.
    await simpul.stop()
    await simpul.start()
    fresh, _ = await join(federation, "forum-d")
    await holds(fresh, record_name, later)
    await until(lambda: all_confirmed(fresh, 4), "the newcomer confirms")


async def steal(member: Member, federation: Federation) -> Member:
    """A copy of the home, as it lies there, somewhere else."""
    thief = federation.nodes["thief"] = Member("kad_node", "thief", federation.folder / "thief")
    shutil.copytree(member.home.path, thief.home.path)
    (thief.home.path / "run.json").unlink(missing_ok=True)
    return thief


async def test_a_stolen_key_is_worth_nothing_after_recovery(federation: Federation) -> None:  # noqa: PLR0915 - one story
    victim, code = await join(federation, "forum-a")
    others = [(await join(federation, forum))[0] for forum in PEER]
    good, revised = publish(victim, "Baik"), publish(victim, "Akan diubah pencuri")
    mandate = victim.run("mandate", "grant", "--function", "represent", "--until", "90d").strip()
    number = others[0].run("propose", "Rapat tahunan", "--deadline", "1d").strip()
    for member in (*others, federation.simpul):
        await holds(member, good, revised)
    await until(lambda: any(d["name"].endswith(number) for d in victim.json("decisions")), "the proposal is known")
    await until(lambda: observed(others[0], victim), "all is observed")
    last_good = int(getattr(await status(victim), "self").size)  # noqa: B009
    await victim.stop()

    # The thief signs as if it were the forum: and before the recovery everybody believes it.
    thief = await steal(victim, federation)
    await thief.start()
    await open_to_sign(thief)
    spam = publish(thief, "Palsu")
    document = json.dumps(PRACTICE | {"title": "Dipalsukan"})
    thief.run("revise", revised, "-", stdin=document)
    thief.run("retract", good, "--reason", "Palsu")
    thief.run("vote", number, "no")
    forged = thief.run("mandate", "grant", "--function", "admit-members", "--until", "90d").strip()
    for member in (*others, federation.simpul):
        await holds(member, spam)
        await until(lambda m=member: gone(m, good), "the forgery is believed")
    await until(lambda: observed(others[0], thief), "the forgery is observed")

    # The owner starts again, and is told that somebody else has the key.
    await victim.start()

    async def alarmed() -> bool:
        return any(alarm.reason == "KEY_USED_ELSEWHERE" for alarm in (await status(victim)).alarms)

    await until(alarmed, "the alarm")
    assert "kad-node recover" in victim.run("status")
    assert keys(victim)["foreign"][0]["first"] == str(last_good)
    assert "Stop it first" in fails(victim, "recover", "--code-file", "-", "--yes", stdin=code)
    await victim.stop()

    # What would be void is shown before anything is done; nothing is done without a yes.
    done = command("kad_node", victim.home.path, "recover", "--code-file", "-", stdin=f"{code}\n")
    assert done.returncode == 1
    assert f"record {spam.rpartition('/')[2]}, version 1" in done.stdout
    assert "vote on" in done.stdout
    assert keys(victim)["epoch"] == 0

    done = command("kad_node", victim.home.path, "recover", "--code-file", "-", "--yes", stdin=code)
    fresh_code = code_in(done)
    assert fresh_code != code
    assert "forum-a/e1" in done.stdout

    # The thief, which was connected all the time, is out; and what it goes on signing reaches nobody.
    async def thrown_out() -> bool:
        found = [peer for peer in (await status(thief)).peers if peer.forum == "simpul-uji"]
        return bool(found) and found[0].last_error_reason in ("EPOCH_SUPERSEDED", "PEER_UNREACHABLE", "IDENTITY_INVALID")

    await until(thrown_out, "the thief is thrown out")
    await victim.start()
    await open_to_sign(victim)
    assert keys(victim)["epoch"] == 1
    for member in (*others, federation.simpul, victim):
        await until(lambda m=member: gone(m, spam), f"{member.name} holds the forgery for void")
        assert (await record(member, good)).state == records_pb2.RECORD_STATE_PUBLISHED
        again = await record(member, revised)
        assert (again.content.title, again.version) == ("Akan diubah pencuri", 1)
        assert [m["state"] for m in member.json("mandate", "list") if m["name"] == forged] == ["STATE_REVOKED"]
        assert [m["state"] for m in member.json("mandate", "list") if m["name"] == mandate] != ["STATE_REVOKED"]
        forums = {forum.feed.rpartition("/")[2]: forum for forum in (await status(member)).forums if forum.name == "forums/forum-a"}
        assert forums["e0"].quarantine_reason == "EPOCH_SUPERSEDED"
        assert forums["e1"].membership == 1
        assert forums["e1"].profile.name == "Sekber forum-a"

    # The old epoch's certificate and stream are worth nothing, whatever the thief tries.
    await thief.stop()
    await thief.start()

    async def refused() -> bool:
        found = [peer for peer in (await status(thief)).peers if peer.forum == "simpul-uji"]
        return bool(found) and found[0].last_error_reason == "EPOCH_SUPERSEDED"

    await until(refused, "the stolen certificate is refused")
    await thief.stop()
    (thief.home.path / "channel" / "identity.pem").unlink()
    await thief.start()
    assert not list((thief.home.path / "channel").glob("identity.pem")), "no certificate for the old epoch"
    await thief.stop()

    # The forum goes on: new records, its old ones with their numbers, its vote, its confirmation.
    fresh = publish(victim, "Baru")
    victim.run("revise", revised, "-", stdin=json.dumps(PRACTICE | {"title": "Versi dua"}))
    victim.run("retract", good, "--reason", "Diganti")
    victim.run("vote", number, "yes")
    for member in (*others, federation.simpul, victim):
        await holds(member, fresh, revised)
        await until(lambda m=member: version_of(m, revised, 2), "the second version")
        assert (await record(member, revised)).content.title == "Versi dua"
        await until(lambda m=member: gone(m, good), "the forum's own retraction")
    await until(lambda: votes(others[1], number) == [("forums/forum-a", "CHOICE_YES")], "its vote, and not the thief's")
    await until(lambda: all_confirmed(others[1], 3), "it confirms as a member again")

    # A newcomer who replays everything comes to the same.
    late, _ = await join(federation, "forum-d")
    await holds(late, fresh, revised)
    await until(lambda: gone(late, spam), "void for newcomers, too")


async def gone(member: Member, name: str) -> bool:
    try:
        return (await record(member, name)).state == records_pb2.RECORD_STATE_RETRACTED
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason is Reason.RECORD_NOT_FOUND


async def version_of(member: Member, name: str, version: int) -> bool:
    return (await record(member, name)).version == version


def votes(member: Member, number: str) -> list[tuple[str, str]]:
    (found,) = [d for d in member.json("decisions") if d["name"].endswith(number)]
    return [(vote["member"], vote["choice"]) for vote in found.get("votes", [])]


# Lost machines.


def dying(member: Member, step: str, *arguments: str, stdin: str, **more: str) -> None:
    """Run a command of `kad-node` that dies, as if by kill -9, when it comes to a step."""
    module, _, name = step.rpartition(".")
    owner, _, attribute = module.partition(":")
    code = f"""
import importlib, os, sys
module = importlib.import_module({owner!r})
target = getattr(module, {attribute!r}) if {attribute!r} else module
setattr(target, {name!r}, lambda *a, **k: os._exit(9))
from kad_node.messages import set_language
set_language([], os.environ)
from kad_node.cli.app import app
app(["--home", {str(member.home.path)!r}, *{list(arguments)!r}])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=stdin, capture_output=True, text=True, env=environment(**more), check=False, timeout=60
    )
    assert done.returncode == 9, (step, done.stdout, done.stderr)


#: Where a recovery may die: before the simpul hears of it, after it has answered, before and after each thing that follows.
STEPS = (
    "kad_node.recovery.send",
    "kad_node.enrolment._enrolled",
    "kad_node.home:Home.save_channel",
    "kad_node.cli.keys._write_config",
    "kad_node.recovery.forget",
)


async def test_a_lost_machine_is_replaced_whatever_interrupts_it(federation: Federation) -> None:
    lost, code = await join(federation, "forum-a")
    other, foreign_code = await join(federation, "forum-b")
    old = publish(lost, "Dari mesin lama")
    await holds(other, old)
    await until(lambda: observed(other, lost), "all is observed")
    size = getattr(await status(lost), "self").size  # noqa: B009
    await lost.stop(signal.SIGKILL)
    shutil.rmtree(lost.home.path)

    simpul = json.loads(federation.simpul.run("keys", "show", "--json"))
    where = ("--forum", "forum-a", "--simpul", simpul["enrolment_address"], "--fingerprint", simpul["authority_key_digest"])
    fresh = federation.nodes["forum-a"] = Member("kad_node", "forum-a", federation.folder / "baru")
    sealed = {"KAD_PASSPHRASE": "rahasia sekali"}
    begin = ("recover", *where, "--code-file", "-", "--yes")
    # Not with another code, nor with a typing error, nor at a simpul that is another one.
    assert "not the recovery code" in fails(fresh, *begin, stdin=foreign_code, **sealed)
    assert "typing error" in fails(fresh, *begin, stdin=code[:-1] + ("0" if code[-1] != "0" else "1"), **sealed)
    wrong = ("recover", *where[:-1], "0" * 64, "--code-file", "-", "--yes")
    assert "not the simpul" in fails(fresh, *wrong, stdin=code, **sealed)
    assert "observed" in fails(fresh, *begin, "--last-good", str(size + 1), stdin=code, **sealed)
    assert command("kad_node", fresh.home.path, *begin[:-1], "--json", stdin=code, **sealed).returncode == 2
    assert not list((fresh.home.path / "keys").iterdir())

    for step in STEPS:
        dying(fresh, step, *begin, stdin=code, **sealed)
    done = command("kad_node", fresh.home.path, *begin, "--json", stdin=code, **sealed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["last_good_size"] == size
    assert "Recovery code" not in done.stderr, "the new code was shown at the first attempt, before anything was final"
    assert len(list((fresh.home.path / "keys").iterdir())) == 1
    assert b'"secret"' not in (fresh.home.path / "keys" / "epoch-1.key").read_bytes(), "sealed"
    members = [m for m in federation.simpul.json("members") if m["name"] == "forums/forum-a"]
    assert [m["feed"].rpartition("/")[2] for m in members] == ["e1"]
    assert len(members[0]["former"]) == 1, "one epoch, however often it was asked for"

    # Everything is back, and goes on.
    await fresh.start(**sealed)
    await holds(fresh, old)
    await open_to_sign(fresh)
    fresh.run("revise", old, "-", stdin=json.dumps(PRACTICE | {"title": "Dari mesin baru"}))
    new = publish(fresh, "Baru")
    await holds(other, old, new)
    await until(lambda: version_of(other, old, 2), "the second version")
    await until(lambda: all_confirmed(other, 2), "it is a witness again")
    # New keys rotate, too, and the certificate is renewed by them.
    assert json.loads(fresh.run("keys", "rotate", "--json"))["rotations"] == 1
    await fresh.stop()
    (fresh.home.path / "channel" / "identity.pem").unlink()
    await fresh.start(**sealed)
    await holds(other, publish(fresh, "Setelah pergantian"))
    assert "proof" in kad("verify", "--help").stdout
    proof = federation.folder / "lama.tlog-proof"
    await until(lambda: all_confirmed(other, 2), "confirmed")
    for version in ("1", "2"):
        proof.write_text(other.run("proof", old, "--version", version))
        verified = kad("verify", str(proof), "--json")
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["version"] == int(version)


@pytest.mark.parametrize("begun", ["joined", "recovered"])
async def test_a_restored_backup_is_told_from_a_thief_by_its_owner(federation: Federation, begun: str) -> None:
    # Copied when nobody but the simpul, when it let this forum in, had heard of its feed.
    node, code = await join(federation, "forum-a", start=begun == "recovered")
    if begun == "recovered":
        await until(lambda: observed(node, node), "all is observed")
        await node.stop()
        code_in(command("kad_node", node.home.path, "recover", "--code-file", "-", "--yes", stdin=code))
    backup = federation.folder / "cadangan"
    shutil.copytree(node.home.path, backup)
    await node.start()
    await open_to_sign(node)
    name = publish(node)
    await until(lambda: observed(node, node), "the simpul has it")
    await node.stop()
    shutil.rmtree(node.home.path)
    backup.rename(node.home.path)
    await node.start()
    await holds(node, name)

    async def alarms() -> list[str]:
        return [alarm.reason for alarm in (await status(node)).alarms]

    lasting = ["EPOCH_SUPERSEDED"] if begun == "recovered" else []
    assert await alarms() == ["KEY_USED_ELSEWHERE", *lasting]
    assert "kad-node keys accept" in node.run("status")
    (found,) = keys(node)["foreign"]
    assert not found.get("while_open"), "it came before this node was allowed to sign"
    assert json.loads(node.run("keys", "accept", "--json", "--yes")).get("foreign") is None
    assert await alarms() == lasting
    await open_to_sign(node)
    publish(node, "Sesudah pemulihan cadangan")
    assert await alarms() == lasting


async def test_two_histories_of_one_key_end_in_a_new_epoch(federation: Federation) -> None:
    victim, code = await join(federation, "forum-a")
    other, _ = await join(federation, "forum-b")
    good = publish(victim, "Baik")
    await holds(other, good)
    await until(lambda: observed(other, victim), "all is observed")
    size = int(getattr(await status(victim), "self").size)  # noqa: B009
    thief = await steal(victim, federation)
    # Both sign the same place while nobody sees it.
    await thief.start()
    await open_to_sign(thief)
    await federation.simpul.stop()
    mine = publish(victim, "Asli")
    await victim.stop()
    forged = publish(thief, "Palsu")
    await federation.simpul.start()
    await holds(other, good, forged)
    await victim.start()

    async def forked() -> bool:
        return (await status(victim)).append_state == node_pb2.APPEND_STATE_FORKED

    await until(forked, "the fork shows")
    assert "kad-node recover" in victim.run("status")
    await victim.stop()
    done = command("kad_node", victim.home.path, "recover", "--code-file", "-", "--yes", stdin=code)
    code_in(done)
    assert f"first {size} entries stay good" in done.stdout
    assert re.search(rf"only on this machine\n +record {mine.rpartition('/')[2]}, version 1", done.stdout), done.stdout
    assert forged.rpartition("/")[2] in done.stdout
    await victim.start()
    await open_to_sign(victim)
    again = publish(victim, "Asli, sekali lagi")
    for member in (other, federation.simpul, victim):
        await holds(member, good, again)
        await until(lambda m=member: gone(m, forged), "the forgery is void")
        reasons = {alarm.reason for alarm in (await status(member)).alarms}
        assert "EPOCH_SUPERSEDED" in reasons
        assert reasons <= {"EPOCH_SUPERSEDED", "FORKED"}, reasons
    await until(lambda: all_confirmed(other, 2), "it confirms again")


async def test_a_change_of_keys_survives_being_killed_at_any_moment(federation: Federation) -> None:
    node, _ = await join(federation, "forum-a")
    other, _ = await join(federation, "forum-b")
    await until(lambda: all_confirmed(other, 2), "both confirm")
    before = await problems(other)
    choose = random.Random()
    published: list[str] = []
    # Certain places: the secret is durable and the entry is not there.
    await open_to_sign(node)
    await node.stop()
    dying(node, "kad_node.node.put", "keys", "rotate", stdin="")
    assert len(list((node.home.path / "keys").iterdir())) == 2
    # And any place, under load.
    for _ in range(4):
        await node.start()
        await open_to_sign(node)
        published.append(publish(node))
        program = [sys.executable, "-m", "kad_node", "--home", str(node.home.path)]
        writer = subprocess.Popen(
            [*program, "publish", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        rotating = subprocess.Popen(
            [*program, "keys", "rotate", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        secrets = len(list((node.home.path / "keys").iterdir()))
        if choose.random() < 0.75:
            await until(
                lambda n=secrets, p=rotating: len(list((node.home.path / "keys").iterdir())) > n or p.poll() is not None, "a secret"
            )
        await node.stop(signal.SIGKILL)
        for process, data in ((writer, json.dumps(PRACTICE).encode()), (rotating, None)):
            printed, _errors = process.communicate(data, timeout=60)
            if process is writer and process.returncode == 0:
                published.append(printed.decode().strip())
    await node.start()
    await open_to_sign(node)
    published.append(publish(node, "Akhir"))
    await holds(other, *published)
    mine = keys(node)
    await until(lambda: all_confirmed(other, 2), "both confirm")
    async with other.client() as kad_other:
        shown = await kad_other.keys.GetKeys(node_pb2.GetKeysRequest())
    assert shown.feed != mine["feed"]
    assert not (await status(other)).alarms
    assert await problems(other) == before, "nothing that either of them said was refused"
