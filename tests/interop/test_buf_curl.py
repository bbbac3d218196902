"""A client that is not ours: `buf curl`, by reflection and from proto/ alone, publishes, lists and watches."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.federation.harness import PRACTICE, Member, until

pytestmark = [pytest.mark.interop, pytest.mark.federation]

ROOT = Path(__file__).parents[2]
BUF = ROOT / "node_modules" / ".bin" / "buf"


@pytest.fixture
def buf() -> Path:
    if shutil.which("node") is None or not BUF.exists():
        pytest.skip("buf is not installed (`make check` installs it where there is npm)")
    return BUF


@pytest.mark.parametrize("schema", ["reflection", "proto"])
async def test_a_public_tool_publishes_lists_and_watches(buf: Path, tmp_path: Path, schema: str) -> None:
    member = Member("kad_node", "uji", tmp_path / "n")
    member.run("init", "--forum", "uji", "--name", "Uji")
    try:
        await member.start()
        api, token = str(member.home.running()["api"]), member.home.tokens.local()
        flags = ["--reflect"] if schema == "reflection" else ["--schema", str(ROOT / "proto")]
        base = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *flags, "-H", f"authorization: Bearer {token}"]
        if schema == "reflection":
            base += ["--reflect-protocol", "grpc-v1alpha", "--reflect-header", f"authorization: Bearer {token}"]

        def call(method: str, data: object, *, ok: bool = True) -> str:
            done = subprocess.run(
                [*base, "-d", json.dumps(data), f"http://{api}/kad.v1.{method}"], capture_output=True, text=True, check=False, timeout=60
            )
            assert (done.returncode == 0) is ok, done.stderr
            return done.stdout if ok else done.stderr

        content = {"title": PRACTICE["title"], "regions": [{"code": "34.71"}], "bestPractice": {"problem": PRACTICE["problem"]}}
        name = json.loads(call("RecordsService/CreateRecord", {"content": content}))["record"]["name"]
        listed = json.loads(call("RecordsService/ListRecords", {"filter": 'region = "34"'}))
        assert [record["name"] for record in listed["records"]] == [name]
        refused = call("RecordsService/CreateRecord", {"content": {"title": "tanpa jenis"}}, ok=False)
        assert "INVALID_FIELD" in refused or "invalid_argument" in refused
        watching = subprocess.Popen(
            [*base, "-d", json.dumps({"fromStart": True}), f"http://{api}/kad.v1.RecordsService/WatchRecords"],
            stdout=(tmp_path / "watched").open("wb"),
        )
        try:
            await until(lambda: name in (tmp_path / "watched").read_text(), "the watcher prints the record")
        finally:
            watching.send_signal(signal.SIGTERM)
            watching.wait()
    finally:
        if member.process is not None:
            member.process.kill()
