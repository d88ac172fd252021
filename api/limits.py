"""What a user's tier and standing allow, asked before anything is started."""

from __future__ import annotations

from api.context import ApiContext
from api.errors import ApiError, user_closed
from domain.currency import Currency
from domain.tiers import limit_for
from store.onboarding_queries import Standing, find_standing


async def require_open(context: ApiContext, user_id: str, param: str | None = None) -> Standing:
    """How the user stands, who may still be given and change things.

    Raises:
        ApiError: the wallet is closed or about to be.
    """
    async with context.reader.connect() as connection:
        standing = await find_standing(connection, user_id)
    if standing.closing_at is not None:
        raise user_closed(param)
    return standing


async def require_may_pay(context: ApiContext, user_id: str, amount_minor: int, currency: Currency) -> int:
    """What one payment of this user may be in `currency` at most, in its minor units; `amount_minor` is not more.

    Raises:
        ApiError: the wallet is closed or about to be, or one payment of this user may not be that much.
    """
    standing = await require_open(context, user_id, "payment_method")
    limit = limit_for(standing.tier, currency)
    if amount_minor > limit:
        message = f"One payment may be {limit} minor units of {currency} at most ({standing.tier})."
        raise ApiError("amount_above_limit", message, "amount_minor")
    return limit
