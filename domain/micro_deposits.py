"""Verifying a bank account by two small deposits: states, limits, and what travels between workflow and bank zone.

`TRANSITIONS` is the table; `next_status` uses it and refuses the rest with a typed error. The amounts that were chosen
are in none of these types, so they are in no history: they stay in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Literal

from domain.errors import InvalidTransition

# Nacha, Micro-Entry Rule (2022): less than one dollar each. Two of 1 to 49 cents make 1,225 pairs.
SMALLEST_DEPOSIT_MINOR = 1
LARGEST_DEPOSIT_MINOR = 49
ATTEMPTS = 3
# Per bank account, whoever asks: nine guesses in all, which hit one of 1,225 pairs once in a hundred times.
CYCLES = 3
CONFIRMATION_WINDOW = timedelta(days=10)
# A consumer may have an entry returned for 60 days after it settled (Nacha, R05, R07, R10, R11).
RETURN_WINDOW = timedelta(days=60)


class MicroDepositStatus(StrEnum):
    NEW = "new"
    INITIATING = "initiating"
    SENT = "sent"
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    VERIFIED = "verified"
    FAILED = "failed"
    EXPIRED = "expired"
    RETURNED = "returned"
    ORIGINATION_IN_DOUBT = "origination_in_doubt"
    CANCELED = "canceled"


class MicroDepositEvent(StrEnum):
    INITIATED = "initiated"
    ORIGINATED = "originated"
    DOUBTED = "doubted"
    REFUSED = "refused"  # the bank took nothing of the file
    POSTED = "posted"
    CONFIRMED = "confirmed"
    ATTEMPTS_EXCEEDED = "attempts_exceeded"
    EXPIRED = "expired"
    RETURNED = "returned"
    CANCELED = "canceled"


_S, _E = MicroDepositStatus, MicroDepositEvent

TRANSITIONS: Mapping[tuple[MicroDepositStatus, MicroDepositEvent], MicroDepositStatus] = {
    (_S.NEW, _E.INITIATED): _S.INITIATING,
    (_S.NEW, _E.CANCELED): _S.CANCELED,
    (_S.INITIATING, _E.ORIGINATED): _S.SENT,
    (_S.INITIATING, _E.DOUBTED): _S.ORIGINATION_IN_DOUBT,
    (_S.INITIATING, _E.REFUSED): _S.FAILED,
    (_S.ORIGINATION_IN_DOUBT, _E.ORIGINATED): _S.SENT,
    (_S.ORIGINATION_IN_DOUBT, _E.REFUSED): _S.FAILED,
    (_S.SENT, _E.POSTED): _S.AWAITING_CONFIRMATION,
    (_S.SENT, _E.EXPIRED): _S.EXPIRED,
    (_S.AWAITING_CONFIRMATION, _E.CONFIRMED): _S.VERIFIED,
    (_S.AWAITING_CONFIRMATION, _E.ATTEMPTS_EXCEEDED): _S.FAILED,
    (_S.AWAITING_CONFIRMATION, _E.EXPIRED): _S.EXPIRED,
    (_S.SENT, _E.CANCELED): _S.CANCELED,
    (_S.AWAITING_CONFIRMATION, _E.CANCELED): _S.CANCELED,
    # A return may come at any time once entries are with the bank; only a verified account has something to lose by it.
    (_S.SENT, _E.RETURNED): _S.RETURNED,
    (_S.AWAITING_CONFIRMATION, _E.RETURNED): _S.RETURNED,
    (_S.VERIFIED, _E.RETURNED): _S.RETURNED,
}

# From here nothing is expected but a return of what was verified.
ENDED = frozenset({_S.VERIFIED, _S.FAILED, _S.EXPIRED, _S.RETURNED, _S.CANCELED})


def next_status(status: MicroDepositStatus, event: MicroDepositEvent) -> MicroDepositStatus:
    """The state after `event`.

    Raises:
        InvalidTransition: the state knows no such event.
    """
    after = TRANSITIONS.get((status, event))
    if after is None:
        raise InvalidTransition("micro_deposit_unexpected_state", f"{status} deposits cannot be {event}")
    return after


@dataclass(frozen=True, slots=True)
class MicroDepositOrder:
    """Verify the bank account of a payment method, once."""

    micro_deposit_id: str
    account_id: str
    user_id: str
    payment_method_id: str
    bank_account_id: str
    requested_at: datetime


class BeginRefusal(StrEnum):
    """Why no deposits are sent; the values are the API's codes."""

    LOCKED = "bank_account_locked"
    IN_PROGRESS = "micro_deposit_in_progress"
    UNUSABLE = "bank_account_unusable"
    VERIFIED = "bank_account_verified"
    USER_CLOSED = "user_closed"


@dataclass(frozen=True, slots=True)
class Begun:
    """`refusal` is None if the amounts are chosen and the cycle is counted."""

    refusal: BeginRefusal | None = None


@dataclass(frozen=True, slots=True)
class OriginateCommand:
    """Send the deposits and the debit. `sealed_account` holds the account number, for the bank zone alone."""

    effect_key: str
    micro_deposit_id: str
    sealed_account: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Originated:
    """The bank has the file, all of it. Its entries are to settle on `effective_on`."""

    file_id: str
    effective_on: date
    kind: Literal["originated"] = "originated"


@dataclass(frozen=True, slots=True)
class OriginationRefused:
    """The bank took nothing of the file. `reason` is a word, e.g. `file_invalid`."""

    reason: str
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class OriginationUnknown:
    """The file may have reached the bank. It is asked for by its id, and never sent again before the bank has said."""

    file_id: str
    kind: Literal["unknown"] = "unknown"


@dataclass(frozen=True, slots=True)
class NotReceived:
    """The bank says that it has no such file; sending it again, under the same id, is safe."""

    file_id: str
    kind: Literal["not_received"] = "not_received"


OriginationOutcome = Originated | OriginationRefused | OriginationUnknown
InquiryOutcome = Originated | OriginationRefused | NotReceived


@dataclass(frozen=True, slots=True)
class MicroDepositChange:
    """An event of a verification, under its number. `reason` says more, e.g. a return's R-code."""

    micro_deposit_id: str
    version: int
    event: MicroDepositEvent
    status: MicroDepositStatus
    occurred_at: datetime
    reason: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConfirmAttempt:
    """One guess. `effect_key` names it: the same one is counted once, however often it is brought."""

    effect_key: str
    micro_deposit_id: str
    amounts_minor: tuple[int, int] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConfirmVerdict:
    """`correct` is False, too, when no attempt was left and nothing was compared."""

    correct: bool
    attempts_remaining: int


@dataclass(frozen=True, slots=True)
class DepositsPosted:
    """The bank has posted the entries on `day`."""

    micro_deposit_id: str
    day: date


@dataclass(frozen=True, slots=True)
class DepositReturned:
    """The bank has returned an entry, with its R-code, on `day`."""

    micro_deposit_id: str
    reason_code: str
    day: date


@dataclass(frozen=True, slots=True)
class BankReturn:
    """An entry of the bank's files of returns that no running verification takes: a `return` or a `change` (a
    notification of change). The ids are None if the entry is none of ours, or came back before. `sealed_correction`
    holds what is to be corrected, for the vault alone; None if it is nothing of an account."""

    sequence: int
    line: int
    kind: Literal["return", "change"]
    reason_code: str
    amount_minor: int
    day: date
    transaction_code: int | None = None
    micro_deposit_id: str | None = None
    bank_account_id: str | None = None
    sealed_correction: str | None = field(default=None, repr=False)


class ReturnEffect(StrEnum):
    """What became of a `BankReturn`."""

    REVOKED = "revoked"
    PASSED_ON = "passed_on"  # to the verification that holds for the account now
    NOTHING_TO_REVOKE = "nothing_to_revoke"
    WRITTEN_OFF = "written_off"
    CORRECTED = "corrected"
    NOT_CORRECTED = "not_corrected"
    SEEN = "seen"


@dataclass(frozen=True, slots=True)
class ReturnDecision:
    entry: BankReturn
    effect: ReturnEffect


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What a return did to the bank account. `REVOKED`: its number is to be erased."""

    effect: ReturnEffect


@dataclass(frozen=True, slots=True)
class BankCorrection:
    """What the bank says is to be corrected of an account. `correction_id` names it: it is applied once."""

    correction_id: str
    bank_account_id: str
    change_code: str
    sealed_correction: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CorrectedAccount:
    """A bank account as it is after its correction, and the `reference` that it had before."""

    bank_account_id: str
    old_reference: str
    reference: str
    routing_number: str
    account_type: str
    last4: str


@dataclass(frozen=True, slots=True)
class CorrectionOutcome:
    """`account` is None if there was nothing left to correct, or two operators decided against it."""

    account: CorrectedAccount | None = None


@dataclass(frozen=True, slots=True)
class CorrectionRecord:
    entry: BankReturn
    account: CorrectedAccount | None


@dataclass(frozen=True, slots=True)
class BankAccountRef:
    bank_account_id: str


@dataclass(frozen=True, slots=True)
class SealedBankAccount:
    """The box for the bank zone in which a bank account's number is."""

    sealed_account: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BankDayReport:
    """How many files were found posted, and entries returned, whose effect had not been seen."""

    posted: int = 0
    returned: int = 0


@dataclass(frozen=True, slots=True)
class ConfirmDeposits:
    """The two amounts that the holder of the account has seen, in any order."""

    amounts_minor: tuple[int, int] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CancelDeposits:
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class MicroDepositSnapshot:
    """A verification as it stands. `correct` is what became of the guess that asked; None if none did."""

    micro_deposit_id: str
    status: MicroDepositStatus
    attempts_remaining: int
    correct: bool | None = None
