"""The sandbox's settings. It checks logins, so it knows the same vendor accounts as the platform that it serves."""

from __future__ import annotations

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class SandboxSettings(BaseSettings):
    """`control_token` is asked of whoever deletes messages or orders faults. `state` is a SQLite file.

    The vendors' accounts come from the same variables as the platform's (`DURAPAY_NOTIFY_…`). With `ses_endpoint`, the
    address of a moto server, the e-mails that were sent there are shown too.
    """

    # An error about one variable would otherwise show the values of all others, secrets too.
    model_config = SettingsConfigDict(env_prefix="DURAPAY_SANDBOX_", populate_by_name=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8500, ge=1, le=65535)
    control_token: SecretStr = Field(min_length=16)
    state: Path
    twilio_account_sid: str = Field(validation_alias=AliasChoices("DURAPAY_NOTIFY_TWILIO_ACCOUNT_SID"))
    twilio_auth_token: SecretStr = Field(validation_alias=AliasChoices("DURAPAY_NOTIFY_TWILIO_AUTH_TOKEN"))
    fcm_service_account_file: Path = Field(validation_alias=AliasChoices("DURAPAY_NOTIFY_FCM_SERVICE_ACCOUNT_FILE"))
    ses_endpoint: str | None = Field(default=None, validation_alias=AliasChoices("DURAPAY_NOTIFY_SES_ENDPOINT"))
