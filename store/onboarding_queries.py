"""Reading how users stand: tier and limits, their case, their closure; and the record of who looked at whose data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.tiers import Tier
from store.queries import Row


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user may do now. Who is closing or closed pays and sends nothing."""

    tier: Tier
    sending_frozen: bool
    closing_at: datetime | None
    closed_at: datetime | None
    erased_at: datetime | None


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """What to list. `awaits_person` True: what an operator has to look at."""

    account_id: str
    status: str | None = None
    awaits_person: bool | None = None


async def find_standing(connection: AsyncConnection, user_id: str) -> Standing:
    """Of a user who exists."""
    row = (await connection.execute(_STANDING, {"user": user_id})).one()
    return Standing(Tier(row.tier), row.sending_frozen, row.closing_at, row.closed_at, row.erased_at)


async def find_case(connection: AsyncConnection, user_id: str) -> Row | None:
    """The case with the user's tier, and its `documents` as JSON objects, the oldest first."""
    return (await connection.execute(_CASE, {"user": user_id})).mappings().one_or_none()


async def list_cases(
    connection: AsyncConnection, wanted: CaseFilter, limit: int, starting_after: str | None
) -> tuple[Sequence[Row], bool]:
    """One page, what changed last first, and whether there are more. A cursor of another account gives none."""
    parameters = {
        "account": wanted.account_id,
        "status": wanted.status,
        "awaits": wanted.awaits_person,
        "after": starting_after,
        "limit": limit + 1,
    }
    rows = (await connection.execute(_CASES, parameters)).mappings().all()
    return rows[:limit], len(rows) > limit


async def find_sealed_details(connection: AsyncConnection, user_id: str) -> tuple[str, bytes] | None:
    """The id of the key and the ciphertext of what the user said last."""
    row = (await connection.execute(_SEALED, {"user": user_id})).one_or_none()
    return None if row is None or row.sealed_details is None else (row.key_id, bytes(row.sealed_details))


async def record_access(connection: AsyncConnection, user_id: str, account_id: str, operator: str, what: str) -> None:
    """That somebody is about to be shown something of a person's; before they are."""
    parameters = {"user": user_id, "account": account_id, "operator": operator, "what": what}
    await connection.execute(_ACCESS, parameters)


async def find_closure(connection: AsyncConnection, user_id: str) -> Row | None:
    """The user's latest closure, with the id of the destroyed key."""
    return (await connection.execute(_CLOSURE, {"user": user_id})).mappings().one_or_none()


async def change_profile(connection: AsyncConnection, user_id: str, name: str | None, locale: str | None) -> None:
    """Whatever is None stays."""
    await connection.execute(_PROFILE, {"user": user_id, "name": name, "locale": locale})


_STANDING = text("""
SELECT tier, sending_frozen, closing_at, closed_at, erased_at FROM platform.users WHERE id = :user
""")

# The two statements are this and a condition of constants.
_SELECT_CASE = """
SELECT cases.*, users.tier, users.sending_frozen, coalesce((
    SELECT jsonb_agg(to_jsonb(documents) ORDER BY documents.created_at, documents.id)
    FROM onboarding.documents WHERE documents.user_id = cases.user_id AND erased_at IS NULL), '[]') AS documents
FROM onboarding.cases JOIN platform.users ON users.id = cases.user_id
"""
_CASE = text(_SELECT_CASE + " WHERE cases.user_id = :user")
_PAGE = """
WHERE cases.account_id = :account
    AND (CAST(:status AS text) IS NULL OR cases.status = :status)
    AND (CAST(:awaits AS boolean) IS NULL OR cases.awaits_person = :awaits)
    AND (CAST(:after AS text) IS NULL OR (cases.updated_at, cases.user_id) < (
        SELECT found.updated_at, found.user_id FROM onboarding.cases AS found
        WHERE found.user_id = :after AND found.account_id = :account))
ORDER BY cases.updated_at DESC, cases.user_id DESC LIMIT :limit
"""
_CASES = text(_SELECT_CASE + _PAGE)
_SEALED = text("SELECT key_id, sealed_details FROM onboarding.cases WHERE user_id = :user")
_ACCESS = text("""
INSERT INTO onboarding.access_audit (user_id, account_id, operator, what) VALUES (:user, :account, :operator, :what)
""")
_CLOSURE = text("""
SELECT closures.*, erasure_certificates.key_id FROM onboarding.closures
LEFT JOIN onboarding.erasure_certificates USING (user_id)
WHERE closures.user_id = :user ORDER BY number DESC LIMIT 1
""")
_PROFILE = text("""
UPDATE platform.users SET name = coalesce(:name, name), locale = coalesce(:locale, locale)
WHERE id = :user AND closing_at IS NULL
""")
