"""Payment methods and the verifications of cards: single statements, which change nothing when they come twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.verifications import VerificationOpening, VerificationResult
from store.queries import Row


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

_RECORD = text("""
INSERT INTO platform.card_verification_results (
    verification_id, status, decline_code, reason, attempts, rrn, approval_code, decided_at)
VALUES (:id, :status, :decline_code, :reason, :attempts, :rrn, :approval_code, :decided_at)
ON CONFLICT (verification_id) DO NOTHING
""")

_COLUMNS = """
    asked.id, asked.payment_method_id, asked.currency, asked.merchant, asked.requested_at,
    coalesce(result.status, 'processing') AS status, result.decline_code, result.reason, result.attempts, result.rrn,
    result.decided_at
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
