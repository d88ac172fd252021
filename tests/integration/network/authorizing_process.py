"""A network worker's process for tests that kill it: authorizes one command, read as JSON from its standard input."""

from __future__ import annotations

import asyncio
import json
import sys

from redis.asyncio import Redis

from domain.network import AuthorizeCommand, SealedCredential
from network.gateway import NetworkGateway
from network.link import NetworkLink
from sealing import Unsealer
from store.engine import create_engine
from tests.integration.network.rig import ACQUIRER_ID, MERCHANT, PATIENCE_SECONDS, usd


async def authorize() -> None:
    given = json.load(sys.stdin)
    command = AuthorizeCommand(
        given["effect_key"],
        given["payment_id"],
        usd(given["amount_minor"]),
        MERCHANT,
        SealedCredential(given["token_id"], given["sealed_pan"], given["authentication_handle"]),
    )
    gateway = NetworkGateway(
        create_engine(given["database_url"]),
        Redis.from_url(given["redis_url"]),
        Unsealer([bytes.fromhex(given["private_key"])]),
        NetworkLink("127.0.0.1", given["port"]),
        ACQUIRER_ID,
        PATIENCE_SECONDS,
        _ignore,
        _ignore,
    )
    await gateway.start()
    await gateway.authorize(command)


async def _ignore(told: object) -> None:
    del told


asyncio.run(authorize())
