"""The vault's side of a payment: only the workers of its queue hold the HSM's PIN."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.contracts import (
    CardExpiry,
    CredentialRequest,
    DeviceBox,
    ProvisioningBox,
    TokenRef,
    TokenRenewed,
)
from activities.errors import translated
from domain.network import SealedCredential
from vault.credentials import purchase
from vault.errors import TokenUnusable
from vault.lifecycle import TokenReason
from vault.service import Vault


class VaultActivities(contracts.VaultActivities):
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    @activity.defn(name="vault.issue_credential")
    async def issue_credential(self, request: CredentialRequest) -> SealedCredential:
        command = purchase(
            request.effect_key, request.token_id, request.user_id, request.money, request.merchant, request.requested_at
        )
        with translated():
            return await self._vault.issue_credential(command)

    @activity.defn(name="vault.provisioning_box")
    async def provisioning_box(self, token: TokenRef) -> ProvisioningBox:
        with translated():
            return ProvisioningBox(await self._vault.provisioning_box(token.token_id))

    @activity.defn(name="vault.activate_token")
    async def activate_token(self, token: TokenRef) -> None:
        with translated():
            await self._vault.activate(token.token_id)

    @activity.defn(name="vault.device_box")
    async def device_box(self, token: TokenRef) -> DeviceBox:
        with translated():
            try:
                return DeviceBox(await self._vault.device_box(token.token_id))
            except TokenUnusable:
                return DeviceBox(None)

    @activity.defn(name="vault.delete_token")
    async def delete_token(self, token: TokenRef) -> None:
        with translated():
            await self._vault.delete(token.token_id, TokenReason.CONSUMER_DELETED)

    @activity.defn(name="vault.renew_token")
    async def renew_token(self, expiry: CardExpiry) -> TokenRenewed:
        with translated():
            try:
                await self._vault.renew(expiry.token_id, expiry.exp_month, expiry.exp_year)
            except TokenUnusable:
                return TokenRenewed(renewed=False)
        return TokenRenewed(renewed=True)
