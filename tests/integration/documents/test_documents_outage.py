"""While the storage is down a file is refused in a way that is safe to repeat, and nothing of it is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpx
import pytest_asyncio
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from api.app import create_app
from api.context import ApiContext
from api.rate_limits import RateLimits
from config.settings import ApiSettings, RateLimitSettings
from documents.storage import Bucket, DocumentStorage
from domain.payments import PaymentStatus
from embedded.processes import free_port
from identity.service import Identity
from ledger.dispute_books import DisputeBooks
from store.api_keys import NewKey, issue_key
from store.engine import reading
from tests.integration.books.support import open_shop
from tests.support.disputes import dispute_events, dispute_rows, notice, opening_of
from tests.unit.documents.files import PDF
from vault.bank_accounts import BankAccountVault
from vault.personal_keys import PersonalKeys
from vault.service import Vault


@pytest_asyncio.fixture
async def http(engine: AsyncEngine, redis: Redis, temporal_client: Client) -> AsyncIterator[httpx.AsyncClient]:
    """The API with a storage that nobody runs. What a dispute's routes do not need is left out."""
    nowhere = Bucket("documents", "eu-central-1", "id", "secret", endpoint=f"http://127.0.0.1:{free_port()}")
    storage = DocumentStorage(nowhere)

    @asynccontextmanager
    async def context() -> AsyncIterator[ApiContext]:
        yield ApiContext(
            settings=ApiSettings(),
            engine=engine,
            reader=reading(engine),
            temporal=temporal_client,
            bank_accounts=cast(BankAccountVault, None),
            vault=cast(Vault, None),
            personal_keys=cast(PersonalKeys, None),
            documents=storage,
            identity=cast(Identity, None),
            limits=RateLimits(redis, RateLimitSettings()),
        )

    app = create_app(context)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            yield client
    await storage.close()


async def test_a_file_is_refused_and_may_be_sent_again(http: httpx.AsyncClient, engine: AsyncEngine) -> None:
    shop = await open_shop(engine)
    key = await _key_of(engine, shop.account_id)
    life = await shop.in_state(PaymentStatus.CAPTURED)
    opening = opening_of(notice(life.id))
    await DisputeBooks(engine, {}).open(opening)

    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "evidence-1"}
    files = {"file": ("receipt.pdf", PDF)}
    for _ in range(2):
        answer = await http.post(f"/v1/disputes/{opening.dispute_id}/evidence", files=files, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        assert answer.headers["Retry-After"]
    statement = "SELECT 1 FROM platform.dispute_files WHERE dispute_id = :id"
    assert await dispute_rows(engine, statement, opening.dispute_id) == []
    assert [event["type"] for event in await dispute_events(engine, opening.dispute_id)] == ["created"]


async def _key_of(engine: AsyncEngine, account_id: str) -> str:
    """A key of an account that tests made by hand."""
    async with engine.begin() as connection:
        return (await issue_key(connection, account_id, NewKey())).key
