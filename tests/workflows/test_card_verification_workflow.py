"""The rules of a card's verification, with time driven."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.testing import WorkflowEnvironment

from domain.currency import Currency
from domain.money import Money
from domain.network import SealedCredential
from domain.outcomes import DoubtReason, Unknown
from domain.verifications import VerificationStatus
from temporal.search_attributes import ACCOUNT_ID, VERIFICATION_STATUS
from tests.support.card_world import NOTHING, CardWorld, open_card_world
from tests.support.world import Fault, declined

S = VerificationStatus
EARLY = SealedCredential("tok_test", "early.box", "early")
LOST = Unknown(DoubtReason.TIMEOUT, "632512000009", "000009")


@pytest_asyncio.fixture
async def world(time_skipping_env: WorkflowEnvironment, engine: AsyncEngine) -> AsyncIterator[CardWorld]:
    async with open_card_world(time_skipping_env.client, engine) as opened:
        yield opened


async def test_a_card_that_its_issuer_vouches_for_is_verified(world: CardWorld) -> None:
    result = await world.verify()
    assert (result.status, result.attempts) == (S.VERIFIED, 1)
    row = await world.row()
    assert (row["status"], row["rrn"], row["decline_code"]) == ("verified", NOTHING.rrn, None)
    [asked] = world.outside.verify.calls
    assert asked.effect_key == f"{world.verification.verification_id}:verify:1"
    assert (asked.reference, asked.currency) == (world.verification.verification_id, Currency.USD)
    [order] = world.outside.credential.calls
    assert order.money == Money(0, Currency.USD)


async def test_an_answer_at_once_is_not_worth_a_search_attribute(world: CardWorld) -> None:
    await world.verify()
    shown = (await world.handle.describe()).typed_search_attributes
    assert shown.get(VERIFICATION_STATUS) is None


async def test_a_card_that_its_issuer_declines_says_why(world: CardWorld) -> None:
    world.outside.verify.then(declined("N7"))
    assert (await world.verify()).status is S.DECLINED
    row = await world.row()
    assert (row["status"], row["decline_code"], row["reason"]) == ("declined", "incorrect_cvc", None)
    assert len(world.outside.verify.calls) == 1


async def test_a_lost_answer_is_asked_for_anew_as_a_question_of_its_own(world: CardWorld) -> None:
    world.outside.verify.then(LOST, NOTHING)
    result = await world.verify()
    assert (result.status, result.attempts) == (S.VERIFIED, 2)
    keys = [asked.effect_key.rpartition(":")[2] for asked in world.outside.verify.calls]
    assert keys == ["1", "2"]
    assert len(world.outside.credential.calls) == 2
    shown = (await world.handle.describe()).typed_search_attributes
    assert shown.get(VERIFICATION_STATUS) == "verified"


async def test_three_lost_answers_are_a_result_that_operators_find(world: CardWorld) -> None:
    world.outside.verify.then(LOST)
    result = await world.verify()
    assert (result.status, result.attempts, result.reason) == (S.UNKNOWN, 3, "timeout")
    assert len(world.outside.verify.calls) == 3
    row = await world.row()
    assert (row["status"], row["reason"], row["rrn"]) == ("unknown", "timeout", LOST.rrn)
    shown = (await world.handle.describe()).typed_search_attributes
    assert shown.get(VERIFICATION_STATUS) == "unknown"
    assert shown.get(ACCOUNT_ID) == world.verification.account_id


async def test_the_card_shows_as_being_verified_until_it_is_decided(world: CardWorld) -> None:
    world.outside.verify.then(LOST, NOTHING)
    handle = await world.begin()
    await world.until_search_attribute(VERIFICATION_STATUS, "unknown")
    assert (await world.row())["status"] == "processing"
    await handle.result()
    assert (await world.row())["status"] == "verified"


async def test_a_network_out_of_reach_is_tried_for_each_question_and_then_unknown(world: CardWorld) -> None:
    world.outside.verify.then(Fault("Unreachable"))
    result = await world.verify()
    assert (result.status, result.attempts, result.reason) == (S.UNKNOWN, 3, "network_Unreachable")
    assert result.rrn is None


@pytest.mark.parametrize("fault", ["TokenUnusable", "NotFound"])
async def test_a_card_that_the_vault_gives_no_credential_for_is_not_asked_about_again(
    world: CardWorld, fault: str
) -> None:
    world.outside.credential.then(Fault(fault, final=True))
    result = await world.verify()
    assert (result.status, result.attempts, result.reason) == (S.UNKNOWN, 1, f"credential_{fault}")
    assert world.outside.verify.calls == []


async def test_a_refused_command_is_not_repeated(world: CardWorld) -> None:
    world.outside.verify.then(Fault("MessageInvalid", final=True))
    result = await world.verify()
    assert (result.status, result.attempts, result.reason) == (S.UNKNOWN, 1, "network_MessageInvalid")


async def test_the_credential_that_came_with_the_request_serves_the_first_question_only(
    world: CardWorld, time_skipping_env: WorkflowEnvironment
) -> None:
    now = await time_skipping_env.get_current_time()
    world.verification = replace(world.verification, credential=EARLY, requested_at=now)
    world.outside.verify.then(LOST, NOTHING)
    await world.verify()
    assert [asked.credential.sealed_pan for asked in world.outside.verify.calls] == ["early.box", "key.box"]


async def test_a_credential_that_waited_too_long_is_not_used(
    world: CardWorld, time_skipping_env: WorkflowEnvironment
) -> None:
    then = await time_skipping_env.get_current_time() - timedelta(minutes=5)
    world.verification = replace(world.verification, credential=EARLY, requested_at=then)
    await world.verify()
    assert [asked.credential.sealed_pan for asked in world.outside.verify.calls] == ["key.box"]


async def test_a_credential_that_ran_out_on_the_way_is_replaced_for_the_next_question(world: CardWorld) -> None:
    world.outside.verify.then(Fault("CredentialExpired", final=True), NOTHING)
    result = await world.verify()
    assert (result.status, result.attempts) == (S.VERIFIED, 2)


async def test_a_cancellation_leaves_no_verification_half_way(world: CardWorld) -> None:
    world.outside.verify.then(LOST, NOTHING)
    handle = await world.begin()
    await world.until_search_attribute(VERIFICATION_STATUS, "unknown")
    await handle.cancel()
    assert (await handle.result()).status is S.VERIFIED


async def test_one_verification_runs_once(world: CardWorld) -> None:
    await world.verify()
    with pytest.raises(WorkflowAlreadyStartedError):
        await world.begin()
    assert len(world.outside.verify.calls) == 1


async def test_a_card_that_is_added_with_a_verification_is_verified_once_it_can_be_used(
    time_skipping_env: WorkflowEnvironment, engine: AsyncEngine
) -> None:
    async with open_card_world(time_skipping_env.client, engine, status="pending") as world:
        await (await world.provision(then_verify=True)).result()
        assert (await world.handle.result()).status is S.VERIFIED


async def test_a_verification_that_the_client_has_begun_is_not_begun_again_by_the_provisioning(
    world: CardWorld,
) -> None:
    await world.verify()
    await (await world.provision(then_verify=True)).result()
    assert len(world.outside.verify.calls) == 1


async def test_a_card_that_is_added_without_one_is_not_verified(world: CardWorld) -> None:
    await (await world.provision(then_verify=False)).result()
    assert world.outside.verify.calls == []
