"""Membership: who applies, is admitted, leaves, comes back, begins anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from kad_protocol.authority import Action, Question, micros_of, threshold
from kad_protocol.entry import log_keys_of
from kad_protocol.errors import KadError, Reason, VerificationError
from kad_protocol.governance.decisions import Decisions
from kad_protocol.governance.effects import Pinned, Standing, Superseded
from kad_protocol.governance.mandates import Mandates
from kad_protocol.governance.words import (
    ACTIVE,
    APPLIED,
    ASSOCIATE,
    LEFT,
    MEMBER,
    SUSPENDED,
    Decision,
    Refused,
    feed_named,
    has_vote,
    is_of_member,
)
from kad_protocol.keys import recovery_digest
from kad_protocol.names import FeedId
from kad_protocol.statement import CERTIFICATE_BINDING, RECOVERY, verify_statement
from kad_protocol.v1 import enrolment_pb2, entry_pb2, governance_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from kad_protocol.note import LogKeys

__all__ = ["Members"]


class Members(Mandates, Decisions):
    """Where forums stand."""

    def membership(  # noqa: C901 - one rule after the other
        self,
        position: int,
        entry: entry_pb2.Membership,
        root_of: Callable[[FeedId, int], bytes | None],
        keys_of: Callable[[FeedId, int], LogKeys | None],
    ) -> None:
        """The simpul says where a forum stands; true only as far as the rules bear it out.

        Args:
            position: of the entry.
            entry: what it says.
            root_of: the root of a feed at a size, None if that is not here.
            keys_of: the keys of a feed at a size that was observed; None if that feed is not for us to judge.

        Raises:
            Refused: with the rule that is broken.
        """
        feed = feed_named(entry.feed)
        if is_of_member(feed.origin, self._simpul) or len(entry.genesis) != 32:  # noqa: PLR2004 - SHA-256
            raise Refused(Reason.ENTRY_MALFORMED, "a membership entry without a genesis, or of the simpul itself")
        member = self.member(self.name_of(feed))
        self._check_federation(feed)
        if member is not None and any(former.feed == feed.origin for former in member.former):
            raise Refused(Reason.EPOCH_SUPERSEDED, f"{feed} was given up by its owner")
        if member is not None and member.state == LEFT and entry.state in (APPLIED, ACTIVE) and not entry.HasField("recovery"):
            self._check_genesis(feed, entry.genesis)
            self._check_consent(member, entry, keys_of)
        if entry.HasField("recovery"):
            self._recover(position, feed, entry, root_of)
        elif entry.state == APPLIED:
            self._apply(position, feed, entry, member)
        elif entry.state == ACTIVE and (member is None or member.state in (APPLIED, LEFT)):
            self._admit(position, feed, entry, member)
        elif member is None:
            raise Refused(Reason.NOT_A_MEMBER, f"{feed} is no member")
        elif member.feed != feed.origin or member.genesis != entry.genesis:
            raise Refused(Reason.GENESIS_MISMATCH, f"{member.name} is known with another feed")
        elif member.state != entry.state or (entry.category and self._category(feed, entry) != member.category):
            raise Refused(Reason.DECISION_MISSING, f"only the members decide where {member.name} stands, and they have not")
        elif entry.state == SUSPENDED and entry.decision != member.decision:
            raise Refused(Reason.DECISION_MISSING, f"{entry.decision or 'nothing'} is not the decision that suspended {member.name}")

    def _check_consent(
        self, member: governance_pb2.FederationMember, entry: entry_pb2.Membership, keys_of: Callable[[FeedId, int], LogKeys | None]
    ) -> None:
        """Whoever has left is let in again only with its own word, given after it left."""
        consent, feed = entry.consent, FeedId.parse(member.feed)
        if not member.observed_size:
            # It said nothing yet, not even that it leaves: the simpul let it go and takes that back.
            return
        try:
            keys = keys_of(feed, member.observed_size)
            if keys is None:
                return
            verify_statement(keys, CERTIFICATE_BINDING, consent.statement, consent.ed25519_signature, consent.mldsa44_signature)
            said = enrolment_pb2.CertificateBinding.FromString(consent.statement)
        except (KadError, DecodeError) as error:
            raise Refused(Reason.CONSENT_MISSING, f"{member.name} has left, and nothing shows that it comes back: {error}") from error
        departed = int(self._items.get("departed", member.name) or b"0")
        if said.feed != feed.origin or micros_of(said.time) < departed:
            raise Refused(Reason.CONSENT_MISSING, f"{member.name} has left, and what shows that it comes back is older than that")

    def _apply(self, position: int, feed: FeedId, entry: entry_pb2.Membership, member: governance_pb2.FederationMember | None) -> None:
        if member is not None and member.state not in (APPLIED, LEFT):
            raise Refused(Reason.ALREADY_ENROLLED, f"{feed.forum} is a member already")
        self._check_epoch(feed, member)
        self._check_genesis(feed, entry.genesis)
        category = self._category(feed, entry)
        if member is not None and member.state == APPLIED and (member.genesis, member.category) == (entry.genesis, category):
            return
        self._put_member(position, feed, entry, APPLIED)

    def _admit(self, position: int, feed: FeedId, entry: entry_pb2.Membership, member: governance_pb2.FederationMember | None) -> None:
        self._check_epoch(feed, member)
        self._check_genesis(feed, entry.genesis)
        by_mandates = self.may_admit(feed, entry, member)
        self._put_member(position, feed, entry, ACTIVE)
        self._items.delete("admission", self.name_of(feed))
        if by_mandates:
            said = b"%d %d " % (position, self.time)
            self._items.put("admission", self.name_of(feed), said + entry.SerializeToString())
        self._await(position, f"{MEMBER}{self.name_of(feed)}")
        self._items.put("genesis", feed.origin, entry.genesis)
        self._items.delete("left-suspended", self.name_of(feed))
        self.effects += [Pinned(feed, entry.genesis), Standing(feed, ACTIVE, self._category(feed, entry))]

    def part(self, position: int, departure: entry_pb2.Departure) -> None:
        """The simpul leaves another federation; that one's simpul is no member here any more either.

        Raises:
            Refused: ``NOT_A_MEMBER``.
        """
        feed = feed_named(departure.simpul)
        member = self.member(self.name_of(feed))
        if member is None or feed.federation == self._simpul.federation or member.state == LEFT:
            raise Refused(Reason.NOT_A_MEMBER, f"{feed} is no simpul that is a member here")
        # Not by its own word: no entry of its feed says so, and none that is void later undoes it.
        self._depart(member, FeedId.parse(member.feed), 0, position)

    def _check_federation(self, feed: FeedId) -> None:
        """Another federation is here by one feed, its simpul's, which speaks of its members; that follows from this log alone."""
        if feed.federation == self._simpul.federation:
            return
        for name, _ in self._items.all("member", f"{feed.federation}/"):
            if name != self.name_of(feed):
                raise Refused(Reason.ROLE_INSUFFICIENT, f"{feed.federation} is here by {name} already, which alone speaks of its members")

    def _check_epoch(self, feed: FeedId, member: governance_pb2.FederationMember | None) -> None:
        """Only its recovery keys begin a later epoch of a member, also after it has left."""
        if feed.epoch and (member is None or member.feed != feed.origin):
            raise Refused(Reason.RECOVERY_INVALID, f"{feed} is not the first epoch of that member, and nothing proves that it is the next")

    def _check_genesis(self, feed: FeedId, genesis: bytes) -> None:
        """A feed that was ever a member's keeps its genesis, also after its owner has left and applies again."""
        if self._items.get("genesis", feed.origin) not in (None, genesis):
            raise Refused(Reason.GENESIS_MISMATCH, f"{feed} was a member with another genesis")

    def may_admit(self, feed: FeedId, entry: entry_pb2.Membership, member: governance_pb2.FederationMember | None) -> bool:
        """Check whether a forum may be admitted now. True if that rests on mandates, False if on endorsements.

        Raises:
            Refused: ``ENDORSEMENTS_MISSING``, or why the mandates do not suffice.
        """
        full = self.full_members()
        needed, suspended = self.endorsements_needed(feed), self._items.get("left-suspended", self.name_of(feed)) is not None
        category = self._category(feed, entry)
        # Members speak for a forum with these keys, as a full member or as an associate; for nothing else.
        meant = member is not None and (member.genesis, member.category) == (entry.genesis, category)
        given = set(member.endorsements) & set(full) if member is not None and meant else set()
        if len(given) >= needed:
            return False
        if entry.mandates and not suspended:
            question = Question(
                self._simpul,
                entry_pb2.MEMBER_ROLE_SIMPUL,
                action=Action.ACT,
                owner=feed,
                function="admit-members",
                cited=tuple(entry.mandates),
                time=max(self.time, self.confirmed),
            )
            verdict = self.may(question)
            if verdict.allowed:
                return True
            raise Refused(verdict.reason or Reason.NO_MANDATE, verdict.message)
        raise Refused(Reason.ENDORSEMENTS_MISSING, f"{feed.forum} needs {needed} endorsements of full members, it has {len(given)}")

    def _category(self, feed: FeedId, entry: entry_pb2.Membership) -> entry_pb2.MemberCategory.ValueType:
        """Whoever belongs to another federation is an associate here, whatever is said: votes and witnesses are a federation's own."""
        return ASSOCIATE if feed.federation != self._simpul.federation else entry.category or entry_pb2.MEMBER_CATEGORY_FULL

    def endorsements_needed(self, feed: FeedId) -> int:
        """How many full members must speak for a forum. For one that left while it was suspended as many as would reinstate it."""
        full, rules = len(self.full_members()), self.head.charter
        needed = min(rules.admission_endorsements, full)
        if full and self._items.get("left-suspended", self.name_of(feed)) is not None:
            return max(needed, threshold(full, rules.membership_percent))
        return needed

    def _put_member(self, position: int, feed: FeedId, entry: entry_pb2.Membership, state: entry_pb2.MembershipState.ValueType) -> None:
        fresh = governance_pb2.FederationMember(name=self.name_of(feed))
        old = self.member(fresh.name)
        if old is not None and old.feed == feed.origin and old.genesis == entry.genesis:
            # Whoever comes back goes on where it left: what was taken once is not taken again.
            fresh.CopyFrom(old)
            del fresh.endorsements[:]
        fresh.feed, fresh.genesis, fresh.state, fresh.position = feed.origin, entry.genesis, state, position
        fresh.category = self._category(feed, entry)
        fresh.time.CopyFrom(self.head.time)
        self._keep_member(fresh)

    def check_recovery(
        self, feed: FeedId, entry: entry_pb2.Membership, root_of: Callable[[FeedId, int], bytes | None]
    ) -> entry_pb2.RecoveryStatement | None:
        """Check whether an entry proves that the owner of a feed begins it anew; what its recovery keys say, None if that has been done.

        Raises:
            Refused: ``RECOVERY_INVALID``.
        """
        member = self.member(self.name_of(feed))
        if member is not None and member.feed == feed.origin and member.genesis == entry.genesis:
            return None
        if member is None or not member.recovery_digest:
            raise Refused(Reason.RECOVERY_INVALID, f"{feed} recovers a feed that is no member's")
        old, recovery = FeedId.parse(member.feed), entry.recovery
        try:
            keys = log_keys_of(old.origin, recovery.recovery_keys.SerializeToString())
            if recovery_digest(keys) != member.recovery_digest:
                raise VerificationError(Reason.RECOVERY_INVALID, "these are not the recovery keys of that member")
            verify_statement(keys, RECOVERY, recovery.statement, recovery.ed25519_signature, recovery.mldsa44_signature)
            said = entry_pb2.RecoveryStatement.FromString(recovery.statement)
        except (KadError, ValueError, DecodeError) as error:
            raise Refused(Reason.RECOVERY_INVALID, f"the recovery does not verify: {error}") from error
        fits = (
            said.feed == old.origin
            and said.next_feed == feed.origin
            and feed == FeedId(old.federation, old.forum, old.epoch + 1)
            and said.next_genesis == entry.genesis
            and 1 <= said.last_good_size <= member.observed_size
        )
        if not fits or root_of(old, said.last_good_size) != said.last_good_root:
            raise Refused(Reason.RECOVERY_INVALID, f"the recovery of {old} does not fit what was observed of it")
        return said

    def state_after_recovery(self, member: governance_pb2.FederationMember, last_good_size: int) -> entry_pb2.MembershipState.ValueType:
        """Where a member stands once it has begun anew: as before, and a departure that a thief declared has not been. Nor has it applied
        again: whoever did so had the keys that are given up.
        """
        if member.state not in (LEFT, APPLIED):
            return member.state
        return member.state_before if member.departure_index >= last_good_size and member.state_before else LEFT

    def _recover(self, position: int, feed: FeedId, entry: entry_pb2.Membership, root_of: Callable[[FeedId, int], bytes | None]) -> None:
        """The owner of a feed begins it anew; only the recovery keys, to which its genesis commits, can say so."""
        said = self.check_recovery(feed, entry, root_of)
        member = self.member(self.name_of(feed))
        if said is None or member is None:
            return
        old = FeedId.parse(said.feed)
        self._undo_beyond(position, member, old, said.last_good_size)
        state = self.state_after_recovery(member, said.last_good_size)
        if state != LEFT:
            self._items.delete("left-suspended", member.name)
        member.state = state
        del member.endorsements[:]
        self._items.put("genesis", feed.origin, entry.genesis)
        member.former.append(governance_pb2.FederationMember.FormerEpoch(feed=old.origin, good_size=said.last_good_size))
        member.feed, member.genesis, member.observed_size, member.position = feed.origin, entry.genesis, 0, position
        for field in ("recovery_digest", "witness_keys", "witness_position", "former_witness_keys", "departure_index", "state_before"):
            # The log knows nothing of the new feed yet, not even its keys.
            member.ClearField(field)
        member.time.CopyFrom(self.head.time)
        self._keep_member(member)
        self.effects += [Pinned(feed, entry.genesis), Superseded(old, said.last_good_size, feed)]
        self.effects += [Standing(old, LEFT, member.category), Standing(feed, member.state, member.category)]

    def _undo_beyond(self, position: int, member: governance_pb2.FederationMember, old: FeedId, good_size: int) -> None:
        """What a thief decided and others have not built upon yet is undone. What was closed or revoked stays so."""
        for granted in self.running(member.name):
            if granted.ref.feed == old.origin and granted.ref.index >= good_size:
                self._end_mandate(granted, position)
        self._resubmit(old, good_size)
        for decision in self._open():
            # What a thief voted or proposed and nobody has closed yet does not count; the owner votes again.
            kept = [vote for vote in decision.votes if vote.feed != old.origin or vote.index < good_size]
            if decision.proposer == old.origin and decision.index >= good_size:
                self._end_decision(decision, position, Decision.STATE_REJECTED, "EPOCH_SUPERSEDED")
            elif len(kept) != len(decision.votes):
                del decision.votes[:]
                decision.votes.extend(kept)
                self._keep_decision(decision)
        for key, value in self._items.all("endorsed", f"{member.name} "):
            origin, _, index = value.decode().partition(" ")
            candidate = self.member(key.partition(" ")[2])
            if origin == old.origin and int(index) >= good_size and candidate is not None and member.name in candidate.endorsements:
                candidate.endorsements.remove(member.name)
                self._keep_member(candidate)

    def _endorse(self, member: governance_pb2.FederationMember, feed: FeedId, index: int, endorsement: entry_pb2.Endorsement) -> None:
        if not has_vote(member):
            raise Refused(Reason.NOT_FULL_MEMBER, f"{member.name} is no full member")
        candidate = self.member(self.name_of(feed_named(endorsement.feed)))
        meant = endorsement.genesis, endorsement.category or entry_pb2.MEMBER_CATEGORY_FULL
        if candidate is None or candidate.state != APPLIED or (candidate.genesis, candidate.category) != meant:
            raise Refused(
                Reason.CANDIDATE_UNKNOWN, f"{endorsement.feed[:80]!r} has not applied, or with another genesis or in another category"
            )
        if member.name in candidate.endorsements:
            raise Refused(Reason.ENDORSEMENT_REPEATED, f"{member.name} has endorsed {candidate.name} before")
        candidate.endorsements.append(member.name)
        self._items.put("endorsed", f"{member.name} {candidate.name}", f"{feed.origin} {index}".encode())
        self._keep_member(candidate)

    def _depart(self, member: governance_pb2.FederationMember, feed: FeedId, index: int, position: int) -> None:
        for granted in self.running(member.name):
            self._end_mandate(granted, position)
        if member.state == SUSPENDED:
            # Leaving does not lift a suspension: see ``may_admit``.
            self._items.put("left-suspended", member.name, b"")
        member.departure_index, member.state_before = index, member.state
        member.state, member.position = LEFT, position
        member.time.CopyFrom(self.head.time)
        self._keep_member(member)
        self.effects.append(Standing(feed, LEFT, member.category))
        for decision in self._open():
            self._close_if_all_voted(decision, position)
