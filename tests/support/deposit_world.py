"""Verifications by deposits with the bank and the vault scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from temporalio import activity
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from activities import contracts
from domain.ids import ACCOUNT, MICRO_DEPOSIT, PAYMENT_METHOD, USER, micro_deposit_workflow_id, new_id
from domain.micro_deposits import (
    BankAccountRef,
    BankCorrection,
    BankDayReport,
    BankReturn,
    Begun,
    CancelDeposits,
    ConfirmAttempt,
    ConfirmDeposits,
    ConfirmVerdict,
    CorrectedAccount,
    CorrectionOutcome,
    CorrectionRecord,
    DepositReturned,
    DepositsPosted,
    MicroDepositChange,
    MicroDepositOrder,
    MicroDepositSnapshot,
    MicroDepositStatus,
    NotReceived,
    OriginateCommand,
    Originated,
    OriginationRefused,
    OriginationUnknown,
    ReturnDecision,
    ReturnEffect,
    SealedBankAccount,
    TakenBack,
)
from temporal.task_queues import TaskQueue
from tests.support.world import Script
from workers.registry import activity_worker, payments_worker
from workflows.micro_deposit import MicroDepositWorkflow

FILE_ID = "ach_1"
SETTLES_ON = date(2026, 11, 24)
RIGHT, WRONG = (32, 45), (1, 2)
TAKEN = Originated(FILE_ID, SETTLES_ON)
RIGHT_ACCOUNT = CorrectedAccount("ba_1", "bref_1", "bref_2", "011000015", "savings", "6789")
DOUBT = OriginationUnknown(FILE_ID)


@dataclass
class ScriptedBank(contracts.BankActivities, contracts.BankAccountActivities):
    """`changes` is what was recorded, `guesses` what was compared, `erased` which accounts were forgotten, `removed`
    which payment methods."""

    begins: Script = field(default_factory=lambda: Script(Begun()))
    sends: Script = field(default_factory=lambda: Script(TAKEN))
    answers: Script = field(default_factory=lambda: Script(TAKEN))
    ends: Script = field(default_factory=lambda: Script(None))
    changes: list[MicroDepositChange] = field(default_factory=list)
    guesses: list[ConfirmAttempt] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    takes: Script = field(default_factory=lambda: Script(TakenBack(ReturnEffect.REVOKED)))
    corrections: Script = field(default_factory=lambda: Script(CorrectionOutcome(RIGHT_ACCOUNT)))
    corrected: list[CorrectionRecord] = field(default_factory=list)
    decided: list[ReturnDecision] = field(default_factory=list)

    @activity.defn(name="bank.begin")
    async def begin(self, order: MicroDepositOrder) -> Begun:
        begun: Begun = await self.begins.play(order)
        return begun

    @activity.defn(name="bank.originate")
    async def originate(self, command: OriginateCommand) -> Originated | OriginationRefused | OriginationUnknown:
        outcome: Originated | OriginationRefused | OriginationUnknown = await self.sends.play(command)
        return outcome

    @activity.defn(name="bank.inquire")
    async def inquire(self, command: OriginateCommand) -> Originated | OriginationRefused | NotReceived:
        outcome: Originated | OriginationRefused | NotReceived = await self.answers.play(command)
        return outcome

    @activity.defn(name="bank.record")
    async def record(self, change: MicroDepositChange) -> None:
        self.changes.append(change)

    @activity.defn(name="bank.confirm")
    async def confirm(self, attempt: ConfirmAttempt) -> ConfirmVerdict:
        self.guesses.append(attempt)
        return ConfirmVerdict(attempt.amounts_minor == RIGHT, max(0, 3 - len(self.guesses)))

    @activity.defn(name="bank.end_verification")
    async def end_verification(self, method: contracts.PaymentMethodRef) -> None:
        await self.ends.play(method)

    @activity.defn(name="bank.read_day")
    async def read_day(self) -> BankDayReport:
        return BankDayReport()

    @activity.defn(name="vault.bank_account_box")
    async def bank_account_box(self, account: BankAccountRef) -> SealedBankAccount:
        return SealedBankAccount("key.box")

    @activity.defn(name="vault.erase_bank_account")
    async def erase_bank_account(self, account: BankAccountRef) -> None:
        self.erased.append(account.bank_account_id)

    @activity.defn(name="bank.take_back")
    async def take_back(self, entry: BankReturn) -> TakenBack:
        taken: TakenBack = await self.takes.play(entry)
        return taken

    @activity.defn(name="bank.record_correction")
    async def record_correction(self, record: CorrectionRecord) -> None:
        self.corrected.append(record)

    @activity.defn(name="bank.decide_return")
    async def decide_return(self, decision: ReturnDecision) -> None:
        self.decided.append(decision)

    @activity.defn(name="vault.correct_bank_account")
    async def correct_bank_account(self, correction: BankCorrection) -> CorrectionOutcome:
        outcome: CorrectionOutcome = await self.corrections.play(correction)
        return outcome

    @activity.defn(name="payment_methods.remove")
    async def remove(self, method: contracts.PaymentMethodRef) -> None:
        self.removed.append(method.payment_method_id)

    @property
    def statuses(self) -> list[str]:
        return [change.status.value for change in self.changes]


@dataclass(frozen=True, slots=True)
class DepositWorld:
    client: Client
    bank: ScriptedBank
    order: MicroDepositOrder

    @property
    def handle(self) -> WorkflowHandle[MicroDepositWorkflow, MicroDepositSnapshot]:
        return self.client.get_workflow_handle_for(
            MicroDepositWorkflow.run, micro_deposit_workflow_id(self.order.micro_deposit_id)
        )

    async def start(self) -> MicroDepositSnapshot:
        operation = WithStartWorkflowOperation(
            MicroDepositWorkflow.run,
            self.order,
            id=micro_deposit_workflow_id(self.order.micro_deposit_id),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )
        return await self.client.execute_update_with_start_workflow(
            MicroDepositWorkflow.begin, start_workflow_operation=operation, id="begin"
        )

    async def reached(self, status: MicroDepositStatus) -> None:
        async with asyncio.timeout(30):
            while status.value not in self.bank.statuses:  # noqa: ASYNC110 - it watches a worker
                await asyncio.sleep(0.02)

    async def post(self) -> None:
        """The bank has posted the entries; guesses are taken from now on."""
        await self.reached(MicroDepositStatus.SENT)
        posted = DepositsPosted(self.order.micro_deposit_id, SETTLES_ON)
        await self.handle.signal(MicroDepositWorkflow.deposits_posted, posted)
        await self.reached(MicroDepositStatus.AWAITING_CONFIRMATION)

    async def give_back(self, reason_code: str) -> None:
        returned = DepositReturned(self.order.micro_deposit_id, reason_code, SETTLES_ON)
        await self.handle.signal(MicroDepositWorkflow.deposit_returned, returned)

    async def guess(self, amounts: tuple[int, int], update_id: str | None = None) -> MicroDepositSnapshot:
        return await self.handle.execute_update(MicroDepositWorkflow.confirm, ConfirmDeposits(amounts), id=update_id)

    async def remove(self) -> MicroDepositSnapshot:
        """The account's removal tells its verification."""
        return await self.handle.execute_update(MicroDepositWorkflow.account_removed, id="account_removed")

    async def cancel(self) -> MicroDepositSnapshot:
        return await self.handle.execute_update(MicroDepositWorkflow.cancel, CancelDeposits("changed my mind"))


@asynccontextmanager
async def open_deposit_world(client: Client) -> AsyncIterator[DepositWorld]:
    bank = ScriptedBank()
    order = MicroDepositOrder(
        new_id(MICRO_DEPOSIT),
        new_id(ACCOUNT),
        new_id(USER),
        new_id(PAYMENT_METHOD),
        new_id("ba"),
        datetime(2026, 11, 23, 15, 0, tzinfo=UTC),
    )
    banking: list[Callable[..., Any]] = [
        bank.begin,
        bank.originate,
        bank.inquire,
        bank.record,
        bank.confirm,
        bank.end_verification,
        bank.take_back,
        bank.record_correction,
        bank.decide_return,
        bank.read_day,
    ]
    vault: list[Callable[..., Any]] = [bank.bank_account_box, bank.correct_bank_account, bank.erase_bank_account]
    async with (
        payments_worker(client, [bank.remove], "test"),
        activity_worker(client, TaskQueue.BANK, banking, "test"),
        activity_worker(client, TaskQueue.VAULT, vault, "test"),
    ):
        yield DepositWorld(client, bank, order)
