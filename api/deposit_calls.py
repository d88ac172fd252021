"""The calls to the workflows of verifications by deposits, and of the bank's day."""

from __future__ import annotations

import asyncio

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError

from api.errors import unavailable
from api.workflow_calls import update
from domain.ids import bank_account_removal_workflow_id, micro_deposit_workflow_id
from domain.micro_deposits import BankDayReport, MicroDepositOrder, MicroDepositSnapshot
from temporal.task_queues import TaskQueue
from workflows.bank_accounts import BankAccountRemovalWorkflow
from workflows.messages import BankAccountRemoval
from workflows.micro_deposit import BankDayWorkflow, MicroDepositWorkflow


async def begin_micro_deposit(
    client: Client, order: MicroDepositOrder, wait_seconds: float
) -> MicroDepositSnapshot | None:
    """Starts the verification, or attaches to it, and waits until it is begun or refused; None when the wait ran out.

    Raises:
        ApiError: the bank account cannot be verified now, or Temporal cannot be reached.
    """
    operation = WithStartWorkflowOperation(
        MicroDepositWorkflow.run,
        order,
        id=micro_deposit_workflow_id(order.micro_deposit_id),
        task_queue=TaskQueue.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
    )
    call = client.execute_update_with_start_workflow(
        MicroDepositWorkflow.begin, start_workflow_operation=operation, id="begin"
    )
    return await update(call, wait_seconds)


async def remove_bank_account(client: Client, request: BankAccountRemoval, wait_seconds: float) -> None:
    """Starts the removal, or attaches to it, and waits until nothing can be begun with the account any more."""
    operation = WithStartWorkflowOperation(
        BankAccountRemovalWorkflow.run,
        request,
        id=bank_account_removal_workflow_id(request.payment_method_id),
        task_queue=TaskQueue.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
    )
    call = client.execute_update_with_start_workflow(
        BankAccountRemovalWorkflow.removed, start_workflow_operation=operation, id="removed"
    )
    await update(call, wait_seconds)


async def read_bank_day(client: Client, wait_seconds: float) -> BankDayReport | None:
    """What a reading of the bank's day found; None when the wait ran out."""
    try:
        handle = await client.start_workflow(
            BankDayWorkflow.run,
            id="bank-day/now",
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )
        async with asyncio.timeout(wait_seconds):
            return await handle.result()
    except TimeoutError:
        return None
    except RPCError as error:
        raise unavailable("payment engine") from error
