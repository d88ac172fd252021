"""What becomes of a card: it is issued anew with a later expiry, its user is reminded in time, it is removed."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.contracts import (
        CardExpiry,
        NetworkActivities,
        PaymentMethodActivities,
        PaymentMethodRef,
        TokenRef,
        VaultActivities,
    )
    from domain.ids import effect_key
    from domain.network import DeprovisionCommand, ProvisionCommand
    from domain.outcomes import Acknowledged
    from workflows.messages import CardRemoval, CardRenewal, Resolution
    from workflows.options import LOCAL_STEP, NETWORK_ADVICE, REMINDERS, VAULT_CALL
    from workflows.steps import DurableSteps
    from workflows.updates import named_update


@workflow.defn(name="card-removal")
class CardRemovalWorkflow(DurableSteps):
    """Removed here first, so that nothing is paid with it any more; then in the vault, and at last at the network.

    The network may take hours. Payments that were made with the card go on: their messages bring its device number
    along, and the network keeps for which card it stood.
    """

    @workflow.init
    def __init__(self, request: CardRemoval) -> None:
        super().__init__()
        self._removed = False

    @workflow.run
    async def run(self, request: CardRemoval) -> None:
        await self._whatever_comes(self._live(request))

    @named_update("removed")
    async def removed(self) -> None:
        """Returns as soon as nothing can be paid with the card any more."""
        await workflow.wait_condition(lambda: self._removed)

    async def _live(self, request: CardRemoval) -> None:
        method = PaymentMethodRef(request.payment_method_id)
        await self._until_done(
            "payment_methods.remove",
            lambda: workflow.execute_local_activity_method(PaymentMethodActivities.remove, method, **LOCAL_STEP),
        )
        self._removed = True
        token = TokenRef(request.token_id)
        # Deleting the token erases its number, so the box that names it to the network comes first.
        box = await self._until_done(
            "vault.device_box",
            lambda: workflow.execute_activity_method(VaultActivities.device_box, token, **VAULT_CALL),
        )
        await self._until_done(
            "vault.delete_token",
            lambda: workflow.execute_activity_method(VaultActivities.delete_token, token, **VAULT_CALL),
        )
        if box.sealed_pan is not None:
            await self._tell_network(request.token_id, box.sealed_pan)
        await self._background_done()

    async def _tell_network(self, token_id: str, sealed_pan: str) -> None:
        command = DeprovisionCommand(effect_key(token_id, "deprovision"), token_id, sealed_pan)
        await self._until_done(
            "network.deprovision",
            lambda: workflow.execute_activity_method(NetworkActivities.deprovision, command, **NETWORK_ADVICE),
            {Resolution.ACKNOWLEDGED: Acknowledged(workflow.now())},
        )


@workflow.defn(name="card-renewal")
class CardRenewalWorkflow(DurableSteps):
    """The vault takes the later expiry, the network is told of it, and then the card shows it."""

    @workflow.run
    async def run(self, request: CardRenewal) -> None:
        await self._whatever_comes(self._live(request))

    async def _live(self, request: CardRenewal) -> None:
        expiry = CardExpiry(request.payment_method_id, request.token_id, request.exp_month, request.exp_year)
        answer = await self._until_done(
            "vault.renew_token",
            lambda: workflow.execute_activity_method(VaultActivities.renew_token, expiry, **VAULT_CALL),
        )
        if answer.renewed:
            await self._tell_network(expiry)
            await self._until_done(
                "payment_methods.renew",
                lambda: workflow.execute_local_activity_method(PaymentMethodActivities.renew, expiry, **LOCAL_STEP),
            )
        await self._background_done()

    async def _tell_network(self, expiry: CardExpiry) -> None:
        token = TokenRef(expiry.token_id)
        box = await self._until_done(
            "vault.provisioning_box",
            lambda: workflow.execute_activity_method(VaultActivities.provisioning_box, token, **VAULT_CALL),
        )
        # The same expiry is one effect, however often it is asked for.
        key = effect_key(expiry.token_id, "renew", expiry.exp_year * 100 + expiry.exp_month)
        command = ProvisionCommand(key, expiry.token_id, box.sealed_token)
        await self._until_done(
            "network.provision",
            lambda: workflow.execute_activity_method(NetworkActivities.provision, command, **NETWORK_ADVICE),
        )


@workflow.defn(name="card-expiry-reminders")
class CardExpiryRemindersWorkflow(DurableSteps):
    """Once a day: whose card expires in 30 days, or in 7, is told so, once each."""

    @workflow.run
    async def run(self) -> None:
        await self._until_done(
            "payment_methods.remind_of_expiry",
            lambda: workflow.execute_activity_method(PaymentMethodActivities.remind_of_expiry, **REMINDERS),
        )
        await self._background_done()
