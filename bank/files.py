"""The ACH file of a verification: two credits and the debit of their sum, made again the same from what is kept of it.

The file itself is kept nowhere, because account numbers stand in it: what it is made of is, and its digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date, datetime

from bank.nacha import Batch, Entry, NachaFile, SecCode, ServiceClass, credit_code, debit_code, write
from domain.bank_accounts import BankAccountType

# Nacha, Micro-Entry Rule: entries that verify an account carry this description.
DESCRIPTION = "ACCTVERIFY"
# WEB entries say whether they recur: `S` for a single one.
_SINGLE = "S"


@dataclass(frozen=True, slots=True)
class Originator:
    """Who sends: the bank's routing number, and the company as the bank knows it (`company_id`: ten characters)."""

    routing_number: str
    bank_name: str
    company_id: str
    company_name: str


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whose account is verified."""

    routing_number: str
    account_number: str = field(repr=False)
    account_type: BankAccountType
    name: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileNumbers:
    """What makes a file this one. `created_on` is the bank's wall clock, in minutes; `block` numbers its traces."""

    file_id: str
    created_on: datetime
    modifier: str
    effective_on: date
    block: int


def traces(originator: Originator, block: int) -> tuple[int, int, int]:
    """The trace numbers of the two credits and the debit."""
    first = int(originator.routing_number[:8]) * 10**7 + 3 * block
    return first, first + 1, first + 2


def micro_deposit_file(
    originator: Originator, receiver: Receiver, amounts_minor: tuple[int, int], numbers: FileNumbers
) -> str:
    """The file's text. The debit is a batch of its own: consumers authorize debits over the internet as WEB, and
    credits to consumers are PPD.

    Raises:
        FieldInvalid: a value does not fit its field.
    """
    first, second, third = traces(originator, numbers.block)
    credit, debit = credit_code(receiver.account_type), debit_code(receiver.account_type)
    credits = (_entry(credit, receiver, amounts_minor[0], first), _entry(credit, receiver, amounts_minor[1], second))
    taken = _entry(debit, receiver, sum(amounts_minor), third, _SINGLE)
    return write(
        NachaFile(
            # A routing number stands in these ten characters after a space.
            destination=f" {originator.routing_number}",
            origin=originator.company_id,
            created_at=numbers.created_on,
            modifier=numbers.modifier,
            batches=(
                _batch(1, ServiceClass.CREDITS, SecCode.PPD, originator, numbers, credits),
                _batch(2, ServiceClass.DEBITS, SecCode.WEB, originator, numbers, (taken,)),
            ),
            destination_name=originator.bank_name,
            origin_name=originator.company_name,
        )
    )


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def nacha_name(name: str) -> str:
    """A person's name in the 22 characters that a file has for it: ASCII, upper case; what cannot be written is `?`."""
    plain = "".join(each if each.isascii() and each.isprintable() else "?" for each in name.upper())
    return plain.strip()[:22].strip() or "?"


def _entry(code: int, receiver: Receiver, amount_minor: int, trace: int, discretionary: str = "") -> Entry:
    return Entry(
        transaction_code=code,
        receiving_routing=receiver.routing_number,
        account_number=receiver.account_number,
        amount_minor=amount_minor,
        individual_name=receiver.name,
        trace=trace,
        discretionary_data=discretionary,
    )


def _batch(
    number: int,
    service_class: ServiceClass,
    sec_code: SecCode,
    originator: Originator,
    numbers: FileNumbers,
    entries: tuple[Entry, ...],
) -> Batch:
    return Batch(
        number=number,
        service_class=service_class,
        company_name=originator.company_name[:16],
        company_id=originator.company_id,
        sec_code=sec_code,
        description=DESCRIPTION,
        originating_dfi=originator.routing_number[:8],
        entries=entries,
        effective_date=numbers.effective_on,
    )
