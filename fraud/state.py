"""The past in memory: what training runs over stored events. Pure; `fraud.store` is its twin in Redis."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fraud import geo
from fraud.events import PaymentEvent
from fraud.windows import (
    BURST_MS,
    DAY_MS,
    DECLINE_WINDOW_MS,
    DECLINES,
    HISTORY_AMOUNTS,
    HOUR_MS,
    KNOWN_THINGS,
    MERCHANT_CELLS_MS,
    NOTHING,
    PROFILE_TTL_MS,
    SMALL_CENTS,
    TIMELINE_PAYMENTS,
    TIMELINE_TTL_MS,
    WINDOWS_MS,
    Anchor,
    Snapshot,
    Velocity,
)

_T = TypeVar("_T")

# (time, key, cents, card). The key makes it unique and orders payments of the same millisecond as Redis does.
Entry = tuple[int, str, int, str]

_LONGEST_MS = WINDOWS_MS[-1]


def velocity_at(entries: Sequence[Entry], at_ms: int) -> Velocity:
    """The sliding windows that end at `at_ms`, over `entries` in rising order of time; later ones do not count."""
    counts, cents = [0, 0, 0, 0], [0, 0, 0, 0]
    small = 0
    cards_1h: set[str] = set()
    cards_24h: set[str] = set()
    for time, _, amount, card in reversed(entries):
        age = at_ms - time
        if age < 0:
            continue
        if age >= _LONGEST_MS:
            break
        if age < DAY_MS:
            cards_24h.add(card)
            if age < HOUR_MS:
                cards_1h.add(card)
                if age < BURST_MS and amount < SMALL_CENTS:
                    small += 1
        for index in range(3, -1, -1):
            if age >= WINDOWS_MS[index]:
                break
            counts[index] += 1
            cents[index] += amount
    return Velocity(
        (counts[0], counts[1], counts[2], counts[3]),
        (cents[0], cents[1], cents[2], cents[3]),
        small,
        len(cards_1h),
        len(cards_24h),
    )


class Timeline:
    """The newest payments of one card, user, device or address: at most seven days and `TIMELINE_PAYMENTS` of them.

    A payment that lies seven days or more behind the newest is in no window any more, not even in its own.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def add(self, event: PaymentEvent) -> Velocity:
        entry = (event.at_ms, f"{event.cents}|{event.card}|{event.payment}", event.cents, event.card)
        position = bisect_left(self._entries, entry)
        # Its answer may be forgotten while the payment itself is still here.
        if self._entries[position : position + 1] != [entry]:
            self._entries.insert(position, entry)
        oldest = self._entries[-1][0] - _LONGEST_MS
        stale = bisect_right(self._entries, oldest, key=lambda entry: entry[0])
        del self._entries[: max(stale, len(self._entries) - TIMELINE_PAYMENTS)]
        return velocity_at(self._entries, event.at_ms)


class MerchantVolume:
    """A merchant's windows as sums of cells: bounded, whatever its traffic."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: tuple[dict[int, tuple[int, int]], ...] = tuple({} for _ in MERCHANT_CELLS_MS)

    def add(self, event: PaymentEvent) -> Velocity:
        sums: list[tuple[int, int]] = []
        for cells, (window, width) in zip(self._levels, MERCHANT_CELLS_MS, strict=True):
            current = event.at_ms // width
            oldest = (event.at_ms - window) // width
            count, cents = cells.get(current, (0, 0))
            cells[current] = (count + 1, cents + event.cents)
            for cell in [cell for cell in cells if cell < oldest]:
                del cells[cell]
            counted = [value for cell, value in cells.items() if cell <= current]
            sums.append((sum(count for count, _ in counted), sum(cents for _, cents in counted)))
        return Velocity(
            (sums[0][0], sums[1][0], sums[2][0], sums[3][0]), (sums[0][1], sums[1][1], sums[2][1], sums[3][1])
        )


class Known:
    """The newest things something was seen with; the oldest is forgotten first."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def meet(self, thing: str, at_ms: int) -> bool:
        """Remembers `thing` and says whether it was known."""
        known = thing in self._seen
        self._seen[thing] = max(at_ms, self._seen.get(thing, at_ms))
        return known

    def trim(self) -> None:
        while len(self._seen) > KNOWN_THINGS:
            del self._seen[min(self._seen, key=lambda thing: (self._seen[thing], thing))]


@dataclass(slots=True)
class _Profile:
    """What is kept of a card, a user or a device beside its timeline."""

    since_ms: int | None = None
    last_ms: int | None = None
    anchor: Anchor | None = None
    history: list[int] = field(default_factory=list)
    known: Known = field(default_factory=Known)


class _Kept(Generic[_T]):
    """Things by their key. One that nobody touched for longer than `ttl_ms` is forgotten, as a key in Redis is."""

    __slots__ = ("_make", "_things", "_ttl_ms")

    def __init__(self, make: Callable[[], _T], ttl_ms: int) -> None:
        self._make = make
        self._ttl_ms = ttl_ms
        self._things: dict[str, tuple[int, _T]] = {}

    def find(self, key: str, now_ms: int) -> _T | None:
        kept = self._things.get(key)
        return kept[1] if kept is not None and now_ms - kept[0] <= self._ttl_ms else None

    def touch(self, key: str, now_ms: int) -> _T:
        """What is kept under `key`, for another `ttl_ms` from now; a new one where there is none."""
        found = self.find(key, now_ms)
        thing = self._make() if found is None else found
        self._things[key] = (now_ms, thing)
        return thing


class StreamingState:
    """Takes payments one by one, in any order, and gives each its picture of the past. One payment id counts once.

    Windows go by the payments' own times; forgetting goes by a clock, as in Redis. The clock shows when the newest
    payment arrived and never goes back. Without an `arrived_ms` a payment arrives at its own time: that plays a stored
    stream. With one, a payment dated far ahead makes nothing be forgotten.
    """

    def __init__(self) -> None:
        self._now_ms = 0
        self._timelines = _Kept(Timeline, TIMELINE_TTL_MS)
        self._merchants = _Kept(MerchantVolume, TIMELINE_TTL_MS)
        self._profiles = _Kept(_Profile, PROFILE_TTL_MS)
        self._declines = _Kept[list[tuple[int, str]]](list, TIMELINE_TTL_MS)
        self._answers: OrderedDict[str, tuple[int, Snapshot]] = OrderedDict()

    def observe(self, event: PaymentEvent, arrived_ms: int | None = None) -> Snapshot:
        """Counts `event`, once, and gives its picture; asked again within `TIMELINE_TTL_MS`, the same one."""
        self._advance(event, arrived_ms)
        # The clock never goes back, so the first answer is the oldest.
        while self._answers and self._now_ms - next(iter(self._answers.values()))[0] > TIMELINE_TTL_MS:
            self._answers.popitem(last=False)
        answered = self._answers.get(event.payment)
        if answered is not None:
            return answered[1]
        snapshot = self._count(event)
        self._answers[event.payment] = (self._now_ms, snapshot)
        return snapshot

    def record_decline(self, event: PaymentEvent, arrived_ms: int | None = None) -> None:
        """Counts the issuer's "no" to `event`, once."""
        self._advance(event, arrived_ms)
        for key in _decline_keys(event):
            if key:
                declines = self._declines.touch(key, self._now_ms)
                if (event.at_ms, event.payment) not in declines:
                    insort(declines, (event.at_ms, event.payment))
                    del declines[:-DECLINES]

    def _advance(self, event: PaymentEvent, arrived_ms: int | None) -> None:
        self._now_ms = max(self._now_ms, event.at_ms if arrived_ms is None else arrived_ms)

    def _count(self, event: PaymentEvent) -> Snapshot:
        at_ms = event.at_ms
        card = self._profiles.touch(f"card:{event.card}", self._now_ms)
        user = self._profiles.touch(f"user:{event.user}", self._now_ms)
        device = self._profiles.touch(f"device:{event.device}", self._now_ms) if event.device else _Profile()
        card_declines, device_declines, ip_declines = self._declined(event)
        snapshot = Snapshot(
            card=self._velocity(f"card:{event.card}", event),
            user=self._velocity(f"user:{event.user}", event),
            device=self._velocity(f"device:{event.device}", event) if event.device else NOTHING,
            ip=self._velocity(f"ip:{event.ip}", event) if event.ip else NOTHING,
            merchant=self._merchants.touch(event.merchant, self._now_ms).add(event),
            card_declines=card_declines,
            device_declines=device_declines,
            ip_declines=ip_declines,
            card_knows_device=bool(event.device) and card.known.meet(f"d{event.device}", at_ms),
            card_knows_merchant=card.known.meet(f"m{event.merchant}", at_ms),
            card_knows_category=card.known.meet(f"c{event.category}", at_ms),
            user_knows_device=bool(event.device) and user.known.meet(f"d{event.device}", at_ms),
            user_knows_card=user.known.meet(f"k{event.card}", at_ms),
            card_since_ms=card.since_ms,
            user_since_ms=user.since_ms,
            device_since_ms=device.since_ms,
            previous_at_ms=card.last_ms,
            anchor=card.anchor,
            history=tuple(card.history),
        )
        for profile in (card, user, device):
            _remember(profile, at_ms)
        card.history.insert(0, event.cents)
        del card.history[HISTORY_AMOUNTS:]
        card.anchor = next_anchor(card.anchor, event)
        return snapshot

    def _velocity(self, key: str, event: PaymentEvent) -> Velocity:
        return self._timelines.touch(key, self._now_ms).add(event)

    def _declined(self, event: PaymentEvent) -> list[int]:
        return [self._declines_before(event.at_ms, key) if key else 0 for key in _decline_keys(event)]

    def _declines_before(self, at_ms: int, key: str) -> int:
        declines = self._declines.find(key, self._now_ms) or ()
        return sum(0 <= at_ms - time < DECLINE_WINDOW_MS for time, _ in declines)


def next_anchor(anchor: Anchor | None, event: PaymentEvent) -> Anchor | None:
    """The anchor after `event`. An impossible jump does not move it: the next payment from there would look at home."""
    if event.place is None:
        return anchor
    if anchor is not None:
        distance = geo.distance_km(
            anchor.place.latitude, anchor.place.longitude, event.place.latitude, event.place.longitude
        )
        if event.at_ms < anchor.at_ms or geo.impossible(distance, event.at_ms - anchor.at_ms):
            return anchor
    return Anchor(event.place, event.at_ms)


def _remember(profile: _Profile, at_ms: int) -> None:
    profile.known.trim()
    profile.since_ms = at_ms if profile.since_ms is None else profile.since_ms
    profile.last_ms = at_ms if profile.last_ms is None else max(at_ms, profile.last_ms)


def _decline_keys(event: PaymentEvent) -> tuple[str | None, str | None, str | None]:
    return (
        f"card:{event.card}",
        f"device:{event.device}" if event.device else None,
        f"ip:{event.ip}" if event.ip else None,
    )
