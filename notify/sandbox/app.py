"""The sandbox's web application: the vendors' endpoints, the page for people, and the control endpoints for tests."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from notify.sandbox import fcm, twilio
from notify.sandbox.faults import Fault, Faults
from notify.sandbox.mailbox import Mailbox
from notify.sandbox.settings import SandboxSettings
from notify.sandbox.store import Store
from notify.sandbox.wire import BodyTooLarge

_PAGE = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
).get_template("page.html.j2")

# An e-mail is shown in a frame without scripts, forms or network; its styles are inline.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Channel = Annotated[str | None, Query(pattern="^(sms|push|email)?$")]


def create_app(settings: SandboxSettings) -> FastAPI:
    store = Store(settings.state)
    faults = Faults()
    mailbox = Mailbox(settings.ses_endpoint, store)
    account = fcm.ServiceAccount(json.loads(settings.fcm_service_account_file.read_text()))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await mailbox.close()
        store.close()

    app = FastAPI(title="Durapay message sandbox", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    auth_token = settings.twilio_auth_token.get_secret_value()
    app.include_router(twilio.router(store, faults, settings.twilio_account_sid, auth_token))
    app.include_router(fcm.router(store, faults, account))
    _add_views(app, store, faults, mailbox)
    _add_controls(app, store, faults, settings.control_token.get_secret_value())

    @app.exception_handler(BodyTooLarge)
    async def too_large(_: Request, __: BodyTooLarge) -> Response:
        return Response(status_code=413)

    return app


def _add_views(app: FastAPI, store: Store, faults: Faults, mailbox: Mailbox) -> None:
    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/")
    async def page(to: str = "", channel: Channel = None) -> Response:
        mail_answers = await mailbox.fetch()
        shown = _PAGE.render(
            messages=store.newest(to=to or None, channel=channel or None),
            faults=faults.pending(),
            to=to,
            channel=channel,
            mail_answers=mail_answers,
        )
        return HTMLResponse(shown, headers=_PAGE_HEADERS)

    @app.get("/page.js")
    async def script() -> Response:
        return Response(_SCRIPT, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    @app.get("/messages")
    async def list_messages(
        to: str | None = None, channel: Channel = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> dict[str, object]:
        """Newest first. An e-mail appears here only while moto answers or once it was seen."""
        await mailbox.fetch()
        messages = store.newest(to=to, channel=channel or None, limit=limit)
        return {"object": "list", "data": [message.as_json() for message in messages]}


def _add_controls(app: FastAPI, store: Store, faults: Faults, control_token: str) -> None:
    async def controller(request: Request) -> None:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {control_token}".encode()):
            raise HTTPException(401, "the control token is needed", {"WWW-Authenticate": "Bearer"})

    controlled = [Depends(controller)]

    @app.delete("/messages", dependencies=controlled)
    async def delete_messages() -> dict[str, int]:
        return {"deleted": store.delete_all()}

    @app.get("/faults", dependencies=controlled)
    async def list_faults() -> list[Fault]:
        return faults.pending()

    @app.post("/faults", dependencies=controlled, status_code=201)
    async def order_fault(fault: Fault) -> Response:
        faults.order(fault)
        return JSONResponse(fault.model_dump(mode="json"), status_code=201)

    @app.delete("/faults", dependencies=controlled, status_code=204)
    async def clear_faults() -> None:
        faults.clear()


_SCRIPT = (Path(__file__).parent / "page.js").read_text("utf-8")
