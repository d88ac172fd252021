"""A user's case from the first document to the end of the wallet, and the screening of all of them against a new list.

The case is written by this workflow alone. What the user says goes through it as ciphertext, so that its history is
unreadable once the user's key is destroyed, and still replays.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import (
        IdentityCheck,
        OnboardingActivities,
        PersonalKeyActivities,
        Rescreened,
        RescreeningPage,
        UserRef,
    )
    from domain.errors import InvalidTransition
    from domain.onboarding import (
        Checked,
        CheckOutcome,
        DocumentKind,
        Onboarding,
        OnboardingChange,
        OnboardingDocument,
        OnboardingEvent,
        OnboardingStatus,
        SealedDetails,
        apply,
    )
    from temporal.search_attributes import ACCOUNT_ID, ONBOARDING_STATUS
    from workflows.onboarding_messages import (
        AddDocument,
        OnboardingReview,
        OnboardingSnapshot,
        OnboardingStart,
        RescreenRequest,
        SubmitDetails,
    )
    from workflows.options import IDENTITY_CHECK, ONBOARDING_CALL, PERSONAL_KEY_CALL
    from workflows.steps import DurableSteps
    from workflows.updates import named_update

_PROVIDER = "provider"
_PLATFORM = "platform"

_OF_CHECK = {
    CheckOutcome.CLEAR: OnboardingEvent.CLEARED,
    CheckOutcome.REFER: OnboardingEvent.REFERRED,
    CheckOutcome.FAIL: OnboardingEvent.FAILED,
}


@workflow.defn(name="onboarding")
class OnboardingWorkflow(DurableSteps):
    @workflow.init
    def __init__(self, start: OnboardingStart) -> None:
        super().__init__()
        self._start = start
        self._case = start.onboarding or Onboarding()
        self._sequence = start.sequence
        self._writing = asyncio.Lock()
        self._expires_on = start.document_expires_on
        self._reasons: tuple[str, ...] = ()
        # The list that the user was held against last, and the one that they are to be held against.
        self._screened_with = start.screened_with
        self._screen_with: str | None = None
        self._shown: OnboardingStatus | None = None

    @workflow.run
    async def run(self, start: OnboardingStart) -> OnboardingSnapshot:
        return await self._whatever_comes(self._live())

    async def _live(self) -> OnboardingSnapshot:
        workflow.upsert_search_attributes([ACCOUNT_ID.value_set(self._start.account_id)])
        self._show()
        while self._case.status is not OnboardingStatus.CLOSED:
            if self._check_is_due():
                await self._check()
            elif self._rescreening_is_due():
                await self._rescreen()
            elif workflow.info().is_continue_as_new_suggested():
                await self._go_on_anew()
            else:
                await self._until_something_happens()
        await self._background_done()
        return self.snapshot()

    def _check_is_due(self) -> bool:
        return self._case.status is OnboardingStatus.IN_REVIEW and not self._case.awaits_person

    def _rescreening_is_due(self) -> bool:
        return (
            self._case.status is OnboardingStatus.VERIFIED
            and self._screen_with is not None
            and self._screen_with != self._screened_with
        )

    async def _until_something_happens(self) -> None:
        sequence, wanted = self._sequence, self._screen_with
        try:
            await workflow.wait_condition(
                lambda: (self._sequence, self._screen_with) != (sequence, wanted), timeout=self._until_expiry()
            )
        except TimeoutError:
            if self._case.status is OnboardingStatus.VERIFIED:
                await self._change(OnboardingEvent.EXPIRED, _PLATFORM, reasons=("document_expired",))

    def _until_expiry(self) -> timedelta | None:
        """To the end of the document's last day, UTC; None where nothing expires."""
        if self._case.status is not OnboardingStatus.VERIFIED or self._expires_on is None:
            return None
        last_day = datetime.fromisoformat(self._expires_on).date()
        end = datetime.combine(last_day, time(), UTC) + timedelta(days=1)
        return max(end - workflow.now(), timedelta(0))

    async def _check(self) -> None:
        submission = self._case.submissions
        checked = await self._checked("onboarding.check")
        # Whoever closed the wallet meanwhile, or said something new, has the last word.
        if self._check_is_due() and self._case.submissions == submission:
            self._screened_with = checked.list_version
            event = _OF_CHECK[checked.outcome]
            await self._change(event, _PROVIDER, reasons=checked.reasons, list_version=checked.list_version)

    async def _rescreen(self) -> None:
        checked = await self._checked("onboarding.rescreen")
        if self._case.status is not OnboardingStatus.VERIFIED:
            return
        # A provider that still looks at the list of before is asked again by the next schedule.
        self._screened_with = checked.list_version
        self._screen_with = None
        clear = checked.outcome is CheckOutcome.CLEAR
        event = OnboardingEvent.RESCREENED if clear else OnboardingEvent.HIT
        await self._change(event, _PROVIDER, reasons=checked.reasons, list_version=checked.list_version)

    async def _checked(self, step: str) -> Checked:
        """Both together are the step: a loan that lapsed is asked for again."""

        async def call() -> Checked:
            user = UserRef(self._start.user_id)
            loan = await workflow.execute_activity_method(PersonalKeyActivities.lend, user, **PERSONAL_KEY_CALL)
            order = IdentityCheck(self._start.user_id, loan.handle)
            return await workflow.execute_activity_method(OnboardingActivities.check, order, **IDENTITY_CHECK)

        return await self._until_done(step, call)

    async def _go_on_anew(self) -> None:
        await self._background_done()
        workflow.continue_as_new(
            replace(
                self._start,
                onboarding=self._case,
                sequence=self._sequence,
                document_expires_on=self._expires_on,
                screened_with=self._screened_with,
            )
        )

    async def _change(
        self,
        event: OnboardingEvent,
        actor: str,
        *,
        reasons: tuple[str, ...] = (),
        list_version: str | None = None,
        details: SealedDetails | None = None,
        document: OnboardingDocument | None = None,
    ) -> None:
        """The case moves before anything is awaited, so that whoever asks next is judged by what is so already. The
        rows follow one by one."""
        self._case = apply(self._case, event, kind=document.kind if document else None)
        self._sequence += 1
        # Who hands in a document says nothing about what was found before.
        self._reasons = self._reasons if event is OnboardingEvent.DOCUMENT_ADDED else reasons
        change = OnboardingChange(
            user_id=self._start.user_id,
            account_id=self._start.account_id,
            sequence=self._sequence,
            event=event,
            onboarding=self._case,
            occurred_at=workflow.now(),
            actor=actor,
            reasons=reasons,
            list_version=list_version,
            details=details,
            document=document,
        )
        self._show()
        async with self._writing:
            await self._until_done(
                "onboarding.record",
                lambda: workflow.execute_activity_method(OnboardingActivities.record, change, **ONBOARDING_CALL),
            )

    # ----------------------------------------------------------------------------------------------- what may be asked

    @named_update("add_document")
    async def add_document(self, request: AddDocument) -> OnboardingSnapshot:
        """A document was handed in."""
        await self._change(OnboardingEvent.DOCUMENT_ADDED, request.actor, document=request.document)
        return self.snapshot()

    @add_document.validator
    def _may_add_document(self, request: AddDocument) -> None:
        self._require(OnboardingEvent.DOCUMENT_ADDED, request.document.kind)

    @named_update("submit")
    async def submit(self, request: SubmitDetails) -> OnboardingSnapshot:
        """The user says who they are, or asks for another look."""
        if request.details is not None:
            self._expires_on = request.details.document_expires_on
            self._case = replace(self._case, names_document=self._expires_on is not None)
        await self._change(OnboardingEvent.SUBMITTED, request.actor, details=request.details)
        return self.snapshot()

    @submit.validator
    def _may_submit(self, request: SubmitDetails) -> None:
        self._require(OnboardingEvent.SUBMITTED)
        if request.details is None and self._case.submissions == 0:
            raise ApplicationError("there is nothing to look at yet", type="onboarding_details_missing")

    @named_update("review")
    async def review(self, request: OnboardingReview) -> OnboardingSnapshot:
        """An operator decides what no check can."""
        event = OnboardingEvent.APPROVED if request.approve else OnboardingEvent.DENIED
        await self._change(event, f"operator:{request.operator.strip()}", reasons=(request.reason.strip(),))
        return self.snapshot()

    @review.validator
    def _may_review(self, request: OnboardingReview) -> None:
        if not request.reason.strip() or not request.operator.strip():
            raise ApplicationError("a decision needs an operator and a reason", type="reason_required")
        self._require(OnboardingEvent.APPROVED if request.approve else OnboardingEvent.DENIED)

    @workflow.signal(name="rescreen")
    async def rescreen(self, request: RescreenRequest) -> None:
        """There is another watch list; a verified user is held against it."""
        self._screen_with = request.list_version

    @workflow.signal(name="close")
    async def close(self) -> None:
        """The wallet is closed: nothing further is asked or decided."""
        if self._case.status is not OnboardingStatus.CLOSED:
            await self._change(OnboardingEvent.CLOSED, _PLATFORM)

    @workflow.query(name="snapshot")
    def snapshot(self) -> OnboardingSnapshot:
        return OnboardingSnapshot(self._start.user_id, self._case, self._reasons, self.needs_attention())

    def _require(self, event: OnboardingEvent, kind: DocumentKind | None = None) -> None:
        try:
            apply(self._case, event, kind=kind)
        except InvalidTransition as refusal:
            raise ApplicationError(str(refusal), type=refusal.code) from refusal

    def _show(self) -> None:
        if self._case.status is not self._shown:
            self._shown = self._case.status
            workflow.upsert_search_attributes([ONBOARDING_STATUS.value_set(self._case.status)])
        asked = ", a person is asked" if self._case.awaits_person else ""
        frozen = ", sending is frozen" if self._case.frozen else ""
        reasons = f": {', '.join(self._reasons)}" if self._reasons else ""
        workflow.set_current_details(f"**{self._case.status}** ({self._case.tier}{asked}{frozen}){reasons}")


@workflow.defn(name="onboarding-rescreening")
class RescreeningWorkflow(DurableSteps):
    """Tells each verified user's case that the watch list is another one; each then looks for itself."""

    @workflow.run
    async def run(self) -> Rescreened:
        return await self._whatever_comes(self._live())

    async def _live(self) -> Rescreened:
        page, users = RescreeningPage(), 0
        while True:
            done = await self._page(page)
            users += done.users
            workflow.set_current_details(f"list **{done.list_version}**: {users} users")
            if done.after is None:
                await workflow.wait_condition(workflow.all_handlers_finished)
                return replace(done, users=users)
            page = RescreeningPage(done.after, done.list_version)

    async def _page(self, page: RescreeningPage) -> Rescreened:
        return await self._until_done(
            "onboarding.rescreen",
            lambda: workflow.execute_activity_method(OnboardingActivities.rescreen, page, **ONBOARDING_CALL),
        )
