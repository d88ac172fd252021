"""The bank zone: the only workers that open account numbers, and speak to the bank."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities import contracts
from activities.errors import translated
from bank import store
from bank.gateway import BankGateway
from domain.micro_deposits import (
    ENDED,
    BankAccountRef,
    BankCorrection,
    BankDayReport,
    BankReturn,
    BeginRefusal,
    Begun,
    ConfirmAttempt,
    ConfirmVerdict,
    CorrectedAccount,
    CorrectionOutcome,
    CorrectionRecord,
    DepositReturned,
    DepositsPosted,
    InquiryOutcome,
    MicroDepositChange,
    MicroDepositEvent,
    MicroDepositOrder,
    MicroDepositStatus,
    NotReceived,
    OriginateCommand,
    Originated,
    OriginationRefused,
    OriginationUnknown,
    ReturnDecision,
    ReturnEffect,
    SealedBankAccount,
    TakenBack,
)
from ledger.micro_deposits import DepositEntry, MicroDepositBooks, UnmatchedReturn
from store.closing import refused_to_closing_user
from store.payment_methods import correct_bank_account
from vault.bank_accounts import BankAccountVault


class DepositWorkflows(Protocol):
    """The workflows that hear of what the bank has said, and of accounts that were removed."""

    async def tell(self, news: DepositsPosted | DepositReturned) -> bool:
        """Tells a verification's workflow of its entries; False if it runs no more."""

    async def begin(self, entry: BankReturn) -> None:
        """Starts the workflow of an entry that no verification takes; once, however often it is called."""

    async def account_removed(self, micro_deposit_id: str) -> None:
        """Returns when the verification has ended, because its account was removed or otherwise."""


class BankActivities(contracts.BankActivities):
    def __init__(
        self, engine: AsyncEngine, gateway: BankGateway, books: MicroDepositBooks, workflows: DepositWorkflows
    ) -> None:
        self._engine = engine
        self._gateway = gateway
        self._books = books
        self._workflows = workflows

    @activity.defn(name="bank.begin")
    async def begin(self, order: MicroDepositOrder) -> Begun:
        with translated():
            try:
                async with self._engine.begin() as connection:
                    return Begun(await store.begin(connection, order))
            except IntegrityError as error:
                if refused_to_closing_user(error):
                    return Begun(BeginRefusal.USER_CLOSED)
                raise

    @activity.defn(name="bank.originate")
    async def originate(self, command: OriginateCommand) -> Originated | OriginationRefused | OriginationUnknown:
        with translated():
            return await self._gateway.originate(command)

    @activity.defn(name="bank.inquire")
    async def inquire(self, command: OriginateCommand) -> Originated | OriginationRefused | NotReceived:
        with translated():
            outcome: InquiryOutcome = await self._gateway.inquire(command)
            return outcome

    @activity.defn(name="bank.record")
    async def record(self, change: MicroDepositChange) -> None:
        """The ledger first: posting it again is the same, and a recorded origination is always in the books."""
        with translated():
            if change.event is MicroDepositEvent.ORIGINATED:
                async with self._engine.connect() as connection:
                    chosen = await store.amounts(connection, change.micro_deposit_id)
                await self._books.post_originated(_entries(change.micro_deposit_id, chosen))
            async with self._engine.begin() as connection:
                await store.record(connection, change)

    @activity.defn(name="bank.confirm")
    async def confirm(self, attempt: ConfirmAttempt) -> ConfirmVerdict:
        with translated():
            return await self._gateway.confirm(attempt)

    @activity.defn(name="bank.end_verification")
    async def end_verification(self, method: contracts.PaymentMethodRef) -> None:
        with translated():
            async with self._engine.connect() as connection:
                running = await store.open_verification(connection, method.payment_method_id)
            if running is not None:
                await self._workflows.account_removed(running)

    @activity.defn(name="bank.read_day")
    async def read_day(self) -> BankDayReport:
        """What the bank has posted and returned since it was asked last. Whom it concerns is told before it counts as
        told, so a crash tells it twice and loses nothing."""
        with translated():
            postings = await self._gateway.postings()
            for posting in postings:
                await self._workflows.tell(DepositsPosted(posting.micro_deposit_id, posting.day))
                async with self._engine.begin() as connection:
                    await store.posting_told(connection, posting.file_id)
            returns = await self._gateway.returns()
            for entry in returns:
                await self._returned(entry)
        return BankDayReport(len(postings), len(returns))

    async def _returned(self, entry: store.ReturnedEntry) -> None:
        """The ledger first. A verification that runs is told until it shows that it has heard; all else has a workflow
        of its own."""
        news = entry.news
        if news.kind == "return":
            await self._post(entry)
            if await self._is_heard(entry):
                return
        if entry.status is not MicroDepositStatus.RETURNED or news.kind == "change":
            await self._workflows.begin(news)
        async with self._engine.begin() as connection:
            await store.return_told(connection, news)

    async def _post(self, entry: store.ReturnedEntry) -> None:
        news = entry.news
        if news.micro_deposit_id is not None and entry.part is not None:
            await self._books.post_returned(DepositEntry(news.micro_deposit_id, entry.part, news.amount_minor))
        elif (unmatched := _unmatched(news)) is not None:
            await self._books.post_unmatched(unmatched)

    async def _is_heard(self, entry: store.ReturnedEntry) -> bool:
        news = entry.news
        running = entry.status is not None and (
            entry.status not in ENDED or entry.status is MicroDepositStatus.VERIFIED
        )
        if news.micro_deposit_id is None or not running:
            return False
        return await self._workflows.tell(DepositReturned(news.micro_deposit_id, news.reason_code, news.day))

    @activity.defn(name="bank.take_back")
    async def take_back(self, entry: BankReturn) -> TakenBack:
        """What a return does that comes after its verification has ended. Decided once."""
        assert entry.micro_deposit_id is not None
        with translated():
            async with self._engine.connect() as connection:
                known = await store.effect_of(connection, entry)
                found = await store.revocable(connection, entry.micro_deposit_id)
            if known is not None:
                return TakenBack(known)
            holds = found.verified_by
            if holds is not None and await self._workflows.tell(DepositReturned(holds, entry.reason_code, entry.day)):
                effect = ReturnEffect.PASSED_ON
                async with self._engine.begin() as connection:
                    await store.decide_return(connection, entry, effect, holds)
                return TakenBack(effect)
            async with self._engine.begin() as connection:
                found = await store.revocable(connection, entry.micro_deposit_id)
                revoked = await store.revoke(connection, entry, found, datetime.now(UTC))
                effect = ReturnEffect.REVOKED if revoked else ReturnEffect.NOTHING_TO_REVOKE
                await store.decide_return(connection, entry, effect, found.verified_by)
            return TakenBack(effect)

    @activity.defn(name="bank.record_correction")
    async def record_correction(self, record: CorrectionRecord) -> None:
        account = record.account
        effect = ReturnEffect.NOT_CORRECTED if account is None else ReturnEffect.CORRECTED
        with translated():
            async with self._engine.begin() as connection:
                if account is not None:
                    await store.carry_limits(connection, account)
                    await correct_bank_account(
                        connection,
                        account.bank_account_id,
                        account.routing_number,
                        account.account_type,
                        account.last4,
                    )
                await store.decide_return(connection, record.entry, effect, record.entry.reason_code)

    @activity.defn(name="bank.decide_return")
    async def decide_return(self, decision: ReturnDecision) -> None:
        with translated():
            unmatched = _unmatched(decision.entry)
            if decision.effect is ReturnEffect.WRITTEN_OFF and unmatched is not None:
                await self._books.write_off(unmatched)
            async with self._engine.begin() as connection:
                await store.decide_return(connection, decision.entry, decision.effect)


def _unmatched(entry: BankReturn) -> UnmatchedReturn | None:
    """None if it is not known which way the money went."""
    if entry.transaction_code is None:
        return None
    identifier = f"bank-return:{entry.sequence}:{entry.line}"
    # 26 and 36 are returned debits: what was taken is given back.
    return UnmatchedReturn(identifier, entry.amount_minor, entry.transaction_code in (26, 36))


def _entries(micro_deposit_id: str, chosen: store.Amounts) -> list[DepositEntry]:
    first, second = chosen.first_minor, chosen.second_minor
    return [
        DepositEntry(micro_deposit_id, "credit_1", first),
        DepositEntry(micro_deposit_id, "credit_2", second),
        DepositEntry(micro_deposit_id, "debit", first + second),
    ]


class BankAccountActivities(contracts.BankAccountActivities):
    """The vault's side: only the workers of its queue hold the HSM's PIN."""

    def __init__(self, vault: BankAccountVault) -> None:
        self._vault = vault

    @activity.defn(name="vault.bank_account_box")
    async def bank_account_box(self, account: BankAccountRef) -> SealedBankAccount:
        with translated():
            return SealedBankAccount(await self._vault.box(account.bank_account_id))

    @activity.defn(name="vault.correct_bank_account")
    async def correct_bank_account(self, correction: BankCorrection) -> CorrectionOutcome:
        with translated():
            corrected = await self._vault.correct(
                correction.bank_account_id,
                correction.correction_id,
                correction.change_code,
                correction.sealed_correction,
            )
        if corrected is None:
            return CorrectionOutcome()
        kept = corrected.account
        return CorrectionOutcome(
            CorrectedAccount(
                kept.id, corrected.old_reference, kept.reference, kept.routing_number, kept.account_type, kept.last4
            )
        )

    @activity.defn(name="vault.erase_bank_account")
    async def erase_bank_account(self, account: BankAccountRef) -> None:
        with translated():
            await self._vault.erase(account.bank_account_id)
