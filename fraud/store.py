"""The past in Redis (or Valkey): the twin of `fraud.state` that serves live payments.

One Lua script counts a payment and returns its picture of the past: one round trip, atomic, and the same answer when
the same payment is asked about again. Memory is bounded per key (newest payments, cells, TTLs); an answer is kept for
eight days and takes about half a kilobyte. The script touches the keys of a card, a user, a device, an address and a
merchant together, so it needs one primary (with replicas), not a cluster.
"""

from __future__ import annotations

from pathlib import Path

from redis.asyncio import Redis

from fraud import geo, windows
from fraud.events import PaymentEvent, Place
from fraud.windows import Anchor, Snapshot, Velocity

_CONSTANTS = f"""\
local WINDOWS = {{{", ".join(map(str, windows.WINDOWS_MS))}}}
local CELLS = {{{", ".join(str(cell) for _, cell in windows.MERCHANT_CELLS_MS)}}}
local HOUR, DAY, BURST, SMALL = {windows.HOUR_MS}, {windows.DAY_MS}, {windows.BURST_MS}, {windows.SMALL_CENTS}
local TIMELINE_PAYMENTS, HISTORY_AMOUNTS = {windows.TIMELINE_PAYMENTS}, {windows.HISTORY_AMOUNTS}
local KNOWN_THINGS, DECLINE_WINDOW = {windows.KNOWN_THINGS}, {windows.DECLINE_WINDOW_MS}
local TIMELINE_TTL, PROFILE_TTL = '{windows.TIMELINE_TTL_MS}', '{windows.PROFILE_TTL_MS}'
local EARTH_RADIUS = {geo.EARTH_RADIUS_KM}
local IMPOSSIBLE_SPEED, IMPOSSIBLE_DISTANCE = {geo.IMPOSSIBLE_SPEED_KMH}, {geo.IMPOSSIBLE_DISTANCE_KM}
"""
_SCRIPT = _CONSTANTS + (Path(__file__).parent / "velocity.lua").read_text()

_VELOCITY_NUMBERS = 11


class FeatureStore:
    """`redis` is a client of its own pool; `prefix` stands before every key."""

    def __init__(self, redis: Redis, prefix: str = "risk") -> None:
        self._redis = redis
        self._prefix = prefix
        self._script = redis.register_script(_SCRIPT)

    async def observe(self, event: PaymentEvent) -> Snapshot:
        """Counts `event`, once, and gives its picture of the past; asked again, the same one.

        Raises:
            redis.exceptions.RedisError, OSError: Redis did not answer. The payment may have been counted.
        """
        place = event.place
        arguments = [
            str(event.at_ms),
            str(event.cents),
            event.card,
            event.payment,
            event.merchant,
            str(event.category),
            event.device or "",
            repr(place.latitude) if place else "",
            repr(place.longitude) if place else "",
        ]
        answer = await self._script(keys=self._keys(event), args=arguments)
        return _snapshot(answer.decode() if isinstance(answer, bytes) else answer)

    async def record_decline(self, event: PaymentEvent) -> None:
        """Counts the issuer's "no" to `event`, once: what later payments of its card, device and address find.

        Raises:
            redis.exceptions.RedisError, OSError: Redis did not answer; recording again is safe.
        """
        async with self._redis.pipeline(transaction=True) as pipeline:
            for key in self._decline_keys(event):
                if key:
                    pipeline.zadd(key, {event.payment: event.at_ms})
                    pipeline.zremrangebyrank(key, 0, -(windows.DECLINES + 1))
                    pipeline.pexpire(key, windows.TIMELINE_TTL_MS)
            await pipeline.execute()

    def _keys(self, event: PaymentEvent) -> list[str]:
        card, user = f"{self._prefix}:card:{event.card}", f"{self._prefix}:user:{event.user}"
        device = f"{self._prefix}:device:{event.device}" if event.device else None
        return [
            f"{self._prefix}:payment:{event.payment}",
            f"{card}:payments",
            f"{user}:payments",
            f"{device}:payments" if device else "",
            f"{self._prefix}:ip:{event.ip}:payments" if event.ip else "",
            f"{self._prefix}:merchant:{event.merchant}:volume",
            *self._decline_keys(event),
            f"{card}:known",
            f"{user}:known",
            f"{card}:since",
            f"{user}:since",
            f"{device}:since" if device else "",
            f"{card}:profile",
            f"{card}:history",
        ]

    def _decline_keys(self, event: PaymentEvent) -> list[str]:
        return [
            f"{self._prefix}:card:{event.card}:declines",
            f"{self._prefix}:device:{event.device}:declines" if event.device else "",
            f"{self._prefix}:ip:{event.ip}:declines" if event.ip else "",
        ]


def _snapshot(answer: str) -> Snapshot:
    """The script's answer: numbers between commas, an empty one where there is nothing."""
    parts = answer.split(",")
    start = 4 * _VELOCITY_NUMBERS
    merchant = [int(part) for part in parts[start : start + 8]]
    declines = [int(part) for part in parts[start + 8 : start + 11]]
    flags = [part == "1" for part in parts[start + 11 : start + 16]]
    times = [int(part) if part else None for part in parts[start + 16 : start + 20]]
    latitude, longitude, anchored = parts[start + 20 : start + 23]
    card, user, device, ip = (
        _velocity([int(part) for part in parts[at : at + _VELOCITY_NUMBERS]])
        for at in range(0, start, _VELOCITY_NUMBERS)
    )
    return Snapshot(
        card=card,
        user=user,
        device=device,
        ip=ip,
        merchant=_velocity([*merchant, 0, 0, 0]),
        card_declines=declines[0],
        device_declines=declines[1],
        ip_declines=declines[2],
        card_knows_device=flags[0],
        card_knows_merchant=flags[1],
        card_knows_category=flags[2],
        user_knows_device=flags[3],
        user_knows_card=flags[4],
        card_since_ms=times[0],
        user_since_ms=times[1],
        device_since_ms=times[2],
        previous_at_ms=times[3],
        anchor=Anchor(Place(float(latitude), float(longitude)), int(anchored)) if anchored else None,
        history=tuple(int(part) for part in parts[start + 23 :]),
    )


def _velocity(numbers: list[int]) -> Velocity:
    count_1m, cents_1m, count_1h, cents_1h, count_24h, cents_24h, count_7d, cents_7d, *rest = numbers
    return Velocity((count_1m, count_1h, count_24h, count_7d), (cents_1m, cents_1h, cents_24h, cents_7d), *rest)
