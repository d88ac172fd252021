"""Places and speeds on the sphere."""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG

# An airliner cruises at about 900 km/h; below 500 km a place that was guessed from a cell or an address may be off by
# enough to imply any speed.
IMPOSSIBLE_SPEED_KMH = 1000.0
IMPOSSIBLE_DISTANCE_KM = 500.0

# Nearer in time than this counts as this, so that two payments in one second have a finite speed.
_SHORTEST_JOURNEY_MS = 1000
_MS_PER_HOUR = 3_600_000


def distance_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Great-circle distance of two places in degrees (haversine)."""
    phi, other_phi = radians(latitude), radians(other_latitude)
    a = sin((other_phi - phi) / 2) ** 2 + cos(phi) * cos(other_phi) * sin(radians(other_longitude - longitude) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * asin(sqrt(min(1.0, a)))


def speed_kmh(distance: float, elapsed_ms: int) -> float:
    """The speed that `distance` kilometres in `elapsed_ms` imply; in whichever order the two payments were made."""
    return distance * _MS_PER_HOUR / max(abs(elapsed_ms), _SHORTEST_JOURNEY_MS)


def impossible(distance: float, elapsed_ms: int) -> bool:
    """Whether nobody travels `distance` kilometres in `elapsed_ms`."""
    return distance > IMPOSSIBLE_DISTANCE_KM and speed_kmh(distance, elapsed_ms) > IMPOSSIBLE_SPEED_KMH
