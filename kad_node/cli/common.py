"""What all commands share: options, one way to speak to the home's daemon (or to the home itself), errors in one line."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import sys
import time
from contextlib import asynccontextmanager, contextmanager
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
from kad_node.home import PATIENCE_SECONDS, Home
from kad_node.messages import _, language
from kad_node.node import Node
from kad_node.service.status import Status
from kad_protocol.channel import local_channel
from kad_protocol.client import Client
from kad_protocol.document import as_written
from kad_protocol.errors import FieldViolation, InvalidInputError, KadError, PreconditionError, Reason
from kad_protocol.status import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping

    from google.protobuf.message import Message

__all__ = ["Context", "Group", "as_json", "borrow", "command_of", "common", "explain", "in_words_of", "print_json", "run"]

#: Wrapped between words on a screen, or where somebody says how wide it is; not cut to 80 columns where nobody reads it on one.
_WIDE = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 240
out = Console(highlight=False, soft_wrap=_WIDE is not None, width=_WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=_WIDE is not None and not sys.stderr.isatty())


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
            fail(error, as_json="--json" in sys.argv[1:])
        except grpc.aio.AioRpcError as error:
            fail(from_rpc_error(error), as_json="--json" in sys.argv[1:])
        except BrokenPipeError:
            # Whoever read our output has closed it (`| head`); that is no error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except KeyboardInterrupt:
            sys.exit(130)


def fail(error: KadError, *, as_json: bool) -> None:
    """Say what is wrong and what to do, and end with status 1."""
    if as_json:
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
    if error.reason is Reason.ACTING_FOR_OTHERS_NOT_POSSIBLE and "configured" in error.metadata:
        hint = _(
            "the members have decided for {decided}, but kad.toml of this simpul says mode = {configured}. Change that and start it again."
        )
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
        Reason.INVITATION_FOR_SIMPUL: _("a simpul joins with an invitation for its federation, a forum with one for itself. ({message})"),
        Reason.BRIDGE_UNKNOWN: _("this simpul is not joined with {federation}. `kad-simpul status` shows with whom it is."),
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
        Reason.MANDATE_REVOKED: _("that mandate was revoked; only a new one of that forum lets the simpul go on. ({message})"),
        Reason.MANDATE_EXPIRED: _("that mandate has expired; the forum gives a new one with `kad-node mandate grant`. ({message})"),
        Reason.MANDATE_NOT_YET: _("that mandate begins later: `mandate list` shows when. ({message})"),
        Reason.MANDATE_SCOPE: _("the mandate does not reach that far: `mandate list` shows kinds, affairs and regions. ({message})"),
        Reason.MANDATES_TOO_FEW: _("too few members have mandated that. `mandate list --live` shows who has. ({message})"),
        Reason.MANDATE_UNKNOWN: _("there is no such mandate. `mandate list` shows them. ({message})"),
        Reason.MANDATE_INVALID: _("such a mandate cannot be given. `kad-node mandate grant --help` shows how. ({message})"),
        Reason.CHARTER_INVALID: _("such a charter cannot be. `kad-node charter` prints the one in force with its rules. ({message})"),
        Reason.PROPOSAL_INVALID: _("that cannot be put to the vote. ({message})"),
        Reason.PROPOSAL_UNKNOWN: _("there is no such proposal here (yet). `kad-node decisions` shows them. ({message})"),
        Reason.NOT_FULL_MEMBER: _("only active full members decide; associates and suspended members do not. ({message})"),
        Reason.NOT_A_MEMBER: _("not a member of the federation; `members` shows who is. ({message})"),
        Reason.MEMBER_LEFT: _("this forum has left the federation; to come back it needs a new invitation. ({message})"),
        Reason.CANDIDATE_UNKNOWN: _("that forum has not applied. `kad-node members` shows who has. ({message})"),
        Reason.ENDORSEMENT_REPEATED: _("this forum has endorsed it already; once is enough."),
        Reason.ACT_UNKNOWN: _(
            "that act was not done in this forum's name, or has no effect any more. `kad-node acts` shows them. ({message})"
        ),
        Reason.VETO_TOO_LATE: _("it is too late to object to that, or the mandate allows no veto (--veto-days). ({message})"),
        Reason.VERSION_OUT_OF_ORDER: _(
            "that does not fit the record as it stands now, or it waits for no review: read it again. ({message})"
        ),
        Reason.VOTE_REPEATED: _("this forum has voted on that already; the first vote counts."),
        Reason.VOTE_TOO_LATE: _("that is closed; no votes are taken any more."),
        Reason.VOTE_NOT_ENTITLED: _("this forum has no vote on that. ({message})"),
        Reason.MEMBER_SUSPENDED: _("suspended, or no longer a member. ({message})"),
        Reason.RECORD_NOT_FOUND: _("there is no record {name} here. `kad-node list` shows what there is."),
        Reason.STALE_VERSION: _("{name} is at version {current_version} now, you saw {expected_version}. Read it again, then revise."),
        Reason.RECORD_RETRACTED: _("{name} was retracted and cannot be changed."),
        Reason.RECORD_OF_OTHER_WRITER: _(
            "the simpul published that in the forum's name: `kad-node acts` shows under which mandate. ({message})"
        ),
        Reason.NOT_OWN_RECORD: _("only the forum that published a record can change it. ({message})"),
        Reason.EPOCH_SUPERSEDED: _(
            "this key epoch is over: {message}. If this is your forum, run `kad-node recover` in this home, or go on in the home that has been recovered."
        ),
        Reason.KEY_ROTATION_INVALID: _(
            "the key is not the right one: {message}. Restore keys/ from a newer backup, or begin anew with `kad-node recover`."
        ),
        Reason.RECOVERY_INVALID: _("the recovery is not possible like this: {message}."),
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

    async def _daemon(self) -> str:
        """Where the home's daemon answers, empty if there is none. One that is just starting is waited for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.home.locked():
            if address := self.home.running().get("api"):
                return str(address)
            if time.monotonic() > deadline:
                raise PreconditionError(
                    Reason.HOME_IN_USE, "the home is in use", home=self.home.path, pid=self.home.running().get("pid", "?")
                )
            await asyncio.sleep(0.02)
        return ""

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the home's daemon; without a daemon, of the same API on the home itself, for the length of the command."""
        self.home.require()
        token = self.home.tokens.local()
        if address := await self._daemon():
            async with local_channel(address, token, language()) as channel:
                yield Client(channel)
            return
        with self.home.lock(PATIENCE_SECONDS):
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


@contextmanager
def in_words_of(data: Mapping[str, Any]) -> Iterator[None]:
    """What a node finds wrong with a document is said with the document's own keys."""
    try:
        yield
    except grpc.aio.AioRpcError as refused:
        error = from_rpc_error(refused)
        if not isinstance(error, InvalidInputError) or not error.violations:
            raise
        inner = [FieldViolation(re.sub(r"^(content|profile|statement)\.", "", v.field), v.description, v.rule) for v in error.violations]
        raise as_written(InvalidInputError(error.reason, error.message, inner, **error.metadata), data) from refused


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
    return time_as_json(value) if isinstance(value, (Timestamp, Duration)) else as_json(value)


def time_as_json(time: Timestamp | Duration) -> str | dict[str, Any]:
    """A time in its JSON form; one that no calendar knows in its parts."""
    try:
        return time.ToJsonString()
    except (ValueError, OverflowError):
        return {"seconds": str(time.seconds), "nanos": time.nanos}


def print_json(data: Any) -> None:  # noqa: ANN401 - JSON
    """Print JSON as it is: no colours, no wrapping."""
    print(json.dumps(data, ensure_ascii=False, indent=2))


def command_of(app: click.Group, program: str = "kad-node") -> Callable[..., Any]:
    """A decorator for the commands of a program: ``command(name, text, *examples)``.

    Its help ends with the examples, in which ``kad-node`` stands for the program, and ``--home`` and ``--lang`` may also stand behind the
    command's name.
    """

    def command(name: str, text: str, *examples: str) -> Any:  # noqa: ANN401 - click's decorator
        shown = "\n\n\b\n" + _("Example:") + "\n" + "\n".join(f"  {example}" for example in examples).replace("kad-node", program)

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


def borrow(command: click.Command, program: str) -> click.Command:
    """The same command for another program, which its help then names."""
    own = copy.copy(command)
    own.help = (command.help or "").replace("kad-node", program)
    if isinstance(own, click.Group):
        own.commands = {name: borrow(part, program) for name, part in own.commands.items()}
    return own


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
