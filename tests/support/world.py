"""A scripted world around the workflows: real books on PostgreSQL, and a network, vault and notifier told what to do.

The parts that talk to the outside are scripted here because these tests are about what a workflow decides when the
outside answers, stays silent, or comes back late; the real parts are tested where they live, and end to end.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from activities.contracts import CredentialRequest, DirectOutcome, NotificationOrder
from activities.ledger import LedgerActivities
from activities.payments import PaymentActivities
from activities.step_up import StepUpActivities
from domain.currency import Currency
from domain.ids import PAYMENT, PAYMENT_METHOD, USER, new_id, payment_workflow_id
from domain.merchants import Merchant
from domain.money import Money
from domain.network import (
    AuthorizeCommand,
    CaptureCommand,
    IncrementCommand,
    RefundCommand,
    ReleaseCommand,
    ReverseCommand,
    SealedCredential,
)
from domain.outcomes import Acknowledged, Approved, Declined, NeverSent, Reversed, Unknown
from domain.payments import CaptureMethod, PaymentStatus
from domain.risk import RiskAction, RiskDecision, RiskRequest
from domain.step_up import StepUpCodes
from fraud.engine import FraudEngine
from identity.relying_party import RelyingParty
from identity.step_up import StepUpJudge
from ledger.books import PaymentBooks
from ledger.queries import check_invariants
from temporal.task_queues import TaskQueue
from workers.registry import activity_worker, payments_worker
from workflows.messages import PaymentRequest, PaymentSnapshot
from workflows.payment import PaymentWorkflow

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CODES = StepUpCodes(b"s" * 32)
RELYING_PARTY = RelyingParty("localhost", "durapay", ("http://localhost:8000",))


def approved(amount_minor: int = 1050) -> Approved:
    return Approved(amount_minor, "123456", "632512000001", "000001", NOW)


def declined(response_code: str = "51") -> Declined:
    return Declined(response_code, "632512000001", "000001", NOW)


class Fault(Exception):
    """A scripted fault of the given type; `final` means that retrying does not help."""

    def __init__(self, kind: str, *, final: bool = False) -> None:
        super().__init__(kind)
        self.kind = kind
        self.final = final


class Script:
    """What a call answers, in order; the last answer is given again and again. An exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.calls: list[Any] = []

    def then(self, *answers: Any) -> None:
        self._answers = list(answers)

    async def play(self, command: Any) -> Any:
        self.calls.append(command)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if callable(answer):
            answer = await answer(command)
        if isinstance(answer, Fault):
            raise ApplicationError(str(answer), type=answer.kind, non_retryable=answer.final)
        return answer


@dataclass
class Outside:
    """The scripts of everything outside, each with a harmless default."""

    risk: Script = field(default_factory=lambda: Script(RiskDecision(RiskAction.ALLOW, 0.01, (), "r1", "m1")))
    credential: Script = field(default_factory=lambda: Script(SealedCredential("tok_test", "key.box", "handle")))
    ask: Script = field(default_factory=lambda: Script(DirectOutcome(None)))
    authorize: Script = field(default_factory=lambda: Script(approved()))
    reverse: Script = field(default_factory=lambda: Script(Reversed(NOW)))
    increment: Script = field(default_factory=lambda: Script(approved()))
    capture: Script = field(default_factory=lambda: Script(Acknowledged(NOW)))
    release: Script = field(default_factory=lambda: Script(Acknowledged(NOW)))
    refund: Script = field(default_factory=lambda: Script(approved()))
    deliver: Script = field(default_factory=lambda: Script(None))
    record_decline: Script = field(default_factory=lambda: Script(None))


class ScriptedFraud:
    """Stands in for the fraud engine; the books behind the same activity are real."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def assess(self, request: RiskRequest) -> RiskDecision:
        decision: RiskDecision = await self._outside.risk.play(request)
        return decision

    async def record_decline(self, request: RiskRequest) -> None:
        await self._outside.record_decline.play(request)


class ScriptedVault:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @activity.defn(name="vault.issue_credential")
    async def issue_credential(self, request: CredentialRequest) -> SealedCredential:
        credential: SealedCredential = await self._outside.credential.play(request)
        return credential


class ScriptedNetwork:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @activity.defn(name="network.ask")
    async def ask(self, command: AuthorizeCommand) -> DirectOutcome:
        answer: DirectOutcome = await self._outside.ask.play(command)
        return answer

    @activity.defn(name="network.authorize")
    async def authorize(self, command: AuthorizeCommand) -> Approved | Declined | Unknown:
        outcome: Approved | Declined | Unknown = await self._outside.authorize.play(command)
        return outcome

    @activity.defn(name="network.reverse")
    async def reverse(self, command: ReverseCommand) -> Reversed | NeverSent:
        outcome: Reversed | NeverSent = await self._outside.reverse.play(command)
        return outcome

    @activity.defn(name="network.release")
    async def release(self, command: ReleaseCommand) -> Acknowledged:
        outcome: Acknowledged = await self._outside.release.play(command)
        return outcome

    @activity.defn(name="network.capture")
    async def capture(self, command: CaptureCommand) -> Acknowledged:
        outcome: Acknowledged = await self._outside.capture.play(command)
        return outcome

    @activity.defn(name="network.increment")
    async def increment(self, command: IncrementCommand) -> Approved | Declined | Unknown:
        outcome: Approved | Declined | Unknown = await self._outside.increment.play(command)
        return outcome

    @activity.defn(name="network.refund")
    async def refund(self, command: RefundCommand) -> Approved | Declined | Unknown:
        outcome: Approved | Declined | Unknown = await self._outside.refund.play(command)
        return outcome


class ScriptedNotify:
    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    @activity.defn(name="notify.deliver")
    async def deliver(self, order: NotificationOrder) -> None:
        await self._outside.deliver.play(order)


Handle = WorkflowHandle[PaymentWorkflow, PaymentSnapshot]


@dataclass
class World:
    """One test's world: its payment request, the scripts outside, and the books."""

    client: Client
    engine: AsyncEngine
    outside: Outside
    request: PaymentRequest

    @property
    def handle(self) -> Handle:
        return self.client.get_workflow_handle_for(PaymentWorkflow.run, payment_workflow_id(self.request.payment_id))

    async def pay(self, **changes: Any) -> PaymentSnapshot:
        """What the API does: update-with-start, answered as soon as it is known how the payment stands."""
        self.request = replace(self.request, **changes)
        operation = WithStartWorkflowOperation(
            PaymentWorkflow.run,
            self.request,
            id=payment_workflow_id(self.request.payment_id),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )
        return await self.client.execute_update_with_start_workflow(
            PaymentWorkflow.authorize, start_workflow_operation=operation, id="authorize"
        )

    async def row(self) -> dict[str, Any]:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT * FROM platform.payments WHERE id = :id"), {"id": self.request.payment_id}
            )
            return dict(found.mappings().one())

    async def events(self) -> list[str]:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT type FROM platform.outbox WHERE subject_id = :id ORDER BY subject_sequence"),
                {"id": self.request.payment_id},
            )
            return [row.type.removeprefix("payment.") for row in found]

    async def pending_minor(self) -> int:
        """What is still held in the ledger for this payment."""
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT COALESCE(sum(remaining_minor), 0) FROM ledger.holds"
                    " JOIN ledger.transfers ON transfers.id = holds.pending_id WHERE reference = :id"
                ),
                {"id": self.request.payment_id},
            )
            return int(found.scalar_one())

    async def posted_minor(self) -> int:
        """What the merchant got for this payment: captures less refunds."""
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT COALESCE(sum(CASE WHEN credit_account LIKE 'merchant:%' THEN amount_minor"
                    " ELSE -amount_minor END), 0)"
                    " FROM ledger.transfers WHERE reference = :id AND kind = 'post'"
                ),
                {"id": self.request.payment_id},
            )
            return int(found.scalar_one())

    async def closed(self) -> PaymentSnapshot:
        """The workflow's result. Time is skipped until it is there; across hours, call `skip` first."""
        return await self.handle.result()

    async def until(self, condition: Callable[[PaymentSnapshot], bool]) -> PaymentSnapshot:
        """Waits, in real time and without moving the workflow's clock, until its snapshot fulfils `condition`."""
        async with asyncio.timeout(30):
            while True:
                snapshot = await self.handle.query(PaymentWorkflow.snapshot)
                if condition(snapshot):
                    return snapshot
                await asyncio.sleep(0.02)

    async def until_status(self, status: PaymentStatus) -> PaymentSnapshot:
        return await self.until(lambda snapshot: snapshot.status is status)


@asynccontextmanager
async def open_world(client: Client, engine: AsyncEngine) -> AsyncIterator[World]:
    """A world with an account, a user and a card of its own, and workers for all queues."""
    outside = Outside()
    request = await _new_payment(engine)
    books = PaymentBooks(engine)
    payments = PaymentActivities(cast("FraudEngine", ScriptedFraud(outside)), books)
    network = ScriptedNetwork(outside)
    local: Sequence[Callable[..., Any]] = [
        payments.open,
        network.ask,
        payments.count_decline,
        LedgerActivities(books).record,
        StepUpActivities(CODES, StepUpJudge(engine, RELYING_PARTY)).verify,
    ]
    workers: list[Worker] = [
        payments_worker(client, local, "test"),
        activity_worker(client, TaskQueue.VAULT, [ScriptedVault(outside).issue_credential], "test"),
        activity_worker(
            client,
            TaskQueue.NETWORK,
            [network.authorize, network.increment, network.reverse, network.capture, network.release, network.refund],
            "test",
        ),
        activity_worker(client, TaskQueue.NOTIFY, [ScriptedNotify(outside).deliver], "test"),
    ]
    async with workers[0], workers[1], workers[2], workers[3]:
        yield World(client, engine, outside, request)
    async with engine.connect() as connection:
        assert await check_invariants(connection) == []


async def _new_payment(engine: AsyncEngine) -> PaymentRequest:
    account, user, card, token = f"acct_{secrets.token_hex(6)}", new_id(USER), new_id(PAYMENT_METHOD), new_id("tok")
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO platform.accounts (id, name) VALUES (:account, :account)"), {"account": account}
        )
        await connection.execute(
            text("INSERT INTO platform.users (id, account_id, name) VALUES (:user, :account, 'Ada Canary')"),
            {"user": user, "account": account},
        )
        await connection.execute(
            text(
                "INSERT INTO platform.payment_methods"
                " (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)"
                " VALUES (:card, :account, :user, :token, 'visa', '424242', '4242', 12, 2030, 'active')"
            ),
            {"card": card, "account": account, "user": user, "token": token},
        )
    return PaymentRequest(
        payment_id=new_id(PAYMENT),
        account_id=account,
        user_id=user,
        payment_method_id=card,
        token_id=token,
        card_bin="424242",
        card_last4="4242",
        money=Money(1050, Currency.USD),
        merchant=Merchant("coffee-42", "Corner Coffee", "5814", "Oslo", "NO"),
        capture_method=CaptureMethod.MANUAL,
        requested_at=NOW,
    )
