"""The journal's schema on the way from one revision to the next, with rows in it."""

from __future__ import annotations

import psycopg
import pytest
from alembic import command

from tests.support.migrations import alembic_config

_INSERT = """
INSERT INTO network.messages (effect_key, kind, state, mti, acquirer_id, amount_minor, currency, payment_id, acceptor,
    original_effect_key) VALUES
    ('a', 'authorize', 'created', '0100', '1', 1000, 'USD', 'pay_1', '{}', NULL)
"""
_ROWS = f"""{_INSERT},
    ('c', 'capture', 'created', '0220', '1', 1000, 'USD', 'pay_1', '{{}}', 'a'),
    ('r', 'refund', 'created', '0200', '1', 400, 'USD', 'pay_1', '{{}}', 'a');
UPDATE network.messages SET state = 'sending', attempts = 1;
UPDATE network.messages SET state = 'answered', response_code = '00', answered_at = '2026-03-01 23:59:59+00'
    WHERE effect_key <> 'r';
"""


def test_clearing_finds_what_was_captured_before_there_was_clearing(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0007")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(_ROWS)
        command.upgrade(config, "0008")
        rows = connection.execute(
            "SELECT effect_key, final, settlement_date::text FROM network.messages ORDER BY effect_key"
        ).fetchall()
        assert rows == [("a", None, None), ("c", True, "2026-03-01"), ("r", None, None)]
        command.downgrade(config, "0007")
        assert connection.execute("SELECT count(*) FROM network.messages").fetchall() == [(3,)]
        with pytest.raises(psycopg.Error):
            connection.execute("UPDATE network.messages SET amount_minor = 1 WHERE effect_key = 'a'")
        command.upgrade(config, "0008")


def test_sales_keep_the_schema_from_going_back(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0008")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(_INSERT.replace("'authorize'", "'sale'"))
    with pytest.raises(Exception, match="ck_messages_kind"):
        command.downgrade(config, "0007")
