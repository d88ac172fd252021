"""The vault schema."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PANS = """
CREATE TABLE vault.pans (
    fingerprint_version integer NOT NULL,
    fingerprint bytea NOT NULL,
    par text NOT NULL,
    CONSTRAINT pk_pans PRIMARY KEY (fingerprint_version, fingerprint),
    CONSTRAINT uq_pans_par UNIQUE (par),
    CONSTRAINT ck_pans_fingerprint CHECK (octet_length(fingerprint) = 32 AND fingerprint_version > 0),
    CONSTRAINT ck_pans_par CHECK (par ~ '^[0-9A-Z]{29}$')
)
"""

# A deleted token keeps no ciphertext: it can never be used again, and what is not kept cannot leak.
_TOKENS = """
CREATE TABLE vault.tokens (
    token_id text NOT NULL,
    owner_id text NOT NULL,
    fingerprint_version integer NOT NULL,
    fingerprint bytea NOT NULL,
    brand text NOT NULL,
    bin text NOT NULL,
    last4 text NOT NULL,
    exp_month integer NOT NULL,
    exp_year integer NOT NULL,
    dek_version integer NOT NULL,
    pan_iv bytea,
    pan_ciphertext bytea,
    dpan_index_version integer NOT NULL,
    dpan_index bytea NOT NULL,
    dpan_iv bytea,
    dpan_ciphertext bytea,
    psn text NOT NULL,
    atc integer NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'inactive',
    state_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    state_changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_tokens PRIMARY KEY (token_id),
    CONSTRAINT fk_tokens_fingerprint_version_pans
        FOREIGN KEY (fingerprint_version, fingerprint) REFERENCES vault.pans (fingerprint_version, fingerprint),
    CONSTRAINT uq_tokens_dpan_index_version UNIQUE (dpan_index_version, dpan_index),
    CONSTRAINT ck_tokens_bin CHECK (bin ~ '^[0-9]{6}$'),
    CONSTRAINT ck_tokens_last4 CHECK (last4 ~ '^[0-9]{4}$'),
    CONSTRAINT ck_tokens_expiry CHECK (exp_month BETWEEN 1 AND 12 AND exp_year BETWEEN 2000 AND 2099),
    CONSTRAINT ck_tokens_versions CHECK (dek_version > 0 AND dpan_index_version > 0),
    CONSTRAINT ck_tokens_dpan_index CHECK (octet_length(dpan_index) = 32),
    CONSTRAINT ck_tokens_psn CHECK (psn ~ '^[0-9]{2}$'),
    CONSTRAINT ck_tokens_atc CHECK (atc BETWEEN 0 AND 65535),
    CONSTRAINT ck_tokens_state CHECK (state IN ('inactive', 'active', 'suspended', 'deleted')),
    CONSTRAINT ck_tokens_state_reason CHECK (state_reason IN
        ('lost', 'stolen', 'fraudulent', 'account_closed', 'consumer_deleted', 'found', 'other')),
    CONSTRAINT ck_tokens_erased CHECK (
        num_nonnulls(pan_iv, pan_ciphertext, dpan_iv, dpan_ciphertext) = CASE state WHEN 'deleted' THEN 0 ELSE 4 END)
)
"""

# One live token per owner and card. After a deletion the same card can be added again, under a new token.
_OWNER_CARD = """
CREATE UNIQUE INDEX uq_tokens_owner_card ON vault.tokens (owner_id, fingerprint_version, fingerprint)
    WHERE state <> 'deleted'
"""

_CRYPTOGRAMS = """
CREATE TABLE vault.cryptograms (
    token_id text NOT NULL,
    atc integer NOT NULL,
    effect_key text NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_cryptograms PRIMARY KEY (token_id, atc),
    CONSTRAINT fk_cryptograms_token_id_tokens FOREIGN KEY (token_id) REFERENCES vault.tokens (token_id),
    CONSTRAINT ck_cryptograms_atc CHECK (atc BETWEEN 1 AND 65535)
)
"""

_GUARD_ROW = """
CREATE FUNCTION vault.guard_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.token_id, NEW.owner_id, NEW.brand, NEW.bin, NEW.last4, NEW.psn, NEW.created_at)
       IS DISTINCT FROM (OLD.token_id, OLD.owner_id, OLD.brand, OLD.bin, OLD.last4, OLD.psn, OLD.created_at) THEN
        RAISE EXCEPTION 'a token''s identity never changes' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.atc <> OLD.atc AND (NEW.atc <> OLD.atc + 1 OR OLD.state <> 'active') THEN
        RAISE EXCEPTION 'a transaction counter rises by one, and only on an active token'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (
        ('inactive', 'active'), ('active', 'suspended'), ('suspended', 'active'),
        ('inactive', 'deleted'), ('active', 'deleted'), ('suspended', 'deleted')
    ) THEN
        RAISE EXCEPTION 'no token goes from % to %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
    END IF;
    IF (NEW.exp_month, NEW.exp_year) <> (OLD.exp_month, OLD.exp_year) AND OLD.state <> 'inactive' THEN
        RAISE EXCEPTION 'the network knows this token by its expiry' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END
$$
"""

_REFUSE = """
CREATE FUNCTION vault.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of vault.% are never %d', TG_TABLE_NAME, lower(TG_OP) USING ERRCODE = 'check_violation';
END
$$
"""

_TRIGGERS = (
    "CREATE TRIGGER guard_token BEFORE UPDATE ON vault.tokens FOR EACH ROW EXECUTE FUNCTION vault.guard_token()",
    "CREATE TRIGGER keep_token BEFORE DELETE ON vault.tokens FOR EACH ROW EXECUTE FUNCTION vault.refuse()",
    "CREATE TRIGGER keep_cryptogram BEFORE UPDATE ON vault.cryptograms FOR EACH ROW EXECUTE FUNCTION vault.refuse()",
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA vault")
    for statement in (_PANS, _TOKENS, _OWNER_CARD, _CRYPTOGRAMS, _GUARD_ROW, _REFUSE, *_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA vault CASCADE")
