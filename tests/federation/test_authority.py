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

FORUMS = ("forum-a", "forum-b", "forum-c")
CHARTER = "mode: {mode}\nparticipation_percent: 60\ngeneral_percent: 60\nmembership_percent: 60\ncharter_percent: 75\n"


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
    await simpul.stop()
    done = command("kad_simpul", simpul.home.path, "run", KAD_MODE="subsidiarity")
    assert done.returncode == 1
    assert "have not decided" in done.stderr
    await simpul.start()

    # The members decide; every node and the simpul count the same.
    await until(lambda: all(len(node.json("status").get("peers", [])) for node in nodes), "connected")
    await decide(nodes, "Beralih ke subsidiaritas", "--charter", "-", stdin=CHARTER.format(mode="subsidiarity"))
    await until(lambda: mode(simpul) == "MODE_SUBSIDIARITY", "the simpul knows")
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
        for shown in (node.run("show", name, "--lang", "en"), node.run("list", "--lang", "en")):
            assert "in its name" in shown
            assert "not witnessed" not in shown
    # Nothing beyond it: another kind, another forum.
    agenda = dict(PRACTICE, kind="agenda-item", start="2027-03-01T09:00", end="2027-03-01T11:00", time_zone="WIB")
    for forum in ("forum-b", "forum-a"):
        content = json.dumps(PRACTICE if forum == "forum-b" else {k: v for k, v in agenda.items() if k != "problem"})
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
    assert acts(nodes[1])[0]["state"] == "STATE_FINAL"
    first.run("veto", acts(first)[0]["name"])
    await until(lambda: acts(nodes[1])[0]["state"] == "STATE_VETOED", "the veto reaches everybody")
    assert nodes[1].json("show", name)["state"] == "RECORD_STATE_RETRACTED"

    # And back.
    await decide(nodes, "Kembali ke jejaring", "--charter", "-", stdin=CHARTER.format(mode="networking"))
    await until(lambda: all(mode(member) == "MODE_NETWORKING" for member in [simpul, *nodes]), "everybody is back")
    assert (await refusal(federation, request)).reason == Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE


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
