"""The network's journal. The rules that bind its rows (checks, numbering, allowed steps) are in the migration."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import CHAR, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class NetworkMessage(Base):
    """One effect at the card network: what was asked, under which numbers, and what became of it.

    `kind` is authorize, sale, increment, verify, capture, refund, reverse, provision, deprovision, represent or accept.
    `state` is created, sending, answered, unanswered or abandoned. `transmission_time` is DE7 (`MMDDhhmmss`, UTC).
    `sealed_pan` is a box that only the network worker opens; a card number in clear is nowhere in this table. `final`
    marks the last capture of an authorization. `settlement_date` is the day of the network's clearing to which what was
    acknowledged belongs (DE15). `checks` is what was found of a security code and an address. `dispute` is what was
    said about a chargeback. A row without a kind is the tombstone of an effect that was given up before it was asked
    for.
    """

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("acquirer_id", "stan", "stan_day"),
        Index("ix_messages_payment_id", "payment_id"),
        Index("ix_messages_original_effect_key", "original_effect_key"),
        Index(
            "ix_messages_late_answered_at",
            "late_answered_at",
            postgresql_where=text("late_answered_at IS NOT NULL AND late_reported_at IS NULL"),
        ),
        Index(
            "ix_messages_settlement_date",
            "settlement_date",
            "effect_key",
            postgresql_where=text("settlement_date IS NOT NULL"),
        ),
        Index(
            "ix_messages_doubted",
            "sent_at",
            postgresql_where=text(
                "kind IN ('sale', 'capture', 'refund', 'reverse') AND state IN ('sending', 'unanswered')"
            ),
        ),
        {"schema": "network"},
    )

    effect_key: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str | None]
    state: Mapped[str]
    mti: Mapped[str | None] = mapped_column(CHAR(4))
    acquirer_id: Mapped[str]
    stan: Mapped[str | None] = mapped_column(CHAR(6))
    stan_day: Mapped[date | None]
    transmission_time: Mapped[str | None] = mapped_column(CHAR(10))
    rrn: Mapped[str | None] = mapped_column(CHAR(12))
    amount_minor: Mapped[int | None] = mapped_column(BigInteger)
    currency: Mapped[str | None] = mapped_column(CHAR(3))
    payment_id: Mapped[str | None]
    token_id: Mapped[str | None]
    original_effect_key: Mapped[str | None] = mapped_column(ForeignKey("network.messages.effect_key"))
    acceptor: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    sealed_pan: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    response_code: Mapped[str | None] = mapped_column(CHAR(2))
    approval_code: Mapped[str | None]
    doubt_reason: Mapped[str | None]
    late_response_code: Mapped[str | None] = mapped_column(CHAR(2))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    sent_at: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    reversal_decided_at: Mapped[datetime | None]
    late_answered_at: Mapped[datetime | None]
    late_reported_at: Mapped[datetime | None]
    final: Mapped[bool | None]
    settlement_date: Mapped[date | None]
    dispute: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    checks: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))


class ChargebackNoticeRow(Base):
    """What the network said of a dispute: stored before it is acknowledged, and told to the platform after that.

    `kind` is inquiry or chargeback, `stage` opened, won or lost. `original_effect_key` names the authorization or
    sale that is disputed. A chargeback that takes or gives back money has a day in clearing, `settlement_date`.
    """

    __tablename__ = "chargeback_notices"
    __table_args__ = (
        Index(
            "ix_chargeback_notices_settlement_date",
            "settlement_date",
            postgresql_where=text("settlement_date IS NOT NULL"),
        ),
        Index("ix_chargeback_notices_untold", "received_at", postgresql_where=text("told_at IS NULL")),
        {"schema": "network"},
    )

    chargeback_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    original_effect_key: Mapped[str] = mapped_column(ForeignKey("network.messages.effect_key"))
    payment_id: Mapped[str]
    acquirer_id: Mapped[str]
    rrn: Mapped[str] = mapped_column(CHAR(12))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(CHAR(3))
    reason_code: Mapped[str]
    issued_at: Mapped[datetime] = mapped_column(primary_key=True)
    respond_by: Mapped[datetime | None]
    settlement_date: Mapped[date | None]
    received_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    told_at: Mapped[datetime | None]
