"""The platform as real processes on the run's shared servers: API, four workers, codec server, and the two simulators.

All tests share one that a keeper owns (`shared_server("platform")`), but for those that kill processes: these have one
with servers of its own (tests/faults/kit/platform.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from temporalio.client import Client

from embedded.blueprint import Blueprint
from embedded.health import polls
from embedded.processes import LOOPBACK, ServerFailed, free_port
from embedded.servers import PythonModule
from embedded.stack import Part, Stack
from embedded.state import PORTS, StateFolder
from embedded.zones import Zone
from tests.support.shared import shared_server

SERVERS = ("postgres", "valkey", "temporal", "moto")
# How long the network worker waits for the host, and how late the card that answers late does.
ANSWER_TIMEOUT_SECONDS = 1.5
LATE_ANSWER_SECONDS = 2.5
# How long the API lets a caller wait.
WAIT_SECONDS = 5

_START_SECONDS = 60

# Started by the run's own keepers; here they are only set up.
_SHARED_PARTS = frozenset({"PostgreSQL", "Valkey", "Temporal", "SES and S3 (moto)"})


@dataclass(frozen=True, slots=True)
class Access:
    """Where everything is, and what opens it. `state` is the platform's folder: logs, secrets, journals."""

    api: str
    codec_server: str
    temporal: str
    namespace: str
    database_url: str
    redis_url: str
    simulator: str
    sandbox: str
    state: str
    simulator_token: str = field(repr=False)
    sandbox_token: str = field(repr=False)
    bank: str = ""
    bank_control_token: str = field(default="", repr=False)

    def secret(self, name: str) -> str:
        return StateFolder(Path(self.state)).secret(name)

    def log(self, zone: Zone) -> Path:
        return StateFolder(Path(self.state)).log(zone.value)


def shared_platform() -> Access:
    """The run's platform; started by the first test that asks for it."""
    _start_servers()
    return Access(**shared_server("platform"))


@asynccontextmanager
async def api_beside(platform: Access, **changes: str) -> AsyncIterator[Access]:
    """A second API of the platform, set up as the first one but for some of its `DURAPAY_API_…` settings."""
    port = free_port()
    environment = _environment(platform, "API") | {"DURAPAY_API_PORT": str(port)}
    environment |= {f"DURAPAY_API_{name}": value for name, value in changes.items()}
    with StateFolder(Path(platform.state)).log(f"api-{port}").open("wb") as log:
        program = (sys.executable, "-m", "api")
        process = await asyncio.create_subprocess_exec(*program, env=environment, stdout=log, stderr=log)
    try:
        access = replace(platform, api=f"http://{LOOPBACK}:{port}")
        await _until_healthy(access.api, process)
        yield access
    finally:
        process.terminate()
        await process.wait()


def _environment(platform: Access, process: str) -> dict[str, str]:
    """That of one of the platform's running processes."""
    running = json.loads((Path(platform.state) / "running.json").read_text())
    pairs = Path(f"/proc/{running['processes'][process]}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    return dict(pair.decode().split("=", 1) for pair in pairs)


async def _until_healthy(api: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(base_url=api, trust_env=False) as client:
        for _ in range(_START_SECONDS * 10):
            assert process.returncode is None, "the API ended while it started; see its log"
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/health")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise ServerFailed("the second API did not start")


def _start_servers() -> None:
    """All at once, and before the platform: what started last is stopped first."""
    with ThreadPoolExecutor(len(SERVERS)) as threads:
        list(threads.map(shared_server, SERVERS))


class Platform:
    """One platform. `name` is its Temporal namespace and its database, `redis_database` its index at the shared server.

    It has what a `Server` of the embedded stack has, so that a keeper can own it.
    """

    def __init__(self, name: str, folder: Path, redis_database: int) -> None:
        _start_servers()
        self._state = StateFolder(folder)
        self._state.create()
        self._blueprint = _OnSharedServers(self._state, name, redis_database)
        self._parts = {part.name: part for part in self._blueprint.parts()}
        self._log = (folder / "start.log").open("a")
        self._stack = Stack(list(self._parts.values()), self._state, Console(file=self._log, width=120))

    @property
    def access(self) -> Access:
        return self._blueprint.access()

    async def start(self) -> None:
        await self._stack.start()

    async def stop(self) -> None:
        """At once: everything that they leave behind is deleted with the run."""
        for part in self._parts.values():
            if part.server is not None and part.server.process.is_running:
                os.kill(part.server.process.pid, signal.SIGKILL)
        self._log.close()

    def addresses(self) -> dict[str, str]:
        return asdict(self.access)


class _OnSharedServers(Blueprint):
    """The embedded stack's blueprint without servers of its own, with short time-outs."""

    def __init__(self, state: StateFolder, name: str, redis_database: int) -> None:
        database = urlsplit(shared_server("postgres")["url"])
        valkey = shared_server("valkey")["url"]
        temporal = shared_server("temporal")["address"]
        moto = shared_server("moto")["endpoint"]
        shared = {"database": database.port, "temporal": int(temporal.rpartition(":")[2])}
        shared |= {"redis": urlsplit(valkey).port, "aws": urlsplit(moto).port}
        self._name = name
        # The blueprint logs in at PostgreSQL with the folder's secret.
        state.keep_secret("database_password", database.password or "")
        super().__init__(state, {port: shared.get(port) or free_port() for port in PORTS})
        self._values |= {
            "DURAPAY_DATABASE_URL": self._postgres.url(name),
            "DURAPAY_DATABASE_POOL_SIZE": "4",
            "DURAPAY_REDIS_URL": f"{valkey}/{redis_database}",
            "DURAPAY_TEMPORAL_NAMESPACE": name,
            "DURAPAY_NETWORK_ANSWER_TIMEOUT_SECONDS": str(ANSWER_TIMEOUT_SECONDS),
            "DURAPAY_SIMULATOR_LATE_ANSWER_SECONDS": str(LATE_ANSWER_SECONDS),
            "DURAPAY_API_WAIT_SECONDS": str(WAIT_SECONDS),
            # Tests say where they come from.
            "DURAPAY_API_TRUSTED_PROXIES": LOOPBACK,
        }

    def parts(self) -> list[Part]:
        return [replace(part, server=None) if part.name in _SHARED_PARTS else part for part in super().parts()]

    def access(self) -> Access:
        return Access(
            api=self.addresses.api,
            codec_server=self.addresses.codec_server,
            temporal=self.addresses.temporal,
            namespace=self._name,
            database_url=self._values["DURAPAY_DATABASE_URL"],
            redis_url=self._values["DURAPAY_REDIS_URL"],
            simulator=f"http://{LOOPBACK}:{self._ports['network_control']}",
            sandbox=self.addresses.sandbox,
            state=str(self._state.path),
            simulator_token=self._state.secret("simulator_control_token"),
            sandbox_token=self._state.secret("sandbox_control_token"),
            bank=f"http://{LOOPBACK}:{self._ports['bank']}",
            bank_control_token=self._state.secret("bank_control_token"),
        )

    async def _create_database(self) -> None:
        await self._postgres.create_database(self._name)

    def _worker(self, zone: Zone, *after: str) -> Part:
        part = super()._worker(zone, *after)
        program = part.server
        if not isinstance(program, PythonModule):
            raise ServerFailed(f"{part.name} is no program")

        async def until_it_polls() -> None:
            client = await Client.connect(self.addresses.temporal, namespace=self._name)
            await program.process.until_healthy(lambda: polls(client, zone.value, pid=program.process.pid))

        return replace(part, then=until_it_polls)
