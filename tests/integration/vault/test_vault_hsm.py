"""The PKCS#11 provider on a real token: what it keeps apart, what it survives, and how it says no."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pkcs11 import Attribute, AttributeSensitive, ObjectClass

from embedded.softhsm import HsmToken
from vault.hsm import cryptoki
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.hsm.provider import (
    Encrypted,
    HsmUnavailable,
    IntegrityError,
    KeyConflict,
    KeyKind,
    KeyMissing,
)
from vault.keys import KeyRing, Purpose, create_keys

_PATH = (bytes(range(16)), bytes(range(16, 32)))
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def own_provider(provider: Pkcs11Provider, hsm_token: HsmToken) -> Iterator[Pkcs11Provider]:
    """A second provider in this process, whose sessions a test may break."""
    own = Pkcs11Provider(hsm_token.module, hsm_token.label, hsm_token.pin, sessions=2, wait_seconds=10)
    yield own
    own.close()


def test_what_is_encrypted_comes_back_and_never_twice_alike(provider: Pkcs11Provider) -> None:
    first, second = (provider.encrypt("DEK-v1", b"plaintext", b"aad") for _ in range(2))
    assert first.iv != second.iv
    assert first.ciphertext != second.ciphertext
    assert provider.decrypt("DEK-v1", first, b"aad") == provider.decrypt("DEK-v1", second, b"aad") == b"plaintext"


def test_any_alteration_is_an_integrity_error(provider: Pkcs11Provider) -> None:
    encrypted = provider.encrypt("DEK-v1", b"plaintext", b"aad")
    flipped = bytes([encrypted.ciphertext[0] ^ 1]) + encrypted.ciphertext[1:]
    other_iv = bytes([encrypted.iv[0] ^ 1]) + encrypted.iv[1:]
    for altered, aad, key in (
        (encrypted, b"other", "DEK-v1"),
        (encrypted, b"aad", "CVV-DEK-v1"),
        (replace(encrypted, ciphertext=flipped), b"aad", "DEK-v1"),
        (replace(encrypted, ciphertext=encrypted.ciphertext[:-1]), b"aad", "DEK-v1"),
        (Encrypted(other_iv, encrypted.ciphertext), b"aad", "DEK-v1"),
    ):
        with pytest.raises(IntegrityError):
            provider.decrypt(key, altered, aad)
    assert provider.decrypt("DEK-v1", encrypted, b"aad") == b"plaintext"


def test_the_key_ceremony_can_be_repeated_and_notices_another_master_key(provider: Pkcs11Provider) -> None:
    master = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
    check_values = create_keys(provider, master)
    assert check_values == create_keys(provider, master)
    assert set(check_values) == {"DEK-v1", "FPK-v1", "CVV-DEK-v1", "DPAN-IDX-v1", "IMK-AC-v1"}
    assert check_values["IMK-AC-v1"] == "08D7B4"
    with pytest.raises(KeyConflict):
        create_keys(provider, bytes(range(16)))
    with pytest.raises(ValueError):
        create_keys(provider, bytes(16))


def test_the_newest_version_of_a_key_writes(provider: Pkcs11Provider) -> None:
    assert KeyRing.load(provider).newest(Purpose.DATA) == 1
    labels = provider.key_labels() | {"DEK-v2", "DEK-v10", "DEK-vx", "XDEK-v11"}

    class Rotated:
        def key_labels(self) -> frozenset[str]:
            return frozenset(labels)

    ring = KeyRing.load(Rotated())  # type: ignore[arg-type]
    assert ring.versions[Purpose.DATA] == (10, 2, 1)
    assert ring.versions[Purpose.CVC] == (1,)


def test_an_absent_key_and_a_taken_label_are_named(provider: Pkcs11Provider) -> None:
    with pytest.raises(KeyMissing, match="NOPE-v1"):
        provider.mac_sha256("NOPE-v1", b"data")
    with pytest.raises(KeyConflict, match="DEK-v1"):
        provider.generate_key("DEK-v1", KeyKind.DATA)
    with pytest.raises(KeyConflict, match="IMK-AC-v1"):
        provider.import_key("IMK-AC-v1", KeyKind.MASTER, bytes(range(16)))


def test_a_key_serves_its_one_purpose(provider: Pkcs11Provider) -> None:
    with pytest.raises((HsmUnavailable, AttributeError)):
        provider.encrypt("FPK-v1", b"plaintext", b"")
    with pytest.raises((HsmUnavailable, AttributeError)):
        provider.mac_alg3("DEK-v1", _PATH, bytes(8))
    with pytest.raises((HsmUnavailable, AttributeError)):
        provider.decrypt("IMK-AC-v1", Encrypted(bytes(12), bytes(32)), b"")


def test_no_key_can_be_read_out_of_the_token(provider: Pkcs11Provider, hsm_token: HsmToken) -> None:
    session = cryptoki.load(hsm_token.module).token(hsm_token.label).open(rw=True)
    try:
        found = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
        assert {key[Attribute.LABEL] for key in found} >= {"DEK-v1", "FPK-v1", "CVV-DEK-v1", "DPAN-IDX-v1", "IMK-AC-v1"}
        for key in found:
            assert key[Attribute.SENSITIVE]
            assert not key[Attribute.EXTRACTABLE]
            with pytest.raises(AttributeSensitive):
                key[Attribute.VALUE]
    finally:
        session.close()


def test_derived_keys_do_not_outlive_the_call(provider: Pkcs11Provider, hsm_token: HsmToken) -> None:
    for _ in range(5):
        provider.mac_alg3("IMK-AC-v1", _PATH, bytes(24))
        provider.key_check_value("IMK-AC-v1", _PATH)
    session = cryptoki.load(hsm_token.module).token(hsm_token.label).open(rw=True)
    try:
        left = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: False}))
    finally:
        session.close()
    assert not left


def test_eight_threads_on_one_token_get_right_answers(provider: Pkcs11Provider) -> None:
    data = bytes(range(24))
    hmac = provider.mac_sha256("FPK-v1", data)
    mac = provider.mac_alg3("IMK-AC-v1", _PATH, data)
    start = threading.Barrier(8)

    def work(number: int) -> int:
        start.wait()
        for turn in range(400):
            plaintext = f"{number}/{turn}".encode()
            encrypted = provider.encrypt("DEK-v1", plaintext, b"aad")
            assert provider.decrypt("DEK-v1", encrypted, b"aad") == plaintext
            assert provider.mac_sha256("FPK-v1", data) == hmac
            assert len(provider.random(16)) == 16
            if turn % 4 == 0:
                assert provider.mac_alg3("IMK-AC-v1", _PATH, data) == mac
                with pytest.raises(IntegrityError):
                    provider.decrypt("DEK-v1", encrypted, b"other")
        return number

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(work, range(8))) == list(range(8))


def _functions(hsm_token: HsmToken) -> ctypes.CDLL:
    return ctypes.CDLL(str(hsm_token.module))


def test_a_logout_behind_its_back_is_healed(own_provider: Pkcs11Provider, hsm_token: HsmToken) -> None:
    encrypted = own_provider.encrypt("DEK-v1", b"plaintext", b"aad")
    session = cryptoki.load(hsm_token.module).token(hsm_token.label).open(rw=True)
    assert _functions(hsm_token).C_Logout(ctypes.c_ulong(session.handle)) == 0  # type: ignore[attr-defined]
    session.close()
    assert own_provider.decrypt("DEK-v1", encrypted, b"aad") == b"plaintext"


def test_closed_sessions_are_replaced(own_provider: Pkcs11Provider, hsm_token: HsmToken) -> None:
    hmac = own_provider.mac_sha256("FPK-v1", b"data")
    slot = cryptoki.load(hsm_token.module).token(hsm_token.label).slot
    assert _functions(hsm_token).C_CloseAllSessions(ctypes.c_ulong(slot.slot_id)) == 0
    assert own_provider.mac_sha256("FPK-v1", b"data") == hmac
    assert own_provider.mac_alg3("IMK-AC-v1", _PATH, bytes(8))


def test_many_threads_recover_together_from_closed_sessions(own_provider: Pkcs11Provider, hsm_token: HsmToken) -> None:
    hmac = own_provider.mac_sha256("FPK-v1", b"data")
    slot = cryptoki.load(hsm_token.module).token(hsm_token.label).slot
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            assert _functions(hsm_token).C_CloseAllSessions(ctypes.c_ulong(slot.slot_id)) == 0
            answers = list(threads.map(lambda _: own_provider.mac_sha256("FPK-v1", b"data"), range(32)))
            assert answers == [hmac] * 32


def test_a_finalised_module_is_initialised_again(own_provider: Pkcs11Provider, hsm_token: HsmToken) -> None:
    hmac = own_provider.mac_sha256("FPK-v1", b"data")
    assert _functions(hsm_token).C_Finalize(None) == 0
    assert own_provider.mac_sha256("FPK-v1", b"data") == hmac


def test_an_unknown_token_or_module_is_a_named_error(hsm_token: HsmToken, tmp_path: Path) -> None:
    with pytest.raises(HsmUnavailable, match="not exactly one"):
        Pkcs11Provider(hsm_token.module, "no such token", hsm_token.pin)
    with pytest.raises(HsmUnavailable, match="cannot be loaded"):
        Pkcs11Provider(tmp_path / "none.so", hsm_token.label, hsm_token.pin)


def _in_a_process_of_its_own(script: str, hsm_token: HsmToken, configuration: Path) -> str:
    """What `script` prints. In it `open_provider(pin)` opens the token. Logins and C_Initialize are per process."""
    prologue = f"""
        import os, sys
        from pathlib import Path
        from vault.hsm.pkcs11_provider import Pkcs11Provider
        from vault.hsm.provider import *
        def open_provider(pin=os.environ["PIN"]):
            return Pkcs11Provider(Path({str(hsm_token.module)!r}), {hsm_token.label!r}, pin)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prologue) + textwrap.dedent(script)],
        cwd=_ROOT,
        env={"SOFTHSM2_CONF": str(configuration), "PIN": hsm_token.pin, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.strip()


def test_a_missing_mechanism_is_named_at_start(hsm_token: HsmToken, tmp_path: Path) -> None:
    limited = tmp_path / "softhsm2.conf"
    # SoftHSM 2.6.1 overlooks the first name of an exclusion list.
    exclusion = "slots.mechanisms = -CKM_MD5,CKM_AES_GCM,CKM_SHA256_HMAC\n"
    limited.write_text(hsm_token.configuration.read_text() + exclusion)
    script = """
        try:
            open_provider()
        except MechanismMissing as missing:
            print(*missing.mechanisms)
    """
    assert _in_a_process_of_its_own(script, hsm_token, limited) == "AES_GCM SHA256_HMAC"


def test_a_wrong_pin_is_a_named_error_without_the_pin(hsm_token: HsmToken) -> None:
    script = """
        try:
            open_provider("0000-wrong")
        except PinRefused as refused:
            assert "0000" not in str(refused)
            print("refused")
    """
    assert _in_a_process_of_its_own(script, hsm_token, hsm_token.configuration) == "refused"


def test_a_module_initialised_without_locks_is_not_used(hsm_token: HsmToken) -> None:
    script = """
        import ctypes
        ctypes.CDLL(%r).C_Initialize(None)
        try:
            open_provider()
        except HsmUnavailable as unavailable:
            print(unavailable)
    """
    output = _in_a_process_of_its_own(script % str(hsm_token.module), hsm_token, hsm_token.configuration)
    assert "not for threads" in output


def test_a_forked_child_must_open_the_token_itself(provider: Pkcs11Provider, hsm_token: HsmToken) -> None:
    script = """
        inherited = open_provider()
        before = inherited.mac_sha256("FPK-v1", b"data")
        if child := os.fork():
            os.waitpid(child, 0)
            assert inherited.mac_sha256("FPK-v1", b"data") == before
        else:
            try:
                inherited.random(1)
            except HsmUnavailable:
                print("refused", open_provider().mac_sha256("FPK-v1", b"data") == before, flush=True)
            os._exit(0)
    """
    assert _in_a_process_of_its_own(script, hsm_token, hsm_token.configuration) == "refused True"
