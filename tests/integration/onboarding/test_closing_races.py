"""Whatever was checked a moment before a closure: nothing new is opened for whose wallet is being closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.closure import CloseOrder, ClosureOrder
from domain.ids import PAYMENT_METHOD, SESSION, TOKEN, VERIFICATION, new_id
from domain.risk import RiskAction
from onboarding.closures import Closures
from store.closing import refused_to_closing_user
from tests.integration.books.support import NOW, Shop, open_shop
from tests.integration.onboarding.test_onboarding_erasure import RETENTION


@pytest.fixture
async def shop(engine: AsyncEngine) -> Shop:
    return await open_shop(engine)


@pytest.fixture
def closures(engine: AsyncEngine) -> Closures:
    return Closures(engine, RETENTION)


def order(shop: Shop) -> ClosureOrder:
    return ClosureOrder(shop.user_id, shop.account_id, shop.user_id)


async def run(shop: Shop, statement: str, **values: Any) -> None:
    owner = {"user": shop.user_id, "account": shop.account_id, "method": shop.payment_method_id}
    async with shop.engine.begin() as connection:
        await connection.execute(text(statement), owner | values)


async def refused(shop: Shop, statement: str, **values: Any) -> None:
    with pytest.raises(IntegrityError) as raised:
        await run(shop, statement, **values)
    assert refused_to_closing_user(raised.value)


async def test_a_payment_that_was_judged_before_is_blocked_and_holds_nothing(shop: Shop, closures: Closures) -> None:
    opening = shop.asked()
    await closures.begin(order(shop))
    opened = await shop.books.open(opening)
    assert (opened.standing_hold, opened.risk.action) == (None, RiskAction.BLOCK)
    assert opened.risk.reasons == ("user_closed", *opening.risk.reasons)
    assert await shop.books.open(opening) == opened
    assert await shop.books.opened(opening.payment_id) == opened


async def test_what_was_opened_before_stays_open_when_it_is_asked_for_again(shop: Shop, closures: Closures) -> None:
    opening = shop.asked()
    opened = await shop.books.open(opening)
    assert opened.standing_hold is not None
    await closures.begin(order(shop))
    assert await shop.books.open(opening) == opened
    assert (await closures.obstacles(shop.user_id)).open == ("payments:1",)


async def test_a_closure_and_a_payment_at_once_see_each_other(engine: AsyncEngine, closures: Closures) -> None:
    async def at_once() -> tuple[bool, bool]:
        shop = await open_shop(engine)

        async def close() -> bool:
            await closures.begin(order(shop))
            return (await closures.obstacles(shop.user_id)).open == ()

        nothing_open, opened = await asyncio.gather(close(), shop.books.open(shop.asked()))
        return nothing_open, opened.risk.action is RiskAction.BLOCK

    outcomes = await asyncio.gather(*(at_once() for _ in range(24)))
    assert all(blocked for nothing_open, blocked in outcomes if nothing_open), outcomes


async def test_a_payment_waits_for_the_closure_that_is_being_written(shop: Shop, closures: Closures) -> None:
    async with shop.engine.begin() as connection:
        closing = text("UPDATE platform.users SET closing_at = now() WHERE id = :user")
        await connection.execute(closing, {"user": shop.user_id})
        opening = asyncio.create_task(shop.books.open(shop.asked()))
        await asyncio.sleep(0.2)
        assert not opening.done()
    assert (await opening).risk.action is RiskAction.BLOCK


async def test_neither_cards_nor_questions_about_them_nor_deposits_are_begun(shop: Shop, closures: Closures) -> None:
    await run(shop, ASK, id=new_id(VERIFICATION))
    await closures.begin(order(shop))
    await refused(shop, CARD, id=new_id(PAYMENT_METHOD), token=new_id(TOKEN))
    await refused(shop, ASK, id=new_id(VERIFICATION))
    await refused(shop, DEPOSITS)
    await closures.withdraw(shop.user_id)
    await run(shop, ASK, id=new_id(VERIFICATION))


async def test_who_waits_signs_in_and_who_is_closed_does_not(shop: Shop, closures: Closures) -> None:
    await closures.begin(order(shop))
    await run(shop, SIGN_IN, id=new_id(SESSION))
    await closures.shut(shop.user_id)
    late = new_id(SESSION)
    await run(shop, SIGN_IN, id=late)  # somebody who was proving who they are when all sessions ended
    await closures.close(CloseOrder(shop.user_id, NOW))
    async with shop.engine.connect() as connection:
        ended = text("SELECT revoke_reason FROM identity.sessions WHERE id = :id")
        assert await connection.scalar(ended, {"id": late}) == "user_closed"
    await refused(shop, SIGN_IN, id=new_id(SESSION))
    await refused(shop, "INSERT INTO identity.passwords (user_id, hash) VALUES (:user, '$argon2id$')")
    await refused(shop, CONTACT)
    await refused(shop, PUSH_TOKEN)


CARD = """
INSERT INTO platform.payment_methods (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
VALUES (:id, :account, :user, :token, 'visa', '424242', '4242', 12, 2034, 'pending')
"""
ASK = """
INSERT INTO platform.verification_counts (verification_id, user_id, card_reference) VALUES (:id, :user, 'a card')
"""
DEPOSITS = """
INSERT INTO bank.micro_deposits (
    id, account_id, user_id, payment_method_id, bank_account_id, reference, status, requested_at)
VALUES ('md_1', :account, :user, :method, 'ba_1', 'baref_1', 'new', now())
"""
SIGN_IN = """
INSERT INTO identity.sessions (id, account_id, user_id, amr, authenticated_at, expires_at)
VALUES (:id, :account, :user, '{pwd}', now(), now() + interval '1 day')
"""
CONTACT = """
INSERT INTO identity.contacts (user_id, account_id, kind, address, lookup)
VALUES (:user, :account, 'email', 'ada@example.com', 'ada@example.com')
"""
PUSH_TOKEN = """
INSERT INTO notify.push_tokens (token_hash, user_id, token, platform)
VALUES (sha256('token'), :user, 'token', 'ios')
"""
