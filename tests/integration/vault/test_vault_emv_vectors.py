"""The published and recomputed EMV vectors, run through the HSM: keys are imported and never leave it again."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import ECB

from domain.cards import luhn_check_digit, luhn_valid
from vault import emv
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.hsm.provider import Encrypted, KeyKind

# The groups of the file that the vault implements.
COVERED = (
    "icc_mk_option_a",
    "icc_mk_option_b",
    "emv_common_session_key",
    "arqc_visa_cvn10",
    "arqc_visa_cvn18",
    "iso9797_1_alg3_retail_mac",
    "luhn",
    "luhn_check_digit",
    "aes256_gcm",
    "hmac_sha256",
)

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "emv.json").read_text(encoding="utf-8")
)

_labels = (f"vector-{number}" for number in itertools.count())


def cases(group: str) -> pytest.MarkDecorator:
    assert group in COVERED
    return pytest.mark.parametrize(("given", "expected"), [(case["in"], case["out"]) for case in VECTORS[group]])


def imported(provider: Pkcs11Provider, kind: KeyKind, value: bytes) -> str:
    label = next(_labels)
    provider.import_key(label, kind, value)
    return label


def transaction(given: dict[str, str]) -> emv.TransactionData:
    tags = ("9f02", "9f03", "9f1a", "95", "5f2a", "9a", "9c", "9f37", "82", "9f36")
    return emv.TransactionData(*(bytes.fromhex(given[f"tag_{tag}"]) for tag in tags))


@cases("icc_mk_option_a")
def test_a_card_key_is_derived_by_option_a(
    provider: Pkcs11Provider, given: dict[str, str], expected: dict[str, str]
) -> None:
    master = imported(provider, KeyKind.MASTER, bytes.fromhex(given["imk"]))
    block = emv.card_key_option_a(given["pan"], given["psn"])
    assert provider.key_check_value(master, (block,))[:2].hex().upper() == expected["kcv2"]


@cases("icc_mk_option_b")
def test_a_card_key_of_a_long_number_is_derived_by_option_b(
    provider: Pkcs11Provider, given: dict[str, str], expected: dict[str, str]
) -> None:
    master = imported(provider, KeyKind.MASTER, bytes.fromhex(given["imk"]))
    block = emv.card_key_option_b(given["pan"], given["psn"])
    assert provider.key_check_value(master, (block,))[:2].hex().upper() == expected["kcv2"]


@cases("emv_common_session_key")
def test_a_session_key_is_derived_from_the_card_key(
    provider: Pkcs11Provider, given: dict[str, str], expected: dict[str, str]
) -> None:
    card_key = imported(provider, KeyKind.MASTER, bytes.fromhex(given["icc_mk"]))
    block = emv.common_session_key(bytes.fromhex(given["r"]))
    assert provider.key_check_value(card_key, (block,))[:2].hex().upper() == expected["kcv2"]


@cases("arqc_visa_cvn10")
def test_a_cvn_10_cryptogram_is_the_issuers(
    provider: Pkcs11Provider, given: dict[str, str], expected: dict[str, str]
) -> None:
    master = imported(provider, KeyKind.MASTER, bytes.fromhex(given["imk_ac"]))
    cvr = bytes.fromhex(given["cvr"])
    cryptogram = emv.visa_cvn10(provider, master, given["pan"], given["psn"], transaction(given), cvr)
    assert cryptogram.hex().upper() == expected["arqc"]


@cases("arqc_visa_cvn18")
def test_a_cvn_18_cryptogram_is_the_issuers(
    provider: Pkcs11Provider, given: dict[str, str], expected: dict[str, str]
) -> None:
    master = imported(provider, KeyKind.MASTER, bytes.fromhex(given["imk_ac"]))
    iad = bytes.fromhex(given["tag_9f10"])
    cryptogram = emv.visa_cvn18(provider, master, given["pan"], given["psn"], transaction(given), iad)
    assert cryptogram.hex().upper() == expected["arqc"]


@cases("iso9797_1_alg3_retail_mac")
def test_a_retail_mac_is_made_under_a_derived_key(
    provider: Pkcs11Provider, given: dict[str, Any], expected: dict[str, str]
) -> None:
    # A retail MAC is always made under a derived key here: decrypting the wanted key under a known master key
    # gives the block that derives it.
    master_key = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
    wanted = bytes.fromhex(given["k1"])[:8] + bytes.fromhex(given["k2"])[:8]
    block = Cipher(TripleDES(master_key + master_key[:8]), ECB()).decryptor().update(wanted)
    master = imported(provider, KeyKind.MASTER, master_key)
    data, method = bytes.fromhex(given["data"]), given["padding"]
    mac = emv.retail_mac(provider, master, (block,), data, padding_method=method)
    assert mac.hex().upper() == expected["mac"]


@cases("luhn")
def test_a_number_ends_in_its_check_digit(given: dict[str, str], expected: dict[str, bool]) -> None:
    number = given["pan"]
    assert (luhn_check_digit(number[:-1]) == number[-1]) is expected["valid"]
    # The formula holds for the single digit 0 too; the platform takes no card number of one digit.
    assert luhn_valid(number) is (expected["valid"] and len(number) > 1)


@cases("luhn_check_digit")
def test_a_check_digit_completes_a_number(given: dict[str, str], expected: dict[str, str]) -> None:
    assert luhn_check_digit(given["body"]) == expected["digit"]


@cases("aes256_gcm")
def test_a_known_ciphertext_opens(provider: Pkcs11Provider, given: dict[str, str], expected: dict[str, str]) -> None:
    # The IV of an encryption is the HSM's choice, so the vector runs backwards.
    key = imported(provider, KeyKind.DATA, bytes.fromhex(given["key"]))
    encrypted = Encrypted(bytes.fromhex(given["iv"]), bytes.fromhex(expected["ct_tag"]))
    assert provider.decrypt(key, encrypted, bytes.fromhex(given["aad"])).hex().upper() == given["pt"]


@cases("hmac_sha256")
def test_a_known_hmac_is_made(provider: Pkcs11Provider, given: dict[str, str], expected: dict[str, str]) -> None:
    # SoftHSM takes no key under 32 bytes. HMAC itself pads a short key with zeros (RFC 2104), so this one is the same.
    key = imported(provider, KeyKind.MAC, bytes.fromhex(given["key"]).ljust(32, b"\0"))
    assert provider.mac_sha256(key, bytes.fromhex(given["data"])).hex().upper() == expected["mac"]
