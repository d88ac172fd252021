"""Disputes: what the card network says of one, what is asked of the network, and the life of a dispute as data.

The network's worker turns each message of a case into a `ChargebackNotice`. The one that opens the case starts the
workflow `dispute` (`dispute_workflow_id`); every further one, an escalation and a decision alike, is its signal
`network_decision`. A notice that comes twice changes nothing: two are the same if kind, stage and `issued_at` are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.money import Money


class DisputeKind(StrEnum):
    """An inquiry (a retrieval request) asks the merchant and moves no money; a chargeback takes the money back."""

    INQUIRY = "inquiry"
    CHARGEBACK = "chargeback"


class NoticeStage(StrEnum):
    """`OPENED` begins an inquiry or a chargeback, also one that an inquiry is escalated to. `WON` and `LOST` are seen
    from the merchant: `WON` is a withdrawn or reversed chargeback, or an inquiry that is closed without one."""

    OPENED = "opened"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ChargebackNotice:
    """One message of the network on one case.

    `chargeback_id` is the network's number of the case, the same from an inquiry through its chargeback to the
    decision. `rrn` is DE37 of the authorization. `money` is what is disputed, `reason_code` the network's own (`10.4`,
    `4853`). `issued_at` is the network's time of the message, not ours. `respond_by` is the network's deadline for an
    answer where the message carries one.
    """

    chargeback_id: str
    payment_id: str
    rrn: str
    money: Money
    reason_code: str
    kind: DisputeKind
    stage: NoticeStage
    issued_at: datetime
    respond_by: datetime | None = None


@dataclass(frozen=True, slots=True)
class RepresentCommand:
    """Contest a chargeback, or answer an inquiry, with evidence; the network answers `outcomes.Acknowledged`.

    `evidence_sha256` (64 hexadecimal digits) is the digest of the frozen evidence's manifest, `documents` how many
    files it names: the files themselves do not go through the network's messages. `effect_key` makes it one
    representment, however often it is asked for.
    """

    effect_key: str
    chargeback_id: str
    payment_id: str
    rrn: str
    money: Money
    kind: DisputeKind
    reason_code: str
    evidence_sha256: str
    documents: int
