"""Our dialect of ISO 8583:1987: ASCII throughout, but for the bitmaps, DE55 and DE96, which are binary.

`pyiso8583` refuses truncation, trailing bytes and wrong lengths; it accepts letters in numeric fields, and it raises
`KeyError` for a field that its specification lacks. What it does not check is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import iso8583

from network.errors import MessageInvalid


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its type and its data elements by number, text as it is, binary in upper-case hexadecimal.

    The fields stay out of the repr: they may hold a card number.
    """

    mti: str
    fields: Mapping[int, str] = field(repr=False)

    def get(self, number: int) -> str:
        """DE`number`.

        Raises:
            MessageInvalid: the message has none.
        """
        try:
            return self.fields[number]
        except KeyError:
            raise MessageInvalid("missing", number) from None


# DE: (format, digits of the length prefix, length or greatest length, name). n: digits, an: letters and digits
# (padded with spaces), ans: printable ASCII, z: track 2, b: binary.
_LAYOUT: Final[dict[int, tuple[str, int, int, str]]] = {
    2: ("n", 2, 19, "Primary account number"),
    3: ("n", 0, 6, "Processing code"),
    4: ("n", 0, 12, "Amount"),
    7: ("n", 0, 10, "Transmission date and time"),
    11: ("n", 0, 6, "System trace audit number"),
    12: ("n", 0, 6, "Local time"),
    13: ("n", 0, 4, "Local date"),
    14: ("n", 0, 4, "Expiry"),
    15: ("n", 0, 4, "Settlement date"),
    18: ("n", 0, 4, "Merchant category code"),
    22: ("n", 0, 3, "Point of service entry mode"),
    23: ("n", 0, 3, "Card sequence number"),
    25: ("n", 0, 2, "Point of service condition code"),
    32: ("n", 2, 11, "Acquiring institution"),
    35: ("z", 2, 37, "Track 2"),
    37: ("an", 0, 12, "Retrieval reference number"),
    38: ("an", 0, 6, "Approval code"),
    39: ("an", 0, 2, "Response code"),
    41: ("ans", 0, 8, "Terminal"),
    42: ("ans", 0, 15, "Card acceptor"),
    43: ("ans", 0, 40, "Card acceptor name and place"),
    44: ("ans", 2, 25, "Additional response data"),
    48: ("ans", 3, 999, "Additional data"),
    49: ("n", 0, 3, "Currency"),
    53: ("n", 0, 16, "Security control"),
    55: ("b", 3, 255, "Chip data"),
    60: ("ans", 3, 255, "Advice reason"),
    63: ("ans", 3, 255, "Network data"),
    70: ("n", 0, 3, "Network management code"),
    90: ("n", 0, 42, "Original data elements"),
    95: ("an", 0, 42, "Replacement amounts"),
    96: ("b", 0, 8, "Message security code"),
    123: ("ans", 3, 255, "Token or address data (private)"),
    124: ("ans", 3, 255, "Dispute data (private)"),
    126: ("ans", 3, 255, "Card verification data (private)"),
}

# What must be there for the message to mean anything. Answers repeat more, but a host may leave that out.
_REQUEST = frozenset({2, 3, 4, 7, 11, 14, 32, 37, 41, 42, 49})
_ANSWER = frozenset({7, 11, 32, 39})
_MANDATORY: Final[dict[str, frozenset[int]]] = {
    "0100": _REQUEST,
    "0101": _REQUEST,
    "0110": _ANSWER,
    "0200": _REQUEST,
    "0201": _REQUEST,
    "0210": _ANSWER,
    "0220": _REQUEST | {90},
    "0221": _REQUEST | {90},
    "0230": _ANSWER,
    "0420": _REQUEST | {90},
    "0421": _REQUEST | {90},
    "0430": _ANSWER,
    "0620": frozenset({7, 11, 32, 37}),
    "0621": frozenset({7, 11, 32, 37}),
    "0630": _ANSWER,
    "0800": frozenset({7, 11, 70}),
    "0810": frozenset({7, 11, 39}),
}

_FORMATS: Final[dict[str, Callable[[str], object]]] = {
    "n": re.compile(r"[0-9]+", re.ASCII).fullmatch,
    "an": re.compile(r"[0-9A-Za-z ]+", re.ASCII).fullmatch,
    "ans": re.compile(r"[\x20-\x7e]+", re.ASCII).fullmatch,
    "z": re.compile(r"[0-9=D]+", re.ASCII).fullmatch,
    "b": re.compile(r"(?:[0-9A-F]{2})+", re.ASCII).fullmatch,
}


def _specification() -> dict[str, dict[str, Any]]:
    def entry(format_: str, prefix: int, length: int, name: str) -> dict[str, Any]:
        data_encoding = "b" if format_ == "b" else "ascii"
        return {"data_enc": data_encoding, "len_enc": "ascii", "len_type": prefix, "max_len": length, "desc": name}

    specification = {str(number): entry(*layout) for number, layout in _LAYOUT.items()}
    specification["h"] = entry("ans", 0, 0, "Header")
    specification["t"] = entry("n", 0, 4, "Message type")
    specification["p"] = entry("b", 0, 8, "Primary bitmap")
    specification["1"] = entry("b", 0, 8, "Secondary bitmap")
    return specification


_SPECIFICATION: Final = _specification()


def encode(message: Message) -> bytes:
    """The bytes of `message`, without the frame's length.

    Raises:
        MessageInvalid: a field is missing, unknown, too long, of the wrong length, or not in its format.
    """
    _validate(message)
    document = {"t": message.mti} | {str(number): value for number, value in message.fields.items()}
    try:
        raw, _ = iso8583.encode(document, _SPECIFICATION)
    except iso8583.EncodeError as error:
        # The library's error keeps the whole message, card number included: it must not become a cause.
        raise MessageInvalid(error.msg, _number(error.field)) from None
    return bytes(raw)


def decode(raw: bytes) -> Message:
    """The message in `raw`.

    Raises:
        MessageInvalid: it is none.
    """
    try:
        document, _ = iso8583.decode(raw, _SPECIFICATION)
    except iso8583.DecodeError as error:
        raise MessageInvalid(error.msg, _number(error.field)) from None
    except KeyError as error:
        raise MessageInvalid("not a field of this dialect", _number(str(error.args[0]))) from None
    # "1" is the secondary bitmap; every other numeric key is a data element.
    fields = {int(key): value for key, value in document.items() if key.isdecimal() and key != "1"}
    message = Message(document["t"], fields)
    _validate(message)
    return message


def _validate(message: Message) -> None:
    mandatory = _MANDATORY.get(message.mti)
    if mandatory is None:
        raise MessageInvalid("not a message type of this dialect")
    missing = mandatory - message.fields.keys()
    if missing:
        raise MessageInvalid("missing", min(missing))
    for number, value in message.fields.items():
        layout = _LAYOUT.get(number)
        if layout is None:
            raise MessageInvalid("not a field of this dialect", number)
        if not _FORMATS[layout[0]](value):
            raise MessageInvalid(f"not in the format {layout[0]}", number)


def _number(name: str) -> int | None:
    return int(name) if name.isdecimal() else None
