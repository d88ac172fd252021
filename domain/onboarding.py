"""Knowing the customer: the life of a user's case as data, and what its workflow and activities tell each other.

Nothing here is personal: what a person says of themselves travels as ciphertext (`SealedDetails`), under a key of that
user which is destroyed one day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from domain.errors import InvalidTransition
from domain.tiers import Tier


class OnboardingStatus(StrEnum):
    """`PENDING` waits for the user, `IN_REVIEW` for a check or a person of ours."""

    PENDING = "pending"
    IN_REVIEW = "in_review"
    VERIFIED = "verified"
    REJECTED = "rejected"
    CLOSED = "closed"


class OnboardingEvent(StrEnum):
    DOCUMENT_ADDED = "document_added"
    SUBMITTED = "submitted"
    # The check found nothing against the user, or something that a person must look at, or that it cannot be.
    CLEARED = "cleared"
    REFERRED = "referred"
    FAILED = "failed"
    # An operator's word, while a person is asked.
    APPROVED = "approved"
    DENIED = "denied"
    # A verified user against the watch list of today: as before, or a hit.
    RESCREENED = "rescreened"
    HIT = "hit"
    # The identity document is no longer valid.
    EXPIRED = "expired"
    CLOSED = "closed"


class DocumentKind(StrEnum):
    IDENTITY_FRONT = "identity_front"
    IDENTITY_BACK = "identity_back"
    PROOF_OF_ADDRESS = "proof_of_address"
    SELFIE = "selfie"


class CheckOutcome(StrEnum):
    CLEAR = "clear"
    REFER = "refer"
    FAIL = "fail"


_S = OnboardingStatus
_E = OnboardingEvent

TRANSITIONS: dict[tuple[OnboardingStatus, OnboardingEvent], OnboardingStatus] = {
    (_S.PENDING, _E.DOCUMENT_ADDED): _S.PENDING,
    (_S.PENDING, _E.SUBMITTED): _S.IN_REVIEW,
    (_S.IN_REVIEW, _E.CLEARED): _S.VERIFIED,
    (_S.IN_REVIEW, _E.REFERRED): _S.IN_REVIEW,
    (_S.IN_REVIEW, _E.FAILED): _S.REJECTED,
    (_S.IN_REVIEW, _E.APPROVED): _S.VERIFIED,
    (_S.IN_REVIEW, _E.DENIED): _S.REJECTED,
    # An appeal: new documents, then new data or the same again.
    (_S.REJECTED, _E.DOCUMENT_ADDED): _S.REJECTED,
    (_S.REJECTED, _E.SUBMITTED): _S.IN_REVIEW,
    # A verified user renews a document, or moves to another tier.
    (_S.VERIFIED, _E.DOCUMENT_ADDED): _S.VERIFIED,
    (_S.VERIFIED, _E.SUBMITTED): _S.IN_REVIEW,
    (_S.VERIFIED, _E.RESCREENED): _S.VERIFIED,
    (_S.VERIFIED, _E.HIT): _S.IN_REVIEW,
    (_S.VERIFIED, _E.EXPIRED): _S.PENDING,
    (_S.PENDING, _E.CLOSED): _S.CLOSED,
    (_S.IN_REVIEW, _E.CLOSED): _S.CLOSED,
    (_S.VERIFIED, _E.CLOSED): _S.CLOSED,
    (_S.REJECTED, _E.CLOSED): _S.CLOSED,
}

MAX_DOCUMENTS = 20


@dataclass(frozen=True, slots=True)
class OnboardingDocument:
    """A stored file. Its name is not kept; `sha256` (hexadecimal) is of the ciphertext that is in the storage."""

    document_id: str
    kind: DocumentKind
    content_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SealedDetails:
    """A person's data, AES-256-GCM under the user's key `key_id` (base64), and what may be known of it without it.

    `document_expires_on` is ISO 8601, None where no identity document was named.
    """

    key_id: str
    ciphertext: str
    document_expires_on: str | None = None


@dataclass(frozen=True, slots=True)
class Onboarding:
    """How a case stands. `awaits_person` says that no check can end the review any more, `frozen` that the user may
    send no money until it ends. `kinds` are the kinds of documents handed in; `tier` is what has been earned."""

    status: OnboardingStatus = OnboardingStatus.PENDING
    tier: Tier = Tier.UNVERIFIED
    kinds: tuple[DocumentKind, ...] = ()
    documents: int = 0
    submissions: int = 0
    names_document: bool = False
    awaits_person: bool = False
    frozen: bool = False


def apply(case: Onboarding, event: OnboardingEvent, *, kind: DocumentKind | None = None) -> Onboarding:
    """The case after `event`; `kind` is the added document's.

    Raises:
        InvalidTransition: nothing of the kind can happen in this state (`onboarding_unexpected_state`), or no further
            document is taken (`onboarding_documents_exceeded`).
    """
    status = TRANSITIONS.get((case.status, event))
    asks_person = event in (OnboardingEvent.APPROVED, OnboardingEvent.DENIED)
    by_check = event in (OnboardingEvent.CLEARED, OnboardingEvent.REFERRED, OnboardingEvent.FAILED)
    if status is None or (asks_person and not case.awaits_person) or (by_check and case.awaits_person):
        raise InvalidTransition(
            "onboarding_unexpected_state", f"this cannot happen to an onboarding that is {case.status}"
        )
    match event:
        case OnboardingEvent.DOCUMENT_ADDED:
            return _with_document(case, kind)
        case OnboardingEvent.SUBMITTED:
            return replace(case, status=status, submissions=case.submissions + 1, awaits_person=False)
        case OnboardingEvent.REFERRED:
            return replace(case, awaits_person=True)
        case OnboardingEvent.HIT:
            return replace(case, status=status, awaits_person=True, frozen=True)
        case OnboardingEvent.CLEARED | OnboardingEvent.APPROVED:
            return replace(case, status=status, tier=earned(case), awaits_person=False, frozen=False)
        case OnboardingEvent.FAILED | OnboardingEvent.DENIED:
            return replace(case, status=status, tier=Tier.UNVERIFIED, awaits_person=False, kinds=())
        case OnboardingEvent.EXPIRED:
            kept = tuple(kind for kind in case.kinds if kind is DocumentKind.PROOF_OF_ADDRESS)
            return replace(case, status=status, tier=Tier.UNVERIFIED, kinds=kept, names_document=False)
        case _:
            return replace(case, status=status, awaits_person=False)


def earned(case: Onboarding) -> Tier:
    """The tier that a case is worth once it is found to be in order."""
    if not (case.names_document and DocumentKind.IDENTITY_FRONT in case.kinds):
        return Tier.BASIC
    return Tier.PLUS if DocumentKind.PROOF_OF_ADDRESS in case.kinds else Tier.VERIFIED


def _with_document(case: Onboarding, kind: DocumentKind | None) -> Onboarding:
    if case.documents >= MAX_DOCUMENTS:
        raise InvalidTransition("onboarding_documents_exceeded", f"a case has {MAX_DOCUMENTS} documents at most")
    assert kind is not None
    kinds = case.kinds if kind in case.kinds else (*case.kinds, kind)
    return replace(case, kinds=kinds, documents=case.documents + 1)


# -------------------------------------------------------------------------------- what workflow and activities exchange


@dataclass(frozen=True, slots=True)
class Checked:
    """What the provider found: `reasons` are codes (`watch_list:wl-0007:94`), never names. `list_version` is the watch
    list's that was looked at."""

    outcome: CheckOutcome
    reasons: tuple[str, ...]
    list_version: str


@dataclass(frozen=True, slots=True)
class OnboardingChange:
    """One event of a case, to be written: `onboarding` is the case after it, `sequence` counts from 1 without gaps."""

    user_id: str
    account_id: str
    sequence: int
    event: OnboardingEvent
    onboarding: Onboarding
    occurred_at: datetime
    actor: str
    reasons: tuple[str, ...] = ()
    list_version: str | None = None
    details: SealedDetails | None = None
    document: OnboardingDocument | None = None
