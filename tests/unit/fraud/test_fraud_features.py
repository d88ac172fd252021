"""Features of single payments: amounts, hours, places, history, first sightings."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.currency import Currency
from domain.money import Money
from domain.risk import RiskRequest, RiskSignals
from fraud import geo
from fraud.amounts import scaled_cents
from fraud.events import PaymentEvent, Place, event_of
from fraud.features import FEATURE_NAMES, MODEL_FEATURES, feature_values, schema_hash
from fraud.state import StreamingState

_START_MS = int(datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp() * 1000)  # a Monday
_LONDON, _NEW_YORK, _SYDNEY = Place(51.5074, -0.1278), Place(40.7128, -74.006), Place(-33.8688, 151.2093)

_REQUEST = RiskRequest(
    payment_id="pay_1",
    account_id="acct_1",
    user_id="usr_1",
    card_id="pm_1",
    card_bin="424242",
    merchant_id="M1",
    merchant_category_code="5734",
    money=Money(5000, Currency.USD),
    requested_at=datetime(2026, 11, 2, 12, tzinfo=UTC),
)


def _payment(number: int = 0, at_ms: int = _START_MS, cents: int = 1000, place: Place | None = None) -> PaymentEvent:
    return PaymentEvent(f"p{number}", "c", "u", "m", 5411, cents, at_ms, "d", "i", place)


def _values(*events: PaymentEvent) -> dict[str, float]:
    state = StreamingState()
    return [feature_values(event, state.observe(event)) for event in events][-1]


@pytest.mark.parametrize(
    ("money", "cents"),
    [
        (Money(1050, Currency.USD), 1050),
        (Money(1050, Currency.EUR), 1050),
        (Money(15_000, Currency.JPY), 10_000),
        (Money(1000, Currency.KWD), 100),
        (Money(2_500_000, Currency.VND), 10_000),
        (Money(1, Currency.JPY), 0),
    ],
)
def test_amounts_of_every_currency_come_to_one_scale(money: Money, cents: int) -> None:
    assert scaled_cents(money) == cents


def test_the_great_circle_from_new_york_to_sydney_is_about_16_000_km() -> None:
    there = geo.distance_km(_NEW_YORK.latitude, _NEW_YORK.longitude, _SYDNEY.latitude, _SYDNEY.longitude)
    back = geo.distance_km(_SYDNEY.latitude, _SYDNEY.longitude, _NEW_YORK.latitude, _NEW_YORK.longitude)
    assert there == pytest.approx(15_989, abs=10)
    assert there == pytest.approx(back)
    assert geo.distance_km(0, 0, 0, 180) == pytest.approx(math.pi * geo.EARTH_RADIUS_KM)


def test_distance_and_speed_are_those_from_the_cards_last_place() -> None:
    values = _values(_payment(place=_NEW_YORK), _payment(1, _START_MS + 3_600_000, place=_LONDON))
    assert values["distance_km"] == pytest.approx(5570, abs=10)
    assert values["speed_kmh"] == pytest.approx(values["distance_km"])


def test_without_a_place_distance_speed_and_hour_are_unknown() -> None:
    values = _values(_payment(place=_NEW_YORK), _payment(1))
    assert (values["distance_km"], values["speed_kmh"], values["hour"], values["is_night"]) == (-1, -1, -1, 0)


def test_the_hour_is_that_of_the_sun_at_the_payers_place() -> None:
    assert _values(_payment(place=Place(0, 0)))["hour"] == pytest.approx(12)
    night = _values(_payment(place=Place(0, 150)))
    assert night["hour"] == pytest.approx(22)
    assert _values(_payment(place=Place(0, -120)))["is_night"] == 1


def test_saturday_and_sunday_are_the_weekend() -> None:
    days = [_values(_payment(at_ms=_START_MS + day * 86_400_000))["is_weekend"] for day in range(7)]
    assert days == [0, 0, 0, 0, 0, 1, 1]


def test_the_amount_is_compared_with_the_cards_own_past_and_not_with_itself() -> None:
    past = [_payment(number, _START_MS + number, cents) for number, cents in enumerate((900, 1900, 3900))]
    values = _values(*past, _payment(9, _START_MS + 9, 19_900))
    assert values["card_history_count"] == 3
    assert values["card_max_amount"] == 39
    assert values["amount_to_median"] == pytest.approx(20_000 / 2000)
    assert values["amount_to_max"] == pytest.approx(20_000 / 4000)


def test_a_first_payment_has_no_history_and_everything_is_new() -> None:
    values = _values(_payment())
    assert values["is_first_payment"] == values["is_new_device_for_card"] == values["is_new_card_for_user"] == 1
    assert values["amount_to_mean"] == values["seconds_since_last"] == values["card_age_days"] == -1
    again = _values(_payment(), _payment(1, _START_MS + 5000))
    assert again["is_first_payment"] == again["is_new_device_for_card"] == again["is_new_merchant_for_card"] == 0
    assert again["seconds_since_last"] == 5


@given(
    cents=st.lists(st.integers(0, 10**14), min_size=1, max_size=6),
    step=st.integers(-(10**9), 10**9),
    latitude=st.floats(-90, 90),
    longitude=st.floats(-180, 180),
)
def test_every_feature_is_a_finite_number(cents: list[int], step: int, latitude: float, longitude: float) -> None:
    values = _values(
        *(
            _payment(
                number, _START_MS + number * step, amount, Place(latitude, longitude if number % 2 else -longitude)
            )
            for number, amount in enumerate(cents)
        )
    )
    assert all(math.isfinite(value) for value in values.values())


def test_a_request_becomes_an_event_without_its_ids() -> None:
    event = event_of(replace(_REQUEST, signals=RiskSignals("device-1", "203.0.113.7", None, 40.7, -74.0)))
    assert event.at_ms == _START_MS
    assert (event.category, event.cents, event.place) == (5734, 5000, Place(40.7, -74.0))
    assert "203.0.113.7" not in repr(event)
    assert "pm_1" not in repr(event)


def test_a_time_is_the_same_moment_in_every_zone() -> None:
    elsewhere = _REQUEST.requested_at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert event_of(replace(_REQUEST, requested_at=elsewhere)).at_ms == _START_MS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("203.0.113.7", "::ffff:203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("not an address", "not an address", True),
    ],
)
def test_addresses_count_as_one_where_one_host_can_use_both(one: str, other: str, same: bool) -> None:
    events = [event_of(replace(_REQUEST, signals=RiskSignals(ip_address=address))) for address in (one, other)]
    assert (events[0].ip == events[1].ip) is same


@pytest.mark.parametrize("place", [(math.nan, 0.0), (91.0, 0.0), (0.0, math.inf), (None, 10.0)])
def test_a_place_that_is_not_on_the_globe_counts_as_absent(place: tuple[float | None, float | None]) -> None:
    signals = RiskSignals(latitude=place[0], longitude=place[1])
    assert event_of(replace(_REQUEST, signals=signals)).place is None


def test_the_merchants_of_two_accounts_are_two_merchants() -> None:
    assert event_of(_REQUEST).merchant != event_of(replace(_REQUEST, account_id="acct_2")).merchant


def test_an_event_refuses_ids_that_would_break_a_key() -> None:
    with pytest.raises(ValueError, match="separator"):
        replace(_payment(), card="a|b")
    with pytest.raises(ValueError, match="negative"):
        replace(_payment(), cents=-1)


def test_the_schema_depends_on_names_and_order() -> None:
    assert schema_hash(("a", "b")) != schema_hash(("b", "a"))
    assert set(MODEL_FEATURES) < set(FEATURE_NAMES)
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)
