"""How the bank worker reaches the workflows of verifications."""

from __future__ import annotations

import contextlib
import logging

from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.bank import DepositWorkflows
from domain.ids import bank_return_workflow_id, micro_deposit_workflow_id
from domain.micro_deposits import BankReturn, DepositReturned, DepositsPosted, MicroDepositSnapshot
from temporal.task_queues import TaskQueue
from workflows.bank_accounts import BankReturnWorkflow
from workflows.micro_deposit import MicroDepositWorkflow

_log = logging.getLogger(__name__)


class TemporalDepositWorkflows(DepositWorkflows):
    """Each call may be made again: what was told twice changes nothing."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tell(self, news: DepositsPosted | DepositReturned) -> bool:
        handle = self._handle(news.micro_deposit_id)
        try:
            await handle.signal("deposits_posted" if isinstance(news, DepositsPosted) else "deposit_returned", news)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            _log.info("%s has ended and does not hear of its entries", news.micro_deposit_id)
            return False
        return True

    async def begin(self, entry: BankReturn) -> None:
        with contextlib.suppress(WorkflowAlreadyStartedError):  # it has ended
            await self._client.start_workflow(
                BankReturnWorkflow.run,
                entry,
                id=bank_return_workflow_id(entry.sequence, entry.line),
                task_queue=TaskQueue.PAYMENTS,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )

    async def account_removed(self, micro_deposit_id: str) -> None:
        update, handle = MicroDepositWorkflow.account_removed, self._handle(micro_deposit_id)
        try:
            await handle.execute_update(update, id="account_removed")
        except RPCError as error:
            # One that has ended meanwhile has nothing to end.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    def _handle(self, micro_deposit_id: str) -> WorkflowHandle[MicroDepositWorkflow, MicroDepositSnapshot]:
        return self._client.get_workflow_handle_for(
            MicroDepositWorkflow.run, micro_deposit_workflow_id(micro_deposit_id)
        )
