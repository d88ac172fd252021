"""The ledger complete: a payment is opened and recorded by one call each."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# A refused chain is an error here, so that all else that was written goes with it. LG001 carries the refusal's code as
# its message and the id it was met at as its detail; `ledger.errors.refusal_in` makes the typed error of it.
_APPLY_OR_FAIL = """
CREATE FUNCTION ledger.apply_or_fail(opens jsonb, chain jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb := ledger.apply(opens, chain);
BEGIN
    IF answer ? 'refused' THEN
        RAISE EXCEPTION USING ERRCODE = 'LG001', MESSAGE = answer ->> 'refused', DETAIL = answer ->> 'subject';
    END IF;
END $$
"""

_OPEN_PAYMENT = """
CREATE FUNCTION platform.open_payment(opening jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO platform.payments (
        id, account_id, user_id, payment_method_id, version, status, amount_minor, currency, capture_method, merchant,
        metadata, created_at, updated_at)
    SELECT
        id, account_id, user_id, payment_method_id, 1, 'processing', amount_minor, currency, capture_method, merchant,
        metadata, created_at, created_at
    FROM jsonb_populate_record(NULL::platform.payments, opening -> 'payment')
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO platform.risk_decisions (
        payment_id, action, score, reasons, rules_version, model_version, features, degraded)
    SELECT payment_id, action, score, reasons, rules_version, model_version, features, degraded
    FROM jsonb_populate_record(NULL::platform.risk_decisions, opening -> 'risk');
    INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
    SELECT id, subject_id, subject_sequence, type, data
    FROM jsonb_populate_record(NULL::platform.outbox, opening -> 'event');
    -- The accounts that everyone shares are locked last, so that the locks are held for as short as can be.
    IF opening -> 'chain' <> '[]' THEN
        PERFORM ledger.apply_or_fail(opening -> 'opens', opening -> 'chain');
    END IF;
    RETURN true;
END $$
"""

_RECORD_PAYMENT = """
CREATE FUNCTION platform.record_payment(record jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    payment platform.payments := jsonb_populate_record(NULL::platform.payments, record -> 'payment');
    refund platform.refunds;
BEGIN
    UPDATE platform.payments AS standing SET
        version = payment.version,
        status = payment.status,
        amount_authorized_minor = payment.amount_authorized_minor,
        amount_captured_minor = payment.amount_captured_minor,
        amount_refunded_minor = payment.amount_refunded_minor,
        refunds_pending_minor = payment.refunds_pending_minor,
        capture_before = coalesce(payment.capture_before, standing.capture_before),
        decline_code = coalesce(payment.decline_code, standing.decline_code),
        status_reason = payment.status_reason,
        approval_code = coalesce(payment.approval_code, standing.approval_code),
        rrn = coalesce(payment.rrn, standing.rrn),
        updated_at = payment.updated_at
    WHERE standing.id = payment.id AND standing.version = (record ->> 'after')::integer;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
    SELECT id, subject_id, subject_sequence, type, data
    FROM jsonb_populate_recordset(NULL::platform.outbox, record -> 'events')
    ORDER BY subject_sequence;
    FOR refund IN SELECT * FROM jsonb_populate_recordset(NULL::platform.refunds, record -> 'refunds') LOOP
        INSERT INTO platform.refunds (
            id, payment_id, account_id, amount_minor, currency, status, reason, failure_code, created_at, updated_at)
        VALUES (
            refund.id, payment.id, refund.account_id, refund.amount_minor, refund.currency, refund.status,
            refund.reason, refund.failure_code, refund.updated_at, refund.updated_at)
        ON CONFLICT (id) DO UPDATE SET
            status = excluded.status, failure_code = excluded.failure_code, updated_at = excluded.updated_at;
    END LOOP;
    IF record -> 'chain' <> '[]' THEN
        PERFORM ledger.apply_or_fail(record -> 'opens', record -> 'chain');
    END IF;
    RETURN true;
END $$
"""

_UP = (_APPLY_OR_FAIL, _OPEN_PAYMENT, _RECORD_PAYMENT)

_DOWN = (
    "DROP FUNCTION platform.record_payment(jsonb)",
    "DROP FUNCTION platform.open_payment(jsonb)",
    "DROP FUNCTION ledger.apply_or_fail(jsonb, jsonb)",
)


def upgrade() -> None:
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.execute(statement)
