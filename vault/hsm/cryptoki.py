"""Loading a PKCS#11 module so that threads may use it, and the few calls that python-pkcs11 does not offer.

python-pkcs11 calls `C_Initialize(NULL)` and releases the GIL around every call; a module that takes this at its word
runs without mutexes, and SoftHSM then crashes the process. Here every module is initialised with CKF_OS_LOCKING_OK
(PKCS#11 2.40, 5.4). Login is done here too, because python-pkcs11 ties it to one session object and logs the whole
process out when that is closed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pkcs11
from pkcs11 import _pkcs11

from vault.hsm.provider import HsmUnavailable, PinRefused

_OK = 0x000
_CKR_SESSION_CLOSED = 0x0B0
_CKR_SESSION_HANDLE_INVALID = 0x0B3
_CKR_USER_ALREADY_LOGGED_IN = 0x100
_CKR_CRYPTOKI_NOT_INITIALIZED = 0x190
_CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191
# CKR_PIN_INCORRECT, _INVALID, _LEN_RANGE, _EXPIRED, _LOCKED
_PIN_REFUSED = frozenset({0x0A0, 0x0A1, 0x0A2, 0x0A3, 0x0A4})

_CKF_OS_LOCKING_OK = 0x02
_CKU_USER = 1
# CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS
_LOGGED_IN_STATES = frozenset({1, 3})


class _InitializeArguments(ctypes.Structure):
    _fields_ = (
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class _SessionInfo(ctypes.Structure):
    _fields_ = (
        ("slot_id", ctypes.c_ulong),
        ("state", ctypes.c_ulong),
        ("flags", ctypes.c_ulong),
        ("device_error", ctypes.c_ulong),
    )


class _Library(_pkcs11.lib):
    """python-pkcs11's library, except that it leaves the initialisation to `Cryptoki`."""

    def initialize(self) -> None:
        """Called by the base class; `Cryptoki` has initialised the module before it makes one of these."""


class Cryptoki:
    """One PKCS#11 module in this process."""

    def __init__(self, module: Path) -> None:
        try:
            self._functions = ctypes.CDLL(str(module))
        except OSError:
            raise HsmUnavailable(f"the PKCS#11 module {module} cannot be loaded") from None
        self._module = module
        self._process = 0
        self.initialise()

    def initialise(self) -> None:
        """Initialises the module for threads, once per process; a forked child starts over.

        Raises:
            HsmUnavailable: it cannot be, or someone else did it before, perhaps not for threads.
        """
        if self._process == os.getpid():
            return
        if self._process:
            # The parent's state was copied by fork() and is useless here (PKCS#11 2.40, 2.6).
            self._functions.C_Finalize(None)
        arguments = _InitializeArguments(flags=_CKF_OS_LOCKING_OK)
        code = self._functions.C_Initialize(ctypes.byref(arguments))
        if code == _CKR_CRYPTOKI_ALREADY_INITIALIZED:
            raise HsmUnavailable(
                "the PKCS#11 module was initialised elsewhere in this process, perhaps not for threads"
            )
        if code != _OK:
            raise HsmUnavailable(f"the PKCS#11 module cannot be initialised (CKR 0x{code:03X})")
        self._process = os.getpid()
        self._library = _Library(str(self._module))
        # It lives as long as the process: python-pkcs11 unloads a library that is let go, under the sessions, and
        # stumbles over it when the interpreter ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._library))
        # Whoever else asks python-pkcs11 for this module gets this instance, not one that initialises it without locks.
        pkcs11._loaded[str(self._module)] = self._library

    def revive(self) -> None:
        """Initialises the module again if it was finalised behind our back (some vendors' daemons do, restarting)."""
        arguments = _InitializeArguments(flags=_CKF_OS_LOCKING_OK)
        code = self._functions.C_Initialize(ctypes.byref(arguments))
        if code not in (_OK, _CKR_CRYPTOKI_ALREADY_INITIALIZED):
            raise HsmUnavailable(f"the PKCS#11 module cannot be initialised (CKR 0x{code:03X})")

    def token(self, label: str) -> pkcs11.Token:
        """The token named `label`.

        Raises:
            HsmUnavailable: there is none, or more than one.
        """
        try:
            token: pkcs11.Token = self._library.get_token(token_label=label)
        except (pkcs11.NoSuchToken, pkcs11.MultipleTokensReturned):
            raise HsmUnavailable(f"there is not exactly one HSM token labelled {label!r}") from None
        except pkcs11.PKCS11Error as error:
            raise HsmUnavailable(f"the HSM does not list its tokens ({type(error).__name__})") from None
        return token

    def log_in(self, session: pkcs11.Session, pin: str) -> None:
        """Logs this process in to the session's token, unless it is already.

        Raises:
            PinRefused: the PIN is wrong, locked or expired.
            HsmUnavailable: another failure.
        """
        encoded = pin.encode()
        code = self._functions.C_Login(
            _handle(session), ctypes.c_ulong(_CKU_USER), encoded, ctypes.c_ulong(len(encoded))
        )
        if code in _PIN_REFUSED:
            raise PinRefused(f"the HSM refuses the PIN (CKR 0x{code:03X})")
        if code not in (_OK, _CKR_USER_ALREADY_LOGGED_IN):
            raise HsmUnavailable(f"the HSM login failed (CKR 0x{code:03X})")

    def logged_in(self, session: pkcs11.Session) -> bool:
        """Whether the session is open and its user logged in."""
        info = _SessionInfo()
        code = self._functions.C_GetSessionInfo(_handle(session), ctypes.byref(info))
        return code == _OK and info.state in _LOGGED_IN_STATES

    def close(self, session: pkcs11.Session) -> None:
        """Closes a session; one that is gone already is no error."""
        code = self._functions.C_CloseSession(_handle(session))
        gone = (_OK, _CKR_SESSION_HANDLE_INVALID, _CKR_SESSION_CLOSED, _CKR_CRYPTOKI_NOT_INITIALIZED)
        if code not in gone:
            raise HsmUnavailable(f"an HSM session cannot be closed (CKR 0x{code:03X})")


def _handle(session: pkcs11.Session) -> ctypes.c_ulong:
    # The type stubs leave the attribute out.
    return ctypes.c_ulong(session.handle)  # type: ignore[attr-defined]


_modules: dict[str, Cryptoki] = {}
_loading = threading.Lock()


def load(module: Path) -> Cryptoki:
    """The module at `module`, initialised for threads. There is one per path and process.

    Raises:
        HsmUnavailable: it cannot be loaded or initialised.
    """
    with _loading:
        cryptoki = _modules.get(str(module))
        if cryptoki is None:
            cryptoki = _modules[str(module)] = Cryptoki(module)
        else:
            cryptoki.initialise()
        return cryptoki
