"""The simulator's control API: its journal for reconciliation and tests, and its faults. One bearer token opens it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from network.simulator.faults import Faults


class Controlled(Protocol):
    """What the API shows and changes."""

    faults: Faults

    async def journal(self, *rrns: str, since: datetime | None = None) -> dict[str, list[dict[str, Any]]]: ...

    def change_faults(self, changes: Faults, named: Sequence[str]) -> None: ...

    def reset_faults(self) -> None: ...


class JournalQuery(BaseModel):
    """`rrn` may be given several times. The network knows no payment ids: our own journal has a payment's RRNs."""

    model_config = ConfigDict(extra="forbid")

    rrn: list[str] = Field(default=[], max_length=100)
    since: AwareDatetime | None = None


def control_app(controlled: Controlled, token: str) -> FastAPI:
    """GET /health (open to all), GET /journal, GET, POST and DELETE /faults."""
    app = FastAPI(title="durapay network simulator", docs_url=None, redoc_url=None)

    def authorized(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "the control token is missing or wrong")

    guarded = [Depends(authorized)]

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

    return app


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the process that runs the simulator has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ControlServer:
    """Serves the API on `host:port` (0 takes a free port) in the running event loop."""

    def __init__(self, controlled: Controlled, host: str, port: int, token: str) -> None:
        config = uvicorn.Config(control_app(controlled, token), log_level="warning", access_log=False, lifespan="off")
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
