"""Health of a worker: `python -m embedded.health QUEUE` ends with 0 if this host polls that task queue."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from config.settings import TemporalSettings

_KINDS = (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)


async def polls(client: Client, queue: str, *, pid: int | None = None) -> bool:
    """Whether a worker of this host, or process `pid` of it, asks Temporal for work on `queue`.

    A worker's identity is `pid@host`, the SDK's default. Temporal forgets a poller five minutes after it went silent,
    so without `pid` a worker that has just died still counts.
    """
    for kind in _KINDS:
        answer = await client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind)
        )
        for poller in answer.pollers:
            process, _, host = poller.identity.partition("@")
            if host == socket.gethostname() and (pid is None or process == str(pid)):
                return True
    return False


async def _main(queue: str) -> int:
    settings = TemporalSettings()
    client = await Client.connect(settings.address, namespace=settings.namespace)
    return 0 if await polls(client, queue) else 1


if __name__ == "__main__":
    code = asyncio.run(_main(sys.argv[1]))
    # The Temporal SDK's threads need a moment: ending at once aborts the interpreter now and then.
    os._exit(code)
