"""What becomes of a bank account besides its verification: it is removed, and the bank says things of it later on."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import (
        BankAccountActivities,
        BankActivities,
        PaymentMethodActivities,
        PaymentMethodRef,
    )
    from domain.micro_deposits import (
        BankAccountRef,
        BankCorrection,
        BankReturn,
        CorrectionOutcome,
        CorrectionRecord,
        ReturnDecision,
        ReturnEffect,
    )
    from workflows.messages import BankAccountRemoval, Resolution
    from workflows.options import BANK_CALL, BANK_ORIGINATION, LOCAL_STEP, VAULT_CALL
    from workflows.steps import DurableSteps
    from workflows.updates import named_update


@workflow.defn(name="bank-account-removal")
class BankAccountRemovalWorkflow(DurableSteps):
    """Removed here first, so that nothing more is begun with it; then a verification that is under way is told to end,
    and at last the vault forgets the number.

    Deposits whose file may be with the bank are waited for: the number is needed to send the same file again. How often
    the amounts were guessed stays counted, under what names the account itself.
    """

    @workflow.init
    def __init__(self, request: BankAccountRemoval) -> None:
        super().__init__()
        self._removed = False

    @workflow.run
    async def run(self, request: BankAccountRemoval) -> None:
        await self._whatever_comes(self._live(request))

    @named_update("removed")
    async def removed(self) -> None:
        """Returns as soon as nothing can be begun with the account any more."""
        await workflow.wait_condition(lambda: self._removed)

    async def _live(self, request: BankAccountRemoval) -> None:
        method = PaymentMethodRef(request.payment_method_id)
        await self._until_done(
            "payment_methods.remove",
            lambda: workflow.execute_local_activity_method(PaymentMethodActivities.remove, method, **LOCAL_STEP),
        )
        self._removed = True
        await self._until_done(
            "bank.end_verification",
            lambda: workflow.execute_activity_method(BankActivities.end_verification, method, **BANK_ORIGINATION),
        )
        account = BankAccountRef(request.bank_account_id)
        await self._until_done(
            "vault.erase_bank_account",
            lambda: workflow.execute_activity_method(BankAccountActivities.erase_bank_account, account, **VAULT_CALL),
        )
        await self._background_done()


@workflow.defn(name="bank-return")
class BankReturnWorkflow(DurableSteps):
    """An entry that the bank gave back and no running verification takes.

    A late return takes the account from its user. What the bank corrects goes through the vault, which alone reads it.
    What belongs to nothing here waits, visibly, until two operators have seen to it; its money is in suspense.
    """

    @workflow.run
    async def run(self, entry: BankReturn) -> None:
        await self._whatever_comes(self._live(entry))

    async def _live(self, entry: BankReturn) -> None:
        workflow.set_current_details(f"**{entry.reason_code}** of {entry.day}, {entry.micro_deposit_id or 'unmatched'}")
        account = entry.bank_account_id
        if entry.kind == "return" and account is not None:
            await self._take_back(entry, account)
        elif entry.kind == "change" and account is not None and entry.sealed_correction is not None:
            await self._correct(entry, account, entry.sealed_correction)
        else:
            await self._ask_people(entry)
        await self._background_done()

    async def _take_back(self, entry: BankReturn, bank_account_id: str) -> None:
        taken = await self._until_done(
            "bank.take_back",
            lambda: workflow.execute_activity_method(BankActivities.take_back, entry, **BANK_CALL),
        )
        if taken.effect is ReturnEffect.REVOKED:
            account = BankAccountRef(bank_account_id)
            await self._until_done(
                "vault.erase_bank_account",
                lambda: workflow.execute_activity_method(
                    BankAccountActivities.erase_bank_account, account, **VAULT_CALL
                ),
            )

    async def _correct(self, entry: BankReturn, bank_account_id: str, sealed_correction: str) -> None:
        """Parks on what cannot be applied. Nothing more is sent to the account before it is, or two operators have
        decided that it need not be."""
        correction_id = f"{entry.sequence}:{entry.line}"
        correction = BankCorrection(correction_id, bank_account_id, entry.reason_code, sealed_correction)
        outcome = await self._until_done(
            "vault.correct_bank_account",
            lambda: workflow.execute_activity_method(
                BankAccountActivities.correct_bank_account, correction, **VAULT_CALL
            ),
            {Resolution.ACKNOWLEDGED: CorrectionOutcome()},
        )
        record = CorrectionRecord(entry, outcome.account)
        await self._until_done(
            "bank.record_correction",
            lambda: workflow.execute_activity_method(BankActivities.record_correction, record, **BANK_CALL),
        )

    async def _ask_people(self, entry: BankReturn) -> None:
        resolutions = {Resolution.ACKNOWLEDGED: ReturnEffect.SEEN}
        if entry.kind == "return":
            resolutions[Resolution.WRITE_OFF] = ReturnEffect.WRITTEN_OFF
        effect = await self._until_done("bank.explain_return", _ask, resolutions)
        decision = ReturnDecision(entry, effect)
        await self._until_done(
            "bank.decide_return",
            lambda: workflow.execute_activity_method(BankActivities.decide_return, decision, **BANK_CALL),
        )


async def _ask() -> ReturnEffect:
    raise ApplicationError("only people can say what follows", type="return_unexplained", non_retryable=True)
