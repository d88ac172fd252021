"""Names come down to plain letters the way that travel documents write them."""

from __future__ import annotations

import pytest

from domain.names import plain, spellings


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("  Ada   Lovelace ", "ADA LOVELACE"),
        ("Jürgen Groß", "JURGEN GROSS"),
        ("Søren Kierkegård", "SOEREN KIERKEGARD"),
        ("Łukasz Żółć", "LUKASZ ZOLC"),
        ("Seán O’Neill-Smith", "SEAN ONEILL SMITH"),
        ("Владимир Щукин", "VLADIMIR SHCHUKIN"),
        ("Юлия Хрущёва", "IULIIA KHRUSHCHEVA"),
        ("Αλέξης Ζορμπάς", "ALEXIS ZORMPAS"),
        ("e\u0301tienne", "ETIENNE"),
        ("王伟", ""),
    ],
)
def test_a_name_comes_down_to_plain_letters(name: str, letters: str) -> None:
    assert plain(name) == letters


def test_an_umlaut_is_spelled_both_ways() -> None:
    assert spellings("Jürgen Müller") == ("JURGEN MULLER", "JUERGEN MUELLER")
    assert spellings("Ada Lovelace") == ("ADA LOVELACE",)
