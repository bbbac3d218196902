"""Lists in pages that every client takes, however large what somebody wrote is; and no member has the whole port to itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_node import query
from kad_node.api import guard
from kad_node.query import fitting
from kad_node.service.affairs import Affairs
from kad_protocol.client import Client
from kad_protocol.errors import QuotaError, Reason
from kad_protocol.names import FeedId
from kad_protocol.status import ErrorInterceptor, from_rpc_error
from kad_protocol.v1 import governance_pb2
from tests.unit.federation import Federation
from tests.unit.test_exchange import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.unit.feeds import SqliteLog


@given(sizes=st.lists(st.integers(0, query._PAGE_BYTES * 2), max_size=8), most=st.integers(1, 9))
def test_a_page_makes_headway_and_is_not_too_large(sizes: list[int], most: int) -> None:
    messages = [governance_pb2.PerformedAct(name="x" * size) for size in sizes]
    count = fitting(messages, most)
    assert count <= min(most, len(sizes))
    assert bool(count) == bool(sizes)
    assert count < 2 or sum(message.ByteSize() for message in messages[:count]) <= query._PAGE_BYTES
    assert count in (most, len(sizes)) or sum(message.ByteSize() + 6 for message in messages[: count + 1]) > query._PAGE_BYTES


class Held:
    """What lies on a node, for its services."""

    def __init__(self, tx: SqliteLog, own: FeedId) -> None:
        self.own = own
        self.store = self
        self._tx = tx

    async def read(self, function: Callable[[SqliteLog], Any]) -> Any:
        return function(self._tx)


async def all_of(call: Any, request: Any, field: str) -> list[Any]:
    found: list[Any] = []
    async for page in Client.pages(call, request):
        assert page.ByteSize() < 1 << 20
        found.extend(getattr(page, field))
    return found


async def test_acts_with_endless_references_are_listed_whole_in_pages(tmp_path: Path) -> None:
    """A simpul cannot hide what it did behind the size of what it did."""
    fed = Federation(tmp_path)
    forum = fed.forums[0]
    ref = fed.mandate(forum)
    written = [fed.act("publish-on-behalf", [ref] * 550, forum) for _ in range(40)]
    tx = fed.node()
    affairs = Affairs(Held(tx, forum.feed))  # type: ignore[arg-type]

    async def call(request: governance_pb2.ListActsRequest, **_: Any) -> governance_pb2.ListActsResponse:
        return await affairs.acts(request.page_size, request.page_token)

    found = await all_of(call, governance_pb2.ListActsRequest(page_size=1000), "acts")
    assert [act.index for act in found] == written[::-1]
    assert sum(act.ByteSize() for act in found) > 1 << 20
    few = await affairs.acts(2, "")
    assert [act.index for act in few.acts] == written[:-3:-1]
    assert few.next_page_token


async def test_members_and_mandates_go_on_where_the_last_page_ended(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    functions = ("publish-on-behalf", "curate", "represent")
    for forum in fed.forums:
        for function in functions:
            fed.mandate(forum, function)
    fed.observe(*fed.forums)
    affairs = Affairs(Held(fed.node(), fed.forums[0].feed))  # type: ignore[arg-type]
    whole = await affairs.mandates("", live_only=False)
    assert len(whole) == len(fed.forums) * len(functions)

    async def mandates(request: governance_pb2.ListMandatesRequest, **_: Any) -> governance_pb2.ListMandatesResponse:
        return await affairs.mandate_page(
            request.parent, live_only=request.live_only, page_size=request.page_size, page_token=request.page_token
        )

    async def members(request: governance_pb2.ListMembersRequest, **_: Any) -> governance_pb2.ListMembersResponse:
        return await affairs.members(request.page_size, request.page_token)

    for size in (1, 2, 5, 0):
        assert await all_of(mandates, governance_pb2.ListMandatesRequest(page_size=size), "mandates") == whole
        found = await all_of(members, governance_pb2.ListMembersRequest(page_size=size), "members")
        assert [member.name for member in found] == [f"forums/{forum.feed.forum}" for forum in fed.forums]


# Calls of one member at a time.


async def test_who_opens_many_calls_is_bounded_and_the_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a real server: whoever has more calls open than one member may is refused, until some of them end."""
    monkeypatch.setattr(guard, "caller", lambda context, _: FeedId("uji.kad.internal", dict(context.invocation_metadata())["who"]))
    release = asyncio.Event()

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"begun"
        await release.wait()

    async def read(request: bytes, context: Any) -> bytes:
        return b"ok"

    handlers = {
        "WatchRecords": grpc.unary_stream_rpc_method_handler(watch),
        "GetRecord": grpc.unary_unary_rpc_method_handler(read),
    }
    monkeypatch.setattr(guard, "check_request", lambda _: None)
    server = grpc.aio.server(interceptors=[ErrorInterceptor(guard.member_guard(lambda: None, lambda _: None, "uji.kad.internal"))])  # type: ignore[arg-type,return-value]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kad.v1.RecordsService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        get, stream = channel.unary_unary("/kad.v1.RecordsService/GetRecord"), channel.unary_stream("/kad.v1.RecordsService/WatchRecords")
        many = [stream(b"x", metadata=(("who", "ramai"),)) for _ in range(guard._MOST_CALLS)]
        for call in many:
            assert await call.read() == b"begun"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await get(b"x", metadata=(("who", "ramai"),), timeout=10)
        error = from_rpc_error(caught.value)
        assert isinstance(error, QuotaError)
        assert error.reason == Reason.QUOTA_EXCEEDED
        assert await get(b"x", metadata=(("who", "tenang"),), timeout=10) == b"ok"
        # Those that end, in whatever way, make room.
        many[0].cancel()

        async def served() -> bool:
            try:
                return bool(await get(b"x", metadata=(("who", "ramai"),), timeout=10) == b"ok")
            except grpc.aio.AioRpcError:
                return False

        await until(served, "a call that was cancelled gives its place back")
        release.set()
        for call in many[1:]:
            assert await call.read() is grpc.aio.EOF
        for _ in range(3 * guard._MOST_CALLS):
            assert await get(b"x", metadata=(("who", "ramai"),), timeout=10) == b"ok"
    await server.stop(None)
