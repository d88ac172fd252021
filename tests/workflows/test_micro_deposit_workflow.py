"""The life of a verification by deposits, with time driven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from domain.micro_deposits import (
    CONFIRMATION_WINDOW,
    RETURN_WINDOW,
    BeginRefusal,
    Begun,
    MicroDepositStatus,
    NotReceived,
    OriginationRefused,
)
from temporal.search_attributes import MICRO_DEPOSIT_STATUS, NEEDS_ATTENTION
from tests.support.deposit_world import (
    DOUBT,
    FILE_ID,
    RIGHT,
    TAKEN,
    WRONG,
    DepositWorld,
    open_deposit_world,
)
from tests.support.world import Fault
from workflows.messages import RetryRequest
from workflows.micro_deposit import MicroDepositWorkflow


@pytest_asyncio.fixture
async def deposits(time_skipping_env: WorkflowEnvironment) -> AsyncIterator[DepositWorld]:
    async with open_deposit_world(time_skipping_env.client) as world:
        yield world


async def _refused(code: str, call: Awaitable[Any]) -> None:
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await call
    assert isinstance(refusal.value.cause, ApplicationError)
    assert refusal.value.cause.type == code


async def test_named_amounts_verify_the_account(deposits: DepositWorld, time_skipping_env: WorkflowEnvironment) -> None:
    await deposits.start()
    await deposits.post()
    assert (await deposits.guess(RIGHT)).status is MicroDepositStatus.VERIFIED
    await time_skipping_env.sleep(RETURN_WINDOW)
    result = await deposits.handle.result()
    assert result.status is MicroDepositStatus.VERIFIED
    assert deposits.bank.statuses == ["initiating", "sent", "awaiting_confirmation", "verified"]
    assert [change.version for change in deposits.bank.changes] == [1, 2, 3, 4]


async def test_no_amounts_are_in_the_search_attributes(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.reached(MicroDepositStatus.SENT)
    shown = (await deposits.handle.describe()).typed_search_attributes
    assert shown.get(MICRO_DEPOSIT_STATUS) in ("sent", "initiating")
    assert {pair.key.name for pair in shown.search_attributes} <= {"MicroDepositStatus", "AccountId", "BuildIds"}


@pytest.mark.parametrize("refusal", BeginRefusal)
async def test_an_account_that_may_not_be_verified_gets_no_deposits(
    deposits: DepositWorld, refusal: BeginRefusal
) -> None:
    deposits.bank.begins.then(Begun(refusal))
    await _refused(refusal, deposits.start())
    await deposits.handle.result()
    assert deposits.bank.sends.calls == []
    assert deposits.bank.changes == []


async def test_nothing_is_compared_before_the_deposits_are_posted(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.reached(MicroDepositStatus.SENT)
    await _refused("micro_deposit_not_posted", deposits.guess(RIGHT))
    assert deposits.bank.guesses == []


async def test_three_wrong_guesses_fail_it(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.post()
    left = [(await deposits.guess(WRONG)).attempts_remaining for _ in range(3)]
    assert left == [2, 1, 0]
    result = await deposits.handle.result()
    assert result.status is MicroDepositStatus.FAILED
    assert deposits.bank.changes[-1].reason == "attempts_exceeded"


async def test_guesses_at_once_are_judged_one_after_the_other(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.post()
    await asyncio.gather(*(deposits.guess(WRONG) for _ in range(8)), return_exceptions=True)
    assert len(deposits.bank.guesses) == 3
    assert (await deposits.handle.result()).status is MicroDepositStatus.FAILED


async def test_one_update_is_one_guess(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.post()
    for _ in range(4):
        assert (await deposits.guess(WRONG, "the same")).attempts_remaining == 2
    assert len(deposits.bank.guesses) == 1
    assert deposits.bank.guesses[0].effect_key.endswith("confirm-the same:1")


async def test_it_expires_ten_days_after_the_deposits_were_sent(
    deposits: DepositWorld, time_skipping_env: WorkflowEnvironment
) -> None:
    await deposits.start()
    await deposits.post()
    sent = next(change for change in deposits.bank.changes if change.status is MicroDepositStatus.SENT)
    await time_skipping_env.sleep(CONFIRMATION_WINDOW)
    assert (await deposits.handle.result()).status is MicroDepositStatus.EXPIRED
    expired = deposits.bank.changes[-1]
    assert expired.occurred_at - sent.occurred_at >= timedelta(days=10) - timedelta(seconds=1)


async def test_a_lost_answer_is_a_doubt_until_the_bank_has_said(deposits: DepositWorld) -> None:
    deposits.bank.sends.then(DOUBT)
    deposits.bank.answers.then(TAKEN)
    await deposits.start()
    await deposits.post()
    assert deposits.bank.statuses[:3] == ["initiating", "origination_in_doubt", "sent"]
    assert len(deposits.bank.sends.calls) == 1


async def test_a_file_is_sent_again_once_the_bank_denies_having_it(deposits: DepositWorld) -> None:
    deposits.bank.sends.then(DOUBT, TAKEN)
    deposits.bank.answers.then(NotReceived(FILE_ID))
    await deposits.start()
    await deposits.post()
    assert [command.effect_key for command in deposits.bank.sends.calls] == [
        f"{deposits.order.micro_deposit_id}:originate:1"
    ] * 2


async def test_a_refused_file_fails_it_and_nothing_was_sent(deposits: DepositWorld) -> None:
    deposits.bank.sends.then(OriginationRefused("destination_unknown"))
    await deposits.start()
    assert (await deposits.handle.result()).status is MicroDepositStatus.FAILED
    assert deposits.bank.changes[-1].reason == "destination_unknown"


async def test_a_file_that_cannot_be_made_again_parks_until_an_operator_asks(deposits: DepositWorld) -> None:
    deposits.bank.sends.then(Fault("FileNotRebuilt", final=True))
    await deposits.start()
    async with asyncio.timeout(30):
        while (await deposits.handle.describe()).typed_search_attributes.get(NEEDS_ATTENTION) != "bank.originate":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    deposits.bank.sends.then(TAKEN)
    await deposits.handle.execute_update(MicroDepositWorkflow.retry, RetryRequest("ada", "bank.originate"))
    await deposits.reached(MicroDepositStatus.SENT)


@pytest.mark.parametrize("code", ["R02", "R03", "R04"])
async def test_a_return_ends_it(deposits: DepositWorld, code: str) -> None:
    await deposits.start()
    await deposits.reached(MicroDepositStatus.SENT)
    await deposits.give_back(code)
    assert (await deposits.handle.result()).status is MicroDepositStatus.RETURNED
    assert deposits.bank.changes[-1].reason == code
    assert deposits.bank.erased == [deposits.order.bank_account_id]


async def test_a_return_while_amounts_are_awaited_ends_it(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.post()
    await deposits.give_back("R10")
    assert (await deposits.handle.result()).status is MicroDepositStatus.RETURNED


async def test_a_return_after_the_verification_revokes_the_account(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.post()
    await deposits.guess(RIGHT)
    await deposits.give_back("R10")
    assert (await deposits.handle.result()).status is MicroDepositStatus.RETURNED
    assert deposits.bank.statuses[-2:] == ["verified", "returned"]
    assert deposits.bank.erased == [deposits.order.bank_account_id]


async def test_a_canceled_verification_takes_no_guesses(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.post()
    assert (await deposits.cancel()).status is MicroDepositStatus.CANCELED
    assert (await deposits.handle.result()).status is MicroDepositStatus.CANCELED
    assert deposits.bank.erased == []


async def test_the_removal_of_its_account_ends_it(deposits: DepositWorld) -> None:
    await deposits.start()
    await deposits.post()
    assert (await deposits.remove()).status is MicroDepositStatus.CANCELED
    assert (await deposits.handle.result()).status is MicroDepositStatus.CANCELED
    assert deposits.bank.changes[-1].reason == "bank_account_removed"


async def test_a_removal_waits_until_it_is_known_whether_the_bank_has_the_file(deposits: DepositWorld) -> None:
    deposits.bank.sends.then(DOUBT)
    deposits.bank.answers.then(Fault("FileNotRebuilt", final=True))
    await deposits.start()
    await deposits.reached(MicroDepositStatus.ORIGINATION_IN_DOUBT)
    removal = asyncio.create_task(deposits.remove())
    async with asyncio.timeout(30):
        while (await deposits.handle.describe()).typed_search_attributes.get(NEEDS_ATTENTION) != "bank.inquire":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert not removal.done()
    deposits.bank.answers.then(TAKEN)
    await deposits.handle.execute_update(MicroDepositWorkflow.retry, RetryRequest("ada", "bank.inquire"))
    assert (await removal).status is MicroDepositStatus.CANCELED
    assert deposits.bank.statuses == ["initiating", "origination_in_doubt", "sent", "canceled"]


async def test_a_verification_that_is_over_stays_what_it_is_when_its_account_is_removed(
    deposits: DepositWorld,
) -> None:
    await deposits.start()
    await deposits.post()
    await deposits.guess(RIGHT)
    assert (await deposits.remove()).status is MicroDepositStatus.VERIFIED
    await deposits.give_back("R10")
    assert (await deposits.handle.result()).status is MicroDepositStatus.RETURNED


async def test_what_is_being_sent_cannot_be_canceled(deposits: DepositWorld) -> None:
    deposits.bank.sends.then(DOUBT)
    deposits.bank.answers.then(Fault("FileNotRebuilt", final=True))
    await deposits.start()
    await deposits.reached(MicroDepositStatus.ORIGINATION_IN_DOUBT)
    await _refused("micro_deposit_unexpected_state", deposits.cancel())
