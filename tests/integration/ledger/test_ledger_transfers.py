"""The ledger's rules, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from ledger.errors import LedgerError
from ledger.queries import balance, check_invariants, transfers_of
from ledger.transfers import (
    Applied,
    BalanceLimit,
    ExpirePending,
    OpenAccount,
    Pending,
    Posted,
    PostPending,
    Step,
    VoidPending,
    apply,
)

USD = Currency.USD


class Books:
    """Two unlimited accounts and a wallet that must not go below zero, with names of their own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.prefix = secrets.token_hex(4)
        self.bank = self.name("bank")
        self.fees = self.name("fees")
        self.wallet = self.name("wallet")

    def name(self, what: str) -> str:
        return f"{what}:{self.prefix}"

    async def apply(self, *chain: Step) -> list[Applied]:
        async with self.engine.begin() as connection:
            return await apply(connection, chain)

    async def sums(self, account: str) -> tuple[int, int, int, int]:
        async with self.engine.connect() as connection:
            found = await balance(connection, account)
        assert found is not None
        return found.debits_pending, found.debits_posted, found.credits_pending, found.credits_posted

    def fund(self, amount: int, identifier: str = "fund") -> Posted:
        return Posted(self.name(identifier), self.bank, self.wallet, amount, USD, "top_up", self.prefix)

    def hold(self, amount: int, identifier: str = "hold", expires_at: datetime | None = None) -> Pending:
        return Pending(self.name(identifier), self.wallet, self.fees, amount, USD, "hold", self.prefix, expires_at)

    def post(self, amount: int, identifier: str = "post", *, final: bool = True) -> PostPending:
        return PostPending(self.name(identifier), self.name("hold"), amount, self.prefix, final=final)

    def void(self, identifier: str = "void") -> VoidPending:
        return VoidPending(self.name(identifier), self.name("hold"), self.prefix)


@pytest.fixture
async def books(engine: AsyncEngine) -> Books:
    made = Books(engine)
    await made.apply(
        OpenAccount(made.bank, USD, "bank"),
        OpenAccount(made.fees, USD, "fees"),
        OpenAccount(made.wallet, USD, "user_wallet", BalanceLimit.DEBITS_MUST_NOT_EXCEED_CREDITS),
        made.fund(1000),
    )
    return made


async def _refused(books: Books, code: str, *chain: Step) -> None:
    with pytest.raises(LedgerError) as refusal:
        await books.apply(*chain)
    assert refusal.value.code == code


async def test_a_transfer_debits_one_account_and_credits_the_other(books: Books) -> None:
    assert await books.sums(books.bank) == (0, 1000, 0, 0)
    assert await books.sums(books.wallet) == (0, 0, 0, 1000)


async def test_the_same_transfer_again_changes_nothing(books: Books) -> None:
    assert await books.apply(books.fund(1000)) == [Applied.EXISTS]
    assert await books.sums(books.wallet) == (0, 0, 0, 1000)


async def test_the_same_id_with_other_content_is_refused(books: Books) -> None:
    await _refused(books, "transfer_exists_with_different_content", books.fund(999))


async def test_a_limited_account_cannot_be_overdrawn(books: Books) -> None:
    await _refused(books, "exceeds_credits", books.hold(1001))


async def test_a_hold_counts_against_the_limit(books: Books) -> None:
    await books.apply(books.hold(600))
    await _refused(books, "exceeds_credits", books.hold(401, "second"))


async def test_a_chain_succeeds_or_fails_as_a_whole(books: Books) -> None:
    await _refused(books, "exceeds_credits", books.hold(600), books.hold(600, "second"))
    assert await books.sums(books.wallet) == (0, 0, 0, 1000)


async def test_a_final_partial_post_releases_the_rest(books: Books) -> None:
    await books.apply(books.hold(600), books.post(200))
    assert await books.sums(books.wallet) == (0, 200, 0, 1000)


async def test_a_pending_transfer_can_be_posted_in_parts(books: Books) -> None:
    await books.apply(books.hold(600))
    await books.apply(books.post(200, "first", final=False))
    assert await books.sums(books.wallet) == (400, 200, 0, 1000)
    await _refused(books, "exceeds_pending_transfer_amount", books.post(401, "second"))
    await books.apply(books.post(400, "third", final=False))
    await _refused(books, "pending_transfer_already_posted", books.post(1, "fourth"))


@pytest.mark.parametrize(
    ("first", "code"), [("post", "pending_transfer_already_posted"), ("void", "pending_transfer_already_voided")]
)
async def test_a_pending_transfer_ends_once(books: Books, first: str, code: str) -> None:
    await books.apply(books.hold(600))
    await books.apply(books.post(600) if first == "post" else books.void())
    await _refused(books, code, books.void("late"))
    await _refused(books, code, books.post(1, "later"))


async def test_of_a_post_and_a_void_at_once_one_wins(books: Books) -> None:
    await books.apply(books.hold(600))
    outcomes = await asyncio.gather(
        *(books.apply(books.post(600, f"post{n}")) for n in range(4)),
        *(books.apply(books.void(f"void{n}")) for n in range(4)),
        return_exceptions=True,
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert all(isinstance(outcome, LedgerError) for outcome in outcomes if isinstance(outcome, BaseException))


async def test_an_expired_hold_is_released_and_cannot_be_posted(books: Books) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    await books.apply(books.hold(600, expires_at=past))
    await _refused(books, "pending_transfer_expired", books.post(1))
    await books.apply(ExpirePending(books.name("expire"), books.name("hold"), books.prefix))
    assert await books.sums(books.wallet) == (0, 0, 0, 1000)


async def test_a_hold_does_not_expire_before_its_time(books: Books) -> None:
    await books.apply(books.hold(600, expires_at=datetime.now(UTC) + timedelta(hours=1)))
    expire = ExpirePending(books.name("expire"), books.name("hold"), books.prefix)
    await _refused(books, "pending_transfer_not_expired", expire)


async def test_currencies_do_not_mix(books: Books) -> None:
    euros = OpenAccount(books.name("euros"), Currency.EUR, "bank")
    await books.apply(euros)
    across = Posted(books.name("across"), books.bank, euros.id, 1, USD, "x", books.prefix)
    await _refused(books, "accounts_must_have_the_same_currency", across)
    foreign = Posted(books.name("foreign"), books.bank, books.fees, 1, Currency.EUR, "x", books.prefix)
    await _refused(books, "transfer_must_have_the_accounts_currency", foreign)


@pytest.mark.parametrize("amount", [0, -1])
async def test_an_amount_must_be_positive(books: Books, amount: int) -> None:
    await _refused(books, "amount_must_be_positive", books.fund(amount, "bad"))


async def test_unknown_accounts_and_pending_transfers_are_refused(books: Books) -> None:
    await _refused(
        books, "debit_account_not_found", Posted(books.name("x"), "nobody", books.bank, 1, USD, "x", books.prefix)
    )
    await _refused(books, "pending_transfer_not_found", books.void())
    await _refused(
        books, "accounts_must_be_different", Posted(books.name("y"), books.bank, books.bank, 1, USD, "x", books.prefix)
    )


async def test_an_account_is_not_opened_anew_with_other_content(books: Books) -> None:
    await _refused(books, "account_exists_with_different_content", OpenAccount(books.bank, USD, "something else"))


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE ledger.transfers SET amount_minor = 1",
        "DELETE FROM ledger.transfers",
        "TRUNCATE ledger.transfers CASCADE",
        "UPDATE ledger.accounts SET credits_posted = credits_posted + 1",
        "UPDATE ledger.accounts SET balance_limit = 'none'",
        "DELETE FROM ledger.accounts",
        "INSERT INTO ledger.accounts (id, currency, code, credits_posted) VALUES ('forged', 'USD', 'x', 5)",
        "UPDATE ledger.pending SET remaining_minor = 1",
        "DELETE FROM ledger.pending",
    ],
)
async def test_the_database_refuses_what_code_should_not_do(books: Books, attack: str) -> None:
    await books.apply(books.hold(600))
    with pytest.raises(DBAPIError) as refusal:
        async with books.engine.begin() as connection:
            await connection.execute(text(attack))
    assert getattr(refusal.value.orig, "sqlstate", None) == "LDG01"


async def test_opposite_transfers_under_load_neither_deadlock_nor_lose_money(engine: AsyncEngine) -> None:
    books = Books(engine)
    accounts = [books.name(f"account{number}") for number in range(6)]
    await books.apply(*(OpenAccount(account, USD, "test") for account in accounts))

    async def shuttle(worker: int) -> None:
        for number in range(25):
            source, target = accounts[(worker + number) % 6], accounts[(worker * 5 + number * 3 + 1) % 6]
            if source != target:
                identifier = books.name(f"{worker}:{number}")
                await books.apply(Posted(identifier, source, target, 7, USD, "shuttle", books.prefix))

    await asyncio.gather(*(shuttle(worker) for worker in range(16)))
    sums = [await books.sums(account) for account in accounts]
    assert sum(debits for _, debits, _, _ in sums) == sum(credits for _, _, _, credits in sums)
    async with engine.connect() as connection:
        assert await check_invariants(connection) == []
        written = await transfers_of(connection, books.prefix)
    assert sum(transfer.amount_minor for transfer in written) == sum(debits for _, debits, _, _ in sums)
