"""What can be wrong with a file, and with the place where files are kept. No message holds what is in a file."""

from __future__ import annotations

from domain.errors import DurapayError, Unavailable


class DocumentRefused(DurapayError):
    """The file is not one that is taken. `code` is the machine-readable reason that the API shows."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StorageUnavailable(Unavailable):
    """S3 could not be reached or refused; `reason` is its error's code. Nothing was changed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the document storage is unavailable: {reason}")
        self.reason = reason


class DocumentMissing(DurapayError):
    """A file that the records name is not in the storage."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no document is stored under {key}")


class DocumentAltered(DurapayError):
    """What is stored is not what was handed in: its digest is another one."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the document under {key} is not what was handed in")
