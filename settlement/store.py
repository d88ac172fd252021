"""Runs, lines, what was expected, breaks and payouts in PostgreSQL. Every function may be called again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.clearing import Clearable, ClearingFile, ClearingKind, ClearingRecord
from domain.currency import Currency
from domain.errors import DurapayError, NotFound
from domain.ids import BREAK, PAYOUT, derived_id
from domain.money import Money
from domain.postings import BreakAccount, Excess, Payout
from domain.settlement import (
    Break,
    BreakDecision,
    BreakKind,
    BreakPart,
    BreakStatus,
    Expected,
    Verdict,
    match_key,
    uncleared,
)


class FileChanged(DurapayError):
    """The network gave another file for a day that was settled with a first one: an operator has to ask it why."""


class BreakEnded(DurapayError):
    """The break was healed, or was resolved in another way."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, and what of ours it was found to belong to."""

    record: ClearingRecord
    expected: Expected | None


async def begin(connection: AsyncConnection, file: ClearingFile) -> None:
    """Records the day's file.

    Raises:
        FileChanged: the day has another one.
    """
    totals = [
        {
            "currency": total.currency,
            "records": total.records,
            "owed_to_us_minor": total.owed_to_us_minor,
            "owed_by_us_minor": total.owed_by_us_minor,
        }
        for total in file.totals
    ]
    parameters = {
        "day": file.day,
        "file_id": file.file_id,
        "sha256": file.sha256,
        "records": file.records,
        "totals": json.dumps(totals),
    }
    found = await connection.execute(_BEGIN, parameters)
    if found.scalar_one() != file.sha256:
        raise FileChanged(f"the clearing file of {file.day} is not the one that the day was settled with")


async def expect(connection: AsyncConnection, day: date, items: Sequence[Clearable]) -> None:
    """Notes what of ours has to be in the day's file. An item that was uncertain before may be certain now."""
    if not items:
        return
    rows = [
        {
            "effect_key": item.effect_key,
            "day": day,
            "kind": item.kind.value,
            "match_key": match_key(item.kind, item.rrn, item.stan, item.chargeback_id),
            "payment_id": item.payment_id,
            "amount_minor": item.money.amount_minor,
            "currency": item.money.currency.value,
            "certain": item.certain,
        }
        for item in items
    ]
    await connection.execute(_EXPECT, rows)


async def note(connection: AsyncConnection, records: Sequence[ClearingRecord]) -> None:
    """Keeps lines of a file as they came."""
    if not records:
        return
    rows = [
        {
            "day": record.day,
            "line": record.line,
            "kind": record.kind.value,
            "match_key": match_key(record.kind, record.rrn, record.stan, record.chargeback_id),
            "amount_minor": record.money.amount_minor,
            "currency": record.money.currency.value,
            "reason_code": record.reason_code,
            "occurred_at": record.occurred_at,
        }
        for record in records
    ]
    await connection.execute(_NOTE, rows)


async def unjudged(connection: AsyncConnection, day: date, limit: int) -> list[Line]:
    """The next lines of the day that were not judged, each with what it may belong to."""
    return [_line(row) for row in await connection.execute(_UNJUDGED, {"day": day, "limit": limit})]


async def judged(connection: AsyncConnection, line: Line, verdict: Verdict | None) -> None:
    """Records what a line is, opens its break if it is one, and heals the break of its absence. `None`: a fee."""
    record, mine = line.record, line.expected
    belongs = verdict is not None and verdict.difference not in (BreakKind.MISSING_HERE, BreakKind.DUPLICATE)
    effect_key = mine.effect_key if mine is not None and belongs else None
    outcome = "fee" if verdict is None else verdict.difference or "matched"
    parameters = {"day": record.day, "line": record.line, "verdict": outcome, "effect_key": effect_key}
    await connection.execute(_JUDGED, parameters)
    if effect_key is not None:
        await connection.execute(_HEAL, {"effect_key": effect_key})
    if verdict is not None and verdict.difference is not None:
        identifier = derived_id(BREAK, str(record.day), str(record.line))
        await _open(connection, identifier, record.day, verdict.difference, verdict.parts, mine, record.line)


async def open_missing(connection: AsyncConnection, day: date) -> int:
    """Opens a break for everything certain of the day that no line has cleared; how many there are of it."""
    rows = (await connection.execute(_MISSING, {"day": day})).all()
    for row in rows:
        mine = _expected(row)
        parts = (uncleared(mine, mine.money.amount_minor),)
        identifier = derived_id(BREAK, str(day), mine.effect_key)
        await _open(connection, identifier, day, BreakKind.MISSING_THERE, parts, mine)
    return len(rows)


async def _open(
    connection: AsyncConnection,
    identifier: str,
    day: date,
    kind: BreakKind,
    parts: Sequence[BreakPart],
    mine: Expected | None,
    line: int | None = None,
) -> None:
    document = [
        {
            "account": part.account,
            "excess": part.excess,
            "amount_minor": part.money.amount_minor,
            "currency": part.money.currency,
        }
        for part in parts
    ]
    parameters = {
        "id": identifier,
        "day": day,
        "kind": kind.value,
        "line": line,
        "effect_key": mine.effect_key if mine is not None else None,
        "payment_id": mine.payment_id if mine is not None else None,
        "parts": json.dumps(document),
    }
    await connection.execute(_OPEN_BREAK, parameters)


async def find_break(connection: AsyncConnection, break_id: str) -> Break:
    """
    Raises:
        NotFound: there is no such break.
    """
    row = (await connection.execute(_BREAK, {"id": break_id})).one_or_none()
    if row is None:
        raise NotFound("break", break_id)
    return as_break(row)


async def open_breaks(connection: AsyncConnection, day: date, after: str, limit: int) -> list[Break]:
    """Open breaks of the day in the order of their ids, after `after`."""
    rows = await connection.execute(_OPEN_BREAKS, {"day": day, "after": after, "limit": limit})
    return [as_break(row) for row in rows]


async def close_break(connection: AsyncConnection, decision: BreakDecision) -> None:
    """
    Raises:
        BreakEnded: it has ended otherwise.
    """
    parameters = {
        "id": decision.break_id,
        "outcome": decision.outcome.value,
        "reason": decision.reason,
        "resolved_by": list(decision.operators),
    }
    if (await connection.execute(_RESOLVE, parameters)).one_or_none() is None:
        raise BreakEnded(f"the break {decision.break_id} has ended otherwise")


@dataclass(frozen=True, slots=True)
class Cleared:
    """A line that belongs to one of our effects, for the payment's workflow to hear of."""

    line: int
    kind: ClearingKind
    effect_key: str
    payment_id: str
    amount_minor: int
    reason_code: str | None


async def cleared(connection: AsyncConnection, day: date, after: int, limit: int) -> list[Cleared]:
    """Lines that cleared something of ours, in the order of the file."""
    rows = await connection.execute(_CLEARED, {"day": day, "after": after, "limit": limit})
    return [
        Cleared(
            row.line, ClearingKind(row.kind), row.effect_key, row.payment_id, int(row.amount_minor), row.reason_code
        )
        for row in rows
    ]


async def due_payouts(connection: AsyncConnection, day: date) -> list[Payout]:
    """What merchants get now: what was cleared for them so far and not paid out, at most what they are owed."""
    rows = await connection.execute(_DUE, {"day": day})
    return [
        Payout(
            payout_id=derived_id(PAYOUT, str(day), row.account_id, row.merchant_id, row.currency),
            account_id=row.account_id,
            merchant_id=row.merchant_id,
            money=Money(int(row.amount_minor), Currency[row.currency]),
        )
        for row in rows
    ]


async def add_payout(connection: AsyncConnection, day: date, payout: Payout) -> None:
    await connection.execute(
        _ADD_PAYOUT,
        {
            "id": payout.payout_id,
            "day": day,
            "account_id": payout.account_id,
            "merchant_id": payout.merchant_id,
            "currency": payout.money.currency.value,
            "amount_minor": payout.money.amount_minor,
        },
    )


async def reserved_payouts(connection: AsyncConnection, day: date) -> list[Payout]:
    """Payouts of the day and those before it that were begun and are not known to be paid, the oldest first."""
    rows = await connection.execute(_RESERVED, {"day": day})
    return [
        Payout(row.id, row.account_id, row.merchant_id, Money(int(row.amount_minor), Currency[row.currency]))
        for row in rows
    ]


async def paid(connection: AsyncConnection, payout: Payout) -> None:
    await connection.execute(_PAID, {"id": payout.payout_id})


async def finish(connection: AsyncConnection, day: date) -> Row[Any]:
    """Ends the run; its file, counts by verdict, open breaks, payouts, and how many wait to be covered."""
    return (await connection.execute(_FINISH, {"day": day})).one()


def as_break(row: Any) -> Break:
    return Break(
        break_id=row.id,
        day=row.day,
        kind=BreakKind(row.kind),
        status=BreakStatus(row.status),
        parts=tuple(
            BreakPart(
                BreakAccount(part["account"]),
                Excess(part["excess"]),
                Money(part["amount_minor"], Currency[part["currency"]]),
            )
            for part in row.parts
        ),
        opened_at=row.opened_at,
        line=row.line,
        effect_key=row.effect_key,
        payment_id=row.payment_id,
    )


def _line(row: Any) -> Line:
    record = ClearingRecord(
        day=row.day,
        line=row.line,
        kind=ClearingKind(row.kind),
        money=Money(int(row.amount_minor), Currency[row.currency]),
        occurred_at=row.occurred_at,
        reason_code=row.reason_code,
    )
    return Line(record, None if row.expected_key is None else _expected(row))


def _expected(row: Any) -> Expected:
    return Expected(
        effect_key=row.expected_key,
        kind=ClearingKind(row.expected_kind),
        payment_id=row.payment_id,
        money=Money(int(row.expected_minor), Currency[row.expected_currency]),
        settled=row.settled,
        written_off=row.written_off,
    )


_BEGIN = text("""
INSERT INTO settlement.runs AS run (day, file_id, sha256, records, totals)
VALUES (:day, :file_id, :sha256, :records, CAST(:totals AS jsonb))
ON CONFLICT (day) DO UPDATE SET day = run.day
RETURNING sha256
""")

_EXPECT = text("""
INSERT INTO settlement.expected AS known
    (effect_key, day, kind, match_key, payment_id, amount_minor, currency, certain)
VALUES (:effect_key, :day, :kind, :match_key, :payment_id, :amount_minor, :currency, :certain)
ON CONFLICT (effect_key) DO UPDATE SET certain = true, day = excluded.day
    WHERE excluded.certain AND NOT known.certain
""")

_NOTE = text("""
INSERT INTO settlement.lines (day, line, kind, match_key, amount_minor, currency, reason_code, occurred_at)
VALUES (:day, :line, :kind, :match_key, :amount_minor, :currency, :reason_code, :occurred_at)
ON CONFLICT (day, line) DO NOTHING
""")

_UNJUDGED = text("""
SELECT
    line.day, line.line, line.kind, line.amount_minor, line.currency, line.occurred_at, line.reason_code,
    expected.effect_key AS expected_key, expected.kind AS expected_kind, expected.payment_id,
    expected.amount_minor AS expected_minor, expected.currency AS expected_currency,
    EXISTS (
        SELECT FROM settlement.lines other
        WHERE other.effect_key = expected.effect_key AND other.kind = line.kind
            AND other.verdict IN ('matched', 'amount', 'currency')) AS settled,
    EXISTS (
        SELECT FROM settlement.breaks break
        WHERE break.effect_key = expected.effect_key AND break.kind = 'missing_there' AND break.status = 'resolved'
    ) AS written_off
FROM settlement.lines line
LEFT JOIN LATERAL (
    SELECT * FROM settlement.expected WHERE expected.match_key = line.match_key ORDER BY day DESC LIMIT 1
) expected ON true
WHERE line.day = :day AND line.verdict IS NULL
ORDER BY line.line LIMIT :limit
""")

_JUDGED = text("""
UPDATE settlement.lines SET verdict = :verdict, effect_key = :effect_key WHERE day = :day AND line = :line
""")

_HEAL = text("""
UPDATE settlement.breaks SET status = 'healed', closed_at = now()
WHERE effect_key = :effect_key AND kind = 'missing_there' AND status = 'open'
""")

_MISSING = text("""
SELECT
    expected.effect_key AS expected_key, expected.kind AS expected_kind, expected.payment_id,
    expected.amount_minor AS expected_minor, expected.currency AS expected_currency,
    false AS settled, false AS written_off
FROM settlement.expected
WHERE day = :day AND certain AND NOT EXISTS (
    SELECT FROM settlement.lines line
    WHERE line.effect_key = expected.effect_key AND line.kind = expected.kind)
ORDER BY expected.effect_key
""")

_OPEN_BREAK = text("""
INSERT INTO settlement.breaks (id, day, kind, line, effect_key, payment_id, parts)
VALUES (:id, :day, :kind, :line, :effect_key, :payment_id, CAST(:parts AS jsonb))
ON CONFLICT (id) DO NOTHING
""")

_BREAK = text("SELECT * FROM settlement.breaks WHERE id = :id")

_OPEN_BREAKS = text("""
SELECT * FROM settlement.breaks WHERE day = :day AND status = 'open' AND id > :after ORDER BY id LIMIT :limit
""")

_RESOLVE = text("""
WITH ended AS (
    UPDATE settlement.breaks SET
        status = 'resolved', outcome = :outcome, reason = :reason, resolved_by = CAST(:resolved_by AS text[]),
        closed_at = now()
    WHERE id = :id AND status = 'open'
    RETURNING id
)
SELECT id FROM ended
UNION ALL
SELECT id FROM settlement.breaks WHERE id = :id AND status = 'resolved' AND outcome = :outcome
""")

_CLEARED = text("""
SELECT line.line, line.kind, line.effect_key, expected.payment_id, line.amount_minor, line.reason_code
FROM settlement.lines line JOIN settlement.expected ON expected.effect_key = line.effect_key
WHERE line.day = :day AND line.line > :after ORDER BY line.line LIMIT :limit
""")

# Sums over the whole past, so that what one day could not pay is paid on the next. Fees were taken from the merchant
# with the capture, before anything was cleared.
_DUE = text("""
WITH cleared AS (
    SELECT
        payment.account_id, payment.merchant ->> 'merchant_id' AS merchant_id, line.currency,
        sum(CASE WHEN line.kind IN (
            'presentment', 'refund_reversal', 'refund_returned', 'chargeback_reversal')
            THEN least(line.amount_minor, expected.amount_minor)
            ELSE -line.amount_minor END) AS cleared_minor,
        array_agg(DISTINCT payment.id) AS payments
    FROM settlement.lines line
    JOIN settlement.expected ON expected.effect_key = line.effect_key
    JOIN platform.payments payment ON payment.id = expected.payment_id
    WHERE line.day <= :day AND line.verdict IN ('matched', 'amount')
    GROUP BY 1, 2, 3
), due AS (
    SELECT
        cleared.account_id, cleared.merchant_id, cleared.currency,
        least(
            cleared.cleared_minor
            - (SELECT coalesce(sum(amount_minor), 0) FROM ledger.transfers
                WHERE code = 'platform_fee' AND reference = ANY (cleared.payments))
            - (SELECT coalesce(sum(amount_minor), 0) FROM settlement.payouts payout
                WHERE (payout.account_id, payout.merchant_id, payout.currency)
                    = (cleared.account_id, cleared.merchant_id, cleared.currency)),
            account.credits_posted - account.debits_posted - account.debits_pending) AS amount_minor
    FROM cleared
    JOIN ledger.accounts account ON account.id =
        'merchant:' || cleared.account_id || ':' || cleared.merchant_id || ':payable:' || cleared.currency
)
SELECT * FROM due
WHERE amount_minor > 0 AND NOT EXISTS (
    SELECT FROM settlement.payouts payout
    WHERE (payout.day, payout.account_id, payout.merchant_id, payout.currency)
        = (:day, due.account_id, due.merchant_id, due.currency))
ORDER BY account_id, merchant_id, currency
""")

_ADD_PAYOUT = text("""
INSERT INTO settlement.payouts (id, day, account_id, merchant_id, currency, amount_minor, status)
VALUES (:id, :day, :account_id, :merchant_id, :currency, :amount_minor, 'reserved')
ON CONFLICT DO NOTHING
""")

_RESERVED = text("SELECT * FROM settlement.payouts WHERE day <= :day AND status = 'reserved' ORDER BY day, id")

_PAID = text("UPDATE settlement.payouts SET status = 'paid' WHERE id = :id")

_FINISH = text("""
UPDATE settlement.runs SET finished_at = coalesce(finished_at, now()) WHERE day = :day
RETURNING
    file_id, records,
    (SELECT coalesce(jsonb_object_agg(verdict, lines), '{}') FROM (
        SELECT verdict, count(*) AS lines FROM settlement.lines WHERE day = :day GROUP BY 1) counted) AS verdicts,
    (SELECT count(*) FROM settlement.breaks WHERE day = :day) AS breaks,
    (SELECT count(*) FROM settlement.breaks WHERE day = :day AND status = 'open') AS open_breaks,
    (SELECT count(*) FROM settlement.payouts WHERE day = :day) AS payouts,
    (SELECT count(*) FROM settlement.payouts WHERE day <= :day AND status = 'reserved') AS payouts_waiting
""")
