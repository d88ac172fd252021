"""A vault on a real HSM token, PostgreSQL and Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from embedded.softhsm import HsmToken
from sealing import Sealer, Unsealer
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.keys import create_keys
from vault.service import Vault

IMK_AC = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")


@pytest.fixture(scope="session")
def provider(hsm_token: HsmToken) -> Iterator[Pkcs11Provider]:
    provider = Pkcs11Provider(hsm_token.module, hsm_token.label, hsm_token.pin)
    create_keys(provider, IMK_AC)
    yield provider
    provider.close()


@pytest.fixture(scope="session")
def network_key() -> X25519PrivateKey:
    return X25519PrivateKey.generate()


@pytest.fixture(scope="session")
def unsealer(network_key: X25519PrivateKey) -> Unsealer:
    """What the network worker alone has."""
    return Unsealer([network_key.private_bytes_raw()])


@pytest.fixture(scope="session")
def sealer(network_key: X25519PrivateKey) -> Sealer:
    return Sealer(network_key.public_key().public_bytes_raw())


@pytest_asyncio.fixture
async def vault(engine: AsyncEngine, redis: Redis, provider: Pkcs11Provider, sealer: Sealer) -> AsyncIterator[Vault]:
    vault = Vault(engine, redis, provider, sealer)
    yield vault
    vault.close()
