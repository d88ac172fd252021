"""Random lives of several payments at once: after every step the books say what the payments say."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from domain.ids import REFUND, new_id
from domain.payments import TRANSITIONS, Payment, PaymentEvent, PaymentStatus
from domain.records import PaymentChange
from ledger.accounts import suspense
from ledger.invariants import PAYMENT_RULES, Violation, check
from ledger.queries import balance
from store.engine import create_engine
from tests.integration.books.support import Life, Shop, amounts, open_shop

_Result = TypeVar("_Result")
S, E = PaymentStatus, PaymentEvent

_BEFORE_AUTHORIZATION = {S.PROCESSING, S.REQUIRES_ACTION, S.IN_REVIEW}
_ENDS_A_REFUND = (E.REFUND_SUCCEEDED, E.REFUND_FAILED)


def held_minor(life: Life) -> int:
    """What must be held of the card's money for a payment, by its state alone."""
    payment = life.payment
    if payment.status in _BEFORE_AUTHORIZATION:
        return payment.money.amount_minor if life.opening.hold else 0
    if payment.status is S.IN_DOUBT:
        return payment.money.amount_minor
    return payment.capturable_minor


class Lives(RuleBasedStateMachine):
    """Each run has a shop of its own; `lives` are what the payments' workflows would remember."""

    engine: AsyncEngine
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.shop: Shop = self.run(open_shop(self.engine))
        self.lives: list[Life] = []
        self.last: tuple[Life, PaymentChange] | None = None

    # ----------------------------------------------------------------------------------------------------------- steps

    @initialize(amount=st.integers(1, 10**9), currency=st.sampled_from([Currency.USD, Currency.JPY]))
    def first(self, amount: int, currency: Currency) -> None:
        self._open(amount, currency, hold=True)

    @precondition(lambda self: len(self.lives) < 4)
    @rule(
        amount=st.integers(1, 10**9),
        currency=st.sampled_from([Currency.USD, Currency.JPY]),
        hold=st.sampled_from([True, True, True, False]),
    )
    def another(self, amount: int, currency: Currency, hold: bool) -> None:
        self._open(amount, currency, hold=hold)

    @rule(data=st.data())
    def opened_again(self, data: st.DataObject) -> None:
        life = data.draw(st.sampled_from(self.lives))
        self.run(self.shop.books.open(life.opening))

    @rule(data=st.data())
    def next_event(self, data: st.DataObject) -> None:
        self._step(data, data.draw(st.sampled_from(self.lives)))

    @rule(data=st.data())
    def towards_a_capture(self, data: st.DataObject) -> None:
        """The way of most payments, so that refunds and partial captures are reached often enough."""
        for life in self.lives:
            if life.payment.status is S.PROCESSING and life.opening.hold:
                return self._record(life, E.AUTHORIZED, life.payment.money.amount_minor)
            if life.payment.status is S.AUTHORIZED:
                return self._record(life, E.CAPTURED, self._part(data, life.payment.capturable_minor), final=False)
        return None

    @precondition(lambda self: self.last is not None)
    @rule()
    def last_change_again(self) -> None:
        assert self.last is not None
        life, change = self.last
        assert self.run(self.shop.books.record(change)).standing_hold == life.standing_hold

    @rule(data=st.data())
    def authorized_and_captured_at_once(self, data: st.DataObject) -> None:
        """In one transaction; the capture still names the hold that the authorization may have replaced."""
        for life in self.lives:
            if life.payment.status is S.PROCESSING and life.opening.hold:
                authorized = life.change(E.AUTHORIZED, self._part(data, life.payment.money.amount_minor))
                after = replace(life, payment=authorized.payment, version=authorized.version)
                amount = self._part(data, authorized.payment.capturable_minor)
                captured = after.change(E.CAPTURED, amount, final=data.draw(st.booleans()))
                recorded = self.run(self.shop.books.record_all([authorized, captured]))
                life.went(captured, recorded.standing_hold)
                self.last = None
                return

    def _open(self, amount: int, currency: Currency, *, hold: bool) -> None:
        self.lives.append(self.run(self.shop.open(self.shop.asked(amount, currency, hold=hold))))

    def _step(self, data: st.DataObject, life: Life) -> None:
        events = [event for status, event in TRANSITIONS if status is life.payment.status and self._can(life, event)]
        if not events:
            return
        event = data.draw(st.sampled_from(events))
        match event:
            case E.AUTHORIZED | E.SOLD:
                self._record(life, event, self._part(data, life.payment.money.amount_minor))
            case E.CAPTURED:
                amount = self._part(data, life.payment.capturable_minor)
                self._record(life, event, amount, final=data.draw(st.booleans()))
            case E.INCREASED:
                self._record(life, event, self._part(data, 10**6))
            case E.REFUND_RETURNED:
                refund_id = data.draw(st.sampled_from(sorted(life.given)))
                self._record(life, event, life.given[refund_id], refund_id=refund_id)
                life.returned_minor += life.given.pop(refund_id)
            case E.REFUND_RESERVED:
                refund_id = new_id(REFUND)
                life.refunds[refund_id] = self._part(data, life.payment.refundable_minor)
                self._record(life, event, life.refunds[refund_id], refund_id=refund_id)
            case E.REFUND_DOUBTED:
                refund_id = data.draw(st.sampled_from(sorted(set(life.refunds) - life.doubted)))
                life.doubted.add(refund_id)
                self._record(life, event, refund_id=refund_id)
            case E.REFUND_SUCCEEDED | E.REFUND_FAILED:
                refund_id = data.draw(st.sampled_from(sorted(life.refunds)))
                self._record(life, event, life.refunds[refund_id], refund_id=refund_id)
                amount = life.refunds.pop(refund_id)
                if event is E.REFUND_SUCCEEDED:
                    life.given[refund_id] = amount
                life.doubted.discard(refund_id)
            case _:
                self._record(life, event)

    def _can(self, life: Life, event: PaymentEvent) -> bool:
        """What the table of transitions leaves to the amounts and to the refunds that are under way."""
        match event:
            case E.VOIDED | E.INCREASED:
                return life.payment.amount_captured_minor == 0
            case E.REFUND_RETURNED:
                return bool(life.given)
            case E.REFUND_RESERVED:
                return life.payment.refundable_minor > 0
            case E.REFUND_DOUBTED:
                return bool(set(life.refunds) - life.doubted)
            case E.REFUND_SUCCEEDED | E.REFUND_FAILED:
                return bool(life.refunds)
            case E.BLOCKED:
                return True
            case _:
                # A payment without a hold is one that the fraud engine blocks.
                return life.opening.hold or life.payment.status is not S.PROCESSING

    def _part(self, data: st.DataObject, limit: int) -> int:
        return data.draw(st.one_of(st.just(limit), st.integers(1, limit)))

    def _record(self, life: Life, event: PaymentEvent, amount_minor: int = 0, **options: Any) -> None:
        change = life.change(event, amount_minor, **options)
        life.went(change, self.run(self.shop.books.record(change)).standing_hold)
        self.last = life, change

    # ---------------------------------------------------------------------------------------------------------- checks

    @invariant()
    def the_rows_are_the_payments(self) -> None:
        for life in self.lives:
            row = self.run(self.shop.row(life))
            assert amounts(life.payment).items() <= row.items()
            assert row["version"] == life.version

    @invariant()
    def the_events_have_no_gaps(self) -> None:
        for life in self.lives:
            events = self.run(self.shop.events(life))
            assert [sequence for sequence, _ in events] == list(range(1, life.version + 1))

    @invariant()
    def what_is_held_is_what_should_be(self) -> None:
        for life in self.lives:
            transfers = self.run(self.shop.transfers(life))
            standing = {each.id: each for each in transfers if each.kind == "pending" and each.remaining_minor}
            refunds = {key: each for key, each in standing.items() if each.code == "refund"}
            holds = {key: each for key, each in standing.items() if each.code != "refund"}
            assert sum(each.remaining_minor or 0 for each in refunds.values()) == life.payment.refunds_pending_minor
            assert sum(each.remaining_minor or 0 for each in holds.values()) == held_minor(life)
            assert set(holds) == ({life.standing_hold} if life.standing_hold else set())
            in_doubt = life.payment.status is S.IN_DOUBT
            assert all((each.credit_account == suspense(each.currency).id) is in_doubt for each in holds.values())

    @invariant()
    def the_merchant_is_owed_what_was_captured_and_not_given_back(self) -> None:
        for currency in {life.payment.money.currency for life in self.lives if life.opening.hold}:
            payments: list[Payment] = [life.payment for life in self.lives if life.payment.money.currency is currency]
            owed = self.run(self._owed(currency))
            captured = sum(payment.amount_captured_minor for payment in payments)
            refunded = sum(payment.amount_refunded_minor for payment in payments)
            # What came back was given, and is owed again.
            returned = sum(life.returned_minor for life in self.lives if life.payment.money.currency is currency)
            pending = sum(payment.refunds_pending_minor for payment in payments)
            assert owed == (captured + returned, refunded + returned, pending)

    def teardown(self) -> None:
        async def refunds() -> dict[str, int]:
            async with self.engine.connect() as connection:
                found = await connection.execute(
                    text(
                        "SELECT payment_id, COALESCE(sum(amount_minor) FILTER (WHERE status = 'succeeded'), 0) AS given"
                        " FROM platform.refunds WHERE account_id = :account GROUP BY payment_id"
                    ),
                    {"account": self.shop.account_id},
                )
                return {row.payment_id: int(row.given) for row in found}

        given = self.run(refunds())
        assert all(given.get(life.id, 0) == life.payment.amount_refunded_minor for life in self.lives)

        async def violations() -> list[Violation]:
            async with self.engine.connect() as connection:
                found = (await check(connection, limit=10_000)).violations
            mine = {life.id for life in self.lives}
            # Other tests make payments without a ledger.
            return [each for each in found if each.rule not in PAYMENT_RULES or each.subject in mine]

        assert self.run(violations()) == []

    async def _owed(self, currency: Currency) -> tuple[int, int, int]:
        async with self.engine.connect() as connection:
            found = await balance(connection, self.shop.account("payable", currency))
        return found.credits_posted, found.debits_posted, found.debits_pending

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return self.loop.run_until_complete(work)


def test_the_books_say_what_the_payments_say_whatever_happens_to_them(database_url: str) -> None:
    Lives.loop = asyncio.new_event_loop()
    Lives.engine = create_engine(database_url, pool_size=1)
    try:
        run_state_machine_as_test(
            Lives,
            settings=settings(
                max_examples=20,
                stateful_step_count=30,
                # Looking for a smaller example takes minutes on a database; the steps are printed as they are.
                phases=[Phase.generate],
                database=None,
            ),
        )
    finally:
        Lives.loop.run_until_complete(Lives.engine.dispose())
        Lives.loop.close()
