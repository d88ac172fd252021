"""The row of a payment, its ledger entries and its events change together, once, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from domain.ids import REFUND, new_id
from domain.money import Money
from domain.payments import TRANSITIONS, PaymentEvent, PaymentStatus
from domain.records import Opened, PaymentChange, Recorded
from domain.risk import RiskAction, RiskDecision
from ledger.accounts import platform_fees
from ledger.books import OutOfOrder, PaymentBooks
from ledger.errors import ExceedsPendingTransferAmount, LedgerError
from ledger.fees import PlatformFee
from store.engine import create_engine
from tests.integration.books.support import NOW, Life, Shop, amounts

S, E = PaymentStatus, PaymentEvent

# (state, event) → the transfers that the event writes, for a payment of 1000: (kind, debit, credit, amount, released).
HOLD = ("pending", "receivable", "payable", 1000, 0)
LETS_GO = ("void", "receivable", "payable", 0, 1000)
DOUBT_ENDS = ("void", "receivable", "suspense", 0, 1000)
ENTRIES: dict[tuple[PaymentStatus, PaymentEvent], list[tuple[str, str, str, int, int]]] = {
    (S.PROCESSING, E.STEP_UP_REQUIRED): [],
    (S.PROCESSING, E.REVIEW_REQUIRED): [],
    (S.PROCESSING, E.BLOCKED): [LETS_GO],
    (S.PROCESSING, E.AUTHORIZED): [],
    (S.PROCESSING, E.SOLD): [("post", "receivable", "payable", 1000, 1000)],
    (S.PROCESSING, E.DECLINED): [LETS_GO],
    (S.PROCESSING, E.DOUBTED): [LETS_GO, ("pending", "receivable", "suspense", 1000, 0)],
    (S.REQUIRES_ACTION, E.STEP_UP_PASSED): [],
    (S.REQUIRES_ACTION, E.STEP_UP_FAILED): [LETS_GO],
    (S.REQUIRES_ACTION, E.CANCELED): [LETS_GO],
    (S.IN_REVIEW, E.REVIEW_APPROVED): [],
    (S.IN_REVIEW, E.REVIEW_REJECTED): [LETS_GO],
    (S.IN_REVIEW, E.CANCELED): [LETS_GO],
    (S.IN_DOUBT, E.REVERSED): [DOUBT_ENDS],
    (S.IN_DOUBT, E.NEVER_SENT): [DOUBT_ENDS],
    (S.IN_DOUBT, E.AUTHORIZED): [DOUBT_ENDS, HOLD],
    (S.IN_DOUBT, E.SOLD): [DOUBT_ENDS, HOLD, ("post", "receivable", "payable", 1000, 1000)],
    (S.AUTHORIZED, E.INCREASED): [LETS_GO, ("pending", "receivable", "payable", 1200, 0)],
    (S.AUTHORIZED, E.CAPTURED): [("post", "receivable", "payable", 1000, 1000)],
    (S.AUTHORIZED, E.VOIDED): [LETS_GO],
    (S.AUTHORIZED, E.EXPIRED): [LETS_GO],
    (S.CAPTURED, E.SETTLED): [],
    **{
        (status, event): entries
        for status in (S.AUTHORIZED, S.CAPTURED, S.SETTLED)
        for event, entries in {
            E.REFUND_RESERVED: [("pending", "payable", "receivable", 300, 0)],
            E.REFUND_DOUBTED: [],
            E.REFUND_SUCCEEDED: [("post", "payable", "receivable", 300, 300)],
            E.REFUND_FAILED: [("void", "payable", "receivable", 0, 300)],
            E.REFUND_RETURNED: [("posted", "receivable", "payable", 300, 0)],
        }.items()
    },
}


REFUNDS = {E.REFUND_RESERVED, E.REFUND_DOUBTED, E.REFUND_SUCCEEDED, E.REFUND_FAILED, E.REFUND_RETURNED}


def test_the_entries_of_every_possible_event_are_in_the_table() -> None:
    assert set(ENTRIES) == set(TRANSITIONS)


@pytest.mark.parametrize(("status", "event"), list(ENTRIES))
async def test_an_event_writes_its_row_its_entries_and_itself(
    shop: Shop, status: PaymentStatus, event: PaymentEvent
) -> None:
    life = await shop.in_state(status)
    amount, options = await _prepared(shop, life, event)
    before = len(await shop.transfers(life))
    await shop.record(life, event, amount, **options)

    written = [
        (transfer.kind, transfer.debit_account, transfer.credit_account, transfer.amount_minor, transfer.released_minor)
        for transfer in (await shop.transfers(life))[before:]
    ]
    assert written == [
        (kind, shop.account(debit), shop.account(credit), moved, released)
        for kind, debit, credit, moved, released in ENTRIES[status, event]
    ]
    assert amounts(life.payment).items() <= (await shop.row(life)).items()
    assert (await shop.events(life))[-1] == (life.version, event)
    assert await shop.violations() == []


async def _prepared(shop: Shop, life: Life, event: PaymentEvent) -> tuple[int, dict[str, Any]]:
    """What `event` moves; a refund is reserved first where it needs one, and a part captured before it."""
    if event in REFUNDS and life.payment.status is S.AUTHORIZED:
        await shop.record(life, E.CAPTURED, 400, final=False)
    if event is E.REFUND_RESERVED:
        refund_id = life.id.replace("pay_", "re_")
        life.refunds[refund_id] = 300
        return 300, {"refund_id": refund_id}
    if event is E.INCREASED:
        return 200, {}
    if event is E.REFUND_RETURNED:
        refund_id = await shop.reserve(life, 300)
        await shop.record(life, E.REFUND_SUCCEEDED, 300, refund_id=refund_id)
        return 300, {"refund_id": refund_id}
    if event in (E.REFUND_DOUBTED, E.REFUND_SUCCEEDED, E.REFUND_FAILED):
        return 0 if event is E.REFUND_DOUBTED else 300, {"refund_id": await shop.reserve(life, 300)}
    return (1000 if event in (E.AUTHORIZED, E.SOLD, E.CAPTURED) else 0), {}


# -------------------------------------------------------------------------------------------------------------- amounts


async def test_an_opening_holds_the_amount_and_keeps_the_fraud_decision(shop: Shop) -> None:
    life = await shop.open()
    (hold,) = await shop.transfers(life)
    assert (hold.kind, hold.amount_minor, hold.code) == ("pending", 1000, "hold")
    assert (hold.debit_account, hold.credit_account) == (shop.account("receivable"), shop.account("payable"))
    assert life.standing_hold == hold.id
    row = await shop.row(life)
    assert row["version"] == 1
    assert row["metadata"] == {"order": "42"}
    assert row["merchant"]["merchant_id"] == "coffee-42"
    assert await shop.events(life) == [(1, "created")]
    (risk,) = await shop.rows("SELECT * FROM platform.risk_decisions WHERE payment_id = :id", life)
    assert (risk["action"], risk["reasons"], risk["features"]) == ("allow", ["low_amount"], {"amount": 10.5})


async def test_a_payment_that_is_to_be_blocked_holds_nothing(shop: Shop) -> None:
    life = await shop.open(shop.asked(hold=False))
    assert life.standing_hold is None
    await shop.record(life, E.BLOCKED)
    assert await shop.transfers(life) == []


@pytest.mark.parametrize("status", [S.PROCESSING, S.IN_DOUBT])
async def test_an_approval_of_less_holds_what_was_approved(shop: Shop, status: PaymentStatus) -> None:
    life = await shop.in_state(status)
    await shop.record(life, E.AUTHORIZED, 700)
    holds = [(each.remaining_minor, each.credit_account) for each in await shop.transfers(life) if each.remaining_minor]
    assert holds == [(700, shop.account("payable"))]
    await shop.record(life, E.CAPTURED, 700)
    assert life.standing_hold is None


async def test_captures_in_parts_take_from_one_hold_until_nothing_is_left(shop: Shop) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    hold = life.standing_hold
    for amount, left in ((400, 600), (250, 350), (350, 0)):
        await shop.record(life, E.CAPTURED, amount, final=False)
        assert life.standing_hold == (hold if left else None)
        (held,) = [each for each in await shop.transfers(life) if each.kind == "pending"]
        assert held.remaining_minor == left
    assert life.payment.status is S.CAPTURED


async def test_a_final_capture_of_a_part_lets_the_rest_go(shop: Shop) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    await shop.record(life, E.CAPTURED, 400)
    assert [(each.amount_minor, each.released_minor) for each in await shop.transfers(life)][-1] == (400, 1000)
    assert life.standing_hold is None


async def test_an_authorization_that_expires_after_a_capture_lets_only_the_rest_go(shop: Shop) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    await shop.record(life, E.CAPTURED, 400, final=False)
    await shop.record(life, E.EXPIRED)
    assert (await shop.row(life))["status"] == S.CAPTURED
    assert [(each.kind, each.released_minor) for each in await shop.transfers(life)][-1] == ("void", 600)


async def test_refunds_stand_side_by_side(shop: Shop) -> None:
    life = await shop.in_state(S.CAPTURED)
    first, second, third = [await shop.reserve(life, amount) for amount in (300, 300, 400)]
    await shop.record(life, E.REFUND_DOUBTED, refund_id=second)
    await shop.record(life, E.REFUND_SUCCEEDED, 400, refund_id=third)
    await shop.record(life, E.REFUND_FAILED, 300, refund_id=second)
    await shop.record(life, E.REFUND_SUCCEEDED, 300, refund_id=first)
    rows = await shop.rows("SELECT id, status, amount_minor FROM platform.refunds WHERE payment_id = :id", life)
    assert {row["id"]: (row["status"], row["amount_minor"]) for row in rows} == {
        first: ("succeeded", 300),
        second: ("failed", 300),
        third: ("succeeded", 400),
    }
    assert (await shop.row(life))["amount_refunded_minor"] == 700


async def test_what_a_refund_gave_as_its_reason_stays(shop: Shop) -> None:
    life = await shop.in_state(S.CAPTURED)
    refund_id = life.id.replace("pay_", "re_")
    life.refunds[refund_id] = 300
    change = life.change(E.REFUND_RESERVED, 300, refund_id=refund_id)
    assert change.refund is not None
    recorded = await shop.books.record(replace(change, refund=replace(change.refund, reason="damaged")))
    life.went(change, recorded.standing_hold)
    await shop.record(life, E.REFUND_SUCCEEDED, 300, refund_id=refund_id)
    (row,) = await shop.rows("SELECT * FROM platform.refunds WHERE payment_id = :id", life)
    assert (row["reason"], row["status"]) == ("damaged", "succeeded")


@pytest.mark.parametrize("currency", [Currency.JPY, Currency.KWD])
async def test_every_currency_has_accounts_of_its_own(shop: Shop, currency: Currency) -> None:
    life = await shop.open(shop.asked(1050, currency))
    await shop.record(life, E.AUTHORIZED, 1050)
    await shop.record(life, E.CAPTURED, 1050)
    accounts = {(each.debit_account, each.credit_account) for each in await shop.transfers(life)}
    assert accounts == {(shop.account("receivable", currency), shop.account("payable", currency))}


# --------------------------------------------------------------------------------------------------- once, and in order


async def test_an_opening_that_is_repeated_changes_nothing(shop: Shop) -> None:
    life = await shop.open()
    before = await shop.everything(life)
    assert await shop.books.open(life.opening) == Opened(life.standing_hold, life.opening.risk)
    assert await shop.everything(life) == before


async def test_an_opening_can_be_looked_up_with_the_decision_that_was_recorded(shop: Shop) -> None:
    features = {"amount": 10.5, "whole": 3.0, "large": 1e22, "small": -1e-9}
    risk = RiskDecision(RiskAction.STEP_UP, 1.0, ("new_device", "far_away"), "r1", None, features, "model_missing")
    held = await shop.open(replace(shop.asked(), risk=risk))
    unscored = replace(risk, action=RiskAction.BLOCK, score=None)
    blocked = await shop.open(replace(shop.asked(hold=False), risk=unscored))
    assert await shop.books.opened(held.id) == Opened(f"{held.id}:hold", risk)
    assert await shop.books.opened(blocked.id) == Opened(None, unscored)
    assert await shop.books.opened(shop.asked().payment_id) is None


async def test_another_payment_under_the_same_id_is_refused(shop: Shop) -> None:
    life = await shop.open()
    before = await shop.everything(life)
    for other in (
        replace(life.opening, money=replace(life.opening.money, amount_minor=1001)),
        replace(life.opening, money=replace(life.opening.money, currency=Currency.EUR)),
        replace(life.opening, merchant=replace(life.opening.merchant, merchant_id="tea-1")),
        replace(life.opening, user_id="usr_other"),
        replace(life.opening, account_id="acct_other"),
    ):
        with pytest.raises(OutOfOrder):
            await shop.books.open(other)
    assert await shop.everything(life) == before


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
async def test_a_payment_that_is_judged_anew_keeps_its_first_decision(shop: Shop, first: bool, second: bool) -> None:
    """The worker died before the workflow could remember the decision, and the limits are unavailable now, say."""
    life = await shop.open(shop.asked(hold=first))
    other = replace(shop.asked(hold=second), payment_id=life.id)
    before = await shop.everything(life)
    assert await shop.books.open(other) == Opened(life.standing_hold, life.opening.risk)
    assert await shop.everything(life) == before
    assert [each.kind for each in await shop.transfers(life)] == ["pending"] * first


async def test_an_opening_that_comes_again_after_the_authorization_has_grown_is_the_same(shop: Shop) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    await shop.record(life, E.INCREASED, 200)
    assert await shop.books.open(life.opening) == Opened(f"{life.id}:hold", life.opening.risk)


async def test_an_opening_that_comes_again_after_the_payment_went_on_names_what_was_opened(shop: Shop) -> None:
    life = await shop.in_state(S.CAPTURED)
    before = await shop.everything(life)
    again = await shop.books.open(replace(life.opening, risk=replace(life.opening.risk, score=0.9)))
    assert again == Opened(f"{life.id}:hold", life.opening.risk)
    assert await shop.everything(life) == before


@pytest.mark.parametrize(("status", "event"), list(ENTRIES))
async def test_a_change_that_is_repeated_changes_nothing_and_answers_the_same(
    shop: Shop, status: PaymentStatus, event: PaymentEvent
) -> None:
    life = await shop.in_state(status)
    amount, options = await _prepared(shop, life, event)
    change = life.change(event, amount, **options)
    first = await shop.books.record(change)
    before = await shop.everything(life)
    assert await shop.books.record(change) == first
    assert await shop.everything(life) == before


async def test_a_change_that_is_repeated_long_after_it_changes_nothing(shop: Shop) -> None:
    life = await shop.in_state(S.PROCESSING)
    early = life.change(E.AUTHORIZED, 1000)
    life.went(early, (await shop.books.record(early)).standing_hold)
    await shop.record(life, E.CAPTURED, 1000)
    before = await shop.everything(life)
    await shop.books.record(early)
    assert await shop.everything(life) == before


async def test_a_change_that_skips_another_is_refused(shop: Shop) -> None:
    life = await shop.in_state(S.PROCESSING)
    before = await shop.everything(life)
    with pytest.raises(OutOfOrder):
        await shop.books.record(replace(life.change(E.AUTHORIZED, 1000), version=3))
    assert await shop.everything(life) == before


async def test_a_change_of_a_payment_that_was_never_opened_is_refused(shop: Shop) -> None:
    opening = shop.asked()
    unopened = Life(opening, (await shop.open()).payment)
    with pytest.raises(OutOfOrder):
        await shop.books.record(unopened.change(E.DECLINED))
    assert await shop.everything(unopened) == [[], [], [], [], []]


@pytest.mark.parametrize("other", [E.DECLINED, E.DOUBTED])
async def test_another_event_under_a_version_that_is_taken_is_refused(shop: Shop, other: PaymentEvent) -> None:
    life = await shop.in_state(S.PROCESSING)
    change, conflicting = life.change(E.AUTHORIZED, 1000), life.change(other)
    await shop.books.record(change)
    before = await shop.everything(life)
    with pytest.raises(OutOfOrder):
        await shop.books.record(conflicting)
    assert await shop.everything(life) == before


async def test_the_same_event_with_another_amount_is_not_taken_for_a_repetition(shop: Shop) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    change, conflicting = life.change(E.CAPTURED, 400), life.change(E.CAPTURED, 500)
    await shop.books.record(change)
    before = await shop.everything(life)
    with pytest.raises(OutOfOrder):
        await shop.books.record(conflicting)
    assert await shop.everything(life) == before


async def test_the_same_event_of_another_refund_is_not_taken_for_a_repetition(shop: Shop) -> None:
    life = await shop.in_state(S.CAPTURED)
    first, second = [await shop.reserve(life, 300) for _ in range(2)]
    change = life.change(E.REFUND_SUCCEEDED, 300, refund_id=first)
    conflicting = life.change(E.REFUND_SUCCEEDED, 300, refund_id=second)
    await shop.books.record(change)
    with pytest.raises(OutOfOrder):
        await shop.books.record(conflicting)


async def test_of_one_change_recorded_twenty_times_at_once_there_is_one(shop: Shop, database_url: str) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    change = life.change(E.CAPTURED, 400, final=False)
    engine = create_engine(database_url, pool_size=20)
    try:
        answers = await asyncio.gather(*(PaymentBooks(engine).record(change) for _ in range(20)))
    finally:
        await engine.dispose()
    assert set(answers) == {Recorded(life.standing_hold)}
    assert await shop.events(life) == [(1, "created"), (2, "authorized"), (3, "captured")]
    assert [each.amount_minor for each in await shop.transfers(life) if each.kind == "post"] == [400]


async def test_of_one_opening_twenty_times_at_once_there_is_one(shop: Shop, database_url: str) -> None:
    opening = shop.asked()
    engine = create_engine(database_url, pool_size=20)
    try:
        answers = await asyncio.gather(*(PaymentBooks(engine).open(opening) for _ in range(20)))
    finally:
        await engine.dispose()
    life = Life(opening, (await shop.open()).payment)
    assert answers == [Opened(f"{life.id}:hold", opening.risk)] * 20
    assert await shop.events(life) == [(1, "created")]
    assert len(await shop.transfers(life)) == 1


async def test_of_two_different_changes_at_once_exactly_one_is_recorded(shop: Shop) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    changes = [life.change(E.CAPTURED, 1000), life.change(E.VOIDED)]
    answers = await asyncio.gather(*(shop.books.record(change) for change in changes), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["OutOfOrder", "Recorded"]
    assert len(await shop.events(life)) == 3
    assert await shop.violations() == []


# ----------------------------------------------------------------------------------------------------------------- fees


FEE = PlatformFee(290, {Currency.USD: 30})


async def _fees(shop: Shop, life: Life) -> list[tuple[str, str, int]]:
    found = [each for each in await shop.transfers(life) if each.code == "platform_fee"]
    assert {each.debit_account for each in found} <= {shop.account("payable")}
    return [(each.id.removeprefix(f"{life.id}:"), each.credit_account, each.amount_minor) for each in found]


async def test_each_capture_costs_its_fee_and_a_refund_does_not_bring_it_back(shop: Shop) -> None:
    books = PaymentBooks(shop.engine, FEE)
    life = await shop.in_state(S.AUTHORIZED)
    for amount in (300, 500):
        change = life.change(E.CAPTURED, amount, final=amount == 500)
        life.went(change, (await books.record(change)).standing_hold)
        assert await books.record(change) == Recorded(life.standing_hold)
    refund_id = await shop.reserve(life, 800)
    await shop.record(life, E.REFUND_SUCCEEDED, 800, refund_id=refund_id)
    earned = platform_fees(Currency.USD).id
    assert await _fees(shop, life) == [("v3:fee", earned, 39), ("v4:fee", earned, 45)]
    assert await shop.violations() == []


@pytest.mark.parametrize("sold", [1000, 400])
async def test_a_sale_costs_the_fee_of_a_capture(shop: Shop, sold: int) -> None:
    life = await shop.open()
    await PaymentBooks(shop.engine, FEE).record(life.change(E.SOLD, sold))
    assert await _fees(shop, life) == [("v2:fee", platform_fees(Currency.USD).id, FEE.of(Money(sold, Currency.USD)))]


# ---------------------------------------------------------------------------------------------- several events at once


def sale(life: Life, authorized: int = 1000, captured: int = 1000) -> list[PaymentChange]:
    """The authorization and the capture of a payment, the second of which still names the hold of the opening."""
    authorization = life.change(E.AUTHORIZED, authorized)
    after = replace(life, payment=authorization.payment, version=authorization.version)
    return [authorization, after.change(E.CAPTURED, captured)]


async def test_two_events_are_recorded_at_once_as_they_are_one_by_one(shop: Shop) -> None:
    together, apart = await shop.open(), await shop.open()
    changes = sale(together)
    changes[0] = replace(changes[0], approval_code="123456", capture_before=NOW)
    assert await shop.books.record_all(changes) == Recorded(None)
    for change in sale(apart):
        await shop.books.record(change)
    assert await shop.events(together) == [(1, "created"), (2, "authorized"), (3, "captured")]
    assert [(each.kind, each.amount_minor) for each in await shop.transfers(together)] == [
        (each.kind, each.amount_minor) for each in await shop.transfers(apart)
    ]
    row, other = await shop.row(together), await shop.row(apart)
    assert (row["version"], row["status"], row["amount_captured_minor"]) == (3, "captured", 1000)
    assert (row["approval_code"], row["capture_before"]) == ("123456", NOW)
    differ = {"id", "approval_code", "capture_before"}
    assert {key: row[key] for key in row if key not in differ} == {
        key: other[key] for key in other if key not in differ
    }


async def test_the_hold_flows_from_one_event_to_the_next(shop: Shop) -> None:
    """The approval of less makes a new hold, and it is that one which the capture takes from."""
    life = await shop.open()
    authorization, capture = sale(life, 700, 300)
    recorded = await shop.books.record_all(
        [authorization, replace(capture, final=False, payment=replace(capture.payment, status=S.AUTHORIZED))]
    )
    assert recorded == Recorded(f"{life.id}:v2:hold")
    (held,) = [each for each in await shop.transfers(life) if each.remaining_minor]
    assert (held.id, held.remaining_minor) == (recorded.standing_hold, 400)
    assert await shop.violations() == []


async def test_several_events_that_are_repeated_change_nothing(shop: Shop) -> None:
    life = await shop.open()
    changes = sale(life)
    first = await shop.books.record_all(changes)
    before = await shop.everything(life)
    assert await shop.books.record_all(changes) == first
    assert await shop.everything(life) == before


async def test_what_is_missing_of_several_events_is_recorded(shop: Shop) -> None:
    life = await shop.open()
    changes = sale(life, 700, 700)
    await shop.books.record(changes[0])
    assert await shop.books.record_all(changes) == Recorded(None)
    assert await shop.events(life) == [(1, "created"), (2, "authorized"), (3, "captured")]
    assert await shop.violations() == []


async def test_of_several_events_none_is_recorded_if_the_last_is_refused(shop: Shop) -> None:
    life = await shop.open()
    before = await shop.everything(life)
    authorization, capture = sale(life, 700, 700)
    with pytest.raises(ExceedsPendingTransferAmount) as refusal:
        await shop.books.record_all([authorization, replace(capture, amount_minor=701)])
    assert refusal.value.subject == f"{life.id}:v3:capture"
    assert await shop.everything(life) == before


async def test_a_refund_may_be_reserved_and_paid_at_once(shop: Shop) -> None:
    life = await shop.in_state(S.CAPTURED)
    refund_id = new_id(REFUND)
    life.refunds[refund_id] = 300
    reserved = life.change(E.REFUND_RESERVED, 300, refund_id=refund_id)
    assert reserved.refund is not None
    reserved = replace(reserved, refund=replace(reserved.refund, reason="damaged"))
    after = replace(life, payment=reserved.payment, version=reserved.version)
    await shop.books.record_all([reserved, after.change(E.REFUND_SUCCEEDED, 300, refund_id=refund_id)])
    (row,) = await shop.rows("SELECT * FROM platform.refunds WHERE payment_id = :id", life)
    assert (row["status"], row["reason"], row["amount_minor"]) == ("succeeded", "damaged", 300)
    assert (await shop.row(life))["amount_refunded_minor"] == 300


async def test_only_consecutive_changes_of_one_payment_are_recorded_together(shop: Shop) -> None:
    life, other = await shop.open(), await shop.open()
    first, second = sale(life)
    for changes in ([], [second, first], [first, replace(second, version=4)], [first, sale(other)[1]]):
        with pytest.raises(ValueError):
            await shop.books.record_all(changes)
    with pytest.raises(OutOfOrder):
        await shop.books.record_all([second])
    assert await shop.events(life) == [(1, "created")]


# ------------------------------------------------------------------------------------------------------- all or nothing


@pytest.mark.parametrize(
    "table", ["platform.payments", "platform.outbox", "platform.refunds", "ledger.transfers", "ledger.accounts"]
)
async def test_a_crash_behind_any_write_of_a_change_leaves_nothing(shop: Shop, table: str) -> None:
    life = await shop.in_state(S.CAPTURED)
    refund_id = life.id.replace("pay_", "re_")
    life.refunds[refund_id] = 300
    change = life.change(E.REFUND_RESERVED, 300, refund_id=refund_id)
    before = await shop.everything(life)
    async with _ends_its_session(shop.engine, table):
        with pytest.raises(DBAPIError):
            await shop.books.record(change)
    assert await shop.everything(life) == before
    await shop.books.record(change)
    assert (await shop.events(life))[-1] == (4, "refund_reserved")


@pytest.mark.parametrize(
    "table", ["platform.payments", "platform.risk_decisions", "platform.outbox", "ledger.transfers", "ledger.accounts"]
)
async def test_a_crash_behind_any_write_of_an_opening_leaves_nothing(shop: Shop, table: str) -> None:
    life = Life(shop.asked(), (await shop.open()).payment)
    async with _ends_its_session(shop.engine, table):
        with pytest.raises(DBAPIError):
            await shop.books.open(life.opening)
    assert await shop.everything(life) == [[], [], [], [], []]
    assert await shop.books.opened(life.id) is None
    await shop.books.open(life.opening)
    assert await shop.events(life) == [(1, "created")]


@asynccontextmanager
async def _ends_its_session(engine: AsyncEngine, table: str) -> AsyncIterator[None]:
    """Whoever writes to `table` loses its connection right behind that write, as in a crash of PostgreSQL."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN NULL; END $$"
            )
        )
        await connection.execute(
            text(f"CREATE TRIGGER z_ends AFTER INSERT OR UPDATE ON {table} EXECUTE FUNCTION end_session()")
        )
    try:
        yield
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION end_session CASCADE"))


async def test_an_answer_that_was_lost_behind_the_commit_is_given_again(shop: Shop, database_url: str) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    change = life.change(E.CAPTURED, 1000)
    engine = create_engine(database_url, pool_size=1)

    @sqlalchemy_event.listens_for(engine.sync_engine, "after_cursor_execute")
    def lose_the_answer(connection: Any, *_: Any) -> None:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    try:
        with pytest.raises(DBAPIError):
            await PaymentBooks(engine).record(change)
    finally:
        await engine.dispose()
    assert await shop.books.record(change) == Recorded(None)
    assert [each.amount_minor for each in await shop.transfers(life) if each.kind == "post"] == [1000]


async def test_what_the_ledger_refuses_is_not_recorded_at_all(shop: Shop) -> None:
    life = await shop.in_state(S.AUTHORIZED)
    before = await shop.everything(life)
    change = replace(life.change(E.VOIDED), standing_hold="no-such-hold")
    with pytest.raises(LedgerError):
        await shop.books.record(change)
    assert await shop.everything(life) == before


async def test_the_database_itself_refuses_to_give_more_than_was_taken(shop: Shop) -> None:
    """Whatever code runs: the constraints stand below it."""
    life = await shop.in_state(S.CAPTURED)
    before = await shop.everything(life)
    for payment in (
        replace(life.payment, amount_refunded_minor=1001),
        replace(life.payment, amount_refunded_minor=600, refunds_pending_minor=401),
        replace(life.payment, amount_captured_minor=1001),
        replace(life.payment, amount_authorized_minor=1001),
        replace(life.payment, refunds_pending_minor=-1),
    ):
        with pytest.raises(DBAPIError, match="ck_payments"):
            await shop.books.record(replace(life.change(E.SETTLED), payment=payment))
    assert await shop.everything(life) == before


async def test_a_refund_is_not_recorded_for_a_payment_that_it_does_not_belong_to(shop: Shop) -> None:
    first, second = await shop.in_state(S.CAPTURED), await shop.in_state(S.CAPTURED)
    refund_id = await shop.reserve(first, 300)
    second.refunds[refund_id] = 300
    before = await shop.everything(first)
    with pytest.raises(LedgerError):
        await shop.books.record(second.change(E.REFUND_RESERVED, 300, refund_id=refund_id))
    assert await shop.everything(first) == before


async def test_moments_are_kept_exactly(shop: Shop) -> None:
    life = await shop.in_state(S.PROCESSING)
    before = NOW + timedelta(days=7, microseconds=1)
    change = replace(life.change(E.AUTHORIZED, 1000), capture_before=before, approval_code="123456", rrn="632512000001")
    life.went(change, (await shop.books.record(change)).standing_hold)
    await shop.record(life, E.CAPTURED, 1000)
    row = await shop.row(life)
    assert (row["capture_before"], row["approval_code"], row["rrn"]) == (before, "123456", "632512000001")
    assert (row["created_at"], row["updated_at"]) == (NOW, NOW + timedelta(seconds=2))
