"""Settlement's workflows with the network, the ledger and the payments scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError

from activities import contracts
from activities.contracts import BreakRef, OpenBreak, SettlementReport, Stage, StageDone
from domain.ids import break_workflow_id, new_id, settlement_workflow_id
from domain.settlement import BreakDecision
from temporal.task_queues import TaskQueue
from tests.support.world import Script
from workers.registry import activity_worker, payments_worker
from workflows.messages import SettlementOrder
from workflows.settlement import BreakWorkflow, SettlementWorkflow

STAGES = (
    "begin",
    "gather_ours",
    "gather_theirs",
    "match",
    "find_missing",
    "tell_payments",
    "list_breaks",
    "pay_out",
)


@dataclass
class ScriptedSettlement(contracts.SettlementActivities):
    """`stages` answer by name, `StageDone()` unless told otherwise; `asked` is what was asked for, in order."""

    stages: dict[str, Script] = field(default_factory=lambda: {name: Script(StageDone()) for name in STAGES})
    check: Script = field(default_factory=lambda: Script(None))
    asked: list[tuple[str, Stage]] = field(default_factory=list)
    decisions: list[BreakDecision] = field(default_factory=list)

    async def _stage(self, name: str, stage: Stage) -> StageDone:
        self.asked.append((name, stage))
        done: StageDone = await self.stages[name].play(stage)
        return done

    @activity.defn(name="settlement.begin")
    async def begin(self, stage: Stage) -> StageDone:
        return await self._stage("begin", stage)

    @activity.defn(name="settlement.gather_ours")
    async def gather_ours(self, stage: Stage) -> StageDone:
        return await self._stage("gather_ours", stage)

    @activity.defn(name="settlement.gather_theirs")
    async def gather_theirs(self, stage: Stage) -> StageDone:
        return await self._stage("gather_theirs", stage)

    @activity.defn(name="settlement.match")
    async def match(self, stage: Stage) -> StageDone:
        return await self._stage("match", stage)

    @activity.defn(name="settlement.find_missing")
    async def find_missing(self, stage: Stage) -> StageDone:
        return await self._stage("find_missing", stage)

    @activity.defn(name="settlement.tell_payments")
    async def tell_payments(self, stage: Stage) -> StageDone:
        return await self._stage("tell_payments", stage)

    @activity.defn(name="settlement.list_breaks")
    async def list_breaks(self, stage: Stage) -> StageDone:
        return await self._stage("list_breaks", stage)

    @activity.defn(name="settlement.pay_out")
    async def pay_out(self, stage: Stage) -> StageDone:
        return await self._stage("pay_out", stage)

    @activity.defn(name="settlement.finish")
    async def finish(self, stage: Stage) -> SettlementReport:
        return SettlementReport(stage.day, "file-1", 3, {"matched": 2, "amount": 1}, 1, 1, 1)

    @activity.defn(name="settlement.check_break")
    async def check_break(self, found: BreakRef) -> None:
        answer = await self.check.play(found)
        if answer is not None:
            raise ApplicationError(str(answer), type=str(answer))

    @activity.defn(name="settlement.resolve_break")
    async def resolve_break(self, decision: BreakDecision) -> None:
        self.decisions.append(decision)


@dataclass(frozen=True, slots=True)
class SettlementWorld:
    client: Client
    outside: ScriptedSettlement
    found: OpenBreak

    async def settle(self, day: str | None = "2026-11-22") -> WorkflowHandle[SettlementWorkflow, SettlementReport]:
        return await self.client.start_workflow(
            SettlementWorkflow.run,
            SettlementOrder(day),
            id=f"{settlement_workflow_id(day)}/{self.found.break_id}",
            task_queue=TaskQueue.PAYMENTS,
        )

    @property
    def break_handle(self) -> WorkflowHandle[BreakWorkflow, None]:
        return self.client.get_workflow_handle_for(BreakWorkflow.run, break_workflow_id(self.found.break_id))

    async def start_break(self) -> WorkflowHandle[BreakWorkflow, None]:
        """The break's workflow, once it has asked whether the break is still open."""
        handle = await self.client.start_workflow(
            BreakWorkflow.run,
            self.found,
            id=break_workflow_id(self.found.break_id),
            task_queue=TaskQueue.PAYMENTS,
        )
        async with asyncio.timeout(30):
            while not self.outside.check.calls:  # noqa: ASYNC110 - it watches a worker
                await asyncio.sleep(0.02)
        return handle


@asynccontextmanager
async def open_settlement_world(client: Client) -> AsyncIterator[SettlementWorld]:
    outside = ScriptedSettlement()
    found = OpenBreak(new_id("brk"), "amount of 2026-11-22: 1.00 USD too much debit on receivable", 100, True)
    activities = [getattr(outside, name) for name in (*STAGES, "finish", "check_break", "resolve_break")]
    async with (
        payments_worker(client, [], "test"),
        activity_worker(client, TaskQueue.SETTLEMENT, activities, "test"),
    ):
        yield SettlementWorld(client, outside, found)
