"""The gateway with its journal in PostgreSQL, its credentials in Redis, and the simulator at the other end of TCP."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.network import CaptureCommand, RefundCommand, ReverseCommand
from domain.outcomes import Acknowledged, Approved, Declined, DoubtReason, NeverSent, Reversed, Unknown
from network.errors import (
    AdviceRefused,
    CredentialExpired,
    CredentialUnusable,
    EffectAbandoned,
    EffectKeyReused,
    JournalUnavailable,
    MessageInvalid,
    NotAcknowledged,
    OriginalUnknown,
    Unreachable,
)
from network.simulator import SimulatorServer
from sealing import Sealer
from store.engine import create_engine
from tests.integration.network.rig import (
    MERCHANT,
    PATIENCE_SECONDS,
    Rig,
    ScriptedHost,
    approve,
    closed_port,
    eventually,
    journaled,
    simulator_config,
    until_reachable,
    until_sent,
    usd,
)

TIMEOUT_THEN_APPROVE = "4000990000010003"
TIMEOUT_THEN_DECLINE = "4000990000020002"
LATE_ANSWER = "4000990000030001"
LOST_REVERSAL = "4000990000040000"
DUPLICATE_ANSWER = "4000990000050009"
DROPPED_CONNECTION = "4000990000060008"
WRONG_AMOUNT = "4000990000070007"


async def received(simulator: SimulatorServer, mti: str) -> list[dict[str, Any]]:
    return [message for message in (await simulator.journal())["messages"] if message["mti"] == mti]


async def test_an_authorization_is_approved_and_stored_on_both_sides(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway), 1050)
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Approved)
    assert (outcome.amount_minor, len(outcome.rrn), len(outcome.stan)) == (1050, 12, 6)
    journal = await simulator.journal(outcome.rrn)
    assert [(entry["state"], entry["approval_code"]) for entry in journal["authorizations"]] == [
        ("approved", outcome.approval_code)
    ]
    stored = await journaled(rig.engine, command.effect_key)
    assert (stored["state"], stored["response_code"], stored["attempts"]) == ("answered", "00", 1)
    assert await gateway.rrns(command.payment_id) == [outcome.rrn]


async def test_the_same_command_again_gets_the_stored_outcome_without_a_message(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    first = await gateway.authorize(command)
    simulator.faults.refuse_connections = True
    simulator.disconnect()
    assert await gateway.authorize(command) == first
    assert len(await received(simulator, "0100")) == 1


async def test_the_authentication_data_is_deleted_once_the_authorization_is_answered(rig: Rig, redis: Redis) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    handle = command.credential.authentication_handle
    assert handle is not None
    assert await redis.exists(handle)
    await gateway.authorize(command)
    assert not await redis.exists(handle)


async def test_a_decline_is_a_value_and_stays_one(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway, "4000000000009995"))
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Declined)
    assert outcome.response_code == "51"
    assert await gateway.authorize(command) == outcome


async def test_fifty_callers_of_one_effect_make_one_request(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    outcomes = await asyncio.gather(*(gateway.authorize(command) for _ in range(50)))
    assert len(set(outcomes)) == 1
    assert len(await received(simulator, "0100")) == 1
    assert len(await received(simulator, "0101")) == 0


async def test_two_workers_at_once_make_one_authorization(rig: Rig, simulator: SimulatorServer) -> None:
    gateways = [await rig.gateway(), await rig.gateway()]
    dpan = await rig.token(gateways[0])
    for _ in range(10):
        command = await rig.command(dpan)
        outcomes = await asyncio.gather(*(gateway.authorize(command) for gateway in gateways))
        assert outcomes[0] == outcomes[1]
        assert isinstance(outcomes[0], Approved)
        journal = await simulator.journal(outcomes[0].rrn)
        assert [entry["state"] for entry in journal["authorizations"]] == ["approved"]


async def test_a_hundred_authorizations_share_the_link(rig: Rig) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    commands = [await rig.command(dpan, 100 + number) for number in range(100)]
    outcomes = await asyncio.gather(*(gateway.authorize(command) for command in commands))
    assert [outcome.amount_minor for outcome in outcomes if isinstance(outcome, Approved)] == list(range(100, 200))
    assert len({outcome.stan for outcome in outcomes}) == 100


@pytest.mark.parametrize("pan", [TIMEOUT_THEN_APPROVE, TIMEOUT_THEN_DECLINE])
async def test_a_lost_answer_is_unknown_and_its_reversal_is_acknowledged(
    rig: Rig, simulator: SimulatorServer, pan: str
) -> None:
    gateway = await rig.impatient()
    command = await rig.command(await rig.token(await rig.gateway(), pan))
    outcome = await until_sent(gateway.authorize, command)
    assert isinstance(outcome, Unknown)
    assert outcome.reason is DoubtReason.TIMEOUT
    assert await gateway.authorize(command) == outcome
    reversal = ReverseCommand(rig.key("reverse"), command.effect_key)
    patient = await rig.gateway()
    reversed_ = await patient.reverse(reversal)
    assert isinstance(reversed_, Reversed)
    assert await patient.reverse(reversal) == reversed_
    assert len(await received(simulator, "0420")) == 1
    states = [entry["state"] for entry in (await simulator.journal(outcome.rrn))["authorizations"]]
    assert states == (["reversed"] if pan == TIMEOUT_THEN_APPROVE else ["declined"])


async def test_an_approval_after_the_reversal_is_recorded_reported_and_never_applied(rig: Rig) -> None:
    held: list[bytes] = []

    async with ScriptedHost() as host:

        def script(message: Any) -> list[bytes]:
            if message.mti == "0100":
                held.append(approve(message))
                return []
            return [approve(message)]

        host.script = script
        gateway = await rig.gateway(port=host.port)
        impatient = await rig.impatient(port=host.port)
        command = await rig.command(rig.new_dpan())
        outcome = await until_sent(impatient.authorize, command)
        assert isinstance(outcome, Unknown)
        await impatient.close()
        assert isinstance(await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key)), Reversed)
        host.write(held[0])

        async def reported() -> bool:
            return bool(rig.late_answers)

        await eventually(reported, "the late answer")
        [late] = rig.late_answers
        assert (late.payment_id, late.effect_key) == (command.payment_id, command.effect_key)
        assert (late.response_code, late.stan, late.rrn) == ("00", outcome.stan, outcome.rrn)
        assert await gateway.authorize(command) == outcome
        stored = await journaled(rig.engine, command.effect_key)
        assert (stored["state"], stored["response_code"], stored["late_response_code"]) == ("unanswered", None, "00")
        again = await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key))
        assert isinstance(again, Reversed)
        assert again.late_answer == "00"


async def test_an_answer_to_a_request_whose_reversal_was_decided_meanwhile_does_not_approve_it(rig: Rig) -> None:
    held: list[bytes] = []

    async with ScriptedHost() as host:

        def script(message: Any) -> list[bytes]:
            if message.mti == "0100":
                held.append(approve(message))
                return []
            return [approve(message), held[0]]

        host.script = script
        gateway = await rig.gateway(port=host.port)
        command = await rig.command(rig.new_dpan())
        asking = asyncio.create_task(gateway.authorize(command))

        async def arrived() -> bool:
            return bool(held)

        await eventually(arrived, "the request at the host")
        assert isinstance(await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key)), Reversed)
        assert isinstance(await asking, Unknown)

        async def reported() -> bool:
            return bool(rig.late_answers)

        await eventually(reported, "the late answer")


async def test_the_late_card_is_unknown_then_late_then_reversed(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "late"
    folder.mkdir()
    async with SimulatorServer(simulator_config(folder, late_answer_seconds=1.5)) as simulator:
        gateway = await rig.gateway(answer_timeout_seconds=0.7, port=simulator.port)
        dpan = await rig.token(await rig.gateway(port=simulator.port), LATE_ANSWER)
        outcome = await until_sent(gateway.authorize, await rig.command(dpan))
        assert isinstance(outcome, Unknown)

        async def reported() -> bool:
            return [late.rrn for late in rig.late_answers] == [outcome.rrn]

        await eventually(reported, "the late answer")


async def test_a_late_answer_that_could_not_be_reported_is_reported_by_the_next_process(rig: Rig) -> None:
    held: list[bytes] = []

    async with ScriptedHost() as host:
        host.script = lambda message: held.append(approve(message)) or []  # type: ignore[func-returns-value]
        rig.deaf = True
        gateway = await rig.impatient(port=host.port)
        command = await rig.command(rig.new_dpan())
        assert isinstance(await until_sent(gateway.authorize, command), Unknown)
        host.write(held[0])

        async def recorded() -> bool:
            return bool((await journaled(rig.engine, command.effect_key))["late_response_code"] == "00")

        await eventually(recorded, "the late answer in the journal")
        await gateway.close()
        assert rig.late_answers == []
        rig.deaf = False
        await rig.gateway()

        async def reported() -> bool:
            return command.effect_key in [late.effect_key for late in rig.late_answers]

        await eventually(reported, "the late answer")


async def test_a_duplicate_approval_is_ignored(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway, DUPLICATE_ANSWER)
    command = await rig.command(dpan)
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Approved)
    # Answers on one connection come in order: when this one is here, the duplicate was seen.
    assert isinstance(await gateway.authorize(await rig.command(dpan)), Approved)
    await gateway.close()
    stored = await journaled(rig.engine, command.effect_key)
    assert (stored["state"], stored["late_response_code"]) == ("answered", None)
    assert rig.late_answers == []


async def test_an_answer_with_another_amount_is_refused_and_reversed(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway, WRONG_AMOUNT))
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Unknown)
    assert outcome.reason is DoubtReason.INVALID_ANSWER
    await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key))
    assert [entry["state"] for entry in (await simulator.journal(outcome.rrn))["authorizations"]] == ["reversed"]


async def test_a_connection_dropped_instead_of_the_answer_is_doubt(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway, DROPPED_CONNECTION))
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Unknown)
    assert outcome.reason is DoubtReason.CONNECTION_LOST
    await until_reachable(gateway.reverse, ReverseCommand(rig.key("reverse"), command.effect_key))
    assert [entry["state"] for entry in (await simulator.journal(outcome.rrn))["authorizations"]] == ["reversed"]


async def test_with_the_link_down_nothing_is_sent_and_the_same_command_succeeds_later(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    simulator.faults.refuse_connections = True
    simulator.disconnect()

    async def unreachable() -> bool:
        try:
            await gateway.reverse(ReverseCommand(rig.key("reverse"), rig.key("nothing")))
            return not gateway._link.ready
        except Unreachable:
            return True

    await eventually(unreachable, "the link down")
    with pytest.raises(Unreachable):
        await gateway.authorize(command)
    assert (await journaled(rig.engine, command.effect_key))["state"] == "created"
    simulator.reset_faults()
    outcome = await until_reachable(gateway.authorize, command)
    assert isinstance(outcome, Approved)
    assert len(await received(simulator, "0100")) == 1


async def test_a_reversal_before_the_request_was_sent_makes_sure_that_it_never_is(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    reversal = ReverseCommand(rig.key("reverse"), command.effect_key)
    assert await gateway.reverse(reversal) == NeverSent()
    with pytest.raises(EffectAbandoned):
        await gateway.authorize(command)
    assert await gateway.reverse(reversal) == NeverSent()
    assert await received(simulator, "0100") == []
    assert await received(simulator, "0420") == []


async def test_a_reversal_that_races_the_request_never_leaves_an_approval_standing(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateways = [await rig.gateway(), await rig.gateway()]
    dpan = await rig.token(gateways[0])
    for number in range(30):
        command = await rig.command(dpan)
        authorizing = asyncio.create_task(gateways[0].authorize(command))
        for _ in range(number):
            await asyncio.sleep(0)
        undone = await gateways[1].reverse(ReverseCommand(rig.key("reverse"), command.effect_key))
        [outcome] = await asyncio.gather(authorizing, return_exceptions=True)
        assert isinstance(outcome, (Approved, Unknown, EffectAbandoned))
        if isinstance(undone, NeverSent):
            assert isinstance(outcome, EffectAbandoned)
    journal = await simulator.journal()
    assert {entry["state"] for entry in journal["authorizations"]} <= {"reversed", "declined"}


async def test_an_abandoned_row_that_waited_for_the_link_is_not_sent_when_it_returns(
    rig: Rig, simulator: SimulatorServer
) -> None:
    down = await rig.disconnected()
    up = await rig.gateway()
    command = await rig.command(await rig.token(up))
    with pytest.raises(Unreachable):
        await down.authorize(command)
    assert await up.reverse(ReverseCommand(rig.key("reverse"), command.effect_key)) == NeverSent()
    with pytest.raises(EffectAbandoned):
        await up.authorize(command)
    assert await received(simulator, "0100") == []


async def test_a_lost_acknowledgement_five_times_is_one_reversal_even_across_a_restart(
    rig: Rig, tmp_path: Path
) -> None:
    folder = tmp_path / "restarted"
    folder.mkdir()
    first = SimulatorServer(simulator_config(folder))
    await first.start()
    patient = await rig.gateway(port=first.port)
    gateway = await rig.gateway(answer_timeout_seconds=0.3, port=first.port)
    command = await rig.command(await rig.token(patient))
    approved = await patient.authorize(command)
    assert isinstance(approved, Approved)
    reversal = ReverseCommand(rig.key("reverse"), command.effect_key)
    first.faults.drop_reversal_acknowledgements = 3
    while first.faults.drop_reversal_acknowledgements:
        with pytest.raises((NotAcknowledged, Unreachable)):
            await gateway.reverse(reversal)
    port = first.port
    await first.stop()
    async with SimulatorServer(simulator_config(folder, port=port)) as second:
        second.faults.drop_reversal_acknowledgements = 2
        while second.faults.drop_reversal_acknowledgements:
            with pytest.raises((NotAcknowledged, Unreachable)):
                await gateway.reverse(reversal)
        assert isinstance(await until_reachable(patient.reverse, reversal), Reversed)
        journal = await second.journal(approved.rrn)
        assert [entry["state"] for entry in journal["authorizations"]] == ["reversed"]
        kinds = [message["mti"] for message in journal["messages"]]
        assert kinds[:2] == ["0100", "0420"]
        assert set(kinds[2:]) == {"0421"}
        assert len({(m["stan"], m["transmission_time"]) for m in journal["messages"][1:]}) == 1


async def test_the_card_that_loses_acknowledgements_is_reversed_in_the_end(
    rig: Rig, simulator: SimulatorServer
) -> None:
    impatient = await rig.impatient()
    patient = await rig.gateway()
    command = await rig.command(await rig.token(patient, LOST_REVERSAL))
    outcome = await until_sent(impatient.authorize, command)
    assert isinstance(outcome, Unknown)
    reversal = ReverseCommand(rig.key("reverse"), command.effect_key)
    for _ in range(2):
        with pytest.raises(NotAcknowledged):
            await until_sent(impatient.reverse, reversal)
    assert isinstance(await patient.reverse(reversal), Reversed)
    assert [entry["state"] for entry in (await simulator.journal(outcome.rrn))["authorizations"]] == ["reversed"]


async def test_a_late_acknowledgement_spares_the_repetition(rig: Rig) -> None:
    held: list[bytes] = []

    async with ScriptedHost() as host:

        def script(message: Any) -> list[bytes]:
            if message.mti == "0100":
                return [approve(message)]
            held.append(approve(message))
            return []

        host.script = script
        gateway = await rig.gateway(port=host.port)
        impatient = await rig.impatient(port=host.port)
        command = await rig.command(rig.new_dpan())
        assert isinstance(await gateway.authorize(command), Approved)
        capture = CaptureCommand(rig.key("capture"), command.effect_key, usd(1050))
        with pytest.raises(NotAcknowledged):
            await until_sent(impatient.capture, capture)
        host.write(held[0])

        async def acknowledged() -> bool:
            return bool((await journaled(rig.engine, capture.effect_key))["state"] == "answered")

        await eventually(acknowledged, "the acknowledgement")
        assert isinstance(await gateway.capture(capture), Acknowledged)
        assert len(host.of_type("0220")) == 1
        assert len(host.of_type("0221")) == 0


async def test_a_killed_worker_leaves_an_effect_that_its_successor_finds(
    rig: Rig, simulator: SimulatorServer, database_url: str, redis_url: str
) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    simulator.faults.delay_seconds = 60
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.network.authorizing_process", stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    given = {
        "effect_key": command.effect_key,
        "payment_id": command.payment_id,
        "amount_minor": command.money.amount_minor,
        "token_id": command.credential.token_id,
        "sealed_pan": command.credential.sealed_pan,
        "authentication_handle": command.credential.authentication_handle,
        "database_url": database_url,
        "redis_url": redis_url,
        "private_key": rig.private_key.hex(),
        "port": simulator.port,
    }
    process.stdin.write(json.dumps(given).encode())
    process.stdin.close()

    async def arrived() -> bool:
        return bool(await received(simulator, "0100"))

    await eventually(arrived, "the request at the host")
    process.kill()
    await process.wait()
    simulator.reset_faults()
    assert (await journaled(rig.engine, command.effect_key))["state"] == "sending"
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Approved)
    journal = await simulator.journal(outcome.rrn)
    assert [(message["mti"], message["answered_before"]) for message in journal["messages"]] == [
        ("0100", 0),
        ("0101", 1),
    ]
    assert [entry["state"] for entry in journal["authorizations"]] == ["approved"]


async def test_a_successor_repeats_what_the_host_never_got(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    await rig.leave_sending(command)
    assert isinstance(await gateway.authorize(command), Approved)
    assert [message["mti"] for message in (await simulator.journal())["messages"]] == ["0620", "0101"]


async def test_an_effect_is_repeated_once_and_then_unknown(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    await rig.leave_sending(command, attempts=2)
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Unknown)
    assert outcome.reason is DoubtReason.WORKER_LOST
    assert await received(simulator, "0101") == []


async def test_a_lost_effect_without_its_cryptogram_is_unknown_and_not_asked_for_again(
    rig: Rig, simulator: SimulatorServer, redis: Redis
) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    await rig.leave_sending(command)
    await redis.flushdb()
    assert isinstance(await gateway.authorize(command), Unknown)
    assert await received(simulator, "0101") == []


async def test_a_canceled_caller_does_not_stop_what_is_on_its_way(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    simulator.faults.delay_seconds = 0.3
    caller = asyncio.create_task(gateway.authorize(command))

    async def arrived() -> bool:
        return bool(await received(simulator, "0100"))

    await eventually(arrived, "the request at the host")
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert isinstance(await gateway.authorize(command), Approved)
    assert [message["mti"] for message in (await simulator.journal())["messages"]] == ["0620", "0100"]


async def test_an_expired_credential_is_told_apart_while_nothing_was_sent(rig: Rig, redis: Redis) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    command = await rig.command(dpan)
    await redis.flushdb()
    with pytest.raises(CredentialExpired):
        await gateway.authorize(command)
    renewed = await rig.command(dpan, effect_key=command.effect_key)
    assert isinstance(await gateway.authorize(renewed), Approved)


async def test_a_box_for_another_worker_is_unusable(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = await rig.command(rig.new_dpan())
    foreign = Rig(rig.engine, rig.redis, rig.port).credential("4895370012345676", None)
    with pytest.raises(CredentialUnusable):
        await gateway.authorize(replace(command, credential=foreign))
    assert isinstance(rig.sealer, Sealer)


async def test_an_effect_key_stands_for_one_request_only(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    await gateway.authorize(command)
    with pytest.raises(EffectKeyReused):
        await gateway.authorize(replace(command, money=usd(9999)))
    with pytest.raises(EffectKeyReused):
        await gateway.capture(CaptureCommand(command.effect_key, command.effect_key, usd(1)))


async def test_a_command_that_fits_into_no_message_is_refused_before_it_is_journaled(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = await rig.command(rig.new_dpan())
    with pytest.raises(MessageInvalid):
        await gateway.authorize(replace(command, merchant=replace(MERCHANT, merchant_id="m" * 16)))


async def test_captures_and_refunds_follow_their_authorization(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway), 1000)
    approved = await gateway.authorize(command)
    for amount, final in ((600, False), (400, True)):
        capture = CaptureCommand(rig.key("capture"), command.effect_key, usd(amount), final=final)
        acknowledged = await gateway.capture(capture)
        assert isinstance(acknowledged, Acknowledged)
        assert await gateway.capture(capture) == acknowledged
    refund = RefundCommand(rig.key("refund"), command.effect_key, command.payment_id, usd(250))
    refunded = await gateway.refund(refund)
    assert isinstance(refunded, Approved)
    assert await gateway.refund(refund) == refunded
    assert isinstance(approved, Approved)
    journal = await simulator.journal(*await gateway.rrns(command.payment_id))
    [authorization] = journal["authorizations"]
    assert (authorization["captured_minor"], authorization["refunded_minor"]) == (1000, 250)
    assert [entry["amount_minor"] for entry in journal["refunds"]] == [250]
    assert [message["mti"] for message in journal["messages"]] == ["0100", "0220", "0220", "0200"]


async def test_a_capture_beyond_the_authorization_is_refused_for_good(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway), 1000)
    await gateway.authorize(command)
    capture = CaptureCommand(rig.key("capture"), command.effect_key, usd(1001))
    for _ in range(2):
        with pytest.raises(AdviceRefused) as refused:
            await gateway.capture(capture)
        assert refused.value.response_code == "13"


async def test_after_the_last_capture_the_rest_is_released_and_no_capture_taken(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway), 1000)
    await gateway.authorize(command)
    last = CaptureCommand(rig.key("capture"), command.effect_key, usd(600))
    await gateway.capture(last)
    with pytest.raises(EffectKeyReused):
        await gateway.capture(replace(last, final=False))
    with pytest.raises(AdviceRefused) as refused:
        await gateway.capture(CaptureCommand(rig.key("capture"), command.effect_key, usd(1), final=False))
    assert refused.value.response_code == "12"
    [authorization] = (await simulator.journal())["authorizations"]
    assert (authorization["state"], authorization["captured_minor"]) == ("captured", 600)
    assert authorization["completed_at"] is not None


async def test_concurrent_refunds_never_exceed_the_capture(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway), 1000)
    await gateway.authorize(command)
    await gateway.capture(CaptureCommand(rig.key("capture"), command.effect_key, usd(1000)))
    refunds = [RefundCommand(rig.key("refund"), command.effect_key, command.payment_id, usd(300)) for _ in range(20)]
    outcomes = await asyncio.gather(*(gateway.refund(refund) for refund in refunds))
    assert sum(isinstance(outcome, Approved) for outcome in outcomes) == 3
    [authorization] = (await simulator.journal())["authorizations"]
    assert authorization["refunded_minor"] == 900


async def test_a_refund_in_doubt_is_reversed_and_gives_its_amount_back(rig: Rig, simulator: SimulatorServer) -> None:
    patient, impatient = await rig.gateway(), await rig.impatient()
    command = await rig.command(await rig.token(patient), 1000)
    await patient.authorize(command)
    await patient.capture(CaptureCommand(rig.key("capture"), command.effect_key, usd(1000)))
    simulator.faults.drop_answers = 1
    refund = RefundCommand(rig.key("refund"), command.effect_key, command.payment_id, usd(400))
    assert isinstance(await until_sent(impatient.refund, refund), Unknown)
    assert isinstance(await patient.reverse(ReverseCommand(rig.key("reverse"), refund.effect_key)), Reversed)
    journal = await simulator.journal()
    assert [entry["state"] for entry in journal["refunds"]] == ["reversed"]
    assert journal["authorizations"][0]["refunded_minor"] == 0


async def test_what_refers_to_nothing_sent_is_refused(rig: Rig) -> None:
    gateway = await rig.gateway()
    with pytest.raises(OriginalUnknown):
        await gateway.capture(CaptureCommand(rig.key("capture"), rig.key("authorize"), usd(1)))
    with pytest.raises(OriginalUnknown):
        await gateway.refund(RefundCommand(rig.key("refund"), rig.key("authorize"), "pay_1", usd(1)))
    dpan = rig.new_dpan()
    provision = rig.provision_command("4242424242424242", dpan)
    await gateway.provision(provision)
    with pytest.raises(OriginalUnknown):
        await gateway.reverse(ReverseCommand(rig.key("reverse"), provision.effect_key))


async def test_provisioning_is_repeated_until_it_is_acknowledged(rig: Rig, simulator: SimulatorServer) -> None:
    impatient, patient = await rig.impatient(), await rig.gateway()
    simulator.faults.drop_answers = 1
    command = rig.provision_command("4242424242424242", rig.new_dpan())
    with pytest.raises(NotAcknowledged):
        await until_sent(impatient.provision, command)
    assert isinstance(await patient.provision(command), Acknowledged)
    assert [message["mti"] for message in (await simulator.journal())["messages"]] == ["0620", "0621"]


async def test_no_card_number_is_journaled_in_clear(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway, "5555555555554444")
    command = await rig.command(dpan, cvv="737")
    await gateway.authorize(command)
    async with rig.engine.connect() as connection:
        dump = "\n".join(
            str(tuple(entry)) for entry in await connection.execute(text("SELECT * FROM network.messages"))
        )
    shown = dump + json.dumps(await simulator.journal()) + repr(command)
    content = await rig.redis.keys("authentication/*")
    assert content == []
    for secret in (dpan, "5555555555554444"):
        assert secret not in shown


async def test_a_database_that_is_gone_is_a_typed_error_and_nothing_is_sent(
    rig: Rig, simulator: SimulatorServer
) -> None:
    gateway = await rig.gateway()
    command = await rig.command(await rig.token(gateway))
    rig.engine = create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{await closed_port()}/nothing")
    cut_off = await rig.gateway()
    with pytest.raises(JournalUnavailable):
        await cut_off.authorize(command)
    assert await received(simulator, "0100") == []
    await rig.engine.dispose()


async def test_terminated_database_connections_lose_no_effect(
    rig: Rig, simulator: SimulatorServer, engine: AsyncEngine
) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    commands = [await rig.command(dpan, 100 + number) for number in range(20)]
    asking = [asyncio.create_task(gateway.authorize(command)) for command in commands]
    admin = create_engine(engine.url.render_as_string(hide_password=False), pool_size=1)
    async with admin.connect() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )
    await admin.dispose()
    await asyncio.gather(*asking, return_exceptions=True)
    outcomes = [await _until_answered(gateway, command) for command in commands]
    assert all(isinstance(outcome, Approved) for outcome in outcomes)
    journal = await simulator.journal()
    assert sorted(entry["amount_minor"] for entry in journal["authorizations"]) == list(range(100, 120))


async def _until_answered(gateway: Any, command: Any) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await gateway.authorize(command)
            except JournalUnavailable:
                await asyncio.sleep(0.02)
