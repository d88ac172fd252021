"""The payments zone's own look at what a payer's passkey signed: the API's word is not enough."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.contracts import StepUpAttempt
from activities.step_up import StepUpActivities
from domain.currency import Currency
from domain.ids import ACCOUNT, PASSKEY, PAYMENT, PAYMENT_METHOD, STEP_UP_CHALLENGE, USER, new_id
from domain.money import Money
from domain.step_up import StepUpCodes, confirmation_challenge
from identity.proofs import base64url
from identity.relying_party import RelyingParty
from identity.step_up import StepUpJudge
from tests.support.authenticator import ORIGIN, Authenticator
from tests.support.shop import Json

PARTY = RelyingParty("localhost", "durapay", (ORIGIN,))
MONEY = Money(300_000, Currency.USD)
PAYEE = "Corner Coffee"
NONCE = bytes(range(32))


class Asked:
    """A payment that waits, and a challenge that is answered in the database, past the API."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.ids = {
            "account": new_id(ACCOUNT),
            "user": new_id(USER),
            "method": new_id(PAYMENT_METHOD),
            "payment": new_id(PAYMENT),
            "passkey": new_id(PASSKEY),
            "challenge": new_id(STEP_UP_CHALLENGE),
        }
        self.authenticator = Authenticator()
        self.activity = StepUpActivities(StepUpCodes(b"s" * 32), StepUpJudge(engine, PARTY))

    async def run(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), self.ids | values)

    async def prepare(self) -> None:
        options = PARTY.registration_options(self.ids["user"], "Ada", NONCE, [])
        made = PARTY.verify_registration(self.authenticator.make(options), NONCE)
        await self.run("INSERT INTO platform.accounts (id, name) VALUES (:account, :account)")
        await self.run("INSERT INTO platform.users (id, account_id, name) VALUES (:user, :account, 'Ada')")
        await self.run(_METHOD, token=new_id("tok"))
        await self.run(_PAYMENT, merchant=json.dumps({"name": PAYEE}))
        await self.run(_PASSKEY, credential=made.credential_id, key=made.credential_public_key)
        await self.run(_CHALLENGE, nonce=NONCE)

    async def answer(self, assertion: Json) -> None:
        await self.run(_ANSWER, assertion=json.dumps(assertion), by=f"upd_{secrets.token_hex(4)}")

    def signed(self, money: Money = MONEY, payee: str = PAYEE, nonce: bytes = NONCE, by: Any = None) -> Json:
        challenge = confirmation_challenge(self.ids["payment"], money, payee, nonce)
        signer: Authenticator = by or self.authenticator
        return signer.sign({"challenge": base64url(challenge)})

    async def verdict(self, money: Money = MONEY, payee: str = PAYEE, payment: str | None = None) -> bool:
        attempt = StepUpAttempt(payment or self.ids["payment"], money, payee, self.ids["challenge"])
        return (await self.activity.verify(attempt)).correct


@pytest_asyncio.fixture
async def asked(engine: AsyncEngine) -> Asked:
    asked = Asked(engine)
    await asked.prepare()
    return asked


async def test_what_the_payer_signed_is_right_and_stays_right(asked: Asked) -> None:
    await asked.answer(asked.signed())
    assert await asked.verdict()
    # A later use of the passkey, or its end, changes no verdict: a step that is run again finds the same.
    await asked.run("UPDATE identity.passkeys SET sign_count = 99 WHERE id = :passkey")
    assert await asked.verdict()


@pytest.mark.parametrize(
    ("money", "payee", "nonce"),
    [
        (Money(300_001, Currency.USD), PAYEE, NONCE),
        (Money(300_000, Currency.EUR), PAYEE, NONCE),
        (MONEY, "Corner Casino", NONCE),
        (MONEY, PAYEE, bytes(32)),
    ],
    ids=["amount", "currency", "payee", "nonce"],
)
async def test_an_answer_that_the_api_should_not_have_kept_is_wrong(
    asked: Asked, money: Money, payee: str, nonce: bytes
) -> None:
    await asked.answer(asked.signed(money, payee, nonce))
    assert not await asked.verdict()
    assert not await asked.verdict()


async def test_the_workflows_amount_counts_and_not_the_rows(asked: Asked) -> None:
    await asked.answer(asked.signed())
    assert not await asked.verdict(money=Money(1, Currency.USD))


async def test_no_other_key_no_other_payment_and_no_missing_answer_is_right(asked: Asked) -> None:
    assert not await asked.verdict()
    forger = Authenticator(credential_id=asked.authenticator.credential_id)
    await asked.answer(asked.signed(by=forger))
    assert not await asked.verdict(payment="pay_other")
    assert not await asked.verdict()


async def test_an_answer_and_a_verdict_are_given_once(asked: Asked) -> None:
    await asked.answer(asked.signed())
    with pytest.raises(IntegrityError):
        await asked.answer(asked.signed())
    assert await asked.verdict()
    with pytest.raises(IntegrityError):
        await asked.run("UPDATE identity.step_up_challenges SET correct = false WHERE id = :challenge")


async def test_no_answer_is_kept_after_the_challenges_end(asked: Asked) -> None:
    late = new_id(STEP_UP_CHALLENGE)
    await asked.run(
        _CHALLENGE.replace(":challenge", ":late").replace("now() + interval", "now() - interval"),
        nonce=NONCE,
        late=late,
    )
    asked.ids["challenge"] = late
    with pytest.raises(IntegrityError):
        await asked.answer(asked.signed())


_METHOD = """
INSERT INTO platform.payment_methods (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
VALUES (:method, :account, :user, :token, 'visa', '424242', '4242', 12, 2034, 'active')"""

_PAYMENT = """
INSERT INTO platform.payments (id, account_id, user_id, payment_method_id, version, status, amount_minor, currency,
    capture_method, merchant, created_at, updated_at)
VALUES (:payment, :account, :user, :method, 1, 'requires_action', 300000, 'USD', 'manual', CAST(:merchant AS jsonb),
    now(), now())"""

_PASSKEY = """
INSERT INTO identity.passkeys (id, account_id, user_id, credential_id, public_key, sign_count, aaguid, transports,
    backup_eligible, backed_up, name)
VALUES (:passkey, :account, :user, :credential, :key, 0, '00000000-0000-0000-0000-000000000000', '{}', false, false,
    'Phone')"""

_CHALLENGE = """
INSERT INTO identity.step_up_challenges (id, payment_id, user_id, nonce, expires_at)
VALUES (:challenge, :payment, :user, :nonce, now() + interval '4 minutes')"""

_ANSWER = """
UPDATE identity.step_up_challenges
SET answered_at = now(), answered_by = :by, passkey_id = :passkey, assertion = CAST(:assertion AS jsonb)
WHERE id = :challenge"""
