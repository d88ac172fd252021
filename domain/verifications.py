"""Whether a card is good, as its issuer says when it is asked for no money at all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.card_checks import CardChecks
from domain.currency import Currency
from domain.merchants import Merchant


class VerificationStatus(StrEnum):
    """`UNKNOWN` is an end: nobody could get an answer. Nothing is to be undone, and the question may be asked anew."""

    PROCESSING = "processing"
    VERIFIED = "verified"
    DECLINED = "declined"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class VerificationOpening:
    """That a card is being verified in the name of `merchant`. `requested_at` is when the platform accepted it."""

    verification_id: str
    payment_method_id: str
    currency: Currency
    merchant: Merchant
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What came of a verification after `attempts` questions.

    `decline_code` is set if it was declined (`domain.declines`), `reason` if it is unknown. `rrn` is DE37 of the last
    question that the network got, `approval_code` DE38 of its yes. `checks` is what the issuer said of a code or an
    address that went along.
    """

    verification_id: str
    status: VerificationStatus
    attempts: int
    decided_at: datetime
    decline_code: str | None = None
    reason: str | None = None
    rrn: str | None = None
    approval_code: str | None = None
    checks: CardChecks | None = None
