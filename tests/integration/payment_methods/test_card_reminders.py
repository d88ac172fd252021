"""Who is reminded of a card's expiry, when, and how often; and what the database keeps of payment methods."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import PAYMENT_METHOD, TOKEN, USER, new_id
from store.payment_methods import (
    list_payment_methods,
    remind_of_expiry,
    remove_payment_method,
    renew_payment_method,
    set_default,
)
from store.queries import PageRequest


@dataclass(frozen=True, slots=True)
class Wallets:
    engine: AsyncEngine
    account_id: str
    user_id: str

    async def card(self, year: int = 2034, month: int = 12, status: str = "active") -> str:
        card_id = new_id(PAYMENT_METHOD)
        values = {"id": card_id, "account": self.account_id, "user": self.user_id, "token": new_id(TOKEN)}
        await self.run(_CARD, **values, year=year, month=month, status=status)
        return card_id

    async def run(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), values)

    async def remind(self, today: date) -> None:
        while True:
            async with self.engine.begin() as connection:
                if not await remind_of_expiry(connection, today, limit=2):
                    return

    async def events(self, card_id: str) -> list[tuple[str, Any]]:
        async with self.engine.connect() as connection:
            rows = await connection.execute(_EVENTS, {"id": card_id})
            return [(row.type.removeprefix("payment_method."), row.data.get("days")) for row in rows]

    async def default(self, card_id: str, default: bool = True) -> bool:
        async with self.engine.begin() as connection:
            return await set_default(connection, self.user_id, card_id, default=default)

    async def defaults(self) -> list[str]:
        async with self.engine.connect() as connection:
            found = await connection.scalars(_DEFAULTS, {"user": self.user_id})
            return list(found)

    async def remove(self, card_id: str) -> None:
        async with self.engine.begin() as connection:
            await remove_payment_method(connection, card_id)


@pytest_asyncio.fixture
async def wallets(engine: AsyncEngine) -> AsyncIterator[Wallets]:
    wallets = Wallets(engine, f"acct_{secrets.token_hex(6)}", new_id(USER))
    await wallets.run("INSERT INTO platform.accounts (id, name) VALUES (:id, :id)", id=wallets.account_id)
    await wallets.run(
        "INSERT INTO platform.users (id, account_id, name) VALUES (:id, :account, 'Ada')",
        id=wallets.user_id,
        account=wallets.account_id,
    )
    yield wallets


async def test_a_card_is_reminded_of_thirty_and_seven_days_before_its_last_day_once_each(wallets: Wallets) -> None:
    card = await wallets.card(2031, 3)
    for today in (date(2031, 2, 28), date(2031, 3, 1), date(2031, 3, 2), date(2031, 3, 23)):
        await wallets.remind(today)
    # 1 March is thirty days before the 31st.
    assert await wallets.events(card) == [("expiring", 30)]
    for today in (date(2031, 3, 24), date(2031, 3, 25), date(2031, 3, 31), date(2031, 4, 1)):
        await wallets.remind(today)
    assert await wallets.events(card) == [("expiring", 30), ("expiring", 7)]


async def test_a_card_that_is_added_late_is_reminded_of_once(wallets: Wallets) -> None:
    card = await wallets.card(2032, 2)
    await wallets.remind(date(2032, 2, 25))
    await wallets.remind(date(2032, 2, 29))
    assert await wallets.events(card) == [("expiring", 7)]


async def test_the_turn_of_the_year_is_no_obstacle(wallets: Wallets) -> None:
    card = await wallets.card(2033, 1)
    await wallets.remind(date(2032, 12, 31))
    assert await wallets.events(card) == []
    await wallets.remind(date(2033, 1, 1))
    assert await wallets.events(card) == [("expiring", 30)]


@pytest.mark.parametrize("status", ["pending", "removed"])
async def test_only_a_card_that_can_be_used_is_reminded_of(wallets: Wallets, status: str) -> None:
    card = await wallets.card(2035, 5)
    await wallets.run("UPDATE platform.payment_methods SET status = :status WHERE id = :id", id=card, status=status)
    await wallets.remind(date(2035, 5, 28))
    assert await wallets.events(card) == []


async def test_a_card_that_is_issued_anew_is_reminded_of_again_years_later(wallets: Wallets) -> None:
    card = await wallets.card(2036, 6)
    await wallets.remind(date(2036, 6, 29))
    async with wallets.engine.begin() as connection:
        await renew_payment_method(connection, card, 2040, 6)
        await renew_payment_method(connection, card, 2040, 6)
        await renew_payment_method(connection, card, 2039, 6)
    await wallets.remind(date(2036, 6, 30))
    await wallets.remind(date(2040, 6, 29))
    assert await wallets.events(card) == [("expiring", 7), ("renewed", None), ("expiring", 7)]


async def test_many_cards_at_once_are_each_reminded_of(wallets: Wallets) -> None:
    cards = [await wallets.card(2037, 9) for _ in range(5)]
    await wallets.remind(date(2037, 9, 10))
    assert [await wallets.events(card) for card in cards] == [[("expiring", 30)]] * 5


async def test_a_reminder_is_owed_to_the_user(wallets: Wallets) -> None:
    card = await wallets.card(2038, 4)
    await wallets.remind(date(2038, 4, 29))
    async with wallets.engine.connect() as connection:
        owed = await connection.scalar(_OWED, {"id": card})
    assert owed == 1


async def test_a_user_has_one_default_and_may_have_none(wallets: Wallets) -> None:
    first, second = await wallets.card(), await wallets.card()
    assert await wallets.default(first)
    assert await wallets.default(second)
    assert await wallets.defaults() == [second]
    assert await wallets.default(second, default=False)
    assert await wallets.defaults() == []


async def test_the_database_takes_no_second_default_and_no_default_that_cannot_be_used(wallets: Wallets) -> None:
    first, second = await wallets.card(), await wallets.card()
    await wallets.default(first)
    with pytest.raises(IntegrityError, match="uq_payment_methods_default"):
        await wallets.run("UPDATE platform.payment_methods SET is_default = true WHERE id = :id", id=second)
    pending = await wallets.card(status="pending")
    assert not await wallets.default(pending)


async def test_a_removed_method_is_no_default_and_does_not_come_back(wallets: Wallets) -> None:
    card = await wallets.card()
    await wallets.default(card)
    await wallets.remove(card)
    await wallets.remove(card)
    assert await wallets.defaults() == []
    assert await wallets.events(card) == [("removed", None)]
    for change in ("status = 'active', removed_at = NULL", "removed_at = now() + interval '1 day'"):
        with pytest.raises(IntegrityError, match="does not come back"):
            await wallets.run(f"UPDATE platform.payment_methods SET {change} WHERE id = :id", id=card)


async def test_a_method_is_nobody_elses_afterwards(wallets: Wallets) -> None:
    card = await wallets.card()
    with pytest.raises(IntegrityError, match="never changes"):
        await wallets.run("UPDATE platform.payment_methods SET token_id = 'tok_other' WHERE id = :id", id=card)


async def test_methods_are_listed_in_pages_both_ways_without_the_removed_ones(wallets: Wallets) -> None:
    cards = [await wallets.card() for _ in range(4)]
    await wallets.remove(cards[1])
    newest_first = [cards[3], cards[2], cards[0]]

    async def page(**cursor: Any) -> tuple[list[str], bool]:
        async with wallets.engine.connect() as connection:
            rows, has_more = await list_payment_methods(connection, wallets.user_id, PageRequest(2, **cursor))
        return [row["id"] for row in rows], has_more

    assert await page() == (newest_first[:2], True)
    assert await page(starting_after=cards[2]) == ([cards[0]], False)
    assert await page(ending_before=cards[0]) == (newest_first[:2], False)
    assert await page(starting_after="pm_absent") == ([], False)


_CARD = """
INSERT INTO platform.payment_methods (
    id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
VALUES (:id, :account, :user, :token, 'visa', '424242', '4242', :month, :year, :status)
"""
_EVENTS = text("SELECT type, data FROM platform.outbox WHERE subject_id = :id ORDER BY subject_sequence")
_DEFAULTS = text("SELECT id FROM platform.payment_methods WHERE user_id = :user AND is_default")
_OWED = text("""
SELECT count(*) FROM notify.owed JOIN platform.outbox AS event ON event.id = owed.event_id WHERE event.subject_id = :id
""")
