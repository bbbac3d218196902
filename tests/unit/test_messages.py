"""What people read: the choice of a language, and a catalogue that is whole."""

from __future__ import annotations

import gettext
import importlib.util
import io
from pathlib import Path

import pytest

from kad_node import messages

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("babel", reason="babel, which reads catalogues, is not installed (make dev)")
from babel.messages.catalog import Catalog  # noqa: E402 - after the skip above
from babel.messages.pofile import read_po  # noqa: E402

_spec = importlib.util.spec_from_file_location("kad_messages_tool", ROOT / "tools" / "messages.py")
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


@pytest.fixture
def in_the_end_english():
    yield
    messages.set_language([], {})
    gettext.textdomain("messages")


@pytest.mark.parametrize(
    "argv,environ,expected",
    [
        ([], {}, "en"),
        ([], {"LANG": "id_ID.UTF-8"}, "id"),
        ([], {"LANG": "in_ID"}, "en"),
        ([], {"LANG": "id_ID.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ([], {"LC_MESSAGES": "id_ID", "LC_ALL": "C.UTF-8"}, "en"),
        ([], {"LC_ALL": "", "LANG": "id"}, "id"),
        ([], {"LC_ALL": "C", "KAD_LANG": "ID"}, "id"),
        (["--lang", "en"], {"KAD_LANG": "id"}, "en"),
        (["list", "--lang=id"], {"KAD_LANG": "en"}, "id"),
        (["search", "--", "--lang=id"], {}, "en"),
        (["--lang"], {"LANG": "id"}, "id"),
        (["--lang=de"], {"LANG": "id"}, "en"),
    ],
)
def test_the_first_who_chooses_a_language_decides(argv, environ, expected):
    assert messages.choose_language(argv, environ) == expected


@pytest.mark.usefixtures("in_the_end_english")
def test_sentences_come_in_the_language_that_was_chosen():
    environ = {"LANG": "id_ID.UTF-8"}
    assert messages.set_language([], environ) == "id"
    assert messages.language() == "id"
    assert messages._("Usage:") == "Pemakaian:"
    assert messages._("a sentence that nobody ever translated") == "a sentence that nobody ever translated"
    assert environ["LANGUAGE"] == "id"  # for click, and for the processes that we start

    messages.set_language(["--lang", "en"], environ)
    assert messages._("Usage:") == "Usage:"
    assert messages.ngettext("{n} record", "{n} records", 1) == "{n} record"
    assert messages.ngettext("{n} record", "{n} records", 2) == "{n} records"


def test_every_sentence_has_its_indonesian_one_and_the_compiled_catalogue_is_fresh():
    if faults := tool.check():
        pytest.fail("\n".join(faults), pytrace=False)


def catalogue(msgstr: str) -> Catalog:
    text = f'msgid ""\nmsgstr ""\n"Plural-Forms: nplurals=1; plural=0;\\n"\n\nmsgid "{{forum}} has {{n}} records"\nmsgstr "{msgstr}"\n'
    return read_po(io.BytesIO(text.encode()), locale="id")


@pytest.mark.parametrize(
    "msgstr,fault",
    [
        ("{forum} mempunyai {n} dokumen", None),
        ("ada {n} dokumen di {forum}", None),
        ("", "no Indonesian"),
        ("{forum} mempunyai {jumlah} dokumen", "other facts"),
        ("{forum} mempunyai dokumen", "other facts"),
    ],
)
def test_a_translation_that_is_missing_or_names_other_facts_is_found(msgstr, fault):
    code, catalog = catalogue(""), catalogue(msgstr)
    found = tool.faults(code, catalog, tool.compiled(catalog))
    assert [fault in line for line in found] == ([True] if fault else [])


def test_a_compiled_catalogue_that_is_older_than_its_source_is_found():
    before, after = catalogue("{forum}: {n}"), catalogue("{n} dokumen, {forum}")
    assert "older" in tool.faults(after, after, tool.compiled(before))[0]


def test_a_sentence_that_left_the_code_is_found():
    catalog = catalogue("{forum}: {n}")
    assert "no longer in the code" in tool.faults(Catalog(locale="id"), catalog, tool.compiled(catalog))[0]


def test_sentences_are_found_wherever_they_stand():
    source = """
_("one")
f"{_('inside another')} {_('with {n}').format(n=1)}"
messages.ngettext("{n} record", "{n} records", n)
N_("for " "later")
_(variable)
"""
    assert sorted(tool.sentences(source), key=str) == [("{n} record", "{n} records"), "for later", "inside another", "one", "with {n}"]
