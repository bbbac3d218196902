"""Generate the stubs in ``kad_protocol/v1`` from ``proto/``, or check that they are fresh.

Run with the Python of ``.venv-proto``, whose grpcio-tools is old enough that what it writes imports under protobuf 6 and 7 alike::

    python tools/generate_protos.py            # write
    python tools/generate_protos.py --check    # compare byte for byte, name what is stale, exit 1
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
TARGET = ROOT / "kad_protocol" / "v1"
PACKAGE = "kad_protocol.v1"

# The stubs live inside our package and not in a top-level `kad` or `buf` of their own.
REWRITES = (
    (re.compile(r"\bfrom kad\.v1 import\b"), f"from {PACKAGE} import"),
    (re.compile(r"\bfrom buf\.validate import\b"), f"from {PACKAGE}.buf.validate import"),
    (re.compile(r"\bimport kad\.v1\.(\w+_pb2)\b"), rf"import {PACKAGE}.\1"),
    (re.compile(r"\bimport buf\.validate\.(\w+_pb2)\b"), rf"import {PACKAGE}.buf.validate.\1"),
    (re.compile(r"(?<![\w.'\"/])kad\.v1\.(\w+_pb2)\b"), rf"{PACKAGE}.\1"),
    (re.compile(r"(?<![\w.'\"/])buf\.validate\.(\w+_pb2)\b"), rf"{PACKAGE}.buf.validate.\1"),
)

_QUIET = {"mypy": "quiet:", "mypy_grpc": "quiet:"}


def generate(target: Path) -> None:
    """Write all stubs below ``target``."""
    from grpc_tools import protoc  # noqa: PLC0415 - only .venv-proto has it

    # protoc looks for its plugins in PATH; ours lie beside the Python that runs this.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with tempfile.TemporaryDirectory() as scratch:
        ours = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("kad/**/*.proto"))
        rules = ["buf/validate/validate.proto"]
        include = [f"-I{PROTO}", f"-I{resources.files('grpc_tools') / '_proto'}"]
        for files, outputs in ((ours, ("python", "mypy", "grpc_python", "mypy_grpc")), (rules, ("python", "mypy"))):
            code = protoc.main(["protoc", *include, *(f"--{kind}_out={_QUIET.get(kind, '')}{scratch}" for kind in outputs), *files])
            if code:
                raise SystemExit(code)
        for source, folder in ((Path(scratch) / "kad" / "v1", target), (Path(scratch) / "buf" / "validate", target / "buf" / "validate")):
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(source.iterdir()):
                text = path.read_text()
                for pattern, replacement in REWRITES:
                    text = pattern.sub(replacement, text)
                (folder / path.name).write_text(text)
    (target / "__init__.py").write_text('"""Generated from ``proto/``; see ``tools/generate_protos.py``."""\n')
    for folder in (target / "buf", target / "buf" / "validate"):
        (folder / "__init__.py").write_text("")


def listing(folder: Path) -> set[Path]:
    """Every file below a folder that the generator may have written."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix in {".py", ".pyi"}}


def check() -> int:
    """Compare what is there with what would be written; returns the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        stale = [
            path
            for path in sorted(listing(fresh) | listing(TARGET))
            if not (TARGET / path).exists() or not (fresh / path).exists() or not filecmp.cmp(TARGET / path, fresh / path, shallow=False)
        ]
    for path in stale:
        print(f"stale: kad_protocol/v1/{path}; run `make proto`", file=sys.stderr)
    return 1 if stale else 0


def main() -> int:
    """Entry point; returns the exit status."""
    if "--check" in sys.argv[1:]:
        return check()
    shutil.rmtree(TARGET, ignore_errors=True)
    generate(TARGET)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
