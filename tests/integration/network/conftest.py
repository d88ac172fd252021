from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from network.simulator import SimulatorServer
from tests.integration.network.rig import Rig, simulator_config


@pytest_asyncio.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[SimulatorServer]:
    """A simulator on a free port, with a journal of its own."""
    async with SimulatorServer(simulator_config(tmp_path)) as server:
        yield server


@pytest_asyncio.fixture
async def rig(engine: AsyncEngine, redis: Redis, simulator: SimulatorServer) -> AsyncIterator[Rig]:
    rig = Rig(engine, redis, simulator.port)
    yield rig
    for gateway in rig.gateways:
        await gateway.close()
