"""What a transfer costs on our path through Python, beside pgbench doing the same statement on the same server.

Our callers are coroutines of one process, each in a closed loop, that commit transfers by `ledger.writer`, as a worker
does: they share its connections. pgbench's callers are connections, and each transfer is a transaction. Both choose the
accounts alike. Every call is durable when it returns (fsync is on). What is compared runs in turn, twice, so that both
meet the same load of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import multiprocessing
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import uvloop
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.figures import Latency, latency, write
from benchmarks.pgbench import pgbench
from domain.currency import Currency
from embedded.processes import LOOPBACK
from embedded.servers import Postgres
from ledger.errors import ExceedsCredits
from ledger.transfers import Limit, OpenAccount, Post, commit
from ledger.writer import LedgerWriter
from store.engine import create_engine
from store.migrate import migrate

_ACCOUNTS = 1_000
_BATCH = 100
_CALLERS = (1, 8, 32)
_SECONDS = 3.0
# Of each run, the beginning is not counted: caches and plans are cold.
_WARM_UP_SECONDS = 1.0
# The better one counts: whatever else the machine does makes it slower, never faster.
_ROUNDS = 2

_USD = Currency.USD
# An account that has nothing and may not owe anything.
_BROKE = "account:broke"

# ledger.transfers.apply sends the same statement. `format` costs a microsecond or two, and spares pgbench the JSON.
_SCRIPT = """
\\set debit {debit}
\\set credit (:debit + random(1, {others})) % {accounts}
\\set number random(1, 9000000000000000000)
SELECT ledger.apply('[]', format('[{{"kind": "posted", "id": "%s", "reference": "benchmark", "debit_account":
 "account:%s", "credit_account": "account:%s", "amount_minor": 100, "currency": "USD", "code": "benchmark",
 "covered": false}}]', :number::bigint, :debit::integer, :credit::integer)::jsonb);
"""

# One call, given the engine, the writer and what chooses the accounts.
Call = Callable[[AsyncEngine, LedgerWriter, random.Random], Awaitable[None]]


def _script(debit: str) -> str:
    return _SCRIPT.format(debit=debit, others=_ACCOUNTS - 1, accounts=_ACCOUNTS).replace("\n ", " ")


def _post(choose: random.Random, debit: int | None = None) -> Post:
    here = choose.randrange(_ACCOUNTS) if debit is None else debit
    there = (here + choose.randint(1, _ACCOUNTS - 1)) % _ACCOUNTS
    return Post(secrets.token_hex(12), f"account:{here}", f"account:{there}", 100, _USD, "benchmark", "benchmark")


async def _transfer(engine: AsyncEngine, writer: LedgerWriter, choose: random.Random) -> None:
    await writer.commit([_post(choose)])


async def _hot_account(engine: AsyncEngine, writer: LedgerWriter, choose: random.Random) -> None:
    """One side is always the same, as the network's receivable is of every payment."""
    await writer.commit([_post(choose, debit=0)])


async def _unshared(engine: AsyncEngine, writer: LedgerWriter, choose: random.Random) -> None:
    await commit(engine, [_post(choose)])


async def _linked(engine: AsyncEngine, writer: LedgerWriter, choose: random.Random) -> None:
    await writer.commit([_post(choose) for _ in range(_BATCH)])


async def _each(engine: AsyncEngine, writer: LedgerWriter, choose: random.Random) -> None:
    """One of them is an overdraft, and is refused alone."""
    posts = [_post(choose) for _ in range(_BATCH)]
    place = choose.randrange(_BATCH)
    broke = Post(secrets.token_hex(12), _BROKE, "account:0", 100, _USD, "benchmark", "benchmark")
    outcomes = await writer.commit_each([[post] for post in [*posts[:place], broke, *posts[place + 1 :]]])
    refused = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ExceedsCredits)]
    if refused != [place]:
        raise RuntimeError(f"of the batch were refused: {refused}, not {place} alone")


@dataclass(frozen=True, slots=True)
class _Work:
    """`transfers` are made by each call. `than` is the work whose rate it is compared with."""

    title: str
    call: Call | None = None
    script: str = ""
    transfers: int = 1
    than: str = ""


_WORK = {
    "pgbench_transfer": _Work("pgbench: a transfer", script=_script("random(0, 999)")),
    "transfer": _Work("ours: a transfer", _transfer, than="pgbench_transfer"),
    "unshared": _Work("ours: a transfer, a transaction for each", _unshared, than="pgbench_transfer"),
    "linked": _Work(f"ours: {_BATCH} linked", _linked, transfers=_BATCH, than="pgbench_transfer"),
    "each": _Work(f"ours: {_BATCH}, one overdraft refused", _each, transfers=_BATCH, than="pgbench_transfer"),
    "pgbench_hot": _Work("pgbench: one hot account", script=_script("0")),
    "hot_account": _Work("ours: one hot account", _hot_account, than="pgbench_hot"),
}


@dataclass(frozen=True, slots=True)
class _Measured:
    """`cpu_us` is PostgreSQL's own time for each transfer; it says more than the rate while the machine is busy."""

    transfers_per_second: float
    cpu_us: float
    calls: Latency


async def run(console: Console) -> dict[str, Any]:
    folder = _folder()
    server = Postgres(folder / "data", log=folder / "postgres.log", password=secrets.token_urlsafe(16))
    try:
        await server.start()
        url = server.url("postgres")
        await _prepare(url)
        figures = await asyncio.to_thread(_measure, console, psutil.Process(server.process.pid), url)
    finally:
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    console.print(_table(figures))
    console.print(f"written to {write('ledger', figures)}")
    return figures


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="durapay-benchmark-"))
    folder.chmod(0o711)  # PostgreSQL's own system user passes through it
    return folder


async def _prepare(url: str) -> None:
    await asyncio.to_thread(migrate, url)
    engine = create_engine(url, pool_size=1)
    await commit(engine, [OpenAccount(f"account:{number}", _USD, "benchmark") for number in range(_ACCOUNTS)])
    await commit(engine, [OpenAccount(_BROKE, _USD, "benchmark", Limit.DEBITS_MUST_NOT_EXCEED_CREDITS)])
    await engine.dispose()


def _measure(console: Console, server: psutil.Process, url: str) -> dict[str, dict[int, _Measured]]:
    figures: dict[str, dict[int, _Measured]] = {name: {} for name in _WORK}
    # Spawned: a fork would share the event loop of this process.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        for callers, number, (name, work) in itertools.product(_CALLERS, range(1, _ROUNDS + 1), _WORK.items()):
            count, cpu_seconds = _transfers(url), _cpu_seconds(server)
            found = process.submit(_ours, url, name, callers).result() if work.call else _pgbench(url, work, callers)
            cpu_us = (_cpu_seconds(server) - cpu_seconds) * 1e6 / (_transfers(url) - count)
            per_second = round(found.per_second * work.transfers, 1)
            console.print(
                f"{callers} callers, round {number} of {_ROUNDS}: {work.title}: {per_second:,.0f} transfers/s"
            )
            before = figures[name].get(callers)
            if before is None or per_second > before.transfers_per_second:
                figures[name][callers] = _Measured(per_second, round(cpu_us, 1), found)
    return figures


def _transfers(url: str) -> int:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT count(*) FROM ledger.transfers").fetchone()
    assert row is not None
    return int(row[0])


def _cpu_seconds(server: psutil.Process) -> float:
    """What PostgreSQL has used so far: its first process, those that have ended, and those that run.

    What a connection's process has used is counted with the first one's only when that has noticed its end.
    """
    give_up_at = time.monotonic() + 2.0
    while time.monotonic() < give_up_at and any(
        f"{LOOPBACK}(" in " ".join(_command(process)) for process in server.children()
    ):
        time.sleep(0.05)
    first = server.cpu_times()
    used = first.user + first.system + first.children_user + first.children_system
    for process in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def _command(process: psutil.Process) -> list[str]:
    """Empty for one that has ended, but also for one that nobody has noticed the end of: that is no connection."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def _pgbench(url: str, work: _Work, callers: int) -> Latency:
    return pgbench(url, work.script, clients=callers, seconds=_SECONDS, warm_up_seconds=_WARM_UP_SECONDS)


def _ours(url: str, name: str, callers: int) -> Latency:
    """All callers at once, in this process."""
    call = _WORK[name].call
    assert call is not None

    async def loops() -> list[float]:
        # As many connections as callers; only those who share transactions need fewer.
        engine = create_engine(url, pool_size=callers)
        bound = functools.partial(call, engine, LedgerWriter(engine))
        found = await asyncio.gather(*(_loop(bound) for _ in range(callers)))
        await asyncio.sleep(0.2)  # the writer lets go of its connection
        await engine.dispose()
        return [taken for each in found for taken in each]

    return latency(callers, uvloop.run(loops()), _SECONDS)


async def _loop(call: Callable[[random.Random], Awaitable[None]]) -> list[float]:
    """The seconds of each call that this caller made in the time that counts."""
    choose = random.Random(secrets.randbits(64))
    found: list[float] = []
    counted_from = time.perf_counter() + _WARM_UP_SECONDS
    while (started := time.perf_counter()) < counted_from + _SECONDS:
        await call(choose)
        if started >= counted_from:
            found.append(time.perf_counter() - started)
    return found


def _table(figures: dict[str, dict[int, _Measured]]) -> Table:
    table = Table(title=f"ledger: durable transfers over {_ACCOUNTS:,} accounts")
    for column in ("work", "callers", "transfers/s", "of pgbench's", "p50 ms", "p99 ms", "PostgreSQL's CPU, µs"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for name, work in _WORK.items():
        for callers, found in figures[name].items():
            compared = figures[work.than][callers].transfers_per_second if work.than else None
            table.add_row(
                work.title if callers == _CALLERS[0] else "",
                str(callers),
                f"{found.transfers_per_second:,.0f}",
                f"{found.transfers_per_second / compared:.2f}" if compared else "",
                f"{found.calls.p50_ms:.2f}",
                f"{found.calls.p99_ms:.2f}",
                f"{found.cpu_us:.0f}",
            )
        table.add_section()
    return table
