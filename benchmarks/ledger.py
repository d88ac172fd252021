"""What a transfer costs: chains applied in one round trip each, beside a bare UPDATE and INSERT on the same server.

The callers are connections of two processes of their own, each in a closed loop; every call is a durable transaction
(fsync is on). The floor updates one row of a thousand and inserts another, in one statement too.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Latency, latency, write
from embedded.servers import Postgres
from store.migrate import migrate

_ACCOUNTS = 1_000
_CALLERS = (1, 8, 32)
_SECONDS = 2.5
# Of each caller's calls, the first are not counted: caches and plans are cold.
_WARM_UP_SECONDS = 0.3
_PROCESSES = 2

# A statement and what it is given.
Call = tuple[str, tuple[Any, ...]]

_FLOOR_TABLES = f"""
CREATE TABLE floor_balance (id integer PRIMARY KEY, amount bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO floor_balance SELECT id, 0 FROM generate_series(1, {_ACCOUNTS}) AS id;
CREATE TABLE floor_entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, balance integer, amount bigint);
"""
_FLOOR = (
    "WITH moved AS (UPDATE floor_balance SET amount = amount + 1 WHERE id = %s RETURNING id)"
    " INSERT INTO floor_entry (balance, amount) SELECT id, 1 FROM moved"
)
_APPLY = "SELECT ledger.apply('[]', %s::jsonb)"


def _floor(choose: random.Random) -> Call:
    return _FLOOR, (choose.randint(1, _ACCOUNTS),)


def _transfer(choose: random.Random) -> Call:
    debit, credit = choose.sample(range(_ACCOUNTS), 2)
    return _apply((debit, credit))


def _chain_of_two(choose: random.Random) -> Call:
    debit, middle, credit = choose.sample(range(_ACCOUNTS), 3)
    return _apply((debit, middle), (middle, credit))


def _hot_account(choose: random.Random) -> Call:
    """One side is always the same, as the network's receivable is of every payment."""
    return _apply((0, choose.randint(1, _ACCOUNTS - 1)))


def _apply(*sides: tuple[int, int]) -> Call:
    chain = [
        {
            "id": secrets.token_hex(12),
            "kind": "posted",
            "debit_account": f"account:{debit}",
            "credit_account": f"account:{credit}",
            "amount_minor": 100,
            "currency": "USD",
            "code": "benchmark",
            "reference": "benchmark",
        }
        for debit, credit in sides
    ]
    return _APPLY, (json.dumps(chain),)


# Name → the call, and how many transfers it makes.
_WORK: dict[str, tuple[Callable[[random.Random], Call], int]] = {
    "floor": (_floor, 1),
    "transfer": (_transfer, 1),
    "chain_of_two": (_chain_of_two, 2),
    "hot_account": (_hot_account, 1),
}


async def run(console: Console) -> dict[str, Any]:
    folder = _folder()
    server = Postgres(folder / "data", log=folder / "postgres.log", password=secrets.token_urlsafe(16))
    try:
        await server.start()
        figures = await asyncio.to_thread(_measure, console, server.url("postgres"))
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


def _measure(console: Console, url: str) -> dict[str, Any]:
    migrate(url)
    address = url.replace("+psycopg", "")
    _prepare(address)
    figures: dict[str, Any] = {"transfers_per_call": {name: transfers for name, (_, transfers) in _WORK.items()}}
    # Spawned: a fork would share the event loop of this process.
    with ProcessPoolExecutor(_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as processes:
        for name in _WORK:
            console.print(f"{name}: {', '.join(map(str, _CALLERS))} callers")
            figures[name] = {callers: _callers(processes, address, name, callers) for callers in _CALLERS}
    return figures


def _prepare(address: str) -> None:
    opens = [{"id": f"account:{number}", "currency": "USD", "code": "benchmark"} for number in range(_ACCOUNTS)]
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("SELECT ledger.apply(%s::jsonb, '[]')", (json.dumps(opens),))
        connection.execute(_FLOOR_TABLES)


def _callers(processes: ProcessPoolExecutor, address: str, name: str, callers: int) -> Latency:
    """All callers at once, spread over the processes."""
    shares = [callers // _PROCESSES + (number < callers % _PROCESSES) for number in range(_PROCESSES)]
    begins_at = time.time() + 0.5
    running = [
        processes.submit(_process, address, name, share, begins_at, seed) for seed, share in enumerate(shares) if share
    ]
    seconds = [taken for each in running for taken in each.result()]
    return latency(callers, seconds, _SECONDS)


def _process(address: str, name: str, callers: int, begins_at: float, seed: int) -> list[float]:
    """The seconds of each call that these callers made in the time that counts."""

    async def loops() -> list[float]:
        found = await asyncio.gather(
            *(_loop(address, name, begins_at, seed * 1_000 + caller) for caller in range(callers))
        )
        return [taken for each in found for taken in each]

    return asyncio.run(loops())


async def _loop(address: str, name: str, begins_at: float, seed: int) -> list[float]:
    make, _ = _WORK[name]
    choose = random.Random(seed)
    found: list[float] = []
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        await asyncio.sleep(max(0.0, begins_at - time.time()))
        counted_from = time.perf_counter() + _WARM_UP_SECONDS
        while (started := time.perf_counter()) < counted_from + _SECONDS:
            statement, parameters = make(choose)
            await connection.execute(statement, parameters, prepare=True)
            if started >= counted_from:
                found.append(time.perf_counter() - started)
    return found


def _table(figures: dict[str, Any]) -> Table:
    table = Table(title="ledger: durable transactions of one round trip")
    for column in ("work", "callers", "transfers/s", "p50 ms", "p99 ms", "calls/s of the floor's"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for name, (_, transfers) in _WORK.items():
        for callers, found in figures[name].items():
            floor: Latency = figures["floor"][callers]
            shown = asdict(found)
            table.add_row(
                name.replace("_", " "),
                str(callers),
                "" if name == "floor" else f"{found.per_second * transfers:,.0f}",
                f"{shown['p50_ms']:.2f}",
                f"{shown['p99_ms']:.2f}",
                f"{found.per_second:,.0f} / {floor.per_second:,.0f}",
            )
    return table
