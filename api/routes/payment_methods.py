"""Cards: the one place where card data enters, and it goes straight into the vault."""

from __future__ import annotations

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import text

from api.auth import Caller, Principal
from api.context import ApiContext, Context
from api.errors import CATALOGUE, ApiError, missing, unavailable
from api.idempotency import KeyHeader, reserve, store_answer
from api.presenters import card_object
from api.routes.users import visible_user
from api.schemas.common import Page
from api.schemas.payment_methods import CardObject, NewCard
from api.workflow_calls import provision_token
from domain.errors import Unavailable
from domain.ids import PAYMENT_METHOD, derived_id
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
    responses={202: {"model": CardObject, "description": "Its network has not answered yet"}},
)
async def add_card(
    body: NewCard, request: Request, response: Response, context: Context, caller: Caller, key: KeyHeader = None
) -> CardObject | Response:
    """Tokenises a card and registers the token with its network.

    `201` when the card can be used, `202` with `pending` while the network has not answered. A card that the user has
    already is not added twice: the same payment method comes back.
    """
    await visible_user(context, caller, body.user, "user")
    number = body.number.get_secret_value()
    # A digest of the request is stored, so it must not depend on the whole number or on the security code.
    parameters = {**body.model_dump(exclude={"number", "cvc"}), "bin": number[:6], "last4": number[-4:]}
    reservation = await reserve(context.reader, request, caller, key, PAYMENT_METHOD, parameters)
    if reservation.response is not None:
        return reservation.response
    card = await _tokenize(context, body)
    payment_method_id = derived_id(PAYMENT_METHOD, card.token_id)
    await _insert(context, caller, body.user, payment_method_id, card)
    await provision_token(context.temporal, card.token_id, context.settings.wait_seconds)
    shown = card_object(await visible_payment_method(context, caller, payment_method_id), context.settings.livemode)
    if shown.status == "pending":
        response.status_code = 202
    else:
        await store_answer(context.reader, reservation, 201, shown.model_dump(mode="json"))
    return shown


@router.get("/{payment_method_id}", summary="Retrieve a payment method")
async def get_payment_method(payment_method_id: str, context: Context, caller: Caller) -> CardObject:
    return card_object(await visible_payment_method(context, caller, payment_method_id), context.settings.livemode)


@router.get("", summary="List a user's payment methods")
async def list_cards(context: Context, caller: Caller, user: str = Query()) -> Page[CardObject]:
    await visible_user(context, caller, user, "user")
    async with context.reader.connect() as connection:
        rows = await list_payment_methods(connection, user)
    data = [card_object(row, context.settings.livemode) for row in rows]
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
