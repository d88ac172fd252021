"""The life of one dispute, from the network's first notice to its last. This workflow is its dispute's only writer.

The network's worker starts it and tells it all that follows by the signal `network_decision`; the merchant answers by
updates. Read `_live` first: it is the whole way of a dispute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import DisputeActivities, FreezeOrder, NetworkActivities
    from domain.dispute_records import DisputeChange, DisputeOpening, NoticeRecord
    from domain.disputes import (
        CHARGEBACK_RIGHT,
        DECISION_WINDOW,
        FINAL,
        LATE_NOTICE_WINDOW,
        AcceptCommand,
        ChargebackNotice,
        Dispute,
        DisputeEvent,
        DisputeKind,
        DisputeStatus,
        NoticeStage,
        RepresentCommand,
        apply,
        event_of,
        opened,
        reminders,
        respond_by,
    )
    from domain.errors import InvalidTransition
    from domain.evidence import MAX_FILES, statement_of
    from domain.ids import DISPUTE, derived_id, effect_key
    from domain.outcomes import Acknowledged
    from temporal.search_attributes import ACCOUNT_ID, DISPUTE_DUE_BY, DISPUTE_STATUS
    from workflows.dispute_messages import AcceptDispute, AddEvidence, DisputeSnapshot, SubmitEvidence
    from workflows.messages import Resolution
    from workflows.options import DOCUMENT_CALL, LOCAL_STEP, NETWORK_ADVICE
    from workflows.steps import DurableSteps
    from workflows.updates import named_update

T = TypeVar("T")


class _Excess(Enum):
    """Two operators let a dispute take more than its payment has left."""

    ACKNOWLEDGED = "acknowledged"


@workflow.defn(name="dispute")
class DisputeWorkflow(DurableSteps):
    @workflow.init
    def __init__(self, notice: ChargebackNotice) -> None:
        super().__init__()
        # The notice that opened what runs now: the case, or the chargeback that an inquiry became.
        self._notice = notice
        self._dispute_id = derived_id(DISPUTE, notice.chargeback_id)
        self._dispute = opened(notice)
        # What the database holds; `_dispute` runs ahead of it while a change is being recorded.
        self._recorded: Dispute | None = None
        self._version = 0
        self._recording = asyncio.Lock()
        self._due_by: datetime | None = respond_by(notice)
        # Counts the changes of status, so that whoever waits for one misses none.
        self._phase = 0
        self._texts: dict[str, str] = {}
        self._files = 0
        self._surrenders = 0
        self._noticed = {_identity(notice)}
        self._latest_notice_at = notice.issued_at
        self._account_id: str | None = None
        self._shown: dict[str, object] = {}

    # ------------------------------------------------------------------------------------------- the way of a dispute

    @workflow.run
    async def run(self, notice: ChargebackNotice) -> DisputeSnapshot:
        return await self._whatever_comes(self._live())

    async def _live(self) -> DisputeSnapshot:
        self._show()
        await self._open()
        while True:
            if self._dispute.status is DisputeStatus.UNDER_REVIEW:
                await self._await_decision()
            elif self._dispute.status not in FINAL:
                await self._await_response()
            elif await self._is_over():
                return self.snapshot()

    async def _open(self) -> None:
        self._version = 1
        opening = DisputeOpening(
            dispute_id=self._dispute_id,
            notice=self._notice,
            dispute=self._dispute,
            due_by=respond_by(self._notice),
            opened_at=workflow.now(),
        )
        owner = await self._within_payment(
            "disputes.open",
            lambda acknowledged: workflow.execute_local_activity_method(
                DisputeActivities.open, replace(opening, excess_acknowledged=acknowledged), **LOCAL_STEP
            ),
        )
        self._account_id = owner.account_id
        self._recorded = self._dispute
        self._show()
        if self._notice.stage is not NoticeStage.OPENED:
            await self._heed(self._notice)

    async def _await_response(self) -> None:
        """Reminds the merchant until there is an answer, or it is too late for one."""
        phase, due_by = self._phase, self._due_by
        assert due_by is not None
        while to_come := reminders(due_by, workflow.now()):
            moment, days_left = to_come[0]
            if await self._leaves(phase, moment):
                return
            await self._change(DisputeEvent.EVIDENCE_DUE_SOON, days_left=days_left)
        if await self._leaves(phase, due_by):
            return
        if self._dispute.kind is DisputeKind.CHARGEBACK:
            await self._change(DisputeEvent.EXPIRED, status_reason="no_response")
            return
        # Silence loses no inquiry: the money is still the merchant's until a chargeback takes it.
        await self._change(DisputeEvent.OVERDUE, status_reason="no_response")
        await self._await_chargeback(phase)

    async def _await_decision(self) -> None:
        phase, due_by = self._phase, self._due_by
        assert due_by is not None
        if self._dispute.kind is DisputeKind.INQUIRY:
            await self._await_chargeback(phase)
        elif not await self._leaves(phase, due_by):
            await self._change(DisputeEvent.DECISION_OVERDUE, status_reason="network_silent")
            await workflow.wait_condition(lambda: self._phase != phase)

    async def _await_chargeback(self, phase: int) -> None:
        """An inquiry is over when the issuer closes it, or has lost the right to a chargeback."""
        if not await self._leaves(phase, self._notice.issued_at + CHARGEBACK_RIGHT):
            await self._change(DisputeEvent.LAPSED, status_reason="no_chargeback_followed")

    async def _is_over(self) -> bool:
        """Whether the network, which has time to come back to a decided case, has not."""
        if await self._leaves(self._phase, workflow.now() + LATE_NOTICE_WINDOW):
            return False
        await self._background_done()
        return self._dispute.status in FINAL

    async def _leaves(self, phase: int, until: datetime) -> bool:
        """Whether the status changes by then. What happens at the very deadline counts as in time."""
        try:
            await workflow.wait_condition(
                lambda: self._phase != phase, timeout=max(until - workflow.now(), timedelta(0))
            )
        except TimeoutError:
            return self._phase != phase
        return True

    # --------------------------------------------------------------------------------------------- signals and queries

    @workflow.signal(name="network_decision")
    async def network_decision(self, notice: ChargebackNotice) -> None:
        """What the network says after its first notice: an escalation, a decision, or again what it has said before."""
        if _identity(notice) in self._noticed:
            return
        self._noticed.add(_identity(notice))
        await workflow.wait_condition(lambda: self._recorded is not None)
        await self._heed(notice)

    @workflow.query(name="snapshot")
    def snapshot(self) -> DisputeSnapshot:
        dispute = self._recorded or self._dispute
        return DisputeSnapshot(
            dispute_id=self._dispute_id,
            payment_id=self._notice.payment_id,
            money=dispute.money,
            kind=dispute.kind,
            status=dispute.status,
            due_by=self._due_by,
            needs_attention=self.needs_attention(),
        )

    # --------------------------------------------------------------------------------------------------------- updates

    @named_update("add_evidence")
    async def add_evidence(self, evidence: AddEvidence) -> DisputeSnapshot:
        change = self._move(DisputeEvent.EVIDENCE_ADDED, texts=evidence.texts, file=evidence.file)
        self._texts = {name: said for name, said in (self._texts | evidence.texts).items() if said}
        self._files += evidence.file is not None
        await self._record(change)
        return self.snapshot()

    @add_evidence.validator
    def _may_add(self, evidence: AddEvidence) -> None:
        self._check(DisputeEvent.EVIDENCE_ADDED)
        if not evidence.texts and evidence.file is None:
            raise ApplicationError("there is neither a text nor a file", type="evidence_missing")
        if evidence.file is not None and self._files >= MAX_FILES:
            raise ApplicationError(f"a dispute may have {MAX_FILES} files", type="evidence_limit_reached")

    @named_update("submit")
    async def submit(self, request: SubmitEvidence) -> DisputeSnapshot:
        """Freezes the evidence. It is sent behind the answer, and repeated until the network takes note of it."""
        change = self._move(DisputeEvent.SUBMITTED, status_reason="answered")
        phase, statement = self._phase, statement_of(self._texts)
        await self._record(change)
        self._in_background(self._represent(phase, change.dispute, statement))
        return self.snapshot()

    @submit.validator
    def _may_submit(self, request: SubmitEvidence) -> None:
        self._check(DisputeEvent.SUBMITTED)
        if not self._texts and not self._files:
            raise ApplicationError("an answer needs evidence", type="evidence_missing")

    @named_update("accept")
    async def accept(self, request: AcceptDispute) -> DisputeSnapshot:
        """Loses the case at once. The issuer is told behind the answer."""
        change = self._move(DisputeEvent.ACCEPTED, status_reason="accepted")
        await self._record(change)
        self._surrenders += 1
        self._in_background(self._give_in(change.dispute, self._surrenders))
        return self.snapshot()

    @accept.validator
    def _may_accept(self, request: AcceptDispute) -> None:
        self._check(DisputeEvent.ACCEPTED)

    # ----------------------------------------------------------------------------------------------------------- parts

    async def _heed(self, notice: ChargebackNotice) -> None:
        """Does what the notice says. What is so already, cannot be, or is older than what was heeded, is only kept."""
        late = notice.issued_at < self._latest_notice_at
        event = None if late else event_of(self._dispute, notice)
        if event is None:
            await self._keep(notice)
            return
        self._latest_notice_at = notice.issued_at
        if notice.stage is NoticeStage.OPENED:
            self._notice = notice
        await self._change(event, status_reason=_REASONS[event], notice=notice)

    async def _keep(self, notice: ChargebackNotice) -> None:
        record = NoticeRecord(self._dispute_id, notice, workflow.now())
        async with self._recording:
            await self._until_done(
                "disputes.note",
                lambda: workflow.execute_local_activity_method(DisputeActivities.note, record, **LOCAL_STEP),
            )

    async def _represent(self, phase: int, answered: Dispute, statement: str) -> None:
        """Sends an answer, unless the case goes on without it."""
        number = answered.submissions
        order = FreezeOrder(self._dispute_id, number)
        evidence = await self._while_in(
            phase,
            f"documents.freeze:{number}",
            lambda: workflow.execute_activity_method(DisputeActivities.freeze, order, **DOCUMENT_CALL),
        )
        if evidence is None:
            return
        command = RepresentCommand(
            effect_key=effect_key(self._dispute_id, "represent", number),
            chargeback_id=self._notice.chargeback_id,
            payment_id=self._notice.payment_id,
            rrn=self._notice.rrn,
            money=answered.money,
            kind=answered.kind,
            reason_code=self._notice.reason_code,
            evidence_sha256=evidence.sha256,
            documents=evidence.documents,
            statement=statement,
        )
        acknowledged = await self._while_in(
            phase,
            f"network.represent:{number}",
            lambda: workflow.execute_activity_method(NetworkActivities.represent, command, **NETWORK_ADVICE),
            {Resolution.ACKNOWLEDGED: Acknowledged(workflow.now())},
        )
        if acknowledged is not None:
            # An answer that was followed by another one meanwhile is not the one that the record tells of.
            latest = number == self._dispute.submissions
            await self._change(DisputeEvent.REPRESENTED, evidence_sha256=evidence.sha256 if latest else None)

    async def _while_in(
        self,
        phase: int,
        name: str,
        call: Callable[[], Awaitable[T]],
        resolutions: Mapping[Resolution, T] | None = None,
    ) -> T | None:
        """The result of a step that is worth taking in this phase only; None once the case has gone on without it."""

        async def attempt() -> T | None:
            return await call() if self._phase == phase else None

        return await self._until_done(name, attempt, resolutions)

    async def _give_in(self, accepted: Dispute, number: int) -> None:
        command = AcceptCommand(
            effect_key=effect_key(self._dispute_id, "accept", number),
            chargeback_id=self._notice.chargeback_id,
            payment_id=self._notice.payment_id,
            rrn=self._notice.rrn,
            money=accepted.money,
        )
        await self._until_done(
            f"network.accept:{number}",
            lambda: workflow.execute_activity_method(NetworkActivities.accept, command, **NETWORK_ADVICE),
            {Resolution.ACKNOWLEDGED: Acknowledged(workflow.now())},
        )

    def _check(self, event: DisputeEvent) -> None:
        """Refuses, before anything is written to the history, what `apply` would refuse."""
        if self._recorded is None:
            raise ApplicationError("the dispute is not open yet", type="dispute_unexpected_state")
        self._after(event)

    def _after(self, event: DisputeEvent, notice: ChargebackNotice | None = None) -> Dispute:
        try:
            return apply(self._dispute, event, notice.money if notice else None)
        except InvalidTransition as refusal:
            raise ApplicationError(str(refusal), type=refusal.code) from refusal

    async def _change(self, event: DisputeEvent, **details: Any) -> None:
        await self._record(self._move(event, **details))

    def _move(self, event: DisputeEvent, *, notice: ChargebackNotice | None = None, **details: Any) -> DisputeChange:
        """Moves the dispute on: at once, so that of two handlers that want the same thing one gets a typed refusal.

        `details` are fields of the change that is to be recorded.
        """
        before, after = self._dispute, self._after(event, notice)
        self._dispute = after
        self._version += 1
        if after.status is not before.status:
            self._phase += 1
            self._due_by = self._next_deadline(after)
            # A parked answer looks again whether it is still wanted.
            for name in self.needs_attention():
                self._steps[name].retry_now = True
        return DisputeChange(
            dispute_id=self._dispute_id,
            version=self._version,
            event=event,
            dispute=after,
            held_before=before.holding,
            occurred_at=workflow.now(),
            due_by=self._due_by,
            notice=notice,
            **details,
        )

    def _next_deadline(self, dispute: Dispute) -> datetime | None:
        if dispute.status in FINAL:
            return None
        if dispute.status is not DisputeStatus.UNDER_REVIEW:
            return respond_by(self._notice)
        if dispute.kind is DisputeKind.INQUIRY:
            return self._notice.issued_at + CHARGEBACK_RIGHT
        return workflow.now() + DECISION_WINDOW

    async def _record(self, change: DisputeChange) -> None:
        """Writes the change with its evidence, its ledger entries and its event, in one transaction, in its turn."""
        async with self._recording:
            await self._within_payment(
                "disputes.record",
                lambda acknowledged: workflow.execute_local_activity_method(
                    DisputeActivities.record, replace(change, excess_acknowledged=acknowledged), **LOCAL_STEP
                ),
            )
            self._recorded = change.dispute
            self._show()

    async def _within_payment(self, name: str, call: Callable[[bool], Awaitable[T]]) -> T:
        """The result of `call`. If the network takes more than the payment has left, that needs two operators' word."""
        result = await self._until_done(name, lambda: call(False), {Resolution.ACKNOWLEDGED: _Excess.ACKNOWLEDGED})
        if isinstance(result, _Excess):
            return await self._until_done(name, lambda: call(True))
        return result

    # ------------------------------------------------------------------------------------------------- for operators

    def _show(self) -> None:
        """Search attributes and details. Each upsert costs the server, so only what changed is told."""
        dispute = self._recorded or self._dispute
        wanted: dict[Any, object] = {DISPUTE_STATUS: dispute.status.value, DISPUTE_DUE_BY: self._due_by}
        if self._account_id is not None:
            wanted[ACCOUNT_ID] = self._account_id
        updates: list[SearchAttributeUpdate[Any]] = [
            key.value_unset() if value is None else key.value_set(value)
            for key, value in wanted.items()
            if self._shown.get(key.name) != value
        ]
        if updates:
            workflow.upsert_search_attributes(updates)
        self._shown = {key.name: value for key, value in wanted.items()}
        self._show_details()

    def _show_attention(self) -> None:
        super()._show_attention()
        self._show_details()

    def _show_details(self) -> None:
        dispute, notice = self._recorded or self._dispute, self._notice
        lines = [
            f"**{dispute.status}** · {dispute.kind} · {dispute.money} · reason {notice.reason_code}",
            f"{notice.payment_id} · texts: {len(self._texts)}, files: {self._files}, answers: {dispute.submissions}",
        ]
        if self._due_by is not None:
            lines.append(f"due by {self._due_by:%Y-%m-%d %H:%M} UTC{', overdue' if dispute.overdue else ''}")
        lines += [f"{name} waits: {step.reason}" for name, step in self._steps.items() if step.parked_since is not None]
        workflow.set_current_details("\n\n".join(lines))


@workflow.defn(name="dispute-late-notice")
class LateNoticeWorkflow(DurableSteps):
    """What the network says of a case after its workflow has closed, which nothing here can follow any more.

    It is kept, and waits, visibly, until two operators have seen to it. The money that it moves comes with clearing,
    as a break of its own.
    """

    @workflow.run
    async def run(self, notice: ChargebackNotice) -> None:
        await self._whatever_comes(self._live(notice))

    async def _live(self, notice: ChargebackNotice) -> None:
        dispute_id = derived_id(DISPUTE, notice.chargeback_id)
        workflow.set_current_details(
            f"**{notice.kind} {notice.stage}** after {dispute_id} was closed · {notice.money} · reason"
            f" {notice.reason_code}\n\n{notice.payment_id}"
        )
        record = NoticeRecord(dispute_id, notice, workflow.now())
        await self._until_done(
            "disputes.note",
            lambda: workflow.execute_local_activity_method(DisputeActivities.note, record, **LOCAL_STEP),
        )
        await self._until_done("dispute.late_notice", self._ask, {Resolution.ACKNOWLEDGED: None})
        await workflow.wait_condition(workflow.all_handlers_finished)

    async def _ask(self) -> None:
        raise ApplicationError("only people can say what follows", type="dispute_closed", non_retryable=True)


def _identity(notice: ChargebackNotice) -> tuple[str, str, datetime]:
    return notice.kind, notice.stage, notice.issued_at


_REASONS = {
    DisputeEvent.ESCALATED: "chargeback_followed",
    DisputeEvent.REOPENED: "chargeback_came_back",
    DisputeEvent.DECIDED_WON: "decided_by_issuer",
    DisputeEvent.DECIDED_LOST: "decided_by_issuer",
}
