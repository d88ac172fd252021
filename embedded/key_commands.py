"""What the `durapay api-key` commands do with the keys of the stack's accounts."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from rich.table import Table
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from config.settings import IdentitySettings
from domain.errors import NotFound
from domain.ids import ACCOUNT, derived_id
from identity.keys import SIGNING_KEYS, derived
from identity.signing_keys import SigningKeys
from store.api_keys import find_account, list_keys, revoke_key, roll_key
from store.engine import create_engine

T = TypeVar("T")


def table_of(database_url: str, account_name: str) -> Table:
    """The account's keys that are good, without what proves them."""

    async def read(connection: AsyncConnection) -> Sequence[RowMapping]:
        return await list_keys(connection, derived_id(ACCOUNT, account_name))

    table = Table("id", "kind", "name", "may", "made", "good until")
    for row in _on(database_url, read):
        permitted = "what an app may" if row["kind"] == "publishable" else f"all that a {row['role']} may"
        scopes = permitted if row["scopes"] is None else ", ".join(row["scopes"])
        end = "" if row["expires_at"] is None else f"{row['expires_at']:%Y-%m-%d %H:%M}"
        table.add_row(row["id"], row["kind"], row["name"] or "", scopes, f"{row['created_at']:%Y-%m-%d %H:%M}", end)
    return table


def roll(database_url: str, key_id: str, overlap: timedelta) -> str:
    """The new key, which is shown this once.

    Raises:
        NotFound: there is no such key that is good and was not rolled yet.
    """

    async def change(connection: AsyncConnection) -> str:
        account_id = await find_account(connection, key_id)
        issued = await roll_key(connection, account_id or "", key_id, overlap, livemode=False)
        if issued is None:
            raise NotFound("API key", key_id)
        return issued.key

    return _on(database_url, change)


def revoke(database_url: str, key_id: str) -> None:
    """
    Raises:
        NotFound: there is no such key.
    """

    async def change(connection: AsyncConnection) -> None:
        account_id = await find_account(connection, key_id)
        if account_id is None or not await revoke_key(connection, account_id, key_id):
            raise NotFound("API key", key_id)

    _on(database_url, change)


def rotate_signing_key(database_url: str, secret: bytes, distrust: bool) -> str:
    """The id of the key that signs session tokens from now on. The API's processes notice within half a minute."""
    settings = IdentitySettings(secret=base64.b64encode(secret).decode())

    async def run() -> str:
        engine = create_engine(database_url, pool_size=1)
        keys = SigningKeys(
            engine,
            derived(secret, SIGNING_KEYS),
            token_lifetime=timedelta(seconds=settings.access_token_seconds),
            rotate_after=timedelta(days=settings.signing_key_days),
        )
        try:
            return (await keys.rotate(distrust=distrust)).active_id
        finally:
            await engine.dispose()

    return asyncio.run(run())


def _on(database_url: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    async def run() -> T:
        engine = create_engine(database_url, pool_size=1)
        try:
            async with engine.begin() as connection:
                return await work(connection)
        finally:
            await engine.dispose()

    return asyncio.run(run())
