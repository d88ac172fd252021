"""Rules as data: severity, reasons, versions, and that no limit can be slipped under."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.risk import RiskAction
from fraud.features import FEATURE_NAMES
from fraud.rules import DEFAULT_RULES, SEVERITY, Condition, Rule, RuleSet, most_severe
from fraud.windows import DECLINES, TIMELINE_PAYMENTS

_QUIET = dict.fromkeys(FEATURE_NAMES, 0.0)


def _judge(**features: float) -> tuple[RiskAction, tuple[str, ...]]:
    assert set(features) <= set(FEATURE_NAMES)
    return DEFAULT_RULES.judge(_QUIET | features)


def test_block_outranks_review_outranks_step_up_outranks_allow() -> None:
    ranked = sorted(RiskAction, key=SEVERITY.__getitem__)
    assert ranked == [RiskAction.ALLOW, RiskAction.STEP_UP, RiskAction.REVIEW, RiskAction.BLOCK]
    assert most_severe((RiskAction.REVIEW, RiskAction.STEP_UP)) is RiskAction.REVIEW


def test_nothing_remarkable_is_allowed_without_a_reason() -> None:
    assert _judge(amount=50) == (RiskAction.ALLOW, ())


@pytest.mark.parametrize(
    ("features", "action", "reason"),
    [
        ({"distance_km": 501, "speed_kmh": 1001}, RiskAction.BLOCK, "impossible_travel"),
        ({"card_small_10m": 6}, RiskAction.BLOCK, "card_testing_card"),
        ({"device_small_10m": 5, "device_cards_1h": 3}, RiskAction.BLOCK, "card_testing_device"),
        ({"ip_small_10m": 20, "ip_cards_1h": 10}, RiskAction.BLOCK, "card_testing_ip"),
        ({"card_declines_1h": 6}, RiskAction.BLOCK, "card_declines_1h"),
        ({"device_declines_1h": 8}, RiskAction.BLOCK, "device_declines_1h"),
        ({"ip_declines_1h": 30}, RiskAction.BLOCK, "ip_declines_1h"),
        ({"card_count_1m": 21}, RiskAction.BLOCK, "card_velocity_1m"),
        ({"card_count_1h": 41}, RiskAction.REVIEW, "card_velocity_1h"),
        ({"user_count_24h": 101}, RiskAction.REVIEW, "user_velocity_24h"),
        ({"user_amount_24h": 10_000.01}, RiskAction.REVIEW, "user_amount_24h"),
        ({"user_amount_7d": 25_000.01}, RiskAction.REVIEW, "user_amount_7d"),
        ({"card_amount_24h": 5000.01}, RiskAction.STEP_UP, "card_amount_24h"),
        ({"device_cards_24h": 6}, RiskAction.REVIEW, "device_many_cards"),
        ({"user_cards_24h": 6}, RiskAction.REVIEW, "user_many_cards"),
        ({"is_first_payment": 1, "amount": 2000.01}, RiskAction.STEP_UP, "first_payment_high_amount"),
        (
            {"card_history_count": 5, "amount_to_median": 10.1, "amount_to_max": 3.1, "amount": 501},
            RiskAction.STEP_UP,
            "amount_far_above_history",
        ),
        (
            {"card_history_count": 5, "is_new_device_for_card": 1, "amount_to_max": 1.1, "amount": 501},
            RiskAction.STEP_UP,
            "new_device_high_amount",
        ),
    ],
)
def test_each_rule_acts_beyond_its_limit_and_only_there(
    features: dict[str, float], action: RiskAction, reason: str
) -> None:
    assert _judge(**features) == (action, (reason,))
    for name in features:
        assert reason not in _judge(**(features | {name: 0.0}))[1]
    rule = next(rule for rule in DEFAULT_RULES.rules if rule.reason == reason)
    assert _judge(**{condition.feature: condition.above for condition in rule.conditions})[0] is RiskAction.ALLOW


def test_every_rule_is_tried_above() -> None:
    parametrized = test_each_rule_acts_beyond_its_limit_and_only_there.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {case[2] for case in parametrized} == {rule.reason for rule in DEFAULT_RULES.rules}


def test_the_most_severe_action_wins_and_all_reasons_are_given() -> None:
    action, reasons = _judge(is_first_payment=1, amount=3000, user_amount_24h=11_000, card_count_1m=30)
    assert action is RiskAction.BLOCK
    assert reasons == ("card_velocity_1m", "user_amount_24h", "first_payment_high_amount")


@given(st.dictionaries(st.sampled_from(FEATURE_NAMES), st.floats(-1, 1e6)), st.permutations(DEFAULT_RULES.rules))
def test_the_action_does_not_depend_on_the_order_of_the_rules(features: dict[str, float], rules: list[Rule]) -> None:
    values = _QUIET | features
    action, reasons = DEFAULT_RULES.judge(values)
    other_action, other_reasons = replace(DEFAULT_RULES, rules=tuple(rules)).judge(values)
    assert (action, set(reasons)) == (other_action, set(other_reasons))


def test_a_limit_on_a_count_lies_within_what_is_kept() -> None:
    for rule in DEFAULT_RULES.rules:
        for condition in rule.conditions:
            if "_count_" in condition.feature or "_small_" in condition.feature or "_cards_" in condition.feature:
                assert condition.above < TIMELINE_PAYMENTS
            if "_declines_" in condition.feature:
                assert condition.above < DECLINES


def test_the_version_changes_with_any_rule() -> None:
    fewer = replace(DEFAULT_RULES, rules=DEFAULT_RULES.rules[1:])
    attentive = replace(DEFAULT_RULES, score_ignored=())
    assert len({DEFAULT_RULES.version, fewer.version, attentive.version}) == 3
    assert replace(DEFAULT_RULES).version == DEFAULT_RULES.version


def test_a_rule_on_a_feature_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no feature"):
        Condition("card_cuont_1h", 5)


def test_a_score_counts_unless_the_rules_say_otherwise() -> None:
    plain = _QUIET | {"is_first_payment": 1, "amount": 50, "user_count_24h": 1}
    assert DEFAULT_RULES.ignores_score(plain)
    for change in ({"amount": 201}, {"amount": 1}, {"device_count_24h": 2}, {"ip_cards_1h": 4}, {"user_count_24h": 2}):
        assert not DEFAULT_RULES.ignores_score(plain | change)
    assert not RuleSet("none", ()).ignores_score(plain)
