"""The simulated bank as its control API has it, and the operator who has its day read."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx

from embedded.bank_commands import SimulatedBank
from tests.support.platform import Access
from tests.support.shop import Json, Shop

ROUTING_NUMBER = "021000021"


class Bank:
    """What takes banking days is driven by `forward`: the bank's clock, and then our look at what it posted."""

    def __init__(self, access: Access, operator: Shop) -> None:
        self._access = access
        self._operator = operator

    async def control(self, method: str, path: str, body: Any = None) -> Json:
        async with httpx.AsyncClient(base_url=self._access.bank) as client:
            headers = {"Authorization": f"Bearer {self._access.bank_control_token}"}
            response = await client.request(method, f"/control{path}", json=body, headers=headers)
        assert response.is_success, response.text
        found: Json = response.json() if response.content else {}
        return found

    async def forward(self, days: int) -> None:
        bank = SimulatedBank(self._access.bank, self._access.bank_control_token)
        await asyncio.to_thread(bank.forward, days)
        await self.read_day()

    async def read_day(self) -> None:
        response = await self._operator.post("/v1/bank/days")
        assert response.status_code in (200, 202), response.text

    async def new_number(self) -> str:
        """An account number whose last four digits, which is all that the bank's journal shows, are nobody else's."""
        taken = {entry["account"] for entry in (await self.control("GET", "/journal"))["entries"]}
        while f"…{(number := f'5{secrets.randbelow(10**9):09d}')[-4:]}" in taken:
            pass
        return number

    async def statement(self, account_number: str) -> list[int]:
        """What the holder of an account sees on their statement, in cents: what came in, and, negative, what went."""
        bank = SimulatedBank(self._access.bank, self._access.bank_control_token)
        return [line.amount_minor for line in await asyncio.to_thread(bank.statement, account_number[-4:])]

    async def files_of(self, account_number: str) -> list[Json]:
        """The NACHA files with an entry for the account, as the bank took them."""
        journal = await self.control("GET", "/journal")
        last4 = f"…{account_number[-4:]}"
        theirs = {entry["file_id"] for entry in journal["entries"] if entry["account"] == last4}
        return [file for file in journal["files"] if file["file_id"] in theirs]
