"""Which queue runs what. A process serves one or more queues; in production each queue has processes of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker

from temporal.task_queues import TaskQueue
from workers.heartbeats import Heartbeats
from workers.sandbox import sandbox
from workflows.bank_accounts import BankAccountRemovalWorkflow, BankReturnWorkflow
from workflows.card_verification import CardVerificationWorkflow
from workflows.cards import CardExpiryRemindersWorkflow, CardRemovalWorkflow, CardRenewalWorkflow
from workflows.closure import ClosureWorkflow
from workflows.dispute import DisputeWorkflow, LateNoticeWorkflow
from workflows.invariants import InvariantWorkflow
from workflows.micro_deposit import BankDayWorkflow, MicroDepositWorkflow
from workflows.onboarding import OnboardingWorkflow, RescreeningWorkflow
from workflows.payment import PaymentWorkflow
from workflows.refund import RefundWorkflow
from workflows.settlement import BreakWorkflow, SettlementWorkflow
from workflows.token_lifecycle import TokenProvisioningWorkflow

# A worker that died is no longer waited for after this long; the default is ten seconds. A worker that is only slow
# loses its cache of that workflow, which costs a replay.
_STICKY_TIMEOUT = timedelta(seconds=3)

WORKFLOWS: Sequence[type] = (
    PaymentWorkflow,
    RefundWorkflow,
    TokenProvisioningWorkflow,
    CardVerificationWorkflow,
    CardRemovalWorkflow,
    CardRenewalWorkflow,
    CardExpiryRemindersWorkflow,
    DisputeWorkflow,
    LateNoticeWorkflow,
    SettlementWorkflow,
    BreakWorkflow,
    InvariantWorkflow,
    MicroDepositWorkflow,
    BankDayWorkflow,
    BankAccountRemovalWorkflow,
    BankReturnWorkflow,
    OnboardingWorkflow,
    RescreeningWorkflow,
    ClosureWorkflow,
)


def payments_worker(client: Client, activities: Sequence[Callable[..., Any]], build_id: str) -> Worker:
    """The workflows and their local activities.

    New payments come by the non-sticky queue, so half of ten pollers watch it; the default leaves it one.
    """
    return Worker(
        client,
        task_queue=TaskQueue.PAYMENTS,
        workflows=WORKFLOWS,
        activities=activities,
        workflow_runner=sandbox(),
        build_id=build_id,
        workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(10),
        nonsticky_to_sticky_poll_ratio=0.5,
        max_concurrent_local_activities=64,
        sticky_queue_schedule_to_start_timeout=_STICKY_TIMEOUT,
    )


def activity_worker(
    client: Client, queue: TaskQueue, activities: Sequence[Callable[..., Any]], build_id: str, concurrency: int = 100
) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        activities=activities,
        build_id=build_id,
        max_concurrent_activities=concurrency,
        interceptors=[Heartbeats()],
    )
