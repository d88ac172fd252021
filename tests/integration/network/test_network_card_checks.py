"""Security codes and billing addresses on their way to the issuer, and what it says of them."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from domain.card_checks import CardChecks, CheckResult
from domain.network import AuthorizeCommand
from domain.outcomes import Approved, Declined
from network import messages
from network.simulator import SimulatorServer
from sealing import AUTHENTICATION_PURPOSE
from tests.integration.network.rig import MERCHANT, Rig, ScriptedHost, approve, journaled, usd

PASS, FAIL, UNAVAILABLE, UNCHECKED = CheckResult
ALL = {"cvv": "123", "address_line1": "1 Märket Street", "postal_code": "94105"}


async def order(rig: Rig, dpan: str, **given: str) -> AuthorizeCommand:
    """A payment whose box has what the payer entered, too."""
    money, key = usd(1050), rig.key("authorize")
    handle = f"authentication/{secrets.token_hex(8)}"
    content = rig.authentication(dpan, money) | given
    await rig.redis.set(handle, rig.sealer.seal(AUTHENTICATION_PURPOSE, content), ex=300)
    return AuthorizeCommand(key, key.partition(":")[0], money, MERCHANT, rig.credential(dpan, handle))


@pytest.mark.parametrize(
    ("pan", "expected"),
    [
        ("4242424242424242", CardChecks(PASS, PASS, PASS)),
        ("4000000000000101", CardChecks(FAIL, PASS, PASS)),
        ("4000000000000010", CardChecks(PASS, FAIL, FAIL)),
        ("4000000000000028", CardChecks(PASS, FAIL, PASS)),
        ("4000000000000036", CardChecks(PASS, PASS, FAIL)),
        ("4000000000000044", CardChecks(PASS, UNAVAILABLE, UNAVAILABLE)),
    ],
)
async def test_the_issuer_says_what_is_right_and_approves_all_the_same(
    rig: Rig, simulator: SimulatorServer, pan: str, expected: CardChecks
) -> None:
    gateway = await rig.gateway()
    command = await order(rig, await rig.token(gateway, pan), **ALL)
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Approved)
    assert outcome.checks == expected
    assert await gateway.authorize(command) == outcome  # as the journal has it
    sale = dataclasses.replace(await order(rig, await rig.token(gateway, pan), **ALL), sale=True)
    sold = await gateway.authorize(sale)
    assert isinstance(sold, Approved)
    assert sold.checks == expected


async def test_only_what_was_sent_is_spoken_of(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    for given, expected in (
        ({}, None),
        ({"cvv": "123"}, CardChecks(cvc=PASS)),
        ({"postal_code": "94105"}, CardChecks(postal_code=PASS)),
        ({"address_line1": "1 Market Street"}, CardChecks(address_line1=PASS)),
    ):
        outcome = await gateway.authorize(await order(rig, await rig.token(gateway), **given))
        assert isinstance(outcome, Approved)
        assert outcome.checks == expected


async def test_a_wrong_code_is_a_decline_that_says_so(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    outcome = await gateway.authorize(await order(rig, await rig.token(gateway, "4000000000000127"), **ALL))
    assert isinstance(outcome, Declined)
    assert (outcome.response_code, outcome.checks) == ("N7", CardChecks(FAIL, PASS, PASS))


async def test_an_issuer_that_is_away_has_checked_nothing(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    outcome = await gateway.authorize(await order(rig, await rig.token(gateway, "4000990000080006"), **ALL))
    assert isinstance(outcome, Declined)
    assert outcome.checks == CardChecks(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE)


async def test_the_address_goes_in_the_networks_alphabet(rig: Rig) -> None:
    async with ScriptedHost(lambda message: [approve(message)]) as host:
        gateway = await rig.gateway(port=host.port)
        await gateway.authorize(await order(rig, rig.new_dpan(), **(ALL | {"address_line1": "1 Märket " + "x" * 60})))
        [asked] = host.of_type("0100")
        street, postal_code = messages.address(asked)
        assert postal_code == "94105"
        assert street is not None
        assert (street[:9], len(street)) == ("1 Market ", 40)
        assert messages.cvv(asked) == "123"


@pytest.mark.parametrize("said", ["nonsense", "0299Y", "02"])
async def test_what_nobody_understands_was_not_said_and_spoils_no_answer(rig: Rig, said: str) -> None:
    async with ScriptedHost(lambda message: [approve(message, de44=said)]) as host:
        gateway = await rig.gateway(port=host.port)
        outcome = await gateway.authorize(await order(rig, rig.new_dpan(), cvv="123"))
        assert isinstance(outcome, Approved)
        assert outcome.checks == CardChecks(cvc=UNAVAILABLE)


async def test_what_was_found_stays_and_neither_code_nor_address_is_kept(
    rig: Rig, simulator: SimulatorServer, tmp_path: Path
) -> None:
    gateway = await rig.gateway()
    given = ALL | {"address_line1": "77 Zanzibar Way", "postal_code": "98765"}
    command = await order(rig, await rig.token(gateway), **given)
    await gateway.authorize(command)
    row = await journaled(rig.engine, command.effect_key)
    assert row["checks"] == {"cvc": "pass", "address_line1": "pass", "postal_code": "pass"}
    assert "Zanzibar" not in str(row)
    assert "98765" not in str(row["acceptor"])
    change = text("UPDATE network.messages SET checks = NULL WHERE effect_key = :key")
    async with rig.engine.connect() as connection:
        with pytest.raises(IntegrityError, match="stays decided"):
            await connection.execute(change, {"key": command.effect_key})
    journals = _journals(tmp_path)
    assert journals
    assert b"Zanzibar" not in journals


def _journals(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("*.sqlite3*"))
