"""Faults on request: the next calls to a provider fail, hang, or lose their answer."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request


class Provider(StrEnum):
    TWILIO = "twilio"
    FCM = "fcm"


class When(StrEnum):
    """`BEFORE`: the message is not taken. `AFTER`: it is, and then the answer is late, or another one."""

    BEFORE = "before"
    AFTER = "after"


class Fault(BaseModel):
    """What happens to the next `times` calls: they hang for `hang_seconds`, then answer `status`, or as ever."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider
    status: int | None = Field(default=None, ge=400, le=599)
    times: int = Field(default=1, ge=1, le=10_000)
    retry_after: int | None = Field(default=None, ge=0, le=86_400)
    hang_seconds: float = Field(default=0, ge=0, le=30)
    when: When = When.BEFORE

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after)} if self.retry_after is not None else {}


class GaveUp(Exception):
    """The caller hung up while the fault let it wait."""


class Faults:
    """Ordered faults by provider; they happen in the order in which they were asked for, and end with the process."""

    def __init__(self) -> None:
        self._queues: dict[Provider, deque[Fault]] = {provider: deque() for provider in Provider}

    def order(self, fault: Fault) -> None:
        self._queues[fault.provider].append(fault)

    def pending(self) -> list[Fault]:
        return [fault for queue in self._queues.values() for fault in queue]

    def clear(self) -> None:
        for queue in self._queues.values():
            queue.clear()

    def take(self, provider: Provider) -> Fault | None:
        """The fault of this call, which is used up by it."""
        queue = self._queues[provider]
        if not queue:
            return None
        fault = queue[0]
        if fault.times == 1:
            queue.popleft()
        else:
            queue[0] = fault.model_copy(update={"times": fault.times - 1})
        return fault


async def hang(request: Request, fault: Fault) -> None:
    """
    Raises:
        GaveUp: nobody waits for the answer any more.
    """
    await asyncio.sleep(fault.hang_seconds)
    if fault.hang_seconds and await request.is_disconnected():
        raise GaveUp
