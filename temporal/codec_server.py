"""`python -m temporal.codec_server`: lets operators read payloads in the Temporal UI, and writes down that they did.

The UI sends what it wants decoded to this server, with the cookie of a login by an operator's API key; a command line
sends the key itself as a bearer token. Only the UI's own origin may call from a browser. Each decode is recorded with
the operator's key, the namespace and the workflows concerned before anything is answered (table
`platform.decode_audit`, append-only).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from google.protobuf import json_format
from google.protobuf.json_format import ParseError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.middleware.cors import CORSMiddleware
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import WorkflowSerializationContext

from config.logs import configure_logging
from config.settings import CodecServerSettings, CodecSettings, DatabaseSettings
from store.api_keys import find_owner
from store.engine import create_engine
from temporal.client import codec
from temporal.codec import ENCODING, CodecError, EncryptionCodec

_COOKIE = "durapay_codec"
_SESSION_SECONDS = 8 * 3600
_STYLE = """<style>body{font:16px/1.5 system-ui;max-width:34rem;margin:4rem auto;padding:0 1rem}
input,button{font:inherit;padding:.4rem .6rem;width:100%;box-sizing:border-box;margin:.3rem 0}
code{background:#eee;padding:0 .3rem}</style>"""
_LOGIN_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>durapay: read payloads</title>'
    + _STYLE.replace("{", "{{").replace("}", "}}")
    + """<h1>Read payloads</h1><p>{message}</p>
<form method="post" action="/login"><label>Operator's API key
<input type="password" name="key" autocomplete="off" required autofocus></label><button>Sign in</button></form>
<p>Every payload that is decoded is recorded with your key's id.</p></html>"""
)
_SIGNED_IN_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>durapay: signed in</title>'
    + _STYLE.replace("{", "{{").replace("}", "}}")
    + """<h1>Signed in for eight hours</h1>
<p>Once for each browser, tell the Temporal UI to send this sign-in along:</p>
<ol><li>Open the <a href="{ui}">Temporal UI</a> and press the glasses at the top right.</li>
<li>Choose <em>Use my browser setting</em>, enter <code>{server}</code> and switch on
<em>Include cross-origin credentials</em>.</li>
<li>Apply. Inputs, results and details now show in clear.</li></ol></html>"""
)


class Sessions:
    """Logins of this process: a random value in a cookie, good for a working day."""

    def __init__(self) -> None:
        self._operators: dict[str, tuple[str, float]] = {}

    def open(self, operator: str) -> str:
        session = secrets.token_urlsafe(32)
        self._operators[session] = (operator, time.monotonic() + _SESSION_SECONDS)
        return session

    def operator(self, session: str | None) -> str | None:
        operator, ends = self._operators.get(session or "", (None, 0.0))
        return operator if time.monotonic() < ends else None


def create_app(engine: AsyncEngine, payload_codec: EncryptionCodec, ui_origin: str) -> FastAPI:
    sessions = Sessions()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(title="durapay codec server", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[ui_origin],
        allow_methods=["POST"],
        allow_headers=["content-type", "x-namespace", "authorization"],
        allow_credentials=True,
    )

    async def operator_of(request: Request) -> str:
        origin = request.headers.get("origin")
        if origin is not None and origin != ui_origin:
            raise HTTPException(403, "this origin may not read payloads")
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            operator = await _operator(engine, key)
        else:
            operator = sessions.operator(request.cookies.get(_COOKIE))
        if operator is None:
            raise HTTPException(401, "sign in with an operator's API key")
        return operator

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/")
    async def login_page() -> HTMLResponse:
        return HTMLResponse(_LOGIN_PAGE.format(message="Sign in, and the Temporal UI shows payloads in clear."))

    @app.post("/login")
    async def login(request: Request) -> Response:
        form = parse_qs((await request.body()).decode(errors="replace"))
        operator = await _operator(engine, form.get("key", [""])[0])
        if operator is None:
            return HTMLResponse(_LOGIN_PAGE.format(message="That is not an operator's key."), 401)
        answer = HTMLResponse(_SIGNED_IN_PAGE.format(ui=ui_origin, server=str(request.base_url).rstrip("/")))
        answer.set_cookie(_COOKIE, sessions.open(operator), max_age=_SESSION_SECONDS, httponly=True, samesite="strict")
        return answer

    @app.post("/decode")
    async def decode(request: Request) -> Response:
        operator = await operator_of(request)
        payloads = await _payloads(request)
        await _record(engine, operator, request.headers.get("x-namespace", ""), payloads)
        try:
            return _answer([await _readable(payload_codec, payload) for payload in payloads])
        except CodecError as error:
            raise HTTPException(422, str(error)) from error

    @app.post("/encode")
    async def encode(request: Request) -> Response:
        """What an operator types into the UI (an update's input, say) is encrypted before it reaches Temporal."""
        await operator_of(request)
        # The UI does not say which workflow it is for, so the payload is bound to the namespace alone.
        context = WorkflowSerializationContext(namespace=request.headers.get("x-namespace", ""), workflow_id="")
        return _answer(await payload_codec.with_context(context).encode(await _payloads(request)))

    return app


async def _operator(engine: AsyncEngine, key: str) -> str | None:
    async with engine.connect() as connection:
        owner = await find_owner(connection, key)
    return owner.key_id if owner is not None and owner.role == "operator" else None


async def _payloads(request: Request) -> Sequence[Payload]:
    try:
        return json_format.Parse(await request.body(), Payloads()).payloads
    except (ParseError, UnicodeDecodeError, RecursionError):
        raise HTTPException(400, "the body is not a list of payloads") from None


async def _readable(payload_codec: EncryptionCodec, payload: Payload) -> Payload:
    # What Temporal itself writes in clear (search attributes, the marker data of local activities) comes along with
    # the rest. A worker refuses such a payload; a person may see it as it is.
    if payload.metadata.get("encoding") != ENCODING:
        return payload
    return (await payload_codec.decode([payload]))[0]


def _answer(payloads: Sequence[Payload]) -> Response:
    return Response(json_format.MessageToJson(Payloads(payloads=payloads)), media_type="application/json")


async def _record(engine: AsyncEngine, operator: str, namespace: str, payloads: Sequence[Payload]) -> None:
    workflows = sorted({payload.metadata.get("workflow-id", b"").decode(errors="replace") for payload in payloads})
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO platform.decode_audit (key_id, namespace, workflow_ids, payloads)"
                " VALUES (:key_id, :namespace, CAST(:workflow_ids AS jsonb), :payloads)"
            ),
            {
                "key_id": operator,
                "namespace": namespace,
                "workflow_ids": json.dumps(workflows),
                "payloads": len(payloads),
            },
        )


def main() -> None:
    configure_logging()
    settings = CodecServerSettings()
    engine = create_engine(DatabaseSettings().url.get_secret_value(), pool_size=2)
    app = create_app(engine, codec(CodecSettings()), settings.ui_origin)
    uvicorn.run(app, host=settings.host, port=settings.port, access_log=False, log_config=None)


if __name__ == "__main__":
    main()
