"""Verifying a card: what adding one and verifying one have in common."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from api.context import ApiContext
from api.errors import ApiError
from api.presenters import accepted_verification, verification_object
from api.schemas.payment_methods import VerificationObject, VerifyBody
from api.workflow_calls import verify_card
from domain.currency import Currency
from domain.errors import DurapayError
from domain.ids import effect_key
from domain.merchants import Merchant
from domain.money import Money
from domain.network import SealedCredential
from store.payment_methods import VerificationLimits, count_verification, find_verification
from store.queries import Row
from vault.credentials import purchase
from workflows.messages import CardVerification

_log = logging.getLogger("durapay.api")

# Who asks where no merchant does: the wallet itself. 6012 is a financial institution's services (ISO 18245).
_WALLET = Merchant("durapay", "durapay card check", "6012")


def new_verification(
    verification_id: str, method: Row, requested_at: datetime, body: VerifyBody | None = None
) -> CardVerification:
    """`method` is the card's row. A repeated request, with the time of its first one, makes the very same."""
    body = body or VerifyBody()
    merchant = body.merchant
    return CardVerification(
        verification_id=verification_id,
        account_id=method["account_id"],
        user_id=method["user_id"],
        payment_method_id=method["id"],
        token_id=method["token_id"],
        currency=Currency[body.currency],
        merchant=_WALLET
        if merchant is None
        else Merchant(merchant.id, merchant.name, merchant.category_code, merchant.city, merchant.country),
        requested_at=requested_at,
    )


async def count_within_limits(context: ApiContext, connection: AsyncConnection, verification: CardVerification) -> None:
    """Counts it, in the caller's transaction: before anything is asked, and once, however often it is repeated.

    Raises:
        ApiError: there were enough.
    """
    limits = VerificationLimits(context.settings.verifications_per_card, context.settings.verifications_per_user)
    wait_seconds = await count_verification(
        connection, verification.verification_id, verification.payment_method_id, limits
    )
    if wait_seconds is not None:
        message = "Issuers were asked often enough about this card, or for this user, within 24 hours."
        raise ApiError("verification_limit_reached", message, retry_after_seconds=wait_seconds)


async def verified(context: ApiContext, verification: CardVerification) -> VerificationObject:
    """The verification once it is decided, or as it is when the wait runs out. It is started if it was not yet."""
    row = await _find(context, verification.verification_id)
    if row is None or row["status"] == "processing":
        await verify_card(context.temporal, verification, context.settings.wait_seconds)
        row = await _find(context, verification.verification_id)
    if row is None:
        return accepted_verification(verification, context.settings.livemode)
    return verification_object(row, context.settings.livemode)


async def credential_for(context: ApiContext, verification: CardVerification) -> SealedCredential | None:
    """The first question's credential. None if that fails: the workflow asks the vault's workers, and says why not."""
    order = purchase(
        effect_key(verification.verification_id, "credential"),
        verification.token_id,
        verification.user_id,
        Money(0, verification.currency),
        verification.merchant,
        verification.requested_at,
    )
    try:
        return await context.vault.issue_credential(order)
    except DurapayError as error:
        _log.warning("no credential for %s yet: %s", verification.verification_id, type(error).__name__)
        return None


def declined(shown: VerificationObject, **extra: object) -> ApiError:
    """What a caller whose card was declined is told."""
    return ApiError("card_declined", "The card was declined.", decline_code=shown.decline_code, extra=dict(extra))


async def _find(context: ApiContext, verification_id: str) -> Row | None:
    async with context.reader.connect() as connection:
        return await find_verification(connection, verification_id)
