"""The issuer's cryptogram check against values that others published (tests/vectors/emv.json names each source)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from network.simulator.emv import card_key, cryptogram_valid, session_key

_VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "emv.json").read_text())


def _cases(group: str) -> list[Any]:
    return [pytest.param(case["in"], case["out"], id=f"{group}-{index}") for index, case in enumerate(_VECTORS[group])]


def _chip_data(given: dict[str, str], cryptogram: str) -> dict[str, bytes]:
    tags = {name[4:].upper(): bytes.fromhex(value) for name, value in given.items() if name.startswith("tag_")}
    return tags | {"9F26": bytes.fromhex(cryptogram)}


@pytest.mark.parametrize(("given", "expected"), _cases("icc_mk_option_a"))
def test_card_keys_are_derived_by_option_a(given: dict[str, str], expected: dict[str, str]) -> None:
    assert card_key(bytes.fromhex(given["imk"]), given["pan"], given["psn"]).hex().upper() == expected["udk"]


@pytest.mark.parametrize(("given", "expected"), _cases("arqc_visa_cvn18"))
def test_session_keys_and_cryptograms_are_those_of_visa_cvn_18(given: dict[str, str], expected: dict[str, str]) -> None:
    imk = bytes.fromhex(given["imk_ac"])
    key = session_key(card_key(imk, given["pan"], given["psn"]), bytes.fromhex(given["tag_9f36"]))
    assert key.hex().upper() == expected["sk"]
    assert cryptogram_valid(imk, given["pan"], given["psn"], _chip_data(given, expected["arqc"]))


@pytest.mark.parametrize(("given", "expected"), _cases("arqc_visa_cvn18"))
def test_a_cryptogram_holds_for_nothing_but_its_own_data(given: dict[str, str], expected: dict[str, str]) -> None:
    imk = bytes.fromhex(given["imk_ac"])
    right = _chip_data(given, expected["arqc"])
    for tag, value in right.items():
        flipped = {**right, tag: bytes((value[0] ^ 1,)) + value[1:]}
        assert not cryptogram_valid(imk, given["pan"], given["psn"], flipped)
        assert not cryptogram_valid(imk, given["pan"], given["psn"], {key: right[key] for key in right if key != tag})
