"""The generated stubs: fresh, importable under old and new protobuf, and carrying their rules."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import protovalidate
import pytest
from google.protobuf import descriptor_pool

from kad_protocol.v1 import content_pb2, entry_pb2
from kad_protocol.v1.buf.validate import validate_pb2

ROOT = Path(__file__).resolve().parents[2]
OLD_PYTHON = ROOT / ".venv-proto" / "bin" / "python"

needs_old_python = pytest.mark.skipif(not OLD_PYTHON.exists(), reason=".venv-proto is missing (make dev)")

STUBS = sorted(str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in (ROOT / "kad_protocol" / "v1").rglob("*_pb2*.py"))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@needs_old_python
def test_the_stubs_are_what_the_protos_generate():
    done = run(str(OLD_PYTHON), "tools/generate_protos.py", "--check")
    assert done.returncode == 0, done.stderr


@needs_old_python
def test_the_stubs_import_under_the_oldest_protobuf_and_grpc_that_we_support():
    versions = "import google.protobuf, grpc; print(google.protobuf.__version__, grpc.__version__)"
    done = run(str(OLD_PYTHON), "-c", "; ".join([*(f"import {name}" for name in STUBS), versions]))
    assert done.returncode == 0, done.stderr
    protobuf, grpc = done.stdout.split()
    assert protobuf.startswith("6.")
    assert grpc.startswith("1.76.")


@pytest.mark.parametrize("name", STUBS)
def test_each_stub_imports_under_the_versions_of_the_lock(name):
    import_module(name)


@pytest.mark.parametrize("first", ["protovalidate", "kad_protocol.v1.entry_pb2"])
def test_our_copy_of_the_rules_and_protovalidate_do_not_clash_whoever_comes_first(first):
    second = {"protovalidate": "kad_protocol.v1.entry_pb2"}.get(first, "protovalidate")
    program = f"""
import {first}, {second}, protovalidate
from kad_protocol.v1 import entry_pb2
assert protovalidate.collect_violations(entry_pb2.Genesis())
"""
    done = run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


def test_the_rules_that_protovalidate_understands_are_those_that_we_ship():
    # A rule that only our copy knows would be skipped in silence.
    theirs = protovalidate.ViolationPb.desc().file.proto
    ours = descriptor_pool.Default().FindFileByName("buf/validate/validate.proto")
    assert ours is not None
    our_rules = {message.name: {field.number for field in message.fields} for message in ours.message_types_by_name.values()}
    for message in theirs.message_type:
        assert our_rules.pop(message.name) == {field.number for field in message.field}, message.name
    assert not our_rules
    assert validate_pb2.DESCRIPTOR is ours


def test_rules_are_applied_to_our_messages():
    found = {violation.proto.rule_id for violation in protovalidate.collect_violations(entry_pb2.Genesis())}
    assert "string.min_len" in found
    assert "required" in found
    with pytest.raises(protovalidate.ValidationError):
        protovalidate.validate(content_pb2.Content(title="x" * 100_000))
