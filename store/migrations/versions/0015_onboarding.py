"""Knowing the customer: cases, documents, screenings, tiers; closure and erasure."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# How a user stands. Who is closing pays and sends nothing any more; who is erased is a number that nobody has.
_USERS = """
ALTER TABLE platform.users
    ADD COLUMN tier text NOT NULL DEFAULT 'unverified'
        CONSTRAINT ck_users_tier CHECK (tier IN ('unverified', 'basic', 'verified', 'plus')),
    ADD COLUMN sending_frozen boolean NOT NULL DEFAULT false,
    ADD COLUMN closing_at timestamptz,
    ADD COLUMN closed_at timestamptz,
    ADD COLUMN erased_at timestamptz,
    ADD CONSTRAINT ck_users_closed CHECK (closed_at IS NULL OR closing_at IS NOT NULL),
    ADD CONSTRAINT ck_users_erased CHECK (
        erased_at IS NULL
        OR (closed_at IS NOT NULL AND email IS NULL AND phone IS NULL AND name = 'erased' AND tier = 'unverified'));

CREATE FUNCTION platform.keep_user_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.erased_at IS NOT NULL
        OR NEW.closed_at IS NULL
        OR (NEW.closing_at, NEW.closed_at) IS DISTINCT FROM (OLD.closing_at, OLD.closed_at)
    THEN
        RAISE EXCEPTION '% is closed for good', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_user_closed BEFORE UPDATE ON platform.users
    FOR EACH ROW WHEN (OLD.closed_at IS NOT NULL) EXECUTE FUNCTION platform.keep_user_closed();
"""

# The key under which everything personal of a user is, wrapped by a key of the HSM. Destroyed, it leaves its id.
_KEYS = """
CREATE TABLE vault.personal_keys (
    id text CONSTRAINT pk_personal_keys PRIMARY KEY CONSTRAINT ck_personal_keys_id CHECK (id LIKE 'pk\\_%'),
    user_id text NOT NULL CONSTRAINT uq_personal_keys_user_id UNIQUE REFERENCES platform.users,
    wrapped_by text,
    iv bytea,
    wrapped_key bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    -- A destroyed key keeps nothing of itself.
    CONSTRAINT ck_personal_keys_destroyed CHECK (
        num_nonnulls(wrapped_by, iv, wrapped_key) = CASE WHEN destroyed_at IS NULL THEN 3 ELSE 0 END),
    -- AES-256-GCM: 32 bytes and a tag of 16.
    CONSTRAINT ck_personal_keys_wrapped_key CHECK (octet_length(wrapped_key) = 48)
);
CREATE INDEX ix_personal_keys_wrapped_by ON vault.personal_keys (wrapped_by) WHERE destroyed_at IS NULL;

CREATE FUNCTION vault.keep_personal_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.destroyed_at IS NOT NULL
        OR (NEW.id, NEW.user_id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.created_at)
    THEN
        RAISE EXCEPTION 'key % is neither removed nor brought back', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_personal_key BEFORE UPDATE OR DELETE ON vault.personal_keys
    FOR EACH ROW EXECUTE FUNCTION vault.keep_personal_key();
"""

_CASES = """
CREATE SCHEMA onboarding;

CREATE TABLE onboarding.cases (
    user_id text CONSTRAINT pk_cases PRIMARY KEY REFERENCES platform.users,
    account_id text NOT NULL REFERENCES platform.accounts,
    version integer NOT NULL,
    status text NOT NULL
        CONSTRAINT ck_cases_status CHECK (status IN ('pending', 'in_review', 'verified', 'rejected', 'closed')),
    awaits_person boolean NOT NULL,
    reasons text[] NOT NULL,
    list_version text,
    key_id text REFERENCES vault.personal_keys,
    sealed_details bytea,
    document_expires_on date,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT ck_cases_awaits_person CHECK (NOT awaits_person OR status = 'in_review'),
    CONSTRAINT ck_cases_sealed CHECK (sealed_details IS NULL OR key_id IS NOT NULL)
);
CREATE INDEX ix_cases_rescreening ON onboarding.cases (user_id) WHERE status = 'verified';
CREATE INDEX ix_cases_account ON onboarding.cases (account_id, updated_at DESC);

CREATE FUNCTION onboarding.keep_case() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.user_id, NEW.account_id, NEW.created_at) IS DISTINCT FROM (OLD.user_id, OLD.account_id, OLD.created_at)
        OR NEW.version NOT IN (OLD.version, OLD.version + 1)
        OR (NEW.version = OLD.version AND NEW.status <> OLD.status)
    THEN
        RAISE EXCEPTION 'the case of % cannot become another', OLD.user_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('pending', 'in_review'), ('pending', 'closed'),
        ('in_review', 'verified'), ('in_review', 'rejected'), ('in_review', 'closed'),
        ('verified', 'in_review'), ('verified', 'pending'), ('verified', 'closed'),
        ('rejected', 'in_review'), ('rejected', 'closed'))
    THEN
        RAISE EXCEPTION 'a case that is % cannot be %', OLD.status, NEW.status
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_case BEFORE UPDATE ON onboarding.cases
    FOR EACH ROW EXECUTE FUNCTION onboarding.keep_case();
CREATE TRIGGER keep_cases BEFORE DELETE OR TRUNCATE ON onboarding.cases
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();

-- What happened to a case, with who and why. Nothing in it is ever changed or removed, and nothing in it is personal.
CREATE TABLE onboarding.events (
    user_id text NOT NULL REFERENCES platform.users,
    sequence integer NOT NULL CONSTRAINT ck_events_sequence CHECK (sequence > 0),
    event text NOT NULL,
    status text NOT NULL,
    tier text NOT NULL,
    actor text NOT NULL CONSTRAINT ck_events_actor CHECK (length(actor) BETWEEN 1 AND 200),
    reasons text[] NOT NULL,
    list_version text,
    occurred_at timestamptz NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (user_id, sequence),
    -- A person who decides says why.
    CONSTRAINT ck_events_reasons CHECK (event NOT IN ('approved', 'denied') OR cardinality(reasons) > 0)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON onboarding.events
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();

-- The files are on S3, encrypted under the user's key; `sha256` is of that ciphertext.
CREATE TABLE onboarding.documents (
    id text CONSTRAINT pk_documents PRIMARY KEY CONSTRAINT ck_documents_id CHECK (id LIKE 'doc\\_%'),
    user_id text NOT NULL REFERENCES onboarding.cases,
    kind text NOT NULL CONSTRAINT ck_documents_kind
        CHECK (kind IN ('identity_front', 'identity_back', 'proof_of_address', 'selfie')),
    content_type text NOT NULL CONSTRAINT ck_documents_content_type
        CHECK (content_type IN ('application/pdf', 'image/png', 'image/jpeg')),
    size_bytes integer NOT NULL CONSTRAINT ck_documents_size_bytes CHECK (size_bytes BETWEEN 1 AND 5242880),
    sha256 text NOT NULL CONSTRAINT ck_documents_sha256 CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz NOT NULL,
    erased_at timestamptz
);
CREATE INDEX ix_documents_user ON onboarding.documents (user_id, created_at);

CREATE FUNCTION onboarding.keep_document() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.erased_at IS NOT NULL OR NEW.erased_at IS NULL
        OR (NEW.id, NEW.user_id, NEW.kind, NEW.sha256) IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.kind, OLD.sha256)
    THEN
        RAISE EXCEPTION 'a document is only erased, once' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_document BEFORE UPDATE OR DELETE ON onboarding.documents
    FOR EACH ROW EXECUTE FUNCTION onboarding.keep_document();

-- Who of ours looked at whose data. The row is written before anything is shown.
CREATE TABLE onboarding.access_audit (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_access_audit PRIMARY KEY,
    user_id text NOT NULL REFERENCES platform.users,
    account_id text NOT NULL REFERENCES platform.accounts,
    operator text NOT NULL CONSTRAINT ck_access_audit_operator CHECK (length(operator) BETWEEN 1 AND 200),
    what text NOT NULL,
    looked_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON onboarding.access_audit
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""

_CLOSURES = """
CREATE TABLE onboarding.closures (
    user_id text NOT NULL REFERENCES platform.users,
    number integer NOT NULL CONSTRAINT ck_closures_number CHECK (number > 0),
    account_id text NOT NULL REFERENCES platform.accounts,
    status text NOT NULL
        CONSTRAINT ck_closures_status CHECK (status IN ('waiting', 'withdrawn', 'closed', 'erased')),
    waiting_for text[] NOT NULL DEFAULT '{}',
    requested_by text NOT NULL CONSTRAINT ck_closures_requested_by CHECK (length(requested_by) BETWEEN 1 AND 200),
    requested_at timestamptz NOT NULL,
    closed_at timestamptz,
    erase_after timestamptz,
    erased_at timestamptz,
    CONSTRAINT pk_closures PRIMARY KEY (user_id, number),
    CONSTRAINT ck_closures_closed CHECK (
        (status IN ('closed', 'erased')) = (closed_at IS NOT NULL AND erase_after IS NOT NULL)),
    CONSTRAINT ck_closures_waiting CHECK (status = 'waiting' OR cardinality(waiting_for) = 0),
    CONSTRAINT ck_closures_erased CHECK ((status = 'erased') = (erased_at IS NOT NULL)),
    -- What the law demands to be kept is kept until then, whatever code runs.
    CONSTRAINT ck_closures_retention CHECK (erased_at >= erase_after)
);
CREATE UNIQUE INDEX uq_closures_one_open ON onboarding.closures (user_id) WHERE status <> 'withdrawn';

CREATE FUNCTION onboarding.keep_closure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (NEW.user_id, NEW.number, NEW.account_id, NEW.requested_at)
            IS DISTINCT FROM (OLD.user_id, OLD.number, OLD.account_id, OLD.requested_at)
        OR (OLD.status, NEW.status) NOT IN (
            ('waiting', 'waiting'), ('waiting', 'withdrawn'), ('waiting', 'closed'), ('closed', 'erased'))
        OR (OLD.closed_at, OLD.erase_after) IS DISTINCT FROM (NEW.closed_at, NEW.erase_after)
            AND OLD.status <> 'waiting'
    THEN
        RAISE EXCEPTION 'a closure that is % cannot be that', OLD.status
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_closure BEFORE UPDATE OR DELETE ON onboarding.closures
    FOR EACH ROW EXECUTE FUNCTION onboarding.keep_closure();

-- That somebody's data were destroyed, and by which key. Nothing in it is ever changed or removed.
CREATE TABLE onboarding.erasure_certificates (
    user_id text CONSTRAINT pk_erasure_certificates PRIMARY KEY REFERENCES platform.users,
    account_id text NOT NULL REFERENCES platform.accounts,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    closed_at timestamptz NOT NULL,
    erased_at timestamptz NOT NULL,
    -- None: the user had never said anything that needed one.
    key_id text REFERENCES vault.personal_keys,
    documents integer NOT NULL CONSTRAINT ck_erasure_certificates_documents CHECK (documents >= 0)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON onboarding.erasure_certificates
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();

CREATE FUNCTION onboarding.require_destroyed_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM vault.personal_keys WHERE user_id = NEW.user_id
        AND (destroyed_at IS NULL OR NEW.key_id IS DISTINCT FROM id))
    THEN
        RAISE EXCEPTION 'the key of % is not destroyed', NEW.user_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER require_destroyed_key BEFORE INSERT ON onboarding.erasure_certificates
    FOR EACH ROW EXECUTE FUNCTION onboarding.require_destroyed_key();
"""

_UP = (_USERS, _KEYS, _CASES, _CLOSURES)

_DOWN = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM onboarding.events) OR EXISTS (SELECT FROM onboarding.closures) THEN
        RAISE EXCEPTION 'what the law wants kept of users would be lost' USING ERRCODE = 'object_in_use';
    END IF;
END $$;
DROP SCHEMA onboarding CASCADE;
DROP TABLE vault.personal_keys;
DROP FUNCTION vault.keep_personal_key;
DROP TRIGGER keep_user_closed ON platform.users;
DROP FUNCTION platform.keep_user_closed;
ALTER TABLE platform.users
    DROP CONSTRAINT ck_users_closed,
    DROP CONSTRAINT ck_users_erased,
    DROP COLUMN tier, DROP COLUMN sending_frozen, DROP COLUMN closing_at, DROP COLUMN closed_at, DROP COLUMN erased_at;
"""


def upgrade() -> None:
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    op.execute(_DOWN)
