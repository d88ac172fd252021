"""The store in Redis and the state in memory are twins: same stream, same pictures."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from fraud.events import PaymentEvent, Place
from fraud.features import feature_values
from fraud.state import StreamingState
from fraud.store import FeatureStore
from fraud.windows import DAY_MS, HISTORY_AMOUNTS, KNOWN_THINGS, MINUTE_MS, TIMELINE_PAYMENTS, TIMELINE_TTL_MS

_START_MS = 1_780_000_000_000

_ids = st.sampled_from(("a", "b"))
# Steps from a millisecond to days, backwards too: payments arrive out of order.
_steps = st.one_of(
    st.sampled_from((0, 1, 59_999, 60_000, 3_600_000, 86_400_000, 604_800_000, -1, -60_000, -86_400_000)),
    st.integers(-7_200_000, 200_000_000),
)
_places = st.sampled_from((None, Place(40.7, -74.0), Place(40.9, -73.5), Place(-33.87, 151.21), Place(51.5, -0.13)))


@st.composite
def _streams(draw: st.DrawFn) -> list[PaymentEvent]:
    at_ms = _START_MS
    events: list[PaymentEvent] = []
    for number in range(draw(st.integers(1, 12))):
        at_ms += draw(_steps)
        if events and draw(st.integers(0, 9)) == 0:
            events.append(draw(st.sampled_from(events)))
            continue
        events.append(
            PaymentEvent(
                payment=f"p{number}",
                card=f"card-{draw(_ids)}",
                user=f"user-{draw(_ids)}",
                merchant=f"merchant-{draw(_ids)}",
                category=draw(st.sampled_from((0, 5411, 5732))),
                cents=draw(st.sampled_from((0, 1, 499, 500, 20_000, 999_999_999_999))),
                at_ms=at_ms,
                device=draw(st.sampled_from((None, "device-a", "device-b"))),
                ip=draw(st.sampled_from((None, "ip-a", "ip-b"))),
                place=draw(_places),
            )
        )
    return events


def _event(number: int = 0, at_ms: int = _START_MS) -> PaymentEvent:
    return PaymentEvent(f"p{number}", "c", "u", "m", 5411, 100 + number, at_ms, "d", "i", Place(40.7, -74.0))


# How long nothing arrives. Sums of them are never a lifetime to the millisecond: real time goes on beside them.
_pauses = st.sampled_from((0, 0, 0, *(days * DAY_MS + MINUTE_MS for days in (1, 3, 7, 8, 90, 180))))

_against_redis = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


async def _let_pass(redis: Redis, prefix: str, pause_ms: int) -> None:
    """Brings the end of every key nearer, as if `pause_ms` had gone by."""
    keys = await redis.keys(f"{prefix}:*")
    async with redis.pipeline() as pipeline:
        for key in keys:
            pipeline.pttl(key)
        left = await pipeline.execute()
        for key, left_ms in zip(keys, left, strict=True):
            pipeline.pexpire(key, left_ms - pause_ms)
        await pipeline.execute()


@_against_redis
@given(events=_streams(), declined=st.booleans())
@example(events=[_event(0), _event(1, _START_MS + TIMELINE_TTL_MS + 1), _event(0)], declined=False)
@example(events=[_event(0), _event(1, _START_MS + 181 * DAY_MS), _event(2)], declined=True)
async def test_redis_and_memory_give_the_same_pictures_of_any_stream(
    redis: Redis, events: list[PaymentEvent], declined: bool
) -> None:
    store, state = FeatureStore(redis, prefix=secrets.token_hex(6)), StreamingState()
    for event in events:
        if declined:
            await store.record_decline(event)
            state.record_decline(event, arrived_ms=_START_MS)
        kept, computed = await store.observe(event), state.observe(event, arrived_ms=_START_MS)
        assert kept == computed
        assert feature_values(event, kept) == feature_values(event, computed)


@_against_redis
@given(stream=_streams().flatmap(lambda events: st.tuples(*(st.tuples(_pauses, st.just(event)) for event in events))))
@example(stream=((0, _event(0)), (5 * DAY_MS, _event(1)), (4 * DAY_MS, _event(0))))
@example(stream=((0, _event(0)), (9 * DAY_MS, _event(1)), (181 * DAY_MS, _event(2))))
async def test_redis_and_memory_forget_alike_whenever_payments_arrive(
    redis: Redis, stream: tuple[tuple[int, PaymentEvent], ...]
) -> None:
    prefix, now_ms = secrets.token_hex(6), _START_MS
    store, state = FeatureStore(redis, prefix=prefix), StreamingState()
    for number, (pause_ms, event) in enumerate(stream):
        now_ms += pause_ms
        if pause_ms:
            await _let_pass(redis, prefix, pause_ms)
        assert await store.observe(event) == state.observe(event, arrived_ms=now_ms)
        if number % 2:
            await store.record_decline(event)
            state.record_decline(event, arrived_ms=now_ms)


async def test_the_twins_agree_where_memory_is_full(redis: Redis) -> None:
    store, state = FeatureStore(redis), StreamingState()
    for number in range(TIMELINE_PAYMENTS + 20):
        event = replace(
            _event(number, _START_MS + (number * 7919 % 1000) * 100),
            merchant=f"m{number % (KNOWN_THINGS + 30)}",
            card=f"c{number % 3}",
        )
        assert await store.observe(event) == state.observe(event)
    full = await store.observe(_event(9999, _START_MS + 200_000))
    assert full.device.counts[3] == TIMELINE_PAYMENTS


async def test_every_key_is_bounded_and_expires(redis: Redis) -> None:
    store = FeatureStore(redis)
    for number in range(300):
        await store.observe(replace(_event(number, _START_MS + number * 3_000_000), merchant="m"))
        await store.record_decline(_event(number, _START_MS + number * 1000))
    async for key in redis.scan_iter("*"):
        assert await redis.pttl(key) > 0, key
    assert await redis.zcard("risk:card:c:payments") <= TIMELINE_PAYMENTS
    assert await redis.llen("risk:card:c:history") == HISTORY_AMOUNTS
    assert await redis.zcard("risk:card:c:known") <= KNOWN_THINGS
    assert await redis.zcard("risk:card:c:declines") <= 64
    # Four levels of cells, a count and a sum each.
    assert await redis.hlen("risk:merchant:m:volume") <= 2 * (13 + 13 + 25 + 29)


async def test_a_payment_counts_once_however_many_ask_at_once(redis: Redis) -> None:
    store = FeatureStore(redis)
    pictures = await asyncio.gather(*(store.observe(_event()) for _ in range(50)))
    assert set(pictures) == {pictures[0]}
    later = await store.observe(_event(1, _START_MS + 1000))
    assert later.card.counts == later.merchant.counts == (2, 2, 2, 2)


async def test_payments_at_once_see_each_other_exactly(redis: Redis) -> None:
    store = FeatureStore(redis)
    pictures = await asyncio.gather(*(store.observe(_event(number)) for number in range(40)))
    assert sorted(picture.card.counts[0] for picture in pictures) == list(range(1, 41))
    assert sum(picture.previous_at_ms is None for picture in pictures) == 1


async def test_one_payment_is_one_round_trip(redis: Redis) -> None:
    store = FeatureStore(redis)
    await store.observe(_event())
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await store.observe(_event(1))
    statistics = await redis.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == before + 1


async def test_the_script_is_loaded_again_after_redis_lost_it(redis: Redis) -> None:
    store = FeatureStore(redis)
    await store.observe(_event())
    await redis.script_flush()
    assert (await store.observe(_event(1))).card.counts[0] == 2


async def test_a_client_that_decodes_answers_works_too(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url, decode_responses=True) as decoding:
        assert await FeatureStore(decoding).observe(_event()) == await FeatureStore(redis).observe(_event())
