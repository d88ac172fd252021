"""What verifying a bank account by deposits posts.

| what happens | debit | credit | code |
|---|---|---|---|
| a deposit is handed over to the bank | `micro_deposits:USD` | `bank:USD` | `micro_deposit` |
| the debit of their sum is handed over | `bank:USD` | `micro_deposits:USD` | `micro_deposit` |
| a deposit comes back | `bank:USD` | `micro_deposits:USD` | `micro_deposit_returned` |
| the debit comes back | `micro_deposits:USD` | `bank:USD` | `micro_deposit_returned` |
| a deposit that nobody here knows comes back | `bank:USD` | `suspense:USD` | `return_unmatched` |
| a debit that nobody here knows comes back | `suspense:USD` | `bank:USD` | `return_unmatched` |
| two operators write that off | the other way round, with `loss:USD` instead of `bank:USD` | | `return_written_off` |

`micro_deposits:USD` is spent (debits): what deposits cost us whose debit came back, because an account has no funds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from ledger.accounts import bank, loss, suspense
from ledger.transfers import OpenAccount, Post, Step, commit

_USD = Currency.USD
_SPENT = OpenAccount(f"micro_deposits:{_USD}", _USD, "micro_deposits")
_CREDITS = ("credit_1", "credit_2")


@dataclass(frozen=True, slots=True)
class DepositEntry:
    """An entry of a verification. `part` is `credit_1`, `credit_2` or `debit`."""

    micro_deposit_id: str
    part: str
    amount_minor: int = field(repr=False)


@dataclass(frozen=True, slots=True)
class UnmatchedReturn:
    """An entry that the bank gave back and that is none of ours, or came back before. `debit`: money leaves us."""

    id: str
    amount_minor: int
    debit: bool


def unmatched(entry: UnmatchedReturn) -> list[Step]:
    accounts = (suspense(_USD).id, bank(_USD).id) if entry.debit else (bank(_USD).id, suspense(_USD).id)
    post = Post(f"{entry.id}:unmatched", *accounts, entry.amount_minor, _USD, "return_unmatched", entry.id)
    return [suspense(_USD), bank(_USD), post]


def written_off(entry: UnmatchedReturn) -> list[Step]:
    accounts = (loss(_USD).id, suspense(_USD).id) if entry.debit else (suspense(_USD).id, loss(_USD).id)
    post = Post(f"{entry.id}:written_off", *accounts, entry.amount_minor, _USD, "return_written_off", entry.id)
    return [suspense(_USD), loss(_USD), post]


def originated(entries: Sequence[DepositEntry]) -> list[Step]:
    return [_SPENT, bank(_USD), *(_post(entry, "originated", "micro_deposit") for entry in entries)]


def returned(entry: DepositEntry) -> list[Step]:
    return [_SPENT, bank(_USD), _post(entry, "returned", "micro_deposit_returned")]


class MicroDepositBooks:
    """Each method is one transaction, and may be called again: then it changes nothing.

    Raises:
        ledger.errors.LedgerError: the ledger refuses the chain; nothing is posted.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def post_originated(self, entries: Sequence[DepositEntry]) -> None:
        await commit(self._engine, originated(entries))

    async def post_returned(self, entry: DepositEntry) -> None:
        await commit(self._engine, returned(entry))

    async def post_unmatched(self, entry: UnmatchedReturn) -> None:
        await commit(self._engine, unmatched(entry))

    async def write_off(self, entry: UnmatchedReturn) -> None:
        await commit(self._engine, written_off(entry))


def _post(entry: DepositEntry, what: str, code: str) -> Post:
    # Money goes out with a deposit and with a returned debit.
    out = (entry.part in _CREDITS) == (what == "originated")
    debit, credit = (_SPENT.id, bank(_USD).id) if out else (bank(_USD).id, _SPENT.id)
    identifier = f"{entry.micro_deposit_id}:{entry.part}:{what}"
    return Post(identifier, debit, credit, entry.amount_minor, _USD, code, entry.micro_deposit_id)
