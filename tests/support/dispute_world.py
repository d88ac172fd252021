"""A world around a dispute's workflow: real books and a real document storage, and a network told what to answer."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.testing import WorkflowEnvironment

from activities.disputes import DisputeActivities
from documents.evidence import EvidenceArchive, described, file_key
from documents.storage import Bucket, DocumentStorage
from domain.currency import Currency
from domain.disputes import AcceptCommand, ChargebackNotice, DisputeKind, DisputeStatus, NoticeStage, RepresentCommand
from domain.evidence import EvidenceFile, FilePurpose
from domain.ids import EVIDENCE_FILE, dispute_workflow_id, new_id
from domain.outcomes import Acknowledged
from domain.payments import PaymentStatus
from ledger.dispute_books import DisputeBooks
from ledger.queries import check_invariants
from temporal.task_queues import TaskQueue
from tests.integration.books.support import Life, Shop, open_shop
from tests.support.disputes import dispute_events, dispute_id_of, dispute_row, moved_minor, notice
from tests.support.world import NOW, Script
from tests.unit.documents.files import PDF
from workers.registry import activity_worker, payments_worker
from workflows.dispute import DisputeWorkflow
from workflows.dispute_messages import AddEvidence, DisputeSnapshot

FEE_MINOR = 1500
TEXTS = {"product_description": "Forty-two cups of coffee", "service_date": "2026-11-02"}

Handle = WorkflowHandle[DisputeWorkflow, DisputeSnapshot]


class ScriptedCase:
    """The network's side of a case."""

    def __init__(self) -> None:
        self.answers = Script(Acknowledged(NOW))
        self.surrender = Script(Acknowledged(NOW))

    @activity.defn(name="network.accept")
    async def accept(self, command: AcceptCommand) -> Acknowledged:
        acknowledged: Acknowledged = await self.surrender.play(command)
        return acknowledged

    @activity.defn(name="network.represent")
    async def represent(self, command: RepresentCommand) -> Acknowledged:
        acknowledged: Acknowledged = await self.answers.play(command)
        return acknowledged


@dataclass
class DisputeWorld:
    """One test's world: a captured payment of $10.00, the case that the network makes of it, and the storage.

    `opens_at` is when the case was opened, by the network's clock.
    """

    environment: WorkflowEnvironment
    engine: AsyncEngine
    shop: Shop
    life: Life
    storage: DocumentStorage
    network: Script
    surrender: Script
    opens_at: datetime
    chargeback_id: str = field(default_factory=lambda: f"cb-{secrets.token_hex(6)}")

    @property
    def dispute_id(self) -> str:
        return dispute_id_of(self.chargeback_id)

    @property
    def handle(self) -> Handle:
        return self.environment.client.get_workflow_handle_for(
            DisputeWorkflow.run, dispute_workflow_id(self.chargeback_id)
        )

    def notice(
        self,
        kind: DisputeKind = DisputeKind.CHARGEBACK,
        stage: NoticeStage = NoticeStage.OPENED,
        *,
        after: timedelta = timedelta(0),
        **fields: Any,
    ) -> ChargebackNotice:
        """What the network says of this case, so long after it was opened."""
        return notice(
            self.life.id, kind, stage, chargeback_id=self.chargeback_id, issued_at=self.opens_at + after, **fields
        )

    async def open(
        self,
        kind: DisputeKind = DisputeKind.CHARGEBACK,
        stage: NoticeStage = NoticeStage.OPENED,
        *,
        until_open: bool = True,
        **fields: Any,
    ) -> None:
        """What the network's worker does with a first notice: it does not know that it is one."""
        first = self.notice(kind, stage, **fields)
        await self.environment.client.start_workflow(
            "dispute",
            first,
            id=dispute_workflow_id(self.chargeback_id),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            start_signal="network_decision",
            start_signal_args=[first],
        )
        if until_open:
            await self.until_events("created")

    async def tell(self, stage: NoticeStage, kind: DisputeKind = DisputeKind.CHARGEBACK, **fields: Any) -> None:
        """What the network's worker does with a further notice."""
        await self.handle.signal(DisputeWorkflow.network_decision, self.notice(kind, stage, **fields))

    async def evidence(self, **fields: Any) -> DisputeSnapshot:
        return await self.handle.execute_update(
            DisputeWorkflow.add_evidence, AddEvidence(**({"texts": TEXTS} | fields))
        )

    async def stored_file(self, content: bytes = PDF, name: str = "receipt.pdf") -> EvidenceFile:
        """A file as the API stores it before the workflow hears of it."""
        file = described(new_id(EVIDENCE_FILE), FilePurpose.RECEIPT, name, content)
        await self.storage.put(file_key(self.dispute_id, file.file_id), content, file.content_type)
        return file

    async def skip(self, time: timedelta) -> None:
        await self.environment.sleep(time)

    async def skip_to(self, time: timedelta) -> None:
        """Skips until so long after the case was opened."""
        await self.skip(self.opens_at + time - await self.environment.get_current_time())

    async def row(self) -> dict[str, Any]:
        return await dispute_row(self.engine, self.dispute_id)

    async def events(self) -> list[str]:
        return [event["type"] for event in await dispute_events(self.engine, self.dispute_id)]

    async def moved_minor(self) -> dict[str, int]:
        return await moved_minor(self.engine, self.dispute_id)

    async def manifest(self, submission: int = 1) -> bytes:
        content = await self.storage.read(f"disputes/{self.dispute_id}/manifest-{submission}.json")
        assert hashlib.sha256(content).hexdigest() == self.network.calls[-1].evidence_sha256
        return content

    async def until(self, condition: Callable[[DisputeSnapshot], bool]) -> DisputeSnapshot:
        """Waits, in real time and without moving the workflow's clock, until its snapshot fulfils `condition`."""
        async with asyncio.timeout(30):
            while True:
                snapshot = await self.handle.query(DisputeWorkflow.snapshot)
                if condition(snapshot):
                    return snapshot
                await asyncio.sleep(0.02)

    async def until_status(self, status: DisputeStatus) -> DisputeSnapshot:
        return await self.until(lambda snapshot: snapshot.status is status)

    async def until_parked(self, step: str) -> DisputeSnapshot:
        return await self.until(lambda snapshot: step in snapshot.needs_attention)

    async def skip_until_parked(self, step: str, within: timedelta) -> None:
        """Skips time little by little: a parked step soon tries again by itself."""
        little = timedelta(seconds=10)
        for _ in range(within // little):
            if step in (await self.handle.query(DisputeWorkflow.snapshot)).needs_attention:
                return
            await self.skip(little)
        raise AssertionError(f"{step} was not parked within {within}")

    async def until_events(self, *names: str) -> None:
        """Waits likewise until the last events are these."""
        async with asyncio.timeout(30):
            while True:
                if tuple((await self.events())[-len(names) :]) == names:
                    return
                await asyncio.sleep(0.02)

    async def closed(self) -> DisputeSnapshot:
        """Skips the time in which the network may come back to a decided case. Returns the workflow's result."""
        await self.skip(timedelta(days=46))
        return await self.handle.result()


@asynccontextmanager
async def open_dispute_world(
    environment: WorkflowEnvironment, engine: AsyncEngine, s3_endpoint: str, *, with_bucket: bool = True
) -> AsyncIterator[DisputeWorld]:
    shop = await open_shop(engine)
    storage = DocumentStorage(
        Bucket(f"documents-{secrets.token_hex(6)}", "eu-central-1", "testing", "testing", endpoint=s3_endpoint)
    )
    if with_bucket:
        await storage.create_bucket()
    case = ScriptedCase()
    world = DisputeWorld(
        environment=environment,
        engine=engine,
        shop=shop,
        life=await shop.in_state(PaymentStatus.CAPTURED),
        storage=storage,
        network=case.answers,
        surrender=case.surrender,
        opens_at=await environment.get_current_time(),
    )
    activities = DisputeActivities(DisputeBooks(engine, {Currency.USD: FEE_MINOR}), EvidenceArchive(engine, storage))
    local: list[Callable[..., Any]] = [activities.open, activities.record, activities.note, activities.freeze]
    async with (
        payments_worker(environment.client, local, "test"),
        activity_worker(environment.client, TaskQueue.NETWORK, [case.represent, case.accept], "test"),
    ):
        yield world
    await storage.close()
    async with engine.connect() as connection:
        assert await check_invariants(connection) == []
