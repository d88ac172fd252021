"""The vault's credentials at the issuer: the HSM's cryptograms hold there, and only as they were made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest_asyncio

from domain.ids import effect_key, new_id
from domain.network import AuthorizeCommand, ProvisionCommand
from domain.outcomes import Approved, Declined
from embedded.softhsm import HsmToken
from network.gateway import NetworkGateway
from tests.integration.network.rig import IMK_AC, MERCHANT, Rig, usd
from vault.cards import NewCard
from vault.credentials import IssueCredential
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.keys import create_keys
from vault.service import Vault


@pytest_asyncio.fixture
async def vault(rig: Rig, hsm_token: HsmToken) -> AsyncIterator[Vault]:
    provider = Pkcs11Provider(hsm_token.module, hsm_token.label, hsm_token.pin)
    create_keys(provider, IMK_AC)
    vault = Vault(rig.engine, rig.redis, provider, rig.sealer)
    yield vault
    vault.close()
    provider.close()


async def provisioned(vault: Vault, gateway: NetworkGateway, rig: Rig, number: str, owner: str) -> str:
    card = NewCard(number, 12, 2035, cvc="7373" if number.startswith("3") else "737")
    token = await vault.tokenize(card, owner)
    await gateway.provision(
        ProvisionCommand(rig.key("provision"), token.token_id, await vault.provisioning_box(token.token_id))
    )
    await vault.activate(token.token_id)
    return token.token_id


async def command(vault: Vault, token_id: str, owner: str, amount_minor: int) -> AuthorizeCommand:
    payment_id = new_id("pay")
    key = effect_key(payment_id, "authorize")
    credential = await vault.issue_credential(
        IssueCredential(token_id, owner, key, usd(amount_minor), "840", datetime.now(UTC).date())
    )
    return AuthorizeCommand(key, payment_id, usd(amount_minor), MERCHANT, credential)


async def test_the_issuer_accepts_the_vaults_cryptograms(rig: Rig, vault: Vault) -> None:
    gateway, owner = await rig.gateway(), new_id("usr")
    for number in ("4242424242424242", "5555555555554444", "378282246310005"):
        token_id = await provisioned(vault, gateway, rig, number, owner)
        for amount_minor in (1, 1050, 99_999_999):
            outcome = await gateway.authorize(await command(vault, token_id, owner, amount_minor))
            assert isinstance(outcome, Approved), number


async def test_the_issuer_declines_a_cryptogram_for_another_amount(rig: Rig, vault: Vault) -> None:
    gateway, owner = await rig.gateway(), new_id("usr")
    token_id = await provisioned(vault, gateway, rig, "4242424242424242", owner)
    honest = await command(vault, token_id, owner, 1050)
    outcome = await gateway.authorize(replace(honest, money=usd(105_000)))
    assert isinstance(outcome, Declined)
    assert outcome.response_code == "82"
