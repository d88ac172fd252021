"""Disputes: what the card network says of one, what is asked of the network, and the life of a dispute as data.

The network's worker turns each message of a case into a `ChargebackNotice`. The one that opens the case starts the
workflow `dispute` (`dispute_workflow_id`); every further one, an escalation and a decision alike, is its signal
`network_decision`. A notice that comes twice changes nothing: two are the same if kind, stage and `issued_at` are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from domain.errors import InvalidTransition
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
    files it names: the files themselves do not go through the network's messages. `statement` is a line in the
    merchant's words, of which the network takes 90 ASCII characters. `effect_key` makes it one representment, however
    often it is asked for.
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
    statement: str = ""


@dataclass(frozen=True, slots=True)
class AcceptCommand:
    """Tell the network that the merchant gives in to a chargeback; the network answers `outcomes.Acknowledged`.

    The case is lost without it, too, when nobody answers in time; the issuer learns it earlier. `effect_key` makes it
    one message, however often it is asked for.
    """

    effect_key: str
    chargeback_id: str
    payment_id: str
    rrn: str
    money: Money


class DisputeReason(StrEnum):
    """What a case is about, in words. Which evidence helps follows from it."""

    FRAUDULENT = "fraudulent"
    AUTHORIZATION = "authorization"
    PROCESSING_ERROR = "processing_error"
    CONSUMER = "consumer"
    GENERAL = "general"


# Visa's codes begin with their category (10 fraud, 11 authorization, 12 processing errors, 13 consumer disputes).
# Mastercard's are single numbers: Chargeback Guide, chapter 2.
_VISA_REASONS = {
    "10.": DisputeReason.FRAUDULENT,
    "11.": DisputeReason.AUTHORIZATION,
    "12.": DisputeReason.PROCESSING_ERROR,
    "13.": DisputeReason.CONSUMER,
}
_MASTERCARD_REASONS = {
    "4837": DisputeReason.FRAUDULENT,
    "4849": DisputeReason.FRAUDULENT,
    "4870": DisputeReason.FRAUDULENT,
    "4871": DisputeReason.FRAUDULENT,
    "4808": DisputeReason.AUTHORIZATION,
    "4834": DisputeReason.PROCESSING_ERROR,
    "4853": DisputeReason.CONSUMER,
}


def reason_of(reason_code: str) -> DisputeReason:
    """What a network's reason code is about; `GENERAL` where it is not known."""
    return _VISA_REASONS.get(reason_code[:3]) or _MASTERCARD_REASONS.get(reason_code) or DisputeReason.GENERAL


# ------------------------------------------------------------------------------------------------ the life of a dispute


class DisputeStatus(StrEnum):
    INQUIRY = "inquiry"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"


# In these states evidence is taken and an answer is awaited.
RESPONDING = frozenset({DisputeStatus.INQUIRY, DisputeStatus.NEEDS_RESPONSE})

# In these states a dispute's workflow may close, once nothing more is expected of the network.
FINAL = frozenset({DisputeStatus.WON, DisputeStatus.LOST})


class DisputeEvent(StrEnum):
    CREATED = "created"
    ESCALATED = "escalated"
    # A chargeback that was won comes back (pre-arbitration), and is to be answered again.
    REOPENED = "reopened"
    EVIDENCE_ADDED = "evidence_added"
    EVIDENCE_DUE_SOON = "evidence_due_soon"
    # An inquiry's answer is late: nothing is lost by that alone, but a chargeback may follow.
    OVERDUE = "overdue"
    SUBMITTED = "submitted"
    # The network took note of the representment.
    REPRESENTED = "represented"
    DECISION_OVERDUE = "decision_overdue"
    ACCEPTED = "accepted"
    EXPIRED = "expired"
    DECIDED_WON = "decided_won"
    DECIDED_LOST = "decided_lost"
    # No chargeback followed an inquiry while the issuer had the right to one.
    LAPSED = "lapsed"


_S = DisputeStatus
_E = DisputeEvent

# (state, event) → next state. Some events belong to one kind of dispute: see `_KINDS`.
TRANSITIONS: dict[tuple[DisputeStatus, DisputeEvent], DisputeStatus] = {
    (_S.INQUIRY, _E.EVIDENCE_ADDED): _S.INQUIRY,
    (_S.INQUIRY, _E.EVIDENCE_DUE_SOON): _S.INQUIRY,
    (_S.INQUIRY, _E.OVERDUE): _S.INQUIRY,
    (_S.INQUIRY, _E.SUBMITTED): _S.UNDER_REVIEW,
    (_S.INQUIRY, _E.ESCALATED): _S.NEEDS_RESPONSE,
    (_S.INQUIRY, _E.DECIDED_WON): _S.WON,
    (_S.INQUIRY, _E.LAPSED): _S.WON,
    (_S.NEEDS_RESPONSE, _E.EVIDENCE_ADDED): _S.NEEDS_RESPONSE,
    (_S.NEEDS_RESPONSE, _E.EVIDENCE_DUE_SOON): _S.NEEDS_RESPONSE,
    (_S.NEEDS_RESPONSE, _E.SUBMITTED): _S.UNDER_REVIEW,
    (_S.NEEDS_RESPONSE, _E.ACCEPTED): _S.LOST,
    (_S.NEEDS_RESPONSE, _E.EXPIRED): _S.LOST,
    # The issuer withdraws, or decides, before there is an answer.
    (_S.NEEDS_RESPONSE, _E.DECIDED_WON): _S.WON,
    (_S.NEEDS_RESPONSE, _E.DECIDED_LOST): _S.LOST,
    # The answer to an inquiry is still on its way when the chargeback comes.
    (_S.NEEDS_RESPONSE, _E.REPRESENTED): _S.NEEDS_RESPONSE,
    (_S.UNDER_REVIEW, _E.REPRESENTED): _S.UNDER_REVIEW,
    (_S.UNDER_REVIEW, _E.DECISION_OVERDUE): _S.UNDER_REVIEW,
    (_S.UNDER_REVIEW, _E.ESCALATED): _S.NEEDS_RESPONSE,
    (_S.UNDER_REVIEW, _E.DECIDED_WON): _S.WON,
    (_S.UNDER_REVIEW, _E.DECIDED_LOST): _S.LOST,
    (_S.UNDER_REVIEW, _E.LAPSED): _S.WON,
    # The network's latest word counts: the money moves with it.
    (_S.WON, _E.REPRESENTED): _S.WON,
    (_S.WON, _E.ESCALATED): _S.NEEDS_RESPONSE,
    (_S.WON, _E.REOPENED): _S.NEEDS_RESPONSE,
    (_S.WON, _E.DECIDED_LOST): _S.LOST,
    (_S.LOST, _E.REPRESENTED): _S.LOST,
    (_S.LOST, _E.DECIDED_WON): _S.WON,
}

# Events that can happen to one kind of dispute alone.
_KINDS: dict[DisputeEvent, DisputeKind] = {
    _E.ESCALATED: DisputeKind.INQUIRY,
    _E.REOPENED: DisputeKind.CHARGEBACK,
    _E.OVERDUE: DisputeKind.INQUIRY,
    _E.LAPSED: DisputeKind.INQUIRY,
    _E.DECISION_OVERDUE: DisputeKind.CHARGEBACK,
    _E.DECIDED_LOST: DisputeKind.CHARGEBACK,
}


class Holding(StrEnum):
    """Who has the disputed money: the merchant, nobody yet (it is set aside), or the cardholder's issuer."""

    MERCHANT = "merchant"
    ASIDE = "aside"
    ISSUER = "issuer"


@dataclass(frozen=True, slots=True)
class Dispute:
    """How a dispute stands. `submissions` counts the answers: one to an inquiry, one each time that it is charged back.

    `overdue` says that the answer to an inquiry is late.
    """

    money: Money
    kind: DisputeKind
    status: DisputeStatus
    submissions: int = 0
    overdue: bool = False

    @property
    def holding(self) -> Holding:
        if self.kind is DisputeKind.INQUIRY or self.status is DisputeStatus.WON:
            return Holding.MERCHANT
        return Holding.ISSUER if self.status is DisputeStatus.LOST else Holding.ASIDE


def opened(notice: ChargebackNotice) -> Dispute:
    """The dispute that the first notice of a case opens, whatever its stage: a decision follows from it by `apply`."""
    inquiry = notice.kind is DisputeKind.INQUIRY
    return Dispute(notice.money, notice.kind, DisputeStatus.INQUIRY if inquiry else DisputeStatus.NEEDS_RESPONSE)


def apply(dispute: Dispute, event: DisputeEvent, money: Money | None = None) -> Dispute:
    """The dispute after `event`. `money` is what a chargeback takes, for `ESCALATED` and `REOPENED`.

    Raises:
        InvalidTransition: nothing of the kind can happen in this state (`dispute_unexpected_state`).
    """
    status = TRANSITIONS.get((dispute.status, event))
    if (
        status is None
        or _KINDS.get(event, dispute.kind) is not dispute.kind
        or (event is _E.OVERDUE and dispute.overdue)
    ):
        raise InvalidTransition(
            "dispute_unexpected_state", f"this cannot happen to a dispute that is {dispute.status} ({dispute.kind})"
        )
    match event:
        case DisputeEvent.ESCALATED | DisputeEvent.REOPENED:
            chargeback = replace(dispute, kind=DisputeKind.CHARGEBACK, money=money or dispute.money)
            return replace(chargeback, status=status, overdue=False)
        case DisputeEvent.SUBMITTED:
            return replace(dispute, status=status, submissions=dispute.submissions + 1)
        case DisputeEvent.OVERDUE:
            return replace(dispute, overdue=True)
        case _:
            return replace(dispute, status=status)


def event_of(dispute: Dispute, notice: ChargebackNotice) -> DisputeEvent | None:
    """What a further notice does to the dispute; None if nothing: it says what is so already, or cannot be."""
    match notice.stage:
        case NoticeStage.WON:
            event = DisputeEvent.DECIDED_WON
        case NoticeStage.LOST:
            event = DisputeEvent.DECIDED_LOST
        case NoticeStage.OPENED if notice.kind is DisputeKind.CHARGEBACK:
            inquiry = dispute.kind is DisputeKind.INQUIRY
            event = DisputeEvent.ESCALATED if inquiry else DisputeEvent.REOPENED
        case _:
            return None
    try:
        apply(dispute, event, notice.money)
    except InvalidTransition:
        return None
    return event


# ------------------------------------------------------------------------------------------------------------ deadlines

# American Express and Discover give a merchant 20 days to answer a chargeback, Visa 30, Mastercard 45: the shortest is
# right for all. To a retrieval request American Express wants an answer within 10 days, the others within 20.
RESPONSE_WINDOWS: dict[DisputeKind, timedelta] = {
    DisputeKind.CHARGEBACK: timedelta(days=20),
    DisputeKind.INQUIRY: timedelta(days=10),
}

# How long before the deadline the merchant is reminded.
REMINDERS = (timedelta(days=7), timedelta(days=2), timedelta(days=1))

# Visa's and Mastercard's rules give an issuer 120 days from the payment for a chargeback. An inquiry comes later than
# the payment, so that none can follow once as many days have passed since it came.
CHARGEBACK_RIGHT = timedelta(days=120)

# Mastercard lets an issuer take 45 days over a representment, Visa 30. After that an operator should ask.
DECISION_WINDOW = timedelta(days=45)

# For as long as that again a decided case may come back (Mastercard's pre-arbitration: 45 days, Visa's: 30).
LATE_NOTICE_WINDOW = timedelta(days=45)


def respond_by(notice: ChargebackNotice) -> datetime:
    """When the answer to what `notice` opens must be there: the network's own deadline, or the usual one."""
    return notice.respond_by or notice.issued_at + RESPONSE_WINDOWS[notice.kind]


def reminders(due_by: datetime, now: datetime) -> list[tuple[datetime, int]]:
    """What is left of the reminders before `due_by`, the earliest first: when, and how many days are left then."""
    moments = [(due_by - ahead, ahead.days) for ahead in REMINDERS]
    return [moment for moment in moments if moment[0] > now]
