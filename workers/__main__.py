"""`python -m workers QUEUE…`: runs the workers of the named queues until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import AsyncExitStack

import uvloop

from config.logs import configure_logging
from config.runtime import settle
from config.settings import CodecSettings, TemporalSettings
from temporal.client import connect
from temporal.task_queues import TaskQueue
from workers.wiring import open_worker

_log = logging.getLogger("durapay.workers")


async def run(queues: list[TaskQueue]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    temporal = TemporalSettings()
    client = await connect(temporal, CodecSettings())
    async with AsyncExitStack() as stack:
        for queue in queues:
            worker = await stack.enter_async_context(open_worker(queue, client, temporal))
            await stack.enter_async_context(worker)
        settle()
        _log.info("serving %s, build %s", ", ".join(queues), temporal.build_id)
        await stop.wait()
        _log.info("stopping: what runs is finished first")
    # The SDK's threads need a moment after their worker has closed; exiting at once has aborted the interpreter.
    await asyncio.sleep(0.5)


def main() -> None:
    configure_logging()
    try:
        queues = [TaskQueue(name) for name in sys.argv[1:]]
    except ValueError as error:
        sys.exit(f"{error}; the queues are {', '.join(TaskQueue)}")
    if not queues:
        sys.exit(f"usage: python -m workers QUEUE…; the queues are {', '.join(TaskQueue)}")
    uvloop.run(run(queues))


if __name__ == "__main__":
    main()
