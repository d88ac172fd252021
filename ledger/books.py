"""The books of a payment: its row, its ledger entries and its event change together or not at all.

Accounts, per currency: `network:receivable` is what the card network owes us, `merchant:…:payable` what we owe a
merchant, `suspense` what nobody can vouch for yet. A hold is a pending transfer from the first to the second; while a
payment is in doubt it stands against suspense instead.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.currency import Currency
from domain.errors import DurapayError
from domain.ids import EVENT, derived_id
from domain.merchants import Merchant
from domain.payments import PaymentEvent
from domain.records import PaymentChange, PaymentOpening, Recorded, RefundRecord
from ledger.transfers import OpenAccount, Pending, PostPending, Step, VoidPending, apply


class OutOfOrder(DurapayError):
    """A change came whose predecessor is not recorded, or another one is recorded in its place: a bug, not a fault."""


def receivable(currency: Currency) -> OpenAccount:
    return OpenAccount(f"network:receivable:{currency}", currency, "network_receivable")


def suspense(currency: Currency) -> OpenAccount:
    return OpenAccount(f"suspense:{currency}", currency, "suspense")


def payable(account_id: str, merchant_id: str, currency: Currency) -> OpenAccount:
    return OpenAccount(f"merchant:{account_id}:{merchant_id}:payable:{currency}", currency, "merchant_payable")


class PaymentBooks:
    """Every method is one transaction and may be called again with the same input: the second time changes nothing."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def open(self, opening: PaymentOpening) -> Recorded:
        """Inserts the payment with its risk decision and its first event, and holds the amount if asked to.

        A workflow whose worker died before it could remember the opening judges the payment anew, and the decision may
        be another one: then this one counts, and the answer names the hold that really stands.

        Raises:
            OutOfOrder: another payment has this id.
        """
        hold_id = _hold_id(opening)
        parameters = _opening_parameters(opening)
        async with self._engine.begin() as connection:
            inserted = (await connection.execute(_OPEN, parameters)).first() is not None
            if not inserted and not await _judged_anew(connection, parameters):
                return Recorded(await _held(connection, hold_id))
            if opening.hold:
                await apply(connection, _hold(opening, hold_id))
                return Recorded(hold_id)
            return Recorded(None if inserted else await _held(connection, hold_id))

    async def record(self, change: PaymentChange) -> Recorded:
        """Brings the payment to `change.version` with the ledger entries of its event.

        Raises:
            OutOfOrder: the version before it is not recorded, or another event stands under this version.
            ledger.errors.LedgerError: the ledger refuses the entries; nothing is changed.
        """
        steps, standing_hold = entries(change)
        async with self._engine.begin() as connection:
            updated = await connection.execute(_RECORD, _change_parameters(change))
            if updated.first() is None:
                await _require_recorded(connection, change)
                return Recorded(standing_hold)
            if change.refund is not None:
                await connection.execute(_REFUND, _refund_parameters(change, change.refund))
            if steps:
                await apply(connection, steps)
        return Recorded(standing_hold)


def entries(change: PaymentChange) -> tuple[list[Step], str | None]:
    """The ledger's side of an event: the chain of transfers, and the hold that stands after it.

    Each transfer's id is derived from the payment and its version, so an event posts once.
    """
    currency = change.payment.money.currency
    reference = change.payment_id
    effect = f"{change.payment_id}:v{change.version}"
    owed, owes = receivable(currency), payable(change.account_id, change.merchant_id, currency)
    held = change.standing_hold
    release: list[Step] = [VoidPending(f"{effect}:release", held, reference)] if held else []
    match change.event:
        case PaymentEvent.BLOCKED | PaymentEvent.CANCELED | PaymentEvent.DECLINED | PaymentEvent.STEP_UP_FAILED:
            return release, None
        case PaymentEvent.REVIEW_REJECTED | PaymentEvent.REVERSED | PaymentEvent.NEVER_SENT:
            return release, None
        case PaymentEvent.VOIDED | PaymentEvent.EXPIRED:
            return release, None
        case PaymentEvent.DOUBTED:
            doubt = suspense(currency)
            amount = change.payment.money.amount_minor
            pending = Pending(f"{effect}:doubt", owed.id, doubt.id, amount, currency, "in_doubt", reference)
            return [*release, owed, doubt, pending], pending.id
        case PaymentEvent.AUTHORIZED if held == f"{change.payment_id}:hold" and (
            change.amount_minor == change.payment.money.amount_minor
        ):
            return [], held
        case PaymentEvent.AUTHORIZED:
            # Approved for less than was held, or out of doubt: the hold is made anew for what stands.
            pending = Pending(f"{effect}:hold", owed.id, owes.id, change.amount_minor, currency, "hold", reference)
            return [*release, owed, owes, pending], pending.id
        case PaymentEvent.CAPTURED:
            assert held is not None
            post = PostPending(f"{effect}:capture", held, change.amount_minor, reference, final=change.final)
            left = change.payment.capturable_minor
            return [post], held if left else None
        case PaymentEvent.REFUND_RESERVED | PaymentEvent.REFUND_SUCCEEDED | PaymentEvent.REFUND_FAILED:
            assert change.refund is not None
            return _refund_entries(change, change.refund, owed, owes), held
        case _:
            return [], held


def _refund_entries(change: PaymentChange, refund: RefundRecord, owed: OpenAccount, owes: OpenAccount) -> list[Step]:
    reserve = f"{refund.refund_id}:reserve"
    amount, currency = change.amount_minor, change.payment.money.currency
    match change.event:
        case PaymentEvent.REFUND_RESERVED:
            return [Pending(reserve, owes.id, owed.id, amount, currency, "refund", change.payment_id)]
        case PaymentEvent.REFUND_SUCCEEDED:
            return [PostPending(f"{refund.refund_id}:post", reserve, amount, change.payment_id, final=True)]
        case _:
            return [VoidPending(f"{refund.refund_id}:release", reserve, change.payment_id)]


def _hold_id(opening: PaymentOpening) -> str:
    return f"{opening.payment_id}:hold"


def _hold(opening: PaymentOpening, hold_id: str) -> list[Step]:
    currency = opening.money.currency
    owed = receivable(currency)
    owes = payable(opening.account_id, opening.merchant.merchant_id, currency)
    return [
        owed,
        owes,
        Pending(hold_id, owed.id, owes.id, opening.money.amount_minor, currency, "hold", opening.payment_id),
    ]


async def _judged_anew(connection: AsyncConnection, parameters: dict[str, Any]) -> bool:
    """Whether the payment that is recorded has gone no further than its opening; then it takes the newer decision."""
    found = (await connection.execute(_OPENED, parameters)).one()
    if not found.same:
        raise OutOfOrder(f"{parameters['payment_id']} is the id of another payment")
    if found.version > 1:
        return False
    await connection.execute(_JUDGE_ANEW, parameters)
    return True


async def _held(connection: AsyncConnection, hold_id: str) -> str | None:
    found = await connection.execute(text("SELECT id FROM ledger.transfers WHERE id = :id"), {"id": hold_id})
    identifier: str | None = found.scalar()
    return identifier


async def _require_recorded(connection: AsyncConnection, change: PaymentChange) -> None:
    """Refuses `change` unless it is the one that stands under its version: the same event, amount, state and refund."""
    found = await connection.execute(
        text("SELECT type, data FROM platform.outbox WHERE subject_id = :subject AND subject_sequence = :sequence"),
        {"subject": change.payment_id, "sequence": change.version},
    )
    recorded, data = found.first(), _event_data(change)
    if (
        recorded is None
        or recorded.type != f"payment.{change.event}"
        or any(recorded.data.get(name) != data[name] for name in ("status", "amount_minor", "refund_id"))
    ):
        raise OutOfOrder(f"{change.payment_id} cannot take {change.event} as its event {change.version}")


_OPEN = text("""
WITH payment AS (
    INSERT INTO platform.payments (
        id, account_id, user_id, payment_method_id, version, status, amount_minor, currency, capture_method, merchant,
        metadata, created_at, updated_at)
    VALUES (
        :payment_id, :account_id, :user_id, :payment_method_id, 1, 'processing', :amount_minor, :currency,
        :capture_method, CAST(:merchant AS jsonb), CAST(:metadata AS jsonb), :at, :at)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), risk AS (
    INSERT INTO platform.risk_decisions (
        payment_id, action, score, reasons, rules_version, model_version, features, degraded)
    SELECT id, :risk_action, :risk_score, :risk_reasons, :rules_version, :model_version,
        CAST(:features AS jsonb), :degraded FROM payment
), event AS (
    INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
    SELECT :event_id, id, 1, 'payment.created', CAST(:event_data AS jsonb) FROM payment
)
SELECT id FROM payment
""")

_OPENED = text("""
SELECT
    version,
    (account_id, user_id, payment_method_id, amount_minor, currency, merchant) = (
        :account_id, :user_id, :payment_method_id, :amount_minor, :currency, CAST(:merchant AS jsonb)) AS same
FROM platform.payments WHERE id = :payment_id
FOR UPDATE
""")

_JUDGE_ANEW = text("""
UPDATE platform.risk_decisions SET
    action = :risk_action,
    score = :risk_score,
    reasons = :risk_reasons,
    rules_version = :rules_version,
    model_version = :model_version,
    features = CAST(:features AS jsonb),
    degraded = :degraded
WHERE payment_id = :payment_id
""")

_RECORD = text("""
WITH payment AS (
    UPDATE platform.payments SET
        version = :version,
        status = :status,
        amount_authorized_minor = :amount_authorized_minor,
        amount_captured_minor = :amount_captured_minor,
        amount_refunded_minor = :amount_refunded_minor,
        refunds_pending_minor = :refunds_pending_minor,
        capture_before = COALESCE(:capture_before, capture_before),
        decline_code = COALESCE(:decline_code, decline_code),
        status_reason = :status_reason,
        approval_code = COALESCE(:approval_code, approval_code),
        rrn = COALESCE(:rrn, rrn),
        updated_at = :at
    WHERE id = :payment_id AND version = :version - 1
    RETURNING id
), event AS (
    INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
    SELECT :event_id, id, :version, :event_type, CAST(:event_data AS jsonb) FROM payment
)
SELECT id FROM payment
""")

_REFUND = text("""
INSERT INTO platform.refunds (
    id, payment_id, account_id, amount_minor, currency, status, reason, failure_code, created_at, updated_at)
VALUES (:id, :payment_id, :account_id, :amount_minor, :currency, :status, :reason, :failure_code, :at, :at)
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, failure_code = excluded.failure_code, updated_at = excluded.updated_at
""")


def _opening_parameters(opening: PaymentOpening) -> dict[str, Any]:
    risk = opening.risk
    return {
        "payment_id": opening.payment_id,
        "account_id": opening.account_id,
        "user_id": opening.user_id,
        "payment_method_id": opening.payment_method_id,
        "amount_minor": opening.money.amount_minor,
        "currency": opening.money.currency.value,
        "capture_method": opening.capture_method.value,
        "merchant": json.dumps(_merchant(opening.merchant)),
        "metadata": json.dumps(opening.metadata),
        "at": opening.requested_at,
        "risk_action": risk.action.value,
        "risk_score": risk.score,
        "risk_reasons": list(risk.reasons),
        "rules_version": risk.rules_version,
        "model_version": risk.model_version,
        "features": json.dumps(risk.features),
        "degraded": risk.degraded,
        "event_id": _event_id(opening.payment_id, 1),
        "event_data": json.dumps(
            {"amount_minor": opening.money.amount_minor, "currency": opening.money.currency, "risk": risk.action}
        ),
    }


def _change_parameters(change: PaymentChange) -> dict[str, Any]:
    payment = change.payment
    return {
        "payment_id": change.payment_id,
        "version": change.version,
        "status": payment.status.value,
        "amount_authorized_minor": payment.amount_authorized_minor,
        "amount_captured_minor": payment.amount_captured_minor,
        "amount_refunded_minor": payment.amount_refunded_minor,
        "refunds_pending_minor": payment.refunds_pending_minor,
        "capture_before": change.capture_before,
        "decline_code": change.decline_code,
        "status_reason": change.status_reason,
        "approval_code": change.approval_code,
        "rrn": change.rrn,
        "at": change.occurred_at,
        "event_id": _event_id(change.payment_id, change.version),
        "event_type": f"payment.{change.event}",
        "event_data": json.dumps(_event_data(change)),
    }


def _event_data(change: PaymentChange) -> dict[str, Any]:
    return {
        "status": change.payment.status,
        "amount_minor": change.amount_minor,
        "currency": change.payment.money.currency,
        "decline_code": change.decline_code,
        "reason": change.status_reason,
        "refund_id": change.refund.refund_id if change.refund else None,
    }


def _refund_parameters(change: PaymentChange, refund: RefundRecord) -> dict[str, Any]:
    return {
        "id": refund.refund_id,
        "payment_id": change.payment_id,
        "account_id": refund.account_id,
        "amount_minor": refund.money.amount_minor,
        "currency": refund.money.currency.value,
        "status": refund.status.value,
        "reason": refund.reason,
        "failure_code": refund.failure_code,
        "at": change.occurred_at,
    }


def _merchant(merchant: Merchant) -> dict[str, str]:
    return dataclasses.asdict(merchant)


def _event_id(payment_id: str, version: int) -> str:
    return derived_id(EVENT, payment_id, str(version))
