"""From rows to the objects that callers see."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from api.schemas.bank_accounts import BankAccountObject
from api.schemas.disputes import DisputeObject, EvidenceFileObject, EvidenceObject
from api.schemas.payment_methods import CardObject, ChecksObject, VerificationObject
from api.schemas.payments import MerchantBody, PaymentObject, RefundObject, RiskObject
from domain.bins import bin_data
from domain.disputes import reason_of
from store.queries import Row
from workflows.messages import CardVerification, PaymentRequest


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


def payment_method_object(row: Row, verification: Row | None, livemode: bool) -> CardObject | BankAccountObject:
    """`verification` is the card's latest one."""
    return card_object(row, verification, livemode) if row["type"] == "card" else bank_account_object(row, livemode)


def bank_account_object(row: Row, livemode: bool) -> BankAccountObject:
    return BankAccountObject(
        id=row["id"],
        user=row["user_id"],
        last4=row["last4"],
        label=row["label"],
        default=row["is_default"],
        routing_number=row["routing_number"],
        account_type=row["account_type"],
        status=row["status"],
        livemode=livemode,
        created=row["created_at"],
        removed=row["removed_at"],
    )


def card_object(row: Row, verification: Row | None, livemode: bool) -> CardObject:
    known = bin_data(row["bin"])
    return CardObject(
        id=row["id"],
        user=row["user_id"],
        brand=row["brand"],
        bin=row["bin"],
        funding=known.funding,
        country=known.country,
        last4=row["last4"],
        label=row["label"],
        default=row["is_default"],
        exp_month=row["exp_month"],
        exp_year=row["exp_year"],
        checks=_checks(row),
        status=row["status"],
        verification=verification_object(verification, livemode) if verification else None,
        livemode=livemode,
        created=row["created_at"],
        removed=row["removed_at"],
    )


def verification_object(row: Row, livemode: bool) -> VerificationObject:
    return VerificationObject(
        id=row["id"],
        payment_method=row["payment_method_id"],
        status=row["status"],
        decline_code=row["decline_code"],
        reason=row["reason"],
        network_reference=row["rrn"],
        checks=_checks(row),
        currency=row["currency"],
        livemode=livemode,
        created=row["requested_at"],
        decided=row["decided_at"],
    )


def accepted_verification(request: CardVerification, livemode: bool) -> VerificationObject:
    """A verification that was started and is not recorded yet."""
    return VerificationObject(
        id=request.verification_id,
        payment_method=request.payment_method_id,
        status="processing",
        currency=request.currency.value,
        livemode=livemode,
        created=request.requested_at,
    )


def dispute_object(row: Row, livemode: bool) -> DisputeObject:
    return DisputeObject(
        id=row["id"],
        payment=row["payment_id"],
        kind=row["kind"],
        status=row["status"],
        status_reason=row["status_reason"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        fee_minor=row["fee_minor"],
        reason=reason_of(row["reason_code"]),
        reason_code=row["reason_code"],
        network_case=row["chargeback_id"],
        due_by=row["due_by"],
        overdue=row["overdue"],
        evidence=EvidenceObject(
            texts=row["texts"],
            files=[evidence_file_object(file) for file in row["files"]],
            submitted_at=row["submitted_at"],
            acknowledged_at=row["represented_at"],
            sha256=row["evidence_sha256"],
        ),
        livemode=livemode,
        created=row["created_at"],
        closed=row["closed_at"],
    )


def evidence_file_object(row: Mapping[str, Any]) -> EvidenceFileObject:
    return EvidenceFileObject(
        id=row["id"],
        purpose=row["purpose"],
        name=row["name"],
        content_type=row["content_type"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        created=row["created_at"],
    )


def _checks(row: Row) -> ChecksObject:
    found = row["checks"] or {}
    return ChecksObject(**{name: found[name] for name in ChecksObject.model_fields if name in found})


def _merchant(stored: dict[str, Any]) -> MerchantBody:
    return MerchantBody(
        id=stored["merchant_id"],
        name=stored["name"],
        category_code=stored["category_code"],
        city=stored["city"],
        country=stored["country"],
    )
