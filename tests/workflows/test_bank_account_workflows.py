"""What becomes of a bank account besides its verification."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.testing import WorkflowEnvironment

from domain.ids import bank_account_removal_workflow_id, bank_return_workflow_id
from domain.micro_deposits import (
    BankCorrection,
    BankReturn,
    CorrectionRecord,
    ReturnDecision,
    ReturnEffect,
    TakenBack,
)
from temporal.search_attributes import NEEDS_ATTENTION
from temporal.task_queues import TaskQueue
from tests.support.deposit_world import RIGHT_ACCOUNT, SETTLES_ON, DepositWorld, open_deposit_world
from tests.support.world import Fault
from workflows.bank_accounts import BankAccountRemovalWorkflow, BankReturnWorkflow
from workflows.messages import BankAccountRemoval, Resolution, ResolveRequest


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


_RETURN = BankReturn(7, 1, "return", "R10", 32, SETTLES_ON, 21, "md_1", "ba_1")
_UNMATCHED = BankReturn(7, 1, "return", "R10", 32, SETTLES_ON, 21)
_CHANGE = BankReturn(7, 2, "change", "C01", 0, SETTLES_ON, 21, "md_1", "ba_1", "key.box")


async def _begin(deposits: DepositWorld, entry: BankReturn) -> WorkflowHandle[BankReturnWorkflow, None]:
    return await deposits.client.start_workflow(
        BankReturnWorkflow.run,
        entry,
        id=f"{bank_return_workflow_id(entry.sequence, entry.line)}/{deposits.order.micro_deposit_id}",
        task_queue=TaskQueue.PAYMENTS,
    )


async def _resolve(handle: WorkflowHandle[BankReturnWorkflow, None], step: str, outcome: Resolution) -> None:
    async with asyncio.timeout(30):
        while (await handle.describe()).typed_search_attributes.get(NEEDS_ATTENTION) != step:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for operator in ("ada", "grace"):
        request = ResolveRequest(operator, step, outcome, "asked the bank")
        await handle.execute_update(BankReturnWorkflow.resolve, request)


async def test_what_a_late_return_takes_back_is_erased(deposits: DepositWorld) -> None:
    await (await _begin(deposits, _RETURN)).result()
    assert deposits.bank.takes.calls == [_RETURN]
    assert deposits.bank.erased == ["ba_1"]


@pytest.mark.parametrize("effect", [ReturnEffect.PASSED_ON, ReturnEffect.NOTHING_TO_REVOKE])
async def test_a_late_return_that_takes_nothing_back_erases_nothing(
    deposits: DepositWorld, effect: ReturnEffect
) -> None:
    deposits.bank.takes.then(TakenBack(effect))
    await (await _begin(deposits, _RETURN)).result()
    assert deposits.bank.erased == []


@pytest.mark.parametrize(
    ("entry", "outcome", "effect"),
    [
        (_UNMATCHED, Resolution.WRITE_OFF, ReturnEffect.WRITTEN_OFF),
        (_UNMATCHED, Resolution.ACKNOWLEDGED, ReturnEffect.SEEN),
        (replace(_CHANGE, sealed_correction=None), Resolution.ACKNOWLEDGED, ReturnEffect.SEEN),
    ],
)
async def test_what_belongs_to_nothing_waits_for_two_operators(
    deposits: DepositWorld, entry: BankReturn, outcome: Resolution, effect: ReturnEffect
) -> None:
    handle = await _begin(deposits, entry)
    await _resolve(handle, "bank.explain_return", outcome)
    await handle.result()
    assert deposits.bank.decided == [ReturnDecision(entry, effect)]


async def test_a_correction_goes_through_the_vault_and_is_recorded(deposits: DepositWorld) -> None:
    await (await _begin(deposits, _CHANGE)).result()
    assert deposits.bank.corrections.calls == [BankCorrection("7:2", "ba_1", "C01", "key.box")]
    assert deposits.bank.corrected == [CorrectionRecord(_CHANGE, RIGHT_ACCOUNT)]


async def test_a_correction_that_cannot_be_applied_waits_for_two_operators(deposits: DepositWorld) -> None:
    deposits.bank.corrections.then(Fault("InvalidBankAccount", final=True))
    handle = await _begin(deposits, _CHANGE)
    await _resolve(handle, "vault.correct_bank_account", Resolution.ACKNOWLEDGED)
    await handle.result()
    assert deposits.bank.corrected == [CorrectionRecord(_CHANGE, None)]
