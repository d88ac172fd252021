"""`python -m api`: serves the API until SIGINT or SIGTERM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn
from redis.asyncio import Redis

from api.app import create_app
from api.context import ApiContext
from api.identity import open_identity, open_redis
from api.rate_limits import RateLimits
from config.logs import configure_logging
from config.runtime import settle
from config.settings import (
    ApiSettings,
    CodecSettings,
    DatabaseSettings,
    DocumentSettings,
    HsmSettings,
    RateLimitSettings,
    RedisSettings,
    SealingSettings,
    TemporalSettings,
)
from documents.storage import Bucket, DocumentStorage
from sealing import Sealer
from store.engine import create_engine, reading
from temporal.client import connect
from temporal.turns import InTurn
from vault.bank_accounts import BankAccountVault
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.personal_keys import PersonalKeys
from vault.service import Vault

# For how long a call to Temporal that finds no server is tried again. Shorter than a caller's wait: who asks while
# Temporal is down is to be told so, and quickly, and not to wait for what was never started.
_PATIENCE_SECONDS = 2.0


@asynccontextmanager
async def open_context(settings: ApiSettings) -> AsyncIterator[ApiContext]:
    """All that the routes need. Temporal is reached at the first call, so the API starts without it."""
    database, hsm = DatabaseSettings(), HsmSettings()
    async with AsyncExitStack() as stack:
        engine = create_engine(database.url.get_secret_value(), pool_size=database.pool_size)
        stack.push_async_callback(engine.dispose)
        redis: Redis = Redis.from_url(RedisSettings().url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        provider = Pkcs11Provider(hsm.module, hsm.token_label, hsm.pin.get_secret_value(), sessions=hsm.sessions)
        stack.callback(provider.close)
        sealer = Sealer(SealingSettings().public_key.get_secret_value())
        vault = Vault(engine, redis, provider, sealer)
        stack.callback(vault.close)
        # Without a key to seal with: numbers go in here, and come out for the bank zone elsewhere.
        bank_accounts = BankAccountVault(engine, provider)
        stack.callback(bank_accounts.close)
        personal_keys = PersonalKeys(engine, redis, provider)
        stack.callback(personal_keys.close)
        documents = DocumentStorage(Bucket.of(DocumentSettings()))
        stack.push_async_callback(documents.close)
        quick = open_redis(stack)
        identity = await open_identity(settings, engine, quick, stack)
        settle()
        yield ApiContext(
            settings=settings,
            engine=engine,
            reader=reading(engine),
            temporal=await connect(
                TemporalSettings(),
                CodecSettings(),
                lazy=True,
                patience_seconds=_PATIENCE_SECONDS,
                interceptors=[InTurn()],
            ),
            vault=vault,
            bank_accounts=bank_accounts,
            personal_keys=personal_keys,
            documents=documents,
            identity=identity,
            limits=RateLimits(quick, RateLimitSettings()),
        )


def main() -> None:
    configure_logging()
    settings = ApiSettings()
    app = create_app(lambda: open_context(settings), settings.max_body_bytes, settings.max_upload_bytes)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        # uvicorn believes whoever connects from this machine, if it is not told otherwise.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
    )


if __name__ == "__main__":
    main()
