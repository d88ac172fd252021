"""More money on an authorization that stands, and what becomes of it when either of the two is undone."""

from __future__ import annotations

import asyncio

import pytest

from domain.network import (
    AuthorizeCommand,
    CaptureCommand,
    IncrementCommand,
    RefundCommand,
    ReverseCommand,
)
from domain.outcomes import Approved, AuthorizationOutcome, Declined, NeverSent, Reversed, Unknown
from network.errors import AdviceRefused, EffectKeyReused, OriginalUnknown
from network.gateway import NetworkGateway
from network.simulator import SimulatorServer
from tests.integration.network.rig import (
    Rig,
    ScriptedHost,
    approve,
    eventually,
    journaled,
    until_reachable,
    until_sent,
    usd,
)

INCREMENT_DECLINED = "4000990000100002"


def more(rig: Rig, original: AuthorizeCommand, amount_minor: int) -> IncrementCommand:
    return IncrementCommand(rig.key("increment"), original.effect_key, original.payment_id, usd(amount_minor))


def capture(rig: Rig, original: AuthorizeCommand, amount_minor: int, *, final: bool = True) -> CaptureCommand:
    return CaptureCommand(rig.key("capture"), original.effect_key, usd(amount_minor), final=final)


async def authorized(rig: Rig, gateway: NetworkGateway, pan: str = "4242424242424242") -> AuthorizeCommand:
    command = await rig.command(await rig.token(gateway, pan), 1000)
    assert isinstance(await gateway.authorize(command), Approved)
    return command


async def standing(simulator: SimulatorServer) -> tuple[str, int, int]:
    [entry] = (await simulator.journal())["authorizations"]
    return entry["state"], entry["amount_minor"] + entry["incremented_minor"], entry["captured_minor"]


def refused(outcome: AuthorizationOutcome) -> str:
    assert isinstance(outcome, Declined)
    return outcome.response_code


async def test_an_increment_raises_what_can_be_captured(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    original = await authorized(rig, gateway)
    with pytest.raises(AdviceRefused):
        await gateway.capture(capture(rig, original, 1500))
    command = more(rig, original, 500)
    outcome = await gateway.increment(command)
    assert isinstance(outcome, Approved)
    assert outcome.amount_minor == 500
    assert await gateway.increment(command) == outcome
    assert await standing(simulator) == ("approved", 1500, 0)
    await gateway.capture(capture(rig, original, 1500))
    assert await standing(simulator) == ("captured", 1500, 1500)
    refund = RefundCommand(rig.key("refund"), original.effect_key, original.payment_id, usd(1500))
    assert isinstance(await gateway.refund(refund), Approved)


async def test_an_increment_is_the_same_purchase_with_the_same_card_and_no_cryptogram(rig: Rig) -> None:
    async with ScriptedHost(lambda message: [approve(message)]) as host:
        gateway = await rig.gateway(port=host.port)
        original = await rig.command(rig.new_dpan())
        first = await gateway.authorize(original)
        assert isinstance(first, Approved)
        second = await gateway.increment(more(rig, original, 500))
        assert isinstance(second, Approved)
        asked, increment = host.of_type("0100")
        for number in (2, 14, 18, 22, 37, 41, 42, 43, 49):
            assert increment.get(number) == asked.get(number)
        assert (increment.get(4), increment.get(63)) == ("000000000500", "03043900")
        assert increment.get(90)[:10] == f"0100{first.stan}"
        assert 55 not in increment.fields
        assert (second.rrn, second.stan) != (first.rrn, first.stan)
        assert await gateway.rrns(original.payment_id) == [first.rrn]


async def test_reversing_the_authorization_releases_its_increments(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    original = await authorized(rig, gateway)
    commands = [more(rig, original, amount) for amount in (300, 200)]
    for command in commands:
        assert isinstance(await gateway.increment(command), Approved)
    assert isinstance(await gateway.reverse(ReverseCommand(rig.key("reverse"), original.effect_key)), Reversed)
    assert (await standing(simulator))[0] == "reversed"
    assert [entry["state"] for entry in (await simulator.journal())["increments"]] == ["reversed", "reversed"]
    # What was released with its authorization is released: asking for it by itself changes nothing.
    undone = await gateway.reverse(ReverseCommand(rig.key("reverse"), commands[0].effect_key))
    assert isinstance(undone, Reversed)
    assert refused(await gateway.increment(more(rig, original, 1))) == "12"


async def test_an_increment_is_reversed_by_itself_as_long_as_nothing_was_captured(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    original = await authorized(rig, gateway)
    first, second = more(rig, original, 300), more(rig, original, 200)
    await gateway.increment(first)
    await gateway.increment(second)
    assert isinstance(await gateway.reverse(ReverseCommand(rig.key("reverse"), first.effect_key)), Reversed)
    assert await standing(simulator) == ("approved", 1200, 0)
    await gateway.capture(capture(rig, original, 1100, final=False))
    with pytest.raises(AdviceRefused) as error:
        await gateway.reverse(ReverseCommand(rig.key("reverse"), second.effect_key))
    assert error.value.response_code == "21"
    assert await standing(simulator) == ("captured", 1200, 1100)


async def test_an_increment_in_doubt_is_reversed_without_its_authorization(
    rig: Rig, simulator: SimulatorServer
) -> None:
    patient, impatient = await rig.gateway(), await rig.impatient()
    original = await authorized(rig, patient)
    command = more(rig, original, 500)
    simulator.faults.drop_answers = 1
    outcome = await until_sent(impatient.increment, command)
    assert isinstance(outcome, Unknown)
    assert await standing(simulator) == ("approved", 1500, 0)
    reversal = ReverseCommand(rig.key("reverse"), command.effect_key)
    assert isinstance(await until_reachable(impatient.reverse, reversal), Reversed)
    assert await patient.increment(command) == outcome
    assert await standing(simulator) == ("approved", 1000, 0)
    await patient.capture(capture(rig, original, 1000))


async def test_a_late_approval_of_an_increment_is_reported_and_never_applied(
    rig: Rig, simulator: SimulatorServer
) -> None:
    patient, impatient = await rig.gateway(), await rig.impatient()
    original = await authorized(rig, patient)
    command = more(rig, original, 500)
    simulator.faults.delay_seconds = 1.0
    assert isinstance(await until_sent(impatient.increment, command), Unknown)

    async def reported() -> bool:
        return [late.effect_key for late in rig.late_answers] == [command.effect_key]

    await eventually(reported, "the late answer")
    [late] = rig.late_answers
    assert (late.payment_id, late.response_code) == (original.payment_id, "00")
    assert (await journaled(rig.engine, command.effect_key))["state"] == "unanswered"


async def test_an_increment_that_was_never_sent_leaves_nothing(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    original = await authorized(rig, gateway)
    command = more(rig, original, 500)
    assert await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key)) == NeverSent()
    assert await standing(simulator) == ("approved", 1000, 0)


async def test_an_issuer_may_decline_the_increment_alone(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    original = await authorized(rig, gateway, INCREMENT_DECLINED)
    assert refused(await gateway.increment(more(rig, original, 500))) == "51"
    assert await standing(simulator) == ("approved", 1000, 0)


async def test_only_a_live_authorization_can_be_raised(rig: Rig) -> None:
    gateway = await rig.gateway()
    taken = await authorized(rig, gateway)
    await gateway.capture(capture(rig, taken, 400, final=False))
    assert isinstance(await gateway.increment(more(rig, taken, 1)), Approved)
    await gateway.capture(capture(rig, taken, 600))
    assert refused(await gateway.increment(more(rig, taken, 1))) == "12"
    declined = await rig.command(await rig.token(gateway, "4000000000000002"))
    await gateway.authorize(declined)
    assert refused(await gateway.increment(more(rig, declined, 1))) == "12"
    with pytest.raises(OriginalUnknown):
        await gateway.increment(IncrementCommand(rig.key("increment"), rig.key("authorize"), "pay_1", usd(1)))


async def test_an_increments_key_stands_for_one_amount(rig: Rig) -> None:
    gateway = await rig.gateway()
    original = await authorized(rig, gateway)
    command = more(rig, original, 500)
    await gateway.increment(command)
    other = IncrementCommand(command.effect_key, original.effect_key, original.payment_id, usd(501))
    with pytest.raises(EffectKeyReused):
        await gateway.increment(other)


async def test_increments_that_race_a_void_leave_nothing_standing(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    original = await authorized(rig, gateway)
    raised = [gateway.increment(more(rig, original, 100)) for _ in range(10)]
    outcomes = await asyncio.gather(
        *raised[:5], gateway.reverse(ReverseCommand(rig.key("reverse"), original.effect_key)), *raised[5:]
    )
    assert isinstance(outcomes[5], Reversed)
    journal = await simulator.journal()
    assert [entry["state"] for entry in journal["authorizations"]] == ["reversed"]
    assert {entry["state"] for entry in journal["increments"]} <= {"reversed", "declined"}
