"""The life of one card payment. This workflow is the only writer of its payment.

The caller is answered by the update `authorize` as soon as the authorization is known; capture window, refunds and
notifications go on behind the answer. Read `_live` first: it is the whole way of a payment.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import (
        CredentialRequest,
        DirectActivities,
        LedgerActivities,
        NetworkActivities,
        NotificationOrder,
        NotifyActivities,
        PaymentActivities,
        PaymentOpened,
        PaymentOrder,
        StepUpActivities,
        StepUpAttempt,
        VaultActivities,
    )
    from domain.card_checks import CardChecks
    from domain.declines import CARD_TESTING_CODES, NETWORK_UNAVAILABLE, decline_code
    from domain.errors import InvalidTransition
    from domain.ids import effect_key, refund_workflow_id
    from domain.money import Money
    from domain.network import (
        AuthorizeCommand,
        CaptureCommand,
        IncrementCommand,
        LateAnswer,
        ReleaseCommand,
        ReverseCommand,
        SealedCredential,
    )
    from domain.outcomes import Acknowledged, Approved, Declined, DoubtReason, NeverSent, Reversed, Unknown
    from domain.payments import CaptureMethod, Payment, PaymentEvent, PaymentStatus, apply
    from domain.records import PaymentChange, Recorded, RefundRecord
    from domain.refunds import RefundStatus
    from domain.risk import RiskAction
    from temporal.search_attributes import ACCOUNT_ID, AMOUNT_AT_RISK_MINOR, IN_DOUBT_SINCE, PAYMENT_STATUS
    from workflows.messages import (
        CaptureCleared,
        CaptureRequest,
        IncrementRequest,
        PaymentRequest,
        PaymentSnapshot,
        RefundInDoubt,
        RefundOrder,
        RefundRequest,
        RefundReturned,
        RefundSnapshot,
        Resolution,
        ReviewDecision,
        StepUpAnswer,
        VoidRequest,
    )
    from workflows.options import (
        CAPTURE_WINDOW,
        CREDENTIAL_LIFETIME,
        DIRECT_CALL,
        LOCAL_STEP,
        NETWORK_ADVICE,
        NETWORK_CALL,
        REFUND_ANSWER_WAIT,
        REFUND_WINDOW,
        REVIEW_WINDOW,
        STEP_UP_ATTEMPTS,
        STEP_UP_NOTIFICATION,
        STEP_UP_WINDOW,
        VAULT_CALL,
    )
    from workflows.refund import RefundWorkflow
    from workflows.steps import DurableSteps, failure_type
    from workflows.updates import named_update


class _NothingSent(Exception):
    """The request cannot be made. Its text is the reason, for operators."""


@workflow.defn(name="payment")
class PaymentWorkflow(DurableSteps):
    @workflow.init
    def __init__(self, request: PaymentRequest) -> None:
        super().__init__()
        self._request = request
        self._payment = Payment(request.money)
        # What the database holds; `_payment` runs ahead of it while a change is being recorded.
        self._recorded = self._payment
        self._version = 0
        self._recording = asyncio.Lock()
        self._standing_hold: str | None = None
        self._capture_before: datetime | None = None
        self._captures = 0
        self._step_up_attempts = 0
        self._refunds: dict[str, RefundSnapshot] = {}
        self._late_answers: list[LateAnswer] = []
        self._captures_advised = 0
        self._increments = 0
        self._increments_in_doubt: dict[str, int] = {}
        # What the issuer is being asked for now: increments at once must not pass their limit together.
        self._asked_more_minor = 0
        self._cleared_minor: dict[str, int] = {}
        self._shown_status = PaymentStatus.PROCESSING
        self._shown_at_risk_minor = 0

    # ------------------------------------------------------------------------------------------ the way of a payment

    @workflow.run
    async def run(self, request: PaymentRequest) -> PaymentSnapshot:
        return await self._whatever_comes(self._live())

    async def _live(self) -> PaymentSnapshot:
        if await self._cleared(await self._open()):
            await self._authorize()
        if self._payment.status is PaymentStatus.IN_DOUBT:
            await self._resolve_doubt()
        if self._payment.status is PaymentStatus.AUTHORIZED:
            await self._capture_window()
        if self._payment.status is PaymentStatus.CAPTURED:
            await workflow.sleep(REFUND_WINDOW)
        await self._background_done()
        return self.snapshot()

    async def _open(self) -> PaymentOpened:
        """The fraud decision, recorded with the payment and its hold."""
        self._version = 1
        opened = await self._until_done(
            "payments.open",
            lambda: workflow.execute_local_activity_method(PaymentActivities.open, self._order(), **LOCAL_STEP),
        )
        self._standing_hold = opened.standing_hold
        return opened

    def _order(self) -> PaymentOrder:
        request = self._request
        return PaymentOrder(
            payment_id=request.payment_id,
            account_id=request.account_id,
            user_id=request.user_id,
            payment_method_id=request.payment_method_id,
            card_bin=request.card_bin,
            money=request.money,
            merchant=request.merchant,
            capture_method=request.capture_method,
            requested_at=request.requested_at,
            signals=request.signals,
            metadata=request.metadata,
        )

    async def _cleared(self, opened: PaymentOpened) -> bool:
        """Whether the payment may go to the network: by the fraud decision, the payer's step-up or a reviewer."""
        reason = next(iter(opened.reasons), "risk")
        match opened.action:
            case RiskAction.ALLOW:
                return True
            case RiskAction.BLOCK:
                await self._change(PaymentEvent.BLOCKED, status_reason=reason)
                return False
            case RiskAction.STEP_UP:
                await self._change(PaymentEvent.STEP_UP_REQUIRED, status_reason=reason)
                self._in_background(self._send_code())
                await self._decided_within(PaymentStatus.REQUIRES_ACTION, STEP_UP_WINDOW, "step_up_expired")
            case RiskAction.REVIEW:
                await self._change(PaymentEvent.REVIEW_REQUIRED, status_reason=reason)
                await self._decided_within(PaymentStatus.IN_REVIEW, REVIEW_WINDOW, "review_expired")
        return self._payment.status is PaymentStatus.PROCESSING

    async def _decided_within(self, waiting: PaymentStatus, window: timedelta, expired_reason: str) -> None:
        if not await self._leaves(waiting, window):
            await self._change(PaymentEvent.CANCELED, status_reason=expired_reason)

    async def _leaves(self, status: PaymentStatus, within: timedelta) -> bool:
        """Whether the payment leaves `status` in time. What happens at the very deadline counts as in time."""
        try:
            await workflow.wait_condition(lambda: self._payment.status is not status, timeout=within)
        except TimeoutError:
            return self._payment.status is not status
        return True

    async def _authorize(self) -> None:
        """One request to the network, every outcome handled. What is not an answer is a doubt."""
        try:
            outcome = await self._ask_network()
        except _NothingSent as reason:
            # Nothing can have been charged, and the payer should not be charged much later.
            await self._declined("processing_error", str(reason))
            return
        match outcome:
            case Approved():
                await self._approved(outcome)
            case Declined():
                code = decline_code(outcome.response_code).code
                await self._declined(code, f"issuer_{outcome.response_code}", outcome.checks)
                if outcome.response_code in CARD_TESTING_CODES:
                    self._in_background(self._count_decline())
            case Unknown():
                await self._change(PaymentEvent.DOUBTED, status_reason=f"network_{outcome.reason}")

    async def _ask_network(self) -> Approved | Declined | Unknown:
        """The network's outcome. A credential that ran out on the way was not sent: that is asked again with a new one.

        Raises:
            _NothingSent: the vault gave no credential.
        """
        credential = self._fresh_credential()
        if credential is not None and self._request.direct:
            outcome = await self._ask_directly(credential)
            if outcome is not None:
                return outcome
        while True:
            issued_now = credential is None
            if credential is None:
                credential = await self._issue_credential()
            try:
                return await workflow.execute_activity_method(
                    NetworkActivities.authorize, self._authorize_command(credential), **NETWORK_CALL
                )
            except ActivityError as error:
                if issued_now or failure_type(error) != "CredentialExpired":
                    return Unknown(DoubtReason.WORKER_LOST)
                credential = None

    async def _ask_directly(self, credential: SealedCredential) -> Approved | Declined | Unknown | None:
        """The network's outcome if it comes at once; the activity takes over whatever became of the question."""
        command = self._authorize_command(credential)
        try:
            answer = await workflow.execute_local_activity_method(DirectActivities.ask, command, **DIRECT_CALL)
        except (ActivityError, ApplicationError):
            return None
        return answer.outcome

    def _fresh_credential(self) -> SealedCredential | None:
        """The credential that came with the request, unless the payer or a reviewer took too long."""
        age = workflow.now() - self._request.requested_at
        return self._request.credential if age < CREDENTIAL_LIFETIME else None

    async def _issue_credential(self) -> SealedCredential:
        request = self._request
        order = CredentialRequest(
            effect_key=self._effect("credential"),
            token_id=request.token_id,
            user_id=request.user_id,
            money=request.money,
            merchant=request.merchant,
            requested_at=request.requested_at,
        )
        try:
            return await workflow.execute_activity_method(VaultActivities.issue_credential, order, **VAULT_CALL)
        except ActivityError as error:
            raise _NothingSent(f"credential_{failure_type(error)}") from error

    def _authorize_command(self, credential: SealedCredential) -> AuthorizeCommand:
        request = self._request
        return AuthorizeCommand(
            effect_key=self._effect("authorize"),
            payment_id=request.payment_id,
            money=request.money,
            merchant=request.merchant,
            credential=credential,
            sale=self._is_sale(),
        )

    def _is_sale(self) -> bool:
        """What is captured at once is authorized and captured by one message."""
        return self._request.capture_method is CaptureMethod.AUTOMATIC

    async def _approved(self, outcome: Approved) -> None:
        # Two operators who vouch for an authorization have neither code nor number.
        approval_code, rrn = outcome.approval_code or None, outcome.rrn or None
        if self._is_sale():
            await self._change(
                PaymentEvent.SOLD, outcome.amount_minor, approval_code=approval_code, rrn=rrn, checks=outcome.checks
            )
            return
        self._capture_before = workflow.now() + CAPTURE_WINDOW
        await self._change(
            PaymentEvent.AUTHORIZED,
            outcome.amount_minor,
            approval_code=approval_code,
            rrn=rrn,
            capture_before=self._capture_before,
            checks=outcome.checks,
        )

    async def _declined(self, code: str, reason: str, checks: CardChecks | None = None) -> None:
        await self._change(PaymentEvent.DECLINED, decline_code=code, status_reason=reason, checks=checks)

    async def _resolve_doubt(self) -> None:
        """Reverse until the host says that it has, or two operators say what they know. A late yes changes nothing."""
        outcome: Approved | Reversed | NeverSent = await self._until_done(
            "network.reverse",
            lambda: self._reverse("reverse"),
            {
                Resolution.REVERSED: Reversed(workflow.now()),
                Resolution.AUTHORIZED: Approved(self._payment.money.amount_minor, "", "", "", workflow.now()),
            },
        )
        match outcome:
            case Approved():
                await self._approved(outcome)
            case Reversed():
                await self._change(PaymentEvent.REVERSED, status_reason="reversed_after_doubt")
            case NeverSent():
                await self._change(
                    PaymentEvent.NEVER_SENT, decline_code=NETWORK_UNAVAILABLE.code, status_reason="never_sent"
                )

    async def _capture_window(self) -> None:
        assert self._capture_before is not None
        remaining = max(self._capture_before - workflow.now(), timedelta(0))
        if not await self._leaves(PaymentStatus.AUTHORIZED, remaining):
            await self._change(PaymentEvent.EXPIRED, status_reason="capture_window_passed")
            if self._payment.status is PaymentStatus.EXPIRED:
                self._release_at_network()
            elif workflow.patched("2026-11-release-the-rest"):
                self._in_background(self._release_rest())

    # ------------------------------------------------------------------------------------------------------- updates

    @named_update("authorize")
    async def authorize(self) -> PaymentSnapshot:
        """The payment as soon as it is known how it stands; the caller's early answer."""
        await self._answerable()
        return self.snapshot()

    @named_update("capture")
    async def capture(self, request: CaptureRequest) -> PaymentSnapshot:
        await self._capture(self._capture_amount(request), final=request.final)
        return self.snapshot()

    @capture.validator
    def _may_capture(self, request: CaptureRequest) -> None:
        self._check(PaymentEvent.CAPTURED, self._capture_amount(request))

    @named_update("increment")
    async def increment(self, request: IncrementRequest) -> PaymentSnapshot:
        """Ask the issuer for more on what it has authorized. Whatever it says, what was authorized before stands."""
        self._increments += 1
        command = IncrementCommand(
            effect_key=effect_key(self._request.payment_id, "increment", self._increments),
            original_effect_key=self._effect("authorize"),
            payment_id=self._request.payment_id,
            money=Money(request.amount_minor, self._request.money.currency),
        )
        self._asked_more_minor += request.amount_minor
        outcome = await self._ask_increment(command)
        self._asked_more_minor -= request.amount_minor
        match outcome:
            case Approved() as approved:
                try:
                    await self._change(PaymentEvent.INCREASED, approved.amount_minor)
                except ApplicationError:
                    # Captured or released while the issuer was asked: what came too late is given back.
                    self._in_background(self._undo_increment(command))
                    raise
            case Declined() as declined:
                code = decline_code(declined.response_code).code
                raise ApplicationError(f"the issuer declined: {code}", type="increment_declined")
            case Unknown():
                self._in_background(self._undo_increment(command))
                raise ApplicationError("the network did not answer", type="increment_in_doubt")
        return self.snapshot()

    @increment.validator
    def _may_increment(self, request: IncrementRequest) -> None:
        self._check(PaymentEvent.INCREASED, self._asked_more_minor + request.amount_minor)
        total = self._payment.money.amount_minor + self._asked_more_minor + request.amount_minor
        if request.limit_minor is not None and total > request.limit_minor:
            raise ApplicationError(f"at most {request.limit_minor} minor units", type="amount_above_limit")

    @named_update("void")
    async def void(self, request: VoidRequest) -> PaymentSnapshot:
        """Release an authorization without captures, or cancel a payment that waits for its payer or a reviewer."""
        event = self._void_event()
        await self._change(event, status_reason=request.reason or "requested")
        if event is PaymentEvent.VOIDED:
            self._release_at_network()
        return self.snapshot()

    @void.validator
    def _may_void(self, request: VoidRequest) -> None:
        self._check(self._void_event())

    @named_update("confirm_step_up")
    async def confirm_step_up(self, answer: StepUpAnswer) -> PaymentSnapshot:
        """The payer's one-time code. Counted before it is compared; the third wrong one blocks the payment."""
        self._step_up_attempts += 1
        request = self._request
        attempt = StepUpAttempt(request.payment_id, request.money, request.merchant.name, answer.code)
        verdict = await self._until_done(
            f"step_up.verify:{self._step_up_attempts}",
            lambda: workflow.execute_local_activity_method(StepUpActivities.verify, attempt, **LOCAL_STEP),
        )
        if self._payment.status is not PaymentStatus.REQUIRES_ACTION:
            raise ApplicationError("the payment waits for no code any more", type="payment_unexpected_state")
        if verdict.correct:
            await self._change(PaymentEvent.STEP_UP_PASSED)
            await self._answerable()
        elif self._step_up_attempts >= STEP_UP_ATTEMPTS:
            await self._change(PaymentEvent.STEP_UP_FAILED, status_reason="step_up_attempts_exceeded")
        else:
            raise ApplicationError("the code is wrong", type="step_up_code_incorrect")
        return self.snapshot()

    @confirm_step_up.validator
    def _may_confirm(self, answer: StepUpAnswer) -> None:
        self._check(PaymentEvent.STEP_UP_PASSED)
        if self._step_up_attempts >= STEP_UP_ATTEMPTS:
            raise ApplicationError("no attempt is left", type="step_up_attempts_exceeded")

    @named_update("review")
    async def review(self, decision: ReviewDecision) -> PaymentSnapshot:
        """A reviewer's decision on a payment that fraud scoring sent to a person."""
        event = PaymentEvent.REVIEW_APPROVED if decision.approve else PaymentEvent.REVIEW_REJECTED
        await self._change(event, status_reason=f"review_{'approved' if decision.approve else 'rejected'}")
        if decision.approve:
            await self._answerable()
        return self.snapshot()

    @review.validator
    def _may_review(self, decision: ReviewDecision) -> None:
        self._check(PaymentEvent.REVIEW_APPROVED)
        if not decision.operator.strip() or not decision.reason.strip():
            raise ApplicationError("a review needs an operator and a reason", type="reason_required")

    @named_update("refund")
    async def refund(self, request: RefundRequest) -> RefundSnapshot:
        """Reserve the amount, then give it back through a workflow of the refund's own.

        Answers with what is known after some seconds; the refund goes on behind.
        """
        amount_minor = self._refund_amount(request)
        # Of refunds accepted together, an earlier one may have taken what this one wants.
        self._check(PaymentEvent.REFUND_RESERVED, amount_minor)
        snapshot = RefundSnapshot(
            request.refund_id, RefundStatus.PENDING, Money(amount_minor, self._request.money.currency)
        )
        self._refunds[request.refund_id] = snapshot
        recorded = await self._change(
            PaymentEvent.REFUND_RESERVED, amount_minor, refund=self._refund_record(snapshot, request.reason)
        )
        if recorded.disputed:
            refused = replace(snapshot, status=RefundStatus.FAILED, failure_code="payment_disputed")
            await self._refund_changed(PaymentEvent.REFUND_FAILED, refused, amount_minor)
            raise ApplicationError("a dispute has taken what is to be refunded", type="payment_disputed")
        self._in_background(self._run_refund(snapshot))
        try:
            await workflow.wait_condition(
                lambda: self._refunds[request.refund_id].status is not RefundStatus.PENDING,
                timeout=REFUND_ANSWER_WAIT,
            )
        except TimeoutError:
            workflow.logger.info("refund %s is answered while pending", request.refund_id)
        return self._refunds[request.refund_id]

    @refund.validator
    def _may_refund(self, request: RefundRequest) -> None:
        if request.refund_id in self._refunds:
            raise ApplicationError("the refund exists already", type="refund_exists")
        self._check(PaymentEvent.REFUND_RESERVED, self._refund_amount(request))

    # -------------------------------------------------------------------------------------------- signals and queries

    @workflow.signal(name="late_answer")
    def late_answer(self, answer: LateAnswer) -> None:
        """An answer to a request that the platform had stopped waiting for: it is kept and decides nothing."""
        self._late_answers.append(answer)
        self._show_details()

    @workflow.signal(name="refund_in_doubt")
    async def refund_in_doubt(self, notice: RefundInDoubt) -> None:
        snapshot = self._refunds[notice.refund_id]
        if snapshot.status is RefundStatus.PENDING:
            await self._refund_changed(PaymentEvent.REFUND_DOUBTED, replace(snapshot, status=RefundStatus.IN_DOUBT))

    @workflow.signal(name="refund_returned")
    async def refund_returned(self, notice: RefundReturned) -> None:
        """The money of a refund came back: it is the merchant's again, and may be refunded another way."""
        await workflow.wait_condition(lambda: self._refund_decided(notice.refund_id))
        snapshot = self._refunds.get(notice.refund_id)
        if snapshot is None or snapshot.status is not RefundStatus.SUCCEEDED:
            workflow.logger.warning("refund %s is returned, and was not given", notice.refund_id)
        else:
            returned = replace(snapshot, status=RefundStatus.FAILED, failure_code=f"returned_{notice.reason}")
            # Before the first await, so that a notice that comes twice finds it done.
            self._refunds[notice.refund_id] = returned
            await self._refund_changed(PaymentEvent.REFUND_RETURNED, returned, snapshot.money.amount_minor)

    @workflow.signal(name="capture_cleared")
    async def capture_cleared(self, notice: CaptureCleared) -> None:
        """The payment is settled once the network has cleared all that was captured."""
        self._cleared_minor[notice.effect_key] = notice.amount_minor
        await workflow.wait_condition(lambda: self._payment.status is not PaymentStatus.AUTHORIZED)
        cleared_minor = sum(self._cleared_minor.values())
        if self._payment.status is PaymentStatus.CAPTURED and cleared_minor >= self._payment.amount_captured_minor:
            await self._change(PaymentEvent.SETTLED, status_reason=f"cleared_{notice.day}")

    @workflow.query(name="snapshot")
    def snapshot(self) -> PaymentSnapshot:
        return PaymentSnapshot(
            payment_id=self._request.payment_id,
            status=self._recorded.status,
            amount_authorized_minor=self._recorded.amount_authorized_minor,
            amount_captured_minor=self._recorded.amount_captured_minor,
            amount_refunded_minor=self._recorded.amount_refunded_minor,
            needs_attention=self.needs_attention(),
        )

    # ----------------------------------------------------------------------------------------------------------- parts

    async def _answerable(self) -> None:
        """Returns when the recorded state is one that a caller can be told."""
        await workflow.wait_condition(lambda: self._recorded.status is not PaymentStatus.PROCESSING)

    def _check(self, event: PaymentEvent, amount_minor: int = 0) -> None:
        """Refuses, before anything is written to the history, what `apply` would refuse."""
        try:
            apply(self._payment, event, amount_minor)
        except InvalidTransition as refusal:
            raise ApplicationError(str(refusal), type=refusal.code) from refusal

    async def _change(
        self,
        event: PaymentEvent,
        amount_minor: int = 0,
        *,
        final: bool = True,
        decline_code: str | None = None,
        status_reason: str | None = None,
        approval_code: str | None = None,
        rrn: str | None = None,
        capture_before: datetime | None = None,
        refund: RefundRecord | None = None,
        checks: CardChecks | None = None,
    ) -> Recorded:
        """Moves the payment on and records it with its ledger entries and its event, in one transaction.

        The move itself happens before the first await: of two handlers that want the same thing, one gets it and the
        other a typed refusal.
        """
        try:
            payment = apply(self._payment, event, amount_minor, final=final)
        except InvalidTransition as refusal:
            raise ApplicationError(str(refusal), type=refusal.code) from refusal
        self._payment = payment
        self._version += 1
        version = self._version
        occurred_at = workflow.now()
        async with self._recording:
            change = PaymentChange(
                payment_id=self._request.payment_id,
                account_id=self._request.account_id,
                merchant_id=self._request.merchant.merchant_id,
                version=version,
                event=event,
                payment=payment,
                occurred_at=occurred_at,
                amount_minor=amount_minor,
                final=final,
                standing_hold=self._standing_hold,
                decline_code=decline_code,
                status_reason=status_reason,
                approval_code=approval_code,
                rrn=rrn,
                capture_before=capture_before,
                refund=refund,
                checks=checks,
            )
            recorded = await self._until_done(
                "ledger.record",
                lambda: workflow.execute_local_activity_method(LedgerActivities.record, change, **LOCAL_STEP),
            )
            self._standing_hold = recorded.standing_hold
            self._recorded = payment
            self._show()
            return recorded

    async def _capture(self, amount_minor: int, *, final: bool) -> None:
        self._captures += 1
        number = self._captures
        closes = final or amount_minor == self._payment.capturable_minor
        await self._change(PaymentEvent.CAPTURED, amount_minor, final=final)
        command = CaptureCommand(
            effect_key=effect_key(self._request.payment_id, "capture", number),
            original_effect_key=self._effect("authorize"),
            money=Money(amount_minor, self._request.money.currency),
            final=closes,
        )
        self._in_background(self._advise_capture(number, command))

    async def _advise_capture(self, number: int, command: CaptureCommand) -> None:
        # In their order: the network takes none after the last one.
        await workflow.wait_condition(lambda: self._captures_advised == number - 1)
        await self._until_done(
            f"network.capture:{command.effect_key}",
            lambda: workflow.execute_activity_method(NetworkActivities.capture, command, **NETWORK_ADVICE),
            {Resolution.ACKNOWLEDGED: Acknowledged(workflow.now())},
        )
        self._captures_advised += 1

    async def _ask_increment(self, command: IncrementCommand) -> Approved | Declined | Unknown:
        try:
            return await workflow.execute_activity_method(NetworkActivities.increment, command, **NETWORK_CALL)
        except ActivityError:
            return Unknown(DoubtReason.WORKER_LOST)

    async def _undo_increment(self, command: IncrementCommand) -> None:
        """Reverses an increment that nobody can vouch for, or that came too late. What it was added to stands."""
        self._increments_in_doubt[command.effect_key] = command.money.amount_minor
        self._show()
        reversal = ReverseCommand(f"{command.effect_key}:reverse", command.effect_key)
        await self._until_done(
            f"network.reverse:{command.effect_key}",
            lambda: workflow.execute_activity_method(NetworkActivities.reverse, reversal, **NETWORK_ADVICE),
            {Resolution.REVERSED: Reversed(workflow.now())},
        )
        del self._increments_in_doubt[command.effect_key]
        self._show()

    def _refund_decided(self, refund_id: str) -> bool:
        refund = self._refunds.get(refund_id)
        return refund is None or refund.status in (RefundStatus.SUCCEEDED, RefundStatus.FAILED)

    def _release_at_network(self) -> None:
        """Reverses an approved authorization behind the answer: our books have let it go already."""
        self._in_background(self._reverse_approved())

    async def _reverse_approved(self) -> None:
        await self._until_done(
            "network.reverse",
            lambda: self._reverse("void"),
            {Resolution.REVERSED: Reversed(workflow.now())},
        )

    async def _release_rest(self) -> None:
        """Frees at the network what a partly captured authorization has left, once it has heard of all captures."""
        command = ReleaseCommand(
            effect_key=self._effect("release"),
            original_effect_key=self._effect("authorize"),
            captured=Money(self._payment.amount_captured_minor, self._request.money.currency),
        )
        await workflow.wait_condition(lambda: self._captures_advised == self._captures)
        await self._until_done(
            "network.release",
            lambda: workflow.execute_activity_method(NetworkActivities.release, command, **NETWORK_ADVICE),
            {Resolution.ACKNOWLEDGED: Acknowledged(workflow.now())},
        )

    async def _reverse(self, step: str) -> Reversed | NeverSent:
        command = ReverseCommand(self._effect(step), self._effect("authorize"))
        return await workflow.execute_activity_method(
            NetworkActivities.reverse,
            command,
            **NETWORK_ADVICE,
        )

    async def _run_refund(self, snapshot: RefundSnapshot) -> None:
        order = RefundOrder(
            refund_id=snapshot.refund_id,
            payment_id=self._request.payment_id,
            authorization_key=self._effect("authorize"),
            money=snapshot.money,
        )
        # The network refuses to give back what it has not heard was taken.
        await workflow.wait_condition(lambda: self._captures_advised == self._captures)
        result = await self._until_done(
            f"refund:{snapshot.refund_id}",
            lambda: workflow.execute_child_workflow(
                RefundWorkflow.run,
                order,
                id=refund_workflow_id(snapshot.refund_id),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            ),
        )
        if result.succeeded:
            await self._refund_changed(
                PaymentEvent.REFUND_SUCCEEDED,
                replace(snapshot, status=RefundStatus.SUCCEEDED),
                snapshot.money.amount_minor,
            )
        else:
            await self._refund_changed(
                PaymentEvent.REFUND_FAILED,
                replace(snapshot, status=RefundStatus.FAILED, failure_code=result.failure_code),
                snapshot.money.amount_minor,
            )

    async def _refund_changed(self, event: PaymentEvent, snapshot: RefundSnapshot, amount_minor: int = 0) -> None:
        await self._change(event, amount_minor, refund=self._refund_record(snapshot))
        self._refunds[snapshot.refund_id] = snapshot
        self._show()

    def _refund_record(self, snapshot: RefundSnapshot, reason: str | None = None) -> RefundRecord:
        return RefundRecord(
            refund_id=snapshot.refund_id,
            account_id=self._request.account_id,
            money=snapshot.money,
            status=snapshot.status,
            reason=reason,
            failure_code=snapshot.failure_code,
        )

    async def _send_code(self) -> None:
        """Sends the payer the one-time code, whose window is open already. All else the relay of events tells them."""
        request = self._request
        order = NotificationOrder(
            key=f"{request.payment_id}:notify:step-up",
            user_id=request.user_id,
            kind="step_up_code",
            payment_id=request.payment_id,
            money=request.money,
            facts={"merchant": request.merchant.name, "last4": request.card_last4},
        )
        try:
            await workflow.execute_activity_method(NotifyActivities.deliver, order, **STEP_UP_NOTIFICATION)
        except ActivityError as error:
            # The deliveries table says which channel failed; without a code the payment is canceled in time.
            workflow.logger.warning("the code of %s was not delivered: %s", request.payment_id, failure_type(error))

    async def _count_decline(self) -> None:
        """Tells the fraud engine of a refusal that card testing would show."""
        # A local activity right behind the decision would hold the caller's answer back; a timer lets that go first.
        await workflow.sleep(0.001)
        try:
            await workflow.execute_local_activity_method(PaymentActivities.count_decline, self._order(), **LOCAL_STEP)
        except ActivityError as error:
            # The windows live in Redis, which may be lost: while it is down payments are blocked anyway.
            workflow.logger.warning("a decline was not counted: %s", failure_type(error))

    def _show(self) -> None:
        """Search attributes and details for operators. Each upsert costs the server, so only what changed is told."""
        status = self._recorded.status
        updates: list[SearchAttributeUpdate[Any]] = []
        if status is not self._shown_status:
            updates.append(PAYMENT_STATUS.value_set(status))
            if self._shown_status is PaymentStatus.PROCESSING:
                updates.append(ACCOUNT_ID.value_set(self._request.account_id))
            self._shown_status = status
        at_risk = self._at_risk_minor()
        if at_risk != self._shown_at_risk_minor:
            updates += (
                [IN_DOUBT_SINCE.value_set(workflow.now()), AMOUNT_AT_RISK_MINOR.value_set(at_risk)]
                if at_risk
                else [IN_DOUBT_SINCE.value_unset(), AMOUNT_AT_RISK_MINOR.value_unset()]
            )
            self._shown_at_risk_minor = at_risk
        if updates:
            workflow.upsert_search_attributes(updates)
        self._show_details()

    def _at_risk_minor(self) -> int:
        """What nobody can vouch for: the payment's own amount, or that of its refunds and increments in doubt."""
        if self._recorded.status is PaymentStatus.IN_DOUBT:
            return self._request.money.amount_minor
        doubted = (refund for refund in self._refunds.values() if refund.status is RefundStatus.IN_DOUBT)
        return sum(refund.money.amount_minor for refund in doubted) + sum(self._increments_in_doubt.values())

    def _show_details(self) -> None:
        payment = self._recorded
        lines = [
            f"**{payment.status}** · {payment.money} · {self._request.merchant.name}",
            f"authorized {payment.amount_authorized_minor}, captured {payment.amount_captured_minor}, "
            f"refunded {payment.amount_refunded_minor} (minor units)",
        ]
        lines += [f"late answer {answer.response_code}, STAN {answer.stan}" for answer in self._late_answers]
        workflow.set_current_details("\n\n".join(lines))

    def _effect(self, step: str) -> str:
        return effect_key(self._request.payment_id, step)

    def _capture_amount(self, request: CaptureRequest) -> int:
        return self._payment.capturable_minor if request.amount_minor is None else request.amount_minor

    def _refund_amount(self, request: RefundRequest) -> int:
        return self._payment.refundable_minor if request.amount_minor is None else request.amount_minor

    def _void_event(self) -> PaymentEvent:
        waits = self._payment.status in (PaymentStatus.REQUIRES_ACTION, PaymentStatus.IN_REVIEW)
        return PaymentEvent.CANCELED if waits else PaymentEvent.VOIDED
