"""The payment as the features see it: the same for a live request and for a stored event in training."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime

from domain.risk import RiskRequest
from fraud.amounts import scaled_cents


@dataclass(frozen=True, slots=True)
class Place:
    """Degrees, WGS 84."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """One payment. Ids are opaque and hold neither `|` nor `,`; `at_ms` is Unix time; `cents` are on the common scale.

    Raises:
        ValueError: an id is empty or holds a separator, or an amount or a time is negative.
    """

    payment: str
    card: str
    user: str
    merchant: str
    category: int
    cents: int
    at_ms: int
    device: str | None = None
    ip: str | None = None
    place: Place | None = None

    def __post_init__(self) -> None:
        ids = f"{self.payment}{self.card}{self.user}{self.merchant}"
        if "|" in ids or "," in ids or not (self.payment and self.card and self.user and self.merchant):
            raise ValueError("an id is empty or holds a separator")
        if self.cents < 0 or self.at_ms < 0:
            raise ValueError("amounts and times are not negative")


def event_of(request: RiskRequest) -> PaymentEvent:
    """The event of a live request.

    Ids become digests: they are then short, of one alphabet, and no address stands in a key. A place that is not on
    the globe counts as absent.
    """
    signals = request.signals
    return PaymentEvent(
        payment=_digest(request.payment_id),
        card=_digest(request.card_id),
        user=_digest(request.user_id),
        merchant=_digest(request.account_id, request.merchant_id),
        category=int(request.merchant_category_code) if request.merchant_category_code.isdecimal() else 0,
        cents=scaled_cents(request.money),
        at_ms=_milliseconds(request.requested_at),
        device=_digest(signals.device_id) if signals.device_id else None,
        ip=_digest(_network(signals.ip_address)) if signals.ip_address else None,
        place=_place(signals.latitude, signals.longitude),
    )


def _milliseconds(moment: datetime) -> int:
    """Unix time; a datetime without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)


def _network(address: str) -> str:
    """The address, for IPv6 its /64: one household or host has the whole of it (RFC 6177) and may use any of it."""
    try:
        parsed = ipaddress.ip_address(address.strip())
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _place(latitude: float | None, longitude: float | None) -> Place | None:
    if latitude is None or longitude is None:
        return None
    # NaN fails both comparisons.
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None
    return Place(latitude, longitude)


def _digest(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=10, person=b"durapay-risk")
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.hexdigest()
