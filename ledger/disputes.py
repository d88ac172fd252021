"""The ledger's side of a dispute: what each change of hands posts.

Accounts, per currency: `disputes` is what is set aside while the issuer and a merchant are at odds, `fees:disputes`
what merchants paid for lost cases. While a case is open the network still owes us the money; the issuer gets it out of
that when the case is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.currency import Currency
from domain.disputes import Holding
from domain.money import Money
from ledger.accounts import payable, receivable
from ledger.transfers import OpenAccount, Post, Step


def set_aside(currency: Currency) -> OpenAccount:
    """What merchants and issuers are at odds about."""
    return OpenAccount(f"disputes:{currency}", currency, "disputes")


def fees(currency: Currency) -> OpenAccount:
    """What merchants paid for lost cases."""
    return OpenAccount(f"fees:disputes:{currency}", currency, "dispute_fees")


@dataclass(frozen=True, slots=True)
class Handover:
    """The disputed money goes from one to another. `effect` names the event that it follows from: it posts once.

    A case that is lost costs the merchant `fee_minor`, which comes back if it is won after all.
    """

    effect: str
    dispute_id: str
    account_id: str
    merchant_id: str
    money: Money
    before: Holding
    after: Holding
    fee_minor: int = 0


def entries(handover: Handover) -> list[Step]:
    """The chain of accounts and transfers; empty if the money stays where it is."""
    if handover.before is handover.after:
        return []
    currency = handover.money.currency
    merchant, charged = payable(handover.account_id, handover.merchant_id, currency), fees(currency)
    holders = {
        Holding.MERCHANT: merchant,
        Holding.ASIDE: set_aside(currency),
        Holding.ISSUER: receivable(currency),
    }
    giver, taker = holders[handover.before], holders[handover.after]
    chain: list[Step] = [giver, taker, _post(handover, "dispute", giver, taker, handover.money.amount_minor)]
    if handover.fee_minor and handover.after is Holding.ISSUER:
        chain += [merchant, charged, _post(handover, "dispute_fee", merchant, charged, handover.fee_minor)]
    elif handover.fee_minor and handover.before is Holding.ISSUER:
        chain += [merchant, charged, _post(handover, "dispute_fee", charged, merchant, handover.fee_minor)]
    return chain


def _post(handover: Handover, code: str, debit: OpenAccount, credit: OpenAccount, amount_minor: int) -> Post:
    return Post(
        id=f"{handover.effect}:{code}",
        debit_account=debit.id,
        credit_account=credit.id,
        amount_minor=amount_minor,
        currency=handover.money.currency,
        code=code,
        reference=handover.dispute_id,
    )
