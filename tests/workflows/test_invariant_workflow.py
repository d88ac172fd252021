"""The scheduled look at everything: it ends when all holds, and stays open, visibly, while something does not."""

from __future__ import annotations

import asyncio
import secrets

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from activities import contracts
from activities.contracts import Checked
from temporal.search_attributes import NEEDS_ATTENTION
from temporal.task_queues import TaskQueue
from tests.support.world import Script
from workers.registry import activity_worker, payments_worker
from workflows.invariants import InvariantWorkflow


class ScriptedChecks(contracts.ConsistencyActivities):
    def __init__(self, *answers: str | None) -> None:
        self.script = Script(*answers)
        self.closed = 0

    @activity.defn(name="ledger.close_batches")
    async def close_batches(self) -> None:
        self.closed += 1

    @activity.defn(name="invariants.check")
    async def check(self) -> Checked:
        answer = await self.script.play(None)
        if answer is not None:
            raise ApplicationError(answer, type="invariant_broken")
        return Checked(20)


async def _start(client: Client) -> WorkflowHandle[InvariantWorkflow, Checked]:
    return await client.start_workflow(
        InvariantWorkflow.run, id=f"invariants/{secrets.token_hex(4)}", task_queue=TaskQueue.PAYMENTS
    )


async def test_where_all_holds_it_ends_at_once(time_skipping_env: WorkflowEnvironment) -> None:
    checks = ScriptedChecks(None)
    client = time_skipping_env.client
    async with (
        payments_worker(client, [], "test"),
        activity_worker(client, TaskQueue.SETTLEMENT, [checks.close_batches, checks.check], "test"),
    ):
        assert (await (await _start(client)).result()).invariants == 20
    assert (len(checks.script.calls), checks.closed) == (1, 1)


async def test_what_does_not_hold_is_shown_looked_at_again_and_left_when_it_holds(
    time_skipping_env: WorkflowEnvironment,
) -> None:
    checks = ScriptedChecks("one_approval: pay_1 (2 approvals)")
    client = time_skipping_env.client
    async with (
        payments_worker(client, [], "test"),
        activity_worker(client, TaskQueue.SETTLEMENT, [checks.close_batches, checks.check], "test"),
    ):
        handle = await _start(client)
        async with asyncio.timeout(30):
            while (await handle.describe()).typed_search_attributes.get(NEEDS_ATTENTION) != "invariants.check":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        checks.script.then(None)
        assert (await handle.result()).invariants == 20
    assert len(checks.script.calls) >= 2
