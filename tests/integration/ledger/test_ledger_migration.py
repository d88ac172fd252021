"""The ledger's schema on the way from one revision to the next, with transfers in it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from alembic import command

from tests.support.migrations import alembic_config

_OPENS = [{"id": name, "currency": "USD", "code": "till"} for name in ("a", "b", "c")]


def _apply(connection: psycopg.Connection[Any], prefix: str) -> None:
    chain: list[dict[str, Any]] = [
        {"kind": "posted", "debit_account": "a", "credit_account": "b", "amount_minor": 50, "id": "p"},
        {"kind": "pending", "debit_account": "b", "credit_account": "c", "amount_minor": 30, "id": "h"},
        {"kind": "post", "pending_id": f"{prefix}h", "amount_minor": 10, "final": False, "id": "t"},
        {"kind": "void", "pending_id": f"{prefix}h", "id": "v"},
    ]
    for step in chain:
        step |= {"id": prefix + step["id"], "reference": "r"}
        if "debit_account" in step:
            step |= {"currency": "USD", "code": "x"}
    answer = connection.execute(
        "SELECT ledger.apply(%s::jsonb, %s::jsonb)", (json.dumps(_OPENS), json.dumps(chain))
    ).fetchone()
    assert answer is not None
    assert len(answer[0]["inserted"]) == 4


def _entries(connection: psycopg.Connection[Any], account: str) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT position, debits_pending, debits_posted, credits_pending, credits_posted FROM ledger.entries"
        " WHERE account = %s ORDER BY position",
        (account,),
    ).fetchall()


def test_transfers_from_before_have_the_entries_that_they_would_have_been_given(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0006")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        _apply(connection, "old:")
        command.upgrade(config, "0007")
        before = _entries(connection, "b")
        assert before == [(1, 0, 0, 0, 50), (2, 30, 0, 0, 50), (3, 20, 10, 0, 50), (4, 0, 10, 0, 50)]
        _apply(connection, "new:")
        assert _entries(connection, "b")[4:] == [
            (5, 0, 10, 0, 100),
            (6, 30, 10, 0, 100),
            (7, 20, 20, 0, 100),
            (8, 0, 20, 0, 100),
        ]
        last = connection.execute(
            "SELECT entries, last_entry_at = (SELECT max(at) FROM ledger.entries WHERE account = 'b')"
            " FROM ledger.accounts WHERE id = 'b'"
        ).fetchone()
        assert last == (8, True)


def test_the_ledger_works_on_after_a_downgrade_and_another_upgrade(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0007")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        _apply(connection, "new:")
        connection.execute("SELECT ledger.close_batch(10, '1 s')")
        command.downgrade(config, "0006")
        _apply(connection, "old:")
        with pytest.raises(psycopg.Error, match="forbidden"):
            connection.execute("UPDATE ledger.accounts SET credits_posted = 1")
        command.upgrade(config, "0007")
        _apply(connection, "newer:")
        assert [row[0] for row in _entries(connection, "b")] == list(range(1, 13))


def test_the_ledger_works_with_transfers_that_are_booked_together_and_without(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0012")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        _apply(connection, "new:")
        command.downgrade(config, "0011")
        _apply(connection, "old:")
        with pytest.raises(psycopg.errors.UndefinedFunction):
            connection.execute("SELECT ledger.apply_each('[]')")
        command.upgrade(config, "0012")
        _apply(connection, "newer:")
        assert connection.execute("SELECT ledger.apply_each('[]')").fetchone() == ([],)
        assert [row[0] for row in _entries(connection, "b")] == list(range(1, 13))
        assert _entries(connection, "b")[-1] == (12, 0, 30, 0, 150)
