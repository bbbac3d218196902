"""Judging in the order of the simpul's log: what ``kad_protocol.governance`` decides is carried out here.

Storing comes first, then each feed is folded by itself (``kad_protocol.fold``), and then, here, the simpul's log is walked entry by
entry. Where it observes a member's feed, what that member wrote with authority (mandates, votes, ...) takes effect; where it acts, that
is judged by what holds at that place. If what the log observes has not arrived, judging waits there, says so, and goes on when it comes:
nothing is judged early, nothing is judged twice, and everybody gets the same answers.

The logs of other federations' simpuls are judged too, if one's own federation has made them members: that is how their members' feeds
come to be known here. But nobody decides about what is not its own. The word of a foreign simpul has effects on members of its own
federation only, and on no more of them than this store takes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import fold, keychain, merkle
from kad_protocol.authority import is_within_regions
from kad_protocol.entry import MAX_CONTENT_BLOB_BYTES, parse_entry, time_of
from kad_protocol.errors import KadError, Reason, StorageError, VerificationError
from kad_protocol.fold import FoldTransaction, Problem
from kad_protocol.governance import Annulled, Governance, Pinned, Refused, Released, Standing, Superseded, Withdrawn
from kad_protocol.names import FeedId, RecordName, is_record_id
from kad_protocol.store import MAX_ENTRIES
from kad_protocol.v1 import content_pb2, entry_pb2

if TYPE_CHECKING:
    from collections.abc import Collection

    from kad_protocol.governance import Effect, Items
    from kad_protocol.note import LogKeys
    from kad_protocol.store import LogTransaction, StoredEntry

__all__ = ["OrderTransaction", "admitted_role", "advance", "content_arrived", "root_of"]

log = logging.getLogger(__name__)

_CHUNK = 256


class OrderTransaction(FoldTransaction, Protocol):
    """Feeds, what is folded from them, and the affairs of federations, inside one transaction."""

    def unjudged(self) -> list[FeedId]:
        """Feeds of simpuls with folded entries that have not been judged."""

    def recognised(self, simpul: FeedId) -> bool:
        """Is this simpul, which is of another federation, an active member of one's own?"""

    def feed_count(self, federation: str) -> int:
        """How many feeds of a federation are known here."""

    def judged(self, simpul: FeedId) -> int:
        """How many entries of a simpul's feed have been judged."""

    def set_judged(self, simpul: FeedId, size: int) -> None:
        """Say so."""

    def affairs(self, simpul: FeedId) -> Items:
        """The state of a federation."""

    def authority_entries(self, feed: FeedId, after: int, before: int) -> list[int]:
        """Indexes in a range of a feed at which its author wrote something with authority."""

    def put_standing(self, simpul: FeedId, index: int, feed: FeedId, state: int, category: int) -> None:
        """A member's standing changed."""

    def put_hosted_version(
        self,
        owner: FeedId,
        simpul: FeedId,
        index: int,
        version: entry_pb2.RecordVersion,
        time: int,
        content: content_pb2.Content | None,
        *,
        withheld: bool = False,
    ) -> None:
        """The simpul published a version of a record in a forum's name; ``withheld`` as in ``put_version``."""

    def withdraw_hosted(self, owner: FeedId, simpul: FeedId, record: str, reason: str, time: int) -> None:
        """Such a record is withdrawn."""

    def put_submission(self, feed: FeedId, record: str, version: int, *, waits: bool) -> None:
        """A version of a record waits for review before others read it, or does not. Nothing if a newer one is here by now."""

    def put_review(self, feed: FeedId, record: str, version: int, *, approved: bool) -> None:
        """A waiting submission was reviewed. Nothing if a newer version is here by now."""

    def put_unreviewed(self, feed: FeedId, record: str, version: int) -> None:
        """Its review was not lawful: it waits again. Nothing if a newer version is here by now."""

    def forget_hosted(self, owner: FeedId, simpul: FeedId, record: str, version: int) -> None:
        """Versions after this one, of a record that the simpul published in that forum's name, have never been."""

    def release_submissions(self, feed: FeedId, kinds: Collection[int]) -> None:
        """What waits for review waits no longer."""

    def supersede(self, simpul: FeedId, feed: FeedId, good_size: int, heir: FeedId, time: int) -> None:
        """A feed was given up, at a time: what its entries beyond ``good_size`` did is undone, the rest goes over to ``heir``.

        A version that is shown again is hidden from others if the affairs of the federation say that it waits for review.
        """

    def heir(self, feed: FeedId) -> FeedId:
        """The feed that goes on with what this one held; itself, if it was not given up."""

    def put_admission(self, simpul: FeedId, index: int, feed: FeedId) -> None:
        """The simpul named the genesis of a feed."""


class _Waits(Exception):  # noqa: N818 - an answer, not a fault
    """Judging cannot go on here yet."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what


def advance(tx: OrderTransaction, limit: int) -> int:
    """Fold and judge up to ``limit`` entries; a result below ``limit`` means that nothing is left that could be done now."""
    done = 0
    while done < limit:
        folded, judged = fold.advance(tx, limit - done), 0
        for simpul in tx.unjudged():
            if done + folded + judged >= limit:
                break
            if tx.standpoint.is_foreign(simpul) and not tx.recognised(simpul):
                continue
            judged += _advance_one(tx, simpul, limit - done - folded - judged)
        done += folded + judged
        if not judged:
            # Judging may let a feed be folded that had to wait for it; without it there is nothing new to fold.
            break
    return done


def _advance_one(tx: OrderTransaction, simpul: FeedId, limit: int) -> int:
    governance = Governance(tx.affairs(simpul), simpul)
    position, end = governance.head.position, tx.folded(simpul)
    done = 0
    waiting: tuple[str, str] = ("", "")
    while position < end and done < limit and not waiting[0]:
        for stored in tx.entries(simpul, position, min(_CHUNK, end - position, limit - done), 4 << 20):
            try:
                _Step(tx, governance, stored).run()
            except _Waits as wait:
                waiting = (wait.reason.value, wait.what)
                break
            position = stored.index + 1
            done += 1
    head = governance.head
    if done or (head.waiting_reason, head.waiting_for) != waiting:
        head.waiting_reason, head.waiting_for = waiting
        if waiting[0] == Reason.FOREIGN_FEEDS_LIMIT:
            message = f"this node takes {tx.standpoint.foreign_feeds} feeds of another federation (limits.foreign_feeds), not {waiting[1]}"
            tx.put_problem(simpul, position, Problem(Reason.FOREIGN_FEEDS_LIMIT, message, waiting=True))
        governance.save()
        tx.set_judged(simpul, position)
    return done


def root_of(tx: LogTransaction, feed: FeedId, size: int) -> bytes | None:
    """The root of a feed at a size, None if that is not here."""
    state = tx.feed(feed)
    if state is None or not 1 <= size <= state.size:
        return None
    return state.root if size == state.size else merkle.root_at(tx.tiles(feed), size)


def admitted_role(simpul: FeedId, feed: FeedId) -> entry_pb2.MemberRole.ValueType:
    """The role that a feed must have which a simpul names. Of its own federation it names forums only: a second simpul would judge, in
    its own log, whatever it likes. Of another federation its simpul joins; what that one's feed says it is, is left open.
    """
    return entry_pb2.MEMBER_ROLE_FORUM if feed.federation == simpul.federation else entry_pb2.MEMBER_ROLE_UNSPECIFIED


class _Step:
    """One entry of the simpul's log."""

    def __init__(self, tx: OrderTransaction, governance: Governance, stored: StoredEntry) -> None:
        self._tx = tx
        self._governance = governance
        self._stored = stored
        self._simpul = governance.simpul
        self._foreign = tx.standpoint.is_foreign(self._simpul)

    def _rules(self, feed: FeedId) -> bool:
        """May this simpul's word have an effect on that feed here? One's own simpul decides about its members, whoever they are; that
        of another federation about those of its own.
        """
        return not self._foreign or feed.federation == self._simpul.federation

    def run(self) -> None:
        """Judge it; what it breaks is kept as a problem of the entry.

        Whatever its author wrote into it, it keeps no other entry from being judged, nor anything from being stored.
        """
        try:
            self._run()
        except StorageError:
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, DecodeError, KadError, Refused) as error:
            log.warning("judging failed", exc_info=error, extra={"feed": self._simpul.origin, "index": self._stored.index})
            self._governance.effects = []
            self._tx.put_problem(self._simpul, self._stored.index, Problem(Reason.ENTRY_MALFORMED, f"judging it failed: {error}"[:300]))

    def _run(self) -> None:
        entry = parse_entry(self._stored.body)
        body = entry.WhichOneof("body") if entry is not None else None
        if entry is None or body is None:
            self._governance.reach(self._stored.index, 0)
            return
        if body == "observation":
            self._wait_for_observed(entry.observation)
        elif body == "membership" and self._foreign:
            self._wait_for_room(entry.membership)
        self._governance.reach(self._stored.index, time_of(entry))
        self._carry_out()
        try:
            self._judge(body, entry)
        except Refused as error:
            self._tx.put_problem(self._simpul, self._stored.index, Problem(error.reason, str(error)))
        self._carry_out()

    def _judge(self, body: str, entry: entry_pb2.Entry) -> None:
        governance, index = self._governance, self._stored.index
        match body:
            case "observation":
                self._observe(entry.observation)
            case "membership":
                try:
                    governance.membership(index, entry.membership, self._root_of, self._keys_of)
                finally:
                    # Whatever else is wrong with it, this says most.
                    self._check_foreign_word(entry.membership)
            case "departure":
                governance.part(index, entry.departure)
            case "founding":
                governance.found(entry.founding)
            case "finality":
                governance.finality(entry.finality.note, self._root_of)
            case "census":
                self._census()
            case "act":
                self._act(entry)
            case "mandate" if entry.mandate.delegate == self._simpul.origin:
                raise Refused(Reason.MANDATE_INVALID, "nobody mandates itself")

    def _root_of(self, feed: FeedId, size: int) -> bytes | None:
        return root_of(self._tx, feed, size)

    def _keys_of(self, feed: FeedId, size: int) -> LogKeys | None:
        """None for somebody of a third federation, of whom nothing need come here."""
        if not self._rules(feed) and self._tx.standpoint.is_foreign(feed):
            return None
        return keychain.keys_at(self._tx, feed, size)

    # Simpuls of other federations.

    def _wait_for_room(self, membership: entry_pb2.Membership) -> None:
        """Somebody else's federation can be as large as it likes, but not here."""
        try:
            feed = FeedId.parse(membership.feed)
        except KadError:
            return
        would_pin = membership.state == entry_pb2.MEMBERSHIP_STATE_ACTIVE or membership.HasField("recovery")
        full = self._tx.feed_count(feed.federation) >= self._tx.standpoint.foreign_feeds
        if would_pin and full and self._rules(feed) and self._tx.feed(feed) is None:
            raise _Waits(Reason.FOREIGN_FEEDS_LIMIT, feed.origin)
        waited = self._tx.problem(self._simpul, self._stored.index)
        if waited is not None and waited.reason == Reason.FOREIGN_FEEDS_LIMIT:
            self._tx.clear_problem(self._simpul, self._stored.index)

    def _check_foreign_word(self, membership: entry_pb2.Membership) -> None:
        """Another simpul may count our own one among its members, as it does when both are joined; nobody else of us."""
        try:
            feed = FeedId.parse(membership.feed)
        except KadError:
            return
        if not self._foreign or feed.federation != self._tx.standpoint.federation:
            return
        state = self._tx.feed(feed)
        if state is None or state.role != entry_pb2.MEMBER_ROLE_SIMPUL:
            raise Refused(Reason.FOREIGN_WORD, f"{self._simpul} has no say about {feed}, which is of this federation")

    # Observations.

    def _wait_for_observed(self, observation: entry_pb2.Observation) -> None:
        """What a member wrote must be here, and be what the simpul says, before its place in the order can be passed."""
        try:
            feed = FeedId.parse(observation.feed)
        except KadError:
            return
        known = self._governance.observed_size(feed)
        if known is None or observation.size < known or not _is_possible(observation):
            return
        if self._tx.folded(feed) < observation.size:
            if not self._rules(feed) and self._tx.standpoint.is_foreign(feed):
                # Somebody of a third federation, of whom nothing need come here.
                return
            raise _Waits(Reason.WAITING_FOR_FEED, feed.origin)
        if self._root_of(feed, observation.size) != observation.root:
            # One of the two has signed two histories. Nothing that rests on this place is believed here.
            raise _Waits(Reason.OBSERVATION_CONTRADICTED, feed.origin)

    def _observe(self, observation: entry_pb2.Observation) -> None:
        governance = self._governance
        try:
            feed = FeedId.parse(observation.feed)
        except KadError:
            return
        known = governance.observed_size(feed)
        if known is None or not _is_possible(observation):
            return
        # Folding could keep it only if the feed was known by then; whoever comes later gets to know its members here.
        self._tx.put_observation(self._simpul, self._stored.index, feed, observation.size, observation.root)
        if observation.size == known:
            return
        if observation.size < known:
            raise Refused(Reason.OBSERVATION_WENT_BACK, f"{feed} was observed to {known} before, now to {observation.size}")
        if self._tx.feed(feed) is not None:
            for index in self._tx.authority_entries(feed, known, observation.size):
                self._take(feed, index)
        if self._decides_for(feed) and governance.was_curated(governance.name_of(feed)):
            self._submit(feed, known, observation.size)
        governance.observe(feed, observation.size)

    def _submit(self, feed: FeedId, known: int, size: int) -> None:
        """What it wrote waits for review if it wants that. Only what the log has observed counts, however much more is here."""
        name = self._governance.name_of(feed)
        kinds = {kind for kind in content_pb2.RecordKind.values() if kind and self._governance.curated(name, kind)}
        while known < size:
            for stored in self._tx.entries(feed, known, min(_CHUNK, size - known), 4 << 20):
                known = stored.index + 1
                entry = parse_entry(stored.body)
                if entry is None or not entry.HasField("record_version"):
                    continue
                version, fault = entry.record_version, self._tx.problem(feed, stored.index)
                if not is_record_id(version.record) or (fault is not None and fault.reason in fold.NO_VERSION):
                    # What is no version of the record takes no version's place.
                    continue
                waits = version.kind in kinds
                self._governance.submit(feed, stored.index, version, waits=waits)
                self._tx.put_submission(feed, version.record, version.version, waits=waits)

    def _take(self, feed: FeedId, index: int) -> None:
        stored = self._tx.entries(feed, index, 1, 1)[0]
        entry = parse_entry(stored.body)
        if entry is None:
            return
        try:
            self._governance.take(feed, index, merkle.leaf_hash(stored.body), entry, self._stored.index)
        except Refused as error:
            if self._rules(feed):
                self._tx.put_problem(feed, index, Problem(error.reason, str(error)))

    def _decides_for(self, feed: FeedId) -> bool:
        """Is it a feed of this simpul's own federation? Records of others are no affair of it, members or not."""
        return feed.federation == self._simpul.federation

    def _census(self) -> None:
        """It must be what was observed; without its list, which is large, there is nothing to compare yet."""
        if not self._stored.content:
            return
        try:
            said = entry_pb2.CensusList.FromString(contents.split(self._stored.content)[1])
        except (DecodeError, KadError) as error:
            raise Refused(Reason.CENSUS_WRONG, "the list of the census is not one") from error
        listed = {observation.feed: observation.size for observation in said.observations}
        expected = {
            member.feed: member.observed_size
            for member in self._governance.members()
            if member.state == entry_pb2.MEMBERSHIP_STATE_ACTIVE and member.observed_size
        }
        if listed != expected:
            raise Refused(Reason.CENSUS_WRONG, f"the census lists {len(listed)} members, and not what was observed of {len(expected)}")

    # Acts.

    def _act(self, entry: entry_pb2.Entry) -> None:
        act, deed = entry.act, entry.act.WhichOneof("deed") or ""
        owner, governance = self._owner(act), self._governance
        kind = 0
        if owner is not None and deed == "withdrawal" and (hosted := governance.hosted(owner, act.withdrawal.record)) is not None:
            kind = hosted[1]
        elif owner is not None and deed == "review" and (submitted := governance.submission(owner, act.review.record)) is not None:
            kind = submitted[1]
        performed = governance.perform(self._stored.index, act, time_of(entry), kind)
        try:
            self._effect(entry, owner)
        except Refused as error:
            raise governance.refuse(performed, error.reason, str(error)) from error
        if deed in ("publication", "withdrawal", "statement"):
            # An act is judged by its entry alone: what it says travels beside it, and comes to some sooner than to others.
            problem = _act_content(self._tx, self._simpul, self._stored, entry)
            if problem is not None and not (problem.waiting and self._is_withheld(entry)):
                self._tx.put_problem(self._simpul, self._stored.index, problem)

    def _owner(self, act: entry_pb2.Act) -> FeedId | None:
        try:
            owner = FeedId.parse(act.on_behalf_of)
        except KadError:
            return None
        return self._tx.heir(owner) if self._decides_for(owner) and self._tx.feed(owner) is not None else None

    def _is_withheld(self, entry: entry_pb2.Entry) -> bool:
        return fold.is_withheld(self._tx, self._simpul, entry)

    def _effect(self, entry: entry_pb2.Entry, owner: FeedId | None) -> None:
        act = entry.act
        if act.WhichOneof("deed") == "statement":
            return
        if owner is None:
            raise Refused(Reason.FEED_NOT_FOUND, "the act is in the name of nobody who is known here")
        match act.WhichOneof("deed"):
            case "publication":
                self._publish(owner, act, time_of(entry))
            case "withdrawal":
                self._withdraw(owner, act, time_of(entry))
            case "review":
                review = act.review
                waiting = self._governance.submission(owner, review.record)
                if waiting is None or waiting[0] != review.version:
                    raise Refused(Reason.VERSION_OUT_OF_ORDER, f"version {review.version} of that record does not wait for a review")
                self._governance.reviewed(owner, review.record, approved=review.approved)
                self._tx.put_review(owner, review.record, review.version, approved=review.approved)

    def _publish(self, owner: FeedId, act: entry_pb2.Act, time: int) -> None:
        version = act.publication
        head = self._governance.hosted(owner, version.record)
        due = 1 if head is None else head[0] + 1
        if not is_record_id(version.record) or version.version != due or (head is not None and head[1] != version.kind):
            raise Refused(Reason.VERSION_OUT_OF_ORDER, f"version {version.version} of a record where {due} was due")
        if head is not None and head[2]:
            raise Refused(Reason.RECORD_RETRACTED, f"record {version.record} was withdrawn before")
        if version.audience not in (content_pb2.AUDIENCE_PUBLIC, content_pb2.AUDIENCE_FEDERATION):
            raise Refused(Reason.AUDIENCE_NOT_SUPPORTED, "this version does not know the audience of the record")
        self._governance.keep_hosted(owner, version.record, version.version, version.kind)
        self._show(owner, act, time, self._stored)

    def _show(self, owner: FeedId, act: entry_pb2.Act, time: int, stored: StoredEntry) -> None:
        version = act.publication
        good = bool(stored.content) and _fault(act, stored.content) is None
        content = contents.parse_content(contents.split(stored.content)[1]) if good else None
        withheld = not stored.content and self._foreign and version.audience != content_pb2.AUDIENCE_PUBLIC
        self._tx.put_hosted_version(owner, self._simpul, stored.index, version, time, content, withheld=withheld)

    def _withdraw(self, owner: FeedId, act: entry_pb2.Act, time: int) -> None:
        head = self._governance.hosted(owner, act.withdrawal.record)
        if head is None or head[2] or head[0] != act.withdrawal.version:
            raise Refused(Reason.VERSION_OUT_OF_ORDER, "a withdrawal that fits no record that was published in that name")
        self._governance.keep_hosted(owner, act.withdrawal.record, *head[:2], withdrawn=True)
        self._tx.withdraw_hosted(owner, self._simpul, act.withdrawal.record, fold.retraction_reason(self._stored), time)

    # What follows.

    def _carry_out(self) -> None:
        effects, self._governance.effects = self._governance.effects, []
        for effect in effects:
            try:
                self._one(effect)
            except (Refused, VerificationError) as error:
                self._tx.put_problem(self._simpul, self._stored.index, Problem(error.reason, str(error)))

    def _one(self, effect: Effect) -> None:  # noqa: C901 - one effect after the other
        match effect:
            case Pinned(feed, genesis):
                if self._rules(feed):
                    self._require_own(feed)
                    # This is what makes a node accept a feed at all: members, or the simpul as far as they let it, name its genesis.
                    feeds.pin(self._tx, feed, genesis, admitted_role(self._simpul, feed))
                    self._tx.put_admission(self._simpul, self._stored.index, feed)
            case Standing(feed, state, category):
                if not self._foreign:
                    self._require_own(feed)
                # Kept as what this simpul says; whose word counts is for those to know who ask (kad_node.store.queries).
                self._tx.put_standing(self._simpul, self._stored.index, feed, state, category)
            case Annulled(index, reason):
                self._tx.put_problem(self._simpul, index, Problem(reason, "what it did has no effect after all"))
            case Released(feed, kinds) if self._decides_for(feed):
                self._tx.release_submissions(feed, kinds)
            case Superseded(feed, good_size, heir) if self._rules(feed) and self._tx.feed(feed) is not None:
                self._require_own(feed)
                feeds.quarantine(self._tx, feed, Reason.EPOCH_SUPERSEDED)
                self._tx.supersede(self._simpul, feed, good_size, heir, self._governance.time)
            case Withdrawn(performed, reason) if reason is Reason.ACT_VETOED:
                act, owner = performed.act, self._owner(performed.act)
                if owner is not None and act.WhichOneof("deed") == "publication":
                    head = self._governance.hosted(owner, act.publication.record)
                    if head is not None:
                        self._governance.keep_hosted(owner, act.publication.record, *head[:2], withdrawn=True)
                    self._tx.withdraw_hosted(owner, self._simpul, act.publication.record, reason.value, self._governance.time)
            case Withdrawn(performed, reason):
                self._tx.put_problem(self._simpul, performed.index, Problem(reason, f"{performed.name} has no effect after all"))
                if (owner := self._owner(performed.act)) is not None:
                    self._undo(performed.index, performed.act, owner, reason)

    def _undo(self, index: int, act: entry_pb2.Act, owner: FeedId, reason: Reason) -> None:
        """An act turned out never to have been lawful: what it changed stands as it would without it."""
        match act.WhichOneof("deed"):
            case "publication" | "withdrawal" as deed:
                record = getattr(act, deed).record
                before = self._governance.hosted(owner, record)
                place = self._governance.unhost(owner, record, index)
                if place is None:
                    if before is not None and not before[2]:
                        self._tx.withdraw_hosted(owner, self._simpul, record, reason.value, self._governance.time)
                    return
                stored = self._tx.entries(self._simpul, place, 1, MAX_CONTENT_BLOB_BYTES)[0]
                entry = parse_entry(stored.body)
                if entry is None or before == self._governance.hosted(owner, record):
                    return
                self._tx.forget_hosted(owner, self._simpul, record, entry.act.publication.version)
                self._show(owner, entry.act, time_of(entry), stored)
            case "review" if self._governance.unreview(owner, act.review.record, act.review.version):
                self._tx.put_unreviewed(owner, act.review.record, act.review.version)

    def _require_own(self, feed: FeedId) -> None:
        """A simpul says nothing of the members of another federation whose own simpul is known here.

        Raises:
            Refused: ``ROLE_INSUFFICIENT``.
        """
        if feed.federation == self._simpul.federation:
            return
        of_theirs = (state.feed for state in self._tx.feeds() if state.role == entry_pb2.MEMBER_ROLE_SIMPUL)
        if any(simpul.federation == feed.federation and simpul != feed for simpul in of_theirs):
            raise Refused(Reason.ROLE_INSUFFICIENT, f"{feed} belongs to another federation, whose own simpul speaks of it")


def _is_possible(observation: entry_pb2.Observation) -> bool:
    """If not, folding has said so; it has no effect."""
    return 1 <= observation.size < MAX_ENTRIES and len(observation.root) == merkle.HASH_SIZE


def _check_act_content(act: entry_pb2.Act, blob: bytes) -> None:
    """The content of an act may name nothing that its entry does not.

    Raises:
        Refused: ``CONTENT_MALFORMED``, ``MANDATE_SCOPE``, ``ACT_INVALID``.
    """
    deed = act.WhichOneof("deed")
    if not blob or deed not in ("publication", "statement"):
        return
    data = contents.split(blob)[1]
    try:
        if deed == "publication":
            content = fold.content_of(act.publication, blob)
            regions = [region.code for region in content.regions]
            if not set(content.sectors) <= set(act.sectors) or not is_within_regions(regions, act.regions):
                raise Refused(Reason.MANDATE_SCOPE, "the content names affairs or regions that the act does not")
        else:
            statement = entry_pb2.ActStatement.FromString(data)
            contents.check(statement)
            named = {FeedId.parse(origin).forum for origin in act.statement.members}
            names = [RecordName.parse(item.record) for item in statement.items]
            if any(name.federation or name.forum not in named for name in names):
                raise Refused(Reason.ACT_INVALID, "the statement deals with records of members in whose name it is not made")
    except (DecodeError, KadError) as error:
        raise Refused(Reason.CONTENT_MALFORMED, f"the content of the act does not read: {error}") from error


def content_arrived(tx: OrderTransaction, feed: FeedId, index: int) -> None:
    """Judge an entry again whose content has just been supplied (see ``fold.content_arrived``)."""
    stored = tx.entries(feed, index, 1, MAX_CONTENT_BLOB_BYTES)[0]
    entry = parse_entry(stored.body)
    if entry is None or not entry.HasField("act"):
        fold.content_arrived(tx, feed, index)
    elif index < tx.judged(feed):
        waiting = tx.problem(feed, index)
        if waiting is None or waiting.reason != Reason.CONTENT_MISSING:
            return
        problem = _act_content(tx, feed, stored, entry)
        if problem is not None:
            tx.put_problem(feed, index, problem)
            return
        tx.clear_problem(feed, index)
        if entry.act.WhichOneof("deed") == "publication":
            content = contents.parse_content(contents.split(stored.content)[1])
            tx.put_content(tx.heir(FeedId.parse(entry.act.on_behalf_of)), index, entry.act.publication, content, feed)
        elif entry.act.WhichOneof("deed") == "withdrawal":
            owner, record = tx.heir(FeedId.parse(entry.act.on_behalf_of)), entry.act.withdrawal.record
            tx.withdraw_hosted(owner, feed, record, fold.retraction_reason(stored), time_of(entry))


def _act_content(tx: OrderTransaction, simpul: FeedId, stored: StoredEntry, entry: entry_pb2.Entry) -> Problem | None:
    """What becomes of a lawful act by what it says; the same whenever that arrives. Returns what is wrong: then it is not shown."""
    act = entry.act
    if not stored.content:
        return Problem(Reason.CONTENT_MISSING, "the content of the act has not arrived", waiting=True)
    problem = _fault(act, stored.content)
    if problem is not None and act.WhichOneof("deed") == "publication":
        owner, record = tx.heir(FeedId.parse(act.on_behalf_of)), act.publication.record
        head = tx.record_head(owner, record, simpul)
        if head is not None and head.version == act.publication.version and not head.retracted:
            tx.withdraw_hosted(owner, simpul, record, problem.reason.value, time_of(entry))
    return problem


def _fault(act: entry_pb2.Act, blob: bytes) -> Problem | None:
    try:
        _check_act_content(act, blob)
    except Refused as error:
        return Problem(error.reason, str(error))
    return None
