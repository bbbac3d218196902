"""The text of an invitation: ``kad1-`` and base64url of an ``InvitationCode`` with a checksum.

It survives being pasted from a mail: white space and line breaks in it do not matter, and a slip shows as a wrong checksum.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re

from google.protobuf.message import DecodeError

from kad_protocol.errors import InvalidInputError, KadError, Reason
from kad_protocol.names import check_federation, check_forum
from kad_protocol.v1 import enrolment_pb2

__all__ = ["decode", "encode", "has_expired"]

PREFIX = "kad1-"
_MAX_LENGTH = 2000
_CHECK_BYTES = 4
#: "host:port"; it is shown to people, so nothing else may stand in it.
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}")
_ID_BYTES, _SECRET_BYTES, _DIGEST_BYTES = 16, 16, 32


def encode(code: enrolment_pb2.InvitationCode) -> str:
    """The text."""
    data = code.SerializeToString()
    return PREFIX + base64.urlsafe_b64encode(data + hashlib.sha256(data).digest()[:_CHECK_BYTES]).decode().rstrip("=")


def decode(text: str) -> enrolment_pb2.InvitationCode:
    """Read the text.

    Raises:
        InvalidInputError: ``INVITATION_MALFORMED``, with a hint at what may have happened to it.
    """
    compact = "".join(text.split())
    if not compact.startswith(PREFIX) or len(compact) > _MAX_LENGTH:
        raise _malformed(f"an invitation begins with {PREFIX}")
    body = compact.removeprefix(PREFIX)
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("it has characters that do not belong there") from error
    payload, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if hashlib.sha256(payload).digest()[:_CHECK_BYTES] != check:
        raise _malformed("a part of it is missing or changed; copy it whole")
    try:
        code = enrolment_pb2.InvitationCode.FromString(payload)
        check_forum(code.forum)
        check_federation(code.federation)
        if code.simpul_of:
            check_federation(code.simpul_of)
        code.expire_time.ToDatetime(datetime.UTC)
    except (DecodeError, KadError, ValueError, OverflowError) as error:
        raise _malformed("its content is not an invitation") from error
    lengths = (len(code.invitation_id), len(code.secret), len(code.authority_key_digest))
    if lengths != (_ID_BYTES, _SECRET_BYTES, _DIGEST_BYTES) or not _ADDRESS.fullmatch(code.enrolment_address):
        raise _malformed("its content is incomplete")
    return code


def _malformed(why: str) -> InvalidInputError:
    return InvalidInputError(Reason.INVITATION_MALFORMED, f"this is not a whole invitation: {why}", why=why)


def has_expired(code: enrolment_pb2.InvitationCode, now: datetime.datetime) -> bool:
    """By this machine's clock; the simpul decides by its own."""
    return code.expire_time.ToDatetime(datetime.UTC) <= now
