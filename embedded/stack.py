"""Starts the parts of the platform side by side as far as they do not need each other, and keeps them running.

A part that ends by itself is started again, visibly; one that keeps ending stops the whole stack.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

from domain.errors import DurapayError
from embedded.processes import PortTaken, ServerFailed, tail
from embedded.servers import Server
from embedded.state import Running, StateFolder

_CRASHES_ALLOWED = 5
_CRASH_WINDOW_SECONDS = 60
_RESTART_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """One server or one step of the start.

    `then` runs once the server answers (at a step without a server: once all of `after` are done), and again after
    each restart of the server.
    """

    name: str
    server: Server | None = None
    after: tuple[str, ...] = ()
    then: Callable[[], Awaitable[None]] | None = None


class Stack:
    """The parts, in any order: `after` decides which waits for which."""

    def __init__(self, parts: Sequence[Part], state: StateFolder, console: Console) -> None:
        self._parts = parts
        self._state = state
        self._console = console
        self._ready = {part.name: asyncio.Event() for part in parts}
        self._crashes: dict[str, deque[float]] = {part.name: deque() for part in parts}
        self._stopping = False

    async def start(self) -> None:
        """Returns when every part is ready.

        Raises:
            DurapayError: a part failed; its message has the last lines of its log.
        """
        started = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for part in self._parts:
                    group.create_task(self._start_part(part, started))
        except* DurapayError as failures:
            raise _first(failures) from None
        self._publish()

    async def supervise(self) -> None:
        """Restarts what ends by itself. Never returns.

        Raises:
            ServerFailed: a part ended again and again, or did not come back.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for part in self._parts:
                    if part.server is not None:
                        group.create_task(self._keep_running(part, part.server))
        except* DurapayError as failures:
            raise _first(failures) from None

    async def stop(self) -> None:
        """Stops everything in the opposite order: nothing loses what it needs while it still works."""
        self._stopping = True
        self._state.unpublish()
        remaining = {part.name: part for part in self._parts}
        while remaining:
            needed = {name for part in remaining.values() for name in part.after}
            last = [part for name, part in remaining.items() if name not in needed]
            await asyncio.gather(*(part.server.stop() for part in last if part.server is not None))
            for part in last:
                del remaining[part.name]

    async def _start_part(self, part: Part, stack_started: float) -> None:
        for name in part.after:
            await self._ready[name].wait()
        started = time.monotonic()
        if part.server is not None:
            await part.server.start()
        if part.then is not None:
            await part.then()
        now = time.monotonic()
        self._ready[part.name].set()
        self._console.print(
            f"  [green]✓[/] {part.name:<24} {now - started:5.1f} s   [dim]at {now - stack_started:5.1f} s[/]"
        )

    async def _keep_running(self, part: Part, server: Server) -> None:
        while True:
            code = await server.process.wait()
            if self._stopping:
                return
            self._console.print(f"  [yellow]! {part.name} {_how_it_ended(code)}; starting it again[/]")
            await self._bring_back(part, server)
            self._publish()

    async def _bring_back(self, part: Part, server: Server) -> None:
        """Starts a part again. What it needs may be down at this moment too, so one failure is not the end."""
        while True:
            self._count_crash(part.name, server)
            await asyncio.sleep(_RESTART_PAUSE_SECONDS)
            started = time.monotonic()
            try:
                await server.start()
                if part.then is not None:
                    await part.then()
            except (ServerFailed, PortTaken):
                self._console.print(f"  [yellow]! {part.name} did not come back; trying again[/]")
                await server.stop()
                continue
            self._console.print(f"  [green]✓[/] {part.name:<24} {time.monotonic() - started:5.1f} s   [dim]again[/]")
            return

    def _count_crash(self, name: str, server: Server) -> None:
        now = time.monotonic()
        crashes = self._crashes[name]
        crashes.append(now)
        while crashes[0] < now - _CRASH_WINDOW_SECONDS:
            crashes.popleft()
        if len(crashes) > _CRASHES_ALLOWED:
            raise ServerFailed(
                f"{name} ended {len(crashes)} times within {_CRASH_WINDOW_SECONDS} s; its log says:\n"
                f"{tail(server.process.log)}"
            )

    def _publish(self) -> None:
        processes = {part.name: part.server.process.pid for part in self._parts if part.server is not None}
        self._state.publish(Running(pid=os.getpid(), processes=processes))


def _how_it_ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _first(failures: BaseExceptionGroup[DurapayError]) -> DurapayError:
    """One failure of the group: the others are its consequences."""
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, DurapayError)
    return found
