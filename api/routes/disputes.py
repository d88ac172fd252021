"""Disputes: reading them, handing in evidence, answering, giving in.

Each effect is an update on the dispute's workflow, which is its only writer. Files go from here into the storage; the
workflow hears what they are. A user's session sees no disputes: the user may be who disputes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from temporalio.client import WorkflowHandle

from api.auth import Client, Principal
from api.context import ApiContext, Context
from api.errors import ApiError, missing, unavailable
from api.evidence_form import GivenEvidence, read_evidence
from api.idempotency import KeyHeader, Reservation, reserve, store_answer
from api.presenters import dispute_object, evidence_file_object
from api.schemas.common import Instant, Page
from api.schemas.disputes import EVIDENCE_FORM, AcceptBody, DisputeObject, FileLinkObject, SubmitBody
from api.workflow_calls import update
from documents.errors import StorageUnavailable
from documents.evidence import file_key
from domain.disputes import RESPONDING, DisputeStatus
from domain.evidence import EvidenceFile
from domain.ids import EVIDENCE_FILE, dispute_workflow_id
from store.dispute_queries import DisputeFilter, find_dispute, list_disputes
from store.queries import PageRequest, Row
from workflows.dispute import DisputeWorkflow
from workflows.dispute_messages import AcceptDispute, AddEvidence, DisputeSnapshot, SubmitEvidence

router = APIRouter(prefix="/v1/disputes", tags=["Disputes"])

_log = logging.getLogger("durapay.api")

# Long enough to follow it, too short to pass it on.
_LINK_LIFETIME = timedelta(minutes=5)

_PENDING: dict[int | str, dict[str, Any]] = {
    202: {"model": DisputeObject, "description": "Accepted, not recorded yet: read the dispute again"}
}


@router.get("", summary="List disputes, newest first")
async def list_all_disputes(
    context: Context,
    caller: Client,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    starting_after: str | None = None,
    ending_before: str | None = None,
    payment: str | None = None,
    status: DisputeStatus | None = None,
    due_before: Annotated[Instant | None, Query(alias="due_by[lt]")] = None,
    created_gte: Annotated[Instant | None, Query(alias="created[gte]")] = None,
    created_lt: Annotated[Instant | None, Query(alias="created[lt]")] = None,
) -> Page[DisputeObject]:
    if starting_after and ending_before:
        raise ApiError("parameter_invalid", "Give starting_after or ending_before, not both.", "ending_before")
    wanted = DisputeFilter(
        account_id=caller.account_id,
        payment_id=payment,
        status=status,
        due_before=due_before,
        created_gte=created_gte,
        created_lt=created_lt,
    )
    async with context.reader.connect() as connection:
        rows, has_more = await list_disputes(connection, wanted, PageRequest(limit, starting_after, ending_before))
    data = [dispute_object(row, context.settings.livemode) for row in rows]
    return Page(url="/v1/disputes", has_more=has_more, data=data)


@router.get("/{dispute_id}", summary="Retrieve a dispute")
async def get_dispute(dispute_id: str, context: Context, caller: Client) -> DisputeObject:
    return dispute_object(await _visible(context, caller, dispute_id), context.settings.livemode)


@router.post(
    "/{dispute_id}/evidence",
    response_model=DisputeObject,
    summary="Add evidence",
    responses=_PENDING,
    openapi_extra=EVIDENCE_FORM,
)
async def add_evidence(
    dispute_id: str, request: Request, context: Context, caller: Client, key: KeyHeader = None
) -> Response:
    """Texts, and at most one file, while an answer is awaited. A text that is given replaces the one before; an empty
    one removes it."""
    row = await _visible(context, caller, dispute_id)
    given = await read_evidence(request)
    reservation = await reserve(context.reader, request, caller, key, EVIDENCE_FILE, _parameters(given))
    if reservation.response is not None:
        return reservation.response
    if reservation.fresh and row["status"] not in RESPONDING:
        raise ApiError("dispute_unexpected_state", f"A dispute that is {row['status']} takes no evidence.")
    if given.file is None:
        return await _update(context, caller, row, reservation, DisputeWorkflow.add_evidence, AddEvidence(given.texts))
    return await _hand_in(context, caller, row, reservation, given.texts, given.file, given.content)


@router.post("/{dispute_id}/submit", response_model=DisputeObject, summary="Answer a dispute", responses=_PENDING)
async def submit_evidence(
    dispute_id: str,
    request: Request,
    context: Context,
    caller: Client,
    body: SubmitBody | None = None,
    key: KeyHeader = None,
) -> Response:
    """Sends the evidence to the card network. Nothing can be added or changed afterwards."""
    row = await _visible(context, caller, dispute_id)
    reservation = await reserve(context.reader, request, caller, key, "upd", {})
    if reservation.response is not None:
        return reservation.response
    return await _update(context, caller, row, reservation, DisputeWorkflow.submit, SubmitEvidence())


@router.post("/{dispute_id}/accept", response_model=DisputeObject, summary="Accept a dispute", responses=_PENDING)
async def accept_dispute(
    dispute_id: str,
    request: Request,
    context: Context,
    caller: Client,
    body: AcceptBody | None = None,
    key: KeyHeader = None,
) -> Response:
    """Gives in to a chargeback: it is lost at once. (An inquiry is settled by a refund.)"""
    row = await _visible(context, caller, dispute_id)
    reservation = await reserve(context.reader, request, caller, key, "upd", {})
    if reservation.response is not None:
        return reservation.response
    return await _update(context, caller, row, reservation, DisputeWorkflow.accept, AcceptDispute())


@router.get("/{dispute_id}/evidence/{file_id}", summary="Get a link to a file of the evidence")
async def get_evidence_file(dispute_id: str, file_id: str, context: Context, caller: Client) -> FileLinkObject:
    """A link with which the file can be downloaded for five minutes, without credentials."""
    row = await _visible(context, caller, dispute_id)
    found = next((file for file in row["files"] if file["id"] == file_id), None)
    if found is None:
        raise missing("file", file_id)
    expires_at = datetime.now(UTC) + _LINK_LIFETIME
    url = context.documents.link(
        file_key(dispute_id, file_id),
        name=found["name"],
        content_type=found["content_type"],
        lifetime=_LINK_LIFETIME,
    )
    return FileLinkObject(file=evidence_file_object(found), url=url, expires_at=expires_at)


async def _update(
    context: ApiContext, caller: Principal, row: Row, reservation: Reservation, method: Any, message: Any
) -> Response:
    """One update on the dispute's workflow, under the caller's key: the update's id is derived from it."""
    handle: WorkflowHandle[DisputeWorkflow, DisputeSnapshot] = context.temporal.get_workflow_handle_for(
        DisputeWorkflow.run, dispute_workflow_id(row["chargeback_id"])
    )
    try:
        done: DisputeSnapshot | None = await update(
            handle.execute_update(method, message, id=reservation.resource_id), context.settings.wait_seconds
        )
    except ApiError as refusal:
        if refusal.code == "payment_closed":
            raise ApiError("dispute_unexpected_state", "The case is closed.") from refusal
        raise
    shown = _shown(context, await _visible(context, caller, row["id"]))
    if done is None:
        return JSONResponse(shown, 202)
    await store_answer(context.reader, reservation, 200, shown)
    return JSONResponse(shown)


async def _hand_in(
    context: ApiContext,
    caller: Principal,
    row: Row,
    reservation: Reservation,
    texts: dict[str, str],
    described: EvidenceFile,
    content: bytes,
) -> Response:
    """Stores the file, then tells the workflow of it. One that the workflow refuses does not stay."""
    file = replace(described, file_id=reservation.resource_id)
    if any(kept["id"] == file.file_id for kept in row["files"]):
        # The same request came before, and its answer was lost.
        return JSONResponse(_shown(context, row))
    try:
        await context.documents.put(file_key(row["id"], file.file_id), content, file.content_type)
    except StorageUnavailable as error:
        raise unavailable("document storage") from error
    try:
        message = AddEvidence(texts, file)
        return await _update(context, caller, row, reservation, DisputeWorkflow.add_evidence, message)
    except ApiError as refusal:
        if refusal.status < 500:
            await _discard(context, row["id"], file)
        raise


async def _discard(context: ApiContext, dispute_id: str, file: EvidenceFile) -> None:
    """Removes a file that the workflow refused. Should that fail, nothing names it: nobody is shown it any more."""
    try:
        await context.documents.delete(file_key(dispute_id, file.file_id))
    except StorageUnavailable as error:
        _log.warning("a refused file stays in the storage: %s", error.reason)


def _parameters(given: GivenEvidence) -> dict[str, Any]:
    """What makes a request the same when it comes again."""
    file = given.file
    return {"texts": given.texts, "file": [file.name, file.purpose, file.sha256] if file else None}


def _shown(context: ApiContext, row: Row) -> dict[str, Any]:
    return dispute_object(row, context.settings.livemode).model_dump(mode="json")


async def _visible(context: ApiContext, caller: Principal, dispute_id: str) -> Row:
    """The dispute, if it is the caller's; otherwise it is missing, whether it exists or not."""
    async with context.reader.connect() as connection:
        row = await find_dispute(connection, dispute_id)
    if row is None or row["account_id"] != caller.account_id:
        raise missing("dispute", dispute_id)
    return row
