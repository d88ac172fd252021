"""The bank zone on real servers: PostgreSQL, an HSM token, and the simulated bank over HTTP with a clock of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from embedded.softhsm import HsmToken
from tests.integration.bank.rig import BankRig, open_rig
from tests.integration.vault.conftest import IMK_AC
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.keys import create_keys


@pytest.fixture(scope="session")
def provider(hsm_token: HsmToken) -> Iterator[Pkcs11Provider]:
    provider = Pkcs11Provider(hsm_token.module, hsm_token.label, hsm_token.pin)
    create_keys(provider, IMK_AC)
    yield provider
    provider.close()


@pytest_asyncio.fixture
async def rig(engine: AsyncEngine, provider: Pkcs11Provider, tmp_path: Path) -> AsyncIterator[BankRig]:
    async with open_rig(engine, provider, tmp_path) as opened:
        yield opened
