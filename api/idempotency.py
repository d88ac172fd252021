"""Idempotency keys: the same key and parameters give the same effect once, and the same answer.

A key is reserved with a digest of the request before anything is started. While its work is open a second caller
attaches to the same workflow; once there is a final answer, that answer is stored and given again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.auth import Principal
from api.errors import ApiError
from domain.cards import holds_card_number
from domain.ids import derived_id

_MAX_LENGTH = 255

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Names this request, 1–255 characters. Sending it again does nothing twice.",
    ),
]


@dataclass(frozen=True, slots=True)
class Reservation:
    """One caller's key. `resource_id` is derived from it, so whatever it makes has the same id each time.

    `fresh` says that this is the key's first use; `response` is the stored final answer, if there is one.
    """

    principal: str
    key: str
    resource_id: str
    created_at: datetime
    fresh: bool
    response: Response | None


async def reserve(
    engine: AsyncEngine, request: Request, caller: Principal, key: str | None, prefix: str, parameters: dict[str, Any]
) -> Reservation:
    """Reserves `key` for this request, in one statement (`engine` commits each by itself).

    `parameters` must hold no card number or security code: a digest of them is stored.

    Raises:
        ApiError: the key is missing or malformed, or was used with other parameters.
    """
    if key is None:
        raise ApiError("idempotency_key_missing", "Send an `Idempotency-Key` header.", "Idempotency-Key")
    if not 1 <= len(key) <= _MAX_LENGTH or not key.isprintable():
        raise ApiError("idempotency_key_invalid", "The key must have 1 to 255 printable characters.", "Idempotency-Key")
    if holds_card_number(key):
        raise ApiError("card_number_refused", "The key must not hold a card number.", "Idempotency-Key")
    digest = _digest(request, parameters)
    async with engine.connect() as connection:
        found = await connection.execute(
            _RESERVE,
            {
                "principal": caller.name,
                "key": key,
                "hash": digest,
                "resource_id": derived_id(prefix, caller.name, key),
            },
        )
        row = found.one()
    if bytes(row.request_hash) != digest:
        raise ApiError("idempotency_key_reused", "The key was used with other parameters.", "Idempotency-Key")
    stored = None
    if row.response_status is not None:
        stored = JSONResponse(row.response_body, row.response_status, headers={"Idempotent-Replayed": "true"})
    return Reservation(caller.name, key, row.resource_id, row.created_at, row.fresh, stored)


async def store_answer(engine: AsyncEngine, reservation: Reservation, status: int, body: dict[str, Any]) -> None:
    """Keeps the first final answer; a later one changes nothing. `engine` commits each statement by itself."""
    async with engine.connect() as connection:
        await connection.execute(
            _STORE,
            {
                "principal": reservation.principal,
                "key": reservation.key,
                "status": status,
                "body": json.dumps(body),
            },
        )


def _digest(request: Request, parameters: dict[str, Any]) -> bytes:
    canonical = json.dumps([request.method, request.url.path, parameters], sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).digest()


_RESERVE = text("""
INSERT INTO platform.idempotency_keys AS existing (principal, key, request_hash, resource_id)
VALUES (:principal, :key, :hash, :resource_id)
-- The no-op update makes the row come back whether it is new or not.
ON CONFLICT (principal, key) DO UPDATE SET resource_id = existing.resource_id
RETURNING request_hash, resource_id, response_status, response_body, created_at, xmax = 0 AS fresh
""")

_STORE = text("""
UPDATE platform.idempotency_keys SET response_status = :status, response_body = CAST(:body AS jsonb)
WHERE principal = :principal AND key = :key AND response_status IS NULL
""")
