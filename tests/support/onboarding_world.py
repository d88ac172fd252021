"""A world around onboarding and closure: real rows; scripted checks, keys and files; a clock that is skipped over."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from activities.contracts import DestroyedKey, IdentityCheck, KeyLoan, Rescreened, RescreeningPage, UserRef, UserTokens
from activities.onboarding import ClosureActivities
from activities.payment_methods import PaymentMethodActivities
from documents.storage import DocumentStorage
from domain.closure import ClosureOrder
from domain.ids import (
    ONBOARDING_DOCUMENT,
    PAYMENT_METHOD,
    PERSONAL_KEY,
    closure_workflow_id,
    new_id,
    onboarding_workflow_id,
)
from domain.onboarding import (
    Checked,
    CheckOutcome,
    DocumentKind,
    OnboardingChange,
    OnboardingDocument,
    OnboardingStatus,
    SealedDetails,
)
from onboarding.cases import Cases
from onboarding.closures import Closures
from temporal.task_queues import TaskQueue
from tests.support.card_world import CardOutside, ScriptedCardNetwork, ScriptedCardVault
from tests.support.persons import AddedUser, add_user
from tests.support.world import Script
from workers.registry import activity_worker, payments_worker
from workflows.closure import ClosureWorkflow
from workflows.onboarding import OnboardingWorkflow
from workflows.onboarding_messages import (
    AddDocument,
    ClosureSnapshot,
    OnboardingReview,
    OnboardingSnapshot,
    OnboardingStart,
    RescreenRequest,
    SubmitDetails,
)

RETENTION = timedelta(days=1826)
CLEAR = Checked(CheckOutcome.CLEAR, (), "list-1")
HIT = Checked(CheckOutcome.REFER, ("watch_list:wl-0001:94",), "list-2")
FAILED = Checked(CheckOutcome.FAIL, ("document_expired",), "list-1")

Row = dict[str, Any]


class _Outside:
    """What is not the platform's own rows: the provider, the vault, the files."""

    def __init__(self, cases: Cases, engine: AsyncEngine) -> None:
        self._cases = cases
        self._engine = engine
        self.loans = Script(KeyLoan("personal-key:scripted"))
        self.checks = Script(CLEAR)
        self.recording = Script(None)
        self.steps: list[str] = []
        self.removed: list[UserTokens] = []
        self.cards = CardOutside()

    @activity.defn(name="onboarding.record")
    async def record(self, change: OnboardingChange) -> None:
        await self.recording.play(change)
        await self._cases.record(change)

    @activity.defn(name="onboarding.check")
    async def check(self, order: IdentityCheck) -> Checked:
        checked: Checked = await self.checks.play(order)
        return checked

    @activity.defn(name="onboarding.rescreen")
    async def rescreen(self, page: RescreeningPage) -> Rescreened:
        return Rescreened("list-2", 0, None)

    @activity.defn(name="personal_keys.lend")
    async def lend(self, user: UserRef) -> KeyLoan:
        loan: KeyLoan = await self.loans.play(user)
        return loan

    @activity.defn(name="personal_keys.retire")
    async def retire(self, user: UserRef) -> None:
        self.steps.append("retire")

    @activity.defn(name="personal_keys.destroy")
    async def destroy(self, user: UserRef) -> DestroyedKey:
        self.steps.append("destroy")
        async with self._engine.begin() as connection:
            key_id = await connection.scalar(_DESTROY_KEY, {"user": user.user_id})
        return DestroyedKey(key_id)

    @activity.defn(name="vault.remove_tokens")
    async def remove_tokens(self, tokens: UserTokens) -> None:
        self.steps.append("remove_tokens")
        self.removed.append(tokens)


class _NoFiles(DocumentStorage):
    """Files are deleted from the storage elsewhere, on the real one; here it counts which."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def delete(self, key: str) -> None:
        self.deleted.append(key)


@dataclass
class OnboardingWorld:
    """One user, whose wallet holds nothing."""

    environment: WorkflowEnvironment
    engine: AsyncEngine
    user: AddedUser
    outside: _Outside
    files: _NoFiles
    key_id: str = field(default_factory=lambda: new_id(PERSONAL_KEY))

    @property
    def client(self) -> Client:
        return self.environment.client

    @property
    def handle(self) -> WorkflowHandle[OnboardingWorkflow, OnboardingSnapshot]:
        return self.client.get_workflow_handle_for(OnboardingWorkflow.run, onboarding_workflow_id(self.user.user_id))

    @property
    def closure(self) -> WorkflowHandle[ClosureWorkflow, ClosureSnapshot]:
        return self.client.get_workflow_handle_for(ClosureWorkflow.run, closure_workflow_id(self.user.user_id))

    async def open(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(_ADD_KEY, {"id": self.key_id, "user": self.user.user_id})
        await self.client.start_workflow(
            OnboardingWorkflow.run,
            OnboardingStart(self.user.user_id, self.user.account_id),
            id=onboarding_workflow_id(self.user.user_id),
            task_queue=TaskQueue.PAYMENTS,
        )

    async def add_document(self, kind: DocumentKind = DocumentKind.IDENTITY_FRONT) -> OnboardingDocument:
        document = OnboardingDocument(new_id(ONBOARDING_DOCUMENT), kind, "image/png", 1000, "0" * 64)
        request = AddDocument(document, self.user.user_id)
        await self.handle.execute_update(OnboardingWorkflow.add_document, request)
        return document

    async def submit(self, expires_on: date | None = None, *, again: bool = False) -> None:
        sealed = base64.b64encode(b"ciphertext").decode()
        details = SealedDetails(self.key_id, sealed, expires_on.isoformat() if expires_on else None)
        request = SubmitDetails(None if again else details, self.user.user_id)
        await self.handle.execute_update(OnboardingWorkflow.submit, request)

    async def review(self, approve: bool, reason: str = "looked at it", operator: str = "operator-1") -> None:
        request = OnboardingReview(operator, approve, reason)
        await self.handle.execute_update(OnboardingWorkflow.review, request)

    async def rescreen(self, list_version: str = "list-2") -> None:
        await self.handle.signal(OnboardingWorkflow.rescreen, RescreenRequest(list_version))

    async def verified(self, expires_on: date | None = None) -> None:
        await self.open()
        await self.add_document()
        await self.submit(expires_on)
        await self.until(lambda snapshot: snapshot.onboarding.status is OnboardingStatus.VERIFIED)

    async def until(self, condition: Callable[[OnboardingSnapshot], bool]) -> OnboardingSnapshot:
        """Waits, without moving the workflow's clock, until the snapshot fulfils `condition` and is in the rows."""
        async with asyncio.timeout(30):
            while True:
                snapshot = await self.handle.query(OnboardingWorkflow.snapshot)
                if condition(snapshot):
                    return snapshot
                await asyncio.sleep(0.02)

    async def until_recorded(self, *events: str) -> None:
        async with asyncio.timeout(30):
            while True:
                if tuple((await self.events())[-len(events) :]) == events:
                    return
                await asyncio.sleep(0.02)

    async def add_method(self, status: str = "active", *, bank_account: bool = False) -> str:
        """A card of the user's, or a bank account; its id."""
        method_id = new_id(PAYMENT_METHOD)
        values = {"id": method_id, "user": self.user.user_id, "account": self.user.account_id, "status": status}
        async with self.engine.begin() as connection:
            await connection.execute(_ADD_BANK_ACCOUNT if bank_account else _ADD_CARD, values)
        return method_id

    async def method(self, method_id: str) -> Row:
        query = text("SELECT * FROM platform.payment_methods WHERE id = :id")
        async with self.engine.connect() as connection:
            return dict((await connection.execute(query, {"id": method_id})).mappings().one())

    async def start_closure(self) -> None:
        await self.client.start_workflow(
            ClosureWorkflow.run,
            ClosureOrder(self.user.user_id, self.user.account_id, self.user.user_id),
            id=closure_workflow_id(self.user.user_id),
            task_queue=TaskQueue.PAYMENTS,
        )

    async def events(self) -> list[str]:
        async with self.engine.connect() as connection:
            return list((await connection.execute(_EVENTS, {"user": self.user.user_id})).scalars())

    async def standing(self) -> Row:
        return await self._row("SELECT * FROM platform.users WHERE id = :user")

    async def case(self) -> Row:
        return await self._row("SELECT * FROM onboarding.cases WHERE user_id = :user")

    async def closure_row(self) -> Row:
        return await self._row("SELECT * FROM onboarding.closures WHERE user_id = :user ORDER BY number DESC LIMIT 1")

    async def certificate(self) -> Row:
        return await self._row("SELECT * FROM onboarding.erasure_certificates WHERE user_id = :user")

    async def _row(self, query: str) -> Row:
        async with self.engine.connect() as connection:
            return dict((await connection.execute(text(query), {"user": self.user.user_id})).mappings().one())


@asynccontextmanager
async def open_onboarding_world(
    environment: WorkflowEnvironment, engine: AsyncEngine
) -> AsyncIterator[OnboardingWorld]:
    outside, files = _Outside(Cases(engine), engine), _NoFiles()
    client = environment.client

    async def end(user_id: str) -> None:
        try:
            await client.get_workflow_handle(onboarding_workflow_id(user_id)).signal("close")
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    closures = ClosureActivities(Closures(engine, RETENTION), files, end)
    onboarding: list[Callable[..., Any]] = [
        outside.record,
        outside.check,
        outside.rescreen,
        closures.begin,
        closures.obstacles,
    ]
    onboarding += [closures.withdraw, closures.shut, closures.end_onboarding, closures.close, closures.erase]
    vault: list[Callable[..., Any]] = [outside.lend, outside.retire, outside.destroy, outside.remove_tokens]
    methods, cards = PaymentMethodActivities(engine), outside.cards
    card_vault, network = ScriptedCardVault(cards), ScriptedCardNetwork(cards)
    vault += [card_vault.provisioning_box, card_vault.activate_token, card_vault.device_box, card_vault.delete_token]
    async with (
        payments_worker(client, [methods.remove, methods.activate], "test"),
        activity_worker(client, TaskQueue.ONBOARDING, onboarding, "test"),
        activity_worker(client, TaskQueue.VAULT, vault, "test"),
        activity_worker(client, TaskQueue.NETWORK, [network.provision, network.deprovision], "test"),
    ):
        yield OnboardingWorld(environment, engine, await add_user(engine), outside, files)


_ADD_KEY = text("""
INSERT INTO vault.personal_keys (id, user_id, wrapped_by, iv, wrapped_key)
VALUES (:id, :user, 'PDK-standing', '\\x00', decode(repeat('00', 48), 'hex'))
""")
_DESTROY_KEY = text("""
UPDATE vault.personal_keys SET wrapped_by = NULL, iv = NULL, wrapped_key = NULL,
    destroyed_at = coalesce(destroyed_at, now())
WHERE user_id = :user RETURNING id
""")
_ADD_CARD = text("""
INSERT INTO platform.payment_methods (
    id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status, removed_at)
VALUES (:id, :account, :user, 'tok_' || :id, 'visa', '424242', '4242', 12, 2034, :status,
    CASE WHEN :status = 'removed' THEN now() END)
""")
_ADD_BANK_ACCOUNT = text("""
INSERT INTO platform.payment_methods (
    id, account_id, user_id, type, last4, status, bank_account_id, routing_number, account_type)
VALUES (:id, :account, :user, 'us_bank_account', '6789', :status, 'ba_' || :id, '021000021', 'checking')
""")
_EVENTS = text("SELECT event FROM onboarding.events WHERE user_id = :user ORDER BY sequence")
