"""Accounts, users, payment methods, payments, refunds, idempotency keys and the outbox (schema `platform`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base

_NOW = text("now()")


class Account(Base):
    """A client of the platform, e.g. a wallet app or a shop. Everything below belongs to one."""

    __tablename__ = "accounts"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class ApiKey(Base):
    """A bearer key. Only the SHA-256 of its secret is kept: 256 random bits need no slow hash.

    `scopes` None is all that the role may do; `replaced_by` names the key that it was rolled to.
    """

    __tablename__ = "api_keys"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    secret_hash: Mapped[bytes]
    role: Mapped[str]
    kind: Mapped[str] = mapped_column(server_default=text("'secret'"))
    name: Mapped[str | None]
    scopes: Mapped[list[str] | None] = mapped_column(ARRAY(TEXT))
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    replaced_by: Mapped[str | None]


class User(Base):
    """A person with a wallet. `locale` is a BCP 47 tag."""

    __tablename__ = "users"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    name: Mapped[str]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    locale: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class PaymentMethod(Base):
    """What a user pays with: a card, or a bank account, which has no token, brand, BIN and expiry.

    `token_id` names the vault's record; `bin` and `last4` are all that is shown of a card.
    """

    __tablename__ = "payment_methods"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    user_id: Mapped[str]
    token_id: Mapped[str | None]
    brand: Mapped[str | None]
    bin: Mapped[str | None]
    last4: Mapped[str]
    exp_month: Mapped[int | None]
    exp_year: Mapped[int | None]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    type: Mapped[str] = mapped_column(server_default=text("'card'"))
    label: Mapped[str | None]
    is_default: Mapped[bool] = mapped_column(server_default=text("false"))
    removed_at: Mapped[datetime | None]
    routing_number: Mapped[str | None]
    account_type: Mapped[str | None]


class CardVerification(Base):
    """That a card was asked about, in the name of `merchant`. Rows are only added."""

    __tablename__ = "card_verifications"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    payment_method_id: Mapped[str]
    currency: Mapped[str]
    merchant: Mapped[dict[str, Any]]
    requested_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class VerificationCount(Base):
    """That a verification was let in: by `card_reference` (the card's PAR) and `user_id` it is counted how often."""

    __tablename__ = "verification_counts"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    verification_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    card_reference: Mapped[str]
    counted_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class CardVerificationResult(Base):
    """What came of a verification. Rows are only added, one for each verification."""

    __tablename__ = "card_verification_results"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    verification_id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    decline_code: Mapped[str | None]
    reason: Mapped[str | None]
    attempts: Mapped[int]
    rrn: Mapped[str | None]
    approval_code: Mapped[str | None]
    decided_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class CardChecksRow(Base):
    """What an issuer said of the code and the address that came with a payment or a verification. Rows are only
    added."""

    __tablename__ = "card_checks"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    source_id: Mapped[str] = mapped_column(primary_key=True)
    payment_method_id: Mapped[str]
    cvc: Mapped[str]
    address_line1: Mapped[str]
    postal_code: Mapped[str]
    checked_at: Mapped[datetime]


class CardExpiryReminder(Base):
    """That a user was reminded of a card's expiry, `days` (30 or 7) before. Rows are only added."""

    __tablename__ = "card_expiry_reminders"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    payment_method_id: Mapped[str] = mapped_column(primary_key=True)
    exp_year: Mapped[int] = mapped_column(primary_key=True)
    exp_month: Mapped[int] = mapped_column(primary_key=True)
    days: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Payment(Base):
    """A payment as its workflow last committed it; `version` is the number of its latest event."""

    __tablename__ = "payments"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    user_id: Mapped[str]
    payment_method_id: Mapped[str]
    version: Mapped[int]
    status: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    amount_authorized_minor: Mapped[int] = mapped_column(BigInteger)
    amount_captured_minor: Mapped[int] = mapped_column(BigInteger)
    amount_refunded_minor: Mapped[int] = mapped_column(BigInteger)
    refunds_pending_minor: Mapped[int] = mapped_column(BigInteger)
    capture_method: Mapped[str]
    capture_before: Mapped[datetime | None]
    merchant: Mapped[dict[str, Any]]
    decline_code: Mapped[str | None]
    status_reason: Mapped[str | None]
    approval_code: Mapped[str | None]
    rrn: Mapped[str | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class RiskDecision(Base):
    """Why a payment was let through, questioned or stopped, with the exact feature values used."""

    __tablename__ = "risk_decisions"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    payment_id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    score: Mapped[float | None]
    reasons: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    rules_version: Mapped[str]
    model_version: Mapped[str | None]
    features: Mapped[dict[str, Any]]
    degraded: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class Refund(Base):
    __tablename__ = "refunds"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    payment_id: Mapped[str]
    account_id: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str]
    status: Mapped[str]
    reason: Mapped[str | None]
    failure_code: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class IdempotencyKey(Base):
    """One row for each effect asked for. It outlives the workflow, and it never expires while work is open.

    `response_*` is the first final answer; until there is one, a caller with the same key attaches to the work.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    principal: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes]
    resource_id: Mapped[str]
    response_status: Mapped[int | None]
    response_body: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class OutboxEvent(Base):
    """A domain event, committed with the change it tells of. `subject_sequence` numbers a subject's events gaplessly.

    `position` orders all events as they were written; a reader must not take it for the order of commits.
    """

    __tablename__ = "outbox"
    __table_args__ = {"schema": "platform"}  # noqa: RUF012

    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    subject_id: Mapped[str]
    subject_sequence: Mapped[int]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
