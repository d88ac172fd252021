"""PostgreSQL loses connections, commits without saying so, dies, is full, or waits for a lock. No money moves twice."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil
import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.client import Client

from embedded.zones import Zone
from temporal.codec import EncryptionCodec
from temporal.converter import data_converter
from tests.faults.kit.cases import Kit, spoiled
from tests.faults.kit.platform import POOL_SIZE, POSTGRES
from tests.faults.kit.proxy import Direction, Fault, Stream
from tests.faults.kit.wire import statement_about, when_committed
from tests.support.shop import Wallet, new_key, until
from workflows.messages import RetryRequest

pytestmark = pytest.mark.timeout(180)

# What a refusal may cost a caller. A pool that is used up would be waited for five seconds.
FAST_SECONDS = 4.0
# PostgreSQL's own files of its log are this large; a lower limit would stop those too.
_LARGEST_FILE_BYTES = 16 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", autouse=True)
async def locked_out(kit: Kit) -> AsyncIterator[asyncio.Task[None]]:
    """A capture waits for a lock until it gives up, and then for an operator. It takes its time beside other cases."""
    task = asyncio.create_task(_lock_out(kit))
    yield task
    task.cancel()


async def _lock_out(kit: Kit) -> None:
    wallet = await kit.shop.wallet()
    payment = await kit.shop.authorized(wallet.card_id, kit.amount())
    kit.platform.aside.add(payment["id"])
    path, key = f"/v1/payments/{payment['id']}/capture", new_key()
    parked = f"NeedsAttention = 'ledger.record' AND WorkflowId = 'payment/{payment['id']}'"
    async with _locked(kit, f"SELECT FROM platform.payments WHERE id = '{payment['id']}' FOR UPDATE"):
        waiting = await kit.shop.post(path, key=key)
        assert (waiting.status_code, waiting.json()["status"]) == (202, "authorized")
        # Neither its attempts nor their waiting for the lock go on for ever.
        await until(lambda: _count(kit, parked), lambda count: count == 1)
    keys = EncryptionCodec({"k1": base64.b64decode(kit.platform.access.secret("codec_key"))}, "k1")
    operator = await Client.connect(kit.platform.access.temporal, data_converter=data_converter(keys))
    await operator.get_workflow_handle(f"payment/{payment['id']}").execute_update(
        "retry", RetryRequest("olivia", "ledger.record")
    )
    captured = await kit.shop.post(path, key=key)
    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    assert await kit.events(payment["id"]) == ["payment.created", "payment.authorized", "payment.captured"]
    await until(lambda: _count(kit, parked), lambda count: count == 0)
    kit.platform.aside.discard(payment["id"])


# ----------------------------------------------------------------------------------------------------- lost connections


async def _lose(answers: Stream, answer: bytes) -> None:
    """The statement is committed, and its connection is reset instead of saying so."""
    answers.reset()


@pytest.mark.parametrize(
    ("zone", "statement"),
    [*((Zone.PAYMENTS, statement) for statement in range(3)), *((Zone.NETWORK, statement) for statement in range(4))],
)
async def test_a_commit_whose_answer_was_lost_is_found_by_the_retry(
    zone: Zone, statement: int, kit: Kit, wallet: Wallet
) -> None:
    """The opening, the authorization, the capture; and every step of the network's journal on its way."""
    key, amount = new_key(), kit.amount()
    payment_id = kit.shop.payment_id(key)
    lost = Fault(
        "an answer to COMMIT", Direction.TO_SERVER, statement_about(payment_id), when_committed(_lose), skip=statement
    )
    with spoiled(kit.platform.database[zone], lost):
        await kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual")
        payment = await kit.decided(payment_id)
        assert payment["status"] == "authorized"
        capture_key = new_key()
        path = f"/v1/payments/{payment_id}/capture"
        captured = await kit.shop.post(path, key=capture_key)
        if captured.status_code == 202:
            captured = await kit.shop.post(path, key=capture_key)
        assert (captured.status_code, captured.json()["amount_captured_minor"]) == (200, amount)
        await kit.until_received(payment_id, "0220")
        await lost.once.wait()
    assert await kit.events(payment_id) == ["payment.created", "payment.authorized", "payment.captured"]
    assert (await kit.decided(payment_id))["status"] == "captured"


async def test_a_transfer_whose_connection_is_terminated_is_rolled_back_and_made_once(kit: Kit, wallet: Wallet) -> None:
    to_capture = await kit.shop.authorized(wallet.card_id, kit.amount())
    key, amount, capture_key = new_key(), kit.amount(), new_key()
    async with _locked(kit, "SELECT FROM ledger.accounts WHERE code = 'network_receivable' FOR UPDATE"):
        asking = [
            asyncio.create_task(kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual")),
            asyncio.create_task(kit.shop.post(f"/v1/payments/{to_capture['id']}/capture", key=capture_key)),
        ]
        await until(lambda: _waiting_for_locks(kit), lambda count: count >= len(asking))
        async with kit.database.connect() as connection:
            await connection.execute(_TERMINATE, {"zones": list(kit.platform.database)})
    await asyncio.gather(*asking)
    payment = await kit.decided(kit.shop.payment_id(key))
    assert payment["status"] == "authorized"
    await kit.same_answer(wallet, amount, key, payment)
    again = await kit.shop.post(f"/v1/payments/{to_capture['id']}/capture", key=capture_key)
    assert (again.status_code, again.json()["status"]) == (200, "captured")
    assert await kit.events(to_capture["id"]) == ["payment.created", "payment.authorized", "payment.captured"]


async def test_a_payment_that_waits_for_a_lock_in_vain_shows_it_and_goes_on_when_it_is_told_to(
    locked_out: asyncio.Task[None],
) -> None:
    await locked_out


# ---------------------------------------------------------------------------------------------------------------- crash


async def test_what_was_answered_survives_a_crash_of_postgresql_and_all_go_on_without_a_restart(
    kit: Kit, wallet: Wallet
) -> None:
    answered = await kit.shop.authorized(wallet.card_id, kit.amount())
    under_way, amount = new_key(), kit.amount()
    running = {name: kit.platform.process(name).pid for name in kit.platform.programs}
    await kit.network.set_faults(delay_seconds=1.0)
    asking = asyncio.create_task(kit.shop.pay(wallet.card_id, amount, key=under_way, capture_method="manual"))
    await kit.until_received(kit.shop.payment_id(under_way), "0100")
    # What `pg_ctl stop -m immediate` sends: every backend ends at once, and the next start recovers from the log.
    await kit.platform.kill(POSTGRES, by=signal.SIGQUIT)
    await kit.network.clear_faults()
    refused_key, refused_amount = new_key(), kit.amount()
    refused = await kit.shop.pay(wallet.card_id, refused_amount, key=refused_key, capture_method="manual")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    await kit.platform.start_again(POSTGRES)
    await kit.database.dispose()
    await asyncio.gather(asking, return_exceptions=True)

    payment = await kit.decided(kit.shop.payment_id(under_way))
    # If the answer found no journal for too long it was a doubt, and reversed.
    assert payment["status"] in ("authorized", "voided")
    await kit.same_answer(wallet, amount, under_way, payment)
    assert (await kit.find(answered["id"]))["status"] == "authorized"
    again = await kit.shop.pay(wallet.card_id, refused_amount, key=refused_key, capture_method="manual")
    assert again.status_code == 201, again.text
    assert {name: kit.platform.process(name).pid for name in running} == running
    assert all(kit.platform.is_running(name) for name in running)


# ----------------------------------------------------------------------------------------------------------------- full


@asynccontextmanager
async def _out_of_connections(kit: Kit) -> AsyncIterator[None]:
    """Every connection that PostgreSQL has is somebody else's."""
    taken: list[psycopg.AsyncConnection[tuple[object, ...]]] = []
    url = kit.platform.access.database_url.replace("+psycopg", "")

    async def take_all() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                taken.append(await psycopg.AsyncConnection.connect(url, autocommit=True))

    try:
        await take_all()
        while await _backends(taken[0], kit):
            await take_all()
        yield
    finally:
        for connection in taken:
            await connection.close()


async def _backends(connection: psycopg.AsyncConnection[tuple[object, ...]], kit: Kit) -> int:
    """How many connections the API has; they are ended."""
    cursor = await connection.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s", (Zone.API.value,)
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(str(row[0]))


@asynccontextmanager
async def _out_of_disk(kit: Kit) -> AsyncIterator[None]:
    """The table of idempotency keys can take no row more: its file has reached the largest that a file may be."""
    try:
        await _limit_files(kit, f"{_LARGEST_FILE_BYTES}:")
        async with _autocommit(kit) as connection:
            # What earlier rows left free becomes known to all, and is filled until not even one short row fits.
            await connection.execute(_LEAVE_ALONE)
            await connection.execute(_VACUUM)
            for rows, length in ((2000, 2000), (100, 2000), (100, 1), (1, 1)):
                with contextlib.suppress(DBAPIError):
                    while True:
                        await connection.execute(_FILL, {"rows": rows, "length": length})
            # A connection that wrote there before may have a page of its own with some room.
            await connection.execute(_TERMINATE, {"zones": [Zone.API]})
        await until(lambda: kit.shop.http.get("/v1/payments"), lambda answer: answer.status_code == 200)
        yield
    finally:
        await _limit_files(kit, "unlimited:")
        async with _autocommit(kit) as connection:
            await connection.execute(text("DELETE FROM platform.idempotency_keys WHERE principal = 'filler'"))
            await connection.execute(_VACUUM)


def _autocommit(kit: Kit) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
    return kit.database.execution_options(isolation_level="AUTOCOMMIT").connect()


async def _limit_files(kit: Kit, limit: str) -> None:
    """How large PostgreSQL's files may be from now on: the soft limit, as prlimit(1) takes it."""
    server = psutil.Process(kit.platform.process(POSTGRES).pid)
    # Only its own user may do this, not even a container's root.
    own = ("--reuid", str(server.uids().real), "--regid", str(server.gids().real), "--clear-groups")
    program = ["setpriv", *(own if os.geteuid() == 0 else ()), "--", "prlimit", f"--fsize={limit}"]
    for process in (server, *server.children(recursive=True)):
        limiting = await asyncio.create_subprocess_exec(*program, "--pid", str(process.pid))
        # A backend may have ended meanwhile; the postmaster, of which the next ones inherit it, has not.
        assert await limiting.wait() == 0 or process.pid != server.pid


Fullness = Callable[[Kit], "contextlib.AbstractAsyncContextManager[None]"]


@pytest.mark.parametrize("full", [_out_of_connections, _out_of_disk])
async def test_a_full_database_is_a_fast_503_and_nothing_is_left_of_it(
    full: Fullness, kit: Kit, wallet: Wallet
) -> None:
    asked = {new_key(): kit.amount() for _ in range(8)}
    async with full(kit):
        started = time.monotonic()
        refused = await asyncio.gather(
            *(kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual") for key, amount in asked.items())
        )
        assert time.monotonic() - started < FAST_SECONDS
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    # No connection was lost to the pool, or it would not serve twice as many callers as it has connections.
    again = await asyncio.gather(
        *(kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual") for key, amount in asked.items())
    )
    for answer in again:
        assert answer.status_code == 201, answer.text
        assert await kit.messages(answer.json()["id"]) == ["0100"]
    # Nor is one left over that the pool does not know of.
    assert await _connections(kit, Zone.API) <= POOL_SIZE
    await kit.books_are_right()


async def _count(kit: Kit, query: str) -> int:
    return (await kit.temporal.count_workflows(query)).count


@asynccontextmanager
async def _locked(kit: Kit, statement: str) -> AsyncIterator[None]:
    """A session holds the row locks that `statement` takes."""
    async with kit.database.connect() as connection:
        await connection.execute(text(statement))
        yield
        await connection.rollback()


async def _connections(kit: Kit, zone: Zone) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :zone"
    async with kit.database.connect() as connection:
        return int(await connection.scalar(text(query), {"zone": zone.value}) or 0)


async def _waiting_for_locks(kit: Kit) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'payments'"
    async with kit.database.connect() as connection:
        return int(await connection.scalar(text(query)) or 0)


_TERMINATE = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(:zones)")

# No vacuum but ours: it would find room in the middle of the case.
_LEAVE_ALONE = text("ALTER TABLE platform.idempotency_keys SET (autovacuum_enabled = off)")

_VACUUM = text("VACUUM platform.idempotency_keys")

_FILL = text("""
INSERT INTO platform.idempotency_keys (principal, key, request_hash, resource_id)
SELECT 'filler', gen_random_uuid()::text, sha256(''), repeat('x', :length)
FROM generate_series(1, CAST(:rows AS integer))
""")
