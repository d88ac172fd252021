"""Payment methods and the verifications of cards: single statements, which change nothing when they come twice."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import EVENT, derived_id
from domain.verifications import VerificationOpening, VerificationResult
from store.models.platform import PaymentMethod
from store.queries import PAYMENT_METHOD_COLUMNS, PageRequest, Row

# How many days before the last day of its expiry month a card's user is reminded of it.
_FIRST_REMINDER_DAYS: Final = 30
_LAST_REMINDER_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class VerificationLimits:
    """How often within 24 hours issuers are asked about one card, whoever added it, and for one user."""

    per_card: int
    per_user: int


async def list_payment_methods(
    connection: AsyncConnection, user_id: str, page: PageRequest
) -> tuple[Sequence[Row], bool]:
    """One page of a user's methods that were not removed, newest first, and whether there are more.

    A cursor that is not the user's gives an empty page.
    """
    mine = PaymentMethod.user_id == user_id
    query = select(*PAYMENT_METHOD_COLUMNS).where(mine, PaymentMethod.status != "removed")
    key = tuple_(PaymentMethod.created_at, PaymentMethod.id)
    cursor_id = page.starting_after or page.ending_before
    if cursor_id is not None:
        cursor = select(PaymentMethod.created_at, PaymentMethod.id).where(mine, PaymentMethod.id == cursor_id)
        found = (await connection.execute(cursor)).one_or_none()
        if found is None:
            return [], False
        bound = tuple_(found.created_at, found.id)
        query = query.where(key < bound if page.starting_after else key > bound)
    backwards = page.ending_before is not None
    columns = (PaymentMethod.created_at, PaymentMethod.id)
    order = [column.asc() if backwards else column.desc() for column in columns]
    rows = (await connection.execute(query.order_by(*order).limit(page.limit + 1))).mappings().all()
    shown = list(rows[: page.limit])
    return (shown[::-1] if backwards else shown), len(rows) > page.limit


async def set_label(connection: AsyncConnection, payment_method_id: str, label: str | None) -> None:
    await connection.execute(_LABEL, {"id": payment_method_id, "label": label})


async def set_default(connection: AsyncConnection, user_id: str, payment_method_id: str, *, default: bool) -> bool:
    """Makes an active method the user's default, the only one, or no default; False if it is not active (any more)."""
    # Two that become the default at once wait for each other here.
    await connection.execute(_LOCK_USER, {"user": user_id})
    if default:
        await connection.execute(_NO_OTHER_DEFAULT, {"user": user_id, "id": payment_method_id})
    changed = await connection.execute(_DEFAULT, {"id": payment_method_id, "default": default})
    return bool(changed.rowcount)


async def remove_payment_method(connection: AsyncConnection, payment_method_id: str) -> None:
    """From now on nothing is paid with it. Doing it again changes nothing."""
    row = (await connection.execute(_REMOVE, {"id": payment_method_id})).mappings().one_or_none()
    if row is not None:
        await _tell(connection, "payment_method.removed", row)


async def correct_bank_account(
    connection: AsyncConnection, bank_account_id: str, routing_number: str, account_type: str, last4: str
) -> None:
    """What the bank says of an account is shown from now on. Doing it again changes nothing."""
    values = {"id": bank_account_id, "routing": routing_number, "type": account_type, "last4": last4}
    row = (await connection.execute(_CORRECT, values)).mappings().one_or_none()
    if row is not None:
        await _tell(connection, "payment_method.corrected", row)


async def renew_payment_method(
    connection: AsyncConnection, payment_method_id: str, exp_year: int, exp_month: int
) -> None:
    """The card's later expiry. Doing it again changes nothing, nor does an expiry before the one that stands."""
    values = {"id": payment_method_id, "year": exp_year, "month": exp_month}
    row = (await connection.execute(_RENEW, values)).mappings().one_or_none()
    if row is not None:
        await _tell(connection, "payment_method.renewed", row)


async def remind_of_expiry(connection: AsyncConnection, today: date, limit: int = 500) -> int:
    """Leaves an event for cards that expire within 30 and within 7 days, once for each; how many it were.

    `today` is in UTC. A card is good through the last day of its month. Call it until it has nothing left to do.
    """
    until = today + timedelta(days=_FIRST_REMINDER_DAYS)
    values = {
        "today": today,
        "year": today.year,
        "month": today.month,
        "last_year": until.year,
        "last_month": until.month,
        "first": _FIRST_REMINDER_DAYS,
        "last": _LAST_REMINDER_DAYS,
        "limit": limit,
    }
    due = (await connection.execute(_EXPIRING, values)).mappings().all()
    for row in due:
        await connection.execute(_REMINDED, dict(row))
        await _tell(connection, "payment_method.expiring", row, days=row["days"])
    return len(due)


async def _tell(connection: AsyncConnection, event: str, row: Row, **more: Any) -> None:
    """Leaves an event of the method, whose row the caller's transaction has locked."""
    shown = ("account_id", "user_id", "brand", "last4", "exp_month", "exp_year")
    sequence = int(await connection.scalar(_NEXT, {"id": row["id"]}) or 0)
    await connection.execute(
        _EVENT,
        {
            "event_id": derived_id(EVENT, row["id"], str(sequence)),
            "id": row["id"],
            "sequence": sequence,
            "type": event,
            "data": json.dumps({name: row[name] for name in shown} | more),
        },
    )


async def open_verification(connection: AsyncConnection, opening: VerificationOpening) -> None:
    """Keeps that the card is being verified, and in whose name."""
    await connection.execute(
        _OPEN,
        {
            "id": opening.verification_id,
            "payment_method_id": opening.payment_method_id,
            "currency": opening.currency.value,
            "merchant": json.dumps(asdict(opening.merchant)),
            "requested_at": opening.requested_at,
        },
    )


async def count_verification(
    connection: AsyncConnection, verification_id: str, payment_method_id: str, limits: VerificationLimits
) -> int | None:
    """Counts a verification that is asked for; or in how many seconds there may be one, if there were enough within 24
    hours.

    One that was counted counts once. Whoever asks at the same moment waits for the caller's transaction to end.
    """
    values: dict[str, Any] = {"id": verification_id, "method": payment_method_id}
    subject = (await connection.execute(_COUNTED_BY, values)).one()
    # First the user, then the card, always: nobody waits for somebody who waits for them.
    for name in (subject.user_id, subject.card_reference):
        await connection.execute(_LOCK_COUNT, {"name": name})
    if (await connection.execute(_IS_COUNTED, values)).one_or_none() is not None:
        return None
    values |= {"user": subject.user_id, "card": subject.card_reference}
    values |= {"per_user": limits.per_user, "per_card": limits.per_card}
    wait_seconds: float | None = await connection.scalar(_WAIT, values)
    if wait_seconds is not None:
        return max(1, math.ceil(wait_seconds))
    await connection.execute(_COUNT, values)
    return None


async def record_verification(connection: AsyncConnection, result: VerificationResult) -> None:
    """Keeps what came of it. The first result stands."""
    await connection.execute(
        _RECORD,
        {
            "id": result.verification_id,
            "status": result.status.value,
            "decline_code": result.decline_code,
            "reason": result.reason,
            "attempts": result.attempts,
            "rrn": result.rrn,
            "approval_code": result.approval_code,
            "decided_at": result.decided_at,
        },
    )
    if result.checks is not None:
        checked = {"id": result.verification_id, "checked_at": result.decided_at, **asdict(result.checks)}
        await connection.execute(_CHECKED, checked)


async def find_verification(connection: AsyncConnection, verification_id: str) -> Row | None:
    return (await connection.execute(_ONE, {"id": verification_id})).mappings().one_or_none()


async def latest_verifications(connection: AsyncConnection, payment_method_ids: Sequence[str]) -> Mapping[str, Row]:
    """By payment method, the verification that was asked for last; a card that was never verified has none."""
    rows = (await connection.execute(_LATEST, {"ids": list(payment_method_ids)})).mappings()
    return {row["payment_method_id"]: row for row in rows}


async def list_verifications(
    connection: AsyncConnection, payment_method_id: str, limit: int, starting_after: str | None = None
) -> tuple[Sequence[Row], bool]:
    """One page, newest first, and whether there are more. A cursor that is not the card's gives an empty page."""
    values = {"id": payment_method_id, "limit": limit + 1, "after": starting_after}
    rows = (await connection.execute(_PAGE if starting_after else _FIRST_PAGE, values)).mappings().all()
    return rows[:limit], len(rows) > limit


_OPEN = text("""
INSERT INTO platform.card_verifications (id, payment_method_id, currency, merchant, requested_at)
VALUES (:id, :payment_method_id, :currency, CAST(:merchant AS jsonb), :requested_at)
ON CONFLICT (id) DO NOTHING
""")

_IS_COUNTED = text("SELECT true FROM platform.verification_counts WHERE verification_id = :id")

# The same card has the same payment account reference, whoever added it.
_COUNTED_BY = text("""
SELECT method.user_id, coalesce(pans.par, method.token_id) AS card_reference
FROM platform.payment_methods AS method
LEFT JOIN vault.tokens AS tokens ON tokens.token_id = method.token_id
LEFT JOIN vault.pans AS pans USING (fingerprint_version, fingerprint)
WHERE method.id = :method
""")

_COUNT = text("""
INSERT INTO platform.verification_counts (verification_id, user_id, card_reference) VALUES (:id, :user, :card)
""")

_LOCK_COUNT = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 17))")

# Until enough of the last 24 hours' are older than that, by the one of the two limits that takes longer.
_WAIT = text("""
SELECT extract(epoch FROM max(counted.counted_at) + interval '24 hours' - clock_timestamp()) FROM (
    (SELECT counted_at FROM platform.verification_counts
        WHERE user_id = :user AND counted_at > clock_timestamp() - interval '24 hours'
        ORDER BY counted_at DESC OFFSET :per_user - 1 LIMIT 1)
    UNION ALL
    (SELECT counted_at FROM platform.verification_counts
        WHERE card_reference = :card AND counted_at > clock_timestamp() - interval '24 hours'
        ORDER BY counted_at DESC OFFSET :per_card - 1 LIMIT 1)
) AS counted
""")

_RECORD = text("""
INSERT INTO platform.card_verification_results (
    verification_id, status, decline_code, reason, attempts, rrn, approval_code, decided_at)
VALUES (:id, :status, :decline_code, :reason, :attempts, :rrn, :approval_code, :decided_at)
ON CONFLICT (verification_id) DO NOTHING
""")

_CHECKED = text("""
INSERT INTO platform.card_checks (source_id, payment_method_id, cvc, address_line1, postal_code, checked_at)
SELECT id, payment_method_id, :cvc, :address_line1, :postal_code, :checked_at
FROM platform.card_verifications WHERE id = :id
ON CONFLICT (source_id) DO NOTHING
""")

_COLUMNS = """
    asked.id, asked.payment_method_id, asked.currency, asked.merchant, asked.requested_at,
    coalesce(result.status, 'processing') AS status, result.decline_code, result.reason, result.attempts, result.rrn,
    result.decided_at,
    (SELECT to_jsonb(checked) FROM platform.card_checks AS checked WHERE checked.source_id = asked.id) AS checks
FROM platform.card_verifications AS asked
LEFT JOIN platform.card_verification_results AS result ON result.verification_id = asked.id
"""

_ONE = text(f"SELECT {_COLUMNS} WHERE asked.id = :id")

_LATEST = text(f"""
SELECT DISTINCT ON (asked.payment_method_id) {_COLUMNS} WHERE asked.payment_method_id = ANY(:ids)
ORDER BY asked.payment_method_id, asked.requested_at DESC, asked.id DESC
""")

_FIRST_PAGE = text(f"""
SELECT {_COLUMNS} WHERE asked.payment_method_id = :id ORDER BY asked.requested_at DESC, asked.id DESC LIMIT :limit
""")

_PAGE = text(f"""
SELECT {_COLUMNS} WHERE asked.payment_method_id = :id AND (asked.requested_at, asked.id) < (
    SELECT requested_at, id FROM platform.card_verifications WHERE id = :after AND payment_method_id = :id)
ORDER BY asked.requested_at DESC, asked.id DESC LIMIT :limit
""")  # noqa: S608 - no part of it comes from outside

_LABEL = text("UPDATE platform.payment_methods SET label = :label WHERE id = :id AND status <> 'removed'")

_LOCK_USER = text("SELECT FROM platform.users WHERE id = :user FOR NO KEY UPDATE")

_NO_OTHER_DEFAULT = text("""
UPDATE platform.payment_methods SET is_default = false WHERE user_id = :user AND is_default AND id <> :id
""")

_DEFAULT = text("UPDATE platform.payment_methods SET is_default = :default WHERE id = :id AND status = 'active'")

_TOLD = "RETURNING id, account_id, user_id, brand, last4, exp_month, exp_year"

_REMOVE = text(f"""
UPDATE platform.payment_methods SET status = 'removed' WHERE id = :id AND status <> 'removed' {_TOLD}
""")  # noqa: S608 - no part of it comes from outside

_CORRECT = text(f"""
UPDATE platform.payment_methods SET routing_number = :routing, account_type = :type, last4 = :last4
WHERE bank_account_id = :id AND status <> 'removed'
    AND (routing_number, account_type, last4) IS DISTINCT FROM (:routing, :type, :last4) {_TOLD}
""")  # noqa: S608 - no part of it comes from outside

_RENEW = text(f"""
UPDATE platform.payment_methods SET exp_year = :year, exp_month = :month
WHERE id = :id AND status = 'active' AND (exp_year, exp_month) < (:year, :month) {_TOLD}
""")  # noqa: S608 - no part of it comes from outside

# The last day of the month is `left` days away. Other reminders that run now take other cards.
_EXPIRING = text("""
WITH expiring AS (
    SELECT id, (make_date(exp_year, exp_month, 1) + interval '1 month' - interval '1 day')::date - :today AS left_days
    FROM platform.payment_methods
    WHERE type = 'card' AND status = 'active'
        AND (exp_year, exp_month) BETWEEN (:year, :month) AND (:last_year, :last_month)
), wanted AS (
    SELECT id, CASE WHEN left_days <= :last THEN :last ELSE :first END AS days
    FROM expiring WHERE left_days BETWEEN 0 AND :first
)
SELECT method.id, account_id, user_id, brand, last4, exp_month, exp_year, wanted.days
FROM wanted JOIN platform.payment_methods AS method USING (id)
WHERE NOT EXISTS (
    SELECT FROM platform.card_expiry_reminders AS given
    WHERE given.payment_method_id = method.id AND given.days = wanted.days
        AND (given.exp_year, given.exp_month) = (method.exp_year, method.exp_month))
ORDER BY method.id LIMIT :limit
FOR NO KEY UPDATE OF method SKIP LOCKED
""")

_REMINDED = text("""
INSERT INTO platform.card_expiry_reminders (payment_method_id, exp_year, exp_month, days)
VALUES (:id, :exp_year, :exp_month, :days)
""")

_NEXT = text("SELECT coalesce(max(subject_sequence), 0) + 1 FROM platform.outbox WHERE subject_id = :id")

_EVENT = text("""
INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
VALUES (:event_id, :id, :sequence, :type, CAST(:data AS jsonb))
""")
