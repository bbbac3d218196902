"""The home directory: made once, held by one, and its files are whole or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from kad_node.files import write_atomic
from kad_node.home import Home, passphrase
from kad_protocol.errors import InvalidInputError, KadError, NotFoundError, PreconditionError, Reason


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home", "node")
    made.prepare()
    made.config.write_text("")
    return made


def reason_of(action) -> Reason:
    with pytest.raises(KadError) as caught:
        action()
    return caught.value.reason


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home.find("/a", {"KAD_HOME": "/b"}, "node").path == Path("/a")
    assert Home.find(None, {"KAD_HOME": "/b"}, "node").path == Path("/b")
    assert Home.find(None, {"KAD_HOME": ""}, "node").path == tmp_path / "kad-node"
    assert Home.find(None, {}, "simpul").path == tmp_path / "kad-simpul"
    assert Home.find("~/x", {}, "node").path == tmp_path / "x"
    assert Home.find("~nobody-of-this-name/x", {}, "node").path.is_absolute()


def test_it_is_made_for_its_owner_alone(home: Home) -> None:
    for folder in (home.path, *(path for path in home.path.iterdir() if path.is_dir())):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    home.require()


def test_making_it_can_be_repeated_until_it_is_initialised(tmp_path: Path) -> None:
    home = Home(tmp_path, "node")
    home.prepare()
    first = home.create_keys({}).secret
    home.prepare()
    assert home.create_keys({}).secret == first
    home.config.write_text("")
    assert reason_of(home.prepare) is Reason.HOME_ALREADY_INITIALISED


def test_what_is_no_home_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        Home(tmp_path / "nothing", "node").require()
    assert caught.value.reason is Reason.HOME_NOT_FOUND
    assert caught.value.metadata == {"home": str(tmp_path / "nothing"), "role": "node"}


def test_a_home_has_one_role(home: Home) -> None:
    other = Home(home.path, "simpul")
    assert reason_of(other.require) is Reason.HOME_WRONG_ROLE
    home.config.unlink()
    assert reason_of(other.prepare) is Reason.HOME_WRONG_ROLE
    home.config.write_text("")
    (home.path / "role").unlink()
    assert reason_of(home.require) is Reason.HOME_NOT_FOUND


def test_a_home_that_cannot_be_written_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, who may write anywhere.
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda _, mode: mode & os.W_OK == 0)
        assert reason_of(home.require) is Reason.HOME_NOT_WRITABLE

    def denied(self, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    assert reason_of(home.require) is Reason.HOME_NOT_WRITABLE


def test_a_file_where_the_home_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert reason_of(Home(tmp_path / "file", "node").prepare) is Reason.HOME_NOT_WRITABLE
    assert reason_of(Home(tmp_path / "file", "node").lock().__enter__) is Reason.HOME_NOT_WRITABLE


# Keys.


def test_keys_are_sealed_with_the_passphrase(home: Home) -> None:
    environ = {"KAD_PASSPHRASE": "rahasia"}
    secret = home.create_keys(environ).secret
    path = home.path / "keys" / "epoch-0.key"
    assert secret not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    for wrong in ({}, {"KAD_PASSPHRASE": "salah"}):
        with pytest.raises(InvalidInputError) as caught:
            home.create_keys(wrong)
        assert caught.value.reason is Reason.INVALID_PASSPHRASE


def test_where_the_passphrase_comes_from(tmp_path: Path) -> None:
    (tmp_path / "kad-passphrase").write_text("dari systemd\n")
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert passphrase({}) is None
    assert passphrase(credentials) == b"dari systemd"
    assert passphrase({**credentials, "KAD_PASSPHRASE": "x"}) == b"x"
    (tmp_path / "kad-passphrase").write_text("\n")
    assert passphrase(credentials) is None
    assert passphrase({"CREDENTIALS_DIRECTORY": str(tmp_path / "nothing")}) is None


def test_channel_key_and_certificate_belong_together(home: Home) -> None:
    key, certificate = b"-----BEGIN PRIVATE KEY-----\nx\n", b"-----BEGIN CERTIFICATE-----\ny\n-----BEGIN CERTIFICATE-----\nz\n"
    home.save_channel(key, certificate)
    assert home.channel() == (key, certificate)
    assert (home.path / "channel" / "identity.pem").stat().st_mode & 0o777 == 0o600


# Who has it open.


def test_one_holds_it_and_is_named(home: Home) -> None:
    assert not home.locked()
    with home.lock():
        with pytest.raises(PreconditionError) as caught, Home(home.path, "node").lock():
            pass
        assert caught.value.reason is Reason.HOME_IN_USE
        assert caught.value.metadata["pid"] == str(os.getpid())
        assert home.locked()
    assert not home.locked()


def test_a_command_that_holds_it_for_a_moment_is_waited_for_and_a_daemon_is_not(home: Home) -> None:
    entered = threading.Event()
    done = threading.Event()

    def command() -> None:
        with home.lock():
            entered.set()
            done.wait(10)

    def start() -> None:
        with Home(home.path, "node").lock(patience_seconds=10):
            started.append(done.is_set())

    started: list[bool] = []
    threads = [threading.Thread(target=target) for target in (command, start)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    done.set()
    for thread in threads:
        thread.join(10)
    assert started == [True]
    with home.lock():
        home.announce("127.0.0.1:1", {})
        begin = time.monotonic()
        with pytest.raises(PreconditionError), Home(home.path, "node").lock(patience_seconds=10):
            pass
        assert time.monotonic() - begin < 5


def _hold_and_die(path: Path) -> None:
    home = Home(path, "node")
    home.lock().__enter__()
    home.announce("127.0.0.1:1", {"members": "0.0.0.0:2"})
    os._exit(9)


def test_what_a_killed_daemon_left_is_not_believed(home: Home) -> None:
    daemon = multiprocessing.get_context("spawn").Process(target=_hold_and_die, args=(home.path,))
    daemon.start()
    daemon.join(60)
    assert daemon.exitcode == 9
    assert home.running() == {"pid": daemon.pid, "api": "127.0.0.1:1", "members": "0.0.0.0:2"}
    # Whoever comes next may hold it, and those who ask meanwhile hear of no daemon, and of the right process.
    with home.lock():
        assert home.running() == {}
        with pytest.raises(PreconditionError) as caught, home.lock():
            pass
        assert caught.value.metadata["pid"] == str(os.getpid())


def test_a_daemon_says_where_it_is_until_it_ends(home: Home) -> None:
    with home.lock():
        home.announce("unix:/x", {})
        assert home.locked()
        assert home.running() == {"pid": os.getpid(), "api": "unix:/x"}
        home.withdraw()
        home.withdraw()
    assert home.running() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\udcff"])
def test_a_broken_announcement_is_none(home: Home, text: str) -> None:
    (home.path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    assert home.running() == {}


# Files.


@pytest.mark.parametrize("private,mode", [(True, 0o600), (False, 0o644)])
def test_files_have_their_mode_from_the_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private, mode) -> None:
    before = os.umask(0o022)
    try:
        modes, sync = [], os.fsync
        monkeypatch.setattr(os, "fsync", lambda fd: (modes.append(os.fstat(fd).st_mode & 0o777), sync(fd)))
        (tmp_path / "x").write_text("old")
        write_atomic(tmp_path / "x", b"new", private=private)
    finally:
        os.umask(before)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert modes[0] == (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, sync, rename = [], os.fsync, Path.rename

    def synced(descriptor):
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name[:2]}")
        sync(descriptor)

    def renamed(self, target):
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    write_atomic(tmp_path / "x", b"new")
    assert steps == ["sync .x", "rename", f"sync {tmp_path.name[:2]}"]


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "x", b"new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "old"}


def test_the_announcement_is_json(home: Home) -> None:
    home.announce("127.0.0.1:1", {})
    assert json.loads(home.read("run.json"))["pid"] == os.getpid()
