"""The books of a dispute: its row, its evidence, its ledger entries and its event change together or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.currency import Currency
from domain.dispute_records import DisputeChange, DisputeOpened, DisputeOpening, NoticeRecord
from domain.disputes import FINAL, ChargebackNotice, Dispute, DisputeEvent, Holding
from domain.errors import DurapayError, NotFound
from domain.evidence import EvidenceFile
from domain.ids import EVENT, derived_id
from domain.money import Money
from ledger.books import OutOfOrder
from ledger.disputes import Handover, entries
from ledger.transfers import apply


class DisputeExceedsPayment(DurapayError):
    """The network takes more than the payment has left: what was captured, less refunds and other disputes."""

    def __init__(self, payment_id: str, wanted: Money, left_minor: int) -> None:
        super().__init__(f"{wanted} is disputed of {payment_id}, which has {left_minor} minor units left")


class DisputeInOtherCurrency(DurapayError):
    """The network disputes another currency than the payment's: nothing of it can be booked."""

    def __init__(self, payment_id: str, wanted: Money) -> None:
        super().__init__(f"{wanted} is disputed of {payment_id}, which is in another currency")


_TAKING = frozenset({DisputeEvent.ESCALATED, DisputeEvent.REOPENED})
_CLOSING = frozenset(
    {
        DisputeEvent.ACCEPTED,
        DisputeEvent.EXPIRED,
        DisputeEvent.DECIDED_WON,
        DisputeEvent.DECIDED_LOST,
        DisputeEvent.LAPSED,
    }
)


def event_type(event: DisputeEvent) -> str:
    """What the outbox calls it. However a case closes, whoever follows it waits for `dispute.closed`."""
    return "dispute.closed" if event in _CLOSING else f"dispute.{event}"


class DisputeBooks:
    """Every method is one transaction and may be called again with the same input: the second time changes nothing.

    `fees_minor` is what a lost case costs the merchant, by currency. A dispute keeps the fee it was opened with.
    """

    def __init__(self, engine: AsyncEngine, fees_minor: Mapping[Currency, int]) -> None:
        self._engine = engine
        self._fees_minor = dict(fees_minor)

    async def open(self, opening: DisputeOpening) -> DisputeOpened:
        """Inserts the dispute with its first notice and its first event; a chargeback's money is set aside.

        Raises:
            NotFound: there is no such payment.
            DisputeExceedsPayment: it takes more than the payment has left, and nobody has acknowledged that.
            DisputeInOtherCurrency: it is not in the payment's currency.
            OutOfOrder: the dispute's id belongs to another case.
        """
        dispute, notice = opening.dispute, opening.notice
        async with self._engine.begin() as connection:
            payment = await _lock_payment(connection, notice.payment_id, opening.dispute_id)
            owner = DisputeOpened(payment.account_id, payment.merchant_id)
            if await _is_open(connection, opening):
                return owner
            taken = dispute.money if dispute.holding is not Holding.MERCHANT else Money(0, dispute.money.currency)
            excess = _excess(payment, taken, acknowledged=opening.excess_acknowledged)
            fee = self._fees_minor.get(dispute.money.currency, 0)
            await connection.execute(_OPEN, _opening_parameters(opening, owner, taken.amount_minor, excess, fee))
            await _note(connection, opening.dispute_id, notice, opening.opened_at, DisputeEvent.CREATED)
            await connection.execute(_EVENT, _created(opening, owner))
            await _hand_over(
                connection, _handover(opening.dispute_id, 1, owner, dispute, Holding.MERCHANT, fee_minor=fee)
            )
        return owner

    async def record(self, change: DisputeChange) -> None:
        """Brings the dispute to `change.version` with the evidence, the notice and the ledger entries of its event.

        Raises:
            DisputeExceedsPayment, DisputeInOtherCurrency: as `open`, of an event that takes the money.
            OutOfOrder: the version before it is not recorded, or another event stands under this version.
        """
        dispute = change.dispute
        takes = change.held_before is Holding.MERCHANT and dispute.holding is not Holding.MERCHANT
        async with self._engine.begin() as connection:
            excess = None
            if takes:
                payment = await _lock_payment(connection, await _payment_of(connection, change), change.dispute_id)
                excess = _excess(payment, dispute.money, acknowledged=change.excess_acknowledged)
            row = (await connection.execute(_RECORD, _change_parameters(change, excess))).one_or_none()
            if row is None:
                await _require_recorded(connection, change)
                return
            if change.file is not None:
                await connection.execute(_FILE, _file_parameters(change, change.file))
            if change.notice is not None:
                await _note(connection, change.dispute_id, change.notice, change.occurred_at, change.event)
            await connection.execute(_EVENT, _event(change, row))
            owner = DisputeOpened(row.account_id, row.merchant_id)
            await _hand_over(
                connection,
                _handover(change.dispute_id, change.version, owner, dispute, change.held_before, row.fee_minor),
            )

    async def note(self, record: NoticeRecord) -> None:
        """Keeps a notice that changed nothing."""
        async with self._engine.begin() as connection:
            await _note(connection, record.dispute_id, record.notice, record.received_at, None)


def _excess(payment: Row[Any], taken: Money, *, acknowledged: bool) -> int:
    """By how many minor units `taken` is more than the payment has left.

    Raises:
        DisputeExceedsPayment, DisputeInOtherCurrency
    """
    if payment.currency != taken.currency:
        raise DisputeInOtherCurrency(payment.id, taken)
    excess: int = max(taken.amount_minor - max(payment.left_minor, 0), 0)
    if excess and not acknowledged:
        raise DisputeExceedsPayment(payment.id, taken, payment.left_minor)
    return excess


async def _lock_payment(connection: AsyncConnection, payment_id: str, dispute_id: str) -> Row[Any]:
    """The payment and what it has left for this dispute. Its row stays locked, so that no other dispute takes it.

    It is locked first and read then: whoever waited for the lock must see what the other one wrote.
    """
    if (await connection.execute(_LOCK, {"payment_id": payment_id})).one_or_none() is None:
        raise NotFound("payment", payment_id)
    return (await connection.execute(_PAYMENT, {"payment_id": payment_id, "dispute_id": dispute_id})).one()


async def _payment_of(connection: AsyncConnection, change: DisputeChange) -> str:
    found = await connection.scalar(
        text("SELECT payment_id FROM platform.disputes WHERE id = :id"), {"id": change.dispute_id}
    )
    if found is None:
        raise OutOfOrder(f"{change.dispute_id} is not opened")
    return str(found)


async def _is_open(connection: AsyncConnection, opening: DisputeOpening) -> bool:
    found = await connection.execute(
        text("SELECT chargeback_id, payment_id FROM platform.disputes WHERE id = :id"), {"id": opening.dispute_id}
    )
    row = found.one_or_none()
    if row is not None and tuple(row) != (opening.notice.chargeback_id, opening.notice.payment_id):
        raise OutOfOrder(f"{opening.dispute_id} is the id of another case")
    return row is not None


async def _require_recorded(connection: AsyncConnection, change: DisputeChange) -> None:
    """Refuses `change` unless it is the one that stands under its version."""
    found = await connection.execute(
        text("SELECT data FROM platform.outbox WHERE subject_id = :subject AND subject_sequence = :sequence"),
        {"subject": change.dispute_id, "sequence": change.version},
    )
    data = found.scalar()
    if data is None or (data["event"], data["status"]) != (change.event, change.dispute.status):
        raise OutOfOrder(f"{change.dispute_id} cannot take {change.event} as its event {change.version}")


def _handover(
    dispute_id: str, version: int, owner: DisputeOpened, dispute: Dispute, before: Holding, fee_minor: int
) -> Handover:
    return Handover(
        effect=f"{dispute_id}:v{version}",
        dispute_id=dispute_id,
        account_id=owner.account_id,
        merchant_id=owner.merchant_id,
        money=dispute.money,
        before=before,
        after=dispute.holding,
        fee_minor=fee_minor,
    )


async def _hand_over(connection: AsyncConnection, handover: Handover) -> None:
    if chain := entries(handover):
        await apply(connection, chain)


async def _note(
    connection: AsyncConnection, dispute_id: str, notice: ChargebackNotice, at: Any, event: DisputeEvent | None
) -> None:
    await connection.execute(
        _NOTICE,
        {
            "dispute_id": dispute_id,
            "kind": notice.kind.value,
            "stage": notice.stage.value,
            "issued_at": notice.issued_at,
            "amount_minor": notice.money.amount_minor,
            "currency": notice.money.currency.value,
            "reason_code": notice.reason_code,
            "respond_by": notice.respond_by,
            "event": event.value if event else None,
            "received_at": at,
        },
    )


_LOCK = text("SELECT 1 FROM platform.payments WHERE id = :payment_id FOR NO KEY UPDATE")

# Others' excess is money that the payment did not have, so it takes nothing from this one.
_PAYMENT = text("""
SELECT
    payment.id, payment.account_id, payment.merchant ->> 'merchant_id' AS merchant_id, payment.currency,
    payment.amount_captured_minor - payment.amount_refunded_minor - payment.refunds_pending_minor - coalesce((
        SELECT sum(other.taken_minor - other.excess_minor) FROM platform.disputes AS other
        WHERE other.payment_id = payment.id AND other.id <> :dispute_id AND other.taken_minor > 0), 0) AS left_minor
FROM platform.payments AS payment WHERE payment.id = :payment_id
""")

_OPEN = text("""
INSERT INTO platform.disputes (
    id, chargeback_id, payment_id, account_id, version, kind, status, amount_minor, currency, taken_minor, excess_minor,
    fee_minor, reason_code, rrn, due_by, created_at, updated_at)
VALUES (
    :dispute_id, :chargeback_id, :payment_id, :account_id, 1, :kind, :status, :amount_minor, :currency, :taken_minor,
    :excess_minor, :fee_minor, :reason_code, :rrn, :due_by, :at, :at)
""")

_RECORD = text("""
UPDATE platform.disputes SET
    version = :version,
    kind = :kind,
    status = :status,
    amount_minor = :amount_minor,
    taken_minor = CASE WHEN :taken THEN :amount_minor ELSE 0 END,
    excess_minor = COALESCE(:excess_minor, excess_minor),
    reason_code = COALESCE(:reason_code, reason_code),
    status_reason = :status_reason,
    due_by = :due_by,
    overdue = :overdue,
    texts = (texts || CAST(:texts AS jsonb)) - CAST(:removed AS text[]),
    submissions = :submissions,
    submitted_at = CASE WHEN :submitted THEN :at ELSE submitted_at END,
    represented_at = CASE WHEN :submitted THEN NULL WHEN :represented THEN :at ELSE represented_at END,
    evidence_sha256 = CASE WHEN :submitted THEN NULL ELSE COALESCE(:evidence_sha256, evidence_sha256) END,
    closed_at = CASE WHEN NOT :final THEN NULL WHEN status = :status THEN closed_at ELSE :at END,
    updated_at = :at
WHERE id = :dispute_id AND version = :version - 1
RETURNING account_id, payment_id, chargeback_id, reason_code, fee_minor,
    (SELECT merchant ->> 'merchant_id' FROM platform.payments WHERE id = payment_id) AS merchant_id
""")

_FILE = text("""
INSERT INTO platform.dispute_files (id, dispute_id, purpose, name, content_type, size_bytes, sha256, created_at)
VALUES (:file_id, :dispute_id, :purpose, :name, :content_type, :size_bytes, :sha256, :at)
""")

_NOTICE = text("""
INSERT INTO platform.dispute_notices (
    dispute_id, kind, stage, issued_at, amount_minor, currency, reason_code, respond_by, event, received_at)
VALUES (
    :dispute_id, :kind, :stage, :issued_at, :amount_minor, :currency, :reason_code, :respond_by, :event, :received_at)
ON CONFLICT DO NOTHING
""")

_EVENT = text("""
INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
VALUES (:id, :subject_id, :sequence, :type, CAST(:data AS jsonb))
""")


def _opening_parameters(
    opening: DisputeOpening, owner: DisputeOpened, taken_minor: int, excess_minor: int, fee_minor: int
) -> dict[str, Any]:
    notice, dispute = opening.notice, opening.dispute
    return {
        "dispute_id": opening.dispute_id,
        "chargeback_id": notice.chargeback_id,
        "payment_id": notice.payment_id,
        "account_id": owner.account_id,
        "kind": dispute.kind.value,
        "status": dispute.status.value,
        "amount_minor": dispute.money.amount_minor,
        "currency": dispute.money.currency.value,
        "taken_minor": taken_minor,
        "excess_minor": excess_minor,
        "fee_minor": fee_minor,
        "reason_code": notice.reason_code,
        "rrn": notice.rrn,
        "due_by": opening.due_by,
        "at": opening.opened_at,
    }


def _change_parameters(change: DisputeChange, excess_minor: int | None) -> dict[str, Any]:
    dispute = change.dispute
    return {
        "dispute_id": change.dispute_id,
        "version": change.version,
        "kind": dispute.kind.value,
        "status": dispute.status.value,
        "amount_minor": dispute.money.amount_minor,
        "taken": dispute.holding is not Holding.MERCHANT,
        "excess_minor": excess_minor,
        "reason_code": change.notice.reason_code if change.event in _TAKING and change.notice else None,
        "status_reason": change.status_reason,
        "due_by": change.due_by,
        "overdue": dispute.overdue,
        "texts": json.dumps({name: value for name, value in change.texts.items() if value}),
        "removed": [name for name, value in change.texts.items() if not value],
        "submissions": dispute.submissions,
        "submitted": change.event is DisputeEvent.SUBMITTED,
        "represented": change.evidence_sha256 is not None,
        "evidence_sha256": change.evidence_sha256,
        "final": dispute.status in FINAL,
        "at": change.occurred_at,
    }


def _file_parameters(change: DisputeChange, file: EvidenceFile) -> dict[str, Any]:
    return {
        "file_id": file.file_id,
        "dispute_id": change.dispute_id,
        "purpose": file.purpose.value,
        "name": file.name,
        "content_type": file.content_type.value,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "at": change.occurred_at,
    }


def _created(opening: DisputeOpening, owner: DisputeOpened) -> dict[str, Any]:
    notice = opening.notice
    data = _data(DisputeEvent.CREATED, opening.dispute, owner.account_id, notice.payment_id, notice.chargeback_id)
    data |= {"reason_code": notice.reason_code, "due_by": opening.due_by.isoformat()}
    return _event_row(opening.dispute_id, 1, DisputeEvent.CREATED, data)


def _event(change: DisputeChange, row: Row[Any]) -> dict[str, Any]:
    data = _data(change.event, change.dispute, row.account_id, row.payment_id, row.chargeback_id)
    data |= {
        "reason_code": row.reason_code,
        "due_by": change.due_by.isoformat() if change.due_by else None,
        "reason": change.status_reason,
        "days_left": change.days_left,
        "file_id": change.file.file_id if change.file else None,
        "text_fields": sorted(change.texts),
    }
    return _event_row(change.dispute_id, change.version, change.event, data)


def _data(
    event: DisputeEvent, dispute: Dispute, account_id: str, payment_id: str, chargeback_id: str
) -> dict[str, Any]:
    return {
        "event": event,
        "account_id": account_id,
        "payment_id": payment_id,
        "chargeback_id": chargeback_id,
        "kind": dispute.kind,
        "status": dispute.status,
        "amount_minor": dispute.money.amount_minor,
        "currency": dispute.money.currency,
    }


def _event_row(dispute_id: str, version: int, event: DisputeEvent, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": derived_id(EVENT, dispute_id, str(version)),
        "subject_id": dispute_id,
        "sequence": version,
        "type": event_type(event),
        "data": json.dumps(data),
    }
