"""What becomes of a card after it was added, with time driven."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import WorkflowEnvironment

from activities.contracts import DeviceBox, TokenRenewed
from domain.outcomes import Acknowledged
from temporal.search_attributes import NEEDS_ATTENTION
from temporal.task_queues import TaskQueue
from tests.support.card_world import CardWorld, open_card_world
from tests.support.world import NOW, Fault
from workflows.cards import CardExpiryRemindersWorkflow, CardRemovalWorkflow
from workflows.messages import Resolution, ResolveRequest


@pytest_asyncio.fixture
async def world(time_skipping_env: WorkflowEnvironment, engine: AsyncEngine) -> AsyncIterator[CardWorld]:
    async with open_card_world(time_skipping_env.client, engine) as opened:
        yield opened


async def test_a_removed_card_is_gone_here_in_the_vault_and_at_the_network(world: CardWorld) -> None:
    handle = await world.remove()
    await handle.result()
    method = await world.method()
    assert (method["status"], method["removed_at"] is not None) == ("removed", True)
    token_id = world.verification.token_id
    assert [token.token_id for token in world.outside.delete.calls] == [token_id]
    [told] = world.outside.deprovision.calls
    assert (told.effect_key, told.sealed_pan) == (f"{token_id}:deprovision:1", "key.box")
    assert await world.events() == ["payment_method.removed"]


async def test_the_caller_does_not_wait_for_the_network(world: CardWorld) -> None:
    told = asyncio.Event()

    async def slow(command: object) -> Acknowledged:
        await told.wait()
        return Acknowledged(NOW)

    world.outside.deprovision.then(slow)
    handle = await world.remove()
    assert (await world.method())["status"] == "removed"
    told.set()
    await handle.result()


async def test_callers_at_once_remove_a_card_once(world: CardWorld) -> None:
    handles = await asyncio.gather(*(world.remove() for _ in range(4)))
    await handles[0].result()
    assert len(world.outside.deprovision.calls) == 1
    assert await world.events() == ["payment_method.removed"]


async def test_a_token_whose_number_is_erased_already_is_not_named_to_the_network(world: CardWorld) -> None:
    world.outside.device_box.then(DeviceBox(None))
    await (await world.remove()).result()
    assert world.outside.deprovision.calls == []


async def test_a_network_that_refuses_parks_the_removal_until_two_operators_resolve_it(world: CardWorld) -> None:
    world.outside.deprovision.then(Fault("AdviceRefused", final=True))
    handle = await world.remove()
    async with asyncio.timeout(30):
        while (await handle.describe()).typed_search_attributes.get(NEEDS_ATTENTION) != "network.deprovision":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for operator in ("ada", "bob"):
        decision = ResolveRequest(operator, "network.deprovision", Resolution.ACKNOWLEDGED, "seen at the network")
        await handle.execute_update(CardRemovalWorkflow.resolve, decision)
    await handle.result()
    assert (await world.method())["status"] == "removed"


async def test_a_later_expiry_goes_to_the_vault_the_network_and_the_card(world: CardWorld) -> None:
    await world.renew(2034, 7)
    method = await world.method()
    assert (method["exp_year"], method["exp_month"]) == (2034, 7)
    [told] = world.outside.provision.calls
    assert told.effect_key == f"{world.verification.token_id}:renew:203407"
    assert await world.events() == ["payment_method.renewed"]


async def test_a_renewal_that_the_vault_does_not_take_changes_nothing(world: CardWorld) -> None:
    world.outside.renew.then(TokenRenewed(renewed=False))
    await world.renew(2034, 7)
    assert (await world.method())["exp_year"] == 2030
    assert world.outside.provision.calls == []
    assert await world.events() == []


async def test_the_days_reminders_run_and_end(world: CardWorld) -> None:
    handle = await world.client.start_workflow(
        CardExpiryRemindersWorkflow.run,
        id=f"card-expiry-reminders/{secrets.token_hex(4)}",
        task_queue=TaskQueue.PAYMENTS,
    )
    await handle.result()
    assert await world.events() == []  # it is good for years
