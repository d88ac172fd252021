"""Puts the identity services together for the API's process."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from config.settings import ApiSettings, IdentitySettings, RedisSettings
from identity.keys import REFRESH_TOKENS, SIGNING_KEYS, derived
from identity.revocations import Revocations
from identity.service import Identity
from identity.sessions import Sessions
from identity.signing_keys import SigningKeys
from identity.tokens import AccessTokens
from store.engine import reading

# A Redis that hangs is no better than one that is down: every request asks it.
_REDIS_TIMEOUT_SECONDS = 1.0


async def open_identity(api: ApiSettings, engine: AsyncEngine, stack: AsyncExitStack) -> Identity:
    """The services, which end with `stack`."""
    settings = IdentitySettings()
    secret = settings.secret.get_secret_value()
    redis: Redis = Redis.from_url(
        RedisSettings().url.get_secret_value(),
        socket_timeout=_REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
    )
    stack.push_async_callback(redis.aclose)
    lifetime = timedelta(seconds=settings.access_token_seconds)
    signing_keys = SigningKeys(
        engine,
        derived(secret, SIGNING_KEYS),
        token_lifetime=lifetime,
        rotate_after=timedelta(days=settings.signing_key_days),
    )
    revocations = Revocations(reading(engine), redis, lifetime)
    await stack.enter_async_context(revocations.retold())
    sessions = Sessions(
        engine,
        AccessTokens(signing_keys, api.jwt_issuer, api.jwt_audience, lifetime),
        revocations,
        derived(secret, REFRESH_TOKENS),
        idle=timedelta(days=settings.refresh_token_days),
        lifetime=timedelta(days=settings.session_days),
    )
    return Identity(sessions=sessions, signing_keys=signing_keys)
