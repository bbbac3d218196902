"""Ask the daemon of this container's home whether it serves; exit 0 if so, 1 if not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 5


def main() -> int:
    """Entry point; returns the exit status."""
    try:
        address = json.loads((Path(os.environ["KAD_HOME"]) / "run.json").read_text())["api"]
        with grpc.insecure_channel(address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
    except (OSError, ValueError, KeyError) as error:
        print(f"not running: {error}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        print(f"does not answer: {error.code().name}", file=sys.stderr)
        return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    raise SystemExit(main())
