"""The engine: SQLAlchemy 2 on psycopg 3, READ COMMITTED, one pool per process."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def create_engine(url: str, *, pool_size: int = 8) -> AsyncEngine:
    """An engine for `url` (`postgresql+psycopg://…`).

    After a restart of PostgreSQL the first statement fails and the whole pool is made anew; asking for a sign of life
    before each use would cost every transaction a round trip. Statements are bounded: nothing waits for a lock longer
    than five seconds.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        # An error names the statement, never its values.
        hide_parameters=True,
        connect_args={"options": "-c lock_timeout=5000 -c statement_timeout=15000 -c timezone=UTC"},
    )


def reading(engine: AsyncEngine) -> AsyncEngine:
    """The same pool for single reads: each statement is its own transaction and takes one round trip, not three."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")
