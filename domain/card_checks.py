"""What an issuer says of the security code and the billing address that came with a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class CheckResult(StrEnum):
    """`UNAVAILABLE`: it was asked about, and the issuer does not say. `UNCHECKED`: it was not asked about."""

    PASS = "pass"  # noqa: S105 - a result
    FAIL = "fail"
    UNAVAILABLE = "unavailable"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class CardChecks:
    """One result for each thing that can be asked about."""

    cvc: CheckResult = CheckResult.UNCHECKED
    address_line1: CheckResult = CheckResult.UNCHECKED
    postal_code: CheckResult = CheckResult.UNCHECKED


_R = CheckResult

# Visa's and Mastercard's address verification results: what they say of street and postal code. What is in neither
# list, and R, S, U, G and I (system down, not supported, not available), says nothing.
_ADDRESS: Final[Mapping[str, tuple[CheckResult, CheckResult]]] = {
    "Y": (_R.PASS, _R.PASS),
    "X": (_R.PASS, _R.PASS),  # Mastercard: nine digits of the postal code
    "D": (_R.PASS, _R.PASS),  # D, M and F: outside the United States
    "M": (_R.PASS, _R.PASS),
    "F": (_R.PASS, _R.PASS),
    "A": (_R.PASS, _R.FAIL),
    "B": (_R.PASS, _R.UNAVAILABLE),
    "Z": (_R.FAIL, _R.PASS),
    "W": (_R.FAIL, _R.PASS),  # Mastercard: nine digits of the postal code
    "P": (_R.UNAVAILABLE, _R.PASS),
    "N": (_R.FAIL, _R.FAIL),
}
# CVV2 and CVC 2 alike. P (not processed), S (there is one on the card) and U (issuer not certified) say nothing.
_CODE: Final[Mapping[str, CheckResult]] = {"M": _R.PASS, "N": _R.FAIL}


def card_checks(
    address_result: str | None, code_result: str | None, *, code: bool, line1: bool, postal_code: bool
) -> CardChecks | None:
    """The results in the network's letters, of what was asked about; None if nothing was.

    The networks' letters speak of street and postal code together: what was not sent counts as not matching there (Z is
    "postal code matches, street does not or was not given"), and is `UNCHECKED` here.
    """
    if not (code or line1 or postal_code):
        return None
    street, post = _ADDRESS.get(address_result or "", (_R.UNAVAILABLE, _R.UNAVAILABLE))
    return CardChecks(
        cvc=_CODE.get(code_result or "", _R.UNAVAILABLE) if code else _R.UNCHECKED,
        address_line1=street if line1 else _R.UNCHECKED,
        postal_code=post if postal_code else _R.UNCHECKED,
    )
