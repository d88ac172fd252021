"""Failed sign-ins: counted before they are judged, ever slower, and never let through uncounted."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from embedded.processes import free_port
from identity.errors import LockedOut, LocksUnavailable
from identity.locks import Attempt, Locks

_KEY = bytes(range(32))


@pytest.fixture
def locks(redis: Redis) -> Locks:
    return Locks(redis, _KEY)


async def _try(locks: Locks, login: str = "ada@example.com", address: str = "192.0.2.1") -> Attempt | int:
    """The attempt, or for how many seconds there is none."""
    try:
        return await locks.begin("acct_1", login, address)
    except LockedOut as locked:
        return locked.retry_after_seconds


async def _pass_time(redis: Redis) -> None:
    """As if whatever is waited for were over."""
    for key in await redis.keys("identity:attempts:*"):
        await redis.hdel(key, "until")


async def test_of_many_attempts_at_once_five_are_judged(locks: Locks) -> None:
    outcomes = await asyncio.gather(*(_try(locks) for _ in range(50)))
    assert sum(isinstance(outcome, Attempt) for outcome in outcomes) == 5


async def test_each_failure_after_the_fifth_doubles_the_wait_up_to_a_quarter_of_an_hour(
    locks: Locks, redis: Redis
) -> None:
    for _ in range(4):
        assert isinstance(await _try(locks), Attempt)
    waits = []
    for number in range(13):
        # From many addresses: the login is what is counted here.
        assert isinstance(await _try(locks, address=f"192.0.2.{number}"), Attempt)
        waits.append(await _try(locks))
        await _pass_time(redis)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]


async def test_after_a_hundred_failures_it_is_over_for_a_day(locks: Locks, redis: Redis) -> None:
    for number in range(100):
        assert isinstance(await _try(locks, address=f"198.51.100.{number}"), Attempt)
        if number < 99:
            await _pass_time(redis)
    wait = await _try(locks)
    assert isinstance(wait, int)
    assert 86_390 < wait <= 86_400


async def test_one_address_cannot_go_through_many_logins(locks: Locks) -> None:
    outcomes = [await _try(locks, login=f"user{number}@example.com") for number in range(40)]
    assert sum(isinstance(outcome, Attempt) for outcome in outcomes) == 30
    assert isinstance(await _try(locks, login="another@example.com", address="203.0.113.9"), Attempt)


async def test_a_success_forgets_the_failures_of_the_login_and_only_itself_of_the_address(locks: Locks) -> None:
    for _ in range(4):
        attempt = await _try(locks)
    assert isinstance(attempt, Attempt)
    await locks.succeeded(attempt)
    assert all([isinstance(await _try(locks), Attempt) for _ in range(5)])
    assert isinstance(await _try(locks), int)


async def test_redis_holds_no_address(locks: Locks, redis: Redis) -> None:
    await _try(locks, login="canary@example.com", address="203.0.113.77")
    kept = [str(key) + str(await redis.hgetall(key)) for key in await redis.keys("*")]
    assert len(kept) == 2
    assert not any("canary" in each or "203.0.113.77" in each for each in kept)


async def test_without_redis_nobody_gets_in() -> None:
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(LocksUnavailable):
        await Locks(nowhere, _KEY).begin("acct_1", "ada@example.com", "192.0.2.1")
    await nowhere.aclose()
