"""What a payer is owed to be told: a queue that the outbox fills, in the transaction of the event itself."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UP = """
CREATE TABLE notify.owed (
    event_id text CONSTRAINT pk_owed PRIMARY KEY REFERENCES platform.outbox (id),
    owed_since timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0 CONSTRAINT ck_owed_attempts CHECK (attempts >= 0),
    reason text,
    given_up_at timestamptz,
    CONSTRAINT ck_owed_given_up CHECK (given_up_at IS NULL OR reason IS NOT NULL)
);
CREATE INDEX ix_owed_due ON notify.owed (due_at) WHERE given_up_at IS NULL;

CREATE FUNCTION notify.owe() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notify.owed (event_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER owe_notification AFTER INSERT ON platform.outbox
    FOR EACH ROW WHEN (NEW.type IN (
        'payment.authorized', 'payment.sold', 'payment.declined', 'payment.blocked', 'payment.reversed',
        'payment.never_sent', 'payment.refund_succeeded'))
    EXECUTE FUNCTION notify.owe();
"""

_DOWN = """
DROP TRIGGER owe_notification ON platform.outbox;
DROP FUNCTION notify.owe;
DROP TABLE notify.owed;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
