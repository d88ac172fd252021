"""The installations of the app that can be reached by push."""

from __future__ import annotations

import hashlib
from enum import StrEnum

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.models.notify import PushToken


class Platform(StrEnum):
    ANDROID = "android"
    IOS = "ios"
    WEB = "web"


async def register(
    connection: AsyncConnection, user_id: str, token: str, platform: Platform, device_id: str | None = None
) -> None:
    """Makes `token` (1–4096 characters) reach `user_id`, and nobody else: a device has one user at a time.

    With `device_id` it is forgotten when that device is revoked.
    """
    values = {"user_id": user_id, "platform": Platform(platform).value, "pruned_at": None, "device_id": device_id}
    statement = insert(PushToken).values(token_hash=_digest(token), token=token, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=[PushToken.token_hash], set_=values))


async def list_live(connection: AsyncConnection, user_id: str) -> tuple[str, ...]:
    """The user's tokens that were not pruned, oldest first."""
    rows = await connection.scalars(
        select(PushToken.token)
        .where(PushToken.user_id == user_id, PushToken.pruned_at.is_(None))
        .order_by(PushToken.created_at, PushToken.token_hash)
    )
    return tuple(rows)


async def prune(connection: AsyncConnection, token: str, user_id: str) -> bool:
    """Forgets a token that its provider calls dead, or that `user_id` signed out of; whether there was one to forget.

    One that has found another user meanwhile stays: the news is about its former life.
    """
    pruned = await connection.execute(
        update(PushToken)
        .where(PushToken.token_hash == _digest(token), PushToken.user_id == user_id, PushToken.pruned_at.is_(None))
        .values(pruned_at=func.now())
        .returning(text("1"))
    )
    return pruned.first() is not None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
