"""Migrating a database there and back."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config

import store


def alembic_config(url: str) -> Config:
    """What Alembic's commands want, for the database at `url`."""
    config = Config(str(Path(store.__file__).parent / "alembic.ini"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config
