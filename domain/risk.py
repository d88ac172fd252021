"""What the fraud engine is asked and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.money import Money


class RiskAction(StrEnum):
    """In rising order of severity."""

    ALLOW = "allow"
    STEP_UP = "step_up"
    REVIEW = "review"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class RiskSignals:
    """What the caller knows of the payer's device and place. Everything is optional; what is absent is not guessed.

    `latitude` and `longitude` are degrees (WGS 84).
    """

    device_id: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    latitude: float | None = None
    longitude: float | None = None


@dataclass(frozen=True, slots=True)
class RiskRequest:
    """One payment to be judged. `card_id` is the payment method's id, never a card number."""

    payment_id: str
    account_id: str
    user_id: str
    card_id: str
    card_bin: str
    merchant_id: str
    merchant_category_code: str
    money: Money
    requested_at: datetime
    signals: RiskSignals = field(default_factory=RiskSignals)


@dataclass(frozen=True, slots=True)
class RiskDecision:
    """The decision and all that is needed to explain and replay it.

    `score` is the model's probability of fraud in 0–1, None when scoring was not available and rules alone decided
    (`degraded` then says why). `features` are the exact values used, by name.
    """

    action: RiskAction
    score: float | None
    reasons: tuple[str, ...]
    rules_version: str
    model_version: str | None
    features: dict[str, float] = field(default_factory=dict)
    degraded: str | None = None
