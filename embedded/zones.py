"""Trust zones: which process is told what. A variable that is not listed for a zone does not reach its processes.

The table names the settings classes of each zone; the variables follow from their fields, so the two cannot drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from bank.simulator.__main__ import BankSimulatorSettings
from config.settings import (
    ApiSettings,
    BankSealingSettings,
    BankSettings,
    ClearingSettings,
    CodecServerSettings,
    CodecSettings,
    ContactCodeSettings,
    CorrectionSealingSettings,
    CorrectionSettings,
    DatabaseSettings,
    DisputeSettings,
    DocumentSettings,
    FraudSettings,
    HsmSettings,
    IdentitySettings,
    LedgerSettings,
    LendingSettings,
    NetworkSettings,
    NotifySettings,
    OnboardingSettings,
    PasskeySettings,
    RateLimitSettings,
    RedisSettings,
    SealingSettings,
    StepUpSettings,
    TemporalSettings,
    UnsealingSettings,
)
from network.simulator.__main__ import SimulatorSettings
from notify.sandbox.settings import SandboxSettings


class Zone(StrEnum):
    """The values of the four workers' zones are what `python -m workers` takes."""

    PAYMENTS = "payments"
    VAULT = "vault"
    NETWORK = "network"
    NOTIFY = "notify"
    SETTLEMENT = "settlement"
    BANK = "bank"
    ONBOARDING = "onboarding"
    API = "api"
    CODEC_SERVER = "codec-server"
    DATABASE_SETUP = "database-setup"
    TOKEN_SETUP = "token-setup"  # noqa: S105 - a zone
    TEMPORAL_SETUP = "temporal-setup"
    DOCUMENT_SETUP = "document-setup"
    SIMULATOR = "simulator"
    BANK_SIMULATOR = "bank-simulator"
    SANDBOX = "sandbox"


SETTINGS: Mapping[Zone, tuple[type[BaseSettings], ...]] = {
    Zone.PAYMENTS: (
        DatabaseSettings,
        RedisSettings,
        TemporalSettings,
        CodecSettings,
        FraudSettings,
        LedgerSettings,
        StepUpSettings,
        PasskeySettings,
        DocumentSettings,
        DisputeSettings,
    ),
    Zone.VAULT: (
        DatabaseSettings,
        RedisSettings,
        TemporalSettings,
        CodecSettings,
        HsmSettings,
        SealingSettings,
        LendingSettings,
        BankSealingSettings,
        CorrectionSettings,
    ),
    Zone.NETWORK: (
        DatabaseSettings,
        RedisSettings,
        TemporalSettings,
        CodecSettings,
        NetworkSettings,
        UnsealingSettings,
    ),
    Zone.NOTIFY: (
        DatabaseSettings,
        TemporalSettings,
        CodecSettings,
        NotifySettings,
        StepUpSettings,
        ContactCodeSettings,
    ),
    Zone.SETTLEMENT: (DatabaseSettings, TemporalSettings, CodecSettings, ClearingSettings),
    Zone.ONBOARDING: (
        DatabaseSettings,
        RedisSettings,
        TemporalSettings,
        CodecSettings,
        DocumentSettings,
        OnboardingSettings,
    ),
    Zone.BANK: (DatabaseSettings, TemporalSettings, CodecSettings, BankSettings, CorrectionSealingSettings),
    Zone.API: (
        DatabaseSettings,
        RedisSettings,
        TemporalSettings,
        CodecSettings,
        HsmSettings,
        SealingSettings,
        DocumentSettings,
        IdentitySettings,
        ContactCodeSettings,
        PasskeySettings,
        RateLimitSettings,
        ApiSettings,
    ),
    Zone.CODEC_SERVER: (DatabaseSettings, CodecSettings, CodecServerSettings),
    Zone.DATABASE_SETUP: (DatabaseSettings,),
    Zone.TOKEN_SETUP: (HsmSettings,),
    Zone.TEMPORAL_SETUP: (TemporalSettings,),
    Zone.DOCUMENT_SETUP: (DocumentSettings,),
    Zone.SIMULATOR: (SimulatorSettings,),
    Zone.BANK_SIMULATOR: (BankSimulatorSettings,),
    Zone.SANDBOX: (SandboxSettings,),
}

# What is read by something else than a settings class: the PKCS#11 module, the simulators, the key ceremony.
FURTHER: Mapping[Zone, frozenset[str]] = {
    Zone.VAULT: frozenset({"SOFTHSM2_CONF"}),
    Zone.API: frozenset({"SOFTHSM2_CONF"}),
    Zone.TOKEN_SETUP: frozenset({"SOFTHSM2_CONF", "DURAPAY_CEREMONY_IMK_AC", "DURAPAY_CEREMONY_SO_PIN"}),
}


def variables(zone: Zone) -> frozenset[str]:
    """The names of all variables that processes of `zone` may be given."""
    named = (
        _variable(settings, name, field) for settings in SETTINGS[zone] for name, field in settings.model_fields.items()
    )
    return frozenset(named) | FURTHER.get(zone, frozenset())


def _variable(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def environment(zone: Zone, values: Mapping[str, str]) -> dict[str, str]:
    """What of `values` a process of `zone` is given."""
    return {name: values[name] for name in sorted(variables(zone)) if name in values}
