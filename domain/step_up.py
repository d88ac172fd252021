"""What a payer confirms a payment with: a one-time code, or a passkey's signature. Both are good for that payment,
amount and payee alone (dynamic linking: Delegated Regulation (EU) 2018/389, article 5).

Codes are derived, never stored (HOTP, RFC 4226, six digits): their key follows from the platform's secret and from what
is confirmed. A passkey signs the digest of a document that says what is confirmed. Attempts and deadline are the
payment workflow's to limit.
"""

from __future__ import annotations

import hashlib
import hmac
import json

from domain.ids import STEP_UP_CHALLENGE
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


def is_challenge_id(proof: str) -> bool:
    """Whether what came with `confirm_step_up` names an answered challenge rather than being a code of six digits."""
    return proof.startswith(f"{STEP_UP_CHALLENGE}_")


def confirmation_document(payment_id: str, money: Money, payee: str, nonce: bytes) -> str:
    """What the payer's passkey signs the digest of, in canonical JSON (RFC 8785): an app can show it, and check it."""
    content = {
        "amount_minor": money.amount_minor,
        "currency": money.currency,
        "merchant": payee,
        "nonce": nonce.hex(),
        "payment": payment_id,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def confirmation_challenge(payment_id: str, money: Money, payee: str, nonce: bytes) -> bytes:
    """The WebAuthn challenge: SHA-256 of `confirmation_document` in UTF-8."""
    return hashlib.sha256(confirmation_document(payment_id, money, payee, nonce).encode()).digest()
