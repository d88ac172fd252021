"""The tables of passkeys and devices come and go, and leave sessions and push tokens as they were."""

from __future__ import annotations

import psycopg
from alembic import command

from tests.support.migrations import alembic_config


def test_sessions_and_push_tokens_stay_on_the_way_forth_and_back(scratch: str) -> None:
    config = alembic_config(scratch)
    command.upgrade(config, "0013")
    with psycopg.connect(scratch.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("INSERT INTO platform.accounts (id, name) VALUES ('acct_1', 'shop')")
        connection.execute("INSERT INTO platform.users (id, account_id, name) VALUES ('usr_1', 'acct_1', 'Ada')")
        connection.execute(_SESSION)
        connection.execute(_PUSH_TOKEN)
        for step in ("0014", "0013", "0014"):
            (command.downgrade if step == "0013" else command.upgrade)(config, step)
            assert connection.execute("SELECT id, device_id FROM identity.sessions").fetchall() == [("ses_1", None)]
            assert connection.execute("SELECT token FROM notify.push_tokens").fetchall() == [("t",)]
            tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('passkeys', 'devices', 'step_up_challenges')"
            assert connection.execute(tables).fetchone() == (3 if step == "0014" else 0,)


_SESSION = """
INSERT INTO identity.sessions (id, account_id, user_id, amr, authenticated_at, expires_at)
VALUES ('ses_1', 'acct_1', 'usr_1', '{pwd}', now(), now() + interval '1 day')"""

_PUSH_TOKEN = """
INSERT INTO notify.push_tokens (token_hash, user_id, token, platform)
VALUES (sha256('t'), 'usr_1', 't', 'ios')"""
