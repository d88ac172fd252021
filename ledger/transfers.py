"""Applying chains of transfers, in TigerBeetle's model (docs.tigerbeetle.com: two-phase and linked transfers).

A transfer debits one account and credits another with the same amount, at once (`Post`) or in two phases: `Pending`
holds it, `PostPending` takes all or part of it, `VoidPending` or `ExpirePending` lets go of what is left.
Transfers are never changed; a correction is a transfer of its own.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.currency import Currency
from ledger.errors import LedgerError, refusal

# Balances are PostgreSQL bigints. (The card network's limit of twelve digits does not bind sums and settlements.)
MAX_AMOUNT_MINOR = 2**63 - 1


class Limit(StrEnum):
    """What an account's balance may never do. Pending amounts count on the limited side."""

    DEBITS_MUST_NOT_EXCEED_CREDITS = "debits_must_not_exceed_credits"
    CREDITS_MUST_NOT_EXCEED_DEBITS = "credits_must_not_exceed_debits"


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """The account is to exist with these attributes, which never change. `code` says what kind of account it is."""

    id: str
    currency: Currency
    code: str
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class _Movement:
    """`id` is the idempotency key; `reference` what the transfer belongs to, e.g. a payment.

    `covered` lets this transfer through only if the debit account then has no more debits, pending ones included, than
    posted credits: what an account with that limit asks of all its transfers. A payout is covered, although the account
    that it comes from may fall below zero by other transfers.

    Raises:
        TypeError: `amount_minor` is not an int (a bool is refused too).
        ValueError: it is not positive, or longer than 63 bits.
    """

    id: str
    debit_account: str
    credit_account: str
    amount_minor: int
    currency: Currency
    code: str
    reference: str
    covered: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_amount(self.amount_minor)


@dataclass(frozen=True, slots=True)
class Post(_Movement):
    """Moves the amount at once."""


@dataclass(frozen=True, slots=True)
class Pending(_Movement):
    """Holds the amount, until `expires_at` at the most if that is given (time zone aware, by the database's clock)."""

    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        _Movement.__post_init__(self)
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at needs a time zone")


@dataclass(frozen=True, slots=True)
class PostPending:
    """Moves `amount_minor` out of what remains of a pending transfer.

    `final` releases the rest. Without it the rest stays pending, for the next post; none is left after the last.
    """

    id: str
    pending_id: str
    amount_minor: int
    reference: str
    final: bool = True

    def __post_init__(self) -> None:
        _check_amount(self.amount_minor)


@dataclass(frozen=True, slots=True)
class VoidPending:
    """Releases what remains of a pending transfer."""

    id: str
    pending_id: str
    reference: str


@dataclass(frozen=True, slots=True)
class ExpirePending:
    """Releases what remains of a pending transfer whose `expires_at` has passed."""

    id: str
    pending_id: str
    reference: str


Transfer = Post | Pending | PostPending | VoidPending | ExpirePending
Step = OpenAccount | Transfer

_KINDS: dict[type[Transfer], str] = {
    Post: "posted",
    Pending: "pending",
    PostPending: "post",
    VoidPending: "void",
    ExpirePending: "expire",
}


@dataclass(frozen=True, slots=True)
class Applied:
    """A step that stands. `replayed`: it stood before, and this call changed nothing about it."""

    id: str
    replayed: bool


async def apply(connection: AsyncConnection, chain: Sequence[Step]) -> list[Applied]:
    """Applies `chain` in order, all of it or nothing, in one round trip within the caller's transaction.

    From four transfers on, none of them a second phase, the chain is booked as a whole: each account is updated once.
    All accounts are locked until that transaction ends, in the order of their ids: let it call `apply` only once,
    and last, or it can deadlock with another one. A step that was applied before, with the same content, is replayed.

    Raises:
        ledger.errors.LedgerError: the chain is refused; nothing of it was applied and the transaction is still usable.
            Of two limits that a transfer breaks at once either is named.
    """
    parameters = {name: json.dumps(rows) for name, rows in as_json(chain).items()}
    result = await connection.execute(_APPLY, parameters)
    answer: dict[str, Any] = result.scalar_one()
    if "refused" in answer:
        raise _refusal(chain, answer)
    return _applied(chain, set(answer["opened"]), set(answer["inserted"]))


# What became of a chain among others: what `apply` returns, or what it would have raised.
Outcome = list[Applied] | LedgerError


async def apply_each(connection: AsyncConnection, chains: Sequence[Sequence[Step]]) -> list[Outcome]:
    """Applies each of `chains` in order, all of it or nothing, whatever becomes of the others, in one round trip.

    The outcomes are in the order of the chains, and the same as if `apply` had been called for one after another; but
    transfers that are not refused are booked together, which costs less than half. Chains without second phases
    (`PostPending`, `VoidPending`, `ExpirePending`) gain most: others are booked step by step. A refusal is a value here
    and costs: its neighbours are tried again without it.

    The rest is as for `apply`: the locks last until the caller's transaction ends, so call it once, and last. But it
    waits for a lock no longer than two seconds: somebody who keeps one account locked is not to hold up all the others.
    """
    return await apply_encoded(connection, [encode(chain) for chain in chains])


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chain, and the document that `ledger.apply_each` takes of it."""

    steps: Sequence[Step]
    document: str


def encode(chain: Sequence[Step]) -> Encoded:
    return Encoded(chain, json.dumps(as_json(chain)))


async def apply_encoded(connection: AsyncConnection, chains: Sequence[Encoded]) -> list[Outcome]:
    """`apply_each`, for a caller who has encoded the chains one by one."""
    if not chains:
        return []
    documents = ",".join(chain.document for chain in chains)
    result = await connection.execute(_APPLY_EACH, {"chains": f"[{documents}]"})
    return _outcomes([chain.steps for chain in chains], result.scalar_one())


def _outcomes(chains: Sequence[Sequence[Step]], answers: Sequence[dict[str, Any]]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for answer in answers:
        together = chains[len(outcomes) : len(outcomes) + answer["chains"]]
        if "refused" in answer:
            (chain,) = together
            outcomes.append(_refusal(chain, answer))
            continue
        opened, inserted = set(answer["opened"]), set(answer["inserted"])
        for chain in together:
            outcomes.append(_applied(chain, opened, inserted))
            # What one chain made, another one that comes after it replays.
            opened.difference_update(step.id for step in chain if isinstance(step, OpenAccount))
            inserted.difference_update(step.id for step in chain if not isinstance(step, OpenAccount))
    return outcomes


async def commit(engine: AsyncEngine, chain: Sequence[Step]) -> list[Applied]:
    """Applies `chain` as a transaction of its own: one round trip, BEGIN and COMMIT included.

    Raises:
        ledger.errors.LedgerError: the chain is refused; nothing of it was applied.
    """
    # A statement outside of a transaction is one; and a refusal is an answer, which leaves nothing to be rolled back.
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        return await apply(connection, chain)


async def commit_each(engine: AsyncEngine, chains: Sequence[Sequence[Step]]) -> list[Outcome]:
    """`apply_each` as a transaction of its own: one round trip, BEGIN and COMMIT included."""
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        return await apply_each(connection, chains)


def _applied(chain: Sequence[Step], opened: Container[str], inserted: Container[str]) -> list[Applied]:
    return [Applied(step.id, step.id not in (opened if isinstance(step, OpenAccount) else inserted)) for step in chain]


def _refusal(chain: Sequence[Step], answer: dict[str, Any]) -> LedgerError:
    return refusal(answer["refused"], answer["subject"], _index(chain, answer["of"], answer["place"]))


def _index(chain: Sequence[Step], part: str, place: int) -> int:
    """The index in `chain` of the `place`th account (`part` is opens) or transfer (`part` is chain)."""
    of_part = [index for index, step in enumerate(chain) if isinstance(step, OpenAccount) is (part == "opens")]
    return of_part[place]


_APPLY = text("SELECT ledger.apply(CAST(:opens AS jsonb), CAST(:chain AS jsonb))")
_APPLY_EACH = text("SELECT ledger.apply_each(CAST(:chains AS jsonb))")


def as_json(chain: Sequence[Step]) -> dict[str, list[dict[str, Any]]]:
    """`chain` as `ledger.apply` takes it: the accounts (`opens`) and the transfers (`chain`), each in their order."""
    return {
        "opens": [_account_row(step) for step in chain if isinstance(step, OpenAccount)],
        "chain": [_transfer_row(step) for step in chain if not isinstance(step, OpenAccount)],
    }


def _account_row(account: OpenAccount) -> dict[str, str | None]:
    return {"id": account.id, "currency": account.currency, "code": account.code, "balance_limit": account.limit}


def _transfer_row(transfer: Transfer) -> dict[str, Any]:
    """The columns of ledger.transfers that the caller decides."""
    row: dict[str, Any] = {"kind": _KINDS[type(transfer)], "id": transfer.id, "reference": transfer.reference}
    if isinstance(transfer, Post | Pending):
        row |= {
            "debit_account": transfer.debit_account,
            "credit_account": transfer.credit_account,
            "amount_minor": transfer.amount_minor,
            "currency": transfer.currency,
            "code": transfer.code,
            "covered": transfer.covered,
        }
        if isinstance(transfer, Pending) and transfer.expires_at is not None:
            row["expires_at"] = transfer.expires_at.isoformat()
    else:
        row["pending_id"] = transfer.pending_id
        if isinstance(transfer, PostPending):
            row |= {"amount_minor": transfer.amount_minor, "final": transfer.final}
    return row


def _check_amount(amount_minor: int) -> None:
    if type(amount_minor) is not int:
        raise TypeError("amount_minor must be an integer of minor units")
    if not 0 < amount_minor <= MAX_AMOUNT_MINOR:
        raise ValueError(f"amount_minor must lie between 1 and {MAX_AMOUNT_MINOR}")
