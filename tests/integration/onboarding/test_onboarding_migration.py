"""The schema of onboarding goes back while nobody is on record in it, and stays once somebody is."""

from __future__ import annotations

import psycopg
import pytest
from alembic import command
from sqlalchemy.exc import OperationalError

from tests.support.migrations import alembic_config


def test_users_stay_when_the_schema_goes_back_and_it_stays_when_one_is_on_record(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0015")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("INSERT INTO platform.accounts (id, name) VALUES ('acct_1', 'shop')")
        connection.execute("INSERT INTO platform.users (id, account_id, name) VALUES ('usr_1', 'acct_1', 'Ada')")
        command.downgrade(config, "0014")
        assert connection.execute("SELECT name FROM platform.users").fetchone() == ("Ada",)
        command.upgrade(config, "0015")
        assert connection.execute("SELECT tier, sending_frozen FROM platform.users").fetchone() == ("unverified", False)
        connection.execute(
            "INSERT INTO onboarding.closures (user_id, number, account_id, status, requested_by, requested_at)"
            " VALUES ('usr_1', 1, 'acct_1', 'waiting', 'usr_1', now())"
        )
        with pytest.raises(OperationalError, match="would be lost"):
            command.downgrade(config, "0014")
