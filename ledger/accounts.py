"""The chart of accounts. Every account holds one currency, so each of these is one account per currency."""

from __future__ import annotations

from domain.currency import Currency
from ledger.transfers import OpenAccount


def receivable(currency: Currency) -> OpenAccount:
    """What the card network owes us."""
    return OpenAccount(f"network:receivable:{currency}", currency, "network_receivable")


def suspense(currency: Currency) -> OpenAccount:
    """What nobody can vouch for yet."""
    return OpenAccount(f"suspense:{currency}", currency, "suspense")


def payable(account_id: str, merchant_id: str, currency: Currency) -> OpenAccount:
    """What we owe a merchant."""
    return OpenAccount(f"merchant:{account_id}:{merchant_id}:payable:{currency}", currency, "merchant_payable")
