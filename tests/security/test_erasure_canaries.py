"""One word is in everything that somebody says or names; years after their wallet was closed it is nowhere."""

from __future__ import annotations

import secrets
import string
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from google.protobuf.json_format import MessageToJson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from activities.onboarding import ClosureActivities
from config.settings import DocumentSettings
from documents.errors import DocumentMissing
from documents.storage import Bucket, DocumentStorage
from domain.closure import EraseOrder
from domain.ids import closure_workflow_id
from onboarding.closures import Closures
from tests.security.test_canaries import _everything
from tests.security.test_every_route import made, upload
from tests.support.app import App, Someone
from tests.support.canaries import as_stored, check_absent
from tests.support.member import Member, signed_up
from tests.support.platform import Access
from tests.support.shared import shared_server
from tests.support.shop import GOOD_CARD, Json, Sandbox, Shop, new_key, until
from tests.unit.documents.files import PDF

RETENTION = timedelta(days=1826)
DISPUTED = "4000000000000259"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Somebody who was: `word` is in all that they said, `phone` is their number, `objects` were their files on S3."""

    user_id: str
    word: str
    phone: str
    objects: tuple[str, ...]
    storage: DocumentStorage


@pytest_asyncio.fixture(scope="module")
async def forgotten(platform: Access, database: AsyncEngine, shop: Shop, sandbox: Sandbox) -> AsyncIterator[Forgotten]:
    word = "q" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))
    app = await App.of(platform, database, shop.account_id, sandbox)
    app.http.headers["User-Agent"] = f"browser of {word}"
    person = Someone(f"Zoe {word.title()}", f"zoe.{word}@example.com", password=f"nine {word} juggle at noon")
    member = await signed_up(app, platform, **_fields(person))
    await _things(member, word)
    await _payments(member.user_id, shop, word)
    await _identity(member.user_id, shop, word)
    async with database.connect() as connection:
        seen = await _tables(connection)
    # Otherwise there would be nothing to forget.
    assert {name for name, content in seen.items() if word.encode() in content.lower()} >= WHERE_IT_WAS
    storage = _storage(platform)
    objects = await _keys(database, member.user_id)
    for key in objects:
        assert await storage.read(key)
    await shop.post(f"/v1/users/{member.user_id}/close")
    path = f"/v1/users/{member.user_id}/closure"
    await until(lambda: shop.get(path), lambda found: found["status"] == "closed")
    await _erase(database, storage, member.user_id)
    yield Forgotten(member.user_id, word, person.phone, objects, storage)
    await storage.close()
    await app.close()


# What the word must have been in before: a test that seeds nothing finds nothing.
WHERE_IT_WAS = {
    "bank.files", "identity.devices", "identity.passkeys", "identity.sessions", "notify.push_tokens",
    "platform.dispute_files", "platform.disputes", "platform.idempotency_keys", "platform.outbox",
    "platform.payment_methods", "platform.payments", "platform.refunds", "platform.users",
}  # fmt: skip


def _fields(person: Someone) -> dict[str, Any]:
    return {"name": person.name, "email": person.email, "phone": person.phone, "password": person.password}


async def _things(member: Member, word: str) -> None:
    """Passkey, device, push token, and an address that is asked for and never proved."""
    await member.add_passkey(f"key of {word}")
    asked = (await member.post("/v1/devices/registration_options")).json()
    proof = member.handset.register(asked["challenge"], asked["audience"])
    made(await member.post("/v1/devices", {"name": f"phone of {word}", "platform": "ios", "proof": proof}))
    path = f"/v1/users/{member.user_id}"
    made(await member.post(f"{path}/push_tokens", {"token": f"token-{word}", "platform": "ios"}))
    made(await member.post(f"{path}/contact_changes", {"email": f"other.{word}@example.com"}))


async def _payments(user_id: str, shop: Shop, word: str) -> None:
    """Payments with all that people write beside them; a dispute with its evidence; a bank account in a file."""
    address = {"line1": f"1 {word} street", "postal_code": "94105", "country": "US"}
    card = await shop.add_card(user_id, billing_address=address, holder_name=word)
    made(await shop.http.patch(f"/v1/payment_methods/{card['id']}", json={"label": f"card of {word}"}))
    noted: dict[str, Any] = {"metadata": {"note": word}, "capture_method": "manual"}
    voided = (await shop.pay(card["id"], 1100, **noted)).json()
    made(await shop.post(f"/v1/payments/{voided['id']}/void", {"reason": f"{word} went home"}))
    paid = await shop.captured(card["id"], 1200)
    refund = made(await shop.post(f"/v1/payments/{paid['id']}/refunds", {"amount_minor": 100, "reason": f"for {word}"}))
    await shop.outcome(f"/v1/refunds/{refund['id']}", refund)
    other = (await shop.add_card(user_id, DISPUTED))["id"]
    disputed = await shop.captured(other, 1300)
    disputes = await until(lambda: shop.get("/v1/disputes", payment=disputed["id"]), lambda found: bool(found["data"]))
    path = f"/v1/disputes/{disputes['data'][0]['id']}"
    files: dict[str, Any] = {
        "file": (f"{word}.pdf", PDF, "application/pdf"),
        "customer_name": (None, f"Zoe {word}"),
        "uncategorized_text": (None, "winning_evidence"),
    }
    made(await shop.http.post(f"{path}/evidence", files=files, headers={"Idempotency-Key": new_key()}))
    made(await shop.post(f"{path}/submit"))
    await until(lambda: shop.get(path), lambda found: found["status"] in ("won", "lost"))
    bank = {"user": user_id, "routing_number": "021000021", "account_number": "1000987", "account_type": "checking"}
    account = made(await shop.post("/v1/payment_methods/bank_accounts", bank))["id"]
    deposits = f"/v1/payment_methods/{account}/micro_deposits"
    made(await shop.post(deposits))
    await until(lambda: shop.get(deposits), lambda found: found["status"] != "new" and found["status"] != "initiating")
    made(await shop.post(f"{deposits}/cancel"))


async def _identity(user_id: str, shop: Shop, word: str) -> None:
    """Who the user is, with a document and a reviewer's words."""
    path = f"/v1/users/{user_id}/onboarding"
    await upload(shop, f"{path}/documents", kind="identity_front")
    details = {
        "legal_name": f"Zoe {word.title()}",
        "date_of_birth": "1990-12-10",
        "address": {"line1": f"2 {word} street", "city": "Zenith", "postal_code": "10001", "country": "SE"},
        "document": {"type": "driving_licence", "number": "D1234", "country": "SE", "expires_on": "2031-04-15"},
    }
    made(await shop.post(path, details))
    await until(lambda: shop.get(path), lambda found: found["status"] != "pending")


async def _erase(database: AsyncEngine, storage: DocumentStorage, user_id: str) -> None:
    """What the closure's workflow does when the retention is over, as if it were."""
    values = {"user": user_id}
    async with database.begin() as connection:
        closed = (await connection.execute(_CLOSED, values)).one()
        key_id = await connection.scalar(_DESTROY_KEY, values)

    async def end(_: str) -> None:
        raise AssertionError("the case ended with the closure")

    activities = ClosureActivities(Closures(database, RETENTION), storage, end)
    await activities.erase(EraseOrder(user_id, key_id, closed.erase_after))


def _storage(platform: Access) -> DocumentStorage:
    keys = (platform.secret("documents_access_key_id"), platform.secret("documents_secret_access_key"))
    bucket = DocumentSettings.model_fields["bucket"].get_default()
    return DocumentStorage(Bucket(bucket, "eu-central-1", *keys, endpoint=shared_server("moto")["endpoint"]))


async def _keys(database: AsyncEngine, user_id: str) -> tuple[str, ...]:
    async with database.connect() as connection:
        return tuple((await connection.execute(_OBJECTS, {"user": user_id})).scalars())


async def _tables(connection: Any) -> dict[str, bytes]:
    """All rows of all tables."""
    names = (await connection.execute(_TABLES)).scalars().all()
    found = {}
    for name in names:
        rows = await connection.execute(text(f"SELECT entry::text AS shown FROM {name} AS entry"))
        found[name] = as_stored(row.shown for row in rows)
    return found


async def test_no_table_has_the_word_or_the_number(forgotten: Forgotten, database: AsyncEngine) -> None:
    async with database.connect() as connection:
        tables = await _tables(connection)
    left = {name for name, content in tables.items() if forgotten.word.encode() in content.lower()}
    assert left == set()
    for name, content in tables.items():
        check_absent(content, (forgotten.word, forgotten.word.title(), forgotten.phone), name)


async def test_the_cache_has_neither(forgotten: Forgotten, platform: Access) -> None:
    async with aioredis.Redis.from_url(platform.redis_url) as client:
        content = b"\n".join([part async for part in _everything(client)])
    check_absent(content.lower(), (forgotten.word, forgotten.phone), "Redis")


async def test_their_files_are_gone(forgotten: Forgotten) -> None:
    assert len(forgotten.objects) >= 3  # a document, a file of evidence and the manifest that names it
    for key in forgotten.objects:
        with pytest.raises(DocumentMissing):
            await forgotten.storage.read(key)


async def test_temporals_index_and_histories_name_nobody(
    forgotten: Forgotten, temporal: Client, database: AsyncEngine
) -> None:
    async with database.connect() as connection:
        payments = (await connection.execute(_PAYMENTS, {"user": forgotten.user_id})).scalars().all()
    assert len(payments) == 3
    for workflow_id in (closure_workflow_id(forgotten.user_id), *(f"payment/{payment}" for payment in payments)):
        handle = temporal.get_workflow_handle(workflow_id)
        description, history = await handle.describe(), await handle.fetch_history()
        shown = MessageToJson(description.raw_description).lower().encode()
        shown += b"".join(event.SerializeToString() for event in history.events).lower()
        check_absent(shown, (forgotten.word, forgotten.phone), workflow_id)


def test_no_log_has_the_word(forgotten: Forgotten, platform: Access) -> None:
    logs = sorted((Path(platform.state) / "logs").glob("*.log"))
    assert logs
    for log in logs:
        check_absent(log.read_bytes().lower(), (forgotten.word, forgotten.phone), log.name)


async def test_what_the_law_wants_kept_is_there(forgotten: Forgotten, database: AsyncEngine, shop: Shop) -> None:
    async with database.connect() as connection:
        standing = (await connection.execute(_STANDING, {"user": forgotten.user_id})).one()
    assert (standing.name, standing.certificates, standing.cards) == ("erased", 1, 0)
    payments: Json = await shop.get("/v1/payments", user=forgotten.user_id)
    assert sorted(payment["amount_minor"] for payment in payments["data"]) == [1100, 1200, 1300]
    assert GOOD_CARD not in str(payments)


_TABLES = text("""
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
""")
_CLOSED = text("SELECT erase_after FROM onboarding.closures WHERE user_id = :user AND status = 'closed'")
_DESTROY_KEY = text("""
UPDATE vault.personal_keys SET wrapped_by = NULL, iv = NULL, wrapped_key = NULL, destroyed_at = now()
WHERE user_id = :user RETURNING id
""")
_PAYMENTS = text("SELECT id FROM platform.payments WHERE user_id = :user")
_OBJECTS = text("""
SELECT 'onboarding/' || user_id || '/' || id FROM onboarding.documents WHERE user_id = :user
UNION ALL SELECT 'disputes/' || dispute_id || '/' || dispute_files.id
FROM platform.dispute_files JOIN platform.disputes ON disputes.id = dispute_id
JOIN platform.payments ON payments.id = disputes.payment_id WHERE payments.user_id = :user
UNION ALL SELECT 'disputes/' || disputes.id || '/manifest-1.json'
FROM platform.disputes JOIN platform.payments ON payments.id = disputes.payment_id WHERE payments.user_id = :user
""")
_STANDING = text("""
SELECT name, (SELECT count(*) FROM onboarding.erasure_certificates WHERE user_id = :user) AS certificates,
    (SELECT count(*) FROM platform.payment_methods WHERE user_id = :user AND status <> 'removed') AS cards
FROM platform.users WHERE id = :user
""")
