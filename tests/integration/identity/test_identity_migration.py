"""API keys on the way back and forth between revisions: none of before is lost, and none may do more afterwards."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from alembic import command

from domain.scopes import Scope
from store.api_keys import KeyOwner, create_api_key, find_owner
from store.engine import create_engine
from tests.support.migrations import alembic_config


def _owner(url: str, key: str) -> KeyOwner | None:
    async def find() -> KeyOwner | None:
        engine = create_engine(url, pool_size=1)
        async with engine.connect() as connection:
            owner = await find_owner(connection, key)
        await engine.dispose()
        return owner

    return asyncio.run(find())


def test_a_plain_key_survives_a_way_back_and_one_that_may_do_less_does_not_come_back_as_one_for_all(
    scratch: str,
) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0013")
    plain = create_api_key(scratch, "shop")
    operator = create_api_key(scratch, "shop", operator=True)
    narrow = create_api_key(scratch, "shop", scopes=[Scope.PAYMENTS_READ], lifetime=timedelta(days=1))
    publishable = create_api_key(scratch, "shop", publishable=True)
    found = [_owner(scratch, key) for key in (plain, operator, narrow, publishable)]
    assert all(found)
    assert _owner(scratch, "sk" + publishable[2:]) is None

    command.downgrade(config, "0012")
    command.upgrade(config, "0013")
    assert [_owner(scratch, key) for key in (plain, operator, narrow, publishable)] == [*found[:2], None, None]
