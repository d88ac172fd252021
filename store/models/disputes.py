"""Disputes, the files of their evidence, and the network's notices (schema `platform`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Dispute(Base):
    """A dispute as its workflow last committed it; `version` is the number of its latest event.

    `taken_minor` is what the merchant does not have while the case is open or lost; `excess_minor` the part of it that
    two operators let through although the payment had less left. `due_by` is what is waited for next: the merchant's
    answer, or the network's decision. `evidence_sha256` is the digest of the manifest of the frozen evidence.
    """

    __tablename__ = "disputes"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    chargeback_id: Mapped[str] = mapped_column(unique=True)
    payment_id: Mapped[str]
    account_id: Mapped[str]
    version: Mapped[int]
    kind: Mapped[str]
    status: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    taken_minor: Mapped[int] = mapped_column(BigInteger)
    excess_minor: Mapped[int] = mapped_column(BigInteger)
    fee_minor: Mapped[int] = mapped_column(BigInteger)
    reason_code: Mapped[str]
    status_reason: Mapped[str | None]
    rrn: Mapped[str]
    due_by: Mapped[datetime | None]
    overdue: Mapped[bool] = mapped_column(server_default=text("false"))
    texts: Mapped[dict[str, Any]]
    submissions: Mapped[int]
    submitted_at: Mapped[datetime | None]
    represented_at: Mapped[datetime | None]
    evidence_sha256: Mapped[str | None]
    closed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DisputeFile(Base):
    """One file of a dispute's evidence. Where it is stored follows from the two ids; `name` is only shown."""

    __tablename__ = "dispute_files"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    dispute_id: Mapped[str]
    purpose: Mapped[str]
    name: Mapped[str]
    content_type: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    created_at: Mapped[datetime]


class DisputeNotice(Base):
    """What the network said, as it came. `event` is what it led to; null: it changed nothing."""

    __tablename__ = "dispute_notices"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    dispute_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    issued_at: Mapped[datetime] = mapped_column(primary_key=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    reason_code: Mapped[str]
    respond_by: Mapped[datetime | None]
    event: Mapped[str | None]
    received_at: Mapped[datetime]
