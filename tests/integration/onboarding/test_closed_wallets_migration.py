"""Closures without gaps go into the schema and out of it, and the guards from before are the same after."""

from __future__ import annotations

import psycopg
import pytest
from alembic import command
from psycopg.errors import IntegrityError

from tests.support.migrations import alembic_config

# What guards rows that are rewritten to forget somebody.
GUARDS = """
SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger
WHERE NOT tgisinternal AND tgrelid::regclass::text IN (
    'identity.passkeys', 'identity.devices', 'onboarding.events', 'platform.dispute_files', 'platform.disputes',
    'bank.files', 'platform.payment_methods', 'platform.risk_decisions', 'identity.sessions', 'network.messages')
ORDER BY 1, 2
"""
CARD = """
INSERT INTO platform.payment_methods (
    id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
VALUES (%(id)s, 'acct_1', 'usr_1', %(id)s, 'visa', '424242', '4242', 12, 2034, 'active')
"""


def test_the_guards_are_the_same_after_a_way_back(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0020")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        after = connection.execute(GUARDS).fetchall()
        connection.execute("INSERT INTO platform.accounts (id, name) VALUES ('acct_1', 'shop')")
        connection.execute("INSERT INTO platform.users (id, account_id, name) VALUES ('usr_1', 'acct_1', 'Ada')")
        connection.execute(CARD, {"id": "pm_1"})
        command.downgrade(config, "-1")
        before = connection.execute(GUARDS).fetchall()
        assert before != after
        assert {("identity.passkeys", "keep_passkey"), ("onboarding.events", "append_only")} <= {
            row[:2] for row in before
        }
        command.upgrade(config, "0020")
        assert connection.execute(GUARDS).fetchall() == after
        connection.execute("UPDATE platform.users SET closing_at = now()")
        with pytest.raises(IntegrityError, match="is closed, or about to be"):
            connection.execute(CARD, {"id": "pm_2"})
        command.downgrade(config, "-1")
        assert connection.execute(GUARDS).fetchall() == before
        connection.execute(CARD, {"id": "pm_2"})
