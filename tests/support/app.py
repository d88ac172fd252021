"""A phone with the wallet app on it: it has a publishable key, reads its owner's messages, and keeps a session."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from secrets import randbelow
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from store.api_keys import PUBLISHABLE, NewKey, issue_key
from tests.support.platform import Access
from tests.support.shop import Json, Sandbox, http_client, new_key, until

PASSWORD = "otters juggle on tuesdays"


@dataclass(frozen=True, slots=True)
class Someone:
    """A person who may become a user."""

    name: str = "Grace Hopper"
    email: str = field(default_factory=lambda: f"grace.{secrets.token_hex(6)}@example.com")
    phone: str = field(default_factory=lambda: f"+1415{randbelow(10_000_000):07d}")
    password: str | None = PASSWORD

    def body(self, **changed: Any) -> Json:
        person = {"name": self.name, "email": self.email, "phone": self.phone, "password": self.password}
        return {name: value for name, value in (person | changed).items() if value is not None}


class App:
    """`http` sends the publishable key of one account with each request."""

    def __init__(self, access: Access, key: str, sandbox: Sandbox) -> None:
        self.http = http_client(access, key)
        self.access = access
        self.sandbox = sandbox

    @classmethod
    async def of(cls, access: Access, engine: AsyncEngine, account_id: str, sandbox: Sandbox) -> App:
        async with engine.begin() as connection:
            key = (await issue_key(connection, account_id, NewKey(kind=PUBLISHABLE))).key
        return cls(access, key, sandbox)

    async def post(self, path: str, body: Json | None = None, *, token: str | None = None) -> httpx.Response:
        # Each request comes from another address, as far as the API can tell: failures are counted by address, too.
        headers = {"Idempotency-Key": new_key(), "X-Forwarded-For": f"198.18.{randbelow(256)}.{randbelow(256)}"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return await self.http.post(path, json=body or {}, headers=headers)

    async def get(self, path: str, token: str) -> httpx.Response:
        return await self.http.get(path, headers={"Authorization": f"Bearer {token}"})

    async def begin(self, someone: Someone) -> Json:
        response = await self.post("/v1/registrations", someone.body())
        assert response.status_code == 201, response.text
        registration: Json = response.json()
        return registration

    async def code(self, to: str, known: int = 0) -> str:
        """The newest code that `to` was sent, once there are more messages than the `known` ones."""
        messages = await until(lambda: self.sandbox.messages(to), lambda found: len(found) > known)
        return code_in(messages[0])

    async def verify(self, registration_id: str, contact: str, code: str) -> httpx.Response:
        return await self.post(f"/v1/registrations/{registration_id}/verify_{contact}", {"code": code})

    async def register(self, someone: Someone) -> Json:
        """The whole way of a new user; the completed registration, with its session."""
        registration = await self.begin(someone)
        for contact, address in (("phone", someone.phone), ("email", someone.email)):
            response = await self.verify(registration["id"], contact, await self.code(address))
            assert response.status_code == 200, response.text
        completed: Json = response.json()
        return completed

    async def sign_in(self, **body: Any) -> httpx.Response:
        return await self.post("/v1/sessions", body)

    async def refresh(self, refresh_token: str) -> httpx.Response:
        return await self.http.post("/v1/sessions/refresh", json={"refresh_token": refresh_token})

    async def close(self) -> None:
        await self.http.aclose()


def code_in(message: Json) -> str:
    # An e-mail has it in its subject; its body has colours, which are six digits, too.
    found = re.search(r"\b\d{6}\b", f"{message['title']} {message['body']}")
    assert found is not None, message
    return found.group()


def wrong(code: str) -> str:
    """Six other digits."""
    return f"{(int(code) + 1) % 1_000_000:06d}"
