"""A federation without channels: a simpul and forums that write, and nodes that copy and judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kad_node.store.memory import MemoryLog
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import merkle, order
from kad_protocol.entry import new_entry
from kad_protocol.feed import Draft
from kad_protocol.governance import Governance
from kad_protocol.names import FeedId, new_record_id
from kad_protocol.note import Checkpoint, cosign
from kad_protocol.statement import CERTIFICATE_BINDING, sign_statement
from kad_protocol.v1 import content_pb2, enrolment_pb2, entry_pb2
from kad_protocol.witness import with_cosignatures
from tests.unit.feeds import Author, SqliteLog, draft

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAY = 86_400 * 1_000_000
#: 2027-01-01, when these federations live.
START = 1_798_761_600 * 1_000_000
SIMPUL = FeedId("uji.kad.internal", "simpul")
_SIGNATURES = ("ed25519_signature", "mldsa44_signature")
YES, NO, ABSTAIN = entry_pb2.Vote.CHOICE_YES, entry_pb2.Vote.CHOICE_NO, entry_pb2.Vote.CHOICE_ABSTAIN
SUBSIDIARITY, NETWORKING = entry_pb2.MODE_SUBSIDIARITY, entry_pb2.MODE_NETWORKING


def charter(version: int = 1, mode: int = SUBSIDIARITY, **more: Any) -> entry_pb2.Charter:
    rules = {"participation_percent": 60, "general_percent": 60, "membership_percent": 60, "charter_percent": 75, **more}
    return entry_pb2.Charter(version=version, mode=mode, **rules)  # type: ignore[arg-type]


class Federation:
    """Its time is ``now`` (microseconds); whatever is written is written then."""

    def __init__(self, folder: Path, count: int = 4, mode: int = SUBSIDIARITY, simpul: FeedId = SIMPUL) -> None:
        self.folder = folder
        self.now = START
        #: Where the log holds the word of members, and the time that they gave.
        self.settled: dict[int, int] = {}
        self.simpul = Author(MemoryLog(), simpul, role=entry_pb2.MEMBER_ROLE_SIMPUL)
        #: Feeds that their owners gave up.
        self.former: list[Author] = []
        self.forums = [Author(MemoryLog(), FeedId(simpul.federation, f"forum-{n}")) for n in range(count)]
        entry = self.entry()
        entry.founding.mode = mode  # type: ignore[assignment]
        self.simpul.write([Draft(entry)])
        for forum in self.forums:
            self.admit(forum)
            self.observe(forum)

    def entry(self) -> entry_pb2.Entry:
        return new_entry(self.now)

    def say(self, author: Author, *drafts: Draft | entry_pb2.Entry) -> int:
        """Write to a feed; the index of the last one."""
        author.write([Draft(item) if isinstance(item, entry_pb2.Entry) else item for item in drafts])
        return author.log.feed(author.feed).size - 1  # type: ignore[no-any-return]

    # The simpul.

    def admit(
        self, forum: Author, state: int = entry_pb2.MEMBERSHIP_STATE_ACTIVE, category: int = entry_pb2.MEMBER_CATEGORY_FULL, **more: Any
    ) -> int:
        entry = self.entry()
        if state != entry_pb2.MEMBERSHIP_STATE_SUSPENDED:
            more.setdefault("consent", self.consent(forum))
        entry.membership.CopyFrom(
            entry_pb2.Membership(feed=forum.feed.origin, genesis=forum.genesis, state=state, category=category, **more)  # type: ignore[arg-type]
        )
        return self.say(self.simpul, entry)

    def consent(self, forum: Author) -> entry_pb2.Consent:
        """A forum asks to be let in, now by its own clock."""
        said = enrolment_pb2.CertificateBinding(feed=forum.feed.origin)
        said.time.FromMicroseconds(self.now)
        signer = forum.signers[feeds.keys_of(forum.log.feed(forum.feed))]
        statement = said.SerializeToString()
        return entry_pb2.Consent(
            statement=statement, **dict(zip(_SIGNATURES, sign_statement(signer, CERTIFICATE_BINDING, statement), strict=True))
        )

    def observe(self, *forums: Author) -> None:
        for forum in forums:
            entry, state = self.entry(), forum.log.feed(forum.feed)
            entry.observation.feed, entry.observation.size, entry.observation.root = forum.feed.origin, state.size, state.root
            self.say(self.simpul, entry)

    def tick(self, micros: int) -> None:
        """Time passes, in the simpul's log and by the clocks of all who confirm it."""
        self.now += micros
        self.observe(self.forums[0])
        self.settle()

    def settle(self) -> int:
        """Everybody who may confirms the log as it stands, and the log says so."""
        return self.finality(self.forums)

    def finality(self, witnesses: Sequence[Author], at: int | None = None, size: int = 0) -> int:
        size = size or self.simpul.log.feed(self.simpul.feed).size
        checkpoint = Checkpoint(self.simpul.feed.origin, size, merkle.root_at(self.simpul.log.tiles(self.simpul.feed), size))
        note = self.simpul.log.feed(self.simpul.feed).checkpoint
        lines = [
            "".join(
                str(line) for line in cosign(checkpoint, (w.witness or w.keys).witness_signer(w.feed.origin), (at or self.now) // 1_000_000)
            ).encode()
            for w in witnesses
        ]
        entry = self.entry()
        entry.finality.note = with_cosignatures(note, lines)
        place = self.say(self.simpul, entry)
        self.settled[place] = (at or self.now) // 1_000_000 * 1_000_000
        return place

    def act(self, function: str, refs: Sequence[entry_pb2.MandateRef], forum: Author, *, kind: int = 3, **more: Any) -> int:
        """Publish an agenda item (or a record of another kind) in a forum's name."""
        made = agenda(kind)
        entry = self.entry()
        entry.act.CopyFrom(entry_pb2.Act(function=function, mandates=refs, on_behalf_of=forum.feed.origin, **more))
        entry.act.publication.CopyFrom(made.entry.record_version)
        return self.say(self.simpul, Draft(entry, made.content))

    def state_act(self, function: str, refs: Sequence[entry_pb2.MandateRef], members: Sequence[Author]) -> int:
        blob = contents.new_blob(entry_pb2.ActStatement(title="Surat", addressee="Kemendagri", text="...").SerializeToString())
        entry = self.entry()
        statement = entry.act.statement
        entry.act.function = function
        entry.act.mandates.extend(refs)
        statement.id, statement.digest, statement.content_size = new_record_id(), contents.digest(blob), len(blob) - 32
        statement.members.extend(m.feed.origin for m in members)
        return self.say(self.simpul, Draft(entry, blob))

    # Members.

    def ref(self, author: Author, index: int) -> entry_pb2.MandateRef:
        body = author.log.entries(author.feed, index, 1, 1)[0].body
        return entry_pb2.MandateRef(feed=author.feed.origin, index=index, leaf_hash=merkle.leaf_hash(body))

    def mandate(self, forum: Author, function: str = "publish-on-behalf", **more: Any) -> entry_pb2.MandateRef:
        kinds = [content_pb2.RECORD_KIND_AGENDA_ITEM] if function in ("publish-on-behalf", "curate") else []
        begin, end = more.pop("begin", self.now), more.pop("end", self.now + 30 * DAY)
        entry = self.entry()
        values = {"id": new_record_id(), "delegate": self.simpul.feed.origin, "function": function, "kinds": kinds, **more}
        entry.mandate.CopyFrom(entry_pb2.Mandate(**values))
        entry.mandate.not_before.FromMicroseconds(begin)
        entry.mandate.not_after.FromMicroseconds(end)
        return self.ref(forum, self.say(forum, entry))

    def revoke(self, forum: Author, ref: entry_pb2.MandateRef) -> int:
        body = forum.log.entries(forum.feed, ref.index, 1, 1)[0].body
        entry = self.entry()
        entry.mandate_revocation.mandate = entry_pb2.Entry.FromString(body).mandate.id
        return self.say(forum, entry)

    def propose(self, forum: Author, days: float = 10, **matter: Any) -> str:
        blob = contents.new_blob(entry_pb2.ProposalText(title="Usul").SerializeToString())
        entry = self.entry()
        entry.proposal.CopyFrom(entry_pb2.Proposal(id=new_record_id(), digest=contents.digest(blob), content_size=len(blob) - 32, **matter))
        entry.proposal.deadline.FromMicroseconds(self.now + int(days * DAY))
        self.say(forum, Draft(entry, blob))
        return entry.proposal.id

    def vote(self, proposer: Author, proposal: str, forum: Author, choice: int = YES) -> int:
        leaf = b""
        for stored in proposer.log.entries(proposer.feed, 0, 10_000, 1 << 30):
            if entry_pb2.Entry.FromString(stored.body).proposal.id == proposal:
                leaf = merkle.leaf_hash(stored.body)
        entry = self.entry()
        entry.vote.proposal, entry.vote.leaf_hash, entry.vote.choice = proposal, leaf, choice  # type: ignore[assignment]
        return self.say(forum, entry)

    def decide(self, proposer: Author, votes: dict[Author, int], **matter: Any) -> str:
        """Propose, let everybody vote, observe it all."""
        number = self.propose(proposer, **matter)
        self.observe(proposer)
        for forum, choice in votes.items():
            self.vote(proposer, number, forum, choice)
            self.observe(forum)
        return number

    def adopt(self, fresh: entry_pb2.Charter) -> str:
        return self.decide(self.forums[0], dict.fromkeys(self.forums, YES), charter=fresh)

    # Nodes.

    @property
    def authors(self) -> list[Author]:
        return [self.simpul, *self.former, *self.forums]

    def node(self) -> SqliteLog:
        """A node that has everything and has judged it."""
        tx = SqliteLog(self.folder / f"{new_record_id()}.sqlite3")
        feeds.pin(tx, self.simpul.feed, self.simpul.genesis)
        while self.bring(tx):
            pass
        return tx

    def bring(self, tx: SqliteLog, most: int = 512) -> bool:
        """Bring a copy a step further; False if there is nothing left."""
        moved = False
        for author in self.authors:
            state = tx.feed(author.feed)
            if state is not None and state.size < author.log.feed(author.feed).size and not state.quarantine:
                batch = author.batch(state.size, most)
                feeds.extend(tx, batch, batch.checkpoint)
                moved = True
            while order.advance(tx, 7) >= 7:
                pass
        return moved


def governance(tx: SqliteLog) -> Governance:
    return Governance(tx.affairs(SIMPUL), SIMPUL)


def dump(tx: SqliteLog) -> list[tuple[Any, ...]]:
    """Everything that was decided, to compare nodes by."""
    rows = tx._connection.execute(
        "SELECT s.origin, a.kind, a.key, a.value FROM affair a JOIN feed s ON s.id = a.simpul ORDER BY 1, 2, 3"
    ).fetchall()
    records = tx._connection.execute(
        "SELECT f.origin, r.ulid, r.version, r.state, r.source > 0 FROM record r JOIN feed f ON f.id = r.feed ORDER BY 1, 2, 5"
    ).fetchall()
    members = tx._connection.execute(
        "SELECT f.origin, m.idx, m.state, m.category FROM member m JOIN feed f ON f.id = m.feed ORDER BY 1"
    ).fetchall()
    problems = tx._connection.execute(
        "SELECT f.origin, p.idx, p.reason FROM problem p JOIN feed f ON f.id = p.feed ORDER BY 1, 2"
    ).fetchall()
    return [*rows, *records, *members, *problems]


def agenda(kind: int = content_pb2.RECORD_KIND_AGENDA_ITEM) -> Draft:
    """A record that can be published: an agenda item, or a best practice."""
    if kind == content_pb2.RECORD_KIND_BEST_PRACTICE:
        return draft("Praktik")
    content = content_pb2.Content(title="Rapat koordinasi")
    item = content.agenda_item
    item.start_time.FromMicroseconds(START + 40 * DAY)
    item.end_time.FromMicroseconds(START + 40 * DAY + 3_600_000_000)
    item.time_zone = "Asia/Jakarta"
    blob = contents.new_blob(content.SerializeToString())
    made = draft("x")
    part = made.entry.record_version
    part.kind, part.digest, part.content_size = contents.kind_of(content), contents.digest(blob), len(blob) - 32
    return Draft(made.entry, blob)
