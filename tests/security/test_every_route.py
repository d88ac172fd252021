"""Rules that every operation of the API keeps. They come from its own document, so that a new one keeps them, too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.integration.api.test_api_bad_input import check_error
from tests.support.app import App, Someone
from tests.support.member import Member, signed_up
from tests.support.openapi import FORM, JSON, Operation, example, operations, resolved
from tests.support.platform import Access
from tests.support.shop import Json, Sandbox, Shop, http_client, new_key, until
from tests.unit.documents.files import PDF

DISPUTED = "4000000000000259"

OPERATIONS = list(operations())
WITH_JSON = [operation for operation in OPERATIONS if operation.content_type == JSON]
# Parameters that name something of somebody's, and what each is in `Owner.ids`. A list's cursors name what it lists.
NAMES = {
    "user": "user_id",
    "payment": "payment_id",
    "payment_method": "payment_method_id",
    "starting_after": None,
    "ending_before": None,
}


def described(operation: Operation) -> str:
    return str(operation)


@dataclass(frozen=True, slots=True)
class Owner:
    """An account with one of everything. `ids` are by the names of the parameters that take them."""

    shop: Shop
    ids: Mapping[str, str]

    async def everything(self) -> list[Json]:
        """All that is shown of what the ids name."""
        ids = self.ids
        return [
            await self.shop.get(path)
            for path in (
                f"/v1/users/{ids['user_id']}",
                f"/v1/users/{ids['user_id']}/messages",
                f"/v1/users/{ids['user_id']}/onboarding",
                f"/v1/payment_methods/{ids['payment_method_id']}",
                f"/v1/payments/{ids['payment_id']}",
                f"/v1/payments/{ids['payment_id']}/refunds",
                f"/v1/disputes/{ids['dispute_id']}",
            )
        ]


@pytest_asyncio.fixture(scope="module")
async def owner(platform: Access, database: AsyncEngine, shop: Shop, sandbox: Sandbox) -> AsyncIterator[Owner]:
    app = await App.of(platform, database, shop.account_id, sandbox)
    member = await signed_up(app, platform)
    try:
        yield Owner(shop, await things_of_a_member(member, shop) | await payments_of(member.user_id, shop))
    finally:
        await app.close()


async def payments_of(user_id: str, shop: Shop) -> dict[str, str]:
    """Two cards: what was paid with one is disputed, what was paid with the other is refunded."""
    disputed = await shop.captured((await shop.add_card(user_id, DISPUTED))["id"])
    card_id = (await shop.add_card(user_id))["id"]
    payment = await shop.captured(card_id)
    refund: Json = (await shop.post(f"/v1/payments/{payment['id']}/refunds", {"amount_minor": 1})).json()
    disputes = await until(lambda: shop.get("/v1/disputes", payment=disputed["id"]), lambda found: bool(found["data"]))
    dispute_id = disputes["data"][0]["id"]
    evidence = await upload(shop, f"/v1/disputes/{dispute_id}/evidence")
    messages = await until(lambda: shop.get(f"/v1/users/{user_id}/messages"), lambda found: len(found["data"]) >= 2)
    await shop.outcome(f"/v1/refunds/{refund['id']}", refund)
    return {
        "payment_method_id": card_id,
        "payment_id": payment["id"],
        "refund_id": refund["id"],
        "dispute_id": dispute_id,
        "file_id": evidence["evidence"]["files"][0]["id"],
        "message_id": messages["data"][0]["id"],
    }


async def things_of_a_member(member: Member, shop: Shop) -> dict[str, str]:
    """What a user has who registered, but for their cards; and a key of the account."""
    user_id = member.user_id
    change = await member.post(f"/v1/users/{user_id}/contact_changes", {"email": Someone().email})
    bank_account = {
        "user": user_id,
        "routing_number": "021000021",
        "account_number": "1000123",
        "account_type": "checking",
    }
    account_id = made(await shop.post("/v1/payment_methods/bank_accounts", bank_account))["id"]
    sessions = await shop.get(f"/v1/users/{user_id}/sessions")
    document = await upload(shop, f"/v1/users/{user_id}/onboarding/documents", kind="identity_front")
    return {
        "user_id": user_id,
        "registration_id": (await member.app.begin(Someone()))["id"],
        "session_id": sessions["data"][0]["id"],
        "code_id": made(change)["id"],
        "key_id": made(await shop.post("/v1/api_keys", {"name": "till"}))["id"],
        "passkey_id": (await member.add_passkey())["id"],
        "device_id": made(await member.register_device())["id"],
        "document_id": document["documents"][0]["id"],
        "micro_deposit_id": made(await shop.post(f"/v1/payment_methods/{account_id}/micro_deposits"))["id"],
    }


async def upload(shop: Shop, path: str, **fields: str) -> Json:
    files: dict[str, Any] = {"file": ("receipt.pdf", PDF, "application/pdf")}
    files |= {name: (None, value) for name, value in fields.items()}
    return made(await shop.http.post(path, files=files, headers={"Idempotency-Key": new_key()}))


def made(response: httpx.Response) -> Json:
    assert response.is_success, response.text
    found: Json = response.json()
    return found


@pytest_asyncio.fixture(scope="module")
async def strangers(
    platform: Access, database: AsyncEngine, owner: Owner
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Everybody who has nothing to do with what is the owner's."""
    other = await Shop.open(platform, database)
    operator = await Shop.open(platform, database, operator=True)
    clients = {
        "another account": other.http,
        "another account's operator": operator.http,
        "another user of the account": http_client(platform, await session_of(owner.shop)),
        "a user of another account": http_client(platform, await session_of(other)),
    }
    yield clients
    for client in clients.values():
        await client.aclose()


async def session_of(shop: Shop) -> str:
    user = await shop.add_user()
    token: str = (await shop.post(f"/v1/users/{user['id']}/sessions")).json()["token"]
    return token


def absent(identifier: str) -> str:
    """An id of the same form that nothing has."""
    prefix, _, rest = identifier.partition("_")
    return f"{prefix}_{'a' * len(rest)}"


async def ask(
    client: httpx.AsyncClient, operation: Operation, ids: Mapping[str, str], body: Any = None, **parameters: str
) -> httpx.Response:
    """A request that is right in all but who sends it: its body names what `ids` name."""
    needed = {
        each["name"]: example(each["schema"])
        for each in operation.parameters
        if each["in"] == "query" and each["required"]
    }
    given: dict[str, Any] = {"params": needed | parameters, "headers": {"Idempotency-Key": new_key()}}
    if operation.content_type == FORM:
        given["files"] = {"uncategorized_text": (None, "It was delivered")}
    elif operation.body is not None:
        named = {name: ids[NAMES[name] or ""] for name in operation.properties() if NAMES.get(name)}
        given["json"] = example(operation.body) | named if body is None else body
    return await client.request(operation.method, operation.path.format_map({**ids, "day": "2026-11-22"}), **given)


def answer(response: httpx.Response, ids: Mapping[str, str]) -> tuple[int, str]:
    """What a stranger learns from it, whatever it was asked about."""
    shown = response.text
    for identifier in ids.values():
        shown = shown.replace(identifier, "…")
    return response.status_code, shown.replace(response.headers["Request-Id"], "…")


def test_every_parameter_that_names_something_is_known_here() -> None:
    """A new kind of id: give the owner one of these above."""
    for operation in OPERATIONS:
        assert set(operation.names("path")) <= OWNED | NOBODYS, str(operation)
        for name in operation.names("query") + list(operation.properties()):
            if resolved_example(operation, name).endswith("_…"):
                assert name in NAMES, f"{operation}: {name}"


OWNED = {
    "code_id", "device_id", "dispute_id", "document_id", "file_id", "key_id", "message_id", "micro_deposit_id",
    "passkey_id", "payment_id", "payment_method_id", "refund_id", "registration_id", "session_id", "user_id",
}  # fmt: skip
# Days are everybody's.
NOBODYS = {"day"}


def resolved_example(operation: Operation, name: str) -> str:
    schema = resolved(operation.properties().get(name, {}))
    return str(next(iter(schema.get("examples", ())), ""))


@pytest.mark.parametrize("operation", OPERATIONS, ids=described)
async def test_what_is_somebody_elses_is_answered_like_what_is_not_there(
    operation: Operation, owner: Owner, strangers: Mapping[str, httpx.AsyncClient]
) -> None:
    named = [*operation.names("path"), *(NAMES.get(name) for name in operation.properties())]
    nowhere = {name: absent(identifier) for name, identifier in owner.ids.items()}
    before = await owner.everything()
    for who, client in strangers.items():
        if any(named):
            theirs = await ask(client, operation, owner.ids)
            nothing = await ask(client, operation, nowhere)
            assert answer(theirs, owner.ids) == answer(nothing, nowhere), who
            assert theirs.status_code in (403, 404), (who, theirs.text)
        for name in operation.names("query"):
            for identifier in [NAMES[name]] if NAMES.get(name) else list(owner.ids) if name in NAMES else []:
                theirs = await ask(client, operation, owner.ids, **{name: owner.ids[identifier or ""]})
                nothing = await ask(client, operation, nowhere, **{name: nowhere[identifier or ""]})
                assert answer(theirs, owner.ids) == answer(nothing, nowhere), (who, name)
                if theirs.status_code == 200:
                    assert theirs.json()["data"] == [], (who, name)
    assert await owner.everything() == before


@pytest.mark.parametrize("operation", WITH_JSON, ids=described)
@pytest.mark.parametrize("name", ["status", "balance"])
async def test_a_field_that_an_operation_does_not_have_is_refused(
    operation: Operation, name: str, owner: Owner, operator: Shop
) -> None:
    assert name not in operation.properties()
    body = example(operation.body or {})
    for client in (owner.shop.http, operator.http):
        response = await ask(client, operation, owner.ids, body | {name: "captured"})
        if response.status_code != 403:
            check_error(response, 422, "parameter_unknown", name)
            break
    else:
        pytest.fail("neither a client nor an operator may ask for it")


NO_AMOUNTS = {
    "zero": "0",
    "negative": "-1",
    "beyond every number of cents": "100000000000000000000",
    "with a fraction": "1.5",
    "a whole number written as a fraction": "10.0",
    "with an exponent": "1e3",
    "a text": '"100"',
    "true": "true",
    "not a number": "NaN",
    "infinite": "Infinity",
}
WITH_AMOUNT = [
    (operation, name)
    for operation in WITH_JSON
    for name, schema in operation.properties().items()
    if name.endswith("_minor") and resolved(schema)["type"] == "integer"
]


@pytest.mark.parametrize("amount", NO_AMOUNTS.values(), ids=NO_AMOUNTS.keys())
@pytest.mark.parametrize(("operation", "name"), WITH_AMOUNT, ids=[f"{each} {name}" for each, name in WITH_AMOUNT])
async def test_what_is_no_amount_is_refused(operation: Operation, name: str, amount: str, owner: Owner) -> None:
    before = await owner.everything()
    body = json.dumps(example(operation.body or {}) | {name: "AMOUNT"}).replace('"AMOUNT"', amount)
    response = await owner.shop.http.request(
        operation.method,
        operation.path.format_map(owner.ids),
        content=body,
        headers={"Idempotency-Key": new_key(), "Content-Type": JSON},
    )
    check_error(response, 422, "amount_invalid", name)
    assert await owner.everything() == before
