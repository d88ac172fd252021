"""What the bank gives back later on: nothing of it is dropped, and each entry has one effect."""

from __future__ import annotations

import pytest
import pytest_asyncio
from sqlalchemy import text

from activities.bank import BankActivities
from domain.micro_deposits import (
    BankReturn,
    MicroDepositEvent,
    MicroDepositOrder,
    Originated,
    ReturnDecision,
    ReturnEffect,
)
from ledger.micro_deposits import MicroDepositBooks
from ledger.queries import check_invariants
from tests.integration.bank.rig import BankRig, Owner, Workflows

_E = MicroDepositEvent


@pytest.fixture
def workflows() -> Workflows:
    return Workflows()


@pytest_asyncio.fixture
async def activities(rig: BankRig, workflows: Workflows) -> BankActivities:
    return BankActivities(rig.engine, rig.gateway, MicroDepositBooks(rig.engine), workflows)


async def _posted(rig: BankRig, number: str, owner: Owner | None = None) -> tuple[MicroDepositOrder, str]:
    """A verification whose deposits have arrived, and its file."""
    order = await rig.order(number, owner)
    assert await rig.begin(order) is None
    outcome = await rig.gateway.originate(await rig.command(order))
    assert isinstance(outcome, Originated)
    await rig.record(order, _E.INITIATED, _E.ORIGINATED)
    await rig.forward(3)
    await rig.record(order, _E.POSTED)
    return order, outcome.file_id


async def _verify(rig: BankRig, order: MicroDepositOrder) -> None:
    assert (await rig.guess(order, await rig.amounts(order))).correct
    await rig.record(order, _E.CONFIRMED)


async def _given_back(
    rig: BankRig, activities: BankActivities, workflows: Workflows, file_id: str, code: str = "R10"
) -> list[BankReturn]:
    """The entries of a file for which workflows of their own were begun."""
    await rig.control("POST", "/returns", {"file_id": file_id, "reason_code": code})
    workflows.begun.clear()
    await activities.read_day()
    async with rig.engine.connect() as connection:
        mine = set((await connection.execute(_TRACES, {"file_id": file_id})).scalars())
        rows = {(row.sequence, row.line): row.original_trace for row in await connection.execute(_RETURNS)}
    return [entry for entry in workflows.begun if rows[entry.sequence, entry.line] in mine]


_TRACES = text("SELECT trace FROM bank.entries WHERE file_id = :file_id")
_RETURNS = text("SELECT sequence, line, original_trace FROM bank.returns")


async def _method(rig: BankRig, order: MicroDepositOrder) -> str:
    async with rig.engine.connect() as connection:
        statement = text("SELECT status FROM platform.payment_methods WHERE id = :id")
        return str(await connection.scalar(statement, {"id": order.payment_method_id}))


async def test_a_running_verification_is_told_until_it_shows_that_it_has_heard(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    order, file_id = await _posted(rig, "810000000001")
    assert await _given_back(rig, activities, workflows, file_id) == []
    for _ in range(2):
        workflows.told.clear()
        await activities.read_day()
        assert order.micro_deposit_id in {each.micro_deposit_id for each in workflows.told}
    await rig.record(order, _E.RETURNED)
    await activities.read_day()
    workflows.told.clear()
    await activities.read_day()
    assert order.micro_deposit_id not in {each.micro_deposit_id for each in workflows.told}


async def test_a_return_after_the_workflow_has_ended_revokes_the_account_once(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    order, file_id = await _posted(rig, "810000000002")
    await _verify(rig, order)
    workflows.ended.add(order.micro_deposit_id)
    entries = await _given_back(rig, activities, workflows, file_id)
    assert [entry.micro_deposit_id for entry in entries] == [order.micro_deposit_id] * 3
    taken = [await activities.take_back(entry) for entry in entries]
    assert [each.effect for each in taken] == ["revoked", "nothing_to_revoke", "nothing_to_revoke"]
    assert await activities.take_back(entries[0]) == taken[0], "it was decided anew"
    row = await rig.row(order)
    assert (row["status"], row["reason"], await _method(rig, order)) == ("returned", "R10", "removed")
    async with rig.engine.connect() as connection:
        assert await check_invariants(connection) == []


async def test_a_return_of_an_expired_verification_is_passed_on_to_the_one_that_holds(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    owner = await rig.owner()
    first, file_id = await _posted(rig, "810000000003", owner)
    await rig.record(first, _E.EXPIRED)
    second, _ = await _posted(rig, "810000000003", owner)
    await _verify(rig, second)
    entries = await _given_back(rig, activities, workflows, file_id)
    workflows.told.clear()
    assert (await activities.take_back(entries[0])).effect is ReturnEffect.PASSED_ON
    assert [each.micro_deposit_id for each in workflows.told] == [second.micro_deposit_id]
    workflows.ended.add(second.micro_deposit_id)
    assert (await activities.take_back(entries[1])).effect is ReturnEffect.REVOKED
    assert ((await rig.row(second))["status"], await _method(rig, second)) == ("returned", "removed")


async def test_an_account_that_was_never_verified_is_removed_by_a_late_return(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    order, file_id = await _posted(rig, "810000000004")
    await rig.record(order, _E.EXPIRED)
    entries = await _given_back(rig, activities, workflows, file_id, "R03")
    assert (await activities.take_back(entries[0])).effect is ReturnEffect.REVOKED
    assert ((await rig.row(order))["status"], await _method(rig, order)) == ("expired", "removed")


async def test_what_comes_back_twice_is_in_suspense_until_it_is_written_off(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    order, file_id = await _posted(rig, "810000000005")
    await _given_back(rig, activities, workflows, file_id)
    await rig.record(order, _E.RETURNED)
    await rig.simulator.ask(lambda books: books.forget_returns(file_id))
    entries = await _given_back(rig, activities, workflows, file_id)
    assert [(entry.micro_deposit_id, entry.transaction_code) for entry in entries] == [
        (None, 21),
        (None, 21),
        (None, 26),
    ]
    first, second, debit = (entry.amount_minor for entry in entries)
    assert await _in_suspense(rig, entries) == [-first, -second, debit]
    for entry in entries * 2:
        await activities.decide_return(ReturnDecision(entry, ReturnEffect.WRITTEN_OFF))
    assert await _in_suspense(rig, entries) == [0, 0, 0]


async def _in_suspense(rig: BankRig, entries: list[BankReturn]) -> list[int]:
    """Debits less credits, for each entry."""
    async with rig.engine.connect() as connection:
        return [
            int(await connection.scalar(_SUSPENSE, {"id": f"bank-return:{entry.sequence}:{entry.line}"}) or 0)
            for entry in entries
        ]


_SUSPENSE = text("""
SELECT sum(CASE 'suspense:USD' WHEN debit_account THEN amount_minor WHEN credit_account THEN -amount_minor ELSE 0 END)
FROM ledger.transfers WHERE reference = :id
""")
