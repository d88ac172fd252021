"""The floor: the least that a durable answer costs on the same Temporal server.

A bare workflow, started by update-with-start, does one no-op local activity and answers. `python -m benchmarks.floor`
serves it, in a process of its own as the platform's workers are.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from datetime import timedelta

import uvloop
from temporalio import activity, workflow
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

QUEUE = "benchmark-floor"


@activity.defn(name="floor.step")
async def step() -> str:
    return "done"


@workflow.defn(name="floor")
class FloorWorkflow:
    def __init__(self) -> None:
        self._answer: str | None = None

    @workflow.run
    async def run(self) -> None:
        self._answer = await workflow.execute_local_activity(step, start_to_close_timeout=timedelta(seconds=5))
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.update(name="answer")
    async def answer(self) -> str:
        await workflow.wait_condition(lambda: self._answer is not None)
        return self._answer or ""


async def once(client: Client) -> None:
    """One durable answer."""
    operation = WithStartWorkflowOperation(
        FloorWorkflow.run,
        id=f"floor/{secrets.token_hex(8)}",
        task_queue=QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        task_timeout=timedelta(seconds=2),
    )
    _ = await client.execute_update_with_start_workflow(
        FloorWorkflow.answer, start_workflow_operation=operation, id="answer"
    )


def worker(client: Client) -> Worker:
    from workers.sandbox import sandbox

    return Worker(
        client,
        task_queue=QUEUE,
        workflows=[FloorWorkflow],
        activities=[step],
        workflow_runner=sandbox(),
        workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
        nonsticky_to_sticky_poll_ratio=0.5,
    )


async def serve() -> None:
    from config.settings import CodecSettings, TemporalSettings
    from temporal.client import connect

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with worker(await connect(TemporalSettings(), CodecSettings())):
        await stop.wait()
    await asyncio.sleep(0.5)


if __name__ == "__main__":
    uvloop.run(serve())
