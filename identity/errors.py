"""What can go wrong with identities. No message here holds an address, a code, a password or a token."""

from __future__ import annotations

from domain.errors import DurapayError, Unavailable


class TokenInvalid(DurapayError):
    """The access token is forged, foreign, malformed, or of a session that ended. Why is nobody's business."""


class TokenExpired(DurapayError):
    """The access token was good once; a refresh token gets another."""


class RefreshRefused(DurapayError):
    """The refresh token is unknown, used, expired, or its session ended: sign in again."""


class SessionsUnavailable(Unavailable):
    """Nobody can say now whether a session was revoked, so none counts."""


class LocksUnavailable(Unavailable):
    """Failed attempts cannot be counted now, so none is let through."""


class Busy(Unavailable):
    """So many passwords wait to be hashed that another one would wait too long."""


class ContactInvalid(DurapayError):
    """`kind` (`email` or `phone`) says what the value is not."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"not a valid {kind}")
        self.kind = kind


class ContactTaken(DurapayError):
    """Another user of the account proved in the meantime that the contact is theirs. Only its owner gets to hear it."""


class CodeIncorrect(DurapayError):
    """The code is wrong. `attempts_remaining` may be none."""

    def __init__(self, attempts_remaining: int) -> None:
        super().__init__("the code is wrong")
        self.attempts_remaining = attempts_remaining


class CodeExpired(DurapayError):
    """The code was good for ten minutes."""


class CodeUsed(DurapayError):
    """The code was used: what it proves is proved."""


class CodeAttemptsExceeded(DurapayError):
    """No attempt is left, also for the right code."""


class TooManyCodes(DurapayError):
    """The address was sent as many codes as it may be. `retry_after_seconds` is when the next one may go."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many codes were asked for")
        self.retry_after_seconds = retry_after_seconds


class PasswordRefused(DurapayError):
    """The password cannot be used; `reason` is for the person who chose it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PasswordIncorrect(DurapayError):
    """The password is wrong, or there is no such user: nobody can tell which."""


class LockedOut(DurapayError):
    """Too many attempts failed. `retry_after_seconds` is when the next one counts."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many failed attempts")
        self.retry_after_seconds = retry_after_seconds
