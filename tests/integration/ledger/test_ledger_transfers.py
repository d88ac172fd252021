"""What chains of transfers do to the books, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from domain.currency import Currency
from domain.errors import NotFound
from ledger.errors import (
    AccountExistsWithDifferentContent,
    AccountsMustBeDifferent,
    AccountsMustHaveSameCurrency,
    BreaksRule,
    CreditAccountNotFound,
    DebitAccountNotFound,
    ExceedsCredits,
    ExceedsDebits,
    ExceedsPendingTransferAmount,
    ExistsWithDifferentContent,
    LedgerError,
    Overflows,
    PendingTransferAlreadyPosted,
    PendingTransferAlreadyVoided,
    PendingTransferExpired,
    PendingTransferNotExpired,
    PendingTransferNotFound,
    PendingTransferNotPending,
    TransferMustHaveSameCurrencyAsAccounts,
)
from ledger.expiry import expire_due
from ledger.queries import balance, transfers_of
from ledger.transfers import (
    MAX_AMOUNT_MINOR,
    Applied,
    ExpirePending,
    Limit,
    OpenAccount,
    Pending,
    Post,
    Step,
    Transfer,
    apply,
)
from tests.integration.ledger.support import USD, Books

UNTOUCHED = (0, 0, 0, 1000)


def past() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


def far() -> datetime:
    return datetime.now(UTC) + timedelta(days=7)


async def refuse(books: Books, error: type[LedgerError], subject: str, *chain: Step) -> None:
    with pytest.raises(error) as refusal:
        await books.apply(*chain)
    assert refusal.value.subject == subject


# ------------------------------------------------------------------------------------------------ accounts and limits


async def test_a_chain_opens_its_accounts_and_moves_money_in_one_call(books: Books) -> None:
    till = OpenAccount(books.name("till"), USD, "till")
    sale = Post(books.name("sale"), books.shop, till.id, 250, USD, "sale", books.prefix)
    assert await books.apply(till, sale) == [Applied(till.id, False), Applied(sale.id, False)]
    assert await books.sums(till.id) == (0, 0, 0, 250)
    assert await books.sums(books.shop) == (0, 250, 0, 0)


async def test_opening_an_account_again_changes_nothing(books: Books) -> None:
    assert await books.apply(OpenAccount(books.bank, USD, "bank")) == [Applied(books.bank, True)]


@pytest.mark.parametrize(
    "other",
    [{"currency": Currency.EUR}, {"code": "suspense"}, {"limit": Limit.CREDITS_MUST_NOT_EXCEED_DEBITS}],
)
async def test_an_account_never_changes_its_attributes(books: Books, other: dict[str, object]) -> None:
    changed = replace(OpenAccount(books.bank, USD, "bank"), **other)  # type: ignore[arg-type]
    await refuse(books, AccountExistsWithDifferentContent, books.bank, books.pay(1), changed)
    assert await books.sums(books.wallet) == UNTOUCHED


async def test_a_wallet_never_goes_below_zero(books: Books) -> None:
    await refuse(books, ExceedsCredits, books.name("pay"), books.pay(1001))
    await books.apply(books.pay(1000))
    await refuse(books, ExceedsCredits, books.name("more"), books.pay(1, "more"))


async def test_a_hold_counts_against_the_limit(books: Books) -> None:
    await books.apply(books.hold(600))
    await refuse(books, ExceedsCredits, books.name("pay"), books.pay(401))
    await books.apply(books.pay(400))


async def test_pending_credits_cannot_be_spent(books: Books) -> None:
    await books.apply(Pending(books.name("in"), books.bank, books.wallet, 500, USD, "top_up", books.prefix))
    await refuse(books, ExceedsCredits, books.name("pay"), books.pay(1001))


async def test_the_limit_works_in_the_other_direction_too(books: Books) -> None:
    asset = OpenAccount(books.name("asset"), USD, "receivable", Limit.CREDITS_MUST_NOT_EXCEED_DEBITS)
    debit = Post(books.name("debit"), asset.id, books.bank, 5, USD, "x", books.prefix)
    await books.apply(asset, debit)
    credit = Post(books.name("credit"), books.bank, asset.id, 6, USD, "x", books.prefix)
    await refuse(books, ExceedsDebits, credit.id, credit)
    await books.apply(replace(credit, amount_minor=5))


async def test_the_balance_of_an_account_that_was_never_opened_is_not_found(books: Books) -> None:
    async with books.engine.connect() as connection:
        with pytest.raises(NotFound):
            await balance(connection, books.name("nobody"))


# --------------------------------------------------------------------------------------------------- chains, replays


async def test_a_chain_succeeds_or_fails_as_a_whole(books: Books) -> None:
    opened = OpenAccount(books.name("new"), USD, "till")
    await refuse(books, ExceedsCredits, books.name("second"), opened, books.pay(600), books.pay(600, "second"))
    assert await books.sums(books.wallet) == UNTOUCHED
    async with books.engine.connect() as connection:
        with pytest.raises(NotFound):
            await balance(connection, opened.id)


async def test_the_steps_of_a_chain_happen_in_their_order(books: Books) -> None:
    await refuse(books, ExceedsCredits, books.name("pay"), books.pay(1500), books.fund(500, "late"))
    await books.apply(books.fund(500, "early"), books.pay(1500))
    assert await books.sums(books.wallet) == (0, 1500, 0, 1500)


async def test_a_hold_can_be_posted_in_the_chain_that_makes_it(books: Books) -> None:
    await books.apply(books.hold(600), books.post(600))
    assert await books.sums(books.wallet) == (0, 600, 0, 1000)


async def test_after_a_refusal_the_transaction_goes_on(books: Books) -> None:
    async with books.engine.begin() as connection:
        await apply(connection, [books.fund(1, "before")])
        with pytest.raises(ExceedsCredits):
            await apply(connection, [books.pay(5000)])
        await apply(connection, [books.fund(1, "after")])
    assert await books.sums(books.wallet) == (0, 0, 0, 1002)


async def test_a_rolled_back_transaction_leaves_nothing_of_its_chain(books: Books) -> None:
    async with books.engine.connect() as connection:
        await apply(connection, [books.pay(1000)])
        await connection.rollback()
    assert await books.sums(books.wallet) == UNTOUCHED


async def test_the_same_chain_again_is_replayed_and_moves_nothing(books: Books) -> None:
    chain: list[Step] = [books.hold(600, expires_at=far()), books.post(200, final=False), books.void()]
    first = await books.apply(*chain)
    before = await books.sums(books.wallet)
    assert first == [Applied(step.id, False) for step in chain]
    assert await books.apply(*chain) == [Applied(step.id, True) for step in chain]
    assert await books.sums(books.wallet) == before == (0, 200, 0, 1000)


async def test_an_empty_chain_is_applied(books: Books) -> None:
    assert await books.apply() == []


async def test_what_a_replayed_chain_lacks_is_applied(books: Books) -> None:
    await books.apply(books.pay(1))
    results = await books.apply(books.pay(1), books.pay(2, "more"))
    assert [result.replayed for result in results] == [True, False]


@pytest.mark.parametrize(
    "other",
    [
        {"amount_minor": 2},
        {"debit_account": "bank"},
        {"credit_account": "bank"},
        {"currency": Currency.EUR},
        {"code": "gift"},
        {"reference": "another payment"},
    ],
)
async def test_the_same_id_with_other_content_is_refused(books: Books, other: dict[str, object]) -> None:
    await books.apply(books.pay(1))
    other = {key: books.bank if value == "bank" else value for key, value in other.items()}
    await refuse(books, ExistsWithDifferentContent, books.name("pay"), replace(books.pay(1), **other))  # type: ignore[arg-type]


async def test_the_same_id_for_a_step_of_another_kind_is_refused(books: Books) -> None:
    await books.apply(books.hold(600, expires_at=far()), books.hold(100, "other"), books.post(100, final=False))
    identifier = books.name("post")
    others: list[Transfer] = [
        books.post(100),
        books.post(99, final=False),
        books.post(100, hold="other", final=False),
        books.void("post"),
        ExpirePending(identifier, books.name("hold"), books.prefix),
        books.pay(100, "post"),
        books.hold(100, "post"),
    ]
    for other in others:
        await refuse(books, ExistsWithDifferentContent, identifier, other)
    await refuse(books, ExistsWithDifferentContent, books.name("hold"), books.hold(600))


# --------------------------------------------------------------------------------------------------------- two phases


async def test_a_hold_is_posted_in_full(books: Books) -> None:
    await books.apply(books.hold(600))
    assert await books.sums(books.wallet) == (600, 0, 0, 1000)
    assert await books.sums(books.shop) == (0, 0, 600, 0)
    await books.apply(books.post(600))
    assert await books.sums(books.wallet) == (0, 600, 0, 1000)
    assert await books.sums(books.shop) == (0, 0, 0, 600)


async def test_a_final_post_releases_the_rest(books: Books) -> None:
    await books.apply(books.hold(600))
    await books.apply(books.post(200))
    assert await books.sums(books.wallet) == (0, 200, 0, 1000)
    await refuse(books, PendingTransferAlreadyPosted, books.name("more"), books.post(1, "more"))


async def test_a_hold_is_posted_in_parts_up_to_its_amount(books: Books) -> None:
    await books.apply(books.hold(600))
    await books.apply(books.post(200, "first", final=False))
    assert await books.sums(books.wallet) == (400, 200, 0, 1000)
    await refuse(books, ExceedsPendingTransferAmount, books.name("second"), books.post(401, "second"))
    await books.apply(books.post(400, "second", final=False))
    assert await books.sums(books.wallet) == (0, 600, 0, 1000)
    await refuse(books, PendingTransferAlreadyPosted, books.name("third"), books.post(1, "third"))
    await refuse(books, PendingTransferAlreadyPosted, books.name("void"), books.void())


async def test_a_void_after_a_partial_post_releases_the_rest(books: Books) -> None:
    await books.apply(books.hold(600), books.post(200, final=False))
    await books.apply(books.void())
    assert await books.sums(books.wallet) == (0, 200, 0, 1000)
    await refuse(books, PendingTransferAlreadyVoided, books.name("again"), books.void("again"))
    await refuse(books, PendingTransferAlreadyVoided, books.name("late"), books.post(1, "late"))


async def test_an_overdue_hold_can_only_expire_and_does_so_once(books: Books) -> None:
    await books.apply(books.hold(600, expires_at=past()))
    await refuse(books, PendingTransferExpired, books.name("post"), books.post(1))
    await refuse(books, PendingTransferExpired, books.name("void"), books.void())
    expire = ExpirePending(books.name("expire"), books.name("hold"), books.prefix)
    assert await books.apply(expire) == [Applied(expire.id, False)]
    assert await books.sums(books.wallet) == UNTOUCHED
    assert await books.apply(expire) == [Applied(expire.id, True)]
    await refuse(books, PendingTransferExpired, books.name("again"), replace(expire, id=books.name("again")))
    await refuse(books, PendingTransferExpired, books.name("post"), books.post(1))


@pytest.mark.parametrize("expires", [True, False])
async def test_a_hold_does_not_expire_before_its_time(books: Books, expires: bool) -> None:
    await books.apply(books.hold(600, expires_at=far() if expires else None))
    expire = ExpirePending(books.name("expire"), books.name("hold"), books.prefix)
    await refuse(books, PendingTransferNotExpired, expire.id, expire)
    await books.apply(books.post(600))


async def test_overdue_holds_are_released_and_no_others(books: Books) -> None:
    await books.apply(
        books.hold(100, "due", expires_at=past()),
        books.hold(100, "due too", expires_at=past()),
        books.hold(100, "later", expires_at=far()),
        books.hold(100, "never"),
    )
    released = await expire_due(books.engine, limit=1000)
    assert {name for name in released if name.startswith(books.prefix)} == {books.name("due"), books.name("due too")}
    assert await books.sums(books.wallet) == (200, 0, 0, 1000)
    assert await expire_due(books.engine, limit=1000) == []


async def test_only_a_pending_transfer_has_a_second_phase(books: Books) -> None:
    await refuse(books, PendingTransferNotFound, books.name("void"), books.void())
    await books.apply(books.pay(1))
    await refuse(books, PendingTransferNotPending, books.name("void"), books.void(hold="pay"))


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(("index", "wrong"), [(0, "open"), (1, "pay"), (3, "open"), (4, "pay")])
async def test_a_refusal_tells_the_place_of_the_step_in_its_chain(books: Books, index: int, wrong: str) -> None:
    chain: list[Step] = [
        OpenAccount(books.name("till"), USD, "till"),
        books.pay(1, "first"),
        books.pay(2, "second"),
        OpenAccount(books.name("safe"), USD, "safe"),
        books.pay(3, "third"),
    ]
    chain[index] = OpenAccount(books.wallet, USD, "other") if wrong == "open" else books.pay(5000, "too much")
    with pytest.raises(LedgerError) as refusal:
        await books.apply(*chain)
    assert (refusal.value.index, refusal.value.subject) == (index, chain[index].id)
    assert await books.sums(books.wallet) == UNTOUCHED


async def test_a_covered_transfer_is_refused_where_another_one_goes_through(books: Books) -> None:
    covered = replace(books.pay(401), debit_account=books.shop, credit_account=books.bank, covered=True)
    await books.apply(books.pay(400, "sale"))
    await refuse(books, ExceedsCredits, covered.id, covered)
    await books.apply(replace(covered, covered=False))
    await refuse(books, ExistsWithDifferentContent, covered.id, covered)


async def test_a_transfer_stays_within_one_currency(books: Books) -> None:
    euros = OpenAccount(books.name("euros"), Currency.EUR, "bank")
    across = replace(books.pay(1), credit_account=euros.id)
    await refuse(books, AccountsMustHaveSameCurrency, across.id, euros, across)
    foreign = replace(books.pay(1), currency=Currency.EUR)
    await refuse(books, TransferMustHaveSameCurrencyAsAccounts, foreign.id, foreign)


async def test_a_transfer_needs_two_accounts_that_exist(books: Books) -> None:
    pay = books.pay(1)
    await refuse(books, DebitAccountNotFound, pay.id, replace(pay, debit_account=books.name("nobody")))
    await refuse(books, CreditAccountNotFound, pay.id, replace(pay, credit_account=books.name("nobody")))
    await refuse(books, AccountsMustBeDifferent, pay.id, replace(pay, credit_account=books.wallet))


async def test_a_balance_never_overflows(books: Books) -> None:
    sink = OpenAccount(books.name("sink"), USD, "sink")
    most = Post(books.name("most"), books.bank, sink.id, MAX_AMOUNT_MINOR - 1000, USD, "x", books.prefix)
    back = Post(books.name("back"), sink.id, books.shop, 1, USD, "x", books.prefix)
    await refuse(books, Overflows, books.name("again"), sink, most, back, replace(most, id=books.name("again")))


async def test_any_other_broken_rule_is_a_refusal_that_names_it(books: Books) -> None:
    with pytest.raises(BreaksRule) as refusal:
        await books.apply(replace(books.pay(1), code=""))
    assert (refusal.value.rule, refusal.value.subject) == ("label", books.name("pay"))


# ------------------------------------------------------------------------------------------------------------- queries


async def test_the_transfers_of_a_reference_come_in_order_with_the_state_of_their_holds(books: Books) -> None:
    expires_at = far()
    await books.apply(books.hold(600, expires_at=expires_at), books.post(200, final=False), books.hold(50, "next"))
    async with books.engine.connect() as connection:
        found = await transfers_of(connection, books.prefix)
    assert [transfer.id for transfer in found] == [books.name(name) for name in ("fund", "hold", "post", "next")]
    hold, post = found[1], found[2]
    assert (hold.kind, hold.hold_state, hold.remaining_minor, hold.expires_at) == (
        "pending",
        "pending",
        400,
        expires_at,
    )
    assert (post.kind, post.debit_account, post.credit_account) == ("post", books.wallet, books.shop)
    assert (post.amount_minor, post.released_minor, post.currency, post.code) == (200, 200, USD, "hold")
    assert (post.pending_id, post.final, post.hold_state) == (hold.id, False, None)


async def test_a_balance_tells_the_attributes_of_its_account(books: Books) -> None:
    async with books.engine.connect() as connection:
        found = await balance(connection, books.wallet)
    assert (found.currency, found.code, found.limit) == (USD, "user_wallet", Limit.DEBITS_MUST_NOT_EXCEED_CREDITS)
