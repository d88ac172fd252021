"""What a dispute's workflow commits: the opening, one change for each event, and what the network said besides."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from domain.disputes import ChargebackNotice, Dispute, DisputeEvent, Holding
from domain.evidence import EvidenceFile


@dataclass(frozen=True, slots=True)
class DisputeOpening:
    """A dispute as the network's first notice opens it: event 1, `dispute.created`.

    `excess_acknowledged` says that two operators let it take more than the payment has left.
    """

    dispute_id: str
    notice: ChargebackNotice
    dispute: Dispute
    due_by: datetime
    opened_at: datetime
    excess_acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class DisputeOpened:
    """Whose dispute it is."""

    account_id: str
    merchant_id: str


@dataclass(frozen=True, slots=True)
class DisputeChange:
    """One event of a dispute's life and the dispute as it is after it.

    `version` numbers the events without gaps (the opening is 1): recording the same one twice changes nothing.
    `held_before` is who had the money before the event. `due_by` is what is waited for next, if anything is: the
    merchant's answer, or the network's decision.
    """

    dispute_id: str
    version: int
    event: DisputeEvent
    dispute: Dispute
    held_before: Holding
    occurred_at: datetime
    due_by: datetime | None = None
    status_reason: str | None = None
    notice: ChargebackNotice | None = None
    texts: dict[str, str] = field(default_factory=dict)
    file: EvidenceFile | None = None
    days_left: int | None = None
    evidence_sha256: str | None = None
    excess_acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class NoticeRecord:
    """A notice that changed nothing."""

    dispute_id: str
    notice: ChargebackNotice
    received_at: datetime
