"""The commands of ``kad``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import click

from kad_node.cli import verify as verification
from kad_node.cli.common import Group, completion, json_option
from kad_node.messages import _
from kad_protocol.errors import InvalidInputError, Reason
from kad_simpul.demo import run_demo

__all__ = ["app"]


@click.group(
    cls=Group,
    help=_(
        "KAD: exchange of best practices, regulations and agendas between cooperation forums.\n\n\b\nBegin:\n  kad demo\n\n\b\nPrograms:\n  kad-node     for a forum\n  kad-simpul   for the operator of a simpul"
    ),
)
@click.option("--lang", type=click.Choice(["id", "en"]), expose_value=False, help=_("Language of messages."))
@click.version_option(package_name="kad", prog_name="kad")
def app() -> None:
    """``kad``."""


@app.command(
    "demo",
    help=_(
        "A federation on this machine, alive: a simpul and four forums, real records.\n\n\b\nExample:\n  kad demo\n  kad demo --mode subsidiarity\n  kad demo --once --json --home /tmp/kad-demo"
    ),
)
@click.option("--once", is_flag=True, help=_("Stop when everything has arrived everywhere."))
@json_option
@click.option(
    "--mode",
    type=click.Choice(["networking", "subsidiarity"]),
    default="networking",
    show_default=True,
    help=_("What is shown: how records travel, or how forums hand functions up and take them back."),
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help=_("Where to make the homes; kept afterwards. Default: a new temporary folder."),
)
@click.option("--lang", type=click.Choice(["id", "en"]), expose_value=False, hidden=True)
def demo(once: bool, as_json: bool, mode: str, home: Path | None) -> None:
    """``kad demo``."""
    sys.exit(run_demo(once=once, as_json=as_json, mode=mode, folder=home))


@app.command(
    "verify",
    help=_(
        "Check a file offline: a record's proof, an exported bundle, a signed checkpoint, or evidence of misbehaviour. Exit status 1 if it does not hold.\n\n\b\nExample:\n  kad verify praktik.tlog-proof --policy jejaring.policy\n  kad verify jejaring.kad\n  kad verify bukti.json\n  kad verify checkpoint.txt --key 'kad.example/...+9257f00b+Afm...'"
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", "keys", multiple=True, metavar="VKEY", help=_("For a checkpoint: verifier keys that must have signed it."))
@click.option(
    "--policy", type=click.File(encoding="utf-8"), help=_("A C2SP tlog-policy: whose signatures you want to see (`kad-node policy`).")
)
@json_option
@click.option("--lang", type=click.Choice(["id", "en"]), expose_value=False, hidden=True)
def verify(file: Path, keys: tuple[str, ...], policy: TextIO | None, as_json: bool) -> None:
    """``kad verify``."""
    try:
        text = policy.read() if policy is not None else None
    except UnicodeDecodeError as error:
        raise InvalidInputError(Reason.INVALID_FILE, "the policy is not text in UTF-8") from error
    verification.verify(file, keys, text, as_json=as_json)


app.add_command(completion("kad"))
