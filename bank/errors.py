"""Faults of the bank's side. Messages hold no account number."""

from __future__ import annotations

from domain.errors import DurapayError, Unavailable


class BankError(DurapayError):
    """The root of this package's errors."""


class NachaInvalid(BankError):
    """A file that breaks the NACHA Operating Rules. `line` counts from 1; `record` and `field` say what is wrong."""

    def __init__(self, line: int, record: str, field: str, problem: str) -> None:
        super().__init__(f"line {line}, {record}, {field}: {problem}")
        self.line = line
        self.record = record
        self.field = field
        self.problem = problem


class FieldInvalid(BankError):
    """A value that its field cannot hold. The value is not repeated."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BankUnreachable(BankError, Unavailable):
    """No byte of the request left this host; sending it again is safe."""


class BankDoesNotSay(BankError, Unavailable):
    """The bank was asked whether it has a file and did not answer; ask again."""


class CorrectionPending(BankError, Unavailable):
    """The bank has corrected the account's data, and nothing goes to it before that is applied (Nacha, 2.12.1)."""


class FileNotRebuilt(BankError):
    """A file that was made before cannot be made again as it was; an operator has to look."""


class BankFileInvalid(BankError):
    """What the bank gave is not what it should be; an operator has to look."""
