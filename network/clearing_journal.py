"""What of our journal belongs into the network's clearing file of a day.

The day is the one that the host named in its acknowledgement (DE15), kept in the journal with the answer. What was
reversed before its day was closed is in no file; what was reversed on a later day is in the file of its own day and
taken back in that of the reversal's.

What the host never answered has no day. It is listed as not certain, because the host may have taken it: a request on
the UTC day of its sending and on the one after it, unless its reversal was acknowledged by then; an advice, which is
repeated until it is acknowledged, on all days from its first sending on.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.clearing import Clearable, ClearablePage, ClearingKind
from domain.currency import Currency
from domain.money import Money
from network.errors import JournalUnavailable

_MAX_PAGE: Final = 10_000

# Each branch of `candidates` has an index of its own. `undone` is what became of an item's reversals: the day on which
# one was acknowledged, and whether one still may be.
_CLEARABLE: Final = text("""
WITH candidates AS (
    SELECT * FROM network.messages
    WHERE settlement_date = :day AND kind IN ('sale', 'capture', 'refund', 'reverse') AND amount_minor > 0
    UNION ALL
    SELECT * FROM network.messages
    WHERE kind IN ('sale', 'capture', 'refund', 'reverse') AND state IN ('sending', 'unanswered') AND amount_minor > 0
        AND coalesce(late_response_code, '00') = '00'
        AND sent_at < CAST(:day AS date)::timestamp AT TIME ZONE 'UTC' + interval '1 day'
        AND (kind IN ('capture', 'reverse')
            OR sent_at >= CAST(:day AS date)::timestamp AT TIME ZONE 'UTC' - interval '1 day')
), items AS (
    SELECT item.effect_key, CASE item.kind WHEN 'refund' THEN 'refund' ELSE 'presentment' END AS kind,
        item.payment_id, item.rrn, item.stan, coalesce(captured.approval_code, item.approval_code) AS approval_code,
        item.amount_minor, item.currency,
        item.settlement_date IS NOT NULL AND undone.pending IS NOT TRUE AS certain, NULL AS chargeback_id
    FROM candidates AS item
    LEFT JOIN network.messages AS captured
        ON captured.effect_key = item.original_effect_key AND item.kind = 'capture'
    LEFT JOIN LATERAL (
        SELECT min(reversal.settlement_date) AS day,
            bool_or(reversal.state IN ('created', 'sending', 'unanswered')) AS pending
        FROM network.messages AS reversal
        WHERE reversal.original_effect_key = item.effect_key AND reversal.kind = 'reverse'
    ) AS undone ON true
    WHERE item.kind <> 'reverse' AND (undone.day IS NULL OR undone.day > :day)
    UNION ALL
    SELECT reversal.effect_key,
        CASE item.kind WHEN 'refund' THEN 'refund_reversal' ELSE 'presentment_reversal' END, reversal.payment_id,
        reversal.rrn, reversal.stan, item.approval_code, reversal.amount_minor, reversal.currency,
        item.settlement_date IS NOT NULL AND reversal.settlement_date IS NOT NULL, NULL
    FROM candidates AS reversal
    JOIN network.messages AS item ON item.effect_key = reversal.original_effect_key
    WHERE reversal.kind = 'reverse' AND item.kind IN ('sale', 'refund')
        AND coalesce(item.response_code, item.late_response_code, '00') = '00'
        AND coalesce(item.settlement_date, (item.sent_at AT TIME ZONE 'UTC')::date) < :day
    UNION ALL
    SELECT 'chargeback:' || chargeback_id || ':' || stage || ':' || extract(epoch FROM issued_at)::bigint,
        CASE stage WHEN 'opened' THEN 'chargeback' ELSE 'chargeback_reversal' END, payment_id, rrn, NULL, NULL,
        amount_minor, currency, true, chargeback_id
    FROM network.chargeback_notices
    WHERE settlement_date = :day
)
SELECT * FROM items WHERE effect_key > :after ORDER BY effect_key LIMIT :limit
""")


async def clearable(engine: AsyncEngine, day: date, after: str = "", limit: int = 1_000) -> ClearablePage:
    """At most `limit` (up to 10,000) of our items of the file of `day`, those whose keys follow `after`.

    Captures and approved sales and refunds, what was taken back of an earlier day, and the network's chargebacks.

    Raises:
        ValueError: no such page.
        JournalUnavailable: PostgreSQL did not answer.
    """
    if not 0 < limit <= _MAX_PAGE:
        raise ValueError(f"a page has 1 to {_MAX_PAGE} items")
    given = {"day": day, "after": after, "limit": limit + 1}
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(_CLEARABLE, given)).mappings().all()
    except (DBAPIError, PoolTimeout) as error:
        if isinstance(error, IntegrityError):
            raise
        raise JournalUnavailable(f"the journal does not answer ({type(error).__name__})") from None
    items = tuple(_item(row) for row in rows[:limit])
    return ClearablePage(items, items[-1].effect_key if len(rows) > limit else None)


def _item(row: RowMapping | Any) -> Clearable:
    return Clearable(
        row["effect_key"],
        ClearingKind(row["kind"]),
        row["payment_id"],
        row["rrn"],
        row["stan"],
        row["approval_code"],
        Money(row["amount_minor"], Currency[row["currency"]]),
        row["certain"],
        row["chargeback_id"],
    )
