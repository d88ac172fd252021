"""Asking about a card for no money."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from domain.currency import Currency
from domain.network import AuthorizeCommand, ReverseCommand, VerifyCommand
from domain.outcomes import Approved, Declined, DoubtReason, Unknown
from network import messages
from network.errors import EffectKeyReused, OriginalUnknown
from network.simulator import SimulatorServer
from tests.integration.network.rig import MERCHANT, Rig, ScriptedHost, approve, eventually, journaled, until_sent, usd


async def question(rig: Rig, dpan: str) -> VerifyCommand:
    key = f"pm_{secrets.token_hex(8)}:verify:1"
    credential = (await rig.command(dpan, 0)).credential
    return VerifyCommand(key, key.partition(":")[0], Currency.USD, MERCHANT, credential)


@pytest.mark.parametrize(
    ("pan", "response_code"),
    [
        ("4242424242424242", "00"),
        ("4000000000000002", "05"),
        ("4000000000000069", "54"),
        ("4000000000000127", "N7"),
    ],
)
async def test_a_verification_is_answered_as_a_payment_with_the_card_would_be(
    rig: Rig, simulator: SimulatorServer, pan: str, response_code: str
) -> None:
    gateway = await rig.gateway()
    command = await question(rig, await rig.token(gateway, pan))
    outcome = await gateway.verify(command)
    assert isinstance(outcome, Approved if response_code == "00" else Declined)
    assert await gateway.verify(command) == outcome
    journal = await simulator.journal()
    assert [(entry["amount_minor"], entry["response_code"]) for entry in journal["verifications"]] == [
        (0, response_code)
    ]
    assert journal["authorizations"] == []


async def test_a_verification_says_on_the_wire_that_it_is_one(rig: Rig) -> None:
    async with ScriptedHost(lambda message: [approve(message)]) as host:
        gateway = await rig.gateway(port=host.port)
        outcome = await gateway.verify(await question(rig, rig.new_dpan()))
        assert isinstance(outcome, Approved)
        assert outcome.amount_minor == 0
        [asked] = host.of_type("0100")
        assert (asked.get(3), asked.get(4), asked.get(25), 55 in asked.fields) == ("000000", "0" * 12, "51", True)
        assert messages.is_verification(asked)


async def test_its_cryptogram_serves_nothing_else(rig: Rig) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    command = await question(rig, dpan)
    payment = AuthorizeCommand(rig.key("authorize"), "pay_1", usd(1050), MERCHANT, command.credential)
    declined = await gateway.authorize(payment)
    assert isinstance(declined, Declined)
    assert declined.response_code == "82"


async def test_a_lost_answer_is_unknown_and_the_question_is_asked_anew(rig: Rig, simulator: SimulatorServer) -> None:
    patient, impatient = await rig.gateway(), await rig.impatient()
    dpan = await rig.token(patient)
    command = await question(rig, dpan)
    simulator.faults.drop_answers = 1
    outcome = await until_sent(impatient.verify, command)
    assert isinstance(outcome, Unknown)
    assert outcome.reason is DoubtReason.TIMEOUT
    with pytest.raises(OriginalUnknown):
        await patient.reverse(ReverseCommand(rig.key("reverse"), command.effect_key))
    assert isinstance(await patient.verify(await question(rig, dpan)), Approved)


async def test_a_late_answer_to_a_verification_is_kept_and_told_to_nobody(rig: Rig, simulator: SimulatorServer) -> None:
    patient, impatient = await rig.gateway(), await rig.impatient()
    command = await question(rig, await rig.token(patient))
    simulator.faults.delay_seconds = 1.0
    assert isinstance(await until_sent(impatient.verify, command), Unknown)

    async def recorded() -> bool:
        return bool((await journaled(rig.engine, command.effect_key))["late_response_code"] == "00")

    await eventually(recorded, "the late answer in the journal")
    simulator.reset_faults()
    await impatient.close()
    await rig.gateway()
    assert rig.late_answers == []


async def test_a_key_asks_about_one_card_in_one_currency(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = await question(rig, await rig.token(gateway))
    await gateway.verify(command)
    with pytest.raises(EffectKeyReused):
        await gateway.verify(replace(command, currency=Currency.EUR))


async def test_an_authorization_of_nothing_is_refused_by_the_host(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    for sale in (False, True):
        outcome = await gateway.authorize(replace(await rig.command(dpan, 0), sale=sale))
        assert isinstance(outcome, Declined)
        assert outcome.response_code == "13"
