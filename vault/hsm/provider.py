"""What the vault asks of an HSM, whatever its make. All calls block; all are safe to repeat.

Differences between makes end here: the IV of an encryption is an output (AWS CloudHSM and Luna in FIPS mode make their
own), the retail MAC is one call (SoftHSM composes it, a payment HSM has it), and derived keys never leave a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from domain.errors import DurapayError, Unavailable


class HsmError(DurapayError):
    """The root of what can go wrong at the HSM. Messages name keys and mechanisms, never a value."""


class HsmUnavailable(HsmError, Unavailable):
    """The HSM does not answer, or not now. Nothing was changed; trying again is safe."""


class PinRefused(HsmUnavailable):
    """The token refuses the PIN. It is not tried again by this process: repeated attempts lock a token."""


class IntegrityError(HsmError):
    """The ciphertext, its IV or what it is bound to was altered, or it was made with another key."""

    def __init__(self) -> None:
        super().__init__("the ciphertext does not authenticate")


class MechanismMissing(HsmError):
    """The token lacks mechanisms that the vault needs; `mechanisms` are their PKCS#11 names."""

    def __init__(self, mechanisms: Sequence[str]) -> None:
        super().__init__(f"the HSM lacks the mechanisms {', '.join(mechanisms)}")
        self.mechanisms = tuple(mechanisms)


class KeyMissing(HsmError):
    """No key with this label is on the token."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no key {key} on the HSM")
        self.key = key


class KeyConflict(HsmError):
    """A key with this label is there already, twice, or with another value than the one to be imported."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"key {key}: {why}")
        self.key = key


class KeyKind(StrEnum):
    """What a key is for; each key has one purpose. None can be read or wrapped out of the HSM."""

    DATA = "data"  # AES-256, encrypt and decrypt (GCM)
    MAC = "mac"  # HMAC-SHA256, at least 32 bytes
    MASTER = "master"  # double-length 3DES, derivation only


@dataclass(frozen=True, slots=True)
class Encrypted:
    """An AES-256-GCM ciphertext with its 16-byte tag at the end, and the IV that the HSM used."""

    iv: bytes
    ciphertext: bytes


class HsmProvider(Protocol):
    """Keys are named by their labels.

    Raises, from every method: HsmUnavailable; from those that use a key: KeyMissing.
    """

    @property
    def concurrency(self) -> int:
        """How many calls can run at once; more callers only wait for each other."""

    def random(self, length: int) -> bytes:
        """`length` random bytes from the HSM's generator."""

    def encrypt(self, key: str, plaintext: bytes, aad: bytes) -> Encrypted:
        """AES-256-GCM under a `DATA` key; `aad` is authenticated with it."""

    def decrypt(self, key: str, encrypted: Encrypted, aad: bytes) -> bytes:
        """The plaintext of `encrypted`.

        Raises:
            IntegrityError: it was not made with this key and this `aad`, or was altered since.
        """

    def mac_sha256(self, key: str, data: bytes) -> bytes:
        """HMAC-SHA256 (32 bytes) under a `MAC` key."""

    def mac_alg3(self, key: str, path: Sequence[bytes], data: bytes) -> bytes:
        """ISO/IEC 9797-1 MAC algorithm 3 (8 bytes) under a key derived from a `MASTER` key, in one atomic call.

        Each 16-byte block of `path` (at least one) is encrypted with the key before it (3DES, ECB) and becomes the
        next double-length key; the last one makes the MAC. `data` is padded already: whole blocks of 8 bytes.
        """

    def key_check_value(self, key: str, path: Sequence[bytes] = ()) -> bytes:
        """Three bytes that tell a key from others without revealing it; with a `path`, of the key that it derives."""

    def key_labels(self) -> frozenset[str]:
        """The labels of all secret keys on the token."""

    def generate_key(self, key: str, kind: KeyKind) -> None:
        """Makes a new key on the token.

        Raises:
            KeyConflict: the label is taken.
        """

    def import_key(self, key: str, kind: KeyKind, value: bytes) -> None:
        """Puts a key that another party must hold too onto the token.

        Raises:
            KeyConflict: the label is taken.
        """

    def destroy_key(self, key: str) -> None:
        """Takes a key off the token for good. One that is not there is no error: it is gone already."""

    def close(self) -> None:
        """Closes all sessions; the provider cannot be used after this."""
