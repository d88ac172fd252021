from __future__ import annotations

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.books.support import Shop, open_shop


@pytest_asyncio.fixture
async def shop(engine: AsyncEngine) -> Shop:
    return await open_shop(engine)
