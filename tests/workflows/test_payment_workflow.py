"""The rules of a payment's life, with time driven."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from activities.contracts import DirectOutcome
from domain.network import LateAnswer, SealedCredential
from domain.outcomes import Acknowledged, Approved, Declined, DoubtReason, NeverSent, Unknown
from domain.payments import CaptureMethod, PaymentStatus
from domain.refunds import RefundStatus
from domain.risk import RiskAction, RiskDecision
from ledger.dispute_books import DisputeBooks
from tests.support.disputes import Case, notice, opening_of
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

S = PaymentStatus


async def _refused(code: str, call: Any) -> None:
    with pytest.raises(WorkflowUpdateFailedError) as refusal:
        await call
    assert isinstance(refusal.value.cause, ApplicationError)
    assert refusal.value.cause.type == code


async def test_an_approved_payment_is_answered_at_authorization_and_held(world: World) -> None:
    snapshot = await world.pay()
    assert snapshot.status is S.AUTHORIZED
    assert snapshot.amount_authorized_minor == 1050
    assert await world.pending_minor() == 1050
    assert await world.events() == ["created", "authorized"]
    assert (await world.row())["capture_before"] is not None


async def test_a_repeated_request_attaches_to_the_same_payment(world: World) -> None:
    first, *others = await asyncio.gather(*(world.pay() for _ in range(5)))
    assert all(other == first for other in others)
    assert len(world.outside.authorize.calls) == 1


async def test_a_declined_payment_releases_its_hold_and_closes(world: World) -> None:
    world.outside.authorize.then(declined("51"))
    assert (await world.pay()).status is S.DECLINED
    assert (await world.closed()).status is S.DECLINED
    assert await world.pending_minor() == 0
    assert (await world.row())["decline_code"] == "insufficient_funds"


@pytest.mark.parametrize(("response_code", "counted"), [("14", 1), ("N7", 1), ("51", 0)])
async def test_a_decline_that_shows_card_testing_is_counted(world: World, response_code: str, counted: int) -> None:
    world.outside.authorize.then(declined(response_code))
    await world.pay()
    await world.closed()
    assert len(world.outside.record_decline.calls) == counted


async def test_a_blocked_payment_never_reaches_vault_or_network(world: World) -> None:
    world.outside.risk.then(RiskDecision(RiskAction.BLOCK, 0.99, ("impossible_travel",), "r1", "m1"))
    assert (await world.pay()).status is S.BLOCKED
    await world.closed()
    assert world.outside.credential.calls == world.outside.authorize.calls == []
    assert (await world.row())["status_reason"] == "impossible_travel"
    assert await world.pending_minor() == 0


async def test_an_automatic_capture_is_a_sale_by_one_message(world: World) -> None:
    snapshot = await world.pay(capture_method=CaptureMethod.AUTOMATIC)
    assert (snapshot.status, snapshot.amount_captured_minor) == (S.CAPTURED, 1050)
    assert [command.sale for command in world.outside.authorize.calls] == [True]
    assert world.outside.capture.calls == []
    assert await world.posted_minor() == 1050
    assert await world.pending_minor() == 0
    assert await world.events() == ["created", "sold"]


async def test_a_sale_for_less_than_was_asked_takes_only_that(world: World) -> None:
    world.outside.authorize.then(approved(1000))
    snapshot = await world.pay(capture_method=CaptureMethod.AUTOMATIC)
    assert (snapshot.amount_authorized_minor, snapshot.amount_captured_minor) == (1000, 1000)
    assert await world.posted_minor() == 1000
    assert await world.pending_minor() == 0


async def test_a_sale_in_doubt_is_reversed_and_takes_nothing(world: World) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    await world.pay(capture_method=CaptureMethod.AUTOMATIC)
    assert (await world.closed()).status is S.VOIDED
    assert await world.posted_minor() == 0
    assert await world.pending_minor() == 0


EARLY = SealedCredential("tok_test", "early.box", "early")


async def test_a_credential_that_came_with_the_request_is_used_while_it_lasts(
    world: World, time_skipping_env: WorkflowEnvironment
) -> None:
    await world.pay(credential=EARLY, requested_at=await time_skipping_env.get_current_time())
    assert [command.credential for command in world.outside.authorize.calls] == [EARLY]
    assert world.outside.credential.calls == []


async def test_a_credential_that_waited_for_its_payer_too_long_is_issued_anew(
    world: World, time_skipping_env: WorkflowEnvironment
) -> None:
    _step_up(world)
    await world.pay(credential=EARLY, requested_at=await time_skipping_env.get_current_time())
    await time_skipping_env.sleep(timedelta(minutes=5))
    await world.handle.execute_update(PaymentWorkflow.confirm_step_up, _code(world))
    assert len(world.outside.credential.calls) == 1
    assert [command.credential.sealed_pan for command in world.outside.authorize.calls] == ["key.box"]


async def test_a_credential_that_expired_on_the_way_is_issued_anew_once(
    world: World, time_skipping_env: WorkflowEnvironment
) -> None:
    world.outside.authorize.then(Fault("CredentialExpired", final=True), approved())
    now = await time_skipping_env.get_current_time()
    assert (await world.pay(credential=EARLY, requested_at=now)).status is S.AUTHORIZED
    assert len(world.outside.credential.calls) == 1


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(approved(), S.AUTHORIZED), (declined(), S.DECLINED), (Unknown(DoubtReason.CONNECTION_LOST), S.IN_DOUBT)],
)
async def test_an_outcome_that_comes_over_the_direct_line_needs_no_activity(
    world: World, time_skipping_env: WorkflowEnvironment, outcome: Approved | Declined | Unknown, status: PaymentStatus
) -> None:
    world.outside.ask.then(DirectOutcome(outcome))
    now = await time_skipping_env.get_current_time()
    assert (await world.pay(credential=EARLY, requested_at=now, direct=True)).status is status
    assert world.outside.authorize.calls == []


@pytest.mark.parametrize("answer", [DirectOutcome(None), Fault("Anything")])
async def test_what_the_direct_line_does_not_know_the_activity_asks_under_the_same_key(
    world: World, time_skipping_env: WorkflowEnvironment, answer: DirectOutcome | Fault
) -> None:
    world.outside.ask.then(answer)
    now = await time_skipping_env.get_current_time()
    assert (await world.pay(credential=EARLY, requested_at=now, direct=True)).status is S.AUTHORIZED
    assert len(world.outside.ask.calls) == 1
    assert world.outside.authorize.calls == world.outside.ask.calls


async def test_a_payment_that_waited_for_its_payer_is_not_asked_for_directly_without_a_credential(
    world: World, time_skipping_env: WorkflowEnvironment
) -> None:
    _step_up(world)
    await world.pay(credential=EARLY, requested_at=await time_skipping_env.get_current_time(), direct=True)
    await time_skipping_env.sleep(timedelta(minutes=5))
    await world.handle.execute_update(PaymentWorkflow.confirm_step_up, _code(world))
    assert world.outside.ask.calls == []
    assert len(world.outside.authorize.calls) == 1


async def test_a_credential_that_expires_again_is_a_doubt_and_reversed(world: World) -> None:
    world.outside.authorize.then(Fault("CredentialExpired", final=True))
    assert (await world.pay()).status is S.IN_DOUBT
    assert (await world.closed()).status is S.VOIDED


async def test_a_refund_that_meets_a_dispute_is_refused_and_holds_nothing_up(world: World) -> None:
    """The dispute is opened behind the back of whoever asked for the refund."""
    await world.pay(capture_method=CaptureMethod.AUTOMATIC)
    dispute = Case.of(opening_of(notice(world.request.payment_id, amount_minor=700)))
    await DisputeBooks(world.engine, {}).open(dispute.opening)
    handle, payment_id = world.handle, world.request.payment_id
    await _refused(
        "payment_disputed", handle.execute_update(PaymentWorkflow.refund, RefundRequest(f"{payment_id}-1", 400))
    )
    assert world.outside.refund.calls == []
    given = await handle.execute_update(PaymentWorkflow.refund, RefundRequest(f"{payment_id}-2", 300))
    assert given.status is RefundStatus.SUCCEEDED
    assert (await world.row())["amount_refunded_minor"] == 300
    assert (await world.row())["refunds_pending_minor"] == 0
    assert (await world.events())[-4:] == ["refund_reserved", "refund_failed", "refund_reserved", "refund_succeeded"]


async def test_increments_at_once_do_not_pass_their_limit_together(world: World) -> None:
    world.outside.increment.then(approved(600))
    await world.pay()
    outcomes = await asyncio.gather(
        *(world.handle.execute_update(PaymentWorkflow.increment, IncrementRequest(600, 2000)) for _ in range(3)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, WorkflowUpdateFailedError)]
    assert len(refused) == 2
    assert {cause.type for failure in refused if isinstance(cause := failure.cause, ApplicationError)} == {
        "amount_above_limit"
    }
    assert (await world.row())["amount_authorized_minor"] == 1650
    assert len(world.outside.increment.calls) == 1


async def test_an_uncaptured_authorization_is_voided_after_seven_days(
    world: World, time_skipping_env: WorkflowEnvironment
) -> None:
    await world.pay()
    await time_skipping_env.sleep(timedelta(days=7) - timedelta(minutes=1))
    assert (await world.handle.query(PaymentWorkflow.snapshot)).status is S.AUTHORIZED
    await time_skipping_env.sleep(timedelta(minutes=2))
    await world.until_status(S.EXPIRED)
    await world.closed()
    assert await world.pending_minor() == 0
    assert [call.original_effect_key for call in world.outside.reverse.calls] == [
        f"{world.request.payment_id}:authorize:1"
    ]


async def test_a_partial_capture_that_is_not_final_leaves_the_rest_open(world: World) -> None:
    await world.pay()
    handle = world.handle
    first = await handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    assert (first.status, first.amount_captured_minor) == (S.AUTHORIZED, 400)
    assert await world.pending_minor() == 650
    last = await handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    assert (last.status, last.amount_captured_minor) == (S.CAPTURED, 1050)


async def test_captures_are_told_to_the_network_in_their_order(world: World) -> None:
    heard = asyncio.Event()

    async def wait(_: Any) -> Any:
        await heard.wait()
        return Acknowledged(NOW)

    world.outside.capture.then(wait, Acknowledged(NOW))
    await world.pay()
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    await world.until(lambda _: bool(world.outside.capture.calls))
    assert [command.final for command in world.outside.capture.calls] == [False]
    heard.set()
    await world.until(lambda _: len(world.outside.capture.calls) == 2)
    assert [command.final for command in world.outside.capture.calls] == [False, True]


async def test_what_is_captured_can_be_refunded_while_the_rest_is_still_open(world: World) -> None:
    await world.pay()
    early = world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_early", 1))
    await _refused("payment_unexpected_state", early)
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    refund = await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_part", 300))
    assert refund.status is RefundStatus.SUCCEEDED
    too_much = world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_too_much", 101))
    await _refused("amount_too_large", too_much)
    snapshot = await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    assert (snapshot.status, snapshot.amount_captured_minor, snapshot.amount_refunded_minor) == (S.CAPTURED, 1050, 300)


async def test_when_a_partly_captured_authorization_expires_the_network_frees_the_rest_once_it_knows_of_the_capture(
    world: World, time_skipping_env: WorkflowEnvironment
) -> None:
    world.outside.capture.then(Fault("AdviceRefused", final=True), Acknowledged(NOW))
    await world.pay()
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    await time_skipping_env.sleep(timedelta(days=8))
    await world.until_status(S.CAPTURED)
    assert world.outside.release.calls == []
    await world.handle.execute_update(PaymentWorkflow.retry, RetryRequest("ada"))
    await world.until(lambda _: bool(world.outside.release.calls))
    assert [command.captured.amount_minor for command in world.outside.release.calls] == [400]
    assert world.outside.reverse.calls == []


async def test_a_final_partial_capture_releases_the_rest(world: World) -> None:
    await world.pay()
    snapshot = await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400))
    assert (snapshot.status, snapshot.amount_captured_minor) == (S.CAPTURED, 400)
    assert await world.pending_minor() == 0


async def test_a_capture_beyond_the_authorization_is_refused(world: World) -> None:
    await world.pay()
    await _refused("amount_too_large", world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(1051)))
    assert await world.events() == ["created", "authorized"]


async def test_of_a_capture_and_a_void_at_once_exactly_one_wins(world: World) -> None:
    await world.pay()
    outcomes = await asyncio.gather(
        world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest()),
        world.handle.execute_update(PaymentWorkflow.void, VoidRequest()),
        return_exceptions=True,
    )
    refusals = [outcome for outcome in outcomes if isinstance(outcome, WorkflowUpdateFailedError)]
    assert len(refusals) == 1
    assert (await world.row())["status"] in (S.CAPTURED, S.VOIDED)


async def test_a_voided_payment_is_reversed_at_the_network(world: World) -> None:
    await world.pay()
    assert (await world.handle.execute_update(PaymentWorkflow.void, VoidRequest())).status is S.VOIDED
    await world.closed()
    assert len(world.outside.reverse.calls) == 1
    assert await world.pending_minor() == 0


# ------------------------------------------------------------------------------------------------------------- in doubt


async def test_a_lost_answer_is_in_doubt_then_reversed_and_never_declined(world: World) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    assert (await world.pay()).status is S.IN_DOUBT
    assert (await world.closed()).status is S.VOIDED
    assert await world.events() == ["created", "doubted", "reversed"]
    assert await world.pending_minor() == 0


async def test_the_hold_of_a_payment_in_doubt_stands_against_suspense(world: World) -> None:
    acknowledged = asyncio.Event()

    async def wait(_: Any) -> Any:
        await acknowledged.wait()
        return NeverSent()

    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(wait)
    await world.pay()
    assert await world.pending_minor() == 1050
    acknowledged.set()
    assert (await world.closed()).status is S.DECLINED
    assert (await world.row())["decline_code"] == "network_unavailable"


async def test_a_reversal_is_repeated_until_the_host_acknowledges_it(
    world: World, time_skipping_env: WorkflowEnvironment
) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    fault = Fault("NotAcknowledged")
    world.outside.reverse.then(fault, fault, fault, fault, fault, NeverSent())
    await world.pay()
    await time_skipping_env.sleep(timedelta(minutes=5))
    await world.until_status(S.DECLINED)
    assert len(world.outside.reverse.calls) == 6
    assert len({call.effect_key for call in world.outside.reverse.calls}) == 1


async def test_a_late_approval_is_kept_and_approves_nothing(world: World) -> None:
    acknowledged = asyncio.Event()

    async def wait(_: Any) -> Any:
        await acknowledged.wait()
        return NeverSent()

    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(wait)
    await world.pay()
    late = LateAnswer(world.request.payment_id, f"{world.request.payment_id}:authorize:1", "00", "000001", "1")
    await world.handle.signal(PaymentWorkflow.late_answer, late)
    assert (await world.handle.query(PaymentWorkflow.snapshot)).status is S.IN_DOUBT
    acknowledged.set()
    assert (await world.closed()).amount_authorized_minor == 0


async def test_an_authorization_that_cannot_be_told_from_lost_is_in_doubt(world: World) -> None:
    """An activity that fails for good has no answer either: it is reversed, never assumed to have failed."""
    world.outside.authorize.then(Fault("Broken", final=True))
    assert (await world.pay()).status is S.IN_DOUBT
    assert (await world.closed()).status is S.VOIDED


async def test_without_a_credential_nothing_is_sent_and_the_payment_is_declined(world: World) -> None:
    world.outside.credential.then(Fault("TokenUnusable", final=True))
    assert (await world.pay()).status is S.DECLINED
    assert world.outside.authorize.calls == []


# ------------------------------------------------------------------------------------------------------ needs attention


async def _parked(world: World, step: str) -> None:
    await world.until(lambda snapshot: step in snapshot.needs_attention)


async def test_a_step_that_cannot_be_done_parks_and_goes_on_when_an_operator_retries(world: World) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(Fault("AdviceRefused", final=True))
    await world.pay()
    await _parked(world, "network.reverse")
    world.outside.reverse.then(NeverSent())
    await world.handle.execute_update(PaymentWorkflow.retry, RetryRequest("operator-1", "network.reverse"))
    assert (await world.closed()).needs_attention == ()


async def test_a_passing_fault_that_outlasts_its_budget_heals_by_itself(world: World) -> None:
    world.outside.risk.then(*[Fault("Broken")] * 24, RiskDecision(RiskAction.ALLOW, 0.0, (), "r1", "m1"))
    assert (await world.pay()).status is S.AUTHORIZED


async def test_a_forced_outcome_needs_two_different_people_and_a_reason(world: World) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(Fault("AdviceRefused", final=True))
    await world.pay()
    await _parked(world, "network.reverse")
    handle = world.handle
    word = ResolveRequest("operator-1", "network.reverse", Resolution.REVERSED, "confirmed by the acquirer's desk")
    await _refused("reason_required", handle.execute_update(PaymentWorkflow.resolve, replace(word, reason=" ")))
    wrong_step = replace(word, step="ledger.record")
    await _refused("step_not_resolvable", handle.execute_update(PaymentWorkflow.resolve, wrong_step))
    assert not (await handle.execute_update(PaymentWorkflow.resolve, word)).applied
    assert not (await handle.execute_update(PaymentWorkflow.resolve, word)).applied
    for respelled in ("Operator-1", " operator-1 ", "operator -1", "\N{FULLWIDTH LATIN SMALL LETTER O}perator-1"):
        same = replace(word, operator=respelled)
        await _refused("operator_respelled", handle.execute_update(PaymentWorkflow.resolve, same))
    second = replace(word, operator="operator-2")
    assert (await handle.execute_update(PaymentWorkflow.resolve, second)).applied
    assert (await world.closed()).status is S.VOIDED


async def test_two_operators_can_say_that_a_payment_in_doubt_was_authorized(world: World) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(Fault("AdviceRefused", final=True))
    await world.pay()
    await _parked(world, "network.reverse")
    word = ResolveRequest("operator-1", "network.reverse", Resolution.AUTHORIZED, "seen in the issuer's report")
    await world.handle.execute_update(PaymentWorkflow.resolve, word)
    await world.handle.execute_update(PaymentWorkflow.resolve, replace(word, operator="operator-2"))
    await world.until_status(S.AUTHORIZED)
    assert await world.pending_minor() == 1050


async def test_a_retry_of_what_is_not_parked_is_refused(world: World) -> None:
    await world.pay()
    retry = world.handle.execute_update(PaymentWorkflow.retry, RetryRequest("operator-1"))
    await _refused("step_not_parked", retry)


async def test_canceling_the_workflow_does_not_stop_a_payment_half_way(world: World) -> None:
    await world.pay()
    await world.handle.cancel()
    snapshot = await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    assert snapshot.status is S.CAPTURED


async def test_a_code_that_cannot_be_delivered_holds_nothing_up(world: World) -> None:
    _step_up(world)
    world.outside.deliver.then(Fault("Broken", final=True))
    assert (await world.pay()).status is S.REQUIRES_ACTION
    await world.handle.execute_update(PaymentWorkflow.void, VoidRequest())
    assert (await world.closed()).status is S.CANCELED


# --------------------------------------------------------------------------------------------------- step-up and review


def _step_up(world: World) -> None:
    world.outside.risk.then(RiskDecision(RiskAction.STEP_UP, 0.4, ("new_card_high_amount",), "r1", "m1"))


def _code(world: World) -> StepUpAnswer:
    request = world.request
    return StepUpAnswer(CODES.code(request.payment_id, request.money, request.merchant.name))


async def test_a_step_up_with_the_right_code_is_authorized(world: World) -> None:
    _step_up(world)
    assert (await world.pay()).status is S.REQUIRES_ACTION
    assert world.outside.authorize.calls == []
    snapshot = await world.handle.execute_update(PaymentWorkflow.confirm_step_up, _code(world))
    assert snapshot.status is S.AUTHORIZED
    assert await world.events() == ["created", "step_up_required", "step_up_passed", "authorized"]


async def test_three_wrong_codes_block_the_payment(world: World) -> None:
    _step_up(world)
    await world.pay()
    wrong = StepUpAnswer("000000" if _code(world).code != "000000" else "000001")
    for _ in range(2):
        await _refused("step_up_code_incorrect", world.handle.execute_update(PaymentWorkflow.confirm_step_up, wrong))
    last = await world.handle.execute_update(PaymentWorkflow.confirm_step_up, wrong)
    assert last.status is S.BLOCKED
    assert (await world.closed()).status is S.BLOCKED
    assert await world.pending_minor() == 0


async def test_a_step_up_without_an_answer_is_canceled(world: World, time_skipping_env: WorkflowEnvironment) -> None:
    _step_up(world)
    await world.pay()
    await time_skipping_env.sleep(timedelta(minutes=11))
    await world.until_status(S.CANCELED)
    assert (await world.row())["status_reason"] == "step_up_expired"


async def test_no_one_time_code_enters_the_history(world: World) -> None:
    _step_up(world)
    await world.pay()
    await world.until(lambda _: bool(world.outside.deliver.calls))
    assert _code(world).code not in str(world.outside.deliver.calls[0].facts.values())


async def test_a_reviewer_decides_on_a_payment_in_review(world: World) -> None:
    world.outside.risk.then(RiskDecision(RiskAction.REVIEW, 0.6, ("volume",), "r1", "m1"))
    assert (await world.pay()).status is S.IN_REVIEW
    nameless = ReviewDecision("", approve=True, reason="known customer")
    await _refused("reason_required", world.handle.execute_update(PaymentWorkflow.review, nameless))
    decision = ReviewDecision("reviewer-1", approve=True, reason="known customer")
    assert (await world.handle.execute_update(PaymentWorkflow.review, decision)).status is S.AUTHORIZED


async def test_a_rejected_review_blocks_the_payment(world: World) -> None:
    world.outside.risk.then(RiskDecision(RiskAction.REVIEW, 0.6, ("volume",), "r1", "m1"))
    await world.pay()
    decision = ReviewDecision("reviewer-1", approve=False, reason="mule pattern")
    assert (await world.handle.execute_update(PaymentWorkflow.review, decision)).status is S.BLOCKED
    assert await world.pending_minor() == 0


async def test_a_payment_that_waits_for_its_payer_can_be_canceled(world: World) -> None:
    _step_up(world)
    await world.pay()
    assert (await world.handle.execute_update(PaymentWorkflow.void, VoidRequest())).status is S.CANCELED
    await world.closed()
    assert world.outside.reverse.calls == []


# -------------------------------------------------------------------------------------------------------------- refunds


async def _captured(world: World) -> None:
    await world.pay(capture_method=CaptureMethod.AUTOMATIC)
    await world.until_status(S.CAPTURED)


async def test_a_refund_gives_back_a_part_and_posts_it(world: World) -> None:
    await _captured(world)
    snapshot = await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_1", 300))
    assert snapshot.status is RefundStatus.SUCCEEDED
    assert (await world.row())["amount_refunded_minor"] == 300
    assert await world.posted_minor() == 750


async def test_refunds_together_never_exceed_the_capture(world: World) -> None:
    await _captured(world)
    outcomes = await asyncio.gather(
        *(
            world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(f"{world.request.payment_id}-{n}", 300))
            for n in range(8)
        ),
        return_exceptions=True,
    )
    refusals = [outcome for outcome in outcomes if isinstance(outcome, WorkflowUpdateFailedError)]
    assert len(refusals) == 5
    assert (await world.row())["amount_refunded_minor"] == 900


async def test_a_declined_refund_frees_its_amount_again(world: World) -> None:
    await _captured(world)
    world.outside.refund.then(declined("05"))
    identifier = f"{world.request.payment_id}-declined"
    snapshot = await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(identifier, 1050))
    assert (snapshot.status, snapshot.failure_code) == (RefundStatus.FAILED, "generic_decline")
    world.outside.refund.then(approved())
    again = await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(f"{identifier}-again"))
    assert again.status is RefundStatus.SUCCEEDED


async def test_a_refund_in_doubt_is_reversed_before_its_amount_is_free(world: World) -> None:
    await _captured(world)
    world.outside.refund.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(Fault("AdviceRefused", final=True))
    identifier = f"{world.request.payment_id}-doubt"
    snapshot = await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(identifier, 1050))
    assert snapshot.status is RefundStatus.IN_DOUBT
    await _refused(
        "amount_too_large",
        world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(f"{identifier}-2", 1)),
    )


async def test_a_refund_of_an_uncaptured_payment_is_refused(world: World) -> None:
    await world.pay()
    await _refused(
        "payment_unexpected_state", world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_x", 100))
    )


async def test_a_refund_waits_until_the_network_has_heard_of_the_capture(world: World) -> None:
    heard = asyncio.Event()

    async def wait(_: Any) -> Any:
        await heard.wait()
        return Acknowledged(NOW)

    world.outside.capture.then(wait)
    await world.pay()
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    identifier = f"{world.request.payment_id}-early"
    refund = asyncio.create_task(world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(identifier, 100)))
    await world.until(lambda _: bool(world.outside.capture.calls))
    assert world.outside.refund.calls == []
    heard.set()
    assert (await refund).status in (RefundStatus.SUCCEEDED, RefundStatus.PENDING)
    await world.until(lambda snapshot: snapshot.amount_refunded_minor == 100)


async def test_fifty_refunds_at_once_never_give_back_more_than_was_captured(world: World) -> None:
    await _captured(world)
    outcomes = await asyncio.gather(
        *(
            world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(f"re_race_{number}", 100))
            for number in range(50)
        ),
        return_exceptions=True,
    )
    given = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    refused = [outcome.cause for outcome in outcomes if isinstance(outcome, WorkflowUpdateFailedError)]
    assert (len(given), len(refused)) == (10, 40)
    assert {refusal.type for refusal in refused if isinstance(refusal, ApplicationError)} == {"amount_too_large"}
    await world.until(lambda snapshot: snapshot.amount_refunded_minor == 1000)
    assert len(world.outside.refund.calls) == 10


async def test_a_refund_that_the_network_takes_back_is_owed_to_the_merchant_again(world: World) -> None:
    await _captured(world)
    await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_back", 300))
    await world.until(lambda snapshot: snapshot.amount_refunded_minor == 300)
    for _ in range(2):
        await world.handle.signal(PaymentWorkflow.refund_returned, RefundReturned("re_back", "account_closed"))
    await world.until(lambda snapshot: snapshot.amount_refunded_minor == 0)
    assert await world.posted_minor() + 300 == 1050
    assert (await world.events()).count("refund_returned") == 1
    again = await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_again"))
    assert again.money.amount_minor == 1050


# ------------------------------------------------------------------------------------- increments, races and settlement


async def test_an_increment_is_added_to_what_may_be_captured(world: World) -> None:
    await world.pay()
    world.outside.increment.then(approved(200))
    snapshot = await world.handle.execute_update(PaymentWorkflow.increment, IncrementRequest(200))
    assert snapshot.amount_authorized_minor == 1250
    assert await world.pending_minor() == 1250
    captured = await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    assert captured.amount_captured_minor == 1250


async def test_a_declined_increment_leaves_the_authorization_as_it_was(world: World) -> None:
    await world.pay()
    world.outside.increment.then(declined("51"))
    await _refused("increment_declined", world.handle.execute_update(PaymentWorkflow.increment, IncrementRequest(200)))
    assert (await world.handle.query(PaymentWorkflow.snapshot)).amount_authorized_minor == 1050
    assert world.outside.reverse.calls == []


async def test_an_increment_in_doubt_is_reversed_and_adds_nothing(world: World) -> None:
    await world.pay()
    world.outside.increment.then(Unknown(DoubtReason.TIMEOUT))
    await _refused("increment_in_doubt", world.handle.execute_update(PaymentWorkflow.increment, IncrementRequest(200)))
    await world.until(lambda _: bool(world.outside.reverse.calls))
    [reversal] = world.outside.reverse.calls
    assert reversal.original_effect_key == f"{world.request.payment_id}:increment:1"
    assert (await world.handle.query(PaymentWorkflow.snapshot)).amount_authorized_minor == 1050


async def test_an_increment_that_comes_after_the_capture_is_given_back(world: World) -> None:
    await world.pay()
    asked = asyncio.Event()

    async def wait(_: Any) -> Any:
        await asked.wait()
        return approved(200)

    world.outside.increment.then(wait)
    increment = asyncio.create_task(world.handle.execute_update(PaymentWorkflow.increment, IncrementRequest(200)))
    await world.until(lambda _: bool(world.outside.increment.calls))
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    asked.set()
    await _refused("payment_unexpected_state", increment)
    await world.until(lambda _: bool(world.outside.reverse.calls))
    assert await world.posted_minor() == 1050


def _cleared(world: World, step: str, amount_minor: int) -> CaptureCleared:
    return CaptureCleared(f"{world.request.payment_id}:{step}", amount_minor, "2026-11-22")


async def test_a_payment_is_settled_once_all_that_was_captured_is_cleared(world: World) -> None:
    await world.pay()
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest(400, final=False))
    await world.handle.signal(PaymentWorkflow.capture_cleared, _cleared(world, "capture:1", 400))
    await world.handle.execute_update(PaymentWorkflow.capture, CaptureRequest())
    assert (await world.handle.query(PaymentWorkflow.snapshot)).status is S.CAPTURED
    for _ in range(2):
        await world.handle.signal(PaymentWorkflow.capture_cleared, _cleared(world, "capture:2", 650))
    await world.until_status(S.SETTLED)
    assert (await world.events()).count("settled") == 1


async def test_a_settled_payment_can_be_refunded(world: World) -> None:
    await _captured(world)
    await world.handle.signal(PaymentWorkflow.capture_cleared, _cleared(world, "authorize:1", 1050))
    await world.until_status(S.SETTLED)
    refund = await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest("re_settled"))
    assert refund.status is RefundStatus.SUCCEEDED


# ------------------------------------------------------------------------------------------------- what operators see


async def _attributes(world: World) -> dict[str, Any]:
    # Read raw: the time-skipping server keeps an attribute that was unset as a null, which the SDK cannot read.
    service = world.client.workflow_service
    execution = WorkflowExecution(workflow_id=world.handle.id)
    request = DescribeWorkflowExecutionRequest(namespace=world.client.namespace, execution=execution)
    described = await service.describe_workflow_execution(request)
    fields = described.workflow_execution_info.search_attributes.indexed_fields
    values = {name: json.loads(payload.data or b"null") for name, payload in fields.items()}
    return {name: value for name, value in values.items() if value not in (None, [])}


async def test_an_automatically_captured_payment_shows_its_account_and_status(world: World) -> None:
    await _captured(world)
    attributes = await _attributes(world)
    assert attributes["AccountId"] == world.request.account_id
    assert attributes["PaymentStatus"] == "captured"


async def test_money_in_doubt_shows_its_amount_until_the_doubt_is_over(world: World) -> None:
    world.outside.authorize.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(Fault("AdviceRefused", final=True))
    await world.pay(capture_method=CaptureMethod.AUTOMATIC)
    await _parked(world, "network.reverse")
    attributes = await _attributes(world)
    assert attributes["AmountAtRiskMinor"] == 1050
    assert attributes["NeedsAttention"] == "network.reverse"
    assert "InDoubtSince" in attributes
    word = ResolveRequest("operator-1", "network.reverse", Resolution.AUTHORIZED, "seen in the issuer's report")
    await world.handle.execute_update(PaymentWorkflow.resolve, word)
    await world.handle.execute_update(PaymentWorkflow.resolve, replace(word, operator="operator-2"))
    await world.until_status(S.CAPTURED)
    assert set(await _attributes(world)) == {"AccountId", "PaymentStatus"}


async def test_a_refund_in_doubt_shows_its_amount(world: World) -> None:
    await _captured(world)
    world.outside.refund.then(Unknown(DoubtReason.TIMEOUT))
    world.outside.reverse.then(Fault("AdviceRefused", final=True))
    identifier = f"{world.request.payment_id}-doubted"
    await world.handle.execute_update(PaymentWorkflow.refund, RefundRequest(identifier, 400))
    assert (await _attributes(world))["AmountAtRiskMinor"] == 400
