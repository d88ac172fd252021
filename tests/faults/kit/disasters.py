"""What goes wrong in a seeded run: one disaster after the other, each drawn by the run's generator and counted.

A disaster takes a few seconds and leaves everything running. Two never touch processes at the same time, or one would
keep the other from starting what it killed; links are spoiled beside them.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from embedded.processes import ServerFailed
from embedded.zones import Zone
from tests.faults.kit.inspection import Finding
from tests.faults.kit.platform import (
    ANSWER_TIMEOUT_SECONDS,
    API,
    POSTGRES,
    SIMULATOR,
    TEMPORAL,
    VALKEY,
    WORKERS,
    FaultyPlatform,
)
from tests.faults.kit.proxy import (
    Action,
    Direction,
    Fault,
    Proxy,
    Stream,
    delay,
    drop,
    duplicate,
    glue_to_next,
    replace_by,
    reset,
    slice_bytes,
    swap_with_next,
)
from tests.faults.kit.wire import message_of, statement_about, when_committed

Disaster = Callable[[], Awaitable[None]]

# Where a program kills itself. A place to which nothing comes within the patience strikes nobody.
CRASH_PLACES: Mapping[str, Sequence[str]] = {
    WORKERS[Zone.PAYMENTS]: (
        "payments.open.before",
        "payments.open.after",
        "network.ask.after",
        "ledger.record.before",
        "ledger.record.after",
    ),
    WORKERS[Zone.VAULT]: ("vault.issue_credential.before", "vault.issue_credential.after"),
    WORKERS[Zone.NETWORK]: (
        *("network.authorize.before", "network.authorize.after", "network.capture.after"),
        *("network.reverse.after", "network.refund.after"),
    ),
    API: ("client.authorize.before", "client.authorize.after", "client.capture.after", "client.refund.after"),
}
_PATIENCE_SECONDS = 6
_LINK_FAULTS: Mapping[str, Action] = {
    "answer lost": drop,
    "answer twice": duplicate,
    "answer late": delay(ANSWER_TIMEOUT_SECONDS * 1.5),
    "answers swapped": swap_with_next,
    "answers in one piece": glue_to_next,
    "answer byte by byte": slice_bytes,
    "reset instead of an answer": reset,
    "garbage": replace_by(lambda frame: bytes(range(64)) * 8),
}


class Disasters:
    """`happened` counts what struck, `findings` is what did not come back."""

    def __init__(self, platform: FaultyPlatform, engine: AsyncEngine, seed: str) -> None:
        self.happened: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self._platform = platform
        self._engine = engine
        self._random = random.Random(seed)
        self._processes = asyncio.Lock()

    async def strike(self, over: asyncio.Event) -> None:
        """One disaster after the other until `over`; now and then a spoiled link beside it."""
        while not over.is_set():
            beside = self._random.random() < 0.3
            first, second = self._draw(), self._draw_link()
            try:
                await asyncio.gather(first(), *([second()] if beside else []))
            except ServerFailed as failure:
                self.findings.append(Finding("I9", "a process did not come back", str(failure)))
                return
            await asyncio.sleep(self._random.uniform(0.3, 1.5))

    def _draw(self) -> Disaster:
        kinds = [self._kill, self._crash, self._stall, self._cut, self._database]
        return self._random.choice([*kinds, self._draw_link, self._draw_link])()

    # ------------------------------------------------------------------------------------------------------- processes

    def _kill(self) -> Disaster:
        ours = self._platform.programs
        names = self._random.choice([*((name,) for name in (*ours, *ours, TEMPORAL, VALKEY, SIMULATOR)), ours])
        down_seconds = self._random.uniform(0, 1.5)

        async def disaster() -> None:
            async with self._processes:
                self._count(f"kill -9: {'all of ours' if names is ours else names[0]}")
                await self._platform.kill(*names)
                await asyncio.sleep(down_seconds)
                await self._platform.start_again(*names)

        return disaster

    def _crash(self) -> Disaster:
        name = self._random.choice(list(CRASH_PLACES))
        place = self._random.choice(CRASH_PLACES[name])

        async def disaster() -> None:
            async with self._processes:
                await self._platform.arm(name, place)
                try:
                    await self._platform.until_crashed(name, place, _PATIENCE_SECONDS)
                except TimeoutError:
                    await self._platform.kill(name)  # its crash point must not stay armed
                else:
                    self._count(f"crash at {place}")
                await self._platform.start_again(name)

        return disaster

    def _stall(self) -> Disaster:
        name = self._random.choice([*self._platform.programs, TEMPORAL, TEMPORAL, SIMULATOR])
        seconds = self._random.uniform(1, 5)

        async def disaster() -> None:
            async with self._processes, self._platform.stopped(name):
                self._count(f"SIGSTOP: {name}")
                await asyncio.sleep(seconds)

        return disaster

    def _database(self) -> Disaster:
        crash = self._random.random() < 0.4
        zone = self._random.choice(list(self._platform.database))
        times, seconds = self._random.randrange(1, 5), self._random.uniform(0.5, 3)

        async def disaster() -> None:
            async with self._processes:
                if crash:
                    self._count("PostgreSQL: immediate stop")
                    await self._platform.kill(POSTGRES, by=signal.SIGQUIT)
                    await asyncio.sleep(seconds / 2)
                    await self._platform.start_again(POSTGRES)
                    await self._engine.dispose()
                    return
                self._count("PostgreSQL: all backends terminated")
                async with self._engine.connect() as connection:
                    await connection.execute(_TERMINATE, {"zones": list(self._platform.database)})

        async def lost_commits() -> None:
            fault = Fault(
                f"answer to COMMIT lost: {zone}", Direction.TO_SERVER, statement_about(), when_committed(_reset), times
            )
            await self._spoiled(self._platform.database[zone], fault, seconds)

        return disaster if self._random.random() < 0.5 else lost_commits

    # ----------------------------------------------------------------------------------------------------------- links

    def _draw_link(self) -> Disaster:
        name = self._random.choice(list(_LINK_FAULTS))
        times, seconds = self._random.randrange(1, 6), self._random.uniform(1, 4)
        refused = self._random.random() < 0.2

        async def disaster() -> None:
            if refused:
                self._count("network: refused")
                await self._cut_off(self._platform.network, seconds, self._platform.network.refuse)
                return
            fault = Fault(f"network: {name}", Direction.TO_CLIENT, _is_answer, _LINK_FAULTS[name], times)
            await self._spoiled(self._platform.network, fault, seconds)

        return disaster

    def _cut(self) -> Disaster:
        """A zone loses its database, Temporal or the network: refused, silent, slow, or only for a moment."""
        links = [*self._platform.proxies, self._platform.network]
        link, how = self._random.choice(links), self._random.choice(["frozen", "reset", "slow"])
        seconds = self._random.uniform(1, 4)

        async def disaster() -> None:
            self._count(f"{how}: {link.name}")
            match how:
                case "frozen":
                    await self._cut_off(link, seconds, link.freeze)
                case "reset":
                    link.reset()
                case _:
                    link.lag_seconds = 0.05
                    await self._cut_off(link, seconds, lambda: None)

        return disaster

    async def _cut_off(self, link: Proxy, seconds: float, cut: Callable[[], None]) -> None:
        cut()
        await asyncio.sleep(seconds)
        link.heal()

    async def _spoiled(self, link: Proxy, fault: Fault, seconds: float) -> None:
        link.spoil(fault)
        await asyncio.sleep(seconds)
        link.forgive(fault)
        self.happened[fault.name] += fault.struck

    def _count(self, what: str) -> None:
        self.happened[what] += 1


async def _reset(answers: Stream, answer: bytes) -> None:
    answers.reset()


def _is_answer(frame: bytes) -> bool:
    """Not of the network's own management: without a sign-on there is nothing to spoil."""
    message = message_of(frame)
    return message is not None and message.mti != "0810"


_TERMINATE = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(:zones)")
