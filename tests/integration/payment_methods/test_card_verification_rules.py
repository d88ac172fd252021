"""What the database itself keeps of cards and their verifications, against wrong code: tried by raw SQL."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from domain.ids import PAYMENT_METHOD, TOKEN, USER, VERIFICATION, new_id
from domain.merchants import Merchant
from domain.verifications import VerificationOpening, VerificationResult, VerificationStatus
from store.payment_methods import (
    find_verification,
    latest_verifications,
    open_verification,
    record_verification,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Owner:
    engine: AsyncEngine
    account_id: str
    user_id: str

    async def run(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), values)

    async def refused(self, because: str, statement: str, **values: Any) -> None:
        with pytest.raises(IntegrityError, match=because):
            await self.run(statement, **values)

    async def method(self, kind: str = "card", **changes: Any) -> str:
        """A new payment method; a card has all that a card has, anything else nothing of it."""
        card = {"token": new_id(TOKEN), "brand": "visa", "bin": "424242", "month": 12, "year": 2030}
        bank = {"account_id": new_id("ba"), "routing": "110000000", "account_type": "checking"}
        values = {**dict.fromkeys(card), **bank} if kind == "us_bank_account" else {**card, **dict.fromkeys(bank)}
        method_id = new_id(PAYMENT_METHOD)
        owner = {"id": method_id, "account": self.account_id, "user": self.user_id, "type": kind}
        await self.run(_METHOD, **owner, **{**values, **changes})
        return method_id

    async def opening(self) -> VerificationOpening:
        opening = VerificationOpening(
            new_id(VERIFICATION), await self.method(), Currency.USD, Merchant("shop", "Shop", "5814"), NOW
        )
        async with self.engine.begin() as connection:
            await open_verification(connection, opening)
        return opening

    async def record(self, result: VerificationResult) -> None:
        async with self.engine.begin() as connection:
            await record_verification(connection, result)

    async def status(self, verification_id: str) -> str:
        async with self.engine.connect() as connection:
            row = await find_verification(connection, verification_id)
        assert row is not None
        return str(row["status"])


@pytest_asyncio.fixture
async def owner(engine: AsyncEngine) -> AsyncIterator[Owner]:
    owner = Owner(engine, f"acct_{secrets.token_hex(6)}", new_id(USER))
    await owner.run("INSERT INTO platform.accounts (id, name) VALUES (:id, :id)", id=owner.account_id)
    await owner.run(
        "INSERT INTO platform.users (id, account_id, name) VALUES (:id, :account, 'Ada')",
        id=owner.user_id,
        account=owner.account_id,
    )
    yield owner


def verified(opening: VerificationOpening) -> VerificationResult:
    return VerificationResult(
        opening.verification_id, VerificationStatus.VERIFIED, 1, NOW, rrn="632512000001", approval_code="123456"
    )


@pytest.mark.parametrize("part", ["token", "brand", "bin", "month", "year"])
async def test_a_card_has_all_that_a_card_has(owner: Owner, part: str) -> None:
    nothing: dict[str, Any] = {part: None}
    with pytest.raises(IntegrityError, match="ck_payment_methods_card"):
        await owner.method(**nothing)


async def test_a_payment_method_may_be_no_card_and_is_of_a_known_type(owner: Owner) -> None:
    await owner.method("us_bank_account")
    with pytest.raises(IntegrityError, match="ck_payment_methods_type"):
        await owner.method("cheque")


async def test_only_a_card_is_verified(owner: Owner) -> None:
    method = await owner.method("us_bank_account")
    await owner.refused("is no card", _ASK, id=new_id(VERIFICATION), method=method)


async def test_a_verification_is_processing_until_its_result_and_the_first_result_stands(owner: Owner) -> None:
    opening = await owner.opening()
    assert await owner.status(opening.verification_id) == "processing"
    result = verified(opening)
    await owner.record(result)
    await owner.record(replace(result, status=VerificationStatus.UNKNOWN, reason="timeout", approval_code=None))
    assert await owner.status(opening.verification_id) == "verified"


async def test_opening_it_again_changes_nothing(owner: Owner) -> None:
    opening = await owner.opening()
    async with owner.engine.begin() as connection:
        await open_verification(connection, replace(opening, currency=Currency.EUR))
        row = await find_verification(connection, opening.verification_id)
    assert row is not None
    assert row["currency"] == "USD"


@pytest.mark.parametrize(
    ("because", "changes"),
    [
        ("status", {"status": "perhaps", "approval": None}),
        ("declined", {"status": "declined", "approval": None}),
        ("declined", {"decline_code": "lost_card"}),
        ("unknown", {"status": "unknown", "approval": None}),
        ("unknown", {"reason": "timeout"}),
        ("answered", {"rrn": None}),
        ("rrn", {"rrn": "12"}),
        ("attempts", {"attempts": 0}),
        ("approved", {"status": "unknown", "reason": "timeout"}),
    ],
)
async def test_a_result_that_contradicts_itself_is_refused(owner: Owner, because: str, changes: dict[str, Any]) -> None:
    opening = await owner.opening()
    good = {"status": "verified", "decline_code": None, "reason": None, "attempts": 1, "rrn": "632512000001"}
    values = good | {"approval": "123456"} | changes
    await owner.refused(f"ck_card_verification_results_{because}", _RESULT, id=opening.verification_id, **values)


@pytest.mark.parametrize("table", ["card_verifications", "card_verification_results"])
@pytest.mark.parametrize("change", ["UPDATE platform.{} SET created_at = now()", "DELETE FROM platform.{}"])
async def test_what_was_asked_and_answered_is_never_changed(owner: Owner, table: str, change: str) -> None:
    await owner.record(verified(await owner.opening()))
    await owner.refused("append-only", change.format(table))


async def test_the_latest_verification_is_the_one_that_was_asked_for_last(owner: Owner) -> None:
    first = await owner.opening()
    later = replace(first, verification_id=new_id(VERIFICATION), requested_at=NOW.replace(hour=13))
    async with owner.engine.begin() as connection:
        await open_verification(connection, later)
        found = await latest_verifications(connection, [first.payment_method_id, "pm_absent"])
    assert {method: row["id"] for method, row in found.items()} == {first.payment_method_id: later.verification_id}


_METHOD = """
INSERT INTO platform.payment_methods (
    id, account_id, user_id, type, token_id, brand, bin, last4, exp_month, exp_year, status,
    bank_account_id, routing_number, account_type)
VALUES (
    :id, :account, :user, :type, :token, :brand, :bin, '4242', :month, :year, 'active',
    :account_id, :routing, :account_type)
"""

_ASK = """
INSERT INTO platform.card_verifications (id, payment_method_id, currency, merchant, requested_at)
VALUES (:id, :method, 'USD', '{}', now())
"""

_RESULT = """
INSERT INTO platform.card_verification_results (
    verification_id, status, decline_code, reason, attempts, rrn, approval_code, decided_at)
VALUES (:id, :status, :decline_code, :reason, :attempts, :rrn, :approval, now())
"""
