"""The bank's schema on the way up and down, with a bank account among the payment methods."""

from __future__ import annotations

import psycopg
import pytest
from alembic import command

from tests.support.migrations import alembic_config

_ROWS = """
INSERT INTO platform.accounts (id, name) VALUES ('acct_1', 'a');
INSERT INTO platform.users (id, account_id, name) VALUES ('usr_1', 'acct_1', 'Ada');
INSERT INTO platform.payment_methods (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
    VALUES ('pm_card', 'acct_1', 'usr_1', 'tok_1', 'visa', '424242', '4242', 12, 2034, 'active');
INSERT INTO platform.payment_methods
    (id, account_id, user_id, type, bank_account_id, routing_number, account_type, last4, status)
    VALUES ('pm_bank', 'acct_1', 'usr_1', 'us_bank_account', 'ba_1', '021000021', 'checking', '6789', 'pending');
"""


def test_bank_accounts_come_and_go_and_cards_stay(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0016")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(_ROWS)
        for broken in (
            "UPDATE platform.payment_methods SET routing_number = NULL WHERE id = 'pm_bank'",
            "UPDATE platform.payment_methods SET routing_number = '021000021' WHERE id = 'pm_card'",
            "UPDATE platform.payment_methods SET token_id = 'tok_2' WHERE id = 'pm_bank'",
        ):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(broken)
        command.downgrade(config, "0015")
        rows = connection.execute("SELECT id FROM platform.payment_methods").fetchall()
        assert rows == [("pm_card",)]
        command.upgrade(config, "head")
        assert connection.execute("SELECT count(*) FROM bank.files").fetchone() == (0,)


def test_notices_effects_and_corrections_go_and_come_and_a_verification_stays(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0020")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(_ROWS)
        connection.execute(_VERIFICATIONS)
        command.upgrade(config, "0021")
        kept = connection.execute("SELECT micro_deposit_id FROM bank.amounts").fetchall()
        assert kept == [("md_open",)], "amounts of what has ended were kept, or of what has not were not"
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            connection.execute("DELETE FROM bank.amounts")
        command.downgrade(config, "0020")
        assert connection.execute("SELECT to_regclass('bank.return_effects')").fetchone() == (None,)
        with pytest.raises(psycopg.Error):
            connection.execute("DELETE FROM bank.amounts")
        command.upgrade(config, "head")
        assert connection.execute("SELECT count(*) FROM bank.micro_deposits").fetchone() == (2,)


_VERIFICATIONS = """
INSERT INTO bank.limits (reference, cycles) VALUES ('bref_1', 2);
INSERT INTO bank.micro_deposits
    (id, account_id, user_id, payment_method_id, bank_account_id, reference, status, requested_at)
    SELECT 'md_' || status, 'acct_1', 'usr_1', 'pm_bank', 'ba_1', 'bref_1',
        CASE status WHEN 'open' THEN 'sent' ELSE 'expired' END, now()
    FROM (VALUES ('open'), ('over')) AS wanted (status);
INSERT INTO bank.amounts SELECT id, 32, 45 FROM bank.micro_deposits;
"""
