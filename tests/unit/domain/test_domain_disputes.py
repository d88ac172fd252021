"""The life of a dispute: the whole table of states, kinds and events, what notices do, deadlines, and random lives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.currency import Currency
from domain.disputes import (
    FINAL,
    REMINDERS,
    RESPONDING,
    TRANSITIONS,
    ChargebackNotice,
    Dispute,
    DisputeEvent,
    DisputeKind,
    DisputeReason,
    DisputeStatus,
    Holding,
    NoticeStage,
    apply,
    event_of,
    opened,
    reason_of,
    reminders,
    respond_by,
)
from domain.errors import InvalidTransition
from domain.money import Money

S, E, K = DisputeStatus, DisputeEvent, DisputeKind
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MONEY = Money(1050, Currency.USD)

# In which states a dispute of each kind can be.
STATES = {
    K.INQUIRY: {S.INQUIRY, S.UNDER_REVIEW, S.WON},
    K.CHARGEBACK: {S.NEEDS_RESPONSE, S.UNDER_REVIEW, S.WON, S.LOST},
}
POSSIBLE = [Dispute(MONEY, kind, status) for kind, states in STATES.items() for status in sorted(states)]
OF_INQUIRIES = {E.ESCALATED, E.OVERDUE, E.LAPSED}
OF_CHARGEBACKS = {E.DECISION_OVERDUE, E.DECIDED_LOST, E.REOPENED}


def notice(
    kind: DisputeKind = K.CHARGEBACK, stage: NoticeStage = NoticeStage.OPENED, **fields: object
) -> ChargebackNotice:
    given_fields = {"issued_at": NOW, "money": MONEY} | fields
    return ChargebackNotice("cb-1", "pay_1", "632512000001", reason_code="10.4", kind=kind, stage=stage, **given_fields)  # type: ignore[arg-type]


def can_happen(dispute: Dispute, event: DisputeEvent) -> bool:
    if (event in OF_INQUIRIES and dispute.kind is not K.INQUIRY) or (
        event in OF_CHARGEBACKS and dispute.kind is not K.CHARGEBACK
    ):
        return False
    return (dispute.status, event) in TRANSITIONS


@pytest.mark.parametrize(("dispute", "event"), list(product(POSSIBLE, E)), ids=str)
def test_an_event_happens_where_the_table_has_it_for_this_kind_and_nowhere_else(
    dispute: Dispute, event: DisputeEvent
) -> None:
    if can_happen(dispute, event):
        after = apply(dispute, event)
        assert after.status is TRANSITIONS[dispute.status, event]
        assert after.status in STATES[after.kind]
    else:
        with pytest.raises(InvalidTransition) as refusal:
            apply(dispute, event)
        assert refusal.value.code == "dispute_unexpected_state"


def test_every_state_can_be_reached() -> None:
    reached = {S.INQUIRY}
    while new := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= new
    assert reached == set(S)


def test_every_event_but_the_creation_can_happen() -> None:
    assert {event for _, event in TRANSITIONS} == set(E) - {E.CREATED}


def test_a_dispute_is_answered_reviewed_or_decided() -> None:
    assert RESPONDING | FINAL | {S.UNDER_REVIEW} == set(S)
    assert not RESPONDING & FINAL


@pytest.mark.parametrize("event", [E.EVIDENCE_ADDED, E.SUBMITTED])
def test_evidence_is_taken_and_submitted_only_while_an_answer_is_awaited(event: DisputeEvent) -> None:
    assert {before for before, possible in TRANSITIONS if possible is event} == RESPONDING


def test_only_the_network_changes_a_decided_case() -> None:
    events = {event for before, event in TRANSITIONS if before in FINAL}
    assert events == {E.REPRESENTED, E.ESCALATED, E.REOPENED, E.DECIDED_WON, E.DECIDED_LOST}


def test_an_inquiry_moves_no_money_and_its_chargeback_does() -> None:
    inquiry = opened(notice(K.INQUIRY))
    assert (inquiry.status, inquiry.holding) == (S.INQUIRY, Holding.MERCHANT)
    chargeback = apply(inquiry, E.ESCALATED, Money(700, Currency.USD))
    assert (chargeback.status, chargeback.kind, chargeback.holding) == (S.NEEDS_RESPONSE, K.CHARGEBACK, Holding.ASIDE)
    assert chargeback.money == Money(700, Currency.USD)


@pytest.mark.parametrize(
    ("event", "holding"),
    [
        (E.DECIDED_WON, Holding.MERCHANT),
        (E.DECIDED_LOST, Holding.ISSUER),
        (E.EXPIRED, Holding.ISSUER),
        (E.ACCEPTED, Holding.ISSUER),
    ],
)
def test_the_outcome_says_who_has_the_money(event: DisputeEvent, holding: Holding) -> None:
    chargeback = opened(notice())
    assert chargeback.holding is Holding.ASIDE
    assert apply(chargeback, event).holding is holding


def test_an_inquiry_is_overdue_once_and_stays_open() -> None:
    late = apply(opened(notice(K.INQUIRY)), E.OVERDUE)
    assert (late.status, late.overdue) == (S.INQUIRY, True)
    with pytest.raises(InvalidTransition):
        apply(late, E.OVERDUE)
    assert apply(late, E.ESCALATED).overdue is False


def test_a_won_chargeback_that_comes_back_is_answered_again() -> None:
    won = Dispute(MONEY, K.CHARGEBACK, S.WON, submissions=1)
    assert event_of(won, notice()) is E.REOPENED
    again = apply(won, E.REOPENED, Money(700, Currency.USD))
    assert (again.status, again.holding, again.money.amount_minor) == (S.NEEDS_RESPONSE, Holding.ASIDE, 700)
    assert apply(again, E.SUBMITTED).submissions == 2


def test_an_inquiry_and_its_chargeback_are_answered_once_each() -> None:
    answered = apply(opened(notice(K.INQUIRY)), E.SUBMITTED)
    with pytest.raises(InvalidTransition):
        apply(answered, E.SUBMITTED)
    again = apply(apply(answered, E.ESCALATED), E.SUBMITTED)
    assert again.submissions == 2


# -------------------------------------------------------------------------------------------------------------- notices


@pytest.mark.parametrize(
    ("before", "after", "event"),
    [
        (notice(), notice(stage=NoticeStage.WON), E.DECIDED_WON),
        (notice(), notice(stage=NoticeStage.LOST), E.DECIDED_LOST),
        (notice(), notice(), None),
        (notice(), notice(K.INQUIRY), None),
        (notice(K.INQUIRY), notice(), E.ESCALATED),
        (notice(K.INQUIRY), notice(K.INQUIRY), None),
        (notice(K.INQUIRY), notice(K.INQUIRY, NoticeStage.WON), E.DECIDED_WON),
        (notice(K.INQUIRY), notice(K.INQUIRY, NoticeStage.LOST), None),
    ],
    ids=lambda value: f"{value.kind}-{value.stage}" if isinstance(value, ChargebackNotice) else str(value),
)
def test_a_further_notice_leads_to_an_event_or_to_nothing(
    before: ChargebackNotice, after: ChargebackNotice, event: DisputeEvent | None
) -> None:
    assert event_of(opened(before), after) is event


@pytest.mark.parametrize("status", [S.WON, S.LOST])
def test_the_same_decision_again_changes_nothing_and_the_opposite_one_counts(status: DisputeStatus) -> None:
    decided = Dispute(MONEY, K.CHARGEBACK, status)
    won, lost = notice(stage=NoticeStage.WON), notice(stage=NoticeStage.LOST)
    same, other = (won, lost) if status is S.WON else (lost, won)
    assert event_of(decided, same) is None
    assert event_of(decided, other) is not None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("10.4", DisputeReason.FRAUDULENT),
        ("11.3", DisputeReason.AUTHORIZATION),
        ("12.6.1", DisputeReason.PROCESSING_ERROR),
        ("13.1", DisputeReason.CONSUMER),
        ("4837", DisputeReason.FRAUDULENT),
        ("4853", DisputeReason.CONSUMER),
        ("F29", DisputeReason.GENERAL),
        ("", DisputeReason.GENERAL),
    ],
)
def test_a_reason_code_is_told_in_words(code: str, reason: DisputeReason) -> None:
    assert reason_of(code) is reason


# ------------------------------------------------------------------------------------------------------------ deadlines


def test_the_networks_deadline_counts_where_it_gives_one() -> None:
    assert respond_by(notice()) == NOW + timedelta(days=20)
    assert respond_by(notice(K.INQUIRY)) == NOW + timedelta(days=10)
    assert respond_by(notice(respond_by=NOW + timedelta(days=3))) == NOW + timedelta(days=3)


def test_reminders_come_seven_days_two_days_and_one_day_before() -> None:
    due_by = NOW + timedelta(days=20)
    assert reminders(due_by, NOW) == [(due_by - timedelta(days=left), left) for left in (7, 2, 1)]
    assert [left for _, left in reminders(NOW + timedelta(days=2), NOW)] == [1]


@given(st.timedeltas(timedelta(0), timedelta(days=30)))
def test_reminders_are_in_order_and_all_to_come(left: timedelta) -> None:
    moments = [moment for moment, _ in reminders(NOW + left, NOW)]
    assert moments == sorted(moments)
    assert all(NOW < moment < NOW + left for moment in moments)
    assert len(moments) == sum(ahead < left for ahead in REMINDERS)


class DisputeLife(RuleBasedStateMachine):
    """Any events in any order: what is refused changes nothing, and the money is never in two places."""

    @initialize(kind=st.sampled_from(K))
    def open(self, kind: DisputeKind) -> None:
        self.dispute = opened(notice(kind))
        self.answers = 0
        self.openings = 1

    @rule(event=st.sampled_from([event for event in E if event is not E.CREATED]))
    def something(self, event: DisputeEvent) -> None:
        before = self.dispute
        try:
            self.dispute = apply(before, event)
        except InvalidTransition:
            assert not can_happen(before, event) or before.overdue
            return
        self.answers += event is E.SUBMITTED
        self.openings += event in (E.ESCALATED, E.REOPENED)
        if before.kind is K.CHARGEBACK:
            assert self.dispute.kind is K.CHARGEBACK

    @rule(kind=st.sampled_from(K), stage=st.sampled_from(NoticeStage))
    def the_network_says(self, kind: DisputeKind, stage: NoticeStage) -> None:
        event = event_of(self.dispute, notice(kind, stage))
        if event is not None:
            self.dispute = apply(self.dispute, event)
            self.openings += event in (E.ESCALATED, E.REOPENED)

    @invariant()
    def the_state_suits_the_kind(self) -> None:
        assert self.dispute.status in STATES[self.dispute.kind]

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        assert self.dispute.submissions == self.answers <= self.openings

    @invariant()
    def the_money_is_where_the_state_says(self) -> None:
        holding, status = self.dispute.holding, self.dispute.status
        assert (holding is Holding.ISSUER) == (status is S.LOST)
        if self.dispute.kind is K.INQUIRY or status is S.WON:
            assert holding is Holding.MERCHANT


DisputeLife.TestCase.settings = settings(max_examples=100, stateful_step_count=20, database=None)
TestDisputeLife = DisputeLife.TestCase
