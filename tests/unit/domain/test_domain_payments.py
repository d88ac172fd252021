"""The life of a payment: the whole table of states and events, the amounts, and random lives."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain.currency import Currency
from domain.errors import InvalidTransition
from domain.money import MAX_AMOUNT_MINOR, Money
from domain.payments import FINAL, TRANSITIONS, UNDECIDED, Payment, PaymentEvent, PaymentStatus, apply

S, E = PaymentStatus, PaymentEvent
ASKED = Money(1000, Currency.USD)

AMOUNTS = {
    E.AUTHORIZED: 1000,
    E.SOLD: 1000,
    E.INCREASED: 100,
    E.CAPTURED: 1000,
    E.REFUND_RESERVED: 100,
    E.REFUND_SUCCEEDED: 100,
    E.REFUND_FAILED: 100,
    E.REFUND_RETURNED: 100,
}
MONEY_MOVES = {
    E.AUTHORIZED,
    E.SOLD,
    E.INCREASED,
    E.CAPTURED,
    E.REFUND_RESERVED,
    E.REFUND_SUCCEEDED,
    E.REFUND_FAILED,
    E.REFUND_RETURNED,
}
REFUNDS = {E.REFUND_RESERVED, E.REFUND_DOUBTED, E.REFUND_SUCCEEDED, E.REFUND_FAILED, E.REFUND_RETURNED}


def in_state(status: PaymentStatus) -> Payment:
    """A plausible payment in `status`, with something reserved for a refund where there can be."""
    match status:
        case S.AUTHORIZED | S.VOIDED | S.EXPIRED:
            return Payment(ASKED, status, amount_authorized_minor=1000)
        case S.CAPTURED | S.SETTLED:
            return Payment(ASKED, status, 1000, 1000, refunds_pending_minor=100)
        case _:
            return Payment(ASKED, status)


@pytest.mark.parametrize(("status", "event"), list(product(S, E)))
def test_an_event_happens_where_the_table_has_it_and_nowhere_else(status: PaymentStatus, event: PaymentEvent) -> None:
    payment = in_state(status)
    amount = AMOUNTS.get(event, 0)
    if status is S.AUTHORIZED and event in REFUNDS:
        payment = replace(payment, amount_captured_minor=400, refunds_pending_minor=100)
    if event is E.REFUND_RETURNED and payment.amount_captured_minor:
        payment = replace(payment, amount_refunded_minor=amount)
    if (status, event) in TRANSITIONS:
        assert apply(payment, event, amount).status is TRANSITIONS[status, event]
    else:
        with pytest.raises(InvalidTransition) as refusal:
            apply(payment, event, amount)
        assert refusal.value.code == "payment_unexpected_state"


def test_of_an_authorization_only_what_was_captured_can_be_refunded() -> None:
    authorized = in_state(S.AUTHORIZED)
    with pytest.raises(InvalidTransition) as refusal:
        apply(authorized, E.REFUND_RESERVED, 1)
    assert refusal.value.code == "payment_unexpected_state"
    partly = apply(authorized, E.CAPTURED, 400, final=False)
    assert apply(partly, E.REFUND_RESERVED, 400).status is S.AUTHORIZED
    with pytest.raises(InvalidTransition) as refusal:
        apply(partly, E.REFUND_RESERVED, 401)
    assert refusal.value.code == "amount_too_large"


def test_every_state_can_be_reached() -> None:
    reached = {S.PROCESSING}
    while new := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= new
    assert reached == set(S)


def test_every_event_can_happen() -> None:
    assert {event for _, event in TRANSITIONS} == set(E)


def test_a_state_is_undecided_authorized_or_final() -> None:
    assert UNDECIDED | FINAL | {S.AUTHORIZED} == set(S)
    assert not UNDECIDED & FINAL


@pytest.mark.parametrize("status", [S.VOIDED, S.EXPIRED, S.DECLINED, S.BLOCKED, S.CANCELED])
def test_what_ended_without_money_has_no_events_any_more(status: PaymentStatus) -> None:
    assert not [event for before, event in TRANSITIONS if before is status]


@pytest.mark.parametrize("status", [S.CAPTURED, S.SETTLED])
def test_of_a_captured_payment_only_refunds_move_money(status: PaymentStatus) -> None:
    moves = {event for before, event in TRANSITIONS if before is status and event in MONEY_MOVES}
    assert moves == {E.REFUND_RESERVED, E.REFUND_SUCCEEDED, E.REFUND_FAILED, E.REFUND_RETURNED}


def test_a_payment_in_doubt_is_never_captured_refunded_or_voided_by_request() -> None:
    possible = {event for before, event in TRANSITIONS if before is S.IN_DOUBT}
    assert possible == {E.REVERSED, E.NEVER_SENT, E.AUTHORIZED, E.SOLD}


@pytest.mark.parametrize("amount", [0, -1])
@pytest.mark.parametrize(
    ("status", "event"),
    [
        (S.PROCESSING, E.AUTHORIZED),
        (S.PROCESSING, E.SOLD),
        (S.IN_DOUBT, E.AUTHORIZED),
        (S.AUTHORIZED, E.CAPTURED),
        (S.CAPTURED, E.REFUND_RESERVED),
        (S.SETTLED, E.REFUND_RESERVED),
        (S.CAPTURED, E.REFUND_SUCCEEDED),
        (S.CAPTURED, E.REFUND_FAILED),
    ],
)
def test_money_moves_by_positive_amounts(status: PaymentStatus, event: PaymentEvent, amount: int) -> None:
    with pytest.raises(InvalidTransition) as refusal:
        apply(in_state(status), event, amount)
    assert refusal.value.code == "amount_invalid"


@pytest.mark.parametrize(
    ("status", "event", "limit"),
    [
        (S.PROCESSING, E.AUTHORIZED, 1000),
        (S.IN_DOUBT, E.AUTHORIZED, 1000),
        (S.AUTHORIZED, E.CAPTURED, 1000),
        (S.CAPTURED, E.REFUND_RESERVED, 900),
        (S.SETTLED, E.REFUND_RESERVED, 900),
        (S.CAPTURED, E.REFUND_SUCCEEDED, 100),
        (S.CAPTURED, E.REFUND_FAILED, 100),
    ],
)
def test_no_more_moves_than_is_left(status: PaymentStatus, event: PaymentEvent, limit: int) -> None:
    apply(in_state(status), event, limit)
    with pytest.raises(InvalidTransition) as refusal:
        apply(in_state(status), event, limit + 1)
    assert refusal.value.code == "amount_too_large"


def test_an_issuer_may_approve_less_than_was_asked_and_no_more_is_captured() -> None:
    payment = apply(Payment(ASKED), E.AUTHORIZED, 700)
    assert payment.capturable_minor == 700
    with pytest.raises(InvalidTransition):
        apply(payment, E.CAPTURED, 701)


def test_a_capture_that_is_not_final_leaves_the_rest_open() -> None:
    payment = apply(in_state(S.AUTHORIZED), E.CAPTURED, 400, final=False)
    assert (payment.status, payment.capturable_minor) == (S.AUTHORIZED, 600)


def test_a_final_capture_of_a_part_closes_the_authorization() -> None:
    payment = apply(in_state(S.AUTHORIZED), E.CAPTURED, 400)
    assert (payment.status, payment.capturable_minor, payment.refundable_minor) == (S.CAPTURED, 0, 400)


def test_the_last_minor_unit_closes_the_authorization_whatever_is_said() -> None:
    payment = apply(in_state(S.AUTHORIZED), E.CAPTURED, 400, final=False)
    assert apply(payment, E.CAPTURED, 600, final=False).status is S.CAPTURED


def test_a_partly_captured_authorization_that_expires_stays_captured() -> None:
    payment = apply(in_state(S.AUTHORIZED), E.CAPTURED, 400, final=False)
    assert apply(payment, E.EXPIRED) == Payment(ASKED, S.CAPTURED, 1000, 400)


def test_a_partly_captured_payment_is_not_voided() -> None:
    payment = apply(in_state(S.AUTHORIZED), E.CAPTURED, 400, final=False)
    with pytest.raises(InvalidTransition) as refusal:
        apply(payment, E.VOIDED)
    assert refusal.value.code == "payment_partly_captured"


def test_a_failed_refund_frees_its_amount_and_a_successful_one_does_not() -> None:
    payment = in_state(S.CAPTURED)
    assert apply(payment, E.REFUND_FAILED, 100).refundable_minor == 1000
    succeeded = apply(payment, E.REFUND_SUCCEEDED, 100)
    assert (succeeded.refundable_minor, succeeded.amount_refunded_minor, succeeded.refunds_pending_minor) == (
        900,
        100,
        0,
    )


def test_a_refund_that_is_returned_may_be_given_again() -> None:
    succeeded = apply(in_state(S.CAPTURED), E.REFUND_SUCCEEDED, 100)
    returned = apply(succeeded, E.REFUND_RETURNED, 100)
    assert (returned.amount_refunded_minor, returned.refundable_minor) == (0, 1000)
    with pytest.raises(InvalidTransition):
        apply(returned, E.REFUND_RETURNED, 1)


def test_an_authorization_that_grows_may_be_captured_to_its_new_amount_and_no_further() -> None:
    grown = apply(in_state(S.AUTHORIZED), E.INCREASED, 250)
    assert (grown.money.amount_minor, grown.capturable_minor) == (1250, 1250)
    assert apply(grown, E.CAPTURED, 1250).status is S.CAPTURED
    with pytest.raises(InvalidTransition):
        apply(grown, E.CAPTURED, 1251)


def test_an_authorization_does_not_grow_beyond_what_an_amount_can_be() -> None:
    with pytest.raises(InvalidTransition) as refusal:
        apply(in_state(S.AUTHORIZED), E.INCREASED, MAX_AMOUNT_MINOR)
    assert refusal.value.code == "amount_above_limit"


def test_an_authorization_that_was_captured_does_not_grow() -> None:
    payment = apply(in_state(S.AUTHORIZED), E.CAPTURED, 400, final=False)
    with pytest.raises(InvalidTransition) as refusal:
        apply(payment, E.INCREASED, 100)
    assert refusal.value.code == "payment_partly_captured"


def test_a_refund_in_doubt_keeps_its_amount_reserved() -> None:
    payment = in_state(S.CAPTURED)
    assert apply(payment, E.REFUND_DOUBTED) == payment


class PaymentLife(RuleBasedStateMachine):
    """Any events in any order, possible or not. `moved` is bookkeeping of the machine's own."""

    def __init__(self) -> None:
        super().__init__()
        self.payment = Payment(ASKED)
        self.captured = self.refunded = self.reserved = 0
        self.closed = False

    @initialize(amount=st.integers(1, 999_999_999_999))
    def ask(self, amount: int) -> None:
        self.payment = Payment(Money(amount, Currency.USD))

    @rule(
        event=st.sampled_from(E),
        amount=st.one_of(st.integers(-1, 30), st.integers(-1, 1_000_000_000_000)),
        final=st.booleans(),
    )
    def anything(self, event: PaymentEvent, amount: int, final: bool) -> None:
        self.attempt(event, amount, final)

    @rule(data=st.data(), final=st.booleans())
    def something_possible(self, data: st.DataObject, final: bool) -> None:
        events = [event for status, event in TRANSITIONS if status is self.payment.status]
        if not events:
            return
        event = data.draw(st.sampled_from(events))
        limit = {
            E.AUTHORIZED: self.payment.money.amount_minor,
            E.SOLD: self.payment.money.amount_minor,
            E.CAPTURED: self.payment.capturable_minor,
            E.REFUND_RESERVED: self.payment.refundable_minor,
            E.REFUND_SUCCEEDED: self.payment.refunds_pending_minor,
            E.REFUND_FAILED: self.payment.refunds_pending_minor,
            E.REFUND_RETURNED: self.payment.amount_refunded_minor,
            E.INCREASED: 1000,
        }.get(event, 0)
        self.attempt(event, data.draw(st.integers(min(limit, 1), limit)), final)

    @precondition(lambda self: self.payment.status is S.PROCESSING)
    @rule()
    def approval(self) -> None:
        self.attempt(E.AUTHORIZED, self.payment.money.amount_minor, final=True)

    @precondition(lambda self: self.payment.capturable_minor > 0)
    @rule(data=st.data(), final=st.booleans())
    def capture(self, data: st.DataObject, final: bool) -> None:
        self.attempt(E.CAPTURED, data.draw(st.integers(1, self.payment.capturable_minor)), final)

    def attempt(self, event: PaymentEvent, amount: int, final: bool) -> None:
        before = self.payment
        try:
            self.payment = apply(before, event, amount, final=final)
        except InvalidTransition:
            assert self.payment is before
            return
        assert (before.status, event) in TRANSITIONS
        if event in MONEY_MOVES:
            assert amount > 0
        match event:
            case E.CAPTURED | E.SOLD:
                self.captured += amount
            case E.REFUND_RESERVED:
                self.reserved += amount
            case E.REFUND_SUCCEEDED:
                self.refunded += amount
                self.reserved -= amount
            case E.REFUND_FAILED:
                self.reserved -= amount
            case E.REFUND_RETURNED:
                self.refunded -= amount
            case _:
                pass
        if before.status in FINAL - {S.CAPTURED}:
            assert self.payment.status is before.status
            assert self.payment.amount_captured_minor == before.amount_captured_minor

    @invariant()
    def no_more_is_given_than_was_taken(self) -> None:
        payment = self.payment
        assert payment.amount_refunded_minor >= 0
        assert payment.refunds_pending_minor >= 0
        assert payment.amount_refunded_minor + payment.refunds_pending_minor <= payment.amount_captured_minor
        assert payment.amount_captured_minor <= payment.amount_authorized_minor <= payment.money.amount_minor

    @invariant()
    def the_amounts_are_the_sums_of_what_happened(self) -> None:
        payment = self.payment
        moved = (payment.amount_captured_minor, payment.amount_refunded_minor, payment.refunds_pending_minor)
        assert moved == (self.captured, self.refunded, self.reserved)

    @invariant()
    def money_was_taken_exactly_in_the_states_that_say_so(self) -> None:
        if self.payment.status in {S.CAPTURED, S.SETTLED}:
            assert self.payment.amount_captured_minor > 0
        elif self.payment.status is not S.AUTHORIZED:
            assert self.payment.amount_captured_minor == 0


PaymentLife.TestCase.settings = settings(max_examples=150, stateful_step_count=30, database=None)
TestPaymentLife = PaymentLife.TestCase
