"""A payment method's record follows its token, and what its issuer says of it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities import contracts
from activities.contracts import CardExpiry, PaymentMethodRef, TokenRef
from domain.verifications import VerificationOpening, VerificationResult
from store.payment_methods import (
    open_verification,
    record_verification,
    remind_of_expiry,
    remove_payment_method,
    renew_payment_method,
)
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

    @activity.defn(name="payment_methods.remove")
    async def remove(self, method: PaymentMethodRef) -> None:
        async with self._engine.begin() as connection:
            await remove_payment_method(connection, method.payment_method_id)

    @activity.defn(name="payment_methods.renew")
    async def renew(self, expiry: CardExpiry) -> None:
        async with self._engine.begin() as connection:
            await renew_payment_method(connection, expiry.payment_method_id, expiry.exp_year, expiry.exp_month)

    @activity.defn(name="payment_methods.remind_of_expiry")
    async def remind_of_expiry(self) -> None:
        """Whatever was done before a fault stays done: each batch is a transaction of its own."""
        while True:
            async with self._engine.begin() as connection:
                if not await remind_of_expiry(connection, datetime.now(UTC).date()):
                    return
