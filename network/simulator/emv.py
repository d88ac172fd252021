"""Verifies application cryptograms as an issuer does: Visa CVN 18, EMV 4.3 book 2, annexes A1.3 and A1.4.

This is the issuer's own implementation with its own copy of the master key; the one that makes the cryptograms is
the vault's, in an HSM. That both agree is worth something because they share no code.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

_BLOCK = 8
# The order in which CVN 18 concatenates the chip data: amount, other amount, country, TVR, currency, date, type,
# unpredictable number, AIP, ATC, and the issuer application data whole.
_SIGNED_TAGS = ("9F02", "9F03", "9F1A", "95", "5F2A", "9A", "9C", "9F37", "82", "9F36", "9F10")


def cryptogram_valid(imk: bytes, dpan: str, sequence_number: str, chip_data: Mapping[str, bytes]) -> bool:
    """Whether tag 9F26 of `chip_data` is the ARQC that the card `dpan` makes of it under `imk` (16 bytes).

    False too when a tag that goes into it is missing.
    """
    if "9F26" not in chip_data or any(tag not in chip_data for tag in _SIGNED_TAGS):
        return False
    signed = b"".join(chip_data[tag] for tag in _SIGNED_TAGS)
    key = session_key(card_key(imk, dpan, sequence_number), chip_data["9F36"])
    return hmac.compare_digest(retail_mac(key, signed), chip_data["9F26"])


def card_key(imk: bytes, dpan: str, sequence_number: str) -> bytes:
    """The card's master key, option A: the rightmost 16 digits of number and sequence number, and their complement."""
    digits = bytes.fromhex(f"{dpan}{sequence_number}"[-16:].zfill(16))
    complement = bytes(byte ^ 0xFF for byte in digits)
    return _odd_parity(_triple_des(imk, digits + complement))


def session_key(key: bytes, atc: bytes) -> bytes:
    """The common session key (A1.3.1): the ATC diversified with F0 for the left half and with 0F for the right."""
    tail = bytes(_BLOCK - len(atc) - 1)
    return _odd_parity(_triple_des(key, atc + b"\xf0" + tail + atc + b"\x0f" + tail))


def retail_mac(key: bytes, data: bytes) -> bytes:
    """ISO/IEC 9797-1 MAC algorithm 3 (8 bytes) with padding method 2: single DES under the key's left half to the
    last block, then decrypted under its right half and encrypted under the left again."""
    padded = data + b"\x80"
    padded += bytes(-len(padded) % _BLOCK)
    left, right = key[:_BLOCK], key[_BLOCK:]
    chain = Cipher(_des(left), modes.CBC(bytes(_BLOCK))).encryptor()
    last = chain.update(padded)[-_BLOCK:]
    decrypted = Cipher(_des(right), modes.ECB()).decryptor().update(last)  # noqa: S305 - one block
    return Cipher(_des(left), modes.ECB()).encryptor().update(decrypted)  # noqa: S305 - one block


def _triple_des(key: bytes, blocks: bytes) -> bytes:
    return Cipher(TripleDES(key + key[:_BLOCK]), modes.ECB()).encryptor().update(blocks)  # noqa: S305 - derives keys


def _des(key: bytes) -> TripleDES:
    """Single DES, which is triple DES under one key three times."""
    return TripleDES(key * 3)


def _odd_parity(key: bytes) -> bytes:
    return bytes(byte ^ (1 - byte.bit_count() % 2) for byte in key)
