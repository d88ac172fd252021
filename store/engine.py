"""The engine: SQLAlchemy 2 on psycopg 3, READ COMMITTED, one pool per process."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def create_engine(url: str, *, pool_size: int = 8) -> AsyncEngine:
    """An engine for `url` (`postgresql+psycopg://…`).

    A pooled connection that the server closed meanwhile is replaced before it is used, so a restart of PostgreSQL
    needs none of the platform. Statements are bounded: nothing waits for a lock longer than five seconds.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        # An error names the statement, never its values.
        hide_parameters=True,
        connect_args={"options": "-c lock_timeout=5000 -c statement_timeout=15000 -c timezone=UTC"},
    )
