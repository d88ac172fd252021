"""Bank accounts: adding one, and verifying it by two small deposits."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from temporalio.client import WorkflowHandle

from api.auth import Caller, Operator, Principal
from api.context import ApiContext, Context
from api.deposit_calls import begin_micro_deposit, read_bank_day
from api.errors import ApiError, missing, unavailable
from api.idempotency import KeyHeader, Reservation, reserve, store_answer
from api.limits import require_open
from api.presenters import bank_account_object
from api.routes.users import visible_user
from api.schemas.bank_accounts import (
    AmountsObject,
    BankAccountObject,
    BankDayObject,
    CancelDepositsBody,
    ConfirmBody,
    MicroDepositObject,
    NewBankAccount,
    StartDepositsBody,
)
from api.schemas.common import Text
from api.workflow_calls import update
from domain.bank_accounts import BankAccountType
from domain.errors import Unavailable
from domain.ids import MICRO_DEPOSIT, PAYMENT_METHOD, derived_id, micro_deposit_workflow_id
from domain.micro_deposits import CancelDeposits, ConfirmDeposits, MicroDepositOrder, MicroDepositSnapshot
from store.bank_queries import (
    BankAccountRow,
    Look,
    add_bank_account,
    find_bank_account,
    find_micro_deposit,
    latest_micro_deposit,
    look_at_amounts,
)
from store.queries import Row
from vault.bank_accounts import NewBankAccount as VaultBankAccount
from workflows.micro_deposit import MicroDepositWorkflow

router = APIRouter(prefix="/v1", tags=["Bank accounts"])

_PENDING: dict[int | str, dict[str, Any]] = {202: {"model": MicroDepositObject, "description": "Not known yet"}}
_METHOD = "/payment_methods/{payment_method_id}/micro_deposits"


@router.post(
    "/payment_methods/bank_accounts", status_code=201, response_model=BankAccountObject, summary="Add a bank account"
)
async def add_account(
    body: NewBankAccount, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> BankAccountObject | Response:
    """Keeps the account's number in the vault. It is `pending` until deposits have verified it.

    An account that the user has already is not added twice: the same payment method comes back.
    """
    await visible_user(context, caller, body.user, "user")
    await require_open(context, body.user, "user")
    if body.account_type == "savings" and not context.settings.savings_accounts:
        raise ApiError("bank_account_type_unsupported", "Savings accounts are not taken here.", "account_type")
    number = body.account_number.get_secret_value()
    # A digest of the request is stored, so it must not depend on the whole number.
    parameters = {**body.model_dump(exclude={"account_number"}), "last4": number[-4:]}
    reservation = await reserve(context.reader, request, caller, key, PAYMENT_METHOD, parameters)
    if reservation.response is not None:
        return reservation.response
    try:
        account = VaultBankAccount(body.routing_number, number, BankAccountType(body.account_type))
        kept = await context.bank_accounts.add(account, body.user)
    except Unavailable as error:
        raise unavailable("vault") from error
    identifier = derived_id(PAYMENT_METHOD, kept.id)
    row = BankAccountRow(
        identifier, caller.account_id, body.user, kept.id, kept.routing_number, kept.account_type, kept.last4
    )
    async with context.engine.begin() as connection:
        await add_bank_account(connection, row)
    method = await _visible(context, caller, identifier)
    if method["status"] == "removed":
        # Its number is about to be erased; a moment later the same account is a new one.
        raise ApiError("bank_account_unusable", "The bank account is being removed. Try again with the same key.")
    shown = bank_account_object(method, context.settings.livemode)
    await store_answer(context.reader, reservation, 201, shown.model_dump(mode="json"))
    return shown


@router.post(
    _METHOD, status_code=201, response_model=MicroDepositObject, summary="Start a verification", responses=_PENDING
)
async def start_micro_deposits(
    payment_method_id: str,
    request: Request,
    context: Context,
    caller: Caller,
    body: StartDepositsBody | None = None,
    key: KeyHeader = None,
) -> Response:
    """Sends two deposits of 1 to 49 cents each, and takes their sum back. They arrive one or two banking days later."""
    method = await _visible(context, caller, payment_method_id)
    reservation = await reserve(context.reader, request, caller, key, MICRO_DEPOSIT, {})
    if reservation.response is not None:
        return reservation.response
    order = MicroDepositOrder(
        reservation.resource_id,
        caller.account_id,
        method["user_id"],
        payment_method_id,
        method["bank_account_id"],
        reservation.created_at,
    )
    await begin_micro_deposit(context.temporal, order, context.settings.wait_seconds)
    async with context.reader.connect() as connection:
        row = await find_micro_deposit(connection, order.micro_deposit_id)
    if row is None:
        shown = MicroDepositObject(
            id=order.micro_deposit_id,
            payment_method=payment_method_id,
            status="new",
            attempts_remaining=3,
            livemode=context.settings.livemode,
            created=order.requested_at,
        )
        return JSONResponse(shown.model_dump(mode="json"), 202)
    return await _answer(context, reservation, row, 201)


@router.get(_METHOD, summary="Retrieve the latest verification")
async def get_micro_deposits(payment_method_id: str, context: Context, caller: Caller) -> MicroDepositObject:
    await _visible(context, caller, payment_method_id)
    return micro_deposit_object(await _latest(context, payment_method_id), context.settings.livemode)


@router.post(f"{_METHOD}/confirm", response_model=MicroDepositObject, summary="Name the amounts", responses=_PENDING)
async def confirm_micro_deposits(
    payment_method_id: str,
    body: ConfirmBody,
    request: Request,
    context: Context,
    caller: Caller,
    key: KeyHeader = None,
) -> Response:
    """One of three attempts. `422` with `attempts_remaining` if the amounts are not those that were sent."""
    await _visible(context, caller, payment_method_id)
    row = await _latest(context, payment_method_id)
    first, second = body.amounts_minor
    parameters = {"micro_deposit": row["id"], **body.model_dump()}
    reservation = await reserve(context.reader, request, caller, key, "upd", parameters)
    if reservation.response is not None:
        return reservation.response
    message = ConfirmDeposits((first, second))
    done = await _update(context, reservation, row, MicroDepositWorkflow.confirm, message)
    row = await _latest(context, payment_method_id)
    if done is None:
        return JSONResponse(_shown(context, row), 202)
    if not done.correct:
        refusal = _wrong(context, row, done)
        body_shown = refusal.body(str(request.base_url).rstrip("/"), request.state.request_id)
        await store_answer(context.reader, reservation, refusal.status, body_shown)
        raise refusal
    return await _answer(context, reservation, row, 200)


def _wrong(context: ApiContext, row: Row, done: MicroDepositSnapshot) -> ApiError:
    shown = {"micro_deposit": _shown(context, row) | {"attempts_remaining": done.attempts_remaining}}
    if done.attempts_remaining == 0:
        message = "These are not the amounts, and no attempt is left."
        return ApiError("micro_deposit_attempts_exceeded", message, "amounts_minor", extra=shown)
    message = f"These are not the amounts. Attempts remaining: {done.attempts_remaining}."
    return ApiError("micro_deposit_amounts_incorrect", message, "amounts_minor", extra=shown)


@router.post(
    f"{_METHOD}/cancel", response_model=MicroDepositObject, summary="Cancel a verification", responses=_PENDING
)
async def cancel_micro_deposits(
    payment_method_id: str,
    request: Request,
    context: Context,
    caller: Caller,
    body: CancelDepositsBody | None = None,
    key: KeyHeader = None,
) -> Response:
    """Ends it. Deposits that were sent arrive all the same, and the attempt to verify counts."""
    await _visible(context, caller, payment_method_id)
    row = await _latest(context, payment_method_id)
    given = body or CancelDepositsBody()
    parameters = {"micro_deposit": row["id"], **given.model_dump()}
    reservation = await reserve(context.reader, request, caller, key, "upd", parameters)
    if reservation.response is not None:
        return reservation.response
    done = await _update(context, reservation, row, MicroDepositWorkflow.cancel, CancelDeposits(given.reason))
    row = await _latest(context, payment_method_id)
    if done is None:
        return JSONResponse(_shown(context, row), 202)
    return await _answer(context, reservation, row, 200)


@router.get("/micro_deposits/{micro_deposit_id}/amounts", summary="Look at the amounts of a verification")
async def get_amounts(
    micro_deposit_id: str, request: Request, context: Context, caller: Operator, reason: Annotated[Text, Query()]
) -> AmountsObject:
    """For support staff, who give a reason. Who looked, when and why is recorded for good."""
    look = Look(
        micro_deposit_id, caller.account_id, caller.key_id or caller.account_id, reason, request.state.request_id
    )
    async with context.engine.begin() as connection:
        amounts = await look_at_amounts(connection, look)
    if amounts is None:
        raise missing("micro-deposit", micro_deposit_id)
    return AmountsObject(micro_deposit=micro_deposit_id, amounts_minor=list(amounts))


@router.post("/bank/days", response_model=BankDayObject, summary="Read the bank's day now")
async def read_day(context: Context, caller: Operator) -> Response:
    """Asks the bank what it has posted and returned. It is done every hour as well; doing it again changes nothing."""
    report = await read_bank_day(context.temporal, context.settings.wait_seconds)
    if report is None:
        return JSONResponse(BankDayObject(status="reading").model_dump(mode="json"), 202)
    shown = BankDayObject(status="read", posted=report.posted, returned=report.returned)
    return JSONResponse(shown.model_dump(mode="json"))


def micro_deposit_object(row: Row, livemode: bool) -> MicroDepositObject:
    return MicroDepositObject(
        id=row["id"],
        payment_method=row["payment_method_id"],
        status=row["status"],
        reason=row["reason"],
        attempts_remaining=row["attempts_remaining"],
        effective_on=row["effective_on"].isoformat() if row["effective_on"] else None,
        expires=row["expires_at"],
        livemode=livemode,
        created=row["requested_at"],
    )


def _shown(context: ApiContext, row: Row) -> dict[str, Any]:
    return micro_deposit_object(row, context.settings.livemode).model_dump(mode="json")


async def _answer(context: ApiContext, reservation: Reservation, row: Row, status: int) -> Response:
    shown = _shown(context, row)
    await store_answer(context.reader, reservation, status, shown)
    return JSONResponse(shown, status)


async def _update(
    context: ApiContext, reservation: Reservation, row: Row, method: Any, message: Any
) -> MicroDepositSnapshot | None:
    """One update under the caller's key: the update's id is derived from it."""
    handle: WorkflowHandle[MicroDepositWorkflow, MicroDepositSnapshot] = context.temporal.get_workflow_handle_for(
        MicroDepositWorkflow.run, micro_deposit_workflow_id(row["id"])
    )
    try:
        return await update(
            handle.execute_update(method, message, id=reservation.resource_id), context.settings.wait_seconds
        )
    except ApiError as refusal:
        if refusal.code == "payment_closed":
            raise ApiError("micro_deposit_unexpected_state", f"The deposits are {row['status']}.") from refusal
        raise


async def _latest(context: ApiContext, payment_method_id: str) -> Row:
    async with context.reader.connect() as connection:
        row = await latest_micro_deposit(connection, payment_method_id)
    if row is None:
        raise missing("verification of payment method", payment_method_id)
    return row


async def _visible(context: ApiContext, caller: Principal, payment_method_id: str) -> Row:
    """The bank account, if the caller may know of it; otherwise it is missing, whether it exists or not."""
    async with context.reader.connect() as connection:
        row = await find_bank_account(connection, payment_method_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(row["user_id"]):
        raise missing("bank account", payment_method_id)
    return row
