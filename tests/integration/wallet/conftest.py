from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.app import App
from tests.support.bank import Bank
from tests.support.browser import Browser, browser_at
from tests.support.platform import Access
from tests.support.platform_fixtures import database, network, operator, sandbox, shop, temporal
from tests.support.shop import Sandbox, Shop

__all__ = ["database", "network", "operator", "sandbox", "shop", "temporal"]


@pytest_asyncio.fixture(scope="module")
async def app(platform: Access, database: AsyncEngine, shop: Shop, sandbox: Sandbox) -> AsyncIterator[App]:
    """The app of the module's own account."""
    app = await App.of(platform, database, shop.account_id, sandbox)
    yield app
    await app.close()


@pytest_asyncio.fixture
async def bank(platform: Access, operator: Shop) -> Bank:
    return Bank(platform, operator)


@pytest_asyncio.fixture
async def browser(platform: Access) -> AsyncIterator[Browser]:
    async with browser_at(platform) as browser:
        yield browser
