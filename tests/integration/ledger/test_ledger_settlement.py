"""Settlement in the ledger: once, and with the balances that a bookkeeper expects."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.clearing import ClearingKind
from domain.currency import Currency
from domain.errors import NotFound
from domain.money import Money
from domain.postings import (
    BreakAccount,
    BreakOutcome,
    BreakResolution,
    ClearingLine,
    Excess,
    Funding,
    NetworkFee,
    Payout,
)
from ledger.accounts import payable, receivable
from ledger.errors import (
    ExceedsCredits,
    ExistsWithDifferentContent,
    PendingTransferAlreadyPosted,
    PendingTransferAlreadyVoided,
    PendingTransferNotFound,
)
from ledger.queries import balance, check_invariants
from ledger.settlement import SettlementBooks
from ledger.transfers import Post, commit
from store.engine import create_engine

# A currency that no other test settles in, so that the shared accounts are this module's own.
CHF = Currency.CHF
_SHARED = ("network:receivable", "network:settlement", "bank", "suspense", "fees:network", "loss")


@dataclass
class Desk:
    """The settlement of one merchant; shared accounts are read as what changed since the test began."""

    engine: AsyncEngine
    name: str
    before: dict[str, int]

    @property
    def books(self) -> SettlementBooks:
        return SettlementBooks(self.engine)

    @property
    def payable_id(self) -> str:
        return payable(self.name, "coffee", CHF).id

    async def captured(self, amount_minor: int, name: str = "capture") -> None:
        owed, owes = receivable(CHF), payable(self.name, "coffee", CHF)
        capture = Post(f"{self.name}:{name}", owed.id, owes.id, amount_minor, CHF, "hold", self.name)
        await commit(self.engine, [owed, owes, capture])

    async def charged_back(self, amount_minor: int) -> None:
        back = Post(f"{self.name}:back", self.payable_id, receivable(CHF).id, amount_minor, CHF, "dispute", self.name)
        await commit(self.engine, [back])

    def line(self, kind: ClearingKind, amount_minor: int, explained: int | None = None) -> ClearingLine:
        return ClearingLine(f"{self.name}:{kind}", self.name, kind, Money(amount_minor, CHF), explained)

    def payout(self, amount_minor: int, name: str = "payout") -> Payout:
        return Payout(f"{self.name}:{name}", self.name, "coffee", Money(amount_minor, CHF))

    async def owed(self) -> tuple[int, int]:
        """What the merchant is owed, and what of it a payout may take."""
        async with self.engine.connect() as connection:
            found = await balance(connection, self.payable_id)
        return found.credits_posted - found.debits_posted, found.available_minor

    async def changes(self) -> dict[str, int]:
        """Debits less credits, posted, since the test began; accounts without a change are left out."""
        now = await _balances(self.engine)
        return {name: now[name] - self.before[name] for name in now if now[name] != self.before[name]}


async def _balances(engine: AsyncEngine) -> dict[str, int]:
    found = dict.fromkeys(_SHARED, 0)
    async with engine.connect() as connection:
        for name in _SHARED:
            try:
                account = await balance(connection, f"{name}:{CHF}")
            except NotFound:
                continue
            found[name] = account.debits_posted - account.credits_posted
    return found


@pytest_asyncio.fixture
async def desk(engine: AsyncEngine) -> AsyncIterator[Desk]:
    yield Desk(engine, f"acct_{secrets.token_hex(6)}", await _balances(engine))
    async with engine.connect() as connection:
        assert await check_invariants(connection) == []


async def test_a_day_of_clearing_ends_with_the_money_in_the_bank(desk: Desk) -> None:
    await desk.captured(10_000)
    await desk.books.post_clearing_line(desk.line(ClearingKind.PRESENTMENT, 10_000))
    await desk.books.post_clearing_line(desk.line(ClearingKind.REFUND, 1_500))
    await desk.books.post_fee(NetworkFee(f"{desk.name}:fee", desk.name, Money(180, CHF)))
    assert await desk.changes() == {
        "network:receivable": 1_500,
        "network:settlement": 10_000 - 1_500 - 180,
        "fees:network": 180,
    }
    await desk.books.post_funding(Funding(f"{desk.name}:day", desk.name, Money(8_320, CHF)))
    assert await desk.changes() == {"network:receivable": 1_500, "bank": 8_320, "fees:network": 180}


async def test_each_posting_is_made_once_and_something_else_under_its_id_is_refused(desk: Desk) -> None:
    await desk.captured(10_000)
    line = desk.line(ClearingKind.PRESENTMENT, 1_000)
    fee = NetworkFee(f"{desk.name}:fee", desk.name, Money(18, CHF))
    funded = Funding(f"{desk.name}:day", desk.name, Money(500, CHF))
    resolution = BreakResolution(
        f"{desk.name}:break", BreakAccount.RECEIVABLE, Excess.DEBIT, BreakOutcome.WRITE_OFF, Money(7, CHF)
    )
    calls: list[tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]] = [
        (
            lambda: desk.books.post_clearing_line(line),
            lambda: desk.books.post_clearing_line(replace(line, explained_minor=0)),
        ),
        (lambda: desk.books.post_fee(fee), lambda: desk.books.post_fee(replace(fee, returned=True))),
        (lambda: desk.books.post_funding(funded), lambda: desk.books.post_funding(replace(funded, paid_by_us=True))),
        (
            lambda: desk.books.post_break_resolution(resolution),
            lambda: desk.books.post_break_resolution(replace(resolution, money=Money(8, CHF))),
        ),
    ]
    for once, other in calls:
        await once()
        after = await desk.changes()
        await once()
        with pytest.raises(ExistsWithDifferentContent):
            await other()
        assert await desk.changes() == after


async def test_a_line_that_nothing_explains_waits_until_its_break_is_resolved(desk: Desk) -> None:
    await desk.captured(600)
    await desk.books.post_clearing_line(desk.line(ClearingKind.PRESENTMENT, 1_000, explained=600))
    assert await desk.changes() == {"network:settlement": 1_000, "suspense": -400}
    given = BreakResolution(
        f"{desk.name}:break",
        BreakAccount.SUSPENSE,
        Excess.CREDIT,
        BreakOutcome.MERCHANT,
        Money(300, CHF),
        desk.name,
        "coffee",
    )
    back = BreakResolution(
        f"{desk.name}:break", BreakAccount.SUSPENSE, Excess.CREDIT, BreakOutcome.NETWORK, Money(100, CHF), part=2
    )
    await desk.books.post_break_resolution(given)
    await desk.books.post_break_resolution(back)
    assert await desk.changes() == {"network:settlement": 900}
    assert await desk.owed() == (900, 900)


# -------------------------------------------------------------------------------------------------------------- payouts


async def test_a_payout_is_taken_at_once_and_leaves_when_it_is_paid(desk: Desk) -> None:
    await desk.captured(1_000)
    payout = desk.payout(800)
    await desk.books.reserve_payout(payout)
    assert await desk.owed() == (1_000, 200)
    await desk.books.post_payout(payout)
    await desk.books.post_payout(payout)
    assert await desk.owed() == (200, 200)
    assert (await desk.changes())["bank"] == -800
    with pytest.raises(PendingTransferAlreadyPosted):
        await desk.books.release_payout(payout)


async def test_a_payout_that_fails_is_the_merchants_again(desk: Desk) -> None:
    await desk.captured(1_000)
    payout = desk.payout(800)
    await desk.books.reserve_payout(payout)
    await desk.books.release_payout(payout)
    await desk.books.release_payout(payout)
    assert await desk.owed() == (1_000, 1_000)
    with pytest.raises(PendingTransferAlreadyVoided):
        await desk.books.post_payout(payout)
    with pytest.raises(PendingTransferAlreadyVoided):
        await desk.books.reverse_payout(payout)
    assert "bank" not in await desk.changes()


@pytest.mark.parametrize("paid", [True, False])
async def test_a_payout_in_doubt_stays_taken_until_it_is_known(desk: Desk, paid: bool) -> None:
    await desk.captured(1_000)
    payout = desk.payout(800)
    await desk.books.reserve_payout(payout)
    await desk.books.doubt_payout(payout)
    await desk.books.doubt_payout(payout)
    assert await desk.owed() == (1_000, 200)
    if paid:
        await desk.books.post_payout(payout, in_doubt=True)
        await desk.books.post_payout(payout, in_doubt=True)
        assert (await desk.owed(), (await desk.changes())["bank"]) == ((200, 200), -800)
    else:
        await desk.books.release_payout(payout, in_doubt=True)
        assert await desk.owed() == (1_000, 1_000)
    with pytest.raises(PendingTransferAlreadyVoided):
        await (desk.books.release_payout if paid else desk.books.post_payout)(payout, in_doubt=True)


@pytest.mark.parametrize("in_doubt", [True, False])
@pytest.mark.parametrize("posted", [True, False])
async def test_a_payout_that_the_bank_returns_had_left_and_came_back(desk: Desk, in_doubt: bool, posted: bool) -> None:
    await desk.captured(1_000)
    payout = desk.payout(800)
    await desk.books.reserve_payout(payout)
    if in_doubt:
        await desk.books.doubt_payout(payout)
    if posted:
        await desk.books.post_payout(payout, in_doubt=in_doubt)
    await desk.books.reverse_payout(payout, in_doubt=in_doubt)
    await desk.books.reverse_payout(payout, in_doubt=in_doubt)
    assert await desk.owed() == (1_000, 1_000)
    assert "bank" not in await desk.changes()


async def test_a_payout_that_was_never_reserved_is_refused(desk: Desk) -> None:
    await desk.captured(1_000)
    with pytest.raises(PendingTransferNotFound):
        await desk.books.post_payout(desk.payout(800))


async def test_a_merchant_that_owes_after_a_chargeback_is_paid_when_captures_have_made_up_for_it(desk: Desk) -> None:
    await desk.captured(1_000)
    payout = desk.payout(1_000)
    await desk.books.reserve_payout(payout)
    await desk.charged_back(1_000)
    assert await desk.owed() == (0, -1_000)
    # A doubt about what is on its way can be recorded all the same.
    await desk.books.doubt_payout(payout)
    await desk.books.post_payout(payout, in_doubt=True)
    assert await desk.owed() == (-1_000, -1_000)
    await desk.captured(1_300, "later")
    with pytest.raises(ExceedsCredits):
        await desk.books.reserve_payout(desk.payout(301, "next"))
    await desk.books.reserve_payout(desk.payout(300, "next"))
    assert await desk.owed() == (300, 0)


async def test_payouts_at_once_never_take_more_than_is_owed(desk: Desk, database_url: str) -> None:
    await desk.captured(1_000)
    engine = create_engine(database_url, pool_size=12)
    try:
        books = SettlementBooks(engine)
        calls = (books.reserve_payout(desk.payout(90, f"payout {number}")) for number in range(40))
        outcomes = Counter(type(each).__name__ for each in await asyncio.gather(*calls, return_exceptions=True))
    finally:
        await engine.dispose()
    assert outcomes == {"NoneType": 11, "ExceedsCredits": 29}
    assert await desk.owed() == (1_000, 10)
