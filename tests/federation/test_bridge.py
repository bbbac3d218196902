"""Two federations, joined: what crosses between real processes, and what does not."""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from cryptography import x509

from kad_protocol.certificates import Authority, Trust, TrustAnchor, expiry, new_channel_key, request_certificate
from kad_protocol.channel import member_channel
from kad_protocol.errors import Reason
from kad_protocol.names import FeedId
from kad_protocol.status import from_rpc_error
from kad_protocol.v1 import (
    bridge_pb2,
    directory_pb2,
    entry_pb2,
    governance_pb2,
    node_pb2,
    records_pb2,
    records_pb2_grpc,
    replication_pb2,
    replication_pb2_grpc,
    transparency_pb2,
    transparency_pb2_grpc,
)
from tests.federation.harness import PRACTICE, START_SECONDS, Federation, Member, cheat, command, environment, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

#: Each of these founds two federations.
pytestmark = [pytest.mark.federation, pytest.mark.long]

PUBLIC, INTERNAL = "Untuk semua orang", "Rahasia jejaring sendiri"


@pytest.fixture
async def federations(tmp_path: Path) -> AsyncIterator[tuple[Federation, Federation]]:
    """The inter-district and the inter-provincial one, each with a forum of the same id."""
    one, two = Federation(tmp_path / "kabkota", "simpul-kabkota"), Federation(tmp_path / "provinsi", "simpul-provinsi")
    for made in (one, two):
        made.folder.mkdir()
    yield one, two
    for made in (one, two):
        await made.close()


def practice(title: str, audience: str, **more: Any) -> str:
    return json.dumps({**PRACTICE, "title": title, "problem": f"masalah {title}", "audience": audience, **more})


def publish(member: Member, title: str, audience: str) -> str:
    return member.run("publish", "-", stdin=practice(title, audience)).strip()


async def bridge(simpul: Member) -> bridge_pb2.Bridge:
    """What a simpul says of the one other federation."""
    async with simpul.client() as kad:
        found = (await kad.bridges.ListBridges(bridge_pb2.ListBridgesRequest())).bridges
    return found[0] if found else bridge_pb2.Bridge()


async def join(one: Federation, two: Federation) -> None:
    """The inter-provincial simpul joins the inter-district one."""
    invitation = one.invite(two.id, "--simpul-of", two.name)
    two.simpul.run("join", invitation)


async def knows(member: Member, name: str, state: str) -> bool:
    """Does a record stand there like that?"""
    async with member.client() as kad:
        try:
            record = (await kad.records.GetRecord(records_pb2.GetRecordRequest(name=name))).record
        except grpc.aio.AioRpcError:
            return False
    return records_pb2.RecordState.Name(record.state) == f"RECORD_STATE_{state}"


def on_disk(member: Member, text: str) -> bool:
    """Do these bytes stand anywhere in the member's database? The daemon has stopped, so everything is in the file."""
    needle = text.encode()
    with sqlite3.connect(member.home.store) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return any(needle in path.read_bytes() for path in member.home.path.glob("store.sqlite3*"))


def names(member: Member, *more: str) -> set[str]:
    return {record["name"] for record in member.json("list", *more)}


async def reasons(member: Member) -> set[str]:
    async with member.client() as kad:
        return {count.reason for count in (await kad.node.GetStatus(node_pb2.GetStatusRequest())).problems}


async def waits_for_nothing(member: Member) -> bool:
    return "CONTENT_MISSING" not in await reasons(member)


async def holds(member: Member, name: str) -> bool:
    return name in await member.names()


async def crossed(reader: Member, home: Federation, shown: str, hidden: str) -> None:
    await until(lambda: knows(reader, f"{home.name}/{shown}", "PUBLISHED"), f"{shown} crosses to {reader.home.path}")
    await until(lambda: knows(reader, f"{home.name}/{hidden}", "WITHHELD"), f"{hidden} is known to exist at {reader.home.path}")


async def test_what_is_for_everybody_crosses_and_nothing_else(federations: tuple[Federation, Federation]) -> None:
    one, two = federations
    await one.found()
    await two.found()
    left, right = await one.join("kartamantul"), await two.join("appsi")
    early = publish(left, PUBLIC, "public"), publish(left, INTERNAL, "federation")
    # A record of each kind that is withdrawn again, with a reason.
    gone = publish(left, "Ditarik", "public"), publish(left, "Ditarik diam-diam", "federation")
    left.run("retract", gone[0], "--reason", "Alasan untuk semua")
    left.run("retract", gone[1], "--reason", "Alasan internal")
    left.run("propose", "Usul internal", "--text", "Hanya dibahas di dalam", "--deadline", "1h")
    await join(one, two)
    # Both ways, and both what was there before and what comes now.
    back = publish(right, "Untuk semua dari provinsi", "public"), publish(right, "Rahasia provinsi", "federation")
    await crossed(right, one, *early)
    await crossed(left, two, *back)
    for name in gone:
        await until(lambda n=name: knows(right, f"{one.name}/{n}", "RETRACTED"), f"{name} is withdrawn over there too")
    # Nobody waits for what will not come.
    for member in (left, right, one.simpul, two.simpul):
        await until(lambda m=member: waits_for_nothing(m), f"{member.home.path} waits for nothing")
        assert "FOREIGN_WORD" not in await reasons(member)

    # A file for the others holds no more than the stream; one for ourselves holds everything.
    for target, more, expected in (("luar.kad", ("--for", two.name), False), ("dalam.kad", (), True)):
        left.run("export", str(left.home.path / target), *more)
        data = (left.home.path / target).read_bytes()
        assert PUBLIC.encode() in data
        assert (INTERNAL.encode() in data) is expected

    # Nor does the members' port say more than the stream, to whom it lets in.
    async with foreign_channel(one, two) as channel:
        for name in early:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await records_pb2_grpc.RecordsServiceStub(channel).GetRecord(records_pb2.GetRecordRequest(name=name))
            assert from_rpc_error(caught.value).reason == Reason.FOREIGN_MEMBER
        # A dossier may hold what single entries say, and is for one's own federation.
        transparency = transparency_pb2_grpc.TransparencyServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(transparency.GetEvidence(transparency_pb2.GetEvidenceRequest(name="evidence/unlawful"))))
        assert from_rpc_error(caught.value).reason == Reason.FOREIGN_MEMBER

    # What the others' disks hold, looked at as bytes.
    for member in (left, right, one.simpul, two.simpul):
        await member.stop()
    for text in (INTERNAL, "Alasan internal", "Ditarik diam-diam", "Usul internal", "Hanya dibahas"):
        assert on_disk(left, text), text
        assert on_disk(one.simpul, text), text
        assert not on_disk(right, text), text
        assert not on_disk(two.simpul, text), text
    for text in (PUBLIC, "Alasan untuk semua"):
        assert on_disk(right, text), text
    assert not on_disk(left, "Rahasia provinsi")
    assert not on_disk(one.simpul, "Rahasia provinsi")
    assert on_disk(left, "Untuk semua dari provinsi")


def foreign_channel(one: Federation, two: Federation) -> grpc.aio.Channel:
    """A channel to the first simpul, with the certificate that the second one has from it."""
    key, certificate, authority = two.simpul.home.bridge(one.name)
    simpul = FeedId(one.name, one.id)
    trust = Trust([TrustAnchor(x509.load_pem_x509_certificate(authority), one.name)])
    return member_channel(str(one.simpul.home.running()["members"]).replace("0.0.0.0", "127.0.0.1"), trust, key, certificate, simpul)


async def test_names_say_whose_it_is_and_both_sides_show_the_other(federations: tuple[Federation, Federation]) -> None:
    """Both federations have a forum of the same id."""
    one, two = federations
    await one.found()
    await two.found()
    left, right = await one.join("javapromo"), await two.join("javapromo")
    shown, hidden = publish(left, PUBLIC, "public"), publish(left, INTERNAL, "federation")
    own = publish(right, "Milik sendiri", "public")
    await join(one, two)
    await crossed(right, one, shown, hidden)
    theirs = {f"{one.name}/{shown}", f"{one.name}/{hidden}"}
    assert names(right, "--forum", "javapromo") == {own}
    assert names(right, "--forum", f"{one.name}/forums/javapromo") == theirs
    assert names(right) == {own, *theirs}
    assert {hit["record"]["name"] for hit in right.json("search", "masalah")} == {own, f"{one.name}/{shown}"}
    assert command("kad_node", right.home.path, "show", shown).returncode == 1, "a bare name is a name of one's own federation"
    forums = {forum["name"] for forum in right.json("status")["forums"]}
    assert forums == {
        *("forums/javapromo", f"forums/{two.id}"),
        *(f"{one.name}/forums/javapromo", f"{one.name}/forums/{one.id}"),
    }
    assert "its own federation" in right.run("show", f"{one.name}/{hidden}")

    for simpul, other in ((one.simpul, two), (two.simpul, one)):
        await joined(simpul)
        assert (await bridge(simpul)).federation == other.name
        assert (await bridge(simpul)).connected
        assert other.name in simpul.run("status")
        members = {member["name"]: member for member in simpul.json("members")}
        assert members[f"{other.name}/forums/{other.id}"]["category"] == "MEMBER_CATEGORY_ASSOCIATE"
        assert f"✓ {other.name}" in simpul.run("doctor")
    found = await bridge(two.simpul)
    assert (found.records, found.withheld) == (1, 1)

    # The other federation's witnesses confirm what it says, and its records are proved by them.
    proof = await until(lambda: proved(right, f"{one.name}/{shown}"), "it can be proved")
    path = right.home.path / "jauh.tlog-proof"
    path.write_bytes(proof)
    verify = [sys.executable, "-c", "from kad_simpul.cli.kad import main; main()", "verify", str(path)]
    done = await asyncio.to_thread(subprocess.run, verify, check=False)
    assert done.returncode == 0


async def test_a_hostile_simpul_has_no_say_about_our_members(federations: tuple[Federation, Federation]) -> None:
    one, two = federations
    few = {"KAD_LIMITS_FOREIGN_FEEDS": "6"}
    await one.found(**few)
    await two.found()
    left = await one.join("kartamantul", start=False)
    await left.start(**few)
    right = await two.join("appsi")
    await join(one, two)
    await joined(two.simpul)
    news = publish(left, "Kabar", "public")
    await until(lambda: knows(two.simpul, f"{one.name}/{news}", "PUBLISHED"), "it crosses")
    await cheat(two.simpul, "annex")

    # It is heard, counted, and has no effect.
    for member in (one.simpul, left):
        await until(lambda m=member: counted(m, Reason.FOREIGN_WORD), "its word about others is counted")
        await until(lambda m=member: counted(m, Reason.FOREIGN_FEEDS_LIMIT), "so are its endless members")
        async with member.client() as kad:
            forums = (await kad.directory.ListForums(directory_pb2.ListForumsRequest(page_size=1000))).forums
            standing = {m.name: m.state for m in (await kad.membership.ListMembers(governance_pb2.ListMembersRequest())).members}
            seen = next(forum for forum in forums if forum.name == "forums/kartamantul")
        assert len([forum for forum in forums if forum.name.startswith(two.name)]) == 6
        assert not [forum for forum in forums if forum.name == "forums/boneka"]
        assert standing["forums/kartamantul"] == seen.membership == entry_pb2.MEMBERSHIP_STATE_ACTIVE
    found = await bridge(one.simpul)
    assert found.waiting_reason == Reason.FOREIGN_FEEDS_LIMIT
    assert f"! {two.name}" in one.simpul.run("doctor")

    # Our members come in as before, after a restart too, and new ones as well; what its members publish still arrives.
    await left.stop()
    await left.start(**few)
    fresh = await one.join("javapromo")
    name = publish(left, "Setelahnya", "federation")
    await until(lambda: knows(fresh, name, "PUBLISHED"), "our federation goes on")
    there = publish(right, "Dari anggotanya", "public")
    await until(lambda: knows(fresh, f"{two.name}/{there}", "PUBLISHED"), "so do its members")


async def counted(member: Member, reason: Reason) -> bool:
    return reason.value in await reasons(member)


async def test_nobody_comes_in_as_a_member_of_ours(federations: tuple[Federation, Federation]) -> None:
    """The other simpul's certificates are for itself: neither it nor its authority can speak as somebody else."""
    one, two = federations
    await one.found()
    await two.found()
    await one.join("kartamantul")
    await two.join("appsi")
    await join(one, two)
    await joined(one.simpul)
    await joined(two.simpul)
    await until(lambda: in_directory(one.simpul, f"{two.name}/forums/appsi"), "its forums are known here")
    await until(lambda: in_directory(two.simpul, f"{one.name}/forums/kartamantul"), "and ours there")
    ours, theirs = (Authority.load(*authority_files(federation)) for federation in (one, two))
    forum, guest, their_forum = FeedId(one.name, "kartamantul"), FeedId(two.name, two.id), FeedId(two.name, "appsi")
    # Who issued it, for whom, what it calls itself in its hello, at whose port: and what comes of that.
    for authority, certified, hello, at, expected in (
        (ours, guest, guest, one, None),
        (ours, guest, forum, one, Reason.IDENTITY_INVALID),
        (ours, guest, their_forum, one, Reason.IDENTITY_INVALID),
        (ours, their_forum, their_forum, one, Reason.IDENTITY_INVALID),
        (theirs, forum, forum, one, Reason.PEER_UNREACHABLE),
        (theirs, guest, guest, one, Reason.PEER_UNREACHABLE),
        (ours, forum, forum, two, Reason.IDENTITY_INVALID),
        (ours, their_forum, their_forum, two, Reason.IDENTITY_INVALID),
        (ours, FeedId(one.name, one.id), FeedId(one.name, one.id), two, None),
        (theirs, their_forum, their_forum, two, None),
    ):
        assert await greet(authority, certified, hello, at) == expected, (certified, hello, at.name)
    # Nor do invitations fit anybody else.
    forums, simpuls = one.invite("javapromo"), one.invite("simpul-lain", "--simpul-of", "simpul-lain.kad.internal")
    for program, home, code in (
        ("kad_simpul", two.simpul.home.path, forums),
        ("kad_simpul", two.simpul.home.path, simpuls),
        ("kad_node", two.folder / "baru", simpuls),
    ):
        more = ("--name", "Baru") if program == "kad_node" else ()
        done = command(program, home, "join", code, *more)
        assert done.returncode == 1
        assert "invitation" in done.stderr
        assert "Traceback" not in done.stderr


def authority_files(federation: Federation) -> tuple[bytes, bytes]:
    home = federation.simpul.home
    return home.read("authority/key.pem"), home.read("authority/certificate.pem")


async def in_directory(member: Member, name: str) -> bool:
    async with member.client() as kad:
        forums = (await kad.directory.ListForums(directory_pb2.ListForumsRequest(page_size=1000))).forums
    return any(forum.name == name and forum.size for forum in forums)


async def greet(authority: Authority, certified: FeedId, hello: FeedId, at: Federation) -> Reason | None:
    """Dial a simpul with a certificate and say hello; why it hung up, None if it answered with its own heads."""
    key = new_channel_key()
    certificate = authority.issue(request_certificate(key), certified, datetime.datetime.now(datetime.UTC))
    root = at.simpul.home.read("authority/certificate.pem")
    trust = Trust([TrustAnchor(x509.load_pem_x509_certificate(root), at.name)])
    address = str(at.simpul.home.running()["members"]).replace("0.0.0.0", "127.0.0.1")
    frame = replication_pb2.Frame(hello=replication_pb2.Hello(protocol=1, feed=hello.origin, window_bytes=1 << 20, head_count=0))

    async def requests() -> AsyncIterator[replication_pb2.ExchangeRequest]:
        yield replication_pb2.ExchangeRequest(frame=frame)
        await asyncio.sleep(START_SECONDS)

    async with member_channel(address, trust, key, certificate, FeedId(at.name, at.id)) as channel:
        call = replication_pb2_grpc.ReplicationServiceStub(channel).Exchange(requests(), timeout=START_SECONDS)
        try:
            async for response in call:
                # The first frame is the other's own hello; the next one answers ours.
                if not response.frame.HasField("hello"):
                    return None
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason
    return None


async def test_the_demonstration_shows_it(tmp_path: Path) -> None:
    code = "from kad_simpul.cli.kad import main; main()"
    words = [sys.executable, "-c", code, "demo", "--two-simpuls", "--once", "--json", "--home", str(tmp_path / "demo")]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    assert [reader["forum"] for reader in result["readers"]] == ["appsi", "mitra-praja-utama"]
    assert all(reader["reads"] and not reader["holds_withheld"] for reader in result["readers"])


async def proved(member: Member, name: str) -> bytes:
    async with member.client() as kad:
        try:
            return (await kad.transparency.GetRecordProof(transparency_pb2.GetRecordProofRequest(name=name))).proof
        except grpc.aio.AioRpcError as error:
            # Not confirmed yet; whatever else it is, it will not become a proof by waiting.
            if from_rpc_error(error).reason != Reason.NOT_WITNESSED:
                raise
            return b""


async def joined(simpul: Member) -> None:
    async def both() -> bool:
        found = await bridge(simpul)
        return found.ours == found.theirs == entry_pb2.MEMBERSHIP_STATE_ACTIVE

    await until(both, f"{simpul.name} is joined, and knows that the other knows")


async def ended(simpul: Member) -> None:
    async def left() -> bool:
        found = await bridge(simpul)
        return found.theirs == entry_pb2.MEMBERSHIP_STATE_LEFT and not found.leaving and not found.connected

    await until(left, f"{simpul.name} knows that it is over")


async def test_it_outlives_cuts_and_restarts_and_ends_when_one_side_leaves(federations: tuple[Federation, Federation]) -> None:
    one, two = federations
    await one.found()
    await two.found()
    left, right = await one.join("kartamantul"), await two.join("appsi")
    await join(one, two)
    await joined(two.simpul)

    # The other simpul is away; both sides go on, and meet again.
    await one.simpul.stop(signal.SIGKILL)
    await two.simpul.stop()
    apart = publish(left, "Ditulis saat terputus", "public")
    there = publish(right, "Ditulis di seberang", "public")
    await one.simpul.start()
    # Its certificate is two thirds through its life by now: it gets a new one from the other's authority.
    before = age_certificate(one, two)
    await two.simpul.start()
    await until(lambda: knows(right, f"{one.name}/{apart}", "PUBLISHED"), "what was written apart crosses")
    await until(lambda: knows(left, f"{two.name}/{there}", "PUBLISHED"), "and back")
    await until(lambda: expiry(two.simpul.home.bridge(one.name)[1]) > expiry(before), "a new certificate")

    # Left on one side is left on both; what has crossed stays.
    two.simpul.run("leave", one.name, "--yes")
    await ended(two.simpul)
    await ended(one.simpul)
    assert not list((two.simpul.home.path / "bridges").glob("*"))
    after = publish(left, "Setelah berpisah", "public")
    await until(lambda: holds(one.simpul, after), "it is at the own simpul")
    assert await knows(right, f"{one.name}/{apart}", "PUBLISHED")
    assert not await holds(two.simpul, f"{one.name}/{after}")
    assert command("kad_simpul", two.simpul.home.path, "leave", "simpul-lain.kad.internal", "--yes").returncode == 1

    # Coming back needs a new invitation.
    await join(one, two)
    await until(lambda: knows(right, f"{one.name}/{after}", "PUBLISHED"), "joined again")
    # The side that did not dial ends it just as well.
    one.simpul.run("leave", two.name, "--yes")
    await ended(one.simpul)
    await until(lambda: not list((two.simpul.home.path / "bridges").glob("*")), "the other side dials no more")


def age_certificate(one: Federation, two: Federation) -> bytes:
    """Give the joined simpul a certificate that is five days old; returns it."""
    home = one.simpul.home
    authority = Authority.load(home.read("authority/key.pem"), home.read("authority/certificate.pem"))
    key = new_channel_key()
    old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=5)
    certificate = authority.issue(request_certificate(key), FeedId(two.name, two.id), old)
    two.simpul.home.save_bridge(one.name, key, certificate, authority.certificate_pem)
    return certificate
