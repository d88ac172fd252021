"""`python -m benchmarks`: runs every benchmark (or those named) and writes `benchmarks/results/*.json`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from rich.console import Console

from benchmarks import ledger, payment_latency

BENCHMARKS: dict[str, Callable[[Console], Awaitable[Any]]] = {
    "payment_latency": payment_latency.run,
    "ledger": ledger.run,
}


async def run(names: list[str]) -> None:
    console = Console(width=120)
    for name in names:
        console.rule(name)
        await BENCHMARKS[name](console)


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = sorted(set(names) - set(BENCHMARKS))
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    asyncio.run(run(names))
    # The Temporal SDK's threads need a moment: ending at once aborts the interpreter now and then.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
