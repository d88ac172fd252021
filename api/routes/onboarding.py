"""Knowing the customer: documents and details in, reviews by operators, limits, profile, and the end of a wallet.

What a person says is in clear in this process for the length of a call. It goes on encrypted under a key of that user:
to the case's workflow as ciphertext, and to the storage.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from temporalio.client import WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from api.auth import Caller, Operator, Principal
from api.context import ApiContext, Context
from api.errors import ApiError, missing, unavailable
from api.idempotency import KeyHeader, Reservation, reserve, store_answer
from api.limits import require_open
from api.routes.users import user_object, visible_user
from api.schemas.common import CurrencyCode, Page, Text
from api.schemas.onboarding import (
    DOCUMENT_FORM,
    AppealBody,
    CloseBody,
    ClosureObject,
    DetailsBody,
    LimitsObject,
    OnboardingDocumentObject,
    OnboardingObject,
    OnboardingReviewBody,
    PersonalDetailsObject,
    ProfileBody,
    WindowObject,
)
from api.schemas.users import UserObject
from api.workflow_calls import update
from documents.errors import DocumentMissing, DocumentRefused, StorageUnavailable
from documents.recognition import recognised
from domain.closure import ClosureOrder
from domain.currency import Currency
from domain.errors import Unavailable
from domain.ids import (
    ONBOARDING_DOCUMENT,
    closure_workflow_id,
    onboarding_document_key,
    onboarding_workflow_id,
)
from domain.onboarding import DocumentKind, OnboardingDocument, OnboardingStatus, SealedDetails
from domain.personal import PersonalDetails, from_json, problems, to_json
from domain.tiers import limits_for
from sealing.personal import seal, unseal
from store.onboarding_queries import (
    CaseFilter,
    change_profile,
    find_case,
    find_closure,
    find_sealed_details,
    find_standing,
    list_cases,
    record_access,
)
from store.queries import Row
from temporal.task_queues import TaskQueue
from vault.personal_keys import PersonalKey, PersonalKeyDestroyed
from workflows.closure import ClosureWorkflow
from workflows.onboarding import OnboardingWorkflow
from workflows.onboarding_messages import (
    AddDocument,
    ClosureSnapshot,
    OnboardingReview,
    OnboardingSnapshot,
    OnboardingStart,
    SubmitDetails,
    WithdrawRequest,
)

router = APIRouter(prefix="/v1", tags=["Onboarding"])

# What binds a ciphertext to its place; the onboarding worker says the same.
_DETAILS, _DOCUMENT = "details", "document"

_OperatorName = Annotated[Text | None, Query(description="Required: who looks; it is recorded", examples=["maria"])]

_PENDING: dict[int | str, dict[str, Any]] = {
    202: {"model": OnboardingObject, "description": "Accepted, not recorded yet: read it again"}
}


@router.get("/onboardings", summary="List onboardings, the latest change first")
async def list_onboardings(
    context: Context,
    caller: Operator,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    starting_after: str | None = None,
    status: OnboardingStatus | None = None,
    awaits_review: bool | None = None,
) -> Page[OnboardingObject]:
    """`starting_after` is the id of a user."""
    wanted = CaseFilter(caller.account_id, status, awaits_review)
    async with context.reader.connect() as connection:
        rows, has_more = await list_cases(connection, wanted, limit, starting_after)
    data = [_onboarding(context, caller, row) for row in rows]
    return Page(url="/v1/onboardings", has_more=has_more, data=data)


@router.get("/users/{user_id}/onboarding", summary="Retrieve a user's onboarding")
async def get_onboarding(user_id: str, context: Context, caller: Caller) -> OnboardingObject:
    await visible_user(context, caller, user_id)
    return _onboarding(context, caller, await _case(context, user_id))


@router.post(
    "/users/{user_id}/onboarding",
    response_model=OnboardingObject,
    summary="Say who a user is",
    responses=_PENDING,
)
async def submit_details(
    user_id: str, body: DetailsBody, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """Checked at once where dates, formats and check digits are wrong; everything else is looked at behind the answer.
    Without a document the user gets the tier `basic`; with one, and its picture, `verified`."""
    await _open_user(context, caller, user_id)
    details = body.details()
    for problem in problems(details, datetime.now(UTC).date()):
        raise ApiError(problem.code, f"{problem.param}: {problem.message}.", problem.param)
    # A digest of the request is kept with its key: of what is personal only one that nobody can try values against.
    personal = await _personal_key(context, user_id)
    digest = hashlib.blake2b(to_json(details), key=personal.key, digest_size=32).hexdigest()
    reservation = await reserve(context.reader, request, caller, key, "upd", {"details": digest})
    if reservation.response is not None:
        return reservation.response
    message = SubmitDetails(_sealed(details, user_id, personal), caller.name)
    return await _update(context, caller, user_id, reservation, OnboardingWorkflow.submit, message)


@router.post(
    "/users/{user_id}/onboarding/appeal",
    response_model=OnboardingObject,
    summary="Ask for another look",
    responses=_PENDING,
)
async def appeal(
    user_id: str,
    request: Request,
    context: Context,
    caller: Caller,
    body: AppealBody | None = None,
    key: KeyHeader = None,
) -> Response:
    """Of a rejected or verified user's: at what was said before, with the documents that have come since."""
    await _open_user(context, caller, user_id)
    await _case(context, user_id)
    reservation = await reserve(context.reader, request, caller, key, "upd", {})
    if reservation.response is not None:
        return reservation.response
    message = SubmitDetails(None, caller.name)
    return await _update(context, caller, user_id, reservation, OnboardingWorkflow.submit, message)


@router.post(
    "/users/{user_id}/onboarding/documents",
    response_model=OnboardingObject,
    summary="Hand in a document",
    responses=_PENDING,
    openapi_extra=DOCUMENT_FORM,
)
async def add_document(
    user_id: str, request: Request, context: Context, caller: Caller, key: KeyHeader = None
) -> Response:
    """A picture of an identity document, or a proof of address. It is encrypted before it is stored."""
    await _open_user(context, caller, user_id)
    kind, content = await _read_document(request)
    content_type = _recognised(content)
    personal = await _personal_key(context, user_id)
    digest = hashlib.blake2b(content, key=personal.key, digest_size=32).hexdigest()
    parameters = {"kind": kind, "file": digest}
    reservation = await reserve(context.reader, request, caller, key, ONBOARDING_DOCUMENT, parameters)
    if reservation.response is not None:
        return reservation.response
    document_id = reservation.resource_id
    ciphertext = seal(personal.key, content, _DOCUMENT, user_id, document_id)
    try:
        await context.documents.put(
            onboarding_document_key(user_id, document_id), ciphertext, "application/octet-stream"
        )
    except StorageUnavailable as error:
        raise unavailable("document storage") from error
    sha256 = hashlib.sha256(ciphertext).hexdigest()
    document = OnboardingDocument(document_id, kind, content_type, len(content), sha256)
    message = AddDocument(document, caller.name)
    return await _update(context, caller, user_id, reservation, OnboardingWorkflow.add_document, message)


@router.get("/users/{user_id}/onboarding/details", summary="Look at what a user said")
async def look_at_details(
    user_id: str, context: Context, caller: Operator, operator: _OperatorName = None
) -> PersonalDetailsObject:
    """For a reviewer. That it was looked at is recorded before anything is shown."""
    await visible_user(context, caller, user_id)
    async with context.engine.begin() as connection:
        found = await find_sealed_details(connection, user_id)
        if found is None:
            raise missing("personal details of", user_id)
        await record_access(connection, user_id, caller.account_id, _named(operator), _DETAILS)
    personal = await _personal_key(context, user_id)
    shown = asdict(from_json(unseal(personal.key, found[1], _DETAILS, user_id, personal.key_id)))
    return PersonalDetailsObject(user=user_id, **shown)


@router.get(
    "/users/{user_id}/onboarding/documents/{document_id}",
    summary="Look at a user's document",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The file, as a download"}},
)
async def look_at_document(
    user_id: str, document_id: str, context: Context, caller: Operator, operator: _OperatorName = None
) -> Response:
    """For a reviewer. That it was looked at is recorded before anything is shown."""
    await visible_user(context, caller, user_id)
    async with context.reader.connect() as connection:
        row = await find_case(connection, user_id)
    found = next((each for each in row["documents"] if each["id"] == document_id), None) if row else None
    if found is None:
        raise missing("document", document_id)
    async with context.engine.begin() as connection:
        await record_access(connection, user_id, caller.account_id, _named(operator), document_id)
    personal = await _personal_key(context, user_id)
    try:
        ciphertext = await context.documents.read(onboarding_document_key(user_id, document_id))
    except DocumentMissing:
        raise missing("document", document_id) from None
    except StorageUnavailable as error:
        raise unavailable("document storage") from error
    content = unseal(personal.key, ciphertext, _DOCUMENT, user_id, document_id)
    # Never opened within the browser, whatever is in it, and kept nowhere.
    headers = {
        "Content-Disposition": f'attachment; filename="{document_id}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=found["content_type"], headers=headers)


@router.post(
    "/users/{user_id}/onboarding/review",
    response_model=OnboardingObject,
    summary="Decide a user's onboarding",
    responses=_PENDING,
)
async def review_onboarding(
    user_id: str,
    body: OnboardingReviewBody,
    request: Request,
    context: Context,
    caller: Operator,
    key: KeyHeader = None,
) -> Response:
    """An operator's decision, while a person is asked."""
    await visible_user(context, caller, user_id)
    await _case(context, user_id)
    reservation = await reserve(context.reader, request, caller, key, "upd", body.model_dump())
    if reservation.response is not None:
        return reservation.response
    message = OnboardingReview(body.operator, body.approve, body.reason)
    return await _update(context, caller, user_id, reservation, OnboardingWorkflow.review, message)


@router.get("/users/{user_id}/limits", summary="Retrieve a user's limits")
async def get_limits(user_id: str, context: Context, caller: Caller, currency: CurrencyCode = "USD") -> LimitsObject:
    await visible_user(context, caller, user_id)
    async with context.reader.connect() as connection:
        standing = await find_standing(connection, user_id)
    limits = limits_for(standing.tier, Currency[currency])
    return LimitsObject(
        user=user_id,
        tier=limits.tier,
        currency=limits.currency,
        per_payment_minor=limits.per_payment_minor,
        per_transfer_minor=limits.per_transfer_minor,
        transfers=[
            WindowObject(hours=window.hours, count=window.count, amount_minor=window.amount_minor)
            for window in limits.windows
        ],
        sending_frozen=standing.sending_frozen,
    )


@router.patch("/users/{user_id}", summary="Change a user's profile")
async def change_user(user_id: str, body: ProfileBody, context: Context, caller: Caller) -> UserObject:
    """Name and locale. Doing it again changes nothing, so it takes no idempotency key."""
    await _open_user(context, caller, user_id)
    async with context.engine.begin() as connection:
        await change_profile(connection, user_id, body.name, body.locale)
    return user_object(await visible_user(context, caller, user_id), context.settings.livemode)


@router.post("/users/{user_id}/close", response_model=ClosureObject, summary="Close a user's wallet")
async def close_user(
    user_id: str,
    request: Request,
    context: Context,
    caller: Caller,
    body: CloseBody | None = None,
    key: KeyHeader = None,
) -> Response:
    """`200` with the closure. While money is open it is `waiting`, says for what, and goes on by itself; it can be
    withdrawn. From then on the user pays nothing; after the retention the person is erased."""
    await visible_user(context, caller, user_id)
    reservation = await reserve(context.reader, request, caller, key, "upd", {})
    if reservation.response is not None:
        return reservation.response
    order = ClosureOrder(user_id, caller.account_id, caller.name)
    operation = WithStartWorkflowOperation(
        ClosureWorkflow.run,
        order,
        id=closure_workflow_id(user_id),
        task_queue=TaskQueue.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        # Who withdrew may close again. Who is closed has a workflow that runs, or a row that says so.
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    )
    async with context.reader.connect() as connection:
        standing = await find_standing(connection, user_id)
    if standing.closed_at is None:
        await update(
            context.temporal.execute_update_with_start_workflow(
                ClosureWorkflow.decide, start_workflow_operation=operation, id=f"decide-{reservation.resource_id}"
            ),
            context.settings.wait_seconds,
        )
    return await _closure_answer(context, user_id, reservation)


@router.get("/users/{user_id}/closure", summary="Retrieve the closure of a user's wallet")
async def get_closure(user_id: str, context: Context, caller: Caller) -> ClosureObject:
    await visible_user(context, caller, user_id)
    return _closure(context, await _closure_row(context, user_id))


@router.post("/users/{user_id}/closure/withdraw", response_model=ClosureObject, summary="Keep a wallet after all")
async def withdraw_closure(
    user_id: str,
    request: Request,
    context: Context,
    caller: Caller,
    body: CloseBody | None = None,
    key: KeyHeader = None,
) -> Response:
    """While the closure waits for open money."""
    await visible_user(context, caller, user_id)
    await _closure_row(context, user_id)
    reservation = await reserve(context.reader, request, caller, key, "upd", {})
    if reservation.response is not None:
        return reservation.response
    handle: WorkflowHandle[ClosureWorkflow, ClosureSnapshot] = context.temporal.get_workflow_handle_for(
        ClosureWorkflow.run, closure_workflow_id(user_id)
    )
    try:
        await update(
            handle.execute_update(ClosureWorkflow.withdraw, WithdrawRequest(caller.name), id=reservation.resource_id),
            context.settings.wait_seconds,
        )
    except ApiError as refusal:
        if refusal.code == "payment_closed":
            raise ApiError("closure_unexpected_state", "The closure has ended.") from refusal
        raise
    return await _closure_answer(context, user_id, reservation)


async def _update(
    context: ApiContext, caller: Principal, user_id: str, reservation: Reservation, method: Any, message: Any
) -> Response:
    """One update on the user's case, which is started with the first; its id is derived from the caller's key."""
    operation = WithStartWorkflowOperation(
        OnboardingWorkflow.run,
        OnboardingStart(user_id, caller.account_id),
        id=onboarding_workflow_id(user_id),
        task_queue=TaskQueue.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
    )
    try:
        done: OnboardingSnapshot | None = await update(
            context.temporal.execute_update_with_start_workflow(
                method, message, start_workflow_operation=operation, id=reservation.resource_id
            ),
            context.settings.wait_seconds,
        )
    except WorkflowAlreadyStartedError:
        raise ApiError("onboarding_unexpected_state", "The user's onboarding has ended.") from None
    if done is None:
        # What was accepted is in the workflow, whose first change may not be in the rows yet.
        return JSONResponse({"object": "onboarding", "user": user_id, "status": "pending"}, 202)
    shown = _onboarding(context, caller, await _case(context, user_id)).model_dump(mode="json")
    await store_answer(context.reader, reservation, 200, shown)
    return JSONResponse(shown)


async def _closure_answer(context: ApiContext, user_id: str, reservation: Reservation) -> Response:
    """It goes on by itself, so no answer is final: a repeated request is told how the closure stands then."""
    async with context.reader.connect() as connection:
        row = await find_closure(connection, user_id)
    if row is None:
        raise unavailable("onboarding worker")
    return JSONResponse(_closure(context, row).model_dump(mode="json"))


async def _open_user(context: ApiContext, caller: Principal, user_id: str) -> None:
    """A user who may still change anything.

    Raises:
        ApiError: there is none for this caller, or the wallet is closed or about to be.
    """
    await visible_user(context, caller, user_id)
    await require_open(context, user_id)


async def _case(context: ApiContext, user_id: str) -> Row:
    async with context.reader.connect() as connection:
        row = await find_case(connection, user_id)
    if row is None:
        raise missing("onboarding", user_id)
    return row


async def _closure_row(context: ApiContext, user_id: str) -> Row:
    async with context.reader.connect() as connection:
        row = await find_closure(connection, user_id)
    if row is None:
        raise missing("closure", user_id)
    return row


async def _personal_key(context: ApiContext, user_id: str) -> PersonalKey:
    try:
        return await context.personal_keys.key_of(user_id)
    except PersonalKeyDestroyed:
        raise ApiError("user_closed", "The user is erased.") from None
    except Unavailable:
        raise unavailable("vault") from None


def _sealed(details: PersonalDetails, user_id: str, personal: PersonalKey) -> SealedDetails:
    ciphertext = seal(personal.key, to_json(details), _DETAILS, user_id, personal.key_id)
    expires_on = details.document.expires_on.isoformat() if details.document else None
    return SealedDetails(personal.key_id, base64.b64encode(ciphertext).decode(), expires_on)


def _named(operator: str | None) -> str:
    """Asked for only once it is known that there is something to look at: to anybody else it is not there."""
    if operator is None:
        raise ApiError("parameter_missing", "operator: say who looks.", "operator")
    return operator


async def _read_document(request: Request) -> tuple[DocumentKind, bytes]:
    """
    Raises:
        ApiError: the form is not acceptable.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise ApiError("content_type_unsupported", "Send the document as `multipart/form-data`.", "Content-Type")
    async with request.form(max_files=1, max_fields=2, max_part_size=1024) as parts:
        given = parts.multi_items()
        names = [name for name, _ in given]
        for name in names:
            if name not in ("file", "kind"):
                raise ApiError("parameter_unknown", f"{name}: is not a field of a document.", name)
            if names.count(name) > 1:
                raise ApiError("parameter_invalid", f"{name}: may be given once.", name)
        for name in ("file", "kind"):
            if name not in names:
                raise ApiError("parameter_missing", f"{name}: is required.", name)
        found = dict(given)
        try:
            kind = DocumentKind(str(found["kind"]))
        except ValueError:
            raise ApiError("parameter_invalid", f"kind: must be one of {', '.join(DocumentKind)}.", "kind") from None
        upload = found["file"]
        if not isinstance(upload, UploadFile):
            raise ApiError("parameter_invalid", "file: must be a file with a name.", "file")
        return kind, await upload.read()


def _recognised(content: bytes) -> str:
    try:
        return recognised(content)
    except DocumentRefused as refusal:
        raise ApiError(refusal.code, f"The file was not accepted: {refusal}.", "file") from None


def _onboarding(context: ApiContext, caller: Principal, row: Row) -> OnboardingObject:
    return OnboardingObject(
        user=row["user_id"],
        status=row["status"],
        tier=row["tier"],
        awaits_review=row["awaits_person"],
        sending_frozen=row["sending_frozen"],
        reasons=list(row["reasons"]) if caller.operator else None,
        documents=[
            OnboardingDocumentObject(
                id=document["id"],
                kind=document["kind"],
                content_type=document["content_type"],
                size_bytes=document["size_bytes"],
                created=datetime.fromisoformat(document["created_at"]),
            )
            for document in row["documents"]
        ],
        livemode=context.settings.livemode,
        created=row["created_at"],
        updated=row["updated_at"],
    )


def _closure(context: ApiContext, row: Row) -> ClosureObject:
    return ClosureObject(
        user=row["user_id"],
        status=row["status"],
        waiting_for=row["waiting_for"],
        requested=row["requested_at"],
        closed=row["closed_at"],
        erase_after=row["erase_after"],
        erased=row["erased_at"],
        destroyed_key=row["key_id"],
        livemode=context.settings.livemode,
    )
