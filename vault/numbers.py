"""Numbers that the vault gives out: device numbers (DPAN) and payment account references (PAR)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from domain.cards import card_brand, luhn_check_digit

Random = Callable[[int], bytes]

# Eight-digit BINs by brand, for device numbers only: no card of the sandbox network lies in them. Each leaves 10^7
# numbers at 16 digits (10^6 at 15), hence several.
TOKEN_RANGES: Mapping[str, Sequence[str]] = {
    "visa": ("48953701", "48953702", "48953703", "48953704"),
    "mastercard": ("52044701", "52044702", "52044703", "52044704"),
    "amex": ("37420101", "37420102", "37420103", "37420104"),
    "discover": ("65019901", "65019902", "65019903", "65019904"),
    "diners": ("36559901", "36559902", "36559903", "36559904"),
    "jcb": ("35809901", "35809902", "35809903", "35809904"),
    "unionpay": ("62109901", "62109902", "62109903", "62109904"),
}

# EMVCo's payment account reference: the BIN controller's four characters, then 25 of its choosing.
_BIN_CONTROLLER = "Q1DP"
_PAR_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_PAR_CHARACTERS = 25


def device_number(brand: str, ranges: Sequence[str], random: Random) -> str:
    """A random number of `brand` in one of its token `ranges`, with its check digit (16 digits, Amex 15)."""
    prefix = ranges[_below(len(ranges), random)]
    free_digits = (15 if brand == "amex" else 16) - len(prefix) - 1
    payload = f"{prefix}{_below(10**free_digits, random):0{free_digits}}"
    return payload + luhn_check_digit(payload)


def payment_account_reference(random: Random) -> str:
    """A random PAR: 29 upper-case letters and digits."""
    value = _below(len(_PAR_ALPHABET) ** _PAR_CHARACTERS, random)
    characters = []
    for _ in range(_PAR_CHARACTERS):
        value, index = divmod(value, len(_PAR_ALPHABET))
        characters.append(_PAR_ALPHABET[index])
    return _BIN_CONTROLLER + "".join(characters)


def check_ranges(ranges: Mapping[str, Sequence[str]]) -> None:
    """That every range makes numbers of its own brand.

    Raises:
        ValueError: one does not, or a brand has none.
    """
    for brand, prefixes in ranges.items():
        if not prefixes:
            raise ValueError(f"{brand} has no token BIN range")
        for prefix in prefixes:
            length = 15 if brand == "amex" else 16
            if not prefix.isdecimal() or len(prefix) > length - 2 or card_brand(prefix.ljust(length, "0")) != brand:
                raise ValueError(f"the token BIN range {prefix} is not one of {brand}")


def _below(limit: int, random: Random) -> int:
    """A number in 0…limit-1. With 64 bits more than `limit` has, the remainder's bias is below 2^-64."""
    length = (limit.bit_length() + 7) // 8 + 8
    return int.from_bytes(random(length), "big") % limit
