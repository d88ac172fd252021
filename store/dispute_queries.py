"""Reading what disputes' workflows wrote. A dispute and its files are read by one statement, so they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from store.models.disputes import Dispute
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


# `files`: the rows of `platform.dispute_files` as JSON objects, the oldest first.
_COLUMNS = (
    *Dispute.__table__.columns,
    literal_column(
        "(SELECT coalesce(jsonb_agg(to_jsonb(file) ORDER BY file.created_at, file.id), '[]')"
        " FROM platform.dispute_files AS file WHERE file.dispute_id = platform.disputes.id)",
        JSONB,
    ).label("files"),
)


async def find_dispute(connection: AsyncConnection, dispute_id: str) -> Row | None:
    query = select(*_COLUMNS).where(Dispute.id == dispute_id)
    return (await connection.execute(query)).mappings().one_or_none()


async def disputed_minor(connection: AsyncConnection, payment_id: str) -> int:
    """What disputes have taken of the payment and it had, in minor units: none of it can be refunded."""
    taken = select(func.coalesce(func.sum(Dispute.taken_minor - Dispute.excess_minor), 0))
    return int(await connection.scalar(taken.where(Dispute.payment_id == payment_id, Dispute.taken_minor > 0)) or 0)


async def list_disputes(
    connection: AsyncConnection, wanted: DisputeFilter, page: PageRequest
) -> tuple[Sequence[Row], bool]:
    """One page, newest first, and whether there are more. A cursor outside the filter gives an empty page."""
    query = select(*_COLUMNS).where(*_conditions(wanted))
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
