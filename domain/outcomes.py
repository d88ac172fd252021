"""What a card network can answer. A "no" is a value; a lost answer is neither yes nor no, it is `Unknown`.

Each case carries a `kind` tag, so that the union decodes unambiguously from a workflow's history.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from domain.card_checks import CardChecks


@dataclass(frozen=True, slots=True)
class Approved:
    """The issuer approved.

    `approval_code` is DE38, `rrn` DE37, `stan` DE11; `amount_minor` is what was approved, in the request's currency.
    `checks` is what was found of a code or an address that went along, None if none did.
    """

    amount_minor: int
    approval_code: str
    rrn: str
    stan: str
    answered_at: datetime
    checks: CardChecks | None = None
    kind: Literal["approved"] = "approved"


@dataclass(frozen=True, slots=True)
class Declined:
    """The issuer, or the network in its place, said no. `response_code` is DE39, `checks` as in `Approved`."""

    response_code: str
    rrn: str
    stan: str
    answered_at: datetime
    checks: CardChecks | None = None
    kind: Literal["declined"] = "declined"


class DoubtReason(StrEnum):
    """Why nobody knows what the network decided."""

    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    INVALID_ANSWER = "invalid_answer"
    WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may have left this host and no valid answer came back. Only a reversal resolves it."""

    reason: DoubtReason
    rrn: str = ""
    stan: str = ""
    kind: Literal["unknown"] = "unknown"


AuthorizationOutcome = Approved | Declined | Unknown


@dataclass(frozen=True, slots=True)
class Reversed:
    """The host acknowledged the reversal (0430) at `acknowledged_at`.

    `late_answer` is DE39 of an answer to the original that came after the reversal was decided, if one came.
    """

    acknowledged_at: datetime
    late_answer: str | None = None
    kind: Literal["reversed"] = "reversed"


@dataclass(frozen=True, slots=True)
class NeverSent:
    """No byte of the original request left this host, and from now on none will: there is nothing to reverse."""

    kind: Literal["never_sent"] = "never_sent"


ReversalOutcome = Reversed | NeverSent


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The host took note of an advice (0230, 0630)."""

    acknowledged_at: datetime
    kind: Literal["acknowledged"] = "acknowledged"
