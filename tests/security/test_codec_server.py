"""Payloads are read by operators alone, and every reading leaves a trace."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf import json_format
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.client import Client

from domain.ids import payment_workflow_id
from tests.support.platform import Access
from tests.support.shop import Json, Shop


@pytest_asyncio.fixture(scope="module")
async def operator(platform: Access, database: AsyncEngine) -> AsyncIterator[Shop]:
    shop = await Shop.open(platform, database, operator=True)
    yield shop
    await shop.http.aclose()


@pytest_asyncio.fixture(scope="module")
async def codec_server(platform: Access) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=platform.codec_server, timeout=30, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(scope="module")
async def payment(shop: Shop) -> Json:
    return await shop.authorized((await shop.wallet()).card_id, 3456)


@pytest_asyncio.fixture(scope="module")
async def payload(temporal: Client, payment: Json) -> Payload:
    """The input of a payment's workflow, as Temporal keeps it."""
    history = await temporal.get_workflow_handle(payment_workflow_id(payment["id"])).fetch_history()
    return history.events[0].workflow_execution_started_event_attributes.input.payloads[0]


async def _decode(client: httpx.AsyncClient, payload: Payload, key: str | None, **headers: str) -> httpx.Response:
    sent = {"X-Namespace": "platform"} | headers
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    return await client.post("/decode", content=json_format.MessageToJson(Payloads(payloads=[payload])), headers=sent)


async def _audited(database: AsyncEngine) -> list[Any]:
    async with database.connect() as connection:
        return list((await connection.execute(text("SELECT * FROM platform.decode_audit"))).mappings())


async def test_an_operator_reads_a_payload_and_the_reading_is_recorded(
    codec_server: httpx.AsyncClient, operator: Shop, payload: Payload, payment: Json, database: AsyncEngine
) -> None:
    before = len(await _audited(database))
    response = await _decode(codec_server, payload, operator.key)
    assert response.status_code == 200
    [decoded] = json_format.Parse(response.content, Payloads()).payloads
    assert json.loads(decoded.data)["payment_id"] == payment["id"]
    rows = await _audited(database)
    assert len(rows) == before + 1
    row = rows[-1]
    assert row["workflow_ids"] == [payment_workflow_id(payment["id"])]
    assert (row["payloads"], row["namespace"]) == (1, "platform")
    assert row["key_id"].startswith("key_")
    assert row["key_id"].removeprefix("key_") in operator.key


async def test_nobody_else_reads_one(
    codec_server: httpx.AsyncClient, operator: Shop, shop: Shop, payload: Payload, database: AsyncEngine
) -> None:
    before = len(await _audited(database))
    for key in (None, "x", "sk_test_nonsense", shop.key, operator.key[:-1]):
        response = await _decode(codec_server, payload, key)
        assert response.status_code == 401
        assert b"payment_id" not in response.content
    for path in ("/decode", "/encode"):
        assert (await codec_server.post(path, content=b"{}")).status_code == 401
    assert len(await _audited(database)) == before


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", "http://localhost:8233"])
async def test_a_foreign_page_reads_nothing_even_with_an_operators_key(
    codec_server: httpx.AsyncClient, operator: Shop, payload: Payload, origin: str
) -> None:
    response = await _decode(codec_server, payload, operator.key, Origin=origin)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in (await codec_server.options("/decode", headers=asked)).headers


async def test_what_was_tampered_with_or_moved_is_not_decoded(
    codec_server: httpx.AsyncClient, operator: Shop, payload: Payload
) -> None:
    flipped = Payload(metadata=payload.metadata, data=payload.data[:-1] + bytes([payload.data[-1] ^ 1]))
    short = Payload(metadata=payload.metadata, data=payload.data[:5])
    moved = Payload(metadata=dict(payload.metadata) | {"workflow-id": b"payment/pay_other"}, data=payload.data)
    unknown = Payload(metadata=dict(payload.metadata) | {"key-id": b"k99"}, data=payload.data)
    for wrong in (flipped, short, moved, unknown):
        response = await _decode(codec_server, wrong, operator.key)
        assert response.status_code == 422, response.text


async def test_what_temporal_itself_wrote_in_clear_is_shown_as_it_is(
    codec_server: httpx.AsyncClient, operator: Shop
) -> None:
    plain = Payload(metadata={"encoding": b"json/plain"}, data=b'"authorized"')
    response = await _decode(codec_server, plain, operator.key)
    assert list(json_format.Parse(response.content, Payloads()).payloads) == [plain]


async def test_a_key_that_no_database_could_hold_is_a_wrong_key(codec_server: httpx.AsyncClient) -> None:
    for key in ("sk_test_" + "\0" * 67, "sk_test_" + "ä" * 67, "\0"):
        assert (await codec_server.post("/login", data={"key": key})).status_code == 401


async def test_what_is_no_list_of_payloads_is_refused(codec_server: httpx.AsyncClient, operator: Shop) -> None:
    headers = {"Authorization": f"Bearer {operator.key}"}
    for content in (b"", b"not json", b'{"payloads": 5}', b"\xff", b"[" * 20_000):
        response = await codec_server.post("/decode", content=content, headers=headers)
        assert response.status_code == 400, (content[:20], response.status_code)


async def test_the_audit_cannot_be_changed(
    database: AsyncEngine, codec_server: httpx.AsyncClient, operator: Shop, payload: Payload
) -> None:
    await _decode(codec_server, payload, operator.key)
    for statement in ("DELETE FROM platform.decode_audit", "UPDATE platform.decode_audit SET payloads = 0"):
        with pytest.raises(Exception, match="decode_audit"):
            async with database.begin() as connection:
                await connection.execute(text(statement))


async def test_a_login_lasts_in_a_cookie_that_scripts_cannot_read(
    platform: Access, operator: Shop, shop: Shop, payload: Payload
) -> None:
    async with httpx.AsyncClient(base_url=platform.codec_server, timeout=30, trust_env=False) as browser:
        assert (await browser.post("/login", data={"key": shop.key})).status_code == 401
        assert (await _decode(browser, payload, None)).status_code == 401
        response = await browser.post("/login", data={"key": operator.key})
        assert response.status_code == 200
        cookie = response.headers["Set-Cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert operator.key.lower() not in cookie
        assert (await _decode(browser, payload, None)).status_code == 200
