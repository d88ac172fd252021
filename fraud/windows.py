"""What is remembered of the past: its windows and bounds, and the picture of it that one payment gets.

Two classes take payments and give these pictures: `fraud.state.StreamingState` in memory (training) and
`fraud.store.FeatureStore` in Redis (serving). A test feeds both the same stream and wants the same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

from fraud.events import Place

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# Sliding windows over (t - length, t], by the payment's own time.
WINDOW_NAMES = ("1m", "1h", "24h", "7d")
WINDOWS_MS = (MINUTE_MS, HOUR_MS, DAY_MS, 7 * DAY_MS)

# A merchant may have any number of payments, so its windows are sums of cells: (window, cell). They cover at least the
# window and at most one cell more.
MERCHANT_CELLS_MS = (
    (WINDOWS_MS[0], 5 * SECOND_MS),
    (WINDOWS_MS[1], 5 * MINUTE_MS),
    (WINDOWS_MS[2], HOUR_MS),
    (WINDOWS_MS[3], 6 * HOUR_MS),
)

# Card testers try amounts that nobody disputes.
SMALL_CENTS = 500
BURST_MS = 10 * MINUTE_MS

# The newest payments kept of each card, user, device and address. A count cannot rise above it: no rule's limit may.
TIMELINE_PAYMENTS = 256
HISTORY_AMOUNTS = 32
KNOWN_THINGS = 128
DECLINES = 64
DECLINE_WINDOW_MS = HOUR_MS

# How long is kept what nobody touches; by the clock, not by the payments' own times: one payment dated far ahead or
# late changes nothing of it. A payment is remembered for longer than the longest window, or asking again would count
# it again.
TIMELINE_TTL_MS = 8 * DAY_MS
PROFILE_TTL_MS = 180 * DAY_MS


@dataclass(frozen=True, slots=True)
class Velocity:
    """Payments of one card, user, device or address, with the payment that asks.

    `counts` and `cents` go with `WINDOWS_MS`. `small` counts payments under `SMALL_CENTS` within `BURST_MS`;
    `cards_1h` and `cards_24h` count different cards.
    """

    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    cents: tuple[int, int, int, int] = (0, 0, 0, 0)
    small: int = 0
    cards_1h: int = 0
    cards_24h: int = 0


NOTHING = Velocity()


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where and when the card was last seen at a place it could have reached."""

    place: Place
    at_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The past as one payment finds it. Velocities include the payment itself, everything else is from before it.

    `history` are the card's last amounts (cents, newest first). The `*_since_ms` are first sightings and
    `previous_at_ms` the card's newest payment, None where there is none. The flags say what the card or the user
    was seen with before.
    """

    card: Velocity
    user: Velocity
    device: Velocity
    ip: Velocity
    merchant: Velocity
    card_declines: int
    device_declines: int
    ip_declines: int
    card_knows_device: bool
    card_knows_merchant: bool
    card_knows_category: bool
    user_knows_device: bool
    user_knows_card: bool
    card_since_ms: int | None
    user_since_ms: int | None
    device_since_ms: int | None
    previous_at_ms: int | None
    anchor: Anchor | None
    history: tuple[int, ...]
