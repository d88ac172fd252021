"""Numbers, names and keys that are like no others are played through everything, and then looked for everywhere."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio as aioredis
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.common.v1 import Payload, SearchAttributes
from temporalio.client import Client

from domain.cards import luhn_check_digit
from sealing import PAN_PURPOSE, Unsealer
from temporal.codec import ENCODING, EncryptionCodec
from tests.support.canaries import as_stored, check_absent, check_no_code, written_forms
from tests.support.platform import Access
from tests.support.shared import run_folder
from tests.support.shop import Json, Network, Sandbox, Shop, order, until

# The simulated network approves the first one and never answers for the second.
SILENT_CARD = "4000990000010003"
NEW_YORK = {"latitude": 40.7128, "longitude": -74.0060}
SYDNEY = {"latitude": -33.8688, "longitude": 151.2093}


def _card(prefix: str, length: int) -> str:
    payload = prefix + "".join(str(secrets.randbelow(10)) for _ in range(length - 1 - len(prefix)))
    return payload + luhn_check_digit(payload)


@dataclass(frozen=True, slots=True)
class Canaries:
    """What was played, and the ids under which it went."""

    account: str
    pans: tuple[str, ...]
    cvc: str
    name: str
    api_key: str
    session: str
    push_token: str
    dpans: tuple[str, ...]
    workflow_ids: tuple[str, ...]
    error_bodies: tuple[str, ...]
    user_ids: tuple[str, ...]

    @property
    def numbers(self) -> tuple[str, ...]:
        return (*self.pans, *self.dpans)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in clear nowhere at all."""
        return (*self.numbers, self.api_key, self.api_key[-43:], self.session)


@pytest_asyncio.fixture(scope="module")
async def canaries(platform: Access, shop: Shop, database: AsyncEngine, network: Network, sandbox: Sandbox) -> Canaries:
    marker = secrets.token_hex(5)
    name = f"Zebediah Quux{marker}"
    # American Express: its code has four digits, which do not turn up everywhere by chance.
    pan, second, cvc = _card("37", 15), _card("378", 15), f"{secrets.randbelow(9000) + 1000}"
    push_token = f"device-{marker}"
    errors: list[str] = []
    user = await shop.add_user(name=name)
    await shop.post(f"/v1/users/{user['id']}/push_tokens", {"token": push_token, "platform": "ios"})
    session = (await shop.post(f"/v1/users/{user['id']}/sessions")).json()["token"]
    silent_user, careful_user = await shop.add_user(name=name), await shop.add_user(name=name)

    async def card(owner: str, number: str, **changes: Any) -> Json:
        return await shop.add_card(owner, number, **({"cvc": cvc, "holder_name": name} | changes))

    first = await card(user["id"], pan)
    another = await card(careful_user["id"], second)
    silent = await card(silent_user["id"], SILENT_CARD, cvc="123")
    # What is refused: with the number and the code in the wrong places too.
    base = {"user": user["id"], "number": pan, "exp_month": 12, "exp_year": 2034, "cvc": cvc, "holder_name": name}
    for changes in (
        {"number": pan[:-1] + str((int(pan[-1]) + 1) % 10)},
        {"number": int(pan)},
        {"cvc": f"{cvc}9"},
        {"exp_year": 2020},
        {"exp_month": pan},
        {"holder_name": pan * 9},
        {pan: cvc},
        {"user": "usr_absent"},
    ):
        response = await shop.post("/v1/payment_methods/cards", base | changes)
        assert response.status_code >= 400
        errors.append(response.text)
    response = await shop.http.post("/v1/payment_methods/cards", content=f'{{"number": "{pan}", '.encode())
    errors.append(response.text)
    for body in (order(pan), order(first["id"], f"{pan}"), order(first["id"], merchant={"id": pan}), {pan: cvc}):
        errors.append((await shop.post("/v1/payments", body)).text)

    paid = await shop.captured(first["id"], 2500)
    refund = (await shop.post(f"/v1/payments/{paid['id']}/refunds", {"amount_minor": 700})).json()
    await shop.outcome(f"/v1/refunds/{refund['id']}", refund)
    in_doubt = (await shop.pay(silent["id"], 2600, capture_method="manual")).json()
    await shop.outcome(f"/v1/payments/{in_doubt['id']}")
    stepped = (await shop.pay(another["id"], 300_000, capture_method="manual")).json()
    assert stepped["status"] == "requires_action"
    errors.append((await shop.post(f"/v1/payments/{stepped['id']}/confirm", {"code": "000000"})).text)
    await shop.pay(first["id"], 2700, location=NEW_YORK)
    blocked = await shop.pay(first["id"], 2700, location=SYDNEY)
    assert blocked.status_code == 402
    errors.append(blocked.text)
    await until(lambda: sandbox.messages(push_token), bool)

    users = (user["id"], silent_user["id"], careful_user["id"])
    async with database.connect() as connection:
        rows = await connection.execute(
            text("SELECT id FROM platform.payments WHERE user_id = ANY(:users)"), {"users": list(users)}
        )
        payments = [row.id for row in rows]
        rows = await connection.execute(
            text("SELECT token_id FROM platform.payment_methods WHERE user_id = ANY(:users)"), {"users": list(users)}
        )
        tokens = [row.token_id for row in rows]
        rows = await connection.execute(
            text(
                "SELECT DISTINCT sealed_pan FROM network.messages WHERE payment_id = ANY(:payments)"
                " AND sealed_pan IS NOT NULL"
            ),
            {"payments": payments},
        )
        boxes = [row.sealed_pan for row in rows]
    unsealer = Unsealer([base64.b64decode(platform.secret("unsealing_private_key"))])
    dpans = {unsealer.open(PAN_PURPOSE, box)["dpan"] for box in boxes}
    assert len(dpans) == 2
    workflows = [f"payment/{payment}" for payment in payments] + [f"token-provisioning/{token}" for token in tokens]
    return Canaries(
        account=shop.account_id,
        pans=(pan, second, SILENT_CARD),
        cvc=cvc,
        name=name,
        api_key=shop.key,
        session=session,
        push_token=push_token,
        dpans=tuple(dpans),
        workflow_ids=(*workflows, f"refund/{refund['id']}"),
        error_bodies=tuple(errors),
        user_ids=users,
    )


# ------------------------------------------------------------------------------------------------------- histories


def _payloads(message: Message) -> Iterator[Payload]:
    """All payloads in `message` but those of search attributes, which are never encrypted: Temporal searches them."""
    if isinstance(message, Payload):
        yield message
        return
    if isinstance(message, SearchAttributes):
        return
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values = [item for item in value.values() if isinstance(item, Message)]
        else:
            values = list(value) if field.is_repeated else [value]
        for item in values:
            yield from _payloads(item)


MARKER_FIELDS = {
    "seq",
    "attempt",
    "activity_id",
    "activity_type",
    "complete_time",
    "backoff",
    "original_schedule_time",
    "activation_index",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What Temporal has of one workflow, fetched without the codec: events and description."""

    workflow_id: str
    messages: tuple[Message, ...]

    @property
    def payloads(self) -> list[Payload]:
        return [payload for message in self.messages for payload in _payloads(message)]


@pytest_asyncio.fixture(scope="module")
async def recorded(canaries: Canaries, temporal: Client) -> list[Recorded]:
    async def fetch(workflow_id: str) -> Recorded:
        handle = temporal.get_workflow_handle(workflow_id)
        history, description = await asyncio.gather(handle.fetch_history(), handle.describe())
        return Recorded(workflow_id, (*history.events, description.raw_description))

    return list(await asyncio.gather(*map(fetch, canaries.workflow_ids)))


def test_temporal_holds_no_canary_in_clear(canaries: Canaries, recorded: list[Recorded]) -> None:
    assert len(recorded) >= 8
    for workflow in recorded:
        raw = b"".join(message.SerializeToString() for message in workflow.messages)
        # Base64 in JSON would hide what is plain in the bytes, so both are looked at.
        shown = json.dumps([MessageToDict(message) for message in workflow.messages])
        for content in (raw, shown.encode()):
            check_absent(content, (*canaries.secrets, canaries.name, canaries.push_token), workflow.workflow_id)
        check_no_code(shown, canaries.cvc, workflow.workflow_id)


def test_every_payload_in_a_history_is_encrypted(recorded: list[Recorded]) -> None:
    for workflow in recorded:
        assert len(workflow.payloads) > 3
        plain = [payload for payload in workflow.payloads if payload.metadata.get("encoding") != ENCODING]
        # The SDK keeps its own account of a local activity in clear: which one, which attempt, when; not what about.
        for payload in plain:
            assert set(json.loads(payload.data)) == MARKER_FIELDS, workflow.workflow_id


async def test_even_the_decrypted_payloads_hold_no_card_data(
    canaries: Canaries, recorded: list[Recorded], platform: Access
) -> None:
    codec = EncryptionCodec({"k1": base64.b64decode(platform.secret("codec_key"))}, "k1")
    for workflow in recorded:
        encrypted = [payload for payload in workflow.payloads if payload.metadata.get("encoding") == ENCODING]
        decrypted = b"\n".join(payload.data for payload in await codec.decode(encrypted))
        check_absent(decrypted, canaries.secrets, f"{workflow.workflow_id}, decrypted")
        check_absent(decrypted, (canaries.name, canaries.push_token), f"{workflow.workflow_id}, decrypted")
        check_no_code(decrypted.decode(errors="replace"), canaries.cvc, f"{workflow.workflow_id}, decrypted")


def test_workflow_ids_and_search_attributes_name_nobody(canaries: Canaries, recorded: list[Recorded]) -> None:
    for workflow in recorded:
        assert re.fullmatch(r"[a-z-]+/[a-z]+_[a-z2-7]{24}", workflow.workflow_id)


# ---------------------------------------------------------------------------------------- databases, cache, logs, files

# Where a name belongs: the user's row, the texts made of it, and the answer that is replayed to the one who sent it.
NAMES_ALLOWED = {"platform.users", "platform.idempotency_keys", "notify.inbox"}


async def test_no_table_holds_a_canary(canaries: Canaries, database: AsyncEngine) -> None:
    tables = text(
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    async with database.connect() as connection:
        names = [row.name for row in await connection.execute(tables)]
        assert len(names) > 15
        for table in names:
            rows = await connection.execute(text(f"SELECT entry::text AS shown FROM {table} AS entry"))
            content = as_stored(row.shown for row in rows)
            check_absent(content, canaries.secrets, table)
            check_no_code(content.decode(errors="replace"), canaries.cvc, table)
            if table not in NAMES_ALLOWED:
                check_absent(content, (canaries.name,), table)


async def test_the_cache_holds_no_canary(canaries: Canaries, platform: Access) -> None:
    client = aioredis.Redis.from_url(platform.redis_url)
    content = [part async for part in _everything(client)]
    await client.aclose()
    assert len(content) > 5
    whole = b"\n".join(content)
    check_absent(whole, (*canaries.secrets, canaries.name, canaries.push_token), "Redis")
    assert canaries.cvc.encode() not in content
    check_no_code(whole.decode(errors="replace"), canaries.cvc, "Redis")


async def _everything(client: aioredis.Redis) -> Any:
    async for key in client.scan_iter(count=1000):
        yield key
        match await client.type(key):
            case b"string":
                yield await client.get(key) or b""
            case b"hash":
                for name, value in (await client.hgetall(key)).items():
                    yield name
                    yield value
            case b"zset":
                for member in await client.zrange(key, 0, -1):
                    yield member
            case b"list":
                for member in await client.lrange(key, 0, -1):
                    yield member
            case b"set":
                for member in await client.smembers(key):
                    yield member
            case b"none":
                continue
            case kind:
                raise AssertionError(f"{key} is of a kind that nobody looks into: {kind!r}")


def test_no_log_names_anybody_or_anything(canaries: Canaries, platform: Access) -> None:
    logs = sorted((Path(platform.state) / "logs").glob("*.log"))
    assert len(logs) >= 8
    for log in logs:
        content = log.read_bytes()
        check_absent(content, (*canaries.secrets, canaries.name, canaries.push_token), log.name)
        check_no_code(content.decode(errors="replace"), canaries.cvc, log.name)


def test_the_logs_do_say_what_happened(canaries: Canaries, platform: Access) -> None:
    """The search above would also be content with empty logs."""
    content = (Path(platform.state) / "logs" / "api.log").read_text()
    assert "POST /v1/payments 402" in content


def test_the_networks_journal_and_temporals_file_hold_no_number(canaries: Canaries, platform: Access) -> None:
    files = [*(Path(platform.state) / "data" / "simulator").iterdir()]
    files += [path for path in (run_folder() / "temporal").iterdir() if path.name.startswith("temporal.db")]
    assert len(files) >= 2
    for file in files:
        content = file.read_bytes()
        for number in canaries.numbers:
            assert number.encode() not in content, file.name
        if file.name.startswith("temporal"):
            assert canaries.name.encode() not in content
            assert canaries.api_key[-43:].encode() not in content


def test_no_error_repeats_what_was_sent(canaries: Canaries) -> None:
    assert len(canaries.error_bodies) > 12
    for body in canaries.error_bodies:
        assert '"error"' in body
        check_absent(body.encode(), (*canaries.secrets, canaries.name), f"the error {body[:80]}…")
        check_no_code(body, canaries.cvc, f"the error {body[:80]}…")


async def test_answers_show_at_most_bin_and_last_four(canaries: Canaries, shop: Shop) -> None:
    for user in canaries.user_ids:
        shown = json.dumps(await shop.get("/v1/payment_methods", user=user))
        shown += json.dumps(await shop.get("/v1/payments", user=user))
        check_absent(shown.encode(), canaries.numbers, "an answer")
        assert canaries.cvc not in re.findall(r'"(\d+)"', shown)


def test_the_search_would_find_what_it_looks_for(canaries: Canaries) -> None:
    """Every form that a number may take, put into a text, is found."""
    for form in written_forms(canaries.pans[0]):
        with pytest.raises(AssertionError):
            check_absent(b"before " + form + b" after", canaries.pans, "a text")
    for written in (f'{{"cvc": "{canaries.cvc}"}}', f"code {canaries.cvc} end", f"({canaries.cvc})"):
        with pytest.raises(AssertionError):
            check_no_code(written, canaries.cvc, "a text")
