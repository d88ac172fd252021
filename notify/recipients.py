"""Who a user is and where to reach them, from the platform's users and the registered push tokens."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from notify.messages import Recipient
from notify.push_tokens import list_live
from store.models.platform import User


async def load_recipient(connection: AsyncConnection, user_id: str) -> Recipient | None:
    """The recipient `user_id`, or None when there is no such user (any more)."""
    row = (
        await connection.execute(select(User.name, User.email, User.phone, User.locale).where(User.id == user_id))
    ).first()
    if row is None:
        return None
    return Recipient(
        user_id=user_id,
        name=row.name,
        email=row.email,
        phone=row.phone,
        push_tokens=await list_live(connection, user_id),
        locale=row.locale,
    )
