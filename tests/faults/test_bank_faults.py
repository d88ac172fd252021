"""Deposits on their way to the bank, with a bank worker that dies and a bank that is away or loses its answers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import text

from domain.ids import MICRO_DEPOSIT, derived_id, micro_deposit_workflow_id
from embedded.zones import Zone
from store.bank_consistency import check_bank
from tests.faults.kit.cases import Kit
from tests.faults.kit.platform import BANK_SIMULATOR, WORKERS
from tests.support.bank import ROUTING_NUMBER, Bank
from tests.support.shop import Json, new_key, until

pytestmark = pytest.mark.timeout(120)

WORKER = WORKERS[Zone.BANK]


@dataclass(frozen=True, slots=True)
class Deposits:
    """A verification that is about to be started, and the bank that gets its file."""

    kit: Kit
    bank: Bank
    number: str
    path: str
    key: str

    @property
    def id(self) -> str:
        return derived_id(MICRO_DEPOSIT, self.kit.shop.account_id, self.key)

    async def start(self) -> None:
        await self.kit.shop.post(self.path, {}, key=self.key)

    async def status(self) -> str:
        shown: Json = await self.kit.shop.get(self.path)
        return str(shown["status"])

    async def arrive_once(self) -> None:
        """They are sent, by one file with one entry for each part, are in the ledger, and can be named."""
        await until(self.status, lambda status: status == "sent")
        [file] = await self.bank.files_of(self.number)
        journal = await self.bank.control("GET", "/journal")
        entries = [entry for entry in journal["entries"] if entry["file_id"] == file["file_id"]]
        taken = [each["outcome"] for each in journal["requests"] if each["file_id"] == file["file_id"]]
        assert (len(entries), taken.count("taken")) == (3, 1)
        async with self.kit.database.connect() as connection:
            booked = (await connection.execute(_BOOKED, {"id": self.id})).scalars().all()
            grace = await connection.scalar(text("SELECT interval '0'"))
            breaches = [str(each) for each in await check_bank(connection, grace=grace)]
        assert sorted(booked) == sorted(entry["amount_minor"] for entry in entries)
        assert breaches == []
        again = await self.kit.told(self.path, {}, key=self.key)
        assert (again.status_code, again.json()["id"]) == (201, self.id)


_BOOKED = text("SELECT amount_minor FROM ledger.transfers WHERE reference = :id AND code = 'micro_deposit'")


@pytest.fixture
async def deposits(kit: Kit) -> Deposits:
    bank = Bank(kit.platform.access, kit.shop)
    number = await bank.new_number()
    body = {
        "user": (await kit.shop.add_user())["id"],
        "routing_number": ROUTING_NUMBER,
        "account_number": number,
        "account_type": "checking",
    }
    method = (await kit.shop.post("/v1/payment_methods/bank_accounts", body)).json()
    return Deposits(kit, bank, number, f"/v1/payment_methods/{method['id']}/micro_deposits", new_key())


@pytest.mark.parametrize(
    "place",
    ["bank.file.created", "bank.file.sending", "bank.file.answered", "bank.originate.after", "bank.record.after"],
)
async def test_a_bank_worker_that_dies_around_the_file_has_sent_the_deposits_once(
    deposits: Deposits, place: str
) -> None:
    platform = deposits.kit.platform
    crash = f"{place}@{micro_deposit_workflow_id(deposits.id)}"
    await platform.arm(WORKER, crash)
    await deposits.start()
    await platform.until_crashed(WORKER, crash)
    await platform.start_again(WORKER)
    await deposits.arrive_once()


async def test_deposits_wait_for_a_bank_that_is_away(deposits: Deposits) -> None:
    platform = deposits.kit.platform
    await platform.kill(BANK_SIMULATOR)
    await deposits.start()
    assert await deposits.status() in ("new", "initiating")
    await platform.start_again(BANK_SIMULATOR)
    await deposits.arrive_once()


@pytest.mark.parametrize("fault", ["lose_answers", "lose_requests", "repeat_requests"])
async def test_a_file_whose_answer_or_request_is_lost_or_that_comes_twice_is_taken_once(
    deposits: Deposits, fault: str
) -> None:
    await deposits.bank.control("POST", "/faults", {fault: 1})
    await deposits.start()
    await deposits.arrive_once()
    left = await deposits.bank.control("GET", "/faults")
    assert left[fault] == 0, "the fault met nothing"
