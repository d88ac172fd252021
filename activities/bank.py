"""The bank zone: the only workers that open account numbers, and speak to the bank."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities import contracts
from activities.errors import translated
from bank import store
from bank.gateway import BankGateway
from domain.micro_deposits import (
    BankAccountRef,
    BankDayReport,
    BeginRefusal,
    Begun,
    ConfirmAttempt,
    ConfirmVerdict,
    DepositReturned,
    DepositsPosted,
    InquiryOutcome,
    MicroDepositChange,
    MicroDepositEvent,
    MicroDepositOrder,
    NotReceived,
    OriginateCommand,
    Originated,
    OriginationRefused,
    OriginationUnknown,
    SealedBankAccount,
)
from ledger.micro_deposits import DepositEntry, MicroDepositBooks
from store.closing import refused_to_closing_user
from vault.bank_accounts import BankAccountVault


class DepositWorkflows(Protocol):
    """The workflows that hear of what the bank has said, and of accounts that were removed."""

    async def tell(self, news: DepositsPosted | DepositReturned) -> bool:
        """Tells a verification's workflow of its entries; False if it runs no more."""

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
        if entry.kind == "return":
            await self._books.post_returned(DepositEntry(entry.micro_deposit_id, entry.part, entry.amount_minor))
            await self._workflows.tell(DepositReturned(entry.micro_deposit_id, entry.reason_code, entry.settled_on))
        async with self._engine.begin() as connection:
            await store.return_told(connection, entry)


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

    @activity.defn(name="vault.erase_bank_account")
    async def erase_bank_account(self, account: BankAccountRef) -> None:
        with translated():
            await self._vault.erase(account.bank_account_id)
