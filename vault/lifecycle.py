"""The life of a token as data: INACTIVE → ACTIVE ⇄ SUSPENDED → DELETED. The database keeps the same table."""

from __future__ import annotations

from enum import StrEnum

from vault.errors import TokenUnusable


class TokenStatus(StrEnum):
    INACTIVE = "inactive"  # the network does not know it yet
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class TokenReason(StrEnum):
    """Why a token was suspended, resumed or deleted."""

    LOST = "lost"
    STOLEN = "stolen"
    FRAUDULENT = "fraudulent"
    ACCOUNT_CLOSED = "account_closed"
    CONSUMER_DELETED = "consumer_deleted"
    FOUND = "found"
    OTHER = "other"


class TokenEvent(StrEnum):
    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    DELETE = "delete"


_S = TokenStatus
_E = TokenEvent

TRANSITIONS: dict[tuple[TokenStatus, TokenEvent], TokenStatus] = {
    (_S.INACTIVE, _E.ACTIVATE): _S.ACTIVE,
    (_S.ACTIVE, _E.SUSPEND): _S.SUSPENDED,
    (_S.SUSPENDED, _E.RESUME): _S.ACTIVE,
    (_S.INACTIVE, _E.DELETE): _S.DELETED,
    (_S.ACTIVE, _E.DELETE): _S.DELETED,
    (_S.SUSPENDED, _E.DELETE): _S.DELETED,
}


def next_status(event: TokenEvent) -> TokenStatus:
    """Where `event` leads, wherever it comes from."""
    return next(after for (_, happening), after in TRANSITIONS.items() if happening is event)


def sources(event: TokenEvent) -> tuple[TokenStatus, ...]:
    """The states in which `event` can happen."""
    return tuple(before for before, happening in TRANSITIONS if happening is event)


def refusal(status: TokenStatus, event: TokenEvent) -> TokenUnusable | None:
    """Why `event` changes nothing for a token in `status`: None when it has happened already, and all is well.

    A repeated request finds the token where it left it. A deleted token is where a repeated deletion left it; an
    active one, where an activation or a resumption did.
    """
    if status is next_status(event):
        return None
    return TokenUnusable(f"token_{status}", f"a token that is {status} cannot {event}")
