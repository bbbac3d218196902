"""Authority, between real processes: mandates, decisions, admission, the switch of the mode, and a simpul that oversteps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from kad_protocol.errors import Reason
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import governance_pb2, records_pb2
from tests.federation.harness import PRACTICE, Federation, Member, command, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

#: Many commands one after the other: on a machine that does other things too each takes seconds.
pytestmark = [pytest.mark.federation, pytest.mark.long]

FORUMS = ("forum-a", "forum-b", "forum-c")
CHARTER = "mode: {mode}\nparticipation_percent: 60\ngeneral_percent: 60\nmembership_percent: 60\ncharter_percent: 75\n"

AGENDA = {"kind": "agenda-item", "title": "Rapat", "start_time": "2027-03-01 09:00", "regions": ["34.71"]}


@pytest.fixture
async def federation(tmp_path: Path) -> AsyncIterator[Federation]:
    made = Federation(tmp_path)
    try:
        yield made
    finally:
        await made.close()


def acts(member: Member) -> list[dict[str, Any]]:
    return list(member.json("acts"))


def decision(member: Member, number: str) -> dict[str, Any]:
    found = member.json("decisions")
    return next((d for d in found if d["name"].endswith(number)), {})


async def decide(members: list[Member], *proposal: str, stdin: str | None = None) -> str:
    """Propose on the first, vote yes on all, and wait until everybody has counted the same."""
    voters = {f"forums/{member.name}" for member in members}
    await until(lambda: voters <= set(members[0].json("federation").get("electorate", [])), "all are confirmed members")
    number = members[0].run("propose", *proposal, "--deadline", "1d", stdin=stdin).strip()
    for member in members:
        await until(lambda m=member: decision(m, number).get("state") in ("STATE_OPEN", "STATE_ACCEPTED"), f"{member.name} knows it")
        member.run("vote", number, "yes", "--comment", f"Setuju, {member.name}")
    for member in members:
        await until(lambda m=member: decision(m, number).get("state") == "STATE_ACCEPTED", f"{member.name} has counted")
    return number


def mode(member: Member) -> str:
    return str(member.json("federation")["mode"])


async def refusal(federation: Federation, request: records_pb2.CreateRecordRequest) -> Any:
    async with federation.simpul.client() as kad:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kad.records.CreateRecord(request)
    return from_rpc_error(caught.value)


async def test_members_hand_up_a_function_take_it_back_and_switch_the_mode(federation: Federation) -> None:
    await federation.found()
    nodes = [await federation.join(forum) for forum in FORUMS]
    simpul, first = federation.simpul, nodes[0]
    document = json.dumps(PRACTICE)

    # Networking: nobody acts for another, and the configuration alone changes nothing.
    first.run("mandate", "grant", "--function", "publish-on-behalf", "--kinds", "best-practice", "--until", "90d")
    done = command("kad_simpul", simpul.home.path, "publish", "-", "--for", "forum-a", stdin=document)
    assert done.returncode == 1
    assert "nobody acts for another" in done.stderr
    assert first.json("mandate", "list")[0]["state"] in ("STATE_PENDING", "STATE_DORMANT")
    await simpul.stop()
    done = command("kad_simpul", simpul.home.path, "run", KAD_MODE="subsidiarity")
    assert done.returncode == 1
    assert "have not decided" in done.stderr
    await simpul.start()

    # The members decide; every node and the simpul count the same.
    await until(lambda: all(len(node.json("status").get("peers", [])) for node in nodes), "connected")
    await decide(nodes, "Beralih ke subsidiaritas", "--charter", "-", stdin=CHARTER.format(mode="subsidiarity"))
    await until(lambda: mode(simpul) == "MODE_SUBSIDIARITY", "the simpul knows")
    # The members allow it, its configuration does not yet; it says so.
    done = command("kad_simpul", simpul.home.path, "publish", "-", "--for", "forum-a", stdin=document)
    assert "decided for subsidiarity" in done.stderr
    assert "decided for mode subsidiarity" in simpul.run("status")
    await simpul.stop()
    await simpul.start(KAD_MODE="subsidiarity")

    # What the mandate covers is done, cites it, and becomes final everywhere.
    await until(lambda: simpul.json("mandate", "list", "--live"), "the mandate counts")
    name = simpul.run("publish", "-", "--for", "forum-a", stdin=document).strip()
    assert name.startswith("forums/forum-a/records/")
    for node in nodes:
        await until(lambda n=node: [act for act in acts(n) if act["state"] == "STATE_FINAL"], f"{node.name} holds it final")
        record = node.json("show", name)
        assert record["state"] == "RECORD_STATE_PUBLISHED"
        assert record["published_by"].startswith("simpul-uji")
        assert record["act_final"] is True
    # Nothing beyond it: another kind, another forum.
    for forum in ("forum-b", "forum-a"):
        content = json.dumps(PRACTICE if forum == "forum-b" else AGENDA)
        done = command("kad_simpul", simpul.home.path, "publish", "-", "--for", forum, stdin=content)
        assert done.returncode == 1, done.stdout

    # Taken back, it ends for everybody.
    (granted,) = first.json("mandate", "list", "--forum", "forum-a")
    first.run("mandate", "revoke", granted["name"])
    await until(lambda: not simpul.json("mandate", "list", "--live"), "the revocation is observed")
    request = records_pb2.CreateRecordRequest(parent="forums/forum-a")
    request.content.title = "x"
    request.content.best_practice.problem = "x"
    error = await refusal(federation, request)
    assert (error.code, error.reason) == ("PERMISSION_DENIED", Reason.MANDATE_REVOKED)
    # What was done stays lawful, until the forum itself objects.
    assert all(act["state"] != "STATE_VETOED" for act in acts(nodes[1]))
    vetoed = f"acts/{first.json('show', name)['index']}"
    first.run("veto", vetoed)

    def state(member: Member) -> str:
        return str(next(act["state"] for act in acts(member) if act["name"] == vetoed))

    await until(lambda: state(nodes[1]) == "STATE_VETOED", "the veto reaches everybody")
    assert nodes[1].json("show", name)["state"] == "RECORD_STATE_RETRACTED"

    # And back.
    await decide(nodes, "Kembali ke jejaring", "--charter", "-", stdin=CHARTER.format(mode="networking"))
    await until(lambda: all(mode(member) == "MODE_NETWORKING" for member in [simpul, *nodes]), "everybody is back")
    assert (await refusal(federation, request)).reason == Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE


async def test_what_the_simpul_published_for_a_forum_it_revises_and_withdraws_and_nothing_else(federation: Federation) -> None:
    await federation.found("subsidiarity")
    nodes = [await federation.join(forum) for forum in ("forum-a", "forum-b")]
    simpul, first = federation.simpul, nodes[0]
    document = json.dumps(PRACTICE)
    first.run("mandate", "grant", "--function", "publish-on-behalf", "--kinds", "best-practice", "--regions", "34", "--until", "90d")
    await until(lambda: simpul.json("mandate", "list", "--live"), "the mandate counts")

    second = simpul.run("publish", "-", "--for", "forum-a", stdin=document).strip()
    changed = json.dumps(dict(PRACTICE, title="Berbagi biaya, diperbaiki"))
    assert simpul.run("revise", second, "-", "--version", "1", "--dry-run", stdin=changed)
    assert simpul.json("show", second)["version"] == 1
    assert simpul.run("revise", second, "-", "--version", "1", stdin=changed).strip() == second
    done = command("kad_simpul", simpul.home.path, "revise", second, "-", "--version", "1", "--json", stdin=changed)
    assert json.loads(done.stderr)["error"]["reason"] == Reason.STALE_VERSION
    done = command("kad_simpul", simpul.home.path, "revise", second, "-", stdin=json.dumps(AGENDA))
    assert done.returncode == 1, "a record keeps its kind"
    await until(lambda: nodes[1].json("show", second).get("version") == 2, "the new version is everywhere")
    assert nodes[1].json("show", second)["content"]["title"] == "Berbagi biaya, diperbaiki"
    simpul.run("retract", second, "--reason", "Dibatalkan")
    await until(lambda: nodes[1].json("show", second)["state"] == "RECORD_STATE_RETRACTED", "it is withdrawn everywhere")
    assert nodes[1].json("show", second)["retraction_reason"] == "Dibatalkan"
    for again in (("retract", second, "--reason", "x"), ("revise", second, "-")):
        done = command("kad_simpul", simpul.home.path, *again, "--json", stdin=document)
        assert json.loads(done.stderr)["error"]["reason"] == Reason.RECORD_RETRACTED
    own = first.run("publish", "-", stdin=document).strip()
    await until(lambda: not command("kad_simpul", simpul.home.path, "show", own).returncode, "the simpul has it")
    for meddling in (("retract", own, "--reason", "x"), ("revise", own, "-")):
        done = command("kad_simpul", simpul.home.path, *meddling, "--json", stdin=document)
        assert json.loads(done.stderr)["error"]["reason"] == Reason.NOT_OWN_RECORD
    assert command("kad_node", nodes[1].home.path, "retract", own, "--reason", "x").returncode == 1

    # The same request id publishes once.
    asked = records_pb2.CreateRecordRequest(parent="forums/forum-a", request_id="sekali")
    asked.content.title, asked.content.best_practice.problem = "Sekali", "Sekali"
    asked.content.regions.add(code="34.71")
    async with simpul.client() as kad:
        answers = [(await kad.records.CreateRecord(asked)).record.name for _ in range(2)]
    assert answers[0] == answers[1]
    assert (
        sum(act["act"].get("publication", {}).get("record", "") in answers[0] for act in acts(simpul) if "publication" in act["act"]) == 1
    )


async def test_membership_is_decided_by_members(federation: Federation) -> None:
    await federation.found()
    nodes = [await federation.join(forum) for forum in FORUMS]
    await decide(nodes, "Piagam", "--charter", "-", stdin=CHARTER.format(mode="networking") + "admission_endorsements: 2\n")

    # A newcomer waits for two who know it.
    invitation = federation.invite("forum-baru")
    fresh = federation.nodes["forum-baru"] = Member("kad_node", "forum-baru", federation.folder / "forum-baru")
    joining = ("join", invitation, "--forum", "forum-baru", "--name", "Forum Baru")
    done = command("kad_node", fresh.home.path, *joining)
    assert done.returncode == 1
    assert "2" in done.stderr
    assert "endorse" in done.stderr
    for node in nodes[:2]:
        await until(lambda n=node: any(m["state"] == "MEMBERSHIP_STATE_APPLIED" for m in n.json("members")), "the application is known")
        node.run("endorse", "forum-baru")
    await until(lambda: not command("kad_node", fresh.home.path, *joining).returncode, "admitted")
    await fresh.start()
    name = fresh.run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
    await until(lambda: not command("kad_node", nodes[2].home.path, "show", name).returncode, "its record is everywhere")

    # Suspended by decision: out until reinstated.
    others = nodes
    await decide(others, "Tunggakan iuran", "--suspend", "forum-baru")
    await until(lambda: federation.simpul.json("members"), "members")

    def standing(member: Member) -> str:
        return str(next(m["state"] for m in member.json("members") if m["name"] == "forums/forum-baru"))

    await until(lambda: standing(nodes[1]) == "MEMBERSHIP_STATE_SUSPENDED", "suspended")
    await fresh.stop()
    await fresh.start()
    await until(lambda: any(p.get("last_error_reason") for p in fresh.json("status")["peers"]), "the simpul refuses it")
    await decide(others, "Iuran lunas", "--reinstate", "forum-baru")
    await until(lambda: standing(fresh) == "MEMBERSHIP_STATE_ACTIVE", "reinstated, and it knows")

    # Leaving needs nobody.
    fresh.run("leave", "--yes")
    await until(lambda: standing(nodes[0]) == "MEMBERSHIP_STATE_LEFT", "it has left")
    assert nodes[0].json("show", name)["state"] == "RECORD_STATE_PUBLISHED", "its history stays"

    # Coming back needs a new invitation and, here, new endorsements; it goes on with the feed and the keys that it has.
    await fresh.stop()
    joining = ("join", federation.invite("forum-baru"), "--name", "Forum Baru")
    assert "endorse" in command("kad_node", fresh.home.path, *joining).stderr
    for node in nodes[:2]:
        await until(lambda n=node: standing(n) == "MEMBERSHIP_STATE_APPLIED", "it has applied again")
        node.run("endorse", "forum-baru")
    await until(lambda: not command("kad_node", fresh.home.path, *joining).returncode, "admitted again")
    await fresh.start()
    again = fresh.run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
    await until(lambda: not command("kad_node", nodes[2].home.path, "show", again).returncode, "it publishes again")
    assert {name, again} <= await nodes[2].names()


async def test_generated_clients_reach_all_of_it(federation: Federation) -> None:
    await federation.found()
    node = await federation.join("forum-a")
    await until(lambda: not command("kad_node", node.home.path, "federation").returncode, "the simpul's feed is here")
    async with node.client() as kad:
        found = (await kad.membership.GetFederation(governance_pb2.GetFederationRequest())).federation
        assert found.simpul.startswith("simpul-uji")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kad.mandates.ReviewSubmission(governance_pb2.ReviewSubmissionRequest(name="forums/forum-a/records/x"))
        assert from_rpc_error(caught.value).reason == Reason.ROLE_INSUFFICIENT
        asked = governance_pb2.GrantMandateRequest()
        asked.mandate.function = "rule-everything"
        asked.mandate.not_after.GetCurrentTime()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kad.mandates.GrantMandate(asked)
        error = from_rpc_error(caught.value)
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", Reason.FUNCTION_UNKNOWN)
