"""Verifying a bank account by two small deposits. This workflow is its verification's only writer.

The API starts it and brings the guesses; the workflow that reads the bank's day tells it what was posted and what came
back. Read `_live` first: it is the whole way of a verification.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import BankAccountActivities, BankActivities
    from domain.ids import effect_key
    from domain.micro_deposits import (
        ATTEMPTS,
        CONFIRMATION_WINDOW,
        ENDED,
        RETURN_WINDOW,
        TRANSITIONS,
        BankAccountRef,
        BankDayReport,
        Begun,
        CancelDeposits,
        ConfirmAttempt,
        ConfirmDeposits,
        DepositReturned,
        DepositsPosted,
        MicroDepositChange,
        MicroDepositEvent,
        MicroDepositOrder,
        MicroDepositSnapshot,
        MicroDepositStatus,
        OriginateCommand,
        Originated,
        OriginationRefused,
        OriginationUnknown,
        next_status,
    )
    from temporal.search_attributes import ACCOUNT_ID, IN_DOUBT_SINCE, MICRO_DEPOSIT_STATUS
    from workflows.options import BANK_CALL, BANK_ORIGINATION, BANK_POLL, VAULT_CALL
    from workflows.steps import DurableSteps
    from workflows.updates import named_update

_Event = MicroDepositEvent
_Status = MicroDepositStatus


@workflow.defn(name="micro-deposit")
class MicroDepositWorkflow(DurableSteps):
    @workflow.init
    def __init__(self, order: MicroDepositOrder) -> None:
        super().__init__()
        self._order = order
        self._status = _Status.NEW
        self._begun: Begun | None = None
        self._version = 0
        # What the database holds; `_version` runs ahead of it while an event is being recorded.
        self._recorded = 0
        self._recording = asyncio.Lock()
        # One guess at a time. (The database counts them one by one, whoever brings them.)
        self._confirming = asyncio.Lock()
        self._confirmations = 0
        self._attempts_remaining = ATTEMPTS
        self._posted: DepositsPosted | None = None
        self._returned: DepositReturned | None = None
        self._expires_at: datetime | None = None
        self._shown_doubt = False

    @workflow.run
    async def run(self, order: MicroDepositOrder) -> MicroDepositSnapshot:
        return await self._whatever_comes(self._live())

    async def _live(self) -> MicroDepositSnapshot:
        self._begun = await self._until_done(
            "bank.begin",
            lambda: workflow.execute_activity_method(BankActivities.begin, self._order, **BANK_CALL),
        )
        if self._begun.refusal is None:
            self._show()
            await self._send()
            await self._await_posting()
            await self._await_confirmation()
            await self._await_return()
            if self._status is _Status.RETURNED:
                await self._revoke()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._snapshot()

    async def _send(self) -> None:
        if self._status in ENDED:  # canceled before anything was sent
            return
        await self._change(_Event.INITIATED)
        outcome = await self._originate()
        if isinstance(outcome, OriginationRefused):
            await self._change(_Event.REFUSED, reason=outcome.reason)
            return
        self._expires_at = workflow.now() + CONFIRMATION_WINDOW
        await self._change(_Event.ORIGINATED)

    async def _originate(self) -> Originated | OriginationRefused:
        """What became of the file. While nobody knows the bank is asked; if it denies having it, it is sent again."""
        account = BankAccountRef(self._order.bank_account_id)
        box = await self._until_done(
            "vault.bank_account_box",
            lambda: workflow.execute_activity_method(BankAccountActivities.bank_account_box, account, **VAULT_CALL),
        )
        identifier = self._order.micro_deposit_id
        command = OriginateCommand(effect_key(identifier, "originate"), identifier, box.sealed_account)
        while True:
            outcome = await self._until_done(
                "bank.originate",
                lambda: workflow.execute_activity_method(BankActivities.originate, command, **BANK_ORIGINATION),
            )
            if not isinstance(outcome, OriginationUnknown):
                return outcome
            if self._status is _Status.INITIATING:
                await self._change(_Event.DOUBTED)
            found = await self._until_done(
                "bank.inquire",
                lambda: workflow.execute_activity_method(BankActivities.inquire, command, **BANK_ORIGINATION),
            )
            if isinstance(found, Originated | OriginationRefused):
                return found

    async def _await_posting(self) -> None:
        if self._status is not _Status.SENT:
            return
        await self._until_expiry(lambda: self._posted is not None)
        if self._returned is not None and self._status is _Status.SENT:
            await self._take_back()
        elif self._posted is not None and self._status is _Status.SENT:
            await self._change(_Event.POSTED)

    async def _await_confirmation(self) -> None:
        if self._status is not _Status.AWAITING_CONFIRMATION:
            return
        await self._until_expiry(lambda: False)
        if self._returned is not None and self._status is _Status.AWAITING_CONFIRMATION:
            await self._take_back()

    async def _until_expiry(self, reached: Callable[[], bool]) -> None:
        """Returns when what is waited for is there, an entry came back, it ended otherwise, or time was up."""
        deadline = self._expires_at or workflow.now()
        try:
            await workflow.wait_condition(
                lambda: reached() or self._returned is not None or self._status in ENDED,
                timeout=max(deadline - workflow.now(), timedelta()),
            )
        except TimeoutError:
            # A guess that was brought in time is judged first.
            async with self._confirming:
                if self._status not in ENDED:
                    await self._change(_Event.EXPIRED)

    async def _await_return(self) -> None:
        """Whoever holds the account may have an entry returned for 60 days: then it was never theirs to verify."""
        if self._status is not _Status.VERIFIED:
            return
        try:
            await workflow.wait_condition(lambda: self._returned is not None, timeout=RETURN_WINDOW)
        except TimeoutError:
            if self._returned is None:  # it may have come in the same moment
                return
        await self._take_back()

    async def _take_back(self) -> None:
        assert self._returned is not None
        await self._change(_Event.RETURNED, reason=self._returned.reason_code)

    async def _revoke(self) -> None:
        account = BankAccountRef(self._order.bank_account_id)
        await self._until_done(
            "vault.erase_bank_account",
            lambda: workflow.execute_activity_method(BankAccountActivities.erase_bank_account, account, **VAULT_CALL),
        )

    # -------------------------------------------------------------------------------------------------- what is told

    @named_update("begin")
    async def begin(self) -> MicroDepositSnapshot:
        """Returns when the verification is begun; refused if it may not."""
        await workflow.wait_condition(lambda: self._begun is not None)
        if self._begun is not None and self._begun.refusal is not None:
            raise ApplicationError("the bank account cannot be verified now", type=self._begun.refusal)
        return self._snapshot()

    @named_update("confirm")
    async def confirm(self, request: ConfirmDeposits) -> MicroDepositSnapshot:
        """One guess. It is counted under the update's id, so the same update is one guess."""
        update = workflow.current_update_info()
        assert update is not None
        async with self._confirming:
            await workflow.wait_condition(lambda: self._recorded == self._version)
            self._check_confirmable()
            self._confirmations += 1
            attempt = ConfirmAttempt(
                effect_key(self._order.micro_deposit_id, f"confirm-{update.id}"),
                self._order.micro_deposit_id,
                request.amounts_minor,
            )
            verdict = await self._until_done(
                f"bank.confirm:{self._confirmations}",
                lambda: workflow.execute_activity_method(BankActivities.confirm, attempt, **BANK_CALL),
            )
            self._attempts_remaining = verdict.attempts_remaining
            # The bank may have returned an entry meanwhile: then nothing is verified any more.
            if self._status is _Status.AWAITING_CONFIRMATION:
                if verdict.correct:
                    await self._change(_Event.CONFIRMED)
                elif verdict.attempts_remaining == 0:
                    await self._change(_Event.ATTEMPTS_EXCEEDED, reason="attempts_exceeded")
            return self._snapshot(correct=verdict.correct and self._status is _Status.VERIFIED)

    @confirm.validator
    def _may_confirm(self, request: ConfirmDeposits) -> None:
        self._check_confirmable()

    def _check_confirmable(self) -> None:
        if self._status is _Status.AWAITING_CONFIRMATION:
            return
        if self._status in ENDED:
            raise ApplicationError(f"the deposits are {self._status}", type="micro_deposit_unexpected_state")
        raise ApplicationError("the deposits are not posted yet", type="micro_deposit_not_posted")

    @named_update("cancel")
    async def cancel(self, request: CancelDeposits) -> MicroDepositSnapshot:
        """Ends it. What was sent stays sent."""
        async with self._confirming:
            self._check_cancelable()
            await self._change(_Event.CANCELED, reason=request.reason)
            return self._snapshot()

    @cancel.validator
    def _may_cancel(self, request: CancelDeposits) -> None:
        self._check_cancelable()

    def _check_cancelable(self) -> None:
        if self._begun is None or (self._status, _Event.CANCELED) not in TRANSITIONS:
            raise ApplicationError(f"{self._status} deposits cannot be canceled", type="micro_deposit_unexpected_state")

    @named_update("account_removed")
    async def account_removed(self) -> MicroDepositSnapshot:
        """Its bank account was removed: it ends, as soon as it is known what became of the file. A verification that is
        over stays what it is."""
        await workflow.wait_condition(self._nothing_is_in_the_air)
        async with self._confirming:
            if (self._status, _Event.CANCELED) in TRANSITIONS and self._begun == Begun():
                await self._change(_Event.CANCELED, reason="bank_account_removed")
            return self._snapshot()

    def _nothing_is_in_the_air(self) -> bool:
        if self._begun is None:
            return False
        return (
            self._status in ENDED or self._begun.refusal is not None or (self._status, _Event.CANCELED) in TRANSITIONS
        )

    @workflow.signal(name="deposits_posted")
    def deposits_posted(self, posted: DepositsPosted) -> None:
        self._posted = posted

    @workflow.signal(name="deposit_returned")
    def deposit_returned(self, returned: DepositReturned) -> None:
        # Of several entries the first return decides.
        self._returned = self._returned or returned

    @workflow.query(name="snapshot")
    def snapshot(self) -> MicroDepositSnapshot:
        return self._snapshot()

    # -------------------------------------------------------------------------------------------------- what is kept

    async def _change(self, event: MicroDepositEvent, reason: str | None = None) -> None:
        self._status = next_status(self._status, event)
        self._version += 1
        change = MicroDepositChange(
            self._order.micro_deposit_id,
            self._version,
            event,
            self._status,
            workflow.now(),
            reason,
            self._expires_at,
        )
        async with self._recording:
            await self._until_done(
                f"bank.record:{change.version}",
                lambda: workflow.execute_activity_method(BankActivities.record, change, **BANK_CALL),
            )
            self._recorded = change.version
        self._show()

    def _snapshot(self, correct: bool | None = None) -> MicroDepositSnapshot:
        return MicroDepositSnapshot(self._order.micro_deposit_id, self._status, self._attempts_remaining, correct)

    def _show(self) -> None:
        updates: list[SearchAttributeUpdate[Any]] = [MICRO_DEPOSIT_STATUS.value_set(self._status)]
        if self._version == 0:
            updates.append(ACCOUNT_ID.value_set(self._order.account_id))
        if self._status is _Status.ORIGINATION_IN_DOUBT:
            self._shown_doubt = True
            updates.append(IN_DOUBT_SINCE.value_set(workflow.now()))
        elif self._shown_doubt:
            self._shown_doubt = False
            updates.append(IN_DOUBT_SINCE.value_unset())
        workflow.upsert_search_attributes(updates)
        details = f"**{self._status}**, {self._attempts_remaining} attempts left"
        if self._expires_at is not None:
            details += f", expires {self._expires_at:%Y-%m-%d %H:%M} UTC"
        workflow.set_current_details(details)


@workflow.defn(name="bank-day")
class BankDayWorkflow(DurableSteps):
    """Asks the bank what it has posted and returned, and tells whom it concerns. A schedule starts it."""

    @workflow.run
    async def run(self) -> BankDayReport:
        return await self._whatever_comes(self._live())

    async def _live(self) -> BankDayReport:
        report = await self._until_done(
            "bank.read_day",
            lambda: workflow.execute_activity_method(BankActivities.read_day, **BANK_POLL),
        )
        await workflow.wait_condition(workflow.all_handlers_finished)
        return report
