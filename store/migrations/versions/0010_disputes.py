"""Disputes, their evidence, and every notice of the network that they come from."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# `taken_minor` is what the merchant does not have while the case is open or lost, `excess_minor` the part of it that
# two operators let through although the payment had less left. `due_by` is what is waited for next.
_DISPUTES = """
CREATE TABLE platform.disputes (
    id text CONSTRAINT pk_disputes PRIMARY KEY CONSTRAINT ck_disputes_id CHECK (id LIKE 'dp\\_%'),
    chargeback_id text NOT NULL CONSTRAINT uq_disputes_chargeback_id UNIQUE
        CONSTRAINT ck_disputes_chargeback_id CHECK (length(chargeback_id) BETWEEN 1 AND 64),
    payment_id text NOT NULL REFERENCES platform.payments,
    account_id text NOT NULL REFERENCES platform.accounts,
    version integer NOT NULL CONSTRAINT ck_disputes_version CHECK (version > 0),
    kind text NOT NULL,
    status text NOT NULL,
    amount_minor bigint NOT NULL CONSTRAINT ck_disputes_amount CHECK (amount_minor > 0),
    currency char(3) NOT NULL,
    taken_minor bigint NOT NULL,
    excess_minor bigint NOT NULL DEFAULT 0
        CONSTRAINT ck_disputes_excess CHECK (excess_minor BETWEEN 0 AND amount_minor),
    fee_minor bigint NOT NULL DEFAULT 0 CONSTRAINT ck_disputes_fee CHECK (fee_minor >= 0),
    reason_code text NOT NULL,
    status_reason text,
    rrn text NOT NULL,
    due_by timestamptz,
    overdue boolean NOT NULL DEFAULT false,
    texts jsonb NOT NULL DEFAULT '{}' CONSTRAINT ck_disputes_texts CHECK (jsonb_typeof(texts) = 'object'),
    submissions smallint NOT NULL DEFAULT 0 CONSTRAINT ck_disputes_submissions CHECK (submissions >= 0),
    submitted_at timestamptz,
    represented_at timestamptz,
    evidence_sha256 text CONSTRAINT ck_disputes_evidence_sha256 CHECK (evidence_sha256 ~ '^[0-9a-f]{64}$'),
    closed_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT ck_disputes_status CHECK (CASE kind
        WHEN 'inquiry' THEN status IN ('inquiry', 'under_review', 'won')
        WHEN 'chargeback' THEN status IN ('needs_response', 'under_review', 'won', 'lost')
        ELSE false END),
    -- An inquiry moves no money; a chargeback takes it unless the merchant has won.
    CONSTRAINT ck_disputes_taken CHECK (
        taken_minor = CASE WHEN kind = 'inquiry' OR status = 'won' THEN 0 ELSE amount_minor END),
    CONSTRAINT ck_disputes_submitted CHECK (
        (submissions > 0) = (submitted_at IS NOT NULL) AND (status <> 'under_review' OR submissions > 0)),
    CONSTRAINT ck_disputes_represented CHECK (represented_at IS NULL OR evidence_sha256 IS NOT NULL),
    CONSTRAINT ck_disputes_due_by CHECK ((due_by IS NULL) = (status IN ('won', 'lost'))),
    CONSTRAINT ck_disputes_closed CHECK ((closed_at IS NULL) = (status NOT IN ('won', 'lost')))
);
CREATE INDEX ix_disputes_account_created ON platform.disputes (account_id, created_at DESC, id DESC);
CREATE INDEX ix_disputes_payment_id ON platform.disputes (payment_id);
"""

_FILES = """
CREATE TABLE platform.dispute_files (
    id text CONSTRAINT pk_dispute_files PRIMARY KEY CONSTRAINT ck_dispute_files_id CHECK (id LIKE 'file\\_%'),
    dispute_id text NOT NULL REFERENCES platform.disputes,
    purpose text NOT NULL,
    name text NOT NULL CONSTRAINT ck_dispute_files_name CHECK (
        length(name) BETWEEN 1 AND 100 AND name !~ '[/\\\\[:cntrl:]]'),
    content_type text NOT NULL CONSTRAINT ck_dispute_files_content_type CHECK (
        content_type IN ('application/pdf', 'image/png', 'image/jpeg')),
    size_bytes integer NOT NULL CONSTRAINT ck_dispute_files_size CHECK (size_bytes BETWEEN 1 AND 5242880),
    sha256 text NOT NULL CONSTRAINT ck_dispute_files_sha256 CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz NOT NULL
);
CREATE INDEX ix_dispute_files_dispute ON platform.dispute_files (dispute_id, created_at, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.dispute_files
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();

CREATE FUNCTION platform.bound_evidence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    dispute platform.disputes;
BEGIN
    SELECT * INTO dispute FROM platform.disputes WHERE id = NEW.dispute_id FOR NO KEY UPDATE;
    IF dispute.status NOT IN ('inquiry', 'needs_response') THEN
        RAISE EXCEPTION 'evidence of % is submitted', NEW.dispute_id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (SELECT count(*) FROM platform.dispute_files WHERE dispute_id = NEW.dispute_id) >= 10 THEN
        RAISE EXCEPTION '% has as many files as it may', NEW.dispute_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER bound_evidence BEFORE INSERT ON platform.dispute_files
    FOR EACH ROW EXECUTE FUNCTION platform.bound_evidence();
"""

# What the network said, as it came. `event` is what it led to; null: it changed nothing.
_NOTICES = """
CREATE TABLE platform.dispute_notices (
    dispute_id text NOT NULL REFERENCES platform.disputes,
    kind text NOT NULL CONSTRAINT ck_dispute_notices_kind CHECK (kind IN ('inquiry', 'chargeback')),
    stage text NOT NULL CONSTRAINT ck_dispute_notices_stage CHECK (stage IN ('opened', 'won', 'lost')),
    issued_at timestamptz NOT NULL,
    amount_minor bigint NOT NULL,
    currency char(3) NOT NULL,
    reason_code text NOT NULL,
    respond_by timestamptz,
    event text,
    received_at timestamptz NOT NULL,
    CONSTRAINT pk_dispute_notices PRIMARY KEY (dispute_id, kind, stage, issued_at)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.dispute_notices
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""

# Of a payment, its disputes together take at most what is captured and not given back. Its row is locked, so that two
# cases at once do not both take the last of it. A chargeback in another currency than the payment's cannot be booked.
_BOUND = """
CREATE FUNCTION platform.bound_dispute() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payment platform.payments;
    taken_by_others bigint;
BEGIN
    SELECT * INTO payment FROM platform.payments WHERE id = NEW.payment_id FOR NO KEY UPDATE;
    SELECT coalesce(sum(taken_minor - excess_minor), 0) INTO taken_by_others FROM platform.disputes
        WHERE payment_id = NEW.payment_id AND id <> NEW.id AND taken_minor > 0;
    IF payment.currency <> NEW.currency OR payment.account_id <> NEW.account_id THEN
        RAISE EXCEPTION '% is not of the account and currency of %', NEW.id, NEW.payment_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.taken_minor - NEW.excess_minor
        > payment.amount_captured_minor - payment.amount_refunded_minor - payment.refunds_pending_minor
            - taken_by_others
    THEN
        RAISE EXCEPTION '% takes more than % has left', NEW.id, NEW.payment_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER bound_new_dispute BEFORE INSERT ON platform.disputes
    FOR EACH ROW WHEN (NEW.taken_minor > 0) EXECUTE FUNCTION platform.bound_dispute();
CREATE TRIGGER bound_dispute BEFORE UPDATE ON platform.disputes
    FOR EACH ROW WHEN (NEW.taken_minor > 0 AND
        (NEW.taken_minor, NEW.excess_minor) IS DISTINCT FROM (OLD.taken_minor, OLD.excess_minor))
    EXECUTE FUNCTION platform.bound_dispute();
"""

_KEEP = """
CREATE FUNCTION platform.keep_dispute() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.chargeback_id, NEW.payment_id, NEW.account_id, NEW.currency, NEW.fee_minor, NEW.created_at)
        IS DISTINCT FROM
        (OLD.id, OLD.chargeback_id, OLD.payment_id, OLD.account_id, OLD.currency, OLD.fee_minor, OLD.created_at)
        OR NEW.version <> OLD.version + 1
        -- A chargeback says anew what it takes, from a merchant who has it.
        OR (NEW.amount_minor <> OLD.amount_minor AND (OLD.taken_minor > 0 OR NEW.taken_minor = 0))
        OR (OLD.kind, NEW.kind) = ('chargeback', 'inquiry')
    THEN
        RAISE EXCEPTION 'dispute % cannot become another', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('inquiry', 'needs_response'), ('inquiry', 'under_review'), ('inquiry', 'won'),
        ('needs_response', 'under_review'), ('needs_response', 'won'), ('needs_response', 'lost'),
        ('under_review', 'needs_response'), ('under_review', 'won'), ('under_review', 'lost'),
        ('won', 'needs_response'), ('won', 'lost'), ('lost', 'won'))
    THEN
        RAISE EXCEPTION 'a dispute that is % cannot be %', OLD.status, NEW.status
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.texts <> OLD.texts AND OLD.status NOT IN ('inquiry', 'needs_response') THEN
        RAISE EXCEPTION 'evidence of % is submitted', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_dispute BEFORE UPDATE ON platform.disputes
    FOR EACH ROW EXECUTE FUNCTION platform.keep_dispute();
CREATE TRIGGER keep_disputes BEFORE DELETE OR TRUNCATE ON platform.disputes
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""

_UP = (_DISPUTES, _FILES, _NOTICES, _BOUND, _KEEP)

_DOWN = """
DROP TABLE platform.dispute_notices;
DROP TABLE platform.dispute_files;
DROP TABLE platform.disputes;
DROP FUNCTION platform.keep_dispute;
DROP FUNCTION platform.bound_dispute;
DROP FUNCTION platform.bound_evidence;
"""


def upgrade() -> None:
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute(_DOWN)
