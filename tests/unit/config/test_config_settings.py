from __future__ import annotations

import base64
import os
import secrets

import pytest

import config.settings
from config.settings import (
    ApiSettings,
    CodecSettings,
    ContactCodeSettings,
    DatabaseSettings,
    DisputeSettings,
    DocumentSettings,
    HsmSettings,
    IdentitySettings,
    NetworkSettings,
    SealingSettings,
    SettingsInvalid,
    StepUpSettings,
    UnsealingSettings,
)
from domain.currency import Currency

KEY, OTHER = base64.b64encode(bytes(range(32))).decode(), base64.b64encode(bytes(32)).decode()
CLASSES = [
    member
    for member in vars(config.settings).values()
    if isinstance(member, type) and issubclass(member, config.settings._Settings) and member.model_fields
]


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("DURAPAY_") and not name.startswith("DURAPAY_TEST_"):
            monkeypatch.delenv(name)


def _refused(settings: type) -> str:
    with pytest.raises(SettingsInvalid) as refusal:
        settings()
    assert refusal.value.__suppress_context__
    return str(refusal.value)


# ------------------------------------------------------------------------------------------------------------- keyrings


def test_a_keyring_is_ids_with_base64_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURAPAY_CODEC_KEYS", f"2026-10:{KEY}, 2026-11:{OTHER}")
    monkeypatch.setenv("DURAPAY_CODEC_ACTIVE_KEY_ID", "2026-11")
    settings = CodecSettings()
    assert {name: key.get_secret_value() for name, key in settings.keys.items()} == {
        "2026-10": bytes(range(32)),
        "2026-11": bytes(32),
    }
    assert settings.active_key_id == "2026-11"


@pytest.mark.parametrize(
    "keyring",
    [
        "",
        KEY,
        f":{KEY}",
        "k1:",
        "k1:not-base64!",
        f"k1:{KEY[:-4]}",
        f"k1:{KEY[:-1]}",
        f"k1:{KEY},",
        f"k1:{KEY},k1:{OTHER}",
        f"k1:{KEY}\nk2:{OTHER}",
        f"k1:{base64.urlsafe_b64encode(bytes([251] * 32)).decode()}",
    ],
)
def test_a_malformed_keyring_stops_the_process_and_is_not_shown(monkeypatch: pytest.MonkeyPatch, keyring: str) -> None:
    monkeypatch.setenv("DURAPAY_CODEC_KEYS", keyring)
    monkeypatch.setenv("DURAPAY_CODEC_ACTIVE_KEY_ID", "k1")
    message = _refused(CodecSettings)
    assert "DURAPAY_CODEC_KEYS" in message
    assert KEY[:8] not in message
    assert "not-base64" not in message


# ----------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        (SealingSettings, "DURAPAY_SEALING_PUBLIC_KEY"),
        (UnsealingSettings, "DURAPAY_UNSEALING_PRIVATE_KEY"),
        (StepUpSettings, "DURAPAY_STEP_UP_SECRET"),
        (IdentitySettings, "DURAPAY_IDENTITY_SECRET"),
        (ContactCodeSettings, "DURAPAY_CONTACT_CODES_SECRET"),
    ],
)
@pytest.mark.parametrize("value", ["", "secretsecret!", "c2VjcmV0c2VjcmV0", KEY + KEY, KEY[:-2]])
def test_a_key_that_is_not_32_bytes_of_base64_stops_the_process(
    monkeypatch: pytest.MonkeyPatch, settings: type, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    message = _refused(settings)
    assert variable in message
    assert "secret!" not in message
    assert "c2VjcmV0" not in message


def test_a_key_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURAPAY_STEP_UP_SECRET", KEY)
    assert StepUpSettings().secret.get_secret_value() == bytes(range(32))


# -------------------------------------------------------------------------------------------------------- every setting


@pytest.mark.parametrize("settings", CLASSES)
def test_a_missing_variable_is_named(settings: type[config.settings._Settings]) -> None:
    prefix = str(settings.model_config.get("env_prefix"))
    required = {f"{prefix}{name}".upper() for name, field in settings.model_fields.items() if field.is_required()}
    if required:
        assert {line.partition(":")[0] for line in _refused(settings).splitlines()} == required
    else:
        settings()


@pytest.mark.parametrize("settings", CLASSES)
def test_every_variable_of_a_zone_begins_with_its_name(settings: type[config.settings._Settings]) -> None:
    assert str(settings.model_config.get("env_prefix")).startswith("DURAPAY_")


def test_no_two_zones_share_a_prefix() -> None:
    prefixes = [str(settings.model_config.get("env_prefix")) for settings in CLASSES]
    assert len(set(prefixes)) == len(prefixes)


@pytest.mark.parametrize(
    ("settings", "environment", "wrong"),
    [
        (ApiSettings, {"HOST": "canary", "PORT": "99999"}, "DURAPAY_API_PORT"),
        (ApiSettings, {"HOST": "canary", "WAIT_SECONDS": "0"}, "DURAPAY_API_WAIT_SECONDS"),
        (DatabaseSettings, {"URL": "postgresql://canary", "POOL_SIZE": "canary"}, "DURAPAY_DATABASE_POOL_SIZE"),
        (HsmSettings, {"MODULE": "/lib/x.so", "PIN": "canary", "SESSIONS": "0"}, "DURAPAY_HSM_SESSIONS"),
        (NetworkSettings, {"HOST": "h", "PORT": "1", "ACQUIRER_ID": "canary"}, "DURAPAY_NETWORK_ACQUIRER_ID"),
    ],
)
def test_a_wrong_value_is_named_and_never_repeated(
    monkeypatch: pytest.MonkeyPatch, settings: type[config.settings._Settings], environment: dict[str, str], wrong: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"{settings.model_config.get('env_prefix')}{name}", value)
    message = _refused(settings)
    assert [line.partition(":")[0] for line in message.splitlines()] == [wrong]
    assert "canary" not in message


def test_secrets_are_not_in_a_settings_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("DURAPAY_DATABASE_URL", f"postgresql+psycopg://u:{secret}@h/d")
    monkeypatch.setenv("DURAPAY_HSM_MODULE", "/lib/x.so")
    monkeypatch.setenv("DURAPAY_HSM_PIN", secret)
    monkeypatch.setenv("DURAPAY_IDENTITY_SECRET", KEY)
    monkeypatch.setenv("DURAPAY_CODEC_KEYS", f"k1:{KEY}")
    monkeypatch.setenv("DURAPAY_CODEC_ACTIVE_KEY_ID", "k1")
    for settings in (DatabaseSettings(), HsmSettings(), IdentitySettings(), CodecSettings()):
        assert secret not in repr(settings)
        assert secret not in str(settings)
        assert repr(bytes(range(32)))[2:20] not in repr(settings)


# ------------------------------------------------------------------------------------------------------------- disputes


@pytest.mark.parametrize(
    ("given", "fees"),
    [
        ("", {}),
        ("USD:1500", {Currency.USD: 1500}),
        (" USD:1500 , JPY:2000,", {Currency.USD: 1500, Currency.JPY: 2000}),
    ],
)
def test_the_fee_of_a_lost_dispute_is_said_by_currency(
    monkeypatch: pytest.MonkeyPatch, given: str, fees: dict[Currency, int]
) -> None:
    monkeypatch.setenv("DURAPAY_DISPUTES_FEES_MINOR", given)
    assert DisputeSettings().fees_minor == fees


@pytest.mark.parametrize("given", ["1500", "USD", "USD:x", "USD:-1", "USD:1.5", "XXQ:1", "USD:1,USD:2"])
def test_a_fee_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("DURAPAY_DISPUTES_FEES_MINOR", given)
    assert "DURAPAY_DISPUTES_FEES_MINOR" in _refused(DisputeSettings)


def test_without_a_setting_a_lost_dispute_costs_its_amount_alone() -> None:
    assert DisputeSettings().fees_minor == {}


def test_the_storages_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURAPAY_DOCUMENTS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("DURAPAY_DOCUMENTS_SECRET_ACCESS_KEY", "hush-hush")
    assert "hush-hush" not in repr(DocumentSettings())
