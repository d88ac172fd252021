"""The simulated bank's HTTP API. One token opens the originator's side, another the control side."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response, params
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from bank.simulator.store import Bank, Refused, Store

_T = TypeVar("_T")


class Faults(BaseModel):
    """What goes wrong from now on. The first three count down with each file that is handed over."""

    model_config = ConfigDict(extra="forbid")

    lose_answers: int = Field(default=0, ge=0)
    """Files that are taken and answered by a proxy's error."""
    lose_requests: int = Field(default=0, ge=0)
    """Files that never arrive, answered by a proxy's error."""
    repeat_requests: int = Field(default=0, ge=0)
    """Files that arrive twice."""
    down: bool = False
    """Nothing but the control side answers."""
    slow_seconds: float = Field(default=0, ge=0, le=60)


class ClockBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    now: AwareDatetime


class ReturnBody(BaseModel):
    """Entries to come back today: one by its trace number, or all of the file."""

    model_config = ConfigDict(extra="forbid")

    file_id: str
    trace: int | None = None
    reason_code: str = Field(pattern=r"^R[0-9]{2}$")


@dataclass(frozen=True, slots=True)
class Config:
    """`port` 0 takes a free one."""

    journal_file: Path
    token: str = field(repr=False)
    control_token: str = field(repr=False)
    bank: Bank
    host: str = "127.0.0.1"
    port: int = 0
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class BankSimulator:
    """Serves from `start()` to `stop()`; also an async context manager. Faults are this object's; the books stay."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.faults = Faults()
        # SQLite blocks; one thread also makes the bank decide one thing at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bank")
        self._store: Store | None = None
        self._server = _Server(
            uvicorn.Config(_app(self, config), log_level="warning", access_log=False, lifespan="off")
        )
        self._serving: asyncio.Task[None] | None = None
        self.port = config.port

    @property
    def url(self) -> str:
        return f"http://{self._config.host}:{self.port}"

    async def start(self) -> None:
        config = self._config
        loop = asyncio.get_running_loop()
        self._store = await loop.run_in_executor(self._thread, Store, config.journal_file, config.bank, config.clock)
        listening = socket.create_server((config.host, config.port))
        self.port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="bank-simulator")

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        if self._store is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def ask(self, work: Callable[[Store], _T]) -> _T:
        store = self._store
        assert store is not None, "the bank was not started"
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(store))


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the process that runs the simulator has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _guard(token: str) -> params.Depends:
    def authorized(authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "the token is missing or wrong")

    guard: params.Depends = Depends(authorized)
    return guard


def _app(bank: BankSimulator, config: Config) -> FastAPI:
    app = FastAPI(title="durapay bank simulator", docs_url=None, redoc_url=None)

    @app.exception_handler(Refused)
    async def refused(_: Request, refusal: Refused) -> JSONResponse:
        return JSONResponse({"reason": refusal.reason, "detail": str(refusal)}, refusal.status)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    _add_files(app, bank, _guard(config.token))
    _add_control(app, bank, _guard(config.control_token))
    return app


def _add_files(app: FastAPI, bank: BankSimulator, guard: params.Depends) -> None:
    """PUT and GET /files/{id}, GET /returns, GET /returns/{sequence}, GET /statement/{day}."""

    async def reachable() -> None:
        await asyncio.sleep(bank.faults.slow_seconds)
        if bank.faults.down:
            raise HTTPException(503, "closed")

    guarded = [guard, Depends(reachable)]

    @app.put("/files/{file_id}", dependencies=guarded)
    async def take(file_id: str, request: Request, file_digest: Annotated[str, Header()]) -> Response:
        content = await request.body()
        if bank.faults.lose_requests:
            bank.faults.lose_requests -= 1
            return PlainTextResponse("bad gateway", 502)
        if bank.faults.repeat_requests:
            bank.faults.repeat_requests -= 1
            await bank.ask(lambda store: store.take(file_id, file_digest, content))
        report = await bank.ask(lambda store: store.take(file_id, file_digest, content))
        if bank.faults.lose_answers:
            bank.faults.lose_answers -= 1
            return PlainTextResponse("bad gateway", 502)
        return JSONResponse(report, 422 if report["status"] == "refused" else 201)

    @app.get("/files/{file_id}", dependencies=guarded)
    async def report(file_id: str) -> dict[str, Any]:
        return await bank.ask(lambda store: store.report(file_id))

    @app.get("/returns", dependencies=guarded)
    async def returns(after: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        return {"data": await bank.ask(lambda store: store.return_files(after))}

    @app.get("/returns/{sequence}", dependencies=guarded)
    async def return_file(sequence: int) -> PlainTextResponse:
        return PlainTextResponse(await bank.ask(lambda store: store.return_file(sequence)))

    @app.get("/statement/{day}", dependencies=guarded)
    async def statement(day: date) -> dict[str, Any]:
        return await bank.ask(lambda store: store.statement(day))


def _add_control(app: FastAPI, bank: BankSimulator, guard: params.Depends) -> None:
    """GET /control/journal, POST /control/returns; GET and POST /control/clock; GET, POST, DELETE /control/faults."""
    guarded = [guard]

    @app.get("/control/journal", dependencies=guarded)
    async def journal() -> dict[str, list[dict[str, Any]]]:
        return await bank.ask(lambda store: store.journal())

    @app.get("/control/clock", dependencies=guarded)
    async def clock() -> dict[str, datetime]:
        return {"now": await bank.ask(lambda store: store.now())}

    @app.post("/control/clock", dependencies=guarded)
    async def put_clock(body: ClockBody) -> dict[str, datetime]:
        return {"now": await bank.ask(lambda store: store.put_clock(body.now))}

    @app.post("/control/returns", dependencies=guarded, status_code=204)
    async def script_return(body: ReturnBody) -> None:
        await bank.ask(lambda store: store.script_return(body.file_id, body.trace, body.reason_code))

    @app.get("/control/faults", dependencies=guarded)
    async def faults() -> Faults:
        return bank.faults

    @app.post("/control/faults", dependencies=guarded)
    async def change_faults(changes: Faults) -> Faults:
        bank.faults = bank.faults.model_copy(update=changes.model_dump(exclude_unset=True))
        return bank.faults

    @app.delete("/control/faults", dependencies=guarded)
    async def reset_faults() -> Faults:
        bank.faults = Faults()
        return bank.faults
