"""Owns one server of a test run until its leader ends: `python -m tests.support.keeper SERVER FOLDER LEADER_PID`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from domain.errors import DurapayError
from embedded.servers import Moto, Postgres, Temporal, Valkey
from tests.support.shared import worker_count

_DATABASES = 64
# The platform that runs as processes: its database and Temporal namespace, and its index at Redis.
_PLATFORM, _PLATFORM_DATABASE = "platform", _DATABASES - 1


class Kept(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def namespace(index: int) -> str:
    """The Temporal namespace of the run's worker `index`."""
    return f"test-{index}"


def _postgres(folder: Path) -> tuple[Kept, Callable[[], dict[str, str]]]:
    server = Postgres(folder / "data", log=folder / "postgres.log", password=secrets.token_urlsafe(16))
    return server, lambda: {"url": server.url("{database}")}


def _valkey(folder: Path) -> tuple[Kept, Callable[[], dict[str, str]]]:
    password = secrets.token_urlsafe(16)
    server = Valkey(folder / "data", log=folder / "valkey.log", password=password, databases=_DATABASES)
    return server, lambda: {"url": server.url().removesuffix("/0")}


def _temporal(folder: Path) -> tuple[Kept, Callable[[], dict[str, str]]]:
    namespaces = [*(namespace(index) for index in range(worker_count())), _PLATFORM]
    server = Temporal(folder / "temporal.db", log=folder / "temporal.log", namespaces=namespaces)
    return server, lambda: {"address": server.address}


def _moto(folder: Path) -> tuple[Kept, Callable[[], dict[str, str]]]:
    server = Moto(log=folder / "moto.log")
    return server, lambda: {"endpoint": server.endpoint}


def _platform(folder: Path) -> tuple[Kept, Callable[[], dict[str, str]]]:
    # Imported here: the other keepers need none of what it needs.
    from tests.support.platform import Platform

    platform = Platform(_PLATFORM, folder, _PLATFORM_DATABASE)
    return platform, platform.addresses


SERVERS = {"postgres": _postgres, "valkey": _valkey, "temporal": _temporal, "moto": _moto, "platform": _platform}


async def keep(name: str, run: Path, leader: int) -> None:
    """Starts the server, writes its address to FOLDER/NAME.json, and stops it when the leader ends or on SIGTERM."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    descriptor = os.pidfd_open(leader)  # readable as soon as the leader has ended
    loop.add_reader(descriptor, over.set)

    folder = run / name
    folder.mkdir(mode=0o711)
    server, address = SERVERS[name](folder)
    try:
        await server.start()
        _publish(run / f"{name}.json", address())
        await over.wait()
    except DurapayError as error:
        _publish(run / f"{name}.json", {"error": str(error)})
    finally:
        loop.remove_reader(descriptor)
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        if not _alive(leader):
            shutil.rmtree(run, ignore_errors=True)


def _publish(file: Path, content: dict[str, str]) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(content))
    draft.rename(file)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    asyncio.run(keep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
    # The Temporal SDK's threads need a moment: ending at once aborts the interpreter now and then.
    os._exit(0)
