"""Child processes that never outlive their parent, and the checks that tell a started server from a stranger's.

Linux only: it leans on `setpriv` (util-linux) and on `/proc`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from domain.errors import DurapayError

LOOPBACK = "127.0.0.1"
_TAIL_LINES = 15
_FREE_PORTS = (20_000, 32_000)
_LISTEN = "0A"
# What `free_port` gave away is nobody else's, although its server may not listen yet.
_claims: list[socket.socket] = []


class ServerFailed(DurapayError):
    """A process did not start, was not healthy in time, or ended by itself. The message has its last log lines."""


class PortTaken(DurapayError):
    """Somebody else listens on a port that was asked for."""

    def __init__(self, port: int, name: str, hint: str = "") -> None:
        super().__init__(f"port {port}, wanted for {name}, is taken by another process{hint}")
        self.port = port


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses, and nobody else is given while this process lives.

    It is below the range from which Linux takes the ports of outgoing connections (ip_local_port_range, from 32768 on):
    one of those could have it when the server starts.
    """
    candidates = iter(lambda: random.randrange(*_FREE_PORTS), None)
    return next(port for port in candidates if _claimed(port) and port_is_free(port))


def _claimed(port: int) -> bool:
    """Claims `port` for this process, by an abstract socket of that name (unix(7)): it ends with the process."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0durapay-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of an earlier run in TIME_WAIT do not count; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def listens(pid: int, port: int) -> bool:
    """Whether process `pid`, and no other, is the one that listens on `port`."""
    inodes = _listening_inodes(port)
    if not inodes:
        return False
    wanted = {f"socket:[{inode}]" for inode in inodes}
    # The process, or one of its files, may be gone by now.
    with contextlib.suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if str(descriptor.readlink()) in wanted:
                    return True
    return False


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of `log`, or a word that there are none."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        text = []
    return "\n".join(text) if text else "(the log is empty)"


def base_environment() -> dict[str, str]:
    """What every process may know: where programs are, and the language. No `DURAPAY_…` variable is among it."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in names if name in os.environ}


class Process:
    """One child process in a session of its own: Ctrl-C reaches the parent alone, which stops it in order.

    When the parent dies, however it dies, the kernel sends the child `death_signal`. The parent is the *thread* that
    called `start`, so that must be one that lives as long as the program (in an asyncio program it is).
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        privileges: Sequence[str] = (),
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """`privileges` are further options of setpriv(1), e.g. the user to run as."""
        self.name = name
        self.log = log
        self._argv = ["setpriv", "--pdeathsig", death_signal.name[3:], *privileges, "--", *map(str, argv)]
        self._env = dict(env) if env is not None else base_environment()
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Raises ServerFailed before `start`."""
        if self._process is None:
            raise ServerFailed(f"{self.name} was not started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    async def wait(self) -> int:
        """Its exit code, when it ends; a signal's number, negated, if one ended it."""
        if self._process is None:
            raise ServerFailed(f"{self.name} was not started")
        return await self._process.wait()

    async def until_healthy(self, check: Callable[[], Awaitable[bool]], timeout_seconds: float = 60) -> None:
        """Returns when `check` is true.

        Raises:
            ServerFailed: the process ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_seconds
        pause = 0.02
        while True:
            if not self.is_running:
                raise ServerFailed(f"{self.name} ended with code {self.returncode}; its log says:\n{tail(self.log)}")
            if await check():
                return
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.name} was not healthy within {timeout_seconds:.0f} s; its log says:\n{tail(self.log)}"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, 0.25)

    async def stop(self, grace_seconds: float = 10) -> None:
        """Asks it to end, and kills it and what it started when the grace is over. Nothing happens if it has ended."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self._stop_signal)
        try:
            await asyncio.wait_for(process.wait(), grace_seconds)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
