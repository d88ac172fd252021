"""A payment method's record follows its token, and what its issuer says of it."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities import contracts
from activities.contracts import TokenRef
from domain.verifications import VerificationOpening, VerificationResult
from store.payment_methods import open_verification, record_verification
from store.queries import activate_payment_method


class PaymentMethodActivities(contracts.PaymentMethodActivities):
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="payment_methods.activate")
    async def activate(self, token: TokenRef) -> None:
        async with self._engine.begin() as connection:
            await activate_payment_method(connection, token.token_id)

    @activity.defn(name="card_verifications.open")
    async def open_verification(self, opening: VerificationOpening) -> None:
        async with self._engine.begin() as connection:
            await open_verification(connection, opening)

    @activity.defn(name="card_verifications.record")
    async def record_verification(self, result: VerificationResult) -> None:
        async with self._engine.begin() as connection:
            await record_verification(connection, result)
