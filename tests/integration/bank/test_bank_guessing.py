"""Guessing amounts: counted in the database before anything is compared, for one bank account whoever asks."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from activities.bank import BankActivities
from bank import store
from bank.store import Amounts, same_amounts
from domain.ids import effect_key
from domain.micro_deposits import BeginRefusal, ConfirmAttempt, MicroDepositEvent
from ledger.micro_deposits import MicroDepositBooks
from tests.integration.bank.rig import BankRig, Workflows


async def test_the_amounts_are_taken_in_any_order(rig: BankRig) -> None:
    order = await rig.order("600000000001")
    await rig.posted(order)
    first, second = await rig.amounts(order)
    verdict = await rig.guess(order, (second, first))
    assert verdict.correct


@pytest.mark.parametrize(
    ("chosen", "guessed", "same"),
    [
        ((32, 45), (45, 32), True),
        ((32, 45), (32, 32), False),
        ((32, 45), (45, 45), False),
        ((7, 7), (7, 7), True),
        ((32, 45), (32, 300), False),
        ((49, 1), (-207, 305), False),
    ],
)
def test_amounts_are_a_multiset(chosen: tuple[int, int], guessed: tuple[int, int], same: bool) -> None:
    assert same_amounts(Amounts(*chosen), guessed) is same


async def test_three_attempts_and_then_not_even_the_right_amounts(rig: BankRig) -> None:
    order = await rig.order("600000000002")
    await rig.posted(order)
    wrong = await rig.wrong(order)
    left = [(await rig.guess(order, wrong, number)).attempts_remaining for number in range(3)]
    assert left == [2, 1, 0]
    assert not (await rig.guess(order, await rig.amounts(order), 4)).correct


async def test_of_many_guesses_at_once_three_are_compared(rig: BankRig) -> None:
    order = await rig.order("600000000003")
    await rig.posted(order)
    wrong = await rig.wrong(order)
    await asyncio.gather(*(rig.guess(order, wrong, number) for number in range(30)))
    async with rig.engine.connect() as connection:
        counted = await connection.execute(
            text("SELECT count(*) FROM bank.confirmations WHERE micro_deposit_id = :id"),
            {"id": order.micro_deposit_id},
        )
        assert counted.scalar_one() == 3
    assert (await rig.row(order))["attempts"] == 3


async def test_the_same_attempt_is_counted_once_however_often_it_is_brought(rig: BankRig) -> None:
    order = await rig.order("600000000004")
    await rig.posted(order)
    wrong = await rig.wrong(order)
    for _ in range(5):
        assert (await rig.guess(order, wrong, "same")).attempts_remaining == 2


async def test_an_attempt_whose_process_died_after_counting_stays_counted_and_is_judged_once(rig: BankRig) -> None:
    order = await rig.order("600000000005")
    await rig.posted(order)
    right = await rig.amounts(order)
    attempt = ConfirmAttempt(effect_key(order.micro_deposit_id, "confirm-killed"), order.micro_deposit_id, right)
    async with rig.engine.begin() as connection:
        assert await store.count_attempt(connection, attempt) is None
    assert (await rig.row(order))["attempts"] == 1
    assert (await rig.gateway.confirm(attempt)).correct
    assert (await rig.gateway.confirm(attempt)).correct
    assert (await rig.row(order))["attempts"] == 1


async def test_nothing_is_compared_before_the_deposits_are_posted(rig: BankRig) -> None:
    order = await rig.order("600000000006")
    await rig.begin(order)
    assert not (await rig.guess(order, await rig.amounts(order))).correct
    assert (await rig.row(order))["attempts"] == 0


async def test_after_three_cycles_the_bank_account_is_locked_for_whoever_adds_it(rig: BankRig) -> None:
    number = "600000000007"
    for _ in range(3):
        order = await rig.order(number)  # each time another user of another account
        await rig.posted(order)
        wrong = await rig.wrong(order)
        for attempt in range(3):
            await rig.guess(order, wrong, attempt)
        await rig.record(order, MicroDepositEvent.ATTEMPTS_EXCEEDED)
    assert await rig.begin(await rig.order(number)) is BeginRefusal.LOCKED


async def test_cycles_of_several_users_at_once_are_three_in_all(rig: BankRig) -> None:
    orders = [await rig.order("600000000008") for _ in range(8)]
    refusals = await asyncio.gather(*(rig.begin(order) for order in orders))
    assert sorted(map(str, refusals)) == ["None"] * 3 + ["bank_account_locked"] * 5


async def test_a_canceled_cycle_that_sent_something_counts(rig: BankRig) -> None:
    number, owner = "600000000009", await rig.owner()
    for _ in range(3):
        order = await rig.order(number, owner)
        await rig.begin(order)
        await rig.gateway.originate(await rig.command(order))
        await rig.record(order, MicroDepositEvent.INITIATED, MicroDepositEvent.ORIGINATED, MicroDepositEvent.CANCELED)
    assert await rig.begin(await rig.order(number, owner)) is BeginRefusal.LOCKED


async def test_a_cycle_that_sent_nothing_is_given_back(rig: BankRig) -> None:
    number, owner = "600000000010", await rig.owner()
    for _ in range(5):
        order = await rig.order(number, owner)
        assert await rig.begin(order) is None
        await rig.record(order, MicroDepositEvent.CANCELED)


async def test_a_user_verifies_a_bank_account_once_at_a_time(rig: BankRig) -> None:
    owner = await rig.owner()
    first = await rig.order("600000000011", owner)
    second = await rig.order("600000000011", owner)
    assert first.payment_method_id == second.payment_method_id
    assert await rig.begin(first) is None
    assert await rig.begin(second) is BeginRefusal.IN_PROGRESS


async def test_the_database_verifies_nobody_who_has_not_named_the_amounts(rig: BankRig) -> None:
    order = await rig.order("600000000012")
    await rig.posted(order)
    with pytest.raises(IntegrityError):
        async with rig.engine.begin() as connection:
            await connection.execute(
                text("UPDATE bank.micro_deposits SET status = 'verified', version = version + 1 WHERE id = :id"),
                {"id": order.micro_deposit_id},
            )


@pytest.mark.parametrize("statement", [
    "UPDATE bank.limits SET attempts = 10 WHERE reference = (SELECT reference FROM bank.micro_deposits WHERE id = :id)",
    "UPDATE bank.micro_deposits SET attempts = 4 WHERE id = :id",
    "UPDATE bank.amounts SET first_minor = 1 WHERE micro_deposit_id = :id",
    "DELETE FROM bank.amounts WHERE micro_deposit_id = :id",
    "UPDATE bank.micro_deposits SET status = 'verified' WHERE id = :id",
])  # fmt: skip
async def test_raw_sql_breaks_no_rule_of_a_verification(rig: BankRig, statement: str) -> None:
    order = await rig.order("600000000013")
    await rig.begin(order)
    with pytest.raises(IntegrityError):
        async with rig.engine.begin() as connection:
            await connection.execute(text(statement), {"id": order.micro_deposit_id})
    await rig.record(order, MicroDepositEvent.CANCELED)


async def test_an_erased_bank_account_keeps_no_number_and_may_be_added_again(rig: BankRig) -> None:
    order = await rig.order("600000000014")
    await rig.vault.erase(order.bank_account_id)
    async with rig.engine.connect() as connection:
        row = await connection.execute(
            text("SELECT number_iv, number_ciphertext FROM vault.bank_accounts WHERE id = :id"),
            {"id": order.bank_account_id},
        )
        assert tuple(row.one()) == (None, None)
    assert await rig.begin(order) is BeginRefusal.UNUSABLE


async def test_nothing_is_begun_for_whose_wallet_is_being_closed(rig: BankRig) -> None:
    order = await rig.order("600000000099")
    async with rig.engine.begin() as connection:
        closing = text("UPDATE platform.users SET closing_at = now() WHERE id = :user")
        await connection.execute(closing, {"user": order.user_id})

    activities = BankActivities(rig.engine, rig.gateway, MicroDepositBooks(rig.engine), Workflows())
    assert (await activities.begin(order)).refusal is BeginRefusal.USER_CLOSED
    async with rig.engine.connect() as connection:
        found = text("SELECT count(*) FROM bank.micro_deposits WHERE id = :id")
        assert await connection.scalar(found, {"id": order.micro_deposit_id}) == 0
