"""The keys of persons: one for each user of whom something personal is kept, each wrapped by a key of the HSM.

The wrapping keys say when they go. `PDK-standing` wraps the keys of all users that are there. When a user is closed,
the key is wrapped anew by the key of all who close in that month, `PDK-closed-2026-11`. Years later, when the last of
them is erased, that key is destroyed in the HSM, and with it all that was ever wrapped by it: backups of the database,
too, hold only what nothing opens any more. (Backups from before the closure are older than any that is kept.)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.errors import DurapayError
from domain.ids import PERSONAL_KEY, new_id
from sealing import Sealer
from sealing.personal import KEY_BYTES, LOAN_PURPOSE
from vault.errors import VaultUnavailable
from vault.hsm.provider import Encrypted, HsmProvider, HsmUnavailable, KeyKind, KeyMissing
from vault.keys import binding

_Result = TypeVar("_Result")

_STANDING = "PDK-standing"
_CLOSED = "PDK-closed-"
# A worker that takes longer than this asks again.
LOAN_SECONDS = 5 * 60
_HANDLE_BYTES = 16


class PersonalKeyDestroyed(DurapayError):
    """The user is erased: there is no key any more, and there will be none."""

    def __init__(self, user_id: str) -> None:
        super().__init__(f"the key of {user_id} is destroyed")


@dataclass(frozen=True, slots=True)
class PersonalKey:
    """A user's data key in clear, for as long as a call needs it."""

    key_id: str
    key: bytes = field(repr=False)


class PersonalKeys:
    """Every method raises HsmUnavailable or VaultUnavailable when a part cannot be reached; trying again is safe.

    `borrower` closes boxes for the onboarding worker; without one, nothing is lent.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        redis: Redis,
        provider: HsmProvider,
        borrower: Sealer | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        hsm_seconds: float = 5.0,
    ) -> None:
        self._engine = engine
        self._redis = redis
        self._hsm = provider
        self._borrower = borrower
        self._clock = clock
        self._hsm_seconds = hsm_seconds
        self._executor = ThreadPoolExecutor(provider.concurrency, thread_name_prefix="hsm")

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def key_of(self, user_id: str) -> PersonalKey:
        """The user's key; the first time a new one.

        Raises:
            PersonalKeyDestroyed
        """
        try:
            async with self._engine.begin() as connection:
                found = await _find(connection, user_id)
                if found is None:
                    found = await self._make(connection, user_id)
        except _UNREACHABLE as error:
            raise _unavailable(error) from None
        return await self._open(user_id, found)

    async def lend(self, user_id: str) -> str:
        """A handle under which the onboarding worker, and nobody else, finds the user's key for five minutes.

        Raises:
            PersonalKeyDestroyed
        """
        if self._borrower is None:
            raise VaultUnavailable("this process lends no keys")
        key = await self.key_of(user_id)
        box = self._borrower.seal(LOAN_PURPOSE, {"user_id": user_id, "key_id": key.key_id, "key": key.key.hex()})
        handle = f"personal-key:{secrets.token_urlsafe(_HANDLE_BYTES)}"
        try:
            await self._redis.set(handle, box, ex=LOAN_SECONDS)
        except RedisError as error:
            raise VaultUnavailable(f"the vault's cache cannot be reached ({type(error).__name__})") from None
        return handle

    async def retire(self, user_id: str) -> None:
        """The user is closed: the key is wrapped by that of this month's closures. Repeating this changes nothing."""
        month = self._closed_label()
        try:
            async with self._engine.begin() as connection:
                found = await _find(connection, user_id, lock=True)
                if found is None or found.destroyed_at is not None or found.wrapped_by != _STANDING:
                    return
                key = await self._open(user_id, found)
                wrapped = await self._wrap(connection, month, user_id, key)
                await connection.execute(
                    _REWRAP, {"id": key.key_id, "by": month, "iv": wrapped.iv, "key": wrapped.ciphertext}
                )
        except _UNREACHABLE as error:
            raise _unavailable(error) from None

    async def destroy(self, user_id: str) -> str | None:
        """Destroys the user's key, and the HSM's that wrapped it if it wraps no other any more.

        Returns the id of the key, None if there never was one. Repeating this changes nothing.
        """
        try:
            async with self._engine.begin() as connection:
                found = await _find(connection, user_id, lock=True)
                if found is None:
                    return None
                if found.destroyed_at is None:
                    await connection.execute(_DESTROY, {"id": found.id})
                identifier: str = found.id
                await self._sweep(connection)
        except _UNREACHABLE as error:
            raise _unavailable(error) from None
        return identifier

    def _closed_label(self) -> str:
        return f"{_CLOSED}{self._clock():%Y-%m}"

    async def _make(self, connection: AsyncConnection, user_id: str) -> Any:
        key = PersonalKey(new_id(PERSONAL_KEY), await self._in_hsm(lambda: self._hsm.random(KEY_BYTES)))
        wrapped = await self._wrap(connection, _STANDING, user_id, key)
        parameters = {"id": key.key_id, "user": user_id, "by": _STANDING}
        await connection.execute(_INSERT, parameters | {"iv": wrapped.iv, "key": wrapped.ciphertext})
        found = await _find(connection, user_id)
        assert found is not None
        return found

    async def _wrap(self, connection: AsyncConnection, label: str, user_id: str, key: PersonalKey) -> Encrypted:
        """`key` under the HSM's `label`, which is made if it is missing: one process at a time, and none while another
        takes the label away."""
        await connection.execute(_ONE_AT_A_TIME)

        def wrap() -> Encrypted:
            try:
                return self._hsm.encrypt(label, key.key, _bound(label, user_id, key.key_id))
            except KeyMissing:
                self._hsm.generate_key(label, KeyKind.DATA)
                return self._hsm.encrypt(label, key.key, _bound(label, user_id, key.key_id))

        return await self._in_hsm(wrap)

    async def _open(self, user_id: str, found: Any) -> PersonalKey:
        if found.destroyed_at is not None:
            raise PersonalKeyDestroyed(user_id)
        encrypted = Encrypted(bytes(found.iv), bytes(found.wrapped_key))
        aad = _bound(found.wrapped_by, user_id, found.id)
        return PersonalKey(found.id, await self._in_hsm(lambda: self._hsm.decrypt(found.wrapped_by, encrypted, aad)))

    async def _sweep(self, connection: AsyncConnection) -> None:
        """Destroys the keys of months that are over and of whose users nobody is left, also one that an attempt before
        this left behind."""
        await connection.execute(_ONE_AT_A_TIME)
        in_use = set((await connection.execute(_IN_USE)).scalars())
        this_month = self._closed_label()

        def destroy() -> None:
            for label in self._hsm.key_labels():
                # The labels sort as their months do.
                if label.startswith(_CLOSED) and label < this_month and label not in in_use:
                    self._hsm.destroy_key(label)

        await self._in_hsm(destroy)

    async def _in_hsm(self, work: Callable[[], _Result]) -> _Result:
        try:
            async with asyncio.timeout(self._hsm_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TimeoutError:
            raise HsmUnavailable("the HSM does not answer in time") from None


_UNREACHABLE = (OperationalError, InterfaceError, PoolTimeout)


def _unavailable(error: Exception) -> VaultUnavailable:
    return VaultUnavailable(f"the vault's database cannot be reached ({type(error).__name__})")


def _bound(label: str, user_id: str, key_id: str) -> bytes:
    return binding("personal-key", user_id, key_id, label)


async def _find(connection: AsyncConnection, user_id: str, *, lock: bool = False) -> Any:
    return (await connection.execute(_FIND_LOCKED if lock else _FIND, {"user": user_id})).one_or_none()


_FIND = text("SELECT * FROM vault.personal_keys WHERE user_id = :user")
_FIND_LOCKED = text("SELECT * FROM vault.personal_keys WHERE user_id = :user FOR UPDATE")
_INSERT = text("""
INSERT INTO vault.personal_keys (id, user_id, wrapped_by, iv, wrapped_key) VALUES (:id, :user, :by, :iv, :key)
ON CONFLICT (user_id) DO NOTHING
""")
_REWRAP = text("UPDATE vault.personal_keys SET wrapped_by = :by, iv = :iv, wrapped_key = :key WHERE id = :id")
_DESTROY = text("""
UPDATE vault.personal_keys SET wrapped_by = NULL, iv = NULL, wrapped_key = NULL, destroyed_at = now() WHERE id = :id
""")
_IN_USE = text("SELECT DISTINCT wrapped_by FROM vault.personal_keys WHERE destroyed_at IS NULL")
# Held until the transaction ends.
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('vault.personal_keys'))")
