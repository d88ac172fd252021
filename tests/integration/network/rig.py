"""A platform's end of the network in a test: a vault's part (boxes, cryptograms), gateways, and hosts to talk to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.cards import luhn_check_digit
from domain.currency import Currency
from domain.disputes import ChargebackNotice
from domain.merchants import Merchant
from domain.money import Money
from domain.network import AuthorizeCommand, LateAnswer, ProvisionCommand, SealedCredential
from network.codec import Message, decode, encode
from network.errors import NotAcknowledged, Unreachable
from network.framing import FrameDecoder, frame
from network.gateway import NetworkGateway
from network.link import NetworkLink
from network.messages import APPROVED, answer
from network.simulator import SimulatorConfig
from network.simulator.emv import card_key, retail_mac, session_key
from sealing import AUTHENTICATION_PURPOSE, PAN_PURPOSE, PROVISIONING_PURPOSE, Sealer, Unsealer

IMK_AC = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
FINGERPRINT_KEY = bytes(range(32))
ACQUIRER_ID = "400123"
MERCHANT = Merchant("shop_1", "Corner Shop", "5411", "Springfield", "US")
VISA = "4242424242424242"

# No test waits this long for an answer that comes; those that want none use `impatient`.
PATIENCE_SECONDS = 20.0
IMPATIENCE_SECONDS = 0.4


def usd(amount_minor: int) -> Money:
    return Money(amount_minor, Currency.USD)


def simulator_config(folder: Path, **changes: object) -> SimulatorConfig:
    values: dict[str, object] = {
        "journal_file": folder / "simulator.sqlite3",
        "imk_ac": IMK_AC,
        "fingerprint_key": FINGERPRINT_KEY,
    }
    return SimulatorConfig(**{**values, **changes})  # type: ignore[arg-type]


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Polls until `condition` holds; far beyond any delay of a loaded machine it gives up."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - the other side has no event to wait for
            await asyncio.sleep(0.02)
    assert what


async def journaled(engine: AsyncEngine, effect_key: str) -> dict[str, Any]:
    """The row of `effect_key` in our journal."""
    async with engine.connect() as connection:
        result = await connection.execute(
            text("SELECT * FROM network.messages WHERE effect_key = :key"), {"key": effect_key}
        )
        return dict(result.mappings().one())


async def until_sent(call: Callable[[Any], Awaitable[Any]], command: Any) -> Any:
    """What `call` makes of `command`: an impatient gateway may find its time over before it has written anything."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await call(command)
            except Unreachable:
                await asyncio.sleep(0.02)


async def until_reachable(call: Callable[[Any], Awaitable[Any]], command: Any) -> Any:
    """The same for what is repeated until it is acknowledged."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await call(command)
            except (Unreachable, NotAcknowledged):
                await asyncio.sleep(0.02)


@dataclass
class Rig:
    """Makes gateways on one database and Redis, and credentials for them as the vault would."""

    engine: AsyncEngine
    redis: Redis
    port: int
    private_key: bytes = field(default_factory=lambda: X25519PrivateKey.generate().private_bytes_raw())
    late_answers: list[LateAnswer] = field(default_factory=list)
    chargebacks: list[ChargebackNotice] = field(default_factory=list)
    deaf: bool = False
    gateways: list[NetworkGateway] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def sealer(self) -> Sealer:
        public_key = X25519PrivateKey.from_private_bytes(self.private_key).public_key()
        return Sealer(public_key.public_bytes_raw())

    async def gateway(
        self,
        *,
        answer_timeout_seconds: float = PATIENCE_SECONDS,
        port: int | None = None,
        wait_seconds: float = PATIENCE_SECONDS,
    ) -> NetworkGateway:
        """A started gateway with a link of its own, closed at the end of the test."""
        link = NetworkLink("127.0.0.1", self.port if port is None else port)
        gateway = NetworkGateway(
            self.engine,
            self.redis,
            Unsealer([self.private_key]),
            link,
            ACQUIRER_ID,
            answer_timeout_seconds,
            self.on_late_answer,
            self.on_chargeback,
        )
        self.gateways.append(gateway)
        await gateway.start(wait_seconds=wait_seconds)
        assert link.ready == (wait_seconds > 0)
        return gateway

    async def impatient(self, port: int | None = None) -> NetworkGateway:
        """A gateway for requests that get no answer."""
        return await self.gateway(answer_timeout_seconds=IMPATIENCE_SECONDS, port=port)

    async def disconnected(self) -> NetworkGateway:
        """A gateway whose host is not there."""
        return await self.gateway(port=await closed_port(), wait_seconds=0)

    async def on_late_answer(self, late: LateAnswer) -> None:
        if self.deaf:
            raise ConnectionError("the receiver of late answers is away")
        self.late_answers.append(late)

    async def on_chargeback(self, notice: ChargebackNotice) -> None:
        if self.deaf:
            raise ConnectionError("the receiver of disputes is away")
        self.chargebacks.append(notice)

    async def leave_sending(self, command: AuthorizeCommand, attempts: int = 1) -> None:
        """Journals `command` as a worker does that dies between its commit and the network."""
        gateway = await self.disconnected()
        with pytest.raises(Unreachable):
            await gateway.authorize(command)
        async with self.engine.begin() as connection:
            await connection.execute(
                text(
                    "UPDATE network.messages SET state = 'sending', attempts = :attempts, sent_at = now()"
                    " WHERE effect_key = :key"
                ),
                {"key": command.effect_key, "attempts": attempts},
            )

    def key(self, step: str) -> str:
        return f"pay_{secrets.token_hex(8)}:{step}:1"

    def new_dpan(self) -> str:
        payload = f"489537{secrets.randbelow(10**9):09d}"
        return payload + luhn_check_digit(payload)

    def provision_command(self, pan: str, dpan: str, exp: str = "4912") -> ProvisionCommand:
        box = self.sealer.seal(PROVISIONING_PURPOSE, {"dpan": dpan, "pan": pan, "exp": exp})
        return ProvisionCommand(self.key("provision"), f"tok_{dpan[-6:]}", box)

    async def token(self, gateway: NetworkGateway, pan: str = VISA) -> str:
        """A new device number that the host knows for `pan`."""
        dpan = self.new_dpan()
        await gateway.provision(self.provision_command(pan, dpan))
        return dpan

    async def command(
        self, dpan: str, amount_minor: int = 1050, *, effect_key: str | None = None, cvv: str | None = None
    ) -> AuthorizeCommand:
        """A command to authorize, its cryptogram waiting in Redis."""
        money = usd(amount_minor)
        handle = f"authentication/{secrets.token_hex(8)}"
        content = self.authentication(dpan, money) | ({"cvv": cvv} if cvv else {})
        await self.redis.set(handle, self.sealer.seal(AUTHENTICATION_PURPOSE, content), ex=300)
        effect_key = effect_key or self.key("authorize")
        return AuthorizeCommand(
            effect_key, effect_key.partition(":")[0], money, MERCHANT, self.credential(dpan, handle)
        )

    def credential(self, dpan: str, handle: str | None, exp: str = "4912") -> SealedCredential:
        box = self.sealer.seal(PAN_PURPOSE, {"dpan": dpan, "exp": exp, "psn": "00"})
        return SealedCredential(f"tok_{dpan[-6:]}", box, handle)

    def authentication(self, dpan: str, money: Money, *, atc: int | None = None) -> dict[str, str]:
        """What the vault puts under the handle: the cryptogram (Visa CVN 18) and all that goes into it."""
        content = {
            "amount_other": "000000000000",
            "terminal_country": "0840",
            "tvr": "0000000000",
            "transaction_date": "251021",
            "transaction_type": "00",
            "unpredictable_number": secrets.token_hex(4),
            "aip": "1800",
            "atc": f"{next(self._numbers) if atc is None else atc:04x}",
            "iad": "06011203A00000",
        }
        before = f"{money.amount_minor:012d}" + content["amount_other"] + content["terminal_country"] + content["tvr"]
        after = "".join(
            content[name]
            for name in ("transaction_date", "transaction_type", "unpredictable_number", "aip", "atc", "iad")
        )
        signed = bytes.fromhex(f"{before}0{money.currency.numeric}{after}")
        key = session_key(card_key(IMK_AC, dpan, "00"), bytes.fromhex(content["atc"]))
        return content | {"cryptogram": retail_mac(key, signed).hex()}


# What a scripted host does with a request: the raw bytes that it writes back, in this order.
Script = Callable[[Message], list[bytes]]


class ScriptedHost:
    """A host that does what no simulator should: it answers sign-on and echo, and leaves the rest to `script`."""

    def __init__(self, script: Script = lambda _: []) -> None:
        self.script = script
        self.received: list[Message] = []
        self.answers_echo = True
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.disconnect()

    def disconnect(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def write(self, raw: bytes) -> None:
        """Writes to every connection."""
        for writer in self._writers:
            writer.write(raw)

    def of_type(self, mti: str) -> list[Message]:
        return [message for message in self.received if message.mti == mti]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        decoder = FrameDecoder()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                for raw in decoder.feed(data):
                    await self._answer(decode(raw), writer)
        self._writers.discard(writer)
        writer.transport.abort()

    async def _answer(self, message: Message, writer: asyncio.StreamWriter) -> None:
        self.received.append(message)
        if message.mti == "0800":
            if message.get(70) != "301" or self.answers_echo:
                writer.write(frame(encode(answer(message, APPROVED))))
            return
        for part in self.script(message):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)


def approve(message: Message, **changes: str) -> bytes:
    """The framed approval of `message`; `changes` are fields by number (`de4="…"`)."""
    approved = answer(message, APPROVED, {38: "123456"})
    fields = {**approved.fields, **{int(name[2:]): value for name, value in changes.items()}}
    return frame(encode(Message(approved.mti, fields)))


async def closed_port() -> int:
    """A port on which nobody listens."""
    async with ScriptedHost() as host:
        return host.port
