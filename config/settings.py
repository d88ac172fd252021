"""The settings classes. A missing or malformed value stops the process at start with the variable's name.

The error does not repeat what was given: another variable's secret may stand beside the one that is wrong.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretBytes, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from domain.currency import Currency
from domain.errors import DurapayError
from domain.evidence import MAX_FILE_BYTES


class SettingsInvalid(DurapayError):
    """One line for each variable that is missing or malformed: its name and what is wrong, never what was given."""


class _Settings(BaseSettings):
    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsInvalid("\n".join(self._problems(error))) from None

    @classmethod
    def _problems(cls, error: ValidationError) -> list[str]:
        prefix = cls.model_config.get("env_prefix", "")
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return [f"{prefix}{detail['loc'][0]}".upper() + f": {detail['msg']}" for detail in details]


def _from_base64(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _keyring(value: object) -> object:
    """`id:base64,id:base64` → {id: key}."""
    if not isinstance(value, str):
        return value
    keys: dict[str, bytes] = {}
    for entry in value.split(","):
        identifier, colon, key = (part.strip() for part in entry.partition(":"))
        if not colon or not identifier:
            raise ValueError("each key is written as id:base64")
        if identifier in keys:
            raise ValueError("two keys have the same id")
        keys[identifier] = base64.b64decode(key, validate=True)
    return keys


_Key = Annotated[SecretBytes, Field(min_length=32, max_length=32)]
Base64Key = Annotated[_Key, BeforeValidator(_from_base64)]
Keyring = Annotated[dict[str, _Key], NoDecode, BeforeValidator(_keyring)]


class DatabaseSettings(_Settings):
    """PostgreSQL. `url` is a SQLAlchemy URL (`postgresql+psycopg://…`)."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_DATABASE_")

    url: SecretStr
    # Concurrency near eight per two cores measured best; more only lengthens the tail.
    pool_size: int = Field(default=8, ge=1, le=100)


class RedisSettings(_Settings):
    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_REDIS_")

    url: SecretStr


class TemporalSettings(_Settings):
    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_TEMPORAL_")

    address: str
    namespace: str = "default"
    # Names the code that a worker runs; deployments set it to the image's digest.
    build_id: str = "development"


class CodecSettings(_Settings):
    """Data keys (32 bytes each) of the payload codec, by id. New payloads use `active_key_id`."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_CODEC_")

    keys: Keyring
    active_key_id: str


class HsmSettings(_Settings):
    """The PKCS#11 token. Only the vault worker and the API process, which adds cards, have these."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_HSM_")

    module: Path
    token_label: str = "durapay"  # noqa: S105 - a name
    pin: SecretStr
    # More sessions lengthen SoftHSM's tail and add no throughput.
    sessions: int = Field(default=2, ge=1, le=64)


class SealingSettings(_Settings):
    """The public half (X25519, base64) of the network worker's key: whoever has it can only close boxes."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_SEALING_")

    public_key: Base64Key


class UnsealingSettings(_Settings):
    """The private half (X25519, base64). The network worker alone has it."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_UNSEALING_")

    private_key: Base64Key


class NetworkSettings(_Settings):
    """The link to the card network."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_NETWORK_")

    host: str
    port: int = Field(ge=1, le=65535)
    # DE32, the id under which the network knows this acquirer.
    acquirer_id: str = Field(default="400123", pattern=r"^\d{1,11}$")
    answer_timeout_seconds: float = Field(default=10.0, gt=0)
    echo_interval_seconds: float = Field(default=30.0, gt=0)
    tls_ca_file: Path | None = None


class FraudSettings(_Settings):
    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_FRAUD_")

    model_dir: Path = Path(__file__).parent.parent / "fraud" / "artifacts"


class ClearingSettings(_Settings):
    """The network's clearing service, and the bearer token that opens it."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_CLEARING_")

    url: str
    token: SecretStr


class BankSettings(_Settings):
    """Our bank: where its file service is, who we are for it, and the private half (X25519, base64) of the key with
    which account numbers are sealed. The bank worker alone has these."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_BANK_")

    url: str
    token: SecretStr
    private_key: Base64Key
    answer_timeout_seconds: float = Field(default=10.0, gt=0)
    routing_number: str = Field(default="076401251", pattern=r"^\d{9}$")
    name: str = Field(default="SIMULATED BANK", min_length=1, max_length=23)
    # How the bank knows the company: `1` and its employer identification number, or what the bank assigned.
    company_id: str = Field(default="1123456789", pattern=r"^[A-Z0-9]{10}$")
    company_name: str = Field(default="DURAPAY", min_length=1, max_length=16)


class BankSealingSettings(_Settings):
    """The public half (X25519, base64) of the bank worker's key: the vault seals account numbers with it."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_BANK_SEALING_")

    public_key: Base64Key


class CorrectionSealingSettings(_Settings):
    """The public half (X25519, base64) of the vault worker's key: the bank worker seals with it what banks correct."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_CORRECTION_SEALING_")

    public_key: Base64Key


class CorrectionSettings(_Settings):
    """The private half: the vault worker alone opens what banks say is right of an account."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_CORRECTION_")

    private_key: Base64Key


class NotifySettings(_Settings):
    """The vendors' credentials. The `*_endpoint` values point the SDKs elsewhere than at the vendor (a sandbox)."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_NOTIFY_")

    fcm_service_account_file: Path
    fcm_endpoint: str | None = None
    twilio_account_sid: str
    twilio_auth_token: SecretStr
    twilio_from: str
    twilio_endpoint: str | None = None
    ses_region: str = "eu-central-1"
    ses_sender: str
    ses_access_key_id: str
    ses_secret_access_key: SecretStr
    ses_endpoint: str | None = None


class DocumentSettings(_Settings):
    """The bucket in which evidence is kept. `endpoint` points elsewhere than at AWS; `link_endpoint` is how whoever
    downloads a file reaches S3, if that is another address. Without `kms_key_id` S3 encrypts with keys of its own."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_DOCUMENTS_")

    bucket: str = "durapay-evidence"
    region: str = "eu-central-1"
    access_key_id: str
    secret_access_key: SecretStr
    endpoint: str | None = None
    link_endpoint: str | None = None
    kms_key_id: str | None = None


def _amounts(value: object) -> object:
    """`USD:1500,EUR:1400` → {currency: minor units}; empty: none."""
    if not isinstance(value, str):
        return value
    amounts: dict[str, str] = {}
    for entry in filter(None, value.split(",")):
        currency, colon, amount = (part.strip() for part in entry.partition(":"))
        if not colon:
            raise ValueError("each amount is written as currency:minor units")
        if currency in amounts:
            raise ValueError("two amounts have the same currency")
        amounts[currency] = amount
    return amounts


class LedgerSettings(_Settings):
    """What a capture costs the merchant: a share in basis points, and a fixed amount by currency in minor units."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_LEDGER_")

    fee_basis_points: int = Field(default=0, ge=0, le=10_000)
    fee_fixed_minor: Annotated[dict[Currency, Annotated[int, Field(ge=0)]], NoDecode, BeforeValidator(_amounts)] = (
        Field(default_factory=dict)
    )


class DisputeSettings(_Settings):
    """What a lost dispute costs the merchant, by currency, in minor units: nothing where a currency is not named."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_DISPUTES_")

    fees_minor: Annotated[dict[Currency, Annotated[int, Field(ge=0)]], NoDecode, BeforeValidator(_amounts)] = Field(
        default_factory=dict
    )


class ApiSettings(_Settings):
    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_API_")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    # How long a caller waits for an authorization before it gets 202 with the payment's state.
    wait_seconds: float = Field(default=10.0, gt=0, le=60)
    max_body_bytes: int = Field(default=64 * 1024, ge=1024)
    # A file of evidence with the texts beside it.
    max_upload_bytes: int = Field(default=MAX_FILE_BYTES + 256 * 1024, ge=1024)
    # What the sessions' JWTs say, and must say.
    jwt_issuer: str = "https://durapay.local"
    jwt_audience: str = "durapay-api"
    livemode: bool = False
    # How often within 24 hours issuers are asked about a card, whoever added it, and for a user: whoever tests stolen
    # numbers needs many answers.
    verifications_per_card: int = Field(default=10, ge=1)
    verifications_per_user: int = Field(default=20, ge=1)
    # Not every originating bank debits savings accounts.
    savings_accounts: bool = True
    # Whose word on the client's address counts (addresses or networks, with commas; `*` is everybody): the gateway's.
    trusted_proxies: str = ""


class PasskeySettings(_Settings):
    """Who asks for passkeys (WebAuthn's relying party). `origin` is where users reach the API, without a path; devices
    sign requests to it. `rp_id` is its domain or one above; `apps` are further origins, with commas between them
    (`https://…`, `android:apk-key-hash:…`)."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_PASSKEYS_")

    origin: str = Field(default="http://localhost:8000", pattern=r"^https?://[^/?#\s]+$")
    rp_id: str = Field(default="localhost", pattern=r"^[a-z0-9.-]{1,253}$")
    rp_name: str = Field(default="durapay", min_length=1, max_length=64)
    apps: str = ""

    @property
    def origins(self) -> tuple[str, ...]:
        return (self.origin, *(app.strip() for app in self.apps.split(",") if app.strip()))


class IdentitySettings(_Settings):
    """Sessions and passwords. From `secret` (32 bytes, base64) the keys follow that encrypt the signing keys and make
    refresh tokens; the API alone has it."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_IDENTITY_")

    secret: Base64Key
    # A stolen access token is good for this long at most, also where nobody notices.
    access_token_seconds: int = Field(default=600, ge=60, le=600)
    # A refresh token that is not used for so long is dead; a session ends after so long whatever is used.
    refresh_token_days: int = Field(default=30, ge=1, le=90)
    session_days: int = Field(default=180, ge=1, le=400)
    signing_key_days: int = Field(default=30, ge=1, le=365)


class LendingSettings(_Settings):
    """The public half (X25519, base64) of the onboarding worker's key: the vault lends persons' keys to it alone."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_LENDING_")

    public_key: Base64Key


class OnboardingSettings(_Settings):
    """Knowing the customer. `private_key` (X25519, base64) opens the keys that the vault lends."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_ONBOARDING_")

    private_key: Base64Key
    watch_list: Path = Path(__file__).parent.parent / "onboarding" / "lists" / "watch_list.csv"
    # Directive (EU) 2015/849, article 40, and 31 CFR 1010.430 want identity data kept for five years after the end.
    retention_days: int = Field(default=1826, ge=0)


class ContactCodeSettings(_Settings):
    """The secret (32 bytes, base64) from which the codes follow that prove an e-mail address or a phone number."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_CONTACT_CODES_")

    secret: Base64Key


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Requests a minute of one API key, of one user's sessions, and from one network address without a secret key."""

    key: int
    user: int
    address: int


def _rate_limit(value: object) -> object:
    """`600/60/120`: by key, user and address."""
    if not isinstance(value, str):
        return value
    numbers = [int(part) if part.strip().isascii() and part.strip().isdigit() else 0 for part in value.split("/")]
    if len(numbers) != 3 or min(numbers) < 1:
        raise ValueError("a rate limit is written as key/user/address, in requests a minute, each at least 1")
    return RateLimit(*numbers)


_RateLimit = Annotated[RateLimit, NoDecode, BeforeValidator(_rate_limit)]


class RateLimitSettings(_Settings):
    """How many requests a minute the API takes, by class of route; see api/rate_limits.py."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_RATE_LIMIT_")

    reads: _RateLimit = RateLimit(12_000, 600, 1200)
    writes: _RateLimit = RateLimit(6000, 120, 240)
    # Payments, refunds and cards: what card testers are after.
    money: _RateLimit = RateLimit(6000, 30, 60)
    sign_in: _RateLimit = RateLimit(3000, 30, 30)
    # Credentials that opened nothing, from one address.
    refused_per_address: int = Field(default=60, ge=1)

    def of(self, name: str) -> RateLimit:
        """The limit of that name."""
        limit: RateLimit = getattr(self, name)
        return limit


class StepUpSettings(_Settings):
    """The secret (32 bytes, base64) from which the one-time codes of step-ups are derived (RFC 4226)."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_STEP_UP_")

    secret: Base64Key


class CodecServerSettings(_Settings):
    """The server through which the Temporal UI reads payloads. `ui_origin` alone may call it from a browser."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_prefix="DURAPAY_CODEC_SERVER_")

    host: str = "127.0.0.1"
    port: int = Field(default=8234, ge=1, le=65535)
    ui_origin: str
