"""Inputs, updates and results of the workflows `onboarding` and `closure`. They are wire format: new fields get
defaults. What an update does not name is in `domain.onboarding` and `domain.closure`."""

from __future__ import annotations

from dataclasses import dataclass

from domain.closure import ClosureStatus
from domain.onboarding import Onboarding, OnboardingDocument, SealedDetails


@dataclass(frozen=True, slots=True)
class OnboardingStart:
    """A user's case; `onboarding` and what follows are where it goes on from after a continue-as-new."""

    user_id: str
    account_id: str
    onboarding: Onboarding | None = None
    sequence: int = 0
    document_expires_on: str | None = None
    screened_with: str | None = None


@dataclass(frozen=True, slots=True)
class AddDocument:
    """A file that is in the storage already. `actor` is who handed it in: the user, or the account."""

    document: OnboardingDocument
    actor: str


@dataclass(frozen=True, slots=True)
class SubmitDetails:
    """Check this, with the documents that were handed in. `None`: what was said before, again (an appeal)."""

    details: SealedDetails | None
    actor: str


@dataclass(frozen=True, slots=True)
class OnboardingReview:
    """An operator's decision, with a reason."""

    operator: str
    approve: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RescreenRequest:
    """Look again: the watch list is another one."""

    list_version: str


@dataclass(frozen=True, slots=True)
class OnboardingSnapshot:
    """How a case stands, with the reasons of the last word on it."""

    user_id: str
    onboarding: Onboarding
    reasons: tuple[str, ...]
    needs_attention: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WithdrawRequest:
    """The user stays. Possible while the closure waits."""

    actor: str


@dataclass(frozen=True, slots=True)
class ClosureSnapshot:
    """How a closure stands; `waiting_for` names what is still open."""

    user_id: str
    status: ClosureStatus
    waiting_for: tuple[str, ...] = ()
    needs_attention: tuple[str, ...] = ()
