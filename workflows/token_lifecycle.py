"""How a new token comes to life: the network learns which card it stands for, then it may be used."""

from __future__ import annotations

import contextlib

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import NetworkActivities, PaymentMethodActivities, TokenRef, VaultActivities
    from domain.ids import effect_key, verification_workflow_id
    from domain.network import ProvisionCommand
    from workflows.card_verification import CardVerificationWorkflow
    from workflows.messages import CardVerification, TokenProvisioning
    from workflows.options import LOCAL_STEP, NETWORK_ADVICE, VAULT_CALL
    from workflows.steps import DurableSteps


@workflow.defn(name="token-provisioning")
class TokenProvisioningWorkflow(DurableSteps):
    @workflow.run
    async def run(self, request: TokenProvisioning) -> None:
        token = TokenRef(request.token_id)
        box = await self._until_done(
            "vault.provisioning_box",
            lambda: workflow.execute_activity_method(VaultActivities.provisioning_box, token, **VAULT_CALL),
        )
        command = ProvisionCommand(effect_key(request.token_id, "provision"), request.token_id, box.sealed_token)
        await self._until_done(
            "network.provision",
            lambda: workflow.execute_activity_method(NetworkActivities.provision, command, **NETWORK_ADVICE),
        )
        await self._until_done(
            "vault.activate_token",
            lambda: workflow.execute_activity_method(VaultActivities.activate_token, token, **VAULT_CALL),
        )
        await self._until_done(
            "payment_methods.activate",
            lambda: workflow.execute_local_activity_method(PaymentMethodActivities.activate, token, **LOCAL_STEP),
        )
        if request.verification is not None:
            await _begin(request.verification)
        await workflow.wait_condition(workflow.all_handlers_finished)


async def _begin(verification: CardVerification) -> None:
    """Starts it, unless the client that asked for it has done so; it outlives this workflow."""
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await workflow.start_child_workflow(
            CardVerificationWorkflow.run,
            verification,
            id=verification_workflow_id(verification.verification_id),
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
