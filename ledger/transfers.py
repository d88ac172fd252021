"""Writing the ledger: chains of transfers that succeed or fail together, in one round trip.

Transfers are immutable; each debits one account and credits another in one currency. A transfer's id comes from the
caller and is its idempotency key. A pending transfer reserves an amount; it is posted (also in several parts), voided
or expired. The rules are the database's own: see the migration `0002_ledger`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.currency import Currency
from ledger.errors import LedgerError

# Raised by the ledger's own functions in the database, with the code as the message.
_REFUSED = "LDG01"
# Of two new transfers with the same id and other accounts, committed at once, the second meets the primary key.
_UNIQUE_VIOLATION = "23505"


class BalanceLimit(StrEnum):
    """`DEBITS…` keeps a liability (a wallet, say) from going below zero, `CREDITS…` an asset."""

    NONE = "none"
    DEBITS_MUST_NOT_EXCEED_CREDITS = "debits_must_not_exceed_credits"
    CREDITS_MUST_NOT_EXCEED_DEBITS = "credits_must_not_exceed_debits"


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Opens an account unless it is there; `code` says of what kind it is."""

    id: str
    currency: Currency
    code: str
    balance_limit: BalanceLimit = BalanceLimit.NONE


@dataclass(frozen=True, slots=True)
class Posted:
    """Moves `amount_minor` at once. `reference` is what it is for, e.g. a payment's id."""

    id: str
    debit_account_id: str
    credit_account_id: str
    amount_minor: int
    currency: Currency
    code: str
    reference: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Reserves `amount_minor`, for ever or until `expires_at`."""

    id: str
    debit_account_id: str
    credit_account_id: str
    amount_minor: int
    currency: Currency
    code: str
    reference: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PostPending:
    """Moves `amount_minor` of what a pending transfer reserves; with `final` the rest is released."""

    id: str
    pending_id: str
    amount_minor: int
    reference: str
    final: bool = True
    code: str = "post"


@dataclass(frozen=True, slots=True)
class VoidPending:
    """Releases all that is left of a pending transfer."""

    id: str
    pending_id: str
    reference: str
    code: str = "void"


@dataclass(frozen=True, slots=True)
class ExpirePending:
    """Releases all that is left of a pending transfer whose time has passed."""

    id: str
    pending_id: str
    reference: str
    code: str = "expire"


Step = OpenAccount | Posted | Pending | PostPending | VoidPending | ExpirePending


class Applied(StrEnum):
    """What became of a step. `EXISTS`: it had been applied before, with the same content."""

    OPENED = "opened"
    CREATED = "created"
    EXISTS = "exists"


_APPLY = text("SELECT ledger.apply(CAST(:chain AS jsonb))")


async def apply(connection: AsyncConnection, chain: Sequence[Step]) -> list[Applied]:
    """Applies `chain`, all of it or nothing, within the caller's transaction.

    Raises:
        LedgerError: the ledger refuses a step. The transaction can then only be rolled back.
    """
    try:
        result = await connection.execute(_APPLY, {"chain": json.dumps([_wire(step) for step in chain])})
    except DBAPIError as error:
        raise _refusal(error) from error
    return [Applied(outcome) for outcome in result.scalar_one()]


def _refusal(error: DBAPIError) -> LedgerError | DBAPIError:
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate == _REFUSED:
        diagnostics = getattr(error.orig, "diag", None)
        return LedgerError(str(getattr(diagnostics, "message_primary", "refused")))
    if sqlstate == _UNIQUE_VIOLATION:
        return LedgerError("transfer_exists_with_different_content")
    return error


def _wire(step: Step) -> dict[str, Any]:
    match step:
        case OpenAccount():
            return {
                "kind": "open",
                "id": step.id,
                "currency": step.currency,
                "code": step.code,
                "balance_limit": step.balance_limit,
            }
        case Posted() | Pending():
            expires_at = step.expires_at if isinstance(step, Pending) else None
            return {
                "kind": "posted" if isinstance(step, Posted) else "pending",
                "id": step.id,
                "debit_account_id": step.debit_account_id,
                "credit_account_id": step.credit_account_id,
                "amount_minor": step.amount_minor,
                "currency": step.currency,
                "code": step.code,
                "reference": step.reference,
                "expires_at": expires_at.isoformat() if expires_at else None,
            }
        case PostPending():
            return {**_second_phase("post", step), "amount_minor": step.amount_minor, "final": step.final}
        case VoidPending():
            return _second_phase("void", step)
        case ExpirePending():
            return _second_phase("expire", step)


def _second_phase(kind: str, step: PostPending | VoidPending | ExpirePending) -> dict[str, Any]:
    return {
        "kind": kind,
        "id": step.id,
        "pending_id": step.pending_id,
        "code": step.code,
        "reference": step.reference,
    }
