"""The calls to workflows that routes make, and what their failures mean to an HTTP caller.

A workflow's typed refusal becomes the API error of the same code; a Temporal that cannot be reached becomes a 503
that is safe to repeat; a caller's wait that runs out is no error, unless nothing was started for which to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from api.errors import CATALOGUE, ApiError
from domain.ids import (
    payment_workflow_id,
    provisioning_workflow_id,
    removal_workflow_id,
    renewal_workflow_id,
    verification_workflow_id,
)
from temporal.task_queues import TaskQueue
from workflows.card_verification import CardVerificationWorkflow
from workflows.cards import CardRemovalWorkflow, CardRenewalWorkflow
from workflows.messages import CardRemoval, CardRenewal, CardVerification, PaymentRequest, TokenProvisioning
from workflows.payment import PaymentWorkflow
from workflows.token_lifecycle import TokenProvisioningWorkflow

T = TypeVar("T")

# A worker that dies in the middle of a local activity is missed after this long, not after the default ten seconds.
_WORKFLOW_TASK_TIMEOUT = timedelta(seconds=2)
# Who has waited in vain is not kept waiting much longer by the question whether there is anything to wait for.
_LAST_QUESTION = timedelta(seconds=1)


async def authorize_payment(client: Client, request: PaymentRequest, wait_seconds: float) -> None:
    """Starts the payment, or attaches to it, and waits until it can be told how it stands, or the wait runs out.

    The update's id is fixed and the workflow's id is the payment's: however often this is called, and by however many
    callers at once, there is one payment.

    Raises:
        ApiError: Temporal cannot be reached, or has not said within the wait that the payment was started.
    """
    operation = WithStartWorkflowOperation(
        PaymentWorkflow.run,
        request,
        id=payment_workflow_id(request.payment_id),
        task_queue=TaskQueue.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        task_timeout=_WORKFLOW_TASK_TIMEOUT,
        static_summary=f"{request.money} at {request.merchant.name}",
    )
    told = await _within(
        client.execute_update_with_start_workflow(
            PaymentWorkflow.authorize,
            start_workflow_operation=operation,
            id="authorize",
        ),
        wait_seconds,
    )
    if told is None:
        await _has_started(client, payment_workflow_id(request.payment_id))


async def _has_started(client: Client, workflow_id: str) -> None:
    """A caller is told to wait only for what will come. Of a server that took nothing, or says nothing, it has not."""
    try:
        await client.get_workflow_handle(workflow_id).describe(rpc_timeout=_LAST_QUESTION)
    except RPCError as error:
        raise _unreachable() from error


async def provision_token(
    client: Client, token_id: str, wait_seconds: float, verification: CardVerification | None = None
) -> None:
    """Starts the token's provisioning, or attaches to it, and waits for its end or until the wait runs out.

    One that this call starts goes on to `verification` by itself.
    """
    try:
        handle = await client.start_workflow(
            TokenProvisioningWorkflow.run,
            TokenProvisioning(token_id, verification),
            id=provisioning_workflow_id(token_id),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            task_timeout=_WORKFLOW_TASK_TIMEOUT,
        )
    except RPCError as error:
        raise _unreachable() from error
    await _within(handle.result(), wait_seconds)


async def verify_card(client: Client, request: CardVerification, wait_seconds: float) -> None:
    """Starts the verification, or attaches to it, and waits for its end or until the wait runs out."""
    workflow_id = verification_workflow_id(request.verification_id)
    try:
        handle = await client.start_workflow(
            CardVerificationWorkflow.run,
            request,
            id=workflow_id,
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            task_timeout=_WORKFLOW_TASK_TIMEOUT,
        )
    except WorkflowAlreadyStartedError:
        return  # it has ended, and its result is recorded
    except RPCError as error:
        raise _unreachable() from error
    await _within(handle.result(), wait_seconds)


async def remove_card(client: Client, request: CardRemoval, wait_seconds: float) -> None:
    """Starts the removal, or attaches to it, and waits until nothing is paid with the card any more."""
    operation = WithStartWorkflowOperation(
        CardRemovalWorkflow.run,
        request,
        id=removal_workflow_id(request.payment_method_id),
        task_queue=TaskQueue.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        task_timeout=_WORKFLOW_TASK_TIMEOUT,
    )
    call = client.execute_update_with_start_workflow(
        CardRemovalWorkflow.removed, start_workflow_operation=operation, id="removed"
    )
    await _within(call, wait_seconds)


async def renew_card(client: Client, request: CardRenewal, wait_seconds: float) -> None:
    """Starts the renewal, or attaches to it, and waits for its end or until the wait runs out."""
    try:
        handle = await client.start_workflow(
            CardRenewalWorkflow.run,
            request,
            id=renewal_workflow_id(request.payment_method_id, request.exp_year, request.exp_month),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            task_timeout=_WORKFLOW_TASK_TIMEOUT,
        )
    except RPCError as error:
        raise _unreachable() from error
    await _within(handle.result(), wait_seconds)


async def update(call: Awaitable[T], wait_seconds: float) -> T | None:
    """The result of an update on a running workflow; None when the caller's wait ran out before there was one.

    Raises:
        ApiError: the workflow refused, has closed, or Temporal cannot be reached.
    """
    return await _within(call, wait_seconds)


async def _within(call: Awaitable[T], wait_seconds: float) -> T | None:
    # Not by the client's own time-outs: they bound each of its long polls, not the whole wait.
    try:
        async with asyncio.timeout(wait_seconds) as wait:
            return await call
    except TimeoutError:
        return None
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        # The client says the same of a wait that ran out here and of a connection that broke under the call.
        if wait.expired():
            return None
        raise _unreachable() from error
    except WorkflowUpdateFailedError as failure:
        cause = failure.cause
        if isinstance(cause, ApplicationError) and cause.type in CATALOGUE:
            raise ApiError(cause.type, cause.message, _PARAMETERS.get(cause.type)) from failure
        raise
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise ApiError("payment_closed", "The payment is closed; nothing more can be done with it.") from error
        raise _unreachable() from error


def _unreachable() -> ApiError:
    """It may have heard the request all the same, so nothing is said of what was changed."""
    message = "The payment engine cannot be reached. Repeat the request with the same key."
    return ApiError("service_unavailable", message, retry_after_seconds=2)


_PARAMETERS = {
    "amount_above_limit": "amount_minor",
    "amount_too_large": "amount_minor",
    "amount_invalid": "amount_minor",
    "payment_disputed": "amount_minor",
    "step_up_code_incorrect": "code",
}
