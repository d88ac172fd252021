"""How a line of the network's file is judged, and where the money of a difference lies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.clearing import ClearingKind, ClearingRecord
from domain.currency import Currency
from domain.money import Money
from domain.postings import BreakAccount, Excess
from domain.settlement import BreakKind, Expected, judge, match_key

DAY = date(2026, 11, 22)
OURS = Expected("pay_1:capture:1", ClearingKind.PRESENTMENT, "pay_1", Money(1000, Currency.USD))


def line(
    amount_minor: int = 1000, kind: ClearingKind = ClearingKind.PRESENTMENT, currency: Currency = Currency.USD
) -> ClearingRecord:
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    return ClearingRecord(DAY, 1, kind, Money(amount_minor, currency), noon, "632512000001", "000001")


def test_a_line_that_is_as_expected_is_explained_whole() -> None:
    verdict = judge(line(), OURS)
    assert (verdict.difference, verdict.explained_minor, verdict.parts) == (None, 1000, ())


@pytest.mark.parametrize("mine", [None, replace(OURS, written_off=True)], ids=["unknown", "written off"])
def test_a_line_that_belongs_to_nothing_waits_in_suspense(mine: Expected | None) -> None:
    verdict = judge(line(), mine)
    assert (verdict.difference, verdict.explained_minor) == (BreakKind.MISSING_HERE, 0)
    [part] = verdict.parts
    assert (part.account, part.excess, part.money.amount_minor) == (BreakAccount.SUSPENSE, Excess.CREDIT, 1000)


def test_a_second_line_for_the_same_is_a_duplicate_and_explains_nothing() -> None:
    verdict = judge(line(), replace(OURS, settled=True))
    assert (verdict.difference, verdict.explained_minor) == (BreakKind.DUPLICATE, 0)


def test_what_is_cleared_too_little_stays_on_the_receivable() -> None:
    verdict = judge(line(900), OURS)
    [part] = verdict.parts
    assert (verdict.difference, verdict.explained_minor) == (BreakKind.AMOUNT, 900)
    assert (part.account, part.excess, part.money.amount_minor) == (BreakAccount.RECEIVABLE, Excess.DEBIT, 100)


def test_what_is_cleared_too_much_waits_in_suspense() -> None:
    verdict = judge(line(1250), OURS)
    [part] = verdict.parts
    assert (verdict.difference, verdict.explained_minor) == (BreakKind.AMOUNT, 1000)
    assert (part.account, part.excess, part.money.amount_minor) == (BreakAccount.SUSPENSE, Excess.CREDIT, 250)


def test_of_a_refund_the_sides_are_the_other_way_round() -> None:
    mine = replace(OURS, kind=ClearingKind.REFUND)
    assert judge(line(900, ClearingKind.REFUND), mine).parts[0].excess is Excess.CREDIT
    assert judge(line(1100, ClearingKind.REFUND), mine).parts[0].excess is Excess.DEBIT


def test_another_currency_leaves_ours_uncleared_and_theirs_unexplained() -> None:
    verdict = judge(line(currency=Currency.EUR), OURS)
    assert verdict.difference is BreakKind.CURRENCY
    assert {(part.account, part.money.currency) for part in verdict.parts} == {
        (BreakAccount.SUSPENSE, Currency.EUR),
        (BreakAccount.RECEIVABLE, Currency.USD),
    }


@given(ours=st.integers(1, 10**9), theirs=st.integers(1, 10**9), settled=st.booleans())
def test_whatever_differs_is_in_the_parts_to_the_last_unit(ours: int, theirs: int, settled: bool) -> None:
    mine = replace(OURS, money=Money(ours, Currency.USD), settled=settled)
    verdict = judge(line(theirs), mine)
    unexplained = sum(p.money.amount_minor for p in verdict.parts if p.account is BreakAccount.SUSPENSE)
    uncleared = sum(p.money.amount_minor for p in verdict.parts if p.account is BreakAccount.RECEIVABLE)
    assert verdict.explained_minor + unexplained == theirs
    assert settled or verdict.explained_minor + uncleared == ours


def test_a_returned_refund_is_found_by_its_refund() -> None:
    refund = match_key(ClearingKind.REFUND, "1", "2", None)
    assert match_key(ClearingKind.REFUND_RETURNED, "1", "2", None) == refund
    assert match_key(ClearingKind.PRESENTMENT, "1", "2", None) != refund
