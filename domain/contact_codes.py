"""One-time codes that prove an e-mail address or a phone number: derived, never stored (as RFC 4226, six digits).

A code follows from the platform's secret and from what it proves, so it is good for that alone. Attempts and deadline
are kept in the database.
"""

from __future__ import annotations

import hashlib
import hmac

_DIGITS = 6


class ContactCodes:
    """Makes and checks codes under `secret` (32 bytes)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def code(self, code_id: str, sending: int, address: str) -> str:
        """The six digits of the `sending`-th message to `address`."""
        content = "\x1f".join((code_id, str(sending), address)).encode()
        mac = hmac.digest(self._secret, content, hashlib.sha256)
        # Of 64 bits the remainder is even to one part in ten million millions.
        return f"{int.from_bytes(mac[:8], 'big') % 10**_DIGITS:0{_DIGITS}d}"

    def matches(self, code_id: str, sending: int, address: str, given: str) -> bool:
        """Whether `given` is right, in time that does not depend on how wrong it is."""
        return hmac.compare_digest(self.code(code_id, sending, address).encode(), given.encode())
