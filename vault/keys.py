"""The key hierarchy: which keys there are, what each is for, and which version writes.

Every key has one purpose and a versioned label (`DEK-v1`). The newest version writes; any that is on the token reads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import ECB

from vault.hsm.provider import Encrypted, HsmProvider, KeyConflict, KeyKind, KeyMissing

_log = logging.getLogger(__name__)

_DES_KEY_BYTES = 8


class Purpose(StrEnum):
    """A key family; the value is the label's stem."""

    DATA = "DEK"  # card and device numbers at rest
    FINGERPRINT = "FPK"  # the keyed hash by which one card is recognised again (PCI DSS 4.0.1, 3.5.1.1)
    CVC = "CVV-DEK"  # a card security code on its minutes-long way to the network
    DPAN_INDEX = "DPAN-IDX"  # the keyed hash that keeps device numbers unique
    CRYPTOGRAM = "IMK-AC"  # the issuer's master key for application cryptograms; the issuer's host holds it too


_GENERATED = {
    Purpose.DATA: KeyKind.DATA,
    Purpose.FINGERPRINT: KeyKind.MAC,
    Purpose.CVC: KeyKind.DATA,
    Purpose.DPAN_INDEX: KeyKind.MAC,
}


def label(purpose: Purpose, version: int) -> str:
    """`DEK-v1`: how a key is named on the token."""
    return f"{purpose}-v{version}"


def create_keys(provider: HsmProvider, imk_ac: bytes) -> dict[str, str]:
    """Makes what is missing of the hierarchy; returns all keys' check values in hex by label, for the ceremony's log.

    `imk_ac` is the double-length 3DES master key (16 bytes) that the card issuer's host holds as well. Repeating this
    changes nothing.

    Raises:
        ValueError: `imk_ac` is not a double-length key of two different halves.
        KeyConflict: the token holds another `IMK-AC`.
    """
    if len(imk_ac) != 2 * _DES_KEY_BYTES or imk_ac[:_DES_KEY_BYTES] == imk_ac[_DES_KEY_BYTES:]:
        raise ValueError("IMK-AC must be a double-length 3DES key (16 bytes) of two different halves")
    present = provider.key_labels()
    for purpose, kind in _GENERATED.items():
        if label(purpose, 1) not in present:
            provider.generate_key(label(purpose, 1), kind)
    cryptogram_key = label(Purpose.CRYPTOGRAM, 1)
    if cryptogram_key not in present:
        provider.import_key(cryptogram_key, KeyKind.MASTER, imk_ac)
    elif provider.key_check_value(cryptogram_key) != _check_value(imk_ac):
        raise KeyConflict(cryptogram_key, "the token holds another value")
    check_values = {name: provider.key_check_value(name).hex().upper() for name in (label(p, 1) for p in Purpose)}
    _log.info("HSM keys present: %s", ", ".join(f"{name} {value}" for name, value in check_values.items()))
    return check_values


def _check_value(key: bytes) -> bytes:
    """The leftmost three bytes of a zero block under a double-length 3DES key (ANSI X9.24-1)."""
    # ECB of one block is the definition of a check value.
    encryptor = Cipher(TripleDES(key + key[:_DES_KEY_BYTES]), ECB()).encryptor()  # noqa: S305
    return encryptor.update(bytes(_DES_KEY_BYTES))[:3]


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The versions of each key that the token holds, as read once at start."""

    versions: dict[Purpose, tuple[int, ...]]

    @classmethod
    def load(cls, provider: HsmProvider) -> KeyRing:
        """The ring of `provider`'s token.

        Raises:
            KeyMissing: a purpose has no key at all.
        """
        labels = provider.key_labels()
        versions = {purpose: _versions(purpose, labels) for purpose in Purpose}
        for purpose, present in versions.items():
            if not present:
                raise KeyMissing(label(purpose, 1))
        return cls(versions)

    def newest(self, purpose: Purpose) -> int:
        """The version that writes."""
        return self.versions[purpose][0]


def _versions(purpose: Purpose, labels: frozenset[str]) -> tuple[int, ...]:
    """Newest first."""
    stem = f"{purpose}-v"
    suffixes = (name.removeprefix(stem) for name in labels if name.startswith(stem))
    return tuple(sorted((int(suffix) for suffix in suffixes if suffix.isdecimal()), reverse=True))


def binding(*parts: str) -> bytes:
    """Additional authenticated data from `parts`, each with its length before it, so that no two lists look alike."""
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(2, "big") + part for part in encoded)


def encrypt(provider: HsmProvider, purpose: Purpose, version: int, text: str, *bound_to: str) -> Encrypted:
    """`text` under one version of a key, bound to `bound_to` and to that version."""
    name = label(purpose, version)
    return provider.encrypt(name, text.encode(), binding(*bound_to, name))


def decrypt(provider: HsmProvider, purpose: Purpose, version: int, encrypted: Encrypted, *bound_to: str) -> str:
    """What `encrypt` made with the same arguments.

    Raises:
        IntegrityError: it was altered, moved from elsewhere, or made with another key.
    """
    name = label(purpose, version)
    return provider.decrypt(name, encrypted, binding(*bound_to, name)).decode()
