"""A day with very many lines goes on as a new run of its workflow, where it was, and leaves no page out."""

from __future__ import annotations

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.contracts import StageDone
from embedded.servers import binary
from temporal import search_attributes
from tests.support.settlement_world import STAGES, open_settlement_world

PAGES = 40


@pytest.mark.parametrize("stage", ["gather_ours", "match"])
async def test_a_day_of_many_pages_continues_as_new_and_asks_for_each_page_once(stage: str) -> None:
    # The time-skipping server never suggests it, and the usual one only after thousands of events.
    settings = ["--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=60"]
    for name, kind in search_attributes.ALL.items():
        settings += ["--search-attribute", f"{name}={kind}"]
    async with (
        await WorkflowEnvironment.start_local(
            dev_server_existing_path=str(binary("temporal")), dev_server_extra_args=settings
        ) as environment,
        open_settlement_world(environment.client) as settlement,
    ):
        cursors = [str(number) for number in range(1, PAGES)]
        settlement.outside.stages[stage].then(*(StageDone(cursor) for cursor in cursors), StageDone())
        handle = await settlement.settle()
        report = await handle.result()
        assert report.day == "2026-11-22"
        asked = [(name, each.cursor) for name, each in settlement.outside.asked]
        assert [cursor for name, cursor in asked if name == stage] == [None, *cursors]
        assert [name for name, cursor in asked if cursor is None] == list(STAGES)
        assert (
            await environment.client.get_workflow_handle(handle.id).describe()
        ).run_id != handle.first_execution_run_id
