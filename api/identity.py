"""Puts the identity services together for the API's process."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from config.settings import ApiSettings, ContactCodeSettings, IdentitySettings, PasskeySettings, RedisSettings
from domain.contact_codes import ContactCodes
from identity.challenges import Challenges
from identity.codes import ContactCodeDesk
from identity.credentials import Credentials
from identity.devices import Devices
from identity.keys import LOCKS, REFRESH_TOKENS, SIGNING_KEYS, derived
from identity.locks import Locks
from identity.passkeys import Passkeys
from identity.passwords import Passwords
from identity.registration import Registrations, forgetting
from identity.relying_party import RelyingParty
from identity.revocations import Revocations
from identity.service import Identity
from identity.sessions import Sessions
from identity.signing_keys import SigningKeys
from identity.step_up import StepUps
from identity.tokens import AccessTokens
from store.engine import reading

# A Redis that hangs is no better than one that is down: every request asks it.
_REDIS_TIMEOUT_SECONDS = 1.0


def open_redis(stack: AsyncExitStack) -> Redis:
    """A client that answers soon, one way or the other; it ends with `stack`."""
    redis: Redis = Redis.from_url(
        RedisSettings().url.get_secret_value(),
        socket_timeout=_REDIS_TIMEOUT_SECONDS,
        socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
    )
    stack.push_async_callback(redis.aclose)
    return redis


async def open_identity(api: ApiSettings, engine: AsyncEngine, redis: Redis, stack: AsyncExitStack) -> Identity:
    """The services, which end with `stack`."""
    settings = IdentitySettings()
    secret = settings.secret.get_secret_value()
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
    await stack.enter_async_context(forgetting(engine))
    hasher = Passwords()
    stack.callback(hasher.close)
    desk = ContactCodeDesk(engine, ContactCodes(ContactCodeSettings().secret.get_secret_value()))
    asking = PasskeySettings()
    relying_party = RelyingParty(asking.rp_id, asking.rp_name, asking.origins)
    challenges = Challenges(redis)
    return Identity(
        sessions=sessions,
        signing_keys=signing_keys,
        codes=desk,
        registrations=Registrations(engine, hasher, desk, sessions),
        credentials=Credentials(engine, hasher, desk, sessions, Locks(redis, derived(secret, LOCKS))),
        passkeys=Passkeys(engine, challenges, relying_party, sessions),
        devices=Devices(engine, challenges, relying_party, sessions, asking.origin),
        step_ups=StepUps(engine, relying_party),
    )
