"""What a partly captured authorization has left is freed at the network, and nothing that was captured is."""

from __future__ import annotations

import pytest

from domain.network import AuthorizeCommand, CaptureCommand, RefundCommand, ReleaseCommand
from domain.outcomes import Approved
from network.errors import AdviceRefused, EffectKeyReused, NotAcknowledged, OriginalUnknown
from network.gateway import NetworkGateway
from network.simulator import SimulatorServer
from tests.integration.network.rig import Rig, ScriptedHost, approve, usd

AUTHORIZED_MINOR = 1000


async def partly_captured(rig: Rig, gateway: NetworkGateway, captured_minor: int) -> AuthorizeCommand:
    command = await rig.command(await rig.token(gateway, "4242424242424242"), AUTHORIZED_MINOR)
    assert isinstance(await gateway.authorize(command), Approved)
    await gateway.capture(capture(rig, command, captured_minor))
    return command


def capture(rig: Rig, original: AuthorizeCommand, amount_minor: int) -> CaptureCommand:
    return CaptureCommand(rig.key("capture"), original.effect_key, usd(amount_minor), final=False)


def release(rig: Rig, original: AuthorizeCommand, captured_minor: int) -> ReleaseCommand:
    return ReleaseCommand(rig.key("release"), original.effect_key, usd(captured_minor))


async def state_of(simulator: SimulatorServer) -> tuple[str, int]:
    [entry] = (await simulator.journal())["authorizations"]
    return entry["state"], entry["captured_minor"]


async def test_after_its_release_an_authorization_takes_no_capture_and_its_captures_stand(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    original = await partly_captured(rig, gateway, 400)
    command = release(rig, original, 400)
    first = await gateway.release(command)
    assert await gateway.release(command) == first
    assert await state_of(simulator) == ("captured", 400)
    with pytest.raises(AdviceRefused):
        await gateway.capture(capture(rig, original, 1))
    refund = RefundCommand(rig.key("refund"), original.effect_key, original.payment_id, usd(400))
    assert isinstance(await gateway.refund(refund), Approved)


async def test_a_release_that_disagrees_about_what_was_captured_is_refused(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    original = await partly_captured(rig, gateway, 400)
    with pytest.raises(AdviceRefused):
        await gateway.release(release(rig, original, 399))
    await gateway.capture(capture(rig, original, 600))
    assert await state_of(simulator) == ("captured", AUTHORIZED_MINOR)


async def test_a_release_names_what_was_authorized_and_what_stays_and_is_repeated_as_itself(rig: Rig) -> None:
    silent = True

    async with ScriptedHost(lambda message: [] if silent and message.mti == "0420" else [approve(message)]) as host:
        gateway = await rig.gateway(answer_timeout_seconds=0.7, port=host.port)
        original = await rig.command(rig.new_dpan(), AUTHORIZED_MINOR)
        answer = await gateway.authorize(original)
        assert isinstance(answer, Approved)
        await gateway.capture(capture(rig, original, 400))
        command = release(rig, original, 400)
        with pytest.raises(NotAcknowledged):
            await gateway.release(command)
        silent = False
        await gateway.release(command)
        [first], [repeat] = host.of_type("0420"), host.of_type("0421")
        assert (first.get(4), first.get(95)[:12]) == ("000000001000", "000000000400")
        assert first.get(90)[:10] == f"0100{answer.stan}"
        assert {number: first.fields[number] for number in (4, 7, 11, 32, 37, 90, 95)} == {
            number: repeat.fields[number] for number in (4, 7, 11, 32, 37, 90, 95)
        }


async def test_a_release_is_one_effect_of_an_authorization_that_was_sent(rig: Rig) -> None:
    gateway = await rig.gateway()
    original = await partly_captured(rig, gateway, 400)
    command = release(rig, original, 400)
    await gateway.release(command)
    with pytest.raises(EffectKeyReused):
        await gateway.release(ReleaseCommand(command.effect_key, original.effect_key, usd(500)))
    with pytest.raises(OriginalUnknown):
        await gateway.release(ReleaseCommand(rig.key("release"), rig.key("authorize"), usd(1)))
