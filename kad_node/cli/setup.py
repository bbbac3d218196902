"""Becoming a member: ``join`` and ``init``. Interrupted anywhere, the same command goes on where it was."""

from __future__ import annotations

import datetime
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kad_node import config as configuration
from kad_node.cli.common import err, out, print_json
from kad_node.config import NodeConfig
from kad_node.daemon import issue_own_certificate
from kad_node.enrolment import enrol
from kad_node.messages import _
from kad_node.node import Node, found_feed
from kad_node.service.directory import Directory
from kad_node.store.transaction import micros_now
from kad_protocol import content as contents
from kad_protocol import feed as feeds
from kad_protocol import invitation, keychain
from kad_protocol.certificates import Authority
from kad_protocol.errors import InvalidInputError, PermissionDeniedError, PreconditionError, Reason, VerificationError
from kad_protocol.names import FeedId, check_federation, check_forum
from kad_protocol.v1 import content_pb2, entry_pb2

if TYPE_CHECKING:
    from kad_node.config import CommonConfig
    from kad_node.home import Home
    from kad_node.store.transaction import SqliteTransaction
    from kad_protocol.v1 import enrolment_pb2

__all__ = ["Begun", "begin_alone", "free_port", "header", "join", "publish_first_profile", "report", "show_recovery"]


@dataclass(frozen=True, slots=True)
class Begun:
    """What came of it."""

    home: Home
    feed: FeedId
    federation_name: str


def free_port(preferred: int) -> int:
    """The first free port from ``preferred`` on; written into kad.toml, so that it stays."""
    for port in range(preferred, preferred + 200):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 0


def _check_name(name: str) -> content_pb2.ForumProfile:
    profile = content_pb2.ForumProfile(name=name)
    contents.check(profile)
    return profile


async def publish_first_profile(home: Home, config: CommonConfig, profile: content_pb2.ForumProfile, simpul: FeedId | None) -> None:
    """The forum's name is the first thing that it says."""
    node = await Node.open(home, config, simpul)
    try:
        await Directory(node).publish_profile(profile)
    finally:
        await node.close()


def header() -> str:
    """The first lines of a new ``kad.toml``."""
    return _(
        "# Configuration of this KAD node. Every key can also be given as a variable KAD_<KEY>. Changes need a restart, except log_level and [limits] (SIGHUP).\n"
    )


async def join(home: Home, text: str, forum: str | None, name: str, listen: str) -> Begun:
    """Redeem an invitation and make the home.

    Raises:
        KadError: the invitation, the simpul or the home do not allow it; nothing is lost, and it may be tried again.
    """
    code = invitation.decode(text)
    if code.simpul_of:
        raise PermissionDeniedError(
            Reason.INVITATION_FOR_SIMPUL,
            f"the invitation is for the simpul of {code.simpul_of}, not for a forum",
            federation=code.simpul_of,
        )
    if forum is not None and check_forum(forum) != code.forum:
        raise PermissionDeniedError(Reason.INVITATION_FOR_OTHER_FORUM, f"the invitation is for {code.forum}", forum=code.forum)
    if invitation.has_expired(code, datetime.datetime.now(datetime.UTC)):
        raise PermissionDeniedError(Reason.INVITATION_EXPIRED, "the invitation has expired", forum=code.forum)
    profile = _check_name(name)
    if home.config.exists():
        return await _come_back(home, code)
    home.prepare()
    feed = FeedId(code.federation, code.forum)
    with home.lock():
        genesis = await found_feed(home, feed, entry_pb2.MEMBER_ROLE_FORUM, micros_now(), show_recovery)
        keys = home.create_keys(os.environ)
        enrolled = await enrol(code, feed, keys.log_signer(feed.origin), genesis)
        home.write("channel/authority.pem", enrolled.channel.authority)
        home.save_channel(enrolled.channel.key, enrolled.channel.certificate)
        home.tokens.create_local()
        values: dict[str, Any] = {
            "forum": feed.forum,
            "federation": feed.federation,
            "api_listen": f"127.0.0.1:{free_port(7450)}",
            "simpul": {
                "feed": enrolled.simpul_feed.origin,
                "address": enrolled.channel.exchange_address,
                "enrolment_address": code.enrolment_address,
                "federation_name": enrolled.federation_name,
            },
        }
        if listen:
            values["listen"] = listen
        config = configuration.checked(NodeConfig, values)
        node = await Node.open(home, config, enrolled.simpul_feed)
        try:

            def keep(tx: SqliteTransaction) -> None:
                feeds.pin(tx, enrolled.simpul_feed, enrolled.simpul_genesis, entry_pb2.MEMBER_ROLE_SIMPUL)
                # The simpul knows this feed from now on: were a copy of this home of today brought back later, it must ask before it signs.
                tx.put_meta("shared", b"1")

            await node.store.write(keep)
            await Directory(node).publish_profile(profile)
        finally:
            await node.close()
        # The home counts from here on; before this line the command can simply be repeated.
        configuration.write_initial(NodeConfig, home.config, values, header())
    return Begun(home, feed, enrolled.federation_name)


async def _come_back(home: Home, code: enrolment_pb2.InvitationCode) -> Begun:
    """A forum that had left joins again, with the feed and the keys that it has; its name is what its profile says.

    Raises:
        KadError: as for ``join``; ``HOME_ALREADY_INITIALISED``, the home is that of another member.
    """
    home.require()
    config = configuration.load(NodeConfig, home.config, os.environ)
    if config.simpul is None or (config.federation, config.forum) != (code.federation, code.forum):
        raise PreconditionError(Reason.HOME_ALREADY_INITIALISED, f"{home.path} is the home of a member already", home=home.path)
    with home.lock():
        node = await Node.open(home, config)
        try:
            # Its keys of today, in its epoch of today.
            feed = node.own
            genesis, keys = await node.store.read(lambda tx: (tx.entries(feed, 0, 1, 1)[0].body, keychain.keys_at(tx, feed, 1 << 40)))
            signer = node.keyring.log_signer(keys)
        finally:
            await node.close()
        enrolled = await enrol(code, feed, signer, genesis)
        if enrolled.simpul_feed.origin != config.simpul.feed:
            raise VerificationError(Reason.GENESIS_MISMATCH, "the invitation is of another simpul than that of this home")
        home.write("channel/authority.pem", enrolled.channel.authority)
        home.save_channel(enrolled.channel.key, enrolled.channel.certificate)
    return Begun(home, feed, enrolled.federation_name)


async def begin_alone(home: Home, forum: str, name: str, federation: str, listen: str) -> Begun:
    """Make the home of a node without a simpul.

    Raises:
        KadError: names or home do not allow it.
    """
    feed = FeedId(check_federation(federation), check_forum(forum))
    profile = _check_name(name)
    if listen and ":" not in listen:
        raise InvalidInputError(Reason.INVALID_CONFIGURATION, "--listen is host:port")
    home.prepare()
    with home.lock():
        await found_feed(home, feed, entry_pb2.MEMBER_ROLE_FORUM, micros_now(), show_recovery)
        make_authority(home, feed)
        home.tokens.create_local()
        values: dict[str, Any] = {"forum": feed.forum, "federation": feed.federation, "api_listen": f"127.0.0.1:{free_port(7450)}"}
        if listen:
            values["listen"] = listen
        await publish_first_profile(home, configuration.checked(NodeConfig, values), profile, None)
        configuration.write_initial(NodeConfig, home.config, values, header())
    return Begun(home, feed, "")


def make_authority(home: Home, feed: FeedId) -> None:
    """An authority of one's own and a first certificate from it."""
    now = datetime.datetime.now(datetime.UTC)
    if not (home.path / "authority" / "certificate.pem").exists():
        authority = Authority.create(feed, now)
        home.write("authority/key.pem", authority.key_pem, private=True)
        home.write("authority/certificate.pem", authority.certificate_pem)
    issue_own_certificate(home, feed)


def show_recovery(code: str) -> None:
    """Printed as soon as it exists, before anything else can fail: it is kept nowhere."""
    err.print(f"[bold]{_('Recovery code')}[/]  {code}")
    err.print(
        _(
            "Write it down and keep it offline. It is shown once; with it you can get this forum's feed back if the machine is lost or stolen."
        )
    )


def report(begun: Begun, *, as_json: bool) -> None:
    """Say what came of it and what to do next."""
    if as_json:
        print_json(
            {"forum": begun.feed.forum, "feed": begun.feed.origin, "home": str(begun.home.path), "federation_name": begun.federation_name}
        )
        return
    if begun.federation_name:
        out.print(_("[green]{forum} has joined {federation}.[/]").format(forum=begun.feed.forum, federation=begun.federation_name))
    else:
        out.print(_("[green]The node of {forum} is ready.[/]").format(forum=begun.feed.forum))
    out.print(f"{_('Home')}: {begun.home.path}")
    out.print(_("Now: `kad-node run`, and in another window `kad-node template best-practice > praktik.yaml`."))
