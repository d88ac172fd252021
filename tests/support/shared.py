"""One server of each kind per test run, started by whoever needs it first and used by every worker of the run.

A *keeper* process (tests/support/keeper.py) owns each server. It watches the process that leads the run, and when that
ends, in whatever way, it stops the server and deletes its data. So neither Ctrl-C nor `kill -9` leaves anything behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_FOLDER_VARIABLE = "DURAPAY_TEST_RUN"
_LEADER_VARIABLE = "DURAPAY_TEST_LEADER"
_START_SECONDS = 90
_STOP_SECONDS = 30


class SharedServerFailed(Exception):
    """A server of the run did not start; the message has its last log lines."""


def open_run() -> None:
    """Makes this process the leader of a new run; the workers that it starts inherit it."""
    folder = Path(tempfile.mkdtemp(prefix="durapay-test-"))
    folder.chmod(0o711)  # PostgreSQL's own system user passes through it
    os.environ[_FOLDER_VARIABLE] = str(folder)
    os.environ[_LEADER_VARIABLE] = str(os.getpid())


def close_run() -> None:
    """Stops every server of the run, the latest first, and deletes its folder."""
    folder = run_folder()
    for file in sorted(folder.glob("*.keeper"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        # The keeper that a gone leader left may have ended already.
        with contextlib.suppress(ProcessLookupError):
            _end(int(file.read_text()))
    shutil.rmtree(folder, ignore_errors=True)


def run_folder() -> Path:
    return Path(os.environ[_FOLDER_VARIABLE])


def worker_index() -> int:
    """0, 1, … for the workers of a parallel run; 0 in a serial one."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def worker_count() -> int:
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def shared_server(name: str) -> dict[str, str]:
    """How to reach the run's server `name` (a key of keeper.SERVERS); started if it is not running yet.

    Raises:
        SharedServerFailed: it did not start.
    """
    address = run_folder() / f"{name}.json"
    with exclusively(name):
        if not address.exists():
            _start_keeper(name, address)
    answer: dict[str, str] = json.loads(address.read_text())
    if "error" in answer:
        raise SharedServerFailed(answer["error"])
    return answer


@contextlib.contextmanager
def exclusively(name: str) -> Iterator[None]:
    """One process of the run at a time."""
    with (run_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start_keeper(name: str, address: Path) -> None:
    log = run_folder() / f"{name}.keeper.log"
    with log.open("ab") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.support.keeper", name, str(run_folder()), os.environ[_LEADER_VARIABLE]],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    (run_folder() / f"{name}.keeper").write_text(str(keeper.pid))
    deadline = time.monotonic() + _START_SECONDS
    while not address.exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise SharedServerFailed(f"the keeper of {name} failed: {log.read_text()}")
        time.sleep(0.02)
    # It outlives this process on purpose, so nobody here waits for it.
    keeper.returncode = 0


def _end(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    readable, _, _ = select.select([descriptor], [], [], _STOP_SECONDS)
    if not readable:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os.close(descriptor)
