"""The composition root: settings in, workers out. Each queue reads only the settings of its own trust zone."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, ScheduleCalendarSpec, ScheduleIntervalSpec, ScheduleRange, ScheduleSpec
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from activities.bank import BankAccountActivities, BankActivities
from activities.consistency import ConsistencyActivities
from activities.direct import DirectActivities, DirectAnswers, DirectLine
from activities.disputes import DisputeActivities
from activities.ledger import LedgerActivities
from activities.network import NetworkActivities
from activities.notify import NotifyActivities
from activities.onboarding import ClosureActivities, OnboardingActivities, PersonalKeyActivities
from activities.payment_methods import PaymentMethodActivities
from activities.payments import PaymentActivities
from activities.settlement import SettlementActivities, Tell
from activities.step_up import StepUpActivities
from activities.vault import VaultActivities
from bank.client import BankClient
from bank.files import Originator
from bank.gateway import BankGateway
from config.crash_points import armed_crash_points
from config.settings import (
    BankSealingSettings,
    BankSettings,
    ClearingSettings,
    ContactCodeSettings,
    CorrectionSealingSettings,
    CorrectionSettings,
    DatabaseSettings,
    DisputeSettings,
    DocumentSettings,
    FraudSettings,
    HsmSettings,
    LedgerSettings,
    LendingSettings,
    NetworkSettings,
    NotifySettings,
    OnboardingSettings,
    PasskeySettings,
    RedisSettings,
    SealingSettings,
    StepUpSettings,
    TemporalSettings,
    UnsealingSettings,
)
from documents.evidence import EvidenceArchive
from documents.storage import Bucket, DocumentStorage
from domain.clearing import ClearingKind
from domain.contact_codes import ContactCodes
from domain.disputes import ChargebackNotice
from domain.ids import (
    dispute_workflow_id,
    late_notice_workflow_id,
    micro_deposit_workflow_id,
    onboarding_workflow_id,
    payment_workflow_id,
)
from domain.network import AuthorizeCommand, LateAnswer
from domain.step_up import StepUpCodes
from fraud.engine import FraudEngine
from fraud.model import load_model
from identity.relying_party import RelyingParty
from identity.step_up import StepUpJudge
from ledger.books import PaymentBooks
from ledger.dispute_books import DisputeBooks
from ledger.fees import PlatformFee
from ledger.micro_deposits import MicroDepositBooks
from ledger.settlement import SettlementBooks
from network.clearing import ClearingHouse
from network.gateway import NetworkGateway
from network.link import NetworkLink
from notify.channels import Channel
from notify.channels.fcm import FcmChannel
from notify.channels.in_app import InAppChannel
from notify.channels.ses import SesChannel
from notify.channels.twilio_sms import TwilioSmsChannel
from notify.recipients import load_recipient
from notify.relay import Relay
from notify.service import Notifier
from onboarding.cases import Borrower, Cases
from onboarding.closures import Closures
from onboarding.provider import LocalProvider
from onboarding.watch_list import WatchList
from sealing import Sealer, Unsealer
from settlement.store import Cleared
from store.engine import create_engine
from temporal.crash_points import with_crash_points
from temporal.schedules import SCHEDULES, Schedule, ensure_schedules
from temporal.task_queues import TaskQueue
from vault.bank_accounts import BankAccountVault
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.personal_keys import PersonalKeys
from vault.service import Vault
from workers.deposit_workflows import TemporalDepositWorkflows
from workers.registry import activity_worker, payments_worker
from workflows.messages import CaptureCleared, RefundReturned, SettlementOrder
from workflows.onboarding_messages import RescreenRequest

_log = logging.getLogger(__name__)

Opener = Callable[[Client, str, AsyncExitStack], Awaitable[Worker]]


@asynccontextmanager
async def open_worker(queue: TaskQueue, client: Client, temporal: TemporalSettings) -> AsyncIterator[Worker]:
    """The worker of `queue` with all that it needs, closed again at the end."""
    async with AsyncExitStack() as stack:
        yield await _OPENERS[queue](client, temporal.build_id, stack)


def _relying_party() -> RelyingParty:
    settings = PasskeySettings()
    return RelyingParty(settings.rp_id, settings.rp_name, settings.origins)


async def _payments(client: Client, build_id: str, stack: AsyncExitStack) -> Worker:
    engine, redis = _engine(stack), _redis(stack)
    model = load_model(FraudSettings().model_dir)
    codes = StepUpCodes(StepUpSettings().secret.get_secret_value())
    books = PaymentBooks(engine, _platform_fee())
    payments = PaymentActivities(FraudEngine(redis, model), books)
    methods = PaymentMethodActivities(engine)
    line = DirectLine(redis, client.data_converter)
    stack.push_async_callback(line.close)
    line.start()
    return payments_worker(
        client,
        [
            payments.open,
            payments.count_decline,
            DirectActivities(line).ask,
            LedgerActivities(books).record,
            StepUpActivities(codes, StepUpJudge(engine, _relying_party())).verify,
            methods.activate,
            methods.open_verification,
            methods.record_verification,
            methods.remove,
            methods.renew,
            methods.remind_of_expiry,
            *_disputes(engine, stack),
        ],
        build_id,
    )


def _platform_fee() -> PlatformFee:
    settings = LedgerSettings()
    return PlatformFee(settings.fee_basis_points, settings.fee_fixed_minor)


def _disputes(engine: AsyncEngine, stack: AsyncExitStack) -> list[Callable[..., Any]]:
    documents = DocumentStorage(Bucket.of(DocumentSettings()))
    stack.push_async_callback(documents.close)
    books = DisputeBooks(engine, DisputeSettings().fees_minor)
    disputes = DisputeActivities(books, EvidenceArchive(engine, documents))
    return [disputes.open, disputes.record, disputes.note, disputes.freeze]


async def _vault(client: Client, build_id: str, stack: AsyncExitStack) -> Worker:
    engine, redis, provider = _engine(stack), _redis(stack), _hsm(stack)
    vault = _open_vault(engine, redis, provider, stack)
    personal_keys = PersonalKeys(engine, redis, provider, Sealer(LendingSettings().public_key.get_secret_value()))
    stack.callback(personal_keys.close)
    bank_sealer = Sealer(BankSealingSettings().public_key.get_secret_value())
    corrections = Unsealer([CorrectionSettings().private_key.get_secret_value()])
    bank_vault = BankAccountVault(engine, provider, bank_sealer, corrections)
    stack.callback(bank_vault.close)
    bank_accounts = BankAccountActivities(bank_vault)
    activities, keys = VaultActivities(vault), PersonalKeyActivities(personal_keys, vault, bank_vault)
    return activity_worker(
        client,
        TaskQueue.VAULT,
        [
            activities.issue_credential,
            activities.provisioning_box,
            activities.activate_token,
            activities.device_box,
            activities.delete_token,
            activities.renew_token,
            keys.lend,
            keys.retire,
            keys.destroy,
            keys.remove_tokens,
            bank_accounts.bank_account_box,
            bank_accounts.correct_bank_account,
            bank_accounts.erase_bank_account,
        ],
        build_id,
    )


def open_vault(engine: AsyncEngine, redis: Redis, stack: AsyncExitStack) -> Vault:
    """The vault of a process that holds the HSM's PIN: the vault worker, and the API, which adds cards."""
    return _open_vault(engine, redis, _hsm(stack), stack)


def _hsm(stack: AsyncExitStack) -> Pkcs11Provider:
    hsm = HsmSettings()
    provider = Pkcs11Provider(hsm.module, hsm.token_label, hsm.pin.get_secret_value(), sessions=hsm.sessions)
    stack.callback(provider.close)
    return provider


def _open_vault(engine: AsyncEngine, redis: Redis, provider: Pkcs11Provider, stack: AsyncExitStack) -> Vault:
    sealer = Sealer(SealingSettings().public_key.get_secret_value())
    vault = Vault(engine, redis, provider, sealer)
    stack.callback(vault.close)
    return vault


async def _network(client: Client, build_id: str, stack: AsyncExitStack) -> Worker:
    settings = NetworkSettings()
    unsealer = Unsealer([UnsealingSettings().private_key.get_secret_value()])
    tls = ssl.create_default_context(cafile=str(settings.tls_ca_file)) if settings.tls_ca_file else None
    link = NetworkLink(settings.host, settings.port, tls=tls, echo_interval_seconds=settings.echo_interval_seconds)
    redis = _redis(stack)
    gateway = NetworkGateway(
        _engine(stack),
        redis,
        unsealer,
        link,
        settings.acquirer_id,
        settings.answer_timeout_seconds,
        _tell_workflow(client),
        _tell_dispute(client),
    )
    stack.push_async_callback(gateway.close)
    await gateway.start()
    authorize = with_crash_points("network.authorize", gateway.authorize, _workflow_of)
    answers = DirectAnswers(redis, client.data_converter, authorize)
    stack.push_async_callback(answers.close)
    answers.start()
    activities = NetworkActivities(gateway)
    return activity_worker(
        client,
        TaskQueue.NETWORK,
        [
            activities.authorize,
            activities.increment,
            activities.verify,
            activities.reverse,
            activities.capture,
            activities.release,
            activities.refund,
            activities.provision,
            activities.deprovision,
            activities.represent,
            activities.accept,
        ],
        build_id,
    )


def _workflow_of(command: AuthorizeCommand) -> str:
    return payment_workflow_id(command.payment_id)


def _tell_workflow(client: Client) -> Callable[[LateAnswer], Awaitable[None]]:
    async def tell(answer: LateAnswer) -> None:
        try:
            await client.get_workflow_handle(payment_workflow_id(answer.payment_id)).signal("late_answer", answer)
        except RPCError as error:
            # A closed payment needs to know no more; the network's journal has the answer.
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    return tell


def _tell_dispute(client: Client) -> Callable[[ChargebackNotice], Awaitable[None]]:
    async def tell(notice: ChargebackNotice) -> None:
        """The first notice of a case starts its workflow, which knows it again as a signal; the others are signals."""
        try:
            await client.start_workflow(
                "dispute",
                notice,
                id=dispute_workflow_id(notice.chargeback_id),
                task_queue=TaskQueue.PAYMENTS,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                start_signal="network_decision",
                start_signal_args=[notice],
            )
        except WorkflowAlreadyStartedError:
            _log.error("case %s is closed, and the network says %s", notice.chargeback_id, notice.stage)
            await _show_late(client, notice)

    return tell


async def _show_late(client: Client, notice: ChargebackNotice) -> None:
    """Has operators see to a notice that comes after its case was closed; one that is told again is the same."""
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await client.start_workflow(
            "dispute-late-notice",
            notice,
            id=late_notice_workflow_id(notice.chargeback_id, notice.kind, notice.stage, notice.issued_at),
            task_queue=TaskQueue.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )


async def _notify(client: Client, build_id: str, stack: AsyncExitStack) -> Worker:
    settings = NotifySettings()
    engine = _engine(stack)
    channels: dict[str, Channel] = {
        "push": FcmChannel(service_account=settings.fcm_service_account_file, endpoint=settings.fcm_endpoint),
        "sms": TwilioSmsChannel(
            account_sid=settings.twilio_account_sid,
            auth_token=settings.twilio_auth_token.get_secret_value(),
            sender=settings.twilio_from,
            endpoint=settings.twilio_endpoint,
        ),
        "email": SesChannel(
            region=settings.ses_region,
            access_key_id=settings.ses_access_key_id,
            secret_access_key=settings.ses_secret_access_key.get_secret_value(),
            sender=settings.ses_sender,
            endpoint=settings.ses_endpoint,
        ),
        "in_app": InAppChannel(engine),
    }
    for channel in channels.values():
        stack.push_async_callback(channel.close)
    codes = StepUpCodes(StepUpSettings().secret.get_secret_value())
    contact_codes = ContactCodes(ContactCodeSettings().secret.get_secret_value())
    notifier = Notifier(engine, channels, load_recipient)
    await stack.enter_async_context(Relay(engine, notifier, contact_codes).running())
    activities = NotifyActivities(notifier, codes)
    return activity_worker(client, TaskQueue.NOTIFY, [activities.deliver], build_id, concurrency=16)


# Half past two, UTC: the network has closed the day before.
_EVERY_NIGHT = Schedule(
    "settlement",
    "settlement",
    (SettlementOrder(),),
    ScheduleSpec(calendars=[ScheduleCalendarSpec(hour=[ScheduleRange(2)], minute=[ScheduleRange(30)])]),
    catchup=timedelta(days=1),
)


async def _settlement(client: Client, build_id: str, stack: AsyncExitStack) -> Worker:
    engine, settings = _engine(stack), ClearingSettings()
    clearing = ClearingHouse(settings.url, settings.token.get_secret_value())
    stack.push_async_callback(clearing.aclose)
    activities = SettlementActivities(engine, SettlementBooks(engine), clearing, _tell_payment(client))
    consistency = ConsistencyActivities(engine, client)
    await ensure_schedules(client, [*SCHEDULES, _EVERY_NIGHT])
    return activity_worker(
        client,
        TaskQueue.SETTLEMENT,
        [
            activities.begin,
            activities.gather_ours,
            activities.gather_theirs,
            activities.match,
            activities.find_missing,
            activities.tell_payments,
            activities.list_breaks,
            activities.pay_out,
            activities.finish,
            activities.check_break,
            activities.resolve_break,
            consistency.close_batches,
            consistency.check,
        ],
        build_id,
    )


# The bank's day is read every hour of it: files of returns come several times on each banking day.
_EVERY_HOUR = Schedule(
    "bank-day", "bank-day", (), ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(hours=1))])
)


def _crash_places() -> Callable[[str, str], None]:
    """Where a file of the bank is, as a crash point: `bank.file.created`, `.sending` and `.answered`."""
    points = armed_crash_points()

    def passing(place: str, micro_deposit_id: str) -> None:
        if points is not None:
            points.reached(f"bank.file.{place}", micro_deposit_workflow_id(micro_deposit_id))

    return passing


async def _bank(client: Client, build_id: str, stack: AsyncExitStack) -> Worker:
    engine, settings = _engine(stack), BankSettings()
    bank = BankClient(settings.url, settings.token.get_secret_value(), settings.answer_timeout_seconds)
    stack.push_async_callback(bank.aclose)
    originator = Originator(settings.routing_number, settings.name, settings.company_id, settings.company_name)
    unsealer = Unsealer([settings.private_key.get_secret_value()])
    corrections = Sealer(CorrectionSealingSettings().public_key.get_secret_value())
    gateway = BankGateway(engine, unsealer, bank, originator, corrections=corrections, passing=_crash_places())
    activities = BankActivities(engine, gateway, MicroDepositBooks(engine), TemporalDepositWorkflows(client))
    await ensure_schedules(client, [_EVERY_HOUR])
    return activity_worker(
        client,
        TaskQueue.BANK,
        [
            activities.begin,
            activities.originate,
            activities.inquire,
            activities.record,
            activities.confirm,
            activities.end_verification,
            activities.take_back,
            activities.record_correction,
            activities.decide_return,
            activities.read_day,
        ],
        build_id,
    )


def _tell_payment(client: Client) -> Tell:
    async def tell(line: Cleared, day: str) -> None:
        handle = client.get_workflow_handle(payment_workflow_id(line.payment_id))
        try:
            match line.kind:
                case ClearingKind.PRESENTMENT:
                    await handle.signal("capture_cleared", CaptureCleared(line.effect_key, line.amount_minor, day))
                case ClearingKind.REFUND_RETURNED:
                    refund_id = line.effect_key.partition(":")[0]
                    await handle.signal("refund_returned", RefundReturned(refund_id, line.reason_code or "unknown"))
                case _:
                    pass  # fees, chargebacks and reversals change nothing of the payment itself
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            _log.warning("%s is closed and does not hear of line %d of %s", line.payment_id, line.line, day)

    return tell


# Lists change by the day; whoever was held against today's is not looked at again.
_RESCREENING = Schedule(
    "onboarding-rescreening",
    "onboarding-rescreening",
    (),
    ScheduleSpec(calendars=[ScheduleCalendarSpec(hour=[ScheduleRange(4)], minute=[ScheduleRange(0)])]),
    catchup=timedelta(days=1),
)


async def _onboarding(client: Client, build_id: str, stack: AsyncExitStack) -> Worker:
    settings, engine = OnboardingSettings(), _engine(stack)
    documents = DocumentStorage(Bucket.of(DocumentSettings()))
    stack.push_async_callback(documents.close)
    borrower = Borrower(_redis(stack), Unsealer([settings.private_key.get_secret_value()]))
    provider = LocalProvider(WatchList.load(settings.watch_list))
    cases = OnboardingActivities(Cases(engine), borrower, provider, _tell_of_list(client))
    closures = ClosureActivities(
        Closures(engine, timedelta(days=settings.retention_days)), documents, _end_onboarding(client)
    )
    await ensure_schedules(client, [_RESCREENING])
    return activity_worker(
        client,
        TaskQueue.ONBOARDING,
        [
            cases.record,
            cases.check,
            cases.rescreen,
            closures.begin,
            closures.obstacles,
            closures.withdraw,
            closures.shut,
            closures.end_onboarding,
            closures.close,
            closures.erase,
        ],
        build_id,
    )


def _tell_of_list(client: Client) -> Callable[[str, str], Awaitable[None]]:
    async def tell(user_id: str, list_version: str) -> None:
        await _signal_onboarding(client, user_id, "rescreen", RescreenRequest(list_version))

    return tell


def _end_onboarding(client: Client) -> Callable[[str], Awaitable[None]]:
    async def end(user_id: str) -> None:
        await _signal_onboarding(client, user_id, "close")

    return end


async def _signal_onboarding(client: Client, user_id: str, signal: str, *args: RescreenRequest) -> None:
    """A case that never was, or has ended, needs to know nothing."""
    try:
        await client.get_workflow_handle(onboarding_workflow_id(user_id)).signal(signal, args=args)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


def _engine(stack: AsyncExitStack) -> AsyncEngine:
    settings = DatabaseSettings()
    engine = create_engine(settings.url.get_secret_value(), pool_size=settings.pool_size)
    stack.push_async_callback(engine.dispose)
    return engine


def _redis(stack: AsyncExitStack) -> Redis:
    redis: Redis = Redis.from_url(RedisSettings().url.get_secret_value())
    stack.push_async_callback(redis.aclose)
    return redis


_OPENERS: dict[TaskQueue, Opener] = {
    TaskQueue.PAYMENTS: _payments,
    TaskQueue.VAULT: _vault,
    TaskQueue.NETWORK: _network,
    TaskQueue.NOTIFY: _notify,
    TaskQueue.SETTLEMENT: _settlement,
    TaskQueue.BANK: _bank,
    TaskQueue.ONBOARDING: _onboarding,
}
