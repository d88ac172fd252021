"""A refund that meets a dispute is reserved, and is not given: only what is given is refused by the database."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# A reservation that was refused stood in the way of all that was recorded after it. Whoever reserves asks, once that is
# committed, whether it is too much (`PaymentBooks.record`): a dispute that comes later sees the reservation.
_FUNCTION = """
CREATE OR REPLACE FUNCTION platform.bound_refund() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- What no dispute has anything to do with, ck_payments_amounts refuses.
    disputed bigint := (SELECT sum(taken_minor - excess_minor) FROM platform.disputes
        WHERE payment_id = NEW.id AND taken_minor > 0);
BEGIN
    IF NEW.amount_refunded_minor{reserved} > NEW.amount_captured_minor - disputed THEN
        RAISE EXCEPTION 'payment_disputed' USING ERRCODE = 'LG001', DETAIL = NEW.id;
    END IF;
    RETURN NEW;
END $$
"""
_TRIGGER = """
CREATE OR REPLACE TRIGGER bound_refund BEFORE UPDATE ON platform.payments FOR EACH ROW WHEN (
    NEW.amount_refunded_minor{new_reserved} > OLD.amount_refunded_minor{old_reserved})
    EXECUTE FUNCTION platform.bound_refund()
"""


def upgrade() -> None:
    op.execute(_FUNCTION.format(reserved=""))
    op.execute(_TRIGGER.format(new_reserved="", old_reserved=""))


def downgrade() -> None:
    op.execute(_FUNCTION.format(reserved=" + NEW.refunds_pending_minor"))
    op.execute(
        _TRIGGER.format(new_reserved=" + NEW.refunds_pending_minor", old_reserved=" + OLD.refunds_pending_minor")
    )
