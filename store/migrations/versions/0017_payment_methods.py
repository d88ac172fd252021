"""Defaults, labels, removal and expiry reminders of payment methods."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_COLUMNS = """
ALTER TABLE platform.payment_methods
    ADD COLUMN label text CONSTRAINT ck_payment_methods_label CHECK (length(label) BETWEEN 1 AND 50),
    ADD COLUMN is_default boolean NOT NULL DEFAULT false,
    ADD COLUMN removed_at timestamptz;
UPDATE platform.payment_methods SET removed_at = created_at WHERE status = 'removed';
ALTER TABLE platform.payment_methods
    ADD CONSTRAINT ck_payment_methods_removed CHECK ((removed_at IS NOT NULL) = (status = 'removed')),
    ADD CONSTRAINT ck_payment_methods_default CHECK (NOT is_default OR status = 'active');
CREATE UNIQUE INDEX uq_payment_methods_default ON platform.payment_methods (user_id) WHERE is_default;
DROP INDEX platform.ix_payment_methods_user_id;
CREATE INDEX ix_payment_methods_user_created ON platform.payment_methods (user_id, created_at DESC, id DESC);
CREATE INDEX ix_payment_methods_expiry ON platform.payment_methods (exp_year, exp_month)
    WHERE type = 'card' AND status = 'active';
"""

# A removed method stays removed, and whoever removes one need not know what else that means.
_KEEP = """
CREATE FUNCTION platform.keep_payment_method() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.account_id, NEW.user_id, NEW.type, NEW.token_id, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.user_id, OLD.type, OLD.token_id, OLD.created_at)
        OR OLD.status = 'removed' AND (NEW.status, NEW.removed_at) IS DISTINCT FROM (OLD.status, OLD.removed_at) THEN
        RAISE EXCEPTION 'what a payment method is never changes, and a removed one does not come back'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.status <> 'active' THEN
        NEW.is_default := false;
    END IF;
    IF NEW.status = 'removed' THEN
        NEW.removed_at := coalesce(NEW.removed_at, now());
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_payment_method BEFORE UPDATE ON platform.payment_methods
    FOR EACH ROW EXECUTE FUNCTION platform.keep_payment_method();
"""

# A reminder of an expiry is given once at each distance; a card whose expiry changes gets new ones.
_REMINDERS = """
CREATE TABLE platform.card_expiry_reminders (
    payment_method_id text NOT NULL REFERENCES platform.payment_methods,
    exp_year smallint NOT NULL,
    exp_month smallint NOT NULL,
    days smallint NOT NULL CONSTRAINT ck_card_expiry_reminders_days CHECK (days IN (30, 7)),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_card_expiry_reminders PRIMARY KEY (payment_method_id, exp_year, exp_month, days)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.card_expiry_reminders
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
CREATE TRIGGER owe_card_notification AFTER INSERT ON platform.outbox
    FOR EACH ROW WHEN (NEW.type = 'payment_method.expiring') EXECUTE FUNCTION notify.owe();
"""

# A card that is issued anew under its number has a later expiry, and the network is told of it. The guard's text is
# changed in place.
_RENEWAL = """
DO $$
DECLARE
    definition text := pg_get_functiondef('vault.guard_token()'::regprocedure);
    changed text := replace(definition, $old${old}$old$, $new${new}$new$);
BEGIN
    IF changed = definition THEN
        RAISE EXCEPTION 'vault.guard_token() has no rule about a token''s expiry';
    END IF;
    EXECUTE changed;
END $$
"""
_FIXED = "AND OLD.state <> 'inactive' THEN"
_LATER = (
    "AND OLD.state <> 'inactive'"
    " AND (OLD.state <> 'active' OR (NEW.exp_year, NEW.exp_month) < (OLD.exp_year, OLD.exp_month)) THEN"
)

_DOWN = """
DROP TRIGGER owe_card_notification ON platform.outbox;
DROP TABLE platform.card_expiry_reminders;
DROP TRIGGER keep_payment_method ON platform.payment_methods;
DROP FUNCTION platform.keep_payment_method;
DROP INDEX platform.ix_payment_methods_expiry;
DROP INDEX platform.ix_payment_methods_user_created;
CREATE INDEX ix_payment_methods_user_id ON platform.payment_methods (user_id);
DROP INDEX platform.uq_payment_methods_default;
ALTER TABLE platform.payment_methods DROP COLUMN label, DROP COLUMN is_default, DROP COLUMN removed_at;
"""


def upgrade() -> None:
    for statement in (_COLUMNS, _KEEP, _REMINDERS, _RENEWAL.format(old=_FIXED, new=_LATER)):
        op.execute(statement)


def downgrade() -> None:
    op.execute(_RENEWAL.format(old=_LATER, new=_FIXED))
    op.execute(_DOWN)
