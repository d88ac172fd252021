"""Disputes as tests lead them: notices of the network, and a dispute's row, events and money as the books have them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from domain.dispute_records import DisputeChange, DisputeOpening
from domain.disputes import (
    FINAL,
    ChargebackNotice,
    Dispute,
    DisputeEvent,
    DisputeKind,
    NoticeStage,
    apply,
    opened,
    respond_by,
)
from domain.evidence import ContentType, EvidenceFile, FilePurpose
from domain.ids import DISPUTE, EVIDENCE_FILE, derived_id, new_id
from domain.money import Money

ISSUED_AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def notice(
    payment_id: str,
    kind: DisputeKind = DisputeKind.CHARGEBACK,
    stage: NoticeStage = NoticeStage.OPENED,
    *,
    chargeback_id: str = "",
    amount_minor: int = 1000,
    currency: Currency = Currency.USD,
    issued_at: datetime = ISSUED_AT,
    respond_by: datetime | None = None,
) -> ChargebackNotice:
    """A notice of a case; without `chargeback_id` of a new one."""
    return ChargebackNotice(
        chargeback_id=chargeback_id or f"cb-{secrets.token_hex(6)}",
        payment_id=payment_id,
        rrn="632512000001",
        money=Money(amount_minor, currency),
        reason_code="10.4",
        kind=kind,
        stage=stage,
        issued_at=issued_at,
        respond_by=respond_by,
    )


def dispute_id_of(chargeback_id: str) -> str:
    return derived_id(DISPUTE, chargeback_id)


def opening_of(first: ChargebackNotice, *, acknowledged: bool = False) -> DisputeOpening:
    return DisputeOpening(
        dispute_id=dispute_id_of(first.chargeback_id),
        notice=first,
        dispute=opened(first),
        due_by=respond_by(first),
        opened_at=ISSUED_AT,
        excess_acknowledged=acknowledged,
    )


def evidence_file(name: str = "receipt.pdf") -> EvidenceFile:
    return EvidenceFile(new_id(EVIDENCE_FILE), FilePurpose.RECEIPT, name, ContentType.PDF, 1234, "ab" * 32)


@dataclass
class Case:
    """One dispute as its workflow would lead it: the pure state and its version."""

    opening: DisputeOpening
    dispute: Dispute
    version: int = 1

    @classmethod
    def of(cls, opening: DisputeOpening) -> Case:
        return cls(opening, opening.dispute)

    @property
    def id(self) -> str:
        return self.opening.dispute_id

    def change(self, event: DisputeEvent, **fields: Any) -> DisputeChange:
        """The next change. Raises InvalidTransition where the domain does."""
        incoming = fields.get("notice")
        after = apply(self.dispute, event, incoming.money if incoming else None)
        due_by = None if after.status in FINAL else ISSUED_AT + timedelta(days=20)
        change = DisputeChange(
            dispute_id=self.id,
            version=self.version + 1,
            event=event,
            dispute=after,
            held_before=self.dispute.holding,
            occurred_at=ISSUED_AT + timedelta(hours=self.version),
            due_by=due_by,
        )
        return replace(change, **fields)

    def went(self, change: DisputeChange) -> None:
        self.dispute, self.version = change.dispute, change.version


async def dispute_row(engine: AsyncEngine, dispute_id: str) -> dict[str, Any]:
    (row,) = await dispute_rows(engine, "SELECT * FROM platform.disputes WHERE id = :id", dispute_id)
    return row


async def dispute_events(engine: AsyncEngine, dispute_id: str) -> list[dict[str, Any]]:
    """The outbox's rows of the dispute, in order; `type` without its prefix."""
    rows = await dispute_rows(
        engine,
        "SELECT subject_sequence, type, data FROM platform.outbox WHERE subject_id = :id ORDER BY subject_sequence",
        dispute_id,
    )
    return [row | {"type": row["type"].removeprefix("dispute.")} for row in rows]


async def dispute_rows(engine: AsyncEngine, statement: str, dispute_id: str) -> list[dict[str, Any]]:
    async with engine.connect() as connection:
        return [dict(row) for row in (await connection.execute(text(statement), {"id": dispute_id})).mappings()]


async def moved_minor(engine: AsyncEngine, dispute_id: str) -> dict[str, int]:
    """What the dispute's transfers credited less what they debited, by kind of account; what is even is left out."""
    rows = await dispute_rows(
        engine,
        """
        SELECT code, sum(minor)::bigint AS minor FROM (
            SELECT credit_account AS account, amount_minor AS minor FROM ledger.transfers WHERE reference = :id
            UNION ALL SELECT debit_account, -amount_minor FROM ledger.transfers WHERE reference = :id
        ) AS leg JOIN ledger.accounts ON accounts.id = leg.account GROUP BY code
        """,
        dispute_id,
    )
    return {row["code"]: row["minor"] for row in rows if row["minor"]}
