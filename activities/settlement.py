"""A day's settlement: the network's file, our journal, the ledger and the payments, each asked page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import contracts
from activities.contracts import BreakRef, OpenBreak, SettlementReport, Stage, StageDone
from activities.errors import translated
from domain.clearing import ClearingKind
from domain.errors import NotFound
from domain.money import Money
from domain.postings import BreakOutcome, BreakResolution, ClearingLine, Funding, NetworkFee
from domain.settlement import Break, BreakDecision, BreakStatus, Verdict, judge
from ledger.errors import ExceedsCredits
from ledger.settlement import SettlementBooks
from network.clearing import ClearingHouse
from network.clearing_journal import clearable
from settlement import store
from settlement.store import Cleared, Line
from store.queries import find_payment

_PAGE = 500
_POSTINGS_AT_ONCE = 4

# Tells a payment's workflow of a line that cleared something of it, or took a refund back.
Tell = Callable[[Cleared, str], Awaitable[None]]


class SettlementActivities(contracts.SettlementActivities):
    def __init__(self, engine: AsyncEngine, books: SettlementBooks, clearing: ClearingHouse, tell: Tell) -> None:
        self._engine = engine
        self._books = books
        self._clearing = clearing
        self._tell = tell

    @activity.defn(name="settlement.begin")
    async def begin(self, stage: Stage) -> StageDone:
        with translated():
            file = await self._clearing.file(_day(stage))
            async with self._engine.begin() as connection:
                await store.begin(connection, file)
        return StageDone()

    @activity.defn(name="settlement.gather_ours")
    async def gather_ours(self, stage: Stage) -> StageDone:
        with translated():
            page = await clearable(self._engine, _day(stage), stage.cursor or "", _PAGE)
            async with self._engine.begin() as connection:
                await store.expect(connection, _day(stage), page.items)
        return StageDone(page.next_after)

    @activity.defn(name="settlement.gather_theirs")
    async def gather_theirs(self, stage: Stage) -> StageDone:
        with translated():
            page = await self._clearing.page(_day(stage), int(stage.cursor or 0), _PAGE)
            async with self._engine.begin() as connection:
                await store.note(connection, page.records)
        return StageDone(None if page.next_offset is None else str(page.next_offset))

    @activity.defn(name="settlement.match")
    async def match(self, stage: Stage) -> StageDone:
        """Judges the next lines. What they say is posted before they count as judged, and posting again is the same."""
        with translated():
            async with self._engine.connect() as connection:
                lines = await store.unjudged(connection, _day(stage), _PAGE)
            verdicts = _judged(lines)
            gate = asyncio.Semaphore(_POSTINGS_AT_ONCE)

            async def post(line: Line, verdict: Verdict | None) -> None:
                async with gate:
                    await self._post(line, verdict)

            async with asyncio.TaskGroup() as group:
                for line, verdict in verdicts:
                    group.create_task(post(line, verdict))
            async with self._engine.begin() as connection:
                for line, verdict in verdicts:
                    await store.judged(connection, line, verdict)
        return StageDone(str(lines[-1].record.line) if len(lines) == _PAGE else None)

    async def _post(self, line: Line, verdict: Verdict | None) -> None:
        record = line.record
        identifier, subject = f"line:{record.day}:{record.line}", f"clearing:{record.day}"
        if verdict is None:
            await self._books.post_fee(NetworkFee(identifier, subject, record.money))
            return
        if line.expected is not None:
            subject = line.expected.payment_id
        posting = ClearingLine(identifier, subject, record.kind, record.money, verdict.explained_minor)
        await self._books.post_clearing_line(posting)

    @activity.defn(name="settlement.find_missing")
    async def find_missing(self, stage: Stage) -> StageDone:
        async with self._engine.begin() as connection:
            await store.open_missing(connection, _day(stage))
        return StageDone()

    @activity.defn(name="settlement.tell_payments")
    async def tell_payments(self, stage: Stage) -> StageDone:
        async with self._engine.connect() as connection:
            lines = await store.cleared(connection, _day(stage), int(stage.cursor or 0), _PAGE)
        for line in lines:
            await self._tell(line, stage.day)
        return StageDone(str(lines[-1].line) if len(lines) == _PAGE else None)

    @activity.defn(name="settlement.list_breaks")
    async def list_breaks(self, stage: Stage) -> StageDone:
        async with self._engine.connect() as connection:
            found = await store.open_breaks(connection, _day(stage), stage.cursor or "", _PAGE)
        return StageDone(
            found[-1].break_id if len(found) == _PAGE else None, tuple(_open_break(each) for each in found)
        )

    @activity.defn(name="settlement.pay_out")
    async def pay_out(self, stage: Stage) -> StageDone:
        """Books the day's net amount as received, and pays every merchant what was cleared for it."""
        day = _day(stage)
        with translated():
            await self._fund(day)
            async with self._engine.begin() as connection:
                for payout in await store.due_payouts(connection, day):
                    await store.add_payout(connection, day, payout)
                begun = await store.reserved_payouts(connection, day)
            for payout in begun:
                try:
                    await self._books.reserve_payout(payout)
                except ExceedsCredits:
                    # A refund or a chargeback took the money meanwhile. It stays begun, the next day's settlement tries
                    # it again, and until then the invariant `payout_waits` shows it to operators.
                    activity.logger.warning("payout %s is more than is owed by now", payout.payout_id)
                    continue
                await self._books.post_payout(payout)
                async with self._engine.begin() as connection:
                    await store.paid(connection, payout)
        return StageDone()

    async def _fund(self, day: date) -> None:
        for total in (await self._clearing.file(day)).totals:
            if total.net_minor:
                money = Money(abs(total.net_minor), total.currency)
                identifier = f"funding:{day}:{total.currency}"
                await self._books.post_funding(Funding(identifier, f"clearing:{day}", money, total.net_minor < 0))

    @activity.defn(name="settlement.finish")
    async def finish(self, stage: Stage) -> SettlementReport:
        async with self._engine.begin() as connection:
            row = await store.finish(connection, _day(stage))
        return SettlementReport(
            stage.day,
            row.file_id,
            row.records,
            row.verdicts,
            row.breaks,
            row.open_breaks,
            row.payouts,
            row.payouts_waiting,
        )

    @activity.defn(name="settlement.check_break")
    async def check_break(self, found: BreakRef) -> None:
        """Returns when the break has ended by itself: the network's next file explained it."""
        with translated():
            async with self._engine.connect() as connection:
                now = await store.find_break(connection, found.break_id)
        if now.status is BreakStatus.OPEN:
            raise ApplicationError(f"a {now.kind} of {now.day} is open", type=f"break_{now.kind}")

    @activity.defn(name="settlement.resolve_break")
    async def resolve_break(self, decision: BreakDecision) -> None:
        with translated():
            async with self._engine.begin() as connection:
                found = await store.find_break(connection, decision.break_id)
                account_id, merchant_id = None, None
                if decision.outcome is BreakOutcome.MERCHANT:
                    account_id, merchant_id = await _merchant_of(connection, found)
                await store.close_break(connection, decision)
            for number, part in enumerate(found.parts, 1):
                await self._books.post_break_resolution(
                    BreakResolution(
                        found.break_id,
                        part.account,
                        part.excess,
                        decision.outcome,
                        part.money,
                        account_id,
                        merchant_id,
                        number,
                    )
                )


def _day(stage: Stage) -> date:
    return date.fromisoformat(stage.day)


def _judged(lines: list[Line]) -> list[tuple[Line, Verdict | None]]:
    """Each line with what it is; a fee has no verdict. Of two lines here for one thing the first one clears it."""
    taken: set[tuple[str, ClearingKind]] = set()
    judged: list[tuple[Line, Verdict | None]] = []
    for line in lines:
        kind, mine = line.record.kind, line.expected
        if kind is ClearingKind.FEE:
            judged.append((line, None))
            continue
        if mine is not None:
            cleared = (mine.effect_key, kind)
            mine = replace(mine, settled=mine.settled or cleared in taken)
            taken.add(cleared)
        judged.append((line, judge(line.record, mine)))
    return judged


def _open_break(found: Break) -> OpenBreak:
    parts = ", ".join(f"{part.money} too much {part.excess} on {part.account}" for part in found.parts)
    return OpenBreak(
        break_id=found.break_id,
        summary=f"{found.kind} of {found.day}: {parts}; payment {found.payment_id or 'unknown'}",
        at_risk_minor=sum(part.money.amount_minor for part in found.parts),
        has_merchant=found.payment_id is not None,
    )


async def _merchant_of(connection: AsyncConnection, found: Break) -> tuple[str, str]:
    """Who bears a break of a payment.

    Raises:
        NotFound: it is not known which payment the break is of.
    """
    payment = None if found.payment_id is None else await find_payment(connection, found.payment_id)
    if payment is None:
        raise NotFound("payment of break", found.break_id)
    return payment["account_id"], payment["merchant"]["merchant_id"]
