"""Reading and adding bank accounts, and their verifications. The amounts have an audited reader of their own."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.queries import Row


@dataclass(frozen=True, slots=True)
class Look:
    """Somebody of the support staff looks at amounts. `operator` is the id of the key that asked."""

    micro_deposit_id: str
    account_id: str
    operator: str
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class BankAccountRow:
    """A bank account as a payment method: `bank_account_id` names the vault's record."""

    id: str
    account_id: str
    user_id: str
    bank_account_id: str
    routing_number: str
    account_type: str
    last4: str


async def add_bank_account(connection: AsyncConnection, account: BankAccountRow) -> None:
    """Adding it again changes nothing."""
    await connection.execute(
        _ADD,
        {
            "id": account.id,
            "account_id": account.account_id,
            "user_id": account.user_id,
            "bank_account_id": account.bank_account_id,
            "routing_number": account.routing_number,
            "account_type": account.account_type,
            "last4": account.last4,
        },
    )


async def find_bank_account(connection: AsyncConnection, payment_method_id: str) -> Row | None:
    """The payment method, if it is a bank account."""
    found = await connection.execute(_BANK_ACCOUNT, {"id": payment_method_id})
    row: Row | None = found.mappings().one_or_none()
    return row


async def latest_micro_deposit(connection: AsyncConnection, payment_method_id: str) -> Row | None:
    row: Row | None = (await connection.execute(_LATEST, {"id": payment_method_id})).mappings().one_or_none()
    return row


async def find_micro_deposit(connection: AsyncConnection, micro_deposit_id: str) -> Row | None:
    row: Row | None = (await connection.execute(_FIND, {"id": micro_deposit_id})).mappings().one_or_none()
    return row


async def look_at_amounts(connection: AsyncConnection, look: Look) -> tuple[int, int] | None:
    """The amounts, and the record that somebody looked, in one statement; None if there are none of this account's."""
    found = await connection.execute(
        _LOOK,
        {
            "id": look.micro_deposit_id,
            "account_id": look.account_id,
            "operator": look.operator,
            "reason": look.reason,
            "request_id": look.request_id,
        },
    )
    row = found.one_or_none()
    return None if row is None else (row.first_minor, row.second_minor)


_ADD = text("""
INSERT INTO platform.payment_methods
    (id, account_id, user_id, type, bank_account_id, routing_number, account_type, last4, status)
VALUES (:id, :account_id, :user_id, 'us_bank_account', :bank_account_id, :routing_number, :account_type, :last4,
    'pending')
ON CONFLICT DO NOTHING
""")

_BANK_ACCOUNT = text("SELECT * FROM platform.payment_methods WHERE id = :id AND type = 'us_bank_account'")

_COLUMNS = """
SELECT deposit.*, greatest(0, least(3 - deposit.attempts, 9 - known.attempts)) AS attempts_remaining, file.effective_on
FROM bank.micro_deposits deposit JOIN bank.limits known USING (reference)
LEFT JOIN bank.files file ON file.micro_deposit_id = deposit.id
"""
_FIND = text(f"{_COLUMNS} WHERE deposit.id = :id")
_LATEST = text(
    f"{_COLUMNS} WHERE deposit.payment_method_id = :id ORDER BY deposit.requested_at DESC, deposit.id LIMIT 1"
)

# The record is made from what is read: nothing is read without it.
_LOOK = text("""
WITH looked AS (
    INSERT INTO bank.amount_looks (micro_deposit_id, account_id, operator, reason, request_id)
    SELECT id, account_id, :operator, :reason, :request_id FROM bank.micro_deposits
    WHERE id = :id AND account_id = :account_id
    RETURNING micro_deposit_id
)
SELECT first_minor, second_minor FROM bank.amounts JOIN looked USING (micro_deposit_id)
""")
