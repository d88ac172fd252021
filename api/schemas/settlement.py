"""Settlement as operators and merchants see it."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from api.schemas.common import RequestModel, ResponseModel, Timestamp


def _text(value: Any) -> Any:
    # Pydantic would take a number, and a text of digits, for days or seconds since 1970.
    if not isinstance(value, str) or re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is None:
        raise PydanticCustomError("parameter_invalid", "must be a day such as 2026-11-22 (ISO 8601)")
    return value


Day = Annotated[date, BeforeValidator(_text)]


class SettlementBody(RequestModel):
    """A day to settle, UTC; absent: yesterday."""

    # JSON has no dates: ISO 8601 text is what a strict reading would refuse.
    day: Annotated[Day, Field(strict=False)] | None = None


class SettlementCurrency(ResponseModel):
    """A day in one currency, minor units. What is owed, fees included, is what the network's file comes to; `net_minor`
    is what the network pays for it (negative: we pay)."""

    currency: str
    records: int
    owed_to_us_minor: int
    owed_by_us_minor: int
    net_minor: int
    matched_minor: int
    fees_minor: int
    open_breaks_minor: int
    paid_out_minor: int


class SettlementDay(ResponseModel):
    """`payouts_waiting` were begun on this day or before it, for more than the merchants are owed by now."""

    object: Literal["settlement_day"] = "settlement_day"
    day: date
    file_id: str
    records: int
    verdicts: dict[str, int]
    open_breaks: int
    payouts: int
    payouts_waiting: int
    currencies: list[SettlementCurrency]
    started: Timestamp
    finished: Timestamp | None


class BreakPartObject(ResponseModel):
    """Money of a break: the account on which it lies, and the side of it that is too large."""

    account: str
    excess: str
    amount_minor: int
    currency: str


class BreakObject(ResponseModel):
    """A difference between the network's file and our books. `age_hours` counts until it ended."""

    object: Literal["break"] = "break"
    id: str
    day: date
    kind: str
    status: str
    payment: str | None
    line: int | None
    parts: list[BreakPartObject]
    outcome: str | None
    reason: str | None
    resolved_by: list[str] | None
    age_hours: float
    opened: Timestamp
    closed: Timestamp | None


class PayoutObject(ResponseModel):
    object: Literal["payout"] = "payout"
    id: str
    day: date
    merchant: str
    amount_minor: int
    currency: str
    status: str
    created: Timestamp
