"""The vault's tables: one PAN's reference, the tokens that stand for it, and a journal of cryptograms issued.

No column holds a card number or a device number in clear. The migration adds the rules that no code can get round:
the token's life cycle, columns that never change, a transaction counter that only rises.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base

_SCHEMA = "vault"


class VaultPan(Base):
    """One card number, whoever added it: its keyed fingerprint and its payment account reference (PAR)."""

    __tablename__ = "pans"
    __table_args__ = {"schema": _SCHEMA}  # noqa: RUF012 - the name and type are SQLAlchemy's

    fingerprint_version: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(primary_key=True)
    par: Mapped[str] = mapped_column(unique=True)


class VaultToken(Base):
    """One owner's token for one card. `dek_version` is the version of the key under both ciphertexts.

    The ciphertexts are erased when the token is deleted; the keyed hashes stay, so a device number is never reused.
    """

    __tablename__ = "tokens"
    __table_args__ = (
        ForeignKeyConstraint(
            ["fingerprint_version", "fingerprint"], ["vault.pans.fingerprint_version", "vault.pans.fingerprint"]
        ),
        UniqueConstraint("dpan_index_version", "dpan_index"),
        Index(
            "uq_tokens_owner_card",
            "owner_id",
            "fingerprint_version",
            "fingerprint",
            unique=True,
            postgresql_where=text("state <> 'deleted'"),
        ),
        {"schema": _SCHEMA},
    )

    token_id: Mapped[str] = mapped_column(primary_key=True)
    owner_id: Mapped[str]
    fingerprint_version: Mapped[int]
    fingerprint: Mapped[bytes]
    brand: Mapped[str]
    bin: Mapped[str]
    last4: Mapped[str]
    exp_month: Mapped[int]
    exp_year: Mapped[int]
    dek_version: Mapped[int]
    pan_iv: Mapped[bytes | None]
    pan_ciphertext: Mapped[bytes | None]
    dpan_index_version: Mapped[int]
    dpan_index: Mapped[bytes]
    dpan_iv: Mapped[bytes | None]
    dpan_ciphertext: Mapped[bytes | None]
    psn: Mapped[str]
    atc: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="inactive")
    state_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    state_changed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class VaultCryptogram(Base):
    """That a cryptogram was made, for which effect and with which transaction counter; never the cryptogram."""

    __tablename__ = "cryptograms"
    __table_args__ = (
        ForeignKeyConstraint(["token_id"], ["vault.tokens.token_id"]),
        {"schema": _SCHEMA},
    )

    token_id: Mapped[str] = mapped_column(primary_key=True)
    atc: Mapped[int] = mapped_column(primary_key=True)
    effect_key: Mapped[str]
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
