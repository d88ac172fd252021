"""What settlement keeps: lines that are judged once, breaks that heal or are resolved by two, payouts that add up."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.clearing import Clearable, ClearingFile, ClearingKind, ClearingRecord, ClearingTotal
from domain.currency import Currency
from domain.money import Money
from domain.postings import BreakOutcome
from domain.settlement import BreakDecision, BreakKind, BreakStatus, judge
from settlement import store

# Each test has days of its own: what is settled stays.
_DAYS = iter(range(1, 10_000))


def new_day() -> date:
    return date(2040, 1, 1) + timedelta(days=3 * next(_DAYS))


def item(key: str, amount_minor: int = 1000, *, certain: bool = True) -> Clearable:
    rrn = key[-12:]
    money = Money(amount_minor, Currency.USD)
    return Clearable(key, ClearingKind.PRESENTMENT, f"pay_{key}", rrn, "000001", "123456", money, certain)


def line(day: date, number: int, of: Clearable, amount_minor: int = 1000) -> ClearingRecord:
    money = Money(amount_minor, Currency.USD)
    return ClearingRecord(day, number, of.kind, money, datetime(2040, 1, 1, tzinfo=UTC), of.rrn, of.stan)


def file_of(day: date, records: int) -> ClearingFile:
    total = ClearingTotal(Currency.USD, records, 1000 * records, 0)
    return ClearingFile(day, f"file-{day}", "ab" * 32, records, (total,))


def new_key() -> str:
    return f"{secrets.randbelow(10**12):012}"


async def _settle(engine: AsyncEngine, day: date, ours: list[Clearable], theirs: list[ClearingRecord]) -> None:
    """What the activities do with a day, page by page, without the postings."""
    async with engine.begin() as connection:
        await store.begin(connection, file_of(day, len(theirs)))
        await store.expect(connection, day, ours)
        await store.note(connection, theirs)
    async with engine.begin() as connection:
        for each in await store.unjudged(connection, day, 100):
            await store.judged(connection, each, judge(each.record, each.expected))
    async with engine.begin() as connection:
        await store.open_missing(connection, day)


async def _breaks(engine: AsyncEngine, day: date) -> dict[str, tuple[str, str]]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT coalesce(effect_key, '') AS key, kind, status FROM settlement.breaks WHERE day = :day"),
            {"day": day},
        )
        return {row.key: (row.kind, row.status) for row in rows}


async def _count(engine: AsyncEngine, day: date) -> Any:
    async with engine.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT (SELECT count(*) FROM settlement.lines WHERE day = :day),"
                " (SELECT count(*) FROM settlement.breaks WHERE day = :day)"
            ),
            {"day": day},
        )
        return tuple(found.one())


async def test_a_day_that_agrees_has_no_breaks(engine: AsyncEngine) -> None:
    day, ours = new_day(), [item(new_key()) for _ in range(3)]
    await _settle(engine, day, ours, [line(day, number, each) for number, each in enumerate(ours, 1)])
    assert await _breaks(engine, day) == {}


async def test_what_is_missing_on_either_side_is_found(engine: AsyncEngine) -> None:
    day, ours, theirs = new_day(), item(new_key()), item(new_key())
    await _settle(engine, day, [ours], [line(day, 1, theirs)])
    assert await _breaks(engine, day) == {
        ours.effect_key: ("missing_there", "open"),
        "": ("missing_here", "open"),
    }


async def test_what_nobody_knows_for_certain_is_not_missing(engine: AsyncEngine) -> None:
    day, doubtful = new_day(), item(new_key(), certain=False)
    await _settle(engine, day, [doubtful], [])
    assert await _breaks(engine, day) == {}


async def test_a_day_may_be_settled_again_and_nothing_changes(engine: AsyncEngine) -> None:
    day, ours, other = new_day(), item(new_key()), item(new_key())
    theirs = [line(day, 1, ours, 900), line(day, 2, item(new_key()))]
    await _settle(engine, day, [ours, other], theirs)
    before = await _count(engine, day), await _breaks(engine, day)
    await _settle(engine, day, [ours, other], theirs)
    assert (await _count(engine, day), await _breaks(engine, day)) == before


async def test_what_comes_a_day_late_heals_the_break_of_its_absence(engine: AsyncEngine) -> None:
    day, late = new_day(), item(new_key())
    await _settle(engine, day, [late], [])
    assert await _breaks(engine, day) == {late.effect_key: ("missing_there", "open")}
    following = day + timedelta(days=1)
    await _settle(engine, following, [], [line(following, 1, late)])
    assert await _breaks(engine, day) == {late.effect_key: ("missing_there", "healed")}
    assert await _breaks(engine, following) == {}


async def test_what_comes_after_it_was_written_off_is_a_break_of_its_own(engine: AsyncEngine) -> None:
    day, late = new_day(), item(new_key())
    await _settle(engine, day, [late], [])
    await _resolve(engine, day)
    following = day + timedelta(days=1)
    await _settle(engine, following, [], [line(following, 1, late)])
    assert ("missing_here", "open") in (await _breaks(engine, following)).values()


async def test_a_line_for_what_an_earlier_day_cleared_is_a_duplicate(engine: AsyncEngine) -> None:
    day, ours = new_day(), item(new_key())
    await _settle(engine, day, [ours], [line(day, 1, ours)])
    following = day + timedelta(days=1)
    await _settle(engine, following, [], [line(following, 1, ours)])
    assert [kind for kind, _ in (await _breaks(engine, following)).values()] == ["duplicate"]


async def test_another_file_for_a_settled_day_is_refused(engine: AsyncEngine) -> None:
    day = new_day()
    await _settle(engine, day, [], [])
    async with engine.begin() as connection:
        with pytest.raises(store.FileChanged):
            await store.begin(connection, replace(file_of(day, 0), sha256="cd" * 32))


async def _resolve(engine: AsyncEngine, day: date, operators: tuple[str, str] = ("ada", "grace")) -> str:
    async with engine.begin() as connection:
        [found] = await store.open_breaks(connection, day, "", 10)
        await store.close_break(connection, BreakDecision(found.break_id, BreakOutcome.WRITE_OFF, operators, "small"))
    return found.break_id


async def test_a_break_is_resolved_once_and_in_one_way(engine: AsyncEngine) -> None:
    day = new_day()
    await _settle(engine, day, [item(new_key())], [])
    identifier = await _resolve(engine, day)
    again = BreakDecision(identifier, BreakOutcome.WRITE_OFF, ("ada", "grace"), "small")
    async with engine.begin() as connection:
        await store.close_break(connection, again)
        with pytest.raises(store.BreakEnded):
            await store.close_break(connection, replace(again, outcome=BreakOutcome.NETWORK))
        found = await store.find_break(connection, identifier)
    assert (found.kind, found.status) == (BreakKind.MISSING_THERE, BreakStatus.RESOLVED)


async def test_the_database_wants_four_eyes_for_a_break(engine: AsyncEngine) -> None:
    day = new_day()
    await _settle(engine, day, [item(new_key())], [])
    with pytest.raises(IntegrityError, match="ck_breaks_resolution"):
        await _resolve(engine, day, ("ada", "ada"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE settlement.lines SET amount_minor = 1 WHERE day = :day",
        "UPDATE settlement.lines SET verdict = 'fee' WHERE day = :day",
        "DELETE FROM settlement.lines WHERE day = :day",
        "DELETE FROM settlement.breaks WHERE day = :day",
    ],
)
async def test_what_was_cleared_and_found_cannot_be_rewritten(engine: AsyncEngine, statement: str) -> None:
    day, ours = new_day(), item(new_key())
    await _settle(engine, day, [ours, item(new_key())], [line(day, 1, ours)])
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(text(statement), {"day": day})
