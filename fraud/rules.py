"""Rules as data: conditions on features, an action and a reason in words.

All conditions of a rule must hold. Of the rules that match, the most severe action wins (block > review > step_up >
allow) and all reasons are given, the most severe first. A limit on a count stays below `TIMELINE_PAYMENTS`: no flood of
small payments can push a large one out of a sum before a count has stopped it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.risk import RiskAction
from fraud.features import FEATURE_NAMES
from fraud.geo import IMPOSSIBLE_DISTANCE_KM, IMPOSSIBLE_SPEED_KMH

SEVERITY: dict[RiskAction, int] = {action: rank for rank, action in enumerate(RiskAction)}


@dataclass(frozen=True, slots=True)
class Condition:
    """`feature` is above `above` (and not equal to it) and, if given, at most `at_most`.

    Raises:
        ValueError: there is no such feature.
    """

    feature: str
    above: float
    at_most: float = float("inf")

    def __post_init__(self) -> None:
        if self.feature not in FEATURE_NAMES:
            raise ValueError(f"there is no feature {self.feature}")

    def holds(self, features: Mapping[str, float]) -> bool:
        return self.above < features[self.feature] <= self.at_most


@dataclass(frozen=True, slots=True)
class Rule:
    """`reason` is the code that the decision carries, in words."""

    reason: str
    action: RiskAction
    conditions: tuple[Condition, ...]

    def matches(self, features: Mapping[str, float]) -> bool:
        return all(condition.holds(features) for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """`version` names these very rules: the name given and a digest of their content.

    Where all of `score_ignored` holds, the model's score is noted and not acted upon.
    """

    name: str
    rules: tuple[Rule, ...]
    score_ignored: tuple[Condition, ...] = ()

    @property
    def version(self) -> str:
        return f"{self.name}+{hashlib.sha256(repr((self.rules, self.score_ignored)).encode()).hexdigest()[:8]}"

    def ignores_score(self, features: Mapping[str, float]) -> bool:
        return bool(self.score_ignored) and all(condition.holds(features) for condition in self.score_ignored)

    def judge(self, features: Mapping[str, float]) -> tuple[RiskAction, tuple[str, ...]]:
        """The most severe action and the reasons of all rules that match, the most severe first."""
        matching = sorted(
            (rule for rule in self.rules if rule.matches(features)), key=lambda rule: -SEVERITY[rule.action]
        )
        action = matching[0].action if matching else RiskAction.ALLOW
        return action, tuple(dict.fromkeys(rule.reason for rule in matching))


def most_severe(actions: Sequence[RiskAction]) -> RiskAction:
    return max(actions, key=SEVERITY.__getitem__)


# Amounts are dollars on the common scale of `fraud.amounts`.
DEFAULT_RULES = RuleSet(
    "2026-11",
    (
        Rule(
            "impossible_travel",
            RiskAction.BLOCK,
            (Condition("distance_km", IMPOSSIBLE_DISTANCE_KM), Condition("speed_kmh", IMPOSSIBLE_SPEED_KMH)),
        ),
        # Card testing: many payments under five dollars in ten minutes. An address may be a whole office or a mobile
        # carrier's gateway, so it takes more there than on a device.
        Rule("card_testing_card", RiskAction.BLOCK, (Condition("card_small_10m", 5),)),
        Rule(
            "card_testing_device",
            RiskAction.BLOCK,
            (Condition("device_small_10m", 4), Condition("device_cards_1h", 2)),
        ),
        Rule("card_testing_ip", RiskAction.BLOCK, (Condition("ip_small_10m", 19), Condition("ip_cards_1h", 9))),
        # The issuer's refusals, where they are reported: guessing expiry dates and security codes.
        Rule("card_declines_1h", RiskAction.BLOCK, (Condition("card_declines_1h", 5),)),
        Rule("device_declines_1h", RiskAction.BLOCK, (Condition("device_declines_1h", 7),)),
        Rule("ip_declines_1h", RiskAction.BLOCK, (Condition("ip_declines_1h", 29),)),
        # Nobody pays so often by hand.
        Rule("card_velocity_1m", RiskAction.BLOCK, (Condition("card_count_1m", 20),)),
        Rule("card_velocity_1h", RiskAction.REVIEW, (Condition("card_count_1h", 40),)),
        Rule("user_velocity_24h", RiskAction.REVIEW, (Condition("user_count_24h", 100),)),
        # Volume. A single payment that is over a limit by itself counts too.
        Rule("user_amount_24h", RiskAction.REVIEW, (Condition("user_amount_24h", 10_000),)),
        Rule("user_amount_7d", RiskAction.REVIEW, (Condition("user_amount_7d", 25_000),)),
        Rule("card_amount_24h", RiskAction.STEP_UP, (Condition("card_amount_24h", 5_000),)),
        Rule("device_many_cards", RiskAction.REVIEW, (Condition("device_cards_24h", 5),)),
        Rule("user_many_cards", RiskAction.REVIEW, (Condition("user_cards_24h", 5),)),
        Rule(
            "first_payment_high_amount",
            RiskAction.STEP_UP,
            (Condition("is_first_payment", 0), Condition("amount", 2_000)),
        ),
        Rule(
            "amount_far_above_history",
            RiskAction.STEP_UP,
            (
                Condition("card_history_count", 4),
                Condition("amount_to_median", 10),
                Condition("amount_to_max", 3),
                Condition("amount", 500),
            ),
        ),
        Rule(
            "new_device_high_amount",
            RiskAction.STEP_UP,
            (
                Condition("card_history_count", 4),
                Condition("is_new_device_for_card", 0),
                Condition("amount_to_max", 1),
                Condition("amount", 500),
            ),
        ),
    ),
    # An ordinary first payment of which nothing else is known: turning a good customer away at the door costs more than
    # the few cents of evidence that a score has here. A second payment on the device, or many cards behind the address,
    # and the score counts.
    score_ignored=(
        Condition("is_first_payment", 0),
        Condition("amount", 9.99, 200),
        Condition("user_count_24h", 0, 1),
        Condition("device_count_24h", -1, 1),
        Condition("ip_cards_1h", -1, 3),
    ),
)
