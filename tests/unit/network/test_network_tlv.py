from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import TlvInvalid
from network.tlv import build, parse

TAGS = ("82", "95", "9A", "9C", "5F2A", "9F02", "9F10", "9F1A", "9F26", "9F36", "9F37", "DF8101")


@given(st.dictionaries(st.sampled_from(TAGS), st.binary(max_size=300)))
def test_what_was_built_is_parsed_again_in_its_order(elements: dict[str, bytes]) -> None:
    parsed = parse(build(elements))
    assert parsed == elements
    assert list(parsed) == list(elements)


@given(st.binary(max_size=64))
def test_any_bytes_are_parsed_or_refused_with_the_typed_error(data: bytes) -> None:
    with contextlib.suppress(TlvInvalid):
        parse(data)


@pytest.mark.parametrize("length", [0, 127, 128, 255, 256, 65_535])
def test_lengths_take_their_shortest_form(length: int) -> None:
    prefix = 2 if length < 128 else 3 if length < 256 else 4
    encoded = build({"95": bytes(length)})
    assert len(encoded) == prefix + length
    assert parse(encoded) == {"95": bytes(length)}


@pytest.mark.parametrize(
    "data",
    ["9F", "95", "9502AA", "9580", "9583000001AA", "9581", "00", "9FFFFFFF01AA", "9500" + "9500", "9F81"],
    ids=[
        "truncated tag",
        "no length",
        "truncated value",
        "indefinite length",
        "length of three bytes",
        "truncated length",
        "padding",
        "tag of four bytes",
        "tag twice",
        "tag without end",
    ],
)
def test_malformed_chip_data_is_refused(data: str) -> None:
    with pytest.raises(TlvInvalid):
        parse(bytes.fromhex(data))


@pytest.mark.parametrize("tag", ["", "XY", "9F", "9500", "00"])
def test_a_tag_that_is_none_is_not_built(tag: str) -> None:
    with pytest.raises(TlvInvalid):
        build({tag: b"\x01"})


def test_a_value_beyond_two_length_bytes_is_not_built() -> None:
    with pytest.raises(TlvInvalid):
        build({"95": bytes(65_536)})
