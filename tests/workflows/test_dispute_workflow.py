"""The rules of a dispute's life, with time driven."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from documents.evidence import file_key
from domain.currency import Currency
from domain.disputes import DisputeKind, DisputeStatus, NoticeStage
from domain.outcomes import Acknowledged
from domain.payments import PaymentEvent
from temporal.search_attributes import NEEDS_ATTENTION
from temporal.task_queues import TaskQueue
from tests.support.dispute_world import FEE_MINOR, TEXTS, DisputeWorld, open_dispute_world
from tests.support.disputes import dispute_events, dispute_rows
from tests.support.world import NOW, Fault
from tests.unit.documents.files import PDF
from workflows.dispute import DisputeWorkflow, LateNoticeWorkflow
from workflows.dispute_messages import AcceptDispute, AddEvidence, SubmitEvidence
from workflows.messages import Resolution, ResolveRequest, RetryRequest

S, K, N = DisputeStatus, DisputeKind, NoticeStage
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest_asyncio.fixture
async def world(
    time_skipping_env: WorkflowEnvironment, engine: AsyncEngine, s3_endpoint: str
) -> AsyncIterator[DisputeWorld]:
    async with open_dispute_world(time_skipping_env, engine, s3_endpoint) as opened:
        yield opened


async def _refused(code: str, call: Any) -> None:
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await call
    assert isinstance(refusal.value.cause, ApplicationError)
    assert refusal.value.cause.type == code


async def _submitted(world: DisputeWorld) -> None:
    await world.evidence()
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_events("submitted", "represented")


# ------------------------------------------------------------------------------------------------------------ the ends


async def test_a_case_that_is_answered_and_won_gives_the_money_back(world: DisputeWorld) -> None:
    await world.open()
    assert await world.moved_minor() == {"merchant_payable": -1000, "disputes": 1000}
    await _submitted(world)
    await world.tell(N.WON, after=10 * DAY)
    await world.until_status(S.WON)
    assert await world.moved_minor() == {}
    assert (await world.closed()).status is S.WON
    assert await world.events() == ["created", "evidence_added", "submitted", "represented", "closed"]
    assert (await world.row())["status_reason"] == "decided_by_issuer"


async def test_a_case_that_is_answered_and_lost_costs_the_amount_and_the_fee(world: DisputeWorld) -> None:
    await world.open()
    await _submitted(world)
    await world.tell(N.LOST, after=10 * DAY)
    await world.until_status(S.LOST)
    assert await world.moved_minor() == {
        "merchant_payable": -1000 - FEE_MINOR,
        "network_receivable": 1000,
        "dispute_fees": FEE_MINOR,
    }
    assert (await world.closed()).status is S.LOST


async def test_a_case_without_an_answer_is_lost_at_its_deadline_after_three_reminders(world: DisputeWorld) -> None:
    await world.open()
    for number, left in enumerate((7, 2, 1), start=1):
        await world.skip_to((20 - left) * DAY - MINUTE)
        assert (await world.events()).count("evidence_due_soon") == number - 1
        await world.skip(2 * MINUTE)
        await world.until_events(*["evidence_due_soon"] * number)
        reminder = (await dispute_events(world.engine, world.dispute_id))[-1]["data"]
        assert (reminder["days_left"], reminder["due_by"]) == (left, (world.opens_at + 20 * DAY).isoformat())
    await world.skip_to(20 * DAY - MINUTE)
    assert (await world.handle.query(DisputeWorkflow.snapshot)).status is S.NEEDS_RESPONSE
    await world.skip(2 * MINUTE)
    await world.until_status(S.LOST)
    assert (await world.row())["status_reason"] == "no_response"
    assert (await world.closed()).status is S.LOST


async def test_the_networks_own_deadline_counts_and_past_reminders_are_left_out(world: DisputeWorld) -> None:
    await world.open(respond_by=world.opens_at + 36 * HOUR)
    await world.skip(13 * HOUR)
    await world.until_events("created", "evidence_due_soon")
    await world.skip(24 * HOUR)
    await world.until_status(S.LOST)
    assert await world.events() == ["created", "evidence_due_soon", "closed"]


async def test_giving_in_loses_at_once(world: DisputeWorld) -> None:
    await world.open()
    snapshot = await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())
    assert (snapshot.status, snapshot.due_by) == (S.LOST, None)
    assert (await world.row())["status_reason"] == "accepted"
    assert (await world.closed()).status is S.LOST
    assert world.network.calls == []
    (told,) = world.surrender.calls
    assert (told.chargeback_id, told.money.amount_minor) == (world.chargeback_id, 1000)


# ----------------------------------------------------------------------------------------------------------- inquiries


async def test_an_inquiry_that_is_closed_moves_no_money(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY)
    await _submitted(world)
    assert world.network.calls[0].kind is K.INQUIRY
    await world.tell(N.WON, K.INQUIRY, after=5 * DAY)
    await world.until_status(S.WON)
    assert (await world.closed()).status is S.WON
    assert (
        await dispute_rows(world.engine, "SELECT 1 FROM ledger.transfers WHERE reference = :id", world.dispute_id) == []
    )


async def test_an_answered_inquiry_that_is_escalated_is_answered_again(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY, amount_minor=1000)
    await _submitted(world)
    await world.tell(N.OPENED, after=5 * DAY, amount_minor=800)
    snapshot = await world.until_status(S.NEEDS_RESPONSE)
    assert (snapshot.kind, snapshot.money.amount_minor, snapshot.due_by) == (
        K.CHARGEBACK,
        800,
        world.opens_at + 25 * DAY,
    )
    assert (await world.moved_minor())["disputes"] == 800
    await world.evidence(texts={"uncategorized_text": "They were here twice"})
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_events("submitted", "represented")
    first, second = world.network.calls
    assert (first.kind, second.kind) == (K.INQUIRY, K.CHARGEBACK)
    assert first.effect_key != second.effect_key
    assert first.evidence_sha256 != second.evidence_sha256
    assert json.loads(await world.manifest(2))["texts"] == TEXTS | {"uncategorized_text": "They were here twice"}


async def test_an_unanswered_inquiry_is_overdue_and_may_still_be_escalated(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY)
    await world.skip(11 * DAY)
    await world.until_events("evidence_due_soon", "evidence_due_soon", "evidence_due_soon", "overdue")
    row = await world.row()
    assert (row["status"], row["overdue"]) == ("inquiry", True)
    await world.tell(N.OPENED, after=11 * DAY)
    await world.until_status(S.NEEDS_RESPONSE)
    assert (await world.row())["overdue"] is False


@pytest.mark.parametrize("answered", [True, False])
async def test_an_inquiry_lapses_when_no_chargeback_may_follow_any_more(world: DisputeWorld, answered: bool) -> None:
    await world.open(K.INQUIRY)
    if answered:
        await _submitted(world)
    await world.skip(119 * DAY)
    assert (await world.handle.query(DisputeWorkflow.snapshot)).status is (S.UNDER_REVIEW if answered else S.INQUIRY)
    await world.skip(2 * DAY)
    await world.until_status(S.WON)
    assert (await world.row())["status_reason"] == "no_chargeback_followed"
    assert (await world.closed()).status is S.WON


async def test_an_inquiry_cannot_be_accepted(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY)
    await _refused("dispute_unexpected_state", world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute()))


# -------------------------------------------------------------------------------------- what the network says, and when


@pytest.mark.parametrize(("stage", "status"), [(N.WON, S.WON), (N.LOST, S.LOST)])
async def test_a_decision_before_an_answer_counts(
    world: DisputeWorld, stage: NoticeStage, status: DisputeStatus
) -> None:
    await world.open()
    await world.evidence()
    await world.tell(stage, after=DAY)
    await world.until_status(status)
    await _refused("dispute_unexpected_state", world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence()))
    assert world.network.calls == []


async def test_a_case_may_begin_with_its_decision(world: DisputeWorld) -> None:
    await world.open(stage=N.LOST, until_open=False)
    await world.until_status(S.LOST)
    assert await world.events() == ["created", "closed"]
    assert (await world.moved_minor())["network_receivable"] == 1000


async def test_a_notice_that_comes_again_changes_nothing(world: DisputeWorld) -> None:
    await world.open()
    for _ in range(3):
        await world.handle.signal(DisputeWorkflow.network_decision, world.notice())
        await world.tell(N.WON, after=DAY)
    await world.until_status(S.WON)
    assert await world.events() == ["created", "closed"]
    assert await _notices(world) == [("opened", "created"), ("won", "decided_won")]


async def test_a_decision_that_says_what_is_so_already_is_kept(world: DisputeWorld) -> None:
    await world.open()
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())
    await world.tell(N.LOST, after=3 * DAY)
    assert (await world.closed()).status is S.LOST
    assert await _notices(world) == [("opened", "created"), ("lost", None)]
    assert await world.events() == ["created", "closed"]


async def test_an_issuer_that_gives_in_after_the_deadline_gives_the_money_back(world: DisputeWorld) -> None:
    await world.open()
    await world.skip(21 * DAY)
    await world.until_status(S.LOST)
    await world.tell(N.WON, after=30 * DAY)
    await world.until_status(S.WON)
    assert await world.moved_minor() == {}
    assert (await world.closed()).status is S.WON


async def test_a_won_case_that_comes_back_is_answered_again(world: DisputeWorld) -> None:
    await world.open()
    await _submitted(world)
    await world.tell(N.WON, after=10 * DAY)
    await world.until_status(S.WON)
    await world.tell(N.OPENED, after=20 * DAY)
    snapshot = await world.until_status(S.NEEDS_RESPONSE)
    assert snapshot.due_by == world.opens_at + 40 * DAY
    assert await world.moved_minor() == {"merchant_payable": -1000, "disputes": 1000}
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())
    await world.tell(N.WON, after=25 * DAY)
    await world.until_status(S.WON)
    await world.tell(N.OPENED, after=30 * DAY)
    await world.until_status(S.NEEDS_RESPONSE)
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())
    assert (await world.closed()).status is S.LOST
    assert len({command.effect_key for command in world.surrender.calls}) == 2


async def test_the_networks_latest_word_counts_and_an_older_one_is_only_kept(world: DisputeWorld) -> None:
    await world.open()
    await _submitted(world)
    await world.tell(N.LOST, after=20 * DAY)
    await world.until_status(S.LOST)
    await world.tell(N.WON, after=10 * DAY)
    assert (await world.closed()).status is S.LOST
    assert await _notices(world) == [("opened", "created"), ("won", None), ("lost", "decided_lost")]


async def test_a_decision_long_due_is_said_and_still_waited_for(world: DisputeWorld) -> None:
    await world.open()
    await _submitted(world)
    await world.skip(46 * DAY)
    await world.until_events("decision_overdue")
    await world.skip(100 * DAY)
    await world.tell(N.WON, after=140 * DAY)
    await world.until_status(S.WON)


async def test_the_network_is_told_the_digest_of_what_was_said_and_shown(world: DisputeWorld) -> None:
    await world.open()
    file = await world.stored_file()
    await world.evidence(file=file)
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_events("submitted", "represented")
    (command,) = world.network.calls
    assert (command.chargeback_id, command.documents, command.money.amount_minor) == (world.chargeback_id, 1, 1000)
    assert command.statement == TEXTS["product_description"]
    manifest = json.loads(await world.manifest())
    assert manifest["texts"] == TEXTS
    assert [(each["id"], each["sha256"]) for each in manifest["files"]] == [(file.file_id, file.sha256)]
    row = await world.row()
    assert row["evidence_sha256"] == command.evidence_sha256
    assert row["represented_at"] is not None


# ------------------------------------------------------------------------------------------------------------ evidence


async def test_an_answer_without_evidence_is_refused(world: DisputeWorld) -> None:
    await world.open()
    await _refused("evidence_missing", world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence()))
    await _refused("evidence_missing", world.handle.execute_update(DisputeWorkflow.add_evidence, AddEvidence()))
    await world.evidence(texts={"customer_name": "Ada"})
    await world.evidence(texts={"customer_name": ""})
    await _refused("evidence_missing", world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence()))


async def test_no_evidence_is_taken_after_the_answer(world: DisputeWorld) -> None:
    await world.open()
    await _submitted(world)
    await _refused("dispute_unexpected_state", world.evidence())
    await _refused("dispute_unexpected_state", world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence()))
    await _refused("dispute_unexpected_state", world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute()))


async def test_ten_files_are_taken_and_no_more(world: DisputeWorld) -> None:
    await world.open()
    files = [await world.stored_file(name=f"{number}.pdf") for number in range(11)]
    outcomes = await asyncio.gather(*(world.evidence(texts={}, file=file) for file in files), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, WorkflowUpdateFailedError)]
    assert len(refusals) == 1
    assert isinstance(refusals[0].cause, ApplicationError)
    assert refusals[0].cause.type == "evidence_limit_reached"
    rows = await dispute_rows(
        world.engine, "SELECT 1 FROM platform.dispute_files WHERE dispute_id = :id", world.dispute_id
    )
    assert len(rows) == 10


async def test_of_an_answer_and_a_surrender_at_once_one_wins(world: DisputeWorld) -> None:
    await world.open()
    await world.evidence()
    outcomes = await asyncio.gather(
        world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence()),
        world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute()),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, WorkflowUpdateFailedError) for outcome in outcomes) == 1
    assert (await world.row())["status"] in ("under_review", "lost")


async def test_an_answer_in_the_last_hour_is_in_time(world: DisputeWorld) -> None:
    await world.open()
    await world.evidence()
    await world.skip(20 * DAY - HOUR)
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.skip(DAY)
    assert (await world.until_status(S.UNDER_REVIEW)).due_by is not None


# ------------------------------------------------------------------------------------------------------ when parts fail


async def test_a_storage_that_is_down_parks_the_answer_which_goes_out_when_it_is_back(
    time_skipping_env: WorkflowEnvironment, engine: AsyncEngine, s3_endpoint: str
) -> None:
    async with open_dispute_world(time_skipping_env, engine, s3_endpoint, with_bucket=False) as world:
        await world.open()
        await world.evidence()
        snapshot = await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
        assert snapshot.status is S.UNDER_REVIEW
        await world.skip_until_parked("documents.freeze:1", 16 * MINUTE)
        assert world.network.calls == []
        await world.storage.create_bucket()
        await world.handle.execute_update(DisputeWorkflow.retry, RetryRequest("operator-1", "documents.freeze:1"))
        await world.until_events("submitted", "represented")
        assert (await world.until_status(S.UNDER_REVIEW)).needs_attention == ()


async def test_a_file_that_is_gone_or_altered_parks_the_answer(world: DisputeWorld) -> None:
    await world.open()
    file = await world.stored_file()
    key = file_key(world.dispute_id, file.file_id)
    await world.evidence(file=file)
    await world.storage.delete(key)
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_parked("documents.freeze:1")
    await world.storage.put(key, PDF + b"altered", "application/pdf")
    await world.handle.execute_update(DisputeWorkflow.retry, RetryRequest("operator-1"))
    await world.until_parked("documents.freeze:1")
    await world.storage.put(key, PDF, "application/pdf")
    await world.handle.execute_update(DisputeWorkflow.retry, RetryRequest("operator-1"))
    await world.until_events("submitted", "represented")


async def test_an_answer_is_repeated_until_the_network_takes_note_of_it(world: DisputeWorld) -> None:
    fault = Fault("NotAcknowledged")
    world.network.then(fault, fault, fault, Acknowledged(NOW))
    await world.open()
    await world.evidence()
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.skip(5 * MINUTE)
    await world.until_events("submitted", "represented")
    assert len(world.network.calls) == 4
    assert len({call.effect_key for call in world.network.calls}) == 1


async def test_an_answer_that_the_network_refuses_waits_for_two_operators(world: DisputeWorld) -> None:
    world.network.then(Fault("AdviceRefused", final=True))
    await world.open()
    await world.evidence()
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_parked("network.represent:1")
    for operator in ("operator-1", "operator-2"):
        word = ResolveRequest(operator, "network.represent:1", Resolution.ACKNOWLEDGED, "sent by hand in their portal")
        await world.handle.execute_update(DisputeWorkflow.resolve, word)
    await world.until_events("submitted", "represented")


async def test_an_answer_to_a_case_that_was_decided_meanwhile_is_not_sent(
    time_skipping_env: WorkflowEnvironment, engine: AsyncEngine, s3_endpoint: str
) -> None:
    async with open_dispute_world(time_skipping_env, engine, s3_endpoint, with_bucket=False) as world:
        await world.open()
        await world.evidence()
        await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
        await world.tell(N.WON, after=DAY)
        await world.until_status(S.WON)
        await world.storage.create_bucket()
        assert (await world.closed()).status is S.WON
        assert world.network.calls == []


async def test_an_answer_that_was_refused_because_the_case_was_decided_does_not_keep_it_open(
    world: DisputeWorld,
) -> None:
    world.network.then(Fault("AdviceRefused", final=True))
    await world.open()
    await world.evidence()
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_parked("network.represent:1")
    await world.tell(N.LOST, after=DAY)
    await world.until(lambda snapshot: snapshot.status is S.LOST and not snapshot.needs_attention)
    assert (await world.closed()).status is S.LOST


async def test_more_than_the_payment_has_left_waits_for_two_operators(world: DisputeWorld) -> None:
    refund = await world.shop.reserve(world.life, 400)
    await world.shop.record(world.life, PaymentEvent.REFUND_SUCCEEDED, 400, refund_id=refund)
    await world.open(until_open=False)
    await world.until_parked("disputes.open")
    assert "disputes.open waits: DisputeExceedsPayment" in await _details(world)
    await _refused("dispute_unexpected_state", world.evidence())
    await world.handle.execute_update(DisputeWorkflow.retry, RetryRequest("operator-1"))
    await world.until_parked("disputes.open")
    for operator in ("operator-1", "operator-2"):
        word = ResolveRequest(operator, "disputes.open", Resolution.ACKNOWLEDGED, "refunded by mistake, too")
        await world.handle.execute_update(DisputeWorkflow.resolve, word)
    await world.until_events("created")
    row = await world.row()
    assert (row["amount_minor"], row["excess_minor"]) == (1000, 400)
    assert (await world.moved_minor())["disputes"] == 1000


async def test_an_escalation_beyond_the_payment_waits_for_two_operators_too(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY, amount_minor=1000)
    await world.tell(N.OPENED, after=DAY, amount_minor=1200)
    await world.until_parked("disputes.record")
    for operator in ("operator-1", "operator-2"):
        word = ResolveRequest(operator, "disputes.record", Resolution.ACKNOWLEDGED, "a tip was added at the terminal")
        await world.handle.execute_update(DisputeWorkflow.resolve, word)
    await world.until_status(S.NEEDS_RESPONSE)
    assert (await world.row())["excess_minor"] == 200


async def test_what_cannot_be_booked_at_all_is_parked_with_its_reason(world: DisputeWorld) -> None:
    await world.open(until_open=False, currency=Currency.EUR)
    await world.until_parked("disputes.open")
    assert "DisputeInOtherCurrency" in await _details(world)


async def test_a_dispute_is_not_canceled_from_outside(world: DisputeWorld) -> None:
    await world.open()
    await world.handle.cancel()
    await _submitted(world)
    await world.tell(N.WON, after=DAY)
    await world.until_status(S.WON)
    assert (await world.closed()).status is S.WON


async def _notices(world: DisputeWorld) -> list[tuple[str, str | None]]:
    rows = await dispute_rows(
        world.engine,
        "SELECT stage, event FROM platform.dispute_notices WHERE dispute_id = :id ORDER BY issued_at",
        world.dispute_id,
    )
    return [(row["stage"], row["event"]) for row in rows]


async def _details(world: DisputeWorld) -> str:
    details: str = await world.handle.query("__temporal_workflow_metadata")
    return str(details)


# --------------------------------------------------------------------------------------------- after the case is closed


async def test_a_notice_for_a_closed_case_is_kept_and_waits_for_two_operators(world: DisputeWorld) -> None:
    await world.open()
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())
    await world.closed()
    word = world.notice(stage=N.WON, after=100 * DAY)
    client = world.environment.client
    handle = await client.start_workflow(
        LateNoticeWorkflow.run, word, id=f"late/{world.chargeback_id}", task_queue=TaskQueue.PAYMENTS
    )
    step = "dispute.late_notice"
    async with asyncio.timeout(30):
        while (await handle.describe()).typed_search_attributes.get(NEEDS_ATTENTION) != step:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    kept = await dispute_rows(
        world.engine, "SELECT stage, event FROM platform.dispute_notices WHERE dispute_id = :id", world.dispute_id
    )
    assert {"stage": "won", "event": None} in kept
    for operator, applied in (("ada", False), ("ada", False), ("grace", True)):
        request = ResolveRequest(operator, step, Resolution.ACKNOWLEDGED, "asked the issuer")
        assert (await handle.execute_update(LateNoticeWorkflow.resolve, request)).applied is applied
    await handle.result()
    assert (await world.row())["status"] == "lost"
