"""A device number that stands for its card no more: nothing is authorized with it, and what was goes on."""

from __future__ import annotations

import secrets

import pytest

from domain.currency import Currency
from domain.network import CaptureCommand, DeprovisionCommand, ReverseCommand, VerifyCommand
from domain.outcomes import Approved, Declined, Reversed
from network import messages
from network.errors import AdviceRefused, EffectKeyReused, NotAcknowledged
from network.simulator import SimulatorServer
from tests.integration.network.rig import MERCHANT, Rig, ScriptedHost, approve, until_sent, usd


def removal(rig: Rig, dpan: str, token_id: str | None = None) -> DeprovisionCommand:
    box = rig.credential(dpan, None).sealed_pan
    return DeprovisionCommand(rig.key("deprovision"), token_id or f"tok_{secrets.token_hex(4)}", box)


async def test_a_removed_device_number_authorizes_nothing(rig: Rig) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    command = removal(rig, dpan)
    first = await gateway.deprovision(command)
    assert await gateway.deprovision(command) == first
    credential = (await rig.command(dpan, 0)).credential
    question = VerifyCommand(rig.key("verify"), "ver_1", Currency.USD, MERCHANT, credential)
    for outcome in (await gateway.authorize(await rig.command(dpan)), await gateway.verify(question)):
        assert isinstance(outcome, Declined)
        assert outcome.response_code == "78"


async def test_what_was_authorized_with_it_is_captured_and_reversed_as_before(rig: Rig) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    kept, undone = await rig.command(dpan), await rig.command(dpan)
    for command in (kept, undone):
        assert isinstance(await gateway.authorize(command), Approved)
    await gateway.deprovision(removal(rig, dpan))
    await gateway.capture(CaptureCommand(rig.key("capture"), kept.effect_key, usd(1050)))
    assert isinstance(await gateway.reverse(ReverseCommand(rig.key("reverse"), undone.effect_key)), Reversed)


async def test_it_comes_back_for_no_card(rig: Rig) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    await gateway.deprovision(removal(rig, dpan))
    with pytest.raises(AdviceRefused):
        await gateway.provision(rig.provision_command("4242424242424242", dpan))


async def test_an_unknown_device_number_is_not_removed(rig: Rig) -> None:
    gateway = await rig.gateway()
    with pytest.raises(AdviceRefused):
        await gateway.deprovision(removal(rig, rig.new_dpan()))


async def test_it_is_repeated_until_it_is_acknowledged(rig: Rig, simulator: SimulatorServer) -> None:
    patient, impatient = await rig.gateway(), await rig.impatient()
    command = removal(rig, await rig.token(patient))
    simulator.faults.drop_answers = 1
    with pytest.raises(NotAcknowledged):
        await until_sent(impatient.deprovision, command)
    await patient.deprovision(command)


async def test_it_says_on_the_wire_what_it_is_and_names_no_card_number(rig: Rig) -> None:
    async with ScriptedHost(lambda message: [approve(message)]) as host:
        gateway = await rig.gateway(port=host.port)
        await gateway.deprovision(removal(rig, rig.new_dpan()))
        [told] = host.of_type("0620")
        assert messages.is_deprovisioning(told)
        assert (told.get(123), 4 in told.fields, 55 in told.fields) == ("0201D", False, False)


async def test_a_key_removes_one_token(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = removal(rig, await rig.token(gateway), "tok_1")
    await gateway.deprovision(command)
    with pytest.raises(EffectKeyReused):
        await gateway.deprovision(DeprovisionCommand(command.effect_key, "tok_2", command.sealed_pan))
