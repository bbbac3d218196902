"""What all commands share: options, one way to speak to the home's daemon (or to the home itself), errors in one line."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import Error as JsonError
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from kad_node import config as configuration
from kad_node import logs
from kad_node.config import CommonConfig, NodeConfig
from kad_node.daemon import bind, local_api
from kad_node.home import Home
from kad_node.messages import _, language
from kad_node.node import Node
from kad_node.service.status import Status
from kad_protocol.channel import local_channel
from kad_protocol.client import Client
from kad_protocol.errors import InvalidInputError, KadError, PreconditionError, Reason
from kad_protocol.status import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from google.protobuf.message import Message

__all__ = ["Context", "Group", "as_json", "command_of", "common", "explain", "print_json", "run"]

#: Wrapped between words on a screen; not cut to 80 columns where nobody reads it on one.
_WIDE = None if sys.stdout.isatty() else 240
out = Console(highlight=False, soft_wrap=_WIDE is not None, width=_WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


class Group(click.Group):
    """A group that prints errors of KAD in one line, and commands in the order in which they were written."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See ``click.Group``."""
        del ctx
        return list(self.commands)

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's own
        """See ``click.Group``: exit status 1 for what failed, 2 for misuse; never a traceback."""
        try:
            return super().main(*args, **kwargs)
        except KadError as error:
            fail(error)
        except grpc.aio.AioRpcError as error:
            fail(from_rpc_error(error))
        except BrokenPipeError:
            # Whoever read our output has closed it (`| head`); that is no error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except KeyboardInterrupt:
            sys.exit(130)


def fail(error: KadError) -> None:
    """Say what is wrong and what to do, and end with status 1."""
    if click.get_current_context(silent=True) is not None and click.get_current_context().find_root().params.get("as_json"):
        print(json.dumps({"error": {"reason": error.reason.value, "message": error.message, **error.metadata}}), file=sys.stderr)
    else:
        err.print(f"[red]{_('Error')}:[/] {_escape(explain(error))}")
        if isinstance(error, InvalidInputError):
            for violation in error.violations[1:]:
                err.print(f"  - {_escape(violation.field)}: {_escape(violation.description)}")
    sys.exit(1)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def explain(error: KadError) -> str:
    """The error in a person's words: the reason's own sentence where there is one, with what to do."""
    hint = _hints().get(error.reason)
    if hint is None:
        return error.message
    try:
        return hint.format(**{"message": error.message, **error.metadata})
    except (KeyError, IndexError):
        return error.message


def _hints() -> dict[Reason, str]:
    return {
        Reason.HOME_NOT_FOUND: _("there is no member's home in {home}. Begin with `kad-node join INVITATION` or `kad-simpul init`."),
        Reason.HOME_ALREADY_INITIALISED: _("{home} is the home of a member already. Choose another with --home."),
        Reason.HOME_IN_USE: _("{home} is in use by process {pid}, which does not answer. Stop it first."),
        Reason.HOME_NOT_WRITABLE: _("{message}. Is it yours, and is the disk writable?"),
        Reason.HOME_NEWER_VERSION: _(
            "this home was used by a newer version of KAD. Install that version or a newer one; nothing was changed."
        ),
        Reason.HOME_WRONG_ROLE: _("{home} is the home of a {role}. Use `kad-{role}`."),
        Reason.INVITATION_MALFORMED: _("this is not a whole invitation ({why}). Copy it again, from `kad1-` to its end."),
        Reason.INVITATION_EXPIRED: _("this invitation has expired. Ask the simpul for a new one."),
        Reason.INVITATION_USED: _("this invitation has been used. Ask the simpul for a new one."),
        Reason.INVITATION_UNKNOWN: _("the simpul does not know this invitation, or has withdrawn it. Ask for a new one."),
        Reason.INVITATION_FOR_OTHER_FORUM: _("this invitation is for {forum}. Give that with --forum, or ask for one of your own."),
        Reason.AUTHORITY_NOT_PINNED: _(
            "who answers at {address} is not the simpul that sent the invitation. Do not go on; ask the simpul."
        ),
        Reason.NO_MANDATE: _("the simpul holds no mandate for that. The forum gives one with `kad-node mandate grant`. ({message})"),
        Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE: _(
            "in networking mode nobody acts for another, so every forum does this itself. ({message})"
        ),
        Reason.MODE_NOT_DECIDED: _(
            "the members have not decided for mode = {mode}. Set mode = {decided} in kad.toml, or let them decide: kad-node propose --charter. ({message})"
        ),
        Reason.ENDORSEMENTS_MISSING: _(
            "{forum} has applied; {have} of {needed} members have endorsed it so far (`kad-node endorse {forum}` at theirs). Run the same `join` again then."
        ),
        Reason.MANDATE_OVERLAPS: _(
            "a mandate of this forum covers part of that already. Revoke it first: kad-node mandate list. ({message})"
        ),
        Reason.VOTE_REPEATED: _("this forum has voted on that already; the first vote counts."),
        Reason.VOTE_TOO_LATE: _("that is closed; no votes are taken any more."),
        Reason.VOTE_NOT_ENTITLED: _("this forum has no vote on that. ({message})"),
        Reason.MEMBER_SUSPENDED: _("suspended, or no longer a member. ({message})"),
        Reason.RECORD_NOT_FOUND: _("there is no record {name} here. `kad-node list` shows what there is."),
        Reason.STALE_VERSION: _("{name} is at version {current_version} now, you saw {expected_version}. Read it again, then revise."),
        Reason.RECORD_RETRACTED: _("{name} was retracted and cannot be changed."),
        Reason.NOT_OWN_RECORD: _("only the forum that published a record can change it. ({message})"),
        Reason.INVALID_PASSPHRASE: _("{message}. Set KAD_PASSPHRASE."),
        Reason.APPEND_FENCED: _(
            "the simpul has to hear from its members before it may sign again (its disk might be an old copy). Try again in a moment."
        ),
        Reason.ADDRESS_IN_USE: _("cannot listen on {address}: something else is there. Change it in kad.toml."),
        Reason.FORUM_NOT_FOUND: _("the forum is not known here. `kad-node status` shows who is. ({message})"),
        Reason.STORE_CORRUPT: _("the database is damaged: {message}. Run `kad-node doctor`."),
    }


@dataclass(slots=True)
class Context:
    """What a command needs to know of how it was called."""

    home: Home
    as_json: bool
    model: type[CommonConfig]
    #: Adds services to the local API when no daemon runs.
    services: Callable[[grpc.aio.Server, Node, CommonConfig], list[str]] | None = None

    def config(self) -> CommonConfig:
        """The home's configuration."""
        self.home.require()
        return configuration.load(self.model, self.home.config, os.environ)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the home's daemon; without a daemon, of the same API on the home itself, for the length of the command."""
        self.home.require()
        token = self.home.tokens.local()
        if self.home.locked():
            address = self.home.running().get("api")
            if not address:
                raise PreconditionError(
                    Reason.HOME_IN_USE, "the home is in use", home=self.home.path, pid=self.home.running().get("pid", "?")
                )
            async with local_channel(address, token, language()) as channel:
                yield Client(channel)
            return
        with self.home.lock():
            logs.configure("warning", "human")
            config = self.config()
            simpul = config.simpul.feed if isinstance(config, NodeConfig) and config.simpul else None
            from kad_protocol.names import FeedId  # noqa: PLC0415

            node = await Node.open(self.home, config, FeedId.parse(simpul) if simpul else None)
            more = (lambda server: self.services(server, node, config)) if self.services else (lambda _: [])  # type: ignore[misc]
            server = local_api(node, Status(node, None, daemon=False), None, reflect=False, more=more)
            try:
                address = bind(server, "127.0.0.1:0", None)
                await server.start()
                async with local_channel(address, token, language()) as channel:
                    yield Client(channel)
            finally:
                await server.stop(0)
                await node.close()


def run(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async command."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        asyncio.run(function(*args, **kwargs))

    return wrapper


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every program: home, language, version."""
    function = click.option("--lang", type=click.Choice(["id", "en"]), expose_value=False, help=_("Language of messages."))(function)
    return click.option("--home", metavar="DIR", help=_("Home directory of the member (or KAD_HOME)."))(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=_("Print JSON, for programs."))(function)


def as_json(message: Message) -> dict[str, Any]:
    """A message in its JSON form, with the names of the contract and without empty fields.

    Whatever a member may have written is shown: a time that no calendar knows as its bare seconds and nanoseconds.
    """
    try:
        return MessageToDict(message, preserving_proto_field_name=True)
    except (JsonError, ValueError, OverflowError):
        return _as_json_by_parts(message)


def _as_json_by_parts(message: Message) -> dict[str, Any]:
    """The parts of a message that cannot be shown whole, each by itself."""
    plain = type(message)()
    plain.CopyFrom(message)
    parts: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None:
            plain.ClearField(field.name)
            parts[field.name] = _part(value) if hasattr(value, "DESCRIPTOR") else [_part(item) for item in value]
    return MessageToDict(plain, preserving_proto_field_name=True) | parts


def _part(value: Any) -> Any:  # noqa: ANN401 - a message, and what JSON has for it
    if isinstance(value, (Timestamp, Duration)):
        try:
            return value.ToJsonString()
        except (ValueError, OverflowError):
            return {"seconds": str(value.seconds), "nanos": value.nanos}
    return as_json(value)


def print_json(data: Any) -> None:  # noqa: ANN401 - JSON
    """Print JSON as it is: no colours, no wrapping."""
    print(json.dumps(data, ensure_ascii=False, indent=2))


def command_of(app: click.Group) -> Callable[..., Any]:
    """A decorator for the commands of a program: ``command(name, text, *examples)``.

    Its help ends with the examples, and ``--home`` and ``--lang`` may also stand behind the command's name.
    """

    def command(name: str, text: str, *examples: str) -> Any:  # noqa: ANN401 - click's decorator
        shown = "\n\n\b\n" + _("Example:") + "\n" + "\n".join(f"  {example}" for example in examples)

        def decorate(function: Any) -> click.Command:  # noqa: ANN401
            @click.option("--home", metavar="DIR", hidden=True)
            @click.option("--lang", type=click.Choice(["id", "en"]), expose_value=False, hidden=True)
            @click.pass_context
            def wrapper(ctx: click.Context, /, home: str | None, **kwargs: Any) -> Any:  # noqa: ANN401
                if home:
                    ctx.obj.home = Home.find(home, os.environ, ctx.obj.home.role)
                ctx.obj.as_json = bool(kwargs.get("as_json"))
                return function(ctx.obj, **kwargs)

            params = wrapper.__dict__.setdefault("__click_params__", [])
            params[:0] = getattr(function, "__click_params__", [])
            return app.command(name, help=text + shown)(wrapper)

        return decorate

    return command


def completion(program: str) -> click.Command:
    """A command that prints the shell's completion script."""

    @click.command(
        "completion", help=_("Print shell completion.\n\n\b\nExample:\n  {program} completion bash >> ~/.bashrc").format(program=program)
    )
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @click.pass_context
    def command(ctx: click.Context, shell: str) -> None:
        from click.shell_completion import get_completion_class  # noqa: PLC0415

        cls = get_completion_class(shell)
        root = ctx.find_root().command
        variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
        if cls is not None:
            click.echo(cls(root, {}, program, variable).source())

    return command
