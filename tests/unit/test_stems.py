"""Words of one family are found by each other, words of different families are not."""

from __future__ import annotations

import pytest

from kad_node.stems import index_terms, match_expression, stems

FAMILIES = [
    ["kelola", "mengelola", "pengelolaan", "pengelola", "dikelola"],
    ["sampah", "persampahan"],
    ["wisata", "pariwisata", "wisatawan"],
    ["rencana", "perencanaan", "merencanakan"],
    ["tata", "penataan", "menata"],
    ["susun", "penyusunan", "menyusun", "disusun"],
    ["kerja", "bekerja", "pekerjaan"],
    ["tulis", "menulis", "penulisan"],
    ["bangun", "pembangunan", "membangun"],
    ["layan", "pelayanan", "melayani"],
    ["promosi", "mempromosikan"],
    ["investasi", "berinvestasi"],
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_a_family_shares_a_stem(family: list[str]) -> None:
    common = set.intersection(*(set(stems(word)) for word in family))
    assert common, {word: stems(word) for word in family}


def test_families_stay_apart() -> None:
    found = [set().union(*(stems(word) for word in family)) for family in FAMILIES]
    merged = [(FAMILIES[i][0], FAMILIES[j][0]) for i in range(len(found)) for j in range(i) if found[i] & found[j]]
    assert merged == []


def test_numbers_and_accents() -> None:
    assert "242019" in index_terms("Nomor 24/2019")
    assert "24" in index_terms("Nomor 24/2019")
    assert index_terms("Café") == index_terms("cafe")


def test_what_people_type_never_breaks_the_query() -> None:
    for text in ('"', "*", "a OR b", "NEAR(", "x:y", "--", "", "'; DROP TABLE record", "🙂"):
        assert '""' not in match_expression(text)
