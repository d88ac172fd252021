"""Sessions of users: opened, refreshed by tokens that rotate, listed, and revoked.

PostgreSQL has the truth. Access tokens live for minutes without asking it, so revocations are told to Redis, which
every request asks (`identity/revocations.py`).

A refresh token is used once; its use makes the next one (RFC 9700 section 4.14.2). One that comes again after its
successor was used, or later than an answer that got lost explains, is in two hands: the session ends, and its user is
told. Tokens are kept as SHA-256 digests: 256 random bits need no slow hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.ids import SESSION, new_id
from identity.errors import RefreshRefused, SessionsUnavailable, TokenInvalid
from identity.revocations import Revocations
from identity.security_events import SecurityEvent, record
from identity.tokens import AccessTokens, SessionClaims

_PREFIX = "rt_"
# An app whose answer was lost asks again at once, with the token that it still has.
_LOST_ANSWER = timedelta(seconds=10)


class Revoked(StrEnum):
    """Why a session ended before its time."""

    SIGNED_OUT = "signed_out"
    BY_USER = "revoked_by_user"
    BY_CLIENT = "revoked_by_client"
    REFRESH_REUSED = "refresh_token_reused"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a reason
    DEVICE_REVOKED = "device_revoked"
    USER_CLOSED = "user_closed"


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session with the tokens that were just issued for it: shown this once."""

    id: str
    user_id: str
    access_token: str = field(repr=False)
    access_expires_at: datetime
    refresh_token: str = field(repr=False)
    refresh_expires_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionRecord:
    id: str
    user_id: str
    amr: tuple[str, ...]
    authenticated_at: datetime
    device_id: str | None
    device_name: str | None
    created_at: datetime
    refreshed_at: datetime
    expires_at: datetime


class Sessions:
    """`key` (32 bytes) is what refresh tokens follow from, so that a lost answer can be given again.

    A refresh token lives for `idle`, a session for `lifetime` at most; then the user signs in again.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        tokens: AccessTokens,
        revocations: Revocations,
        key: bytes,
        *,
        idle: timedelta,
        lifetime: timedelta,
    ) -> None:
        self._engine = engine
        self._tokens = tokens
        self._revocations = revocations
        self._key = key
        self._idle = idle
        self._lifetime = lifetime

    async def open(
        self,
        account_id: str,
        user_id: str,
        amr: Sequence[str],
        *,
        device_id: str | None = None,
        device_name: str | None = None,
    ) -> OpenSession:
        """A new session of a user who has just proved who they are by `amr` (RFC 8176)."""
        async with self._engine.begin() as connection:
            row, refresh_token = await self.insert(
                connection, account_id, user_id, amr, device_id=device_id, device_name=device_name
            )
        return await self.issue(row, refresh_token)

    async def insert(
        self,
        connection: AsyncConnection,
        account_id: str,
        user_id: str,
        amr: Sequence[str],
        *,
        device_id: str | None = None,
        device_name: str | None = None,
    ) -> tuple[Row[Any], str]:
        """The session's row and refresh token, within the caller's transaction; `issue` then makes its tokens."""
        values = {
            "id": new_id(SESSION),
            "account_id": account_id,
            "user_id": user_id,
            "amr": list(amr),
            "device_id": device_id,
            "device_name": device_name[:200] if device_name else None,
            "lifetime": self._lifetime,
        }
        row = (await connection.execute(_INSERT_SESSION, values)).one()
        return row, await self._insert_token(connection, row.id, 1)

    async def issue(self, row: Row[Any], refresh_token: str) -> OpenSession:
        """The tokens of a session that is committed."""
        claims = SessionClaims(row.account_id, row.user_id, row.id, tuple(row.amr), row.authenticated_at)
        access = await self._tokens.issue(claims)
        return OpenSession(
            id=row.id,
            user_id=row.user_id,
            access_token=access.token,
            access_expires_at=access.expires_at,
            refresh_token=refresh_token,
            refresh_expires_at=min(datetime.now(UTC) + self._idle, row.expires_at),
            expires_at=row.expires_at,
        )

    async def verify(self, access_token: str, *, reading: bool) -> SessionClaims:
        """The claims of a token whose session lives. While Redis is away PostgreSQL answers for what only reads.

        Raises:
            TokenExpired, TokenInvalid: the token, or its session, is no good.
            SessionsUnavailable: it cannot be known now.
        """
        claims = await self._tokens.verify(access_token)
        try:
            revoked = await self._revocations.holds(claims.session_id)
        except SessionsUnavailable:
            if not reading:
                raise
            revoked = not await self._lives(claims.session_id)
        if revoked:
            raise TokenInvalid("the session has ended")
        return claims

    async def refresh(self, refresh_token: str) -> OpenSession:
        """New tokens for an old refresh token.

        Raises:
            RefreshRefused: it is no good. If it was used before, its session has ended now.
            SessionsUnavailable: it was, and the end cannot be told now.
        """
        token_hash = _hash(refresh_token)
        async with self._engine.begin() as connection:
            # By a statement of its own: what reads after it sees what those who came before have left.
            await connection.execute(_LOCK_SESSION, {"hash": token_hash})
            wanted = {"hash": token_hash, "lost_answer": _LOST_ANSWER}
            row = (await connection.execute(_FIND_TOKEN, wanted)).one_or_none()
            if row is None or not row.alive:
                raise RefreshRefused("unknown, expired or revoked")
            if row.used_at is None:
                await connection.execute(_USE_TOKEN, {"hash": token_hash})
                successor = await self._insert_token(connection, row.id, row.generation + 1)
                await connection.execute(_REFRESHED, {"id": row.id})
            elif row.answer_may_be_lost:
                successor = self._token(row.id, row.generation + 1)
            else:
                successor = None
                await self._end(connection, row.user_id, [row.id], Revoked.REFRESH_REUSED)
                event = SecurityEvent(row.account_id, row.user_id, "refresh_token_reused", row.id)
                await record(connection, event)
        if successor is None:
            await self._revocations.tell([row.id])
            raise RefreshRefused("used before")
        return await self.issue(row, successor)

    async def list_open(self, user_id: str) -> list[SessionRecord]:
        """The sessions that live, newest first."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(_LIST, {"user_id": user_id})).mappings().all()
        return [SessionRecord(**{**row, "amr": tuple(row["amr"])}) for row in rows]

    async def revoke(self, user_id: str, session_id: str, reason: Revoked) -> bool:
        """Ends a session of `user_id`; whether there was one. When this returns, its tokens open nothing.

        Raises:
            SessionsUnavailable: it ended, and the end cannot be told now; call it again.
        """
        async with self._engine.begin() as connection:
            await self._end(connection, user_id, [session_id], reason)
            found = await connection.scalar(_IS_OF_USER, {"id": session_id, "user_id": user_id})
        if found:
            await self._revocations.tell([session_id])
        return bool(found)

    async def revoke_all(
        self, user_id: str, reason: Revoked, *, but: str | None = None, device_id: str | None = None
    ) -> int:
        """Ends all sessions of a user (of one device of theirs, if it is named) but one; how many ended.

        Raises:
            SessionsUnavailable: they ended, and it cannot be told now; call it again.
        """
        async with self._engine.begin() as connection:
            ended = await self.end_all(connection, user_id, reason, but=but, device_id=device_id)
        await self.tell_ended()
        return len(ended)

    async def end_all(
        self,
        connection: AsyncConnection,
        user_id: str,
        reason: Revoked,
        *,
        but: str | None = None,
        device_id: str | None = None,
    ) -> list[str]:
        """`revoke_all` within the caller's transaction; after its commit the caller awaits `tell_ended`."""
        rows = await connection.execute(
            _END_ALL, {"user_id": user_id, "reason": reason.value, "but": but, "device_id": device_id}
        )
        return [row.id for row in rows]

    async def tell_ended(self) -> None:
        """Tells Redis of all sessions that ended lately, whoever ended them."""
        await self._revocations.rebuild()

    async def _end(self, connection: AsyncConnection, user_id: str, session_ids: list[str], reason: Revoked) -> None:
        await connection.execute(_END, {"user_id": user_id, "ids": session_ids, "reason": reason.value})

    async def _lives(self, session_id: str) -> bool:
        async with self._engine.connect() as connection:
            return bool(await connection.scalar(_LIVES, {"id": session_id}))

    async def _insert_token(self, connection: AsyncConnection, session_id: str, generation: int) -> str:
        token = self._token(session_id, generation)
        values = {"hash": _hash(token), "id": session_id, "generation": generation, "idle": self._idle}
        await connection.execute(_INSERT_TOKEN, values)
        return token

    def _token(self, session_id: str, generation: int) -> str:
        mac = hmac.digest(self._key, f"{session_id}\x1f{generation}".encode(), hashlib.sha256)
        return _PREFIX + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


_INSERT_SESSION = text("""
INSERT INTO identity.sessions (id, account_id, user_id, amr, authenticated_at, device_id, device_name, expires_at)
VALUES (:id, :account_id, :user_id, :amr, now(), :device_id, :device_name, now() + CAST(:lifetime AS interval))
RETURNING id, account_id, user_id, amr, authenticated_at, expires_at
""")

_INSERT_TOKEN = text("""
INSERT INTO identity.refresh_tokens (token_hash, session_id, generation, expires_at)
VALUES (:hash, :id, :generation, now() + CAST(:idle AS interval))
""")

# The lock on the session lets one token of it be used at a time.
_LOCK_SESSION = text("""
SELECT FROM identity.sessions WHERE id = (SELECT session_id FROM identity.refresh_tokens WHERE token_hash = :hash)
FOR UPDATE
""")

_FIND_TOKEN = text("""
SELECT session.id, session.account_id, session.user_id, session.amr, session.authenticated_at, session.expires_at,
    token.generation, token.used_at,
    session.revoked_at IS NULL AND session.expires_at > now()
        AND (token.expires_at > now() OR token.used_at IS NOT NULL) AS alive,
    token.used_at > now() - CAST(:lost_answer AS interval) AND EXISTS (
        SELECT FROM identity.refresh_tokens next
        WHERE next.session_id = session.id AND next.generation = token.generation + 1 AND next.used_at IS NULL
    ) AS answer_may_be_lost
FROM identity.sessions session
JOIN identity.refresh_tokens token ON token.session_id = session.id
WHERE session.id = (SELECT session_id FROM identity.refresh_tokens WHERE token_hash = :hash)
    AND token.token_hash = :hash
FOR UPDATE OF session, token
""")

_USE_TOKEN = text("UPDATE identity.refresh_tokens SET used_at = now() WHERE token_hash = :hash")

_REFRESHED = text("UPDATE identity.sessions SET refreshed_at = now() WHERE id = :id")

_END = text("""
UPDATE identity.sessions SET revoked_at = now(), revoke_reason = :reason
WHERE id = ANY(:ids) AND user_id = :user_id AND revoked_at IS NULL
""")

_END_ALL = text("""
UPDATE identity.sessions SET revoked_at = now(), revoke_reason = :reason
WHERE user_id = :user_id AND revoked_at IS NULL AND id IS DISTINCT FROM CAST(:but AS text)
    AND (CAST(:device_id AS text) IS NULL OR device_id = :device_id)
RETURNING id
""")

_IS_OF_USER = text("SELECT true FROM identity.sessions WHERE id = :id AND user_id = :user_id")

_LIVES = text("SELECT true FROM identity.sessions WHERE id = :id AND revoked_at IS NULL AND expires_at > now()")

_LIST = text("""
SELECT id, user_id, amr, authenticated_at, device_id, device_name, created_at, refreshed_at, expires_at
FROM identity.sessions
WHERE user_id = :user_id AND revoked_at IS NULL AND expires_at > now()
    AND EXISTS (
        SELECT FROM identity.refresh_tokens token
        WHERE token.session_id = sessions.id AND token.used_at IS NULL AND token.expires_at > now())
ORDER BY created_at DESC, id DESC
""")
