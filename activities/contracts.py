"""The activities as workflows see them: names, inputs and results, and nothing that touches the world.

Each class is implemented by its namesake in this package. The names are wire format and are never changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from temporalio import activity

from domain.merchants import Merchant
from domain.money import Money
from domain.network import (
    AuthorizeCommand,
    CaptureCommand,
    ProvisionCommand,
    RefundCommand,
    ReverseCommand,
    SealedCredential,
)
from domain.outcomes import Acknowledged, Approved, Declined, NeverSent, Reversed, Unknown
from domain.records import PaymentChange, PaymentOpening, Recorded
from domain.risk import RiskDecision, RiskRequest


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """A credential for one authorization of `money` by the user's token at `merchant`."""

    effect_key: str
    token_id: str
    user_id: str
    money: Money
    merchant: Merchant
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class StepUpAttempt:
    payment_id: str
    money: Money
    payee: str
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class StepUpVerdict:
    correct: bool


@dataclass(frozen=True, slots=True)
class TokenRef:
    token_id: str


@dataclass(frozen=True, slots=True)
class ProvisioningBox:
    """The box for the network worker in which a token meets its card number."""

    sealed_token: str


@dataclass(frozen=True, slots=True)
class NotificationOrder:
    """Tell the user of something, once per channel. `facts` fill the templates of `kind`.

    For `step_up_code` the activity derives the code itself from `payment_id`, `money` and the payee: a workflow's
    history never holds one.
    """

    key: str
    user_id: str
    kind: str
    payment_id: str
    money: Money
    facts: dict[str, str]


class FraudActivities(Protocol):
    @activity.defn(name="fraud.assess")
    async def assess(self, request: RiskRequest) -> RiskDecision: ...

    @activity.defn(name="fraud.record_decline")
    async def record_decline(self, request: RiskRequest) -> None: ...


class LedgerActivities(Protocol):
    @activity.defn(name="ledger.open_payment")
    async def open_payment(self, opening: PaymentOpening) -> Recorded: ...

    @activity.defn(name="ledger.record")
    async def record(self, change: PaymentChange) -> Recorded: ...


class StepUpActivities(Protocol):
    @activity.defn(name="step_up.verify")
    async def verify(self, attempt: StepUpAttempt) -> StepUpVerdict: ...


class PaymentMethodActivities(Protocol):
    @activity.defn(name="payment_methods.activate")
    async def activate(self, token: TokenRef) -> None: ...


class VaultActivities(Protocol):
    @activity.defn(name="vault.issue_credential")
    async def issue_credential(self, request: CredentialRequest) -> SealedCredential: ...

    @activity.defn(name="vault.provisioning_box")
    async def provisioning_box(self, token: TokenRef) -> ProvisioningBox: ...

    @activity.defn(name="vault.activate_token")
    async def activate_token(self, token: TokenRef) -> None: ...


class NetworkActivities(Protocol):
    @activity.defn(name="network.authorize")
    async def authorize(self, command: AuthorizeCommand) -> Approved | Declined | Unknown: ...

    @activity.defn(name="network.reverse")
    async def reverse(self, command: ReverseCommand) -> Reversed | NeverSent: ...

    @activity.defn(name="network.capture")
    async def capture(self, command: CaptureCommand) -> Acknowledged: ...

    @activity.defn(name="network.refund")
    async def refund(self, command: RefundCommand) -> Approved | Declined | Unknown: ...

    @activity.defn(name="network.provision")
    async def provision(self, command: ProvisionCommand) -> Acknowledged: ...


class NotifyActivities(Protocol):
    @activity.defn(name="notify.deliver")
    async def deliver(self, order: NotificationOrder) -> None: ...
