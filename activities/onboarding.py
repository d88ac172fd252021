"""Knowing the customer and forgetting them: cases, checks and closures on their own queue, keys on the vault's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from temporalio import activity

from activities import contracts
from activities.contracts import (
    CardRef,
    DestroyedKey,
    IdentityCheck,
    KeyLoan,
    Rescreened,
    RescreeningPage,
    UserRef,
    UserTokens,
)
from activities.errors import translated
from documents.evidence import file_key, manifest_key
from documents.storage import DocumentStorage
from domain.closure import Closed, CloseOrder, ClosureOrder, Erased, EraseOrder, Obstacles
from domain.ids import onboarding_document_key
from domain.onboarding import Checked, OnboardingChange
from onboarding.cases import Borrower, Cases
from onboarding.closures import Closures
from onboarding.provider import IdentityProvider
from vault.bank_accounts import BankAccountVault
from vault.lifecycle import TokenReason
from vault.personal_keys import PersonalKeys
from vault.service import Vault

# Tells the case of a user that there is another list. One that is closed needs to know no more.
Tell = Callable[[str, str], Awaitable[None]]
# Tells the case of a user that the wallet is closed.
End = Callable[[str], Awaitable[None]]

_PAGE = 200


class OnboardingActivities(contracts.OnboardingActivities):
    def __init__(self, cases: Cases, borrower: Borrower, provider: IdentityProvider, tell: Tell) -> None:
        self._cases = cases
        self._borrower = borrower
        self._provider = provider
        self._tell = tell

    @activity.defn(name="onboarding.record")
    async def record(self, change: OnboardingChange) -> None:
        with translated():
            await self._cases.record(change)

    @activity.defn(name="onboarding.check")
    async def check(self, order: IdentityCheck) -> Checked:
        with translated():
            key = await self._borrower.take(order.handle)
            details = await self._cases.details(order.user_id, key)
            return await self._provider.check(details, datetime.now(UTC).date())

    @activity.defn(name="onboarding.rescreen")
    async def rescreen(self, page: RescreeningPage) -> Rescreened:
        """A signal that is sent twice changes nothing: the second finds the user screened."""
        version = page.list_version or self._provider.list_version
        with translated():
            users = await self._cases.screened_before(version, page.after, _PAGE)
        for user_id in users:
            await self._tell(user_id, version)
        return Rescreened(version, len(users), users[-1] if len(users) == _PAGE else None)


class ClosureActivities(contracts.ClosureActivities):
    def __init__(self, closures: Closures, documents: DocumentStorage, end: End) -> None:
        self._closures = closures
        self._documents = documents
        self._end = end

    @activity.defn(name="closure.begin")
    async def begin(self, order: ClosureOrder) -> None:
        with translated():
            await self._closures.begin(order)

    @activity.defn(name="closure.obstacles")
    async def obstacles(self, user: UserRef) -> Obstacles:
        with translated():
            return await self._closures.obstacles(user.user_id)

    @activity.defn(name="closure.withdraw")
    async def withdraw(self, user: UserRef) -> None:
        with translated():
            await self._closures.withdraw(user.user_id)

    @activity.defn(name="closure.shut")
    async def shut(self, user: UserRef) -> UserTokens:
        with translated():
            await self._closures.shut(user.user_id)
            bank_accounts = await self._closures.bank_accounts(user.user_id)
            cards = await self._closures.cards(user.user_id)
            return UserTokens(
                user.user_id, (), tuple(bank_accounts), tuple(CardRef(card.id, card.token_id) for card in cards)
            )

    @activity.defn(name="closure.end_onboarding")
    async def end_onboarding(self, user: UserRef) -> None:
        await self._end(user.user_id)

    @activity.defn(name="closure.close")
    async def close(self, order: CloseOrder) -> Closed:
        with translated():
            return await self._closures.close(order)

    @activity.defn(name="closure.erase")
    async def erase(self, order: EraseOrder) -> Erased:
        """The files first: the certificate says that they are gone."""
        with translated():
            for document_id in await self._closures.documents(order.user_id):
                await self._documents.delete(onboarding_document_key(order.user_id, document_id))
            for dispute in await self._closures.evidence(order.user_id):
                for file_id in dispute.files:
                    await self._documents.delete(file_key(dispute.id, file_id))
                for submission in range(1, dispute.submissions + 1):
                    await self._documents.delete(manifest_key(dispute.id, submission))
            return await self._closures.erase(order)


class PersonalKeyActivities(contracts.PersonalKeyActivities):
    """On the vault's queue: no other worker has the HSM."""

    def __init__(self, keys: PersonalKeys, vault: Vault, bank_accounts: BankAccountVault) -> None:
        self._keys = keys
        self._vault = vault
        self._bank_accounts = bank_accounts

    @activity.defn(name="personal_keys.lend")
    async def lend(self, user: UserRef) -> KeyLoan:
        with translated():
            return KeyLoan(await self._keys.lend(user.user_id))

    @activity.defn(name="personal_keys.retire")
    async def retire(self, user: UserRef) -> None:
        with translated():
            await self._keys.retire(user.user_id)

    @activity.defn(name="personal_keys.destroy")
    async def destroy(self, user: UserRef) -> DestroyedKey:
        with translated():
            return DestroyedKey(await self._keys.destroy(user.user_id))

    @activity.defn(name="vault.remove_tokens")
    async def remove_tokens(self, tokens: UserTokens) -> None:
        with translated():
            for token_id in tokens.token_ids:
                await self._vault.delete(token_id, TokenReason.ACCOUNT_CLOSED)
            for bank_account_id in tokens.bank_account_ids:
                await self._bank_accounts.erase(bank_account_id)
