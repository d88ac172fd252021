"""Settlement: days, breaks with their age, payouts. Two operators resolve a break, by updates of its workflow."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError

from api.auth import Client, Operator
from api.context import Context
from api.errors import missing, unavailable
from api.schemas.common import Page
from api.schemas.settlement import BreakObject, Day, PayoutObject, SettlementBody, SettlementCurrency, SettlementDay
from domain.ids import settlement_workflow_id
from store.queries import Row
from store.settlement_queries import find_day, list_breaks, list_days, list_payouts
from temporal.task_queues import TaskQueue
from workflows.messages import SettlementOrder
from workflows.settlement import SettlementWorkflow

router = APIRouter(prefix="/v1/settlement", tags=["Settlement"])

Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/days", status_code=202, summary="Settle a day, or settle it again")
async def settle_day(body: SettlementBody, context: Context, caller: Operator) -> Response:
    """Starts the settlement of a day; settling it again changes nothing. It is scheduled every night as well."""
    order = SettlementOrder(body.day.isoformat() if body.day else None)
    try:
        handle = await context.temporal.start_workflow(
            SettlementWorkflow.run,
            order,
            id=settlement_workflow_id(order.day),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )
    except RPCError as error:
        raise unavailable("payment engine") from error
    return JSONResponse({"object": "settlement", "workflow_id": handle.id}, 202)


@router.get("/days", summary="List settled days, newest first")
async def list_settled_days(
    context: Context,
    caller: Operator,
    limit: Limit = 10,
    starting_after: Annotated[Day | None, Query(description="A day, of which older ones are listed")] = None,
) -> Page[SettlementDay]:
    async with context.reader.connect() as connection:
        rows, has_more = await list_days(connection, limit, starting_after)
    return Page(url="/v1/settlement/days", has_more=has_more, data=[_day(row) for row in rows])


@router.get("/days/{day}", summary="Retrieve a settled day")
async def get_settled_day(day: Day, context: Context, caller: Operator) -> SettlementDay:
    """What the network's file came to in each currency, what of it agreed, what did not, and what merchants got."""
    async with context.reader.connect() as connection:
        row = await find_day(connection, day)
    if row is None:
        raise missing("settled day", day.isoformat())
    return _day(row)


@router.get("/breaks", summary="List breaks")
async def list_all_breaks(
    context: Context,
    caller: Operator,
    limit: Limit = 10,
    starting_after: str | None = None,
    status: Literal["open", "healed", "resolved"] | None = None,
) -> Page[BreakObject]:
    """To resolve one, two operators send `resolve` to its workflow (`break/…`) in the Temporal UI, with a reason."""
    async with context.reader.connect() as connection:
        rows, has_more = await list_breaks(connection, limit, starting_after, status)
    return Page(url="/v1/settlement/breaks", has_more=has_more, data=[_break(row) for row in rows])


@router.get("/payouts", summary="List the account's payouts")
async def list_all_payouts(
    context: Context, caller: Client, limit: Limit = 10, starting_after: str | None = None
) -> Page[PayoutObject]:
    async with context.reader.connect() as connection:
        rows, has_more = await list_payouts(connection, caller.account_id, limit, starting_after)
    data = [
        PayoutObject(
            id=row["id"],
            day=row["day"],
            merchant=row["merchant_id"],
            amount_minor=row["amount_minor"],
            currency=row["currency"],
            status=row["status"],
            created=row["created_at"],
        )
        for row in rows
    ]
    return Page(url="/v1/settlement/payouts", has_more=has_more, data=data)


def _day(row: Row) -> SettlementDay:
    return SettlementDay(
        day=row["day"],
        file_id=row["file_id"],
        records=row["records"],
        verdicts=row["verdicts"],
        open_breaks=row["open_breaks"],
        payouts=row["payouts"],
        payouts_waiting=row["payouts_waiting"],
        currencies=[SettlementCurrency(**each) for each in row["currencies"]],
        started=row["started_at"],
        finished=row["finished_at"],
    )


def _break(row: Row) -> BreakObject:
    return BreakObject(
        id=row["id"],
        day=row["day"],
        kind=row["kind"],
        status=row["status"],
        payment=row["payment_id"],
        line=row["line"],
        parts=row["parts"],
        outcome=row["outcome"],
        reason=row["reason"],
        resolved_by=row["resolved_by"],
        age_hours=round(row["age"].total_seconds() / 3600, 2),
        opened=row["opened_at"],
        closed=row["closed_at"],
    )
