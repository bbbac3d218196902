"""What is wrong is refused with a clear line, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from kad_protocol.errors import Reason
from tests.federation.harness import PRACTICE, Federation, Member, command, run, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.federation


def refuse(program: str, home: Path, *arguments: str, status: int = 1, stdin: str | None = None, **more: str) -> str:
    """Run a command that must be refused in one plain way; what it said."""
    done = command(program, home, *arguments, stdin=stdin, **more)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    # Wherever a line was broken.
    return " ".join(done.stderr.split())


async def test_a_daemon_that_cannot_do_all_that_it_should_does_not_go_on_with_half_of_it(federation: Federation) -> None:
    """It says so and ends, so that whoever supervises it begins it anew."""
    home = federation.simpul.home
    await federation.simpul.stop()
    done = command("tests.federation.hostile_simpul", home.path, "faint")
    assert done.returncode == 1
    *logged, said = done.stderr.splitlines()
    assert said == "faint ended in a fault that nobody expected; the log has it"
    assert "ZeroDivisionError" in logged
    # Nothing of it is left behind.
    await federation.simpul.start()


async def test_invitations_that_do_not_hold(federation: Federation, tmp_path: Path) -> None:
    good = federation.invite("kartamantul")
    home = tmp_path / "x"
    arguments = ("--name", "Sekber")
    assert "whole invitation" in refuse("kad_node", home, "join", good[:-5], *arguments)
    assert "whole invitation" in refuse("kad_node", home, "join", good[:40] + ("A" if good[40] != "A" else "B") + good[41:], *arguments)
    assert "is for kartamantul" in refuse("kad_node", home, "join", good, "--forum", "javapromo", *arguments)
    assert not (home / "kad.toml").exists()
    # Withdrawn, then good, then used by somebody else.
    withdrawn = federation.invite("javapromo")
    number = federation.simpul.json("invitations")[0]["id"]
    federation.simpul.run("invitations", "--revoke", number)
    assert "withdrawn" in refuse("kad_node", tmp_path / "y", "join", withdrawn, *arguments)
    member = Member("kad_node", "kartamantul", home)
    member.run("join", good, *arguments)
    assert "has been used" in refuse("kad_node", tmp_path / "z", "join", good, *arguments)
    # Whoever asks again is given the same, and stays who it was.
    before = (home / "keys" / "epoch-0.key").read_bytes()
    member.run("join", good, *arguments)
    assert (home / "keys" / "epoch-0.key").read_bytes() == before
    # A simpul that does not answer.
    await federation.simpul.stop(signal.SIGKILL)
    await federation.simpul.start()
    late = federation.invite("barlingmascakeb")
    await federation.simpul.stop()
    assert "nobody answers" in refuse("kad_node", tmp_path / "w", "join", late, *arguments)
    # The same command goes on where it was when the simpul is back: the keys it had made are the ones it keeps.
    key = (tmp_path / "w" / "keys" / "epoch-0.key").read_bytes()
    await federation.simpul.start()
    Member("kad_node", "barlingmascakeb", tmp_path / "w").run("join", late, *arguments)
    assert (tmp_path / "w" / "keys" / "epoch-0.key").read_bytes() == key


async def test_an_invitation_from_another_federation_leads_nowhere(federation: Federation, tmp_path: Path) -> None:
    other = Federation(tmp_path / "other")
    try:
        await other.found()
        foreign = await other.join("kartamantul")
        ours = await federation.join("kartamantul")
        # A stolen address: the foreign node is pointed at our simpul, with its own certificate.
        await foreign.stop()
        text = foreign.home.config.read_text()
        real = re.search(r'^advertise = "(.*)"', federation.simpul.home.config.read_text(), re.MULTILINE)
        assert real is not None
        foreign.home.config.write_text(re.sub(r'^address = ".*"', f'address = "{real.group(1)}"', text, flags=re.MULTILINE))
        await foreign.start()
        await until(lambda: "peer away" in foreign.log(), "the foreign node is sent away")
        name = ours.run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
        await until(lambda: name in federation.simpul.run("status", "--json") or federation.simpul.json("status"), "ours goes on")
        assert len(federation.simpul.json("members")) == 1
    finally:
        await other.close()


def test_documents_that_break_a_rule(tmp_path: Path) -> None:
    home = tmp_path / "n"
    Member("kad_node", "uji", home).run("init", "--forum", "uji", "--name", "Uji")
    cases = {
        "{}": "kind",
        "kind: best-practice\ntitel: x": "did you mean 'title'",
        "kind: best-practice\ntitle: x\nregions: [kota]": "regions[0]",
        "kind: regulation\ntitle: x\ninstrument: entah": "instrument",
        "kind: agenda-item\ntitle: x": "start_time",
        "kind: agenda-item\ntitle: x\nstart_time: besok": "start_time",
        "kind: best-practice\ntitle: ''": "title",
        "kind: best-practice\ntitle: [": "line 2",
        "a: &a [1]\nb: *a": "aliases",
        "- x": "key: value",
        "kind: best-practice\ntitle: " + "x" * 400: "title",
    }
    for text, expected in cases.items():
        assert expected in refuse("kad_node", home, "publish", "-", stdin=text), text
    assert command("kad_node", home, "list", "--json").stdout.strip() == "[]"
    refuse("kad_node", home, "show", "forums/uji/records/x")
    refuse("kad_node", home, "show", "forums/uji/records/01JBQ4ZC8M5T6V7W8X9Y0Z1A2B")
    refuse("kad_node", home, "list", "--kind", "entah")
    refuse("kad_node", home, "publish", "/does/not/exist.yaml", status=2)
    refuse("kad_node", home, "nonsense", status=2)


def test_homes_that_cannot_be_used(tmp_path: Path) -> None:
    home = tmp_path / "n"
    assert "kad-node join" in refuse("kad_node", home, "list")
    member = Member("kad_node", "uji", home)
    member.run("init", "--forum", "uji", "--name", "Uji")
    assert "already" in refuse("kad_node", home, "init", "--forum", "uji", "--name", "Uji")
    assert "kad-node" in refuse("kad_simpul", home, "status")
    with member.home.lock():
        assert "in use" in refuse("kad_node", home, "list")
    name = member.run("publish", "-", stdin=json.dumps(PRACTICE)).strip()
    with sqlite3.connect(home / "store.sqlite3") as database:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert "newer version" in refuse("kad_node", home, "list")
    with sqlite3.connect(home / "store.sqlite3") as database:
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    assert member.json("show", name)["version"] == 1
    (home / "store.sqlite3").rename(home / "kept")
    for leftover in home.glob("store.sqlite3-*"):
        leftover.unlink()
    (home / "store.sqlite3").write_bytes(b"not a database at all" * 500)
    assert "damaged" in refuse("kad_node", home, "list")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "writable" in refuse("kad_node", tmp_path / "n", "init", "--forum", "uji", "--name", "Uji")


def test_a_sealed_key_needs_its_passphrase(tmp_path: Path) -> None:
    home = tmp_path / "n"
    member = Member("kad_node", "uji", home)
    member.run("init", "--forum", "uji", "--name", "Uji", KAD_PASSPHRASE="rahasia")
    assert "KAD_PASSPHRASE" in refuse("kad_node", home, "list")
    assert "KAD_PASSPHRASE" in refuse("kad_node", home, "list", KAD_PASSPHRASE="salah")
    member.run("list", KAD_PASSPHRASE="rahasia")


def test_configurations_that_are_wrong(tmp_path: Path) -> None:
    home = tmp_path / "n"
    Member("kad_node", "uji", home).run("init", "--forum", "uji", "--name", "Uji")
    good = (home / "kad.toml").read_text()
    cases = {
        'listn = "127.0.0.1:1"': "did you mean 'listen'",
        'listen = "nowhere"': "line",
        'api_listen = "0.0.0.0:7"': "127.0.0.1",
        "[limits]\nframe_bytes = 1": "limits.frame_bytes",
        "[limits": "kad.toml",
    }
    for line, expected in cases.items():
        text = re.sub(rf"^{line.split(' =')[0]} =.*$", "", good, flags=re.MULTILINE) if " = " in line else good
        (home / "kad.toml").write_text(f"{line}\n{text}" if not line.startswith("[") else f"{text}\n{line}\n")
        assert expected in refuse("kad_node", home, "config", "check"), line
    (home / "kad.toml").write_text(good)
    assert "KAD_LISTEN" in refuse("kad_node", home, "config", "check", KAD_LISTN="x")
    assert "KAD_LOG_LEVEL" in refuse("kad_node", home, "config", "check", KAD_LOG_LEVEL="loud")


def test_what_is_wrong_with_a_file_is_said_in_its_own_words(tmp_path: Path) -> None:
    run("kad_node", tmp_path / "home", "init", "--forum", "kartamantul", "--name", "Sekber")
    done = command("kad_node", tmp_path / "home", "publish", "-", "--json", stdin="jenis: agenda\njudul: Rapat\n")
    assert done.returncode == 1
    error = json.loads(done.stderr)["error"]
    assert (error["reason"], error["field"]) == (Reason.INVALID_FIELD, "waktu_mulai")
    assert command("kad_node", tmp_path / "home", "veto", "delapan").returncode == 1
