"""Who a user is and where to reach them, from the platform's users and the registered push tokens."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from notify.messages import Recipient

_USER = text("""
SELECT name, email, phone, locale, ARRAY(
    SELECT token FROM notify.push_tokens WHERE user_id = users.id AND pruned_at IS NULL
    ORDER BY created_at, token_hash) AS push_tokens
FROM platform.users WHERE id = :id
""")


async def load_recipient(connection: AsyncConnection, user_id: str) -> Recipient | None:
    """The recipient `user_id`, or None when there is no such user (any more)."""
    row = (await connection.execute(_USER, {"id": user_id})).one_or_none()
    if row is None:
        return None
    return Recipient(
        user_id=user_id,
        name=row.name,
        email=row.email,
        phone=row.phone,
        push_tokens=tuple(row.push_tokens),
        locale=row.locale,
    )
