"""What settlement posts, as pure chains; and what a capture costs a merchant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.clearing import ClearingKind
from domain.currency import Currency
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
from ledger import settlement as recipes
from ledger.fees import NO_FEE, PlatformFee
from ledger.transfers import OpenAccount, Pending, Post, Step

USD = Currency.USD
TEN = Money(1000, USD)
PAYABLE = "merchant:acct_1:coffee:payable:USD"
RECEIVABLE, SETTLEMENT = "network:receivable:USD", "network:settlement:USD"
LINE = ClearingLine("file-1:2", "pay_1", ClearingKind.PRESENTMENT, TEN)
PAYOUT = Payout("po_1", "acct_1", "coffee", TEN)
BREAK = BreakResolution("brk_1", BreakAccount.RECEIVABLE, Excess.DEBIT, BreakOutcome.WRITE_OFF, TEN)


def moves(chain: list[Step]) -> list[tuple[str, str, int, str]]:
    """(debit, credit, amount, code) of what is posted or held at once; every account that it needs is opened."""
    found = [step for step in chain if isinstance(step, Post | Pending)]
    opened = {step.id for step in chain if isinstance(step, OpenAccount)}
    assert {account for step in found for account in (step.debit_account, step.credit_account)} <= opened
    return [(step.debit_account, step.credit_account, step.amount_minor, step.code) for step in found]


@pytest.mark.parametrize("kind", [kind for kind in ClearingKind if kind is not ClearingKind.FEE])
def test_a_line_moves_what_the_network_owes_to_what_it_is_about_to_pay_or_back(kind: ClearingKind) -> None:
    ((debit, credit, amount, code),) = moves(recipes.clearing_line(replace(LINE, kind=kind)))
    assert (amount, code) == (1000, "clearing")
    assert (debit, credit) == ((SETTLEMENT, RECEIVABLE) if kind.owed_to_us else (RECEIVABLE, SETTLEMENT))


@pytest.mark.parametrize(
    ("explained", "expected"),
    [
        (1000, [(SETTLEMENT, RECEIVABLE, 1000, "clearing")]),
        (
            600,
            [
                (SETTLEMENT, RECEIVABLE, 600, "clearing"),
                (SETTLEMENT, "suspense:USD", 400, "clearing_unexplained"),
            ],
        ),
        (0, [(SETTLEMENT, "suspense:USD", 1000, "clearing_unexplained")]),
    ],
)
def test_what_of_a_line_nothing_explains_waits_in_suspense(explained: int, expected: list[Any]) -> None:
    assert moves(recipes.clearing_line(replace(LINE, explained_minor=explained))) == expected


def test_a_line_cannot_be_posted_again_with_another_explanation() -> None:
    """Whatever the explanation, the first transfer has the same id."""
    ids = set()
    for explained in (1000, 600, 0):
        chain = recipes.clearing_line(replace(LINE, explained_minor=explained))
        ids.add(next(step.id for step in chain if isinstance(step, Post)))
    assert len(ids) == 1


@pytest.mark.parametrize("explained", [-1, 1001])
def test_a_line_explains_no_more_than_there_is(explained: int) -> None:
    with pytest.raises(ValueError):
        replace(LINE, explained_minor=explained)


def test_a_fee_is_not_a_line() -> None:
    with pytest.raises(ValueError):
        replace(LINE, kind=ClearingKind.FEE)


def test_a_fee_is_kept_of_what_is_about_to_be_paid_and_may_come_back() -> None:
    fee = NetworkFee("fee-1", "pay_1", TEN)
    assert moves(recipes.network_fee(fee)) == [("fees:network:USD", SETTLEMENT, 1000, "network_fee")]
    returned = replace(fee, returned=True)
    assert moves(recipes.network_fee(returned)) == [(SETTLEMENT, "fees:network:USD", 1000, "network_fee")]


def test_the_net_of_a_day_arrives_at_the_bank_or_leaves_it() -> None:
    net = Funding("stmt-1", "day", TEN)
    assert moves(recipes.funding(net)) == [("bank:USD", SETTLEMENT, 1000, "funding")]
    assert moves(recipes.funding(replace(net, paid_by_us=True))) == [(SETTLEMENT, "bank:USD", 1000, "funding")]


def test_a_payout_is_covered_when_it_is_reserved_and_not_again_when_it_is_doubted() -> None:
    (reserved,) = [step for step in recipes.payout_reserved(PAYOUT) if isinstance(step, Pending)]
    (doubted,) = [step for step in recipes.payout_doubted(PAYOUT) if isinstance(step, Pending)]
    assert (reserved.debit_account, reserved.credit_account, reserved.covered) == (PAYABLE, "bank:USD", True)
    assert (doubted.debit_account, doubted.credit_account, doubted.covered) == (PAYABLE, "suspense:USD", False)


_LIES = {
    BreakAccount.RECEIVABLE: RECEIVABLE,
    BreakAccount.SUSPENSE: "suspense:USD",
    BreakAccount.SETTLEMENT: SETTLEMENT,
}
_BEARS = {BreakOutcome.WRITE_OFF: "loss:USD", BreakOutcome.MERCHANT: PAYABLE, BreakOutcome.NETWORK: SETTLEMENT}


@pytest.mark.parametrize("account", list(BreakAccount))
@pytest.mark.parametrize("outcome", list(BreakOutcome))
@pytest.mark.parametrize("excess", list(Excess))
def test_a_break_goes_from_where_it_lies_to_who_bears_it(
    account: BreakAccount, outcome: BreakOutcome, excess: Excess
) -> None:
    merchant = ("acct_1", "coffee") if outcome is BreakOutcome.MERCHANT else (None, None)
    arguments = ("brk_1", account, excess, outcome, TEN, *merchant)
    if account is BreakAccount.SETTLEMENT and outcome is BreakOutcome.NETWORK:
        with pytest.raises(ValueError):
            BreakResolution(*arguments)
        return
    ((debit, credit, amount, code),) = moves(recipes.break_resolution(BreakResolution(*arguments)))
    sides = (_BEARS[outcome], _LIES[account]) if excess is Excess.DEBIT else (_LIES[account], _BEARS[outcome])
    assert ((debit, credit), amount, code) == (sides, 1000, f"break_{outcome}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"account_id": "acct_1"},
        {"account_id": "acct_1", "merchant_id": "coffee"},
        {"outcome": BreakOutcome.MERCHANT},
        {"outcome": BreakOutcome.MERCHANT, "merchant_id": "coffee"},
    ],
)
def test_a_merchant_is_named_if_it_bears_the_break_and_only_then(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(BREAK, **wrong)


def test_the_parts_of_a_break_are_posted_each_by_itself() -> None:
    ids = {recipes.break_resolution(replace(BREAK, part=part))[-1].id for part in (1, 2)}
    assert len(ids) == 2


# ---------------------------------------------------------------------------------------------------------------- fees


@pytest.mark.parametrize(
    ("basis_points", "fixed", "captured", "fee"),
    [
        (0, 0, 1000, 0),
        (290, 30, 1000, 59),
        (290, 30, 10_000, 320),
        (250, 0, 20, 1),
        (250, 0, 19, 0),
        (10_000, 0, 777, 777),
        (10_000, 1, 777, 777),
        (0, 30, 12, 12),
    ],
)
def test_a_fee_is_a_share_rounded_half_up_and_a_fixed_amount_and_never_more_than_the_capture(
    basis_points: int, fixed: int, captured: int, fee: int
) -> None:
    assert PlatformFee(basis_points, {USD: fixed}).of(Money(captured, USD)) == fee


def test_a_fixed_fee_is_taken_in_its_own_currency_alone() -> None:
    assert PlatformFee(100, {USD: 30}).of(Money(1000, Currency.JPY)) == 10
    assert NO_FEE.of(TEN) == 0


@pytest.mark.parametrize(("basis_points", "fixed"), [(-1, 0), (10_001, 0), (0, -1)])
def test_a_fee_takes_between_nothing_and_all(basis_points: int, fixed: int) -> None:
    with pytest.raises(ValueError):
        PlatformFee(basis_points, {USD: fixed})
