"""What the platform asks of the card network, in the network's own words. The answers are in `outcomes`."""

from __future__ import annotations

from dataclasses import dataclass

from domain.currency import Currency
from domain.merchants import Merchant
from domain.money import Money


@dataclass(frozen=True, slots=True)
class SealedCredential:
    """A card credential that only the network worker can open.

    `sealed_pan` (base64) holds the DPAN and its expiry under the network worker's public key; it may be stored.
    The sensitive authentication data (cryptogram, CVV) is not in here: it waits, sealed likewise, for some minutes
    under `authentication_handle` in Redis, because PCI DSS 3.3.1 lets nothing of it be stored once the
    authorization has been answered, and a workflow's history is a store. It is None where none is needed.
    """

    token_id: str
    sealed_pan: str
    authentication_handle: str | None = None


@dataclass(frozen=True, slots=True)
class AuthorizeCommand:
    """One request for `money`. `effect_key` makes it one, however often it is asked for.

    An authorization (0100) that is captured later, or, with `sale`, an authorization that is taken at once: a financial
    request (0200, processing code 00), which needs no capture.
    """

    effect_key: str
    payment_id: str
    money: Money
    merchant: Merchant
    credential: SealedCredential
    sale: bool = False


@dataclass(frozen=True, slots=True)
class IncrementCommand:
    """Ask the issuer for `money` more on an approved authorization that is not captured to its end (0100).

    The card and the merchant are the original's; no new credential is needed. Reversing the original releases its
    increments with it; an increment that is in doubt is reversed by itself, under its own key.
    """

    effect_key: str
    original_effect_key: str
    payment_id: str
    money: Money


@dataclass(frozen=True, slots=True)
class VerifyCommand:
    """Ask the issuer whether a card is good, for no money at all (0100 of zero, DE25 51).

    `reference` says what it is for, as a payment's id does elsewhere. `Unknown` leaves nothing to undo: no money was
    asked for, so the question may be asked again under another key, and cannot be reversed. A `credential` serves one
    question only.
    """

    effect_key: str
    reference: str
    currency: Currency
    merchant: Merchant
    credential: SealedCredential


@dataclass(frozen=True, slots=True)
class ReverseCommand:
    """Undo the authorization, sale, increment or refund of `original_effect_key`.

    It is sent as 0420, and repeated as 0421 until the 0430.
    """

    effect_key: str
    original_effect_key: str


@dataclass(frozen=True, slots=True)
class CaptureCommand:
    """Tell the network that `money` of an approved authorization is taken (0220, repeated as 0221 until 0230).

    `final` says that no further capture follows, so that the issuer releases what is left of the authorization.
    """

    effect_key: str
    original_effect_key: str
    money: Money
    final: bool = True


@dataclass(frozen=True, slots=True)
class ReleaseCommand:
    """Tell the network that of an approved authorization nothing is taken beyond what was `captured`.

    It is a reversal in part: a 0420 with the replacement amount (DE95), repeated as 0421 until the 0430.
    """

    effect_key: str
    original_effect_key: str
    captured: Money


@dataclass(frozen=True, slots=True)
class RefundCommand:
    """Give `money` back to the card of an earlier authorization or sale (0200 with processing code 20)."""

    effect_key: str
    original_effect_key: str
    payment_id: str
    money: Money


@dataclass(frozen=True, slots=True)
class ProvisionCommand:
    """Tell the network which card number a new device number stands for (0620, repeated as 0621 until 0630).

    `sealed_token` (base64) holds DPAN, PAN and expiry under the network worker's public key.
    """

    effect_key: str
    token_id: str
    sealed_token: str


@dataclass(frozen=True, slots=True)
class DeprovisionCommand:
    """Tell the network that a device number stands for its card no more (0620, repeated as 0621 until 0630).

    What was authorized with it goes on: it is captured, released and refunded as before. `sealed_pan` (base64) holds
    the DPAN and its expiry under the network worker's public key.
    """

    effect_key: str
    token_id: str
    sealed_pan: str


@dataclass(frozen=True, slots=True)
class LateAnswer:
    """An answer to an authorization that came after the platform had stopped waiting. It never approves anything."""

    payment_id: str
    effect_key: str
    response_code: str
    stan: str
    rrn: str
