"""A platform of these tests' own: they kill its processes and break its network."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from store.engine import create_engine
from tests.support.keeper import PLATFORM_DATABASES
from tests.support.platform import Platform
from tests.support.shared import run_folder
from tests.support.shop import Network, Shop

_NAME = "faults"


@pytest_asyncio.fixture(scope="module")
async def own_platform() -> AsyncIterator[Platform]:
    # The folder's name changes, so that a second module of the same run starts from nothing but the database.
    folder = run_folder() / f"{_NAME}-{secrets.token_hex(3)}"
    platform = Platform(_NAME, folder, PLATFORM_DATABASES[_NAME])
    try:
        await platform.start()
        yield platform
    finally:
        await platform.stop()


@pytest_asyncio.fixture(scope="module")
async def database(own_platform: Platform) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(own_platform.access.database_url, pool_size=2)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(scope="module")
async def shop(own_platform: Platform, database: AsyncEngine) -> AsyncIterator[Shop]:
    shop = await Shop.open(own_platform.access, database)
    yield shop
    await shop.http.aclose()


@pytest_asyncio.fixture(scope="module")
async def network(own_platform: Platform, database: AsyncEngine) -> AsyncIterator[Network]:
    network = Network(own_platform.access, database)
    yield network
    await network.close()
