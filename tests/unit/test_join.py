"""Joining a simpul that answers nonsense: refused in one plain sentence, and the same command may be tried again."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kad_node.cli import setup
from kad_node.home import Home
from kad_protocol import invitation
from kad_protocol.certificates import Authority
from kad_protocol.channel import enrolment_credentials
from kad_protocol.entry import genesis_entry
from kad_protocol.errors import KadError, Reason
from kad_protocol.keys import MemberKeys
from kad_protocol.names import FeedId
from kad_protocol.v1 import enrolment_pb2, enrolment_pb2_grpc, entry_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SIMPUL, FORUM = FeedId("uji.kad.internal", "simpul"), FeedId("uji.kad.internal", "kartamantul")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def genesis(feed: FeedId, role: entry_pb2.MemberRole.ValueType) -> bytes:
    keys = MemberKeys.generate()
    log, witness = keys.log_signer(feed.origin).public, keys.witness_signer(feed.origin).public
    return genesis_entry(feed, log, witness, bytes(32), role, 1).SerializeToString()


class Simpul(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """The enrolment port of a simpul that lets everybody in, and answers as told."""

    def __init__(self) -> None:
        self.authority = Authority.create(SIMPUL, now())
        self.answer = {"simpul_genesis": genesis(SIMPUL, entry_pb2.MEMBER_ROLE_SIMPUL), "exchange_address": "127.0.0.1:1"}
        self._server = grpc.aio.server()
        enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(self, self._server)

    async def start(self) -> None:
        credentials = enrolment_credentials(self.authority.key_pem, lambda: self.authority.enrolment_certificate(now()))
        self._port = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    def invitation(self) -> str:
        code = enrolment_pb2.InvitationCode(
            federation=FORUM.federation,
            forum=FORUM.forum,
            enrolment_address=f"127.0.0.1:{self._port}",
            authority_key_digest=self.authority.key_digest,
            invitation_id=bytes(16),
            secret=bytes(16),
        )
        code.expire_time.FromDatetime(now() + datetime.timedelta(hours=1))
        return invitation.encode(code)

    async def Enrol(self, request: enrolment_pb2.EnrolRequest, _: Any) -> enrolment_pb2.EnrolResponse:  # noqa: N802 - gRPC's name
        certificate = self.authority.issue(request.certificate_request, FORUM, now())
        answer = {
            "certificate": x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER),
            "authority_certificate": x509.load_pem_x509_certificate(self.authority.certificate_pem).public_bytes(Encoding.DER),
            "simpul_feed": SIMPUL.origin,
            "federation_name": "Uji",
        }
        return enrolment_pb2.EnrolResponse(**(answer | self.answer))


@pytest.fixture
async def simpul() -> AsyncIterator[Simpul]:
    made = Simpul()
    await made.start()
    yield made
    await made.stop()


async def join(simpul: Simpul, folder: Path) -> setup.Begun:
    return await setup.join(Home(folder / "rumah", "node"), simpul.invitation(), None, "Sekber Kartamantul", "")


@pytest.mark.parametrize(
    "answer, reason",
    [
        ({"exchange_address": "omong kosong"}, Reason.INVALID_CONFIGURATION),
        ({"exchange_address": "127.0.0.1:99999"}, Reason.INVALID_CONFIGURATION),
        ({"exchange_address": "\n[simpul]"}, Reason.INVALID_CONFIGURATION),
        ({"exchange_address": ""}, Reason.INVALID_CONFIGURATION),
        ({"simpul_genesis": genesis(SIMPUL, entry_pb2.MEMBER_ROLE_FORUM)}, Reason.GENESIS_MISMATCH),
        ({"simpul_genesis": genesis(FORUM, entry_pb2.MEMBER_ROLE_SIMPUL), "simpul_feed": FORUM.origin}, Reason.GENESIS_MISMATCH),
        ({"simpul_genesis": genesis(SIMPUL, entry_pb2.MEMBER_ROLE_SIMPUL), "simpul_feed": "x"}, Reason.GENESIS_MISMATCH),
        ({"simpul_genesis": b"\xff"}, Reason.GENESIS_MISMATCH),
    ],
)
async def test_an_answer_that_makes_no_sense_is_refused_and_the_next_try_goes_on(
    simpul: Simpul, tmp_path: Path, answer: dict[str, Any], reason: Reason
) -> None:
    good, simpul.answer = simpul.answer, simpul.answer | answer
    with pytest.raises(KadError) as caught:
        await join(simpul, tmp_path)
    assert caught.value.reason == reason
    assert not (tmp_path / "rumah" / "kad.toml").exists()
    simpul.answer = good
    assert (await join(simpul, tmp_path)).feed == FORUM
    assert '127.0.0.1:1"' in (tmp_path / "rumah" / "kad.toml").read_text()
