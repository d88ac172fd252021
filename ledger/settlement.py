"""What clearing, funding, payouts and breaks post. The pure functions make chains; `SettlementBooks` commits them.

| what happens | debit | credit | code |
|---|---|---|---|
| a presentment (or what else is owed to us) is cleared | `network:settlement` | `network:receivable` | `clearing` |
| a refund or a chargeback (what we owe) is cleared | `network:receivable` | `network:settlement` | `clearing` |
| what of a line nothing explains | `suspense` instead of `network:receivable` | | `clearing_unexplained` |
| the network keeps a fee (gives it back: reversed) | `fees:network` | `network:settlement` | `network_fee` |
| the network's money arrives (we pay: reversed) | `bank` | `network:settlement` | `funding` |
| a payout is reserved (pending, covered) | `merchant:…:payable` | `bank` | `payout` |
| it is paid: that is posted; it fails: that is voided | | | `payout` |
| it is in doubt: that is voided, and pending instead | `merchant:…:payable` | `suspense` | `payout_in_doubt` |
| a payout in doubt turns out as paid: that is voided, and | `merchant:…:payable` | `bank` | `payout` |
| the bank returns a paid payout | `bank` | `merchant:…:payable` | `payout_returned` |
| a break with too much debit ends | who bears it | where it lies | `break_…` |
| a break with too much credit ends | where it lies | who has it | `break_…` |

Who bears a break is `loss`, `merchant:…:payable` or `network:settlement`; it lies on `network:receivable`, `suspense`
or `network:settlement`. What is owed to a merchant may be less than nothing after a chargeback: then a payout is
refused (`ExceedsCredits`) until captures have made up for it. A payout in doubt stays taken from the merchant until it
is known.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from domain.money import Money
from domain.postings import (
    BreakAccount,
    BreakOutcome,
    BreakResolution,
    ClearingLine,
    Excess,
    Funding,
    NetworkFee,
    Payout,
)
from ledger.accounts import bank, loss, network_fees, payable, receivable, settlement, suspense
from ledger.transfers import OpenAccount, Pending, Post, PostPending, Step, VoidPending
from ledger.writer import LedgerWriter


def clearing_line(line: ClearingLine) -> list[Step]:
    currency, amount = line.money.currency, line.money.amount_minor
    explained = amount if line.explained_minor is None else line.explained_minor
    cleared = settlement(currency)
    parts = [
        (receivable(currency), explained, "clearing"),
        (suspense(currency), amount - explained, "clearing_unexplained"),
    ]
    chain: list[Step] = []
    # Numbered, not named for their accounts: the same line cannot be posted again with another explanation.
    for number, (known, part, code) in enumerate((each for each in parts if each[1]), 1):
        debit, credit = (cleared, known) if line.kind.owed_to_us else (known, cleared)
        identifier = f"{line.line_id}:clearing:{number}"
        chain += _post(identifier, debit, credit, Money(part, currency), code, line.subject_id)
    return chain


def network_fee(fee: NetworkFee) -> list[Step]:
    spent, paid_from = network_fees(fee.money.currency), settlement(fee.money.currency)
    debit, credit = (paid_from, spent) if fee.returned else (spent, paid_from)
    return _post(f"{fee.fee_id}:network_fee", debit, credit, fee.money, "network_fee", fee.subject_id)


def funding(funded: Funding) -> list[Step]:
    ours, theirs = bank(funded.money.currency), settlement(funded.money.currency)
    debit, credit = (theirs, ours) if funded.paid_by_us else (ours, theirs)
    return _post(f"{funded.funding_id}:funding", debit, credit, funded.money, "funding", funded.subject_id)


def payout_reserved(payout: Payout) -> list[Step]:
    owes, ours = _payable(payout), bank(payout.money.currency)
    return [owes, ours, _held(payout, f"{payout.payout_id}:reserve", owes, ours, "payout", covered=True)]


def payout_doubted(payout: Payout) -> list[Step]:
    owes, doubt = _payable(payout), suspense(payout.money.currency)
    reserve = f"{payout.payout_id}:reserve"
    return [
        owes,
        doubt,
        VoidPending(f"{payout.payout_id}:doubt_release", reserve, payout.payout_id),
        # Not covered: it was taken already, and a chargeback meanwhile must not keep the doubt from being recorded.
        _held(payout, f"{payout.payout_id}:doubt", owes, doubt, "payout_in_doubt"),
    ]


def payout_paid(payout: Payout, *, in_doubt: bool = False) -> list[Step]:
    post = f"{payout.payout_id}:post"
    if not in_doubt:
        amount = payout.money.amount_minor
        return [PostPending(post, f"{payout.payout_id}:reserve", amount, payout.payout_id, final=True)]
    paid = _post(post, _payable(payout), bank(payout.money.currency), payout.money, "payout", payout.payout_id)
    # Another id than a failure's, so that the hold's end tells which of the two it was.
    return [VoidPending(f"{payout.payout_id}:resolve", f"{payout.payout_id}:doubt", payout.payout_id), *paid]


def payout_failed(payout: Payout, *, in_doubt: bool = False) -> list[Step]:
    hold = f"{payout.payout_id}:{'doubt' if in_doubt else 'reserve'}"
    return [VoidPending(f"{payout.payout_id}:release", hold, payout.payout_id)]


def payout_returned(payout: Payout, *, in_doubt: bool = False) -> list[Step]:
    """A payout that came back had left: if that is not posted yet it is now, and one that failed is refused."""
    ours, owes = bank(payout.money.currency), _payable(payout)
    returned = f"{payout.payout_id}:returned"
    return [
        *payout_paid(payout, in_doubt=in_doubt),
        *_post(returned, ours, owes, payout.money, "payout_returned", payout.payout_id),
    ]


def break_resolution(resolution: BreakResolution) -> list[Step]:
    currency = resolution.money.currency
    lies = {
        BreakAccount.RECEIVABLE: receivable,
        BreakAccount.SUSPENSE: suspense,
        BreakAccount.SETTLEMENT: settlement,
    }[resolution.account](currency)
    match resolution.outcome:
        case BreakOutcome.WRITE_OFF:
            bears = loss(currency)
        case BreakOutcome.NETWORK:
            bears = settlement(currency)
        case BreakOutcome.MERCHANT:
            bears = payable(resolution.account_id or "", resolution.merchant_id or "", currency)
    debit, credit = (bears, lies) if resolution.excess is Excess.DEBIT else (lies, bears)
    identifier = f"{resolution.break_id}:resolution:{resolution.part}"
    return _post(identifier, debit, credit, resolution.money, f"break_{resolution.outcome}", resolution.break_id)


class SettlementBooks:
    """Every method is durable when it returns, and may be called again: then it changes nothing.

    All raise ledger.errors.LedgerError if the ledger refuses the chain, and then nothing is posted: among others
    `ExceedsCredits` for a payout of more than is owed, `ExistsWithDifferentContent` for an id that stands for something
    else, and `PendingTransferAlready…` for a payout that has ended in another way.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        # All lines of a clearing file move the network's receivable: posted at once, they share transactions.
        self._writer = LedgerWriter(engine)

    async def post_clearing_line(self, line: ClearingLine) -> None:
        await self._writer.commit(clearing_line(line))

    async def post_fee(self, fee: NetworkFee) -> None:
        await self._writer.commit(network_fee(fee))

    async def post_funding(self, funded: Funding) -> None:
        await self._writer.commit(funding(funded))

    async def reserve_payout(self, payout: Payout) -> None:
        await self._writer.commit(payout_reserved(payout))

    async def doubt_payout(self, payout: Payout) -> None:
        await self._writer.commit(payout_doubted(payout))

    async def post_payout(self, payout: Payout, *, in_doubt: bool = False) -> None:
        """`in_doubt`: it was recorded as doubtful before."""
        await self._writer.commit(payout_paid(payout, in_doubt=in_doubt))

    async def release_payout(self, payout: Payout, *, in_doubt: bool = False) -> None:
        """It failed: the money is the merchant's again."""
        await self._writer.commit(payout_failed(payout, in_doubt=in_doubt))

    async def reverse_payout(self, payout: Payout, *, in_doubt: bool = False) -> None:
        """The bank returned it."""
        await self._writer.commit(payout_returned(payout, in_doubt=in_doubt))

    async def post_break_resolution(self, resolution: BreakResolution) -> None:
        await self._writer.commit(break_resolution(resolution))


def _payable(payout: Payout) -> OpenAccount:
    return payable(payout.account_id, payout.merchant_id, payout.money.currency)


def _held(
    payout: Payout, identifier: str, debit: OpenAccount, credit: OpenAccount, code: str, *, covered: bool = False
) -> Pending:
    money = payout.money
    return Pending(
        identifier, debit.id, credit.id, money.amount_minor, money.currency, code, payout.payout_id, covered=covered
    )


def _post(
    identifier: str, debit: OpenAccount, credit: OpenAccount, money: Money, code: str, reference: str
) -> list[Step]:
    """One transfer, with the accounts that it needs."""
    return [debit, credit, Post(identifier, debit.id, credit.id, money.amount_minor, money.currency, code, reference)]
