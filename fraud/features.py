"""Features: pure functions of a payment and its picture of the past, the same in training and in serving.

Amounts are on the common scale of `fraud.amounts`, in whole units (dollars). −1 stands for "not known". Counts and sums
include the payment itself, so that a known device has at least 1 and an unknown one 0.
"""

from __future__ import annotations

import hashlib

from fraud import geo
from fraud.events import PaymentEvent
from fraud.windows import DAY_MS, HOUR_MS, SECOND_MS, WINDOW_NAMES, Snapshot, Velocity

# Raised whenever a feature's meaning changes under the same name: models trained before it are then refused.
FEATURES_VERSION = 1

_UNKNOWN = -1.0
_PERSONAL = ("card", "user", "device", "ip")


def _velocity_names(kind: str) -> list[str]:
    return [f"{kind}_{what}_{window}" for what in ("count", "amount") for window in WINDOW_NAMES]


FEATURE_NAMES: tuple[str, ...] = (
    "amount",
    "hour",
    "is_night",
    "is_weekend",
    *_velocity_names("card"),
    *_velocity_names("user"),
    *_velocity_names("device"),
    *_velocity_names("ip"),
    *_velocity_names("merchant"),
    *(f"{kind}_small_10m" for kind in _PERSONAL),
    *(f"{kind}_cards_{window}" for kind in ("user", "device", "ip") for window in ("1h", "24h")),
    "card_declines_1h",
    "device_declines_1h",
    "ip_declines_1h",
    "card_history_count",
    "card_mean_amount",
    "card_max_amount",
    "amount_to_mean",
    "amount_to_median",
    "amount_to_max",
    "seconds_since_last",
    "card_age_days",
    "user_age_days",
    "device_age_days",
    "distance_km",
    "speed_kmh",
    "is_first_payment",
    "is_new_device_for_card",
    "is_new_merchant_for_card",
    "is_new_category_for_card",
    "is_new_device_for_user",
    "is_new_card_for_user",
    "has_device",
    "has_ip",
    "has_place",
    "category_remote",
    "category_travel",
    "category_cash_like",
    "category_resale",
)

# What a model may see. Not a merchant's volume: its size is no sign of fraud, and no training set here has large
# merchants. Not the declines: they are reported by others and may be missing, which a rule survives and a model not.
MODEL_FEATURES: tuple[str, ...] = tuple(
    name for name in FEATURE_NAMES if not name.startswith("merchant_") and "_declines_" not in name
)

# Groups of merchant category codes (ISO 18245): first and last code, inclusive.
_REMOTE = ((4816, 4816), (5815, 5818), (5960, 5969), (5999, 5999))
_TRAVEL = ((3000, 3999), (4411, 4411), (4511, 4511), (4722, 4722), (7011, 7011))
_CASH_LIKE = ((4829, 4829), (6010, 6012), (6050, 6051), (6211, 6211), (6536, 6540), (7800, 7802), (7995, 7995))
_RESALE = ((5045, 5045), (5094, 5094), (5311, 5311), (5732, 5734), (5944, 5944))


def feature_values(event: PaymentEvent, past: Snapshot) -> dict[str, float]:
    """The values of all `FEATURE_NAMES`, in their order."""
    return (
        {"amount": event.cents / 100}
        | _time(event)
        | _velocities(past)
        | _history(event, past)
        | _journey(event, past)
        | _novelty(event, past)
        | {
            "has_device": float(event.device is not None),
            "has_ip": float(event.ip is not None),
            "has_place": float(event.place is not None),
            "category_remote": _in_group(event.category, _REMOTE),
            "category_travel": _in_group(event.category, _TRAVEL),
            "category_cash_like": _in_group(event.category, _CASH_LIKE),
            "category_resale": _in_group(event.category, _RESALE),
        }
    )


def schema_hash(names: tuple[str, ...]) -> str:
    """What a model was trained on: SHA-256 of the features' version, names and order."""
    return hashlib.sha256(f"{FEATURES_VERSION}\n{chr(10).join(names)}".encode()).hexdigest()


def _time(event: PaymentEvent) -> dict[str, float]:
    """Solar time at the payer's place. Without a place the hour is not known: UTC's is nobody's habit."""
    offset_ms = event.place.longitude / 15 * HOUR_MS if event.place else 0.0
    local_ms = event.at_ms + offset_ms
    hour = local_ms % DAY_MS / HOUR_MS if event.place else _UNKNOWN
    weekday = (local_ms // DAY_MS + 3) % 7  # 1 January 1970 was a Thursday
    return {"hour": hour, "is_night": float(0 <= hour < 6), "is_weekend": float(weekday >= 5)}


def _velocities(past: Snapshot) -> dict[str, float]:
    values: dict[str, float] = {}
    kinds: tuple[tuple[str, Velocity], ...] = (
        ("card", past.card),
        ("user", past.user),
        ("device", past.device),
        ("ip", past.ip),
        ("merchant", past.merchant),
    )
    for kind, velocity in kinds:
        for window, count in zip(WINDOW_NAMES, velocity.counts, strict=True):
            values[f"{kind}_count_{window}"] = float(count)
        for window, cents in zip(WINDOW_NAMES, velocity.cents, strict=True):
            values[f"{kind}_amount_{window}"] = cents / 100
    for kind, velocity in kinds[:4]:
        values[f"{kind}_small_10m"] = float(velocity.small)
    for kind, velocity in kinds[1:4]:
        values[f"{kind}_cards_1h"] = float(velocity.cards_1h)
        values[f"{kind}_cards_24h"] = float(velocity.cards_24h)
    values["card_declines_1h"] = float(past.card_declines)
    values["device_declines_1h"] = float(past.device_declines)
    values["ip_declines_1h"] = float(past.ip_declines)
    return values


def _history(event: PaymentEvent, past: Snapshot) -> dict[str, float]:
    """The amount against the card's last ones (32 at most)."""
    history = past.history
    if not history:
        return dict.fromkeys(_HISTORY_NAMES, _UNKNOWN) | {"card_history_count": 0.0}
    ordered = sorted(history)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    mean = sum(ordered) / len(ordered)
    # A dollar more on both sides keeps a ratio to a history of cents finite.
    return {
        "card_history_count": float(len(history)),
        "card_mean_amount": mean / 100,
        "card_max_amount": ordered[-1] / 100,
        "amount_to_mean": (event.cents + 100) / (mean + 100),
        "amount_to_median": (event.cents + 100) / (median + 100),
        "amount_to_max": (event.cents + 100) / (ordered[-1] + 100),
    }


_HISTORY_NAMES = (
    "card_history_count", "card_mean_amount", "card_max_amount", "amount_to_mean", "amount_to_median", "amount_to_max",
)  # fmt: skip


def _journey(event: PaymentEvent, past: Snapshot) -> dict[str, float]:
    distance = speed = _UNKNOWN
    if event.place and past.anchor:
        before = past.anchor.place
        distance = geo.distance_km(before.latitude, before.longitude, event.place.latitude, event.place.longitude)
        speed = geo.speed_kmh(distance, event.at_ms - past.anchor.at_ms)
    return {
        "seconds_since_last": _since(event, past.previous_at_ms, SECOND_MS),
        "card_age_days": _since(event, past.card_since_ms, DAY_MS),
        "user_age_days": _since(event, past.user_since_ms, DAY_MS),
        "device_age_days": _since(event, past.device_since_ms, DAY_MS),
        "distance_km": distance,
        "speed_kmh": speed,
    }


def _novelty(event: PaymentEvent, past: Snapshot) -> dict[str, float]:
    """First sightings; what is absent is not new."""
    has_device = event.device is not None
    return {
        "is_first_payment": float(not past.history),
        "is_new_device_for_card": float(has_device and not past.card_knows_device),
        "is_new_merchant_for_card": float(not past.card_knows_merchant),
        "is_new_category_for_card": float(not past.card_knows_category),
        "is_new_device_for_user": float(has_device and not past.user_knows_device),
        "is_new_card_for_user": float(not past.user_knows_card),
    }


def _since(event: PaymentEvent, moment_ms: int | None, unit_ms: int) -> float:
    return _UNKNOWN if moment_ms is None else max(0, event.at_ms - moment_ms) / unit_ms


def _in_group(category: int, group: tuple[tuple[int, int], ...]) -> float:
    return float(any(first <= category <= last for first, last in group))
