"""The vault's service: cards in, tokens out; tokens in, sealed credentials out.

Card numbers exist in clear in this process for the length of a call. They go to the database only encrypted by the
HSM, and to the network worker only in a box that it alone opens.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.ids import TOKEN, new_id
from domain.network import SealedCredential
from sealing import AUTHENTICATION_PURPOSE, PAN_PURPOSE, PROVISIONING_PURPOSE, Sealer
from vault import keys
from vault.cards import NewCard, checked_brand, yymm
from vault.credentials import IssueCredential, authentication
from vault.errors import InvalidCard, TokenRangeFull, VaultUnavailable
from vault.hsm.provider import Encrypted, HsmProvider, HsmUnavailable
from vault.keys import KeyRing, Purpose
from vault.lifecycle import TokenEvent, TokenReason, TokenStatus
from vault.numbers import TOKEN_RANGES, check_ranges, device_number, payment_account_reference
from vault.tokens import NewToken, StoredNumbers, TokenizedCard, TokenStore
from vault.transit import Transit

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_PSN = "00"
_BIN_DIGITS = 6
# A range that is half full collides every second time; sixteen collisions in a row then mean 1 in 65,536.
_DPAN_ATTEMPTS = 16
_CROWDED_AFTER = 3


@dataclass(frozen=True, slots=True)
class _OpenNumbers:
    dpan: str = field(repr=False)
    pan: str = field(default="", repr=False)


class Vault:
    """The vault of one process.

    `engine` reaches the `vault` schema, `redis` holds only what may be lost, `sealer` closes boxes for the network
    worker, `token_ranges` are the BINs of device numbers by brand, `clock` gives the time (UTC). HSM calls run in as
    many threads as the provider takes calls at once; one that hangs longer than `hsm_seconds` is given up.

    Every method raises HsmUnavailable or VaultUnavailable when a part cannot be reached; trying again is safe.

    Raises:
        KeyMissing: the token lacks a key of the hierarchy (see `keys.create_keys`).
        ValueError: a token range is not of its brand.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        redis: Redis,
        provider: HsmProvider,
        sealer: Sealer,
        *,
        token_ranges: Mapping[str, Sequence[str]] = TOKEN_RANGES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        hsm_seconds: float = 5.0,
    ) -> None:
        check_ranges(token_ranges)
        self._tokens = TokenStore(engine)
        self._transit = Transit(redis)
        self._hsm = provider
        self._sealer = sealer
        self._token_ranges = token_ranges
        self._clock = clock
        self._hsm_seconds = hsm_seconds
        self._keys = KeyRing.load(provider)
        self._executor = ThreadPoolExecutor(provider.concurrency, thread_name_prefix="hsm")

    def close(self) -> None:
        """Ends the HSM threads. The engine, Redis and the provider are the caller's to close."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def tokenize(self, card: NewCard, owner_id: str) -> TokenizedCard:
        """The owner's token for `card`: the one there is, or a new one, INACTIVE until the network knows it.

        A security code and a billing address wait for the first question to the issuer, for 15 minutes at most, and are
        stored nowhere else.

        Raises:
            InvalidCard: the card cannot be added; names the field, never the value.
            TokenRangeFull: no device number is left.
        """
        brand = checked_brand(card, self._clock().date())
        if brand not in self._token_ranges:
            raise InvalidCard("number", "card_not_supported")
        if card.number.startswith(tuple(self._token_ranges[brand])):
            # A device number is no card: nobody may stack a token on a token.
            raise InvalidCard("number", "incorrect_number")
        async with _reaching_stores():
            token = await self._token_of(card, brand, owner_id)
            if card.for_the_issuer:
                await self._keep_for_the_issuer(token.token_id, card.for_the_issuer)
        return token

    async def provisioning_box(self, token_id: str) -> str:
        """The box that tells the network worker which card a device number stands for (`dpan`, `pan`, `exp` YYMM).

        Raises:
            NotFound: there is no such token.
            TokenUnusable: it is deleted.
            IntegrityError: its row was tampered with.
        """
        async with _reaching_stores():
            stored = await self._tokens.numbers(token_id)
            numbers = await self._in_hsm(lambda: self._open(stored))
        content = {"dpan": numbers.dpan, "pan": numbers.pan, "exp": yymm(stored.exp_year, stored.exp_month)}
        return self._sealer.seal(PROVISIONING_PURPOSE, content)

    async def activate(self, token_id: str) -> None:
        """The network knows the token: INACTIVE → ACTIVE. Repeating this changes nothing.

        Raises:
            NotFound: there is no such token.
            TokenUnusable: it is suspended or deleted.
        """
        await self._change(token_id, TokenEvent.ACTIVATE)

    async def suspend(self, token_id: str, reason: TokenReason) -> None:
        """ACTIVE → SUSPENDED: no credential is issued until it is resumed. Raises as `activate` does."""
        await self._change(token_id, TokenEvent.SUSPEND, reason)

    async def resume(self, token_id: str, reason: TokenReason = TokenReason.FOUND) -> None:
        """SUSPENDED → ACTIVE. Raises as `activate` does."""
        await self._change(token_id, TokenEvent.RESUME, reason)

    async def delete(self, token_id: str, reason: TokenReason) -> None:
        """Ends a token for ever and erases its numbers. Raises NotFound."""
        await self._change(token_id, TokenEvent.DELETE, reason)
        async with _reaching_stores():
            await self._transit.drop_cvc(token_id)

    async def device_box(self, token_id: str) -> str:
        """The box that names a device number to the network worker (`dpan`, `exp` YYMM, `psn`): it is to be ended.

        Raises: as `provisioning_box`.
        """
        async with _reaching_stores():
            stored = await self._tokens.numbers(token_id)
            dpan = await self._in_hsm(lambda: self._decrypt(stored, stored.dpan, "dpan"))
        exp = yymm(stored.exp_year, stored.exp_month)
        return self._sealer.seal(PAN_PURPOSE, {"dpan": dpan, "exp": exp, "psn": stored.psn})

    async def renew(self, token_id: str, exp_month: int, exp_year: int) -> None:
        """An active token's card was issued anew with a later expiry. Repeating this changes nothing.

        Raises:
            NotFound: there is no such token.
            TokenUnusable: it is not active, or its card expires later than that.
        """
        async with _reaching_stores():
            await self._tokens.renew(token_id, exp_month, exp_year)

    async def issue_credential(self, command: IssueCredential) -> SealedCredential:
        """A credential for one authorization: the sealed device number, and a handle to its single-use cryptogram.

        The transaction counter rises in the database before the HSM is asked, so no two cryptograms share one. Asking
        twice gives two credentials with two counters; a counter that is never used is no fault.

        Raises:
            NotFound: the owner has no such token.
            TokenUnusable: its state, expiry or counter forbids it; the counter has not moved.
            IntegrityError: its row was tampered with.
        """
        async with _reaching_stores():
            today = self._clock().date()
            stored = await self._tokens.count_up(command.token_id, command.owner_id, command.effect_key, today)
            sealed_pan, content = await self._in_hsm(lambda: self._credential(stored, command))
            # Only now is a security code taken: nothing that could have failed before has used it up.
            if (waiting := await self._transit.take_cvc(command.token_id)) is not None:
                content |= await self._in_hsm(lambda: self._open_for_the_issuer(command.token_id, *waiting))
            handle = await self._transit.put_box(self._sealer.seal(AUTHENTICATION_PURPOSE, content))
        return SealedCredential(command.token_id, sealed_pan, handle)

    async def _token_of(self, card: NewCard, brand: str, owner_id: str) -> TokenizedCard:
        fingerprints = await self._in_hsm(lambda: self._fingerprints(card.number))
        for attempt in range(1, _DPAN_ATTEMPTS + 1):
            known = await self._tokens.live(owner_id, fingerprints, card.exp_month, card.exp_year)
            if known is not None:
                return known
            if attempt > _CROWDED_AFTER:
                _log.warning("token BIN ranges of %s are crowded: attempt %d for one device number", brand, attempt)
            token = await self._in_hsm(lambda: self._new_token(card, brand, owner_id, fingerprints))
            if await self._tokens.add(token):
                return _created(token)
        raise TokenRangeFull(brand)

    async def _keep_for_the_issuer(self, token_id: str, given: Mapping[str, str]) -> None:
        version, text = self._keys.newest(Purpose.CVC), json.dumps(given)
        encrypted = await self._in_hsm(lambda: keys.encrypt(self._hsm, Purpose.CVC, version, text, "cvc", token_id))
        await self._transit.put_cvc(token_id, version, encrypted)

    async def _change(self, token_id: str, event: TokenEvent, reason: TokenReason | None = None) -> None:
        async with _reaching_stores():
            await self._tokens.change(token_id, event, reason)

    async def _in_hsm(self, work: Callable[[], _Result]) -> _Result:
        """Runs blocking `work` in a thread of its own kind, so that the event loop goes on."""
        try:
            async with asyncio.timeout(self._hsm_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TimeoutError:
            raise HsmUnavailable("the HSM does not answer in time") from None

    # What follows runs in the HSM's threads.

    def _fingerprints(self, number: str) -> dict[int, bytes]:
        """The card's keyed hash under every version of the key; a card may have been added under an older one."""
        versions = self._keys.versions[Purpose.FINGERPRINT]
        return {
            version: self._hsm.mac_sha256(keys.label(Purpose.FINGERPRINT, version), number.encode())
            for version in versions
        }

    def _new_token(self, card: NewCard, brand: str, owner_id: str, fingerprints: Mapping[int, bytes]) -> NewToken:
        token_id = new_id(TOKEN)
        dpan = device_number(brand, self._token_ranges[brand], self._hsm.random)
        dek_version = self._keys.newest(Purpose.DATA)
        fingerprint_version = self._keys.newest(Purpose.FINGERPRINT)
        index_version = self._keys.newest(Purpose.DPAN_INDEX)
        return NewToken(
            numbers=StoredNumbers(
                token_id=token_id,
                owner_id=owner_id,
                dek_version=dek_version,
                pan=keys.encrypt(self._hsm, Purpose.DATA, dek_version, card.number, "pan", token_id, owner_id),
                dpan=keys.encrypt(self._hsm, Purpose.DATA, dek_version, dpan, "dpan", token_id, owner_id),
                psn=_PSN,
                exp_month=card.exp_month,
                exp_year=card.exp_year,
                atc=0,
            ),
            fingerprint_version=fingerprint_version,
            fingerprint=fingerprints[fingerprint_version],
            par=payment_account_reference(self._hsm.random),
            dpan_index_version=index_version,
            dpan_index=self._hsm.mac_sha256(keys.label(Purpose.DPAN_INDEX, index_version), dpan.encode()),
            brand=brand,
            bin=card.number[:_BIN_DIGITS],
            last4=card.number[-4:],
        )

    def _open(self, stored: StoredNumbers) -> _OpenNumbers:
        return _OpenNumbers(
            dpan=self._decrypt(stored, stored.dpan, "dpan"), pan=self._decrypt(stored, stored.pan, "pan")
        )

    def _decrypt(self, stored: StoredNumbers, encrypted: Encrypted, what: str) -> str:
        return keys.decrypt(
            self._hsm, Purpose.DATA, stored.dek_version, encrypted, what, stored.token_id, stored.owner_id
        )

    def _open_for_the_issuer(self, token_id: str, version: int, kept: Encrypted) -> dict[str, str]:
        text = keys.decrypt(self._hsm, Purpose.CVC, version, kept, "cvc", token_id)
        # A code that was kept minutes ago by a process of before stands alone.
        opened: dict[str, str] = json.loads(text) if text.startswith("{") else {"cvv": text}
        return opened

    def _credential(self, stored: StoredNumbers, command: IssueCredential) -> tuple[str, dict[str, str]]:
        """The sealed device number and the content of the authentication box."""
        dpan = self._decrypt(stored, stored.dpan, "dpan")
        key = keys.label(Purpose.CRYPTOGRAM, self._keys.newest(Purpose.CRYPTOGRAM))
        content = authentication(self._hsm, key, dpan, stored.psn, stored.atc, command)
        exp = yymm(stored.exp_year, stored.exp_month)
        return self._sealer.seal(PAN_PURPOSE, {"dpan": dpan, "exp": exp, "psn": stored.psn}), content


def _created(token: NewToken) -> TokenizedCard:
    return TokenizedCard(
        token_id=token.numbers.token_id,
        brand=token.brand,
        bin=token.bin,
        last4=token.last4,
        exp_month=token.numbers.exp_month,
        exp_year=token.numbers.exp_year,
        status=TokenStatus.INACTIVE,
        created=True,
    )


@asynccontextmanager
async def _reaching_stores() -> AsyncIterator[None]:
    """PostgreSQL or Redis out of reach is one named error; its text is dropped, for it repeats the statement."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise VaultUnavailable(f"the vault's database cannot be reached ({type(error).__name__})") from None
    except RedisError as error:
        raise VaultUnavailable(f"the vault's cache cannot be reached ({type(error).__name__})") from None
