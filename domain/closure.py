"""Closing a wallet and, when the law lets us, forgetting its user: what workflow and activities exchange."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ClosureStatus(StrEnum):
    """`WAITING` for open money; `CLOSED` until the retention is over; then `ERASED`, for good."""

    WAITING = "waiting"
    WITHDRAWN = "withdrawn"
    CLOSED = "closed"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class ClosureOrder:
    """Close the wallet of `user_id`. `requested_by` is the user, or the id of the account that asks for them."""

    user_id: str
    account_id: str
    requested_by: str


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What is still open, each with how many there are: `payments:2`, `disputes:1`, `refunds:1`, `balances:1`.

    `registering` are the tokens of cards that the network is still being told of (`cards:1`).
    """

    open: tuple[str, ...]
    registering: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseOrder:
    """`closed_at` is the end of the business relationship, from which the retention is counted."""

    user_id: str
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class Closed:
    """`erase_after` is when the data that the law wants kept may go."""

    closed_at: datetime
    erase_after: datetime


@dataclass(frozen=True, slots=True)
class Erased:
    """The certificate of erasure. `key_id` is of the destroyed key, None if the user never had one."""

    user_id: str
    key_id: str | None
    documents: int
    erased_at: datetime


@dataclass(frozen=True, slots=True)
class EraseOrder:
    """`key_id` is of the key that was destroyed, None if there was none."""

    user_id: str
    key_id: str | None
    erased_at: datetime
