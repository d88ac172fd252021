"""Two minutes of clients and disasters under a fixed seed. Longer ones, under any seed: `make faults`."""

from __future__ import annotations

import sys

import pytest
from rich.console import Console

from tests.faults.kit.cases import Kit
from tests.faults.kit.run import report, run

SEED = 20261122
MINUTES = 2.0


@pytest.mark.timeout(400)
async def test_two_minutes_of_disasters_break_no_invariant(kit: Kit) -> None:
    console = Console(file=sys.stdout, width=110)
    result = await run(kit, SEED, MINUTES, console)
    console.print(*report(result), sep="\n")
    assert [str(finding) for finding in result.findings] == []
    # What had not happened could not have been survived.
    assert sum(result.disasters.happened.values()) > 10
    assert result.record.answers["201"] > 50
