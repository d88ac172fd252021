"""A bank worker's process for tests that kill it: originates one verification, read as JSON from its standard input.

`die` says where it kills itself: `before` the file's first byte, or `after` the bank has taken it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import datetime

from bank.client import BankClient, FileReport, Lost
from bank.gateway import BankGateway
from domain.micro_deposits import OriginateCommand
from sealing import Unsealer
from store.engine import create_engine
from tests.integration.bank.rig import CORRECTIONS, ORIGINATOR, TOKEN, Clock


class Dying(BankClient):
    def __init__(self, url: str, die: str) -> None:
        super().__init__(url, TOKEN)
        self._die = die

    async def send(self, file_id: str, text: str) -> FileReport | Lost:
        if self._die == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().send(file_id, text)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a killed process goes on")


async def originate() -> None:
    given = json.load(sys.stdin)
    gateway = BankGateway(
        create_engine(given["database_url"]),
        Unsealer([bytes.fromhex(given["private_key"])]),
        Dying(given["bank_url"], given["die"]),
        ORIGINATOR,
        corrections=CORRECTIONS,
        clock=Clock(datetime.fromisoformat(given["now"])),
    )
    await gateway.originate(OriginateCommand(given["effect_key"], given["micro_deposit_id"], given["sealed_account"]))


asyncio.run(originate())
