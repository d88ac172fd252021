"""A payment method's record follows its token."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities import contracts
from activities.contracts import TokenRef
from store.queries import activate_payment_method


class PaymentMethodActivities(contracts.PaymentMethodActivities):
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="payment_methods.activate")
    async def activate(self, token: TokenRef) -> None:
        async with self._engine.begin() as connection:
            await activate_payment_method(connection, token.token_id)
