"""Fraud decisions. Local to the payments worker: the same trust zone, idempotent, milliseconds."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.errors import translated
from domain.risk import RiskDecision, RiskRequest
from fraud.engine import FraudEngine


class FraudActivities(contracts.FraudActivities):
    def __init__(self, engine: FraudEngine) -> None:
        self._engine = engine

    @activity.defn(name="fraud.assess")
    async def assess(self, request: RiskRequest) -> RiskDecision:
        with translated():
            return await self._engine.assess(request)

    @activity.defn(name="fraud.record_decline")
    async def record_decline(self, request: RiskRequest) -> None:
        with translated():
            await self._engine.record_decline(request)
