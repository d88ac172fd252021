"""Checks what a payer confirms a payment with: a one-time code, or the answer that their passkey signed.

The workflow limits the attempts.
"""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.contracts import StepUpAttempt, StepUpVerdict
from activities.errors import translated
from domain.step_up import StepUpCodes, is_challenge_id
from identity.step_up import StepUpJudge


class StepUpActivities(contracts.StepUpActivities):
    def __init__(self, codes: StepUpCodes, judge: StepUpJudge) -> None:
        self._codes = codes
        self._judge = judge

    @activity.defn(name="step_up.verify")
    async def verify(self, attempt: StepUpAttempt) -> StepUpVerdict:
        """`code` is a code of six digits, or the id of the challenge that was answered (`suc_…`)."""
        if is_challenge_id(attempt.code):
            with translated():
                correct = await self._judge.judge(attempt.payment_id, attempt.money, attempt.payee, attempt.code)
        else:
            correct = self._codes.matches(attempt.payment_id, attempt.money, attempt.payee, attempt.code)
        return StepUpVerdict(correct)
