"""The machine-readable zone of passports and identity cards (ICAO Doc 9303, parts 3 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from domain.errors import DurapayError

_WEIGHTS = (7, 3, 1)
# A birth that the two digits of its year put later than today was a century earlier.
_CENTURY = 100


class MrzInvalid(DurapayError):
    """The lines are no machine-readable zone, or a check digit is wrong. The message names the field, not what it
    holds."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the machine-readable zone is wrong: {what}")
        self.what = what


@dataclass(frozen=True, slots=True)
class MachineReadable:
    """What a zone says. `issuer` is the state's three-letter code (`UTO`, `D`); names have no filler any more."""

    kind: str
    issuer: str
    number: str = field(repr=False)
    surname: str = field(repr=False)
    given_names: str = field(repr=False)
    born_on: date = field(repr=False)
    expires_on: date


def check_digit(text: str) -> str:
    """The check digit of `text` (ICAO 9303-3, 4.9): weights 7, 3, 1; digits as they are, A–Z 10 to 35, `<` 0.

    Raises:
        MrzInvalid: a character that no zone has.
    """
    return str(sum(_value(character) * _WEIGHTS[place % 3] for place, character in enumerate(text)) % 10)


def read(lines: Sequence[str], today: date) -> MachineReadable:
    """The zone of a passport (two lines of 44), an identity card (three of 30) or a card of size 2 (two of 36).

    Raises:
        MrzInvalid: another shape, an unknown character, a wrong check digit, an impossible date.
    """
    match tuple(len(line) for line in lines):
        case (44, 44):
            return _two_lines(lines, today, composite=_TD3_COMPOSITE)
        case (36, 36):
            return _two_lines(lines, today, composite=_TD2_COMPOSITE)
        case (30, 30, 30):
            return _three_lines(lines, today)
    raise MrzInvalid("its lines have neither the lengths of a passport nor those of an identity card")


_TD3_COMPOSITE = ((0, 10), (13, 20), (21, 43))
_TD2_COMPOSITE = ((0, 10), (13, 20), (21, 35))


def _two_lines(lines: Sequence[str], today: date, composite: Sequence[tuple[int, int]]) -> MachineReadable:
    first, second = lines
    number = _checked(second[0:9], second[9], "document number")
    born = _checked(second[13:19], second[19], "date of birth")
    expires = _checked(second[21:27], second[27], "date of expiry")
    if len(second) == 44:
        _checked_optional(second[28:42], second[42])
    _checked("".join(second[start:end] for start, end in composite), second[-1], "composite check digit")
    surname, given = _names(first[5:])
    return MachineReadable(
        first[0:2].rstrip("<"), first[2:5].rstrip("<"), number.rstrip("<"), surname, given,
        _born_on(born, today), _expires_on(expires),
    )  # fmt: skip


def _three_lines(lines: Sequence[str], today: date) -> MachineReadable:
    first, second, third = lines
    number = _td1_number(first)
    born = _checked(second[0:6], second[6], "date of birth")
    expires = _checked(second[8:14], second[14], "date of expiry")
    everything = first[5:30] + second[0:7] + second[8:15] + second[18:29]
    _checked(everything, second[29], "composite check digit")
    surname, given = _names(third)
    return MachineReadable(
        first[0:2].rstrip("<"), first[2:5].rstrip("<"), number, surname, given,
        _born_on(born, today), _expires_on(expires),
    )  # fmt: skip


def _td1_number(first: str) -> str:
    """A number of more than nine characters goes on in the optional data, its check digit behind (9303-5, note j)."""
    if first[14] != "<":
        return _checked(first[5:14], first[14], "document number").rstrip("<")
    rest = first[15:30].partition("<")[0]
    if not rest:
        raise MrzInvalid("document number")
    return _checked(first[5:14] + rest[:-1], rest[-1], "document number")


def _checked(text: str, digit: str, what: str) -> str:
    if check_digit(text) != digit:
        raise MrzInvalid(what)
    return text


def _checked_optional(text: str, digit: str) -> None:
    """Of a passport without optional data the digit may be a filler (9303-4, 4.2.2)."""
    if digit != "<" or text.strip("<"):
        _checked(text, digit, "optional data")


def _value(character: str) -> int:
    if character == "<":
        return 0
    if "0" <= character <= "9":
        return ord(character) - ord("0")
    if "A" <= character <= "Z":
        return ord(character) - ord("A") + 10
    raise MrzInvalid("a character that no zone has")


def _names(text: str) -> tuple[str, str]:
    if any(not ("A" <= character <= "Z" or character == "<") for character in text):
        raise MrzInvalid("name")
    surname, _, given = text.partition("<<")
    return " ".join(surname.replace("<", " ").split()), " ".join(given.replace("<", " ").split())


def _born_on(text: str, today: date) -> date:
    born = _date(text, today.year // _CENTURY * _CENTURY, "date of birth")
    return born if born <= today else _date(text, today.year // _CENTURY * _CENTURY - _CENTURY, "date of birth")


def _expires_on(text: str) -> date:
    return _date(text, 2000, "date of expiry")


def _date(text: str, century: int, what: str) -> date:
    if not text.isdecimal():
        raise MrzInvalid(what)
    try:
        return date(century + int(text[0:2]), int(text[2:4]), int(text[4:6]))
    except ValueError:
        raise MrzInvalid(what) from None
