"""A card as its owner types it in, and the checks it must pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from domain.cards import LONGEST_VALIDITY_YEARS, card_brand, expired, luhn_valid
from vault.errors import InvalidCard


@dataclass(frozen=True, slots=True)
class BillingAddress:
    """What an issuer compares of an address: the street with its number, and the postal code. Either may be absent."""

    line1: str | None = field(default=None, repr=False)
    postal_code: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NewCard:
    """`number` is digits only, `exp_year` has four digits. `cvc` (3 digits, Amex 4) and `address` are optional."""

    number: str = field(repr=False)
    exp_month: int
    exp_year: int
    cvc: str | None = field(default=None, repr=False)
    address: BillingAddress | None = field(default=None, repr=False)

    @property
    def for_the_issuer(self) -> dict[str, str]:
        """What the issuer is to look at, under the names that the network worker knows it by."""
        street, postal_code = (self.address.line1, self.address.postal_code) if self.address else (None, None)
        given = {"cvv": self.cvc, "address_line1": street, "postal_code": postal_code}
        return {name: value for name, value in given.items() if value}


def checked_brand(card: NewCard, today: date) -> str:
    """The brand of a card that can be added.

    Raises:
        InvalidCard: `number` (`incorrect_number`, `card_not_supported`), `exp_month` (`invalid_expiry_month`),
            `exp_year` (`invalid_expiry_year`, `expired_card`) or `cvc` (`invalid_cvc`).
    """
    if not 12 <= len(card.number) <= 19 or not luhn_valid(card.number):
        raise InvalidCard("number", "incorrect_number")
    brand = card_brand(card.number)
    if brand is None:
        raise InvalidCard("number", "card_not_supported")
    if not 1 <= card.exp_month <= 12:
        raise InvalidCard("exp_month", "invalid_expiry_month")
    if not 2000 <= card.exp_year <= today.year + LONGEST_VALIDITY_YEARS:
        raise InvalidCard("exp_year", "invalid_expiry_year")
    if expired(card.exp_year, card.exp_month, today):
        raise InvalidCard("exp_year", "expired_card")
    if card.cvc is not None and not _is_cvc(card.cvc, brand):
        raise InvalidCard("cvc", "invalid_cvc")
    return brand


def yymm(exp_year: int, exp_month: int) -> str:
    """The expiry as messages carry it."""
    return f"{exp_year % 100:02}{exp_month:02}"


def _is_cvc(cvc: str, brand: str) -> bool:
    return len(cvc) == (4 if brand == "amex" else 3) and cvc.isascii() and cvc.isdigit()
