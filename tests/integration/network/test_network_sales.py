"""Sales: an authorization and its capture in one financial request (0200), with every fault that can befall it."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from domain.network import AuthorizeCommand, CaptureCommand, RefundCommand, ReverseCommand
from domain.outcomes import Approved, Declined, DoubtReason, NeverSent, Reversed, Unknown
from network.errors import AdviceRefused, EffectAbandoned, EffectKeyReused, OriginalUnknown
from network.simulator import SimulatorServer
from network.simulator.cards import SCRIPTED, Behaviour
from tests.integration.network.rig import (
    VISA,
    Rig,
    ScriptedHost,
    approve,
    eventually,
    journaled,
    simulator_config,
    until_reachable,
    until_sent,
    usd,
)

CARD_OF = {card.behaviour: number for number, card in SCRIPTED.items()}


async def sale(rig: Rig, dpan: str, amount_minor: int = 1050) -> AuthorizeCommand:
    return replace(await rig.command(dpan, amount_minor), sale=True)


async def standing(simulator: SimulatorServer) -> list[tuple[str, str, int, int]]:
    entries = (await simulator.journal())["authorizations"]
    return [(entry["kind"], entry["state"], entry["captured_minor"], entry["refunded_minor"]) for entry in entries]


async def test_a_sale_is_approved_and_captured_with_one_message(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await sale(rig, await rig.token(gateway))
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Approved)
    assert await gateway.authorize(command) == outcome
    assert await standing(simulator) == [("sale", "captured", 1050, 0)]
    assert [message["mti"] for message in (await simulator.journal(outcome.rrn))["messages"]] == ["0200"]
    assert await gateway.rrns(command.payment_id) == [outcome.rrn]
    stored = await journaled(rig.engine, command.effect_key)
    assert (stored["kind"], stored["mti"], stored["state"]) == ("sale", "0200", "answered")
    today = datetime.now(UTC).date()
    assert stored["settlement_date"] in (today, today - timedelta(days=1))


async def test_a_sale_uses_up_its_authentication_data_as_an_authorization_does(
    rig: Rig, simulator: SimulatorServer, redis: Redis
) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway)
    command = await sale(rig, dpan)
    handle = command.credential.authentication_handle
    assert handle is not None
    box = await redis.get(handle) or b""
    assert isinstance(await gateway.authorize(command), Approved)
    assert not await redis.exists(handle)
    await redis.set(handle, box)
    again = await gateway.authorize(replace(command, effect_key=rig.key("authorize")))
    assert isinstance(again, Declined)
    assert again.response_code == "82", "the cryptogram was used before"


async def test_sale_and_authorization_are_different_requests(rig: Rig) -> None:
    gateway = await rig.gateway()
    command = await sale(rig, await rig.token(gateway))
    await gateway.authorize(command)
    with pytest.raises(EffectKeyReused):
        await gateway.authorize(replace(command, sale=False))
    other = await rig.command(await rig.token(gateway))
    running = asyncio.gather(
        gateway.authorize(other), gateway.authorize(replace(other, sale=True)), return_exceptions=True
    )
    assert [type(result) for result in await running] == [Approved, EffectKeyReused]


async def test_a_sale_is_refunded_without_a_capture_and_takes_none(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await sale(rig, await rig.token(gateway), 1000)
    await gateway.authorize(command)
    with pytest.raises(OriginalUnknown):
        await gateway.capture(CaptureCommand(rig.key("capture"), command.effect_key, usd(1000)))

    def refund(amount_minor: int) -> RefundCommand:
        return RefundCommand(rig.key("refund"), command.effect_key, command.payment_id, usd(amount_minor))

    assert isinstance(await gateway.refund(refund(600)), Approved)
    beyond = await gateway.refund(refund(401))
    assert isinstance(beyond, Declined)
    assert beyond.response_code == "13"
    with pytest.raises(AdviceRefused) as refused:
        await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key))
    assert refused.value.response_code == "21", "what was refunded cannot be reversed whole"
    assert await standing(simulator) == [("sale", "refunded", 1000, 600)]


async def test_an_approved_sale_is_reversed_whole(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await sale(rig, await rig.token(gateway))
    await gateway.authorize(command)
    assert isinstance(await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key)), Reversed)
    assert await standing(simulator) == [("sale", "reversed", 0, 0)]
    refund = await gateway.refund(RefundCommand(rig.key("refund"), command.effect_key, command.payment_id, usd(1)))
    assert isinstance(refund, Declined)
    assert refund.response_code == "12"


async def test_a_declined_sale_stays_declined(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await sale(rig, await rig.token(gateway, "4000000000009995"))
    outcome = await gateway.authorize(command)
    assert isinstance(outcome, Declined)
    assert outcome.response_code == "51"
    assert await gateway.authorize(command) == outcome
    assert await standing(simulator) == [("sale", "declined", 0, 0)]
    assert (await journaled(rig.engine, command.effect_key))["settlement_date"] is None


@pytest.mark.parametrize(
    ("behaviour", "reason", "state"),
    [
        (Behaviour.TIMEOUT_THEN_APPROVE, DoubtReason.TIMEOUT, "reversed"),
        (Behaviour.TIMEOUT_THEN_DECLINE, DoubtReason.TIMEOUT, "declined"),
        (Behaviour.LATE_ANSWER, DoubtReason.TIMEOUT, "reversed"),
        (Behaviour.LOST_REVERSAL, DoubtReason.TIMEOUT, "reversed"),
        (Behaviour.DROPPED_CONNECTION, DoubtReason.CONNECTION_LOST, "reversed"),
        (Behaviour.WRONG_AMOUNT, DoubtReason.INVALID_ANSWER, "reversed"),
    ],
)
async def test_a_sale_in_doubt_is_reversed_until_that_is_acknowledged(
    rig: Rig, simulator: SimulatorServer, behaviour: Behaviour, reason: DoubtReason, state: str
) -> None:
    patient, impatient = await rig.gateway(), await rig.impatient()
    command = await sale(rig, await rig.token(patient, CARD_OF[behaviour]))
    outcome = await until_sent((patient if behaviour is Behaviour.WRONG_AMOUNT else impatient).authorize, command)
    assert isinstance(outcome, Unknown)
    assert outcome.reason is reason
    reversal = ReverseCommand(rig.key("reverse"), command.effect_key)
    assert isinstance(await until_reachable(impatient.reverse, reversal), Reversed)
    assert await patient.authorize(command) == outcome
    assert await standing(simulator) == [("sale", state, 0, 0)]
    named = [message["mti"] for message in (await simulator.journal())["messages"]]
    assert "0420" in named


async def test_a_duplicate_answer_to_a_sale_is_ignored(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    dpan = await rig.token(gateway, CARD_OF[Behaviour.DUPLICATE_ANSWER])
    command = await sale(rig, dpan)
    assert isinstance(await gateway.authorize(command), Approved)
    # Answers on one connection come in order: when this one is here, the duplicate was seen.
    assert isinstance(await gateway.authorize(await sale(rig, dpan)), Approved)
    await gateway.close()
    assert (await journaled(rig.engine, command.effect_key))["late_response_code"] is None
    assert rig.late_answers == []


async def test_a_late_approval_of_a_sale_is_recorded_reported_and_never_applied(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "late"
    folder.mkdir()
    async with SimulatorServer(simulator_config(folder, late_answer_seconds=1.5)) as simulator:
        gateway = await rig.gateway(answer_timeout_seconds=0.7, port=simulator.port)
        dpan = await rig.token(await rig.gateway(port=simulator.port), CARD_OF[Behaviour.LATE_ANSWER])
        command = await sale(rig, dpan)
        outcome = await until_sent(gateway.authorize, command)
        assert isinstance(outcome, Unknown)

        async def reported() -> bool:
            return [late.rrn for late in rig.late_answers] == [outcome.rrn]

        await eventually(reported, "the late answer")
        stored = await journaled(rig.engine, command.effect_key)
        assert (stored["state"], stored["late_response_code"]) == ("unanswered", "00")
        assert stored["settlement_date"] is None


async def test_a_lost_answer_is_found_again_by_the_one_repeat(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await sale(rig, await rig.token(gateway))
    await rig.leave_sending(command)
    assert isinstance(await gateway.authorize(command), Approved)
    assert [message["mti"] for message in (await simulator.journal())["messages"]] == ["0620", "0201"]
    assert await standing(simulator) == [("sale", "captured", 1050, 0)]
    refund = RefundCommand(rig.key("refund"), command.effect_key, command.payment_id, usd(1))
    assert isinstance(await gateway.refund(refund), Approved)


async def test_a_reversal_that_comes_before_its_sale_prevents_it(rig: Rig, simulator: SimulatorServer) -> None:
    gateway = await rig.gateway()
    command = await sale(rig, await rig.token(gateway))
    assert await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key)) == NeverSent()
    with pytest.raises(EffectAbandoned):
        await gateway.authorize(command)
    assert await standing(simulator) == []


async def test_a_sale_carries_its_chip_data_and_its_reversal_names_it(rig: Rig) -> None:
    async with ScriptedHost(lambda message: [approve(message)]) as host:
        gateway = await rig.gateway(port=host.port)
        command = await sale(rig, rig.new_dpan())
        outcome = await gateway.authorize(command)
        assert isinstance(outcome, Approved)
        await gateway.reverse(ReverseCommand(rig.key("reverse"), command.effect_key))
        [asked], [undone] = host.of_type("0200"), host.of_type("0420")
        assert (asked.get(3), 55 in asked.fields, 90 in asked.fields) == ("000000", True, False)
        assert (undone.get(3), undone.get(90)[:10]) == ("000000", f"0200{outcome.stan}")
        assert undone.get(38) == outcome.approval_code


@pytest.mark.parametrize(
    ("named", "expected"), [("1231", (-1, 12, 31)), ("0102", (0, 1, 2)), ("0000", None), (None, None)]
)
async def test_the_day_of_clearing_is_the_one_that_the_host_names(
    rig: Rig, named: str | None, expected: tuple[int, int, int] | None
) -> None:
    def script(message: Any) -> list[bytes]:
        return [approve(message, **({} if named is None else {"de15": named}))]

    async with ScriptedHost(script) as host:
        gateway = await rig.gateway(port=host.port)
        command = await sale(rig, rig.new_dpan())
        before = datetime.now(UTC).date()
        await gateway.authorize(command)
        stored = (await journaled(rig.engine, command.effect_key))["settlement_date"]
        if expected is None:
            assert stored in (before, datetime.now(UTC).date())
        else:
            assert (stored.month, stored.day) == expected[1:]
            assert abs((stored - before).days) <= 184


async def test_a_journal_of_an_older_simulator_is_read_on(tmp_path: Path, rig: Rig) -> None:
    config = simulator_config(tmp_path, journal_file=tmp_path / "older.sqlite3")
    _write_version_0(config.journal_file)
    async with SimulatorServer(config) as simulator:
        journal = await simulator.journal()
        kinds = [(entry["kind"], entry["state"]) for entry in (*journal["authorizations"], *journal["refunds"])]
        assert kinds == [("authorization", "refunded"), ("refund", "approved")]
        gateway = await rig.gateway(port=simulator.port)
        assert isinstance(await gateway.authorize(await sale(rig, await rig.token(gateway, VISA))), Approved)


def _write_version_0(file: Path) -> None:
    database = sqlite3.connect(file)
    database.executescript(
        """
        CREATE TABLE transactions (
            id INTEGER PRIMARY KEY, received_at TEXT NOT NULL, mti TEXT NOT NULL, stan TEXT NOT NULL,
            transmission_time TEXT NOT NULL, acquirer_id TEXT NOT NULL, rrn TEXT NOT NULL, card_name TEXT NOT NULL,
            amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, response_code TEXT NOT NULL, approval_code TEXT,
            captured_minor INTEGER NOT NULL DEFAULT 0, refunded_minor INTEGER NOT NULL DEFAULT 0,
            refund_of INTEGER REFERENCES transactions (id), reversed_at TEXT,
            UNIQUE (stan, transmission_time, acquirer_id, mti));
        CREATE INDEX transactions_rrn ON transactions (rrn);
        INSERT INTO transactions VALUES (1, '2025-10-21T14:30:00+00:00', '0100', '000001', '1021143000', '400123',
            '529414000001', 'visa', 1000, '840', '00', '123456', 1000, 400, NULL, NULL);
        INSERT INTO transactions VALUES (2, '2025-10-22T14:30:00+00:00', '0200', '000002', '1022143000', '400123',
            '529514000002', 'visa', 400, '840', '00', '654321', 0, 0, 1, NULL);
        """
    )
    database.close()
