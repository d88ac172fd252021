"""Many transfers in one call: all of them or none as one chain, or each on its own as chains of their own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import text

from ledger.errors import (
    AccountExistsWithDifferentContent,
    ExceedsCredits,
    ExistsWithDifferentContent,
    LedgerError,
    Overflows,
)
from ledger.queries import transfers_of
from ledger.transfers import (
    MAX_AMOUNT_MINOR,
    Applied,
    Limit,
    OpenAccount,
    Outcome,
    Post,
    Step,
    apply_each,
    commit,
    commit_each,
)
from store.engine import create_engine
from tests.integration.ledger.support import USD, Books

COUNT = 40
GUILTY = 23


def payments(books: Books, *, of_guilty: int = 5000) -> list[Post]:
    """Of five cents each, but for the one that the wallet cannot pay."""
    return [books.pay(of_guilty if number == GUILTY else 5, f"pay {number}") for number in range(COUNT)]


async def each(books: Books, *chains: Sequence[Step]) -> list[Outcome]:
    return await commit_each(books.engine, chains)


def said(outcomes: Sequence[Outcome]) -> list[str | list[bool]]:
    """The code of each refusal, and of what was applied whether each step was a replay."""
    return [
        outcome.code if isinstance(outcome, LedgerError) else [applied.replayed for applied in outcome]
        for outcome in outcomes
    ]


async def test_one_overdraft_refuses_the_whole_of_a_linked_batch(books: Books) -> None:
    with pytest.raises(ExceedsCredits) as refusal:
        await commit(books.engine, payments(books))
    assert (refusal.value.subject, refusal.value.index) == (books.name(f"pay {GUILTY}"), GUILTY)
    assert await books.sums(books.wallet) == (0, 0, 0, 1000)
    assert await books.violations() == []


async def test_one_overdraft_is_refused_alone_where_each_stands_for_itself(books: Books) -> None:
    outcomes = await each(books, *([payment] for payment in payments(books)))
    assert said(outcomes) == [ExceedsCredits.code if number == GUILTY else [False] for number in range(COUNT)]
    assert await books.sums(books.wallet) == (0, 5 * (COUNT - 1), 0, 1000)
    assert await books.violations() == []


@pytest.mark.parametrize("linked", [True, False])
async def test_a_batch_that_comes_again_is_replayed(books: Books, linked: bool) -> None:
    batch = payments(books, of_guilty=5)

    async def come() -> list[bool]:
        if linked:
            return [applied.replayed for applied in await commit(books.engine, batch)]
        applied = await each(books, *([payment] for payment in batch))
        return [outcome == [Applied(payment.id, True)] for outcome, payment in zip(applied, batch, strict=True)]

    assert await come() == [False] * COUNT
    assert await come() == [True] * COUNT
    assert await books.sums(books.wallet) == (0, 5 * COUNT, 0, 1000)


async def test_a_batch_that_was_begun_elsewhere_is_completed(books: Books) -> None:
    batch = payments(books, of_guilty=5)
    await books.apply(*batch[10:20])
    applied = await commit(books.engine, batch)
    assert [step.replayed for step in applied] == [10 <= number < 20 for number in range(COUNT)]
    assert await books.sums(books.wallet) == (0, 5 * COUNT, 0, 1000)


async def test_what_stands_twice_in_a_batch_moves_money_once(books: Books) -> None:
    twice = [books.pay(5, f"pay {number % 3}") for number in range(6)]
    assert said(await each(books, *([payment] for payment in twice))) == [[False]] * 3 + [[True]] * 3
    assert [applied.replayed for applied in await commit(books.engine, twice)] == [True] * 6
    assert await books.sums(books.wallet) == (0, 15, 0, 1000)


async def test_the_second_of_two_transfers_with_one_id_is_refused(books: Books) -> None:
    batch = [*payments(books, of_guilty=5), books.pay(6, "pay 3")]
    outcomes = await each(books, *([payment] for payment in batch))
    assert said(outcomes) == [[False]] * COUNT + [ExistsWithDifferentContent.code]
    with pytest.raises(ExistsWithDifferentContent) as refusal:
        await books.apply(*(books.fund(number + 1, f"fund {number % 5}") for number in range(6)))
    assert refusal.value.index == 5
    assert await books.sums(books.wallet) == (0, 5 * COUNT, 0, 1000)


async def test_a_batch_may_not_overdraw_in_between(books: Books) -> None:
    batch = [books.pay(1500), books.fund(1000, "more"), books.pay(1, "b"), books.pay(1, "c")]
    with pytest.raises(ExceedsCredits) as refusal:
        await commit(books.engine, batch)
    assert refusal.value.index == 0
    await commit(books.engine, [batch[1], batch[0], *batch[2:]])
    assert await books.sums(books.wallet) == (0, 1502, 0, 2000)


async def test_a_chain_among_others_stands_or_falls_as_a_whole(books: Books) -> None:
    limit = Limit.DEBITS_MUST_NOT_EXCEED_CREDITS
    till, purse = OpenAccount(books.name("till"), USD, "till"), OpenAccount(books.name("purse"), USD, "purse", limit)
    into = Post(books.name("into"), books.wallet, till.id, 10, USD, "x", books.prefix)
    beyond = Post(books.name("beyond"), purse.id, till.id, 1, USD, "x", books.prefix)
    outcomes = await each(
        books, [books.pay(1, "a")], [till, purse, into, beyond], [OpenAccount(books.shop, USD, "another")], [till, into]
    )
    assert said(outcomes) == [[False], ExceedsCredits.code, AccountExistsWithDifferentContent.code, [False, False]]
    assert [outcome.index for outcome in outcomes if isinstance(outcome, LedgerError)] == [3, 0]
    assert await books.sums(books.wallet) == (0, 11, 0, 1000)
    async with books.engine.connect() as connection:
        opened = await connection.scalars(
            text("SELECT id FROM ledger.accounts WHERE id = ANY (:ids)"), {"ids": [till.id, purse.id]}
        )
        assert opened.all() == [till.id]


async def test_holds_and_their_ends_can_be_in_one_batch(books: Books) -> None:
    outcomes = await each(
        books, [books.hold(600)], [books.hold(600, "another")], [books.post(100, final=False)], [books.void()]
    )
    assert said(outcomes) == [[False], ExceedsCredits.code, [False], [False]]
    assert await books.sums(books.wallet) == (0, 100, 0, 1000)
    assert await books.violations() == []


async def test_every_other_one_may_be_refused(books: Books) -> None:
    batch = [books.pay(1 if number % 2 else 2000, f"pay {number}") for number in range(COUNT)]
    outcomes = await each(books, *([payment] for payment in batch))
    assert said(outcomes) == [[False] if number % 2 else ExceedsCredits.code for number in range(COUNT)]
    assert await books.violations() == []


async def test_a_sum_that_is_too_large_is_refused_where_it_would_be_reached(books: Books) -> None:
    batch = [*payments(books, of_guilty=5), books.fund(MAX_AMOUNT_MINOR - 1000, "most"), books.fund(1, "one more")]
    with pytest.raises(Overflows) as refusal:
        await commit(books.engine, batch)
    assert refusal.value.index == COUNT + 1
    assert said(await each(books, *([step] for step in batch))) == [[False]] * (COUNT + 1) + [Overflows.code]


async def test_an_empty_batch_has_no_outcomes(books: Books) -> None:
    assert await each(books) == []


async def test_outcomes_are_undone_with_the_callers_transaction(books: Books) -> None:
    async with books.engine.connect() as connection:
        assert said(await apply_each(connection, [[books.pay(1)], [books.pay(5000, "b")]])) == [
            [False],
            ExceedsCredits.code,
        ]
        await connection.rollback()
    assert await books.sums(books.wallet) == (0, 0, 0, 1000)


async def test_batches_in_all_directions_never_deadlock_and_lose_nothing(books: Books, database_url: str) -> None:
    wallets = [books.name(f"wallet {number}") for number in range(10)]
    limit = Limit.DEBITS_MUST_NOT_EXCEED_CREDITS
    await books.apply(
        *(OpenAccount(wallet, USD, "user_wallet", limit) for wallet in wallets),
        *(Post(f"{wallet}:fund", books.bank, wallet, 100, USD, "top_up", "funding") for wallet in wallets),
    )
    engine = create_engine(database_url, pool_size=8)

    async def caller(seed: int) -> Counter[str]:
        choose = random.Random(seed)
        counted: Counter[str] = Counter()
        for number in range(8):
            name, reference = books.name(f"{seed}/{number}"), books.name("p2p")
            sides = [choose.sample(wallets, 2) for _ in range(12)]
            batch = [
                Post(f"{name}/{place}", here, there, choose.randint(1, 60), USD, "p2p", reference)
                for place, (here, there) in enumerate(sides)
            ]
            outcomes = await commit_each(engine, [[post] for post in batch])
            counted.update("refused" if isinstance(outcome, LedgerError) else "new" for outcome in outcomes)
        return counted

    try:
        counted = sum(await asyncio.gather(*(caller(seed) for seed in range(8))), Counter[str]())
    finally:
        await engine.dispose()
    assert counted.total() == 8 * 8 * 12
    assert min(counted["new"], counted["refused"]) > 0
    sums = [await books.sums(wallet) for wallet in wallets]
    assert sum(credits - debits for _, debits, _, credits in sums) == 100 * len(wallets)
    async with books.engine.connect() as connection:
        assert len(await transfers_of(connection, books.name("p2p"))) == counted["new"]
    assert await books.violations() == []
