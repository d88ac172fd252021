"""The end of a wallet: it waits for money, can be withdrawn while it waits, and forgets when the law lets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment

from domain.closure import ClosureStatus
from domain.ids import removal_workflow_id
from domain.outcomes import Acknowledged
from temporal.task_queues import TaskQueue
from tests.support.onboarding_world import RETENTION, OnboardingWorld, open_onboarding_world
from tests.support.world import NOW
from workflows.cards import CardRemovalWorkflow
from workflows.closure import ClosureWorkflow
from workflows.messages import CardRemoval
from workflows.onboarding_messages import WithdrawRequest


@pytest_asyncio.fixture
async def world(time_skipping_env: WorkflowEnvironment, engine: AsyncEngine) -> AsyncIterator[OnboardingWorld]:
    async with open_onboarding_world(time_skipping_env, engine) as opened:
        yield opened


async def _owe(world: OnboardingWorld, status: str) -> None:
    """A payment of the user's that stands at `status`."""
    parameters = {"user": world.user.user_id, "account": world.user.account_id, "status": status}
    async with world.engine.begin() as connection:
        for statement in _PAYMENT:
            await connection.execute(text(statement), parameters)


async def test_the_key_goes_first_and_only_when_the_retention_is_over(world: OnboardingWorld) -> None:
    await world.verified()
    document = await world.add_document()
    await world.start_closure()
    await world.environment.sleep(RETENTION - timedelta(days=1))
    standing = await world.standing()
    assert standing["closed_at"] is not None
    assert (standing["name"], standing["erased_at"]) == ("Anna Eriksson", None)
    assert world.outside.steps == ["remove_tokens", "retire"]
    await world.environment.sleep(timedelta(days=2))
    assert (await world.closure.result()).status is ClosureStatus.ERASED
    assert world.outside.steps == ["remove_tokens", "retire", "destroy"]
    assert f"onboarding/{world.user.user_id}/{document.document_id}" in world.files.deleted


async def test_what_is_personal_is_overwritten_and_the_rest_stays(world: OnboardingWorld) -> None:
    await world.verified()
    await _owe(world, "captured")
    await world.start_closure()
    await world.environment.sleep(RETENTION + timedelta(days=1))
    await world.closure.result()
    standing, case, certificate = await world.standing(), await world.case(), await world.certificate()
    assert (standing["name"], standing["email"], standing["phone"]) == ("erased", None, None)
    assert (case["sealed_details"], case["document_expires_on"]) == (None, None)
    assert (certificate["key_id"], certificate["documents"]) == (world.key_id, 1)
    assert certificate["erased_at"] - certificate["closed_at"] >= RETENTION
    async with world.engine.connect() as connection:
        query = text("SELECT count(*) FROM platform.payments WHERE user_id = :user")
        assert await connection.scalar(query, {"user": world.user.user_id}) == 1
    assert (await world.events())[-1] == "closed"


async def test_each_card_is_removed_as_its_user_would_and_the_network_is_told(world: OnboardingWorld) -> None:
    cards = [await world.add_method() for _ in range(2)]
    bank_account = await world.add_method(bank_account=True)
    gone = await world.add_method("removed")
    await world.start_closure()
    await world.environment.sleep(timedelta(hours=1))
    for card in cards:
        await world.client.get_workflow_handle(removal_workflow_id(card)).result()
    assert {(await world.method(method))["status"] for method in (*cards, bank_account)} == {"removed"}
    network, vault = world.outside.cards.deprovision.calls, world.outside.cards.delete.calls
    assert sorted(told.effect_key for told in network) == sorted(f"tok_{card}:deprovision:1" for card in cards)
    assert sorted(token.token_id for token in vault) == sorted(f"tok_{card}" for card in cards)
    # What was removed before has been told of before; a bank account has no network.
    [tokens] = world.outside.removed
    assert (tokens.token_ids, tokens.bank_account_ids) == ((), (f"ba_{bank_account}",))
    assert gone not in [card.payment_method_id for card in tokens.cards]


async def test_a_removal_that_is_under_way_is_left_to_itself(world: OnboardingWorld) -> None:
    card = await world.add_method()
    told = asyncio.Event()

    async def slow(_: object) -> Acknowledged:
        await told.wait()
        return Acknowledged(NOW)

    world.outside.cards.deprovision.then(slow)
    removal = await world.client.start_workflow(
        CardRemovalWorkflow.run,
        CardRemoval(card, f"tok_{card}"),
        id=removal_workflow_id(card),
        task_queue=TaskQueue.PAYMENTS,
    )
    await world.start_closure()
    await world.closure.execute_update(ClosureWorkflow.decide)
    async with asyncio.timeout(30):
        while (await world.closure_row())["status"] != "closed":  # noqa: ASYNC110 - a row has no event to wait for
            await asyncio.sleep(0.02)
    told.set()
    await removal.result()
    assert len(world.outside.cards.deprovision.calls) == 1


async def test_a_card_that_is_being_registered_is_registered_first_and_then_removed(world: OnboardingWorld) -> None:
    card = await world.add_method("pending")
    await world.start_closure()
    snapshot = await world.closure.execute_update(ClosureWorkflow.decide)
    assert snapshot.waiting_for == ("cards:1",)
    await world.environment.sleep(timedelta(hours=2))
    await world.client.get_workflow_handle(removal_workflow_id(card)).result()
    assert len(world.outside.cards.provision.calls) == len(world.outside.cards.deprovision.calls) == 1
    assert (await world.closure_row())["status"] == "closed"


async def test_it_waits_for_open_money_and_goes_on_by_itself(world: OnboardingWorld) -> None:
    await _owe(world, "authorized")
    await world.start_closure()
    snapshot = await world.closure.execute_update(ClosureWorkflow.decide)
    assert (snapshot.status, snapshot.waiting_for) == (ClosureStatus.WAITING, ("payments:1",))
    assert (await world.closure_row())["waiting_for"] == ["payments:1"]
    assert (await world.standing())["closing_at"] is not None
    await _settle(world)
    await world.environment.sleep(timedelta(hours=2))
    assert (await world.closure_row())["status"] == "closed"


async def test_who_stays_may_pay_again_and_close_later(world: OnboardingWorld) -> None:
    await _owe(world, "in_doubt")
    await world.start_closure()
    await world.closure.execute_update(ClosureWorkflow.decide)
    await world.closure.execute_update(ClosureWorkflow.withdraw, WithdrawRequest(world.user.user_id))
    assert (await world.closure.result()).status is ClosureStatus.WITHDRAWN
    assert (await world.standing())["closing_at"] is None
    await _settle(world)
    await world.start_closure()
    await world.environment.sleep(timedelta(hours=1))
    assert (await world.closure_row())["number"] == 2
    with pytest.raises(WorkflowUpdateFailedError):
        await world.closure.execute_update(ClosureWorkflow.withdraw, WithdrawRequest(world.user.user_id))


async def test_the_database_erases_nobody_before_the_time_or_with_a_living_key(world: OnboardingWorld) -> None:
    await world.verified()
    await world.start_closure()
    await world.environment.sleep(timedelta(hours=1))
    user = {"user": world.user.user_id}
    erase = "UPDATE onboarding.closures SET status = 'erased', erased_at = now() WHERE user_id = :user"
    certify = """
    INSERT INTO onboarding.erasure_certificates
    SELECT user_id, account_id, requested_by, requested_at, closed_at, now(), NULL, 0
    FROM onboarding.closures WHERE user_id = :user
    """
    reopen = "UPDATE platform.users SET closed_at = NULL WHERE id = :user"
    forget = "DELETE FROM onboarding.closures WHERE user_id = :user"
    for statement in (erase, certify, reopen, forget):
        with pytest.raises(IntegrityError):
            async with world.engine.begin() as connection:
                await connection.execute(text(statement), user)


async def _settle(world: OnboardingWorld) -> None:
    async with world.engine.begin() as connection:
        settle = "UPDATE platform.payments SET status = 'voided' WHERE user_id = :user"
        await connection.execute(text(settle), {"user": world.user.user_id})


_PAYMENT = (
    """
    INSERT INTO platform.payment_methods (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year,
        status)
    VALUES ('pm_' || :user, :account, :user, 'tok_' || :user, 'visa', '424242', '4242', 12, 2034, 'active')
    """,
    """
    INSERT INTO platform.payments (id, account_id, user_id, payment_method_id, version, status, amount_minor, currency,
        capture_method, merchant, created_at, updated_at)
    VALUES ('pay_' || :user, :account, :user, 'pm_' || :user, 1, :status, 100, 'USD', 'manual', '{}', now(), now())
    """,
)
