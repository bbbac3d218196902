"""A simpul that cheats, against real nodes: what it does beyond its rights has no effect, is caught, and is shown."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.federation.harness import PRACTICE, Federation, Member, cheat, command, environment, until
from tests.federation.test_authority import CHARTER, decide

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


pytestmark = [pytest.mark.federation, pytest.mark.long]


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[Federation]:
    made = Federation(tmp_path)
    try:
        yield made
    finally:
        await made.close()


def counted(member: Member) -> dict[str, int]:
    return {problem["reason"]: int(problem["count"]) for problem in member.json("status").get("problems", [])}


def alarms(member: Member) -> list[dict[str, Any]]:
    return list(member.json("status").get("alarms", []))


def raised(member: Member) -> set[str]:
    return {alarm["reason"] for alarm in alarms(member)}


def verified(member: Member, kind: str) -> dict[str, Any]:
    """Write what a node can prove to files, and check the one of a kind where nobody knows the federation."""
    folder = member.home.path.parent / f"bukti-{member.name}"
    member.run("evidence", "--to", str(folder))
    for path in sorted(folder.glob("*.json")):
        if json.loads(path.read_text())["kind"] == kind:
            done = subprocess.run(
                [sys.executable, "-c", "from kad_simpul.cli.kad import main; main()", "verify", "--json", str(path)],
                capture_output=True,
                text=True,
                env=environment(HOME=str(folder)),
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return dict(json.loads(done.stdout))
    raise AssertionError(f"{member.name} has no evidence of kind {kind}")


async def test_what_it_publishes_without_a_mandate_nobody_believes(federation: Federation) -> None:
    await federation.found()
    nodes = [await federation.join(forum) for forum in ("forum-a", "forum-b", "forum-c")]
    await decide(nodes, "Piagam", "--charter", "-", stdin=CHARTER.format(mode="subsidiarity"))
    await cheat(federation.simpul, "overreach")
    for node in nodes:
        await until(lambda n=node: n.json("acts"), f"{node.name} has seen it")
        (act,) = node.json("acts")
        assert (act["state"], act["reason"]) == ("STATE_REFUSED", "MANDATE_UNKNOWN")
        assert counted(node)["MANDATE_UNKNOWN"] == 1
        assert node.json("list") == []
        assert "UNLAWFUL" in raised(node)
        done = command("kad_node", node.home.path, "doctor", "--json")
        assert done.returncode == 1
        assert [part["message"].partition(":")[0] for part in json.loads(done.stdout) if part["state"] == "fail"] == ["UNLAWFUL"]
        proof = verified(node, "unlawful")
        assert proof["feed"].startswith("simpul-uji")
        assert [finding["reason"] for finding in proof["findings"]] == ["MANDATE_UNKNOWN"]
    # The others go on.
    name = nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
    await until(lambda: not command("kad_node", nodes[1].home.path, "show", name).returncode, "what forums publish still arrives")


async def test_whom_it_admits_or_suspends_alone_stays_as_it_was(federation: Federation) -> None:
    await federation.found()
    nodes = [await federation.join(forum) for forum in ("forum-a", "forum-b", "forum-c")]
    await decide(nodes, "Piagam", "--charter", "-", stdin=CHARTER.format(mode="networking") + "admission_endorsements: 2\n")
    await cheat(federation.simpul, "admit")
    for node in nodes:
        await until(lambda n=node: "DECISION_MISSING" in counted(n), f"{node.name} has seen it")
        assert counted(node)["ENDORSEMENTS_MISSING"] == 1
        states = {member["name"]: member["state"] for member in node.json("members")}
        assert states == dict.fromkeys(("forums/forum-a", "forums/forum-b", "forums/forum-c"), "MEMBERSHIP_STATE_ACTIVE")
    found = verified(nodes[2], "unlawful")["findings"]
    assert [(finding["entry"], finding["reason"]) for finding in found] == [
        ("membership", "ENDORSEMENTS_MISSING"),
        ("membership", "DECISION_MISSING"),
    ]


async def test_a_simpul_that_does_not_want_to_see_is_not_confirmed(federation: Federation) -> None:
    await federation.found()
    nodes = [await federation.join(forum) for forum in ("forum-a", "forum-b", "forum-c")]
    await decide(nodes, "Piagam", "--charter", "-", stdin=CHARTER.format(mode="subsidiarity") + "lag_seconds: 10\n")
    nodes[0].run("mandate", "grant", "--function", "represent", "--until", "30d")
    await until(lambda: nodes[1].json("mandate", "list", "--live"), "the mandate counts")
    await cheat(federation.simpul, "deaf:forum-a")
    (granted,) = nodes[0].json("mandate", "list")
    nodes[0].run("mandate", "revoke", granted["name"])
    # Those who know of the revocation confirm nothing that does not observe it, once the charter's ten seconds are over.
    for node in nodes[:2]:
        await until(lambda n=node: [a for a in alarms(n) if a["reason"] == "OBSERVATION_LAGGING"], f"{node.name} raises the alarm", 100)
        assert "forum-a" in alarms(node)[0]["feed"]
    nodes[1].run("publish", "-", stdin=json.dumps(PRACTICE))
    await until(lambda: counted(nodes[1]).get("OBSERVATION_LAGGING"), "a checkpoint is refused")
    confirmed = nodes[1].json("status")["witnessing"]
    assert int(confirmed["size"]) < int(confirmed["signed_size"])
    # Those who hold it say so with their signatures, and once that is older than the ten seconds it is proved.

    def omission() -> bool:
        nodes[2].run("publish", "-", stdin=json.dumps(PRACTICE))
        return any(item["kind"] == "KIND_OMISSION" for item in nodes[1].json("evidence"))

    await until(omission, "the omission can be proved", 100)
    proof = verified(nodes[1], "omission")
    assert proof["about"].startswith("simpul-uji")
    assert "/forum-a/" in proof["about"]
    assert proof["observed"] < proof["signed"]
    assert "forums/forum-b" in proof["holders"]
    # When it observes again, all is well again.
    await federation.simpul.stop()
    await federation.simpul.start()
    await until(lambda: not alarms(nodes[1]), "the alarm ends", 60)
    assert nodes[1].json("evidence") == [], "what has been mended is not held against anybody"
    await until(lambda: not nodes[1].json("mandate", "list", "--live"), "and the revocation has taken effect")


async def test_two_histories_are_found_although_each_side_hears_only_one(federation: Federation) -> None:
    await federation.found()
    one = await federation.join("forum-a", "--listen", "127.0.0.1:0")
    two = await federation.join("forum-b")
    await until(lambda: int(one.json("status")["witnessing"].get("confirmed", 0)) == 2, "both confirm")
    honest = federation.simpul
    await honest.stop()
    copied = federation.folder / "salinan"
    shutil.copytree(honest.home.path, copied)
    # One side of it is shown to forum-a, the other to forum-b.
    await two.stop()
    await cheat(honest, "amnesia")
    one.run("publish", "-", stdin=json.dumps(PRACTICE))
    await until(lambda: one.json("list")[0].get("observation"), "observed in one history")
    await honest.stop()
    await one.stop()
    other = Member("kad_simpul", "salinan", copied)
    try:
        await cheat(other, "amnesia")
        await two.start()
        two.run("publish", "-", stdin=json.dumps(PRACTICE))
        await until(lambda: two.json("list")[0].get("observation"), "observed in the other history")
        # Now forum-a comes to the second face, and says what it was told by the first.
        await one.start()
        await until(lambda: "FORKED" in raised(one), "forum-a notices")
        proof = verified(one, "fork")
        assert proof["feed"].startswith("simpul-uji")
        assert one.json("status")["witnessing"]["feed"] == proof["feed"]
    finally:
        await other.stop()


async def test_what_it_observes_and_nobody_signed_is_proved_and_the_rest_goes_on(federation: Federation) -> None:
    await federation.found()
    nodes = [await federation.join(forum, "--listen", "127.0.0.1:0") for forum in ("forum-a", "forum-b", "forum-c")]
    await cheat(federation.simpul, "misquote:forum-a")
    nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE))
    for node in nodes:
        await until(lambda n=node: "OBSERVATION_CONTRADICTED" in raised(n), f"{node.name} raises the alarm")
    proof = verified(nodes[2], "contradiction")
    assert proof["feed"].startswith("simpul-uji")
    assert "/forum-a/" in proof["about"]
    assert proof["observed_root"] != proof["signed_root"]
    # What forums publish still arrives.
    name = nodes[1].run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
    await until(lambda: not command("kad_node", nodes[2].home.path, "show", name).returncode, "records still arrive")
    # Without the simpul too, once two know each other.
    await federation.simpul.stop()
    card = nodes[0].run("peer", "card")
    nodes[1].run("peer", "add", "-", stdin=card)
    nodes[0].run("peer", "add", "-", stdin=nodes[1].run("peer", "card"))
    name = nodes[0].run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
    await until(lambda: not command("kad_node", nodes[1].home.path, "show", name).returncode, "forums go on directly")
