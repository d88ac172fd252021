"""What becomes of a bank account besides its verification: it is removed."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.contracts import (
        BankAccountActivities,
        BankActivities,
        PaymentMethodActivities,
        PaymentMethodRef,
    )
    from domain.micro_deposits import BankAccountRef
    from workflows.messages import BankAccountRemoval
    from workflows.options import BANK_ORIGINATION, LOCAL_STEP, VAULT_CALL
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
