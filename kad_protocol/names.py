"""Names: of federations, forums, feeds and records, and how they stand in certificates.

=============  =====================================================  =============================================
what           form                                                   example
=============  =====================================================  =============================================
federation     a DNS name, at most 120 characters                     ``simpul-kabkota.kad.internal``
forum          3 to 40 of ``a-z0-9-``, beginning with a letter        ``kartamantul``
feed (origin)  ``<federation>/forums/<forum>/e<epoch>``               ``simpul-kabkota.kad.internal/forums/kartamantul/e0``
record         ``forums/<forum>/records/<ULID>``                      ``forums/kartamantul/records/01JBQ4ZC8M5T6V7W8X9Y0Z1A2B``
elsewhere      ``<federation>/forums/<forum>[/records/<ULID>]``       ``simpul-provinsi.kad.internal/forums/appsi``
certificate    URI SAN ``kad://<federation>/forums/<forum>``
server name    ``<forum>.<federation>`` (DNS SAN, what a client expects of the one it dials)
=============  =====================================================  =============================================

The simpul is a member like the others: its forum id is the simpul's id. Ids of forums are unique in their federation only, so what
belongs to another federation is always named with that one's name before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ulid import ULID

from kad_protocol.errors import InvalidInputError, Reason

__all__ = [
    "FeedId",
    "RecordName",
    "check_federation",
    "check_forum",
    "forum_name",
    "is_record_id",
    "local_name",
    "new_record_id",
    "parse_forum_name",
    "parse_member_name",
]

MAX_EPOCH = 9999

_FORUM = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_FEDERATION = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_EPOCH = re.compile(r"e(0|[1-9][0-9]{0,3})")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def check_forum(forum: str) -> str:
    """Return ``forum`` if it is a valid forum id.

    Raises:
        InvalidInputError: ``INVALID_NAME``.
    """
    if not _FORUM.fullmatch(forum) or "--" in forum:
        raise InvalidInputError(
            Reason.INVALID_NAME,
            f"{forum[:60]!r} is not a forum id: 3 to 40 of a-z, 0-9 and single '-', beginning with a letter",
            name=forum[:60],
        )
    return forum


def check_federation(federation: str) -> str:
    """Return ``federation`` if it is a valid name of a federation (a DNS name with at least two labels).

    Raises:
        InvalidInputError: ``INVALID_NAME``.
    """
    if len(federation) > 120 or not _FEDERATION.fullmatch(federation):  # noqa: PLR2004 - said in the table above
        raise InvalidInputError(
            Reason.INVALID_NAME,
            f"{federation[:60]!r} is not a federation name: lower-case, like a domain name, at most 120 characters",
            name=federation[:60],
        )
    return federation


@dataclass(frozen=True, slots=True, order=True)
class FeedId:
    """One feed: one member of one federation in one key epoch. Its text is the origin of its checkpoints."""

    federation: str
    forum: str
    epoch: int = 0

    def __str__(self) -> str:
        return f"{self.federation}/forums/{self.forum}/e{self.epoch}"

    @property
    def origin(self) -> str:
        """The origin line of this feed's checkpoints (C2SP tlog-checkpoint)."""
        return str(self)

    @property
    def member_uri(self) -> str:
        """The URI that stands in this member's channel certificates, whatever the epoch."""
        return f"kad://{self.federation}/forums/{self.forum}"

    @property
    def server_name(self) -> str:
        """The DNS name that stands in this member's channel certificates."""
        return f"{self.forum}.{self.federation}"

    @staticmethod
    @lru_cache(maxsize=8192)
    def parse(origin: str) -> FeedId:
        """Read an origin.

        Raises:
            InvalidInputError: ``INVALID_NAME``.
        """
        parts = origin.split("/")
        match parts:
            case [federation, "forums", forum, epoch] if (number := _EPOCH.fullmatch(epoch)) is not None:
                return FeedId(check_federation(federation), check_forum(forum), int(number.group(1)))
            case _:
                raise InvalidInputError(Reason.INVALID_NAME, f"{origin[:80]!r} is not the origin of a feed", name=origin[:80])

    @staticmethod
    def from_member_uri(uri: str) -> FeedId:
        """Read the URI of a certificate; the epoch is 0.

        Raises:
            InvalidInputError: ``INVALID_NAME``.
        """
        if not uri.startswith("kad://"):
            raise InvalidInputError(Reason.INVALID_NAME, f"{uri[:80]!r} is not the URI of a member", name=uri[:80])
        return FeedId.parse(f"{uri.removeprefix('kad://')}/e0")


@dataclass(frozen=True, slots=True, order=True)
class RecordName:
    """The name of one record."""

    forum: str
    record: str
    #: Empty for the reader's own federation.
    federation: str = ""

    def __str__(self) -> str:
        return f"{local_name(self.forum, self.federation)}/records/{self.record}"

    @staticmethod
    def parse(name: str) -> RecordName:
        """Read a name; the record id may be written in lower case.

        Raises:
            InvalidInputError: ``INVALID_NAME``.
        """
        match name.split("/"):
            case ["forums", forum, "records", record] if _ULID.fullmatch(record.upper()):
                return RecordName(check_forum(forum), record.upper())
            case [federation, "forums", forum, "records", record] if _ULID.fullmatch(record.upper()):
                return RecordName(check_forum(forum), record.upper(), check_federation(federation))
            case _:
                raise InvalidInputError(
                    Reason.INVALID_NAME,
                    f"{name[:80]!r} is not the name of a record (forums/<forum>/records/<id>)",
                    name=name[:80],
                )


def forum_name(forum: str) -> str:
    """``forums/{forum}``."""
    return f"forums/{forum}"


def local_name(forum: str, federation: str) -> str:
    """``forums/{forum}``, with a federation before it unless that is empty (the reader's own)."""
    return f"{federation}/{forum_name(forum)}" if federation else forum_name(forum)


def parse_member_name(name: str) -> tuple[str, str]:
    """Read ``{forum}``, ``forums/{forum}`` or ``{federation}/forums/{forum}``; the federation is empty where none is given.

    Raises:
        InvalidInputError: ``INVALID_NAME``.
    """
    federation, found, forum = name.rpartition("/forums/")
    if found:
        return check_federation(federation), check_forum(forum)
    return "", check_forum(name.removeprefix("forums/"))


def parse_forum_name(name: str) -> str:
    """Read ``forums/{forum}``.

    Raises:
        InvalidInputError: ``INVALID_NAME``.
    """
    match name.split("/"):
        case ["forums", forum]:
            return check_forum(forum)
        case _:
            raise InvalidInputError(Reason.INVALID_NAME, f"{name[:80]!r} is not the name of a forum (forums/<forum>)", name=name[:80])


def is_record_id(text: str) -> bool:
    """Is this a ULID in its canonical form?"""
    return _ULID.fullmatch(text) is not None


def new_record_id() -> str:
    """A new ULID: sorts by time of making, unique without asking anybody."""
    return str(ULID())
