"""Fresh secrets for docker-compose.yml: `python -m embedded.compose_env` prints .env.example with its gaps filled."""

from __future__ import annotations

import json

from embedded.state import ROOT, make_secret, sealing_public_key
from notify.sandbox.credentials import service_account

_SANDBOX = "http://notification-sandbox:8500"

# Variable → the secret that it takes.
_SECRETS = {
    "POSTGRES_PASSWORD": "database_password",
    "REDIS_PASSWORD": "redis_password",
    "TEMPORAL_POSTGRES_PASSWORD": "database_password",
    "ELASTIC_PASSWORD": "database_password",
    "DURAPAY_HSM_PIN": "hsm_pin",
    "DURAPAY_CEREMONY_SO_PIN": "hsm_so_pin",
    "DURAPAY_CEREMONY_IMK_AC": "imk_ac",
    "DURAPAY_STEP_UP_SECRET": "step_up_secret",
    "DURAPAY_IDENTITY_SECRET": "identity_secret",
    "DURAPAY_CONTACT_CODES_SECRET": "contact_codes_secret",
    "DURAPAY_NOTIFY_TWILIO_ACCOUNT_SID": "twilio_account_sid",
    "DURAPAY_NOTIFY_TWILIO_AUTH_TOKEN": "twilio_auth_token",
    "DURAPAY_NOTIFY_SES_ACCESS_KEY_ID": "ses_access_key_id",
    "DURAPAY_NOTIFY_SES_SECRET_ACCESS_KEY": "ses_secret_access_key",
    "DURAPAY_DOCUMENTS_ACCESS_KEY_ID": "documents_access_key_id",
    "DURAPAY_DOCUMENTS_SECRET_ACCESS_KEY": "documents_secret_access_key",
    "DURAPAY_SIMULATOR_CONTROL_TOKEN": "simulator_control_token",
    "DURAPAY_SIMULATOR_FINGERPRINT_KEY": "simulator_fingerprint_key",
    "DURAPAY_CLEARING_TOKEN": "clearing_token",
    "DURAPAY_SANDBOX_CONTROL_TOKEN": "sandbox_control_token",
    "DURAPAY_BANK_TOKEN": "bank_token",
    "DURAPAY_BANK_SIMULATOR_CONTROL_TOKEN": "bank_control_token",
}


def values(template: str) -> dict[str, str]:
    """All variables of `template` (the text of .env.example), with a fresh secret for each that is empty."""
    lines = (line.partition("=") for line in template.splitlines() if line and not line.startswith("#"))
    given = {name: value for name, _, value in lines}
    private_key = make_secret("unsealing_private_key")
    bank_key = make_secret("bank_private_key")
    correction_key = make_secret("correction_private_key")
    fresh = {name: make_secret(secret) for name, secret in _SECRETS.items()}
    onboarding_key = make_secret("onboarding_private_key")
    fresh |= {
        "DURAPAY_LENDING_PUBLIC_KEY": sealing_public_key(onboarding_key),
        "DURAPAY_ONBOARDING_PRIVATE_KEY": onboarding_key,
        "DURAPAY_CODEC_KEYS": f"{given['DURAPAY_CODEC_ACTIVE_KEY_ID']}:{make_secret('codec_key')}",
        "DURAPAY_SEALING_PUBLIC_KEY": sealing_public_key(private_key),
        "DURAPAY_UNSEALING_PRIVATE_KEY": private_key,
        "DURAPAY_BANK_SEALING_PUBLIC_KEY": sealing_public_key(bank_key),
        "DURAPAY_BANK_PRIVATE_KEY": bank_key,
        "DURAPAY_CORRECTION_SEALING_PUBLIC_KEY": sealing_public_key(correction_key),
        "DURAPAY_CORRECTION_PRIVATE_KEY": correction_key,
        "FCM_SERVICE_ACCOUNT_JSON": json.dumps(service_account(_SANDBOX)),
    }
    return {name: value or fresh[name] for name, value in given.items()}


def dotenv(variables: dict[str, str]) -> str:
    """`variables` as Compose reads them: in single quotes all is literal; line breaks need double ones."""
    return "".join(f"{name}={_quoted(value)}\n" for name, value in variables.items())


def _quoted(value: str) -> str:
    return '"{}"'.format(value.replace("\n", "\\n")) if "\n" in value else f"'{value}'"


if __name__ == "__main__":
    print(dotenv(values((ROOT / ".env.example").read_text())), end="")
