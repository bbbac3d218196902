"""Configuration: the file, the variables that win over it, and errors that name the place."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kad_node.config import CommonConfig, NodeConfig, load, sample, write_initial
from kad_protocol.errors import InvalidInputError, Reason
from kad_simpul.config import SimpulConfig

if TYPE_CHECKING:
    from pathlib import Path

FIRST = 'forum = "kartamantul"\nfederation = "simpul.kad.internal"\n'
SIMPUL = {"feed": "simpul.kad.internal/forums/simpul/e0", "address": "a.id:1", "enrolment_address": "a.id:2"}
VALUES = {"forum": "kartamantul", "federation": "simpul.kad.internal"}


@pytest.fixture
def read(tmp_path: Path):
    def read(text: str | bytes, model: type[CommonConfig] = NodeConfig, **environ: str):
        path = tmp_path / "kad.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(model, path, environ)

    return read


@pytest.fixture
def refused(read):
    def refused(text: str | bytes, **environ: str) -> str:
        with pytest.raises(InvalidInputError) as caught:
            read(text, **environ)
        assert caught.value.reason is Reason.INVALID_CONFIGURATION
        return str(caught.value)

    return refused


def test_what_is_not_given_has_a_default(read) -> None:
    config = read(FIRST)
    assert (config.forum, config.listen, config.simpul, config.log_level) == ("kartamantul", "", None, "info")
    assert read(FIRST, SimpulConfig).mode == "networking"


def test_variables_win_over_the_file(read) -> None:
    text = FIRST + 'log_level = "error"\n[limits]\nframe_bytes = 70000\nheartbeat_seconds = 9\n'
    config = read(text, KAD_LOG_LEVEL="debug", KAD_LIMITS_FRAME_BYTES="80000", KAD_FORUM="javapromo")
    assert (config.log_level, config.limits.frame_bytes, config.forum) == ("debug", 80000, "javapromo")
    assert config.limits.heartbeat_seconds == 9


def test_metrics_stay_on_this_machine_unless_said_otherwise(read, refused) -> None:
    for address in ("127.0.0.1:9450", "localhost:9450", "[::1]:9450", ""):
        assert read(f"{FIRST}metrics_listen = '{address}'\n").metrics_listen == address
    assert read(FIRST).metrics_listen == ""
    message = refused(FIRST + 'metrics_listen = "0.0.0.0:9450"\n')
    assert message.startswith("kad.toml line 3: 'metrics_listen': metrics are for this machine only")
    assert read(FIRST + "metrics_remote = true\nmetrics_listen = '0.0.0.0:9450'\n").metrics_listen == "0.0.0.0:9450"


def test_a_table_can_come_from_variables_alone(read) -> None:
    config = read(FIRST, **{f"KAD_SIMPUL_{key.upper()}": value for key, value in SIMPUL.items()})
    assert config.simpul.model_dump(exclude={"federation_name"}) == SIMPUL


@pytest.mark.parametrize(
    "text,message",
    [
        (FIRST + '\nlistn = "x:1"\n', "kad.toml line 4: the key 'listn' is not known; did you mean 'listen'?"),
        (FIRST + "[limits]\nframe_byte = 3\n", "line 4: the key 'limits.frame_byte' is not known; did you mean 'limits.frame_bytes'?"),
        (FIRST + "[limits]\nframe_bytes = 3\n", "line 4: 'limits.frame_bytes'"),
        (FIRST + "limits.frame_bytes = 3\n", "line 3: 'limits.frame_bytes'"),
        (FIRST + "limits = { frame_bytes = 3 }\n", "line 3: 'limits.frame_bytes'"),
        (FIRST + ' "listen" = "x"\n', "line 3: 'listen': an address is host:port"),
        (FIRST + '[simpul]\naddress = "a.id:1"\n', "line 3: the key 'simpul.feed' is missing"),
        (FIRST + "[limits]\nheartbeat_seconds = 50\nsilence_seconds = 40\n", "line 3: 'limits': heartbeat_seconds is longer"),
        (FIRST + "[limits]\nreconnect_min_seconds = 9\nreconnect_max_seconds = 1\n", "reconnect_min_seconds is longer"),
        (FIRST + 'advertise = """\nlisten = 5\n"""\nlisten = "q"\n', "line 6: 'listen'"),
        (FIRST.replace("kartamantul", "Kartamantul"), "line 1: 'forum'"),
        ('forum = "kartamantul"\n', "kad.toml: the key 'federation' is missing"),
        ("forum = \n", "at line 1"),
        (b'forum = "\xff"\n', "not text in UTF-8"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_line(refused, text: str | bytes, message: str) -> None:
    assert message in refused(text)


def test_what_is_wrong_in_a_variable_is_named_with_the_variable(refused) -> None:
    assert refused(FIRST, KAD_LIMITS_FRAME_BYTES="many").startswith("KAD_LIMITS_FRAME_BYTES: ")
    assert refused(FIRST, KAD_LOG_LEVEL="loud").startswith("KAD_LOG_LEVEL: ")
    assert "KAD_LISEN is not known; did you mean KAD_LISTEN?" in refused(FIRST, KAD_LISEN="x:1")


def test_variables_of_others_are_left_alone(read) -> None:
    others = {"KAD_HOME": "x", "KAD_LANG": "id", "KAD_PASSPHRASE": "x", "KAD_LOG_DIRECTORY": "x", "KAD_DEMO_SPEED": "9", "LISTEN": "x"}
    assert read(FIRST, **others) == read(FIRST)


def test_a_variable_for_a_table_that_the_file_gives_as_a_value(refused) -> None:
    assert "line 3: 'simpul'" in refused(FIRST + "simpul = 3\n", KAD_SIMPUL_ADDRESS="a.id:1")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"nothing\.toml: No such file"):
        load(NodeConfig, tmp_path / "nothing.toml", {})


@pytest.mark.parametrize("address", ["127.0.0.1:7450", "localhost:0", "[::1]:7450", "unix:/run/kad.sock"])
def test_the_local_api_listens_here(read, address: str) -> None:
    assert read(FIRST + f'api_listen = "{address}"').api_listen == address


@pytest.mark.parametrize("address", ["0.0.0.0:7450", "10.0.0.1:7450", "[::]:7450", "example.go.id:7450", "unix:run", "127.0.0.1", ":7450"])
def test_the_local_api_listens_nowhere_else(refused, address: str) -> None:
    assert "line 3: 'api_listen'" in refused(FIRST + f'api_listen = "{address}"')


@pytest.mark.parametrize("address", ["x", "x:", ":1", "x:-1", "x:65536", "x:1_0", "x:²", "x:٣"])
def test_what_is_no_address_is_refused(refused, address: str) -> None:
    assert "line 3: 'listen': an address is host:port" in refused(FIRST + f'listen = "{address}"')


def test_what_can_be_reloaded_exists() -> None:
    for model in (NodeConfig, SimpulConfig):
        assert set(model.model_fields) >= model.RELOADABLE


@pytest.mark.parametrize("model", [NodeConfig, SimpulConfig])
def test_every_key_is_described(model: type[CommonConfig]) -> None:
    text = sample(model, VALUES)
    for name, field in model.model_fields.items():
        assert (field.description and f"# {field.description}.\n" in text) or f"[{name}]" in text


@pytest.mark.parametrize("model", [NodeConfig, SimpulConfig])
def test_a_sample_shows_the_defaults(read, model: type[CommonConfig]) -> None:
    """Read with its comment marks taken away, it says what the model says without it."""
    text = sample(model, {**VALUES, "simpul": SIMPUL} if model is NodeConfig else VALUES)
    shown = "\n".join(line.removeprefix("# ") for line in text.split("\n") if " = " in line or line.removeprefix("# ").startswith("["))
    assert read(shown, model) == read(text, model)
    assert "frame_bytes" in tomllib.loads(shown)["limits"]
    assert "frame_bytes" not in text.replace("# frame_bytes", "")


@given(st.text(max_size=60))
def test_names_from_elsewhere_stay_names(name: str) -> None:
    """The simpul says what the federation is called; whatever it says, the file stays whole and nothing else is set."""
    text = sample(NodeConfig, {**VALUES, "simpul": {**SIMPUL, "federation_name": name}})
    assert tomllib.loads(text) == {**VALUES, "simpul": {**SIMPUL, "federation_name": name}}


def test_the_first_file_is_read_as_it_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "kad.toml"
    write_initial(NodeConfig, path, {**VALUES, "listen": "0.0.0.0:7460", "simpul": SIMPUL}, "# Konfigurasi\n")
    config = load(NodeConfig, path, {})
    assert config == NodeConfig.model_validate({**VALUES, "listen": "0.0.0.0:7460", "simpul": SIMPUL})
    assert path.read_text().startswith("# Konfigurasi\n")
    assert [found.name for found in tmp_path.iterdir()] == ["kad.toml"]
