"""Keeps card numbers out of messages: the last gate before a text leaves for a vendor."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

from domain.cards import LONGEST_NUMBER, SHORTEST_NUMBER, luhn_valid, network_numbers
from notify.errors import CardNumberRefused

# Digits as people and programs group them; letters, colons and currency signs end a run.
_RUN = re.compile(r"\d(?:[\s\-–.·_/]{0,2}\d)*")


def refuse_card_numbers(facts: Mapping[str, str]) -> None:
    """
    Raises:
        CardNumberRefused: a value holds 13–19 digits, grouped or not, in any script, that pass the Luhn check, or a
            longer run of digits holds a number of a known card network.
    """
    for name, value in facts.items():
        if any(_is_card_number(run) for run in _digit_runs(value)):
            raise CardNumberRefused(name)


def _digit_runs(value: str) -> Iterator[str]:
    # NFKC alone leaves Arabic or Devanagari digits as they are, and zero-width characters would split a run.
    visible = "".join(character for character in value if unicodedata.category(character) != "Cf")
    for match in _RUN.finditer(unicodedata.normalize("NFKC", visible)):
        yield "".join(str(unicodedata.digit(character)) for character in match.group() if character.isdigit())


def _is_card_number(digits: str) -> bool:
    if len(digits) <= LONGEST_NUMBER:
        return len(digits) >= SHORTEST_NUMBER and luhn_valid(digits)
    # One run in ten passes the Luhn check by chance: inside a longer run the number must belong to a network as well.
    return any(True for _ in network_numbers(digits))
