"""What Temporal starts by itself, in one table. The payments worker brings it up to date whenever it starts.

An operator may pause a schedule, trigger it or look at its runs in the Temporal UI; that it is paused survives a
deployment, everything else is as it is written here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import client
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.converter import WorkflowSerializationContext

from temporal.task_queues import TaskQueue


@dataclass(frozen=True, slots=True)
class Schedule:
    """`workflow` is started with `args` whenever `spec` says so, under `id` followed by the time.

    A start that was missed because Temporal was down is made up for if that is not longer ago than `catchup`.
    """

    id: str
    workflow: str
    args: Sequence[Any]
    spec: ScheduleSpec
    overlap: ScheduleOverlapPolicy = ScheduleOverlapPolicy.SKIP
    catchup: timedelta = timedelta(minutes=10)
    queue: TaskQueue = field(default=TaskQueue.PAYMENTS)


SCHEDULES: Sequence[Schedule] = (
    # Ten in the morning, UTC. A day that was missed altogether is made up for by the next.
    Schedule(
        "card-expiry-reminders",
        "card-expiry-reminders",
        (),
        ScheduleSpec(calendars=[ScheduleCalendarSpec(hour=[ScheduleRange(10)])]),
        catchup=timedelta(hours=12),
    ),
    # A run that has found something goes on until it is mended, so the next one is skipped meanwhile.
    Schedule(
        "invariants", "invariants", (), ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(minutes=10))])
    ),
)


async def ensure_schedules(temporal: Client, schedules: Iterable[Schedule] = SCHEDULES) -> None:
    """Creates what is missing and brings the rest up to date. Doing it again, or twice at once, changes nothing."""
    for schedule in schedules:
        wanted = await _described(temporal, schedule)
        try:
            await temporal.create_schedule(schedule.id, wanted)
        except ScheduleAlreadyRunningError:
            await temporal.get_schedule_handle(schedule.id).update(functools.partial(_updated, wanted))


def _updated(wanted: client.Schedule, found: ScheduleUpdateInput) -> ScheduleUpdate:
    wanted.state = found.description.schedule.state
    return ScheduleUpdate(wanted)


async def _described(temporal: Client, schedule: Schedule) -> client.Schedule:
    action = ScheduleActionStartWorkflow(
        schedule.workflow, args=await _payloads(temporal, schedule.args), id=schedule.id, task_queue=schedule.queue
    )
    policy = SchedulePolicy(overlap=schedule.overlap, catchup_window=schedule.catchup)
    return client.Schedule(action=action, spec=schedule.spec, policy=policy)


async def _payloads(temporal: Client, args: Sequence[Any]) -> list[Payload]:
    """Encrypted for the namespace alone: Temporal adds the time to the workflow's id, so nobody knows it yet."""
    context = WorkflowSerializationContext(namespace=temporal.namespace, workflow_id="")
    return list(await temporal.data_converter.with_context(context).encode(args)) if args else []
