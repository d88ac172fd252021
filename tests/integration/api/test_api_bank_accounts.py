"""Bank accounts over HTTP, on the whole platform: added, verified by deposits, locked, and revoked."""

from __future__ import annotations

import functools
import secrets
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.queries import check_invariants
from tests.support.bank import ROUTING_NUMBER, Bank
from tests.support.platform import Access
from tests.support.shop import Json, Shop, until


@pytest.fixture
async def operator(platform: Access, database: AsyncEngine) -> Shop:
    return await Shop.open(platform, database, operator=True)


@pytest.fixture
async def bank(platform: Access, operator: Shop) -> Bank:
    return Bank(platform, operator)


async def _add(shop: Shop, number: str | None = None, *, user: str | None = None, **fields: Any) -> httpx.Response:
    body = {
        "user": user or (await shop.add_user())["id"],
        "routing_number": ROUTING_NUMBER,
        "account_number": number or f"5{secrets.randbelow(10**9):09d}",
        "account_type": "checking",
    }
    return await shop.post("/v1/payment_methods/bank_accounts", body | fields)


async def _sent(shop: Shop, method_id: str) -> Json:
    started = await shop.post(f"/v1/payment_methods/{method_id}/micro_deposits")
    assert started.status_code == 201, started.text
    return await _status(shop, method_id, "sent")


async def _status(shop: Shop, method_id: str, status: str) -> Json:
    path = f"/v1/payment_methods/{method_id}/micro_deposits"
    found: Json = await until(lambda: shop.get(path), lambda shown: shown["status"] == status)
    return found


async def _amounts(database: AsyncEngine, micro_deposit: str) -> list[int]:
    async with database.connect() as connection:
        row = await connection.execute(
            text("SELECT first_minor, second_minor FROM bank.amounts WHERE micro_deposit_id = :id"),
            {"id": micro_deposit},
        )
        return list(row.one())


async def _confirm(shop: Shop, method_id: str, amounts: list[int], **more: Any) -> httpx.Response:
    path = f"/v1/payment_methods/{method_id}/micro_deposits/confirm"
    return await shop.post(path, {"amounts_minor": amounts}, **more)


async def test_a_bank_account_is_verified_by_its_deposits_and_revoked_by_a_return(
    shop: Shop, bank: Bank, database: AsyncEngine
) -> None:
    added = (await _add(shop)).json()
    assert (added["type"], added["status"], len(added["last4"])) == ("us_bank_account", "pending", 4)
    assert (added["routing_number"], added["account_type"]) == (ROUTING_NUMBER, "checking")
    assert (await shop.get("/v1/payment_methods", user=added["user"]))["data"] == [added]
    sent = await _sent(shop, added["id"])
    amounts = await _amounts(database, sent["id"])

    early = await _confirm(shop, added["id"], amounts)
    assert (early.status_code, early.json()["error"]["code"]) == (409, "micro_deposit_not_posted")

    await bank.forward(5)
    await _status(shop, added["id"], "awaiting_confirmation")
    wrong = await _confirm(shop, added["id"], [amounts[0] % 49 + 1, amounts[1]])
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "micro_deposit_amounts_incorrect")
    assert wrong.json()["error"]["micro_deposit"]["attempts_remaining"] == 2

    right = await _confirm(shop, added["id"], amounts[::-1], key="right-amounts")
    assert (right.status_code, right.json()["status"]) == (200, "verified"), right.text
    assert (await shop.get(f"/v1/payment_methods/{added['id']}"))["status"] == "active"
    again = await _confirm(shop, added["id"], amounts[::-1], key="right-amounts")
    assert again.json() == right.json()
    assert again.headers["Idempotent-Replayed"] == "true"

    async with database.connect() as connection:
        found = await connection.execute(
            text("SELECT file_id FROM bank.files WHERE micro_deposit_id = :id"), {"id": sent["id"]}
        )
        file_id = found.scalar_one()
    await bank.control("POST", "/returns", {"file_id": file_id, "reason_code": "R10"})
    await bank.read_day()
    returned = await _status(shop, added["id"], "returned")
    assert returned["reason"] == "R10"
    assert (await shop.get(f"/v1/payment_methods/{added['id']}"))["status"] == "removed"
    async with database.connect() as connection:
        balance = await connection.execute(
            text(
                "SELECT coalesce(sum(CASE debit_account WHEN 'bank:USD' THEN amount_minor ELSE -amount_minor END), 0)"
                " FROM ledger.transfers WHERE reference = :id"
            ),
            {"id": sent["id"]},
        )
        assert balance.scalar_one() == 0
        assert await check_invariants(connection) == []


async def test_three_wrong_guesses_fail_the_verification_and_three_cycles_lock_the_account(
    shop: Shop, bank: Bank, database: AsyncEngine
) -> None:
    number = f"6{secrets.randbelow(10**9):09d}"
    for _ in range(3):
        added = (await _add(shop, number)).json()  # each time by another user
        sent = await _sent(shop, added["id"])
        await bank.forward(5)
        await _status(shop, added["id"], "awaiting_confirmation")
        first, second = await _amounts(database, sent["id"])
        answers = [await _confirm(shop, added["id"], [first % 49 + 1, second]) for _ in range(3)]
        codes = [answer.json()["error"]["code"] for answer in answers]
        assert codes == ["micro_deposit_amounts_incorrect"] * 2 + ["micro_deposit_attempts_exceeded"]
        assert (await _status(shop, added["id"], "failed"))["attempts_remaining"] == 0
        late = await _confirm(shop, added["id"], [first, second])
        assert late.status_code == 409
    added = (await _add(shop, number)).json()
    locked = await shop.post(f"/v1/payment_methods/{added['id']}/micro_deposits")
    assert (locked.status_code, locked.json()["error"]["code"]) == (409, "bank_account_locked")


async def test_an_account_that_does_not_exist_comes_back(shop: Shop, bank: Bank) -> None:
    added = (await _add(shop, "1099000003")).json()
    await _sent(shop, added["id"])
    await bank.forward(5)
    await bank.forward(5)
    returned = await _status(shop, added["id"], "returned")
    assert returned["reason"] == "R03"
    assert (await shop.get(f"/v1/payment_methods/{added['id']}"))["status"] == "removed"


async def test_what_the_bank_corrects_is_shown_and_the_verification_goes_on(
    shop: Shop, bank: Bank, database: AsyncEngine
) -> None:
    added = (await _add(shop, "1099200002")).json()
    await _sent(shop, added["id"])
    await bank.forward(5)
    await bank.forward(5)
    corrected = await until(
        lambda: shop.get(f"/v1/payment_methods/{added['id']}"),
        lambda shown: shown["routing_number"] != added["routing_number"],
    )
    assert (corrected["routing_number"], corrected["last4"]) == ("011000015", added["last4"])
    assert (await _status(shop, added["id"], "awaiting_confirmation"))["attempts_remaining"] == 3
    async with database.connect() as connection:
        waiting = text("SELECT count(*) FROM bank.returns WHERE kind = 'change' AND told_at IS NULL")
        assert await connection.scalar(waiting) == 0


async def test_a_lost_answer_of_the_bank_sends_nothing_twice(shop: Shop, bank: Bank, database: AsyncEngine) -> None:
    await bank.control("POST", "/faults", {"lose_answers": 1})
    added = (await _add(shop)).json()
    sent = await _sent(shop, added["id"])
    async with database.connect() as connection:
        found = await connection.execute(
            text("SELECT file_id FROM bank.files WHERE micro_deposit_id = :id"), {"id": sent["id"]}
        )
        file_id = found.scalar_one()
    journal = await bank.control("GET", "/journal")
    assert [each["outcome"] for each in journal["requests"] if each["file_id"] == file_id] == ["taken"]
    async with database.connect() as connection:
        events = await connection.execute(
            text("SELECT type FROM platform.outbox WHERE subject_id = :id ORDER BY subject_sequence"),
            {"id": sent["id"]},
        )
        assert [row.type for row in events][:3] == [
            "micro_deposit.initiated",
            "micro_deposit.doubted",
            "micro_deposit.originated",
        ]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"routing_number": "021000022"}, "incorrect_routing_number", "routing_number"),
        ({"routing_number": "0210000"}, "incorrect_routing_number", "routing_number"),
        ({"account_number": "123"}, "incorrect_account_number", "account_number"),
        ({"account_number": "12345678901234567890"}, "incorrect_account_number", "account_number"),
        ({"account_type": "current"}, "parameter_invalid", "account_type"),
        ({"iban": "x"}, "parameter_unknown", "iban"),
    ],
)
async def test_what_is_no_bank_account_is_refused_by_name(
    shop: Shop, fields: dict[str, str], code: str, param: str
) -> None:
    response = await _add(shop, **fields)
    assert response.status_code == 422
    assert (response.json()["error"]["code"], response.json()["error"]["param"]) == (code, param)


@pytest.mark.parametrize("amounts", [[0, 5], [50, 1], [-1, 5], [32], [1, 2, 3], [1.5, 2], ["1", "2"], [True, 2]])
async def test_amounts_out_of_range_cost_no_attempt(shop: Shop, bank: Bank, amounts: list[Any]) -> None:
    added = (await _add(shop)).json()
    response = await _confirm(shop, added["id"], amounts)
    assert response.status_code == 422
    assert response.json()["error"]["param"].startswith("amounts_minor")


async def test_a_verification_can_be_canceled_once_sent(shop: Shop) -> None:
    added = (await _add(shop)).json()
    await _sent(shop, added["id"])
    response = await shop.post(f"/v1/payment_methods/{added['id']}/micro_deposits/cancel", {"reason": "wrong account"})
    assert (response.status_code, response.json()["status"]) == (200, "canceled"), response.text
    again = await shop.post(f"/v1/payment_methods/{added['id']}/micro_deposits/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "micro_deposit_unexpected_state")


async def _remove(shop: Shop, method_id: str) -> Json:
    response = await shop.http.delete(f"/v1/payment_methods/{method_id}")
    assert response.status_code == 200, response.text
    removed: Json = response.json()
    return removed


async def _erased(database: AsyncEngine, method_id: str) -> bool:
    async with database.connect() as connection:
        return bool(await connection.scalar(_ERASED, {"id": method_id}))


_ERASED = text("""
SELECT erased_at IS NOT NULL AND number_ciphertext IS NULL FROM vault.bank_accounts account
JOIN platform.payment_methods method ON method.bank_account_id = account.id WHERE method.id = :id
""")


async def test_a_removed_bank_account_ends_its_verification_and_is_erased_and_its_history_stays(
    shop: Shop, database: AsyncEngine
) -> None:
    added = (await _add(shop)).json()
    sent = await _sent(shop, added["id"])
    removed = await _remove(shop, added["id"])
    assert (removed["status"], removed["removed"] is not None) == ("removed", True)
    canceled = await _status(shop, added["id"], "canceled")
    assert (canceled["id"], canceled["reason"]) == (sent["id"], "bank_account_removed")
    await until(lambda: _erased(database, added["id"]), bool)
    assert (await shop.get("/v1/payment_methods", user=added["user"]))["data"] == []
    assert (await _remove(shop, added["id"])) == removed
    again = await shop.post(f"/v1/payment_methods/{added['id']}/micro_deposits")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "bank_account_unusable")
    async with database.connect() as connection:
        assert await connection.scalar(_AMOUNTS_KEPT, {"id": sent["id"]}) == 0


_AMOUNTS_KEPT = text("SELECT count(*) FROM bank.amounts WHERE micro_deposit_id = :id")


async def test_removing_and_adding_an_account_again_resets_no_lock(
    shop: Shop, bank: Bank, database: AsyncEngine
) -> None:
    number, user = f"7{secrets.randbelow(10**9):09d}", (await shop.add_user())["id"]
    seen = set()
    for _ in range(3):
        added = (await _add(shop, number, user=user)).json()
        seen.add(added["id"])
        await _sent(shop, added["id"])
        await _remove(shop, added["id"])
        await until(functools.partial(_erased, database, added["id"]), bool)
    assert len(seen) == 3, "a removed account came back"
    added = (await _add(shop, number, user=user)).json()
    locked = await shop.post(f"/v1/payment_methods/{added['id']}/micro_deposits")
    assert (locked.status_code, locked.json()["error"]["code"]) == (409, "bank_account_locked")


async def test_support_sees_the_amounts_with_a_reason_and_a_record_and_nobody_else_does(
    shop: Shop, platform: Access, database: AsyncEngine
) -> None:
    added = (await _add(shop)).json()
    sent = await _sent(shop, added["id"])
    amounts = await _amounts(database, sent["id"])
    path = f"/v1/micro_deposits/{sent['id']}/amounts"
    assert (await shop.http.get(path, params={"reason": "mine"})).status_code == 403

    async with database.connect() as connection:
        found = await connection.execute(
            text("SELECT name FROM platform.accounts WHERE id = :id"), {"id": shop.account_id}
        )
        name = found.scalar_one()
    support = await Shop.open(platform, database, operator=True, name=name)
    assert (await support.http.get(path)).json()["error"]["param"] == "reason"
    shown = await support.get(path, reason="the holder is on the phone")
    assert shown["amounts_minor"] == amounts
    async with database.connect() as connection:
        looks = await connection.execute(
            text("SELECT reason FROM bank.amount_looks WHERE micro_deposit_id = :id"), {"id": sent["id"]}
        )
        assert looks.scalars().all() == ["the holder is on the phone"]
    stranger = await Shop.open(platform, database, operator=True)
    assert (await stranger.http.get(path, params={"reason": "curious"})).status_code == 404


async def test_a_bank_account_of_somebody_else_is_missing(shop: Shop, platform: Access, database: AsyncEngine) -> None:
    added = (await _add(shop)).json()
    other = await Shop.open(platform, database)
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/confirm"), ("POST", "/cancel")):
        body = {"amounts_minor": [1, 2]} if path == "/confirm" else {}
        response = await other.http.request(
            method,
            f"/v1/payment_methods/{added['id']}/micro_deposits{path}",
            json=body if method == "POST" else None,
            headers={"Idempotency-Key": secrets.token_hex(8)},
        )
        assert response.status_code == 404, path


async def test_nothing_is_paid_with_a_bank_account(shop: Shop) -> None:
    added = (await _add(shop)).json()
    refused = await shop.pay(added["id"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "payment_method_no_card")
