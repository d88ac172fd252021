"""`python -m tests.faults.kit [--seed N] [--minutes M]`: a platform of its own, and a seeded run on it."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.faults.kit.cases import opened
from tests.faults.kit.platform import FaultyPlatform
from tests.faults.kit.run import report, run

_console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


async def main(folder: Path, seed: int, minutes: float) -> int:
    platform = FaultyPlatform(folder)
    try:
        _console.print("The platform starts.")
        await platform.start()
        async with opened(platform) as kit:
            result = await run(kit, seed, minutes, _console)
    finally:
        await platform.end()
    _console.print(*report(result), sep="\n")
    _console.print(f"{result.rounds} rounds in {result.seconds:.0f} s; healed within {result.healing_seconds:.0f} s")
    for finding in result.findings:
        _console.print(f"[red]{finding}[/]", soft_wrap=True)
    if result.findings:
        _console.print(f"Logs and data are in {folder}. The same again: make faults SEED={seed} MINUTES={minutes:g}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="names the run")
    parser.add_argument("--minutes", type=float, default=10, help="how long it goes on")
    arguments = parser.parse_args()
    state = Path(tempfile.mkdtemp(prefix="durapay-faults-"))
    state.chmod(0o711)  # PostgreSQL's own system user passes through it
    code = asyncio.run(main(state, arguments.seed, arguments.minutes))
    # The Temporal SDK's threads need a moment: ending at once aborts the interpreter now and then.
    os._exit(code)
