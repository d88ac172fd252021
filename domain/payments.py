"""The life of a payment as data: states, what may happen in each, and a pure `apply(payment, event)`.

The payment's workflow is the only one that calls `apply` for a payment; whatever it refuses cannot happen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from domain.errors import InvalidTransition
from domain.money import MAX_AMOUNT_MINOR, Money


class CaptureMethod(StrEnum):
    AUTOMATIC = "automatic"
    MANUAL = "manual"


class PaymentStatus(StrEnum):
    PROCESSING = "processing"
    REQUIRES_ACTION = "requires_action"
    IN_REVIEW = "in_review"
    IN_DOUBT = "in_doubt"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    SETTLED = "settled"
    VOIDED = "voided"
    EXPIRED = "expired"
    DECLINED = "declined"
    BLOCKED = "blocked"
    CANCELED = "canceled"


# In these states the caller is still owed an answer: the API says 202.
UNDECIDED = frozenset(
    {
        PaymentStatus.PROCESSING,
        PaymentStatus.REQUIRES_ACTION,
        PaymentStatus.IN_REVIEW,
        PaymentStatus.IN_DOUBT,
    }
)

# In these states a payment's workflow may close. A captured payment may once its refund window has passed.
FINAL = frozenset(
    {
        PaymentStatus.CAPTURED,
        PaymentStatus.SETTLED,
        PaymentStatus.VOIDED,
        PaymentStatus.EXPIRED,
        PaymentStatus.DECLINED,
        PaymentStatus.BLOCKED,
        PaymentStatus.CANCELED,
    }
)


class PaymentEvent(StrEnum):
    STEP_UP_REQUIRED = "step_up_required"
    STEP_UP_PASSED = "step_up_passed"
    STEP_UP_FAILED = "step_up_failed"
    REVIEW_REQUIRED = "review_required"
    REVIEW_APPROVED = "review_approved"
    REVIEW_REJECTED = "review_rejected"
    BLOCKED = "blocked"
    CANCELED = "canceled"
    AUTHORIZED = "authorized"
    # Authorized and captured by one message.
    SOLD = "sold"
    DECLINED = "declined"
    DOUBTED = "doubted"
    INCREASED = "increased"
    REVERSED = "reversed"
    NEVER_SENT = "never_sent"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"
    REFUND_RESERVED = "refund_reserved"
    REFUND_DOUBTED = "refund_doubted"
    REFUND_SUCCEEDED = "refund_succeeded"
    REFUND_FAILED = "refund_failed"
    # The network took a refund that had succeeded back, e.g. because the cardholder's account is closed.
    REFUND_RETURNED = "refund_returned"
    SETTLED = "settled"


_S = PaymentStatus
_E = PaymentEvent

# (state, event) → next state. `CAPTURED` and `EXPIRED` depend on amounts too: see `apply`.
TRANSITIONS: dict[tuple[PaymentStatus, PaymentEvent], PaymentStatus] = {
    (_S.PROCESSING, _E.STEP_UP_REQUIRED): _S.REQUIRES_ACTION,
    (_S.PROCESSING, _E.REVIEW_REQUIRED): _S.IN_REVIEW,
    (_S.PROCESSING, _E.BLOCKED): _S.BLOCKED,
    (_S.PROCESSING, _E.AUTHORIZED): _S.AUTHORIZED,
    (_S.PROCESSING, _E.SOLD): _S.CAPTURED,
    (_S.PROCESSING, _E.DECLINED): _S.DECLINED,
    (_S.PROCESSING, _E.DOUBTED): _S.IN_DOUBT,
    (_S.REQUIRES_ACTION, _E.STEP_UP_PASSED): _S.PROCESSING,
    (_S.REQUIRES_ACTION, _E.STEP_UP_FAILED): _S.BLOCKED,
    (_S.REQUIRES_ACTION, _E.CANCELED): _S.CANCELED,
    (_S.IN_REVIEW, _E.REVIEW_APPROVED): _S.PROCESSING,
    (_S.IN_REVIEW, _E.REVIEW_REJECTED): _S.BLOCKED,
    (_S.IN_REVIEW, _E.CANCELED): _S.CANCELED,
    (_S.IN_DOUBT, _E.REVERSED): _S.VOIDED,
    (_S.IN_DOUBT, _E.NEVER_SENT): _S.DECLINED,
    # Only an operator, with a second one, says this of a payment in doubt: the network confirmed it by other means.
    (_S.IN_DOUBT, _E.AUTHORIZED): _S.AUTHORIZED,
    (_S.IN_DOUBT, _E.SOLD): _S.CAPTURED,
    (_S.AUTHORIZED, _E.INCREASED): _S.AUTHORIZED,
    (_S.AUTHORIZED, _E.CAPTURED): _S.CAPTURED,
    (_S.AUTHORIZED, _E.VOIDED): _S.VOIDED,
    (_S.AUTHORIZED, _E.EXPIRED): _S.EXPIRED,
    # Of a part that was captured while the rest is still open.
    (_S.AUTHORIZED, _E.REFUND_RESERVED): _S.AUTHORIZED,
    (_S.AUTHORIZED, _E.REFUND_DOUBTED): _S.AUTHORIZED,
    (_S.AUTHORIZED, _E.REFUND_SUCCEEDED): _S.AUTHORIZED,
    (_S.AUTHORIZED, _E.REFUND_FAILED): _S.AUTHORIZED,
    (_S.AUTHORIZED, _E.REFUND_RETURNED): _S.AUTHORIZED,
    (_S.CAPTURED, _E.REFUND_RESERVED): _S.CAPTURED,
    (_S.CAPTURED, _E.REFUND_DOUBTED): _S.CAPTURED,
    (_S.CAPTURED, _E.REFUND_SUCCEEDED): _S.CAPTURED,
    (_S.CAPTURED, _E.REFUND_FAILED): _S.CAPTURED,
    (_S.CAPTURED, _E.REFUND_RETURNED): _S.CAPTURED,
    (_S.CAPTURED, _E.SETTLED): _S.SETTLED,
    (_S.SETTLED, _E.REFUND_RESERVED): _S.SETTLED,
    (_S.SETTLED, _E.REFUND_DOUBTED): _S.SETTLED,
    (_S.SETTLED, _E.REFUND_SUCCEEDED): _S.SETTLED,
    (_S.SETTLED, _E.REFUND_FAILED): _S.SETTLED,
    (_S.SETTLED, _E.REFUND_RETURNED): _S.SETTLED,
}


@dataclass(frozen=True, slots=True)
class Payment:
    """Status and amounts, all in minor units of `money.currency`. `money` is what was asked for, increments included.

    `refunds_pending_minor` is reserved by refunds whose outcome is not known yet. It always holds that
    refunded + pending ≤ captured ≤ authorized ≤ asked for.
    """

    money: Money
    status: PaymentStatus = PaymentStatus.PROCESSING
    amount_authorized_minor: int = 0
    amount_captured_minor: int = 0
    amount_refunded_minor: int = 0
    refunds_pending_minor: int = 0

    @property
    def capturable_minor(self) -> int:
        if self.status is not PaymentStatus.AUTHORIZED:
            return 0
        return self.amount_authorized_minor - self.amount_captured_minor

    @property
    def refundable_minor(self) -> int:
        return self.amount_captured_minor - self.amount_refunded_minor - self.refunds_pending_minor


def apply(payment: Payment, event: PaymentEvent, amount_minor: int = 0, *, final: bool = True) -> Payment:
    """The payment after `event`.

    `amount_minor` is what was authorized, captured or is refunded, for the events that have one. A capture with
    `final` false leaves the rest of the authorization open for further captures; the last possible minor unit
    closes it whatever `final` says. An authorization that expires after a partial capture stays captured.

    Raises:
        InvalidTransition: nothing of the kind can happen in this state (`payment_<event>_in_<status>`), or the
            amount is more than is left (`amount_too_large`), than an amount can be (`amount_above_limit`), or not
            positive (`amount_invalid`).
    """
    next_status = TRANSITIONS.get((payment.status, event))
    if next_status is None:
        raise InvalidTransition("payment_unexpected_state", f"a payment that is {payment.status} cannot be {event}")
    match event:
        case PaymentEvent.AUTHORIZED:
            _require(amount_minor, payment.money.amount_minor)
            return replace(payment, status=next_status, amount_authorized_minor=amount_minor)
        case PaymentEvent.SOLD:
            _require(amount_minor, payment.money.amount_minor)
            return replace(
                payment,
                status=next_status,
                amount_authorized_minor=amount_minor,
                amount_captured_minor=amount_minor,
            )
        case PaymentEvent.INCREASED if payment.amount_captured_minor:
            raise InvalidTransition("payment_partly_captured", "an authorization that was captured cannot grow")
        case PaymentEvent.INCREASED if payment.money.amount_minor + amount_minor > MAX_AMOUNT_MINOR:
            raise InvalidTransition("amount_above_limit", "no message of the network holds so large an amount")
        case PaymentEvent.INCREASED:
            _require(amount_minor)
            return replace(
                payment,
                money=replace(payment.money, amount_minor=payment.money.amount_minor + amount_minor),
                amount_authorized_minor=payment.amount_authorized_minor + amount_minor,
            )
        case PaymentEvent.CAPTURED:
            _require(amount_minor, payment.capturable_minor)
            closes = final or amount_minor == payment.capturable_minor
            return replace(
                payment,
                status=next_status if closes else payment.status,
                amount_captured_minor=payment.amount_captured_minor + amount_minor,
            )
        case PaymentEvent.VOIDED if payment.amount_captured_minor:
            raise InvalidTransition("payment_partly_captured", "a payment that was captured is refunded, not voided")
        case PaymentEvent.EXPIRED if payment.amount_captured_minor:
            return replace(payment, status=PaymentStatus.CAPTURED)
        case PaymentEvent.REFUND_RESERVED if not payment.amount_captured_minor:
            raise InvalidTransition("payment_unexpected_state", "nothing was captured that could be refunded")
        case PaymentEvent.REFUND_RESERVED:
            _require(amount_minor, payment.refundable_minor)
            return replace(payment, refunds_pending_minor=payment.refunds_pending_minor + amount_minor)
        case PaymentEvent.REFUND_SUCCEEDED | PaymentEvent.REFUND_FAILED:
            _require(amount_minor, payment.refunds_pending_minor)
            succeeded = amount_minor if event is PaymentEvent.REFUND_SUCCEEDED else 0
            return replace(
                payment,
                refunds_pending_minor=payment.refunds_pending_minor - amount_minor,
                amount_refunded_minor=payment.amount_refunded_minor + succeeded,
            )
        case PaymentEvent.REFUND_RETURNED:
            _require(amount_minor, payment.amount_refunded_minor)
            return replace(payment, amount_refunded_minor=payment.amount_refunded_minor - amount_minor)
        case _:
            return replace(payment, status=next_status)


def _require(amount_minor: int, limit_minor: int | None = None) -> None:
    if amount_minor <= 0:
        raise InvalidTransition("amount_invalid", "the amount must be positive")
    if limit_minor is not None and amount_minor > limit_minor:
        raise InvalidTransition("amount_too_large", f"the amount exceeds what is left ({limit_minor} minor units)")
