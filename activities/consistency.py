"""The invariants of the whole: the ledger's own, the network's journal against it, rows against their workflows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities import contracts
from activities.contracts import Checked
from activities.errors import translated
from domain.consistency import Finding
from ledger import invariants
from ledger.batches import close_batch
from ledger.expiry import expire_due
from store.bank_consistency import BANK_RULES, check_bank
from store.consistency import (
    DEADLINE_RULES,
    GRACE,
    JOURNAL_RULES,
    TEXT_RULES,
    OpenWork,
    check_deadlines,
    check_journal,
    check_texts,
    open_work,
    snapshot,
    still_open,
)

WORKFLOW_RULES: Mapping[str, str] = {"workflow_runs": "What is not final has a workflow that runs."}
RULES: Mapping[str, str] = {
    **invariants.RULES,
    **JOURNAL_RULES,
    **WORKFLOW_RULES,
    **DEADLINE_RULES,
    **BANK_RULES,
    **TEXT_RULES,
}

_AT_ONCE = 8
_SHOWN = 20


class ConsistencyActivities(contracts.ConsistencyActivities):
    def __init__(self, engine: AsyncEngine, client: Client) -> None:
        self._engine = engine
        self._client = client

    @activity.defn(name="ledger.close_batches")
    async def close_batches(self) -> None:
        """Adds what was booked since the last time to the ledger's hash chain; first it ends holds that are overdue."""
        with translated():
            while await expire_due(self._engine):
                activity.heartbeat()
            while await close_batch(self._engine) is not None:
                activity.heartbeat()

    @activity.defn(name="invariants.check")
    async def check(self) -> Checked:
        """How many invariants hold.

        Raises:
            ApplicationError: `invariant_broken`, whose message names each one that does not, and the offending ids.
        """
        found = await findings(self._engine, self._client)
        if found:
            text = "; ".join(f"{each.invariant}: {', '.join(each.subjects)} ({each.detail})" for each in found)
            raise ApplicationError(text, type="invariant_broken")
        return Checked(len(RULES))


async def findings(engine: AsyncEngine, client: Client, grace: timedelta = GRACE) -> list[Finding]:
    """Everything that contradicts itself now, of each invariant some. What is younger than `grace` may be under way."""
    async with snapshot(engine) as connection:
        broken = [
            *((each.rule, each.subject, each.detail) for each in await _of_ledger(connection)),
            *((each.rule, each.subject, each.detail) for each in await check_journal(connection, grace=grace)),
            *((each.rule, each.subject, each.detail) for each in await check_deadlines(connection, grace=grace)),
            *((each.rule, each.subject, each.detail) for each in await check_bank(connection, grace=grace)),
            *((each.rule, each.subject, each.detail) for each in await check_texts(connection)),
        ]
    broken += [
        ("workflow_runs", work.id, f"{work.kind}: {', '.join(work.workflow_ids)}")
        for work in await _abandoned(engine, client, grace)
    ]
    grouped: dict[str, list[tuple[str, str]]] = {}
    for rule, subject, detail in broken:
        grouped.setdefault(rule, []).append((subject, detail))
    return [Finding(rule, tuple(subject for subject, _ in each[:_SHOWN]), each[0][1]) for rule, each in grouped.items()]


async def _of_ledger(connection: AsyncConnection) -> Sequence[invariants.Violation]:
    return (await invariants.check(connection, limit=_SHOWN)).violations


async def _abandoned(engine: AsyncEngine, client: Client, grace: timedelta) -> list[OpenWork]:
    """Rows that are not final and whose workflow does not run, page by page."""
    abandoned: list[OpenWork] = []
    after = ("", "")
    while True:
        async with engine.connect() as connection:
            page = await open_work(connection, older_than=grace, after=after)
        if not page:
            return abandoned
        dead = await _without_workflow(client, page)
        async with engine.connect() as connection:
            # What ended between the two looks is no contradiction.
            abandoned += await still_open(connection, dead)
        after = (page[-1].kind, page[-1].id)


async def _without_workflow(client: Client, page: Sequence[OpenWork]) -> list[OpenWork]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def runs(workflow_id: str) -> bool:
        async with gate:
            try:
                described = await client.get_workflow_handle(workflow_id).describe()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return False
                raise
            return described.status is WorkflowExecutionStatus.RUNNING

    async def moves(work: OpenWork) -> bool:
        return all(await asyncio.gather(*(runs(each) for each in work.workflow_ids)))

    moving = await asyncio.gather(*(moves(work) for work in page))
    return [work for work, alive in zip(page, moving, strict=True) if not alive]
