"""A seeded run: clients at work, disasters among them, and in the end everything that must be true."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from tests.faults.kit.cases import Kit
from tests.faults.kit.disasters import Disasters
from tests.faults.kit.inspection import INVARIANTS, Finding, Inspector
from tests.faults.kit.leaks import Canaries, find_leaks
from tests.faults.kit.workload import Customer, Record
from tests.support.shop import Shop

CUSTOMERS = 3
# Of one round: then all is healed and looked at, so that a long run says soon what it found.
ROUND_SECONDS = 75
# Within which everything that is open must end once all is healed: a dead network worker is missed after 15 s, a
# claim on a notification ends after 45 s, and steps that parked try again by themselves.
QUIET_SECONDS = 75


@dataclass(slots=True)
class Result:
    seed: int
    record: Record
    disasters: Disasters
    findings: list[Finding] = field(default_factory=list)
    rounds: int = 0
    seconds: float = 0.0
    healing_seconds: float = 0.0


async def run(kit: Kit, seed: int, minutes: float, console: Console) -> Result:
    """Goes on for about `minutes`, or until a round has found something.

    `seed` names what is asked for and what goes wrong; how the two meet is up to the machine.
    """
    console.print(f"seed {seed}")
    started = time.monotonic()
    record = Record(Canaries(cvc="0573"))
    disasters = Disasters(kit.platform, kit.database, f"{seed}/disasters")
    result = Result(seed, record, disasters)
    inspector = Inspector(kit.platform.access, kit.database)
    shops = [
        await Shop.open(kit.platform.access, kit.database, name=f"seed-{seed}-{started}-{number}")
        for number in range(CUSTOMERS)
    ]
    try:
        customers = [Customer(shop, f"{seed}/customer/{number}", record) for number, shop in enumerate(shops)]
        while not result.findings and time.monotonic() - started < minutes * 60 - QUIET_SECONDS / 2:
            result.rounds += 1
            await _round(kit, inspector, customers, result)
            console.print(_progress(result, time.monotonic() - started))
        result.findings += await find_leaks(kit.platform, kit.database, record.canaries)
    finally:
        await inspector.close()
        for shop in shops:
            await shop.http.aclose()
    result.seconds = time.monotonic() - started
    return result


async def _round(kit: Kit, inspector: Inspector, customers: list[Customer], result: Result) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(ROUND_SECONDS, over.set)
    async with asyncio.TaskGroup() as group:
        for customer in customers:
            group.create_task(customer.live(over))
        await result.disasters.strike(over)
        over.set()
        await kit.platform.heal()
        await kit.database.dispose()
    healed = time.monotonic()
    await asyncio.gather(*(customer.settle() for customer in customers))
    result.findings += await inspector.until_quiet(QUIET_SECONDS)
    # What was still under way when a customer asked is decided now.
    await asyncio.gather(*(customer.settle() for customer in customers))
    result.healing_seconds = max(result.healing_seconds, time.monotonic() - healed)
    result.findings += [*result.disasters.findings, *result.record.findings, *await inspector.check()]
    for customer in customers:
        customer.forget()


def _progress(result: Result, seconds: float) -> str:
    found = f"[red]{len(result.findings)} findings[/]" if result.findings else "nothing found"
    return f"round {result.rounds}, {seconds:.0f} s: {sum(result.disasters.happened.values())} faults, {found}"


def report(result: Result) -> list[Table]:
    """What was injected, what was asked and answered, and what was found."""
    injected = Table("fault", "times", title=f"seed {result.seed}: what went wrong", title_justify="left")
    # Counting up drops what was looked for and met nothing.
    for name, times in sorted((+result.disasters.happened).items()):
        injected.add_row(name, str(times))
    asked = Table("asked", "times", "answered", "times", title="what the clients did and got", title_justify="left")
    left, right = sorted(result.record.asked.items()), sorted(result.record.answers.items())
    for row in range(max(len(left), len(right))):
        cells = [*(left[row] if row < len(left) else ("", "")), *(right[row] if row < len(right) else ("", ""))]
        asked.add_row(*map(str, cells))
    found = Table("", "invariant", "found", title="what was looked at in the end", title_justify="left")
    for name, meaning in INVARIANTS.items():
        broken = [finding for finding in result.findings if finding.invariant == name]
        found.add_row(name, meaning, f"[red]{len(broken)}[/]" if broken else "[green]✓[/]")
    return [injected, asked, found]
