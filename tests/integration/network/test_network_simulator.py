"""What the simulated host decides, on its own socket and through its control API."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from domain.outcomes import Approved, Declined
from network import messages
from network.codec import Message, decode, encode
from network.framing import FrameDecoder, frame
from network.messages import Acceptor, Authentication, Card, Original, Purchase, Trace
from network.simulator import Faults, SimulatorServer
from network.simulator.cards import TEST_CARDS, Behaviour
from tests.integration.network.rig import (
    ACQUIRER_ID,
    FINGERPRINT_KEY,
    IMK_AC,
    MERCHANT,
    VISA,
    Rig,
    eventually,
    simulator_config,
    usd,
)

TOKEN = "a-control-token-of-this-test"


class Acquirer:
    """A bare connection: one message, one answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._decoder = FrameDecoder()
        self._stan = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def send(self, message: Message) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(frame(encode(message)))
        self._writers.append(writer)
        return reader

    async def ask(self, message: Message) -> Message:
        reader = await self.send(message)
        while not (answers := self._decoder.feed(await reader.read(65_536))):
            pass
        self._writers.pop().close()
        return decode(answers[0])

    def close(self) -> None:
        for writer in self._writers:
            writer.close()

    def trace(self) -> Trace:
        self._stan += 1
        return Trace("1021143000", f"{self._stan:06d}", ACQUIRER_ID, f"529414{self._stan:06d}")

    def purchase(self, amount_minor: int = 1000) -> Purchase:
        return Purchase(self.trace(), usd(amount_minor), Acceptor.of(MERCHANT, "00000001"))

    async def token(self, pan: str, dpan: str, expiry: str = "4912") -> Card:
        card = Card(dpan, expiry)
        assert (await self.ask(messages.provisioning(self.trace(), card, pan))).get(39) == "00"
        return card


@pytest.fixture
def acquirer(simulator: SimulatorServer) -> Acquirer:
    return Acquirer(simulator.port)


def original(purchase: Purchase, mti: str = "0100") -> Original:
    return Original(mti, purchase.trace.stan, purchase.trace.transmission_time, ACQUIRER_ID)


SIMPLE = {
    number: card for number, card in TEST_CARDS.items() if card.behaviour in (Behaviour.APPROVE, Behaviour.DECLINE)
}


async def test_every_test_card_is_answered_as_its_table_says(acquirer: Acquirer, rig: Rig) -> None:
    for number, card in SIMPLE.items():
        token = await acquirer.token(number, rig.new_dpan())
        answer = await acquirer.ask(messages.authorization(acquirer.purchase(), token, None))
        assert (number, answer.get(39)) == (number, card.response_code)
        assert (38 in answer.fields) == (card.response_code == "00")


async def test_an_unknown_device_number_is_declined(acquirer: Acquirer, rig: Rig) -> None:
    answer = await acquirer.ask(messages.authorization(acquirer.purchase(), Card(rig.new_dpan(), "4912"), None))
    assert answer.get(39) == "14"


async def test_an_expired_device_number_is_declined(acquirer: Acquirer, rig: Rig) -> None:
    token = await acquirer.token(VISA, rig.new_dpan(), "2001")
    answer = await acquirer.ask(messages.authorization(acquirer.purchase(), token, None))
    assert answer.get(39) == "54"


async def test_a_device_number_stands_for_one_card_only(acquirer: Acquirer, rig: Rig) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())
    again = await acquirer.ask(messages.provisioning(acquirer.trace(), token, VISA))
    other = await acquirer.ask(messages.provisioning(acquirer.trace(), token, "5555555555554444"))
    wrong = await acquirer.ask(
        messages.provisioning(acquirer.trace(), Card(rig.new_dpan(), "4912"), "4242424242424241")
    )
    assert (again.get(39), other.get(39), wrong.get(39)) == ("00", "12", "14")


async def test_a_cryptogram_is_accepted_once_and_only_for_its_own_data(acquirer: Acquirer, rig: Rig) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())

    async def ask(content: dict[str, str], amount_minor: int = 1000) -> str:
        message = messages.authorization(acquirer.purchase(amount_minor), token, Authentication(**content))
        return (await acquirer.ask(message)).get(39)

    content = rig.authentication(token.dpan, usd(1000), atc=9)
    assert await ask({**content, "cryptogram": "00" * 8}) == "82"
    assert await ask(content, 1001) == "82"
    assert await ask({**content, "unpredictable_number": "00000000"}) == "82"
    assert await ask(rig.authentication("4895370012345676", usd(1000))) == "82"
    assert await ask(content) == "00"
    assert await ask(content) == "82"
    lower = rig.authentication(token.dpan, usd(1000), atc=7)
    assert await ask(lower) == "00", "a lower ATC that was not used yet is no reason to decline"


async def test_malformed_chip_data_is_a_format_error(acquirer: Acquirer, rig: Rig) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())
    message = messages.authorization(acquirer.purchase(), token, None)
    answer = await acquirer.ask(Message(message.mti, {**message.fields, 55: "9F26FF"}))
    assert answer.get(39) == "30"


async def test_a_repeat_gets_the_answer_of_its_first_sending(
    acquirer: Acquirer, rig: Rig, simulator: SimulatorServer
) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())
    purchase = acquirer.purchase()
    first = await acquirer.ask(messages.authorization(purchase, token, None))
    for repeat in (False, True, True):
        again = await acquirer.ask(messages.authorization(purchase, token, None, repeat=repeat))
        assert again.fields == first.fields
    other = await acquirer.ask(messages.authorization(replace(purchase, money=usd(5)), token, None, repeat=True))
    assert other.get(39) == "94"
    assert len((await simulator.journal())["authorizations"]) == 1


async def test_a_late_original_of_a_remembered_reversal_is_declined(
    acquirer: Acquirer, rig: Rig, simulator: SimulatorServer
) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())
    purchase = acquirer.purchase()
    reversal = replace(purchase, trace=acquirer.trace())
    acknowledged = await acquirer.ask(messages.reversal(reversal, token, original(purchase), ""))
    late = await acquirer.ask(messages.authorization(purchase, token, None))
    assert (acknowledged.get(39), late.get(39)) == ("00", "05")
    assert [entry["state"] for entry in (await simulator.journal())["authorizations"]] == ["declined"]


async def test_captures_refunds_and_reversals_keep_within_what_stands(acquirer: Acquirer, rig: Rig) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())
    purchase = acquirer.purchase(1000)
    code = (await acquirer.ask(messages.authorization(purchase, token, None))).get(38)
    named = original(purchase)

    async def capture(amount_minor: int, *, final: bool = False) -> str:
        return (
            await acquirer.ask(messages.capture(acquirer.purchase(amount_minor), token, named, code, final=final))
        ).get(39)

    async def refund(amount_minor: int) -> str:
        return (await acquirer.ask(messages.refund(acquirer.purchase(amount_minor), token, named))).get(39)

    async def reverse() -> str:
        return (await acquirer.ask(messages.reversal(acquirer.purchase(1000), token, named, code))).get(39)

    assert await refund(1) == "13"
    assert await capture(1001) == "13"
    assert await capture(700) == "00"
    assert await capture(301) == "13"
    assert await capture(200, final=True) == "00"
    assert await capture(100) == "12", "nothing is left to capture after the last capture"
    assert await refund(901) == "13"
    assert await refund(900) == "00"
    assert await reverse() == "21"
    unknown = Original("0100", "999999", "0101000000", ACQUIRER_ID)
    beyond = await acquirer.ask(messages.capture(acquirer.purchase(1), token, unknown, "", final=True))
    assert beyond.get(39) == "25"


async def test_a_reversed_authorization_cannot_be_captured_and_is_reversed_once(acquirer: Acquirer, rig: Rig) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())
    purchase = acquirer.purchase(1000)
    await acquirer.ask(messages.authorization(purchase, token, None))
    named = original(purchase)
    for _ in range(2):
        assert (await acquirer.ask(messages.reversal(acquirer.purchase(1000), token, named, ""))).get(39) == "00"
    assert (await acquirer.ask(messages.capture(acquirer.purchase(1), token, named, "", final=True))).get(39) == "12"


async def test_a_last_capture_of_nothing_releases_the_whole_authorization(
    acquirer: Acquirer, rig: Rig, simulator: SimulatorServer
) -> None:
    token = await acquirer.token(VISA, rig.new_dpan())
    purchase = acquirer.purchase(1000)
    await acquirer.ask(messages.authorization(purchase, token, None))
    named = original(purchase)
    for amount_minor, final, expected in ((0, True, "00"), (1, False, "12"), (0, True, "12")):
        message = messages.capture(acquirer.purchase(amount_minor), token, named, "", final=final)
        assert (await acquirer.ask(message)).get(39) == expected
    reversal = messages.reversal(acquirer.purchase(1000), token, named, "")
    assert (await acquirer.ask(reversal)).get(39) == "21", "there is nothing left to reverse"
    [authorization] = (await simulator.journal())["authorizations"]
    assert (authorization["state"], authorization["captured_minor"]) == ("released", 0)


async def test_the_refund_card_is_paid_with_and_not_refunded(rig: Rig, acquirer: Acquirer) -> None:
    token = await acquirer.token("4000990000090005", rig.new_dpan())
    purchase = acquirer.purchase(1000)
    assert (await acquirer.ask(messages.authorization(purchase, token, None))).get(39) == "00"
    named = original(purchase)
    assert (await acquirer.ask(messages.capture(acquirer.purchase(1000), token, named, "", final=True))).get(39) == "00"
    assert (await acquirer.ask(messages.refund(acquirer.purchase(1000), token, named))).get(39) == "05"


async def test_the_journal_survives_a_restart_and_holds_no_card_number(tmp_path: Path, rig: Rig) -> None:
    config = simulator_config(tmp_path, journal_file=tmp_path / "kept.sqlite3")
    dpan = rig.new_dpan()
    async with SimulatorServer(config) as first:
        acquirer = Acquirer(first.port)
        token = await acquirer.token("5555555555554444", dpan)
        purchase = acquirer.purchase()
        answered = await acquirer.ask(messages.authorization(purchase, token, None))
    async with SimulatorServer(config) as second:
        again = await Acquirer(second.port).ask(messages.authorization(purchase, token, None, repeat=True))
        assert again.fields == answered.fields
    database = sqlite3.connect(config.journal_file)
    dump = "\n".join(database.iterdump())
    database.close()
    raw = _bytes_of(tmp_path)
    for number in (dpan, "5555555555554444"):
        assert number not in dump
        assert number.encode() not in raw
    assert "555555" in dump, "the mask is there"


@pytest_asyncio.fixture
async def control(tmp_path: Path) -> AsyncIterator[tuple[SimulatorServer, httpx.AsyncClient]]:
    config = simulator_config(
        tmp_path, journal_file=tmp_path / "controlled.sqlite3", control_port=0, control_token=TOKEN
    )
    async with (
        SimulatorServer(config) as simulator,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{simulator.control_port}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as client,
    ):
        yield simulator, client


async def test_the_control_api_is_closed_without_its_token(
    control: tuple[SimulatorServer, httpx.AsyncClient],
) -> None:
    _, client = control
    assert (await client.get("/health", headers={"Authorization": ""})).status_code == 200
    for wrong in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}"):
        headers = {"Authorization": wrong}
        assert (await client.get("/journal", headers=headers)).status_code == 401
        assert (await client.post("/faults", headers=headers, json={"drop_answers": 1})).status_code == 401
        assert (await client.delete("/faults", headers=headers)).status_code == 401


async def test_faults_are_set_bounded_used_up_and_reset(
    control: tuple[SimulatorServer, httpx.AsyncClient], rig: Rig
) -> None:
    simulator, client = control
    changed = await client.post("/faults", json={"drop_answers": 1, "delay_seconds": 0.01})
    assert changed.json() == Faults(drop_answers=1, delay_seconds=0.01).model_dump()
    acquirer = Acquirer(simulator.port)
    await acquirer.send(messages.provisioning(acquirer.trace(), Card(rig.new_dpan(), "4912"), VISA))

    async def used_up() -> bool:
        return simulator.faults.drop_answers == 0

    await eventually(used_up, "the dropped answer")
    acquirer.close()
    assert (await client.get("/faults")).json()["drop_answers"] == 0
    assert (await client.post("/faults", json={"drop_connections": 2})).json()["delay_seconds"] == 0.01
    assert (await client.delete("/faults")).json() == Faults().model_dump()
    for refused in ({"delay_seconds": 61}, {"drop_answers": -1}, {"unknown": 1}, {"delay_seconds": "NaN"}):
        assert (await client.post("/faults", json=refused)).status_code == 422


async def test_the_journal_is_asked_by_rrn_and_time(
    control: tuple[SimulatorServer, httpx.AsyncClient], rig: Rig
) -> None:
    simulator, client = control
    gateway = await rig.gateway(port=simulator.port)
    dpan = await rig.token(gateway)
    outcomes = [await gateway.authorize(await rig.command(dpan)) for _ in range(3)]
    wanted = [outcome.rrn for outcome in outcomes[:2]]
    found = (await client.get("/journal", params={"rrn": wanted})).json()
    assert [entry["rrn"] for entry in found["authorizations"]] == wanted
    assert [entry["mti"] for entry in found["messages"]] == ["0100", "0100"]
    since = {"since": found["messages"][-1]["received_at"]}
    later = (await client.get("/journal", params=since)).json()
    assert [entry["rrn"] for entry in later["messages"]] == [outcome.rrn for outcome in outcomes[1:]]
    assert dpan not in (await client.get("/journal")).text
    for refused in ({"payment": "pay_1"}, {"since": "yesterday"}, {"since": "2025-10-21T00:00:00"}):
        assert (await client.get("/journal", params=refused)).status_code == 422


async def test_the_simulator_runs_as_a_process_and_ends_on_sigterm(tmp_path: Path, rig: Rig) -> None:
    port, control_port = _free_port(), _free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DURAPAY_SIMULATOR_PORT": str(port),
        "DURAPAY_SIMULATOR_CONTROL_PORT": str(control_port),
        "DURAPAY_SIMULATOR_CONTROL_TOKEN": TOKEN,
        "DURAPAY_SIMULATOR_JOURNAL_FILE": str(tmp_path / "process.sqlite3"),
        "DURAPAY_SIMULATOR_IMK_AC": IMK_AC.hex(),
        "DURAPAY_SIMULATOR_FINGERPRINT_KEY": FINGERPRINT_KEY.hex(),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "network.simulator", env=environment)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{control_port}") as client:

            async def healthy() -> bool:
                try:
                    return (await client.get("/health")).status_code == 200
                except httpx.TransportError:
                    return process.returncode is not None

            await eventually(healthy, "the control API")
        gateway = await rig.gateway(port=port)
        dpan = await rig.token(gateway)
        assert isinstance(await gateway.authorize(await rig.command(dpan)), Approved)
        declined = await gateway.authorize(await rig.command(await rig.token(gateway, "4000000000000002")))
        assert isinstance(declined, Declined)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


def _bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("kept.sqlite3*"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
