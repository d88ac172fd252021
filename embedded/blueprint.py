"""The platform on one machine: its parts, what each waits for, and the values of all settings."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
from temporalio.client import Client

from config.settings import FraudSettings
from embedded.health import polls
from embedded.processes import LOOPBACK, ServerFailed, base_environment
from embedded.servers import Moto, Postgres, PythonModule, Temporal, Valkey
from embedded.softhsm import configuration_file, find_module
from embedded.stack import Part
from embedded.state import ROOT, StateFolder, sealing_public_key
from embedded.zones import Zone, environment
from notify.sandbox.credentials import write_service_account

DATABASE = "durapay"
_TOKEN_LABEL = "durapay"  # noqa: S105 - a name
_SES_REGION = "eu-central-1"
_SES_SENDER = "receipts@durapay.example"
_DOCUMENTS_REGION = "eu-central-1"
# Whoever plays with the platform on one machine, or measures it, is one address and often one key.
_RATE_LIMITS = {
    "DURAPAY_RATE_LIMIT_READS": "120000/6000/120000",
    "DURAPAY_RATE_LIMIT_WRITES": "120000/6000/120000",
    "DURAPAY_RATE_LIMIT_MONEY": "120000/6000/120000",
    "DURAPAY_RATE_LIMIT_SIGN_IN": "120000/6000/120000",
    "DURAPAY_RATE_LIMIT_REFUSED_PER_ADDRESS": "6000",
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where people go."""

    api: str
    temporal: str
    temporal_ui: str
    codec_server: str
    sandbox: str

    @classmethod
    def of(cls, ports: Mapping[str, int]) -> Addresses:
        def http(name: str) -> str:
            return f"http://{LOOPBACK}:{ports[name]}"

        temporal = f"{LOOPBACK}:{ports['temporal']}"
        return cls(http("api"), temporal, http("ui"), http("codec_server"), http("sandbox"))


class Blueprint:
    """Makes the parts from the folder's secrets and ports."""

    def __init__(self, state: StateFolder, ports: Mapping[str, int]) -> None:
        self._state = state
        self._ports = ports
        self._addresses = Addresses.of(ports)
        self._postgres = Postgres(
            state.data("postgres"),
            log=state.log("postgres"),
            password=state.secret("database_password"),
            port=ports["database"],
        )
        self._valkey = Valkey(
            state.data("valkey"),
            log=state.log("valkey"),
            password=state.secret("redis_password"),
            port=ports["redis"],
        )
        self._temporal = Temporal(
            state.data("temporal") / "temporal.db",
            log=state.log("temporal"),
            port=ports["temporal"],
            ui_port=ports["ui"],
            codec_endpoint=self._addresses.codec_server,
        )
        self._moto = Moto(log=state.log("aws"), port=ports["aws"], data=state.data("aws"))
        self._values = _values(state, ports, self._postgres.url(DATABASE), self._valkey.url())

    @property
    def addresses(self) -> Addresses:
        return self._addresses

    def environment(self, zone: Zone) -> dict[str, str]:
        """The variables of one zone, as its processes get them."""
        return environment(zone, self._values)

    @property
    def database_url(self) -> str:
        return self._postgres.url(DATABASE)

    def parts(self) -> list[Part]:
        return [
            Part("PostgreSQL", self._postgres, then=self._create_database),
            Part("Valkey", self._valkey),
            Part("Temporal", self._temporal),
            Part("SES and S3 (moto)", self._moto, then=self._prepare_aws),
            Part("network simulator", self._simulator()),
            Part("notification sandbox", self._sandbox()),
            Part("bank simulator", self._bank_simulator()),
            Part("database schema", after=("PostgreSQL",), then=self._one_shot(Zone.DATABASE_SETUP, "database")),
            Part("HSM token and keys", then=self._create_token),
            Part("fraud model", then=self._require_model),
            self._worker(Zone.PAYMENTS, "database schema", "Valkey", "fraud model", "SES and S3 (moto)"),
            self._worker(Zone.VAULT, "database schema", "Valkey", "HSM token and keys"),
            self._worker(Zone.NETWORK, "database schema", "network simulator"),
            self._worker(Zone.NOTIFY, "database schema", "SES and S3 (moto)", "notification sandbox"),
            self._worker(Zone.SETTLEMENT, "database schema", "network simulator"),
            self._worker(Zone.BANK, "database schema", "bank simulator"),
            self._worker(Zone.ONBOARDING, "database schema", "Valkey", "SES and S3 (moto)"),
            Part("codec server", self._codec_server(), after=("database schema",)),
            Part(
                "API",
                self._api(),
                after=("database schema", "Valkey", "Temporal", "HSM token and keys", "SES and S3 (moto)"),
            ),
        ]

    def _program(
        self, name: str, zone: Zone, *argv: str, port: int | None = None, url: str | None = None
    ) -> PythonModule:
        return PythonModule(
            name,
            *argv,
            log=self._state.log(zone.value),
            env=self.environment(zone),
            port=port,
            health_url=url,
            cwd=ROOT,
        )

    def _worker(self, zone: Zone, *after: str) -> Part:
        name = f"{zone.value} worker"
        program = self._program(name, zone, "workers", zone.value)

        async def until_it_polls() -> None:
            client = await Client.connect(self._addresses.temporal)
            await program.process.until_healthy(lambda: polls(client, zone.value, pid=program.process.pid))

        return Part(name, program, after=("Temporal", *after), then=until_it_polls)

    def _api(self) -> PythonModule:
        url = f"{self._addresses.api}/health"
        return self._program("API", Zone.API, "api", port=self._ports["api"], url=url)

    def _codec_server(self) -> PythonModule:
        return self._program(
            "codec server",
            Zone.CODEC_SERVER,
            "temporal.codec_server",
            port=self._ports["codec_server"],
            url=f"{self._addresses.codec_server}/health",
        )

    def _simulator(self) -> PythonModule:
        url = f"http://{LOOPBACK}:{self._ports['network_control']}/health"
        return self._program(
            "network simulator", Zone.SIMULATOR, "network.simulator", port=self._ports["network"], url=url
        )

    def _bank_simulator(self) -> PythonModule:
        port = self._ports["bank"]
        url = f"http://{LOOPBACK}:{port}/health"
        return self._program("bank simulator", Zone.BANK_SIMULATOR, "bank.simulator", port=port, url=url)

    def _sandbox(self) -> PythonModule:
        return self._program(
            "notification sandbox",
            Zone.SANDBOX,
            "notify.sandbox",
            port=self._ports["sandbox"],
            url=f"{self._addresses.sandbox}/healthz",
        )

    async def _create_database(self) -> None:
        await self._postgres.create_database(DATABASE)

    async def _prepare_aws(self) -> None:
        """moto keeps identities and buckets in memory, so this follows each of its starts."""
        await asyncio.gather(self._verify_sender(), self._run(Zone.DOCUMENT_SETUP, "embedded.provision", "bucket"))

    async def _verify_sender(self) -> None:

        def verify() -> None:
            boto3.client(
                "ses",
                endpoint_url=self._moto.endpoint,
                region_name=_SES_REGION,
                aws_access_key_id=self._values["DURAPAY_NOTIFY_SES_ACCESS_KEY_ID"],
                aws_secret_access_key=self._values["DURAPAY_NOTIFY_SES_SECRET_ACCESS_KEY"],
            ).verify_email_identity(EmailAddress=_SES_SENDER)

        await asyncio.to_thread(verify)

    async def _create_token(self) -> None:
        """The ceremony's record (the keys' check values) is there once it is done."""
        record = self._state.data("hsm") / "key-check-values.txt"
        if record.exists():
            return
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(await self._run(Zone.TOKEN_SETUP, "embedded.provision", "token"))

    async def _require_model(self) -> None:
        if not any(FraudSettings.model_fields["model_dir"].get_default().glob("*.cbm")):
            await self._run(Zone.PAYMENTS, "fraud.training")

    def _one_shot(self, zone: Zone, step: str) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            await self._run(zone, "embedded.provision", step)

        return run

    async def _run(self, zone: Zone, *argv: str) -> str:
        """What `python -m …` printed. Raises ServerFailed if it fails."""
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", *argv),
            env=base_environment() | environment(zone, self._values),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await process.communicate()
        if process.returncode != 0:
            raise ServerFailed(f"python -m {' '.join(argv)} ended with code {process.returncode}:\n{errors.decode()}")
        return output.decode()


def _values(state: StateFolder, ports: Mapping[str, int], database_url: str, redis_url: str) -> dict[str, str]:
    """All variables of all zones. `environment` hands each process its own, and no other."""
    sandbox = Addresses.of(ports).sandbox
    for program in ("sandbox", "simulator", "bank"):
        state.data(program).mkdir(parents=True, exist_ok=True, mode=0o700)
    return {
        "SOFTHSM2_CONF": str(configuration_file(state.data("hsm"))),
        "DURAPAY_CEREMONY_IMK_AC": state.secret("imk_ac"),
        "DURAPAY_CEREMONY_SO_PIN": state.secret("hsm_so_pin"),
        "DURAPAY_DATABASE_URL": database_url,
        "DURAPAY_REDIS_URL": redis_url,
        "DURAPAY_TEMPORAL_ADDRESS": f"{LOOPBACK}:{ports['temporal']}",
        "DURAPAY_CODEC_KEYS": f"k1:{state.secret('codec_key')}",
        "DURAPAY_CODEC_ACTIVE_KEY_ID": "k1",
        "DURAPAY_HSM_MODULE": str(find_module()),
        "DURAPAY_HSM_TOKEN_LABEL": _TOKEN_LABEL,
        "DURAPAY_HSM_PIN": state.secret("hsm_pin"),
        "DURAPAY_SEALING_PUBLIC_KEY": sealing_public_key(state.secret("unsealing_private_key")),
        "DURAPAY_UNSEALING_PRIVATE_KEY": state.secret("unsealing_private_key"),
        "DURAPAY_NETWORK_HOST": LOOPBACK,
        "DURAPAY_NETWORK_PORT": str(ports["network"]),
        # An acquirer waits ten seconds or more; a person who watches a demonstration need not.
        "DURAPAY_NETWORK_ANSWER_TIMEOUT_SECONDS": "4",
        "DURAPAY_SIMULATOR_PORT": str(ports["network"]),
        "DURAPAY_SIMULATOR_CONTROL_PORT": str(ports["network_control"]),
        "DURAPAY_SIMULATOR_CONTROL_TOKEN": state.secret("simulator_control_token"),
        "DURAPAY_SIMULATOR_CLEARING_TOKEN": state.secret("clearing_token"),
        "DURAPAY_CLEARING_URL": f"http://{LOOPBACK}:{ports['network_control']}",
        "DURAPAY_CLEARING_TOKEN": state.secret("clearing_token"),
        "DURAPAY_SIMULATOR_JOURNAL_FILE": str(state.data("simulator") / "journal.db"),
        "DURAPAY_SIMULATOR_IMK_AC": state.secret("imk_ac"),
        "DURAPAY_SIMULATOR_FINGERPRINT_KEY": state.secret("simulator_fingerprint_key"),
        "DURAPAY_LENDING_PUBLIC_KEY": sealing_public_key(state.secret("onboarding_private_key")),
        "DURAPAY_ONBOARDING_PRIVATE_KEY": state.secret("onboarding_private_key"),
        "DURAPAY_BANK_URL": f"http://{LOOPBACK}:{ports['bank']}",
        "DURAPAY_BANK_TOKEN": state.secret("bank_token"),
        "DURAPAY_BANK_PRIVATE_KEY": state.secret("bank_private_key"),
        "DURAPAY_BANK_SEALING_PUBLIC_KEY": sealing_public_key(state.secret("bank_private_key")),
        "DURAPAY_CORRECTION_PRIVATE_KEY": state.secret("correction_private_key"),
        "DURAPAY_CORRECTION_SEALING_PUBLIC_KEY": sealing_public_key(state.secret("correction_private_key")),
        "DURAPAY_BANK_SIMULATOR_PORT": str(ports["bank"]),
        "DURAPAY_BANK_SIMULATOR_TOKEN": state.secret("bank_token"),
        "DURAPAY_BANK_SIMULATOR_CONTROL_TOKEN": state.secret("bank_control_token"),
        "DURAPAY_BANK_SIMULATOR_JOURNAL_FILE": str(state.data("bank") / "journal.db"),
        "DURAPAY_STEP_UP_SECRET": state.secret("step_up_secret"),
        "DURAPAY_API_PORT": str(ports["api"]),
        # A browser keeps no passkeys for an IP address.
        "DURAPAY_PASSKEYS_ORIGIN": f"http://localhost:{ports['api']}",
        **_RATE_LIMITS,
        # The test cards are everybody's.
        "DURAPAY_API_VERIFICATIONS_PER_CARD": "100000",
        "DURAPAY_IDENTITY_SECRET": state.secret("identity_secret"),
        "DURAPAY_CONTACT_CODES_SECRET": state.secret("contact_codes_secret"),
        "DURAPAY_CODEC_SERVER_PORT": str(ports["codec_server"]),
        "DURAPAY_CODEC_SERVER_UI_ORIGIN": f"http://{LOOPBACK}:{ports['ui']}",
        "DURAPAY_NOTIFY_FCM_SERVICE_ACCOUNT_FILE": str(_service_account(state, sandbox)),
        "DURAPAY_SANDBOX_PORT": str(ports["sandbox"]),
        "DURAPAY_SANDBOX_CONTROL_TOKEN": state.secret("sandbox_control_token"),
        "DURAPAY_SANDBOX_STATE": str(state.data("sandbox") / "messages.db"),
        "DURAPAY_NOTIFY_FCM_ENDPOINT": sandbox,
        "DURAPAY_NOTIFY_TWILIO_ACCOUNT_SID": state.secret("twilio_account_sid"),
        "DURAPAY_NOTIFY_TWILIO_AUTH_TOKEN": state.secret("twilio_auth_token"),
        "DURAPAY_NOTIFY_TWILIO_FROM": "+15005550006",
        "DURAPAY_NOTIFY_TWILIO_ENDPOINT": sandbox,
        "DURAPAY_NOTIFY_SES_REGION": _SES_REGION,
        "DURAPAY_NOTIFY_SES_SENDER": _SES_SENDER,
        "DURAPAY_NOTIFY_SES_ACCESS_KEY_ID": state.secret("ses_access_key_id"),
        "DURAPAY_NOTIFY_SES_SECRET_ACCESS_KEY": state.secret("ses_secret_access_key"),
        "DURAPAY_NOTIFY_SES_ENDPOINT": f"http://{LOOPBACK}:{ports['aws']}",
        "DURAPAY_DOCUMENTS_REGION": _DOCUMENTS_REGION,
        "DURAPAY_DOCUMENTS_ACCESS_KEY_ID": state.secret("documents_access_key_id"),
        "DURAPAY_DOCUMENTS_SECRET_ACCESS_KEY": state.secret("documents_secret_access_key"),
        "DURAPAY_DOCUMENTS_ENDPOINT": f"http://{LOOPBACK}:{ports['aws']}",
    }


def _service_account(state: StateFolder, sandbox: str) -> Path:
    """The file with which the notify worker logs in at the sandbox. It names the sandbox, so it follows its port."""
    file = state.path / "secrets" / "fcm_service_account.json"
    if not file.exists() or json.loads(file.read_text())["token_uri"] != f"{sandbox}/token":
        write_service_account(file, sandbox)
    return file
