"""Settlement runs, the lines of clearing files, what was expected of them, breaks and payouts (schema `settlement`)."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base

_NOW = text("now()")


class SettlementRun(Base):
    """A day whose file is being compared, or was. `totals` are the file's own."""

    __tablename__ = "runs"
    __table_args__ = {"schema": "settlement"}  # noqa: RUF012

    day: Mapped[date] = mapped_column(primary_key=True)
    file_id: Mapped[str]
    sha256: Mapped[str]
    records: Mapped[int]
    totals: Mapped[list[Any]] = mapped_column(JSONB)
    started_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    finished_at: Mapped[datetime | None]


class ExpectedItem(Base):
    """Something of ours that the network has to clear. `certain` is False while nobody knows whether it will."""

    __tablename__ = "expected"
    __table_args__ = {"schema": "settlement"}  # noqa: RUF012

    effect_key: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date]
    kind: Mapped[str]
    match_key: Mapped[str]
    payment_id: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    certain: Mapped[bool]


class ClearingLineRow(Base):
    """A record of a file. `verdict` is None until it is judged, once."""

    __tablename__ = "lines"
    __table_args__ = {"schema": "settlement"}  # noqa: RUF012

    day: Mapped[date] = mapped_column(primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    match_key: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    reason_code: Mapped[str | None]
    occurred_at: Mapped[datetime]
    effect_key: Mapped[str | None]
    verdict: Mapped[str | None]


class BreakRow(Base):
    """A difference. `parts` say where its money lies; `resolved_by` are two different operators."""

    __tablename__ = "breaks"
    __table_args__ = {"schema": "settlement"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date]
    kind: Mapped[str]
    line: Mapped[int | None]
    effect_key: Mapped[str | None]
    payment_id: Mapped[str | None]
    parts: Mapped[list[Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(server_default=text("'open'"))
    outcome: Mapped[str | None]
    reason: Mapped[str | None]
    resolved_by: Mapped[list[str] | None] = mapped_column(ARRAY(TEXT))
    opened_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    closed_at: Mapped[datetime | None]


class PayoutRow(Base):
    """What a merchant gets of a day's settlement."""

    __tablename__ = "payouts"
    __table_args__ = {"schema": "settlement"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date]
    account_id: Mapped[str]
    merchant_id: Mapped[str]
    currency: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
