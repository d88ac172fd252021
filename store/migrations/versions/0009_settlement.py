"""Settlement runs, breaks and payouts."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_UP = """
CREATE SCHEMA settlement;

CREATE TABLE settlement.runs (
    day date CONSTRAINT pk_runs PRIMARY KEY,
    file_id text NOT NULL,
    sha256 text NOT NULL,
    records integer NOT NULL CONSTRAINT ck_runs_records CHECK (records >= 0),
    totals jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- What of ours belongs into a day's file, as the journal of the network has it.
CREATE TABLE settlement.expected (
    effect_key text CONSTRAINT pk_expected PRIMARY KEY,
    day date NOT NULL,
    kind text NOT NULL,
    match_key text NOT NULL,
    payment_id text NOT NULL,
    amount_minor bigint NOT NULL CONSTRAINT ck_expected_amount CHECK (amount_minor >= 0),
    currency char(3) NOT NULL,
    certain boolean NOT NULL
);
CREATE INDEX ix_expected_match ON settlement.expected (match_key);
CREATE INDEX ix_expected_day ON settlement.expected (day);

-- The lines of the network's files. What they say never changes; what they were found to be is added once.
CREATE TABLE settlement.lines (
    day date NOT NULL REFERENCES settlement.runs,
    line integer NOT NULL,
    kind text NOT NULL,
    match_key text NOT NULL,
    amount_minor bigint NOT NULL CONSTRAINT ck_lines_amount CHECK (amount_minor >= 0),
    currency char(3) NOT NULL,
    reason_code text,
    occurred_at timestamptz NOT NULL,
    effect_key text REFERENCES settlement.expected,
    verdict text CONSTRAINT ck_lines_verdict CHECK (
        verdict IN ('matched', 'fee', 'missing_here', 'amount', 'currency', 'duplicate')),
    CONSTRAINT pk_lines PRIMARY KEY (day, line)
);
-- One line clears one thing, once: whatever code runs, a duplicate is not matched a second time.
CREATE UNIQUE INDEX uq_lines_effect ON settlement.lines (effect_key, kind)
    WHERE verdict IN ('matched', 'amount', 'currency');

CREATE FUNCTION settlement.keep_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' OR OLD.verdict IS NOT NULL
        OR (to_jsonb(OLD) - '{verdict,effect_key}'::text[]) <> (to_jsonb(NEW) - '{verdict,effect_key}'::text[]) THEN
        RAISE EXCEPTION 'a line of a clearing file is judged once and never changed'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_line BEFORE UPDATE OR DELETE ON settlement.lines
    FOR EACH ROW EXECUTE FUNCTION settlement.keep_line();

CREATE TABLE settlement.breaks (
    id text CONSTRAINT pk_breaks PRIMARY KEY,
    day date NOT NULL,
    kind text NOT NULL CONSTRAINT ck_breaks_kind CHECK (
        kind IN ('missing_here', 'missing_there', 'amount', 'currency', 'duplicate')),
    line integer,
    effect_key text,
    payment_id text,
    parts jsonb NOT NULL,
    status text NOT NULL DEFAULT 'open' CONSTRAINT ck_breaks_status CHECK (status IN ('open', 'healed', 'resolved')),
    outcome text,
    reason text,
    resolved_by text[],
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    CONSTRAINT ck_breaks_closed CHECK ((status = 'open') = (closed_at IS NULL)),
    -- Four eyes, whatever code runs.
    CONSTRAINT ck_breaks_resolution CHECK (
        status <> 'resolved' OR outcome IS NOT NULL AND length(trim(reason)) > 0
        AND cardinality(resolved_by) = 2 AND resolved_by[1] <> resolved_by[2])
);
CREATE INDEX ix_breaks_open ON settlement.breaks (opened_at) WHERE status = 'open';
CREATE INDEX ix_breaks_effect ON settlement.breaks (effect_key);

CREATE FUNCTION settlement.keep_break() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.status <> 'open' THEN
        RAISE EXCEPTION 'a break that has ended stays as it is' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_break BEFORE UPDATE OR DELETE ON settlement.breaks
    FOR EACH ROW EXECUTE FUNCTION settlement.keep_break();

CREATE TABLE settlement.payouts (
    id text CONSTRAINT pk_payouts PRIMARY KEY,
    day date NOT NULL,
    account_id text NOT NULL REFERENCES platform.accounts,
    merchant_id text NOT NULL,
    currency char(3) NOT NULL,
    amount_minor bigint NOT NULL CONSTRAINT ck_payouts_amount CHECK (amount_minor > 0),
    status text NOT NULL CONSTRAINT ck_payouts_status CHECK (status IN ('reserved', 'paid')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_payouts_day UNIQUE (day, account_id, merchant_id, currency)
);
"""

_DOWN = "DROP SCHEMA settlement CASCADE"


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
