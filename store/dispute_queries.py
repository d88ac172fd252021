"""Reading what disputes' workflows wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.models.disputes import Dispute, DisputeFile
from store.queries import PageRequest, Row


@dataclass(frozen=True, slots=True)
class DisputeFilter:
    """What to list."""

    account_id: str
    payment_id: str | None = None
    status: str | None = None
    due_before: datetime | None = None
    created_gte: datetime | None = None
    created_lt: datetime | None = None


async def find_dispute(connection: AsyncConnection, dispute_id: str) -> Row | None:
    query = select(*Dispute.__table__.columns).where(Dispute.id == dispute_id)
    return (await connection.execute(query)).mappings().one_or_none()


async def list_disputes(
    connection: AsyncConnection, wanted: DisputeFilter, page: PageRequest
) -> tuple[Sequence[Row], bool]:
    """One page, newest first, and whether there are more. A cursor outside the filter gives an empty page."""
    query = select(*Dispute.__table__.columns).where(*_conditions(wanted))
    backwards = page.ending_before is not None
    cursor_id = page.starting_after or page.ending_before
    if cursor_id is not None:
        position = select(Dispute.created_at, Dispute.id).where(Dispute.id == cursor_id, *_conditions(wanted))
        found = (await connection.execute(position)).one_or_none()
        if found is None:
            return [], False
        key, bound = tuple_(Dispute.created_at, Dispute.id), tuple_(found.created_at, found.id)
        query = query.where(key > bound if backwards else key < bound)
    order = (
        (Dispute.created_at.asc(), Dispute.id.asc()) if backwards else (Dispute.created_at.desc(), Dispute.id.desc())
    )
    rows = (await connection.execute(query.order_by(*order).limit(page.limit + 1))).mappings().all()
    shown = list(rows[: page.limit])
    return (shown[::-1] if backwards else shown), len(rows) > page.limit


def _conditions(wanted: DisputeFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Dispute.account_id == wanted.account_id]
    if wanted.payment_id is not None:
        conditions.append(Dispute.payment_id == wanted.payment_id)
    if wanted.status is not None:
        conditions.append(Dispute.status == wanted.status)
    if wanted.due_before is not None:
        conditions.append(Dispute.due_by < wanted.due_before)
    if wanted.created_gte is not None:
        conditions.append(Dispute.created_at >= wanted.created_gte)
    if wanted.created_lt is not None:
        conditions.append(Dispute.created_at < wanted.created_lt)
    return conditions


async def list_files(connection: AsyncConnection, dispute_id: str) -> Sequence[Row]:
    """The files of a dispute's evidence, the oldest first."""
    query = (
        select(*DisputeFile.__table__.columns)
        .where(DisputeFile.dispute_id == dispute_id)
        .order_by(DisputeFile.created_at, DisputeFile.id)
    )
    return (await connection.execute(query)).mappings().all()


async def files_of(connection: AsyncConnection, dispute_ids: Sequence[str]) -> dict[str, list[Row]]:
    """The files of several disputes, by dispute, the oldest first."""
    query = (
        select(*DisputeFile.__table__.columns)
        .where(DisputeFile.dispute_id.in_(dispute_ids))
        .order_by(DisputeFile.created_at, DisputeFile.id)
    )
    found: dict[str, list[Row]] = {identifier: [] for identifier in dispute_ids}
    for row in (await connection.execute(query)).mappings():
        found[row["dispute_id"]].append(row)
    return found
