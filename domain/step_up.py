"""One-time codes for step-ups: derived, never stored (HOTP, RFC 4226, six digits).

The key is derived from the platform's secret and from what the payer confirms (payment, amount, payee), so a code is
good for that alone. Attempts and deadline are the payment workflow's to limit.
"""

from __future__ import annotations

import hashlib
import hmac

from domain.money import Money

_DIGITS = 6


class StepUpCodes:
    """Makes and checks codes under `secret` (32 bytes)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def code(self, payment_id: str, money: Money, payee: str) -> str:
        """The six-digit code that confirms a payment of `money` to `payee`."""
        context = "\x1f".join((payment_id, str(money.amount_minor), money.currency, payee)).encode()
        key = hmac.digest(self._secret, context, hashlib.sha256)
        mac = hmac.digest(key, (0).to_bytes(8, "big"), hashlib.sha1)
        offset = mac[-1] & 0x0F  # dynamic truncation, RFC 4226 section 5.3
        number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFF_FFFF
        return f"{number % 10**_DIGITS:0{_DIGITS}d}"

    def matches(self, payment_id: str, money: Money, payee: str, code: str) -> bool:
        """Whether `code` is right, in time that does not depend on how wrong it is."""
        return hmac.compare_digest(self.code(payment_id, money, payee).encode(), code.encode())
