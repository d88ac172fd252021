"""Handing files over to the bank: once, whole, and never blindly again."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from bank.client import BankClient, FileReport, Lost
from bank.errors import BankDoesNotSay, BankUnreachable
from bank.gateway import BankGateway
from bank.journal import FileState
from domain.micro_deposits import NotReceived, Originated, OriginationUnknown
from tests.integration.bank.rig import CORRECTIONS, MONDAY, ORIGINATOR, TOKEN, BankRig


async def _state(rig: BankRig, file_id: str) -> str:
    async with rig.engine.connect() as connection:
        found = await connection.execute(text("SELECT state FROM bank.files WHERE file_id = :id"), {"id": file_id})
        return str(found.scalar_one())


async def test_both_deposits_and_the_debit_of_their_sum_reach_the_bank(rig: BankRig) -> None:
    order = await rig.order("000123456789")
    assert await rig.begin(order) is None
    outcome = await rig.gateway.originate(await rig.command(order))
    assert isinstance(outcome, Originated)
    assert outcome.effective_on.isoformat() == "2026-11-24"
    entries = await rig.entries(outcome.file_id)
    first, second = await rig.amounts(order)
    assert [(entry["code"], entry["amount_minor"]) for entry in entries] == [
        (22, first),
        (22, second),
        (27, first + second),
    ]
    assert {entry["description"] for entry in entries} == {"ACCTVERIFY"}
    assert [entry["sec_code"] for entry in entries] == ["PPD", "PPD", "WEB"]


async def test_asked_again_the_bank_is_not(rig: BankRig) -> None:
    order = await rig.order("000123456780")
    await rig.begin(order)
    command = await rig.command(order)
    first = await rig.gateway.originate(command)
    assert isinstance(first, Originated)
    assert await rig.gateway.originate(command) == first
    assert await rig.requests(first.file_id) == ["taken"]


async def test_many_who_originate_at_once_send_one_file(rig: BankRig) -> None:
    order = await rig.order("000123456781")
    await rig.begin(order)
    command = await rig.command(order)
    outcomes = await asyncio.gather(*(rig.gateway.originate(command) for _ in range(4)))
    [file_id] = {outcome.file_id for outcome in outcomes if not hasattr(outcome, "reason")}
    assert await rig.requests(file_id) == ["taken"]


async def test_a_bank_that_is_down_gets_nothing_and_the_file_may_be_sent_later(rig: BankRig) -> None:
    order = await rig.order("000123456782")
    await rig.begin(order)
    command = await rig.command(order)
    nowhere = BankClient("http://127.0.0.1:9", TOKEN, 1.0)
    dead = BankGateway(rig.engine, rig.unsealer, nowhere, ORIGINATOR, corrections=CORRECTIONS, clock=rig.clock)
    with pytest.raises(BankUnreachable):
        await dead.originate(command)
    outcome = await rig.gateway.originate(command)
    assert isinstance(outcome, Originated)
    assert await rig.requests(outcome.file_id) == ["taken"]


async def test_after_a_lost_answer_the_bank_is_asked_and_the_file_not_sent_again(rig: BankRig) -> None:
    await rig.control("POST", "/faults", {"lose_answers": 1})
    order = await rig.order("000123456783")
    await rig.begin(order)
    command = await rig.command(order)
    doubt = await rig.gateway.originate(command)
    assert isinstance(doubt, OriginationUnknown)
    assert await rig.gateway.originate(command) == doubt, "it was sent again without asking"
    assert isinstance(await rig.gateway.inquire(command), Originated)
    assert isinstance(await rig.gateway.originate(command), Originated)
    assert await rig.requests(doubt.file_id) == ["taken"]


async def test_a_file_that_never_arrived_is_sent_again_once_the_bank_has_said_so(rig: BankRig) -> None:
    await rig.control("POST", "/faults", {"lose_requests": 1})
    order = await rig.order("000123456784")
    await rig.begin(order)
    command = await rig.command(order)
    doubt = await rig.gateway.originate(command)
    assert isinstance(doubt, OriginationUnknown)
    assert await rig.gateway.inquire(command) == NotReceived(doubt.file_id)
    assert isinstance(await rig.gateway.originate(command), Originated)
    assert await rig.requests(doubt.file_id) == ["taken"]


async def test_while_the_bank_does_not_say_the_doubt_stays(rig: BankRig) -> None:
    await rig.control("POST", "/faults", {"down": True})
    order = await rig.order("000123456785")
    await rig.begin(order)
    command = await rig.command(order)
    doubt = await rig.gateway.originate(command)
    assert isinstance(doubt, OriginationUnknown)
    with pytest.raises(BankDoesNotSay):
        await rig.gateway.inquire(command)
    assert await _state(rig, doubt.file_id) == FileState.UNANSWERED
    await rig.control("DELETE", "/faults")
    assert await rig.gateway.inquire(command) == NotReceived(doubt.file_id)


async def test_a_slow_bank_is_a_doubt_and_no_failure(rig: BankRig) -> None:
    await rig.control("POST", "/faults", {"slow_seconds": 3})
    order = await rig.order("000123456786")
    await rig.begin(order)
    command = await rig.command(order)
    doubt = await rig.gateway.originate(command)
    assert isinstance(doubt, OriginationUnknown)
    await rig.control("DELETE", "/faults")
    async with asyncio.timeout(20):
        while not isinstance(await rig.gateway.inquire(command), Originated):
            await rig.gateway.originate(command)
    assert (await rig.requests(doubt.file_id)).count("taken") == 1
    assert len(await rig.entries(doubt.file_id)) == 3


class _Stuttering(BankClient):
    """A connection over which each file arrives twice."""

    async def send(self, file_id: str, text: str) -> FileReport | Lost:
        await super().send(file_id, text)
        return await super().send(file_id, text)


async def test_a_file_that_the_bank_gets_twice_is_taken_once(rig: BankRig) -> None:
    order = await rig.order("000123456787")
    await rig.begin(order)
    client = _Stuttering(rig.simulator.url, TOKEN)
    gateway = BankGateway(rig.engine, rig.unsealer, client, ORIGINATOR, corrections=CORRECTIONS, clock=rig.clock)
    outcome = await gateway.originate(await rig.command(order))
    await client.aclose()
    assert isinstance(outcome, Originated)
    assert await rig.requests(outcome.file_id) == ["taken", "taken_before"]
    assert len(await rig.entries(outcome.file_id)) == 3


async def test_thirty_seven_files_of_a_minute_have_numbers_of_their_own(rig: BankRig) -> None:
    rig.clock.now = MONDAY.replace(year=2027, month=3)
    owner = await rig.owner()
    for place in range(37):
        order = await rig.order(f"77{place:06d}", owner)
        await rig.begin(order)
        assert isinstance(await rig.gateway.originate(await rig.command(order)), Originated)
    async with rig.engine.connect() as connection:
        found = await connection.execute(
            text("SELECT created_on, string_agg(modifier, '' ORDER BY created_at) AS used FROM bank.files"
                 " WHERE created_on >= '2027-03-01' GROUP BY 1 ORDER BY 1")
        )  # fmt: skip
        assert [row.used for row in found] == ["ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "A"]


async def test_what_the_bank_said_of_a_file_is_never_changed(rig: BankRig) -> None:
    order = await rig.order("000123456788")
    await rig.begin(order)
    outcome = await rig.gateway.originate(await rig.command(order))
    assert isinstance(outcome, Originated)
    for change in ("state = 'created'", "sha256 = decode(repeat('00', 32), 'hex')", "effective_on = '2030-01-01'"):
        with pytest.raises(IntegrityError):
            async with rig.engine.begin() as connection:
                await connection.execute(
                    text(f"UPDATE bank.files SET {change} WHERE file_id = :id"),
                    {"id": outcome.file_id},
                )


async def test_no_account_number_is_in_the_zones_tables(rig: BankRig) -> None:
    number = "94837261504837261"
    order = await rig.order(number)
    await rig.begin(order)
    await rig.gateway.originate(await rig.command(order))
    async with rig.engine.connect() as connection:
        for table in ("bank.files", "bank.entries", "bank.micro_deposits", "platform.payment_methods",
                      "vault.bank_accounts", "vault.bank_references"):  # fmt: skip
            rows = (await connection.execute(text(f"SELECT t::text FROM {table} t"))).scalars().all()
            assert not any(number in row for row in rows)


async def test_a_posted_file_is_told_once_it_is_posted(rig: BankRig) -> None:
    order = await rig.order("000123456799")
    await rig.begin(order)
    outcome = await rig.gateway.originate(await rig.command(order))
    assert isinstance(outcome, Originated)
    mine = order.micro_deposit_id
    assert mine not in [posting.micro_deposit_id for posting in await rig.gateway.postings()]
    await rig.forward(1)
    [posting] = [each for each in await rig.gateway.postings() if each.micro_deposit_id == mine]
    assert posting.day.isoformat() == "2026-11-24"


@pytest.mark.parametrize(("code", "parts"), [("03", 3), ("01", 1), ("29", 3)])
async def test_returns_are_read_from_the_banks_files(rig: BankRig, code: str, parts: int) -> None:
    order = await rig.order(f"10990000{code}")
    await rig.begin(order)
    await rig.gateway.originate(await rig.command(order))
    await rig.forward(2)
    entries = [each.news for each in await rig.gateway.returns()]
    found = [each for each in entries if each.micro_deposit_id == order.micro_deposit_id]
    assert [each.reason_code for each in found] == [f"R{code}"] * parts
