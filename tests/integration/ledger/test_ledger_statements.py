"""Statements and past balances are looked up, never added up, and agree with the transfers."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from domain.currency import Currency
from domain.errors import NotFound
from ledger import statements
from ledger.statements import Cursor, StatementEntry, StatementPage, Totals, balance_at, statement, trial_balance
from ledger.transfers import OpenAccount, Post, Step, commit
from tests.integration.ledger.support import Books

FROM, TO = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


async def page(books: Books, account: str, **options: Any) -> StatementPage:
    async with books.engine.connect() as connection:
        return await statement(connection, account, **{"since": FROM, "until": TO, **options})


async def now(books: Books) -> datetime:
    async with books.engine.connect() as connection:
        moment: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return moment


async def test_a_statement_tells_each_transfer_from_the_side_of_the_account(books: Books) -> None:
    await books.apply(books.hold(600), books.post(200, final=False), books.void(), books.pay(50))
    found = await page(books, books.wallet)
    assert found.opening == Totals()
    assert found.next is None
    assert [
        (each.position, each.kind, each.debit_minor, each.credit_minor, each.totals.balance_minor)
        for each in found.entries
    ] == [
        (1, "posted", 0, 1000, 1000),
        (2, "pending", 0, 0, 1000),
        (3, "post", 200, 0, 800),
        (4, "void", 0, 0, 800),
        (5, "posted", 50, 0, 750),
    ]
    assert [each.totals.debits_pending for each in found.entries] == [0, 600, 400, 0, 0]
    assert {each.counter_account for each in found.entries[1:]} == {books.shop}
    (_, _, capture, _, _) = found.entries
    assert (capture.transfer_id, capture.code, capture.reference) == (books.name("post"), "hold", books.prefix)
    shop = await page(books, books.shop)
    assert [(each.debit_minor, each.credit_minor) for each in shop.entries] == [(0, 0), (0, 200), (0, 0), (0, 50)]


async def test_pages_follow_one_another_without_gap_or_overlap_while_entries_are_added(books: Books) -> None:
    await books.apply(*(books.pay(1, f"pay {number}") for number in range(10)))
    seen: list[StatementEntry] = []
    after: Cursor | None = None
    before = Totals()
    for turn in range(20):
        found = await page(books, books.wallet, after=after, limit=4)
        assert found.opening == before
        seen += found.entries
        before = found.entries[-1].totals
        if turn < 3:
            await books.apply(books.pay(1, f"more {turn}"))
        if found.next is None:
            break
        after = found.next
    assert [each.position for each in seen] == list(range(1, 15))


async def test_a_period_begins_with_what_stood_before_it_and_ends_before_its_end(books: Books) -> None:
    middle = await now(books)
    await books.apply(books.pay(100))
    end = await now(books)
    await books.apply(books.pay(7, "later"))
    found = await page(books, books.wallet, since=middle, until=end)
    assert found.opening.balance_minor == 1000
    assert [each.transfer_id for each in found.entries] == [books.name("pay")]
    (entry,) = found.entries
    exact = await page(books, books.wallet, since=entry.cursor.at, until=end)
    assert (len(exact.entries), exact.opening.balance_minor) == (1, 1000)
    empty = await page(books, books.wallet, since=middle, until=entry.cursor.at)
    assert (empty.entries, empty.next, empty.opening.balance_minor) == ((), None, 1000)


async def test_a_past_balance_is_what_stood_then(books: Books) -> None:
    opened = await now(books)
    await books.apply(books.hold(600))
    held = await now(books)
    await books.apply(books.post(250))
    async with books.engine.connect() as connection:
        assert await balance_at(connection, books.wallet, FROM) == Totals()
        assert await balance_at(connection, books.wallet, opened) == Totals(credits_posted=1000)
        assert await balance_at(connection, books.wallet, held) == Totals(600, 0, 0, 1000)
        assert await balance_at(connection, books.wallet, TO) == Totals(0, 250, 0, 1000)
        (last,) = (await page(books, books.wallet)).entries[-1:]
        assert await balance_at(connection, books.wallet, last.cursor.at) == last.totals
        assert await balance_at(connection, books.wallet, last.cursor.at - timedelta(microseconds=1)) != last.totals


async def test_an_account_that_nobody_opened_has_no_statement(books: Books) -> None:
    with pytest.raises(NotFound):
        await page(books, books.name("nobody"))
    async with books.engine.connect() as connection:
        with pytest.raises(NotFound):
            await balance_at(connection, books.name("nobody"), TO)


async def test_entries_never_go_back_in_time_although_the_clock_does(books: Books) -> None:
    """The transfer has the clock's own time; the entry that of the one before."""
    async with books.engine.connect() as connection:
        # As if the clock had stood a day later when the wallet's last entry was written.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        ahead = "SET last_entry_at = last_entry_at + interval '1 day'"
        await connection.execute(text(f"UPDATE ledger.accounts {ahead} WHERE id = :id"), {"id": books.wallet})
        await connection.execute(
            text("UPDATE ledger.entries SET at = at + interval '1 day' WHERE account = :id"), {"id": books.wallet}
        )
        await connection.commit()
    await books.apply(books.pay(1), books.pay(2, "next"))
    entries = (await page(books, books.wallet)).entries
    assert [each.position for each in entries] == [1, 2, 3]
    assert len({each.cursor.at for each in entries}) == 1
    assert await books.violations() == []


async def test_a_trial_balance_agrees_in_every_currency(books: Books) -> None:
    euros = [OpenAccount(books.name(f"euro {name}"), Currency.EUR, f"trial_{books.prefix}") for name in "ab"]
    await books.apply(*euros, Post(books.name("e"), euros[0].id, euros[1].id, 30, Currency.EUR, "x", books.prefix))
    async with books.engine.connect() as connection:
        found = {each.currency: each for each in await trial_balance(connection)}
    assert {Currency.USD, Currency.EUR} <= set(found)
    for each in found.values():
        assert each.totals.debits_posted == each.totals.credits_posted
        assert each.totals.debits_pending == each.totals.credits_pending
        assert sum(totals.balance_minor for totals in each.by_code.values()) == 0
    assert found[Currency.EUR].by_code[f"trial_{books.prefix}"] == Totals(0, 30, 0, 30)


@pytest.mark.parametrize("query", ["_AT", "_BEFORE", "_PAGE"])
async def test_they_read_no_more_than_they_show(books: Books, query: str) -> None:
    """Of an account with thousands of entries, EXPLAIN finds a look into the index for a page or a balance."""
    till = OpenAccount(f"till:{secrets.token_hex(4)}", Currency.USD, "till")
    for batch in range(4):
        chain: list[Step] = [till]
        for number in range(500):
            name = books.name(f"{till.id} {batch}/{number}")
            chain.append(Post(name, books.bank, till.id, 1, Currency.USD, "x", till.id))
        await commit(books.engine, chain)
    middle = (await page(books, till.id, limit=1000)).entries[-1].cursor
    parameters = {"account": till.id, "at": middle.at, "position": middle.position, "until": TO, "limit": 10}
    async with books.engine.connect() as connection:
        await connection.execute(text("ANALYZE ledger.entries"))
        await connection.execute(text("ANALYZE ledger.transfers"))
        explain = text(f"EXPLAIN (ANALYZE, BUFFERS OFF, FORMAT JSON) {getattr(statements, query)}")
        (answer,) = (await connection.execute(explain, parameters)).scalar_one()
    nodes = list(_nodes(answer["Plan"]))
    assert "pk_entries" in {node.get("Index Name") for node in nodes}, json.dumps(answer)
    assert not {"Seq Scan", "Sort"} & {node["Node Type"] for node in nodes}
    read = {node["Actual Rows"] * node["Actual Loops"] for node in nodes if "Index Name" in node}
    assert max(read) <= (10 if query == "_PAGE" else 1)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _nodes(child))]
