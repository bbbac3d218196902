"""What can be configured: ``kad.toml`` in the home, and ``KAD_*`` variables, which win over it.

Every key is typed and checked; what is unknown or wrong is named with its line or variable.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from kad_node.files import write_atomic
from kad_protocol.audience import DEFAULT_FOREIGN_FEEDS
from kad_protocol.errors import InvalidInputError, KadError, Reason
from kad_protocol.names import FeedId, check_federation, check_forum

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["CommonConfig", "LimitsConfig", "NodeConfig", "SimpulLink", "checked", "load", "sample", "write_initial"]

#: Variables that are not configuration keys.
_OTHER_VARIABLES = frozenset({"KAD_HOME", "KAD_LANG", "KAD_PASSPHRASE", "KAD_TEST_SEED"})

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_NAME = r"(?:[\w-]+|\"[^\"]*\"|'[^']*')"
_NAMES = rf"\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*"
_HEADER = re.compile(rf"\s*\[{_NAMES}\]")
_KEY = re.compile(rf"{_NAMES}=")


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if value and not (re.fullmatch(r"[^\s\x00-\x1f]+", host) and re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65535):  # noqa: PLR2004 - ports
        raise ValueError("an address is host:port")
    return value


def _local_address(value: str) -> str:
    if value.startswith("unix:/"):
        return value
    host = _address(value).rpartition(":")[0].strip("[]")
    if host not in _LOOPBACK:
        raise ValueError("the local API listens on 127.0.0.1, localhost, [::1] or unix:/path only")
    return value


def _named(check: Any) -> Any:  # noqa: ANN401 - wraps a checker for pydantic
    def checker(value: str) -> str:
        try:
            check(value)
        except KadError as error:
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(checker)


Address = Annotated[str, AfterValidator(_address)]
LocalAddress = Annotated[str, AfterValidator(_local_address)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitsConfig(_Table):
    """What one peer may cost. Can be changed with SIGHUP."""

    frame_bytes: int = Field(512 << 10, ge=64 << 10, le=1 << 20, description="Bytes of one frame, at most")
    window_bytes: int = Field(4 << 20, ge=64 << 10, le=16 << 20, description="Bytes on their way to us unacknowledged, at most")
    heartbeat_seconds: float = Field(20, ge=0.1, le=60, description="Silence after which we give a sign of life")
    silence_seconds: float = Field(75, ge=1, le=600, description="Silence after which a peer counts as gone")
    reconnect_min_seconds: float = Field(0.5, ge=0.05, le=60, description="First pause before dialling again")
    reconnect_max_seconds: float = Field(60, ge=0.1, le=3600, description="Longest pause before dialling again")
    connection_age_seconds: float = Field(900, ge=5, le=86400, description="Connections are renewed after this long")
    foreign_feeds: int = Field(
        DEFAULT_FOREIGN_FEEDS, ge=1, le=50_000, description="Feeds of each other federation that are taken; needs a restart"
    )
    drain_seconds: float = Field(8, ge=0, le=120, description="How long SIGTERM waits for running calls")

    @model_validator(mode="after")
    def _in_order(self) -> LimitsConfig:
        for less, more in (("heartbeat_seconds", "silence_seconds"), ("reconnect_min_seconds", "reconnect_max_seconds")):
            if getattr(self, less) > getattr(self, more):
                raise ValueError(f"{less} is longer than {more}")
        return self


class SimpulLink(_Table):
    """The simpul that this node has joined."""

    feed: Annotated[str, _named(FeedId.parse)] = Field(description="Origin of the simpul's feed")
    address: Address = Field(description="Where to exchange")
    enrolment_address: Address = Field(description="Where to renew the certificate")
    federation_name: str = Field("", description="Display name of the federation")


class CommonConfig(_Table):
    """What nodes and simpuls have in common."""

    RELOADABLE: ClassVar[frozenset[str]] = frozenset({"log_level", "limits"})

    forum: Annotated[str, _named(check_forum)] = Field(description="This member's id; cannot be changed")
    federation: Annotated[str, _named(check_federation)] = Field(description="The federation's name; cannot be changed")
    api_listen: LocalAddress = Field("127.0.0.1:7450", description="Local API, for the command line and programs on this machine")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged")
    log_format: Literal["auto", "human", "json"] = Field("auto", description="auto: for people on a terminal, JSON elsewhere")
    reflection: bool = Field(default=True, description="Let gRPC tools ask what there is")
    metrics_remote: bool = Field(
        default=False, description="Let metrics_listen be an address of the network; whoever reaches it reads it, without a token"
    )
    metrics_listen: Address = Field("", description="Where Prometheus reads /metrics, e.g. 127.0.0.1:9450; empty: nowhere")
    limits: LimitsConfig = Field(default_factory=LimitsConfig)  # type: ignore[arg-type]

    @field_validator("metrics_listen")
    @classmethod
    def _metrics_stay_here(cls, value: str, info: ValidationInfo) -> str:
        if value and value.rpartition(":")[0].strip("[]") not in _LOOPBACK and not info.data.get("metrics_remote"):
            raise ValueError("metrics are for this machine only (127.0.0.1, localhost or [::1]), unless metrics_remote = true")
        return value


class NodeConfig(CommonConfig):
    """Configuration of ``kad-node``."""

    listen: Address = Field("", description="Where other members can reach this node directly, e.g. 0.0.0.0:7460; empty: nowhere")
    advertise: Address = Field("", description="How they call that address, e.g. node.example.go.id:7460")
    simpul: SimpulLink | None = Field(None, description="The simpul, if one was joined")


C = TypeVar("C", bound=CommonConfig)


def load(model: type[C], path: Path, environ: Mapping[str, str]) -> C:
    """Read the configuration.

    Raises:
        InvalidInputError: ``INVALID_CONFIGURATION``, naming file and line, or the variable.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _wrong(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(f"{path.name}: this is not text in UTF-8") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(f"{path.name}: {error}") from error
    variables = _from_environment(model, environ)
    for keys, (_, value) in variables.items():
        target = data
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                break  # The file has a value where a table belongs; the model says so, with its line.
        else:
            target[keys[-1]] = value
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        keys = tuple(str(key) for key in first["loc"])
        where = next((name for found, (name, _) in variables.items() if found == keys), "") or _place(path.name, text, keys)
        raise _wrong(f"{where}: {_explain(model, keys, first)}") from error


def checked(model: type[C], values: Mapping[str, Any]) -> C:
    """The configuration that these values make, before they are written down.

    Raises:
        InvalidInputError: ``INVALID_CONFIGURATION``, with the key that is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = tuple(str(key) for key in first["loc"])
        raise _wrong(f"{'.'.join(keys)}: {_explain(model, keys, first)}") from error


def _wrong(message: str) -> InvalidInputError:
    return InvalidInputError(Reason.INVALID_CONFIGURATION, message)


def _from_environment(model: type[CommonConfig], environ: Mapping[str, str]) -> dict[tuple[str, ...], tuple[str, str]]:
    known = {f"KAD_{'_'.join(keys).upper()}": keys for keys in _paths(model)}
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, value in environ.items():
        if name in known:
            found[known[name]] = (name, value)
        elif name.startswith("KAD_") and name not in _OTHER_VARIABLES and (close := difflib.get_close_matches(name, known, 1, 0.85)):
            raise _wrong(f"the variable {name} is not known; did you mean {close[0]}?")
    return found


def _paths(model: type[BaseModel], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        nested = _nested(field.annotation)
        paths.extend(_paths(nested, (*before, name)) if nested else [(*before, name)])
    return paths


def _nested(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _place(file: str, text: str, keys: tuple[str, ...]) -> str:
    """File and line of a key, or of the table that it belongs in; the file alone where there is neither."""
    table: tuple[str, ...] = ()
    found, depth, quoted = 0, 0, False
    for number, line in enumerate(text.split("\n"), 1):
        inside, quoted = quoted, quoted ^ ((line.count('"""') + line.count("'''")) % 2 == 1)
        if inside:
            continue
        if header := _HEADER.match(line):
            path = table = _split(header.group(1))
        elif key := _KEY.match(line):
            path = (*table, *_split(key.group(1)))
        else:
            continue
        if len(path) > depth and path == keys[: len(path)]:
            found, depth = number, len(path)
    return f"{file} line {found}" if found else file


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip(" \t\"'") for name in names.split("."))


def _explain(model: type[BaseModel], keys: tuple[str, ...], error: Any) -> str:  # noqa: ANN401 - pydantic's
    name = ".".join(keys)
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, [".".join(path) for path in _paths(model)], 1, 0.6)
        return f"the key {name!r} is not known" + (f"; did you mean {close[0]!r}?" if close else "")
    if error["type"] == "missing":
        return f"the key {name!r} is missing"
    return f"{name!r}: {str(error['msg']).removeprefix('Value error, ')}"


def _toml(value: Any) -> str:  # noqa: ANN401 - a scalar
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    # TOML's basic strings are JSON's, but for DEL. Names of federations come from elsewhere and may hold anything.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def sample(model: type[BaseModel], values: Mapping[str, Any], header: str = "") -> str:
    """A commented ``kad.toml``: keys in ``values`` are set, all others stand there with their default behind a ``#``."""
    lines, tables = [header] if header else [], []
    for name, field in model.model_fields.items():
        if (nested := _nested(field.annotation)) is not None:
            tables.append((name, nested, values.get(name)))
            continue
        lines.append(f"# {field.description}.")
        given = name in values
        default = "" if field.is_required() else field.get_default(call_default_factory=True)
        lines.append(f"{'' if given else '# '}{name} = {_toml(values[name] if given else default)}\n")
    for name, nested, inner in tables:
        mark = "" if inner else "# "
        lines.append(f"{mark}[{name}]")
        lines.append(sample(nested, inner or {}).rstrip() + "\n")
    return "\n".join(lines) + "\n"


def write_initial(model: type[BaseModel], path: Path, values: Mapping[str, Any], header: str) -> None:
    """Write a first ``kad.toml``; from then on it belongs to the operator."""
    write_atomic(path, sample(model, values, header).encode())
