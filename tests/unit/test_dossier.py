"""Dossiers: what a simpul wrote without right, and whom it passes over, proved by building the feeds up again from nothing."""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from kad_node import dossier, vigil
from kad_node.bundle import read_frames, write_frame
from kad_protocol import feed as feeds
from kad_protocol import merkle, order
from kad_protocol.errors import InvalidInputError, KadError, Reason, VerificationError
from kad_protocol.feed import Draft
from kad_protocol.names import FeedId
from kad_protocol.note import Checkpoint, cosign
from kad_protocol.v1 import entry_pb2, replication_pb2, transparency_pb2
from kad_protocol.witness import with_cosignatures
from tests.unit.federation import DAY, NETWORKING, SIMPUL, SUBSIDIARITY, YES, Federation, agenda, charter, governance
from tests.unit.feeds import draft

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.unit.feeds import Author, SqliteLog

OWN = FeedId(SIMPUL.federation, "forum-0")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, 4)


def reasons(found: dossier.Unlawful | dossier.Omission) -> list[tuple[int, Reason]]:
    assert isinstance(found, dossier.Unlawful)
    return [(index, reason) for index, _, reason in found.findings]


def made(tx: SqliteLog) -> bytes:
    """What a node gives out about its simpul."""
    return vigil.evidence_file(tx, OWN, "evidence/unlawful")


def overstep(federation: Federation) -> dict[str, int]:
    """A simpul does everything that it may not; where each stands."""
    forum, other = federation.forums[:2]
    ref = federation.mandate(forum)
    federation.observe(forum)
    lawful = federation.act("publish-on-behalf", [ref], forum)
    wrong = {
        "another forum": federation.act("publish-on-behalf", [ref], other),
        "another kind": federation.act("publish-on-behalf", [ref], forum, kind=1),
        "no mandate at all": federation.act("publish-on-behalf", [federation.ref(forum, 0)], forum),
    }
    federation.revoke(forum, ref)
    federation.observe(forum)
    wrong["revoked"] = federation.act("publish-on-behalf", [ref], forum)
    federation.now -= DAY
    wrong["back-dated"] = federation.act("publish-on-behalf", [ref], forum)
    federation.now += DAY
    wrong["suspension"] = federation.admit(other, entry_pb2.MEMBERSHIP_STATE_SUSPENDED)
    entry = federation.entry()
    entry.founding.mode = NETWORKING
    wrong["founding"] = federation.say(federation.simpul, entry)
    wrong["finality"] = federation.finality(federation.forums[:2])
    assert lawful not in wrong.values()
    return wrong


def test_what_a_simpul_may_not_write_is_proved(federation: Federation) -> None:
    wrong = overstep(federation)
    found = dossier.verify(made(federation.node()))
    assert reasons(found) == [
        (wrong["another forum"], Reason.NO_MANDATE),
        (wrong["another kind"], Reason.MANDATE_SCOPE),
        (wrong["no mandate at all"], Reason.MANDATE_UNKNOWN),
        (wrong["revoked"], Reason.MANDATE_REVOKED),
        (wrong["back-dated"], Reason.ACT_TIME_WRONG),
        (wrong["suspension"], Reason.DECISION_MISSING),
        (wrong["founding"], Reason.FOUNDING_TOO_LATE),
        (wrong["finality"], Reason.FINALITY_INVALID),
    ]
    assert isinstance(found, dossier.Unlawful)
    assert found.simpul == SIMPUL
    assert found.simpul_genesis == federation.simpul.genesis


def test_acting_in_a_networking_federation_is_proved(tmp_path: Path) -> None:
    federation = Federation(tmp_path, 3, NETWORKING)
    ref = federation.mandate(federation.forums[0])
    federation.observe(federation.forums[0])
    index = federation.act("publish-on-behalf", [ref], federation.forums[0])
    assert reasons(dossier.verify(made(federation.node()))) == [(index, Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE)]


def test_a_puppet_that_nobody_endorsed_is_proved(federation: Federation) -> None:
    federation.adopt(charter(mode=SUBSIDIARITY, admission_endorsements=2))
    puppet = federation.forums[0].__class__(federation.forums[0].log.__class__(), FeedId(SIMPUL.federation, "boneka"))
    index = federation.admit(puppet)
    found = reasons(dossier.verify(made(federation.node())))
    assert found == [(index, Reason.ENDORSEMENTS_MISSING)]


def test_an_honest_simpul_is_accused_of_nothing(federation: Federation) -> None:
    ref = federation.mandate(federation.forums[0])
    federation.observe(federation.forums[0])
    index = federation.act("publish-on-behalf", [ref], federation.forums[0])
    node = federation.node()
    assert vigil.evidence_list(node, OWN) == []
    assert [alarm for alarm in vigil.alarms(node, OWN) if alarm.reason == Reason.UNLAWFUL] == []
    with pytest.raises(VerificationError) as caught:
        dossier.verify(dossier.unlawful(node, SIMPUL, [(index, Reason.NO_MANDATE)]))
    assert caught.value.reason == Reason.PROOF_INVALID


def test_a_slip_is_no_overstepping(federation: Federation) -> None:
    """A version out of order has no effect, but a simpul that may publish has broken nobody's rights with it."""
    forum = federation.forums[0]
    ref, item = federation.mandate(forum), agenda()
    federation.observe(forum)
    item.entry.record_version.version = 7
    entry = federation.entry()
    entry.act.CopyFrom(entry_pb2.Act(function="publish-on-behalf", mandates=[ref], on_behalf_of=forum.feed.origin))
    entry.act.publication.CopyFrom(item.entry.record_version)
    index = federation.say(federation.simpul, Draft(entry, item.content))
    node = federation.node()
    assert vigil.evidence_list(node, OWN) == []
    problem = node.problem(SIMPUL, index)
    assert problem is not None
    assert problem.reason == Reason.VERSION_OUT_OF_ORDER
    with pytest.raises(VerificationError) as caught:
        dossier.verify(dossier.unlawful(node, SIMPUL, [(index, problem.reason)]))
    assert caught.value.reason == Reason.PROOF_INVALID


def test_a_node_shows_what_it_has_caught(federation: Federation) -> None:
    wrong = overstep(federation)
    node = federation.node()
    (item,) = vigil.evidence_list(node, OWN)
    assert item.kind == transparency_pb2.Evidence.KIND_UNLAWFUL
    assert [finding.index for finding in item.findings] == sorted(wrong.values())
    (alarm,) = [alarm for alarm in vigil.alarms(node, OWN) if alarm.reason == Reason.UNLAWFUL]
    assert (alarm.count, alarm.why) == (len(wrong), Reason.FINALITY_INVALID)


# Files that were tampered with.


def frames_of(document: dict[str, Any]) -> list[replication_pb2.Frame]:
    return list(read_frames(io.BytesIO(zlib.decompress(base64.b64decode(document["frames"])))))


def pack(document: dict[str, Any], frames: Sequence[replication_pb2.Frame]) -> None:
    file = io.BytesIO()
    for frame in frames:
        write_frame(file, frame)
    document["frames"] = base64.b64encode(zlib.compress(file.getvalue())).decode()


def change_entry(document: dict[str, Any]) -> None:
    frames = frames_of(document)
    body = bytearray(frames[0].batches[0].entries[5])
    body[-1] ^= 1
    frames[0].batches[0].entries[5] = bytes(body)
    pack(document, frames)


def without_a_member(document: dict[str, Any]) -> None:
    """The forum whose mandates are cited is left out: nothing can be judged then, and so nobody be accused."""
    pack(document, [frame for frame in frames_of(document) if "forum-0/" not in frame.batches[0].feed])


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], Any], Reason]] = {
    "another reason": (lambda d: d["findings"][0].update(reason="MANDATE_REVOKED"), Reason.PROOF_INVALID),
    "another entry": (lambda d: d["findings"][0].update(index=1), Reason.PROOF_INVALID),
    "beyond the log": (lambda d: d["findings"][0].update(index=1 << 50), Reason.PROOF_INVALID),
    "a changed entry": (change_entry, Reason.ROOT_MISMATCH),
    "a member left out": (without_a_member, Reason.PROOF_INVALID),
    "nothing claimed": (lambda d: d.update(findings=[]), Reason.INVALID_FILE),
    "another feed": (lambda d: d.update(feed=OWN.origin), Reason.PROOF_INVALID),
    "no feed": (lambda d: d.pop("feed"), Reason.INVALID_FILE),
    "no frames": (lambda d: d.update(frames=""), Reason.INVALID_FILE),
    "frames cut off": (lambda d: d.update(frames=d["frames"][:400]), Reason.INVALID_FILE),
    "frames that are none": (lambda d: d.update(frames=base64.b64encode(zlib.compress(b"x" * 99)).decode()), Reason.INVALID_FILE),
    "another kind": (lambda d: d.update(kind="fork"), Reason.INVALID_FILE),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_dossier_that_was_tampered_with_proves_nothing(federation: Federation, case: str) -> None:
    overstep(federation)
    document = json.loads(made(federation.node()))
    tamper, reason = TAMPERED[case]
    tamper(document)
    with pytest.raises(KadError) as caught:
        dossier.verify(json.dumps(document).encode())
    assert caught.value.reason == reason


def test_a_dossier_that_unpacks_to_too_much_is_refused(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    overstep(federation)
    data = made(federation.node())
    monkeypatch.setattr(dossier, "_MAX_UNPACKED", 1000)
    with pytest.raises(InvalidInputError):
        dossier.verify(data)


# Members who are passed over.


def held(member: Author, holders: Sequence[Author], at: int) -> bytes:
    """What a member signed, with the word of those who hold it."""
    state = member.log.feed(member.feed)
    checkpoint = Checkpoint(member.feed.origin, state.size, state.root)
    lines = [
        "".join(str(line) for line in cosign(checkpoint, w.keys.witness_signer(w.feed.origin), at // 1_000_000)).encode() for w in holders
    ]
    return with_cosignatures(state.checkpoint, lines)


def test_who_is_passed_over_is_proved_by_those_who_hold_it(federation: Federation) -> None:
    victim, *others = federation.forums
    federation.mandate(victim)
    note = held(victim, others[:2], federation.now)
    # Time passes in the simpul's log, without a word about that forum.
    federation.now += 601 * 1_000_000
    federation.observe(others[0])
    node = federation.node()
    follow = victim.batch(1)
    feeds.extend(node, follow, follow.checkpoint)
    found = dossier.verify(dossier.omission(node, SIMPUL, victim.feed, note))
    assert isinstance(found, dossier.Omission)
    assert (found.member, found.signed, found.observed) == (victim.feed, 2, 1)
    assert sorted(found.holders) == ["forums/forum-1", "forums/forum-2"]
    assert found.members == 3


@pytest.mark.parametrize("case", ["in time", "observed", "only itself", "nobody", "a stranger", "not its note"])
def test_nobody_is_accused_of_an_omission_that_is_none(federation: Federation, case: str) -> None:
    victim, *others = federation.forums
    federation.mandate(victim)
    stranger = victim.__class__(victim.log.__class__(), FeedId(SIMPUL.federation, "asing"))
    holders = {"only itself": [victim], "nobody": [], "a stranger": [stranger]}.get(case, others[:2])
    note = held(others[0] if case == "not its note" else victim, holders, federation.now)
    federation.now += (599 if case == "in time" else 601) * 1_000_000
    federation.observe(victim if case == "observed" else others[0])
    node = federation.node()
    if case != "observed":
        follow = victim.batch(1)
        feeds.extend(node, follow, follow.checkpoint)
    with pytest.raises(VerificationError) as caught:
        dossier.verify(dossier.omission(node, SIMPUL, victim.feed, note))
    assert caught.value.reason in (Reason.PROOF_INVALID, Reason.SIGNATURE_INVALID, Reason.WRONG_ORIGIN)


def test_what_the_simpul_observed_and_nobody_signed_is_shown_and_proved(federation: Federation) -> None:
    from kad_protocol import evidence  # noqa: PLC0415

    victim = federation.forums[1]
    federation.mandate(victim)
    entry = federation.entry()
    entry.observation.feed, entry.observation.size, entry.observation.root = victim.feed.origin, 2, bytes(range(32))
    index = federation.say(federation.simpul, entry)
    federation.observe(federation.forums[2])
    node = federation.node()
    assert governance(node).head.waiting_reason == Reason.OBSERVATION_CONTRADICTED
    assert Reason.OBSERVATION_CONTRADICTED in [alarm.reason for alarm in vigil.alarms(node, OWN)]
    (item,) = vigil.evidence_list(node, OWN)
    assert item.kind == transparency_pb2.Evidence.KIND_CONTRADICTION
    found = evidence.verify(vigil.evidence_file(node, OWN, item.name))
    assert isinstance(found, evidence.Contradiction)
    assert (found.index, found.member) == (index, victim.feed)


def test_a_log_that_nobody_confirms_and_one_that_stands_still_are_shown(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    federation.decide(federation.forums[0], dict.fromkeys(federation.forums, YES), charter=charter())
    node = federation.node()

    def shown(after: int) -> set[str]:
        monkeypatch.setattr(vigil, "micros_now", lambda: federation.now + after * 1_000_000)
        return {alarm.reason for alarm in vigil.alarms(node, OWN)}

    assert shown(10) == set()
    assert shown(700) == {Reason.CONFIRMATION_OVERDUE}
    assert shown(4 * 3600) == {Reason.LOG_STALE}
    assert shown(-299) == set()
    assert shown(-301) == {Reason.LOG_TIME_WRONG}
    # The simpul does not accuse itself.
    assert vigil.alarms(node, SIMPUL) == []


# A member with two histories.


def twin_of(federation: Federation, member: Author) -> Author:
    """The same member, whose second history begins where its first one stands."""
    state = member.log.feed(member.feed)
    twin = member.__class__(member.log.__class__(), member.feed, member.keys)
    twin.log = member.log.__class__()
    feeds.pin(twin.log, member.feed, member.genesis)
    batch = member.batch(0)
    feeds.extend(twin.log, batch, batch.checkpoint)
    assert twin.log.feed(member.feed).root == state.root
    del federation
    return twin


@pytest.mark.parametrize("known", [True, False])
def test_a_node_takes_the_history_of_a_member_that_the_simpul_observes(federation: Federation, *, known: bool) -> None:
    """A forum shows one node another history than the simpul: that node drops it, once the fork is proved, and judges on."""
    liar, honest = federation.forums[0], federation.forums[1]
    federation.say(liar, draft("Sebelumnya"))
    federation.observe(liar)
    twin = twin_of(federation, liar)
    node = federation.node()
    # What the node is shown, and what the simpul is shown.
    federation.say(twin, draft("Hanya untuk satu"), draft("Juga"))
    ref = federation.mandate(liar)
    federation.say(liar, draft("Untuk simpul"))
    federation.observe(liar)
    index = federation.act("publish-on-behalf", [ref], liar)
    number = federation.propose(honest)
    federation.observe(honest)
    batch = twin.batch(2)
    feeds.extend(node, batch, batch.checkpoint)
    for author in (federation.simpul, honest):
        batch = author.batch(node.feed(author.feed).size)
        feeds.extend(node, batch, batch.checkpoint)
    while order.advance(node, 50) >= 50:
        pass
    assert governance(node).head.waiting_reason == Reason.OBSERVATION_CONTRADICTED
    own = honest.feed
    # Without a proof that the forum is the one that lies, nothing is given up.
    assert vigil.follow_observed(node, own) is None
    with pytest.raises(feeds.ForkedError):
        feeds.check_head(node, liar.feed, liar.log.feed(liar.feed).checkpoint)
    feeds.quarantine(node, liar.feed, Reason.FORKED)
    node.put_local("good-size", liar.feed.origin, b"4")
    assert vigil.follow_observed(node, liar.feed) is None, "what one has signed oneself is not given up"
    assert vigil.follow_observed(node, own) == liar.feed
    assert node.feed(liar.feed).size == 2
    assert node.feed(liar.feed).root == merkle.root_at(liar.log.tiles(liar.feed), 2)
    if known:
        batch = liar.batch(2)
        feeds.extend(node, batch, batch.checkpoint)
        while order.advance(node, 50) >= 50:
            pass
        found, whole = governance(node), governance(federation.node())
        assert found.head.position == whole.head.position
        assert found.act(index).state == whole.act(index).state != 0  # type: ignore[union-attr]
        assert found.decision(number) is not None
        (shown,) = node._connection.execute(
            "SELECT COUNT(*) FROM record r JOIN feed f ON f.id = r.feed WHERE f.origin = ? AND r.source = 0", (liar.feed.origin,)
        ).fetchone()
        assert shown == 1, "what it wrote before goes on being shown, what it wrote since not"
    else:
        while order.advance(node, 50) >= 50:
            pass
        assert governance(node).head.waiting_reason == Reason.WAITING_FOR_FEED
