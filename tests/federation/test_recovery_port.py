"""What the enrolment port refuses of those who want to begin somebody's feed anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kad_node import enrolment
from kad_node.enrolment import Enrolled, Standing, prepare_recovery, recover
from kad_node.store.sqlite import SqliteStore
from kad_protocol import merkle
from kad_protocol.entry import genesis_entry, key_set
from kad_protocol.errors import KadError, Reason
from kad_protocol.invitation import decode
from kad_protocol.keys import MemberKeys, RecoveryKeys
from kad_protocol.names import FeedId
from kad_protocol.statement import RECOVERY, sign_statement
from kad_protocol.v1 import entry_pb2
from tests.federation.harness import until
from tests.federation.test_keys import holds, join, observed, publish, status

if TYPE_CHECKING:
    from tests.federation.harness import Federation

pytestmark = pytest.mark.federation

WEAK = bytes([1]) + bytes(31)


class Owner:
    """Who recovers, step by step, and may lie in each."""

    def __init__(self, standing: Standing, recovery: RecoveryKeys) -> None:
        old = standing.feed
        self.feed = FeedId(old.federation, old.forum, old.epoch + 1)
        self.keys = MemberKeys.generate(self.feed.epoch)
        self.recovery = recovery
        self.signer = self.keys.log_signer(self.feed.origin)
        self.genesis = genesis_entry(
            self.feed,
            self.signer.public,
            self.keys.witness_signer(self.feed.origin).public,
            RecoveryKeys.generate().public_digest,
            entry_pb2.MEMBER_ROLE_FORUM,
            1,
        )
        self.said = entry_pb2.RecoveryStatement(
            feed=old.origin,
            last_good_size=standing.last_good_size,
            last_good_root=standing.last_good_root,
            next_feed=self.feed.origin,
            next_genesis=merkle.leaf_hash(self.genesis.SerializeToString()),
        )

    def proof(self) -> entry_pb2.Recovery:
        signer = self.recovery.signer(self.said.feed)
        payload = self.said.SerializeToString()
        first, second = sign_statement(signer, RECOVERY, payload)
        return entry_pb2.Recovery(
            statement=payload, recovery_keys=key_set(signer.public), ed25519_signature=first, mldsa44_signature=second
        )

    async def send(self, address: str, digest: bytes) -> Enrolled:
        return await recover(address, digest, self.proof(), self.genesis.SerializeToString(), self.signer)


async def test_a_recovery_that_does_not_fit_is_refused_and_changes_nothing(federation: Federation) -> None:  # noqa: PLR0915 - a list of lies
    victim, code = await join(federation, "forum-a")
    other, foreign = await join(federation, "forum-b")
    name = publish(victim)
    await holds(other, name)
    await until(lambda: observed(other, victim), "all is observed")
    found = json.loads(federation.simpul.run("keys", "show", "--json"))
    address, digest = found["enrolment_address"], bytes.fromhex(found["authority_key_digest"])
    recovery, thief = RecoveryKeys.from_code(code), RecoveryKeys.from_code(foreign)

    async def reason(owner: Owner) -> Reason:
        with pytest.raises(KadError) as caught:
            await owner.send(address, digest)
        return caught.value.reason

    with pytest.raises(KadError) as caught:
        await prepare_recovery(address, digest, "forum-a", thief)
    assert caught.value.reason is Reason.RECOVERY_INVALID
    with pytest.raises(KadError) as caught:
        await prepare_recovery(address, digest, "simpul-uji", recovery)
    assert caught.value.reason is Reason.RECOVERY_INVALID
    standing = await prepare_recovery(address, digest, "forum-a", recovery)
    own_standing = await prepare_recovery(address, digest, "forum-b", thief)

    def owner(recovery: RecoveryKeys = recovery) -> Owner:
        return Owner(standing, recovery)

    liar = owner(thief)
    assert await reason(liar) is Reason.RECOVERY_INVALID, "the code of another forum"
    liar = owner()
    liar.said.last_good_root = bytes(32)
    assert await reason(liar) is Reason.RECOVERY_INVALID, "a root that does not fit"
    liar = owner()
    liar.said.last_good_size += 1
    assert await reason(liar) is Reason.RECOVERY_INVALID, "more than was observed"
    liar = owner()
    liar.said.feed = own_standing.feed.origin
    assert await reason(liar) is Reason.RECOVERY_INVALID, "a statement about another feed"
    liar = Owner(own_standing, thief)
    liar.said.feed, liar.said.last_good_root = standing.feed.origin, standing.last_good_root
    assert await reason(liar) is Reason.RECOVERY_INVALID, "another forum's epoch"
    for field in ("log_keys", "witness_keys"):
        liar = owner()
        getattr(liar.genesis.genesis, field).ed25519_public = WEAK
        liar.said.next_genesis = merkle.leaf_hash(liar.genesis.SerializeToString())
        assert await reason(liar) in (Reason.WEAK_KEY, Reason.SIGNATURE_INVALID)
    liar = owner()
    liar.genesis.genesis.recovery_digest = recovery.public_digest
    liar.said.next_genesis = merkle.leaf_hash(liar.genesis.SerializeToString())
    assert await reason(liar) is Reason.RECOVERY_INVALID, "the same code again"
    assert getattr(await status(victim), "self").feed.endswith("/e0")  # noqa: B009
    assert not federation.simpul.json("members")[0].get("former")

    # The right one is accepted, and repeated with the same answer; what is public of it gives nobody else a certificate.
    right = owner()
    first, again = await right.send(address, digest), await right.send(address, digest)
    assert (first.simpul_feed, first.simpul_genesis) == (again.simpul_feed, again.simpul_genesis)
    copied = owner()
    copied.genesis, copied.said = right.genesis, right.said
    assert await reason(copied) is Reason.SIGNATURE_INVALID
    assert await reason(owner()) is Reason.RECOVERY_INVALID, "the old code is used up"
    with pytest.raises(KadError) as caught:
        await prepare_recovery(address, digest, "forum-a", recovery)
    assert caught.value.reason is Reason.RECOVERY_INVALID
    with pytest.raises(KadError) as caught:
        await enrolment.renew(address, victim.home.read("channel/authority.pem"), standing.feed, right.signer)
    assert caught.value.reason is Reason.EPOCH_SUPERSEDED
    assert len(federation.simpul.json("members")[0]["former"]) == 1

    # Nor does an invitation bring the old epoch back, and the simpul writes nothing for which others would blame it.
    await victim.stop()
    store = await SqliteStore.open(victim.home.store, lambda _: False)
    genesis = (await store.read(lambda tx: tx.entries(standing.feed, 0, 1, 1)))[0].body
    await store.close()
    code_again, signer = decode(federation.invite("forum-a")), victim.home.create_keys({}).log_signer(standing.feed.origin)
    with pytest.raises(KadError) as caught:
        await enrolment.enrol(code_again, standing.feed, signer, genesis)
    assert caught.value.reason is Reason.EPOCH_SUPERSEDED
    assert "UNLAWFUL" not in {alarm["reason"] for alarm in other.json("status").get("alarms", [])}
