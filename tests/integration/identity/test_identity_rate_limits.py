"""Rate limits on Redis: no minute has more than the limit, and a request counts in all of its buckets or in none."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from api.errors import ApiError
from api.rate_limits import RateLimited, RateLimits, RouteClass
from config.settings import RateLimit, RateLimitSettings
from embedded.processes import free_port

_FEW = RateLimitSettings(
    reads=RateLimit(5, 3, 4), writes=RateLimit(5, 3, 4), money=RateLimit(5, 3, 4), refused_per_address=2
)


@pytest.fixture
def limits(redis: Redis) -> RateLimits:
    return RateLimits(redis, _FEW)


async def _taken(limits: RateLimits, times: int, kind: RouteClass = RouteClass.MONEY, **who: str) -> list[bool]:
    async def one() -> bool:
        try:
            await limits.take(kind, **who)
        except RateLimited:
            return False
        return True

    return list(await asyncio.gather(*(one() for _ in range(times))))


async def test_of_many_at_once_as_many_pass_as_the_limit_says(limits: RateLimits) -> None:
    assert sum(await _taken(limits, 40, key="key_1")) == 5
    assert sum(await _taken(limits, 40, key="key_2")) == 5


async def test_the_answer_says_what_is_left_and_when_there_is_more(limits: RateLimits) -> None:
    for left in (2, 1, 0):
        standing = await limits.take(RouteClass.WRITES, user="usr_1", address="192.0.2.1")
        assert standing is not None
        # The tighter of the two buckets is the one that is told.
        assert (standing.limit, standing.remaining) == (3, left)
        assert 0 < standing.reset_seconds <= 65
    with pytest.raises(RateLimited) as refused:
        await limits.take(RouteClass.WRITES, user="usr_1", address="192.0.2.1")
    assert refused.value.status == 429
    assert 0 < (refused.value.retry_after_seconds or 0) <= 65
    assert dict(refused.value.standing.headers())[b"ratelimit-remaining"] == b"0"


async def test_a_request_that_one_bucket_refuses_counts_in_none(limits: RateLimits) -> None:
    assert sum(await _taken(limits, 4, user="usr_1", address="192.0.2.1")) == 3
    # The address has room for one of four: the refused request was not counted there.
    assert sum(await _taken(limits, 2, user="usr_2", address="192.0.2.1")) == 1


async def test_classes_of_routes_are_counted_apart(limits: RateLimits) -> None:
    assert sum(await _taken(limits, 9, RouteClass.MONEY, user="usr_1")) == 3
    assert sum(await _taken(limits, 9, RouteClass.READS, user="usr_1")) == 3


async def test_no_minute_has_more_than_the_limit_wherever_it_begins(redis: Redis, limits: RateLimits) -> None:
    """What was used is moved back in time, step by step, instead of waiting for it."""
    await _taken(limits, 5, key="key_1")
    (name,) = await redis.keys("rate:*")
    for _ in range(12):
        assert not any(await _taken(limits, 1, key="key_1"))
        steps = await redis.hgetall(name)
        await redis.delete(name)
        await redis.hset(name, mapping={str(int(step) - 1): used for step, used in steps.items()})
    assert not any(await _taken(limits, 1, key="key_1"))
    steps = await redis.hgetall(name)
    await redis.delete(name)
    await redis.hset(name, mapping={str(int(step) - 1): used for step, used in steps.items()})
    assert sum(await _taken(limits, 6, key="key_1")) == 5
    assert await redis.hlen(name) == 1
    assert 60_000 < await redis.pttl(name) <= 70_000


async def test_credentials_that_open_nothing_are_counted_by_address(limits: RateLimits) -> None:
    for _ in range(2):
        await limits.take_refusal("192.0.2.7")
    with pytest.raises(RateLimited):
        await limits.take_refusal("192.0.2.7")


async def test_without_redis_reading_goes_on_and_nothing_else_does() -> None:
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}")
    limits = RateLimits(nowhere, _FEW)
    assert await limits.take(RouteClass.READS, user="usr_1") is None
    for kind in (RouteClass.WRITES, RouteClass.MONEY, RouteClass.SIGN_IN):
        with pytest.raises(ApiError) as refused:
            await limits.take(kind, user="usr_1")
        assert refused.value.code == "service_unavailable"
    await nowhere.aclose()
