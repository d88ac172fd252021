"""Fixtures of the folders whose tests are clients of the run's platform."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from store.engine import create_engine
from tests.support.app import App
from tests.support.bank import Bank
from tests.support.platform import Access
from tests.support.shop import Network, Sandbox, Shop


@pytest_asyncio.fixture(scope="session")
async def database(platform: Access) -> AsyncIterator[AsyncEngine]:
    """The platform's own database, to look into."""
    engine = create_engine(platform.database_url, pool_size=2)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(scope="module")
async def shop(platform: Access, database: AsyncEngine) -> AsyncIterator[Shop]:
    """An account of this module's own."""
    shop = await Shop.open(platform, database)
    yield shop
    await shop.http.aclose()


@pytest_asyncio.fixture(scope="module")
async def operator(platform: Access, database: AsyncEngine) -> AsyncIterator[Shop]:
    """The same with an operator's key."""
    operator = await Shop.open(platform, database, operator=True)
    yield operator
    await operator.http.aclose()


@pytest_asyncio.fixture(scope="session")
async def network(platform: Access, database: AsyncEngine) -> AsyncIterator[Network]:
    network = Network(platform, database)
    yield network
    await network.close()


@pytest_asyncio.fixture(scope="session")
async def sandbox(platform: Access) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(platform)
    yield sandbox
    await sandbox.close()


@pytest_asyncio.fixture(scope="module")
async def app(platform: Access, database: AsyncEngine, shop: Shop, sandbox: Sandbox) -> AsyncIterator[App]:
    """The app of the module's own account."""
    app = await App.of(platform, database, shop.account_id, sandbox)
    yield app
    await app.close()


@pytest_asyncio.fixture(scope="module")
async def bank(platform: Access, operator: Shop) -> Bank:
    return Bank(platform, operator)


@pytest_asyncio.fixture(scope="session")
async def temporal(platform: Access) -> Client:
    """A client without the platform's keys: it sees what anybody sees who gets at Temporal."""
    return await Client.connect(platform.temporal, namespace=platform.namespace)
