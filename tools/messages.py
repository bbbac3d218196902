"""Collect the sentences of the code into the Indonesian catalogue and compile it, or check that this was done.

    python tools/messages.py            # write kad.po and kad.mo
    python tools/messages.py --check    # name what is missing, stale or wrong, exit 1

The catalogue holds the sentences of click too, which has no Indonesian of its own.
"""

from __future__ import annotations

import ast
import io
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PO = ROOT / "kad_node" / "locale" / "id" / "LC_MESSAGES" / "kad.po"
SOURCES = (
    *((ROOT / package, package) for package in ("kad_node", "kad_protocol", "kad_simpul")),
    (Path(click.__file__).parent, "click"),
)
SINGULAR = ("_", "N_", "gettext")

_PLACEHOLDER = re.compile(r"\{[^{}]*\}|%(?:\([a-z_]+\))?[a-z]")


def sentences(source: str) -> Iterator[str | tuple[str, str]]:
    """The sentences of one module, a pair where there is a plural.

    Babel reads tokens, and before Python 3.12 sees nothing inside an f-string; the syntax tree is the same in all versions.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            if name in SINGULAR and words:
                yield words[0]
            elif name == "ngettext" and len(words) > 1:
                yield words[0], words[1]


def extract() -> Catalog:
    """Every sentence of the code, with the files that hold it."""
    catalog = Catalog(project="kad", charset="utf-8")
    for folder, name in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            file = path.relative_to(folder).as_posix()
            if file.startswith("v1/"):
                continue  # generated
            for sentence in sentences(path.read_text(encoding="utf-8")):
                # No line numbers: the catalogue would change with every edit above a sentence.
                catalog.add(sentence, locations=[(f"{name}/{file}", 0)])
    return catalog


def read() -> Catalog:
    """The catalogue as it lies there."""
    if not PO.exists():
        return Catalog(locale="id", project="kad", charset="utf-8")
    with PO.open("rb") as file:
        return read_po(file, locale="id")


def compiled(catalog: Catalog) -> bytes:
    """The bytes of kad.mo."""
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def placeholders(text: str) -> set[str]:
    """What is put into a sentence: ``{forum}``, ``{size:,}``, ``%(prog)s``."""
    return set(_PLACEHOLDER.findall(text))


def faults_of(message: Message) -> list[str]:
    """What is wrong with one sentence and its translation."""
    ids = message.id if isinstance(message.id, tuple) else (message.id,)
    strings = message.string if isinstance(message.string, tuple) else (message.string,)
    if not all(strings) or message.fuzzy:
        return [f"no Indonesian for {ids[0]!r}"]
    # Of a pair, the plural names every fact; Indonesian has the one form.
    expected = placeholders(ids[-1])
    return [
        f"other facts in the Indonesian of {ids[0]!r}: {' '.join(sorted(placeholders(string) ^ expected))}"
        for string in strings
        if placeholders(string) != expected
    ]


def faults(code: Catalog, catalog: Catalog, mo: bytes) -> list[str]:
    """Everything that is wrong with a catalogue and its compiled form."""
    found = []
    for message in code:
        if not message.id:
            continue
        translated = catalog.get(message.id, message.context)
        found += faults_of(translated) if translated else [f"not in the catalogue: {message.id!r}; run `make messages`"]
    found += [f"no longer in the code: {message.id!r}; run `make messages`" for message in catalog if message.id and message.id not in code]
    if mo != compiled(catalog):
        found.append("kad.mo is older than kad.po; run `make messages`")
    return found


def check() -> list[str]:
    """Everything that is wrong with what lies there."""
    mo = PO.with_suffix(".mo")
    return faults(extract(), read(), mo.read_bytes() if mo.exists() else b"")


def update() -> list[str]:
    """Write kad.po and kad.mo; returns what is still without Indonesian."""
    code, catalog = extract(), read()
    catalog.update(code, no_fuzzy_matching=True)
    catalog.obsolete.clear()
    catalog.project, catalog.version, catalog.msgid_bugs_address = "kad", "1", "the issues of the project"
    # The headers that would change at every run do not: git knows when.
    catalog.creation_date = catalog.revision_date = datetime(2026, 11, 23, tzinfo=UTC)
    PO.parent.mkdir(parents=True, exist_ok=True)
    with PO.open("wb") as file:
        write_po(file, catalog, width=120, include_lineno=False, sort_by_file=True)
    written = read()
    PO.with_suffix(".mo").write_bytes(compiled(written))
    return faults(code, written, compiled(written))


def main() -> int:
    """Entry point; returns the exit status."""
    found = check() if "--check" in sys.argv[1:] else update()
    for fault in found:
        print(f"messages: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
