"""How a payment that requires action is confirmed: by a one-time code, or by the payer's passkey."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.auth import Caller, Principal
from api.context import ApiContext, Context
from api.errors import ApiError, missing
from api.schemas.step_up import PasskeyAnswer, StepUpObject, StepUpPasskey
from domain.ids import derived_id
from identity.key_errors import PasskeyRefused, PasskeySuspended, StepUpExpired, StepUpNotWaiting, StepUpUsed
from store.queries import find_payment

router = APIRouter(prefix="/v1", tags=["Payments"])

_NOT_WAITING = "The payment waits for no confirmation."


@router.get("/payments/{payment_id}/step_up", summary="Retrieve how a payment is confirmed")
async def get_step_up(payment_id: str, context: Context, caller: Caller, response: Response) -> StepUpObject:
    """For a payment that requires action. A challenge is good for five minutes, one answer, and this payment alone."""
    await _require_visible(context, caller, payment_id)
    try:
        asked = await context.identity.step_ups.ask(payment_id)
    except StepUpNotWaiting:
        raise ApiError("payment_unexpected_state", _NOT_WAITING) from None
    response.headers["Cache-Control"] = "no-store"
    if asked.public_key is None:
        return StepUpObject(payment=payment_id, methods=["code"], passkey=None)
    passkey = StepUpPasskey(
        challenge=asked.id, public_key=asked.public_key, document=asked.document, expires_at=asked.expires_at
    )
    return StepUpObject(payment=payment_id, methods=["passkey", "code"], passkey=passkey)


async def take_passkey_answer(
    context: ApiContext, caller: Principal, payment_id: str, answer: PasskeyAnswer, key: str | None
) -> str:
    """Keeps the payer's answer for the update that `key` names, and returns what the update is to carry.

    Raises:
        ApiError: the answer is no good. It counts as no attempt, and has changed nothing.
    """
    await _require_visible(context, caller, payment_id)
    if key is None:
        raise ApiError("idempotency_key_missing", "Send an `Idempotency-Key` header.", "Idempotency-Key")
    update_id = derived_id("upd", caller.name, key)
    try:
        await context.identity.step_ups.answer(payment_id, answer.challenge, answer.credential.document(), update_id)
    except StepUpNotWaiting:
        raise ApiError("payment_unexpected_state", _NOT_WAITING) from None
    except StepUpExpired:
        message = "The challenge has expired, or is not of this payment; ask for a new one."
        raise ApiError("step_up_challenge_expired", message, "passkey.challenge") from None
    except StepUpUsed:
        raise ApiError("step_up_challenge_used", "The challenge was answered before.", "passkey.challenge") from None
    except PasskeyRefused:
        message = "It is not signed by a passkey of the payer for this payment, amount and payee."
        raise ApiError("step_up_assertion_invalid", message, "passkey.credential") from None
    except PasskeySuspended:
        message = "The passkey is suspended; its user was told."
        raise ApiError("passkey_suspended", message, "passkey.credential") from None
    return answer.challenge


async def _require_visible(context: ApiContext, caller: Principal, payment_id: str) -> None:
    async with context.reader.connect() as connection:
        row = await find_payment(connection, payment_id)
    if row is None or row["account_id"] != caller.account_id or not caller.may_see(row["user_id"]):
        raise missing("payment", payment_id)
