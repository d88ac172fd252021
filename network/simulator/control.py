"""The simulator's control API: its journal, clearing files, disputes and faults. A bearer token opens it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, Any, Final, Protocol

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, params
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from network.simulator.clearing import Break
from network.simulator.disputes import Decision, Dispute, Escalation, Outcome
from network.simulator.errors import Refused
from network.simulator.faults import Faults

_CHUNK_BYTES: Final = 64 * 1024


class Controlled(Protocol):
    """What the API shows and changes."""

    faults: Faults

    async def journal(self, *rrns: str, since: datetime | None = None) -> dict[str, list[dict[str, Any]]]: ...

    async def clearing_file(self, day: date) -> bytes: ...

    async def close_day(self, day: date) -> date: ...

    async def breaks(self, day: date) -> list[Break]: ...

    async def script_break(self, day: date, wanted: Break) -> None: ...

    async def forget_breaks(self, day: date) -> None: ...

    async def disputes(self) -> list[dict[str, Any]]: ...

    async def raise_dispute(self, wanted: Dispute) -> str: ...

    async def escalate_dispute(self, chargeback_id: str, wanted: Escalation) -> None: ...

    async def decide_dispute(self, chargeback_id: str, outcome: Outcome) -> None: ...

    def change_faults(self, changes: Faults, named: Sequence[str]) -> None: ...

    def reset_faults(self) -> None: ...


class JournalQuery(BaseModel):
    """`rrn` may be given several times. The network knows no payment ids: our own journal has a payment's RRNs."""

    model_config = ConfigDict(extra="forbid")

    rrn: list[str] = Field(default=[], max_length=100)
    since: AwareDatetime | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """`control` opens everything, `clearing` (if there is one) the clearing files alone."""

    control: str = field(repr=False)
    clearing: str = field(default="", repr=False)

    def guard(self, *, clearing: bool = False) -> params.Depends:
        """A dependency that refuses whoever shows none of the right tokens."""
        accepted = [self.control, *([self.clearing] if clearing and self.clearing else [])]

        def authorized(authorization: Annotated[str, Header()] = "") -> None:
            shown = authorization.encode()
            if not any(hmac.compare_digest(shown, f"Bearer {token}".encode()) for token in accepted):
                raise HTTPException(401, "the token is missing or wrong")

        guard: params.Depends = Depends(authorized)
        return guard


def control_app(controlled: Controlled, tokens: Tokens) -> FastAPI:
    """GET /health (open to all), GET /journal; GET, POST and DELETE /faults; clearing; disputes."""
    app = FastAPI(title="durapay network simulator", docs_url=None, redoc_url=None)
    guarded = [tokens.guard()]

    @app.exception_handler(Refused)
    async def refused(_: Request, refusal: Refused) -> JSONResponse:
        return JSONResponse({"reason": refusal.reason, "detail": str(refusal)}, refusal.status)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/journal", dependencies=guarded)
    async def journal(query: Annotated[JournalQuery, Query()]) -> dict[str, list[dict[str, Any]]]:
        return await controlled.journal(*query.rrn, since=query.since)

    @app.get("/faults", dependencies=guarded)
    async def faults() -> Faults:
        return controlled.faults

    @app.post("/faults", dependencies=guarded)
    async def change_faults(changes: Faults) -> Faults:
        controlled.change_faults(changes, sorted(changes.model_fields_set))
        return controlled.faults

    @app.delete("/faults", dependencies=guarded)
    async def reset_faults() -> Faults:
        controlled.reset_faults()
        return controlled.faults

    _add_clearing(app, controlled, tokens)
    _add_disputes(app, controlled, tokens)
    return app


def _add_clearing(app: FastAPI, controlled: Controlled, tokens: Tokens) -> None:
    """GET /clearing/{day}, POST /clearing/{day}/close; GET, POST and DELETE /clearing/{day}/breaks."""
    guarded = [tokens.guard()]

    @app.get("/clearing/{day}", dependencies=[tokens.guard(clearing=True)])
    async def clearing_file(day: date) -> StreamingResponse:
        content = await controlled.clearing_file(day)
        chunks = (content[start : start + _CHUNK_BYTES] for start in range(0, len(content), _CHUNK_BYTES))
        return StreamingResponse(chunks, media_type="application/octet-stream")

    @app.post("/clearing/{day}/close", dependencies=guarded)
    async def close_day(day: date) -> dict[str, date]:
        return {"closed": day, "open": await controlled.close_day(day)}

    @app.get("/clearing/{day}/breaks", dependencies=guarded)
    async def breaks(day: date) -> list[Break]:
        return await controlled.breaks(day)

    @app.post("/clearing/{day}/breaks", dependencies=guarded)
    async def script_break(day: date, wanted: Break) -> list[Break]:
        await controlled.script_break(day, wanted)
        return await controlled.breaks(day)

    @app.delete("/clearing/{day}/breaks", dependencies=guarded)
    async def forget_breaks(day: date) -> list[Break]:
        await controlled.forget_breaks(day)
        return await controlled.breaks(day)


def _add_disputes(app: FastAPI, controlled: Controlled, tokens: Tokens) -> None:
    """GET and POST /chargebacks, POST /chargebacks/{id}/escalate, POST /chargebacks/{id}/decision."""
    guarded = [tokens.guard()]

    @app.get("/chargebacks", dependencies=guarded)
    async def disputes() -> list[dict[str, Any]]:
        return await controlled.disputes()

    @app.post("/chargebacks", dependencies=guarded, status_code=201)
    async def raise_dispute(wanted: Dispute) -> dict[str, str]:
        return {"chargeback_id": await controlled.raise_dispute(wanted)}

    @app.post("/chargebacks/{chargeback_id}/escalate", dependencies=guarded, status_code=204)
    async def escalate(chargeback_id: str, wanted: Escalation) -> None:
        await controlled.escalate_dispute(chargeback_id, wanted)

    @app.post("/chargebacks/{chargeback_id}/decision", dependencies=guarded, status_code=204)
    async def decide(chargeback_id: str, wanted: Decision) -> None:
        await controlled.decide_dispute(chargeback_id, wanted.outcome)


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the process that runs the simulator has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ControlServer:
    """Serves the API on `host:port` (0 takes a free port) in the running event loop."""

    def __init__(self, controlled: Controlled, host: str, port: int, tokens: Tokens) -> None:
        config = uvicorn.Config(control_app(controlled, tokens), log_level="warning", access_log=False, lifespan="off")
        self._server = _Server(config)
        self._address = (host, port)
        self._serving: asyncio.Task[None] | None = None
        self.port = port

    async def start(self) -> None:
        listening = socket.create_server(self._address)
        self.port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="simulator-control")

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
