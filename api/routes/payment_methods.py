"""Cards: the one place where card data enters, and it goes straight into the vault."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text

from api.auth import Caller, Principal
from api.context import ApiContext, Context
from api.errors import CATALOGUE, ApiError, missing, unavailable
from api.idempotency import KeyHeader, Reservation, reserve, store_answer
from api.presenters import card_object, payment_method_object, verification_object
from api.routes.users import visible_user
from api.schemas.common import Page
from api.schemas.payment_methods import CardObject, NewCard, PaymentMethodObject, VerificationObject, VerifyBody
from api.verifications import credential_for, declined, new_verification, verified
from api.workflow_calls import provision_token
from domain.errors import Unavailable
from domain.ids import PAYMENT_METHOD, VERIFICATION, derived_id
from store.payment_methods import latest_verifications, list_verifications
from store.queries import Row, find_payment_method, list_payment_methods
from vault.cards import NewCard as VaultCard
from vault.errors import InvalidCard
from vault.tokens import TokenizedCard

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
    number = body.number.get_secret_value()
    # A digest of the request is stored, so it must not depend on the whole number or on the security code.
    hidden = {"number", "cvc"} if body.verify else {"number", "cvc", "verify"}
    parameters = {**body.model_dump(exclude=hidden), "bin": number[:6], "last4": number[-4:]}
    reservation = await reserve(context.reader, request, caller, key, PAYMENT_METHOD, parameters)
    if reservation.response is not None:
        return reservation.response
    card = await _tokenize(context, body)
    payment_method_id = derived_id(PAYMENT_METHOD, card.token_id)
    await _insert(context, caller, body.user, payment_method_id, card)
    method = await visible_payment_method(context, caller, payment_method_id)
    verification = None
    if body.verify:
        verification_id = derived_id(VERIFICATION, reservation.resource_id)
        verification = new_verification(verification_id, method, reservation.created_at)
    await provision_token(context.temporal, card.token_id, context.settings.wait_seconds, verification)
    shown = card_object(
        await visible_payment_method(context, caller, payment_method_id),
        await _latest_verification(context, payment_method_id),
        context.settings.livemode,
    )
    if verification is not None and shown.status != "pending":
        shown.verification = await verified(context, verification)
        return await _verdict(context, request, reservation, shown.verification, shown, "payment_method")
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
    _must_be_usable_card(method)
    reservation = await reserve(context.reader, request, caller, key, VERIFICATION, body.model_dump(mode="json"))
    if reservation.response is not None:
        return reservation.response
    verification = new_verification(reservation.resource_id, method, reservation.created_at, body)
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
) -> CardObject | PaymentMethodObject:
    method = await visible_payment_method(context, caller, payment_method_id)
    verification = await _latest_verification(context, payment_method_id)
    return payment_method_object(method, verification, context.settings.livemode)


@router.get("", summary="List a user's payment methods")
async def list_user_payment_methods(
    context: Context, caller: Caller, user: str = Query()
) -> Page[CardObject | PaymentMethodObject]:
    await visible_user(context, caller, user, "user")
    async with context.reader.connect() as connection:
        rows = await list_payment_methods(connection, user)
        verifications = await latest_verifications(connection, [row["id"] for row in rows])
    data = [payment_method_object(row, verifications.get(row["id"]), context.settings.livemode) for row in rows]
    return Page(url="/v1/payment_methods", has_more=False, data=data)


async def visible_payment_method(
    context: ApiContext, caller: Principal, payment_method_id: str, param: str | None = None
) -> Row:
    """The payment method, if the caller may know of it; otherwise it is missing, whether it exists or not."""
    async with context.reader.connect() as connection:
        row = await find_payment_method(connection, payment_method_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(row["user_id"]):
        raise missing("payment method", payment_method_id, param)
    return row


def _must_be_usable_card(method: Row) -> None:
    if method["type"] != "card":
        raise ApiError("payment_method_no_card", "Only cards are verified by their issuers.")
    if method["status"] != "active":
        code = "payment_method_pending" if method["status"] == "pending" else "payment_method_unusable"
        raise ApiError(code, f"The payment method is {method['status']}.")


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
    )
    try:
        return await context.vault.tokenize(card, body.user)
    except InvalidCard as refusal:
        code = refusal.code if refusal.code in CATALOGUE else "parameter_invalid"
        raise ApiError(code, f"The card was not accepted: {refusal}.", refusal.param) from None
    except Unavailable as error:
        raise unavailable("vault") from error


async def _insert(context: ApiContext, caller: Principal, user_id: str, identifier: str, card: TokenizedCard) -> None:
    async with context.engine.begin() as connection:
        await connection.execute(
            _INSERT,
            {
                "id": identifier,
                "account_id": caller.account_id,
                "user_id": user_id,
                "token_id": card.token_id,
                "brand": card.brand,
                "bin": card.bin,
                "last4": card.last4,
                "exp_month": card.exp_month,
                "exp_year": card.exp_year,
            },
        )


_INSERT = text("""
INSERT INTO platform.payment_methods (
    id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
VALUES (:id, :account_id, :user_id, :token_id, :brand, :bin, :last4, :exp_month, :exp_year, 'pending')
ON CONFLICT DO NOTHING
""")
