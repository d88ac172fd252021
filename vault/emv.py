"""EMV application cryptograms, made in the HSM (EMV 4.3 Book 2, annexes A1.3, A1.4 and D; Visa CVN 10 and CVN 18).

The way from the issuer's master key to a cryptogram:

    IMK-AC ──Y‖¬Y──▶ card key (UDK) ──F1‖F2──▶ session key ──▶ ISO/IEC 9797-1 MAC algorithm 3 over the data

Each arrow is a 16-byte block that is encrypted under the key before it; here only these blocks are computed, the keys
stay in the token. The cryptogram covers, in this order (tag, bytes):

    9F02 amount 6 (n12) · 9F03 other amount 6 (n12) · 9F1A terminal country 2 (n3, leading zero) · 95 TVR 5
    · 5F2A currency 2 (n3, leading zero) · 9A date 3 (YYMMDD) · 9C type 1 · 9F37 unpredictable number 4 · 82 AIP 2
    · 9F36 ATC 2 · then CVN 18: 9F10 issuer application data, whole; CVN 10: its card verification results alone

CVN 18 pads with 80 00… (padding method 2), CVN 10 with zeros only when needed (method 1), and CVN 10 signs with the
card key itself, without a session key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from vault.hsm.provider import HsmProvider

_BLOCK_BYTES = 8
_DIGITS_A_TO_F = str.maketrans("abcdef", "012345")


@dataclass(frozen=True, slots=True)
class TransactionData:
    """What a cryptogram covers, each field as the bytes of its EMV tag."""

    amount: bytes
    amount_other: bytes
    terminal_country: bytes
    tvr: bytes
    currency: bytes
    transaction_date: bytes
    transaction_type: bytes
    unpredictable_number: bytes
    aip: bytes
    atc: bytes

    def joined(self) -> bytes:
        """The fields, 33 bytes, in the order in which Visa's cryptograms cover them."""
        return b"".join(
            (
                self.amount,
                self.amount_other,
                self.terminal_country,
                self.tvr,
                self.currency,
                self.transaction_date,
                self.transaction_type,
                self.unpredictable_number,
                self.aip,
                self.atc,
            )
        )


def card_key_option_a(pan: str, psn: str) -> bytes:
    """The block that derives a card's key, option A (A1.4.1): the rightmost 16 digits of PAN‖PSN and their inverse."""
    digits = bytes.fromhex((pan + psn)[-16:].zfill(16))
    return _with_inverse(digits)


def card_key_option_b(pan: str, psn: str) -> bytes:
    """Option B (A1.4.2): as option A up to 16 digits; a longer PAN goes through SHA-1, decimalised to 16 digits."""
    if len(pan) <= 16:
        return card_key_option_a(pan, psn)
    number = pan + psn
    # SHA-1 is the specification's; it spreads digits here and protects nothing.
    digest = hashlib.sha1(bytes.fromhex(number.zfill(len(number) + len(number) % 2)), usedforsecurity=False).hexdigest()
    decimal = "".join(character for character in digest if character.isdigit())
    replaced = "".join(character for character in digest if not character.isdigit()).translate(_DIGITS_A_TO_F)
    return _with_inverse(bytes.fromhex((decimal + replaced)[:16]))


def common_session_key(diversifier: bytes) -> bytes:
    """The block that derives a session key from a card key (A1.3.1), from 8 bytes: ATC ‖ six zero bytes for an AC."""
    left = diversifier[:2] + b"\xf0" + diversifier[3:]
    right = diversifier[:2] + b"\x0f" + diversifier[3:]
    return left + right


def visa_cvn10(hsm: HsmProvider, key: str, pan: str, psn: str, data: TransactionData, cvr: bytes) -> bytes:
    """The 8-byte cryptogram of CVN 10 under the master key named `key`."""
    return retail_mac(hsm, key, (card_key_option_a(pan, psn),), data.joined() + cvr, padding_method=1)


def visa_cvn18(hsm: HsmProvider, key: str, pan: str, psn: str, data: TransactionData, iad: bytes) -> bytes:
    """The 8-byte cryptogram of CVN 18 under the master key named `key`; `iad` is the whole of tag 9F10."""
    path = (card_key_option_b(pan, psn), common_session_key(data.atc + bytes(6)))
    return retail_mac(hsm, key, path, data.joined() + iad, padding_method=2)


def retail_mac(hsm: HsmProvider, key: str, path: Sequence[bytes], data: bytes, *, padding_method: int) -> bytes:
    """ISO/IEC 9797-1 MAC algorithm 3 with padding method 1 (zeros as needed) or 2 (80, then zeros as needed)."""
    padded = data + b"\x80" if padding_method == 2 else data
    return hsm.mac_alg3(key, path, padded + bytes(-len(padded) % _BLOCK_BYTES))


def _with_inverse(digits: bytes) -> bytes:
    return digits + bytes(byte ^ 0xFF for byte in digits)
