"""Bank accounts in the vault: numbers in, ids out; ids in, boxes that only the bank zone opens out.

An account number is in clear in this process for the length of a call. In the database it is encrypted by the HSM,
bound to its row and owner; it is recognised again by a keyed hash, whoever adds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Row, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.bank_accounts import BankAccountType, account_number_valid, routing_number_valid
from domain.errors import NotFound
from domain.ids import new_id
from sealing import BANK_ACCOUNT_PURPOSE, BANK_CORRECTION_PURPOSE, Sealer, Unsealer
from vault import keys
from vault.errors import BankAccountKnown, InvalidBankAccount, VaultUnavailable
from vault.hsm.provider import Encrypted, HsmProvider, HsmUnavailable
from vault.keys import KeyRing, Purpose

_Result = TypeVar("_Result")

_BANK_ACCOUNT = "ba"
_REFERENCE = "bref"


@dataclass(frozen=True, slots=True)
class NewBankAccount:
    routing_number: str
    number: str = field(repr=False)
    account_type: BankAccountType


@dataclass(frozen=True, slots=True)
class KeptBankAccount:
    """`reference` names the account itself, the same for whoever adds it; `id` names it as the owner's."""

    id: str
    reference: str
    routing_number: str
    account_type: BankAccountType
    last4: str


@dataclass(frozen=True, slots=True)
class CorrectedBankAccount:
    account: KeptBankAccount
    old_reference: str


class BankAccountVault:
    """The bank accounts of one process. `hsm_seconds` bounds a call of the HSM, as in `Vault`.

    Every method raises HsmUnavailable or VaultUnavailable when a part cannot be reached; trying again is safe.

    Raises:
        KeyMissing: the token lacks a key of the hierarchy.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        provider: HsmProvider,
        sealer: Sealer | None = None,
        corrections: Unsealer | None = None,
        *,
        hsm_seconds: float = 5.0,
    ) -> None:
        self._engine = engine
        self._hsm = provider
        self._sealer = sealer
        self._corrections = corrections
        self._hsm_seconds = hsm_seconds
        self._keys = KeyRing.load(provider)
        self._executor = ThreadPoolExecutor(provider.concurrency, thread_name_prefix="hsm-bank")

    def close(self) -> None:
        """Ends the HSM threads. The engine and the provider are the caller's to close."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def add(self, account: NewBankAccount, owner_id: str) -> KeptBankAccount:
        """The owner's record of `account`: the one there is, or a new one.

        Raises:
            InvalidBankAccount: names the field, never the value.
        """
        _check(account)
        fingerprints = await self._in_hsm(lambda: self._fingerprints(account))
        identifier = new_id(_BANK_ACCOUNT)
        version = self._keys.newest(Purpose.DATA)
        encrypted = await self._in_hsm(
            lambda: keys.encrypt(self._hsm, Purpose.DATA, version, account.number, *_bound_to(identifier, owner_id))
        )
        try:
            async with self._engine.begin() as connection:
                reference = await self._reference(connection, fingerprints)
                await connection.execute(
                    _INSERT,
                    {
                        "id": identifier,
                        "owner": owner_id,
                        "reference": reference,
                        "routing": account.routing_number,
                        "type": account.account_type.value,
                        "last4": account.number[-4:],
                        "dek": version,
                        "iv": encrypted.iv,
                        "ciphertext": encrypted.ciphertext,
                    },
                )
                kept = await connection.execute(
                    _LIVE, {"owner": owner_id, "reference": reference, "type": account.account_type.value}
                )
                row = kept.one()
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise _unavailable(error) from None
        return KeptBankAccount(row.id, row.reference, row.routing_number, BankAccountType(row.account_type), row.last4)

    async def box(self, bank_account_id: str) -> str:
        """The box that tells the bank zone where to send entries (`routing_number`, `account_number`, `account_type`).

        Raises:
            NotFound: there is no such account, or it was erased.
            IntegrityError: its row was tampered with.
        """
        if self._sealer is None:
            raise ValueError("this process was given no key to seal bank accounts with")
        try:
            async with self._engine.connect() as connection:
                row = (await connection.execute(_FIND, {"id": bank_account_id})).one_or_none()
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise _unavailable(error) from None
        if row is None:
            raise NotFound("bank account", bank_account_id)
        number = await self._in_hsm(lambda: self._open(row))
        return self._sealer.seal(
            BANK_ACCOUNT_PURPOSE,
            {"routing_number": row.routing_number, "account_number": number, "account_type": row.account_type},
        )

    async def correct(
        self, bank_account_id: str, correction_id: str, change_code: str, box: str
    ) -> CorrectedBankAccount | None:
        """Applies what the bank says is right of the account (`routing_number`, `account_number`, `account_type`; what
        is not in the box stays), once, with a row that says what it was before. None if the account was erased.

        Raises:
            NotFound: there is no such account.
            InvalidBankAccount: what is to be right is not valid.
            BankAccountKnown: the owner has added that account as another one.
            SealBroken: the box cannot be opened.
            IntegrityError: the account's row was tampered with.
        """
        if self._corrections is None:
            raise ValueError("this process was given no key to open corrections with")
        content = self._corrections.open(BANK_CORRECTION_PURPOSE, box)
        try:
            async with self._engine.begin() as connection:
                row = (await connection.execute(_LOCK, {"id": bank_account_id})).one_or_none()
                if row is None:
                    raise NotFound("bank account", bank_account_id)
                if row.erased_at is not None:
                    return None
                known = (await connection.execute(_CORRECTION, {"id": correction_id})).one_or_none()
                if known is None:
                    await self._apply(connection, row, await self._corrected(row, content), correction_id, change_code)
                    known = (await connection.execute(_CORRECTION, {"id": correction_id})).one()
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise _unavailable(error) from None
        kept = KeptBankAccount(
            bank_account_id,
            known.new_reference,
            known.new_routing_number,
            BankAccountType(known.new_account_type),
            known.new_last4,
        )
        return CorrectedBankAccount(kept, known.old_reference)

    async def _corrected(self, row: Row[tuple[object, ...]], content: Mapping[str, str]) -> NewBankAccount:
        number = content.get("account_number")
        if number is None:
            number = await self._in_hsm(lambda: self._open(row))
        account_type = BankAccountType(content.get("account_type", row.account_type))
        right = NewBankAccount(content.get("routing_number") or str(row.routing_number), number, account_type)
        _check(right)
        return right

    async def _apply(
        self,
        connection: AsyncConnection,
        row: Row[tuple[object, ...]],
        right: NewBankAccount,
        correction_id: str,
        change_code: str,
    ) -> None:
        reference = await self._reference(connection, await self._in_hsm(lambda: self._fingerprints(right)))
        same = {"id": row.id, "owner": row.owner_id, "reference": reference, "type": right.account_type.value}
        if (await connection.execute(_ANOTHER, same)).one_or_none() is not None:
            raise BankAccountKnown("the account as which it is corrected is there already")
        values = {
            "id": row.id,
            "reference": reference,
            "routing": right.routing_number,
            "type": right.account_type.value,
            "last4": right.number[-4:],
        }
        await connection.execute(
            _KEEP_CORRECTION, values | {"correction_id": correction_id, "change_code": change_code}
        )
        version = self._keys.newest(Purpose.DATA)
        encrypted = await self._in_hsm(
            lambda: keys.encrypt(self._hsm, Purpose.DATA, version, right.number, *_bound_to(row.id, row.owner_id))
        )
        await connection.execute(
            _APPLY, values | {"dek": version, "iv": encrypted.iv, "ciphertext": encrypted.ciphertext}
        )

    async def erase(self, bank_account_id: str) -> None:
        """Forgets the account's number for good. Doing it again, or to what is not there, changes nothing."""
        try:
            async with self._engine.begin() as connection:
                await connection.execute(_ERASE, {"id": bank_account_id})
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise _unavailable(error) from None

    async def _reference(self, connection: AsyncConnection, fingerprints: dict[int, bytes]) -> str:
        """The account's reference: found under any version of the key, or new under the newest."""
        for version, fingerprint in fingerprints.items():
            known = await connection.execute(_REFERENCE_OF, {"version": version, "fingerprint": fingerprint})
            if (found := known.scalar_one_or_none()) is not None:
                return str(found)
        newest = self._keys.newest(Purpose.FINGERPRINT)
        made = await connection.execute(
            _NEW_REFERENCE,
            {"version": newest, "fingerprint": fingerprints[newest], "reference": new_id(_REFERENCE)},
        )
        return str(made.scalar_one())

    async def _in_hsm(self, work: Callable[[], _Result]) -> _Result:
        try:
            async with asyncio.timeout(self._hsm_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TimeoutError:
            raise HsmUnavailable("the HSM does not answer in time") from None

    # What follows runs in the HSM's threads.

    def _fingerprints(self, account: NewBankAccount) -> dict[int, bytes]:
        # With a prefix of its own, so that a bank account can never look like a card number under the same key.
        identity = f"us_bank_account:{account.routing_number}:{account.number}".encode()
        return {
            version: self._hsm.mac_sha256(keys.label(Purpose.FINGERPRINT, version), identity)
            for version in self._keys.versions[Purpose.FINGERPRINT]
        }

    def _open(self, row: Row[tuple[object, ...]]) -> str:
        encrypted = Encrypted(bytes(row.number_iv), bytes(row.number_ciphertext))
        return keys.decrypt(self._hsm, Purpose.DATA, row.dek_version, encrypted, *_bound_to(row.id, row.owner_id))


def _check(account: NewBankAccount) -> None:
    if not routing_number_valid(account.routing_number):
        raise InvalidBankAccount("routing_number")
    if not account_number_valid(account.number):
        raise InvalidBankAccount("account_number")


def _bound_to(identifier: str, owner_id: str) -> tuple[str, str, str]:
    return ("bank_account", identifier, owner_id)


def _unavailable(error: Exception) -> VaultUnavailable:
    """Its text is dropped, for it repeats the statement."""
    return VaultUnavailable(f"the vault's database cannot be reached ({type(error).__name__})")


_REFERENCE_OF = text("""
SELECT reference FROM vault.bank_references WHERE fingerprint_version = :version AND fingerprint = :fingerprint
""")

_NEW_REFERENCE = text("""
INSERT INTO vault.bank_references AS existing (fingerprint_version, fingerprint, reference)
VALUES (:version, :fingerprint, :reference)
ON CONFLICT (fingerprint_version, fingerprint) DO UPDATE SET reference = existing.reference
RETURNING reference
""")

_INSERT = text("""
INSERT INTO vault.bank_accounts
    (id, owner_id, reference, routing_number, account_type, last4, dek_version, number_iv, number_ciphertext)
VALUES (:id, :owner, :reference, :routing, :type, :last4, :dek, :iv, :ciphertext)
ON CONFLICT (owner_id, reference, account_type) WHERE erased_at IS NULL DO NOTHING
""")

_LIVE = text("""
SELECT id, reference, routing_number, account_type, last4 FROM vault.bank_accounts
WHERE owner_id = :owner AND reference = :reference AND account_type = :type AND erased_at IS NULL
""")

_FIND = text("""
SELECT id, owner_id, routing_number, account_type, dek_version, number_iv, number_ciphertext
FROM vault.bank_accounts WHERE id = :id AND erased_at IS NULL
""")

_LOCK = text("""
SELECT id, owner_id, routing_number, account_type, dek_version, number_iv, number_ciphertext, erased_at
FROM vault.bank_accounts WHERE id = :id FOR UPDATE
""")
_CORRECTION = text("SELECT * FROM vault.bank_corrections WHERE id = :id")
_ANOTHER = text("""
SELECT 1 FROM vault.bank_accounts WHERE owner_id = :owner AND reference = :reference AND account_type = :type
AND erased_at IS NULL AND id <> :id
""")
_KEEP_CORRECTION = text("""
INSERT INTO vault.bank_corrections
    (id, bank_account_id, change_code, old_reference, old_routing_number, old_account_type, old_last4,
    new_reference, new_routing_number, new_account_type, new_last4)
SELECT :correction_id, id, :change_code, reference, routing_number, account_type, last4,
    :reference, :routing, :type, :last4
FROM vault.bank_accounts WHERE id = :id
""")
_APPLY = text("""
UPDATE vault.bank_accounts SET reference = :reference, routing_number = :routing, account_type = :type, last4 = :last4,
    dek_version = :dek, number_iv = :iv, number_ciphertext = :ciphertext
WHERE id = :id
""")

_ERASE = text("""
UPDATE vault.bank_accounts SET number_iv = NULL, number_ciphertext = NULL, erased_at = now()
WHERE id = :id AND erased_at IS NULL
""")
