"""Fixtures on real servers. Each is started once per run, by the first test that asks for it (tests/support/shared.py).

A parallel worker has a database, a Redis index, an HSM token and a Temporal namespace of its own. The schema is
migrated afresh in each run, so a changed migration needs nothing but another run.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import psycopg
import psycopg.sql
import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from hypothesis import HealthCheck, settings
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from xdist.scheduler import LoadFileScheduling

from embedded.servers import binary
from embedded.softhsm import HsmToken, create_token
from store.engine import create_engine
from store.migrate import migrate
from temporal import search_attributes
from temporal.codec import EncryptionCodec
from temporal.converter import data_converter
from tests.support.keeper import namespace
from tests.support.shared import close_run, exclusively, open_run, run_folder, shared_server, worker_index

if TYPE_CHECKING:
    from tests.support.platform import Access

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_TEMPLATE = "durapay_template"
_CODEC = EncryptionCodec({"test": secrets.token_bytes(32)}, "test")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        open_run()


class _FaultsTogether(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A file goes to one process, and the tests with faults to two: their cases share a platform of their own, whose
    start costs more than most of them, and the two that last for minutes another one. Both come first: they wait more
    than they work, and nobody should wait for them in the end."""

    _LONG = ("test_network_outage.py", "test_proxy.py", "test_seeded_run.py")

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        if not file.startswith("tests/faults/"):
            return file
        return "tests/faults, long" if file.endswith(self._LONG) else "tests/faults"

    def _assign_work_unit(self, node: object) -> None:
        for scope in ("tests/faults", "tests/faults, long"):
            if scope in self.workqueue:
                self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    return _FaultsTogether(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        close_run()
    if "temporalio.bridge.runtime" in sys.modules:
        # The SDK's threads need a moment: ending at once aborts the interpreter now and then.
        time.sleep(0.5)


@pytest.fixture(scope="session")
def empty_database_url() -> str:
    """A database of this worker's own in which no migration ran."""
    return _database(f"empty_{worker_index()}", template="template1")


@pytest.fixture
def scratch(empty_database_url: str) -> Iterator[str]:
    """A database of this test's own, in which no migration ran."""
    name = f"scratch_{secrets.token_hex(4)}"
    with psycopg.connect(empty_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        yield empty_database_url.rpartition("/")[0] + f"/{name}"
        connection.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(name)))


@pytest.fixture(scope="session")
def database_url() -> str:
    """`postgresql+psycopg://…`: a migrated database of this worker's own."""
    url = shared_server("postgres")["url"]
    with exclusively("template"):
        migrated = run_folder() / "template.migrated"
        if not migrated.exists():
            migrate(_database(_TEMPLATE, template="template1"))
            migrated.touch()
        _database(f"test_{worker_index()}", template=_TEMPLATE)
    return url.format(database=f"test_{worker_index()}")


def _database(name: str, *, template: str) -> str:
    url = shared_server("postgres")["url"]
    maintenance = url.format(database="postgres").replace("+psycopg", "")
    with psycopg.connect(maintenance, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            identifiers = (psycopg.sql.Identifier(name), psycopg.sql.Identifier(template))
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))
    return url.format(database=name)


@pytest_asyncio.fixture(scope="session")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The platform's engine on this worker's database. What a test writes stays: tests use ids of their own."""
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def redis_url() -> str:
    return f"{shared_server('valkey')['url']}/{worker_index()}"


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """A client on this worker's empty Redis database."""
    client = aioredis.Redis.from_url(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def hsm_token() -> HsmToken:
    """A fresh SoftHSM token of this worker's own; SOFTHSM2_CONF is set in this process."""
    pin, so_pin = secrets.token_hex(8), secrets.token_hex(8)
    folder = run_folder() / f"hsm-{worker_index()}"
    token = create_token(folder, label=f"test-{worker_index()}", pin=pin, so_pin=so_pin)
    os.environ["SOFTHSM2_CONF"] = str(token.configuration)
    return token


@pytest.fixture(scope="session")
def ses_endpoint() -> str:
    """moto's address. No sender identity is verified yet."""
    return shared_server("moto")["endpoint"]


@pytest.fixture(scope="session")
def s3_endpoint() -> str:
    """moto's address. No bucket is there yet."""
    return shared_server("moto")["endpoint"]


@pytest.fixture(scope="session")
def temporal_address() -> str:
    return shared_server("temporal")["address"]


@pytest_asyncio.fixture(scope="session")
async def temporal_client(temporal_address: str) -> Client:
    """A client with the platform's encrypting converter, on the dev server, in this worker's namespace."""
    return await Client.connect(
        temporal_address, namespace=namespace(worker_index()), data_converter=data_converter(_CODEC)
    )


@pytest.fixture(scope="session")
def platform() -> Access:
    """The run's platform as real processes, for all tests that talk to it as clients do. Accounts keep them apart."""
    # Imported here: most tests need none of what it needs.
    from tests.support.platform import shared_platform

    return shared_platform()


@pytest_asyncio.fixture
async def time_skipping_env() -> AsyncIterator[WorkflowEnvironment]:
    """A server that skips over timers, for one test: its clock does not go back. It neither lists nor counts."""
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(binary("temporal-test-server")), data_converter=data_converter(_CODEC)
    ) as environment:
        kinds = {
            name: IndexedValueType.Value(f"INDEXED_VALUE_TYPE_{kind.upper()}")
            for name, kind in search_attributes.ALL.items()
        }
        await environment.client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=environment.client.namespace, search_attributes=kinds)
        )
        yield environment
