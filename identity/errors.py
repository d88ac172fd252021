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
