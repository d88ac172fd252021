"""Releasing holds whose time has passed. Whether a hold has expired does not depend on it: posts are refused anyway."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import effect_key
from ledger.errors import PendingTransferAlreadyPosted, PendingTransferAlreadyVoided, PendingTransferExpired
from ledger.transfers import ExpirePending, commit
from store.models.ledger import LedgerHold, LedgerTransfer


async def expire_due(engine: AsyncEngine, limit: int = 100) -> list[str]:
    """Expires up to `limit` overdue holds, oldest first, and returns the ids of those that this call released.

    Each is a transaction of its own, so one slow account delays only its own holds. Several callers may run at once.
    """
    due = (
        select(LedgerHold.pending_id, LedgerTransfer.reference)
        .join_from(LedgerHold, LedgerTransfer, LedgerTransfer.id == LedgerHold.pending_id)
        .where(LedgerHold.state == "pending", LedgerHold.expires_at <= func.clock_timestamp())
        .order_by(LedgerHold.expires_at)
        .limit(limit)
    )
    async with engine.connect() as connection:
        overdue = (await connection.execute(due)).all()
    return [hold.pending_id for hold in overdue if await _expire(engine, hold.pending_id, hold.reference)]


async def _expire(engine: AsyncEngine, pending_id: str, reference: str) -> bool:
    step = ExpirePending(effect_key(pending_id, "expire"), pending_id, reference)
    try:
        (applied,) = await commit(engine, [step])
    except (PendingTransferAlreadyPosted, PendingTransferAlreadyVoided, PendingTransferExpired):
        # Decided just before its time ran out, or expired under another id, by a transaction that committed meanwhile.
        return False
    return not applied.replayed
