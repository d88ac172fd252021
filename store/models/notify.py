"""What payers are owed to be told, deliveries, the in-app inbox and push tokens (schema `notify`)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base

_NOW = text("now()")


class Owed(Base):
    """An event that its payer has not been told of. The outbox's trigger inserts it, a delivery deletes it.

    `due_at` is when a relay next tries; one that takes it moves it beyond its lease. A row that was given up stays.
    """

    __tablename__ = "owed"
    __table_args__ = {"schema": "notify"}  # noqa: RUF012

    event_id: Mapped[str] = mapped_column(primary_key=True)
    owed_since: Mapped[datetime] = mapped_column(server_default=_NOW)
    due_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    reason: Mapped[str | None]
    given_up_at: Mapped[datetime | None]


class Delivery(Base):
    """One notification on one channel. It names the user, never an address, and holds no text.

    `state` is `pending` (owed), `sending` (one process is at it until `claimed_until`), `sent` or `rejected`; the last
    two are final. `reached` holds digests of the addresses that an unfinished attempt has reached already.
    """

    __tablename__ = "deliveries"
    __table_args__ = {"schema": "notify"}  # noqa: RUF012

    key: Mapped[str] = mapped_column(primary_key=True)
    channel: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    attempts: Mapped[int]
    claimed_until: Mapped[datetime | None]
    reached: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    provider_message_id: Mapped[str | None]
    reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(server_default=_NOW)


class InboxMessage(Base):
    """A notice that the user reads in the app. Only `read_at` ever changes, once."""

    __tablename__ = "inbox"
    __table_args__ = {"schema": "notify"}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    kind: Mapped[str]
    title: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    read_at: Mapped[datetime | None]


class PushToken(Base):
    """An installation of the app. `token_hash` (SHA-256) is the key; a device that changes hands changes its user."""

    __tablename__ = "push_tokens"
    __table_args__ = {"schema": "notify"}  # noqa: RUF012

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    token: Mapped[str]
    platform: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=_NOW)
    pruned_at: Mapped[datetime | None]
    device_id: Mapped[str | None]
