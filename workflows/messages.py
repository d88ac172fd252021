"""Inputs, updates, signals and results of the workflows. They are wire format: new fields get defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from domain.currency import Currency
from domain.merchants import Merchant
from domain.money import Money
from domain.network import SealedCredential
from domain.payments import CaptureMethod, PaymentStatus
from domain.refunds import RefundStatus
from domain.risk import RiskSignals


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """A card payment as the API accepted it. `token_id` names the card in the vault.

    `credential` was issued when the request came in, if it could be; it is good for some minutes. `direct` says that
    the network may be asked over the direct line first: a history without it goes on as it began.
    """

    payment_id: str
    account_id: str
    user_id: str
    payment_method_id: str
    token_id: str
    card_bin: str
    card_last4: str
    money: Money
    merchant: Merchant
    capture_method: CaptureMethod
    requested_at: datetime
    signals: RiskSignals = field(default_factory=RiskSignals)
    metadata: dict[str, str] = field(default_factory=dict)
    credential: SealedCredential | None = None
    direct: bool = False


@dataclass(frozen=True, slots=True)
class PaymentSnapshot:
    """A payment as last committed. Amounts are in minor units of the payment's currency."""

    payment_id: str
    status: PaymentStatus
    amount_authorized_minor: int
    amount_captured_minor: int
    amount_refunded_minor: int
    needs_attention: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """Take `amount_minor` (None: all that is left). With `final` the rest of the authorization is released."""

    amount_minor: int | None = None
    final: bool = True


@dataclass(frozen=True, slots=True)
class IncrementRequest:
    """Authorize `amount_minor` more, so that the payment is `limit_minor` at most (None: whatever an amount can be)."""

    amount_minor: int
    limit_minor: int | None = None


@dataclass(frozen=True, slots=True)
class VoidRequest:
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StepUpAnswer:
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    operator: str
    approve: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """Give `amount_minor` (None: all that is left) back."""

    refund_id: str
    amount_minor: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RefundSnapshot:
    refund_id: str
    status: RefundStatus
    money: Money
    failure_code: str | None = None


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """The network's side of a refund whose amount the payment has reserved."""

    refund_id: str
    payment_id: str
    authorization_key: str
    money: Money


@dataclass(frozen=True, slots=True)
class RefundResult:
    succeeded: bool
    failure_code: str | None = None


@dataclass(frozen=True, slots=True)
class RefundInDoubt:
    refund_id: str


@dataclass(frozen=True, slots=True)
class RefundReturned:
    """The network took a refund that had succeeded back; `reason` is the network's."""

    refund_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CaptureCleared:
    """The network's clearing file of `day` (ISO 8601) has the capture or sale of `effect_key`, with its amount."""

    effect_key: str
    amount_minor: int
    day: str


@dataclass(frozen=True, slots=True)
class SettlementOrder:
    """A day to settle (ISO 8601; None: the day before this one, UTC), from `stage` and `cursor` on."""

    day: str | None = None
    stage: str | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class TokenProvisioning:
    """`verification` is started as soon as the token can be used."""

    token_id: str
    verification: CardVerification | None = None


@dataclass(frozen=True, slots=True)
class CardVerification:
    """A card to be verified for no money. `credential` was issued when the request came in, if it could be."""

    verification_id: str
    account_id: str
    user_id: str
    payment_method_id: str
    token_id: str
    currency: Currency
    merchant: Merchant
    requested_at: datetime
    credential: SealedCredential | None = None


@dataclass(frozen=True, slots=True)
class CardRemoval:
    """A card that its user, or the account, does not want any more."""

    payment_method_id: str
    token_id: str


@dataclass(frozen=True, slots=True)
class BankAccountRemoval:
    """A bank account that its user, or the account, does not want any more."""

    payment_method_id: str
    bank_account_id: str


@dataclass(frozen=True, slots=True)
class CardRenewal:
    """A card that was issued anew under its number, with a later expiry."""

    payment_method_id: str
    token_id: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """An operator asks for another try of a parked step, e.g. `network.reverse` (None: of all)."""

    operator: str
    step: str | None = None


class Resolution(StrEnum):
    """What an operator knows by other means of a step that the platform cannot finish."""

    REVERSED = "reversed"
    AUTHORIZED = "authorized"
    ACKNOWLEDGED = "acknowledged"
    # Who bears a break of the settlement: we do, the merchant does, or the network with its next clearing.
    WRITE_OFF = "write_off"
    MERCHANT = "merchant"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class ResolveRequest:
    """One of the two people who force a step's outcome: the first proposes, another one confirms with the same."""

    operator: str
    step: str
    outcome: Resolution
    reason: str


@dataclass(frozen=True, slots=True)
class ResolveResult:
    """`applied` is False while the second person's word is awaited."""

    applied: bool
