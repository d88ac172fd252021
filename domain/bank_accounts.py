"""Bank accounts in the United States: what can be told of a routing and an account number without asking a bank."""

from __future__ import annotations

import re
from enum import StrEnum

_ROUTING_WEIGHTS = (3, 7, 1, 3, 7, 1, 3, 7, 1)
# The first two digits of a routing number that the ABA assigns: Federal Reserve districts, thrifts (21-32), electronic
# transactions (61-72), and traveller's cheques (80), which have no accounts.
_DISTRICTS = frozenset({*range(1, 13), *range(21, 33), *range(61, 73)})

# The DFI account number of a NACHA entry has 17 characters; the shortest numbers in use have 4.
_ACCOUNT_NUMBER = re.compile(r"[0-9]{4,17}")


class BankAccountType(StrEnum):
    CHECKING = "checking"
    SAVINGS = "savings"


def routing_check_digit(first_eight: str) -> str:
    """The ninth digit of a routing number (ABA: weights 3, 7, 1)."""
    total = sum(weight * int(digit) for weight, digit in zip(_ROUTING_WEIGHTS, first_eight, strict=False))
    return str(-total % 10)


def routing_number_valid(number: str) -> bool:
    """Whether `number` is nine digits of an assigned district that end in their ABA check digit."""
    if len(number) != 9 or not (number.isascii() and number.isdigit()):
        return False
    return int(number[:2]) in _DISTRICTS and routing_check_digit(number[:8]) == number[8]


def account_number_valid(number: str) -> bool:
    """Whether `number` is 4 to 17 digits. There is no check digit that all banks use."""
    return _ACCOUNT_NUMBER.fullmatch(number) is not None
