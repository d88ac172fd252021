"""The application: routes, error shape, documentation pages."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from api import wallet_page
from api.context import ApiContext
from api.device_proofs import require_device_proof
from api.errors import CATALOGUE, ApiError, unavailable, user_closed
from api.middleware import BodyLimit, RequestIds
from api.rate_limits import RateLimited, RateLimitHeaders
from api.routes import (
    api_keys,
    auth,
    bank_accounts,
    devices,
    disputes,
    onboarding,
    passkeys,
    payment_methods,
    payments,
    registration,
    settlement,
    step_up,
    users,
)
from api.schemas.common import ErrorAnswer
from api.scopes import declare
from store.closing import refused_to_closing_user

_log = logging.getLogger("durapay.api")

_DESCRIPTION = """
Card payments as durable workflows. Amounts are integers of minor units, ids carry their kind, times are RFC 3339 UTC.

Authenticate with `Authorization: Bearer …`: an API key (`sk_…`), or a session token of one user. Every POST that makes
or moves something takes an `Idempotency-Key`; sending it again does nothing twice. Errors have one shape, and every
code is explained at [`/errors`](/errors).
"""

_ERROR_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "Bad request",
        401: "Not authenticated",
        402: "Declined or blocked",
        403: "Not permitted",
        404: "Not found",
        409: "Not in this state",
        413: "Body too large",
        415: "Unsupported content type",
        422: "Invalid parameter",
        429: "Too many requests",
        503: "Try again",
    }.items()
}

# What the framework itself answers, and the limit on bodies.
_ROUTING_ERRORS = {400: "body_invalid", 404: "route_missing", 405: "method_not_allowed", 413: "body_too_large"}

Lifespan = Callable[[], AbstractAsyncContextManager[ApiContext]]


def create_app(open_context: Lifespan, max_body_bytes: int = 64 * 1024, max_upload_bytes: int = 6 * 1024**2) -> FastAPI:
    """The API on the context that `open_context` opens at start-up and closes at the end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context() as context:
            app.state.context = context
            yield

    # Its documentation page brings its own scripts: the platform loads nothing from elsewhere.
    app = FastAPIOffline(
        title="durapay",
        version="2026-11-22",
        description=_DESCRIPTION,
        lifespan=lifespan,
        responses=_ERROR_ANSWERS,
        redoc_url=None,
        dependencies=[Depends(_refuse_unknown), Depends(_refuse_nul)],
    )
    for router in (
        registration.router,
        auth.router,
        api_keys.router,
        users.router,
        onboarding.router,
        payment_methods.router,
        bank_accounts.router,
        step_up.router,
        passkeys.router,
        devices.router,
        disputes.router,
        settlement.router,
    ):
        app.include_router(router)
    # What moves money is signed by the session's device, once it has one.
    app.include_router(payments.router, dependencies=[Depends(require_device_proof)])
    declare(app)
    _document_keys(app)
    app.include_router(wallet_page.router)
    _add_pages(app)
    _add_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes, max_upload_bytes=max_upload_bytes)
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(RequestIds)
    return app


async def _refuse_unknown(request: Request) -> None:
    """A filter that is not there, or is misspelt, would quietly let everything through."""
    operation = request.app.openapi()["paths"].get(request.scope["route"].path, {}).get(request.method.lower(), {})
    known = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    for name in request.query_params:
        if name not in known:
            raise ApiError("parameter_unknown", f"{name}: is not a parameter of this operation.", name)


async def _refuse_nul(request: Request) -> None:
    """No id holds a NUL, and PostgreSQL would take a statement with one for broken."""
    if any("\0" in str(value) for value in request.path_params.values()):
        raise ApiError("resource_missing", "There is nothing under this address.")
    for name, value in request.query_params.multi_items():
        if "\0" in value:
            raise ApiError("parameter_invalid", f"{name}: must not contain the character NUL.", name)


def _document_keys(app: FastAPI) -> None:
    """Idempotency keys are shown as required. Whoever sends none gets an error of ours, not of the framework's."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for methods in described()["paths"].values():
                for operation in methods.values():
                    for parameter in operation.get("parameters", ()):
                        if parameter["name"] == "Idempotency-Key":
                            parameter["required"] = True
        return described()

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation extends it


def _add_pages(app: FastAPI) -> None:
    @app.get("/health", include_in_schema=False)
    async def health(request: Request) -> dict[str, str]:
        async with request.app.state.context.reader.connect() as connection:
            await connection.execute(text("SELECT 1"))
        return {"status": "ok"}

    @app.get("/errors", include_in_schema=False)
    async def errors() -> HTMLResponse:
        return HTMLResponse(_errors_page())


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        if isinstance(error, RateLimited):
            request.state.rate_limit = error.standing
        return _answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(request, _validation_error(request, error))

    @app.exception_handler(HTTPException)
    async def routed(request: Request, error: HTTPException) -> JSONResponse:
        code = _ROUTING_ERRORS.get(error.status_code, "internal_error")
        answer = _answer(request, ApiError(code, str(error.detail)))
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = ", ".join(_methods(app, request))
        return answer

    @app.exception_handler(IntegrityError)
    async def refused_by_the_database(request: Request, error: IntegrityError) -> JSONResponse:
        if refused_to_closing_user(error):
            return _answer(request, user_closed())
        return await fault(request, error)

    # What the database cannot do now. What it will not do at all, such as a text that is no date, is a fault of ours.
    @app.exception_handler(OperationalError)
    @app.exception_handler(InterfaceError)
    @app.exception_handler(InternalError)
    async def database_fault(request: Request, error: DBAPIError) -> JSONResponse:
        _log.error("database fault in %s: %s", request.state.request_id, type(error.orig).__name__)
        return _answer(request, unavailable("database"))

    @app.exception_handler(PoolTimeout)
    async def database_busy(request: Request, error: PoolTimeout) -> JSONResponse:
        _log.error("no database connection for %s", request.state.request_id)
        return _answer(request, unavailable("database"))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        # The stack is logged too; the log's formatter strikes out card numbers and keys that a message may quote.
        _log.error("fault in %s: %s", request.state.request_id, type(error).__name__, exc_info=error)
        return _answer(request, ApiError("internal_error", "Something went wrong on our side."))


def _methods(app: FastAPI, request: Request) -> list[str]:
    """What may be done at the request's path. (The router names the methods of one of its routes only.)"""
    path, paths = request.scope["path"], app.openapi()["paths"]
    of_its_form = (each for each in paths if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", each), path))
    operations: dict[str, Any] = paths.get(path) or next((paths[template] for template in of_its_form), {})
    return sorted(method.upper() for method in operations)


def _answer(request: Request, error: ApiError) -> JSONResponse:
    headers = {"Retry-After": str(error.retry_after_seconds)} if error.retry_after_seconds else None
    body = error.body(str(request.base_url).rstrip("/"), request.state.request_id)
    return JSONResponse(body, error.status, headers=headers)


def _validation_error(request: Request, error: RequestValidationError) -> ApiError:
    """The first thing that is wrong, named by its parameter. What the caller sent is not repeated."""
    problem = error.errors()[0]
    kind, location = str(problem["type"]), [str(part) for part in problem["loc"]]
    if kind == "json_invalid":
        return ApiError("body_invalid", "The body is not valid JSON.")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if location == ["body"] and content_type != "application/json":
        return ApiError("content_type_unsupported", "Send the body as `application/json`.", "Content-Type")
    param = problem.get("ctx", {}).get("param") or ".".join(location[1:]) or None
    code = _code_of(kind, location[-1])
    return ApiError(code, f"{param or 'The body'}: {str(problem['msg'])[:200]}.", param)


def _code_of(kind: str, field: str) -> str:
    if kind in CATALOGUE:
        return kind
    if kind == "missing":
        return "parameter_missing"
    if kind == "extra_forbidden":
        return "parameter_unknown"
    return "amount_invalid" if field == "amount_minor" else "parameter_invalid"


def _errors_page() -> str:
    rows = "".join(
        f'<tr id="{entry.code}"><td><code>{entry.code}</code></td><td>{entry.status}</td>'
        f"<td><code>{entry.type}</code></td><td>{html.escape(entry.meaning)}</td></tr>"
        for entry in CATALOGUE.values()
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>durapay: errors</title>
<style>body{{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.4rem .8rem;border-bottom:1px solid #ddd;text-align:left}}
tr:target{{background:#fff3c4}}</style>
<h1>Errors</h1><p>Every refusal has this shape: <code>{{"error": {{"type", "code", "decline_code", "message", "param",
"doc_url", "request_id"}}}}</code>. A refused request has changed nothing.</p>
<table><tr><th>code</th><th>HTTP</th><th>type</th><th>meaning</th></tr>{rows}</table></html>"""
