"""Where crash points (`config.crash_points`) lie: right before and right after every activity, local ones too, and
every call by which a client changes a workflow.

    network.authorize.before  network.authorize.after   the activity of that name
    client.authorize.before   client.authorize.after    the update of that name, by itself or with its workflow's start
    client.payment.before     client.payment.after      the start of a workflow of that type

One interceptor of the client covers API and workers: the SDK hands it on to every worker of that client. Without armed
crash points there is no interceptor.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from temporalio import activity, client, worker

from config.crash_points import CrashPoints, armed_crash_points

_Command = TypeVar("_Command")
_Result = TypeVar("_Result")


def crash_point_interceptors() -> Sequence[client.Interceptor]:
    """None at all, but in a process whose crash points are armed.

    Raises:
        CrashPointsRefused: see `config.crash_points`.
    """
    points = armed_crash_points()
    return [] if points is None else [AtEveryEdge(points)]


def with_crash_points(
    name: str, work: Callable[[_Command], Awaitable[_Result]], workflow_id_of: Callable[[_Command], str]
) -> Callable[[_Command], Awaitable[_Result]]:
    """`work` that is done for a workflow without being one of its activities, with the edges of one called `name`.

    Raises:
        CrashPointsRefused: see `config.crash_points`.
    """
    points = armed_crash_points()
    if points is None:
        return work

    async def at_edges(command: _Command) -> _Result:
        points.reached(f"{name}.before", workflow_id_of(command))
        result = await work(command)
        points.reached(f"{name}.after", workflow_id_of(command))
        return result

    return at_edges


class AtEveryEdge(client.Interceptor, worker.Interceptor):
    """For the client; its workers take it over."""

    def __init__(self, points: CrashPoints) -> None:
        self._points = points

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        return _Calls(next, self._points)

    def intercept_activity(self, next: worker.ActivityInboundInterceptor) -> worker.ActivityInboundInterceptor:
        return _Activities(next, self._points)


class _Activities(worker.ActivityInboundInterceptor):
    def __init__(self, next: worker.ActivityInboundInterceptor, points: CrashPoints) -> None:
        super().__init__(next)
        self._points = points

    async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
        info = activity.info()
        self._points.reached(f"{info.activity_type}.before", info.workflow_id or "")
        result = await super().execute_activity(input)
        self._points.reached(f"{info.activity_type}.after", info.workflow_id or "")
        return result


class _Calls(client.OutboundInterceptor):
    def __init__(self, next: client.OutboundInterceptor, points: CrashPoints) -> None:
        super().__init__(next)
        self._points = points

    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:
        self._points.reached(f"client.{input.workflow}.before", input.id)
        handle = await super().start_workflow(input)
        self._points.reached(f"client.{input.workflow}.after", input.id)
        return handle

    async def start_workflow_update(self, input: client.StartWorkflowUpdateInput) -> client.WorkflowUpdateHandle[Any]:
        self._points.reached(f"client.{input.update}.before", input.id)
        handle = await super().start_workflow_update(input)
        self._points.reached(f"client.{input.update}.after", input.id)
        return handle

    async def start_update_with_start_workflow(
        self, input: client.StartWorkflowUpdateWithStartInput
    ) -> client.WorkflowUpdateHandle[Any]:
        update, workflow_id = input.update_workflow_input.update, input.start_workflow_input.id
        self._points.reached(f"client.{update}.before", workflow_id)
        handle = await super().start_update_with_start_workflow(input)
        self._points.reached(f"client.{update}.after", workflow_id)
        return handle
