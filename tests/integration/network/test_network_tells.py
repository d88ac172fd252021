"""How the network's worker tells Temporal of disputes, on a real server."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle

from domain.disputes import ChargebackNotice, DisputeKind, NoticeStage
from domain.ids import dispute_workflow_id, late_notice_workflow_id
from tests.integration.network.rig import usd
from workers.wiring import _tell_dispute


@pytest.fixture
def notice() -> ChargebackNotice:
    return ChargebackNotice(
        f"{secrets.randbelow(10**10):010d}",
        "pay_1",
        "529414000042",
        usd(1050),
        "10.4",
        DisputeKind.CHARGEBACK,
        NoticeStage.OPENED,
        datetime.now(UTC),
    )


async def events(client: Client, notice: ChargebackNotice) -> tuple[WorkflowHandle[object, object], list[int]]:
    handle = client.get_workflow_handle(dispute_workflow_id(notice.chargeback_id))
    return handle, [event.event_type async for event in handle.fetch_history_events()]


async def test_the_first_notice_starts_the_dispute_and_the_others_are_signals(
    temporal_client: Client, notice: ChargebackNotice
) -> None:
    tell = _tell_dispute(temporal_client)
    await tell(notice)
    await tell(notice)
    await tell(replace(notice, stage=NoticeStage.WON, issued_at=notice.issued_at + timedelta(days=20)))
    handle, kinds = await events(temporal_client, notice)
    assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED) == 1
    assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED) == 3
    described = await handle.describe()
    assert (described.workflow_type, described.task_queue) == ("dispute", "payments")
    await handle.terminate()


async def test_a_notice_about_a_closed_dispute_is_not_told_for_ever(
    temporal_client: Client, notice: ChargebackNotice
) -> None:
    tell = _tell_dispute(temporal_client)
    await tell(notice)
    handle, _ = await events(temporal_client, notice)
    await handle.terminate()
    # An error here would have the network worker tell it again and again.
    late = replace(notice, stage=NoticeStage.LOST)
    await tell(late)
    await tell(late)
    assert (await handle.describe()).status is WorkflowExecutionStatus.TERMINATED
    shown = temporal_client.get_workflow_handle(
        late_notice_workflow_id(late.chargeback_id, late.kind, late.stage, late.issued_at)
    )
    kinds = [event.event_type async for event in shown.fetch_history_events()]
    assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED) == 1
    assert (await shown.describe()).workflow_type == "dispute-late-notice"
    await shown.terminate()
    # One that was seen to already is not shown again.
    await tell(late)
    assert (await shown.describe()).status is WorkflowExecutionStatus.TERMINATED
