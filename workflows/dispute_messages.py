"""Updates and results of the workflow `dispute`. They are wire format: new fields get defaults.

Its input, and what its signal `network_decision` brings, is `domain.disputes.ChargebackNotice`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from domain.disputes import DisputeKind, DisputeStatus
from domain.evidence import EvidenceFile
from domain.money import Money


@dataclass(frozen=True, slots=True)
class AddEvidence:
    """Texts by their field (an empty one removes what was said), and a file that is in the storage already."""

    texts: dict[str, str] = field(default_factory=dict)
    file: EvidenceFile | None = None


@dataclass(frozen=True, slots=True)
class SubmitEvidence:
    """Answer with the evidence that there is; from then on it stays as it is."""


@dataclass(frozen=True, slots=True)
class AcceptDispute:
    """Give in: the issuer keeps the money."""


@dataclass(frozen=True, slots=True)
class DisputeSnapshot:
    """A dispute as last committed. `due_by` is when the answer, or the network's decision, is due."""

    dispute_id: str
    payment_id: str
    money: Money
    kind: DisputeKind
    status: DisputeStatus
    due_by: datetime | None
    needs_attention: tuple[str, ...] = ()
