"""A worker keeps only so many workflows in memory; the others leave it at any point, and come back by replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.worker import Worker

from domain.ids import PAYMENT, new_id
from domain.payments import CaptureMethod, PaymentStatus
from temporal.task_queues import TaskQueue
from tests.support import world as worlds
from tests.support.world import World, open_world
from workers.registry import WORKFLOWS
from workers.sandbox import sandbox
from workflows.messages import RefundRequest
from workflows.payment import PaymentWorkflow


def _forgetful_worker(client: Client, activities: Sequence[Callable[..., Any]], build_id: str) -> Worker:
    """The worker of the payments queue with room for one workflow."""
    return Worker(
        client,
        task_queue=TaskQueue.PAYMENTS,
        workflows=WORKFLOWS,
        activities=activities,
        workflow_runner=sandbox(),
        build_id=build_id,
        max_cached_workflows=1,
    )


@asynccontextmanager
async def _forgetful_world(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(worlds, "payments_worker", _forgetful_worker)
    async with open_world(client, engine) as world:
        yield world


@pytest.mark.parametrize(
    ("method", "status"),
    [(CaptureMethod.MANUAL, PaymentStatus.AUTHORIZED), (CaptureMethod.AUTOMATIC, PaymentStatus.CAPTURED)],
)
async def test_payments_that_leave_the_cache_come_back_and_hold_up_no_other(
    temporal_client: Client,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    method: CaptureMethod,
    status: PaymentStatus,
) -> None:
    async with _forgetful_world(temporal_client, engine, monkeypatch) as world, asyncio.timeout(60):
        requests = []
        for _ in range(4):
            await world.pay(payment_id=new_id(PAYMENT), capture_method=method)
            await world.until_status(status)
            requests.append(world.request)
        for request in requests:
            world.request = request
            assert (await world.handle.query(PaymentWorkflow.snapshot)).status is status


async def test_a_payment_that_was_forgotten_is_refunded_all_the_same(
    temporal_client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _forgetful_world(temporal_client, engine, monkeypatch) as world, asyncio.timeout(60):
        await world.pay(payment_id=new_id(PAYMENT), capture_method=CaptureMethod.AUTOMATIC)
        await world.until_status(PaymentStatus.CAPTURED)
        first = world.request
        await world.pay(payment_id=new_id(PAYMENT), capture_method=CaptureMethod.AUTOMATIC)
        world.request = first
        refund = RefundRequest(first.payment_id.replace("pay_", "re_"), 300)
        await world.handle.execute_update(PaymentWorkflow.refund, refund)
        snapshot = await world.until(lambda snapshot: snapshot.amount_refunded_minor == 300)
        assert snapshot.amount_captured_minor == 1050
