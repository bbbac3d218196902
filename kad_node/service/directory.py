"""Who is in the federation, as this node knows it; and its own profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kad_node import outbox
from kad_node.fence import FenceState
from kad_node.query import decode_page, encode_page
from kad_node.store.transaction import micros_now
from kad_protocol import content as contents
from kad_protocol.entry import new_entry, parse_entry
from kad_protocol.errors import NotFoundError, Reason
from kad_protocol.feed import Draft
from kad_protocol.names import FeedId, forum_name, parse_forum_name
from kad_protocol.v1 import content_pb2, directory_pb2

if TYPE_CHECKING:
    from kad_node.node import Node
    from kad_node.store.transaction import SqliteTransaction

__all__ = ["Directory", "resolve_feed"]


def resolve_feed(tx: SqliteTransaction, own: FeedId, text: str) -> FeedId:
    """The feed that a request names: by origin, or ``forums/{forum}`` for the newest epoch, one's own federation first.

    Raises:
        NotFoundError: ``FEED_NOT_FOUND``. InvalidInputError: ``INVALID_NAME``.
    """
    if text.startswith("forums/"):
        forum = parse_forum_name(text)
        found = sorted(tx.forum_feeds(forum), key=lambda feed: (feed.federation != own.federation, -feed.epoch))
        if found:
            return found[0]
        raise NotFoundError(Reason.FORUM_NOT_FOUND, f"the forum {forum} is not known here", forum=forum)
    feed = FeedId.parse(text)
    if tx.feed(feed) is None:
        raise NotFoundError(Reason.FEED_NOT_FOUND, f"the feed {feed} is not known here", feed=feed)
    return feed


def describe(tx: SqliteTransaction, own: FeedId, feed: FeedId) -> directory_pb2.Forum:
    """One member."""
    state = tx.feed(feed)
    if state is None:
        raise NotFoundError(Reason.FEED_NOT_FOUND, f"the feed {feed} is not known here", feed=feed)
    row = tx.member(feed)
    forum = directory_pb2.Forum(
        name=forum_name(feed.forum),
        feed=feed.origin,
        role=state.role,  # type: ignore[arg-type]
        membership=row.state,  # type: ignore[arg-type]
        category=row.category,  # type: ignore[arg-type]
        size=state.size,
        root=state.root if state.size else b"",
        observed_size=row.observed,
        record_count=row.records,
        self=feed == own,
        quarantine_reason=state.quarantine,
    )
    if row.profile:
        forum.profile.ParseFromString(row.profile)
    if row.last_entry and (entry := parse_entry(row.last_entry)) is not None:
        forum.last_entry_time.CopyFrom(entry.time)
    return forum


class Directory:
    """The forums that one node knows."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def get(self, name: str) -> directory_pb2.Forum:
        """One forum. See ``DirectoryService.GetForum``."""
        own = self._node.own
        parse_forum_name(name)
        return await self._node.store.read(lambda tx: describe(tx, own, resolve_feed(tx, own, name)))

    async def list(self, page_size: int = 0, page_token: str = "") -> directory_pb2.ListForumsResponse:
        """A page of forums. See ``DirectoryService.ListForums``."""
        key = decode_page(page_token, 1, "forums")
        size = min(page_size or 100, 1000)

        def read(tx: SqliteTransaction) -> list[directory_pb2.Forum]:
            after = str(key[0]) if key else ""
            feeds = [state.feed for state in tx.feeds() if state.feed.origin > after][: size + 1]
            return [describe(tx, self._node.own, feed) for feed in feeds]

        forums = await self._node.store.read(read)
        response = directory_pb2.ListForumsResponse(forums=forums[:size])
        if len(forums) > size:
            response.next_page_token = encode_page([forums[size - 1].feed], "forums")
        return response

    async def publish_profile(self, profile: content_pb2.ForumProfile) -> directory_pb2.Forum:
        """Publish one's own profile. See ``DirectoryService.PublishProfile``."""
        contents.check(profile)
        node = self._node
        blob = contents.new_blob(profile.SerializeToString())
        entry = new_entry(micros_now())
        part = entry.profile_version
        part.digest, part.content_size = contents.digest(blob), len(blob) - contents.SALT_BYTES

        def write(tx: SqliteTransaction) -> None:
            part.version = tx.profile_version(node.own) + 1
            outbox.put(tx, node.own, [Draft(entry, blob)], open_fence=node.fence.state is FenceState.OPEN)

        await node.store.write(write)
        while True:
            changed = node.next_change()
            behind, forum = await node.store.read(lambda tx: (node.settling(tx), describe(tx, node.own, node.own)))
            if not behind:
                return forum
            await changed.wait()
