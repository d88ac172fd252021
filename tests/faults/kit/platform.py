"""The whole embedded platform as processes of its own, with a faulty proxy on each link that matters.

Every process reaches PostgreSQL and Temporal through a proxy of its own zone, and the network worker the card network,
so that one process can be cut off while the others go on. The kit itself looks at the servers directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from config.crash_points import CRASH_AT, CRASH_KIT, KIT_FILE, marker
from config.settings import DatabaseSettings, TemporalSettings
from embedded.blueprint import DATABASE, Blueprint
from embedded.processes import LOOPBACK, Process, ServerFailed, free_port
from embedded.servers import Postgres, Server
from embedded.stack import Part, Stack
from embedded.state import PORTS, StateFolder
from embedded.zones import SETTINGS, Zone, environment
from tests.faults.kit.proxy import Proxy
from tests.faults.kit.wire import PostgresCutter, iso8583
from tests.support.platform import Access

# How long the network worker waits for the host, and how late the card that answers late does.
ANSWER_TIMEOUT_SECONDS = 1.5
LATE_ANSWER_SECONDS = 3.0
# How long the API lets a caller wait.
WAIT_SECONDS = 5
POOL_SIZE = 4
# All that PostgreSQL takes: few, so that a case can use them up.
CONNECTIONS = 60

WORKERS: Mapping[Zone, str] = {
    Zone.PAYMENTS: "payments worker",
    Zone.VAULT: "vault worker",
    Zone.NETWORK: "network worker",
    Zone.NOTIFY: "notify worker",
    Zone.BANK: "bank worker",
}
API = "API"
POSTGRES, VALKEY, TEMPORAL, SIMULATOR = "PostgreSQL", "Valkey", "Temporal", "network simulator"
BANK_SIMULATOR = "bank simulator"
# Whoever reaches both, does so through proxies.
_DETOURED = [zone for zone, settings in SETTINGS.items() if {DatabaseSettings, TemporalSettings} <= {*settings}]
_CRASH_SECONDS = 30


class FaultyPlatform:
    """Starts, kills, stops and restarts the parts; nothing is restarted by itself, so that an outage lasts as long as
    a case says."""

    def __init__(self, folder: Path) -> None:
        self.state = StateFolder(folder)
        self.state.create()
        (folder / KIT_FILE).write_text(str(os.getpid()))
        ports = {name: free_port() for name in PORTS}
        self.database = {
            zone: Proxy(f"{zone} → database", free_port(), ports["database"], PostgresCutter) for zone in _DETOURED
        }
        self.temporal = {zone: Proxy(f"{zone} → Temporal", free_port(), ports["temporal"]) for zone in _DETOURED}
        self.network = Proxy("network → card network", free_port(), ports["network"], iso8583)
        self._blueprint = _Detoured(self.state, ports, self)
        self._parts = {part.name: part for part in self._blueprint.parts()}
        # What runs under each name now: the part itself, or one with armed crash points.
        self._running = dict(self._parts)
        self._log = (folder / "start.log").open("a")
        self._stack = Stack(list(self._parts.values()), self.state, Console(file=self._log, width=120))
        self._stopped: set[str] = set()
        self._clock = folder / "clock"
        # The payments that cases have under way beside other cases.
        self.aside: set[str] = set()

    @property
    def access(self) -> Access:
        return self._blueprint.access()

    @property
    def proxies(self) -> list[Proxy]:
        return [*self.database.values(), *self.temporal.values(), self.network]

    @property
    def names(self) -> list[str]:
        """Everything that runs as a process."""
        return [name for name, part in self._parts.items() if part.server is not None]

    @property
    def programs(self) -> tuple[str, ...]:
        """The platform's own: workers and API."""
        return (*(name for name in self.names if name.endswith(" worker")), API)

    async def start(self) -> None:
        for proxy in self.proxies:
            await proxy.start()
        await self._stack.start()

    async def end(self) -> None:
        """At once: nobody needs what they leave behind."""
        for name in self.names:
            if self.is_running(name):
                os.kill(self.process(name).pid, signal.SIGKILL)
        for proxy in self.proxies:
            await proxy.stop()
        self._log.close()

    # ------------------------------------------------------------------------------------------------------- processes

    def process(self, name: str) -> Process:
        return self._server(name).process

    def is_running(self, name: str) -> bool:
        return self.process(name).is_running

    async def kill(self, *names: str, by: signal.Signals = signal.SIGKILL) -> None:
        """`kill -9`, unless `by` says otherwise. Returns when the processes are gone."""
        for name in names:
            os.kill(self.process(name).pid, by)
        for name in names:
            await self.process(name).wait()

    async def start_again(self, *names: str) -> None:
        """Starts what was killed. Returns when it works."""
        self._running |= {name: self._parts[name] for name in names}
        await asyncio.gather(*(_start(self._parts[name]) for name in names))

    def stop(self, name: str) -> None:
        """SIGSTOP: the process does nothing, and everybody else sees a peer that is silent."""
        os.kill(self.process(name).pid, signal.SIGSTOP)
        self._stopped.add(name)

    def resume(self, name: str) -> None:
        if name in self._stopped:
            self._stopped.discard(name)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process(name).pid, signal.SIGCONT)

    @asynccontextmanager
    async def stopped(self, name: str) -> AsyncIterator[None]:
        self.stop(name)
        try:
            yield
        finally:
            self.resume(name)

    async def heal(self) -> None:
        """Everything runs, nothing is stopped, no proxy spoils anything."""
        for proxy in self.proxies:
            proxy.heal()
        for name in list(self._stopped):
            self.resume(name)
        down = [name for name in self.names if not self.is_running(name)]
        # What the others need first.
        for group in ([POSTGRES, VALKEY, TEMPORAL, SIMULATOR], down):
            await self.start_again(*(name for name in group if name in down and not self.is_running(name)))

    # ----------------------------------------------------------------------------------------------------------- clock

    async def wind(self, *names: str) -> None:
        """Restarts programs with a clock that `set_clock` can move. What measures spans of time is left alone, as the
        kernel leaves it alone when an operator or a bad time server sets the date."""
        self.set_clock(0)
        faked = {
            "LD_PRELOAD": str(_faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await self.kill(*(name for name in names if self.is_running(name)))
        self._running |= {name: self._blueprint.another(name, faked) for name in names}
        await asyncio.gather(*(_start(self._running[name]) for name in names))

    def set_clock(self, days: int) -> None:
        """From now on it is so many days later for the programs that were wound. At once: they look at each call."""
        draft = self._clock.with_suffix(".draft")
        draft.write_text(f"{days * 86_400:+d}\n")
        draft.rename(self._clock)  # never half written

    # ---------------------------------------------------------------------------------------------------- crash points

    async def arm(self, name: str, *places: str) -> None:
        """Restarts a program so that it kills itself at the first of `places` to which it comes, each once."""
        for place in places:
            self._marker(place).unlink(missing_ok=True)
        if self.is_running(name):
            await self.kill(name)
        crash = {CRASH_AT: ",".join(places), CRASH_KIT: str(self.state.path)}
        self._running[name] = self._blueprint.another(name, crash)
        try:
            await _start(self._running[name])
        except ServerFailed:
            # What waited for it may have brought it to the place before it was seen to be up.
            if not any(self._marker(place).exists() for place in places):
                raise

    async def until_crashed(self, name: str, place: str, seconds: float = _CRASH_SECONDS) -> None:
        """Returns when the program has died at `place`. `start_again` starts it without crash points."""
        async with asyncio.timeout(seconds):
            code = await self.process(name).wait()
        assert (code, self._marker(place).exists()) == (-signal.SIGKILL, True), f"{name} ended elsewhere, with {code}"

    def _marker(self, place: str) -> Path:
        return marker(self.state.path, place.partition("@")[0])

    def _server(self, name: str) -> Server:
        return _server(self._running[name])


class _Detoured(Blueprint):
    """The embedded stack's blueprint with the proxies in its links, short time-outs and a small database."""

    def __init__(self, state: StateFolder, ports: Mapping[str, int], platform: FaultyPlatform) -> None:
        super().__init__(state, ports)
        self._postgres = Postgres(
            state.data("postgres"),
            log=state.log("postgres"),
            password=state.secret("database_password"),
            port=ports["database"],
            connections=CONNECTIONS,
        )
        self._more: Mapping[str, str] = {}
        self._values |= {
            "DURAPAY_DATABASE_POOL_SIZE": str(POOL_SIZE),
            "DURAPAY_NETWORK_PORT": str(platform.network.port),
            "DURAPAY_NETWORK_ANSWER_TIMEOUT_SECONDS": str(ANSWER_TIMEOUT_SECONDS),
            "DURAPAY_SIMULATOR_LATE_ANSWER_SECONDS": str(LATE_ANSWER_SECONDS),
            "DURAPAY_API_WAIT_SECONDS": str(WAIT_SECONDS),
        }
        direct = f":{ports['database']}/{DATABASE}"
        self._detours = {
            zone: {
                # Its name shows in pg_stat_activity.
                "DURAPAY_DATABASE_URL": self.database_url.replace(direct, f":{proxy.port}/{DATABASE}")
                + f"?sslmode=disable&application_name={zone}",
                "DURAPAY_TEMPORAL_ADDRESS": f"{LOOPBACK}:{platform.temporal[zone].port}",
            }
            for zone, proxy in platform.database.items()
        }

    def environment(self, zone: Zone) -> dict[str, str]:
        return environment(zone, self._values | self._detours.get(zone, {})) | dict(self._more)

    def another(self, name: str, more: Mapping[str, str]) -> Part:
        """A part like `name` in a process of its own, with `more` in its environment."""
        self._more = more
        try:
            return next(part for part in self.parts() if part.name == name)
        finally:
            self._more = {}

    def access(self) -> Access:
        return Access(
            api=self.addresses.api,
            codec_server=self.addresses.codec_server,
            temporal=self.addresses.temporal,
            namespace="default",
            database_url=self.database_url,
            redis_url=self._values["DURAPAY_REDIS_URL"],
            simulator=f"http://{LOOPBACK}:{self._ports['network_control']}",
            sandbox=self.addresses.sandbox,
            state=str(self._state.path),
            simulator_token=self._state.secret("simulator_control_token"),
            sandbox_token=self._state.secret("sandbox_control_token"),
            bank=f"http://{LOOPBACK}:{self._ports['bank']}",
            bank_control_token=self._state.secret("bank_control_token"),
        )


def _faketime() -> Path:
    """libfaketime, for programs with threads. It comes from the system's packages."""
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    assert found is not None, "libfaketime is not installed; run: apt-get install -y libfaketime"
    return found


def _server(part: Part) -> Server:
    assert part.server is not None, f"{part.name} is no server"
    return part.server


async def _start(part: Part) -> None:
    await _server(part).start()
    if part.then is not None:
        await part.then()
