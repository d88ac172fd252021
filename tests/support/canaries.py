"""Looks for values that must stand nowhere in clear, in every form in which they may have been written down."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence


def written_forms(value: str) -> Iterator[bytes]:
    """How a value may be written down: as it is, in hex, in base64, grouped as on a card."""
    yield value.encode()
    yield value.encode().hex().encode()
    if value.isdigit():
        yield " ".join(value[start : start + 4] for start in range(0, len(value), 4)).encode()
        yield "-".join(value[start : start + 4] for start in range(0, len(value), 4)).encode()
        # Packed decimal, as ISO 8583 and EMV carry numbers; as bytes, and their hex.
        packed = bytes.fromhex(value if len(value) % 2 == 0 else f"0{value}")
        yield packed
        yield packed.hex().encode()
    # The three alignments that base64 can have it in, without the characters that depend on its neighbours.
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + value.encode())
        yield encoded[4 if offset else 0 : -4]


def as_stored(rows: Iterable[str]) -> bytes:
    """Rows as PostgreSQL shows them, with the bytes that a `bytea` holds instead of its hex.

    In the hex a number may begin in the middle of a byte, by chance and where nobody wrote it down.
    """
    return _BYTEA.sub(lambda shown: b"|" + bytes.fromhex(shown[1].decode()) + b"|", "\n".join(rows).encode())


def check_absent(content: bytes, values: Sequence[str], where: str) -> None:
    """Raises AssertionError if `content` holds one of `values`, in whatever form."""
    for value in values:
        for form in written_forms(value):
            # The value itself is not shown: this text ends up in logs too.
            assert form not in content, f"{where} has a canary ({value[:2]}…, {len(value)} characters)"


def check_no_code(content: str, cvc: str, where: str) -> None:
    """The security code as a word of its own; a time or an id may have its digits by chance."""
    assert re.search(rf"(?<![\w.,:+-]){cvc}(?![\w.,:-])", content) is None, f"{where} has the security code"


_BYTEA = re.compile(rb"\\+x((?:[0-9a-f]{2})+)")
