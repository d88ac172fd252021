"""What the ledger refuses. The codes are TigerBeetle's where it has one for the case."""

from __future__ import annotations

from domain.errors import DurapayError


class LedgerError(DurapayError):
    """The ledger refused a chain; nothing of it was applied. `code` is the reason, e.g. `exceeds_credits`."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the ledger refuses: {code}")
        self.code = code
