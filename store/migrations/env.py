"""Alembic's entry: runs the migrations on the URL that the caller put into the configuration."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool

from store.models import Base


def run() -> None:
    engine = create_engine(context.config.get_main_option("sqlalchemy.url", ""), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_schemas=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
