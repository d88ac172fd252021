"""The messages that the platform exchanges with the network, built from and parsed into typed values.

| Message | Sent for | Answer |
|---|---|---|
| 0100, repeat 0101 | authorization of a token with its cryptogram | 0110 |
| the same | its increment: sub-field 03 of DE63 is 3900, DE90 names the authorization | |
| the same | verification of a card: DE25 is 51, DE4 zero | |
| 0200, repeat 0201 | sale: authorization and capture in one (processing code 00); refund (20) | 0210 |
| 0220, repeat 0221 | capture of an approved authorization; DE60 tells the last one (`F`) from others (`P`) | 0230 |
| 0420, repeat 0421 | reversal of an authorization or refund (DE90) | 0430 |
| the same | reversal in part: DE95 has what stays of the authorization, all that was captured | |
| 0620, repeat 0621 | which card number a device number stands for (DE123, sub-field 01) | 0630 |
| the same | that it stands for its card no more: sub-field 02 of DE123 is `D` | |
| the same | disputes, both ways (`cases`) | |
| 0800 | sign-on, sign-off, echo (DE70) | 0810 |

What asks about a card may bring its security code (DE126) and the billing address (DE123, sub-fields `C0` postal code
and `CF` street); DE44 of the answer says what the issuer found of them (`02` address, `10` code), in the networks'
letters.

A repeat carries the same DE7, DE11, DE32 and DE37 as its first sending: the host answers it from its own journal.

What an acknowledgement moves or takes back belongs to one day of the network's clearing: DE15 of a 0210, 0230 or 0430
names it (`MMDD`). It is the host's UTC day at its decision, or a later one when that day was closed before.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Self

from domain.card_checks import CardChecks, card_checks
from domain.currency import Currency
from domain.merchants import Merchant
from domain.money import Money
from network import tlv
from network.codec import Message
from network.errors import MessageInvalid

APPROVED: Final = "00"

SIGN_ON: Final = "001"
SIGN_OFF: Final = "002"
ECHO: Final = "301"

# What the answer to each of our requests is called. A repeat is answered like its first sending.
ANSWER_MTI: Final[Mapping[str, str]] = {
    "0100": "0110",
    "0101": "0110",
    "0200": "0210",
    "0201": "0210",
    "0220": "0230",
    "0221": "0230",
    "0420": "0430",
    "0421": "0430",
    "0620": "0630",
    "0621": "0630",
    "0800": "0810",
}
ANSWERS: Final = frozenset(ANSWER_MTI.values())

_PURCHASE: Final = "000000"
_REFUND: Final = "200000"
# DE95: actual amount of transaction and of settlement (n12 each), then of two fees (x+n8 each); we use the first.
_REPLACEMENT_DIGITS: Final = 42
_ECOMMERCE_ENTRY: Final = "810"  # DE22: number entered by electronic commerce, no PIN entry
_ECOMMERCE_CONDITION: Final = "59"  # DE25: electronic commerce request
_VERIFICATION_CONDITION: Final = "51"  # DE25: request for account verification without authorization
_ARQC: Final = b"\x80"  # tag 9F27: the cryptogram asks for online authorization

# Echoed by a host that answers; what we compare of it is below.
_ECHOED: Final = (3, 4, 7, 11, 32, 37, 41, 42, 49)
_COMPARED: Final = (4, 37, 49)

# The answer's type, DE11, DE7 and DE32.
MatchingKey = tuple[str, str, str, str]

# Sub-fields of DE63, under the names and values of Visa's.
_MESSAGE_REASON: Final = "03"
_INCREMENTAL: Final = "3900"

# Sub-fields of the private DE60, DE123 and DE126: two digits of name, two of length, the value.
_COMPLETION: Final = "01"
_FINAL: Final = "F"
_PARTIAL: Final = "P"
_CARD_NUMBER: Final = "01"
_NUMBER_STATE: Final = "02"
_DELETED: Final = "D"
_MAX_SUBFIELD: Final = 99
_CVV2: Final = "10"  # the same number as in Visa's DE126
# The same tags as in Visa's DE123 (verification data), and how much of each goes along.
_POSTAL_CODE: Final = "C0"
_STREET: Final = "CF"
_POSTAL_CODE_LENGTH: Final = 10
_STREET_LENGTH: Final = 40
# The same positions as in Visa's DE44.
_ADDRESS_RESULT: Final = "02"
_CVV2_RESULT: Final = "10"


@dataclass(frozen=True, slots=True)
class Trace:
    """What tells one message from all others: DE7 (`MMDDhhmmss`, UTC), DE11, DE32 and DE37."""

    transmission_time: str
    stan: str
    acquirer_id: str
    rrn: str

    def fields(self) -> dict[int, str]:
        return {7: self.transmission_time, 11: self.stan, 32: self.acquirer_id, 37: self.rrn}


@dataclass(frozen=True, slots=True)
class Original:
    """The message that another one is about (DE90): its type, DE11, DE7 and DE32 without leading zeros."""

    mti: str
    stan: str
    transmission_time: str
    acquirer_id: str

    def encoded(self) -> str:
        """The 42 digits: type 4, STAN 6, date and time 10, acquirer 11, forwarder 11 (none)."""
        return f"{self.mti}{self.stan}{self.transmission_time}{self.acquirer_id:0>11}{'':0>11}"

    @classmethod
    def of(cls, message: Message) -> Self:
        """The original that DE90 of `message` names.

        Raises:
            MessageInvalid: DE90 is missing.
        """
        digits = message.get(90)
        return cls(digits[:4], digits[4:10], digits[10:20], digits[20:31].lstrip("0"))


@dataclass(frozen=True, slots=True)
class Acceptor:
    """The merchant as it stands in the message: DE18, DE41 (8 characters), DE42 (15) and DE43 (40)."""

    category_code: str
    terminal_id: str
    merchant_id: str
    name_and_place: str

    @classmethod
    def of(cls, merchant: Merchant, terminal_id: str) -> Self:
        """`merchant` in the field's layout: name 23, city 13, state 2, country 2, all in ASCII.

        Raises:
            MessageInvalid: the merchant's id, category or country cannot be carried.
        """
        if not 0 < len(merchant.merchant_id) <= 15 or not merchant.merchant_id.isascii():
            raise MessageInvalid("the merchant's id must be 1 to 15 ASCII characters", 42)
        if len(merchant.country) != 2 or not merchant.country.isascii():
            raise MessageInvalid("the merchant's country must be two letters", 43)
        name_and_place = f"{ascii_text(merchant.name, 22):<23}{ascii_text(merchant.city, 13):<13}  {merchant.country}"
        return cls(merchant.category_code, f"{terminal_id:<8}", f"{merchant.merchant_id:<15}", name_and_place)

    def fields(self) -> dict[int, str]:
        return {18: self.category_code, 41: self.terminal_id, 42: self.merchant_id, 43: self.name_and_place}


@dataclass(frozen=True, slots=True)
class Card:
    """A device number (DPAN), its expiry (`YYMM`) and its sequence number (two digits)."""

    dpan: str = field(repr=False)
    expiry: str = field(repr=False)
    sequence_number: str = field(default="00", repr=False)

    def fields(self) -> dict[int, str]:
        return {2: self.dpan, 14: self.expiry, 23: f"0{self.sequence_number}"}


@dataclass(frozen=True, slots=True)
class Authentication:
    """The sensitive authentication data of one authorization: chip data in hexadecimal, and a CVV if one was entered.

    `address_line1` and `postal_code` are of the billing address, if one was given. `amount_other` is tag 9F03 (twelve
    digits), `transaction_date` tag 9A (`YYMMDD`), `terminal_country` tag 9F1A.
    """

    cryptogram: str = field(repr=False)
    atc: str = field(repr=False)
    unpredictable_number: str = field(repr=False)
    iad: str = field(repr=False)
    aip: str = field(repr=False)
    tvr: str = field(repr=False)
    transaction_date: str = field(repr=False)
    transaction_type: str = field(repr=False)
    terminal_country: str = field(repr=False)
    amount_other: str = field(repr=False)
    cvv: str | None = field(default=None, repr=False)
    address_line1: str | None = field(default=None, repr=False)
    postal_code: str | None = field(default=None, repr=False)

    def fields(self, money: Money) -> dict[int, str]:
        """DE55, DE123 when there is an address, and DE126 when there is a CVV. The amount and currency in the chip data
        are those of the message."""
        try:
            elements = {
                "9F26": bytes.fromhex(self.cryptogram),
                "9F27": _ARQC,
                "9F10": bytes.fromhex(self.iad),
                "9F37": bytes.fromhex(self.unpredictable_number),
                "9F36": bytes.fromhex(self.atc),
                "95": bytes.fromhex(self.tvr),
                "9A": bytes.fromhex(self.transaction_date),
                "9C": bytes.fromhex(self.transaction_type),
                "9F02": bytes.fromhex(f"{money.amount_minor:012d}"),
                "5F2A": bytes.fromhex(f"0{money.currency.numeric}"),
                "82": bytes.fromhex(self.aip),
                "9F1A": bytes.fromhex(self.terminal_country),
                "9F03": bytes.fromhex(self.amount_other),
            }
        except ValueError:
            # The value itself would be in the message: it is not chained.
            raise MessageInvalid("the authentication data is not hexadecimal", 55) from None
        fields = {55: tlv.build(elements).hex().upper()}
        if self.cvv is not None:
            fields[126] = subfields({_CVV2: self.cvv})
        billing = {
            _POSTAL_CODE: ascii_text(self.postal_code or "", _POSTAL_CODE_LENGTH),
            _STREET: ascii_text(self.address_line1 or "", _STREET_LENGTH),
        }
        if any(billing.values()):
            fields[123] = subfields({name: value for name, value in billing.items() if value})
        return fields


@dataclass(frozen=True, slots=True)
class Purchase:
    """What stays the same in every message about one effect, and is not sensitive: the journal keeps it."""

    trace: Trace
    money: Money
    acceptor: Acceptor

    def fields(self) -> dict[int, str]:
        """DE12 and DE13 are the transmission's own time: the acceptor is a server and lives in UTC."""
        time = self.trace.transmission_time
        return {
            4: f"{self.money.amount_minor:012d}",
            12: time[4:],
            13: time[:4],
            22: _ECOMMERCE_ENTRY,
            25: _ECOMMERCE_CONDITION,
            49: self.money.currency.numeric,
            **self.trace.fields(),
            **self.acceptor.fields(),
        }


def authorization(
    purchase: Purchase, card: Card, authentication: Authentication | None, *, repeat: bool = False
) -> Message:
    """0100 or 0101."""
    return Message("0101" if repeat else "0100", _presented(purchase, card, authentication))


def increment(purchase: Purchase, card: Card, original: Original, *, repeat: bool = False) -> Message:
    """0100 or 0101 for more of the authorization `original`. It has no cryptogram: the card is not asked again."""
    fields = _about(_PURCHASE, purchase, card, original, "") | {63: subfields({_MESSAGE_REASON: _INCREMENTAL})}
    return Message("0101" if repeat else "0100", fields)


def verification(
    purchase: Purchase, card: Card, authentication: Authentication | None, *, repeat: bool = False
) -> Message:
    """0100 or 0101 for an amount of zero: whether the card is good."""
    fields = _presented(purchase, card, authentication) | {25: _VERIFICATION_CONDITION}
    return Message("0101" if repeat else "0100", fields)


def sale(purchase: Purchase, card: Card, authentication: Authentication | None, *, repeat: bool = False) -> Message:
    """0200 or 0201: as an authorization, and its approval is the capture of the whole amount."""
    return Message("0201" if repeat else "0200", _presented(purchase, card, authentication))


def refund(purchase: Purchase, card: Card, original: Original, *, repeat: bool = False) -> Message:
    """0200 or 0201. `original` is the authorization that was captured, or the sale."""
    return Message("0201" if repeat else "0200", _about(_REFUND, purchase, card, original, ""))


def capture(
    purchase: Purchase,
    card: Card,
    original: Original,
    approval_code: str,
    *,
    final: bool,
    repeat: bool = False,
) -> Message:
    """0220 or 0221. `approval_code` is DE38 of the authorization, empty when it had none.

    After the `final` one the issuer releases what is left of the authorization and takes no more captures of it.
    """
    completion = {60: subfields({_COMPLETION: _FINAL if final else _PARTIAL})}
    fields = _about(_PURCHASE, purchase, card, original, approval_code) | completion
    return Message("0221" if repeat else "0220", fields)


def reversal(
    purchase: Purchase,
    card: Card,
    original: Original,
    approval_code: str,
    *,
    of_refund: bool = False,
    repeat: bool = False,
) -> Message:
    """0420 or 0421. `approval_code` is DE38 of the original, empty when no answer to it came."""
    processing_code = _REFUND if of_refund else _PURCHASE
    return Message("0421" if repeat else "0420", _about(processing_code, purchase, card, original, approval_code))


def release(
    purchase: Purchase,
    card: Card,
    original: Original,
    approval_code: str,
    captured: Money,
    *,
    repeat: bool = False,
) -> Message:
    """0420 or 0421: of the authorization's amount (DE4) nothing stays but what was `captured` (DE95)."""
    replacement = {95: f"{captured.amount_minor:012d}{'0' * (_REPLACEMENT_DIGITS - 12)}"}
    fields = _about(_PURCHASE, purchase, card, original, approval_code) | replacement
    return Message("0421" if repeat else "0420", fields)


def replacement_minor(message: Message) -> int | None:
    """What stays of the original, in minor units; None for a reversal of all of it.

    Raises:
        MessageInvalid: DE95 is no amount.
    """
    value = message.fields.get(95)
    if value is None:
        return None
    if len(value) != _REPLACEMENT_DIGITS or not (value.isascii() and value.isdigit()):
        raise MessageInvalid("no replacement amount", 95)
    return int(value[:12])


def provisioning(trace: Trace, card: Card, pan: str, *, repeat: bool = False) -> Message:
    """0620 or 0621: `card` stands for the card number `pan` from now on."""
    fields = {**trace.fields(), **card.fields(), 123: subfields({_CARD_NUMBER: pan})}
    return Message("0621" if repeat else "0620", fields)


def deprovisioning(trace: Trace, card: Card, *, repeat: bool = False) -> Message:
    """0620 or 0621: `card` stands for no card number from now on."""
    fields = {**trace.fields(), **card.fields(), 123: subfields({_NUMBER_STATE: _DELETED})}
    return Message("0621" if repeat else "0620", fields)


def network_management(code: str, stan: str, transmission_time: str) -> Message:
    """0800 with DE70 `code`: `SIGN_ON`, `SIGN_OFF` or `ECHO`."""
    return Message("0800", {7: transmission_time, 11: stan, 70: code})


def answer(request: Message, response_code: str, more: Mapping[int, str] | None = None) -> Message:
    """The answer to `request`: its echoed fields, DE39 and `more`. DE2 is never sent back."""
    echoed = {number: request.fields[number] for number in (*_ECHOED, 70) if number in request.fields}
    return Message(ANSWER_MTI[request.mti], {**echoed, 39: response_code, **(more or {})})


def request_key(request: Message) -> MatchingKey:
    """What the answer to `request` is matched by: the answer's type, DE11, DE7 and DE32."""
    return (ANSWER_MTI[request.mti], request.get(11), request.get(7), request.fields.get(32, ""))


def answer_key(message: Message) -> MatchingKey:
    """The same for an answer."""
    return (message.mti, message.get(11), message.get(7), message.fields.get(32, ""))


def difference(request: Message, received: Message) -> int | None:
    """The first data element (amount, RRN, currency) in which an answer belongs to something else than was asked.

    A host may leave these out of its acknowledgement of an advice, never out of an approval.
    """
    required = received.mti in ("0110", "0210") and received.fields.get(39) == APPROVED
    for number in _COMPARED:
        expected, found = request.fields.get(number), received.fields.get(number)
        if expected is not None and found != expected and (required or found is not None):
            return number
    return None


def amount(message: Message) -> Money:
    """DE4 in the currency of DE49.

    Raises:
        MessageInvalid: one is missing, or the currency is unknown.
    """
    try:
        currency = Currency.from_numeric(message.get(49))
    except ValueError:
        raise MessageInvalid("not an ISO 4217 currency", 49) from None
    return Money(int(message.get(4)), currency)


def is_refund(message: Message) -> bool:
    """Whether the processing code (DE3) of `message` gives money back instead of taking it."""
    return message.get(3) == _REFUND


def is_increment(message: Message) -> bool:
    """Whether an authorization request adds to an earlier one (DE63).

    Raises:
        MessageInvalid: DE63 is malformed.
    """
    return parse_subfields(message.fields.get(63, ""), 63).get(_MESSAGE_REASON) == _INCREMENTAL


def is_verification(message: Message) -> bool:
    """Whether an authorization request asks about the card alone (DE25)."""
    return message.fields.get(25) == _VERIFICATION_CONDITION


def is_final(message: Message) -> bool:
    """Whether a capture says in DE60 that it is the last one. One that says nothing may have others after it.

    Raises:
        MessageInvalid: DE60 is malformed.
    """
    return parse_subfields(message.fields.get(60, ""), 60).get(_COMPLETION) == _FINAL


def settlement_date(message: Message, today: date) -> date | None:
    """DE15 of an answer as the date next to `today`, since it names no year; None without a DE15 that is a date."""
    month_and_day = message.fields.get(15)
    if month_and_day is None:
        return None
    candidates = []
    for year in (today.year - 1, today.year, today.year + 1):
        with contextlib.suppress(ValueError):  # 29 February is in some of these years only
            candidates.append(date(year, int(month_and_day[:2]), int(month_and_day[2:])))
    return min(candidates, key=lambda candidate: abs(candidate - today), default=None)


def token_pan(message: Message) -> str:
    """The card number in DE123 of a provisioning advice.

    Raises:
        MessageInvalid: there is none.
    """
    pan = parse_subfields(message.get(123), 123).get(_CARD_NUMBER, "")
    if not pan.isdigit():
        raise MessageInvalid("no card number in it", 123)
    return pan


def is_deprovisioning(message: Message) -> bool:
    """Whether an administrative advice ends a device number (DE123).

    Raises:
        MessageInvalid: DE123 is malformed.
    """
    return parse_subfields(message.fields.get(123, ""), 123).get(_NUMBER_STATE) == _DELETED


def cvv(message: Message) -> str | None:
    """The CVV in DE126, if the payer entered one.

    Raises:
        MessageInvalid: DE126 is malformed.
    """
    value = message.fields.get(126)
    return None if value is None else parse_subfields(value, 126).get(_CVV2)


def address(message: Message) -> tuple[str | None, str | None]:
    """Street and postal code in DE123 of a request, each if it was given.

    Raises:
        MessageInvalid: DE123 is malformed.
    """
    given = parse_subfields(message.fields.get(123, ""), 123)
    return given.get(_STREET), given.get(_POSTAL_CODE)


def check_results(address_result: str | None, code_result: str | None) -> dict[int, str]:
    """DE44 with what the issuer found, in the networks' letters; nothing, if nothing was asked about."""
    found = {_ADDRESS_RESULT: address_result, _CVV2_RESULT: code_result}
    given = {name: letter for name, letter in found.items() if letter is not None}
    return {44: subfields(given)} if given else {}


def checks(request: Message, received: Message) -> CardChecks | None:
    """What `received` says of the code and the address that `request` brought along; None if it brought neither.

    A host that says it in a way that nobody understands has not said it: the answer itself stands.
    """
    street, postal_code = address(request)
    found: dict[str, str] = {}
    with contextlib.suppress(MessageInvalid):
        found = parse_subfields(received.fields.get(44, ""), 44)
    return card_checks(
        found.get(_ADDRESS_RESULT),
        found.get(_CVV2_RESULT),
        code=cvv(request) is not None,
        line1=street is not None,
        postal_code=postal_code is not None,
    )


def _presented(purchase: Purchase, card: Card, authentication: Authentication | None) -> dict[int, str]:
    sensitive = authentication.fields(purchase.money) if authentication else {}
    return {3: _PURCHASE, **purchase.fields(), **card.fields(), **sensitive}


def _about(
    processing_code: str, purchase: Purchase, card: Card, original: Original, approval_code: str
) -> dict[int, str]:
    fields = {3: processing_code, **purchase.fields(), **card.fields(), 90: original.encoded()}
    if approval_code:
        fields[38] = approval_code
    return fields


def ascii_text(text: str, length: int) -> str:
    """`text` without accents and within printable ASCII, cut to `length`: the network knows no other characters."""
    decomposed = unicodedata.normalize("NFKD", text).replace("ß", "ss")
    plain = (character for character in decomposed if not unicodedata.combining(character))
    return "".join(character if " " <= character <= "~" else "?" for character in plain)[:length]


def subfields(values: Mapping[str, str]) -> str:
    """Two digits of name, two of length, the value; one after the other.

    Raises:
        MessageInvalid: a value is longer than 99 characters.
    """
    if any(len(value) > _MAX_SUBFIELD for value in values.values()):
        raise MessageInvalid("a sub-field is too long")
    return "".join(f"{name}{len(value):02d}{value}" for name, value in values.items())


def parse_subfields(text: str, number: int) -> dict[str, str]:
    """The sub-fields in DE`number`, whose value is `text`.

    Raises:
        MessageInvalid: they are malformed.
    """
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        name, digits = text[position : position + 2], text[position + 2 : position + 4]
        if not (len(digits) == 2 and digits.isascii() and digits.isdigit()):
            raise MessageInvalid("a sub-field is malformed", number)
        end = position + 4 + int(digits)
        if end > len(text) or name in values:
            raise MessageInvalid("a sub-field is truncated or repeated", number)
        values[name] = text[position + 4 : end]
        position = end
    return values
