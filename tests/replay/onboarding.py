"""What is recorded of cases and closures: a case that sees every event of its kind, and two closures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from domain.ids import removal_workflow_id
from tests.support.onboarding_world import CLEAR, FAILED, HIT, RETENTION, OnboardingWorld
from tests.support.world import Fault
from workflows.closure import ClosureWorkflow
from workflows.onboarding import OnboardingWorkflow

Scenario = Callable[[OnboardingWorld], Awaitable[None]]


async def rejected_appealed_hit_and_expired(world: OnboardingWorld) -> None:
    """The provider is away first, rejects, clears an appeal, finds a hit on another list; a person approves, the
    document expires, and the wallet is closed."""
    world.outside.checks.then(Fault("ProviderUnavailable"), FAILED)
    await world.open()
    await world.submit((await world.environment.get_current_time()).date() + timedelta(days=60))
    await world.environment.sleep(timedelta(minutes=2))
    await world.until_recorded("submitted", "failed")
    world.outside.checks.then(CLEAR)
    await world.add_document()
    await world.submit(again=True)
    await world.until_recorded("submitted", "cleared")
    world.outside.checks.then(HIT)
    await world.rescreen()
    await world.until_recorded("cleared", "hit")
    await world.review(True, "another person of that name")
    await world.until_recorded("hit", "approved")
    await world.environment.sleep(timedelta(days=61))
    await world.until_recorded("approved", "expired")
    await world.handle.signal(OnboardingWorkflow.close)
    await world.handle.result()


async def closed_and_erased(world: OnboardingWorld) -> None:
    await world.verified()
    await world.start_closure()
    await world.closure.execute_update(ClosureWorkflow.decide)
    await world.environment.sleep(RETENTION + timedelta(days=1))
    await world.closure.result()


async def closed_with_cards(world: OnboardingWorld) -> None:
    """A card is still being registered when the wallet is to be closed; then it is removed with another one."""
    cards = [await world.add_method("pending"), await world.add_method()]
    await world.start_closure()
    await world.closure.execute_update(ClosureWorkflow.decide)
    await world.environment.sleep(timedelta(hours=2))
    for card in cards:
        await world.client.get_workflow_handle(removal_workflow_id(card)).result()
    await world.environment.sleep(RETENTION + timedelta(days=1))
    await world.closure.result()


CASES: tuple[Scenario, ...] = (rejected_appealed_hit_and_expired,)
CLOSURES: tuple[Scenario, ...] = (closed_and_erased, closed_with_cards)
