"""The workflow sandbox, with what the codec asks of it answered outside.

For every payload that goes in or out, the SDK asks the workflow instance to which workflow or activity it belongs,
several times, and each time enters the sandbox for it: a fifth of the payments worker's CPU. Our codec binds a payload
to a workflow only, so but for commands that address another workflow the answer is known without entering.
"""

from __future__ import annotations

from typing import Any

from temporalio.api.enums.v1 import CommandType
from temporalio.converter import SerializationContext, StorageDriverStoreContext, WorkflowSerializationContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import Info

# Pure modules, and what the data converter validates with: importing them anew for each workflow would cost more CPU
# than the workflow itself. Everything else that workflow code touches stays inside the sandbox.
_PASSED_THROUGH = ("domain", "temporal", "workflows", "activities.contracts", "activities", "pydantic", "pydantic_core")

_ADDRESSES_ANOTHER_WORKFLOW = frozenset(
    {
        CommandType.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION,
        CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION,
        CommandType.COMMAND_TYPE_SCHEDULE_NEXUS_OPERATION,
    }
)


class Sandbox(SandboxedWorkflowRunner):
    """The SDK's sandbox for workflow code. Payloads are not stored outside of histories, so their place is empty."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _Instance(super().create_instance(det))


class _Instance(WorkflowInstance):
    def __init__(self, sandboxed: WorkflowInstance) -> None:
        self._sandboxed = sandboxed
        info = sandboxed.get_info()
        self._own_context = WorkflowSerializationContext(namespace=info.namespace, workflow_id=info.workflow_id)

    def activate(self, act: Any) -> Any:
        return self._sandboxed.activate(act)

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        if command_info is not None and command_info.command_type in _ADDRESSES_ANOTHER_WORKFLOW:
            return self._sandboxed.get_serialization_context(command_info)
        return self._own_context

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        return StorageDriverStoreContext(target=None)

    def get_info(self) -> Info:
        return self._sandboxed.get_info()

    def get_thread_id(self) -> int | None:
        return self._sandboxed.get_thread_id()


def sandbox() -> Sandbox:
    return Sandbox(restrictions=SandboxRestrictions.default.with_passthrough_modules(*_PASSED_THROUGH))
