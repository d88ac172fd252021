"""A payment's first step: the fraud decision and the opening of its books are one.

Local to the payments worker: the same trust zone, idempotent, milliseconds. What the books hold decides, so a decision
that was made and not recorded never counts.
"""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.contracts import PaymentOpened, PaymentOrder
from activities.errors import translated
from domain.records import PaymentOpening
from domain.risk import RiskAction, RiskDecision, RiskRequest
from fraud.engine import FraudEngine
from ledger.books import PaymentBooks


class PaymentActivities(contracts.PaymentActivities):
    def __init__(self, engine: FraudEngine, books: PaymentBooks) -> None:
        self._engine = engine
        self._books = books

    @activity.defn(name="payments.open")
    async def open(self, order: PaymentOrder) -> PaymentOpened:
        with translated():
            decision = await self._engine.assess(_risk_request(order))
            opened = await self._books.open(_opening(order, decision))
        return PaymentOpened(opened.risk.action, opened.risk.reasons, opened.standing_hold)

    @activity.defn(name="payments.count_decline")
    async def count_decline(self, order: PaymentOrder) -> None:
        with translated():
            await self._engine.record_decline(_risk_request(order))


def _risk_request(order: PaymentOrder) -> RiskRequest:
    return RiskRequest(
        payment_id=order.payment_id,
        account_id=order.account_id,
        user_id=order.user_id,
        card_id=order.payment_method_id,
        card_bin=order.card_bin,
        merchant_id=order.merchant.merchant_id,
        merchant_category_code=order.merchant.category_code,
        money=order.money,
        requested_at=order.requested_at,
        signals=order.signals,
    )


def _opening(order: PaymentOrder, decision: RiskDecision) -> PaymentOpening:
    return PaymentOpening(
        payment_id=order.payment_id,
        account_id=order.account_id,
        user_id=order.user_id,
        payment_method_id=order.payment_method_id,
        money=order.money,
        merchant=order.merchant,
        capture_method=order.capture_method,
        risk=decision,
        requested_at=order.requested_at,
        hold=decision.action is not RiskAction.BLOCK,
        metadata=order.metadata,
    )
