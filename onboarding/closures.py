"""The rows of a closure: what is still open, what ends with it, and what is left when a person is erased.

Payments, ledger and events stay as they are: they name a user by an id that then stands for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.closure import Closed, CloseOrder, ClosureOrder, Erased, EraseOrder, Obstacles
from domain.errors import NotFound
from onboarding.cases import reaching
from store.payment_methods import remove_payment_method


class Closures:
    """`retention` is how long the law wants identity data kept after the end of the business relationship."""

    def __init__(self, engine: AsyncEngine, retention: timedelta) -> None:
        self._engine = engine
        self._retention = retention

    async def begin(self, order: ClosureOrder) -> None:
        """From now on the user pays and sends nothing. Repeating this changes nothing.

        Raises:
            NotFound: there is no such user.
        """
        async with reaching(self._engine) as connection:
            parameters = {"user": order.user_id, "account": order.account_id, "by": order.requested_by}
            if (await connection.execute(_FREEZE, parameters)).rowcount == 0:
                raise NotFound("user", order.user_id)
            await connection.execute(_BEGIN, parameters)

    async def obstacles(self, user_id: str) -> Obstacles:
        """What is still open of the user's money; kept in the row, so that whoever asks sees what is waited for."""
        async with reaching(self._engine) as connection:
            counted = (await connection.execute(_OPEN, {"user": user_id})).mappings().one()
            registering = tuple((await connection.execute(_REGISTERING, {"user": user_id})).scalars())
            found = tuple(f"{what}:{count}" for what, count in counted.items() if count)
            await connection.execute(_WAIT_FOR, {"user": user_id, "what": list(found)})
        return Obstacles(found, registering)

    async def withdraw(self, user_id: str) -> None:
        """The closure did not happen: the user may pay again."""
        async with reaching(self._engine) as connection:
            await _all(connection, (_WITHDRAW, _UNFREEZE), user_id)

    async def shut(self, user_id: str) -> None:
        """Ends sessions, bank accounts and what the user is notified by. Repeating this changes nothing."""
        async with reaching(self._engine) as connection:
            await _all(connection, _SHUT, user_id)
            for method_id in (await connection.execute(_STANDING_BANK_ACCOUNTS, {"user": user_id})).scalars().all():
                await remove_payment_method(connection, method_id)

    async def cards(self, user_id: str) -> list[Row[Any]]:
        """The user's cards that are not removed (`id`, `token_id`): each is to be taken from vault and network, too."""
        async with reaching(self._engine) as connection:
            return list((await connection.execute(_CARDS, {"user": user_id})).all())

    async def bank_accounts(self, user_id: str) -> list[str]:
        """The ids of the user's bank accounts in the vault."""
        async with reaching(self._engine) as connection:
            return list((await connection.execute(_BANK_ACCOUNTS, {"user": user_id})).scalars())

    async def close(self, order: CloseOrder) -> Closed:
        """The end of the business relationship, from which the retention is counted. The first time counts."""
        user_id = order.user_id
        async with reaching(self._engine) as connection:
            parameters = {"user": user_id, "now": order.closed_at, "until": order.closed_at + self._retention}
            await connection.execute(_CLOSE, parameters)
            await connection.execute(_CLOSE_USER, parameters)
            # From here on the database lets nothing more in; what slipped in since everything was shut ends now.
            await _all(connection, _SHUT, user_id)
            row = (await connection.execute(_CLOSED, {"user": user_id})).one_or_none()
        if row is None:
            raise NotFound("closure", user_id)
        return Closed(row.closed_at, row.erase_after)

    async def documents(self, user_id: str) -> list[str]:
        """The ids of all documents, also of those that were erased by an attempt before."""
        async with reaching(self._engine) as connection:
            return list((await connection.execute(_DOCUMENTS, {"user": user_id})).scalars())

    async def evidence(self, user_id: str) -> list[Row[Any]]:
        """The user's disputes with the ids of their `files` and how often they were answered (`submissions`)."""
        async with reaching(self._engine) as connection:
            return list((await connection.execute(_EVIDENCE, {"user": user_id})).all())

    async def erase(self, order: EraseOrder) -> Erased:
        """Overwrites what is personal in the platform's rows, and certifies it, in one transaction.

        The database refuses it before the retention is over, and before the user's key is destroyed. Repeating it
        gives the first certificate again.
        """
        async with reaching(self._engine) as connection:
            row = (await connection.execute(_CERTIFICATE, {"user": order.user_id})).one_or_none()
            if row is None:
                parameters = {"user": order.user_id, "now": order.erased_at, "key": order.key_id}
                await _forget_answers(connection, order.user_id)
                for statement in _ERASE:
                    await connection.execute(statement, parameters)
                row = (await connection.execute(_CERTIFICATE, {"user": order.user_id})).one()
        return Erased(order.user_id, row.key_id, row.documents, row.erased_at)


async def _all(connection: AsyncConnection, statements: Sequence[TextClause], user_id: str) -> None:
    for statement in statements:
        await connection.execute(statement, {"user": user_id})


async def _forget_answers(connection: AsyncConnection, user_id: str) -> None:
    """Answers that are kept for repetitions show the user as they were, and digests of requests could be guessed.

    Those to the account's keys are looked through page by page: an account may have millions, and a statement has
    seconds.
    """
    await connection.execute(_FORGET_OWN_ANSWERS, {"user": user_id})
    ids = list((await connection.execute(_NAMES_OF, {"user": user_id})).scalars())
    after: str | None = ""
    while after is not None:
        page = {"user": user_id, "ids": ids, "after": after, "limit": _ANSWERS_AT_ONCE}
        after = (await connection.execute(_FORGET_ANSWERS, page)).scalar_one()


_FREEZE = text("""
UPDATE platform.users SET closing_at = coalesce(closing_at, now()) WHERE id = :user AND account_id = :account
""")

_BEGIN = text("""
INSERT INTO onboarding.closures (user_id, number, account_id, status, requested_by, requested_at)
SELECT :user, 1 + count(*), :account, 'waiting', :by, now() FROM onboarding.closures WHERE user_id = :user
ON CONFLICT (user_id) WHERE status <> 'withdrawn' DO NOTHING
""")

# A captured payment is closed to its payer; what is refunded or disputed of it later finds its way by the card.
_OPEN = text("""
SELECT
    (SELECT count(*) FROM platform.payments WHERE user_id = :user
        AND status IN ('processing', 'requires_action', 'in_review', 'in_doubt', 'authorized')) AS payments,
    (SELECT count(*) FROM platform.refunds JOIN platform.payments ON payments.id = refunds.payment_id
        WHERE payments.user_id = :user AND refunds.status IN ('pending', 'in_doubt')) AS refunds,
    (SELECT count(*) FROM platform.disputes JOIN platform.payments ON payments.id = disputes.payment_id
        WHERE payments.user_id = :user AND disputes.status NOT IN ('won', 'lost')) AS disputes,
    (SELECT count(*) FROM bank.micro_deposits WHERE user_id = :user
        AND status IN ('initiating', 'sent', 'awaiting_confirmation', 'origination_in_doubt')) AS micro_deposits,
    (SELECT count(*) FROM ledger.accounts WHERE id LIKE 'user:' || :user || ':%'
        AND (debits_posted <> credits_posted OR debits_pending <> 0 OR credits_pending <> 0)) AS balances,
    (SELECT count(*) FROM platform.payment_methods WHERE user_id = :user AND type = 'card' AND status = 'pending')
        AS cards
""")

_REGISTERING = text("""
SELECT token_id FROM platform.payment_methods WHERE user_id = :user AND type = 'card' AND status = 'pending' ORDER BY id
""")

_WAIT_FOR = text("UPDATE onboarding.closures SET waiting_for = :what WHERE user_id = :user AND status = 'waiting'")
_WITHDRAW = text("""
UPDATE onboarding.closures SET status = 'withdrawn', waiting_for = '{}' WHERE user_id = :user AND status = 'waiting'
""")
_UNFREEZE = text("UPDATE platform.users SET closing_at = NULL WHERE id = :user AND closed_at IS NULL")

_SHUT = (
    text("""
    UPDATE identity.sessions SET revoked_at = now(), revoke_reason = 'user_closed'
    WHERE user_id = :user AND revoked_at IS NULL
    """),
    # What opens the wallet. A suspended passkey stays as a row; the address is free for whoever proves it next.
    text("UPDATE identity.devices SET revoked_at = now() WHERE user_id = :user AND revoked_at IS NULL"),
    text("""
    UPDATE identity.passkeys SET suspended_at = now()
    WHERE user_id = :user AND suspended_at IS NULL AND removed_at IS NULL
    """),
    text("DELETE FROM identity.passwords WHERE user_id = :user"),
    text("DELETE FROM identity.contacts WHERE user_id = :user"),
    text("DELETE FROM notify.push_tokens WHERE user_id = :user"),
)

_CARDS = text("""
SELECT id, token_id FROM platform.payment_methods WHERE user_id = :user AND type = 'card' AND status <> 'removed'
ORDER BY id
""")
_STANDING_BANK_ACCOUNTS = text("""
SELECT id FROM platform.payment_methods WHERE user_id = :user AND bank_account_id IS NOT NULL AND status <> 'removed'
""")

_BANK_ACCOUNTS = text("""
SELECT bank_account_id FROM platform.payment_methods WHERE user_id = :user AND bank_account_id IS NOT NULL
""")

_CLOSE = text("""
UPDATE onboarding.closures SET status = 'closed', waiting_for = '{}', closed_at = :now, erase_after = :until
WHERE user_id = :user AND status = 'waiting'
""")
_CLOSE_USER = text("UPDATE platform.users SET closed_at = :now WHERE id = :user AND closed_at IS NULL")
_CLOSED = text("""
SELECT closed_at, erase_after FROM onboarding.closures WHERE user_id = :user AND status IN ('closed', 'erased')
""")

_DOCUMENTS = text("SELECT id FROM onboarding.documents WHERE user_id = :user ORDER BY id")
_CERTIFICATE = text("SELECT * FROM onboarding.erasure_certificates WHERE user_id = :user")

_EVIDENCE = text("""
SELECT disputes.id, disputes.submissions,
    ARRAY(SELECT id FROM platform.dispute_files WHERE dispute_id = disputes.id) AS files
FROM platform.disputes JOIN platform.payments ON payments.id = disputes.payment_id
WHERE payments.user_id = :user ORDER BY disputes.id
""")

_ANSWERS_AT_ONCE = 2000
_FORGET_OWN_ANSWERS = text("""
UPDATE platform.idempotency_keys
SET response_status = NULL, response_body = NULL, request_hash = decode(repeat('00', 32), 'hex')
WHERE principal = :user
""")
_NAMES_OF = text("""
SELECT id FROM platform.users WHERE id = :user
UNION ALL SELECT id FROM platform.payments WHERE user_id = :user
UNION ALL SELECT id FROM platform.payment_methods WHERE user_id = :user
""")
# The last key of the page, or NULL when it was the last page.
_FORGET_ANSWERS = text("""
WITH page AS (
    SELECT principal, key, resource_id, response_body FROM platform.idempotency_keys
    WHERE principal = (SELECT account_id FROM platform.users WHERE id = :user) AND key > :after
    ORDER BY key LIMIT :limit
), forgotten AS (
    UPDATE platform.idempotency_keys AS answered
    SET response_status = NULL, response_body = NULL, request_hash = decode(repeat('00', 32), 'hex')
    FROM page
    WHERE answered.principal = page.principal AND answered.key = page.key
        AND (page.resource_id = ANY(:ids) OR ARRAY(
            SELECT found[1] FROM regexp_matches(page.response_body::text, '((usr|pay|pm)_[a-z2-7]{24})', 'g') AS found
        ) && CAST(:ids AS text[]))
)
SELECT CASE WHEN count(*) = :limit THEN max(key) END FROM page
""")

_ERASE = (
    text("UPDATE onboarding.documents SET erased_at = :now WHERE user_id = :user AND erased_at IS NULL"),
    text("""
    UPDATE onboarding.cases SET sealed_details = NULL, document_expires_on = NULL, reasons = '{}'
    WHERE user_id = :user
    """),
    text("DELETE FROM notify.inbox WHERE user_id = :user"),
    text("""
    DELETE FROM identity.contact_codes WHERE user_id = :user
        OR registration_id IN (SELECT id FROM identity.registrations WHERE user_id = :user)
    """),
    text("DELETE FROM identity.registrations WHERE user_id = :user"),
    text("DELETE FROM identity.former_contacts WHERE user_id = :user"),
    # What apps and people call their devices. The rows stay where they keep a key from coming back.
    text("""
    DELETE FROM identity.refresh_tokens WHERE session_id IN (SELECT id FROM identity.sessions WHERE user_id = :user)
    """),
    text("DELETE FROM identity.sessions WHERE user_id = :user"),
    text("UPDATE identity.passkeys SET name = 'erased' WHERE user_id = :user"),
    text("UPDATE identity.devices SET name = 'erased', attestation = NULL, attested = 'none' WHERE user_id = :user"),
    text("UPDATE platform.payment_methods SET label = NULL WHERE user_id = :user AND label IS NOT NULL"),
    text("""
    UPDATE bank.files SET receiver_name = 'erased'
    WHERE micro_deposit_id IN (SELECT id FROM bank.micro_deposits WHERE user_id = :user)
    """),
    # What people wrote about the user's case and payments.
    text("UPDATE onboarding.events SET reasons = '{erased}' WHERE user_id = :user AND cardinality(reasons) > 0"),
    text("""
    UPDATE platform.payments SET metadata = '{}',
        status_reason = CASE WHEN status IN ('voided', 'canceled') THEN 'erased' ELSE status_reason END
    WHERE user_id = :user
    """),
    text("""
    UPDATE platform.outbox SET data = data - 'reason'
    WHERE subject_id IN (SELECT id FROM platform.payments WHERE user_id = :user)
        AND type IN ('payment.voided', 'payment.canceled')
    """),
    text("""
    UPDATE platform.refunds SET reason = NULL
    WHERE reason IS NOT NULL AND payment_id IN (SELECT id FROM platform.payments WHERE user_id = :user)
    """),
    text("""
    UPDATE platform.disputes SET texts = '{}'
    WHERE texts <> '{}' AND payment_id IN (SELECT id FROM platform.payments WHERE user_id = :user)
    """),
    text("""
    UPDATE platform.dispute_files SET name = 'erased' WHERE dispute_id IN (
        SELECT disputes.id FROM platform.disputes JOIN platform.payments ON payments.id = disputes.payment_id
        WHERE payments.user_id = :user)
    """),
    text("""
    UPDATE platform.users SET name = 'erased', email = NULL, phone = NULL, locale = 'en', tier = 'unverified',
        sending_frozen = false, erased_at = :now
    WHERE id = :user AND erased_at IS NULL
    """),
    text("""
    UPDATE onboarding.closures SET status = 'erased', erased_at = :now WHERE user_id = :user AND status = 'closed'
    """),
    text("""
    INSERT INTO onboarding.erasure_certificates
        (user_id, account_id, requested_by, requested_at, closed_at, erased_at, key_id, documents)
    SELECT closures.user_id, closures.account_id, closures.requested_by, closures.requested_at, closures.closed_at,
        closures.erased_at, :key, (SELECT count(*) FROM onboarding.documents WHERE user_id = :user)
    FROM onboarding.closures WHERE user_id = :user AND status = 'erased'
    """),
)
