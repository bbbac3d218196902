"""Indonesian words for searching: "kelola sampah" finds "pengelolaan persampahan".

Snowball's stemmer does most of it. What it cannot know is that *meng-*, *meny-*, *mem-*, *men-* swallow a first k, s, p or t before a
vowel (*kelola*, *mengelola*); so such words are indexed under both readings.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import snowballstemmer

__all__ = ["index_terms", "match_expression", "stems", "words"]

_WORD = re.compile(r"[0-9a-z]+(?:[./-][0-9a-z]+)*")
_NASAL = re.compile(r"(?:me|pe)(ng|ny|m|n)(?=[aiueo])")
_SWALLOWED = {"ng": "k", "ny": "s", "m": "p", "n": "t"}
#: Roots of which a piece looks like an affix.
_ROOTS = {
    "kelola": ("kelola", "mengelola", "pengelola", "pengelolaan", "dikelola", "terkelola"),
    "rencana": ("rencana", "merencanakan", "perencanaan", "direncanakan", "terencana"),
    "wisata": ("wisata", "pariwisata", "kepariwisataan", "berwisata", "wisatawan"),
    "kerjasama": ("kerjasama", "kerja-sama"),
    "musrenbang": ("musrenbang",),
}
_EXCEPTIONS = {word: root for root, words in _ROOTS.items() for word in words}
_MAX_WORDS = 200_000


@lru_cache(maxsize=1)
def _stemmer() -> snowballstemmer.stemmer:
    return snowballstemmer.stemmer("indonesian")


def words(text: str) -> list[str]:
    """The words of a text: lower case, without accents; numbers such as "24/2019" stay whole."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return _WORD.findall(plain)[:_MAX_WORDS]


@lru_cache(maxsize=50_000)
def stems(word: str) -> tuple[str, ...]:
    """The stems under which a word (lower case) is found, at least one."""
    if word in _EXCEPTIONS:
        return (_EXCEPTIONS[word],)
    found = [_stemmer().stemWord(word)]
    if (nasal := _NASAL.match(word)) is not None:
        restored = _SWALLOWED[nasal.group(1)] + word[nasal.end() :]
        found.append(_stemmer().stemWord(restored))
    # What the stemmer leaves of "pengelolaan" is the root "kelola" as it is in the table above.
    return tuple(dict.fromkeys(_EXCEPTIONS.get(stem, stem) for stem in found))


def index_terms(text: str) -> list[str]:
    """Stems of a text, in order; numbers such as "24/2019" stay whole and are also taken apart."""
    terms: list[str] = []
    for word in words(text):
        parts = re.split(r"[./-]", word)
        if len(parts) > 1:
            terms.append("".join(parts))
        for part in parts:
            terms.extend(stems(part))
    return terms


def match_expression(query: str) -> str:
    """An FTS5 expression for what somebody typed: all words, each in any of its forms; empty if there is no word in it.

    The last word also matches as a beginning, in the raw words, so that search works while one types.
    """
    clauses: list[str] = []
    parts = [part for word in words(query)[:20] for part in re.split(r"[./-]", word) if part]
    for position, part in enumerate(parts):
        choices = [f'stems : "{stem}"' for stem in stems(part)]
        if position == len(parts) - 1:
            choices.append(f'words : "{part}" *')
        clauses.append(f"({' OR '.join(choices)})")
    return " AND ".join(clauses)
