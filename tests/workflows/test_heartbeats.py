"""Heartbeats by the worker: who is alive beats, who is stuck is missed."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from workers.heartbeats import Heartbeats

_SILENT = timedelta(seconds=2)


@workflow.defn(name="heartbeat-test")
class _Calls:
    @workflow.run
    async def run(self, name: str) -> int:
        attempts: int = await workflow.execute_activity(
            name,
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=_SILENT,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            result_type=int,
        )
        return attempts


@activity.defn(name="slow")
async def _slow() -> int:
    await asyncio.sleep(_SILENT.total_seconds() * 2)
    return activity.info().attempt


@activity.defn(name="stuck")
async def _stuck() -> int:
    if activity.info().attempt == 1:
        time.sleep(_SILENT.total_seconds() * 2)  # noqa: ASYNC251 - the event loop itself stands still
    return activity.info().attempt


async def _attempts(client: Client, name: str) -> int:
    queue = f"heartbeats-{secrets.token_hex(4)}"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[_Calls],
        activities=[_slow, _stuck],
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[Heartbeats()],
    ):
        return await client.execute_workflow(_Calls.run, name, id=queue, task_queue=queue)


async def test_an_activity_that_takes_long_is_left_to_its_worker(temporal_client: Client) -> None:
    assert await _attempts(temporal_client, "slow") == 1


async def test_a_worker_that_stands_still_is_missed_and_the_activity_is_tried_again(temporal_client: Client) -> None:
    assert await _attempts(temporal_client, "stuck") == 2
