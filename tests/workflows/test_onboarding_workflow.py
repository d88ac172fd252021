"""The life of a case: checks and people, appeals, expiry, another watch list, and faults on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from domain.onboarding import Checked, CheckOutcome, DocumentKind, OnboardingStatus
from tests.support.onboarding_world import CLEAR, FAILED, HIT, OnboardingWorld, open_onboarding_world
from tests.support.world import Fault
from workflows.messages import RetryRequest
from workflows.onboarding import OnboardingWorkflow


@pytest_asyncio.fixture
async def world(time_skipping_env: WorkflowEnvironment, engine: AsyncEngine) -> AsyncIterator[OnboardingWorld]:
    async with open_onboarding_world(time_skipping_env, engine) as opened:
        yield opened


def _status(status: OnboardingStatus):  # type: ignore[no-untyped-def]  # a condition
    return lambda snapshot: snapshot.onboarding.status is status


async def _refused(call: object) -> str:
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await call  # type: ignore[misc]  # an awaitable
    assert isinstance(refusal.value.cause, ApplicationError)
    return str(refusal.value.cause.type)


async def test_who_is_clear_is_verified_and_gets_the_tier_of_what_was_handed_in(world: OnboardingWorld) -> None:
    await world.open()
    await world.add_document()
    await world.add_document(DocumentKind.PROOF_OF_ADDRESS)
    await world.submit((await world.environment.get_current_time()).date() + timedelta(days=900))
    await world.until_recorded("document_added", "document_added", "submitted", "cleared")
    assert (await world.standing())["tier"] == "plus"
    case = await world.case()
    assert (case["status"], case["list_version"], case["version"]) == ("verified", "list-1", 4)
    assert bytes(case["sealed_details"]) == b"ciphertext"


async def test_what_the_provider_refers_waits_for_a_person_who_gives_a_reason(world: OnboardingWorld) -> None:
    world.outside.checks.then(HIT)
    await world.open()
    await world.submit()
    await world.until(lambda snapshot: snapshot.onboarding.awaits_person)
    assert await _refused(world.review(True, reason=" ")) == "reason_required"
    await world.review(True, reason="another person of that name")
    await world.until_recorded("submitted", "referred", "approved")
    assert (await world.standing())["tier"] == "basic"
    assert await _refused(world.review(True)) == "onboarding_unexpected_state"


async def test_who_is_rejected_may_appeal_with_new_documents(world: OnboardingWorld) -> None:
    world.outside.checks.then(FAILED)
    await world.open()
    await world.submit()
    await world.until(_status(OnboardingStatus.REJECTED))
    await world.until_recorded("submitted", "failed")
    world.outside.checks.then(CLEAR)
    await world.add_document()
    await world.submit(again=True)
    await world.until_recorded("failed", "document_added", "submitted", "cleared")


async def test_nothing_is_looked_at_before_something_is_said(world: OnboardingWorld) -> None:
    await world.open()
    assert await _refused(world.submit(again=True)) == "onboarding_details_missing"
    assert world.outside.checks.calls == []


async def test_an_unknown_is_no_yes_and_parks_until_the_provider_answers(world: OnboardingWorld) -> None:
    world.outside.checks.then(Fault("ProviderUnavailable"))
    await world.open()
    await world.submit()
    async with asyncio.timeout(30):
        while len(world.outside.checks.calls) < 2:
            await world.environment.sleep(timedelta(seconds=20))
    assert (await world.case())["status"] == "in_review"
    assert (await world.standing())["tier"] == "unverified"
    world.outside.checks.then(CLEAR)
    await world.environment.sleep(timedelta(hours=2))
    await world.until_recorded("submitted", "cleared")


async def test_a_fault_that_stays_waits_for_an_operator(world: OnboardingWorld) -> None:
    world.outside.checks.then(Fault("KeyMismatch", final=True))
    await world.open()
    await world.submit()
    snapshot = await world.until(lambda found: bool(found.needs_attention))
    assert snapshot.needs_attention == ("onboarding.check",)
    world.outside.checks.then(CLEAR)
    await world.handle.execute_update(OnboardingWorkflow.retry, RetryRequest("operator-1", "onboarding.check"))
    await world.until_recorded("submitted", "cleared")


async def test_a_loan_that_lapsed_is_asked_for_again(world: OnboardingWorld) -> None:
    world.outside.checks.then(Fault("LoanLapsed"), CLEAR)
    await world.open()
    await world.submit()
    await world.environment.sleep(timedelta(minutes=1))
    await world.until_recorded("submitted", "cleared")
    assert len(world.outside.loans.calls) == len(world.outside.checks.calls) == 2


async def test_the_tier_goes_with_the_last_day_of_the_document(world: OnboardingWorld) -> None:
    last_day = (await world.environment.get_current_time()).date() + timedelta(days=30)
    await world.verified(last_day)
    await world.environment.sleep(timedelta(days=29))
    assert (await world.standing())["tier"] == "verified"
    await world.environment.sleep(timedelta(days=3))
    await world.until_recorded("cleared", "expired")
    assert (await world.standing())["tier"] == "unverified"
    assert (await world.case())["status"] == "pending"
    await world.submit()
    await world.until_recorded("expired", "submitted", "cleared")


async def test_a_hit_of_another_list_freezes_sending_until_a_person_has_looked(world: OnboardingWorld) -> None:
    await world.verified()
    world.outside.checks.then(HIT)
    await world.rescreen()
    await world.until_recorded("cleared", "hit")
    standing = await world.standing()
    assert (standing["sending_frozen"], (await world.case())["status"]) == (True, "in_review")
    await world.review(True, "born in another century")
    await world.until_recorded("hit", "approved")
    assert not (await world.standing())["sending_frozen"]


async def test_who_was_held_against_a_list_is_not_held_against_it_again(world: OnboardingWorld) -> None:
    await world.verified()
    world.outside.checks.then(Checked(CheckOutcome.CLEAR, (), "list-2"))
    await world.rescreen()
    await world.until_recorded("cleared", "rescreened")
    await world.rescreen()
    await world.add_document(DocumentKind.SELFIE)
    assert await world.events() == ["document_added", "submitted", "cleared", "rescreened", "document_added"]
    assert len(world.outside.checks.calls) == 2


async def test_a_row_that_cannot_be_written_holds_up_those_behind_it_and_loses_none(world: OnboardingWorld) -> None:
    world.outside.recording.then(Fault("OnboardingUnavailable"), None)
    await world.open()
    await asyncio.gather(*(world.add_document(kind) for kind in DocumentKind))
    assert await world.events() == ["document_added"] * 4
    assert (await world.case())["version"] == 4


async def test_a_closed_case_takes_nothing_more_and_ends(world: OnboardingWorld) -> None:
    await world.verified()
    await world.handle.signal(OnboardingWorkflow.close)
    assert (await world.handle.result()).onboarding.status is OnboardingStatus.CLOSED
    assert (await world.events())[-1] == "closed"
