"""Which sessions ended lately, in Redis, for every request to ask. It says "ended" rather than nothing at all.

Only sessions that ended within an access token's lifetime matter: older tokens have expired. Redis may lose what it
was told; so each process tells it again every few seconds what PostgreSQL has, and as long as a mark is missing that
the first full telling leaves behind (Redis was emptied, or is new), nothing counts until that is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from identity.errors import SessionsUnavailable

_log = logging.getLogger(__name__)

_MARK = "identity:revocations"
# The mark goes with the tellings: when nobody has told for this long, Redis may lack the newest.
_MARK_SECONDS = 60
_TELL_EVERY_SECONDS = 5.0
# Between two clocks, and from a token's making to the end of its use.
_SKEW = timedelta(seconds=60)


class Revocations:
    """`engine` commits each statement by itself. `token_lifetime` is that of an access token."""

    def __init__(self, engine: AsyncEngine, redis: Redis, token_lifetime: timedelta) -> None:
        self._engine = engine
        self._redis = redis
        self._keep = token_lifetime + _SKEW

    async def holds(self, session_id: str) -> bool:
        """Whether the session ended, in one round trip.

        Raises:
            SessionsUnavailable: Redis, or after it lost its memory PostgreSQL, cannot be asked.
        """
        mark, revoked = await self._ask(session_id)
        if mark is None:
            await self.rebuild()
            mark, revoked = await self._ask(session_id)
            if mark is None:
                raise SessionsUnavailable("revocations are not known")
        return revoked is not None

    async def tell(self, session_ids: Sequence[str]) -> None:
        """From now on these sessions count as ended.

        Raises:
            SessionsUnavailable: Redis cannot be told.
        """
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for session_id in session_ids:
                    pipeline.set(_key(session_id), 1, ex=self._keep)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            raise SessionsUnavailable("revocations cannot be told") from None

    async def rebuild(self) -> None:
        """Tells Redis all that ended lately, and leaves the mark.

        Raises:
            SessionsUnavailable: Redis cannot be told.
        """
        async with self._engine.connect() as connection:
            rows = (await connection.execute(_ENDED_LATELY, {"keep": self._keep})).all()
        await self.tell([row.id for row in rows])
        try:
            await self._redis.set(_MARK, 1, ex=_MARK_SECONDS)
        except (RedisError, OSError, TimeoutError):
            raise SessionsUnavailable("revocations cannot be told") from None

    @asynccontextmanager
    async def retold(self) -> AsyncIterator[None]:
        """Keeps telling until the end of the block."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._retell(stop), name="identity-revocations")
        try:
            yield
        finally:
            stop.set()
            await task

    async def _retell(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.rebuild()
            except Exception as error:
                # Whatever it was: requests find out for themselves, and the next telling may succeed.
                _log.warning("revoked sessions could not be told: %s", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _TELL_EVERY_SECONDS)

    async def _ask(self, session_id: str) -> tuple[object, object]:
        try:
            mark, revoked = await self._redis.mget(_MARK, _key(session_id))
        except (RedisError, OSError, TimeoutError):
            raise SessionsUnavailable("revocations cannot be asked for") from None
        return mark, revoked


def _key(session_id: str) -> str:
    return f"identity:revoked:{session_id}"


_ENDED_LATELY = text("SELECT id FROM identity.sessions WHERE revoked_at > now() - CAST(:keep AS interval)")
