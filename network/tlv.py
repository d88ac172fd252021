"""BER-TLV as EMV uses it in DE55 (EMV 4.3 book 3, annex B): tags of one to three bytes, definite lengths.

Values of constructed tags (71, 72, …) are left as they are: an issuer script is opaque to an acquirer.
"""

from __future__ import annotations

from collections.abc import Mapping

from network.errors import TlvInvalid

_MAX_TAG_BYTES = 3
_LONG_TAG = 0x1F  # the low five bits of a first tag byte that has successors
_MORE = 0x80  # set in a length's first byte for the long form, and in a tag byte that is not the last


def build(elements: Mapping[str, bytes]) -> bytes:
    """The encoding of `elements` (tag in hexadecimal → value) in their order, each length in its shortest form.

    Raises:
        TlvInvalid: a key is not a tag, or a value is longer than 65,535 bytes.
    """
    encoded = bytearray()
    for tag, value in elements.items():
        raw_tag = _tag_bytes(tag)
        encoded += raw_tag + _length(len(value)) + value
    return bytes(encoded)


def parse(data: bytes) -> dict[str, bytes]:
    """The elements of `data`: tag in upper-case hexadecimal → value.

    Raises:
        TlvInvalid: it is truncated, has an indefinite length, a tag of more than three bytes, or one tag twice.
    """
    elements: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        tag, position = _read_tag(data, position)
        length, position = _read_length(data, position)
        value = data[position : position + length]
        if len(value) != length:
            raise TlvInvalid("a value is truncated", 55)
        if tag in elements:
            raise TlvInvalid(f"tag {tag} occurs twice", 55)
        elements[tag] = value
        position += length
    return elements


def _tag_bytes(tag: str) -> bytes:
    try:
        raw = bytes.fromhex(tag)
    except ValueError:
        raise TlvInvalid("a tag is not hexadecimal", 55) from None
    if _read_tag(raw, 0)[1] != len(raw):
        raise TlvInvalid("a tag has bytes to spare", 55)
    return raw


def _length(size: int) -> bytes:
    if size < _MORE:
        return bytes((size,))
    if size <= 0xFF:
        return bytes((0x81, size))
    if size <= 0xFFFF:
        return b"\x82" + size.to_bytes(2, "big")
    raise TlvInvalid("a value is too long", 55)


def _read_tag(data: bytes, position: int) -> tuple[str, int]:
    end = position + 1
    if position >= len(data) or data[position] == 0:
        raise TlvInvalid("a tag is missing", 55)
    if data[position] & _LONG_TAG == _LONG_TAG:
        while True:
            if end >= len(data):
                raise TlvInvalid("a tag is truncated", 55)
            if end - position >= _MAX_TAG_BYTES:
                raise TlvInvalid("a tag is longer than three bytes", 55)
            end += 1
            if not data[end - 1] & _MORE:
                break
    return data[position:end].hex().upper(), end


def _read_length(data: bytes, position: int) -> tuple[int, int]:
    if position >= len(data):
        raise TlvInvalid("a length is missing", 55)
    first = data[position]
    position += 1
    if first < _MORE:
        return first, position
    count = first & ~_MORE
    if count not in (1, 2):
        raise TlvInvalid("a length is indefinite or too long", 55)
    octets = data[position : position + count]
    if len(octets) != count:
        raise TlvInvalid("a length is truncated", 55)
    return int.from_bytes(octets, "big"), position + count
