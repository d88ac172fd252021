"""The database's refusal to open something for a user whose wallet is closed, or about to be."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError

# Raised by triggers under this name, as if it were a constraint's.
_RULE: Final = "user_is_open"
# How the refusal is called where it is a result: a payment's reason, the API's code.
USER_CLOSED: Final = "user_closed"


def refused_to_closing_user(error: DBAPIError) -> bool:
    """Whether `error` says so. Nothing was written then."""
    diagnosis = getattr(error.orig, "diag", None)
    return diagnosis is not None and diagnosis.constraint_name == _RULE
