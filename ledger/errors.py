"""What the ledger refuses. The codes are TigerBeetle's where it has the case (docs.tigerbeetle.com, create_transfers).

A refused chain has changed nothing. Asking again for the same gets the same answer, unless a balance has changed.
"""

from __future__ import annotations

from typing import ClassVar

import psycopg
from sqlalchemy.exc import DBAPIError

from domain.errors import DurapayError


class LedgerError(DurapayError):
    """The root of the refusals. `code` names the rule; `subject` is the id of the transfer or account it was met at.

    `index` is the place of that step in the chain; None where the chain was not the caller's own.
    """

    code: ClassVar[str]

    def __init__(self, subject: str, index: int | None = None) -> None:
        super().__init__(f"{self.code}: {subject}")
        self.subject = subject
        self.index = index


class ExceedsCredits(LedgerError):
    """The account's debits, pending ones included, must not exceed its posted credits: insufficient funds.

    Either the account has this limit, or the transfer is a covered one.
    """

    code = "exceeds_credits"


class ExceedsDebits(LedgerError):
    """The account's credits, pending ones included, must not exceed its posted debits."""

    code = "exceeds_debits"


class Overflows(LedgerError):
    """An amount or a balance would not fit into 63 bits."""

    code = "overflows"


class AccountExistsWithDifferentContent(LedgerError):
    """The account exists with another currency, code or limit. `subject` is the account."""

    code = "account_exists_with_different_content"


class DebitAccountNotFound(LedgerError):
    code = "debit_account_not_found"


class CreditAccountNotFound(LedgerError):
    code = "credit_account_not_found"


class AccountsMustBeDifferent(LedgerError):
    code = "accounts_must_be_different"


class AccountsMustHaveSameCurrency(LedgerError):
    code = "accounts_must_have_same_currency"


class TransferMustHaveSameCurrencyAsAccounts(LedgerError):
    code = "transfer_must_have_same_currency_as_accounts"


class ExistsWithDifferentContent(LedgerError):
    """The transfer's id belongs to another transfer."""

    code = "exists_with_different_content"


class PendingTransferNotFound(LedgerError):
    code = "pending_transfer_not_found"


class PendingTransferNotPending(LedgerError):
    """The transfer that is to be posted, voided or expired was not a pending one."""

    code = "pending_transfer_not_pending"


class PendingTransferAlreadyPosted(LedgerError):
    """It was posted in full, or in part by a final post."""

    code = "pending_transfer_already_posted"


class PendingTransferAlreadyVoided(LedgerError):
    code = "pending_transfer_already_voided"


class PendingTransferExpired(LedgerError):
    """Its `expires_at` has passed, whether or not its remainder has been released yet."""

    code = "pending_transfer_expired"


class PendingTransferNotExpired(LedgerError):
    """Its `expires_at` has not come, or it has none."""

    code = "pending_transfer_not_expired"


class ExceedsPendingTransferAmount(LedgerError):
    """The post is more than what remains of the pending transfer."""

    code = "exceeds_pending_transfer_amount"


class PaymentDisputed(LedgerError):
    """A refund would give what a dispute has taken of the payment. None is asked of the network that would."""

    code = "payment_disputed"


class BreaksRule(LedgerError):
    """A constraint of the tables that no caller of this package should meet; `rule` is its name."""

    code = "breaks_rule"

    def __init__(self, subject: str, rule: str, index: int | None = None) -> None:
        super().__init__(subject, index)
        self.args = (f"{self.code} ({rule}): {subject}",)
        self.rule = rule


_BY_CODE: dict[str, type[LedgerError]] = {
    error.code: error for error in LedgerError.__subclasses__() if error is not BreaksRule
}


def refusal(code: str, subject: str, index: int | None = None) -> LedgerError:
    """The error for what `ledger.apply` answered."""
    error = _BY_CODE.get(code)
    return BreaksRule(subject, code, index) if error is None else error(subject, index)


# What a function of the database raises, instead of answering it, so that all of its statement is undone.
_REFUSED = "LG001"


def refusal_in(error: DBAPIError) -> LedgerError | None:
    """The refusal that `error` carries, if it is one."""
    cause = error.orig
    if not isinstance(cause, psycopg.Error) or cause.sqlstate != _REFUSED:
        return None
    return refusal(cause.diag.message_primary or "", cause.diag.message_detail or "")
