"""What the first digits of a card number (BIN) say of the card. What is unknown is None: nothing is guessed.

The table has the BINs of the public test cards and of our own; a real one comes from the networks (Visa's account
ranges, Mastercard's BIN table) and has hundreds of thousands of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Funding = Literal["credit", "debit", "prepaid"]


@dataclass(frozen=True, slots=True)
class BinData:
    """`country` is the issuer's (ISO 3166-1 alpha-2)."""

    funding: Funding | None = None
    country: str | None = None


_UNKNOWN: Final = BinData()

# Under 400000 there are test cards of many countries, which later digits tell apart; under 620000 both fundings.
_BY_BIN: Final[dict[str, BinData]] = {
    "400000": BinData("credit"),
    "400005": BinData("debit", "US"),
    "400099": BinData("credit", "US"),
    "410000": BinData("credit", "US"),
    "424242": BinData("credit", "US"),
    "222300": BinData("credit", "US"),
    "510510": BinData("prepaid", "US"),
    "520082": BinData("debit", "US"),
    "555555": BinData("credit", "US"),
    "371449": BinData("credit", "US"),
    "378282": BinData("credit", "US"),
    "601100": BinData("credit", "US"),
    "601111": BinData("credit", "US"),
    "601198": BinData("debit", "US"),
    "305693": BinData("credit", "US"),
    "362272": BinData("credit", "US"),
    "356600": BinData("credit", "JP"),
    "620000": BinData(None, "CN"),
    "620550": BinData("credit", "CN"),
}


def bin_data(bin_digits: str) -> BinData:
    """What is known of cards whose numbers begin with these digits (six at least)."""
    return _BY_BIN.get(bin_digits[:6], _UNKNOWN)
