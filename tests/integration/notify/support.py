"""The sandbox as a process, and users and messages of each test's own."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import httpx
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import ACCOUNT, PAYMENT, USER, effect_key, new_id
from embedded.processes import free_port
from embedded.servers import PythonModule
from notify.messages import ChannelName, Content, Kind, Notification, Outgoing
from notify.push_tokens import Platform, register
from notify.sandbox.credentials import write_service_account
from store.models.platform import Account, User

ROOT = Path(__file__).parent.parent.parent.parent

# Long enough for a busy machine, short enough for a test of what happens after it.
TIMEOUT_SECONDS = 2.0


class SesAccount(TypedDict):
    region: str
    access_key_id: str
    secret_access_key: str
    sender: str


@dataclass
class Sandbox:
    """The sandbox process and what it can be asked."""

    folder: Path
    ses_endpoint: str
    port: int = field(default_factory=free_port)
    control_token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    account_sid: str = "AC" + "0" * 32
    auth_token: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.service_account = self.folder / "service-account.json"
        write_service_account(self.service_account, self.endpoint)
        self.client = httpx.AsyncClient(base_url=self.endpoint, timeout=10, trust_env=False)
        self.authorization = {"Authorization": f"Bearer {self.control_token}"}

    async def start(self) -> None:
        environment = {
            "DURAPAY_SANDBOX_PORT": str(self.port),
            "DURAPAY_SANDBOX_CONTROL_TOKEN": self.control_token,
            "DURAPAY_SANDBOX_STATE": str(self.folder / "messages.sqlite"),
            "DURAPAY_NOTIFY_TWILIO_ACCOUNT_SID": self.account_sid,
            "DURAPAY_NOTIFY_TWILIO_AUTH_TOKEN": self.auth_token,
            "DURAPAY_NOTIFY_FCM_SERVICE_ACCOUNT_FILE": str(self.service_account),
            "DURAPAY_NOTIFY_SES_ENDPOINT": self.ses_endpoint,
        }
        self._program = PythonModule(
            "sandbox",
            "notify.sandbox",
            log=self.folder / "log",
            env=environment,
            port=self.port,
            health_url=f"{self.endpoint}/healthz",
            cwd=ROOT,
        )
        await self._program.start()

    async def stop(self) -> None:
        await self._program.stop()

    async def fail(self, provider: str, **fault: Any) -> None:
        answer = await self.client.post("/faults", json={"provider": provider, **fault}, headers=self.authorization)
        answer.raise_for_status()

    async def heal(self) -> None:
        (await self.client.delete("/faults", headers=self.authorization)).raise_for_status()

    async def messages(self, to: str) -> list[dict[str, Any]]:
        data: list[dict[str, Any]] = (await self.client.get("/messages", params={"to": to})).json()["data"]
        return data


@dataclass
class Person:
    """A user with addresses that no other test has."""

    user_id: str
    email: str | None
    phone: str | None
    push_tokens: tuple[str, ...]

    def addresses(self) -> dict[ChannelName, str]:
        assert self.email is not None
        assert self.phone is not None
        return {ChannelName.PUSH: self.push_tokens[0], ChannelName.SMS: self.phone, ChannelName.EMAIL: self.email}


async def new_person(
    engine: AsyncEngine,
    *,
    email: str | None = "",
    phone: str | None = "",
    push_tokens: tuple[str, ...] | None = None,
    locale: str = "en",
) -> Person:
    """An empty string is an address of the person's own, None is no address."""
    user_id, account_id = new_id(USER), new_id(ACCOUNT)
    person = Person(
        user_id,
        f"{user_id}@example.com" if email == "" else email,
        f"+49151{secrets.randbelow(10**8):08}" if phone == "" else phone,
        (f"device-{user_id}",) if push_tokens is None else push_tokens,
    )
    async with engine.begin() as connection:
        await connection.execute(insert(Account).values(id=account_id, name=account_id))
        await connection.execute(
            insert(User).values(
                id=user_id,
                account_id=account_id,
                name="Ada Lovelace",
                email=person.email,
                phone=person.phone,
                locale=locale,
            )
        )
        for token in person.push_tokens:
            await register(connection, user_id, token, Platform.ANDROID)
    return person


def notification(person: Person, kind: Kind = Kind.PAYMENT_AUTHORIZED, **facts: str) -> Notification:
    """A notification with a key of its own."""
    given = {"amount": "42.00 EUR", "merchant": "Blue Bottle", "last4": "4242", **facts}
    return Notification(effect_key(new_id(PAYMENT), f"notify:{kind}"), person.user_id, kind, given)


def outgoing(title: str = "A title", body: str = "A body", html: str | None = None) -> Outgoing:
    """A message with ids of its own, for the tests of single channels."""
    payment_id = new_id(PAYMENT)
    content = Content(title, body, html)
    return Outgoing(f"msg_{payment_id}", f"{payment_id}:notify", "usr_1", Kind.PAYMENT_AUTHORIZED, content)
