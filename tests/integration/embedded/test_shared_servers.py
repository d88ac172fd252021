"""The servers that the tests share are real, ours, and each worker's part of them is its own."""

from __future__ import annotations

import redis.asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from embedded.softhsm import HsmToken


async def test_the_database_is_migrated_and_syncs_to_disk(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1
        assert await connection.scalar(text("SHOW fsync")) == "on"
        assert await connection.scalar(text("SHOW listen_addresses")) == "127.0.0.1"


async def test_redis_starts_each_test_empty(redis: redis.asyncio.Redis) -> None:
    assert await redis.dbsize() == 0
    await redis.set("key", "value")


async def test_what_another_test_left_in_redis_is_gone(redis: redis.asyncio.Redis) -> None:
    assert await redis.dbsize() == 0


async def test_the_dev_server_knows_every_search_attribute(temporal_client: Client) -> None:
    assert (await temporal_client.count_workflows("NeedsAttention IS NOT NULL")).count == 0


async def test_the_time_skipping_server_starts(time_skipping_env: WorkflowEnvironment) -> None:
    assert time_skipping_env.supports_time_skipping


def test_the_token_is_there_and_hides_its_pin(hsm_token: HsmToken) -> None:
    assert hsm_token.module.exists()
    assert hsm_token.pin not in repr(hsm_token)


def test_the_mail_endpoint_answers(ses_endpoint: str) -> None:
    assert ses_endpoint.startswith("http://127.0.0.1:")
