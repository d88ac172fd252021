"""The network is told when a device number stands for a card no more."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_KINDS = """
ALTER TABLE network.messages
    DROP CONSTRAINT ck_messages_kind,
    DROP CONSTRAINT ck_messages_amount,
    ADD CONSTRAINT ck_messages_kind CHECK (kind IN ('authorize', 'sale', 'increment', 'verify', 'capture', 'refund',
        'reverse', 'release', 'provision', 'represent', 'accept'{kind})),
    ADD CONSTRAINT ck_messages_amount CHECK (
        (amount_minor IS NULL) = (currency IS NULL) AND (amount_minor BETWEEN 0 AND 999999999999) IS NOT FALSE
        AND (kind IS NULL OR kind IN ('provision'{kind}) OR amount_minor IS NOT NULL))
"""

# An advice is repeated until it is acknowledged: the guard's list of advices, in its own text.
_ADVICES = """
DO $$
DECLARE
    definition text := pg_get_functiondef('network.guard_message()'::regprocedure);
    changed text := replace(definition, $old${old}$old$, $new${new}$new$);
BEGIN
    IF changed = definition THEN
        RAISE EXCEPTION 'network.guard_message() has no list of advices';
    END IF;
    EXECUTE changed;
END $$
"""
_BEFORE = "('capture', 'reverse', 'release', 'provision', 'represent', 'accept')"
_AFTER = "('capture', 'reverse', 'release', 'provision', 'deprovision', 'represent', 'accept')"


def upgrade() -> None:
    op.execute(_KINDS.format(kind=", 'deprovision'"))
    op.execute(_ADVICES.format(old=_BEFORE, new=_AFTER))


def downgrade() -> None:
    op.execute(_ADVICES.format(old=_AFTER, new=_BEFORE))
    op.execute(_KINDS.format(kind=""))
