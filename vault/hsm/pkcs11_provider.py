"""The provider for anything that speaks PKCS#11 (written against SoftHSM 2.6.1 and python-pkcs11 0.10)."""

from __future__ import annotations

import ctypes
import logging
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.constants import DEFAULT

from vault.hsm import cryptoki
from vault.hsm.pool import PooledSession, SessionPool
from vault.hsm.provider import (
    Encrypted,
    HsmUnavailable,
    IntegrityError,
    KeyConflict,
    KeyKind,
    KeyMissing,
    MechanismMissing,
    PinRefused,
)

_log = logging.getLogger(__name__)

REQUIRED_MECHANISMS = (
    Mechanism.AES_KEY_GEN,
    Mechanism.AES_GCM,
    Mechanism.GENERIC_SECRET_KEY_GEN,
    Mechanism.SHA256_HMAC,
    Mechanism.DES3_CBC,
    Mechanism.DES3_ECB_ENCRYPT_DATA,
)

# After these the session, its login or its handles are gone; a new session may well work.
_SESSION_LOST = (
    pkcs11.SessionClosed,
    pkcs11.SessionHandleInvalid,
    pkcs11.UserNotLoggedIn,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.DeviceError,
    pkcs11.DeviceRemoved,
    pkcs11.TokenNotPresent,
    pkcs11.OperationActive,
)

# How a wrong GCM tag shows: SoftHSM says CKR_GENERAL_ERROR, others the codes that the standard has for it.
_NOT_AUTHENTIC = (pkcs11.GeneralError, pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange)

# NIST SP 800-38D, 8.2.2: an IV of 96 random bits, at most 2^32 of them under one key.
_IV_BYTES = 12
_BLOCK_BYTES = 8  # of DES
_DOUBLE_LENGTH_BYTES = 16

_Result = TypeVar("_Result")

_KEY_TYPES = {
    KeyKind.DATA: (KeyType.AES, 256, MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT),
    KeyKind.MAC: (KeyType.GENERIC_SECRET, 256, MechanismFlag.SIGN),
    KeyKind.MASTER: (KeyType.DES2, None, MechanismFlag.DERIVE),
}


class Pkcs11Provider:
    """One token of one PKCS#11 module, used by any number of threads through `sessions` sessions.

    A session that logs in is kept open beside them for as long as the provider lives: the login is the process's, and
    ends with its last session. Lost sessions, and a lost login, are renewed and the call is made once more; every call
    can be repeated without harm.

    Raises:
        HsmUnavailable: the module, the token or a session cannot be had.
        PinRefused: the PIN is not the token's.
        MechanismMissing: the token lacks what the vault needs.
    """

    def __init__(
        self, module: Path, token_label: str, pin: str, *, sessions: int = 2, wait_seconds: float = 5.0
    ) -> None:
        self._cryptoki = cryptoki.load(module)
        self._token_label = token_label
        self._pin = pin
        self._size = sessions
        self._process = os.getpid()
        self._owner: pkcs11.Session | None = None
        self._pin_refused = False
        self._require_mechanisms()
        self._pool = SessionPool(self._open_sessions, self._cryptoki.close, wait_seconds)

    @property
    def concurrency(self) -> int:
        return self._size

    def random(self, length: int) -> bytes:
        return self._run(lambda entry: entry.session.generate_random(length * 8))

    def encrypt(self, key: str, plaintext: bytes, aad: bytes) -> Encrypted:
        def operation(entry: PooledSession) -> Encrypted:
            iv = entry.session.generate_random(_IV_BYTES * 8)
            parameters = GCMParams(iv, aad, 128)
            handle = self._key(entry, key)
            return Encrypted(iv, handle.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))

        return self._run(operation)

    def decrypt(self, key: str, encrypted: Encrypted, aad: bytes) -> bytes:
        def operation(entry: PooledSession) -> bytes:
            handle = self._key(entry, key)
            parameters = GCMParams(encrypted.iv, aad, 128)
            try:
                plaintext: bytes = handle.decrypt(
                    encrypted.ciphertext, mechanism=Mechanism.AES_GCM, mechanism_param=parameters
                )
            except _NOT_AUTHENTIC:
                raise IntegrityError from None
            return plaintext

        return self._run(operation)

    def mac_sha256(self, key: str, data: bytes) -> bytes:
        def operation(entry: PooledSession) -> bytes:
            mac: bytes = self._key(entry, key).sign(data, mechanism=Mechanism.SHA256_HMAC)
            return mac

        return self._run(operation)

    def mac_alg3(self, key: str, path: Sequence[bytes], data: bytes) -> bytes:
        if not path or not data or len(data) % _BLOCK_BYTES:
            raise ValueError("a retail MAC needs a derivation path and whole blocks of data")

        def operation(entry: PooledSession) -> bytes:
            with ExitStack() as derived:
                parent = self._derive_along(entry, key, path[:-1], derived)
                both = _derive(parent, KeyType.DES2, path[-1], MechanismFlag.ENCRYPT, derived)
                # ISO/IEC 9797-1 algorithm 3 is a single-DES CBC under the left half and a last block under both.
                # Single DES is not to be had, so its key is made three times long: L‖L‖L in 3DES is DES under L.
                left_thrice = path[-1][:_BLOCK_BYTES] * 3
                head, last = data[:-_BLOCK_BYTES], data[-_BLOCK_BYTES:]
                chaining = bytes(_BLOCK_BYTES)
                if head:
                    left = _derive(parent, KeyType.DES3, left_thrice, MechanismFlag.ENCRYPT, derived)
                    chaining = _cbc(left, chaining, head)[-_BLOCK_BYTES:]
                return _cbc(both, chaining, last)

        return self._run(operation)

    def key_check_value(self, key: str, path: Sequence[bytes] = ()) -> bytes:
        def operation(entry: PooledSession) -> bytes:
            if not path:
                stored: bytes = self._key(entry, key)[Attribute.CHECK_VALUE]
                return stored
            with ExitStack() as derived:
                parent = self._derive_along(entry, key, path[:-1], derived)
                leaf = _derive(parent, KeyType.DES2, path[-1], MechanismFlag.ENCRYPT, derived)
                # ANSI X9.24-1: the leftmost three bytes of a zero block's encryption.
                return _cbc(leaf, bytes(_BLOCK_BYTES), bytes(_BLOCK_BYTES))[:3]

        return self._run(operation)

    def key_labels(self) -> frozenset[str]:
        def operation(entry: PooledSession) -> frozenset[str]:
            return frozenset(key.label for key in self._search(entry, {}))

        return self._run(operation)

    def generate_key(self, key: str, kind: KeyKind) -> None:
        key_type, bits, capabilities = _KEY_TYPES[kind]

        def operation(entry: PooledSession) -> None:
            self._require_free(entry, key)
            entry.session.generate_key(
                key_type,
                bits,
                label=key,
                store=True,
                capabilities=capabilities,
                template={Attribute.EXTRACTABLE: False},
            )

        self._run(operation)

    def import_key(self, key: str, kind: KeyKind, value: bytes) -> None:
        key_type, _, capabilities = _KEY_TYPES[kind]

        def operation(entry: PooledSession) -> None:
            self._require_free(entry, key)
            entry.session.create_object(
                {
                    Attribute.CLASS: ObjectClass.SECRET_KEY,
                    Attribute.KEY_TYPE: key_type,
                    Attribute.LABEL: key,
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: True,
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                    Attribute.ENCRYPT: bool(capabilities & MechanismFlag.ENCRYPT),
                    Attribute.DECRYPT: bool(capabilities & MechanismFlag.DECRYPT),
                    Attribute.SIGN: bool(capabilities & MechanismFlag.SIGN),
                    Attribute.VERIFY: False,
                    Attribute.WRAP: False,
                    Attribute.UNWRAP: False,
                    Attribute.DERIVE: bool(capabilities & MechanismFlag.DERIVE),
                    Attribute.VALUE: value,
                }
            )

        self._run(operation)

    def destroy_key(self, key: str) -> None:
        def operation(entry: PooledSession) -> None:
            for handle in self._search(entry, {Attribute.LABEL: key}):
                handle.destroy()
            entry.keys.pop(key, None)

        self._run(operation)

    def close(self) -> None:
        self._pool.close()
        if self._owner is not None:
            self._cryptoki.close(self._owner)
            self._owner = None

    def _run(self, operation: Callable[[PooledSession], _Result]) -> _Result:
        """The result of `operation` in a session; if that is lost, once more in a new one."""
        if self._process != os.getpid():
            raise HsmUnavailable("the HSM was opened before a fork; open it again in this process")
        renewed = False
        while True:
            with self._pool.session() as entry:
                try:
                    return operation(entry)
                except pkcs11.PKCS11Error as error:
                    lost = isinstance(error, _SESSION_LOST) or not self._cryptoki.logged_in(entry.session)
                    if renewed or not lost:
                        raise HsmUnavailable(f"the HSM failed ({type(error).__name__})") from None
                    _log.warning("HSM session lost (%s); renewing all", type(error).__name__)
                    generation = entry.generation
            self._pool.renew(generation)
            renewed = True

    def _key(self, entry: PooledSession, label: str) -> Any:
        """The handle of a key. Its capabilities are its attributes', so its Python type is known only at run time."""
        handle = entry.keys.get(label)
        if handle is None:
            found = self._search(entry, {Attribute.LABEL: label})
            if not found:
                raise KeyMissing(label)
            if len(found) > 1:
                raise KeyConflict(label, "there is more than one on the HSM")
            handle = entry.keys[label] = found[0]
        return handle

    def _search(self, entry: PooledSession, attributes: dict[Attribute, Any]) -> list[Any]:
        # Private keys are invisible, not forbidden, to a session without a login: that is not an absent key.
        if not self._cryptoki.logged_in(entry.session):
            raise pkcs11.UserNotLoggedIn
        template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: True, **attributes}
        # A search that is not read to its end keeps the session's lock.
        return list(entry.session.get_objects(template))

    def _require_free(self, entry: PooledSession, label: str) -> None:
        if self._search(entry, {Attribute.LABEL: label}):
            raise KeyConflict(label, "there is one on the HSM already")

    def _derive_along(self, entry: PooledSession, key: str, path: Sequence[bytes], derived: ExitStack) -> Any:
        parent = self._key(entry, key)
        for block in path:
            parent = _derive(parent, KeyType.DES2, block, MechanismFlag.DERIVE, derived)
        return parent

    def _require_mechanisms(self) -> None:
        available = self._cryptoki.token(self._token_label).slot.get_mechanisms()
        missing = [mechanism.name for mechanism in REQUIRED_MECHANISMS if mechanism not in available]
        if missing:
            raise MechanismMissing(missing)

    def _open_sessions(self) -> list[pkcs11.Session]:
        if self._pin_refused:
            raise PinRefused("the HSM refused the PIN before; it is not tried again")
        self._cryptoki.revive()
        token = self._cryptoki.token(self._token_label)
        try:
            if self._owner is None or not self._cryptoki.logged_in(self._owner):
                # Sessions are read-write: AWS CloudHSM has no others.
                owner = token.open(rw=True)
                if self._owner is not None:
                    self._cryptoki.close(self._owner)
                self._owner = owner
                self._cryptoki.log_in(owner, self._pin)
            return [token.open(rw=True) for _ in range(self._size)]
        except PinRefused:
            self._pin_refused = True
            raise
        except pkcs11.PKCS11Error as error:
            raise HsmUnavailable(f"the HSM opens no session ({type(error).__name__})") from None


def _derive(parent: Any, key_type: KeyType, block: bytes, capability: MechanismFlag, derived: ExitStack) -> Any:
    """The key that encrypting `block` under `parent` gives; it is destroyed when `derived` is left."""
    buffer = ctypes.create_string_buffer(block, len(block))
    # CK_KEY_DERIVATION_STRING_DATA, which python-pkcs11 knows for AES only: a pointer and a length.
    parameter = struct.pack("PL", ctypes.addressof(buffer), len(block))
    key = parent.derive_key(
        key_type,
        len(block) * 8,
        capabilities=capability,
        mechanism=Mechanism.DES3_ECB_ENCRYPT_DATA,
        mechanism_param=parameter,
        # The length of a DES key follows from its type; naming it is an error.
        template={Attribute.VALUE_LEN: DEFAULT, Attribute.EXTRACTABLE: False},
    )
    derived.callback(key.destroy)
    return key


def _cbc(key: Any, iv: bytes, data: bytes) -> bytes:
    ciphertext: bytes = key.encrypt(data, mechanism=Mechanism.DES3_CBC, mechanism_param=iv)
    return ciphertext
