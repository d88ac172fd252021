"""A payer's passkey as the confirmation of one payment.

The question is a nonce with an end; what is signed is the digest of payment, amount, currency, payee and that nonce
(`confirmation_challenge`). An answer is stored as it came, once, under the update that carries it to the payment. The
API looks at it first, so that what is wrong is refused and changes nothing; what counts is the payments zone's own
look (`judge`), which takes amount and payee from the workflow, not from the API.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.currency import Currency
from domain.ids import STEP_UP_CHALLENGE, new_id
from domain.money import Money
from domain.step_up import confirmation_challenge, confirmation_document
from identity.key_errors import (
    PasskeyRefused,
    PasskeySuspended,
    StepUpExpired,
    StepUpNotWaiting,
    StepUpUsed,
)
from identity.passkeys import find_by_assertion, use
from identity.relying_party import Json, RelyingParty

_LIFETIME = timedelta(minutes=5)
# A question that is about to end is not handed out again.
_WORTH_ASKING = timedelta(minutes=1)
_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Question:
    """What the payer is asked. `public_key` is what a browser takes; None if the payer has no passkey.

    `document` is what the challenge is the SHA-256 of, for an app to show and to check.
    """

    id: str
    document: str
    public_key: Json | None
    expires_at: datetime


class StepUps:
    """For the API: asks payers, and takes their answers."""

    def __init__(self, engine: AsyncEngine, relying_party: RelyingParty) -> None:
        self._engine = engine
        self._relying_party = relying_party

    async def ask(self, payment_id: str) -> Question:
        """The payment's open question, or a new one.

        Raises:
            StepUpNotWaiting: the payment waits for no answer.
        """
        async with self._engine.begin() as connection:
            payment = await _waiting(connection, payment_id)
            values = {"payment_id": payment_id, "worth_asking": _WORTH_ASKING}
            row = (await connection.execute(_FIND_OPEN, values)).one_or_none()
            if row is None:
                row = (
                    await connection.execute(
                        _INSERT,
                        {
                            "id": new_id(STEP_UP_CHALLENGE),
                            "payment_id": payment_id,
                            "user_id": payment.user_id,
                            "nonce": secrets.token_bytes(_NONCE_BYTES),
                            "lifetime": _LIFETIME,
                        },
                    )
                ).one()
            keys = (await connection.scalars(_CREDENTIALS, {"user_id": payment.user_id})).all()
        money, nonce = _money(payment), bytes(row.nonce)
        challenge = confirmation_challenge(payment_id, money, payment.merchant_name, nonce)
        allowed = [bytes(key) for key in keys]
        return Question(
            id=row.id,
            document=confirmation_document(payment_id, money, payment.merchant_name, nonce),
            public_key=self._relying_party.assertion_options(challenge, allowed) if allowed else None,
            expires_at=row.expires_at,
        )

    async def answer(self, payment_id: str, challenge_id: str, assertion: Json, answered_by: str) -> None:
        """Takes the payer's answer for the update `answered_by`; the same one again changes nothing.

        Raises:
            StepUpNotWaiting: the payment waits for no answer.
            StepUpUsed: it was answered before, by another update.
            StepUpExpired: there is no such question of this payment any more.
            PasskeyRefused: not signed by a passkey of the payer, for this payment, amount, payee and question.
            PasskeySuspended: the passkey is, or was just now.
        """
        async with self._engine.begin() as connection:
            wanted = {"id": challenge_id, "payment_id": payment_id}
            row = (await connection.execute(_FIND, wanted)).one_or_none()
            if row is not None and row.answered_by == answered_by:
                return
            if row is not None and row.answered_by is not None:
                raise StepUpUsed("answered before")
            payment = await _waiting(connection, payment_id)
            if row is None or row.expired:
                raise StepUpExpired("no such question, or too late")
            passkey = await find_by_assertion(connection, assertion)
            if passkey.user_id != row.user_id:
                raise PasskeyRefused("of another user")
            challenge = confirmation_challenge(payment_id, _money(payment), payment.merchant_name, bytes(row.nonce))
            verified = self._relying_party.verify_assertion(assertion, challenge, passkey.public_key)
            usable = await use(connection, passkey, verified)
            if usable:
                values = {"id": row.id, "by": answered_by, "passkey_id": passkey.id, "assertion": json.dumps(assertion)}
                await connection.execute(_ANSWER, values)
        if not usable:
            raise PasskeySuspended("the counter went back")


class StepUpJudge:
    """For the payments zone: whether a stored answer confirms what the workflow is about to pay."""

    def __init__(self, engine: AsyncEngine, relying_party: RelyingParty) -> None:
        self._engine = engine
        self._relying_party = relying_party

    async def judge(self, payment_id: str, money: Money, payee: str, challenge_id: str) -> bool:
        """Verifies the signature against the payer's stored key, and keeps the verdict: it is the same ever after.

        The passkey's counter was counted when the answer came; a later use of the passkey says nothing about this one.
        """
        async with self._engine.begin() as connection:
            wanted = {"id": challenge_id, "payment_id": payment_id}
            row = (await connection.execute(_FIND_ANSWER, wanted)).one_or_none()
            if row is None:
                return False
            if row.correct is not None:
                return bool(row.correct)
            challenge = confirmation_challenge(payment_id, money, payee, bytes(row.nonce))
            try:
                self._relying_party.verify_assertion(row.assertion, challenge, bytes(row.public_key))
                correct = True
            except PasskeyRefused:
                correct = False
            await connection.execute(_JUDGE, {"id": challenge_id, "correct": correct})
        return correct


async def _waiting(connection: AsyncConnection, payment_id: str) -> Row[Any]:
    payment = (await connection.execute(_PAYMENT, {"payment_id": payment_id})).one_or_none()
    if payment is None or payment.status != "requires_action":
        raise StepUpNotWaiting("the payment waits for no answer")
    return payment


def _money(payment: Row[Any]) -> Money:
    return Money(payment.amount_minor, Currency[payment.currency])


# The lock lets one question at a time be asked about a payment.
_PAYMENT = text("""
SELECT status, user_id, amount_minor, currency, merchant ->> 'name' AS merchant_name
FROM platform.payments WHERE id = :payment_id FOR NO KEY UPDATE
""")

_FIND_OPEN = text("""
SELECT id, nonce, expires_at FROM identity.step_up_challenges
WHERE payment_id = :payment_id AND answered_at IS NULL AND expires_at > now() + CAST(:worth_asking AS interval)
ORDER BY created_at DESC LIMIT 1
""")

_INSERT = text("""
INSERT INTO identity.step_up_challenges (id, payment_id, user_id, nonce, expires_at)
VALUES (:id, :payment_id, :user_id, :nonce, now() + CAST(:lifetime AS interval))
RETURNING id, nonce, expires_at
""")

_CREDENTIALS = text("""
SELECT credential_id FROM identity.passkeys
WHERE user_id = :user_id AND removed_at IS NULL AND suspended_at IS NULL ORDER BY created_at DESC
""")

_FIND = text("""
SELECT id, user_id, nonce, answered_by, expires_at <= now() AS expired FROM identity.step_up_challenges
WHERE id = :id AND payment_id = :payment_id FOR UPDATE
""")

_ANSWER = text("""
UPDATE identity.step_up_challenges
SET answered_at = now(), answered_by = :by, passkey_id = :passkey_id, assertion = CAST(:assertion AS jsonb)
WHERE id = :id
""")

# The passkey is the payer's by the foreign keys, and the question is of the payment's payer by its trigger.
_FIND_ANSWER = text("""
SELECT challenge.nonce, challenge.assertion, challenge.correct, passkey.public_key
FROM identity.step_up_challenges challenge
JOIN identity.passkeys passkey ON passkey.id = challenge.passkey_id
WHERE challenge.id = :id AND challenge.payment_id = :payment_id
FOR UPDATE OF challenge
""")

_JUDGE = text("UPDATE identity.step_up_challenges SET correct = :correct, judged_at = now() WHERE id = :id")
