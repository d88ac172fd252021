"""The chart of accounts. An account holds one currency, so each of these is one account for each currency.

Debits raise what we own and what we spent, credits what we owe and what we earned.

| account | code | is | its balance says |
|---|---|---|---|
| `network:receivable:USD` | `network_receivable` | owned (debits) | what the network owes us: captured, not cleared |
| `network:settlement:USD` | `network_settlement` | owned (debits) | what it is about to pay: cleared, not paid |
| `bank:USD` | `bank` | owned (debits) | what is in our bank account |
| `merchant:ACCOUNT:MERCHANT:payable:USD` | `merchant_payable` | owed (credits) | what we owe a merchant |
| `disputes:USD` | `disputes` | owed (credits) | what merchants and issuers are at odds about |
| `suspense:USD` | `suspense` | owed (credits) | what nobody can vouch for yet |
| `fees:platform:USD` | `platform_fees` | earned (credits) | what merchants paid us for captures |
| `fees:disputes:USD` | `dispute_fees` | earned (credits) | what merchants paid us for lost disputes |
| `fees:network:USD` | `network_fees` | spent (debits) | interchange and what else the network keeps |
| `loss:USD` | `loss` | spent (debits) | what was written off, gains deducted |

None has a limit: a merchant's payable falls below zero when a chargeback takes what was paid out already, and is filled
up again by the captures that follow. Payouts are covered transfers, so they never take it there. (`disputes` and
`fees:disputes` are in `ledger.disputes`.)
"""

from __future__ import annotations

from domain.currency import Currency
from ledger.transfers import OpenAccount


def receivable(currency: Currency) -> OpenAccount:
    return OpenAccount(f"network:receivable:{currency}", currency, "network_receivable")


def settlement(currency: Currency) -> OpenAccount:
    return OpenAccount(f"network:settlement:{currency}", currency, "network_settlement")


def bank(currency: Currency) -> OpenAccount:
    return OpenAccount(f"bank:{currency}", currency, "bank")


def suspense(currency: Currency) -> OpenAccount:
    return OpenAccount(f"suspense:{currency}", currency, "suspense")


def payable(account_id: str, merchant_id: str, currency: Currency) -> OpenAccount:
    return OpenAccount(f"merchant:{account_id}:{merchant_id}:payable:{currency}", currency, "merchant_payable")


def platform_fees(currency: Currency) -> OpenAccount:
    return OpenAccount(f"fees:platform:{currency}", currency, "platform_fees")


def network_fees(currency: Currency) -> OpenAccount:
    return OpenAccount(f"fees:network:{currency}", currency, "network_fees")


def loss(currency: Currency) -> OpenAccount:
    return OpenAccount(f"loss:{currency}", currency, "loss")
