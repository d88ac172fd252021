"""What issuers say of security codes and addresses, how often a card is asked about, and closures without gaps.

A user whose wallet is being closed gets nothing new, whatever was checked before: the row of the user is locked against
the closure where something is opened. Whatever is personal can be overwritten once its owner is to be forgotten.
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# The first answer that says something is kept with its message, and stays.
_JOURNAL = """
ALTER TABLE network.messages
    ADD COLUMN checks jsonb
        CONSTRAINT ck_messages_checks CHECK (checks IS NULL OR jsonb_typeof(checks) = 'object' AND state = 'answered');
CREATE FUNCTION network.keep_checks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was decided stays decided' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER keep_checks BEFORE UPDATE ON network.messages FOR EACH ROW
    WHEN (OLD.state = 'answered' AND NEW.checks IS DISTINCT FROM OLD.checks) EXECUTE FUNCTION network.keep_checks();
"""

# What an issuer said of the code and the address that came with a payment or a verification (`source_id`).
_CHECKS = """
CREATE TABLE platform.card_checks (
    source_id text CONSTRAINT pk_card_checks PRIMARY KEY
        CONSTRAINT ck_card_checks_source_id CHECK (source_id LIKE 'pay\\_%' OR source_id LIKE 'ver\\_%'),
    payment_method_id text NOT NULL REFERENCES platform.payment_methods,
    cvc text NOT NULL
        CONSTRAINT ck_card_checks_cvc CHECK (cvc IN ('pass', 'fail', 'unavailable', 'unchecked')),
    address_line1 text NOT NULL
        CONSTRAINT ck_card_checks_address_line1 CHECK (address_line1 IN ('pass', 'fail', 'unavailable', 'unchecked')),
    postal_code text NOT NULL
        CONSTRAINT ck_card_checks_postal_code CHECK (postal_code IN ('pass', 'fail', 'unavailable', 'unchecked')),
    checked_at timestamptz NOT NULL,
    CONSTRAINT ck_card_checks_something CHECK ((cvc, address_line1, postal_code)
        <> ('unchecked', 'unchecked', 'unchecked'))
);
CREATE INDEX ix_card_checks_method ON platform.card_checks (payment_method_id, checked_at DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.card_checks
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""

# By what a card is counted, whoever added it: its payment account reference (EMV tag 9F24), which is no card number.
_VERIFICATIONS = """
ALTER TABLE platform.card_verifications ADD COLUMN card_reference text, ADD COLUMN user_id text;
CREATE INDEX ix_card_verifications_card ON platform.card_verifications (card_reference, created_at)
    WHERE card_reference IS NOT NULL;
CREATE INDEX ix_card_verifications_user ON platform.card_verifications (user_id, created_at) WHERE user_id IS NOT NULL;
"""

# `FOR SHARE` waits for a closure that is being written, and makes one wait that comes a moment later.
_CLOSING = """
CREATE FUNCTION platform.require_open_user(wanted text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz;
BEGIN
    SELECT closing_at INTO since FROM platform.users WHERE id = wanted FOR SHARE;
    IF since IS NOT NULL THEN
        RAISE EXCEPTION 'the wallet of % is closed, or about to be', wanted
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'user_is_open';
    END IF;
END $$;

CREATE FUNCTION platform.open_users_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM platform.require_open_user(NEW.user_id);
    RETURN NEW;
END $$;
CREATE TRIGGER open_users_only BEFORE INSERT ON platform.payment_methods
    FOR EACH ROW EXECUTE FUNCTION platform.open_users_only();
CREATE TRIGGER open_users_only BEFORE INSERT ON bank.micro_deposits
    FOR EACH ROW EXECUTE FUNCTION platform.open_users_only();

CREATE FUNCTION platform.open_payers_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM platform.require_open_user(user_id) FROM platform.payments WHERE id = NEW.payment_id;
    RETURN NEW;
END $$;
CREATE TRIGGER open_payers_only BEFORE INSERT ON platform.risk_decisions
    FOR EACH ROW WHEN (NEW.action <> 'block') EXECUTE FUNCTION platform.open_payers_only();

CREATE FUNCTION platform.open_holders_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- What is known already is no opening.
    IF NOT EXISTS (SELECT FROM platform.card_verifications WHERE id = NEW.id) THEN
        PERFORM platform.require_open_user(user_id) FROM platform.payment_methods WHERE id = NEW.payment_method_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER open_holders_only BEFORE INSERT ON platform.card_verifications
    FOR EACH ROW EXECUTE FUNCTION platform.open_holders_only();
"""

# Who waits for open money still signs in, to withdraw. After that, nothing that opens the wallet is made any more.
_CLOSED = """
CREATE FUNCTION platform.no_closed_users() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz;
BEGIN
    SELECT closed_at INTO since FROM platform.users WHERE id = NEW.user_id FOR SHARE;
    IF since IS NOT NULL THEN
        RAISE EXCEPTION 'the wallet of % is closed', NEW.user_id
            USING ERRCODE = 'restrict_violation', CONSTRAINT = 'user_is_open';
    END IF;
    RETURN NEW;
END $$;
"""
_OPENS_A_WALLET = (
    "identity.sessions",
    "identity.passkeys",
    "identity.devices",
    "identity.passwords",
    "identity.contacts",
    "notify.push_tokens",
)

# Where somebody is told that their address is not the account's any more. It is needed for a day.
_FORMER_CONTACTS = """
CREATE TABLE identity.former_contacts (
    id text CONSTRAINT pk_former_contacts PRIMARY KEY CONSTRAINT ck_former_contacts_id CHECK (id LIKE 'fct\\_%'),
    user_id text NOT NULL REFERENCES platform.users,
    kind text NOT NULL CONSTRAINT ck_former_contacts_kind CHECK (kind IN ('email', 'phone')),
    address text NOT NULL CONSTRAINT ck_former_contacts_address CHECK (length(address) BETWEEN 3 AND 320),
    replaced_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_former_contacts_user ON identity.former_contacts (user_id);
CREATE INDEX ix_former_contacts_replaced ON identity.former_contacts (replaced_at);
"""

# A person is forgotten when the wallet is closed and the key destroyed; then the named columns take nothing but a
# blank.
_ERASURE = """
CREATE FUNCTION onboarding.is_being_forgotten(wanted text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM onboarding.closures WHERE user_id = wanted AND status = 'closed')
        AND NOT EXISTS (SELECT FROM vault.personal_keys WHERE user_id = wanted AND destroyed_at IS NULL)
$$;
CREATE FUNCTION onboarding.only_blanks(before jsonb, after jsonb, columns text[]) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS $$
    SELECT before - columns = after - columns AND NOT EXISTS (
        SELECT FROM unnest(columns) AS name WHERE after -> name NOT IN (
            'null', '"erased"', '"none"', '{}', '["erased"]'))
$$;
CREATE FUNCTION platform.payer_of(payment text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT user_id FROM platform.payments WHERE id = payment
$$;
CREATE FUNCTION platform.disputant_of(dispute text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT user_id FROM platform.disputes JOIN platform.payments ON payments.id = disputes.payment_id
    WHERE disputes.id = dispute
$$;
CREATE FUNCTION bank.holder_of(deposits text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT user_id FROM bank.micro_deposits WHERE id = deposits
$$;
"""


def _let_blank(table: str, trigger: str, function: str, owner: str, columns: str, events: str = "DELETE") -> str:
    """The guard `trigger` of `table` as it was, but for an update that blanks `columns` of who is being forgotten."""
    return f"""
    DROP TRIGGER {trigger} ON {table};
    CREATE TRIGGER {trigger} BEFORE UPDATE ON {table} FOR EACH ROW
        WHEN (NOT (onboarding.only_blanks(to_jsonb(OLD), to_jsonb(NEW), '{{{columns}}}')
            AND onboarding.is_being_forgotten({owner})))
        EXECUTE FUNCTION {function};
    CREATE TRIGGER {trigger}_rows BEFORE {events} ON {table}
        FOR EACH {"ROW" if events == "DELETE" else "STATEMENT"} EXECUTE FUNCTION {function};
    """


_BLANKS = (
    _let_blank("identity.passkeys", "keep_passkey", "identity.keep_passkey()", "OLD.user_id", "name"),
    _let_blank("identity.devices", "keep_device", "identity.keep_device()", "OLD.user_id", "name,attestation,attested"),
    _let_blank(
        "onboarding.events", "append_only", "platform.refuse_change()", "OLD.user_id", "reasons", "DELETE OR TRUNCATE"
    ),
    _let_blank(
        "platform.dispute_files",
        "append_only",
        "platform.refuse_change()",
        "platform.disputant_of(OLD.dispute_id)",
        "name",
        "DELETE OR TRUNCATE",
    ),
    _let_blank(
        "bank.files", "guard_file", "bank.guard_file()", "bank.holder_of(OLD.micro_deposit_id)", "receiver_name"
    ),
    """
    DROP TRIGGER keep_dispute ON platform.disputes;
    CREATE TRIGGER keep_dispute BEFORE UPDATE ON platform.disputes FOR EACH ROW
        WHEN (NOT (onboarding.only_blanks(to_jsonb(OLD), to_jsonb(NEW), '{texts}')
            AND onboarding.is_being_forgotten(platform.payer_of(OLD.payment_id))))
        EXECUTE FUNCTION platform.keep_dispute();
    """,
)

_GUARDS_BEFORE = """
DROP TRIGGER keep_passkey ON identity.passkeys;
DROP TRIGGER keep_passkey_rows ON identity.passkeys;
CREATE TRIGGER keep_passkey BEFORE UPDATE OR DELETE ON identity.passkeys
    FOR EACH ROW EXECUTE FUNCTION identity.keep_passkey();
DROP TRIGGER keep_device ON identity.devices;
DROP TRIGGER keep_device_rows ON identity.devices;
CREATE TRIGGER keep_device BEFORE UPDATE OR DELETE ON identity.devices
    FOR EACH ROW EXECUTE FUNCTION identity.keep_device();
DROP TRIGGER append_only ON onboarding.events;
DROP TRIGGER append_only_rows ON onboarding.events;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON onboarding.events
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
DROP TRIGGER append_only ON platform.dispute_files;
DROP TRIGGER append_only_rows ON platform.dispute_files;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.dispute_files
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
DROP TRIGGER guard_file ON bank.files;
DROP TRIGGER guard_file_rows ON bank.files;
CREATE TRIGGER guard_file BEFORE UPDATE OR DELETE ON bank.files FOR EACH ROW EXECUTE FUNCTION bank.guard_file();
DROP TRIGGER keep_dispute ON platform.disputes;
CREATE TRIGGER keep_dispute BEFORE UPDATE ON platform.disputes
    FOR EACH ROW EXECUTE FUNCTION platform.keep_dispute();
"""

_DOWN = """
DROP FUNCTION bank.holder_of, platform.disputant_of, platform.payer_of, onboarding.only_blanks,
    onboarding.is_being_forgotten;
DROP TABLE identity.former_contacts;
DROP FUNCTION platform.no_closed_users CASCADE;
DROP FUNCTION platform.open_holders_only CASCADE;
DROP FUNCTION platform.open_payers_only CASCADE;
DROP FUNCTION platform.open_users_only CASCADE;
DROP FUNCTION platform.require_open_user;
ALTER TABLE platform.card_verifications DROP COLUMN card_reference, DROP COLUMN user_id;
DROP TABLE platform.card_checks;
DROP TRIGGER keep_checks ON network.messages;
DROP FUNCTION network.keep_checks;
ALTER TABLE network.messages DROP COLUMN checks;
"""


def upgrade() -> None:
    for statement in (_JOURNAL, _CHECKS, _VERIFICATIONS, _CLOSING, _CLOSED):
        op.execute(statement)
    for table in _OPENS_A_WALLET:
        op.execute(
            f"CREATE TRIGGER no_closed_users BEFORE INSERT ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION platform.no_closed_users()"
        )
    for statement in (_FORMER_CONTACTS, _ERASURE, *_BLANKS):
        op.execute(statement)


def downgrade() -> None:
    op.execute(_GUARDS_BEFORE)
    op.execute(_DOWN)
