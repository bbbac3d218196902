"""``kad-node``: the command line of a forum."""

from __future__ import annotations

import os
import sys

from kad_node.messages import set_language

__all__ = ["main"]


def main() -> None:
    """Entry point: the language first, since help texts are translated as commands are defined."""
    # gRPC's own core would write its complaints between our lines; what matters of them comes back as an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    set_language(sys.argv[1:], os.environ)
    from kad_node.cli.app import app  # noqa: PLC0415

    app(prog_name="kad-node")
