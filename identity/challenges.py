"""Challenges: random values that somebody signs once, within minutes, for one purpose, kept in Redis.

While Redis is away there are none, so nothing that needs one goes on.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from redis.asyncio import Redis
from redis.exceptions import RedisError

from identity.key_errors import ChallengeRefused, ChallengesUnavailable

_LIFETIME = timedelta(minutes=5)
_BYTES = 32


class ChallengePurpose(StrEnum):
    ADD_PASSKEY = "add_passkey"
    SIGN_IN = "sign_in"
    ADD_DEVICE = "add_device"


@dataclass(frozen=True, slots=True)
class Challenge:
    value: bytes
    expires_at: datetime


class Challenges:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def issue(self, purpose: ChallengePurpose, bound_to: str) -> Challenge:
        """A new challenge (32 random bytes, five minutes) that only `bound_to` (a session, an account) can use.

        Raises:
            ChallengesUnavailable: it cannot be kept.
        """
        value = secrets.token_bytes(_BYTES)
        expires_at = datetime.now(UTC) + _LIFETIME
        try:
            await self._redis.set(_key(purpose, value), bound_to, ex=_LIFETIME)
        except (RedisError, OSError, TimeoutError):
            raise ChallengesUnavailable("challenges cannot be kept") from None
        return Challenge(value, expires_at)

    async def use(self, purpose: ChallengePurpose, bound_to: str, value: bytes) -> None:
        """Uses a challenge up.

        Raises:
            ChallengeRefused: there is no such challenge: never issued, used, expired, for something or somebody else.
            ChallengesUnavailable: that cannot be known.
        """
        try:
            found = await self._redis.getdel(_key(purpose, value))
        except (RedisError, OSError, TimeoutError):
            raise ChallengesUnavailable("challenges cannot be looked up") from None
        if found != bound_to.encode():
            raise ChallengeRefused("not issued here, used, or expired")

    async def first_use(self, name: str, lifetime: timedelta) -> bool:
        """Whether `name` (of a signed request) was never seen within `lifetime`; from now on it was.

        Raises:
            ChallengesUnavailable: that cannot be known.
        """
        key = f"identity:proof:{hashlib.sha256(name.encode()).hexdigest()}"
        try:
            return bool(await self._redis.set(key, 1, ex=lifetime, nx=True))
        except (RedisError, OSError, TimeoutError):
            raise ChallengesUnavailable("proofs cannot be looked up") from None


def _key(purpose: ChallengePurpose, value: bytes) -> str:
    return f"identity:challenge:{purpose.value}:{hashlib.sha256(value).hexdigest()}"
