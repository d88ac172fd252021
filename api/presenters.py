"""From rows to the objects that callers see."""

from __future__ import annotations

import dataclasses
from typing import Any

from api.schemas.payment_methods import CardObject
from api.schemas.payments import MerchantBody, PaymentObject, RefundObject, RiskObject
from store.queries import Row
from workflows.messages import PaymentRequest


def payment_object(row: Row, livemode: bool) -> PaymentObject:
    return PaymentObject(
        id=row["id"],
        status=row["status"],
        status_reason=row["status_reason"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        amount_authorized_minor=row["amount_authorized_minor"],
        amount_captured_minor=row["amount_captured_minor"],
        amount_refunded_minor=row["amount_refunded_minor"],
        capture_method=row["capture_method"],
        capture_before=row["capture_before"],
        decline_code=row["decline_code"],
        user=row["user_id"],
        payment_method=row["payment_method_id"],
        merchant=_merchant(row["merchant"]),
        risk=None
        if row["risk_action"] is None
        else RiskObject(
            action=row["risk_action"],
            score=row["risk_score"],
            reasons=row["risk_reasons"],
            model_version=row["risk_model_version"],
            rules_version=row["risk_rules_version"],
        ),
        metadata=row["metadata"],
        livemode=livemode,
        created=row["created_at"],
    )


def accepted_payment(request: PaymentRequest, livemode: bool) -> PaymentObject:
    """A payment that was started and is not recorded yet: the workers are slow or down, and will go on."""
    return PaymentObject(
        id=request.payment_id,
        status="processing",
        amount_minor=request.money.amount_minor,
        currency=request.money.currency.value,
        capture_method=request.capture_method.value,
        user=request.user_id,
        payment_method=request.payment_method_id,
        merchant=_merchant(dataclasses.asdict(request.merchant)),
        metadata=request.metadata,
        livemode=livemode,
        created=request.requested_at,
    )


def refund_object(row: Row, livemode: bool) -> RefundObject:
    return RefundObject(
        id=row["id"],
        payment=row["payment_id"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        status=row["status"],
        failure_code=row["failure_code"],
        reason=row["reason"],
        livemode=livemode,
        created=row["created_at"],
    )


def card_object(row: Row, livemode: bool) -> CardObject:
    return CardObject(
        id=row["id"],
        user=row["user_id"],
        brand=row["brand"],
        bin=row["bin"],
        last4=row["last4"],
        exp_month=row["exp_month"],
        exp_year=row["exp_year"],
        status=row["status"],
        livemode=livemode,
        created=row["created_at"],
    )


def _merchant(stored: dict[str, Any]) -> MerchantBody:
    return MerchantBody(
        id=stored["merchant_id"],
        name=stored["name"],
        category_code=stored["category_code"],
        city=stored["city"],
        country=stored["country"],
    )
