"""Checks the one-time code of a step-up. The workflow limits the attempts."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.contracts import StepUpAttempt, StepUpVerdict
from domain.step_up import StepUpCodes


class StepUpActivities(contracts.StepUpActivities):
    def __init__(self, codes: StepUpCodes) -> None:
        self._codes = codes

    @activity.defn(name="step_up.verify")
    async def verify(self, attempt: StepUpAttempt) -> StepUpVerdict:
        correct = self._codes.matches(attempt.payment_id, attempt.money, attempt.payee, attempt.code)
        return StepUpVerdict(correct)
