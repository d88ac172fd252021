"""The vault's rows: each function is one statement, or one transaction, against PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import and_, func, null, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.errors import NotFound
from store.models.vault import VaultPan, VaultToken
from vault.errors import TokenUnusable
from vault.hsm.provider import Encrypted
from vault.lifecycle import TokenEvent, TokenReason, TokenStatus, next_status, refusal, sources


@dataclass(frozen=True, slots=True)
class TokenizedCard:
    """A token and what may be shown of its card. `created` is false when the owner had added this card before."""

    token_id: str
    brand: str
    bin: str
    last4: str
    exp_month: int
    exp_year: int
    status: TokenStatus
    created: bool = False


@dataclass(frozen=True, slots=True)
class StoredNumbers:
    """A token's ciphertexts, what they are bound to, and the plain data that goes with them."""

    token_id: str
    owner_id: str
    dek_version: int
    pan: Encrypted
    dpan: Encrypted
    psn: str
    exp_month: int
    exp_year: int
    atc: int


@dataclass(frozen=True, slots=True)
class NewToken:
    """All of a row that is about to be written; hashes are keyed, numbers encrypted."""

    numbers: StoredNumbers
    fingerprint_version: int
    fingerprint: bytes
    par: str
    dpan_index_version: int
    dpan_index: bytes
    brand: str
    bin: str
    last4: str


_SHOWN = (
    VaultToken.token_id,
    VaultToken.brand,
    VaultToken.bin,
    VaultToken.last4,
    VaultToken.exp_month,
    VaultToken.exp_year,
    VaultToken.state,
)

_NUMBERS = (
    VaultToken.token_id,
    VaultToken.owner_id,
    VaultToken.dek_version,
    VaultToken.pan_iv,
    VaultToken.pan_ciphertext,
    VaultToken.dpan_iv,
    VaultToken.dpan_ciphertext,
    VaultToken.psn,
    VaultToken.exp_month,
    VaultToken.exp_year,
    VaultToken.atc,
    VaultToken.state,
)


# The one statement on the way of every payment: check, count and journal in a round trip. It is SQL text, because
# composing it anew for each call costs as much as running it.
_COUNT_UP = text(
    """
    WITH counted AS (
        UPDATE vault.tokens SET atc = atc + 1
        WHERE token_id = :token_id AND owner_id = :owner_id AND state = 'active' AND atc < 65535
            AND (exp_year, exp_month) >= (:year, :month)
        RETURNING token_id, owner_id, dek_version, pan_iv, pan_ciphertext, dpan_iv, dpan_ciphertext, psn,
            exp_month, exp_year, atc
    ), journalled AS (
        INSERT INTO vault.cryptograms (token_id, atc, effect_key) SELECT token_id, atc, :effect_key FROM counted
    )
    SELECT * FROM counted
    """
)

_WHY_NOT = text(
    """
    SELECT state, (exp_year, exp_month) >= (:year, :month) AS unexpired
    FROM vault.tokens WHERE token_id = :token_id AND owner_id = :owner_id
    """
)


class TokenStore:
    """Single statements run in autocommit: they need no BEGIN and COMMIT of their own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def live(
        self, owner_id: str, fingerprints: Mapping[int, bytes], exp_month: int, exp_year: int
    ) -> TokenizedCard | None:
        """The owner's token for a card, found by any of its `fingerprints` (by key version).

        A token that the network does not know yet takes the expiry just given: the earlier one may have been a typo.
        """
        mine = and_(
            VaultToken.owner_id == owner_id,
            tuple_(VaultToken.fingerprint_version, VaultToken.fingerprint).in_(list(fingerprints.items())),
            VaultToken.state != TokenStatus.DELETED,
        )
        async with self._autocommit.connect() as connection:
            row = (await connection.execute(select(*_SHOWN).where(mine))).one_or_none()
            if row is None:
                return None
            other_expiry = (row.exp_month, row.exp_year) != (exp_month, exp_year)
            if other_expiry and row.state == TokenStatus.INACTIVE:
                corrected = (
                    update(VaultToken)
                    .where(VaultToken.token_id == row.token_id, VaultToken.state == TokenStatus.INACTIVE)
                    .values(exp_month=exp_month, exp_year=exp_year)
                    .returning(*_SHOWN)
                )
                row = (await connection.execute(corrected)).one_or_none() or row
        return _shown(row)

    async def add(self, token: NewToken) -> bool:
        """Writes a token unless its card (for this owner) or its device number is there already; says whether it did.

        Whoever adds the same card at the same time waits here for the first one's commit and gets False.
        """
        pan = upsert(VaultPan).values(
            fingerprint_version=token.fingerprint_version, fingerprint=token.fingerprint, par=token.par
        )
        row = upsert(VaultToken).values(
            token_id=token.numbers.token_id,
            owner_id=token.numbers.owner_id,
            fingerprint_version=token.fingerprint_version,
            fingerprint=token.fingerprint,
            brand=token.brand,
            bin=token.bin,
            last4=token.last4,
            exp_month=token.numbers.exp_month,
            exp_year=token.numbers.exp_year,
            dek_version=token.numbers.dek_version,
            pan_iv=token.numbers.pan.iv,
            pan_ciphertext=token.numbers.pan.ciphertext,
            dpan_index_version=token.dpan_index_version,
            dpan_index=token.dpan_index,
            dpan_iv=token.numbers.dpan.iv,
            dpan_ciphertext=token.numbers.dpan.ciphertext,
            psn=token.numbers.psn,
        )
        async with self._engine.begin() as connection:
            await connection.execute(pan.on_conflict_do_nothing())
            written = await connection.execute(row.on_conflict_do_nothing().returning(VaultToken.token_id))
            return written.one_or_none() is not None

    async def numbers(self, token_id: str) -> StoredNumbers:
        """The ciphertexts of a token that is not deleted.

        Raises:
            NotFound: there is no such token.
            TokenUnusable: `token_deleted`.
        """
        async with self._autocommit.connect() as connection:
            row = (await connection.execute(select(*_NUMBERS).where(VaultToken.token_id == token_id))).one_or_none()
        if row is None:
            raise NotFound("token", token_id)
        if row.state == TokenStatus.DELETED:
            raise TokenUnusable("token_deleted", "the token is deleted")
        return _stored(row)

    async def count_up(self, token_id: str, owner_id: str, effect_key: str, today: date) -> StoredNumbers:
        """The token's ciphertexts with a transaction counter that is this call's alone, journalled in one statement.

        Raises:
            NotFound: the owner has no such token.
            TokenUnusable: it is not active (`token_inactive`, `token_suspended`, `token_deleted`), `token_expired`,
                or `token_exhausted`: its two-byte counter is used up. The counter has not moved.
        """
        mine = {"token_id": token_id, "owner_id": owner_id, "year": today.year, "month": today.month}
        async with self._autocommit.connect() as connection:
            row = (await connection.execute(_COUNT_UP, {**mine, "effect_key": effect_key})).one_or_none()
            if row is not None:
                return _stored(row)
            row = (await connection.execute(_WHY_NOT, mine)).one_or_none()
        if row is None:
            raise NotFound("token", token_id)
        raise _unusable(TokenStatus(row.state), row.unexpired)

    async def change(self, token_id: str, event: TokenEvent, reason: TokenReason | None) -> None:
        """Moves a token along its life cycle; an event that has happened already changes nothing.

        Raises:
            NotFound: there is no such token.
            TokenUnusable: the life cycle has no such step from where the token is.
        """
        after = next_status(event)
        values: dict[str, object] = {"state": after, "state_reason": reason, "state_changed_at": func.now()}
        if after is TokenStatus.DELETED:
            values |= dict.fromkeys(("pan_iv", "pan_ciphertext", "dpan_iv", "dpan_ciphertext"), null())
        moved = (
            update(VaultToken)
            .where(VaultToken.token_id == token_id, VaultToken.state.in_(sources(event)))
            .values(values)
            .returning(VaultToken.token_id)
        )
        async with self._autocommit.connect() as connection:
            if (await connection.execute(moved)).one_or_none() is not None:
                return
            state = await connection.scalar(select(VaultToken.state).where(VaultToken.token_id == token_id))
        if state is None:
            raise NotFound("token", token_id)
        if refused := refusal(TokenStatus(state), event):
            raise refused

    async def renew(self, token_id: str, exp_month: int, exp_year: int) -> None:
        """Gives an active token an expiry that is not before the one it has.

        Raises:
            NotFound: there is no such token.
            TokenUnusable: it is not active, or `expiry_not_later`.
        """
        later = tuple_(VaultToken.exp_year, VaultToken.exp_month) <= (exp_year, exp_month)
        renewed = (
            update(VaultToken)
            .where(VaultToken.token_id == token_id, VaultToken.state == TokenStatus.ACTIVE, later)
            .values(exp_month=exp_month, exp_year=exp_year)
            .returning(VaultToken.token_id)
        )
        async with self._autocommit.connect() as connection:
            if (await connection.execute(renewed)).one_or_none() is not None:
                return
            state = await connection.scalar(select(VaultToken.state).where(VaultToken.token_id == token_id))
        if state is None:
            raise NotFound("token", token_id)
        if state != TokenStatus.ACTIVE:
            raise TokenUnusable(f"token_{state}", f"the token is {state}")
        raise TokenUnusable("expiry_not_later", "the token's card expires later than that")


def _unusable(status: TokenStatus, unexpired: bool) -> TokenUnusable:
    if status is not TokenStatus.ACTIVE:
        return TokenUnusable(f"token_{status}", f"the token is {status}")
    if not unexpired:
        return TokenUnusable("token_expired", "the token's card has expired")
    return TokenUnusable("token_exhausted", "the token has no transaction counter left; add the card again")


def _shown(row: Any) -> TokenizedCard:
    return TokenizedCard(
        token_id=row.token_id,
        brand=row.brand,
        bin=row.bin,
        last4=row.last4,
        exp_month=row.exp_month,
        exp_year=row.exp_year,
        status=TokenStatus(row.state),
    )


def _stored(row: Any) -> StoredNumbers:
    return StoredNumbers(
        token_id=row.token_id,
        owner_id=row.owner_id,
        dek_version=row.dek_version,
        pan=Encrypted(row.pan_iv, row.pan_ciphertext),
        dpan=Encrypted(row.dpan_iv, row.dpan_ciphertext),
        psn=row.psn,
        exp_month=row.exp_month,
        exp_year=row.exp_year,
        atc=row.atc,
    )
