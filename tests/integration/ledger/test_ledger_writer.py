"""Callers who come at once share transactions, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger.errors import ExceedsCredits, LedgerError
from ledger.transfers import Applied, OpenAccount, Post, Step, apply
from ledger.writer import LedgerWriter
from tests.integration.ledger.support import USD, Books

CALLERS = 50


@pytest_asyncio.fixture
async def impatient(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine that waits for a lock for no longer than a moment, and whose sessions can be found by their name."""
    options = "-c lock_timeout=300 -c application_name=ledger_writer_test"
    engine = create_async_engine(database_url, pool_size=8, max_overflow=0, connect_args={"options": options})
    yield engine
    await engine.dispose()


@pytest.fixture
def writer(impatient: AsyncEngine) -> LedgerWriter:
    return LedgerWriter(impatient)


async def at_once(writer: LedgerWriter, chains: Sequence[Sequence[Step]]) -> list[Any]:
    return await asyncio.gather(*(writer.commit(chain) for chain in chains), return_exceptions=True)


def payments(books: Books, amount_minor: int = 1) -> list[list[Step]]:
    return [[books.pay(amount_minor, f"pay {number}")] for number in range(CALLERS)]


async def transactions(books: Books) -> int:
    """How many transactions wrote the payments."""
    statement = "SELECT count(DISTINCT xmin::text) FROM ledger.transfers WHERE reference = :mine AND code = 'purchase'"
    async with books.engine.connect() as connection:
        return int(await connection.scalar(text(statement), {"mine": books.prefix}) or 0)


async def test_callers_at_once_share_a_few_transactions(books: Books, writer: LedgerWriter) -> None:
    applied = await at_once(writer, payments(books))
    assert applied == [[Applied(books.name(f"pay {number}"), replayed=False)] for number in range(CALLERS)]
    assert await books.sums(books.wallet) == (0, CALLERS, 0, 1000)
    assert await transactions(books) <= 4
    assert await books.violations() == []


async def test_a_refusal_is_raised_to_the_caller_whose_chain_it_is(books: Books, writer: LedgerWriter) -> None:
    chains: list[list[Step]] = [*payments(books), [books.fund(5, "top up"), books.pay(5000, "too much")]]
    *applied, refusal = await at_once(writer, chains)
    assert isinstance(refusal, ExceedsCredits)
    assert (refusal.subject, refusal.index) == (books.name("too much"), 1)
    assert not any(isinstance(outcome, Exception) for outcome in applied)
    assert await books.sums(books.wallet) == (0, CALLERS, 0, 1000)


async def test_as_many_callers_get_the_money_as_there_is(books: Books, writer: LedgerWriter) -> None:
    outcomes = await at_once(writer, payments(books, 100))
    assert sum(isinstance(outcome, LedgerError) for outcome in outcomes) == CALLERS - 10
    assert await books.sums(books.wallet) == (0, 1000, 0, 1000)


async def test_one_id_from_many_callers_has_one_effect(books: Books, writer: LedgerWriter) -> None:
    outcomes = await at_once(writer, [[books.pay(7)]] * CALLERS)
    assert sorted(outcome[0].replayed for outcome in outcomes) == [False] + [True] * (CALLERS - 1)
    assert await books.sums(books.wallet) == (0, 7, 0, 1000)


async def test_what_the_database_cannot_take_fails_its_caller_alone(books: Books, writer: LedgerWriter) -> None:
    unspeakable = Post(books.name("nul"), books.wallet, books.shop, 1, USD, "purchase", "\0")
    *applied, failure = await at_once(writer, [*payments(books), [unspeakable]])
    assert isinstance(failure, DBAPIError)
    assert not any(isinstance(outcome, Exception) for outcome in applied)
    assert await books.sums(books.wallet) == (0, CALLERS, 0, 1000)


async def test_an_account_that_somebody_keeps_locked_holds_up_its_own_callers_alone(
    books: Books, writer: LedgerWriter
) -> None:
    till = OpenAccount(books.name("till"), USD, "till")
    other = Post(books.name("other"), books.bank, till.id, 1, USD, "x", books.prefix)
    async with books.engine.connect() as connection:
        await connection.execute(text("SELECT FROM ledger.accounts WHERE id = :id FOR UPDATE"), {"id": books.wallet})
        locked, applied = await at_once(writer, [[books.pay(1)], [till, other]])
        await connection.rollback()
    assert isinstance(locked, DBAPIError)
    assert applied == [Applied(till.id, replayed=False), Applied(other.id, replayed=False)]
    assert await writer.commit([books.pay(1)]) == [Applied(books.name("pay"), replayed=False)]


async def test_after_a_lost_connection_the_same_chains_can_be_committed_again(
    books: Books, writer: LedgerWriter
) -> None:
    await writer.commit([books.pay(1, "before")])
    async with books.engine.connect() as connection:
        # The writer lingers on its connection, which is gone when the next callers come.
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ledger_writer_test'")
        )
    outcomes = await at_once(writer, payments(books))
    assert any(isinstance(outcome, DBAPIError) for outcome in outcomes)
    again = await at_once(writer, payments(books))
    assert not any(isinstance(outcome, Exception) for outcome in again)
    assert await books.sums(books.wallet) == (0, CALLERS + 1, 0, 1000)


async def test_a_caller_who_gives_up_takes_nobody_along(books: Books, writer: LedgerWriter) -> None:
    tasks = [asyncio.create_task(writer.commit(chain)) for chain in payments(books)]
    await asyncio.sleep(0)
    tasks[7].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [
        number == 7 for number in range(CALLERS)
    ]


async def test_a_chain_that_is_none_is_raised_where_it_was_made(books: Books, writer: LedgerWriter) -> None:
    with pytest.raises(KeyError):
        await writer.commit([object()])  # type: ignore[list-item]
    assert len(await writer.commit([books.pay(1)])) == 1


async def test_no_connection_is_kept_while_nobody_comes(
    books: Books, writer: LedgerWriter, impatient: AsyncEngine
) -> None:
    await at_once(writer, payments(books))
    async with asyncio.timeout(5):
        while impatient.pool.checkedout():  # type: ignore[attr-defined]  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0.01)
    assert len(await writer.commit([books.pay(1)])) == 1


async def test_it_works_beside_callers_without_one(books: Books, writer: LedgerWriter) -> None:
    async def alone(number: int) -> None:
        async with books.engine.begin() as connection:
            await apply(connection, [books.fund(1, f"fund {number}")])

    await asyncio.gather(*(alone(number) for number in range(20)), at_once(writer, payments(books)))
    assert await books.sums(books.wallet) == (0, CALLERS, 0, 1020)
    assert await books.violations() == []


async def test_a_batch_among_callers_has_an_outcome_for_each_of_its_chains(books: Books, writer: LedgerWriter) -> None:
    too_much = books.pay(5000, "too much")
    outcomes, alone = await asyncio.gather(
        writer.commit_each([*payments(books), [too_much], [books.fund(1, "after")]]), writer.commit([books.pay(1)])
    )
    assert [isinstance(outcome, ExceedsCredits) for outcome in outcomes] == [False] * CALLERS + [True, False]
    assert alone == [Applied(books.name("pay"), replayed=False)]
    assert await writer.commit_each([]) == []
    assert await books.sums(books.wallet) == (0, CALLERS + 1, 0, 1001)
