"""Settlement's workflows: the order of a day, its pages, what parks, and how a break ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from activities.contracts import OpenBreak, StageDone
from domain.postings import BreakOutcome
from tests.support.settlement_world import STAGES, SettlementWorld, open_settlement_world
from tests.support.world import Fault
from workflows.messages import Resolution, ResolveRequest, RetryRequest
from workflows.settlement import BreakWorkflow, SettlementWorkflow

STEP = "settlement.break"


@pytest_asyncio.fixture
async def settlement(time_skipping_env: WorkflowEnvironment) -> AsyncIterator[SettlementWorld]:
    async with open_settlement_world(time_skipping_env.client) as world:
        yield world


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it watches another event loop's work
            await asyncio.sleep(0.02)


async def test_a_day_goes_through_its_stages_in_order(settlement: SettlementWorld) -> None:
    report = await (await settlement.settle()).result()
    assert [name for name, _ in settlement.outside.asked] == list(STAGES)
    assert {stage.day for _, stage in settlement.outside.asked} == {"2026-11-22"}
    assert (report.records, report.open_breaks) == (3, 1)


async def test_a_stage_is_asked_for_page_after_page(settlement: SettlementWorld) -> None:
    settlement.outside.stages["match"].then(StageDone("500"), StageDone("1000"), StageDone())
    await (await settlement.settle()).result()
    cursors = [stage.cursor for name, stage in settlement.outside.asked if name == "match"]
    assert cursors == [None, "500", "1000"]


async def test_without_a_day_the_one_before_is_settled(
    settlement: SettlementWorld, time_skipping_env: WorkflowEnvironment
) -> None:
    handle = await settlement.settle(None)
    await handle.result()
    started = (await handle.describe()).start_time
    assert settlement.outside.asked[0][1].day < started.date().isoformat()


async def test_a_file_that_is_not_valid_parks_the_day_until_an_operator_asks_again(settlement: SettlementWorld) -> None:
    settlement.outside.stages["begin"].then(Fault("ClearingFileInvalid", final=True))
    handle = await settlement.settle()
    await _until(lambda: len(settlement.outside.asked) == 1)
    settlement.outside.stages["begin"].then(StageDone())
    async with asyncio.timeout(30):
        while True:
            try:
                await handle.execute_update(SettlementWorkflow.retry, RetryRequest("ada", "settlement.begin"))
                break
            except WorkflowUpdateFailedError:
                await asyncio.sleep(0.05)
    assert (await handle.result()).day == "2026-11-22"


async def test_every_open_break_gets_a_workflow_and_only_one(settlement: SettlementWorld) -> None:
    settlement.outside.check.then("break_amount")
    settlement.outside.stages["list_breaks"].then(StageDone(None, (settlement.found,)))
    await (await settlement.settle()).result()
    first = (await settlement.break_handle.describe()).run_id
    await (await settlement.settle("2026-11-23")).result()
    assert (await settlement.break_handle.describe()).run_id == first
    await _resolved(settlement, Resolution.WRITE_OFF)


async def _resolve(settlement: SettlementWorld, operator: str, outcome: Resolution, reason: str = "because") -> bool:
    request = ResolveRequest(operator, STEP, outcome, reason)
    return (await settlement.break_handle.execute_update(BreakWorkflow.resolve, request)).applied


async def _resolved(settlement: SettlementWorld, outcome: Resolution) -> None:
    assert not await _resolve(settlement, "ada", outcome)
    assert await _resolve(settlement, "grace", outcome)
    await settlement.break_handle.result()


@pytest.mark.parametrize("outcome", [Resolution.WRITE_OFF, Resolution.MERCHANT, Resolution.NETWORK])
async def test_two_operators_decide_who_bears_a_break(settlement: SettlementWorld, outcome: Resolution) -> None:
    settlement.outside.check.then("break_amount")
    await settlement.start_break()
    await _resolved(settlement, outcome)
    [decision] = settlement.outside.decisions
    assert decision.outcome is BreakOutcome(outcome.value)
    assert (decision.operators, decision.reason) == (("ada", "grace"), "because")


async def test_one_operator_alone_resolves_no_break(settlement: SettlementWorld) -> None:
    settlement.outside.check.then("break_amount")
    await settlement.start_break()
    assert not await _resolve(settlement, "ada", Resolution.WRITE_OFF)
    assert not await _resolve(settlement, "ada", Resolution.WRITE_OFF)
    assert settlement.outside.decisions == []
    await _resolved(settlement, Resolution.NETWORK)


async def test_a_break_that_the_next_file_explains_ends_by_itself(
    settlement: SettlementWorld, time_skipping_env: WorkflowEnvironment
) -> None:
    settlement.outside.check.then("break_missing_there", "break_missing_there", None)
    handle = await settlement.start_break()
    await handle.result()
    assert len(settlement.outside.check.calls) == 3
    assert settlement.outside.decisions == []


async def test_a_merchant_that_is_not_known_cannot_bear_a_break(time_skipping_env: WorkflowEnvironment) -> None:
    async with open_settlement_world(time_skipping_env.client) as world:
        unknown = OpenBreak(world.found.break_id, "missing_here", 100, False)
        settlement = SettlementWorld(world.client, world.outside, unknown)
        settlement.outside.check.then("break_missing_here")
        await settlement.start_break()
        await _refused("step_not_resolvable", _resolve(settlement, "ada", Resolution.MERCHANT))
        await _resolved(settlement, Resolution.WRITE_OFF)


async def _refused(code: str, call: Awaitable[Any]) -> None:
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await call
    assert isinstance(refusal.value.cause, ApplicationError)
    assert refusal.value.cause.type == code
