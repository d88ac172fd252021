"""One decision out of features, rules and the model."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from redis.asyncio import Redis
from redis.exceptions import RedisError

from domain.risk import RiskAction, RiskDecision, RiskRequest
from fraud.events import PaymentEvent, event_of
from fraud.features import feature_values
from fraud.model import FraudModel, ScoringFailed
from fraud.rules import DEFAULT_RULES, SEVERITY, RuleSet, most_severe
from fraud.store import FeatureStore
from fraud.windows import Snapshot

# A decision has 300 ms in all; Redis usually answers within one.
REDIS_TIMEOUT_SECONDS = 0.25

VELOCITY_UNAVAILABLE = "velocity_unavailable"
MODEL_UNAVAILABLE = "model_unavailable"

_log = logging.getLogger(__name__)


class FraudEngine:
    """Judges payments.

    Without Redis there are no limits, and a payment without limits is blocked. Without the model the rules decide
    alone. Either way the decision says so in `degraded`, and an error is logged. Judging the same payment again counts
    nothing twice and sees the same past.
    """

    def __init__(
        self,
        redis: Redis,
        model: FraudModel | None,
        rules: RuleSet = DEFAULT_RULES,
        *,
        redis_timeout_seconds: float = REDIS_TIMEOUT_SECONDS,
        key_prefix: str = "risk",
    ) -> None:
        self._store = FeatureStore(redis, key_prefix)
        self._model = model
        self._rules = rules
        self._redis_timeout_seconds = redis_timeout_seconds

    async def assess(self, request: RiskRequest) -> RiskDecision:
        """The decision on one payment; never raises for want of Redis or of the model."""
        event = event_of(request)
        past = await self._past(event, request.payment_id)
        if past is None:
            return RiskDecision(
                action=RiskAction.BLOCK,
                score=None,
                reasons=(VELOCITY_UNAVAILABLE,),
                rules_version=self._rules.version,
                model_version=self._model.version if self._model else None,
                degraded=VELOCITY_UNAVAILABLE,
            )
        features = feature_values(event, past)
        action, reasons = self._rules.judge(features)
        decision = RiskDecision(
            action=action,
            score=None,
            reasons=reasons,
            rules_version=self._rules.version,
            model_version=None,
            features=features,
        )
        return self._with_model(decision, request.payment_id)

    async def record_decline(self, request: RiskRequest) -> None:
        """Counts the issuer's "no" to `request`, once, towards the limits on declines.

        Only refusals that speak of a wrong or stolen card belong here; want of funds is no sign of card testing.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: nothing was recorded for certain; it may be repeated.
        """
        async with asyncio.timeout(self._redis_timeout_seconds):
            await self._store.record_decline(event_of(request))

    async def _past(self, event: PaymentEvent, payment_id: str) -> Snapshot | None:
        try:
            async with asyncio.timeout(self._redis_timeout_seconds):
                return await self._store.observe(event)
        except (RedisError, OSError, TimeoutError) as error:
            _log.error("velocity limits unavailable, payment %s is blocked: %s", payment_id, type(error).__name__)
            return None

    def _with_model(self, decision: RiskDecision, payment_id: str) -> RiskDecision:
        if self._model is None:
            return replace(decision, degraded=MODEL_UNAVAILABLE)
        try:
            score = self._model.score(decision.features)
            ignored = self._rules.ignores_score(decision.features)
            suggested = RiskAction.ALLOW if ignored else self._model.thresholds.action(score)
            reasons = decision.reasons
            if suggested is not RiskAction.ALLOW:
                # Explaining takes 3 ms, so only an answer that somebody may ask about pays for it.
                main = self._model.main_contributions(decision.features)
                reasons = _merged(decision, suggested, ("model_score", *(f"model_{name}" for name in main)))
        except ScoringFailed as error:
            _log.error("fraud model failed, rules decide payment %s alone: %s", payment_id, error)
            return replace(decision, degraded=MODEL_UNAVAILABLE)
        return replace(
            decision,
            action=most_severe((decision.action, suggested)),
            score=score,
            reasons=reasons,
            model_version=self._model.version,
        )


def _merged(decision: RiskDecision, suggested: RiskAction, from_model: tuple[str, ...]) -> tuple[str, ...]:
    """The reasons of the rules and of the model, the more severe opinion's first."""
    if SEVERITY[suggested] > SEVERITY[decision.action]:
        return from_model + decision.reasons
    return decision.reasons + from_model
