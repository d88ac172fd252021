"""The bank zone's tables: verifications with their amounts and attempts, files, entries, returns.

All of a verification's amounts are read and written here, and go nowhere but into its file and the ledger.
"""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass, field
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bank.errors import CorrectionPending
from domain.errors import NotFound
from domain.ids import EVENT, derived_id
from domain.micro_deposits import (
    ATTEMPTS,
    CYCLES,
    ENDED,
    LARGEST_DEPOSIT_MINOR,
    SMALLEST_DEPOSIT_MINOR,
    BankReturn,
    BeginRefusal,
    ConfirmAttempt,
    ConfirmVerdict,
    CorrectedAccount,
    MicroDepositChange,
    MicroDepositEvent,
    MicroDepositOrder,
    MicroDepositStatus,
    ReturnEffect,
)
from store.payment_methods import remove_payment_method

# What a cycle leaves unspent: nothing was sent, or the account is its holder's.
_GIVEN_BACK = frozenset({MicroDepositEvent.REFUSED, MicroDepositEvent.CONFIRMED})
_METHOD_STATUS = {MicroDepositEvent.CONFIRMED: "active", MicroDepositEvent.RETURNED: "removed"}


@dataclass(frozen=True, slots=True)
class Amounts:
    """The two credits of a verification, in cents; their sum is the debit."""

    first_minor: int = field(repr=False)
    second_minor: int = field(repr=False)


async def begin(connection: AsyncConnection, order: MicroDepositOrder) -> BeginRefusal | None:
    """Counts a cycle of the bank account and chooses the amounts; or why not. Doing it again changes nothing.

    Raises:
        NotFound: there is no such bank account.
        CorrectionPending: ask again.
    """
    if (await connection.execute(_EXISTS, {"id": order.micro_deposit_id})).one_or_none() is not None:
        return None
    reference = await connection.scalar(_REFERENCE, {"id": order.bank_account_id})
    if reference is None:
        raise NotFound("bank account", order.bank_account_id)
    # The row is locked to the end of the transaction: whoever else begins for this account waits, and counts on.
    await connection.execute(_NEW_LIMIT, {"reference": reference})
    limit = (await connection.execute(_LOCK_LIMIT, {"reference": reference})).one()
    # Nor is the method removed before this has ended, so that its removal finds what has begun.
    account = (await connection.execute(_ACCOUNT, {"id": order.bank_account_id})).one()
    if account.correction_waits:
        raise CorrectionPending("a correction of the account's data is not applied yet")
    if account.erased_at is not None or account.status == "removed":
        return BeginRefusal.UNUSABLE
    if account.status == "active":
        return BeginRefusal.VERIFIED
    if (await connection.execute(_OPEN, {"method": order.payment_method_id})).one_or_none() is not None:
        return BeginRefusal.IN_PROGRESS
    if limit.cycles >= CYCLES or limit.attempts >= ATTEMPTS * CYCLES:
        return BeginRefusal.LOCKED
    await connection.execute(_COUNT_CYCLE, {"reference": reference})
    await connection.execute(
        _BEGIN,
        {
            "id": order.micro_deposit_id,
            "account_id": order.account_id,
            "user_id": order.user_id,
            "method": order.payment_method_id,
            "bank_account_id": order.bank_account_id,
            "reference": reference,
            "requested_at": order.requested_at,
        },
    )
    await connection.execute(
        _CHOOSE, {"id": order.micro_deposit_id, "first": _random_amount(), "second": _random_amount()}
    )
    return None


def _random_amount() -> int:
    return SMALLEST_DEPOSIT_MINOR + secrets.randbelow(LARGEST_DEPOSIT_MINOR - SMALLEST_DEPOSIT_MINOR + 1)


async def amounts(connection: AsyncConnection, micro_deposit_id: str) -> Amounts:
    """What was chosen.

    Raises:
        NotFound: there is no such verification, or it has ended and its amounts were forgotten.
    """
    row = (await connection.execute(_AMOUNTS, {"id": micro_deposit_id})).one_or_none()
    if row is None:
        raise NotFound("amounts of micro-deposit", micro_deposit_id)
    return Amounts(row.first_minor, row.second_minor)


async def receiver_name(connection: AsyncConnection, micro_deposit_id: str) -> str:
    return str((await connection.execute(_NAME, {"id": micro_deposit_id})).scalar_one())


async def record(connection: AsyncConnection, change: MicroDepositChange) -> None:
    """Writes an event of a verification, what it means to the payment method, and the outbox's row, all or nothing.
    With its end the amounts are forgotten: nobody is to name them any more.

    An event that was recorded under this version changes nothing again.
    """
    changed = await connection.execute(
        _RECORD,
        {
            "id": change.micro_deposit_id,
            "version": change.version,
            "status": change.status.value,
            "reason": change.reason,
            "expires_at": change.expires_at,
        },
    )
    row = changed.one_or_none()
    if row is None:
        return
    if change.event in _GIVEN_BACK or (change.event is MicroDepositEvent.CANCELED and not row.originated):
        await connection.execute(_GIVE_CYCLE_BACK, {"reference": row.reference})
    if (status := _METHOD_STATUS.get(change.event)) is not None:
        await connection.execute(_METHOD, {"id": row.payment_method_id, "status": status})
    if change.status in ENDED:
        await connection.execute(_FORGET, {"id": change.micro_deposit_id})
    data = {
        "id": change.micro_deposit_id,
        "payment_method": row.payment_method_id,
        "user": row.user_id,
        "status": change.status.value,
        "reason": change.reason,
        # What the user's notice says besides; how the method stood before.
        "method_status": row.method_status,
        "effective_on": row.effective_on.isoformat() if row.effective_on else None,
        "locked": row.cycles >= CYCLES,
    }
    await connection.execute(
        _OUTBOX,
        {
            "id": derived_id(EVENT, change.micro_deposit_id, str(change.version)),
            "subject": change.micro_deposit_id,
            "sequence": change.version,
            "type": f"micro_deposit.{change.event}",
            "data": json.dumps(data),
        },
    )


async def count_attempt(connection: AsyncConnection, attempt: ConfirmAttempt) -> ConfirmVerdict | None:
    """Counts a guess before anything is compared. The verdict if there is one already: it was judged before, or no
    attempt is left. The caller commits before it compares.

    Raises:
        NotFound: there is no such verification.
    """
    row = (await connection.execute(_LOCK_ATTEMPTS, {"id": attempt.micro_deposit_id})).one_or_none()
    if row is None:
        raise NotFound("micro-deposit", attempt.micro_deposit_id)
    known = (await connection.execute(_KNOWN_ATTEMPT, {"key": attempt.effect_key})).one_or_none()
    if known is not None:
        return None if known.correct is None else ConfirmVerdict(known.correct, _left(row.attempts))
    if row.status != "awaiting_confirmation" or row.attempts >= ATTEMPTS or row.guesses >= ATTEMPTS * CYCLES:
        return ConfirmVerdict(False, 0)
    await connection.execute(_COUNT_ATTEMPT, {"id": attempt.micro_deposit_id, "reference": row.reference})
    await connection.execute(
        _NEW_ATTEMPT, {"key": attempt.effect_key, "id": attempt.micro_deposit_id, "number": row.attempts + 1}
    )
    return None


async def judge(connection: AsyncConnection, attempt: ConfirmAttempt) -> ConfirmVerdict:
    """Compares a guess that was counted, in a time that does not depend on it, and keeps what was found."""
    row = (await connection.execute(_LOCK_ATTEMPTS, {"id": attempt.micro_deposit_id})).one()
    if row.status in ENDED:  # the bank has returned an entry since the guess was counted
        return ConfirmVerdict(False, 0)
    correct = same_amounts(await amounts(connection, attempt.micro_deposit_id), attempt.amounts_minor)
    judged = await connection.execute(_JUDGE, {"key": attempt.effect_key, "correct": correct})
    if correct and judged.rowcount:
        # Guesses are counted to stop guessing; who knows the amounts has not guessed.
        await connection.execute(_GIVE_ATTEMPT_BACK, {"reference": row.reference})
    return ConfirmVerdict(correct, _left(row.attempts))


def same_amounts(chosen: Amounts, guessed: tuple[int, int]) -> bool:
    """Whether both are the same two amounts, in any order, each as often: a multiset. In constant time."""
    mine = bytes(sorted((chosen.first_minor, chosen.second_minor)))
    theirs = bytes(sorted(min(max(amount, 0), 255) for amount in guessed))
    return hmac.compare_digest(mine, theirs)


def _left(attempts: int) -> int:
    return max(0, ATTEMPTS - attempts)


@dataclass(frozen=True, slots=True)
class Posting:
    micro_deposit_id: str
    file_id: str
    day: date


@dataclass(frozen=True, slots=True)
class ReturnedEntry:
    """What the bank gave back. `part` is `credit_1`, `credit_2` or `debit`, `status` its verification's; both are None
    if it is no entry of ours."""

    news: BankReturn
    part: str | None
    status: MicroDepositStatus | None


async def open_verification(connection: AsyncConnection, payment_method_id: str) -> str | None:
    """The id of the verification that is under way for a payment method, if there is one."""
    found = await connection.scalar(_OPEN, {"method": payment_method_id})
    return None if found is None else str(found)


async def unposted(connection: AsyncConnection, limit: int) -> list[tuple[str, str]]:
    """Files (with their verification) of which the bank has not said, or nobody was told, that they are posted."""
    rows = await connection.execute(_UNPOSTED, {"limit": limit})
    return [(row.file_id, row.micro_deposit_id) for row in rows]


async def posted(connection: AsyncConnection, file_id: str, day: date) -> None:
    await connection.execute(_POSTED, {"file_id": file_id, "day": day})


async def posting_told(connection: AsyncConnection, file_id: str) -> None:
    await connection.execute(_POSTING_TOLD, {"file_id": file_id})


async def last_return_file(connection: AsyncConnection) -> int:
    return int((await connection.execute(_LAST_RETURN_FILE)).scalar_one())


async def untold(connection: AsyncConnection) -> list[ReturnedEntry]:
    rows = await connection.execute(_UNTOLD)
    return [
        ReturnedEntry(
            BankReturn(
                row.sequence, row.line, row.kind, row.reason_code, row.amount_minor, row.settled_on,
                row.transaction_code, row.micro_deposit_id, row.bank_account_id, row.sealed_correction,
            ),
            row.part,
            None if row.status is None else MicroDepositStatus(row.status),
        )
        for row in rows
    ]  # fmt: skip


async def return_told(connection: AsyncConnection, entry: BankReturn) -> None:
    await connection.execute(_RETURN_TOLD, {"sequence": entry.sequence, "line": entry.line})


@dataclass(frozen=True, slots=True)
class Revocable:
    """What a late return meets: the verification that holds for the payment method, if there is one."""

    payment_method_id: str
    verified_by: str | None
    version: int | None
    may_be_removed: bool
    """The method was never verified, and nothing is under way for it."""


async def effect_of(connection: AsyncConnection, entry: BankReturn) -> ReturnEffect | None:
    found = await connection.scalar(_EFFECT, {"sequence": entry.sequence, "line": entry.line})
    return None if found is None else ReturnEffect(found)


async def decide_return(
    connection: AsyncConnection, entry: BankReturn, effect: ReturnEffect, detail: str | None = None
) -> None:
    """Keeps what became of an entry, for good. What was decided first stands."""
    values = {"sequence": entry.sequence, "line": entry.line, "effect": effect.value, "detail": detail}
    await connection.execute(_DECIDE, values)


async def revocable(connection: AsyncConnection, micro_deposit_id: str) -> Revocable:
    row = (await connection.execute(_REVOCABLE, {"id": micro_deposit_id})).one()
    free = row.method_status == "pending" and not row.under_way
    return Revocable(row.payment_method_id, row.verified_by, row.version, free)


async def revoke(connection: AsyncConnection, entry: BankReturn, found: Revocable, now: datetime) -> bool:
    """Takes back what `found` says may be taken back; False if that is nothing."""
    if found.verified_by is not None and found.version is not None:
        event, status = MicroDepositEvent.RETURNED, MicroDepositStatus.RETURNED
        change = MicroDepositChange(found.verified_by, found.version + 1, event, status, now, entry.reason_code)
        await record(connection, change)
        return True
    if found.may_be_removed:
        await remove_payment_method(connection, found.payment_method_id)
    return found.may_be_removed


async def carry_limits(connection: AsyncConnection, account: CorrectedAccount) -> None:
    """A corrected account has another reference; what was guessed of it stays counted."""
    await connection.execute(_CARRY_LIMITS, {"old": account.old_reference, "new": account.reference})


_EXISTS = text("SELECT 1 FROM bank.micro_deposits WHERE id = :id")

_REFERENCE = text("""
SELECT reference FROM vault.bank_accounts account
JOIN platform.payment_methods method ON method.bank_account_id = account.id WHERE account.id = :id
""")
_ACCOUNT = text("""
SELECT account.erased_at, method.status, EXISTS (
    SELECT FROM bank.returns change JOIN bank.files file USING (file_id)
    JOIN bank.micro_deposits deposit ON deposit.id = file.micro_deposit_id
    WHERE change.kind = 'change' AND change.sealed_correction IS NOT NULL AND deposit.bank_account_id = account.id
        AND NOT EXISTS (SELECT FROM bank.return_effects effect
            WHERE (effect.sequence, effect.line) = (change.sequence, change.line))) AS correction_waits
FROM vault.bank_accounts account JOIN platform.payment_methods method ON method.bank_account_id = account.id
WHERE account.id = :id FOR SHARE OF method
""")

_NEW_LIMIT = text("INSERT INTO bank.limits (reference) VALUES (:reference) ON CONFLICT DO NOTHING")
_LOCK_LIMIT = text("SELECT cycles, attempts FROM bank.limits WHERE reference = :reference FOR UPDATE")
_COUNT_CYCLE = text("UPDATE bank.limits SET cycles = cycles + 1 WHERE reference = :reference")
_GIVE_CYCLE_BACK = text("UPDATE bank.limits SET cycles = cycles - 1 WHERE reference = :reference")
_GIVE_ATTEMPT_BACK = text("UPDATE bank.limits SET attempts = attempts - 1 WHERE reference = :reference")

_OPEN = text("""
SELECT id FROM bank.micro_deposits WHERE payment_method_id = :method
AND status IN ('new', 'initiating', 'sent', 'awaiting_confirmation', 'origination_in_doubt')
""")

_BEGIN = text("""
INSERT INTO bank.micro_deposits
    (id, account_id, user_id, payment_method_id, bank_account_id, reference, status, requested_at)
VALUES (:id, :account_id, :user_id, :method, :bank_account_id, :reference, 'new', :requested_at)
""")
_CHOOSE = text("INSERT INTO bank.amounts (micro_deposit_id, first_minor, second_minor) VALUES (:id, :first, :second)")
_AMOUNTS = text("SELECT first_minor, second_minor FROM bank.amounts WHERE micro_deposit_id = :id")
_FORGET = text("DELETE FROM bank.amounts WHERE micro_deposit_id = :id")
_NAME = text("""
SELECT owner.name FROM bank.micro_deposits deposit JOIN platform.users owner ON owner.id = deposit.user_id
WHERE deposit.id = :id
""")

_RECORD = text("""
UPDATE bank.micro_deposits AS deposit SET
    status = :status, version = :version, reason = coalesce(:reason, reason),
    expires_at = coalesce(:expires_at, expires_at), updated_at = now()
WHERE id = :id AND version = :version - 1
RETURNING reference, payment_method_id, user_id,
    EXISTS (SELECT FROM bank.files WHERE micro_deposit_id = :id AND state <> 'refused') AS originated,
    (SELECT effective_on FROM bank.files WHERE micro_deposit_id = :id) AS effective_on,
    (SELECT status FROM platform.payment_methods WHERE id = payment_method_id) AS method_status,
    (SELECT cycles FROM bank.limits WHERE limits.reference = deposit.reference) AS cycles
""")

_METHOD = text("""
UPDATE platform.payment_methods SET status = :status WHERE id = :id AND status <> 'removed'
""")

_OUTBOX = text("""
INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
VALUES (:id, :subject, :sequence, :type, CAST(:data AS jsonb))
""")

_LOCK_ATTEMPTS = text("""
SELECT deposit.status, deposit.attempts, deposit.reference, known.attempts AS guesses
FROM bank.limits known JOIN bank.micro_deposits deposit USING (reference)
WHERE deposit.id = :id FOR UPDATE
""")
_KNOWN_ATTEMPT = text("SELECT correct FROM bank.confirmations WHERE effect_key = :key")
_COUNT_ATTEMPT = text("""
WITH guessed AS (UPDATE bank.limits SET attempts = attempts + 1 WHERE reference = :reference)
UPDATE bank.micro_deposits SET attempts = attempts + 1 WHERE id = :id
""")
_NEW_ATTEMPT = text("""
INSERT INTO bank.confirmations (effect_key, micro_deposit_id, number) VALUES (:key, :id, :number)
""")
_JUDGE = text("UPDATE bank.confirmations SET correct = :correct WHERE effect_key = :key AND correct IS NULL")

_UNPOSTED = text("""
SELECT file_id, micro_deposit_id FROM bank.files WHERE state = 'sent' AND posting_told_at IS NULL
ORDER BY created_at LIMIT :limit
""")
_POSTED = text("UPDATE bank.files SET posted_on = :day WHERE file_id = :file_id AND posted_on IS NULL")
_POSTING_TOLD = text("UPDATE bank.files SET posting_told_at = now() WHERE file_id = :file_id")

_LAST_RETURN_FILE = text("SELECT coalesce(max(sequence), 0) FROM bank.return_files")
_UNTOLD = text("""
SELECT returned.*, file.micro_deposit_id, deposit.bank_account_id, deposit.status
FROM bank.returns returned LEFT JOIN bank.files file USING (file_id)
LEFT JOIN bank.micro_deposits deposit ON deposit.id = file.micro_deposit_id
WHERE returned.told_at IS NULL ORDER BY returned.sequence, returned.line
""")
_EFFECT = text("SELECT effect FROM bank.return_effects WHERE sequence = :sequence AND line = :line")
_DECIDE = text("""
INSERT INTO bank.return_effects (sequence, line, effect, detail) VALUES (:sequence, :line, :effect, :detail)
ON CONFLICT DO NOTHING
""")
# The entry's own verification, if that is the one that holds.
_REVOCABLE = text("""
SELECT mine.payment_method_id, method.status AS method_status, holds.id AS verified_by, holds.version, EXISTS (
    SELECT FROM bank.micro_deposits other WHERE other.payment_method_id = method.id
    AND other.status IN ('new', 'initiating', 'sent', 'awaiting_confirmation', 'origination_in_doubt')) AS under_way
FROM bank.micro_deposits mine JOIN platform.payment_methods method ON method.id = mine.payment_method_id
LEFT JOIN LATERAL (
    SELECT id, version FROM bank.micro_deposits verified
    WHERE verified.payment_method_id = method.id AND verified.status = 'verified'
    ORDER BY verified.id = mine.id DESC, verified.requested_at DESC LIMIT 1
) holds ON true
WHERE mine.id = :id FOR NO KEY UPDATE OF mine
""")
_CARRY_LIMITS = text("""
INSERT INTO bank.limits (reference, cycles, attempts)
SELECT :new, cycles, attempts FROM bank.limits WHERE reference = :old
ON CONFLICT (reference) DO UPDATE SET
    cycles = greatest(limits.cycles, excluded.cycles), attempts = greatest(limits.attempts, excluded.attempts)
""")
_RETURN_TOLD = text("""
UPDATE bank.returns SET told_at = now() WHERE sequence = :sequence AND line = :line AND told_at IS NULL
""")
