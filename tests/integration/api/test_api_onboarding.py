"""Knowing the customer through the API, on the whole platform: what is said, found, reviewed, and forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.personal import PersonalDetails
from tests.integration.api.test_api_bad_input import check_error
from tests.support.persons import details
from tests.support.platform import Access
from tests.support.shop import Json, Shop, http_client, new_key, until
from tests.unit.documents.files import PDF

HIT_NAME = "Grigory Verbotenko"
ADDRESS = {"line1": "1 Ocean Drive", "city": "Zenith", "postal_code": "10001", "country": "SE"}
CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
LICENCE = {"type": "driving_licence", "number": "X12", "country": "SE", "expires_on": "2031-01-01"}


def body(person: PersonalDetails | None = None, **fields: Any) -> Json:
    person = person or details()
    document = person.document
    assert document is not None
    said: Json = {
        "legal_name": person.legal_name,
        "date_of_birth": person.date_of_birth.isoformat(),
        "address": ADDRESS,
        "document": {
            "type": "passport",
            "number": document.number,
            "country": document.country,
            "expires_on": document.expires_on.isoformat(),
            "mrz": list(document.mrz),
        },
    }
    return said | fields


@pytest_asyncio.fixture(scope="module")
async def reviewer(platform: Access, database: AsyncEngine, shop: Shop) -> AsyncIterator[Shop]:
    """An operator of the same account."""
    async with database.connect() as connection:
        name = await connection.scalar(
            text("SELECT name FROM platform.accounts WHERE id = :id"), {"id": shop.account_id}
        )
    reviewer = await Shop.open(platform, database, operator=True, name=str(name))
    yield reviewer
    await reviewer.http.aclose()


async def _hand_in(client: httpx.AsyncClient, user_id: str, kind: str = "identity_front", content: bytes = PDF) -> Any:
    return await client.post(
        f"/v1/users/{user_id}/onboarding/documents",
        files={"file": ("scan.pdf", content, "application/pdf"), "kind": (None, kind)},
        headers={"Idempotency-Key": new_key()},
    )


async def _submitted(shop: Shop, said: Json, status: str = "verified", *, picture: bool = True) -> str:
    """A new user who said this, once the case has `status` or waits for a person."""
    user_id = str((await shop.add_user())["id"])
    if picture:
        handed_in = await _hand_in(shop.http, user_id)
        assert handed_in.status_code == 200, handed_in.text
    response = await shop.post(f"/v1/users/{user_id}/onboarding", said)
    assert response.status_code == 200, response.text
    await until(
        lambda: shop.get(f"/v1/users/{user_id}/onboarding"),
        lambda found: found["status"] == status and (status != "in_review" or found["awaits_review"]),
    )
    return user_id


async def test_who_is_in_order_is_verified_and_may_do_more(shop: Shop) -> None:
    user = await shop.add_user()
    before = await shop.get(f"/v1/users/{user['id']}/limits")
    user_id = await _submitted(shop, body())
    onboarding = await shop.get(f"/v1/users/{user_id}/onboarding")
    limits = await shop.get(f"/v1/users/{user_id}/limits")
    assert (onboarding["tier"], onboarding["reasons"]) == ("verified", None)
    assert (before["tier"], limits["tier"]) == ("unverified", "verified")
    assert before["per_payment_minor"] < limits["per_payment_minor"]
    assert [window["count"] for window in before["transfers"]] == [0, 0]
    yen = await shop.get(f"/v1/users/{user_id}/limits", currency="JPY")
    assert yen["per_payment_minor"] == 3_750_000


async def test_a_hit_waits_for_a_person_and_the_user_is_not_told_why(
    shop: Shop, reviewer: Shop, platform: Access, database: AsyncEngine
) -> None:
    said = body(legal_name=HIT_NAME, date_of_birth="1961-05-05", document=None)
    user_id = await _submitted(shop, said, "in_review", picture=False)
    assert (await shop.get(f"/v1/users/{user_id}/onboarding"))["reasons"] is None
    queue = await reviewer.get("/v1/onboardings", awaits_review="true", status="in_review")
    (found,) = [each for each in queue["data"] if each["user"] == user_id]
    assert found["reasons"] == ["watch_list:wl-0001:94"]

    shown = await reviewer.get(f"/v1/users/{user_id}/onboarding/details", operator="maria")
    assert shown["legal_name"] == HIT_NAME
    async with database.connect() as connection:
        looked = text("SELECT operator, what FROM onboarding.access_audit WHERE user_id = :user")
        assert [tuple(row) for row in await connection.execute(looked, {"user": user_id})] == [("maria", "details")]
    refused = await shop.http.get(f"/v1/users/{user_id}/onboarding/details", params={"operator": "maria"})
    check_error(refused, 403, "permission_denied")

    decision = {"operator": "maria", "approve": True, "reason": "born elsewhere"}
    response = await reviewer.post(f"/v1/users/{user_id}/onboarding/review", decision)
    assert (response.status_code, response.json()["status"]) == (200, "verified")
    again = await reviewer.post(f"/v1/users/{user_id}/onboarding/review", decision)
    check_error(again, 409, "onboarding_unexpected_state")


async def test_a_document_is_seen_by_a_reviewer_and_lies_encrypted(
    shop: Shop, reviewer: Shop, platform: Access, database: AsyncEngine
) -> None:
    user_id = str((await shop.add_user())["id"])
    document_id = (await _hand_in(shop.http, user_id)).json()["documents"][0]["id"]
    path = f"/v1/users/{user_id}/onboarding/documents/{document_id}"
    response = await reviewer.http.get(path, params={"operator": "maria"})
    assert (response.content, response.headers["Content-Type"]) == (PDF, "application/pdf")
    assert response.headers["Content-Disposition"].startswith("attachment")
    check_error(await reviewer.http.get(path), 422, "parameter_missing", "operator")
    check_error(await shop.http.get(path, params={"operator": "maria"}), 403, "permission_denied")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"date_of_birth": "2015-01-01", "document": None}, "underage", "date_of_birth"),
        ({"date_of_birth": "1850-01-01", "document": None}, "date_of_birth_invalid", "date_of_birth"),
        ({"date_of_birth": "12.08.1974"}, "parameter_invalid", "date_of_birth"),
        ({"date_of_birth": 19740812}, "parameter_invalid", "date_of_birth"),
        ({"us_tax_id": "666-12-3456"}, "tax_id_invalid", "us_tax_id"),
        ({"date_of_birth": "1974-08-13"}, "mrz_mismatch", "date_of_birth"),
        ({"legal_name": " "}, "parameter_invalid", "legal_name"),
        ({"address": ADDRESS | {"country": "XX"}}, "country_unknown", "address.country"),
        ({"document": LICENCE | {"type": "passport"}}, "mrz_invalid", "document.mrz"),
        ({"document": LICENCE | {"expires_on": "2020-01-01"}}, "document_expired", "document.expires_on"),
        ({"nickname": "Annie"}, "parameter_unknown", "nickname"),
    ],
)
async def test_what_cannot_be_right_is_refused_by_its_name_and_changes_nothing(
    shop: Shop, fields: Json, code: str, param: str
) -> None:
    user_id = str((await shop.add_user())["id"])
    response = await shop.post(f"/v1/users/{user_id}/onboarding", body(**fields))
    check_error(response, 422, code, param)
    check_error(await shop.http.get(f"/v1/users/{user_id}/onboarding"), 404, "resource_missing")


async def test_a_file_that_is_no_document_is_refused(shop: Shop) -> None:
    user_id = str((await shop.add_user())["id"])
    check_error(await _hand_in(shop.http, user_id, content=b"MZ\x90"), 422, "file_type_unsupported", "file")
    check_error(await _hand_in(shop.http, user_id, content=b""), 422, "file_empty", "file")
    check_error(await _hand_in(shop.http, user_id, "diploma"), 422, "parameter_invalid", "kind")


async def test_the_same_request_is_one_submission(shop: Shop, database: AsyncEngine) -> None:
    user_id = str((await shop.add_user())["id"])
    key = new_key()
    answers = [await shop.post(f"/v1/users/{user_id}/onboarding", body(), key=key) for _ in range(2)]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    other = await shop.post(f"/v1/users/{user_id}/onboarding", body(legal_name="Anna Eriksson"), key=key)
    check_error(other, 422, "idempotency_key_reused", "Idempotency-Key")
    async with database.connect() as connection:
        count = text("SELECT count(*) FROM onboarding.events WHERE user_id = :user AND event = 'submitted'")
        assert await connection.scalar(count, {"user": user_id}) == 1


async def test_nothing_that_was_said_is_in_clear_in_the_database(shop: Shop, database: AsyncEngine) -> None:
    await _submitted(shop, body())
    async with database.connect() as connection:
        for schema in ("onboarding", "vault"):
            tables = await connection.execute(_TABLES, {"schema": schema})
            for (table,) in tables.all():
                rows = await connection.execute(text(f"SELECT {table}::text FROM {schema}.{table}"))
                content = "\n".join(row for (row,) in rows.all())
                assert not any(said in content for said in ("L898902C3", "Ocean Drive", "Eriksson")), table


async def test_name_and_locale_are_changed_and_contacts_are_not(shop: Shop) -> None:
    user = await shop.add_user()
    path = f"/v1/users/{user['id']}"
    changed = await shop.http.patch(path, json={"name": "Ada King", "locale": "de"})
    assert (changed.json()["name"], changed.json()["locale"]) == ("Ada King", "de")
    assert (await shop.get(path))["email"] == user["email"]
    check_error(await shop.http.patch(path, json={"email": "a@b.example"}), 422, "parameter_unknown", "email")
    check_error(await shop.http.patch(path, json={}), 422, "parameter_missing", "name")
    check_error(await shop.http.patch(path, json={"locale": "fr"}), 422, "parameter_invalid", "locale")


async def test_a_wallet_waits_for_open_money_and_closes_for_good(
    shop: Shop, platform: Access, database: AsyncEngine
) -> None:
    wallet = await shop.wallet()
    payment = await shop.authorized(wallet.card_id)
    path = f"/v1/users/{wallet.user_id}"
    closing = (await shop.post(f"{path}/close")).json()
    assert (closing["status"], closing["waiting_for"]) == ("waiting", ["payments:1"])
    check_error(await shop.pay(wallet.card_id), 409, "user_closed", "payment_method")
    check_error(await shop.http.patch(path, json={"locale": "de"}), 409, "user_closed")
    check_error(
        await shop.post("/v1/payment_methods/cards", CARD | {"user": wallet.user_id}), 409, "user_closed", "user"
    )
    withdrawn = (await shop.post(f"{path}/closure/withdraw")).json()
    assert withdrawn["status"] == "withdrawn"
    assert (await shop.post(f"/v1/payments/{payment['id']}/void")).status_code == 200

    session = (await shop.post(f"{path}/sessions")).json()["token"]
    await shop.post(f"{path}/close")
    closed = await until(lambda: shop.get(f"{path}/closure"), lambda found: found["status"] == "closed")
    assert closed["erase_after"] > closed["closed"]
    check_error(await shop.post(f"{path}/sessions"), 409, "user_closed")
    check_error(await shop.post(f"{path}/closure/withdraw"), 409, "closure_unexpected_state")
    assert (await shop.get(f"/v1/payment_methods/{wallet.card_id}"))["status"] == "removed"
    async with database.connect() as connection:
        states = await connection.execute(
            text("SELECT state, pan_ciphertext FROM vault.tokens WHERE owner_id = :user"), {"user": wallet.user_id}
        )
        assert [tuple(row) for row in states] == [("deleted", None)]
    client = http_client(platform, session)
    await until(lambda: client.get(path), lambda response: response.status_code == 401)
    await client.aclose()


_TABLES = text("SELECT tablename FROM pg_tables WHERE schemaname = :schema")
