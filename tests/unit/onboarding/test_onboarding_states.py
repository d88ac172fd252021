"""A case only takes the ways of its table; tiers follow from what was handed in and found in order."""

from __future__ import annotations

import itertools

import pytest

from domain.currency import Currency
from domain.errors import InvalidTransition
from domain.onboarding import (
    MAX_DOCUMENTS,
    TRANSITIONS,
    DocumentKind,
    Onboarding,
    OnboardingEvent,
    OnboardingStatus,
    apply,
)
from domain.tiers import Tier, limit_for, limits_for

_E = OnboardingEvent


def _after(*events: OnboardingEvent, case: Onboarding | None = None) -> Onboarding:
    current = case or Onboarding()
    for event in events:
        current = apply(current, event, kind=DocumentKind.IDENTITY_FRONT if event is _E.DOCUMENT_ADDED else None)
    return current


@pytest.mark.parametrize(("status", "event"), list(itertools.product(OnboardingStatus, OnboardingEvent)))
def test_what_is_not_in_the_table_is_refused(status: OnboardingStatus, event: OnboardingEvent) -> None:
    persons = event in (_E.APPROVED, _E.DENIED)
    case = Onboarding(status, awaits_person=persons)
    if (status, event) in TRANSITIONS:
        assert apply(case, event, kind=DocumentKind.SELFIE).status is TRANSITIONS[status, event]
    else:
        with pytest.raises(InvalidTransition, match="cannot happen"):
            apply(case, event, kind=DocumentKind.SELFIE)


def test_only_a_person_ends_a_review_that_asks_for_one() -> None:
    referred = _after(_E.SUBMITTED, _E.REFERRED)
    for event in (_E.CLEARED, _E.FAILED, _E.REFERRED):
        with pytest.raises(InvalidTransition):
            apply(referred, event)
    assert apply(referred, _E.APPROVED).status is OnboardingStatus.VERIFIED
    with pytest.raises(InvalidTransition):
        apply(_after(_E.SUBMITTED), _E.APPROVED)


def test_a_hit_freezes_until_a_person_approves() -> None:
    hit = _after(_E.SUBMITTED, _E.CLEARED, _E.HIT)
    assert hit.frozen
    assert hit.awaits_person
    assert not apply(hit, _E.APPROVED).frozen
    # Who is denied stays frozen, through any appeal, until somebody approves.
    assert _after(_E.DENIED, _E.SUBMITTED, _E.REFERRED, case=hit).frozen


@pytest.mark.parametrize(
    ("kinds", "names_document", "tier"),
    [
        ((), False, Tier.BASIC),
        ((DocumentKind.IDENTITY_FRONT,), False, Tier.BASIC),
        ((DocumentKind.PROOF_OF_ADDRESS,), True, Tier.BASIC),
        ((DocumentKind.IDENTITY_FRONT,), True, Tier.VERIFIED),
        ((DocumentKind.IDENTITY_FRONT, DocumentKind.PROOF_OF_ADDRESS), True, Tier.PLUS),
    ],
)
def test_the_tier_follows_from_what_was_handed_in(
    kinds: tuple[DocumentKind, ...], names_document: bool, tier: Tier
) -> None:
    case = Onboarding(OnboardingStatus.IN_REVIEW, kinds=kinds, names_document=names_document)
    assert apply(case, _E.CLEARED).tier is tier


def test_who_is_rejected_or_whose_document_expires_loses_the_tier() -> None:
    verified = _after(_E.DOCUMENT_ADDED, _E.SUBMITTED, _E.CLEARED)
    assert verified.tier is not Tier.UNVERIFIED
    assert apply(verified, _E.EXPIRED).tier is Tier.UNVERIFIED
    assert _after(_E.HIT, _E.DENIED, case=verified).tier is Tier.UNVERIFIED


def test_a_case_takes_so_many_documents_and_no_more() -> None:
    full = _after(*[_E.DOCUMENT_ADDED] * MAX_DOCUMENTS)
    with pytest.raises(InvalidTransition) as refusal:
        apply(full, _E.DOCUMENT_ADDED, kind=DocumentKind.SELFIE)
    assert refusal.value.code == "onboarding_documents_exceeded"


@pytest.mark.parametrize("currency", Currency)
def test_a_better_known_user_never_has_less(currency: Currency) -> None:
    ladder = [limits_for(tier, currency) for tier in Tier]
    for lower, higher in itertools.pairwise(ladder):
        assert lower.per_payment_minor <= higher.per_payment_minor
        assert lower.per_transfer_minor <= higher.per_transfer_minor
        for less, more in zip(lower.windows, higher.windows, strict=True):
            assert less.count <= more.count
            assert less.amount_minor <= more.amount_minor
    assert all(window.count == window.amount_minor == 0 for window in ladder[0].windows)


def test_a_limit_is_of_its_currency_and_not_one_number_for_all() -> None:
    assert limit_for(Tier.UNVERIFIED, Currency.USD) == 1_000_000  # $10,000.00
    assert limit_for(Tier.UNVERIFIED, Currency.JPY) == 1_500_000  # ¥1,500,000
    assert limit_for(Tier.UNVERIFIED, Currency.KWD) == 3_100_000  # 3,100.000 dinar
    assert limit_for(Tier.UNVERIFIED, Currency.EUR) == 900_000


def test_a_currency_without_a_rate_is_never_laxer_than_the_dollar() -> None:
    for currency in Currency:
        units = limit_for(Tier.VERIFIED, currency) / 10**currency.exponent
        assert units > 0
