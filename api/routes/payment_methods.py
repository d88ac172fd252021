"""Cards: the one place where card data enters, and it goes straight into the vault."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Caller, Principal
from api.context import ApiContext, Context
from api.deposit_calls import remove_bank_account
from api.errors import CATALOGUE, ApiError, missing, unavailable
from api.idempotency import KeyHeader, Reservation, reserve, store_answer
from api.limits import require_open
from api.presenters import card_object, payment_method_object, verification_object
from api.routes.users import visible_user
from api.schemas.bank_accounts import BankAccountObject
from api.schemas.common import Page
from api.schemas.payment_methods import (
    CardObject,
    NewCard,
    PaymentMethodChange,
    VerificationObject,
    VerifyBody,
)
from api.verifications import count_within_limits, credential_for, declined, new_verification, verified
from api.workflow_calls import provision_token, remove_card, renew_card
from domain.errors import Unavailable
from domain.ids import PAYMENT_METHOD, VERIFICATION, derived_id
from store.bank_queries import find_bank_account
from store.payment_methods import latest_verifications, list_payment_methods, list_verifications, set_default, set_label
from store.queries import PageRequest, Row, find_payment_method
from vault.cards import NewCard as VaultCard
from vault.errors import InvalidCard
from vault.tokens import TokenizedCard
from workflows.messages import BankAccountRemoval, CardRemoval, CardRenewal

router = APIRouter(prefix="/v1/payment_methods", tags=["Payment methods"])


@router.post(
    "/cards",
    status_code=201,
    response_model=CardObject,
    summary="Add a card",
    responses={202: {"model": CardObject, "description": "Its network, or its issuer, has not answered yet"}},
)
async def add_card(
    body: NewCard, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """Tokenises a card and registers the token with its network.

    `201` when the card can be used, `202` with `pending` while the network has not answered. A card that the user has
    already is not added twice: the same payment method comes back.

    With `verify` its issuer is asked about it as well: `402` with the card in `payment_method` if that declines (the
    card is added all the same), `202` while it has not answered, or when nobody got an answer (`unknown`).
    """
    await visible_user(context, caller, body.user, "user")
    await require_open(context, body.user, "user")
    number = body.number.get_secret_value()
    # A digest of the request is stored, so it must not depend on what is not kept, but for the number's ends.
    hidden = {"number", "cvc", "billing_address"} | (set() if body.verify else {"verify"})
    parameters = {**body.model_dump(exclude=hidden), "bin": number[:6], "last4": number[-4:]}
    reservation = await reserve(context.reader, request, caller, key, PAYMENT_METHOD, parameters)
    if reservation.response is not None:
        return reservation.response
    card = await _tokenize(context, body)
    payment_method_id = derived_id(PAYMENT_METHOD, card.token_id)
    verification = None
    # Together: a card whose verification would be one too many is not added.
    async with context.engine.begin() as connection:
        method = await _insert(connection, caller, body.user, payment_method_id, card)
        if method["status"] == "removed":
            # Its token is about to be deleted; a moment later the same card is a new one.
            raise ApiError("payment_method_unusable", "The card is being removed. Try again with the same key.")
        if body.verify:
            verification_id = derived_id(VERIFICATION, reservation.resource_id)
            verification = new_verification(verification_id, method, reservation.created_at)
            await count_within_limits(context, connection, verification)
    await provision_token(context.temporal, card.token_id, context.settings.wait_seconds, verification)
    shown = card_object(
        await visible_payment_method(context, caller, payment_method_id),
        await _latest_verification(context, payment_method_id),
        context.settings.livemode,
    )
    if verification is not None and shown.status != "pending":
        asked = await verified(context, verification)
        # The card anew: it shows what its issuer has just said.
        shown = card_object(
            await visible_payment_method(context, caller, payment_method_id), None, context.settings.livemode
        )
        shown.verification = asked
        return await _verdict(context, request, reservation, asked, shown, "payment_method")
    body_shown = shown.model_dump(mode="json")
    if shown.status == "pending":
        return JSONResponse(body_shown, 202)
    await store_answer(context.reader, reservation, 201, body_shown)
    return JSONResponse(body_shown, 201)


@router.post(
    "/{payment_method_id}/verify",
    status_code=201,
    response_model=VerificationObject,
    summary="Verify a card",
    responses={202: {"model": VerificationObject, "description": "Not answered yet, or `unknown`"}},
)
async def verify_payment_method(
    payment_method_id: str,
    body: VerifyBody,
    request: Request,
    context: Context,
    caller: Caller,
    key: KeyHeader = None,
) -> Response:
    """Asks the card's issuer whether it is good, for no money at all.

    `201` when the issuer vouches for it, `402` with a `decline_code` when it does not, `202` while it has not answered,
    and when nobody got an answer (`unknown`): then nothing was charged, and another verification may be asked for.
    The security code that came with the card goes along if this is the first that is asked of the card's issuer.
    """
    method = await visible_payment_method(context, caller, payment_method_id)
    _must_be_card(method)
    _must_be_active(method)
    reservation = await reserve(context.reader, request, caller, key, VERIFICATION, body.model_dump(mode="json"))
    if reservation.response is not None:
        return reservation.response
    verification = new_verification(reservation.resource_id, method, reservation.created_at, body)
    async with context.engine.begin() as connection:
        await count_within_limits(context, connection, verification)
    if reservation.fresh:
        verification = replace(verification, credential=await credential_for(context, verification))
    shown = await verified(context, verification)
    return await _verdict(context, request, reservation, shown, shown, "verification")


@router.get("/{payment_method_id}/verifications", summary="List a card's verifications, newest first")
async def list_card_verifications(
    payment_method_id: str,
    context: Context,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    starting_after: str | None = None,
) -> Page[VerificationObject]:
    await visible_payment_method(context, caller, payment_method_id)
    async with context.reader.connect() as connection:
        rows, has_more = await list_verifications(connection, payment_method_id, limit, starting_after)
    data = [verification_object(row, context.settings.livemode) for row in rows]
    return Page(url=f"/v1/payment_methods/{payment_method_id}/verifications", has_more=has_more, data=data)


@router.get("/{payment_method_id}", summary="Retrieve a payment method")
async def get_payment_method(
    payment_method_id: str, context: Context, caller: Caller
) -> CardObject | BankAccountObject:
    return await _shown(context, caller, payment_method_id)


@router.get("", summary="List a user's payment methods, newest first")
async def list_user_payment_methods(
    context: Context,
    caller: Caller,
    user: str = Query(),
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    starting_after: str | None = None,
    ending_before: str | None = None,
) -> Page[CardObject | BankAccountObject]:
    """Those that were not removed."""
    if starting_after and ending_before:
        raise ApiError("parameter_invalid", "Give starting_after or ending_before, not both.", "ending_before")
    await visible_user(context, caller, user, "user")
    async with context.reader.connect() as connection:
        page = PageRequest(limit, starting_after, ending_before)
        rows, has_more = await list_payment_methods(connection, user, page)
        verifications = await latest_verifications(connection, [row["id"] for row in rows])
    data = [payment_method_object(row, verifications.get(row["id"]), context.settings.livemode) for row in rows]
    return Page(url="/v1/payment_methods", has_more=has_more, data=data)


@router.patch(
    "/{payment_method_id}",
    response_model=CardObject | BankAccountObject,
    summary="Change a payment method",
    responses={202: {"model": CardObject, "description": "Its network has not heard of the new expiry yet"}},
)
async def change_payment_method(
    payment_method_id: str, body: PaymentMethodChange, context: Context, caller: Caller
) -> Response:
    """Names it, makes it the user's default (or no default any more), or gives a card the later expiry of a new card
    with the same number. Sending it again changes nothing more, so it needs no key.

    `202` while the card's network has not heard of its new expiry: it shows the old one until then.
    """
    method = await visible_payment_method(context, caller, payment_method_id)
    _must_be_active(method)
    if body.exp_year is not None and body.exp_month is not None:
        await _renew(context, method, body.exp_year, body.exp_month)
    async with context.engine.begin() as connection:
        if body.default is not None and not await set_default(
            connection, method["user_id"], payment_method_id, default=body.default
        ):
            raise ApiError("payment_method_unusable", "The payment method was removed.")
        if "label" in body.model_fields_set:
            await set_label(connection, payment_method_id, body.label)
    shown = await _shown(context, caller, payment_method_id)
    renewed = body.exp_year is None or (
        isinstance(shown, CardObject) and (shown.exp_year, shown.exp_month) == (body.exp_year, body.exp_month)
    )
    return JSONResponse(shown.model_dump(mode="json"), 200 if renewed else 202)


@router.delete(
    "/{payment_method_id}",
    response_model=CardObject | BankAccountObject,
    summary="Remove a payment method",
    responses={
        202: {
            "model": CardObject | BankAccountObject,
            "description": "Accepted, not removed yet: repeat the request",
        }
    },
)
async def remove_payment_method(payment_method_id: str, context: Context, caller: Caller) -> Response:
    """From the answer on nothing is paid with it. What was paid with it is captured, voided and refunded as before.

    Its number is erased, and a card's network told. A bank account's verification is canceled; how often its amounts
    were guessed stays counted if it is added again. Removing it again changes nothing.
    """
    method = await visible_payment_method(context, caller, payment_method_id)
    if method["status"] != "removed":
        await _remove(context, method)
    shown = await _shown(context, caller, payment_method_id)
    return JSONResponse(shown.model_dump(mode="json"), 200 if shown.status == "removed" else 202)


async def _remove(context: ApiContext, method: Row) -> None:
    wait_seconds = context.settings.wait_seconds
    if method["type"] == "us_bank_account":
        async with context.reader.connect() as connection:
            account = await find_bank_account(connection, method["id"])
        if account is None:
            raise missing("payment method", method["id"])
        removal = BankAccountRemoval(method["id"], account["bank_account_id"])
        await remove_bank_account(context.temporal, removal, wait_seconds)
        return
    if method["status"] == "pending":
        raise ApiError("payment_method_pending", "The payment method is pending.")
    await remove_card(context.temporal, CardRemoval(method["id"], method["token_id"]), wait_seconds)


async def _renew(context: ApiContext, method: Row, exp_year: int, exp_month: int) -> None:
    _must_be_card(method)
    if (exp_year, exp_month) < (method["exp_year"], method["exp_month"]):
        raise ApiError("parameter_invalid", "The card expires later than that already.", "exp_year")
    if (exp_year, exp_month) > (method["exp_year"], method["exp_month"]):
        renewal = CardRenewal(method["id"], method["token_id"], exp_month, exp_year)
        await renew_card(context.temporal, renewal, context.settings.wait_seconds)


async def visible_payment_method(
    context: ApiContext, caller: Principal, payment_method_id: str, param: str | None = None
) -> Row:
    """The payment method, if the caller may know of it; otherwise it is missing, whether it exists or not."""
    async with context.reader.connect() as connection:
        row = await find_payment_method(connection, payment_method_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(row["user_id"]):
        raise missing("payment method", payment_method_id, param)
    return row


def _must_be_card(method: Row) -> None:
    if method["type"] != "card":
        raise ApiError("payment_method_no_card", "The payment method is no card.")


def _must_be_active(method: Row) -> None:
    if method["status"] != "active":
        code = "payment_method_pending" if method["status"] == "pending" else "payment_method_unusable"
        raise ApiError(code, f"The payment method is {method['status']}.")


async def _shown(context: ApiContext, caller: Principal, payment_method_id: str) -> CardObject | BankAccountObject:
    method = await visible_payment_method(context, caller, payment_method_id)
    verification = await _latest_verification(context, payment_method_id)
    return payment_method_object(method, verification, context.settings.livemode)


async def _latest_verification(context: ApiContext, payment_method_id: str) -> Row | None:
    async with context.reader.connect() as connection:
        return (await latest_verifications(connection, [payment_method_id])).get(payment_method_id)


async def _verdict(
    context: ApiContext,
    request: Request,
    reservation: Reservation,
    verification: VerificationObject,
    shown: CardObject | VerificationObject,
    name: str,
) -> Response:
    """The status that tells what the issuer said, with what is `shown`. What is final is stored under the key."""
    status, body = 201, shown.model_dump(mode="json")
    match verification.status:
        case "processing":
            return JSONResponse(body, 202)
        case "unknown":
            status = 202
        case "declined":
            refusal = declined(verification, **{name: body})
            status, body = 402, refusal.body(str(request.base_url).rstrip("/"), request.state.request_id)
    await store_answer(context.reader, reservation, status, body)
    return JSONResponse(body, status)


async def _tokenize(context: ApiContext, body: NewCard) -> TokenizedCard:
    card = VaultCard(
        number=body.number.get_secret_value(),
        exp_month=body.exp_month,
        exp_year=body.exp_year,
        cvc=body.cvc.get_secret_value() if body.cvc is not None else None,
        address=body.billing_address.as_compared() if body.billing_address is not None else None,
    )
    try:
        return await context.vault.tokenize(card, body.user)
    except InvalidCard as refusal:
        code = refusal.code if refusal.code in CATALOGUE else "parameter_invalid"
        raise ApiError(code, f"The card was not accepted: {refusal}.", refusal.param) from None
    except Unavailable as error:
        raise unavailable("vault") from error


async def _insert(
    connection: AsyncConnection, caller: Principal, user_id: str, identifier: str, card: TokenizedCard
) -> Row:
    """The card's row, made now if there is none yet."""
    values = {
        "id": identifier,
        "account_id": caller.account_id,
        "user_id": user_id,
        "token_id": card.token_id,
        "brand": card.brand,
        "bin": card.bin,
        "last4": card.last4,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
    }
    await connection.execute(_INSERT, values)
    row = await find_payment_method(connection, identifier)
    if row is None:
        raise missing("payment method", identifier)
    return row


_INSERT = text("""
INSERT INTO platform.payment_methods (
    id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
VALUES (:id, :account_id, :user_id, :token_id, :brand, :bin, :last4, :exp_month, :exp_year, 'pending')
ON CONFLICT DO NOTHING
""")
