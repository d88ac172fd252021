"""What a user may spend and send, by how well the user is known. Data; who counts what was used is elsewhere.

All bounds are written once, in whole dollars, and turned into every other currency by a coarse rate: a limit needs no
exchange rate of the day, but it must not be a hundred times laxer in one currency than in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from domain.currency import Currency


class Tier(StrEnum):
    """From the one who only gave a name to the one whose identity and address were checked."""

    UNVERIFIED = "unverified"
    BASIC = "basic"  # identity data, screened; no document
    VERIFIED = "verified"  # and an identity document
    PLUS = "plus"  # and a proof of address


@dataclass(frozen=True, slots=True)
class Window:
    """What may be sent within any `hours` in a row: so many transfers, and so much in sum (minor units)."""

    hours: int
    count: int
    amount_minor: int

    @property
    def duration(self) -> timedelta:
        return timedelta(hours=self.hours)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one tier in one currency, in minor units.

    `per_payment_minor` bounds a payment by card, `per_transfer_minor` one transfer to another user; `windows` bound
    transfers over time (0: none may be sent).
    """

    tier: Tier
    currency: Currency
    per_payment_minor: int
    per_transfer_minor: int
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """In whole dollars, but for the counts."""

    payment: int
    transfer: int
    day_count: int
    day_amount: int
    week_count: int
    week_amount: int


_DAY_HOURS, _WEEK_HOURS = 24, 7 * 24

# A card payment is its issuer's risk, and the issuer knows its customer; a transfer between users is ours. Above 1,000
# of any unit in a transfer identity must be checked (FATF, recommendation 16), and who is not known sends nothing.
_BOUNDS: dict[Tier, _Bounds] = {
    Tier.UNVERIFIED: _Bounds(10_000, 0, 0, 0, 0, 0),
    Tier.BASIC: _Bounds(10_000, 500, 5, 1_000, 15, 2_000),
    Tier.VERIFIED: _Bounds(25_000, 2_500, 20, 5_000, 60, 15_000),
    Tier.PLUS: _Bounds(50_000, 10_000, 50, 20_000, 150, 60_000),
}

# Units of a currency that count as one dollar, coarse and rounded so that no limit is laxer than about a fifth more.
# A currency that is not here counts like the dollar: all whose unit is worth more are here, so that is never laxer.
_PER_DOLLAR_HUNDREDTHS: dict[Currency, int] = {
    Currency.AED: 370,
    Currency.AUD: 150,
    Currency.BHD: 38,
    Currency.BRL: 500,
    Currency.CAD: 135,
    Currency.CHF: 90,
    Currency.CLP: 90_000,
    Currency.CNY: 700,
    Currency.CZK: 2_300,
    Currency.DKK: 680,
    Currency.EUR: 90,
    Currency.FKP: 80,
    Currency.GBP: 80,
    Currency.GIP: 80,
    Currency.HKD: 780,
    Currency.HUF: 36_000,
    Currency.IDR: 1_500_000,
    Currency.ILS: 360,
    Currency.INR: 8_300,
    Currency.ISK: 13_500,
    Currency.JOD: 71,
    Currency.JPY: 15_000,
    Currency.KRW: 135_000,
    Currency.KWD: 31,
    Currency.KYD: 83,
    Currency.MXN: 1_800,
    Currency.NOK: 1_050,
    Currency.NZD: 160,
    Currency.OMR: 38,
    Currency.PLN: 400,
    Currency.SAR: 375,
    Currency.SEK: 1_050,
    Currency.SGD: 135,
    Currency.SHP: 80,
    Currency.THB: 3_500,
    Currency.TND: 310,
    Currency.TRY: 3_000,
    Currency.TWD: 3_100,
    Currency.VND: 2_400_000,
    Currency.ZAR: 1_800,
}


def limits_for(tier: Tier, currency: Currency) -> Limits:
    """All limits of `tier` in `currency`."""
    bounds = _BOUNDS[tier]
    return Limits(
        tier=tier,
        currency=currency,
        per_payment_minor=_minor(bounds.payment, currency),
        per_transfer_minor=_minor(bounds.transfer, currency),
        windows=(
            Window(_DAY_HOURS, bounds.day_count, _minor(bounds.day_amount, currency)),
            Window(_WEEK_HOURS, bounds.week_count, _minor(bounds.week_amount, currency)),
        ),
    )


def limit_for(tier: Tier, currency: Currency) -> int:
    """The largest payment by card that `tier` may make, in minor units of `currency`."""
    return limits_for(tier, currency).per_payment_minor


def _minor(dollars: int, currency: Currency) -> int:
    """Whole dollars in minor units of `currency`, rounded down."""
    hundredths: int = _PER_DOLLAR_HUNDREDTHS.get(currency, 100)
    scale: int = 10**currency.exponent
    return dollars * hundredths * scale // 100
