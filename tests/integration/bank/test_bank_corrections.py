"""Notifications of change: what banks correct of an account goes through the vault, once, before the next entry."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from activities.bank import BankAccountActivities, BankActivities
from bank.errors import CorrectionPending
from domain.bank_accounts import BankAccountType
from domain.ids import MICRO_DEPOSIT, new_id
from domain.micro_deposits import (
    BankCorrection,
    BankReturn,
    CorrectionOutcome,
    CorrectionRecord,
    MicroDepositEvent,
    MicroDepositOrder,
)
from ledger.micro_deposits import MicroDepositBooks
from sealing import BANK_ACCOUNT_PURPOSE, BANK_CORRECTION_PURPOSE, SealBroken
from tests.integration.bank.rig import CORRECTIONS, ROUTING, BankRig, Workflows
from vault.bank_accounts import NewBankAccount
from vault.errors import BankAccountKnown, InvalidBankAccount

_E = MicroDepositEvent
_OTHER_BANK = "011000015"


@pytest.fixture
def workflows() -> Workflows:
    return Workflows()


@pytest_asyncio.fixture
async def activities(rig: BankRig, workflows: Workflows) -> BankActivities:
    return BankActivities(rig.engine, rig.gateway, MicroDepositBooks(rig.engine), workflows)


async def _changed(
    rig: BankRig, activities: BankActivities, workflows: Workflows, number: str
) -> tuple[MicroDepositOrder, list[BankReturn]]:
    """A verification that has expired, and what the bank has corrected since."""
    order = await rig.order(number)
    async with rig.engine.begin() as connection:  # other tests have sent deposits there
        await connection.execute(text("UPDATE bank.limits SET cycles = 0"))
    assert await rig.begin(order) is None
    await rig.gateway.originate(await rig.command(order))
    await rig.record(order, _E.INITIATED, _E.ORIGINATED)
    await rig.forward(4)
    await activities.read_day()
    await rig.record(order, _E.EXPIRED)
    return order, [entry for entry in workflows.begun if entry.micro_deposit_id == order.micro_deposit_id]


def _correction(entry: BankReturn) -> BankCorrection:
    assert entry.bank_account_id is not None
    assert entry.sealed_correction is not None
    identifier = f"{entry.sequence}:{entry.line}:{entry.micro_deposit_id}"
    return BankCorrection(identifier, entry.bank_account_id, entry.reason_code, entry.sealed_correction)


def _again(order: MicroDepositOrder) -> MicroDepositOrder:
    return replace(order, micro_deposit_id=new_id(MICRO_DEPOSIT))


@pytest.mark.parametrize(
    ("code", "number", "routing", "account_type"),
    [
        ("01", "3099200001", ROUTING, "checking"),
        ("02", "1099200002", _OTHER_BANK, "checking"),
        ("03", "3099200003", _OTHER_BANK, "checking"),
        ("05", "1099200005", ROUTING, "savings"),
        ("06", "3099200006", ROUTING, "savings"),
        ("07", "3099200007", _OTHER_BANK, "savings"),
    ],
)
async def test_the_next_entry_goes_where_the_bank_says(
    rig: BankRig,
    activities: BankActivities,
    workflows: Workflows,
    code: str,
    number: str,
    routing: str,
    account_type: str,
) -> None:
    order, entries = await _changed(rig, activities, workflows, f"10992000{code}")
    assert [entry.reason_code for entry in entries] == [f"C{code}"] * 3, "each entry is corrected"
    vault = BankAccountActivities(rig.vault)
    with pytest.raises(CorrectionPending):
        await rig.begin(_again(order))
    for entry in entries:
        outcome = await vault.correct_bank_account(_correction(entry))
        assert await vault.correct_bank_account(_correction(entry)) == outcome
        for _ in range(2):
            await activities.record_correction(CorrectionRecord(entry, outcome.account))
    assert rig.unsealer.open(BANK_ACCOUNT_PURPOSE, await rig.vault.box(order.bank_account_id)) == {
        "account_number": number,
        "routing_number": routing,
        "account_type": account_type,
    }
    assert await rig.begin(_again(order)) is None
    async with rig.engine.connect() as connection:
        method = (await connection.execute(_METHOD, {"id": order.payment_method_id})).one()
        corrections = await connection.scalar(_CORRECTIONS, {"id": order.bank_account_id})
        told = await connection.scalar(_TOLD, {"id": order.payment_method_id})
        cycles = set((await connection.execute(_CYCLES, {"id": order.bank_account_id})).scalars())
    assert tuple(method) == (routing, account_type, number[-4:])
    assert corrections == 3
    # What is shown of an account may be the same as before; three corrections to the same data are one change.
    assert told == (tuple(method) != (ROUTING, "checking", f"00{code}"))
    assert min(cycles) >= 1, "a corrected account has lost its count"


_METHOD = text("SELECT routing_number, account_type, last4 FROM platform.payment_methods WHERE id = :id")
_CORRECTIONS = text("SELECT count(*) FROM vault.bank_corrections WHERE bank_account_id = :id")
_TOLD = text("SELECT count(*) FROM platform.outbox WHERE subject_id = :id AND type = 'payment_method.corrected'")
_CYCLES = text("""
SELECT cycles FROM bank.limits JOIN vault.bank_corrections ON reference IN (old_reference, new_reference)
WHERE bank_account_id = :id
""")


async def test_no_corrected_number_is_in_the_tables(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    _, entries = await _changed(rig, activities, workflows, "1099200003")
    outcome = await BankAccountActivities(rig.vault).correct_bank_account(_correction(entries[0]))
    await activities.record_correction(CorrectionRecord(entries[0], outcome.account))
    async with rig.engine.connect() as connection:
        for table in ("bank.returns", "bank.return_effects", "vault.bank_corrections", "vault.bank_accounts"):
            rows = (await connection.execute(text(f"SELECT t::text FROM {table} t"))).scalars().all()
            assert not any("3099200003" in row or "1099200003" in row for row in rows), table


async def test_what_corrects_nothing_of_an_account_is_left_to_people(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    _, entries = await _changed(rig, activities, workflows, "1099200009")
    assert [(entry.reason_code, entry.sealed_correction) for entry in entries] == [("C09", None)] * 3


async def test_an_erased_account_has_nothing_to_correct(
    rig: BankRig, activities: BankActivities, workflows: Workflows
) -> None:
    order, entries = await _changed(rig, activities, workflows, "1099200005")
    await rig.vault.erase(order.bank_account_id)
    vault = BankAccountActivities(rig.vault)
    assert await vault.correct_bank_account(_correction(entries[0])) == CorrectionOutcome()


@pytest.mark.parametrize("content", [{"routing_number": "021000022"}, {"account_number": "12A"}])
async def test_what_is_no_account_corrects_nothing(rig: BankRig, content: dict[str, str]) -> None:
    order = await rig.order("820000000001")
    before = rig.unsealer.open(BANK_ACCOUNT_PURPOSE, await rig.vault.box(order.bank_account_id))
    box = CORRECTIONS.seal(BANK_CORRECTION_PURPOSE, content)
    with pytest.raises(InvalidBankAccount):
        await rig.vault.correct(order.bank_account_id, f"{order.bank_account_id}:1", "C01", box)
    assert rig.unsealer.open(BANK_ACCOUNT_PURPOSE, await rig.vault.box(order.bank_account_id)) == before


async def test_a_box_for_another_purpose_corrects_nothing(rig: BankRig) -> None:
    order = await rig.order("820000000002")
    box = CORRECTIONS.seal(BANK_ACCOUNT_PURPOSE, {"account_number": "820000000009"})
    with pytest.raises(SealBroken):
        await rig.vault.correct(order.bank_account_id, f"{order.bank_account_id}:1", "C01", box)


async def test_an_account_is_not_corrected_into_another_one_of_its_owner(rig: BankRig) -> None:
    owner = await rig.owner()
    order = await rig.order("820000000003", owner)
    await rig.vault.add(NewBankAccount(ROUTING, "820000000004", BankAccountType.CHECKING), owner.user_id)
    box = CORRECTIONS.seal(BANK_CORRECTION_PURPOSE, {"account_number": "820000000004"})
    with pytest.raises(BankAccountKnown):
        await rig.vault.correct(order.bank_account_id, f"{order.bank_account_id}:1", "C01", box)


@pytest.mark.parametrize("change", ["routing_number = '011000015'", "owner_id = 'usr_other'", "last4 = '0000'"])
async def test_raw_sql_changes_no_account_without_a_correction_on_record(rig: BankRig, change: str) -> None:
    order = await rig.order("820000000005")
    with pytest.raises(IntegrityError):
        async with rig.engine.begin() as connection:
            await connection.execute(
                text(f"UPDATE vault.bank_accounts SET {change} WHERE id = :id"), {"id": order.bank_account_id}
            )
