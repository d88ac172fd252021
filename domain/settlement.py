"""A day's settlement: what the network's clearing file says, compared with what is ours; the differences are breaks.

A break is never an edit. It says where its money lies in the ledger (`parts`), it ages, and it ends by healing (the
network's next file explains it) or by what two operators decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from domain.clearing import ClearingKind, ClearingRecord
from domain.money import Money
from domain.postings import BreakAccount, BreakOutcome, Excess


class BreakKind(StrEnum):
    """How a line and our books differ. `MISSING_HERE`: nothing of ours belongs to the line."""

    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    AMOUNT = "amount"
    CURRENCY = "currency"
    DUPLICATE = "duplicate"


class BreakStatus(StrEnum):
    OPEN = "open"
    HEALED = "healed"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Expected:
    """Something of ours that the network has to clear. `settled` says that a line has cleared it already,
    `written_off` that its absence was resolved by operators."""

    effect_key: str
    kind: ClearingKind
    payment_id: str
    money: Money
    settled: bool = False
    written_off: bool = False


@dataclass(frozen=True, slots=True)
class BreakPart:
    """Money of a break: the account on which it lies and the side that is too large."""

    account: BreakAccount
    excess: Excess
    money: Money


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a line of the file is: `difference` None if it is as expected. `explained_minor` of it is ours."""

    difference: BreakKind | None
    explained_minor: int
    parts: tuple[BreakPart, ...] = ()


@dataclass(frozen=True, slots=True)
class Break:
    """An open or ended difference. Amounts are minor units; one is None where that side has nothing."""

    break_id: str
    day: date
    kind: BreakKind
    status: BreakStatus
    parts: tuple[BreakPart, ...]
    opened_at: datetime
    line: int | None = None
    effect_key: str | None = None
    payment_id: str | None = None


@dataclass(frozen=True, slots=True)
class BreakDecision:
    """What two different operators decided on a break, and why."""

    break_id: str
    outcome: BreakOutcome
    operators: tuple[str, str]
    reason: str


def judge(record: ClearingRecord, mine: Expected | None) -> Verdict:
    """Compares a line that is no fee with what it should be; the caller has found `mine` by the line's numbers."""
    amount = record.money.amount_minor
    if mine is None or mine.written_off:
        return Verdict(BreakKind.MISSING_HERE, 0, (_unexplained(record, amount),))
    if mine.settled:
        return Verdict(BreakKind.DUPLICATE, 0, (_unexplained(record, amount),))
    if mine.money.currency is not record.money.currency:
        return Verdict(BreakKind.CURRENCY, 0, (_unexplained(record, amount), uncleared(mine, mine.money.amount_minor)))
    expected = mine.money.amount_minor
    if amount > expected:
        return Verdict(BreakKind.AMOUNT, expected, (_unexplained(record, amount - expected),))
    if amount < expected:
        return Verdict(BreakKind.AMOUNT, amount, (uncleared(mine, expected - amount),))
    return Verdict(None, amount)


def _unexplained(record: ClearingRecord, amount_minor: int) -> BreakPart:
    """Of a line that nothing explains the money waits in suspense."""
    excess = Excess.CREDIT if record.kind.owed_to_us else Excess.DEBIT
    return BreakPart(BreakAccount.SUSPENSE, excess, Money(amount_minor, record.money.currency))


def uncleared(mine: Expected, amount_minor: int) -> BreakPart:
    """What the network should have cleared and did not stays on the receivable."""
    excess = Excess.DEBIT if mine.kind.owed_to_us else Excess.CREDIT
    return BreakPart(BreakAccount.RECEIVABLE, excess, Money(amount_minor, mine.money.currency))


def match_key(kind: ClearingKind, rrn: str | None, stan: str | None, chargeback_id: str | None) -> str:
    """What a line and an item of ours have in common. A returned refund is found by its refund."""
    of = ClearingKind.REFUND if kind is ClearingKind.REFUND_RETURNED else kind
    return f"{of}:{chargeback_id}" if chargeback_id else f"{of}:{rrn}:{stan}"
