from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.browser import Browser, browser_at
from tests.support.platform import Access
from tests.support.platform_fixtures import app, bank, database, network, operator, sandbox, shop, temporal

__all__ = ["app", "bank", "database", "network", "operator", "sandbox", "shop", "temporal"]


@pytest_asyncio.fixture
async def browser(platform: Access) -> AsyncIterator[Browser]:
    async with browser_at(platform) as browser:
        yield browser
