"""Child processes end with their parent, and a stack brings back what dies, within reason."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from rich.console import Console

from embedded.processes import Process, ServerFailed, free_port, listens, port_is_free
from embedded.servers import PythonModule, Valkey
from embedded.stack import Part, Stack
from embedded.state import ROOT, StateFolder

_SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
_WAIT_SECONDS = 60


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


@pytest_asyncio.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    server = Valkey(tmp_path / "valkey", log=tmp_path / "valkey.log", password="for-this-test")
    yield server
    await server.stop()


async def test_a_child_dies_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib\n"
        "from embedded.processes import Process\n"
        "async def main():\n"
        f"    child = Process('child', {_SLEEP!r}, log=pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "    await child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    watched = os.pidfd_open(child)
    parent.kill()
    await parent.wait()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(watched, ended.set)
    await asyncio.wait_for(ended.wait(), _WAIT_SECONDS)
    asyncio.get_running_loop().remove_reader(watched)
    os.close(watched)


async def test_a_process_that_ends_early_shows_its_last_words(tmp_path: Path) -> None:
    process = Process("oracle", [sys.executable, "-c", "raise SystemExit('no such key')"], log=tmp_path / "log")

    async def never() -> bool:
        return False

    await process.start()
    with pytest.raises(ServerFailed, match=r"oracle ended with code 1(.|\n)*no such key"):
        await process.until_healthy(never)


async def test_a_process_gets_the_given_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURAPAY_HSM_PIN", "not for everyone")
    show = [sys.executable, "-c", "import os; print(sorted(os.environ))"]
    process = Process("child", show, log=tmp_path / "log")
    await process.start()
    assert await process.wait() == 0
    assert "DURAPAY" not in (tmp_path / "log").read_text()


def test_a_free_port_is_given_to_one_process_until_it_ends() -> None:
    program = "from embedded.processes import free_port; print(*(free_port() for _ in range(50)), flush=True); input()"
    others = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    given = [free_port() for _ in range(50)]
    for other in others:
        assert other.stdout is not None
        given += map(int, other.stdout.readline().split())
    assert len(given) == len(set(given)) == 200
    for other in others:
        other.communicate("")


async def test_a_port_belongs_to_the_process_that_listens_there() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
        assert not port_is_free(port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), free_port())


async def test_a_server_that_was_killed_comes_back_on_its_port(valkey: Valkey, state: StateFolder) -> None:
    restarted = asyncio.Event()
    starts: list[int] = []

    async def then() -> None:
        starts.append(valkey.process.pid)
        if len(starts) == 2:
            restarted.set()

    output = io.StringIO()
    stack = Stack([Part("Valkey", valkey, then=then)], state, Console(file=output, width=120))
    with state.held():
        await stack.start()
        url = valkey.url()
        supervision = asyncio.create_task(stack.supervise())
        os.kill(starts[0], signal.SIGKILL)
        await asyncio.wait_for(restarted.wait(), _WAIT_SECONDS)
        assert valkey.url() == url
        assert "Valkey was killed by SIGKILL; starting it again" in output.getvalue()
        supervision.cancel()
        await stack.stop()
    assert not valkey.process.is_running


async def test_a_part_that_keeps_ending_stops_the_stack_with_its_log(state: StateFolder, tmp_path: Path) -> None:
    # `timeit` runs for a moment and ends with 0: alive when the stack looks, gone right after.
    program = PythonModule("blinker", "timeit", "-n1", "-r1", "pass", log=tmp_path / "log", env={})
    stack = Stack([Part("blinker", program)], state, Console(file=io.StringIO()))
    await stack.start()
    with pytest.raises(ServerFailed, match=r"blinker ended 6 times within 60 s(.|\n)*loop"):
        await asyncio.wait_for(stack.supervise(), _WAIT_SECONDS)
    await stack.stop()


async def test_parts_wait_for_what_they_need_and_a_failure_names_its_cause(state: StateFolder) -> None:
    order: list[str] = []

    async def first() -> None:
        order.append("first")

    async def second() -> None:
        order.append("second")
        raise ServerFailed("second has had enough")

    async def third() -> None:
        order.append("third")

    parts = [
        Part("third", after=("second",), then=third),
        Part("second", after=("first",), then=second),
        Part("first", then=first),
    ]
    stack = Stack(parts, state, Console(file=io.StringIO()))
    with pytest.raises(ServerFailed, match="second has had enough"):
        await stack.start()
    await stack.stop()
    assert order == ["first", "second"]
