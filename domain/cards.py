"""Card numbers: checks and what may be shown of one (PCI DSS 4.0.1, 3.4.1: BIN and last four at most)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

# (brand, first and last value of the leading digits, lengths): ISO/IEC 7812 ranges as the networks publish them.
_BRAND_RANGES: tuple[tuple[str, int, int, frozenset[int]], ...] = (
    ("visa", 4, 4, frozenset({13, 16, 19})),
    ("mastercard", 51, 55, frozenset({16})),
    ("mastercard", 2221, 2720, frozenset({16})),
    ("amex", 34, 34, frozenset({15})),
    ("amex", 37, 37, frozenset({15})),
    ("discover", 6011, 6011, frozenset({16, 19})),
    ("discover", 644, 649, frozenset({16, 19})),
    ("discover", 65, 65, frozenset({16, 19})),
    ("diners", 300, 305, frozenset({14, 16, 19})),
    ("diners", 36, 36, frozenset({14, 16, 19})),
    ("diners", 38, 39, frozenset({14, 16, 19})),
    ("jcb", 3528, 3589, frozenset({16, 19})),
    ("unionpay", 62, 62, frozenset({16, 17, 18, 19})),
)

# What a card number may have in digits.
SHORTEST_NUMBER = min(min(lengths) for *_, lengths in _BRAND_RANGES)
LONGEST_NUMBER = max(max(lengths) for *_, lengths in _BRAND_RANGES)

# A year is two digits on the wire (YYMM); no issuer gives a card longer than this.
LONGEST_VALIDITY_YEARS = 20


def luhn_check_digit(payload: str) -> str:
    """The check digit for the digits `payload` (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, character in enumerate(reversed(payload)):
        digit = int(character)
        if position % 2 == 0:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return str(-total % 10)


def luhn_valid(number: str) -> bool:
    """Whether `number` is at least two ASCII digits that end in their Luhn check digit."""
    return len(number) > 1 and number.isascii() and number.isdigit() and luhn_check_digit(number[:-1]) == number[-1]


def card_brand(number: str) -> str | None:
    """The network of a card number, or None when its leading digits or its length belong to none."""
    for brand, first, last, lengths in _BRAND_RANGES:
        if len(number) in lengths and first <= int(number[: len(str(first))]) <= last:
            return brand
    return None


def expired(exp_year: int, exp_month: int, today: date) -> bool:
    """A card is valid through the last day of its expiry month."""
    return (exp_year, exp_month) < (today.year, today.month)


def masked(number: str) -> str:
    """`424242••••••4242`: the first six and last four digits, the most that PCI DSS 3.4.1 lets a person see.

    What has fewer digits than any card number is masked as a whole.
    """
    if len(number) < SHORTEST_NUMBER:
        return "•" * len(number)
    return f"{number[:6]}{'•' * (len(number) - 10)}{number[-4:]}"


def network_numbers(digits: str) -> Iterator[tuple[int, int]]:
    """Begin and length of all that may be a card number within the run `digits`, overlapping ones too.

    Each belongs to a known network and passes the Luhn check, which one run in ten does by chance.
    """
    for first in range(len(digits) - SHORTEST_NUMBER + 1):
        for length in range(SHORTEST_NUMBER, min(LONGEST_NUMBER, len(digits) - first) + 1):
            number = digits[first : first + length]
            if card_brand(number) is not None and luhn_valid(number):
                yield first, length


# 13–19 digits, as people group them, with no other digit beside them.
_DIGIT_RUN = re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])")


def holds_card_number(text: str) -> bool:
    """Whether a number of a known card network with a right check digit stands in `text`."""
    runs = (re.sub(r"[ -]", "", run) for run in _DIGIT_RUN.findall(text))
    return any(card_brand(digits) is not None and luhn_valid(digits) for digits in runs)
