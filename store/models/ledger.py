"""The ledger's tables (schema `ledger`). Its rules, triggers and `ledger.apply` are in the migration.

Nothing is written through these models: rows come into being by `ledger.transfers.apply` alone.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import CHAR
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class LedgerAccount(Base):
    """One side of transfers, with its four running totals in minor units of `currency`.

    `entries` counts its entries, `last_entry_at` is the time of the last one.
    """

    __tablename__ = "accounts"
    __table_args__ = {"schema": "ledger"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str] = mapped_column(CHAR(3))
    code: Mapped[str]
    balance_limit: Mapped[str | None]
    debits_pending: Mapped[int] = mapped_column(BigInteger, server_default="0")
    debits_posted: Mapped[int] = mapped_column(BigInteger, server_default="0")
    credits_pending: Mapped[int] = mapped_column(BigInteger, server_default="0")
    credits_posted: Mapped[int] = mapped_column(BigInteger, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    entries: Mapped[int] = mapped_column(BigInteger, server_default="0")
    last_entry_at: Mapped[datetime | None]


class LedgerTransfer(Base):
    """An immutable transfer. `kind` is posted, pending, post, void or expire; the last three name their `pending_id`.

    `amount_minor` is what it posts or holds, `released_minor` what it takes off its hold. `sequence` orders transfers
    as they were written, with gaps; a reader must not take it for the order of commits.
    """

    __tablename__ = "transfers"
    __table_args__ = (
        UniqueConstraint("sequence"),
        Index("ix_transfers_reference", "reference"),
        {"schema": "ledger"},
    )

    sequence: Mapped[int] = mapped_column(BigInteger)
    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    debit_account: Mapped[str]
    credit_account: Mapped[str]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    released_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(CHAR(3))
    code: Mapped[str]
    reference: Mapped[str]
    pending_id: Mapped[str | None]
    final: Mapped[bool | None]
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    covered: Mapped[bool] = mapped_column(server_default="false")


class LedgerEntry(Base):
    """What a transfer made of the totals of one of its accounts.

    `position` counts the account's entries without gaps, in the order in which they were booked; `at` is the transfer's
    time, or that of the entry before it if the clock was set back. So the key is in both orders at once.
    """

    __tablename__ = "entries"
    __table_args__ = {"schema": "ledger"}  # noqa: RUF012

    account: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    debits_pending: Mapped[int] = mapped_column(BigInteger)
    debits_posted: Mapped[int] = mapped_column(BigInteger)
    credits_pending: Mapped[int] = mapped_column(BigInteger)
    credits_posted: Mapped[int] = mapped_column(BigInteger)


class LedgerHold(Base):
    """How a pending transfer stands: `state` is pending, posted, voided or expired."""

    __tablename__ = "holds"
    __table_args__ = (
        Index(
            "ix_holds_expires_at",
            "expires_at",
            postgresql_where=text("state = 'pending' AND expires_at IS NOT NULL"),
        ),
        {"schema": "ledger"},
    )

    pending_id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(server_default="pending")
    remaining_minor: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime | None]


class LedgerBatch(Base):
    """A closed range of sequences. `hash` covers `leaves` and the hash of the batch before: see `ledger.batches`."""

    __tablename__ = "batches"
    __table_args__ = {"schema": "ledger"}  # noqa: RUF012

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_sequence: Mapped[int] = mapped_column(BigInteger)
    last_sequence: Mapped[int] = mapped_column(BigInteger)
    transfers: Mapped[int]
    leaves: Mapped[bytes]
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]
    closed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
