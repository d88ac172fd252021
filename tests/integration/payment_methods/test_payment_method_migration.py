"""The tables of payment methods on the way back and forth between revisions, with a card in them."""

from __future__ import annotations

import psycopg
import pytest
from alembic import command

from tests.support.migrations import alembic_config


@pytest.mark.parametrize(("before", "after"), [("0010", "0011"), ("0016", "0017")])
def test_a_card_from_before_is_a_card_after_and_after_a_way_back(scratch: str, before: str, after: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, before)
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("INSERT INTO platform.accounts (id, name) VALUES ('acct_1', 'shop')")
        connection.execute("INSERT INTO platform.users (id, account_id, name) VALUES ('usr_1', 'acct_1', 'Ada')")
        connection.execute(_CARD)
        for step in (after, before, after):
            (command.downgrade if step == before else command.upgrade)(config, step)
            assert connection.execute("SELECT id, brand, last4 FROM platform.payment_methods").fetchall() == [
                ("pm_1", "visa", "4242")
            ]
        assert connection.execute("SELECT type FROM platform.payment_methods").fetchone() == ("card",)


_CARD = """
INSERT INTO platform.payment_methods (
    id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)
VALUES ('pm_1', 'acct_1', 'usr_1', 'tok_1', 'visa', '424242', '4242', 12, 2034, 'active')
"""
