"""Amounts on one scale, so that limits and ratios mean the same in every currency.

This is a scale for judging risk, not money: no posting, no limit of law and no price is ever derived from it. An
amount is divided by its currency's exponent and by a coarse, fixed number of units to the dollar. A currency that is
not in the table is worth about one to a few dollars and counts one to one. The numbers are orders of magnitude on
purpose: a rate that moved every day would change features of the past and could not be replayed.
"""

from __future__ import annotations

from domain.currency import Currency
from domain.money import Money

# Units of the currency to one US dollar, one or two significant digits (central banks' rates, 2024-2025).
UNITS_PER_DOLLAR: dict[Currency, int] = {
    Currency.AED: 4, Currency.AFN: 70, Currency.ALL: 90, Currency.AMD: 390, Currency.AOA: 900, Currency.ARS: 1000,
    Currency.BDT: 120, Currency.BIF: 2900, Currency.BRL: 5, Currency.CDF: 2800, Currency.CLP: 950, Currency.CNY: 7,
    Currency.COP: 4000, Currency.CRC: 500, Currency.CZK: 23, Currency.DJF: 180, Currency.DKK: 7, Currency.DOP: 60,
    Currency.DZD: 130, Currency.EGP: 50, Currency.ETB: 130, Currency.GNF: 8600, Currency.GYD: 210, Currency.HKD: 8,
    Currency.HNL: 25, Currency.HTG: 130, Currency.HUF: 360, Currency.IDR: 16000, Currency.INR: 85, Currency.IQD: 1300,
    Currency.IRR: 42000, Currency.ISK: 140, Currency.JMD: 160, Currency.JPY: 150, Currency.KES: 130,
    Currency.KHR: 4100, Currency.KMF: 450, Currency.KPW: 900, Currency.KRW: 1400, Currency.KZT: 500,
    Currency.LAK: 21000, Currency.LBP: 90000, Currency.LKR: 300, Currency.LRD: 190, Currency.MAD: 10,
    Currency.MDL: 18, Currency.MGA: 4600, Currency.MKD: 57, Currency.MMK: 2100, Currency.MNT: 3400,
    Currency.MUR: 46, Currency.MWK: 1700, Currency.MXN: 20, Currency.MZN: 64, Currency.NGN: 1500, Currency.NIO: 37,
    Currency.NOK: 10, Currency.NPR: 135, Currency.PHP: 57, Currency.PKR: 280, Currency.PLN: 4, Currency.PYG: 7500,
    Currency.RSD: 110, Currency.RUB: 90, Currency.RWF: 1400, Currency.SAR: 4, Currency.SDG: 600, Currency.SEK: 10,
    Currency.SOS: 570, Currency.SYP: 13000, Currency.THB: 35, Currency.TRY: 35, Currency.TWD: 32, Currency.TZS: 2600,
    Currency.UAH: 41, Currency.UGX: 3700, Currency.UYU: 40, Currency.UZS: 12500, Currency.VES: 50, Currency.VND: 25000,
    Currency.VUV: 120, Currency.XAF: 600, Currency.XOF: 600, Currency.XPF: 110, Currency.YER: 250, Currency.ZAR: 18,
}  # fmt: skip


def scaled_cents(money: Money) -> int:
    """`money` in hundredths of the common scale, rounded down: 1050 USD → 1050, 15000 JPY → 10000, 1000 KWD → 100."""
    units = UNITS_PER_DOLLAR.get(money.currency, 1)
    return int(money.amount_minor * 100 // (10**money.currency.exponent * units))
