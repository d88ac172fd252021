"""What the `durapay bank` commands do with the simulated bank: put its clock ahead, and show an account's statement."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx

from bank.nacha import is_debit
from domain.errors import DurapayError

_TIMEOUT_SECONDS = 30


class BankRefused(DurapayError):
    """The simulated bank, or the platform's look at its day, said no."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A line of an account's statement: what came in, in cents; negative, what went."""

    day: date
    text: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class SimulatedBank:
    """`control_token` opens the simulator's control side."""

    url: str
    control_token: str

    def forward(self, days: int) -> datetime:
        """Puts the bank's clock that many days ahead: entries that fall due meanwhile are posted, or come back.

        Raises:
            BankRefused
        """
        now = datetime.fromisoformat(self._control("GET", "/clock")["now"])
        later = (now + timedelta(days=days)).astimezone(UTC)
        return datetime.fromisoformat(self._control("POST", "/clock", {"now": later.isoformat()})["now"])

    def statement(self, last4: str) -> list[Posted]:
        """What the holder of each account with these last digits sees, oldest first: the bank's journal shows no more.

        Raises:
            BankRefused
        """
        return [
            Posted(
                date.fromisoformat(entry["posted_on"]),
                entry["description"].strip(),
                -entry["amount_minor"] if is_debit(entry["code"]) else entry["amount_minor"],
            )
            for entry in self._control("GET", "/journal")["entries"]
            if entry["account"] == f"…{last4}" and entry["posted_on"] is not None
        ]

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.control_token}"}
        try:
            response = httpx.request(
                method,
                f"{self.url}/control{path}",
                json=body,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
                trust_env=False,
            )
        except httpx.TransportError as error:
            raise BankRefused("the simulated bank cannot be reached") from error
        if not response.is_success:
            raise BankRefused(f"the simulated bank answered {response.status_code}")
        return response.json()


def read_day(api: str, operator_key: str) -> None:
    """Has the platform ask the bank now for what it posted and returned; by itself it asks every hour.

    Raises:
        BankRefused
    """
    headers = {"Authorization": f"Bearer {operator_key}"}
    try:
        response = httpx.post(f"{api}/v1/bank/days", headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False)
    except httpx.TransportError as error:
        raise BankRefused("the API cannot be reached") from error
    if not response.is_success:
        raise BankRefused(f"the API answered {response.status_code}: {response.json()['error']['code']}")
