"""Disputes: their books, local to the payments worker, and their evidence, which is kept outside of it."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.contracts import FreezeOrder
from activities.errors import translated
from documents.evidence import EvidenceArchive
from domain.dispute_records import DisputeChange, DisputeOpened, DisputeOpening, NoticeRecord
from domain.evidence import FrozenEvidence
from ledger.dispute_books import DisputeBooks


class DisputeActivities(contracts.DisputeActivities):
    def __init__(self, books: DisputeBooks, archive: EvidenceArchive) -> None:
        self._books = books
        self._archive = archive

    @activity.defn(name="disputes.open")
    async def open(self, opening: DisputeOpening) -> DisputeOpened:
        with translated():
            return await self._books.open(opening)

    @activity.defn(name="disputes.record")
    async def record(self, change: DisputeChange) -> None:
        with translated():
            await self._books.record(change)

    @activity.defn(name="disputes.note")
    async def note(self, record: NoticeRecord) -> None:
        with translated():
            await self._books.note(record)

    @activity.defn(name="documents.freeze")
    async def freeze(self, order: FreezeOrder) -> FrozenEvidence:
        with translated():
            return await self._archive.freeze(order.dispute_id, order.submission)
