"""Reading settlement: days, breaks with their age, payouts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

_DAYS = text("""
SELECT
    run.*,
    (SELECT coalesce(jsonb_object_agg(verdict, lines), '{}') FROM (
        SELECT coalesce(verdict, 'unjudged') AS verdict, count(*) AS lines
        FROM settlement.lines WHERE lines.day = run.day GROUP BY 1) counted) AS verdicts,
    (SELECT count(*) FROM settlement.breaks WHERE breaks.day = run.day AND status = 'open') AS open_breaks,
    (SELECT count(*) FROM settlement.payouts WHERE payouts.day = run.day) AS payouts,
    (SELECT count(*) FROM settlement.payouts WHERE payouts.day <= run.day AND status = 'reserved') AS payouts_waiting,
    (SELECT coalesce(jsonb_agg(of_currency ORDER BY of_currency ->> 'currency'), '[]') FROM (
        SELECT total || jsonb_build_object(
            'net_minor', (total ->> 'owed_to_us_minor')::bigint - (total ->> 'owed_by_us_minor')::bigint,
            'matched_minor', (SELECT coalesce(sum(amount_minor), 0) FROM settlement.lines
                WHERE (lines.day, lines.currency) = (run.day, total ->> 'currency') AND verdict = 'matched'),
            'fees_minor', (SELECT coalesce(sum(amount_minor), 0) FROM settlement.lines
                WHERE (lines.day, lines.currency) = (run.day, total ->> 'currency') AND verdict = 'fee'),
            'open_breaks_minor', (SELECT coalesce(sum((part ->> 'amount_minor')::bigint), 0)
                FROM settlement.breaks, jsonb_array_elements(breaks.parts) AS part
                WHERE breaks.day = run.day AND status = 'open' AND part ->> 'currency' = total ->> 'currency'),
            'paid_out_minor', (SELECT coalesce(sum(amount_minor), 0) FROM settlement.payouts
                WHERE (payouts.day, payouts.currency) = (run.day, total ->> 'currency') AND status = 'paid')
        ) AS of_currency FROM jsonb_array_elements(run.totals) AS total) AS summed) AS currencies
FROM settlement.runs run
WHERE (CAST(:before AS date) IS NULL OR run.day < :before) AND (CAST(:only AS date) IS NULL OR run.day = :only)
ORDER BY run.day DESC LIMIT :limit
""")

_BREAKS = text("""
SELECT break.*, coalesce(break.closed_at, now()) - break.opened_at AS age
FROM settlement.breaks break
WHERE (CAST(:status AS text) IS NULL OR status = :status) AND (CAST(:after AS text) IS NULL OR id > :after)
ORDER BY id LIMIT :limit
""")

_OPEN_BREAKS_OF = text("""
SELECT * FROM settlement.breaks WHERE day = :day AND status = 'open' ORDER BY opened_at, id
""")

_PAYOUTS = text("""
SELECT * FROM settlement.payouts
WHERE account_id = :account AND (CAST(:after AS text) IS NULL OR id > :after)
ORDER BY id LIMIT :limit
""")


async def list_days(connection: AsyncConnection, limit: int, before: date | None) -> tuple[Sequence[RowMapping], bool]:
    """Days, newest first, and whether there are older ones."""
    parameters = {"limit": limit + 1, "before": before, "only": None}
    return _page((await connection.execute(_DAYS, parameters)).mappings().all(), limit)


async def find_day(connection: AsyncConnection, day: date) -> RowMapping | None:
    parameters = {"limit": 1, "before": None, "only": day}
    return (await connection.execute(_DAYS, parameters)).mappings().one_or_none()


async def list_breaks(
    connection: AsyncConnection, limit: int, after: str | None, status: str | None
) -> tuple[Sequence[RowMapping], bool]:
    """Breaks in the order of their ids, each with its age, and whether there are more."""
    parameters = {"limit": limit + 1, "after": after, "status": status}
    return _page((await connection.execute(_BREAKS, parameters)).mappings().all(), limit)


async def open_breaks_of(connection: AsyncConnection, day: date) -> Sequence[RowMapping]:
    """The open breaks of a day, the oldest first."""
    return (await connection.execute(_OPEN_BREAKS_OF, {"day": day})).mappings().all()


async def list_payouts(
    connection: AsyncConnection, account_id: str, limit: int, after: str | None
) -> tuple[Sequence[RowMapping], bool]:
    """An account's payouts in the order of their ids, and whether there are more."""
    parameters = {"limit": limit + 1, "after": after, "account": account_id}
    return _page((await connection.execute(_PAYOUTS, parameters)).mappings().all(), limit)


def _page(rows: Sequence[RowMapping], limit: int) -> tuple[Sequence[RowMapping], bool]:
    return rows[:limit], len(rows) > limit
