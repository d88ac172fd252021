"""Whether everything still agrees, asked by a schedule; where it does not, the workflow stays open and says so."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import Checked, ConsistencyActivities
    from workflows.options import CONSISTENCY_CHECK
    from workflows.steps import DurableSteps


@workflow.defn(name="invariants")
class InvariantWorkflow(DurableSteps):
    """Parks on what contradicts itself, looks again by itself and at `retry`, and ends when nothing does any more."""

    @workflow.run
    async def run(self) -> Checked:
        return await self._whatever_comes(self._live())

    async def _live(self) -> Checked:
        await self._until_done(
            "ledger.close_batches",
            lambda: workflow.execute_activity_method(ConsistencyActivities.close_batches, **CONSISTENCY_CHECK),
        )
        checked = await self._until_done("invariants.check", self._check)
        workflow.set_current_details(f"{checked.invariants} invariants hold")
        await workflow.wait_condition(workflow.all_handlers_finished)
        return checked

    async def _check(self) -> Checked:
        try:
            return await workflow.execute_activity_method(ConsistencyActivities.check, **CONSISTENCY_CHECK)
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError):
                workflow.set_current_details(f"**does not hold** {error.cause.message}")
            raise
