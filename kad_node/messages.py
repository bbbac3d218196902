"""What people read, in their language: Indonesian or English.

Sentences stand in the code in English, marked with ``_()``; the Indonesian ones stand in ``locale/id/LC_MESSAGES/kad.po``, and ``make
messages`` collects and compiles them. A console script chooses the language before it imports the modules whose help texts are
sentences too::

    def main() -> None:
        set_language(sys.argv[1:], os.environ)
        from kad_node.cli import commands  # its decorators call _() while it is imported
        commands.main()

Facts are put in after translation, by name: ``_("{forum} has joined").format(forum=name)``. An f-string could not be found again.
"""

from __future__ import annotations

import gettext as _gettext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

__all__ = ["DOMAIN", "LOCALES", "N_", "Language", "_", "choose_language", "language", "ngettext", "set_language"]

Language = Literal["id", "en"]

DOMAIN = "kad"
LOCALES = Path(__file__).parent / "locale"

#: Who may choose the language, first to last. An empty variable does not choose.
_VARIABLES = ("KAD_LANG", "LC_ALL", "LC_MESSAGES", "LANG")

_language: Language = "en"
_translations: _gettext.NullTranslations = _gettext.NullTranslations()


def choose_language(argv: Sequence[str], environ: MutableMapping[str, str]) -> Language:
    """The language that is asked for: ``--lang``, else ``KAD_LANG``, ``LC_ALL``, ``LC_MESSAGES`` or ``LANG``.

    Indonesian where the first of these begins with ``id``, else English.
    """
    wanted = _option(argv) or next((value for name in _VARIABLES if (value := environ.get(name))), "")
    return "id" if wanted.lower().startswith("id") else "en"


def _option(argv: Sequence[str]) -> str:
    """The value of the last ``--lang`` before ``--``; empty if there is none."""
    value = ""
    for position, word in enumerate(argv):
        if word == "--":
            break
        if word.startswith("--lang="):
            value = word.removeprefix("--lang=")
        elif word == "--lang" and position + 1 < len(argv):
            value = argv[position + 1]
    return value


def set_language(argv: Sequence[str], environ: MutableMapping[str, str]) -> Language:
    """Choose the language for this process, and for the processes that it starts with ``environ``.

    ``LANGUAGE`` is set in ``environ``, because click's own sentences ("Usage:", "No such option") ask the standard library's
    catalogue, which reads that variable; our catalogue translates those too.
    """
    global _language, _translations  # noqa: PLW0603 - one process speaks one language
    _language = choose_language(argv, environ)
    _translations = _gettext.translation(DOMAIN, LOCALES, [_language], fallback=True)
    environ["LANGUAGE"] = _language
    _gettext.bindtextdomain(DOMAIN, str(LOCALES))
    _gettext.textdomain(DOMAIN)
    return _language


def language() -> Language:
    """The language that was chosen; English before that."""
    return _language


def _(message: str) -> str:
    """A sentence in the chosen language."""
    return _translations.gettext(message)


def ngettext(singular: str, plural: str, count: int) -> str:
    """A sentence that depends on a number, in the chosen language."""
    return _translations.ngettext(singular, plural, count)


def N_(message: str) -> str:  # noqa: N802 - what gettext calls it everywhere
    """Mark a sentence that ``_()`` will be asked for later, for instance one of a table; returns it as it is."""
    return message
