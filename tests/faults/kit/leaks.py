"""I7: card numbers, device numbers and codes stand in no table, history, log, cache or answer in clear."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from sealing import PAN_PURPOSE, Unsealer
from tests.faults.kit.inspection import Finding
from tests.faults.kit.platform import FaultyPlatform
from tests.support.canaries import as_stored, check_absent, check_no_code

# Their files are looked at as they are; PostgreSQL is asked instead, and the HSM's token is encrypted.
_FILES = ("valkey", "simulator", "sandbox", "temporal")
_HISTORIES_AT_ONCE = 8
# A run of hours uses thousands of cards; to look for each of them in all that it left would take hours, too.
_MOST_NUMBERS = 60


@dataclass(slots=True)
class Canaries:
    """What the clients of a run sent in clear, and the errors that they got."""

    # Of four digits, the first a zero: no number in a database is written like that.
    cvc: str
    numbers: set[str] = field(default_factory=set)
    error_bodies: list[str] = field(default_factory=list)


async def find_leaks(platform: FaultyPlatform, engine: AsyncEngine, canaries: Canaries) -> list[Finding]:
    devices = await _device_numbers(platform, engine)
    numbers = [*sorted(canaries.numbers)[:_MOST_NUMBERS], *sorted(devices)[:_MOST_NUMBERS]]
    findings: dict[str, Finding] = {}
    async for where, content in _everything(platform, engine, canaries):
        try:
            check_absent(content, numbers, where)
            check_no_code(content.decode(errors="replace"), canaries.cvc, where)
        except AssertionError as error:
            findings.setdefault(where, Finding("I7", where, str(error)))
    return list(findings.values())


async def _everything(
    platform: FaultyPlatform, engine: AsyncEngine, canaries: Canaries
) -> AsyncIterator[tuple[str, bytes]]:
    yield "an error's body", "\n".join(canaries.error_bodies).encode()
    for log in sorted(platform.state.logs.glob("*.log")):
        yield log.name, log.read_bytes()
    for folder in _FILES:
        for file in sorted(platform.state.data(folder).rglob("*")):
            if file.is_file():
                yield f"the file {folder}/{file.name}", file.read_bytes()
    async with engine.connect() as connection:
        for table in [row.name for row in await connection.execute(_TABLES)]:
            rows = await connection.execute(text(f"SELECT entry::text AS shown FROM {table} AS entry"))
            yield table, as_stored(row.shown for row in rows)
    for name, history in await _histories(platform):
        yield name, history


async def _histories(platform: FaultyPlatform) -> Iterable[tuple[str, bytes]]:
    """All workflows' histories as Temporal keeps them: this client has no keys."""
    client = await Client.connect(platform.access.temporal)
    free = asyncio.Semaphore(_HISTORIES_AT_ONCE)

    async def fetch(workflow_id: str) -> tuple[str, bytes]:
        async with free:
            history = await client.get_workflow_handle(workflow_id).fetch_history()
            return workflow_id, b"".join(event.SerializeToString() for event in history.events)

    return await asyncio.gather(*[fetch(workflow.id) async for workflow in client.list_workflows()])


async def _device_numbers(platform: FaultyPlatform, engine: AsyncEngine) -> Sequence[str]:
    """What stands for the cards at the network; only its worker can open the boxes, and this search."""
    unsealer = Unsealer([base64.b64decode(platform.access.secret("unsealing_private_key"))])
    async with engine.connect() as connection:
        boxes = await connection.execute(_BOXES)
        return list({unsealer.open(PAN_PURPOSE, row.sealed_pan)["dpan"] for row in boxes})


_TABLES = text("""
SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
""")

_BOXES = text("""
SELECT DISTINCT ON (token_id) sealed_pan FROM network.messages WHERE kind IN ('authorize', 'sale') AND sealed_pan IS NOT
NULL
""")
