"""docker-compose.yml, as far as it can be checked without an engine: it is whole and keeps the trust zones apart."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic_settings import BaseSettings

from config.settings import ApiSettings
from embedded import compose_env
from embedded.state import ROOT
from embedded.zones import SETTINGS, Zone, variables

# Which of our services runs in which trust zone.
ZONES = {
    "migrate": Zone.DATABASE_SETUP,
    "key-ceremony": Zone.TOKEN_SETUP,
    "temporal-setup": Zone.TEMPORAL_SETUP,
    "api": Zone.API,
    "worker-payments": Zone.PAYMENTS,
    "worker-vault": Zone.VAULT,
    "worker-network": Zone.NETWORK,
    "worker-notify": Zone.NOTIFY,
    "worker-settlement": Zone.SETTLEMENT,
    "worker-bank": Zone.BANK,
    "worker-onboarding": Zone.ONBOARDING,
    "codec-server": Zone.CODEC_SERVER,
    "network-simulator": Zone.SIMULATOR,
    "bank-simulator": Zone.BANK_SIMULATOR,
    "notification-sandbox": Zone.SANDBOX,
}
ONE_SHOT = {"migrate", "key-ceremony", "temporal-setup"}
REFERENCE = re.compile(r"\$\{([A-Z0-9_]+)(:\?)?\}")
SECRET_NAME = re.compile(r"PASSWORD|PWD|SECRET|TOKEN$|_PIN$|_KEY$|KEYS$|AUTH|IMK")

# The parts of the compose specification that this file uses; anything else is a typing error.
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9./-]+:[0-9][0-9A-Za-z.-]*$"},
        "build": {"const": "."},
        "command": {"type": "array", "items": {"type": "string"}},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "restart": {"enum": ["no", "unless-stopped"]},
        "networks": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "network_mode": {"const": "none"},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "volumes": {"type": "array", "items": {"type": "string"}},
        "secrets": {"type": "array", "items": {"type": "string"}},
        "profiles": {"type": "array", "items": {"type": "string"}},
        "init": {"type": "boolean"},
        "read_only": {"type": "boolean"},
        "tmpfs": {"type": "array"},
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"type": "array"},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["condition"],
                "properties": {"condition": {"enum": ["service_healthy", "service_completed_successfully"]}},
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "required": ["test", "interval", "timeout", "retries"],
            "properties": {
                "test": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "retries": {"type": "integer"},
                **{name: {"type": "string"} for name in ("interval", "timeout", "start_period", "start_interval")},
            },
        },
    },
}
COMPOSE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "services"],
    "properties": {
        "name": {"type": "string"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "networks": {"type": "object"},
        "volumes": {"type": "object"},
        "secrets": {"type": "object"},
    },
    "patternProperties": {"^x-": {}},
}


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(text)
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    return compose_env.values((ROOT / ".env.example").read_text())


def _environment(service: dict[str, Any], env: dict[str, str]) -> dict[str, str]:
    given: dict[str, str] = service.get("environment", {})
    return {name: REFERENCE.sub(lambda match: env[match.group(1)], value) for name, value in given.items()}


def test_the_file_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    jsonschema.validate(compose, COMPOSE)


def test_every_dependency_is_a_service_that_can_meet_its_condition(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, dependency in service.get("depends_on", {}).items():
            assert other in services, f"{name} depends on {other}"
            runs_once = dependency["condition"] == "service_completed_successfully"
            assert runs_once == (other in ONE_SHOT), f"{name} waits for {other} in vain"


def test_every_network_volume_and_secret_is_declared_and_used(compose: dict[str, Any]) -> None:
    services = compose["services"].values()
    networks = {network for service in services for network in service.get("networks", [])}
    volumes = {entry.partition(":")[0] for service in services for entry in service.get("volumes", [])}
    secrets = {secret for service in services for secret in service.get("secrets", [])}
    assert networks == set(compose["networks"])
    assert {volume for volume in volumes if not volume.startswith(".")} == set(compose["volumes"])
    assert secrets == set(compose["secrets"])
    for path in (volume for volume in volumes if volume.startswith(".")):
        assert (ROOT / path).is_file(), path


def test_no_port_is_published_twice(services: dict[str, dict[str, Any]]) -> None:
    ports = Counter(port.split(":")[1] for service in services.values() for port in service.get("ports", []))
    assert all(count == 1 for count in ports.values())


def test_every_long_running_service_says_whether_it_is_healthy(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "healthcheck" not in service} == ONE_SHOT
    assert {name for name, service in services.items() if service["restart"] == "no"} == ONE_SHOT


def test_every_variable_is_in_the_example_and_required(text: str, env: dict[str, str]) -> None:
    without_escapes = text.replace("$$", "")
    references = REFERENCE.findall(without_escapes)
    assert without_escapes.count("${") == len(references)
    assert all(required for _, required in references)
    assert {name for name, _ in references} | {"FCM_SERVICE_ACCOUNT_JSON"} == set(env)


def test_no_secret_is_written_down(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET_NAME.search(variable):
                assert REFERENCE.search(value), f"{name}: {variable}"


def test_the_example_holds_no_secret() -> None:
    for line in (ROOT / ".env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        if SECRET_NAME.search(name) and not line.startswith("#"):
            assert value == "", name


def test_the_filled_example_has_a_value_for_each_variable(env: dict[str, str]) -> None:
    assert all(env.values())
    lines = compose_env.dotenv(env).splitlines()
    assert len(lines) == len(env)
    assert not any("'" in value for value in env.values())


def test_our_services_are_all_assigned_to_a_zone(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if "build" in service} == set(ZONES)


@pytest.mark.parametrize("name", ZONES)
def test_a_service_gets_the_variables_of_its_zone_and_no_other(
    name: str, services: dict[str, dict[str, Any]], env: dict[str, str]
) -> None:
    given = set(_environment(services[name], env))
    assert given <= variables(ZONES[name])


@pytest.mark.parametrize("name", ZONES)
def test_the_environment_of_a_service_satisfies_its_settings(
    name: str, services: dict[str, dict[str, Any]], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in {variable for zone in Zone for variable in variables(zone)}:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in _environment(services[name], env).items():
        monkeypatch.setenv(variable, value)
    settings: type[BaseSettings]
    for settings in SETTINGS[ZONES[name]]:
        settings()


def test_the_pin_of_the_hsm_is_known_to_vault_api_and_ceremony_alone(services: dict[str, dict[str, Any]]) -> None:
    assert _who_has("DURAPAY_HSM_PIN", services) == {"api", "worker-vault", "key-ceremony"}
    volumes = {name for name, service in services.items() if "hsm:/var/lib/durapay/hsm" in service.get("volumes", [])}
    assert volumes == {"api", "worker-vault", "key-ceremony"}


def test_the_key_that_opens_credentials_is_known_to_the_network_worker_alone(
    services: dict[str, dict[str, Any]],
) -> None:
    assert _who_has("DURAPAY_UNSEALING_PRIVATE_KEY", services) == {"worker-network"}


def test_only_the_network_worker_reaches_the_card_network(services: dict[str, dict[str, Any]]) -> None:
    assert _who_is_in("card-network", services) == {"worker-network", "network-simulator"}


def test_only_the_settlement_worker_reaches_the_networks_clearing(services: dict[str, dict[str, Any]]) -> None:
    assert _who_is_in("clearing", services) == {"worker-settlement", "network-simulator"}
    assert _who_has("DURAPAY_CLEARING_TOKEN", services) == {"worker-settlement"}


def test_the_internet_reaches_the_gateway_alone(compose: dict[str, Any]) -> None:
    outward = {name for name, network in compose["networks"].items() if not (network or {}).get("internal")}
    assert outward == {"edge", "operators"}
    assert _who_is_in("edge", compose["services"]) == {"kong"}
    assert _who_is_in("operators", compose["services"]) == {"temporal-ui", "codec-server", "notification-sandbox"}


def test_the_image_runs_as_an_ordinary_user_from_locked_dependencies() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER durapay"]
    assert lines.index("USER durapay") > max(index for index, line in enumerate(lines) if line.startswith("RUN "))
    assert any("--require-hashes" in line for line in lines)
    copied = {line.split()[1] for line in lines if line.startswith("COPY ") and not line.startswith("COPY --from")}
    assert all((ROOT / name).exists() or Path(name).is_absolute() for name in copied)


def test_kong_routes_what_the_api_serves_and_never_repeats_a_request() -> None:
    kong = yaml.safe_load((ROOT / "deploy/compose/kong.yml").read_text())
    services = {service["name"]: service for service in kong["services"]}
    assert {name: service["url"] for name, service in services.items()} == {
        "api": "http://api:8000",
        "documents": "http://aws:5000",
    }
    assert services["api"]["retries"] == 0
    assert {plugin["name"] for plugin in kong["plugins"]} == {"rate-limiting", "request-size-limiting"}


def test_kong_lets_a_file_of_evidence_in_and_single_files_out() -> None:
    kong = yaml.safe_load((ROOT / "deploy/compose/kong.yml").read_text())
    routes = {route["name"]: route for service in kong["services"] for route in service["routes"]}
    (limit,) = routes["evidence"]["plugins"]
    assert limit["config"]["allowed_payload_size"] * 1_000_000 > ApiSettings.model_fields["max_upload_bytes"].default
    assert routes["evidence"]["methods"] == ["POST"]
    assert routes["files"]["methods"] == ["GET"]
    (path,) = routes["files"]["paths"]
    assert re.search(path.removeprefix("~"), "/durapay-evidence/disputes/dp_1/file_1")
    for other in ("/durapay-evidence", "/durapay-evidence/", "/durapay-evidence/disputes/dp_1/manifest-1.json"):
        assert not re.search(path.removeprefix("~"), other)


def test_evidence_is_reached_by_those_alone_who_keep_read_or_hand_it_out(services: dict[str, dict[str, Any]]) -> None:
    assert _who_is_in("documents", services) == {"api", "worker-payments", "worker-onboarding", "kong", "aws"}
    keepers = {"api", "worker-payments", "worker-onboarding"}
    assert _who_has("DURAPAY_DOCUMENTS_SECRET_ACCESS_KEY", services) == keepers


def test_keys_of_persons_are_lent_to_the_onboarding_worker_alone(services: dict[str, dict[str, Any]]) -> None:
    assert _who_has("DURAPAY_ONBOARDING_PRIVATE_KEY", services) == {"worker-onboarding"}


def _who_has(variable: str, services: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, service in services.items() if variable in service.get("environment", {})}


def _who_is_in(network: str, services: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, service in services.items() if network in service.get("networks", [])}
