from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import WorkflowEnvironment

from tests.support.world import World, open_world


@pytest_asyncio.fixture
async def world(time_skipping_env: WorkflowEnvironment, engine: AsyncEngine) -> AsyncIterator[World]:
    """A scripted world whose timers are skipped over. The ledger's invariants are checked when the test ends."""
    async with open_world(time_skipping_env.client, engine) as opened:
        yield opened
