"""Who may call what: one table for the local API, one for members, and the rules of the messages themselves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kad_node.tokens import Role, Tokens
from kad_protocol.channel import caller
from kad_protocol.content import check_rules
from kad_protocol.errors import InvalidInputError, PermissionDeniedError, QuotaError, Reason, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio
    from google.protobuf.message import Message

    from kad_protocol.certificates import Trust
    from kad_protocol.names import FeedId

__all__ = ["check_request", "local_guard", "member_guard"]

_OPEN = ("/grpc.health.v1.", "/grpc.reflection.")
_READING = frozenset({"Get", "List", "Search", "Watch", "Read"})
_ROLES = {
    "CreateRecord": Role.PUBLISHER,
    "BatchCreateRecords": Role.PUBLISHER,
    "ReviseRecord": Role.PUBLISHER,
    "RetractRecord": Role.PUBLISHER,
    "PublishProfile": Role.PUBLISHER,
    "ExportFeeds": Role.READER,
    "ImportFeeds": Role.ADMIN,
}
_AFFAIRS = frozenset({"MembershipService", "MandatesService", "DecisionsService"})
#: What a member may call on another member's port, besides `Exchange`: reading.
_MEMBER_SERVICES = frozenset({"RecordsService", "DirectoryService", "TransparencyService", "ReplicationService"} | _AFFAIRS)


#: Calls of one member that are served at the same time, streams among them: an honest one has a stream, and another that ends.
_MOST_CALLS = 32


def _split(method: str) -> tuple[str, str]:
    service, _, name = method.removeprefix("/").partition("/")
    return service.rpartition(".")[2], name


def _reads(name: str) -> bool:
    return any(name.startswith(verb) for verb in _READING)


def check_request(request: Message) -> None:
    """Refuse a request that breaks the rules of its proto.

    Raises:
        InvalidInputError: ``INVALID_FIELD`` with one violation for each broken rule.
    """
    violations = check_rules(request)
    if violations:
        first = violations[0]
        raise InvalidInputError(Reason.INVALID_FIELD, f"{first.field}: {first.description}", violations, field=first.field)


def local_guard(tokens: Tokens) -> Callable[[str, Any, grpc.aio.ServicerContext[Any, Any]], None]:
    """For the local API: the bearer token's role decides; what is not in the table needs an administrator."""

    def guard(method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: ANN401
        if method.startswith(_OPEN):
            return
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        header = str(metadata.get("authorization", ""))
        if not header.startswith("Bearer "):
            raise UnauthenticatedError(Reason.TOKEN_INVALID, "this call needs the metadata 'authorization: Bearer <token>'")
        role = tokens.role_of(header.removeprefix("Bearer "))
        service, name = _split(method)
        needed = _ROLES.get(name, Role.READER if _reads(name) and service != "InvitationService" else Role.ADMIN)
        if role < needed:
            raise PermissionDeniedError(
                Reason.ROLE_INSUFFICIENT,
                f"{name} needs a token of role {needed.name.lower()}",
                role=role.name.lower(),
                needed=needed.name.lower(),
            )
        if request is not None:
            check_request(request)

    return guard


def member_guard(
    trust: Callable[[], Trust], admit: Callable[[FeedId], None], federation: str
) -> Callable[[str, Any, grpc.aio.ServicerContext[Any, Any]], None]:
    """For the port that other members call: a member's certificate, a member in good standing, and nothing but reading and exchange.

    Members of another federation than ``federation`` only exchange: what they may have is decided there, entry by entry. No member has more
    than its share of the port at a time, however many calls and streams it opens.
    """
    calls: Counter[tuple[str, str]] = Counter()

    def take_turn(who: FeedId, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        key = (who.federation, who.forum)
        if calls[key] >= _MOST_CALLS:
            raise QuotaError(Reason.QUOTA_EXCEEDED, f"{who.forum} has {_MOST_CALLS} calls open already", limit=_MOST_CALLS)
        calls[key] += 1
        context.add_done_callback(lambda _: give_back(key))  # type: ignore[arg-type]

    def give_back(key: tuple[str, str]) -> None:
        calls[key] -= 1
        if not calls[key]:
            del calls[key]

    def guard(method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: ANN401
        if method.startswith("/grpc.health.v1."):
            return
        who = caller(context, trust())
        admit(who)
        service, name = _split(method)
        if who.federation != federation and (service, name) != ("ReplicationService", "Exchange"):
            raise PermissionDeniedError(
                Reason.FOREIGN_MEMBER, f"{who.forum} is of another federation: it may exchange, and nothing else", forum=who.forum
            )
        if service not in _MEMBER_SERVICES or not (_reads(name) or name == "Exchange"):
            raise PermissionDeniedError(Reason.ROLE_INSUFFICIENT, f"{name} can be called on a node's own local API only")
        if request is not None:
            check_request(request)
        take_turn(who, context)

    return guard
