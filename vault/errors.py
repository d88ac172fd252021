"""What the vault refuses, and why. No message holds any part of a card."""

from __future__ import annotations

from domain.errors import DurapayError, InvalidTransition, Unavailable


class InvalidCard(DurapayError):
    """The card cannot be added. `param` names the field, `code` what is wrong with it; the value is not repeated."""

    def __init__(self, param: str, code: str) -> None:
        super().__init__(f"{param}: {code}")
        self.param = param
        self.code = code


class InvalidBankAccount(DurapayError):
    """The bank account cannot be added. `param` names the field; the value is not repeated."""

    def __init__(self, param: str) -> None:
        super().__init__(f"{param} is not valid")
        self.param = param


class BankAccountKnown(DurapayError):
    """The owner has the account already as which the bank corrects another one of theirs; an operator has to look."""


class TokenUnusable(InvalidTransition):
    """The token's state, expiry or counter forbids this (`code`: `token_suspended`, `token_expired`, …)."""


class TokenRangeFull(DurapayError):
    """No unused device number was found in the brand's token BIN ranges; an operator must add a range."""

    def __init__(self, brand: str) -> None:
        super().__init__(f"the token BIN ranges of {brand} are full")
        self.brand = brand


class VaultUnavailable(Unavailable):
    """The vault's database or cache could not be reached. At most a transaction counter was used up; try again."""
