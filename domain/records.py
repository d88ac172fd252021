"""What a payment's workflow commits: the opening of a payment, then one change for each event of its life."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from domain.card_checks import CardChecks
from domain.merchants import Merchant
from domain.money import Money
from domain.payments import CaptureMethod, Payment, PaymentEvent
from domain.refunds import RefundStatus
from domain.risk import RiskDecision


@dataclass(frozen=True, slots=True)
class PaymentOpening:
    """The payment as it was asked for, and the fraud decision on it.

    Recording it inserts the payment (event 1, `payment.created`) and, with `hold`, holds the amount in the ledger.
    """

    payment_id: str
    account_id: str
    user_id: str
    payment_method_id: str
    money: Money
    merchant: Merchant
    capture_method: CaptureMethod
    risk: RiskDecision
    requested_at: datetime
    hold: bool
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefundRecord:
    """A refund's row after a change."""

    refund_id: str
    account_id: str
    money: Money
    status: RefundStatus
    reason: str | None = None
    failure_code: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentChange:
    """One event of a payment's life and the payment as it is after it.

    `version` numbers the payment's events without gaps (the opening is 1): recording the same version twice changes
    nothing. `checks` is what the issuer said of a code or an address that went along. `amount_minor` is what the event
    moved, `standing_hold` the ledger's pending transfer that stands for the payment before it (None: none does).
    `final` closes the hold with a capture.
    """

    payment_id: str
    account_id: str
    merchant_id: str
    version: int
    event: PaymentEvent
    payment: Payment
    occurred_at: datetime
    amount_minor: int = 0
    final: bool = True
    standing_hold: str | None = None
    decline_code: str | None = None
    status_reason: str | None = None
    approval_code: str | None = None
    rrn: str | None = None
    capture_before: datetime | None = None
    refund: RefundRecord | None = None
    checks: CardChecks | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """`standing_hold` is the pending transfer that stands for the payment from now on, if one does.

    `disputed` says of a refund that was reserved that disputes have taken what it is of: it must not be given.
    """

    standing_hold: str | None = None
    disputed: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """What stands in the books of a payment's opening: the fraud decision, and the hold if one was made.

    It is what was recorded first, whatever was asked for since.
    """

    standing_hold: str | None
    risk: RiskDecision
