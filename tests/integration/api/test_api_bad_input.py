"""What the API refuses: each refusal has the documented shape, names what is wrong, and has written nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from api.errors import CATALOGUE
from domain.ids import payment_workflow_id
from tests.support.platform import Access
from tests.support.shop import GOOD_CARD, Json, Shop, Wallet, http_client, new_key, order

ERROR_FIELDS = {"type", "code", "decline_code", "message", "param", "doc_url", "request_id"}


@pytest_asyncio.fixture(scope="module")
async def wallet(shop: Shop) -> Wallet:
    return await shop.wallet()


@pytest_asyncio.fixture(scope="module")
async def stranger(platform: Access, database: AsyncEngine) -> AsyncIterator[Shop]:
    """Another account."""
    shop = await Shop.open(platform, database)
    yield shop
    await shop.http.aclose()


def check_error(response: httpx.Response, status: int, code: str, param: str | None = None) -> Json:
    """The error, after a look at all of its shape."""
    assert response.status_code == status, response.text[:500]
    error: Json = response.json()["error"]
    assert set(error) == ERROR_FIELDS
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == CATALOGUE[code].type
    assert status == CATALOGUE[code].status
    assert error["doc_url"].endswith(f"/errors#{code}")
    assert error["request_id"] == response.headers["Request-Id"]
    assert error["request_id"].startswith("req_")
    assert error["message"]
    return error


class Untouched:
    """What is there of a payment: rows, ledger transfers, workflow."""

    def __init__(self, database: AsyncEngine, temporal: Client) -> None:
        self._database = database
        self._temporal = temporal

    async def check_no_payment(self, payment_id: str) -> None:
        assert await self.of(payment_id) == ([], [], None)

    async def of(self, payment_id: str) -> tuple[list[Any], list[Any], int | None]:
        values = {"id": payment_id}
        async with self._database.connect() as connection:
            rows = await connection.execute(text("SELECT * FROM platform.payments WHERE id = :id"), values)
            payment = [tuple(row) for row in rows]
            transfers = "SELECT * FROM ledger.transfers WHERE reference = :id ORDER BY sequence"
            posted = [tuple(row) for row in await connection.execute(text(transfers), values)]
            query = "SELECT count(*) FROM platform.refunds WHERE payment_id = :id"
            refunds = await connection.scalar(text(query), values)
        assert not refunds
        try:
            workflow = await self._temporal.get_workflow_handle(payment_workflow_id(payment_id)).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return payment, posted, None
        return payment, posted, int(workflow.raw_description.workflow_execution_info.status)


@pytest.fixture(scope="module")
def untouched(database: AsyncEngine, temporal: Client) -> Untouched:
    return Untouched(database, temporal)


# --------------------------------------------------------------------------------------------------- bodies of payments

ABSENT = object()


@dataclass(frozen=True, slots=True)
class Bad:
    """A payment's body with `field` (dotted) set to `value`, or left out."""

    field: str
    value: Any
    status: int
    code: str
    param: str | None

    def body(self, good: Json) -> Json:
        body: Json = json.loads(json.dumps(good))
        *parents, name = self.field.split(".")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
        if self.value is ABSENT:
            del place[name]
        else:
            place[name] = self.value
        return body


def amount(value: Any, code: str = "amount_invalid") -> Bad:
    return Bad("amount_minor", value, 422, code, "amount_minor")


def invalid(field: str, value: Any, code: str = "parameter_invalid", param: str | None = None) -> Bad:
    return Bad(field, value, 422, code, param or field)


BAD_PAYMENTS = {
    "amount of zero": amount(0),
    "negative amount": amount(-1),
    "fractional amount": amount(1.5),
    "whole number written as a fraction": amount(2000.0),
    "boolean amount": amount(True),
    "amount as text": amount("12"),
    "astronomical amount": amount(1e20),
    "amount beyond 64 bits": amount(10**30),
    "not a number": amount(float("nan")),
    "infinite amount": amount(float("inf")),
    "null amount": amount(None),
    "amount as list": amount([2000]),
    "amount above the limit": amount(1_000_001, "amount_above_limit"),
    "missing amount": amount(ABSENT, "parameter_missing"),
    "unknown currency": invalid("currency", "XXX", "currency_unknown"),
    "currency in lower case": invalid("currency", "usd", "currency_unknown"),
    "currency as number": invalid("currency", 840),
    "missing currency": invalid("currency", ABSENT, "parameter_missing"),
    "missing payment method": invalid("payment_method", ABSENT, "parameter_missing"),
    "payment method as number": invalid("payment_method", 7),
    "unknown payment method": Bad("payment_method", "pm_nobody", 404, "resource_missing", "payment_method"),
    "huge payment method": Bad("payment_method", "p" * 50_000, 404, "resource_missing", "payment_method"),
    "payment method with a NUL": invalid("payment_method", "pm_\0"),
    "missing merchant": invalid("merchant", ABSENT, "parameter_missing"),
    "merchant as text": invalid("merchant", "coffee"),
    "missing merchant name": invalid("merchant.name", ABSENT, "parameter_missing"),
    "merchant name too long": invalid("merchant.name", "M" * 23),
    "merchant name with a NUL": invalid("merchant.name", "Corner\0Coffee"),
    "merchant name with a line break": invalid("merchant.name", "Corner\nCoffee"),
    "merchant name that ends in a line break": invalid("merchant.name", "Corner\n"),
    "merchant category of letters": invalid("merchant.category_code", "ABCD"),
    "merchant category of other digits": invalid("merchant.category_code", "٥٨١٤"),
    "unknown country": invalid("merchant.country", "XX"),
    "a status of one's own": invalid("status", "captured", "parameter_unknown"),
    "a balance": invalid("balance", 10**6, "parameter_unknown"),
    "an id of one's own": invalid("id", "pay_mine", "parameter_unknown"),
    "an account of one's choice": invalid("account_id", "acct_other", "parameter_unknown"),
    "a decision of one's own": invalid("risk", {"action": "allow"}, "parameter_unknown"),
    "an unknown field deeper down": invalid("merchant.balance", 1, "parameter_unknown"),
    "unknown capture method": invalid("capture_method", "later"),
    "address that is none": invalid("device.ip_address", "999.1.1.1", "parameter_invalid"),
    "device id with a NUL": invalid("device.id", "phone\0"),
    "user agent with a NUL": invalid("device.user_agent", "agent\0"),
    "latitude off the globe": invalid("location", {"latitude": 91, "longitude": 0}, param="location.latitude"),
    "latitude not a number": invalid("location", {"latitude": float("nan"), "longitude": 0}, param="location.latitude"),
    "half a location": invalid("location", {"latitude": 1}, "parameter_missing", "location.longitude"),
    "metadata with too many keys": invalid("metadata", {f"k{n}": "v" for n in range(51)}),
    "metadata with a long key": invalid("metadata", {"k" * 41: "v"}),
    "metadata with a card number": invalid("metadata", {"card": "4242 4242 4242 4242"}, "card_number_refused"),
    "metadata with a long value": invalid("metadata", {"k": "v" * 501}),
    "metadata with a number": invalid("metadata", {"k": 1}, param="metadata.k"),
    "metadata with a NUL": invalid("metadata", {"k": "a\0b"}),
    "metadata with a NUL in a key": invalid("metadata", {"a\0b": "v"}),
}


@pytest.mark.parametrize("name", BAD_PAYMENTS)
async def test_a_payment_with_bad_parameters_is_refused(
    name: str, shop: Shop, wallet: Wallet, untouched: Untouched
) -> None:
    bad, key = BAD_PAYMENTS[name], new_key()
    # Not by httpx: JSON has no NaN, but clients send it.
    content = json.dumps(bad.body(order(wallet.card_id)))
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    response = await shop.http.post("/v1/payments", content=content, headers=headers)
    check_error(response, bad.status, bad.code, bad.param)
    await untouched.check_no_payment(shop.payment_id(key))


BROKEN_BODIES: dict[str, tuple[bytes, int, str, str | None]] = {
    "empty": (b"", 422, "parameter_missing", None),
    "not JSON": (b"{amount: 1", 400, "body_invalid", None),
    "half a JSON": (b'{"amount_minor": 2000, ', 400, "body_invalid", None),
    "not UTF-8": (b'{"currency": "\xff\xfe"}', 400, "body_invalid", None),
    "a list": (b"[]", 422, "parameter_invalid", None),
    "null": (b"null", 422, "parameter_invalid", None),
    "a number": (b"2000", 422, "parameter_invalid", None),
    "very deep": (b"[" * 30_000 + b"]" * 30_000, 400, "body_invalid", None),
    "very deep inside": (b'{"metadata": ' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}", 400, "body_invalid", None),
    "a number of many digits": (b'{"amount_minor": ' + b"9" * 5_000 + b"}", 400, "body_invalid", None),
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
async def test_a_body_that_is_no_json_object_is_refused(name: str, shop: Shop, untouched: Untouched) -> None:
    content, status, code, param = BROKEN_BODIES[name]
    key = new_key()
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    response = await shop.http.post("/v1/payments", content=content, headers=headers)
    check_error(response, status, code, param)
    await untouched.check_no_payment(shop.payment_id(key))


async def test_half_a_surrogate_pair_is_refused(shop: Shop, wallet: Wallet, untouched: Untouched) -> None:
    key = new_key()
    body = json.dumps(order(wallet.card_id, metadata={"k": "X"})).replace('"X"', '"\\ud800"')
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    response = await shop.http.post("/v1/payments", content=body, headers=headers)
    check_error(response, 422, "parameter_invalid", "metadata")
    await untouched.check_no_payment(shop.payment_id(key))


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data", None]
)
async def test_another_content_type_is_refused(
    shop: Shop, wallet: Wallet, untouched: Untouched, content_type: str | None
) -> None:
    key = new_key()
    headers = {"Idempotency-Key": key} | ({"Content-Type": content_type} if content_type else {})
    content = json.dumps(order(wallet.card_id)).encode()
    response = await shop.http.post("/v1/payments", content=content, headers=headers)
    check_error(response, 415, "content_type_unsupported", "Content-Type")
    await untouched.check_no_payment(shop.payment_id(key))


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks without a length"])
async def test_a_body_that_is_too_large_is_refused(
    shop: Shop, wallet: Wallet, untouched: Untouched, chunked: bool
) -> None:
    key = new_key()
    content = json.dumps(order(wallet.card_id, metadata={"k": "v" * 70_000})).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 8192):
            yield content[start : start + 8192]

    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    response = await shop.http.post("/v1/payments", content=chunks() if chunked else content, headers=headers)
    check_error(response, 413, "body_too_large")
    await untouched.check_no_payment(shop.payment_id(key))


# ----------------------------------------------------------------------------------------------------- cards and users

BAD_CARDS: dict[str, tuple[Json, str, str | None]] = {
    "wrong check digit": ({"number": "4242424242424241"}, "incorrect_number", "number"),
    "too short": ({"number": "42424242420"}, "incorrect_number", "number"),
    "letters": ({"number": "4242x24242424242"}, "incorrect_number", "number"),
    "digits of another script": ({"number": "４２４２４２４２４２４２４２４２"}, "incorrect_number", "number"),
    "with a NUL": ({"number": "424242424242424\0"}, "incorrect_number", "number"),
    "as a number": ({"number": 4242424242424242}, "parameter_invalid", "number"),
    "missing number": ({"number": ABSENT}, "parameter_missing", "number"),
    "of no network": ({"number": "9999999999999995"}, "card_brand_unsupported", "number"),
    "expired": ({"exp_year": 2020}, "expired_card", "exp_year"),
    "month 13": ({"exp_month": 13}, "parameter_invalid", "exp_month"),
    "month as text": ({"exp_month": "12"}, "parameter_invalid", "exp_month"),
    "code of two digits": ({"cvc": "12"}, "invalid_cvc", "cvc"),
    "code of four digits": ({"cvc": "1234"}, "invalid_cvc", "cvc"),
    "code of letters": ({"cvc": "abc"}, "invalid_cvc", "cvc"),
    "code of three digits for American Express": ({"number": "378282246310005"}, "invalid_cvc", "cvc"),
    "a status of one's own": ({"status": "active"}, "parameter_unknown", "status"),
    "a token of one's own": ({"token_id": "tok_mine"}, "parameter_unknown", "token_id"),
}


@pytest.mark.parametrize("name", BAD_CARDS)
async def test_a_card_that_cannot_be_right_is_refused(name: str, shop: Shop, database: AsyncEngine) -> None:
    changes, code, param = BAD_CARDS[name]
    user = await shop.add_user()
    body = {"user": user["id"], "number": GOOD_CARD, "exp_month": 12, "exp_year": 2034, "cvc": "123"} | changes
    response = await shop.post("/v1/payment_methods/cards", {k: v for k, v in body.items() if v is not ABSENT})
    error = check_error(response, 422, code, param)
    assert str(changes.get("number", GOOD_CARD)) not in json.dumps(error)
    async with database.connect() as connection:
        for table, column in (("platform.payment_methods", "user_id"), ("vault.tokens", "owner_id")):
            made = text(f"SELECT count(*) FROM {table} WHERE {column} = :user")
            assert await connection.scalar(made, {"user": user["id"]}) == 0


BAD_USERS: dict[str, tuple[Json, str, str | None]] = {
    "without a name": ({"name": ABSENT}, "parameter_missing", "name"),
    "with an empty name": ({"name": "  "}, "parameter_invalid", "name"),
    "with a name that is too long": ({"name": "n" * 201}, "parameter_invalid", "name"),
    "with a NUL in the name": ({"name": "Ada\0"}, "parameter_invalid", "name"),
    "with a number for a name": ({"name": 5}, "parameter_invalid", "name"),
    "with an address without an at sign": ({"email": "ada.example.com"}, "parameter_invalid", "email"),
    "with a line break in the address": (
        {"email": "ada@example.com\nBcc: x@example.com"},
        "parameter_invalid",
        "email",
    ),
    "with a NUL in the address": ({"email": "a\0da@example.com"}, "parameter_invalid", "email"),
    "with no phone number": ({"phone": "call me"}, "parameter_invalid", "phone"),
    "with a national phone number": ({"phone": "4155550100"}, "parameter_invalid", "phone"),
    "with an unknown language": ({"locale": "tlh"}, "parameter_invalid", "locale"),
    "with a balance": ({"balance": 5}, "parameter_unknown", "balance"),
}


@pytest.mark.parametrize("name", BAD_USERS)
async def test_a_user_with_bad_parameters_is_refused(name: str, shop: Shop, database: AsyncEngine) -> None:
    changes, code, param = BAD_USERS[name]
    marker = secrets.token_hex(6)
    body = {"name": marker, "email": f"{marker}@example.com"} | changes
    count = text("SELECT count(*) FROM platform.users WHERE account_id = :account")
    async with database.connect() as connection:
        before = await connection.scalar(count, {"account": shop.account_id})
        response = await shop.post("/v1/users", {k: v for k, v in body.items() if v is not ABSENT})
        check_error(response, 422, code, param)
        assert await connection.scalar(count, {"account": shop.account_id}) == before


async def test_a_push_token_with_a_nul_is_refused(shop: Shop, wallet: Wallet) -> None:
    body = {"token": "device-token\0", "platform": "ios"}
    response = await shop.post(f"/v1/users/{wallet.user_id}/push_tokens", body)
    check_error(response, 422, "parameter_invalid", "token")


# ------------------------------------------------------------------------------------------------ in the wrong state

CODE_NEEDED = 300_000


async def test_more_than_was_authorized_is_not_captured(shop: Shop, wallet: Wallet, untouched: Untouched) -> None:
    payment = await shop.authorized(wallet.card_id, 2000)
    before = await untouched.of(payment["id"])
    response = await shop.post(f"/v1/payments/{payment['id']}/capture", {"amount_minor": 2001})
    check_error(response, 422, "amount_too_large", "amount_minor")
    for wrong in (0, -1, 1.5, True, "1", None):
        response = await shop.post(f"/v1/payments/{payment['id']}/capture", {"amount_minor": wrong, "final": "yes"})
        assert response.status_code == 422
    assert await untouched.of(payment["id"]) == before


async def test_more_than_was_captured_or_in_another_currency_is_not_refunded(
    shop: Shop, wallet: Wallet, untouched: Untouched
) -> None:
    payment = await shop.captured(wallet.card_id, 2000)
    before = await untouched.of(payment["id"])
    path = f"/v1/payments/{payment['id']}/refunds"
    check_error(await shop.post(path, {"amount_minor": 2001}), 422, "amount_too_large", "amount_minor")
    check_error(await shop.post(path, {"amount_minor": 0}), 422, "amount_invalid", "amount_minor")
    check_error(await shop.post(path, {"currency": "EUR"}), 422, "parameter_invalid", "currency")
    check_error(await shop.post(path, {"currency": "XXX"}), 422, "currency_unknown", "currency")
    check_error(await shop.post(path, {"reason": "a\0b"}), 422, "parameter_invalid", "reason")
    assert await untouched.of(payment["id"]) == before


async def test_a_refused_refund_leaves_no_refund_behind(shop: Shop, wallet: Wallet) -> None:
    payment = await shop.authorized(wallet.card_id)
    response = await shop.post(f"/v1/payments/{payment['id']}/refunds", {"amount_minor": 1})
    assert response.status_code in (409, 422)
    assert (await shop.get(f"/v1/payments/{payment['id']}/refunds"))["data"] == []


async def test_a_voided_payment_takes_neither_capture_nor_void_nor_refund(
    shop: Shop, wallet: Wallet, untouched: Untouched
) -> None:
    payment = await shop.authorized(wallet.card_id)
    path = f"/v1/payments/{payment['id']}"
    assert (await shop.post(f"{path}/void", {"reason": "test"})).status_code == 200
    rows, transfers, _ = await untouched.of(payment["id"])
    for action in ("capture", "void", "refunds"):
        error = (await shop.post(f"{path}/{action}")).json()["error"]
        # Which of the two depends on whether the network has acknowledged meanwhile.
        assert error["code"] in ("payment_unexpected_state", "payment_closed"), action
    assert (await untouched.of(payment["id"]))[:2] == (rows, transfers)


async def test_a_captured_payment_is_not_voided_or_confirmed_or_captured_again(
    shop: Shop, wallet: Wallet, untouched: Untouched
) -> None:
    payment = await shop.captured(wallet.card_id)
    before = await untouched.of(payment["id"])
    path = f"/v1/payments/{payment['id']}"
    for action, body in (("void", {}), ("confirm", {"code": "123456"}), ("capture", {})):
        response = await shop.post(f"{path}/{action}", body)
        assert response.status_code in (409, 422), response.text
        assert response.json()["error"]["code"] in (
            "payment_unexpected_state",
            "payment_partly_captured",
            "amount_too_large",
        )
    check_error(await shop.post(f"{path}/confirm", {"code": "12345"}), 422, "parameter_invalid", "code")
    check_error(await shop.post(f"{path}/confirm", {"code": "١٢٣٤٥٦"}), 422, "parameter_invalid", "code")
    check_error(await shop.post(f"{path}/void", {"reason": "a\0b"}), 422, "parameter_invalid", "reason")
    assert await untouched.of(payment["id"]) == before


# ------------------------------------------------------------------------------------- what is somebody else's, or not

ABSENT_ID = "zzzzzzzzzzzzzzzzzzzzzzzz"


async def test_what_belongs_to_another_account_looks_like_what_does_not_exist(
    shop: Shop, stranger: Shop, wallet: Wallet
) -> None:
    payment = await shop.captured(wallet.card_id)
    refund = (await shop.post(f"/v1/payments/{payment['id']}/refunds", {"amount_minor": 1})).json()
    card_body = {"number": GOOD_CARD, "exp_month": 12, "exp_year": 2034}
    device = {"token": "device-token", "platform": "web"}
    requests: list[tuple[str, str, str, Any]] = [
        ("GET", "/v1/payments/{}", payment["id"], None),
        ("GET", "/v1/payments/{}/refunds", payment["id"], None),
        ("POST", "/v1/payments/{}/capture", payment["id"], {}),
        ("POST", "/v1/payments/{}/void", payment["id"], {}),
        ("POST", "/v1/payments/{}/confirm", payment["id"], {"code": "123456"}),
        ("POST", "/v1/payments/{}/refunds", payment["id"], {}),
        ("GET", "/v1/refunds/{}", refund["id"], None),
        ("GET", "/v1/payment_methods/{}", wallet.card_id, None),
        ("GET", "/v1/payment_methods?user={}", wallet.user_id, None),
        ("POST", "/v1/payment_methods/cards", wallet.user_id, lambda user: card_body | {"user": user}),
        ("POST", "/v1/payments", wallet.card_id, order),
        ("GET", "/v1/users/{}", wallet.user_id, None),
        ("GET", "/v1/users/{}/messages", wallet.user_id, None),
        ("POST", "/v1/users/{}/sessions", wallet.user_id, {}),
        ("POST", "/v1/users/{}/push_tokens", wallet.user_id, device),
        ("POST", "/v1/users/{}/messages/msg_x/read", wallet.user_id, {}),
    ]
    for method, path, theirs, body in requests:
        answers = []
        prefix = theirs.partition("_")[0]
        for identifier in (theirs, f"{prefix}_{ABSENT_ID}"):
            sent = body(identifier) if callable(body) else body
            response = await stranger.http.request(
                method, path.format(identifier), json=sent, headers={"Idempotency-Key": new_key()}
            )
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (404, "resource_missing"), path
            request_id = error.pop("request_id")
            assert request_id == response.headers["Request-Id"]
            answers.append(json.dumps(error).replace(identifier, "ID"))
        assert answers[0] == answers[1], path
    assert (await stranger.get("/v1/payments"))["data"] == []
    assert (await stranger.get("/v1/payments", user=wallet.user_id))["data"] == []


async def test_a_client_key_opens_no_operators_route(shop: Shop, wallet: Wallet) -> None:
    payment = await shop.authorized(wallet.card_id)
    body = {"operator": "me", "approve": True, "reason": "because"}
    response = await shop.post(f"/v1/payments/{payment['id']}/review", body)
    check_error(response, 403, "permission_denied")


# ------------------------------------------------------------------------------------------- routes, queries, headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "route_missing"),
        ("GET", "/v1/nothing", 404, "route_missing"),
        ("GET", "/v2/payments", 404, "route_missing"),
        ("GET", "/v1/payments/../../etc/passwd", 404, "route_missing"),
        ("PUT", "/v1/payments", 405, "method_not_allowed"),
        ("DELETE", "/v1/payments/pay_x", 405, "method_not_allowed"),
        ("PUT", "/v1/users/usr_x", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/payments", 405, "method_not_allowed"),
        ("GET", "/v1/payments/pay_x/capture", 405, "method_not_allowed"),
    ],
)
async def test_an_unknown_route_or_method_is_answered_in_the_same_shape(
    shop: Shop, method: str, path: str, status: int, code: str
) -> None:
    response = await shop.http.request(method, path)
    check_error(response, status, code)
    # RFC 9110, 15.5.6: whoever refuses a method names those there are.
    assert ("Allow" in response.headers) == (status == 405)


BAD_QUERIES = {
    "limit=0": "limit",
    "limit=101": "limit",
    "limit=-1": "limit",
    "limit=ten": "limit",
    "limit=1.5": "limit",
    "limit=99999999999999999999": "limit",
    "status=paid": "status",
    "created[gte]=yesterday": "created[gte]",
    "created[lt]=2026-11-22T12:00:00": "created[lt]",
    "created[gte]=99999999999999999": "created[gte]",
    "starting_after=pay_a&ending_before=pay_b": "ending_before",
}


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_a_bad_query_is_refused(shop: Shop, query: str) -> None:
    check_error(await shop.http.get(f"/v1/payments?{query}"), 422, "parameter_invalid", BAD_QUERIES[query])


async def test_a_cursor_that_is_not_ones_own_gives_an_empty_page(shop: Shop, stranger: Shop, wallet: Wallet) -> None:
    payment = await shop.authorized(wallet.card_id)
    for cursor in (payment["id"], "pay_nobody"):
        for name in ("starting_after", "ending_before"):
            page = await stranger.get("/v1/payments", **{name: cursor})
            assert (page["data"], page["has_more"]) == ([], False)


STRANGE = {
    "a NUL": "\0",
    "a NUL inside": "pay_\0abc",
    "a line break": "pay_\r\nx",
    "very long": "x" * 20_000,
    "umlaut": "pä",
}


@pytest.mark.parametrize("name", STRANGE)
async def test_a_strange_id_is_an_id_of_nothing(shop: Shop, wallet: Wallet, name: str) -> None:
    strange = quote(STRANGE[name], safe="")
    for path in (
        "/v1/payments/{}",
        "/v1/refunds/{}",
        "/v1/users/{}",
        "/v1/payment_methods/{}",
        "/v1/payments/{}/refunds",
    ):
        response = await shop.http.get(path.format(strange))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "resource_missing"), path
    response = await shop.post(f"/v1/payments/{strange}/capture")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "resource_missing")
    response = await shop.post(f"/v1/users/{wallet.user_id}/messages/{strange}/read")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "resource_missing")
    response = await shop.http.get(f"/v1/payment_methods?user={strange}")
    assert (response.status_code, response.json()["error"]["param"]) in ((404, "user"), (422, "user"))
    for query in ("starting_after", "ending_before", "user", "payment_method"):
        response = await shop.http.get(f"/v1/payments?{query}={strange}")
        if "\0" in STRANGE[name]:
            check_error(response, 422, "parameter_invalid", query)
        else:
            assert (response.status_code, response.json()["data"]) == (200, []), query
    response = await shop.http.get(f"/v1/users/{wallet.user_id}/messages?starting_after={strange}")
    assert response.status_code in (404, 422)
    assert response.json()["error"]["param"] == "starting_after"


async def test_strange_headers_are_no_faults_of_ours(shop: Shop, platform: Access, wallet: Wallet) -> None:
    for key in (b"\x85", b"k" * 5000):
        response = await shop.http.post(
            "/v1/payments",
            json=order(wallet.card_id),
            headers={b"Idempotency-Key": key},
        )
        assert response.status_code in (400, 431), (key, response.text)
    for token in (
        b"\xff\xfe",
        b"sk_test_" + b"x" * 67,
        b"sk_test_\xff",
        b"sk_",
        b"sk__",
        b"a.b.c",
        b"x" * 20_000,
    ):
        async with http_client(platform, None) as client:
            response = await client.get("/v1/payments", headers={b"Authorization": b"Bearer " + token})
        check_error(response, 401, "credentials_invalid")


async def test_health_and_error_pages_are_open_and_every_code_is_explained(platform: Access) -> None:
    async with http_client(platform, None) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        page = (await client.get("/errors")).text
    assert all(f'id="{code}"' in page for code in CATALOGUE)


async def test_every_documented_route_refuses_a_stranger_in_the_documented_shape(platform: Access) -> None:
    async with http_client(platform, None) as client:
        paths: Json = (await client.get("/openapi.json")).json()["paths"]
        assert len(paths) > 10
        for path, operations in paths.items():
            for method, operation in operations.items():
                response = await client.request(method, path.replace("{", "").replace("}", ""), json={})
                if operation["x-access"] != "public":
                    check_error(response, 401, "api_key_missing")
        operations_of = paths.items()
        public = {path for path, found in operations_of for each in found.values() if each["x-access"] == "public"}
        assert public == {"/.well-known/jwks.json", "/v1/sessions/refresh"}


async def test_every_documented_route_refuses_nonsense_in_the_documented_shape(shop: Shop) -> None:
    paths: Json = (await shop.get("/openapi.json"))["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            # Where there is neither a body nor an id, there is nothing to be wrong.
            if method == "get" or ("requestBody" not in operation and "{" not in path):
                continue
            bodies: list[Any] = [{"nonsense": 1}, [], "text", 1, None]
            for body in bodies:
                response = await shop.http.request(
                    method, path.replace("{", "").replace("}", ""), json=body, headers={"Idempotency-Key": new_key()}
                )
                assert 400 <= response.status_code < 500, (path, body, response.text)
                error = response.json()["error"]
                check_error(response, response.status_code, error["code"], error["param"])
