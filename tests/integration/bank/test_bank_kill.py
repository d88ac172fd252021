"""A bank worker that is killed around sending: the file arrives once, and nobody sends it blindly."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest

from domain.micro_deposits import NotReceived, Originated, OriginationUnknown
from embedded.state import ROOT
from tests.integration.bank.rig import BankRig


async def _killed(rig: BankRig, command_of: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.bank.originating_process"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(json.dumps(command_of).encode()), 60)
    assert process.returncode == -signal.SIGKILL, errors.decode()


@pytest.mark.parametrize(("die", "arrived"), [("before", False), ("after", True)])
async def test_after_kill_9_the_bank_is_asked_and_the_file_arrives_once(
    rig: BankRig, database_url: str, die: str, arrived: bool
) -> None:
    order = await rig.order(f"70000000{len(die):04d}")
    assert await rig.begin(order) is None
    command = await rig.command(order)
    await _killed(
        rig,
        {
            "database_url": database_url,
            "private_key": rig.private_key.hex(),
            "bank_url": rig.simulator.url,
            "now": rig.clock.now.isoformat(),
            "die": die,
            "effect_key": command.effect_key,
            "micro_deposit_id": command.micro_deposit_id,
            "sealed_account": command.sealed_account,
        },
    )
    doubt = await rig.gateway.originate(command)
    assert isinstance(doubt, OriginationUnknown)
    found = await rig.gateway.inquire(command)
    assert isinstance(found, Originated if arrived else NotReceived)
    assert isinstance(await rig.gateway.originate(command), Originated)
    assert await rig.requests(doubt.file_id) == ["taken"]
    assert len(await rig.entries(doubt.file_id)) == 3
