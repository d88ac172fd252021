"""A settlement that dies anywhere is settled by its next run, once; and a payout that is not covered waits to be."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.contracts import SettlementReport, Stage
from activities.settlement import SettlementActivities
from domain.clearing import ClearingFile, ClearingKind, ClearingPage, ClearingRecord, ClearingTotal
from domain.currency import Currency
from domain.payments import PaymentStatus
from ledger.accounts import receivable
from ledger.settlement import SettlementBooks
from ledger.transfers import Post, commit
from network.errors import ClearingFileInvalid
from network.journal import Effect, Journal, Kind
from network.messages import Acceptor
from settlement.store import Cleared
from store.consistency import check_deadlines, snapshot
from tests.integration.books.support import Life, Shop, open_shop
from tests.integration.network.rig import MERCHANT, usd
from tests.support.settlement_world import STAGES

# Days that no other test settles.
_DAYS = iter(date(2090, 1, 1) + timedelta(days=3 * number) for number in range(10_000))


class Killed(Exception):
    """The process ended here."""


@dataclass
class House:
    """The network's clearing service, as far as settlement sees it: checked files, page by page."""

    files: dict[date, tuple[ClearingRecord, ...]] = field(default_factory=dict)
    sha256: str = "ab" * 32
    invalid: bool = False

    async def file(self, day: date) -> ClearingFile:
        if self.invalid:
            raise ClearingFileInvalid(day, "the file is truncated")
        records = self.files[day]
        ours = sum(each.money.amount_minor for each in records if each.kind.owed_to_us)
        theirs = sum(each.money.amount_minor for each in records if not each.kind.owed_to_us)
        total = ClearingTotal(Currency.USD, len(records), ours, theirs)
        return ClearingFile(day, f"file-{day}", self.sha256, len(records), (total,) if records else ())

    async def page(self, day: date, offset: int, limit: int) -> ClearingPage:
        records = self.files[day][offset : offset + limit]
        end = offset + len(records)
        return ClearingPage(await self.file(day), records, end if end < len(self.files[day]) else None)


class MortalBooks(SettlementBooks):
    """Dies at the `number`-th call of `where`: before the books are told, or after they were and nobody knows."""

    def __init__(self, engine: AsyncEngine, where: str, number: int, *, told: bool) -> None:
        super().__init__(engine)
        self._where, self._number, self._told = where, number, told

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name != self._where:
            return found

        async def call(*given: Any) -> None:
            self._number -= 1
            dies = self._number == 0
            if dies and not self._told:
                raise Killed
            await found(*given)
            if dies:
                raise Killed

        return call


@dataclass
class Day:
    """A merchant's day at the network: payments of $10.00 each that were captured, and what the file says of them."""

    engine: AsyncEngine
    shop: Shop
    house: House
    day: date
    told: list[Cleared] = field(default_factory=list)

    async def captured(self, amount_minor: int = 1000) -> Life:
        """A captured payment, of which the file has `amount_minor`."""
        life = await self.shop.in_state(PaymentStatus.CAPTURED)
        journal = Journal(self.engine, f"{secrets.randbelow(10**9):09d}")
        authorize, capture = f"{life.id}:authorize:1", f"{life.id}:capture:1"
        for effect in (
            Effect(Kind.AUTHORIZE, authorize, usd(1000), life.id),
            Effect(Kind.CAPTURE, capture, usd(1000), life.id, None, authorize, True),
        ):
            entry = await journal.open(effect, Acceptor.of(MERCHANT, "00000001"), "box")
            assert await journal.begin(effect.effect_key)
            dated = ", settlement_date = :day" if effect.kind is Kind.CAPTURE else ""
            async with self.engine.begin() as connection:
                await connection.execute(text("SET LOCAL session_replication_role = replica"))
                await connection.execute(
                    text(
                        "UPDATE network.messages SET state = 'answered', response_code = '00',"
                        f" approval_code = '123456', answered_at = now(){dated} WHERE effect_key = :key"
                    ),
                    {"key": effect.effect_key} | ({"day": self.day} if dated else {}),
                )
        assert entry is not None
        self.cleared(ClearingKind.PRESENTMENT, amount_minor, entry.trace.rrn, entry.trace.stan)
        return life

    def cleared(self, kind: ClearingKind, amount_minor: int, rrn: str | None = None, stan: str | None = None) -> None:
        lines = self.house.files.get(self.day, ())
        at = datetime(2090, 1, 1, tzinfo=UTC)
        line = ClearingRecord(self.day, len(lines) + 1, kind, usd(amount_minor), at, rrn, stan)
        self.house.files[self.day] = (*lines, line)

    def activities(self, books: SettlementBooks | None = None) -> SettlementActivities:
        async def tell(line: Cleared, day: str) -> None:
            self.told.append(line)

        return SettlementActivities(self.engine, books or SettlementBooks(self.engine), self.house, tell)  # type: ignore[arg-type]

    async def settle(
        self, books: SettlementBooks | None = None, stages: Sequence[str] = (*STAGES, "finish")
    ) -> SettlementReport | None:
        """A run: stage after stage, page after page, as the workflow asks for them."""
        activities, report = self.activities(books), None
        for name in stages:
            cursor = None
            while True:
                stage = Stage(self.day.isoformat(), cursor)
                done = await ActivityEnvironment().run(getattr(activities, name), stage)
                if isinstance(done, SettlementReport):
                    report = done
                    break
                cursor = done.cursor
                if cursor is None:
                    break
        return report

    async def everything(self) -> list[Any]:
        """All that a settlement of the day has left anywhere, without the moments at which it did."""
        async with self.engine.connect() as connection:
            found = []
            for query in (
                "SELECT line, verdict, effect_key FROM settlement.lines WHERE day = :day ORDER BY 1",
                "SELECT id, kind, status FROM settlement.breaks WHERE day = :day ORDER BY 1",
                "SELECT id, amount_minor, status FROM settlement.payouts WHERE day = :day ORDER BY 1",
                "SELECT id, debit_account, credit_account, amount_minor, kind FROM ledger.transfers WHERE"
                " starts_with(id, 'line\\:' || :text) OR starts_with(id, 'funding\\:' || :text)"
                " OR reference IN (SELECT id FROM settlement.payouts WHERE day = :day) ORDER BY 1",
            ):
                values = {"day": self.day} | ({"text": self.day.isoformat()} if ":text" in query else {})
                found.append([tuple(row) for row in await connection.execute(text(query), values)])
        return found

    async def payouts(self) -> list[tuple[int, str]]:
        return [(amount, status) for _, amount, status in (await self.everything())[2]]


@pytest_asyncio.fixture
async def day(engine: AsyncEngine) -> Day:
    return Day(engine, await open_shop(engine), House(), next(_DAYS))


async def _filled(day: Day) -> None:
    """Two payments that agree, one of which the network cleared too little, and a fee."""
    await day.captured()
    await day.captured()
    await day.captured(900)
    day.cleared(ClearingKind.FEE, 29)


_CRASHES = (
    ("post_clearing_line", 1),
    ("post_clearing_line", 3),
    ("post_fee", 1),
    ("post_funding", 1),
    ("reserve_payout", 1),
    ("post_payout", 1),
)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(("where", "number"), _CRASHES)
async def test_a_run_that_dies_while_posting_is_made_up_for_once(day: Day, where: str, number: int, told: bool) -> None:
    await _filled(day)
    with pytest.raises((Killed, ExceptionGroup)):
        await day.settle(MortalBooks(day.engine, where, number, told=told))
    await _ends_as_if_nothing_had_happened(day)


@pytest.mark.parametrize("last", STAGES)
async def test_a_run_that_dies_between_two_stages_is_made_up_for_once(day: Day, last: str) -> None:
    await _filled(day)
    await day.settle(stages=STAGES[: STAGES.index(last) + 1])
    await _ends_as_if_nothing_had_happened(day)


async def _ends_as_if_nothing_had_happened(day: Day) -> None:
    report = await day.settle()
    assert report is not None
    assert report.verdicts == {"matched": 2, "amount": 1, "fee": 1}
    assert (report.breaks, report.open_breaks, report.payouts, report.payouts_waiting) == (1, 1, 1, 0)
    settled = await day.everything()
    _, breaks, payouts, transfers = settled
    assert [(amount, status) for _, amount, status in payouts] == [(2900, "paid")]
    assert [kind for _, kind, _ in breaks] == ["amount"]
    # Three lines, a fee, the funding of the net amount, a payout that was reserved and then posted.
    assert sorted(amount for *_, amount, _ in transfers) == [29, 900, 1000, 1000, 2871, 2900, 2900]
    assert await day.settle() == report
    assert await day.everything() == settled
    assert await day.shop.violations() == []


async def test_what_is_told_twice_is_the_same_line_each_time(day: Day) -> None:
    await _filled(day)
    await day.settle()
    first = list(day.told)
    await day.settle()
    assert day.told == first * 2


@pytest.mark.parametrize("kind", ["truncated", "changed"])
async def test_a_file_that_is_not_whole_or_not_the_same_changes_nothing(day: Day, kind: str) -> None:
    await _filled(day)
    await day.settle()
    settled = await day.everything()
    if kind == "truncated":
        day.house.invalid = True
    else:
        day.house.sha256 = "cd" * 32
        day.cleared(ClearingKind.PRESENTMENT, 5000, "632512999999", "999999")
    with pytest.raises(ApplicationError) as refusal:
        await day.settle()
    assert refusal.value.type == {"truncated": "ClearingFileInvalid", "changed": "FileChanged"}[kind]
    assert refusal.value.non_retryable
    assert await day.everything() == settled


async def test_a_payout_of_more_than_is_owed_by_now_waits_is_seen_and_is_paid_by_a_later_run(day: Day) -> None:
    await day.captured()
    with pytest.raises(Killed):
        await day.settle(MortalBooks(day.engine, "reserve_payout", 1, told=False))
    assert await day.payouts() == [(1000, "reserved")]
    await _charge_back(day, 600)

    report = await day.settle()
    assert report is not None
    assert report.payouts_waiting >= 1
    assert await day.payouts() == [(1000, "reserved")]
    [(payout_id, _, _)] = (await day.everything())[2]
    assert payout_id in await _waiting(day.engine)

    following = replace(day, day=day.day + timedelta(days=1))
    await following.captured()
    await following.settle()
    assert await day.payouts() == [(1000, "paid")]
    assert payout_id not in await _waiting(day.engine)
    # What the chargeback took is taken from what follows.
    assert await following.payouts() == [(1000, "reserved")]
    await commit(day.engine, [_moved(day, "won", 600, back=True)])
    await following.settle()
    assert await following.payouts() == [(1000, "paid")]
    assert await day.shop.violations() == []


async def _waiting(engine: AsyncEngine) -> set[str]:
    async with snapshot(engine) as connection:
        found = await check_deadlines(connection, grace=timedelta(0), limit=10_000)
    return {each.subject for each in found if each.rule == "payout_waits"}


async def _charge_back(day: Day, amount_minor: int) -> None:
    await commit(day.engine, [_moved(day, "chargeback", amount_minor)])


def _moved(day: Day, name: str, amount_minor: int, *, back: bool = False) -> Post:
    """What a chargeback takes from the merchant, or gives back."""
    owes, owed = day.shop.account("payable"), receivable(Currency.USD).id
    debit, credit = (owed, owes) if back else (owes, owed)
    identifier = f"{day.shop.account_id}:{name}"
    return Post(identifier, debit, credit, amount_minor, Currency.USD, "dispute", day.shop.account_id)
