"""The link on real TCP, against a host that does whatever the test tells it to."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import itertools
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from domain.outcomes import DoubtReason
from network import messages
from network.codec import Message, encode
from network.errors import DuplicateInFlight, InDoubt, Unreachable
from network.framing import KEEP_ALIVE, frame
from network.link import NetworkLink, Prepared, prepare
from network.messages import Acceptor, Card, Purchase, Trace
from network.simulator import SimulatorServer
from tests.integration.network.rig import (
    ACQUIRER_ID,
    IMPATIENCE_SECONDS,
    MERCHANT,
    PATIENCE_SECONDS,
    ScriptedHost,
    approve,
    eventually,
    simulator_config,
    usd,
)

_STANS = itertools.count(1)


def request(stan: int | None = None) -> Prepared:
    stan = next(_STANS) if stan is None else stan
    trace = Trace("1021143000", f"{stan:06d}", ACQUIRER_ID, f"529414{stan:06d}")
    purchase = Purchase(trace, usd(1050), Acceptor.of(MERCHANT, "00000001"))
    return prepare(messages.authorization(purchase, Card("4895370012345676", "4912"), None))


def deadline(seconds: float = PATIENCE_SECONDS) -> float:
    return asyncio.get_running_loop().time() + seconds


@asynccontextmanager
async def connected(port: int, **options: object) -> AsyncIterator[NetworkLink]:
    link = NetworkLink("127.0.0.1", port, **options)  # type: ignore[arg-type]
    link.start()
    try:
        assert await link.wait_until_ready(PATIENCE_SECONDS)
        yield link
    finally:
        await link.close()


async def test_the_link_signs_on_echoes_and_signs_off() -> None:
    async with ScriptedHost() as host:
        async with connected(host.port, echo_interval_seconds=0.05):

            async def echoed() -> bool:
                return [message.get(70) for message in host.received[:3]] == ["001", "301", "301"]

            await eventually(echoed, "two echoes")
        assert host.received[-1].get(70) == "002"
        assert host.connections == 1


async def test_an_unanswered_echo_ends_the_connection_and_a_new_one_is_made() -> None:
    async with ScriptedHost() as host:
        host.answers_echo = False
        async with connected(host.port, echo_interval_seconds=0.05, control_timeout_seconds=0.2):

            async def reconnected() -> bool:
                return host.connections > 1

            await eventually(reconnected, "a second connection")


async def test_an_echo_of_the_host_is_answered() -> None:
    async with ScriptedHost() as host, connected(host.port):
        host.write(frame(encode(messages.network_management(messages.ECHO, "000777", "1021143000"))))

        async def answered() -> bool:
            return any(message.mti == "0810" and message.get(11) == "000777" for message in host.received)

        await eventually(answered, "the echo's answer")


async def test_answers_in_another_order_reach_their_own_requests() -> None:
    waiting: list[Message] = []

    def hold_back(message: Message) -> list[bytes]:
        waiting.append(message)
        return [approve(kept) for kept in reversed(waiting)] if len(waiting) == 100 else []

    async with ScriptedHost(hold_back) as host, connected(host.port) as link:
        requests = [request() for _ in range(100)]
        answers = await asyncio.gather(*(link.request(prepared, deadline()) for prepared in requests))
        assert [answer.get(37) for answer in answers] == [prepared.message.get(37) for prepared in requests]


async def test_a_sliced_answer_and_glued_answers_are_understood() -> None:
    held: list[bytes] = []

    def slice_or_glue(message: Message) -> list[bytes]:
        if len(held) < 2:
            held.append(approve(message))
            return [bytes((byte,)) for byte in held[0]] if len(held) == 1 else []
        return [KEEP_ALIVE + held[1] + KEEP_ALIVE + approve(message)]

    async with ScriptedHost(slice_or_glue) as host, connected(host.port) as link:
        assert (await link.request(request(), deadline())).get(39) == "00"
        glued = await asyncio.gather(*(link.request(request(), deadline()) for _ in range(2)))
        assert [answer.get(39) for answer in glued] == ["00", "00"]


MALFORMED = {
    "a bitmap that announces what is not there": frame(b"0110" + b"\xff" * 16 + b"0" * 40),
    "a message that is none": frame(b"GET / HTTP/1.1\r\n\r\n"),
    "a length beyond the bound": b"\xff\xff" + b"x" * 100,
    "a megabyte": b"\x20\x01" * 512 * 1024,
}


@pytest.mark.parametrize("garbage", MALFORMED.values(), ids=MALFORMED)
async def test_garbage_resets_the_link_and_leaves_what_waits_in_doubt(garbage: bytes) -> None:
    async with ScriptedHost(lambda _: [garbage]) as host, connected(host.port) as link:
        with pytest.raises(InDoubt) as doubt:
            await link.request(request(), deadline())
        assert doubt.value.reason is DoubtReason.CONNECTION_LOST
        host.script = lambda message: [approve(message)]
        assert await link.wait_until_ready(PATIENCE_SECONDS)
        assert (await link.request(request(), deadline())).get(39) == "00"


async def test_nothing_leaves_while_the_link_is_down() -> None:
    async with ScriptedHost() as host:
        port = host.port
    link = NetworkLink("127.0.0.1", port)
    link.start()
    with pytest.raises(Unreachable):
        await link.request(request(), deadline())
    assert not await link.wait_until_ready(0.1)
    await link.close()


async def test_a_connection_lost_after_the_write_leaves_the_request_in_doubt() -> None:
    async with ScriptedHost() as host, connected(host.port) as link:
        asking = asyncio.create_task(link.request(request(), deadline()))

        async def arrived() -> bool:
            return bool(host.of_type("0100"))

        await eventually(arrived, "the request at the host")
        host.disconnect()
        with pytest.raises(InDoubt) as doubt:
            await asking
        assert doubt.value.reason is DoubtReason.CONNECTION_LOST


async def test_no_answer_until_the_deadline_is_doubt_and_the_late_one_goes_to_the_callback() -> None:
    unmatched: list[Message] = []
    async with ScriptedHost() as host, connected(host.port) as link:
        link.on_unmatched(unmatched.append)
        prepared = request()
        with pytest.raises(InDoubt) as doubt:
            await link.request(prepared, deadline(IMPATIENCE_SECONDS))
        assert doubt.value.reason is DoubtReason.TIMEOUT
        host.write(approve(prepared.message))

        async def delivered() -> bool:
            return [message.get(37) for message in unmatched] == [prepared.message.get(37)]

        await eventually(delivered, "the late answer")


async def test_a_request_whose_time_has_passed_is_never_written() -> None:
    async with ScriptedHost(lambda message: [approve(message)]) as host, connected(host.port) as link:
        with pytest.raises(Unreachable):
            await link.request(request(), deadline(0))
        await link.request(request(), deadline())
        assert len(host.of_type("0100")) == 1


async def test_a_second_request_with_the_same_key_is_refused_while_the_first_waits() -> None:
    async with ScriptedHost() as host, connected(host.port) as link:
        prepared = request()
        first = asyncio.create_task(link.request(prepared, deadline()))

        async def arrived() -> bool:
            return bool(host.of_type("0100"))

        await eventually(arrived, "the request at the host")
        with pytest.raises(DuplicateInFlight):
            await link.request(prepared, deadline())
        host.write(approve(prepared.message))
        assert (await first).get(39) == "00"
        assert len(host.of_type("0100")) == 1


@pytest.mark.parametrize("changed", [{"de4": "000000009999"}, {"de37": "999999999999"}, {"de49": "978"}])
async def test_an_answer_about_something_else_is_refused(changed: dict[str, str]) -> None:
    async with ScriptedHost(lambda message: [approve(message, **changed)]) as host, connected(host.port) as link:
        with pytest.raises(InDoubt) as doubt:
            await link.request(request(), deadline())
        assert doubt.value.reason is DoubtReason.INVALID_ANSWER


@pytest.mark.parametrize("changed", [{"de11": "999999"}, {"de7": "0101000000"}, {"de32": "400999"}])
async def test_an_answer_under_another_key_answers_nobody(changed: dict[str, str]) -> None:
    unmatched: list[Message] = []
    script = lambda message: [approve(message, **changed), approve(message)]  # noqa: E731
    async with ScriptedHost(script) as host, connected(host.port) as link:
        link.on_unmatched(unmatched.append)
        assert (await link.request(request(), deadline())).get(39) == "00"
        assert len(unmatched) == 1


async def test_a_canceled_caller_leaves_no_waiter_behind() -> None:
    async with ScriptedHost() as host, connected(host.port) as link:
        prepared = request()
        asking = asyncio.create_task(link.request(prepared, deadline()))

        async def arrived() -> bool:
            return bool(host.of_type("0100"))

        await eventually(arrived, "the request at the host")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        host.script = lambda message: [approve(message)]
        assert (await link.request(prepared, deadline())).get(39) == "00"


async def test_a_refused_connection_is_tried_again_until_it_stands(tmp_path: Path) -> None:
    async with SimulatorServer(simulator_config(tmp_path)) as simulator:
        simulator.faults.refuse_connections = True
        link = NetworkLink("127.0.0.1", simulator.port)
        link.start()
        assert not await link.wait_until_ready(0.3)
        simulator.reset_faults()
        assert await link.wait_until_ready(PATIENCE_SECONDS)
        await link.close()


async def test_the_host_closes_the_connection_of_an_acquirer_that_sends_garbage(tmp_path: Path) -> None:
    async with SimulatorServer(simulator_config(tmp_path)) as simulator:
        for garbage in MALFORMED.values():
            reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            writer.write(garbage)
            with pytest.raises((ConnectionError, EOFError)):  # noqa: PT012 - either way, it ends
                while await reader.read(1024):
                    pass
                raise EOFError
            writer.close()
        async with connected(simulator.port) as link:
            assert link.ready


async def test_the_link_runs_over_tls_and_refuses_an_unknown_host(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    async with SimulatorServer(simulator_config(tmp_path, tls=server)) as simulator:
        async with connected(simulator.port, tls=ssl.create_default_context(cafile=certificate)) as link:
            answer = await link.request(request(), deadline())
            assert answer.get(39) == "14"
        stranger = NetworkLink("127.0.0.1", simulator.port, tls=ssl.create_default_context())
        stranger.start()
        assert not await stranger.wait_until_ready(0.3)
        await stranger.close()


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulator")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"
