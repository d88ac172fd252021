"""Payments: starting, reading, capturing, voiding, confirming, reviewing, refunding.

Each effect is an update on the payment's workflow, which is its only writer; what is shown is what it committed.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from temporalio.client import WorkflowHandle

from api.auth import Caller, Operator, Principal
from api.context import ApiContext, Context
from api.errors import ApiError, missing, user_closed
from api.idempotency import KeyHeader, Reservation, reserve, store_answer
from api.limits import require_may_pay
from api.presenters import accepted_payment, payment_object, refund_object
from api.routes.payment_methods import visible_payment_method
from api.routes.step_up import take_passkey_answer
from api.schemas.common import Instant, Page
from api.schemas.payments import (
    CaptureBody,
    IncrementBody,
    NewPayment,
    PaymentObject,
    RefundBody,
    RefundObject,
    ReviewBody,
    VoidBody,
)
from api.schemas.step_up import ConfirmPaymentBody
from api.workflow_calls import authorize_payment, update
from domain.currency import Currency
from domain.errors import DurapayError
from domain.ids import PAYMENT, REFUND, effect_key, payment_workflow_id
from domain.merchants import Merchant
from domain.money import Money
from domain.network import SealedCredential
from domain.payments import UNDECIDED, CaptureMethod, PaymentStatus
from domain.risk import RiskSignals
from store.closing import USER_CLOSED
from store.dispute_queries import disputed_minor
from store.queries import PageRequest, PaymentFilter, Row, find_payment, find_refund, list_payments, list_refunds
from vault.credentials import purchase
from workflows.messages import (
    CaptureRequest,
    IncrementRequest,
    PaymentRequest,
    PaymentSnapshot,
    RefundRequest,
    ReviewDecision,
    StepUpAnswer,
    VoidRequest,
)
from workflows.payment import PaymentWorkflow

_log = logging.getLogger("durapay.api")

router = APIRouter(prefix="/v1", tags=["Payments"])

_PENDING_PAYMENT: dict[int | str, dict[str, Any]] = {
    202: {"model": PaymentObject, "description": "Not decided yet: see `status`"}
}

_STATUSES = Literal[
    "processing", "requires_action", "in_review", "in_doubt", "authorized", "captured", "settled",
    "voided", "expired", "declined", "blocked", "canceled",
]  # fmt: skip


@router.post(
    "/payments",
    status_code=201,
    response_model=PaymentObject,
    summary="Create a payment",
    responses=_PENDING_PAYMENT,
)
async def create_payment(
    body: NewPayment, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """Authorizes a card payment.

    `201` with the payment when it is authorized, `402` when it is declined or blocked, `202` with its state when that
    is not known yet: `requires_action`, `in_review`, `in_doubt`, or `processing` when the wait ran out.
    """
    method = await visible_payment_method(context, caller, body.payment_method, "payment_method")
    await require_may_pay(context, method["user_id"], body.amount_minor, Currency[body.currency])
    if method["type"] != "card":
        raise ApiError("payment_method_no_card", "Payments are made with cards.", "payment_method")
    if method["status"] != "active":
        code = "payment_method_pending" if method["status"] == "pending" else "payment_method_unusable"
        raise ApiError(code, f"The payment method is {method['status']}.", "payment_method")
    reservation = await reserve(context.reader, request, caller, key, PAYMENT, body.model_dump(mode="json"))
    if reservation.response is not None:
        return reservation.response
    payment = _payment_request(body, method, reservation)
    if reservation.fresh:
        payment = replace(payment, credential=await _credential(context, payment))
    # A key that was used before may belong to a payment that is decided, whose workflow Temporal has forgotten.
    row = None if reservation.fresh else await _find(context, payment.payment_id)
    if row is None or PaymentStatus(row["status"]) in UNDECIDED:
        await authorize_payment(context.temporal, payment, context.settings.wait_seconds)
        row = await _find(context, payment.payment_id)
    shown = accepted_payment(payment, context.settings.livemode) if row is None else _shown(context, caller, row)
    return await _answer(context, request, reservation, shown)


@router.get("/payments/{payment_id}", summary="Retrieve a payment")
async def get_payment(payment_id: str, context: Context, caller: Caller) -> PaymentObject:
    return _shown(context, caller, await _visible(context, caller, payment_id))


@router.get("/payments", summary="List payments, newest first")
async def list_all_payments(
    context: Context,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    starting_after: str | None = None,
    ending_before: str | None = None,
    user: str | None = None,
    status: _STATUSES | None = None,
    payment_method: str | None = None,
    created_gte: Annotated[Instant | None, Query(alias="created[gte]")] = None,
    created_lt: Annotated[Instant | None, Query(alias="created[lt]")] = None,
) -> Page[PaymentObject]:
    if starting_after and ending_before:
        raise ApiError("parameter_invalid", "Give starting_after or ending_before, not both.", "ending_before")
    wanted = PaymentFilter(
        account_id=caller.account_id,
        user_id=caller.user_id or user,
        status=status,
        payment_method_id=payment_method,
        created_gte=created_gte,
        created_lt=created_lt,
    )
    async with context.reader.connect() as connection:
        rows, has_more = await list_payments(connection, wanted, PageRequest(limit, starting_after, ending_before))
    data = [_shown(context, caller, row) for row in rows]
    return Page(url="/v1/payments", has_more=has_more, data=data)


@router.post(
    "/payments/{payment_id}/capture",
    response_model=PaymentObject,
    summary="Capture an authorized payment",
    responses=_PENDING_PAYMENT,
)
async def capture_payment(
    payment_id: str, body: CaptureBody, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """Takes all or part of what was authorized. With `final` (the default) the rest is released."""
    message = CaptureRequest(body.amount_minor, body.final)
    return await _update(context, request, caller, payment_id, body, key, PaymentWorkflow.capture, message)


@router.post(
    "/payments/{payment_id}/increment",
    response_model=PaymentObject,
    summary="Authorize more on an authorized payment",
    responses=_PENDING_PAYMENT,
)
async def increment_payment(
    payment_id: str, body: IncrementBody, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """Asks the issuer for more, before anything is captured. Whatever it says, what was authorized before stands."""
    payment = await _visible(context, caller, payment_id)
    total_minor = payment["amount_minor"] + body.amount_minor
    limit = await require_may_pay(context, payment["user_id"], total_minor, Currency[payment["currency"]])
    message = IncrementRequest(body.amount_minor, limit)
    return await _update(context, request, caller, payment_id, body, key, PaymentWorkflow.increment, message)


@router.post(
    "/payments/{payment_id}/void",
    response_model=PaymentObject,
    summary="Void or cancel a payment",
    responses=_PENDING_PAYMENT,
)
async def void_payment(
    payment_id: str, body: VoidBody, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """Releases an authorization that was not captured, or cancels a payment that waits for its payer or a reviewer."""
    message = VoidRequest(body.reason)
    return await _update(context, request, caller, payment_id, body, key, PaymentWorkflow.void, message)


@router.post(
    "/payments/{payment_id}/confirm",
    response_model=PaymentObject,
    summary="Confirm a payment that requires action",
    responses=_PENDING_PAYMENT,
)
async def confirm_payment(
    payment_id: str, body: ConfirmPaymentBody, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """The payer's one-time code, or what their passkey signed. The third wrong code stops the payment."""
    proof = body.code
    if body.passkey is not None:
        proof = await take_passkey_answer(context, caller, payment_id, body.passkey, key)
    assert proof is not None
    message = StepUpAnswer(proof)
    return await _update(context, request, caller, payment_id, body, key, PaymentWorkflow.confirm_step_up, message)


@router.post(
    "/payments/{payment_id}/review",
    response_model=PaymentObject,
    summary="Decide on a payment in review",
    responses=_PENDING_PAYMENT,
)
async def review_payment(
    payment_id: str, body: ReviewBody, request: Request, context: Context, caller: Operator, key: KeyHeader = None
) -> Response:
    message = ReviewDecision(body.operator, body.approve, body.reason)
    return await _update(context, request, caller, payment_id, body, key, PaymentWorkflow.review, message)


@router.post(
    "/payments/{payment_id}/refunds",
    status_code=201,
    response_model=RefundObject,
    tags=["Refunds"],
    summary="Refund a captured payment",
    responses={202: {"model": RefundObject, "description": "Pending or in doubt"}},
)
async def create_refund(
    payment_id: str, body: RefundBody, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """Gives all or part of what was captured back. `202` while the network's answer is awaited or in doubt."""
    payment = await _visible(context, caller, payment_id)
    if body.currency is not None and body.currency != payment["currency"]:
        raise ApiError("parameter_invalid", f"The payment's currency is {payment['currency']}.", "currency")
    reservation = await reserve(context.reader, request, caller, key, REFUND, body.model_dump(mode="json"))
    if reservation.response is not None:
        return reservation.response
    await _refuse_disputed(context, payment_id, reservation.resource_id, body.amount_minor)
    message = RefundRequest(reservation.resource_id, body.amount_minor, body.reason)
    await update(
        _handle(context, payment_id).execute_update(
            PaymentWorkflow.refund,
            message,
            id=reservation.resource_id,
        ),
        context.settings.wait_seconds,
    )
    async with context.reader.connect() as connection:
        row = await find_refund(connection, reservation.resource_id)
    if row is None:
        raise ApiError("service_unavailable", "The refund is not recorded yet.", retry_after_seconds=2)
    shown = refund_object(row, context.settings.livemode).model_dump(mode="json")
    if row["status"] in ("pending", "in_doubt"):
        return JSONResponse(shown, 202)
    await store_answer(context.reader, reservation, 201, shown)
    return JSONResponse(shown, 201)


async def _refuse_disputed(context: ApiContext, payment_id: str, refund_id: str, amount_minor: int | None) -> None:
    """Refuses what a dispute has taken already, or the merchant would pay twice. A refund that is there goes on.

    A dispute that opens at this very moment is the database's to see, which refuses as well.
    """
    async with context.reader.connect() as connection:
        disputed = await disputed_minor(connection, payment_id)
        if not disputed or await find_refund(connection, refund_id) is not None:
            return
        payment = await find_payment(connection, payment_id)
    if payment is None:
        return
    refundable = payment["amount_captured_minor"] - payment["amount_refunded_minor"] - payment["refunds_pending_minor"]
    left = max(refundable - disputed, 0)
    # More than could be refunded without the dispute is the workflow's to refuse.
    if left < (refundable if amount_minor is None else amount_minor) <= refundable:
        raise ApiError(
            "payment_disputed",
            f"A dispute has taken {disputed} of what was captured; {left} can be refunded.",
            "amount_minor",
        )


@router.get("/payments/{payment_id}/refunds", tags=["Refunds"], summary="List a payment's refunds")
async def list_payment_refunds(payment_id: str, context: Context, caller: Caller) -> Page[RefundObject]:
    await _visible(context, caller, payment_id)
    async with context.reader.connect() as connection:
        rows = await list_refunds(connection, payment_id)
    data = [refund_object(row, context.settings.livemode) for row in rows]
    return Page(url=f"/v1/payments/{payment_id}/refunds", has_more=False, data=data)


@router.get("/refunds/{refund_id}", tags=["Refunds"], summary="Retrieve a refund")
async def get_refund(refund_id: str, context: Context, caller: Caller) -> RefundObject:
    async with context.reader.connect() as connection:
        row = await find_refund(connection, refund_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(row["user_id"]):
        raise missing("refund", refund_id)
    return refund_object(row, context.settings.livemode)


async def _update(
    context: ApiContext,
    request: Request,
    caller: Principal,
    payment_id: str,
    body: BaseModel,
    key: str | None,
    method: Any,
    message: Any,
) -> Response:
    """One update on a payment's workflow, under the caller's key: the update's id is derived from it."""
    await _visible(context, caller, payment_id)
    reservation = await reserve(context.reader, request, caller, key, "upd", body.model_dump(mode="json"))
    if reservation.response is not None:
        return reservation.response
    done: PaymentSnapshot | None = await update(
        _handle(context, payment_id).execute_update(
            method,
            message,
            id=reservation.resource_id,
        ),
        context.settings.wait_seconds,
    )
    shown = _shown(context, caller, await _visible(context, caller, payment_id))
    if done is None:
        return JSONResponse(shown.model_dump(mode="json"), 202)
    return await _answer(context, request, reservation, shown, success=200)


async def _answer(
    context: ApiContext, request: Request, reservation: Reservation, shown: PaymentObject, success: int = 201
) -> Response:
    """The status that tells how the payment stands. A final answer is stored under the caller's key."""
    body = shown.model_dump(mode="json")
    match PaymentStatus(shown.status):
        case status if status in UNDECIDED:
            return JSONResponse(body, 202)
        case PaymentStatus.DECLINED:
            error = ApiError(
                "card_declined", "The card was declined.", decline_code=shown.decline_code, extra={"payment": body}
            )
        case PaymentStatus.BLOCKED if shown.status_reason == USER_CLOSED:
            error = user_closed("payment_method")
            error.extra["payment"] = body
        case PaymentStatus.BLOCKED:
            error = ApiError("payment_blocked", "The payment was stopped by fraud rules.", extra={"payment": body})
        case _:
            await store_answer(context.reader, reservation, success, body)
            return JSONResponse(body, success)
    refusal = error.body(str(request.base_url).rstrip("/"), request.state.request_id)
    await store_answer(context.reader, reservation, error.status, refusal)
    return JSONResponse(refusal, error.status)


def _shown(context: ApiContext, caller: Principal, row: Row) -> PaymentObject:
    payment = payment_object(row, context.settings.livemode)
    if caller.user_id is not None:
        # Whoever pays need not learn what the fraud rules look at; that the wallet is closed is no secret of theirs.
        payment.risk = None
        payment.status_reason = USER_CLOSED if payment.status_reason == USER_CLOSED else None
    return payment


async def _credential(context: ApiContext, payment: PaymentRequest) -> SealedCredential | None:
    """The payment's credential, issued here because this process has the vault: the payment then waits for no other.

    None if that fails, whatever the reason: the payment's workflow asks the vault's workers, and records what they say.
    """
    order = purchase(
        effect_key(payment.payment_id, "credential"),
        payment.token_id,
        payment.user_id,
        payment.money,
        payment.merchant,
        payment.requested_at,
    )
    try:
        return await context.vault.issue_credential(order)
    except DurapayError as error:
        _log.warning("no credential for %s yet: %s", payment.payment_id, type(error).__name__)
        return None


async def _find(context: ApiContext, payment_id: str) -> Row | None:
    async with context.reader.connect() as connection:
        return await find_payment(connection, payment_id)


async def _visible(context: ApiContext, caller: Principal, payment_id: str) -> Row:
    row = await _find(context, payment_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(row["user_id"]):
        raise missing("payment", payment_id)
    return row


def _handle(context: ApiContext, payment_id: str) -> WorkflowHandle[PaymentWorkflow, PaymentSnapshot]:
    return context.temporal.get_workflow_handle_for(PaymentWorkflow.run, payment_workflow_id(payment_id))


def _payment_request(body: NewPayment, method: Row, reservation: Reservation) -> PaymentRequest:
    device, location = body.device, body.location
    return PaymentRequest(
        payment_id=reservation.resource_id,
        account_id=method["account_id"],
        user_id=method["user_id"],
        payment_method_id=method["id"],
        token_id=method["token_id"],
        card_bin=method["bin"],
        card_last4=method["last4"],
        money=Money(body.amount_minor, Currency[body.currency]),
        merchant=Merchant(
            merchant_id=body.merchant.id,
            name=body.merchant.name,
            category_code=body.merchant.category_code,
            city=body.merchant.city,
            country=body.merchant.country,
        ),
        capture_method=CaptureMethod(body.capture_method),
        # The time of the first request, so that a repeated one starts the very same payment.
        requested_at=reservation.created_at,
        signals=RiskSignals(
            device_id=device.id if device else None,
            ip_address=device.ip_address if device else None,
            user_agent=device.user_agent if device else None,
            latitude=location.latitude if location else None,
            longitude=location.longitude if location else None,
        ),
        metadata=body.metadata,
        direct=True,
    )
