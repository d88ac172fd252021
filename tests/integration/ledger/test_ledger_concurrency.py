"""Many transactions at once on the same few accounts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest_asyncio

from ledger.errors import (
    ExceedsCredits,
    ExceedsPendingTransferAmount,
    ExistsWithDifferentContent,
    LedgerError,
    PendingTransferAlreadyPosted,
    PendingTransferAlreadyVoided,
)
from ledger.expiry import expire_due
from ledger.queries import transfers_of
from ledger.statements import statement
from ledger.transfers import Applied, ExpirePending, Limit, OpenAccount, Post, Step, apply
from store.engine import create_engine
from tests.integration.ledger.support import USD, Books
from tests.integration.ledger.test_ledger_transfers import past

CONNECTIONS = 16
_ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@pytest_asyncio.fixture
async def crowd(books: Books, database_url: str) -> AsyncIterator[Books]:
    """The same books, behind as many connections as there are callers."""
    engine = create_engine(database_url, pool_size=CONNECTIONS)
    small, books.engine = books.engine, engine
    yield books
    books.engine = small
    await engine.dispose()


async def outcomes(calls: Sequence[Awaitable[list[Applied]]]) -> Counter[str]:
    """How often each refusal came, and `new` and `replayed` for what was applied. Other errors are raised."""
    counted: Counter[str] = Counter()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, LedgerError):
            counted[outcome.code] += 1
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            counted["replayed" if outcome[-1].replayed else "new"] += 1
    return counted


async def test_transfers_in_all_directions_never_deadlock_and_lose_nothing(crowd: Books) -> None:
    wallets = [crowd.name(f"wallet {number}") for number in range(10)]
    limit = Limit.DEBITS_MUST_NOT_EXCEED_CREDITS
    opening = [OpenAccount(wallet, USD, "user_wallet", limit) for wallet in wallets]
    funding = [Post(f"{wallet}:fund", crowd.bank, wallet, 500, USD, "top_up", "funding") for wallet in wallets]
    await crowd.apply(*opening, *funding)

    async def caller(seed: int) -> Counter[str]:
        choose = random.Random(seed)
        counted: Counter[str] = Counter()
        for number in range(30):
            here, there, third = choose.sample(wallets, 3)
            name, reference = crowd.name(f"{seed}/{number}"), crowd.name("p2p")
            chain: list[Step] = [
                Post(f"{name}/a", here, there, choose.randint(1, 400), USD, "p2p", reference),
                Post(f"{name}/b", there, third, choose.randint(1, 400), USD, "p2p", reference),
            ]
            counted += await outcomes([crowd.apply(*chain)])
        return counted

    counted = sum(await asyncio.gather(*(caller(seed) for seed in range(CONNECTIONS))), Counter[str]())
    assert counted.total() == CONNECTIONS * 30
    assert set(counted) <= {"new", ExceedsCredits.code}
    sums = [await crowd.sums(wallet) for wallet in wallets]
    assert sum(credits - debits for _, debits, _, credits in sums) == 500 * len(wallets)
    assert all(debits <= credits for _, debits, _, credits in sums)
    async with crowd.engine.connect() as connection:
        assert len(await transfers_of(connection, crowd.name("p2p"))) == 2 * counted["new"]
    assert await crowd.violations() == []


async def test_a_to_b_and_b_to_a_at_the_same_moment_both_go_through(crowd: Books) -> None:
    def both(number: int) -> list[Post]:
        there = Post(crowd.name(f"there {number}"), crowd.bank, crowd.shop, 1, USD, "x", crowd.prefix)
        back = Post(crowd.name(f"back {number}"), crowd.shop, crowd.bank, 1, USD, "x", crowd.prefix)
        return [there, back]

    calls = [crowd.apply(step) for number in range(100) for step in both(number)]
    assert await outcomes(calls) == {"new": 200}
    assert await crowd.sums(crowd.shop) == (0, 100, 0, 100)


async def test_a_hot_account_loses_nothing_and_keeps_its_entries_in_line(crowd: Books) -> None:
    others = [crowd.name(f"other {number}") for number in range(CONNECTIONS)]
    await crowd.apply(*(OpenAccount(other, USD, "till") for other in others))

    def both(number: int) -> list[Step]:
        other = others[number % len(others)]
        into = Post(crowd.name(f"in {number}"), other, crowd.shop, 3, USD, "x", crowd.prefix)
        out = Post(crowd.name(f"out {number}"), crowd.shop, other, 1, USD, "x", crowd.prefix)
        return [into, out]

    assert await outcomes([crowd.apply(*both(number)) for number in range(200)]) == {"new": 200}
    assert await crowd.sums(crowd.shop) == (0, 200, 0, 600)
    async with crowd.engine.connect() as connection:
        found = await statement(connection, crowd.shop, *_ALWAYS, limit=1000)
    assert [entry.position for entry in found.entries] == list(range(1, 401))
    balances = [entry.totals.balance_minor for entry in found.entries]
    assert [after - before for before, after in pairwise([0, *balances])] == [3, -1] * 200
    assert await crowd.violations() == []


async def test_accounts_that_are_opened_by_many_at_once_are_opened_once(crowd: Books) -> None:
    accounts = [OpenAccount(crowd.name(f"fresh {number}"), USD, "till") for number in range(4)]

    async def caller(seed: int) -> list[Applied]:
        order = random.Random(seed).sample(accounts, len(accounts))
        sale = Post(crowd.name(f"sale {seed}"), order[0].id, order[1].id, 1, USD, "x", crowd.prefix)
        return (await crowd.apply(*order, sale))[:-1]

    results = await asyncio.gather(*(caller(seed) for seed in range(CONNECTIONS)))
    opened = Counter(applied.id for result in results for applied in result if not applied.replayed)
    assert opened == Counter(account.id for account in accounts)
    assert await crowd.violations() == []


async def test_one_transfer_sent_by_many_callers_moves_money_once(crowd: Books) -> None:
    calls = [crowd.apply(OpenAccount(crowd.name("till"), USD, "till"), crowd.pay(600)) for _ in range(50)]
    assert await outcomes(calls) == {"new": 1, "replayed": 49}
    assert await crowd.sums(crowd.wallet) == (0, 600, 0, 1000)


async def test_one_id_for_transfers_between_different_accounts_is_used_once(crowd: Books) -> None:
    pairs = [(crowd.name(f"from {number}"), crowd.name(f"to {number}")) for number in range(CONNECTIONS)]
    await crowd.apply(*(OpenAccount(account, USD, "till") for pair in pairs for account in pair))
    calls = [crowd.apply(Post(crowd.name("same"), *pair, 1, USD, "x", crowd.prefix)) for pair in pairs]
    assert await outcomes(calls) == {"new": 1, ExistsWithDifferentContent.code: CONNECTIONS - 1}
    assert await crowd.violations() == []


async def test_of_posts_and_voids_of_one_hold_exactly_one_wins(crowd: Books) -> None:
    for turn in range(10):
        hold = f"hold {turn}"
        await crowd.apply(crowd.hold(50, hold))
        steps: list[Step] = [crowd.post(50, f"post {turn}/{number}", hold=hold) for number in range(8)]
        steps += [crowd.void(f"void {turn}/{number}", hold=hold) for number in range(8)]
        random.Random(turn).shuffle(steps)
        counted = await outcomes([crowd.apply(step) for step in steps])
        assert counted["new"] == 1
        assert counted[PendingTransferAlreadyPosted.code] + counted[PendingTransferAlreadyVoided.code] == 15
    debits_pending, debits_posted, _, _ = await crowd.sums(crowd.wallet)
    async with crowd.engine.connect() as connection:
        posts = [found for found in await transfers_of(connection, crowd.prefix) if found.kind == "post"]
    assert (debits_pending, debits_posted) == (0, 50 * len(posts))
    assert await crowd.violations() == []


async def test_a_hundred_partial_posts_at_once_never_exceed_their_hold(crowd: Books) -> None:
    await crowd.apply(crowd.hold(600))
    calls = [crowd.apply(crowd.post(70, f"part {number}", final=False)) for number in range(100)]
    assert await outcomes(calls) == {"new": 8, ExceedsPendingTransferAmount.code: 92}
    assert await crowd.sums(crowd.wallet) == (40, 560, 0, 1000)


async def test_overdue_holds_are_released_once_by_all_who_look_for_them(crowd: Books) -> None:
    holds = [crowd.hold(10, f"hold {number}", expires_at=past()) for number in range(20)]
    await crowd.apply(*holds)
    by_hand = [ExpirePending(f"{hold.id}/x", hold.id, crowd.prefix) for hold in holds[:5]]
    sweeps = asyncio.gather(*(expire_due(crowd.engine, limit=1000) for _ in range(4)))
    counted = await outcomes([crowd.apply(step) for step in by_hand])
    released = Counter(name for names in await sweeps for name in names if name.startswith(crowd.prefix))
    assert released.total() + counted["new"] == len(holds)
    assert set(released.values()) <= {1}
    assert await crowd.sums(crowd.wallet) == (0, 0, 0, 1000)
    assert await crowd.violations() == []


async def test_the_invariants_can_be_checked_while_transfers_go_on(crowd: Books) -> None:
    async def pay(number: int) -> None:
        await crowd.apply(crowd.fund(5, f"in {number}"), crowd.hold(5, f"hold {number}"))
        await crowd.apply(crowd.post(3, f"post {number}", hold=f"hold {number}"))

    payments = asyncio.gather(*(pay(number) for number in range(60)))
    while not payments.done():
        assert await crowd.violations() == []
    await payments


async def test_a_refused_chain_holds_no_locks(crowd: Books) -> None:
    async with crowd.engine.connect() as connection:
        await apply(connection, [OpenAccount(crowd.name("mine"), USD, "till")])
        assert await outcomes([apply(connection, [crowd.pay(5000)])]) == {ExceedsCredits.code: 1}
        async with asyncio.timeout(4):  # less than the engine's lock_timeout
            await crowd.apply(crowd.pay(1))
        await connection.rollback()
