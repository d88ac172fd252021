"""A day's settlement, and the differences that it finds.

The network's clearing file is compared with our journal line by line, in both directions; what agrees is posted, the
payments hear of it, and the merchants are paid. What differs becomes a break with a workflow of its own. Every stage
may run again: settling a day a second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import BreakRef, OpenBreak, SettlementActivities, SettlementReport, Stage, StageDone
    from domain.ids import break_workflow_id
    from domain.postings import BreakOutcome
    from domain.settlement import BreakDecision
    from temporal.search_attributes import AMOUNT_AT_RISK_MINOR
    from workflows.messages import Resolution, SettlementOrder
    from workflows.options import BREAK_CHECK, SETTLEMENT_STAGE
    from workflows.steps import DurableSteps

# In this order. A stage is asked for page after page until it has no cursor any more.
_STAGES = {
    "begin": SettlementActivities.begin,
    "gather_ours": SettlementActivities.gather_ours,
    "gather_theirs": SettlementActivities.gather_theirs,
    "match": SettlementActivities.match,
    "find_missing": SettlementActivities.find_missing,
    "tell_payments": SettlementActivities.tell_payments,
    "list_breaks": SettlementActivities.list_breaks,
    "pay_out": SettlementActivities.pay_out,
}


def _in_words(report: SettlementReport) -> str:
    found = ", ".join(f"{count} {verdict}" for verdict, count in sorted(report.verdicts.items())) or "nothing"
    waiting = f" ({report.payouts_waiting} wait for the merchants to be owed as much)" if report.payouts_waiting else ""
    return (
        f"**{report.day}** settled: {report.records} records ({found}), {report.open_breaks} of {report.breaks} breaks"
        f" open, {report.payouts} payouts{waiting}"
    )


_OUTCOMES: Mapping[Resolution, BreakOutcome] = {
    Resolution.WRITE_OFF: BreakOutcome.WRITE_OFF,
    Resolution.MERCHANT: BreakOutcome.MERCHANT,
    Resolution.NETWORK: BreakOutcome.NETWORK,
}


@workflow.defn(name="settlement")
class SettlementWorkflow(DurableSteps):
    @workflow.run
    async def run(self, order: SettlementOrder) -> SettlementReport:
        return await self._whatever_comes(self._live(order))

    async def _live(self, order: SettlementOrder) -> SettlementReport:
        day = order.day or (workflow.now().date() - timedelta(days=1)).isoformat()
        stages = list(_STAGES)
        first = order.stage or stages[0]
        for name in stages[stages.index(first) :]:
            cursor = order.cursor if name == first else None
            await self._run_stage(name, day, cursor)
        report = await self._until_done(
            "settlement.finish",
            lambda: workflow.execute_activity_method(SettlementActivities.finish, Stage(day), **SETTLEMENT_STAGE),
        )
        self._show(_in_words(report))
        await workflow.wait_condition(workflow.all_handlers_finished)
        return report

    async def _run_stage(self, name: str, day: str, cursor: str | None) -> None:
        pages = 0
        while True:
            self._show(f"**{day}** {name.replace('_', ' ')}, page {pages + 1}")
            done = await self._page(name, Stage(day, cursor))
            for found in done.breaks:
                await self._start_break(found)
            if done.cursor is None:
                return
            cursor, pages = done.cursor, pages + 1
            if workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(SettlementOrder(day, name, cursor))

    async def _page(self, name: str, stage: Stage) -> StageDone:
        return await self._until_done(
            f"settlement.{name}",
            lambda: workflow.execute_activity_method(_STAGES[name], stage, **SETTLEMENT_STAGE),
        )

    async def _start_break(self, found: OpenBreak) -> None:
        try:
            await workflow.start_child_workflow(
                BreakWorkflow.run,
                found,
                id=break_workflow_id(found.break_id),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            )
        except WorkflowAlreadyStartedError:
            workflow.logger.info("break %s has its workflow already", found.break_id)

    def _show(self, text: str) -> None:
        workflow.set_current_details(text)


@workflow.defn(name="settlement-break")
class BreakWorkflow(DurableSteps):
    """Waits, visibly, until the break has healed or two operators have said who bears it."""

    @workflow.run
    async def run(self, found: OpenBreak) -> None:
        await self._whatever_comes(self._live(found))

    async def _live(self, found: OpenBreak) -> None:
        workflow.set_current_details(f"**open break** {found.summary}")
        workflow.upsert_search_attributes([AMOUNT_AT_RISK_MINOR.value_set(found.at_risk_minor)])
        reference = BreakRef(found.break_id)
        outcomes = {
            resolution: outcome
            for resolution, outcome in _OUTCOMES.items()
            if found.has_merchant or resolution is not Resolution.MERCHANT
        }
        outcome = await self._until_done(
            "settlement.break",
            lambda: workflow.execute_activity_method(SettlementActivities.check_break, reference, **BREAK_CHECK),
            outcomes,
        )
        if outcome is not None:
            await self._resolve(found, outcome)
        workflow.upsert_search_attributes([AMOUNT_AT_RISK_MINOR.value_unset()])
        workflow.set_current_details(f"**{outcome or 'healed'}** {found.summary}")
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def _resolve(self, found: OpenBreak, outcome: BreakOutcome) -> None:
        first, second, reason = self._resolved_by["settlement.break"]
        decision = BreakDecision(found.break_id, outcome, (first, second), reason)
        await self._until_done(
            "settlement.resolve",
            lambda: workflow.execute_activity_method(SettlementActivities.resolve_break, decision, **SETTLEMENT_STAGE),
        )
