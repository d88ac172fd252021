"""The activities as workflows see them: names, inputs and results, and nothing that touches the world.

Each class is implemented by its namesake in this package. The names are wire format and are never changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from temporalio import activity

from domain.closure import Closed, CloseOrder, ClosureOrder, Erased, EraseOrder, Obstacles
from domain.dispute_records import DisputeChange, DisputeOpened, DisputeOpening, NoticeRecord
from domain.disputes import AcceptCommand, RepresentCommand
from domain.evidence import FrozenEvidence
from domain.merchants import Merchant
from domain.micro_deposits import (
    BankAccountRef,
    BankCorrection,
    BankDayReport,
    BankReturn,
    Begun,
    ConfirmAttempt,
    ConfirmVerdict,
    CorrectionOutcome,
    CorrectionRecord,
    MicroDepositChange,
    MicroDepositOrder,
    NotReceived,
    OriginateCommand,
    Originated,
    OriginationRefused,
    OriginationUnknown,
    ReturnDecision,
    SealedBankAccount,
    TakenBack,
)
from domain.money import Money
from domain.network import (
    AuthorizeCommand,
    CaptureCommand,
    DeprovisionCommand,
    IncrementCommand,
    ProvisionCommand,
    RefundCommand,
    ReleaseCommand,
    ReverseCommand,
    SealedCredential,
    VerifyCommand,
)
from domain.onboarding import Checked as IdentityChecked
from domain.onboarding import OnboardingChange
from domain.outcomes import Acknowledged, Approved, Declined, NeverSent, Reversed, Unknown
from domain.payments import CaptureMethod
from domain.records import PaymentChange, Recorded
from domain.risk import RiskAction, RiskSignals
from domain.settlement import BreakDecision
from domain.verifications import VerificationOpening, VerificationResult


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


@dataclass(frozen=True, slots=True)
class PaymentOrder:
    """A payment as it was asked for, to be judged and opened. `requested_at` is when the platform accepted it."""

    payment_id: str
    account_id: str
    user_id: str
    payment_method_id: str
    card_bin: str
    money: Money
    merchant: Merchant
    capture_method: CaptureMethod
    requested_at: datetime
    signals: RiskSignals
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class PaymentOpened:
    """What stands in the books of an opening: the fraud decision, and the hold, if one was made.

    The feature values that decided stay in the database (`platform.risk_decisions`).
    """

    action: RiskAction
    reasons: tuple[str, ...]
    standing_hold: str | None


class PaymentActivities(Protocol):
    @activity.defn(name="payments.open")
    async def open(self, order: PaymentOrder) -> PaymentOpened: ...

    @activity.defn(name="payments.count_decline")
    async def count_decline(self, order: PaymentOrder) -> None: ...


class LedgerActivities(Protocol):
    @activity.defn(name="ledger.record")
    async def record(self, change: PaymentChange) -> Recorded: ...


@dataclass(frozen=True, slots=True)
class FreezeOrder:
    """Keep what a dispute's answer consists of. `submission` counts its answers."""

    dispute_id: str
    submission: int


class DisputeActivities(Protocol):
    @activity.defn(name="disputes.open")
    async def open(self, opening: DisputeOpening) -> DisputeOpened: ...

    @activity.defn(name="disputes.record")
    async def record(self, change: DisputeChange) -> None: ...

    @activity.defn(name="disputes.note")
    async def note(self, record: NoticeRecord) -> None: ...

    @activity.defn(name="documents.freeze")
    async def freeze(self, order: FreezeOrder) -> FrozenEvidence: ...


class StepUpActivities(Protocol):
    @activity.defn(name="step_up.verify")
    async def verify(self, attempt: StepUpAttempt) -> StepUpVerdict: ...


@dataclass(frozen=True, slots=True)
class PaymentMethodRef:
    payment_method_id: str


@dataclass(frozen=True, slots=True)
class DeviceBox:
    """The box for the network worker that names a device number. None: the token is deleted, and its number erased."""

    sealed_pan: str | None


@dataclass(frozen=True, slots=True)
class CardExpiry:
    """The later expiry with which a card was issued anew."""

    payment_method_id: str
    token_id: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True)
class TokenRenewed:
    """`renewed` is False when the token cannot have that expiry: it was removed, or has a later one."""

    renewed: bool


class PaymentMethodActivities(Protocol):
    @activity.defn(name="payment_methods.activate")
    async def activate(self, token: TokenRef) -> None: ...

    @activity.defn(name="card_verifications.open")
    async def open_verification(self, opening: VerificationOpening) -> None: ...

    @activity.defn(name="card_verifications.record")
    async def record_verification(self, result: VerificationResult) -> None: ...

    @activity.defn(name="payment_methods.remove")
    async def remove(self, method: PaymentMethodRef) -> None: ...

    @activity.defn(name="payment_methods.renew")
    async def renew(self, expiry: CardExpiry) -> None: ...

    @activity.defn(name="payment_methods.remind_of_expiry")
    async def remind_of_expiry(self) -> None: ...


class VaultActivities(Protocol):
    @activity.defn(name="vault.issue_credential")
    async def issue_credential(self, request: CredentialRequest) -> SealedCredential: ...

    @activity.defn(name="vault.provisioning_box")
    async def provisioning_box(self, token: TokenRef) -> ProvisioningBox: ...

    @activity.defn(name="vault.activate_token")
    async def activate_token(self, token: TokenRef) -> None: ...

    @activity.defn(name="vault.device_box")
    async def device_box(self, token: TokenRef) -> DeviceBox: ...

    @activity.defn(name="vault.delete_token")
    async def delete_token(self, token: TokenRef) -> None: ...

    @activity.defn(name="vault.renew_token")
    async def renew_token(self, expiry: CardExpiry) -> TokenRenewed: ...


@dataclass(frozen=True, slots=True)
class DirectOutcome:
    """What the network decided at once; None: not known yet, `network.authorize` finds it out."""

    outcome: Approved | Declined | Unknown | None


class DirectActivities(Protocol):
    @activity.defn(name="network.ask")
    async def ask(self, command: AuthorizeCommand) -> DirectOutcome: ...


class NetworkActivities(Protocol):
    @activity.defn(name="network.authorize")
    async def authorize(self, command: AuthorizeCommand) -> Approved | Declined | Unknown: ...

    @activity.defn(name="network.increment")
    async def increment(self, command: IncrementCommand) -> Approved | Declined | Unknown: ...

    @activity.defn(name="network.verify")
    async def verify(self, command: VerifyCommand) -> Approved | Declined | Unknown: ...

    @activity.defn(name="network.reverse")
    async def reverse(self, command: ReverseCommand) -> Reversed | NeverSent: ...

    @activity.defn(name="network.capture")
    async def capture(self, command: CaptureCommand) -> Acknowledged: ...

    @activity.defn(name="network.release")
    async def release(self, command: ReleaseCommand) -> Acknowledged: ...

    @activity.defn(name="network.refund")
    async def refund(self, command: RefundCommand) -> Approved | Declined | Unknown: ...

    @activity.defn(name="network.provision")
    async def provision(self, command: ProvisionCommand) -> Acknowledged: ...

    @activity.defn(name="network.deprovision")
    async def deprovision(self, command: DeprovisionCommand) -> Acknowledged: ...

    @activity.defn(name="network.represent")
    async def represent(self, command: RepresentCommand) -> Acknowledged: ...

    @activity.defn(name="network.accept")
    async def accept(self, command: AcceptCommand) -> Acknowledged: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a day's settlement (`day`: ISO 8601), from `cursor` on (None: from its beginning)."""

    day: str
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class BreakRef:
    break_id: str


@dataclass(frozen=True, slots=True)
class OpenBreak:
    """A difference that somebody has to look at. `has_merchant` says whether a merchant can bear it."""

    break_id: str
    summary: str
    at_risk_minor: int
    has_merchant: bool


@dataclass(frozen=True, slots=True)
class StageDone:
    """`cursor` is None when the stage is done. `breaks` are the open breaks that it came across."""

    cursor: str | None = None
    breaks: tuple[OpenBreak, ...] = ()


@dataclass(frozen=True, slots=True)
class SettlementReport:
    """A day in figures: the file's records, how many were found to be what, breaks and payouts.

    `payouts_waiting` were begun on this day or before it, for more than the merchants are owed by now.
    """

    day: str
    file_id: str
    records: int
    verdicts: dict[str, int]
    breaks: int
    open_breaks: int
    payouts: int
    payouts_waiting: int = 0


class SettlementActivities(Protocol):
    @activity.defn(name="settlement.begin")
    async def begin(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.gather_ours")
    async def gather_ours(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.gather_theirs")
    async def gather_theirs(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.match")
    async def match(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.find_missing")
    async def find_missing(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.tell_payments")
    async def tell_payments(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.list_breaks")
    async def list_breaks(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.pay_out")
    async def pay_out(self, stage: Stage) -> StageDone: ...

    @activity.defn(name="settlement.finish")
    async def finish(self, stage: Stage) -> SettlementReport: ...

    @activity.defn(name="settlement.check_break")
    async def check_break(self, found: BreakRef) -> None: ...

    @activity.defn(name="settlement.resolve_break")
    async def resolve_break(self, decision: BreakDecision) -> None: ...


@dataclass(frozen=True, slots=True)
class Checked:
    """How many invariants were looked at, and hold."""

    invariants: int


class ConsistencyActivities(Protocol):
    @activity.defn(name="ledger.close_batches")
    async def close_batches(self) -> None: ...

    @activity.defn(name="invariants.check")
    async def check(self) -> Checked: ...


class BankActivities(Protocol):
    @activity.defn(name="bank.begin")
    async def begin(self, order: MicroDepositOrder) -> Begun: ...

    @activity.defn(name="bank.originate")
    async def originate(self, command: OriginateCommand) -> Originated | OriginationRefused | OriginationUnknown: ...

    @activity.defn(name="bank.inquire")
    async def inquire(self, command: OriginateCommand) -> Originated | OriginationRefused | NotReceived: ...

    @activity.defn(name="bank.record")
    async def record(self, change: MicroDepositChange) -> None: ...

    @activity.defn(name="bank.confirm")
    async def confirm(self, attempt: ConfirmAttempt) -> ConfirmVerdict: ...

    @activity.defn(name="bank.take_back")
    async def take_back(self, entry: BankReturn) -> TakenBack: ...

    @activity.defn(name="bank.record_correction")
    async def record_correction(self, record: CorrectionRecord) -> None: ...

    @activity.defn(name="bank.decide_return")
    async def decide_return(self, decision: ReturnDecision) -> None: ...

    @activity.defn(name="bank.end_verification")
    async def end_verification(self, method: PaymentMethodRef) -> None: ...

    @activity.defn(name="bank.read_day")
    async def read_day(self) -> BankDayReport: ...


class BankAccountActivities(Protocol):
    @activity.defn(name="vault.bank_account_box")
    async def bank_account_box(self, account: BankAccountRef) -> SealedBankAccount: ...

    @activity.defn(name="vault.correct_bank_account")
    async def correct_bank_account(self, correction: BankCorrection) -> CorrectionOutcome: ...

    @activity.defn(name="vault.erase_bank_account")
    async def erase_bank_account(self, account: BankAccountRef) -> None: ...


class NotifyActivities(Protocol):
    @activity.defn(name="notify.deliver")
    async def deliver(self, order: NotificationOrder) -> None: ...


@dataclass(frozen=True, slots=True)
class UserRef:
    user_id: str


@dataclass(frozen=True, slots=True)
class KeyLoan:
    """Where the onboarding worker finds a user's key for some minutes."""

    handle: str


@dataclass(frozen=True, slots=True)
class DestroyedKey:
    """`key_id` None: the user never had one."""

    key_id: str | None


@dataclass(frozen=True, slots=True)
class CardRef:
    payment_method_id: str
    token_id: str


@dataclass(frozen=True, slots=True)
class UserTokens:
    """What the vault keeps for a user. `cards` are still to be removed, each by its own workflow; `token_ids` are of
    cards whose records were removed without the network's being told (closures of before), `bank_account_ids` of bank
    accounts.
    """

    user_id: str
    token_ids: tuple[str, ...]
    bank_account_ids: tuple[str, ...] = ()
    cards: tuple[CardRef, ...] = ()


class PersonalKeyActivities(Protocol):
    @activity.defn(name="personal_keys.lend")
    async def lend(self, user: UserRef) -> KeyLoan: ...

    @activity.defn(name="personal_keys.retire")
    async def retire(self, user: UserRef) -> None: ...

    @activity.defn(name="personal_keys.destroy")
    async def destroy(self, user: UserRef) -> DestroyedKey: ...

    @activity.defn(name="vault.remove_tokens")
    async def remove_tokens(self, tokens: UserTokens) -> None: ...


@dataclass(frozen=True, slots=True)
class IdentityCheck:
    """Check what the user said last, with the key that lies under `handle`."""

    user_id: str
    handle: str


@dataclass(frozen=True, slots=True)
class RescreeningPage:
    """From behind the user `after` on. `list_version` None is the one of today."""

    after: str = ""
    list_version: str | None = None


@dataclass(frozen=True, slots=True)
class Rescreened:
    """How many users were asked for; `after` is where the next page begins, None after the last one."""

    list_version: str
    users: int
    after: str | None


class OnboardingActivities(Protocol):
    @activity.defn(name="onboarding.record")
    async def record(self, change: OnboardingChange) -> None: ...

    @activity.defn(name="onboarding.check")
    async def check(self, order: IdentityCheck) -> IdentityChecked: ...

    @activity.defn(name="onboarding.rescreen")
    async def rescreen(self, page: RescreeningPage) -> Rescreened: ...


class ClosureActivities(Protocol):
    @activity.defn(name="closure.begin")
    async def begin(self, order: ClosureOrder) -> None: ...

    @activity.defn(name="closure.obstacles")
    async def obstacles(self, user: UserRef) -> Obstacles: ...

    @activity.defn(name="closure.withdraw")
    async def withdraw(self, user: UserRef) -> None: ...

    @activity.defn(name="closure.shut")
    async def shut(self, user: UserRef) -> UserTokens: ...

    @activity.defn(name="closure.end_onboarding")
    async def end_onboarding(self, user: UserRef) -> None: ...

    @activity.defn(name="closure.close")
    async def close(self, order: CloseOrder) -> Closed: ...

    @activity.defn(name="closure.erase")
    async def erase(self, order: EraseOrder) -> Erased: ...
