"""The streaming state against the plain definition of its windows, and against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fraud.events import PaymentEvent, Place
from fraud.features import FEATURE_NAMES, feature_values
from fraud.state import StreamingState, next_anchor
from fraud.windows import (
    DAY_MS,
    HOUR_MS,
    MERCHANT_CELLS_MS,
    MINUTE_MS,
    PROFILE_TTL_MS,
    TIMELINE_TTL_MS,
    WINDOWS_MS,
    Anchor,
    Velocity,
)

_START_MS = 1_780_000_000_000
_sixty_examples = settings(max_examples=60)
_HOME, _SYDNEY = Place(40.71, -74.01), Place(-33.87, 151.21)


def _payment(number: int, at_ms: int, **changes: object) -> PaymentEvent:
    event = PaymentEvent(f"p{number}", "card", "user", "merchant", 5411, 1000, at_ms, "device", "ip", _HOME)
    return replace(event, **changes)  # type: ignore[arg-type]


@st.composite
def _streams(draw: st.DrawFn, *, ordered: bool = False, span_ms: int = 2 * WINDOWS_MS[3]) -> list[PaymentEvent]:
    count = draw(st.integers(1, 15))
    spans = st.one_of(st.sampled_from((0, *WINDOWS_MS)), st.integers(0, span_ms))
    offsets = draw(st.lists(spans, min_size=count, max_size=count))
    return [
        _payment(
            number,
            _START_MS + offset,
            card=draw(st.sampled_from(("x", "y", "z"))),
            cents=draw(st.integers(0, 10_000)),
            device=draw(st.sampled_from((None, "d", "e"))),
            place=draw(st.sampled_from((None, _HOME, _SYDNEY))),
        )
        for number, offset in enumerate(sorted(offsets) if ordered else offsets)
    ]


def _naive(seen: Sequence[PaymentEvent], now: PaymentEvent, window: int) -> list[PaymentEvent]:
    return [event for event in seen if now.at_ms - window < event.at_ms <= now.at_ms]


@_sixty_examples
@given(_streams(ordered=True))
def test_a_window_holds_exactly_the_payments_of_its_length_before_the_payment(events: list[PaymentEvent]) -> None:
    state = StreamingState()
    for index, event in enumerate(events):
        user = state.observe(event).user
        inside = [_naive(events[: index + 1], event, window) for window in WINDOWS_MS]
        assert user.counts == tuple(len(found) for found in inside)
        assert user.cents == tuple(sum(found.cents for found in found_in) for found_in in inside)
        assert user.cards_1h == len({found.card for found in inside[1]})
        assert user.cards_24h == len({found.card for found in inside[2]})


@_sixty_examples
@given(_streams(ordered=True))
def test_a_merchants_window_covers_its_length_and_at_most_one_cell_more(events: list[PaymentEvent]) -> None:
    state = StreamingState()
    for index, event in enumerate(events):
        counts = state.observe(event).merchant.counts
        for count, (window, cell) in zip(counts, MERCHANT_CELLS_MS, strict=True):
            assert len(_naive(events[: index + 1], event, window)) <= count
            assert count <= len(_naive(events[: index + 1], event, window + cell))


@_sixty_examples
@given(_streams(span_ms=WINDOWS_MS[3]), st.data())
def test_a_payment_asked_about_again_counts_nothing_and_sees_the_same_past(
    events: list[PaymentEvent], data: st.DataObject
) -> None:
    once, often = StreamingState(), StreamingState()
    for index, event in enumerate(events):
        expected = once.observe(event)
        assert often.observe(event) == expected
        again = data.draw(st.sampled_from(events[: index + 1]))
        often.observe(again)
        assert often.observe(event) == expected


@_sixty_examples
@given(_streams(ordered=True), _streams(ordered=True))
def test_features_at_a_time_do_not_change_when_later_payments_are_added(
    events: list[PaymentEvent], later: list[PaymentEvent]
) -> None:
    future = [
        replace(event, payment=f"later-{event.payment}", at_ms=event.at_ms + 2 * WINDOWS_MS[3] + 1) for event in later
    ]
    plain, extended = StreamingState(), StreamingState()
    rows = [tuple(feature_values(event, plain.observe(event)).values()) for event in events]
    replayed = [tuple(feature_values(event, extended.observe(event)).values()) for event in [*events, *future]]
    assert replayed[: len(rows)] == rows


@_sixty_examples
@given(_streams(ordered=True), st.integers(1, WINDOWS_MS[3] - 1))
def test_later_payments_that_arrive_early_are_in_no_window(events: list[PaymentEvent], ahead: int) -> None:
    now = _payment(1000, _START_MS)
    alone, crowded = StreamingState(), StreamingState()
    for event in events:
        crowded.observe(replace(event, at_ms=_START_MS + ahead))
    expected, found = alone.observe(now), crowded.observe(now)
    assert (found.user, found.ip) == (expected.user, expected.ip)


@_sixty_examples
@given(st.permutations(range(8)))
def test_the_order_of_arrival_does_not_change_what_the_windows_hold_in_the_end(order: list[int]) -> None:
    state = StreamingState()
    for number in order:
        state.observe(_payment(number, _START_MS + number * 30_000, cents=100 * number))
    last = state.observe(_payment(100, _START_MS + 300_000))
    assert last.card.counts == (1, 9, 9, 9)
    assert last.card.cents[1] == sum(100 * number for number in range(8)) + 1000


def test_a_payment_leaves_a_window_at_exactly_its_length() -> None:
    state = StreamingState()
    state.observe(_payment(0, _START_MS))
    assert state.observe(_payment(1, _START_MS + MINUTE_MS - 1)).card.counts[0] == 2
    assert state.observe(_payment(2, _START_MS + MINUTE_MS)).card.counts[0] == 2


def test_an_absent_device_has_no_velocity() -> None:
    past = StreamingState().observe(_payment(0, _START_MS, device=None, ip=None))
    assert past.device == past.ip == Velocity()


def test_a_payment_dated_far_ahead_makes_nothing_be_forgotten() -> None:
    state = StreamingState()
    first = state.observe(_payment(0, _START_MS), arrived_ms=_START_MS)
    state.observe(_payment(1, _START_MS + 2 * PROFILE_TTL_MS), arrived_ms=_START_MS)
    assert state.observe(_payment(0, _START_MS), arrived_ms=_START_MS) == first
    assert state.observe(_payment(2, _START_MS), arrived_ms=_START_MS).history == (1000, 1000)


def test_an_answer_and_a_card_are_forgotten_by_the_clock() -> None:
    state, payment = StreamingState(), _payment(0, _START_MS)
    first = state.observe(payment, arrived_ms=_START_MS)
    assert state.observe(payment, arrived_ms=_START_MS + TIMELINE_TTL_MS) == first
    again = state.observe(payment, arrived_ms=_START_MS + TIMELINE_TTL_MS + 1)
    assert again.history == (1000,)
    much_later = _START_MS + TIMELINE_TTL_MS + 2 + PROFILE_TTL_MS
    assert state.observe(_payment(1, much_later), arrived_ms=much_later).history == ()


def test_a_payment_that_comes_again_after_its_answer_is_forgotten_is_in_its_windows_once() -> None:
    state = StreamingState()
    for number, arrived_days in ((0, 0), (1, 5), (0, 9)):
        past = state.observe(_payment(number, _START_MS), arrived_ms=_START_MS + arrived_days * DAY_MS)
    assert past.card.counts == (2, 2, 2, 2)


def test_declines_are_counted_once_for_an_hour() -> None:
    state = StreamingState()
    refused = _payment(0, _START_MS)
    state.record_decline(refused)
    state.record_decline(refused)
    within = state.observe(_payment(1, _START_MS + HOUR_MS - 1))
    after = state.observe(_payment(2, _START_MS + HOUR_MS))
    assert (within.card_declines, within.device_declines, within.ip_declines) == (1, 1, 1)
    assert after.card_declines == 0


def test_an_impossible_jump_does_not_move_the_cards_place() -> None:
    at_home = Anchor(_HOME, _START_MS)
    abroad = _payment(1, _START_MS + 5 * MINUTE_MS, place=_SYDNEY)
    assert next_anchor(at_home, abroad) == at_home
    next_day = replace(abroad, at_ms=_START_MS + DAY_MS)
    assert next_anchor(at_home, next_day) == Anchor(_SYDNEY, _START_MS + DAY_MS)


def test_the_names_of_the_features_are_those_that_are_computed_in_their_order() -> None:
    event = _payment(0, _START_MS)
    assert tuple(feature_values(event, StreamingState().observe(event))) == FEATURE_NAMES
