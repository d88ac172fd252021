"""A scripted world around the workflows of a card: real rows on PostgreSQL, a vault and a network told what to do."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from activities.contracts import CardExpiry, CredentialRequest, DeviceBox, ProvisioningBox, TokenRef, TokenRenewed
from activities.payment_methods import PaymentMethodActivities
from domain.currency import Currency
from domain.ids import (
    PAYMENT_METHOD,
    TOKEN,
    USER,
    VERIFICATION,
    new_id,
    provisioning_workflow_id,
    removal_workflow_id,
    renewal_workflow_id,
    verification_workflow_id,
)
from domain.merchants import Merchant
from domain.network import DeprovisionCommand, ProvisionCommand, SealedCredential, VerifyCommand
from domain.outcomes import Acknowledged, Approved, Declined, Unknown
from domain.verifications import VerificationResult
from store.payment_methods import find_verification
from store.queries import find_payment_method
from temporal.task_queues import TaskQueue
from tests.support.world import NOW, Script
from workers.registry import activity_worker, payments_worker
from workflows.card_verification import CardVerificationWorkflow
from workflows.cards import CardRemovalWorkflow, CardRenewalWorkflow
from workflows.messages import CardRemoval, CardRenewal, CardVerification, TokenProvisioning
from workflows.token_lifecycle import TokenProvisioningWorkflow

NOTHING = Approved(0, "123456", "632512000001", "000001", NOW)


@dataclass
class CardOutside:
    """The scripts of everything outside, each with a harmless default."""

    credential: Script = field(default_factory=lambda: Script(SealedCredential("tok_test", "key.box", "handle")))
    verify: Script = field(default_factory=lambda: Script(NOTHING))
    provision: Script = field(default_factory=lambda: Script(Acknowledged(NOW)))
    activate: Script = field(default_factory=lambda: Script(None))
    device_box: Script = field(default_factory=lambda: Script(DeviceBox("key.box")))
    delete: Script = field(default_factory=lambda: Script(None))
    renew: Script = field(default_factory=lambda: Script(TokenRenewed(renewed=True)))
    deprovision: Script = field(default_factory=lambda: Script(Acknowledged(NOW)))


class ScriptedCardVault:
    def __init__(self, outside: CardOutside) -> None:
        self._outside = outside

    @activity.defn(name="vault.issue_credential")
    async def issue_credential(self, request: CredentialRequest) -> SealedCredential:
        credential: SealedCredential = await self._outside.credential.play(request)
        return credential

    @activity.defn(name="vault.provisioning_box")
    async def provisioning_box(self, token: TokenRef) -> ProvisioningBox:
        return ProvisioningBox("key.box")

    @activity.defn(name="vault.activate_token")
    async def activate_token(self, token: TokenRef) -> None:
        await self._outside.activate.play(token)

    @activity.defn(name="vault.device_box")
    async def device_box(self, token: TokenRef) -> DeviceBox:
        box: DeviceBox = await self._outside.device_box.play(token)
        return box

    @activity.defn(name="vault.delete_token")
    async def delete_token(self, token: TokenRef) -> None:
        await self._outside.delete.play(token)

    @activity.defn(name="vault.renew_token")
    async def renew_token(self, expiry: CardExpiry) -> TokenRenewed:
        answer: TokenRenewed = await self._outside.renew.play(expiry)
        return answer


class ScriptedCardNetwork:
    def __init__(self, outside: CardOutside) -> None:
        self._outside = outside

    @activity.defn(name="network.verify")
    async def verify(self, command: VerifyCommand) -> Approved | Declined | Unknown:
        outcome: Approved | Declined | Unknown = await self._outside.verify.play(command)
        return outcome

    @activity.defn(name="network.provision")
    async def provision(self, command: ProvisionCommand) -> Acknowledged:
        answer: Acknowledged = await self._outside.provision.play(command)
        return answer

    @activity.defn(name="network.deprovision")
    async def deprovision(self, command: DeprovisionCommand) -> Acknowledged:
        answer: Acknowledged = await self._outside.deprovision.play(command)
        return answer


VerificationHandle = WorkflowHandle[CardVerificationWorkflow, VerificationResult]


@dataclass
class CardWorld:
    """One test's card, the verification that is asked for, and the scripts outside."""

    client: Client
    engine: AsyncEngine
    outside: CardOutside
    verification: CardVerification

    @property
    def handle(self) -> VerificationHandle:
        workflow_id = verification_workflow_id(self.verification.verification_id)
        return self.client.get_workflow_handle_for(CardVerificationWorkflow.run, workflow_id)

    async def begin(self) -> VerificationHandle:
        return await self.client.start_workflow(
            CardVerificationWorkflow.run,
            self.verification,
            id=verification_workflow_id(self.verification.verification_id),
            task_queue=TaskQueue.PAYMENTS,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )

    async def verify(self) -> VerificationResult:
        return await (await self.begin()).result()

    async def provision(self, *, then_verify: bool) -> WorkflowHandle[TokenProvisioningWorkflow, None]:
        return await self.client.start_workflow(
            TokenProvisioningWorkflow.run,
            TokenProvisioning(self.verification.token_id, self.verification if then_verify else None),
            id=provisioning_workflow_id(self.verification.token_id),
            task_queue=TaskQueue.PAYMENTS,
        )

    async def remove(self) -> WorkflowHandle[CardRemovalWorkflow, None]:
        """Begins the removal; returns once nothing is paid with the card any more."""
        card = self.verification
        operation = WithStartWorkflowOperation(
            CardRemovalWorkflow.run,
            CardRemoval(card.payment_method_id, card.token_id),
            id=removal_workflow_id(card.payment_method_id),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )
        await self.client.execute_update_with_start_workflow(
            CardRemovalWorkflow.removed, start_workflow_operation=operation, id="removed"
        )
        return await operation.workflow_handle()

    async def renew(self, exp_year: int, exp_month: int) -> None:
        card = self.verification
        handle = await self.client.start_workflow(
            CardRenewalWorkflow.run,
            CardRenewal(card.payment_method_id, card.token_id, exp_month, exp_year),
            id=renewal_workflow_id(card.payment_method_id, exp_year, exp_month),
            task_queue=TaskQueue.PAYMENTS,
        )
        await handle.result()

    async def method(self) -> dict[str, Any]:
        """The card as it is recorded."""
        async with self.engine.connect() as connection:
            found = await find_payment_method(connection, self.verification.payment_method_id)
        assert found is not None
        return dict(found)

    async def events(self) -> list[str]:
        """What was left in the outbox about the card, in order."""
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT type FROM platform.outbox WHERE subject_id = :id ORDER BY subject_sequence"),
                {"id": self.verification.payment_method_id},
            )
            return [row.type for row in found]

    async def row(self) -> dict[str, Any]:
        """The verification as it is recorded."""
        async with self.engine.connect() as connection:
            found = await find_verification(connection, self.verification.verification_id)
        assert found is not None
        return dict(found)

    async def until_search_attribute(self, key: Any, value: Any) -> None:
        """Returns once the verification shows it, in real time and without moving the workflow's clock."""
        async with asyncio.timeout(30):
            while (await self.handle.describe()).typed_search_attributes.get(key) != value:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@asynccontextmanager
async def open_card_world(client: Client, engine: AsyncEngine, status: str = "active") -> AsyncIterator[CardWorld]:
    """A world with an account, a user and a card of its own, and workers for all queues that a card needs."""
    outside = CardOutside()
    verification = await _new_card(engine, status)
    methods = PaymentMethodActivities(engine)
    vault, network = ScriptedCardVault(outside), ScriptedCardNetwork(outside)
    local: Sequence[Callable[..., Any]] = [
        methods.activate,
        methods.open_verification,
        methods.record_verification,
        methods.remove,
        methods.renew,
        methods.remind_of_expiry,
    ]
    at_vault: Sequence[Callable[..., Any]] = [
        vault.issue_credential,
        vault.provisioning_box,
        vault.activate_token,
        vault.device_box,
        vault.delete_token,
        vault.renew_token,
    ]
    async with (
        payments_worker(client, local, "test"),
        activity_worker(client, TaskQueue.VAULT, at_vault, "test"),
        activity_worker(client, TaskQueue.NETWORK, [network.verify, network.provision, network.deprovision], "test"),
    ):
        yield CardWorld(client, engine, outside, verification)


async def _new_card(engine: AsyncEngine, status: str) -> CardVerification:
    account = f"acct_{secrets.token_hex(6)}"
    user, card, token = new_id(USER), new_id(PAYMENT_METHOD), new_id(TOKEN)
    values = {"account": account, "user": user, "card": card, "token": token, "status": status}
    async with engine.begin() as connection:
        for statement in _NEW_CARD:
            await connection.execute(text(statement), values)
    return CardVerification(
        verification_id=new_id(VERIFICATION),
        account_id=account,
        user_id=user,
        payment_method_id=card,
        token_id=token,
        currency=Currency.USD,
        merchant=Merchant("coffee-42", "Corner Coffee", "5814", "Oslo", "NO"),
        requested_at=NOW,
    )


_NEW_CARD = (
    "INSERT INTO platform.accounts (id, name) VALUES (:account, :account)",
    "INSERT INTO platform.users (id, account_id, name) VALUES (:user, :account, 'Ada Canary')",
    "INSERT INTO platform.payment_methods"
    " (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)"
    " VALUES (:card, :account, :user, :token, 'visa', '424242', '4242', 12, 2030, :status)",
)
