"""How often issuers are asked about a card and for a user: counted in the database, by everybody together."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import VERIFICATION, new_id
from store.payment_methods import VerificationLimits, count_verification
from tests.support.onboarding_world import Row
from tests.support.persons import AddedUser, add_user

LIMITS = VerificationLimits(per_card=3, per_user=5)
DAY = 24 * 60 * 60


class Holder:
    """A user, cards of theirs, and questions about them."""

    def __init__(self, engine: AsyncEngine, user: AddedUser) -> None:
        self.engine = engine
        self.user = user

    async def card(self, reference: str | None = None) -> str:
        """A card's id. Cards with the same reference are the same card."""
        fingerprint = (reference or secrets.token_hex(16)).encode()[:32].ljust(32, b".")
        values: Row = {"fingerprint": fingerprint, "par": _par(fingerprint), "index": secrets.token_bytes(32)}
        values |= {"user": self.user.user_id, "account": self.user.account_id, "name": secrets.token_hex(8)}
        async with self.engine.begin() as connection:
            for statement in CARD:
                await connection.execute(text(statement), values)
        return f"pm_{values['name']}"

    def question(self, card: str) -> tuple[str, str]:
        """A new verification's id, and its card's."""
        return new_id(VERIFICATION), card

    async def ask(self, question: tuple[str, str], limits: VerificationLimits = LIMITS) -> int | None:
        async with self.engine.begin() as connection:
            return await count_verification(connection, *question, limits)

    async def asked_before(self, card: str, ago: str) -> None:
        values = {"id": new_id(VERIFICATION), "card": card, "ago": ago, "user": self.user.user_id}
        async with self.engine.begin() as connection:
            await connection.execute(text(ASKED), values)


def _par(fingerprint: bytes) -> str:
    return fingerprint.hex().upper()[:29]


@pytest_asyncio.fixture
async def holder(engine: AsyncEngine) -> Holder:
    return Holder(engine, await add_user(engine))


async def test_a_card_is_asked_about_so_often_whoever_added_it(engine: AsyncEngine, holder: Holder) -> None:
    number = secrets.token_hex(16)
    others = [Holder(engine, await add_user(engine)) for _ in range(3)]
    for other in others:
        assert await other.ask(other.question(await other.card(number))) is None
    wait = await holder.ask(holder.question(await holder.card(number)))
    assert wait is not None
    assert DAY - 60 < wait <= DAY
    assert await holder.ask(holder.question(await holder.card())) is None


async def test_a_user_has_so_many_questions_for_all_cards_together(holder: Holder) -> None:
    for _ in range(LIMITS.per_user):
        assert await holder.ask(holder.question(await holder.card())) is None
    assert await holder.ask(holder.question(await holder.card())) is not None


async def test_the_same_question_counts_once_and_is_open_when_it_comes_again(holder: Holder) -> None:
    card = await holder.card()
    question = holder.question(card)
    assert await asyncio.gather(*(holder.ask(question) for _ in range(LIMITS.per_card + 3))) == [None] * 6
    for _ in range(LIMITS.per_card - 1):
        assert await holder.ask(holder.question(card)) is None
    assert await holder.ask(holder.question(card)) is not None
    assert await holder.ask(question) is None


async def test_of_many_at_once_as_many_get_through_as_may(holder: Holder) -> None:
    cards = [await holder.card() for _ in range(4)]
    waits = await asyncio.gather(*(holder.ask(holder.question(cards[number % 4])) for number in range(24)))
    assert waits.count(None) == LIMITS.per_user
    async with holder.engine.connect() as connection:
        found = text("SELECT count(*) FROM platform.verification_counts WHERE user_id = :user")
        assert await connection.scalar(found, {"user": holder.user.user_id}) == LIMITS.per_user


async def test_the_day_rolls(holder: Holder) -> None:
    card = await holder.card()
    for ago in ("25 hours", "23 hours", "2 hours", "1 hour"):
        await holder.asked_before(card, ago)
    wait = await holder.ask(holder.question(card))
    assert wait is not None
    assert 3500 < wait <= 3600  # until the third last is a day old
    assert await holder.ask(holder.question(card), replace(LIMITS, per_card=4)) is None


CARD = (
    """
    INSERT INTO vault.pans (fingerprint_version, fingerprint, par) VALUES (1, :fingerprint, :par)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO vault.tokens (token_id, owner_id, fingerprint_version, fingerprint, brand, bin, last4, exp_month,
    exp_year,
        dek_version, pan_iv, pan_ciphertext, dpan_iv, dpan_ciphertext, dpan_index_version, dpan_index, psn)
    VALUES ('tok_' || :name, :user, 1, :fingerprint, 'visa', '424242', '4242', 12, 2034,
        1, 'x', 'x', 'x', 'x', 1, :index, '00')
    """,
    """
    INSERT INTO platform.payment_methods (
        id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
    VALUES ('pm_' || :name, :account, :user, 'tok_' || :name, 'visa', '424242', '4242', 12, 2034, 'active')
    """,
)
ASKED = """
INSERT INTO platform.verification_counts (verification_id, user_id, card_reference, counted_at)
SELECT :id, :user, pans.par, now() - CAST(:ago AS interval)
FROM platform.payment_methods AS method JOIN vault.tokens USING (token_id)
JOIN vault.pans USING (fingerprint_version, fingerprint) WHERE method.id = :card
"""
