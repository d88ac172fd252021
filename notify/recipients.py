"""Who a user is and where to reach them, from the platform's users and the registered push tokens."""

from __future__ import annotations

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import CONTACT_CODE, FORMER_CONTACT
from notify.messages import Recipient

_USER = text("""
SELECT name, email, phone, locale, ARRAY(
    SELECT token FROM notify.push_tokens WHERE user_id = users.id AND pruned_at IS NULL
    ORDER BY created_at, token_hash) AS push_tokens
FROM platform.users WHERE id = :id
""")


# Who is sent a one-time code may be no user yet, and gets it at the address that it proves, and nowhere else.
_ADDRESSEE = text("""
SELECT coalesce(users.name, registration.name, '') AS name, code.kind, code.address, code.locale
FROM identity.contact_codes code
LEFT JOIN identity.registrations registration ON registration.id = code.registration_id
LEFT JOIN platform.users users ON users.id = code.user_id
WHERE code.id = :id
""")


# Where somebody could be reached until their address was replaced.
_FORMER = text("""
SELECT users.name, former.kind, former.address, users.locale
FROM identity.former_contacts former JOIN platform.users users ON users.id = former.user_id
WHERE former.id = :id
""")


async def load_recipient(connection: AsyncConnection, user_id: str) -> Recipient | None:
    """The recipient `user_id`, or None when there is no such user (any more).

    With the id of a one-time code (`otc_…`) it is whoever has the address that the code was made for, with that of a
    former contact (`fct_…`) whoever has the address that was replaced.
    """
    if user_id.startswith(f"{CONTACT_CODE}_"):
        return await _addressee(connection, _ADDRESSEE, user_id)
    if user_id.startswith(f"{FORMER_CONTACT}_"):
        return await _addressee(connection, _FORMER, user_id)
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


async def _addressee(connection: AsyncConnection, query: TextClause, identifier: str) -> Recipient | None:
    """Who has one address, and is reached there alone."""
    row = (await connection.execute(query, {"id": identifier})).one_or_none()
    if row is None:
        return None
    address = {"email": row.address} if row.kind == "email" else {"phone": row.address}
    return Recipient(user_id=identifier, name=row.name, locale=row.locale, **address)
