"""The whole platform, started for a benchmark in a folder of its own and thrown away afterwards."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from config.settings import CodecSettings, TemporalSettings
from domain.ids import new_id
from embedded.blueprint import Blueprint
from embedded.processes import Process, base_environment, free_port
from embedded.stack import Stack
from embedded.state import PORTS, ROOT, StateFolder
from embedded.zones import Zone
from store.api_keys import insert_key
from store.engine import create_engine
from temporal.client import connect

# A card is blocked beyond 20 payments a minute, so the load is spread over many.
CARDS = 80
_MERCHANT = {"id": "bench", "name": "Bench", "category_code": "5814", "city": "Oslo", "country": "NO"}


@dataclass
class Platform:
    """A running platform with users and cards ready to pay."""

    blueprint: Blueprint
    engine: AsyncEngine
    temporal: Client
    http: httpx.AsyncClient
    parts: dict[str, int]
    cards: list[str] = field(default_factory=list)
    _next_card: Any = None

    def cpu_seconds(self) -> dict[str, float]:
        """What each part and its children have used so far."""
        used = {}
        for name, pid in self.parts.items():
            part = psutil.Process(pid)
            times = [process.cpu_times() for process in (part, *part.children(recursive=True))]
            used[name] = sum(each.user + each.system for each in times)
        return used

    async def prepare(self) -> None:
        gate = asyncio.Semaphore(4)

        async def add(number: int) -> str:
            async with gate:
                user = await self.post("/v1/users", {"name": f"Bench {number}"})
                card = {"user": user["id"], "number": "4242424242424242", "exp_month": 12, "exp_year": 2030}
                return str((await self.post("/v1/payment_methods/cards", card))["id"])

        self.cards = list(await asyncio.gather(*(add(number) for number in range(CARDS))))
        self._next_card = itertools.cycle(self.cards)

    async def pay(self, capture_method: str) -> str:
        """One payment through the API; its id."""
        body = {
            "amount_minor": 1050,
            "currency": "USD",
            "payment_method": next(self._next_card),
            "merchant": _MERCHANT,
            "capture_method": capture_method,
        }
        payment = await self.post("/v1/payments", body)
        if payment["status"] not in ("authorized", "captured"):
            raise RuntimeError(f"a payment of the benchmark is {payment['status']}: {payment['status_reason']}")
        return str(payment["id"])

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.http.post(path, json=body, headers={"Idempotency-Key": new_id("bench")})
        if answer.status_code != 201:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text[:300]}")
        result: dict[str, Any] = answer.json()
        return result


@asynccontextmanager
async def running(console: Console) -> AsyncIterator[Platform]:
    folder = _folder()
    state = StateFolder(folder / "state")
    state.create()
    ports = {name: free_port() for name in PORTS}
    blueprint = Blueprint(state, ports)
    parts = blueprint.parts()
    stack = Stack(parts, state, console)
    try:
        await stack.start()
        pids = {part.name: part.server.process.pid for part in parts if part.server is not None}
        async with _connected(blueprint, state, pids) as platform:
            await platform.prepare()
            yield platform
    finally:
        await stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="durapay-bench-"))
    folder.chmod(0o755)  # PostgreSQL may run as a user of its own
    return folder


@asynccontextmanager
async def _connected(blueprint: Blueprint, state: StateFolder, pids: dict[str, int]) -> AsyncIterator[Platform]:
    environment = blueprint.environment(Zone.PAYMENTS)
    engine = create_engine(blueprint.database_url, pool_size=2)
    async with engine.begin() as connection:
        key = await insert_key(connection, "bench", "client")
    keys = {name: value for name, value in environment.items() if name.startswith("DURAPAY_CODEC_")}
    settings = CodecSettings.model_validate(
        {"keys": keys["DURAPAY_CODEC_KEYS"], "active_key_id": keys["DURAPAY_CODEC_ACTIVE_KEY_ID"]}
    )
    client = await connect(TemporalSettings(address=environment["DURAPAY_TEMPORAL_ADDRESS"]), settings)
    floor = Process(
        "floor",
        [sys.executable, "-m", "benchmarks.floor"],
        log=state.log("floor"),
        env={**base_environment(), **environment},
        cwd=ROOT,
    )
    await floor.start()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=blueprint.addresses.api, headers=headers, timeout=30) as http:
        try:
            yield Platform(blueprint, engine, client, http, pids)
        finally:
            await floor.stop()
            await engine.dispose()
