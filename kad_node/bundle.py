r"""Feeds as a file: the frames of an exchange, written one after the other, so that a feed can travel on a USB stick.

The file is ``KADBUNDLE1\\n`` and then, for each frame, its length (4 bytes, big endian) and the frame. It verifies like a live exchange:
nothing in it is believed for having come by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from google.protobuf.message import DecodeError

from kad_protocol.errors import InvalidInputError, KadError, Reason
from kad_protocol.exchange import MAX_FRAME_BYTES
from kad_protocol.names import FeedId
from kad_protocol.v1 import node_pb2, replication_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kad_node.node import Node

__all__ = ["MAGIC", "export", "read_frames", "take", "write_frame"]

MAGIC = b"KADBUNDLE1\n"


def write_frame(file: BinaryIO, frame: replication_pb2.Frame) -> None:
    """Append one frame."""
    data = frame.SerializeToString()
    file.write(len(data).to_bytes(4, "big") + data)


def read_frames(file: BinaryIO) -> Iterator[replication_pb2.Frame]:
    """The frames of a file whose magic has been read.

    Raises:
        InvalidInputError: ``INVALID_FILE``: it is cut off, or not a bundle.
    """
    while head := file.read(4):
        length = int.from_bytes(head, "big")
        if len(head) != 4 or length > MAX_FRAME_BYTES:  # noqa: PLR2004 - the length's own length
            raise InvalidInputError(Reason.INVALID_FILE, "the file is damaged: a frame of impossible length")
        data = file.read(length)
        if len(data) != length:
            raise InvalidInputError(Reason.INVALID_FILE, "the file is cut off")
        try:
            yield replication_pb2.Frame.FromString(data)
        except DecodeError as error:
            raise InvalidInputError(Reason.INVALID_FILE, "the file is damaged: a frame that cannot be read") from error


async def export(node: Node, forums: list[str]) -> AsyncIterator[replication_pb2.Frame]:
    """Everything of some forums (all, if none is named), from the first entry on."""
    for feed in sorted(node.replica.signed_sizes()):
        if forums and feed.forum not in forums:
            continue
        after = 0
        while (batch := await node.replica.read(feed, after, 512, 512 << 10)) is not None:
            yield replication_pb2.Frame(batches=[batch])
            after += len(batch.entries)


async def take(node: Node, frames: AsyncIterator[replication_pb2.Frame]) -> node_pb2.ImportFeedsResponse:
    """Check and store the batches of frames; what is refused is counted, the rest goes on."""
    response = node_pb2.ImportFeedsResponse()
    refused: dict[str, int] = {}
    targets: dict[str, bytes] = {}
    async for frame in frames:
        for batch in frame.batches:
            targets[batch.feed] = batch.checkpoint or targets.get(batch.feed, b"")
            try:
                FeedId.parse(batch.feed)
                extended = await node.store.write(lambda tx, b=batch, t=targets[batch.feed]: node.replica.extend(tx, b, t))  # type: ignore[misc]
                response.imported += extended.added
                response.known += len(batch.entries) - extended.added
            except KadError as error:
                refused[error.reason.value] = refused.get(error.reason.value, 0) + 1
                await node.replica.caught(node.own, FeedId.parse(batch.feed) if error.reason == Reason.FORKED else node.own, error)
    response.refused.extend(node_pb2.ReasonCount(reason=reason, count=count) for reason, count in sorted(refused.items()))
    return response
