"""Failed sign-ins are counted in Redis, by user and by address: the more failed, the longer until the next counts.

An attempt is counted before it is judged, so a thousand at once are not a thousand guesses. A login that does not exist
is counted like one that does. When nothing can be counted, nobody gets in.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from identity.errors import LockedOut, LocksUnavailable


@dataclass(frozen=True, slots=True)
class Rule:
    """`free` attempts cost no wait; then it is `first_seconds`, doubled each time, up to `longest_seconds`. After
    `most` attempts it is over until nobody tried for `window_seconds`."""

    free: int
    first_seconds: int
    longest_seconds: int
    most: int
    window_seconds: int


# NIST SP 800-63B-4 section 3.2.2: no more than 100 failed attempts in a row on one account.
BY_LOGIN = Rule(free=5, first_seconds=1, longest_seconds=900, most=100, window_seconds=86_400)
# Behind one address there may be many people, and one of them may be at it.
BY_ADDRESS = Rule(free=30, first_seconds=1, longest_seconds=900, most=1000, window_seconds=3600)

# KEYS: counters. ARGV: free, first, longest, most, window of each, in milliseconds where they are times. Answers how
# long to wait, in milliseconds: 0 means that the attempt was counted on all and may be made.
_BEGIN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = 0
for i, key in ipairs(KEYS) do
    wait = math.max(wait, (tonumber(redis.call('HGET', key, 'until')) or 0) - now)
end
if wait > 0 then
    return wait
end
for i, key in ipairs(KEYS) do
    local free, first, longest, most, window = unpack(ARGV, i * 5 - 4, i * 5)
    local count = redis.call('HINCRBY', key, 'count', 1)
    if count >= tonumber(most) then
        redis.call('HSET', key, 'until', now + window)
    elseif count >= tonumber(free) then
        local pause = math.min(tonumber(longest), tonumber(first) * 2 ^ math.min(count - free, 30))
        redis.call('HSET', key, 'until', string.format('%.0f', now + pause))
    end
    redis.call('PEXPIRE', key, window)
end
return 0
"""

# What succeeded was no failure: the first counter begins anew, the others forget this attempt.
_SUCCEEDED = """
redis.call('DEL', KEYS[1])
for i = 2, #KEYS do
    if (tonumber(redis.call('HGET', KEYS[i], 'count')) or 0) > 0 then
        redis.call('HINCRBY', KEYS[i], 'count', -1)
        redis.call('HDEL', KEYS[i], 'until')
    end
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that was counted."""

    keys: tuple[str, ...]


class Locks:
    """`key` hides what is counted: Redis holds digests of addresses."""

    def __init__(self, redis: Redis, key: bytes) -> None:
        self._key = key
        self._redis = redis
        self._begin = redis.register_script(_BEGIN)
        self._succeeded = redis.register_script(_SUCCEEDED)

    async def begin(self, account_id: str, login: str, address: str) -> Attempt:
        """Counts an attempt to sign in as `login` from the network address `address`.

        Raises:
            LockedOut: it is too early for another.
            LocksUnavailable: it cannot be counted.
        """
        keys = (self._name("login", account_id, login), self._name("address", account_id, address))
        arguments = [number for rule in (BY_LOGIN, BY_ADDRESS) for number in _milliseconds(rule)]
        try:
            wait = int(await self._begin(keys=keys, args=arguments))
        except (RedisError, OSError, TimeoutError):
            raise LocksUnavailable("attempts cannot be counted") from None
        if wait > 0:
            raise LockedOut(-(-wait // 1000))
        return Attempt(keys)

    async def succeeded(self, attempt: Attempt) -> None:
        """
        Raises:
            LocksUnavailable: it cannot be taken back.
        """
        try:
            await self._succeeded(keys=attempt.keys, args=[])
        except (RedisError, OSError, TimeoutError):
            raise LocksUnavailable("attempts cannot be counted") from None

    def _name(self, kind: str, *parts: str) -> str:
        content = "\x1f".join((kind, *parts)).encode()
        return f"identity:attempts:{hmac.digest(self._key, content, hashlib.sha256).hex()[:32]}"


def _milliseconds(rule: Rule) -> tuple[int, ...]:
    times = (rule.first_seconds * 1000, rule.longest_seconds * 1000)
    return (rule.free, *times, rule.most, rule.window_seconds * 1000)
