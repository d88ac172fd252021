"""Brings a database to the newest schema. Several processes may call it at once: an advisory lock makes them queue."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, pool, text

_ADVISORY_LOCK = 0x64757261  # "dura"


def migrate(url: str, revision: str = "head") -> None:
    """Runs all outstanding migrations on `url`; does nothing when there are none."""
    config = Config(str(Path(__file__).parent / "alembic.ini"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as guard:
        guard.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _ADVISORY_LOCK})
        command.upgrade(config, revision)
    engine.dispose()
