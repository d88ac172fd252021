"""Money: an integer of minor units with a currency. There is no float and no default currency."""

from __future__ import annotations

from dataclasses import dataclass

from domain.currency import Currency

# DE4 of ISO 8583 is n12: no message of the card network can carry more.
MAX_AMOUNT_MINOR = 999_999_999_999


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """`amount_minor` minor units of `currency` (1050 USD is $10.50, 1050 JPY is ¥1050).

    Raises:
        TypeError: `amount_minor` is not an int (a bool is refused too), or `currency` is a mere text.
        ValueError: it is negative or longer than the twelve digits of ISO 8583 DE4.
    """

    amount_minor: int
    currency: Currency

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:
            raise TypeError("amount_minor must be an integer of minor units")
        if not isinstance(self.currency, Currency):
            raise TypeError("currency must be a Currency")
        if not 0 <= self.amount_minor <= MAX_AMOUNT_MINOR:
            raise ValueError(f"amount_minor must lie between 0 and {MAX_AMOUNT_MINOR}")

    def __add__(self, other: Money) -> Money:
        return Money(self.amount_minor + self._same_currency(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount_minor - self._same_currency(other), self.currency)

    def __str__(self) -> str:
        exponent = self.currency.exponent
        if exponent == 0:
            return f"{self.amount_minor} {self.currency}"
        whole, fraction = divmod(self.amount_minor, 10**exponent)
        return f"{whole}.{fraction:0{exponent}d} {self.currency}"

    def _same_currency(self, other: Money) -> int:
        if other.currency is not self.currency:
            raise ValueError(f"currency mismatch: {self.currency} and {other.currency}")
        return other.amount_minor
