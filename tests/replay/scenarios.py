"""What is recorded: each scenario drives one payment, or one refund, through a life of its own to the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowUpdateFailedError
from temporalio.testing import WorkflowEnvironment

from activities.contracts import DirectOutcome
from domain.ids import refund_workflow_id
from domain.network import LateAnswer, SealedCredential
from domain.outcomes import Acknowledged, DoubtReason, NeverSent, Reversed, Unknown
from domain.payments import CaptureMethod, PaymentStatus
from domain.refunds import RefundStatus
from domain.risk import RiskAction, RiskDecision
from tests.support.world import CODES, NOW, Fault, World, approved, declined
from workflows.messages import (
    CaptureCleared,
    CaptureRequest,
    IncrementRequest,
    RefundRequest,
    RefundReturned,
    Resolution,
    ResolveRequest,
    RetryRequest,
    ReviewDecision,
    StepUpAnswer,
    VoidRequest,
)
from workflows.payment import PaymentWorkflow

WINDOWS = timedelta(days=200)  # longer than capture and refund window together
EARLY = SealedCredential("tok_test", "early.box", "early")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario plays: the world, its clock, and the scenario's refund, if it has one."""

    world: World
    environment: WorkflowEnvironment

    @property
    def refund_id(self) -> str:
        return self.world.request.payment_id.replace("pay_", "re_")

    async def skip(self, time: timedelta) -> None:
        await self.environment.sleep(time)


Scenario = Callable[[Stage], Awaitable[object]]


# ------------------------------------------------------------------------------------------------------------- payments


async def automatic_capture(stage: Stage) -> None:
    await stage.world.pay(capture_method=CaptureMethod.AUTOMATIC)
    await stage.world.until_status(PaymentStatus.CAPTURED)
    await stage.skip(WINDOWS)


async def manual_capture_and_partial_refund(stage: Stage) -> None:
    await stage.world.pay()
    handle = stage.world.handle
    await handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    await handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    await handle.execute_update(PaymentWorkflow.refund, RefundRequest(stage.refund_id, 300, "damaged"))
    await stage.skip(WINDOWS)


async def approved_for_less(stage: Stage) -> None:
    stage.world.outside.authorize.then(approved(700))
    await stage.world.pay()
    await stage.world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(500))
    await stage.skip(WINDOWS)


async def declined_by_the_issuer(stage: Stage) -> None:
    stage.world.outside.authorize.then(declined("51"))
    await stage.world.pay()


async def declined_and_counted(stage: Stage) -> None:
    stage.world.outside.authorize.then(declined("14"))
    await stage.world.pay()


async def without_a_credential(stage: Stage) -> None:
    stage.world.outside.credential.then(Fault("TokenUnusable", final=True))
    await stage.world.pay()


async def blocked(stage: Stage) -> None:
    stage.world.outside.risk.then(RiskDecision(RiskAction.BLOCK, 0.99, ("impossible_travel",), "r1", "m1"))
    await stage.world.pay()


async def in_doubt_and_reversed(stage: Stage) -> None:
    stage.world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    await stage.world.pay()


async def in_doubt_with_a_late_answer_never_sent(stage: Stage) -> None:
    world = stage.world
    told = asyncio.Event()

    async def wait(_: Any) -> NeverSent:
        await told.wait()
        return NeverSent()

    world.outside.authorize.then(Unknown(DoubtReason.CONNECTION_LOST))
    world.outside.reverse.then(wait)
    await world.pay()
    key = f"{world.request.payment_id}:authorize:1"
    await world.handle.signal(
        PaymentWorkflow.late_answer, LateAnswer(world.request.payment_id, key, "00", "000001", "632512000001")
    )
    told.set()


async def parked_and_retried(stage: Stage) -> None:
    world = stage.world
    await _park_in_doubt(world)
    world.outside.reverse.then(NeverSent())
    await world.handle.execute_update(PaymentWorkflow.retry, RetryRequest("operator-1", "network.reverse"))


async def parked_and_resolved_by_two(stage: Stage) -> None:
    world = stage.world
    await _park_in_doubt(world)
    word = ResolveRequest("operator-1", "network.reverse", Resolution.AUTHORIZED, "seen in the issuer's report")
    await world.handle.execute_update(PaymentWorkflow.resolve, word)
    second = ResolveRequest("operator-2", "network.reverse", Resolution.AUTHORIZED, "confirmed by telephone")
    await world.handle.execute_update(PaymentWorkflow.resolve, second)
    await world.until_status(PaymentStatus.AUTHORIZED)
    world.outside.reverse.then(Reversed(NOW))
    await world.handle.execute_update(PaymentWorkflow.void, VoidRequest("the payer changed their mind"))


async def _park_in_doubt(world: World) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(Fault("AdviceRefused", final=True))
    await world.pay()
    await world.until(lambda snapshot: "network.reverse" in snapshot.needs_attention)


async def healed_by_itself(stage: Stage) -> None:
    """The capture's advice outlasts its budget of hours, waits, and succeeds at the next try."""
    world = stage.world
    healthy = asyncio.Event()

    async def fail_until_healthy(_: Any) -> Any:
        return Acknowledged(NOW) if healthy.is_set() else Fault("NotAcknowledged")

    world.outside.capture.then(fail_until_healthy)
    await world.pay(capture_method=CaptureMethod.AUTOMATIC)
    await world.until_status(PaymentStatus.CAPTURED)
    await stage.skip(timedelta(hours=4, minutes=6))
    healthy.set()
    await stage.skip(WINDOWS)


async def stepped_up(stage: Stage) -> None:
    await _ask_for_step_up(stage.world)
    try:
        await stage.world.handle.execute_update(PaymentWorkflow.confirm_step_up, _wrong_code(stage.world))
    except WorkflowUpdateFailedError:
        await stage.world.handle.execute_update(PaymentWorkflow.confirm_step_up, StepUpAnswer(_code(stage.world)))
    await stage.world.handle.execute_update(PaymentWorkflow.void, VoidRequest())


async def step_up_failed(stage: Stage) -> None:
    await _ask_for_step_up(stage.world)
    for _ in range(2):
        try:
            await stage.world.handle.execute_update(PaymentWorkflow.confirm_step_up, _wrong_code(stage.world))
        except WorkflowUpdateFailedError:
            continue
    await stage.world.handle.execute_update(PaymentWorkflow.confirm_step_up, _wrong_code(stage.world))


async def step_up_expired(stage: Stage) -> None:
    await _ask_for_step_up(stage.world)
    await stage.skip(timedelta(minutes=11))


async def _ask_for_step_up(world: World) -> None:
    world.outside.risk.then(RiskDecision(RiskAction.STEP_UP, 0.4, ("new_card_high_amount",), "r1", "m1"))
    await world.pay()


def _code(world: World) -> str:
    return CODES.code(world.request.payment_id, world.request.money, world.request.merchant.name)


def _wrong_code(world: World) -> StepUpAnswer:
    return StepUpAnswer("000000" if _code(world) != "000000" else "000001")


async def reviewed_and_approved(stage: Stage) -> None:
    await _ask_for_review(stage.world)
    decision = ReviewDecision("reviewer-1", approve=True, reason="known customer")
    await stage.world.handle.execute_update(PaymentWorkflow.review, decision)
    await stage.world.handle.execute_update(PaymentWorkflow.void, VoidRequest("changed their mind"))


async def reviewed_and_rejected(stage: Stage) -> None:
    await _ask_for_review(stage.world)
    decision = ReviewDecision("reviewer-1", approve=False, reason="mule pattern")
    await stage.world.handle.execute_update(PaymentWorkflow.review, decision)


async def _ask_for_review(world: World) -> None:
    world.outside.risk.then(RiskDecision(RiskAction.REVIEW, 0.6, ("volume",), "r1", "m1"))
    await world.pay()


async def expired(stage: Stage) -> None:
    await stage.world.pay()
    await stage.skip(timedelta(days=8))


async def partly_captured_and_expired(stage: Stage) -> None:
    await stage.world.pay()
    await stage.world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    await stage.skip(WINDOWS)


async def partly_captured_refunded_and_released(stage: Stage) -> None:
    await stage.world.pay()
    await stage.world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    await stage.world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_of_a_part", 150))
    await stage.skip(WINDOWS)


async def canceled_from_outside(stage: Stage) -> None:
    await stage.world.pay()
    await stage.world.handle.cancel()
    await stage.world.handle.execute_update(PaymentWorkflow.void, VoidRequest())


# -------------------------------------------------------------------------------------------------------------- refunds


async def refund_succeeded(stage: Stage) -> None:
    await _refund(stage)


async def refund_declined(stage: Stage) -> None:
    stage.world.outside.refund.then(declined("05"))
    await _refund(stage)


async def refund_in_doubt(stage: Stage) -> None:
    stage.world.outside.refund.then(Unknown(DoubtReason.TIMEOUT))
    stage.world.outside.reverse.then(Fault("AdviceRefused", final=True))
    await _refund(stage)
    stage.world.outside.reverse.then(NeverSent())
    refund = stage.world.client.get_workflow_handle(refund_workflow_id(stage.refund_id))
    await refund.execute_update("retry", RetryRequest("operator-1"))
    await refund.result()


async def _refund(stage: Stage) -> None:
    await stage.world.pay(capture_method=CaptureMethod.AUTOMATIC)
    await stage.world.until_status(PaymentStatus.CAPTURED)
    snapshot = await stage.world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(stage.refund_id))
    assert snapshot.status is not RefundStatus.PENDING


async def increased_and_captured(stage: Stage) -> None:
    await stage.world.pay()
    stage.world.outside.increment.then(approved(200), declined("51"), Unknown(DoubtReason.TIMEOUT))
    handle = stage.world.handle
    await handle.execute_update(PaymentWorkflow.increment, IncrementRequest(200))
    for _ in range(2):
        with contextlib.suppress(WorkflowUpdateFailedError):
            await handle.execute_update(PaymentWorkflow.increment, IncrementRequest(300))
    await handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    await stage.skip(WINDOWS)


async def sale_in_doubt(stage: Stage) -> None:
    stage.world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    await stage.world.pay(capture_method=CaptureMethod.AUTOMATIC)


async def credential_renewed(stage: Stage) -> None:
    stage.world.outside.authorize.then(Fault("CredentialExpired", final=True), approved())
    await stage.world.pay(credential=EARLY, requested_at=await stage.environment.get_current_time())
    await stage.skip(WINDOWS)


async def answered_directly(stage: Stage) -> None:
    stage.world.outside.ask.then(DirectOutcome(approved()))
    await stage.world.pay(credential=EARLY, requested_at=await stage.environment.get_current_time(), direct=True)
    await stage.skip(WINDOWS)


async def not_answered_directly(stage: Stage) -> None:
    await stage.world.pay(credential=EARLY, requested_at=await stage.environment.get_current_time(), direct=True)
    await stage.skip(WINDOWS)


async def refund_returned_and_settled(stage: Stage) -> None:
    await _refund(stage)
    handle = stage.world.handle
    await handle.signal(PaymentWorkflow.refund_returned, RefundReturned(stage.refund_id, "account_closed"))
    cleared = CaptureCleared(f"{stage.world.request.payment_id}:authorize:1", 1050, "2026-11-22")
    await handle.signal(PaymentWorkflow.capture_cleared, cleared)
    await stage.world.until_status(PaymentStatus.SETTLED)
    await stage.skip(WINDOWS)


PAYMENTS: tuple[Scenario, ...] = (
    increased_and_captured,
    sale_in_doubt,
    credential_renewed,
    answered_directly,
    not_answered_directly,
    refund_returned_and_settled,
    automatic_capture,
    manual_capture_and_partial_refund,
    approved_for_less,
    declined_by_the_issuer,
    declined_and_counted,
    without_a_credential,
    blocked,
    in_doubt_and_reversed,
    in_doubt_with_a_late_answer_never_sent,
    parked_and_retried,
    parked_and_resolved_by_two,
    healed_by_itself,
    stepped_up,
    step_up_failed,
    step_up_expired,
    reviewed_and_approved,
    reviewed_and_rejected,
    expired,
    partly_captured_and_expired,
    partly_captured_refunded_and_released,
    canceled_from_outside,
)
REFUNDS: tuple[Scenario, ...] = (refund_succeeded, refund_declined, refund_in_doubt)
