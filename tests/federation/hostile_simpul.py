"""A simpul that cheats, as a process: ``python -m tests.federation.hostile_simpul --home DIR TRICK``.

=================  =====================================================================================
``overreach``      publishes in a forum's name without any mandate, its own check bypassed
``admit``          admits a forum that nobody endorsed, suspends one that nobody suspended
``deaf:FORUM``     takes the entries of a forum and never observes them
``annex``          as the member of another federation: admits and suspends forums of that one, says more of them than there is,
                   and counts endless members of its own
``misquote:FORUM`` observes another root of a forum's feed than the forum has signed
``ahead``          writes an entry whose time is a day ahead, so that every vote and every mandate would end a day early
``faint``          does not cheat, but one of its duties ends in a fault that nobody thought of
``amnesia``        forgets that it has to hear its own head first: a restored copy goes on as if nothing had been
=================  =====================================================================================
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kad_node import config as configuration
from kad_node.fence import FenceState
from kad_node.home import Home
from kad_node.store.transaction import SqliteTransaction, micros_now
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol.entry import new_entry
from kad_protocol.errors import KadError
from kad_protocol.feed import Draft
from kad_protocol.names import FeedId, new_record_id
from kad_protocol.v1 import content_pb2, entry_pb2
from kad_simpul.config import SimpulConfig
from kad_simpul.daemon import SimpulDaemon
from kad_simpul.steward import Steward

if TYPE_CHECKING:
    from kad_protocol.store import FeedState


class Hostile(SimpulDaemon):
    """See the module."""

    trick = ""

    async def start_more(self) -> None:
        """Cheat from now on."""
        if self.trick == "amnesia":
            self.node.fence.state = FenceState.OPEN
        if self.trick == "ahead":
            # Nor does it ask the members what time it is.
            Steward._finality = lambda *_: []  # type: ignore[method-assign]
        await super().start_more()
        honest = self.node.before_seal
        if self.trick.startswith("deaf:"):
            ignored = self.trick.removeprefix("deaf:")

            def before_seal(tx: SqliteTransaction) -> None:
                touched = set(tx.touched)
                tx.touched -= {feed for feed in touched if feed.forum == ignored}
                honest(tx)
                tx.touched |= touched

            self.node.before_seal = before_seal
        elif self.trick.startswith("misquote:"):
            self.node.before_seal = lambda tx: self._misquote(tx, self.trick.removeprefix("misquote:"))
        elif self.trick == "faint":
            self.begin_duty("faint", self._faint())
        elif self.trick in ("overreach", "admit", "ahead", "annex"):
            self.begin_duty("cheat", self._cheat_on())

    def _misquote(self, tx: SqliteTransaction, forum: str) -> None:
        for feed in sorted(tx.touched):
            state = tx.feed(feed)
            if feed.forum == forum and state is not None and state.size > tx.observed(self.own, feed):
                entry = new_entry(micros_now())
                entry.observation.feed, entry.observation.size, entry.observation.root = feed.origin, state.size, bytes(range(32))
                feeds.append(tx, self.own, [Draft(entry)])

    async def _faint(self) -> None:
        raise ZeroDivisionError

    async def _cheat_on(self) -> None:
        await self._cheat()
        await asyncio.Event().wait()

    async def _cheat(self) -> None:
        while self.node.fence.state is not FenceState.OPEN:  # noqa: ASYNC110 - the fence has no event
            await asyncio.sleep(0.05)
        if self.trick == "annex":
            while not await self.node.store.read(self._foreign_forums):  # noqa: ASYNC110 - it may take a while until they are known
                await asyncio.sleep(0.05)
        await self.node.store.write(self._write)

    def _foreign_forums(self, tx: SqliteTransaction) -> list[FeedState]:
        forums = [state for state in tx.feeds() if state.feed.federation != self.own.federation]
        return [state for state in forums if state.role == entry_pb2.MEMBER_ROLE_FORUM and state.size]

    def _annex(self, tx: SqliteTransaction) -> None:
        for victim in self._foreign_forums(tx):
            for state in (entry_pb2.MEMBERSHIP_STATE_ACTIVE, entry_pb2.MEMBERSHIP_STATE_SUSPENDED, entry_pb2.MEMBERSHIP_STATE_LEFT):
                entry = new_entry(micros_now())
                entry.membership.feed, entry.membership.genesis, entry.membership.state = victim.feed.origin, victim.genesis, state
                feeds.append(tx, self.own, [Draft(entry)])
            puppet = new_entry(micros_now())
            puppet.membership.feed = FeedId(victim.feed.federation, "boneka").origin
            puppet.membership.genesis, puppet.membership.state = bytes(range(32)), entry_pb2.MEMBERSHIP_STATE_ACTIVE
            feeds.append(tx, self.own, [Draft(puppet)])
        for number in range(40):
            entry = new_entry(micros_now())
            entry.membership.feed = FeedId(self.own.federation, f"boneka-{number}").origin
            entry.membership.genesis, entry.membership.state = bytes([number] * 32), entry_pb2.MEMBERSHIP_STATE_ACTIVE
            feeds.append(tx, self.own, [Draft(entry)])
        for victim in self._foreign_forums(tx):
            entry = new_entry(micros_now())
            entry.observation.feed, entry.observation.size, entry.observation.root = victim.feed.origin, victim.size, bytes(32)
            feeds.append(tx, self.own, [Draft(entry)])

    def _write(self, tx: SqliteTransaction) -> None:
        if self.trick == "annex":
            self._annex(tx)
            return
        if self.trick == "ahead":
            entry = new_entry(micros_now() + 86_400 * 1_000_000)
            entry.census.digest = bytes(32)
            feeds.append(tx, self.own, [Draft(entry)])
            return
        victim = next(state for state in tx.feeds() if state.role == entry_pb2.MEMBER_ROLE_FORUM)
        if self.trick == "overreach":
            content = content_pb2.Content(title="Palsu", best_practice=content_pb2.BestPractice(problem="x", solution="x", results="x"))
            blob = contents.new_blob(content.SerializeToString())
            entry = new_entry(micros_now())
            entry.act.function, entry.act.on_behalf_of = "publish-on-behalf", victim.feed.origin
            # Not a mandate at all: the forum's genesis.
            entry.act.mandates.add(feed=victim.feed.origin, index=0, leaf_hash=victim.genesis)
            part = entry.act.publication
            part.record, part.version, part.kind, part.audience = new_record_id(), 1, 1, content_pb2.AUDIENCE_PUBLIC
            part.digest, part.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES
            feeds.append(tx, self.own, [Draft(entry, blob)])
            return
        stranger = FeedId(self.own.federation, "boneka")
        for feed, genesis, state in (
            (stranger, bytes(range(32)), entry_pb2.MEMBERSHIP_STATE_ACTIVE),
            (victim.feed, victim.genesis, entry_pb2.MEMBERSHIP_STATE_SUSPENDED),
        ):
            entry = new_entry(micros_now())
            entry.membership.feed, entry.membership.genesis, entry.membership.state = feed.origin, genesis, state
            feeds.append(tx, self.own, [Draft(entry)])


def main() -> int:
    """Run until stopped."""
    home = Home(Path(sys.argv[2]), "simpul")
    Hostile.trick = sys.argv[3]
    try:
        asyncio.run(Hostile(home, configuration.load(SimpulConfig, home.config, os.environ)).run())
    except KadError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
