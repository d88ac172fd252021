"""Callers of one workflow wait for their turn here and not at Temporal, which takes ten updates of a workflow at once.

An eleventh is refused (`RESOURCE_EXHAUSTED`), and worse: with the refusal the server forgets what it was about to ask
of the worker for the others. A hundred callers who repeat their refused requests keep a payment's workflow from getting
anything done for as long as they go on; a hundred who take turns are served within a second.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from temporalio import client

# Temporal's limit (`history.maxInFlightUpdates`) is ten per workflow; this leaves some to operators, who use the UI,
# and to workflows, which use signals anyway. With several API processes on one payment Temporal refuses at times: the
# SDK tries again, and the caller is told 503.
_AT_ONCE = 8


class InTurn(client.Interceptor):
    """At most eight updates of a workflow at once pass this client; the others wait, in the order in which they came.

    A caller who gives up waiting was never heard by Temporal.
    """

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        return _Turns(next)


class _Turns(client.OutboundInterceptor):
    def __init__(self, next: client.OutboundInterceptor) -> None:
        super().__init__(next)
        # An entry lives as long as somebody holds a turn or waits for one.
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def start_workflow_update(self, input: client.StartWorkflowUpdateInput) -> client.WorkflowUpdateHandle[Any]:
        async with self._turn(input.id):
            return await super().start_workflow_update(input)

    async def start_update_with_start_workflow(
        self, input: client.StartWorkflowUpdateWithStartInput
    ) -> client.WorkflowUpdateHandle[Any]:
        async with self._turn(input.start_workflow_input.id):
            return await super().start_update_with_start_workflow(input)

    def _turn(self, workflow_id: str) -> asyncio.Semaphore:
        return self._turns.setdefault(workflow_id, asyncio.Semaphore(_AT_ONCE))
