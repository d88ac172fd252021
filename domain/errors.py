"""Errors that every layer may meet. A business "no" is a value and is not here; services add their own below these."""

from __future__ import annotations


class DurapayError(Exception):
    """The root of all errors of this platform. Messages never hold card data, secrets or personal data."""


class NotFound(DurapayError):
    """No such thing, or not the caller's: the two are the same to whoever asks."""

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"no such {kind}: {identifier}")
        self.kind = kind
        self.identifier = identifier


class InvalidTransition(DurapayError):
    """The state machine has no such step from here.

    `code` is the machine-readable reason that the API shows.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(DurapayError):
    """A part could not be reached; nothing was changed, and trying again is safe."""
