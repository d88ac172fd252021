"""What is recorded of disputes: each scenario drives one case through a life of its own to the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from domain.disputes import DisputeKind, DisputeStatus, NoticeStage
from domain.outcomes import Acknowledged
from tests.support.dispute_world import DisputeWorld
from tests.support.world import NOW, Fault
from workflows.dispute import DisputeWorkflow
from workflows.dispute_messages import AcceptDispute, SubmitEvidence
from workflows.messages import Resolution, ResolveRequest, RetryRequest

K, N, S = DisputeKind, NoticeStage, DisputeStatus
DAY = timedelta(days=1)

Scenario = Callable[[DisputeWorld], Awaitable[object]]


async def answered_and_won(world: DisputeWorld) -> None:
    await world.open()
    await world.evidence(file=await world.stored_file())
    await _submit(world)
    await world.tell(N.WON, after=10 * DAY)
    await world.until_status(S.WON)


async def answered_and_lost(world: DisputeWorld) -> None:
    await world.open()
    await world.evidence()
    await _submit(world)
    await world.tell(N.LOST, after=10 * DAY)
    await world.until_status(S.LOST)


async def expired_after_reminders(world: DisputeWorld) -> None:
    await world.open()
    await world.skip(21 * DAY)
    await world.until_status(S.LOST)
    await world.tell(N.WON, after=30 * DAY)
    await world.until_status(S.WON)


async def accepted(world: DisputeWorld) -> None:
    await world.open()
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())
    await world.tell(N.LOST, after=3 * DAY)


async def decided_before_an_answer(world: DisputeWorld) -> None:
    await world.open()
    await world.evidence()
    await world.tell(N.WON, after=DAY)
    await world.until_status(S.WON)


async def begun_with_its_decision(world: DisputeWorld) -> None:
    await world.open(stage=N.LOST, until_open=False)
    await world.until_status(S.LOST)


async def won_and_charged_back_again(world: DisputeWorld) -> None:
    await world.open()
    await world.evidence()
    await _submit(world)
    await world.tell(N.WON, after=10 * DAY)
    await world.until_status(S.WON)
    await world.tell(N.OPENED, after=20 * DAY)
    await world.until_status(S.NEEDS_RESPONSE)
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())


async def refused_and_decided(world: DisputeWorld) -> None:
    world.network.then(Fault("AdviceRefused", final=True))
    await world.open()
    await world.evidence()
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_parked("network.represent:1")
    await world.tell(N.LOST, after=DAY)
    await world.until_status(S.LOST)


async def decision_overdue(world: DisputeWorld) -> None:
    await world.open()
    await world.evidence()
    await _submit(world)
    await world.skip(50 * DAY)
    await world.until_events("decision_overdue")
    await world.tell(N.LOST, after=49 * DAY)
    await world.until_status(S.LOST)


async def inquiry_closed(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY)
    await world.evidence()
    await _submit(world)
    await world.tell(N.WON, K.INQUIRY, after=5 * DAY)
    await world.until_status(S.WON)


async def inquiry_escalated_and_answered_again(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY)
    await world.evidence()
    await _submit(world)
    await world.tell(N.OPENED, after=5 * DAY, amount_minor=800)
    await world.until_status(S.NEEDS_RESPONSE)
    await _submit(world)
    await world.tell(N.WON, after=20 * DAY)
    await world.until_status(S.WON)


async def inquiry_overdue_and_lapsed(world: DisputeWorld) -> None:
    await world.open(K.INQUIRY)
    await world.skip(121 * DAY)
    await world.until_status(S.WON)


async def beyond_the_payment(world: DisputeWorld) -> None:
    await world.open(until_open=False, amount_minor=1200)
    await world.until_parked("disputes.open")
    await world.handle.execute_update(DisputeWorkflow.retry, RetryRequest("operator-1", "disputes.open"))
    await world.until_parked("disputes.open")
    for operator in ("operator-1", "operator-2"):
        word = ResolveRequest(operator, "disputes.open", Resolution.ACKNOWLEDGED, "a tip was added at the terminal")
        await world.handle.execute_update(DisputeWorkflow.resolve, word)
    await world.until_events("created")
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())


async def parked_and_retried(world: DisputeWorld) -> None:
    world.network.then(Fault("AdviceRefused", final=True))
    await world.open()
    await world.evidence()
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_parked("network.represent:1")
    world.network.then(Acknowledged(NOW))
    await world.handle.execute_update(DisputeWorkflow.retry, RetryRequest("operator-1", "network.represent:1"))
    await world.until_events("submitted", "represented")
    await world.tell(N.LOST, after=2 * DAY)
    await world.until_status(S.LOST)


async def canceled_from_outside(world: DisputeWorld) -> None:
    await world.open()
    await world.handle.cancel()
    await world.handle.execute_update(DisputeWorkflow.accept, AcceptDispute())


async def _submit(world: DisputeWorld) -> None:
    await world.handle.execute_update(DisputeWorkflow.submit, SubmitEvidence())
    await world.until_events("submitted", "represented")


DISPUTES: tuple[Scenario, ...] = (
    answered_and_won,
    answered_and_lost,
    expired_after_reminders,
    accepted,
    decided_before_an_answer,
    begun_with_its_decision,
    won_and_charged_back_again,
    refused_and_decided,
    decision_overdue,
    inquiry_closed,
    inquiry_escalated_and_answered_again,
    inquiry_overdue_and_lapsed,
    beyond_the_payment,
    parked_and_retried,
    canceled_from_outside,
)
