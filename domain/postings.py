"""What settlement tells the ledger: lines of clearing files, fees, money in the bank, payouts, and how breaks end.

Each has an id of its own; telling the ledger the same thing twice posts it once, and telling it something else under
the same id is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.clearing import ClearingKind
from domain.money import Money


@dataclass(frozen=True, slots=True)
class ClearingLine:
    """A record of the network's clearing file, other than a fee. `subject_id` is the payment or dispute it belongs to.

    `explained_minor` is how much of it our books explain; the rest is nobody's yet and waits in suspense. None: all.
    A line that nothing of ours belongs to has 0, and the file's id as its subject.

    Raises:
        ValueError: more is explained than there is, or less than nothing; or it is a fee (`NetworkFee`).
    """

    line_id: str
    subject_id: str
    kind: ClearingKind
    money: Money
    explained_minor: int | None = None

    def __post_init__(self) -> None:
        if self.explained_minor is not None and not 0 <= self.explained_minor <= self.money.amount_minor:
            raise ValueError("what is explained of a line lies between 0 and its amount")
        if self.kind is ClearingKind.FEE:
            raise ValueError("a fee is spent, not cleared")


@dataclass(frozen=True, slots=True)
class NetworkFee:
    """Interchange or another fee that the network keeps of what it pays; `returned` if it gives one back."""

    fee_id: str
    subject_id: str
    money: Money
    returned: bool = False


@dataclass(frozen=True, slots=True)
class Funding:
    """The net amount of a clearing day on our bank statement; `paid_by_us` on a day on which more was taken than given.

    `subject_id` is the clearing file or the day that it settles.
    """

    funding_id: str
    subject_id: str
    money: Money
    paid_by_us: bool = False


@dataclass(frozen=True, slots=True)
class Payout:
    """Money that a merchant is owed and gets into its bank account."""

    payout_id: str
    account_id: str
    merchant_id: str
    money: Money


class BreakAccount(StrEnum):
    """Where the money of a break lies: captured and never cleared, cleared and unexplained, or cleared and not paid."""

    RECEIVABLE = "receivable"
    SUSPENSE = "suspense"
    SETTLEMENT = "settlement"


class Excess(StrEnum):
    """Which side of that account is too large. `DEBIT` is money that does not come, `CREDIT` money too much."""

    DEBIT = "debit"
    CREDIT = "credit"


class BreakOutcome(StrEnum):
    """Who bears the break, or has it: we do (a loss or a gain), the merchant, or the network with the next clearing."""

    WRITE_OFF = "write_off"
    MERCHANT = "merchant"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class BreakResolution:
    """How a break, or the numbered `part` of one, ends. `account_id` and `merchant_id` are for `MERCHANT` alone.

    Raises:
        ValueError: a merchant is missing or too many, or the network is to bear what lies with it already.
    """

    break_id: str
    account: BreakAccount
    excess: Excess
    outcome: BreakOutcome
    money: Money
    account_id: str | None = None
    merchant_id: str | None = None
    part: int = 1

    def __post_init__(self) -> None:
        named = (self.account_id is not None, self.merchant_id is not None)
        if named != (self.outcome is BreakOutcome.MERCHANT,) * 2:
            raise ValueError("a merchant is named if, and only if, it bears the break")
        if self.outcome is BreakOutcome.NETWORK and self.account is BreakAccount.SETTLEMENT:
            raise ValueError("what the network has not paid lies with the network already")
