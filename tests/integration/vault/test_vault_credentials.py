"""Tokens become sealed credentials: one transaction counter each, a cryptogram that the issuer can verify, a
security code that is read once, and nothing in clear anywhere."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, date, datetime
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from domain.errors import NotFound
from domain.ids import USER, effect_key, new_id
from domain.money import Money
from domain.network import SealedCredential
from sealing import AUTHENTICATION_PURPOSE, PAN_PURPOSE, PROVISIONING_PURPOSE, SealBroken, Sealer, Unsealer
from tests.integration.vault.conftest import IMK_AC
from vault.cards import NewCard
from vault.credentials import IssueCredential
from vault.errors import TokenUnusable, VaultUnavailable
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.lifecycle import TokenReason
from vault.service import Vault

TODAY = datetime.now(UTC).date()


@pytest.fixture
def owner() -> str:
    return new_id(USER)


@pytest_asyncio.fixture
async def token_id(vault: Vault, owner: str) -> str:
    """An active token without a security code."""
    token = await vault.tokenize(NewCard("4242424242424242", 12, 2035), owner)
    await vault.activate(token.token_id)
    return token.token_id


def _command(token_id: str, owner: str, amount_minor: int = 1050) -> IssueCredential:
    money = Money(amount_minor, Currency.USD)
    return IssueCredential(token_id, owner, effect_key(new_id("pay"), "authorize"), money, "840", TODAY)


async def _authentication(redis: Redis, unsealer: Unsealer, credential: SealedCredential) -> dict[str, str]:
    assert credential.authentication_handle is not None
    box: Any = await redis.get(credential.authentication_handle)
    return unsealer.open(AUTHENTICATION_PURPOSE, box.decode())


async def _counter(engine: AsyncEngine, token_id: str) -> int:
    async with engine.connect() as connection:
        statement = text("SELECT atc FROM vault.tokens WHERE token_id = :id")
        counter: int = (await connection.execute(statement, {"id": token_id})).scalar_one()
    return counter


def _issuers_cryptogram(dpan: str, psn: str, data: bytes, atc: bytes) -> str:
    """CVN 18 as an issuer's host computes it, in software, from the same master key (EMV 4.3 Book 2)."""

    def triple_des(key: bytes, block: bytes) -> bytes:
        return Cipher(TripleDES(key + key[:8]), ECB()).encryptor().update(block)

    def derived(key: bytes, left: bytes, right: bytes) -> bytes:
        return triple_des(key, left) + triple_des(key, right)

    digits = bytes.fromhex((dpan + psn)[-16:])
    card_key = derived(IMK_AC, digits, bytes(byte ^ 0xFF for byte in digits))
    session_key = derived(card_key, atc + b"\xf0" + bytes(5), atc + b"\x0f" + bytes(5))
    padded = data + b"\x80"
    padded += bytes(-len(padded) % 8)
    single = Cipher(TripleDES(session_key[:8] * 3), CBC(bytes(8))).encryptor().update(padded[:-8])
    last = bytes(a ^ b for a, b in zip(single[-8:], padded[-8:], strict=True))
    return triple_des(session_key, last).hex().upper()


async def test_the_issuer_verifies_the_cryptogram_over_the_request(
    vault: Vault, redis: Redis, unsealer: Unsealer, token_id: str, owner: str
) -> None:
    credential = await vault.issue_credential(_command(token_id, owner, 123_456))
    assert credential.token_id == token_id
    card = unsealer.open(PAN_PURPOSE, credential.sealed_pan)
    assert set(card) == {"dpan", "exp", "psn"}
    assert (card["exp"], card["psn"]) == ("3512", "00")
    content = await _authentication(redis, unsealer, credential)
    covered = (
        f"{123_456:012}{content['amount_other']}{content['terminal_country']}{content['tvr']}0840"
        f"{content['transaction_date']}{content['transaction_type']}{content['unpredictable_number']}"
        f"{content['aip']}{content['atc']}{content['iad']}"
    )
    atc = bytes.fromhex(content["atc"])
    assert content["cryptogram"] == _issuers_cryptogram(card["dpan"], card["psn"], bytes.fromhex(covered), atc)
    assert (content["terminal_country"], content["atc"]) == ("0840", "0001")
    assert content["transaction_date"] == f"{TODAY:%y%m%d}"
    assert "cvv" not in content


async def test_the_provisioned_device_number_is_the_one_that_pays(
    vault: Vault, unsealer: Unsealer, token_id: str, owner: str
) -> None:
    provisioned = unsealer.open(PROVISIONING_PURPOSE, await vault.provisioning_box(token_id))
    credential = await vault.issue_credential(_command(token_id, owner))
    assert unsealer.open(PAN_PURPOSE, credential.sealed_pan)["dpan"] == provisioned["dpan"]


async def test_a_box_opens_for_its_own_purpose_only(
    vault: Vault, redis: Redis, unsealer: Unsealer, token_id: str, owner: str
) -> None:
    credential = await vault.issue_credential(_command(token_id, owner))
    with pytest.raises(SealBroken):
        unsealer.open(AUTHENTICATION_PURPOSE, credential.sealed_pan)


async def test_fifty_concurrent_credentials_have_fifty_counters_without_gaps(
    vault: Vault, redis: Redis, unsealer: Unsealer, engine: AsyncEngine, token_id: str, owner: str
) -> None:
    commands = [_command(token_id, owner) for _ in range(50)]
    credentials = await asyncio.gather(*(vault.issue_credential(command) for command in commands))
    contents = [await _authentication(redis, unsealer, credential) for credential in credentials]
    counters = [int(content["atc"], 16) for content in contents]
    assert sorted(counters) == list(range(1, 51))
    assert len({content["cryptogram"] for content in contents}) == 50
    assert len({credential.authentication_handle for credential in credentials}) == 50
    async with engine.connect() as connection:
        statement = text("SELECT atc, effect_key FROM vault.cryptograms WHERE token_id = :id")
        journal = {tuple(row) for row in await connection.execute(statement, {"id": token_id})}
    assert journal == {(counter, command.effect_key) for counter, command in zip(counters, commands, strict=True)}


async def test_counters_rise_with_every_credential(
    vault: Vault, redis: Redis, unsealer: Unsealer, token_id: str, owner: str
) -> None:
    counters = []
    for _ in range(5):
        credential = await vault.issue_credential(_command(token_id, owner))
        counters.append(int((await _authentication(redis, unsealer, credential))["atc"], 16))
    assert counters == [1, 2, 3, 4, 5]


async def test_a_token_that_is_not_active_is_refused_before_its_counter_moves(
    vault: Vault, engine: AsyncEngine, owner: str, token_id: str
) -> None:
    fresh = (await vault.tokenize(NewCard("4000000000000002", 12, 2035), owner)).token_id
    await _assert_refused(vault, engine, fresh, owner, "token_inactive")
    await vault.suspend(token_id, TokenReason.LOST)
    await _assert_refused(vault, engine, token_id, owner, "token_suspended")
    await vault.resume(token_id)
    await vault.issue_credential(_command(token_id, owner))
    await vault.delete(token_id, TokenReason.CONSUMER_DELETED)
    await _assert_refused(vault, engine, token_id, owner, "token_deleted")


async def _assert_refused(vault: Vault, engine: AsyncEngine, token_id: str, owner: str, code: str) -> None:
    before = await _counter(engine, token_id)
    with pytest.raises(TokenUnusable) as refused:
        await vault.issue_credential(_command(token_id, owner))
    assert refused.value.code == code
    assert await _counter(engine, token_id) == before


async def test_another_owners_token_is_not_found(vault: Vault, engine: AsyncEngine, token_id: str) -> None:
    with pytest.raises(NotFound):
        await vault.issue_credential(_command(token_id, new_id(USER)))
    assert await _counter(engine, token_id) == 0


async def test_an_expired_token_is_refused_from_the_first_of_the_next_month(
    engine: AsyncEngine, redis: Redis, provider: Pkcs11Provider, sealer: Sealer, owner: str
) -> None:
    now = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    vault = Vault(engine, redis, provider, sealer, clock=lambda: now)
    try:
        token_id = (await vault.tokenize(NewCard("4242424242424242", 11, 2026), owner)).token_id
        await vault.activate(token_id)
        await vault.issue_credential(_command(token_id, owner))
        now = datetime(2026, 12, 1, tzinfo=UTC)
        await _assert_refused(vault, engine, token_id, owner, "token_expired")
    finally:
        vault.close()


async def test_an_exhausted_counter_is_refused_not_wrapped(
    vault: Vault, engine: AsyncEngine, redis: Redis, unsealer: Unsealer, token_id: str, owner: str
) -> None:
    async with engine.begin() as connection:
        # Reaching the end takes 65,535 payments; the trigger that forbids the short cut is set aside for it.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(text("UPDATE vault.tokens SET atc = 65534 WHERE token_id = :id"), {"id": token_id})
    credential = await vault.issue_credential(_command(token_id, owner))
    assert (await _authentication(redis, unsealer, credential))["atc"] == "FFFF"
    await _assert_refused(vault, engine, token_id, owner, "token_exhausted")


async def test_a_security_code_travels_with_one_payment_and_is_gone(
    vault: Vault, redis: Redis, unsealer: Unsealer, owner: str
) -> None:
    token_id = (await vault.tokenize(NewCard("4242424242424242", 12, 2035, "973"), owner)).token_id
    await vault.activate(token_id)
    commands = [_command(token_id, owner) for _ in range(10)]
    credentials = await asyncio.gather(*(vault.issue_credential(command) for command in commands))
    contents = [await _authentication(redis, unsealer, credential) for credential in credentials]
    assert [content["cvv"] for content in contents if "cvv" in content] == ["973"]


async def test_a_refused_credential_uses_up_no_security_code(
    vault: Vault, redis: Redis, unsealer: Unsealer, owner: str
) -> None:
    token_id = (await vault.tokenize(NewCard("4242424242424242", 12, 2035, "973"), owner)).token_id
    with pytest.raises(TokenUnusable):
        await vault.issue_credential(_command(token_id, owner))
    await vault.activate(token_id)
    credential = await vault.issue_credential(_command(token_id, owner))
    assert (await _authentication(redis, unsealer, credential))["cvv"] == "973"


async def test_a_code_entered_again_replaces_the_waiting_one_and_dies_with_its_token(
    vault: Vault, redis: Redis, unsealer: Unsealer, owner: str
) -> None:
    for cvc in ("973", "974"):
        token_id = (await vault.tokenize(NewCard("4242424242424242", 12, 2035, cvc), owner)).token_id
    await vault.activate(token_id)
    credential = await vault.issue_credential(_command(token_id, owner))
    assert (await _authentication(redis, unsealer, credential))["cvv"] == "974"
    await vault.tokenize(NewCard("4242424242424242", 12, 2035, "975"), owner)
    await vault.delete(token_id, TokenReason.CONSUMER_DELETED)
    assert not await redis.keys("vault:cvc:*")


async def test_everything_in_redis_dies_within_minutes(vault: Vault, redis: Redis, owner: str) -> None:
    token_id = (await vault.tokenize(NewCard("4242424242424242", 12, 2035, "973"), owner)).token_id
    await vault.activate(token_id)
    assert 0 < await redis.ttl(f"vault:cvc:{token_id}") <= 900
    credential = await vault.issue_credential(_command(token_id, owner))
    assert 0 < await redis.ttl(str(credential.authentication_handle)) <= 300
    assert await redis.keys("*") == [str(credential.authentication_handle).encode()]


async def test_an_unreachable_cache_is_a_named_error(
    engine: AsyncEngine, provider: Pkcs11Provider, sealer: Sealer, token_id: str, owner: str
) -> None:
    async with Redis.from_url("redis://127.0.0.1:1/0") as nowhere:
        vault = Vault(engine, nowhere, provider, sealer)
        with pytest.raises(VaultUnavailable):
            await vault.issue_credential(_command(token_id, owner))
        vault.close()


def test_a_country_is_three_digits() -> None:
    with pytest.raises(ValueError):
        IssueCredential("tok_x", "usr_x", "k", Money(1, Currency.USD), "US", date(2026, 1, 1))


async def test_no_card_number_device_number_or_code_is_in_database_or_cache(
    vault: Vault, engine: AsyncEngine, redis: Redis, unsealer: Unsealer, owner: str
) -> None:
    # Numbers and a code that no random bytes, ids or other tests bring forth by chance.
    visa = NewCard("4929171890133449", 12, 2035)
    amex = NewCard("371449635398431", 12, 2035, "7319")
    secrets = {visa.number.encode(), amex.number.encode()}
    for new in (visa, amex):
        token_id = (await vault.tokenize(new, owner)).token_id
        box = await vault.provisioning_box(token_id)
        secrets.add(unsealer.open(PROVISIONING_PURPOSE, box)["dpan"].encode())
        await vault.activate(token_id)
        credential = await vault.issue_credential(_command(token_id, owner))
        content = await _authentication(redis, unsealer, credential)
        secrets.add(content["cryptogram"].encode())
        await vault.tokenize(new, owner)
    assert len(secrets) == 6
    needles = secrets | {base64.b64encode(secret).rstrip(b"=") for secret in secrets}
    needles |= {secret.hex().encode() for secret in secrets} | {bytes.fromhex(s.decode().zfill(16)) for s in secrets}

    dumped = await _everything_in_the_schema(engine)
    assert b"3449" in dumped, "the dump shows what may be shown, so it would show the rest"
    assert not [needle for needle in needles if needle in dumped or needle in dumped.hex().encode()]
    for key in await redis.keys("*"):
        value: Any = await redis.get(key)
        decoded = [base64.b64decode(part + b"=" * (-len(part) % 4)) for part in value.split(b".") if len(part) > 1]
        for raw in (key, value, *decoded):
            assert not [needle for needle in needles | {b"7319"} if needle in raw]


async def _everything_in_the_schema(engine: AsyncEngine) -> bytes:
    """Every value of every column, binary ones as they are."""
    dumped = []
    async with engine.connect() as connection:
        names = (await connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'vault'"))).all()
        assert {"pans", "tokens", "cryptograms"} <= set(names)
        for name in names:
            for row in await connection.execute(text(f"SELECT * FROM vault.{name}")):
                dumped += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    return b"\n".join(dumped)
