"""Each rule of bank accounts: it holds for one that was verified and revoked rightly, and names what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bank import store
from domain.ids import MICRO_DEPOSIT, PAYMENT_METHOD, new_id
from domain.micro_deposits import MicroDepositChange, MicroDepositEvent, MicroDepositStatus, next_status
from ledger.micro_deposits import DepositEntry, MicroDepositBooks
from store.bank_consistency import BANK_RULES, check_bank
from tests.integration.notify.support import new_person
from tests.support.world import NOW

_E = MicroDepositEvent


@dataclass(frozen=True)
class Whole:
    """A verified account; one that expired and whose deposit came back late; and the file of returns that says so."""

    method: str
    verified: str
    other_method: str
    expired: str
    returns: int


@pytest_asyncio.fixture
async def whole(engine: AsyncEngine) -> Whole:
    method, verified = await _verification(engine)
    await _live(engine, verified, _E.INITIATED, _E.ORIGINATED, _E.POSTED, _E.CONFIRMED)
    other, expired = await _verification(engine)
    await _live(engine, expired, _E.INITIATED, _E.ORIGINATED, _E.POSTED, _E.EXPIRED)
    await MicroDepositBooks(engine).post_returned(DepositEntry(expired, "credit_1", 32))
    async with engine.begin() as connection:
        returns = int(await connection.scalar(text(_RETURN_FILE)) or 0)
        await connection.execute(text(_RETURNED), {"sequence": returns, "deposit": expired})
        await connection.execute(text(_EFFECT), {"sequence": returns})
    return Whole(method, verified, other, expired, returns)


async def _verification(engine: AsyncEngine) -> tuple[str, str]:
    person = await new_person(engine)
    method, deposit = new_id(PAYMENT_METHOD), new_id(MICRO_DEPOSIT)
    values = {"method": method, "deposit": deposit, "user": person.user_id}
    async with engine.begin() as connection:
        for statement in _BEGUN:
            wanted = {name: value for name, value in values.items() if f":{name}" in statement}
            await connection.execute(text(statement), wanted)
    entries = [
        DepositEntry(deposit, part, cents) for part, cents in (("credit_1", 32), ("credit_2", 45), ("debit", 77))
    ]
    await MicroDepositBooks(engine).post_originated(entries)
    return method, deposit


async def _live(engine: AsyncEngine, deposit: str, *events: MicroDepositEvent) -> None:
    status = MicroDepositStatus.NEW
    async with engine.begin() as connection:
        for version, event in enumerate(events, 1):
            status = next_status(status, event)
            if event is _E.CONFIRMED:
                await connection.execute(text(_NAMED), {"deposit": deposit})
            await store.record(connection, MicroDepositChange(deposit, version, event, status, NOW))


# What somebody may do who has switched the database's own rules off, and what then is broken at which of the rows.
TAMPERINGS: Sequence[tuple[str, dict[str, str]]] = (
    (
        "UPDATE bank.files SET state = 'unanswered', posted_on = NULL WHERE micro_deposit_id = :expired",
        {"file_in_doubt": "expired", "deposit_at_bank": "expired"},
    ),
    (
        "UPDATE bank.micro_deposits SET status = 'initiating', updated_at = now() - interval '5 hours'"
        " WHERE id = :expired",
        {"origination_overdue": "expired"},
    ),
    (
        "DELETE FROM ledger.transfers WHERE id = :verified || ':credit_2:originated'",
        {"deposit_in_ledger": "verified"},
    ),
    (
        "UPDATE bank.entries SET amount_minor = 44 FROM bank.files"
        " WHERE files.file_id = entries.file_id AND micro_deposit_id = :verified AND part = 'credit_2'",
        {"deposit_in_ledger": "verified", "deposit_at_bank": "verified"},
    ),
    (
        "DELETE FROM ledger.transfers WHERE id = :expired || ':credit_1:returned'",
        {"return_in_ledger": "expired"},
    ),
    (
        "DELETE FROM bank.returns WHERE sequence = :returns",
        {"return_from_bank": "expired"},
    ),
    (
        "DELETE FROM bank.return_effects WHERE sequence = :returns",
        {"return_has_effect": "expired"},
    ),
    (
        "INSERT INTO bank.returns (sequence, line, kind, reason_code, original_trace, amount_minor, settled_on)"
        " VALUES (:returns, 2, 'return', 'R03', 1, 5, '2026-11-24')",
        {"bank_entry_waits": "unmatched"},
    ),
    (
        "UPDATE platform.payment_methods SET status = 'active' WHERE id = :other_method",
        {"verified_by_deposits": "other_method"},
    ),
    (
        "UPDATE bank.files SET posted_on = NULL WHERE micro_deposit_id = :verified",
        {"verified_by_deposits": "method"},
    ),
    (
        "UPDATE platform.payment_methods SET status = 'removed', removed_at = now() - interval '1 hour'"
        " WHERE id = :other_method",
        {"removed_is_erased": "other_method"},
    ),
    (
        "INSERT INTO bank.amounts (micro_deposit_id, first_minor, second_minor) VALUES (:verified, 32, 45)",
        {"amounts_forgotten": "verified"},
    ),
)


def test_there_is_a_tampering_for_every_rule() -> None:
    assert {rule for _, rules in TAMPERINGS for rule in rules} == set(BANK_RULES)


@pytest.mark.parametrize(("statement", "broken"), TAMPERINGS)
async def test_exactly_what_was_tampered_with_is_found(
    engine: AsyncEngine, whole: Whole, statement: str, broken: dict[str, str]
) -> None:
    values = asdict(whole)
    subjects = values | {"unmatched": f"bank-return:{whole.returns}:2"}
    async with engine.connect() as connection:
        before = await _breaches(connection)
        assert not {subject for _, subject in before} & set(map(str, values.values()))
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        asked = text(_escaped(statement))
        given = {name: value for name, value in values.items() if f":{name}" in statement}
        assert (await connection.execute(asked, given)).rowcount == 1
        found = await _breaches(connection)
        await connection.rollback()
    assert found - before == {(rule, subjects[name]) for rule, name in broken.items()}


def _escaped(statement: str) -> str:
    """The colons of the ledger's ids are no parameters."""
    for ending in (":credit_2:originated", ":credit_1:returned"):
        statement = statement.replace(ending, ending.replace(":", "\\:"))
    return statement


async def _breaches(connection: AsyncConnection) -> set[tuple[str, str]]:
    """All breaches, however young."""
    moment = await connection.scalar(text("SELECT interval '0'"))
    found = await check_bank(connection, grace=moment, break_age=moment, limit=10_000)
    return {(each.rule, each.subject) for each in found}


_BEGUN = (
    "INSERT INTO platform.payment_methods"
    " (id, account_id, user_id, type, bank_account_id, routing_number, account_type, last4, status)"
    " SELECT :method, account_id, id, 'us_bank_account', :method, '021000021', 'checking', '6789', 'pending'"
    " FROM platform.users WHERE id = :user",
    "INSERT INTO vault.bank_references (fingerprint_version, fingerprint, reference)"
    " VALUES (1, sha256(convert_to(:method, 'UTF8')), :method)",
    "INSERT INTO vault.bank_accounts (id, owner_id, reference, routing_number, account_type, last4, dek_version,"
    " number_iv, number_ciphertext) VALUES (:method, :user, :method, '021000021', 'checking', '6789', 1, 'i', 'c')",
    "INSERT INTO bank.limits (reference, cycles) VALUES (:method, 1)",
    "INSERT INTO bank.micro_deposits"
    " (id, account_id, user_id, payment_method_id, bank_account_id, reference, status, requested_at)"
    " SELECT :deposit, account_id, user_id, id, id, id, 'new', now()"
    " FROM platform.payment_methods WHERE id = :method",
    "INSERT INTO bank.amounts (micro_deposit_id, first_minor, second_minor) VALUES (:deposit, 32, 45)",
    "INSERT INTO bank.files (file_id, effect_key, micro_deposit_id, sha256, created_on, modifier, effective_on,"
    " receiver_name, state, posted_on) SELECT :deposit, :deposit, :deposit, sha256('file'),"
    " coalesce(max(created_on), '2026-11-23') + interval '1 minute', 'A', '2026-11-24', 'ADA', 'sent', '2026-11-24'"
    " FROM bank.files",
    "INSERT INTO bank.entries (file_id, part, trace, amount_minor)"
    " SELECT :deposit, part, nextval('bank.trace_blocks'), cents"
    " FROM (VALUES ('credit_1', 32), ('credit_2', 45), ('debit', 77)) AS entry (part, cents)",
)
_NAMED = """
INSERT INTO bank.confirmations (effect_key, micro_deposit_id, number, correct) VALUES (:deposit, :deposit, 1, true)
"""
_RETURN_FILE = """
INSERT INTO bank.return_files (sequence, sha256) SELECT coalesce(max(sequence), 0) + 1, sha256('returns')
FROM bank.return_files RETURNING sequence
"""
_RETURNED = """
INSERT INTO bank.returns (sequence, line, kind, reason_code, original_trace, amount_minor, settled_on, file_id, part,
    transaction_code, told_at)
SELECT :sequence, 1, 'return', 'R10', trace, amount_minor, '2026-11-25', file_id, part, 21, now()
FROM bank.entries WHERE file_id = :deposit AND part = 'credit_1'
"""
_EFFECT = "INSERT INTO bank.return_effects (sequence, line, effect) VALUES (:sequence, 1, 'nothing_to_revoke')"
