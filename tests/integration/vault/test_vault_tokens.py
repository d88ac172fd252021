"""Cards become tokens: once per owner, encrypted, with a life cycle that the database keeps too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError as ConstraintViolated
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.cards import card_brand, luhn_check_digit, luhn_valid
from domain.errors import NotFound
from domain.ids import USER, new_id
from sealing import PAN_PURPOSE, PROVISIONING_PURPOSE, Sealer, Unsealer
from store.engine import create_engine
from vault.cards import NewCard
from vault.errors import InvalidCard, TokenRangeFull, TokenUnusable, VaultUnavailable
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.hsm.provider import IntegrityError
from vault.lifecycle import TokenReason, TokenStatus
from vault.service import Vault

VISA = NewCard("4242424242424242", 12, 2035)


async def _row(engine: AsyncEngine, token_id: str) -> dict[str, object]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT * FROM vault.tokens WHERE token_id = :id"), {"id": token_id})
        return dict(rows.mappings().one())


async def _execute(engine: AsyncEngine, statement: str, token_id: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement), {"id": token_id})


async def test_a_card_becomes_an_inactive_token_that_shows_bin_and_last_four(vault: Vault) -> None:
    token = await vault.tokenize(NewCard("5555555555554444", 3, 2034), new_id(USER))
    assert (token.brand, token.bin, token.last4) == ("mastercard", "555555", "4444")
    assert (token.exp_month, token.exp_year, token.status, token.created) == (3, 2034, TokenStatus.INACTIVE, True)


async def test_the_network_worker_alone_learns_which_card_a_device_number_stands_for(
    vault: Vault, unsealer: Unsealer
) -> None:
    token = await vault.tokenize(VISA, new_id(USER))
    content = unsealer.open(PROVISIONING_PURPOSE, await vault.provisioning_box(token.token_id))
    assert set(content) == {"dpan", "pan", "exp"}
    assert (content["pan"], content["exp"]) == (VISA.number, "3512")
    assert content["dpan"] != VISA.number
    assert luhn_valid(content["dpan"])
    assert card_brand(content["dpan"]) == "visa"


async def test_twenty_callers_adding_one_card_get_one_token(vault: Vault, engine: AsyncEngine) -> None:
    owner = new_id(USER)
    tokens = await asyncio.gather(*(vault.tokenize(VISA, owner) for _ in range(20)))
    assert len({token.token_id for token in tokens}) == 1
    assert sum(token.created for token in tokens) == 1
    async with engine.connect() as connection:
        count = await connection.scalar(text("SELECT count(*) FROM vault.tokens WHERE owner_id = :id"), {"id": owner})
    assert count == 1


async def test_two_owners_of_one_card_get_two_tokens_and_device_numbers_but_one_reference(
    vault: Vault, engine: AsyncEngine, unsealer: Unsealer
) -> None:
    first = await vault.tokenize(VISA, new_id(USER))
    second = await vault.tokenize(VISA, new_id(USER))
    boxes = [await vault.provisioning_box(token.token_id) for token in (first, second)]
    dpans = {unsealer.open(PROVISIONING_PURPOSE, box)["dpan"] for box in boxes}
    assert len(dpans) == 2
    statement = """SELECT DISTINCT par FROM vault.pans JOIN vault.tokens USING (fingerprint_version, fingerprint)
        WHERE token_id IN (:first, :second)"""
    async with engine.connect() as connection:
        pars = (await connection.scalars(text(statement), {"first": first.token_id, "second": second.token_id})).all()
    assert len(pars) == 1
    assert len(pars[0]) == 29


async def test_a_corrected_expiry_reaches_a_token_that_the_network_does_not_know_yet(vault: Vault) -> None:
    owner = new_id(USER)
    token = await vault.tokenize(NewCard(VISA.number, 11, 2033), owner)
    corrected = await vault.tokenize(NewCard(VISA.number, 12, 2034), owner)
    assert (corrected.token_id, corrected.exp_month, corrected.exp_year) == (token.token_id, 12, 2034)
    await vault.activate(token.token_id)
    later = await vault.tokenize(NewCard(VISA.number, 1, 2039), owner)
    assert (later.exp_month, later.exp_year, later.status) == (12, 2034, TokenStatus.ACTIVE)


async def test_a_deleted_card_can_be_added_again_under_a_new_token(vault: Vault) -> None:
    owner = new_id(USER)
    first = await vault.tokenize(VISA, owner)
    await vault.delete(first.token_id, TokenReason.CONSUMER_DELETED)
    second = await vault.tokenize(VISA, owner)
    assert second.created
    assert second.token_id != first.token_id


async def test_a_device_number_is_not_accepted_as_a_card(vault: Vault, unsealer: Unsealer) -> None:
    token = await vault.tokenize(VISA, new_id(USER))
    dpan = unsealer.open(PROVISIONING_PURPOSE, await vault.provisioning_box(token.token_id))["dpan"]
    with pytest.raises(InvalidCard) as refused:
        await vault.tokenize(NewCard(dpan, 12, 2035), new_id(USER))
    assert (refused.value.param, refused.value.code) == ("number", "incorrect_number")


async def test_an_invalid_card_leaves_no_trace(vault: Vault, engine: AsyncEngine) -> None:
    owner = new_id(USER)
    with pytest.raises(InvalidCard):
        await vault.tokenize(NewCard("4242424242424241", 12, 2035, "123"), owner)
    async with engine.connect() as connection:
        count = await connection.scalar(text("SELECT count(*) FROM vault.tokens WHERE owner_id = :id"), {"id": owner})
    assert count == 0


async def test_a_full_token_range_is_a_named_error(
    engine: AsyncEngine, redis: Redis, provider: Pkcs11Provider, sealer: Sealer
) -> None:
    # Fourteen digits fixed leave ten numbers.
    vault = Vault(engine, redis, provider, sealer, token_ranges={"visa": ("48953799123456",)})
    try:
        owners = [new_id(USER) for _ in range(11)]
        numbers = [f"400000000000{n:03}" for n in range(11)]
        cards = [NewCard(number + luhn_check_digit(number), 12, 2035) for number in numbers]

        async def add_all() -> None:
            for owner, card in zip(owners, cards, strict=True):
                await vault.tokenize(card, owner)

        with pytest.raises(TokenRangeFull):
            await add_all()
        async with engine.connect() as connection:
            statement = text("SELECT count(*) FROM vault.tokens WHERE owner_id = ANY(:owners)")
            count = await connection.scalar(statement, {"owners": owners})
    finally:
        vault.close()
    assert count is not None
    assert 1 <= count <= 10


async def test_the_life_cycle_is_kept_and_repeats_change_nothing(vault: Vault, engine: AsyncEngine) -> None:
    token_id = (await vault.tokenize(VISA, new_id(USER))).token_id
    with pytest.raises(TokenUnusable) as refused:
        await vault.suspend(token_id, TokenReason.LOST)
    assert refused.value.code == "token_inactive"
    for _ in range(2):
        await vault.activate(token_id)
    for _ in range(2):
        await vault.suspend(token_id, TokenReason.LOST)
    row = await _row(engine, token_id)
    assert (row["state"], row["state_reason"]) == ("suspended", "lost")
    with pytest.raises(TokenUnusable) as refused:
        await vault.activate(token_id)
    assert refused.value.code == "token_suspended"
    for _ in range(2):
        await vault.resume(token_id, TokenReason.FOUND)
    for _ in range(2):
        await vault.delete(token_id, TokenReason.STOLEN)
    for change in (vault.activate(token_id), vault.suspend(token_id, TokenReason.LOST), vault.resume(token_id)):
        with pytest.raises(TokenUnusable) as refused:
            await change
        assert refused.value.code == "token_deleted"
    with pytest.raises(TokenUnusable):
        await vault.provisioning_box(token_id)
    row = await _row(engine, token_id)
    assert row["pan_ciphertext"] is row["dpan_ciphertext"] is None


async def test_an_unknown_token_is_not_found(vault: Vault) -> None:
    for call in (
        vault.activate("tok_none"),
        vault.suspend("tok_none", TokenReason.LOST),
        vault.resume("tok_none"),
        vault.delete("tok_none", TokenReason.OTHER),
        vault.provisioning_box("tok_none"),
    ):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vault.tokens SET state = 'suspended' WHERE token_id = :id",
        "UPDATE vault.tokens SET atc = atc + 1 WHERE token_id = :id",
        "UPDATE vault.tokens SET owner_id = 'usr_other' WHERE token_id = :id",
        "UPDATE vault.tokens SET last4 = '0000' WHERE token_id = :id",
        "UPDATE vault.tokens SET state = 'deleted' WHERE token_id = :id",
        "UPDATE vault.tokens SET pan_ciphertext = NULL WHERE token_id = :id",
        "DELETE FROM vault.tokens WHERE token_id = :id",
    ],
)
async def test_the_database_refuses_what_wrong_code_might_do(vault: Vault, engine: AsyncEngine, change: str) -> None:
    token_id = (await vault.tokenize(VISA, new_id(USER))).token_id
    with pytest.raises(ConstraintViolated):
        await _execute(engine, change, token_id)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vault.tokens SET atc = atc - 1 WHERE token_id = :id",
        "UPDATE vault.tokens SET atc = atc + 2 WHERE token_id = :id",
        "UPDATE vault.tokens SET exp_year = exp_year - 1 WHERE token_id = :id",
        "UPDATE vault.tokens SET state = 'inactive' WHERE token_id = :id",
    ],
)
async def test_the_database_keeps_an_active_token_on_its_way(vault: Vault, engine: AsyncEngine, change: str) -> None:
    token_id = (await vault.tokenize(VISA, new_id(USER))).token_id
    await vault.activate(token_id)
    await _execute(engine, "UPDATE vault.tokens SET atc = atc + 1 WHERE token_id = :id", token_id)
    with pytest.raises(ConstraintViolated):
        await _execute(engine, change, token_id)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE vault.tokens SET pan_ciphertext = set_byte(pan_ciphertext, 0, get_byte(pan_ciphertext, 0) # 1) "
        "WHERE token_id = :id",
        "UPDATE vault.tokens SET dpan_iv = set_byte(dpan_iv, 3, get_byte(dpan_iv, 3) # 128) WHERE token_id = :id",
        "UPDATE vault.tokens SET pan_iv = dpan_iv, pan_ciphertext = dpan_ciphertext WHERE token_id = :id",
    ],
)
async def test_a_row_that_was_tampered_with_does_not_open(vault: Vault, engine: AsyncEngine, tampering: str) -> None:
    token_id = (await vault.tokenize(VISA, new_id(USER))).token_id
    await _execute(engine, tampering, token_id)
    with pytest.raises(IntegrityError):
        await vault.provisioning_box(token_id)


async def test_a_ciphertext_moved_to_another_owners_row_does_not_open(vault: Vault, engine: AsyncEngine) -> None:
    victim = (await vault.tokenize(VISA, new_id(USER))).token_id
    thief = (await vault.tokenize(NewCard("4000000000000002", 12, 2035), new_id(USER))).token_id
    move = """UPDATE vault.tokens AS mine SET pan_iv = theirs.pan_iv, pan_ciphertext = theirs.pan_ciphertext
        FROM vault.tokens AS theirs WHERE mine.token_id = :mine AND theirs.token_id = :theirs"""
    async with engine.begin() as connection:
        await connection.execute(text(move), {"mine": thief, "theirs": victim})
    with pytest.raises(IntegrityError):
        await vault.provisioning_box(thief)


async def test_an_unreachable_database_is_a_named_error(redis: Redis, provider: Pkcs11Provider, sealer: Sealer) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    vault = Vault(nowhere, redis, provider, sealer, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(VaultUnavailable):
        await vault.activate("tok_any")
    vault.close()
    await nowhere.dispose()


async def test_the_box_of_a_device_number_names_it_and_no_card_number(vault: Vault, unsealer: Unsealer) -> None:
    token = await vault.tokenize(VISA, new_id(USER))
    provisioned = unsealer.open(PROVISIONING_PURPOSE, await vault.provisioning_box(token.token_id))
    content = unsealer.open(PAN_PURPOSE, await vault.device_box(token.token_id))
    assert content == {"dpan": provisioned["dpan"], "exp": provisioned["exp"], "psn": "00"}
    await vault.delete(token.token_id, TokenReason.CONSUMER_DELETED)
    with pytest.raises(TokenUnusable):
        await vault.device_box(token.token_id)


async def test_an_active_token_takes_a_later_expiry_and_no_earlier_one(vault: Vault, unsealer: Unsealer) -> None:
    token = await vault.tokenize(VISA, new_id(USER))
    with pytest.raises(TokenUnusable, match="inactive"):
        await vault.renew(token.token_id, 1, 2040)
    await vault.activate(token.token_id)
    for _ in range(2):
        await vault.renew(token.token_id, 1, 2040)
    assert unsealer.open(PROVISIONING_PURPOSE, await vault.provisioning_box(token.token_id))["exp"] == "4001"
    with pytest.raises(TokenUnusable) as refused:
        await vault.renew(token.token_id, 12, 2039)
    assert refused.value.code == "expiry_not_later"
    with pytest.raises(NotFound):
        await vault.renew("tok_absent", 1, 2040)
