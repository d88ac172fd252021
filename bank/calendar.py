"""Banking days of the Federal Reserve, on which ACH entries settle, and the time zone in which its day runs.

The Federal Reserve moves a holiday on a Sunday to the Monday after it, and does not move one on a Saturday: the Friday
before it is a banking day. (frbservices.org, "Holiday schedules".)
"""

from __future__ import annotations

import functools
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import holidays

EASTERN = ZoneInfo("America/New_York")
# A file that comes later counts as the next banking day's. (The last window of FedACH for next-day items closes at
# 02:15; an originating bank closes its own well before.)
CUTOFF = time(17, 0)


@functools.lru_cache(maxsize=64)
def federal_reserve_holidays(year: int) -> frozenset[date]:
    """The days of `year` on which the Federal Reserve Banks are closed, week-ends aside."""
    # Federal holidays on their own days (5 U.S.C. 6103): government offices move them otherwise than the Reserve does.
    actual = holidays.country_holidays("US", years=year, observed=False)
    moved = (day + timedelta(days=1) if day.weekday() == 6 else day for day in actual)
    return frozenset(day for day in moved if day.weekday() < 5)


def is_banking_day(day: date) -> bool:
    return day.weekday() < 5 and day not in federal_reserve_holidays(day.year)


def next_banking_day(day: date, count: int = 1) -> date:
    """The `count`th banking day after `day`."""
    while count:
        day += timedelta(days=1)
        count -= is_banking_day(day)
    return day


def banking_day_of(moment: datetime) -> date:
    """The banking day on which a bank takes up what it gets at `moment` (time zone aware): today's until the cutoff."""
    local = moment.astimezone(EASTERN)
    day = local.date()
    if is_banking_day(day) and local.time() < CUTOFF:
        return day
    return next_banking_day(day)


def effective_date(moment: datetime) -> date:
    """When entries that are handed over at `moment` settle: on the banking day after the one of the hand-over."""
    return next_banking_day(banking_day_of(moment))
