"""How many requests may come within a minute: by key, user and network address, each for its class of route.

A window slides in steps of five seconds: a minute back from now, and the rest of the step that began before it, are
counted. So no minute, wherever it begins, has more than the limit; and what is kept of a bucket is thirteen numbers.
All buckets of a request are asked in one round trip, and either all of them count it or none does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ApiError, unavailable
from config.settings import RateLimitSettings

WINDOW_SECONDS = 60
_STEP_SECONDS = 5

# KEYS: buckets. ARGV: step and window in milliseconds, then the limit of each bucket. Answers for each bucket what is
# left of it, and in how many milliseconds it has more; what is left is -1 if it has no room for this request.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local length, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local step = math.floor(now / length)
local steps = window / length
local room, answer, counted = true, {}, {}
for i, key in ipairs(KEYS) do
    local used, oldest = 0, step
    local entries = redis.call('HGETALL', key)
    for j = 1, #entries, 2 do
        local at = tonumber(entries[j])
        if at < step - steps then
            redis.call('HDEL', key, entries[j])
        else
            used = used + tonumber(entries[j + 1])
            oldest = math.min(oldest, at)
        end
    end
    local left = tonumber(ARGV[i + 2]) - used - 1
    room = room and left >= 0
    answer[2 * i - 1] = math.max(left, -1)
    answer[2 * i] = (oldest + steps + 1) * length - now
end
if room then
    for _, key in ipairs(KEYS) do
        redis.call('HINCRBY', key, step, 1)
        redis.call('PEXPIRE', key, window + 2 * length)
    end
end
return answer
"""


class RouteClass(StrEnum):
    """Reading goes on while nothing can be counted; the others do not."""

    READS = "reads"
    WRITES = "writes"
    MONEY = "money"
    SIGN_IN = "sign_in"


@dataclass(frozen=True, slots=True)
class Bucket:
    """`name` holds ids and addresses; it goes no further than Redis, for a minute."""

    name: str
    limit: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The bucket that has least left: `reset_seconds` until it has more."""

    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        values = {"ratelimit-limit": self.limit, "ratelimit-remaining": max(self.remaining, 0)}
        values |= {"ratelimit-reset": self.reset_seconds}
        return [(name.encode(), str(value).encode()) for name, value in values.items()]


class RateLimits:
    def __init__(self, redis: Redis, settings: RateLimitSettings) -> None:
        self._take = redis.register_script(_TAKE)
        self._settings = settings

    async def take(
        self, kind: RouteClass, *, key: str | None = None, user: str | None = None, address: str | None = None
    ) -> Standing | None:
        """Counts a request of whichever of these are known. None: nothing can be counted, and it only reads.

        Raises:
            ApiError: `rate_limited`, or `service_unavailable` where what cannot be counted is not let through.
        """
        limits = self._settings.of(kind.value)
        named = (("key", key, limits.key), ("user", user, limits.user), ("address", address, limits.address))
        buckets = [Bucket(f"rate:{kind}:{who}:{value}", limit) for who, value, limit in named if value is not None]
        return await self._count(buckets, closed=kind is not RouteClass.READS)

    async def take_refusal(self, address: str) -> Standing | None:
        """Counts credentials that opened nothing.

        Raises:
            ApiError: `rate_limited`: too many of them came from `address`.
        """
        bucket = Bucket(f"rate:refused:address:{address}", self._settings.refused_per_address)
        return await self._count([bucket], closed=False)

    async def _count(self, buckets: Sequence[Bucket], *, closed: bool) -> Standing | None:
        times = [_STEP_SECONDS * 1000, WINDOW_SECONDS * 1000]
        try:
            found = await self._take(
                keys=[bucket.name for bucket in buckets], args=[*times, *(bucket.limit for bucket in buckets)]
            )
        except (RedisError, OSError, TimeoutError):
            if closed:
                raise unavailable("rate limits") from None
            return None
        standings = [
            Standing(bucket.limit, int(left), -(-int(wait) // 1000))
            for bucket, left, wait in zip(buckets, found[::2], found[1::2], strict=True)
        ]
        least = min(standings, key=lambda standing: standing.remaining)
        if least.remaining < 0:
            wait = max(standing.reset_seconds for standing in standings if standing.remaining < 0)
            raise RateLimited(least, wait)
        return least


class RateLimited(ApiError):
    """`standing` is told in the answer's headers."""

    def __init__(self, standing: Standing, wait_seconds: int) -> None:
        super().__init__("rate_limited", "Too many requests.", retry_after_seconds=wait_seconds)
        self.standing = standing


class RateLimitHeaders:
    """Adds `RateLimit-Limit`, `-Remaining` and `-Reset` to the answer of a request that was counted.

    (draft-ietf-httpapi-ratelimit-headers-05, which clients know; later drafts pack the three into one.)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            standing = scope.get("state", {}).get("rate_limit")
            if message["type"] == "http.response.start" and standing is not None:
                message["headers"] = [*message.get("headers", []), *standing.headers()]
            await send(message)

        await self._app(scope, receive, send_with_headers)
