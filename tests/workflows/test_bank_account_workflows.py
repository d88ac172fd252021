"""What becomes of a bank account besides its verification."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.testing import WorkflowEnvironment

from domain.ids import bank_account_removal_workflow_id
from temporal.task_queues import TaskQueue
from tests.support.deposit_world import DepositWorld, open_deposit_world
from workflows.bank_accounts import BankAccountRemovalWorkflow
from workflows.messages import BankAccountRemoval


@pytest_asyncio.fixture
async def deposits(time_skipping_env: WorkflowEnvironment) -> AsyncIterator[DepositWorld]:
    async with open_deposit_world(time_skipping_env.client) as world:
        yield world


async def _remove(client: Client, request: BankAccountRemoval) -> WorkflowHandle[BankAccountRemovalWorkflow, None]:
    """Returns when the caller is told that the account is removed."""
    operation = WithStartWorkflowOperation(
        BankAccountRemovalWorkflow.run,
        request,
        id=bank_account_removal_workflow_id(request.payment_method_id),
        task_queue=TaskQueue.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
    )
    await client.execute_update_with_start_workflow(
        BankAccountRemovalWorkflow.removed, start_workflow_operation=operation, id="removed"
    )
    handle: WorkflowHandle[BankAccountRemovalWorkflow, None] = await operation.workflow_handle()
    return handle


async def test_an_account_is_removed_then_its_verification_ends_and_then_its_number_is_erased(
    deposits: DepositWorld,
) -> None:
    ended, order = asyncio.Event(), deposits.order

    async def wait(method: object) -> None:
        await ended.wait()

    deposits.bank.ends.then(wait)
    handle = await _remove(deposits.client, BankAccountRemoval(order.payment_method_id, order.bank_account_id))
    assert deposits.bank.removed == [order.payment_method_id]
    assert deposits.bank.erased == [], "the number was erased while the bank might still be sent it"
    ended.set()
    await handle.result()
    assert deposits.bank.erased == [order.bank_account_id]


async def test_callers_at_once_remove_an_account_once(deposits: DepositWorld) -> None:
    request = BankAccountRemoval(deposits.order.payment_method_id, deposits.order.bank_account_id)
    handles = await asyncio.gather(*(_remove(deposits.client, request) for _ in range(4)))
    await handles[0].result()
    assert deposits.bank.removed == [request.payment_method_id]
    assert deposits.bank.erased == [request.bank_account_id]
