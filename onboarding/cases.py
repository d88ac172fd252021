"""The rows of cases: written by what each case's workflow decided, under its sequence number, in one transaction."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.errors import NotFound
from domain.onboarding import OnboardingChange
from domain.personal import PersonalDetails, from_json
from onboarding.errors import ChangeOutOfOrder, DetailsMissing, KeyMismatch, LoanLapsed, OnboardingUnavailable
from sealing import Unsealer
from sealing.personal import LOAN_PURPOSE, unseal

DETAILS = "details"
_UNREACHABLE = (OperationalError, InterfaceError, PoolTimeout)


@dataclass(frozen=True, slots=True)
class LentKey:
    """A user's data key, as the vault lent it."""

    user_id: str
    key_id: str
    key: bytes = field(repr=False)


class Borrower:
    """Takes keys that the vault lends: by a handle in Redis, in boxes that this worker alone opens."""

    def __init__(self, redis: Redis, unsealer: Unsealer) -> None:
        self._redis = redis
        self._unsealer = unsealer

    async def take(self, handle: str) -> LentKey:
        """The key under `handle`, which is gone with this call.

        Raises:
            LoanLapsed: there is none any more.
            sealing.SealBroken: the box is not for this worker.
            OnboardingUnavailable
        """
        try:
            box = await self._redis.getdel(handle)
        except RedisError as error:
            raise OnboardingUnavailable(f"the cache cannot be reached ({type(error).__name__})") from None
        if box is None:
            raise LoanLapsed
        content = self._unsealer.open(LOAN_PURPOSE, box.decode() if isinstance(box, bytes) else str(box))
        return LentKey(content["user_id"], content["key_id"], bytes.fromhex(content["key"]))


class Cases:
    """`engine` reaches the schema `onboarding`. Every method raises OnboardingUnavailable when it does not."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def record(self, change: OnboardingChange) -> None:
        """Writes one event and the case after it. Told again, it changes nothing.

        Raises:
            ChangeOutOfOrder: it does not follow what was written last.
        """
        async with reaching(self._engine) as connection:
            version = (await connection.execute(_LOCK, {"user": change.user_id})).scalar_one_or_none() or 0
            if version >= change.sequence:
                return
            if version != change.sequence - 1:
                raise ChangeOutOfOrder(change.user_id, change.sequence)
            await self._write(connection, change)

    async def _write(self, connection: AsyncConnection, change: OnboardingChange) -> None:
        case, details = change.onboarding, change.details
        row = {
            "user": change.user_id,
            "account": change.account_id,
            "version": change.sequence,
            "event": change.event,
            "status": case.status,
            "awaits_person": case.awaits_person,
            "tier": case.tier,
            "frozen": case.frozen,
            "actor": change.actor,
            "reasons": list(change.reasons),
            "list_version": change.list_version,
            "key_id": details.key_id if details else None,
            "sealed": base64.b64decode(details.ciphertext) if details else None,
            "expires_on": date.fromisoformat(details.document_expires_on)
            if details and details.document_expires_on
            else None,
            "at": change.occurred_at,
        }
        await connection.execute(_WRITE_CASE, row)
        await connection.execute(_WRITE_EVENT, row)
        await connection.execute(_WRITE_USER, row)
        if change.document is not None:
            document = change.document
            await connection.execute(
                _WRITE_DOCUMENT,
                {
                    "id": document.document_id,
                    "user": change.user_id,
                    "kind": document.kind,
                    "content_type": document.content_type,
                    "size": document.size_bytes,
                    "sha256": document.sha256,
                    "at": change.occurred_at,
                },
            )

    async def details(self, user_id: str, key: LentKey) -> PersonalDetails:
        """What the user said last, opened with the lent key.

        Raises:
            NotFound: there is no such case.
            DetailsMissing: it has none, or has none any more.
            KeyMismatch: the key is another one.
            sealing.SealBroken: the row was tampered with.
        """
        async with reaching(self._engine) as connection:
            found = (await connection.execute(_SEALED, {"user": user_id})).one_or_none()
        if found is None:
            raise NotFound("onboarding", user_id)
        if found.sealed_details is None:
            raise DetailsMissing(user_id)
        if (key.user_id, key.key_id) != (user_id, found.key_id):
            raise KeyMismatch(user_id)
        return from_json(unseal(key.key, bytes(found.sealed_details), DETAILS, user_id, key.key_id))

    async def screened_before(self, list_version: str, after: str, limit: int) -> list[str]:
        """The verified users, in the order of their ids behind `after`, who were not held against `list_version`."""
        async with reaching(self._engine) as connection:
            parameters = {"version": list_version, "after": after, "limit": limit}
            return list((await connection.execute(_SCREENED_BEFORE, parameters)).scalars())


@asynccontextmanager
async def reaching(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction. Its errors' texts are dropped: they repeat the statement."""
    try:
        async with engine.begin() as connection:
            yield connection
    except _UNREACHABLE as error:
        raise OnboardingUnavailable(f"the database cannot be reached ({type(error).__name__})") from None


_LOCK = text("SELECT version FROM onboarding.cases WHERE user_id = :user FOR UPDATE")

# What was said last stays until something else is said; an expiry is of the document that was named with it.
_WRITE_CASE = text("""
INSERT INTO onboarding.cases AS found (user_id, account_id, version, status, awaits_person, reasons, list_version,
    key_id, sealed_details, document_expires_on, created_at, updated_at)
VALUES (:user, :account, :version, :status, :awaits_person, :reasons, :list_version, :key_id, :sealed, :expires_on,
    :at, :at)
ON CONFLICT (user_id) DO UPDATE SET version = excluded.version, status = excluded.status,
    awaits_person = excluded.awaits_person, reasons = excluded.reasons,
    list_version = coalesce(excluded.list_version, found.list_version),
    key_id = coalesce(excluded.key_id, found.key_id),
    document_expires_on = CASE WHEN excluded.sealed_details IS NULL THEN found.document_expires_on
        ELSE excluded.document_expires_on END,
    sealed_details = coalesce(excluded.sealed_details, found.sealed_details),
    updated_at = excluded.updated_at
""")

_WRITE_EVENT = text("""
INSERT INTO onboarding.events (user_id, sequence, event, status, tier, actor, reasons, list_version, occurred_at)
VALUES (:user, :version, :event, :status, :tier, :actor, :reasons, :list_version, :at)
""")

_WRITE_USER = text("""
UPDATE platform.users SET tier = :tier, sending_frozen = :frozen
WHERE id = :user AND closed_at IS NULL AND (tier, sending_frozen) IS DISTINCT FROM (:tier, :frozen)
""")

_WRITE_DOCUMENT = text("""
INSERT INTO onboarding.documents (id, user_id, kind, content_type, size_bytes, sha256, created_at)
VALUES (:id, :user, :kind, :content_type, :size, :sha256, :at)
""")

_SEALED = text("SELECT key_id, sealed_details FROM onboarding.cases WHERE user_id = :user")

_SCREENED_BEFORE = text("""
SELECT user_id FROM onboarding.cases
WHERE status = 'verified' AND list_version IS DISTINCT FROM :version AND user_id > :after
ORDER BY user_id LIMIT :limit
""")
