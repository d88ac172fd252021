"""The payment's books. Local to the payments worker: one transaction each, idempotent."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.errors import translated
from domain.records import PaymentChange, Recorded
from ledger.books import PaymentBooks


class LedgerActivities(contracts.LedgerActivities):
    def __init__(self, books: PaymentBooks) -> None:
        self._books = books

    @activity.defn(name="ledger.record")
    async def record(self, change: PaymentChange) -> Recorded:
        with translated():
            return await self._books.record(change)
