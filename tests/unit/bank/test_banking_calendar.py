"""Banking days against the holidays that the Federal Reserve Banks have published."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from bank.calendar import EASTERN, banking_day_of, effective_date, federal_reserve_holidays, is_banking_day

# frbservices.org, "Holidays observed by the Federal Reserve System"; holidays on a Saturday are not among them.
PUBLISHED = {
    2024: "01-01 01-15 02-19 05-27 06-19 07-04 09-02 10-14 11-11 11-28 12-25",
    2025: "01-01 01-20 02-17 05-26 06-19 07-04 09-01 10-13 11-11 11-27 12-25",
    2026: "01-01 01-19 02-16 05-25 06-19 09-07 10-12 11-11 11-26 12-25",
    2027: "01-01 01-18 02-15 05-31 07-05 09-06 10-11 11-11 11-25",
    2028: "01-17 02-21 05-29 06-19 07-04 09-04 10-09 11-23 12-25",
    2029: "01-01 01-15 02-19 05-28 06-19 07-04 09-03 10-08 11-12 11-22 12-25",
    2030: "01-01 01-21 02-18 05-27 06-19 07-04 09-02 10-14 11-11 11-28 12-25",
}


@pytest.mark.parametrize("year", PUBLISHED)
def test_the_holidays_are_those_that_the_federal_reserve_observes(year: int) -> None:
    published = {date.fromisoformat(f"{year}-{day}") for day in PUBLISHED[year].split()}
    assert federal_reserve_holidays(year) == published


def test_the_friday_before_a_holiday_on_a_saturday_is_a_banking_day() -> None:
    assert is_banking_day(date(2026, 7, 3))
    assert is_banking_day(date(2027, 12, 31))  # New Year's Day 2028 is a Saturday


def test_a_holiday_on_a_sunday_is_kept_on_the_monday() -> None:
    assert not is_banking_day(date(2027, 7, 5))


@pytest.mark.parametrize(
    ("handed_over", "settles"),
    [
        ("2026-11-23T10:00", "2026-11-24"),
        ("2026-11-23T16:59", "2026-11-24"),
        ("2026-11-23T17:00", "2026-11-25"),
        ("2026-11-21T09:00", "2026-11-24"),  # a Saturday counts as the Monday after it
        ("2026-11-25T10:00", "2026-11-27"),  # over Thanksgiving
        ("2026-12-24T18:00", "2026-12-29"),  # over Christmas and the week-end
        ("2026-07-02T12:00", "2026-07-03"),
    ],
)
def test_entries_settle_on_the_banking_day_after_the_hand_over(handed_over: str, settles: str) -> None:
    moment = datetime.fromisoformat(handed_over).replace(tzinfo=EASTERN)
    assert effective_date(moment) == date.fromisoformat(settles)


def test_the_cutoff_is_in_the_banks_time_zone_in_summer_and_winter() -> None:
    assert banking_day_of(datetime.fromisoformat("2026-01-15T21:59:00+00:00")) == date(2026, 1, 15)
    assert banking_day_of(datetime.fromisoformat("2026-01-15T22:00:00+00:00")) == date(2026, 1, 16)
    assert banking_day_of(datetime.fromisoformat("2026-07-15T21:00:00+00:00")) == date(2026, 7, 16)
