"""No more callers of one workflow than Temporal takes at once are let through to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest
from temporalio import client

from temporal.turns import InTurn


@dataclass
class _Asked:
    """The part of each input by which a workflow is told from others."""

    id: str

    @property
    def start_workflow_input(self) -> _Asked:
        return self


class _Server(client.OutboundInterceptor):
    """Answers when it is told to, and knows how many wait for it."""

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.asked: list[str] = []

    async def start_workflow_update(self, input: Any) -> Any:
        self.asked.append(input.id)
        await self.answering.wait()

    start_update_with_start_workflow = start_workflow_update


def _ask(calls: client.OutboundInterceptor, workflow_id: str, *, start: bool = False) -> asyncio.Task[Any]:
    asked: Any = _Asked(workflow_id)
    if start:
        return asyncio.create_task(_awaited(calls.start_update_with_start_workflow(asked)))
    return asyncio.create_task(_awaited(calls.start_workflow_update(asked)))


async def _awaited(call: Any) -> Any:
    return await call


async def _a_moment() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("start", [False, True])
async def test_eight_callers_of_a_workflow_pass_at_once_and_the_others_follow(start: bool) -> None:
    server = _Server()
    calls = InTurn().intercept_client(cast(client.OutboundInterceptor, server))
    callers = [_ask(calls, "payment/pay_a", start=start) for _ in range(30)]
    await _a_moment()
    assert len(server.asked) == 8
    server.answering.set()
    await asyncio.gather(*callers)
    assert len(server.asked) == 30


async def test_nobody_waits_for_the_callers_of_another_workflow() -> None:
    server = _Server()
    calls = InTurn().intercept_client(cast(client.OutboundInterceptor, server))
    callers = [_ask(calls, "payment/pay_a") for _ in range(20)]
    callers.append(_ask(calls, "payment/pay_b"))
    await _a_moment()
    assert server.asked.count("payment/pay_b") == 1
    server.answering.set()
    await asyncio.gather(*callers)


async def test_a_caller_who_gives_up_is_never_heard_and_keeps_nobody_waiting() -> None:
    server = _Server()
    calls = InTurn().intercept_client(cast(client.OutboundInterceptor, server))
    callers = [_ask(calls, "payment/pay_a") for _ in range(10)]
    await _a_moment()
    for caller in callers[:5]:
        caller.cancel()
    callers[-1].cancel()
    await _a_moment()
    assert len(server.asked) == 9
    server.answering.set()
    await asyncio.gather(*callers, return_exceptions=True)
    assert len(server.asked) == 9
